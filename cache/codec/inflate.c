/* SPDX-License-Identifier: Apache-2.0 */

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "inflate.h"
#include "regfs/codec.h"
#include "regfs/log.h"

#define TEST_STORED (34 * KIB) /* more than a window */
#define TEST_PART (4 * KIB)
#define TEST_SIZE (TEST_STORED + 4 * TEST_PART)
#define TEST_PIECE 509    /* of input: odd, so that blocks end anywhere in a piece */
#define TEST_RESUMED 300  /* bytes that zlib decodes from a stop, more than a block has symbols */
#define TEST_RESUMES 4    /* one in so many stops; libisal itself goes on from each of them */
#define TEST_MIN_STOPS 16 /* fewer would prove nothing */

struct self_test {
        uint8_t *content;
        uint8_t *result;
        uint8_t *stream;
        size_t stream_size;
        size_t steps, stops, unaligned;
};

static void self_test_free(struct self_test *t)
{
        free(t->content);
        free(t->result);
        free(t->stream);
}

/* Text-like bytes with repetitions near and far. */
static void self_test_fill(uint8_t *content, size_t n)
{
        uint32_t x = 20011;
        size_t at = 0;

        while (at < n) {
                size_t length, distance;

                x = x * 1664525 + 1013904223;
                length = 1 + (x >> 24) % 24;
                distance = 1 + (x >> 8) % 32000;
                for (size_t i = 0; i < length && at < n; i++, at++) {
                        x = x * 1664525 + 1013904223;
                        content[at] =
                                length > 8 && distance <= at ? content[at - distance] : (uint8_t) ('a' + (x >> 27));
                }
        }
}

/* The content as one deflate stream of many small blocks of all three types: memory level 1 makes zlib end a dynamic
 * block after 128 symbols. Most of it is stored, and only there for distances to reach into: the first that has
 * something to inflate waits for all this. */
static int self_test_compress(struct self_test *t)
{
        static const struct {
                int level, strategy;
                uInt size;
        } parts[] = {
                { 0, Z_DEFAULT_STRATEGY, TEST_STORED }, { 3, Z_DEFAULT_STRATEGY, TEST_PART }, { 1, Z_FIXED, TEST_PART },
                { 1, Z_HUFFMAN_ONLY, TEST_PART },       { 1, Z_DEFAULT_STRATEGY, TEST_PART },
        };
        z_stream z = {};
        int r = Z_OK;

        if (deflateInit2(&z, 3, Z_DEFLATED, -MAX_WBITS, 1, Z_DEFAULT_STRATEGY) != Z_OK)
                return -ENOMEM;
        z.next_in = t->content;
        z.next_out = t->stream;
        z.avail_out = 2 * TEST_SIZE;
        for (size_t i = 0; i < ELEMENTSOF(parts) && r == Z_OK; i++) {
                r = deflateParams(&z, parts[i].level, parts[i].strategy);
                z.avail_in = parts[i].size;
                if (r == Z_OK)
                        r = deflate(&z, i + 1 == ELEMENTSOF(parts) ? Z_FINISH : Z_NO_FLUSH);
        }
        t->stream_size = z.total_out;
        deflateEnd(&z);
        return r == Z_STREAM_END ? 0 : -EIO;
}

/* Inflates on with zlib from PLACE, at byte IN of the stream and byte OUT of the content. */
static int self_test_resume(const struct self_test *t, struct inflate *zlib, const struct inflate_place *place,
                            size_t in, size_t out, struct error *e)
{
        uint8_t resumed[TEST_RESUMED];
        size_t expected = MIN(sizeof(resumed), TEST_SIZE - out);
        struct inflate_io io = {
                .piece = t->stream + in,
                .in = t->stream + in,
                .in_length = t->stream_size - in,
                .out = resumed,
                .out_length = expected,
        };
        int r = inflate_zlib.start(zlib, place, e);

        if (r < 0)
                return r;
        r = inflate_zlib.run(zlib, &io, false, e);
        if (r < 0)
                return r;
        if (io.out_length > 0 || memcmp(resumed, t->content + out, expected) != 0)
                return error_set(e, ERROR_OTHER, EIO, "zlib does not resume at byte %zu", in);
        return 0;
}

/* One run over what is left of the piece, and what has to be checked behind it. Returns a status or -errno. */
static int self_test_step(struct self_test *t, const struct inflate_ops *ops, struct inflate *i, struct inflate *zlib,
                          struct inflate_io *io, size_t *started, struct error *e)
{
        size_t out = (size_t) (io->out - t->result), in;
        struct inflate_place place;
        int status, r;

