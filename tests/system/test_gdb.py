#!/usr/bin/env python3
"""A debugger, gdb-multiarch itself, at a bare-metal guest: what it sees, what it changes, and what happens around it."""
import pathlib, re, shutil, socket, subprocess, sys, tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / 'lib'))
from vm import GODWIT, PATIENCE_S, Failure, Skip, Vm, main, test, wait_for
from guests import guest, machine


def debuggee(*more, harts=2, paused=True):
    """A machine with a debugger's socket, waiting with its guest at the reset vector."""
    args = machine(harts=harts) + ['-kernel', guest('debuggee'), '-gdb', 'unix:gdb.sock', *more]
    return InFolder(args + (['-S'] if paused else []))


class InFolder(Vm):
    """The socket is in the machine's own folder."""
    def __init__(self, args, **more):
        self.sockets = pathlib.Path(tempfile.mkdtemp(prefix='godwit-gdb-'))
        self.gdb_path = self.sockets / 'gdb.sock'
        super().__init__([str(a).replace('gdb.sock', str(self.gdb_path)) for a in args], **more)

    def close(self):
        super().close()
        shutil.rmtree(self.sockets, ignore_errors=True)


def debugger_program():
    program = shutil.which('gdb-multiarch')
    if not program:
        raise Skip('no gdb-multiarch here: scripts/deps installs it')
    return program


def gdb(vm, *commands):
    """Runs these commands in a session of its own; what it printed."""
    command = [debugger_program(), '-nx', '-batch', '-ex', 'set confirm off', '-ex', 'set width 0', '-ex',
               f'set remotetimeout {int(PATIENCE_S)}', '-ex', f'target remote {vm.gdb_path}']
    wait_for('the socket of the stub', vm.gdb_path.exists, alive=vm.alive)
    for line in commands:
        command += ['-ex', line]
    done = subprocess.run([*command, str(guest('debuggee'))], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, errors='replace', timeout=PATIENCE_S)
    return done.stdout


def expect(text, *patterns):
    """All of them, in this order."""
    at = 0
    for pattern in patterns:
        found = re.compile(pattern).search(text, at)
        if not found:
            raise Failure(f'"{pattern}" is not where it should be in what the debugger says:\n{text}')
        at = found.end()


class Wire:
    """The protocol by hand, for what the debugger itself would not do."""
    def __init__(self, vm):
        wait_for('the socket of the stub', vm.gdb_path.exists, alive=vm.alive)
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(vm.gdb_path))
        self.socket.settimeout(PATIENCE_S)
        self.ask('QStartNoAckMode')

    def send(self, packet):
        self.socket.sendall(f'${packet}#{sum(packet.encode()) & 255:02x}'.encode())

    def hear(self):
        data = b''
        while not re.search(rb'#..$', data):
            more = self.socket.recv(1)
            if not more:
                raise Failure(f'the stub hung up after {data}')
            data += more
        return data[data.index(b'$') + 1:-3].decode()

    def ask(self, packet):
        self.send(packet)
        return self.hear()

    def close(self):
        self.socket.close()


def symbol(name):
    out = subprocess.run([debugger_program(), '-nx', '-batch', '-ex', f'print/x &{name}', str(guest('debuggee'))],
                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True).stdout
    return int(re.search(r'0x[0-9a-f]+', out).group(0), 16)


# --- looking and changing ---------------------------------------------------------------------------------------------

@test
def a_breakpoint_shows_registers_memory_and_the_way_there():
    with debuggee() as vm:
        out = gdb(vm, 'p/x $pc', 'break work', 'continue', 'bt', 'p n', 'p/x $a0', 'p/x $pc', 'x/2i $pc', 'p $fs11.double',
                  'p $priv', 'p $mhartid', 'p sum', 'continue', 'p n', 'p sum', 'p ebreaks', 'info registers')
        expect(out, r'\$1 = 0x1000', r'hit Breakpoint 1, work', r'#0 +work', r'#1 .* main', r'\$2 = 1', r'\$3 = 0x1\b',
               r'\$4 = 0x8000[0-9a-f]+', r'=> 0x8000\w+ <work>', r'\$5 = 0.5', r'\$6 = 3', r'\$7 = 0', r'\$8 = 0',
               r'hit Breakpoint 1, work', r'= 2', r'= 1', r'= 2', r'\nsp +0x8000')
        if 'warning' in out:
            raise Failure(out)


