#!/usr/bin/env python3
"""A hand-over whose line breaks, or one of whose ends is killed: exactly one side runs the guest afterwards, and it has lost
nothing. Two processes, a guest that knows what must be in its memory, and a line that is cut at a chosen message."""
import pathlib, sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / 'lib'))
from vm import Failure, Vm, listening, main, test, wait_for
from proxy import DONE, GO, PREPARED, RUNNING, Lines
from guests import arrived, finish, machine, memcheck, wait_alive, wait_running_on

RESOLVE = '__org.godwit_migrate-resolve'


def source_vm():
    return Vm(machine(harts=2) + memcheck('32M', 2), typing=True, name='source')


def destination_vm(incoming='tcp:127.0.0.1:0', name='destination'):
    return Vm(machine(harts=2, more=['-incoming', incoming]), typing=True, name=name)


def says(vm, *words):
    """Until query-migrate's sentence has these words."""
    wait_for(f'{vm.name} to say {words}', lambda: all(word in vm.migration().get('error-desc', '') for word in words),
             alive=vm.alive)


def refuses(vm, command, words, **arguments):
    answer = vm.qmp.raw(command, **arguments)
    if words not in answer.get('error', {}).get('desc', ''):
        raise Failure(f'{vm.name} answers {command} {arguments} with {answer}, "{words}" was expected')


def stands_still(vm):
    if vm.status() == 'running':
        raise Failure(f'{vm.name} runs the guest')
    refuses(vm, 'cont', 'not known where the guest runs')


def moves_with_cuts(kind, cuts=1, after=False):
    """However the line was cut: nobody says a word, and the guest arrives."""
    with source_vm() as source, destination_vm() as there, Lines(listening(there), kind, cuts, after) as line:
        wait_alive(source, 2)
        source.migrate(line.uri)
        arrived(source, there)
        wait_running_on(there)
        if line.done != cuts:
            raise Failure(f'the line was cut {line.done} times')
        there.wait_migration('completed')
        report = source.migration()['__org.godwit_report']
        if report['where'] != 'there' or report['downtime-ms'] <= 0:
            raise Failure(f'the report says {report}')
        finish(there)


@test
def a_line_cut_before_go_is_made_again():
    moves_with_cuts(GO)


@test
def a_line_cut_behind_go_is_made_again():
    moves_with_cuts(GO, after=True)


@test
def a_line_cut_before_running_is_made_again():
    moves_with_cuts(RUNNING)


@test
def a_line_cut_behind_running_does_no_harm():
    moves_with_cuts(RUNNING, after=True)


@test
def a_line_cut_before_done_does_no_harm():
    moves_with_cuts(DONE)


@test
def a_line_that_is_cut_three_times_is_made_a_fourth_time():
    moves_with_cuts(GO, cuts=3)


@test
def a_destination_that_arrived_over_a_broken_line_may_leave_at_once():
    """What still waits for a question must not stand in the way of the next journey."""
    with source_vm() as source, destination_vm() as there, destination_vm(name='third') as third:
        with Lines(listening(there), DONE) as line:
            wait_alive(source, 1)
            source.migrate(line.uri)
            arrived(source, there)
            there.migrate(listening(third))
        arrived(there, third)
        wait_running_on(third)
        finish(third)


class Doubt:
    """A source that let the guest go, a destination that holds it, and no line; nobody asks again by himself."""

    def __init__(self, kind=GO, reconnect_time=0):
        self.kind, self.reconnect_time = kind, reconnect_time

    def __enter__(self):
        self.source, self.there = source_vm(), destination_vm()
        try:
            self.line = Lines(listening(self.there), self.kind).__enter__()
            wait_alive(self.source, 2)
            self.source.start_migration(self.line.uri, reconnect_time=self.reconnect_time)
            if self.kind != PREPARED:
                self.source.wait_migration('unresolved')
            self.there.wait_migration('unresolved')
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self.source, self.there

    def __exit__(self, *why):
        self.line.__exit__(*why)
        self.there.__exit__(*why)
        self.source.__exit__(*why)


