/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The smallest indexer that obeys <regfs/codec.h>: runs the pass, keeps content, chunk rows, checkpoints and
 * windows, and checks on the way what the header promises about the calls. And the caller of codec_decode: decodes
 * every chunk alone. */

#include "codec_streams.h"
#include "../../cache/codec/codec_internal.h"

struct index {
        struct buf content;
        struct chunk *chunks;
        size_t chunk_count, chunks_allocated;
        struct checkpoint *checkpoints;
        size_t checkpoint_count, checkpoints_allocated;
        struct buf windows;
        bool compress_windows;
        uint64_t blob_size;
        uint64_t fed; /* offset of the current feed */
        size_t target;
        size_t pieces;                      /* output calls */
        int output_result, boundary_result; /* what the sink returns once FAIL_AT bytes of content have come */
        uint64_t fail_at;
};

static inline void index_free(struct index *x)
{
        buf_free(&x->content);
        buf_free(&x->windows);
        free(x->chunks);
        free(x->checkpoints);
        *x = (struct index) {};
}

static inline int index_output(void *context, const uint8_t *data, size_t n, _unused_ struct error *e)
{
        struct index *x = context;

        assert_true(x->chunk_count > 0);
        assert_true(n > 0);
        x->pieces++;
        assert_int_equal(buf_append(&x->content, data, n), 0);
        return x->output_result != 0 && x->content.len > x->fail_at ? x->output_result : 0;
}

/* Ends the last chunk's content, and its range and that of its fellow slices unless the range goes on. */
static inline void index_close(struct index *x, uint64_t content_offset, bool range_goes_on, uint64_t previous_end)
{
        struct chunk *last = &x->chunks[x->chunk_count - 1];

        assert_in_range(content_offset - last->content_offset, 0, 2 * x->target);
        last->content_length = (uint32_t) (content_offset - last->content_offset);
        if (range_goes_on)
                return;
        for (struct chunk *c = last;; c--) {
                c->blob_length = previous_end - c->blob_offset;
                if (c == x->chunks || !(c->flags & CHUNK_SLICE) || c->skip == 0)
                        return;
        }
}

static inline uint32_t index_checkpoint(struct index *x, const struct scan_boundary *b)
{
        struct checkpoint *cp;

        assert_int_equal(array_reserve(x->checkpoints, &x->checkpoints_allocated, x->checkpoint_count + 1), 0);
        cp = &x->checkpoints[x->checkpoint_count];
        *cp = (struct checkpoint) {
                .in = b->in, .out = b->content_offset, .bits = b->bits, .window_offset = x->windows.len
        };
        assert_in_range(b->window_length, 0, INFLATE_WINDOW);
        assert_true(b->window_length <= x->content.len);
        assert_memory_equal(b->window, x->content.data + x->content.len - b->window_length, b->window_length);
        cp->window_length = cp->window_raw = b->window_length;
        assert_int_equal(buf_append(&x->windows, b->window, b->window_length), 0);
        if (x->compress_windows && b->window_length > 0) {
                uint8_t frame[2 * INFLATE_WINDOW];
                size_t n = ZSTD_compress(frame, sizeof(frame), b->window, b->window_length, 1);

                assert_false(ZSTD_isError(n));
                if (n < b->window_length) {
                        x->windows.len -= b->window_length;
                        assert_int_equal(buf_append(&x->windows, frame, n), 0);
                        cp->window_length = (uint32_t) n;
                }
        }
        return (uint32_t) x->checkpoint_count++;
}

static inline int index_boundary(void *context, const struct scan_boundary *b, _unused_ struct error *e)
{
        struct index *x = context;
        struct chunk *previous = x->chunk_count > 0 ? &x->chunks[x->chunk_count - 1] : NULL, *c;

        if (x->boundary_result != 0 && x->content.len >= x->fail_at)
                return x->boundary_result;
        assert_int_equal(b->content_offset, x->content.len);
        assert_false(b->slice && (!previous || b->checkpoint));
        if (!previous) {
                assert_int_equal(b->blob_offset, 0);
                assert_false(b->checkpoint);
        }
        if (b->slice) {
                assert_int_equal(b->blob_offset, previous->blob_offset);
        } else {
                assert_true(b->blob_offset + 1 >= x->fed);
                assert_true(b->previous_end == b->blob_offset ||
                            (b->bits > 0 && b->previous_end == b->blob_offset + 1));
        }
        if (previous) {
                assert_true(b->content_offset > previous->content_offset);
                index_close(x, b->content_offset, b->slice, b->previous_end);
                if (b->slice)
                        previous->flags |= CHUNK_SLICE;
        }

        assert_int_equal(array_reserve(x->chunks, &x->chunks_allocated, x->chunk_count + 1), 0);
        previous = x->chunk_count > 0 ? &x->chunks[x->chunk_count - 1] : NULL;
        c = &x->chunks[x->chunk_count++];
        *c = (struct chunk) {
                .content_offset = b->content_offset,
                .blob_offset = b->blob_offset,
                .codec = (uint8_t) b->codec,
                .flags = CHUNK_DIGEST_CONTENT,
                .checkpoint = CHECKPOINT_NONE,
        };
        if (b->slice) {
                c->flags |= CHUNK_SLICE;
                c->skip = previous->skip + previous->content_length;
                c->checkpoint = previous->checkpoint;
        } else if (b->checkpoint) {
                c->checkpoint = index_checkpoint(x, b);
        }
        return 0;
}

