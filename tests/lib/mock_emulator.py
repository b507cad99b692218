#!/usr/bin/env python3
"""An emulator without a guest, for tests of the bench harness: it takes QEMU's options, speaks QMP, "migrates" so many bytes, and
says on its serial line what a dirtier says (bench/guest/dirty.h), with gaps, RTC and lies as it is told.

    mock_emulator.py -append 'KEY=VALUE ...' and QEMU's options, of which only -serial, -qmp and -incoming matter; -mock KEY=VALUE is the
    configuration's word

  bytes=N   what it sends            claims=N   the bytes that it says it sent          says_ms=N   the downtime that it claims
  gap_ms=N  the guest's gap          slip_s=N   how far the RTC falls back when it moves, which hides as much of the pause
  never=1   it does not converge     fails=1    its migrations fail                     wrong=1     the guest finds a wrong page
  gives_up=1  they fail, and it says that the pause does not fit                        mute=1      a guest that has moved says nothing
"""
import json, os, socket, sys, threading, time

lock = threading.Lock()
state = {'pages': 0, 'status': {}, 'running': True, 'offset_ns': -400_000_000, 'gap_ns': 1_500_000, 'incoming': None, 'spoiled': False}
told = {'bytes': 100000, 'claims': 1, 'says_ms': 0, 'gap_ms': 0, 'slip_s': 0, 'never': 0, 'fails': 0, 'wrong': 0, 'gives_up': 0, 'mute': 0}


def rtc():
    return time.time_ns() + state['offset_ns']


def guest(path):
    """A line every 20 ms of its life; answers q and x."""
    line, n = socket.socket(socket.AF_UNIX), 0
    line.connect(path)
    greeted = False
    while True:
        line.settimeout(0.02)
        try:
            typed = line.recv(64)
            if not typed:
                return
            with lock:
                state['spoiled'] |= b'x' in typed
                if b'q' in typed and state['running']:
                    bad = state['spoiled'] or told['wrong']
                    line.sendall(f'\nEND {"failed" if bad else "ok"} pages {state["pages"]} errors {int(bad)}\n'.encode())
                    line.close()
                    os._exit(0)
        except TimeoutError:
            pass
        with lock:
            if not state['running'] or told['mute'] and state['incoming'] is not None:
                continue
            if not greeted and state['incoming'] is None:
                line.sendall(b'READY pages 0\n')
            greeted = True
            state['pages'] += 20
            now = rtc()
            line.sendall(f'.\nD {n} rtc {now} guest 0 gap {state["gap_ns"]} at {now} pages {state["pages"]} errors 0\n'.encode())
            state['gap_ns'] = 1_500_000
        n += 1


def arrive(listener):
    peer, _ = listener.accept()
    got = b''
    while data := peer.recv(65536):
        got += data
    head = json.loads(got.split(b'\n', 1)[0])
    with lock:
        state.update(pages=head['pages'], offset_ns=head['offset_ns'] - int(told['slip_s'] * 1e9),
                     gap_ns=int(told['gap_ms'] * 1e6), running=True)


def leave(uri):
    host, port = uri.split(':')[1:]
    with lock:
        state['status'] = {'status': 'active', 'ram': {'transferred': 0, 'dirty-sync-count': 1}}
    if told['never']:
        return
    if told['fails'] or told['gives_up']:
        with lock:
            state['status'] = {'status': 'failed', 'error-desc': 'as it was told' if told['fails'] else 'given up after 9 rounds'}
        return
    peer = socket.create_connection((host, int(port)))
    with lock:
        state['running'] = False
        head = json.dumps({'pages': state['pages'], 'offset_ns': state['offset_ns']}).encode() + b'\n'
    peer.sendall(head + bytes(int(told['bytes']) - len(head)))
    peer.shutdown(socket.SHUT_WR)
    peer.recv(1)
    with lock:
        state['status'] = {'status': 'completed', 'total-time': 1, 'downtime': told['says_ms'],
                           'ram': {'transferred': told['claims'], 'dirty-sync-count': 2}}


def answer(command, arguments):
    if command == 'migrate-incoming':
        listener = socket.create_server(('127.0.0.1', 0))
        with lock:
            state['status'] = {'status': 'setup', 'socket-address': [{'type': 'inet', 'host': '127.0.0.1',
                                                                      'port': str(listener.getsockname()[1])}]}
        threading.Thread(target=arrive, args=(listener,), daemon=True).start()
    elif command == 'migrate':
        threading.Thread(target=leave, args=(arguments['uri'],), daemon=True).start()
    elif command == 'migrate_cancel':
        with lock:
            state['status'] = dict(state['status'], status='cancelled')
    elif command == 'query-migrate':
        with lock:
            return dict(state['status'])
    elif command == 'query-status':
        return {'status': 'running' if state['running'] else 'inmigrate' if state['incoming'] else 'postmigrate'}
    return {}


def main():
    args = sys.argv[1:]
    if '-version' in args:
        print('mock emulator version 1')
        return
    option = {name: args[args.index(name) + 1] for name in ('-serial', '-qmp', '-incoming', '-append') if name in args}
    told_more = [args[i + 1] for i, name in enumerate(args) if name == '-mock']
    for word in [*option.get('-append', '').split(), *told_more]:
        key, value = word.split('=')
        if key in told:
            told[key] = float(value) if '.' in value else int(value)
    state['incoming'] = option.get('-incoming')
    state['running'] = state['incoming'] is None
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(option['-qmp'][len('unix:'):].split(',')[0])
    listener.listen(1)
    threading.Thread(target=guest, args=(option['-serial'][len('unix:'):],), daemon=True).start()
    peer, _ = listener.accept()
    lines = peer.makefile('rw')
    print(json.dumps({'QMP': {'version': {}, 'capabilities': []}}), file=lines, flush=True)
    for line in lines:
        question = json.loads(line)
        print(json.dumps({'return': answer(question['execute'], question.get('arguments', {}))}), file=lines, flush=True)


if __name__ == '__main__':
    main()
