# SPDX-License-Identifier: Apache-2.0
"""The benchmark's image in the formats that are read lazily: each is made once from an OCI layout with gzip layers, and kept as a
layout of its own."""
import contextlib
import json
import os
import pathlib
import shutil

import images
from testbed import run

HERE = pathlib.Path(__file__).resolve().parent
TAG = 'bench'
STARGZ = 'containerd.io/snapshot/stargz/toc.digest'
CHUNKED = ('io.github.containers.zstd-chunked.manifest-position', 'io.containers.zstd-chunked.manifest-position')
# What an index published beside an image says of each of its tables: the layer that it is of.
TABLE_OF = ('dev.regfs.layer.digest', 'com.amazon.soci.image-layer-digest')


class Image:
    """One image of an OCI layout."""

    def __init__(self, path, tag=TAG):
        self.path, self.tag = pathlib.Path(path), tag
        index = json.loads((self.path / 'index.json').read_bytes())
        for self.descriptor in index['manifests']:
            if self.descriptor.get('annotations', {}).get('org.opencontainers.image.ref.name') == tag:
                break
        else:
            raise RuntimeError('%s has no image %s' % (path, tag))
        self.digest = self.descriptor['digest']
        self.manifest = self.json(self.descriptor)
        self.config, self.layers = self.manifest['config'], self.manifest['layers']

    def blob_path(self, digest):
        return self.path / 'blobs' / digest.replace(':', '/')

    def json(self, descriptor):
        return json.loads(self.blob_path(descriptor['digest']).read_bytes())

    def size(self):
        """Bytes of manifest, config and layers."""
        return self.descriptor['size'] + self.config['size'] + sum(layer['size'] for layer in self.layers)

    def tables(self):
        """{layer's digest: (where in the layer its table of contents begins, the bytes of it that a reader needs)}; a layer
        without one has it at its end, of no length."""
        return {layer['digest']: self._table(layer) for layer in self.layers}

    def _table(self, layer):
        annotations, size = layer.get('annotations', {}), layer['size']
        for name in CHUNKED:
            if name in annotations:
                position, length, _ = annotations[name].split(':', 2)
                return int(position) - 8, int(length)  # a skippable frame's header stands before it
        if STARGZ in annotations:
            with open(self.blob_path(layer['digest']), 'rb') as f:
                f.seek(-51, os.SEEK_END)
                begin = int(f.read()[16:32], 16)
            return begin, size - begin
        return size, 0


def published_tables(manifests):
    """{table's digest: (layer's digest, bytes)} of an index's manifests."""
    tables = {}
    for manifest in manifests:
        for table in manifest['layers']:
            layer = next(table['annotations'][name] for name in TABLE_OF if name in table.get('annotations', {}))
            tables[table['digest']] = (layer, table['size'])
    return tables


# ---- making them ----

def _make_estargz(bed, plain, path):
    """By stargz-snapshotter's own writer, as `ctr-remote image optimize` leaves an image whose workload is not known."""
    program = bed.fresh('estargz')
    run('go', 'build', '-o', program, 'main.go', cwd=HERE / 'estargz',
        env=dict(bed.environ, GO111MODULE='off', GOPATH='/usr/share/gocode'))
    layout = images.Layout(path)
    layers, diff_ids = [], []
    for layer in plain.layers:
        blob = bed.fresh('layer')
        said = json.loads(run(program, plain.blob_path(layer['digest']), blob, env=bed.environ, timeout=3600))
        layers.append(layout.put(blob.read_bytes(), images.LAYER_TYPE + '+gzip', annotations={STARGZ: said['tocDigest']}))
        diff_ids.append(said['diffID'])
        blob.unlink()
    config = plain.json(plain.config)
    config['rootfs']['diff_ids'] = diff_ids
    layout.tag(TAG, layout.put_json({'schemaVersion': 2, 'mediaType': images.MANIFEST_TYPE,
                                     'config': layout.put_json(config, images.CONFIG_TYPE), 'layers': layers}, images.MANIFEST_TYPE))


def _make_zstdchunked(bed, plain, path):
    # skopeo remembers which blobs are the same layer, and would take one that is compressed in another way. This makes it keep
    # that memory where a user's would be, below a directory that is the bed's.
    environ = dict(bed.environ, _CONTAINERS_ROOTLESS_UID='1', XDG_DATA_HOME=str(bed.fresh('data')))
    run('skopeo', 'copy', '--quiet', '--insecure-policy', '--dest-compress', '--dest-compress-format', 'zstd:chunked',
        'oci:%s:%s' % (plain.path, plain.tag), 'oci:%s:%s' % (path, TAG), env=environ, timeout=3600)
    for layer in Image(path).layers:
        if not any(name in layer.get('annotations', {}) for name in CHUNKED):
            raise RuntimeError('skopeo made layer %s without a table of contents' % layer['digest'])


# Half of what SOCI's own tool takes: a span is verified as a whole, so it is the least that a file costs. 4 MiB of this image's
# content compress to up to 1.9 MB.
SPAN = 2 << 20


def _make_soci(_bed, plain, path):
    """Not an image, but the index beside it: a manifest whose layers are ztocs."""
    from ztoc import make_ztoc, soci_index  # which wants python3-flatbuffers, and only here
    ztocs = [(layer, make_ztoc(plain.blob_path(layer['digest']), SPAN)) for layer in plain.layers]
    manifest, blobs = soci_index(plain.descriptor, ztocs, span_size=SPAN)
    layout = images.Layout(path)
    for blob in blobs.values():
        layout.put(blob, images.LAYER_TYPE)
    layout.tag(TAG, layout.put_json(manifest, images.MANIFEST_TYPE))


MAKERS = {'eStargz': _make_estargz, 'zstd:chunked': _make_zstdchunked, 'SOCI': _make_soci}


def push_referrer(registry, repository, index, subject):
    """Pushes an index, and names it in the fallback tag of the image that it is of: docker-registry has no referrers API."""
    registry.push(index, index.descriptor, '%s:%s' % (repository, index.digest))
    entry = {key: index.descriptor[key] for key in ('mediaType', 'digest', 'size')}
    listing = {'schemaVersion': 2, 'mediaType': images.INDEX_TYPE,
               'manifests': [dict(entry, artifactType=index.config['mediaType'])]}
    registry.put_manifest(repository, subject.replace(':', '-'), json.dumps(listing).encode(), images.INDEX_TYPE)


def converted(bed, plain, name, cache):
    """The image PLAIN in format NAME, or the index beside it, out of the directory CACHE, or made and put there."""
    path = cache / plain.digest.partition(':')[2][:12] / name.replace(':', '').lower()
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix('.%d' % os.getpid())
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, draft, ignore_errors=True)
            MAKERS[name](bed, plain, draft)
            draft.rename(path)
    return Image(path)
