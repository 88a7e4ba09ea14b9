# SPDX-License-Identifier: Apache-2.0
"""eStargz layers whose table of contents lies, though it has the digest that the image says."""
import errno
import gzip
import hashlib
import json
import os
import tarfile
import unittest

import images
from testbed import BAD_DATA, TestCase

STARGZ = 'containerd.io/snapshot/stargz/toc.digest'
FOOTER = b'\x1f\x8b\x08\x04\0\0\0\0\0\xff\x1a\0SG\x16\0%016xSTARGZ\x01\0\0\xff\xff\0\0\0\0\0\0\0\0'
TYPES = {tarfile.REGTYPE: 'reg', tarfile.DIRTYPE: 'dir', tarfile.SYMTYPE: 'symlink', tarfile.LNKTYPE: 'hardlink'}


class Estargz:
    """A layer of these tar entries; CHANGE edits the table, a list of objects by name of file, before it is written, or gives other
    JSON in its place."""

    def __init__(self, *entries, change=None):
        self.blob, self.table, self.tar = b'', [], b''
        for info, data in entries:
            self._member(info.tobuf(tarfile.PAX_FORMAT))
            item = {'name': info.name, 'type': TYPES[info.type], 'mode': info.mode, 'size': len(data), 'linkName': info.linkname}
            if data:
                digest = images.sha256(data)
                item.update(offset=len(self.blob), digest=digest, chunkDigest=digest)
                self._member(data + bytes(-len(data) % 512))
            self.table.append(item)
        self.offset = len(self.blob)
        changed = change and change(self)
        text = changed if isinstance(changed, bytes) else json.dumps({'version': 1, 'entries': self.table}).encode()
        info, _ = images.entry('stargz.index.json', text)
        self._member(info.tobuf(tarfile.PAX_FORMAT) + text + bytes(-len(text) % 512 + 1024))
        self.blob += FOOTER % self.offset
        self.toc_digest = images.sha256(text)
        self.layer = images.Layer(self.blob, images.sha256(self.tar), images.LAYER_TYPE + '+gzip')

    def _member(self, data):
        self.tar += data
        self.blob += gzip.compress(data, mtime=0)

    def entry(self, name):
        return next(e for e in self.table if e['name'] == name)


ALPHA, NOISE = b'alpha\n', images.noise(3, 5000)
FILES = [images.entry('d', kind=tarfile.DIRTYPE), images.entry('d/alpha', ALPHA), images.entry('noise', NOISE),
         images.entry('last', b'last\n')]


