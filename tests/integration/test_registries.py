# SPDX-License-Identifier: Apache-2.0
"""Which registry is asked, and how: registries.conf, short names, mirrors, certs.d, TLS, policy.json."""
import shutil
import unittest

import images
from fault_proxy import FaultProxy, cut, hang, status
from registry import Authority, Registry
from testbed import BAD_DATA, DENIED, NOT_FOUND, UNREACHABLE, USAGE, TestCase, forget_pages

TEXT = images.text(8, 5 << 20)
MISSING = status(404, {'Content-Type': 'application/json'}, b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}')


class RegistryCase(TestCase):
    @classmethod
    def set_up_shared(cls):
        cls.layout = images.Layout(cls.shared.dir / 'layout')
        cls.image = images.small_image(cls.layout)
        cls.registry = Registry(cls.shared)
        cls.registry.push_layout(cls.layout, 'v1', 'library/alpine:edge')
        for name in ('team/app:v1', 'mirrored/team/app:v1', 'app:v1'):
            cls.registry.push(cls.layout, cls.image, name)

    def configure(self, text):
        self.bed.registries_conf.write_text(text)

    def works(self, *args, **more):
        mount = self.bed.mount(*args, **more)
        self.assertEqual(mount.read('etc/os-release'), b'ID=small\n')
        return mount

    def forget_store(self):
        if self.bed.store.path.exists():
            shutil.rmtree(self.bed.store.path)


