#!/usr/bin/env python3
"""Memory over several connections: whatever happens to one of them, the guest is on one side, whole."""
import pathlib, sys, time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / 'lib'))
from vm import Failure, Vm, listening, main, test, wait_for
from proxy import GO, PREPARED, Bundle, Cut, Elements, Lines, Relay
from guests import arrived, finish, machine, memcheck, wait_alive, wait_running_on

CHANNELS = 4


def source_vm():
    return Vm(machine(harts=2) + memcheck('32M', 2), typing=True, name='source')


def destination_vm(name='destination', incoming='tcp:127.0.0.1:0'):
    return Vm(machine(harts=2, more=['-incoming', incoming]), typing=True, name=name)


def moves_after_all(source):
    """The same source's guest leaves for a new destination, whole, over as many channels."""
    with destination_vm('second destination') as there:
        source.migrate(listening(there))
        arrived(source, there)
        wait_running_on(there)
        finish(there)


def says_why_and_ends(there):
    code = there.wait_exit()
    if code == 0 or 'godwit:' not in there.stderr():
        raise Failure(f'the destination ended with {code}, saying "{there.stderr().strip()}"')


def carried(source):
    """Bytes that went over data channels."""
    return source.migration()['ram']['multifd-bytes']


@test
def every_connection_carries_memory():
    with source_vm() as source, destination_vm() as there, Bundle(listening(there)) as bundle:
        wait_alive(source, 2)
        source.migrate(bundle.uri, channels=CHANNELS, compression='none', downtime_limit=20000)
        arrived(source, there)
        wait_running_on(there)
        if len(bundle.carried) != 1 + CHANNELS or min(bundle.carried[1:]) < 1 << 20 or bundle.carried[0] > 1 << 17:
            raise Failure(f'the connections carried {bundle.carried} bytes')
        if not sum(bundle.carried[1:]) >= carried(source) >= 16 << 20:
            raise Failure(f'{carried(source)} bytes are said to have gone over {bundle.carried}')
        finish(there)


@test
def the_names_that_qemu_has_are_understood():
    for parameters, count in ({}, 2), ({'multifd-channels': 3}, 3):
        with source_vm() as source, destination_vm() as there, Bundle(listening(there)) as bundle:
            wait_alive(source)
            for vm in source, there:
                vm.qmp('migrate-set-capabilities', capabilities=[{'capability': 'multifd', 'state': True}])
                vm.qmp('migrate-set-parameters', **parameters)
            source.migrate(bundle.uri)
            arrived(source, there)
            if len(bundle.carried) != 1 + count:
                raise Failure(f'{len(bundle.carried)} connections with {parameters}')
            finish(there)


@test
def an_address_that_is_one_connection_is_refused_at_once():
    with source_vm() as source:
        wait_alive(source)
        source.qmp('migrate-set-parameters', channels=CHANNELS)
        for uri in 'exec:cat >/dev/null', 'file:/dev/null', 'fd:0':
            answer = source.qmp.raw('migrate', uri=uri)
            if '4 channels' not in answer.get('error', {}).get('desc', '') or uri not in answer['error']['desc']:
                raise Failure(f'migrate {uri} was answered with {answer}')
        wait_running_on(source)
        source.qmp('migrate-set-parameters', channels=1)
        moves_after_all(source)


def fails_and_moves_later(after, words, **parameters):
    with source_vm() as source, destination_vm() as there, Bundle(listening(there), after) as bundle:
        wait_alive(source, 2)
        source.start_migration(bundle.uri, channels=CHANNELS, compression='none', **parameters)
        source.wait_migration('failed')
        why = source.migration()['error-desc']
        if not any(word in why for word in words):
            raise Failure(f'the source says "{why}"')
        source.wait_status('running')
        wait_running_on(source)
        bundle.over.set()
        says_why_and_ends(there)
        source.qmp('migrate-set-parameters', peer_timeout=10000)
        moves_after_all(source)


@test
def a_data_channel_that_is_cut_ends_the_attempt_and_the_guest_stays():
    for number in 1, CHANNELS:
        fails_and_moves_later({number: (1 << 20, 'cut')}, ['data channel'])


@test
def a_data_channel_that_is_cut_before_its_answer_ends_the_attempt():
    fails_and_moves_later({2: (0, 'cut')}, ['data channel 2'])


@test
def the_main_channel_that_is_cut_ends_the_attempt():
    fails_and_moves_later({0: (1200, 'cut')}, ['ended', 'closed', 'lost', 'write', 'no answer', 'read'])


@test
def a_data_channel_that_stalls_is_given_up():
    # By the source, which has more for it than it takes; or by the destination, which waits for the rest of a round.
    fails_and_moves_later({3: (1 << 20, 'stall')}, ['taken nothing', 'said nothing', 'nothing came'], peer_timeout=1000)


