/* SPDX-License-Identifier: Apache-2.0 */

/* What the store takes away, and what it leaves. */

#include <pthread.h>
#include <time.h>

#include "cache/store/store_internal.h"
#include "content_fixture.h"

#define evict_test(function) cmocka_unit_test_setup_teardown(function, layer_setup, layer_teardown)

static void nap(void)
{
        nanosleep(&(struct timespec) { .tv_nsec = 1000000 }, NULL);
}

static void next_tick(void)
{
        uint32_t now = content_tick();

        while (content_tick() == now)
                nap();
}

static struct content *open_full(struct layer *l)
{
        struct content *c = open_content(l);

        for (size_t i = 0; i < CHUNKS; i++)
                assert_int_equal(content_write(c, i, bytes_of(l, i)), 0);
        return c;
}

static uint64_t blocks(const struct layer *l, const char *file)
{
        struct stat st;

        return stat(below(&l->place, file), &st) == 0 ? (uint64_t) st.st_blocks * 512 : 0;
}

/* ---- one chunk ---- */

static void evicted_chunk_is_gone_and_its_neighbours_are_not(void **state)
{
        struct layer *l = *state;
        struct content *c = open_full(l);
        uint64_t before = blocks(l, CONTENT);
        size_t end = 0;

        assert_true(content_evict(c, 1, 2, &end) > 0);
        assert_int_equal(end, 2);
        assert_true(blocks(l, CONTENT) < before);
        assert_false(content_has(c, 1));
        assert_int_equal(peek_word(l, 1), 0);
        assert_int_equal(read_chunk_result(l, c, 1), -EAGAIN);
        for (size_t i = 0; i < CHUNKS; i++)
                assert_int_equal(reads_chunk(l, c, i), i != 1);
        assert_int_equal(content_write(c, 1, bytes_of(l, 1)), 0);
        assert_true(reads(l, c, 0, CONTENT_SIZE));
        content_close(c);
}

static void chunk_in_use_stays(void **state)
{
        struct layer *l = *state;
        struct content *c = open_full(l);
        size_t end = 0;

        atomic_fetch_add(&c->states[3], 1); /* as a reader does */
        assert_int_equal(content_evict(c, 3, 5, &end), 0);
        assert_int_equal(end, 3);
        (void) content_evict(c, 0, 5, &end);
        assert_int_equal(end, 3);
        assert_true(reads_chunk(l, c, 3));
        assert_true(reads_chunk(l, c, 4));
        atomic_fetch_sub(&c->states[3], 1);
        assert_true(content_evict(c, 3, 5, &end) > 0);
        assert_int_equal(end, 5);
        content_close(c);
}

static void chunk_on_its_way_out_is_nobodys(void **state)
{
        struct layer *l = *state;
        struct content *c = open_full(l);
        uint32_t before = atomic_fetch_or(&c->states[0], STATE_EVICTED);

        assert_false(content_has(c, 0));
        assert_int_equal(read_chunk_result(l, c, 0), -EAGAIN);
        assert_int_equal(content_write(c, 0, bytes_of(l, 0)), -EAGAIN);
        atomic_store(&c->states[0], before);
        assert_true(reads_chunk(l, c, 0));
        content_close(c);
}

struct crowd {
        struct layer *layer;
        struct content *content;
        atomic_uint readers, wrong, evicted;
};

static void *crowd_reads(void *arg)
{
        struct crowd *w = arg;
        uint8_t *out = malloc(CONTENT_SIZE);
        uint64_t seed = (uint64_t) (uintptr_t) &seed;

        for (unsigned done = 0; done < 300 || atomic_load(&w->evicted) < 100;) {
                size_t i;
                int r = read_at_random(w->layer, w->content, &seed, out, &i);

                if (r == -EAGAIN) {
                        (void) content_write(w->content, i, bytes_of(w->layer, i));
                        continue;
                }
                atomic_fetch_add(&w->wrong, r < 0);
                done++;
        }
        atomic_fetch_sub(&w->readers, 1);
        free(out);
        return NULL;
}

static void readers_get_right_bytes_while_chunks_go(void **state)
{
        struct layer *l = *state;
        struct crowd w = { .layer = l, .content = open_full(l) };
        pthread_t threads[3];

        atomic_init(&w.readers, ELEMENTSOF(threads));
        for (size_t k = 0; k < ELEMENTSOF(threads); k++)
                assert_int_equal(pthread_create(&threads[k], NULL, crowd_reads, &w), 0);
        for (size_t k = 0; atomic_load(&w.readers) > 0; k++) {
                size_t end, first = k % CHUNKS;

                (void) content_evict(w.content, first, MIN(first + 2, (size_t) CHUNKS), &end);
                atomic_fetch_add(&w.evicted, (unsigned) (end - first));
                if (k % 16 == 0)
                        nap();
        }
        for (size_t k = 0; k < ELEMENTSOF(threads); k++)
                pthread_join(threads[k], NULL);
        assert_int_equal(atomic_load(&w.wrong), 0);
        content_close(w.content);
}

