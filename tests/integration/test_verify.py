# SPDX-License-Identifier: Apache-2.0
"""regfs verify: honest images are found to be what they say, and tables of contents that lie are told from them, although the image's
own digest binds the lie."""
import gzip
import hashlib
import io
import json
import os
import signal
import subprocess
import tarfile
import unittest
import zlib

import images
from fault_proxy import FaultProxy, slow
from registry import Registry
from test_lazy import FORMATS, STARGZ
from testbed import BAD_DATA, FIXTURES, NOT_FOUND, UNREACHABLE, USAGE, TestCase, regfs_binary, run, wait_until

FOOTER = 51
LANDMARK = '.no.prefetch.landmark'


class Estargz:
    """An eStargz blob, taken apart: what precedes the table, and the table's JSON. Its parts may be changed."""

    def __init__(self, data):
        at = int(data[-FOOTER + 16:-FOOTER + 32], 16)
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(data[at:-FOOTER]))) as t:
            self.toc = json.load(t.extractfile('stargz.index.json'))
        self.data = data[:at]

    def entry(self, name, kind=None):
        return next(e for e in self.toc['entries'] if e['name'] == name and kind in (None, e['type']))

    def drop(self, name):
        self.toc['entries'] = [e for e in self.toc['entries'] if e['name'] != name]

    def swap(self, one, other):
        """Gives two files each other's bytes. The entries stay in the order of the blob, so it is all else that moves."""
        places = 'offset', 'innerOffset', 'size', 'digest', 'chunkDigest', 'chunkSize', 'chunkOffset'
        a, b = self.entry(one), self.entry(other)
        kept_a, kept_b = ({k: e[k] for k in places if k in e} for e in (a, b))
        a_else, b_else = ({k: v for k, v in e.items() if k not in places} for e in (a, b))
        for e, new in ((a, {**b_else, **kept_a}), (b, {**a_else, **kept_b})):
            e.clear()
            e.update(new)

    def replace_payload(self, name, payload):
        """Other bytes of the same length in the tar alone, in a member of another length."""
        at = self.entry(name)['offset']
        member = zlib.decompressobj(31)
        old = member.decompress(self.data[at:])
        end = len(self.data) - len(member.unused_data)
        new = gzip.compress(payload + old[len(payload):], mtime=0)
        for e in self.toc['entries']:
            if e.get('offset', 0) > at:
                e['offset'] += len(new) - (end - at)
        self.data = self.data[:at] + new + self.data[end:]

    def build(self):
        """(blob, digest of the table)"""
        text = json.dumps(self.toc).encode()
        table = gzip.compress(images.tar(images.entry('stargz.index.json', text)), mtime=0)
        extra = b'SG' + (22).to_bytes(2, 'little') + b'%016x' % len(self.data) + b'STARGZ'
        footer = (b'\x1f\x8b\x08\x04' + bytes(4) + b'\0\xff' + len(extra).to_bytes(2, 'little') + extra +
                  b'\x01\0\0\xff\xff' + bytes(8))
        return self.data + table + footer, 'sha256:' + hashlib.sha256(text).hexdigest()


class VerifyCase(TestCase):
    @classmethod
    def set_up_shared(cls):
        cls.registry = Registry(cls.shared)
        cls.layout = images.Layout(cls.shared.dir / 'layout')
        cls.tars = images.fixture_tars()

    def setUp(self):
        super().setUp()
        self.proxy = FaultProxy(self.bed, self.registry.port)

    def push(self, tag, layers, annotations=()):
        """ANNOTATIONS: of the first layers."""
        def annotate(manifest):
            for layer, more in zip(manifest['layers'], annotations):
                layer['annotations'] = more
        self.layout.add_image(tag, layers, change=annotate)
        self.registry.push_layout(self.layout, tag, 'verify:' + tag)

    def verify(self, tag, *options):
        result = self.bed.regfs('verify', '--plain-http', '--timeout=5', *options, '%s/verify:%s' % (self.proxy.host, tag))
        self.assertEqual(os.listdir(self.bed.dir / 'tmp'), [], 'left behind')
        return result

    def kinds(self):
        return sorted(p.name.partition('-')[0] for p in self.bed.store.path.glob('layers/sha256/*/*'))


