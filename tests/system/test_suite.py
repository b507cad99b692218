#!/usr/bin/env python3
"""Inside a Debian guest, gcc compiles a suite of programs (tests/linux/suite) in three ways; they run and print checksums.

The same programs, compiled by this machine's compiler and run here, say what is right; for the last bits of the C library's
mathematics, which are the guest library's own, it is what QEMU 10 showed. To see another emulator's:

    GODWIT="$(bench/fetch-qemu)" python3 tests/system/test_suite.py compiles_and_runs

# boots Linux
# runs alone
"""
import os, pathlib, re, shutil, subprocess, sys, tempfile, time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / 'lib'))
from vm import BUILD, LONG, PATIENCE_S, TOP, Failure, Skip, Vm, linux_args, linux_guest, listening, main, test
from guests import AUDIT, audited
from linux import healthy, wait_for_line, waiting

SUITE = TOP / 'tests/linux/suite'
FLAG_OF = {'O0': '-O0', 'O2': '-O2', 'O2b': '-O2'}  # O2b: in the guest with its bit instructions
FLAGS = ['-std=gnu11', '-D_GNU_SOURCE', '-ffp-contract=off', '-frounding-math', '-pthread']
SAID = re.compile(r'suite: (\S+) (\S+) ([0-9a-f]{16})\r?\n')
# Debian 13's glibc 2.41 on rv64gc, QEMU 10.0.13, 21 November 2026.
MATH_EXACT = '4ccaf15dabd88b9a'
SUITE_S = 10 * PATIENCE_S
HOPS, ROUNDS = (12, 2) if LONG else (1, 1)
ALL = list(FLAG_OF)
_known = {}


def archive():
    """The initramfs with the compiler and the suite; Skip where it cannot be fetched."""
    plain = linux_guest()[2]
    fetched = subprocess.run([TOP / 'bench/fetch-programs', 'compiler'], stdout=subprocess.PIPE, text=True)
    if fetched.returncode:
        raise Skip("Debian's riscv64 compiler cannot be fetched here")
    whole = BUILD / 'suite-initrd'
    with tempfile.TemporaryDirectory(prefix='suite-', dir=BUILD) as place:
        shutil.copytree(SUITE, pathlib.Path(place) / 'root/suite')
        parts = [plain]
        for name, folder in (('compiler', fetched.stdout.strip()), ('suite', f'{place}/root')):
            parts.append(pathlib.Path(place) / f'{name}.cpio')
            subprocess.run([TOP / 'bench/pack-guest', '--programs', folder, parts[-1]], check=True)
        with open(f'{place}/whole', 'wb') as out:
            for part in parts:
                out.write(part.read_bytes())
                out.write(bytes(-out.tell() % 4))  # where the kernel looks for the next one
        os.rename(f'{place}/whole', whole)
    return whole


def suite_args(rounds, ways, more=()):
    initrd, args = archive(), linux_args(f'suite,{rounds},{",".join(ways)}', memory='768M', harts=2)
    args[args.index('-initrd') + 1] = initrd
    return [*args, *more]


def right(way):
    """{name: checksum}: what this machine says when it compiles and runs them itself."""
    flag = FLAG_OF[way]
    if flag not in _known:
        known = _known[flag] = {}
        with tempfile.TemporaryDirectory(prefix='suite-', dir=BUILD) as place:
            for source in sorted(SUITE.glob('*.c')):
                binary = f'{place}/{source.stem}'
                subprocess.run([os.environ.get('CC', 'gcc'), *FLAGS, flag, '-o', binary, source, '-lm'], check=True)
                for line in subprocess.run([binary], check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines():
                    name, checksum = line.split()
                    known[name] = checksum
        known['math-exact'] = MATH_EXACT
    return _known[flag]


def compare(text, rounds, ways):
    """Everything that the guest said is right, and it said everything. Returns how many checksums."""
    said, wrong = {}, re.findall(r'suite: FAILED[^\r\n]*', text)
    for way, name, checksum in SAID.findall(text):
        said.setdefault((way, name), []).append(checksum)
    total = sum(map(len, said.values()))
    for way in ways:
        for name, checksum in right(way).items():
            got = said.pop((way, name), [])
            if got != [checksum] * rounds:
                wrong.append(f'{way} {name}: {" ".join(got) or "nothing"}, right is {checksum} x {rounds}')
    if wrong or said:
        raise Failure('; '.join(wrong + [f'nobody asked for {key}' for key in said]))
    return total


@test
def debians_gcc_compiles_and_runs_programs_in_the_guest_with_the_right_results():
    ways = ALL if LONG else ['O2']
    args, begun = suite_args(1, ways), time.monotonic()
    with Vm(args, name='guest') as vm:
        wait_for_line(vm, 'suite: done', SUITE_S)
        total = compare(vm.serial(), 1, ways)
        if vm.wait_exit() != 0:
            raise Failure(f'code {vm.wait_exit()} after poweroff: {vm.stderr()}')
    print(f'# {total} checksums, {time.monotonic() - begun:.1f} s')


@test
def a_guest_that_compiles_moves_and_every_result_is_right():
    """Results come out on both sides of each move, so every one is in the middle of the work."""
    ways = ALL if LONG else ['O0']
    args = suite_args(ROUNDS, ways, AUDIT)
    at, text = Vm(args, name='hop 0'), ''
    try:
        for number in range(1, HOPS + 1):
            wait_for_line(at, SAID.pattern, SUITE_S)
            there = waiting(args, f'hop {number}')
            try:
                info = at.migrate(listening(there), limit_s=2 * PATIENCE_S)
                there.wait_status('running')
                audited(at)
            except BaseException:
                there.__exit__(*sys.exc_info())
                raise
            healthy(at)
            text += at.serial()
            print(f'# hop {number}: {info["total-time"]} ms, {info["ram"]["dirty-sync-count"]} rounds, downtime '
                  f'{info["__org.godwit_report"]["downtime-ms"]:.1f} ms, {len(SAID.findall(text))} results so far')
            at.close()
            at = there
        wait_for_line(at, 'suite: done', SUITE_S)
        compare(text + at.serial(), ROUNDS, ways)
        if not SAID.search(at.serial()):
            raise Failure('the work was done before the last move was')
        at.wait_exit()
    except BaseException:
        at.__exit__(*sys.exc_info())
        raise
    at.close()


if __name__ == '__main__':
    main()
