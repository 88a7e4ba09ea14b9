/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Streams for the codec tests, made with the libraries: content, gzip members of every kind, zstd frames. */

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <zlib.h>
#include <zstd.h>

#include "regfs/text.h"

static inline uint32_t next_random(uint32_t *x)
{
        *x = *x * 1664525 + 1013904223;
        return *x >> 8;
}

/* Text with repetitions, noise and zeros in turn, as a tar has them. The caller frees. */
static inline uint8_t *make_content(size_t n, uint32_t seed)
{
        uint8_t *content = calloc(1, n > 0 ? n : 1);
        uint32_t x = seed;
        size_t at = 0;

        assert_non_null(content);
        while (at < n) {
                size_t end = MIN(n, at + 500 + next_random(&x) % 40000);
                unsigned kind = next_random(&x) % 8;

                while (at < end) {
                        size_t length = MIN(end - at, (size_t) (3 + next_random(&x) % 60));
                        size_t distance = 1 + next_random(&x) % 32768;
                        bool copy = kind < 6 && length > 12 && distance <= at;

                        for (size_t i = 0; i < length; i++, at++)
                                content[at] = copy        ? content[at - distance]
                                              : kind < 6  ? (uint8_t) ('a' + next_random(&x) % 20)
                                              : kind == 6 ? (uint8_t) next_random(&x)
                                                          : 0;
                }
        }
        return content;
}

struct gzip_options {
        int level, strategy, memory;
        int flush; /* after every FLUSH_EVERY bytes */
        size_t flush_every;
        bool header_fields; /* FEXTRA, FNAME, FCOMMENT and FHCRC */
};

/* Appends one gzip member to *B. */
static inline void append_gzip(struct buf *b, const uint8_t *content, size_t n, const struct gzip_options *o)
{
        static uint8_t extra[] = "SGregfs", name[] = "layer.tar", comment[] = "a comment";
        gz_header header = {
                .extra = extra,
                .extra_len = sizeof(extra),
                .name = name,
                .comment = comment,
                .hcrc = 1,
                .os = 3,
        };
        size_t step = o->flush_every > 0 ? o->flush_every : n;
        z_stream z = {};
        int r;

        assert_int_equal(deflateInit2(&z, o->level, Z_DEFLATED, 31, o->memory > 0 ? o->memory : 8, o->strategy), Z_OK);
        if (o->header_fields)
                assert_int_equal(deflateSetHeader(&z, &header), Z_OK);
        for (size_t at = 0;; at += step) {
                bool last = n - at <= step;

                z.next_in = (uint8_t *) content + at;
                z.avail_in = (uInt) (last ? n - at : step);
                do {
                        uint8_t out[16384];

                        z.next_out = out;
                        z.avail_out = sizeof(out);
                        r = deflate(&z, last ? Z_FINISH : o->flush);
                        assert_true(r == Z_OK || r == Z_STREAM_END || r == Z_BUF_ERROR);
                        assert_int_equal(buf_append(b, out, sizeof(out) - z.avail_out), 0);
                } while (z.avail_out == 0);
                if (last)
                        break;
        }
        assert_int_equal(r, Z_STREAM_END);
        deflateEnd(&z);
}

/* Appends one zstd frame to *B; its header has the content's size unless UNSIZED. */
static inline void append_zstd(struct buf *b, const uint8_t *content, size_t n, int level, bool unsized)
{
        ZSTD_CCtx *c = ZSTD_createCCtx();
        size_t room = ZSTD_compressBound(n);
        ZSTD_inBuffer in = { .src = content, .size = n };
        ZSTD_outBuffer out;

        assert_int_equal(buf_reserve(b, room), 0);
        out = (ZSTD_outBuffer) { .dst = b->data + b->len, .size = room };
        ZSTD_CCtx_setParameter(c, ZSTD_c_compressionLevel, level);
        ZSTD_CCtx_setParameter(c, ZSTD_c_checksumFlag, 1);
        ZSTD_CCtx_setParameter(c, ZSTD_c_contentSizeFlag, !unsized);
        if (!unsized)
                ZSTD_CCtx_setPledgedSrcSize(c, n);
        assert_int_equal(ZSTD_compressStream2(c, &out, &in, ZSTD_e_end), 0);
        b->len += out.pos;
        ZSTD_freeCCtx(c);
}

static inline void append_skippable(struct buf *b, size_t n)
{
        uint8_t header[8] = {
                0x50, 0x2a, 0x4d, 0x18, (uint8_t) n, (uint8_t) (n >> 8), (uint8_t) (n >> 16), (uint8_t) (n >> 24)
        };

        assert_int_equal(buf_append(b, header, sizeof(header)), 0);
        for (size_t i = 0; i < n; i++)
                assert_int_equal(buf_append_char(b, (char) i), 0);
}

/* The oracle: what zlib makes of a whole gzip stream. */
static inline void straight_gunzip(const struct buf *gz, struct buf *ret)
{
        z_stream z = { .next_in = (uint8_t *) gz->data, .avail_in = (uInt) gz->len };
        int r = Z_OK;

        assert_int_equal(inflateInit2(&z, 31), Z_OK);
        while (z.avail_in > 0 || r == Z_OK) {
                uint8_t out[65536];

                if (r == Z_STREAM_END)
                        assert_int_equal(inflateReset(&z), Z_OK);
                z.next_out = out;
                z.avail_out = sizeof(out);
                r = inflate(&z, Z_NO_FLUSH);
                assert_true(r == Z_OK || r == Z_STREAM_END);
                assert_int_equal(buf_append(ret, out, sizeof(out) - z.avail_out), 0);
        }
        assert_int_equal(r, Z_STREAM_END);
        inflateEnd(&z);
}

/* The oracle: what the zstd library makes of a whole stream of frames. */
static inline void straight_unzstd(const struct buf *zst, struct buf *ret)
{
        ZSTD_DCtx *c = ZSTD_createDCtx();
        ZSTD_inBuffer in = { .src = zst->data, .size = zst->len };
        size_t hint = 0;

        while (in.pos < in.size) {
                uint8_t bytes[65536];
                ZSTD_outBuffer out = { .dst = bytes, .size = sizeof(bytes) };

                hint = ZSTD_decompressStream(c, &out, &in);
                assert_false(ZSTD_isError(hint));
                assert_int_equal(buf_append(ret, bytes, out.pos), 0);
        }
        assert_int_equal(hint, 0);
        ZSTD_freeDCtx(c);
}
