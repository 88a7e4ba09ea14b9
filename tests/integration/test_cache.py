# SPDX-License-Identifier: Apache-2.0
"""regfs cache: what it tells of a store is what is there, what is damaged goes and comes back right, and no mount suffers from any
of it."""
import contextlib
import itertools
import json
import os
import pathlib
import signal
import subprocess
import threading
import time
import unittest
from concurrent.futures import ThreadPoolExecutor

import images
from fault_proxy import FaultProxy, hang
from oracle import Oracle
from registry import Registry
from testbed import BAD_DATA, CANNOT_MOUNT, NOT_FOUND, USAGE, TestCase, alive, forget_pages, regfs_binary, run, wait_until

MIB = 1 << 20
LONG_AGO = 40 * 86400


def children_of(pid):
    found = set()
    for entry in pathlib.Path('/proc').glob('[0-9]*/stat'):
        with contextlib.suppress(OSError):
            if int(entry.read_text().rpartition(')')[2].split()[1]) == pid:
                found.add(int(entry.parent.name))
    return found


class CacheCase(TestCase):
    """Three images of four layers: all have the first, two the second."""
    IMAGES = {'one': ('base', 'tools'), 'two': ('base', 'docs'), 'three': ('base', 'tools', 'app')}

    @classmethod
    def set_up_shared(cls):
        cls.registry = Registry(cls.shared)
        cls.layout = images.Layout(cls.shared.dir / 'layout')
        cls.tars = {name: images.tar(images.entry('etc', kind=images.tarfile.DIRTYPE), images.entry('etc/' + name, name.encode()),
                                     images.entry(name + '.noise', images.noise(n, 5 * MIB)),
                                     images.entry(name + '.text', images.text(n, 3 * MIB)))
                    for n, name in enumerate(('base', 'tools', 'docs', 'app'))}
        cls.layers = {name: images.Layer.of(data) for name, data in cls.tars.items()}
        cls.manifests, cls.oracles = {}, {}
        for tag, names in cls.IMAGES.items():
            cls.manifests[tag] = cls.layout.add_image(tag, [cls.layers[n] for n in names])
            cls.registry.push(cls.layout, cls.manifests[tag], 'img:' + tag)
            cls.oracles[tag] = Oracle(cls.layout.path, tag, cls.shared.dir / ('oracle-' + tag), [cls.tars[n] for n in names])

    def setUp(self):
        super().setUp()
        self.proxy = FaultProxy(self.bed, self.registry.port)

    def digest_of(self, name):
        return images.sha256(self.layers[name].blob)

    def reference(self, tag):
        return '%s/img:%s' % (self.proxy.host, tag)

    def mount(self, tag):
        return self.bed.mount(self.reference(tag), '--plain-http')

    def fill(self, *tags):
        """Mounts and unmounts the images: their layers are then in the store whole."""
        for tag in tags or self.IMAGES:
            self.mount(tag).umount()

    def cache(self, *args, code=0):
        """What a cache command prints as JSON."""
        result = self.bed.regfs('cache', *args, '--json')
        self.assertEqual((result.code, result.err), (code, ''), result)
        return json.loads(result.out)

    def says(self, *args, code=0):
        result = self.bed.regfs('cache', *args)
        self.assertEqual(result.code, code, result)
        return result.out

    def layer_path(self, name):
        return self.bed.store.path / 'layers/sha256' / self.digest_of(name).partition(':')[2] / 'plain'

    def age(self, path, seconds=LONG_AGO):
        """Nobody has used PATH, or what is in that directory, for so long."""
        when = time.time() - seconds
        for p in [path, *path.rglob('*')] if path.is_dir() else [path]:
            os.utime(p, (when, when))

    def check_tree(self, mount, tag):
        self.assertEqual(self.oracles[tag].differences(mount.path), [])

    def files(self):
        """Every file of the store with what stat tells."""
        return {p.relative_to(self.bed.store.path).as_posix(): p.stat()
                for p in self.bed.store.path.rglob('*') if p.is_file() and p.name != 'lock'}


