#!/usr/bin/env python3
"""The hand-over's promises on real processes: the line is cut, halved or stalled at each message and at offsets all over the
data, and either end is killed, stopped, stalled or told of an error at each of its fault points. Whatever happens: exactly one
guest runs or can be resumed, its memory is what it wrote, it moves on, and nothing is left over; or the only process that
held it was killed.

    make reliability                                     all of it
    GODWIT_CASE='there=target-go:kill' tests/system/test_reliability.py      one case again
    GODWIT_SEED=N                                        which sample, and which offsets
    GODWIT_FAULTS=N                                      a sample N times as large
"""
import collections, contextlib, os, pathlib, random, sys, threading, time
from concurrent.futures import ThreadPoolExecutor

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / 'lib'))
from vm import LONG, Failure, Vm, listening, main, test, wait_for
from proxy import Chaos
from guests import finish, machine, memcheck, wait_alive, wait_running_on
from faults import LEADS, RESOLVE, WITH_DISK, Case, NotMet, World, belongings, notes, own, points, run_case

SEED = int(os.environ.get('GODWIT_SEED', random.randrange(2 ** 31)))
CASE = os.environ.get('GODWIT_CASE')
PARALLEL = 2
TIMES = int(os.environ.get('GODWIT_FAULTS', 1))  # so many samples in one

# --- many cases -------------------------------------------------------------------------------------------------------


