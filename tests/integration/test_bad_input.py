# SPDX-License-Identifier: Apache-2.0
"""What can't be mounted: each with its own exit code, a sentence that names object and cause, nothing left mounted, and nothing
bad left in the store."""
import gzip
import json
import os
import shutil
import tarfile
import unittest

import images
from fault_proxy import FaultProxy, document, flip, status
from oracle import Oracle, read_tree
from registry import Authority, Registry
from testbed import BAD_DATA, DENIED, NOT_FOUND, UNREACHABLE, USAGE, TestCase

SCHEMA1 = {'schemaVersion': 1, 'name': 'old', 'tag': 'v1', 'architecture': 'amd64', 'fsLayers': [], 'history': [], 'signatures': []}


class BadCase(TestCase):
    @classmethod
    def set_up_shared(cls):
        cls.registry = Registry(cls.shared)
        cls.layout = images.Layout(cls.shared.dir / 'layout')
        cls.image = images.small_image(cls.layout)
        cls.registry.push(cls.layout, cls.image, 'small:v1')

    def fails(self, code, reference, *options, words=(), **more):
        result = self.bed.mount_fails(code, reference, *options, words=words, **more)
        self.assert_store_is_right()
        return result

    def assert_store_is_right(self):
        """Every blob in it is what its name says, and there is no image."""
        for path in self.bed.store.path.glob('blobs/sha256/*'):
            self.assertEqual(images.sha256(path.read_bytes()), 'sha256:' + path.name)
        self.assertEqual(self.bed.store.images(), [])

    def fails_here(self, code, name, *options, words=(), **more):
        """An image of the registry."""
        return self.fails(code, '%s/%s' % (self.registry.host, name), '--plain-http', *options, words=words, **more)


class NamesTest(BadCase):
    def test_no_such_image(self):
        self.fails_here(NOT_FOUND, 'nobody/has:this', words=[self.registry.host + '/nobody/has:this', 'no such image'])

    def test_no_such_tag(self):
        self.fails_here(NOT_FOUND, 'small:v2', words=[self.registry.host + '/small:v2', 'v2'])

    def test_no_such_digest(self):
        digest = 'sha256:' + '0' * 64
        self.fails_here(NOT_FOUND, 'small@' + digest, words=[digest])

    def test_malformed_references(self):
        for reference in ('small/UPPER', 'small:', 'small:v1:v2', 'small@sha256:123', 'a' * 64, 'host:port/x', '', '/x', 'x//y',
                          'small@md5:' + '0' * 32, 'docker-daemon:x', '[::1/x', 'x' * 300, 'small:' + 'v' * 129):
            with self.subTest(reference):
                self.fails(USAGE, reference, words=[reference[:40]] if reference else [])

    def test_no_such_layout(self):
        self.fails(NOT_FOUND, 'oci:%s/nothing' % self.bed.dir, words=['%s/nothing' % self.bed.dir, 'No such file'])

    def test_no_such_tag_in_a_layout(self):
        self.fails(NOT_FOUND, 'oci:%s:v9' % self.layout.path, words=['v9'])

    def test_no_layout_but_a_directory(self):
        self.fails(NOT_FOUND, 'oci:%s' % self.bed.mkdir('empty'), words=['empty'])

    def test_no_such_archive(self):
        self.fails(NOT_FOUND, 'docker-archive:%s/no.tar' % self.bed.dir, words=['no.tar', 'No such file'])

    def test_no_archive_but_a_file(self):
        path = self.bed.write('noise.tar', images.noise(1, 20000))
        self.fails(BAD_DATA, 'docker-archive:%s' % path, words=['noise.tar'])

    def test_no_such_platform(self):
        layout = images.Layout(self.bed.dir / 'index')
        one = layout.add_image(None, [images.Layer.of(images.tar(images.entry('x', b'x')))], 'linux/s390x')
        layout.add_index('all', {'linux/s390x': one, 'windows/amd64': one})
        self.fails(NOT_FOUND, 'oci:%s:all' % layout.path, '--platform=linux/amd64', words=['linux/amd64', 'linux/s390x', 'windows/amd64'])


