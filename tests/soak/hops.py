#!/usr/bin/env python3
"""A guest is handed on, a thousand times in a row, each time to a new process, with everything in flight: memory that checks
itself, timers, floating point registers, atomics, requests at virtio-rng (tests/guest/traveller.c); and Debian, which computes.

    make hops HOPS=1000 [DEBIAN=50] [SEED=N]

After each hop the guest says its own time and the host's. What its clock lost must lie between nothing and the pause that the
source reports: guest time stands still from the request to stop until the guest starts, the report's pause ends later, when the
source has heard of it. The digests of both ends are compared by the hand-over itself, at each hop: else it does not happen.
"""
import os, pathlib, random, sys, tempfile, time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / 'lib'))
from vm import PATIENCE_S, Failure, Skip, Vm, linux_args, listening, wait_for
from guests import BAD, arrived, check, guest, machine
from linux import healthy, wait_for_line, waiting

STATE = r'traveller mtime (\d+) rtc (\d+) within (\d+) ticks (\d+) pass (\d+) entropy (\d+)\r?\n'
CHECKSUM = r'checksum: round (\d+) ok, hwrng (\d+)\r?\n'
TICK_NS = 100  # of mtime


def state(vm):
    """What the guest says now: its time and the host's in ns, how far apart the two may have been read, and its counts."""
    after = len(vm.serial())
    vm.type('s')
    vm.wait_serial(f'{STATE}|{BAD.pattern}', after=after)
    check(vm)
    mtime, rtc, within, ticks, passes, entropy = map(int, vm.wait_serial(STATE, after=after).groups())
    return {'guest_ns': mtime * TICK_NS, 'rtc_ns': rtc, 'within_ns': within, 'counts': (ticks, passes, entropy)}


def goes_on(before, now):
    """More ticks, and more from virtio-rng, where their numbers were not lost."""
    return all(new > old for new, old in zip(now['counts'][::2], before['counts'][::2]))


class Clocks:
    """What the guest's clock lost, held against what was reported."""

    def __init__(self):
        self.lost_ms = self.reported_ms = self.worst_ms = 0.0

    def hop(self, before, now, report):
        lost_ms = ((now['rtc_ns'] - before['rtc_ns']) - (now['guest_ns'] - before['guest_ns'])) / 1e6
        read_ms = (before['within_ns'] + now['within_ns'] + 2 * TICK_NS) / 1e6
        # CLOCK_REALTIME may be slewed against the clock that guest time follows, by 500 ppm at most (adjtimex(2)).
        slew_ms = (now['rtc_ns'] - before['rtc_ns']) * 500e-6 / 1e6
        pause_ms = report['pause']['stop-ms'] + report['downtime-ms']
        if not -read_ms - slew_ms <= lost_ms <= pause_ms + read_ms + slew_ms:
            raise Failure(f'the guest lost {lost_ms:.3f} ms in a pause of {pause_ms:.3f} ms '
                          f'(clocks read within {read_ms:.3f} ms, slew {slew_ms:.3f} ms)')
        self.lost_ms += lost_ms
        self.reported_ms += pause_ms
        self.worst_ms = max(self.worst_ms, pause_ms)


def travel(hops, dice, harts=3, say=print):
    """So many hops of the traveller; returns the clocks. Transport and channels are dice's."""
    clocks, begun = Clocks(), time.monotonic()
    rng = ['-global', 'virtio-mmio.force-legacy=false', '-device', 'virtio-rng-device']
    both = machine('32M', harts=harts, more=rng)
    at = Vm(both + ['-kernel', guest('traveller'), '-append', 'mem=4M'], typing=True, name='hop 0')
    there = None
    try:
        at.wait_serial('virtio-rng at work')
        before = state(at)
        for number in range(1, hops + 1):
            with tempfile.TemporaryDirectory(prefix='godwit-hop-') as folder:
                uri = dice.choice(['tcp:127.0.0.1:0', f'unix:{folder}/road'])
                there = Vm(both + ['-incoming', uri], typing=True, name=f'hop {number}')
                report = at.migrate(listening(there), channels=dice.choice([1, 1, 2, 4]), downtime_limit=2000,
                                    compression=dice.choice(['auto', 'none', 'lz4', 'zstd']))['__org.godwit_report']
                arrived(at, there)
                now = state(there)
            clocks.hop(before, now, report)
            wait_for(f'timer and virtio-rng to go on from {now["counts"]}', lambda: goes_on(now, state(there)), alive=there.alive)
            at.close()
            at, there, before = there, None, now
            if number % 100 == 0:
                say(f'# {number} hops, {time.monotonic() - begun:.0f} s', flush=True)
        at.type('q')
        at.wait_serial(r'OK\r?\n|' + BAD.pattern)
        check(at)
        if at.wait_exit() != 0:
            raise Failure(f'ended with code {at.wait_exit()} after the guest powered off: {at.stderr()}')
    except BaseException:
        for vm in filter(None, (at, there)):
            vm.__exit__(*sys.exc_info())
        raise
    at.close()
    say(f'# {hops} hops of {harts} harts in {time.monotonic() - begun:.0f} s: the guest\'s clock lost {clocks.lost_ms:.1f} ms '
        f'in pauses of {clocks.reported_ms:.1f} ms together, {clocks.worst_ms:.1f} ms at most', flush=True)
    return clocks


def debian(hops, say=print):
    """Debian computes checksums of random bytes from virtio-rng; each is compared inside, and more come after each hop."""
    args = linux_args('checksum', memory='256M', harts=2) + ['-device', 'virtio-rng-device']
    begun, at, there = time.monotonic(), Vm(args, name='hop 0'), None
    try:
        last = tuple(map(int, wait_for_line(at, CHECKSUM).groups()))
        for number in range(1, hops + 1):
            there = waiting(args, f'hop {number}')
            at.migrate(listening(there), limit_s=2 * PATIENCE_S)
            there.wait_status('running')
            now = tuple(map(int, wait_for_line(there, CHECKSUM).groups()))
            if now <= last or now[1] <= last[1]:
                raise Failure(f'after checksum {last} came {now}')
            healthy(at)
            at.close()
            at, there, last = there, None, now
    except BaseException:
        for vm in filter(None, (at, there)):
            vm.__exit__(*sys.exc_info())
        raise
    at.close()
    say(f'# {hops} hops of Debian in {time.monotonic() - begun:.0f} s', flush=True)


def main():
    seed = int(os.environ.get('SEED') or random.randrange(2 ** 31))
    hops = int(os.environ.get('HOPS') or 1000)
    passed, failed = 0, 0
    for name, run in (('traveller', lambda: travel(hops, random.Random(seed))),
                      ('Debian', lambda: debian(int(os.environ.get('DEBIAN') or max(1, hops // 20))))):
        print(f'# SEED={seed} {name}', flush=True)
        try:
            run()
            passed += 1
            print(f'ok {name}', flush=True)
        except Skip as why:
            print(f'ok {name} # SKIP {why}', flush=True)
        except Exception as why:
            failed += 1
            print(f'not ok {name}: {why}', flush=True)
    print(f'{passed} passed, {failed} failed')
    sys.exit(1 if failed or not passed else 0)


if __name__ == '__main__':
    main()
