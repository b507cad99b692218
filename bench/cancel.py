#!/usr/bin/env python3
"""How long `migrate_cancel` takes at random moments of a migration, with busy loops beside it that take the host's CPUs.

    bench/cancel.py [--cancels N] [--busy N]

answer: until the monitor has answered. runs: until the guest was seen to run, which it mostly does all the time. over: until
the migration was seen to be over, its threads ended. A client that asks every millisecond sees them. Migrations that were
completed before the cancel are counted apart.
"""
import argparse, os, pathlib, random, subprocess, sys, time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / 'tests/lib'))
from vm import Failure, Vm, listening
from guests import machine, memcheck, wait_alive

ENDS = ('cancelled', 'completed', 'failed')


def one(dice, source):
    """(milliseconds to the answer, until the guest runs, to the end; how it ended, the state that was left)"""
    with Vm(machine(harts=2, more=['-incoming', 'tcp:127.0.0.1:0']), name='destination') as there:
        source.start_migration(listening(there), max_bandwidth=dice.choice([0, 64 << 20, 16 << 20]),
                               compression=dice.choice(['none', 'lz4']), downtime_limit=300)
        time.sleep(dice.random() * dice.choice([0.02, 0.1, 0.3]))  # the moment is the input
        state = source.migration().get('status')
        begun = time.monotonic()
        source.qmp.raw('migrate_cancel')
        answered = time.monotonic()
        runs = None
        while True:
            status = source.migration().get('status')
            if not runs and source.status() == 'running':
                runs = time.monotonic()
            if status in ENDS and (runs or status != 'cancelled'):
                break
            time.sleep(0.001)
        times = [(at - begun) * 1e3 for at in (answered, runs or begun, time.monotonic())]
        return times, status, state


def main():
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument('--cancels', type=int, default=200)
    parse.add_argument('--busy', type=int, default=2)
    parse.add_argument('--seed', type=int, default=1)
    args = parse.parse_args()
    dice, found, completed = random.Random(args.seed), [], 0
    loops = [subprocess.Popen([sys.executable, '-c', 'while True: pass']) for _ in range(args.busy)]
    source = None
    try:
        while len(found) < args.cancels:
            if source is None:
                source = Vm(machine(harts=2) + memcheck('32M', 2), name='source')
                wait_alive(source)
            times, status, state = one(dice, source)
            if status == 'failed':
                raise Failure(f'a migration failed: {source.migration()}')
            if status == 'cancelled':
                found.append((*times, state))
            else:
                completed += 1
                source.close()
                source = None
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
        if source:
            source.close()
    print(f'{len(found)} cancels, {completed} came too late; {args.busy} busy loops, load {os.getloadavg()[0]:.1f}')
    for column, name in enumerate(('answer', 'runs', 'over')):
        ms = sorted(row[column] for row in found)
        parts = ', '.join(f'{share} % {ms[min(len(ms) - 1, len(ms) * share // 100)]:.1f}' for share in (50, 90, 99))
        print(f'{name:6} ms: {parts}, max {ms[-1]:.1f}; over 100 ms: {sum(value >= 100 for value in ms)}')
    for answer, runs, over, state in sorted(found, key=lambda row: row[2], reverse=True)[:5]:
        print(f'  slowest: answer {answer:.1f} ms, runs {runs:.1f} ms, over {over:.1f} ms, was {state}')


if __name__ == '__main__':
    main()
