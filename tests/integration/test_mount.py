# SPDX-License-Identifier: Apache-2.0
"""Mounting, listing and unmounting, as the people do it who use it: root, plain users, mount(8), signals, stale mounts."""
import contextlib
import errno
import json
import mmap
import os
import shutil
import signal
import subprocess
import tarfile
import unittest

import images
from fault_proxy import FaultProxy
from registry import Registry
from testbed import CANNOT_MOUNT, USAGE, TestCase, alive, regfs_binary, run, wait_until

NOBODY = 65534
AS_NOBODY = ('setpriv', '--reuid', str(NOBODY), '--regid', str(NOBODY), '--clear-groups')


def is_dead(directory):
    try:
        os.listdir(directory)
    except OSError as e:
        return e.errno == errno.ENOTCONN
    return False


class MountCase(TestCase):
    """A small image in a layout."""

    @classmethod
    def set_up_shared(cls):
        cls.layout = images.Layout(cls.shared.dir / 'layout')
        cls.image = images.small_image(cls.layout)
        cls.reference = 'oci:%s:v1' % cls.layout.path

    def assert_gone(self, mount):
        self.assertFalse(self.bed.is_mounted(mount.path))
        wait_until(lambda: not alive(mount.pid), 'the daemon ends')
        self.assertEqual(list(mount.path.iterdir()), [])


