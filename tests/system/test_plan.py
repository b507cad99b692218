#!/usr/bin/env python3
"""A plan: what a migration would be is measured and told, nothing moves, nothing is left behind.

# boots Linux
"""
import pathlib, re, subprocess, sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / 'lib'))
from vm import GODWIT, PATIENCE_S, Failure, Vm, free_port, linux_args, listening, main, test, wait_for
from guests import arrived, finish, machine, memcheck, wait_alive, wait_running_on
from linux import wait_for_line, waiting
from proxy import Proxy


def source_vm(mem='16M', **how):
    return Vm(machine(harts=2) + memcheck(mem, 2), typing=True, name='source', **how)


def destination_vm(**how):
    return Vm(machine(harts=2, more=['-incoming', 'tcp:127.0.0.1:0']), typing=True, name='destination', **how)


def start_plan(source, uri):
    said = source.qmp.hmp(f'migrate_plan -d {uri}').strip()
    if said:
        raise Failure(said)


def plan(source, uri, **parameters):
    if parameters:
        source.qmp('migrate-set-parameters', **parameters)
    start_plan(source, uri)
    return source.wait_migration('completed')['__org.godwit_plan']


def threads(vm):
    names = [(path / 'comm').read_text().strip() for path in pathlib.Path(f'/proc/{vm.process.pid}/task').iterdir()]
    return [name for name in names if re.match(r'migrate|work/|write/|return|load/', name)]


def sockets(vm):
    """Connections to somewhere: what monitors and serial lines have is there before."""
    links = pathlib.Path(f'/proc/{vm.process.pid}/fd').iterdir()
    return sum(1 for link in links if str(link.resolve()).find('socket:') >= 0)


def nothing_is_left(source, sockets_before):
    source.wait_status('running')
    wait_for('the threads of the plan to end', lambda: not threads(source))
    wait_for('its sockets to be closed', lambda: sockets(source) <= sockets_before)


def still_waits(there):
    wait_for(f'{there.name} to wait', lambda: there.migration()['status'] == 'setup' and
             not [name for name in threads(there) if name != 'migrate'], alive=there.alive)
    if there.status() != 'inmigrate':
        raise Failure(f'{there.name} is {there.status()} after a plan')


@test
def a_plan_tells_and_moves_nothing_and_then_the_guest_moves():
    with source_vm() as source, destination_vm() as there:
        wait_alive(source)
        source.status()
        uri, before = listening(there), sockets(source)
        told = plan(source, uri, downtime_limit=2000)
        measured = told['measured']
        if not told['converges'] or not 0 < told['total-ms']['p50'] <= told['total-ms']['p90']:
            raise Failure(f'{told}')
        if not 0 < told['downtime-ms']['p50'] <= told['downtime-ms']['p90'] or not measured['link-bytes-per-second'] > 0:
            raise Failure(f'{told}')
        pages = [point['pages'] for point in measured['dirtied']]
        if pages != sorted(pages) or not pages[-1] > 0 or abs(sum(measured['vcpu-shares']) - 1) > 0.01:
            raise Failure(f'{measured}')
        nothing_is_left(source, before)
        wait_running_on(source)
        still_waits(there)
        plan(source, uri)
        still_waits(there)
        source.migrate(uri)
        arrived(source, there)
        finish(there)


@test
def what_never_ends_comes_with_advice_for_people_too():
    """No pause is as short as that."""
    with source_vm() as source, destination_vm() as there:
        wait_alive(source)
        told = plan(source, listening(there), max_bandwidth=1 << 20, compression='none', downtime_limit=1)
        if told['converges'] or not told['advice'] or not all(one['text'] for one in told['advice']):
            raise Failure(f'{told}')
        said = source.qmp.hmp('info migrate')
        if 'it will not end: ' not in said or 'what would help: ' not in said or 'dirtied within' not in said:
            raise Failure(said)
        source.qmp.close()  # for another client
        source._qmp = None
        ran = subprocess.run([GODWIT, 'migrate', '--monitor', source.qmp_path, '--plan', '--progress', 'none', listening(there)],
                             timeout=PATIENCE_S, capture_output=True, text=True)
        if ran.returncode != 4 or 'it will not end: ' not in ran.stdout:
            raise Failure(f'{ran}')
        finish(source)


