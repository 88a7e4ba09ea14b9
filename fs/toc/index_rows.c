/* SPDX-License-Identifier: Apache-2.0 */

#include "index_rows.h"

#include <string.h>
#include <xxhash.h>
#include <zstd.h>

#include "regfs/digest.h"
#include "regfs/text.h"

#define WINDOW_LEVEL 1

struct index_rows {
        struct layer_draft *draft;
        const char *name;

        struct chunk *chunks;
        size_t count, allocated;
        size_t run; /* the first chunk of the blob range that the last one belongs to */
        struct checkpoint *checkpoints;
        size_t checkpoint_count, checkpoints_allocated;
        struct buf windows;
        ZSTD_CCtx *compressor;

        struct hasher *range; /* of the run's blob range */
        uint8_t *content; /* of the last chunk, SCAN_CHUNK_MAX bytes: whether it is a slice is known at its end only */
        size_t content_length;
        uint64_t content_offset;

        const uint8_t *feed;
        uint64_t feed_offset;
        size_t feed_length;
        uint8_t before;     /* the byte ahead of the feed */
        uint64_t hashed_to; /* blob offset up to which bytes went into `range` */
};

struct index_rows *index_rows_free(struct index_rows *rows)
{
        if (!rows)
                return NULL;
        free(rows->chunks);
        free(rows->checkpoints);
        buf_free(&rows->windows);
        ZSTD_freeCCtx(rows->compressor);
        hasher_free(rows->range);
        free(rows->content);
        free(rows);
        return NULL;
}

int index_rows_new(struct layer_draft *draft, const char *name, struct index_rows **ret, struct error *e)
{
        struct index_rows *rows = calloc(1, sizeof(*rows));

        if (!rows)
                return error_oom(e);
        rows->draft = draft;
        rows->name = name;
        rows->compressor = ZSTD_createCCtx();
        rows->range = hasher_new(DIGEST_SHA256);
        rows->content = malloc(SCAN_CHUNK_MAX);
        if (!rows->compressor || !rows->range || !rows->content) {
                index_rows_free(rows);
                return error_oom(e);
        }
        *ret = rows;
        return 0;
}

static int failed(struct index_rows *rows, int r, struct error *e)
{
        return r == -ENOMEM ? error_oom(e) : error_errno(e, -r, "%s: chunk rows", rows->name);
}

/* ---- bytes ---- */

void index_rows_feed_begin(struct index_rows *rows, uint64_t offset, const uint8_t *data, size_t n)
{
        rows->feed = data;
        rows->feed_offset = offset;
        rows->feed_length = n;
}

/* A boundary lies in the feed, or on the byte ahead of it, which two ranges may share. */
static int hash_range_to(struct index_rows *rows, uint64_t end)
{
        int r;

        if (rows->hashed_to < rows->feed_offset && rows->hashed_to < end) {
                r = hasher_update(rows->range, &rows->before, 1);
                if (r < 0)
                        return r;
                rows->hashed_to++;
        }
        if (rows->hashed_to < end) {
                r = hasher_update(rows->range, rows->feed + (rows->hashed_to - rows->feed_offset),
                                  (size_t) (end - rows->hashed_to));
                if (r < 0)
                        return r;
                rows->hashed_to = end;
        }
        return 0;
}

int index_rows_feed_end(struct index_rows *rows)
{
        int r = rows->count > 0 ? hash_range_to(rows, rows->feed_offset + rows->feed_length) : 0;

        rows->before = rows->feed[rows->feed_length - 1];
        return r;
}

int index_rows_content(struct index_rows *rows, const uint8_t *data, size_t n, struct error *e)
{
        if (n > SCAN_CHUNK_MAX - rows->content_length)
                return error_set(e, ERROR_BAD_DATA, EBADMSG,
                                 "%s: no chunk boundary within %zu bytes at content offset %ju", rows->name,
                                 SCAN_CHUNK_MAX, (uintmax_t) (rows->content_offset - rows->content_length));
        memcpy(rows->content + rows->content_length, data, n);
        rows->content_length += n;
        rows->content_offset += n;
        return 0;
}

/* ---- rows ---- */

/* The last chunk's content ends here. */
static int end_content(struct index_rows *rows, struct error *e)
{
        struct chunk *c = &rows->chunks[rows->count - 1];
        uint64_t checksum = XXH3_64bits(rows->content, rows->content_length);

        if (rows->content_length == 0)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "%s: an empty chunk at content offset %ju", rows->name,
                                 (uintmax_t) c->content_offset);
        c->content_length = (uint32_t) rows->content_length;
        if (c->flags & CHUNK_SLICE) {
                struct digest digest;
                int r = digest_of(DIGEST_SHA256, rows->content, rows->content_length, &digest);

                if (r < 0)
                        return failed(rows, r, e);
                memcpy(c->digest, digest.bytes, SHA256_SIZE);
                c->flags |= CHUNK_DIGEST_CONTENT;
        }
        rows->content_length = 0;
        return layer_draft_chunk(rows->draft, c->content_offset, c->content_length, checksum, e);
}

