/* SPDX-License-Identifier: Apache-2.0 */

/* Chunks that fail whatever is fetched: their content comes by another road. */

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <zstd.h>

#include <cmocka.h>

#include "fetch_fixture.h"

#define LENGTH 50000u
#define BAD 3u

static atomic_uint recovered;
static atomic_uint unheld; /* while no buffer of the pool was out */

/* The bytes are known to the bench. No buffer may be out when it is called; a range that was closed lets go of its
 * own soon. */
static int recover_right(void *context, uint64_t offset, size_t length, uint8_t *out, struct error *e _unused_)
{
        struct bench *b = context;

        slow_await(b->blob, producers, 0);
        unheld += buffers_out(b->pool) == 0;
        recovered++;
        memcpy(out, b->bytes + offset, length);
        return 0;
}

static int recover_in_vain(void *context _unused_, uint64_t offset _unused_, size_t length _unused_,
                           uint8_t *out _unused_, struct error *e)
{
        recovered++;
        return error_set(e, ERROR_UNREACHABLE, ECONNREFUSED, "the layer cannot be read");
}

static void open_bad(struct bench *b, fetch_recover_fn *recover)
{
        recovered = unheld = 0;
        b->recover = recover;
        bench_stored(b, 10, LENGTH);
        b->rows[BAD].digest[0] ^= 1;
        bench_open(b);
}

static void bad_chunk_comes_by_the_other_road(void **state)
{
        struct bench *b = *state;

        open_bad(b, recover_right);
        expect_read(b, 0, 10 * LENGTH);
        assert_int_equal(recovered, 1);
        assert_int_equal(unheld, 1);
        assert_int_equal(bench_stats(b).recovered, 1);
        assert_int_equal(bench_stats(b).refetches, 1);
        assert_int_equal(bench_stats(b).failures, 0);
        for (size_t k = 0; k < 10; k++)
                assert_int_equal(content_has(b->content, k), k != BAD);
}

static void chunk_that_was_recovered_is_not_asked_for_again(void **state)
{
        struct bench *b = *state;
        uint64_t asked;

        open_bad(b, recover_right);
        expect_read(b, BAD * LENGTH, LENGTH);
        settle(b);
        asked = slow_get(b->blob, asked);
        expect_read(b, BAD * LENGTH + 7, 100);
        assert_int_equal(recovered, 2);
        assert_int_equal(unheld, 2);
        assert_int_equal(slow_get(b->blob, asked), asked);
}

static void bad_chunk_that_nobody_wants_is_left_alone(void **state)
{
        struct bench *b = *state;

        open_bad(b, recover_right);
        expect_read(b, 0, LENGTH);
        settle(b);
        assert_int_equal(recovered, 0);
        assert_true(content_has(b->content, 9));
        assert_false(content_has(b->content, BAD));
        expect_read(b, BAD * LENGTH, LENGTH);
        assert_int_equal(recovered, 1);
}

static void other_road_that_fails_tells_both_causes(void **state)
{
        struct bench *b = *state;

        open_bad(b, recover_in_vain);
        expect_no_read(b, BAD * LENGTH, LENGTH, ECONNREFUSED, "slow blob: digest of bytes 150000-199999");
        expect_no_read(b, BAD * LENGTH, LENGTH, ECONNREFUSED, "the layer cannot be read");
        assert_int_equal(recovered, 2);
        expect_read(b, 0, BAD * LENGTH);
        expect_read(b, (BAD + 1) * LENGTH, LENGTH);
}

static void chunk_that_does_not_decode_comes_by_the_other_road(void **state)
{
        struct bench *b = *state;

        recovered = unheld = 0;
        b->recover = recover_right;
        bench_stored(b, 10, LENGTH);
        b->rows[BAD].codec = CODEC_ZSTD;
        bench_open(b);
        expect_read(b, 0, 10 * LENGTH);
        assert_int_equal(recovered, 1);
}

/* A frame of four slices, the third of which has the wrong digest. */
static void bad_slice_comes_by_the_other_road(void **state)
{
        struct bench *b = *state;
        size_t bound = ZSTD_compressBound(4 * LENGTH), frame;

        recovered = unheld = 0;
        b->recover = recover_right;
        bench_stored(b, 4, LENGTH);
        b->blob_bytes = malloc(bound);
        assert_non_null(b->blob_bytes);
        frame = ZSTD_compress(b->blob_bytes, bound, b->bytes, 4 * LENGTH, 1);
        assert_false(ZSTD_isError(frame));
        for (size_t k = 0; k < 4; k++) {
                struct chunk *c = &b->rows[k];

                c->codec = CODEC_ZSTD;
                c->flags = CHUNK_SLICE | CHUNK_DIGEST_CONTENT;
                c->blob_offset = 0;
                c->blob_length = frame;
                c->skip = k * LENGTH;
        }
        b->rows[2].digest[0] ^= 1;
        b->table.blob_size = frame;
        bench_open(b);
        expect_read(b, 0, 4 * LENGTH);
        assert_int_equal(recovered, 1);
        assert_int_equal(unheld, 1);
        for (size_t k = 0; k < 4; k++)
                assert_int_equal(content_has(b->content, k), k != 2);
        expect_read(b, 2 * LENGTH + 1, 10);
        assert_int_equal(recovered, 2);
        assert_int_equal(slow_get(b->blob, opened), 2);
}

static void bytes_that_do_not_come_are_no_reason_to_recover(void **state)
{
        struct bench *b = *state;

        open_bad(b, recover_right);
        slow_set(b->blob, open_failure, -ECONNREFUSED);
        expect_no_read(b, BAD * LENGTH, LENGTH, ECONNREFUSED, "nobody is there");
        assert_int_equal(recovered, 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                bench_test(bad_chunk_comes_by_the_other_road),
                bench_test(chunk_that_was_recovered_is_not_asked_for_again),
                bench_test(bad_chunk_that_nobody_wants_is_left_alone),
                bench_test(other_road_that_fails_tells_both_causes),
                bench_test(chunk_that_does_not_decode_comes_by_the_other_road),
                bench_test(bad_slice_comes_by_the_other_road),
                bench_test(bytes_that_do_not_come_are_no_reason_to_recover),
        };

        return cmocka_run_group_tests_name("fetch_recover", tests, NULL, NULL);
}
