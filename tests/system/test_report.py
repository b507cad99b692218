#!/usr/bin/env python3
"""The report of a real move: does it say what it says it says? Its parts add up, on both ends, however it ended."""
import pathlib, re, sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / 'lib'))
from vm import TOP, Failure, Vm, linux_args, listening, main, test, wait_for
from guests import check, finish, machine, memcheck, wait_alive
from linux import wait_for_line, waiting

EXACT = 1e-4  # ms: what rounding may do
PARTS = ('stop', 'drain', 'harvest', 'ram', 'devices', 'arrive', 'load', 'release', 'start', 'round-trips')


def own(vm):
    return vm.migration()['__org.godwit_report']


def whole(vm):
    """The report with what comes a moment behind the end."""
    def look():
        report = own(vm)
        return None if report.get('result-due') else report
    return wait_for(f'the result of {vm.name}', look, alive=vm.alive)


def same(what, a, b, by=EXACT):
    if abs(a - b) > by:
        raise Failure(f'{what}: {a} and {b} differ')


def pause_adds_up(report, disks=False):
    pause = report['pause']
    names = {f'{part}-ms' for part in PARTS} | {'total-ms'} | ({'disks-ms'} if disks else set())
    assert set(pause) == names, sorted(set(pause) ^ names)
    assert all(value >= 0 for value in pause.values()), pause
    same('the parts of the pause and their sum', sum(pause.values()) - pause['total-ms'], pause['total-ms'])


def rounds_add_up(info):
    report, ram = info['__org.godwit_report'], info.get('ram')
    rows = report['rounds']
    for before, row in zip(rows, rows[1:]):
        assert row['first-round'] == before['last-round'] + 1, rows
    for row in rows:
        assert row['scanned-pages'] >= row['data-pages'] + row['zero-pages'], row
        assert row['delta-pages'] <= row['data-pages'], row
    if ram:
        assert sum(row['data-pages'] for row in rows) == ram['normal'], (rows, ram)
        assert sum(row['zero-pages'] for row in rows) == ram['duplicate'], (rows, ram)
        assert sum(row['wire-bytes'] for row in rows) + report['other-wire-bytes'] == ram['transferred'], (rows, ram)


def histograms_add_up(report, harts):
    assert [vcpu['cpu-index'] for vcpu in report['stalls']] == list(range(harts)), report['stalls']
    for vcpu in report['stalls']:
        for kind in ('held', 'dirty-protocol', 'paused'):
            stall = vcpu[kind]
            assert sum(bucket['count'] for bucket in stall['buckets']) == stall['count'], stall
            assert stall['longest-ms'] <= stall['total-ms'] + EXACT, stall
            edges = [bucket['from-us'] for bucket in stall['buckets']]
            assert edges == sorted(set(edges)), stall
            least = sum(bucket['from-us'] * bucket['count'] for bucket in stall['buckets']) / 1e3
            assert least <= stall['total-ms'] + EXACT, stall


