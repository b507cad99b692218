"""Lines between two processes: they pass bytes on, both ways, and can be slow, lie, stand still or end at a chosen place.

One Relay does the passing. What it does beside that is a method, change(), which sees each piece of what comes by:

    Proxy    one connection whose bytes hooks may change; a pace
    Lines    connections that end at a message of the hand-over
    Bundle   connections that end or stand still after so many bytes; a message that waits
    Chaos    one fault, at an element of the stream or at a byte

    with Lines(listening(there), GO) as line:
        source.migrate(line.uri)
"""
import socket, struct, threading

MESSAGES = ('HELLO REFUSAL LOADED PREPARED RUNNING REFUSED ERROR GO RETRACT RETRACTED RESUME DONE CHANNEL').split()
NAMES = {number: name for number, name in enumerate(MESSAGES, 1)}
HELLO, REFUSAL, LOADED, PREPARED, RUNNING, REFUSED, ERROR, GO, RETRACT, RETRACTED, RESUME, DONE, CHANNEL = NAMES
SECTIONS = {1: 'START', 2: 'PART', 3: 'END', 4: 'FULL'}


# --- what comes by ----------------------------------------------------------------------------------------------------


def pieces(end):
    """Bytes as they come: ('', data)."""
    while data := end.recv(16384):
        yield '', data


class Elements:
    """What comes out of a socket, one message or element of the envelope at a time: (name, bytes). docs/stream-format.md.

    Data channels begin with a message and go on with PART elements, so they are read as the main one is.
    """

    def __init__(self, end):
        self.file = end.makefile('rb', buffering=1 << 18)

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


class Piece:
    """way: 'there' or 'back'. connection: its number. offset: bytes before it, this way over this connection."""

    def __init__(self, way, connection, offset, name, data, source, sink):
        self.way, self.connection, self.offset, self.name, self.data = way, connection, offset, name, data
        self.source, self.sink = source, sink

    def send(self, data):
        """Ahead of what change() returns."""
        self.sink.sendall(data)


# --- ends: what change() returns to have this much sent, and then ... --------------------------------------------------


class Cut(bytes):
    """... this connection ended, both ways."""

    def end(self, relay, piece):
        hang_up(piece.source, piece.sink)


class CutAll(Cut):
    """... every connection ended."""

    def end(self, relay, piece):
        hang_up(*relay.ends)


class Reset(Cut):
    """... every connection ended, with what is on its way thrown away here."""

    def end(self, relay, piece):
        for end in (piece.source, piece.sink):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        hang_up(*relay.ends)


class Half(Cut):
    """... this way ended; the other goes on."""

    def end(self, relay, piece):
        piece.sink.shutdown(socket.SHUT_WR)
        while piece.source.recv(65536):
            continue


def hang_up(*ends):
    for end in ends:
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


# --- passing on --------------------------------------------------------------------------------------------------------


class Relay:
    """Listens on a tcp port and passes every connection on to `uri` (tcp:HOST:PORT), as often as anybody connects.

    passed: bytes that came, by way, over all connections. carried: those of the way there, by connection.
    let_go: what stands still goes on when it is set; it is set at the end.
    """

    most = None         # so many connections are taken, and no more
    read = staticmethod(pieces)
    receive_bytes = None  # of the kernel's buffer

    def __init__(self, uri):
        host, port = uri[len('tcp:'):].rsplit(':', 1)
        self.target = host.strip('[]'), int(port)
        self.lock, self.happened, self.let_go, self.over = threading.Lock(), *(threading.Event() for _ in range(3))
        self.passed, self.carried, self.ends, self.threads = {'there': 0, 'back': 0}, [], [], []
        self.trouble = None
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self.receive_bytes:
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_bytes)
        self.listener.bind(('127.0.0.1', 0))
        self.listener.listen(32)
        self.uri = f'tcp:127.0.0.1:{self.listener.getsockname()[1]}'

    def change(self, piece):
        """What goes on in its place; a Cut or its like ends something behind it. One thread for each way of a connection."""
        return piece.data

    def __enter__(self):
        self._start(self._accept)
        return self

    def __exit__(self, *_):
        self.over.set()
        self.let_go.set()
        hang_up(self.listener, *self.ends)
        self.threads[0].join()  # after which there are no more
        hang_up(*self.ends)
        for thread in self.threads:
            thread.join()
        for end in (self.listener, *self.ends):
            end.close()

    def _start(self, run, *args):
        self.threads.append(threading.Thread(target=run, args=args, daemon=True))
        self.threads[-1].start()

    def _accept(self):
        while self.most is None or len(self.carried) < self.most:
            try:
                here, _ = self.listener.accept()
            except OSError:
                return
            self.ends.append(here)
            try:
                there = socket.create_connection(self.target)
            except OSError:
                hang_up(here)
                continue
            self.ends.append(there)
            for end in (here, there):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.carried.append(0)
            self._start(self._pump, 'there', len(self.carried) - 1, here, there)
            self._start(self._pump, 'back', len(self.carried) - 1, there, here)

    def _pump(self, way, number, source, sink):
        offset = 0
        try:
            for name, data in self.read(source):
                piece = Piece(way, number, offset, name, data, source, sink)
                changed = self.change(piece)
                offset += len(data)
                with self.lock:
                    self.passed[way] += len(data)
                    self.carried[number] += len(data) if way == 'there' else 0
                if changed:
                    sink.sendall(changed)
                if isinstance(changed, Cut):
                    changed.end(self, piece)
                    return
            sink.shutdown(socket.SHUT_WR)
        except (OSError, ValueError) as why:
            if isinstance(why, ValueError):
                self.trouble = f'the line does not understand {why}'
            hang_up(source, sink)


