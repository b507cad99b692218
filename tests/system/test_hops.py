#!/usr/bin/env python3
"""A guest that storms its memory and knows what must be in it goes from process to process, over every transport."""
import pathlib, shutil, socket, sys, tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / 'lib'))
from vm import LONG, Failure, Skip, Vm, listening, main, test
from guests import AUDIT, arrived, audited, check, finish, machine, memcheck, wait_alive, wait_running_on

HOPS = 50 if LONG else 5


class Folder:
    """For sockets and files of one journey."""

    def __enter__(self):
        self.path = pathlib.Path(tempfile.mkdtemp(prefix='godwit-'))
        return self.path

    def __exit__(self, *_):
        shutil.rmtree(self.path, ignore_errors=True)


def journey(hop, harts=1, hops=HOPS, mem='16M', more='', options=(), parameters=None):
    """hop(source, start, number) migrates and returns the new Vm; start(incoming, **Vm's) makes one."""
    both = machine(harts=harts, more=[*AUDIT, *options])
    def start(incoming, number, **how):
        return Vm(both + ['-incoming', incoming], typing=True, name=f'hop {number}', **how)
    at = Vm(both + memcheck(mem, harts, more), typing=True, name='hop 0')
    try:
        wait_alive(at)
        for number in range(1, hops + 1):
            if parameters:  # they stay with the process, and every hop has another one
                at.qmp('migrate-set-parameters', **parameters)
            left, at = at, hop(at, start, number)
            with left:
                arrived(left, at)
                wait_running_on(at)
                check(left)
                audited(left)
        finish(at)
    except BaseException:
        at.__exit__(*sys.exc_info())
        raise
    at.close()


def over_socket(uri):
    def hop(source, start, number):
        there = start(uri, number)
        try:
            source.migrate(listening(there))
        except BaseException:
            there.__exit__(*sys.exc_info())
            raise
        return there
    return hop


def over_tcp():
    return over_socket('tcp:127.0.0.1:0')


@test
def a_guest_survives_hops_over_tcp_ipv4():
    journey(over_tcp())


@test
def a_guest_survives_hops_over_tcp_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(('::1', 0))
    except OSError:
        raise Skip('no IPv6 here')
    journey(over_socket('tcp:[::1]:0'))


@test
def a_guest_with_two_harts_survives_hops_over_unix_sockets():
    with Folder() as folder:
        journey(over_socket(f'unix:{folder}/road'), harts=2)


@test
def a_guest_with_four_harts_survives_hops():
    journey(over_tcp(), harts=4, more='pattern=jump')


@test
def a_guest_that_dirties_heads_of_pages_survives_hops():
    """Every page changes a little, very fast: rounds never become small by themselves."""
    journey(over_tcp(), harts=2, more='fill=head hot=2M', mem='32M')


@test
def a_guest_survives_hops_without_compression_and_with_one_thread():
    journey(over_tcp(), harts=2, parameters={'multifd-compression': 'none', 'threads': 1})


@test
def a_guest_with_two_harts_survives_hops_over_several_channels():
    journey(over_tcp(), harts=2, mem='32M', parameters={'channels': 4})


@test
def a_guest_survives_hops_over_several_unix_sockets():
    with Folder() as folder:
        journey(over_socket(f'unix:{folder}/road'), harts=4, more='pattern=jump', parameters={'channels': 3})


@test
def a_guest_survives_hops_with_zstd():
    journey(over_tcp(), harts=2, parameters={'compression': 'zstd'})


@test
def a_guest_survives_hops_over_a_command_that_leads_to_the_other():
    with Folder() as folder:
        relay = folder / 'relay'
        relay.write_text(RELAY)
        def hop(source, start, number):
            there = start(f'unix:{folder}/road{number}', number)
            source.qmp('migrate-set-capabilities', capabilities=[{'capability': 'return-path', 'state': True}])
            try:
                listening(there)
                source.migrate(f'exec:exec {sys.executable} {relay} {folder}/road{number}')
            except BaseException:
                there.__exit__(*sys.exc_info())
                raise
            return there
        journey(hop, harts=2)


