/* SPDX-License-Identifier: Apache-2.0 */

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "regfs/pool.h"

#define LIMIT (8 * MIB)

static struct pool *new_pool(size_t limit)
{
        struct pool *p = NULL;

        assert_int_equal(pool_new(limit, &p), 0);
        return p;
}

static struct pool_buf *get(struct pool *p, size_t size)
{
        struct error e = ERROR_INIT;
        struct pool_buf *b = NULL;

        assert_int_equal(pool_get(p, size, deadline_in(10000), &b, &e), 0);
        assert_non_null(b);
        assert_int_equal(b->size, size);
        return b;
}

static struct pool_stats stats(struct pool *p)
{
        struct pool_stats s;

        pool_get_stats(p, &s);
        return s;
}

/* Until COUNT calls have been made: each has its buffer by then, or waits for room. */
static void await_gets(struct pool *p, uint64_t count)
{
        while (stats(p).gets != count)
                nanosleep(&(struct timespec) { .tv_nsec = 100000 }, NULL);
}

/* A pool_get in a thread of its own. */
struct getter {
        struct pool *pool;
        size_t size;
        deadline_t deadline;
        pthread_t thread;
        int result;
        struct pool_buf *buffer;
        struct error error;
        unsigned *turn; /* counts up with each success, if given */
        unsigned order;
};

static void *getter_run(void *arg)
{
        struct getter *g = arg;

        g->result = pool_get(g->pool, g->size, g->deadline, &g->buffer, &g->error);
        if (g->result == 0 && g->turn)
                g->order = __atomic_add_fetch(g->turn, 1, __ATOMIC_SEQ_CST);
        return NULL;
}

static void getter_start(struct getter *g, struct pool *p, size_t size)
{
        uint64_t gets = stats(p).gets;

        g->pool = p;
        g->size = size;
        if (g->deadline == 0)
                g->deadline = DEADLINE_NEVER;
        assert_int_equal(thread_start(&g->thread, "test-getter", getter_run, g), 0);
        await_gets(p, gets + 1);
}

static void getter_join(struct getter *g)
{
        assert_int_equal(pthread_join(g->thread, NULL), 0);
}

static void pool_returns_buffer_with_last_holder(void **state _unused_)
{
        struct pool *p = new_pool(LIMIT);
        struct pool_buf *b = get(p, 100000);

        assert_ptr_equal(pool_buf_ref(b), b);
        assert_null(pool_buf_unref(b));
        assert_int_equal(stats(p).buffers, 1);
        assert_true(stats(p).out >= 100000);
        memset(b->data, 1, b->size);
        pool_buf_unref(b);
        assert_int_equal(stats(p).buffers, 0);
        assert_int_equal(stats(p).out, 0);
        pool_free(p);
}

static void pool_accepts_null(void **state _unused_)
{
        assert_null(pool_free(NULL));
        assert_null(pool_buf_unref(NULL));
}

static void pool_refuses_impossible_sizes(void **state _unused_)
{
        struct pool *p = new_pool(LIMIT);
        struct pool_buf *b = NULL;
        struct error e = ERROR_INIT;

        assert_int_equal(pool_get(p, 0, DEADLINE_NEVER, &b, &e), -EINVAL);
        assert_int_equal(pool_get(p, SIZE_MAX, DEADLINE_NEVER, &b, &e), -ENOMEM);
        assert_int_equal(pool_get(p, SIZE_MAX / 8, DEADLINE_NEVER, &b, &e), -ENOMEM);
        assert_null(b);
        assert_int_equal(stats(p).out, 0);
        pool_free(p);
}

static void pool_rounds_up_by_a_quarter_at_most(void **state _unused_)
{
        struct pool *p = new_pool(LIMIT);

        for (size_t size = 1; size <= LIMIT; size += 1 + size / 7) {
                struct pool_buf *b = get(p, size);
                size_t out = stats(p).out;

                assert_true(out >= size);
                assert_true(out <= MAX((size + 4095) & ~(size_t) 4095, size + size / 4));
                assert_true(out <= LIMIT);
                b->data[0] = b->data[size - 1] = 1;
                pool_buf_unref(b);
        }
        pool_free(p);
}

