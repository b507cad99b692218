#!/usr/bin/env python3
"""The execution engine beside QEMU: godwit, the QEMU installed here and the one of bench/fetch-qemu, pair by pair in one run.

    bench/cpu.py                                          the whole table (make bench-cpu)
    bench/cpu.py --only int,float --pairs 1               some groups, or rows as GROUP:ROW[:ROW...]
    bench/cpu.py --only int:crc --emulators godwit --ms 5000      one row for long: to profile
    bench/cpu.py --command int:crc                        prints godwit's command line for that instead

Guest programs (bench/guest) measure themselves by the guest's clock; a row whose time by the host's clock differs is marked, as
is one whose checksum is not that of the others. --time best is for hosts that
have other work. One JSON line a figure goes to build/results/, the first line says what of.
"""
import argparse, collections, json, math, os, pathlib, re, shlex, statistics, subprocess, sys, tempfile, threading, time

import boot, compare
from compare import lib

# The goal is for the ratio: how many times faster than the better QEMU (or how many times less of it).
Group = collections.namedtuple('Group', 'goal harts image program about')
GROUPS = {
    'int': Group(2.5, 1, 'small', 'int', 'integer kernels'),
    'float': Group(5.0, 1, 'small', 'float', 'floating point'),
    'sys': Group(1.3, 1, 'small', 'sys', "the kernel's work"),
    'copy': Group(1.5, 1, 'small', 'copy', 'memory moved, filled, searched by the C library'),
    'rewrite': Group(1.0, 1, 'small', 'rewrite', 'code that rewrites itself'),
    'amo': Group(1.0, 1, 'small', 'amo:amoadd:amoswap:lr/sc', 'atomics, one hart'),
    'late': Group(1.0, 1, 'small', 'late', 'how late a timer is heard of'),
    'busybox': Group(1.3, 1, 'small', 'busybox', 'busybox (goal: the better of QEMU and RVVM)'),
    'amo2': Group(1.0, 2, 'small', 'amo:amoadd-2-apart:amoadd-2-same:lr/sc-2-apart:lr/sc-2-same', 'atomics, two harts'),
    'smp': Group(1.9, 2, 'small', 'smp', 'two harts against one: goal for the value itself'),
    'smp3': Group(2.8, 3, 'small', 'smp:mix:chase', 'three harts against one'),
    'smp4': Group(3.7, 4, 'small', 'smp:mix:chase', 'four harts against one'),
    'real': Group(1.5, 1, 'real', 'real', "Debian's programs (goal: each; their median 2)"),
    'boot': Group(2.5, 1, 'small', None, 'Debian boot to ready'),
    'memory': Group(1 / 0.3, 1, 'small', None, 'memory over guest RAM, at the ready prompt'),
    'dirty': Group(None, 1, None, None, 'what tracking costs a store (bench_dirty)'),
}
SMP = ('smp', 'smp3', 'smp4')
MORE_IS_BETTER = ('B/s', '/s', 'MIPS', 'x')
MEMORY = {'small': '512M', 'real': '1G'}
OURS = ('jit', 'godwit', 'interp')  # the first there is stands in the table
# Host against guest: a share, and what a busy host may take to look at a line: of one row, of all rows of a boot.
CLOCK_SLACK, CLOCK_SLACK_ROW_S, CLOCK_SLACK_BOOT_S = 0.05, 1.0, 0.3
BOOT_LIMIT_S = 1800
TIMES = {'guest': "the guest's clock", 'cpu': 'CPU time of the emulator',
         'best': 'the fastest 4 ms of kernels, CPU time of the emulator for programs'}


