/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <string.h>

#include "regfs/thread.h"

#define THREADS 4
#define ROUNDS 2000

struct shared {
        struct mutex lock;
        struct cond changed;
        uint64_t count GUARDED_BY(lock);
        bool open GUARDED_BY(lock);
};

static void shared_init(struct shared *s) NO_THREAD_SAFETY_ANALYSIS
{
        mutex_init(&s->lock);
        cond_init(&s->changed);
        s->count = 0;
        s->open = false;
}

static void shared_destroy(struct shared *s)
{
        cond_destroy(&s->changed);
        mutex_destroy(&s->lock);
}

static void *count_up(void *arg)
{
        struct shared *s = arg;

        for (int k = 0; k < ROUNDS; k++) {
                mutex_lock(&s->lock);
                s->count++;
                mutex_unlock(&s->lock);
        }
        return NULL;
}

static void mutex_keeps_threads_apart(void **state _unused_)
{
        pthread_t threads[THREADS];
        struct shared s;

        shared_init(&s);
        for (int k = 0; k < THREADS; k++)
                assert_int_equal(thread_start(&threads[k], "count", count_up, &s), 0);
        for (int k = 0; k < THREADS; k++)
                assert_int_equal(pthread_join(threads[k], NULL), 0);
        mutex_lock(&s.lock);
        assert_int_equal(s.count, THREADS * ROUNDS);
        mutex_unlock(&s.lock);
        shared_destroy(&s);
}

static struct mutex static_lock = MUTEX_INIT;

static void static_mutex_needs_no_call(void **state _unused_)
{
        mutex_lock(&static_lock);
        assert_int_equal(pthread_mutex_trylock(&static_lock.native), EBUSY);
        mutex_unlock(&static_lock);
        assert_int_equal(pthread_mutex_trylock(&static_lock.native), 0);
        assert_int_equal(pthread_mutex_unlock(&static_lock.native), 0);
}

/* Reports that it waits, and waits until the gate is open. */
static void *wait_at_gate(void *arg)
{
        struct shared *s = arg;

        mutex_lock(&s->lock);
        s->count++;
        cond_broadcast(&s->changed);
        while (!s->open)
                cond_wait(&s->changed, &s->lock);
        s->count--;
        mutex_unlock(&s->lock);
        return arg;
}

static void broadcast_wakes_all(void **state _unused_)
{
        pthread_t threads[THREADS];
        struct shared s;

        shared_init(&s);
        for (int k = 0; k < THREADS; k++)
                assert_int_equal(thread_start(&threads[k], "wait", wait_at_gate, &s), 0);
        mutex_lock(&s.lock);
        while (s.count < THREADS)
                cond_wait(&s.changed, &s.lock);
        s.open = true;
        cond_broadcast(&s.changed);
        mutex_unlock(&s.lock);
        for (int k = 0; k < THREADS; k++) {
                void *result;

                assert_int_equal(pthread_join(threads[k], &result), 0);
                assert_ptr_equal(result, &s);
        }
        mutex_lock(&s.lock);
        assert_int_equal(s.count, 0);
        mutex_unlock(&s.lock);
        shared_destroy(&s);
}

static void *open_gate(void *arg)
{
        struct shared *s = arg;

        mutex_lock(&s->lock);
        s->open = true;
        cond_signal(&s->changed);
        mutex_unlock(&s->lock);
        return NULL;
}

static void signal_ends_a_wait_without_end(void **state _unused_)
{
        pthread_t thread;
        struct shared s;

        shared_init(&s);
        mutex_lock(&s.lock);
        assert_int_equal(thread_start(&thread, "open", open_gate, &s), 0);
        while (!s.open)
                assert_int_equal(cond_wait_until(&s.changed, &s.lock, DEADLINE_NEVER), 0);
        mutex_unlock(&s.lock);
        assert_int_equal(pthread_join(thread, NULL), 0);
        shared_destroy(&s);
}

