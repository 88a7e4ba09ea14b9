# SPDX-License-Identifier: Apache-2.0
"""Credentials and tokens: where they come from, who gets them, how often they are asked for, and what happens when the token
server does not do what it should."""
import base64
import json
import os
import shutil
import threading
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from errno import EIO

import images
from fault_proxy import hang, status
from registry import Authority, Registry
from testbed import BAD_DATA, DENIED, UNREACHABLE, TestCase, forget_pages
from token_server import TokenGate, TokenServer

TEXT = images.text(8, 5 << 20)


def authorization(exchange):
    return exchange.headers.get('Authorization') or ''


def pair(user, password):
    return base64.b64encode(('%s:%s' % (user, password)).encode()).decode()


class HtpasswdTest(TestCase):
    """Where credentials are found, in front of a registry with htpasswd."""

    @classmethod
    def set_up_shared(cls):
        cls.registry = Registry(cls.shared, users={'alice': 's3cret:with=odd,chars', 'bob': 'hunter2'})
        cls.layout = images.Layout(cls.shared.dir / 'layout')
        cls.image = images.small_image(cls.layout)
        cls.registry.push_layout(cls.layout, 'v1', 'team/app:v1', 'alice:s3cret:with=odd,chars')
        cls.host = cls.registry.host
        cls.reference = cls.host + '/team/app:v1'

    def works(self, *options, **more):
        mount = self.bed.mount(self.reference, '--plain-http', *options, **more)
        self.assertEqual(mount.read('text'), TEXT)
        log = mount.log()
        mount.umount()
        for secret in ('s3cret', 'hunter2', pair('alice', 's3cret:with=odd,chars'), pair('bob', 'hunter2')):
            self.assertNotIn(secret, log)

    def refused(self, *options, words=(), **more):
        return self.bed.mount_fails(DENIED, self.reference, '--plain-http', *options, words=[self.reference, *words], **more)

    def auths(self, **users):
        """{"auths": …} of namespaces: here for the registry itself, _ for its slashes."""
        return {'auths': {self.host + key.removeprefix('here').replace('_', '/'): {'auth': pair(*user)}
                          for key, user in users.items()}}

    ALICE, BOB, NOBODY = ('alice', 's3cret:with=odd,chars'), ('bob', 'hunter2'), ('nobody', 'nothing')

    def test_creds(self):
        self.works('--creds=alice:s3cret:with=odd,chars')

    def test_wrong_password(self):
        result = self.refused('--creds=alice:hunter2', words=['401'])
        self.assertNotIn('hunter2', result.err)

    def test_no_credentials(self):
        self.refused(words=['user and password'])

    def test_the_next_mount_works(self):
        self.refused('--creds=alice:wrong')
        self.works('--creds=bob:hunter2')

    def test_authfile(self):
        self.works('--authfile', self.bed.write_json('auth.json', self.auths(here=self.ALICE)))

    def test_authfile_that_is_missing_or_broken(self):
        result = self.bed.mount_fails(DENIED, self.reference, '--plain-http', '--authfile', self.bed.dir / 'none.json',
                                      words=['none.json'])
        self.assertNotIn('no such image', result.err)
        broken = self.bed.write('broken.json', '{"auths": {')
        self.bed.mount_fails(BAD_DATA, self.reference, '--plain-http', '--authfile', broken, words=['broken.json'])

    def test_environment(self):
        path = self.bed.write_json('env.json', self.auths(here=self.ALICE))
        self.works(env={'REGISTRY_AUTH_FILE': str(path)})

    def test_podmans_login(self):
        self.bed.write_json('run/containers/auth.json', self.auths(here=self.ALICE))
        self.works()

    def test_podmans_login_of_home(self):
        self.bed.write_json('home/.config/containers/auth.json', self.auths(here=self.ALICE))
        self.works()

    def test_dockers_login(self):
        self.bed.write_json('home/.docker/config.json', {'auths': {'http://%s/v1/' % self.host: {'auth': pair(*self.ALICE)}}})
        self.works()

    def test_docker_config(self):
        self.bed.write_json('docker/config.json', self.auths(here=self.ALICE))
        self.works(env={'DOCKER_CONFIG': str(self.bed.dir / 'docker')})

    def test_order(self):
        """--creds, then --authfile, then the environment, then podman's, then docker's."""
        good, bad = self.auths(here=self.ALICE), self.auths(here=self.NOBODY)
        self.bed.write_json('home/.docker/config.json', good)
        self.works()
        self.bed.write_json('run/containers/auth.json', bad)
        self.refused()
        environment = {'REGISTRY_AUTH_FILE': str(self.bed.write_json('env.json', good))}
        self.works(env=environment)
        authfile = self.bed.write_json('auth.json', bad)
        self.refused('--authfile', authfile, env=environment, keeps_layers=True)
        self.works('--authfile', authfile, '--creds=bob:hunter2', env=environment)

    def test_longest_namespace(self):
        def authfile(**users):
            return '--authfile=%s' % self.bed.write_json('auth.json', self.auths(**users))

        self.works(authfile(here=self.NOBODY, _team=self.NOBODY, _team_app=self.BOB))
        self.works(authfile(here=self.NOBODY, _team=self.BOB, _te=self.NOBODY))
        self.refused(authfile(here=self.BOB, _team=self.NOBODY), keeps_layers=True)

    def test_credentials_of_another_registry(self):
        other = {'auths': {'127.0.0.1:1': {'auth': pair(*self.ALICE)}, '127.0.0.1': {'auth': pair(*self.ALICE)}}}
        self.refused('--authfile', self.bed.write_json('auth.json', other), words=['user and password'])

    def helper(self, name, script):
        path = self.bed.write('bin/docker-credential-' + name, '#!/bin/sh\necho "$0 $1" >> "$CALLS"\nread -r host\n' + script)
        path.chmod(0o755)
        return {'PATH': '%s:%s' % (self.bed.dir / 'bin', os.environ['PATH']), 'CALLS': str(self.bed.dir / 'calls')}

    def test_credential_helper(self):
        answer = json.dumps({'ServerURL': self.host, 'Username': 'bob', 'Secret': 'hunter2'})
        environment = self.helper('test', '[ "$host" = "%s" ] && echo \'%s\'\n' % (self.host, answer))
        self.bed.write_json('home/.docker/config.json', {'credHelpers': {self.host: 'test'}})
        self.works(env=environment)
        calls = (self.bed.dir / 'calls').read_text().splitlines()
        self.assertTrue(calls and all(c.endswith('docker-credential-test get') for c in calls), calls)
        self.bed.write_json('home/.docker/config.json', {'credsStore': 'test'})
        self.works(env=environment)

    def test_credential_helper_that_knows_nothing(self):
        environment = self.helper('test', 'echo "credentials not found in native keychain"; exit 1\n')
        self.bed.write_json('home/.docker/config.json', {'credHelpers': {self.host: 'test'}})
        self.refused(env=environment, words=['user and password'])

    def test_credential_helper_that_fails(self):
        environment = self.helper('test', 'echo "the keyring is locked" >&2; exit 1\n')
        self.bed.write_json('home/.docker/config.json', {'credHelpers': {self.host: 'test'}})
        result = self.bed.regfs('mount', '--plain-http', self.reference, self.bed.mkdir(), env=environment)
        self.assertNotEqual(result.code, 0)
        self.assertIn('docker-credential-test', result.err)
        self.assertIn('the keyring is locked', result.err)
        self.bed.write_json('home/.docker/config.json', {'credHelpers': {self.host: 'missing'}})
        result = self.bed.mount_fails(DENIED, self.reference, '--plain-http', words=['docker-credential-missing'])
        self.assertNotIn('no such image', result.err)

    def test_credentials_do_not_show_in_the_process_list(self):
        """Those of a file; --creds is what the caller wrote there."""
        path = self.bed.write_json('auth.json', self.auths(here=self.ALICE))
        mount = self.bed.mount(self.reference, '--plain-http', '--authfile', path)
        with open('/proc/%d/cmdline' % mount.pid, 'rb') as f:
            self.assertNotIn(b's3cret', f.read())
        for path in self.bed.store.path.rglob('*'):
            if path.is_file():
                self.assertNotIn(b's3cret', path.read_bytes())


