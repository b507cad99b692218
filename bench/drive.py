"""One run of the migration harness: a guest on one emulator, moved to another process of the same, and everything measured; or several
of them with one guest, whose destination is the next one's source.

The emulator is any program that takes QEMU's options and speaks QMP. What it says of itself goes into the record as `claimed`;
`measured` comes from the guest, from /proc and from the link.
"""
import contextlib, os, pathlib, shlex, tempfile, time

import compare, feel, watch
from compare import lib

POLL_S, LINE_S = 0.02, 0.1
SILENT_S = 15  # a guest that says nothing for so long after its move has been lost on the way
ENDS = ('completed', 'failed', 'cancelled')


class WrongMemory(lib.Failure):
    """The guest says that something is not as it should be."""


class Side:
    """One emulator process with its serial line."""

    def __init__(self, emulator, args, name, folder):
        self.line = watch.StampedLine(folder / f'{name}.line', folder / f'{name}.serial')
        names = [] if emulator.ours else ['-name', 'guest,debug-threads=on']
        self.vm = lib.Vm([*names, *emulator.args, *args], binary=emulator.binary, name=name,
                         serial=['-serial', f'unix:{folder / f"{name}.line"}'])
        self.folder, self.name = folder, name

    def text(self):
        return b''.join(data for _, data in list(self.line.chunks)).replace(b'.', b'').decode(errors='replace')

    def wait_text(self, what, limit_s):
        """Until one of the words stands on the serial line; what says that something is wrong raises."""
        def look():
            text = self.text()
            wrong = feel.TROUBLE.search(text)
            if wrong:
                raise WrongMemory(f'the guest on the {self.name} says: {wrong.group(0).strip()}')
            return any(word in text for word in what)

        def alive():
            if self.vm.process.poll() is None:
                return
            self.line.thread.join(lib.PATIENCE_S)  # what it said last may still be on its way
            if not look():
                self.vm.alive()
        lib.wait_for(f'{" or ".join(what)} on the {self.name}', look, limit_s, every_s=0.05, alive=alive)

    def close(self):
        self.vm.close()
        self.line.close()


def guest_args(cell, images):
    """The machine and the guest: the same bytes for every emulator."""
    words = ' '.join(f'{key}={value}' for key, value in cell.get('dirtier', {}).items())
    machine = ['-m', cell['memory'], '-smp', str(cell.get('harts', 1))]
    if cell['guest'] == 'bare':
        return machine + ['-bios', 'none', '-kernel', str(images['bare']), '-append', words]
    load = f' bench.load={cell["load"]}' if 'load' in cell else ''
    return machine + ['-bios', str(images['firmware']), '-kernel', str(images['kernel']),
                      '-initrd', str(images[guest_of(cell)]), '-append',
                      f'console=ttyS0 iomem=relaxed quiet bench.run={":".join(["dirtier", *words.split()])}{load}']


LOADS = {'gzip': None, 'python3': 'programs', 'sqlite3': 'programs', 'gcc': 'programs', 'redis': 'redis'}


def sets_of(cell):
    """What of bench/fetch-programs the guest takes along."""
    wanted = [LOADS.get(cell.get('load'), 'programs' if 'load' in cell else None),
              'text' if cell.get('dirtier', {}).get('content') == 'book' else None]
    return [name for name in wanted if name and cell['guest'] == 'linux']


def guest_of(cell):
    """The guest's name: its kind, and what it takes along."""
    return '+'.join([cell['guest'], *sets_of(cell)])


def bytes_of(text):
    return int(text[:-1]) << {'K': 10, 'M': 20, 'G': 30}[text[-1]] if text[-1] in 'KMG' else int(text)


def set_up(qmp, configuration, link, cell):
    """Capabilities and parameters of one side, the cell's above the configuration's; those that name the link's rate only where there
    is one, and the emulator has them."""
    wanted = [{'capability': name, 'state': on} for name, on in configuration.get('capabilities', {}).items()]
    for capability in [{'capability': 'events', 'state': True}, *wanted]:
        qmp('migrate-set-capabilities', capabilities=[capability])
    parameters = {**configuration.get('parameters', {}), **cell.get('parameters', {}), 'downtime-limit': cell['limit_ms']}
    known = qmp('query-migrate-parameters')
    for name, value in list(parameters.items()):
        if value == 'link':
            parameters[name] = int(link['rate_mbit'] * 125000) if link.get('rate_mbit') and name in known else None
    qmp('migrate-set-parameters', **{name: value for name, value in parameters.items() if value is not None})


