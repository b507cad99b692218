#!/usr/bin/env python3
"""bench/convergence.py: its verdicts of an emulator that does what it is told, what it runs when, and godwit in its scenarios; --long: in
each of them. Whatever the time, a guest's memory is as it was written last, and each move ends, if only by policy."""
import json, os, pathlib, signal, subprocess, sys, tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / 'lib'))
from guests import guest
from vm import BUILD, GODWIT, LONG, PATIENCE_S, TOP, Failure, Skip, main, test, wait_for

sys.path.insert(0, str(TOP / 'bench'))
import compare, drive, harness, rest, verdict, watch
import convergence as program

CELL = {'guest': 'bare', 'memory': '64M', 'link': 'near', 'limit_ms': 300, 'warm_s': 0.1, 'control_s': 0.3, 'tail_s': 0.1}


def need_relay():
    if not watch.RELAY.exists():
        raise Skip('the relay is not built (make bench-tools)')
    guest('dirtier')


def mock(**told):
    return dict(CELL, dirtier=told)


def command(folder, cells, limits, *options, configurations='mock', runs=1):
    """The program on mocks: `mock`, and `slow` and `fine` of an emulator that counts as a QEMU."""
    binary = str(TOP / 'tests/lib/mock_emulator.py')
    path = pathlib.Path(folder, 'scenario.json')
    path.write_text(json.dumps({
        'emulators': {'mock': {'binary': binary}, 'qemu-mock': {'binary': binary}}, 'links': {'near': {}}, 'cells': cells,
        'configurations': {'mock': {'emulator': 'mock'}, 'slow': {'emulator': 'qemu-mock', 'args': ['-mock', 'gap_ms=900']},
                           'fine': {'emulator': 'qemu-mock'}}}))
    return [sys.executable, TOP / 'bench/convergence.py', '--scenario', path, '--cells', ','.join(cells), '--limits', limits, '--runs', str(runs),
            '--configurations', configurations, '--results', f'{folder}/convergence.jsonl', '--best', f'{folder}/best.json', *options]


