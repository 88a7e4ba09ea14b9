# SPDX-License-Identifier: Apache-2.0
"""Indexes that regfs publishes: pushed beside an image, into a layout, bound by a manifest; found, trusted or not, refused."""
import concurrent.futures
import json
import re
import unittest

import images
from fault_proxy import FaultProxy, delay, flip, status
from images import INDEX_TYPE, MANIFEST_TYPE, sha256
from oracle import Oracle
from registry import Registry
from testbed import BAD_DATA, DENIED, NOT_FOUND, USAGE, TestCase, run
from tocfile import CHUNKS, CHUNK_DIGEST, CHUNK_SIZE, INODES, INODE_MODE, INODE_SIZE, TocFile

TYPE = 'application/vnd.regfs.index.v1'
BINDING = 'dev.regfs.index.digest'
STARGZ = 'containerd.io/snapshot/stargz/toc.digest'
ESGZ_DIGEST = 'sha256:85f895913a2ad54941a9aa7b70ad4e6e99dc4388ee880e2436029a9fb1ce59cb'


class IndexCase(TestCase):
    """The fixture image of three gzip layers, in a registry of the class and under a repository of the test's own."""

    @classmethod
    def set_up_shared(cls):
        cls.registry = Registry(cls.shared)
        cls.layout = images.Layout(cls.shared.dir / 'layout')
        tars = images.fixture_tars()
        cls.image = cls.layout.add_image('v1', images.fixture_layers('gzip'))
        cls.oracle = Oracle(cls.layout.path, 'v1', cls.shared.dir / 'unpacked', tars.values())
        cls.layers = cls.layout.json(cls.image)['layers']

    def setUp(self):
        super().setUp()
        self.proxy = FaultProxy(self.bed, self.registry.port)
        self.name = re.sub(r'[^a-z0-9]', '-', self.id().rpartition('.')[2])
        self.registry.push_layout(self.layout, 'v1', self.name + ':v1')

    def ref(self, tag='v1', proxy=True):
        host = self.proxy.host if proxy else self.registry.host
        return '%s/%s%s%s' % (host, self.name, '@' if tag.startswith('sha256:') else ':', tag)

    def by_digest(self):
        return self.ref(self.image['digest'])

    def regfs(self, *args, **more):
        result = self.bed.regfs(*args, '--plain-http', **more)
        self.assertEqual(result.code, 0, result)
        return result.out

    def index(self, *options, tag='v1'):
        """regfs index, in a store of its own: what it says, as JSON."""
        return json.loads(self.regfs('index', '--json', '--cache-dir=%s' % self.bed.fresh('indexer'), *options,
                                     self.ref(tag, proxy=False)))

    def push(self):
        return self.index('--push')['index']['digest']

    def mount(self, ref=None, *options):
        return self.bed.mount(ref or self.ref(), '--plain-http', *options)

    def kinds(self):
        return sorted(p.name.partition('-')[0] for p in self.bed.store.path.glob('layers/sha256/*/*'))

    def layer_requests(self):
        return sum((self.proxy.requests('/blobs/' + layer['digest']) for layer in self.layers), [])

    def assert_right(self, mount):
        self.assertEqual(self.oracle.differences(mount.path), [])

    def assert_whole(self, mount, log=None):
        """Nothing published was used: the layers were read whole, and the tree is right."""
        self.assertEqual(self.kinds(), ['plain'] * 3)
        if log:
            self.assertRegex(mount.log(), log)
        self.assert_right(mount)

    def manifest(self, reference):
        _, body = self.registry._request('GET', '/v2/%s/manifests/%s' % (self.name, reference),
                                         headers={'Accept': '%s, %s' % (MANIFEST_TYPE, INDEX_TYPE)})
        return json.loads(body)

    def fallback_tag(self):
        return self.image['digest'].replace(':', '-')

    def blob(self, digest):
        return self.registry.blob_path(digest).read_bytes()

    def publish(self, change_table=None, change_manifest=None):
        """The index that regfs makes, changed, at the fallback tag. CHANGE_TABLE(layer's digest, TocFile)."""
        manifest = self.manifest(self.push())
        for layer in manifest['layers']:
            toc = TocFile(self.blob(layer['digest']))
            if change_table:
                change_table(layer['annotations']['dev.regfs.layer.digest'], toc)
            data = toc.compressed()
            self.registry.put_blob(self.name, data)
            layer.update(digest=sha256(data), size=len(data))
        if change_manifest:
            change_manifest(manifest)
        body = json.dumps(manifest).encode()
        self.registry.put_manifest(self.name, sha256(body), body)
        self.list_referrers({'mediaType': MANIFEST_TYPE, 'digest': sha256(body), 'size': len(body), 'artifactType': TYPE})
        return sha256(body)

    def list_referrers(self, *descriptors):
        body = json.dumps({'schemaVersion': 2, 'mediaType': INDEX_TYPE, 'manifests': descriptors}).encode()
        self.registry.put_manifest(self.name, self.fallback_tag(), body, INDEX_TYPE)