class Move:
    """The migration itself, watched from its command to its end."""

    def __init__(self, source, there, uri, cell, configuration):
        self.source, self.there, self.cell, self.configuration = source, there, cell, configuration
        self.cpu = {'source': watch.Threads(source.vm.process.pid), 'destination': watch.Threads(there.vm.process.pid)}
        self.busy, self.rounds, self.dirty, self.predicted = watch.host_busy_s(), [], [], None
        self.status, self.why, self.postcopy = None, None, configuration.get('postcopy', False)
        self.begin, self.begin_mono = time.time_ns(), time.monotonic_ns()
        source.vm.qmp('migrate', uri=uri)
        self.follow()
        self.end, self.end_mono = time.time_ns(), time.monotonic_ns()
        self.cpu = {name: threads.seconds() for name, threads in self.cpu.items()}
        self.busy = watch.host_busy_s() - self.busy

    def look(self):
        info = self.source.vm.migration()
        passed = time.time_ns() - self.begin
        ram, count = info.get('ram', {}), info.get('ram', {}).get('dirty-sync-count', 0)
        if count and (not self.rounds or self.rounds[-1][1] != count):
            self.rounds.append([round(passed / 1e9, 3), count])
        if ram.get('dirty-pages-rate'):
            self.dirty.append([round(passed / 1e9, 3), ram['dirty-pages-rate']])
        self.predicted = info.get('expected-downtime', self.predicted)
        if self.postcopy and count >= 2 and info['status'] == 'active':
            self.source.vm.qmp('migrate-start-postcopy')
            self.postcopy = False
        return info

    def follow(self):
        limit = time.monotonic() + self.cell.get('timeout_s', 60)
        turn = 0
        while True:
            info = self.look()
            self.status = info.get('status')
            if self.status in ENDS:
                break
            self.source.vm.alive()
            self.there.vm.alive()
            if time.monotonic() > limit:
                self.why = f'no end within {self.cell.get("timeout_s", 60)} s'
                self.source.vm.qmp('migrate_cancel')
                info = self.source.vm.wait_migration(*ENDS)
                break
            turn += 1
            if turn % 3 == 0:
                for threads in self.cpu.values():
                    threads.look()
            time.sleep(POLL_S)  # the pace of looking, not a condition
        self.status, self.claimed = info.get('status'), info
        if self.status != 'completed':
            self.why = self.why or f'{self.status}: {info.get("error-desc", "")}'