/* The blob range of the run ends at END. */
static int end_range(struct index_rows *rows, uint64_t end, struct error *e)
{
        struct chunk *first = &rows->chunks[rows->run];
        struct digest digest;
        int r;

        if (!(first->flags & CHUNK_SLICE) && end - first->blob_offset > CHUNK_BLOB_MAX)
                return error_set(e, ERROR_BAD_DATA, EBADMSG,
                                 "%s: %ju bytes at blob offset %ju hold a chunk of %ju bytes only", rows->name,
                                 (uintmax_t) (end - first->blob_offset), (uintmax_t) first->blob_offset,
                                 (uintmax_t) first->content_length);
        r = hash_range_to(rows, end);
        if (r == 0)
                r = hasher_finish(rows->range, &digest);
        if (r < 0)
                return failed(rows, r, e);
        for (size_t k = rows->run; k < rows->count; k++)
                rows->chunks[k].blob_length = end - first->blob_offset;
        if (!(first->flags & CHUNK_SLICE))
                memcpy(first->digest, digest.bytes, SHA256_SIZE);
        return 0;
}

static int pack_window(struct index_rows *rows, const struct scan_boundary *b, struct checkpoint *c)
{
        size_t bound = ZSTD_compressBound(b->window_length), n;
        int r;

        c->window_offset = rows->windows.len;
        c->window_raw = b->window_length;
        if (b->window_length == 0)
                return 0;
        r = buf_reserve(&rows->windows, MAX(bound, (size_t) b->window_length));
        if (r < 0)
                return r;
        n = ZSTD_compressCCtx(rows->compressor, rows->windows.data + rows->windows.len, bound, b->window,
                              b->window_length, WINDOW_LEVEL);
        if (ZSTD_isError(n) || n >= b->window_length) {
                memcpy(rows->windows.data + rows->windows.len, b->window, b->window_length);
                n = b->window_length;
        }
        rows->windows.len += n;
        c->window_length = (uint32_t) n;
        return 0;
}

static int add_checkpoint(struct index_rows *rows, const struct scan_boundary *b, uint32_t *ret)
{
        struct checkpoint c = { .in = b->in, .out = b->content_offset, .bits = b->bits };
        int r;

        if (rows->checkpoint_count >= CHECKPOINT_NONE)
                return -EFBIG;
        r = array_reserve(rows->checkpoints, &rows->checkpoints_allocated, rows->checkpoint_count + 1);
        if (r == 0)
                r = pack_window(rows, b, &c);
        if (r < 0)
                return r;
        *ret = (uint32_t) rows->checkpoint_count;
        rows->checkpoints[rows->checkpoint_count++] = c;
        return 0;
}

/* A new chunk: a slice goes on in the run of the one before, anything else starts a run of its own. */
static int begin(struct index_rows *rows, const struct scan_boundary *b)
{
        struct chunk c = { .content_offset = b->content_offset,
                           .codec = (uint8_t) b->codec,
                           .checkpoint = CHECKPOINT_NONE };
        int r;

        r = array_reserve(rows->chunks, &rows->allocated, rows->count + 1);
        if (r < 0)
                return r;
        if (b->slice) {
                const struct chunk *first = &rows->chunks[rows->run];

                c.flags = CHUNK_SLICE;
                c.blob_offset = first->blob_offset;
                c.checkpoint = first->checkpoint;
                c.skip = b->content_offset - first->content_offset;
        } else {
                c.blob_offset = b->blob_offset;
                if (b->checkpoint) {
                        r = add_checkpoint(rows, b, &c.checkpoint);
                        if (r < 0)
                                return r;
                }
                r = hasher_reset(rows->range);
                if (r < 0)
                        return r;
                rows->hashed_to = b->blob_offset;
                rows->run = rows->count;
        }
        rows->chunks[rows->count++] = c;
        return 0;
}

int index_rows_boundary(struct index_rows *rows, const struct scan_boundary *b, struct error *e)
{
        int r;

        if (rows->count > 0) {
                if (b->slice)
                        rows->chunks[rows->count - 1].flags |= CHUNK_SLICE;
                r = end_content(rows, e);
                if (r == 0 && !b->slice)
                        r = end_range(rows, b->previous_end, e);
                if (r < 0)
                        return r;
        }
        r = begin(rows, b);
        return r < 0 ? failed(rows, r, e) : 0;
}

/* A boundary with nothing behind it, at the end of the stream, begins no chunk. */
static bool drop_empty(struct index_rows *rows)
{
        const struct chunk *c = &rows->chunks[rows->count - 1];

        if (rows->content_length > 0)
                return false;
        rows->count--;
        if (!(c->flags & CHUNK_SLICE) && c->checkpoint != CHECKPOINT_NONE)
                rows->checkpoint_count--;
        return true;
}

int index_rows_finish(struct index_rows *rows, uint64_t blob_size, struct error *e)
{
        bool slice;
        int r = 0;

        if (rows->count == 0)
                return 0;
        slice = rows->chunks[rows->count - 1].flags & CHUNK_SLICE;
        if (!drop_empty(rows))
                r = end_content(rows, e);
        else if (!slice)
                return 0; /* the range of the chunk before has ended */
        return r < 0 ? r : end_range(rows, blob_size, e);
}

void index_rows_view(const struct index_rows *rows, uint64_t content_size, uint64_t blob_size, struct chunk_table *ret)
{
        *ret = (struct chunk_table) {
                .chunks = rows->chunks,
                .chunk_count = rows->count,
                .checkpoints = rows->checkpoints,
                .checkpoint_count = rows->checkpoint_count,
                .windows = (const uint8_t *) rows->windows.data,
                .windows_size = rows->windows.len,
                .content_size = content_size,
                .blob_size = blob_size,
        };
}
