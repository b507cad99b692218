#!/usr/bin/env python3
"""What the documents say is there is there, and what is there is in the documents."""
import json, pathlib, re, shutil, struct, subprocess, sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / 'lib'))
import vm as lib
from vm import test

MAN = lib.TOP / 'docs/man'
GUEST = ['-m', '16M', '-bios', 'none', '-kernel', lib.BUILD / 'guest/sleeper.elf']


def output(*command):
    return subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, check=True, text=True).stdout


def document(name):
    return (lib.TOP / 'docs' / name).read_text()


def same(what, there, told):
    assert there and there == told, f'{what}: undocumented {sorted(there - told)}, gone {sorted(told - there)}'


def code_words(text):
    """Everything that a document sets in `...`, and the words inside."""
    found = set(re.findall(r'`([^`\n]+)`', text))
    return found | {word for phrase in found for word in phrase.split()}


def table_rows(text, heading):
    """First cells of the tables below a heading, without their backquotes; several names may share a cell."""
    section = re.split(r'(?m)^#+ ', text.split(heading, 1)[1])[0]
    cells = re.findall(r'(?m)^\| *(`[^|]*?) *\|', section)
    return {name for cell in cells for name in re.findall(r'`([^`]+)`', cell)}


@test
def every_option_is_in_the_man_page_and_no_other():
    there = set(re.findall(r'(?m)^  -([\w-]+)', output(lib.GODWIT, '-help')))
    told = set(re.findall(r'(?m)^\.It Fl ([\w-]+)', (MAN / 'godwit.1').read_text()))
    same('options', there, told)


@test
def every_option_of_the_client_is_in_its_man_page_and_no_other():
    usage = output(lib.GODWIT, 'migrate', '--help')
    there = set(re.findall(r'--([\w-]+)', usage)) | {'help'}
    told = set(re.findall(r'(?m)^\.It Fl Fl ([\w-]+)', (MAN / 'godwit-migrate.1').read_text()))
    same('options', there, told)


@test
def every_exit_code_of_the_client_is_in_its_man_page():
    header = (lib.TOP / 'src/monitor/client.h').read_text()
    there = set(re.findall(r'CLIENT_\w+ = (\d+)', header))
    page = (MAN / 'godwit-migrate.1').read_text().split('EXIT STATUS')[1]
    same('exit codes', there, set(re.findall(r'(?m)^\.It (\d+)', page)))


@test
def the_man_pages_are_clean_mdoc():
    if not shutil.which('mandoc'):
        raise lib.Skip('no mandoc here')
    for page in sorted(MAN.glob('*.1')):
        found = subprocess.run(['mandoc', '-Tlint', page], stdout=subprocess.PIPE, text=True).stdout.splitlines()
        bad = [line for line in found if 'referenced manual not found' not in line]  # it looks where nothing is installed
        assert not bad, '; '.join(bad)


@test
def every_command_parameter_capability_and_event_is_in_monitor_md_and_no_other():
    text = document('monitor.md')
    with lib.Vm(GUEST) as vm:
        commands = {row['name'] for row in vm.qmp('query-commands')}
        same('QMP commands', commands, table_rows(text, '## QMP commands'))
        lines = re.findall(r'(?m)^((?:info )?[\w|?]+)[^\n]* -- ', vm.qmp.hmp('help').replace('\r', ''))
        hmp = {name for line in lines for name in line.split('|')}
        same('HMP commands', hmp, table_rows(text, '## HMP commands'))
        same('parameters', set(vm.qmp('query-migrate-parameters')), table_rows(text, '## Parameters'))
        capabilities = {row['capability'] for row in vm.qmp('query-migrate-capabilities')}
        same('capabilities', capabilities, table_rows(text, '## Capabilities'))
        same('events', {row['name'] for row in vm.qmp('query-events')}, table_rows(text, '## Events'))


@test
def the_start_values_of_parameters_are_as_told():
    told = dict(re.findall(r'(?m)^\| `([\w-]+)`[^|]*\| *([^|]*?) *\|', document('monitor.md').split('## Parameters')[1]))
    with lib.Vm(GUEST) as vm:
        for name, value in vm.qmp('query-migrate-parameters').items():
            if name != 'threads':  # one for every host CPU
                assert told[name] == str(value), f'{name} starts at {value}, the document says {told[name]}'


@test
def every_member_of_the_report_is_in_monitor_md():
    words = code_words(document('monitor.md'))
    with lib.Vm(GUEST) as vm:
        info = vm.migrate(f'file:{vm.folder}/state')
        report = info['__org.godwit_report']
        missing = (set(info) | set(info['ram']) | set(report) | set(report['pause'])) - words
        assert not missing, sorted(missing)