class Proxy(Relay):
    """One connection. forward(offset, data) sees what the source sends and returns what the destination shall get; a Cut
    ends the line. back(offset, data) is the same for the other way. bytes_per_s paces the way there."""

    most = 1
    receive_bytes = 65536

    def __init__(self, uri, forward=None, back=None, bytes_per_s=0):
        super().__init__(uri)
        self.hooks, self.bytes_per_s = {'there': forward, 'back': back}, bytes_per_s

    def change(self, piece):
        hook = self.hooks[piece.way]
        changed = hook(piece.offset, piece.data) if hook else piece.data
        if piece.way == 'there' and self.bytes_per_s:
            self.over.wait(len(piece.data) / self.bytes_per_s)
        return changed


def cut_at(k):
    """The line ends after k bytes: the k-th still arrives."""
    return lambda offset, data: data if offset + len(data) < k else Cut(data[:max(0, k - offset)])


def flip(at, mask, done):
    """Turns bits of one byte around, and puts its number into the list `done` when it came by."""
    def hook(offset, data):
        if not offset <= at < offset + len(data):
            return data
        done.append(at)
        data = bytearray(data)
        data[at - offset] ^= mask
        return bytes(data)
    return hook


class Lines(Relay):
    """cuts: so many connections end at the first message of `kind` that comes, before it or (after=True) behind it.
    done: so many have."""

    read = Elements

    def __init__(self, uri, kind, cuts=1, after=False):
        super().__init__(uri)
        self.kind, self.cuts, self.after, self.done = NAMES[kind], cuts, after, 0

    def change(self, piece):
        with self.lock:
            cut = piece.name == self.kind and self.done < self.cuts
            self.done += cut
        return Cut(piece.data if self.after else b'') if cut else piece.data


class Bundle(Relay):
    """Connection 0 is the main one.

    after: {connection: (bytes, what)}: when so many bytes of it went there, it is 'cut', or nothing passes any more ('stall').
    hold: the first message of this kind that comes back over the main one, and what is behind it, waits for `let_go`.
    """

    def __init__(self, uri, after=None, hold=None):
        super().__init__(uri)
        self.after, self.hold = after or {}, hold and NAMES[hold]

    def read(self, source):
        return Elements(source) if self.hold else pieces(source)

    def change(self, piece):
        if piece.way == 'back':
            if piece.name and piece.name == self.hold:
                self.happened.set()
                self.let_go.wait()
                self.hold = None
            return piece.data
        limit, what = self.after.get(piece.connection, (float('inf'), None))
        if piece.offset + len(piece.data) <= limit:
            return piece.data
        piece.send(piece.data[:limit - piece.offset])
        self.happened.set()
        if what == 'stall':
            self.over.wait()
        return Cut()


class Chaos(Relay):
    """plan: None, or (how, way, place), performed once. how: cut, both ways; reset, with what is on its way thrown away;
    half, this way ends and the other goes on; stall, this way stands still until `let_go`. way: there, back. place: a byte's
    number on this way over all connections, or 'NAME:N:before|in|after', the N-th element of that name.

    seen: how many elements came by, by (way, name). happened: the plan has been performed, or has begun."""

    read = Elements
    ENDS = {'cut': CutAll, 'reset': Reset, 'half': Half}

    def __init__(self, uri, plan=None):
        super().__init__(uri)
        self.plan, self.seen, self.come = plan, {}, {'there': 0, 'back': 0}

    def change(self, piece):
        at = self._place(piece.way, piece.name, piece.data)
        if at is None:
            return piece.data
        if self.plan[0] != 'stall':
            return self.ENDS[self.plan[0]](piece.data[:at])
        piece.send(piece.data[:at])
        self.let_go.wait()
        return piece.data[at:]

    def _place(self, way, name, data):
        """Where in this element the plan is due, or None."""
        with self.lock:
            begin = self.come[way]
            self.come[way] += len(data)
            number = self.seen[way, name] = self.seen.get((way, name), 0) + 1
            if not self.plan or self.happened.is_set() or self.plan[1] != way:
                return None
            place = self.plan[2]
            if isinstance(place, int):
                at = place - begin if begin <= place < begin + len(data) else None
            else:
                wanted, nth, where = place.split(':')
                due = wanted == name and int(nth) == number
                at = {'before': 0, 'in': len(data) // 2, 'after': len(data)}[where] if due else None
            if at is not None:
                self.happened.set()
            return at