class HonestTest(VerifyCase):
    def clean(self, tag, layers=3):
        result = self.verify(tag)
        self.assertEqual((result.code, result.err), (0, ''), result)
        self.assertRegex(result.out, r'\A%d layers?, \d+ entries, \d+ chunks, [\d.]+ .?B: no problems\n\Z' % layers)

    def test_layers_with_tables(self):
        others = [images.Layer.of(self.tars[name]) for name in ('upper', 'twice')]
        for name, (blob, suffix, annotations) in FORMATS.items():
            with self.subTest(name):
                self.push(name, [images.Layer.of_fixture(blob, suffix, self.tars['base']), *others], [annotations])
                self.clean(name)
                self.assertIn(name.replace('stargz-z', 'z').partition('-')[0], self.kinds())

    def test_whiteouts_in_a_table(self):
        upper = (FIXTURES / 'layers/upper.esgz').read_bytes()
        text = gzip.decompress(upper[int(upper[-FOOTER + 16:-FOOTER + 32], 16):-FOOTER])
        with tarfile.open(fileobj=io.BytesIO(text)) as t:
            digest = images.sha256(t.extractfile('stargz.index.json').read())
        self.push('upper', [images.Layer(upper, images.sha256(self.tars['upper']), images.LAYER_TYPE + '+gzip')], [{STARGZ: digest}])
        self.clean('upper', layers=1)
        self.assertEqual(self.kinds(), ['estargz'])

    def test_plain_layers(self):
        for compression in images.COMPRESSIONS:
            with self.subTest(compression):
                self.push(compression, images.fixture_layers(compression))
                self.clean(compression)

    def test_each_layer_is_read_once(self):
        blob, suffix, annotations = FORMATS['zstdchunked-v64']
        base = images.Layer.of_fixture(blob, suffix, self.tars['base'])
        self.push('twice', [base, images.Layer.of(self.tars['upper']), base], [annotations, {}, annotations])
        self.clean('twice', layers=2)
        self.proxy.clear()
        self.clean('twice', layers=2)
        # The store knows the tables, and its content is not asked.
        manifest = self.layout.json(self.layout.tagged[-1])
        self.assertEqual({digest: self.proxy.bytes('/blobs/' + digest) for digest in {l['digest'] for l in manifest['layers']}},
                         {l['digest']: l['size'] for l in manifest['layers']})

    def test_a_layout(self):
        self.layout.add_image('here', images.fixture_layers('gzip'))
        result = self.bed.regfs('verify', 'oci:%s:here' % self.layout.path)
        self.assertEqual((result.code, result.err), (0, ''), result)

    def test_an_archive(self):
        self.layout.add_image('packed', images.fixture_layers('gzip'))
        archive = self.bed.dir / 'image.tar'
        run('skopeo', 'copy', '--quiet', '--insecure-policy', 'oci:%s:packed' % self.layout.path, 'docker-archive:%s' % archive)
        result = self.bed.regfs('verify', 'docker-archive:%s' % archive)
        self.assertEqual((result.code, result.err), (0, ''), result)


