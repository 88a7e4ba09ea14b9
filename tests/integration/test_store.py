# SPDX-License-Identifier: Apache-2.0
"""The store between mounts and between processes: what is known is not asked for again, in whatever state the files are."""
import os
import struct
import subprocess
import unittest

import images
from fault_proxy import FaultProxy
from registry import Registry
from testbed import TestCase, regfs_binary, run


class StoreCase(TestCase):
    """A small image in a layout and, behind a proxy that counts, in a registry."""

    @classmethod
    def set_up_shared(cls):
        cls.layout = images.Layout(cls.shared.dir / 'layout')
        cls.image = images.small_image(cls.layout)

    def setUp(self):
        super().setUp()
        self.registry = Registry(self.bed)
        self.registry.push(self.layout, self.image, 'small:v1')
        self.proxy = FaultProxy(self.bed, self.registry.port)


class KnownImageTest(StoreCase):
    """A second mount asks for nothing (a digest), or for the digest alone (a tag)."""

    def remount(self, reference):
        self.bed.mount('%s/%s' % (self.proxy.host, reference), '--plain-http').umount()
        self.proxy.clear()
        mount = self.bed.mount('%s/%s' % (self.proxy.host, reference), '--plain-http')
        self.assertEqual(mount.read('text'), images.text(8, 5 << 20))
        self.assertEqual(mount.digest, self.image['digest'])
        return [(r.method, r.path) for r in self.proxy.requests()]

    def test_digest(self):
        self.assertEqual(self.remount('small@' + self.image['digest']), [])

    def test_tag_and_digest(self):
        self.assertEqual(self.remount('small:v1@' + self.image['digest']), [])

    def test_tag(self):
        self.assertEqual(self.remount('small:v1'), [('HEAD', '/v2/small/manifests/v1')])

    def test_first_mount_asks_once_for_each_thing(self):
        self.bed.mount('%s/small:v1' % self.proxy.host, '--plain-http')
        manifest = self.layout.json(self.image)
        asked = sorted((r.method, r.path) for r in self.proxy.requests())
        digest = self.image['digest']
        self.assertEqual(asked, sorted([('GET', '/v2/small/manifests/v1'),
                                        ('GET', '/v2/small/referrers/' + digest),
                                        ('GET', '/v2/small/manifests/' + digest.replace(':', '-')),
                                        ('GET', '/v2/small/blobs/' + manifest['config']['digest']),
                                        ('GET', '/v2/small/blobs/' + manifest['layers'][0]['digest'])]))
        self.assertEqual(self.proxy.bytes('/blobs/'), manifest['config']['size'] + manifest['layers'][0]['size'])

    def test_a_tag_that_moved(self):
        reference = '%s/small:v1' % self.proxy.host
        self.bed.mount(reference, '--plain-http').umount()
        moved = self.layout.add_image(None, [images.Layer.of(images.tar(images.entry('moved', b'yes')))])
        self.registry.push(self.layout, moved, 'small:v1')
        mount = self.bed.mount(reference, '--plain-http')
        self.assertEqual(mount.read('moved'), b'yes')
        self.assertEqual(mount.digest, moved['digest'])

    def test_metadata_needs_no_registry(self):
        mount = self.bed.mount('%s/small:v1' % self.proxy.host, '--plain-http')
        self.proxy.close()
        self.assertEqual(sorted(os.listdir(mount.path)), ['data', 'etc', 'text'])
        self.assertEqual(os.stat(mount.path / 'data').st_size, 100000)
        self.assertEqual(mount.read('data'), images.noise(7, 100000))

    def test_a_read_only_store(self):
        reference = '%s/small@%s' % (self.proxy.host, self.image['digest'])
        self.bed.mount(reference, '--plain-http').umount()
        frozen = self.bed.mkdir('frozen')
        run('mount', '--bind', self.bed.store.path, frozen)
        run('mount', '-o', 'remount,bind,ro', frozen)
        self.proxy.clear()
        mount = self.bed.mount(reference, '--plain-http', '--cache-dir', frozen)
        self.assertEqual(mount.read('text'), images.text(8, 5 << 20))
        self.assertEqual(self.proxy.requests(), [])
        mount.umount()
        self.bed.store.forget_content()
        mount = self.bed.mount(reference, '--plain-http', '--cache-dir', frozen)
        self.assertEqual(mount.read('text'), images.text(8, 5 << 20))
        self.assertNotEqual(self.proxy.requests(), [])
        self.assertNotRegex(mount.log(), r' (warning|error) ')


class DamageTest(StoreCase):
    def test_a_store_that_is_damaged(self):
        """A file of the store that somebody broke is written afresh, with a word in the log."""
        reference = '%s/small:v1' % self.proxy.host
        self.bed.mount(reference, '--plain-http').umount()
        for pattern in ('layers/sha256/*/*/toc', 'layers/sha256/*/*/map', 'images/*', 'blobs/sha256/*', 'refs/*/*/*',
                        'layers/sha256/*/*/content'):
            for name, change in (('cut', lambda d: d[:len(d) // 2]), ('empty', lambda d: b''),
                                 ('other', lambda d: d[:4] + struct.pack('<Q', 0xffffffffffffffff) + d[12:]),
                                 ('noise', lambda d: images.noise(5, len(d)))):
                with self.subTest('%s: %s' % (pattern, name)):
                    paths = list(self.bed.store.path.glob(pattern))
                    self.assertTrue(paths)
                    for path in paths:
                        path.write_bytes(change(path.read_bytes()))
                    mount = self.bed.mount(reference, '--plain-http')
                    self.assertEqual(mount.read('etc/os-release'), b'ID=small\n')
                    self.assertEqual(mount.read('text'), images.text(8, 5 << 20))
                    mount.umount()


class ParallelTest(StoreCase):
    def test_many_mounts_at_once(self):
        """Of one image that nobody knows yet, in one store: all work, one layer is there."""
        directories = [self.bed.mkdir() for _ in range(8)]
        processes = [self.bed.start(regfs_binary(), 'mount', '--plain-http', '%s/small:v1' % self.proxy.host, d,
                                    stderr=subprocess.PIPE) for d in directories]
        for process in processes:
            self.assertEqual((process.wait(60), process.stderr.read()), (0, b''))
        for directory in directories:
            self.assertEqual((directory / 'text').read_bytes(), images.text(8, 5 << 20))
        self.assertEqual(len(self.bed.store.layers()), 1)
        self.assertEqual(self.bed.store.drafts(), [])


if __name__ == '__main__':
    unittest.main()
