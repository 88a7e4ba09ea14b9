/* SPDX-License-Identifier: Apache-2.0 */

/* Content between threads and processes, on read-only stores and on full disks. */

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/statvfs.h>

#include "cache/store/store_internal.h"
#include "content_fixture.h"
#include "regfs/log.h"
#include "regfs/thread.h"

/* ---- many at once ---- */

static void processes_share_chunks(void **state)
{
        struct layer *l = *state;
        struct content *c = open_content(l);
        int to_child[2], to_parent[2], status = -1;
        char byte = 0;
        pid_t pid;

        assert_int_equal(pipe2(to_child, O_CLOEXEC), 0);
        assert_int_equal(pipe2(to_parent, O_CLOEXEC), 0);
        fflush(NULL);
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
                struct store *s = NULL;
                struct content *own = NULL;

                CHECK(store_open(l->place.store, &s, NULL) == 0);
                CHECK(content_open(s, &l->digest, "plain", &l->table, &own, NULL) == 0);
                CHECK(!content_has(own, 0));
                CHECK(write(to_parent[1], "x", 1) == 1);
                CHECK(read(to_child[0], &byte, 1) == 1);
                CHECK(content_has(own, 0));
                CHECK(reads_chunk(l, own, 0));
                CHECK(content_write(own, 3, bytes_of(l, 3)) == 0);
                _exit(0);
        }
        assert_int_equal(read(to_parent[0], &byte, 1), 1);
        assert_false(content_has(c, 3));
        assert_int_equal(content_write(c, 0, bytes_of(l, 0)), 0);
        assert_int_equal(write(to_child[1], "x", 1), 1);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
        assert_true(content_has(c, 3));
        assert_true(reads(l, c, 77824, 10));
        for (int k = 0; k < 2; k++) {
                close(to_child[k]);
                close(to_parent[k]);
        }
        content_close(c);
}

struct crowd {
        const struct layer *layer;
        struct content *contents[2]; /* two openings of one layer, as two processes have them */
        atomic_uint reads, wrong, readers;
        int map;
};

static void *crowd_reads(void *arg)
{
        struct crowd *w = arg;
        uint8_t *out = malloc(CONTENT_SIZE);
        uint64_t seed = (uint64_t) (uintptr_t) &seed;

        /* Until there was enough to see: reads of a chunk that is away don't count. */
        for (unsigned done = 0; done < 400;) {
                size_t i;
                int r = read_at_random(w->layer, w->contents[(seed >> 50) & 1], &seed, out, &i);

                if (r == -EAGAIN)
                        continue;
                atomic_fetch_add(&w->wrong, r < 0);
                done++;
        }
        atomic_fetch_sub(&w->readers, 1);
        free(out);
        return NULL;
}

static void *crowd_writes(void *arg)
{
        struct crowd *w = arg;

        for (size_t k = 0; atomic_load(&w->readers) > 0; k++) {
                size_t i = k % CHUNKS;

                atomic_fetch_add(&w->wrong, content_write(w->contents[(k / CHUNKS) & 1], i, bytes_of(w->layer, i)) < 0);
        }
        return NULL;
}

static void *crowd_clears(void *arg)
{
        struct crowd *w = arg;

        for (size_t k = 0; atomic_load(&w->readers) > 0; k++) {
                const uint64_t word = k % 7 == 0 ? 0x123457 : 0;

                if (pwrite(w->map, &word, sizeof(word), (off_t) (MAP_HEADER + 8 * (k % CHUNKS))) != sizeof(word))
                        atomic_fetch_add(&w->wrong, 1);
                sched_yield();
        }
        return NULL;
}

static void readers_writers_and_clearers_get_along(void **state)
{
        struct layer *l = *state;
        struct crowd w = { .layer = l, .readers = 3 };
        void *(*const runs[])(void *) = {
                crowd_reads, crowd_reads, crowd_reads, crowd_writes, crowd_writes, crowd_clears,
        };
        pthread_t threads[ELEMENTSOF(runs)];

        w.contents[0] = publish_and_open(l);
        w.contents[1] = open_content(l);
        w.map = open(below(&l->place, MAP), O_WRONLY | O_CLOEXEC);
        for (size_t k = 0; k < ELEMENTSOF(runs); k++)
                assert_int_equal(thread_start(&threads[k], "crowd", runs[k], &w), 0);
        for (size_t k = 0; k < ELEMENTSOF(runs); k++)
                pthread_join(threads[k], NULL);
        assert_int_equal(atomic_load(&w.wrong), 0);

        for (size_t k = 0; k < 2; k++) {
                for (size_t i = 0; i < CHUNKS; i++) {
                        (void) read_chunk_result(l, w.contents[k], i);
                        assert_int_equal(content_write(w.contents[k], i, bytes_of(l, i)), 0);
                }
                assert_true(reads(l, w.contents[k], 0, CONTENT_SIZE));
                content_close(w.contents[k]);
        }
        close(w.map);
}

