#!/usr/bin/env python3
"""Debian's kernel on ext4 on our disks: what it wrote is there, for the host and for the next boot, after a move too; and
no two programs have one image.

# boots Linux
# runs alone
"""
import contextlib, hashlib, pathlib, re, subprocess, sys, tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / 'lib'))
from vm import LONG, PATIENCE_S, Failure, Vm, listening, main, test, wait_for
from disk import acknowledged_are_there, acks, disk_args, fsck, image, qemu_img, refused, small_host, tool
from linux import healthy, wait_for_line, waiting

HOPS = 20 if LONG else 3


def boot(args, *patterns):
    """One boot until it has powered off; the matches."""
    with Vm(args, name='guest') as vm:
        found = [wait_for_line(vm, pattern) for pattern in patterns]
        wait_for_line(vm, 'disk: done')
        if vm.wait_exit() != 0:
            raise Failure(f'code {vm.wait_exit()} after poweroff: {vm.stderr()}')
        return found


@test
def ext4_on_a_raw_disk_is_whole_for_the_host_and_for_the_next_boot():
    with image(ext4=True) as path:
        boot(disk_args('fill,40', f'file={path},format=raw,discard=unmap,cache=writeback'), r'disk: filled 40 files')
        fsck(path)
        boot(disk_args('check', f'file={path},format=raw,readonly=on'), r'disk: checked 40 files, 0 bad')


@test
def ext4_on_a_qcow2_disk_over_a_backing_file_is_whole_and_is_moved():
    with image(96, ext4=True) as path:
        top, flat = path.with_name('top'), path.with_name('flat')
        qemu_img('create', '-f', 'qcow2', '-b', path, '-F', 'raw', top)
        before = hashlib.md5(path.read_bytes()).hexdigest()
        drive = f'file={top},format=qcow2,discard=unmap,id=q'
        boot(disk_args('fill,40', drive), r'disk: filled 40 files')
        qemu_img('check', '-f', 'qcow2', top)
        args = disk_args('journal,60', drive)
        with Vm(args, name='source') as source, waiting(args, 'destination') as there:
            wait_for_line(source, r'disk: ack=10\b')
            source.migrate(listening(there), limit_s=2 * PATIENCE_S, downtime_limit=2000)
            there.wait_status('running')
            refused(['-drive', drive], 'another program is writing it')
            wait_for_line(there, r'disk: journal')
            wait_for_line(there, 'disk: done')
            there.wait_exit()
        qemu_img('check', '-f', 'qcow2', top)
        qemu_img('convert', '-f', 'qcow2', '-O', 'raw', top, flat)
        fsck(flat)
        acknowledged_are_there(flat, 60)
        if hashlib.md5(path.read_bytes()).hexdigest() != before:
            raise Failure('the backing file was written')


@test
def a_qcow2_disk_is_consistent_whenever_its_process_is_killed():
    with image(96, ext4=True) as path:
        top, flat = path.with_name('top'), path.with_name('flat')
        for run in range(1, (12 if LONG else 2) + 1):
            qemu_img('convert', '-f', 'raw', '-O', 'qcow2', path, top)
            with Vm(disk_args('journal,1000', f'file={top},format=qcow2'), name=f'run {run}') as vm:
                wait_for_line(vm, rf'disk: ack={7 * run}\b')
                vm.process.kill()
                vm.process.wait()
                seen = max(int(number) for number in re.findall(r'disk: ack=(\d+)', vm.serial()))
            qemu_img('check', '-f', 'qcow2', top, codes=(0, 3))  # 3: leaks alone
            qemu_img('convert', '-f', 'qcow2', '-O', 'raw', top, flat)
            subprocess.run([tool('e2fsck'), '-fy', flat], capture_output=True)  # the journal is replayed
            acknowledged_are_there(flat, seen)


@test
def an_image_that_is_not_in_order_is_refused_with_a_sentence():
    with image(8) as path:
        top = path.with_name('top')
        qemu_img('create', '-f', 'qcow2', top, '8M')
        drive = f'file={top},format=qcow2'
        refused(['-drive', f'file={top}'], "it looks like a qcow2 image: say format=qcow2")
        refused(['-drive', f'file={path},format=qcow2'], 'it is not a qcow2 image')
        data = bytearray(top.read_bytes())
        for at, value, words in ((79, 1, r'refcounts are not up to date \(dirty\)'), (79, 4, 'external data file'),
                                 (72, 128, 'an incompatible feature that is not known here'), (35, 2, 'encrypted')):
            top.write_bytes(data[:at] + bytes([value]) + data[at + 1:])
            refused(['-drive', drive], words)


