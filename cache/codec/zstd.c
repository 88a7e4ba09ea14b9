/* SPDX-License-Identifier: Apache-2.0 */

/* Zstandard (RFC 8878). A frame can only be decoded from its start, so a chunk is a group of small frames, one
 * frame, or a slice of a large one. The frame header is read here, ahead of the library: what it says about the size
 * decides where the frame goes. */

#include <inttypes.h>
#include <string.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "codec_internal.h"

#define PIECE (256 * KIB)

/* Largest window that is decoded: what the zstd tool accepts too. Memory is taken as a frame asks for it, so ordinary
 * layers (8 MiB at most) never come near. */
#define WINDOW_LOG_MAX 27

#define SKIPPABLE_MASK 0xfffffff0u
#define SKIPPABLE_HEADER 8
#define SKIPPABLE_SMALL (4 * KIB) /* not worth a chunk of its own; the table of contents of zstd:chunked is larger */
#define FRAME_HEADER_MIN 5        /* magic and descriptor: tells the header's length */
#define FRAME_HEADER_MAX 18
#define BLOCK_HEADER 3
#define BLOCK_LAST 1
#define BLOCK_COMPRESSED 2

enum zstd_state {
        ZSTD_STATE_HEADER,
        ZSTD_STATE_FRAME,
        ZSTD_STATE_SKIP,
};

struct zstd_scan {
        struct scan scan;
        ZSTD_DCtx *context;
        enum zstd_state state;
        bool frames; /* there was one */
        uint8_t header[FRAME_HEADER_MAX];
        size_t header_length;
        uint64_t skip;         /* bytes left of a skippable frame */
        uint64_t frame_size;   /* as declared, or ZSTD_CONTENTSIZE_UNKNOWN */
        uint64_t frame_length; /* decoded so far */
        size_t filled;
        uint8_t buffer[PIECE];
};

static int zstd_context_new(ZSTD_DCtx **ret, struct error *e)
{
        ZSTD_DCtx *context = ZSTD_createDCtx();

        if (!context || ZSTD_isError(ZSTD_DCtx_setParameter(context, ZSTD_d_windowLogMax, WINDOW_LOG_MAX))) {
                ZSTD_freeDCtx(context);
                return error_oom(e);
        }
        *ret = context;
        return 0;
}

static int zstd_failed(size_t code, struct error *e)
{
        const char *name = ZSTD_getErrorName(code);

        if (ZSTD_getErrorCode(code) == ZSTD_error_memory_allocation)
                return error_oom(e);
        if (ZSTD_getErrorCode(code) == ZSTD_error_frameParameter_windowTooLarge)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "a zstd frame needs a window of more than %u MiB",
                                 1u << (WINDOW_LOG_MAX - 20));
        return error_set(e, ERROR_BAD_DATA, EBADMSG, "%s", name);
}

static int zstd_scan_open(struct scan *scan, struct error *e)
{
        return zstd_context_new(&((struct zstd_scan *) scan)->context, e);
}

static void zstd_scan_close(struct scan *scan)
{
        ZSTD_freeDCtx(((struct zstd_scan *) scan)->context);
}

static uint32_t read_le32(const uint8_t *p)
{
        return (uint32_t) p[0] | (uint32_t) p[1] << 8 | (uint32_t) p[2] << 16 | (uint32_t) p[3] << 24;
}

static bool is_skippable(const uint8_t *header)
{
        return (read_le32(header) & SKIPPABLE_MASK) == ZSTD_MAGIC_SKIPPABLE_START;
}

/* How long the header is whose first N bytes are at P; more than N while that cannot be told yet (RFC 8878,
 * 3.1.1.1). */
static size_t header_size(const uint8_t *p, size_t n)
{
        static const uint8_t dictionary_id[] = { 0, 1, 2, 4 }, content_size[] = { 0, 2, 4, 8 };
        uint8_t descriptor;
        bool single_segment;

        if (n < FRAME_HEADER_MIN)
                return FRAME_HEADER_MIN;
        if (is_skippable(p))
                return SKIPPABLE_HEADER;
        descriptor = p[4];
        single_segment = descriptor & 0x20;
        return FRAME_HEADER_MIN + !single_segment + dictionary_id[descriptor & 3] + content_size[descriptor >> 6] +
               (single_segment && descriptor >> 6 == 0);
}

