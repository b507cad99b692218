#!/usr/bin/env python3
"""Tables and pictures of migrations: one page that needs nothing else, a Markdown table, and every picture as a file.

    bench/report.py FILE.jsonl... --to FOLDER      (bench/harness.py does it by itself)
    bench/report.py --compare OLD.jsonl NEW.jsonl  what became worse: exit code 1 if anything did; FILE:CONFIGURATION takes
                                                   that one's runs alone, and both stand for the same

Medians with [least .. most]; ratios are taken run by run of the same number, then their median. A run that failed stands in no
median; how many failed, and why, stands beside it.
"""
import argparse, html, json, pathlib, statistics, sys

import svg
from compare import one_round, spread

MIB = 1 << 20
# heading, format, value of a record that succeeded
COLUMNS = [
    ('total ms', '{:.0f}', lambda r: r['measured']['total_ms']),
    ('longest gap ms', '{:.1f}', lambda r: r['measured']['gap_ms']),
    ('gap before ms', '{:.1f}', lambda r: r['measured']['gap_control_ms']),
    ('pages/s before', '{:.0f}', lambda r: r['measured']['pages_per_s_control']),
    ('pause ms', '{:.1f}', lambda r: r['measured']['pause_ms']),
    ('it says ms', '{:.1f}', lambda r: r['claimed']['downtime_ms']),
    ('foretold ms', '{:.1f}', lambda r: r['predicted_ms']),
    ('rounds', '{:.0f}', lambda r: r['measured']['rounds']),
    ('wire MiB', '{:.1f}', lambda r: r['measured']['wire_bytes'] / MIB),
    ('it says MiB', '{:.1f}', lambda r: r['claimed']['wire_bytes'] / MIB),
    ('work lost s', '{:.2f}', lambda r: r['measured']['lost_work_s']),
    ('CPU s, source', '{:.2f}', lambda r: r['measured']['cpu_s']['source']['all']),
    ('CPU s, dest.', '{:.2f}', lambda r: r['measured']['cpu_s']['destination']['all']),
    ('over RAM MiB', '{:.0f}', lambda r: r['measured']['memory']['source']['over_ram_bytes'] / MIB),
]
RATIOS = [('total', lambda r: r['measured']['total_ms']), ('pause', lambda r: r['measured']['pause_ms']),
          ('gap', lambda r: r['measured']['gap_ms']), ('wire', lambda r: r['measured']['wire_bytes']),
          ('CPU', lambda r: sum(side['all'] for side in r['measured']['cpu_s'].values()))]


def moved(record):
    return record['scenario']['configuration'].get('migrate', True)


def by_cell(records):
    """{cell: {configuration: [records]}}; of runs repeated after a change only those of the newest scenario, and of a run that was
    run again the last."""
    newest = {}
    for record in records:
        newest[record['cell'], record['configuration']] = record['identity']
    cells = {}
    for record in records:
        if newest[record['cell'], record['configuration']] == record['identity']:
            group = cells.setdefault(record['cell'], {}).setdefault(record['configuration'], {})
            group[record['repeat']] = record
    return {cell: {name: list(runs.values()) for name, runs in group.items()} for cell, group in cells.items()}


def values(records, get):
    found = []
    for record in records:
        try:
            value = get(record) if record['success'] else None
        except (KeyError, TypeError):
            value = None  # not measured for this emulator
        if value is not None:
            found.append(value)
    return found


def cell_table(group):
    """Rows of text for one cell."""
    rows = [['', 'runs', 'failed', *(heading for heading, _, _ in COLUMNS)]]
    for name, records in group.items():
        if not moved(records[0]):
            continue
        row = [name, str(len(records)), str(sum(not r['success'] for r in records))]
        rows.append(row + [spread(found, form) if (found := values(records, get)) else '-' for _, form, get in COLUMNS])
    return rows


def still_rows(group):
    rows = [['not moved', 'longest gap ms', 'pages/s']]
    for name, records in group.items():
        if not moved(records[0]):
            rows.append([name, *(spread(found, form) if (found := values(records, get)) else '-' for form, get in (
                ('{:.1f}', lambda r: r['measured']['gap_ms']), ('{:.0f}', lambda r: r['measured']['pages_per_s_control'])))])
    return rows if len(rows) > 1 else []