@test
def every_figure_of_the_engine_is_in_monitor_md_and_no_other():
    text = document('monitor.md')
    with lib.Vm(GUEST) as vm:
        answer = vm.qmp('x-query-jit')
    told = table_rows(text, '## x-query-jit')
    there = set(answer['cpus'][0]) - {'cpu-index'} | set(answer.get('code', ()))
    assert not set(answer) - code_words(text), sorted(answer)
    if answer['enabled']:
        same('figures', there, told)


@test
def a_destination_that_a_monitor_set_up_outlives_a_guest_that_does_not_fit():
    with lib.Vm(['-m', '32M', '-bios', 'none', '-incoming', 'defer']) as vm, lib.Vm(GUEST) as source:
        for attempt in range(2):
            address = f'unix:{vm.folder}/migration'
            vm.qmp('migrate-incoming', uri=address)
            source.start_migration(address)
            assert source.wait_migration('failed')['__org.godwit_report']['reason'] == 'refused'
            assert vm.wait_migration('failed')['__org.godwit_report']['where'] == 'there'
            assert vm.status() == 'inmigrate' and source.status() == 'running'


class Stream:
    """A reader of docs/stream-format.md, made from that page alone."""
    def __init__(self, data):
        self.data, self.at = data, 0

    def raw(self, count):
        assert self.at + count <= len(self.data), 'the stream is cut short'
        self.at += count
        return self.data[self.at - count:self.at]

    def be(self, count):
        return int.from_bytes(self.raw(count), 'big')

    def str8(self):
        return self.raw(self.be(1)).decode()


def read_frame(stream):
    magic, kind, codec, zero = struct.unpack('>4sBBH', stream.raw(8))
    assert (magic, zero) == (b'GWFR', 0) and kind in (1, 2) and codec in (0, 1)
    number, first, data, zeros, payload = struct.unpack('>IQQQI', stream.raw(32))
    stream.be(8)  # checksum
    return kind, number, first, bin(data).count('1'), bin(zeros).count('1'), Stream(stream.raw(payload))


@test
def a_file_is_as_the_stream_format_page_says():
    with lib.Vm(GUEST) as vm:
        vm.migrate(f'file:{vm.folder}/state')
        stream = Stream((vm.folder / 'state').read_bytes())
    assert (stream.raw(4), stream.be(4), stream.be(1), stream.raw(stream.be(4))) == (b'QEVM', 3, 7, b'virt')
    full, counted, told, rounds = [], {}, {}, 0
    while (element := stream.be(1)) != 0:
        section = stream.be(4)
        if element in (1, 4):
            name, instance, version = stream.str8(), stream.be(4), stream.be(4)
        if element == 4:
            full.append((name, len(stream.raw(stream.be(4)))))
        elif element == 1:
            blocks = [(stream.str8(), stream.be(8), stream.be(8)) for _ in range(stream.be(4))]
            assert name == 'godwit/ram' and blocks[0] == ('riscv_virt_board.ram', 0x80000000, 16 << 20), blocks
        elif element == 3:
            rounds = stream.be(8)
        elif element == 2:
            kind, number, first, data, zeros, payload = read_frame(stream)
            if kind == 1:
                so_far = counted.get(number, (0, 0))
                counted[number] = so_far[0] + data, so_far[1] + zeros
            else:
                assert payload.be(4) == 1 and payload.be(4) == section
                told[number] = payload.be(8), payload.be(8)
        else:
            raise AssertionError(f'element {element:#x}')
        assert stream.be(1) == 0x7e and stream.be(4) == section
    assert stream.at == len(stream.data), 'bytes behind EOF'
    assert rounds == len(told) and all(counted.get(n, (0, 0)) == t for n, t in told.items()), (rounds, counted, told)
    assert full[0][0] == 'godwit/machine' and full[-1][0] == 'godwit/digest', full
    page = document('stream-format.md')
    for name, size in full:
        row = re.search(rf'(?m)^\| `{name}`[^|]*\|[^|]*\| *(\d+) *\|', page)
        assert row, f'section {name} is not in the page'
        assert int(row[1]) == size, f'section {name} has {size} bytes, the page says {row[1]}'


@test
def links_between_documents_lead_somewhere():
    pages = [p for p in lib.TOP.glob('*.md')] + [p for p in (lib.TOP / 'docs').glob('*.md')]
    broken = [f'{page.name}: {link}' for page in pages for link in re.findall(r'\]\(([^)#:]+)\)', page.read_text())
              if not (page.parent / link).exists()]
    assert pages and not broken, broken


lib.main()
