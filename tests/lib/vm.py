"""Drives godwit (or QEMU: same options, same QMP) from tests, the demo and benches. python3's own library only.

    with Vm(['-m', '64M', '-kernel', 'x.elf', '-bios', 'none']) as vm:
        vm.wait_serial('ready')
        vm.migrate('tcp:127.0.0.1:4444')

Every Vm lives in a folder of its own, which goes with it; leaving the block ends its process. Nothing here sleeps in
place of a condition: waits look at the process, the serial line or the monitor until a deadline.
"""
import json, os, pathlib, re, shutil, signal, socket, subprocess, sys, tempfile, threading, time

TOP = pathlib.Path(__file__).resolve().parent.parent.parent
BUILD = pathlib.Path(os.environ.get('GODWIT_BUILD', TOP / 'build'))
GODWIT = os.environ.get('GODWIT', str(BUILD / 'godwit'))
LONG = bool(os.environ.get('GODWIT_LONG'))
CONFIG = BUILD / 'config.mk'
THREAD_SANITIZER = CONFIG.exists() and 'SANITIZER := thread' in CONFIG.read_text()
# Sanitizers and busy machines: every deadline is a limit on patience, not a measurement.
PATIENCE_S = float(os.environ.get('GODWIT_PATIENCE', 60))


class Failure(Exception):
    pass


def wait_for(what, condition, limit_s=PATIENCE_S, every_s=0.01, alive=None):
    """Until condition() is true; alive() may raise when waiting has become pointless."""
    until = time.monotonic() + limit_s
    while True:
        value = condition()
        if value:
            return value
        if alive:
            alive()
        if time.monotonic() > until:
            raise Failure(f'waited {limit_s:.0f} s for {what}')
        time.sleep(every_s)


class Qmp:
    def __init__(self, path, limit_s=PATIENCE_S, alive=None):
        self.socket = socket.socket(socket.AF_UNIX)
        def connect():
            try:
                self.socket.connect(str(path))
                return True
            except (FileNotFoundError, ConnectionRefusedError):
                return False
        wait_for(f'monitor {path}', connect, limit_s, alive=alive)
        self.socket.settimeout(limit_s)
        self.lines, self.events = self.socket.makefile('r', newline='\n'), []
        self.greeting = json.loads(self.lines.readline())
        self('qmp_capabilities')

    def raw(self, command, **arguments):
        message = {'execute': command}
        if arguments:
            message['arguments'] = {k.replace('_', '-') if command != 'human-monitor-command' else k.replace('_', '-'): v
                                    for k, v in arguments.items()}
        while True:
            try:
                if message:
                    self.socket.sendall(json.dumps(message).encode() + b'\n')
                message, line = None, self.lines.readline()
            except ConnectionError:  # it ended with our question unread
                line = ''
            if not line:
                raise Failure(f'the monitor closed while {command} was waiting for its answer')
            answer = json.loads(line)
            if 'event' in answer:
                self.events.append(answer)
                continue
            return answer

    def in_one_packet(self, *commands):
        """Several commands before the first answer; returns the answers."""
        self.socket.sendall(b''.join(json.dumps({'execute': command}).encode() + b'\n' for command in commands))
        answers = []
        while len(answers) < len(commands):
            line = self.lines.readline()
            if not line:
                raise Failure(f'the monitor closed while {commands} were waiting for answers')
            answer = json.loads(line)
            (self.events if 'event' in answer else answers).append(answer)
        return answers

    def __call__(self, command, **arguments):
        answer = self.raw(command, **arguments)
        if 'error' in answer:
            raise Failure(f'{command}: {answer["error"]["desc"]}')
        return answer['return']

    def close(self):
        self.lines.close()
        self.socket.close()

    def hmp(self, line):
        return self('human-monitor-command', command_line=line)