@test
def several_disks_are_what_the_command_line_says():
    with image(32) as one, image(16) as two, image(8) as three:
        args = disk_args('raw', f'file={one},format=raw,if=none,id=d1') + [
            '-blockdev', f'driver=raw,node-name=d2,read-only=on,file.driver=file,file.filename={two}',
            '-global', 'virtio-mmio.force-legacy=false',
            '-device', 'virtio-blk-device,drive=d2,serial=SECOND', '-device', 'virtio-blk-device,drive=d1,num-queues=2',
            '-drive', f'file={three},format=raw,cache=unsafe']
        lines = sorted(match.group(0) for match in boot(
            args, *(rf'disk: vd\w sectors={mib << 11} ro={ro} serial={serial} queues={queues} '
                    for mib, ro, serial, queues in ((32, 0, '', 2), (16, 1, 'SECOND', 1), (8, 0, '', 1)))))
        if len({line.split()[1] for line in lines}) != 3:
            raise Failure(f'not three disks: {lines}')


@test
def legacy_and_modern_registers_read_back_what_was_written():
    for legacy in ('on', 'off'):
        with image(16) as path:
            args = disk_args('raw', f'file={path},format=raw') + ['-global', f'virtio-mmio.force-legacy={legacy}']
            boot(args, 'disk: wrote', 'disk: read back')


@test
def a_second_process_on_the_same_image_is_refused():
    with image(16) as path:
        drive = f'file={path},format=raw'
        with Vm(['-S', '-bios', 'none', '-drive', drive], name='first') as first:
            first.wait_status('prelaunch')
            refused(['-drive', drive], f"disk 'virtio0': {path}: another program is writing it")
            refused(['-drive', drive + ',readonly=on'], 'another program is writing it')
        with Vm(['-S', '-bios', 'none', '-drive', drive + ',readonly=on'], name='reader') as reader, \
                Vm(['-S', '-bios', 'none', '-drive', drive + ',readonly=on'], name='another') as another:
            reader.wait_status('prelaunch')
            another.wait_status('prelaunch')
            refused(['-drive', drive], 'another program uses it and must not find it changed')


@test
def a_full_host_stops_the_guest_until_there_is_room_and_loses_nothing():
    mkfs = tool('mkfs.ext4')
    with small_host(4) as (folder, resize):
        path = folder / 'disk'
        with open(path, 'wb') as file:
            file.truncate(64 << 20)
        subprocess.run([mkfs, '-q', path], check=True)
        with Vm(disk_args('fill,40', f'file={path},format=raw'), name='guest') as vm:
            vm.wait_status('io-error', limit_s=4 * PATIENCE_S)
            vm.qmp('cont')  # in vain: it is full still
            vm.wait_status('io-error')
            resize(96)
            vm.qmp('cont')
            wait_for_line(vm, 'disk: filled 40 files')
            wait_for_line(vm, 'disk: done')
            vm.wait_exit()
        fsck(path)
        boot(disk_args('check', f'file={path},format=raw,readonly=on'), r'disk: checked 40 files, 0 bad')


@test
def a_guest_moves_with_a_disk_on_shared_storage_and_no_acknowledged_write_is_lost():
    entries = 30 * (HOPS + 1)
    with image(128, ext4=True) as path, contextlib.ExitStack() as ends:
        drive = f'file={path},format=raw,id=shared'
        args = disk_args(f'journal,{entries}', drive)
        at, seen = ends.enter_context(Vm(args, name='hop 0')), 0
        for number in range(1, HOPS + 1):
            wait_for_line(at, rf'disk: ack={seen + 5}\b')
            there = ends.enter_context(waiting(args, f'hop {number}'))
            info = at.migrate(listening(there), limit_s=2 * PATIENCE_S, downtime_limit=2000)
            there.wait_status('running')
            print(f'# hop {number}: downtime {info["__org.godwit_report"]["downtime-ms"]:.1f} ms')
            seen = max(acks(at) + [seen])
            # The one that it left has let the image go, and may not come back while the other runs.
            refused(['-drive', drive], 'another program is writing it')
            if at.qmp.raw('cont').get('error') is None:
                raise Failure('the guest runs twice')
            healthy(at)
            at = there
        wait_for_line(at, rf'disk: journal {entries} files, 0 bad')
        wait_for_line(at, 'disk: done')
        at.wait_exit()
        fsck(path)
        acknowledged_are_there(path, entries)


