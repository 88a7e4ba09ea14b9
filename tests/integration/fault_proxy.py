# SPDX-License-Identifier: Apache-2.0
"""An HTTP proxy in front of a registry that counts what passes and, by rule, does to it what networks and servers do.

    proxy = FaultProxy(bed, registry.port)
    proxy.rule(status(503, {'Retry-After': '1'}), path='/blobs/', times=2)

The first rule that matches a request decides; without one it is handed on. Rules are functions of the exchange: those below, or
the test's own.
"""
import collections
import http.client
import http.server
import re
import socket
import threading
import time

Answer = collections.namedtuple('Answer', 'status headers body')

PIECE = 256 << 10
NOT_HANDED_ON = {'connection', 'transfer-encoding', 'content-length', 'host', 'keep-alive'}


class Rule:
    def __init__(self, action, path, method, times, when):
        self.action, self.path, self.method, self.left, self.when = action, re.compile(path), method, times, when
        self.hits = 0

    def takes(self, exchange):
        if self.left == 0 or self.method not in (None, exchange.method) or not self.path.search(exchange.path):
            return False
        if self.when and not self.when(exchange):
            return False
        self.hits += 1
        if self.left is not None:
            self.left -= 1
        return True


class Exchange:
    """One request, and the means to answer it. It stays on record, with its status and the bytes sent."""

    def __init__(self, handler, proxy):
        self.time = time.monotonic()
        self.handler, self.proxy = handler, proxy
        self.method, self.path, self.headers = handler.command, handler.path, handler.headers
        self.sent = 0
        self.status = None
        self.over = False
        length = int(self.headers.get('Content-Length') or 0)
        self.body = handler.rfile.read(length) if length else b''

    @property
    def authorization(self):
        return self.headers.get('Authorization')

    @property
    def range(self):
        """(first, last), or None."""
        found = re.fullmatch(r'bytes=(\d+)-(\d+)', self.headers.get('Range') or '')
        return found and (int(found.group(1)), int(found.group(2)))

    def forward(self, without=()):
        """Asks the registry behind; WITHOUT: headers that are not handed on."""
        headers = {k: v for k, v in self.headers.items() if k.lower() not in NOT_HANDED_ON | set(without)}
        connection = http.client.HTTPConnection('127.0.0.1', self.proxy.upstream, timeout=30)
        try:
            connection.request(self.method, self.path, self.body or None, headers)
            answer = connection.getresponse()
            body = answer.read()
            fields = [(k, v) for k, v in answer.getheaders() if k.lower() not in NOT_HANDED_ON]
            if self.method == 'HEAD' and answer.getheader('Content-Length'):
                fields.append(('Content-Length', answer.getheader('Content-Length')))
            return Answer(answer.status, fields, body)
        finally:
            connection.close()

    def send(self, status, headers=(), body=b'', cut=None, piece=None, pause=0):
        """Answers. CUT: hang up behind that many bytes of the body. PIECE, PAUSE: that many bytes at a time."""
        headers = list(headers.items() if isinstance(headers, dict) else headers)
        names = {k.lower() for k, _ in headers}
        handler, self.status = self.handler, status
        handler.send_response_only(status)
        for name, value in headers:
            handler.send_header(name, value)
        if 'content-length' not in names:
            handler.send_header('Content-Length', str(len(body)))
        handler.end_headers()
        if self.method != 'HEAD':
            data = body if cut is None else body[:cut]
            piece = piece or PIECE
            for at in range(0, len(data), piece):
                if at and self.proxy.closing.wait(pause):
                    break
                # Counted before the client can have it, and little more when it hangs up.
                self.sent += len(data[at:at + piece])
                handler.wfile.write(data[at:at + piece])
        handler.wfile.flush()
        if cut is not None:
            self.hang_up()

    def send_answer(self, answer, **more):
        self.send(answer.status, answer.headers, answer.body, **more)

    def hang_up(self):
        self.handler.close_connection = True
        # A half-closed connection would let the peer wait for the rest.
        self.handler.connection.shutdown(socket.SHUT_RDWR)

    def relay(self):
        self.send_answer(self.forward())


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    disable_nagle_algorithm = True
    wbufsize = 65536

    def setup(self):
        super().setup()
        with self.server.proxy.lock:
            self.server.proxy.connections.add(self.connection)

    def finish(self):
        try:
            super().finish()
        except OSError:
            pass
        with self.server.proxy.lock:
            self.server.proxy.connections.discard(self.connection)

    def log_message(self, *args):
        pass

    def handle_one_request(self):
        try:
            super().handle_one_request()
        except OSError:
            self.close_connection = True

    def answer(self):
        proxy = self.server.proxy
        exchange = Exchange(self, proxy)
        with proxy.lock:
            # At the beginning: a client that has its answer finds the request here.
            proxy.records.append(exchange)
            rule = next((r for r in proxy.rules if r.takes(exchange)), None)
            proxy.active += 1
            proxy.most_active = max(proxy.most_active, proxy.active)
        try:
            (rule.action if rule else Exchange.relay)(exchange)
        finally:
            with proxy.lock:
                proxy.active -= 1
                exchange.over = True

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = answer


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request, client_address):
        pass  # a client that hung up


