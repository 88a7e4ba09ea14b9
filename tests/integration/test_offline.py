# SPDX-License-Identifier: Apache-2.0
"""Without the registry: stores that others have filled, --offline, and a registry that dies under a mount and comes back."""
import contextlib
import os
import re
import shutil
import socket
import subprocess
import threading
import time
import unittest
from errno import EIO

import images
from fault_proxy import FaultProxy
from oracle import Oracle
from registry import Registry
from testbed import DENIED, NOT_FOUND, USAGE, TestCase, forget_pages, run, wait_until

MIB = 1 << 20
STARGZ = 'containerd.io/snapshot/stargz/toc.digest'
STARGZ_TOC = 'sha256:85f895913a2ad54941a9aa7b70ad4e6e99dc4388ee880e2436029a9fb1ce59cb'
OTHER_USER = 1234
WRONG = r'Z (warning|error) '


def give_away(path, uid=OTHER_USER):
    """The store at PATH becomes another user's, whom everybody may read."""
    for directory, _, names in os.walk(path):
        os.chown(directory, uid, uid)
        os.chmod(directory, 0o755)
        for name in names:
            os.chown(os.path.join(directory, name), uid, uid)
            os.chmod(os.path.join(directory, name), 0o644)


def state_of(path):
    """What a write would change."""
    found = {}
    for directory, _, names in os.walk(path):
        for name in [directory] + [os.path.join(directory, n) for n in names]:
            st = os.lstat(name)
            found[name] = (st.st_ino, st.st_size, st.st_mtime_ns, st.st_ctime_ns, st.st_mode, st.st_uid, st.st_blocks)
    return found


class OfflineCase(TestCase):
    """An image of three layers, one of them an eStargz, and one of chunks that are far apart, in a registry behind a proxy that
    counts."""

    @classmethod
    def set_up_shared(cls):
        cls.layout = images.Layout(cls.shared.dir / 'layout')
        tars = images.fixture_tars()
        layers = [images.Layer.of_fixture('base.esgz', '+gzip', tars['base'])]
        layers += [images.Layer.of(tars[name]) for name in ('upper', 'twice')]

        def annotate(manifest):
            manifest['layers'][0]['annotations'] = {STARGZ: STARGZ_TOC}
        # The oracle sees the plain image: an eStargz has files of its own in the tar.
        cls.layout.add_image('plain', images.fixture_layers('gzip'))
        cls.image = cls.layout.add_image('v1', layers, change=annotate)
        cls.oracle = Oracle(cls.layout.path, 'plain', cls.shared.dir / 'unpacked', tars.values())
        cls.contents = {'file%d' % n: images.noise(n, 5 * MIB) for n in range(4)}
        content = images.tar(*[images.entry(name, data) for name, data in cls.contents.items()])
        cls.big = cls.layout.add_image('big', [images.Layer.of(content)])
        cls.big_layer = cls.layout.json(cls.big)['layers'][0]['digest']
        cls.registry = Registry(cls.shared)
        for tag in ('v1', 'plain', 'big'):
            cls.registry.push_layout(cls.layout, tag, 'lazy:' + tag)

    def setUp(self):
        super().setUp()
        self.proxy = FaultProxy(self.bed, self.registry.port)

    def reference(self, tag='v1'):
        return '%s/lazy:%s' % (self.proxy.host, tag)

    def mount(self, *options, tag='v1', **more):
        return self.bed.mount(self.reference(tag), '--plain-http', *options, **more)

    def pull(self, *options, tag='v1'):
        result = self.bed.regfs('pull', '--plain-http', '--log-level=error', *options, self.reference(tag))
        self.assertEqual((result.code, result.err), (0, ''))

    def compare(self, mount):
        lines = self.oracle.differences(mount.path)
        known = "'srv/nanoseconds': mtime is 1700000000000000000, not 1700000000123456789"  # stargz writes whole seconds
        self.assertEqual([l for l in lines if l != known], [])

    def check_big(self, mount):
        for name, data in self.contents.items():
            self.assertTrue(mount.read(name) == data, name)

    def silent(self, mount):
        self.assertNotRegex(mount.log(), WRONG)

    def move_store(self, name='lower'):
        """The bed's store becomes a finished one at another place."""
        path = self.bed.fresh(name)
        shutil.move(self.bed.store.path, path)
        return path


