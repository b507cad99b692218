#!/usr/bin/env python3
"""Whatever a line, a file or a peer does: the source's guest runs on, and both sides say what happened and where."""
import concurrent.futures, os, pathlib, random, shutil, socket, subprocess, sys, tempfile, threading

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / 'lib'))
from vm import GODWIT, LONG, PATIENCE_S, Failure, Vm, listening, main, test, wait_for
from proxy import Proxy, cut_at, flip
from guests import arrived, finish, machine, memcheck, wait_alive, wait_running_on

SEED = int(os.environ.get('GODWIT_SEED', 7))
CUTS, FLIPS, FILE_FLIPS, FILE_CUTS = (400, 200, 4000, 1000) if LONG else (24, 12, 120, 40)


def source_vm(more='', options=(), **how):
    return Vm(machine(harts=2, more=options) + memcheck('2M', 2, f'rate=1 {more}'), typing=True, name='source', **how)


def destination_vm(incoming='tcp:127.0.0.1:0', options=(), **how):
    return Vm(['-smp', 2, '-m', '64M', '-bios', 'none', *options, '-incoming', incoming], name='destination', **how)


def says(text, *words, who='it'):
    missing = [word for word in words if word.lower() not in text.lower()]
    if missing:
        raise Failure(f'{who} says "{text.strip()}", without "{missing[0]}"')


def failed(source, *words):
    """The migration failed with a sentence that has these words, and the guest runs."""
    info = source.wait_migration('failed')
    reason = info.get('error-desc', '')
    says(reason, *(words or ' '), who='the source')
    if info['__org.godwit_report']['where'] != 'here':
        raise Failure(f'the guest is said to be {info["__org.godwit_report"]["where"]}')
    source.wait_status('running')
    wait_running_on(source)
    return reason


def gave_up(there, *words):
    """The incoming process ended with code 1 and one sentence that has these words."""
    code = there.wait_exit()
    if code != 1:
        raise Failure(f'{there.name} ended with code {code}: {there.stderr()}')
    lines = there.stderr().strip().splitlines()
    if len(lines) != 1 or not lines[0].startswith('godwit: '):
        raise Failure(f'{there.name} says {len(lines)} lines: {lines}')
    says(lines[0], *words, who=there.name)


def leaves_whole(source):
    with Vm(machine(harts=2, more=['-incoming', 'tcp:127.0.0.1:0']), typing=True, name='last') as there:
        source.migrate(listening(there))
        arrived(source, there)
        wait_running_on(there)
        finish(there)


# --- a line that breaks -------------------------------------------------------------------------------------------

def stream_bytes():
    """How long the whole stream of such a guest is, the last message included, and the answers."""
    with source_vm() as source, destination_vm() as there, Proxy(listening(there)) as line:
        wait_alive(source)
        source.migrate(line.uri)
        there.wait_status('running')
        return line.passed['there'], line.passed['back']


def state_of(there):
    """Of the incoming migration once it is decided, 'ended' when the process went with it."""
    def look():
        try:
            return there.qmp('query-migrate').get('status')
        except (Failure, OSError, ValueError):
            return 'ended' if there.wait_exit() else None
    return wait_for('the destination to have made up its mind',
                    lambda: (state := look()) in ('unresolved', 'completed', 'ended') and state)


def one_cut(source, forward=None, back=None):
    """True when the guest is still in the source, False when it has left, None when nobody can know."""
    with destination_vm() as there:
        with Proxy(listening(there), forward=forward, back=back) as line:
            source.start_migration(line.uri)
            info = source.wait_migration('failed', 'completed', 'unresolved')
        if info['status'] == 'failed':
            failed(source)
            if state_of(there) == 'unresolved':
                there.qmp('__org.godwit_migrate-resolve', answer='there')
            gave_up(there, 'not loaded')
            return True
        if info['status'] == 'unresolved':  # cut between RELEASED and RUNNING: nobody may run unless it was told to
            if source.status() == 'running':
                raise Failure('the outcome is unknown, and the source runs the guest')
            wait_for('the destination to know where it stands',
                     lambda: state_of(there) in ('unresolved', 'completed', 'ended'))
            there.alive()
            if state_of(there) == 'completed':
                there.wait_status('running')
                source.qmp('__org.godwit_migrate-resolve', answer='there')
                source.wait_migration('completed')
                return False
            if there.status() == 'running':
                raise Failure('the destination does not know where the guest is, and runs it')
            there.qmp('__org.godwit_migrate-resolve', answer='there')
            gave_up(there)
            source.qmp('__org.godwit_migrate-resolve', answer='here')
            source.wait_migration('failed')
            source.qmp('cont')
            wait_running_on(source)
            return None
        there.wait_status('running')
        return False


