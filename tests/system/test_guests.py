"""Bare-metal guests that check themselves: each prints PASS and powers off."""
import os, pathlib, shutil, subprocess, sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / 'lib'))
import vm

GODWIT = os.environ.get('GODWIT', 'build/godwit')
GUESTS = pathlib.Path(os.environ.get('GODWIT_BUILD', 'build')) / 'guest'
LIMIT_S = 120
ENGINES = ('jit', 'interp')


def run(guest, harts=1, append=''):
    """(exit code, console) of a guest that ends by itself."""
    elf = GUESTS / f'{guest}.elf'
    if not elf.exists():
        raise vm.Skip(f'{guest}.elf is not built')
    command = [GODWIT, '-M', 'virt', '-m', '128M', '-nographic', '-bios', 'none', '-smp', str(harts), '-kernel', str(elf)]
    if append:
        command += ['-append', append]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors='replace',
                          timeout=LIMIT_S)
    return done.returncode, done.stdout + done.stderr


def passes(guest, harts=1, append=''):
    code, text = run(guest, harts, append)
    assert f'PASS {guest}' in text and code == 0, f'exit code {code}: {text[-500:]}'


@vm.test
def every_hart_says_hello_and_the_power_goes_off():
    code, text = run('hello', 4)
    lines = [line for line in text.splitlines() if 'hello' in line]
    assert lines == [f'godwit: hello from hart {n} of 4' for n in range(4)], text
    assert code == 0


@vm.test
def integer_instructions_compute_what_the_isa_says():
    passes('isa_int')


@vm.test
def bit_instructions_compute_what_the_isa_says():
    passes('isa_b')


@vm.test
def floating_point_rounds_and_flags_as_the_isa_says():
    passes('isa_fp')


@vm.test
def four_harts_lose_no_atomic_update():
    passes('isa_amo', 4, 'strict=1')


@vm.test
def traps_and_interrupts_arrive_as_the_privileged_isa_says():
    passes('traps', 2, 'strict=1')


@vm.test
def sv39_translates_and_forbids_as_the_privileged_isa_says():
    passes('mmu', 1, 'strict=1')


@vm.test
def a_store_to_tohost_ends_the_process_with_the_verdict():
    for append, code in (('value=1', 0), ('value=1 size=4', 0), ('value=3', 1), ('value=15', 7), ('value=15 size=4', 7),
                         ('value=511', 255), ('value=2675', 255)):
        is_code, text = run('tohost', 1, append)
        assert is_code == code, f'{append}: exit code {is_code}, should be {code}: {text[-500:]}'


@vm.test
def a_program_may_print_through_tohost():
    code, text = run('tohost', 1, 'text=1')
    assert code == 0 and 'by tohost' in text, f'exit code {code}: {text[-500:]}'


@vm.test
def timers_wake_sleeping_harts_never_early():
    passes('sleeper', 3, 'period_ms=50 ticks=5')


@vm.test
def memcheck_sees_a_page_that_is_spoiled():
    elf = GUESTS / 'memcheck.elf'
    if not elf.exists():
        raise vm.Skip('memcheck.elf is not built')
    command = [GODWIT, '-M', 'virt', '-m', '128M', '-nographic', '-bios', 'none', '-smp', '2', '-kernel', str(elf),
               '-append', 'mem=4M pattern=jump']
    for keys, code, word in (('q', 0, 'OK passes='), ('x', 1, 'MISMATCH')):
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   text=True, errors='replace', bufsize=1)
        try:
            for line in process.stdout:
                if 'alive 2 ' in line:
                    break
            process.stdin.write(keys)
            process.stdin.flush()
            text, _ = process.communicate(timeout=LIMIT_S)
        finally:
            process.kill()
            process.wait()
        assert word in text and process.returncode == code, f'exit code {process.returncode}: {text[-500:]}'


def lines_of(machine, elf):
    # With one hart the reference's AMOs are a load and a store, and a misaligned one traps as a load.
    command = machine + ['-M', 'virt', '-m', '128M', '-smp', '2', '-nographic', '-bios', 'none', '-kernel', str(elf)]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors='replace',
                          timeout=LIMIT_S).stdout.splitlines()


@vm.test
def random_instructions_leave_what_they_leave_on_the_reference_machine():
    reference = shutil.which('qemu-system-riscv64')
    guests = sorted(GUESTS.glob('rand_*.elf'))
    if not reference or not guests:
        raise vm.Skip('needs qemu-system-riscv64 and the rand guests')
    for elf in guests:
        theirs = lines_of([reference], elf)
        assert theirs and theirs[-1].startswith('END'), f'{elf.name}: the reference did not finish'
        for engine in ENGINES:
            ours, who = lines_of([GODWIT, '-accel', engine], elf), f'{elf.name}, {engine}'
            for number, (is_line, should) in enumerate(zip(ours, theirs)):
                assert is_line == should, f'{who}, line {number + 1}: {is_line!r}, reference {should!r}'
            assert len(ours) == len(theirs), f'{who}: {len(ours)} lines, reference {len(theirs)}'


if __name__ == '__main__':
    vm.main()
