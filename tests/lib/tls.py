"""Keys and certificates for tests, made with GnuTLS's own tools (Debian package gnutls-bin), and options that name them."""
import pathlib, secrets, shutil, subprocess, tempfile

DAY = 24 * 3600
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