class LifeTest(MountCase):
    def test_mount_returns_when_the_tree_is_there(self):
        directory = self.bed.mkdir()
        result = self.bed.regfs('mount', self.reference, directory)
        self.assertEqual(result[:3], (0, '', ''))
        self.assertEqual((directory / 'etc/os-release').read_bytes(), b'ID=small\n')

    def test_three_ways_to_unmount(self):
        for argv in ([regfs_binary(), 'umount'], ['umount'], ['fusermount3', '-u']):
            with self.subTest(argv[0]):
                mount = self.bed.mount(self.reference)
                self.assertEqual(mount.read('etc/os-release'), b'ID=small\n')
                run(*argv, mount.path)
                self.assert_gone(mount)

    def test_umount_of_several(self):
        mounts = [self.bed.mount(self.reference) for _ in range(3)]
        result = self.bed.regfs('umount', *[m.path for m in mounts])
        self.assertEqual(result[:3], (0, '', ''))
        for mount in mounts:
            self.assert_gone(mount)

    def test_umount_of_what_is_no_mount(self):
        mount = self.bed.mount(self.reference)
        directory = self.bed.mkdir()
        result = self.bed.regfs('umount', directory, mount.path)
        self.assertEqual(result.code, CANNOT_MOUNT)
        self.assertIn(str(directory), result.err)
        self.assert_gone(mount)

    def test_umount_by_another_name_of_the_directory(self):
        mount = self.bed.mount(self.reference)
        link = self.bed.dir / 'link'
        link.symlink_to(mount.path)
        self.assertEqual(self.bed.regfs('umount', link).code, 0)
        self.assert_gone(mount)
        mount = self.bed.mount(self.reference)
        result = self.bed.regfs('umount', './%s/' % mount.path.name, cwd=mount.path.parent)
        self.assertEqual(result.code, 0, result)
        self.assert_gone(mount)

    def test_a_busy_mount_stays_unless_lazy(self):
        mount = self.bed.mount(self.reference)
        with open(mount.path / 'data', 'rb') as f:
            result = self.bed.regfs('umount', mount.path)
            self.assertEqual(result.code, CANNOT_MOUNT)
            self.assertIn(str(mount.path), result.err)
            self.assertEqual(f.read(), images.noise(7, 100000))
            self.assertEqual(self.bed.regfs('umount', '--lazy', mount.path).code, 0)
            self.assertFalse(self.bed.is_mounted(mount.path))
            self.assertTrue(alive(mount.pid))
            f.seek(0)
            self.assertEqual(f.read(), images.noise(7, 100000))
        self.assert_gone(mount)

    def test_signals_to_the_daemon_unmount(self):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            with self.subTest(number.name):
                mount = self.bed.mount(self.reference)
                os.kill(mount.pid, number)
                self.assert_gone_soon(mount)

    def assert_gone_soon(self, mount):
        wait_until(lambda: not self.bed.is_mounted(mount.path), 'unmounted')
        self.assert_gone(mount)

    def test_foreground(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(number.name):
                directory = self.bed.mkdir()
                process = self.bed.start(regfs_binary(), 'mount', '-f', self.reference, directory, stderr=subprocess.PIPE)
                wait_until(lambda: self.bed.is_mounted(directory), 'mounted')
                self.assertEqual(self.bed.find_mount(directory)['pid'], process.pid)
                self.assertEqual((directory / 'etc/os-release').read_bytes(), b'ID=small\n')
                process.send_signal(number)
                self.assertEqual(process.wait(20), 0)
                self.assertEqual(process.stderr.read(), b'')
                self.assertFalse(self.bed.is_mounted(directory))

    def test_foreground_ends_when_unmounted(self):
        directory = self.bed.mkdir()
        process = self.bed.start(regfs_binary(), 'mount', '--foreground', self.reference, directory)
        wait_until(lambda: self.bed.is_mounted(directory), 'mounted')
        run('umount', directory)
        self.assertEqual(process.wait(20), 0)

    def test_the_daemon_keeps_no_directory_and_no_terminal(self):
        where = self.bed.mkdir('cwd')
        mount = self.bed.mount(self.reference, cwd=where)
        self.assertEqual(os.readlink('/proc/%d/cwd' % mount.pid), '/')
        for fd in (0, 1, 2):
            self.assertEqual(os.readlink('/proc/%d/fd/%d' % (mount.pid, fd)), '/dev/null')
        self.assertEqual(os.getsid(mount.pid), mount.pid)

    def test_relative_names(self):
        (self.bed.dir / 'here').mkdir()
        shutil.copytree(self.layout.path, self.bed.dir / 'image')
        result = self.bed.regfs('mount', 'oci:image:v1', 'here', '--cache-dir', 'own store', '--log-file', 'own log',
                                '--log-level', 'info', cwd=self.bed.dir)
        self.assertEqual(result[:3], (0, '', ''))
        self.assertEqual((self.bed.dir / 'here/etc/os-release').read_bytes(), b'ID=small\n')
        self.assertTrue((self.bed.dir / 'own store/layers').is_dir())
        self.assertIn('info', (self.bed.dir / 'own log').read_text())
        # Content that has to be read from the layout again is still found, though the daemon went to another directory.
        for path in (self.bed.dir / 'own store').glob('layers/sha256/*/*/map'):
            with open(path, 'r+b') as f:
                f.seek(64)
                f.write(bytes(path.stat().st_size - 64))
        self.assertEqual((self.bed.dir / 'here/data').read_bytes(), images.noise(7, 100000))

    def test_odd_directory_names(self):
        for name in ('with space', 'comma,equals=', 'back\\slash', 'tab\tnewline\n', '-dash', 'hash#at@', 'ünï'):
            with self.subTest(name):
                directory = self.bed.dir / name
                directory.mkdir()
                mount = self.bed.mount(self.reference, '--', directory=directory) if name[0] == '-' else \
                    self.bed.mount(self.reference, directory=directory)
                self.assertEqual(mount.entry['reference'], self.reference)
                self.assertEqual(mount.read('etc/os-release'), b'ID=small\n')
                mount.umount()

    def test_two_mounts_of_one_image_share_a_store(self):
        first, second = self.bed.mount(self.reference), self.bed.mount(self.reference)
        self.assertEqual(len(self.bed.store.layers()), 1)
        self.bed.store.forget_content()
        self.assertEqual(first.read('text'), images.text(8, 5 << 20))
        self.assertEqual(second.read('text'), images.text(8, 5 << 20))
        self.assertNotIn('flight begins', second.log())

    def test_log_file_and_levels(self):
        mount = self.bed.mount(self.reference)
        self.assertRegex(mount.log(), r'(?m)^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z info \[\d+/\S+\] .*inodes')
        mount.umount()
        self.assertIn('unmounted', mount.log())
        log = self.bed.dir / 'quiet'
        directory = self.bed.mkdir()
        self.assertEqual(self.bed.regfs('mount', '--log-level=error', '--log-file', log, self.reference, directory)[:3], (0, '', ''))
        self.assertEqual(log.read_text(), '')


class ListTest(MountCase):
    def test_mounts(self):
        mount = self.bed.mount(self.reference)
        self.assertEqual(mount.entry, {'directory': str(mount.path), 'reference': self.reference, 'digest': self.image['digest'],
                                       'platform': 'linux/amd64', 'pid': mount.pid, 'prefetch': None})
        with open('/proc/%d/cmdline' % mount.pid, 'rb') as f:
            self.assertIn(b'regfs', f.read())
        lines = [l for l in self.bed.regfs('mounts').out.splitlines() if str(mount.path) in l]
        self.assertEqual(len(lines), 1)
        self.assertEqual(lines[0].split(), [str(mount.path), self.reference, 'linux/amd64', str(mount.pid), '-', self.image['digest']])
        mount.umount()
        self.assertNotIn(str(mount.path), self.bed.regfs('mounts').out)
        self.assertIsInstance(json.loads(self.bed.regfs('mounts', '--json').out), list)

    def test_platform_of_an_index(self):
        layout = images.Layout(self.bed.dir / 'index')
        layers = {p: [images.Layer.of(images.tar(images.entry('platform', p.encode())))]
                  for p in ('linux/amd64', 'linux/arm64', 'linux/arm/v6', 'linux/arm/v7')}
        layout.add_index('all', {p: layout.add_image(None, l, p) for p, l in layers.items()})
        for option, wanted in (('linux/arm64', 'linux/arm64'), ('linux/aarch64', 'linux/arm64'), ('linux/arm/v7', 'linux/arm/v7'),
                               ('linux/arm/v8', 'linux/arm/v7'), ('linux/amd64/v3', 'linux/amd64')):
            with self.subTest(option):
                mount = self.bed.mount('oci:%s:all' % layout.path, '--platform', option)
                self.assertEqual(mount.read('platform'), wanted.encode())
                self.assertEqual(mount.entry['platform'].split('/')[:2], wanted.split('/')[:2])
                mount.umount()


class OptionTest(MountCase):
    def test_as_mount_calls_it(self):
        directory = self.bed.mkdir()
        log = self.bed.dir / 'log'
        result = self.bed.regfs(self.reference, directory, '-o', 'rw,nosuid,log_level=info,log-file=%s,x-systemd.automount' % log)
        self.assertEqual(result[:3], (0, '', ''))
        self.assertEqual((directory / 'etc/os-release').read_bytes(), b'ID=small\n')
        self.assertIn('info', log.read_text())
        with open('/proc/self/mountinfo') as f:
            options = next(l.split()[5] for l in f if ' %s ' % directory in l).split(',')
        self.assertIn('ro', options)
        self.assertIn('nosuid', options)

    def as_installed(self, script, *args):
        """Runs a script where regfs is an installed program: in a mount namespace of its own, below /usr/local/bin."""
        install = 'mount -t tmpfs none /usr/local/bin && cp "$REGFS" /usr/local/bin/regfs && '
        # As a slave, so that mounts of other tests do not stay alive in here.
        return subprocess.run(['unshare', '-m', '--propagation', 'slave', 'sh', '-euc', install + script, 'sh', *map(str, args)],
                              env=dict(self.bed.environ, REGFS=regfs_binary(), PATH='/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'),
                              stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)

    def test_mount_8(self):
        done = self.as_installed('mount -t fuse.regfs "$1" "$2" -o ro,platform=linux/amd64; regfs mounts; '
                                 'cat "$2/etc/os-release"; umount "$2"', self.reference, self.bed.mkdir())
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertIn(self.reference.encode(), done.stdout)
        self.assertIn(b'\nID=small\n', done.stdout)

    def test_fstab(self):
        directory = self.bed.mkdir()
        fstab = self.bed.write('fstab', '%s %s fuse.regfs ro,noauto,nofail,_netdev,memory=32M 0 0\n' % (self.reference, directory))
        done = self.as_installed('mount -T "$1" "$2"; cat "$2/etc/os-release"; umount "$2"', fstab, directory)
        self.assertEqual((done.returncode, done.stdout), (0, b'ID=small\n'))

    def test_failure_reaches_mount_8(self):
        done = self.as_installed('mount -t fuse.regfs "$1" "$2"', self.reference + 'x', self.bed.mkdir())
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(b'v1x', done.stdout)

    def test_usage(self):
        directory = str(self.bed.mkdir())
        for args, word in ((['mount'], 'REF DIR'), (['mount', self.reference], 'REF DIR'),
                           (['mount', self.reference, directory, 'more'], 'REF DIR'), (['mount', '--no-such-option'], '--no-such-option'),
                           (['mount', '--platform'], '--platform'), (['mount', '-o', 'nonsense', self.reference, directory], 'nonsense'),
                           (['mount', '--timeout=0', self.reference, directory], 'timeout'),
                           (['mount', '--tls-verify=maybe', self.reference, directory], 'maybe'),
                           (['mount', '--log-level=loud', self.reference, directory], 'loud'),
                           (['mount', '--memory=lots', self.reference, directory], 'lots'),
                           (['mount', '--platform=linux', self.reference, directory], 'linux'),
                           (['umount'], 'DIR'), (['mounts', 'x'], 'x'), (['frobnicate'], 'frobnicate')):
            with self.subTest(args):
                result = self.bed.regfs(*args)
                self.assertEqual((result.code, result.out), (USAGE, ''), result)
                self.assertRegex(result.err, r'\Aregfs: [^\n]+\n\Z')
                self.assertIn(word, result.err)
        self.assertFalse(self.bed.is_mounted(directory))

    def test_help_and_version(self):
        for args in (['--help'], ['mount', '--help'], ['umount', '--help'], ['mounts', '--help'], ['--version'],
                     ['mount', '--version']):
            with self.subTest(args):
                result = self.bed.regfs(*args)
                self.assertEqual((result.code, result.err), (0, ''))
                self.assertIn('regfs', result.out)
        self.assertEqual(self.bed.regfs().code, USAGE)


class TreeTest(MountCase):
    """What the kernel is told about the tree, besides what the oracle compares."""

    def test_statfs(self):
        mount = self.bed.mount(self.reference)
        st = os.statvfs(mount.path)
        self.assertEqual(st.f_namemax, 255)
        self.assertGreaterEqual(st.f_blocks * st.f_frsize, (5 << 20) + 100000)
        self.assertEqual((st.f_bfree, st.f_bavail), (0, 0))
        self.assertEqual(st.f_files, 5)
        self.assertTrue(st.f_flag & os.ST_RDONLY)

    def test_xattrs(self):
        capability = b'\1\0\0\2\0\x20' + bytes(14)
        content = images.tar(
            images.entry('x', b'x', pax_headers={'SCHILY.xattr.user.comment': 'hello', 'SCHILY.xattr.trusted.note': 'root'}),
            images.entry('cap', b'x', pax_headers={'SCHILY.xattr.security.capability': capability.decode('latin-1')}),
            images.entry('none', b'x'))
        layout = images.Layout(self.bed.dir / 'xattrs')
        layout.add_image('v1', [images.Layer.of(content)])
        mount = self.bed.mount('oci:%s:v1' % layout.path)
        self.assertEqual(sorted(os.listxattr(mount.path / 'x')), ['trusted.note', 'user.comment'])
        self.assertEqual(os.getxattr(mount.path / 'x', 'user.comment'), b'hello')
        self.assertEqual(os.getxattr(mount.path / 'cap', 'security.capability'), capability)
        self.assertEqual(os.listxattr(mount.path / 'none'), [])
        with self.assertRaises(OSError) as caught:
            os.getxattr(mount.path / 'none', 'user.comment')
        self.assertEqual(caught.exception.errno, errno.ENODATA)

    def test_the_tree_is_read_only(self):
        mount = self.bed.mount(self.reference)
        for action in (lambda: open(mount.path / 'data', 'r+b'), lambda: os.unlink(mount.path / 'data'),
                       lambda: os.mkdir(mount.path / 'new'), lambda: os.chmod(mount.path / 'data', 0),
                       lambda: os.setxattr(mount.path / 'data', 'user.x', b'x')):
            with self.assertRaises(OSError) as caught:
                action()
            self.assertEqual(caught.exception.errno, errno.EROFS)

    def test_blocks_and_sizes(self):
        mount = self.bed.mount(self.reference)
        st = os.stat(mount.path / 'data')
        self.assertEqual((st.st_size, st.st_blocks), (100000, 196))

    def test_reads_at_any_place_and_past_the_end(self):
        mount = self.bed.mount(self.reference)
        whole = images.text(8, 5 << 20)
        fd = os.open(mount.path / 'text', os.O_RDONLY)
        try:
            for offset, size in ((0, 1), (1, 70000), ((2 << 20) - 5, 10), ((4 << 20) - 1, 1 << 20), ((5 << 20) - 1, 10), (5 << 20, 10),
                                 (1 << 40, 10)):
                self.assertEqual(os.pread(fd, size, offset), whole[offset:offset + size])
        finally:
            os.close(fd)

    def test_mmap(self):
        mount = self.bed.mount(self.reference)
        self.bed.store.forget_content()
        with open(mount.path / 'text', 'rb') as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as m:
            self.assertEqual(m[:], images.text(8, 5 << 20))

    def test_lookups_of_what_is_not_there(self):
        mount = self.bed.mount(self.reference)
        for name in ('nothing', 'etc/nothing', 'n' * 255, 'data/below'):
            self.assertFalse(os.path.exists(mount.path / name))
        self.assertFalse((mount.path / 'nothing').exists())
        with self.assertRaises(OSError):
            os.stat(mount.path / ('n' * 256))
        self.assertEqual(sorted(os.listdir(mount.path)), ['data', 'etc', 'text'])


class UserTest(TestCase):
    """A plain user, through fusermount3. /dev/fuse is open to everybody on real systems; where it isn't, for the test's time."""

    def setUp(self):
        super().setUp()
        mode = os.stat('/dev/fuse').st_mode
        os.chmod('/dev/fuse', 0o666)
        self.addCleanup(os.chmod, '/dev/fuse', mode & 0o7777)
        layout = images.Layout(self.bed.dir / 'layout')
        content = images.tar(images.entry('shadow', b'secret\n', mode=0o600), images.entry('suid', b'x', mode=0o4755),
                             images.entry('private', kind=tarfile.DIRTYPE, mode=0o700), images.entry('private/x', b'inside\n'))
        layout.add_image('v1', [images.Layer.of(content)])
        self.reference = 'oci:%s:v1' % layout.path
        run('chown', '-R', '%d:%d' % (NOBODY, NOBODY), self.bed.dir)
        # The binary may lie where only root may look.
        self.binary = self.bed.dir / 'regfs'
        shutil.copy(regfs_binary(), self.binary)
        self.directory = self.bed.mkdir()
        os.chown(self.directory, NOBODY, NOBODY)

    def as_user(self, *argv):
        return subprocess.run([*AS_NOBODY, *map(str, argv)], env=self.bed.environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=60)

    def mount(self, *options):
        done = self.as_user(self.binary, 'mount', *options, self.reference, self.directory)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, b'', b''))
        entry = json.loads(self.as_user(self.binary, 'mounts', '--json').stdout)
        return next(m for m in entry if m['directory'] == str(self.directory))['pid']

    def test_mount_and_umount(self):
        for argv in ([self.binary, 'umount'], ['fusermount3', '-u']):
            with self.subTest(str(argv[0])):
                pid = self.mount()
                self.assertEqual(os.stat('/proc/%d' % pid).st_uid, NOBODY)
                # The mounter reads everything, whatever the image's modes say.
                self.assertEqual(self.as_user('cat', self.directory / 'shadow').stdout, b'secret\n')
                self.assertEqual(self.as_user('cat', self.directory / 'private/x').stdout, b'inside\n')
                self.assertEqual(self.as_user('stat', '-c', '%a %u', self.directory / 'suid').stdout, b'4755 0\n')
                with open('/proc/self/mountinfo') as f:
                    options = next(l.split()[5] for l in f if ' %s ' % self.directory in l).split(',')
                self.assertTrue({'nosuid', 'nodev', 'ro'} <= set(options), options)
                # Others, root included, are kept out without allow_other.
                with self.assertRaises(PermissionError):
                    os.listdir(self.directory)
                done = self.as_user(*argv, self.directory)
                self.assertEqual((done.returncode, done.stderr), (0, b''))
                wait_until(lambda: not alive(pid), 'the daemon ends')
                self.assertFalse(self.bed.is_mounted(self.directory))

    def test_default_permissions(self):
        self.mount('-o', 'default_permissions')
        self.assertNotEqual(self.as_user('cat', self.directory / 'shadow').returncode, 0)
        self.assertEqual(self.as_user('cat', self.directory / 'suid').stdout, b'x')

    def test_roots_mount_for_everybody(self):
        mount = self.bed.mount(self.reference)
        self.assertNotEqual(self.as_user('ls', mount.path).returncode, 0)
        mount.umount()
        mount = self.bed.mount(self.reference, '-o', 'allow_other,default_permissions')
        self.assertEqual(self.as_user('cat', mount.path / 'suid').stdout, b'x')
        self.assertNotEqual(self.as_user('cat', mount.path / 'shadow').returncode, 0)
        mount.umount()

    def test_the_store_is_private(self):
        self.mount()
        self.assertEqual(os.stat(self.bed.store.path).st_mode & 0o777, 0o700)

    def test_store_of_another_user(self):
        foreign = self.bed.dir / 'foreign'
        foreign.mkdir(mode=0o777)
        os.chmod(foreign, 0o777)
        done = self.as_user(self.binary, 'mount', '--cache-dir', foreign, self.reference, self.directory)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(b'foreign', done.stderr)
        self.assertFalse(self.bed.is_mounted(self.directory))

    def test_stale_mount(self):
        pid = self.mount()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not alive(pid), 'killed')
        done = self.as_user(self.binary, 'mount', self.reference, self.directory)
        self.assertEqual(done.returncode, CANNOT_MOUNT)
        self.assertIn(b'stale', done.stderr)
        done = self.as_user(self.binary, 'umount', self.directory)
        self.assertEqual((done.returncode, done.stderr), (0, b''))
        self.assertFalse(self.bed.is_mounted(self.directory))

    def test_no_dev_fuse(self):
        os.chmod('/dev/fuse', 0o600)
        done = self.as_user(self.binary, 'mount', self.reference, self.directory)
        self.assertEqual(done.returncode, CANNOT_MOUNT)
        self.assertIn(b'/dev/fuse', done.stderr)