/* ---- read-only ---- */

static struct layer *layer_in_child(const struct place *p)
{
        void *state = NULL;
        struct layer *l;

        CHECK(layer_setup(&state) == 0);
        l = state;
        CHECK(rmdir(l->place.path) == 0);
        l->place = *p;
        CHECK(store_open(p->store, &l->store, NULL) == 0);
        return l;
}

static void use_read_only_content(struct layer *l, uint64_t wrong_word)
{
        struct content *c = NULL;

        l->store = store_close(l->store);
        CHECK(store_open(l->place.store, &l->store, NULL) == 0);
        CHECK(content_open(l->store, &l->digest, "plain", &l->table, &c, NULL) == 0);
        CHECK(reads_chunk(l, c, 0));
        CHECK(reads_chunk(l, c, 3));
        CHECK(content_has(c, 1));
        for (int k = 0; k < 2; k++) {
                CHECK(read_result(c, 6000, 10) == -EAGAIN);
                CHECK(!content_has(c, 1));
        }
        CHECK(peek_word(l, 1) == wrong_word);
        CHECK(content_write(c, 1, bytes_of(l, 1)) == -EROFS);
        CHECK(content_write(c, 0, bytes_of(l, 0)) == -EROFS);
        CHECK(reads_chunk(l, c, 0));
        CHECK(reads_chunk(l, c, 4));
        content_close(c);
}

static void read_only_mount(const struct place *p)
{
        struct layer *l;
        char log[300];

        private_mounts();
        l = layer_in_child(p);
        CHECK(publish(l, 10007) == 0);
        poke_word(l, 1, 4711);
        make_read_only(p->store);
        snprintf(log, sizeof(log), "%s/log", p->path);
        CHECK(log_open(LOG_LEVEL_WARNING, log, NULL) == 0);
        use_read_only_content(l, 4711);
        CHECK(lines_with(log, "") == 1 && lines_with(log, "chunk 1,") == 1);
}

static void content_on_a_read_only_mount_works(void **state)
{
        struct layer *l = *state;

        run_in_child(read_only_mount, &l->place, "no root with a mount namespace");
}

static void read_only_files(const struct place *p)
{
        struct layer *l;

        become_nobody();
        l = layer_in_child(p);
        CHECK(publish(l, 10007) == 0);
        poke_word(l, 1, 4711);
        CHECK(chmod(below(p, CONTENT), 0400) == 0);
        CHECK(chmod(below(p, MAP), 0400) == 0);
        use_read_only_content(l, 4711);
        CHECK(chmod(p->store, 0500) == 0);
        use_read_only_content(l, 4711);
}

static void content_without_write_permission_works(void **state)
{
        struct layer *l = *state;

        place_give(&l->place);
        run_in_child(read_only_files, &l->place, NULL);
}

static void read_only_without_map(const struct place *p)
{
        struct content *c = NULL;
        struct layer *l;

        become_nobody();
        l = layer_in_child(p);
        CHECK(publish(l, 10007) == 0);
        CHECK(unlink(below(p, MAP)) == 0);
        CHECK(chmod(p->store, 0500) == 0);
        l->store = store_close(l->store);
        CHECK(store_open(p->store, &l->store, NULL) == 0);
        CHECK(content_open(l->store, &l->digest, "plain", &l->table, &c, NULL) == 0);
        CHECK(read_chunk_result(l, c, 0) == -EAGAIN);
        CHECK(!content_has(c, 0));
        CHECK(content_write(c, 0, bytes_of(l, 0)) == -EROFS);
        content_close(c);
}

static void read_only_layer_without_map_is_all_absent(void **state)
{
        struct layer *l = *state;

        place_give(&l->place);
        run_in_child(read_only_without_map, &l->place, NULL);
}

/* ---- a full disk ---- */

#define BIG_CHUNK ((uint32_t) MIB)
#define BIG_COUNT 24

struct big {
        struct chunk rows[BIG_COUNT];
        struct chunk_table table;
        uint8_t *bytes;
};

static void make_big(struct big *b)
{
        b->bytes = malloc((size_t) BIG_COUNT * BIG_CHUNK);
        CHECK(b->bytes);
        fill_random(b->bytes, (size_t) BIG_COUNT * BIG_CHUNK, 3);
        for (size_t i = 0; i < BIG_COUNT; i++)
                b->rows[i] = (struct chunk) { .content_offset = i * BIG_CHUNK, .content_length = BIG_CHUNK };
        b->table = (struct chunk_table) {
                .chunks = b->rows,
                .chunk_count = BIG_COUNT,
                .content_size = BIG_COUNT * BIG_CHUNK,
        };
}