@test
def a_rehearsal_leaves_a_shared_disk_to_the_source():
    with image(128, ext4=True) as path:
        drive = f'file={path},format=raw,id=shared'
        args = disk_args('journal,40', drive)
        with Vm(args, name='source') as source, waiting(args, 'destination') as there:
            wait_for_line(source, r'disk: ack=5\b')
            uri = listening(there)
            for count in (1, 2):
                source.qmp('migrate-set-parameters', downtime_limit=2000)
                source.qmp.hmp(f'migrate -d -rehearse {uri}')
                source.wait_migration('completed', limit_s=2 * PATIENCE_S)
                wait_for('the destination to wait again',
                         lambda: there.migration()['__org.godwit_report'].get('rehearsals') == count)
                refused(['-drive', drive], 'another program is writing it')
                healthy(source)
            source.migrate(uri, limit_s=2 * PATIENCE_S)
            there.wait_status('running')
            wait_for_line(there, r'disk: journal 40 files, 0 bad')
            wait_for_line(there, 'disk: done')
            there.wait_exit()
        fsck(path)
        acknowledged_are_there(path, 40)


@test
def a_destination_with_another_image_is_refused_and_the_guest_runs_on():
    with image(16) as path, image(16) as other, image(8) as small:
        args = ['-m', '64M', '-bios', 'none', '-drive', f'file={path},format=raw,id=d']
        with Vm(args, name='source') as source:
            source.wait_status('running')
            for wrong, words in ((other, "disk 'd' is not the source's"), (small, "disk 'd' is not the source's")):
                there_args = args[:-1] + [f'file={wrong},format=raw,id=d', '-incoming', 'tcp:127.0.0.1:0']
                with Vm(there_args, name='destination') as there:
                    source.start_migration(listening(there))
                    info = source.wait_migration('failed')
                    if words not in info.get('error-desc', ''):
                        raise Failure(f'{info}')
                source.wait_status('running')
            refused(['-drive', args[-1]], 'another program is writing it')
            with Vm(args + ['-incoming', 'tcp:127.0.0.1:0'], name='destination') as there:
                source.migrate(listening(there))
                there.wait_status('running')
                refused(['-drive', args[-1]], 'another program is writing it')


@test
def a_move_that_fails_leaves_the_disk_with_the_source():
    with image(16) as path:
        args = ['-m', '64M', '-bios', 'none', '-drive', f'file={path},format=raw,id=d']
        with Vm(args, name='source') as source:
            source.wait_status('running')
            with Vm(args + ['-incoming', 'tcp:127.0.0.1:0'], name='destination') as there:
                uri = listening(there)
                source.start_migration(uri, max_bandwidth=1 << 20)
                wait_for('memory on its way', lambda: source.migration().get('ram', {}).get('transferred', 0) > 0)
                there.process.kill()
                there.process.wait()
                source.wait_migration('failed')
            source.wait_status('running')
            refused(['-drive', args[-1]], 'another program is writing it')


@test
def a_guest_in_a_file_lets_its_disk_go_and_takes_it_where_it_is_started():
    with image(16) as path, tempfile.TemporaryDirectory(prefix='godwit-state-') as folder:
        args = ['-m', '64M', '-bios', 'none', '-drive', f'file={path},format=raw,id=d']
        uri = f'file:{folder}/state'
        with Vm(args, name='source') as source:
            source.wait_status('running')
            source.migrate(uri)
            with Vm(args + ['-incoming', uri], name='restored') as restored:
                restored.wait_status('running')
                refused(['-drive', args[-1]], 'another program is writing it')


if __name__ == '__main__':
    main()