class PublishTest(IndexCase):
    def test_it_tells_what_it_costs_and_leaves_it_in_the_store(self):
        out = self.regfs('index', self.ref())
        for layer in self.layers:
            self.assertIn(layer['digest'], out)
        self.assertEqual(self.kinds(), ['plain'] * 3)
        seen = len(self.layer_requests())
        mount = self.mount()
        self.assert_right(mount)
        self.assertEqual(len(self.layer_requests()), seen)
        self.assertIn('known', self.regfs('index', self.ref()))

    def test_what_was_pushed_is_found_and_used(self):
        index = self.push()
        mount = self.mount()
        self.assertEqual(self.kinds(), ['regfs'] * 3)
        self.assertEqual(self.layer_requests(), [])
        # manifest, config, referrers, fallback tag, index; one table for each layer
        self.assertLessEqual(len(self.proxy.requests()), 5 + 3)
        self.assertEqual(mount.read('etc/shadow'), b'root:*:19000::::::\n')
        self.assertLessEqual(len(self.layer_requests()), 1)
        self.assert_right(mount)
        mount.umount()

        # The second time nobody asks for anything but the tag.
        seen = len(self.proxy.requests())
        mount = self.mount()
        self.assert_right(mount)
        self.assertEqual([r.method for r in self.proxy.requests()[seen:]], ['HEAD'])
        self.assertIn(index, self.regfs('inspect', self.ref()))

    def test_pushing_twice_publishes_once(self):
        first = self.push()
        self.assertEqual(self.push(), first)
        listed = self.manifest(self.fallback_tag())
        self.assertEqual([m['digest'] for m in listed['manifests']], [first])
        self.assertEqual(listed['manifests'][0]['artifactType'], TYPE)

    def test_others_keep_their_place_at_the_fallback_tag(self):
        manifest = {'schemaVersion': 2, 'mediaType': MANIFEST_TYPE, 'artifactType': 'application/vnd.example.signature',
                    'config': self.layout.json(self.image)['config'], 'layers': [], 'annotations': {'who': 'others'}}
        body = json.dumps(manifest).encode()
        self.registry.put_manifest(self.name, sha256(body), body)
        other = {'mediaType': MANIFEST_TYPE, 'digest': sha256(body), 'size': len(body),
                 'artifactType': 'application/vnd.example.signature', 'annotations': {'who': 'others'}, 'odd': [1, {'a': None}]}
        self.list_referrers(other)
        index = self.push()
        listed = self.manifest(self.fallback_tag())['manifests']
        self.assertEqual(listed[0], other)
        self.assertEqual([m['digest'] for m in listed[1:]], [index])
        self.mount()
        self.assertEqual(self.kinds(), ['regfs'] * 3)

    def test_a_registry_with_the_referrers_api(self):
        """docker-registry has none: the proxy plays one, and what regfs pushes through it needs no tag."""
        pushed = []

        def put(x):
            answer = x.forward()
            if '/manifests/sha256:' in x.path and json.loads(x.body).get('subject'):
                pushed.append({'mediaType': MANIFEST_TYPE, 'digest': x.path.rpartition('/')[2], 'size': len(x.body),
                               'artifactType': json.loads(x.body)['artifactType']})
                answer.headers.append(('OCI-Subject', json.loads(x.body)['subject']['digest']))
            x.send_answer(answer)

        def referrers(x):
            body = json.dumps({'schemaVersion': 2, 'mediaType': INDEX_TYPE, 'manifests': pushed}).encode()
            x.send(200, {'Content-Type': INDEX_TYPE}, body)
        self.proxy.rule(put, path='/manifests/', method='PUT')
        asked = self.proxy.rule(referrers, path='/referrers/' + self.image['digest'])
        self.regfs('index', '--push', '--cache-dir=%s' % self.bed.fresh('indexer'), self.ref())
        self.assertEqual(len(pushed), 1)
        self.registry._request('GET', '/v2/%s/manifests/%s' % (self.name, self.fallback_tag()), expect=(404,))
        asked.hits = 0
        mount = self.mount()
        self.assertEqual(self.kinds(), ['regfs'] * 3)
        self.assertEqual(asked.hits, 1)
        self.assert_right(mount)

    def test_a_layout(self):
        where = self.bed.fresh('index')
        self.index('-o', where)
        run('skopeo', 'inspect', '--raw', 'oci:%s' % where)
        mount = self.mount(self.ref(), '--index=oci:%s' % where)
        self.assertEqual(self.kinds(), ['regfs'] * 3)
        self.assertEqual(self.layer_requests(), [])
        self.assert_right(mount)

    def test_beside_an_image_in_a_layout(self):
        layout = images.Layout(self.bed.dir / 'own')
        image = layout.add_image('v1', images.fixture_layers('gzip'))
        self.bed.regfs('index', '--push', 'oci:%s:v1' % layout.path)
        self.bed.store.path.rename(self.bed.dir / 'gone')
        mount = self.bed.mount('oci:%s:v1' % layout.path)
        self.assertEqual(self.kinds(), ['regfs'] * 3)
        self.assert_right(mount)
        self.assertEqual(mount.digest, image['digest'])

    def test_nobody_may_push(self):
        registry = Registry(self.bed, users={'alice': 'secret'})
        registry.push_layout(self.layout, 'v1', 'x:v1', 'alice:secret')
        proxy = FaultProxy(self.bed, registry.port)
        proxy.rule(status(403), method='POST')
        result = self.bed.regfs('index', '--push', '--plain-http', '--creds', 'alice:secret', '%s/x:v1' % proxy.host)
        self.assertEqual(result.code, DENIED, result)
        self.assertIn(proxy.host + '/x', result.err)

    def test_with_credentials(self):
        registry = Registry(self.bed, users={'alice': 'secret'})
        registry.push_layout(self.layout, 'v1', 'x:v1', 'alice:secret')
        self.bed.regfs('index', '--push', '--plain-http', '--creds', 'alice:secret', '%s/x:v1' % registry.host)
        self.bed.store.path.rename(self.bed.dir / 'gone')
        self.bed.mount('%s/x:v1' % registry.host, '--plain-http', '--creds', 'alice:secret')
        self.assertEqual(self.kinds(), ['regfs'] * 3)

    def test_layers_that_carry_a_table_are_left_out(self):
        tars = images.fixture_tars()
        base = images.Layer.of_fixture('base.esgz', '+gzip', tars['base'])
        rest = [images.Layer.of(tars[name]) for name in ('upper', 'twice')]

        def annotate(manifest):
            manifest['layers'][0]['annotations'] = {STARGZ: ESGZ_DIGEST}
        self.layout.add_image('mixed', [base, *rest], change=annotate)
        self.registry.push_layout(self.layout, 'mixed', self.name + ':mixed')
        self.assertEqual(self.index('--push', tag='mixed')['index']['layers'], 2)
        self.mount(self.ref('mixed'))
        self.assertEqual(self.kinds(), ['estargz', 'regfs', 'regfs'])

        self.layout.add_image('lazy', [base], change=annotate)
        self.registry.push_layout(self.layout, 'lazy', self.name + ':lazy')
        out = self.regfs('index', '--push', self.ref('lazy'))
        self.assertIn('Nothing to publish', out)

    def test_usage(self):
        for words, options in (('--bind needs --push', ['--bind', 'x:y', 'a']), ('one of them', ['--push', '-o', 'x', 'a']),
                               ('takes one reference', []), ('only none', ['--index=auto', 'a'])):
            result = self.bed.regfs('index', *options)
            self.assertEqual(result.code, USAGE, result)
            self.assertIn(words, result.err)


