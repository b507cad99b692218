#!/usr/bin/env python3
"""The scenarios' combinations that are none of the cells of bench/convergence.py, once each on paper (build/bench/simulate): some minutes.

    bench/rest.py                      all of them, with 300, 100, 30 and 10 ms
    bench/rest.py --limits 30 --every 20
    bench/rest.py --list               what they are

A uniform writer's W(t) is handed to the simulator as a curve, and what a page shrinks to as a link that is as much faster. What compresses
and loads no faster than so many pages a second is a link of that rate. Combinations that are the same to it share one play: how much
of a page was written makes no difference there.
"""
import argparse, collections, itertools, math, os, pathlib, re, subprocess, sys, tempfile
from concurrent.futures import ThreadPoolExecutor

import drive, harness
from compare import lib

# Every combination is a scenario of its own.
SCENARIOS = {'MiB/s': (50, 100, 200, 400), 'over MiB': (64, 256, 1024), 'bytes a page': (4096, 8),
             'content': ('random', 'text', 'counters', 'zero', 'same'), 'Mbit/s': (100, 1000, 10000, 0), 'round trip ms': (0.1, 10, 50)}
Scenario = collections.namedtuple('Scenario', 'rate set bytes content link rtt')
# About what the codec makes of a page, and how many Mbit/s of pages this host's two cores clear of such content, both sides together.
SHRINKS = {'random': 1, 'text': 1.55, 'counters': 2.5, 'same': 60, 'zero': 400}
CLEARS_MBIT = {'random': 6000, 'text': 3000, 'counters': 3000, 'same': 8000, 'zero': 16000}
POINTS_MS = [1, 2, 3, 5, 10, 20, 30, 50, 100, 200, 300, 500, 1000, 2000, 3000, 5000, 10000, 20000]
# name, which, how it ended, seconds, asked, foreseen, got, rounds, MiB
PLAYED = re.compile(r'(?m)^curve +held +(moved|given up|no end)\*? +([\d.]+) +(\d+) +([\d.]+) \([^)]*\) +([\d.]+)')


def others(whole, cells):
    """The combinations that no cell is."""
    there = set()
    for cell in (whole['cells'][name] for name in cells):
        link, words = whole['links'][cell['link']], cell.get('dirtier', {})
        plain = not cell.keys() & {'parameters', 'destination_share'} and not words.keys() & {'phase', 'hot'}
        if plain and words.get('rate'):
            there.add((words['rate'] * 4096 >> 20, drive.bytes_of(words['w']) >> 20, words.get('bytes', 4096), words.get('content', 'text'),
                       link.get('rate_mbit', 0), link.get('rtt_ms', 0.1)))
    return [Scenario(*values) for values in itertools.product(*SCENARIOS.values()) if values not in there]


def text_of(scenario):
    return ', '.join(f'{value} {name}' for name, value in zip(SCENARIOS, scenario))


def clears_mbit(scenario):
    """Pages' worth that the link and the CPUs clear."""
    linked = scenario.link * SHRINKS[scenario.content] if scenario.link else math.inf
    return min(linked, CLEARS_MBIT[scenario.content])


def curve(scenario):
    """W(t) of a writer that picks pages evenly: lines of ms and pages."""
    pages, rate = scenario.set * 256, scenario.rate * 256
    return ''.join(f'{ms} {pages * (1 - math.exp(-rate * ms / 1000 / pages)):.3f}\n' for ms in POINTS_MS)


def play(scenario, limit):
    """(how it ended, got ms): with auto-converge, played for 30 s at most."""
    with tempfile.NamedTemporaryFile('w', suffix='.curve') as file:
        file.write(curve(scenario))
        file.flush()
        said = subprocess.check_output([lib.BUILD / 'bench/simulate', '--curve', file.name, '--limit', str(limit), '--still', '16',
                                        '--link', f'{clears_mbit(scenario):g}', '--rtt', str(scenario.rtt)], text=True)
    found = PLAYED.search(said)
    if not found:
        sys.exit(f'rest: bench/simulate said something else: {said}')
    return found[1], float(found[5])


def fits(scenario, limit):
    """Whether it should end: half of the writer's pace is less than what is cleared, or its set fits the limit; and round trips do."""
    cleared = clears_mbit(scenario) * 125000 / (1 << 20)
    left_ms = limit - 3 * scenario.rtt - 10
    return left_ms > 0 and (scenario.rate / 2 < 0.9 * cleared or scenario.set * 1000 / cleared < left_ms)


def main():
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument('--limits', type=lambda text: [int(word) for word in text.split(',')], default=[300, 100, 30, 10], metavar='MS,...')
    parse.add_argument('--every', type=int, default=1, metavar='N', help='only each Nth')
    parse.add_argument('--list', action='store_true')
    args = parse.parse_args()
    whole = harness.scenario([])
    scenarios = others(whole, whole['sets']['convergence']['cells'])[::args.every]
    if args.list:
        print('\n'.join(map(text_of, scenarios)))
        return 0
    if not pathlib.Path(lib.BUILD / 'bench/simulate').exists():
        sys.exit('rest: the simulator is not built: make bench-tools')
    same = {}
    for scenario in scenarios:
        same.setdefault((scenario.rate, scenario.set, clears_mbit(scenario), scenario.rtt), []).append(scenario)
    print('| asked ms | combinations | moved within 30 s | of them within the limit | worst, of it | given up by policy | neither | cannot fit, by arithmetic | should have moved and did not |\n' + '|' + '---|' * 9)
    missed = []
    for limit in args.limits:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            played = dict(zip(same, pool.map(lambda group: play(group[0], limit), same.values())))
        moved = [(scenario, played[key][1]) for key, group in same.items() if played[key][0] == 'moved' for scenario in group]
        given_up = sum(len(group) for key, group in same.items() if played[key][0] == 'given up')
        stuck = [scenario for key, group in same.items() if played[key][0] != 'moved' for scenario in group]
        late = [scenario for scenario in stuck if fits(scenario, limit)]
        missed += [(limit, scenario) for scenario in late]
        print(f'| {limit} | {len(scenarios)} | {len(moved)} | {sum(got <= limit for _, got in moved)} | '
              f'{max((got for _, got in moved), default=0) / limit:.2f} | {given_up} | {len(stuck) - given_up} | {len(stuck) - len(late)} | {len(late)} |', flush=True)
    for limit, scenario in missed:
        print(f'* {limit} ms: {text_of(scenario)}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
