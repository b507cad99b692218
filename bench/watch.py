"""What processes take, seen from outside (/proc), and the link between them (bench/relay.c): nothing here asks an emulator."""
import json, os, pathlib, re, signal, subprocess, threading, time

from compare import lib

# Names of threads, ours and QEMU's (-name guest,debug-threads=on), to what they do.
KINDS = [('vcpu', r'vcpu/|CPU \d+/'), ('work', r'work/|multifdsend|mig/src/send'), ('write', r'write/'),
         ('load', r'load/|multifdrecv|mig/dst/recv'), ('migrate', r'migrat|live_migration|mig/src/main'),
         ('return', r'return|mig/src/rp'), ('postcopy', r'postcopy|fault|mig/dst/'), ('timers', r'timers'), ('main', '')]


def kind_of(name):
    return next(kind for kind, pattern in KINDS if re.search(pattern, name))


class Threads:
    """CPU time of a process by kind of thread. Threads that end between two looks: what they took since is counted as `ended`."""

    def __init__(self, pid):
        self.pid, self.first, self.last, self.names = pid, {}, {}, {}
        self.begun = self.total()
        self.look()
        self.first = dict(self.last)

    def total(self):
        try:  # CPU time of all threads ever: the kernel's clock id is made of the process id (CPUCLOCK_SCHED)
            return time.clock_gettime(~self.pid << 3 | 2)
        except OSError:
            return None

    def look(self):
        for task in pathlib.Path(f'/proc/{self.pid}/task').glob('*'):
            try:
                self.last[task.name] = int((task / 'schedstat').read_text().split()[0]) / 1e9
                self.names[task.name] = (task / 'comm').read_text().strip()
            except (OSError, IndexError):
                pass  # it has just ended

    def seconds(self):
        self.look()
        taken = {}
        for task, last in self.last.items():
            kind = kind_of(self.names.get(task, ''))
            taken[kind] = taken.get(kind, 0) + last - self.first.get(task, 0)
        now = self.total()
        if now is not None and self.begun is not None:
            taken['all'] = now - self.begun
            taken['ended'] = max(0.0, taken['all'] - sum(v for k, v in taken.items() if k != 'all'))
        return {kind: round(value, 4) for kind, value in sorted(taken.items())}


def memory(pid, ram_bytes):
    """Resident bytes of a process: in all, the most there ever was, and beyond its guest's RAM; {} of one that has just ended."""
    status = pathlib.Path(f'/proc/{pid}/status').read_text()
    found = {key: int(value) << 10 for key, value in re.findall(r'(VmRSS|VmHWM):\s+(\d+) kB', status)}
    if 'VmRSS' not in found:
        return {}
    ram, size = 0, 0
    for line in pathlib.Path(f'/proc/{pid}/smaps').read_text().splitlines():
        if line.startswith('Size:'):
            size = int(line.split()[1]) << 10
        elif line.startswith('Rss:') and ram_bytes <= size < ram_bytes + (64 << 20):
            ram += int(line.split()[1]) << 10
    return {'rss_bytes': found['VmRSS'], 'peak_bytes': found['VmHWM'], 'ram_rss_bytes': ram,
            'over_ram_bytes': found['VmRSS'] - ram}


def host_busy_s():
    """CPU seconds of the whole machine that were not idle."""
    user, nice, system, _, _, irq, softirq, steal = map(int, pathlib.Path('/proc/stat').read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / 100


class Slowed:
    """A process on a slower host: it is stopped and let go in turn, so that it runs for `share` of the time. Waits less than 2 ms longer
    than it would by itself."""

    TURN_S = 0.004

    def __init__(self, pid, share):
        self.pid, self.share, self.over = pid, share, threading.Event()
        self.thread = threading.Thread(target=self._turns, daemon=True)

    def _turns(self):
        try:
            while not self.over.is_set():
                os.kill(self.pid, signal.SIGSTOP)
                self.over.wait(self.TURN_S * (1 - self.share))
                os.kill(self.pid, signal.SIGCONT)
                self.over.wait(self.TURN_S * self.share)
        except ProcessLookupError:
            pass  # it has ended

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


RELAY = pathlib.Path(os.environ.get('GODWIT_RELAY', lib.BUILD / 'bench/relay'))


class Relay:
    """The link of one run; wire() tells what passed once it is closed."""

    def __init__(self, uri, link, folder):
        host, port = re.fullmatch(r'tcp:(.*):(\d+)', uri).groups()
        self.log, self.told = pathlib.Path(folder) / 'wire', None
        options = []
        for key, option in (('rate_mbit', '--rate'), ('rtt_ms', '--rtt'), ('jitter_ms', '--jitter'),
                            ('stall_every', '--stall-every'), ('stall', '--stall'), ('seed', '--seed')):
            values = link.get(key, [])
            for value in values if isinstance(values, list) else [values]:
                options += [option, str(value)]
        self.command = [str(RELAY), '--to', f'{host}:{port}', '--log', str(self.log), *options]
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        first = self.process.stdout.readline().split()
        if len(first) != 2:
            self.process.wait()
            raise lib.Failure(f'the relay ended: {" ".join(self.command)}')
        self.uri, self.threads = f'tcp:127.0.0.1:{first[1]}', Threads(self.process.pid)

    def close(self):
        if self.told is None:
            self.cpu_s = self.threads.total() or 0
            out, _ = self.process.communicate()
            self.told = json.loads(out.splitlines()[-1]) if out.strip() else {}
        return self.told

    def samples(self):
        """[(CLOCK_MONOTONIC ns, bytes there so far, bytes back)]"""
        try:
            return [tuple(map(int, line.split())) for line in self.log.read_text().splitlines()]
        except OSError:
            return []


class StampedLine(lib.Line):
    """A serial line that keeps when each piece arrived: [(CLOCK_REALTIME ns, bytes)]."""

    def __init__(self, path, record):
        self.chunks = []
        super().__init__(path, record)

    def _read(self):
        try:
            self.peer, _ = self.listener.accept()
            self.ready.set()
            while data := self.peer.recv(65536):
                self.chunks.append((time.time_ns(), data))
        except OSError:
            pass