class TellingTest(CacheCase):
    def test_an_empty_store(self):
        info = self.cache('info')
        self.assertEqual((info['images'], info['layers'], info['size'], info['diskSize']), (0, 0, 0, 0))
        self.assertEqual(self.cache('list')['images'], [])
        self.assertEqual(self.cache('verify')['problems'], [])
        self.says('prune')
        self.says('clear')

    def test_a_directory_that_is_no_store_does_not_become_one(self):
        there = self.bed.mkdir('notes')
        (there / 'thesis').write_text('x')
        for directory, words in ((there, 'there is no store'), (self.bed.dir / 'slip', 'No such file')):
            for command in ('info', 'list', 'verify', 'prune', 'clear'):
                result = self.bed.regfs('cache', command, '--cache-dir', directory)
                self.assertEqual((result.code, result.out), (NOT_FOUND, ''), result)
                self.assertIn('%s: %s' % (directory, words), result.err)
        self.assertEqual([p.name for p in there.iterdir()], ['thesis'])
        self.assertFalse((self.bed.dir / 'slip').exists())

    def test_sums(self):
        """What images share counts once, and all together is what is on the disk."""
        self.fill()
        files, info = self.files(), self.cache('info')
        self.assertEqual(info['size'], sum(st.st_size for st in files.values()))
        self.assertEqual(info['diskSize'], sum(st.st_blocks * 512 for st in files.values()))
        self.assertEqual(sum(k['diskSize'] for k in info['kinds'].values()), info['diskSize'])
        self.assertEqual((info['images'], info['layers'], info['sharedLayers'], info['unreferencedLayers']), (3, 4, 2, 0))
        counts = {name: kind['count'] for name, kind in info['kinds'].items()}
        # The blobs are three manifests and three configs.
        self.assertEqual(counts, {'tocs': 4, 'content': 4, 'maps': 4, 'images': 3, 'blobs': 6, 'refs': 3, 'drafts': 0,
                                  'leftovers': 0})
        self.assertEqual(info['kinds']['content']['size'], sum(st.st_size for p, st in files.items() if p.endswith('/content')))
        self.assertTrue(info['locks'])
        self.assertFalse(info['readOnly'])
        self.assertEqual(info['directory'], str(self.bed.store.path))
        self.assertEqual(info['filesystem'], run('stat', '-f', '-c', '%T', self.bed.store.path).strip().replace('ext2/ext3', 'ext4'))

    def test_list(self):
        self.fill()
        listed = self.cache('list')
        layers = {l['digest']: l for l in listed['layers']}
        self.assertEqual({d: l['images'] for d, l in layers.items()},
                         {self.digest_of('base'): 3, self.digest_of('tools'): 2, self.digest_of('docs'): 1, self.digest_of('app'): 1})
        for name in self.layers:
            layer = layers[self.digest_of(name)]
            self.assertEqual(layer['blobSize'], len(self.layers[name].blob))
            self.assertEqual(layer['contentSize'], len(self.tars[name]))
            self.assertEqual(layer['contentPresent'], layer['contentSize'])
            self.assertEqual(layer['diskSize'], sum(p.stat().st_blocks * 512 for p in self.layer_path(name).iterdir()))
        by_reference = {i['references'][0]: i for i in listed['images']}
        self.assertEqual(set(by_reference), {self.reference(tag) for tag in self.IMAGES})
        for tag, names in self.IMAGES.items():
            image = by_reference[self.reference(tag)]
            self.assertEqual(image['manifest'], self.manifests[tag]['digest'])
            self.assertEqual(image['platform'], 'linux/amd64')
            self.assertEqual([(l['digest'], l['kind'], l['shared']) for l in image['layers']],
                             [(self.digest_of(n), 'plain', n in ('base', 'tools')) for n in names])
            index = (self.bed.store.path / 'images' / image['key']).stat().st_blocks * 512
            self.assertEqual(image['diskSize'], index + sum(layers[self.digest_of(n)]['diskSize'] for n in names))
            self.assertEqual(image['ownDiskSize'], index + sum(layers[self.digest_of(n)]['diskSize'] for n in names
                                                               if n in ('docs', 'app')))
            self.assertFalse(image['inUse'])
        # Shared parts are in the total once.
        self.assertLess(listed['diskSize'], sum(i['diskSize'] for i in listed['images']))
        text = self.says('list')
        for word in (self.digest_of('app'), self.reference('two'), 'shared by 3 images', '3 images, 4 layers (2 shared)'):
            self.assertIn(word, text)

    def test_what_is_no_longer_there(self):
        self.fill()
        self.bed.store.forget_content()
        key = next(i['key'] for i in self.cache('list')['images'] if self.reference('two') in i['references'])
        (self.bed.store.path / 'images' / key).unlink()
        listed = self.cache('list')
        self.assertEqual([l['contentPresent'] for l in listed['layers']], [0] * 4)
        self.assertEqual([l['digest'] for l in listed['layers'] if l['images'] == 0], [self.digest_of('docs')])
        self.assertEqual(self.cache('info')['unreferencedLayers'], 1)
        self.assertIn('layers of no image', self.says('list'))

    def test_a_mounted_image_is_in_use(self):
        self.fill()
        mount = self.mount('two')
        listed = self.cache('list')
        self.assertEqual([i['references'] for i in listed['images'] if i['inUse']], [[self.reference('two')]])
        self.assertEqual({l['digest'] for l in listed['layers'] if l['inUse']}, {self.digest_of('base'), self.digest_of('docs')})
        mount.umount()
        self.assertFalse(any(l['inUse'] for l in self.cache('list')['layers']))

    def test_an_image_for_several_platforms(self):
        """Its tag leads to the index, which leads to the image."""
        index = self.layout.add_index('multi', {'linux/amd64': self.manifests['one'], 'linux/arm64': self.manifests['two']})
        self.registry.push(self.layout, index, 'img:multi')
        self.mount('multi').umount()
        image, = self.cache('list')['images']
        self.assertEqual((image['references'], image['manifest']), ([self.reference('multi')], self.manifests['one']['digest']))

    def test_foreign_files(self):
        self.fill('one')
        secret = self.bed.write('outside/secret', b'x' * 100000)
        store = self.bed.store.path
        foreign = ['notes.txt', 'layers/sha256/README', 'layers/sha256/' + 'z' * 64, 'blobs/link', 'images/short', 'tmp/mine']
        for path in foreign:
            (store / path).write_bytes(b'mine')
        (store / 'layers/link').symlink_to(secret.parent)
        foreign.append('layers/link')
        inside = self.layer_path('base') / 'note'
        inside.write_bytes(b'mine')
        foreign.append(inside.relative_to(store).as_posix())
        before = self.cache('info')
        self.assertEqual(sorted(before['foreign']), sorted(foreign))
        self.assertLess(before['size'], sum(p.stat().st_size for p in store.rglob('*') if p.is_file()))
        self.says('verify')
        self.says('clear')
        self.assertEqual(sorted(self.files()), sorted(p for p in foreign if p != 'layers/link'))
        self.assertTrue(secret.exists())
        self.check_tree(self.mount('one'), 'one')

    def test_usage(self):
        for args in ((), ('empty',), ('info', 'x'), ('info', '--force'), ('list', '--max-size=1G'), ('prune', '--older-than=30'),
                     ('prune', '--older-than=d'), ('prune', '--max-size=much'), ('clear', '--older-than=3d'), ('prune', '--older-than')):
            with self.subTest(args):
                result = self.bed.regfs('cache', *args)
                self.assertEqual((result.code, result.out), (USAGE, ''))
                self.assertRegex(result.err, r'\Aregfs: [^\n]+\n\Z')
        self.assertIn('regfs cache prune', self.says('--help'))


