#!/usr/bin/env python3
"""What a person and a script see: the human monitor, the terminal's keys, `godwit migrate`, processes that daemonize."""
import json, os, pathlib, pty, re, select, shutil, signal, socket, subprocess, sys, tempfile, time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / 'lib'))
from vm import GODWIT, PATIENCE_S, Failure, Vm, listening, main, test, wait_for
from proxy import Proxy
from guests import arrived, finish, guest, machine, memcheck, wait_alive, wait_running_on

PROMPT = '(qemu) '


class Talk:
    """A conversation with whatever is behind a descriptor."""

    def __init__(self, fd):
        self.fd, self.text = fd, ''

    def until(self, pattern, limit_s=PATIENCE_S):
        """What was said up to and with the pattern."""
        end = time.monotonic() + limit_s
        while not (found := re.search(pattern, self.text)):
            if not select.select([self.fd], [], [], max(0, end - time.monotonic()))[0]:
                raise Failure(f'waited for "{pattern}", heard "{self.text[-300:]}"')
            try:
                data = os.read(self.fd, 65536)
            except OSError:
                data = b''
            if not data:
                raise Failure(f'it ended before "{pattern}": "{self.text[-300:]}"')
            self.text += data.decode(errors='replace')
        said, self.text = self.text[:found.end()], self.text[found.end():]
        return said

    def say(self, text):
        os.write(self.fd, text.encode())

    def ask(self, line, pattern=re.escape(PROMPT)):
        """The answer to one line, without the echo and the prompt."""
        self.say(line + '\n')
        return self.until(pattern).replace('\r', '').split('\n', 1)[-1]


class Monitored:
    """A guest with a human monitor on a unix socket, and a conversation on it."""

    def __init__(self, load, more=()):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix='godwit-'))
        self.vm = Vm(machine(harts=2) + load + ['-chardev', f'socket,id=mon,path={self.folder}/hmp,server=on,wait=off',
                                                '-mon', 'chardev=mon', *more], typing=True, name='source')

    def __enter__(self):
        self.vm.__enter__()
        self.socket = socket.socket(socket.AF_UNIX)
        def connect():
            try:
                self.socket.connect(str(self.folder / 'hmp'))
                return True
            except OSError:
                return False
        wait_for('the human monitor', connect, alive=self.vm.alive)
        talk = Talk(self.socket.fileno())
        talk.until(re.escape(PROMPT))
        return self.vm, talk

    def __exit__(self, *what):
        self.socket.close()
        self.vm.__exit__(*what)
        shutil.rmtree(self.folder, ignore_errors=True)


def expect(text, *patterns):
    for pattern in patterns:
        if not re.search(pattern, text):
            raise Failure(f'no "{pattern}" in "{text.strip()}"')


def destination(name='destination'):
    return Vm(machine(harts=2, more=['-incoming', 'tcp:127.0.0.1:0']), typing=True, name=name)


# --- the human monitor ------------------------------------------------------------------------------------------------

@test
def the_human_monitor_answers_what_people_ask():
    with Monitored(memcheck('2M', 2, 'rate=100'), ['-device', 'virtio-rng-device', '-name', 'bird']) as (vm, talk):
        wait_alive(vm)
        expect(talk.ask('info status'), 'VM status: running')
        expect(talk.ask('stop') + talk.ask('info status'), 'VM status: paused')
        expect(talk.ask('info registers'), r'pc +[0-9a-f]{8,}', 'CPU#0')
        expect(talk.ask('info registers -a'), 'CPU#0', 'CPU#1')
        expect(talk.ask('cont') + talk.ask('info status'), 'VM status: running')
        wait_running_on(vm)
        expect(talk.ask('info migrate_parameters'), 'downtime-limit: 300 ms', 'max-bandwidth: 0 bytes/second')
        expect(talk.ask('info memory'), r'\d')
        expect(talk.ask('info qtree'), 'virtio', 'mmio 0000000010000000')
        expect(talk.ask('info mtree'), '0000000080000000')
        expect(talk.ask('info cpus'), 'CPU #0', 'CPU #1')
        expect(talk.ask('info name'), 'bird')
        expect(talk.ask('help migrate'), 'migrate')
        expect(talk.ask('frobnicate'), 'frobnicate')
        expect(talk.ask('info frobnicate'), 'frobnicate|info')
        if talk.ask('info migrate').replace(PROMPT, '').strip():
            raise Failure('a guest that never migrated has a migration')


