# SPDX-License-Identifier: Apache-2.0
"""A proxy in front of a registry on the loopback that counts what passes, and is not in its way.

Bodies go from socket to socket through a pipe, within the kernel; connections stay open on both sides. It hands on what a client
that pulls asks: GET and HEAD, answered with a Content-Length. The proxy of the integration tests, by contrast, holds each answer
in memory and can break it.
"""
import collections
import contextlib
import fcntl
import os
import re
import socket
import threading
import time

PIPE_SIZE = 1 << 20
HEAD_MAX = 64 << 10
PATIENCE = 120  # seconds

# FIRST: where in the blob the body begins; SENT: bytes of the body that passed, also when somebody hung up.
Record = collections.namedtuple('Record', 'method path status first sent')


class BadPeer(Exception):
    """Somebody speaks what this proxy does not."""


def read_head(peer):
    """The head of a request or answer, and the bytes behind it that came along; (None, b'') when the peer has hung up."""
    data = b''
    while b'\r\n\r\n' not in data:
        piece = peer.recv(HEAD_MAX)
        if not piece:
            if data:
                raise BadPeer('a head ends in the middle')
            return None, b''
        data += piece
        if len(data) > 2 * HEAD_MAX:
            raise BadPeer('a head without end')
    head, _, rest = data.partition(b'\r\n\r\n')
    return head + b'\r\n\r\n', rest


def header(head, name):
    found = re.search(rb'(?im)^%s:[ \t]*(.*?)[ \t]*\r?$' % re.escape(name.encode()), head)
    return found and found.group(1).decode('latin-1')


class CountingProxy:
    def __init__(self, upstream):
        self.upstream = upstream
        self.lock = threading.Lock()
        self.none_active = threading.Condition(self.lock)
        self.records, self.failures, self.sockets = [], [], set()
        self.active, self.closing = 0, False
        self.last_activity = time.monotonic()
        self.listener = socket.create_server(('127.0.0.1', 0), backlog=256)
        self.port = self.listener.getsockname()[1]
        self.host = '127.0.0.1:%d' % self.port
        self.threads = [threading.Thread(target=self._accept, daemon=True)]
        self.threads[0].start()

    def close(self):
        with self.lock:
            self.closing = True
            sockets = list(self.sockets)
        for s in [self.listener, *sockets]:
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)
        for thread in list(self.threads):
            thread.join()
        self.listener.close()

    def take_records(self):
        """What passed since the last call, when nothing is under way. Raises BadPeer for what could not pass."""
        with self.lock:
            # A client has the end of a body a moment before it is recorded.
            if not self.none_active.wait_for(lambda: not self.active, PATIENCE):
                raise BadPeer('a request without end')
            records, self.records = self.records, []
            failures, self.failures = self.failures, []
        if failures:
            raise BadPeer('; '.join(failures))
        return records

    def wait_until_idle(self, seconds=0.3):
        """Returns when nobody has asked for anything for that long: readahead ends some time behind the read."""
        end = time.monotonic() + PATIENCE
        while True:
            with self.lock:
                rest = seconds if self.active else self.last_activity + seconds - time.monotonic()
            if rest <= 0:
                return
            if time.monotonic() > end:
                raise BadPeer('requests without end')
            time.sleep(rest)

    # ---- connections ----

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._connection, args=(client,), daemon=True)
            with self.lock:
                if self.closing:
                    client.close()
                    return
                self.threads = [t for t in self.threads if t.is_alive()] + [thread]
                self.sockets.add(client)
            thread.start()

    def _connection(self, client):
        upstream = pipe = None
        try:
            upstream = socket.create_connection(('127.0.0.1', self.upstream))
            pipe = os.pipe()
            fcntl.fcntl(pipe[1], fcntl.F_SETPIPE_SZ, PIPE_SIZE)
            for s in (client, upstream):
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self.lock:
                self.sockets.add(upstream)
            while self._exchange(client, upstream, pipe):
                pass
        except BadPeer as e:
            with self.lock:
                self.failures.append(str(e))
        except OSError:
            pass  # one of the two hung up
        finally:
            with self.lock:
                self.sockets -= {client, upstream}
            for s in (client, upstream):
                if s:
                    s.close()
            for end in pipe or ():
                os.close(end)

    def _exchange(self, client, upstream, pipe):
        """One request and its answer. Whether the connection goes on."""
        request, rest = read_head(client)
        if request is None:
            return False
        method, path, _ = request.split(b'\r\n', 1)[0].decode('latin-1').split(' ', 2)
        if method not in ('GET', 'HEAD') or rest or header(request, 'Content-Length') not in (None, '0'):
            raise BadPeer('%s %s: only GET and HEAD pass, one after the other' % (method, path))
        with self.lock:
            self.active += 1
        status, first, sent = 0, 0, 0
        try:
            upstream.sendall(request)
            answer, body = read_head(upstream)
            if answer is None:
                return False
            status = int(answer.split(b' ', 2)[1])
            left = self._body_length(method, path, status, answer)
            found = re.match(r'bytes (\d+)-', header(answer, 'Content-Range') or '')
            first = int(found.group(1)) if found else 0
            client.sendall(answer + body)
            sent = len(body)
            for passed in self._pour(upstream, client, pipe, left - len(body)):
                sent += passed
        finally:
            with self.lock:
                self.active -= 1
                self.last_activity = time.monotonic()
                self.records.append(Record(method, path, status, first, sent))
                self.none_active.notify_all()
        return (header(answer, 'Connection') or '').lower() != 'close'

    @staticmethod
    def _body_length(method, path, status, answer):
        if method == 'HEAD' or status in (204, 304):
            return 0
        length = header(answer, 'Content-Length')
        if length is None:
            raise BadPeer('%s %s: an answer without Content-Length' % (method, path))
        return int(length)

    @staticmethod
    def _pour(source, sink, pipe, left):
        """Hands on LEFT bytes; yields how many passed, piece by piece."""
        while left:
            count = os.splice(source.fileno(), pipe[1], min(left, PIPE_SIZE))
            if not count:
                raise OSError('the registry hung up')
            left -= count
            # More follows: the kernel need not send what is short of a full packet.
            flags = os.SPLICE_F_MORE if left else 0
            while count:
                passed = os.splice(pipe[0], sink.fileno(), count, flags=flags)
                count -= passed
                yield passed
