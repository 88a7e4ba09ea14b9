/* SPDX-License-Identifier: Apache-2.0 */

/* What travels in one request: however a layer is read, its bytes come once and in large requests, and who wants
 * little gets little. */

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <zstd.h>

#include <cmocka.h>

#include "fetch_fixture.h"

#define COUNT 8000u
#define FEW 2000u
#define HEADER 512u
#define READERS 4

/* As an eStargz layer has them: small chunks behind tar headers, and a large one now and then. COUNT: 28 MB. */
static uint32_t mixed_length(size_t k)
{
        return k % 1000 == 700 ? 1500000 : 500 + (uint32_t) (k * 7919 % 3000);
}

static void open_mixed(struct bench *b, size_t count)
{
        uint64_t content = 0, at = 0;

        b->pool_limit = 64 * MIB;
        b->rows = calloc(count, sizeof(*b->rows));
        assert_non_null(b->rows);
        for (size_t k = 0; k < count; k++) {
                b->rows[k] = (struct chunk) {
                        .content_offset = content,
                        .content_length = mixed_length(k),
                        .blob_offset = at + HEADER,
                        .blob_length = mixed_length(k),
                        .checkpoint = CHECKPOINT_NONE,
                        .codec = CODEC_STORED,
                };
                content += mixed_length(k);
                at += HEADER + mixed_length(k);
        }
        b->bytes = malloc(content);
        b->blob_bytes = calloc(1, at);
        assert_true(b->bytes && b->blob_bytes);
        fill_noise(b->bytes, content, 1);
        for (size_t k = 0; k < count; k++) {
                struct chunk *c = &b->rows[k];

                memcpy(b->blob_bytes + c->blob_offset, b->bytes + c->content_offset, c->content_length);
                set_digest(c, b->bytes + c->content_offset, c->content_length);
        }
        b->table = (struct chunk_table) {
                .chunks = b->rows,
                .chunk_count = count,
                .content_size = content,
                .blob_size = at,
        };
        bench_open(b);
}

static int read_chunk(struct bench *b, size_t k)
{
        return bench_read(b, b->rows[k].content_offset, b->rows[k].content_length, NULL);
}

/* ---- everything ---- */

static size_t forward(size_t k)
{
        return k;
}

static size_t backward(size_t k)
{
        return COUNT - 1 - k;
}

static size_t shuffled(size_t k)
{
        return (k * 4999 + 17) % COUNT; /* 4999 is prime to the count */
}

struct reader {
        struct bench *bench;
        pthread_t thread;
        size_t (*order)(size_t k);
        size_t first, step;
        int result;
};

static void *reader_run(void *arg)
{
        struct reader *r = arg;

        for (size_t k = r->first; k < COUNT && r->result == 0; k += r->step)
                r->result = read_chunk(r->bench, r->order(k));
        return NULL;
}

static void read_all(struct bench *b, size_t (*order)(size_t k), size_t count)
{
        struct reader readers[READERS] = { 0 };

        for (size_t k = 0; k < count; k++) {
                readers[k] = (struct reader) { .bench = b, .order = order, .first = k, .step = count };
                assert_int_equal(thread_start(&readers[k].thread, "reader", reader_run, &readers[k]), 0);
        }
        for (size_t k = 0; k < count; k++) {
                pthread_join(readers[k].thread, NULL);
                assert_int_equal(readers[k].result, 0);
        }
        settle(b);
}

static void expect_thrift(struct bench *b, uint64_t twice_max)
{
        struct fetch_stats s = bench_stats(b);
        uint64_t asked = slow_get(b->blob, asked);
        unsigned opened = slow_get(b->blob, opened);

        assert_in_range(slow_get(b->blob, twice), 0, twice_max);
        assert_in_range(asked, b->table.blob_size - COUNT * HEADER, b->table.blob_size + twice_max);
        assert_int_equal(slow_get(b->blob, at_once), 0);
        if (asked < opened * MIB)
                fail_msg("%u requests for %ju bytes", opened, (uintmax_t) asked);
        assert_int_equal(s.requests, opened);
        assert_int_equal(s.bytes, asked);
        assert_int_equal(s.chunks, COUNT);
        assert_int_equal(s.content, b->table.content_size);
}

static void forward_reader_gets_every_byte_once_in_large_requests(void **state)
{
        struct bench *b = *state;

        open_mixed(b, COUNT);
        read_all(b, forward, 1);
        expect_thrift(b, 0);
}

