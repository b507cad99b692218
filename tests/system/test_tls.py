#!/usr/bin/env python3
"""Migrations over TLS: nobody reads along, nobody joins in who has no business there, and all else is as it is without."""
import pathlib, signal, socket, sys, time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / 'lib'))
from vm import Failure, Vm, listening, main, test, wait_for
from guests import arrived, finish, machine, memcheck, wait_alive, wait_running_on
import tls
from tls import Keys, Wire

PLANTED = 'planted-0123456789-planted'  # on the kernel's command line, which is in the guest's memory
SOON = ['-global', 'migration.downtime-limit=20000']  # a busy host is no reason for another round


def source_vm(options=(), **how):
    return Vm(machine(harts=2) + memcheck('32M', 2, f'note={PLANTED}') + SOON + list(options), typing=True, name='source', **how)


def destination_vm(options=(), incoming='tcp:127.0.0.1:0'):
    return Vm(machine(harts=2, more=['-incoming', incoming]) + SOON + list(options), typing=True, name='destination')


def moves_after_all(source, options=()):
    with destination_vm(options) as there:
        source.migrate(listening(there))
        arrived(source, there)
        wait_running_on(there)
        finish(there)


def hop(keys, kind, channels):
    with source_vm(keys.object(kind, 'client')) as source, destination_vm(keys.object(kind, 'server')) as there, \
            Wire(listening(there)) as wire:
        wait_alive(source, 2)
        source.migrate(wire.uri, channels=channels, compression='none')
        arrived(source, there)
        wait_running_on(there)
        if wire.count != (1 if channels == 1 else 1 + channels) or len(wire.seen) < 16 << 20:
            raise Failure(f'{wire.count} connections carried {len(wire.seen)} bytes')
        if PLANTED.encode() in wire.seen or b'GDWT' in wire.seen:
            raise Failure(f'{kind}: the wire carries plain text')
        finish(there)


@test
def what_is_looked_for_on_the_wire_is_there_without_tls():
    with source_vm() as source, destination_vm() as there, Wire(listening(there)) as wire:
        wait_alive(source, 2)
        source.migrate(wire.uri, compression='none')
        if PLANTED.encode() not in wire.seen or b'GDWT' not in wire.seen:
            raise Failure('the planted words are not found on a plain wire either')
        arrived(source, there)
        finish(there)


@test
def a_guest_hops_over_keys_and_certificates_and_nobody_reads_along():
    with Keys() as keys:
        for kind in 'psk', 'x509':
            for channels in 1, 4:
                hop(keys, kind, channels)


@test
def unix_exec_and_a_name_that_is_given_work_as_well():
    with Keys('there.test') as keys, source_vm(keys.object('x509', 'client')) as source:
        wait_alive(source, 2)
        with destination_vm(keys.object('x509', 'server'), f'unix:{keys.folder}/line') as there:
            source.start_migration(listening(there))
            wait_for('the migration to end', lambda: source.migration().get('status') == 'failed')
            if 'set tls-hostname' not in source.migration()['error-desc']:
                raise Failure(source.migration()['error-desc'])
            source.migrate(listening(there), tls_hostname='there.test')
            arrived(source, there)
            # and on, from the destination, which gets its parameters from the monitor
            there.qmp('object-add', qom_type='tls-creds-x509', id='on', dir=str(keys.folder), endpoint='client')
            there.qmp('migrate-set-parameters', tls_creds='on', tls_hostname='there.test')
            there.qmp('migrate-set-capabilities', capabilities=[{'capability': 'return-path', 'state': True}])
            with destination_vm(keys.object('x509', 'server')) as last:
                there.migrate(f'exec:python3 {pathlib.Path(tls.__file__)} {listening(last)}')
                arrived(there, last)
                wait_running_on(last)
                finish(last)


def refused(source, there, uri, *words):
    """The attempt fails with these words, the source runs on, and the destination waits on and says why."""
    source.start_migration(uri)
    wait_for('the migration to fail', lambda: source.migration().get('status') == 'failed', alive=source.alive)
    why = source.migration()['error-desc']
    if not any(word in why for word in words):
        raise Failure(f'the source says "{why}"')
    wait_for('the destination to say why', lambda: 'still waiting for a guest' in there.stderr(), alive=there.alive)
    wait_running_on(source)