class StaleTest(MountCase):
    def test_a_killed_daemon(self):
        mount = self.bed.mount(self.reference)
        # The kernel keeps attributes for as long as it likes: that the directory can be looked at says nothing.
        self.assertEqual(sorted(os.listdir(mount.path)), ['data', 'etc', 'text'])
        os.stat(mount.path)
        os.kill(mount.pid, signal.SIGKILL)
        wait_until(lambda: not alive(mount.pid), 'killed')
        self.bed.mount_fails(CANNOT_MOUNT, self.reference, directory=mount.path, keeps_layers=True,
                             words=['stale', 'regfs umount', str(mount.path)])
        result = self.bed.regfs('umount', mount.path)
        self.assertEqual(result[:3], (0, '', ''))
        self.assertFalse(self.bed.is_mounted(mount.path))
        again = self.bed.mount(self.reference, directory=mount.path)
        self.assertEqual(again.read('etc/os-release'), b'ID=small\n')
        again.umount()

    def test_auto_unmount_cleans_up(self):
        """fusermount3 notices the daemon's end by a socket, and then looks whether the mount is dead. Under load it may look
        before the kernel has closed /dev/fuse, and leaves the mount alone: a race of its own, hence more than one try."""
        for _ in range(4):
            mount = self.bed.mount(self.reference, '-o', 'auto_unmount')
            os.kill(mount.pid, signal.SIGKILL)
            with contextlib.suppress(AssertionError):
                wait_until(lambda: not self.bed.is_mounted(mount.path), 'unmounted', 3)
                return
        self.fail('killed four times, and never unmounted')

    def test_a_daemon_killed_while_it_indexes_leaves_nothing_bad(self):
        registry = Registry(self.bed)
        registry.push(self.layout, self.image, 'small:v1')
        proxy = FaultProxy(self.bed, registry.port)
        proxy.rule(lambda x: x.send_answer(x.forward(), piece=2000, pause=0.1), path='/blobs/')
        directory = self.bed.mkdir()
        process = self.bed.start(regfs_binary(), 'mount', '--plain-http', '%s/small:v1' % proxy.host, directory)
        wait_until(lambda: self.bed.store.drafts(), 'indexing begins')
        for pid in [*self.bed.daemons(), process.pid]:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        process.wait(10)
        self.assertEqual(self.bed.store.layers(), [])
        proxy.clear()
        mount = self.bed.mount('%s/small:v1' % proxy.host, '--plain-http')
        self.assertEqual(mount.read('text'), images.text(8, 5 << 20))


