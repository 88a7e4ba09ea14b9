# SPDX-License-Identifier: Apache-2.0
"""SIGKILL at random moments of index, read, evict and prune, several processes on one small store at a time. Whoever is left reads
the right bytes and waits for nobody; what the dead leave is removed, and nothing in the store is wrong.

$REGFS_TEST_KILLS: how many (30). $REGFS_TEST_SEED: of the moments, 1 if not set.
"""
import collections
import concurrent.futures
import hashlib
import json
import os
import pathlib
import random
import re
import subprocess
import sys
import time
import unittest

import images
import stargz
from fault_proxy import FaultProxy, slow
from oracle import Oracle
from registry import Registry
from testbed import TestCase, alive, regfs_binary, wait_until

READ_ON = pathlib.Path(__file__).with_name('read_on.py')
KILLS = int(os.environ.get('REGFS_TEST_KILLS', 30))
SEED = int(os.environ.get('REGFS_TEST_SEED', 1))
PHASES = ('index', 'read', 'evict', 'prune')
READING_S = 1.2         # of a reader's life before its daemon dies, at most
PRUNES = 20             # that may end before they are killed
DRAFT_AGE_S = 600       # from this age on a draft may be told to be a leftover
LIMIT = '--cache-size=24M'


class Victim:
    """A process that is to die in a phase; a MOUNT has a directory, and a READER there once it is ready."""

    def __init__(self, phase, process, directory=None, image=None):
        self.phase, self.process, self.directory, self.image = phase, process, directory, image
        self.reader = None
        self.killed = False


