"""The bare-metal guests as tests use them, and a guest that is handed from process to process."""
import os, pathlib, random, re, socket, time

from vm import BUILD, THREAD_SANITIZER, Failure, Skip, Vm, listening, wait_for

ALIVE = r'alive (\d+) pass (\d+) maxgap_us (\d+)\r?\n'
BAD = re.compile(r'MISMATCH[^\n]*|EARLY[^\n]*|BACKWARDS[^\n]*|trap[^\n]*cause[^\n]*|\bERROR\b[^\n]*')


def guest(name):
    path = BUILD / 'guest' / f'{name}.elf'
    if not path.exists():
        raise Skip(f'{path.name} is not built (make guests)')
    return path


def machine(memory='64M', harts=1, more=()):
    """Options that both sides of a migration must share."""
    return ['-m', memory, '-smp', harts, '-bios', 'none', *more]


# The source looks for pages that changed without being marked, after each round and in the pause at all there are.
# ThreadSanitizer makes that longer than the pause may take.
AUDIT = ['-global', 'migration.audit=1000', *(['-global', 'migration.downtime-limit=20000'] if THREAD_SANITIZER else [])]


def audited(source):
    """It looked while it migrated, and found nothing. (A miss also ends a migration, as "failed".)"""
    report = source.qmp('query-migrate')['__org.godwit_report']
    if not report['audited-pages'] or report['audit-misses']:
        raise Failure(f'{source.name} audited {report["audited-pages"]} pages and missed {report["audit-misses"]}')


def memcheck(mem='16M', harts=1, more=''):
    """Options that load the guest which knows what must be in its memory."""
    return ['-kernel', guest('memcheck'), '-append', f'mem={mem} harts={harts} {more}'.strip()]


def check(vm):
    """Nothing that a guest complains of."""
    found = BAD.search(vm.serial())
    if found:
        raise Failure(f'the guest in {vm.name} says: {found.group(0).strip()}')


def wait_alive(vm, lines=1):
    """So many more lines of life, whole ones, and none that complains."""
    after = len(vm.serial())
    for _ in range(lines):
        after = vm.wait_serial(ALIVE + '|' + BAD.pattern, after=after).end()
        check(vm)


def wait_running_on(vm):
    """The guest answers a key with its state: it runs, now, whatever the hour of its next line."""
    after = len(vm.serial())
    vm.type('s')
    vm.wait_serial(ALIVE + '|' + BAD.pattern, after=after)
    check(vm)


def finish(vm):
    """The guest checks all of its memory, says OK and powers off: the process ends with 0."""
    vm.type('q')
    vm.wait_serial(r'OK passes=\d+|' + BAD.pattern)
    check(vm)
    code = vm.wait_exit()
    if code != 0:
        raise Failure(f'{vm.name} ended with code {code} after the guest powered off: {vm.stderr()}')


def arrived(source, destination, status='running'):
    destination.wait_status(status)
    if source.status() != 'postmigrate':
        raise Failure(f'{source.name} is {source.status()} although the guest has left')