static void pool_reuses_free_memory(void **state _unused_)
{
        struct pool *p = new_pool(LIMIT);
        struct pool_buf *b = get(p, MIB);
        uint8_t *data = b->data;

        pool_buf_unref(b);
        assert_int_equal(stats(p).kept, MIB);
        b = get(p, MIB - 1); /* the same class */
        assert_ptr_equal(b->data, data);
        assert_int_equal(stats(p).kept, 0);
        pool_buf_unref(b);
        pool_free(p);
}

static void pool_keeps_its_bound_across_classes(void **state _unused_)
{
        struct pool *p = new_pool(LIMIT);
        struct pool_buf *buffers[8];
        struct pool_stats s;

        for (size_t i = 0; i < 8; i++)
                buffers[i] = get(p, MIB);
        for (size_t i = 0; i < 8; i++)
                pool_buf_unref(buffers[i]);
        assert_int_equal(stats(p).kept, LIMIT);

        buffers[0] = get(p, 2 * MIB);
        s = stats(p);
        assert_int_equal(s.out, 2 * MIB);
        assert_int_equal(s.kept, 6 * MIB);
        pool_buf_unref(buffers[0]);
        pool_free(p);
}

static void pool_trim_drops_free_buffers_only(void **state _unused_)
{
        struct pool *p = new_pool(LIMIT);
        struct pool_buf *kept = get(p, MIB), *held = get(p, MIB);

        memset(held->data, 7, held->size);
        pool_buf_unref(kept);
        pool_trim(p);
        assert_int_equal(stats(p).kept, 0);
        assert_int_equal(stats(p).out, MIB);
        assert_int_equal(held->data[MIB - 1], 7);
        pool_buf_unref(held);
        pool_free(p);
}

static void pool_get_waits_for_room(void **state _unused_)
{
        struct pool *p = new_pool(LIMIT);
        struct pool_buf *all = get(p, LIMIT);
        struct getter g = { .result = 1 };

        getter_start(&g, p, 1);
        pool_buf_unref(all);
        getter_join(&g);
        assert_int_equal(g.result, 0);
        assert_int_equal(stats(p).waits, 1);
        assert_int_equal(stats(p).gets, 2);
        pool_buf_unref(g.buffer);
        pool_free(p);
}

static void pool_get_times_out_with_its_reason(void **state _unused_)
{
        struct pool *p = new_pool(LIMIT);
        struct pool_buf *all = get(p, LIMIT), *b = NULL;
        struct error e = ERROR_INIT;

        assert_int_equal(pool_get(p, 5000, 0, &b, &e), -ETIMEDOUT);
        assert_int_equal(e.code, ETIMEDOUT);
        assert_non_null(strstr(e.message, "8192 bytes"));
        assert_int_equal(pool_get(p, 5000, deadline_in(5), &b, NULL), -ETIMEDOUT);
        assert_null(b);
        assert_int_equal(stats(p).waiting, 0);
        pool_buf_unref(all);
        pool_buf_unref(get(p, LIMIT));
        pool_free(p);
}

static void pool_serves_in_order_of_arrival(void **state _unused_)
{
        struct pool *p = new_pool(4 * MIB);
        struct pool_buf *first = get(p, 2 * MIB), *second = get(p, 2 * MIB);
        unsigned turn = 0;
        struct getter large = { .turn = &turn }, small = { .turn = &turn };

        getter_start(&large, p, 4 * MIB);
        getter_start(&small, p, 1);
        /* There is room for the small one now, but the large one came first. */
        pool_buf_unref(first);
        assert_int_equal(stats(p).waiting, 2);
        pool_buf_unref(second);
        getter_join(&large);
        assert_int_equal(large.result, 0);
        assert_int_equal(stats(p).waiting, 1);
        pool_buf_unref(large.buffer);
        getter_join(&small);
        assert_int_equal(small.result, 0);
        assert_int_equal(large.order, 1);
        assert_int_equal(small.order, 2);
        pool_buf_unref(small.buffer);
        pool_free(p);
}

