# SPDX-License-Identifier: Apache-2.0
"""Stores on filesystems with oddities (oddfs.c), alone and shared by two machines: every byte is right, no lock is asked for, and
what the filesystem lacks costs speed at most."""
import concurrent.futures
import hashlib
import itertools
import json
import os
import pathlib
import shutil
import signal
import unittest

import images
import stargz
from fault_proxy import FaultProxy
from oracle import Oracle
from registry import Registry
from testbed import TestCase, forget_pages, regfs_binary, wait_until

CHUNK = 30_001  # of the lazy image: most pages belong to two chunks


def oddfs_binary():
    path = pathlib.Path(regfs_binary()).resolve().parent / 'tests/integration/oddfs'
    if not os.access(path, os.X_OK):
        raise RuntimeError('no oddfs at %s: build the tests' % path)
    return path


class OddCase(TestCase):
    @classmethod
    def set_up_shared(cls):
        cls.registry = Registry(cls.shared)
        cls.layout = images.Layout(cls.shared.dir / 'layout')
        tars = list(images.fixture_tars().values())
        cls.registry.push(cls.layout, cls.layout.add_image('tree', images.fixture_layers('gzip')), 'odd:tree')
        cls.oracle = Oracle(cls.layout.path, 'tree', cls.shared.dir / 'oracle', tars)
        cls.files = {'file-%d' % n: images.noise(n, 500_000 + 777 * n) for n in range(10)}
        cls.files['zeros'] = bytes(3 << 20)
        cls.sums = {name: hashlib.sha256(data).hexdigest() for name, data in cls.files.items()}
        cls.registry.push(cls.layout, stargz.add_image(cls.layout, 'lazy', cls.files, CHUNK), 'odd:lazy')
        plain = images.Layer.of(images.tar(*[images.entry(n, d) for n, d in cls.files.items()]), 'pigz')
        cls.registry.push(cls.layout, cls.layout.add_image('plain', [plain]), 'odd:plain')

    def setUp(self):
        super().setUp()
        self.proxy = FaultProxy(self.bed, self.registry.port)
        self.below = self.bed.mkdir('below')
        self.below.chmod(0o700)

    def odd(self, *oddities):
        """A directory that shows self.below, oddly. Returns it, the file that counts its locks, and its process."""
        store, locks = self.bed.mkdir('store'), self.bed.fresh('locks')
        process = self.bed.start(oddfs_binary(), '--count-locks=%s' % locks, *oddities, self.below, store)
        wait_until(lambda: self.bed.is_mounted(store) or process.poll() is not None, 'oddfs is there')
        self.assertIsNone(process.poll())
        return store, locks, process

    def mount(self, tag, store, *options):
        return self.bed.mount('%s/odd:%s' % (self.proxy.host, tag), '--plain-http', '--cache-dir', store, *options)

    def read_all(self, directory, names=None):
        for name in names or self.files:
            path = pathlib.Path(directory) / name
            forget_pages(path)
            self.assertEqual(hashlib.sha256(path.read_bytes()).hexdigest(), self.sums[name], name)

    def check(self, store, tags=('tree', 'plain', 'lazy')):
        """Mounts and reads each image; returns the logs."""
        logs = []
        for tag in tags:
            mount = self.mount(tag, store)
            if tag == 'tree':
                self.assertEqual(self.oracle.differences(mount.path), [])
            else:
                for _ in range(2):
                    self.read_all(mount.path)
            mount.umount()
            logs.append(mount.log())
        return logs

    def check_warm(self, store, tags=('tree', 'plain', 'lazy')):
        """Nothing of a layer is fetched again."""
        self.proxy.clear()
        self.check(store, tags)
        self.assertEqual([r for r in self.proxy.requests() if '/blobs/' in r.path], [])

    def cache(self, command, store, *options):
        result = self.bed.regfs('cache', command, '--cache-dir', store, '--json', *options)
        self.assertEqual((result.code, result.err), (0, ''), result)
        return json.loads(result.out)

    def assert_no_locks(self, locks):
        self.assertEqual(locks.read_text(), '0\n')


class LocksTest(OddCase):
    def test_locks(self):
        """Whatever they would have answered: nobody asks, and one line says so."""
        for answer in ('kernel', 'work', 'ENOLCK', 'ENOSYS', 'EOPNOTSUPP', 'hang', 'hang-after-3'):
            with self.subTest(answer):
                store, locks, _ = self.odd('--locks=' + answer)
                for log in self.check(store):
                    self.assertEqual(log.count('used without locks'), 1)
                    self.assertIn('it lies on fuse.odd and', log)
                self.assertFalse(self.cache('info', store)['locks'])
                self.cache('list', store)
                self.cache('verify', store)
                self.cache('prune', store)
                self.check_warm(store)
                self.cache('clear', store, '--force')
                self.assert_no_locks(locks)
                self.assertEqual(list(self.below.glob('layers/sha256/*/*')), [])

    def test_eviction(self):
        store, locks, _ = self.odd('--locks=hang')
        mount = self.mount('lazy', store, '--cache-size=1M')
        for _ in range(3):
            self.read_all(mount.path)
        self.assert_no_locks(locks)

    def test_processes(self):
        """Four of them, which know nothing of each other's work."""
        store, locks, _ = self.odd('--locks=hang', '--cache=1')
        for tag in ('lazy', 'plain'):
            with concurrent.futures.ThreadPoolExecutor(4) as pool:
                mounts = list(pool.map(lambda _, tag=tag: self.mount(tag, store), range(4)))
                list(pool.map(lambda m: self.read_all(m.path), mounts))
            for mount in mounts:
                mount.umount()
        self.check_warm(store, ('lazy', 'plain'))
        self.assert_no_locks(locks)