def ratio_rows(cells):
    """Each other configuration over godwit, pair by pair: above 1 godwit is better."""
    rows = [['cell', 'against', 'pairs', *(name for name, _ in RATIOS), 'who moved: godwit, other']]
    for cell, group in cells.items():
        ours = {r['repeat']: r for r in group.get('godwit', [])}
        for name, records in group.items():
            if not moved(records[0]) or name == 'godwit' or not ours:
                continue
            pairs = [(ours[r['repeat']], r) for r in records
                     if r['repeat'] in ours and one_round([r['date'], ours[r['repeat']]['date']])]
            both = [(a, b) for a, b in pairs if a['success'] and b['success']]
            row = [cell, name, str(len(pairs))]
            for _, get in RATIOS:
                ratios = [get(b) / get(a) for a, b in both if get(a)]
                row.append(spread(ratios, '{:.2f}') if ratios else '-')
            rows.append(row + [f'{sum(a["success"] for a, _ in pairs)}, {sum(b["success"] for _, b in pairs)} of {len(pairs)}'])
    return rows


def best_of(records):
    """{(emulator, cell): which of an emulator's configurations was best there}: of those that ended well most often those that kept the
    limit (20 % and 10 ms over it are forgiven), of them the one with the least total time. godwit's are not chosen from."""
    groups, found = {}, {}
    for cell, group in by_cell(records).items():
        for name, runs in group.items():
            if moved(runs[0]) and runs[0]['emulator'].startswith('qemu'):
                groups.setdefault((runs[0]['emulator'], cell), {})[name] = runs

    def rank(runs):
        fine = [r for r in runs if r['success']]
        if not fine:
            return 0, 0, 0
        pause, total = (statistics.median(r['measured'][what] for r in fine) for what in ('pause_ms', 'total_ms'))
        return -len(fine) / len(runs), pause > fine[0]['asked_ms'] * 1.2 + 10, total

    for place, group in groups.items():
        name, runs = min(group.items(), key=lambda item: rank(item[1]))
        if rank(runs)[0] < 0:
            found[place] = {'configuration': name, 'date': max(r['date'] for r in runs)[:10], 'version': runs[-1]['version'],
                            'runs': len(runs), 'of': sorted(group), 'median_total_ms': round(rank(runs)[2]),
                            'load': round(statistics.median(r['load'] for r in runs), 1)}
    return found


def best_rows(records, cells):
    """The rows of ratios that are against the best of several configurations."""
    best = {(cell, entry['configuration']): entry for (_, cell), entry in best_of(records).items() if len(entry['of']) > 1}
    head, *rows = ratio_rows(cells)
    chosen = [[*row, f'{best[row[0], row[1]]["date"]}, of {len(best[row[0], row[1]]["of"])}'] for row in rows if (row[0], row[1]) in best]
    return [[*head, 'best since'], *chosen] if chosen else []


def losses(cells):
    """Sentences: where godwit does worse than another configuration, as plainly as where it does better."""
    found = []
    for row in ratio_rows(cells)[1:]:
        worse = [f'{name} {cell.split(" ")[0]}' for (name, _), cell in zip(RATIOS, row[3:]) if cell != '-' and float(cell.split(' ')[0]) < 0.95]
        if worse:
            found.append(f'{row[0]}: worse than {row[1]} in {", ".join(worse)} (ratio below 1)')
    return found


def failures(cells):
    return [f'{r["cell"]}, {r["configuration"]} #{r["repeat"]}: {r["why"].splitlines()[0]}' for group in cells.values()
            for records in group.values() for r in records if not r['success']]


def markdown(rows):
    if not rows:
        return ''
    lines = ['| ' + ' | '.join(row) + ' |' for row in rows]
    return '\n'.join([lines[0], '|' + '---|' * len(rows[0]), *lines[1:]]) + '\n'


def as_html(rows):
    cells = [''.join(f'<{"th" if i == 0 else "td"}>{html.escape(c)}</{"th" if i == 0 else "td"}>' for c in row) for i, row in enumerate(rows)]
    return '<table>' + ''.join(f'<tr>{row}</tr>' for row in cells) + '</table>\n' if rows else ''


# --- pictures ----------------------------------------------------------------------------------------------------------