/* ---- the limit ---- */

static void writing_keeps_the_store_within_its_limit(void **state)
{
        struct layer *l = *state;
        struct content *c;

        layer_open_store(l);
        store_set_limit(l->store, 100000);
        c = open_full(l);
        while (blocks(l, CONTENT) > 100000)
                nap();
        for (size_t i = 0; i < CHUNKS; i++)
                assert_true(reads_chunk(l, c, i) || read_chunk_result(l, c, i) == -EAGAIN);
        content_close(c);
}

static void oldest_chunks_go_and_no_more_than_needed(void **state)
{
        struct layer *l = *state;
        struct content *c = open_full(l);

        for (size_t k = 0; k < 3; k++) {
                next_tick();
                assert_true(reads_chunk(l, c, (size_t[]) { 4, 0, 3 }[k]));
        }
        /* Chunk 1 is the oldest, and enough. */
        store_set_limit(l->store, blocks(l, CONTENT) + blocks(l, MAP) - 4096);
        evictor_call(l->store);
        while (content_has(c, 1))
                nap();
        assert_true(content_has(c, 0));
        assert_true(content_has(c, 3));
        assert_true(content_has(c, 4));
        content_close(c);
}

/* Others filled it, or the limit was another one. */
static void full_store_is_found_by_who_only_opens_something(void **state)
{
        struct layer *l = *state;
        struct content *c;

        layer_open_store(l);
        assert_int_equal(publish(l, 65536), 0);
        store_set_limit(l->store, 100000);
        c = open_content(l);
        assert_true(blocks(l, CONTENT) > 100000);
        while (blocks(l, CONTENT) > 100000)
                nap();
        content_close(c);
}

/* Chunk by chunk; the files stay. */
static void layer_that_somebody_else_has_open_is_evicted_from(void **state)
{
        struct layer *l = *state;
        struct content *c, *other;
        struct store *s = NULL;

        layer_open_store(l);
        c = open_full(l);
        assert_int_equal(store_open(l->place.store, &s, NULL), 0);
        assert_int_equal(content_open(s, &l->digest, "plain", &l->table, &other, NULL), 0);
        for (size_t i = 0; i < CHUNKS; i++)
                assert_true(reads_chunk(l, other, i));
        store_set_limit(l->store, 0);
        for (size_t i = 0; i < CHUNKS; i++) {
                for (; content_has(c, i); nap())
                        evictor_call(l->store);
                assert_int_equal(read_chunk_result(l, other, i), -EAGAIN);
        }
        assert_true(exists(&l->place, MAP));
        assert_int_equal(content_write(other, 0, bytes_of(l, 0)), 0);
        assert_true(reads_chunk(l, c, 0));
        content_close(other);
        store_close(s);
        content_close(c);
}

static void writer_is_refused_where_there_is_no_room(void **state)
{
        _cleanup_free_ uint8_t *draft = malloc(9 * MIB);
        struct layer *l = *state;
        struct content *c;
        int r;

        layer_open_store(l);
        c = open_full(l);
        memset(draft, 1, 9 * MIB);
        write_file(below(&l->place, "tmp/somebody-writes"), draft, 9 * MIB);
        store_set_limit(l->store, 1000);
        evictor_call(l->store);
        while (!atomic_load(&l->store->evictor.stuck))
                nap();
        assert_int_equal(content_write(c, 3, bytes_of(l, 3)), -EDQUOT);
        assert_false(content_has(c, 3));
        assert_int_equal(unlink(below(&l->place, "tmp/somebody-writes")), 0);
        evictor_call(l->store);
        while ((r = content_write(c, 3, bytes_of(l, 3))) == -EDQUOT || r == -EAGAIN)
                nap();
        assert_int_equal(r, 0);
        content_close(c);
}

/* ---- whole layers ---- */

static void set_age(struct layer *l, const char *file, time_t seconds)
{
        struct timespec times[2] = { { .tv_sec = time(NULL) - seconds }, { .tv_sec = time(NULL) - seconds } };

        assert_int_equal(utimensat(AT_FDCWD, below(&l->place, file), times, 0), 0);
}

static void publish_closed(struct layer *l)
{
        layer_open_store(l);
        assert_int_equal(publish(l, 65536), 0);
}

static void content_of_a_closed_layer_goes_and_its_toc_stays(void **state)
{
        struct layer *l = *state;
        struct content *c;

        publish_closed(l);
        set_age(l, MAP, 10);
        store_set_limit(l->store, 100000);
        evictor_call(l->store);
        while (exists(&l->place, CONTENT))
                nap();
        assert_true(exists(&l->place, LAYER_DIRECTORY "/toc"));
        c = open_content(l);
        assert_true(content_keeps(c));
        for (size_t i = 0; i < CHUNKS; i++)
                assert_false(content_has(c, i));
        content_close(c);
}

