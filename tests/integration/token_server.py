# SPDX-License-Identifier: Apache-2.0
"""A token server (distribution-spec's token authentication) with a key of its own, and a gate that asks for its tokens.

docker-registry itself checks the tokens when its configuration is registry_config(); TokenGate stands in front of an open one and
may want different tokens for different things, let them expire, or challenge in ways that no registry should."""
import base64
import hashlib
import json
import secrets
import subprocess
import threading
import time
import urllib.parse

from fault_proxy import FaultProxy
from testbed import run


def _base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b'=').decode()


class Key:
    """An RSA key with a certificate, as docker-registry's rootcertbundle wants it."""

    def __init__(self, directory):
        self.key, self.cert = directory / 'token.key', directory / 'token.crt'
        run('openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-subj', '/CN=regfs test tokens',
            '-keyout', self.key, '-out', self.cert)
        der = subprocess.run(['openssl', 'rsa', '-in', self.key, '-pubout', '-outform', 'DER'], stdout=subprocess.PIPE,
                             stderr=subprocess.DEVNULL, check=True).stdout
        # libtrust's fingerprint: 240 bits of SHA-256 in base32, in groups of four.
        text = base64.b32encode(hashlib.sha256(der).digest()[:30]).decode()
        self.id = ':'.join(text[i:i + 4] for i in range(0, 48, 4))

    def sign(self, claims):
        head = {'typ': 'JWT', 'alg': 'RS256', 'kid': self.id}
        signed = '.'.join(_base64url(json.dumps(part).encode()) for part in (head, claims))
        signature = subprocess.run(['openssl', 'dgst', '-sha256', '-sign', str(self.key)], input=signed.encode(),
                                   stdout=subprocess.PIPE, check=True).stdout
        return signed + '.' + _base64url(signature)


class TokenServer:
    """What it does is told by `mode`: "ok", or a function of the exchange that answers in its place."""
    SERVICE, ISSUER = 'regfs-test', 'regfs-test-issuer'

    def __init__(self, bed, users=None, identity_tokens=()):
        self.users, self.identity_tokens = users or {}, set(identity_tokens)
        self.key = Key(bed.mkdir('token-server'))
        self.lock = threading.Lock()
        self.issued = {}  # token → (service, scopes, user, end)
        self.asked = []   # (service, scopes, user) of each request for a token
        self.lifetime = 300
        self.mode = 'ok'
        self.proxy = FaultProxy(bed, None)
        self.proxy.rule(self._answer)
        self.realm = 'http://%s/token' % self.proxy.host

    def registry_config(self):
        return {'realm': self.realm, 'service': self.SERVICE, 'issuer': self.ISSUER, 'rootcertbundle': str(self.key.cert)}

    def kill(self):
        self.proxy.close()

    def requests(self):
        with self.lock:
            return list(self.asked)

    def forget_requests(self):
        with self.lock:
            self.asked = []

    def revoke(self):
        """Every token that was issued is worth nothing from now on."""
        with self.lock:
            self.issued = {}

    def allows(self, token, service, scope):
        with self.lock:
            known = self.issued.get(token)
        return bool(known) and known[0] == service and scope in known[1] and time.time() < known[3]

    def _answer(self, x):
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(x.path).query)
        form = urllib.parse.parse_qs(x.body.decode()) if x.method == 'POST' else {}
        service = (query.get('service') or form.get('service') or [''])[0]
        scopes = tuple(query.get('scope') or (form.get('scope') or [''])[0].split())
        user, allowed = self._user(x, form)
        with self.lock:
            self.asked.append((service, scopes, user))
        if self.mode != 'ok':
            self.mode(x)
        elif not allowed:
            x.send(401, {'Content-Type': 'application/json'},
                   b'{"errors": [{"code": "UNAUTHORIZED", "message": "the password is wrong"}]}')
        else:
            body = {'token': self.issue(service, scopes, user), 'expires_in': self.lifetime}
            x.send(200, {'Content-Type': 'application/json'}, json.dumps(body).encode())

    def _user(self, x, form):
        """(name, may have a token)."""
        if form:
            return '<token>', (form.get('refresh_token') or [''])[0] in self.identity_tokens
        kind, _, value = (x.headers.get('Authorization') or '').partition(' ')
        if kind != 'Basic':
            return None, not self.users
        name, _, password = base64.b64decode(value).decode().partition(':')
        return name, self.users.get(name) == password

    def issue(self, service, scopes, user):
        access = []
        for scope in scopes:
            parts = scope.split(':')
            if len(parts) >= 3:
                access.append({'type': parts[0], 'name': ':'.join(parts[1:-1]), 'actions': parts[-1].split(',')})
        now = int(time.time())
        token = self.key.sign({'iss': self.ISSUER, 'sub': user or '', 'aud': service, 'exp': now + self.lifetime, 'nbf': now - 10,
                               'iat': now, 'jti': secrets.token_hex(8), 'access': access})
        with self.lock:
            self.issued[token] = (service, scopes, user, time.time() + self.lifetime)
        return token


class TokenGate:
    """A registry's front that wants tokens. WANTS: {part of the path: (service, scope)}; a scope may hold {repository}."""

    def __init__(self, bed, registry_port, tokens, wants):
        self.tokens, self.wants = tokens, wants
        self.proxy = FaultProxy(bed, registry_port)
        self.host = self.proxy.host
        self.challenges = None  # or a function of (realm, service, scope): the values of WWW-Authenticate
        self.meeting = None     # or a threading.Barrier at which refused requests wait for each other
        self.proxy.rule(self._check, path='^/v2/')

    def _check(self, x):
        part = next((p for p in self.wants if p in x.path.replace('/referrers/', '/manifests/')), None)
        if not part:
            return x.send(401, [('WWW-Authenticate', self._challenge('', ''))])
        service, scope = self.wants[part]
        path = x.path.replace('/referrers/', '/manifests/')
        scope = scope.format(repository=path[len('/v2/'):].rpartition('/%s/' % part.strip('/'))[0])
        kind, _, token = (x.headers.get('Authorization') or '').partition(' ')
        if kind == 'Bearer' and self.tokens.allows(token, service, scope):
            answer = x.forward(without={'authorization'})
            return x.send_answer(answer)
        if self.meeting:
            try:
                self.meeting.wait(1)
            except threading.BrokenBarrierError:
                pass
        fields = self.challenges(self.tokens.realm, service, scope) if self.challenges else [self._challenge(service, scope, kind)]
        x.send(401, [('WWW-Authenticate', f) for f in fields], b'{"errors": [{"code": "UNAUTHORIZED"}]}')

    def _challenge(self, service, scope, kind=''):
        error = ',error="invalid_token"' if kind == 'Bearer' else ''
        return 'Bearer realm="%s",service="%s",scope="%s"%s' % (self.tokens.realm, service, scope, error)