def sweep(hooks):
    """One source as long as its guest stays; a new one where it has left."""
    counts, source = {}, source_vm()
    try:
        wait_alive(source)
        for number, how in hooks:
            try:
                here = one_cut(source, **how)
            except Failure as why:
                raise Failure(f'at byte {number}: {why}')
            counts[here] = counts.get(here, 0) + 1
            if here is False:
                source.close()
                source = source_vm()
                wait_alive(source)
    except BaseException:
        source.__exit__(*sys.exc_info())
        raise
    source.close()
    print(f'# {counts.get(True, 0)} here, {counts.get(False, 0)} there, {counts.get(None, 0)} for the operator')
    return counts


def spread(total, count, edge=400):
    dice = random.Random(SEED)
    ends = [dice.randrange(min(edge, total)) for _ in range(count // 3)]
    ends += [total - 1 - dice.randrange(min(edge, total)) for _ in range(count // 3)]
    return sorted(ends + [dice.randrange(total) for _ in range(count - len(ends))])


@test
def a_line_cut_after_any_byte_leaves_the_guest_with_one_side():
    total, answered = stream_bytes()
    counts = sweep((k, {'forward': cut_at(k)}) for k in [0, 1] + spread(total, CUTS))
    if counts.get(True, 0) < CUTS // 3:
        raise Failure(f'hardly any cut was a failure: {counts}')


@test
def a_way_back_cut_after_any_byte_leaves_the_guest_with_one_side():
    total, answered = stream_bytes()
    sweep((k, {'back': cut_at(k)}) for k in [0, 1] + spread(answered, CUTS // 2))


@test
def a_bit_that_flips_on_the_line_is_noticed():
    total, answered = stream_bytes()
    dice, done = random.Random(SEED), []
    counts = sweep((k, {'forward': flip(k, 1 << dice.randrange(8), done)}) for k in spread(total - 400, FLIPS))
    print(f'# {len(done)} bits were flipped')
    if counts.get(True, 0) < len(done) or len(done) < FLIPS // 2:
        raise Failure(f'{len(done)} bits were flipped, {counts.get(True, 0)} migrations failed')


# --- a file that is not what it should be -----------------------------------------------------------------------

class Saved:
    """A guest saved to a file, in a folder that goes with it."""

    def __enter__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix='godwit-'))
        with source_vm() as source:
            wait_alive(source)
            source.migrate(f'file:{self.folder}/saved')
        self.data = (self.folder / 'saved').read_bytes()
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.folder, ignore_errors=True)

    def load(self, data, number=0, args=('-m', '64M', '-smp', 2)):
        """(exit code, what it said) of a process that is given this file; 'loaded' instead of a code when it took it."""
        path = self.folder / f'changed{number}'
        path.write_bytes(data)
        with Vm([*args, '-bios', 'none', '-S', '-incoming', f'file:{path}'], name='destination') as there:
            def over():
                if there.process.poll() is not None:
                    return True
                try:
                    return there.migration().get('status') == 'completed'
                except (Failure, OSError, ValueError):
                    return False
            wait_for('a changed file to be refused', over)
            code = there.process.poll()
            path.unlink()
            return ('loaded', '') if code is None else (there.wait_exit(), there.stderr())

    def refused(self, data, *words, number=0, what='the file', **how):
        code, text = self.load(data, number, **how)
        if code != 1:
            raise Failure(f'{what}: {code} instead of 1: {text.strip()}')
        says(text, 'not loaded', *words, who=what)
        if len(text.strip().splitlines()) != 1:
            raise Failure(f'{what}: more than one line: {text}')

    def all_refused(self, changes):
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            for done in [pool.submit(self.refused, data, number=n, what=what) for n, (what, data) in enumerate(changes)]:
                done.result()


@test
def a_file_that_was_not_changed_is_loaded():
    with Saved() as saved:
        code, text = saved.load(saved.data)
        if code != 'loaded':
            raise Failure(f'refused: {text}')


@test
def a_file_cut_anywhere_is_refused():
    with Saved() as saved:
        total = len(saved.data)
        saved.all_refused((f'cut at {k} of {total}', saved.data[:k])
                          for k in [0, 1, 3, 4, 7, 8, total - 1] + spread(total, FILE_CUTS))


@test
def a_file_with_any_bit_flipped_is_refused():
    dice = random.Random(SEED)
    with Saved() as saved:
        def flipped(at, bit):
            data = bytearray(saved.data)
            data[at] ^= 1 << bit
            return bytes(data)
        changes = [(at, dice.randrange(8)) for at in spread(len(saved.data), FILE_FLIPS, 4000)]
        saved.all_refused((f'bit {bit} of byte {at} of {len(saved.data)}', flipped(at, bit)) for at, bit in changes)


@test
def a_stream_of_version_2_is_refused_by_its_version():
    with Saved() as saved:
        saved.refused(saved.data[:4] + bytes([0, 0, 0, 2]) + saved.data[8:], 'version 2')


@test
def a_file_of_another_kind_is_refused():
    with Saved() as saved:
        saved.refused(b'#!/bin/sh\necho this is no guest\n', 'no migration stream')


@test
def another_machine_name_is_refused_by_it():
    with Saved() as saved:
        saved.refused(saved.data.replace(b'virt', b'vird', 1), 'machine', 'virt')


@test
def a_file_for_another_machine_is_refused_by_what_differs():
    with Saved() as saved:
        saved.refused(saved.data, 'RAM size', '64 MiB', '128 MiB', args=('-m', '128M', '-smp', 2))
        saved.refused(saved.data, 'harts', '2', '4', args=('-m', '64M', '-smp', 4))
        saved.refused(saved.data, 'virtio', args=('-m', '64M', '-smp', 2, '-device', 'virtio-rng-device'))


# --- machines that do not match ------------------------------------------------------------------------------------

def unlike(words, options=(), source_options=(), memory='64M', harts=2):
    args = ['-m', memory, '-smp', harts, '-bios', 'none', *options, '-incoming', 'tcp:127.0.0.1:0']
    with source_vm(options=source_options) as source, Vm(args, name='destination') as there:
        wait_alive(source)
        source.start_migration(listening(there))
        failed(source, 'refuse', *words)
        gave_up(there, *words)
        if source_options == ():
            leaves_whole(source)


@test
def a_destination_with_other_memory_refuses_and_says_so():
    unlike(['RAM size', '64 MiB', '128 MiB'], memory='128M')


@test
def a_destination_with_other_harts_refuses_and_says_so():
    unlike(['harts', '2', '3'], harts=3)


@test
def a_destination_with_another_device_refuses_and_says_so():
    unlike(['virtio', 'rng'], options=['-device', 'virtio-rng-device'])


@test
def a_destination_that_lacks_a_device_refuses_and_says_so():
    unlike(['virtio', 'rng'], source_options=['-device', 'virtio-rng-device'])


@test
def a_destination_with_another_kind_of_virtio_refuses_and_says_so():
    unlike(['legacy'], options=['-device', 'virtio-rng-device'],
           source_options=['-global', 'virtio-mmio.force-legacy=false', '-device', 'virtio-rng-device'])


# --- peers and places that are not there -------------------------------------------------------------------------

def refused_port():
    with socket.socket() as one:
        one.bind(('127.0.0.1', 0))
        return one.getsockname()[1]


@test
def a_command_that_stops_reading_fails_with_its_name():
    """With more memory in use than a line holds unread, else the command may have had all of it."""
    with Vm(machine(harts=2) + memcheck('16M', 2), typing=True, name='source') as source:
        wait_alive(source)
        source.start_migration('exec:head -c 9000 > /dev/null', compression='none')
        failed(source, 'command', 'status 0')


@test
def a_place_that_cannot_be_reached_fails_with_its_name():
    folder = pathlib.Path(tempfile.mkdtemp(prefix='godwit-'))
    try:
        with source_vm() as source:
            wait_alive(source)
            for uri, *words in [(f'tcp:127.0.0.1:{refused_port()}', 'refused', '127.0.0.1'),
                                (f'unix:{folder}/nobody', str(folder), 'no such file'),
                                (f'file:{folder}/nowhere/x', 'nowhere/x', 'no such file'),
                                (f'file:{folder}', 'directory'),
                                ('file:/dev/full', 'no space'),
                                ('exec:exit 3', 'status 3'),
                                ('exec:kill -9 $$', 'signal 9'),
                                ('fd:999', '999'),
                                ('tcp:no.such.host.invalid:1', 'no.such.host.invalid')]:
                try:
                    source.start_migration(uri)
                    failed(source, *words)
                except Failure as why:
                    raise Failure(f'{uri}: {why}')
            for uri in ('pigeon:1', 'tcp:', '', 'file:', 'tcp:127.0.0.1:' + '1' * 5000):
                answer = source.qmp.raw('migrate', uri=uri)
                if 'error' not in answer:
                    raise Failure(f'migrate to "{uri[:40]}" was accepted')
            for uri in ('tcp:127.0.0.1:99999', 'tcp:127.0.0.1', 'tcp:127.0.0.1:http!', 'fd:x'):
                answer = source.qmp.raw('migrate', uri=uri)
                if 'error' not in answer:
                    failed(source, uri.split(':')[-1])
            leaves_whole(source)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Peer:
    """A listener that sends something and then waits for the other to go away."""

    def __init__(self, text):
        self.text, self.socket = text, socket.socket()
        self.socket.bind(('127.0.0.1', 0))
        self.socket.listen(1)
        self.uri = f'tcp:127.0.0.1:{self.socket.getsockname()[1]}'

    def __enter__(self):
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        return self

    def _run(self):
        try:
            peer, _ = self.socket.accept()
            with peer:
                peer.sendall(self.text)
                while peer.recv(65536):
                    pass
        except OSError:
            pass

    def __exit__(self, *_):
        self.socket.close()


@test
def a_peer_that_talks_garbage_fails_the_migration():
    with source_vm() as source:
        wait_alive(source)
        dice = random.Random(SEED)
        for text in (b'HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n' * 20, bytes(4096), b'\xff' * 4096,
                     dice.randbytes(4096)):
            with Peer(text) as peer:
                source.start_migration(peer.uri)
                failed(source, 'hello')
        leaves_whole(source)


@test
def a_silent_peer_is_given_up_after_its_timeout():
    with source_vm() as source, Peer(b'') as peer:
        wait_alive(source)
        source.start_migration(peer.uri, peer_timeout=200)
        failed(source, 'hello')
        source.qmp('migrate-set-parameters', peer_timeout=10000)
        leaves_whole(source)


@test
def a_peer_that_falls_silent_under_way_is_given_up():
    with source_vm() as source, destination_vm() as there:
        wait_alive(source)
        quiet = threading.Event()
        def hold(offset, data):
            if offset > 2000:
                quiet.wait(PATIENCE_S)
            return data
        with Proxy(listening(there), back=hold, forward=lambda offset, data: data if offset < 4000 else b'') as line:
            source.start_migration(line.uri, peer_timeout=300)
            failed(source)
            quiet.set()
        gave_up(there, 'not loaded')


@test
def garbage_ends_a_waiting_process_with_a_sentence():
    dice = random.Random(SEED)
    for text in (b'GET / HTTP/1.1\r\nHost: bird\r\n\r\n', b'', bytes(64), b'\xff' * 64, dice.randbytes(1 << 16),
                 b'QEVM', b'QEVM\0\0\0\3', b'QEVM\0\0\0\3' + dice.randbytes(1 << 16)):
        with destination_vm() as there:
            host, port = listening(there)[4:].rsplit(':', 1)
            with socket.create_connection((host, int(port))) as peer:
                try:
                    peer.sendall(text)
                    peer.shutdown(socket.SHUT_WR)
                except OSError:
                    pass
                gave_up(there, 'not loaded')


@test
def a_silent_source_is_given_up_after_the_timeout():
    with destination_vm(options=['-global', 'migration.peer-timeout=200']) as there:
        host, port = listening(there)[4:].rsplit(':', 1)
        with socket.create_connection((host, int(port))):
            gave_up(there, 'nobody said anything')


@test
def an_inherited_line_may_be_silent_until_the_source_calls():
    """Both wait with the same timeout; when the one that was called gives up, the other still waits."""
    near, far = socket.socketpair()
    patience = ['-global', 'migration.peer-timeout=200']
    with near, far, destination_vm(options=patience) as called, \
            Vm(machine(harts=2, more=[*patience, '-incoming', f'fd:{far.fileno()}']), typing=True, name='inherited',
               pass_fds=[far.fileno()]) as there:
        there.qmp
        host, port = listening(called)[4:].rsplit(':', 1)
        with socket.create_connection((host, int(port))):
            gave_up(called, 'not loaded')
        with source_vm(pass_fds=[near.fileno()]) as source:
            wait_alive(source)
            far.close()
            source.migrate(f'fd:{near.fileno()}')
            arrived(source, there)
            wait_running_on(there)


@test
def a_waiting_process_that_cannot_listen_says_why():
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        for uri, *words in [(f'tcp:127.0.0.1:{port}', 'in use'), ('unix:/nonexistent/x', '/nonexistent'),
                            ('file:/nonexistent/x', '/nonexistent/x'), ('fd:999', '999'), ('pigeon:x', 'pigeon'),
                            ('exec:exit 7', 'not loaded', 'status 7')]:
            with destination_vm(uri, qmp=False) as there:
                gave_up(there, *words)


# --- the command line --------------------------------------------------------------------------------------------

@test
def a_wrong_option_is_one_line_and_code_1():
    elf = str(pathlib.Path(GODWIT).resolve())
    for args, *words in [(['-frobnicate'], 'frobnicate'),
                         (['-smp', '0'], 'smp'), (['-smp', '1000'], 'smp'), (['-smp', 'two'], 'two'),
                         (['-m', '1'], '-m'), (['-m', '9999999G'], '-m'), (['-m', 'much'], 'much'), (['-m'], '-m'),
                         (['-M', 'pc'], 'pc'), (['-cpu', 'host'], 'host'),
                         (['-downtime-limit', '99999999999'], 'downtime-limit', 'outside'),
                         (['-downtime-limit', '-5'], 'downtime-limit'),
                         (['-max-bandwidth', 'fast'], 'fast'),
                         (['-migration-threads', '100000'], 'threads', 'outside'),
                         (['-global', 'migration.frob=1'], 'frob'),
                         (['-global', 'migration.multifd-compression=zip'], 'zip', 'lz4'),
                         (['-device', 'e1000'], 'e1000'),
                         (['-kernel', '/nonexistent/vmlinux'], '/nonexistent/vmlinux'),
                         (['-kernel', '/dev/null'], '/dev/null'),
                         (['-bios', '/nonexistent/fw'], '/nonexistent/fw'),
                         (['-serial', 'frob:1'], 'frob'),
                         (['-append', 'x'], 'append'),
                         (['-sandbox', 'perhaps'], 'perhaps'),
                         (['-serial', 'tcp:0.0.0.0:0,server=on,wait=off'], 'insecure=on'),
                         (['-qmp', 'tcp:127.0.0.1:0,server=on,wait=off'], 'qmp', 'insecure=on'),
                         (['-chardev', 'socket,id=m,host=127.0.0.1,port=0,server=on,wait=off', '-mon', 'chardev=m'],
                          'insecure=on'),
                         (['-incoming', 'tcp:'], 'tcp:'),
                         (['-migrate', 'tcp:127.0.0.1:1', '-incoming', 'defer'], 'migrate'),
                         (['guest.img'], 'guest.img')]:
        process = subprocess.run([elf, '-display', 'none', '-bios', 'none', *args], stdin=subprocess.DEVNULL,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=PATIENCE_S)
        lines = process.stderr.splitlines()
        if process.returncode != 1 or len(lines) != 1 or process.stdout:
            raise Failure(f'{args}: code {process.returncode}, out "{process.stdout[:200]}", errors {lines[:5]}')
        says(lines[0], 'godwit:', *words, who=f'{args}')


@test
def a_value_out_of_range_is_refused_and_changes_nothing():
    with source_vm(more='') as vm:
        before = vm.qmp('query-migrate-parameters')
        for name, value in [('downtime-limit', 2000001), ('downtime-limit', -1), ('max-bandwidth', 'lots'),
                            ('threads', 10 ** 6), ('multifd-compression', 'zip'), ('peer-timeout', 0), ('frob', 1)]:
            answer = vm.qmp.raw('migrate-set-parameters', **{name: value, 'max_rounds': 7})
            if 'error' not in answer:
                raise Failure(f'{name}={value} was accepted')
        if vm.qmp('query-migrate-parameters') != before:
            raise Failure('a refused parameter changed something')


if __name__ == '__main__':
    main()
