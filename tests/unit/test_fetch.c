/* SPDX-License-Identifier: Apache-2.0 */

/* Reads: what they bring, what they share, and what becomes of bytes that are wrong or do not come. */

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "fetch_fixture.h"

#define LENGTH 50000u

static void open_stored(struct bench *b, size_t count)
{
        bench_stored(b, count, LENGTH);
        bench_open(b);
}

static void read_brings_its_bytes_and_stores_the_chunks(void **state)
{
        struct bench *b = *state;
        uint8_t out[100];

        open_stored(b, 100);
        expect_read(b, LENGTH - 10, 100);
        b->fetcher = fetcher_free(b->fetcher);
        b->fetcher = bench_fetcher(b);
        /* Neighbours travel together: what begins in the first 512 KiB. */
        for (size_t k = 0; k < 100; k++)
                assert_int_equal(content_has(b->content, k), k < 11);
        assert_int_equal(slow_get(b->blob, opened), 1);
        assert_int_equal(slow_get(b->blob, asked), 11 * LENGTH);

        struct fetch_part part = bench_part(b, LENGTH - 10, sizeof(out), 0);

        assert_int_equal(fetch_cached(&part, 1, out), 0);
        assert_memory_equal(out, b->bytes + LENGTH - 10, sizeof(out));
        part.offset = 11 * LENGTH;
        assert_int_equal(fetch_cached(&part, 1, out), -EAGAIN);
        expect_read(b, LENGTH - 10, 100);
        assert_int_equal(slow_get(b->blob, opened), 1);
}

static void read_of_everything_is_never_short(void **state)
{
        struct bench *b = *state;

        open_stored(b, 9);
        expect_read(b, 0, 9 * LENGTH);
        expect_read(b, 9 * LENGTH - 1, 1);
}

static void what_no_chunk_covers_reads_as_zeros(void **state)
{
        struct bench *b = *state;

        bench_stored(b, 4, LENGTH);
        /* A chunk of zeros, and a gap of ten bytes behind the third. */
        b->rows[1] = (struct chunk) {
                .content_offset = LENGTH, .content_length = LENGTH, .codec = CODEC_ZEROS, .checkpoint = CHECKPOINT_NONE
        };
        b->blob_bytes = malloc(4 * LENGTH);
        memcpy(b->blob_bytes, b->bytes, 4 * LENGTH);
        memset(b->bytes + LENGTH, 0, LENGTH);
        b->rows[2].content_length -= 10;
        b->rows[2].blob_length -= 10;
        memset(b->bytes + 3 * LENGTH - 10, 0, 10);
        b->rows[2].flags = CHUNK_NO_DIGEST;
        bench_open(b);
        expect_read(b, 0, 4 * LENGTH);
        expect_read(b, LENGTH, LENGTH);
        /* What lies between two chunks is carried along. */
        assert_int_equal(slow_get(b->blob, opened), 1);
        assert_int_equal(slow_get(b->blob, asked), 4 * LENGTH);
}

static void zeros_need_no_flight(void **state)
{
        struct bench *b = *state;
        struct fetch_part part;
        uint8_t out[LENGTH];

        bench_stored(b, 3, LENGTH);
        b->rows[1] = (struct chunk) {
                .content_offset = LENGTH, .content_length = LENGTH, .codec = CODEC_ZEROS, .checkpoint = CHECKPOINT_NONE
        };
        bench_open(b);
        part = bench_part(b, LENGTH, LENGTH, 0);
        memset(out, 0xee, sizeof(out));
        assert_int_equal(fetch_cached(&part, 1, out), 0);
        assert_true(bytes_are_zero(out, sizeof(out)));
        part.offset--;
        assert_int_equal(fetch_cached(&part, 1, out), -EAGAIN);
        assert_int_equal(slow_get(b->blob, opened), 0);
}

static void parts_of_several_layers_make_one_read(void **state)
{
        struct bench *b = *state;
        struct fetcher *other;
        uint8_t out[300];

        open_stored(b, 4);
        other = bench_fetcher(b);

        struct fetch_part parts[] = {
                bench_part(b, 100, 100, 200),
                { .fetcher = other, .offset = LENGTH + 7, .length = 100, .at = 0 },
                bench_part(b, 3 * LENGTH, 100, 100),
        };

        assert_int_equal(fetch_wait(parts, 3, out, NULL), 0);
        assert_memory_equal(out, b->bytes + LENGTH + 7, 100);
        assert_memory_equal(out + 100, b->bytes + 3 * LENGTH, 100);
        assert_memory_equal(out + 200, b->bytes + 100, 100);
        fetcher_free(other);
}

