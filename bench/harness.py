#!/usr/bin/env python3
"""Migrations of godwit and QEMU beside each other: the same guest, the same link, run by run in turn.

    bench/harness.py                                     the four key cells (make bench), then the report
    bench/harness.py --set full                          hours; begun again, it goes on where it was (make bench-full)
    bench/harness.py --cells NAME,... --configurations NAME,... --pairs 1
    bench/harness.py --list                              cells, links, configurations
    bench/harness.py --scenario MINE.json ...            more of them, from a file like bench/cells.json

Every run is a JSON line of build/results/NAME.jsonl, with all that it was made of; a run that stands there already, of the same
scenario, programs and guest, is not run again, so what was killed goes on where it was. bench/report.py makes tables and pictures of
such files. The QEMU configuration that was best in a cell (--set full finds it) is kept in bench/best.json and stands for
`best:EMULATOR`.
"""
import argparse, hashlib, json, os, pathlib, shlex, subprocess, sys, time

import compare, drive, report, watch
from compare import lib

HERE = pathlib.Path(__file__).resolve().parent
PARTS = ('emulators', 'links', 'configurations', 'cells', 'sets')


def scenario(paths):
    """All files' parts in one; a name given again replaces the earlier one."""
    whole = {part: {} for part in PARTS}
    for path in [HERE / 'cells.json', *paths]:
        try:
            read = json.loads(pathlib.Path(path).read_text())
        except (OSError, ValueError) as why:
            sys.exit(f'harness: {path}: {why}')
        for part, entries in read.items():
            if part not in whole and part != 'about':
                sys.exit(f'harness: {path}: "{part}" is none of {", ".join(PARTS)}')
            if part in whole:
                whole[part].update(entries)
    # the other QEMUs are configured as qemu-10 is, where the file does not say otherwise
    for name, entry in list(whole['configurations'].items()):
        for other in ('qemu', 'qemu-sid') if entry.get('emulator') == 'qemu-10' else ():
            whole['configurations'].setdefault(name.replace('qemu-10', other, 1), dict(entry, emulator=other))
    for name, cell in whole['cells'].items():
        missing = [key for key in ('guest', 'memory', 'link', 'limit_ms') if key not in cell]
        if missing or cell['link'] not in whole['links'] or cell['guest'] not in ('bare', 'linux'):
            sys.exit(f'harness: cell {name}: needs guest (bare or linux), memory, limit_ms, and a link of the links; '
                     f'missing: {", ".join(missing) or "none"}')
    return whole


def emulators(whole, runs):
    """{name: Emulator} of all that the runs need and that can be had here."""
    need = dict.fromkeys(whole['configurations'][name]['emulator'] for _, name, _ in runs)
    found = {}
    for name in [name for name in need if name in whole['emulators']]:
        entry = whole['emulators'][name]
        try:
            found[name] = compare.Emulator(name, entry['binary'], entry.get('args', []))
        except (OSError, KeyError, subprocess.SubprocessError) as why:
            print(f'# without {name}: {why}', file=sys.stderr)
    others = [name for name in need if name not in whole['emulators']]
    return {**found, **(compare.emulators(others) if others else {})}


def digest(*things):
    sum_of = hashlib.sha256()
    for thing in things:
        sum_of.update(thing.read_bytes() if isinstance(thing, pathlib.Path) else json.dumps(thing, sort_keys=True).encode())
    return sum_of.hexdigest()[:12]


def guest_images(cells):
    """{what: path} and {guest: digest of what it is made of}: what these cells need. A guest that cannot be had is in neither, which
    is said."""
    images, sums = {}, {}
    guests = dict.fromkeys(drive.guest_of(cell) for cell in cells)
    if 'bare' in guests:
        images['bare'] = pathlib.Path(os.environ.get('GODWIT_BENCH_GUEST', lib.BUILD / 'guest/dirtier.elf'))
        if not images['bare'].exists():
            sys.exit('harness: the bare-metal guest is not built: make guests')
        sums['bare'] = digest(images['bare'])
    linux = [guest for guest in guests if guest != 'bare']
    if linux:
        fetched = fetch(lib.TOP / 'scripts/fetch-guest')
        if not fetched:
            return images, sums
        folder, small = pathlib.Path(fetched), lib.BUILD / 'harness.cpio'
        images.update(kernel=folder / 'vmlinux', firmware=folder / 'fw_dynamic.bin')
        subprocess.run([HERE / 'pack-guest', folder, small], check=True)
        # the archive holds times; what it is made of does not
        plain = digest(images['kernel'], images['firmware'], folder / 'busybox', *sorted((HERE / 'guest').glob('*')))
        for guest in linux:
            roots = [fetch(HERE / 'fetch-programs', name) for name in guest.split('+')[1:]]
            if all(roots):
                images[guest] = pack_more(small, guest, roots)
                sums[guest] = digest(plain, *(pathlib.Path(root, 'packages') for root in roots)) if roots else plain
    return images, sums