class TableTest(TestCase):
    def setUp(self):
        super().setUp()
        self.layout = images.Layout(self.bed.dir / 'layout')

    def reference(self, tag, *layers):
        """An image of layers, which may be eStargz."""
        def annotate(manifest):
            for descriptor, layer in zip(manifest['layers'], layers):
                if isinstance(layer, Estargz):
                    descriptor['annotations'] = {STARGZ: layer.toc_digest}
        self.layout.add_image(tag, [getattr(l, 'layer', l) for l in layers], change=annotate)
        return 'oci:%s:%s' % (self.layout.path, tag)

    def kinds(self):
        return sorted(p.name.partition('-')[0] for p in self.bed.store.path.glob('layers/sha256/*/*'))

    def test_a_sound_one(self):
        mount = self.bed.mount(self.reference('sound', Estargz(*FILES)))
        self.assertEqual(self.kinds(), ['estargz'])
        self.assertEqual([mount.read(p) for p in ('d/alpha', 'noise', 'last')], [ALPHA, NOISE, b'last\n'])

    # ---- tables that are refused: the layer is what its tar says ----

    def refused(self, cause, change):
        mount = self.bed.mount(self.reference('refused', Estargz(*FILES, change=change)))
        self.assertEqual(self.kinds(), ['plain'])
        self.assertRegex(mount.log(), 'warning .*%s.*: its table of contents is not used, the layer is read whole' % cause)
        self.assertEqual([mount.read(p) for p in ('d/alpha', 'noise', 'last')], [ALPHA, NOISE, b'last\n'])

    def test_json_that_nests_without_end(self):
        self.refused('nests more than', lambda l: b'{"version":1,"x":' + b'[' * 1000000)

    def test_objects_that_nest_without_end(self):
        self.refused('nests more than', lambda l: b'{"version":1,"x":' + b'{"x":' * 1000000)

    def test_offset_outside_of_the_blob(self):
        self.refused('noise: blob offset 1099511627776 lies outside', lambda l: l.entry('noise').update(offset=1 << 40))

    def test_offset_inside_of_the_table(self):
        self.refused('last: blob offset .* lies outside', lambda l: l.entry('last').update(offset=l.offset + 1))

    def test_chunks_that_descend(self):
        def change(layer):
            a, b = layer.entry('d/alpha'), layer.entry('noise')
            a['offset'], b['offset'] = b['offset'], a['offset']
        self.refused('noise: blob offset .* precedes it', change)

    def test_chunks_that_overlap(self):
        def change(layer):
            layer.entry('noise')['offset'] = layer.entry('d/alpha')['offset']
        self.refused('noise: the chunk at blob offset .*, inner offset 0, overlaps', change)

    def test_sizes_that_a_range_cannot_hold(self):
        self.refused('d/alpha: .*the blob range cannot hold so much', lambda l: l.entry('d/alpha').update(size=1 << 24))

    # ---- tables that only reading finds out ----

    def unreadable(self, name, **changes):
        """NAME gives EIO and nothing else does."""
        mount = self.bed.mount(self.reference('unreadable', Estargz(*FILES, change=lambda l: l.entry(name).update(changes))))
        self.assertEqual(self.kinds(), ['estargz'])
        with self.assertRaises(OSError) as caught:
            mount.read(name)
        self.assertEqual(caught.exception.errno, errno.EIO)
        self.assertRegex(mount.log(), r' error .*blobs/sha256/\S+.*bytes \d+-\d+')
        for info, data in FILES:
            if data and info.name != name:
                self.assertEqual(mount.read(info.name), data)

    def test_chunk_that_decodes_to_less(self):
        self.unreadable('noise', size=6000)

    def test_chunk_that_decodes_to_more(self):
        self.unreadable('noise', size=4000)

    def test_chunk_of_other_bytes(self):
        other = 'sha256:' + hashlib.sha256(b'other').hexdigest()
        self.unreadable('d/alpha', digest=other, chunkDigest=other)

    def test_chunk_where_no_member_begins(self):
        layer = Estargz(*FILES)
        self.unreadable('noise', offset=layer.entry('noise')['offset'] + 3)

    # ---- names ----

    def test_names_stay_inside_of_the_root(self):
        files = [images.entry('../up', b'1'), images.entry('/absolute', b'2'), images.entry('x/../../../tmp/regfs-escaped', b'3'),
                 images.entry('link', kind=tarfile.LNKTYPE, linkname='../../../up'),
                 images.entry('out', kind=tarfile.SYMTYPE, linkname='../../../etc/passwd')]
        mount = self.bed.mount(self.reference('names', Estargz(*files)))
        self.assertEqual(self.kinds(), ['estargz'])
        self.assertFalse(os.path.exists('/tmp/regfs-escaped'))
        self.assertEqual([mount.read(p) for p in ('up', 'absolute', 'tmp/regfs-escaped', 'link')], [b'1', b'2', b'3', b'1'])
        self.assertEqual(os.readlink(mount.path / 'out'), '../../../etc/passwd')

    def test_hardlink_to_nowhere(self):
        """It may lead to a layer below, so the layer itself is sound; an image without that layer is not."""
        layer = Estargz(images.entry('h', kind=tarfile.LNKTYPE, linkname='no/such'), *FILES)
        self.bed.mount_fails(BAD_DATA, self.reference('alone', layer), words=['h: hardlink to no/such'], keeps_layers=True)
        below = Estargz(images.entry('no/such', b'below'))
        self.assertEqual(self.bed.mount(self.reference('above', below, layer)).read('h'), b'below')

    def test_hardlink_to_a_directory(self):
        layer = Estargz(*FILES, change=lambda l: l.table.append({'name': 'h', 'type': 'hardlink', 'linkName': 'd'}))
        mount = self.bed.mount(self.reference('directory', layer))
        self.assertEqual(self.kinds(), ['plain'])
        self.assertIn('h: hardlink to d, which leads to a directory', mount.log())


if __name__ == '__main__':
    unittest.main()
