/* SPDX-License-Identifier: Apache-2.0 */

/* Tables of contents that others wrote become TOCs in the store. */

#include "regfs/store.h"
#include "regfs/toc.h"

static int write_toc(struct layer_draft *draft, const struct digest *layer, struct layer_tree *tree,
                     const struct chunk_table *chunks, enum compression compression, struct error *e)
{
        _cleanup_(itable_builder_free_ptr) struct itable_builder *builder = NULL;
        struct itable itable;
        int r;

        r = itable_builder_new(&builder);
        if (r < 0)
                return error_oom(e);
        r = itable_builder_from_layer(builder, tree, e);
        if (r < 0)
                return r;
        itable_builder_view(builder, &itable);
        return toc_write(layer_draft_toc_fd(draft), &itable, chunks, layer, compression, e);
}

/* No content is appended, so every chunk is published as absent. */
int toc_publish(struct store *s, const struct digest *layer, const char *kind, struct layer_tree *tree,
                const struct chunk_table *chunks, enum compression compression, struct error *e)
{
        _cleanup_(layer_draft_free_ptr) struct layer_draft *draft = NULL;
        int r;

        r = layer_draft_new(s, layer, kind, &draft, e);
        for (size_t k = 0; r == 0 && k < chunks->chunk_count; k++)
                r = layer_draft_chunk(draft, chunks->chunks[k].content_offset, chunks->chunks[k].content_length, 0, e);
        if (r == 0)
                r = write_toc(draft, layer, tree, chunks, compression, e);
        return r < 0 ? r : layer_draft_publish(draft, e);
}
