# SPDX-License-Identifier: Apache-2.0
"""SOCI's indexes: found in each of their places, mounted by, refused with a reason where they are not sound."""
import gzip
import io
import json
import struct
import tarfile
import unittest

import images
import ztoc
from images import INDEX_TYPE, MANIFEST_TYPE, sha256
from testbed import FIXTURES
from test_index import IndexCase

SPAN = 256 << 10
BINDING = 'com.amazon.soci.index-digest'


class SociCase(IndexCase):
    """The fixture image; its lowest layer has a ztoc, the others are small and have none."""

    @classmethod
    def set_up_shared(cls):
        super().set_up_shared()
        cls.base = cls.layers[0]
        cls.reference = (FIXTURES / 'layers/base.tar.gz.ztoc').read_bytes()  # of SOCI's own making
        cls.base_path = FIXTURES / 'layers/base.tar.gz'

    def put(self, manifest, blobs):
        """Stores an artifact; returns its descriptor."""
        for data in blobs.values():
            self.registry.put_blob(self.name, data)
        body = json.dumps(manifest).encode()
        self.registry.put_manifest(self.name, sha256(body), body)
        return {'mediaType': MANIFEST_TYPE, 'digest': sha256(body), 'size': len(body)}

    def publish(self, *tables, layer=None):
        """An index of version 1 with these ztocs, at the fallback tag."""
        manifest, blobs = ztoc.soci_index(self.image, [(layer or self.base, data) for data in tables], span_size=SPAN)
        descriptor = self.put(manifest, blobs)
        self.list_referrers(dict(descriptor, artifactType=ztoc.INDEX_TYPES[1]))
        return descriptor

    def make(self, **more):
        return ztoc.make_ztoc(self.base_path, SPAN, **more)

    def base_requests(self):
        return self.proxy.requests('/blobs/' + self.base['digest'])

    def assert_used(self, mount):
        self.assertEqual(self.kinds(), ['plain', 'plain', 'soci'])
        self.assert_right(mount)
        self.assertTrue(all(r.range for r in self.base_requests()))


