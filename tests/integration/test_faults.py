# SPDX-License-Identifier: Apache-2.0
"""What networks and servers do, while a layer is indexed and while chunks are read: errors only after patience, never a short
read, never a wrong byte."""
import os
import re
import signal
import subprocess
import threading
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from errno import EIO

import images
from fault_proxy import BlobHost, FaultProxy, cut, delay, flip, hang, ignore_range, slow, status, wrong_content_range
from registry import Registry
from testbed import BAD_DATA, NOT_FOUND, UNREACHABLE, TestCase, forget_pages, regfs_binary, run, wait_until

MIB = 1 << 20


class FaultCase(TestCase):
    """An image of one gzip layer whose files lie in chunks of their own: each is larger than a chunk and does not compress."""
    COMPRESSION = 'gzip'

    @classmethod
    def set_up_shared(cls):
        cls.registry = Registry(cls.shared)
        cls.layout = images.Layout(cls.shared.dir / 'layout')
        cls.contents = {'file%d' % n: images.noise(n, 5 * MIB) for n in range(4)}
        content = images.tar(*[images.entry(name, data) for name, data in cls.contents.items()])
        cls.image = cls.layout.add_image('v1', [images.Layer.of(content, cls.COMPRESSION)])
        cls.registry.push_layout(cls.layout, 'v1', 'big:v1')
        manifest = cls.layout.json(cls.image)
        cls.layer, cls.size = manifest['layers'][0]['digest'], manifest['layers'][0]['size']

    def setUp(self):
        super().setUp()
        self.proxy = FaultProxy(self.bed, self.registry.port)
        self.reference = '%s/big:v1' % self.proxy.host

    def rule(self, action, **more):
        """A rule about the layer's blob."""
        return self.proxy.rule(action, path='/blobs/' + self.layer, **more)

    def mount(self, *options):
        return self.bed.mount(self.reference, '--plain-http', *options)

    def mount_empty(self, *options):
        """A mount whose content has all to be fetched."""
        mount = self.mount(*options)
        self.forget(mount)
        self.proxy.clear()
        return mount

    def forget(self, mount):
        self.bed.store.forget_content()
        for name in self.contents:
            forget_pages(mount.path / name)

    def check_all(self, mount):
        for name, data in self.contents.items():
            self.assertTrue(mount.read(name) == data, name)

    def errno_of(self, mount, name):
        """The error of a read, which must not be a short one."""
        with self.assertRaises(OSError) as caught:
            data = mount.read(name)
            self.fail('read %d bytes, right ones: %s' % (len(data), data == self.contents[name]))
        # No error may have cut the file.
        self.assertEqual(os.stat(mount.path / name).st_size, len(self.contents[name]))
        return caught.exception.errno