static void backward_reader_gets_every_byte_once_in_large_requests(void **state)
{
        struct bench *b = *state;

        open_mixed(b, COUNT);
        read_all(b, backward, 1);
        expect_thrift(b, 0);
}

static void random_reader_gets_every_byte_once_in_large_requests(void **state)
{
        struct bench *b = *state;

        open_mixed(b, COUNT);
        read_all(b, shuffled, 1);
        expect_thrift(b, 0);
}

static void parallel_readers_get_every_byte_once_in_large_requests(void **state)
{
        struct bench *b = *state;

        open_mixed(b, COUNT);
        read_all(b, forward, READERS);
        expect_thrift(b, b->table.blob_size / 50);
}

static void parallel_random_readers_get_every_byte_once_in_large_requests(void **state)
{
        struct bench *b = *state;

        open_mixed(b, COUNT);
        read_all(b, shuffled, READERS);
        expect_thrift(b, b->table.blob_size / 50);
}

/* ---- little ---- */

static void first_miss_is_modest(void **state)
{
        struct bench *b = *state;
        size_t k = 1;

        open_mixed(b, FEW);
        /* The two chunks on both sides of a window's end: a small file could have those. */
        while (b->rows[k].blob_offset < 512 * KIB)
                k++;
        assert_int_equal(read_chunk(b, k - 1), 0);
        settle(b);
        assert_in_range(slow_get(b->blob, asked), 500 * KIB, 516 * KIB);
        assert_int_equal(slow_get(b->blob, opened), 1);
        if (!content_has(b->content, k))
                assert_int_equal(read_chunk(b, k), 0);
        settle(b);
        assert_in_range(slow_get(b->blob, twice), 0, 0);
        assert_int_equal(slow_get(b->blob, opened), bench_stats(b).flights);
}

static void two_misses_apart_take_a_mebibyte(void **state)
{
        struct bench *b = *state;

        open_mixed(b, FEW);
        assert_int_equal(read_chunk(b, 1500), 0);
        assert_int_equal(read_chunk(b, 300), 0);
        settle(b);
        assert_int_equal(slow_get(b->blob, opened), 2);
        assert_in_range(slow_get(b->blob, asked), 900 * KIB, 1032 * KIB);
}

static void large_chunk_comes_alone_at_first(void **state)
{
        struct bench *b = *state;

        open_mixed(b, FEW);
        assert_int_equal(read_chunk(b, 1700), 0);
        settle(b);
        assert_int_equal(slow_get(b->blob, asked), 1500000);
}

static void small_layer_is_one_request(void **state)
{
        struct bench *b = *state;

        bench_stored(b, 100, 10000);
        bench_open(b);
        expect_read(b, 70 * 10000, 5);
        settle(b);
        assert_int_equal(slow_get(b->blob, opened), 1);
        assert_int_equal(slow_get(b->blob, asked), 100 * 10000);
        assert_true(content_has(b->content, 0) && content_has(b->content, 99));
}

/* The last chunk that begins before AT of the blob. */
static size_t chunk_before(const struct bench *b, uint64_t at)
{
        size_t k = COUNT - 1;

        while (b->rows[k].blob_offset >= at)
                k--;
        return k;
}

/* A miss at chunk K makes two large requests, and K comes early in one of them. */
static void expect_two_requests(struct bench *b, size_t k)
{
        uint64_t at = b->rows[k].blob_offset;
        unsigned opened = slow_get(b->blob, opened), early = 0;
        struct fetch_part part = bench_part(b, b->rows[k].content_offset, 1, 0);
        struct taken t;
        uint8_t out;

        assert_false(content_has(b->content, k));
        slow_set(b->blob, allowed, 0);
        taken_start(&t, &part, 1, NULL, &out);
        slow_await(b->blob, opened, opened + 2);
        for (unsigned i = opened; i < opened + 2; i++) {
                struct slow_ask ask = slow_get(b->blob, asks[i]);

                assert_in_range(ask.length, 1 * MIB, 4 * MIB);
                early += ask.offset <= at && at - ask.offset <= 1 * MIB;
        }
        assert_int_equal(early, 1);
        slow_set(b->blob, allowed, UINT64_MAX);
        assert_int_equal(taken_await(&t), 0);
        taken_end(&t);
        settle(b);
}

