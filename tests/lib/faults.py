"""One migration with one fault, on processes: where it happens, what is there afterwards, and what a person would do then."""
import collections, os, pathlib, random, re, signal, subprocess, tempfile, time

from vm import GODWIT, PATIENCE_S, Failure, Vm, listening, wait_for
from proxy import Chaos
from guests import finish, machine, memcheck, wait_alive, wait_running_on

QUIET_MS, BUSY_MS = 300, 5000  # peer-timeout, where silence is the fault, and where it is none
RESOLVE = '__org.godwit_migrate-resolve'

# Points that an undisturbed migration does not meet, and what leads there.
BAD_NOTE, BAD_START = 'source=source-note-name:error', 'there=target-take:error'
LEADS = {'source-retract': BAD_NOTE, 'source-resume': BAD_NOTE, 'target-unload': BAD_NOTE, 'target-retracted': BAD_NOTE,
         'target-refuse': BAD_START, 'source-doubt': 'line=cut,there,GO:1:before',
         'source-again': 'line=cut,there,GO:1:before', 'target-doubt': 'line=cut,there,GO:1:before',
         'target-knock': 'line=cut,there,GO:1:before', 'source-recall': 'line=cut,back,PREPARED:1:before'}
WITH_DISK = {'source-note-sync', 'source-noted', 'source-go', 'source-gone', 'source-resume', 'target-go', 'target-take',
             'target-started', 'target-refuse', 'source-forget'}
UNDO = {'source-retract', 'source-resume', 'source-recall'}  # the guest is the source's again
RAN = {'target-started', 'target-running', 'target-told', 'target-end'}  # the guest has run there by then


def points():
    """(name, whether an error makes sense there), in the order of the table."""
    text = subprocess.run([GODWIT, '-fault', 'help'], stdout=subprocess.PIPE, check=True, text=True).stdout
    return [(name, bool(error)) for name, error in re.findall(r'(?m)^  ([a-z-]+) +(error)? ', text)]


def process_state(vm):
    try:
        return pathlib.Path(f'/proc/{vm.process.pid}/stat').read_text().rsplit(')', 1)[1].split()[0]
    except FileNotFoundError:
        return 'X'


def belongings(vm):
    """What a process has open, by kind, and how its threads are called."""
    proc = pathlib.Path(f'/proc/{vm.process.pid}')
    kinds = collections.Counter()
    for link in (proc / 'fd').iterdir():
        try:
            what = os.readlink(link)
            kinds['file' if what.startswith('/') else what.split(':[')[0]] += 1
        except FileNotFoundError:
            pass
    names = collections.Counter()
    for task in (proc / 'task').iterdir():
        try:
            names[(task / 'comm').read_text().strip()] += 1
        except (FileNotFoundError, ProcessLookupError):
            pass
    return kinds, names


def is_as_before(vm, before, limit_s=10):
    """Until the process has what it had: nothing of a migration is left over."""
    try:
        wait_for('nothing to be left over', lambda: belongings(vm) == before, limit_s)
    except Failure:
        kinds, names = belongings(vm)
        raise Failure(f'{vm.name} has {dict(kinds - before[0])} open and runs {dict(names - before[1])} more than before, '
                      f'{dict(before[0] - kinds)} and {dict(before[1] - names)} less')


def own(vm):
    """What it has when it has nothing to do: its monitor has its caller, and its threads have their names."""
    vm.status()
    name = pathlib.Path(vm.command[0]).name[:15]  # which a thread has from the one that made it
    wait_for('threads to have names', lambda: belongings(vm)[1][name] == 1)
    return belongings(vm)


def notes(vm):
    folder = vm.folder / 'state/godwit'
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


# --- one case ---------------------------------------------------------------------------------------------------------


class Case:
    """'source=POINT[:N][:ACTION] there=... line=HOW,WAY,PLACE disk=1 hold=MS harts=N channels=N', in any order and number."""

    def __init__(self, text):
        self.text, self.faults, self.plan, self.disk, self.hold_ms = text, [], None, False, None
        self.harts = self.channels = 1
        for word in text.split():
            who, _, what = word.partition('=')
            if who == 'disk':
                self.disk = True
            elif who == 'hold':
                self.hold_ms = int(what)
            elif who in ('harts', 'channels'):
                setattr(self, who, int(what))
            elif who == 'line':
                how, way, place = what.split(',')
                self.plan = how, way, int(place) if place.isdigit() else place
            else:
                point, action = what.split(':')[0], what.split(':')[-1]
                self.faults.append((who, what, point, action if action in ('stop', 'stall', 'error') else 'kill'))
        waits = {'stop', 'stall', 'half'}
        silent = any(action in waits for *_, action in self.faults) or self.plan and self.plan[0] in waits
        self.timeout_ms = QUIET_MS if silent else BUSY_MS

    def options(self, who):
        more = ['-global', f'migration.peer-timeout={self.timeout_ms}', '-global', f'migration.channels={self.channels}']
        for fault in self.faults:
            more += ['-fault', fault[1]] if fault[0] == who else []
        return more

    def killed(self, who):
        return [point for side, _, point, action in self.faults if side == who and action == 'kill']