class TokenRegistryTest(TestCase):
    """docker-registry itself checks the tokens."""

    @classmethod
    def set_up_shared(cls):
        cls.tokens = TokenServer(cls.shared, users={'alice': 'secret'}, identity_tokens=['refresh-me'])
        cls.registry = Registry(cls.shared, tokens=cls.tokens.registry_config())
        cls.layout = images.Layout(cls.shared.dir / 'layout')
        cls.image = images.small_image(cls.layout)
        cls.registry.push_layout(cls.layout, 'v1', 'team/app:v1', 'alice:secret')
        cls.reference = cls.registry.host + '/team/app:v1'

    def setUp(self):
        super().setUp()
        self.tokens.forget_requests()
        self.tokens.mode = 'ok'

    def test_one_token_for_a_mount(self):
        mount = self.bed.mount(self.reference, '--plain-http', '--creds=alice:secret')
        self.assertEqual(mount.read('text'), TEXT)
        self.assertEqual(self.tokens.requests(), [('regfs-test', ('repository:team/app:pull',), 'alice')])
        for token in self.tokens.issued:
            self.assertNotIn(token, mount.log())
            self.assertNotIn(token.rpartition('.')[2], mount.log())

    def test_wrong_password(self):
        self.bed.mount_fails(DENIED, self.reference, '--plain-http', '--creds=alice:wrong',
                             words=['401', 'the password is wrong'])

    def test_no_credentials(self):
        self.bed.mount_fails(DENIED, self.reference, '--plain-http', words=[self.reference])

    def test_identity_token(self):
        auth = {'auths': {self.registry.host: {'auth': pair('<token>', ''), 'identitytoken': 'refresh-me'}}}
        mount = self.bed.mount(self.reference, '--plain-http', '--authfile', self.bed.write_json('auth.json', auth))
        self.assertEqual(mount.read('text'), TEXT)
        self.assertEqual([user for _, _, user in self.tokens.requests()], ['<token>'])
        self.assertNotIn('refresh-me', mount.log())

    def test_token_server_without_oauth(self):
        """POST is answered 404: then GET with the password, as containers/image does."""
        auth = {'auths': {self.registry.host: {'auth': pair('alice', 'secret'), 'identitytoken': 'refresh-me'}}}
        self.tokens.proxy.rule(status(404), method='POST')
        try:
            mount = self.bed.mount(self.reference, '--plain-http', '--authfile', self.bed.write_json('auth.json', auth))
            self.assertEqual(mount.read('text'), TEXT)
            self.assertEqual([user for _, _, user in self.tokens.requests()], ['alice'])
        finally:
            self.tokens.proxy.rules.pop(0)

    def test_access_token_under_the_other_name(self):
        def answer(x):
            token = self.tokens.issue('regfs-test', ('repository:team/app:pull',), 'alice')
            x.send(200, {'Content-Type': 'application/json'}, json.dumps({'access_token': token}).encode())
        self.tokens.mode = answer
        self.assertEqual(self.bed.mount(self.reference, '--plain-http').read('text'), TEXT)

    def test_token_without_pull(self):
        """The server gives fewer scopes than asked for: the registry says no, and that is the error."""
        def answer(x):
            token = self.tokens.issue('regfs-test', (), 'alice')
            x.send(200, {'Content-Type': 'application/json'}, json.dumps({'token': token}).encode())
        self.tokens.mode = answer
        result = self.bed.mount_fails(DENIED, self.reference, '--plain-http', words=[self.reference, '401'])
        self.assertLess(len(self.tokens.requests()), 4)
        self.assertLess(result.seconds, 20)


