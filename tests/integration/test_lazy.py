# SPDX-License-Identifier: Apache-2.0
"""Layers with a table of contents inside (eStargz, zstd:chunked): the tree is the tar's, and only what is read is fetched."""
import errno
import hashlib
import os
import unittest

import images
from fault_proxy import FaultProxy, flip
from oracle import Oracle
from registry import Registry
from testbed import FIXTURES, TestCase

STARGZ = 'containerd.io/snapshot/stargz/toc.digest'
OLD, NEW = 'io.containers.zstd-chunked.', 'io.github.containers.zstd-chunked.'

# The layer's blob, its media type's suffix, and the annotations that its producer printed.
FORMATS = {
    'estargz': ('base.esgz', '+gzip', {
        STARGZ: 'sha256:85f895913a2ad54941a9aa7b70ad4e6e99dc4388ee880e2436029a9fb1ce59cb'}),
    'estargz-64k': ('base.chunk64k.esgz', '+gzip', {
        STARGZ: 'sha256:224d8180f5254d1404b42fb3c505b130a2ab04825211c4bbaccb3f1a7cad62ae'}),
    'estargz-landmark': ('base.landmark.esgz', '+gzip', {
        STARGZ: 'sha256:4989b6612f9e54b2e8d23eb35174146e184a8d54059d4b5eacaae97ef339a7d7'}),
    'zstdchunked-v40': ('base.zstdchunked-v40.zst', '+zstd', {
        OLD + 'manifest-checksum': 'sha256:bb75168457833f28605c2f8c14192996499df9ff525c5c0fa272be84ad30ffa1',
        OLD + 'manifest-position': '1289448:38015:189818:1'}),
    'zstdchunked-v64': ('base.zstdchunked-v64.zst', '+zstd', {
        NEW + 'manifest-checksum': 'sha256:de0ff3b797e9231003685727acc451bc51da377495af6214890e9d19d0f68de3',
        NEW + 'manifest-position': '1289460:37857:150181:1',
        NEW + 'tarsplit-position': '1327325:21934:653084'}),
    'stargz-zstdchunked': ('base.stargz-zstdchunked.zst', '+zstd', {
        STARGZ: 'sha256:d247b078398dec4fc462ff7960218b556698f984b058c44d300ae2ccd6d760c7',
        OLD + 'manifest-checksum': 'sha256:16b27956951e64e98cb2568b4f275e362c4d16c583289f98b688b08cdfcb3195',
        OLD + 'manifest-position': '1249349:28276:179454:1'}),
}