def run(folder, *given, expect=0, **named):
    """The records that stand there afterwards, and what was printed."""
    done = subprocess.run(command(folder, *given, **named), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != expect:
        raise Failure(f'exit code {done.returncode}: {done.stdout[-1500:]}')
    return records_in(folder), done.stdout


def records_in(folder):
    path = pathlib.Path(folder, 'convergence.jsonl')
    found = []
    for line in path.read_text().splitlines() if path.exists() else []:
        if line.endswith('}'):
            found.append(json.loads(line))
    return found


def order(records):
    return [(r['repeat'], r['cell'], r['configuration']) for r in records]


# --- verdicts ------------------------------------------------------------------------------------------------------------

@test
def a_verdict_holds_the_pause_against_the_limit_and_names_how_it_ended_otherwise():
    need_relay()
    with tempfile.TemporaryDirectory(prefix='godwit-') as folder:
        run(folder, {'gap': mock(gap_ms=700)}, '3000,600,100')
        cells = {'gap': mock(gap_ms=700), 'never': mock(never=1), 'fails': mock(fails=1), 'gives-up': mock(gives_up=1), 'wrong': mock(wrong=1)}
        records, said = run(folder, cells, '600', '--bound', '0.5', expect=1)
        told = {r['cell']: r['verdict'] for r in records}
        assert told == {'gap/3000': 'kept', 'gap/600': 'over', 'gap/100': 'far over', **{
            f'{cell}/600': kind for cell, kind in (('never', 'did not end'), ('fails', 'failed'), ('gives-up', 'policy'), ('wrong', 'wrong memory'))}}, told
        gap = next(r for r in records if r['cell'] == 'gap/3000')
        assert verdict.usual_ms(gap) == 1.5 and verdict.got_ms(gap) == gap['measured']['pause_ms'] - 1.5
        assert [r['hop'] for r in records if r['cell'] in ('gap/3000', 'gap/100')] == [0, 1], 'from where the last move brought it'
        text = pathlib.Path(folder, 'convergence.md').read_text()
        assert text.strip() in said and '| gap | 600 | mock | 1 | over |' in text and 'given up after 9 rounds' in text, text


@test
def a_guest_that_is_lost_on_the_way_fails_its_own_move_and_no_other():
    need_relay()
    drive.SILENT_S = 0.5
    emulator = compare.Emulator('mock', TOP / 'tests/lib/mock_emulator.py')
    cells = [dict(mock(mute=1), limit_ms=limit, timeout_s=5) for limit in (300, 30)]
    records = drive.chain(emulator, {'emulator': 'mock'}, cells, {}, {'bare': guest('dirtier')})
    assert [(r['success'], 'guest to speak after its move' in r['why'], r['hop']) for r in records] == [(False, True, 0)] * 2, records


@test
def shares_and_tables_count_every_run_and_no_policy_as_a_miss():
    def record(limit, pause_ms, repeat, **other):
        return dict({'cell': f'a.b/{limit}', 'configuration': 'godwit', 'emulator': 'godwit', 'identity': limit, 'repeat': repeat, 'success': True,
                     'self_check': 'ok', 'why': None, 'asked_ms': limit, 'predicted_ms': 90, 'measured': {
                         'pause_ms': pause_ms, 'gaps_control_ms': [9, 2, 5], 'total_ms': 100, 'wire_bytes': 1 << 20, 'lost_work_s': 0.1, 'window_s': 1}},
                    **other)
    gave_up = {'success': False, 'status': 'failed', 'why': 'given up after 3 rounds: it would not fit'}
    records = [record(100, 102, 0), record(100, 103, 1), record(100, 303, 2), record(100, 0, 3, **gave_up), record(30, 20, 0)]
    rows = verdict.shares(records)
    assert rows[1][:10] == ['godwit', '100', '4', '1', '1', '1', '1', '0', '0', '0'] and rows[1][10:] == ['33 %', '3.01'], rows
    assert [row[1] for row in rows[1:]] == ['100', '30'] and rows[2][10] == '100 %', 'the wide limit first'
    rows = verdict.table(records)
    assert rows[1][:5] == ['a.b', '100', 'godwit', '4', 'kept 1, over 1, far over 1, policy 1'], rows
    assert rows[1][9].startswith('100 [') and rows[2][1] == '30' and rows[2][4] == 'kept', rows
    assert verdict.foretold(records) == (2, 4) and 'policy: given up after 3 rounds' in verdict.reasons(records)[0]
    runs = {'keeps': record(100, 50, 0), 'quick': record(100, 140, 0), 'far': record(100, 900, 0), 'never': record(100, 0, 0, **gave_up)}
    runs['quick']['measured']['total_ms'], runs['far']['measured']['total_ms'] = 50, 10

    def best(*names):
        told = [dict(runs[name], emulator='qemu', configuration=name, date='2026-11-21T10', version='1', load=1) for name in names]
        return {place: entry['configuration'] for place, entry in verdict.best_of(told).items()}
    assert best('never', 'far', 'quick', 'keeps') == {('qemu', 'a.b/100'): 'keeps'} and best('never') == {}
    assert best('never', 'far', 'quick') == {('qemu', 'a.b/100'): 'quick'} and best('never', 'far') == {('qemu', 'a.b/100'): 'far'}
    assert verdict.grouped([record(30, 1, 0), dict(record(30, 2, 0), identity='newer')])['a.b', 30.0]['godwit'][0]['measured']['pause_ms'] == 2


# --- what is run, in which order -------------------------------------------------------------------------------------------

@test
def each_cell_is_run_once_before_any_is_run_twice_and_nothing_ever_again():
    whole = {'cells': {'a': {}, 'b': {}}, 'configurations': {'mock': {}, 'fine': {}}}
    chains = program.plan(whole, ['a', 'b'], [300, 100, 30], lambda cell: ['mock', 'fine'], 2, None)
    assert chains == [(repeat, cell, name, limits) for repeat, names in ((0, ('mock', 'fine')), (1, ('fine', 'mock')))
                      for limits in ((300, 30), (100,)) for cell in 'ab' for name in names], chains
    need_relay()
    with tempfile.TemporaryDirectory(prefix='godwit-') as folder:
        cells = {'a': mock()}
        records, _ = run(folder, cells, '300,30', configurations='mock,fine', runs=2)
        assert order(records) == [
            (0, 'a/300', 'mock'), (0, 'a/30', 'mock'), (0, 'a/300', 'fine'), (0, 'a/30', 'fine'),
            (1, 'a/300', 'fine'), (1, 'a/30', 'fine'), (1, 'a/300', 'mock'), (1, 'a/30', 'mock')], order(records)
        # a limit more costs its own runs only; another cell of that name all of its
        more, _ = run(folder, cells, '300,30,10', configurations='mock', runs=1)
        assert more[:8] == records and order(more[8:]) == [(0, 'a/10', 'mock')], order(more[8:])
        other, _ = run(folder, {'a': mock(gap_ms=2)}, '300', configurations='mock')
        assert order(other[9:]) == [(0, 'a/300', 'mock')]


@test
def what_is_killed_in_the_middle_goes_on():
    need_relay()
    with tempfile.TemporaryDirectory(prefix='godwit-') as folder:
        given = ({'a': mock(), 'b': mock()}, '300,30')
        first = subprocess.Popen(command(folder, *given, runs=3), start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        wait_for('two runs', lambda: len(records_in(folder)) >= 2, alive=lambda: first.poll() is None or records_in(folder)[1])
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
        before = records_in(folder)
        assert 2 <= len(before) < 12, 'it was killed too late to prove anything'
        with open(f'{folder}/convergence.jsonl', 'a') as torn:
            torn.write('{"cell": "a/300", "conf')
        after, said = run(folder, *given, runs=3)
        assert after[:len(before)] == before and sorted(order(after)) == sorted(set(order(after))) and len(after) == 12, said


@test
def time_that_is_over_starts_nothing_and_says_what_is_left():
    need_relay()
    with tempfile.TemporaryDirectory(prefix='godwit-') as folder:
        records, said = run(folder, {'a': mock()}, '300,30', '--minutes', '1e-9', runs=2)
        assert not records and '4 runs left out' in said, said


@test
def the_best_of_each_limit_is_learned_and_taken_at_the_nearest():
    need_relay()
    with tempfile.TemporaryDirectory(prefix='godwit-') as folder:
        _, said = run(folder, {'a': mock()}, '300', '--learn', configurations='slow,fine')
        kept = json.loads(pathlib.Path(folder, 'best.json').read_text())['qemu-mock']
        assert kept['a/300']['configuration'] == 'fine' and kept['a/300']['of'] == ['fine', 'slow'], said
        records, said = run(folder, {'a': dict(mock(), best='slow')}, '100', configurations='best:qemu-mock')
        assert order(records) == [(0, 'a/100', 'fine')], said


@test
def the_cells_span_the_scenarios():
    whole = harness.scenario([])
    chosen = whole['sets']['convergence']
    cells = {name: whole['cells'][name] for name in chosen['cells']}
    links = [whole['links'][cell['link']] for cell in cells.values()]
    words = [cell['dirtier'] for cell in cells.values()]
    assert len(cells) == 12 and chosen['limits_ms'] == [300, 100, 30, 10] and chosen['pairs'] == 30
    assert {50, 100, 200, 400} <= {w['rate'] * 4096 >> 20 for w in words if 'rate' in w}
    assert {'64M', '256M', '1024M'} <= {w['w'] for w in words} and 8 in {w.get('bytes') for w in words}
    assert {'random', 'text', 'counters', 'zero', 'same'} == {w['content'] for w in words if 'content' in w}
    assert any(w.get('phase') == 5 for w in words) and any('hot' in w for w in words) and any(w['w'] == '0' for w in words)
    assert {100, 1000, None} <= {link.get('rate_mbit') for link in links} and {0.1, 10, 50} <= {link.get('rtt_ms') for link in links}
    assert any(cell.get('destination_share') == 0.5 for cell in cells.values())
    assert any(cell.get('parameters') == {'max-bandwidth': 100 << 20} for cell in cells.values())
    told = (TOP / 'docs/benchmarks.md').read_text()
    assert all(f'| `{name}` |' in told for name in cells), 'each stands in the docs with its reason'
    others = rest.others(whole, list(cells))
    assert len(set(others)) == len(others) == 4 * 3 * 2 * 5 * 4 * 3 - 6, len(others)


@test
def recorded_migrations_stand_beside_the_best_moment_to_stop_where_there_are_any():
    with tempfile.TemporaryDirectory(prefix='godwit-') as folder:
        place, simulate = pathlib.Path(folder), pathlib.Path(folder, 'simulate')
        simulate.write_text('#!/bin/sh\necho trace asked\necho "$2 100 60.4 6.06 5.56 1.09 6.06 1.09"\nexit ${3:+7}\n')
        simulate.chmod(0o755)
        assert program.replayed(place, simulate) == []
        (place / 'a.trace').write_text('')
        rows = program.replayed(place, simulate)
        assert rows[1] == ['a', '100', '60.4', '6.06', '5.56', '1.09', '6.06', '1.09'] and len(rows[0]) == 8, rows
        (place / 'b.trace').write_text('')
        try:
            program.replayed(place, simulate)
            assert False, 'it failed, and that was not seen'
        except SystemExit as why:
            assert 'exit code 7' in str(why)


@test
def what_is_no_cell_is_played_on_paper():
    if not (BUILD / 'bench/simulate').exists():
        raise Skip('the simulator is not built (make bench-tools)')
    easy = rest.Scenario(50, 64, 4096, 'text', 1000, 0.1)
    ended, got_ms = rest.play(easy, 300)
    assert ended == 'moved' and 0 < got_ms <= 300 and rest.fits(easy, 300), got_ms
    hopeless = easy._replace(rate=400, set=256, content='random', link=1000)
    assert rest.play(hopeless, 30)[0] == 'given up' and not rest.fits(hopeless, 30)
    assert not rest.fits(easy._replace(rtt=50), 100), 'round trips alone take longer'


@test
def a_slowed_process_is_stopped_and_let_go_in_turn_and_runs_afterwards():
    busy = subprocess.Popen([sys.executable, '-c', 'while True: pass'], stdin=subprocess.DEVNULL)
    try:
        def state():
            return pathlib.Path(f'/proc/{busy.pid}/stat').read_text().rsplit(')', 1)[1].split()[0]
        with watch.Slowed(busy.pid, 0.5):
            for wanted in 'TRTR':
                wait_for(f'it to be {wanted}', lambda: state() == wanted, every_s=0.0007)
        wait_for('it to run', lambda: state() == 'R')
    finally:
        busy.kill()
        busy.wait()
    with watch.Slowed(busy.pid, 0.5) as ended:  # it is no more: no fault of the one who slows it
        ended.thread.join(PATIENCE_S)


# --- godwit ------------------------------------------------------------------------------------------------------------------

ENDED = ('kept', 'over', 'far over', 'policy')
BOUNDED = {'emulator': 'godwit', 'capabilities': {'auto-converge': True}, 'parameters': {'max-rounds': 40}}


def ends(name, cell, link, limits, configuration=BOUNDED):
    """Moves godwit's guest once for each limit; each of them ends, and every word of its memory is as it was written last."""
    need_relay()
    cells = [dict(cell, limit_ms=limit, timeout_s=5 * PATIENCE_S) for limit in limits]
    images, sums = harness.guest_images(cells)
    if drive.guest_of(cells[0]) not in sums:
        raise Skip('its guest cannot be had here')
    records = drive.chain(compare.Emulator('godwit', GODWIT), configuration, cells, link, images)
    for limit, record in zip(limits, records):
        kind = verdict.kind_of(dict(record, asked_ms=limit))
        assert kind in ENDED and record['self_check'] == 'ok', (name, limit, kind, record['why'], record['self_check'])
        print(f'# {name}, {limit} ms: {kind}{": " + record["why"] if record["why"] else ""}', flush=True)
    return records


@test
def one_hot_hart_of_four_through_a_cap_ends():
    cell = dict(CELL, harts=4, parameters={'max-bandwidth': 20 << 20},
                dirtier={'w': '16M', 'rate': 6000, 'hot': 90, 'content': 'random', 'wait': 'sleep'})
    ends('four', cell, {}, (300, 100))


@test
def changing_phases_on_a_far_link_to_a_slow_destination_end():
    cell = dict(CELL, destination_share=0.5, dirtier={'w': '8M', 'rate': 2000, 'phase': 1, 'content': 'same'})
    ends('phases', cell, {'rate_mbit': 1000, 'rtt_ms': 10}, (300,))


@test
def what_cannot_fit_ends_by_policy_and_the_guest_runs_on():
    """A limit below any pause: it says why, and the same guest moves when it is asked for what can be had."""
    cell = dict(CELL, dirtier={'w': '8M', 'rate': 2000, 'content': 'random'})
    tight, wide = ends('tight', cell, {}, (0, 2000), dict(BOUNDED, parameters={'max-rounds': 5}))
    assert verdict.kind_of(dict(tight, asked_ms=1)) == 'policy' and 'max-rounds' in tight['why'], tight['why']
    assert wide['success'] and wide['hop'] == 1, wide['why']


def long_scenarios():
    whole = harness.scenario([])
    for name in whole['sets']['convergence']['cells']:
        cell = dict(whole['cells'][name], **program.DEFAULTS)

        def scenario(name=name, cell=cell, link=whole['links'][cell['link']]):
            if cell['guest'] == 'linux' and os.environ.get('GODWIT_NO_LINUX'):
                raise Skip('no Linux asked for')
            ends(name, cell, link, (300, 30))
        scenario.__name__ = f'the_scenario_{name.replace("-", "_")}_ends_and_its_memory_is_right'
        test(scenario)


if LONG:
    long_scenarios()

if __name__ == '__main__':
    main()
