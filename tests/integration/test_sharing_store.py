# SPDX-License-Identifier: Apache-2.0
"""One store and several processes at once: each byte is fetched once, whoever dies or hangs; and the store stays within its
limit."""
import concurrent.futures
import hashlib
import os
import pathlib
import shutil
import signal
import subprocess
import unittest

import images
import stargz
from fault_proxy import FaultProxy, slow
from registry import Registry
from testbed import TestCase, forget_pages, regfs_binary, run, wait_until

PROCESSES = 8


def digests(directory, names):
    return {name: hashlib.sha256((pathlib.Path(directory) / name).read_bytes()).hexdigest() for name in names}


class SharingCase(TestCase):
    @classmethod
    def set_up_shared(cls):
        cls.registry = Registry(cls.shared)
        cls.layout = images.Layout(cls.shared.dir / 'layout')
        cls.files = {'a': images.noise(1, 9 << 20), 'b': images.noise(2, 5 << 20), 'c': images.noise(3, 300_000),
                     'd': images.text(4, 3 << 20), 'e': images.noise(5, 7 << 20)}
        cls.sums = {name: hashlib.sha256(data).hexdigest() for name, data in cls.files.items()}
        layers = [images.Layer.of(images.tar(*[images.entry(n, cls.files[n]) for n in names]), how)
                  for names, how in (('a', 'gzip'), ('bc', 'plain'), ('de', 'pigz'))]
        cls.sizes = {'plain': sum(len(l.blob) for l in layers)}
        cls.registry.push(cls.layout, cls.layout.add_image('plain', layers), 'share:plain')
        lazy = stargz.add_image(cls.layout, 'lazy', cls.files, 300_000)
        cls.sizes['lazy'] = cls.layout.json(lazy)['layers'][0]['size']
        cls.registry.push(cls.layout, lazy, 'share:lazy')

    def setUp(self):
        super().setUp()
        self.proxy = FaultProxy(self.bed, self.registry.port)

    def reference(self, tag):
        return '%s/share:%s' % (self.proxy.host, tag)

    def mount_many(self, tag, *options, count=PROCESSES):
        """So many processes that mount at the same time."""
        directories = [self.bed.mkdir() for _ in range(count)]
        processes = [self.bed.start(regfs_binary(), 'mount', '--plain-http', '--log-level=debug', '--log-file=%s.log' % d, *options,
                                    self.reference(tag), d, stderr=subprocess.PIPE) for d in directories]
        for process in processes:
            self.assertEqual((process.wait(90), process.stderr.read()), (0, b''))
        return directories

    def read_all(self, directories):
        """All of them, and each all of it, at the same time."""
        with concurrent.futures.ThreadPoolExecutor(len(directories)) as pool:
            for found in pool.map(lambda d: digests(d, self.files), directories):
                self.assertEqual(found, self.sums)

    def assert_fetched_once(self, tag, wasted=0):
        fetched = self.proxy.bytes('/blobs/')
        self.assertGreater(fetched, self.sizes[tag])
        self.assertLess(fetched - wasted, 1.05 * self.sizes[tag])


class ColdCrowdTest(SharingCase):
    def test_plain_image(self):
        self.read_all(self.mount_many('plain'))
        self.assert_fetched_once('plain')
        self.assertEqual(len(self.bed.store.layers()), 3)
        self.assertEqual(self.bed.store.drafts(), [])

    def test_indexed_image_without_content(self):
        self.bed.mount(self.reference('plain'), '--plain-http').umount()
        self.bed.store.forget_content()
        self.proxy.clear()
        directories = self.mount_many('plain')
        self.read_all(directories)
        fetched = self.proxy.bytes('/blobs/')
        self.assertLess(fetched, 1.05 * self.sizes['plain'])
        self.assertGreater(fetched, 0.9 * self.sizes['plain'])

    def test_estargz(self):
        self.read_all(self.mount_many('lazy'))
        self.assert_fetched_once('lazy')

    def test_estargz_over_a_slow_link(self):
        """Flights meet under way, not one after the other."""
        self.proxy.rule(slow(64 << 10, 0.01), path='/blobs/')
        self.read_all(self.mount_many('lazy'))
        self.assert_fetched_once('lazy')


