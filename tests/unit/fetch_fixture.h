/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A layer with a store, a pool, workers and a slow blob, for the tests of fetch; and reads that tell how they ended. */

#include "store_fixture.h"

#include "regfs/fetch.h"
#include "regfs/io.h"
#include "slow_blob.h"

#define HEX_ANY "sha256:" HEX_X

struct bench {
        struct place place;
        struct store *store;
        struct chunk *rows;
        struct chunk_table table;
        uint8_t *bytes;      /* the content */
        uint8_t *blob_bytes; /* the same memory when it is stored as it is */
        struct slow_blob *blob;
        struct content *content;
        struct pool *pool;
        struct workers *workers;
        struct fetcher *fetcher;
        uint64_t timeout_ms; /* of flights; before bench_open */
        size_t pool_limit;
        bool unwritable;           /* content can't be kept */
        fetch_recover_fn *recover; /* with the bench as its context */
};

static inline void fill_noise(uint8_t *out, size_t n, uint64_t seed)
{
        for (size_t k = 0; k < n; k++) {
                seed = seed * 6364136223846793005u + 1442695040888963407u;
                out[k] = (uint8_t) (seed >> 56);
        }
}

static inline int bench_setup(void **state)
{
        struct bench *b = calloc(1, sizeof(*b));

        *state = b;
        if (!b || place_make(&b->place) < 0)
                return -1;
        b->pool_limit = 16 * MIB;
        b->timeout_ms = 20000;
        return 0;
}

static inline int bench_teardown(void **state)
{
        struct bench *b = *state;
        int r;

        if (b->blob)
                slow_set(b->blob, allowed, UINT64_MAX);
        fetcher_free(b->fetcher);
        content_close(b->content);
        if (b->blob)
                blob_free(&b->blob->blob);
        workers_free(b->workers);
        pool_free(b->pool);
        store_close(b->store);
        if (b->blob_bytes != b->bytes)
                free(b->blob_bytes);
        free(b->bytes);
        free(b->rows);
        r = place_remove(&b->place);
        free(b);
        return r;
}

#define bench_test(function) cmocka_unit_test_setup_teardown(function, bench_setup, bench_teardown)

static inline void set_digest(struct chunk *c, const void *data, size_t n)
{
        struct digest d;

        assert_int_equal(digest_of(DIGEST_SHA256, data, n, &d), 0);
        memcpy(c->digest, d.bytes, SHA256_SIZE);
}

/* COUNT chunks of LENGTH bytes, stored as they are, with digests of their ranges. */
static inline void bench_stored(struct bench *b, size_t count, uint32_t length)
{
        b->rows = calloc(count, sizeof(*b->rows));
        b->bytes = b->blob_bytes = malloc(count * length);
        assert_true(b->rows && b->bytes);
        fill_noise(b->bytes, count * length, 1);
        for (size_t k = 0; k < count; k++) {
                b->rows[k] = (struct chunk) {
                        .content_offset = k * length,
                        .content_length = length,
                        .blob_offset = k * length,
                        .blob_length = length,
                        .checkpoint = CHECKPOINT_NONE,
                        .codec = CODEC_STORED,
                };
                set_digest(&b->rows[k], b->bytes + k * length, length);
        }
        b->table = (struct chunk_table) {
                .chunks = b->rows,
                .chunk_count = count,
                .content_size = count * length,
                .blob_size = count * length,
        };
}

static inline struct fetcher *bench_fetcher(struct bench *b)
{
        const struct fetcher_options o = {
                .blob = &b->blob->blob,
                .table = &b->table,
                .content = b->content,
                .pool = b->pool,
                .workers = b->workers,
                .timeout_ms = b->timeout_ms,
                .recover = b->recover,
                .recover_context = b,
        };
        struct fetcher *f = NULL;

        assert_int_equal(fetcher_new(&o, &f, NULL), 0);
        return f;
}

/* Everything else, once the rows are there. */
static inline void bench_open(struct bench *b)
{
        struct error e = ERROR_INIT;
        struct digest digest;

        if (chunk_table_check(&b->table, &e) < 0 || digest_parse(HEX_ANY, &digest, &e) < 0)
                fail_msg("%s", e.message);
        b->store = open_store(&b->place);
        if (b->unwritable) {
                /* Where the layer's directory is to be there is a file. */
                assert_int_equal(make_directories(below(&b->place, "layers/sha256"), 0700, NULL), 0);
                write_file(below(&b->place, "layers/sha256/" HEX_X), "", 0);
        }
        if (content_open(b->store, &digest, "plain", &b->table, &b->content, &e) < 0 ||
            workers_new("flight", 8, &b->workers, &e) < 0 || pool_new(b->pool_limit, &b->pool) < 0)
                fail_msg("%s", e.message);
        b->blob = slow_blob_new(b->blob_bytes, b->table.blob_size);
        b->fetcher = bench_fetcher(b);
}

