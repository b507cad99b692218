#!/usr/bin/env python3
"""A guest that changes two words of a page at a time moves by deltas, and finds in its memory what must be in it."""
import pathlib, sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / 'lib'))
from vm import LONG, Failure, Vm, listening, main, test
from guests import AUDIT, arrived, audited, check, finish, machine, memcheck, wait_alive, wait_running_on

HOPS = 20 if LONG else 3
SLOW = dict(max_bandwidth=16 << 20, compression='none', downtime_limit=20000)  # the first round takes a second
FEW_WORDS = 'fill=head rate=4000 pattern=jump'


def report(vm):
    return vm.qmp('query-migrate')['__org.godwit_report']


def destination(number, **how):
    return Vm(machine(more=[*AUDIT, '-incoming', 'tcp:127.0.0.1:0']), typing=True, name=f'hop {number}', **how)


def first(*options):
    return Vm([*machine(more=[*AUDIT, *options]), *memcheck('12M', more=FEW_WORDS)], typing=True, name='hop 0')


def move(source, there):
    """Two rounds or more: the limit is low until the second one has begun, and then it is not."""
    source.qmp('migrate-set-parameters', **dict(SLOW, downtime_limit=1, on_stall='continue'))
    source.qmp('migrate', uri=listening(there))
    source.wait_migration('active', 'completed')
    while source.migration()['ram']['dirty-sync-count'] < 2 and source.migration()['status'] != 'completed':
        source.wait_migration('active', 'device', 'completed')
    source.qmp('migrate-set-parameters', downtime_limit=20000)
    source.wait_migration('completed')
    arrived(source, there)
    wait_running_on(there)
    check(source)
    audited(source)


@test
def what_changed_little_is_sent_as_deltas_hop_after_hop():
    at = first()
    try:
        wait_alive(at)
        for number in range(1, HOPS + 1):
            left, at = at, destination(number)
            with left:
                move(left, at)
                sent, loaded = report(left), report(at)
                if not sent['delta-pages'] or sent['delta-pages'] != loaded['delta-pages']:
                    raise Failure(f'{sent["delta-pages"]} pages were sent as deltas, {loaded["delta-pages"]} loaded')
                if sent['delta-bytes'] > 400 * sent['delta-pages']:  # two lines a page, now and then four
                    raise Failure(f'{sent["delta-bytes"]} bytes for {sent["delta-pages"]} deltas')
        finish(at)
    except BaseException:
        at.__exit__(*sys.exc_info())
        raise
    at.close()


@test
def a_small_cache_evicts_and_the_guest_is_whole():
    with first('-global', 'migration.delta-cache-size=4M') as source, destination(1) as there:
        wait_alive(source)
        move(source, there)
        if report(source)['delta-misses'] == 0:
            raise Failure('4 MiB held copies of 12')
        finish(there)


@test
def without_the_capability_there_are_none_by_either_name():
    for name in 'deltas', 'xbzrle':
        with first() as source, destination(1) as there:
            source.qmp('migrate-set-capabilities', capabilities=[{'capability': name, 'state': False}])
            wait_alive(source)
            move(source, there)
            if report(source)['delta-pages'] or report(there)['delta-pages']:
                raise Failure(f'deltas were sent although {name} was off')
            finish(there)


if __name__ == '__main__':
    main()
