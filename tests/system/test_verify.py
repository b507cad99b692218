#!/usr/bin/env python3
"""verify=full between two processes: a guest that works all the time is the same on both sides, and goes."""
import pathlib, sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / 'lib'))
from vm import Failure, Vm, listening, main, test
from guests import arrived, check, finish, machine, memcheck, wait_alive, wait_running_on


def move(**parameters):
    both = machine(harts=2)
    with Vm(both + ['-incoming', 'tcp:127.0.0.1:0'], typing=True, name='there') as there:
        with Vm(both + memcheck('16M', 2), typing=True, name='here') as here:
            wait_alive(here)
            here.qmp('migrate-set-parameters', verify='full', **parameters)
            here.migrate(listening(there))
            arrived(here, there)
            wait_running_on(there)
            check(there)
            finish(there)


@test
def a_guest_that_works_is_equal_on_both_sides_and_goes():
    move()


@test
def so_it_is_over_data_channels_and_with_the_auditor_at_all_pages():
    move(channels=3, audit=1000, **{'downtime-limit': 2000})


@test
def what_cannot_be_asked_is_refused_before_anything_is_sent():
    with Vm(machine() + memcheck(), typing=True, name='here') as here:
        wait_alive(here)
        here.qmp('migrate-set-parameters', verify='full')
        here.start_migration('exec:cat > /dev/null')
        ended = here.wait_migration('failed')
        if 'verify=full' not in ended.get('error-desc', ''):
            raise Failure(f'it says {ended.get("error-desc")!r}')
        wait_running_on(here)


if __name__ == '__main__':
    main()
