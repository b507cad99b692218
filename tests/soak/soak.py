#!/usr/bin/env python3
"""Random migrations of random guests over random lines, with random faults, for as long as one likes.

    make soak HOURS=1 [SEED=N]          or MINUTES=2, or MIGRATIONS=50
    make soak SEED=N JOURNEYS=7         journey 7 of that seed again, alone

A journey is one guest and a handful of migrations in a row, each with a fault or none. What happens in journey J is drawn from
(SEED, J) alone, before it begins, and printed when it fails: the same seed gives the same schedule, however long it runs. Behind
every migration exactly one side has the guest, it answers, a source that kept it has the threads and descriptors that it
had, and no note is left; at its end the guest has checked itself and powered off. Every fifth journey is one fault at a named
point of the hand-over (tests/lib/faults.py), every seventh one process with many attempts that come to nothing, whose memory must
not grow.
"""
import collections, contextlib, os, pathlib, random, resource, shlex, signal, socket, subprocess, sys, tempfile, threading, time
from concurrent.futures import ThreadPoolExecutor

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / 'lib'))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from vm import PATIENCE_S, Failure, Skip, Vm, linux_args, listening, wait_for
from proxy import Chaos
from guests import BAD, check, guest, machine
from faults import RAN, QUIET_MS, RESOLVE, NotMet, belongings, is_as_before, notes, own, points, process_state, run_case
from hops import state as traveller_state

PARALLEL = 2
ATTEMPTS = 40  # of a process that keeps its guest
# Memory that a process may have more after the last of them than after the tenth: arenas of the C library, and code of guest
# functions that are met late (64 bytes of each page that they stand on, at most). A leak of one buffer of a chunk each is 8 MiB.
GROWTH_MAX_KIB = 4096
RECONNECT_MS = 5000  # so long a source may look for a destination that may hold a copy, after it has failed
SOCKETS = 'tcp4', 'tcp6', 'unix'
ONE_CONNECTION = 'relay', 'fd'
STORED = 'file', 'pipe'


# --- guests -----------------------------------------------------------------------------------------------------------


class Guest:
    """A kind of guest, its shape drawn; how to see that it lives, and that it is whole."""

    def __init__(self, dice):
        self.harts, self.disk = dice.choice([1, 2, 2, 3, 4]), dice.random() < 0.35
        self.ram = dice.choice([32, 48, 64, 128])
        self.kind = dice.choice(['memcheck'] * 5 + ['traveller'] * 3 + ['dirtier', 'sleeper'])
        self.more, self.words = [], ''
        getattr(self, self.kind)(dice)

    def memcheck(self, dice):
        mem = dice.choice([2, 8, 16])
        self.words = f'mem={mem}M harts={self.harts} rate={dice.choice([0, 0, 5000, 50000])}'
        self.words += dice.choice(['', '', ' pattern=jump', ' fill=head', f' hot={mem // 2}M'])

    def traveller(self, dice):
        self.words = f'mem={dice.choice([1, 4, 8])}M period_us={dice.choice([500, 2000, 10000])}'
        self.more = ['-global', 'virtio-mmio.force-legacy=false', '-device', 'virtio-rng-device']

    def dirtier(self, dice):
        self.words = (f'w={dice.choice([1, 8])}M rate={dice.choice([0, 20000])} dots=0 bytes={dice.choice([8, 64, 4096])} '
                      f'pattern={dice.choice(["seq", "uniform", "zipf"])} content={dice.choice(["random", "counters", "zero"])}')

    def sleeper(self, dice):
        self.words = f'period_ms={dice.choice([5, 50])}'

    def __str__(self):
        return f'{self.kind}({self.words}) harts={self.harts} ram={self.ram}M{" disk" if self.disk else ""}'

    def options(self, folder):
        disk = ['-drive', f'file={folder}/disk,format=raw,if=virtio'] if self.disk else []
        return machine(f'{self.ram}M', harts=self.harts, more=['-name', 'traveller', *self.more, *disk])

    def load(self):
        return ['-kernel', guest(self.kind), '-append', self.words]

    def lives(self, vm):
        """It has done something since this began, and complains of nothing."""
        if self.kind == 'traveller':
            traveller_state(vm)
            return
        after = len(vm.serial())
        if self.kind == 'memcheck':
            vm.type('s')
        lines = {'memcheck': r'alive \d+ pass', 'dirtier': r'D \d+ rtc', 'sleeper': r'tick \d+ hart'}
        vm.wait_serial(f'{lines[self.kind]}|{BAD.pattern}', after=after)
        check(vm)

    def finish(self, vm):
        vm.type('q')
        ends = {'memcheck': r'OK passes=\d+', 'traveller': r'OK\r?\n', 'sleeper': r'OK\r?\n', 'dirtier': r'END ok pages'}
        vm.wait_serial(f'{ends[self.kind]}|END failed|{BAD.pattern}')
        check(vm)
        if 'END failed' in vm.serial() or vm.wait_exit() != 0:
            raise Failure(f'{vm.name} ended with code {vm.process.poll()}: {vm.serial()[-200:]} {vm.stderr()}')