static void signal_ends_a_wait_before_its_deadline(void **state _unused_)
{
        deadline_t deadline = deadline_in(600000);
        pthread_t thread;
        struct shared s;

        shared_init(&s);
        mutex_lock(&s.lock);
        assert_int_equal(thread_start(&thread, "open", open_gate, &s), 0);
        while (!s.open)
                assert_int_equal(cond_wait_until(&s.changed, &s.lock, deadline), 0);
        mutex_unlock(&s.lock);
        assert_true(deadline_left(deadline) > 0);
        assert_int_equal(pthread_join(thread, NULL), 0);
        shared_destroy(&s);
}

static void wait_ends_at_its_deadline_and_not_before(void **state _unused_)
{
        deadline_t deadlines[] = { 0, clock_ms(), deadline_in(1), deadline_in(30) };
        struct shared s;

        shared_init(&s);
        mutex_lock(&s.lock);
        for (size_t k = 0; k < ELEMENTSOF(deadlines); k++) {
                int r;

                do
                        r = cond_wait_until(&s.changed, &s.lock, deadlines[k]);
                while (r == 0);
                assert_int_equal(r, -ETIMEDOUT);
                assert_true(clock_ms() >= deadlines[k]);
                assert_int_equal(pthread_mutex_trylock(&s.lock.native), EBUSY);
        }
        mutex_unlock(&s.lock);
        shared_destroy(&s);
}

static void deadlines_saturate(void **state _unused_)
{
        deadline_t soon;

        assert_true(deadline_in(UINT64_MAX) == DEADLINE_NEVER);
        assert_true(deadline_in(UINT64_MAX - 1) == DEADLINE_NEVER);
        assert_true(deadline_left(DEADLINE_NEVER) == UINT64_MAX);
        assert_int_equal(deadline_left(0), 0);
        assert_int_equal(deadline_left(clock_ms()), 0);
        soon = deadline_in(60000);
        assert_in_range(deadline_left(soon), 1, 60000);
}

static void clock_does_not_run_backwards(void **state _unused_)
{
        uint64_t before = clock_ms();

        for (int k = 0; k < 1000; k++) {
                uint64_t now = clock_ms();

                assert_true(now >= before);
                before = now;
        }
}

struct seen {
        char name[16];
        sigset_t blocked;
        size_t stack;
};

static void *look_around(void *arg)
{
        struct seen *seen = arg;
        pthread_attr_t attributes;

        (void) pthread_getname_np(pthread_self(), seen->name, sizeof(seen->name));
        (void) pthread_sigmask(SIG_SETMASK, NULL, &seen->blocked);
        if (pthread_getattr_np(pthread_self(), &attributes) == 0) {
                (void) pthread_attr_getstacksize(&attributes, &seen->stack);
                (void) pthread_attr_destroy(&attributes);
        }
        return arg;
}

static void thread_has_its_name_and_no_signals(void **state _unused_)
{
        static const int signals[] = { SIGTERM, SIGINT, SIGHUP, SIGCHLD, SIGUSR1, SIGPIPE };
        struct seen seen = { 0 };
        sigset_t before, after;
        pthread_t thread;
        void *result;

        assert_int_equal(pthread_sigmask(SIG_SETMASK, NULL, &before), 0);
        assert_int_equal(thread_start(&thread, "a name that is too long", look_around, &seen), 0);
        assert_int_equal(pthread_sigmask(SIG_SETMASK, NULL, &after), 0);
        assert_int_equal(pthread_join(thread, &result), 0);
        assert_ptr_equal(result, &seen);
        assert_string_equal(seen.name, "a name that is ");
        for (size_t k = 0; k < ELEMENTSOF(signals); k++) {
                assert_int_equal(sigismember(&seen.blocked, signals[k]), 1);
                assert_int_equal(sigismember(&after, signals[k]), sigismember(&before, signals[k]));
        }
        assert_in_range(seen.stack, 256 * KIB, 4 * MIB);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(mutex_keeps_threads_apart),
                cmocka_unit_test(static_mutex_needs_no_call),
                cmocka_unit_test(broadcast_wakes_all),
                cmocka_unit_test(signal_ends_a_wait_without_end),
                cmocka_unit_test(signal_ends_a_wait_before_its_deadline),
                cmocka_unit_test(wait_ends_at_its_deadline_and_not_before),
                cmocka_unit_test(deadlines_saturate),
                cmocka_unit_test(clock_does_not_run_backwards),
                cmocka_unit_test(thread_has_its_name_and_no_signals),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
