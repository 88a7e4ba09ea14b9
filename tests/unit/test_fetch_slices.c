/* SPDX-License-Identifier: Apache-2.0 */

/* Chunks that can only be decoded together: one zstd frame cut into slices. */

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <zstd.h>

#include <cmocka.h>

#include "fetch_fixture.h"

#define SLICE (512 * KIB)
#define SLICES 8u

/* Eight slices of a frame of noise, which does not shrink: so a slice takes its own length of the blob. Before and
 * behind it a stored chunk. */
static void open_slices(struct bench *b)
{
        size_t length = SLICES * SLICE, bound = ZSTD_compressBound(length), frame;

        bench_stored(b, SLICES + 2, SLICE);
        b->blob_bytes = malloc(2 * SLICE + bound);
        assert_non_null(b->blob_bytes);
        memcpy(b->blob_bytes, b->bytes, SLICE);
        frame = ZSTD_compress(b->blob_bytes + SLICE, bound, b->bytes + SLICE, length, 1);
        assert_false(ZSTD_isError(frame));
        memcpy(b->blob_bytes + SLICE + frame, b->bytes + SLICE + length, SLICE);
        for (size_t k = 1; k <= SLICES; k++) {
                struct chunk *c = &b->rows[k];

                c->codec = CODEC_ZSTD;
                c->flags = CHUNK_SLICE | CHUNK_DIGEST_CONTENT;
                c->blob_offset = SLICE;
                c->blob_length = frame;
                c->skip = (k - 1) * SLICE;
        }
        b->rows[SLICES + 1].blob_offset = SLICE + frame;
        b->table.blob_size = 2 * SLICE + frame;
        bench_open(b);
}

static void slice_brings_its_whole_frame_into_the_store(void **state)
{
        struct bench *b = *state;

        open_slices(b);
        expect_read(b, 3 * SLICE + 5, 100);
        expect_read(b, SLICE, SLICES * SLICE);
        assert_int_equal(bench_stats(b).flights, 1);
        assert_int_equal(bench_stats(b).chunks, SLICES);
        assert_true(content_has(b->content, 1) && content_has(b->content, SLICES));
        assert_false(content_has(b->content, 0) || content_has(b->content, SLICES + 1));
        assert_int_equal(slow_get(b->blob, asked), b->rows[1].blob_length);
        expect_read(b, 0, (SLICES + 2) * SLICE);
}

static void read_across_everything_gets_all_bytes(void **state)
{
        struct bench *b = *state;

        open_slices(b);
        expect_read(b, 100, (SLICES + 2) * SLICE - 200);
        assert_int_equal(bench_stats(b).flights, 3);
}

static void early_slices_do_not_wait_for_late_ones(void **state)
{
        struct bench *b = *state;

        open_slices(b);
        slow_set(b->blob, allowed, 4 * SLICE);
        expect_read(b, SLICE, SLICE);
        assert_false(content_has(b->content, SLICES));
        slow_set(b->blob, allowed, UINT64_MAX);
        expect_read(b, SLICES * SLICE, SLICE);
        assert_int_equal(bench_stats(b).flights, 1);
}

static void wrong_bytes_in_a_frame_are_read_once_more_and_no_slice_twice(void **state)
{
        struct bench *b = *state;

        open_slices(b);
        slow_set(b->blob, wrong_at, SLICE + 4 * SLICE);
        slow_set(b->blob, wrong, 1);
        expect_read(b, SLICE, SLICES * SLICE);
        assert_int_equal(bench_stats(b).refetches, 1);
        assert_int_equal(bench_stats(b).failures, 0);
        assert_int_equal(bench_stats(b).chunks, SLICES);
}

static void wrong_slice_fails_its_own_readers_and_no_others(void **state)
{
        struct bench *b = *state;
        struct fetch_part parts[SLICES];
        struct taken t[SLICES];
        uint8_t out[SLICES];

        open_slices(b);
        slow_set(b->blob, wrong_at, SLICE + 2 * SLICE + SLICE / 2);
        slow_set(b->blob, wrong, UINT32_MAX);
        slow_set(b->blob, allowed, SLICE);
        for (size_t k = 0; k < SLICES; k++) {
                parts[k] = bench_part(b, (k + 1) * SLICE, 1, 0);
                taken_start(&t[k], &parts[k], 1, NULL, &out[k]);
        }
        slow_set(b->blob, allowed, UINT64_MAX);
        for (size_t k = 0; k < SLICES; k++) {
                assert_int_equal(taken_await(&t[k]), k == 2 ? -EBADMSG : 0);
                if (k != 2)
                        assert_int_equal(out[k], b->bytes[(k + 1) * SLICE]);
                taken_end(&t[k]);
        }
        assert_int_equal(bench_stats(b).flights, 1);
        assert_int_equal(bench_stats(b).failures, 1);
}