# --- one migration ----------------------------------------------------------------------------------------------------


class Step:
    """Drawn: how, with which parameters, and what goes wrong."""

    def __init__(self, dice):
        self.way = dice.choice(['tcp4'] * 4 + ['tcp6', 'unix', 'unix', 'relay', 'fd', 'file', 'pipe'])
        self.parameters = {
            'compression': dice.choice(['auto', 'auto', 'none', 'lz4', 'zstd']), 'threads': dice.choice([1, 2, 4]),
            'downtime-limit': dice.choice([30, 300, 300, 2000]), 'max-bandwidth': dice.choice([0, 0, 0, 64 << 20, 200 << 20]),
            'channels': dice.choice([1, 1, 2, 3, 8]) if self.way in SOCKETS else 1,
            'on-stall': 'continue',  # a drawn limit may be less than this host can do; a person raises it then
            'warm-arrival': dice.choice(['on', 'off']), 'audit': dice.choice([0, 0, 64, 512])}
        self.capabilities = {'deltas': dice.random() < 0.7, 'auto-converge': dice.random() < 0.5,
                             'return-path': self.way == 'relay'}
        self.fault = dice.choice(['none'] * 6 + ['cancel'] * 4 + ['stop there', 'stop source', 'refused'] +
                                 (['line'] * 4 if self.way == 'tcp4' else []) + (['full'] * 3 if self.way == 'file' else []) +
                                 (['kill there'] * 2 if self.way in SOCKETS else []))
        if self.way in STORED and self.fault in ('stop there', 'refused'):
            self.fault = 'none'
        self.moment_s = dice.random() * dice.choice([0.01, 0.05, 0.3])
        self.hold_s = dice.choice([0.015, 0.45, 0.9])
        self.line = dice.choice(['cut', 'cut', 'reset', 'half', 'stall']), dice.choice(['there'] * 4 + ['back']), \
            int(2 ** dice.uniform(8, 22))
        if self.line[1] == 'back':
            self.line = *self.line[:2], int(2 ** dice.uniform(4, 11))
        before_it_runs = [name for name, _ in points() if name.startswith('target-') and name not in RAN]
        self.point = f'{dice.choice([name for name in before_it_runs if name in KILLS])}:{dice.choice([1, 1, 2, 5])}'

    def __str__(self):
        given = ' '.join(f'{name}={value}' for name, value in self.parameters.items())
        on = ' '.join(name for name, value in self.capabilities.items() if value)
        what = {'line': f'line {",".join(map(str, self.line))}', 'kill there': f'kill there at {self.point}'}.get(self.fault, self.fault)
        if self.fault in ('cancel', 'stop there', 'stop source'):
            what += f' after {self.moment_s * 1e3:.1f} ms' + (f' for {self.hold_s * 1e3:.0f} ms' if 'stop' in what else '')
        return f'{self.way} {given} {on}: {what}'

    def timeout_ms(self):
        """Short, where silence is the fault."""
        silent = self.fault.startswith('stop') or self.fault == 'line' and self.line[0] in ('stall', 'half')
        return QUIET_MS if silent else 20000


