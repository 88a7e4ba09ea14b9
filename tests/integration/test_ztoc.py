# SPDX-License-Identifier: Apache-2.0
"""The writer of ztocs that other tests trust writes what SOCI's own one did."""
import hashlib
import json
import tempfile
import unittest

import images
import ztoc
from testbed import FIXTURES

TOOL = 'AWS SOCI CLI v0.2'  # what made the fixtures
SPAN = 256 << 10


class ZtocTest(unittest.TestCase):
    def test_gzip_ztoc_has_the_bytes_of_the_reference(self):
        made = ztoc.make_ztoc(FIXTURES / 'layers/base.tar.gz', SPAN, build_tool=TOOL)
        self.assertEqual(made, (FIXTURES / 'layers/base.tar.gz.ztoc').read_bytes())

    def test_tar_ztoc_has_the_bytes_of_the_reference(self):
        with tempfile.NamedTemporaryFile() as tar:
            tar.write(images.fixture_tars()['base'])
            tar.flush()
            made = ztoc.make_ztoc(tar.name, SPAN, build_tool=TOOL)
        self.assertEqual(made, (FIXTURES / 'layers/base.tar.ztoc').read_bytes())

    def test_older_layout_lacks_the_first_checkpoint(self):
        layer = FIXTURES / 'layers/base.tar.gz'
        z = ztoc.Ztoc.scan(layer, SPAN)
        whole = z.checkpoint_bytes()
        z.older_layout = True
        record = 8 + 8 + 1 + ztoc.WINDOW
        self.assertEqual(z.checkpoint_bytes(), whole[:12] + whole[12 + record:])

    def test_all_members_are_seen_or_the_first_only(self):
        layer = FIXTURES / 'layers/base.members.gz'
        every, first = ztoc.Ztoc.scan(layer, SPAN), ztoc.Ztoc.scan(layer, SPAN, first_member_only=True)
        self.assertEqual(every.files[-1].__dict__, first.files[-1].__dict__)
        self.assertEqual(every.uncompressed_size, first.uncompressed_size)
        self.assertGreater(len(every.checkpoints), 5)
        self.assertLess(len(first.checkpoints), len(every.checkpoints))

    def test_every_flaw_shows(self):
        layer = FIXTURES / 'layers/base.tar.gz'
        made = {ztoc.make_ztoc(layer, SPAN, flaw=flaw) for flaw in [None, *ztoc.FLAWS]}
        self.assertEqual(len(made), 1 + len(ztoc.FLAWS))

    def test_index_names_its_ztocs(self):
        image = {'mediaType': images.MANIFEST_TYPE, 'digest': 'sha256:' + '1' * 64, 'size': 7, 'annotations': {}}
        layer = {'mediaType': images.LAYER_TYPE + '+gzip', 'digest': 'sha256:' + '2' * 64, 'size': 8}
        for version in (1, 2):
            manifest, blobs = ztoc.soci_index(image, [(layer, b'a ztoc')], version=version)
            self.assertEqual('subject' in manifest, version == 1)
            self.assertEqual(manifest['config']['mediaType'], 'application/vnd.amazon.soci.index.v%d+json' % version)
            self.assertEqual(manifest['layers'][0]['annotations']['com.amazon.soci.image-layer-digest'], layer['digest'])
            for descriptor in (manifest['config'], *manifest['layers']):
                data = blobs[descriptor['digest']]
                self.assertEqual(descriptor['digest'], 'sha256:' + hashlib.sha256(data).hexdigest())
                self.assertEqual(descriptor['size'], len(data))
        descriptor, data = ztoc.v2_descriptor(manifest, image['digest'], {'os': 'linux', 'architecture': 'amd64'})
        self.assertEqual(json.loads(data), manifest)
        self.assertEqual(descriptor['artifactType'], 'application/vnd.amazon.soci.index.v2+json')