static void what_is_waited_for_does_not_wait_for_a_long_window(void **state)
{
        struct bench *b = *state;

        open_mixed(b, COUNT);
        /* Heat; then a chunk in the middle of a window of 4 MiB, and one at the end of another. */
        for (size_t i = 0; bench_stats(b).bytes < 6 * MIB; i += 500)
                assert_int_equal(read_chunk(b, i), 0);
        settle(b);
        expect_two_requests(b, chunk_before(b, 22 * MIB + 512 * KIB));
        expect_two_requests(b, chunk_before(b, 20 * MIB - 50 * KIB));
        assert_int_equal(slow_get(b->blob, twice), 0);
}

static void sequential_reader_seldom_waits(void **state)
{
        struct bench *b = *state;
        unsigned misses = 0;

        open_mixed(b, COUNT);
        for (size_t k = 0; k < COUNT; k++) {
                struct fetch_part part = bench_part(b, b->rows[k].content_offset, b->rows[k].content_length, 0);
                _cleanup_free_ uint8_t *out = malloc(b->rows[k].content_length);

                if (fetch_cached(&part, 1, out) < 0) {
                        misses++;
                        assert_int_equal(read_chunk(b, k), 0);
                }
                /* A network that is faster than the reader. */
                settle(b);
        }
        /* The second miss shows a reader in order; from then on what it reads next is always there. */
        assert_int_equal(misses, 2);
        expect_thrift(b, 0);
}

static void nothing_is_taken_along_where_nothing_is_kept(void **state)
{
        struct bench *b = *state;

        b->unwritable = true;
        open_mixed(b, FEW);
        assert_int_equal(read_chunk(b, 1500), 0);
        assert_int_equal(read_chunk(b, 1501), 0);
        assert_int_equal(read_chunk(b, 1502), 0);
        settle(b);
        assert_int_equal(slow_get(b->blob, asked), mixed_length(1500) + mixed_length(1501) + mixed_length(1502));
}

/* ---- what is there already ---- */

static void store_chunks(struct bench *b, size_t first, size_t end)
{
        for (size_t k = first; k < end; k++)
                assert_int_equal(content_write(b->content, k, b->bytes + b->rows[k].content_offset), 0);
}

static void present_chunks_are_not_fetched_again(void **state)
{
        struct bench *b = *state;
        uint64_t hole;

        open_mixed(b, FEW);
        store_chunks(b, 100, 200);
        hole = b->rows[200].blob_offset - b->rows[100].blob_offset;
        assert_int_equal(read_chunk(b, 10), 0);
        settle(b);
        assert_int_equal(slow_get(b->blob, opened), 1);
        assert_int_equal(slow_get(b->blob, asked),
                         b->rows[99].blob_offset + b->rows[99].blob_length - b->rows[0].blob_offset);
        assert_false(content_has(b->content, 200));
        assert_int_equal(read_chunk(b, 205), 0);
        settle(b);
        assert_int_equal(slow_get(b->blob, opened), 2);
        assert_true(content_has(b->content, 200));
        assert_in_range(slow_get(b->blob, asked), 512 * KIB - hole - 8 * KIB, 512 * KIB - hole + 8 * KIB);
}

static void one_small_chunk_that_is_there_does_not_cut_a_request_in_two(void **state)
{
        struct bench *b = *state;

        open_mixed(b, FEW);
        store_chunks(b, 100, 102);
        assert_int_equal(read_chunk(b, 10), 0);
        settle(b);
        assert_int_equal(slow_get(b->blob, opened), 1);
        assert_true(content_has(b->content, 200));
        /* Chunks that were there count for nothing. */
        assert_int_equal(content_has(b->content, 99) + content_has(b->content, 103), 2);
        assert_in_range(slow_get(b->blob, asked), 500 * KIB, 516 * KIB);
}

static void many_small_chunks_that_are_there_are_left_out(void **state)
{
        struct bench *b = *state;

        open_mixed(b, FEW);
        /* Every other chunk: to carry them along would double the bytes. */
        for (size_t k = 0; k < 200; k += 2)
                store_chunks(b, k, k + 1);
        assert_int_equal(read_chunk(b, 11), 0);
        settle(b);
        assert_int_equal(slow_get(b->blob, asked), mixed_length(11));
}

/* ---- bytes that are wrong ---- */