class FoundTest(SociCase):
    def test_version_1_at_the_fallback_tag(self):
        self.publish(self.reference)
        mount = self.mount()
        self.assertEqual(self.base_requests(), [])
        self.assertEqual(mount.read('etc/shadow'), b'root:*:19000::::::\n')
        self.assertEqual(len(self.base_requests()), 1)
        self.assert_used(mount)
        self.assertIn('SOCI', self.regfs('inspect', self.ref()))

    def test_version_1_through_the_referrers_api(self):
        descriptor = self.publish(self.reference)
        self.registry._request('DELETE', '/v2/%s/manifests/%s' % (self.name, sha256(json.dumps(
            {'schemaVersion': 2, 'mediaType': INDEX_TYPE, 'manifests': [dict(descriptor, artifactType=ztoc.INDEX_TYPES[1])]}
        ).encode())))
        other = dict(descriptor, digest='sha256:' + '2' * 64, artifactType='application/vnd.example')
        pages = [{'schemaVersion': 2, 'manifests': [other]},
                 {'schemaVersion': 2, 'manifests': [dict(descriptor, artifactType=ztoc.INDEX_TYPES[1])]}]

        def referrers(x):
            headers = {'Content-Type': INDEX_TYPE}
            if 'page=2' not in x.path:
                headers['Link'] = '<%s?page=2>; rel="next"' % x.path
            x.send(200, headers, json.dumps(pages['page=2' in x.path]).encode())
        asked = self.proxy.rule(referrers, path='/referrers/' + self.image['digest'])
        self.assert_used(self.mount())
        self.assertEqual(asked.hits, 2)

    def test_version_1_is_not_bound_by_a_digest(self):
        self.publish(self.reference)
        self.assert_whole(self.mount(self.by_digest()))
        self.bed.store.path.rename(self.bed.dir / 'gone')
        self.proxy.clear()
        self.assert_used(self.mount(self.by_digest(), '--index=referrers'))

    def test_version_2(self):
        """The image's manifest names it, and the image's OCI index lists it beside the image."""
        manifest, blobs = ztoc.soci_index(self.image, [(self.base, self.reference)], version=2, span_size=SPAN)
        soci = self.put(manifest, blobs)
        image = dict(self.layout.json(self.image), annotations=ztoc.v2_image_annotations(soci['digest']))
        body = json.dumps(image).encode()
        self.registry.put_manifest(self.name, sha256(body), body)
        platform = {'os': 'linux', 'architecture': 'amd64'}
        entries = [ztoc.v2_descriptor(manifest, sha256(body), platform)[0],
                   {'mediaType': MANIFEST_TYPE, 'digest': sha256(body), 'size': len(body), 'platform': platform}]
        index = json.dumps({'schemaVersion': 2, 'mediaType': INDEX_TYPE, 'manifests': entries}).encode()
        self.registry.put_manifest(self.name, 'v2', index, INDEX_TYPE)
        mount = self.mount(self.ref(sha256(index)), '--platform=linux/amd64')
        self.assertEqual(mount.digest, sha256(body))
        self.assertEqual(self.proxy.requests('/referrers/'), [])
        self.assert_used(mount)
        self.assertIn('bound by the image', self.regfs('inspect', self.ref('v2'), '--platform=linux/amd64'))

    def test_regfs_own_comes_first(self):
        descriptor = self.publish(self.reference)
        index = self.push()
        listed = self.manifest(self.fallback_tag())['manifests']
        self.assertEqual({m['digest'] for m in listed}, {descriptor['digest'], index})
        self.mount()
        self.assertEqual(self.kinds(), ['regfs'] * 3)

    def test_an_uncompressed_layer(self):
        table = (FIXTURES / 'layers/base.tar.ztoc').read_bytes()
        image = self.layout.add_image('tar', images.fixture_layers('plain'))
        self.registry.push_layout(self.layout, 'tar', self.name + ':tar')
        manifest, blobs = ztoc.soci_index(image, [(self.layout.json(image)['layers'][0], table)])
        descriptor = self.put(manifest, blobs)
        mount = self.mount(self.ref('tar'), '--index=' + self.ref(descriptor['digest']))
        self.assertEqual(self.kinds(), ['plain', 'plain', 'soci'])
        self.assert_right(mount)

    def test_what_other_writers_write(self):
        """The older layout of checkpoints, and this project's writer of ztocs."""
        for more in ({'older_layout': True}, {}):
            self.publish(self.make(**more))
            mount = self.mount()
            self.assert_used(mount)
            mount.umount()
            self.bed.store.path.rename(self.bed.fresh('gone'))