class LiarTest(VerifyCase):
    """One layer whose table was written anew."""

    def lies(self, tag, table, expected):
        """EXPECTED: a line for each problem, without the layer."""
        blob, digest = table.build()
        layer = images.Layer(blob, images.sha256(gzip.decompress(blob)), images.LAYER_TYPE + '+gzip')
        self.push(tag, [layer], [{STARGZ: digest}])
        result = self.verify(tag)
        *lines, summary = result.out.splitlines()
        prefix = 'layer %s: ' % images.sha256(blob)
        self.assertEqual([l for l in lines if not l.startswith(prefix)], [])
        lines = [l[len(prefix):] for l in lines]
        self.assertEqual(lines, expected)
        self.assertEqual((result.code, result.err), (BAD_DATA, ''), result)
        self.assertRegex(summary, r'\A1 layer, .* %d problems?\Z' % len(lines))
        again = self.verify(tag, '--json')
        told = json.loads(again.out)
        self.assertEqual((again.code, again.err), (BAD_DATA, ''))
        self.assertEqual(told['problems'], [prefix + line for line in lines])
        self.assertEqual((told['problemCount'], told['layers']), (len(lines), 1))
        # It was the lie that was read, and not the tar in its place.
        self.assertEqual(self.kinds(), ['estargz'])

    def base(self):
        return Estargz((FIXTURES / 'layers/base.esgz').read_bytes())

    def test_a_table_that_is_only_written_anew_is_honest(self):
        blob, digest = self.base().build()
        self.push('anew', [images.Layer(blob, images.sha256(gzip.decompress(blob)), images.LAYER_TYPE + '+gzip')], [{STARGZ: digest}])
        result = self.verify('anew')
        self.assertEqual(result.code, 0, result)
        self.assertEqual(self.kinds(), ['estargz'])

    def test_a_mode(self):
        table = self.base()
        table.entry('etc/shadow')['mode'] |= 0o004
        self.lies('mode', table, ['etc/shadow: mode 0644 in the table, 0640 in the tar'])

    def test_a_name(self):
        table = self.base()
        table.entry('etc/motd')['name'] = 'etc/issue'
        self.lies('name', table, ['etc/issue: a regular file in the table, nothing in the tar',
                                  'etc/motd: nothing in the table, a regular file in the tar'])

    def test_a_file_that_is_hidden(self):
        table = self.base()
        table.drop('etc/motd')
        self.lies('hidden', table, ['etc/motd: nothing in the table, a regular file in the tar'])

    def test_a_directory_that_is_added(self):
        table = self.base()
        table.toc['entries'].append({'name': 'etc/new/', 'type': 'dir', 'mode': 0o755})
        self.lies('added', table, ['etc/new: a directory in the table, nothing in the tar'])

    def test_a_whiteout_that_is_hidden(self):
        table = Estargz((FIXTURES / 'layers/upper.esgz').read_bytes())
        table.drop('srv/.wh.gone-dir')
        table.drop('srv/opaque/.wh..wh..opq')
        self.lies('whiteout', table, [
            'srv/gone-dir: nothing in the table, a whiteout in the tar',
            'srv/opaque: a directory that shows what lower layers have there by the table, hides it in the tar'])

    def test_a_hardlink(self):
        table = self.base()
        table.entry('bin/hard2')['linkName'] = 'etc/os-release'
        self.lies('hardlink', table, [
            'bin/hard2: a hardlink of bin/hard in the tar, not in the table',
            'bin/hard2: mode 0644 in the table, 4755 in the tar',
            'bin/hard2: 45 bytes in the table, 70000 in the tar',
            'etc/os-release: a hardlink of bin/hard2 in the table, not in the tar'])

    def test_the_bytes_of_two_files(self):
        """All that the table says of either file is right, but for where its bytes are; and their digests are right there."""
        table = self.base()
        table.swap('one-byte', 'bin/setgid')
        self.lies('bytes', table, ['bin/setgid: from byte 0 on, other bytes by the table than in the tar',
                                   'one-byte: from byte 0 on, other bytes by the table than in the tar'])

    def test_a_digest_that_no_chunk_has(self):
        table = self.base()
        e = table.entry('etc/motd')
        wrong = images.sha256(b'something else')
        for key in ('digest', 'chunkDigest'):
            if key in e:
                e[key] = wrong
        blob, _ = table.build()
        self.lies('digest', table, [
            'etc/motd: the chunk of 20 bytes in blob bytes %s: the digest of its content is %s, the table says %s' % (
                self.range_of(table, e), images.sha256(b'from the base layer\n'), wrong)])

    def range_of(self, table, e):
        following = min(o['offset'] for o in table.toc['entries'] if o.get('offset', 0) > e['offset'])
        return '%d-%d' % (e['offset'], following - 1)

    def test_other_bytes_behind_a_landmark(self):
        table = self.base()
        table.replace_payload(LANDMARK, b'x')
        self.lies('landmark', table, [
            '%s: nothing in the table, a regular file in the tar, with other bytes than a landmark' % LANDMARK])

    def test_many_lies_are_counted_but_not_all_told(self):
        table = self.base()
        for e in table.toc['entries']:
            if e['name'].startswith('usr/share/many/f'):
                e['uid'] = 77
        blob, digest = table.build()
        self.push('many', [images.Layer(blob, images.sha256(gzip.decompress(blob)), images.LAYER_TYPE + '+gzip')], [{STARGZ: digest}])
        result = self.verify('many')
        lines = result.out.splitlines()
        self.assertEqual(result.code, BAD_DATA)
        self.assertEqual(len(lines), 102)
        self.assertEqual(lines[0], 'layer %s: usr/share/many/f0000: owner 77:0 in the table, 0:0 in the tar' % images.sha256(blob))
        self.assertEqual(lines[100], 'layer %s: … and 400 more' % images.sha256(blob))
        self.assertTrue(lines[101].endswith(': 500 problems'), lines[101])


