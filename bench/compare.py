"""What benches that hold emulators side by side share: which emulators there are, medians and spread, and where figures come from."""
import datetime, os, pathlib, platform, shutil, statistics, subprocess, sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / 'tests/lib'))
import vm as lib


class Emulator:
    def __init__(self, name, binary, args=()):
        self.name, self.binary, self.args = name, str(binary), list(args)
        self.version = subprocess.check_output([self.binary, '-version'], text=True, stderr=subprocess.DEVNULL).splitlines()[0]
        self.ours = not name.startswith(('qemu', 'rvvm'))


def fetched_qemu(suite='trixie'):
    return subprocess.check_output([lib.TOP / 'bench/fetch-qemu', suite], text=True).strip()


def emulators(wanted=None):
    """All that can be had here, or those of the list of names; what is absent is said on stderr.

    Ours are `jit` and `interp` where godwit has -accel, else `godwit` as it is; `godwit` may always be asked for.
    """
    found, absent = {}, {}

    def look(name, make):
        if wanted and name not in wanted:
            return
        try:
            found[name] = make()
        except (OSError, subprocess.SubprocessError, ValueError) as why:
            absent[name] = why

    usage = subprocess.check_output([lib.GODWIT, '-help'], text=True)
    engines = [e for e in ('jit', 'interp') for line in usage.splitlines() if line.split()[:1] == ['-accel'] and e in line]
    if not engines or wanted and 'godwit' in wanted:
        look('godwit', lambda: Emulator('godwit', lib.GODWIT))
    for name in engines:
        look(name, lambda name=name: Emulator(name, lib.GODWIT, ['-accel', name]))
    installed = shutil.which('qemu-system-riscv64')
    if installed:
        look('qemu', lambda: Emulator('qemu', installed))
    elif not wanted or 'qemu' in wanted:
        absent['qemu'] = 'no qemu-system-riscv64 here: Debian package qemu-system-misc'
    look('qemu-10', lambda: Emulator('qemu-10', fetched_qemu()))
    if wanted and 'qemu-sid' in wanted:  # the newest; fetched only when it is asked for
        look('qemu-sid', lambda: Emulator('qemu-sid', fetched_qemu('sid')))
    other = os.environ.get('RVVM')
    if other and os.access(other, os.X_OK):
        look('rvvm', lambda: Emulator('rvvm', lib.TOP / 'bench/rvvm'))
    elif other or wanted and 'rvvm' in wanted:
        absent['rvvm'] = f'{other}: cannot be run' if other else 'the environment variable RVVM names no emulator'
    for name in wanted or ():
        if name not in found:
            absent.setdefault(name, 'no such emulator; there are ' + ' '.join(engines or ['godwit']) +
                              ' qemu qemu-10 qemu-sid rvvm')
    for name, why in absent.items():
        print(f'# without {name}: {why}', file=sys.stderr)
    return found


def now():
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec='seconds')


def in_turn(items, pair):
    """The order of one pair: forwards, then backwards, so that a slow minute of the host hits each as often."""
    return list(items) if pair % 2 == 0 else list(items)[::-1]


def spread(values, form='{:.3g}'):
    """`median [min .. max]`, or the one value."""
    text = form.format(statistics.median(values))
    return text if len(values) < 2 else f'{text} [{form.format(min(values))} .. {form.format(max(values))}]'


def provenance(found):
    """Everything that a figure must not be without."""
    def ask(*command):
        done = subprocess.run(command, cwd=lib.TOP, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        return done.stdout.strip() if done.returncode == 0 else None

    cpuinfo = pathlib.Path('/proc/cpuinfo').read_text()
    model = [line.split(':', 1)[1].strip() for line in cpuinfo.splitlines() if line.startswith('model name')]
    return {'date': now(),
            'commit': ask('git', 'describe', '--always', '--dirty', '--abbrev=12'),
            'host': {'cpu': model[0] if model else platform.machine(), 'cpus': len(os.sched_getaffinity(0)),
                     'kernel': platform.release(), 'load': round(os.getloadavg()[0], 2)},
            'emulators': {e.name: {'version': e.version, 'args': e.args} for e in found.values()}}