static void pool_newcomer_does_not_overtake(void **state _unused_)
{
        struct pool *p = new_pool(4 * MIB);
        struct pool_buf *held = get(p, MIB), *b = NULL;
        struct getter large = { .result = 1 };

        getter_start(&large, p, 4 * MIB);
        assert_int_equal(pool_get(p, 1, deadline_in(1), &b, NULL), -ETIMEDOUT);
        pool_buf_unref(held);
        getter_join(&large);
        assert_int_equal(large.result, 0);
        pool_buf_unref(large.buffer);
        pool_free(p);
}

static void pool_timeout_of_the_first_lets_the_next_pass(void **state _unused_)
{
        struct pool *p = new_pool(4 * MIB);
        struct pool_buf *held = get(p, MIB);
        struct getter large = { .deadline = deadline_in(300) }, small = { .result = 1 };

        getter_start(&large, p, 4 * MIB);
        getter_start(&small, p, MIB);
        getter_join(&large);
        assert_int_equal(large.result, -ETIMEDOUT);
        assert_null(large.buffer);
        getter_join(&small);
        assert_int_equal(small.result, 0);
        pool_buf_unref(small.buffer);
        pool_buf_unref(held);
        pool_free(p);
}

static void pool_grants_an_oversized_request_alone(void **state _unused_)
{
        struct pool *p = new_pool(MIB);
        struct pool_buf *held, *b = NULL;
        struct getter over = { .result = 1 };

        pool_buf_unref(get(p, 4096)); /* kept: must not count as out */
        held = get(p, 8192);
        getter_start(&over, p, 3 * MIB);
        pool_buf_unref(held);
        getter_join(&over);
        assert_int_equal(over.result, 0);
        assert_int_equal(stats(p).kept, 0);
        memset(over.buffer->data, 1, over.buffer->size);

        assert_int_equal(pool_get(p, 1, 0, &b, NULL), -ETIMEDOUT);
        pool_buf_unref(over.buffer);
        assert_int_equal(stats(p).kept, 0); /* nor is it kept */
        pool_buf_unref(get(p, 1));
        pool_free(p);
}

static void pool_rounding_does_not_make_a_request_oversized(void **state _unused_)
{
        const size_t limit = 9 * MIB; /* between the classes of 8 and 10 MiB */
        struct pool *p = new_pool(limit);
        struct pool_buf *b = get(p, 8 * MIB + 1);

        assert_int_equal(stats(p).out, limit);
        memset(b->data, 1, b->size);
        pool_buf_unref(b);
        assert_int_equal(stats(p).kept, limit);
        b = get(p, limit);
        memset(b->data, 1, b->size);
        assert_int_equal(stats(p).out, limit);
        pool_buf_unref(b);
        pool_free(p);
}

static void pool_lives_until_the_last_buffer_returns(void **state _unused_)
{
        struct pool *p = new_pool(LIMIT);
        struct pool_buf *one = get(p, MIB), *two = get(p, MIB), *b = NULL;
        struct error e = ERROR_INIT;

        assert_null(pool_free(p));
        assert_int_equal(pool_get(p, 1, DEADLINE_NEVER, &b, &e), -ESHUTDOWN);
        assert_int_equal(e.code, ESHUTDOWN);
        pool_buf_unref(one);
        assert_int_equal(stats(p).kept, 0);
        memset(two->data, 1, two->size);
        pool_buf_unref(two); /* the sanitizer sees whether the pool is gone now */
}

static void pool_free_wakes_those_who_wait(void **state _unused_)
{
        struct pool *p = new_pool(LIMIT);
        struct pool_buf *all = get(p, LIMIT);
        struct getter waiting[3] = { { .result = 1 }, { .result = 1 }, { .result = 1 } };

        for (size_t i = 0; i < 3; i++)
                getter_start(&waiting[i], p, MIB);
        pool_free(p);
        for (size_t i = 0; i < 3; i++) {
                getter_join(&waiting[i]);
                assert_int_equal(waiting[i].result, -ESHUTDOWN);
                assert_int_equal(waiting[i].error.code, ESHUTDOWN);
        }
        pool_buf_unref(all);
}

