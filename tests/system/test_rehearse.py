#!/usr/bin/env python3
"""A rehearsal: all of a migration, to a real destination, which drops it; the guest never leaves."""
import pathlib, re, subprocess, sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / 'lib'))
from vm import GODWIT, PATIENCE_S, Failure, Vm, listening, main, test, wait_for
from guests import arrived, finish, machine, memcheck, wait_alive, wait_running_on


def source_vm(**how):
    return Vm(machine(harts=2) + memcheck('16M', 2), typing=True, name='source', **how)


def destination_vm(**how):
    return Vm(machine(harts=2, more=['-incoming', 'tcp:127.0.0.1:0']), typing=True, name='destination', **how)


def rehearse(source, uri, *ends, **parameters):
    if parameters:
        source.qmp('migrate-set-parameters', **parameters)
    said = source.qmp.hmp(f'migrate -d -rehearse {uri}').strip()
    if said:
        raise Failure(said)
    return source.wait_migration(*(ends or ['completed']))


def waits_again(there, count):
    def look():
        info = there.migration()
        return info['status'] == 'setup' and info['__org.godwit_report'].get('rehearsals') == count
    wait_for(f'{there.name} to wait for the next guest after {count} rehearsals', look, alive=there.alive)
    if there.status() != 'inmigrate':
        raise Failure(f'{there.name} is {there.status()} after a rehearsal')


def left_as_it_was(source):
    """It runs, nobody holds it back or tracks it, and no thread of the migration is left."""
    source.wait_status('running')
    def threads():
        names = [(path / 'comm').read_text().strip() for path in pathlib.Path(f'/proc/{source.process.pid}/task').iterdir()]
        return not [name for name in names if re.match(r'migrate|work/|write/|return', name)]
    wait_for('the threads of the migration to end', threads)
    sockets = [path for path in (source.folder / 'state').rglob('*released*')]
    if sockets:
        raise Failure(f'a note is left: {sockets}')


@test
def a_guest_is_rehearsed_and_then_moves():
    with source_vm() as source, destination_vm() as there:
        wait_alive(source)
        uri = listening(there)
        for count in (1, 2):
            report = rehearse(source, uri)['__org.godwit_report']
            if report['where'] != 'here' or not report['rehearsal'] or not report['dropped']:
                raise Failure(f'{report}')
            if report['pauses-taken-back'] or report['stood-ms']:
                raise Failure(f'the good end of a rehearsal is told as {report["pauses-taken-back"]} pauses taken back')
            print(f'# predicted {report["predicted-downtime-ms"]:.1f} ms, a migration would have had '
                  f'{report["downtime-ms"]:.1f} ms, it stood still for {report["held-ms"]:.1f} ms')
            left_as_it_was(source)
            wait_running_on(source)
            waits_again(there, count)
        source.migrate(uri)
        arrived(source, there)
        finish(there)


@test
def people_see_what_came_of_it():
    with source_vm() as source, destination_vm() as there:
        wait_alive(source)
        uri = listening(there)
        rehearse(source, uri)
        said = source.qmp.hmp('info migrate')
        if 'the guest is: here' not in said or 'the destination dropped its copy' not in said:
            raise Failure(said)
        waits_again(there, 1)
        source.qmp.close()  # for another client
        source._qmp = None
        ran = subprocess.run([GODWIT, 'migrate', '--monitor', source.qmp_path, '--rehearse', uri], timeout=PATIENCE_S,
                             capture_output=True, text=True)
        if ran.returncode != 0 or 'rehearsal completed, the guest runs on here' not in ran.stdout:
            raise Failure(f'{ran}')
        wait_running_on(source)
        finish(source)


@test
def a_destination_that_dies_in_a_rehearsal_costs_nothing():
    with source_vm() as source, destination_vm() as there:
        wait_alive(source)
        source.qmp('migrate-set-parameters', **{'max-bandwidth': 1 << 20, 'compression': 'none'})
        source.qmp.hmp(f'migrate -d -rehearse {listening(there)}')
        wait_for('some data on the wire', lambda: source.migration().get('ram', {}).get('transferred', 0) > 1 << 19)
        there.process.kill()
        source.wait_migration('failed')
        left_as_it_was(source)
        finish(source)


@test
def a_source_that_dies_in_a_rehearsal_leaves_the_destination_waiting():
    with source_vm() as source, source_vm() as other, destination_vm() as there:
        wait_alive(source)
        source.qmp('migrate-set-parameters', **{'max-bandwidth': 1 << 20, 'compression': 'none'})
        uri = listening(there)
        source.qmp.hmp(f'migrate -d -rehearse {uri}')
        wait_for('some data on the wire', lambda: source.migration().get('ram', {}).get('transferred', 0) > 1 << 19)
        source.process.kill()
        waits_again(there, 1)
        wait_alive(other)
        other.migrate(uri)
        arrived(other, there)
        finish(there)


@test
def a_cancelled_rehearsal_leaves_the_destination_waiting():
    with source_vm() as source, destination_vm() as there:
        wait_alive(source)
        source.qmp('migrate-set-parameters', **{'max-bandwidth': 1 << 20, 'compression': 'none'})
        uri = listening(there)
        source.qmp.hmp(f'migrate -d -rehearse {uri}')
        wait_for('some data on the wire', lambda: source.migration().get('ram', {}).get('transferred', 0) > 1 << 19)
        source.qmp('migrate_cancel')
        source.wait_migration('cancelled')
        left_as_it_was(source)
        waits_again(there, 1)
        source.migrate(uri, **{'max-bandwidth': 0})
        arrived(source, there)
        finish(there)


@test
def where_nobody_answers_or_can_be_called_again_it_is_refused():
    with source_vm() as source:
        wait_alive(source)
        for uri in ('file:/dev/null', 'exec:cat >/dev/null'):
            said = source.qmp.hmp(f'migrate -d -rehearse "{uri}"')
            if 'nobody answers' not in said:
                raise Failure(f'{uri}: {said}')
        finish(source)


if __name__ == '__main__':
    main()