static void parts_in_one_chunk_share_a_flight(void **state)
{
        struct bench *b = *state;
        uint8_t out[200];

        open_stored(b, 1);

        struct fetch_part parts[] = { bench_part(b, 9000, 100, 100), bench_part(b, 20, 100, 0) };

        assert_int_equal(fetch_wait(parts, 2, out, NULL), 0);
        assert_memory_equal(out, b->bytes + 20, 100);
        assert_memory_equal(out + 100, b->bytes + 9000, 100);
        assert_int_equal(slow_get(b->blob, opened), 1);
}

static void read_of_nothing_is_done_at_once(void **state)
{
        struct bench *b = *state;
        struct taken t;

        open_stored(b, 1);
        taken_start(&t, NULL, 0, NULL, NULL);
        assert_int_equal(taken_done_count(&t), 1);
        assert_int_equal(taken_await(&t), 0);
        taken_end(&t);
}

/* ---- bytes that are wrong ---- */

static void wrong_bytes_are_fetched_once_more(void **state)
{
        struct bench *b = *state;

        open_stored(b, 4);
        slow_set(b->blob, wrong_at, LENGTH + 3);
        slow_set(b->blob, wrong, 1);
        expect_read(b, 0, 4 * LENGTH);
        assert_int_equal(bench_stats(b).refetches, 1);
        assert_int_equal(bench_stats(b).failures, 0);
        assert_int_equal(bench_stats(b).chunks, 4);
        /* All, the chunk again, all that is left. */
        assert_int_equal(slow_get(b->blob, opened), 3);
}

static void wrong_bytes_fail_their_own_readers_and_no_others(void **state)
{
        struct bench *b = *state;
        struct fetch_part parts[4];
        uint8_t out[4 * 100];
        struct taken t[4];

        open_stored(b, 4);
        slow_set(b->blob, wrong_at, LENGTH + 3);
        slow_set(b->blob, wrong, UINT32_MAX);

        /* One flight for all of them: a reader of everything begins it, the others join. */
        slow_set(b->blob, allowed, 0);

        struct fetch_part all = bench_part(b, 0, 4 * LENGTH, 0);
        _cleanup_free_ uint8_t *everything = malloc(4 * LENGTH);
        struct taken whole;

        taken_start(&whole, &all, 1, NULL, everything);
        for (size_t k = 0; k < 4; k++) {
                parts[k] = bench_part(b, k * LENGTH, 100, 0);
                taken_start(&t[k], &parts[k], 1, NULL, out + k * 100);
        }
        slow_set(b->blob, allowed, UINT64_MAX);
        assert_int_equal(taken_await(&whole), -EBADMSG);
        for (size_t k = 0; k < 4; k++) {
                assert_int_equal(taken_await(&t[k]), k == 1 ? -EBADMSG : 0);
                if (k != 1)
                        assert_memory_equal(out + k * 100, b->bytes + k * LENGTH, 100);
                taken_end(&t[k]);
        }
        assert_non_null(strstr(whole.error.message, "slow blob: digest of bytes 50000-99999"));
        taken_end(&whole);
        assert_int_equal(bench_stats(b).flights, 1);
        assert_int_equal(bench_stats(b).refetches, 1);
        assert_int_equal(bench_stats(b).failures, 1);
        assert_false(content_has(b->content, 1));

        /* Nothing is remembered against the chunk. */
        slow_set(b->blob, wrong, 0);
        expect_read(b, LENGTH, LENGTH);
}

/* ---- bytes that do not come ---- */

static void blob_that_cannot_be_opened_fails_the_read_with_its_words(void **state)
{
        struct bench *b = *state;

        open_stored(b, 4);
        slow_set(b->blob, open_failure, -ECONNREFUSED);
        expect_no_read(b, 0, 4 * LENGTH, ECONNREFUSED, "slow blob: nobody is there");
        await(bench_stats(b).failures == 4);
        slow_set(b->blob, open_failure, 0);
        expect_read(b, 0, 4 * LENGTH);
}

