# SPDX-License-Identifier: Apache-2.0
"""Everything that networks and servers do, one after the other to one mount, which lives through it all: what passes costs time only;
what lasts is an error of those who read, who read the right bytes as soon as it is over. For a layer that was indexed and for one that
is read lazily. And mirrors and token servers that die."""
import itertools
import socket
import struct
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from errno import EIO

import images
import stargz
from fault_proxy import FaultProxy, cut, flip, hang, ignore_range, redirect, slow, status, wrong_content_range
from registry import Registry
from testbed import TestCase, alive, forget_pages, wait_until
from token_server import TokenGate, TokenServer

MIB = 1 << 20


def reset(x):
    """RST instead of FIN."""
    x.handler.close_connection = True
    x.handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    x.handler.connection.close()


def reset_in_headers(x):
    x.handler.wfile.write(b'HTTP/1.1 206 Partial Content\r\nContent-Le')
    x.handler.wfile.flush()
    reset(x)


def reset_in_body(x):
    x.send_answer(x.forward(), cut=None if x.method == 'HEAD' else 1000)
    reset(x)


def shorter(x):
    """Complete as HTTP goes, but not the range."""
    answer = x.forward()
    x.send_answer(answer._replace(body=answer.body[:-100]))


def longer(x):
    answer = x.forward()
    x.send_answer(answer._replace(body=answer.body + bytes(100)))


def redirect_loop(x):
    x.send(307, {'Location': x.path})


PASSING = {
    'reset without an answer': reset, 'reset in the headers': reset_in_headers, 'reset in the body': reset_in_body,
    'hang-up in the body': cut(1000), 'hang-up behind the headers': cut(0),
    '429': status(429), '429 with Retry-After': status(429, {'Retry-After': '1'}),
    **{str(code): status(code) for code in (408, 500, 502, 503, 504)},
    'shorter body': shorter, 'longer body': longer, 'wrong bytes': flip(0.5), 'another range': wrong_content_range,
}
LASTING = {
    'reset in the headers': reset_in_headers, 'reset in the body': reset_in_body, '503': status(503),
    **{str(code): status(code) for code in (400, 403, 404, 416, 501)},
    '429 past all patience': status(429, {'Retry-After': '3600'}),
    'shorter body': shorter, 'longer body': longer, 'wrong bytes': flip(0.5), 'redirect loop': redirect_loop,
    'redirect to no host': redirect(lambda x: 'http://no-such-host.invalid%s' % x.path),
    'redirect to a closed port': redirect(lambda x: 'http://127.0.0.1:1%s' % x.path),
    'no answer': hang(),
}


class NetworkCase(TestCase):
    """Two images with the same files: one layer of plain gzip, or of eStargz. Reads of whole files go through several chunks."""

    @classmethod
    def set_up_shared(cls):
        cls.registry = Registry(cls.shared)
        cls.layout = images.Layout(cls.shared.dir / 'layout')
        cls.contents = {'file%d' % n: images.noise(n, 2 * MIB + 5000 * n) for n in range(3)}
        content = images.tar(*[images.entry(name, data) for name, data in cls.contents.items()])
        made = {'plain': cls.layout.add_image('plain', [images.Layer.of(content)]),
                'lazy': stargz.add_image(cls.layout, 'lazy', cls.contents, 300_000)}
        cls.layers = {}
        for tag, image in made.items():
            cls.registry.push(cls.layout, image, 'img:' + tag)
            cls.layers[tag] = cls.layout.json(image)['layers'][0]['digest']

    def setUp(self):
        super().setUp()
        self.proxy = FaultProxy(self.bed, self.registry.port)

    def mount(self, tag, *options):
        return self.bed.mount('%s/img:%s' % (self.proxy.host, tag), '--plain-http', *options)

    def forget(self, mount):
        self.bed.store.forget_content()
        for name in self.contents:
            forget_pages(mount.path / name)

    def assert_right(self, mount, *names):
        for name in names or self.contents:
            self.assertTrue(mount.read(name) == self.contents[name], name)
        self.assertTrue(alive(mount.pid))

    def assert_eio(self, mount, name):
        with self.assertRaises(OSError) as caught:
            mount.read(name)
            self.fail('it was read')
        self.assertEqual(caught.exception.errno, EIO)


