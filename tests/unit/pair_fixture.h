/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Two stores on one directory stand for two processes that have the layer of content_fixture.h open. */

#include "cache/store/store_internal.h"
#include "content_fixture.h"
#include "regfs/io.h"

struct pair {
        struct layer *l;
        struct store *second;
        struct content *one, *other; /* who evicts, and who reads and writes */
        size_t chunk;
};

static inline int pair_setup(void **state)
{
        struct pair *p = calloc(1, sizeof(*p));
        void *layer = NULL;

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
        return 0;
}

static inline int pair_teardown(void **state)
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

static inline void evict(struct content *c, size_t first, size_t end)
{
        size_t reached = first;

        CHECK(content_lock_eviction(c));
        (void) content_evict(c, first, end, &reached);
        content_unlock_eviction(c);
        CHECK(reached == end);
}

static inline void one_evicts(void *context)
{
        struct pair *p = context;

        evict(p->one, p->chunk, p->chunk + 1);
}

static inline void one_writes(void *context)
{
        struct pair *p = context;

        CHECK(content_write(p->one, p->chunk, bytes_of(p->l, p->chunk)) == 0);
}

static inline void one_evicts_and_writes(void *context)
{
        one_evicts(context);
        one_writes(context);
}

/* Half of the chunk, and all of it. */
static inline void expect_part(const struct pair *p, struct content *c, size_t i, bool there)
{
        const struct chunk *chunk = &p->l->rows[i];
        uint64_t begin = chunk->content_offset + chunk->content_length / 4;

        if (there)
                assert_true(reads(p->l, c, begin, chunk->content_length / 2));
        else
                assert_int_equal(read_result(c, begin, chunk->content_length / 2), -EAGAIN);
}

static inline void expect_chunk(const struct pair *p, struct content *c, size_t i, bool there)
{
        if (there)
                assert_true(reads_chunk(p->l, c, i));
        else
                assert_int_equal(read_chunk_result(p->l, c, i), -EAGAIN);
        expect_part(p, c, i, there);
}

/* A read of chunk I that may fail; its bytes may not be wrong. */
static inline void expect_right_or_nothing(const struct pair *p, struct content *c, size_t i, bool whole)
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

static inline uint64_t peek_epoch(const struct pair *p, size_t i)
{
        uint64_t epoch = EPOCH_NONE;
        int fd = open(below(&p->l->place, MAP), O_RDONLY | O_CLOEXEC);

        assert_true(fd >= 0);
        assert_int_equal(pread(fd, &epoch, sizeof(epoch), MAP_WORDS_END + 8 * (off_t) i), sizeof(epoch));
        close(fd);
        return epoch;
}