static void append_big(const struct big *b, struct layer_draft *d, size_t first, size_t last)
{
        for (size_t i = first; i < last; i++) {
                const uint8_t *bytes = b->bytes + i * BIG_CHUNK;

                for (size_t done = 0; done < BIG_CHUNK; done += 128 * KIB)
                        CHECK(layer_draft_append(d, bytes + done, 128 * KIB, NULL) == 0);
                CHECK(layer_draft_chunk(d, i * BIG_CHUNK, BIG_CHUNK, XXH3_64bits(bytes, BIG_CHUNK), NULL) == 0);
        }
}

static bool has_toc(struct store *s, const struct digest *digest)
{
        _cleanup_close_ int fd = store_layer_toc(s, digest, "plain");

        return fd >= 0;
}

static size_t count_kept(const struct big *b, struct content *c)
{
        _cleanup_free_ uint8_t *out = malloc(BIG_CHUNK);
        size_t kept = 0;

        for (size_t i = 0; i < BIG_COUNT; i++) {
                int r = content_read(c, i * BIG_CHUNK, BIG_CHUNK, out);

                CHECK(r == (content_has(c, i) ? 0 : -EAGAIN));
                CHECK(r < 0 || memcmp(out, b->bytes + i * BIG_CHUNK, BIG_CHUNK) == 0);
                kept += r == 0;
        }
        return kept;
}

static void nearly_full_disk(const struct place *p)
{
        struct digest digest = { .algorithm = DIGEST_SHA256 };
        struct layer_draft *d = NULL;
        struct content *c = NULL;
        struct store *s = NULL;
        struct statvfs v;
        char log[300];
        struct big b;
        size_t kept;

        private_mounts();
        make_big(&b);
        snprintf(log, sizeof(log), "%s/log", p->path);
        CHECK(log_open(LOG_LEVEL_WARNING, log, NULL) == 0);
        make_small_disk(p->store, "20M");
        CHECK(store_open(p->store, &s, NULL) == 0);
        CHECK(layer_draft_new(s, &digest, "plain", &d, NULL) == 0);
        append_big(&b, d, 0, BIG_COUNT);
        CHECK(statvfs(p->store, &v) == 0);
        CHECK(v.f_bavail >= v.f_blocks / 20);
        CHECK(write(layer_draft_toc_fd(d), "toc", 3) == 3);
        CHECK(layer_draft_publish(d, NULL) == 0);
        layer_draft_free(d);
        CHECK(lines_with(log, "not kept") == 1);

        CHECK(content_open(s, &digest, "plain", &b.table, &c, NULL) == 0);
        kept = count_kept(&b, c);
        CHECK(kept >= 15 && kept <= 19);
        CHECK(content_write(c, BIG_COUNT - 1, b.bytes + (BIG_COUNT - 1) * BIG_CHUNK) == -ENOSPC);
        CHECK(!content_has(c, BIG_COUNT - 1));
        CHECK(lines_with(log, "only 5 %") == 1);
        CHECK(count_kept(&b, c) == kept);
        CHECK(statvfs(p->store, &v) == 0);
        CHECK(v.f_bavail >= v.f_blocks / 20);
        content_close(c);
        store_close(s);
        CHECK(umount(p->store) == 0);
}

static void last_twentieth_of_the_disk_is_left_free(void **state)
{
        struct layer *l = *state;

        run_in_child(nearly_full_disk, &l->place, "no root with a mount namespace");
}

static void fill_disk(const char *path)
{
        static const char zeros[4096];
        int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

        CHECK(fd >= 0);
        while (write(fd, zeros, sizeof(zeros)) > 0)
                ;
        CHECK(errno == ENOSPC);
        close(fd);
}