class ReadingTest(NetworkCase):
    def check_passing(self, tag):
        mount = self.mount(tag)
        for name, action in PASSING.items():
            with self.subTest(name):
                self.forget(mount)
                rule = self.proxy.rule(action, path=self.layers[tag], times=1)
                self.assert_right(mount)
                self.assertEqual(rule.hits, 1)
        self.assertNotRegex(mount.log(), 'Z error ')

    def test_plain_layer_and_faults_that_pass(self):
        self.check_passing('plain')

    def test_lazy_layer_and_faults_that_pass(self):
        self.check_passing('lazy')

    def check_lasting(self, tag):
        mount = self.mount(tag, '--timeout=2')
        self.forget(mount)
        self.assert_right(mount, 'file0')
        for name, action in LASTING.items():
            with self.subTest(name):
                self.forget(mount)
                self.assert_right(mount, 'file0')
                self.proxy.rule(action, path=self.layers[tag])
                begin = time.monotonic()
                self.assert_eio(mount, 'file2')
                self.assertLess(time.monotonic() - begin, 20)
                # What is in the store is not touched by it.
                forget_pages(mount.path / 'file0')
                self.assert_right(mount, 'file0')
                self.proxy.clear()
                self.assert_right(mount)

    def test_plain_layer_and_faults_that_last(self):
        self.check_lasting('plain')

    def test_lazy_layer_and_faults_that_last(self):
        self.check_lasting('lazy')

    def test_200_for_every_range(self):
        for tag in self.layers:
            with self.subTest(tag):
                mount = self.mount(tag)
                self.forget(mount)
                self.proxy.rule(ignore_range, path=self.layers[tag])
                self.assert_right(mount)
                mount.umount()
                self.proxy.clear()

    def test_refused_connections(self):
        mounts = [self.mount(tag, '--timeout=2') for tag in self.layers]
        for mount in mounts:
            self.forget(mount)
        self.proxy.close()
        for mount in mounts:
            self.assert_eio(mount, 'file1')
        FaultProxy(self.bed, self.registry.port, port=self.proxy.port)
        for mount in mounts:
            self.assert_right(mount)

    def test_a_stalled_transfer_is_tried_again(self):
        """By its own deadline, which is shorter than what a reader waits."""
        mount = self.mount('plain', '--timeout=60')
        self.forget(mount)
        rule = self.proxy.rule(slow(100_000, 300), path=self.layers['plain'], times=1)
        begin = time.monotonic()
        self.assert_right(mount)
        self.assertLess(time.monotonic() - begin, 50)
        self.assertEqual(rule.hits, 1)
        self.assertNotRegex(mount.log(), 'Z error ')


class IndexingTest(NetworkCase):
    def test_faults_that_pass(self):
        for tag in self.layers:
            for name, action in PASSING.items():
                with self.subTest('%s, %s' % (tag, name)):
                    rule = self.proxy.rule(action, path=self.layers[tag], times=1)
                    mount = self.mount(tag, '--cache-dir=%s' % self.bed.fresh('store'))
                    self.assertEqual(rule.hits, 1)
                    self.assert_right(mount, 'file1')
                    mount.umount()


