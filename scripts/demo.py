#!/usr/bin/env python3
"""The main job, as a newcomer sees it: a guest boots and keeps writing memory; a second godwit waits; the guest moves.

With a way to fetch Debian's riscv64 kernel it is real Linux on two vCPUs; without, the bare-metal guest of tests/guest.
"""
import argparse, pathlib, re, subprocess, sys, time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / 'tests/lib'))
import vm as lib


def say(text):
    print(f'demo: {text}', flush=True)


def guest_args(args):
    """(options of both sides, options that load the guest, "it is running" pattern, gap pattern)"""
    try:
        if args.bare_metal:
            raise lib.Skip('asked for the bare-metal guest')
        kernel, firmware, initrd = lib.linux_guest()
        say(f'guest: Debian {(kernel.parent / "version").read_text().strip()}, {args.memory}, {args.harts} vCPUs, '
            f'a program that writes {args.rate} MiB/s over {args.working_set} MiB')
        run = f'dirtier,{args.working_set},{args.rate},{args.harts}'
        both = ['-m', args.memory, '-smp', args.harts, '-bios', firmware]
        load = ['-kernel', kernel, '-initrd', initrd, '-append',
                f'console=ttyS0 iomem=relaxed quiet godwit.run={run}']
        return both, load, r'dirtier: beat=\d+', r'dirtier: beat=(\d+) gap_ms=([\d.]+) written_mib=(\d+) errors=(\d+)'
    except lib.Skip as why:
        say(f'{why}: using the bare-metal guest built from tests/guest instead')
        both = ['-m', '128M', '-smp', args.harts, '-bios', 'none']
        load = ['-kernel', lib.BUILD / 'guest/memcheck.elf', '-append', f'mem=32M harts={args.harts}']
        return both, load, r'alive \d+', r'alive (\d+) pass (\d+) maxgap_us (\d+)'


def progress(source, begun):
    """Until it is over, a line whenever something changed."""
    last = None
    while True:
        info = source.migration()
        ram, status = info.get('ram', {}), info.get('status')
        line = (f'{status:10} round {ram.get("dirty-sync-count", 0):3}  {100 - 100 * ram.get("remaining", 0) / max(1, ram.get("total", 1)):3.0f} %'
                f'  sent {ram.get("transferred", 0) / 2**20:7.1f} MiB  {ram.get("mbps", 0) / 8:7.1f} MB/s'
                f'  expected pause {info.get("expected-downtime", info.get("downtime", 0))} ms')
        eta = info.get('__org.godwit_report', {}).get('eta')
        line += f'  ETA {eta["text"]}' if eta else ''
        if line != last:
            print(f'  {time.monotonic() - begun:6.2f} s  {line}', flush=True)
            last = line
        if status in ('completed', 'failed', 'cancelled'):
            return info
        source.alive()
        time.sleep(0.1)  # the pace of a display, not a condition


def table(rows):
    width = max(len(name) for name, _ in rows)
    print()
    for name, value in rows:
        print(f'  {name:{width}}  {value}')
    print()


def report(source):
    """What godwit itself says it cost; the destination's figures come a moment behind the end."""
    lib.wait_for('the destination\'s figures', lambda: 'result-due' not in source.migration()['__org.godwit_report'],
                 alive=source.alive)
    text = source.qmp.hmp('info migrate')
    say('what the source reports of it (info migrate):')
    for line in text[text.index('the pause, part by part'):].splitlines():
        print('  ' + line)


def gaps_of(text, pattern):
    return [m.groups() for m in re.finditer(pattern, text)]


def main():
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument('--memory', default='512M')
    parse.add_argument('--harts', type=int, default=2)
    parse.add_argument('--rate', type=int, default=50, help='MiB/s that the guest writes')
    parse.add_argument('--working-set', type=int, default=64, help='MiB that it writes over')
    parse.add_argument('--downtime-limit', type=int, default=300, help='ms')
    parse.add_argument('--max-bandwidth', type=int, default=0, help='bytes/s, 0 for no limit')
    parse.add_argument('--bare-metal', action='store_true')
    args = parse.parse_args()

    both, load, running, gap_pattern = guest_args(args)
    begun = time.monotonic()
    with lib.Vm(both + load, name='source') as source:
        source.wait_serial(running, 180)
        say(f'the guest is up after {time.monotonic() - begun:.1f} s; letting it write for three beats')
        source.wait_serial(f'(?s)({running}.*){{3}}', 180)
        before = gaps_of(source.serial(), gap_pattern)
        port = lib.free_port()
        uri = f'tcp:127.0.0.1:{port}'
        with lib.Vm(both + ['-incoming', uri], name='destination') as destination:
            destination.wait_status('inmigrate')
            say(f'a second godwit waits at {uri}; migrating live, downtime limit {args.downtime_limit} ms')
            parameters = {'downtime_limit': args.downtime_limit}
            if args.max_bandwidth:
                parameters['max_bandwidth'] = args.max_bandwidth
            source.start_migration(uri, **parameters)
            info = progress(source, time.monotonic())
            if info['status'] != 'completed':
                say(f'migration {info["status"]}: {info.get("error-desc", "no reason given")}')
                return 1
            destination.wait_status('running')
            destination.wait_serial(f'(?s)({running}.*){{3}}', 60)
            after = gaps_of(destination.serial(), gap_pattern)
            say('the guest runs on at the other side; what it says there:')
            for line in destination.serial().splitlines()[:4]:
                print(f'    {line}')

            ram, own = info['ram'], {k: v for k, v in info.items() if k.startswith('__org.godwit')}
            detail = own.get('__org.godwit_report', own)
            raw = detail.get('raw-bytes', ram['normal-bytes'])
            linux = 'dirtier' in gap_pattern
            scale = 1 if linux else 1e-3
            column = 1 if linux else 2
            rows = [('total time', f'{info["total-time"]} ms'),
                    ('rounds', ram['dirty-sync-count']),
                    ('pages sent', f'{ram["normal"]} with data, {ram["duplicate"]} zero'),
                    ('on the wire', f'{ram["transferred"] / 2**20:.1f} MiB'),
                    ('compression', f'{raw / max(1, ram["transferred"]):.2f} : 1 on {raw / 2**20:.1f} MiB of data pages'),
                    ('pause asked for', f'at most {args.downtime_limit} ms'),
                    ('pause predicted', f'{detail.get("predicted-downtime-ms", 0):.1f} ms' if detail else 'not told'),
                    ('pause measured', f'{detail.get("downtime-ms", info["downtime"]):.1f} ms'),
                    ('longest gap the guest saw', f'{float(after[0][column]) * scale:.1f} ms in the second it moved'),
                    ('the same without moving', f'{max(float(g[column]) * scale for g in before[1:] or before):.1f} ms')]
            table(rows)
            report(source)
            if linux and any(int(g[3]) for g in before + after):
                say('the guest found pages that were not as it wrote them')
                return 1
            say('every page was as the guest had written it' if linux else 'the guest checked every page it wrote')
            return 0


if __name__ == '__main__':
    try:
        sys.exit(main())
    except lib.Failure as why:
        say(str(why))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