static void chunks_that_came_before_the_failure_are_kept(void **state)
{
        struct bench *b = *state;
        _cleanup_free_ uint8_t *out = malloc(4 * LENGTH);
        struct fetch_part part;
        struct taken t;

        open_stored(b, 4);
        part = bench_part(b, 0, 4 * LENGTH, 0);
        slow_set(b->blob, allowed, 2 * LENGTH + 10);
        taken_start(&t, &part, 1, NULL, out);
        await(content_has(b->content, 1));
        slow_set(b->blob, wait_failure, -ECONNRESET);
        assert_int_equal(taken_await(&t), -ECONNRESET);
        taken_end(&t);
        assert_true(content_has(b->content, 0));
        assert_false(content_has(b->content, 2));
        slow_set(b->blob, wait_failure, 0);
        slow_set(b->blob, allowed, UINT64_MAX);
        expect_read(b, 0, 4 * LENGTH);
        assert_int_equal(slow_get(b->blob, asked), (4 + 2) * LENGTH);
}

/* ---- little room ---- */

static void pool_smaller_than_one_flight_suffices(void **state)
{
        struct bench *b = *state;
        struct fetch_part parts[8];
        struct taken t[8];
        uint8_t out[8];

        b->pool_limit = 8192;
        open_stored(b, 8);
        for (size_t k = 0; k < 8; k++) {
                parts[k] = bench_part(b, k * LENGTH, 1, 0);
                taken_start(&t[k], &parts[k], 1, NULL, out + k);
        }
        for (size_t k = 0; k < 8; k++) {
                assert_int_equal(taken_await(&t[k]), 0);
                assert_int_equal(out[k], b->bytes[k * LENGTH]);
                taken_end(&t[k]);
        }
}

static size_t waiting(struct pool *p)
{
        struct pool_stats s;

        pool_get_stats(p, &s);
        return s.waiting;
}

static void slow_flights_wait_for_room_without_a_timeout(void **state)
{
        struct bench *b = *state;
        struct fetch_part parts[2];
        struct taken t[2];
        uint8_t out[2];

        b->pool_limit = 8192;
        b->timeout_ms = 1200;
        open_stored(b, 60);
        slow_set(b->blob, allowed, 0);
        parts[0] = bench_part(b, 0, 1, 0);
        parts[1] = bench_part(b, 40 * LENGTH, 1, 0);
        taken_start(&t[0], &parts[0], 1, NULL, out);
        slow_await(b->blob, opened, 1);
        taken_start(&t[1], &parts[1], 1, NULL, out + 1);
        await(waiting(b->pool) == 1);
        /* The first one gets a byte now and then for longer than the second one's patience. */
        for (uint64_t n = 1; n <= 8; n++) {
                nanosleep(&(struct timespec) { .tv_nsec = 200000000 }, NULL);
                slow_set(b->blob, allowed, n);
        }
        slow_set(b->blob, allowed, UINT64_MAX);
        assert_int_equal(taken_await(&t[0]), 0);
        assert_int_equal(taken_await(&t[1]), 0);
        for (size_t k = 0; k < 2; k++)
                taken_end(&t[k]);
}

static void store_that_cannot_be_written_costs_nothing_but_speed(void **state)
{
        struct bench *b = *state;

        b->unwritable = true;
        open_stored(b, 6);
        expect_read(b, 10, 3 * LENGTH);
        expect_read(b, 10, 3 * LENGTH);
        assert_int_equal(bench_stats(b).flights, 2);
        assert_int_equal(slow_get(b->blob, asked), 8 * LENGTH);

        /* What cannot be kept is not worth fetching ahead: that shows with the first chunk. */
        assert_int_equal(bench_stats(b).chunks, 8);
        fetch_ahead(b->fetcher, 0, 6 * LENGTH, PRIORITY_BACKGROUND);
        settle(b);
        assert_int_equal(bench_stats(b).chunks, 9);
        for (size_t k = 0; k < 6; k++)
                assert_false(content_has(b->content, k));
}

/* ---- ahead of the reader ---- */

static void chunks_fetched_ahead_are_there(void **state)
{
        struct bench *b = *state;

        open_stored(b, 6);
        fetch_ahead(b->fetcher, LENGTH + 1, 3 * LENGTH, PRIORITY_BACKGROUND);
        fetch_ahead(b->fetcher, 0, 0, PRIORITY_BACKGROUND);
        fetch_ahead(b->fetcher, 6 * LENGTH, 10, PRIORITY_BACKGROUND);
        b->fetcher = fetcher_free(b->fetcher);
        for (size_t k = 0; k < 6; k++)
                assert_int_equal(content_has(b->content, k), k >= 1 && k <= 4);
        assert_int_equal(slow_get(b->blob, opened), 1);
}