class MirrorTest(NetworkCase):
    """Two mirrors, then the registry itself."""

    def setUp(self):
        super().setUp()
        self.mirrors = [FaultProxy(self.bed, self.registry.port) for _ in range(2)]
        self.configure(*[m.host for m in self.mirrors])

    def configure(self, *mirrors):
        self.bed.registries_conf.write_text(
            '[[registry]]\nlocation = "%s"\ninsecure = true\n' % self.proxy.host +
            ''.join('[[registry.mirror]]\nlocation = "%s"\ninsecure = true\n' % host for host in mirrors))

    def asked(self, proxy, tag):
        return len(proxy.requests(self.layers[tag]))

    def test_mirrors_that_die_one_after_the_other(self):
        for tag in self.layers:
            with self.subTest(tag):
                mount = self.mount(tag)
                self.forget(mount)
                self.assert_right(mount)
                self.assertEqual((self.asked(self.mirrors[1], tag), self.asked(self.proxy, tag)), (0, 0))
                self.mirrors[0].close()
                self.forget(mount)
                self.assert_right(mount)
                self.assertGreater(self.asked(self.mirrors[1], tag), 0)
                self.assertEqual(self.asked(self.proxy, tag), 0)
                self.mirrors[1].close()
                self.forget(mount)
                self.assert_right(mount)
                self.assertGreater(self.asked(self.proxy, tag), 0)
                self.assertNotRegex(mount.log(), 'Z error ')
                mount.umount()
                self.mirrors = [FaultProxy(self.bed, self.registry.port) for _ in range(2)]
                self.configure(*[m.host for m in self.mirrors])
                self.proxy.clear()

    def test_a_mirror_that_dies_in_the_middle_of_a_pass(self):
        def die(x):
            answer = x.forward()
            x.send_answer(answer, cut=MIB)
            self.mirrors[0].rule(cut(0))
        self.mirrors[0].rule(die, path=self.layers['plain'], times=1)
        mount = self.mount('plain')
        self.assert_right(mount)
        # The second one goes on where the first one ended.
        size = len(self.layout.blob_path(self.layers['plain']).read_bytes())
        self.assertLess(self.mirrors[1].bytes(self.layers['plain']), size - MIB // 2)

    def test_mirrors_that_fail_while_mounted(self):
        mount = self.mount('plain', '--timeout=120')
        faults = dict(PASSING, **{k: LASTING[k] for k in ('400', '403', '404', '416', '501', 'redirect loop', 'redirect to no host')})
        for name, action in faults.items():
            with self.subTest(name):
                self.forget(mount)
                for mirror in self.mirrors:
                    mirror.clear()
                    mirror.rule(action)
                self.assert_right(mount)
        self.assertNotRegex(mount.log(), 'Z error ')

    def test_mirrors_that_send_wrong_bytes(self):
        """Digests decide, not who serves them; and who was wrong is asked last, by many readers, too."""
        for mirror in self.mirrors:
            mirror.rule(flip(0.5), path='/blobs/' + self.layers['plain'])
            mirror.rule(flip(0.5), path='/blobs/' + self.layers['lazy'])
        for tag in self.layers:
            with self.subTest(tag):
                mount = self.mount(tag)
                for _ in range(3):
                    self.forget(mount)
                    with ThreadPoolExecutor(len(self.contents)) as pool:
                        list(pool.map(lambda name, mount=mount: self.assert_right(mount, name), self.contents))
                self.assertNotRegex(mount.log(), 'Z error ')
                mount.umount()

    def test_a_mirror_that_stalls(self):
        mount = self.mount('lazy', '--timeout=60')
        self.forget(mount)
        self.mirrors[0].rule(slow(50_000, 300), path=self.layers['lazy'])
        begin = time.monotonic()
        self.assert_right(mount, 'file1')
        self.assertLess(time.monotonic() - begin, 50)
        self.assertNotRegex(mount.log(), 'Z error ')

    def test_a_mirror_without_an_address(self):
        self.configure('no-such-host.invalid', self.mirrors[1].host)
        mount = self.mount('plain')
        self.forget(mount)
        self.assert_right(mount)
        self.assertEqual(self.asked(self.proxy, 'plain'), 0)


class TokenTest(TestCase):
    LAYERS = 12

    @classmethod
    def set_up_shared(cls):
        cls.registry = Registry(cls.shared)
        cls.layout = images.Layout(cls.shared.dir / 'layout')
        cls.contents = {'file%d' % n: images.noise(n, 3000) for n in range(cls.LAYERS)}
        image = cls.layout.add_image('v1', [images.Layer.of(images.tar(images.entry(name, data))) for name, data in cls.contents.items()])
        cls.registry.push(cls.layout, image, 'many:v1')

    def setUp(self):
        super().setUp()
        self.tokens = TokenServer(self.bed)
        scope = ('registry', 'repository:{repository}:pull')
        self.gate = TokenGate(self.bed, self.registry.port, self.tokens, {'/manifests/': scope, '/blobs/': scope})

    def mount(self, *options):
        return self.bed.mount('%s/many:v1' % self.gate.host, '--plain-http', *options)

    def assert_right(self, mount):
        self.assertEqual({name: mount.read(name) for name in self.contents}, self.contents)

    def test_tokens_that_end_in_the_middle_of_an_image(self):
        """One half of the layers needs another one."""
        blobs = itertools.count()

        def end(x):
            if next(blobs) == self.LAYERS // 2:
                self.tokens.revoke()
            return False
        self.gate.proxy.rule(None, path='/blobs/', when=end)
        mount = self.mount()
        self.assert_right(mount)
        self.assertEqual(len(self.tokens.requests()), 2)

    def test_a_token_server_that_dies(self):
        mount = self.mount('--timeout=2')
        self.bed.store.forget_content()
        for name in self.contents:
            forget_pages(mount.path / name)
        self.tokens.kill()
        self.tokens.revoke()
        with self.assertRaises(OSError) as caught:
            mount.read('file0')
        self.assertEqual(caught.exception.errno, EIO)
        self.assertRegex(mount.log(), r'Z error \[.*token server')
        self.tokens = self.gate.tokens = TokenServer(self.bed)

        def reads():
            try:
                return mount.read('file0') == self.contents['file0']
            except OSError:
                return False
        wait_until(reads, 'the failure is forgotten', 5)
        self.assert_right(mount)


if __name__ == '__main__':
    unittest.main()