class VerifyTest(CacheCase):
    def flip(self, path, at=0.5):
        """AT: a byte's offset, or, below 1, a part of the file's length."""
        with open(path, 'r+b') as f:
            f.seek(at if at >= 1 else int(os.path.getsize(path) * at))
            byte = f.read(1)
            f.seek(-1, os.SEEK_CUR)
            f.write(bytes([byte[0] ^ 0x55]))

    def finds(self, path, words):
        """One problem is found, there, and thrown out; then all is well, and the next mount repairs what is missing."""
        found = self.cache('verify', code=BAD_DATA)
        self.assertEqual([(p['path'], p['removed']) for p in found['problems']],
                         [(path.relative_to(self.bed.store.path).as_posix(), True)])
        self.assertIn(words, found['problems'][0]['problem'])
        self.assertEqual(self.cache('verify')['problems'], [])
        for tag in self.IMAGES:
            mount = self.mount(tag)
            self.assertNotRegex(mount.log(), r' (warning|error) ')
            self.check_tree(mount, tag)
            mount.umount()
        self.assertEqual(self.cache('verify')['removed'], 0)

    def test_a_sound_store(self):
        self.fill()
        self.proxy.clear()
        result = self.cache('verify')
        self.assertEqual({k: result[k] for k in ('problems', 'layers', 'images', 'blobs', 'refs', 'removed')},
                         {'problems': [], 'layers': 4, 'images': 3, 'blobs': 6, 'refs': 3, 'removed': 0})
        self.assertEqual(result['bytes'], sum(len(t) for t in self.tars.values()))
        self.assertEqual(self.proxy.requests(), [])
        self.assertIn('no problems', self.says('verify'))

    def test_damage(self):
        self.fill()
        store = self.bed.store.path
        layer = self.layer_path('tools')
        manifest = store / 'blobs/sha256' / self.manifests['two']['digest'].partition(':')[2]
        with self.subTest('content'):
            self.flip(layer / 'content')
            self.finds(layer, 'wrong checksum')
        with self.subTest('map: a word'):
            self.flip(layer / 'map', 64 + 7)
            self.finds(layer, 'wrong checksum')
        with self.subTest('map: cut'):
            os.truncate(layer / 'map', os.path.getsize(layer / 'map') - 3)
            self.finds(layer, 'map: it is cut')
        with self.subTest('map: its header'):
            self.flip(layer / 'map', 12)
            self.finds(layer, 'map: it does not fit')
        with self.subTest('content: cut'):
            os.truncate(layer / 'content', 5000)
            self.finds(layer, 'content: it is cut')
        with self.subTest('toc'):
            self.flip(layer / 'toc')
            self.finds(layer, 'checksum is wrong')
        with self.subTest('toc: cut'):
            os.truncate(layer / 'toc', 100)
            self.finds(layer, 'the file is none')
        with self.subTest('image index'):
            index = sorted((store / 'images').iterdir())[0]
            self.flip(index)
            self.finds(index, 'checksum is wrong')
        with self.subTest("another image's index"):
            indexes = sorted((store / 'images').iterdir())
            indexes[0].write_bytes(indexes[1].read_bytes())
            self.finds(indexes[0], "another file's")
        with self.subTest('blob'):
            self.flip(manifest)
            self.finds(manifest, 'its digest is sha256:')
        with self.subTest('ref'):
            ref = next((store / 'refs').glob('*/*/two'))
            ref.write_bytes(b'sha256:123 now\n')
            self.finds(ref, 'no digest')

    def test_one_chunk_goes_and_no_more(self):
        self.fill('one')
        self.flip(self.layer_path('base') / 'content', 0.1)
        self.assertIn('1 problem, 1 thrown out', self.says('verify', code=BAD_DATA))
        layer, = (l for l in self.cache('list')['layers'] if l['digest'] == self.digest_of('base'))
        self.assertEqual(layer['chunksPresent'], layer['chunks'] - 1)

    def test_a_read_only_store(self):
        self.fill('one')
        self.flip(self.layer_path('base') / 'content')
        frozen = self.bed.mkdir('frozen')
        run('mount', '--bind', self.bed.store.path, frozen)
        run('mount', '-o', 'remount,bind,ro', frozen)
        found = self.cache('verify', '--cache-dir=%s' % frozen, code=BAD_DATA)
        self.assertEqual([p['removed'] for p in found['problems']], [False])
        self.assertTrue(self.cache('info', '--cache-dir=%s' % frozen)['readOnly'])
        result = self.bed.regfs('cache', 'clear', '--cache-dir=%s' % frozen)
        self.assertIn('Read-only file system', result.err)
        self.assertNotEqual(result.code, 0)