# Where a destination that dies has not run the guest: a source that is in doubt may be told so.
KILLS = {'target-met', 'target-load', 'target-loaded', 'target-eof', 'target-apply', 'target-applied', 'target-prepared',
         'target-wait', 'target-go', 'target-take'}

RELAY = '''
import os, select, socket, sys
peer = socket.socket(socket.AF_UNIX)
peer.connect(sys.argv[1])
ways = {0: peer.fileno(), peer.fileno(): 1}
while ways:
    for end in select.select(list(ways), [], [])[0]:
        data = os.read(end, 65536)
        to = ways[end]
        if not data:
            del ways[end]
            peer.shutdown(socket.SHUT_WR) if end == 0 else os.close(1)
        while data:
            data = data[os.write(to, data):]
'''


class Journey:
    def __init__(self, seed, number):
        dice = random.Random(f'{seed} {number}')
        self.number, self.guest = number, Guest(dice)
        self.steps = [Step(dice) for _ in range(dice.randrange(3, 8))]
        self.counts, self.vms, self.pairs = collections.Counter(), [], {}

    def __str__(self):
        return f'{self.guest}\n' + '\n'.join(f'#     {step}' for step in self.steps)

    # --- processes

    def start(self, name, options, fds=()):
        """Every process inherits one end of a pair of sockets, for a migration over fd."""
        pair = socket.socketpair()
        vm = Vm(self.guest.options(self.folder) + options, typing=True, name=name,
                pass_fds=[pair[0].fileno(), *(end.fileno() for end in fds)])
        self.pairs[vm] = pair
        self.vms.append(vm)
        return vm

    def waiting(self, at, step, number):
        """The destination, and the address that the source is told."""
        more = ['-global', f'migration.peer-timeout={step.timeout_ms()}']
        if step.fault == 'kill there':
            more += ['-fault', f'{step.point}:kill']
        name, road = f'hop {number}', f'{self.folder}/road{number}'
        if step.way == 'fd':
            far = self.pairs[at][1]
            there = self.start(name, ['-incoming', f'fd:{far.fileno()}', *more], [far])
            far.close()
            return there, f'fd:{self.pairs[at][0].fileno()}'
        incoming = {'tcp4': 'tcp:127.0.0.1:0', 'tcp6': 'tcp:[::1]:0'}.get(step.way, f'unix:{road}')
        there = self.start(name, ['-incoming', incoming, *more])
        uri = listening(there)
        if step.way == 'relay':
            uri = f'exec:exec {sys.executable} {self.folder}/relay {road}'
        return there, uri

    def close(self, vm):
        for end in self.pairs.pop(vm):
            end.close()
        self.vms.remove(vm)
        vm.close()

    # --- one step: who has the guest then

    def run(self):
        with tempfile.TemporaryDirectory(prefix='godwit-soak-') as self.folder:
            pathlib.Path(self.folder, 'relay').write_text(RELAY)
            if self.guest.disk:
                with open(f'{self.folder}/disk', 'wb') as disk:
                    disk.truncate(1 << 20)
            try:
                at = self.start('hop 0', self.guest.load())
                self.guest.lives(at)
                for number, step in enumerate(self.steps, 1):
                    at = self.migrate(at, step, number)
                self.guest.finish(at)
                for vm in list(self.vms):
                    self.close(vm)
            except BaseException:
                for vm in list(self.vms):
                    vm.__exit__(*sys.exc_info())
                raise
            finally:
                for pair in self.pairs.values():
                    for end in pair:
                        end.close()

    def migrate(self, at, step, number):
        before, used_fd = own(at), step.way == 'fd'
        at.qmp('migrate-set-parameters', **step.parameters,
               **{'peer-timeout': step.timeout_ms(), 'reconnect-time': RECONNECT_MS})
        at.qmp('migrate-set-capabilities',
               capabilities=[{'capability': name, 'state': on} for name, on in step.capabilities.items()])
        if step.way in STORED:
            there = self.store(at, step, number)
        elif step.fault == 'refused':
            self.fails(at, 'tcp:127.0.0.1:1' if step.way in SOCKETS[:2] else f'unix:{self.folder}/nobody', step)
            there = None
        else:
            there = self.hand_over(at, step, number)
        self.counts[step.way, step.fault, 'went' if there else 'stayed'] += 1
        if there:
            if at.status() != 'postmigrate' or notes(at):
                raise Failure(f'{at.name} is {at.status()} and has {notes(at)}, and the guest has left')
            self.guest.lives(there)
            check(at)
            self.close(at)
            return there
        self.guest.lives(at)
        if used_fd and step.fault != 'refused':
            self.pairs[at][0].close()
            self.pairs[at] = socket.socketpair()  # the process's own end is used up
            for later in self.steps[number:]:
                later.way = 'tcp4' if later.way == 'fd' else later.way
        else:
            nothing_more(at, before)
        if notes(at):
            raise Failure(f'{notes(at)} are left over')
        return at

    def fails(self, at, uri, step):
        at.qmp('migrate-set-parameters', channels=1)
        try:
            at.start_migration(uri)
        except Failure:
            return  # refused at once
        wait_for('a failure', lambda: at.migration()['status'] == 'failed', alive=at.alive)

    def store(self, at, step, number):
        """To a file or a compressor, and back. A full disk keeps the guest here."""
        path = f'{self.folder}/saved{number}'
        if step.fault == 'full':
            with small_disk(at, self.folder) as full:
                self.fails(at, f'file:{full}/saved', step)
            return None
        uri, incoming = {'file': (f'file:{path}', f'file:{path}'),
                         'pipe': (f'exec:gzip -1 -c > {path}', f'exec:gzip -dc < {path}')}[step.way]
        # A compressor that shares its CPU with the guest can be slower than the guest writes; this pause always fits.
        at.qmp('migrate-set-parameters', **{'downtime-limit': 20000})
        at.start_migration(uri)
        self.disturb(at, None, step)
        info = self.ended(at)
        if info['status'] != 'completed':
            return None
        there = self.start(f'hop {number}', ['-incoming', incoming])
        there.wait_status('running')
        pathlib.Path(path).unlink()
        return there

    def hand_over(self, at, step, number):
        there, uri = self.waiting(at, step, number)
        with contextlib.ExitStack() as around:
            line = None
            if step.fault == 'line':
                line = around.enter_context(Chaos(uri, step.line))
                uri = line.uri
            at.start_migration(uri)
            self.disturb(at, there, step)
            if line and step.line[0] == 'stall':
                wait_for('the line to stall, or an end', lambda: line.happened.is_set() or self.over(at), alive=at.alive)
                time.sleep(step.hold_s)  # what the two make of it is the input
                line.let_go.set()
            where = self.settle(at, there, step)
        if where == 'there':
            return there
        self.close(there)
        return None

    def disturb(self, at, there, step):
        if step.fault == 'cancel':
            time.sleep(step.moment_s)  # the moment is the input
            at.qmp.raw('migrate_cancel')
        elif step.fault.startswith('stop'):
            vm = there if step.fault == 'stop there' else at
            time.sleep(step.moment_s)
            vm.process.send_signal(signal.SIGSTOP)
            wait_for('it to stop', lambda: process_state(vm) in 'TZX')
            time.sleep(step.hold_s)
            vm.process.send_signal(signal.SIGCONT)

    def over(self, at):
        return at.migration().get('status') in ('completed', 'failed', 'cancelled')

    def ended(self, at):
        wait_for('the migration to end', lambda: self.over(at), 2 * PATIENCE_S, alive=at.alive)
        info = at.migration()
        if info['status'] == 'failed':
            raise Failure(f'it failed: {info.get("error-desc")}')
        return info

    def settle(self, at, there, step):
        """'here' or 'there', when nobody has to say anything any more; a person speaks only where one of them was killed."""
        begun = time.monotonic()
        def look():
            nonlocal begun
            if time.monotonic() > begun + PATIENCE_S / 2:  # too much is written for this limit on this host: as a person would
                at.qmp('migrate-set-parameters', **{'downtime-limit': 20000, 'max-bandwidth': 0})
                begun = float('inf')
            runs_there = there.process.poll() is None and self.status(there) == 'running'
            status, info = self.status(at), at.migration()
            if runs_there and status == 'running':
                raise Failure('both sides run the guest')
            if info['status'] == 'unresolved' and there.process.poll() is not None and step.fault == 'kill there':
                at.qmp(RESOLVE, answer='here')  # KILLS: it never ran there
                return None
            if step.way in ONE_CONNECTION:
                self.person_speaks(at, there, info['status'], status, runs_there)
            if info['status'] == 'completed' and runs_there:
                return 'there'
            if info['status'] in ('failed', 'cancelled') and status == 'running':
                if step.fault == 'none':
                    raise Failure(f'it is {info["status"]} although nothing was wrong: {info.get("error-desc")}')
                # One that nobody has called waits on; one at an inherited socket does not see that its source has left it.
                waits = step.way == 'fd' or (step.fault == 'cancel' or step.way == 'relay') and self.never_called(there)
                return 'here' if there.process.poll() is not None or waits else None
            return None
        return wait_for('an end', look, 2 * PATIENCE_S, alive=at.alive)

    @staticmethod
    def person_speaks(at, there, state, status, runs_there):
        """What cannot be connected again cannot be asked: a person looks at both (the rules in docs/reliability.md)."""
        with contextlib.suppress(Failure, OSError, ValueError):  # it has ended, or has just been settled
            held = there.process.poll() is None and there.migration().get('status') == 'unresolved'
            if state == 'unresolved' and runs_there:
                at.qmp(RESOLVE, answer='there')
            elif state == 'unresolved' and held:
                there.qmp(RESOLVE, answer='here')
            elif state in ('failed', 'cancelled') and status == 'running' and held:
                there.qmp(RESOLVE, answer='there')

    @staticmethod
    def never_called(vm):
        try:
            return vm.migration().get('status') == 'setup'
        except (Failure, OSError, ValueError):
            return False

    @staticmethod
    def status(vm):
        try:
            return vm.status()
        except (Failure, OSError, ValueError):  # it ended while it was asked
            return 'dead'