static uint64_t chunk_length(const struct zstd_scan *s)
{
        return s->scan.chunk_length + s->filled;
}

static int zstd_flush(struct zstd_scan *s, struct error *e)
{
        int r = scan_output(&s->scan, s->buffer, s->filled, e);

        s->filled = 0;
        return r;
}

/* The most content that the frame at IN can have, of which N bytes are in sight; UINT64_MAX when that is not known. A
 * frame without a declared size, as streaming compressors write them, is small when its first block is its last one. */
static uint64_t frame_bound(const uint8_t *in, size_t n)
{
        size_t header = header_size(in, n);
        uint64_t size;
        uint32_t block;

        if (n < header)
                return UINT64_MAX;
        if (is_skippable(in))
                return read_le32(in + 4) <= SKIPPABLE_SMALL ? 0 : UINT64_MAX;
        size = ZSTD_getFrameContentSize(in, header);
        if (size == ZSTD_CONTENTSIZE_ERROR)
                return UINT64_MAX;
        if (size != ZSTD_CONTENTSIZE_UNKNOWN)
                return size;
        if (n - header < BLOCK_HEADER)
                return UINT64_MAX;
        block = (uint32_t) in[header] | (uint32_t) in[header + 1] << 8 | (uint32_t) in[header + 2] << 16;
        if (!(block & BLOCK_LAST))
                return UINT64_MAX;
        return (block >> 1 & 3) == BLOCK_COMPRESSED ? ZSTD_BLOCKSIZE_MAX : block >> 3;
}

/* Settles where the frame at IN goes. That cannot wait for the next feed, when this place must not be reported any
 * more: so a frame whose header is cut in two by the end of a feed begins a chunk, whatever the header will say. */
static int zstd_place_frame(struct zstd_scan *s, uint64_t blob_offset, const uint8_t *in, size_t n, struct error *e)
{
        uint64_t length = chunk_length(s);
        int r;

        if (length == 0)
                return 0;
        if (!s->scan.slice && length < s->scan.target / 2 && frame_bound(in, n) <= s->scan.target - length)
                return 0;
        r = zstd_flush(s, e);
        return r == 0 ? scan_begin_chunk(&s->scan, blob_offset, e) : r;
}

/* Decodes from INPUT until the frame ends (state changes) or the input is used up. */
static int zstd_frame(struct zstd_scan *s, ZSTD_inBuffer *input, struct error *e)
{
        for (;;) {
                ZSTD_outBuffer output = { .dst = s->buffer, .size = sizeof(s->buffer), .pos = s->filled };
                size_t hint = ZSTD_decompressStream(s->context, &output, input);
                int r;

                if (ZSTD_isError(hint))
                        return zstd_failed(hint, e);
                s->frame_length += output.pos - s->filled;
                s->filled = output.pos;
                if (s->frame_length > s->frame_size)
                        return error_set(e, ERROR_BAD_DATA, EBADMSG,
                                         "a zstd frame is longer than the %" PRIu64 " bytes it declares",
                                         s->frame_size);
                if (hint == 0) {
                        s->state = ZSTD_STATE_HEADER;
                        s->frames = true;
                        return 0;
                }
                if (output.pos < output.size) {
                        if (input->pos == input->size)
                                return 0;
                        continue;
                }
                r = zstd_flush(s, e);
                if (r != 0)
                        return r;
        }
}

/* The whole header is in s->header: the decoder gets it from there. */
static int zstd_header_complete(struct zstd_scan *s, struct error *e)
{
        ZSTD_inBuffer input = { .src = s->header, .size = s->header_length };

        s->header_length = 0;
        if (is_skippable(s->header)) {
                s->skip = read_le32(s->header + 4);
                s->state = ZSTD_STATE_SKIP;
                return 0;
        }
        if (read_le32(s->header) != ZSTD_MAGICNUMBER)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "no zstd frame");
        s->frame_size = ZSTD_getFrameContentSize(s->header, input.size);
        if (s->frame_size == ZSTD_CONTENTSIZE_ERROR)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "damaged zstd frame header");
        s->frame_length = 0;
        s->state = ZSTD_STATE_FRAME;
        return zstd_frame(s, &input, e);
}