class PruneTest(CacheCase):
    def test_nothing_without_a_wish(self):
        self.fill()
        before = self.files()
        self.assertEqual(self.cache('prune')['removed'], [])
        self.assertEqual(set(self.files()), set(before))

    def test_older_than(self):
        self.fill()
        for path in self.files():
            self.age(self.bed.store.path / path)
        self.fill('one')
        pruned = self.cache('prune', '--older-than=30d')
        left = self.cache('list')
        self.assertEqual([i['references'] for i in left['images']], [[self.reference('one')]])
        self.assertEqual({l['digest'] for l in left['layers']}, {self.digest_of('base'), self.digest_of('tools')})
        self.assertEqual(pruned['diskSize'], left['diskSize'])
        # The manifest and the config of the image that stays are still there: only its tag is asked for.
        self.proxy.clear()
        self.check_tree(self.mount('one'), 'one')
        self.assertEqual([r.method for r in self.proxy.requests()], ['HEAD'])
        self.check_tree(self.mount('two'), 'two')

    def test_max_size(self):
        """Layers go, the one first that was not used for longest, until the rest fits."""
        self.fill()
        for n, name in enumerate(('docs', 'app', 'base', 'tools')):
            self.age(self.layer_path(name), 3600 - 60 * n)
        sizes = {name: sum(p.stat().st_blocks * 512 for p in self.layer_path(name).iterdir()) for name in self.layers}
        limit = (sizes['tools'] + sizes['base'] + MIB) // 1024
        pruned = self.cache('prune', '--max-size=%dK' % limit)
        self.assertEqual([r['path'].split('/')[2] for r in pruned['removed'] if r['kind'] == 'layer'],
                         [self.digest_of(n).partition(':')[2] for n in ('docs', 'app')])
        self.assertLessEqual(self.cache('info')['diskSize'], limit * 1024)
        self.assertEqual(len(self.cache('list')['images']), 3)
        self.cache('prune', '--max-size=1K')
        left = self.cache('list')
        self.assertEqual((left['images'], left['layers']), ([], []))
        self.check_tree(self.mount('two'), 'two')

    def test_what_is_in_use_stays(self):
        self.fill()
        mount = self.mount('two')
        for path in self.files():
            self.age(self.bed.store.path / path)
        for args in (('--max-size=1K',), ('--older-than=30d',)):
            pruned = self.cache('prune', *args)
            self.assertEqual(pruned['inUse'], [self.reference('two')])
            self.assertEqual({l['digest'] for l in self.cache('list')['layers'] if l['stored']},
                             {self.digest_of('base'), self.digest_of('docs')})
        self.proxy.close()
        self.check_tree(mount, 'two')

    def test_drafts(self):
        """A dead process's goes, a living one's stays, and its mount comes to its end."""
        go_on = threading.Event()
        for name in ('docs', 'app'):
            self.proxy.rule(hang(go_on), path='/blobs/' + self.digest_of(name))

        def drafts():
            """Of layers: others come and go in a moment."""
            return {d for d in self.bed.store.drafts() if d.startswith('layer-')}

        def start(tag):
            directory, known = self.bed.mkdir(), drafts()
            process = self.bed.start(regfs_binary(), 'mount', '--plain-http', self.reference(tag), directory, stderr=subprocess.PIPE)
            # The other layers are there already: what is written is the one that stalls.
            wait_until(lambda: drafts() - known, 'a draft')
            return process, directory, drafts() - known

        self.fill('one')
        living, directory, living_drafts = start('two')
        dead, _, dead_drafts = start('three')
        victims = {dead.pid} | children_of(dead.pid)
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        dead.wait()
        wait_until(lambda: not any(alive(pid) for pid in victims), 'the victims end')
        # Young ones may not be claimed yet: they stay.
        self.assertEqual(self.cache('prune')['removed'], [])
        for draft in living_drafts | dead_drafts:
            self.age(self.bed.store.path / 'tmp' / draft, 600)
        kinds = self.cache('info')['kinds']
        self.assertEqual((kinds['drafts']['count'], kinds['leftovers']['count']), (len(living_drafts), len(dead_drafts)))
        pruned = self.cache('prune')
        self.assertEqual({r['path'] for r in pruned['removed']}, {'tmp/' + d for d in dead_drafts})
        self.assertEqual(drafts(), living_drafts)
        self.says('clear', '--force')
        self.assertEqual(drafts(), living_drafts)
        go_on.set()
        self.assertEqual((living.wait(60), living.stderr.read()), (0, b''))
        self.assertEqual(self.oracles['two'].differences(directory), [])