def cancel_while(after):
    with source_vm() as source, destination_vm() as there, Bundle(listening(there), after) as bundle:
        wait_alive(source, 2)
        source.start_migration(bundle.uri, channels=CHANNELS, compression='none')
        wait_for('the line to stall', bundle.happened.is_set)
        begun = time.monotonic()
        source.qmp('migrate_cancel')
        source.wait_migration('cancelled')
        source.wait_status('running')
        print(f'# running on after {(time.monotonic() - begun) * 1e3:.0f} ms')
        wait_running_on(source)
        bundle.over.set()
        says_why_and_ends(there)
        moves_after_all(source)


@test
def cancel_while_one_channel_of_several_stalls():
    cancel_while({2: (1 << 20, 'stall')})


@test
def cancel_while_a_channel_is_not_answered():
    cancel_while({2: (0, 'stall')})


@test
def a_line_cut_in_the_hand_over_is_made_again_for_words_alone():
    for kind in PREPARED, GO:
        with source_vm() as source, destination_vm() as there, Lines(listening(there), kind) as line:
            wait_alive(source, 2)
            source.qmp('migrate-set-parameters', channels=CHANNELS)
            if kind == GO:
                source.migrate(line.uri)
                arrived(source, there)
                wait_running_on(there)
                finish(there)
            else: # before anything was released: the guest is still the source's
                source.start_migration(line.uri)
                source.wait_migration('failed')
                wait_running_on(source)


@test
def a_pause_that_is_taken_back_goes_on_over_the_same_channels():
    """PREPARED is late: the source takes its guest back, says RETRACT, and sends what was written since."""
    with source_vm() as source, destination_vm() as there, Bundle(listening(there), hold=PREPARED) as bundle:
        wait_alive(source, 2)
        source.start_migration(bundle.uri, channels=CHANNELS, downtime_limit=200)
        wait_for('PREPARED', bundle.happened.is_set)
        source.wait_migration('active')
        wait_running_on(source)
        bundle.let_go.set()
        source.wait_migration('completed')
        arrived(source, there)
        wait_running_on(there)
        finish(there)


class LateRetract(Bundle):
    """RETRACT, too, is held, for as long as data channels that did not wait for its answer would need to show it."""

    def change(self, piece):
        if piece.way == 'there' and piece.connection == 0 and piece.name == 'RETRACT':
            before = sum(self.carried[1:])
            self.over.wait(1)
            self.early = sum(self.carried[1:]) - before
            self.let_go.set()
        return super().change(piece)


@test
def nothing_follows_a_pause_that_is_taken_back_before_the_destination_knows():
    with source_vm() as source, destination_vm() as there, LateRetract(listening(there), hold=PREPARED) as bundle:
        wait_alive(source, 2)
        source.start_migration(bundle.uri, channels=CHANNELS, downtime_limit=200, compression='none')
        wait_for('RETRACT', lambda: hasattr(bundle, 'early'), alive=source.alive)
        if bundle.early:
            raise Failure(f'{bundle.early} bytes of the next round overtook RETRACT')
        source.qmp('migrate-set-parameters', downtime_limit=20000)
        source.wait_migration('completed')
        arrived(source, there)
        finish(there)


class HeldMark(Relay):
    """The end of a round never comes over data channel 1; all of its pages do, and the main line is well."""

    read = Elements

    def change(self, piece):
        if piece.way == 'there' and piece.connection == 1 and piece.name == 'MARK':
            self.over.wait()
            return Cut()
        return piece.data


@test
def a_round_whose_rest_does_not_come_is_given_up():
    with source_vm() as source, destination_vm() as there, HeldMark(listening(there)) as line:
        there.qmp('migrate-set-parameters', peer_timeout=1000)
        wait_alive(source, 2)
        source.start_migration(line.uri, channels=CHANNELS, compression='none')
        source.wait_migration('failed')
        if 'a round has ended' not in source.migration()['error-desc']:
            raise Failure(f'the source says "{source.migration()["error-desc"]}"')
        wait_running_on(source)


@test
def a_destination_killed_under_way_leaves_the_guest_at_the_source():
    with source_vm() as source, destination_vm() as there:
        wait_alive(source, 2)
        source.start_migration(listening(there), channels=CHANNELS, compression='none', max_bandwidth=8 << 20)
        wait_for('some data on the wire', lambda: source.migration().get('ram', {}).get('multifd-bytes', 0) > 1 << 20)
        there.process.kill()
        source.wait_migration('failed')
        wait_running_on(source)
        source.qmp('migrate-set-parameters', max_bandwidth=0)
        moves_after_all(source)


if __name__ == '__main__':
    main()
