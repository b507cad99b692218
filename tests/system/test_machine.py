#!/usr/bin/env python3
"""Machines of all sizes, what they carry when they move, and how they end."""
import pathlib, re, sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / 'lib'))
from vm import THREAD_SANITIZER, Failure, Skip, Vm, listening, main, test, wait_for
from guests import arrived, check, finish, guest, machine, memcheck, wait_alive, wait_running_on


def hop(both, load, incoming=(), name='destination'):
    """Starts the guest, moves it once, has it check everything."""
    with Vm([*both, *load], typing=True, name='source') as source, \
            Vm([*both, '-incoming', 'tcp:127.0.0.1:0', *incoming], typing=True, name=name) as there:
        wait_alive(source)
        info = source.migrate(listening(there))
        arrived(source, there)
        wait_running_on(there)
        trees = source.qmp.hmp('info qtree'), there.qmp.hmp('info qtree')
        if trees[0] != trees[1]:
            raise Failure(f'the devices differ:\n{trees[0]}\n{trees[1]}')
        finish(there)
        return info


# --- sizes ------------------------------------------------------------------------------------------------------------

@test
def sixty_four_harts_say_hello():
    with Vm(machine(harts=64) + ['-kernel', guest('hello')], qmp=False, name='guest') as vm:
        if vm.wait_exit() != 0:
            raise Failure(f'ended with code {vm.wait_exit()}: {vm.stderr()}')
        for hart in range(64):
            if f'hello from hart {hart} of 64' not in vm.serial():
                raise Failure(f'hart {hart} is silent')


@test
def a_guest_with_sixteen_harts_moves():
    hop(machine(harts=16), memcheck('16M', 16, 'rate=100'))


@test
def a_guest_with_memory_above_4_gib_moves():
    """6 GiB of RAM that nobody has; the guest uses some of it far up."""
    if THREAD_SANITIZER:
        raise Skip('ThreadSanitizer remembers 24 GiB about them')
    info = hop(machine('6G'), memcheck('32M', 1, 'at=5G'))
    if info['ram']['total'] < 6 << 30:
        raise Failure(f'RAM is {info["ram"]["total"]} bytes')
    if info['ram']['transferred'] > 1 << 30:
        raise Failure(f'empty memory took {info["ram"]["transferred"]} bytes on the wire')


@test
def a_guest_in_the_least_memory_moves():
    hop(machine('16M'), memcheck('2M'))


# --- devices ---------------------------------------------------------------------------------------------------------

@test
def a_guest_with_a_legacy_virtio_device_moves():
    hop(machine(more=['-device', 'virtio-rng-device']), memcheck())


@test
def a_guest_with_a_modern_virtio_device_moves():
    hop(machine(more=['-global', 'virtio-mmio.force-legacy=false', '-object', 'rng-random,id=r0',
                      '-device', 'virtio-rng-device,rng=r0']), memcheck())


@test
def a_guest_with_several_virtio_devices_moves():
    hop(machine(more=['-chardev', 'null,id=c0', '-device', 'virtio-rng-device,bus=virtio-mmio-bus.3',
                      '-device', 'virtio-serial-device', '-device', 'virtconsole,chardev=c0',
                      '-device', 'virtio-rng-device']), memcheck())


# --- running or not ---------------------------------------------------------------------------------------------------

@test
def a_guest_whose_destination_has_S_stays_paused_there():
    both = machine()
    with Vm(both + memcheck(), typing=True, name='source') as source, \
            Vm(both + ['-S', '-incoming', 'tcp:127.0.0.1:0'], typing=True, name='destination') as there:
        wait_alive(source)
        source.migrate(listening(there))
        arrived(source, there, 'paused')
        there.type('s')
        registers = there.qmp.hmp('info registers')
        if there.qmp.hmp('info registers') != registers or there.serial():
            raise Failure('a paused guest moves')
        there.qmp('cont')
        wait_running_on(there)
        finish(there)


@test
def a_guest_that_was_stopped_arrives_stopped():
    both = machine()
    with Vm(both + memcheck(), typing=True, name='source') as source, \
            Vm(both + ['-incoming', 'tcp:127.0.0.1:0'], typing=True, name='destination') as there:
        wait_alive(source)
        source.qmp('stop')
        registers = source.qmp.hmp('info registers -a')
        source.migrate(listening(there))
        arrived(source, there, 'paused')
        if there.qmp.hmp('info registers -a') != registers:
            raise Failure(f'the registers differ:\n{registers}\n{there.qmp.hmp("info registers -a")}')
        there.qmp('cont')
        wait_running_on(there)
        finish(there)


@test
def a_guest_that_never_ran_moves_and_boots_there():
    both = machine()
    with Vm(both + ['-S'] + memcheck(), typing=True, name='source') as source, \
            Vm(both + ['-incoming', 'tcp:127.0.0.1:0'], typing=True, name='destination') as there:
        source.migrate(listening(there))
        wait_for('the guest to arrive', lambda: there.status() not in ('inmigrate', 'finish-migrate'))
        there.qmp('cont')
        wait_alive(there)
        finish(there)