static void bad_neighbour_harms_nobody(void **state)
{
        struct bench *b = *state;

        open_mixed(b, FEW);
        slow_set(b->blob, wrong_at, b->rows[40].blob_offset + 5);
        slow_set(b->blob, wrong, UINT32_MAX);
        assert_int_equal(read_chunk(b, 50), 0);
        settle(b);
        assert_true(content_has(b->content, 39) && content_has(b->content, 41) && content_has(b->content, 200));
        assert_false(content_has(b->content, 40));
        assert_int_equal(bench_stats(b).failures, 1);
        assert_int_equal(read_chunk(b, 40), -EBADMSG);
}

/* ---- what is waited for among what is carried along ---- */

/* A read's end, in the middle of a flight. */
struct ending {
        struct bench *b;
        size_t there; /* chunks in the store by then */
        atomic_bool over;
};

/* The worker does not go on before all that the flight asked for has come. */
static void hold_until_all_has_come(void *context, int result, _unused_ const struct error *e)
{
        struct ending *end = context;
        uint64_t asked = slow_get(end->b->blob, asked);

        assert_int_equal(result, 0);
        slow_await(end->b->blob, sent, asked);
        atomic_store(&end->over, true);
}

static void count_what_is_there(void *context, int result, _unused_ const struct error *e)
{
        struct ending *end = context;

        assert_int_equal(result, 0);
        for (size_t k = 0; k < end->b->table.chunk_count; k++)
                end->there += content_has(end->b->content, k);
        atomic_store(&end->over, true);
}

static void chunk_that_has_come_does_not_wait_for_its_neighbours(void **state)
{
        struct bench *b = *state;
        struct ending first = { .b = b }, wanted = { .b = b };
        struct fetch_read *one = NULL, *other = NULL;
        struct fetch_part parts[2];
        uint8_t out[2][100];

        bench_stored(b, 24, 20 * KIB);
        bench_open(b);
        slow_set(b->blob, allowed, 0);
        parts[0] = bench_part(b, 0, 100, 0);
        parts[1] = bench_part(b, 17 * 20 * KIB + 5, 100, 0);
        assert_int_equal(fetch_start(&parts[0], 1, NULL, out[0], hold_until_all_has_come, &first, &one, NULL), 0);
        assert_int_equal(fetch_start(&parts[1], 1, NULL, out[1], count_what_is_there, &wanted, &other, NULL), 0);
        slow_set(b->blob, allowed, UINT64_MAX);
        await(atomic_load(&wanted.over) && atomic_load(&first.over));
        settle(b);
        assert_int_equal(slow_get(b->blob, opened), 1);
        assert_int_equal(wanted.there, 2);
        assert_memory_equal(out[1], b->bytes + parts[1].offset, 100);
        assert_int_equal(bench_stats(b).chunks, 24);
        fetch_read_unref(one);
        fetch_read_unref(other);
}

/* ---- slices among chunks that stand alone ---- */

#define PIECE (20 * KIB)
#define PIECES 24u

/* Of every six pieces, the second to the fifth are slices of one frame. */
static void open_frames(struct bench *b)
{
        uint64_t at = 0;

        bench_stored(b, PIECES, PIECE);
        b->blob_bytes = malloc(PIECES * (PIECE + 1000));
        assert_non_null(b->blob_bytes);
        for (size_t k = 0; k < PIECES; k++) {
                size_t in_six = k % 6, n = in_six == 1 ? 4 : 1, frame = PIECE;

                if (in_six == 1)
                        frame = ZSTD_compress(b->blob_bytes + at, n * PIECE + 1000, b->bytes + k * PIECE, n * PIECE, 1);
                else
                        memcpy(b->blob_bytes + at, b->bytes + k * PIECE, PIECE);
                assert_false(ZSTD_isError(frame));
                for (size_t i = 0; i < n; i++) {
                        struct chunk *c = &b->rows[k + i];

                        c->blob_offset = at;
                        c->blob_length = frame;
                        if (n == 1)
                                continue;
                        c->codec = CODEC_ZSTD;
                        c->flags = CHUNK_SLICE | CHUNK_DIGEST_CONTENT;
                        c->skip = i * PIECE;
                }
                at += frame;
                k += n - 1;
        }
        b->table.blob_size = at;
        bench_open(b);
}

static void slices_and_lone_chunks_share_one_request(void **state)
{
        struct bench *b = *state;

        open_frames(b);
        expect_read(b, 8 * PIECE, PIECE);
        settle(b);
        assert_int_equal(slow_get(b->blob, opened), 1);
        assert_int_equal(slow_get(b->blob, asked), b->table.blob_size);
        for (size_t k = 0; k < PIECES; k++)
                assert_true(content_has(b->content, k));
        expect_read(b, 0, PIECES * PIECE);
}

