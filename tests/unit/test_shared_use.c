/* SPDX-License-Identifier: Apache-2.0 */

/* A layer that several processes use: what they tell each other of that, and all of them at once. */

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "pair_fixture.h"
#include "regfs/thread.h"

#define pair_test(function) cmocka_unit_test_setup_teardown(function, pair_setup, pair_teardown)

/* ---- use ---- */

static void set_used(struct content *c, size_t i, uint32_t seconds_ago)
{
        atomic_store(&c->used[i], (content_tick() - seconds_ago * TICKS_PER_SECOND) | 1);
}

static void expect_idle(const struct content *c, size_t i, uint64_t seconds)
{
        assert_in_range(content_idle_ms(c, i), (seconds - 2) * 1000, (seconds + 20) * 1000);
}

/* As if nobody had ever told. */
static void forget_stamps(const struct pair *p)
{
        const uint32_t none[CHUNKS] = { 0 };

        poke(p->l, MAP, MAP_WORDS_END + 8 * CHUNKS, none, sizeof(none));
}

static void what_another_process_has_fetched_is_young(void **state)
{
        struct pair *p = *state;

        p->other->opened -= 1000 * TICKS_PER_SECOND;
        expect_idle(p->other, 3, 2);
        forget_stamps(p);
        expect_idle(p->other, 3, 1000);
        one_evicts_and_writes(p);
        expect_idle(p->other, p->chunk, 2);
        expect_idle(p->other, 3, 1000);
}

static void use_by_another_process_makes_a_chunk_young(void **state)
{
        struct pair *p = *state;
        struct stat st;
        uint64_t used;

        forget_stamps(p);
        for (size_t i = 0; i < CHUNKS; i++)
                set_used(p->one, i, 1000 + (uint32_t) i * 1000);
        p->other->told -= 100000 * TICKS_PER_SECOND;
        set_used(p->other, 3, 500);
        set_used(p->other, 1, 5000);
        expect_idle(p->one, 3, 4000);
        content_tell(p->other);
        expect_idle(p->one, 3, 500);
        expect_idle(p->one, 1, 2000); /* used here since */
        expect_idle(p->one, 4, 5000);
        /* The longest idle one goes, and is enough; before, 3 was. */
        assert_int_equal(stat(below(&p->l->place, CONTENT), &st), 0);
        used = (uint64_t) st.st_blocks * 512;
        set_used(p->one, 4, 100);
        set_used(p->one, 1, 3000);
        assert_int_equal(stat(below(&p->l->place, MAP), &st), 0);
        store_set_limit(p->l->store, used + (uint64_t) st.st_blocks * 512 - 4096);
        evictor_call(p->l->store);
        while (content_has(p->one, 1))
                nanosleep(&(struct timespec) { .tv_nsec = 1000000 }, NULL);
        assert_true(content_has(p->one, 3));
        assert_true(content_has(p->one, 4));
}

/* Another thread may use a chunk a moment after somebody has looked at the clock. */
static void chunk_that_is_used_right_now_is_not_taken_for_an_old_one(void **state)
{
        struct pair *p = *state;

        forget_stamps(p);
        atomic_store(&p->one->used[3], (content_tick() + 10 * TICKS_PER_SECOND) | 1);
        assert_in_range(content_idle_ms(p->one, 3), 0, 1000);
        content_tell(p->one);
        expect_idle(p->other, 3, 2);
        assert_in_range(content_idle_ms(p->other, 3), 0, 10000);
}

static void use_is_told_when_the_layer_is_closed_and_by_the_evictor(void **state)
{
        struct pair *p = *state;

        forget_stamps(p);
        set_used(p->one, 3, 1000);
        p->other->told -= 100000 * TICKS_PER_SECOND;
        set_used(p->other, 3, 600);
        p->other = content_close(p->other);
        expect_idle(p->one, 3, 600);
        /* And so does who may evict, now and then. */
        p->one->told -= 100000 * TICKS_PER_SECOND;
        set_used(p->one, 4, 300);
        assert_int_equal(content_open(p->second, &p->l->digest, "plain", &p->l->table, &p->other, NULL), 0);
        assert_false(content_idle_ms(p->other, 4) > 290000);
        set_used(p->other, 4, 5000);
        store_set_limit(p->l->store, 1 * GIB);
        evictor_call(p->l->store);
        while (content_idle_ms(p->other, 4) > 400000)
                nanosleep(&(struct timespec) { .tv_nsec = 1000000 }, NULL);
        expect_idle(p->other, 4, 300);
        expect_idle(p->other, 3, 600);
}