def moved(source, there, harts, disks=False):
    """After a move between two processes of one host, whose clocks are one."""
    report, arrived = whole(source), whole(there)
    pause, seen, destination = report['pause'], report['seen'], report['destination']
    pause_adds_up(report, disks)
    rounds_add_up(source.migration())
    histograms_add_up(report, harts)
    same('the pause, stopping included, and the source\'s', pause['total-ms'] - pause['stop-ms'], seen['source-ms'])
    same('the downtime and what the source saw', report['downtime-ms'], seen['source-ms'])
    assert 0 < seen['guest-at-least-ms'] <= seen['guest-at-most-ms'], seen  # on a busy host more than the source knows of
    assert seen['slowest-cpu-at-most-ms'] >= seen['guest-at-least-ms'], seen
    assert seen['destination-ms'] <= seen['guest-at-most-ms'], seen
    same('one clock', seen['guest-at-least-ms'], seen['guest-at-most-ms'])
    same('the destination\'s share', sum(destination.values()), seen['destination-ms'])
    for name in ('destination', 'after'):  # both ends tell the same
        for member, value in arrived[name].items():
            assert report[name][member] == value, (name, member)
    assert arrived['seen']['destination-ms'] == seen['destination-ms']
    assert report['after']['elapsed-ms'] > 0 and report['after']['usual-cpu-ms'] >= 0, report['after']
    names = [(device['name'], device['instance']) for device in report['devices']]
    assert len(names) == len(set(names)) and ('godwit/uart', 0) in names, names
    assert sum(name == 'godwit/hart' for name, _ in names) == harts, names
    assert all('save-ms' in device and 'load-ms' in device for device in report['devices']), report['devices']
    same('the devices\' loading', *sorted((sum(d['load-ms'] for d in report['devices']), destination['load-ms'])),
         by=destination['load-ms'])
    got = [row for row in report['rounds'] if 'pause-ms' in row]
    assert len(got) == 1 + report['pauses-taken-back'], report['rounds']
    same('predicted', got[-1]['predicted-pause-ms'], report['predicted-downtime-ms'])
    same('got', got[-1]['pause-ms'], report['downtime-ms'])
    for vm in (source, there):
        text = vm.qmp.hmp('info migrate')
        assert 'by the destination' in text and 'godwit/uart' in text, text
    assert 'the pause, part by part' in source.qmp.hmp('info migrate')
    return report


@test
def the_report_of_a_bare_metal_move_adds_up():
    both = machine(harts=2)
    with Vm(both + memcheck('16M', 2), typing=True, name='source') as source:
        wait_alive(source)
        with Vm(both + ['-incoming', 'tcp:127.0.0.1:0'], typing=True, name='destination') as there:
            source.migrate(listening(there))
            report = moved(source, there, 2)
            assert report['after']['instructions'] > 0 and report['after']['work-percent'] > 0, report['after']
            check(source)
            finish(there)


@test
def the_report_of_a_debian_move_adds_up():
    args = linux_args('dirtier,64,50,2')
    with Vm(args, name='source') as source, waiting(args, 'destination') as there:
        wait_for_line(source, r'dirtier: beat=')
        source.migrate(listening(there), limit_s=120)
        report = moved(source, there, 2)
        assert report['after']['instructions'] > 0, report['after']


def members(value):
    """Names at any depth, but those of codecs."""
    if isinstance(value, list):
        return set().union(*map(members, value)) if value else set()
    if not isinstance(value, dict):
        return set()
    return set(value) | set().union(*(members(inner) for name, inner in value.items() if name != 'codec-pages'))


@test
def every_member_is_in_monitor_md():
    told = set(re.findall(r'`([\w-]+)`', (TOP / 'docs/monitor.md').read_text()))
    both = machine(harts=2)
    with Vm(both + memcheck('16M', 2), typing=True, name='source') as source:
        wait_alive(source)
        with Vm(both + ['-incoming', 'tcp:127.0.0.1:0'], typing=True, name='destination') as there:
            source.start_migration(listening(there), max_bandwidth=8 << 20)
            wait_for('an estimate', lambda: 'eta' in own(source), alive=source.alive)
            there_are = members(own(source))
            source.qmp('migrate-set-parameters', **{'max-bandwidth': 0})
            source.wait_migration('completed')
            there_are |= members(whole(source)) | members(whole(there))
    assert not there_are - told, sorted(there_are - told)
    assert {'kind', 'usual-cpu-ms', 'from-us', 'receive-ms', 'slowest-cpu-index'} <= there_are, sorted(there_are)


@test
def a_destination_that_dies_before_it_tells_changes_nothing():
    both = machine()
    with Vm(both + memcheck('16M'), typing=True, name='source') as source:
        wait_alive(source)
        with Vm(both + ['-incoming', 'tcp:127.0.0.1:0'], name='destination') as there:
            source.migrate(listening(there))
            there.process.kill()
            report = whole(source)
        assert source.migration()['status'] == 'completed' and report['where'] == 'there', report
        pause_adds_up(report)
        rounds_add_up(source.migration())


