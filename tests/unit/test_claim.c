/* SPDX-License-Identifier: Apache-2.0 */

/* Flights where other processes fetch the same layer. Another opening of its content stands for such a process: locks
 * belong to open file descriptions. */

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "fetch_fixture.h"

#define LENGTH 50000u

static void open_with_other(struct bench *b, size_t count, uint32_t length, struct other *o)
{
        bench_stored(b, count, length);
        bench_open(b);
        assert_int_equal(other_open(b, o), 0);
}

static void start(struct bench *b, struct taken *t, size_t chunk, uint8_t *out)
{
        struct fetch_part part = bench_part(b, chunk * b->rows[0].content_length, b->rows[0].content_length, 0);

        taken_start(t, &part, 1, NULL, out);
}

static void claimed_chunk_comes_from_the_process_that_fetches_it(void **state)
{
        uint8_t *out = malloc(LENGTH);
        struct bench *b = *state;
        struct taken t;
        struct other o;

        open_with_other(b, 1, LENGTH, &o);
        other_claim(&o, 0, 1);
        start(b, &t, 0, out);
        settle(b);
        assert_int_equal(taken_done_count(&t), 0);
        assert_int_equal(buffers_out(b->pool), 0);

        assert_int_equal(content_write(o.content, 0, b->bytes), 0);
        content_release(o.content, 0, 1);
        assert_int_equal(taken_await(&t), 0);
        assert_memory_equal(out, b->bytes, LENGTH);
        assert_int_equal(slow_get(b->blob, opened), 0);
        taken_end(&t);
        other_close(&o);
        free(out);
}

static void claim_that_brought_nothing_is_taken_over(void **state)
{
        uint8_t *out = malloc(LENGTH);
        struct bench *b = *state;
        struct taken t;
        struct other o;

        open_with_other(b, 1, LENGTH, &o);
        other_claim(&o, 0, 1);
        start(b, &t, 0, out);
        settle(b);
        assert_int_equal(slow_get(b->blob, opened), 0);
        content_release(o.content, 0, 1);
        assert_int_equal(taken_await(&t), 0);
        assert_memory_equal(out, b->bytes, LENGTH);
        assert_int_equal(slow_get(b->blob, opened), 1);
        taken_end(&t);
        other_close(&o);
        free(out);
}

static void claim_of_a_process_that_hangs_is_passed_by(void **state)
{
        struct bench *b = *state;
        struct other o;

        b->timeout_ms = 100;
        open_with_other(b, 3, LENGTH, &o);
        other_claim(&o, 0, 3);
        expect_read(b, 0, 3 * LENGTH);
        assert_int_equal(slow_get(b->blob, twice), 0);
        other_close(&o);
}

/* The child has chunk 0 claimed, and says so, until it is killed. */
static pid_t start_claimer(struct bench *b)
{
        int ready[2];
        char byte;
        pid_t pid;

        assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
        fflush(NULL);
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
                struct other o;
                size_t taken;

                CHECK(other_open(b, &o) == 0);
                CHECK(content_claim(o.content, 0, 1, &taken) == 0);
                CHECK(write(ready[1], "x", 1) == 1);
                for (;;)
                        pause();
        }
        close(ready[1]);
        assert_int_equal(read(ready[0], &byte, 1), 1);
        close(ready[0]);
        return pid;
}

static void killed_process_leaves_no_claim(void **state)
{
        uint8_t *out = malloc(LENGTH);
        struct bench *b = *state;
        struct taken t;
        pid_t pid;

        bench_stored(b, 1, LENGTH);
        pid = start_claimer(b);
        bench_open(b);
        start(b, &t, 0, out);
        settle(b);
        assert_int_equal(slow_get(b->blob, opened), 0);
        assert_int_equal(kill(pid, SIGKILL), 0);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        assert_int_equal(taken_await(&t), 0);
        assert_memory_equal(out, b->bytes, LENGTH);
        taken_end(&t);
        free(out);
}

static void neighbours_that_others_fetch_are_left_to_them(void **state)
{
        struct bench *b = *state;
        struct other o;

        open_with_other(b, 10, LENGTH, &o);
        other_claim(&o, 5, 7);
        expect_read(b, 0, LENGTH);
        settle(b);
        /* Before the claim and behind it, two requests. */
        assert_int_equal(slow_get(b->blob, opened), 2);
        assert_int_equal(slow_get(b->blob, asked), 8 * LENGTH);
        for (size_t i = 0; i < 10; i++)
                assert_int_equal(content_has(b->content, i), i != 5 && i != 6);
        other_close(&o);
}

