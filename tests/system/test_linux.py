#!/usr/bin/env python3
"""Debian's own kernel boots, works, moves and powers off.

# boots Linux
# runs alone
"""
import pathlib, re, sys, time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / 'lib'))
from vm import LONG, PATIENCE_S, Failure, Vm, linux_args, listening, main, test
from linux import healthy, wait_for_line, waiting

HOPS = 50 if LONG else 10
BEAT = r'dirtier: beat=(\d+) gap_ms=([\d.]+) written_mib=(\d+) errors=(\d+)'


def boots_and_powers_off(harts):
    begun = time.monotonic()
    with Vm(linux_args('off', harts=harts), name='guest') as vm:
        wait_for_line(vm, rf'init: .* on {harts} cpus')
        print(f'# init after {time.monotonic() - begun:.1f} s')
        if vm.wait_exit() != 0:
            raise Failure(f'code {vm.wait_exit()} after poweroff: {vm.stderr()}')
        healthy(vm)


@test
def debian_boots_to_init_on_one_hart_and_powers_off():
    boots_and_powers_off(1)


@test
def debian_boots_to_init_on_two_harts_and_powers_off():
    boots_and_powers_off(2)


def a_debian_guest_moves(**parameters):
    args = linux_args('dirtier,64,50,2')
    with Vm(args, name='source') as source, waiting(args, 'destination') as there:
        wait_for_line(source, rf'(?s)({BEAT}.*){{2}}')
        info = source.migrate(listening(there), limit_s=2 * PATIENCE_S, **parameters)
        there.wait_status('running')
        wait_for_line(there, rf'(?s)({BEAT}.*){{3}}')
        beats = [tuple(map(float, found)) for vm in (source, there) for found in re.findall(BEAT, vm.serial())]
        if any(errors for *_, errors in beats):
            raise Failure(f'pages were not as the guest wrote them: {beats}')
        numbers = [int(beat) for beat, *_ in beats]
        if numbers != sorted(set(numbers)):
            raise Failure(f'beats came out of order or twice: {numbers}')
        own = info['__org.godwit_report']
        print(f'# {info["total-time"]} ms, {info["ram"]["dirty-sync-count"]} rounds, downtime {own["downtime-ms"]:.1f} ms'
              f' (predicted {own["predicted-downtime-ms"]:.1f}), longest gap seen inside {max(b[1] for b in beats):.1f} ms')


@test
def a_debian_guest_that_writes_memory_moves_without_an_error():
    a_debian_guest_moves()


@test
def a_debian_guest_moves_over_several_channels():
    a_debian_guest_moves(channels=4)


@test
def a_debian_guest_arrives_where_its_code_is_ready_and_what_it_finds_is_right():
    """On, a list of what it runs goes ahead, and as much of that as there is time for is translated; off, nothing is. Either way every
    page is as it was written: the guest checks."""
    args = linux_args('dirtier,64,50,2')
    at = Vm(args, name='hop 0')
    try:
        wait_for_line(at, rf'(?s)({BEAT}.*){{2}}')
        for number, warm in enumerate(('on', 'off', 'on'), 1):
            there = waiting(args, f'hop {number}')
            try:
                at.migrate(listening(there), limit_s=2 * PATIENCE_S, warm_arrival=warm)
                there.wait_status('running')
                wait_for_line(there, rf'(?s)({BEAT}.*){{2}}')
            except BaseException:
                there.__exit__(*sys.exc_info())
                raise
            at.close()
            at = there
            if any(int(errors) for *_, errors in re.findall(BEAT, at.serial())):
                raise Failure(f'pages were not as the guest wrote them: {at.serial()[-300:]}')
            arrival = at.migration()['__org.godwit_report']['arrival']
            first = arrival['start'][-1]
            print(f'# {warm}: {arrival["warmed"]} of {arrival["hot-code"]} regions made ahead, {arrival["dropped"]} in vain; '
                  f'in the first 100 ms {first["translated"]} more, {first["cpu-ms"]:.1f} ms of CPU')
            if warm == 'off' and (arrival['hot-code'] or arrival['warmed']):
                raise Failure(f'code was made ahead, unasked: {arrival}')
            if warm == 'on' and (arrival['hot-code'] < 100 or arrival['dropped'] > arrival['warmed']):
                raise Failure(f'hardly any code was listed: {arrival}')
    except BaseException:
        at.__exit__(*sys.exc_info())
        raise
    at.close()


@test
def a_debian_guest_that_computes_checksums_survives_many_hops():
    """Every checksum that it prints is compared inside with the first; here, that it goes on after each hop and
    still gets random bytes from its device."""
    args = linux_args('checksum', memory='256M', more='')
    # The virtio device's driver is in the guest: its rings move with it.
    args += ['-device', 'virtio-rng-device']
    at = Vm(args, name='hop 0')
    try:
        seen = more_entropy(at)
        for number in range(1, HOPS + 1):
            there = waiting(args, f'hop {number}')
            try:
                at.migrate(listening(there), limit_s=2 * PATIENCE_S)
                there.wait_status('running')
                seen = more_entropy(there, seen)
            except BaseException:
                there.__exit__(*sys.exc_info())
                raise
            healthy(at)
            at.close()
            at = there
        more_entropy(at, seen, after=len(at.serial()))
    except BaseException:
        at.__exit__(*sys.exc_info())
        raise
    at.close()


def more_entropy(vm, seen=0, after=0):
    """The bytes from virtio-rng that the next line tells of: more than at the hop before, so it answered behind that one."""
    line = wait_for_line(vm, CHECKSUM, after=after)
    if int(line.group(1)) <= seen:
        raise Failure(f'{vm.name}: {line.group(0).strip()} after {seen} bytes: nothing came from virtio-rng')
    return int(line.group(1))


CHECKSUM = r'checksum: round \d+ ok, hwrng (\d+)\r?\n'


if __name__ == '__main__':
    main()