class MirrorTest(RegistryCase):
    def setUp(self):
        super().setUp()
        self.mirror = FaultProxy(self.bed, self.registry.port)
        self.primary = FaultProxy(self.bed, self.registry.port)

    def docker_io(self, *mirrors, primary=None):
        self.configure('[[registry]]\nprefix = "docker.io"\nlocation = "%s"\ninsecure = true\n' % (primary or self.primary.host) +
                       ''.join('[[registry.mirror]]\nlocation = "%s"\ninsecure = true\n%s' % (m if isinstance(m, tuple) else (m, ''))
                               for m in mirrors))

    def test_the_two_commands_of_the_readme(self):
        """The literal `regfs mount alpine:edge DIR`, with a mirror of docker.io."""
        self.configure('unqualified-search-registries = ["docker.io"]\n\n[[registry]]\nlocation = "docker.io"\n'
                       '[[registry.mirror]]\nlocation = "%s"\ninsecure = true\n' % self.mirror.host)
        directory = self.bed.mkdir()
        self.assertEqual(self.bed.regfs('mount', 'alpine:edge', directory)[:3], (0, '', ''))
        self.assertEqual((directory / 'etc/os-release').read_bytes(), b'ID=small\n')
        self.assertEqual(self.bed.find_mount(directory)['reference'], 'docker.io/library/alpine:edge')
        self.assertEqual(self.bed.regfs('umount', directory)[:3], (0, '', ''))
        self.assertTrue(all('/v2/library/alpine/' in r.path for r in self.mirror.requests()))

    def test_all_spellings_of_docker_io(self):
        self.docker_io(self.mirror.host)
        for reference in ('alpine:edge', 'docker.io/alpine:edge', 'docker.io/library/alpine:edge', 'docker://alpine:edge',
                          'index.docker.io/library/alpine:edge', 'docker://docker.io/alpine:edge@' + self.image['digest']):
            with self.subTest(reference):
                self.works(reference).umount()
        self.assertEqual(self.primary.requests(), [])

    def test_the_primary_is_not_asked_when_the_mirror_serves(self):
        self.docker_io(self.mirror.host)
        self.works('alpine:edge')
        self.assertEqual(self.primary.requests(), [])
        self.assertGreater(len(self.mirror.requests('/v2/library/alpine/')), 2)

    def test_a_mirror_that_is_down(self):
        self.mirror.close()
        self.docker_io(self.mirror.host)
        mount = self.works('alpine:edge')
        self.assertEqual(mount.read('text'), TEXT)
        self.assertGreater(len(self.primary.requests('/v2/library/alpine/')), 2)

    def test_a_mirror_without_the_image(self):
        self.mirror.rule(MISSING)
        self.docker_io(self.mirror.host)
        self.works('alpine:edge')

    def test_mirrors_that_fail_in_every_way(self):
        """Each is followed by the next, down to the primary; none is waited for."""
        faults = {str(code): status(code) for code in (503, 500, 403, 401, 400)}
        faults.update({'hangs up': cut(0), 'html': status(200, {'Content-Type': 'text/html'}, b'<html>')})
        for name, action in faults.items():
            with self.subTest(name):
                self.forget_store()
                self.mirror.clear()
                self.mirror.rule(action)
                self.docker_io(self.mirror.host)
                result = self.bed.regfs('mount', '--timeout=20', 'alpine:edge', directory := self.bed.mkdir())
                if name == 'html':
                    # An answer that is no manifest is not an answer that is missing.
                    self.assertIn(result.code, (0, BAD_DATA), result)
                else:
                    self.assertEqual(result[:3], (0, '', ''))
                    self.assertEqual((directory / 'etc/os-release').read_bytes(), b'ID=small\n')
                    self.assertLess(result.seconds, 8)

    def test_a_mirror_that_hangs(self):
        self.mirror.rule(hang())
        self.docker_io(self.mirror.host)
        mount = self.works('alpine:edge', '--timeout=60', timeout=120)
        self.assertGreater(len(self.primary.requests()), 0)
        mount.umount()

    def test_order_of_mirrors(self):
        second = FaultProxy(self.bed, self.registry.port)
        self.docker_io(self.mirror.host, second.host)
        self.works('alpine:edge').umount()
        self.assertEqual(second.requests(), [])
        self.forget_store()
        self.mirror.close()
        self.works('alpine:edge')
        self.assertGreater(len(second.requests()), 0)
        self.assertEqual(self.primary.requests(), [])

    def test_nobody_is_there(self):
        self.mirror.close()
        self.primary.close()
        self.docker_io(self.mirror.host)
        result = self.bed.mount_fails(UNREACHABLE, 'alpine:edge', '--timeout=3', words=['alpine:edge', 'onnection refused'])
        self.assertLess(result.seconds, 10)

    def test_nobody_has_it(self):
        self.docker_io(self.mirror.host)
        self.bed.mount_fails(NOT_FOUND, 'alpine:none', words=['docker.io/library/alpine:none', self.primary.host])

    def test_a_mirror_for_digests_only(self):
        self.docker_io((self.mirror.host, 'pull-from-mirror = "digest-only"\n'))
        self.works('alpine:edge').umount()
        self.assertEqual(self.mirror.requests('/manifests/edge'), [])
        self.assertGreater(len(self.primary.requests('/manifests/edge')), 0)
        self.forget_store()
        self.primary.clear()
        self.works('alpine@' + self.image['digest'])
        self.assertEqual(self.primary.requests(), [])

    def test_a_mirror_for_tags_only(self):
        self.docker_io((self.mirror.host, 'pull-from-mirror = "tag-only"\n'))
        self.works('alpine@' + self.image['digest'])
        self.assertEqual(self.mirror.requests('/manifests/'), [])

    def test_a_mirror_that_dies_while_mounted(self):
        self.docker_io(self.mirror.host)
        mount = self.works('alpine:edge')
        self.mirror.close()  # first: what is read ahead must not come after the content was forgotten
        self.bed.store.forget_content()
        forget_pages(mount.path / 'data')
        self.assertEqual(mount.read('data'), images.noise(7, 100000))
        self.assertGreater(len(self.primary.requests('/blobs/')), 0)

    def test_a_mirror_that_serves_wrong_bytes(self):
        """Digests decide, not who serves them. The primary has the right ones."""
        layer = self.layout.json(self.image)['layers'][0]['digest']
        self.mirror.rule(MISSING, path=layer)
        self.docker_io(self.mirror.host)
        self.assertEqual(self.works('alpine:edge').read('text'), TEXT)

    def test_a_mirror_does_not_get_the_primarys_credentials(self):
        private = Registry(self.bed, users={'alice': 'secret'})
        private.push(self.layout, self.image, 'team/app:v1')
        primary = FaultProxy(self.bed, private.port)
        self.mirror.rule(status(401, {'WWW-Authenticate': 'Basic realm="give me"'}))
        self.configure('[[registry]]\nlocation = "%s"\ninsecure = true\n[[registry.mirror]]\nlocation = "%s"\ninsecure = true\n'
                       % (primary.host, self.mirror.host))
        self.works('%s/team/app:v1' % primary.host, '--creds=alice:secret')
        self.assertGreater(len(self.mirror.requests()), 0)
        self.assertEqual({r.authorization for r in self.mirror.requests()}, {None})