class FlawedTest(SociCase):
    def use(self, table, log):
        """A ztoc that is not sound: the layer is read whole, and the log tells why."""
        self.publish(table)
        mount = self.mount()
        self.assertRegex(mount.log(), log + '.*read whole')
        self.assert_whole(mount)

    def test_flaws_in_what_it_says(self):
        for flaw in sorted(set(ztoc.FLAWS) - {'wrong-digest'}):
            with self.subTest(flaw):
                self.use(self.make(flaw=flaw), r'warning .*%s' % self.reference_name())
                self.bed.store.path.rename(self.bed.fresh('gone'))

    def reference_name(self):
        return 'blob sha256:'

    def test_offsets_that_lead_anywhere(self):
        root, = struct.unpack_from('<I', self.reference)
        for at in (0, root, len(self.reference) // 2):
            for offset in (0xfffffff0, 0x7fffffff, len(self.reference) - 1):
                table = ztoc.misplace(self.reference, at, offset)
                with self.subTest((at, offset)):
                    self.publish(table)
                    mount = self.mount()
                    # What lies in the middle may be a name: then it is another tree, and nobody can tell.
                    if at in (0, root):
                        self.assert_whole(mount, 'read whole')
                    mount.umount()
                    self.bed.store.path.rename(self.bed.fresh('gone'))

    def test_no_ztoc_at_all(self):
        self.use(b'this is not a ztoc', 'warning')

    def test_of_another_layer(self):
        """Its sizes are not the layer's."""
        self.publish(self.reference, layer=self.layers[1])
        mount = self.mount()
        self.assertRegex(mount.log(), 'read whole')
        self.assert_whole(mount)

    def test_many_members_that_are_all_in_the_last_span(self):
        """SOCI's writer saw one member only: sound or not, what is read is right."""
        path = self.bed.write('members.tar.gz', (FIXTURES / 'layers/base.members.gz').read_bytes())
        image = self.layout.add_image('members', images.fixture_layers('members'))
        self.registry.push_layout(self.layout, 'members', self.name + ':members')
        table = ztoc.make_ztoc(path, SPAN, first_member_only=True)
        manifest, blobs = ztoc.soci_index(image, [(self.layout.json(image)['layers'][0], table)])
        descriptor = self.put(manifest, blobs)
        self.assert_right(self.mount(self.ref('members'), '--index=' + self.ref(descriptor['digest'])))

    def test_a_header_longer_than_ten_bytes(self):
        content = gzip.decompress(self.base_path.read_bytes())
        out = io.BytesIO()
        with gzip.GzipFile('with-a-name.tar', 'wb', fileobj=out, mtime=0) as f:
            f.write(content)
        path = self.bed.write('named.tar.gz', out.getvalue())
        rest = images.fixture_layers('gzip')[1:]
        base = images.Layer(out.getvalue(), sha256(content), images.LAYER_TYPE + '+gzip')
        image = self.layout.add_image('named', [base, *rest])
        self.registry.push_layout(self.layout, 'named', self.name + ':named')
        for older, kinds in ((False, ['plain', 'plain', 'soci']), (True, ['plain'] * 3)):
            table = ztoc.make_ztoc(path, SPAN, older_layout=older)
            manifest, blobs = ztoc.soci_index(image, [(self.layout.json(image)['layers'][0], table)])
            descriptor = self.put(manifest, blobs)
            mount = self.mount(self.ref('named'), '--index=' + self.ref(descriptor['digest']))
            self.assertEqual(self.kinds(), kinds)
            self.assert_right(mount)
            mount.umount()
            self.bed.store.path.rename(self.bed.fresh('gone'))

    def test_a_span_with_another_digest(self):
        """Nobody sees that before the span is read; then the layer's own bytes decide."""
        self.publish(self.make(flaw='wrong-digest'))
        mount = self.mount()
        self.assertEqual(self.kinds(), ['plain', 'plain', 'soci'])
        self.assert_right(mount)
        self.assertRegex(mount.log(), 'the published index is wrong')

    def test_a_tree_that_is_made_up(self):
        """It is believed for a tag, and regfs verify tells."""
        content = bytearray(gzip.decompress(self.base_path.read_bytes()))
        with tarfile.open(fileobj=io.BytesIO(bytes(content))) as t:
            header = t.getmember('etc/shadow').offset
        for at, data in ((header + 100, b'0000777\0'), ):
            content[header + 100:header + 100 + len(data)] = data
        block = bytearray(content[header:header + 512])
        block[148:156] = b' ' * 8
        content[header + 148:header + 156] = b'%06o\0 ' % sum(block)
        scanned = ztoc.Ztoc.scan(self.base_path, SPAN)
        path = self.bed.write('lie.tar', bytes(content))
        scanned.files = ztoc.Ztoc.scan(path, SPAN).files
        self.publish(scanned.write())
        mount = self.mount()
        self.assertEqual((mount.path / 'etc/shadow').stat().st_mode & 0o777, 0o777)
        result = self.bed.regfs('verify', '--plain-http', self.ref())
        self.assertEqual(result.code, 6, result)
        self.assertRegex(result.out, 'etc/shadow: mode 0*777')
        result = self.bed.regfs('verify', '--plain-http', '--index=none', self.ref())
        self.assertEqual(result.code, 0, result)


if __name__ == '__main__':
    unittest.main()
