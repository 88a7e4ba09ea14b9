/* SPDX-License-Identifier: Apache-2.0 */

/* Who waits for whom, who may leave early, and whose memory is written to when. */

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "fetch_fixture.h"

#define LENGTH 50000u
#define CROWD 64

static void open_stored(struct bench *b, size_t count)
{
        bench_stored(b, count, LENGTH);
        bench_open(b);
}

/* ---- many readers ---- */

struct reader {
        struct bench *bench;
        pthread_t thread;
        size_t offset, length;
        int result;
        struct error error;
};

static void *reader_run(void *arg)
{
        struct reader *r = arg;

        r->result = bench_read(r->bench, r->offset, r->length, &r->error);
        return NULL;
}

static void crowd_that_reads_one_absent_chunk_makes_one_flight(void **state)
{
        struct bench *b = *state;
        struct reader readers[CROWD];

        open_stored(b, 1);
        slow_set(b->blob, allowed, 0);
        for (size_t k = 0; k < CROWD; k++) {
                readers[k] = (struct reader) { .bench = b, .offset = k, .length = LENGTH - 2 * k };
                assert_int_equal(thread_start(&readers[k].thread, "reader", reader_run, &readers[k]), 0);
        }
        await(bench_stats(b).joined == CROWD - 1);
        slow_set(b->blob, allowed, UINT64_MAX);
        for (size_t k = 0; k < CROWD; k++) {
                pthread_join(readers[k].thread, NULL);
                assert_int_equal(readers[k].result, 0);
        }
        assert_int_equal(bench_stats(b).flights, 1);
        assert_int_equal(slow_get(b->blob, opened), 1);
}

static void *reader_of_everything(void *arg)
{
        struct reader *r = arg;
        uint64_t at = r->offset;

        for (size_t k = 0; k < 200 && r->result == 0; k++) {
                at = at * 6364136223846793005u + 1442695040888963407u;
                r->result = bench_read(r->bench, at % (40 * LENGTH - 30000), 1 + at % 29999, &r->error);
        }
        return NULL;
}

static void crowd_that_reads_everything_fetches_every_chunk_once(void **state)
{
        struct bench *b = *state;
        struct reader readers[16];

        open_stored(b, 40);
        for (size_t k = 0; k < ELEMENTSOF(readers); k++) {
                readers[k] = (struct reader) { .bench = b, .offset = k };
                assert_int_equal(thread_start(&readers[k].thread, "reader", reader_of_everything, &readers[k]), 0);
        }
        for (size_t k = 0; k < ELEMENTSOF(readers); k++) {
                pthread_join(readers[k].thread, NULL);
                if (readers[k].result < 0)
                        fail_msg("%s %s", strerror(-readers[k].result), readers[k].error.message);
        }
        await(bench_stats(b).chunks >= 40);
        assert_int_equal(slow_get(b->blob, asked), 40 * LENGTH);
        assert_int_equal(bench_stats(b).chunks, 40);
}

/* ---- leaving early ---- */

static void cancelled_read_is_done_once_and_its_flight_goes_on(void **state)
{
        struct bench *b = *state;
        struct fetch_part part;
        struct pool *own = NULL;
        struct pool_buf *buffer = NULL;
        uint8_t *out;
        struct taken t;

        open_stored(b, 3);
        assert_int_equal(pool_new(MIB, &own), 0);
        assert_int_equal(pool_get(own, 3 * LENGTH, DEADLINE_NEVER, &buffer, NULL), 0);
        out = buffer->data;
        slow_set(b->blob, allowed, LENGTH);
        part = bench_part(b, 0, 3 * LENGTH, 0);
        taken_start(&t, &part, 1, buffer, out);
        await(content_has(b->content, 0));

        fetch_cancel(t.read);
        assert_int_equal(taken_done_count(&t), 1);
        assert_int_equal(taken_await(&t), -EINTR);
        assert_non_null(strstr(t.error.message, "interrupted"));
        fetch_cancel(t.read);

        /* Nothing is written to the reader's memory any more; only the test holds it. */
        memset(out, 0x11, 3 * LENGTH);
        slow_set(b->blob, allowed, UINT64_MAX);
        await(content_has(b->content, 1) && content_has(b->content, 2));
        b->fetcher = fetcher_free(b->fetcher);
        for (size_t k = 0; k < 3 * LENGTH; k++)
                assert_int_equal(out[k], 0x11);
        pool_buf_unref(buffer);
        assert_int_equal(buffers_out(own), 0);
        assert_int_equal(taken_done_count(&t), 1);
        assert_int_equal(slow_get(b->blob, opened), 1);
        taken_end(&t);
        pool_free(own);
}

static void cancelled_read_gives_its_buffer_back_at_once(void **state)
{
        struct bench *b = *state;
        struct fetch_part part;
        struct pool *own = NULL;
        struct pool_buf *buffer = NULL;
        struct taken t;

        open_stored(b, 1);
        assert_int_equal(pool_new(MIB, &own), 0);
        assert_int_equal(pool_get(own, LENGTH, DEADLINE_NEVER, &buffer, NULL), 0);
        slow_set(b->blob, allowed, 0);
        part = bench_part(b, 0, LENGTH, 0);
        taken_start(&t, &part, 1, buffer, buffer->data);
        pool_buf_unref(buffer);
        assert_int_equal(buffers_out(own), 1);
        fetch_cancel(t.read);
        assert_int_equal(buffers_out(own), 0);
        taken_end(&t);
        pool_free(own);
}