class Line:
    """The far end of a serial line: a socket that godwit connects to; what the guest says goes into a file."""

    def __init__(self, path, record):
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(1)
        self.peer, self.ready = None, threading.Event()
        self.record = open(record, 'wb', buffering=0)
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        try:
            self.peer, _ = self.listener.accept()
            self.ready.set()
            while data := self.peer.recv(65536):
                self.record.write(data)
        except OSError:
            pass

    def type(self, text):
        if not self.ready.wait(PATIENCE_S):
            raise Failure('nobody connected to the serial line')
        self.peer.sendall(text.encode())

    def close(self):
        for end in (self.listener, self.peer):
            if end:
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
                end.close()
        self.thread.join(PATIENCE_S)
        self.record.close()


class Vm:
    def __init__(self, args, binary=None, name='guest', qmp=True, serial=True, env=None, base=True, typing=False,
                 pass_fds=()):
        """serial: True for a file, or the options to give; typing: the serial line is a socket that type() writes to."""
        self.name, self.folder = name, pathlib.Path(tempfile.mkdtemp(prefix='godwit-'))
        self.serial_path, self.qmp_path = self.folder / 'serial', self.folder / 'qmp'
        command = [binary or GODWIT]
        if base:
            command += ['-M', 'virt', '-display', 'none', '-monitor', 'none']
        self.line = Line(self.folder / 'line', self.serial_path) if typing else None
        if typing:
            serial = ['-serial', f'unix:{self.folder / "line"}']
        command += ['-serial', f'file:{self.serial_path}'] if serial is True else serial or []
        command += ['-qmp', f'unix:{self.qmp_path},server=on,wait=off'] if qmp else []
        self.command = command + [str(a) for a in args]
        self.errors_path = self.folder / 'stderr'
        environment = dict(os.environ, **{'XDG_STATE_HOME': str(self.folder / 'state'), **(env or {})})
        with open(self.errors_path, 'wb') as errors:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors,
                                            env=environment, pass_fds=pass_fds)
        self._qmp, self.has_qmp = None, qmp

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind and not isinstance(value, KeyboardInterrupt):
            print(f'# {self.name}: {" ".join(self.command)}')
            for what, text in (('stderr', self.stderr()), ('serial', self.serial())):
                for line in text.splitlines()[-15:]:
                    print(f'# {self.name} {what}: {line}')
        self.close()

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.line:
            self.line.close()
        if self._qmp:
            self._qmp.socket.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def type(self, text):
        """Keys for the guest's serial line (typing=True)."""
        self.line.type(text)

    def alive(self):
        if self.process.poll() is not None:
            raise Failure(f'{self.name} ended with code {self.process.returncode}: {self.stderr().strip()[-400:]}')

    def stderr(self):
        try:
            return self.errors_path.read_text(errors='replace')
        except FileNotFoundError:
            return ''

    def serial(self):
        try:
            return self.serial_path.read_text(errors='replace')
        except FileNotFoundError:
            return ''

    def wait_serial(self, pattern, limit_s=PATIENCE_S, after=0):
        """The match of a regular expression on the serial line, looking from character `after` on."""
        regex = re.compile(pattern)
        def look():
            found = regex.search(self.serial(), after)
            if not found:
                self_dead = self.process.poll() is not None
                if self_dead and self.line:
                    self.line.thread.join(PATIENCE_S)  # what it said last may still be on its way to the file
                found = regex.search(self.serial(), after) if self_dead else None
                if self_dead and not found:
                    self.alive()
            return found
        return wait_for(f'"{pattern}" on the serial line of {self.name}', look, limit_s)

    @property
    def qmp(self):
        if self._qmp is None:
            self._qmp = Qmp(self.qmp_path, alive=self.alive)
        return self._qmp

    def status(self):
        return self.qmp('query-status')['status']

    def wait_status(self, status, limit_s=PATIENCE_S):
        wait_for(f'{self.name} to be {status}', lambda: self.status() == status, limit_s, alive=self.alive)

    def wait_exit(self, limit_s=PATIENCE_S):
        try:
            return self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise Failure(f'{self.name} did not end within {limit_s:.0f} s')

    def migration(self):
        return self.qmp('query-migrate')

    def start_migration(self, uri, **parameters):
        if parameters:
            self.qmp('migrate-set-parameters', **parameters)
        self.qmp('migrate', uri=uri)

    def wait_migration(self, *states, limit_s=PATIENCE_S):
        """Until the migration is in one of `states`; fails at once when it ended in another."""
        ends = {'completed', 'failed', 'cancelled'}
        def look():
            info = self.migration()
            if info.get('status') in states:
                return info
            if info.get('status') in ends:
                raise Failure(f'{self.name}: migration {info["status"]}: {info.get("error-desc", "")}')
        return wait_for(f'{self.name}\'s migration to be {"/".join(states)}', look, limit_s, alive=self.alive)

    def migrate(self, uri, limit_s=PATIENCE_S, **parameters):
        self.start_migration(uri, **parameters)
        return self.wait_migration('completed', limit_s=limit_s)


