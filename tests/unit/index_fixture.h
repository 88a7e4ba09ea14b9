/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Layers out of memory or the fixtures, indexed into a store of the test's own, and read back chunk by chunk. */

#include <sys/mman.h>

#include "codec_streams.h"
#include "store_fixture.h"

#include "regfs/fetch.h"
#include "regfs/file_blob.h"
#include "regfs/index.h"
#include "regfs/io.h"
#include "regfs/toc.h"

#define PATIENCE_MS 20000

struct bench {
        struct place place;
        struct store *store;
        struct pool *pool;
        struct workers *workers;
};

static inline int bench_setup(void **state)
{
        struct bench *b = calloc(1, sizeof(*b));
        struct error e = ERROR_INIT;

        *state = b;
        if (!b || place_make(&b->place) < 0 || pool_new(16 * MIB, &b->pool) < 0 ||
            workers_new("flight", 4, &b->workers, &e) < 0)
                return -1;
        b->store = open_store(&b->place);
        return 0;
}

static inline int bench_teardown(void **state)
{
        struct bench *b = *state;
        struct pool_stats s;
        int r;

        pool_get_stats(b->pool, &s);
        assert_int_equal(s.buffers, 0);
        workers_free(b->workers);
        pool_free(b->pool);
        store_close(b->store);
        r = place_remove(&b->place);
        free(b);
        return r;
}

#define bench_test(function) cmocka_unit_test_setup_teardown(function, bench_setup, bench_teardown)

/* A blob of these bytes, named by their digest. */
static inline struct blob *memory_blob(const void *data, size_t n)
{
        int fd = memfd_create("layer", MFD_CLOEXEC);
        struct error e = ERROR_INIT;
        struct blob *b = NULL;
        struct digest digest;

        assert_true(fd >= 0);
        assert_int_equal(write_full(fd, data, n), 0);
        assert_int_equal(digest_of(DIGEST_SHA256, data, n, &digest), 0);
        if (file_blob_new(fd, 0, &digest, n, "the layer", &b, &e) < 0)
                fail_msg("%s", e.message);
        return b;
}

static inline void fixture_read(const char *name, struct buf *ret)
{
        const char *directory = getenv("REGFS_FIXTURES");
        struct error e = ERROR_INIT;
        char path[1000];

        snprintf(path, sizeof(path), "%s/layers/%s", directory ? directory : "tests/fixtures", name);
        if (file_read(AT_FDCWD, path, 64 * MIB, ret, &e) < 0)
                fail_msg("%s", e.message);
}

static inline int index_with(struct bench *b, struct blob *blob, const struct index_options *extra, struct error *e)
{
        struct index_options o = extra ? *extra : (struct index_options) { 0 };

        o.blob = blob;
        o.store = b->store;
        if (!o.pool)
                o.pool = b->pool;
        if (o.timeout_ms == 0)
                o.timeout_ms = PATIENCE_MS;
        return index_layer(&o, e);
}

static inline void expect_indexed(struct bench *b, struct blob *blob)
{
        struct error e = ERROR_INIT;

        if (index_with(b, blob, NULL, &e) < 0)
                fail_msg("%s", e.message);
        assert_int_equal(entries(below(&b->place, "tmp")), 0);
}

/* Nothing of the layer is in the store, nor anything half done. */
static inline void expect_nothing_published(struct bench *b, const struct blob *blob)
{
        assert_int_equal(store_layer_toc(b->store, &blob->digest, "plain"), -ENOENT);
        assert_int_equal(entries(below(&b->place, "tmp")), 0);
}

static inline void expect_not_indexed(struct bench *b, struct blob *blob, const struct index_options *extra, int code,
                                      const char *words)
{
        struct error e = ERROR_INIT;

        assert_int_equal(index_with(b, blob, extra, &e), -code);
        assert_int_equal(e.code, code);
        if (!strstr(e.message, words))
                fail_msg("'%s' is not in '%s'", words, e.message);
        if (!strstr(e.message, blob->name))
                fail_msg("the blob is not named in '%s'", e.message);
        expect_nothing_published(b, blob);
}

