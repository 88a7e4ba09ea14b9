# SPDX-License-Identifier: Apache-2.0
"""The sandbox of a mounted daemon, seen from outside: who is confined, what it is kept from, and that all the rest goes on. What each
call and each file gets is tests/unit/test_sandbox.c's."""
import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import threading
import unittest
from concurrent.futures import ThreadPoolExecutor
from errno import ECONNABORTED, EIO, ENOTCONN

import images
from fault_proxy import FaultProxy, hang, ignore_range
from registry import Registry
from test_auth import GateCase, pair
from test_mount import AS_NOBODY, NOBODY, MountCase, is_dead
from testbed import CANNOT_MOUNT, USAGE, alive, regfs_binary, run, wait_until


def is_sanitized():
    """Such builds have no sandbox unless they are asked for one."""
    with open(regfs_binary(), 'rb') as f:
        program = f.read()
    return b'__asan_init' in program or b'__tsan_init' in program


def threads(pid):
    """{thread id: {name of a field: its value}} of a process."""
    found = {}
    for task in os.listdir('/proc/%d/task' % pid):
        with contextlib.suppress(FileNotFoundError):
            with open('/proc/%d/task/%s/status' % (pid, task)) as f:
                fields = {k: v.strip() for k, _, v in (line.partition(':') for line in f)}
            found[int(task)] = {k: fields[k] for k in ('Name', 'Uid', 'NoNewPrivs', 'Seccomp')}
    return found


def is_confined(thread):
    return (thread['NoNewPrivs'], thread['Seccomp']) == ('1', '2')


def brokers(pid):
    """A daemon's children that are one."""
    found = []
    for task in os.listdir('/proc/%d/task' % pid):
        with open('/proc/%d/task/%s/children' % (pid, task)) as f:
            found += [int(child) for child in f.read().split()]
    return [child for child in found if threads(child)[child]['Name'] == 'regfs-broker']


def landlock_is_there():
    return ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), 1) > 0  # landlock_create_ruleset: its version


class SandboxCase(MountCase):
    def mount_confined(self, *options, reference=None, **more):
        mount = self.bed.mount(reference or self.reference, '--sandbox=on', *options, **more)
        mount.broker, = brokers(mount.pid)
        return mount

    def assert_over(self, mount):
        """Unmounted, and both processes are gone."""
        wait_until(lambda: not alive(mount.pid), 'the daemon ends')
        wait_until(lambda: not alive(mount.broker), 'its broker ends')
        self.assertFalse(self.bed.is_mounted(mount.path))