#ifdef REGFS_POISON
static void pool_fills_free_buffers_with_a5(void **state _unused_)
{
        struct pool *p = new_pool(LIMIT);
        struct pool_buf *b = get(p, 10000);

        memset(b->data, 0, b->size);
        pool_buf_unref(b);
        b = get(p, 10000);
        for (size_t i = 0; i < b->size; i++)
                assert_int_equal(b->data[i], 0xa5);
        pool_buf_unref(b);
        pool_free(p);
}
#endif

/* Threads that take and return buffers of all sizes; each marks its bytes and finds them unharmed. */
struct crowd {
        struct pool *pool;
        unsigned seed;
        pthread_t thread;
        unsigned damaged, failed, past_limit;
};

static void *crowd_run(void *arg)
{
        struct crowd *c = arg;

        for (unsigned i = 0; i < 100; i++) {
                size_t size = (size_t) (rand_r(&c->seed) % 300000) + 1;
                uint8_t mark = (uint8_t) rand_r(&c->seed);
                struct pool_buf *b = NULL;
                struct pool_stats s;

                if (i % 25 == 24)
                        size = 2 * MIB; /* oversized */
                if (pool_get(c->pool, size, deadline_in(20000), &b, NULL) < 0) {
                        c->failed++;
                        continue;
                }
                memset(b->data, mark, size);
                pool_get_stats(c->pool, &s);
                if (s.out + s.kept > s.limit && s.buffers > 1)
                        c->past_limit++;
                pool_buf_ref(b);
                pool_buf_unref(b);
                for (size_t j = 0; j < size; j += 997)
                        if (b->data[j] != mark)
                                c->damaged++;
                pool_buf_unref(b);
                if (i % 50 == 0)
                        pool_trim(c->pool);
        }
        return NULL;
}

static void pool_holds_its_bound_in_a_crowd(void **state _unused_)
{
        struct pool *p = new_pool(MIB);
        struct crowd crowd[16] = { { .pool = NULL } };

        for (unsigned i = 0; i < ELEMENTSOF(crowd); i++) {
                crowd[i].pool = p;
                crowd[i].seed = i;
                assert_int_equal(thread_start(&crowd[i].thread, "test-crowd", crowd_run, &crowd[i]), 0);
        }
        for (unsigned i = 0; i < ELEMENTSOF(crowd); i++) {
                assert_int_equal(pthread_join(crowd[i].thread, NULL), 0);
                assert_int_equal(crowd[i].failed, 0);
                assert_int_equal(crowd[i].damaged, 0);
                assert_int_equal(crowd[i].past_limit, 0);
        }
        assert_int_equal(stats(p).buffers, 0);
        assert_int_equal(stats(p).out, 0);
        assert_int_equal(stats(p).gets, ELEMENTSOF(crowd) * 100);
        pool_free(p);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(pool_returns_buffer_with_last_holder),
                cmocka_unit_test(pool_accepts_null),
                cmocka_unit_test(pool_refuses_impossible_sizes),
                cmocka_unit_test(pool_rounds_up_by_a_quarter_at_most),
                cmocka_unit_test(pool_reuses_free_memory),
                cmocka_unit_test(pool_keeps_its_bound_across_classes),
                cmocka_unit_test(pool_trim_drops_free_buffers_only),
                cmocka_unit_test(pool_get_waits_for_room),
                cmocka_unit_test(pool_get_times_out_with_its_reason),
                cmocka_unit_test(pool_serves_in_order_of_arrival),
                cmocka_unit_test(pool_newcomer_does_not_overtake),
                cmocka_unit_test(pool_timeout_of_the_first_lets_the_next_pass),
                cmocka_unit_test(pool_grants_an_oversized_request_alone),
                cmocka_unit_test(pool_rounding_does_not_make_a_request_oversized),
                cmocka_unit_test(pool_lives_until_the_last_buffer_returns),
                cmocka_unit_test(pool_free_wakes_those_who_wait),
#ifdef REGFS_POISON
                cmocka_unit_test(pool_fills_free_buffers_with_a5),
#endif
                cmocka_unit_test(pool_holds_its_bound_in_a_crowd),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