class ConfTest(RegistryCase):
    def test_location_in_the_place_of_a_prefix(self):
        self.configure('[[registry]]\nprefix = "quay.example/team"\nlocation = "%s/mirrored/team"\ninsecure = true\n'
                       % self.registry.host)
        mount = self.works('quay.example/team/app:v1')
        self.assertEqual(mount.entry['reference'], 'quay.example/team/app:v1')

    def test_longest_prefix(self):
        self.configure('[[registry]]\nprefix = "quay.example"\nblocked = true\nlocation = "quay.example"\n'
                       '[[registry]]\nprefix = "quay.example/team/app"\nlocation = "%s/app"\ninsecure = true\n'
                       '[[registry]]\nprefix = "quay.example/team"\nblocked = true\nlocation = "quay.example"\n' % self.registry.host)
        self.works('quay.example/team/app:v1')
        self.bed.mount_fails(DENIED, 'quay.example/team/apple:v1', words=['blocked'], keeps_layers=True)

    def test_any_host_of_a_domain(self):
        self.configure('[[registry]]\nprefix = "*.example.com"\nlocation = "%s"\ninsecure = true\n' % self.registry.host)
        self.works('some.registry.example.com/team/app:v1')

    def test_blocked(self):
        self.configure('[[registry]]\nlocation = "%s"\nblocked = true\n' % self.registry.host)
        self.bed.mount_fails(DENIED, '%s/app:v1' % self.registry.host, '--plain-http',
                             words=['%s/app:v1' % self.registry.host, 'blocked', str(self.bed.registries_conf)])
        self.configure('[[registry]]\nlocation = "docker.io"\nblocked = true\n')
        self.bed.mount_fails(DENIED, 'alpine:edge', words=['docker.io/library/alpine:edge', 'blocked'])

    def test_insecure_speaks_plain_http(self):
        self.configure('[[registry]]\nlocation = "%s"\ninsecure = true\n' % self.registry.host)
        self.works('%s/app:v1' % self.registry.host)

    def test_secure_does_not(self):
        self.configure('[[registry]]\nlocation = "%s"\ninsecure = false\n' % self.registry.host)
        self.bed.mount_fails(UNREACHABLE, '%s/app:v1' % self.registry.host, '--timeout=3', words=[self.registry.host, 'TLS'])

    def test_where_the_file_is_found(self):
        text = '[[registry]]\nlocation = "%s"\ninsecure = true\n' % self.registry.host
        reference = '%s/app:v1' % self.registry.host
        own = self.bed.write('own.conf', text)
        self.works(reference, '--registries-conf', own).umount()
        self.works(reference, env={'CONTAINERS_REGISTRIES_CONF': str(own)}).umount()
        self.bed.write('home/.config/containers/registries.conf', text)
        self.works(reference, env={'CONTAINERS_REGISTRIES_CONF': ''}).umount()

    def test_drop_ins(self):
        self.bed.write('home/.config/containers/registries.conf.d/10-local.conf',
                       '[[registry]]\nlocation = "%s"\ninsecure = true\n' % self.registry.host)
        self.works('%s/app:v1' % self.registry.host)

    def test_broken_files(self):
        for text, word in (('[[registry]\n', ''), ('[[registry]]\nlocation = 5\n', 'location'),
                           ('[[registry]]\nlocation = "x.y"\nblocked = "no"\n', 'blocked'),
                           ('unqualified-search-registries = "docker.io"\n', 'unqualified-search-registries'),
                           ('[[registry]]\n', ''), ('[registries.search]\nregistries = ["x"]\n', '')):
            with self.subTest(text):
                self.configure(text)
                result = self.bed.regfs('mount', 'alpine:edge', self.bed.mkdir())
                self.assertNotEqual(result.code, 0)
                self.assertRegex(result.err, r'\Aregfs: [^\n]+\n\Z')
                self.assertIn(str(self.bed.registries_conf), result.err)
                self.assertIn(word, result.err)

    def test_a_file_that_is_named_and_missing(self):
        result = self.bed.regfs('mount', '--registries-conf', self.bed.dir / 'none.conf', 'alpine:edge', self.bed.mkdir())
        self.assertNotEqual(result.code, 0)
        self.assertIn('none.conf', result.err)


