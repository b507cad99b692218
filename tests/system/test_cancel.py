#!/usr/bin/env python3
"""A migration is cancelled at any moment: the guest runs on where it is, and may leave for somewhere else afterwards."""
import os, pathlib, random, socket, sys, time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / 'lib'))
from vm import LONG, Failure, Vm, listening, main, test, wait_for
from proxy import Proxy
from guests import arrived, check, finish, machine, memcheck, wait_alive, wait_running_on

CANCELS = 200 if LONG else 20
SEED = int(os.environ.get('GODWIT_SEED', random.randrange(2 ** 31)))
ENDS = ('cancelled', 'failed', 'completed')


def source_vm(**how):
    return Vm(machine(harts=2) + memcheck('32M', 2), typing=True, name='source', **how)


def destination_vm(name='destination', incoming='tcp:127.0.0.1:0'):
    return Vm(machine(harts=2, more=['-incoming', incoming]), typing=True, name=name)


def cancel(source):
    """Cancels, waits for the end, returns milliseconds until the source's guest was seen to be running."""
    begun = time.monotonic()
    source.qmp('migrate_cancel')
    source.wait_migration('cancelled')
    source.wait_status('running')
    return (time.monotonic() - begun) * 1e3


def moves_after_all(source):
    """The same source's guest leaves for a new destination, whole."""
    with destination_vm('second destination') as there:
        source.migrate(listening(there), max_bandwidth=0)
        arrived(source, there)
        wait_running_on(there)
        finish(there)


def says_why_and_ends(there):
    code = there.wait_exit()
    if code == 0 or 'godwit:' not in there.stderr():
        raise Failure(f'a destination whose source cancelled ended with {code}, saying "{there.stderr().strip()}"')


class Blackhole:
    """Takes connections into its backlog and never answers."""

    def __enter__(self):
        self.socket = socket.socket()
        self.socket.bind(('127.0.0.1', 0))
        self.socket.listen(8)
        self.uri = f'tcp:127.0.0.1:{self.socket.getsockname()[1]}'
        return self

    def __exit__(self, *_):
        self.socket.close()


@test
def cancel_during_setup_with_a_silent_peer():
    with source_vm() as source, Blackhole() as hole:
        wait_alive(source)
        source.start_migration(hole.uri)
        took = cancel(source)
        print(f'# running on after {took:.0f} ms')
        wait_running_on(source)
        moves_after_all(source)


@test
def cancel_while_connecting_to_a_peer_that_does_not_accept():
    """A backlog that is full: the connection is never made."""
    with source_vm() as source, socket.socket() as full:
        full.bind(('127.0.0.1', 0))
        full.listen(0)
        stuffing = []
        for _ in range(4):
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(full.getsockname())
            stuffing.append(one)
        wait_alive(source)
        source.start_migration(f'tcp:127.0.0.1:{full.getsockname()[1]}')
        print(f'# running on after {cancel(source):.0f} ms')
        for one in stuffing:
            one.close()
        wait_running_on(source)
        moves_after_all(source)


@test
def cancel_while_memory_crosses_a_slow_line():
    with source_vm() as source, destination_vm() as there:
        wait_alive(source, 2)
        source.start_migration(listening(there), max_bandwidth=1 << 20, compression='none')
        wait_for('some data on the wire', lambda: source.migration().get('ram', {}).get('transferred', 0) > 1 << 19)
        print(f'# running on after {cancel(source):.0f} ms')
        wait_running_on(source)
        says_why_and_ends(there)
        source.qmp('migrate-set-parameters', compression='lz4')
        moves_after_all(source)


