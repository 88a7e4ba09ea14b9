/* SPDX-License-Identifier: Apache-2.0 */

/* Bringing a layer into the store: each byte once, a few flights at a time. */

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "fetch_fixture.h"

#define COUNT 40u
#define LENGTH ((uint32_t) MIB)

/* What was told of progress. */
struct told {
        struct bench *bench;
        unsigned calls;
        uint64_t last;
        bool backwards;
        uint64_t stop_at; /* ends it once so many bytes are there */
};

static int on_progress(void *context, uint64_t done)
{
        struct told *t = context;

        t->calls++;
        t->backwards = t->backwards || done < t->last;
        t->last = done;
        return done >= t->stop_at;
}

static struct told telling(struct bench *b)
{
        return (struct told) { .bench = b, .stop_at = UINT64_MAX };
}

static int fill(struct bench *b, struct told *t, const uint8_t *wanted, struct error *e)
{
        const struct fetch_fill f = {
                .wanted = wanted, .priority = PRIORITY_READAHEAD, .progress = on_progress, .context = t
        };

        return fetch_fill(b->fetcher, &f, e);
}

static uint64_t there(struct bench *b, const uint8_t *wanted, uint64_t *ret_total)
{
        const struct fetch_fill f = { .wanted = wanted };
        uint64_t present;

        fetch_fill_size(b->fetcher, &f, ret_total, &present);
        return present;
}

static bool all_there(struct bench *b)
{
        uint64_t total, present = there(b, NULL, &total);

        return present == total && total == COUNT * LENGTH;
}

static void open_forty(struct bench *b)
{
        b->pool_limit = 64 * MIB;
        bench_stored(b, COUNT, LENGTH);
        bench_open(b);
}

static void fill_brings_everything_once(void **state)
{
        struct bench *b = *state;
        struct told t = telling(b);
        struct error e = ERROR_INIT;
        uint64_t total;

        open_forty(b);
        assert_int_equal(there(b, NULL, &total), 0);
        assert_int_equal(total, COUNT * LENGTH);
        if (fill(b, &t, NULL, &e) < 0)
                fail_msg("%s", e.message);
        assert_true(all_there(b));
        assert_int_equal(t.last, total);
        assert_false(t.backwards);
        settle(b);
        assert_int_equal(b->blob->asked, total);
        assert_int_equal(b->blob->twice, 0);
        for (size_t k = 0; k < COUNT; k++)
                assert_true(content_has(b->content, k));
}

static void fill_does_not_fetch_what_is_there(void **state)
{
        struct bench *b = *state;
        struct told t = telling(b);

        open_forty(b);
        for (size_t k = 0; k < COUNT; k += 3)
                assert_int_equal(content_write(b->content, k, b->bytes + k * LENGTH), 0);
        assert_int_equal(fill(b, &t, NULL, NULL), 0);
        settle(b);
        assert_int_equal(b->blob->asked, (COUNT - (COUNT + 2) / 3) * LENGTH);
        assert_int_equal(t.last, COUNT * LENGTH);
        /* And again: nothing at all. */
        assert_int_equal(fill(b, &t, NULL, NULL), 0);
        assert_int_equal(b->blob->asked, (COUNT - (COUNT + 2) / 3) * LENGTH);
}

static void fill_brings_what_is_wanted_and_nothing_else(void **state)
{
        struct bench *b = *state;
        struct told t = telling(b);
        uint8_t wanted[COUNT] = { 0 };
        uint64_t total;

        open_forty(b);
        wanted[0] = wanted[7] = wanted[8] = wanted[COUNT - 1] = 1;
        assert_int_equal(there(b, wanted, &total), 0);
        assert_int_equal(total, 4 * LENGTH);
        assert_int_equal(fill(b, &t, wanted, NULL), 0);
        settle(b);
        assert_int_equal(b->blob->asked, 4 * LENGTH);
        for (size_t k = 0; k < COUNT; k++)
                assert_int_equal(content_has(b->content, k), wanted[k]);
}

static void fill_goes_on_where_it_was_interrupted(void **state)
{
        struct bench *b = *state;
        struct told t = telling(b);
        struct error e = ERROR_INIT;

        open_forty(b);
        t.stop_at = COUNT * LENGTH / 2;
        assert_int_equal(fill(b, &t, NULL, &e), -ECANCELED);
        settle(b);
        assert_true(b->blob->asked < COUNT * LENGTH);
        t = telling(b);
        assert_int_equal(fill(b, &t, NULL, &e), 0);
        settle(b);
        assert_true(all_there(b));
        assert_int_equal(b->blob->asked, COUNT * LENGTH);
        assert_int_equal(b->blob->twice, 0);
}

static void few_flights_are_under_way_at_once(void **state)
{
        struct bench *b = *state;
        struct told t = telling(b);

        open_forty(b);
        slow_set(b->blob, allowed, 0);
        t.stop_at = 0;
        assert_int_equal(fill(b, &t, NULL, NULL), -ECANCELED);
        assert_int_equal(bench_stats(b).flights, 0);
        slow_set(b->blob, allowed, UINT64_MAX);
        t = telling(b);
        t.stop_at = 1;
        assert_int_equal(fill(b, &t, NULL, NULL), -ECANCELED);
        /* Four steps of 4 MiB, and perhaps the one after the first. */
        assert_true(bench_stats(b).flights <= 2 * 4 + 1);
}