class NotMet(Failure):
    pass


class World:
    def __init__(self, case):
        self.case = case
        self.folder = tempfile.TemporaryDirectory(prefix='godwit-reliability-')
        self.disk = ['-drive', f'file={self.folder.name}/disk,format=raw,if=virtio'] if case.disk else []
        if case.disk:
            with open(f'{self.folder.name}/disk', 'wb') as disk:
                disk.truncate(1 << 20)
        self.guest = memcheck('2M', case.harts, more=f'rate={50000 // case.harts}')
        self.there = self.destination('destination', case.options('there'))
        self.source = Vm(self.machine(['-name', 'one', *self.disk, *case.options('source')]) + self.guest, typing=True,
                         name='source')
        self.more = []

    def machine(self, more):
        return machine('16M', harts=self.case.harts, more=more)

    def destination(self, name, more=()):
        return Vm(self.machine(['-incoming', 'tcp:127.0.0.1:0', *self.disk, *more]), typing=True, name=name)

    def __enter__(self):
        return self

    def __exit__(self, *why):
        for vm in (self.source, self.there, *self.more):
            vm.__exit__(*why)
        self.folder.cleanup()

    def side(self, who):
        return self.source if who == 'source' else self.there

    # --- what happens

    def wait_met(self, line, dice):
        """Until everything that was planned has happened, or the case does not test what it says."""
        for who, what, point, action in self.case.faults:
            vm, words = self.side(who), f'fault point {point}'
            self.wait_for_it(f'{what} to be met', lambda: words in vm.stderr())
            if action in ('stop', 'kill'):
                wait_for(f'{what}', lambda: process_state(vm) in ('T' if action == 'stop' else 'ZX'), 20)
        seen = self.case.plan and f'the line to see {self.case.plan[2]}'
        if seen and self.case.plan[0] == 'stall':
            self.wait_for_it(seen, line.happened.is_set)
        self.go_on(line, dice)
        if seen:
            self.wait_for_it(seen, line.happened.is_set)

    def wait_for_it(self, what, condition):
        stops = any(action == 'stop' for *_, action in self.case.faults)
        ended_s = None
        def over():  # a process that has stopped would not answer
            nonlocal ended_s
            if not stops and self.source.process.poll() is None and not condition():
                if self.source.migration().get('status') in ('completed', 'failed') and not condition():
                    ended_s = ended_s or time.monotonic()
                    # The destination looks at its guest for 100 ms more before its thread ends.
                    if time.monotonic() > ended_s + 2:
                        raise Failure(f'the migration ended before {what}')
        try:
            wait_for(what, condition, 5 if stops else 20, alive=over)
        except Failure as why:
            if not condition():
                raise NotMet(why)

    def go_on(self, line, dice):
        held = [self.side(who) for who, *_, action in self.case.faults if action in ('stop', 'stall')]
        if held or self.case.plan and self.case.plan[0] == 'stall':
            time.sleep((self.case.hold_ms or dice.choice([15, 450, 900])) / 1e3)  # what the peer makes of it is the test's input
        for vm in held:
            vm.process.send_signal(signal.SIGCONT)
        line.let_go.set()

    # --- how it ends

    def look_there(self):
        if self.there.process.poll() is not None:
            return 'dead'
        if any(point == 'source-connect' and action in ('kill', 'error') for *_, point, action in self.case.faults):
            return 'never called'
        status, migration = self.there.status(), self.there.migration().get('status')
        if status == 'running':
            return 'runs'
        return 'doubt' if migration == 'unresolved' else 'busy'

    def look_source(self):
        if self.source.process.poll() is not None:
            return 'dead'
        status, info = self.source.status(), self.source.migration()
        self.source_runs = status == 'running'
        if info['status'] in ('failed', 'cancelled'):
            return 'here' if self.source_runs else 'busy'
        return {'unresolved': 'doubt', 'completed': 'away'}.get(info['status'], 'busy')

    def look(self):
        """The destination first: one that runs now and a source that runs later would be two."""
        self.source_runs, ends = False, []
        for look in (self.look_there, self.look_source):
            try:
                ends.append(look())
            except Failure:  # it ended while it was asked
                ends.append('busy')
        there, source = ends
        if there == 'runs' and self.source_runs:
            raise Failure('both sides run the guest')
        return source, there

    def settle(self):
        """(source, there) when nothing moves any more without a person."""
        over = {('here', 'dead'), ('away', 'runs'), ('dead', 'runs'), ('dead', 'dead'), ('away', 'dead'),
                ('here', 'never called'), ('dead', 'never called')}
        if self.case.killed('source'):
            over.add(('dead', 'doubt'))
        if self.case.killed('there'):
            over.add(('doubt', 'dead'))
        last = [None]
        def done():
            last[0] = self.look()
            return last[0] in over and last[0]
        try:
            return wait_for('an end', done, min(PATIENCE_S, 30))
        except Failure:
            raise Failure(f'it does not end: source {last[0][0]}, destination {last[0][1]}')

    def resolve(self, ends):
        """As a person would; None: the guest is lost, and with the process that alone held it."""
        vm, points_there = self.speak(ends), [name for name, _ in points()]
        late = [point for point in self.case.killed('source')
                if point not in UNDO and points_there.index(point) >= points_there.index('source-noted')]
        if not vm and late:
            raise Failure(f'the guest is lost with a source that was killed at {late[0]}')
        return vm

    def speak(self, ends):
        """A person who looks at both ends, and follows docs/reliability.md. Who runs the guest then."""
        source, there = ends
        killed = self.case.killed('source'), self.case.killed('there')
        if source == 'here':
            return self.source
        if there == 'never called':
            return None
        if there == 'runs':
            return self.there
        if ends == ('dead', 'doubt'):
            self.there.qmp(RESOLVE, answer='here' if notes(self.source) else 'there')
            if notes(self.source):
                self.there.wait_status('running')
                return self.there
            if self.there.wait_exit() == 0 or 'godwit:' not in self.there.stderr():
                raise Failure('a destination that dropped its guest said nothing')
            return None
        ran = any(point in RAN for point in killed[1])
        if ends == ('doubt', 'dead'):
            self.source.qmp(RESOLVE, answer='there' if ran else 'here')
            if not ran:
                self.source.wait_status('running')
                return self.source
            self.source.wait_migration('completed')
            return None
        if ends == ('dead', 'dead') and killed[0]:
            if any(name.startswith('released') and not name.endswith('.new') for name in notes(self.source)):
                raise Failure('RELEASED was written down, and the destination dropped the guest')
            return None
        if ends == ('away', 'dead') and ran:
            return None
        raise Failure(f'it ended with source {source}, destination {there}: nobody has the guest '
                      f'({self.there.stderr().strip()[-300:]})')

    # --- afterwards

    def is_not_started_twice(self):
        """The dead source's guest, started once more on its host: refused as long as RELEASED is written down."""
        released = [name for name in notes(self.source) if re.fullmatch('released-[0-9a-f]+', name)]
        if not self.case.killed('source') or not released:
            return
        again = Vm(self.machine(['-name', 'one', *self.disk]) + self.guest, typing=True, name='restarted',
                   env={'XDG_STATE_HOME': str(self.source.folder / 'state')})
        self.more.append(again)
        if again.wait_exit() != 1 or 'may be running elsewhere' not in again.stderr() or released[0] not in again.stderr():
            raise Failure(f'a second start of the guest says "{again.stderr()}"')

    def is_clean(self, vm, before):
        """Nothing of a migration is left in the process, nor of both of them on disk."""
        is_as_before(vm, before)
        left = [name for side in (self.source, self.there) for name in notes(side)
                if not self.case.killed('source' if side is self.source else 'there')]
        if left:
            raise Failure(f'{left} are left over')

    def moves_on(self, vm, before):
        """A migration that fails, after which nothing is left over, and one that succeeds."""
        wait_running_on(vm)
        vm.start_migration('tcp:127.0.0.1:1')
        wait_for('a refused connection', lambda: vm.migration()['status'] == 'failed', alive=vm.alive)
        wait_running_on(vm)
        self.is_clean(vm, before)
        third = self.destination('third')
        self.more.append(third)
        vm.migrate(listening(third), peer_timeout=BUSY_MS)
        third.wait_status('running')
        finish(third)


