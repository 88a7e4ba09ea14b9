/* SPDX-License-Identifier: Apache-2.0 */

/* Chunks that are taken away while others have the layer open. Two stores on one directory stand for two processes;
 * what the one does between two steps of the other happens in calls that are wrapped (see meson.build). */

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "pair_fixture.h"
#include "regfs/inventory.h"
#include "regfs/log.h"
#include "regfs/thread.h"

/* ---- between the steps ---- */

int __real_pread_full(int fd, void *data, size_t n, uint64_t offset);
int __wrap_pread_full(int fd, void *data, size_t n, uint64_t offset);
int __real_store_write_sparse(struct store *s, int fd, const void *data, size_t n, uint64_t offset, bool fresh);
int __wrap_store_write_sparse(struct store *s, int fd, const void *data, size_t n, uint64_t offset, bool fresh);
int __real_content_store_words(struct content *c, size_t first, size_t count, uint64_t word);
int __wrap_content_store_words(struct content *c, size_t first, size_t count, uint64_t word);
int __real_content_raise_epochs(struct content *c, size_t first, size_t count, bool odd);
int __wrap_content_raise_epochs(struct content *c, size_t first, size_t count, bool odd);

typedef void step_fn(void *context);

/* Before and after a call's next turn. */
struct point {
        step_fn *before, *after;
};

static struct {
        int fd;               /* of the reads that count */
        size_t reads;         /* so far */
        atomic_size_t stored; /* words that are not 0 */
        struct point read, write, store, raise;
        void *context;
} between;

static void step(step_fn **where)
{
        step_fn *fn = *where;

        if (!fn)
                return;
        *where = NULL;
        fn(between.context);
}

int __wrap_pread_full(int fd, void *data, size_t n, uint64_t offset)
{
        int r;

        if (between.fd != fd || fd == 0)
                return __real_pread_full(fd, data, n, offset);
        between.reads++;
        step(&between.read.before);
        r = __real_pread_full(fd, data, n, offset);
        step(&between.read.after);
        return r;
}

int __wrap_store_write_sparse(struct store *s, int fd, const void *data, size_t n, uint64_t offset, bool fresh)
{
        int r;

        step(&between.write.before);
        r = __real_store_write_sparse(s, fd, data, n, offset, fresh);
        step(&between.write.after);
        return r;
}

int __wrap_content_store_words(struct content *c, size_t first, size_t count, uint64_t word)
{
        int r;

        atomic_fetch_add(&between.stored, word != 0);
        step(&between.store.before);
        r = __real_content_store_words(c, first, count, word);
        step(&between.store.after);
        return r;
}

int __wrap_content_raise_epochs(struct content *c, size_t first, size_t count, bool odd)
{
        int r;

        step(&between.raise.before);
        r = __real_content_raise_epochs(c, first, count, odd);
        step(&between.raise.after);
        return r;
}

static int steps_setup(void **state)
{
        int r = pair_setup(state);

        memset(&between, 0, sizeof(between));
        between.context = *state;
        return r;
}

#define shared_test(function) cmocka_unit_test_setup_teardown(function, steps_setup, pair_teardown)

/* ---- one after the other ---- */

static void chunk_that_another_process_has_verified_goes_and_comes_back(void **state)
{
        struct pair *p = *state;

        for (size_t i = 0; i < CHUNKS; i++)
                expect_chunk(p, p->other, i, true);
        evict(p->one, 1, 4);
        for (size_t i = 0; i < CHUNKS; i++) {
                assert_int_equal(content_has(p->other, i), i == 0 || i == 4);
                expect_chunk(p, p->other, i, i == 0 || i == 4);
        }
        for (size_t i = 1; i < 4; i++) {
                assert_int_equal(content_write(p->other, i, bytes_of(p->l, i)), 0);
                expect_chunk(p, p->one, i, true);
        }
        assert_true(reads(p->l, p->other, 0, CONTENT_SIZE));
}