class ShortNameTest(RegistryCase):
    def insecure(self, *hosts):
        return ''.join('[[registry]]\nlocation = "%s"\ninsecure = true\n' % h for h in hosts)

    def test_alias(self):
        self.configure(self.insecure(self.registry.host) + '[aliases]\n"my" = "%s/team/app"\n' % self.registry.host)
        mount = self.works('my:v1')
        self.assertEqual(mount.entry['reference'], '%s/team/app:v1' % self.registry.host)

    def test_search(self):
        self.configure('unqualified-search-registries = ["%s"]\n' % self.registry.host + self.insecure(self.registry.host))
        mount = self.works('app:v1')
        self.assertEqual(mount.entry['reference'], '%s/app:v1' % self.registry.host)

    def test_search_goes_on_where_there_is_no_such_image(self):
        empty = Registry(self.bed)
        self.configure('unqualified-search-registries = ["%s", "%s"]\nshort-name-mode = "permissive"\n'
                       % (empty.host, self.registry.host) + self.insecure(empty.host, self.registry.host))
        mount = self.works('app:v1')
        self.assertEqual(mount.entry['reference'], '%s/app:v1' % self.registry.host)

    def test_search_does_not_go_on_past_a_registry_that_is_down(self):
        """Whoever is asked next could have another image of that name."""
        down = FaultProxy(self.bed, self.registry.port)
        down.close()
        self.configure('unqualified-search-registries = ["%s", "%s"]\nshort-name-mode = "permissive"\n'
                       % (down.host, self.registry.host) + self.insecure(down.host, self.registry.host))
        self.bed.mount_fails(UNREACHABLE, 'app:v1', '--timeout=2', words=[down.host])

    def test_ambiguous(self):
        self.configure('unqualified-search-registries = ["a.example", "b.example"]\nshort-name-mode = "enforcing"\n')
        self.bed.mount_fails(USAGE, 'app:v1', words=['app', 'short name', str(self.bed.registries_conf)])

    def test_no_search_registries(self):
        self.configure('unqualified-search-registries = []\n')
        self.bed.mount_fails(USAGE, 'app:v1', words=['app', 'unqualified-search-registries'])

    def test_docker_io_without_a_word_about_it(self):
        self.configure('[[registry]]\nlocation = "docker.io"\nblocked = true\n')
        self.bed.mount_fails(DENIED, 'team/app', words=['docker.io/team/app:latest'])