def listening(vm):
    """The URI that an incoming godwit really listens on (tcp port 0: the system chose)."""
    def look():
        return vm.qmp('query-migrate').get('socket-address')
    address = wait_for(f'{vm.name} to listen', look, alive=vm.alive)[0]
    if address['type'] == 'unix':
        return f'unix:{address["path"]}'
    return f'tcp:[{address["host"]}]:{address["port"]}' if ':' in address['host'] else f'tcp:{address["host"]}:{address["port"]}'


def free_port(family=socket.AF_INET):
    with socket.socket(family) as probe:
        probe.bind(('::1' if family == socket.AF_INET6 else '127.0.0.1', 0))
        return probe.getsockname()[1]


_tests = []


def test(function):
    """Marks a function as a test; its name is the promise it checks."""
    _tests.append(function)
    return function


class Skip(Exception):
    pass


def main():
    """Run every @test of the file, or those named as arguments; one line each."""
    failed, wanted = 0, sys.argv[1:]
    for function in _tests:
        name = function.__name__
        if wanted and not any(word in name for word in wanted):
            continue
        try:
            function()
            print(f'ok {name}', flush=True)
        except Skip as why:
            print(f'ok {name} # SKIP {why}', flush=True)
        except Exception as why:  # an assertion is a failed promise, anything else as well
            failed += 1
            text = str(why) or repr(why)
            if isinstance(why, AssertionError):
                import traceback
                frame = traceback.extract_tb(why.__traceback__)[-1]
                text = f'{frame.filename.rsplit("/", 1)[-1]}:{frame.lineno}: {frame.line} {why}'
            print(f'not ok {name}: {text}', flush=True)
    sys.exit(1 if failed else 0)


_guest = None


def linux_guest():
    """(kernel, firmware, initrd) of the Debian guest, fetched and packed once; Skip where that cannot be done."""
    global _guest
    if os.environ.get('GODWIT_NO_LINUX'):
        raise Skip('no Linux asked for')
    if _guest is None:
        found = subprocess.run([TOP / 'scripts/fetch-guest'], stdout=subprocess.PIPE, text=True)
        if found.returncode:
            raise Skip('the Debian guest cannot be fetched here')
        folder, initrd = pathlib.Path(found.stdout.strip()), BUILD / 'initrd.cpio.gz'
        subprocess.run([TOP / 'scripts/pack-guest', folder, initrd], check=True)
        _guest = folder / 'vmlinux', folder / 'fw_dynamic.bin', initrd
    return _guest


def linux_args(run, memory='512M', harts=2, more=''):
    kernel, firmware, initrd = linux_guest()
    return ['-m', memory, '-smp', harts, '-bios', firmware, '-kernel', kernel, '-initrd', initrd, '-append',
            f'console=ttyS0 iomem=relaxed quiet {more} godwit.run={run}']
