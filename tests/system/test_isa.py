#!/usr/bin/env python3
"""The self-checking bare-metal programs of tests/guest: what the ISA, the MMU and the atomics promise."""
import pathlib, re, sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / 'lib'))
import vm as lib

PROGRAMS = {'isa_int': 1, 'isa_b': 1, 'isa_amo': 4, 'isa_fp': 1, 'mmu': 1, 'traps': 1}


def run_guest(name, harts):
    with lib.Vm(['-m', '64M', '-smp', harts, '-bios', 'none', '-kernel', lib.BUILD / f'guest/{name}.elf'],
                name=name, qmp=False) as vm:
        code = vm.wait_exit()
        text = vm.serial()
        failures = re.findall(r'^FAIL.*$', text, re.M)
        assert not failures, failures[:5]
        assert re.search(r'^PASS', text, re.M), f'no PASS in: {text[-200:]}'
        assert code == 0, f'exit code {code}'


def make(name, harts):
    def promise():
        run_guest(name, harts)
    promise.__name__ = f'the_guest_program_{name}_passes_on_{harts}_harts'
    return lib.test(promise)


for program, count in PROGRAMS.items():
    make(program, count)

lib.main()