@test
def registers_and_memory_can_be_changed_and_the_guest_goes_on_with_them():
    with debuggee() as vm:
        out = gdb(vm, 'break work', 'continue', 'set $a0=1000', 'finish', 'p sum', 'set $mscratch=77', 'p $mscratch',
                  'set $fs11.double=2.25', 'p $fs11.double', 'delete', 'set var leave=1', 'continue')
        expect(out, r'= 1000', r'= 77', r'= 2.25', r'exited normally')
        if vm.wait_exit() != 0:
            raise Failure(f'ended with code {vm.wait_exit()}')
        vm.wait_serial(r'OK sum=1000\b')


@test
def a_step_is_one_instruction_of_one_hart():
    with debuggee() as vm:
        out = gdb(vm, 'break work', 'continue', 'set $n=$pc', 'stepi', 'p $pc != $n', 'x/i $n', 'p counts[1]', 'stepi',
                  'stepi', 'set scheduler-locking on', 'set $c=counts[1]', 'stepi', 'stepi', 'p counts[1]-$c', 'break work',
                  'continue', 'p counts[1]-$c', 'p ebreaks')
        expect(out, r'= 1\n', r'\$\d+ = 0\n', r'hit Breakpoint', r'\$\d+ = 0\n', r'\$\d+ = 2\n')


@test
def harts_are_threads_that_say_what_they_do():
    with debuggee(harts=3) as vm:
        def asleep():  # the last hart says that it is about to be, and cannot say that it is
            return re.search(r'hart 2 \[wfi\]', gdb(vm, 'break work', 'continue', 'info threads'))

        wait_for('hart 2 to sleep', asleep, PATIENCE_S)
        out = gdb(vm, 'break work', 'continue', 'info threads', 'thread 2', 'p $mhartid', 'bt 1', 'thread 3', 'p $mhartid')
        expect(out, r'hart 0 \[paused\].* work', r'hart 1 \[paused\].* count', r'hart 2 \[wfi\].* sleep', r'Switching',
               r'= 1\n', r'#0 .*count', r'= 2\n')


@test
def a_breakpoint_stops_the_hart_that_comes_by():
    with debuggee() as vm:
        out = gdb(vm, 'break count', 'hbreak work', 'continue', 'p $mhartid', 'p counts[0]', 'delete', 'break work',
                  'continue', 'p $mhartid')
        expect(out, r'hit Breakpoint 1, count', r'= 1\n', r'hit .*3, .*work', r'= 0\n')


@test
def memory_that_is_not_there_is_an_error_and_no_more():
    with debuggee() as vm:
        out = gdb(vm, 'x/x 0', 'x/x 0x10000000', 'p/x *(int*)0x1000', 'set var *(int*)0x20=1',
                  'maintenance packet Qqemu.PhyMemMode:1', 'monitor info status', 'monitor nonsense', 'watch sum', 'stepi')
        expect(out, r'Cannot access memory at address 0x0', r'Cannot access memory at address 0x10000000', r'= 0x',
               r'Cannot access memory at address 0x20', r'received: "OK"', r'VM status: paused', r'unknown command')


# --- around it --------------------------------------------------------------------------------------------------------

@test
def ctrl_c_stops_a_guest_that_runs():
    with debuggee(paused=False) as vm:
        vm.wait_serial('ready')
        wire = Wire(vm)
        if vm.status() != 'paused':
            raise Failure(f'a debugger came and the guest is {vm.status()}')
        for _ in range(3):
            wire.send('vCont;c')
            vm.wait_status('running')
            wire.socket.sendall(b'\3')
            if not wire.hear().startswith('T02thread:'):
                raise Failure('no stop by interrupt')
        wire.close()


@test
def a_debugger_that_detaches_leaves_a_guest_that_runs():
    with debuggee() as vm:
        expect(gdb(vm, 'break work', 'continue', 'detach'), r'hit Breakpoint 1', r'[Dd]etached|Detaching')
        vm.wait_status('running')
        expect(gdb(vm, 'p leave'), r'= 0')  # and another may come; it detaches at its end
        vm.wait_status('running')