class GateCase(TestCase):
    """An open registry with a gate in front that wants tokens, and an image of 64 layers, each of which is read by itself."""
    WANTS = {'/manifests/': ('registry', 'repository:{repository}:pull'), '/blobs/': ('registry', 'repository:{repository}:pull')}
    LAYERS = 64

    @classmethod
    def set_up_shared(cls):
        cls.registry = Registry(cls.shared)
        cls.layout = images.Layout(cls.shared.dir / 'layout')
        cls.contents = {'file%d' % n: images.noise(n, 3000) for n in range(cls.LAYERS)}
        cls.image = cls.layout.add_image('v1', [images.Layer.of(images.tar(images.entry(name, data)))
                                                for name, data in cls.contents.items()])
        cls.registry.push_layout(cls.layout, 'v1', 'many:v1')

    def setUp(self):
        super().setUp()
        self.tokens = TokenServer(self.bed)
        self.gate = self.make_gate()

    def make_gate(self, wants=None):
        return TokenGate(self.bed, self.registry.port, self.tokens, wants or self.WANTS)

    def mount(self, *options, gate=None):
        return self.bed.mount('%s/many@%s' % ((gate or self.gate).host, self.image['digest']), '--plain-http', *options)

    def read_all(self, mount):
        """Every file, by as many readers as there are files, all at once. Returns {name: bytes or errno}."""
        start = threading.Barrier(len(self.contents))

        def read(name):
            start.wait()
            try:
                return mount.read(name)
            except OSError as e:
                return e.errno

        with ThreadPoolExecutor(len(self.contents)) as pool:
            return dict(zip(self.contents, pool.map(read, self.contents)))

    def forget(self, mount):
        """The next reads go to the registry."""
        self.bed.store.forget_content()
        for name in self.contents:
            forget_pages(mount.path / name)