class FaultProxy:
    def __init__(self, bed, upstream, name='127.0.0.1', port=0):
        self.upstream = upstream
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self.rules, self.records, self.connections = [], [], set()
        self.active = self.most_active = 0
        self.server = _Server(('127.0.0.1', port), _Handler)
        self.server.proxy = self
        self.port = self.server.server_address[1]
        self.host = '%s:%d' % (name, self.port)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={'poll_interval': 0.05}, daemon=True)
        self.thread.start()
        bed.stack.callback(self.close)

    def close(self):
        """Like a killed server: the port refuses, the connections break."""
        if self.closing.is_set():
            return
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()
        with self.lock:
            connections = list(self.connections)
        for connection in connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def rule(self, action, path='', method=None, times=None, when=None):
        """Adds a rule before the others. PATH: a regular expression; TIMES: for so many requests; WHEN: a condition on one."""
        rule = Rule(action, path, method, times, when)
        with self.lock:
            self.rules.insert(0, rule)
        return rule

    def clear(self):
        """No rules, nothing counted."""
        with self.lock:
            self.rules, self.records, self.most_active = [], [], 0

    def requests(self, path='', method=None):
        with self.lock:
            return [r for r in self.records if re.search(path, r.path) and method in (None, r.method)]

    def bytes(self, path=''):
        return sum(r.sent for r in self.requests(path))


# ---- what can be done to an exchange ----

def delay(seconds):
    def action(x):
        x.proxy.closing.wait(seconds)
        x.relay()
    return action


def hang(until=None):
    """No answer until the event, or the proxy's end."""
    def action(x):
        while not x.proxy.closing.wait(0.05) and not (until and until.is_set()):
            pass
        if until and until.is_set():
            x.relay()
        else:
            x.hang_up()
    return action


def slow(piece, pause):
    """PIECE bytes at a time, with a pause after each."""
    return lambda x: x.send_answer(x.forward(), piece=piece, pause=pause)


def cut(after):
    """The connection breaks behind so many bytes of the body."""
    return lambda x: x.send_answer(x.forward(), cut=after)


def status(code, headers=(), body=b''):
    return lambda x: x.send(code, headers, body)


def document(body, media_type):
    """This body instead of the registry's."""
    return lambda x: x.send(200, {'Content-Type': media_type}, body)


def ignore_range(x):
    x.send_answer(x.forward(without={'range'}))


def wrong_content_range(x):
    """Says that it sends another range."""
    answer = x.forward()

    def shift(value):
        return re.sub(r'bytes (\d+)-(\d+)', lambda m: 'bytes %d-%d' % (int(m.group(1)) + 1, int(m.group(2)) + 1), value)

    x.send(answer.status, [(k, shift(v) if k.lower() == 'content-range' else v) for k, v in answer.headers], answer.body)


def flip(position=0.5):
    """One wrong byte in the body, at that part of it."""
    def action(x):
        answer = x.forward()
        body = bytearray(answer.body)
        if body:
            body[min(int(len(body) * position), len(body) - 1)] ^= 0x55
        x.send_answer(answer._replace(body=bytes(body)))
    return action


def redirect(make_url, code=307):
    return lambda x: x.send(code, {'Location': make_url(x)})


class BlobHost:
    """The second host to which registries redirect for blobs: presigned URLs that expire, and 400 to an Authorization, as S3
    answers it. FRONT redirects to it."""

    def __init__(self, bed, front):
        self.host = FaultProxy(bed, front.upstream, name='localhost')
        self.expired_status = 403
        self.signatures = set()
        self.number = 0
        self.front_rule = front.rule(redirect(self._sign), path='/blobs/')
        self.host.rule(self._serve)

    def _sign(self, x):
        self.number += 1
        self.signatures.add(self.number)
        return 'http://%s%s?signature=%d' % (self.host.host, x.path, self.number)

    def _serve(self, x):
        path, _, query = x.path.partition('?signature=')
        if x.headers.get('Authorization'):
            x.send(400, {}, b'<Error><Code>InvalidArgument</Code></Error>')
        elif not query.isdigit() or int(query) not in self.signatures:
            x.send(self.expired_status, {}, b'<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>')
        else:
            x.path = path
            x.relay()

    def expire(self):
        self.signatures.clear()
