#!/usr/bin/env python3
"""What reads a stranger's guest is confined while it does so, and nothing else of the process is; the guest is none the worse."""
import pathlib, sys, tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / 'lib'))
from vm import Failure, Vm, listening, main, test, wait_for
from guests import arrived, finish, machine, memcheck, wait_alive

SLOW = 16 << 20  # bytes a second: time to look


def threads(vm):
    """name: (mode of seccomp, no_new_privs) of every thread."""
    found = {}
    for task in pathlib.Path(f'/proc/{vm.process.pid}/task').iterdir():
        try:
            status = dict(line.split(':\t', 1) for line in (task / 'status').read_text().splitlines() if ':\t' in line)
            found[status['Name']] = int(status['Seccomp']), int(status['NoNewPrivs'])
        except (FileNotFoundError, ProcessLookupError):
            pass
    return found


def can():
    """Has this host what it takes?"""
    return '\nSeccomp_filters:' in pathlib.Path('/proc/self/status').read_text()


def readers_of(vm):
    return {name: held for name, held in threads(vm).items() if name in ('migrate', 'warm') or name.startswith('load/')}


def loading(more):
    """A guest half on its way: what its readers are held to, then it arrives, finds its memory whole, and leaves no held thread."""
    with Vm(machine(harts=2) + memcheck('32M', 2), typing=True, name='source') as source, \
         Vm(machine(harts=2, more=['-incoming', 'tcp:127.0.0.1:0'] + more), typing=True, name='destination') as there:
        wait_alive(source, 2)
        source.start_migration(listening(there), **{'max-bandwidth': SLOW, 'compression': 'none'})
        readers = wait_for('readers', lambda: any(name.startswith('load/') for name in readers_of(there)) and readers_of(there),
                           alive=there.alive)
        others = {name: held for name, held in threads(there).items() if name not in readers}
        source.qmp('migrate-set-parameters', **{'max-bandwidth': 0})
        arrived(source, there)
        finish(there)
        return readers, others


@test
def readers_are_confined_and_nobody_else():
    readers, others = loading([])
    wanted = (2, 1) if can() else (0, 0)
    if set(readers.values()) != {wanted} or len(readers) < 2:
        raise Failure(f'the readers are held to {readers}')
    if any(held != (0, 0) for held in others.values()):
        raise Failure(f'other threads are held to {others}')


@test
def without_a_sandbox_nobody_is():
    readers, others = loading(['-sandbox', 'off'])
    if any(held != (0, 0) for held in (readers | others).values()):
        raise Failure(f'threads are held to {readers | others}')


@test
def a_guest_that_arrived_in_a_sandbox_moves_on():
    """What held the readers is gone with them: the process can do everything that a source does."""
    with Vm(machine(harts=2) + memcheck('32M', 2), typing=True, name='first') as first, \
         Vm(machine(harts=2, more=['-incoming', 'tcp:127.0.0.1:0', '-sandbox', 'on']), typing=True, name='second') as second, \
         Vm(machine(harts=2, more=['-incoming', 'tcp:127.0.0.1:0', '-sandbox', 'on']), typing=True, name='third') as third:
        wait_alive(first, 2)
        first.migrate(listening(second))
        arrived(first, second)
        second.migrate(listening(third))
        arrived(second, third)
        finish(third)


@test
def the_socket_that_a_guest_came_over_is_removed_from_within():
    """By a confined thread: nobody else does so, and the name would be in the way of the next one."""
    for channels in 1, 3:
        with tempfile.TemporaryDirectory(prefix='godwit-') as folder, \
             Vm(machine() + memcheck('2M'), typing=True, name='source') as source, \
             Vm(machine(more=['-incoming', f'unix:{folder}/road']), typing=True, name='destination') as there:
            wait_alive(source)
            source.migrate(listening(there), channels=channels)
            arrived(source, there)
            wait_for('the socket to be removed', lambda: not pathlib.Path(folder, 'road').exists(), 10, alive=there.alive)
            finish(there)


if __name__ == '__main__':
    main()