        if (t->steps++ > TEST_SIZE)
                return error_set(e, ERROR_OTHER, EIO, "no progress");
        status = ops->run(i, io, out > *started, e);
        if (status != INFLATE_BOUNDARY)
                return status;
        out = (size_t) (io->out - t->result);
        in = (size_t) (io->in - t->stream);
        place = (struct inflate_place) {
                .bits = io->bits,
                .byte = io->bits > 0 ? io->in[-1] : 0,
                .window = io->out - MIN(out, INFLATE_WINDOW),
                .window_length = MIN(out, INFLATE_WINDOW),
        };
        r = t->stops % TEST_RESUMES == 0 ? self_test_resume(t, zlib, &place, in, out, e) : 0;
        if (r == 0)
                r = ops->start(i, &place, e);
        t->stops++;
        t->unaligned += io->bits > 0;
        *started = out;
        return r < 0 ? r : status;
}

static int self_test_inflate(struct self_test *t, const struct inflate_ops *ops, struct inflate *i,
                             struct inflate *zlib, struct error *e)
{
        struct inflate_io io = { .in = t->stream, .out = t->result, .out_length = TEST_SIZE + 1 };
        size_t started = 0;
        int status = ops->start(i, NULL, e);

        while (status >= 0 && status != INFLATE_END && io.in < t->stream + t->stream_size) {
                io.piece = io.in;
                io.in_length = MIN((size_t) TEST_PIECE, (size_t) (t->stream + t->stream_size - io.in));
                do
                        status = self_test_step(t, ops, i, zlib, &io, &started, e);
                while ((status == INFLATE_MORE && io.in_length > 0) || status == INFLATE_BOUNDARY);
        }
        if (status < 0)
                return status;
        if (status != INFLATE_END || io.in != t->stream + t->stream_size || io.out_length != 1 ||
            memcmp(t->result, t->content, TEST_SIZE) != 0)
                return error_set(e, ERROR_OTHER, EIO, "the inflated bytes differ");
        if (t->stops < TEST_MIN_STOPS || t->unaligned < TEST_MIN_STOPS / 2)
                return error_set(e, ERROR_OTHER, EIO, "only %zu stops at blocks, %zu of them inside a byte", t->stops,
                                 t->unaligned);
        return 0;
}

int inflate_self_test(const struct inflate_ops *ops, struct error *e)
{
        _cleanup_(self_test_free) struct self_test t = {
                .content = malloc(TEST_SIZE),
                .result = malloc(TEST_SIZE + 1), /* never full: a run ends when its input is used up */
                .stream = malloc(2 * TEST_SIZE),
        };
        struct inflate *i, *zlib;
        int r;

        if (!t.content || !t.result || !t.stream)
                return error_oom(e);
        self_test_fill(t.content, TEST_SIZE);
        r = self_test_compress(&t);
        if (r < 0)
                return error_errno(e, -r, "cannot make the stream for the self-test");

        i = ops->create();
        zlib = inflate_zlib.create();
        r = i && zlib ? self_test_inflate(&t, ops, i, zlib, e) : error_oom(e);
        ops->destroy(i);
        inflate_zlib.destroy(zlib);
        if (r == 0 && ops->crc32(0, t.content, TEST_SIZE) != inflate_zlib.crc32(0, t.content, TEST_SIZE))
                r = error_set(e, ERROR_OTHER, EIO, "the CRC-32 differs");
        return r;
}

static pthread_once_t choose_once = PTHREAD_ONCE_INIT;
static const struct inflate_ops *chosen;

static void choose(void)
{
        const struct inflate_ops *isal = inflate_isal();
        const char *wanted = getenv("REGFS_INFLATE");
        struct error e = ERROR_INIT;

        chosen = &inflate_zlib;
        if (wanted && strcmp(wanted, "zlib") == 0)
                return;
        if (!isal)
                log_debug("inflate: built without a usable libisal, zlib is used");
        else if (inflate_self_test(isal, &e) < 0)
                log_warning("inflate: libisal does not pass the self-test, zlib is used: %s", e.message);
        else
                chosen = isal;
}

const struct inflate_ops *inflate_chosen(void)
{
        pthread_once(&choose_once, choose);
        return chosen;
}

const char *inflate_backend(void)
{
        return inflate_chosen()->name;
}
