# SPDX-License-Identifier: Apache-2.0
"""A daemon that is told to end unmounts and exits with 0, whoever uses its mount; and what one leaves that was killed is named and
cleared, whoever used it."""
import contextlib
import os
import signal
import subprocess
import sys
import time
import unittest
from errno import EIO, ENOTCONN

import images
import stargz
from fault_proxy import FaultProxy, hang
from registry import Registry
from testbed import CANNOT_MOUNT, TestCase, alive, regfs_binary, wait_until

DATA = images.noise(7, 3 << 20)
READ = 'import sys\ntry:\n    open(sys.argv[1], "rb").read()\nexcept OSError as e:\n    sys.exit(e.errno)\n'


class SignalCase(TestCase):
    @classmethod
    def set_up_shared(cls):
        cls.registry = Registry(cls.shared)
        layout = images.Layout(cls.shared.dir / 'layout')
        cls.registry.push(layout, stargz.add_image(layout, 'v1', {'data': DATA, 'small': b'x'}, 300_000), 'img:v1')

    def setUp(self):
        super().setUp()
        self.proxy = FaultProxy(self.bed, self.registry.port)
        self.reference = '%s/img:v1' % self.proxy.host

    def start(self, *options):
        """A daemon whose exit code can be seen."""
        directory = self.bed.mkdir()
        process = self.bed.start(regfs_binary(), 'mount', '-f', '--plain-http', *options, self.reference, directory,
                                 stderr=subprocess.PIPE)
        wait_until(lambda: self.bed.is_mounted(directory), 'mounted')
        return process, directory

    @contextlib.contextmanager
    def opened(self, path):
        """A descriptor; closing one of a dead mount is an error, too."""
        fd = os.open(path, os.O_RDONLY)
        try:
            yield fd
        finally:
            with contextlib.suppress(OSError):
                os.close(fd)

    def start_waiting_reader(self, directory):
        """One whose read hangs at the registry."""
        rule = self.proxy.rule(hang(), path='/blobs/')
        reader = self.bed.start(sys.executable, '-c', READ, directory / 'data')
        wait_until(lambda: rule.hits, 'the read has reached the registry')
        return reader

    def assert_ended(self, process, directory, seconds):
        self.assertEqual(process.wait(seconds), 0, process.stderr)
        self.assertFalse(self.bed.is_mounted(directory))
        wait_until(lambda: not self.bed.daemons(), 'nothing is left of it')


class TerminationTest(SignalCase):
    def test_while_a_file_is_open(self):
        process, directory = self.start()
        with self.opened(directory / 'data') as fd:
            self.assertEqual(os.pread(fd, 1000, 0), DATA[:1000])
            process.terminate()
            self.assert_ended(process, directory, 10)
            with self.assertRaises(OSError) as caught:
                os.pread(fd, 1000, 2 << 20)
            self.assertIn(caught.exception.errno, (ENOTCONN, EIO))

    def test_while_a_directory_is_in_use(self):
        process, directory = self.start()
        user = self.bed.start('sleep', '100', cwd=directory)
        process.terminate()
        self.assert_ended(process, directory, 10)
        user.kill()

    def test_while_a_read_waits_for_the_registry(self):
        """Not until the reader's patience ends, which is a minute."""
        process, directory = self.start()
        reader = self.start_waiting_reader(directory)
        begin = time.monotonic()
        process.terminate()
        self.assert_ended(process, directory, 15)
        self.assertIn(reader.wait(10), (ENOTCONN, EIO))
        self.assertLess(time.monotonic() - begin, 15)

    def test_twice(self):
        process, directory = self.start()
        for _ in range(2):
            process.send_signal(signal.SIGTERM)
        self.assert_ended(process, directory, 10)


class DeadMountTest(SignalCase):
    def check(self, directory):
        """What the mount of a dead one is called, how it goes, and that the next one works."""
        result = self.bed.mount_fails(CANNOT_MOUNT, self.reference, '--plain-http', directory=directory, keeps_layers=True,
                                      words=['stale', 'regfs umount', str(directory)])
        self.assertLess(result.seconds, 10)
        self.assertEqual(self.bed.regfs('umount', directory)[:3], (0, '', ''))
        self.assertFalse(self.bed.is_mounted(directory))
        again = self.bed.mount(self.reference, '--plain-http', directory=directory)
        self.assertEqual(again.read('data'), DATA)
        again.umount()

    def test_killed(self):
        process, directory = self.start()
        process.kill()
        process.wait(10)
        self.check(directory)

    def test_killed_while_a_file_is_open(self):
        process, directory = self.start()
        with self.opened(directory / 'data') as fd:
            self.assertEqual(os.pread(fd, 1000, 0), DATA[:1000])
            process.kill()
            process.wait(10)
            self.check(directory)
            with self.assertRaises(OSError) as caught:
                os.pread(fd, 1000, 2 << 20)
            self.assertEqual(caught.exception.errno, ENOTCONN)

    def test_killed_while_a_read_waits(self):
        process, directory = self.start()
        reader = self.start_waiting_reader(directory)
        process.kill()
        process.wait(10)
        self.assertEqual(reader.wait(10), ENOTCONN)
        self.proxy.clear()
        self.check(directory)

    def test_killed_with_its_broker_left(self):
        """What runs beside the daemon holds nothing of the mount, and ends by itself."""
        mount = self.bed.mount(self.reference, '--plain-http')
        os.kill(mount.pid, signal.SIGKILL)
        wait_until(lambda: not alive(mount.pid), 'killed')
        wait_until(lambda: not self.bed.daemons(), 'the others end')
        self.check(mount.path)


if __name__ == '__main__':
    unittest.main()
