# SPDX-License-Identifier: Apache-2.0
"""A writer of SOCI's ztocs and of the index manifests that list them, for tests and measurements; it shares no code with regfs.
What it writes is what SOCI's own writer does, byte for byte, unless it is told to leave that path: by other options, or by changes to
the Ztoc between scan() and write().
"""
import ctypes
import ctypes.util
import datetime
import gzip
import hashlib
import json
import os
import struct
import sys
import tarfile

try:
    import flatbuffers
except ImportError:  # another Python than Debian's may use Debian's package too: nothing in it is compiled
    sys.path.append('/usr/lib/python3/dist-packages')
    import flatbuffers

INDEX_TYPES = {1: 'application/vnd.amazon.soci.index.v1+json', 2: 'application/vnd.amazon.soci.index.v2+json'}
ZTOC_TYPE = 'application/octet-stream'
ANNOTATION = 'com.amazon.soci.'

GZIP, UNCOMPRESSED = 1, 2
WINDOW = 32768
PIECE = 1 << 20
BUILD_TOOL = 'regfs tests'


# ---- zlib, whose Python module stops at no block ----

class ZStream(ctypes.Structure):
    _fields_ = [('next_in', ctypes.c_void_p), ('avail_in', ctypes.c_uint), ('total_in', ctypes.c_ulong),
                ('next_out', ctypes.c_void_p), ('avail_out', ctypes.c_uint), ('total_out', ctypes.c_ulong),
                ('msg', ctypes.c_char_p), ('state', ctypes.c_void_p),
                ('zalloc', ctypes.c_void_p), ('zfree', ctypes.c_void_p), ('opaque', ctypes.c_void_p),
                ('data_type', ctypes.c_int), ('adler', ctypes.c_ulong), ('reserved', ctypes.c_ulong)]


Z_BLOCK, Z_OK, Z_STREAM_END, Z_BUF_ERROR = 5, 0, 1, -5
GZIP_ONLY = 15 + 16
BLOCK_END, LAST_BLOCK, BITS = 128, 64, 7  # of data_type


class Inflate:
    """A gzip stream of several members, block by block."""

    def __init__(self):
        self.z = ctypes.CDLL(ctypes.util.find_library('z') or 'libz.so.1')
        self.z.zlibVersion.restype = ctypes.c_char_p
        self.stream = ZStream()
        self.at = ctypes.byref(self.stream)
        self.out = ctypes.create_string_buffer(PIECE)
        self._check(self.z.inflateInit2_(self.at, GZIP_ONLY, self.z.zlibVersion(), ctypes.sizeof(ZStream)))

    def _check(self, status):
        if status not in (Z_OK, Z_STREAM_END, Z_BUF_ERROR):
            raise ValueError('zlib: %d %s' % (status, (self.stream.msg or b'').decode()))
        return status

    def feed(self, data):
        self.data = data  # keeps it alive
        self.stream.next_in = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p)
        self.stream.avail_in = len(data)

    def step(self):
        """To the end of a block, of the input, or of the output buffer: (status, bytes of output)."""
        self.stream.next_out = ctypes.addressof(self.out)
        self.stream.avail_out = PIECE
        status = self._check(self.z.inflate(self.at, Z_BLOCK))
        return status, PIECE - self.stream.avail_out

    def window(self):
        """The last bytes of output in this member, with zeros before them."""
        window, n = ctypes.create_string_buffer(WINDOW), ctypes.c_uint(0)
        self._check(self.z.inflateGetDictionary(self.at, window, ctypes.byref(n)))
        return bytes(WINDOW - n.value) + window.raw[:n.value]

    def next_member(self):
        self._check(self.z.inflateReset(self.at))

    def close(self):
        self.z.inflateEnd(self.at)


# ---- what a ztoc says ----

class Checkpoint:
    def __init__(self, start, out, bits, window):
        self.start, self.out, self.bits, self.window = start, out, bits, window  # start: `in`

    def first_byte(self):
        return self.start - (1 if self.bits else 0)


class File:
    """FileMetadata; strings are bytes, records the pax records."""

    def __init__(self, **fields):
        self.__dict__.update(fields)