@test
def wrong_keys_and_certificates_are_refused_and_both_go_on():
    with Keys() as keys, Keys() as others, Keys('elsewhere.test', ca=keys) as elsewhere:
        for kind, words in ('psk', ['TLS: the peer refuses']), ('x509', ['NOT trusted']):
            with source_vm(others.object(kind, 'client')) as source, destination_vm(keys.object(kind, 'server')) as there:
                wait_alive(source, 2)
                refused(source, there, listening(there), *words)
                source.qmp.hmp('object_del tls0')
                source.qmp.hmp(f'object_add tls-creds-{kind},id=tls0,dir={keys.folder},endpoint=client')
                source.migrate(listening(there))
                arrived(source, there)
                finish(there)
        with source_vm(keys.object('x509', 'client')) as source, destination_vm(elsewhere.object('x509', 'server')) as there:
            wait_alive(source, 2)
            refused(source, there, listening(there), 'name in the certificate does not match')


@test
def only_whom_the_list_names_may_send_a_guest():
    with Keys() as keys:
        authz = ['-object', 'authz-list,id=movers,rules.0.match=CN=friend*,rules.0.format=glob,rules.0.policy=allow',
                 '-global', 'migration.tls-authz=movers']
        with source_vm(keys.object('x509', 'client')) as source, \
                destination_vm(keys.object('x509', 'server') + authz) as there:
            wait_alive(source, 2)
            refused(source, there, listening(there), 'TLS: the peer refuses')
            if "movers does not allow 'CN=mover'" not in there.stderr():
                raise Failure(there.stderr())
            with Keys(client='friend of ours', ca=keys) as friend:
                source.qmp.hmp('object_del tls0')
                source.qmp.hmp(f'object_add tls-creds-x509,id=tls0,dir={friend.folder},endpoint=client')
            source.migrate(listening(there))
            arrived(source, there)
            finish(there)


@test
def plain_and_tls_meet_and_both_say_what_is_missing():
    with Keys() as keys:
        with source_vm() as source, destination_vm(keys.object('psk', 'server')) as there:
            wait_alive(source, 2)
            refused(source, there, listening(there), 'only TLS is spoken here')
            if 'does not speak TLS' not in there.stderr():
                raise Failure(there.stderr())
        with source_vm(keys.object('psk', 'client')) as source, destination_vm() as there:
            wait_alive(source, 2)
            source.start_migration(listening(there))
            wait_for('the migration to fail', lambda: source.migration().get('status') == 'failed')
            if 'does not speak TLS' not in source.migration()['error-desc']:
                raise Failure(source.migration()['error-desc'])
            there.wait_exit()
            if 'the peer speaks TLS, and tls-creds is not set here' not in there.stderr():
                raise Failure(there.stderr())
            wait_running_on(source)


@test
def strangers_who_say_nothing_keep_nobody_out():
    with Keys() as keys, source_vm(keys.object('psk', 'client')) as source, \
            destination_vm(keys.object('psk', 'server')) as there:
        wait_alive(source, 2)
        host, port = listening(there)[len('tcp:'):].rsplit(':', 1)
        strangers = [socket.create_connection((host, int(port))) for _ in range(20)]
        strangers[0].sendall(b'GET / HTTP/1.0\r\n\r\n')
        source.migrate(listening(there))
        arrived(source, there)
        finish(there)
        for stranger in strangers:
            stranger.close()


@test
def cancel_ends_a_handshake_with_somebody_who_is_silent():
    with Keys() as keys, source_vm(keys.object('psk', 'client')) as source, socket.create_server(('127.0.0.1', 0)) as hole:
        wait_alive(source, 2)
        source.start_migration(f'tcp:127.0.0.1:{hole.getsockname()[1]}')
        called, _ = hole.accept()
        if called.recv(1) != b'\x16':  # it has begun, and waits for the answer
            raise Failure('no handshake')
        begun = time.monotonic()
        source.qmp('migrate_cancel')
        source.wait_migration('cancelled')
        print(f'# cancelled after {(time.monotonic() - begun) * 1e3:.0f} ms')
        wait_running_on(source)
        called.close()


