# SPDX-License-Identifier: Apache-2.0
"""Stores on disks that are full: trees and bytes are right, it is said once, and with room again everything is kept."""
import hashlib
import os
import unittest

import images
import stargz
from fault_proxy import FaultProxy
from oracle import Oracle
from registry import Registry
from test_index import IndexCase
from testbed import TestCase, run, wait_until
from tocfile import CHUNKS, CHUNK_DIGEST, CHUNK_SIZE

BLOCK = 4096
ENTRIES = 3000


class Disk:
    """A filesystem of its own, mounted below the bed, with the store on it and files that take its room."""

    def __init__(self, bed, *mount):
        self.path = bed.mkdir('disk')
        run('mount', *mount, self.path)
        self.path.chmod(0o700)
        self.store = self.path / 'store'
        self.store.mkdir(0o700)
        self.filler = self.path / 'filler'

    @classmethod
    def tmpfs(cls, bed, size):
        return cls(bed, '-t', 'tmpfs', '-o', 'size=%d,mode=700' % size, 'none')

    def fill(self, leave=0):
        """Takes all room but LEAVE bytes."""
        fd = os.open(self.filler, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            while True:
                os.write(fd, b'f' * BLOCK)
        except OSError as e:
            if e.errno != 28:
                raise
        finally:
            os.close(fd)
        os.truncate(self.filler, max(self.filler.stat().st_size - leave, 0))
        run('sync', '-f', self.path)

    def make_room(self):
        self.filler.unlink()

    def tables(self):
        return sorted(self.store.glob('layers/sha256/*/*/toc'))

    def indexes(self):
        return sorted(self.store.glob('images/*'))

    def content(self):
        """Bytes of the disk that content takes."""
        return sum(p.stat().st_blocks * 512 for p in self.store.glob('layers/sha256/*/*/content'))


class FullDiskTest(TestCase):
    @classmethod
    def set_up_shared(cls):
        cls.registry = Registry(cls.shared)
        cls.layout = images.Layout(cls.shared.dir / 'layout')
        few = [images.entry('large', images.noise(1, 3 << 20)), images.entry('text', images.text(2, 1 << 20))]
        many = [images.entry('many-empty-files-of-a-layer-%04d' % k) for k in range(ENTRIES)]
        cls.images, cls.oracles = {}, {}
        for tag, layers in (('plain', [few, many]), ('one', [few + many])):
            tars = [images.tar(*layer) for layer in layers]
            cls.images[tag] = cls.layout.add_image(tag, [images.Layer.of(data, 'gzip') for data in tars])
            cls.registry.push(cls.layout, cls.images[tag], 'full:' + tag)
            cls.oracles[tag] = Oracle(cls.layout.path, tag, cls.shared.dir / ('unpacked-' + tag), tars)
        cls.files = {'a': images.noise(3, 2 << 20), 'b': images.text(4, 300_000)}
        cls.registry.push(cls.layout, stargz.add_image(cls.layout, 'lazy', cls.files, 300_000), 'full:lazy')

    def setUp(self):
        super().setUp()
        self.proxy = FaultProxy(self.bed, self.registry.port)

    def reference(self, tag):
        return '%s/full:%s' % (self.proxy.host, tag)

    def mount(self, disk, tag, **more):
        return self.bed.mount(self.reference(tag), '--plain-http', '--cache-dir', disk.store, **more)

    def assert_right(self, mount, tag):
        if tag in self.oracles:
            self.assertEqual(self.oracles[tag].differences(mount.path), [])
            return
        self.assertEqual(sorted(os.listdir(mount.path)), sorted(self.files))
        for name, data in self.files.items():
            self.assertEqual(hashlib.sha256(mount.read(name)).digest(), hashlib.sha256(data).digest())

    def assert_said_once(self, mount, disk):
        lines = [line for line in mount.log().splitlines() if 'cannot be written' in line]
        self.assertEqual(len(lines), 1, lines)
        for word in ('warning', str(disk.store), 'No space left on device'):
            self.assertIn(word, lines[0])

    def assert_all_is_kept(self, disk, tag, tables):
        """There is room now: one mount keeps everything, and the next ones know the image."""
        mount = self.mount(disk, tag)
        self.assert_right(mount, tag)
        mount.umount()
        self.assertEqual((len(disk.tables()), len(disk.indexes())), (tables, 1))
        self.proxy.clear()
        mount = self.mount(disk, tag)
        self.assert_right(mount, tag)
        self.assertNotIn('cannot be written', mount.log())
        self.assertEqual([(r.method, r.path) for r in self.proxy.requests()], [('HEAD', '/v2/full/manifests/' + tag)])
        mount.umount()
        self.assertEqual(list((disk.store / 'tmp').iterdir()), [])

    def check_without_room(self, disk, tag, tables, env=None):
        disk.fill()
        mounts = [self.mount(disk, tag, env=env) for _ in range(2)]
        for mount in mounts:
            self.assert_right(mount, tag)
            self.assert_said_once(mount, disk)
            mount.umount()
        self.assertEqual((disk.tables(), disk.indexes(), disk.content()), ([], [], 0))
        disk.make_room()
        self.assert_all_is_kept(disk, tag, tables)

    def test_nothing_fits(self):
        self.check_without_room(Disk.tmpfs(self.bed, 64 << 20), 'plain', 2)

    def test_nothing_fits_and_the_temporary_directory_is_there_too(self):
        disk = Disk.tmpfs(self.bed, 64 << 20)
        self.check_without_room(disk, 'plain', 2, {'TMPDIR': str(disk.path)})

    def test_nothing_fits_of_estargz(self):
        disk = Disk.tmpfs(self.bed, 64 << 20)
        self.check_without_room(disk, 'lazy', 1, {'TMPDIR': str(disk.path)})

    @unittest.skipUnless(os.path.exists('/dev/loop-control'), 'no loop devices here')
    def test_nothing_fits_on_ext4(self):
        """Where directories take room, too."""
        image = self.bed.dir / 'ext4'
        with open(image, 'wb') as f:
            f.truncate(64 << 20)
        run('mkfs.ext4', '-q', '-m', '0', image)
        disk = Disk(self.bed, '-o', 'loop', image)
        self.check_without_room(disk, 'plain', 2, {'TMPDIR': str(disk.path)})

    def test_the_store_itself_does_not_fit(self):
        disk = Disk.tmpfs(self.bed, 64 << 20)
        disk.store.rmdir()
        run('mount', '-o', 'remount,size=%d,nr_inodes=1' % (64 << 20), disk.path)
        mount = self.mount(disk, 'plain')
        self.assert_right(mount, 'plain')
        self.assert_said_once(mount, disk)
        mount.umount()
        mount = self.bed.mount(self.reference('plain'), '--plain-http', '--cache-dir', 'store', cwd=disk.path)
        self.assert_right(mount, 'plain')
        mount.umount()
        self.assertFalse(disk.store.exists())

    def test_the_table_of_one_layer_fits(self):
        disk = Disk.tmpfs(self.bed, 8 << 20)
        disk.fill(leave=256 << 10)

        def wait(exchange):
            """The other one's table has been given up, and its draft is gone, when this one comes."""
            wait_until(lambda: any('cannot be written' in log.read_text() for log in self.bed.dir.glob('log-*')) and
                       len(list(disk.store.glob('tmp/*'))) <= 1, 'no room for a table')
            exchange.relay()
        self.proxy.rule(wait, path=self.layout.json(self.images['plain'])['layers'][0]['digest'], times=1)
        mount = self.mount(disk, 'plain', env={'TMPDIR': str(disk.path)})
        self.assert_right(mount, 'plain')
        self.assert_said_once(mount, disk)
        self.assertEqual(len(disk.tables()), 1)
        self.assertEqual((disk.indexes(), disk.content()), ([], 0))
        mount.umount()
        run('mount', '-o', 'remount,size=%d' % (64 << 20), disk.path)
        self.assert_all_is_kept(disk, 'plain', 2)

    def test_no_content_fits(self):
        """All of the index does: the image is known, its files are fetched each time."""
        disk = Disk.tmpfs(self.bed, 64 << 20)
        disk.fill(leave=3 << 20)  # 5 % are left free
        mount = self.mount(disk, 'plain')
        self.assert_right(mount, 'plain')
        self.assertNotIn('cannot be written', mount.log())
        self.assertEqual((len(disk.tables()), len(disk.indexes()), disk.content()), (2, 1, 0))
        mount.umount()
        self.proxy.clear()
        mount = self.mount(disk, 'plain')
        self.assertEqual([r.method for r in self.proxy.requests()], ['HEAD'])
        self.assert_right(mount, 'plain')
        mount.umount()
        disk.make_room()
        self.assert_all_is_kept(disk, 'plain', 2)

    def test_content_makes_room_for_the_index(self):
        """What a pass has kept of the content is worth less than its table."""
        disk = Disk.tmpfs(self.bed, 3 << 20)
        mount = self.mount(disk, 'one', env={'TMPDIR': str(disk.path)})
        self.assert_right(mount, 'one')
        self.assertIn('its table of contents needs the room', mount.log())
        self.assertNotIn('cannot be written', mount.log())
        mount.umount()
        self.assertEqual((len(disk.tables()), len(disk.indexes())), (1, 1))
        run('mount', '-o', 'remount,size=%d' % (64 << 20), disk.path)
        self.assert_all_is_kept(disk, 'one', 1)

    def fails(self, disk, *command):
        result = self.bed.regfs(*command, '--plain-http', '--cache-dir', disk.store, self.reference('plain'))
        self.assertEqual(result.code, 1, result)
        self.assertRegex(result.err.splitlines()[-1], r'^regfs: .*%s.*No space left on device' % disk.store)

    def test_what_is_to_fill_the_store_fails(self):
        disk = Disk.tmpfs(self.bed, 64 << 20)
        disk.fill()
        self.fails(disk, 'pull')
        self.fails(disk, 'index')
        self.assertEqual((disk.tables(), disk.indexes()), ([], []))
        disk.make_room()
        disk.fill(leave=3 << 20)
        self.fails(disk, 'pull')
        self.assertEqual(self.bed.regfs('index', '--plain-http', '--cache-dir', disk.store, self.reference('plain')).code, 0)
        disk.make_room()
        self.assertEqual(self.bed.regfs('pull', '--plain-http', '--cache-dir', disk.store, self.reference('plain')).code, 0)


class RecoveryTest(IndexCase):
    """A daemon that has confined itself meets a wrong index, and its store is full."""

    def test_a_table_that_is_made_later(self):
        def lie(_, toc):
            for row in toc.rows(CHUNKS, CHUNK_SIZE):
                toc.data[row + CHUNK_DIGEST] ^= 1
        self.publish(lie)
        disk = Disk.tmpfs(self.bed, 64 << 20)
        disk.fill()
        mount = self.bed.mount(self.ref(), '--plain-http', '--cache-dir', disk.store, env={'TMPDIR': str(disk.path)})
        self.assert_right(mount)
        self.assertIn('the published index is wrong', mount.log())
        self.assertEqual(disk.tables(), [])
        mount.umount()


if __name__ == '__main__':
    unittest.main()