def nothing_more(vm, before):
    """What a process that has just arrived still had for a source that might come back may go."""
    def more():
        kinds, names = belongings(vm)
        return kinds - before[0] or names - before[1]
    try:
        wait_for('nothing to be left over', lambda: not more(), 10 + RECONNECT_MS / 1e3)
    except Failure:
        raise Failure(f'{vm.name} has {dict(more())} more than before')


@contextlib.contextmanager
def small_disk(vm, folder):
    """A folder with room for less than a guest; where nothing may be mounted, files of this process end early instead."""
    path = f'{folder}/small'
    os.makedirs(path, exist_ok=True)
    mounted = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=8k', 'tmpfs', path], stderr=subprocess.DEVNULL).returncode == 0
    kept = None
    if not mounted:
        kept = resource.prlimit(vm.process.pid, resource.RLIMIT_FSIZE, (8192, resource.RLIM_INFINITY))
    try:
        yield path
    finally:
        if mounted:
            subprocess.run(['umount', '-l', path], check=True)
        elif vm.process.poll() is None:
            resource.prlimit(vm.process.pid, resource.RLIMIT_FSIZE, kept)


# --- one process, many attempts ---------------------------------------------------------------------------------------


def resident_kib(vm):
    """Without what is shared: the guest's RAM may be."""
    for line in pathlib.Path(f'/proc/{vm.process.pid}/status').read_text().splitlines():
        if line.startswith('RssAnon:'):
            return int(line.split()[1])
    raise Failure('no RssAnon')


