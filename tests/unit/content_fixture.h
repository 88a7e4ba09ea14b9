/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A layer of five chunks for the tests of content: its bytes, and hands in its files. */

#include <xxhash.h>

#include "store_fixture.h"

#define CHUNKS 5
#define CONTENT_SIZE 400000
#define MAP_HEADER 64
#define MAP_WORDS_END (MAP_HEADER + 8 * CHUNKS)
#define MAP_SIZE (MAP_WORDS_END + (8 + 4) * CHUNKS) /* epochs and stamps behind the words */
#define LAYER_DIRECTORY "layers/sha256/" HEX_X "/plain"
#define CONTENT LAYER_DIRECTORY "/content"
#define MAP LAYER_DIRECTORY "/map"

/* Five chunks: two without a gap, one of zeros, one longer than what is verified in one piece, one at an odd place. */
struct layer {
        struct place place;
        struct store *store;
        struct digest digest;
        struct chunk rows[CHUNKS];
        struct chunk_table table;
        uint8_t *bytes; /* zeros between the chunks */
};

static inline void fill_random(uint8_t *out, size_t n, uint64_t seed)
{
        for (size_t k = 0; k < n; k++) {
                seed = seed * 6364136223846793005u + 1442695040888963407u;
                out[k] = (uint8_t) (seed >> 56);
        }
}

static inline void set_row(struct layer *l, size_t i, uint64_t offset, uint32_t length)
{
        l->rows[i] = (struct chunk) { .content_offset = offset, .content_length = length, .codec = CODEC_STORED };
}

static inline int layer_setup(void **state)
{
        struct layer *l = calloc(1, sizeof(*l));

        *state = l;
        if (!l || place_make(&l->place) < 0 || digest_of(DIGEST_SHA256, "x", 1, &l->digest) < 0)
                return -1;
        set_row(l, 0, 0, 5000);
        set_row(l, 1, 5000, 45000);
        set_row(l, 2, 61440, 16384);
        set_row(l, 3, 77824, 300000);
        set_row(l, 4, 380001, 4001);
        l->table = (struct chunk_table) { .chunks = l->rows, .chunk_count = CHUNKS, .content_size = CONTENT_SIZE };
        l->bytes = calloc(1, CONTENT_SIZE);
        if (!l->bytes)
                return -1;
        for (size_t i = 0; i < CHUNKS; i++) {
                if (i != 2)
                        fill_random(l->bytes + l->rows[i].content_offset, l->rows[i].content_length, i + 1);
        }
        memset(l->bytes + 8192, 0, 3 * 4096 + 77); /* holes within chunks */
        memset(l->bytes + 98304, 0, 131072);
        return 0;
}

static inline int layer_teardown(void **state)
{
        struct layer *l = *state;
        int r = place_remove(&l->place);

        store_close(l->store);
        free(l->bytes);
        free(l);
        return r;
}

static inline void layer_open_store(struct layer *l)
{
        struct error e = ERROR_INIT;

        if (store_open(l->place.store, &l->store, &e) < 0)
                fail_msg("%s", e.message);
}

static inline struct content *open_content(struct layer *l)
{
        struct content *c = NULL;
        struct error e = ERROR_INIT;

        if (!l->store)
                layer_open_store(l);
        if (content_open(l->store, &l->digest, "plain", &l->table, &c, &e) < 0)
                fail_msg("%s", e.message);
        return c;
}

static inline const uint8_t *bytes_of(const struct layer *l, size_t i)
{
        return l->bytes + l->rows[i].content_offset;
}

static inline uint64_t hash_of(const struct layer *l, size_t i)
{
        return XXH3_64bits(bytes_of(l, i), l->rows[i].content_length);
}

static inline int end_chunk(const struct layer *l, struct layer_draft *d, size_t i)
{
        return layer_draft_chunk(d, l->rows[i].content_offset, l->rows[i].content_length, hash_of(l, i), NULL);
}