@test
def the_engine_says_what_it_has_done():
    """Figures that must be there when code is generated, and none when it is not."""
    for engine in 'jit', 'interp':
        with Monitored(memcheck('2M', 2, 'rate=100'), ['-accel', engine]) as (vm, talk):
            wait_alive(vm)
            answer, text = vm.qmp('x-query-jit'), talk.ask('info jit')
            expect(text, 'CPU#0: [1-9]', 'CPU#1: [1-9]')
            if not answer['enabled']:  # also: a host that no code can be generated for
                expect(text, 'generated code: none, this machine only interprets')
                if 'code' in answer or any(cpu['code-runs'] or cpu['promotions'] for cpu in answer['cpus']):
                    raise Failure(f'no engine, but figures: {answer}')
                continue
            expect(text, r'generated code: [1-9]\d* KiB of \d+ KiB', r'translating: \d')
            code, cpu = answer['code'], answer['cpus'][0]
            if engine == 'interp' or not code['guest-bytes'] >= 2 * code['blocks'] > 0:
                raise Failure(f'{engine}: {answer}')
            if not cpu['code-lookups'] >= cpu['code-runs'] > 0 or not cpu['promotions'] >= 1:
                raise Failure(f'{engine}: {answer}')


@test
def parameters_are_set_in_old_and_new_spellings():
    with Monitored(memcheck('2M', 2, 'rate=100')) as (vm, talk):
        for line, *patterns in [('migrate_set_downtime 0.5', 'downtime-limit: 500 ms'),
                                ('migrate_set_speed 10m', 'max-bandwidth: 10485760 bytes'),
                                ('migrate_set_parameter downtime-limit 250', 'downtime-limit: 250 ms'),
                                ('migrate_set_parameter max-bandwidth 1', 'max-bandwidth: 1048576 bytes'),
                                ('migrate_set_parameter max-bandwidth 64K', 'max-bandwidth: 65536 bytes'),
                                ('migrate_set_parameter multifd-compression none', 'compression: none')]:
            answer = talk.ask(line).replace(PROMPT, '').strip()
            if answer:
                raise Failure(f'{line}: {answer}')
            expect(talk.ask('info migrate_parameters'), *patterns)
        for line in ('migrate_set_parameter downtime-limit 9999999', 'migrate_set_parameter frob 1',
                     'migrate_set_downtime -1', 'migrate_set_parameter downtime-limit'):
            if not talk.ask(line).replace(PROMPT, '').strip():
                raise Failure(f'"{line}" was accepted')


@test
def a_migration_in_the_foreground_shows_progress_and_its_end():
    with Monitored(memcheck('8M', 2)) as (vm, talk), destination() as there:
        wait_alive(vm)
        talk.ask('migrate_set_parameter max-bandwidth 4')
        talk.ask('migrate_set_parameter progress-interval 50')
        talk.ask('migrate_set_parameter multifd-compression none')
        talk.ask('migrate_set_parameter downtime-limit 20000')
        said = talk.ask(f'migrate {listening(there)}')
        expect(said, 'Migration: active', r'round \d+', r'MB/s', 'Migration completed in', 'downtime')
        arrived(vm, there)
        expect(talk.ask('info migrate'), 'Migration status: completed', 'the guest is: there', 'downtime: ',
               'compression ratio|normal bytes')
        expect(talk.ask('info status'), 'paused .postmigrate.')
        wait_running_on(there)
        finish(there)