def typical(records):
    """The run with the median total time."""
    fine = sorted((r for r in records if r['success'] and 'total_ms' in r['measured']), key=lambda r: r['measured']['total_ms'])
    return fine[len(fine) // 2] if fine else None


def timeline(cell, group):
    """Guest speed, wire and dirty rate of a typical run of each configuration, with its rounds."""
    runs = [(i, name, run) for i, (name, records) in enumerate(group.items()) if moved(records[0]) and (run := typical(records))]
    if not runs:
        return None
    end = max(run['measured']['total_ms'] for _, _, run in runs) / 1e3 + 1
    plots = [svg.Plot(f'{cell}: what the guest writes', '', 'pages/s', x_range=(-1, end)),
             svg.Plot('on the wire', '', 'MB/s', x_range=(-1, end)),
             svg.Plot('dirtied, as the emulator counts', 'seconds since the command', 'MiB/s', x_range=(-1, end))]
    for i, name, run in runs:
        line, shade = run['timeline'], svg.colour(i)
        plots[0].line([(x, y) for x, y in line['guest_pages_per_s'] if -1 <= x <= end], shade, name)
        plots[1].line([(x, y / 1e6) for x, y in line['wire_bytes_per_s']], shade, name)
        plots[2].line([(x, y * 4096 / MIB) for x, y in line['dirty_pages_per_s']], shade, name, 'step')
        for plot in plots[:2]:
            for x, count in line['rounds'][:40]:
                plot.mark(x, shade, str(count))
            plot.mark(run['measured']['total_ms'] / 1e3, shade, 'over')
    return [plot.svg() for plot in plots]


def cumulative(plot, found, shade, label, kind='step'):
    found = sorted(found)
    if found:
        points = [(found[0], 0)] + [(value, (i + 1) / len(found)) for i, value in enumerate(found)]
        plot.line(points, shade, label, kind)


def pauses(cell, group):
    plot = svg.Plot(f'{cell}: longest gap (dashed: before)', 'ms', 'share of runs', x_log=True)
    for i, (name, records) in enumerate(group.items()):
        if moved(records[0]):
            cumulative(plot, values(records, lambda r: r['measured']['gap_ms']), svg.colour(i), name)
            cumulative(plot, values(records, lambda r: r['measured']['gap_control_ms']), svg.colour(i), None, 'dash')
    asked = next(iter(group.values()))[0]['scenario']['cell']['limit_ms']
    plot.mark(asked, '#000', f'asked {asked} ms')
    return [plot.svg()] if plot.lines else None


def asked_and_got(cells):
    plot = svg.Plot('asked and got: the pause of each run, as the guest saw it', 'asked, ms', 'got, ms', x_log=True, y_log=True, height=320)
    names = list(dict.fromkeys(name for group in cells.values() for name, records in group.items() if moved(records[0])))
    for i, name in enumerate(names):
        points = [(r['asked_ms'], r['measured']['pause_ms']) for group in cells.values() for r in group.get(name, []) if r['success']]
        plot.line(points, svg.colour(i), name, 'dots')
    if not plot.lines:
        return None
    asked = [r['scenario']['cell']['limit_ms'] for group in cells.values() for records in group.values() for r in records]
    plot.line([(min(asked) / 2, min(asked) / 2), (max(asked) * 2, max(asked) * 2)], '#999', 'as asked', 'dash')
    return [plot.svg()]


def pictures(cells):
    """{file name: [svg]}"""
    found = {'asked-and-got': asked_and_got(cells)}
    for cell, group in cells.items():
        found[f'timeline-{cell}'] = timeline(cell, group)
        found[f'pauses-{cell}'] = pauses(cell, group)
    return {name: parts for name, parts in found.items() if parts}


def stacked(parts):
    """Several pictures, one below the other, as one."""
    if len(parts) == 1:
        return parts[0]
    heights = [int(part.split('height="', 1)[1].split('"')[0]) for part in parts]
    inner = [part.replace('<svg ', f'<svg y="{sum(heights[:i])}" ', 1) for i, part in enumerate(parts)]
    width = parts[0].split('width="', 1)[1].split('"')[0]
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {sum(heights)}" width="{width}" height="{sum(heights)}">\n'
            + ''.join(inner) + '</svg>\n')


# --- pages ---------------------------------------------------------------------------------------------------------------

def origin(records):
    """Sentences: what all this was made of."""
    def all_of(get):
        return ', '.join(dict.fromkeys(str(get(r)) for r in records))
    loads = [r['load'] for r in records]
    hosts = all_of(lambda r: f'{r["host"]["cpus"]} CPUs of {r["host"]["cpu"]}, kernel {r["host"]["kernel"]}')
    return [f'{min(r["date"] for r in records)} to {max(r["date"] for r in records)}, {len(records)} runs; commit '
            f'{all_of(lambda r: r["commit"])}; {all_of(lambda r: r["version"])}.',
            f'Host: {hosts}; load before a run {spread(loads, "{:.1f}")}.',
            f'Command: {all_of(lambda r: r["harness_command"])}']