/* It was away and is there again, between two reads: what was found out about its bytes is no longer so. */
static void chunk_that_was_away_is_verified_again(void **state)
{
        struct pair *p = *state;

        for (size_t i = 1; i <= 3; i += 2) {
                expect_chunk(p, p->other, i, true);
                evict(p->one, i, i + 1);
                poke_word(p->l, i, hash_of(p->l, i) | 1);
                expect_part(p, p->other, i, false);
                assert_int_equal(peek_word(p->l, i), 0);
                poke_word(p->l, i, hash_of(p->l, i) | 1);
                expect_chunk(p, p->other, i, false);
                assert_int_equal(content_write(p->other, i, bytes_of(p->l, i)), 0);
                expect_chunk(p, p->other, i, true);
        }
}

static void eviction_costs_other_chunks_nothing(void **state)
{
        struct pair *p = *state;

        for (size_t i = 0; i < CHUNKS; i++)
                expect_chunk(p, p->other, i, true);
        for (int k = 0; k < 20; k++) {
                evict(p->one, 0, 2);
                assert_int_equal(content_write(p->one, 0, bytes_of(p->l, 0)), 0);
                assert_int_equal(content_write(p->one, 1, bytes_of(p->l, 1)), 0);
                between.reads = 0;
                between.fd = p->other->fd;
                expect_part(p, p->other, 3, true);
                assert_int_equal(between.reads, 1);
                between.fd = p->other->map_fd;
                expect_part(p, p->other, 3, true);
                assert_int_equal(between.reads, 1); /* none of the map */
        }
        /* The one that was away is read once more, and then no more. */
        between.fd = p->other->fd;
        between.reads = 0;
        expect_part(p, p->other, 1, true);
        assert_int_equal(between.reads, 2);
        expect_part(p, p->other, 1, true);
        assert_int_equal(between.reads, 3);
}

/* ---- overtaken ---- */

static void reader_that_is_overtaken_gets_nothing_wrong(void **state)
{
        /* What one does before the other's read, and after it. */
        static const struct point overtakes[] = {
                { one_evicts, NULL },
                { one_evicts, one_writes },
                { NULL, one_evicts },
                { NULL, one_evicts_and_writes },
                { one_evicts_and_writes, one_evicts_and_writes },
        };
        struct pair *p = *state;

        between.fd = p->other->fd;
        for (size_t k = 0; k < ELEMENTSOF(overtakes) * 8; k++) {
                bool verified = k & 1, whole = k & 2;

                p->chunk = k & 4 ? 1 : 3;
                if (!content_has(p->one, p->chunk))
                        one_writes(p);
                atomic_store(&p->other->verified[p->chunk], 0);
                if (verified)
                        expect_chunk(p, p->other, p->chunk, true);
                between.read = overtakes[k / 8];
                expect_right_or_nothing(p, p->other, p->chunk, whole);
                assert_null(between.read.before);
                assert_null(between.read.after);
                if (!content_has(p->one, p->chunk))
                        one_writes(p);
                expect_chunk(p, p->other, p->chunk, true);
        }
}

static void one_writes_and_another_thread_verifies(void *context)
{
        struct pair *p = context;

        one_writes(p);
        CHECK(reads_chunk(p->l, p->other, p->chunk));
}

/* What another thread finds out after the read says nothing about what was read. */
static void bytes_are_not_believed_because_later_ones_were_right(void **state)
{
        struct pair *p = *state;

        between.fd = p->other->fd;
        for (int k = 0; k < 4; k++) {
                p->chunk = 3;
                if (k & 1)
                        expect_chunk(p, p->other, 3, true);
                between.read = (struct point) { one_evicts, one_writes_and_another_thread_verifies };
                expect_right_or_nothing(p, p->other, 3, true);
                between.read = (struct point) { one_evicts, one_writes_and_another_thread_verifies };
                expect_right_or_nothing(p, p->other, 3, false);
                expect_chunk(p, p->other, 3, true);
                atomic_store(&p->other->verified[3], 0);
        }
}