class Stay:
    """A source whose migrations all come to nothing: what it has, and takes, stays the same."""

    def __init__(self, seed, number):
        dice = random.Random(f'{seed} {number}')
        self.number, self.counts = number, collections.Counter()
        self.harts = dice.choice([1, 2, 4])
        self.attempts = [(dice.choice(['cancel', 'cancel', 'line', 'refused']), dice.choice([1, 2, 4]),
                          dice.choice(['none', 'lz4', 'zstd', 'auto']), dice.random() * dice.choice([0.02, 0.1]),
                          int(2 ** dice.uniform(8, 18))) for _ in range(ATTEMPTS)]

    def __str__(self):
        return f'one process, harts={self.harts}, {ATTEMPTS} attempts that fail: {self.attempts}'

    def run(self):
        both = machine('32M', harts=self.harts)
        kernel = ['-kernel', guest('memcheck'), '-append', f'mem=8M harts={self.harts} rate=20000']
        with Vm(both + kernel, typing=True, name='stays') as at:
            vm_lives(at)
            before, early_kib, settled = own(at), None, 0
            for number, (fault, channels, codec, moment_s, offset) in enumerate(self.attempts, 1):
                at.qmp('migrate-set-parameters', channels=channels, compression=codec)
                stayed = self.attempt(at, both, fault, moment_s, offset)
                if not stayed:
                    return  # it was quicker than the fault: the journey is over, and its guest checked
                is_as_before(at, before)
                early_kib = resident_kib(at) if number == 10 else early_kib
            growth = resident_kib(at) - early_kib
            if growth > GROWTH_MAX_KIB:
                raise Failure(f'from attempt 10 to {ATTEMPTS} the process grew by {growth} KiB to {resident_kib(at)}')
            self.counts['one process', 'flat memory', 'seen'] += 1
            vm_finish(at)

    def attempt(self, at, both, fault, moment_s, offset):
        """True: the guest stayed. The line is so slow that it is not away before."""
        if fault == 'refused':
            at.start_migration('tcp:127.0.0.1:1', max_bandwidth=0)
            wait_for('a failure', lambda: at.migration()['status'] == 'failed', alive=at.alive)
            self.counts['tcp4', fault, 'stayed'] += 1
            return True
        with Vm(both + ['-incoming', 'tcp:127.0.0.1:0'], typing=True, name='there') as there:
            with Chaos(listening(there), ('cut', 'there', offset) if fault == 'line' else None) as line:
                at.start_migration(line.uri, max_bandwidth=8 << 20)
                if fault == 'cancel':
                    time.sleep(moment_s)  # the moment is the input
                    at.qmp.raw('migrate_cancel')
                wait_for('an end', lambda: at.migration()['status'] in ('failed', 'cancelled', 'completed'), alive=at.alive)
            stayed = at.migration()['status'] != 'completed'
            self.counts['tcp4', fault, 'stayed' if stayed else 'went'] += 1
            if stayed:
                at.wait_status('running')
                # One that nobody has called waits on.
                wait_for('the destination to end', lambda: there.process.poll() is not None or
                         fault == 'cancel' and Journey.never_called(there))
                vm_lives(at)
            else:
                there.wait_status('running')
                vm_finish(there)
            return stayed