@test
def a_guest_that_has_left_cannot_be_continued():
    with Vm(machine() + memcheck(), typing=True, name='source') as source, \
            Vm(machine(more=['-incoming', 'tcp:127.0.0.1:0']), typing=True, name='destination') as there:
        wait_alive(source)
        source.migrate(listening(there))
        arrived(source, there)
        for command in ('cont', 'migrate'):
            answer = source.qmp.raw(command, **({'uri': 'tcp:127.0.0.1:1'} if command == 'migrate' else {}))
            if 'error' not in answer:
                raise Failure(f'{command} was let through on the source: {source.status()}')
        wait_running_on(there)
        source.qmp('quit')
        if source.wait_exit() != 0:
            raise Failure(f'the source ended with {source.wait_exit()}')
        wait_running_on(there)
        finish(there)


@test
def a_guest_stopped_and_continued_many_times_is_whole():
    with Vm(machine(harts=2) + memcheck(harts=2), typing=True, name='guest') as vm:
        wait_alive(vm)
        for _ in range(50):
            vm.qmp('stop')
            vm.qmp('cont')
        wait_running_on(vm)
        finish(vm)


# --- ends -----------------------------------------------------------------------------------------------------------

def power(how, *options):
    return Vm(machine() + ['-kernel', guest('power'), '-append', f'power={how}', *options], name='guest')


@test
def a_guest_that_powers_off_ends_the_process_with_0():
    with power('off') as vm:
        if vm.wait_exit() != 0:
            raise Failure(f'code {vm.wait_exit()}')


@test
def a_guest_that_fails_gives_its_code():
    for code, expected in ((1, 1), (42, 42), (255, 255)):
        with power(f'fail code={code}') as vm:
            if vm.wait_exit() != expected:
                raise Failure(f'code {vm.wait_exit()} where the guest said {code}')


@test
def a_guest_that_resets_boots_again():
    with power('reset') as vm:
        vm.wait_serial(r'(?s)(power: reset.*){3}')


@test
def no_reboot_ends_the_process_when_the_guest_resets():
    with power('reset', '-no-reboot') as vm:
        if vm.wait_exit() != 0 or vm.serial().count('power: reset') != 1:
            raise Failure(f'code {vm.wait_exit()} after {vm.serial().count("power: reset")} boots')


@test
def no_shutdown_keeps_the_process_and_says_shutdown():
    with power('off', '-no-shutdown') as vm:
        vm.wait_status('shutdown')
        vm.qmp('system_reset')
        vm.qmp('cont')
        vm.wait_serial(r'(?s)(power: off.*){2}')
        vm.wait_status('shutdown')
        vm.qmp('quit')
        if vm.wait_exit() != 0:
            raise Failure(f'code {vm.wait_exit()}')


@test
def a_cont_right_behind_a_system_reset_finds_it_done():
    with power('off', '-no-shutdown') as vm:
        vm.wait_status('shutdown')
        answers = vm.qmp.in_one_packet('system_reset', 'cont')
        if any('error' in answer for answer in answers):
            raise Failure(f'answers {answers}')
        vm.wait_serial(r'(?s)(power: off.*){2}')
        vm.wait_status('shutdown')


@test
def system_reset_boots_the_guest_again():
    with Vm(machine() + memcheck(), typing=True, name='source') as source:
        wait_alive(source)
        source.qmp('system_reset')
        source.wait_serial(r'(?s)(memcheck: 1 harts.*){2}')
        wait_alive(source)
        finish(source)


def moved(source, there):
    wait_alive(source)
    source.migrate(listening(there))
    arrived(source, there)
    wait_running_on(there)


@test
def a_reset_at_the_destination_boots_the_guest_again():
    """The destination was told of the same kernel, which it did not load when the guest came."""
    with Vm(machine() + memcheck(), typing=True, name='source') as source, \
            Vm(machine(more=['-incoming', 'tcp:127.0.0.1:0']) + memcheck(), typing=True, name='destination') as there:
        moved(source, there)
        before = len(there.serial())
        there.qmp('system_reset')
        there.wait_serial(r'memcheck: 1 harts', after=before)
        wait_alive(there)
        finish(there)


@test
def a_reset_at_a_destination_without_a_kernel_says_what_it_lacks():
    with Vm(machine() + memcheck(), typing=True, name='source') as source, \
            Vm(machine(more=['-incoming', 'tcp:127.0.0.1:0']), typing=True, name='destination') as there:
        moved(source, there)
        there.qmp('system_reset')
        there.wait_status('internal-error')
        if 'its kernel is not here' not in there.stderr():
            raise Failure(f'it says "{there.stderr().strip()}"')


if __name__ == '__main__':
    main()
