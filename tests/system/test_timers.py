#!/usr/bin/env python3
"""Sleeping guests move: timers are part of the state, and a hart that sleeps here wakes there, not early, in order."""
import pathlib, re, sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / 'lib'))
from vm import LONG, Failure, Vm, listening, main, test, wait_for
from guests import AUDIT, BAD, arrived, audited, check, guest, machine

HOPS = 50 if LONG else 5


def sleeper(more=''):
    return ['-kernel', guest('sleeper'), '-append', more]


def ticks(text):
    """{hart: [numbers]} as printed."""
    found = {}
    for number, hart in re.findall(r'tick (\d+) hart (\d+)\r?\n', text):
        found.setdefault(int(hart), []).append(int(number))
    return found


def wait_tick_of_each(vm, harts, more=1):
    before = len(vm.serial())
    wait_for(f'{more} ticks of every hart in {vm.name}',
             lambda: BAD.search(vm.serial()) or
             all(len(ticks(vm.serial()[before:]).get(hart, [])) >= more for hart in range(harts)), alive=vm.alive)
    check(vm)


def finish(vm):
    vm.type('q')
    vm.wait_serial(r'OK\r?\n|' + BAD.pattern)
    check(vm)
    if vm.wait_exit() != 0:
        raise Failure(f'ended with code {vm.wait_exit()}')


def in_order(text, harts):
    """Every hart's ticks are 1, 2, 3, ... with none lost and none twice, over all processes."""
    for hart in range(harts):
        seen = ticks(text).get(hart, [])
        if seen != list(range(1, len(seen) + 1)):
            raise Failure(f'hart {hart} ticked {seen}')
        if len(seen) < 2:
            raise Failure(f'hart {hart} ticked {len(seen)} times')


def journey(harts, hops, period_ms):
    everything, at = '', Vm(machine(harts=harts, more=AUDIT) + sleeper(f'period_ms={period_ms}'), typing=True, name='hop 0')
    try:
        wait_tick_of_each(at, harts)
        for number in range(1, hops + 1):
            there = Vm(machine(harts=harts, more=[*AUDIT, '-incoming', 'tcp:127.0.0.1:0']), typing=True, name=f'hop {number}')
            try:
                at.migrate(listening(there))
                arrived(at, there)
                audited(at)
                wait_tick_of_each(there, harts)
            except BaseException:
                there.__exit__(*sys.exc_info())
                raise
            everything += at.serial()
            at.close()
            at = there
        finish(at)
        in_order(everything + at.serial(), harts)
    except BaseException:
        at.__exit__(*sys.exc_info())
        raise
    at.close()


@test
def a_hart_that_sleeps_wakes_at_the_destination():
    journey(harts=1, hops=HOPS, period_ms=200)


@test
def four_harts_that_sleep_wake_at_the_destination():
    """Machine timers, and the supervisor timer of the last hart."""
    journey(harts=4, hops=HOPS, period_ms=200)


@test
def short_naps_survive_hops():
    journey(harts=2, hops=HOPS, period_ms=5)


@test
def a_guest_all_asleep_moves_in_one_round_or_two():
    """Nothing is dirtied while everybody sleeps for a long time."""
    with Vm(machine(harts=4) + sleeper('period_ms=3000'), typing=True, name='source') as source, \
            Vm(machine(harts=4, more=['-incoming', 'tcp:127.0.0.1:0']), typing=True, name='destination') as there:
        source.wait_serial('hart 3 sleeps')
        info = source.migrate(listening(there))
        arrived(source, there)
        if info['ram']['dirty-sync-count'] > 2:
            raise Failure(f'a guest that sleeps took {info["ram"]["dirty-sync-count"]} rounds')
        wait_tick_of_each(there, 4)
        in_order_from(source.serial() + there.serial(), 4)
        finish(there)


def in_order_from(text, harts):
    for hart in range(harts):
        seen = ticks(text).get(hart, [])
        if not seen or seen != list(range(seen[0], seen[0] + len(seen))):
            raise Failure(f'hart {hart} ticked {seen}')


@test
def guest_time_stands_still_while_the_guest_is_stopped():
    """Ten ticks of 50 ms are due; the guest is stopped for a while in between, and none comes at once or is lost."""
    with Vm(machine() + sleeper('period_ms=50'), typing=True, name='guest') as vm:
        wait_tick_of_each(vm, 1, 2)
        for _ in range(3):
            vm.qmp('stop')
            length = len(vm.serial())
            vm.wait_status('paused')
            text = wait_still(vm, length)
            vm.qmp('cont')
            wait_tick_of_each(vm, 1, 2)
            if not vm.serial().startswith(text):
                raise Failure('the past changed')
        finish(vm)
        in_order(vm.serial(), 1)


def wait_still(vm, length):
    """What was on its way when the guest stopped arrives; the text when two looks agree."""
    last = [None]
    def look():
        text = vm.serial()
        same, last[0] = text == last[0], text
        return same
    wait_for('a silent serial line', look, every_s=0.2)
    return last[0]


@test
def a_saved_guest_sleeps_on_when_it_is_loaded():
    with Vm(machine(harts=2) + sleeper('period_ms=300'), typing=True, name='source') as source:
        wait_tick_of_each(source, 2)
        path = source.folder / 'saved'
        source.migrate(f'file:{path}')
        for number in range(2):
            with Vm(machine(harts=2, more=['-incoming', f'file:{path}']), typing=True, name=f'copy {number}') as copy:
                copy.wait_status('running')
                wait_tick_of_each(copy, 2)
                in_order(source.serial() + copy.serial(), 2)
                finish(copy)


if __name__ == '__main__':
    main()