class StampedLine(lib.Line):
    """A serial line whose lines carry the host's time and the CPU time of the emulator when they came."""

    def __init__(self, path, record):
        self.lines, self.pid, self.news = [], None, threading.Condition()
        super().__init__(path, record)

    def _read(self):
        rest = b''
        try:
            self.peer, _ = self.listener.accept()
            self.ready.set()
            while data := self.peer.recv(65536):
                now, cpu_s = time.monotonic(), cpu_seconds(self.pid) if self.pid else 0
                self.record.write(data)
                *lines, rest = (rest + data).split(b'\n')
                with self.news:
                    self.lines += [(now, cpu_s, line.decode(errors='replace').strip('\r')) for line in lines]
                    self.news.notify_all()
        except OSError:
            pass
        with self.news:
            self.lines.append((time.monotonic(), 0, None))
            self.news.notify_all()

    def wait(self, text, limit_s):
        """The stamp of the first line that begins with it; None when the line ended before."""
        until = time.monotonic() + limit_s
        with self.news:
            while True:
                for stamp in self.lines:
                    if stamp[2] is None or stamp[2].startswith(text):
                        return stamp if stamp[2] else None
                if time.monotonic() > until:
                    raise lib.Failure(f'waited {limit_s} s for "{text}" on the serial line')
                self.news.wait(1)


def cpu_seconds(pid):
    """CPU time of all threads of a process: the kernel's clock id for it is made of the process id (CPUCLOCK_SCHED)."""
    try:
        return time.clock_gettime(~pid << 3 | 2)
    except OSError:
        return 0


def images(groups, place):
    """(folder of kernel and firmware, {image: path}): what the groups need, packed into the build folder.

    Where Debian's programs cannot be fetched, their group is taken out of `groups`, and that is said.
    """
    folder = pathlib.Path(subprocess.check_output([lib.TOP / 'scripts/fetch-guest'], text=True).strip())
    paths = {'small': place / 'bench.cpio'}
    subprocess.run([lib.TOP / 'bench/pack-guest', folder, paths['small']], check=True)
    if any(GROUPS[g].image == 'real' for g in groups):
        fetch = subprocess.run([lib.TOP / 'bench/fetch-programs'], stdout=subprocess.PIPE, text=True)
        if fetch.returncode:
            print('# without real: there are no programs to run', file=sys.stderr)
            del groups['real']
            return folder, paths
        programs = fetch.stdout.strip()
        archive = place / 'programs.cpio'
        subprocess.run([lib.TOP / 'bench/pack-guest', '--programs', programs, archive], check=True)
        paths['real'] = place / 'bench-real.cpio'
        with open(paths['real'], 'wb') as both:
            for part in (paths['small'], archive):
                both.write(part.read_bytes())
        archive.unlink()
    return folder, paths


def guest_args(emulator, guest, image, harts, run, ms, more=''):
    folder, paths = guest
    return [*emulator.args, '-m', MEMORY[image], '-smp', harts, '-bios', folder / 'fw_dynamic.bin', '-kernel', folder / 'vmlinux',
            '-initrd', paths[image], '-append', f'console=ttyS0 quiet bench.ms={ms} bench.run={run} {more}'.strip()]


class Guest:
    """One boot of one emulator."""

    def __init__(self, emulator, args):
        self.folder = tempfile.TemporaryDirectory(prefix='godwit-bench-')
        path = pathlib.Path(self.folder.name)
        self.line = StampedLine(path / 'line', path / 'record')
        self.begun = time.monotonic()
        self.vm = lib.Vm(args, binary=emulator.binary, name=emulator.name, qmp=False, serial=['-serial', f'unix:{path / "line"}'])
        self.line.pid = self.vm.process.pid

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.vm.close()
        self.line.close()
        self.folder.cleanup()

    def done(self):
        if not self.line.wait('init: done', BOOT_LIMIT_S):
            self.vm.wait_exit(60)
            said = [line for _, _, line in self.line.lines if line]
            raise lib.Failure(f'ended with code {self.vm.process.returncode} before its work: {self.vm.stderr().strip()[-300:]} '
                              f'serial line: {" | ".join(said[-3:])}')


def clock_lies(guest_s, host_s, slack_s):
    return abs(guest_s - host_s) > CLOCK_SLACK * host_s + slack_s


