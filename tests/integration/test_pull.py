# SPDX-License-Identifier: Apache-2.0
"""regfs pull and --prefetch: the store is filled without a reader, each byte travels once, and afterwards no registry is needed."""
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import threading
import time
import unittest

import images
from fault_proxy import FaultProxy, hang, slow, status
from oracle import Oracle
from registry import Registry
from testbed import BAD_DATA, NOT_FOUND, TOP, USAGE, TestCase, regfs_binary, wait_until

MIB = 1 << 20
STARGZ = 'containerd.io/snapshot/stargz/toc.digest'
TOCS = {'base.esgz': 'sha256:85f895913a2ad54941a9aa7b70ad4e6e99dc4388ee880e2436029a9fb1ce59cb',
        'base.chunk64k.esgz': 'sha256:224d8180f5254d1404b42fb3c505b130a2ab04825211c4bbaccb3f1a7cad62ae'}


class PullCase(TestCase):
    """lazy: an eStargz under two plain layers. big: one plain layer of four large files."""

    @classmethod
    def set_up_shared(cls):
        cls.layout = images.Layout(cls.shared.dir / 'layout')
        tars = images.fixture_tars()
        layers = [images.Layer.of_fixture('base.chunk64k.esgz', '+gzip', tars['base'])]
        layers += [images.Layer.of(tars[name]) for name in ('upper', 'twice')]

        def annotate(manifest):
            manifest['layers'][0]['annotations'] = {STARGZ: TOCS['base.chunk64k.esgz']}
        cls.layout.add_image('plain', images.fixture_layers('gzip'))
        cls.oracle = Oracle(cls.layout.path, 'plain', cls.shared.dir / 'unpacked', tars.values())
        cls.image = cls.layout.add_image('lazy', layers, change=annotate)
        descriptor = cls.layout.json(cls.image)['layers'][0]
        cls.lazy_layer, cls.lazy_size = descriptor['digest'], descriptor['size']
        cls.contents = {'data/file%d' % n: images.noise(n, 5 * MIB) for n in range(4)}
        content = images.tar(*[images.entry(name, data) for name, data in cls.contents.items()])
        cls.big = cls.layout.add_image('big', [images.Layer.of(content)])
        descriptor = cls.layout.json(cls.big)['layers'][0]
        cls.big_layer, cls.big_size = descriptor['digest'], descriptor['size']
        cls.registry = Registry(cls.shared)
        for tag in ('lazy', 'plain', 'big'):
            cls.registry.push_layout(cls.layout, tag, 'pull:' + tag)

    def setUp(self):
        super().setUp()
        self.proxy = FaultProxy(self.bed, self.registry.port)

    def reference(self, tag):
        return '%s/pull:%s' % (self.proxy.host, tag)

    def pull(self, *tags, options=()):
        return self.bed.regfs('pull', '--plain-http', *options, *[self.reference(t) for t in tags])

    def compare(self, mount):
        known = "'srv/nanoseconds': mtime is 1700000000000000000, not 1700000000123456789"  # stargz writes whole seconds
        self.assertEqual([l for l in self.oracle.differences(mount.path) if l != known], [])

    def check_big(self, mount):
        for name, data in self.contents.items():
            self.assertTrue(mount.read(name) == data, name)

    def known_big(self):
        """The big image's table is in the store, none of its content."""
        self.bed.mount(self.reference('big'), '--plain-http').umount()
        self.bed.store.forget_content()
        self.proxy.clear()

    def ranges_apart(self, layer):
        """No byte of a layer travels twice; but neighbours in a gzip stream share one."""
        ranges = sorted(r.range for r in self.proxy.requests(layer) if r.range)
        for (_, last), (first, _) in zip(ranges, ranges[1:]):
            self.assertLessEqual(last - first, 0, ranges)


