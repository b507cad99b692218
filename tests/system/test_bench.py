#!/usr/bin/env python3
"""The migration harness (bench/harness.py): what it measures of an emulator whose gaps and lies are known, and of godwit; and its link."""
import json, os, pathlib, re, shutil, signal, socket, subprocess, sys, tempfile, threading, time, xml.etree.ElementTree

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / 'lib'))
from guests import guest
from vm import BUILD, PATIENCE_S, THREAD_SANITIZER, TOP, Failure, Skip, Vm, main, test, wait_for

sys.path.insert(0, str(TOP / 'bench'))
import compare, feel, report
import harness as program

RELAY = BUILD / 'bench/relay'
CELL = {'guest': 'bare', 'memory': '64M', 'link': 'near', 'limit_ms': 300, 'warm_s': 0.2, 'control_s': 0.4, 'tail_s': 0.2}


def need_relay():
    if not RELAY.exists():
        raise Skip('the relay is not built (make bench-tools)')
    guest('dirtier')


def harness(cells, configurations, *options, pairs=1, folder=None, expect=0, more=None):
    """The records of a run of the program itself, and what it printed."""
    with tempfile.TemporaryDirectory(prefix='godwit-') as own:
        place = pathlib.Path(folder or own)
        given = place / 'scenario.json'
        given.write_text(json.dumps({
            'emulators': {'mock': {'binary': str(TOP / 'tests/lib/mock_emulator.py')}}, 'links': {'near': {}}, 'cells': cells,
            'configurations': dict(more or {}, **{'mock': {'emulator': 'mock'}, 'mock-still': {'emulator': 'mock', 'migrate': False}})}))
        results = place / 'results.jsonl'
        done = subprocess.run([sys.executable, TOP / 'bench/harness.py', '--scenario', given, '--cells', ','.join(cells), '--no-still',
                               '--configurations', configurations, '--pairs', str(pairs), '--results', results, *options],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != expect:
            raise Failure(f'exit code {done.returncode}: {done.stdout[-1500:]}')
        return [json.loads(line) for line in results.read_text().splitlines()], done.stdout


def mock(**told):
    return dict(CELL, dirtier=told)


@test
def every_option_is_in_the_man_page_and_no_other():
    usage = output_of([sys.executable, TOP / 'bench/harness.py', '--help'])
    there = set(re.findall(r'(?m)^  (?:-h, )?--([\w-]+)', usage)) - {'help'}
    told = set(re.findall(r'(?m)^\.It Fl Fl ([\w-]+)', (TOP / 'docs/man/godwit-bench.1').read_text()))
    assert there and there == told, (there - told, told - there)


# --- godwit ------------------------------------------------------------------------------------------------------------

@test
def a_tiny_cell_of_godwit_is_measured_from_end_to_end():
    need_relay()
    limit = 20000 if THREAD_SANITIZER else 300
    cell = dict(CELL, dirtier={'w': '4M', 'rate': 500, 'content': 'text'}, limit_ms=limit)
    (record,), _ = harness({'small': cell}, 'godwit')
    assert record['success'] and record['self_check'] == 'ok', record['why']
    for key in ('schema', 'cell', 'configuration', 'repeat', 'emulator', 'commit', 'version', 'date', 'load', 'command', 'harness_command', 'host',
                'guest_digest', 'identity', 'scenario', 'asked_ms', 'predicted_ms', 'claimed', 'relay', 'timeline'):
        assert key in record, key
    measured = record['measured']
    assert record['asked_ms'] == limit and measured['rounds'] >= 1
    assert 0 < measured['pause_ms'] <= measured['gap_ms'] and measured['gap_control_ms'] > 0 and measured['serial_gap_ms'] > 0
    # godwit counts bytes of its stream, the relay those of the socket: there is nothing else on it but a hello
    assert record['claimed']['wire_bytes'] <= measured['wire_bytes'] < record['claimed']['wire_bytes'] + 4096, measured
    for side in ('source', 'destination'):
        assert measured['cpu_s'][side]['all'] > 0, measured['cpu_s']
        assert measured['memory'][side]['ram_rss_bytes'] > 4 << 20
    assert measured['cpu_s']['source']['vcpu'] > 0  # over there it may not have had its turn yet
    assert measured['pages_per_s_control'] > 0 and measured['errors'] == 0 and record['timeline']['guest_pages_per_s']


@test
def a_guest_writes_what_it_is_told_where_it_is_told_and_knows_it_again():
    """Every pattern, content and size; the rate is kept, and a page that was spoiled is found whatever it holds."""
    kernel = ['-m', '64M', '-smp', '2', '-bios', 'none', '-kernel', str(guest('dirtier'))]
    for words in ('pattern=seq content=counters bytes=64 rate=2000', 'pattern=zipf content=text bytes=8 rate=500',
                  'pattern=uniform content=zero bytes=64 rate=1000 phase=1 wait=sleep', 'pattern=uniform content=random bytes=4096 rate=0',
                  'pattern=uniform content=same bytes=4096 rate=1000', 'pattern=seq content=text bytes=4096 rate=0'):
        rate = int(re.search(r'rate=(\d+)', words)[1])
        for spoil in (False, True) if rate else (False,):  # flat out, a spoiled page may be written again before it is looked at
            with Vm([*kernel, '-append', f'w=8M {words}'], qmp=False, typing=True) as vm:
                vm.wait_serial('D 2 ')
                vm.type('xq' if spoil else 'q')
                vm.wait_exit()
                said = vm.serial()
            end = re.search(r'END (\w+) pages (\d+) errors (\d+)', said)
            assert end and end[1] == ('failed' if spoil else 'ok') and (int(end[3]) > 0) == spoil and int(end[2]) > 0, (words, spoil, said[-300:])
            lines = re.findall(r'D \d+ rtc \d+ guest (\d+) gap \d+ at \d+ pages (\d+)', said)
            span_s = (int(lines[-1][0]) - int(lines[0][0])) / 1e9
            # what is late by more than 10 ms is left out, so never more; ahead by the step and a millisecond
            assert not rate or int(lines[-1][1]) - int(lines[0][1]) <= rate * (span_s + 0.012) + 2, (words, lines)
    for words, wrong in (('w=8M content=book', 'content=book needs a file'), ('w=8M hot=90', 'hot is a percentage')):
        with Vm([*kernel, '-append', words], qmp=False) as vm:
            vm.wait_exit()
            assert wrong in vm.serial(), vm.serial()


@test
def of_four_writers_one_is_hot():
    kernel = ['-m', '64M', '-smp', '4', '-bios', 'none', '-kernel', str(guest('dirtier'))]
    with Vm([*kernel, '-append', 'w=8M rate=2000 hot=90 wait=sleep'], qmp=False, typing=True) as vm:
        vm.wait_serial('D 8 ')
        vm.type('q')
        vm.wait_exit()
        said = vm.serial()
    *cold, hot = [int(pages) for pages in re.findall(r'WRITER \d pages (\d+)', said)]
    # what is late by more than 10 ms is left out, of each: so it is not 27 times on any host
    assert len(cold) == 3 and hot > 3 * max(cold) > 0 and 'END ok' in said, (cold, hot)


@test
def a_guest_whose_memory_is_wrong_makes_the_run_a_failed_one():
    need_relay()
    cell = dict(CELL, dirtier={'w': '4M', 'rate': 500, 'content': 'random'})
    (record,), said = harness({'small': cell}, 'godwit', '--plant', expect=1)
    assert not record['success'] and 'holds what was not written last' in record['why'], record['why']
    assert record['self_check'] != 'ok' and 'FAILED' in said and 'because the guest\'s memory was wrong' in said


@test
def what_is_installed_has_its_page_beside_it_and_runs_from_there():
    need_relay()
    with tempfile.TemporaryDirectory(prefix='godwit-') as folder:
        def make(target):
            environment = {name: value for name, value in os.environ.items() if not name.startswith('MAKE') and name != 'MFLAGS'}
            subprocess.run(['make', '-s', f'BUILD={BUILD.relative_to(TOP) if BUILD.is_relative_to(TOP) else BUILD}', f'PREFIX={folder}', target],
                           cwd=TOP, check=True, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            return {path.name for path in pathlib.Path(folder, 'share/man/man1').iterdir()}
        assert make('install') == {'godwit.1', 'godwit-migrate.1'} and not pathlib.Path(folder, 'bin/godwit-bench').exists()
        assert make('install-bench') == {'godwit.1', 'godwit-migrate.1', 'godwit-bench.1'}
        said = subprocess.run([f'{folder}/bin/godwit-bench', '--list'], stdout=subprocess.PIPE, text=True, check=True, cwd='/').stdout
        assert 'idle-1G' in said, said


# --- an emulator that lies ---------------------------------------------------------------------------------------------

@test
def bytes_and_pauses_are_measured_and_not_believed():
    need_relay()
    (record,), _ = harness({'lies': mock(bytes=1234567, claims=5, gap_ms=2000, says_ms=3)}, 'mock')
    assert record['success'], record['why']
    assert record['measured']['wire_bytes'] == 1234567 and record['claimed']['wire_bytes'] == 5
    assert record['measured']['pause_ms'] >= 2000 and record['claimed']['downtime_ms'] == 3
    assert record['measured']['gap_control_ms'] == 1.5 and record['measured']['rounds'] == 2


@test
def the_bytes_that_qemu_7_2_does_not_send_are_seen():
    """With multifd and zstd it counts bytes before compression."""
    need_relay()
    version = subprocess.run(['qemu-system-riscv64', '-version'], stdout=subprocess.PIPE, text=True) if shutil.which(
        'qemu-system-riscv64') else None
    if not version or 'version 7.2' not in version.stdout:
        raise Skip('no QEMU 7.2 here')
    both = {'capabilities': {'return-path': True}, 'parameters': {'max-bandwidth': 10 ** 11}}
    zstd = {'capabilities': dict(both['capabilities'], multifd=True), 'parameters': dict(both['parameters'], **{
        'multifd-compression': 'zstd', 'multifd-channels': 2})}
    cell = dict(CELL, dirtier={'w': '8M', 'rate': 200, 'content': 'text'}, limit_ms=2000)
    records, _ = harness({'q': cell}, 'qemu-plain,qemu-zstd', more={'qemu-plain': dict(both, emulator='qemu'),
                                                                    'qemu-zstd': dict(zstd, emulator='qemu')})
    share = {}
    for record in records:
        assert record['success'], record['why']
        share[record['configuration']] = record['claimed']['wire_bytes'] / record['measured']['wire_bytes']
    assert 0.98 < share['qemu-plain'] <= 1 and share['qemu-zstd'] > 1.5, share


@test
def a_clock_that_falls_back_during_the_move_does_not_hide_the_pause():
    need_relay()
    (record,), _ = harness({'slips': mock(gap_ms=5, slip_s=1000)}, 'mock')
    assert record['success'], record['why']
    assert 900e3 < record['measured']['pause_ms'] < 1100e3 and 900e3 < record['measured']['rtc_slip_ms'] < 1100e3


@test
def what_does_not_converge_or_fails_or_is_wrong_counts_as_failed():
    need_relay()
    cells = {'never': dict(mock(never=1), timeout_s=0.5), 'fails': mock(fails=1), 'wrong': mock(wrong=1)}
    records, _ = harness(cells, 'mock', expect=1)
    why = {record['cell']: (record['success'], record['why'], record.get('self_check')) for record in records}
    assert why['never'] == (False, 'no end within 0.5 s', 'ok'), why['never']
    assert why['fails'] == (False, 'failed: as it was told', 'ok'), why['fails']
    assert why['wrong'][0] is False and 'END failed' in why['wrong'][1], why['wrong']


@test
def runs_alternate_and_are_not_run_twice():
    need_relay()
    with tempfile.TemporaryDirectory(prefix='godwit-') as folder:
        records, _ = harness({'a': mock(gap_ms=3)}, 'mock,mock-still', pairs=2, folder=folder)
        order = [(record['configuration'], record['repeat']) for record in records]
        assert order == [('mock', 0), ('mock-still', 0), ('mock-still', 1), ('mock', 1)], order
        with open(f'{folder}/results.jsonl', 'a') as torn:
            torn.write('{"cell": "a", "configur')  # as a session that was cut off leaves it
            torn.write('\n')
        os.truncate(f'{folder}/results.jsonl', len('\n'.join(json.dumps(r) for r in records[:3])) + 1)
        again, said = harness({'a': mock(gap_ms=3)}, 'mock,mock-still', pairs=2, folder=folder)
        assert [(r['configuration'], r['repeat']) for r in again[3:]] == [('mock', 1)] and len(again) == 4, said
        page = pathlib.Path(folder, 'results/report.html').read_text()
        assert '<svg' in page and 'mock' in page
        for picture in ('pauses-a', 'timeline-a', 'asked-and-got'):
            xml.etree.ElementTree.parse(f'{folder}/results/{picture}.svg')
        changed, _ = harness({'a': mock(bytes=200000, gap_ms=3)}, 'mock', pairs=1, folder=folder)
        assert len(changed) == 5, 'another scenario is another run'


def full_set(folder):
    """bench-full in small: one cell of one emulator in three configurations, twice; the middle one is best."""
    scenario = {'emulators': {'qemu-mock': {'binary': str(TOP / 'tests/lib/mock_emulator.py')}}, 'links': {'near': {}},
                'cells': {'a': dict(mock(), best='slow')},
                'configurations': {'slow': {'emulator': 'qemu-mock', 'args': ['-mock', 'gap_ms=2000']}, 'fine': {'emulator': 'qemu-mock'},
                                   'fails': {'emulator': 'qemu-mock', 'args': ['-mock', 'fails=1']}},
                'sets': {'full': {'cells': ['a'], 'configurations': ['slow', 'fine', 'fails'], 'pairs': 2, 'learn': True}}}
    path = pathlib.Path(folder, 'scenario.json')
    path.write_text(json.dumps(scenario))
    return [sys.executable, TOP / 'bench/harness.py', '--scenario', path, '--best', f'{folder}/best.json', '--results', f'{folder}/full.jsonl']


def output_of(command):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    return done.stdout


@test
def what_is_killed_in_the_middle_goes_on_and_does_nothing_twice():
    need_relay()
    with tempfile.TemporaryDirectory(prefix='godwit-') as folder:
        command, results = full_set(folder), pathlib.Path(folder, 'full.jsonl')
        first = subprocess.Popen([*command, '--set', 'full'], start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

        def lines():
            return results.read_text().splitlines() if results.exists() else []
        wait_for('four runs', lambda: len(lines()) >= 4, alive=lambda: first.poll() is None or lines()[3])
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
        before = [line for line in lines() if line.endswith('}')]
        assert 4 <= len(before) < 6, 'it was killed too late to prove anything'
        assert json.loads(pathlib.Path(folder, 'best.json').read_text())['qemu-mock']['a']['configuration'] == 'fine', 'a round is learned from at its end'
        with open(results, 'a') as torn:
            torn.write('{"cell": "a", "configuration": "fi')  # half a line, as a kill may leave it
        said = output_of([*command, '--set', 'full'])
        assert lines()[:len(before)] == before and len(lines()) == 7, said
        runs = [json.loads(line) for i, line in enumerate(lines()) if i != len(before)]
        order = [(r['configuration'], r['repeat']) for r in runs]
        assert order == [('slow', 0), ('fine', 0), ('fails', 0), ('fails', 1), ('fine', 1), ('slow', 1)], order
        output_of([*command, '--set', 'full'])
        assert len(lines()) == 7, 'a third time there is nothing left to do'


@test
def the_best_configuration_is_found_kept_with_its_date_and_compared_with():
    need_relay()
    with tempfile.TemporaryDirectory(prefix='godwit-') as folder:
        command, best = full_set(folder), pathlib.Path(folder, 'best.json')
        assert 'best:' not in output_of([*command, '--set', 'full', '--hours', '1e-12']), 'time that is over'
        assert not pathlib.Path(folder, 'full.jsonl').exists()
        output_of([*command, '--set', 'full'])
        kept = json.loads(best.read_text())['qemu-mock']['a']
        assert kept['configuration'] == 'fine' and kept['date'] == compare.now()[:10] and kept['version'] == 'mock emulator version 1', kept
        assert kept['of'] == ['fails', 'fine', 'slow'] and kept['runs'] == 2, kept
        again = output_of([*command, '--cells', 'a', '--configurations', 'best:qemu-mock', '--pairs', '1', '--no-still', '--results',
                           f'{folder}/pair.jsonl'])
        assert 'fine' in again and 'slow' not in again, again
        with open(f'{folder}/full.jsonl', 'a') as torn:
            torn.write('{"cell": "a", "conf')
        records = report.read(f'{folder}/full.jsonl')
        assert len(records) == 6
        ours = [dict(r, configuration='godwit', emulator='godwit') for r in records if r['configuration'] == 'slow']
        rows = report.best_rows(records + ours, report.by_cell(records + ours))
        assert len(rows) == 2 and rows[1][:2] == ['a', 'fine'] and rows[1][-1] == f'{kept["date"]}, of 3', rows


@test
def a_round_of_which_a_part_is_old_is_run_again_as_a_whole():
    def done(*dates):
        return {('c', f'e{i}', 0, 'x'): {'date': date} for i, date in enumerate(dates)}
    keys = [('c', 'e0', 0, 'x'), ('c', 'e1', 0, 'x')]
    early, later, now = '2026-11-21T10:00:00+00:00', '2026-11-21T10:10:00+00:00', compare.now()
    for there, left in ((done(early, later), 2), (done(early, now), 0), (done(now), 1), (done(early), 0)):
        program.forget_torn_rounds(keys, there)
        assert len(there) == left, there
    assert compare.one_round([early, later]) and not compare.one_round([early, now])


@test
def a_comparison_finds_what_became_worse_and_only_that():
    def records(total, ok=True):
        return [{'cell': 'c', 'configuration': 'godwit', 'repeat': i, 'identity': total, 'success': ok,
                 'scenario': {'configuration': {}}, 'measured': {
                     'total_ms': total + i, 'gap_ms': 10, 'pause_ms': 5, 'wire_bytes': 100, 'cpu_s': {'source': {'all': 1}, 'destination': {'all': 1}}}}
                for i in range(3)]
    assert report.regressions(records(100), records(105), 0.1) == []
    worse = report.regressions(records(100), records(200), 0.1)
    assert len(worse) == 1 and 'total 201' in worse[0], worse
    assert 'moved' in report.regressions(records(100), records(100, ok=False), 0.1)[0]


@test
def the_guest_s_lines_are_read_between_beats():
    chunks = [(1_000, b'...READY pages 1\r\n'), (2_000, b'.D 0 rtc 1500 guest 1 gap 7 at 14'),
              (3_000, b'.90 pages 10 errors 0\r\n..'), (9_000, b'.\nD 1 rtc 8500 guest 2 gap 6000 at 8400 pages 20 errors 0\n')]
    samples, offset = feel.side(chunks)
    assert offset == 500 and [s.at for s in samples] == [2_000, 9_000] and [s.gap for s in samples] == [7, 6000], samples
    assert feel.longest_silence(feel.beats_of(chunks), 0, 10_000) == 6_000
    assert feel.longest(samples, 8_000, 9_000) == 6000 and feel.longest(samples, 0, 2_000) == 7
    assert feel.pages_at(samples, 5_500) == 15
    assert feel.verdict(chunks) is None and feel.verdict([(1, b'.END ok pa.ges 3 errors 0\n')]) == ''
    assert feel.verdict([(1, b'ERROR page 3 is bad\nEND ok pages 3 errors 0\n')]).startswith('ERROR')


@test
def the_pause_is_the_gap_that_lies_across_the_move():
    def line(n, at, gap, end):
        return f'D {n} rtc {at} guest {n} gap {gap} at {end} pages 0 errors 0\n'.encode()
    ms = 1_000_000
    source = [(100 * ms, line(0, 100 * ms, ms, 90 * ms)), (200 * ms, line(1, 200 * ms, ms, 190 * ms)), (210 * ms, b'.')]
    # it had written the line at 205 before it was stopped at 210; it ran again at 510, and hiccuped at 700
    there = [(512 * ms, line(2, 205 * ms, 4 * ms, 204 * ms)), (600 * ms, line(3, 600 * ms, 300 * ms, 510 * ms)),
             (750 * ms, line(4, 750 * ms, 80 * ms, 700 * ms)), (850 * ms, line(5, 850 * ms, ms, 800 * ms))]
    felt = feel.felt(source, there, (0, 150 * ms), (150 * ms, 520 * ms), 400 * ms)
    assert felt['pause_ms'] == 300 and felt['gap_ms'] == 300 and felt['gap_control_ms'] == 1, felt


# --- the link ------------------------------------------------------------------------------------------------------------

class Relayed:
    """A relay, one connection through it, and its totals at the end."""

    def __init__(self, *options):
        need_relay()
        self.listener = socket.create_server(('127.0.0.1', 0))
        self.process = subprocess.Popen([RELAY, '--to', f'127.0.0.1:{self.listener.getsockname()[1]}', *options],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        port = int(self.process.stdout.readline().split()[1])
        self.here = socket.create_connection(('127.0.0.1', port), PATIENCE_S)
        self.there, _ = self.listener.accept()
        self.there.settimeout(PATIENCE_S)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for end in (self.here, self.there, self.listener):
            end.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def totals(self):
        out, _ = self.process.communicate(timeout=PATIENCE_S)
        return json.loads(out)


def receive(end, count=None):
    """So many bytes, or all until the end."""
    got = b''
    while count is None or len(got) < count:
        data = end.recv(1 << 16)
        if not data:
            break
        got += data
    return got


def through(link, data):
    """Both ways at once, the second way half as much; then both ends are closed, one after the other."""
    sender = threading.Thread(target=lambda: (link.here.sendall(data), link.here.shutdown(socket.SHUT_WR)), daemon=True)
    sender.start()
    answer = threading.Thread(target=lambda: link.there.sendall(data[::2]), daemon=True)
    answer.start()
    back = []
    reader = threading.Thread(target=lambda: back.append(receive(link.here, len(data[::2]))), daemon=True)
    reader.start()
    got = receive(link.there)
    for thread in (sender, answer, reader):
        thread.join(PATIENCE_S)
    return got, back[0]


@test
def the_link_loses_nothing_and_counts_every_byte():
    data = bytes(range(251)) * 20000
    for options in ([], ['--rtt', '4', '--jitter', '2'], ['--rate', '2000', '--rtt', '2', '--stall-every', '20:5']):
        with Relayed(*options) as link:
            there, back = through(link, data)
            assert there == data and back == data[::2], f'{options}: {len(there)} and {len(back)} of {len(data)}'
            totals = link.totals()
            assert totals['there_bytes'] == len(data) and totals['back_bytes'] == len(data[::2]), totals
            assert totals['connections'] == 1


@test
def the_link_is_never_faster_than_it_was_asked_to_be():
    with Relayed('--rtt', '60') as link:
        begun = time.monotonic()
        link.here.sendall(b'x')
        link.there.sendall(receive(link.there, 1))
        receive(link.here, 1)
        assert time.monotonic() - begun >= 0.060
    data = bytes(1 << 20)
    with Relayed('--rate', '80') as link:  # 10 MB a second, 2 ms ahead of it, 4 ms made up for
        begun = time.monotonic()
        sender = threading.Thread(target=link.here.sendall, args=(data,), daemon=True)
        sender.start()
        receive(link.there, len(data))
        assert time.monotonic() - begun >= len(data) / 10e6 - 0.007
        sender.join()
    with Relayed('--stall', '0:80') as link:
        begun = time.monotonic()
        link.here.sendall(b'x')
        receive(link.there, 1)
        assert time.monotonic() - begun >= 0.080


@test
def the_link_says_what_is_wrong_with_its_options():
    need_relay()
    for options, words in (([], 'usage'), (['--to', 'nowhere'], 'HOST:PORT'), (['--to', '127.0.0.1:1', '--rate', 'fast'], 'a number'),
                           (['--to', '127.0.0.1:1', '--stall', '5'], 'MS:MS'),
                           (['--to', '127.0.0.1:1', '--log', '/nonexistent/x'], '/nonexistent/x')):
        done = subprocess.run([RELAY, *options], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert done.returncode != 0 and words in done.stderr, (options, done.stderr)


if __name__ == '__main__':
    main()
