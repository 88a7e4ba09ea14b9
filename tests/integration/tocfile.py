# SPDX-License-Identifier: Apache-2.0
"""The TOC file (fs/toc/file.h) for hands that change it: sections are found, and the checksum is made right again."""
import ctypes
import ctypes.util
import struct

from images import filtered

HEADER, SECTION = 136, struct.Struct('<IIQQ')
INODES, CHUNKS = 1, 7
INODE_SIZE, CHUNK_SIZE = 64, 80
INODE_MODE, CHUNK_DIGEST = 28, 48  # where they are in a row


def xxh3(data):
    library = ctypes.CDLL(ctypes.util.find_library('xxhash') or 'libxxhash.so.0')
    library.XXH3_64bits.restype = ctypes.c_uint64
    return library.XXH3_64bits(bytes(data), ctypes.c_size_t(len(data)))


class TocFile:
    def __init__(self, compressed):
        self.data = bytearray(filtered(compressed, 'zstd', '-dcq'))
        if self.data[:8] != b'REGFSTOC':
            raise AssertionError('no TOC: %r' % bytes(self.data[:8]))

    def rows(self, kind, size):
        """Where the rows of a section begin."""
        header_length, = struct.unpack_from('<I', self.data, 12)
        for at in range(HEADER, header_length, SECTION.size):
            found, element, offset, length = SECTION.unpack_from(self.data, at)
            if found == kind:
                if element != size:
                    raise AssertionError('rows of %d bytes' % element)
                return range(offset, offset + length, size)
        raise AssertionError('no section %d' % kind)

    def compressed(self):
        struct.pack_into('<Q', self.data, 24, xxh3(self.data[32:]))
        return filtered(bytes(self.data), 'zstd', '-qc')