class Ztoc:
    def __init__(self):
        self.version, self.build_tool = '0.9', BUILD_TOOL
        self.algorithm, self.older_layout = GZIP, False
        self.compressed_size = self.uncompressed_size = self.span_size = 0
        self.files, self.checkpoints, self.digests = [], [], []
        self.max_span_id = None  # None: as many as there are digests

    @classmethod
    def scan(cls, path, span_size, first_member_only=False):
        """Of the layer blob at PATH. Older writers took the first gzip member for the last."""
        z = cls()
        z.span_size = span_size
        z.compressed_size = os.path.getsize(path)
        with open(path, 'rb') as blob:
            z.algorithm = GZIP if blob.read(2) == b'\x1f\x8b' else UNCOMPRESSED
            blob.seek(0)
            if z.algorithm == GZIP:
                z.checkpoints = _find_checkpoints(blob, span_size, first_member_only)
            z.digests = [_digest(blob, *span) for span in z.spans()]
        z._scan_files(path)
        return z

    def spans(self):
        """(first byte, end) in the blob, as the writer hashes them."""
        if self.algorithm == UNCOMPRESSED:
            starts = range(0, self.compressed_size, self.span_size)
            return [(at, min(at + self.span_size, self.compressed_size)) for at in starts]
        ends = [c.start for c in self.checkpoints[1:]] + [self.compressed_size]
        return [(c.first_byte(), end) for c, end in zip(self.checkpoints, ends)]

    def _scan_files(self, path):
        opened = gzip.open(path) if self.algorithm == GZIP else open(path, 'rb')
        with opened as stream, tarfile.open(fileobj=stream, mode='r|', encoding='utf-8', errors='surrogateescape') as tar:
            for info in tar:
                self.files.append(_file(info))
                tar.members = []
            if tar.pax_headers:
                raise ValueError('global pax headers: SOCI makes no ztoc of such a layer')
            # Go's reader stops behind the two blocks of zeros, if they are there.
            while stream.read(PIECE):
                pass
            self.uncompressed_size = min(tar.offset + 2 * tarfile.BLOCKSIZE, stream.tell())

    # ---- bytes ----

    def checkpoint_bytes(self):
        if self.algorithm == UNCOMPRESSED:
            b = flatbuffers.Builder(0)
            b.StartObject(3)
            b.PrependInt32Slot(0, 2, 0)
            b.PrependInt64Slot(1, self.span_size, 0)
            b.PrependInt64Slot(2, self.compressed_size, 0)
            b.Finish(b.EndObject())
            return bytes(b.Output())
        parts = [struct.pack('<iq', len(self.checkpoints), self.span_size)]
        for c in self.checkpoints[1:] if self.older_layout else self.checkpoints:
            parts += [struct.pack('<qqB', c.start, c.out, c.bits), c.window]
        return b''.join(parts)

    def write(self):
        b = flatbuffers.Builder(1 << 16)
        version, build_tool = b.CreateString(self.version), b.CreateString(self.build_tool)
        files = [_write_file(b, f) for f in reversed(self.files)][::-1]
        files = _vector(b, files)
        b.StartObject(1)
        b.PrependUOffsetTRelativeSlot(0, files, 0)
        toc = b.EndObject()

        checkpoints = b.CreateByteVector(self.checkpoint_bytes())
        digests = _vector(b, [b.CreateString(d) for d in self.digests])
        b.StartObject(4)
        b.PrependInt32Slot(1, len(self.digests) - 1 if self.max_span_id is None else self.max_span_id, 0)
        b.PrependUOffsetTRelativeSlot(2, digests, 0)
        b.PrependUOffsetTRelativeSlot(3, checkpoints, 0)
        b.PrependInt8Slot(0, self.algorithm, GZIP)
        info = b.EndObject()

        b.StartObject(6)
        b.PrependUOffsetTRelativeSlot(0, version, 0)
        b.PrependUOffsetTRelativeSlot(1, build_tool, 0)
        b.PrependUOffsetTRelativeSlot(4, toc, 0)
        b.PrependInt64Slot(2, self.compressed_size, 0)
        b.PrependInt64Slot(3, self.uncompressed_size, 0)
        b.PrependUOffsetTRelativeSlot(5, info, 0)
        b.Finish(b.EndObject())
        return bytes(b.Output())


def _vector(b, offsets):
    b.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        b.PrependUOffsetTRelative(offset)
    return b.EndVector()