class IndexingTest(FaultCase):
    """Faults while the layer is received for the first time."""

    def works(self, *options):
        mount = self.mount(*options)
        self.check_all(mount)
        return mount

    def test_no_byte_travels_twice(self):
        self.works()
        self.assertEqual(self.proxy.bytes(self.layer), self.size)

    def test_server_errors(self):
        for code in (500, 502, 503, 504, 408, 429):
            with self.subTest(code):
                rule = self.rule(status(code), times=2)
                self.works().umount()
                self.assertEqual(rule.hits, 2)
                self.bed.store.path.rename(self.bed.fresh('old-store'))

    def test_server_errors_at_every_step(self):
        seen = set()

        def is_new(x):
            new = x.path not in seen
            seen.add(x.path)
            return new

        rule = self.proxy.rule(status(503), when=is_new)
        self.works()
        self.assertEqual(rule.hits, 5)  # manifest, config, referrers, the tag that stands for them, layer

    def test_retry_after(self):
        self.rule(status(429, {'Retry-After': '2'}), times=1)
        self.works()
        refused = next(r for r in self.proxy.requests(self.layer) if r.status == 429)
        again = [r for r in self.proxy.requests(self.layer) if r.range == refused.range and r is not refused]
        self.assertEqual(len(again), 1)
        self.assertGreaterEqual(again[0].time - refused.time, 1.99)  # whose clock is not regfs's

    def test_retry_after_past_the_patience(self):
        self.rule(status(429, {'Retry-After': '3600'}))
        result = self.bed.mount_fails(UNREACHABLE, self.reference, '--plain-http', '--timeout=4', words=[self.layer, '429'])
        self.assertLess(result.seconds, 4)

    def test_connections_that_break(self):
        """What came stays: the rest is asked for, and nothing twice."""
        rule = self.rule(cut(MIB), times=3)
        self.works()
        self.assertEqual(rule.hits, 3)
        self.assertEqual(self.proxy.bytes(self.layer), self.size)

    def test_connections_that_always_break(self):
        self.rule(cut(1000))
        self.bed.mount_fails(UNREACHABLE, self.reference, '--plain-http', '--timeout=2', words=[self.layer, 'connection broken'])

    def test_progress_renews_the_patience(self):
        """Slow is not dead: the whole takes longer than the timeout, no pause does."""
        self.rule(slow(MIB, 0.8))
        begin = time.monotonic()
        self.works('--timeout=2')
        self.assertGreater(time.monotonic() - begin, 3)

    def test_a_server_that_stops_in_the_middle(self):
        self.rule(slow(MIB, 100))
        result = self.bed.mount_fails(UNREACHABLE, self.reference, '--plain-http', '--timeout=3', words=[self.layer])
        self.assertLess(result.seconds, 15)

    def test_a_server_that_hangs(self):
        self.rule(hang())
        result = self.bed.mount_fails(UNREACHABLE, self.reference, '--plain-http', '--timeout=3', words=[self.layer])
        self.assertLess(result.seconds, 10)

    def test_wrong_bytes(self):
        self.rule(flip(0.5))
        self.bed.mount_fails(BAD_DATA, self.reference, '--plain-http', '--timeout=5', words=[self.layer])

    def test_a_body_that_is_short(self):
        """Complete as HTTP goes, but not the blob."""
        def short(x):
            answer = x.forward()
            x.send_answer(answer._replace(body=answer.body[:-1000]))
        self.rule(short)
        self.bed.mount_fails(BAD_DATA, self.reference, '--plain-http', '--timeout=3', words=[self.layer])

    def test_a_body_that_is_long(self):
        def long(x):
            answer = x.forward()
            x.send_answer(answer._replace(body=answer.body + bytes(1000)))
        self.rule(long)
        self.bed.mount_fails(BAD_DATA, self.reference, '--plain-http', '--timeout=3', words=[self.layer])

    def test_an_interrupted_mount(self):
        """Ctrl-C while a layer is indexed: the command ends, and nothing stays."""
        self.rule(slow(100000, 0.2))
        directory = self.bed.mkdir()
        process = self.bed.start(regfs_binary(), 'mount', '--plain-http', self.reference, directory, stderr=subprocess.PIPE)
        wait_until(lambda: self.bed.store.drafts(), 'indexing begins')
        process.send_signal(signal.SIGINT)
        self.assertNotEqual(process.wait(20), 0)
        self.assertRegex(process.stderr.read(), b'regfs: .*interrupted')
        wait_until(lambda: not self.bed.daemons(), 'the child ends')
        self.assertFalse(self.bed.is_mounted(directory))
        self.assertEqual((self.bed.store.drafts(), self.bed.store.layers()), ([], []))


