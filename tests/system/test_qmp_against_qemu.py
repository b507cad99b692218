#!/usr/bin/env python3
"""The same questions to QEMU's riscv64 virt machine and to godwit: do the answers have the same members and types?

godwit may add members named __org.godwit_*; what it may lack is listed here, each time with the reason's name.
Prints "ok NAME" or "not ok NAME reason". GODWIT is the program under test, QEMU_RISCV64 the reference.
"""
import json, os, re, select, shutil, subprocess, sys, tempfile, time

GODWIT = os.environ.get('GODWIT', 'build/godwit')
QEMU = os.environ.get('QEMU_RISCV64', 'qemu-system-riscv64')
MACHINE = ['-M', 'virt', '-m', '64M', '-smp', '2', '-display', 'none', '-serial', 'null', '-bios', 'none',
           '-name', 'bird', '-uuid', '01020304-0506-0708-090a-0b0c0d0e0f10', '-S']
LIMIT_S = 30
failed = 0


class Vm:
    """One emulator with QMP on its standard input and output."""

    def __init__(self, program, extra=(), negotiate=True):
        self.program = program
        self.process = subprocess.Popen([program, *MACHINE, '-qmp', 'stdio', *extra], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.events, self.buffer = [], b''
        self.greeting = self.message()
        if negotiate:
            self.ask('qmp_capabilities')

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def line(self):
        deadline = time.monotonic() + LIMIT_S
        while b'\n' not in self.buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                raise RuntimeError(f'{self.program} says nothing')
            piece = os.read(self.process.stdout.fileno(), 65536)
            if not piece:
                raise RuntimeError(f'{self.program} ended: {self.process.stderr.read().decode()[-300:]}')
            self.buffer += piece
        line, self.buffer = self.buffer.split(b'\n', 1)
        return line + b'\n'

    def message(self):
        return json.loads(self.line())

    def send(self, text):
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def answer(self):
        while True:
            message = self.message()
            if 'event' not in message:
                return message
            self.events.append(message)

    def ask(self, command, **arguments):
        request = {'execute': command}
        if arguments:
            request['arguments'] = {name.replace('_', '-'): value for name, value in arguments.items()}
        self.send(json.dumps(request) + '\n')
        return self.answer()

    def wait_event(self, wanted, limit_s=LIMIT_S):
        deadline = time.monotonic() + limit_s
        while not any(wanted(event) for event in self.events):
            if time.monotonic() > deadline:
                raise RuntimeError(f'{self.program}: the event did not come, only {self.events}')
            message = self.message()
            if 'event' in message:
                self.events.append(message)


def report(name, problems):
    global failed
    if problems:
        failed += 1
        print(f'not ok {name} ' + '; '.join(problems), flush=True)
    else:
        print(f'ok {name}', flush=True)


def check(function):
    try:
        report(function.__name__, function())
    except Exception as error:  # a broken pipe, an answer that is no JSON: all are failures of this one test
        report(function.__name__, [f'{type(error).__name__}: {error}'])


def kind(value):
    if isinstance(value, bool):
        return 'boolean'
    if isinstance(value, (int, float)):
        return 'number'
    return type(value).__name__


def compare(theirs, ours, where='', lacks=()):
    """What is different between two answers' shapes; lists are compared by their first element."""
    if kind(theirs) != kind(ours):
        return [f'{where or "answer"} is {kind(ours)}, not {kind(theirs)}']
    problems = []
    if isinstance(theirs, dict):
        for name in theirs:
            if name in ours:
                problems += compare(theirs[name], ours[name], f'{where}.{name}', lacks)
            elif name not in lacks:
                problems.append(f'{where}.{name} is missing')
        problems += [f'{where}.{name} is unknown there' for name in ours
                     if name not in theirs and not name.startswith('__org.godwit_')]
    elif isinstance(theirs, list) and theirs:
        if not ours:
            return [f'{where} is empty']
        problems += compare(theirs[0], ours[0], f'{where}[0]', lacks)
    return problems


def both(function, **options):
    with Vm(QEMU, **options) as theirs, Vm(GODWIT, **options) as ours:
        return function(theirs), function(ours)


# --- the tests ----------------------------------------------------------------------------------------------

def greeting():
    theirs, ours = both(lambda vm: vm.greeting, negotiate=False)
    theirs['QMP']['capabilities'] = []  # "oob" is only for those that have it
    problems = compare(theirs, ours)
    if ours['QMP']['version']['qemu']['major'] < 7 or not ours['QMP']['version']['package'].startswith('godwit'):
        problems.append(f'version is {ours["QMP"]["version"]}')
    return problems


def lines_end_in_cr_lf():
    def read(vm):
        vm.send('{"execute":"query-status","id":"\\u00fc"}\n')
        return vm.line()
    theirs, ours = both(read)
    return [] if theirs.endswith(b'\r\n') and ours.endswith(b'\r\n') and ours.isascii() else [f'{theirs} {ours}']


QUERIES = {
    'query-status': (), 'query-version': (), 'query-name': (), 'query-uuid': (), 'query-cpus-fast': (),
    'query-target': (), 'query-chardev': (), 'query-kvm': (), 'query-migrate': (), 'query-commands': (),
    'query-migrate-capabilities': (),
}


def queries():
    problems = []
    with Vm(QEMU) as theirs, Vm(GODWIT) as ours:
        for query, lacks in QUERIES.items():
            problems += [f'{query}: {one}' for one in
                         compare(theirs.ask(query), ours.ask(query), '', lacks)]
    return problems


def values():
    """Where the command line fixes the answer, it is the same one."""
    problems = []
    with Vm(QEMU) as theirs, Vm(GODWIT) as ours:
        for query in 'query-status', 'query-name', 'query-uuid', 'query-target', 'query-kvm':
            a, b = theirs.ask(query), ours.ask(query)
            if a != b:
                problems.append(f'{query}: {b}, not {a}')
        a, b = theirs.ask('query-cpus-fast')['return'], ours.ask('query-cpus-fast')['return']
        for cpu in b:
            if not os.path.exists(f'/proc/{ours.process.pid}/task/{cpu["thread-id"]}'):
                problems.append(f'{cpu["thread-id"]} is no thread')
        if [cpu['cpu-index'] for cpu in a] != [cpu['cpu-index'] for cpu in b]:
            problems.append(f'CPUs are {b}, not {a}')
    return problems


def parameters():
    """Those that both have are of one type; those that godwit must have are there."""
    theirs, ours = both(lambda vm: vm.ask('query-migrate-parameters')['return'])
    problems = [f'{name} is missing' for name in ('downtime-limit', 'max-bandwidth') if name not in ours]
    problems += [f'{name} is {kind(ours[name])}, not {kind(theirs[name])}' for name in theirs
                 if name in ours and kind(ours[name]) != kind(theirs[name])]
    if ours['downtime-limit'] != theirs['downtime-limit']:
        problems.append('downtime-limit starts elsewhere')
    return problems


def our_commands_are_theirs():
    """Everything that godwit lists and QEMU has no word for carries godwit's own prefix or is an old spelling."""
    theirs, ours = both(lambda vm: {one['name'] for one in vm.ask('query-commands')['return']})
    old = {'migrate_set_speed', 'migrate_set_downtime', 'query-events'}
    return [f'{name} is unknown there' for name in sorted(ours - theirs - old) if not name.startswith('__org.godwit_')]


BAD_REQUESTS = [
    ('{"execute":"nonsense"}', True),
    ('{"execute":"qmp_capabilities"}', True),
    ('{"execute":"stop","arguments":{"x":1}}', True),
    ('{"execute":"migrate","arguments":{"uri":"tcp:127.0.0.1:1","x":1}}', True),
    ('{"execute":"migrate","arguments":{"uri":1}}', True),
    ('{"execute":"migrate","arguments":{}}', True),
    ('{"execute":"migrate-incoming","arguments":{"uri":"tcp:127.0.0.1:0"}}', True),
    ('{"execute":"migrate-set-capabilities","arguments":{"capabilities":[{"capability":"zzz","state":true}]}}', True),
    ('{"execute":"migrate-set-parameters","arguments":{"no-such":1}}', True),
    ('{"execute":"migrate-set-parameters","arguments":{"downtime-limit":"x"}}', False),
    ('{"execute":"migrate-set-parameters","arguments":{"downtime-limit":99999999}}', False),
    ('{"execute":"migrate","arguments":{"uri":"telepathy"}}', False),
    ('{"execute":"stop","foo":1}', True),
    ('{"execute":"stop","id":[1],"arguments":{"x":1}}', True),
    ('[1,2]', True),
    ('{"x":1}', True),
    ('{bad json}', False),
]


def errors():
    """Same class always; the same words where tools look at them (second column)."""
    problems = []
    with Vm(QEMU) as theirs, Vm(GODWIT) as ours:
        for request, words in BAD_REQUESTS:
            answers = []
            for vm in theirs, ours:
                vm.send(request + '\n')
                answers.append(vm.answer())
            a, b = answers
            if 'error' not in a or 'error' not in b:
                problems.append(f'{request}: {a} {b}')
            elif a['error']['class'] != b['error']['class'] or a.get('id') != b.get('id'):
                problems.append(f'{request}: {b}, not {a}')
            elif words and a['error']['desc'] != b['error']['desc']:
                problems.append(f'{request}: "{b["error"]["desc"]}", not "{a["error"]["desc"]}"')
    return problems


def before_negotiation():
    def ask(vm):
        return vm.ask('query-status'), vm.ask('qmp_capabilities')
    theirs, ours = both(ask, negotiate=False)
    return [] if theirs == ours else [f'{ours}, not {theirs}']


def events():
    def drive(vm):
        for command in 'cont', 'stop', 'system_powerdown':
            answer = vm.ask(command)
            assert answer == {'return': {}}, answer
        return [{name: value for name, value in event.items() if name != 'timestamp'} for event in vm.events]
    theirs, ours = both(drive)
    return [] if theirs == ours else [f'{ours}, not {theirs}']


def reset():
    def drive(vm):
        vm.ask('system_reset')
        vm.wait_event(lambda event: event['event'] == 'RESET')
        return vm.events[-1]['data']
    theirs, ours = both(drive)
    return [] if theirs == ours else [f'{ours}, not {theirs}']


def quit_answers_and_ends():
    def drive(vm):
        answer = vm.ask('quit')
        return answer, [(event['event'], event.get('data')) for event in vm.events], vm.process.wait(LIMIT_S)
    theirs, ours = both(drive)
    return [] if theirs == ours else [f'{ours}, not {theirs}']


def human_monitor():
    lines = ['info status', 'foo', 'info foo', 'info name', 'info uuid', 'migrate', 'info kvm',
             'migrate_set_parameter foo 1']
    problems = []
    with Vm(QEMU) as theirs, Vm(GODWIT) as ours:
        for line in lines:
            a, b = (vm.ask('human-monitor-command', command_line=line)['return'] for vm in (theirs, ours))
            if a != b:
                problems.append(f'{line}: {b!r}, not {a!r}')
        a, b = (vm.ask('human-monitor-command', command_line='info cpus')['return'] for vm in (theirs, ours))
        if re.sub(r'\d+', 'N', a) != re.sub(r'\d+', 'N', b):
            problems.append(f'info cpus: {b!r}, not {a!r}')
    return problems


def migration_into_a_file():
    """States in the same order, the finished migration with the same members, the same words afterwards."""
    def drive(vm):
        with tempfile.TemporaryDirectory() as folder:
            vm.ask('migrate-set-capabilities', capabilities=[{'capability': 'events', 'state': True}])
            answer = vm.ask('migrate', uri=f'exec:cat > {folder}/state')
            assert 'return' in answer, answer
            vm.wait_event(lambda event: event.get('data', {}).get('status') in ('completed', 'failed'))
        states = [event['data']['status'] for event in vm.events if event['event'] == 'MIGRATION']
        passes = [event['data']['pass'] for event in vm.events if event['event'] == 'MIGRATION_PASS']
        return [one for one in states if one != 'device'], passes[:1], vm.ask('query-migrate')['return']
    theirs, ours = both(drive)
    problems = compare(theirs[2], ours[2], 'query-migrate')
    if theirs[:2] != ours[:2]:
        problems.append(f'{ours[:2]}, not {theirs[:2]}')
    if theirs[2].get('ram', {}).get('page-size') != ours[2].get('ram', {}).get('page-size'):
        problems.append('page-size differs')
    return problems


def migration_that_nobody_accepts():
    def drive(vm):
        vm.ask('migrate-set-capabilities', capabilities=[{'capability': 'events', 'state': True}])
        vm.ask('migrate', uri='tcp:127.0.0.1:1')
        vm.wait_event(lambda event: event.get('data', {}).get('status') == 'failed')
        info = vm.ask('query-migrate')['return']
        return info['status'], 'error-desc' in info, vm.ask('query-status')['return']
    theirs, ours = both(drive)
    return [] if theirs == ours else [f'{ours}, not {theirs}']


def several_at_once():
    def drive(vm):
        vm.send('{"execute":"query-name","id":1}{"execute":"query-kvm","id":2}\n\n{"execute":\n"query-target","id":3}')
        return [vm.answer() for _ in range(3)]
    theirs, ours = both(drive)
    return [] if theirs == ours else [f'{ours}, not {theirs}']


def main():
    if not shutil.which(QEMU):
        print('ok compared # SKIP no reference emulator')
        return 0
    for test in (greeting, lines_end_in_cr_lf, queries, values, parameters, our_commands_are_theirs, errors,
                 before_negotiation, events, reset, quit_answers_and_ends, human_monitor, migration_into_a_file,
                 migration_that_nobody_accepts, several_at_once):
        check(test)
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