/* Appends all content in pieces of STEP bytes, and publishes it with its TOC. */
static inline int publish(struct layer *l, size_t step)
{
        struct layer_draft *d = NULL;
        int r;

        r = layer_draft_new(l->store, &l->digest, "plain", &d, NULL);
        for (size_t done = 0; r == 0 && done < CONTENT_SIZE; done += step)
                r = layer_draft_append(d, l->bytes + done, MIN(step, CONTENT_SIZE - done), NULL);
        for (size_t i = 0; r == 0 && i < CHUNKS; i++)
                r = end_chunk(l, d, i);
        if (r == 0)
                r = write(layer_draft_toc_fd(d), "toc", 3) == 3 ? layer_draft_publish(d, NULL) : -EIO;
        layer_draft_free(d);
        return r;
}

static inline struct content *publish_and_open(struct layer *l)
{
        layer_open_store(l);
        assert_int_equal(publish(l, 10007), 0);
        return open_content(l);
}

static inline bool reads(const struct layer *l, struct content *c, uint64_t offset, size_t length)
{
        _cleanup_free_ uint8_t *out = malloc(length + 1);

        memset(out, 0xa5, length + 1);
        if (content_read(c, offset, length, out) < 0)
                return false;
        return memcmp(out, l->bytes + offset, length) == 0 && out[length] == 0xa5;
}

static inline bool reads_chunk(const struct layer *l, struct content *c, size_t i)
{
        return reads(l, c, l->rows[i].content_offset, l->rows[i].content_length);
}

static inline int read_result(struct content *c, uint64_t offset, size_t length)
{
        _cleanup_free_ uint8_t *out = malloc(length + 1);

        return content_read(c, offset, length, out);
}

static inline int read_chunk_result(const struct layer *l, struct content *c, size_t i)
{
        return read_result(c, l->rows[i].content_offset, l->rows[i].content_length);
}

static inline void poke(const struct layer *l, const char *file, uint64_t offset, const void *data, size_t n)
{
        int fd = open(below(&l->place, file), O_WRONLY | O_CLOEXEC);

        assert_true(fd >= 0);
        assert_int_equal(pwrite(fd, data, n, (off_t) offset), n);
        close(fd);
}

static inline void poke_word(const struct layer *l, size_t i, uint64_t word)
{
        poke(l, MAP, MAP_HEADER + 8 * i, &word, sizeof(word));
}

static inline uint64_t peek_word(const struct layer *l, size_t i)
{
        int fd = open(below(&l->place, MAP), O_RDONLY | O_CLOEXEC);
        uint64_t word = 0;

        assert_true(fd >= 0);
        assert_int_equal(pread(fd, &word, sizeof(word), (off_t) (MAP_HEADER + 8 * i)), sizeof(word));
        close(fd);
        return word;
}

static inline size_t lines_with(const char *path, const char *text)
{
        FILE *f = fopen(path, "re");
        char line[2000];
        size_t n = 0;

        CHECK(f);
        while (fgets(line, sizeof(line), f))
                n += strstr(line, text) != NULL;
        fclose(f);
        return n;
}

/* Reads some of a chunk, or all of it: which, *SEED says, and moves on. *RET is the chunk. Returns 0; -EILSEQ for wrong
 * bytes; what content_read says. OUT has CONTENT_SIZE bytes. */
static inline int read_at_random(const struct layer *l, struct content *c, uint64_t *seed, uint8_t *out, size_t *ret)
{
        size_t i, begin, length;
        uint64_t offset;
        int r;

        *seed = *seed * 6364136223846793005u + 1442695040888963407u;
        i = (*seed >> 33) % CHUNKS;
        begin = (*seed >> 60) & 1 ? 0 : (*seed >> 40) % l->rows[i].content_length;
        length = l->rows[i].content_length - begin;
        offset = l->rows[i].content_offset + begin;
        *ret = i;
        r = content_read(c, offset, length, out);
        return r < 0 ? r : memcmp(out, l->bytes + offset, length) == 0 ? 0 : -EILSEQ;
}