static void frame_that_breaks_off_fails_what_is_behind(void **state)
{
        struct bench *b = *state;
        struct fetch_part parts[2];
        struct taken t[2];
        uint8_t out[2];

        open_slices(b);
        slow_set(b->blob, allowed, 4 * SLICE);
        for (size_t k = 0; k < 2; k++) {
                parts[k] = bench_part(b, (1 + 6 * k) * SLICE, 1, 0);
                taken_start(&t[k], &parts[k], 1, NULL, &out[k]);
        }
        assert_int_equal(taken_await(&t[0]), 0);
        slow_set(b->blob, wait_failure, -ECONNRESET);
        assert_int_equal(taken_await(&t[1]), -ECONNRESET);
        for (size_t k = 0; k < 2; k++)
                taken_end(&t[k]);
        slow_set(b->blob, wait_failure, 0);
        slow_set(b->blob, allowed, UINT64_MAX);
        expect_read(b, 7 * SLICE, SLICE);
}

static void abandoned_window_keeps_its_buffer(void **state)
{
        struct bench *b = *state;
        _cleanup_free_ uint8_t *out = malloc(SLICES * SLICE);
        struct fetch_part part;
        struct taken t;

        open_slices(b);
        slow_set(b->blob, lingers, true);
        slow_set(b->blob, wrong_at, SLICE + 100);
        slow_set(b->blob, wrong, 1);
        /* The first slice is there, the window of 1 MiB is not. */
        slow_set(b->blob, allowed, SLICE + 600 * KIB);
        part = bench_part(b, SLICE, SLICES * SLICE, 0);
        taken_start(&t, &part, 1, NULL, out);
        slow_await(b->blob, lingering, 1);
        slow_set(b->blob, allowed, UINT64_MAX);
        assert_int_equal(taken_await(&t), 0);
        assert_memory_equal(out, b->bytes + SLICE, SLICES * SLICE);
        taken_end(&t);
        b->fetcher = fetcher_free(b->fetcher);
        assert_true(buffers_out(b->pool) >= 1);
        slow_set(b->blob, lingers, false);
        slow_await(b->blob, producers, 0);
        assert_int_equal(buffers_out(b->pool), 0);
}

static void pool_smaller_than_one_slice_suffices(void **state)
{
        struct bench *b = *state;

        b->pool_limit = 64 * KIB;
        open_slices(b);
        expect_read(b, 3 * SLICE + 5, 2 * SLICE);
}

static void store_that_cannot_be_written_decodes_no_further_than_needed(void **state)
{
        struct bench *b = *state;

        b->unwritable = true;
        open_slices(b);
        expect_read(b, SLICE, 10);
        b->fetcher = fetcher_free(b->fetcher);
        assert_true(slow_get(b->blob, asked) <= 2 * MIB);
        b->fetcher = bench_fetcher(b);
        expect_read(b, 3 * SLICE + 7, SLICES * SLICE / 2);
        assert_int_equal(bench_stats(b).flights, 1);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                bench_test(slice_brings_its_whole_frame_into_the_store),
                bench_test(read_across_everything_gets_all_bytes),
                bench_test(early_slices_do_not_wait_for_late_ones),
                bench_test(wrong_bytes_in_a_frame_are_read_once_more_and_no_slice_twice),
                bench_test(wrong_slice_fails_its_own_readers_and_no_others),
                bench_test(frame_that_breaks_off_fails_what_is_behind),
                bench_test(abandoned_window_keeps_its_buffer),
                bench_test(pool_smaller_than_one_slice_suffices),
                bench_test(store_that_cannot_be_written_decodes_no_further_than_needed),
        };

        return cmocka_run_group_tests_name("fetch_slices", tests, NULL, NULL);
}