static void reader_in_order_misses_seldom(void **state)
{
        struct bench *b = *state;
        unsigned misses = 0;

        /* 300 chunks of a length that no window is a multiple of: 15 MB. */
        open_stored(b, 300);
        for (size_t k = 0; k < 300; k++) {
                struct fetch_part part = bench_part(b, k * LENGTH, LENGTH, 0);
                _cleanup_free_ uint8_t *out = malloc(LENGTH);

                if (fetch_cached(&part, 1, out) == 0)
                        continue;
                misses++;
                expect_read(b, k * LENGTH, LENGTH);
                /* A network that is faster than the reader. */
                settle(b);
        }
        assert_in_range(misses, 2, 8);
        assert_int_equal(slow_get(b->blob, asked), 300 * LENGTH);
}

static void reader_at_random_fetches_nothing_ahead(void **state)
{
        struct bench *b = *state;
        const size_t places[] = { 200, 30, 130, 330, 80 };

        /* Windows of 512 KiB, twice; then as much as was asked for before. */
        open_stored(b, 400);
        for (size_t k = 0; k < ELEMENTSOF(places); k++) {
                expect_read(b, places[k] * LENGTH, 10);
                assert_int_equal(bench_stats(b).flights, k + 1);
        }
        assert_in_range(slow_get(b->blob, asked), 0, 7 * MIB);
}

static void reader_who_joins_flights_is_not_taken_for_another_stream(void **state)
{
        struct bench *b = *state;
        struct fetch_part parts[10];
        struct taken t[10];
        uint8_t out[10];

        open_stored(b, 300);
        expect_read(b, 0, 10);
        settle(b);
        assert_int_equal(slow_get(b->blob, asked), 11 * LENGTH);
        slow_set(b->blob, allowed, LENGTH);
        /* The second miss in order fetches 1 MiB ahead, on which ten readers come to wait. */
        for (size_t k = 0; k < 10; k++) {
                parts[k] = bench_part(b, (k + 11) * LENGTH, 1, 0);
                taken_start(&t[k], &parts[k], 1, NULL, out + k);
        }
        assert_int_equal(bench_stats(b).joined, 9);
        slow_set(b->blob, allowed, UINT64_MAX);
        for (size_t k = 0; k < 10; k++) {
                assert_int_equal(taken_await(&t[k]), 0);
                taken_end(&t[k]);
        }
        settle(b);
        /* The stream goes on where its window ended: with twice as much, to the end of a window. */
        size_t next = slow_get(b->blob, asked) / LENGTH;

        assert_in_range(next * LENGTH, 2 * MIB, 3 * MIB + LENGTH);
        expect_read(b, next * LENGTH, 1);
        settle(b);
        assert_in_range(slow_get(b->blob, asked) - next * LENGTH, 2 * MIB, 5 * MIB + LENGTH);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                bench_test(read_brings_its_bytes_and_stores_the_chunks),
                bench_test(read_of_everything_is_never_short),
                bench_test(what_no_chunk_covers_reads_as_zeros),
                bench_test(zeros_need_no_flight),
                bench_test(parts_of_several_layers_make_one_read),
                bench_test(parts_in_one_chunk_share_a_flight),
                bench_test(read_of_nothing_is_done_at_once),
                bench_test(wrong_bytes_are_fetched_once_more),
                bench_test(wrong_bytes_fail_their_own_readers_and_no_others),
                bench_test(blob_that_cannot_be_opened_fails_the_read_with_its_words),
                bench_test(chunks_that_came_before_the_failure_are_kept),
                bench_test(pool_smaller_than_one_flight_suffices),
                bench_test(slow_flights_wait_for_room_without_a_timeout),
                bench_test(store_that_cannot_be_written_costs_nothing_but_speed),
                bench_test(chunks_fetched_ahead_are_there),
                bench_test(reader_in_order_misses_seldom),
                bench_test(reader_at_random_fetches_nothing_ahead),
                bench_test(reader_who_joins_flights_is_not_taken_for_another_stream),
        };

        return cmocka_run_group_tests_name("fetch", tests, NULL, NULL);
}
