/* SPDX-License-Identifier: Apache-2.0 */

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "regfs/thread.h"
#include "regfs/workers.h"

/* What a test's jobs share: a gate that they wait at, and the order in which they began. */
struct scene {
        struct mutex lock;
        struct cond changed;
        bool open;
        unsigned began;
        unsigned ended;
        unsigned inside;
        unsigned most_inside;
};

struct job {
        struct work work; /* first */
        struct scene *scene;
        bool waits;     /* at the gate */
        unsigned order; /* 1: began first */
};

static void job_run(struct work *work)
{
        struct job *j = (struct job *) work;
        struct scene *s = j->scene;

        mutex_lock(&s->lock);
        j->order = ++s->began;
        s->inside++;
        s->most_inside = MAX(s->most_inside, s->inside);
        cond_broadcast(&s->changed);
        while (j->waits && !s->open)
                cond_wait(&s->changed, &s->lock);
        s->inside--;
        s->ended++;
        cond_broadcast(&s->changed);
        mutex_unlock(&s->lock);
}

static void scene_init(struct scene *s)
{
        memset(s, 0, sizeof(*s));
        mutex_init(&s->lock);
        cond_init(&s->changed);
}

static void scene_destroy(struct scene *s)
{
        cond_destroy(&s->changed);
        mutex_destroy(&s->lock);
}

static void scene_open(struct scene *s)
{
        mutex_lock(&s->lock);
        s->open = true;
        cond_broadcast(&s->changed);
        mutex_unlock(&s->lock);
}

static void await_began(struct scene *s, unsigned n)
{
        mutex_lock(&s->lock);
        while (s->began < n)
                cond_wait(&s->changed, &s->lock);
        mutex_unlock(&s->lock);
}

static void await_ended(struct scene *s, unsigned n)
{
        mutex_lock(&s->lock);
        while (s->ended < n)
                cond_wait(&s->changed, &s->lock);
        mutex_unlock(&s->lock);
}

static struct workers *new_workers(unsigned threads)
{
        struct error e = ERROR_INIT;
        struct workers *w = NULL;

        assert_int_equal(workers_new("test-worker", threads, &w, &e), 0);
        assert_non_null(w);
        return w;
}

static struct workers_stats stats(struct workers *w)
{
        struct workers_stats s;

        workers_get_stats(w, &s);
        return s;
}

static void submit(struct workers *w, struct job *j, struct scene *s, bool waits, enum priority priority)
{
        *j = (struct job) { .work.run = job_run, .scene = s, .waits = waits };
        workers_submit(w, &j->work, priority);
}

/* Until all threads but those at the gate have found nothing more to start. */
static void await_threads_at_rest(struct workers *w, unsigned busy)
{
        for (;;) {
                struct workers_stats s = stats(w);

                if (s.busy[0] + s.busy[1] + s.busy[2] == busy)
                        return;
                nanosleep(&(struct timespec) { .tv_nsec = 100000 }, NULL);
        }
}

static void workers_accepts_null(void **state _unused_)
{
        assert_null(workers_free(NULL));
}

static void workers_runs_everything_before_it_ends(void **state _unused_)
{
        struct workers *w = new_workers(4);
        struct job jobs[300];
        struct scene s;

        scene_init(&s);
        for (unsigned i = 0; i < ELEMENTSOF(jobs); i++)
                submit(w, &jobs[i], &s, false, (enum priority)(i % PRIORITY_COUNT));
        assert_null(workers_free(w));
        assert_int_equal(s.ended, ELEMENTSOF(jobs));
        scene_destroy(&s);
}

static void workers_free_finishes_work_that_may_not_start_yet(void **state _unused_)
{
        struct workers *w = new_workers(4);
        struct job jobs[6];
        struct scene s;

        scene_init(&s);
        for (unsigned i = 0; i < 6; i++)
                submit(w, &jobs[i], &s, i < 2, PRIORITY_BACKGROUND);
        await_began(&s, 2);
        assert_int_equal(stats(w).queued[PRIORITY_BACKGROUND], 4);
        scene_open(&s);
        workers_free(w);
        assert_int_equal(s.ended, 6);
        scene_destroy(&s);
}