class DirectoryTest(MountCase):
    """DIR that can't be mounted on: known before anything is fetched."""

    def fails(self, directory, *words):
        return self.bed.mount_fails(CANNOT_MOUNT, 'localhost:1/never/asked', directory=directory, words=[str(directory), *words])

    def test_missing(self):
        self.fails(self.bed.dir / 'nothing', 'No such file or directory')

    def test_a_file(self):
        self.fails(self.bed.write('file', b''), 'not a directory')

    def test_below_a_file(self):
        self.fails(self.bed.write('file', b'') / 'below', 'Not a directory')

    def test_busy_with_an_image(self):
        mount = self.bed.mount(self.reference)
        self.bed.mount_fails(CANNOT_MOUNT, self.reference, directory=mount.path, keeps_layers=True,
                             words=['busy', self.reference, 'regfs umount'])
        self.assertEqual(mount.read('etc/os-release'), b'ID=small\n')

    def test_busy_with_another_filesystem(self):
        directory = self.bed.mkdir()
        run('mount', '-t', 'tmpfs', 'none', directory)
        self.fails(directory, 'busy')

    def test_files_in_it_are_no_hindrance(self):
        directory = self.bed.mkdir()
        (directory / 'file').write_text('mine')
        mount = self.bed.mount(self.reference, directory=directory)
        self.assertFalse((directory / 'file').exists())
        mount.umount()
        self.assertEqual((directory / 'file').read_text(), 'mine')

    def test_no_fuse_device(self):
        # In a namespace of its own, where /dev holds nothing.
        directory = self.bed.mkdir()
        script = 'mount -t tmpfs none /dev && mknod /dev/null c 1 3 && exec "$@"'
        result = self.bed.regfs('mount', self.reference, directory, prefix=('unshare', '-m', 'sh', '-c', script, 'sh'))
        self.assertEqual(result.code, CANNOT_MOUNT)
        self.assertIn('/dev/fuse', result.err)