def read_rows(lines):
    """The figures between BEGIN and BENCH, or what went wrong instead."""
    rows, begun = [], {}
    for host, cpu, line in lines:
        words = (line or '').split()
        if words[:1] == ['BEGIN'] and len(words) == 2:
            begun[words[1]] = host, cpu
        elif words[:1] == ['BENCH'] and len(words) == 8 and words[1] in begun:
            at, cpu_at = begun.pop(words[1])
            row = {'row': words[1], 'value': float(words[2]), 'unit': words[3], 'best': float(words[7]) or None,
                   'checksum': words[4], 'guest_s': int(words[5]) / 1e9, 'host_s': round(host - at, 4), 'cpu_s': round(cpu - cpu_at, 2)}
            if clock_lies(row['guest_s'], row['host_s'], CLOCK_SLACK_ROW_S):
                row['wrong'] = f'the guest\'s clock says {row["guest_s"]:.2f} s, the host\'s {row["host_s"]:.2f} s'
            rows.append(row)
        elif words[:1] in (['WRONG'], ['FAILED']):
            name = words[1].rstrip(':') if len(words) > 1 else '?'
            begun.pop(name, None)
            rows.append({'row': name, 'wrong': line})
    return rows + [{'row': name, 'wrong': 'did not end'} for name in begun]


def run_programs(emulator, guest, harts, image, wanted, ms):
    """One boot that runs several groups' programs. wanted: {group: program}."""
    run = ','.join(f'mark:{group},{program}' for group, program in wanted.items())
    with Guest(emulator, guest_args(emulator, guest, image, harts, run, ms)) as one:
        failure = None
        try:
            one.done()
        except lib.Failure as why:
            failure = str(why)
        rows, group, part = [], None, []
        for stamp in one.line.lines + [(0, 0, 'MARK')]:
            if (stamp[2] or '').startswith('MARK'):
                rows += [{'group': group, **row} for row in read_rows(part)] if group else []
                group, part = stamp[2][5:], []
            else:
                part.append(stamp)
    guest_s, host_s = (sum(row.get(key, 0) for row in rows) for key in ('guest_s', 'host_s'))
    if clock_lies(guest_s, host_s, CLOCK_SLACK_BOOT_S):
        rows.append({'group': list(wanted)[0], 'row': 'clock', 'wrong':
                     f'over all rows of a boot the guest\'s clock says {guest_s:.2f} s, the host\'s {host_s:.2f} s'})
    if failure:
        print(f'# {emulator.name}: {failure}', file=sys.stderr)
        rows.append({'group': list(wanted)[-1], 'row': 'boot', 'wrong': failure})
    return rows


def run_boot(emulator, _):
    to_init_s, cpu_s = boot.boot(emulator, 1)
    return [{'group': 'boot', 'row': 'start to init', 'value': to_init_s, 'unit': 's'},
            {'group': 'boot', 'row': 'to power-off, CPU', 'value': cpu_s, 'unit': 's'}]


def memory_over_ram(pid, ram_bytes):
    """(kB resident, of them guest RAM): guest RAM is the writable mapping of its size, give or take alignment.

    Pss, in which a page that is mapped twice, as generated code is, counts once."""
    best, total, header = None, 0, None
    for line in pathlib.Path(f'/proc/{pid}/smaps').read_text().splitlines():
        found = re.match(r'([0-9a-f]+)-([0-9a-f]+) (\S+) ', line)
        if found:
            header = int(found.group(2), 16) - int(found.group(1), 16), found.group(3)
        elif line.startswith('Pss:'):
            kb = int(line.split()[1])
            total += kb
            size, rights = header
            if rights.startswith('rw-') and ram_bytes <= size < ram_bytes * 1.5 and (best is None or kb > best):
                best = kb
    if best is None:
        raise lib.Failure('no mapping of the size of guest RAM')
    return total, best


def run_memory(emulator, guest):
    with Guest(emulator, guest_args(emulator, guest, 'small', 1, '', 1, 'bench.idle')) as one:
        one.done()
        total, ram = memory_over_ram(one.vm.process.pid, 512 << 20)
    return [{'group': 'memory', 'row': 'resident', 'value': (total - ram) / 1024, 'unit': 'MiB', 'total_mib': total / 1024}]