static void flight_keeps_its_claim_while_it_runs(void **state)
{
        uint8_t *out = malloc(LENGTH);
        struct bench *b = *state;
        struct taken t;
        struct other o;
        size_t taken;

        open_with_other(b, 4, LENGTH, &o);
        slow_set(b->blob, allowed, 0);
        start(b, &t, 0, out);
        await(slow_get(b->blob, opened) == 1);
        assert_int_equal(content_claim(o.content, 0, 10, &taken), -EAGAIN);
        assert_int_equal(taken, 4);
        slow_set(b->blob, allowed, UINT64_MAX);
        assert_int_equal(taken_await(&t), 0);
        settle(b);
        other_claim(&o, 0, 4);
        taken_end(&t);
        other_close(&o);
        free(out);
}

static void flights_that_wait_take_no_thread(void **state)
{
        enum { COUNT = 24 };
        const uint32_t length = 600000;
        struct bench *b = *state;
        struct taken t[COUNT];
        uint8_t *out = malloc((size_t) COUNT * length);
        struct other o;

        open_with_other(b, COUNT + 1, length, &o);
        other_claim(&o, 0, COUNT);
        for (size_t k = 0; k < COUNT; k++)
                start(b, &t[k], k, out + k * length);
        settle(b);
        expect_read(b, (uint64_t) COUNT * length, length);
        for (size_t k = 0; k < COUNT; k++)
                assert_int_equal(taken_done_count(&t[k]), 0);
        for (size_t k = 0; k < COUNT; k++)
                assert_int_equal(content_write(o.content, k, b->bytes + k * length), 0);
        for (size_t k = 0; k < COUNT; k++) {
                assert_int_equal(taken_await(&t[k]), 0);
                taken_end(&t[k]);
        }
        assert_memory_equal(out, b->bytes, (size_t) COUNT * length);
        assert_int_equal(slow_get(b->blob, asked), length);
        other_close(&o);
        free(out);
}

static void fetcher_ends_although_a_flight_waits(void **state)
{
        uint8_t *out = malloc(LENGTH);
        struct bench *b = *state;
        struct taken t;
        struct other o;

        b->timeout_ms = 3600000;
        open_with_other(b, 1, LENGTH, &o);
        other_claim(&o, 0, 1);
        start(b, &t, 0, out);
        settle(b);
        fetch_cancel(t.read);
        assert_int_equal(taken_await(&t), -EINTR);
        taken_end(&t);
        b->fetcher = fetcher_free(b->fetcher);
        assert_int_equal(slow_get(b->blob, opened), 0);
        other_close(&o);
        free(out);
}

/* Two processes, each reading everything in its own order. */
struct reader {
        struct bench *bench;
        struct fetcher *fetcher;
        pthread_t thread;
        size_t step;
        int result;
};

static void *reader_run(void *arg)
{
        struct reader *r = arg;
        size_t count = r->bench->table.chunk_count;
        _cleanup_free_ uint8_t *out = malloc(LENGTH);

        for (size_t k = 0; k < count && r->result == 0; k++) {
                size_t i = k * r->step % count;
                struct fetch_part part = { .fetcher = r->fetcher, .offset = (uint64_t) i * LENGTH, .length = LENGTH };

                r->result = fetch_wait(&part, 1, out, NULL);
                if (r->result == 0 && memcmp(out, r->bench->bytes + (size_t) i * LENGTH, LENGTH) != 0)
                        r->result = -EILSEQ;
        }
        return NULL;
}

static void two_processes_fetch_everything_once(void **state)
{
        struct bench *b = *state;
        struct reader readers[2] = { { .bench = b, .step = 1 }, { .bench = b, .step = 29 } };
        struct fetcher *fetcher = NULL;
        struct other o;

        open_with_other(b, 100, LENGTH, &o);
        const struct fetcher_options options = {
                .blob = &b->blob->blob,
                .table = &b->table,
                .content = o.content,
                .pool = b->pool,
                .workers = b->workers,
                .timeout_ms = b->timeout_ms,
        };

        assert_int_equal(fetcher_new(&options, &fetcher, NULL), 0);
        readers[0].fetcher = b->fetcher;
        readers[1].fetcher = fetcher;
        for (size_t k = 0; k < 2; k++)
                assert_int_equal(thread_start(&readers[k].thread, "reader", reader_run, &readers[k]), 0);
        for (size_t k = 0; k < 2; k++) {
                pthread_join(readers[k].thread, NULL);
                assert_int_equal(readers[k].result, 0);
        }
        fetcher_free(fetcher);
        settle(b);
        assert_true(slow_get(b->blob, asked) <= (uint64_t) 100 * LENGTH * 105 / 100);
        other_close(&o);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                bench_test(claimed_chunk_comes_from_the_process_that_fetches_it),
                bench_test(claim_that_brought_nothing_is_taken_over),
                bench_test(claim_of_a_process_that_hangs_is_passed_by),
                bench_test(killed_process_leaves_no_claim),
                bench_test(neighbours_that_others_fetch_are_left_to_them),
                bench_test(flight_keeps_its_claim_while_it_runs),
                bench_test(flights_that_wait_take_no_thread),
                bench_test(fetcher_ends_although_a_flight_waits),
                bench_test(two_processes_fetch_everything_once),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