class KillTest(TestCase):
    @classmethod
    def set_up_shared(cls):
        cls.registry = Registry(cls.shared)
        cls.layout = images.Layout(cls.shared.dir / 'layout')
        cls.files, cls.oracles = {}, {}
        for number, tag in enumerate(('plain', 'published')):
            parts = {'a': images.noise(number, 6 << 20), 'b': images.text(number, 4 << 20), 'c': images.noise(number + 10, 3 << 20)}
            tars = [images.tar(images.entry(name, data)) for name, data in parts.items()]
            layers = [images.Layer.of(tar, how) for tar, how in zip(tars, ('gzip', 'zstd', 'plain'))]
            cls.push(tag, cls.layout.add_image(tag, layers), parts)
            cls.layout.add_image(tag + '-gzip', [images.Layer.of(tar) for tar in tars])  # umoci unpacks no zstd
            cls.oracles[tag] = Oracle(cls.layout.path, tag + '-gzip', cls.shared.dir / ('oracle-' + tag), tars)
        for number, tag in enumerate(('lazy', 'steady')):
            parts = {'d': images.noise(number + 20, 7 << 20), 'e': images.text(number, 2 << 20), 'f': images.noise(number + 30, 4 << 20)}
            cls.push(tag, stargz.add_image(cls.layout, tag, parts, 300_000), parts)
        result = cls.shared.regfs('index', '--push', '--plain-http', '%s/published:v1' % cls.registry.host)
        if result.code != 0:
            raise AssertionError(result)

    @classmethod
    def push(cls, tag, image, files):
        cls.registry.push(cls.layout, image, tag + ':v1')
        cls.files[tag] = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}

    def setUp(self):
        super().setUp()
        self.proxy = FaultProxy(self.bed, self.registry.port)
        # Slow enough for a phase to be met, and more than one way of being slow.
        self.proxy.rule(slow(256 << 10, 0.02), path='/blobs/')
        self.random = random.Random(SEED)
        self.killed = collections.Counter()

    def reference(self, tag):
        return '%s/%s:v1' % (self.proxy.host, tag)

    # ---- who reads ----

    def lines_of(self, reader_output):
        return [line.split(' ') for line in reader_output.read_text().splitlines() if re.fullmatch(r'\w+ [0-9a-f]{64}', line)]

    def start_reader(self, directory, *rounds):
        """(process, where it says what it read)."""
        said = self.bed.fresh('read')
        with open(said, 'wb') as out:
            return self.bed.start(sys.executable, READ_ON, directory, *rounds, stdout=out, stderr=subprocess.STDOUT), said

    def assert_right(self, said, tag):
        """All that a reader read; returns how many files."""
        lines = self.lines_of(said)
        for name, digest in lines:
            self.assertEqual(digest, self.files[tag].get(name), '%s of %s' % (name, tag))
        return len(lines)

    def assert_reads(self, directory, tag):
        reader, said = self.start_reader(directory, 1)
        self.assertEqual(reader.wait(60), 0, said.read_text())
        self.assertEqual(self.assert_right(said, tag), len(self.files[tag]))

    # ---- who dies ----

    def begin(self, phase):
        tag = self.random.choice(('plain', 'lazy', 'published'))
        if phase == 'prune':
            return Victim(phase, None)  # so short that it begins where it is killed
        if phase == 'index' and self.random.random() < 0.5:
            return Victim(phase, self.bed.start(regfs_binary(), 'index', '--plain-http', LIMIT, self.reference('plain'),
                                                stdout=subprocess.DEVNULL), image='plain')
        if phase == 'index':
            tag = 'plain'
        directory = self.bed.mkdir()
        limit = '--cache-size=1M' if phase == 'evict' else LIMIT
        process = self.bed.start(regfs_binary(), 'mount', '-f', '--plain-http', limit, '--log-file=%s.log' % directory,
                                 self.reference(tag), directory)
        return Victim(phase, process, directory, tag)

    def kill_one(self, victim, moment, span):
        """In its phase, at that part of it."""
        if victim.phase == 'prune':
            return self.kill_prune(victim, moment, span)
        begin = time.monotonic()
        if victim.phase in ('read', 'evict'):
            wait_until(lambda: self.bed.is_mounted(victim.directory) or victim.process.poll() is not None, 'mounted', 60)
            self.assertIsNone(victim.process.poll(), victim)
            victim.reader = self.start_reader(victim.directory)
            begin = time.monotonic()
        while time.monotonic() - begin < moment * span and victim.process.poll() is None:
            time.sleep(0.001)
        victim.killed = victim.process.poll() is None
        victim.process.kill()
        victim.process.wait(10)
        return victim

    def kill_prune(self, victim, moment, span):
        """One after the other, until one is met alive: each a little earlier."""
        for _ in range(PRUNES):
            victim.process = self.bed.start(regfs_binary(), 'cache', 'prune', '--max-size=1K', '--older-than=0s',
                                            stdout=subprocess.DEVNULL)
            time.sleep(moment * span)
            victim.killed = victim.process.poll() is None
            victim.process.kill()
            victim.process.wait(10)
            if victim.killed:
                break
            moment *= 0.7
        return victim

    def spans(self):
        """How long an index pass and a prune take when nobody dies."""
        result = self.bed.regfs('index', '--plain-http', self.reference('plain'))
        self.assertEqual(result.code, 0, result)
        pruned = self.bed.regfs('cache', 'prune', '--max-size=1K')
        self.assertEqual(pruned.code, 0, pruned)
        return {'index': 1.5 * result.seconds, 'prune': 1.2 * pruned.seconds, 'read': READING_S, 'evict': READING_S}

    # ---- what is left ----

    def locks(self):
        """(kind, access, inode, from, to) of each lock on a file of the store."""
        inodes = {str(p.lstat().st_ino) for p in self.bed.store.path.rglob('*')}
        with open('/proc/locks') as f:
            rows = [line.split() for line in f if '->' not in line]
        rows = [(row[1], row[3], row[5].rpartition(':')[2], row[6], row[7]) for row in rows]
        return {row for row in rows if row[2] in inodes}

    def claims(self):
        return {lock for lock in self.locks() if lock[1] == 'WRITE'}

    def settle(self, victim):
        """The dead one's mount goes; nobody has read a wrong byte of it."""
        if victim.directory and self.bed.is_mounted(victim.directory):
            self.assertEqual(self.bed.regfs('umount', victim.directory)[:3], (0, '', ''))
            self.assertFalse(self.bed.is_mounted(victim.directory))
        if victim.reader:
            process, said = victim.reader
            process.wait(30)
            self.assert_right(said, victim.image)
        if not victim.killed:
            self.assertEqual(victim.process.returncode, 0, victim.phase)

    def check_nobody_waits(self, witness, tag):
        """A new process finds nothing taken: neither a layer's turn nor a chunk."""
        wait_until(lambda: self.bed.daemons() <= witness, 'the processes that served the dead end', 10)
        left = self.claims()

        def released():  # the witness claims what it fetches: others at every look
            left.intersection_update(self.claims())
            return not left
        wait_until(released, 'nothing is claimed for ever', 30)
        mount = self.bed.mount(self.reference(tag), '--plain-http', LIMIT)
        self.assert_reads(mount.path, tag)
        self.assertNotRegex(mount.log(), 'another process| error ')
        mount.umount()

    def round(self, spans, witness):
        self.assertIn(self.bed.regfs('cache', 'clear').code, (0, 7))
        moments = {phase: self.random.random() for phase in PHASES}
        victims = [self.begin(phase) for phase in PHASES]
        with concurrent.futures.ThreadPoolExecutor(len(PHASES)) as pool:
            victims = list(pool.map(lambda v: self.kill_one(v, moments[v.phase], spans[v.phase]), victims))
        for victim in victims:
            self.settle(victim)
            self.killed[victim.phase] += victim.killed
        self.check_nobody_waits(witness, next(v.image for v in victims if v.phase == 'index'))

    def test_killed_at_random_moments(self):
        spans = self.spans()
        steady = self.bed.mount(self.reference('steady'), '--plain-http', LIMIT)
        witness = self.bed.daemons()
        self.assertIn(('OFDLCK', 'READ'), {lock[:2] for lock in self.locks()})
        reader, said = self.start_reader(steady.path)
        rounds = 0
        while sum(self.killed.values()) < KILLS:
            before = len(self.lines_of(said))
            self.round(spans, witness)
            wait_until(lambda before=before: len(self.lines_of(said)) > before or reader.poll() is not None, 'the witness reads on')
            self.assertIsNone(reader.poll(), said.read_text()[-300:])
            self.assert_right(said, 'steady')
            rounds += 1
            self.assertLess(rounds, KILLS, self.killed)
        reader.terminate()
        reader.wait(10)
        self.assertTrue(alive(steady.pid))
        self.assert_reads(steady.path, 'steady')
        self.assertNotRegex(steady.log(), ' error ')
        self.check_store()
        print('killed: %s in %d rounds, seed %d' % (dict(self.killed), rounds, SEED), file=sys.stderr)
        for phase in PHASES:
            self.assertGreaterEqual(self.killed[phase], KILLS // 8, self.killed)

    def check_store(self):
        """Nothing in it is wrong; what the dead left goes; what comes back is the image."""
        self.assertEqual(json.loads(self.bed.regfs('cache', 'verify', '--json').out)['problems'], [])
        self.bed.regfs('cache', 'clear')
        last = self.bed.start(regfs_binary(), 'index', '--plain-http', self.reference('plain'), stdout=subprocess.DEVNULL)
        known = set(self.bed.store.drafts())
        wait_until(lambda: set(self.bed.store.drafts()) - known or last.poll() is not None, 'a draft', 60)
        last.kill()
        last.wait(10)
        self.assertGreater(len(self.bed.store.drafts()), 0)
        when = time.time() - DRAFT_AGE_S
        for path in self.bed.store.path.glob('tmp/**/*'):
            os.utime(path, (when, when))
        self.assertEqual(self.bed.regfs('cache', 'prune').code, 0)
        self.assertEqual(self.bed.store.drafts(), [])
        for tag in self.files:
            mount = self.bed.mount(self.reference(tag), '--plain-http')
            self.assert_reads(mount.path, tag)
            if tag in self.oracles:
                self.assertEqual(self.oracles[tag].differences(mount.path), [])
            mount.umount()
        self.assertEqual(json.loads(self.bed.regfs('cache', 'verify', '--json').out)['problems'], [])


if __name__ == '__main__':
    unittest.main()