static void fill_says_what_failed(void **state)
{
        struct bench *b = *state;
        struct told t = telling(b);
        struct error e = ERROR_INIT;

        open_forty(b);
        slow_set(b->blob, open_failure, -ECONNREFUSED);
        assert_int_equal(fill(b, &t, NULL, &e), -ECONNREFUSED);
        assert_true(*e.message);
        slow_set(b->blob, open_failure, 0);
        settle(b);
        assert_int_equal(fill(b, &t, NULL, &e), 0);
}

static void fill_says_what_is_wrong(void **state)
{
        struct bench *b = *state;
        struct told t = telling(b);
        struct error e = ERROR_INIT;

        open_forty(b);
        slow_set(b->blob, wrong_at, 5 * LENGTH);
        slow_set(b->blob, wrong, 100);
        assert_int_equal(fill(b, &t, NULL, &e), -EBADMSG);
        assert_non_null(strstr(e.message, "5242880-6291455"));
}

static void fill_of_a_store_that_keeps_nothing_fails(void **state)
{
        struct bench *b = *state;
        struct told t = telling(b);
        struct error e = ERROR_INIT;

        b->unwritable = true;
        open_forty(b);
        assert_int_equal(fill(b, &t, NULL, &e), -EROFS);
        assert_int_equal(b->blob->asked, 0);
}

static void fill_beside_readers_fetches_nothing_twice(void **state)
{
        struct bench *b = *state;
        struct fetch_part part;
        struct told t = telling(b);
        struct taken read;
        _cleanup_free_ uint8_t *out = malloc(COUNT * LENGTH);

        assert_non_null(out);
        open_forty(b);
        slow_set(b->blob, allowed, 0);
        part = bench_part(b, 3 * LENGTH, 20 * LENGTH, 0);
        taken_start(&read, &part, 1, NULL, out);
        slow_set(b->blob, allowed, UINT64_MAX);
        assert_int_equal(fill(b, &t, NULL, NULL), 0);
        assert_int_equal(taken_await(&read), 0);
        taken_end(&read);
        settle(b);
        assert_true(all_there(b));
        assert_int_equal(b->blob->twice, 0);
}

/* ---- beside another process ---- */

#define CLAIMED_FIRST 9
#define CLAIMED_END 21
#define CALLS 30

/* The other process has claimed chunks, and lets go of them after a while. */
struct claimer {
        struct bench *bench;
        struct other other;
        bool brings; /* and not gone */
        unsigned calls;
};

static void open_claimed(struct bench *b, struct other *o)
{
        open_forty(b);
        assert_int_equal(other_open(b, o), 0);
        other_claim(o, CLAIMED_FIRST, CLAIMED_END);
}

static int lets_go(void *context, uint64_t done _unused_)
{
        struct claimer *c = context;

        if (++c->calls != CALLS)
                return 0;
        for (size_t k = CLAIMED_FIRST; k < CLAIMED_END && c->brings; k++)
                assert_int_equal(content_write(c->other.content, k, c->bench->bytes + k * LENGTH), 0);
        content_release(c->other.content, CLAIMED_FIRST, CLAIMED_END);
        return 0;
}

static uint64_t fill_beside(struct bench *b, bool brings)
{
        struct claimer c = { .bench = b, .brings = brings };
        const struct fetch_fill f = { .priority = PRIORITY_READAHEAD, .progress = lets_go, .context = &c };
        struct error e = ERROR_INIT;

        open_claimed(b, &c.other);
        if (fetch_fill(b->fetcher, &f, &e) < 0)
                fail_msg("%s", e.message);
        settle(b);
        assert_true(c.calls >= CALLS);
        assert_true(all_there(b));
        other_close(&c.other);
        return b->blob->asked;
}

static void fill_waits_for_what_another_process_fetches(void **state)
{
        assert_int_equal(fill_beside(*state, true), (COUNT - (CLAIMED_END - CLAIMED_FIRST)) * LENGTH);
}

static void fill_brings_what_another_process_did_not(void **state)
{
        assert_int_equal(fill_beside(*state, false), COUNT * LENGTH);
}

/* It hangs, and its claim stays. */
static void fill_does_not_wait_for_ever_for_another_process(void **state)
{
        struct bench *b = *state;
        struct other o;
        const struct fetch_fill f = { .priority = PRIORITY_READAHEAD };
        struct error e = ERROR_INIT;

        b->timeout_ms = 200;
        open_claimed(b, &o);
        if (fetch_fill(b->fetcher, &f, &e) < 0)
                fail_msg("%s", e.message);
        settle(b);
        assert_true(all_there(b));
        assert_int_equal(b->blob->asked, COUNT * LENGTH);
        other_close(&o);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                bench_test(fill_brings_everything_once),
                bench_test(fill_does_not_fetch_what_is_there),
                bench_test(fill_brings_what_is_wanted_and_nothing_else),
                bench_test(fill_goes_on_where_it_was_interrupted),
                bench_test(few_flights_are_under_way_at_once),
                bench_test(fill_says_what_failed),
                bench_test(fill_says_what_is_wrong),
                bench_test(fill_of_a_store_that_keeps_nothing_fails),
                bench_test(fill_beside_readers_fetches_nothing_twice),
                bench_test(fill_waits_for_what_another_process_fetches),
                bench_test(fill_brings_what_another_process_did_not),
                bench_test(fill_does_not_wait_for_ever_for_another_process),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