static void writer_that_is_overtaken_keeps_nothing(void **state)
{
        /* What one does after the other has written the bytes, before it stores the word, and after that. */
        static const struct {
                step_fn *written, *before, *after;
        } overtakes[] = {
                { one_evicts, NULL, NULL },
                { NULL, one_evicts, NULL },
                { NULL, NULL, one_evicts },
                { NULL, NULL, NULL },
        };
        struct pair *p = *state;

        p->chunk = 3;
        for (size_t k = 0; k < ELEMENTSOF(overtakes); k++) {
                bool is_kept = k == ELEMENTSOF(overtakes) - 1;

                poke_word(p->l, 3, 0);
                between.write.after = overtakes[k].written;
                between.store.before = overtakes[k].before;
                between.store.after = overtakes[k].after;
                between.stored = 0;
                assert_int_equal(content_write(p->other, 3, bytes_of(p->l, 3)), is_kept ? 0 : -EAGAIN);
                assert_int_equal(peek_word(p->l, 3), is_kept ? hash_of(p->l, 3) | 1 : 0);
                assert_int_equal(between.stored, k > 0); /* or others would see the word, for a moment */
                expect_chunk(p, p->other, 3, is_kept);
        }
        /* Before the first byte, the epoch is another one already. */
        between.write.before = one_evicts;
        poke_word(p->l, 3, 0);
        assert_int_equal(content_write(p->other, 3, bytes_of(p->l, 3)), -EAGAIN);
        assert_int_equal(content_write(p->other, 3, bytes_of(p->l, 3)), 0);
        expect_chunk(p, p->one, 3, true);
}

static void other_reads(void *context)
{
        const struct pair *p = context;

        expect_right_or_nothing(p, p->other, p->chunk, false);
        expect_right_or_nothing(p, p->other, p->chunk, true);
}

static void other_writes_and_reads(void *context)
{
        const struct pair *p = context;
        int r = content_write(p->other, p->chunk, bytes_of(p->l, p->chunk));

        assert_true(r == 0 || r == -EAGAIN);
        other_reads(context);
}

static void other_writes_and_reads_and_later_reads(void *context)
{
        other_writes_and_reads(context);
        between.raise.before = other_reads;
}

/* At each step of an eviction. */
static void who_comes_in_the_middle_of_an_eviction_gets_nothing_wrong(void **state)
{
        struct pair *p = *state;

        p->chunk = 3;
        for (int k = 0; k < 12; k++) {
                if (!content_has(p->one, 3))
                        one_writes(p);
                if (k % 3 == 0)
                        atomic_store(&p->other->verified[3], 0);
                else
                        expect_chunk(p, p->other, 3, true);
                if (k % 4 == 0)
                        between.raise.before = other_writes_and_reads;
                else if (k % 4 == 1)
                        between.raise.after = other_writes_and_reads;
                else if (k % 4 == 2)
                        between.store.before = other_writes_and_reads;
                else /* between the word and the bytes, and before the end */
                        between.store.after = other_writes_and_reads_and_later_reads;
                one_evicts(p);
                assert_null(between.raise.before);
                expect_right_or_nothing(p, p->other, 3, k & 1);
                assert_int_equal(content_write(p->other, 3, bytes_of(p->l, 3)), 0);
                expect_chunk(p, p->one, 3, true);
                expect_chunk(p, p->other, 3, true);
        }
}

/* ---- while somebody is at it ---- */

static void set_epoch(const struct pair *p, size_t i, uint64_t epoch)
{
        poke(p->l, MAP, MAP_WORDS_END + 8 * i, &epoch, sizeof(epoch));
}

static void chunk_on_its_way_out_is_read_by_its_checksum(void **state)
{
        struct pair *p = *state;

        assert_true(content_lock_eviction(p->one));
        for (int verified = 0; verified < 2; verified++) {
                set_epoch(p, 3, 1 + 2 * (uint64_t) verified);
                expect_chunk(p, p->other, 3, true);
                expect_chunk(p, p->other, 3, true);
                assert_int_equal(atomic_load(&p->other->verified[3]), verified);
                assert_int_equal(content_write(p->other, 3, bytes_of(p->l, 3)), -EAGAIN);
                assert_int_equal(content_write(p->other, 1, bytes_of(p->l, 1)), 0);
                set_epoch(p, 3, 0);
                expect_chunk(p, p->other, 3, true);
        }
        set_epoch(p, 3, 5);
        poke(p->l, CONTENT, p->l->rows[3].content_offset + 5000, "damage", 6);
        expect_chunk(p, p->other, 3, false);
        assert_int_equal(peek_word(p->l, 3), hash_of(p->l, 3) | 1);
        assert_int_equal(peek_epoch(p, 3), 5);
        content_unlock_eviction(p->one);
        expect_chunk(p, p->other, 3, false);
        assert_int_equal(peek_epoch(p, 3), 6);
        assert_int_equal(peek_word(p->l, 3), 0);
}