def vm_lives(vm):
    after = len(vm.serial())
    vm.type('s')
    vm.wait_serial(rf'alive \d+ pass|{BAD.pattern}', after=after)
    check(vm)


def vm_finish(vm):
    vm.type('q')
    vm.wait_serial(rf'OK passes=\d+|{BAD.pattern}')
    check(vm)
    if vm.wait_exit() != 0:
        raise Failure(f'{vm.name} ended with code {vm.process.poll()}')


# --- one fault at a named point ---------------------------------------------------------------------------------------


class Fault:
    """One of the cases of make reliability, drawn: kills of either end, and people who look."""

    def __init__(self, seed, number):
        dice = random.Random(f'{seed} {number}')
        self.seed, self.number, self.counts = seed, number, collections.Counter()
        name, _ = dice.choice([point for point in points() if point[0] not in LED])
        who = 'there' if name.startswith('target') else 'source'
        self.case = (f'{who}={name}:1:{dice.choice(["kill", "kill", "stop", "stall"])} harts={dice.choice([1, 2, 4])} '
                     f'channels={dice.choice([1, 1, 2, 4])}{" disk=1" if dice.random() < 0.5 else ""}')

    def __str__(self):
        return self.case

    def run(self):
        try:
            end = run_case(self.case, self.seed)
        except NotMet:
            end = 'never met'
        self.counts['tcp4', 'fault point', end] += 1


