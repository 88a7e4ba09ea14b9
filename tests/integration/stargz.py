# SPDX-License-Identifier: Apache-2.0
"""eStargz layers of any size: one gzip member for each chunk, the table of contents as the last one, and the footer."""
import hashlib
import io
import json
import struct
import tarfile
import zlib

import images

TOC_DIGEST = 'containerd.io/snapshot/stargz/toc.digest'


def _member(data):
    z = zlib.compressobj(1, zlib.DEFLATED, 31)
    return z.compress(data) + z.flush()


def _digest(data):
    return 'sha256:' + hashlib.sha256(data).hexdigest()


def _header(name, size):
    info, _ = images.entry(name)
    info.size = size
    return info.tobuf(tarfile.USTAR_FORMAT)


def layer(files, chunk=1 << 20):
    """A layer of regular files {name: bytes}, and the digest of its table of contents."""
    blob, stream, entries = io.BytesIO(), hashlib.sha256(), []

    def write(data):
        stream.update(data)
        blob.write(_member(data))

    for name, data in files.items():
        write(_header(name, len(data)))
        for at in range(0, max(len(data), 1), chunk):
            piece = data[at:at + chunk]
            row = {'name': name, 'type': 'reg' if at == 0 else 'chunk', 'offset': blob.tell(), 'chunkDigest': _digest(piece)}
            if at == 0:
                row.update(size=len(data), mode=0o644, modtime='2023-11-14T22:13:20Z', digest=_digest(data))
            if len(data) > chunk:
                row.update(chunkOffset=at, chunkSize=len(piece))
            entries.append(row)
            padding = bytes(-len(data) % 512) if at + chunk >= len(data) else b''
            write(piece)
            if padding:
                write(padding)
    toc = json.dumps({'version': 1, 'entries': entries}).encode()
    at = blob.tell()
    write(_header('stargz.index.json', len(toc)) + toc + bytes(-len(toc) % 512) + bytes(1024))
    extra = b'SG' + struct.pack('<H', 22) + b'%016xSTARGZ' % at
    blob.write(b'\x1f\x8b\x08\x04' + bytes(5) + b'\xff' + struct.pack('<H', len(extra)) + extra + b'\x01\0\0\xff\xff' + bytes(8))
    return images.Layer(blob.getvalue(), 'sha256:' + stream.hexdigest(), images.LAYER_TYPE + '+gzip'), _digest(toc)


def add_image(layout, tag, files, chunk=1 << 20):
    made, digest = layer(files, chunk)

    def annotate(manifest):
        manifest['layers'][0]['annotations'] = {TOC_DIGEST: digest}
    return layout.add_image(tag, [made], change=annotate)