static inline struct toc *open_layer(struct bench *b, const struct blob *blob)
{
        _cleanup_close_ int fd = store_layer_toc(b->store, &blob->digest, "plain");
        struct error e = ERROR_INIT;
        struct toc *t = NULL;

        assert_true(fd >= 0);
        if (toc_open(fd, &blob->digest, &t, &e) < 0 || toc_check(t, &e) < 0)
                fail_msg("%s", e.message);
        return t;
}

static inline struct content *layer_content(struct bench *b, const struct toc *t)
{
        struct error e = ERROR_INIT;
        struct content *c = NULL;

        if (content_open(b->store, &t->layer, "plain", &t->chunks, &c, &e) < 0)
                fail_msg("%s", e.message);
        return c;
}

/* As if all had been evicted. */
static inline void drop_content(struct bench *b, const struct toc *t)
{
        static const char *const files[] = { "content", "map" };
        char hex[2 * DIGEST_MAX_SIZE + 1], name[200];

        for (size_t k = 0; k < ELEMENTSOF(files); k++) {
                snprintf(name, sizeof(name), "layers/sha256/%s/plain/%s", digest_hex(&t->layer, hex), files[k]);
                assert_int_equal(unlink(below(&b->place, name)), 0);
        }
}

/* Each chunk alone, out of an empty store, is what STRAIGHT has at its place. */
static inline void expect_chunks(struct bench *b, struct blob *blob, const struct toc *t, const struct buf *straight)
{
        _cleanup_free_ uint8_t *out = malloc(CHUNK_CONTENT_MAX);

        for (size_t i = 0; i < t->chunks.chunk_count; i++) {
                const struct chunk *c = &t->chunks.chunks[i];
                _cleanup_(content_close_ptr) struct content *content = NULL;
                _cleanup_(fetcher_free_ptr) struct fetcher *f = NULL;
                struct fetcher_options o = {
                        .blob = blob, .table = &t->chunks, .pool = b->pool, .workers = b->workers
                };
                struct error e = ERROR_INIT;

                /* Slices bring all of theirs: they are compared as they come. */
                if (i == 0 || !(c->flags & CHUNK_SLICE) || c->skip == 0) {
                        drop_content(b, t);
                        content = layer_content(b, t);
                        assert_false(content_has(content, i));
                } else {
                        content = layer_content(b, t);
                }
                o.content = content;
                assert_int_equal(fetcher_new(&o, &f, NULL), 0);

                struct fetch_part part = { .fetcher = f, .offset = c->content_offset, .length = c->content_length };

                if (fetch_wait(&part, 1, out, &e) < 0)
                        fail_msg("chunk %zu: %s", i, e.message);
                assert_memory_equal(out, straight->data + c->content_offset, c->content_length);
        }
}

/* Indexes the layer; then everything reads as STRAIGHT, from the store and afresh. Returns the number of chunks. */
static inline size_t expect_layer(struct bench *b, struct blob *blob, const struct buf *straight)
{
        _cleanup_(content_close_ptr) struct content *content = NULL;
        _cleanup_(toc_close_ptr) struct toc *t = NULL;
        _cleanup_free_ uint8_t *out = malloc(straight->len + 1);
        size_t n;

        expect_indexed(b, blob);
        t = open_layer(b, blob);
        assert_int_equal(t->chunks.content_size, straight->len);
        assert_int_equal(t->chunks.blob_size, blob->size);

        content = layer_content(b, t);
        for (size_t i = 0; i < t->chunks.chunk_count; i++)
                assert_true(content_has(content, i));
        assert_int_equal(content_read(content, 0, straight->len, out), 0);
        if (straight->len > 0)
                assert_memory_equal(out, straight->data, straight->len);
        content = content_close(content);

        expect_chunks(b, blob, t, straight);
        n = t->chunks.chunk_count;
        return n;
}