def run_dirty(pairs):
    """bench_dirty's own pairs: the cost of tracking, in per cent of a store."""
    subprocess.run(['make', '-s', '-C', lib.TOP, f'BUILD={lib.BUILD}', 'bench-tools'], check=True, stdout=subprocess.DEVNULL)
    text = subprocess.check_output([lib.BUILD / 'bench/bench_dirty', str(max(pairs, 3))], text=True)
    rows = []
    for line in text.splitlines():
        found = re.match(r'(\S.*?)  +(\S.*?) +([\d.]+) +([\d.]+) +([+-][\d.]+)% ', line)
        if found:
            rows.append({'group': 'dirty', 'row': f'{found.group(1)}: {found.group(2)}', 'value': float(found.group(5)),
                         'unit': '%', 'off_ns': float(found.group(3)), 'on_ns': float(found.group(4))})
    return rows


def boots_of(groups):
    """Groups that can share a boot, together: [(harts, image, {group: program})]."""
    shared = {}
    for group, program in groups.items():
        if program:
            shared.setdefault((GROUPS[group].harts, GROUPS[group].image), {})[group] = program
    return [(harts, image, wanted) for (harts, image), wanted in shared.items()]


def measure(found, groups, guest, args, keep):
    for pair in range(args.pairs):
        for emulator in compare.in_turn(found.values(), pair):
            if emulator.name == 'interp' and 'jit' in found and pair > 0 and not args.all_pairs:
                continue  # one look at it is enough beside the engine that the table is about
            for harts, image, wanted in boots_of(groups):
                keep(pair, emulator.name, run_programs(emulator, guest, harts, image, wanted, args.ms))
            for group, run in (('boot', run_boot), ('memory', run_memory)):
                if group in groups:
                    try:
                        keep(pair, emulator.name, run(emulator, guest))
                    except lib.Failure as why:
                        keep(pair, emulator.name, [{'group': group, 'row': group, 'wrong': str(why)}])
    if 'dirty' in groups:
        keep(0, [name for name in OURS if name in found][0], run_dirty(args.pairs))


def value_of(record, by):
    """A row's figure: as the guest felt it, or scaled to the CPU time that the emulator had meanwhile."""
    if by == 'guest' or record['group'] in (*SMP, 'boot', 'memory', 'dirty'):
        return record['value']
    if by == 'best' and record['best']:
        return record['best']
    share = record['cpu_s'] / record['host_s'] / GROUPS[record['group']].harts
    return record['value'] / share if record['unit'] in MORE_IS_BETTER else record['value'] * share


def show_value(values, unit):
    for limit, divisor, name in ((1e6, 1e6, {'ns': 'ms', 'B/s': 'MB/s'}), (1e3, 1e3, {'ns': 'us', 'B/s': 'kB/s'})):
        if unit in name and statistics.median(values) >= limit:
            return compare.spread([v / divisor for v in values]) + ' ' + name[unit]
    return compare.spread(values) + ' ' + unit


def smp_goal(group):
    """Harts beyond the host's CPUs add nothing."""
    return min(GROUPS[group].goal, 0.95 * len(os.sched_getaffinity(0)))


def dirty_line(row, cost):
    goal = 1 if row.endswith('no harvest') else 3 if row.endswith(('100 ms', '10 ms')) else None
    return f'  {row:52}{cost:+6.1f} %' + (f'{"goal":>42}{goal:>5} %   {"ok" if cost <= goal else "below"}' if goal else '')