@test
def cancel_while_memory_is_sent_leaves_the_guest_here():
    with Keys() as keys, source_vm(keys.object('x509', 'client')) as source:
        for channels in 1, 4:
            with destination_vm(keys.object('x509', 'server')) as there:
                wait_alive(source, 2)
                source.start_migration(listening(there), channels=channels, max_bandwidth=1 << 20, compression='none')
                source.wait_migration('active')
                wait_for('some memory to be sent', lambda: source.migration()['ram']['transferred'] > 1 << 16)
                source.qmp('migrate_cancel')
                source.wait_migration('cancelled')
                wait_running_on(source)
                there.wait_exit()
        source.qmp('migrate-set-parameters', max_bandwidth=0, channels=1)
        moves_after_all(source, keys.object('x509', 'server'))


@test
def a_line_that_is_lost_in_the_hand_over_is_replaced_by_another_over_tls():
    for kind in 'psk', 'x509':
        with Keys() as keys, source_vm(keys.object(kind, 'client')) as source, \
                destination_vm(keys.object(kind, 'server') + ['-fault', 'target-running:1:stall']) as there, \
                Wire(listening(there)) as wire:
            wait_alive(source, 2)
            source.start_migration(wire.uri, channels=4)
            wait_for('the destination to stall before it says RUNNING', lambda: 'time 1: stall' in there.stderr(),
                     alive=there.alive)
            wire.cut()
            source.wait_migration('unresolved')
            there.process.send_signal(signal.SIGCONT)
            source.wait_migration('completed')
            if wire.count < 6:
                raise Failure('nobody called again')
            arrived(source, there)
            wait_running_on(there)
            finish(there)


@test
def other_hosts_can_send_a_guest_only_when_that_was_said_or_over_tls():
    base = machine(harts=2)
    for incoming in 'tcp:0.0.0.0:0', 'tcp:0:0', 'tcp::0', 'tcp:[::]:0':
        with Vm(base + ['-incoming', incoming], qmp=False, name='destination') as there:
            if there.wait_exit() == 0 or 'insecure=on' not in there.stderr() or 'tls-creds' not in there.stderr():
                raise Failure(f'-incoming {incoming}: "{there.stderr()}"')
        with destination_vm(incoming=incoming + ',insecure=on') as there:
            listening(there)
        with Keys() as keys, destination_vm(keys.object('psk', 'server'), incoming) as there:
            listening(there)


@test
def bad_objects_and_parameters_are_refused_by_name():
    with Keys() as keys:
        dir_ = f'dir={keys.folder}'
        cases = [
            (['-object', 'tls-creds-psk,id=a,dir=/nowhere'], '/nowhere/keys.psk'),
            (['-object', f'tls-creds-psk,id=a,{dir_},username=eve'], "no key of 'eve'"),
            (['-object', f'tls-creds-psk,{dir_}'], 'needs an id'),
            (['-object', f'tls-creds-x509,id=a,{dir_},endpoint=both'], 'endpoint must be server or client'),
            (['-object', f'tls-creds-x509,id=a,{dir_},priority=HIGHEST'], 'HIGHEST'),
            (['-object', f'tls-creds-x509,id=a,{dir_},colour=red'], "no property 'colour'"),
            (['-object', 'authz-simple,id=a'], 'needs identity='),
            (['-object', 'authz-list,id=a,rules.1.match=x'], 'rules come in order'),
            (keys.object('psk', 'client') + ['-incoming', 'tcp:127.0.0.1:0'], 'needs endpoint=server'),
            (keys.object('psk', 'server') + ['-incoming', 'file:/dev/null'], 'nobody to shake hands with'),
            (keys.object('psk', 'server') + ['-incoming', 'tcp:127.0.0.1:0', '-global', 'migration.tls-authz=no'],
             "tls-authz: there is no list 'no'"),
            (['-global', 'migration.tls-creds=no', '-incoming', 'tcp:127.0.0.1:0'], "there are no credentials 'no'"),
        ]
        for options, words in cases:
            with Vm(machine() + options, qmp=False, name='refused') as vm:
                if vm.wait_exit() == 0 or words not in vm.stderr() or 'godwit: ' not in vm.stderr():
                    raise Failure(f'{options}: "{vm.stderr()}"')


if __name__ == '__main__':
    main()