static void wrong_bytes_in_a_frame_are_asked_for_once_more_by_themselves(void **state)
{
        struct bench *b = *state;

        open_frames(b);
        slow_set(b->blob, wrong_at, b->rows[7].blob_offset + PIECE + 100);
        slow_set(b->blob, wrong, 1);
        expect_read(b, 8 * PIECE, PIECE);
        settle(b);
        assert_int_equal(bench_stats(b).refetches, 1);
        assert_int_equal(bench_stats(b).failures, 0);
        assert_int_equal(bench_stats(b).chunks, PIECES);
        /* All, the frame again, all that is left. */
        assert_int_equal(slow_get(b->blob, opened), 3);
        assert_int_equal(slow_get(b->blob, asks[1]).length, b->rows[7].blob_length);
        assert_int_equal(slow_get(b->blob, asks[2]).offset, b->rows[11].blob_offset);
}

static void bad_slice_harms_neither_its_run_nor_its_neighbours(void **state)
{
        struct bench *b = *state;

        open_frames(b);
        slow_set(b->blob, wrong_at, b->rows[7].blob_offset + PIECE + PIECE / 2);
        slow_set(b->blob, wrong, UINT32_MAX);
        expect_read(b, 0, 5);
        settle(b);
        for (size_t k = 0; k < PIECES; k++)
                assert_int_equal(content_has(b->content, k), k != 8);
        expect_no_read(b, 8 * PIECE, PIECE, EBADMSG, "digest of the content");
}

/* The first range is left before its end, and whoever filled its buffer may go on doing so. */
static void bad_slice_in_a_range_that_still_arrives_is_read_into_another_buffer(void **state)
{
        uint8_t *out = malloc(PIECE);
        struct bench *b = *state;
        struct fetch_part part;
        struct taken t;

        open_frames(b);
        part = bench_part(b, 9 * PIECE, PIECE, 0);
        slow_set(b->blob, lingers, true);
        slow_set(b->blob, wrong_at, b->rows[7].blob_offset + PIECE + PIECE / 2);
        slow_set(b->blob, wrong, 1);
        slow_set(b->blob, allowed, b->rows[7].blob_offset + 3 * PIECE + PIECE / 2);
        taken_start(&t, &part, 1, NULL, out);
        await(slow_get(b->blob, opened) == 2);
        slow_set(b->blob, allowed, UINT64_MAX);
        assert_int_equal(taken_await(&t), 0);
        assert_memory_equal(out, b->bytes + 9 * PIECE, PIECE);
        taken_end(&t);
        settle(b);
        slow_set(b->blob, lingers, false);
        expect_read(b, 0, PIECES * PIECE);
        free(out);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                bench_test(forward_reader_gets_every_byte_once_in_large_requests),
                bench_test(backward_reader_gets_every_byte_once_in_large_requests),
                bench_test(random_reader_gets_every_byte_once_in_large_requests),
                bench_test(parallel_readers_get_every_byte_once_in_large_requests),
                bench_test(parallel_random_readers_get_every_byte_once_in_large_requests),
                bench_test(first_miss_is_modest),
                bench_test(two_misses_apart_take_a_mebibyte),
                bench_test(large_chunk_comes_alone_at_first),
                bench_test(small_layer_is_one_request),
                bench_test(what_is_waited_for_does_not_wait_for_a_long_window),
                bench_test(sequential_reader_seldom_waits),
                bench_test(nothing_is_taken_along_where_nothing_is_kept),
                bench_test(present_chunks_are_not_fetched_again),
                bench_test(one_small_chunk_that_is_there_does_not_cut_a_request_in_two),
                bench_test(many_small_chunks_that_are_there_are_left_out),
                bench_test(bad_neighbour_harms_nobody),
                bench_test(chunk_that_has_come_does_not_wait_for_its_neighbours),
                bench_test(slices_and_lone_chunks_share_one_request),
                bench_test(wrong_bytes_in_a_frame_are_asked_for_once_more_by_themselves),
                bench_test(bad_slice_harms_neither_its_run_nor_its_neighbours),
                bench_test(bad_slice_in_a_range_that_still_arrives_is_read_into_another_buffer),
        };

        return cmocka_run_group_tests_name("fetch_windows", tests, NULL, NULL);
}