class AccessTest(BadCase):
    def test_no_registry_there(self):
        proxy = FaultProxy(self.bed, None)
        proxy.close()
        result = self.fails(UNREACHABLE, '%s/x:v1' % proxy.host, '--plain-http', '--timeout=2',
                            words=[proxy.host, 'onnection refused'])
        self.assertLess(result.seconds, 10)

    def test_no_such_host(self):
        result = self.fails(UNREACHABLE, 'no-such-host.invalid/x:v1', '--timeout=2', words=['no-such-host.invalid'])
        self.assertLess(result.seconds, 15)

    def test_no_registry_but_a_server(self):
        proxy = FaultProxy(self.bed, None)
        proxy.rule(document(b'<html>hello</html>', 'text/html'))
        self.fails(BAD_DATA, '%s/x:v1' % proxy.host, '--plain-http', words=[proxy.host + '/x:v1'])

    def test_a_port_that_speaks_something_else(self):
        self.fails(UNREACHABLE, '%s/x:v1' % self.registry.host, '--timeout=2', words=[self.registry.host, 'TLS'])

    def test_wrong_credentials(self):
        registry = Registry(self.bed, users={'alice': 'secret'})
        registry.push(self.layout, self.image, 'small:v1')
        reference = '%s/small:v1' % registry.host
        result = self.fails(DENIED, reference, '--plain-http', '--creds=alice:guess', words=[reference])
        self.assertNotIn('guess', result.err)
        self.fails(DENIED, reference, '--plain-http', words=[reference])
        self.bed.mount(reference, '--plain-http', '--creds=alice:secret')

    def test_forbidden(self):
        proxy = FaultProxy(self.bed, self.registry.port)
        proxy.rule(status(403, {'Content-Type': 'application/json'}, b'{"errors": [{"code": "DENIED", "message": "not for you"}]}'))
        self.fails(DENIED, '%s/small:v1' % proxy.host, '--plain-http', words=[proxy.host, '403', 'not for you'])

    def test_tls_not_trusted(self):
        registry = Registry(self.bed, authority=Authority(self.bed.mkdir('authority')))
        self.fails(UNREACHABLE, '%s/small:v1' % registry.host, '--timeout=5', words=[registry.host, 'certificate', 'not trusted'])

    def test_a_server_that_is_always_down(self):
        proxy = FaultProxy(self.bed, self.registry.port)
        proxy.rule(status(503, {}, b'down for maintenance'))
        self.fails(UNREACHABLE, '%s/small:v1' % proxy.host, '--plain-http', '--timeout=2', words=[proxy.host, '503'])
        self.assertGreater(len(proxy.requests()), 2)