class TrustTest(IndexCase):
    def test_a_digest_does_without_what_it_does_not_bind(self):
        self.push()
        mount = self.mount(self.by_digest())
        self.assertEqual(self.proxy.requests('/referrers/'), [])
        self.assert_whole(mount)

    def test_a_digest_does_with_it_when_told(self):
        self.push()
        self.mount(self.by_digest(), '--index=referrers')
        self.assertEqual(self.kinds(), ['regfs'] * 3)

    def test_what_a_tag_has_brought_into_the_store_is_not_used_for_a_digest(self):
        self.push()
        self.mount().umount()
        mount = self.mount(self.by_digest())
        self.assertEqual(self.kinds(), ['plain'] * 3 + ['regfs'] * 3)
        self.assert_right(mount)

    def test_none_means_the_layers_alone(self):
        tars = images.fixture_tars()

        def annotate(manifest):
            manifest['layers'][0]['annotations'] = {STARGZ: ESGZ_DIGEST}
        self.layout.add_image('esgz', [images.Layer.of_fixture('base.esgz', '+gzip', tars['base'])], change=annotate)
        self.registry.push_layout(self.layout, 'esgz', self.name + ':esgz')
        self.mount(self.ref('esgz'), '--index=none').umount()
        self.assertEqual(self.kinds(), ['plain'])
        self.push()
        mount = self.mount(self.ref(), '--index=none')
        self.assertEqual(self.proxy.requests('/referrers/'), [])
        self.assertEqual(self.kinds(), ['plain'] * 4)
        self.assert_right(mount)

    def test_an_index_that_is_named(self):
        index = self.push()
        for name in (self.ref(index), self.ref(self.fallback_tag())):
            self.mount(self.by_digest(), '--index=' + name).umount()
            self.assertEqual(self.kinds(), ['regfs'] * 3)
            self.bed.store.path.rename(self.bed.fresh('gone'))

    def test_a_name_that_names_no_index(self):
        self.push()
        self.bed.mount_fails(NOT_FOUND, self.ref(), '--plain-http', '--index=' + self.ref('nothing'), words=['nothing'])
        self.bed.mount_fails(BAD_DATA, self.ref(), '--plain-http', '--index=' + self.ref('v1'), words=['--index', 'artifact'])
        self.bed.mount_fails(USAGE, self.ref(), '--plain-http', '--index=', words=['--index'])
        other = images.small_image(self.layout, 'other')
        self.registry.push_layout(self.layout, 'other', self.name + ':other')
        self.assertNotEqual(other['digest'], self.image['digest'])
        self.bed.mount_fails(NOT_FOUND, self.ref('other'), '--plain-http', '--index=' + self.ref(self.fallback_tag()),
                             words=['no index of'])

    def test_bound(self):
        """NEWREF's digest vouches for the index: it is used for a digest, and nobody looks for referrers."""
        out = self.index('--push', '--bind', self.name + ':bound')
        bound = self.manifest('bound')
        self.assertEqual(bound['annotations'][BINDING], out['index']['digest'])
        self.assertEqual(bound['layers'], self.layout.json(self.image)['layers'])
        mount = self.mount(self.ref(out['bound']))
        self.assertEqual(mount.digest, out['bound'])
        self.assertEqual(self.kinds(), ['regfs'] * 3)
        self.assertEqual(self.proxy.requests('/referrers/'), [])
        self.assertEqual(self.layer_requests(), [])
        self.assertIn('bound by the image', self.regfs('inspect', self.ref(out['bound'])))
        self.assert_right(mount)
        run('skopeo', 'inspect', '--tls-verify=false', 'docker://' + self.ref('bound', proxy=False))

    def test_bound_in_another_repository(self):
        out = self.index('--push', '--bind', '%s/elsewhere/%s:new' % (self.registry.host, self.name))
        mount = self.mount('%s/elsewhere/%s@%s' % (self.proxy.host, self.name, out['bound']))
        self.assertEqual(self.kinds(), ['regfs'] * 3)
        self.assert_right(mount)

    def test_a_bound_index_that_is_gone(self):
        out = self.index('--push', '--bind', self.name + ':bound')
        self.proxy.rule(status(404), path=out['index']['digest'])
        self.assert_whole(self.mount(self.ref(out['bound'])), 'index is not used')

    def test_binding_elsewhere(self):
        result = self.bed.regfs('index', '--plain-http', '--push', '--bind', 'example.com/x:y', self.ref(proxy=False))
        self.assertEqual(result.code, USAGE, result)
        self.assertIn('copy it first', result.err)

    def test_one_pass_is_believed_more_than_others(self):
        """Layers that this store has read whole stay what they are."""
        self.mount(self.ref(), '--index=none').umount()
        self.push()
        self.mount().umount()
        self.assertEqual(self.kinds(), ['plain'] * 3)
        self.assertEqual(self.proxy.requests('/referrers/'), [])