def write(records, place):
    """report.html, report.md and the pictures, into the folder `place`."""
    if not records:
        return
    place = pathlib.Path(place)
    place.mkdir(parents=True, exist_ok=True)
    cells, drawn = by_cell(records), None
    drawn = pictures(cells)
    best = best_rows(records, cells)
    text = ['\n'.join(origin(records)), *(["QEMU's best configuration in each cell over godwit:", markdown(best)] if best else []), 'Others over godwit, pair by pair; above 1 godwit is better:', markdown(ratio_rows(cells))]
    page = ['<!doctype html><meta charset="utf-8"><title>Migrations, side by side</title><style>body{font:14px sans-serif;margin:2em;'
            'max-width:1400px}table{border-collapse:collapse;font-size:12px;margin:1em 0}td,th{border:1px solid #ccc;padding:2px 6px;'
            'text-align:left}</style><h1>Migrations, side by side</h1>', *(f'<p>{html.escape(s)}</p>' for s in origin(records)),
            *(["<h2>QEMU's best configuration in each cell over godwit</h2>", as_html(best)] if best else []),
            '<h2>Others over godwit, pair by pair; above 1 godwit is better</h2>', as_html(ratio_rows(cells))]
    for heading, sentences in (('Where godwit does worse', losses(cells)), ('What failed', failures(cells))):
        text += [f'{heading}: ' + ('; '.join(sentences) if sentences else 'nowhere' if 'worse' in heading else 'nothing') + '.']
        page += [f'<h2>{heading}</h2>', '<ul>' + ''.join(f'<li>{html.escape(s)}</li>' for s in sentences or ['none']) + '</ul>']
    page += drawn.get('asked-and-got', [])
    for cell, group in cells.items():
        what = next(iter(group.values()))[0]['scenario']
        about = f'{what["cell"].get("about", "")}; link {what["cell"]["link"]}, asked {what["cell"]["limit_ms"]} ms'
        text += [f'### {cell}', about, markdown(cell_table(group)), markdown(still_rows(group))]
        page += [f'<h2>{html.escape(cell)}</h2><p>{html.escape(about)}</p>', as_html(cell_table(group)), as_html(still_rows(group)),
                 *drawn.get(f'timeline-{cell}', []), *drawn.get(f'pauses-{cell}', [])]
    for name, parts in drawn.items():
        (place / f'{name}.svg').write_text(stacked(parts))
    (place / 'report.html').write_text('\n'.join(page) + '\n')
    (place / 'report.md').write_text('\n\n'.join(text) + '\n')
    print(f'# {place / "report.html"}, {place / "report.md"}')


def regressions(old, new, slack):
    """Sentences: cells and figures whose median became worse by more than the share `slack`, and by more than the spread of both."""
    found = []
    before, after = by_cell(old), by_cell(new)
    for cell, group in after.items():
        for name, records in group.items():
            earlier = before.get(cell, {}).get(name)
            if not earlier or not moved(records[0]):
                continue
            share = [sum(r['success'] for r in runs) / len(runs) for runs in (earlier, records)]
            if share[1] < share[0]:
                found.append(f'{cell}, {name}: {share[1]:.0%} of the runs moved, {share[0]:.0%} before')
            for what, get in RATIOS:
                a, b = values(earlier, get), values(records, get)
                if a and b and statistics.median(b) > statistics.median(a) * (1 + slack) and min(b) > statistics.median(a):
                    found.append(f'{cell}, {name}: {what} {spread(b)}, was {spread(a)}')
    return found


def read(path):
    """The records of FILE or FILE:CONFIGURATION; a line that a kill tore is passed over, which is said."""
    path, _, only = str(path).partition(':')
    records = []
    try:
        lines = pathlib.Path(path).read_text().splitlines()
    except OSError as why:
        sys.exit(f'report: {path}: {why}')
    for number, line in enumerate(lines, 1):
        try:
            records.append(json.loads(line))
        except ValueError:
            print(f'report: {path}:{number}: not a record, passed over', file=sys.stderr)
    if not only:
        return records
    return [dict(record, configuration='it') for record in records if record['configuration'] == only]


def main():
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument('files', nargs='+', metavar='FILE')
    parse.add_argument('--to', default='build/results/report', metavar='FOLDER')
    parse.add_argument('--compare', action='store_true', help='two files: the second against the first')
    parse.add_argument('--slack', type=float, default=0.1, help='a share that is not worth a word (0.1)')
    args = parse.parse_args()
    if not args.compare:
        write([record for path in args.files for record in read(path)], args.to)
        return 0
    if len(args.files) != 2:
        parse.error('--compare takes OLD and NEW')
    found = regressions(read(args.files[0]), read(args.files[1]), args.slack)
    print('\n'.join(found) or 'nothing became worse')
    return 1 if found else 0


if __name__ == '__main__':
    sys.exit(main())
