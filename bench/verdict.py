"""Whether a move kept to what was asked of it, and tables of that: pure, of the records of bench/convergence.py."""
import re, statistics

from compare import spread

MIB = 1 << 20
KINDS = ('kept', 'over', 'far over', 'policy', 'did not end', 'failed', 'wrong memory')
GAVE_UP = re.compile(r'given up|the pause would take|would make it fit')


def usual_ms(record):
    """The guest's p99 gap before it was moved: the least that it can have been. A line tells the latest of its 100 beats; as many beats as
    there are lines, a hundredth of all, came as late as the least late of these."""
    return min(record['measured'].get('gaps_control_ms') or [0.0])


def got_ms(record):
    """What of the pause as the guest saw it was the move's."""
    return max(0.0, record['measured']['pause_ms'] - usual_ms(record))


def kind_of(record):
    """Which of KINDS a run is."""
    if record['self_check'] not in ('ok', 'not checked'):
        return 'wrong memory'
    if record['success']:
        over = got_ms(record) / record['asked_ms']
        return 'kept' if over <= 1 else 'over' if over <= 2 else 'far over'
    if (record['why'] or '').startswith('no end within'):
        return 'did not end'
    return 'policy' if record.get('status') == 'failed' and GAVE_UP.search(record['why']) else 'failed'


def place(record):
    """(cell, what was asked): the record's cell is CELL/LIMIT."""
    name, _, limit = record['cell'].rpartition('/')
    return name, float(limit)


def grouped(records):
    """{(cell, asked): {configuration: [records]}} in the order in which the cells come; of a run that was made again by another program
    only the newest program's."""
    newest = {(record['cell'], record['configuration']): record['identity'] for record in records}
    groups = {}
    for record in records:
        if newest[record['cell'], record['configuration']] == record['identity']:
            groups.setdefault(place(record), {}).setdefault(record['configuration'], {})[record['repeat']] = record
    cells = list(dict.fromkeys(cell for cell, _ in groups))
    ordered = sorted(groups, key=lambda key: (cells.index(key[0]), -key[1]))
    return {key: {name: list(runs.values()) for name, runs in groups[key].items()} for key in ordered}


def figure(records, get, form):
    """Median [least .. most] of the runs that moved; '-' of none."""
    found = []
    for record in records:
        try:
            value = get(record) if record['success'] else None
        except (KeyError, TypeError, ZeroDivisionError):
            value = None  # not measured for this emulator
        if value is not None:
            found.append(value)
    return spread(found, form) if found else '-'


def share_lost(record):
    """Of the guest's work between the command and the tail's end."""
    return 100 * record['measured']['lost_work_s'] / record['measured']['window_s']


COLUMNS = [
    ('pages/s before', '{:.0f}', lambda r: r['measured']['pages_per_s_control'] or None),
    ('foreseen ms', '{:.0f}', lambda r: r['predicted_ms']),
    ('got ms', '{:.0f}', got_ms),
    ('usual gap ms', '{:.1f}', usual_ms),
    ('total ms', '{:.0f}', lambda r: r['measured']['total_ms']),
    ('wire MiB', '{:.0f}', lambda r: r['measured']['wire_bytes'] / MIB),
    ('work lost s', '{:.2f}', lambda r: r['measured']['lost_work_s']),
    ('of its time', '{:.0f} %', share_lost),
]


def ends(records):
    """How the runs ended, in words; all of one kind without a number."""
    kinds = [kind_of(record) for record in records]
    counted = [(kind, kinds.count(kind)) for kind in KINDS if kind in kinds]
    return counted[0][0] if len(counted) == 1 else ', '.join(f'{kind} {count}' for kind, count in counted)


def table(records):
    """Rows: cell by limit by configuration."""
    rows = [['cell', 'asked ms', '', 'runs', 'ended', *(heading for heading, _, _ in COLUMNS)]]
    for (cell, asked), group in grouped(records).items():
        for name, runs in group.items():
            rows.append([cell, f'{asked:g}', name, str(len(runs)), ends(runs), *(figure(runs, get, form) for _, form, get in COLUMNS)])
    return rows


def shares(records, goal=97):
    """Rows: configuration by limit: how many kept to it, of those that did not end by policy."""
    rows = [['', 'asked ms', 'runs', *KINDS, f'kept, of those that moved or did not end (goal {goal} %)', 'worst, of what was asked']]
    emulators = {}
    for record in records:
        emulators.setdefault((record['emulator'], place(record)[1]), []).append(record)
    for (emulator, asked), runs in sorted(emulators.items(), key=lambda item: (item[0][0], -item[0][1])):
        kinds = [kind_of(run) for run in runs]
        bound = len(kinds) - kinds.count('policy')
        worst = max((got_ms(run) / run['asked_ms'] for run in runs if run['success']), default=None)
        rows.append([emulator, f'{asked:g}', str(len(runs)), *(str(kinds.count(kind)) for kind in KINDS),
                     f'{100 * kinds.count("kept") / bound:.0f} %' if bound else '-', '-' if worst is None else f'{worst:.2f}'])
    return rows


def foretold(records):
    """(runs in which what was foreseen was within a quarter, or 2 ms, of what the guest got; all that had both)."""
    both = [(run['predicted_ms'], got_ms(run)) for run in records if run['success'] and run.get('predicted_ms')]
    return sum(abs(said - got) <= max(0.25 * got, 2) for said, got in both), len(both)


def best_of(records):
    """{(emulator, CELL/LIMIT): which of an emulator's configurations was best there}: of those that moved the guest most often those that
    went far over the limit least often, then those that kept it most often, then the one with the least total. godwit's are not chosen from."""
    groups, found = {}, {}
    for record in records:
        if record['emulator'].startswith('qemu'):
            groups.setdefault((record['emulator'], record['cell']), {}).setdefault(record['configuration'], []).append(record)

    def rank(runs):
        kinds, totals = [kind_of(run) for run in runs], [run['measured']['total_ms'] for run in runs if run['success']]
        shares = [kinds.count(kind) / len(runs) for kind in ('far over', 'kept')]
        return -len(totals) / len(runs), shares[0], -shares[1], statistics.median(totals) if totals else 0

    for place, group in groups.items():
        name, runs = min(group.items(), key=lambda item: rank(item[1]))
        if rank(runs)[0] < 0:
            found[place] = {'configuration': name, 'date': max(run['date'] for run in runs)[:10], 'version': runs[-1]['version'],
                            'runs': len(runs), 'of': sorted(group), 'median_total_ms': round(rank(runs)[3]),
                            'load': round(statistics.median(run['load'] for run in runs), 1)}
    return found


def reasons(records):
    """Sentences: why runs ended that did not move the guest, each once, with how often and what was sent in vain."""
    told = {}
    for record in records:
        if not record['success']:
            told.setdefault((record['cell'], record['configuration'], kind_of(record), record['why'].splitlines()[0]), []).append(record)
    found = []
    for (cell, name, kind, why), runs in told.items():
        sent = [run['measured']['wire_bytes'] / MIB for run in runs if run.get('measured', {}).get('wire_bytes')]
        found.append(f'{cell}, {name}: {kind}{f" ({len(runs)} times)" if len(runs) > 1 else ""}: {why}'
                     + (f'; {spread(sent, "{:.0f}")} MiB sent' if sent else ''))
    return found