static void workers_starts_threads_as_needed_up_to_the_maximum(void **state _unused_)
{
        struct workers *w = new_workers(5);
        struct job jobs[8];
        struct scene s;

        scene_init(&s);
        assert_int_equal(stats(w).threads, 1);
        for (unsigned i = 0; i < 3; i++)
                submit(w, &jobs[i], &s, true, PRIORITY_DEMAND);
        await_began(&s, 3);
        assert_int_equal(stats(w).busy[PRIORITY_DEMAND], 3);
        for (unsigned i = 3; i < 8; i++)
                submit(w, &jobs[i], &s, true, PRIORITY_DEMAND);
        await_began(&s, 5);
        assert_int_equal(stats(w).threads, 5);
        assert_int_equal(stats(w).queued[PRIORITY_DEMAND], 3);
        scene_open(&s);
        await_ended(&s, 8);
        assert_int_equal(s.most_inside, 5);
        workers_free(w);
        scene_destroy(&s);
}

static void workers_starts_higher_priorities_first(void **state _unused_)
{
        struct workers *w = new_workers(1);
        struct job first, background, readahead, demand[2];
        struct scene s;

        scene_init(&s);
        submit(w, &first, &s, true, PRIORITY_BACKGROUND);
        await_began(&s, 1);
        submit(w, &background, &s, false, PRIORITY_BACKGROUND);
        submit(w, &readahead, &s, false, PRIORITY_READAHEAD);
        submit(w, &demand[0], &s, false, PRIORITY_DEMAND);
        submit(w, &demand[1], &s, false, PRIORITY_DEMAND);
        scene_open(&s);
        workers_free(w);
        assert_int_equal(demand[0].order, 2);
        assert_int_equal(demand[1].order, 3);
        assert_int_equal(readahead.order, 4);
        assert_int_equal(background.order, 5);
        scene_destroy(&s);
}

static void workers_raise_overtakes(void **state _unused_)
{
        struct workers *w = new_workers(1);
        struct job first, middle[2], raised;
        struct scene s;

        scene_init(&s);
        submit(w, &first, &s, true, PRIORITY_DEMAND);
        await_began(&s, 1);
        submit(w, &middle[0], &s, false, PRIORITY_READAHEAD);
        submit(w, &raised, &s, false, PRIORITY_READAHEAD);
        submit(w, &middle[1], &s, false, PRIORITY_READAHEAD);
        workers_raise(w, &raised.work, PRIORITY_DEMAND);
        assert_int_equal(stats(w).queued[PRIORITY_DEMAND], 1);
        assert_int_equal(stats(w).queued[PRIORITY_READAHEAD], 2);
        workers_raise(w, &raised.work, PRIORITY_BACKGROUND); /* never down */
        workers_raise(w, &first.work, PRIORITY_DEMAND);      /* runs already */
        scene_open(&s);
        workers_free(w);
        assert_int_equal(raised.order, 2);
        assert_int_equal(middle[0].order, 3);
        assert_int_equal(middle[1].order, 4);
        scene_destroy(&s);
}

static void workers_raise_starts_a_thread_that_the_old_priority_could_not(void **state _unused_)
{
        struct workers *w = new_workers(2); /* one of them for the lower priorities */
        struct job first, raised;
        struct scene s;

        scene_init(&s);
        submit(w, &first, &s, true, PRIORITY_BACKGROUND);
        await_began(&s, 1);
        submit(w, &raised, &s, true, PRIORITY_BACKGROUND);
        await_threads_at_rest(w, 1);
        assert_int_equal(stats(w).queued[PRIORITY_BACKGROUND], 1);
        workers_raise(w, &raised.work, PRIORITY_DEMAND);
        await_began(&s, 2);
        scene_open(&s);
        workers_free(w);
        scene_destroy(&s);
}

/* Of MAX threads, READAHEAD and BACKGROUND jobs at the gate leave that many to demand. */
static void check_reserve(unsigned max, unsigned expect_background, unsigned expect_lower)
{
        struct workers *w = new_workers(max);
        struct job background[8], readahead[8], demand[8];
        unsigned free_threads = max - expect_lower;
        struct scene s;

        scene_init(&s);
        for (unsigned i = 0; i < 8; i++)
                submit(w, &background[i], &s, true, PRIORITY_BACKGROUND);
        await_began(&s, expect_background);
        for (unsigned i = 0; i < 8; i++)
                submit(w, &readahead[i], &s, true, PRIORITY_READAHEAD);
        await_began(&s, expect_lower);
        for (unsigned i = 0; i < free_threads; i++)
                submit(w, &demand[i], &s, true, PRIORITY_DEMAND);
        await_began(&s, expect_lower + free_threads); /* would hang if the lower ones had taken more */
        assert_int_equal(stats(w).busy[PRIORITY_BACKGROUND], expect_background);
        assert_int_equal(stats(w).busy[PRIORITY_READAHEAD], expect_lower - expect_background);
        assert_int_equal(stats(w).busy[PRIORITY_DEMAND], free_threads);
        scene_open(&s);
        workers_free(w);
        assert_int_equal(s.ended, 16 + free_threads);
        assert_int_equal(s.most_inside, max);
        scene_destroy(&s);
}