def _write_file(b, f):
    strings = [b.CreateString(s) for s in (f.name, f.type, f.link, f.uname, f.gname, f.mtime)]
    name, kind, link, uname, gname, mtime = strings
    records = []
    for key in sorted(f.records):
        pair = b.CreateString(key), b.CreateString(f.records[key])
        b.StartObject(2)
        b.PrependUOffsetTRelativeSlot(0, pair[0], 0)
        b.PrependUOffsetTRelativeSlot(1, pair[1], 0)
        records.append(b.EndObject())
    records = _vector(b, records)
    b.StartObject(14)
    b.PrependUOffsetTRelativeSlot(0, name, 0)
    b.PrependUOffsetTRelativeSlot(1, kind, 0)
    b.PrependInt64Slot(2, f.offset, 0)
    b.PrependInt64Slot(3, f.size, 0)
    b.PrependUOffsetTRelativeSlot(4, link, 0)
    b.PrependInt64Slot(5, f.mode, 0)
    b.PrependUint32Slot(6, f.uid & 0xffffffff, 0)
    b.PrependUint32Slot(7, f.gid & 0xffffffff, 0)
    b.PrependUOffsetTRelativeSlot(8, uname, 0)
    b.PrependUOffsetTRelativeSlot(9, gname, 0)
    b.PrependUOffsetTRelativeSlot(10, mtime, 0)
    b.PrependInt64Slot(11, f.major, 0)
    b.PrependInt64Slot(12, f.minor, 0)
    b.PrependUOffsetTRelativeSlot(13, records, 0)
    return b.EndObject()


# ---- scanning a layer ----

def _find_checkpoints(blob, span_size, first_member_only):
    """Where SOCI's writer puts them: behind the first gzip header, then at the first block boundary, but for a member's last one,
    that has more than SPAN_SIZE behind the one before."""
    inflate, found, total_in, total_out = Inflate(), [], 0, 0
    status, piece = Z_OK, b''
    while True:
        if inflate.stream.avail_in == 0:
            piece = blob.read(PIECE)
            if not piece:
                break
            inflate.feed(piece)
        if status == Z_STREAM_END:
            if first_member_only:
                break
            inflate.next_member()
        left = inflate.stream.avail_in
        status, produced = inflate.step()
        total_in += left - inflate.stream.avail_in
        total_out += produced
        kind = inflate.stream.data_type
        if status != Z_STREAM_END and kind & BLOCK_END and not kind & LAST_BLOCK and (
                total_out == 0 or total_out - found[-1].out > span_size):
            found.append(Checkpoint(total_in, total_out, kind & BITS, inflate.window()))
    inflate.close()
    if status != Z_STREAM_END:
        raise ValueError('the gzip stream ends early')
    return found


def _digest(blob, start, end):
    h = hashlib.sha256()
    blob.seek(start)
    while start < end:
        piece = blob.read(min(PIECE, end - start))
        if not piece:
            raise ValueError('the blob ends early')
        h.update(piece)
        start += len(piece)
    return 'sha256:' + h.hexdigest()


TYPES = {tarfile.REGTYPE: b'reg', tarfile.AREGTYPE: b'reg', tarfile.DIRTYPE: b'dir', tarfile.SYMTYPE: b'symlink',
         tarfile.LNKTYPE: b'hardlink', tarfile.CHRTYPE: b'char', tarfile.BLKTYPE: b'block', tarfile.FIFOTYPE: b'fifo'}


def _bytes(s):
    return s.encode('utf-8', 'surrogateescape')


def _mtime(info):
    """RFC 3339; as Go has it, empty when the year has no four digits."""
    seconds, _, fraction = info.pax_headers.get('mtime', str(int(info.mtime))).partition('.')
    nanoseconds = int((fraction + '0' * 9)[:9])
    whole = int(seconds)
    if seconds.startswith('-') and nanoseconds:
        whole, nanoseconds = whole - 1, 10 ** 9 - nanoseconds
    try:
        moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=whole)
    except OverflowError:
        return b''
    fraction = ('.%09d' % nanoseconds).rstrip('0') if nanoseconds else ''
    return (moment.isoformat() + fraction + 'Z').encode()


def _file(info):
    if info.type not in TYPES:
        raise ValueError('%s is of type %r: SOCI makes no ztoc of such a layer' % (info.name, info.type))
    name = _bytes(info.name)
    device = info.ischr() or info.isblk()
    return File(name=name + b'/' if info.isdir() else name, type=TYPES[info.type], offset=info.offset_data, size=info.size,
                link=_bytes(info.linkname), mode=info.mode, uid=info.uid, gid=info.gid, uname=_bytes(info.uname),
                gname=_bytes(info.gname), mtime=_mtime(info), major=info.devmajor if device else 0,
                minor=info.devminor if device else 0,
                records={_bytes(key): _bytes(value) for key, value in info.pax_headers.items()})


# ---- flaws ----

def _wrong_digest(z):
    last = z.digests[-1]
    z.digests[-1] = last[:-1] + ('0' if last[-1] != '0' else '1')


def _overlap(z):
    """Span 1 goes on into span 2."""
    z.checkpoints[1].start, z.checkpoints[2].start = z.checkpoints[2].start, z.checkpoints[1].start