static inline struct fetch_part bench_part(struct bench *b, uint64_t offset, size_t length, size_t at)
{
        return (struct fetch_part) { .fetcher = b->fetcher, .offset = offset, .length = length, .at = at };
}

static inline struct fetch_stats bench_stats(struct bench *b)
{
        struct fetch_stats s;

        fetcher_get_stats(b->fetcher, &s);
        return s;
}

static inline size_t buffers_out(struct pool *p)
{
        struct pool_stats s;

        pool_get_stats(p, &s);
        return s.buffers;
}

static inline void nap(void)
{
        nanosleep(&(struct timespec) { .tv_nsec = 200000 }, NULL);
}

/* Spins until CONDITION, which another thread brings about. */
#define await(condition)             \
        do {                         \
                while (!(condition)) \
                        nap();       \
        } while (0)

/* Until no flight is under way: queued ones have not asked yet. */
static inline void settle(struct bench *b)
{
        struct workers_stats w;

        do {
                nap();
                workers_get_stats(b->workers, &w);
        } while (w.busy[0] + w.busy[1] + w.busy[2] + w.queued[0] + w.queued[1] + w.queued[2] > 0);
}

/* ---- another process ----
 *
 * Another opening of the content stands for it: locks belong to open file descriptions. */

struct other {
        struct store *store;
        struct content *content;
};

static inline int other_open(struct bench *b, struct other *o)
{
        struct digest digest;

        *o = (struct other) { 0 };
        return digest_parse(HEX_ANY, &digest, NULL) < 0 || store_open(b->place.store, &o->store, NULL) < 0 ||
               content_open(o->store, &digest, "plain", &b->table, &o->content, NULL) < 0;
}

static inline void other_close(struct other *o)
{
        content_close(o->content);
        store_close(o->store);
}

static inline void other_claim(struct other *o, size_t first, size_t end)
{
        size_t taken = 0;

        assert_int_equal(content_claim(o->content, first, end, &taken), 0);
        assert_int_equal(taken, end);
}

/* ---- reads ---- */

/* One read and what became of it. */
struct taken {
        struct mutex lock;
        struct cond changed;
        unsigned done GUARDED_BY(lock); /* how often done was called */
        int result GUARDED_BY(lock);
        struct error error GUARDED_BY(lock);
        struct fetch_read *read;
        uint8_t *out;
};

static inline void taken_done(void *context, int result, const struct error *e)
{
        struct taken *t = context;

        mutex_lock(&t->lock);
        t->done++;
        t->result = result;
        if (e)
                t->error = *e;
        cond_broadcast(&t->changed);
        mutex_unlock(&t->lock);
}

static inline void taken_start(struct taken *t, const struct fetch_part *parts, size_t count, struct pool_buf *buffer,
                               uint8_t *out)
{
        struct error e = ERROR_INIT;

        *t = (struct taken) { .out = out };
        mutex_init(&t->lock);
        cond_init(&t->changed);
        if (fetch_start(parts, count, buffer, out, taken_done, t, &t->read, &e) < 0)
                fail_msg("%s", e.message);
}

static inline int taken_await(struct taken *t)
{
        int result;

        mutex_lock(&t->lock);
        while (t->done == 0)
                cond_wait(&t->changed, &t->lock);
        result = t->result;
        mutex_unlock(&t->lock);
        return result;
}

static inline unsigned taken_done_count(struct taken *t)
{
        unsigned n;

        mutex_lock(&t->lock);
        n = t->done;
        mutex_unlock(&t->lock);
        return n;
}

static inline void taken_end(struct taken *t)
{
        fetch_read_unref(t->read);
        cond_destroy(&t->changed);
        mutex_destroy(&t->lock);
}

/* Waits for a read of [OFFSET, OFFSET + LENGTH): its result, -EILSEQ for wrong bytes. */
static inline int bench_read(struct bench *b, uint64_t offset, size_t length, struct error *e)
{
        struct fetch_part part = bench_part(b, offset, length, 0);
        _cleanup_free_ uint8_t *out = malloc(length);
        int r;

        assert_non_null(out);
        memset(out, 0xee, length);
        r = fetch_wait(&part, 1, out, e);
        return r < 0 ? r : memcmp(out, b->bytes + offset, length) == 0 ? 0 : -EILSEQ;
}

static inline void expect_read(struct bench *b, uint64_t offset, size_t length)
{
        struct error e = ERROR_INIT;
        int r = bench_read(b, offset, length, &e);

        if (r < 0)
                fail_msg("%ju bytes at %ju: %s %s", (uintmax_t) length, (uintmax_t) offset, strerror(-r), e.message);
}

static inline void expect_no_read(struct bench *b, uint64_t offset, size_t length, int code, const char *words)
{
        struct error e = ERROR_INIT;

        assert_int_equal(bench_read(b, offset, length, &e), -code);
        assert_int_equal(e.code, code);
        if (!strstr(e.message, words))
                fail_msg("'%s' is not in '%s'", words, e.message);
}