@test
def samples_keep_to_the_cap():
    """2 MiB/s: what is sampled in all is what that allows in the time it took, and a train ahead of it."""
    with source_vm() as source, destination_vm() as there:
        wait_alive(source)
        cap = 2 << 20
        source.qmp('migrate-set-parameters', max_bandwidth=cap, compression='none')
        start_plan(source, listening(there))
        info = source.wait_migration('completed', limit_s=2 * PATIENCE_S)
        sampled = info['__org.godwit_plan']['measured']['sampled-bytes']
        if not 0 < sampled < cap * info['total-time'] / 1e3 + (1 << 20):
            raise Failure(f'{sampled} bytes in {info["total-time"]} ms')
        finish(source)


@test
def a_plan_may_be_cancelled_while_it_measures():
    with source_vm() as source, destination_vm() as there:
        wait_alive(source)
        source.status()
        uri, before = listening(there), sockets(source)
        start_plan(source, uri)
        source.wait_migration('active')
        source.qmp('migrate_cancel')
        source.wait_migration('cancelled')
        nothing_is_left(source, before)
        wait_running_on(source)
        still_waits(there)
        plan(source, uri)
        finish(source)


@test
def a_destination_that_dies_meanwhile_is_told():
    with source_vm() as source, destination_vm() as there:
        wait_alive(source)
        source.status()
        before = sockets(source)
        with Proxy(listening(there)) as line:
            start_plan(source, line.uri)
            wait_for('samples on the line', lambda: line.passed['there'] > 100000)
            there.process.kill()
            why = source.wait_migration('failed').get('error-desc', '')
            if not re.search('closed|reset|ended|pipe', why, re.I):
                raise Failure(why)
        nothing_is_left(source, before)
        wait_running_on(source)
        finish(source)


@test
def a_line_that_lies_ends_the_plan_and_not_the_waiting():
    lied = []
    def lie(offset, data):
        if offset < 100000 or lied:
            return data
        lied.append(offset)
        return bytes([data[0] ^ 0x55]) + data[1:]
    with source_vm() as source, destination_vm() as there:
        wait_alive(source)
        uri = listening(there)
        with Proxy(uri, forward=lie) as line:
            start_plan(source, line.uri)
            why = source.wait_migration('failed').get('error-desc', '')
            if not lied or 'the destination' not in why:
                raise Failure(f'{lied}: {why}')
        still_waits(there)
        source.migrate(uri)
        arrived(source, there)
        finish(there)


@test
def an_address_where_nobody_is_is_told():
    with source_vm() as source:
        wait_alive(source)
        start_plan(source, f'tcp:127.0.0.1:{free_port()}')
        why = source.wait_migration('failed').get('error-desc', '')
        if 'refused' not in why:
            raise Failure(why)
        for uri in ('file:/dev/null', '"exec:cat >/dev/null"'):
            said = source.qmp.hmp(f'migrate_plan {uri}')
            if 'nobody answers' not in said:
                raise Failure(said)
        finish(source)


@test
def another_machine_is_refused_as_it_would_be():
    with source_vm() as source, Vm(machine(memory='128M', harts=2, more=['-incoming', 'tcp:127.0.0.1:0']),
                                   name='destination') as there:
        wait_alive(source)
        start_plan(source, listening(there))
        why = source.wait_migration('failed').get('error-desc', '')
        if 'RAM size differs' not in why:
            raise Failure(why)
        still_waits(there)
        finish(source)


@test
def debian_is_planned_and_moves():
    args = linux_args('idle', memory='256M')
    with Vm(args, name='source') as source, waiting(args, 'destination') as there:
        wait_for_line(source, 'init: tick')
        uri = listening(there)
        told = plan(source, uri, downtime_limit=2000)
        if not told['converges']:
            raise Failure(f'{told}')
        still_waits(there)
        info = source.migrate(uri, limit_s=2 * PATIENCE_S)
        print(f'# planned {told["total-ms"]["p50"]:.0f} ms and {told["downtime-ms"]["p50"]:.1f} ms, took '
              f'{info["total-time"]} ms and {info["__org.godwit_report"]["downtime-ms"]:.1f} ms')
        there.wait_status('running')
        wait_for_line(there, 'init: tick')


if __name__ == '__main__':
    main()