class ArchiveTest(MountCase):
    def archive(self, name='archive.tar', tag='small:v1'):
        path = self.bed.dir / name
        run('skopeo', 'copy', '--quiet', '--insecure-policy', self.reference, 'docker-archive:%s:%s' % (path, tag))
        return path

    def check(self, reference):
        mount = self.bed.mount(reference)
        self.assertEqual(mount.read('etc/os-release'), b'ID=small\n')
        self.assertEqual(mount.read('text'), images.text(8, 5 << 20))
        mount.umount()
        self.bed.store.forget_content()
        mount = self.bed.mount(reference)
        self.assertEqual(mount.read('text'), images.text(8, 5 << 20))
        mount.umount()

    def test_docker_archive(self):
        path = self.archive()
        self.check('docker-archive:%s' % path)
        self.check('docker-archive:%s:small:v1' % path)
        self.bed.mount_fails(3, 'docker-archive:%s:small:v2' % path, words=['v2', 'small:v1'], keeps_layers=True)

    def test_docker_archive_of_two_images(self):
        """As `docker save` of docker 25 and later writes it: an OCI layout with a manifest.json."""
        save = self.bed.mkdir('save')
        blobs = save / 'blobs/sha256'
        blobs.mkdir(parents=True)
        manifest = []
        for tag in ('a:1', 'b:1'):
            content = images.tar(images.entry('tag', tag.encode()))
            config = json.dumps(self.layout.config([images.Layer.of(content, 'plain')])).encode()
            for blob in (content, config):
                (blobs / images.sha256(blob)[7:]).write_bytes(blob)
            manifest.append({'Config': 'blobs/sha256/' + images.sha256(config)[7:], 'RepoTags': [tag],
                             'Layers': ['blobs/sha256/' + images.sha256(content)[7:]]})
        (save / 'manifest.json').write_text(json.dumps(manifest))
        archive = self.bed.dir / 'two.tar'
        run('tar', '-C', save, '-cf', archive, '.')
        for tag in ('a:1', 'b:1'):
            mount = self.bed.mount('docker-archive:%s:%s' % (archive, tag))
            self.assertEqual(mount.read('tag'), tag.encode())
            mount.umount()
        self.bed.mount_fails(USAGE, 'docker-archive:%s' % archive, words=['a:1', 'b:1'], keeps_layers=True)

    def test_layout_without_tag(self):
        self.check('oci:%s' % self.layout.path)


if __name__ == '__main__':
    unittest.main()
