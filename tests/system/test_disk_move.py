#!/usr/bin/env python3
"""Disks that move with their guest (`migrate -b`): the destination's image becomes what the source's was, and what the
guest was told is durable is on it.

# boots Linux
# runs alone
"""
import contextlib, os, pathlib, random, re, subprocess, sys, tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / 'lib'))
from vm import LONG, PATIENCE_S, Failure, Vm, listening, main, test, wait_for
from disk import acknowledged_are_there, acks, disk_args, fsck, image, qemu_img, refused, small_host
from linux import healthy, wait_for_line, waiting

HOPS = 20 if LONG else 3
IDLE = ['-m', '64M', '-bios', 'none']


@contextlib.contextmanager
def folder():
    with tempfile.TemporaryDirectory(prefix='godwit-disk-', dir='/var/tmp') as path:
        yield pathlib.Path(path)


def scattered(path, size, pieces=40, seed=1):
    """An image with some data here and there, one piece up to its last sector."""
    rng = random.Random(seed)
    with open(path, 'wb') as file:
        file.truncate(size)
        for offset in [rng.randrange(size // 512) * 512 for _ in range(pieces)] + [size - 512]:
            file.seek(offset)
            file.write(rng.randbytes(min(rng.randrange(1, 64) * 512, size - offset)))
    return path


def same(one, two):
    if subprocess.run(['cmp', one, two]).returncode:
        raise Failure(f'{one} and {two} differ')


def allocated(path):
    return os.stat(path).st_blocks * 512


def target(args, drive, name='destination'):
    return Vm(args + ['-drive', drive, '-incoming', 'tcp:127.0.0.1:0'], name=name)


def start_copy(vm, uri, way='blk', **parameters):
    if parameters:
        vm.qmp('migrate-set-parameters', **parameters)
    vm.qmp('migrate', uri=uri, **{way: True})


def copy(vm, uri, limit_s=PATIENCE_S, **parameters):
    start_copy(vm, uri, **parameters)
    return vm.wait_migration('completed', limit_s=limit_s)


@test
def a_disk_moves_into_an_image_that_is_made_for_it_and_the_other_way_round():
    size = (40 << 20) + 1536
    with folder() as at:
        one, two = scattered(at / 'one', size), at / 'two'
        with Vm(IDLE + ['-drive', f'file={one},format=raw,id=root'], name='source') as source, \
                target(IDLE, f'file={two},format=raw,id=other,create=on,size={size}') as there:
            source.wait_status('running')
            info = copy(source, listening(there))
            there.wait_status('running')
            disk = info['disk']
            if disk['total'] != size or disk['remaining'] or disk['__org.godwit_disks'][0]['device'] != 'root':
                raise Failure(f'{disk}')
            if 'disk root' not in source.qmp.hmp('info migrate'):
                raise Failure(source.qmp.hmp('info migrate'))
            same(one, two)
            # Now it is that one's, and the old image is nobody's: it is overwritten, wherever it differs.
            refused(['-drive', f'file={two},format=raw'], 'another program is writing it')
            scattered(one, size, seed=2)
            with target(IDLE, f'file={one},format=raw') as back:
                there.qmp('migrate-set-parameters', channels=3)
                copy(there, listening(back))
                back.wait_status('running')
                same(one, two)
                if back.migration()['disk']['__org.godwit_disks'][0]['copied'] == 0:
                    raise Failure(f'{back.migration()["disk"]}')


@test
def what_is_above_a_common_backing_file_moves_and_hides_what_is_below():
    """With zeros above data, too: of those the other side has the data below."""
    size = 16 << 20
    with folder() as at:
        base = at / 'base'
        base.write_bytes(random.Random(5).randbytes(size))
        for top in ('one', 'two'):
            qemu_img('create', '-q', '-f', 'qcow2', '-b', base, '-F', 'raw', at / top)
        # zeroes in whole clusters, a cluster of data that is mostly zeros, one of nothing but data
        subprocess.run(['qemu-io', '-f', 'qcow2', '-c', 'write -z 1M 2M', '-c', 'write -P 0 5M 64k', '-c', 'write -P 7 5M 4k',
                        '-c', 'write -P 9 9M 1M', at / 'one'], check=True, stdout=subprocess.DEVNULL)
        drive = lambda top: f'file={at / top},format=qcow2,id=root'
        with Vm(IDLE + ['-drive', drive('one')], name='source') as source, target(IDLE, drive('two')) as there:
            source.wait_status('running')
            start_copy(source, listening(there), 'inc')
            info = source.wait_migration('completed')
            there.wait_status('running')
            if info['disk']['transferred'] > 8 << 20:
                raise Failure(f'more than what is above was sent: {info["disk"]}')
        for top in ('one', 'two'):
            qemu_img('check', '-q', '-f', 'qcow2', at / top)
        qemu_img('compare', '-f', 'qcow2', '-F', 'qcow2', at / 'one', at / 'two')


@test
def holes_of_a_large_sparse_image_are_neither_sent_nor_filled():
    size = 100 << 30
    with folder() as at:
        one, two = scattered(at / 'one', size), at / 'two'
        with Vm(IDLE + ['-drive', f'file={one},format=raw'], name='source') as source, \
                target(IDLE, f'file={two},format=raw,create=on,size=100G') as there:
            source.wait_status('running')
            info = copy(source, listening(there))
            there.wait_status('running')
            sent = info['disk']['__org.godwit_disks'][0]['copied']
            print(f'# {allocated(one) >> 10} KiB of data, {sent >> 10} KiB copied, {info["total-time"]} ms')
            if sent > 2 * allocated(one) or allocated(two) > 2 * allocated(one) + (1 << 20):
                raise Failure(f'{allocated(one)} bytes became {sent} on the way and {allocated(two)} there')
        # comparing the rest would take minutes: what is data here is data there, and its contents are the same
        def data(path):
            with open(path, 'rb') as file:
                at, found = 0, {}
                while True:
                    try:
                        at = os.lseek(file.fileno(), at, os.SEEK_DATA)
                    except OSError:
                        return found
                    end = os.lseek(file.fileno(), at, os.SEEK_HOLE)
                    for unit in range(at // 4096 * 4096, end, 4096):
                        block = os.pread(file.fileno(), 4096, unit)
                        if block.strip(b'\0'):
                            found[unit] = block
                    at = end
        if data(one) != data(two):
            raise Failure('the images differ')


@test
def an_image_of_another_size_or_the_sources_own_is_refused_and_the_guest_runs_on():
    with folder() as at:
        one = scattered(at / 'one', 8 << 20)
        with Vm(IDLE + ['-drive', f'file={one},format=raw,id=d'], name='source') as source:
            source.wait_status('running')
            small, large = scattered(at / 'small', 4 << 20), scattered(at / 'large', 16 << 20)
            for drive, words in ((f'file={small},format=raw', 'has 4194304 bytes here'),
                                 (f'file={large},format=raw', 'has 16777216 bytes here'),
                                 (f'file={one},format=raw', 'another program is writing it'),
                                 (f'file={small},format=raw,readonly=on', '')):
                with target(IDLE, drive) as there:
                    start_copy(source, listening(there))
                    info = source.wait_migration('failed')
                    if words not in info.get('error-desc', ''):
                        raise Failure(f'{info}')
                source.wait_status('running')
            for way in ('inc',):
                error = source.qmp.raw('migrate', uri='tcp:127.0.0.1:1', inc=True).get('error', {}).get('desc', '')
                if 'has no backing file' not in error:
                    raise Failure(error)


@test
def a_cancelled_copy_leaves_the_guest_its_disk_and_another_one_may_follow():
    with folder() as at:
        one, two = scattered(at / 'one', 64 << 20, pieces=2000), at / 'two'
        drive = f'file={two},format=raw,create=on,size=64M'
        with Vm(IDLE + ['-drive', f'file={one},format=raw'], name='source') as source:
            source.wait_status('running')
            with target(IDLE, drive) as there:
                start_copy(source, listening(there), max_bandwidth=1 << 20)
                wait_for('a disk on its way', lambda: source.migration().get('disk', {}).get('transferred', 0) > 0)
                source.qmp('migrate_cancel')
                source.wait_migration('cancelled')
            source.wait_status('running')
            source.qmp('migrate-set-parameters', max_bandwidth=0)
            with target(IDLE, drive) as there:
                copy(source, listening(there))
                there.wait_status('running')
                same(one, two)


@test
def a_destination_that_is_full_ends_the_copy_and_the_guest_runs_on():
    with folder() as at, small_host(4) as (small, resize):
        one = scattered(at / 'one', 64 << 20, pieces=2000)
        with Vm(IDLE + ['-drive', f'file={one},format=raw'], name='source') as source:
            source.wait_status('running')
            with target(IDLE, f'file={small}/two,format=raw,create=on,size=64M') as there:
                start_copy(source, listening(there))
                info = source.wait_migration('failed')
                if 'No space left' not in info.get('error-desc', ''):
                    raise Failure(f'{info}')
            source.wait_status('running')


@test
def a_guest_in_a_file_with_its_disk_needs_nothing_else():
    with folder() as at:
        one, two = scattered(at / 'one', 24 << 20), at / 'two'
        with Vm(IDLE + ['-drive', f'file={one},format=raw'], name='source') as source:
            source.wait_status('running')
            copy(source, f'file:{at}/state')
        kept = at / 'kept'
        os.rename(one, kept)
        with Vm(IDLE + ['-drive', f'file={two},format=raw,create=on,size=24M', '-incoming', f'file:{at}/state'],
                name='restored') as restored:
            restored.wait_status('running')
            same(kept, two)


@test
def a_rehearsal_copies_the_disk_and_leaves_the_guest_and_its_image_where_they_are():
    with folder() as at:
        one, two = scattered(at / 'one', 24 << 20), at / 'two'
        with Vm(IDLE + ['-drive', f'file={one},format=raw'], name='source') as source, \
                target(IDLE, f'file={two},format=raw,create=on,size=24M') as there:
            source.wait_status('running')
            uri = listening(there)
            source.qmp.hmp(f'migrate -d -b -rehearse {uri}')
            source.wait_migration('completed')
            source.wait_status('running')
            same(one, two)
            refused(['-drive', f'file={one},format=raw'], 'another program is writing it')
            wait_for('the destination to wait again',
                     lambda: there.migration()['__org.godwit_report'].get('rehearsals') == 1)
            copy(source, uri)
            there.wait_status('running')
            same(one, two)


@test
def a_guest_moves_with_its_disk_hop_by_hop_and_no_acknowledged_write_is_lost():
    entries = 30 * (HOPS + 1)
    with image(128, ext4=True) as path, contextlib.ExitStack() as ends:
        def drive(number):
            return f'file={path}.{number},format=raw,id=d,create=on,size=128M' if number else f'file={path},format=raw,id=d'
        at, seen = ends.enter_context(Vm(disk_args(f'journal,{entries}', drive(0)), name='hop 0')), 0
        for number in range(1, HOPS + 1):
            wait_for_line(at, rf'disk: ack={seen + 5}\b')
            there = ends.enter_context(waiting(disk_args(f'journal,{entries}', drive(number)), f'hop {number}'))
            info = copy(at, listening(there), limit_s=2 * PATIENCE_S, downtime_limit=2000)
            there.wait_status('running')
            print(f'# hop {number}: downtime {info["__org.godwit_report"]["downtime-ms"]:.1f} ms, '
                  f'{info["disk"]["transferred"] >> 10} KiB of disk')
            seen = max(acks(at) + [seen])
            # What the guest was told is there is there at this moment, and the old image has gone: from here nobody needs it.
            os.unlink(f'{path}.{number - 1}' if number > 1 else path)
            if at.qmp.raw('cont').get('error') is None:
                raise Failure('the guest runs twice')
            healthy(at)
            at = there
        wait_for_line(at, rf'disk: journal {entries} files, 0 bad')
        wait_for_line(at, 'disk: done')
        at.wait_exit()
        last = f'{path}.{HOPS}'
        fsck(last)
        acknowledged_are_there(last, entries)


def beats(vm):
    """The newest lines of both loads; a guest whose memory or disk is not what it wrote is no good."""
    found = {}
    for name, beat, errors in re.findall(r'(diskload|dirtier): beat=(\d+) .*?errors=(\d+)', vm.serial()):
        if int(errors):
            raise Failure(f'the guest in {vm.name}: {name} has {errors} errors')
        found[name] = int(beat)
    healthy(vm)
    return found


def busy(vm, beat):
    wait_for(f'beat {beat} in {vm.name}', lambda: min([*beats(vm).values(), 0 if len(beats(vm)) < 2 else beat]) >= beat,
             limit_s=4 * PATIENCE_S, every_s=0.2, alive=vm.alive)


@test
def a_guest_that_writes_disk_and_memory_moves_with_both():
    with image(256) as path, contextlib.ExitStack() as ends:
        def drive(number):
            return f'file={path}.{number},format=raw,create=on,size=256M,cache=writeback'
        args = disk_args('busy,64,20,48,50', drive(0))
        at = ends.enter_context(Vm(args, name='hop 0'))
        busy(at, 3)
        for number in (1, 2):
            there = ends.enter_context(waiting(disk_args('busy,64,20,48,50', drive(number)), f'hop {number}'))
            at.qmp('migrate-set-capabilities', capabilities=[{'capability': 'auto-converge', 'state': True}])
            info = copy(at, listening(there), limit_s=6 * PATIENCE_S, **({'downtime_limit': 2000} if not LONG else {}))
            there.wait_status('running')
            own = info['__org.godwit_report']
            print(f'# hop {number}: {info["total-time"]} ms, pause {own["downtime-ms"]:.1f} ms of '
                  f'{own["downtime-limit-ms"]:.0f}, predicted {own["predicted-downtime-ms"]:.1f}, '
                  f'{info["disk"]["transferred"] >> 20} MiB of disk, {info["ram"]["transferred"] >> 20} MiB in all')
            seen = beats(at)
            at = there
            wait_for('both loads to go on', lambda: all(beats(at).get(name, 0) > beat + 1 for name, beat in seen.items()),
                     limit_s=4 * PATIENCE_S, every_s=0.2, alive=at.alive)


if __name__ == '__main__':
    main()
