#!/usr/bin/env python3
"""What a move costs an idle Debian: total, STOP to RESUME (the events' own times), and what the guest felt just after.

    bench/arrive.py [--hops N] [--memory 1024M] [--road tcp|unix] [--limit MS] [--pair NAME=A,B] [--json]

One guest is booted once and handed from process to process. --pair gives a migration parameter two values in turn, so that both
meet the same guest and the same host. BEFORE=PATH in the environment is another godwit to compare with, in turn too.
"""
import argparse, json, os, pathlib, re, statistics, sys, tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / 'tests/lib'))
import vm as lib

BEAT = re.compile(r'dirtier: beat=(\d+) gap_ms=([\d.]+)')


def beats(vm):
    return [float(gap) for _, gap in BEAT.findall(vm.serial())]


def event_ms(vm, name):
    for event in vm.qmp.events:
        if event['event'] == name:
            return event['timestamp']['seconds'] * 1e3 + event['timestamp']['microseconds'] / 1e3
    return None


def times(vm, name):
    def look():
        vm.qmp('query-status')
        return event_ms(vm, name)
    return lib.wait_for(f'{name} of {vm.name}', look, alive=vm.alive)


def flat(report):
    for key, value in report.items():
        if isinstance(value, dict):
            for name, inner in flat(value):
                yield f'{key}.{name}', inner
        elif isinstance(value, list) and value and 'after-ms' in value[0]:
            for after, row in zip(('10ms', '100ms'), value):
                for name, inner in row.items():
                    yield f'{after}.{name}', inner
        elif key.endswith(('-ms', '-us')) or key in ('hot-code', 'warmed', 'dropped'):
            yield key, value


def one(source, destination, uri, parameters):
    for vm in (source, destination):
        vm.qmp.events.clear()
        if parameters:
            vm.qmp('migrate-set-parameters', **parameters)
    known = len(beats(source))
    lib.wait_for('a beat', lambda: len(beats(source)) > known, alive=source.alive)
    before = beats(source)
    info = source.migrate(uri)
    lib.wait_for('two beats', lambda: len(beats(destination)) >= 2, alive=destination.alive)
    own = info.get('__org.godwit_report', {})
    there = destination.migration().get('__org.godwit_report', {})
    row = {'total-ms': info['total-time'], 'stop-to-resume-ms': times(destination, 'RESUME') - times(source, 'STOP'),
           'gap-ms': max(beats(source)[len(before):] + beats(destination)[:1]), 'usual-gap-ms': max(before[-2:]),
           'rounds': info['ram'].get('dirty-sync-count'), 'wire-kib': info['ram']['transferred'] / 1024,
           'last-bytes': own.get('downtime-bytes')}
    row.update((key, value) for key, value in flat(own))
    row.update((f'there.{key}', value) for key, value in flat(there))
    return row


def journey(args, report):
    """Hops by name of the side; between two godwits the guest first changes over, uncounted, so that both ends are of one kind."""
    before, (name, values) = os.environ.get('BEFORE'), (args.pair.split('=') if args.pair else (None, ''))
    sides = [(v, lib.GODWIT, {name: int(v) if v.isdigit() else v}) for v in values.split(',')] if name else \
        [('before', before, {}), ('after', lib.GODWIT, {})] if before else [('all', lib.GODWIT, {})]
    start = lib.linux_args(args.run, args.memory, args.harts)
    limit = ['-global', f'migration.downtime-limit={args.limit}'] if args.limit else []
    same = start[:start.index('-kernel')] + limit
    at, here = lib.Vm(start + limit, name='hop 0', binary=sides[0][1]), sides[0][1]
    rows, number = {side: [] for side, _, _ in sides}, 0
    with tempfile.TemporaryDirectory(prefix='godwit-') as folder:
        try:
            lib.wait_for('five beats', lambda: len(beats(at)) >= 5, 300, alive=at.alive)
            for _ in range(args.hops):
                for side, binary, parameters in sides:
                    for counts in ([False, True] if here != binary else [True]):
                        number += 1
                        uri = f'unix:{folder}/{number}' if args.road == 'unix' else 'tcp:127.0.0.1:0'
                        there = lib.Vm(same + ['-incoming', uri], name=f'hop {number}', binary=binary)
                        left = at
                        try:
                            there.wait_status('inmigrate')
                            row = one(left, there, lib.listening(there), parameters)
                        finally:
                            at = there
                            left.close()
                        if counts:
                            rows[side].append(row)
                            report(side, row)
                    here = binary
        finally:
            at.close()
    return rows


def main():
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument('--hops', type=int, default=10)
    parse.add_argument('--memory', default='1024M')
    parse.add_argument('--harts', type=int, default=2)
    parse.add_argument('--road', choices=['tcp', 'unix'], default='tcp')
    parse.add_argument('--run', default='dirtier,0,0')
    parse.add_argument('--limit', type=int)
    parse.add_argument('--pair')
    parse.add_argument('--json', action='store_true')
    args = parse.parse_args()
    def report(name, row):
        if args.json:
            print(json.dumps({'side': name, **row}), flush=True)
    rows = journey(args, report)
    print(f'load {os.getloadavg()[0]:.1f}; {args.memory}, {args.road}; medians of {args.hops} hops [min .. max]')
    keys = list(dict.fromkeys(key for of in rows.values() for row in of for key in row))
    for key in [key for key in keys if 'limit' not in key]:
        cells = []
        for name, of in rows.items():
            values = [row[key] for row in of if row.get(key) is not None]
            if values and any(values):
                cells.append(f'{name} {statistics.median(values):9.2f} [{min(values):.2f} .. {max(values):.2f}]')
        if cells:
            print(f'  {key:32} ' + '   '.join(cells))


if __name__ == '__main__':
    main()
