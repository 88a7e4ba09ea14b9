/* SPDX-License-Identifier: Apache-2.0 */

/* The pass over a gzip, zstd or plain layer of any bytes, against a straight decoding; then every chunk that it found
 * alone, from its checkpoint. The input's first byte chooses the compression, and whether deflate data is put into a
 * gzip member that fits it, which a fuzzer does not guess; the second how the blob is cut, the third where chunks are
 * due. */

#include <stdlib.h>

#include "../unit/codec_index.h"
#include "fuzz.h"

/* Deflate makes 1032 bytes of one: a bomb is not to take minutes. */
#define CONTENT_MAX (8 * MIB)

enum recipe { RAW_GZIP, RAW_ZSTD, RAW_STORED, SEALED_DEFLATE };

/* ---- the blob ---- */

/* Where the deflate data at the start of DATA ends, and what it holds. SIZE where it does not end. */
static size_t deflate_end(const uint8_t *data, size_t size, uint32_t *ret_crc, uint32_t *ret_length)
{
        z_stream z = { .next_in = (Bytef *) data, .avail_in = (uInt) size };
        uint8_t out[16384];
        int r;

        *ret_crc = *ret_length = 0;
        REQUIRE(inflateInit2(&z, -MAX_WBITS) == Z_OK);
        do {
                z.next_out = out;
                z.avail_out = sizeof(out);
                r = inflate(&z, Z_NO_FLUSH);
                *ret_crc = (uint32_t) crc32(*ret_crc, out, sizeof(out) - z.avail_out);
                *ret_length += (uint32_t) (sizeof(out) - z.avail_out);
        } while (r == Z_OK && *ret_length < CONTENT_MAX);
        inflateEnd(&z);
        return r == Z_STREAM_END ? size - z.avail_in : size;
}

/* Members one after the other, as long as there is data; headers and trailers are made up. */
static void seal(const uint8_t *data, size_t size, struct buf *blob)
{
        static const uint8_t header[] = { 0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3 };

        do {
                uint32_t trailer[2];
                size_t n = deflate_end(data, size, &trailer[0], &trailer[1]);

                REQUIRE(buf_append(blob, header, sizeof(header)) == 0 && buf_append(blob, data, n) == 0);
                REQUIRE(buf_append(blob, trailer, sizeof(trailer)) == 0);
                data += n;
                size -= n;
        } while (size > 0);
}

/* ---- a straight decoding ---- */

/* What the libraries make of the blob in one go: 0, or -EBADMSG. -EFBIG: it is a bomb. */
static int inflate_straight(const struct buf *blob, struct buf *ret)
{
        z_stream z = { .next_in = (Bytef *) blob->data, .avail_in = (uInt) blob->len };
        uint8_t out[16384];
        int r, k = 0;

        REQUIRE(inflateInit2(&z, MAX_WBITS + 16) == Z_OK);
        do {
                z.next_out = out;
                z.avail_out = sizeof(out);
                r = inflate(&z, Z_NO_FLUSH);
                k = buf_append(ret, out, sizeof(out) - z.avail_out);
                if (r == Z_STREAM_END && z.avail_in > 0 && *z.next_in == 0x1f)
                        r = inflateReset(&z);
        } while (k == 0 && r == Z_OK);
        while (r == Z_STREAM_END && z.avail_in > 0 && *z.next_in == 0) {
                z.next_in++;
                z.avail_in--;
        }
        inflateEnd(&z);
        return k < 0 ? k : r == Z_STREAM_END && z.avail_in == 0 ? 0 : -EBADMSG;
}