class RefusalTest(IndexCase):
    def test_of_another_image(self):
        def other(manifest):
            manifest['subject']['digest'] = 'sha256:' + '0' * 64
        self.publish(change_manifest=other)
        self.assert_whole(self.mount(), 'index .* is of sha256:0000.*not used')

    def test_of_other_layers(self):
        def other(manifest):
            for layer in manifest['layers']:
                layer['annotations']['dev.regfs.layer.digest'] = 'sha256:' + '1' * 64
        self.publish(change_manifest=other)
        self.assert_whole(self.mount())

    def test_tables_that_are_mixed_up(self):
        """Each is sound, but stands at another layer."""
        def rotate(manifest):
            names = [layer['annotations'] for layer in manifest['layers']]
            for layer, name in zip(manifest['layers'], names[1:] + names[:1]):
                layer['annotations'] = name
        self.publish(change_manifest=rotate)
        self.assert_whole(self.mount(), "another's.*read whole")

    def test_another_version(self):
        def older(manifest):
            manifest['annotations']['dev.regfs.toc.version'] = '1'
        self.publish(change_manifest=older)
        self.assert_whole(self.mount(), 'version 1.*not used')

    def test_tables_of_another_version(self):
        def newer(_, toc):
            toc.data[8] += 1
        self.publish(newer)
        self.assert_whole(self.mount(), 'another version.*read whole')

    def test_rows_that_cannot_be(self):
        def loop(_, toc):
            rows = toc.rows(INODES, INODE_SIZE)
            toc.data[rows[-1] + 16:rows[-1] + 24] = b'\xff' * 8
            toc.data[rows[0] + INODE_MODE:rows[0] + INODE_MODE + 4] = b'\0\0\0\0'
        self.publish(loop)
        self.assert_whole(self.mount(), 'read whole')

    def test_damaged_tables(self):
        manifest = self.manifest(self.push())
        for layer in manifest['layers']:
            self.proxy.rule(flip(0.5), path='/blobs/' + layer['digest'])
        self.assert_whole(self.mount(), 'its digest is sha256.*read whole')

    def test_a_table_that_is_damaged_once(self):
        manifest = self.manifest(self.push())
        self.proxy.rule(flip(0.5), path='/blobs/' + manifest['layers'][0]['digest'], times=1)
        self.mount()
        self.assertEqual(self.kinds(), ['regfs'] * 3)

    def test_tables_that_are_gone(self):
        manifest = self.manifest(self.push())
        self.proxy.rule(status(404), path='/blobs/' + manifest['layers'][0]['digest'])
        mount = self.mount()
        self.assertEqual(self.kinds(), ['plain', 'regfs', 'regfs'])
        self.assert_right(mount)

    def test_referrers_that_fail(self):
        """A registry in trouble with its referrers costs patience, not the mount."""
        self.push()
        for code in (500, 403):
            self.proxy.clear()
            self.proxy.rule(status(code), path='/referrers/')
            mount = self.mount(self.ref(), '--timeout=2', '--cache-dir=%s' % self.bed.fresh('store'))
            self.assertRegex(mount.log(), 'no published index is used')
            self.assertEqual(mount.read('etc/shadow'), b'root:*:19000::::::\n')

    def test_a_list_that_is_none(self):
        self.proxy.rule(lambda x: x.send(200, {'Content-Type': INDEX_TYPE}, b'[1, 2'), path='/referrers/')
        self.assert_whole(self.mount(), 'no published index is used')

    def test_chunks_that_are_not_the_layers(self):
        """The index tells other digests than the layer has: reads go on by the layer's own index, which stays."""
        def lie(_, toc):
            for row in toc.rows(CHUNKS, CHUNK_SIZE):
                toc.data[row + CHUNK_DIGEST] ^= 1
        self.publish(lie)
        mount = self.mount()
        self.assertEqual(self.kinds(), ['regfs'] * 3)
        self.assert_right(mount)
        self.assertRegex(mount.log(), 'the published index is wrong')
        mount.umount()
        mount = self.mount()
        self.assert_right(mount)
        self.assertIn('plain', self.kinds())
        self.assertNotIn('wrong', mount.log())

    def test_processes_that_find_the_same_wrong_index(self):
        """They share a store, and each reads another chunk: one of them reads the layer whole, the others wait for what comes of
        it."""
        def lie(_, toc):
            for row in toc.rows(CHUNKS, CHUNK_SIZE):
                toc.data[row + CHUNK_DIGEST] ^= 1
        files = {'f%d' % k: images.noise(k, 5 << 20) for k in range(6)}
        layer = images.Layer.of(images.tar(*[images.entry(name, data) for name, data in files.items()]), 'gzip')
        self.image = self.layout.add_image('large', [layer])
        self.registry.push(self.layout, self.image, self.name + ':v1')
        self.publish(lie)
        mounts = [self.mount() for _ in files]
        self.assertEqual(self.kinds(), ['regfs'])
        self.proxy.rule(delay(0.5), path='/blobs/')
        with concurrent.futures.ThreadPoolExecutor(len(mounts)) as pool:
            self.assertTrue(all(pool.map(lambda m, name: m.read(name) == files[name], mounts, files)))
        logs = [m.log() for m in mounts]
        wrong = sum('a chunk is not what the published index says' in log for log in logs)
        whole = sum(log.count('the layer is read whole') for log in logs)
        self.assertEqual((wrong, whole), (len(mounts), 1))

    def test_a_tree_that_is_not_the_layers(self):
        """Other digests and another tree: no byte of it, and the next mount is right."""
        def lie(_, toc):
            for row in toc.rows(CHUNKS, CHUNK_SIZE):
                toc.data[row + CHUNK_DIGEST] ^= 1
            for row in toc.rows(INODES, INODE_SIZE):
                if toc.data[row + INODE_MODE + 1] & 0xf0 == 0x80:  # regular files
                    toc.data[row + INODE_MODE] ^= 0o22
        self.publish(lie)
        mount = self.mount()
        with self.assertRaises(OSError):
            mount.read('etc/shadow')
        self.assertRegex(mount.log(), r'shows another tree than the layer has: .*mode')
        mount.umount()
        mount = self.mount()
        self.assertEqual(mount.read('etc/shadow'), b'root:*:19000::::::\n')

    def test_the_registry_is_wrong_and_the_index_right(self):
        """Then the layer's digest is wrong too: EIO, and the index stays."""
        self.push()
        mount = self.mount()
        layer = self.layers[0]

        def damage(x):
            answer = x.forward()
            body = bytearray(answer.body)
            for at in range(0, len(body), 1000):
                body[at] ^= 1
            x.send_answer(answer._replace(body=bytes(body)))
        self.proxy.rule(damage, path='/blobs/' + layer['digest'])
        with self.assertRaises(OSError):
            mount.read('etc/shadow')
        self.assertRegex(mount.log(), r'error .*%s' % layer['digest'])
        self.assertEqual(self.kinds(), ['regfs'] * 3)


class InspectTest(IndexCase):
    def test_each_layer_and_where_its_table_comes_from(self):
        def described(*options, ref=None):
            return [(layer['kind'].partition('-')[0], layer['from'], layer['known']) for layer in
                    json.loads(self.regfs('inspect', '--json', *options, ref or self.ref()))['layers']]
        self.assertEqual(described(), [('plain', 'layer', False)] * 3)
        self.assertEqual(self.layer_requests(), [])
        index = self.push()
        self.assertEqual(described(), [('regfs', 'referrer', False)] * 3)
        self.assertEqual(described(ref=self.by_digest()), [('plain', 'layer', False)] * 3)
        self.assertEqual(described('--index=' + self.ref(index)), [('regfs', 'user', False)] * 3)
        self.mount().umount()
        self.assertEqual(described(), [('regfs', 'referrer', True)] * 3)
        self.assertEqual(described('--index=none'), [('plain', 'layer', False)] * 3)

    def test_it_says_so_to_people(self):
        out = self.regfs('inspect', self.ref())
        self.assertIn(self.image['digest'], out)
        self.assertIn('linux/amd64', out)
        self.assertIn('to be read whole first', out)


if __name__ == '__main__':
    unittest.main()