class SharedTokenTest(GateCase):
    def test_one_token_for_64_layers(self):
        mount = self.mount()
        self.assertEqual(self.tokens.requests(), [('registry', ('repository:many:pull',), None)])
        self.assertEqual(self.read_all(mount), self.contents)

    def test_64_readers_meet_a_401_together(self):
        """A process that has no token yet, for an image that is known: its first requests are those of the readers."""
        self.mount().umount()
        self.tokens.forget_requests()
        self.bed.store.forget_content()
        mount = self.mount()
        self.assertEqual(self.tokens.requests(), [])
        # As many as are in flight at once (connections, workers) wait at the gate for each other, and are refused together.
        self.gate.meeting = threading.Barrier(4)
        self.assertEqual(self.read_all(mount), self.contents)
        self.assertEqual(len(self.tokens.requests()), 1)
        self.assertGreaterEqual(self.gate.proxy.most_active, 4)
        self.assertRegex(mount.log(), r'token flight (joined|brought a token, [1-9])')

    def test_64_readers_meet_the_end_of_a_token_together(self):
        mount = self.mount()
        self.tokens.forget_requests()
        for _ in range(3):
            self.forget(mount)
            self.tokens.revoke()
            self.gate.meeting = threading.Barrier(4)
            self.assertEqual(self.read_all(mount), self.contents)
            self.gate.meeting = None
        self.assertEqual(len(self.tokens.requests()), 3)

    def test_a_token_is_renewed_before_it_ends(self):
        self.tokens.lifetime = 2
        mount = self.mount()
        self.forget(mount)
        time.sleep(2.1)
        self.gate.proxy.records.clear()
        self.assertEqual(self.read_all(mount), self.contents)
        # Nobody sent the old one: the gate refused nobody.
        self.assertEqual([r for r in self.gate.proxy.requests() if r.status == 401], [])

    def test_a_token_lasts(self):
        mount = self.mount()
        for _ in range(3):
            self.forget(mount)
            self.assertEqual(self.read_all(mount), self.contents)
        self.assertEqual(len(self.tokens.requests()), 1)

    def test_64_processes_ask_once_each(self):
        """Tokens are a process's own: eight mounts, eight requests for one."""
        self.mount().umount()
        self.tokens.forget_requests()
        mounts = [self.mount() for _ in range(8)]
        self.assertEqual(self.tokens.requests(), [])
        self.bed.store.forget_content()
        for mount in mounts:
            forget_pages(mount.path / 'file0')
            self.bed.store.forget_content()
            self.assertEqual(mount.read('file0'), self.contents['file0'])
        self.assertEqual(len(self.tokens.requests()), 8)


