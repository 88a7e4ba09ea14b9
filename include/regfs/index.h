/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* One-pass indexing of a plain layer: one stream, three consumers (design "One-pass indexing of a plain layer"). */

#include <stdatomic.h>

#include "regfs/blob.h"
#include "regfs/error.h"
#include "regfs/pool.h"
#include "regfs/store.h"

/* What a layer may decode to: so much whatever its size, and beyond that no more times its size than deflate can. Zstd
 * could make thirty times as much of it. */
#define INDEX_CONTENT_FREE (16 * GIB)
#define INDEX_RATIO_MAX 1032

struct index_options {
        struct blob *blob; /* its digest is verified over the whole pass */
        /* docker-archive: the digest may be the diff_id. For an uncompressed tar that is the same thing; a
         * compressed blob is right when its own bytes or its decoded ones have it. */
        bool digest_is_diff_id;
        struct pool *pool;
        struct store *store;
        uint64_t timeout_ms;            /* without progress */
        atomic_uint_fast64_t *progress; /* blob bytes done so far, for a progress bar; or NULL */
        struct store_turn *turn;        /* is told the same, for those who wait for it; or NULL */
        atomic_bool *cancel;            /* ends the pass with -ECANCELED when set; or NULL */
        uint64_t content_free;          /* 0: INDEX_CONTENT_FREE */
};

/* Reads the layer once, publishes {toc, content, map} in the store as kind "plain". When anything is wrong, the
 * digest at the end included, everything from the pass is thrown away. Blocks; call it from a thread of its own.
 * Returns 0 or -errno with E naming the blob, and for a bad entry its path; what decodes to more than it may is
 * -EBADMSG. */
int index_layer(const struct index_options *options, struct error *e);