# Met only where something else has gone wrong before, or with a disk.
LED = {'source-retract', 'source-resume', 'target-unload', 'target-retracted', 'target-refuse', 'source-doubt', 'source-again',
       'target-doubt', 'target-knock', 'source-recall', 'source-note-sync'}


# --- all of it --------------------------------------------------------------------------------------------------------


def journey(seed, number):
    kind = Fault if number % 5 == 4 else Stay if number % 7 == 6 else Journey
    return kind(seed, number)


class Soak:
    """Journeys until it is time, or there were so many migrations. say: print."""

    def __init__(self, seed, until_s=None, migrations=None, only=None, parallel=PARALLEL):
        self.seed, self.until_s, self.migrations, self.only, self.parallel = seed, until_s, migrations, only, parallel
        self.lock, self.next, self.counts = threading.Lock(), 1, collections.Counter()
        self.passed, self.failures = 0, []

    def take(self):
        with self.lock:
            if self.only:
                return self.only.pop(0)
            done = sum(count for (_, fault, _), count in self.counts.items() if fault != 'flat memory')
            if self.until_s and time.monotonic() >= self.until_s or self.migrations and done >= self.migrations:
                return None
            if len(self.failures) >= 10:
                return None
            self.next += 1
            return self.next - 1

    def worker(self, _):
        while (number := self.take()) is not None:
            one = journey(self.seed, number)
            story = str(one)
            try:
                one.run()
                why = None
            except Exception as error:
                why = f'{type(error).__name__}: {error}'
            with self.lock:
                self.counts += one.counts
                self.passed += why is None
                if why:
                    self.failures.append(number)
                    print(f'# journey {number} FAILED behind {sum(one.counts.values())} migrations: {why}\n# {story}\n'
                          f'#   again: make soak SEED={self.seed} JOURNEYS={number}', flush=True)

    def run(self):
        begun = time.monotonic()
        if self.only is not None:
            self.only = [*self.only, *[None] * self.parallel]
        with ThreadPoolExecutor(self.parallel) as pool:
            list(pool.map(self.worker, range(self.parallel)))
        self.table(time.monotonic() - begun)
        return not self.failures

    def table(self, took_s):
        rows = collections.defaultdict(collections.Counter)
        for (way, fault, end), count in self.counts.items():
            rows[fault][end] += count
            rows[f'over {way}'][end] += count
        ends = sorted({end for row in rows.values() for end in row})
        print('# ' + ' ' * 18 + ''.join(f'{end:>28}' for end in ends))
        for name in sorted(rows, key=lambda name: (name.startswith('over '), name)):
            print(f'# {name:<18}' + ''.join(f'{rows[name][end]:>28}' for end in ends))
        total = sum(count for (_, fault, _), count in self.counts.items() if fault != 'flat memory')
        print(f'# SEED={self.seed}: {total} migrations in {self.passed + len(self.failures)} journeys, {took_s:.0f} s', flush=True)


def main():
    seed = int(os.environ.get('SEED') or random.randrange(2 ** 31))
    minutes = float(os.environ.get('MINUTES') or 60 * float(os.environ.get('HOURS') or 0))
    migrations = int(os.environ.get('MIGRATIONS') or 0)
    only = [int(word) for word in os.environ.get('JOURNEYS', '').replace(',', ' ').split()] or None
    if not minutes and not migrations and not only:
        minutes = 60
    print(f'# SEED={seed}', flush=True)
    soak = Soak(seed, minutes and time.monotonic() + 60 * minutes, migrations, only)
    soak.run()
    print(f'{soak.passed} passed, {len(soak.failures)} failed')
    sys.exit(1 if soak.failures or not soak.passed else 0)


if __name__ == '__main__':
    main()