@test
def a_codec_set_while_it_runs_takes_effect_and_shows():
    with Monitored(memcheck('8M', 2)) as (vm, talk), destination() as there:
        wait_alive(vm)
        expect(talk.ask('info migrate_parameters'), 'compression: auto')
        vm.start_migration(listening(there), max_bandwidth=1 << 20, compression='none')
        pages = lambda side: side.migration().get('__org.godwit_report', {}).get('codec-pages', {})
        wait_for('plain pages', lambda: pages(vm).get('none', 0) > 0)
        expect(talk.ask('info migrate'), r'codec: none [1-9]\d* pages, lz4 0 pages, zstd 0 pages; now none')
        vm.qmp('migrate-set-parameters', compression='zstd')
        wait_for('packed pages', lambda: pages(vm).get('zstd', 0) > 0)
        vm.qmp('migrate-set-parameters', max_bandwidth=0, compression='lz4', downtime_limit=20000)
        vm.wait_migration('completed')
        arrived(vm, there)
        here, over_there = pages(vm), pages(there)
        if here != over_there or not here['none'] or not here['zstd']:
            raise Failure(f'sent {here}, arrived {over_there}')
        expect(talk.ask('info migrate'), 'zstd [1-9]', 'now lz4 with acceleration 1')
        wait_running_on(there)
        finish(there)


@test
def a_migration_in_the_background_leaves_the_prompt():
    with Monitored(memcheck('8M', 2)) as (vm, talk), destination() as there, \
            Proxy(listening(there), bytes_per_s=1 << 20) as line:
        wait_alive(vm)
        talk.ask('migrate_set_parameter multifd-compression none')
        if talk.ask(f'migrate -d {line.uri}').replace(PROMPT, '').strip():
            raise Failure('migrate -d says something')
        expect(talk.ask('info migrate'), 'Migration status: (setup|active)')
        expect(talk.ask('migrate -d tcp:127.0.0.1:1'), 'migration is running')
        talk.ask('migrate_cancel')
        vm.wait_migration('cancelled')
        expect(talk.ask('info migrate'), 'Migration status: cancelled', 'the guest is: here')
        wait_running_on(vm)


@test
def ctrl_c_cancels_a_migration_in_the_foreground():
    with Monitored(memcheck('8M', 2)) as (vm, talk), destination() as there, \
            Proxy(listening(there), bytes_per_s=1 << 20) as line:
        wait_alive(vm)
        talk.ask('migrate_set_parameter multifd-compression none')
        talk.say(f'migrate {line.uri}\n')
        vm.wait_migration('active')
        talk.say('\x03')
        expect(talk.until(re.escape(PROMPT)), 'Migration cancelled')
        wait_running_on(vm)