class DifferentTokenTest(GateCase):
    """public.ecr.aws and others: what opens the manifest does not open the blobs."""
    LAYERS = 16

    def check(self, wants, expected):
        gate = self.make_gate(wants)
        mount = self.bed.mount('%s/many:v1' % gate.host, '--plain-http')
        self.assertEqual(self.read_all(mount), self.contents)
        self.assertEqual(sorted(self.tokens.requests()), sorted((*e, None) for e in expected))
        self.tokens.forget_requests()
        self.forget(mount)
        self.assertEqual(self.read_all(mount), self.contents)
        self.assertEqual(self.tokens.requests(), [])
        self.forget(mount)
        self.tokens.revoke()
        self.assertEqual(self.read_all(mount), self.contents)
        self.assertEqual(len(self.tokens.requests()), 1)

    def test_scope(self):
        self.check({'/manifests/': ('registry', 'repository:many:pull'), '/blobs/': ('registry', 'repository:many/blobs:pull')},
                   [('registry', ('repository:many:pull',)), ('registry', ('repository:many/blobs:pull',))])

    def test_service(self):
        self.check({'/manifests/': ('manifests.test', 'repository:many:pull'), '/blobs/': ('blobs.test', 'repository:many:pull')},
                   [('manifests.test', ('repository:many:pull',)), ('blobs.test', ('repository:many:pull',))])

    def test_scope_aws(self):
        self.check({'/manifests/': ('public.ecr.aws', 'aws'), '/blobs/': ('public.ecr.aws', 'aws')},
                   [('public.ecr.aws', ('aws',))])

    def test_scope_aws_and_different_tokens(self):
        self.check({'/manifests/': ('public.ecr.aws', 'aws'), '/blobs/': ('blobs.ecr.aws', 'aws')},
                   [('public.ecr.aws', ('aws',)), ('blobs.ecr.aws', ('aws',))])


