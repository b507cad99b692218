#!/usr/bin/env python3
"""Debian's kernel from start to init and power-off, godwit and QEMU alternating pair by pair in one run.

    bench/boot.py [--pairs N] [--harts N] [--emulators NAME,...]     (default: godwit and what bench/fetch-qemu unpacks)

Prints wall time until init speaks and CPU seconds (user + system) of the whole process, medians with [min .. max].
"""
import argparse, os, resource, statistics, time

import compare
from compare import lib


def boot(emulator, harts):
    """(seconds until init speaks, CPU seconds until the process has ended)"""
    begun, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    args = [*emulator.args, *lib.linux_args('off', '512M', harts)]
    with lib.Vm(args, binary=emulator.binary, name=emulator.name, qmp=False) as vm:
        lib.wait_for('init', lambda: 'init: ' in vm.serial(), 300, every_s=0.002,
                     alive=lambda: 'init: ' in vm.serial() or vm.alive())
        to_init_s = time.monotonic() - begun
        vm.wait_exit(60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return to_init_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def show(name, values, unit):
    print(f'  {name:38} {statistics.median(values):7.2f} {unit}   [{min(values):.2f} .. {max(values):.2f}]')


def main():
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument('--pairs', type=int, default=5)
    parse.add_argument('--harts', type=int, default=1)
    parse.add_argument('--emulators', default='godwit,qemu-10')
    args = parse.parse_args()
    found = compare.emulators(args.emulators.split(','))
    lib.linux_guest()  # fetched and packed before the clock runs
    rows = {name: [] for name in found}
    for pair in range(args.pairs):
        for emulator in compare.in_turn(found.values(), pair):
            rows[emulator.name].append(boot(emulator, args.harts))
    print(f'Debian boot to init, {args.harts} hart(s), {args.pairs} pairs, load {os.getloadavg()[0]:.1f}')
    for emulator in found.values():
        print(f'  {emulator.name}: {emulator.version}')
    first = next(iter(found), None)
    for name, column in (('to init, wall', 0), ('to power-off, CPU', 1)):
        for which, figures in rows.items():
            show(f'{which}: {name}', [figure[column] for figure in figures], 's')
        for which in list(rows)[1:]:
            show(f'ratio {first}/{which}: {name}', [a[column] / b[column] for a, b in zip(rows[first], rows[which])], ' ')


if __name__ == '__main__':
    main()