# Standard input and output to a unix socket and back, until both ways have ended.
RELAY = '''
import os, select, socket, sys
peer = socket.socket(socket.AF_UNIX)
peer.connect(sys.argv[1])
ways = {0: peer.fileno(), peer.fileno(): 1}
while ways:
    for end in select.select(list(ways), [], [])[0]:
        data = os.read(end, 65536)
        to = ways[end]
        if not data:
            del ways[end]
            peer.shutdown(socket.SHUT_WR) if end == 0 else os.close(1)
        while data:
            data = data[os.write(to, data):]
'''


@test
def a_guest_survives_hops_through_inherited_sockets():
    """fd: both ends come from whoever starts the processes, here this test."""
    both = machine(harts=2, more=AUDIT)
    pairs = [socket.socketpair() for _ in range(HOPS)]
    vms = []
    try:
        for number in range(HOPS + 1):
            args, fds = both + memcheck('16M', 2), []
            if number > 0:
                far = pairs[number - 1][1]
                fds.append(far.fileno())
                args = both + ['-incoming', f'fd:{far.fileno()}']
            if number < HOPS:
                fds.append(pairs[number][0].fileno())
            vms.append(Vm(args, typing=True, name=f'hop {number}', pass_fds=fds))
        for pair in pairs:
            pair[1].close()
        wait_alive(vms[0])
        for number in range(HOPS):
            source, there = vms[number], vms[number + 1]
            source.migrate(f'fd:{pairs[number][0].fileno()}')
            pairs[number][0].close()
            arrived(source, there)
            wait_running_on(there)
        finish(vms[-1])
    except BaseException:
        for vm in vms:
            vm.__exit__(*sys.exc_info())
        raise
    finally:
        for vm in vms:
            vm.close()


@test
def a_guest_survives_being_saved_to_a_file_and_loaded_again():
    with Folder() as folder:
        def hop(source, start, number):
            info = source.migrate(f'file:{folder}/saved')
            if info['__org.godwit_report']['where'] != 'file':
                raise Failure(f'saved to a file, but the guest is said to be "{info["__org.godwit_report"]["where"]}"')
            there = start(f'file:{folder}/saved', number)
            there.wait_status('running')
            return there
        journey(hop, harts=2)


@test
def a_guest_survives_being_piped_into_a_compressor_and_back():
    with Folder() as folder:
        def hop(source, start, number):
            source.migrate(f'exec:gzip -1 -c > {folder}/saved.gz')
            there = start(f'exec:gzip -dc < {folder}/saved.gz', number)
            there.wait_status('running')
            return there
        # A compressor that shares its CPU with the guest can be slower than the guest writes; this pause always fits.
        journey(hop, parameters={'downtime-limit': 20000})


@test
def a_guest_saved_in_a_file_can_go_on_here_and_be_loaded_many_times():
    """A file is nobody's runner: the source may go on, and the file may be loaded again and again."""
    with Folder() as folder, Vm(machine() + memcheck(), typing=True, name='source') as source:
        wait_alive(source)
        source.migrate(f'file:{folder}/saved')
        source.qmp('cont')
        wait_running_on(source)
        for number in range(2):
            with Vm(machine(more=['-incoming', f'file:{folder}/saved']), typing=True, name=f'copy {number}') as copy:
                copy.wait_status('running')
                wait_running_on(copy)
                finish(copy)
        wait_running_on(source)
        finish(source)


@test
def the_check_sees_a_page_that_was_spoilt():
    """This test can fail: a page is spoilt in the guest between two hops, and the guest says so."""
    with Vm(machine() + memcheck(), typing=True, name='source') as source, \
            Vm(machine(more=['-incoming', 'tcp:127.0.0.1:0']), typing=True, name='destination') as there:
        wait_alive(source)
        source.migrate(listening(there))
        arrived(source, there)
        there.type('x')
        there.wait_serial('MISMATCH hart')
        if there.wait_exit() == 0:
            raise Failure('the guest found a spoilt page, and its failure code became 0')


if __name__ == '__main__':
    main()
