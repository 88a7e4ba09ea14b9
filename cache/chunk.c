/* SPDX-License-Identifier: Apache-2.0 */

#include <inttypes.h>

#include "regfs/chunk.h"

#define WINDOW_MAX 32768u

/* What one byte of a blob can decode to at most. Deflate: a match of 258 bytes in two bits. Zstd: a block of 128 KiB of
 * one byte in four bytes. Nothing that a chunk claims beyond that can be true, so skip is bounded too. */
#define RATIO_GZIP 1032
#define RATIO_ZSTD (128 * KIB / 4)

_Static_assert(CHUNK_BLOB_MAX == 64 * MIB && CHUNK_CONTENT_MAX == 32 * MIB && RATIO_ZSTD == 32768, "as messages say");

size_t chunk_find(const struct chunk_table *t, uint64_t offset)
{
        size_t low = 0, high = t->chunk_count;

        while (low < high) {
                size_t middle = low + (high - low) / 2;
                const struct chunk *c = &t->chunks[middle];

                if (c->content_offset + c->content_length <= offset)
                        low = middle + 1;
                else
                        high = middle;
        }
        return low;
}

static const char *checkpoint_fault(const struct chunk_table *t, const struct checkpoint *cp)
{
        if (cp->bits > 7)
                return "impossible bit position";
        if (cp->in > t->blob_size || (cp->bits > 0 && cp->in == 0))
                return "outside the blob";
        if (cp->out > t->content_size)
                return "outside the content";
        if (cp->window_raw > WINDOW_MAX || cp->window_length > cp->window_raw ||
            (cp->window_length == 0 && cp->window_raw > 0))
                return "impossible window length";
        if (!range_fits(cp->window_offset, cp->window_length, t->windows_size))
                return "the window is outside its section";
        return NULL;
}

/* How much RANGE bytes of the blob can decode to. */
static uint64_t decoded_max(const struct chunk *c)
{
        uint64_t ratio = c->codec == CODEC_GZIP ? RATIO_GZIP : c->codec == CODEC_ZSTD ? RATIO_ZSTD : 1, n;

        return __builtin_mul_overflow(c->blob_length, ratio, &n) ? UINT64_MAX : n;
}

static const char *range_fault(const struct chunk_table *t, const struct chunk *c)
{
        if (c->codec == CODEC_ZEROS) {
                if (c->blob_length != 0 || c->skip != 0)
                        return "a chunk of zeros has a blob range";
                return NULL;
        }
        if (c->blob_length == 0 || !range_fits(c->blob_offset, c->blob_length, t->blob_size))
                return "the blob range is empty or outside the blob";
        if (!(c->flags & CHUNK_SLICE) && c->blob_length > CHUNK_BLOB_MAX)
                return "the blob range is longer than the 64 MiB of one chunk";
        if (!range_fits(c->skip, c->content_length, decoded_max(c)))
                return c->codec == CODEC_GZIP
                               ? "the blob range cannot hold so much content: deflate makes 1032 bytes of one"
                       : c->codec == CODEC_ZSTD
                               ? "the blob range cannot hold so much content: zstd makes 32768 bytes of one"
                               : "the blob range cannot hold so much content";
        return NULL;
}

static const char *resume_fault(const struct chunk_table *t, const struct chunk *c)
{
        const struct checkpoint *cp;

        if (c->checkpoint == CHECKPOINT_NONE)
                return NULL;
        if (c->codec != CODEC_GZIP)
                return "only gzip has checkpoints";
        if (c->checkpoint >= t->checkpoint_count)
                return "the checkpoint does not exist";
        cp = &t->checkpoints[c->checkpoint];
        if (c->blob_offset != cp->in - (cp->bits > 0))
                return "the checkpoint is at another blob offset";
        if (c->skip > c->content_offset || c->content_offset - c->skip != cp->out)
                return "the checkpoint is at another content offset";
        return NULL;
}

static bool same_range(const struct chunk *a, const struct chunk *b)
{
        return (a->flags & b->flags & CHUNK_SLICE) && a->blob_offset == b->blob_offset &&
               a->blob_length == b->blob_length;
}

/* Slices of one range come one after the other; what nobody wants may stand between them in the decoded bytes. */
static const char *slice_fault(const struct chunk *c, const struct chunk *previous)
{
        if (!(c->flags & CHUNK_SLICE))
                return NULL;
        if (c->codec != CODEC_GZIP && c->codec != CODEC_ZSTD)
                return "only gzip and zstd have slices";
        if (!(c->flags & (CHUNK_DIGEST_CONTENT | CHUNK_NO_DIGEST)))
                return "a slice's digest must be that of its content";
        if (!previous || previous->codec == CODEC_ZEROS || previous->blob_offset != c->blob_offset)
                return NULL;
        if (!same_range(previous, c) || c->codec != previous->codec || c->checkpoint != previous->checkpoint)
                return "slices of one range differ in length, codec or checkpoint, or one is none";
        if (c->content_offset != previous->content_offset + previous->content_length)
                return "slices of one range have a gap in the content";
        if (c->skip < previous->skip + previous->content_length)
                return "slices of one range overlap";
        return NULL;
}

static const char *chunk_fault(const struct chunk_table *t, const struct chunk *c, const struct chunk *previous)
{
        const char *fault;

        if (c->codec < CODEC_STORED || c->codec > CODEC_ZEROS)
                return "unknown codec";
        if (c->flags & ~(CHUNK_DIGEST_CONTENT | CHUNK_SLICE | CHUNK_NO_DIGEST))
                return "unknown flags";
        if (c->reserved != 0 || c->reserved2 != 0)
                return "reserved fields are not zero";
        if (c->content_length == 0 || c->content_length > CHUNK_CONTENT_MAX)
                return "empty, or longer than 32 MiB";
        if (!range_fits(c->content_offset, c->content_length, t->content_size))
                return "outside the content";
        if (previous && c->content_offset < previous->content_offset + previous->content_length)
                return "out of order";
        fault = range_fault(t, c);
        if (!fault)
                fault = resume_fault(t, c);
        return fault ? fault : slice_fault(c, previous);
}

int chunk_table_check(const struct chunk_table *t, struct error *e)
{
        if (t->prefetch > t->content_size)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "what is to be fetched first ends outside the content");
        for (size_t i = 0; i < t->checkpoint_count; i++) {
                const char *fault = checkpoint_fault(t, &t->checkpoints[i]);

                if (fault)
                        return error_set(e, ERROR_BAD_DATA, EBADMSG, "checkpoint %zu: %s", i, fault);
        }
        for (size_t i = 0; i < t->chunk_count; i++) {
                const struct chunk *c = &t->chunks[i];
                const char *fault = chunk_fault(t, c, i > 0 ? c - 1 : NULL);

                if (fault)
                        return error_set(e, ERROR_BAD_DATA, EBADMSG,
                                         "chunk %zu: %s (content offset %" PRIu64 ", blob offset %" PRIu64 ")", i,
                                         fault, c->content_offset, c->blob_offset);
        }
        return 0;
}
