#!/usr/bin/env python3
"""What a migration costs the guest: the key cells of docs/benchmarks.md, godwit to godwit over tcp on this machine.

    bench/migrate.py [--runs N] [CELL...]

A Linux guest's heartbeat thread looks at the host's clock every millisecond; the longest gap in the beats around the move is
the pause that the guest saw, and the longest gap of the beats before the move is the control (what the host does to
it anyway). A run in which the guest finds a wrong page counts as failed, whatever its time.
"""
import argparse, os, pathlib, re, statistics, sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / 'tests/lib'))
import vm as lib

CELLS = {
    # name: (run, memory, harts, downtime limit ms)
    'dirty50-300ms': ('dirtier,64,50,2', '512M', 2, 300),
    'dirty50-30ms': ('dirtier,64,50,2', '512M', 2, 30),
    'dirty50-10ms': ('dirtier,64,50,2', '512M', 2, 10),
    'idle-1GiB': ('dirtier,0,0', '1024M', 2, 300),
    'idle-4GiB': ('dirtier,0,0', '4096M', 2, 300),
}
BEAT = re.compile(r'dirtier: beat=(\d+) gap_ms=([\d.]+) written_mib=(\d+) errors=(\d+)')


def beats(vm):
    return [(float(gap), int(mib), int(errors)) for _, gap, mib, errors in BEAT.findall(vm.serial())]


def one(run, memory, harts, limit_ms):
    args = lib.linux_args(run, memory, harts)
    both = args[:args.index('-kernel')]
    with lib.Vm(args, name='source') as source:
        lib.wait_for('five beats', lambda: len(beats(source)) >= 5, 300, alive=source.alive)
        uri = f'tcp:127.0.0.1:{lib.free_port()}'
        with lib.Vm(both + ['-incoming', uri], name='destination') as destination:
            destination.wait_status('inmigrate')
            lib.wait_for('a beat', lambda n=len(beats(source)): len(beats(source)) > n, alive=source.alive)
            before = beats(source)
            info = source.migrate(uri, downtime_limit=limit_ms)
            during = beats(source)[len(before):]
            lib.wait_for('two beats', lambda: len(beats(destination)) >= 2, alive=destination.alive)
            after = beats(destination)
    own = info.get('__org.godwit_report', {})
    if any(errors for _, _, errors in before + during + after):
        raise lib.Failure('the guest found a wrong page')
    return {'total_ms': info['total-time'], 'pause_ms': own.get('downtime-ms', info['downtime']),
            'predicted_ms': own.get('predicted-downtime-ms', 0), 'rounds': info['ram']['dirty-sync-count'],
            'wire_mib': info['ram']['transferred'] / 2**20,
            'gap_ms': max(gap for gap, _, _ in during + after[:1]),
            'control_ms': max(gap for gap, _, _ in before[2:])}


def main():
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument('--runs', type=int, default=5)
    parse.add_argument('cells', nargs='*', default=list(CELLS), metavar='CELL', help=', '.join(CELLS))
    args = parse.parse_args()
    print(f'load {os.getloadavg()[0]:.1f}; medians of {args.runs} runs [min .. max]')
    for cell in args.cells:
        runs, failed = [], 0
        for _ in range(args.runs):
            try:
                runs.append(one(*CELLS[cell]))
            except lib.Failure as why:
                failed += 1
                print(f'  {cell}: failed: {why}')
        print(f'{cell}: {len(runs)} moved, {failed} failed', flush=True)
        for key in runs[0] if runs else ():
            values = [run[key] for run in runs]
            print(f'  {key:13} {statistics.median(values):9.1f}   [{min(values):.1f} .. {max(values):.1f}]')


if __name__ == '__main__':
    main()
