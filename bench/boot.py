#!/usr/bin/env python3
"""Debian's kernel from start to init and power-off, godwit and QEMU alternating pair by pair in one run.

    bench/boot.py [--pairs N] [--qemu PATH]     (default: what bench/fetch-qemu unpacks)

Prints wall time until init speaks and CPU seconds (user + system) of the whole process, medians with [min .. max].
"""
import argparse, os, pathlib, resource, statistics, subprocess, sys, time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / 'tests/lib'))
import vm as lib


def boot(binary, harts):
    begun, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with lib.Vm(lib.linux_args('off', '512M', harts), binary=binary, qmp=False) as vm:
        lib.wait_for('init', lambda: 'init: ' in vm.serial(), 300, every_s=0.002, alive=None)
        to_init_s = time.monotonic() - begun
        vm.wait_exit(60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return to_init_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def show(name, values):
    print(f'  {name:34} {statistics.median(values):7.2f} s   [{min(values):.2f} .. {max(values):.2f}]')


def main():
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument('--pairs', type=int, default=5)
    parse.add_argument('--harts', type=int, default=1)
    parse.add_argument('--qemu')
    args = parse.parse_args()
    qemu = args.qemu or subprocess.check_output([lib.TOP / 'bench/fetch-qemu'], text=True).strip()
    version = subprocess.check_output([qemu, '--version'], text=True).splitlines()[0]
    lib.linux_guest()  # fetched and packed before the clock runs
    rows = {'godwit': [], 'qemu': []}
    for _ in range(args.pairs):
        rows['godwit'].append(boot(None, args.harts))
        rows['qemu'].append(boot(qemu, args.harts))
    print(f'Debian boot to init, {args.harts} hart(s), {args.pairs} pairs, load {os.getloadavg()[0]:.1f}; {version}')
    for name, column in (('to init, wall', 0), ('to power-off, CPU', 1)):
        for which in rows:
            show(f'{which}: {name}', [row[column] for row in rows[which]])
        ratios = [g[column] / q[column] for g, q in zip(rows['godwit'], rows['qemu'])]
        print(f'  {"ratio godwit/qemu: " + name:34} {statistics.median(ratios):7.2f}     [{min(ratios):.2f} .. {max(ratios):.2f}]')


if __name__ == '__main__':
    main()