static void *cancel_run(void *arg)
{
        fetch_cancel(arg);
        return NULL;
}

static void read_that_is_cancelled_while_it_ends_is_done_once(void **state)
{
        struct bench *b = *state;
        uint8_t *out = malloc(LENGTH);

        open_stored(b, 100);
        for (size_t k = 0; k < 100; k++) {
                struct fetch_part part = bench_part(b, k * LENGTH, LENGTH, 0);
                pthread_t thread;
                struct taken t;
                int result;

                taken_start(&t, &part, 1, NULL, out);
                assert_int_equal(thread_start(&thread, "cancel", cancel_run, t.read), 0);
                result = taken_await(&t);
                assert_true(result == 0 || result == -EINTR);
                if (result == 0)
                        assert_memory_equal(out, b->bytes + k * LENGTH, LENGTH);
                pthread_join(thread, NULL);
                await(content_has(b->content, k));
                assert_int_equal(taken_done_count(&t), 1);
                taken_end(&t);
        }
        free(out);
}

/* ---- memory that is gone ---- */

struct ephemeral {
        struct fetch_read *read;
        uint8_t *out;
        struct mutex lock;
        struct cond changed;
        unsigned done GUARDED_BY(lock);
        int result GUARDED_BY(lock);
};

/* Frees what the read writes to, and lets go of the read, from within done. */
static void ephemeral_done(void *context, int result, const struct error *e _unused_)
{
        struct ephemeral *x = context;

        free(x->out);
        fetch_read_unref(x->read);
        mutex_lock(&x->lock);
        x->done++;
        x->result = result;
        cond_broadcast(&x->changed);
        mutex_unlock(&x->lock);
}

/* Reads COUNT chunks from FIRST on, into memory that is freed when the read is done. */
static int read_ephemeral(struct bench *b, size_t first, size_t count)
{
        struct fetch_part parts[2];
        struct ephemeral x = { .out = malloc(count * LENGTH) };
        int result;

        mutex_init(&x.lock);
        cond_init(&x.changed);
        parts[0] = bench_part(b, first * LENGTH, LENGTH / 2, 0);
        parts[1] = bench_part(b, first * LENGTH + LENGTH / 2, count * LENGTH - LENGTH / 2, LENGTH / 2);
        assert_int_equal(fetch_start(parts, 2, NULL, x.out, ephemeral_done, &x, &x.read, NULL), 0);
        mutex_lock(&x.lock);
        while (x.done == 0)
                cond_wait(&x.changed, &x.lock);
        assert_int_equal(x.done, 1);
        result = x.result;
        mutex_unlock(&x.lock);
        cond_destroy(&x.changed);
        mutex_destroy(&x.lock);
        return result;
}

static void read_that_is_done_is_neither_written_to_nor_held(void **state)
{
        struct bench *b = *state;

        open_stored(b, 200);
        for (size_t k = 0; k + 4 <= 200; k += 4)
                assert_int_equal(read_ephemeral(b, k, 4), 0);
}

static void read_that_fails_while_it_starts_is_neither_written_to_nor_held(void **state)
{
        struct bench *b = *state;

        open_stored(b, 200);
        slow_set(b->blob, open_failure, -ECONNREFUSED);
        for (size_t k = 0; k < 100; k++)
                assert_int_equal(read_ephemeral(b, k, 100), -ECONNREFUSED);
}

/* ---- transfers that go on ---- */

static void abandoned_transfer_keeps_its_buffer_and_harms_nobody(void **state)
{
        struct bench *b = *state;
        struct fetch_part part;
        uint8_t *out = malloc(4 * LENGTH);
        struct taken t;

        open_stored(b, 4);
        /* The first chunk is wrong, so the range is left alone half way; its producer does not know and writes on. */
        slow_set(b->blob, lingers, true);
        slow_set(b->blob, wrong_at, 10);
        slow_set(b->blob, wrong, 1);
        slow_set(b->blob, allowed, LENGTH);
        part = bench_part(b, 0, 4 * LENGTH, 0);
        taken_start(&t, &part, 1, NULL, out);
        slow_await(b->blob, lingering, 1);
        slow_set(b->blob, allowed, UINT64_MAX);
        assert_int_equal(taken_await(&t), 0);
        assert_memory_equal(out, b->bytes, 4 * LENGTH);
        taken_end(&t);

        /* The buffer that it writes to is out as long as it does, and nobody else got it. */
        b->fetcher = fetcher_free(b->fetcher);
        assert_true(buffers_out(b->pool) >= 1);
        slow_set(b->blob, lingers, false);
        slow_await(b->blob, producers, 0);
        assert_int_equal(buffers_out(b->pool), 0);
        free(out);
}