/* ---- all at once ---- */

#define PROCESSES 3
#define EVICTED_MIN 100

struct crowd {
        struct layer *layer;
        struct content *contents[PROCESSES];
        atomic_uint readers, wrong, evicted;
};

struct member {
        struct crowd *crowd;
        size_t k;
};

static unsigned work(void)
{
        const char *text = getenv("REGFS_STRESS");
        unsigned long n = text ? strtoul(text, NULL, 10) : 1;

        return 4000 * (unsigned) MIN(MAX(n, 1ul), 1000000ul);
}

static void *member_reads(void *arg)
{
        struct member *m = arg;
        struct crowd *w = m->crowd;
        uint8_t *out = malloc(CONTENT_SIZE);
        uint64_t seed = m->k * 0x9e3779b97f4a7c15u;

        /* Until there was enough to see, of either sort. */
        for (unsigned done = 0, enough = work(); done < enough || atomic_load(&w->evicted) < EVICTED_MIN;) {
                struct content *c = w->contents[m->k % PROCESSES];
                size_t i;
                int r = read_at_random(w->layer, c, &seed, out, &i);

                if (r == -EAGAIN) {
                        (void) content_write(c, i, bytes_of(w->layer, i));
                        continue;
                }
                atomic_fetch_add(&w->wrong, r < 0);
                done++;
        }
        atomic_fetch_sub(&w->readers, 1);
        free(out);
        return NULL;
}

static void *member_evicts(void *arg)
{
        struct member *m = arg;
        struct crowd *w = m->crowd;

        for (size_t k = m->k; atomic_load(&w->readers) > 0; k++) {
                struct content *c = w->contents[m->k % PROCESSES];
                size_t end, first = k % CHUNKS;

                if (content_lock_eviction(c)) {
                        (void) content_evict(c, first, MIN(first + 2, (size_t) CHUNKS), &end);
                        content_unlock_eviction(c);
                        atomic_fetch_add(&w->evicted, (unsigned) (end - first));
                }
                nanosleep(&(struct timespec) { .tv_nsec = 20000 * (long) (k % 8) }, NULL);
        }
        return NULL;
}

static void readers_of_several_processes_get_right_bytes_while_each_evicts(void **state)
{
        struct pair *p = *state;
        struct crowd w = { .layer = p->l, .contents = { p->one, p->other } };
        struct member members[3 * PROCESSES];
        pthread_t threads[ELEMENTSOF(members)];
        struct store *third = NULL;

        assert_int_equal(store_open(p->l->place.store, &third, NULL), 0);
        assert_int_equal(content_open(third, &p->l->digest, "plain", &p->l->table, &w.contents[2], NULL), 0);
        atomic_init(&w.readers, 2 * PROCESSES);
        for (size_t k = 0; k < ELEMENTSOF(members); k++) {
                members[k] = (struct member) { &w, k };
                assert_int_equal(thread_start(&threads[k], "member", k < 2 * PROCESSES ? member_reads : member_evicts,
                                              &members[k]),
                                 0);
        }
        for (size_t k = 0; k < ELEMENTSOF(members); k++)
                pthread_join(threads[k], NULL);
        assert_int_equal(atomic_load(&w.wrong), 0);
        for (size_t i = 0; i < CHUNKS; i++) {
                assert_int_equal(peek_epoch(p, i) & 1, 0);
                expect_right_or_nothing(p, w.contents[2], i, true);
        }
        content_close(w.contents[2]);
        store_close(third);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                pair_test(what_another_process_has_fetched_is_young),
                pair_test(use_by_another_process_makes_a_chunk_young),
                pair_test(chunk_that_is_used_right_now_is_not_taken_for_an_old_one),
                pair_test(use_is_told_when_the_layer_is_closed_and_by_the_evictor),
                pair_test(readers_of_several_processes_get_right_bytes_while_each_evicts),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