def run_all(what, cases):
    """Each of them; the first failures are told, with how to see them again."""
    print(f'# GODWIT_SEED={SEED}: {len(cases)} {what}')
    counts, failures, lock = collections.Counter(), [], threading.Lock()
    def one(text):
        if len(failures) >= 10:
            return
        try:
            end = run_case(text, SEED)
        except NotMet as why:
            end = 'never met'
            print(f'# {text}: {why}', flush=True)
        except Exception as why:
            end = 'FAILED'
            with lock:
                failures.append(text)
                print(f"# FAILED: {why!r}\n#   again: GODWIT_SEED={SEED} GODWIT_CASE='{text}' {sys.argv[0]}", flush=True)
        with lock:
            counts[end] += 1
    begun = time.monotonic()
    with ThreadPoolExecutor(PARALLEL) as pool:
        list(pool.map(one, cases))
    print(f'# {what}: {dict(counts)} in {time.monotonic() - begun:.0f} s', flush=True)
    if counts['never met'] > max(2, len(cases) // 20):
        raise Failure(f'{counts["never met"]} of {len(cases)} {what} happened too late to be any')
    if failures:
        raise Failure(f'{len(failures)} of {len(cases)} {what}, the first: {failures[0]}')


def some(cases, count):
    """All of them, or a sample; one that was asked for, here alone."""
    if CASE:
        return [CASE] if cases else []
    return cases if LONG else random.Random(SEED).sample(cases, min(count * TIMES, len(cases)))


SHAPES = ('', 'harts=2', 'channels=3', 'harts=4 channels=2')


def shaped(cases):
    """Of each case one shape, by turns."""
    return [f'{case} {SHAPES[number % len(SHAPES)]}'.strip() for number, case in enumerate(cases)]


def lengths(shape):
    """Bytes that an undisturbed migration sends, by way, and the elements it consists of."""
    with World(Case(shape)) as world, Chaos(listening(world.there)) as line:
        wait_alive(world.source)
        world.source.migrate(line.uri)
        wait_for('DONE', lambda: ('there', 'DONE') in line.seen)
        return dict(line.passed), dict(line.seen)


def cuts_at_elements():
    """A quarter of them over each shape."""
    return [case for number, shape in enumerate(SHAPES) for case in cuts_of(shape)[number::len(SHAPES)]]


def cuts_of(shape):
    _, seen = lengths(shape)
    places = [(way, name, nth) for (way, name), count in seen.items()
              for nth in sorted({1, 2, count} & set(range(1, count + 1))) if not (name == 'PART' and nth == count)]
    return [f'line={how},{way},{name}:{nth}:{where} {shape}'.strip() for how in ('cut', 'half', 'stall', 'reset')
            for way, name, nth in places if name != 'LOADED' or nth == 1 for where in ('before', 'in', 'after')
            if not (name == 'DONE' and how in ('half', 'stall') and where != 'before')]


def cuts_at_offsets(count):
    passed = [lengths(shape)[0] for shape in SHAPES]
    dice = random.Random(SEED)
    cases = []
    for number in range(count):
        way = 'back' if number % 5 == 4 else 'there'
        how = dice.choice(['cut', 'cut', 'reset', 'half', 'stall'])
        length = passed[number % len(SHAPES)][way]
        cases.append(f'line={how},{way},{dice.randrange(int(length * 0.6))}')  # the next one may be shorter
    return shaped(cases)


def faults(actions):
    cases = []
    for point, fails in points():
        who = point.split('-')[0].replace('target', 'there')
        lead = LEADS.get(point, '')
        times = [1, 3] if point in ('source-harvest', 'source-write', 'target-load') else [1]
        for action in actions:
            if action == 'error' and not fails:
                continue
            disk = 'disk=1' if point in WITH_DISK else ''
            if lead.startswith(who) and action == 'error':
                continue
            cases += [' '.join(f'{lead} {who}={point}:{nth}:{action} {disk}'.split()) for nth in times]
    return shaped(cases)


# --- what settles a doubt ----------------------------------------------------------------------------------------------


def settled_by(vm, by):
    info = vm.migration()
    if info['__org.godwit_report'].get('settled-by') != by:
        raise Failure(f'{vm.name} says {info}, not that the {by} settled it')


def doubt_ends(by):
    """The source has let go and heard nothing more; the guest runs there, and so has its disk."""
    with World(Case('disk=1 line=cut,back,RUNNING:1:before')) as world:
        source, there = world.source, world.there
        with Chaos(listening(there), world.case.plan) as line:
            wait_alive(source)
            source.start_migration(line.uri, reconnect_time=0)
            source.wait_migration('unresolved')
            there.wait_status('running')
            if by == 'peer':
                source.qmp(RESOLVE, answer='ask')
                source.wait_migration('completed')
        if by != 'peer':
            source.qmp(RESOLVE, answer='there' if by == 'operator' else 'ask')
        source.wait_migration('completed')
        settled_by(source, by)
        if notes(source):
            raise Failure(f'{notes(source)} are left over')
        finish(there)


# --- the lease beside the disk ------------------------------------------------------------------------------------------


def lease(world):
    """(epoch, word) beside the world's disk."""
    lines = dict(line.split(' ', 1) for line in pathlib.Path(f'{world.folder.name}/disk.lease').read_text().splitlines()[1:4])
    return int(lines['epoch']), lines['word']


@contextlib.contextmanager
def in_doubt_with_a_disk(cut):
    """The line is cut and stays so: the source does not know where the guest runs."""
    with World(Case(f'disk=1 line=cut,{cut}:1:before')) as world:
        with Chaos(listening(world.there), world.case.plan) as line:
            wait_alive(world.source)
            world.source.start_migration(line.uri, reconnect_time=0)
            world.source.wait_migration('unresolved')
        yield world


def a_guest_that_ran_and_ended():
    """Its process is gone and the disk's lock is free: the lease remembers, whatever a person says."""
    for answer in 'ask', 'here':
        with in_doubt_with_a_disk('back,RUNNING') as world:
            world.there.wait_status('running')
            wait_for('the lease to say so', lambda: lease(world) == (2, 'runs'))
            finish(world.there)
            world.source.qmp(RESOLVE, answer=answer)
            world.source.wait_migration('completed')
            settled_by(world.source, 'lease')


def a_guest_that_was_not_started():
    """The lease does not say that it was, so a person has to; the copy that the destination still holds is stale from then on."""
    with in_doubt_with_a_disk('there,GO') as world:
        source, there = world.source, world.there
        there.wait_migration('unresolved')
        source.qmp(RESOLVE, answer='ask')
        wait_for('what the lease says', lambda: 'epoch 1' in source.migration().get('error-desc', ''), alive=source.alive)
        source.qmp(RESOLVE, answer='here')
        source.wait_status('running')
        settled_by(source, 'operator')
        if lease(world) != (2, 'back'):
            raise Failure(f'the lease is {lease(world)}')
        wait_running_on(source)
        finish(source)  # the locks are free
        there.qmp(RESOLVE, answer='here')
        wait_for('a refusal', lambda: 'epoch 2 (back)' in there.migration().get('error-desc', ''), 20, alive=there.alive)
        if there.status() != 'inmigrate':
            raise Failure(f'the second copy is {there.status()}')


# --- cancels ----------------------------------------------------------------------------------------------------------


def cancel(source, dice):
    """Milliseconds until the migration was over, by either monitor language; None: refused, GO was on its way."""
    begun = time.monotonic()
    if dice.random() < 0.5:
        refused = 'error' in source.qmp.raw('migrate_cancel')
    else:
        refused = bool(source.qmp.hmp('migrate_cancel').strip())
    while source.migration()['status'] not in ('cancelled', 'completed', 'failed'):
        continue
    took_ms = (time.monotonic() - begun) * 1e3
    status = source.migration()['status']
    if refused != (status == 'completed') and status != 'completed':
        raise Failure(f'a cancel was {"refused" if refused else "taken"}, and the migration is {status}')
    return None if status == 'completed' else took_ms


def many_cancels(count):
    dice, took_ms, moved = random.Random(SEED), [], 0
    options = lambda more=(): machine('32M', harts=2, more=more)
    at = Vm(options() + memcheck('16M', 2), typing=True, name='source')
    there = None
    try:
        wait_alive(at)
        before = own(at)
        while len(took_ms) < count:
            there = Vm(options(['-incoming', 'tcp:127.0.0.1:0']), typing=True, name='destination')
            at.start_migration(listening(there), max_bandwidth=dice.choice([0, 0, 64 << 20, 16 << 20]),
                               compression=dice.choice(['none', 'lz4']))
            time.sleep(dice.random() * dice.choice([0.01, 0.05, 0.2]))  # the moment is the test's input
            took = cancel(at, dice)
            if took is None:
                there.wait_status('running')
                at.close()
                at, there, moved = there, None, moved + 1
                wait_running_on(at)
                continue
            if at.status() != 'running':
                raise Failure(f'after a cancel the guest is {at.status()}')
            took_ms.append(took)
            there.wait_exit()
            there.close()
            there = None
        wait_running_on(at)
        wait_for('nothing to be left over', lambda: belongings(at) == before or moved, 10)
        finish(at)
    except BaseException:
        for vm in filter(None, (at, there)):
            vm.__exit__(*sys.exc_info())
        raise
    at.close()
    took_ms.sort()
    late = sum(ms > 100 for ms in took_ms)
    print(f'# GODWIT_SEED={SEED}: {count} cancels, {moved} more came too late; over after {took_ms[count // 2]:.1f} ms (median), '
          f'{took_ms[count * 99 // 100]:.1f} ms (99 of 100), {took_ms[-1]:.1f} ms (worst), {late} after more than 100 ms; '
          f'load {os.getloadavg()[0]:.0f}', flush=True)


if CASE:
    @test
    def the_case_that_was_asked_for():
        print(f'# {run_case(CASE, SEED)}')
else:
    @test
    def a_line_that_breaks_at_any_message_costs_nobody_the_guest():
        run_all('cuts at messages', some(cuts_at_elements(), 12))

    @test
    def a_destination_that_ran_after_a_silence_answers_a_source_that_asks():
        """It ended by an assertion, and with it the only guest."""
        end = run_case('source=source-go:1:stop hold=900 line=cut,back,RUNNING:1:before', SEED)
        if end != 'there':
            raise Failure(end)

    @test
    def nor_one_that_breaks_at_any_byte():
        run_all('cuts at offsets', some(cuts_at_offsets(400), 8))

    @test
    def a_process_killed_at_any_step_takes_along_only_what_it_alone_held():
        run_all('kills', some(faults(['kill']), 12))

    @test
    def a_process_that_stops_at_any_step_and_goes_on_costs_nobody_the_guest():
        run_all('stops and stalls', some(faults(['stop', 'stall']), 8))

    @test
    def a_doubt_is_settled_by_the_peer_else_by_its_disks_lock_else_by_a_person():
        for by in ('peer', 'lease', 'operator'):
            doubt_ends(by)

    @test
    def the_lease_beside_the_disk_remembers_a_guest_that_ran():
        a_guest_that_ran_and_ended()

    @test
    def a_copy_that_is_older_than_the_lease_runs_by_nobodys_word():
        a_guest_that_was_not_started()

    @test
    def a_cancel_at_any_moment_leaves_the_guest_here_or_whole_there():
        many_cancels(1000 if LONG else 15 * TIMES)

    @test
    def an_error_at_any_step_costs_nobody_the_guest():
        run_all('errors', some(faults(['error']), 6))


if __name__ == '__main__':
    main()