class ChallengeTest(GateCase):
    LAYERS = 2

    def works(self, challenges):
        self.gate.challenges = challenges
        mount = self.mount()
        self.assertEqual(self.read_all(mount), self.contents)
        mount.umount()

    def test_legal_ones(self):
        for name, make in {
            'unknown scheme first': lambda r, v, s: ['Negotiate', 'Bearer realm="%s",service="%s",scope="%s"' % (r, v, s)],
            'two in one header': lambda r, v, s: ['Negotiate abc==, Bearer realm="%s", service="%s", scope="%s"' % (r, v, s)],
            'Basic beside it': lambda r, v, s: ['Bearer realm="%s",service="%s",scope="%s", Basic realm="x, y"' % (r, v, s)],
            'spaces, case, order': lambda r, v, s: ['bEARER  scope = "%s" ,SERVICE="%s", Realm="%s"' % (s, v, r)],
            'escapes': lambda r, v, s: ['Bearer realm="%s",service="\\r\\e\\gistry",scope="%s",comment="a\\"b, c=\\"d"' % (r, s)],
            'unquoted': lambda r, v, s: ['Bearer service=%s,realm="%s",scope="%s"' % (v, r, s)],
        }.items():
            with self.subTest(name):
                self.works(make)

    def test_malformed_ones(self):
        for name, make in {
            'open quote': lambda r, v, s: ['Bearer realm="%s' % r],
            'no realm': lambda r, v, s: ['Bearer service="%s",scope="%s"' % (v, s)],
            'empty realm': lambda r, v, s: ['Bearer realm="",service="%s"' % v],
            'realm that is no URL': lambda r, v, s: ['Bearer realm="not a url",service="%s"' % v],
            'realm that is a file': lambda r, v, s: ['Bearer realm="file:///etc/passwd",service="%s"' % v],
            'nothing': lambda r, v, s: [''],
            'no value': lambda r, v, s: ['Bearer realm'],
            'garbage': lambda r, v, s: ['\x01\x02,,,"="=='],
        }.items():
            with self.subTest(name):
                self.gate.challenges = make
                result = self.bed.regfs('mount', '--plain-http', '--timeout=5', '%s/many:v1' % self.gate.host, self.bed.mkdir())
                self.assertIn(result.code, (DENIED, BAD_DATA), result)
                self.assertRegex(result.err, r'\Aregfs: [^\n]+\n\Z')
                self.assertIn(self.gate.host, result.err)
                self.assertLess(result.seconds, 8)
        self.assertEqual(self.bed.daemons(), set())
        self.works(None)

    def test_no_challenge_at_all(self):
        """The front door is asked what it wants."""
        def check(x):
            if x.path.rstrip('/') == '/v2':
                x.send(401, [('WWW-Authenticate', self.gate._challenge('registry', 'repository:many:pull'))])
            else:
                x.send(401)
        rule = self.gate.proxy.rule(check, when=lambda x: not authorization(x))
        mount = self.mount()
        self.assertEqual(self.read_all(mount), self.contents)
        self.assertGreater(rule.hits, 1)

    def test_insufficient_scope(self):
        """The first token is too small, and the registry says which one it wants."""
        bearer = 'Bearer realm="%s",service="%s",scope="%s"'
        small = bearer % (self.tokens.realm, 'registry', 'too:small:pull')
        self.gate.challenges = lambda *values: [bearer % values + ',error="insufficient_scope"']
        self.gate.proxy.rule(status(401, {'WWW-Authenticate': small}), when=lambda x: not authorization(x), times=1)
        mount = self.mount()
        self.assertEqual(self.read_all(mount), self.contents)

    def test_403_for_a_token_that_ended(self):
        """As ECR answers."""
        mount = self.mount()
        self.forget(mount)
        self.tokens.revoke()
        def ended(x):
            token = authorization(x).partition(' ')[2]
            return token and not self.tokens.allows(token, 'registry', 'repository:many:pull')

        self.gate.proxy.rule(status(403, {}, b'{"message": "Your Authorization Token has expired."}'), when=ended)
        self.assertEqual(self.read_all(mount), self.contents)