class PullTest(PullCase):
    def test_afterwards_no_registry_is_needed(self):
        result = self.pull('lazy', 'big', 'plain')
        self.assertEqual((result.code, result.err), (0, ''))
        lines = result.out.splitlines()
        self.assertEqual([l.partition(': ')[0] for l in lines], [self.reference(t) for t in ('lazy', 'big', 'plain')])
        self.assertIn(self.image['digest'], lines[0])
        self.assertLess(self.proxy.bytes(self.lazy_layer), 1.35 * self.lazy_size)
        self.assertEqual(self.proxy.bytes(self.big_layer), self.big_size)
        self.proxy.close()
        for tag in ('lazy', 'big', 'plain'):
            mount = self.bed.mount(self.reference(tag), '--plain-http', '--offline')
            if tag == 'big':
                self.check_big(mount)
            elif tag == 'lazy':
                self.compare(mount)
            else:
                self.assertEqual(self.oracle.differences(mount.path), [])
            self.assertNotRegex(mount.log(), r'Z (warning|error) ')
            mount.umount()

    def test_what_is_there_is_not_fetched_again(self):
        self.assertEqual(self.pull('lazy', 'big').code, 0)
        self.proxy.clear()
        self.assertEqual(self.pull('lazy', 'big').code, 0)
        self.assertEqual([r.method for r in self.proxy.requests()], ['HEAD', 'HEAD'])

    def test_a_layout(self):
        result = self.bed.regfs('pull', 'oci:%s' % (TOP / 'tests/fixtures/demo'))
        self.assertEqual((result.code, result.err), (0, ''))

    def test_interrupted_and_resumed(self):
        self.known_big()
        self.proxy.rule(slow(MIB // 2, 0.3), path='/blobs/')
        process = self.bed.start(regfs_binary(), 'pull', '--plain-http', self.reference('big'), stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE)
        wait_until(lambda: sum(r.over for r in self.proxy.requests(self.big_layer)) >= 2, 'two requests are answered')
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(30), 1)
        self.assertRegex(process.stderr.read(), rb'^regfs: \S+: interrupted[^\n]*\n$')
        self.assertEqual(process.stdout.read(), b'')
        # The proxy notes an answer that was cut off when it finds out.
        wait_until(lambda: self.proxy.active == 0, 'nothing is under way')
        self.assertLess(self.proxy.bytes(self.big_layer), self.big_size)
        self.proxy.clear()
        self.assertEqual(self.pull('big').code, 0)
        # What was under way when it was interrupted travels again; what the ended flight has brought does not.
        self.assertLess(self.proxy.bytes(self.big_layer), self.big_size - 2 * MIB)
        self.ranges_apart(self.big_layer)
        self.proxy.close()
        self.check_big(self.bed.mount(self.reference('big'), '--plain-http', '--offline'))

    def test_a_terminal_that_goes_away_ends_it_unless_that_is_to_be_ignored(self):
        for prefix, code in ((), 1), (('nohup',), 0):
            with self.subTest(prefix):
                go = threading.Event()
                shutil.rmtree(self.bed.store.path, ignore_errors=True)
                self.proxy.clear()
                self.proxy.rule(hang(until=go), path='/blobs/', times=1)
                process = self.bed.start(*prefix, regfs_binary(), 'pull', '--plain-http', self.reference('lazy'),
                                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                wait_until(lambda: self.proxy.active > 0, 'a blob is asked for')
                process.send_signal(signal.SIGHUP)
                go.set()
                self.assertEqual(process.wait(30), code, process.stderr.read())

    def test_interrupted_while_a_layer_is_indexed(self):
        self.proxy.rule(slow(MIB // 4, 0.3), path='/blobs/' + self.big_layer)
        process = self.bed.start(regfs_binary(), 'pull', '--plain-http', self.reference('big'), stderr=subprocess.PIPE)
        wait_until(lambda: self.bed.store.drafts(), 'indexing begins')
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(30), 1)
        self.assertRegex(process.stderr.read(), rb'^regfs: \S+: interrupted[^\n]*\n$')
        self.assertEqual((self.bed.store.drafts(), self.bed.store.layers()), ([], []))

    def test_one_that_fails_among_others(self):
        result = self.pull('none', 'big', 'gone')
        self.assertEqual(result.code, NOT_FOUND)
        self.assertEqual([bool(re.match('regfs: %s: ' % re.escape(self.reference(t)), l)) for t, l in
                          zip(('none', 'gone'), result.err.splitlines())], [True, True])
        self.assertEqual(len(result.out.splitlines()), 1)
        self.assertEqual(self.pull().code, USAGE)

    def test_content_that_is_wrong(self):
        self.known_big()
        self.proxy.rule(lambda x: x.send_answer((lambda a: a._replace(body=bytes(len(a.body))))(x.forward())), path='/blobs/')
        result = self.pull('big', options=['--log-level=error'])
        self.assertEqual(result.code, BAD_DATA)
        self.assertRegex(result.err, r'^regfs: \S+ blob %s[^\n]*\n$' % self.big_layer)

    def test_paths_alone(self):
        self.known_big()
        listed = self.bed.write('list', '/data/file2\nnone/such\n')
        result = self.pull('big', options=['--paths', listed])
        self.assertEqual(result.code, 0)
        self.assertRegex(result.err, 'none/such is not in the image')
        self.assertLess(self.proxy.bytes(self.big_layer), 10 * MIB)
        self.assertEqual(self.pull('big', options=['--paths', self.bed.dir / 'none']).code, NOT_FOUND)
        self.proxy.close()
        mount = self.bed.mount(self.reference('big'), '--plain-http', '--offline')
        self.assertTrue(mount.read('data/file2') == self.contents['data/file2'])
        with self.assertRaises(OSError):
            mount.read('data/file0')

    def test_progress_on_a_terminal(self):
        self.known_big()
        self.proxy.rule(slow(MIB, 0.1), path='/blobs/')
        master, terminal = pty.openpty()
        process = self.bed.start(regfs_binary(), 'pull', '--plain-http', self.reference('big'), stdout=subprocess.DEVNULL,
                                 stderr=terminal)
        os.close(terminal)
        shown = b''
        while True:
            try:
                piece = os.read(master, 4096)
            except OSError:
                break
            if not piece:
                break
            shown += piece
        os.close(master)
        self.assertEqual(process.wait(30), 0)
        self.assertRegex(shown.decode(), r'fetching [#.]* ?[\d.]+ \w+ / 2[01]\.\d MB, [\d.]+ \w+/s')


class PrefetchTest(PullCase):
    def status(self, mount):
        """Asked as soon as the daemon's thread for it is there, which may be a moment after the mount."""
        return wait_until(lambda: self.bed.find_mount(mount.path)['prefetch'], 'the prefetch tells how far it is')

    def wait_for(self, mount):
        def is_done():
            status = self.status(mount)
            return status['done'] == status['total'] and status
        return wait_until(is_done, 'the prefetch is done', 40)

    def test_all(self):
        self.known_big()
        mount = self.bed.mount(self.reference('big'), '--plain-http', '--prefetch=all')
        status = self.wait_for(mount)
        self.assertTrue(0.99 * self.big_size < status['total'] < 1.01 * self.big_size, status)
        self.ranges_apart(self.big_layer)
        seen = len(self.proxy.requests())
        self.check_big(mount)
        self.assertEqual(len(self.proxy.requests()), seen)
        self.assertRegex(self.bed.regfs('mounts').out, r'PREFETCH[^\n]*\n(.*\n)*.*2[01]\.\d MB / 2[01]\.\d MB')

    def test_none_is_the_default(self):
        self.known_big()
        for options in ([], ['--prefetch=none']):
            mount = self.bed.mount(self.reference('big'), '--plain-http', *options)
            self.assertIsNone(self.bed.find_mount(mount.path)['prefetch'])
            self.assertEqual(self.proxy.bytes(self.big_layer), 0)
            mount.umount()

    def test_a_list(self):
        """Of an eStargz with small chunks: files and directories, in the order of the blob."""
        self.assertEqual(self.pull('lazy').code, 0)
        self.bed.store.forget_content()
        self.proxy.clear()
        listed = self.bed.write('list', 'etc\n/usr/\nno/such\n')
        mount = self.bed.mount(self.reference('lazy'), '--plain-http', '--prefetch=%s' % listed)
        status = self.wait_for(mount)
        self.assertGreater(status['total'], 0)
        self.assertLess(status['total'], self.lazy_size)
        self.assertIn('no/such is not in the image', mount.log())
        self.ranges_apart(self.lazy_layer)
        seen = len(self.proxy.requests())
        for directory, _, names in os.walk(mount.path / 'etc'):
            for name in names:
                path = os.path.join(directory, name)
                if os.path.isfile(path) and not os.path.islink(path):
                    with open(path, 'rb') as f:
                        f.read()
        self.assertEqual(len(self.proxy.requests()), seen)

    def test_a_list_that_is_not_there(self):
        self.bed.mount_fails(NOT_FOUND, self.reference('big'), '--plain-http', '--prefetch=/no/list', words=['/no/list'],
                             keeps_layers=True)

    def test_a_prefetch_does_not_hold_the_unmount_up(self):
        self.known_big()
        self.proxy.rule(slow(MIB // 4, 0.2), path='/blobs/')
        mount = self.bed.mount(self.reference('big'), '--plain-http', '--prefetch=all')
        wait_until(lambda: self.status(mount)['done'] < self.status(mount)['total'], 'the prefetch is under way')
        mount.umount()
        self.assertLess(self.proxy.bytes(self.big_layer), self.big_size)

    def test_a_registry_that_is_away_for_a_while(self):
        self.known_big()
        rule = self.proxy.rule(status(503), path='/blobs/')
        mount = self.bed.mount(self.reference('big'), '--plain-http', '--prefetch=all', '--timeout=1')
        wait_until(lambda: 'prefetch: ' in mount.log(), 'a failure is told')
        with self.proxy.lock:
            self.proxy.rules.remove(rule)
        self.wait_for(mount)

    def test_what_is_told_is_in_no_listing(self):
        mount = self.bed.mount(self.reference('lazy'), '--plain-http', '--prefetch=all')
        self.wait_for(mount)
        self.compare(mount)

    def test_a_daemon_that_hangs_does_not_hang_mounts(self):
        self.known_big()
        mount = self.bed.mount(self.reference('big'), '--plain-http', '--prefetch=all')
        self.wait_for(mount)
        other = self.bed.mount(self.reference('big'), '--plain-http', '--prefetch=all')
        self.status(other)
        os.kill(mount.pid, signal.SIGSTOP)
        try:
            result = self.bed.regfs('mounts', '--json', timeout=20)
        finally:
            os.kill(mount.pid, signal.SIGCONT)
        self.assertEqual(result.code, 0)
        self.assertLess(result.seconds, 5)
        found = {m['directory']: m['prefetch'] for m in json.loads(result.out)}
        self.assertIsNone(found[str(mount.path)])
        self.assertIsNotNone(found[str(other.path)])


if __name__ == '__main__':
    unittest.main()