class ConfinedTest(SandboxCase):
    @classmethod
    def set_up_shared(cls):
        super().set_up_shared()
        cls.registry = Registry(cls.shared)
        cls.registry.push_layout(cls.layout, 'v1', 'small:v1')

    def test_it_is_the_default(self):
        if is_sanitized():
            self.skipTest('not of a build with sanitizers')
        mount = self.bed.mount(self.reference)
        self.assertTrue(all(map(is_confined, threads(mount.pid).values())))

    def test_every_thread_of_a_mount_at_work(self):
        proxy = FaultProxy(self.bed, self.registry.port)
        mount = self.mount_confined('--plain-http', reference=proxy.host + '/small:v1')
        self.bed.store.forget_content()
        rule = proxy.rule(hang(), '/blobs/')
        readers = [threading.Thread(target=self.read_or_not, args=(mount, name)) for name in ('data', 'text')]
        for reader in readers:
            reader.start()
        wait_until(lambda: rule.hits, 'a flight')
        found = threads(mount.pid)
        # The main thread, those of FUSE, transfer, flights.
        self.assertLessEqual( {'regfs', 'flight', 'regfs-http'}, {t['Name'] for t in found.values()})
        self.assertGreaterEqual(len(found), 5)
        self.assertEqual({i: t for i, t in found.items() if not is_confined(t)}, {})
        proxy.clear()
        for reader in readers:
            reader.join()

    def read_or_not(self, mount, name):
        with contextlib.suppress(OSError):
            mount.read(name)

    def test_what_is_parsed_before_the_mount_is_parsed_inside(self):
        """The main thread alone is free until it has mounted."""
        proxy = FaultProxy(self.bed, self.registry.port)
        rule = proxy.rule(hang(), '/blobs/')
        directory = self.bed.mkdir()
        process = self.bed.start(regfs_binary(), 'mount', '--foreground', '--sandbox=on', '--plain-http',
                                 proxy.host + '/small:v1', directory, stderr=subprocess.DEVNULL)
        wait_until(lambda: rule.hits, 'a request for a blob')
        found = threads(process.pid)
        self.assertFalse(is_confined(found.pop(process.pid)))
        self.assertGreaterEqual(len(found), 2)
        self.assertTrue(all(map(is_confined, found.values())), found)
        process.kill()

    def test_a_file_outside_is_not_read_when_an_image_is_opened(self):
        """The store's own tree, of which a part is a link to elsewhere."""
        if not landlock_is_there():
            self.skipTest('no Landlock')
        self.bed.mount(self.reference).umount()
        toc = next(self.bed.store.path.glob('layers/sha256/*/*/toc'))
        shutil.move(toc, self.bed.dir / 'toc')
        toc.symlink_to(self.bed.dir / 'toc')
        # Where the table cannot be read, the layer is indexed afresh.
        mount = self.bed.mount(self.reference, '--sandbox=off')
        self.assertNotIn('indexing begins', mount.log())
        mount.umount()
        mount = self.mount_confined()
        self.assertIn('indexing begins', mount.log())
        self.assertEqual(mount.read('data'), images.noise(7, 100000))
        self.assertFalse(toc.is_symlink())

    def test_a_layout_made_of_links(self):
        """What is linked when it is mounted may be read: build systems make such layouts."""
        layout = images.Layout(self.bed.dir / 'layout')
        image = images.small_image(layout)
        blobs = self.bed.dir / 'blobs of many'
        shutil.move(layout.path / 'blobs/sha256', blobs)
        (layout.path / 'blobs/sha256').symlink_to(blobs)
        blob = blobs / layout.json(image)['layers'][0]['digest'].partition(':')[2]
        shutil.move(blob, self.bed.dir / 'blob')
        blob.symlink_to(self.bed.dir / 'blob')
        mount = self.mount_confined(reference='oci:%s:v1' % layout.path)
        self.bed.store.forget_content()
        self.assertEqual(mount.read('data'), images.noise(7, 100000))

    def test_names_are_resolved(self):
        mount = self.mount_confined('--plain-http', reference='localhost:%s/small:v1' % self.registry.port)
        self.bed.store.forget_content()
        self.assertEqual(mount.read('data'), images.noise(7, 100000))

    def test_a_server_without_ranges(self):
        """The spool, a file without a name in $TMPDIR."""
        proxy = FaultProxy(self.bed, self.registry.port)
        mount = self.mount_confined('--plain-http', reference=proxy.host + '/small:v1')
        self.bed.store.forget_content()
        proxy.rule(ignore_range, '/blobs/')
        self.assertEqual(mount.read('text'), images.text(8, 5 << 20))

    def test_off(self):
        for options in (['--sandbox=off'], ['-o', 'sandbox=off']):
            with self.subTest(options):
                mount = self.bed.mount(self.reference, *options)
                self.assertEqual({t['Seccomp'] for t in threads(mount.pid).values()}, {'0'})
                self.assertEqual(brokers(mount.pid), [])
                mount.umount()

    def test_usage(self):
        result = self.bed.regfs('mount', '--sandbox=maybe', self.reference, self.bed.mkdir())
        self.assertEqual(result.code, USAGE)
        self.assertIn('maybe', result.err)
        self.assertEqual(self.bed.regfs('inspect', '--sandbox=on', self.reference).code, USAGE)