def run_case(text, seed, tries=5):
    """A busy host is silent at moments that nobody planned, and its guest writes less: what ended before its fault was met is
    tried again, at an offset half as large."""
    for _ in range(tries - 1):
        try:
            return try_case(text, seed)
        except NotMet:
            text = re.sub(r'(line=\w+,\w+,)(\d+)\b(?!:)', lambda at: at[1] + str(int(at[2]) // 2), text)
    return try_case(text, seed)


def try_case(text, seed):
    """'here', 'there', or 'lost with' whoever was killed; raises what is wrong."""
    case, dice = Case(text), random.Random(f'{seed} {text}')
    with World(case) as world:
        uri = listening(world.there)
        with Chaos(uri, case.plan) as line:
            wait_alive(world.source)
            before = own(world.source)
            try:
                world.source.start_migration(line.uri)
            except Failure:  # it was killed before it could answer; else it is met below
                if 'source' not in [fault[0] for fault in case.faults]:
                    raise
            world.wait_met(line, dice)
            ends = world.settle()
            world.is_not_started_twice()
            vm = world.resolve(ends)
            if line.trouble:
                raise Failure(line.trouble)
            if vm:
                world.moves_on(vm, before)
        return 'lost with its only holder' if not vm else 'here' if vm is world.source else 'there'