class RefusalTest(OddCase):
    def test_no_holes(self):
        store, _, _ = self.odd('--no-holes')
        for log in self.check(store):
            self.assertIn('fuse.odd has no holes', log)
        self.check_warm(store, ('tree', 'plain'))
        self.assertEqual(len(list(self.below.glob('layers/sha256/*/*/content'))), 4)

    def test_no_mappings(self):
        store, _, _ = self.odd('--no-mmap')
        self.check(store)
        self.check_warm(store)

    def test_rename_that_replaces_nothing(self):
        store, _, _ = self.odd('--no-replacement')
        for _ in range(2):
            for log in self.check(store):
                self.assertNotIn(' warning ', log)
        self.check_warm(store)

    def test_no_fsync(self):
        store, _, _ = self.odd('--fsync=EINVAL')
        for log in self.check(store):
            self.assertNotIn(' warning ', log)
        self.check_warm(store)

    def test_fsync_that_fails(self):
        """Nothing is kept, and every image can be mounted and read."""
        store, _, _ = self.odd('--fsync=EIO')
        for log in self.check(store):
            self.assertIn('Input/output error', log)
        self.assertEqual(list(self.below.glob('tmp/*')), [])

    def test_tags_that_differ_in_case(self):
        """V1 and v1 are two tags, also where they could not be two files."""
        for tag, text in (('V1', b'large'), ('v1', b'small'), ('v1.', b'dot')):
            layer = images.Layer.of(images.tar(images.entry('which', text)))
            self.registry.push(self.layout, self.layout.add_image(None, [layer]), 'odd:' + tag)
        store, _, _ = self.odd('--case-blind')
        for tag in ('V1', 'v1', 'v1.'):
            self.mount(tag, store).umount()
        for tag, text in (('V1', b'large'), ('v1', b'small'), ('v1.', b'dot')):
            mount = self.mount(tag, store, '--offline')
            self.assertEqual(mount.read('which'), text)
            mount.umount()


class LossTest(OddCase):
    """What is open goes away."""

    def check_alive(self, mounts):
        self.assertEqual(self.oracle.differences(mounts[0].path), [])
        for mount in mounts[1:]:
            self.read_all(mount.path)
        for mount in mounts:
            mount.umount()

    def mounts(self, store):
        mounts = [self.mount(tag, store) for tag in ('tree', 'plain', 'lazy')]
        self.read_all(mounts[2].path, list(self.files)[:5])
        return mounts

    def test_files_that_go_stale(self):
        """Another machine removes everything: stale handles for whoever has it open."""
        store, _, _ = self.odd('--stale')
        mounts = self.mounts(store)
        for path in self.below.iterdir():
            shutil.rmtree(path)
        self.check_alive(mounts)
        self.check(store)
        self.check_warm(store)

    def test_store_that_another_machine_clears(self):
        store, _, _ = self.odd('--stale', '--cache=1')
        other, _, _ = self.odd('--stale', '--cache=1')
        mounts = self.mounts(store)
        self.cache('clear', other, '--force')
        self.check_alive(mounts)

    def test_server_that_dies(self):
        """Neither data nor metadata depend on it."""
        store, _, process = self.odd()
        mounts = self.mounts(store)
        process.send_signal(signal.SIGKILL)
        process.wait()
        with self.assertRaises(OSError):
            os.listdir(store)
        self.check_alive(mounts)


class MachinesTest(OddCase):
    """Two mounts of one directory, each with a cache of its own."""

    def machines(self, *oddities):
        return [self.odd('--stale', '--locks=hang', *oddities)[:2] for _ in range(2)]

    def forget_cache(self, store):
        """The machine writes out and forgets what it has of the store's content: what is on the server counts."""
        for path in store.glob('layers/sha256/*/*/content'):
            with open(path, 'rb') as f:
                os.fsync(f.fileno())
            forget_pages(path)

    def share(self, machines, tag):
        """Both mount it and read all files three times at the same time, each in an order of its own."""
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            mounts = list(pool.map(lambda m: self.mount(tag, m[0]), machines))
            for again in range(3):
                orders = [list(self.files), list(self.files)[::-1], sorted(self.files, key=lambda n: n[::-1]),
                          list(self.files)[5:] + list(self.files)[:5]]
                list(pool.map(self.read_all, itertools.cycle(m.path for m in mounts), orders[again:] + orders[:again]))
                list(pool.map(self.forget_cache, [store for store, _ in machines]))
        for mount in mounts:
            mount.umount()
        for _, locks in machines:
            self.assert_no_locks(locks)

    def check_shared(self, machines):
        for tag in ('lazy', 'plain'):
            for _ in range(3):
                self.share(machines, tag)
        for store, _ in machines:
            self.assertEqual(self.oracle.differences(self.mount('tree', store).path), [])
            self.cache('verify', store)
        self.share(machines, 'lazy')

    def test_attributes_and_data_are_cached(self):
        self.check_shared(self.machines('--cache=2'))

    def test_writes_are_cached(self):
        """Each machine writes whole pages, the other's half of them as it was before."""
        self.check_shared(self.machines('--cache=2', '--writeback'))

    def test_warm_for_the_other(self):
        (first, _), (second, _) = self.machines('--cache=0.5')
        self.check(first)
        self.check_warm(second)


if __name__ == '__main__':
    unittest.main()