static void workers_keep_threads_free_for_demand(void **state _unused_)
{
        check_reserve(2, 1, 1);
        check_reserve(3, 1, 1);
        check_reserve(4, 2, 2);
        check_reserve(6, 3, 4);
        check_reserve(8, 4, 6);
}

static void workers_one_thread_serves_all_priorities(void **state _unused_)
{
        struct workers *w = new_workers(0); /* taken as 1 */
        struct job jobs[3];
        struct scene s;

        scene_init(&s);
        for (unsigned i = 0; i < 3; i++)
                submit(w, &jobs[i], &s, false, (enum priority) i);
        await_ended(&s, 3);
        assert_int_equal(stats(w).threads, 1);
        workers_free(w);
        scene_destroy(&s);
}

struct own_job {
        struct work work; /* first */
        struct scene *scene;
};

static void own_job_run(struct work *work)
{
        struct own_job *j = (struct own_job *) work;
        struct scene *s = j->scene;

        memset(j, 0xff, sizeof(*j));
        free(j);
        mutex_lock(&s->lock);
        s->ended++;
        cond_broadcast(&s->changed);
        mutex_unlock(&s->lock);
}

static void workers_work_may_free_itself(void **state _unused_)
{
        struct workers *w = new_workers(3);
        struct scene s;

        scene_init(&s);
        for (unsigned i = 0; i < 100; i++) {
                struct own_job *j = calloc(1, sizeof(*j));

                assert_non_null(j);
                j->work.run = own_job_run;
                j->scene = &s;
                workers_submit(w, &j->work, (enum priority)(i % PRIORITY_COUNT));
        }
        await_ended(&s, 100);
        await_threads_at_rest(w, 0);
        assert_int_equal(stats(w).done, 100);
        workers_free(w);
        scene_destroy(&s);
}

static void workers_idle_threads_end_but_the_last(void **state _unused_)
{
        struct workers *w = new_workers(4);
        struct job jobs[5];
        struct scene s;

        scene_init(&s);
        for (unsigned i = 0; i < 4; i++)
                submit(w, &jobs[i], &s, true, PRIORITY_DEMAND);
        await_began(&s, 4);
        assert_int_equal(stats(w).threads, 4);
        scene_open(&s);
        while (stats(w).threads > 1)
                nanosleep(&(struct timespec) { .tv_nsec = 10000000 }, NULL);
        submit(w, &jobs[4], &s, false, PRIORITY_BACKGROUND);
        await_ended(&s, 5);
        assert_int_equal(stats(w).threads, 1);
        workers_free(w);
        scene_destroy(&s);
}

/* Many submitters, raisers and workers: nothing is lost, nothing runs twice. */
struct submitter {
        struct workers *workers;
        struct scene *scene;
        struct job jobs[250];
        pthread_t thread;
        unsigned seed;
};

static void *submitter_run(void *arg)
{
        struct submitter *m = arg;

        for (unsigned i = 0; i < ELEMENTSOF(m->jobs); i++) {
                enum priority p = (enum priority)(rand_r(&m->seed) % PRIORITY_COUNT);

                submit(m->workers, &m->jobs[i], m->scene, false, p);
                workers_raise(m->workers, &m->jobs[(unsigned) rand_r(&m->seed) % (i + 1)].work, PRIORITY_DEMAND);
        }
        return NULL;
}

static void workers_lose_nothing_in_a_crowd(void **state _unused_)
{
        struct workers *w = new_workers(6);
        struct submitter *crowd = calloc(8, sizeof(*crowd));
        struct scene s;

        assert_non_null(crowd);
        scene_init(&s);
        for (unsigned i = 0; i < 8; i++) {
                crowd[i].workers = w;
                crowd[i].scene = &s;
                crowd[i].seed = i;
                assert_int_equal(thread_start(&crowd[i].thread, "test-submitter", submitter_run, &crowd[i]), 0);
        }
        for (unsigned i = 0; i < 8; i++)
                assert_int_equal(pthread_join(crowd[i].thread, NULL), 0);
        workers_free(w);
        assert_int_equal(s.began, 8 * ELEMENTSOF(crowd->jobs));
        assert_int_equal(s.ended, 8 * ELEMENTSOF(crowd->jobs));
        for (unsigned i = 0; i < 8; i++)
                for (unsigned j = 0; j < ELEMENTSOF(crowd->jobs); j++)
                        assert_true(crowd[i].jobs[j].order > 0 && !crowd[i].jobs[j].work.queued);
        free(crowd);
        scene_destroy(&s);
}