static void poke_new(const char *path, const void *data, size_t n)
{
        int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

        assert_true(fd >= 0);
        assert_int_equal(pwrite_full(fd, data, n, 0), 0);
        close(fd);
}

static void one_at_a_time_evicts(void **state)
{
        struct pair *p = *state;

        assert_true(content_lock_eviction(p->one));
        assert_false(content_lock_eviction(p->one)); /* another thread */
        assert_false(content_lock_eviction(p->other));
        content_unlock_eviction(p->one);
        assert_true(content_lock_eviction(p->other));
        assert_false(content_lock_eviction(p->one));
        content_unlock_eviction(p->other);
        atomic_store(&p->second->locks, false);
        assert_false(content_lock_eviction(p->other));
        assert_true(content_lock_eviction(p->one));
        content_unlock_eviction(p->one);
}

/* Those who open the layer now, by the new map and the same content, would not be told. */
static void nothing_is_evicted_by_a_map_that_was_replaced(void **state)
{
        struct pair *p = *state;
        _cleanup_buf_ struct buf map = { 0 };
        struct content *third = NULL;
        char name[300];

        assert_int_equal(file_read(AT_FDCWD, below(&p->l->place, MAP), MAP_SIZE, &map, NULL), 0);
        snprintf(name, sizeof(name), "%s", below(&p->l->place, LAYER_DIRECTORY "/new"));
        poke_new(name, map.data, map.len);
        assert_int_equal(rename(name, below(&p->l->place, MAP)), 0);
        assert_false(content_lock_eviction(p->one));
        assert_int_equal(content_open(p->second, &p->l->digest, "plain", &p->l->table, &third, NULL), 0);
        evict(third, 3, 4);
        content_close(third);
        /* Where nobody opens the content any more, its room may be had back. */
        assert_int_equal(unlink(below(&p->l->place, CONTENT)), 0);
        evict(p->one, 1, 2);
}

/* Nothing is told as damage that is none. */
static void read_beside_an_evictor(const struct place *place)
{
        void *state = NULL;
        struct pair *p;
        char path[300];

        snprintf(path, sizeof(path), "%s/log", place->path);
        CHECK(log_open(LOG_LEVEL_WARNING, path, NULL) == 0);
        CHECK(pair_setup(&state) == 0);
        p = state;
        p->chunk = 3;
        between.fd = p->other->fd;
        for (int k = 0; k < 40; k++) {
                uint8_t out[1000];

                between.read = (struct point) { k & 1 ? one_evicts : NULL, k & 2 ? one_evicts_and_writes : one_writes };
                if (k & 4)
                        (void) read_chunk_result(p->l, p->other, 3);
                else if (content_read(p->other, p->l->rows[3].content_offset, sizeof(out), out) == 0)
                        CHECK(memcmp(out, bytes_of(p->l, 3), sizeof(out)) == 0);
                between.write = (struct point) { .after = one_evicts };
                (void) content_write(p->other, 3, bytes_of(p->l, 3));
                between.read = between.write = (struct point) { NULL, NULL };
                (void) read_chunk_result(p->l, p->other, 3);
        }
        CHECK(lines_with(path, "") == 0);
        CHECK(pair_teardown(&state) == 0);
}

static void eviction_is_no_damage(void **state)
{
        struct pair *p = *state;

        run_in_child(read_beside_an_evictor, &p->l->place, NULL);
}

/* ---- the dead ---- */

enum stage { STAGE_ODD, STAGE_CLEARED, STAGE_PUNCHED, STAGES };