@test
def a_debugger_that_is_lost_takes_its_breakpoints_along():
    with debuggee() as vm:
        work = symbol('work')
        wire = Wire(vm)
        wire.ask(f'Z0,{work:x},4')
        wire.send('vCont;c')
        if wire.hear() != 'T05thread:1;':
            raise Failure('the breakpoint was not hit')
        wire.close()
        if vm.status() != 'paused':
            raise Failure(f'the guest is {vm.status()}')
        vm.qmp('cont')
        wire = Wire(vm)
        before = wire.ask(f'm{symbol("sum"):x},8')

        def has_run_on():
            nonlocal wire
            wire.send('vCont;c')
            wire.close()  # while it runs: it runs on
            vm.wait_status('running')
            wire = Wire(vm)  # which stops it, perhaps before a vCPU's thread had its turn
            return wire.ask(f'm{symbol("sum"):x},8') != before

        wait_for('the guest to run on', has_run_on, 60)
        wire.close()


@test
def who_stops_the_guest_is_heard_by_a_debugger_that_waits():
    with debuggee() as vm:
        wire = Wire(vm)
        wire.send('vCont;c')
        vm.wait_status('running')
        vm.qmp('stop')
        if not wire.hear().startswith('T02'):
            raise Failure('the stop was not reported')
        wire.send('vCont;c')
        vm.wait_status('running')
        vm.wait_serial('ready')
        vm.qmp.hmp('info registers')  # a pause that is nobody's business
        vm.qmp('system_reset')
        vm.wait_serial('ready(.|\n)*ready')  # and neither is a reset
        vm.qmp('quit')
        if wire.hear() != 'W00':
            raise Failure('the end was not reported')
        wire.close()


@test
def kill_ends_godwit():
    with debuggee() as vm:
        gdb(vm, 'kill')
        if vm.wait_exit() != 0:
            raise Failure(f'ended with code {vm.wait_exit()}')


@test
def a_guest_leaves_and_comes_under_debuggers():
    """Stopped at a breakpoint it goes as it is; who waits at the source hears that it left; who waits at the
    destination hears its first breakpoint there."""
    with debuggee() as source, \
            InFolder(machine(harts=2) + ['-gdb', 'unix:gdb.sock', '-incoming', 'defer'], name='destination') as there:
        address, work = f'unix:{there.sockets}/migration', symbol('work')
        here, far = Wire(source), Wire(there)
        here.ask(f'Z0,{work:x},4')
        here.send('vCont;c')
        if here.hear() != 'T05thread:1;':
            raise Failure('no breakpoint at the source')
        if far.ask('p20') != 'x' * 16:
            raise Failure('the destination shows registers of no guest')
        pc, total = here.ask('p20'), here.ask(f'm{symbol("sum"):x},8')
        here.ask(f'z0,{work:x},4')
        far.ask(f'Z0,{work:x},4')
        here.send('vCont;c')
        far.send('vCont;c')
        source.wait_status('running')
        there.qmp('migrate-incoming', uri=address)
        source.migrate(address)
        first = here.hear()
        if 'The guest has left' not in bytes.fromhex(first[1:]).decode() or not here.hear().startswith('T02'):
            raise Failure(f'the source says {first}')
        if far.hear() != 'T05thread:1;' or far.ask('p20') != pc or far.ask(f'm{symbol("sum"):x},8') == total:
            raise Failure('no breakpoint at the destination')
        if not here.ask('vCont;c').startswith('E.') or here.ask('M80000000,1:00') != 'E01':
            raise Failure('a guest that left may be changed')
        if source.status() != 'postmigrate':
            raise Failure(f'the source is {source.status()}')


@test
def a_bad_place_for_a_debugger_is_refused_by_name():
    for value in ('nonsense', 'tcp:1234', 'tcp::99999', 'unix:', 'tcp::1234,colour=red', 'chardev:none', 'file:/tmp/x'):
        done = subprocess.run([GODWIT, '-display', 'none', '-serial', 'null', '-bios', 'none', '-S', '-gdb', value],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              timeout=PATIENCE_S)
        lines = done.stdout.splitlines()
        said = value.split(':')[-1].split(',')[0]
        if done.returncode != 1 or len(lines) != 1 or not lines[0].startswith('godwit: -gdb: ') or said not in lines[0]:
            raise Failure(f'-gdb {value}: code {done.returncode}, says {done.stdout!r}')


main()
