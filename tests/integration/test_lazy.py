# SPDX-License-Identifier: Apache-2.0
"""Layers with a table of contents inside (eStargz, zstd:chunked): the tree is the tar's, and only what is read is fetched."""
import errno
import hashlib
import os
import threading
import unittest

import images
from fault_proxy import FaultProxy, flip, hang, ignore_range, status
from oracle import Oracle
from registry import Registry
from testbed import FIXTURES, TestCase

STARGZ = 'containerd.io/snapshot/stargz/toc.digest'
STARGZ_LAYER = 'containerd.io/snapshot/stargz/layer.digest'
OLD, NEW = 'io.containers.zstd-chunked.', 'io.github.containers.zstd-chunked.'

UPPER_TOC = 'sha256:22cb9c79666ee7bc76ac7a9e9d1126d705d507c3628b3d203d491f1b215b76e1'

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
    'estargz-external': ('base.external.esgz', '+gzip', {
        STARGZ: 'sha256:0bf6874d69e23aa25ec0241e47cae387bcb8839dc9074d21c0f34afd6668fe9e'}),
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
        cls.push_tables('estargz-external')

    @classmethod
    def push(cls, tag, blob, suffix, annotations):
        """The fixture image with BLOB as its lowest layer; the others are plain."""
        base = images.Layer.of_fixture(blob, suffix, cls.tars['base'])
        others = [images.Layer.of(cls.tars[name]) for name in ('upper', 'twice')]

        def annotate(manifest):
            manifest['layers'][0]['annotations'] = annotations
        cls.layout.add_image(tag, [base, *others], change=annotate)
        cls.registry.push_layout(cls.layout, tag, 'lazy:' + tag)

    @classmethod
    def push_tables(cls, tag, blob='base.external.toc', layer='base.external.esgz'):
        """The image beside TAG, with BLOB as the table of contents of LAYER."""
        table = (FIXTURES / 'layers' / blob).read_bytes()
        layer = (FIXTURES / 'layers' / layer).read_bytes()

        def annotate(manifest):
            manifest['layers'][0]['annotations'] = {STARGZ_LAYER: images.sha256(layer)}
        tag += '-esgztoc'
        cls.layout.add_image(tag, [images.Layer(table, images.sha256(table), images.LAYER_TYPE + '+gzip')], change=annotate)
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

    def test_every_layer_has_its_table(self):
        """upper.esgz, too, with its whiteouts."""
        layers = [images.Layer.of_fixture(name + '.esgz', '+gzip', self.tars[name]) for name in ('base', 'upper')]
        digests = [FORMATS['estargz'][2][STARGZ], UPPER_TOC]

        def annotate(manifest):
            for layer, digest in zip(manifest['layers'], digests):
                layer['annotations'] = {STARGZ: digest}
        self.layout.add_image('both', [*layers, images.Layer.of(self.tars['twice'])], change=annotate)
        self.registry.push_layout(self.layout, 'both', 'lazy:both')
        mount = self.mount('both')
        self.assertEqual(self.kinds(), ['estargz', 'estargz', 'plain'])
        self.compare(mount, 'estargz')

    def test_tables_do_not_wait_for_the_config(self):
        """Which stays away until something of a layer is asked for."""
        asked = threading.Event()

        def tell(exchange):
            asked.set()
            exchange.relay()

        def change(manifest):
            manifest['layers'][0]['annotations'] = FORMATS['estargz'][2]
            configs.append(manifest['config']['digest'])
        configs = []
        self.layout.add_image('waits', [images.Layer.of_fixture('base.esgz', '+gzip', self.tars['base'])], change=change)
        self.registry.push_layout(self.layout, 'waits', 'lazy:waits')
        self.proxy.rule(tell, path='/blobs/', when=lambda exchange: not exchange.path.endswith(configs[0]))
        self.proxy.rule(hang(until=asked), path=configs[0])
        mount = self.mount('waits')
        self.assertEqual(len(self.proxy.requests(configs[0])), 1)
        self.assertIn(' platform linux/amd64', mount.log())

    def test_a_config_that_is_none_is_the_reason(self):
        """Also where a layer can't be had either."""
        def spoil(manifest):
            manifest['layers'][0]['annotations'] = FORMATS['estargz'][2]
            manifest['config'] = self.layout.put(b'[]', manifest['config']['mediaType'])
        self.layout.add_image('spoilt', [images.Layer.of_fixture('base.esgz', '+gzip', self.tars['base'])], change=spoil)
        self.registry.push_layout(self.layout, 'spoilt', 'lazy:spoilt')
        for rule in (None, status(404)):
            if rule:
                self.proxy.rule(rule, path='/blobs/', when=lambda exchange: exchange.range)
            result = self.bed.regfs('mount', '--plain-http', '127.0.0.1:%d/lazy:spoilt' % self.proxy.port, self.bed.mkdir())
            self.assertEqual(result.code, 6, result)
            self.assertIn('config', result.err)

    def test_the_footer_of_the_first_stargz(self):
        """47 bytes: an extra field without a header of its own."""
        blob = (FIXTURES / 'layers/base.esgz').read_bytes()
        payload = blob[-51 + 16:-51 + 38]
        self.assertTrue(payload.endswith(b'STARGZ'))
        footer = bytes.fromhex('1f8b0804' '00000000' '00ff' '1600') + payload + bytes.fromhex('010000ffff') + bytes(8)
        self.assertEqual(len(footer), 47)
        legacy = images.Layer(blob[:-51] + footer, images.sha256(self.tars['base']), images.LAYER_TYPE + '+gzip')

        def annotate(manifest):
            manifest['layers'][0]['annotations'] = FORMATS['estargz'][2]
        others = [images.Layer.of(self.tars[name]) for name in ('upper', 'twice')]
        self.layout.add_image('legacy', [legacy, *others], change=annotate)
        self.registry.push_layout(self.layout, 'legacy', 'lazy:legacy')
        mount = self.mount('legacy')
        self.assertEqual(self.kinds(), ['estargz', 'plain', 'plain'])
        self.compare(mount, 'estargz')

    def test_a_registry_that_ignores_ranges(self):
        """Each blob is received once, whole, and the rest is as ever."""
        for tag in ('estargz', 'zstdchunked-v64'):
            with self.subTest(tag):
                self.proxy.clear()
                self.proxy.rule(ignore_range, path='/blobs/')
                path, size = self.layer_path(FORMATS[tag][0])
                mount = self.mount(tag)
                self.compare(mount, tag)
                # The first answer, which tells, is cut off; then all of it, once.
                self.assertLessEqual(self.proxy.bytes(path), 2.1 * size)
                mount.umount()

    def test_one_small_file_brings_its_neighbours(self):
        """One request, of a part of the layer; none for the files around it."""
        path, size = self.layer_path(FORMATS['zstdchunked-v64'][0])
        mount = self.mount('zstdchunked-v64')
        before, seen = self.proxy.bytes(path), len(self.proxy.requests(path))
        self.assertEqual(mount.read('etc/shadow'), b'root:*:19000::::::\n')
        self.assertLess(self.proxy.bytes(path) - before, size // 2)
        self.assertEqual(len(self.proxy.requests(path)), seen + 1)
        self.assertEqual(len(mount.read('blocks-4096')), 4096)
        self.assertEqual(len(self.proxy.requests(path)), seen + 1)

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

    def test_external_toc(self):
        self.check('estargz-external', 'estargz', 200_000)
        self.assertEqual(len(self.proxy.requests('/manifests/estargz-external-esgztoc')), 1)
        table = self.layer_path('base.external.toc')
        self.assertEqual(len(self.proxy.requests(table[0])), 1)
        self.assertEqual(self.proxy.bytes(table[0]), table[1])

    def test_external_toc_in_a_layout(self):
        mount = self.bed.mount('oci:%s:estargz-external' % self.layout.path)
        self.assertEqual(self.kinds(), ['estargz', 'plain', 'plain'])
        self.compare(mount, 'estargz-external')

    def read_whole(self, tag, *words, reference=None):
        """Mounts an image of a layer whose table is elsewhere and cannot be used."""
        mount = self.bed.mount('127.0.0.1:%d/lazy%s' % (self.proxy.port, reference or ':' + tag), '--plain-http')
        self.assertEqual(self.kinds(), ['plain'] * 3)
        for word in words:
            self.assertIn(word, mount.log())
        self.assertEqual(mount.read('etc/shadow'), b'root:*:19000::::::\n')

    def push_external(self, tag, annotations=FORMATS['estargz-external'][2]):
        self.push(tag, 'base.external.esgz', '+gzip', annotations)

    def test_external_toc_that_is_missing(self):
        self.push_external('alone')
        self.read_whole('alone', 'lies elsewhere and is not found: read whole', 'alone-esgztoc')

    def test_external_toc_of_another_layer(self):
        self.push_external('astray')
        self.push_tables('astray', layer='base.esgz')
        self.read_whole('astray', 'lies elsewhere and is not found: read whole')

    def test_external_toc_of_another_digest(self):
        self.push_external('swapped', {STARGZ: 'sha256:' + '0' * 64})
        self.push_tables('swapped')
        self.read_whole('swapped', 'the digest of its JSON is sha256:0bf6874d', 'is not used, the layer is read whole')

    def test_external_toc_that_is_no_table(self):
        self.push_external('mistaken')
        self.push_tables('mistaken', blob='base.tar.gz')
        self.read_whole('mistaken', 'there is no stargz.index.json', 'is not used, the layer is read whole')

    def test_external_toc_that_is_lost(self):
        self.push_external('lost')
        self.push_tables('lost')
        path, _ = self.layer_path('base.external.toc')
        self.proxy.rule(status(404), path=path)
        self.read_whole('lost', 'its table of contents cannot be had')

    def test_external_toc_of_a_digest_has_no_name(self):
        manifest = next(d for d in self.layout.tagged if 'estargz-external' in d['annotations'].values())
        self.read_whole(None, reference='@' + manifest['digest'])
        self.assertEqual(self.proxy.requests('esgztoc'), [])

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