class ReadingTest(FaultCase):
    """Faults while chunks are fetched for readers."""

    def works(self, *options, action=None, **rule):
        mount = self.mount_empty(*options)
        made = self.rule(action, **rule) if action else None
        self.check_all(mount)
        return mount, made

    def fails_then_works(self, action, *options, patience=2, words=(), seconds=30):
        """EIO for what the fault hits, and right bytes when it is over."""
        mount = self.mount_empty('--timeout=%d' % patience, *options)
        self.rule(action)
        begin = time.monotonic()
        self.assertEqual(self.errno_of(mount, 'file1'), EIO)
        took = time.monotonic() - begin
        self.assertLess(took, seconds)
        errors = [l for l in mount.log().splitlines() if re.search(r'Z error ', l)]
        self.assertTrue(errors)
        for word in (self.layer, *words):
            self.assertTrue(any(word in l for l in errors), '%r is in none of\n%s' % (word, '\n'.join(errors)))
        self.assertTrue(any(re.search(r'bytes \d+-\d+', l) for l in errors), errors)
        self.proxy.clear()
        self.check_all(mount)
        return took

    def test_chunks_are_fetched_once(self):
        mount, _ = self.works()
        self.check_all(mount)
        ranges = sorted(r.range or (0, self.size - 1) for r in self.proxy.requests(self.layer))
        for (_, last), (first, _) in zip(ranges, ranges[1:]):
            self.assertLessEqual(last - first, 64 * 1024, ranges)  # neighbours share the byte of their boundary, no more
        self.assertLess(self.proxy.bytes(self.layer), self.size + MIB)

    def test_reading_one_file_does_not_fetch_the_others(self):
        mount = self.mount_empty()
        with open(mount.path / 'file0', 'rb') as f:
            self.assertEqual(f.read(10), self.contents['file0'][:10])
        self.assertLess(self.proxy.bytes(self.layer), self.size // 2)

    def test_many_readers_of_one_file_share_flights(self):
        mount = self.mount_empty()
        self.rule(delay(0.3))
        start = threading.Barrier(32)

        def read(_):
            start.wait()
            return mount.read('file2') == self.contents['file2']

        with ThreadPoolExecutor(32) as pool:
            self.assertEqual(set(pool.map(read, range(32))), {True})
        self.assertLess(self.proxy.bytes(self.layer), 12 * MIB)

    def test_server_errors(self):
        for code in (500, 502, 503, 504, 408, 429):
            with self.subTest(code):
                mount, rule = self.works(action=status(code), times=2)
                self.assertEqual(rule.hits, 2)
                mount.umount()

    def test_connections_that_break(self):
        mount, rule = self.works(action=cut(MIB), times=4)
        self.assertEqual(rule.hits, 4)
        self.assertLess(self.proxy.bytes(self.layer), self.size + 3 * MIB)

    def test_a_server_that_ignores_ranges(self):
        """200 instead of 206: the blob is received once, and every range comes out of that."""
        mount, _ = self.works(action=ignore_range)
        self.assertLess(self.proxy.bytes(self.layer), 2 * self.size)
        self.forget(mount)
        self.check_all(mount)
        self.assertLess(self.proxy.bytes(self.layer), 2 * self.size)

    def test_slow_answers(self):
        self.works('--timeout=2', action=slow(512 * 1024, 0.3), times=3)

    def test_wrong_bytes_once(self):
        mount, rule = self.works(action=flip(0.5), times=1)
        self.assertEqual(rule.hits, 1)
        self.assertRegex(mount.log(), r' warning .*%s.*fetched once more' % self.layer)

    def test_wrong_bytes_always_are_eio_for_that_file_only(self):
        mount = self.mount_empty()
        # Where in the blob file1 lies: noise does not compress, so about where it lies in the tar.
        middle = int(self.size * 1.5 / 4)

        def spoil(x):
            answer = x.forward()
            first = x.range[0] if x.range else 0
            body = bytearray(answer.body)
            if first <= middle < first + len(body):
                body[middle - first] ^= 0x55
            x.send_answer(answer._replace(body=bytes(body)))
        self.rule(spoil)
        self.assertEqual(self.errno_of(mount, 'file1'), EIO)
        for name in ('file0', 'file2', 'file3'):
            self.assertTrue(mount.read(name) == self.contents[name], name)
        errors = [l for l in mount.log().splitlines() if ' error ' in l]
        self.assertTrue(any(self.layer in l and re.search(r'bytes \d+-\d+', l) and 'digest' in l for l in errors), errors)
        # What was read of the bad chunk is nowhere: the next reader gets the right bytes.
        self.proxy.clear()
        self.check_all(mount)

    def test_wrong_content_range(self):
        self.fails_then_works(wrong_content_range, words=['another range'])

    def test_wrong_content_range_once(self):
        mount, rule = self.works(action=wrong_content_range, times=1)
        self.assertEqual(rule.hits, 1)
        self.assertNotRegex(mount.log(), r'Z error ')

    def test_416(self):
        self.fails_then_works(status(416), words=['416'])

    def test_404(self):
        self.fails_then_works(status(404), words=['404'])

    def test_403(self):
        self.fails_then_works(status(403, {}, b'{"errors": [{"code": "DENIED", "message": "go away"}]}'), words=['403', 'go away'])

    def test_503_for_ever(self):
        took = self.fails_then_works(status(503), words=['503'])
        self.assertGreater(took, 1)
        self.assertGreater(len(self.proxy.requests()), 0)

    def test_connections_that_always_break(self):
        self.fails_then_works(cut(100), words=['connection broken'])

    def test_hang(self):
        took = self.fails_then_works(hang())
        self.assertGreaterEqual(took, 2)

    def test_registry_that_is_gone_and_comes_back(self):
        mount = self.mount_empty('--timeout=2')
        self.proxy.close()
        self.assertEqual(self.errno_of(mount, 'file1'), EIO)
        FaultProxy(self.bed, self.registry.port, port=self.proxy.port)
        self.check_all(mount)

    def test_retry_after(self):
        _, rule = self.works(action=status(429, {'Retry-After': '1'}), times=1)
        self.assertEqual(rule.hits, 1)

    def test_patience(self):
        """A server that is down for a while costs time, no error: scanners stop at the first EIO."""
        mount = self.mount_empty('--timeout=20')
        rule = self.rule(status(503))
        threading.Timer(3, lambda: setattr(rule, 'left', 0)).start()
        self.assertTrue(mount.read('file3') == self.contents['file3'])
        self.assertGreater(rule.hits, 2)

    def test_never_short(self):
        """A reader in small pieces through breaking connections gets every byte or EIO, nothing else."""
        mount = self.mount_empty('--timeout=1')
        switch = [0]

        def sometimes(x):
            switch[0] += 1
            (cut(1000) if switch[0] % 2 else lambda x: x.relay())(x)
        self.rule(sometimes)
        fd = os.open(mount.path / 'file0', os.O_RDONLY)
        try:
            offset = 0
            while offset < 5 * MIB:
                try:
                    piece = os.pread(fd, 70000, offset)
                except OSError as e:
                    self.assertEqual(e.errno, EIO)
                    continue
                self.assertEqual(len(piece), min(70000, 5 * MIB - offset))
                self.assertTrue(piece == self.contents['file0'][offset:offset + len(piece)])
                offset += len(piece)
        finally:
            os.close(fd)

    def test_an_interrupted_reader(self):
        """Killing it does not wait for the network, and its flight goes on for others."""
        mount = self.mount_empty()
        release = threading.Event()
        rule = self.rule(hang(until=release))
        reader = subprocess.Popen(['cat', str(mount.path / 'file1')], stdout=subprocess.DEVNULL)
        wait_until(lambda: rule.hits, 'the read has reached the registry')
        begin = time.monotonic()
        reader.terminate()
        reader.wait(10)
        self.assertLess(time.monotonic() - begin, 5)
        release.set()
        self.assertTrue(mount.read('file1') == self.contents['file1'])

    def test_unmount_while_a_read_waits(self):
        mount = self.mount_empty('--timeout=4')
        rule = self.rule(hang())
        results = []

        def read():
            try:
                results.append(len(mount.read('file1')))
            except OSError as e:
                results.append(-e.errno)
        thread = threading.Thread(target=read)
        thread.start()
        wait_until(lambda: rule.hits, 'the read has reached the registry')
        run('umount', '-l', mount.path)
        thread.join(30)
        self.assertEqual(results, [-EIO])
        wait_until(lambda: not self.bed.daemons(), 'the daemon ends')


class ZstdReadingTest(FaultCase):
    """One frame: its chunks are slices of one range, decoded from its start."""
    COMPRESSION = 'zstd'

    def test_reads(self):
        mount = self.mount_empty()
        self.check_all(mount)
        self.assertLess(self.proxy.bytes(self.layer), 1.2 * self.size)

    def test_wrong_bytes_once(self):
        mount = self.mount_empty()
        rule = self.rule(flip(0.9), times=1)
        self.check_all(mount)
        self.assertEqual(rule.hits, 1)
        self.assertRegex(mount.log(), r' warning .*%s' % self.layer)

    def test_wrong_bytes_always(self):
        mount = self.mount_empty()
        self.rule(flip(0.9))
        self.assertEqual(self.errno_of(mount, 'file3'), EIO)
        self.proxy.clear()
        self.check_all(mount)

    def test_connections_that_break(self):
        mount = self.mount_empty()
        self.rule(cut(300000), times=3)
        self.check_all(mount)


class PlainReadingTest(FaultCase):
    COMPRESSION = 'plain'

    def test_reads(self):
        mount = self.mount_empty()
        self.check_all(mount)
        self.assertLess(self.proxy.bytes(self.layer), self.size + MIB)

    def test_wrong_bytes_once(self):
        mount = self.mount_empty()
        self.rule(flip(0.5), times=1)
        self.check_all(mount)
        self.assertRegex(mount.log(), r' warning .*%s.*fetched once more' % self.layer)


class RedirectTest(FaultCase):
    """Blobs come from a second host, as with S3 behind a registry."""

    def setUp(self):
        super().setUp()
        self.blobs = BlobHost(self.bed, self.proxy)

    def mount_empty(self, *options):
        mount = self.mount(*options)
        self.forget(mount)
        self.proxy.records.clear()
        self.blobs.host.records.clear()
        return mount

    def blob_requests(self):
        return self.blobs.host.requests(self.layer)

    def test_blobs_from_another_host(self):
        mount = self.mount_empty()
        self.check_all(mount)
        self.assertGreater(len(self.blob_requests()), 0)
        self.assertEqual(self.proxy.bytes('/blobs/'), 0)

    def test_the_target_is_remembered(self):
        mount = self.mount_empty()
        self.check_all(mount)
        self.assertLessEqual(len(self.proxy.requests(self.layer)), 1)
        self.assertGreater(len(self.blob_requests()), 2)

    def test_no_authorization_for_the_second_host(self):
        private = Registry(self.bed, users={'alice': 'secret'})
        private.push(self.layout, self.image, 'big:v1')
        front = FaultProxy(self.bed, private.port)
        blobs = BlobHost(self.bed, front)
        # The second host serves what the open registry has.
        blobs.host.upstream = self.registry.port
        mount = self.bed.mount('%s/big:v1' % front.host, '--plain-http', '--creds=alice:secret')
        self.forget(mount)
        self.check_all(mount)
        self.assertGreater(len(blobs.host.requests(self.layer)), 1)
        self.assertEqual({r.authorization for r in blobs.host.requests()}, {None})
        self.assertIn('Basic', str({r.authorization for r in front.requests()}))
        self.assertNotRegex(mount.log(), r'signature=\d')  # a presigned URL is a secret too

    def test_urls_that_expire(self):
        for code in (403, 400):
            with self.subTest(code):
                self.blobs.expired_status = code
                mount = self.mount_empty()
                self.assertTrue(mount.read('file0') == self.contents['file0'])
                self.blobs.expire()
                self.check_all(mount)
                self.assertGreaterEqual(len([r for r in self.blob_requests() if r.status == code]), 1)
                mount.umount()

    def test_urls_that_are_always_expired(self):
        self.blobs.host.rule(status(403, {}, b'<Error/>'))
        result = self.bed.mount_fails(4, self.reference, '--plain-http', '--timeout=3', words=['403', self.blobs.host.host])
        self.assertLess(result.seconds, 8)

    def test_redirects_without_end(self):
        self.proxy.rule(lambda x: x.send(302, {'Location': x.path}), path='/blobs/')
        self.bed.mount_fails(UNREACHABLE, self.reference, '--plain-http', '--timeout=3', words=['redirected'])

    def test_redirect_to_what_is_no_http(self):
        for target in ('file:///etc/passwd', 'ftp://localhost/x', 'gopher://localhost/x', 'nonsense://'):
            with self.subTest(target):
                self.proxy.rule(lambda x: x.send(302, {'Location': target}), path='/blobs/')
                result = self.bed.regfs('mount', '--plain-http', '--timeout=3', self.reference, self.bed.mkdir())
                self.assertNotEqual(result.code, 0)
                self.assertIn('redirect', result.err)

    def test_relative_redirect(self):
        self.proxy.clear()
        self.proxy.rule(lambda x: x.send(307, {'Location': '?again'}), path='/blobs/[^?]*$')
        self.check_all(self.mount())

    def test_second_host_that_is_down(self):
        mount = self.mount_empty('--timeout=2')
        self.blobs.host.close()
        self.assertEqual(self.errno_of(mount, 'file1'), EIO)
        self.proxy.clear()
        self.check_all(mount)

    def test_redirects_of_manifests(self):
        self.proxy.clear()
        other = FaultProxy(self.bed, self.registry.port, name='localhost')
        self.proxy.rule(lambda x: x.send(307, {'Location': 'http://%s%s' % (other.host, x.path)}))
        self.check_all(self.mount())
        self.assertGreater(len(other.requests('/manifests/')), 0)


class ForeignLayerTest(TestCase):
    """Layers with urls of their own: the registry first, then the urls, never with credentials (CVE-2020-15157)."""

    def test_urls(self):
        registry = Registry(self.bed, users={'alice': 'secret'})
        elsewhere = FaultProxy(self.bed, None, name='localhost')
        layer = images.Layer.of(images.tar(images.entry('foreign', b'from elsewhere')))
        elsewhere.rule(lambda x: x.send(200, {}, layer.blob), path='^/layers/')
        layout = images.Layout(self.bed.dir / 'layout')

        def change(manifest):
            manifest['layers'][0].update(mediaType='application/vnd.docker.image.rootfs.foreign.diff.tar.gzip',
                                         urls=['http://%s/layers/1' % elsewhere.host])
        image = layout.add_image('v1', [layer], change=change)
        registry.put_blob('foreign', layout.blob_path(layout.json(image)['config']['digest']).read_bytes())
        front = FaultProxy(self.bed, registry.port)
        front.rule(lambda x: x.send(200, {'Content-Type': images.MANIFEST_TYPE},
                                    layout.blob_path(image['digest']).read_bytes()), path='/manifests/')
        mount = self.bed.mount('%s/foreign:v1' % front.host, '--plain-http', '--creds=alice:secret')
        self.assertEqual(mount.read('foreign'), b'from elsewhere')
        self.assertEqual([r.authorization for r in elsewhere.requests()], [None])
        self.assertGreater(len(front.requests('/blobs/' + images.sha256(layer.blob))), 0)

    def test_urls_that_fail(self):
        registry = Registry(self.bed)
        layer = images.Layer.of(images.tar(images.entry('foreign', b'x')))
        layout = images.Layout(self.bed.dir / 'layout')
        dead = FaultProxy(self.bed, None)
        dead.close()

        def change(manifest):
            manifest['layers'][0].update(urls=['http://%s/1' % dead.host])
        image = layout.add_image('v1', [layer], change=change)
        registry.put_blob('foreign', layout.blob_path(layout.json(image)['config']['digest']).read_bytes())
        front = FaultProxy(self.bed, registry.port)
        front.rule(lambda x: x.send(200, {'Content-Type': images.MANIFEST_TYPE},
                                    layout.blob_path(image['digest']).read_bytes()), path='/manifests/')
        result = self.bed.regfs('mount', '--plain-http', '--timeout=2', '%s/foreign:v1' % front.host, self.bed.mkdir())
        self.assertIn(result.code, (NOT_FOUND, UNREACHABLE))
        self.assertIn(images.sha256(layer.blob), result.err)


if __name__ == '__main__':
    unittest.main()
