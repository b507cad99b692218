"""The Debian guest as tests use it: what its serial line says, and a place for it to move to."""
import re

from vm import PATIENCE_S, Failure, Vm

BOOT_S = 4 * PATIENCE_S
PANIC = r'Kernel panic|Oops|BUG:|rcu.*stall|soft lockup|Segmentation fault|ERROR'


def healthy(vm):
    found = re.search(PANIC, vm.serial())
    if found:
        line = next(line for line in vm.serial().splitlines() if found.group(0) in line)
        raise Failure(f'the guest in {vm.name} says: {line.strip()}')


def wait_for_line(vm, pattern, limit_s=BOOT_S, after=0):
    match = vm.wait_serial(f'{pattern}|{PANIC}', limit_s, after=after)
    healthy(vm)
    return match


def waiting(args, name):
    """The same machine without its kernel: what a destination is told."""
    args, both = list(args), []
    while args:
        key = args.pop(0)
        value = args.pop(0)
        if key not in ('-kernel', '-initrd', '-append'):
            both += [key, value]
    return Vm(both + ['-incoming', 'tcp:127.0.0.1:0'], name=name)