/* Begins to take chunk 3 away and dies. */
static void die_evicting(const struct pair *p, enum stage stage)
{
        struct store *s = NULL;
        struct content *c = NULL;
        int status = -1;
        pid_t pid;

        fflush(NULL);
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
                CHECK(store_open(p->l->place.store, &s, NULL) == 0);
                CHECK(content_open(s, &p->l->digest, "plain", &p->l->table, &c, NULL) == 0);
                CHECK(content_lock_eviction(c));
                CHECK(content_raise_epochs(c, 3, 1, true) == 0);
                if (stage >= STAGE_CLEARED)
                        CHECK(content_store_words(c, 3, 1, 0) == 0);
                if (stage >= STAGE_PUNCHED)
                        CHECK(fallocate(c->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                        (off_t) p->l->rows[3].content_offset, 100000) == 0);
                _exit(0);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
        assert_true(peek_epoch(p, 3) & 1);
}

static void what_a_dead_evictor_left_is_ended_by_who_comes_next(void **state)
{
        struct pair *p = *state;

        for (enum stage stage = STAGE_ODD; stage < STAGES; stage++) {
                for (int how = 0; how < 3; how++) {
                        die_evicting(p, stage);
                        if (how == 0)
                                expect_part(p, p->other, 3, stage == STAGE_ODD);
                        else if (how == 1)
                                expect_chunk(p, p->other, 3, stage == STAGE_ODD);
                        else
                                evict(p->one, 3, 4);
                        assert_int_equal(content_write(p->other, 3, bytes_of(p->l, 3)), 0);
                        assert_false(peek_epoch(p, 3) & 1);
                        expect_chunk(p, p->one, 3, true);
                        between.fd = p->other->fd;
                        between.reads = 0;
                        expect_part(p, p->other, 3, true);
                        assert_int_equal(between.reads, 1);
                }
        }
}

/* The descriptor by which somebody else has the content open. */
static int find_content(const struct pair *p)
{
        struct stat content, st;

        assert_int_equal(fstat(p->one->fd, &content), 0);
        for (int fd = 3; fd < 100; fd++)
                if (fd != p->one->fd && fd != p->other->fd && fstat(fd, &st) == 0 && st.st_ino == content.st_ino)
                        return fd;
        return -1;
}

static void one_writes_and_evicts_next_time(void *context)
{
        one_writes(context);
        between.read.before = one_evicts;
        between.read.after = one_writes;
}

static void chunk_that_comes_and_goes_is_not_audited_as_damaged(void **state)
{
        struct pair *p = *state;
        const struct inventory_item item = {
                .kind = INVENTORY_LAYER,
                .path = (char *) LAYER_DIRECTORY,
                .digest = p->l->digest,
        };
        struct error e = ERROR_INIT;
        struct audit *a = NULL;

        p->l->rows[1].flags = CHUNK_NO_DIGEST;
        p->chunk = 1; /* read in one piece */
        assert_int_equal(audit_open(p->second, &item, &p->l->table, &a, &e), 0);
        assert_int_equal(audit_check(a, 1, &e), 0);
        one_evicts(p);
        assert_int_equal(audit_check(a, 1, &e), -ENOENT);
        one_writes(p);
        /* Away while it is read, and back before its word is looked at again; the next time too. */
        between.fd = find_content(p);
        between.read.before = one_evicts;
        between.read.after = one_writes_and_evicts_next_time;
        assert_int_equal(audit_check(a, 1, &e), 0);
        assert_null(between.read.before);
        assert_true(between.reads > 2);
        poke(p->l, CONTENT, p->l->rows[1].content_offset + 5000, "damage", 6);
        assert_int_equal(audit_check(a, 1, &e), -EBADMSG);
        audit_close(a);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                shared_test(chunk_that_another_process_has_verified_goes_and_comes_back),
                shared_test(chunk_that_was_away_is_verified_again),
                shared_test(eviction_costs_other_chunks_nothing),
                shared_test(reader_that_is_overtaken_gets_nothing_wrong),
                shared_test(bytes_are_not_believed_because_later_ones_were_right),
                shared_test(writer_that_is_overtaken_keeps_nothing),
                shared_test(who_comes_in_the_middle_of_an_eviction_gets_nothing_wrong),
                shared_test(chunk_on_its_way_out_is_read_by_its_checksum),
                shared_test(one_at_a_time_evicts),
                shared_test(nothing_is_evicted_by_a_map_that_was_replaced),
                shared_test(eviction_is_no_damage),
                shared_test(what_a_dead_evictor_left_is_ended_by_who_comes_next),
                shared_test(chunk_that_comes_and_goes_is_not_audited_as_damaged),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
