#!/usr/bin/env python3
"""Whether a pause keeps to what was asked of it: the key cells of docs/benchmarks.md by limits, godwit beside QEMU's best.

    bench/convergence.py                                 twelve cells, 300, 100, 30 and 10 ms, 30 times (make bench-convergence)
    bench/convergence.py --minutes 30                    as much of it as fits; begun again, it goes on where it was
    bench/convergence.py --cells NAME,... --limits 300,30 --runs 1
    bench/convergence.py --learn --limits 100            first which of QEMU's configurations is best in each cell (bench/best.json)
    bench/rest.py                                        the scenarios' other combinations, on paper

A guest is started once for some limits: each move's destination is the source of the next, with a control of its own before it, and the
guest checks all of its memory at the end. First each cell is run once with every other limit, then with the rest, then all again, in the
opposite order of emulators. Runs are JSON lines of build/results/convergence.jsonl, and a run that stands there is never run again; the
table goes beside them as Markdown, and to the screen. What each figure means: bench/README.md.
"""
import argparse, math, pathlib, shlex, subprocess, sys, time

import compare, drive, harness, verdict, watch
from compare import lib

SET = 'convergence'
DEFAULTS = {'control_s': 2, 'warm_s': 1, 'tail_s': 0.6}


def asked_cells(whole, names, limits, bound_s):
    """Adds a cell NAME/LIMIT for each to the scenario: what harness.key_of() and a record call it."""
    for name in names:
        if name not in whole['cells']:
            sys.exit(f'convergence: no cell {name}; there are {", ".join(whole["cells"])}')
        for limit in limits:
            whole['cells'][f'{name}/{limit:g}'] = {**DEFAULTS, **whole['cells'][name], 'limit_ms': limit, 'timeout_s': bound_s}


def resolve(name, cell, limit, best, whole):
    """best:EMULATOR is what was best in the cell at this limit, or at the nearest that was tried, or what the cell starts with."""
    if not name.startswith('best:'):
        return name
    emulator = name[len('best:'):]
    tried = {float(place.rpartition('/')[2]): entry['configuration'] for place, entry in best.kept.get(emulator, {}).items()
             if place.rpartition('/')[0] == cell and entry['configuration'] in whole['configurations']}
    if not tried:
        return best.resolve(name, cell, whole)
    return tried[min(tried, key=lambda other: abs(math.log(other / limit)))]


def waves(limits):
    """Every other limit, then the rest: the first half of a budget tells something of wide and of tight ones."""
    return [limits[::2], limits[1::2]] if len(limits) > 2 else [limits]


def plan(whole, cells, limits, configurations, repeats, best):
    """[(repeat, cell, configuration, limits)]: one guest each, in the order in which they are run. configurations: of a cell."""
    chains = []
    for repeat in range(repeats):
        for wave in waves(limits):
            for cell in cells:
                for name in compare.in_turn(configurations(cell), repeat):
                    wanted = {}
                    for limit in wave:
                        wanted.setdefault(resolve(name, cell, limit, best, whole), []).append(limit)
                    for configuration, asked in wanted.items():
                        if configuration not in whole['configurations']:
                            sys.exit(f'convergence: no configuration {configuration}')
                        chains.append((repeat, cell, configuration, tuple(asked)))
    return list(dict.fromkeys(chains))


def run_all(whole, chains, args, results, command):
    """Runs what has not been run, until the time is over; returns the records of all of it."""
    found = harness.emulators(whole, chains_as_runs(chains))
    images, sums = harness.guest_images([whole['cells'][cell] for cell in dict.fromkeys(cell for _, cell, _, _ in chains)])
    origin, done, records = compare.provenance(found), harness.done_in(results), []
    origin.pop('emulators')
    until = time.monotonic() + args.minutes * 60 if args.minutes else math.inf
    results.parent.mkdir(parents=True, exist_ok=True)
    left = 0
    for repeat, cell, name, limits in chains:
        configuration, link = whole['configurations'][name], whole['links'][whole['cells'][cell]['link']]
        emulator = found.get(configuration['emulator'])
        if emulator is None or drive.guest_of(whole['cells'][cell]) not in sums:
            continue  # cannot be had: said already
        keys = {limit: harness.key_of(whole, f'{cell}/{limit:g}', name, repeat, emulator, sums, args.plant) for limit in limits}
        records += [done[key] for key in keys.values() if key in done]
        wanted = [limit for limit, key in keys.items() if key not in done]
        if wanted and time.monotonic() > until:
            left += len(wanted)
            continue
        asked = [whole['cells'][f'{cell}/{limit:g}'] for limit in wanted]
        for limit, as_asked, record in zip(wanted, asked, drive.chain(emulator, configuration, asked, link, images, args.plant)):
            record = {'schema': 1, 'cell': f'{cell}/{limit:g}', 'configuration': name, 'repeat': repeat, 'identity': keys[limit][3],
                      'emulator': emulator.name, 'version': emulator.version, 'guest_digest': sums[drive.guest_of(as_asked)], **origin,
                      **record, 'asked_ms': limit, 'harness_command': command,
                      'scenario': {'cell': as_asked, 'configuration': configuration, 'link': link}}
            record['verdict'] = verdict.kind_of(record)
            harness.keep(results, record)
            records.append(record)
            print(line_of(record), flush=True)
    if left:
        print(f'# {args.minutes:g} minutes are over: {left} runs left out; begun again, it goes on', flush=True)
    return records


def chains_as_runs(chains):
    return [(cell, name, repeat) for repeat, cell, name, _ in chains]