class LostProcessTest(SharingCase):
    """A process that was first does not come to its end."""

    def begin(self, tag, *options):
        """One process in the middle of its pass over the largest layer."""
        self.proxy.rule(slow(64 << 10, 0.2), path='/blobs/', times=3, when=lambda x: x.method == 'GET')
        first = self.bed.start(regfs_binary(), 'mount', '-f', '--plain-http', *options, self.reference(tag), self.bed.mkdir(),
                               stderr=subprocess.PIPE)
        wait_until(lambda: self.proxy.active >= 3, 'three layers under way')
        return first

    def test_killed_in_the_middle_of_a_pass(self):
        first = self.begin('plain', '--index=none')
        self.proxy.clear()
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            others = pool.submit(self.mount_many, 'plain', '--index=none')
            wait_until(lambda: len(list(self.bed.dir.glob('mnt-*.log'))) >= PROCESSES, 'the others begin')
            wait_until(lambda: all('another process indexes it' in p.read_text() for p in self.bed.dir.glob('mnt-*.log')),
                       'the others wait')
            first.send_signal(signal.SIGKILL)
            first.wait()
            directories = others.result()
        self.read_all(directories)
        # The first one's requests are still on their way when the others have begun.
        layers = [r for r in self.proxy.requests('/blobs/', 'GET') if r.status == 200 and r.sent > 1 << 20]
        self.assertLess(sum(r.sent for r in layers), 2.05 * self.sizes['plain'])
        self.assertEqual(len(self.bed.store.layers()), 3)

    def test_stopped_in_the_middle_of_a_pass(self):
        """Others lose patience."""
        first = self.begin('plain', '--index=none')
        first.send_signal(signal.SIGSTOP)
        try:
            directories = self.mount_many('plain', '--index=none', '--timeout=3', count=2)
            self.read_all(directories)
        finally:
            first.send_signal(signal.SIGCONT)
            first.kill()
            first.wait()
        self.assertIn('came no farther', (directories[0].parent / (directories[0].name + '.log')).read_text() +
                      (directories[1].parent / (directories[1].name + '.log')).read_text())

    def test_killed_and_stopped_with_claims(self):
        """Chunks that a process has claimed and never brings."""
        for sign in (signal.SIGKILL, signal.SIGSTOP):
            with self.subTest(sign.name):
                shutil.rmtree(self.bed.store.path, ignore_errors=True)
                self.proxy.clear()
                first = self.bed.mount(self.reference('lazy'), '--plain-http')
                others = [self.bed.mount(self.reference('lazy'), '--plain-http', '--timeout=4') for _ in range(2)]
                rule = self.proxy.rule(slow(1000, 1), path='/blobs/', times=4)
                reader = self.bed.start('cat', first.path / 'a', stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                wait_until(lambda: rule.hits >= 1, 'the first one fetches')
                os.kill(first.pid, sign)
                try:
                    self.proxy.clear()
                    self.read_all([m.path for m in others])
                finally:
                    run('umount', '-l', first.path)
                    if sign == signal.SIGSTOP:
                        os.kill(first.pid, signal.SIGCONT)
                reader.wait(60)
                for m in others:
                    m.umount()


class LimitTest(SharingCase):
    """The store stays within its limit, and what is read is right."""
    LIMIT = 20 << 20
    SLACK = 8 << 20

    @classmethod
    def set_up_shared(cls):
        super().set_up_shared()
        cls.files = {'f%d' % k: images.noise(k + 10, 5 << 20) for k in range(20)}
        cls.sums = {name: hashlib.sha256(data).hexdigest() for name, data in cls.files.items()}
        layers = [images.Layer.of(images.tar(*[images.entry('f%d' % k, cls.files['f%d' % k]) for k in range(n, n + 10)]), 'plain')
                  for n in (0, 10)]
        cls.registry.push(cls.layout, cls.layout.add_image('large', layers), 'share:large')

    def used(self):
        return int(run('du', '-s', '--block-size=1', self.bed.store.path).split()[0])

    def check(self, count, limit, *options, rounds=2):
        directories = self.mount_many('large', *options, count=count)
        most = 0
        for _ in range(rounds):
            with concurrent.futures.ThreadPoolExecutor(count) as pool:
                readers = [pool.submit(digests, d, self.files) for d in directories]
                while not all(r.done() for r in readers):
                    most = max(most, self.used())
                    concurrent.futures.wait(readers, 0.05)
            for reader in readers:
                self.assertEqual(reader.result(), self.sums)
            for directory in directories:
                for name in self.files:
                    forget_pages(directory / name)
        self.assertLess(most, limit + count * (self.SLACK + (2 << 20)) + (4 << 20))
        wait_until(lambda: self.used() <= limit + (1 << 20), 'the store shrinks to its limit', 30)
        return directories

    def test_one_process(self):
        self.check(1, self.LIMIT, '--cache-size=20M')

    def test_two_processes(self):
        """Each takes chunks away that the other one reads."""
        self.check(2, self.LIMIT, '--cache-size=20M')

    def test_two_processes_keep_what_both_use(self):
        """Both have the layers open, and the store is full of what neither uses any more. That makes room, also for what one
        of them reads once; what both read again and again stays, whoever has brought it."""
        limit, size, rounds = 60 << 20, 5 << 20, 8
        names = list(self.files)
        cold, hot = names[:12], names[14:]
        directories = self.mount_many('large', '--cache-size=60M', count=2)
        for directory in directories:
            digests(directory, cold)
            for name in cold:
                forget_pages(directory / name)
        self.proxy.clear()
        most, fetched = 0, []
        for k in range(rounds):
            orders = hot[k % 3:] + cold[k:k + 1] + hot[:k % 3], hot[::-1]
            with concurrent.futures.ThreadPoolExecutor(2) as pool:
                readers = [pool.submit(digests, *work) for work in zip(directories, orders)]
                while not all(r.done() for r in readers):
                    most = max(most, self.used())
                    concurrent.futures.wait(readers, 0.05)
            for reader, order in zip(readers, orders):
                self.assertEqual(reader.result(), {name: self.sums[name] for name in order})
                for directory in directories:
                    for name in order:
                        forget_pages(directory / name)
            fetched.append(self.proxy.bytes('/blobs/'))
        self.assertLess(most, limit + 2 * (self.SLACK + (2 << 20)) + (4 << 20))
        again = fetched[-1] - fetched[rounds // 2 - 1]
        nothing_kept = rounds // 2 * (2 * len(hot) + 1) * size
        self.assertLess(again, 0.3 * nothing_kept, fetched)

    def test_nothing_is_kept(self):
        self.check(1, 0, '--cache-size=0', rounds=1)

    def test_an_older_image_makes_room(self):
        small = self.bed.mount(self.reference('lazy'), '--plain-http')
        self.assertEqual(digests(small.path, ['a']), {'a': hashlib.sha256(images.noise(1, 9 << 20)).hexdigest()})
        content = lambda: sum(p.stat().st_blocks for p in self.bed.store.path.glob('layers/*/*/estargz*/content'))
        self.assertGreater(content() * 512, 9 << 20)
        reader = open(small.path / 'b', 'rb')
        directory, = self.check(1, self.LIMIT, '--cache-size=20M', rounds=1)
        # It is open all the while: nobody else has touched it.
        self.assertGreater(content() * 512, 9 << 20)
        reader.close()
        small.umount()
        self.assertEqual(self.bed.regfs('umount', directory).code, 0)
        self.check(1, self.LIMIT, '--cache-size=20M', rounds=1)
        self.assertEqual(content(), 0)
        again = self.bed.mount(self.reference('lazy'), '--plain-http')
        self.assertEqual(digests(again.path, ['a']), {'a': hashlib.sha256(images.noise(1, 9 << 20)).hexdigest()})

    def test_bad_sizes(self):
        for value in ('', 'x', '1X', '-1', '99999999999G'):
            result = self.bed.regfs('mount', '--cache-size=' + value, self.reference('large'), self.bed.mkdir())
            self.assertEqual(result.code, 2, value)
            self.assertIn('--cache-size', result.err)


class OddFilesystemTest(SharingCase):
    """Stores where locks or holes are not to be had."""

    def check(self, store, words):
        mounts = [self.bed.mount(self.reference(tag), '--plain-http', '--cache-dir', store, '--log-level=info')
                  for tag in ('plain', 'lazy', 'plain')]
        self.read_all([m.path for m in mounts])
        for m in mounts:
            self.assertIn(words, m.log())
            for name in self.files:
                forget_pages(m.path / name)
        self.read_all([m.path for m in mounts])
        for m in mounts:
            m.umount()

    @unittest.skipUnless(shutil.which('bindfs'), 'no bindfs here')
    def test_fuse(self):
        below, store = self.bed.mkdir('below'), self.bed.mkdir('store')
        below.chmod(0o700)
        process = self.bed.start('bindfs', '-f', below, store)
        wait_until(lambda: self.bed.is_mounted(store), 'bindfs is there')
        try:
            self.check(store, 'and is used without locks')
            self.proxy.clear()
            mount = self.bed.mount(self.reference('lazy'), '--plain-http', '--cache-dir', store)
            self.read_all([mount.path])
            self.assertLess(self.proxy.bytes('/blobs/'), 1000)
            mount.umount()
        finally:
            run('umount', store)
            process.wait(10)

    def test_vfat(self):
        store, disk = self.bed.mkdir('store'), self.bed.dir / 'disk'
        with open(disk, 'wb') as f:
            f.truncate(200 << 20)
        if not shutil.which('mkfs.vfat') or not os.path.exists('/dev/loop-control'):
            self.skipTest('no vfat on a loop device here')
        run('mkfs.vfat', disk)
        done = subprocess.run(['mount', '-o', 'loop,umask=077', disk, store], stderr=subprocess.PIPE)
        if done.returncode != 0:
            self.skipTest('no vfat on a loop device here: %s' % done.stderr.decode())
        try:
            self.check(store, 'vfat has no holes')
        finally:
            run('umount', store)


if __name__ == '__main__':
    unittest.main()