def fetch(*command):
    """What the script fetched, or None where it could not, and said why."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        print(f'# {pathlib.Path(command[0]).name} {" ".join(command[1:])}: exit code {done.returncode}: cells that need it are left out',
              file=sys.stderr)
    return done.stdout.strip() if done.returncode == 0 else None


def pack_more(small, guest, roots):
    """The guest's archive with those of the folders behind it."""
    if not roots:
        return small
    whole, part = lib.BUILD / f'harness-{guest}.cpio', lib.BUILD / 'harness-part.cpio'
    with open(whole, 'wb') as out:
        out.write(small.read_bytes())
        for root in roots:
            subprocess.run([HERE / 'pack-guest', '--programs', root, part], check=True)
            out.write(part.read_bytes())
            part.unlink()
    return whole


class Best:
    """bench/best.json: {emulator: {cell: {configuration, date, ...}}}"""

    def __init__(self, path):
        self.path = path
        self.kept = json.loads(path.read_text()) if path.exists() else {}

    def resolve(self, name, cell, whole):
        if not name.startswith('best:'):
            return name
        emulator = name[len('best:'):]
        kept = self.kept.get(emulator, {}).get(cell, {}).get('configuration')
        started = whole['cells'][cell].get('best', 'qemu-10-multifd').replace('qemu-10', emulator, 1)
        return kept if kept in whole['configurations'] else started

    def learn(self, records):
        """What is best of these results (report.best_of), with its date, in place of what was kept for their cells."""
        self.keep(report.best_of(records))

    def keep(self, found):
        for (emulator, cell), entry in found.items():
            self.kept.setdefault(emulator, {})[cell] = entry
        new = self.path.with_name(self.path.name + '.new')
        new.write_text(json.dumps(self.kept, indent=1, sort_keys=True) + '\n')
        new.replace(self.path)


def plan(whole, args, best):
    """[(cell, configuration, repeat)] in the order in which they are run."""
    chosen = whole['sets'].get(args.set, {})
    cells = args.cells or chosen.get('cells') or list(whole['cells'])
    wanted = args.configurations or chosen.get('configurations') or ['godwit', 'best:qemu-10']
    still = [] if args.no_still else chosen.get('still', [])
    runs = []
    for repeat in range(args.pairs or chosen.get('pairs', 3)):
        for cell in cells:
            if cell not in whole['cells']:
                sys.exit(f'harness: no cell {cell}; there are {", ".join(whole["cells"])}')
            names = [best.resolve(name, cell, whole) for name in wanted]
            names = list(dict.fromkeys(names)) + (still if repeat == 0 else [])
            for name in compare.in_turn(names, repeat):
                if name not in whole['configurations']:
                    sys.exit(f'harness: no configuration {name}; there are {", ".join(whole["configurations"])}')
                runs.append((cell, name, repeat))
    return runs


def done_in(path):
    """{(cell, configuration, repeat, identity): record}"""
    found = {}
    if path.exists():
        for number, line in enumerate(path.read_text().splitlines(), 1):
            try:
                record = json.loads(line)
                found[record['cell'], record['configuration'], record['repeat'], record['identity']] = record
            except (ValueError, KeyError):
                print(f'harness: {path}:{number}: not a record, passed over', file=sys.stderr)
    return found


def keep(path, record):
    """As a line of its own, even behind one that a kill tore."""
    with open(path, 'ab+') as out:
        torn = out.tell() and os.pread(out.fileno(), 1, out.tell() - 1) != b'\n'
        out.write((b'\n' if torn else b'') + json.dumps(record).encode() + b'\n')


def line_of(record):
    """One run for people."""
    measured, text = record.get('measured', {}), f'{record["cell"]:22} {record["configuration"]:24} #{record["repeat"]} '
    if not record['success']:
        return text + f'FAILED: {record["why"]}'
    if 'total_ms' not in measured:
        return text + f'not moved; longest gap {measured["gap_ms"]:.1f} ms, {measured["pages_per_s_control"]:.0f} pages/s'
    lost = measured['lost_work_s']
    return text + (f'total {measured["total_ms"]:.0f} ms, gap {measured["gap_ms"]:.1f} (still {measured["gap_control_ms"]:.1f}), '
                   f'asked {record["asked_ms"]}, wire {measured["wire_bytes"] / 2**20:.1f} MiB, '
                   f'lost {"-" if lost is None else f"{lost:.2f}"} s, rounds {measured["rounds"]}')


def key_of(whole, cell_name, name, repeat, emulator, sums, plant):
    """What makes a run the same run: the identity is of everything that it is made of."""
    cell, configuration = whole['cells'][cell_name], whole['configurations'][name]
    program = digest(pathlib.Path(emulator.binary)) if emulator.ours else emulator.version
    made_of = [cell, configuration, whole['links'][cell['link']], program, sums[drive.guest_of(cell)], bool(plant)]
    return cell_name, name, repeat, digest(made_of)


def forget_torn_rounds(keys, done):
    """A round of a cell is run as a whole, or again: runs of different hours are no pair."""
    rounds = {}
    for key in keys:
        rounds.setdefault((key[0], key[2]), []).append(key)
    for group in rounds.values():
        there = [done[key]['date'] for key in group if key in done]
        if len(there) < len(group):
            there.append(compare.now())
        if there and not compare.one_round(there):
            for key in group:
                done.pop(key, None)


