# SPDX-License-Identifier: Apache-2.0
"""Layers and images as files: tars, their compression, OCI layouts. What registries would refuse can be written too."""
import gzip
import hashlib
import io
import json
import pathlib
import subprocess
import tarfile

from testbed import FIXTURES

OCI = 'application/vnd.oci.image.'
INDEX_TYPE, MANIFEST_TYPE, CONFIG_TYPE = OCI + 'index.v1+json', OCI + 'manifest.v1+json', OCI + 'config.v1+json'
LAYER_TYPE = OCI + 'layer.v1.tar'
MTIME = 1700000000


def sha256(data):
    return 'sha256:' + hashlib.sha256(data).hexdigest()


def filtered(data, *argv):
    """DATA through a program."""
    return subprocess.run(argv, input=data, stdout=subprocess.PIPE, check=True, timeout=120).stdout


# ---- tars ----

def entry(name, data=b'', kind=tarfile.REGTYPE, **attributes):
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.mtime = kind, 0o755 if kind == tarfile.DIRTYPE else 0o644, MTIME
    info.size = len(data)
    for key, value in attributes.items():
        setattr(info, key, value)
    return info, data


def tar(*entries):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode='w', format=tarfile.PAX_FORMAT) as t:
        for info, data in entries:
            t.addfile(info, io.BytesIO(data))
    return out.getvalue()


def noise(seed, size):
    """Bytes that don't compress; the same for the same seed."""
    return hashlib.shake_256(b'%d' % seed).digest(size)


def text(seed, size):
    """Bytes that do."""
    line = b'line of %d: ' % seed + noise(seed, 24).hex().encode() + b'\n'
    return (line * (size // len(line) + 1))[:size]


# ---- compressions ----

def _members(data):
    """gzip of several members, cut without regard to the tar's blocks."""
    step = max(len(data) // 7, 1000)
    return b''.join(gzip.compress(data[i:i + step], 6, mtime=0) for i in range(0, len(data), step))


COMPRESSIONS = {
    'gzip': (lambda data: filtered(data, 'gzip', '-9nc'), '+gzip'),
    'pigz': (lambda data: filtered(data, 'pigz', '-b', '128', '-p', '4', '-nc'), '+gzip'),
    'members': (_members, '+gzip'),
    'zstd': (lambda data: filtered(data, 'zstd', '-10', '-q', '-c'), '+zstd'),
    'plain': (lambda data: data, ''),
}


class Layer:
    """A layer's blob, and what its descriptor says."""

    def __init__(self, blob, diff_id, media_type):
        self.blob, self.diff_id, self.media_type = blob, diff_id, media_type

    @classmethod
    def of(cls, content, compression='gzip'):
        compress, suffix = COMPRESSIONS[compression]
        return cls(compress(content), sha256(content), LAYER_TYPE + suffix)

    @classmethod
    def of_fixture(cls, name, suffix, content):
        return cls((FIXTURES / 'layers' / name).read_bytes(), sha256(content), LAYER_TYPE + suffix)


def fixture_tars():
    """base.tar, upper.tar and twice.tar, as their gzip fixtures hold them, checked against the published sums."""
    sums = dict(line.split()[::-1] for line in (FIXTURES / 'layers/SHA256SUMS.tars').read_text().splitlines())
    tars = {}
    for name in ('base', 'upper', 'twice'):
        data = gzip.decompress((FIXTURES / 'layers' / (name + '.tar.gz')).read_bytes())
        if hashlib.sha256(data).hexdigest() != sums[name + '.tar']:
            raise AssertionError('%s.tar.gz is not what SHA256SUMS.tars says' % name)
        tars[name] = data
    return tars


def fixture_layers(compression):
    """The fixture image's layers; where the reference producer's blob of a compression is there, that one."""
    blobs = {'gzip': 'base.tar.gz', 'pigz': 'base.pigz.gz', 'members': 'base.members.gz', 'zstd': 'base.tar.zst'}
    tars = fixture_tars()
    layers = []
    for name in ('base', 'upper', 'twice'):
        if name == 'base' and compression in blobs:
            layers.append(Layer.of_fixture(blobs[compression], COMPRESSIONS[compression][1], tars[name]))
        else:
            layers.append(Layer.of(tars[name], compression))
    return layers


# ---- layouts ----

class Layout:
    """An OCI layout below a directory."""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        (self.path / 'blobs/sha256').mkdir(parents=True)
        (self.path / 'oci-layout').write_text('{"imageLayoutVersion": "1.0.0"}\n')
        self.tagged = []
        self._write_index()

    def _write_index(self):
        (self.path / 'index.json').write_text(json.dumps(
            {'schemaVersion': 2, 'mediaType': INDEX_TYPE, 'manifests': self.tagged}))

    def blob_path(self, digest):
        return self.path / 'blobs/sha256' / digest.partition(':')[2]

    def put(self, data, media_type, **more):
        """Stores a blob; returns its descriptor."""
        digest = sha256(data)
        self.blob_path(digest).write_bytes(data)
        return dict({'mediaType': media_type, 'digest': digest, 'size': len(data)}, **more)

    def put_json(self, value, media_type, **more):
        return self.put(json.dumps(value).encode(), media_type, **more)

    def tag(self, name, descriptor):
        self.tagged.append(dict(descriptor, annotations={'org.opencontainers.image.ref.name': name}))
        self._write_index()
        return descriptor

    def config(self, layers, platform='linux/amd64'):
        os, architecture = platform.split('/')[:2]
        return {'architecture': architecture, 'os': os, 'config': {},
                'rootfs': {'type': 'layers', 'diff_ids': [l.diff_id for l in layers]}}

    def add_image(self, tag, layers, platform='linux/amd64', change=None):
        """An image of LAYERS; CHANGE edits its manifest before it is stored. Returns the manifest's descriptor."""
        manifest = {'schemaVersion': 2, 'mediaType': MANIFEST_TYPE,
                    'config': self.put_json(self.config(layers, platform), CONFIG_TYPE),
                    'layers': [self.put(l.blob, l.media_type) for l in layers]}
        if change:
            change(manifest)
        descriptor = self.put_json(manifest, MANIFEST_TYPE)
        return self.tag(tag, descriptor) if tag else descriptor

    def add_index(self, tag, images):
        """IMAGES: {platform: descriptor}."""
        manifests = []
        for platform, descriptor in images.items():
            os, architecture, *variant = platform.split('/')
            p = {'os': os, 'architecture': architecture}
            if variant:
                p['variant'] = variant[0]
            manifests.append(dict(descriptor, platform=p))
        return self.tag(tag, self.put_json({'schemaVersion': 2, 'mediaType': INDEX_TYPE, 'manifests': manifests}, INDEX_TYPE))

    def json(self, descriptor):
        return json.loads(self.blob_path(descriptor['digest']).read_bytes())


def small_image(layout, tag='v1', **more):
    """One layer with little in it, for tests that are not about trees."""
    content = tar(entry('etc', kind=tarfile.DIRTYPE), entry('etc/os-release', b'ID=small\n'), entry('data', noise(7, 100000)),
                  entry('text', text(8, 5 << 20)))
    return layout.add_image(tag, [Layer.of(content)], **more)