static int unzstd_straight(const struct buf *blob, struct buf *ret)
{
        ZSTD_DStream *z = ZSTD_createDStream();
        ZSTD_inBuffer in = { .src = blob->data, .size = blob->len };
        uint8_t out[16384];
        size_t r = 0;
        int k = 0;

        REQUIRE(z);
        while (k == 0) {
                ZSTD_outBuffer to = { .dst = out, .size = sizeof(out) };
                size_t before = in.pos;

                r = ZSTD_decompressStream(z, &to, &in);
                if (ZSTD_isError(r))
                        k = -EBADMSG;
                else if (to.pos > 0)
                        k = buf_append(ret, out, to.pos);
                if (k == 0 && in.pos == in.size && in.pos == before && to.pos == 0)
                        break;
                if (k == 0 && in.pos == in.size && r == 0)
                        break;
        }
        ZSTD_freeDStream(z);
        return k < 0 ? k : r == 0 ? 0 : -EBADMSG;
}

static int decode_straight(enum compression compression, const struct buf *blob, struct buf *ret)
{
        if (compression == COMPRESSION_GZIP)
                return inflate_straight(blob, ret);
        if (compression == COMPRESSION_ZSTD)
                return unzstd_straight(blob, ret);
        return buf_append(ret, blob->data, blob->len);
}

/* ---- the comparison ---- */

static void drop_group(struct index *x)
{
        while (x->chunk_count > 0 && x->chunks[x->chunk_count - 1].skip > 0)
                x->chunk_count--;
        x->chunk_count -= x->chunk_count > 0;
}

/* What was found before the pass broke off is as good as the rest: all but the last group, whose end is not known, and
 * the one before, whose last byte may be the first one that is wrong. */
static void keep_complete(struct index *x)
{
        drop_group(x);
        drop_group(x);
}

static bool is_prefix(const struct buf *a, const struct buf *b)
{
        return a->len <= b->len && (a->len == 0 || memcmp(a->data, b->data, a->len) == 0);
}

/* Returns 0 when the pass takes the blob. */
static int check_pass(enum compression compression, const struct inflate_ops *inflate, size_t target, size_t feed,
                      const struct buf *blob, const struct buf *straight)
{
        _cleanup_(index_free) struct index x = { .compress_windows = feed & 1 };
        struct error e = ERROR_INIT;
        int r = index_run(&x, compression, inflate, target, blob->data, blob->len, feed, &e);

        REQUIRE(r == 0 || (r == -EBADMSG && is_told(r, &e)));
        if (r < 0)
                keep_complete(&x);
        REQUIRE(is_prefix(r == 0 ? straight : &x.content, r == 0 ? &x.content : straight));
        index_verify(&x, inflate, blob->data, feed > 0 ? feed : SIZE_MAX);
        return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static const enum compression compressions[] = { COMPRESSION_GZIP, COMPRESSION_ZSTD, COMPRESSION_NONE,
                                                         COMPRESSION_GZIP };
        enum recipe recipe = take_byte(&data, &size) % 4;
        enum compression compression = compressions[recipe];
        size_t feed = take_byte(&data, &size) * 3u, target = (size_t) 64 << take_byte(&data, &size) % 8;
        _cleanup_buf_ struct buf blob = { 0 }, straight = { .max = CONTENT_MAX };
        int expected, r;

        setenv("CMOCKA_TEST_ABORT", "1", 1);
        REQUIRE(buf_reserve(&blob, 1) == 0);
        if (recipe == SEALED_DEFLATE)
                seal(data, size, &blob);
        else
                REQUIRE(buf_append(&blob, data, size) == 0);
        expected = decode_straight(compression, &blob, &straight);
        if (expected == -EFBIG || blob.len == 0)
                return 0;
        r = check_pass(compression, &inflate_zlib, target, 0, &blob, &straight);
        REQUIRE(r == expected);
        REQUIRE(check_pass(compression, &inflate_zlib, target, feed, &blob, &straight) == r);
        if (compression == COMPRESSION_GZIP && inflate_isal()) {
                REQUIRE(check_pass(compression, inflate_isal(), target, 0, &blob, &straight) == r);
                REQUIRE(check_pass(compression, inflate_isal(), target, feed, &blob, &straight) == r);
        }
        return 0;
}
