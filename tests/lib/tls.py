"""Keys and certificates for tests, made with GnuTLS's own tools (Debian package gnutls-bin), and options that name them."""
import os, pathlib, secrets, shutil, socket, subprocess, sys, tempfile, threading

COMMON = 'expiration_days = 2\n'


def _certtool(folder, *args):
    done = subprocess.run(['certtool', *args], cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise RuntimeError(f'certtool {" ".join(args)}: {done.stderr}')


class Keys:
    """A folder with all that -object tls-creds-x509 and tls-creds-psk read, for both ends; `with` removes it.

    name: what the server's certificate is for. client: the client's distinguished name's CN."""

    def __init__(self, name='127.0.0.1', client='mover', ca=None):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix='godwit-tls-'))
        if ca:
            for file in ('ca-cert.pem', 'ca-key.pem'):
                shutil.copy(ca.folder / file, self.folder)
        else:
            self._key('ca')
            self._sign('ca', 'cn = "test authority"\nca\ncert_signing_key\n', ['--generate-self-signed'])
        where = f'ip_address = "{name}"' if name.replace('.', '').isdigit() else f'dns_name = "{name}"'
        for who, template in (('server', f'cn = "{name}"\n{where}\ntls_www_server\nsigning_key\n'),
                              ('client', f'cn = "{client}"\ntls_www_client\nsigning_key\n')):
            self._key(who)
            self._sign(who, template, ['--generate-certificate', '--load-ca-certificate', 'ca-cert.pem',
                                       '--load-ca-privkey', 'ca-key.pem'])
        self.new_key()

    def _key(self, who):
        _certtool(self.folder, '--generate-privkey', '--key-type', 'ecdsa', '--outfile', f'{who}-key.pem')

    def _sign(self, who, template, how):
        (self.folder / f'{who}.info').write_text(template + COMMON)
        _certtool(self.folder, *how, '--load-privkey', f'{who}-key.pem', '--template', f'{who}.info',
                  '--outfile', f'{who}-cert.pem')

    def new_key(self, user='qemu'):
        (self.folder / 'keys.psk').write_text(f'{user}:{secrets.token_hex(32)}\n')

    def object(self, kind, endpoint, more=''):
        """The options of one end: kind is psk or x509."""
        return ['-object', f'tls-creds-{kind},id=tls0,dir={self.folder},endpoint={endpoint}{more}',
                '-global', 'migration.tls-creds=tls0']

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.folder)


class Wire:
    """Listens on a tcp port and passes every connection on to `uri`, whatever it is; keeps what went there, and cuts all
    of them when it is told to."""

    def __init__(self, uri):
        host, port = uri[len('tcp:'):].rsplit(':', 1)
        self.target, self.ends, self.threads, self.seen, self.count = (host, int(port)), [], [], bytearray(), 0
        self.listener = socket.create_server(('127.0.0.1', 0), backlog=32)
        self.uri = f'tcp:127.0.0.1:{self.listener.getsockname()[1]}'

    def __enter__(self):
        self._start(self._accept)
        return self

    def __exit__(self, *_):
        self._hang_up(self.listener)
        self.cut()
        for thread in self.threads:
            thread.join()
        for end in (self.listener, *self.ends):
            end.close()

    def cut(self):
        self._hang_up(*self.ends)

    @staticmethod
    def _hang_up(*ends):
        for end in ends:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _start(self, run, *args):
        self.threads.append(threading.Thread(target=run, args=args, daemon=True))
        self.threads[-1].start()

    def _accept(self):
        while True:
            try:
                here, _ = self.listener.accept()
                there = socket.create_connection(self.target)
            except OSError:
                return
            self.ends += [here, there]
            self.count += 1
            self._start(self._pump, here, there, True)
            self._start(self._pump, there, here, False)

    def _pump(self, source, sink, keep):
        try:
            while data := source.recv(65536):
                if keep:
                    self.seen += data
                sink.sendall(data)
        except OSError:
            pass
        self._hang_up(source, sink)


def _carry(uri):
    """As a command: standard input and output to a tcp address and back, for exec:."""
    host, port = uri[len('tcp:'):].rsplit(':', 1)
    with socket.create_connection((host, int(port))) as line:
        def back():
            try:
                while data := line.recv(65536):
                    os.write(1, data)
            except OSError:
                pass
            os.close(1)
        threading.Thread(target=back, daemon=True).start()
        while data := os.read(0, 65536):
            line.sendall(data)
        line.shutdown(socket.SHUT_WR)


if __name__ == '__main__':
    _carry(sys.argv[1])
