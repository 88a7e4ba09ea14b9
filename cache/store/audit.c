/* SPDX-License-Identifier: Apache-2.0 */

/* A layer's content as somebody sees it who does not use it. Words are read and cleared with pread and pwrite, never
 * through a mapping, so that no hand in the file can end this process. A word is cleared without its bytes being taken
 * away: a reader that has looked at the word before still finds them. */

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "regfs/inventory.h"
#include "regfs/io.h"
#include "store_internal.h"

#define PIECE (256 * KIB)

/* A chunk that others change while it is read is read again, this often. */
#define CHECK_ATTEMPTS 4

struct audit {
        const struct chunk_table *table;
        int fd, map_fd;
        uint64_t *words; /* as they were */
        uint8_t *piece;
        XXH3_state_t *hash;
        struct hasher *digest;
};

static uint64_t content_end(const struct chunk_table *t)
{
        const struct chunk *last = t->chunk_count > 0 ? &t->chunks[t->chunk_count - 1] : NULL;

        return last ? last->content_offset + last->content_length : 0;
}

static void expected_header(const struct chunk_table *t, XXH3_state_t *state, struct content_map_header *ret)
{
        XXH3_64bits_reset(state);
        for (size_t i = 0; i < t->chunk_count; i++)
                content_identity_add(state, t->chunks[i].content_offset, t->chunks[i].content_length);
        content_map_header_init(ret, t->chunk_count, XXH3_64bits_digest(state));
}

static int check_files(const struct audit *a, const char *path, struct error *e)
{
        struct content_map_header header, expected;
        struct stat content, map;
        const char *why = NULL;
        int r;

        expected_header(a->table, a->hash, &expected);
        if (fstat(a->fd, &content) < 0 || fstat(a->map_fd, &map) < 0)
                return error_errno(e, errno, "%s", path);
        r = pread_full(a->map_fd, &header, sizeof(header), 0);
        if (r < 0 && r != -ENODATA)
                return error_errno(e, -r, "%s/map", path);
        if (r == 0 && memcmp(&header, &expected, sizeof(header)) != 0)
                why = "map: it does not fit the layer's TOC";
        else if (r < 0 || (uint64_t) map.st_size < expected.file_length)
                why = "map: it is cut";
        else if ((uint64_t) map.st_size > expected.file_length)
                why = "map: it is too long";
        else if ((uint64_t) content.st_size < content_end(a->table))
                why = "content: it is cut";
        return why ? error_set(e, ERROR_BAD_DATA, ESTALE, "%s/%s", path, why) : 0;
}

int audit_open(struct store *s, const struct inventory_item *layer, const struct chunk_table *table, struct audit **ret,
               struct error *e)
{
        _cleanup_(audit_close_ptr) struct audit *a = calloc(1, sizeof(*a));
        int r;

        if (!a)
                return error_oom(e);
        a->table = table;
        a->fd = a->map_fd = -1;
        a->words = calloc(table->chunk_count + 1, sizeof(*a->words));
        a->piece = malloc(PIECE);
        a->hash = XXH3_createState();
        a->digest = hasher_new(DIGEST_SHA256);
        if (!a->words || !a->piece || !a->hash || !a->digest)
                return error_oom(e);
        a->fd = inventory_open(s, layer, "content", false);
        a->map_fd = a->fd < 0 ? a->fd : inventory_open(s, layer, "map", !s->read_only);
        if (a->map_fd < 0)
                return a->map_fd == -ENOENT ? -ENOENT : error_errno(e, -a->map_fd, "%s", layer->path);
        r = check_files(a, layer->path, e);
        if (r < 0)
                return r;
        r = pread_full(a->map_fd, a->words, table->chunk_count * sizeof(*a->words), content_word_offset(0));
        if (r < 0)
                return error_errno(e, -r, "%s/map", layer->path);
        *ret = steal_ptr(a);
        return 0;
}

struct audit *audit_close(struct audit *a)
{
        if (!a)
                return NULL;
        close_fd_ptr(&a->fd);
        close_fd_ptr(&a->map_fd);
        hasher_free(a->digest);
        XXH3_freeState(a->hash);
        free(a->piece);
        free(a->words);
        free(a);
        return NULL;
}