def table(records, found, groups, by):
    """Prints the rows; returns [(group, row, ratio, goal)] of those that can be held against a QEMU."""
    rows, notes = {}, []
    for record in records:
        key = record['group'], record['row']
        if 'wrong' in record:
            notes.append(f'{record["emulator"]}, pair {record["pair"]}, {key[0]} {key[1]}: {record["wrong"]}')
        if 'value' in record:
            rows.setdefault(key, {}).setdefault(record['emulator'], {})[record['pair']] = record
    main = [name for name in OURS if name in found][:1]
    names = main + [name for name in found if name not in main]
    print(f'{"":24}' + ''.join(f'{name:30}' for name in names) + f'{"faster than QEMU":24}{"goal":>7}')
    ratios, group_now = [], None
    for (group, row), by_name in sorted(rows.items(), key=lambda item: list(GROUPS).index(item[0][0])):
        if group != group_now:
            print(f'{group}: {GROUPS[group].about}')
            group_now = group
        unit = next(iter(next(iter(by_name.values())).values()))['unit']
        values = {name: {pair: value_of(r, by) for pair, r in pairs.items()} for name, pairs in by_name.items()}
        sums = {r['checksum'] for pairs in by_name.values() for r in pairs.values() if 'checksum' in r}
        if len(sums) > 1:
            notes.append(f'{group} {row}: the emulators\' checksums differ: ' + ', '.join(
                f'{name} {r["checksum"]}' for name, pairs in by_name.items() for r in list(pairs.values())[:1]))
        if group == 'dirty':
            print(dirty_line(row, statistics.median(next(iter(values.values())).values())))
            continue
        line = f'  {row:22}' + ''.join(f'{show_value(list(values[n].values()), unit) if n in values else "-":30}' for n in names)
        verdict = ''
        if group in SMP:
            if main and main[0] in values:
                ours, goal = statistics.median(values[main[0]].values()), smp_goal(group)
                verdict = f'{"":24}{goal:>6.2f}x  {"ok" if ours >= goal else "below"}'
        else:
            found_ratio = ratio(values, main, unit, ('qemu', 'rvvm') if 'RVVM' in GROUPS[group].about else ('qemu',))
            if found_ratio:
                middle = statistics.median(found_ratio)
                ratios.append((group, row, middle, GROUPS[group].goal))
                verdict = f'{compare.spread(found_ratio, "{:.2f}") + "x":24}{GROUPS[group].goal:>6.2f}x  ' + (
                    'ok' if middle >= GROUPS[group].goal else 'below' if middle >= 1 else 'BELOW 1')
        print((line + verdict).rstrip())
    for note in notes:
        print(f'WRONG: {note}')
    return ratios, notes


def ratio(values, main, unit, rivals):
    """How many times better than the better QEMU (or other rival) ours is, one a pair; empty where one of them is missing."""
    others = [name for name in values if name.startswith(rivals)]
    if not main or main[0] not in values or not others:
        return []
    more = unit in MORE_IS_BETTER
    best = (max if more else min)(others, key=lambda name: statistics.median(values[name].values()))
    ours = values[main[0]]
    return [ours[p] / values[best][p] if more else values[best][p] / ours[p] for p in ours if p in values[best] and ours[p]]


def summary(ratios, groups):
    def mean(some):
        return math.exp(statistics.fmean(math.log(r) for r in some))

    speed = [(group, r) for group, _, r, _ in ratios if group != 'memory']
    for group in groups:
        mine = [r for g, r in speed if g == group]
        if len(mine) > 1:
            print(f'{group}: geometric mean {mean(mine):.2f}x, median {statistics.median(mine):.2f}x, least {min(mine):.2f}x')
    if speed:
        below = sum(r < 1 for _, r in speed)
        print(f'all {len(speed)} rows of speed: geometric mean {mean([r for _, r in speed]):.2f}x (goal 1.50x), '
              f'{below} below 1x (goal 0), {sum(r >= goal for _, _, r, goal in ratios)} of {len(ratios)} goals met')


def groups_of(text):
    """{group: program line} of --only's `GROUP[:ROW...]` list; unknown names end the program."""
    wanted = {}
    for part in (text or ','.join(GROUPS)).split(','):
        group, *rows = part.split(':')
        if group not in GROUPS:
            sys.exit(f'cpu.py: no group {group}; there are {" ".join(GROUPS)}')
        program = GROUPS[group].program
        wanted[group] = ':'.join([program.split(':')[0], *rows]) if rows and program else program
    return wanted