@test
def a_guest_that_is_held_back_shows_its_holds_by_size():
    both = machine(harts=2)
    with Vm(both + memcheck('32M', 1, 'fill=head hot=32M'), typing=True, name='source') as source:
        wait_alive(source)
        with Vm(both + ['-incoming', 'tcp:127.0.0.1:0'], typing=True, name='destination') as there:
            source.qmp('migrate-set-capabilities', capabilities=[{'capability': 'auto-converge', 'state': True}])
            source.start_migration(listening(there), max_bandwidth=4 << 20, downtime_limit=20, on_stall='continue')
            def held():
                stalls = own(source).get('stalls', [])
                return stalls and stalls[0]['held']['count'] > 20
            wait_for('the guest to be held', held, alive=source.alive)
            source.qmp('migrate_cancel')
            source.wait_migration('cancelled')
            info = source.migration()
            report = info['__org.godwit_report']
            histograms_add_up(report, 2)
            rounds_add_up(info)
            assert report['ended-in'] == 'active' and report['where'] == 'here', report
            throttled = {vcpu['cpu-index']: vcpu for vcpu in report['throttle']}
            for vcpu in report['stalls']:  # two who count the same, but for a hold that was on when it ended
                others = throttled[vcpu['cpu-index']]
                assert 0 <= others['holds'] - vcpu['held']['count'] <= 1, (vcpu, others)
                assert vcpu['held']['total-ms'] <= others['held-ms'] + EXACT, (vcpu, others)


@test
def a_migration_that_fails_or_is_cancelled_says_where_and_what_it_cost():
    both = machine()
    with Vm(both + memcheck('16M'), typing=True, name='source') as source:
        wait_alive(source)
        source.start_migration('tcp:127.0.0.1:1')
        report = source.wait_migration('failed')['__org.godwit_report']
        assert report['ended-in'] == 'setup' and report['stood-ms'] == 0 and report['rounds'] == [], report
        assert 'pause' not in report and 'seen' not in report
        with Vm(both + ['-incoming', 'tcp:127.0.0.1:0'], name='destination') as there:
            source.start_migration(listening(there), max_bandwidth=1 << 20)
            wait_for('something to be sent', lambda: source.migration().get('ram', {}).get('normal'), alive=source.alive)
            there.process.kill()
            info = source.wait_migration('failed')
        report = info['__org.godwit_report']
        assert report['ended-in'] == 'active' and report['reason'] == 'failed' and info['error-desc'], info
        assert report['pauses-taken-back'] == 0 and report['stood-ms'] == 0, report
        assert len(report['rounds']) >= 1 and report['rounds'][0]['scanned-pages'] > 0, report
        histograms_add_up(report, 1)
        assert 'it ended while it was in: active' in source.qmp.hmp('info migrate')
        finish(source)


@test
def the_estimate_is_honest_before_during_and_when_there_is_no_end():
    both = machine(harts=1)
    with Vm(both + memcheck('32M', 1, 'fill=head'), typing=True, name='source') as source:
        wait_alive(source)
        with Vm(both + ['-incoming', 'tcp:127.0.0.1:0'], name='destination') as there:
            source.start_migration(listening(there), max_bandwidth=8 << 20, downtime_limit=1, on_stall='continue')
            kinds = {}
            def never():
                eta = own(source).get('eta')
                if eta:
                    kinds.setdefault(eta['kind'], eta)
                return 'never' in kinds
            wait_for('it to say never', never, alive=source.alive)
            assert 'first round' in kinds['unknown']['reason'] or 'measured' in kinds['unknown']['reason'], kinds
            assert kinds['never']['reason'] and 'p50-ms' not in kinds['never'], kinds
            assert 'never at this rate' in source.qmp.hmp('info migrate')
            eta = own(there)['eta']
            assert eta['kind'] == 'unknown' and 'source' in eta['reason'], eta
            source.qmp('migrate-set-parameters', **{'max-bandwidth': 0, 'downtime-limit': 2000})
            source.wait_migration('completed')
            assert 'eta' not in own(source)


if __name__ == '__main__':
    main()