static int zstd_header(struct zstd_scan *s, const uint8_t *piece, const uint8_t **in, const uint8_t *end,
                       struct error *e)
{
        if (s->header_length == 0) {
                int r = zstd_place_frame(s, s->scan.fed + (size_t) (*in - piece), *in, (size_t) (end - *in), e);

                if (r != 0)
                        return r;
        }
        while (header_size(s->header, s->header_length) > s->header_length) {
                if (*in == end)
                        return 0;
                s->header[s->header_length++] = *(*in)++;
        }
        return zstd_header_complete(s, e);
}

static int zstd_scan_feed(struct scan *scan, const uint8_t *data, size_t n, struct error *e)
{
        struct zstd_scan *s = (struct zstd_scan *) scan;
        const uint8_t *in = data, *end = data + n;

        while (in < end || (s->state == ZSTD_STATE_SKIP && s->skip == 0)) {
                ZSTD_inBuffer input = { .src = in, .size = (size_t) (end - in) };
                size_t take;
                int r = 0;

                switch (s->state) {
                case ZSTD_STATE_HEADER:
                        r = zstd_header(s, data, &in, end, e);
                        break;
                case ZSTD_STATE_FRAME:
                        r = zstd_frame(s, &input, e);
                        in += input.pos;
                        break;
                case ZSTD_STATE_SKIP:
                        take = (size_t) MIN(s->skip, (uint64_t) (end - in));
                        in += take;
                        s->skip -= take;
                        if (s->skip == 0) {
                                s->state = ZSTD_STATE_HEADER;
                                s->frames = true;
                        }
                        break;
                }
                scan->used = (size_t) (in - data);
                if (r != 0)
                        return r;
        }
        return 0;
}

static int zstd_scan_finish(struct scan *scan, struct error *e)
{
        struct zstd_scan *s = (struct zstd_scan *) scan;

        if (s->state != ZSTD_STATE_HEADER || s->header_length > 0 || !s->frames)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "the blob ends inside a zstd frame");
        return zstd_flush(s, e);
}

const struct scan_ops scan_zstd = {
        .size = sizeof(struct zstd_scan),
        .codec = CODEC_ZSTD,
        .name = "zstd layer",
        .open = zstd_scan_open,
        .close = zstd_scan_close,
        .feed = zstd_scan_feed,
        .finish = zstd_scan_finish,
};

struct zstd_decoder {
        struct decoder decoder;
        ZSTD_DCtx *context;
};

static int zstd_decoder_open(struct decoder *d, _unused_ const struct chunk_table *table,
                             _unused_ const struct chunk *chunk, struct error *e)
{
        return zstd_context_new(&((struct zstd_decoder *) d)->context, e);
}

static void zstd_decoder_close(struct decoder *d)
{
        ZSTD_freeDCtx(((struct zstd_decoder *) d)->context);
}

/* The library goes from frame to frame, and over skippable ones, by itself. */
static int zstd_decoder_read(struct decoder *d, uint8_t *out, size_t n, size_t *ret_n, struct error *e)
{
        struct codec_source *source = &d->source;
        ZSTD_outBuffer output = { .dst = out, .size = n };

        while (output.pos == 0) {
                ZSTD_inBuffer input = { .src = source->at, .size = (size_t) (source->end - source->at) };
                size_t hint = ZSTD_decompressStream(((struct zstd_decoder *) d)->context, &output, &input);
                int r;

                if (ZSTD_isError(hint))
                        return zstd_failed(hint, e);
                source->at += input.pos;
                if (output.pos > 0)
                        break;
                r = source_fill(source, e);
                if (r < 0)
                        return r;
                if (r == 0)
                        return decoder_ended_early(d, e);
        }
        *ret_n = output.pos;
        return 0;
}

const struct decoder_ops decoder_zstd = {
        .size = sizeof(struct zstd_decoder),
        .name = "zstd chunk",
        .open = zstd_decoder_open,
        .close = zstd_decoder_close,
        .read = zstd_decoder_read,
};