def main():
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument('--only', metavar='GROUP[:ROW...][,...]', help=' '.join(GROUPS))
    parse.add_argument('--pairs', type=int, default=3)
    parse.add_argument('--emulators', metavar='NAME,...', help='jit interp godwit qemu qemu-10 rvvm')
    parse.add_argument('--ms', type=int, default=400, help='the least time of a row (400)')
    parse.add_argument('--time', choices=TIMES, default='guest', help='; '.join(f'{n}: {t}' for n, t in TIMES.items()))
    parse.add_argument('--all-pairs', action='store_true', help='interp in every pair, not only the first')
    parse.add_argument('--command', metavar='GROUP[:ROW...]', help='only print the command line of that boot')
    args = parse.parse_args()
    if args.pairs < 1 or args.ms < 1:
        parse.error('--pairs and --ms are at least 1')
    groups = groups_of(args.command or args.only)
    found = compare.emulators((args.emulators or 'godwit').split(',') if args.command or args.emulators else None)
    if not found:
        sys.exit('cpu.py: no emulator to run')
    # A run's guests are its own: another run, or an edit meanwhile, does not change them.
    place = tempfile.TemporaryDirectory(prefix='bench-', dir=lib.BUILD) if not args.command else None
    guest = images(groups, pathlib.Path(place.name) if place else lib.BUILD)
    if 'boot' in groups:
        lib.linux_guest()  # packed before a clock runs
    if args.command:
        if not boots_of(groups):
            parse.error(f'{args.command} is measured from outside, there is no command line for it')
        (harts, image, wanted), emulator = boots_of(groups)[0], next(iter(found.values()))
        command = [emulator.binary, '-M', 'virt', '-nographic',
                   *guest_args(emulator, guest, image, harts, ','.join(wanted.values()), args.ms)]
        print(shlex.join(str(word) for word in command))
        return 0
    begun, records = time.monotonic(), []
    origin = compare.provenance(found)
    path = lib.BUILD / 'results' / f'bench-cpu-{origin["date"].replace(":", "")[:17]}.jsonl'
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, 'w') as out:
        out.write(json.dumps({**origin, 'command': shlex.join(sys.argv)}) + '\n')

        def keep(pair, name, rows):
            for row in rows:
                records.append({'pair': pair, 'emulator': name, **row})
                out.write(json.dumps(records[-1]) + '\n')
            out.flush()
            print(f'# {time.monotonic() - begun:4.0f} s: pair {pair + 1}, {name}: {len(rows)} rows', file=sys.stderr)

        measure(found, groups, guest, args, keep)
    print(f'{origin["date"]} {origin["commit"]}, {origin["host"]["cpus"]} x {origin["host"]["cpu"]}, {args.pairs} pairs, '
          f'load {origin["host"]["load"]} .. {os.getloadavg()[0]:.2f}; '
          + TIMES[args.time] + ', medians [min .. max]')
    for emulator in found.values():
        print(f'  {emulator.name}: {emulator.version} {" ".join(emulator.args)}'.rstrip())
    ratios, notes = table(records, found, groups, args.time)
    summary(ratios, groups)
    busy = [r['cpu_s'] / r['host_s'] for r in records if r.get('host_s') and GROUPS[r['group']].harts == 1]
    if busy and statistics.median(busy) < 0.9 and args.time == 'guest':
        print(f'the host was busy: the emulators had {statistics.median(busy):.0%} of a CPU; --time best may say more')
    print(f'{time.monotonic() - begun:.0f} s; figures: {path}')
    return 1 if notes else 0


if __name__ == '__main__':
    try:
        sys.exit(main())
    except lib.Skip as why:
        sys.exit(f'cpu.py: {why}')
    except subprocess.CalledProcessError as why:
        sys.exit(f'cpu.py: {why}')
    except KeyboardInterrupt:
        sys.exit(130)
