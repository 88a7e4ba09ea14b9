/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the tests of embedded tables of contents share: a store, blobs in memory that count their requests and go wrong
 * when told to, and the table that comes out. */

#include <sys/mman.h>

#include "store_fixture.h"

#include "regfs/embedded.h"
#include "regfs/fetch.h"
#include "regfs/file_blob.h"
#include "regfs/io.h"
#include "regfs/toc.h"

#define STARGZ "containerd.io/snapshot/stargz/toc.digest"
#define CHUNKED "io.github.containers.zstd-chunked."
#define OLD_CHUNKED "io.containers.zstd-chunked."

struct bench {
        struct place place;
        struct store *store;
        struct pool *pool;
        struct workers *workers;
        struct buf external;       /* the table of layers that have none in them; empty: there is none either */
        unsigned external_read;    /* how often it was asked for */
        bool external_unreachable; /* its blob fails */
};

static inline int bench_setup(void **state)
{
        struct bench *b = calloc(1, sizeof(*b));
        struct error e = ERROR_INIT;

        *state = b;
        if (!b || place_make(&b->place) < 0 || store_open(b->place.store, &b->store, &e) < 0 ||
            pool_new(64 * MIB, &b->pool) < 0 || workers_new("flight", 4, &b->workers, &e) < 0)
                return -1;
        return 0;
}

static inline int bench_teardown(void **state)
{
        struct bench *b = *state;
        int r;

        buf_free(&b->external);
        workers_free(b->workers);
        pool_free(b->pool);
        store_close(b->store);
        r = place_remove(&b->place);
        free(b);
        return r;
}

/* ---- blobs ---- */

/* Wraps another blob. */
struct watched_blob {
        struct blob blob;
        struct blob *inner;
        atomic_uint requests;
        atomic_uint_fast64_t bytes;
        atomic_uint spoilt; /* so many requests yet come with their first byte changed */
        bool unreachable;   /* every request fails */
};

static inline int watched_range_open(struct blob *b, uint64_t offset, uint64_t length, struct pool_buf *buffer,
                                     size_t at, uint64_t patience_ms, struct blob_range **ret, struct error *e)
{
        struct watched_blob *w = (struct watched_blob *) b;
        unsigned spoilt = atomic_load(&w->spoilt);
        uint64_t received;
        int r;

        atomic_fetch_add(&w->requests, 1);
        atomic_fetch_add(&w->bytes, length);
        if (w->unreachable)
                return error_set(e, ERROR_UNREACHABLE, ENOENT, "blob 7: nobody there");
        r = blob_range_open(w->inner, offset, length, buffer, at, patience_ms, ret, e);
        if (r == 0 && spoilt > 0) {
                atomic_fetch_sub(&w->spoilt, 1);
                assert_int_equal(blob_range_wait(*ret, length, &received, e), 0);
                buffer->data[at] ^= 0x55;
        }
        return r;
}

static inline struct blob *watched_free(struct blob *b)
{
        struct watched_blob *w = (struct watched_blob *) b;

        blob_free(w->inner);
        free(w);
        return NULL;
}

static inline struct watched_blob *watch(const void *data, size_t n)
{
        static const struct blob_ops ops = { .range_open = watched_range_open, .free = watched_free };
        struct watched_blob *w = calloc(1, sizeof(*w));
        struct error e = ERROR_INIT;
        struct digest digest;
        int fd = memfd_create("regfs-test", MFD_CLOEXEC);

        assert_non_null(w);
        assert_true(fd >= 0);
        assert_int_equal(write_full(fd, data, n), 0);
        assert_int_equal(digest_of(DIGEST_SHA256, data, n, &digest), 0);
        assert_int_equal(file_blob_new(fd, 0, &digest, n, "blob 7", &w->inner, &e), 0);
        w->blob = (struct blob) { .ops = &ops, .digest = digest, .size = n, .name = w->inner->name };
        return w;
}

static inline void unwatch(struct watched_blob **w)
{
        if (*w)
                blob_free(&(*w)->blob);
}
#define _cleanup_watched_ _cleanup_(unwatch)

static inline void read_fixture(const char *name, struct buf *ret)
{
        const char *directory = getenv("REGFS_FIXTURES");
        struct error e = ERROR_INIT;
        char path[4096];

        snprintf(path, sizeof(path), "%s/layers/%s", directory ? directory : "tests/fixtures", name);
        if (file_read(AT_FDCWD, path, 64 * MIB, ret, &e) < 0)
                fail_msg("%s", e.message);
}