class ClearTest(CacheCase):
    def test_everything(self):
        self.fill()
        cleared = self.cache('clear')
        self.assertEqual((cleared['diskSize'], cleared['kept'], cleared['inUse']), (0, 0, []))
        self.assertEqual(self.files(), {})
        self.assertEqual(list((self.bed.store.path / 'layers/sha256').iterdir()), [])
        self.check_tree(self.mount('three'), 'three')

    def test_a_running_mount(self):
        self.fill()
        mount = self.mount('one')
        text = self.says('clear', code=CANNOT_MOUNT)
        self.assertIn('%s: in use at %s' % (self.reference('one'), mount.path), text)
        left = self.cache('list')
        self.assertEqual([i['references'] for i in left['images']], [[self.reference('one')]])
        self.assertEqual(len(left['layers']), 2)
        # Nothing that it needs is gone.
        self.proxy.clear()
        self.check_tree(mount, 'one')
        self.check_tree(self.bed.mount('%s/img@%s' % (self.proxy.host, self.manifests['one']['digest']), '--plain-http'), 'one')
        self.assertEqual(self.proxy.requests(), [])

    def test_by_force(self):
        self.fill()
        mount = self.mount('one')
        self.says('clear', '--force')
        self.assertEqual(self.files(), {})
        for path in mount.path.rglob('*'):
            if path.is_file():
                forget_pages(path)
        self.check_tree(mount, 'one')
        self.check_tree(self.mount('one'), 'one')


