#!/usr/bin/env python3
"""`make demo DISK=1`: a Debian root file system on a disk boots, keeps a journal of durable writes, and moves, running, with its disk, to a
second process that has an empty image; nothing is shared between the two."""
import argparse, pathlib, re, shutil, subprocess, sys, tempfile, time

import demo
from demo import lib, say


def tool(name, package):
    path = shutil.which(name) or shutil.which(name, path='/usr/sbin:/sbin')
    if not path:
        raise lib.Failure(f'there is no {name} here (Debian package {package})')
    return path


def images(folder, form, mib):
    """(the source's, with Debian on it; the destination's, empty)"""
    full, empty = folder / 'source', folder / 'destination'
    made = subprocess.run([lib.TOP / 'scripts/make-disk', full, form, str(mib)])
    if made.returncode:
        raise lib.Failure('no Debian root file system can be made here')
    subprocess.run([tool('qemu-img', 'qemu-utils'), 'create', '-q', '-f', form, empty, f'{mib}M'], check=True)
    return full, empty


def used_mib(image):
    return image.stat().st_blocks * 512 / 2**20


def checked_by_the_host(image, form, folder):
    """What the destination's image is for others: consistent, and a file system without a fault."""
    if form != 'raw':
        ran = subprocess.run([tool('qemu-img', 'qemu-utils'), 'check', '-f', form, image], capture_output=True, text=True)
        if ran.returncode:
            raise lib.Failure(f'qemu-img check of the destination\'s image: {ran.stdout}{ran.stderr}')
    raw = folder / 'checked'
    subprocess.run([tool('qemu-img', 'qemu-utils'), 'convert', '-f', form, '-O', 'raw', image, raw], check=True)
    ran = subprocess.run([tool('e2fsck', 'e2fsprogs'), '-fn', raw], capture_output=True, text=True)
    if ran.returncode:
        raise lib.Failure(f'e2fsck of the destination\'s image: {ran.stdout}{ran.stderr}')
    say('the destination\'s image, looked at by e2fsck' + ('' if form == 'raw' else ' and qemu-img check') + ': clean')


def trouble(*sides):
    for side in sides:
        found = re.search(r'disk: ERROR.*|Kernel panic.*|I/O error.*|Oops.*', side.serial())
        if found:
            raise lib.Failure(f'the guest in the {side.name} says: {found.group(0).strip()}')


def main():
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument('--memory', default='512M')
    parse.add_argument('--harts', type=int, default=2)
    parse.add_argument('--format', default='qcow2', choices=['qcow2', 'raw'])
    parse.add_argument('--disk-mib', type=int, default=1024)
    parse.add_argument('--entries', type=int, default=120, help='of the journal')
    parse.add_argument('--downtime-limit', type=int, default=300, help='ms')
    parse.add_argument('--max-bandwidth', type=int, default=0, help='bytes/s, 0 for no limit')
    args = parse.parse_args()

    kernel, firmware, initrd = lib.linux_guest()
    both = ['-m', args.memory, '-smp', args.harts, '-bios', firmware]
    load = ['-kernel', kernel, '-initrd', initrd, '-append',
            f'console=ttyS0 quiet godwit.run=root godwit.disk=journal,{args.entries}']
    with tempfile.TemporaryDirectory(prefix='godwit-demo-', dir='/var/tmp') as folder:
        folder = pathlib.Path(folder)
        full, empty = images(folder, args.format, args.disk_mib)
        say(f'a disk of {args.disk_mib} MiB, {args.format}: {used_mib(full):.0f} MiB of it Debian; '
            f'and an empty one: {used_mib(empty):.1f} MiB')
        drive = lambda image: ['-drive', f'file={image},format={args.format},if=none,id=root', '-device', 'virtio-blk-device,drive=root']
        begun = time.monotonic()
        with lib.Vm(both + load + drive(full), name='source') as source:
            booted = source.wait_serial(r'disk: (Debian.*?)\r?\n', 180)
            say(f'after {time.monotonic() - begun:.1f} s the guest says: {booted.group(1)}')
            source.wait_serial(r'disk: ack=10\b', 180)
            say('it writes a journal: each entry is durable before it is acknowledged')
            port = lib.free_port()
            uri = f'tcp:127.0.0.1:{port}'
            with lib.Vm(both + drive(empty) + ['-incoming', uri], name='destination') as destination:
                destination.wait_status('inmigrate')
                say(f'a second godwit waits at {uri} with the empty disk; moving memory and disk, downtime limit {args.downtime_limit} ms')
                parameters = {'downtime_limit': args.downtime_limit}
                if args.max_bandwidth:
                    parameters['max_bandwidth'] = args.max_bandwidth
                source.qmp('migrate-set-parameters', **parameters)
                source.qmp('migrate', uri=uri, blk=True)
                info = demo.progress(source, time.monotonic())
                if info['status'] != 'completed':
                    say(f'migration {info["status"]}: {info.get("error-desc", "no reason given")}')
                    return 1
                destination.wait_status('running')
                before = len(re.findall(r'disk: ack=\d+', source.serial()))
                whole = destination.wait_serial(r'disk: journal of (\d+): (\d+) good', 300)
                destination.wait_serial('disk: done')
                destination.wait_exit()
                trouble(source, destination)
                ram, disk = info['ram'], info['disk']
                demo.table([('total time', f'{info["total-time"]} ms'),
                            ('memory sent', f'{ram["transferred"] / 2**20:.1f} MiB on the wire'),
                            ('disk sent', f'{disk["transferred"] / 2**20:.1f} MiB of {disk["total"] / 2**20:.0f}'),
                            ('pause asked for', f'at most {args.downtime_limit} ms'),
                            ('pause measured', f'{info["downtime"]} ms'),
                            ('journal', f'{before} entries acknowledged here, {whole.group(1)} in all; '
                                        f'read back at the other side: {whole.group(2)} good'),
                            ('the image there', f'{used_mib(empty):.0f} MiB')])
                demo.report(source)
        checked_by_the_host(empty, args.format, folder)
        if whole.group(1) != whole.group(2):
            say('an entry that was acknowledged is missing')
            return 1
        return 0


if __name__ == '__main__':
    try:
        sys.exit(main())
    except (lib.Failure, lib.Skip, subprocess.CalledProcessError) as why:
        say(str(why))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