def run_all(whole, runs, args, results, command, learn):
    """Runs what has not been run; returns the records of all of them. learn() is called when a cell's round is over."""
    found = emulators(whole, runs)
    images, sums = guest_images([whole['cells'][cell] for cell in dict.fromkeys(cell for cell, _, _ in runs)])
    origin, done, records = compare.provenance(found), done_in(results), []
    origin.pop('emulators')
    keys = {}
    for cell_name, name, repeat in runs:
        emulator = found.get(whole['configurations'][name]['emulator'])
        if emulator is not None and drive.guest_of(whole['cells'][cell_name]) in sums:
            keys[cell_name, name, repeat] = key_of(whole, cell_name, name, repeat, emulator, sums, args.plant)
    forget_torn_rounds([key for key in keys.values() if whole['configurations'][key[1]].get('migrate', True)], done)
    until = time.monotonic() + args.minutes * 60 if args.minutes else None
    results.parent.mkdir(parents=True, exist_ok=True)
    for position, (cell_name, name, repeat) in enumerate(runs):
        cell, configuration = whole['cells'][cell_name], whole['configurations'][name]
        link, emulator = whole['links'][cell['link']], found.get(configuration['emulator'])
        key = keys.get((cell_name, name, repeat))
        if key is None:
            continue  # its emulator or its guest cannot be had: said already
        if key in done:
            records.append(done[key])
            continue
        if until and time.monotonic() > until:
            print(f'# {args.minutes:g} minutes are over: {len(runs) - position} of {len(runs)} runs left out; begun again, '
                  'it goes on', flush=True)
            break
        record = drive.run(emulator, configuration, cell, link, images, args.plant)
        record = {'schema': 1, 'cell': cell_name, 'configuration': name, 'repeat': repeat, 'identity': key[3],
                  'emulator': emulator.name, 'version': emulator.version, 'guest_digest': sums[drive.guest_of(cell)], **origin,
                  **record, 'harness_command': command,
                  'scenario': {'cell': cell, 'configuration': configuration, 'link': link}}
        keep(results, record)
        records.append(record)
        print(line_of(record), flush=True)
        if [(cell_name, repeat)] != [(cell, turn) for cell, _, turn in runs[position + 1:position + 2]]:
            learn()  # what ends this program later does not lose it
    return records


def list_all(whole):
    for part in PARTS:
        print(f'{part}:')
        for name, entry in whole[part].items():
            print(f'  {name:24} {json.dumps({k: v for k, v in entry.items() if k != "about"})}')


def main():
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words = lambda text: text.split(',')
    parse.add_argument('--scenario', action='append', default=[], metavar='FILE')
    parse.add_argument('--set', default='key', help='of the scenario: what is run (key)')
    parse.add_argument('--cells', type=words, metavar='NAME,...')
    parse.add_argument('--configurations', type=words, metavar='NAME,...')
    parse.add_argument('--pairs', type=int, help='how often each')
    parse.add_argument('--minutes', type=float, help='begin no run after so long')
    parse.add_argument('--hours', type=float, help='the same in hours: make bench-full BENCH_MIGRATE="--hours 2", as often as it takes')
    parse.add_argument('--results', type=pathlib.Path, help='the file of JSON lines (build/results/migrate-SET.jsonl)')
    parse.add_argument('--report', type=pathlib.Path, help='where report.html and report.md go (beside the results)')
    parse.add_argument('--no-still', action='store_true', help='without runs in which nothing moves')
    parse.add_argument('--best', type=pathlib.Path, default=HERE / 'best.json')
    parse.add_argument('--learn', action='store_true', help='keep the best configurations of all results in --best')
    parse.add_argument('--plant', action='store_true', help='spoil a word of every guest: every run must count as failed')
    parse.add_argument('--list', action='store_true')
    args = parse.parse_args()
    args.minutes = args.hours * 60 if args.hours else args.minutes
    whole, best = scenario(args.scenario), Best(args.best)
    if args.list:
        list_all(whole)
        return 0
    if args.set not in whole['sets'] and not args.cells:
        parse.error(f'no set {args.set}; there are {", ".join(whole["sets"])}')
    if not watch.RELAY.exists():
        sys.exit('harness: the relay is not built: make bench-tools')
    results = args.results or lib.BUILD / f'results/migrate-{args.set}.jsonl'
    command = shlex.join(['bench/harness.py', *sys.argv[1:]])
    learns = args.learn or whole['sets'].get(args.set, {}).get('learn')

    def learn():
        if learns and not args.plant:
            best.learn(list(done_in(results).values()))
    records = run_all(whole, plan(whole, args, best), args, results, command, learn)
    learn()
    if args.report or not args.plant:
        report.write(list(done_in(results).values()), args.report or results.with_suffix(''))
    wrong = [r for r in records if r.get('self_check', 'ok') != 'ok']
    print(f'{len(records)} runs, {sum(not r["success"] for r in records)} failed, {len(wrong)} of them because the guest\'s '
          f'memory was wrong; {results}')
    return 1 if wrong else 0


if __name__ == '__main__':
    sys.exit(main())