class BesideTest(CacheCase):
    """Readers that never see anything but the right bytes, whatever happens to the store."""

    def setUp(self):
        super().setUp()
        self.stop = threading.Event()
        self.reads = itertools.count()

    def wanted(self, tag):
        return {name + suffix: make(n, size) for n, name in enumerate(('base', 'tools', 'docs', 'app')) if name in self.IMAGES[tag]
                for suffix, make, size in (('.noise', images.noise, 5 * MIB), ('.text', images.text, 3 * MIB))}

    def read_on(self, mount, wanted, seed):
        """Reads one file after the other; returns what was wrong."""
        names = sorted(wanted)
        while not self.stop.is_set():
            name = names[(seed * 7 + next(self.reads)) % len(names)]
            forget_pages(mount.path / name)
            if mount.read(name) != wanted[name]:
                return '%s: wrong bytes' % name
        return None

    def beside_readers(self, mount, wanted, steps):
        """Each of the steps, while four threads read and have read on after each of them."""
        with ThreadPoolExecutor(4) as pool:
            readers = [pool.submit(self.read_on, mount, wanted, seed) for seed in range(4)]
            try:
                for step in steps:
                    begin = next(self.reads)
                    step()
                    wait_until(lambda begin=begin: next(self.reads) > begin + 12 or any(r.done() for r in readers), 'reads')
            finally:
                self.stop.set()
        self.assertEqual([r.result() for r in readers], [None] * 4)
        self.assertNotRegex(mount.log(), ' error ')
        self.check_tree(mount, 'three')

    def test_a_store_that_readers_fill(self):
        """Its content is fetched and written while it is verified, listed, and pruned as far as it goes."""
        mount = self.mount('three')
        steps = [self.bed.store.forget_content,
                 lambda: self.assertEqual(self.cache('verify')['problems'], []),
                 lambda: self.assertEqual(self.cache('prune', '--max-size=1K', '--older-than=0s')['inUse'], [self.reference('three')]),
                 lambda: self.assertEqual(self.cache('clear', code=CANNOT_MOUNT)['inUse'], [self.reference('three')]),
                 lambda: self.assertTrue(all(l['inUse'] for l in self.cache('list')['layers'])),
                 lambda: self.assertEqual(self.cache('info')['layers'], 3)]
        self.beside_readers(mount, self.wanted('three'), steps * 4)
        self.assertEqual(self.cache('verify')['problems'], [])

    def test_damage_under_readers(self):
        """What verify throws out while it is read is fetched again."""
        mount = self.mount('three')

        def damage():
            for name in self.IMAGES['three']:
                with open(self.layer_path(name) / 'content', 'r+b') as f:
                    f.seek(3 * MIB)
                    f.write(bytes(1000))
            return self.cache('verify', code=BAD_DATA)

        # Nobody has read yet: a process that has verified a chunk trusts its file.
        self.assertEqual(len(damage()['problems']), 3)
        self.beside_readers(mount, self.wanted('three'), [lambda: self.cache('verify')] * 3)

    def test_a_store_that_is_taken_away(self):
        """By force, again and again, while others fill it anew."""
        mount = self.mount('three')
        steps = [lambda: self.says('clear', '--force'), lambda: self.mount('three').umount(), lambda: self.says('prune', '--max-size=1K'),
                 lambda: self.says('verify'), lambda: self.mount('one').umount()]
        self.beside_readers(mount, self.wanted('three'), steps * 2)

    def test_mounts_beside_clearing(self):
        """A mount that is under way when the store is cleared comes to its end."""
        def clear_on():
            while not self.stop.is_set():
                result = self.bed.regfs('cache', 'clear', '--force')
                if result.code != 0:
                    return result
            return None

        with ThreadPoolExecutor(1) as pool:
            clearing = pool.submit(clear_on)
            try:
                for _ in range(4):
                    mount = self.mount('three')
                    self.assertEqual(mount.read('etc/app'), b'app')
                    mount.umount()
            finally:
                self.stop.set()
        self.assertIsNone(clearing.result())
        self.says('clear')
        self.check_tree(self.mount('three'), 'three')
        self.assertEqual(self.cache('verify')['problems'], [])


if __name__ == '__main__':
    unittest.main()
