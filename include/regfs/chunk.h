/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Chunks: the units that are fetched, verified, decoded and stored, and the checkpoints from which a gzip stream is
 * resumed. The structs are rows of the TOC file (design "On disk"), little-endian, used where they lie in the
 * mapping. */

#include "regfs/base.h"
#include "regfs/digest.h"
#include "regfs/error.h"

enum codec {
        CODEC_STORED = 1, /* blob bytes are content bytes */
        CODEC_GZIP = 2,   /* deflate, at a gzip header or at a checkpoint */
        CODEC_ZSTD = 3,   /* one or several whole zstd frames, or a slice of one (CHUNK_SLICE) */
        CODEC_ZEROS = 4,  /* nothing to fetch: all zeros; blob_length and skip are 0 */
};

enum chunk_flags {
        /* digest is the SHA-256 of the decoded content; otherwise of the blob range. */
        CHUNK_DIGEST_CONTENT = 1 << 0,
        /* One of several neighbouring chunks that can only be decoded together, from the start of their common blob
         * range: they have equal blob_offset, blob_length, codec and checkpoint, and skip says how many decoded
         * bytes of the range come before this chunk. Their content is contiguous; in the decoded range, what nobody
         * wants (tar headers of an eStargz member) may stand in front of each. Their digest is always that of the
         * content. */
        CHUNK_SLICE = 1 << 1,
        /* digest is absent (all zero): allowed only where formats.md says that none exists. */
        CHUNK_NO_DIGEST = 1 << 2,
};

#define CHECKPOINT_NONE UINT32_MAX

struct chunk {
        /* Rows are sorted by it and do not overlap; a chunk's end need not be the next one's start. */
        uint64_t content_offset;
        uint64_t blob_offset;
        uint64_t blob_length;
        uint64_t skip;           /* decoded bytes to drop before the content: eStargz innerOffset, or of a slice */
        uint32_t content_length; /* 1 … CHUNK_CONTENT_MAX */
        uint32_t checkpoint;     /* index, or CHECKPOINT_NONE: the blob range starts with the codec's own header */
        uint8_t codec;
        uint8_t flags;
        uint16_t reserved;
        uint32_t reserved2;
        uint8_t digest[SHA256_SIZE];
};

_Static_assert(sizeof(struct chunk) == 80, "chunk rows are part of the file format");

/* A chunk that the indexer makes holds this much content, give or take a deflate block. */
#define CHUNK_CONTENT_TARGET (2 * MIB)

/* No chunk may hold more: bounds every buffer. */
#define CHUNK_CONTENT_MAX (32 * MIB)

/* Nor may a chunk that stands alone have a longer blob range: it is fetched into one buffer. Slices come as a
 * stream. */
#define CHUNK_BLOB_MAX (2 * CHUNK_CONTENT_MAX)

/* Where raw inflate resumes: the first bit is bit BITS of the byte at blob offset IN - (BITS ? 1 : 0) counted the
 * zlib way: when bits > 0, the upper BITS bits of the byte at in - 1 are the first ones (inflatePrime). */
struct checkpoint {
        uint64_t in;            /* blob offset of the first whole byte */
        uint64_t out;           /* content offset there: content_offset - skip of the chunks that resume here */
        uint64_t window_offset; /* in the windows section: one zstd frame, or raw when window_length == window_raw */
        uint32_t window_length; /* stored bytes; 0: no window needed */
        uint32_t window_raw;    /* decoded bytes, at most 32768 */
        uint8_t bits;           /* 0 … 7 */
        uint8_t reserved[7];
};

_Static_assert(sizeof(struct checkpoint) == 40, "checkpoint rows are part of the file format");

/* Borrowed views of one layer's rows. A chunk with a checkpoint has blob_offset == in - (bits ? 1 : 0). */
struct chunk_table {
        const struct chunk *chunks;
        size_t chunk_count;
        const struct checkpoint *checkpoints;
        size_t checkpoint_count;
        const uint8_t *windows;
        size_t windows_size;
        uint64_t content_size; /* of the content space: end of the last chunk at most */
        uint64_t blob_size;
        uint64_t prefetch; /* content up to here is what the layer's builder wants fetched first; 0: nothing */
};

/* Index of the chunk that holds content offset OFFSET, or of the first one behind it; chunk_count when none follows. */
size_t chunk_find(const struct chunk_table *t, uint64_t offset);

/* Checks every row against the others and against the sizes: order, overlaps, lengths, bounds, codec, checkpoint,
 * slices, and that a blob range can hold as much content as its chunks claim (deflate 1032 : 1, zstd 32768 : 1). A
 * damaged file is hostile input. Returns 0 or -EBADMSG with E that names the row. */
int chunk_table_check(const struct chunk_table *t, struct error *e);