@test
def ctrl_a_x_and_c_work_on_a_terminal():
    ours, theirs = pty.openpty()
    process = subprocess.Popen([GODWIT, '-M', 'virt', '-nographic', '-serial', 'mon:stdio', *map(str, machine()),
                                *map(str, memcheck('2M', more='rate=100'))],
                               stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    try:
        os.close(theirs)
        talk = Talk(ours)
        talk.until('alive 1 pass')
        talk.say('\x01c')
        talk.until(re.escape(PROMPT))
        talk.say('info status\r')
        expect(talk.until('VM status: [a-z]+'), 'running')
        talk.say('\x01c')
        talk.say('s')
        talk.until('alive')
        talk.say('\x01x')
        if process.wait(PATIENCE_S) != 0:
            raise Failure(f'Ctrl-a x ended it with code {process.returncode}')
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        os.close(ours)


# --- godwit migrate --------------------------------------------------------------------------------------------------

def client(*args, **how):
    return subprocess.Popen([GODWIT, 'migrate', *map(str, args)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, **how)


def ends(process, code):
    out, errors = process.communicate(timeout=PATIENCE_S)
    if process.returncode != code:
        raise Failure(f'code {process.returncode} instead of {code}: {out} {errors}')
    return out, errors


class source_vm(Vm):
    """A guest whose process has a monitor for the client besides the one for this test: each takes one at a time."""

    def __init__(self):
        self.own = pathlib.Path(tempfile.mkdtemp(prefix='godwit-'))
        self.client_path = self.own / 'client'
        super().__init__(machine(harts=2) + memcheck('8M', 2) + ['-qmp', f'unix:{self.client_path},server=on,wait=off'],
                         typing=True, name='source')
        self.status()  # both monitors are there

    def close(self):
        super().close()
        shutil.rmtree(self.own, ignore_errors=True)


@test
def the_client_moves_a_guest_shows_progress_and_ends_with_0():
    with source_vm() as source, destination() as there:
        wait_alive(source)
        out, errors = ends(client('--monitor', source.client_path, '--downtime-limit', 500, '--max-bandwidth', '50M',
                                  listening(there)), 0)
        expect(out, 'migration completed', 'downtime', 'rounds')
        expect(errors, '(setup|active)')  # it may be over before the client looks twice
        arrived(source, there)
        if source.qmp('query-migrate-parameters')['downtime-limit'] != 500:
            raise Failure('--downtime-limit was not set')
        wait_running_on(there)
        finish(there)


@test
def the_client_prints_json_for_scripts():
    with source_vm() as source, destination() as there:
        wait_alive(source)
        out, errors = ends(client('--monitor', source.client_path, '--json', '--progress', 'none', listening(there)), 0)
        info = json.loads(out)
        if info['status'] != 'completed' or info['__org.godwit_report']['where'] != 'there' or errors:
            raise Failure(f'{info} {errors}')
        arrived(source, there)


@test
def the_client_ends_with_1_when_nothing_was_started():
    with source_vm() as source:
        expect(ends(client('--monitor', source.folder / 'nobody', 'tcp:127.0.0.1:1'), 1)[1], 'godwit migrate: ')
        expect(ends(client('--monitor', source.client_path, 'pigeon:1'), 1)[1], 'pigeon')
        expect(ends(client('--monitor', source.client_path, '--downtime-limit', 9999999, 'tcp:127.0.0.1:1'), 1)[1],
               'downtime-limit')


@test
def the_client_ends_with_2_when_it_was_used_wrongly():
    for args in ([], ['--monitor', 'x'], ['tcp:127.0.0.1:1'], ['--frob'], ['--monitor', 'x', '--threads', 'many', 'y'],
                 ['--monitor', 'x', 'y', 'z']):
        expect(ends(client(*args), 2)[1], 'usage: godwit migrate')


@test
def the_client_ends_with_3_when_it_failed():
    with source_vm() as source:
        wait_alive(source)
        errors = ends(client('--monitor', source.client_path, 'tcp:127.0.0.1:1'), 3)[1]
        expect(errors, 'refused', 'the guest runs on the source')
        wait_running_on(source)


@test
def the_client_ends_with_5_when_the_destination_refuses():
    args = machine('128M', 2, ['-incoming', 'tcp:127.0.0.1:0'])
    with source_vm() as source, Vm(args, name='destination') as there:
        wait_alive(source)
        expect(ends(client('--monitor', source.client_path, listening(there)), 5)[1], 'RAM size', 'runs on the source')
        wait_running_on(source)


@test
def the_client_ends_with_130_when_it_was_interrupted():
    with source_vm() as source, destination() as there, Proxy(listening(there), bytes_per_s=1 << 18) as line:
        wait_alive(source)
        source.qmp('migrate-set-parameters', compression='none')
        process = client('--monitor', source.client_path, line.uri)
        wait_for('the migration', lambda: source.migration().get('status') == 'active')
        process.send_signal(signal.SIGINT)
        expect(ends(process, 130)[1], 'cancelled')
        wait_running_on(source)


# --- processes ---------------------------------------------------------------------------------------------------------

@test
def a_source_told_to_migrate_does_so_and_ends():
    with destination() as there:
        with Vm(machine(harts=2) + memcheck('8M', 2) + ['-migrate', listening(there)], typing=True, qmp=False,
                name='source') as source:
            if source.wait_exit() != 0:
                raise Failure(f'code {source.wait_exit()}: {source.stderr()}')
        there.wait_status('running')
        wait_running_on(there)
        finish(there)


@test
def a_source_told_to_migrate_on_a_signal_waits_for_it():
    with destination() as there:
        with Vm(machine(harts=2) + memcheck('8M', 2) + ['-migrate', listening(there), '-migrate-on-signal'],
                typing=True, name='source') as source:
            wait_alive(source)
            if source.migration():
                raise Failure('it did not wait for the signal')
            source.process.send_signal(signal.SIGUSR1)
            if source.wait_exit() != 0:
                raise Failure(f'code {source.wait_exit()}: {source.stderr()}')
        wait_running_on(there)
        finish(there)


@test
def a_source_whose_destination_is_not_there_runs_on_and_says_so():
    with Vm(machine(harts=2) + memcheck('8M', 2) + ['-migrate', 'tcp:127.0.0.1:1'], typing=True, name='source') as source:
        wait_for('a sentence', lambda: 'did not leave' in source.stderr(), alive=source.alive)
        wait_running_on(source)
        finish(source)


@test
def daemonize_returns_when_everything_is_there_and_the_pidfile_names_the_process():
    folder = pathlib.Path(tempfile.mkdtemp(prefix='godwit-'))
    pid = None
    try:
        command = [GODWIT, '-display', 'none', *machine(), *memcheck('2M', more='rate=100'), '-daemonize', '-pidfile',
                   folder / 'pid', '-serial', f'file:{folder}/serial', '-monitor', 'none', '-qmp',
                   f'unix:{folder}/qmp,server=on,wait=off']
        done = subprocess.run(list(map(str, command)), stdin=subprocess.DEVNULL, timeout=PATIENCE_S)
        if done.returncode != 0:
            raise Failure(f'code {done.returncode}')
        pid = int((folder / 'pid').read_text())
        os.kill(pid, 0)
        with socket.socket(socket.AF_UNIX) as qmp:  # it listens already
            qmp.connect(str(folder / 'qmp'))
            qmp.sendall(b'{"execute":"qmp_capabilities"}\n{"execute":"quit"}\n')
            def gone():
                try:
                    os.kill(pid, 0)
                    return pathlib.Path(f'/proc/{pid}/stat').read_text().split()[2] == 'Z'
                except (ProcessLookupError, FileNotFoundError):
                    return True
            wait_for('the daemon to end', gone)
        pid = None
        if (folder / 'pid').exists():
            raise Failure('the pidfile stays behind')
        refused = subprocess.run([GODWIT, '-display', 'none', '-daemonize', '-kernel', '/nonexistent'],
                                 stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=PATIENCE_S)
        if refused.returncode != 1 or '/nonexistent' not in refused.stderr:
            raise Failure(f'a daemon that cannot start: code {refused.returncode}, "{refused.stderr}"')
    finally:
        if pid:
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


@test
def sigterm_ends_a_process_in_any_state():
    for more, state in (([], 'running'), (['-S'], 'prelaunch')):
        with Vm(machine() + memcheck('2M', more='rate=100') + more, name='guest') as vm:
            vm.wait_status(state)
            vm.process.send_signal(signal.SIGTERM)
            if vm.wait_exit() != 0:
                raise Failure(f'code {vm.wait_exit()}')
    with Vm(machine(more=['-incoming', 'tcp:127.0.0.1:0']), name='waiting') as vm:
        listening(vm)
        vm.process.send_signal(signal.SIGTERM)
        vm.wait_exit()


if __name__ == '__main__':
    main()
