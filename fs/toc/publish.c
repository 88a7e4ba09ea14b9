/* SPDX-License-Identifier: Apache-2.0 */

/* Tables of contents that others wrote become TOCs in the store. */

#include "regfs/store.h"
#include "regfs/toc.h"

struct toc_draft {
        struct digest layer;
        struct layer_draft *draft;
        uint64_t chunk_count;
};

int toc_draft_new(struct store *s, const struct digest *layer, const char *kind, struct toc_draft **ret,
                  struct error *e)
{
        _cleanup_(toc_draft_free_ptr) struct toc_draft *d = calloc(1, sizeof(*d));
        int r;

        if (!d)
                return error_oom(e);
        d->layer = *layer;
        r = layer_draft_new(s, layer, kind, &d->draft, e);
        if (r < 0)
                return r;
        *ret = steal_ptr(d);
        return 0;
}

struct toc_draft *toc_draft_free(struct toc_draft *d)
{
        if (!d)
                return NULL;
        layer_draft_free(d->draft);
        free(d);
        return NULL;
}

/* No content is appended, so every chunk is published as absent. */
int toc_draft_chunks(struct toc_draft *d, const struct chunk *chunks, size_t count, struct error *e)
{
        int r;

        do
                r = toc_write_chunks(layer_draft_toc_fd(d->draft), d->chunk_count, chunks, count, e);
        while (r < 0 && layer_draft_move_out(d->draft, r, e));
        for (size_t k = 0; r == 0 && k < count; k++)
                r = layer_draft_chunk(d->draft, chunks[k].content_offset, chunks[k].content_length, 0, e);
        d->chunk_count += count;
        return r;
}

int toc_draft_publish(struct toc_draft *d, struct layer_tree *tree, const struct chunk_table *rest,
                      enum compression compression, struct error *e)
{
        _cleanup_(itable_builder_free_ptr) struct itable_builder *builder = NULL;
        struct chunk_table chunks = *rest;
        struct itable itable;
        int r;

        chunks.chunks = NULL;
        chunks.chunk_count = d->chunk_count;
        r = itable_builder_new(&builder);
        if (r < 0)
                return error_oom(e);
        r = itable_builder_from_layer(builder, tree, e);
        if (r < 0)
                return r;
        itable_builder_view(builder, &itable);
        do
                r = toc_write(layer_draft_toc_fd(d->draft), &itable, &chunks, &d->layer, compression, e);
        while (r < 0 && layer_draft_move_out(d->draft, r, e));
        return r < 0 ? r : layer_draft_publish(d->draft, e);
}

int toc_publish(struct store *s, const struct digest *layer, const char *kind, struct layer_tree *tree,
                const struct chunk_table *chunks, enum compression compression, struct error *e)
{
        _cleanup_(toc_draft_free_ptr) struct toc_draft *d = NULL;
        int r;

        r = toc_draft_new(s, layer, kind, &d, e);
        if (r == 0)
                r = toc_draft_chunks(d, chunks->chunks, chunks->chunk_count, e);
        return r < 0 ? r : toc_draft_publish(d, tree, chunks, compression, e);
}