class TlsTest(TestCase):
    @classmethod
    def set_up_shared(cls):
        cls.authority = Authority(cls.shared.mkdir('authority'))
        cls.layout = images.Layout(cls.shared.dir / 'layout')
        cls.image = images.small_image(cls.layout)
        cls.registry = Registry(cls.shared, authority=cls.authority)
        cls.registry.push_layout(cls.layout, 'v1', 'app:v1')
        cls.reference = '%s/app:v1' % cls.registry.host

    def certs(self, host=None, ca=True):
        directory = self.bed.dir / 'home/.config/containers/certs.d' / (host or self.registry.host)
        directory.mkdir(parents=True, exist_ok=True)
        if ca:
            shutil.copy(self.authority.cert, directory / 'ca.crt')
        return directory

    def works(self, *options, reference=None):
        mount = self.bed.mount(reference or self.reference, *options)
        self.assertEqual(mount.read('text'), TEXT)
        return mount

    def test_own_ca(self):
        self.certs()
        self.works()

    def test_untrusted(self):
        result = self.bed.mount_fails(UNREACHABLE, self.reference, words=[self.registry.host, 'certificate is not trusted'])
        self.assertLess(result.seconds, 5)  # no patience will mend it

    def test_ca_of_another_host(self):
        self.certs('127.0.0.1:1')
        self.bed.mount_fails(UNREACHABLE, self.reference, words=['not trusted'])

    def test_no_verification(self):
        self.works('--tls-verify=false')

    def test_verification_on_demand(self):
        """--tls-verify=true over what registries.conf says."""
        self.bed.registries_conf.write_text('[[registry]]\nlocation = "%s"\ninsecure = true\n' % self.registry.host)
        self.works().umount()
        self.bed.mount_fails(UNREACHABLE, self.reference, '--tls-verify=true', words=['not trusted'], keeps_layers=True)
        self.certs()
        self.works('--tls-verify=true')

    def test_plain_http_to_a_tls_port(self):
        result = self.bed.regfs('mount', '--plain-http', '--timeout=3', self.reference, self.bed.mkdir())
        self.assertIn(result.code, (1, UNREACHABLE))
        self.assertIn('http://' + self.registry.host, result.err)

    def test_no_verification_of_a_plain_port(self):
        plain = Registry(self.bed)
        plain.push(self.layout, self.image, 'app:v1')
        self.works('--tls-verify=false', reference='%s/app:v1' % plain.host)

    def test_certificate_for_another_host(self):
        other = Authority(self.bed.mkdir('other'))
        other.issue = lambda name, issue=other.issue: issue(name, 'DNS:elsewhere.example')
        registry = Registry(self.bed, authority=other)
        directory = self.certs(registry.host, ca=False)
        shutil.copy(other.cert, directory / 'ca.crt')
        self.bed.mount_fails(UNREACHABLE, '%s/app:v1' % registry.host, words=[registry.host, 'another host'])

    def test_client_certificate(self):
        registry = Registry(self.bed, authority=self.authority, demands_client=True)
        directory = self.certs(registry.host)
        result = self.bed.regfs('mount', '--timeout=3', '%s/app:v1' % registry.host, self.bed.mkdir())
        self.assertEqual(result.code, UNREACHABLE)
        self.assertIn('certificate', result.err)
        cert, key = self.authority.issue('client', usage='clientAuth')
        shutil.copy(cert, directory / 'client.cert')
        shutil.copy(key, directory / 'client.key')
        # Nothing was pushed there: 404 is the answer to somebody who was let in.
        self.bed.mount_fails(NOT_FOUND, '%s/app:v1' % registry.host)

    def test_unpaired_client_certificate(self):
        cert, key = self.authority.issue('unpaired', usage='clientAuth')
        directory = self.certs()
        shutil.copy(cert, directory / 'client.cert')
        result = self.bed.regfs('mount', self.reference, self.bed.mkdir())
        self.assertNotEqual(result.code, 0)
        self.assertIn('client.cert', result.err)
        (directory / 'client.cert').unlink()
        shutil.copy(key, directory / 'client.key')
        result = self.bed.regfs('mount', self.reference, self.bed.mkdir())
        self.assertNotEqual(result.code, 0)
        self.assertIn('client.key', result.err)

    def test_broken_ca(self):
        (self.certs(ca=False) / 'ca.crt').write_text('no certificate at all\n')
        result = self.bed.regfs('mount', self.reference, self.bed.mkdir())
        self.assertNotEqual(result.code, 0)
        self.assertRegex(result.err, 'ca.crt|certificate')

    def test_reads_go_through_tls_too(self):
        self.certs()
        mount = self.works()
        self.bed.store.forget_content()
        forget_pages(mount.path / 'data')
        before = len(mount.log())
        self.assertEqual(mount.read('data'), images.noise(7, 100000))
        self.assertRegex(mount.log()[before:], r'GET https://%s/v2/app/blobs/' % self.registry.host)


class PolicyTest(RegistryCase):
    def policy(self, value):
        self.bed.write_json('home/.config/containers/policy.json', value)

    def test_reject(self):
        self.policy({'default': [{'type': 'reject'}]})
        self.bed.mount_fails(DENIED, '%s/app:v1' % self.registry.host, '--plain-http', words=['policy.json'])
        self.bed.mount_fails(DENIED, 'oci:%s:v1' % self.layout.path, words=['policy.json'])

    def test_signatures_are_demanded(self):
        self.policy({'default': [{'type': 'insecureAcceptAnything'}],
                     'transports': {'docker': {self.registry.host: [{'type': 'signedBy', 'keyType': 'GPGKeys', 'keyPath': '/key'}]}}})
        self.bed.mount_fails(DENIED, '%s/app:v1' % self.registry.host, '--plain-http', words=['policy.json'])
        self.works('oci:%s:v1' % self.layout.path)

    def test_accept(self):
        self.policy({'default': [{'type': 'reject'}],
                     'transports': {'docker': {self.registry.host + '/app': [{'type': 'insecureAcceptAnything'}]}}})
        self.works('%s/app:v1' % self.registry.host, '--plain-http')


if __name__ == '__main__':
    unittest.main()
