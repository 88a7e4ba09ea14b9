# SPDX-License-Identifier: Apache-2.0
"""A mounted tree is the tree that umoci unpacks: of the fixtures in every compression, through a real registry, and of an image
that nobody here shaped, built by apt."""
import fcntl
import hashlib
import io
import json
import os
import pathlib
import shutil
import tarfile
import unittest

import images
from oracle import Oracle
from registry import Registry
from testbed import FIXTURES, TestCase, run


def compare(test, oracle, mounted, what):
    lines = oracle.differences(mounted)
    if lines:
        test.fail('%s: %d differences\n%s' % (what, len(lines), '\n'.join(lines[:40])))


class OracleTest(TestCase):
    """The comparison itself sees what it is for."""

    def test_differences_are_seen(self):
        layout = images.Layout(self.bed.dir / 'layout')
        layout.add_image('v1', images.fixture_layers('gzip'))
        oracle = Oracle(layout.path, 'v1', self.bed.dir / 'unpacked', images.fixture_tars().values())
        pristine, copy = str(self.bed.dir / 'pristine'), str(self.bed.dir / 'copy')
        run('cp', '-a', oracle.root, pristine)
        for path, item in oracle.tree.items():
            if item['type'] == 'directory' and item['mtime'] >= oracle.begin_ns:
                time_ns = oracle.named_times.get(os.fsdecode(path), 0)
                os.utime(os.path.join(os.fsencode(pristine), path), ns=(time_ns, time_ns))
        run('cp', '-a', pristine, copy)
        self.assertEqual(oracle.differences(copy), [])

        def spoil(what, path, action):
            with self.subTest(what):
                target = os.path.join(copy, path)
                action(target)
                lines = oracle.differences(copy)
                self.assertTrue(any(what in line for line in lines), lines)
                shutil.rmtree(copy)
                run('cp', '-a', pristine, copy)

        spoil('mode is', 'bin/tool', lambda p: os.chmod(p, 0o755))
        spoil('uid is', 'etc/shadow', lambda p: os.chown(p, 1, 42))
        spoil('mtime is', 'srv/nanoseconds', lambda p: os.utime(p, ns=(0, 1700000000123456788)))
        spoil('sha256 is', 'noise-300k', lambda p: _flip(p, 299_999))
        spoil('xattrs is', 'srv/xattrs', lambda p: os.setxattr(p, 'user.comment', b'hallo'))
        spoil('target is', 'bin/sh', lambda p: (os.unlink(p), os.symlink('tool2', p)))
        spoil('nlink is', 'bin/tool', lambda p: os.link(p, p + '2'))
        spoil('is missing', 'empty', os.unlink)
        spoil('should not be there', 'etc/new', lambda p: open(p, 'w').close())
        spoil('rdev is', 'srv/null', lambda p: (os.unlink(p), os.mknod(p, 0o20666, os.makedev(1, 5))))


def _flip(path, offset):
    st = os.stat(path)
    with open(path, 'r+b') as f:
        f.seek(offset)
        byte = f.read(1)[0]
        f.seek(offset)
        f.write(bytes([byte ^ 1]))
    os.utime(path, ns=(st.st_atime_ns, st.st_mtime_ns))


class FixtureTest(TestCase):
    """The fixtures' three layers, in each compression."""

    @classmethod
    def set_up_shared(cls):
        cls.registry = Registry(cls.shared)
        cls.layout = images.Layout(cls.shared.dir / 'layout')
        for compression in images.COMPRESSIONS:
            cls.layout.add_image(compression, images.fixture_layers(compression))
            cls.registry.push_layout(cls.layout, compression, 'fixture:' + compression)
        cls.oracle = Oracle(cls.layout.path, 'gzip', cls.shared.dir / 'unpacked', images.fixture_tars().values())

    def check(self, compression):
        reference = '%s/fixture:%s' % (self.registry.host, compression)
        mount = self.bed.mount(reference, '--plain-http')
        compare(self, self.oracle, mount.path, compression)
        compare(self, self.oracle, mount.path, compression + ', again')
        mount.umount()

        # A known image, and every chunk has to be fetched by itself.
        self.bed.store.forget_content()
        mount = self.bed.mount('%s/fixture@%s' % (self.registry.host, mount.digest), '--plain-http')
        compare(self, self.oracle, mount.path, compression + ', chunk by chunk')
        self.assertIn('flight begins', mount.log())
        mount.umount()

        # And once more out of what those reads have stored.
        self.registry_is_not_asked(mount.digest, compression)

    def registry_is_not_asked(self, digest, compression):
        mount = self.bed.mount('%s/fixture@%s' % (self.registry.host, digest), '--plain-http')
        compare(self, self.oracle, mount.path, compression + ', out of the store')
        self.assertNotIn('flight begins', mount.log())
        mount.umount()

    def test_gzip(self):
        self.check('gzip')

    def test_pigz(self):
        self.check('pigz')

    def test_gzip_of_many_members(self):
        self.check('members')

    def test_zstd(self):
        self.check('zstd')

    def test_plain(self):
        self.check('plain')

    def test_layout_and_registry_are_one_image(self):
        for compression in ('gzip', 'zstd'):
            mount = self.bed.mount('oci:%s:%s' % (self.layout.path, compression))
            compare(self, self.oracle, mount.path, 'layout, ' + compression)
            mount.umount()

    def test_inode_numbers_stay(self):
        reference = '%s/fixture:gzip' % self.registry.host
        numbers = []
        for _ in range(2):
            mount = self.bed.mount(reference, '--plain-http')
            numbers.append({path: os.lstat(os.path.join(root, path)).st_ino
                            for root, dirs, files in os.walk(mount.path) for path in dirs + files})
            mount.umount()
        self.assertGreater(len(numbers[0]), 500)
        self.assertEqual(*numbers)


