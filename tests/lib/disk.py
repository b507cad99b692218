"""Images and disks as tests use them: made, checked by the host's own tools, refused."""
import contextlib, hashlib, pathlib, re, shutil, subprocess, tempfile

from vm import GODWIT, PATIENCE_S, Failure, Skip, linux_args


def tool(name):
    path = shutil.which(name) or shutil.which(name, path='/usr/sbin:/sbin')
    if not path:
        raise Skip(f'there is no {name} here (Debian package e2fsprogs)')
    return path


def qemu_img(*words, codes=(0,)):
    if not shutil.which('qemu-img'):
        raise Skip('there is no qemu-img here (Debian package qemu-utils)')
    ran = subprocess.run(['qemu-img', *map(str, words)], capture_output=True, text=True)
    if ran.returncode not in codes:
        raise Failure(f'qemu-img {words}: code {ran.returncode}: {ran.stdout}{ran.stderr}')


@contextlib.contextmanager
def image(mib=64, ext4=False):
    with tempfile.TemporaryDirectory(prefix='godwit-disk-', dir='/var/tmp') as folder:
        path = pathlib.Path(folder) / 'disk'
        with open(path, 'wb') as file:
            file.truncate(mib << 20)
        if ext4:
            subprocess.run([tool('mkfs.ext4'), '-q', path], check=True)
        yield path


def disk_args(run, *drives, **more):
    args = linux_args(f'disk,{run}', memory='256M', **more)
    for drive in drives:
        args += ['-drive', drive]
    return args


def fsck(path):
    ran = subprocess.run([tool('e2fsck'), '-fn', path], capture_output=True, text=True)
    if ran.returncode != 0:
        raise Failure(f'e2fsck: {ran.stdout}{ran.stderr}')


def acknowledged_are_there(path, count):
    """Every entry that the guest said was durable, with the checksum that it wrote, read by the host."""
    def read(name):
        return subprocess.run([tool('debugfs'), '-R', f'cat {name}', path], capture_output=True).stdout
    sums = dict(reversed(line.split()) for line in read('sums').decode().splitlines())
    for number in range(1, count + 1):
        name = f'entry.{number}'
        if hashlib.md5(read(name)).hexdigest() != sums.get(name):
            raise Failure(f'{name} was acknowledged, and is not on the disk as it was')


def refused(args, words):
    command = [GODWIT, '-display', 'none', '-monitor', 'none', '-serial', 'null', '-bios', 'none', '-S', *map(str, args)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    if ran.returncode != 1 or not re.search(words, ran.stderr):
        raise Failure(f'{args}: code {ran.returncode}, {ran.stderr!r}')


@contextlib.contextmanager
def small_host(mib):
    """A folder on a file system of that size; resize(mib) makes it another."""
    with tempfile.TemporaryDirectory(prefix='godwit-small-') as folder:
        def mount(options):
            ran = subprocess.run(['mount', '-t', 'tmpfs', '-o', options, 'tmpfs', folder], capture_output=True, text=True)
            if ran.returncode:
                raise Skip(f'no file system may be mounted here: {ran.stderr.strip()}')
        mount(f'size={mib}M')
        try:
            yield pathlib.Path(folder), lambda mib: mount(f'remount,size={mib}M')
        finally:
            subprocess.run(['umount', '-l', folder], check=True)


def acks(vm):
    return [int(number) for number in re.findall(r'disk: ack=(\d+)', vm.serial())]