class OtherStoreTest(OfflineCase):
    """--store"""

    def test_everything_comes_from_the_other_store(self):
        self.pull()
        lower = self.move_store()
        before = state_of(lower)
        self.proxy.clear()
        mount = self.mount('--store', lower)
        self.assertEqual([(r.method, r.path) for r in self.proxy.requests()], [('HEAD', '/v2/lazy/manifests/v1')])
        self.compare(mount)
        self.assertEqual(len(self.proxy.requests()), 1)
        self.silent(mount)
        mount.umount()
        self.assertEqual(state_of(lower), before)

    def test_what_it_lacks_goes_to_the_own_store(self):
        self.mount(tag='big').umount()
        self.bed.store.forget_content()
        lower = self.move_store()
        before = state_of(lower)
        mount = self.mount('--store', lower, tag='big')
        self.check_big(mount)
        mount.umount()
        self.assertEqual(state_of(lower), before)
        self.proxy.clear()
        mount = self.mount('--store=%s' % lower, '--offline', tag='big')
        self.check_big(mount)
        self.assertEqual(self.proxy.requests(), [])

    def test_two_stores_as_mount_options(self):
        self.pull()
        first = self.move_store('first')
        self.pull(tag='big')
        second = self.move_store('second')
        self.proxy.close()
        for tag in ('v1', 'big'):
            mount = self.mount('-o', 'offline,store=%s,store=%s' % (first, second), tag=tag)
            self.compare(mount) if tag == 'v1' else self.check_big(mount)
            self.silent(mount)

    def test_read_only_media_and_no_store_of_ones_own(self):
        self.pull()
        self.pull(tag='big')
        lower, media = self.move_store(), self.bed.mkdir('media')
        run('mount', '--bind', lower, media)
        run('mount', '-o', 'remount,bind,ro', media)
        self.proxy.close()
        for own in ([], ['--cache-dir', media / 'below']):
            for tag in ('v1', 'big'):
                mount = self.mount('--offline', '--store', media, *own, tag=tag)
                self.compare(mount) if tag == 'v1' else self.check_big(mount)
                self.silent(mount)
                mount.umount()

    def test_squashfs(self):
        self.pull()
        lower, media, image = self.move_store(), self.bed.mkdir('media'), self.bed.fresh('store.squashfs')
        run('mksquashfs', lower, image, '-quiet', '-no-progress')
        run('squashfuse', image, media)
        self.proxy.close()
        mount = self.mount('--offline', '--store', media)
        self.compare(mount)
        self.silent(mount)
        mount.umount()

    def test_a_read_only_store_that_lacks_everything(self):
        """What a read-only store cannot take is made for the one process."""
        frozen = self.bed.mkdir('frozen')
        run('mount', '--bind', frozen, frozen)
        run('mount', '-o', 'remount,bind,ro', frozen)
        mount = self.mount('--cache-dir', frozen)
        self.compare(mount)
        self.silent(mount)
        mount.umount()
        self.assertEqual(os.listdir(frozen), [])

    def test_another_users_store(self):
        """Its tables are checked, and nothing of what they say is there for mounts that did not name it."""
        self.mount(tag='big').umount()
        self.bed.store.forget_content()
        self.pull()
        lower = self.move_store()
        give_away(lower)
        before = state_of(lower)
        self.proxy.clear()
        for tag in ('v1', 'big'):
            mount = self.mount('--store', lower, tag=tag)
            self.compare(mount) if tag == 'v1' else self.check_big(mount)
            self.silent(mount)
            mount.umount()
        self.assertEqual(state_of(lower), before)
        self.assertEqual(self.bed.store.images(), [])
        self.assertTrue(all(p.name.endswith('.by-%d' % OTHER_USER) for p in self.bed.store.layers()), self.bed.store.layers())
        self.bed.mount_fails(NOT_FOUND, self.reference(), '--plain-http', '--offline', words=['offline'])

    def test_another_users_damaged_tables(self):
        """A table that lies about its rows is not used, whatever checksum it has."""
        self.mount(tag='big').umount()
        lower = self.move_store()
        give_away(lower)
        toc = next(lower.glob('layers/sha256/*/plain/toc'))
        good = toc.read_bytes()
        for at in range(64, len(good) - 8, max(len(good) // 12, 8)):
            toc.write_bytes(good[:at] + b'\xff\xff\xff\xff' + good[at + 4:])
            mount = self.mount('--store', lower, tag='big')
            self.check_big(mount)
            mount.umount()
            shutil.rmtree(self.bed.store.path)

    def test_a_plain_user_and_roots_store(self):
        self.pull()
        lower = self.move_store()
        give_away(lower, 0)
        home = self.bed.mkdir('home-of-nobody')
        os.chown(home, 65534, 65534)
        for path in (self.bed.dir / 'tmp', self.bed.dir / 'run'):
            path.chmod(0o777)
        result = self.bed.regfs('inspect', '--offline', '--json', '--cache-dir', home / 'store', '--store', lower, self.reference(),
                                prefix=['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'])
        self.assertEqual((result.code, result.err), (0, ''))
        self.assertEqual(result.out.count('"known": true'), 3)

    def test_stores_that_are_refused(self):
        self.pull()
        lower = self.move_store()
        self.bed.mount_fails(NOT_FOUND, self.reference(), '--plain-http', '--store', lower / 'none', words=[str(lower / 'none')])
        self.bed.mount_fails(NOT_FOUND, self.reference(), '--plain-http', '--store', self.bed.home, words=[str(self.bed.home)])
        lower.chmod(0o777)
        self.bed.mount_fails(DENIED, self.reference(), '--plain-http', '--store', lower, words=[str(lower), 'writable'])
        self.bed.mount_fails(USAGE, self.reference(), '--store=', words=['--store'])

    def test_a_damaged_chunk_of_the_other_store_is_fetched(self):
        self.pull(tag='big')
        lower = self.move_store()
        content = next(lower.glob('layers/sha256/*/plain/content'))
        data = bytearray(content.read_bytes())
        data[7 * MIB] ^= 1
        content.write_bytes(data)
        before = state_of(lower)
        self.proxy.clear()
        mount = self.mount('--store', lower, tag='big')
        self.check_big(mount)
        self.assertEqual(len(self.proxy.requests(self.big_layer)), 1)
        self.assertIn('wrong checksum', mount.log())
        self.assertEqual(state_of(lower), before)


class OfflineTest(OfflineCase):
    """--offline"""

    def test_what_is_known_needs_no_registry(self):
        self.pull()
        self.proxy.clear()
        for tag in ('v1', 'v1@' + self.image['digest']):
            mount = self.mount('--offline', tag=tag)
            self.compare(mount)
            self.silent(mount)
            mount.umount()
        self.assertEqual(self.proxy.requests(), [])
        self.proxy.close()
        mount = self.mount('--offline')
        self.compare(mount)
        self.assertRegex(mount.log(), r'%s, as of \d+ \w+ ago' % self.image['digest'])

    def test_inspect(self):
        self.pull()
        asked = [self.bed.regfs('inspect', '--plain-http', '--json', self.reference(), *more).out for more in ([], ['--offline'])]
        self.assertIn('estargz-', asked[0])
        self.assertEqual(asked[0], asked[1])

    def fails(self, *words, tag='v1', **more):
        self.proxy.clear()
        result = self.bed.mount_fails(NOT_FOUND, self.reference(tag), '--plain-http', '--offline', words=['offline', *words],
                                      keeps_layers=True, **more)
        self.assertEqual(self.proxy.requests(), [])
        return result

    def test_what_is_missing_is_named(self):
        manifest = self.layout.json(self.image)
        self.fails(self.reference(), 'tag')
        self.fails('manifest ' + self.image['digest'], tag='v1@' + self.image['digest'])
        self.mount().umount()
        blobs = self.bed.store.path / 'blobs/sha256'
        for digest, word in ((self.image['digest'], 'manifest'), (manifest['config']['digest'], 'config')):
            hidden = blobs / digest.partition(':')[2]
            hidden.rename(self.bed.dir / 'hidden')
            self.fails(word, digest)
            (self.bed.dir / 'hidden').rename(hidden)
        for k, layer in enumerate(manifest['layers']):
            kind = next((self.bed.store.path / 'layers/sha256' / layer['digest'].partition(':')[2]).glob('*'))
            hidden = self.bed.dir / 'hidden'
            kind.rename(hidden)
            self.fails('layer %d of 3' % (k + 1), layer['digest'], kind.name)
            hidden.rename(kind)
        self.assertEqual(self.mount('--offline').digest, self.image['digest'])

    def test_bytes_that_are_missing_are_named(self):
        """At once, each by itself, and what is there is readable all around them."""
        self.mount(tag='big').umount()
        content = next(self.bed.store.path.glob('layers/sha256/*/plain/map'))
        with open(content, 'r+b') as f:
            f.seek(64 + 8 * 3)
            f.write(bytes(8))
        self.proxy.clear()
        mount = self.mount('--offline', tag='big')
        failed, begin = [], time.monotonic()
        for name, data in self.contents.items():
            for at in range(0, len(data), MIB // 8):
                with open(mount.path / name, 'rb', buffering=0) as f:
                    os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
                    f.seek(at)
                    try:
                        self.assertEqual(f.read(4096), data[at:at + 4096])
                    except OSError as e:
                        self.assertEqual(e.errno, EIO)
                        failed.append((name, at))
        self.assertLess(time.monotonic() - begin, 10)
        # Chunk 3 has about 2 MiB.
        self.assertIn(len(failed), range(14, 20))
        missing = set(re.findall(r'(sha256:\w+) of \S+: offline: bytes (\d+)-(\d+) are not in the store', mount.log()))
        self.assertEqual(len(missing), 1)
        digest, first, last = missing.pop()
        self.assertEqual(digest, self.big_layer)
        self.assertTrue(MIB < int(last) - int(first) < 3 * MIB, (first, last))
        self.assertEqual(self.proxy.requests(), [])

    def test_an_image_that_was_read_whole_because_its_table_was_wrong(self):
        def annotate(manifest):
            manifest['layers'][0]['annotations'] = {STARGZ: 'sha256:' + '0' * 64}
        tars = images.fixture_tars()
        self.layout.add_image('wrong', [images.Layer.of_fixture('base.esgz', '+gzip', tars['base'])], change=annotate)
        self.registry.push_layout(self.layout, 'wrong', 'lazy:wrong')
        self.pull(tag='wrong')
        self.proxy.close()
        mount = self.mount('--offline', tag='wrong')
        self.assertEqual(mount.read('etc/shadow'), b'root:*:19000::::::\n')

    def test_an_image_that_was_read_by_a_published_index(self):
        reference = '%s/published:v1' % self.proxy.host
        self.registry.push_layout(self.layout, 'big', 'published:v1')
        result = self.bed.regfs('index', '--push', '--plain-http', reference)
        self.assertEqual(result.code, 0, result)
        shutil.rmtree(self.bed.store.path)
        self.assertEqual(self.bed.regfs('pull', '--plain-http', reference).code, 0)
        self.assertRegex(self.bed.store.layers()[0].name, '^regfs-')
        self.proxy.close()
        mount = self.bed.mount(reference, '--plain-http', '--offline')
        self.check_big(mount)
        self.silent(mount)


class DyingRegistryTest(OfflineCase):
    """docker-registry itself, stopped and started again at its port."""

    def setUp(self):
        super().setUp()
        self.own = Registry(self.bed)
        self.own.push_layout(self.layout, 'big', 'lazy:big')
        self.own_reference = '%s/lazy:big' % self.own.host

    def start_again(self):
        config = self.own.dir / 'config.yml'
        config.write_text(config.read_text().replace('127.0.0.1:0', '127.0.0.1:%d' % self.own.port))
        self.bed.start('docker-registry', 'serve', config, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        def listens():
            with contextlib.suppress(OSError):
                socket.create_connection(('127.0.0.1', self.own.port), 1).close()
                return True
        wait_until(listens, 'docker-registry listens again')

    def test_it_dies_and_comes_back(self):
        mount = self.bed.mount(self.own_reference, '--plain-http', '--timeout=3')
        self.bed.store.forget_content()
        for name in self.contents:
            forget_pages(mount.path / name)
        self.assertTrue(mount.read('file0') == self.contents['file0'])
        self.own.stop()
        forget_pages(mount.path / 'file0')
        self.assertTrue(mount.read('file0')[:4 * MIB] == self.contents['file0'][:4 * MIB])
        self.assertEqual(sorted(os.listdir(mount.path)), sorted(self.contents))

        begin = time.monotonic()
        with self.assertRaises(OSError) as caught:
            mount.read('file3')
        self.assertEqual(caught.exception.errno, EIO)
        self.assertGreater(time.monotonic() - begin, 1)
        self.assertLess(time.monotonic() - begin, 20)
        self.assertIn('refused', mount.log())

        self.start_again()
        self.check_big(mount)

    def test_reads_wait_for_it(self):
        mount = self.bed.mount(self.own_reference, '--plain-http', '--timeout=60')
        self.bed.store.forget_content()
        for name in self.contents:
            forget_pages(mount.path / name)
        self.own.stop()
        got = []
        reader = threading.Thread(target=lambda: got.append(mount.read('file2')))
        reader.start()
        wait_until(lambda: 'refused' in mount.log(), 'the read has been in vain for once')
        self.assertEqual(got, [])
        self.start_again()
        reader.join(60)
        self.assertTrue(got == [self.contents['file2']])


if __name__ == '__main__':
    unittest.main()