class DemoTest(TestCase):
    """The sample image of the repository, one layer of each kind."""

    def test_demo(self):
        # umoci of Debian 12 knows no zstd: the same tars, without compression, are what it unpacks.
        demo = FIXTURES / 'demo'
        run('skopeo', 'copy', '--quiet', '--insecure-policy', '--dest-decompress', 'oci:%s:demo' % demo,
            'dir:%s' % (self.bed.dir / 'plain'))
        layout = images.Layout(self.bed.dir / 'layout')
        manifest = json.loads((self.bed.dir / 'plain/manifest.json').read_text())
        tars = [(self.bed.dir / 'plain' / l['digest'].partition(':')[2]).read_bytes() for l in manifest['layers']]
        layout.add_image('demo', [images.Layer.of(t) for t in tars])
        oracle = Oracle(layout.path, 'demo', self.bed.dir / 'unpacked', tars)
        mount = self.bed.mount('oci:%s:demo' % demo)
        compare(self, oracle, mount.path, 'demo')
        mount.umount()


DOCKERFILE = '''\
FROM scratch
ADD base.tar /
RUN apt-get update && apt-get install -y --no-install-recommends less bsdextrautils && rm -rf /var/lib/apt/lists/*
RUN rm -rf /usr/share/doc /usr/share/man && ln -s less /usr/bin/more-or-less && chmod 4711 /usr/bin/less && \\
    ln /usr/bin/less /usr/local/bin/less && setfacl --version >/dev/null 2>&1; \\
    mv /etc/motd /etc/motd.old 2>/dev/null; echo changed > /etc/issue && chown 100:200 /etc/issue
RUN dpkg --purge bsdextrautils && rm -rf /var/cache/apt && mkdir /var/cache/apt && echo again > /var/cache/apt/again
RUN rm /etc/issue && mkdir /etc/issue && touch -d 1969-12-31 /etc/issue/old && mkfifo /srv/fifo
'''
MMDEBSTRAP = ['mmdebstrap', '--quiet', '--variant=apt', '--dpkgopt=path-exclude=/usr/share/locale/*',
              '--dpkgopt=path-exclude=/usr/share/info/*', 'bookworm']


def debian_image():
    """The layout of an image that buildah built in several steps with apt, tag "debian". Needs Debian's mirror the first time;
    kept in $REGFS_TEST_CACHE (~/.cache/regfs-tests)."""
    cache = pathlib.Path(os.environ.get('REGFS_TEST_CACHE') or os.path.expanduser('~/.cache/regfs-tests'))
    cache.mkdir(parents=True, exist_ok=True)
    key = hashlib.sha256((DOCKERFILE + ' '.join(MMDEBSTRAP)).encode()).hexdigest()[:16]
    done = cache / ('debian-' + key)
    with open(cache / 'lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            draft = cache / ('draft-' + key)
            shutil.rmtree(draft, ignore_errors=True)
            _build(draft)
            draft.rename(done)
    return done


def _build(directory):
    work = directory / 'work'
    work.mkdir(parents=True)
    run(*MMDEBSTRAP, work / 'base.tar', timeout=900)
    (work / 'Dockerfile').write_text(DOCKERFILE)
    (work / 'policy.json').write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    (work / 'storage.conf').write_text('[storage]\ndriver = "vfs"\ngraphroot = "%s/storage"\nrunroot = "%s/run"\n' % (work, work))
    environ = dict(os.environ, BUILDAH_ISOLATION='chroot', CONTAINERS_STORAGE_CONF=str(work / 'storage.conf'), STORAGE_DRIVER='vfs')
    # --layers: a layer for every step, whiteouts included.
    run('buildah', 'build', '--layers', '--signature-policy', work / 'policy.json', '-t', 'debian', work, env=environ, timeout=900)
    run('skopeo', 'copy', '--quiet', '--insecure-policy', 'containers-storage:localhost/debian',
        'oci:%s:debian' % (directory / 'layout'), env=environ, timeout=600)
    shutil.rmtree(work)


class DebianTest(TestCase):
    def assert_layers_hide_something(self, layout):
        index = json.loads((layout / 'index.json').read_text())

        def read(digest):
            return (layout / 'blobs/sha256' / digest[7:]).read_bytes()

        layers = json.loads(read(index['manifests'][0]['digest']))['layers']
        self.assertGreaterEqual(len(layers), 5)
        hidden = 0
        for layer in layers[1:]:
            with tarfile.open(fileobj=io.BytesIO(read(layer['digest']))) as t:
                hidden += sum(os.path.basename(name).startswith('.wh.') for name in t.getnames())
        self.assertGreater(hidden, 10)

    def test_image_built_with_apt(self):
        layout = debian_image() / 'layout'
        registry = Registry(self.bed)
        run('skopeo', 'copy', '--quiet', '--insecure-policy', '--preserve-digests', '--dest-tls-verify=false',
            'oci:%s:debian' % layout, 'docker://%s/debian:built' % registry.host)
        oracle = Oracle(layout, 'debian', self.bed.dir / 'unpacked')
        self.assertGreater(len(oracle.tree), 3000)
        self.assert_layers_hide_something(layout)
        mount = self.bed.mount('%s/debian:built' % registry.host, '--plain-http')
        compare(self, oracle, mount.path, 'debian')
        mount.umount()
        self.bed.store.forget_content()
        mount = self.bed.mount('%s/debian:built' % registry.host, '--plain-http')
        compare(self, oracle, mount.path, 'debian, chunk by chunk')
        mount.umount()


if __name__ == '__main__':
    unittest.main()