class DamageTest(VerifyCase):
    def damage(self, compression_or_format, change):
        """An image that was verified before its lowest layer's copy in the registry was broken."""
        if compression_or_format in FORMATS:
            blob, suffix, annotations = FORMATS[compression_or_format]
            layer = images.Layer.of_fixture(blob, suffix, self.tars['base'])
        else:
            layer, annotations = images.Layer.of(self.tars['base'], compression_or_format), {}
        self.tag = self.id().rpartition('.')[2]
        self.push(self.tag, [layer, images.Layer.of(self.tars['upper'])], [annotations])
        self.assertEqual(self.verify(self.tag).code, 0)
        digest = images.sha256(layer.blob)
        path = self.registry.blob_path(digest)
        whole = path.read_bytes()
        self.addCleanup(path.write_bytes, whole)
        path.write_bytes(change(bytearray(whole)))
        return digest

    def damaged(self, what):
        def change(data):
            data[len(data) // 2] ^= 0x55
            return data
        digest = self.damage(what, change)
        result = self.verify(self.tag)
        self.assertEqual((result.code, result.err), (BAD_DATA, ''), result)
        line, summary = result.out.splitlines()
        self.assertTrue(line.startswith('layer %s: ' % digest), line)
        self.assertEqual(line.count(digest), 2 if 'expected' in line else 1, line)
        self.assertRegex(summary, r'\A2 layers, .*: 1 problem\Z')  # the other one was looked at

    def test_damaged_estargz(self):
        self.damaged('estargz')

    def test_damaged_zstdchunked(self):
        self.damaged('zstdchunked-v64')

    def test_damaged_gzip(self):
        self.damaged('gzip')

    def test_damaged_tar(self):
        self.damaged('plain')

    def test_a_layer_that_is_cut(self):
        digest = self.damage('estargz', lambda data: data[:len(data) // 2])
        result = self.verify(self.tag)
        # The rest is asked for, and docker-registry hangs up on a range that its file does not have.
        self.assertIn(result.code, (BAD_DATA, UNREACHABLE), result)
        self.assertIn(digest, result.out + result.err)

    def test_a_layer_that_is_gone(self):
        digest = self.damage('estargz', lambda data: data)
        path = self.registry.blob_path(digest)
        path.unlink()
        result = self.verify(self.tag)
        self.assertEqual(result.code, NOT_FOUND, result)
        self.assertRegex(result.err, r'\Aregfs: [^\n]*%s[^\n]*\n\Z' % digest)


class CommandTest(VerifyCase):
    def test_usage(self):
        self.assertIn('Usage: regfs verify', self.bed.regfs('verify', '--help').out)
        for arguments in ((), ('a', 'b'), ('--nonsense', 'a')):
            result = self.bed.regfs('verify', *arguments)
            self.assertEqual((result.code, result.out), (USAGE, ''))
            self.assertRegex(result.err, r'\Aregfs: [^\n]+\n\Z')

    def test_an_image_that_is_not_there(self):
        result = self.verify('missing')
        self.assertEqual((result.code, result.out), (NOT_FOUND, ''))

    def test_nothing_is_left_after_a_signal(self):
        blob, suffix, annotations = FORMATS['zstdchunked-v64']
        self.push('slow', [images.Layer.of_fixture(blob, suffix, self.tars['base'])], [annotations])
        self.assertEqual(self.verify('slow').code, 0)
        tmp = self.bed.dir / 'tmp'
        for sign in (signal.SIGINT, signal.SIGTERM):
            rule = self.proxy.rule(slow(16384, 0.05), path='/blobs/')
            process = self.bed.start(regfs_binary(), 'verify', '--plain-http', '%s/verify:slow' % self.proxy.host,
                                     stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            wait_until(lambda: rule.hits and list(tmp.glob('regfs-verify-*')), 'the layer is on its way')
            process.send_signal(sign)
            out, err = process.communicate(timeout=20)
            self.assertEqual((process.returncode, out), (1, b''), err)
            self.assertRegex(err.decode(), r'\Aregfs: [^\n]*interrupted\n\Z')
            self.assertEqual(os.listdir(tmp), [])
            self.assertEqual(self.bed.store.drafts(), [])
            self.proxy.clear()
        self.assertEqual(self.verify('slow').code, 0)


if __name__ == '__main__':
    unittest.main()