class DocumentTest(BadCase):
    """Manifests, indexes and configs."""

    def served(self, value, media_type=images.MANIFEST_TYPE):
        """A document in the place of the manifest, with nothing to tell that it is another one."""
        proxy = FaultProxy(self.bed, self.registry.port)
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        proxy.rule(document(body, media_type), path='/manifests/')
        return '%s/small:v1' % proxy.host

    def changed(self, **changes):
        return dict(self.layout.json(self.image), **changes)

    def refused(self, value, *words, media_type=images.MANIFEST_TYPE, code=BAD_DATA):
        reference = self.served(value, media_type)
        self.fails(code, reference, '--plain-http', words=[reference, *words])

    def test_no_layers(self):
        self.refused(self.changed(layers=[]), 'no layers')

    def test_layer_of_unknown_media_type(self):
        layers = [dict(l, mediaType='application/x-shockwave-flash') for l in self.layout.json(self.image)['layers']]
        self.refused(self.changed(layers=layers), 'application/x-shockwave-flash', layers[0]['digest'])

    def test_manifest_of_unknown_media_type(self):
        self.refused(self.changed(mediaType='application/x-surprise'), 'application/x-surprise')

    def test_schema_1(self):
        for media_type in ('application/vnd.docker.distribution.manifest.v1+json',
                           'application/vnd.docker.distribution.manifest.v1+prettyjws', 'application/json'):
            with self.subTest(media_type):
                self.refused(SCHEMA1, 'schema 1', media_type=media_type)

    def test_artifact(self):
        config = dict(self.layout.json(self.image)['config'], mediaType='application/vnd.cncf.helm.config.v1+json')
        self.refused(self.changed(config=config), 'not a container image', 'application/vnd.cncf.helm.config.v1+json')

    def test_artifact_by_its_type(self):
        config = {'mediaType': 'application/vnd.oci.empty.v1+json', 'size': 2, 'digest': images.sha256(b'{}'), 'data': 'e30='}
        self.refused(self.changed(config=config, artifactType='application/vnd.example.sbom'), 'not a container image',
                     'application/vnd.example.sbom')

    def test_both_layers_and_manifests(self):
        self.refused(self.changed(manifests=[]), 'both layers and manifests')

    def test_media_type_that_contradicts(self):
        self.refused(self.changed(), images.INDEX_TYPE, media_type=images.INDEX_TYPE)

    def test_not_json(self):
        self.refused(b'{"schemaVersion": 2, ')

    def test_no_object(self):
        self.refused(b'[]')

    def test_huge_manifest(self):
        self.refused(self.changed(annotations={'x': 'y' * (4 << 20)}))

    def test_deeply_nested_json(self):
        self.refused(b'[' * 100000)

    def test_malformed_digests(self):
        for digest in ('sha256:../../../etc/passwd', 'sha256:' + 'A' * 64, 'sha256:' + '0' * 63, 'md5:' + '0' * 32, '', 7):
            with self.subTest(digest):
                layers = [dict(l, digest=digest) for l in self.layout.json(self.image)['layers']]
                self.refused(self.changed(layers=layers))

    def test_malformed_sizes(self):
        for size in (-1, 1.5, '7', None, 1 << 70):
            with self.subTest(size):
                layers = [dict(l, size=size) for l in self.layout.json(self.image)['layers']]
                self.refused(self.changed(layers=layers))

    def test_manifest_of_another_digest(self):
        """A reference by digest, and the registry serves something else."""
        proxy = FaultProxy(self.bed, self.registry.port)
        proxy.rule(document(json.dumps(self.changed(annotations={'a': 'b'})).encode(), images.MANIFEST_TYPE), path='/manifests/')
        self.fails(BAD_DATA, '%s/small@%s' % (proxy.host, self.image['digest']), '--plain-http', words=[self.image['digest']])

    def test_manifest_that_contradicts_the_stated_digest(self):
        proxy = FaultProxy(self.bed, self.registry.port)
        proxy.rule(flip(0.9), path='/manifests/')
        self.fails(BAD_DATA, '%s/small:v1' % proxy.host, '--plain-http', words=[self.image['digest']])

    def test_config_of_another_digest(self):
        config = self.layout.json(self.image)['config']['digest']
        proxy = FaultProxy(self.bed, self.registry.port)
        proxy.rule(flip(), path=config)
        self.fails(BAD_DATA, '%s/small:v1' % proxy.host, '--plain-http', words=[config])

    def test_config_that_is_not_there(self):
        config = self.layout.json(self.image)['config']['digest']
        proxy = FaultProxy(self.bed, self.registry.port)
        proxy.rule(status(404), path=config)
        self.fails(NOT_FOUND, '%s/small:v1' % proxy.host, '--plain-http', words=[config, '404'])

    def test_index_of_indexes_without_end(self):
        """An index that names itself can't be (its digest would have to hold itself); a long chain can."""
        layout = images.Layout(self.bed.dir / 'chain')
        one = layout.add_image(None, [images.Layer.of(images.tar(images.entry('x', b'x')))])
        for _ in range(20):
            one = layout.add_index('chain', {'linux/amd64': one})
            layout.tagged.clear()
        layout.tag('chain', one)
        self.fails(BAD_DATA, 'oci:%s:chain' % layout.path, '--platform=linux/amd64', words=['nest'])

    def test_attestations_are_no_platform(self):
        layout = images.Layout(self.bed.dir / 'index')
        one = layout.add_image(None, [images.Layer.of(images.tar(images.entry('x', b'x')))])
        layout.add_index('all', {'unknown/unknown': one})
        self.fails(NOT_FOUND, 'oci:%s:all' % layout.path)
        soci = dict(one, artifactType='application/vnd.amazon.soci.index.v2+json')
        layout.add_index('soci', {'linux/amd64': soci})
        self.fails(NOT_FOUND, 'oci:%s:soci' % layout.path, '--platform=linux/amd64')


