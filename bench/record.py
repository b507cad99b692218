#!/usr/bin/env python3
"""Record the slices of a real migration as a trace, for `simulate --trace` to replay: one run of a cell of bench/cells.json.

    bench/record.py CELL CONFIGURATION TRACE [--scenario FILE]

A slice is what godwit says of itself every 20 ms or so: how much was sent, and how much is dirty. bench/README.md has the format.
Fails when the migration does: a trace ends with a pause.
"""
import argparse, pathlib, sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import drive, harness

FIELDS = ('limit-ms', 'cap-bytes-per-s', 'total-ms', 'pause-ms', 'fixed-ms')


def slice_of(info):
    ram, page = info.get('ram', {}), info.get('ram', {}).get('page-size', 4096)
    return (info.get('total-time', 0), ram.get('dirty-sync-count', 0), ram.get('remaining', 0) // page, ram.get('normal', 0),
            ram.get('duplicate', 0), ram.get('transferred', 0))


def thin(slices):
    """Without repetitions, at most one in 20 ms; the last before each new round is kept, since that is when it was decided."""
    kept = []
    for at, now in enumerate(slices):
        ends = at + 1 < len(slices) and slices[at + 1][1] != now[1]
        if not kept or now[0] >= kept[-1][0] + 20 or (ends and now[0] > kept[-1][0]):
            kept.append(now)
    return kept


def write(path, about, info, slices, configuration):
    own, parts = info['__org.godwit_report'], info['__org.godwit_report']['pause']
    fixed = sum(parts.get(name, 0) for name in ('pause-ms', 'device-ms', 'prepared-ms', 'go-ms'))
    head = (own['downtime-limit-ms'], configuration.get('parameters', {}).get('max-bandwidth', 0), info['total-time'],
            own['downtime-ms'], fixed)
    lines = ['godwit trace 1', f'# {about}']
    lines += [f'{name} {value:g}' if isinstance(value, float) else f'{name} {value}' for name, value in zip(FIELDS, head)]
    lines += ['# ms round left data zero wire'] + [' '.join(str(number) for number in now) for now in slices]
    pathlib.Path(path).write_text('\n'.join(lines) + '\n')


def main():
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument('cell')
    parse.add_argument('configuration')
    parse.add_argument('trace')
    parse.add_argument('--scenario', action='append', default=[], metavar='FILE')
    args = parse.parse_args()
    whole, slices, last, look = harness.scenario(args.scenario), [], {}, drive.Move.look
    cell, configuration = whole['cells'][args.cell], whole['configurations'][args.configuration]

    def recorded(move):
        info = look(move)
        last.update(info=info)
        if info.get('status') == 'active':
            slices.append(slice_of(info))
        return info

    drive.Move.look = recorded
    emulator = harness.emulators(whole, [(args.cell, args.configuration, 0)])[configuration['emulator']]
    images, _ = harness.guest_images([cell])
    record = drive.run(emulator, configuration, cell, whole['links'][cell['link']], images)
    if not record['success']:
        sys.exit(f'no trace: {record["why"]}')
    write(args.trace, f'{args.cell}, {args.configuration}: {cell["about"]}', last['info'], thin(slices), configuration)


if __name__ == '__main__':
    main()