static inline struct watched_blob *watch_fixture(const char *name)
{
        _cleanup_buf_ struct buf data = { 0 };

        read_fixture(name, &data);
        return watch(data.data, data.len);
}

/* ---- indexing ---- */

static inline int find_external(void *context, const struct digest *layer, struct blob **ret)
{
        struct bench *b = context;
        struct watched_blob *w;

        assert_int_equal(layer->algorithm, DIGEST_SHA256);
        b->external_read++;
        if (b->external.len == 0)
                return -ENOENT;
        w = watch(b->external.data, b->external.len);
        w->unreachable = b->external_unreachable;
        *ret = &w->blob;
        return 0;
}

/* ANNOTATIONS as in struct descriptor. */
static inline int index_blob(struct bench *b, struct watched_blob *w, char *const *annotations,
                             char kind[LAYER_KIND_MAX], struct error *e)
{
        const struct descriptor d = {
                .digest = w->blob.digest,
                .size = w->blob.size,
                .annotations = (char **) annotations,
        };
        const struct embedded_options options = {
                .blob = &w->blob,
                .descriptor = &d,
                .pool = b->pool,
                .store = b->store,
                .timeout_ms = 1000,
                .external = find_external,
                .external_context = b,
        };

        return embedded_index(&options, kind, e);
}

static inline struct toc *open_toc(struct bench *b, const struct watched_blob *w, const char *kind)
{
        _cleanup_close_ int fd = store_layer_toc(b->store, &w->blob.digest, kind);
        struct error e = ERROR_INIT;
        struct toc *toc = NULL;

        assert_true(fd >= 0);
        if (toc_open(fd, &w->blob.digest, &toc, &e) < 0 || toc_check(toc, &e) < 0)
                fail_msg("%s", e.message);
        return toc;
}

/* Indexes, which must succeed, and opens what is published. */
static inline struct toc *index_and_open(struct bench *b, struct watched_blob *w, char *const *annotations,
                                         char kind[LAYER_KIND_MAX])
{
        struct error e = ERROR_INIT;

        if (index_blob(b, w, annotations, kind, &e) < 0)
                fail_msg("%s", e.message);
        return open_toc(b, w, kind);
}

/* ---- reading ---- */

struct reader {
        struct content *content;
        struct fetcher *fetcher;
};

static inline struct reader reader_open(struct bench *b, struct watched_blob *w, const struct toc *toc,
                                        const char *kind)
{
        struct error e = ERROR_INIT;
        struct reader r = { 0 };

        if (content_open(b->store, &w->blob.digest, kind, &toc->chunks, &r.content, &e) < 0)
                fail_msg("%s", e.message);

        const struct fetcher_options options = {
                .blob = &w->blob,
                .table = &toc->chunks,
                .content = r.content,
                .pool = b->pool,
                .workers = b->workers,
                .timeout_ms = 1000,
        };
        if (fetcher_new(&options, &r.fetcher, &e) < 0)
                fail_msg("%s", e.message);
        return r;
}

static inline void reader_close(struct reader *r)
{
        fetcher_free(r->fetcher);
        content_close(r->content);
}
#define _cleanup_reader_ _cleanup_(reader_close)

/* LENGTH content bytes from OFFSET; the caller frees. */
static inline uint8_t *read_content(const struct reader *r, uint64_t offset, size_t length)
{
        struct fetch_part part = { .fetcher = r->fetcher, .offset = offset, .length = length };
        uint8_t *out = malloc(length + 1);
        struct error e = ERROR_INIT;

        assert_non_null(out);
        if (length > 0 && fetch_wait(&part, 1, out, &e) < 0)
                fail_msg("%s", e.message);
        return out;
}

/* The row of PATH below the root. */
static inline const struct inode *inode_at(const struct itable *t, const char *path)
{
        uint32_t row = 0;

        while (*path) {
                size_t n = strcspn(path, "/");
                uint32_t i = itable_find(t, row, path, n);

                if (i == ITABLE_NONE || t->dirents[i].type != DIRENT_INODE)
                        return NULL;
                row = t->dirents[i].target;
                path += n + (path[n] == '/');
        }
        return &t->inodes[row];
}