@test
def cancel_with_a_peer_that_has_stopped_reading():
    """The socket is full and nothing moves: a writer that waits for it is woken."""
    with source_vm() as source, destination_vm() as there:
        uri = listening(there)
        wait_alive(source, 2)
        source.start_migration(uri, max_bandwidth=4 << 20, compression='none')
        wait_for('some data on the wire', lambda: source.migration().get('ram', {}).get('transferred', 0) > 1 << 19)
        there.process.send_signal(19)  # SIGSTOP
        source.qmp('migrate-set-parameters', max_bandwidth=0)
        last = [0, time.monotonic()]
        def stands_still():
            sent = source.migration().get('ram', {}).get('transferred', 0)
            if sent != last[0]:
                last[:] = sent, time.monotonic()
            return time.monotonic() - last[1] > 0.3
        wait_for('the line to be full', stands_still)
        print(f'# running on after {cancel(source):.0f} ms')
        there.process.send_signal(18)
        wait_running_on(source)
        says_why_and_ends(there)
        source.qmp('migrate-set-parameters', compression='lz4')
        moves_after_all(source)


@test
def cancel_in_the_pause_brings_the_guest_back():
    """A line so slow that the last round takes seconds, and a downtime limit that allows it."""
    with source_vm() as source, destination_vm() as there, Proxy(listening(there), bytes_per_s=16 << 20) as line:
        wait_alive(source, 2)
        source.start_migration(line.uri, downtime_limit=1000000, compression='none')
        source.wait_migration('device')
        print(f'# running on after {cancel(source):.0f} ms')
        wait_running_on(source)
        says_why_and_ends(there)
        source.qmp('migrate-set-parameters', compression='lz4', downtime_limit=300)
        moves_after_all(source)


@test
def a_second_migration_is_refused_while_one_runs():
    with source_vm() as source, Blackhole() as hole:
        wait_alive(source)
        source.start_migration(hole.uri)
        answer = source.qmp.raw('migrate', uri='tcp:127.0.0.1:1')
        if 'error' not in answer or 'migration is running' not in answer['error']['desc']:
            raise Failure(f'a second migrate was answered with {answer}')
        cancel(source)
        wait_running_on(source)


@test
def cancel_when_nothing_runs_does_nothing():
    with source_vm() as source:
        wait_alive(source)
        source.qmp('migrate_cancel')
        if source.migration():
            raise Failure(f'there is a migration: {source.migration()}')
        wait_running_on(source)
        moves_after_all(source)
        source.qmp('migrate_cancel')


@test
def many_cancels_at_random_moments():
    """Whatever the moment: either the guest is here and runs, or it has arrived there whole; never both, never none."""
    dice = random.Random(SEED)
    print(f'# GODWIT_SEED={SEED}')
    counts, slowest, at = {}, 0, source_vm()
    try:
        wait_alive(at, 2)
        at.qmp('migrate-set-parameters', downtime_limit=300)
        for number in range(CANCELS):
            there = destination_vm(f'destination {number}')
            try:
                uri = listening(there)
                at.start_migration(uri, max_bandwidth=dice.choice([0, 0, 64 << 20, 16 << 20]),
                                   compression=dice.choice(['none', 'lz4']))
                moment = dice.random() * dice.choice([0.02, 0.1, 0.3])
                time.sleep(moment)  # the moment is the test's input, nothing waits for anything here
                answer = at.qmp.raw('migrate_cancel')
                begun = time.monotonic()
                info = at.wait_migration('cancelled', 'completed')
                status = info['status']
                if status == 'cancelled':
                    at.wait_status('running')
                    slowest = max(slowest, time.monotonic() - begun)
                    wait_running_on(at)
                    says_why_and_ends(there)
                    there.close()
                else:
                    arrived(at, there)
                    wait_running_on(there)
                    at.close()
                    at, there = there, None
                refused = 'error' in answer
                counts[status, refused] = counts.get((status, refused), 0) + 1
                if status == 'cancelled' and refused:
                    raise Failure('the cancel was refused, and then the migration was cancelled')
            except BaseException:
                if there:
                    there.__exit__(*sys.exc_info())
                raise
        print(f'# {counts}, slowest {slowest * 1e3:.0f} ms')
        moves_after_all(at)
    except BaseException:
        at.__exit__(*sys.exc_info())
        raise
    at.close()


if __name__ == '__main__':
    main()