static void toc_goes_when_nothing_else_is_left_and_it_is_old(void **state)
{
        struct layer *l = *state;

        publish_closed(l);
        set_age(l, MAP, 7200);
        set_age(l, LAYER_DIRECTORY "/toc", 10);
        store_set_limit(l->store, 0);
        evictor_call(l->store);
        while (exists(&l->place, LAYER_DIRECTORY))
                nap();
        while (entries(below(&l->place, "tmp")) > 0) /* by way of which it goes */
                nap();
}

#define HEX "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
#define IMAGE "images/" HEX
#define BLOB "blobs/sha256/" HEX
#define OTHER "blobs/other/" HEX

static void write_old(struct layer *l, const char *file)
{
        write_file(below(&l->place, file), "x", 1);
        set_age(l, file, 3 * 24 * 3600);
}

/* The directory may be one that the user had before, with an images of its own. */
static void what_is_not_the_stores_stays(void **state)
{
        static const char *const names[] = { "images/holiday.jpg", (IMAGE "0"), "blobs/sha256/notes",
                                             (BLOB "0"),           OTHER,       "layers/a/b/c/content" };
        static const char *const directories[] = { "blobs/sha256", "blobs/other", "layers/a", "layers/a/b",
                                                   "layers/a/b/c" };
        struct layer *l = *state;

        layer_open_store(l);
        for (size_t k = 0; k < ELEMENTSOF(directories); k++)
                assert_int_equal(mkdir(below(&l->place, directories[k]), 0700), 0);
        for (size_t k = 0; k < ELEMENTSOF(names); k++)
                write_old(l, names[k]);
        store_set_limit(l->store, 0);
        /* The second time the first one is over. */
        for (int k = 0; k < 2; k++) {
                write_old(l, IMAGE);
                write_old(l, BLOB);
                evictor_call(l->store);
                while (exists(&l->place, IMAGE) || exists(&l->place, BLOB))
                        nap();
        }
        for (size_t k = 0; k < ELEMENTSOF(names); k++)
                assert_true(exists(&l->place, names[k]));
}

static void without_locks_only_what_is_idle_goes(void **state)
{
        struct layer *l = *state;

        publish_closed(l);
        atomic_store(&l->store->locks, false);
        set_age(l, MAP, 60);
        store_set_limit(l->store, 0);
        evictor_call(l->store);
        while (!atomic_load(&l->store->evictor.stuck))
                nap();
        assert_true(exists(&l->place, CONTENT));
        set_age(l, MAP, 7200);
        evictor_call(l->store);
        while (exists(&l->place, CONTENT))
                nap();
}

static void use_makes_a_layer_young(void **state)
{
        struct layer *l = *state;
        struct content *c;
        struct stat st;

        publish_closed(l);
        set_age(l, MAP, 7200);
        c = open_content(l);
        assert_int_equal(stat(below(&l->place, MAP), &st), 0);
        assert_true(time(NULL) - st.st_mtime < 3600);
        set_age(l, MAP, 7200);
        assert_true(reads_chunk(l, c, 0)); /* within a minute: not told again */
        assert_int_equal(stat(below(&l->place, MAP), &st), 0);
        assert_true(time(NULL) - st.st_mtime >= 3600);
        atomic_fetch_sub(&c->touched, 61 * TICKS_PER_SECOND);
        assert_true(reads_chunk(l, c, 0));
        assert_int_equal(stat(below(&l->place, MAP), &st), 0);
        assert_true(time(NULL) - st.st_mtime < 3600);
        content_close(c);
}

/* An evictor that holds on to a layer for ever must not hold up who opens it. */
static void open_does_without_content_that_is_being_evicted(void **state)
{
        struct layer *l = *state;
        struct content *c;
        int fd;

        publish_closed(l);
        fd = open(below(&l->place, MAP), O_RDWR | O_CLOEXEC);
        assert_int_equal(store_lock(l->store, fd, F_WRLCK, CONTENT_USE_OFFSET, 1), 0);
        c = open_content(l);
        assert_false(content_keeps(c));
        assert_false(content_has(c, 0));
        content_close(c);
        close(fd);
        c = open_content(l);
        assert_true(reads_chunk(l, c, 0));
        content_close(c);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                evict_test(evicted_chunk_is_gone_and_its_neighbours_are_not),
                evict_test(chunk_in_use_stays),
                evict_test(chunk_on_its_way_out_is_nobodys),
                evict_test(readers_get_right_bytes_while_chunks_go),
                evict_test(writing_keeps_the_store_within_its_limit),
                evict_test(oldest_chunks_go_and_no_more_than_needed),
                evict_test(full_store_is_found_by_who_only_opens_something),
                evict_test(layer_that_somebody_else_has_open_is_evicted_from),
                evict_test(writer_is_refused_where_there_is_no_room),
                evict_test(content_of_a_closed_layer_goes_and_its_toc_stays),
                evict_test(toc_goes_when_nothing_else_is_left_and_it_is_old),
                evict_test(what_is_not_the_stores_stays),
                evict_test(without_locks_only_what_is_idle_goes),
                evict_test(use_makes_a_layer_young),
                evict_test(open_does_without_content_that_is_being_evicted),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