class LazyTest(TestCase):
    @classmethod
    def set_up_shared(cls):
        cls.registry = Registry(cls.shared)
        cls.layout = images.Layout(cls.shared.dir / 'layout')
        cls.tars = images.fixture_tars()
        cls.layout.add_image('plain', images.fixture_layers('gzip'))
        cls.oracle = Oracle(cls.layout.path, 'plain', cls.shared.dir / 'unpacked', cls.tars.values())
        for name, (blob, suffix, annotations) in FORMATS.items():
            cls.push(name, blob, suffix, annotations)

    @classmethod
    def push(cls, tag, blob, suffix, annotations):
        """The fixture image with BLOB as its lowest layer; the others are plain."""
        base = images.Layer.of_fixture(blob, suffix, cls.tars['base'])
        others = [images.Layer.of(cls.tars[name]) for name in ('upper', 'twice')]

        def annotate(manifest):
            manifest['layers'][0]['annotations'] = annotations
        cls.layout.add_image(tag, [base, *others], change=annotate)
        cls.registry.push_layout(cls.layout, tag, 'lazy:' + tag)

    def setUp(self):
        super().setUp()
        self.proxy = FaultProxy(self.bed, self.registry.port)

    def mount(self, tag, *options):
        return self.bed.mount('127.0.0.1:%d/lazy:%s' % (self.proxy.port, tag), '--plain-http', *options)

    def layer_path(self, blob):
        data = (FIXTURES / 'layers' / blob).read_bytes()
        return '/blobs/sha256:' + hashlib.sha256(data).hexdigest(), len(data)

    def kinds(self):
        return sorted(p.name.partition('-')[0] for p in self.bed.store.path.glob('layers/sha256/*/*'))

    def compare(self, mount, what):
        lines = self.oracle.differences(mount.path)
        if STARGZ in FORMATS[what.partition(',')[0]][2]:
            # stargz writes whole seconds.
            known = "'srv/nanoseconds': mtime is 1700000000000000000, not 1700000000123456789"
            self.assertIn(known, lines)
            lines.remove(known)
        self.assertEqual(lines, [], what)

    def check(self, tag, kind, mounted_bytes):
        """MOUNTED_BYTES: what the lazy layer may transfer until the mount is there."""
        path, size = self.layer_path(FORMATS[tag][0])
        mount = self.mount(tag)
        self.assertEqual(self.kinds(), sorted([kind, 'plain', 'plain']))
        if mounted_bytes:
            self.assertLess(self.proxy.bytes(path), mounted_bytes)
            self.assertEqual(len(self.proxy.requests(path)), 1)
        self.compare(mount, tag)
        # Everything was read: nothing of it twice, the table of contents and what came with it apart.
        self.assertLess(self.proxy.bytes(path), 1.35 * size)
        mount.umount()

        seen = len(self.proxy.requests(path))
        mount = self.mount(tag)
        self.compare(mount, tag + ', out of the store')
        self.assertEqual(len(self.proxy.requests(path)), seen)
        mount.umount()

    def test_estargz(self):
        self.check('estargz', 'estargz', 330_000)

    def test_estargz_of_small_chunks(self):
        self.check('estargz-64k', 'estargz', 330_000)

    def test_estargz_with_landmark(self):
        # What stands before the landmark comes by itself.
        self.check('estargz-landmark', 'estargz', None)

    def test_zstdchunked_of_podman_4(self):
        self.check('zstdchunked-v40', 'zstdchunked', 40_000)

    def test_zstdchunked_of_podman_5(self):
        self.check('zstdchunked-v64', 'zstdchunked', 40_000)

    def test_zstdchunked_of_stargz(self):
        self.check('stargz-zstdchunked', 'zstdchunked', 40_000)

    def test_one_small_file_costs_little(self):
        path, _ = self.layer_path(FORMATS['zstdchunked-v64'][0])
        mount = self.mount('zstdchunked-v64')
        before = self.proxy.bytes(path)
        self.assertEqual(mount.read('etc/shadow'), b'root:*:19000::::::\n')
        self.assertLess(self.proxy.bytes(path) - before, 2 ** 20)

    def test_without_annotation_it_is_the_gzip_that_it_also_is(self):
        self.push('unnamed', 'base.esgz', '+gzip', {})
        mount = self.mount('unnamed')
        self.assertEqual(self.kinds(), ['plain'] * 3)
        # As a tar it holds the table, too: stargz puts it there as a file.
        self.assertTrue(os.path.exists(mount.path / 'stargz.index.json'))

    def test_a_wrong_toc_digest(self):
        wrong = 'sha256:' + '0' * 64
        self.push('wrong', 'base.esgz', '+gzip', {STARGZ: wrong})
        mount = self.mount('wrong')
        self.assertEqual(self.kinds(), ['plain'] * 3)
        self.assertIn(wrong, mount.log())
        self.assertIn('read whole', mount.log())

    def ranges_of(self, name):
        """What is asked for when that file is read; all content is forgotten afterwards."""
        path, _ = self.layer_path('base.zstdchunked-v64.zst')
        mount = self.mount('zstdchunked-v64')
        seen = len(self.proxy.requests(path))
        mount.read(name)
        ranges = [r.range for r in self.proxy.requests(path)[seen:]]
        self.assertGreater(len(ranges), 0)
        mount.umount()
        self.bed.store.forget_content()
        return path, ranges

    def test_wrong_bytes_once(self):
        path, ranges = self.ranges_of('noise-300k')
        rule = self.proxy.rule(flip(0.5), path=path, times=1, when=lambda x: x.range == ranges[0])
        mount = self.mount('zstdchunked-v64')
        self.assertEqual(hashlib.sha256(mount.read('noise-300k')).digest(), self.noise())
        self.assertEqual(rule.hits, 1)
        self.assertIn('fetched once more', mount.log())

    def noise(self):
        with open(os.path.join(self.oracle.root, 'noise-300k'), 'rb') as f:
            return hashlib.sha256(f.read()).digest()

    def test_wrong_bytes_always(self):
        """One file is bad for good; the log names blob and range, and everything else is readable."""
        path, ranges = self.ranges_of('noise-300k')
        first, last = min(first for first, _ in ranges), max(last for _, last in ranges)
        rule = self.proxy.rule(flip(0.5), path=path, when=lambda x: first <= x.range[0] and x.range[1] <= last)
        mount = self.mount('zstdchunked-v64')
        with self.assertRaises(OSError) as caught:
            mount.read('noise-300k')
        self.assertEqual(caught.exception.errno, errno.EIO)
        self.assertGreaterEqual(rule.hits, 2)
        self.assertRegex(mount.log(), r' error .*blob sha256:\S+.*bytes \d+-\d+')
        self.assertEqual(mount.read('etc/shadow'), b'root:*:19000::::::\n')
        self.assertEqual(len(mount.read('text-600k')), 600_000)


if __name__ == '__main__':
    unittest.main()
