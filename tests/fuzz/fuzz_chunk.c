/* SPDX-License-Identifier: Apache-2.0 */

/* A chunk of a table that somebody else made, with a checkpoint of his: any window, any bit, any bytes behind it. What
 * is decoded is what zlib makes of the same in one go, with either inflate and in any pieces. The input begins with the
 * checkpoint's bits and how the bytes are cut, the lengths of window and content, what is skipped, and the window. */

#include <zlib.h>
#include <zstd.h>

#include "cache/codec/codec_internal.h"
#include "fuzz.h"

#define CONTENT_MAX (64 * KIB)

struct parameters {
        uint8_t bits, step;
        uint16_t window, content, skip;
} __attribute__((packed));

struct input {
        const uint8_t *blob;
        size_t size, step;
        uint8_t *held; /* the piece, alone */
};

static int read_blob(void *context, uint64_t offset, const uint8_t **ret, size_t *ret_length, _unused_ struct error *e)
{
        struct input *in = context;
        size_t n = offset < in->size ? MIN(in->step, in->size - (size_t) offset) : 0;

        free(in->held);
        in->held = exact_bytes(in->blob + MIN((size_t) offset, in->size), n);
        *ret = in->held;
        *ret_length = n;
        return 0;
}

static int decode(const struct inflate_ops *inflate, const struct chunk_table *t, const uint8_t *blob, size_t step,
                  uint8_t *out)
{
        struct input in = { .blob = blob, .size = t->blob_size, .step = step };
        struct error e = ERROR_INIT;
        int r = codec_decode_with(inflate, t, &t->chunks[0], read_blob, &in, out, &e);

        free(in.held);
        REQUIRE(r == 0 || (r == -EBADMSG && is_told(r, &e)));
        return r;
}

/* What zlib makes of the blob in one go, up to the end of the deflate data. */
struct straight {
        uint8_t bytes[CONTENT_MAX + UINT16_MAX];
        size_t length;
        bool ended;
        bool wrong; /* there, or behind as many bytes as were asked for */
};

static void decode_straight(const struct checkpoint *cp, const uint8_t *window, const uint8_t *blob, size_t size,
                            size_t n, struct straight *ret)
{
        z_stream z = { .next_in = (Bytef *) blob, .avail_in = (uInt) size };
        uint8_t rest[4096];
        int r;

        REQUIRE(inflateInit2(&z, -MAX_WBITS) == Z_OK);
        if (cp->bits > 0) {
                REQUIRE(inflatePrime(&z, cp->bits, blob[0] >> (8 - cp->bits)) == Z_OK);
                z.next_in++;
                z.avail_in--;
        }
        if (cp->window_raw > 0)
                REQUIRE(inflateSetDictionary(&z, window, cp->window_raw) == Z_OK);
        z.next_out = ret->bytes;
        z.avail_out = (uInt) n;
        r = inflate(&z, Z_SYNC_FLUSH);
        ret->length = n - z.avail_out;
        ret->ended = r == Z_STREAM_END;
        while (r == Z_OK) {
                z.next_out = rest;
                z.avail_out = sizeof(rest);
                r = inflate(&z, Z_SYNC_FLUSH);
        }
        ret->wrong = r == Z_DATA_ERROR;
        inflateEnd(&z);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static struct straight straight;
        static uint8_t whole[CONTENT_MAX], cut[CONTENT_MAX], other[CONTENT_MAX];
        struct checkpoint cp = { .window_offset = 0 };
        struct chunk chunk = { .codec = CODEC_GZIP, .flags = CHUNK_NO_DIGEST };
        struct chunk_table t = { .chunks = &chunk, .chunk_count = 1, .checkpoints = &cp, .checkpoint_count = 1 };
        _cleanup_free_ uint8_t *window = NULL;
        struct parameters p;
        size_t end;
        bool sure;
        int r;

        if (size < sizeof(p))
                return 0;
        memcpy(&p, data, sizeof(p));
        data += sizeof(p);
        size -= sizeof(p);
        cp.bits = p.bits % 8;
        cp.window_raw = cp.window_length = (uint32_t) MIN((size_t) p.window % (INFLATE_WINDOW + 1), size);
        window = exact_bytes(data, cp.window_raw);
        data += cp.window_raw;
        size -= cp.window_raw;
        cp.in = cp.bits > 0;
        cp.out = MAX(cp.window_raw, 1u);
        chunk.skip = p.skip;
        chunk.content_offset = cp.out + p.skip;
        chunk.content_length = p.content;
        chunk.blob_length = size;
        t.windows = window;
        t.windows_size = cp.window_raw;
        t.content_size = chunk.content_offset + chunk.content_length;
        t.blob_size = size;
        if (chunk_table_check(&t, NULL) < 0)
                return 0;

        end = (size_t) chunk.skip + chunk.content_length;
        decode_straight(&cp, window, data, size, end, &straight);
        /* What is wrong behind the chunk may be seen, or not. */
        sure = !straight.wrong && straight.length == end;
        r = decode(&inflate_zlib, &t, data, SIZE_MAX, whole);
        if (decode(&inflate_zlib, &t, data, p.step + 1u, cut) == 0)
                REQUIRE(r == 0 ? memcmp(whole, cut, chunk.content_length) == 0 : !sure);
        else
                REQUIRE(r < 0 || !sure);
        if (sure)
                REQUIRE(r == 0);
        if (straight.length < end && !straight.ended)
                REQUIRE(r < 0);
        if (straight.length == end && r == 0)
                REQUIRE(memcmp(whole, straight.bytes + chunk.skip, chunk.content_length) == 0);
        if (!inflate_isal())
                return 0;
        /* It is not as strict with codes that cannot be. */
        if (decode(inflate_isal(), &t, data, SIZE_MAX, other) == 0)
                REQUIRE(r < 0 || memcmp(whole, other, chunk.content_length) == 0);
        else
                REQUIRE(r < 0 || !sure);
        (void) decode(inflate_isal(), &t, data, p.step + 1u, other);
        return 0;
}
