#!/usr/bin/env python3
"""A sample of `make soak` and `make hops`; GODWIT_FAULTS=N makes it N times as large.

# runs alone
"""
import os, pathlib, random, sys, time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / 'lib'))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / 'soak'))
from vm import LONG, Failure, Vm, main, test
from guests import BAD, guest, machine
import hops, soak

SEED = int(os.environ.get('GODWIT_SEED', random.randrange(2 ** 31)))
TIMES = int(os.environ.get('GODWIT_FAULTS', 1))


@test
def random_migrations_of_random_guests_lose_nothing():
    run = soak.Soak(SEED, time.monotonic() + (3600 if LONG else 15 * TIMES))
    if not run.run():
        raise Failure(f'journeys {run.failures} of SEED={SEED}')


@test
def a_guest_with_everything_in_flight_is_handed_on_and_on():
    hops.travel(1000 if LONG else 5 * TIMES, random.Random(SEED))


@test
def the_same_seed_gives_the_same_schedule():
    for number in range(1, 15):
        if str(soak.journey(SEED, number)) != str(soak.journey(SEED, number)):
            raise Failure(f'journey {number} of SEED={SEED}')
        if str(soak.journey(SEED, number)) == str(soak.journey(SEED + 1, number)):
            raise Failure(f'journey {number} knows no seed')


@test
def the_traveller_sees_what_is_lost():
    """This test can fail: a page, or a sum of atomics, is spoilt, and the guest says so."""
    for key, words in ('x', 'MISMATCH memory'), ('yq', 'MISMATCH amoadd'):
        with Vm(machine('32M') + ['-kernel', guest('traveller'), '-append', 'mem=1M'], typing=True) as vm:
            hops.state(vm)
            vm.type(key)
            vm.wait_serial(words)
            if vm.wait_exit() == 0:
                raise Failure('the guest found it, and its failure code became 0')


@test
def a_clock_that_drifts_is_seen():
    """This test can fail: what a guest lost beyond the reported pause, or gained, is no hop."""
    def state(guest_ms, rtc_ms):
        return {'guest_ns': int(guest_ms * 1e6), 'rtc_ns': int(rtc_ms * 1e6), 'within_ns': 1000}
    report = {'downtime-ms': 5.0, 'pause': {'stop-ms': 1.0}}
    for lost_ms, fits in (0, True), (5.9, True), (6.2, False), (-0.2, False):
        try:
            hops.Clocks().hop(state(0, 0), state(100 - lost_ms, 100), report)
        except Failure:
            if fits:
                raise
        else:
            if not fits:
                raise Failure(f'{lost_ms} ms were lost in a pause of 6 ms, and nobody saw it')


if __name__ == '__main__':
    main()
