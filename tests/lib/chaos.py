"""A line between two godwits that knows what goes over it, and ends or stalls at a chosen place of it, once."""
import socket, struct, threading

NAMES = {number + 1: name for number, name in enumerate(
    'HELLO REFUSAL LOADED PREPARED RUNNING REFUSED ERROR GO RETRACT RETRACTED RESUME DONE'.split())}
SECTIONS = {1: 'START', 2: 'PART', 3: 'END', 4: 'FULL'}


class Elements:
    """What comes out of a socket, one message or element of the envelope at a time: (name, bytes). docs/stream-format.md."""

    def __init__(self, end):
        self.file, self.whole = end.makefile('rb', buffering=1 << 18), True

    def __iter__(self):
        while True:
            self.data = b''
            try:
                name = self._element()
            except EOFError:
                name = 'PIECE'  # its sender died in the middle of it
            if self.data:
                yield name, self.data
            if name == 'PIECE':
                return

    def _take(self, count):
        got = self.file.read(count)
        self.data += got
        if len(got) < count:
            raise EOFError
        return got

    def _be32(self):
        return int.from_bytes(self._take(4), 'big')

    def _str8(self):
        return self._take(self._take(1)[0])

    def _element(self):
        kind = self._take(1)[0]
        if kind == ord('G'):
            head = self._take(31)
            self._take(int.from_bytes(head[7:11], 'big') + 8)
            return NAMES.get(int.from_bytes(head[3:5], 'big'), 'MESSAGE')
        if kind == ord('Q'):
            self._take(7)
            return 'HEAD'
        if kind == 0:
            return 'EOF'
        if kind == 7:
            self._take(self._be32())
            return 'CONFIGURATION'
        if kind not in SECTIONS:
            raise ValueError(f'element 0x{kind:02x}')
        name = SECTIONS[kind]
        self._take(4)
        if kind in (1, 4):
            self._str8()
            self._take(8)
        if kind == 1:
            for _ in range(self._be32()):
                self._str8()
                self._take(16)
        elif kind == 2:
            head = self._take(48)
            name = 'MARK' if head[4] == 2 else name
            self._take(int.from_bytes(head[36:40], 'big'))
        elif kind == 3:
            self._take(8)
        else:
            self._take(self._be32())
        self._take(5)
        return name


class Chaos:
    """Listens on a tcp port and passes every connection on to `uri`, both ways, as often as anybody connects.

    plan: None, or (how, way, place), performed once. how: cut, both ways; reset, with what is on its way thrown away;
    half, this way ends and the other goes on; stall, this way stands still until release(). way: there, back. place: a byte's
    number on this way over all connections, or 'NAME:N:before|in|after', the N-th element of that name.
    """

    def __init__(self, uri, plan=None):
        host, port = uri[len('tcp:'):].rsplit(':', 1)
        self.target, self.plan = (host.strip('[]'), int(port)), plan
        self.lock, self.hit, self.released = threading.Lock(), threading.Event(), threading.Event()
        self.passed, self.seen, self.ends, self.threads = {'there': 0, 'back': 0}, {}, [], []
        self.trouble = None
        self.listener = socket.create_server(('127.0.0.1', 0))
        self.uri = f'tcp:127.0.0.1:{self.listener.getsockname()[1]}'

    def __enter__(self):
        self._start(self._accept)
        return self

    def __exit__(self, *_):
        self.released.set()
        self._hang_up(self.listener, *self.ends)
        for thread in self.threads:
            thread.join()
        for end in (self.listener, *self.ends):
            end.close()

    def release(self):
        self.released.set()

    def _start(self, run, *args):
        self.threads.append(threading.Thread(target=run, args=args, daemon=True))
        self.threads[-1].start()

    def _accept(self):
        while True:
            try:
                here, _ = self.listener.accept()
            except OSError:
                return
            self.ends.append(here)
            try:
                there = socket.create_connection(self.target)
            except OSError:
                self._hang_up(here)
                continue
            self.ends.append(there)
            for end in (here, there):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._start(self._pump, 'there', here, there)
            self._start(self._pump, 'back', there, here)

    def _pump(self, way, source, sink):
        try:
            for name, data in Elements(source):
                at = self._place(way, name, data)
                if at is None:
                    sink.sendall(data)
                    continue
                sink.sendall(data[:at])
                if not self._act(source, sink):
                    return
                sink.sendall(data[at:])
            sink.shutdown(socket.SHUT_WR)
        except (OSError, ValueError) as why:
            if isinstance(why, ValueError):
                self.trouble = f'the line does not understand {why}'
            self._hang_up(source, sink)

    def _place(self, way, name, data):
        """Where in this element the plan is due, or None."""
        with self.lock:
            begin = self.passed[way]
            self.passed[way] += len(data)
            number = self.seen[way, name] = self.seen.get((way, name), 0) + 1
            if not self.plan or self.hit.is_set() or self.plan[1] != way:
                return None
            place = self.plan[2]
            if isinstance(place, int):
                at = place - begin if begin <= place < begin + len(data) else None
            else:
                wanted, nth, where = place.split(':')
                due = wanted == name and int(nth) == number
                at = {'before': 0, 'in': len(data) // 2, 'after': len(data)}[where] if due else None
            if at is not None:
                self.hit.set()
            return at

    def _act(self, source, sink):
        """True: this way goes on."""
        how = self.plan[0]
        if how == 'stall':
            self.released.wait()
            return True
        if how == 'half':
            sink.shutdown(socket.SHUT_WR)
            while source.recv(65536):
                continue
            return False
        if how == 'reset':
            for end in (source, sink):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        self._hang_up(*self.ends)
        return False

    @staticmethod
    def _hang_up(*ends):
        for end in ends:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