class BlobTest(BadCase):
    """The registry's copy of a layer is broken by hand."""

    def break_layer(self, change, compression='gzip'):
        """An image whose one layer's blob CHANGE has edited in the registry's storage. Returns (reference, layer digest, path)."""
        content = images.tar(images.entry('mark', (self.id() + compression).encode()), images.entry('noise', images.noise(1, 300000)),
                             images.entry('text', images.text(2, 1 << 20))) + bytes(10240)
        layout = images.Layout(self.bed.mkdir('broken') / 'layout')
        image = layout.add_image('v1', [images.Layer.of(content, compression)])
        self.registry.push(layout, image, 'broken:v1')
        digest = layout.json(image)['layers'][0]['digest']
        path = self.registry.blob_path(digest)
        whole = path.read_bytes()
        path.write_bytes(change(whole))
        self.whole, self.path = whole, path
        return digest

    def refused(self, change, *words, compression='gzip', code=BAD_DATA):
        digest = self.break_layer(change, compression)
        self.fails_here(code, 'broken:v1', '--timeout=3', words=[digest, *words])
        # The same store serves the image when the registry has mended it.
        self.path.write_bytes(self.whole)
        self.bed.mount('%s/broken:v1' % self.registry.host, '--plain-http').umount()
        shutil.rmtree(self.bed.store.path)

    def test_wrong_digest(self):
        def change(data):
            return data[:200] + bytes([data[200] ^ 1]) + data[201:]
        for compression in images.COMPRESSIONS:
            with self.subTest(compression):
                self.refused(change, compression=compression)

    def test_wrong_digest_at_the_very_end(self):
        """Every byte that is decoded is right: only the digest of the whole blob tells."""
        self.refused(lambda data: data[:-700] + b'\1' + data[-699:], 'digest', compression='plain')

    def test_truncated_blob(self):
        for compression in images.COMPRESSIONS:
            with self.subTest(compression):
                self.refused(lambda data: data[:len(data) // 2], compression=compression)

    def test_empty_blob(self):
        self.refused(lambda data: b'')

    def test_blob_that_is_longer(self):
        self.refused(lambda data: data + bytes(512), compression='plain')

    def test_missing_blob(self):
        digest = self.break_layer(lambda data: data)
        self.path.unlink()
        self.fails_here(NOT_FOUND, 'broken:v1', words=[digest, '404'])

    def test_size_that_the_manifest_gets_wrong(self):
        for off in (-100, 100):
            with self.subTest(off):
                layout = images.Layout(self.bed.mkdir('sizes') / 'layout')
                layer = images.Layer.of(images.tar(images.entry('x', images.noise(off, 5000))))

                def change(manifest):
                    manifest['layers'][0]['size'] += off
                layout.add_image('v1', [layer], change=change)
                self.fails(BAD_DATA, 'oci:%s:v1' % layout.path, words=[images.sha256(layer.blob)[7:], 'manifest'])


class LayerTest(BadCase):
    """Layers with the right digest and the wrong bytes in them, from a layout and from the registry."""

    def layer(self, blob, media_type=images.LAYER_TYPE + '+gzip'):
        return images.Layer(blob, images.sha256(blob), media_type)

    def refused(self, blob, *words, media_type=images.LAYER_TYPE + '+gzip', below=None):
        layout = images.Layout(self.bed.mkdir('bad') / 'layout')
        layers = ([images.Layer.of(below)] if below else []) + [self.layer(blob, media_type)]
        image = layout.add_image('v1', layers)
        digest = images.sha256(blob)
        self.fails(BAD_DATA, 'oci:%s:v1' % layout.path, words=['blobs/sha256/' + digest[7:], *words])
        self.registry.push(layout, image, 'bad:v1')
        self.fails_here(BAD_DATA, 'bad:v1', words=['bad:v1', digest, *words])

    def refused_tar(self, content, *words, **more):
        self.refused(content, *words, media_type=images.LAYER_TYPE, **more)

    def accepted(self, content, media_type=images.LAYER_TYPE):
        layout = images.Layout(self.bed.mkdir('good') / 'layout')
        layout.add_image('v1', [self.layer(content, media_type)])
        return layout, self.bed.mount('oci:%s:v1' % layout.path)

    # ---- streams ----

    def test_truncated_gzip(self):
        blob = gzip.compress(images.tar(images.entry('x', images.noise(1, 100000))))
        for length in (1, 5, 17, 5000, len(blob) - 9, len(blob) - 8, len(blob) - 1):
            with self.subTest(length):
                self.refused(blob[:length])

    def test_gzip_with_a_wrong_checksum(self):
        blob = bytearray(gzip.compress(images.tar(images.entry('x', images.noise(1, 100000)))))
        blob[-6] ^= 1
        self.refused(bytes(blob))

    def test_gzip_with_a_broken_block(self):
        blob = bytearray(gzip.compress(images.tar(images.entry('x', images.text(1, 100000)))))
        blob[len(blob) // 2] ^= 0xff
        self.refused(bytes(blob))

    def test_truncated_zstd(self):
        blob = images.Layer.of(images.tar(images.entry('x', images.noise(1, 300000))), 'zstd').blob
        for length in (5, 10000, len(blob) - 1):
            with self.subTest(length):
                self.refused(blob[:length], media_type=images.LAYER_TYPE + '+zstd')

    def test_truncated_tar(self):
        content = images.tar(images.entry('x', images.noise(1, 100000)), images.entry('y', b'y'))
        for length in (100, 600, 5000, 512 * 3 + 99840):
            with self.subTest(length):
                self.refused_tar(content[:length])
        self.refused(gzip.compress(content[:5000]))

    def test_noise(self):
        self.refused_tar(images.noise(3, 10240))
        self.refused(gzip.compress(images.noise(3, 10240)))

    # ---- tars that lie ----

    def header(self, name=b'x', size=b'00000000005\0', kind=b'0', link=b'', checksum=True):
        block = bytearray(512)
        block[0:len(name)] = name
        block[100:108], block[108:116], block[116:124] = b'0000644\0', b'0000000\0', b'0000000\0'
        block[124:136] = size
        block[136:148] = b'14524770400\0'
        block[148:156] = b' ' * 8
        block[156:157] = kind
        block[157:157 + len(link)] = link
        block[257:265] = b'ustar\00000'
        block[148:156] = b'%06o\0 ' % (sum(block) + (0 if checksum else 1))
        return bytes(block)

    def padded(self, data):
        return data + bytes(-len(data) % 512)

    def test_size_past_the_end(self):
        self.refused_tar(self.header(size=b'00000777777\0') + self.padded(b'hello') + bytes(1024))

    def test_absurd_sizes(self):
        for size in (b'77777777777\0', b'\x80' + bytes(3) + b'\x7f' + b'\xff' * 7, b'\x80' + b'\x7f' + b'\xff' * 10,
                     b'\xff' * 12, b'-0000000005\0', b'0x000000005\0', b'9999999999\0\0'):
            with self.subTest(size):
                self.refused_tar(self.header(size=size) + self.padded(b'hello') + bytes(1024))

    def test_wrong_checksum(self):
        self.refused_tar(self.header(checksum=False) + self.padded(b'hello') + bytes(1024), 'checksum')

    def pax(self, records, kind=b'x'):
        return self.header(b'PaxHeaders/x', b'%011o\0' % len(records), kind) + self.padded(records)

    def record(self, key, value):
        body = b' %s=%s\n' % (key, value)
        length = len(body) + 1
        while len(b'%d' % length) + len(body) != length:
            length += 1
        return b'%d' % length + body

    def test_absurd_pax_headers(self):
        tail = self.header() + self.padded(b'hello') + bytes(1024)
        for records in (b'nonsense\n', b'0 a=b\n', b'5 a=b\n', b'999999 a=b\n', b'18446744073709551617 a=b\n', b'6 a=bX', b'7 ab\ncd',
                        self.record(b'size', b'-1'), self.record(b'size', b'99999999999999999999'), self.record(b'size', b'9' * 19),
                        self.record(b'size', b'5x'), self.record(b'path', b'a\0b'), self.record(b'uid', b'99999999999'),
                        self.record(b'mtime', b'soon'), self.record(b'mtime', b'9' * 40),
                        self.record(b'GNU.sparse.major', b'7') + self.record(b'GNU.sparse.minor', b'7'),
                        self.record(b'GNU.sparse.map', b'0,99999999999999,1'),
                        self.record(b'path', b'p' * 5000), self.record(b'path', b'n' * 256)):
            with self.subTest(records[:60]):
                self.refused_tar(self.pax(records) + tail)

    def test_pax_header_without_end(self):
        self.refused_tar(self.header(b'PaxHeaders/x', b'%011o\0' % (64 << 20), b'x') + bytes(1 << 20))

    def test_names_that_are_too_long(self):
        for name in ('n' * 256, '/'.join(['d' * 200] * 21)):
            with self.subTest(len(name)):
                self.refused_tar(images.tar(images.entry(name, b'x')), 'long')

    def test_link_targets_that_are_too_long(self):
        for size in (4096, 70000):
            self.refused_tar(images.tar(images.entry('s', kind=tarfile.SYMTYPE, linkname='t' * size)), 'long')

    def test_depth_without_end(self):
        self.refused_tar(images.tar(*[images.entry('/'.join(['d'] * n), kind=tarfile.DIRTYPE) for n in (2100,)]))

    def test_bare_whiteout(self):
        self.refused_tar(images.tar(images.entry('etc/.wh.', b'')), '.wh.')

    def test_a_file_in_the_place_of_the_root(self):
        for kind in (tarfile.REGTYPE, tarfile.SYMTYPE):
            self.refused_tar(images.tar(images.entry('./', kind=kind, linkname='x')))

    # ---- links ----

    def links(self, *pairs):
        return images.tar(images.entry('real', b'real'),
                          *[images.entry(name, kind=tarfile.LNKTYPE, linkname=target) for name, target in pairs])

    def test_cycles_of_hardlinks(self):
        for pairs in ([('a', 'a')], [('a', 'b'), ('b', 'a')], [('a', 'b'), ('b', 'c'), ('c', 'a')],
                      [('x/a', './x/b'), ('x/b', '/x/a')]):
            with self.subTest(pairs):
                self.refused_tar(self.links(*pairs), pairs[0][0])

    def test_hardlink_to_nothing(self):
        """The layer may be right above another one, so it may stay in the store."""
        layout = images.Layout(self.bed.dir / 'layout')
        layer = images.Layer.of(self.links(('a', 'nothing')))
        layout.add_image('v1', [layer])
        self.fails(BAD_DATA, 'oci:%s:v1' % layout.path, words=['a: hardlink to nothing'], keeps_layers=True)
        layout.add_image('v2', [images.Layer.of(images.tar(images.entry('nothing', b'something'))), layer])
        self.assertEqual(self.bed.mount('oci:%s:v2' % layout.path).read('a'), b'something')

    def test_hardlink_to_a_directory(self):
        self.refused_tar(images.tar(images.entry('d', kind=tarfile.DIRTYPE),
                                    images.entry('a', kind=tarfile.LNKTYPE, linkname='d')), 'd')

    # ---- names that want to leave ----

    def test_names_with_dots_stay_inside(self):
        """".." and absolute names are taken inside of the root, as umoci takes them."""
        content = images.tar(images.entry('../up', b'1'), images.entry('/absolute', b'2'), images.entry('a/../../b', b'3'),
                             images.entry('./c/./d', b'4'), images.entry('a/..', kind=tarfile.DIRTYPE, mode=0o711),
                             images.entry('../../../../../../../../tmp/regfs-escaped', b'5'))
        layout, mount = self.accepted(content)
        self.assertFalse(os.path.exists('/tmp/regfs-escaped'))
        self.assertEqual({p: mount.read(p) for p in ('up', 'absolute', 'b', 'c/d', 'tmp/regfs-escaped')},
                         {'up': b'1', 'absolute': b'2', 'b': b'3', 'c/d': b'4', 'tmp/regfs-escaped': b'5'})
        oracle = Oracle(layout.path, 'v1', self.bed.dir / 'unpacked', [content])
        # umoci makes the directory that "a/../../b" passes through; POSIX would want it, an image does not.
        self.assertEqual(sorted(set(oracle.tree) - {b'a'}), sorted(set(read_tree(mount.path)) - {b'a'}))

    def test_hardlinks_that_want_to_leave(self):
        content = images.tar(images.entry('etc/passwd', b'inside\n'),
                             images.entry('stolen', kind=tarfile.LNKTYPE, linkname='../../../../etc/passwd'))
        _, mount = self.accepted(content)
        self.assertEqual(mount.read('stolen'), b'inside\n')

    # ---- trees ----

    def test_layers_that_are_empty(self):
        """An end of archive and nothing else is a layer; builders write it."""
        for blob, media_type in ((bytes(1024), images.LAYER_TYPE), (gzip.compress(bytes(1024)), images.LAYER_TYPE + '+gzip')):
            _, mount = self.accepted(blob, media_type)
            self.assertEqual(os.listdir(mount.path), [])

    def test_media_type_is_only_a_hint(self):
        """The magic bytes decide."""
        content = images.tar(images.entry('x', b'x'))
        for blob, media_type in ((content, '+gzip'), (gzip.compress(content), ''), (gzip.compress(content), '+zstd')):
            _, mount = self.accepted(blob, images.LAYER_TYPE + media_type)
            self.assertEqual(mount.read('x'), b'x')


class DraftTest(BadCase):
    def test_a_bad_layer_does_not_take_the_good_one_along(self):
        """Layers are indexed side by side: what was right may stay, what was wrong may not."""
        layout = images.Layout(self.bed.dir / 'layout')
        good = images.Layer.of(images.tar(images.entry('good', images.text(1, 1 << 20))))
        bad = gzip.compress(images.noise(2, 100000))
        image = layout.add_image('v1', [good, images.Layer(bad, images.sha256(bad), images.LAYER_TYPE + '+gzip')])
        self.registry.push(layout, image, 'half:v1')
        self.fails_here(BAD_DATA, 'half:v1', words=[images.sha256(bad)], keeps_layers=True)
        self.assertLessEqual({p.parent.name for p in self.bed.store.layers()}, {images.sha256(good.blob)[7:]})


if __name__ == '__main__':
    unittest.main()
