/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Decoding: a chunk out of its blob range, and the one pass over a whole layer that finds the chunks.
 * gzip stands on a table of inflate functions (zlib, ISA-L) with one kind of checkpoint, which either can resume. */

#include "regfs/base.h"
#include "regfs/chunk.h"
#include "regfs/error.h"

enum compression {
        COMPRESSION_NONE,
        COMPRESSION_GZIP,
        COMPRESSION_ZSTD,
};

/* By the magic bytes: gzip 1f 8b; zstd 28 b5 2f fd or a skippable frame 5? 2a 4d 18; anything else is none. */
enum compression compression_detect(const void *data, size_t n);
const char *compression_name(enum compression c);

/* Input of a decoding that comes piece by piece: *RET_DATA gets at least one byte at blob-range position OFFSET, up
 * to *RET_LENGTH; a length of 0 is the end of the range. OFFSET is always where the piece before ended. The bytes
 * stay valid until the next call. 0 or -errno with E. */
typedef int codec_input_fn(void *context, uint64_t offset, const uint8_t **ret_data, size_t *ret_length,
                           struct error *e);

/* Decodes CHUNK (not ZEROS, not a slice) into OUT, exactly content_length bytes; what comes before skip is dropped.
 * INPUT yields the chunk's blob range. Digests are not checked here, nor the CRC-32 of gzip members, of which a
 * chunk seldom holds a whole one. Multi-member gzip is followed inside the range, and so are the frames of zstd.
 * Returns 0; -EBADMSG with E when the data is corrupt, ends early or is too short; input's error; -ENOMEM. */
int codec_decode(const struct chunk_table *table, const struct chunk *chunk, codec_input_fn *input, void *context,
                 uint8_t *out, struct error *e);

/* Decodes slices: the COUNT chunks at CHUNKS, in order, share one blob range (CHUNK_SLICE), which a checkpoint of
 * TABLE may begin. They may be some of the range's slices: what is not wanted is decoded and dropped, and nothing
 * behind the last one is read. Content is delivered in order, each chunk once, whole, in BUFFER of CHUNK_CONTENT_MAX
 * or the largest content_length bytes; DELIVER may return 1 to stop. Returns 0, also when stopped, or what
 * codec_decode or DELIVER returns. */
typedef int codec_deliver_fn(void *context, const struct chunk *chunk, const uint8_t *data, struct error *e);
int codec_decode_slices(const struct chunk_table *table, const struct chunk *chunks, size_t count,
                        codec_input_fn *input, void *input_context, uint8_t *buffer, codec_deliver_fn *deliver,
                        void *deliver_context, struct error *e);

/* What the one pass reports. Calls come from within scan_feed and scan_finish, in stream order: output up to a
 * boundary before the boundary, output behind it after. A non-zero return ends the pass with that value.
 *
 * Every boundary begins a chunk, and so ends the one before. A chunk holds SCAN_CHUNK_MAX bytes at most. There are
 * two kinds:
 *
 * - slice == false: decoding can begin here, with a range of its own. The range of the chunk before ends at
 *   previous_end; all slices of a group share that end.
 * - slice == true: the chunk before was full, and the stream has no place to resume. The new chunk is a slice of the
 *   same blob range, which goes on: blob_offset and previous_end both repeat where that range began. Only now is it
 *   known that the chunk before is a slice too, if it was not yet: the sink marks it CHUNK_SLICE, with the digest of
 *   its content (which it still has: SCAN_CHUNK_MAX bytes) in place of the range's. A group's first chunk is never
 *   reported as a slice.
 *
 * Where boundaries are:
 * - stored: every CHUNK_CONTENT_TARGET bytes.
 * - gzip: at a deflate block boundary (checkpoint) once the chunk has CHUNK_CONTENT_TARGET bytes, at a member's
 *   start (no checkpoint) once it has half of that. After 2 * CHUNK_CONTENT_TARGET without one (igzip -0 writes one
 *   block for the whole stream) slices follow, until the first block or member ends.
 * - zstd: at the start of a frame. A frame joins the chunk before only when its headers say that it is small (a
 *   declared size, or a single block): the chunk has less than CHUNK_CONTENT_TARGET / 2 bytes, and no more than
 *   CHUNK_CONTENT_TARGET with the frame. So a frame that may be large always begins a chunk, and a group of slices
 *   is always one frame, with nothing but empty frames before it. A frame longer than 2 * CHUNK_CONTENT_TARGET
 *   becomes slices, whether its header told its size or not. Skippable frames are no content; one of more than 4 KiB
 *   ends the chunk.
 *
 * The last chunk may turn out empty (a boundary with only an empty block, an empty frame or a skippable frame behind
 * it; an empty layer): the sink drops it. Chunks may begin elsewhere when the same blob is fed in other pieces or
 * with another inflate; every outcome is right, but two passes need not give equal tables. */
#define SCAN_CHUNK_MAX (2 * CHUNK_CONTENT_TARGET)

struct scan_boundary {
        uint64_t content_offset;
        /* First byte of the new chunk's blob range; unless a slice, never before the byte ahead of the current feed. */
        uint64_t blob_offset;
        /* End of the previous chunk's blob range: blob_offset, or one more when a byte is shared. */
        uint64_t previous_end;
        enum codec codec;
        bool slice;      /* the new chunk continues the previous one's frame: it can't be decoded alone */
        bool checkpoint; /* in, bits and window are to be stored */
        uint8_t bits;
        uint64_t in;
        const uint8_t *window; /* borrowed for the call; the last window_length decoded bytes */
        uint32_t window_length;
};

struct scan_sink {
        /* Decoded bytes, borrowed for the call; in large pieces: they are collected up to 256 KiB unless a boundary
         * or the end comes first, or the input itself is handed on (stored). */
        int (*output)(void *context, const uint8_t *data, size_t n, struct error *e);
        /* A chunk begins here; the first one, at content offset 0 and blob offset 0, is reported too. */
        int (*boundary)(void *context, const struct scan_boundary *boundary, struct error *e);
        void *context;
};

struct scan;

/* Starts a pass over a layer of that compression. SINK is copied. zstd: windows of up to 128 MiB are decoded (what
 * the zstd tool accepts without --long), larger ones refused with -EBADMSG; memory is taken as the frames ask for
 * it. */
int scan_new(enum compression compression, const struct scan_sink *sink, struct scan **ret, struct error *e);
struct scan *scan_free(struct scan *s);
DEFINE_CLEANUP(struct scan *, scan_free)

/* The next N bytes of the blob; pieces of 64 KiB and more are fastest. Returns 0, -EBADMSG with E (corrupt; a CRC, a
 * length, a frame checksum that is wrong; zero padding behind the last gzip member is allowed, other trailing bytes
 * are not), -ENOMEM, or the sink's value. After anything but 0 the pass is over. */
int scan_feed(struct scan *s, const uint8_t *data, size_t n, struct error *e);

/* The blob has ended: -EBADMSG when the stream has not. *ret_content_size gets the decoded size. */
int scan_finish(struct scan *s, uint64_t *ret_content_size, struct error *e);

/* Which inflate runs: "isal" when the library is the known version and its self-test at first use passes
 * (checkpoints of a built-in stream resumed in zlib), else "zlib". $REGFS_INFLATE=zlib|isal overrules; an unusable
 * choice falls back. */
const char *inflate_backend(void);