def _descend(z):
    z.checkpoints[1].out, z.checkpoints[2].out = z.checkpoints[2].out, z.checkpoints[1].out


def _outside(z):
    z.checkpoints[-1].start = z.compressed_size + 1


def _file_outside(z):
    z.files[-1].type, z.files[-1].size = b'reg', z.uncompressed_size


def _files_overlap(z):
    regular = [f for f in z.files if f.type == b'reg' and f.size]
    regular[1].offset = regular[0].offset


def _files_descend(z):
    z.files[0], z.files[-1] = z.files[-1], z.files[0]


def _bits(z):
    z.checkpoints[1].bits = 8


def _too_few_digests(z):
    z.digests.pop()


def _sparse(z):
    z.files[-1].records[b'GNU.sparse.major'] = b'1'


def _version(z):
    z.version = '1.0'


# What make_ztoc can do wrong. Only a wrong digest is found not in the ztoc, but when its span is read.
FLAWS = {
    'wrong-digest': _wrong_digest,
    'overlapping-spans': _overlap,
    'descending-spans': _descend,
    'span-outside': _outside,
    'file-outside': _file_outside,
    'overlapping-files': _files_overlap,
    'descending-files': _files_descend,
    'impossible-bits': _bits,
    'too-few-digests': _too_few_digests,
    'sparse': _sparse,
    'version': _version,
}


def make_ztoc(path, span_size=4 << 20, older_layout=False, first_member_only=False, flaw=None, build_tool=BUILD_TOOL):
    """The ztoc of the layer blob at PATH, gzip or uncompressed. OLDER_LAYOUT leaves out the first checkpoint; with FIRST_MEMBER_ONLY
    the last span has all gzip members but the first. FLAW is a key of FLAWS."""
    z = Ztoc.scan(path, span_size, first_member_only)
    z.older_layout, z.build_tool = older_layout, build_tool
    if flaw:
        FLAWS[flaw](z)
    return z.write()


def misplace(ztoc, at, offset=0xfffffff0):
    """ZTOC with the 32 bits at byte AT leading elsewhere: an offset, a count, a vtable, or whatever lies there."""
    return ztoc[:at] + struct.pack('<I', offset) + ztoc[at + 4:]


# ---- index manifests ----

def _descriptor(data, media_type, **more):
    return dict({'mediaType': media_type, 'digest': 'sha256:' + hashlib.sha256(data).hexdigest(), 'size': len(data)}, **more)


def soci_index(image_manifest_descriptor, ztocs, version=1, span_size=4 << 20):
    """The index of an image whose ZTOCS are [(layer descriptor, bytes), …]: its manifest, and the blobs {digest: bytes} that it
    names. Version 1 has the image for its subject. For version 2 the image's manifest is annotated with the digest of the index
    (v2_image_annotations), and the index stands beside it in the image's OCI index (v2_descriptor)."""
    config = _descriptor(b'{}', INDEX_TYPES[version])
    blobs, layers = {config['digest']: b'{}'}, []
    for layer, data in ztocs:
        descriptor = _descriptor(data, ZTOC_TYPE, annotations={
            ANNOTATION + 'image-layer-mediaType': layer['mediaType'],
            ANNOTATION + 'image-layer-digest': layer['digest'],
            ANNOTATION + 'span-size': str(span_size),
        })
        blobs[descriptor['digest']] = data
        layers.append(descriptor)
    manifest = {
        'schemaVersion': 2,
        'mediaType': 'application/vnd.oci.image.manifest.v1+json',
        'config': config,
        'layers': layers,
        'annotations': {ANNOTATION + 'build-tool-identifier': BUILD_TOOL},
    }
    if version == 1:
        manifest['subject'] = {key: image_manifest_descriptor[key] for key in ('mediaType', 'digest', 'size')}
    return manifest, blobs


def v2_image_annotations(index_digest):
    return {ANNOTATION + 'index-digest': index_digest}


def v2_descriptor(manifest, image_manifest_digest, platform):
    """How an image's OCI index lists the index MANIFEST: (descriptor, bytes)."""
    data = json.dumps(manifest).encode()
    return _descriptor(data, manifest['mediaType'], artifactType=INDEX_TYPES[2], platform=platform,
                       annotations={ANNOTATION + 'image-manifest-digest': image_manifest_digest}), data


if __name__ == '__main__':
    if len(sys.argv) != 4:
        sys.exit('usage: ztoc.py LAYER SPAN_SIZE OUTPUT')
    with open(sys.argv[3], 'wb') as output:
        output.write(make_ztoc(sys.argv[1], int(sys.argv[2])))