bool audit_has(const struct audit *a, size_t i)
{
        return a->table->chunks[i].codec == CODEC_ZEROS || a->words[i] != 0;
}

/* Hashes the chunk in the file both ways; the digest only where the table has one to compare with. */
static int hash_chunk(struct audit *a, const struct chunk *chunk, bool with_digest, uint64_t *ret_hash,
                      struct digest *ret_digest)
{
        int r = with_digest ? hasher_reset(a->digest) : 0;

        XXH3_64bits_reset(a->hash);
        for (size_t done = 0, n; r == 0 && done < chunk->content_length; done += n) {
                n = MIN(PIECE, chunk->content_length - done);
                r = pread_full(a->fd, a->piece, n, chunk->content_offset + done);
                if (r < 0)
                        break;
                XXH3_64bits_update(a->hash, a->piece, n);
                if (with_digest)
                        r = hasher_update(a->digest, a->piece, n);
        }
        if (r == 0 && with_digest)
                r = hasher_finish(a->digest, ret_digest);
        if (r == 0)
                *ret_hash = XXH3_64bits_digest(a->hash);
        return r;
}

/* A chunk's word, and the epoch that says whether it was away meanwhile. */
struct look {
        uint64_t word, epoch;
};

static int look_at(const struct audit *a, size_t i, struct look *ret)
{
        int r = pread_full(a->map_fd, &ret->word, sizeof(ret->word), content_word_offset(i));

        if (r == 0)
                r = pread_full(a->map_fd, &ret->epoch, sizeof(ret->epoch),
                               content_epoch_offset(a->table->chunk_count, i));
        return r;
}

/* Reads the chunk between two looks. 0, -EBADMSG with *RET_WHY, -EAGAIN when something changed. */
static int check_once(struct audit *a, size_t i, const char **ret_why)
{
        const struct chunk *chunk = &a->table->chunks[i];
        bool with_digest = (chunk->flags & CHUNK_DIGEST_CONTENT) && !(chunk->flags & CHUNK_NO_DIGEST);
        struct look before, after;
        uint64_t hash = 0;
        struct digest digest;
        int r, hashed;

        r = look_at(a, i, &before);
        if (r < 0)
                return r;
        if (before.word == 0)
                return -ENOENT;
        hashed = hash_chunk(a, chunk, with_digest, &hash, &digest);
        r = look_at(a, i, &after);
        if (r < 0)
                return r;
        if (before.word != after.word || before.epoch != after.epoch)
                return -EAGAIN;
        if (hashed == -ENODATA || hashed == -EIO)
                *ret_why = "it can't be read";
        else if (hashed < 0)
                return hashed;
        else if (before.word != content_word(hash))
                *ret_why = "wrong checksum";
        else if (with_digest && memcmp(digest.bytes, chunk->digest, SHA256_SIZE) != 0)
                *ret_why = "wrong digest";
        else
                return 0;
        return -EBADMSG;
}

int audit_check(struct audit *a, size_t i, struct error *e)
{
        const struct chunk *chunk = &a->table->chunks[i];
        const char *why = NULL;
        int r = -EAGAIN;

        if (chunk->codec == CODEC_ZEROS)
                return 0;
        /* Who stores a word may find that he has to take it back: a second reading tells. */
        for (int attempt = 0; attempt < CHECK_ATTEMPTS && (r == -EAGAIN || (r == -EBADMSG && attempt < 2)); attempt++)
                r = check_once(a, i, &why);
        if (r == -EAGAIN)
                return 0; /* others are at it all the time, and check it themselves */
        if (r == -EBADMSG)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "chunk %zu, content bytes %ju-%ju: %s", i,
                                 (uintmax_t) chunk->content_offset,
                                 (uintmax_t) (chunk->content_offset + chunk->content_length - 1), why);
        if (r == -ENOMEM)
                return error_oom(e);
        return r < 0 && r != -ENOENT ? error_errno(e, -r, "chunk %zu", i) : r;
}

int audit_drop(struct audit *a, size_t i, struct error *e)
{
        const uint64_t absent = 0;
        int r = pwrite_full(a->map_fd, &absent, sizeof(absent), content_word_offset(i));

        if (r < 0)
                return error_errno(e, -r, "chunk %zu: clearing its word", i);
        a->words[i] = 0;
        return 0;
}