static unsigned scene_began(struct scene *s)
{
        unsigned n;

        mutex_lock(&s->lock);
        n = s->began;
        mutex_unlock(&s->lock);
        return n;
}

static void scene_await(struct scene *s, unsigned ended)
{
        mutex_lock(&s->lock);
        while (s->ended < ended)
                cond_wait(&s->changed, &s->lock);
        mutex_unlock(&s->lock);
}

static void work_that_is_put_off_runs_when_it_is_due(void **state)
{
        struct job late = { .work.run = job_run }, soon = { .work.run = job_run }, now = { .work.run = job_run };
        struct workers *w = NULL;
        struct scene scene;
        uint64_t begin;

        (void) state;
        scene_init(&scene);
        late.scene = soon.scene = now.scene = &scene;
        assert_int_equal(workers_new("test", 1, &w, NULL), 0);
        begin = clock_ms();
        workers_submit_later(w, &late.work, PRIORITY_DEMAND, 60);
        workers_submit_later(w, &soon.work, PRIORITY_BACKGROUND, 20);
        workers_submit(w, &now.work, PRIORITY_BACKGROUND);
        scene_await(&scene, 3);
        assert_true(clock_ms() - begin >= 60);
        assert_int_equal(now.order, 1);
        assert_int_equal(soon.order, 2);
        assert_int_equal(late.order, 3);
        workers_free(w);
        scene_destroy(&scene);
}

/* The one thread that is busy need not end for that. */
static void due_work_gets_a_thread_of_its_own(void **state)
{
        struct job first = { .work.run = job_run, .waits = true }, second = { .work.run = job_run };
        struct workers *w = NULL;
        struct scene scene;

        (void) state;
        scene_init(&scene);
        first.scene = second.scene = &scene;
        assert_int_equal(workers_new("test", 2, &w, NULL), 0);
        workers_submit_later(w, &second.work, PRIORITY_DEMAND, 30);
        workers_submit(w, &first.work, PRIORITY_DEMAND);
        scene_await(&scene, 1);
        assert_int_not_equal(second.order, 0);
        mutex_lock(&scene.lock);
        scene.open = true;
        cond_broadcast(&scene.changed);
        mutex_unlock(&scene.lock);
        scene_await(&scene, 2);
        workers_free(w);
        scene_destroy(&scene);
}

static void free_does_not_wait_for_what_is_put_off(void **state)
{
        struct job late = { .work.run = job_run };
        struct workers *w = NULL;
        struct scene scene;

        (void) state;
        scene_init(&scene);
        late.scene = &scene;
        assert_int_equal(workers_new("test", 4, &w, NULL), 0);
        workers_submit_later(w, &late.work, PRIORITY_BACKGROUND, 3600000);
        workers_raise(w, &late.work, PRIORITY_DEMAND);
        assert_int_equal(late.work.priority, PRIORITY_DEMAND);
        assert_int_equal(scene_began(&scene), 0);
        workers_free(w);
        assert_int_equal(scene_began(&scene), 1);
        scene_destroy(&scene);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(workers_accepts_null),
                cmocka_unit_test(workers_runs_everything_before_it_ends),
                cmocka_unit_test(workers_free_finishes_work_that_may_not_start_yet),
                cmocka_unit_test(workers_starts_threads_as_needed_up_to_the_maximum),
                cmocka_unit_test(workers_starts_higher_priorities_first),
                cmocka_unit_test(workers_raise_overtakes),
                cmocka_unit_test(workers_raise_starts_a_thread_that_the_old_priority_could_not),
                cmocka_unit_test(workers_keep_threads_free_for_demand),
                cmocka_unit_test(workers_one_thread_serves_all_priorities),
                cmocka_unit_test(workers_work_may_free_itself),
                cmocka_unit_test(workers_idle_threads_end_but_the_last),
                cmocka_unit_test(workers_lose_nothing_in_a_crowd),
                cmocka_unit_test(work_that_is_put_off_runs_when_it_is_due),
                cmocka_unit_test(due_work_gets_a_thread_of_its_own),
                cmocka_unit_test(free_does_not_wait_for_what_is_put_off),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