@test
def in_doubt_nobody_runs_and_asking_ends_it():
    with Doubt() as (source, there):
        says(source, 'the peer does not say whether it runs', 'migrate_resolve')
        says(there, 'the guest is loaded and the source is gone', 'migrate_resolve')
        stands_still(source)
        stands_still(there)
        refuses(source, 'migrate', 'paused due to previous migration', uri='tcp:127.0.0.1:1')
        refuses(there, RESOLVE, 'cannot be asked', answer='ask')
        refuses(source, RESOLVE, "'answer' is 'here', 'there' or 'ask', not 'maybe'", answer='maybe')
        said = source.qmp.hmp('migrate_resolve')
        if said.strip():
            raise Failure(f'migrate_resolve says "{said}"')
        source.wait_migration('completed')
        arrived(source, there)
        wait_running_on(there)
        refuses(source, RESOLVE, 'nothing to resolve', answer='here')
        finish(there)


@test
def a_destination_that_is_killed_while_it_holds_the_guest_loses_nothing():
    with Doubt() as (source, there):
        there.process.kill()
        there.wait_exit()
        source.qmp(RESOLVE, answer='ask')
        says(source, 'migrate_resolve', 'ended after 0 of')  # by the line between, which finds nobody
        stands_still(source)
        source.qmp(RESOLVE, answer='here')
        source.wait_status('running')
        says(source, 'an operator said that the guest is here')
        wait_running_on(source)
        with destination_vm(name='second destination') as second:
            source.migrate(listening(second))
            arrived(source, second)
            finish(second)


@test
def a_source_that_is_killed_after_it_let_go_loses_nothing():
    with Doubt() as (source, there):
        source.process.kill()
        source.wait_exit()
        stands_still(there)
        said = there.qmp.hmp('migrate_resolve here')
        if said.strip():
            raise Failure(f'migrate_resolve here says "{said}"')
        there.wait_migration('completed')
        wait_running_on(there)
        finish(there)


@test
def a_source_that_is_killed_before_it_hears_running_loses_nothing():
    with source_vm() as source, destination_vm() as there, Lines(listening(there), RUNNING) as line:
        wait_alive(source, 1)
        source.start_migration(line.uri, reconnect_time=0)
        source.wait_migration('unresolved')
        source.process.kill()
        source.wait_exit()
        there.wait_migration('completed')
        wait_running_on(there)
        finish(there)


@test
def a_lost_prepared_leaves_the_guest_at_its_source():
    """The source takes the guest back before it has let go; the destination holds its copy until it is told."""
    with Doubt(PREPARED) as (source, there):
        wait_for('the source to give up', lambda: source.migration()['status'] == 'failed')
        wait_running_on(source)
        stands_still(there)
        there.qmp(RESOLVE, answer='there')
        if there.wait_exit() != 1 or 'an operator said that the guest is there' not in there.stderr():
            raise Failure(f'the destination ended saying "{there.stderr()}"')
        finish(source)


@test
def a_source_that_asks_finds_another_godwit_and_does_not_disturb_it():
    """The destination was killed, and somebody waits for a guest at its address: that one says that it holds none."""
    with Doubt() as (source, there):
        address = listening(there)
        there.process.kill()
        there.wait_exit()
        with destination_vm(address, 'newcomer') as newcomer:
            listening(newcomer)
            source.qmp(RESOLVE, answer='ask')
            says(source, 'it holds no guest, and waits for one')
            stands_still(source)
            source.qmp(RESOLVE, answer='here')
            source.wait_migration('failed')
            source.wait_status('running')
            wait_running_on(source)
            source.migrate(address)
            arrived(source, newcomer)
            wait_running_on(newcomer)
            finish(newcomer)


if __name__ == '__main__':
    main()