static void transfer_that_timed_out_keeps_its_buffer(void **state)
{
        struct bench *b = *state;
        unsigned reads = 0;

        b->timeout_ms = 20;
        open_stored(b, 2);
        slow_set(b->blob, lingers, true);
        slow_set(b->blob, allowed, 1000);
        for (; reads < 5; reads++)
                expect_no_read(b, 0, 2 * LENGTH, ETIMEDOUT, "the bytes do not come");
        b->fetcher = fetcher_free(b->fetcher);
        slow_await(b->blob, lingering, reads);
        assert_int_equal(buffers_out(b->pool), reads);

        /* Others go on meanwhile. */
        b->timeout_ms = 20000;
        b->fetcher = bench_fetcher(b);
        slow_set(b->blob, allowed, UINT64_MAX);
        expect_read(b, 0, 2 * LENGTH);
        b->fetcher = fetcher_free(b->fetcher);
        slow_set(b->blob, lingers, false);
        slow_await(b->blob, producers, 0);
        assert_int_equal(buffers_out(b->pool), 0);
}

static void interrupted_reads_of_a_slow_blob_leave_nothing_behind(void **state)
{
        struct bench *b = *state;
        struct taken t[20];
        struct fetch_part parts[20];
        uint8_t *out[20];

        open_stored(b, 20);
        slow_set(b->blob, lingers, true);
        slow_set(b->blob, allowed, 0);
        for (size_t k = 0; k < 20; k++) {
                out[k] = malloc(LENGTH);
                parts[k] = bench_part(b, k * LENGTH, LENGTH, 0);
                taken_start(&t[k], &parts[k], 1, NULL, out[k]);
        }
        for (size_t k = 0; k < 20; k++) {
                fetch_cancel(t[k].read);
                assert_int_equal(taken_await(&t[k]), -EINTR);
                taken_end(&t[k]);
                free(out[k]);
        }
        slow_set(b->blob, allowed, UINT64_MAX);
        b->fetcher = fetcher_free(b->fetcher);
        for (size_t k = 0; k < 20; k++)
                assert_true(content_has(b->content, k));
        slow_set(b->blob, lingers, false);
        slow_await(b->blob, producers, 0);
        assert_int_equal(buffers_out(b->pool), 0);
}

/* ---- the end ---- */

static void *free_run(void *arg)
{
        struct bench *b = arg;

        b->fetcher = fetcher_free(b->fetcher);
        return NULL;
}

static void end_waits_for_flights_under_way(void **state)
{
        struct bench *b = *state;
        struct fetcher *f;
        pthread_t thread;

        open_stored(b, 4);
        f = b->fetcher;
        slow_set(b->blob, allowed, 0);
        fetch_ahead(f, 0, 4 * LENGTH, PRIORITY_BACKGROUND);
        slow_await(b->blob, opened, 1);
        assert_int_equal(thread_start(&thread, "free", free_run, b), 0);
        slow_set(b->blob, allowed, UINT64_MAX);
        pthread_join(thread, NULL);
        for (size_t k = 0; k < 4; k++)
                assert_true(content_has(b->content, k));
}

static void reader_raises_what_was_fetched_ahead(void **state)
{
        struct bench *b = *state;
        struct workers_stats w;
        struct fetch_part part;
        struct taken t;
        uint8_t out;

        open_stored(b, 100);
        slow_set(b->blob, allowed, 0);
        /* All threads that may do it are busy with the background; one more flight waits in line. */
        for (size_t k = 0; k < 5; k++)
                fetch_ahead(b->fetcher, 2 * k * LENGTH, LENGTH, PRIORITY_BACKGROUND);
        do {
                nap();
                workers_get_stats(b->workers, &w);
        } while (w.busy[PRIORITY_BACKGROUND] < 4 || w.queued[PRIORITY_BACKGROUND] != 1);

        part = bench_part(b, 8 * LENGTH, 1, 0);
        taken_start(&t, &part, 1, NULL, &out);
        slow_await(b->blob, opened, 5);
        assert_int_equal(bench_stats(b).flights, 5);
        slow_set(b->blob, allowed, UINT64_MAX);
        assert_int_equal(taken_await(&t), 0);
        taken_end(&t);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                bench_test(crowd_that_reads_one_absent_chunk_makes_one_flight),
                bench_test(crowd_that_reads_everything_fetches_every_chunk_once),
                bench_test(cancelled_read_is_done_once_and_its_flight_goes_on),
                bench_test(cancelled_read_gives_its_buffer_back_at_once),
                bench_test(read_that_is_cancelled_while_it_ends_is_done_once),
                bench_test(read_that_is_done_is_neither_written_to_nor_held),
                bench_test(read_that_fails_while_it_starts_is_neither_written_to_nor_held),
                bench_test(abandoned_transfer_keeps_its_buffer_and_harms_nobody),
                bench_test(transfer_that_timed_out_keeps_its_buffer),
                bench_test(interrupted_reads_of_a_slow_blob_leave_nothing_behind),
                bench_test(end_waits_for_flights_under_way),
                bench_test(reader_raises_what_was_fetched_ahead),
        };

        return cmocka_run_group_tests_name("fetch_threads", tests, NULL, NULL);
}
