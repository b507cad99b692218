"""A line between two processes that can be slow, cut or lie."""
import select, socket, threading, time


class Proxy:
    """Listens on a tcp port and passes everything on to `uri` (tcp:HOST:PORT), both ways.

    forward(offset, data) sees what the source sends and returns what the destination shall get; a Cut ends the line.
    back(offset, data) is the same for the other way. bytes_per_s paces the way there. accept=False: nobody answers.
    """

    def __init__(self, uri, forward=None, back=None, bytes_per_s=0):
        host, port = uri[len('tcp:'):].rsplit(':', 1)
        self.target, self.forward, self.back = (host.strip('[]'), int(port)), forward, back
        self.bytes_per_s, self.sent, self.answered = bytes_per_s, 0, 0
        self.cut, self.done = threading.Event(), threading.Event()
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        self.listener.bind(('127.0.0.1', 0))
        self.listener.listen(4)
        self.uri = f'tcp:127.0.0.1:{self.listener.getsockname()[1]}'
        self.ends = []

    def __enter__(self):
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.cut.set()
        for end in (self.listener, *self.ends):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self.thread.join()
        for end in (self.listener, *self.ends):
            end.close()

    def _run(self):
        try:
            here, _ = self.listener.accept()
            self.ends.append(here)
            there = socket.create_connection(self.target)
            self.ends.append(there)
            ways = [threading.Thread(target=self._pump, args=(here, there, True), daemon=True),
                    threading.Thread(target=self._pump, args=(there, here, False), daemon=True)]
            for way in ways:
                way.start()
            for way in ways:
                way.join()
        except OSError:
            pass
        self.done.set()

    def _pump(self, source, sink, there):
        hook, offset = self.forward if there else self.back, 0
        try:
            while not self.cut.is_set():
                data = source.recv(16384)
                if not data:
                    sink.shutdown(socket.SHUT_WR)
                    return
                changed = hook(offset, data) if hook else data
                offset += len(data)
                if there:
                    self.sent = offset
                else:
                    self.answered = offset
                if changed:
                    sink.sendall(changed)
                if isinstance(changed, Cut):
                    self._hang_up()
                    return
                if there and self.bytes_per_s:
                    self.cut.wait(len(data) / self.bytes_per_s)
        except OSError:
            self._hang_up()

    def _hang_up(self):
        self.cut.set()
        for end in self.ends:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class Cut(bytes):
    """What a hook returns to have this much sent and then the line cut."""


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


HELLO, REFUSAL, LOADED, PREPARED, RUNNING, REFUSED, ERROR, GO, RETRACT, RETRACTED, RESUME, DONE = range(1, 13)


def message(kind):
    """How a message of the hand-over begins on the wire."""
    return b'GDWT' + kind.to_bytes(2, 'big') + b'\0\0'


class Lines:
    """Listens on a tcp port and passes every connection on to `uri`, both ways, as often as anybody connects.

    cuts: so many connections end at the first message of `kind` that comes, before it or (after=True) behind it.
    """

    def __init__(self, uri, kind, cuts=1, after=False):
        host, port = uri[len('tcp:'):].rsplit(':', 1)
        self.target, self.head, self.cuts, self.after = (host.strip('[]'), int(port)), message(kind), cuts, after
        self.lock, self.done, self.count, self.ends, self.threads = threading.Lock(), 0, 0, [], []
        self.listener = socket.create_server(('127.0.0.1', 0))
        self.uri = f'tcp:127.0.0.1:{self.listener.getsockname()[1]}'

    def __enter__(self):
        self._start(self._accept)
        return self

    def __exit__(self, *_):
        self._hang_up(self.listener, *self.ends)
        for thread in self.threads:
            thread.join()
        for end in (self.listener, *self.ends):
            end.close()

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
            self.count += 1
            self._start(self._pump, here, there)
            self._start(self._pump, there, here)

    def _pump(self, source, sink):
        # Nothing is held back: the last bytes of one message may look like the start of the next, which may never come.
        # A head that arrives in two pieces is cut in its middle, which is as good as before it.
        before = b''
        try:
            while data := source.recv(65536):
                whole = before + data
                at = whole.find(self.head)
                with self.lock:
                    cut = at >= 0 and self.done < self.cuts
                    self.done += cut
                if cut:
                    end = at + len(self.head) + 32 + int.from_bytes(whole[at + 8:at + 12], 'big') if self.after else at
                    sink.sendall(whole[len(before):max(end, len(before))])
                    break
                before = whole[-(len(self.head) - 1):]
                sink.sendall(data)
        except OSError:
            pass
        self._hang_up(source, sink)

    @staticmethod
    def _hang_up(*ends):
        for end in ends:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