def wait_guest(seconds, side):
    """So much time of the host in which the guest speaks on: the length of a measurement, not a condition."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        side.vm.alive()
        time.sleep(LINE_S)


def finish(side, cell):
    """'' when the guest found all of its memory as it should be, else what is wrong."""
    side.line.type('q')
    side.wait_text(['END '], cell.get('check_s', 120))
    side.line.thread.join(lib.PATIENCE_S)  # it powers off, and with it ends the line
    return feel.verdict(side.line.chunks)


def claims(info):
    """What the emulator says, in its own words, as far as these have names everywhere."""
    own, ram = info.get('__org.godwit_report', {}), info.get('ram', {})
    return {'total_ms': info.get('total-time'), 'downtime_ms': own.get('downtime-ms', info.get('downtime')),
            'wire_bytes': ram.get('transferred'), 'rounds': ram.get('dirty-sync-count'),
            'zero_pages': ram.get('duplicate'), 'data_pages': ram.get('normal'), 'pause_parts_ms': own.get('pause'),
            'predicted_ms': own.get('predicted-downtime-ms')}


def wire_rate(relay, begin_mono, end_mono):
    """[[seconds since the start, bytes a second there], ...], at most some 300 points."""
    samples = [s for s in relay.samples() if begin_mono - 1e9 <= s[0] <= end_mono + 1e9]
    points, last = [], (begin_mono, 0)
    step = max(20e6, (end_mono - begin_mono) / 300)
    for at, there, _ in samples:
        if at - last[0] >= 3 * step and points:  # the log is silent while nothing passes
            points.append([round((last[0] - begin_mono) / 1e9 + 0.001, 3), 0])
            last = (at - int(step), last[1])
            points.append([round((last[0] - begin_mono) / 1e9, 3), 0])
        if at - last[0] >= step:
            points.append([round((at - begin_mono) / 1e9, 3), round((there - last[1]) / ((at - last[0]) / 1e9))])
            last = (at, there)
    return points


def wait_heard(side):
    """Until the guest has told something here, from which its pause is seen."""
    lib.wait_for('the guest to speak after its move', lambda: feel.LINE.search(side.text()), SILENT_S, every_s=0.05, alive=side.vm.alive)


def moved(source, emulator, args, cell, configuration, link, folder, record, plant, name='destination'):
    """The destination, the link and the move; fills the record, and returns the side on which the guest should be now."""
    with contextlib.ExitStack() as stack:
        there = Side(emulator, [*args, '-incoming', 'defer'], name, folder)
        record['_close'].append(there)
        for side in (there, source):
            set_up(side.vm.qmp, configuration, link, cell)
        there.vm.qmp('migrate-incoming', uri='tcp:127.0.0.1:0')
        relay = watch.Relay(lib.listening(there.vm), link, folder)
        stack.callback(relay.close)
        control = time.time_ns()
        wait_guest(cell.get('control_s', 4), source)
        if cell.get('destination_share', 1) < 1:
            stack.enter_context(watch.Slowed(there.vm.process.pid, cell['destination_share']))
        move = Move(source, there, relay.uri, cell, configuration)
        here = there if move.status == 'completed' else source
        if here is there:
            there.vm.wait_status('running')
        if plant:
            here.line.type('x')
        wait_guest(cell.get('tail_s', 2), here)
        if here is there:
            wait_heard(there)
        wire = relay.close()
    ram = bytes_of(cell['memory'])
    record['measured'] = {
        'total_ms': (move.end - move.begin) / 1e6, 'rounds': move.rounds[-1][1] if move.rounds else None,
        'wire_bytes': wire.get('there_bytes'), 'back_bytes': wire.get('back_bytes'), 'connections': wire.get('connections'),
        'cpu_s': move.cpu, 'relay_cpu_s': round(relay.cpu_s, 4),
        'others_cpu_s': round(max(0.0, move.busy - sum(cpu.get('all', 0) for cpu in move.cpu.values())), 3),
        'memory': {role: watch.memory(side.vm.process.pid, ram) for role, side in (('source', source), ('destination', there))}}
    record['asked_ms'], record['claimed'] = cell['limit_ms'], claims(move.claimed)
    record['status'] = move.status
    record['predicted_ms'] = record['claimed'].pop('predicted_ms') or move.predicted
    record['relay'] = relay.command[5:]
    record['timeline'] = {'wire_bytes_per_s': wire_rate(relay, move.begin_mono, move.end_mono), 'rounds': move.rounds,
                          'dirty_pages_per_s': move.dirty[::max(1, len(move.dirty) // 200)]}
    return here, there, (control, move.begin), (move.begin, move.end), move.why


def new_record():
    return {'date': compare.now(), 'load': round(os.getloadavg()[0], 2), 'success': False, 'why': None, '_close': []}


def run(emulator, configuration, cell, link, images, plant=False):
    """The record of one run. A run that fails has success False and says why; plant spoils a word of the guest's memory."""
    args = guest_args(cell, images) + configuration.get('args', [])
    record = new_record()
    tail_ns = int(cell.get('tail_s', 2) * 1e9)
    with tempfile.TemporaryDirectory(prefix='godwit-bench-') as folder:
        folder = pathlib.Path(folder)
        source = Side(emulator, args, 'source', folder)
        record['_close'].append(source)
        record['command'] = shlex.join(source.vm.command)
        try:
            source.wait_text(['READY '], cell.get('boot_s', 300))
            wait_guest(cell.get('warm_s', 2), source)
            if configuration.get('migrate', True):
                here, there, control, move, why = moved(source, emulator, args, cell, configuration, link, folder, record,
                                                        plant)
            else:
                control = time.time_ns(), time.time_ns() + int(cell.get('control_s', 4) * 1e9)
                wait_guest(2 * cell.get('control_s', 4) + cell.get('tail_s', 2), source)
                here, there, why = source, None, None
                move = control[1], control[1] + control[1] - control[0]
                record['measured'] = {}
            check = finish(here, cell)
            guest = feel.felt(source.line.chunks, there.line.chunks if there else [], control, move, tail_ns)
            record['timeline'] = dict(record.get('timeline', {}), guest_pages_per_s=guest.pop('speed'))
            record['measured'].update(guest)
            record['why'] = why or check or (f'{guest["errors"]} wrong pages' if guest['errors'] else None)
            record['self_check'] = check or 'ok'
            record['success'] = record['why'] is None
        except (lib.Failure, OSError) as why:  # OSError: a process whose /proc is read has ended
            record['why'] = str(why)
            if isinstance(why, WrongMemory):
                record['self_check'] = str(why)
        finally:
            for side in record.pop('_close'):
                side.close()
    return record