def line_of(record):
    """One run for people."""
    text = f'{record["cell"]:22} {record["configuration"]:24} #{record["repeat"]} {record["verdict"]}'
    if not record['success']:
        return f'{text}: {record["why"].splitlines()[0]}'
    measured, foreseen = record['measured'], record['predicted_ms']
    return (f'{text}: got {verdict.got_ms(record):.1f} ms, foreseen {"-" if foreseen is None else f"{foreseen:.1f}"}, total '
            f'{measured["total_ms"]:.0f} ms, wire {measured["wire_bytes"] / verdict.MIB:.1f} MiB, lost {"-" if measured["lost_work_s"] is None else format(measured["lost_work_s"], ".2f")} s')


def learn(best, records):
    """Keeps the best configuration of each cell and limit."""
    best.keep(verdict.best_of(records))
    for emulator, kept in best.kept.items():
        for place, entry in kept.items():
            if '/' in place:
                print(f'# best {emulator} in {place}: {entry["configuration"]}, {entry["median_total_ms"]} ms')


TRACE_COLUMNS = ['trace', 'asked ms', 'pause ms', 'total s', 'best stop s', 'total of it', 'controller s', 'of it']


def replayed(folder, simulate):
    """Rows: recorded migrations beside the best moment to stop (bench/simulate --trace); none without recordings or that program."""
    files = sorted(folder.glob('*.trace'))
    if not files or not pathlib.Path(simulate).exists():
        return []
    done = subprocess.run([simulate, '--trace', *files], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f'convergence: {simulate} --trace: exit code {done.returncode}')
    rows = [line.split() for line in done.stdout.splitlines()[1:]]
    return [TRACE_COLUMNS, *([pathlib.Path(name).stem, *figures] for name, *figures in rows)]


def write(records, path, traces):
    """The tables, as Markdown."""
    if not records:
        return
    hits, both = verdict.foretold([r for r in records if r['emulator'] == 'godwit'])
    loads = compare.spread([r['load'] for r in records], '{:.1f}')
    parts = [f'{min(r["date"] for r in records)} to {max(r["date"] for r in records)}, commit '
             f'{", ".join(dict.fromkeys(str(r["commit"]) for r in records))}, {", ".join(dict.fromkeys(r["version"] for r in records))}; '
             f'load before a run {loads}. Medians [least .. most] of the runs that moved the guest.',
             harness.report.markdown(verdict.table(records)), harness.report.markdown(verdict.shares(records)),
             f'What godwit foresaw was within a quarter, or 2 ms, of what the guest got in {hits} of {both} runs.']
    if traces:
        parts += ['Recorded migrations, and what the controller would do in them today, beside the best moment to stop:', harness.report.markdown(traces)]
    told = verdict.reasons(records)
    if told:
        parts.append('What did not move the guest:\n\n' + '\n'.join(f'* {sentence}' for sentence in told))
    path.write_text('\n\n'.join(part.strip('\n') for part in parts) + '\n')
    print(path.read_text())


def options():
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words = lambda text: text.split(',')
    numbers = lambda text: [int(word) for word in text.split(',')]
    parse.add_argument('--scenario', action='append', default=[], metavar='FILE', help='cells beside those of bench/cells.json')
    parse.add_argument('--cells', type=words, metavar='NAME,...')
    parse.add_argument('--limits', type=numbers, metavar='MS,...')
    parse.add_argument('--configurations', type=words, metavar='NAME,...')
    parse.add_argument('--runs', type=int, help='of each (30)')
    parse.add_argument('--minutes', type=float, help='start no guest after so long')
    parse.add_argument('--hours', type=float, help='the same in hours')
    parse.add_argument('--bound', type=float, default=20, metavar='SECONDS', help='a move that has not ended then is cancelled (20)')
    parse.add_argument('--results', type=pathlib.Path, default=lib.BUILD / f'results/{SET}.jsonl')
    parse.add_argument('--best', type=pathlib.Path, default=harness.HERE / 'best.json')
    parse.add_argument('--learn', action='store_true', help="QEMU's candidates instead, once; keeps the best in --best")
    parse.add_argument('--plant', action='store_true', help='spoil a word of every guest: every run must count as wrong')
    args = parse.parse_args()
    args.minutes = args.hours * 60 if args.hours else args.minutes
    return args


def main():
    args = options()
    whole, best = harness.scenario(args.scenario), harness.Best(args.best)
    chosen = whole['sets'][SET]
    cells, limits = args.cells or chosen['cells'], args.limits or chosen['limits_ms']
    asked_cells(whole, cells, limits, args.bound)
    if not watch.RELAY.exists():
        sys.exit('convergence: the relay is not built: make bench-tools')

    def wanted(cell):
        candidates = whole['cells'][cell].get('candidates', chosen['candidates']) if args.learn else None
        return args.configurations or candidates or chosen['configurations']
    results = args.results.with_suffix('.learn.jsonl') if args.learn else args.results
    chains = plan(whole, cells, limits, wanted, args.runs or (1 if args.learn else chosen['pairs']), best)
    records = run_all(whole, chains, args, results, shlex.join(['bench/convergence.py', *sys.argv[1:]]))
    if args.learn and not args.plant:
        learn(best, records)
    write(records, results.with_suffix('.md'), replayed(harness.HERE / 'traces', lib.BUILD / 'bench/simulate'))
    wrong = [record for record in records if record['verdict'] == 'wrong memory']
    print(f'{len(records)} runs, {len(wrong)} of guests whose memory was wrong; {results}')
    return 1 if wrong else 0


if __name__ == '__main__':
    sys.exit(main())
