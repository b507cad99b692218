#!/usr/bin/env python3
"""A guest's disk as fio sees it in Debian: godwit and QEMU on the same image, alternating pair by pair in one run.

    bench/fio.py [--pairs N] [--seconds N] [--format raw|qcow2] [--rows NAME,...] [--emulators NAME,...]

A row is fio's --rw and --iodepth: read-4 is 1 MiB in order, four at a time; randread-16 is 4 KiB at random, sixteen at a time. fio uses
libaio and O_DIRECT in the guest; the emulators have cache=writeback, modern registers, one queue, two harts. The image is 512 MiB, all of it
written before, and copied anew for every boot. Beside fio's figure stands the CPU time of the emulator per GiB or per 1000 requests.
One JSON line a figure goes to build/results/fio.jsonl.
"""
import argparse, json, os, pathlib, shutil, statistics, subprocess, sys, tempfile

import compare
from compare import lib

ROWS = ['read-4', 'write-4', 'randread-1', 'randwrite-1', 'randread-16', 'randwrite-16']
MIB = 512


def root_disk(folder):
    ran = subprocess.run([lib.TOP / 'scripts/make-disk', folder / 'root', 'raw', '512', 'fio'])
    if ran.returncode:
        sys.exit('fio.py: no disk to boot from')
    return folder / 'root'


def image(folder, form):
    """A disk without holes and without runs of zeros."""
    raw = folder / 'raw'
    with open(raw, 'wb') as file:
        for _ in range(MIB):
            file.write(os.urandom(1 << 20))
    if form == 'raw':
        return raw
    subprocess.run(['qemu-img', 'convert', '-f', 'raw', '-O', form, raw, folder / 'image'], check=True)
    return folder / 'image'


def one_boot(emulator, root, disk, form, rows, seconds):
    """What fio said of each row, and the CPU seconds of the emulator from its first word of it to its last."""
    args = ['-m', '512M', '-smp', '2', '-global', 'virtio-mmio.force-legacy=false']
    kernel, firmware, initrd = lib.linux_guest()
    args += ['-bios', firmware, '-kernel', kernel, '-initrd', initrd, '-append',
             f'console=ttyS0 quiet godwit.run=root godwit.disk=fio,{":".join(rows)},{seconds},/dev/disk-under-test']
    args += ['-drive', f'file={root},format=raw,if=none,id=root,cache=unsafe', '-device', 'virtio-blk-device,drive=root,serial=ROOT']
    args += ['-drive', f'file={disk},format={form},if=none,id=test,cache=writeback',
             '-device', 'virtio-blk-device,drive=test,serial=TEST']
    with lib.Vm([*emulator.args, *args], binary=emulator.binary, name=emulator.name, qmp=False) as vm:
        figures, done = {}, 0
        for row in rows:
            lib.wait_for(f'{row} to begin', lambda: f'disk: fio begins {row}' in vm.serial(), 300, every_s=0.002, alive=vm.alive)
            before_s = cpu_s(vm.process.pid)
            match = vm.wait_serial(r'disk: fio (\{.*\})\r?\n|(disk: ERROR.*)', 300, after=done)
            if match.group(2):
                raise lib.Failure(match.group(2))
            used_s, done = cpu_s(vm.process.pid) - before_s, match.end()
            job = json.loads(match.group(1))['jobs'][0]
            side = job['read' if 'read' in row else 'write']
            figures[row] = {'MiB/s': side['bw_bytes'] / (1 << 20), 'requests/s': side['iops'], 'p99_us': side['clat_ns']['percentile']['99.000000'] / 1e3,
                            'cpu_s': used_s, 'requests': side['total_ios'], 'error': job['error']}
        vm.wait_exit(60)
        return figures


def cpu_s(pid):
    fields = pathlib.Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def main():
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument('--pairs', type=int, default=3)
    parse.add_argument('--seconds', type=int, default=4)
    parse.add_argument('--format', default='raw', choices=['raw', 'qcow2'])
    parse.add_argument('--rows', default=','.join(ROWS))
    parse.add_argument('--emulators', default='godwit,qemu-10')
    args = parse.parse_args()
    rows = args.rows.split(',')
    found = compare.emulators(args.emulators.split(','))
    results = lib.BUILD / 'results/fio.jsonl'
    results.parent.mkdir(exist_ok=True)
    figures = {name: [] for name in found}
    with tempfile.TemporaryDirectory(prefix='godwit-fio-', dir='/var/tmp') as folder, open(results, 'a') as log:
        folder = pathlib.Path(folder)
        root, fresh = root_disk(folder), image(folder, args.format)
        for pair in range(args.pairs):
            for emulator in compare.in_turn(found.values(), pair):
                disk = folder / 'disk'
                shutil.copyfile(fresh, disk)
                os.sync()
                figures[emulator.name].append(one_boot(emulator, root, disk, args.format, rows, args.seconds))
                print(json.dumps({'emulator': emulator.version, 'pair': pair, 'format': args.format, 'load': os.getloadavg()[0],
                                  'figures': figures[emulator.name][-1]}), file=log, flush=True)
    print(f'fio on {args.format}, {args.pairs} pairs of {args.seconds} s, load {os.getloadavg()[0]:.1f}')
    for emulator in found.values():
        print(f'  {emulator.name}: {emulator.version}')
    first = next(iter(found))
    print(f'| {"row":12} | {" | ".join(found)} | {" | ".join(f"{first}/{other}" for other in list(found)[1:])} | CPU ms a request |')
    for row in rows:
        unit = 'requests/s' if row.startswith('rand') else 'MiB/s'
        of = {name: [boot[row][unit] for boot in boots] for name, boots in figures.items()}
        cells = [f'{statistics.median(v):.0f} {unit} [{min(v):.0f} .. {max(v):.0f}]' for v in of.values()]
        ratios = [f'{statistics.median(a / b for a, b in zip(of[first], of[other])):.2f}' for other in list(found)[1:]]
        cpu = [f'{statistics.median(1e3 * b[row]["cpu_s"] / max(1, b[row]["requests"]) for b in boots):.2f}' for boots in figures.values()]
        print(f'| {row:12} | {" | ".join(cells)} | {" | ".join(ratios)} | {", ".join(cpu)} |')


if __name__ == '__main__':
    main()