def chain(emulator, configuration, cells, link, images, plant=False):
    """Several moves of one guest, each from where the last one brought it: the records of as many as there are cells, which differ only
    in what is asked of the move. Each has a control of its own. The guest's memory is checked once, at the end, and that word is all of
    theirs; where the guest was lost on the way, those after it begin with a new one."""
    records, left = [], list(cells)
    while left:
        begun = len(left)
        with tempfile.TemporaryDirectory(prefix='godwit-bench-') as folder:
            done, left = hops(emulator, configuration, left, link, images, pathlib.Path(folder), plant)
        records += done
        assert len(left) < begun
    return records


def hops(emulator, configuration, cells, link, images, folder, plant):
    """One guest and as many of the moves as it survives: (their records, the cells that are left)."""
    args = guest_args(cells[0], images) + configuration.get('args', [])
    records, sides = [], []
    try:
        records.append(dict(new_record(), _close=sides))
        here = Side(emulator, args, 'source', folder)
        sides.append(here)
        command = shlex.join(here.vm.command)
        here.wait_text(['READY '], cells[0].get('boot_s', 300))
        wait_guest(cells[0].get('warm_s', 2), here)
        for hop, cell in enumerate(cells):
            if hop:
                records.append(dict(new_record(), _close=sides))
            record, source = records[-1], here
            record.update(command=command, hop=hop)
            here, there, control, move, why = moved(source, emulator, args, cell, configuration, link, folder, record,
                                                    plant and cell is cells[-1], f'hop-{hop}')
            tell(record, source, there if here is there else None, control, move, int(cell.get('tail_s', 2) * 1e9), why)
            gone = there if here is source else source
            gone.close()  # its memory is wanted by the next
            sides.remove(gone)
        judge(records, finish(here, cells[0]))
    except (lib.Failure, OSError) as why:
        wrong = isinstance(why, WrongMemory)
        records[-1].update(why=str(why), self_check=str(why) if wrong else 'not checked')
        judge(records[:-1], str(why) if wrong else None)
    finally:
        for side in sides:
            side.close()
    for record in records:
        record.pop('_close')
    return records, cells[len(records):]


def tell(record, source, there, control, move, tail_ns, why):
    """What the guest felt of one move of a chain."""
    guest = feel.felt(source.line.chunks, there.line.chunks if there else [], control, move, tail_ns)
    record['timeline']['guest_pages_per_s'] = guest.pop('speed')
    record['measured'].update(guest)
    record['why'] = why or (f'{guest["errors"]} wrong pages' if guest['errors'] else None)
    record['self_check'] = 'ok' if not guest['errors'] else record['why']


def judge(records, check):
    """What the check of the whole guest says of each of its moves; None: there was none, and what they saw themselves must do."""
    for record in records:
        if check is None:
            record['self_check'] = 'not checked' if record['self_check'] == 'ok' else record['self_check']
        elif check:
            record['self_check'], record['why'] = check, record['why'] or check
        record['success'] = record['why'] is None and record['self_check'] in ('ok', 'not checked')