/* The room was there when the disk was asked, and then somebody else took it. */
static void full_disk(const struct place *p)
{
        struct digest digest = { .algorithm = DIGEST_SHA256 };
        struct layer_draft *d = NULL;
        struct content *c = NULL;
        struct store *s = NULL;
        struct big b;
        size_t kept;

        private_mounts();
        make_big(&b);
        make_small_disk(p->store, "20M");
        CHECK(store_open(p->store, &s, NULL) == 0);
        CHECK(layer_draft_new(s, &digest, "plain", &d, NULL) == 0);
        append_big(&b, d, 0, 2);
        CHECK(write(layer_draft_toc_fd(d), "toc", 3) == 3);
        fill_disk(below(p, "filler"));
        append_big(&b, d, 2, BIG_COUNT);
        CHECK(layer_draft_publish(d, NULL) == 0);
        layer_draft_free(d);
        CHECK(has_toc(s, &digest));

        CHECK(content_open(s, &digest, "plain", &b.table, &c, NULL) == 0);
        kept = count_kept(&b, c);
        CHECK(kept <= 2);
        fill_disk(below(p, "more"));
        for (size_t i = 0; i < BIG_COUNT; i++)
                CHECK(content_has(c, i) || content_write(c, i, b.bytes + i * BIG_CHUNK) < 0);
        CHECK(count_kept(&b, c) == kept);

        CHECK(unlink(below(p, "filler")) == 0);
        CHECK(unlink(below(p, "more")) == 0);
        content_close(c);
        CHECK(content_open(s, &digest, "plain", &b.table, &c, NULL) == 0);
        CHECK(content_write(c, 7, b.bytes + 7 * BIG_CHUNK) == 0);
        CHECK(count_kept(&b, c) == kept + 1);
        content_close(c);
        store_close(s);
        CHECK(umount(p->store) == 0);
}

static void full_disk_costs_content_and_nothing_else(void **state)
{
        struct layer *l = *state;

        run_in_child(full_disk, &l->place, "no root with a mount namespace");
}

/* On tmpfs, to load from a hole of a mapping is to want room on the disk; where there is none it is the end of the
 * process. */
static void full_disk_and_a_large_map(const struct place *p)
{
        static struct chunk rows[5000];
        const struct chunk_table table = { .chunks = rows, .chunk_count = ELEMENTSOF(rows), .content_size = 5000 };
        struct digest digest = { .algorithm = DIGEST_SHA256 };
        struct content *c = NULL;
        struct store *s = NULL;

        for (size_t i = 0; i < ELEMENTSOF(rows); i++)
                rows[i] = (struct chunk) { .content_offset = i, .content_length = 1, .codec = CODEC_STORED };
        private_mounts();
        make_small_disk(p->store, "2M");
        CHECK(store_open(p->store, &s, NULL) == 0);
        CHECK(content_open(s, &digest, "plain", &table, &c, NULL) == 0);
        CHECK(content_keeps(c));
        fill_disk(below(p, "filler"));
        for (size_t i = 0; i < ELEMENTSOF(rows); i++) {
                CHECK(!content_has(c, i));
                CHECK(read_result(c, i, 1) == -EAGAIN);
                (void) content_write(c, i, "x");
                CHECK(content_load_epoch(c, i) == 0);
                CHECK(content_idle_ms(c, i) < 60000);
        }
        content_close(c);
        store_close(s);
        CHECK(umount(p->store) == 0);
}

static void map_on_a_full_disk_is_read_without_harm(void **state)
{
        struct layer *l = *state;

        run_in_child(full_disk_and_a_large_map, &l->place, "no root with a mount namespace");
}

/* No root needed: a limit on the size of files makes writes fail as a full disk does. */
static void limited_file_size(const struct place *p)
{
        const struct rlimit limit = { .rlim_cur = 100000, .rlim_max = 100000 };
        struct layer *l = layer_in_child(p);
        struct content *c = NULL;

        CHECK(signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
        CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
        CHECK(publish(l, 10007) == 0);
        CHECK(has_toc(l->store, &l->digest));
        CHECK(!exists(p, CONTENT) && !exists(p, MAP));
        CHECK(content_open(l->store, &l->digest, "plain", &l->table, &c, NULL) == 0);
        for (size_t i = 0; i < CHUNKS; i++) {
                CHECK(!content_has(c, i));
                CHECK(read_chunk_result(l, c, i) == -EAGAIN);
                CHECK(content_write(c, i, bytes_of(l, i)) == -EFBIG);
        }
        content_close(c);
        CHECK(entries(below(p, "tmp")) == 0);
}

static void failing_writes_cost_content_and_nothing_else(void **state)
{
        struct layer *l = *state;

        run_in_child(limited_file_size, &l->place, NULL);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, layer_setup, layer_teardown)
        const struct CMUnitTest tests[] = {
                TEST(processes_share_chunks),
                TEST(readers_writers_and_clearers_get_along),
                TEST(content_on_a_read_only_mount_works),
                TEST(content_without_write_permission_works),
                TEST(read_only_layer_without_map_is_all_absent),
                TEST(last_twentieth_of_the_disk_is_left_free),
                TEST(map_on_a_full_disk_is_read_without_harm),
                TEST(full_disk_costs_content_and_nothing_else),
                TEST(failing_writes_cost_content_and_nothing_else),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