class TokenServerFailsTest(GateCase):
    """A mount fails with the right words and code; readers of a mounted tree get EIO after patience; and the next call works."""
    LAYERS = 8

    def fails(self, code, mode, *words, options=('--timeout=2',), seconds=12):
        self.tokens.mode = mode
        result = self.bed.mount_fails(code, '%s/many:v1' % self.gate.host, '--plain-http', *options, words=words)
        self.assertLess(result.seconds, seconds)
        self.tokens.mode = 'ok'
        mount = self.mount()
        self.assertEqual(self.read_all(mount), self.contents)
        return mount

    def test_not_json(self):
        self.fails(BAD_DATA, lambda x: x.send(200, {}, b'<html>sign in</html>'), 'token server', self.tokens.proxy.host)

    def test_json_without_a_token(self):
        self.fails(BAD_DATA, lambda x: x.send(200, {}, b'{"tokne": "x"}'), 'token server', 'no token')

    def test_token_with_a_line_break(self):
        self.fails(BAD_DATA, lambda x: x.send(200, {}, b'{"token": "x\\r\\nX-Evil: 1"}'), 'token server')

    def test_noise(self):
        self.fails(BAD_DATA, lambda x: x.send(200, {}, images.noise(1, 5000)), 'token server')

    def test_endless_answer(self):
        self.fails(BAD_DATA, lambda x: x.send(200, {}, b' ' * (3 << 20)), 'token server')

    def test_error(self):
        self.fails(UNREACHABLE, status(500, {}, b'{"errors": [{"code": "UNKNOWN", "message": "out of coffee"}]}'),
                   'token server', '500', 'out of coffee')

    def test_denied(self):
        self.fails(DENIED, status(401, {}, b'{"details": "who are you"}'), 'token server', '401', 'who are you')

    def test_error_that_goes_away(self):
        rule = self.tokens.proxy.rule(status(503), times=2)
        self.assertEqual(self.read_all(self.mount()), self.contents)
        self.assertEqual(rule.hits, 2)

    def test_hang(self):
        self.fails(UNREACHABLE, hang(), 'token server', self.tokens.proxy.host)

    def test_killed(self):
        self.tokens.kill()
        result = self.bed.mount_fails(UNREACHABLE, '%s/many:v1' % self.gate.host, '--plain-http', '--timeout=3',
                                      words=['token server', self.tokens.proxy.host, 'onnection refused'])
        self.assertLess(result.seconds, 12)
        self.tokens = self.gate.tokens = TokenServer(self.bed)
        self.assertEqual(self.read_all(self.mount()), self.contents)

    def readers_fail(self, mode, expected_requests):
        """Readers of a mounted tree, while the token server does not work; then it works again."""
        mount = self.mount('--timeout=3')
        self.forget(mount)
        self.tokens.revoke()
        self.tokens.forget_requests()
        self.tokens.mode = mode
        begin = time.monotonic()
        self.assertEqual(set(self.read_all(mount).values()), {EIO})
        self.assertLess(time.monotonic() - begin, 20)
        self.assertLessEqual(len(self.tokens.requests()), expected_requests)
        self.assertRegex(mount.log(), r' error \[.*token server')
        self.tokens.mode = 'ok'
        time.sleep(1.1)  # a failure is repeated to those who ask within its short back-off
        self.assertEqual(self.read_all(mount), self.contents)

    def test_readers_while_it_answers_garbage(self):
        self.readers_fail(lambda x: x.send(200, {}, b'garbage'), 8)

    def test_readers_while_it_hangs(self):
        self.readers_fail(hang(), 24)


class RealmTest(GateCase):
    """Who gets the credentials."""
    LAYERS = 2

    def setUp(self):
        super().setUp()
        self.tokens.users['alice'] = 'secret'

    def test_the_realm_of_a_registry_gets_its_credentials(self):
        mount = self.mount('--creds=alice:secret')
        self.assertEqual([user for _, _, user in self.tokens.requests()], ['alice'])
        self.assertEqual(self.read_all(mount), self.contents)

    def test_credentials_of_one_registry_stay_from_the_realm_of_another(self):
        other = self.make_gate()
        auth = {'auths': {other.host: {'auth': pair('alice', 'secret')}}}
        self.bed.mount_fails(DENIED, '%s/many:v1' % self.gate.host, '--plain-http', '--authfile',
                             self.bed.write_json('auth.json', auth))
        self.assertEqual({user for _, _, user in self.tokens.requests()}, {None})

    def test_no_credentials_in_the_clear(self):
        """A registry that nobody called insecure names a realm without TLS."""
        authority = Authority(self.bed.mkdir('authority'))
        registry = Registry(self.bed, tokens=dict(self.tokens.registry_config()), authority=authority)
        certs = self.bed.dir / 'home/.config/containers/certs.d' / registry.host
        certs.mkdir(parents=True)
        shutil.copy(authority.cert, certs / 'ca.crt')
        self.bed.mount_fails(DENIED, '%s/many:v1' % registry.host, '--creds=alice:secret',
                             words=['not encrypted', self.tokens.realm])
        self.assertEqual(self.tokens.requests(), [])

    def test_forbidden_credentials_where_anybody_may_read(self):
        """GHCR: 403 to a bad credential, though none is needed."""
        self.tokens.users.clear()
        self.tokens.proxy.rule(status(403, {}, b'{"errors": [{"code": "DENIED"}]}'), when=authorization)
        mount = self.mount('--creds=alice:old')
        self.assertEqual(self.read_all(mount), self.contents)
        self.assertRegex(mount.log(), ' warning .*credentials were refused')


if __name__ == '__main__':
    unittest.main()