static inline void index_table(const struct index *x, struct chunk_table *ret)
{
        *ret = (struct chunk_table) {
                .chunks = x->chunks,
                .chunk_count = x->chunk_count,
                .checkpoints = x->checkpoints,
                .checkpoint_count = x->checkpoint_count,
                .windows = (const uint8_t *) x->windows.data,
                .windows_size = x->windows.len,
                .content_size = x->content.len,
                .blob_size = x->blob_size,
        };
}

/* Runs the pass over BLOB in feeds of FEED bytes (0: one feed). INFLATE and TARGET as scan_new_with takes them. */
static inline int index_run(struct index *x, enum compression compression, const struct inflate_ops *inflate,
                            size_t target, const void *blob, size_t n, size_t feed, struct error *e)
{
        const struct scan_sink sink = { .output = index_output, .boundary = index_boundary, .context = x };
        _cleanup_(scan_free_ptr) struct scan *s = NULL;
        uint64_t content_size = 0;
        int r;

        x->blob_size = n;
        x->target = target;
        assert_int_equal(scan_new_with(compression, &sink, inflate, target, &s, e), 0);
        for (size_t at = 0; at < n;) {
                size_t length = feed > 0 ? MIN(feed, n - at) : n;
                _cleanup_free_ uint8_t *piece = malloc(length); /* alone, so that a sanitizer sees reads around it */

                assert_non_null(piece);
                memcpy(piece, (const uint8_t *) blob + at, length);
                x->fed = at;
                r = scan_feed(s, piece, length, e);
                if (r != 0)
                        return r;
                at += length;
        }
        r = scan_finish(s, &content_size, e);
        if (r != 0)
                return r;
        assert_int_equal(content_size, x->content.len);
        if (x->chunk_count > 0) {
                index_close(x, content_size, false, n);
                x->chunk_count -= x->chunks[x->chunk_count - 1].content_length == 0;
        }
        return 0;
}

/* A blob range that comes in pieces of PIECE bytes, each in memory of its own. */
struct range_input {
        const uint8_t *blob;
        uint64_t blob_size;
        uint64_t blob_offset;
        size_t piece;
        uint8_t *held;
        uint64_t expected; /* offsets come in order, without gaps */
        int result;        /* what the function returns from FAIL_AT on */
        uint64_t fail_at;
};

static inline int range_read(void *context, uint64_t offset, const uint8_t **ret_data, size_t *ret_length,
                             struct error *e)
{
        struct range_input *in = context;
        uint64_t at = in->blob_offset + offset;
        size_t n = at < in->blob_size ? (size_t) MIN((uint64_t) in->piece, in->blob_size - at) : 0;

        assert_int_equal(offset, in->expected);
        if (in->result != 0 && offset >= in->fail_at)
                return error_set(e, ERROR_OTHER, -in->result, "the input fails");
        free(in->held);
        in->held = malloc(n > 0 ? n : 1);
        assert_non_null(in->held);
        memcpy(in->held, in->blob + MIN(at, in->blob_size), n);
        in->expected += n;
        *ret_data = in->held;
        *ret_length = n;
        return 0;
}

struct slices_seen {
        const struct index *index;
        size_t count;
        size_t stop_after;
        int result;
};

static inline int slice_delivered(void *context, const struct chunk *c, const uint8_t *data, _unused_ struct error *e)
{
        struct slices_seen *seen = context;

        if (seen->index)
                assert_memory_equal(data, seen->index->content.data + c->content_offset, c->content_length);
        seen->count++;
        return seen->stop_after == seen->count ? seen->result : 0;
}

/* Decodes every chunk alone (slices: every group) and compares with the content of the pass. */
static inline void index_verify(const struct index *x, const struct inflate_ops *inflate, const void *blob,
                                size_t piece)
{
        _cleanup_free_ uint8_t *out = malloc(2 * x->target);
        struct error e = ERROR_INIT;
        struct chunk_table t;

        assert_non_null(out);
        index_table(x, &t);
        if (chunk_table_check(&t, &e) < 0)
                fail_msg("%s", e.message);
        for (size_t i = 0, n; i < x->chunk_count; i += n) {
                const struct chunk *c = &x->chunks[i];
                struct range_input in = {
                        .blob = blob, .blob_size = x->blob_size, .blob_offset = c->blob_offset, .piece = piece
                };
                struct slices_seen seen = { .index = x };
                int r;

                n = 1;
                if (c->flags & CHUNK_SLICE) {
                        while (i + n < x->chunk_count && x->chunks[i + n].skip > 0)
                                n++;
                        r = codec_decode_slices_with(inflate, &t, c, n, range_read, &in, out, slice_delivered, &seen,
                                                     &e);
                        if (r == 0)
                                assert_int_equal(seen.count, n);
                } else {
                        r = codec_decode_with(inflate, &t, c, range_read, &in, out, &e);
                        if (r == 0)
                                assert_memory_equal(out, x->content.data + c->content_offset, c->content_length);
                }
                free(in.held);
                if (r != 0)
                        fail_msg("chunk %zu: %s", i, e.message);
        }
}
