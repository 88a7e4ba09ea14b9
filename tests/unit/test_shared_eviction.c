/* SPDX-License-Identifier: Apache-2.0 */

/* Chunks that are taken away while others have the layer open. Two stores on one directory stand for two processes;
 * what the one does between two steps of the other happens in calls that are wrapped (see meson.build). */

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "cache/store/store_internal.h"
#include "content_fixture.h"
#include "regfs/inventory.h"
#include "regfs/io.h"
#include "regfs/log.h"
#include "regfs/thread.h"

#define shared_test(function) cmocka_unit_test_setup_teardown(function, pair_setup, pair_teardown)

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

/* ---- two processes ---- */

struct pair {
        struct layer *l;
        struct store *second;
        struct content *one, *other; /* who evicts, and who reads and writes */
        size_t chunk;
};

static int pair_setup(void **state)
{
        struct pair *p = calloc(1, sizeof(*p));
        void *layer = NULL;

        memset(&between, 0, sizeof(between));
        if (!p || layer_setup(&layer) < 0)
                return -1;
        *state = p;
        p->l = layer;
        p->one = open_content(p->l);
        if (store_open(p->l->place.store, &p->second, NULL) < 0 ||
            content_open(p->second, &p->l->digest, "plain", &p->l->table, &p->other, NULL) < 0)
                return -1;
        for (size_t i = 0; i < CHUNKS; i++)
                if (content_write(p->one, i, bytes_of(p->l, i)) < 0)
                        return -1;
        between.context = p;
        return 0;
}

static int pair_teardown(void **state)
{
        struct pair *p = *state;
        void *layer = p->l;
        int r;

        content_close(p->one);
        content_close(p->other);
        store_close(p->second);
        r = layer_teardown(&layer);
        free(p);
        return r;
}

static void evict(struct content *c, size_t first, size_t end)
{
        size_t reached = first;

        CHECK(content_lock_eviction(c));
        (void) content_evict(c, first, end, &reached);
        content_unlock_eviction(c);
        CHECK(reached == end);
}

static void one_evicts(void *context)
{
        struct pair *p = context;

        evict(p->one, p->chunk, p->chunk + 1);
}

static void one_writes(void *context)
{
        struct pair *p = context;

        CHECK(content_write(p->one, p->chunk, bytes_of(p->l, p->chunk)) == 0);
}

static void one_evicts_and_writes(void *context)
{
        one_evicts(context);
        one_writes(context);
}

/* Half of the chunk, and all of it. */
static void expect_part(const struct pair *p, struct content *c, size_t i, bool there)
{
        const struct chunk *chunk = &p->l->rows[i];
        uint64_t begin = chunk->content_offset + chunk->content_length / 4;

        if (there)
                assert_true(reads(p->l, c, begin, chunk->content_length / 2));
        else
                assert_int_equal(read_result(c, begin, chunk->content_length / 2), -EAGAIN);
}

static void expect_chunk(const struct pair *p, struct content *c, size_t i, bool there)
{
        if (there)
                assert_true(reads_chunk(p->l, c, i));
        else
                assert_int_equal(read_chunk_result(p->l, c, i), -EAGAIN);
        expect_part(p, c, i, there);
}

/* A read of chunk I that may fail; its bytes may not be wrong. */
static void expect_right_or_nothing(const struct pair *p, struct content *c, size_t i, bool whole)
{
        const struct chunk *chunk = &p->l->rows[i];
        size_t length = whole ? chunk->content_length : chunk->content_length / 2;
        uint64_t begin = whole ? chunk->content_offset : chunk->content_offset + chunk->content_length / 4;
        _cleanup_free_ uint8_t *out = malloc(length);
        int r;

        assert_non_null(out);
        r = content_read(c, begin, length, out);
        assert_true(r == 0 || r == -EAGAIN);
        assert_true(r < 0 || memcmp(out, p->l->bytes + begin, length) == 0);
}

static uint64_t peek_epoch(const struct pair *p, size_t i)
{
        uint64_t epoch = EPOCH_NONE;
        int fd = open(below(&p->l->place, MAP), O_RDONLY | O_CLOEXEC);

        assert_true(fd >= 0);
        assert_int_equal(pread(fd, &epoch, sizeof(epoch), MAP_WORDS_END + 8 * (off_t) i), sizeof(epoch));
        close(fd);
        return epoch;
}

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

struct crowd {
        struct layer *layer;
        struct content *contents[PROCESSES];
        atomic_uint readers, wrong, evicted, hits;
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

        for (unsigned done = 0, enough = work(); done < enough;) {
                struct content *c = w->contents[m->k % PROCESSES];
                size_t i, begin, length;
                uint64_t offset;

                seed = seed * 6364136223846793005u + 1442695040888963407u;
                i = (seed >> 33) % CHUNKS;
                begin = (seed >> 60) & 1 ? 0 : (seed >> 40) % w->layer->rows[i].content_length;
                length = w->layer->rows[i].content_length - begin;
                offset = w->layer->rows[i].content_offset + begin;
                if (content_read(c, offset, length, out) < 0) {
                        (void) content_write(c, i, bytes_of(w->layer, i));
                        continue;
                }
                atomic_fetch_add(&w->wrong, memcmp(out, w->layer->bytes + offset, length) != 0);
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
        assert_true(atomic_load(&w.evicted) > 100);
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
                shared_test(chunk_that_another_process_has_verified_goes_and_comes_back),
                shared_test(chunk_that_was_away_is_verified_again),
                shared_test(eviction_costs_other_chunks_nothing),
                shared_test(reader_that_is_overtaken_gets_nothing_wrong),
                shared_test(bytes_are_not_believed_because_later_ones_were_right),
                shared_test(writer_that_is_overtaken_keeps_nothing),
                shared_test(who_comes_in_the_middle_of_an_eviction_gets_nothing_wrong),
                shared_test(chunk_on_its_way_out_is_read_by_its_checksum),
                shared_test(one_at_a_time_evicts),
                shared_test(eviction_is_no_damage),
                shared_test(what_a_dead_evictor_left_is_ended_by_who_comes_next),
                shared_test(chunk_that_comes_and_goes_is_not_audited_as_damaged),
                shared_test(what_another_process_has_fetched_is_young),
                shared_test(use_by_another_process_makes_a_chunk_young),
                shared_test(use_is_told_when_the_layer_is_closed_and_by_the_evictor),
                shared_test(readers_of_several_processes_get_right_bytes_while_each_evicts),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