class EndTest(SandboxCase):
    """How a confined daemon ends: it may not unmount, and exec nothing that could."""

    def foreground(self, *options, prefix=(), binary=None, directory=None):
        directory = directory or self.bed.mkdir()
        process = self.bed.start(*prefix, binary or regfs_binary(), 'mount', '-f', '--sandbox=on', *options, self.reference,
                                 directory, stderr=subprocess.PIPE)
        wait_until(lambda: self.bed.is_mounted(directory), 'mounted')
        wait_until(lambda: is_confined(threads(process.pid)[process.pid]), 'confined')
        process.directory = directory
        process.broker, = brokers(process.pid)
        return process

    def assert_ended_well(self, process):
        self.assertEqual((process.wait(20), process.stderr.read()), (0, b''))
        self.assertFalse(self.bed.is_mounted(process.directory))
        self.assertFalse(alive(process.broker))

    def test_signals_unmount_and_the_exit_code_is_0(self):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            with self.subTest(number.name):
                process = self.foreground()
                self.assertEqual((process.directory / 'etc/os-release').read_bytes(), b'ID=small\n')
                process.send_signal(number)
                self.assert_ended_well(process)

    def test_the_whole_service_is_signalled(self):
        """systemd sends SIGTERM to every process of a unit: the broker is needed until the end."""
        process = self.foreground()
        os.kill(process.broker, signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        self.assert_ended_well(process)

    def test_a_busy_mount_is_detached(self):
        process = self.foreground()
        fd = os.open(process.directory / 'data', os.O_RDONLY)
        try:
            self.assertEqual(len(os.pread(fd, 10, 0)), 10)
            process.send_signal(signal.SIGTERM)
            self.assert_ended_well(process)
            self.assertEqual(list(process.directory.iterdir()), [])
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            with self.assertRaises(OSError) as caught:
                os.pread(fd, 10, 50000)
            self.assertIn(caught.exception.errno, (ENOTCONN, EIO, ECONNABORTED))
        finally:
            with contextlib.suppress(OSError):
                os.close(fd)

    def test_unmounted_by_others(self):
        mount = self.mount_confined()
        mount.umount()
        self.assert_over(mount)

    def test_a_killed_daemon_takes_its_broker_along(self):
        mount = self.mount_confined()
        os.kill(mount.pid, signal.SIGKILL)
        wait_until(lambda: not alive(mount.broker), 'its broker ends')
        self.assertTrue(is_dead(mount.path))
        result = self.bed.regfs('mount', self.reference, mount.path)
        self.assertEqual(result.code, CANNOT_MOUNT)
        self.assertIn('stale', result.err)
        self.assertIn('regfs umount', result.err)
        self.assertEqual(self.bed.regfs('umount', mount.path).code, 0)
        self.assert_over(mount)

    def test_auto_unmount(self):
        mount = self.mount_confined('-o', 'auto_unmount')
        os.kill(mount.pid, signal.SIGTERM)
        wait_until(lambda: not self.bed.is_mounted(mount.path), 'unmounted')
        self.assert_over(mount)

    def test_without_its_broker_a_daemon_leaves_the_mount_and_says_so(self):
        mount = self.mount_confined()
        os.kill(mount.broker, signal.SIGKILL)
        self.assertEqual(mount.read('data'), images.noise(7, 100000))
        os.kill(mount.pid, signal.SIGTERM)
        wait_until(lambda: not alive(mount.pid), 'the daemon ends')
        self.assertRegex(mount.log(), r' error .*regfs umount')
        self.assertEqual(self.bed.regfs('umount', mount.path).code, 0)

    def test_a_plain_user(self):
        """Through fusermount3, which is set-user-ID: no_new_privs must not meet it."""
        mode = os.stat('/dev/fuse').st_mode
        os.chmod('/dev/fuse', 0o666)
        self.addCleanup(os.chmod, '/dev/fuse', mode & 0o7777)
        shutil.copytree(self.layout.path, self.bed.dir / 'layout')
        self.reference = 'oci:%s:v1' % (self.bed.dir / 'layout')
        run('chown', '-R', '%d:%d' % (NOBODY, NOBODY), self.bed.dir)
        binary = self.bed.dir / 'regfs'
        shutil.copy(regfs_binary(), binary)
        for number in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(number.name):
                directory = self.bed.mkdir()
                os.chown(directory, NOBODY, NOBODY)
                process = self.foreground(prefix=AS_NOBODY, binary=binary, directory=directory)
                self.assertEqual(threads(process.pid)[process.pid]['Uid'].split(), [str(NOBODY)] * 4)
                self.assertTrue(all(map(is_confined, threads(process.pid).values())))
                read = subprocess.run([*AS_NOBODY, 'cat', str(directory / 'etc/os-release')], stdout=subprocess.PIPE, check=True)
                self.assertEqual(read.stdout, b'ID=small\n')
                process.send_signal(number)
                self.assert_ended_well(process)


class RenewalTest(GateCase):
    """Credentials come from outside, at any time."""
    LAYERS = 4

    def setUp(self):
        super().setUp()
        self.tokens.users['alice'] = 'first'
        self.calls = self.bed.write('calls', '')
        self.environ = {'PATH': '%s:%s' % (self.bed.dir / 'bin', os.environ['PATH']), 'CALLS': str(self.calls)}
        self.make_helper('echo "{\\"Username\\": \\"alice\\", \\"Secret\\": \\"$(cat "${CALLS%/*}/password")\\"}"\n')
        self.bed.write('password', 'first')

    def make_helper(self, script):
        path = self.bed.write('bin/docker-credential-test', '#!/bin/sh\necho "$1 $(cat)" >> "$CALLS"\n' + script)
        path.chmod(0o755)

    def mount_with_helper(self, *options):
        self.bed.write_json('home/.docker/config.json', {'credHelpers': {self.gate.host: 'test'}})
        return self.mount_confined(*options)

    def mount_confined(self, *options, **more):
        mount = self.bed.mount('%s/many@%s' % (self.gate.host, self.image['digest']), '--plain-http', '--sandbox=on', *options,
                               env=self.environ, **more)
        mount.broker, = brokers(mount.pid)
        return mount

    def renew(self, mount, password='second'):
        """Reads of which the first needs another token, for which the password of before does not do any more."""
        self.bed.write('password', password)
        self.tokens.users['alice'] = password
        self.tokens.revoke()
        self.tokens.forget_requests()
        self.forget(mount)
        return self.read_all(mount)

    def assert_renewed(self, mount, password='second'):
        self.assertEqual(self.renew(mount, password), self.contents)
        self.assertEqual(self.tokens.requests()[-1][2], 'alice')

    def test_helpers_are_run_again(self):
        mount = self.mount_with_helper()
        calls = self.calls.read_text().splitlines()
        self.assertEqual(set(calls), {'get ' + self.gate.host})
        for password in ('second', 'third'):
            self.assert_renewed(mount, password)
            before, calls = len(calls), self.calls.read_text().splitlines()
            self.assertGreater(len(calls), before)
        self.assertTrue(all(map(is_confined, threads(mount.pid).values())))
        self.assertFalse(is_confined(threads(mount.broker)[mount.broker]))
        for secret in ('first', 'second', 'third'):
            self.assertNotIn(secret, mount.log())
        mount.umount()
        self.assertFalse(alive(mount.broker))

    def test_a_login_after_the_mount(self):
        """A file that replaces another one, in a directory that no rule is for."""
        path = self.bed.write_json('home/.docker/config.json', {'auths': {self.gate.host: {'auth': pair('alice', 'first')}}})
        mount = self.mount_confined()
        other = self.bed.write_json('home/.docker/new', {'auths': {self.gate.host: {'auth': pair('alice', 'second')}}})
        os.rename(other, path)
        self.assert_renewed(mount)

    def test_a_first_login_after_the_mount(self):
        self.tokens.users.clear()
        mount = self.mount_confined()
        self.bed.write_json('run/containers/auth.json', {'auths': {self.gate.host: {'auth': pair('alice', 'second')}}})
        self.assert_renewed(mount)

    def test_an_authfile_with_a_relative_name(self):
        path = self.bed.write_json('auth.json', {'auths': {self.gate.host: {'auth': pair('alice', 'first')}}})
        mount = self.mount_confined('--authfile=auth.json', cwd=self.bed.dir)
        path.write_text(path.read_text().replace(pair('alice', 'first'), pair('alice', 'second')))
        self.assert_renewed(mount)

    def test_a_dead_broker_is_an_error_of_the_credential(self):
        mount = self.mount_with_helper('--timeout=3')
        os.kill(mount.broker, signal.SIGKILL)
        wait_until(lambda: not alive(mount.broker), 'it ends')
        self.assertEqual(self.read_all(mount), self.contents)  # by the token that there is
        self.assertEqual(set(self.renew(mount).values()), {EIO})
        self.assertRegex(mount.log(), r' error .*the broker of this mount has ended')
        self.assertTrue(alive(mount.pid))
        mount.umount()

    def test_a_helper_at_work_ends_with_the_daemon(self):
        mount = self.mount_with_helper('--timeout=20')
        self.make_helper('echo $$ > "${CALLS%/*}/helper"\nexec sleep 1000\n')
        self.tokens.users['alice'] = 'second'
        self.tokens.revoke()
        self.forget(mount)
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(lambda: self.assertRaises(OSError, mount.read, 'file0'))
            helper = int(wait_until(lambda: (self.bed.dir / 'helper').exists() and (self.bed.dir / 'helper').read_text().strip(),
                                    'the helper runs'))
            self.assertTrue(alive(helper))
            os.kill(mount.pid, signal.SIGKILL)
            reading.result()
        wait_until(lambda: not alive(helper), 'the helper ends')
        wait_until(lambda: not alive(mount.broker), 'the broker ends')


if __name__ == '__main__':
    unittest.main()
