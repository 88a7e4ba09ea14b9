/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Layers that carry their table of contents: eStargz and zstd:chunked (design "Words", formats.md). A few small
 * requests stand in for the pass over the whole layer that index.h makes; content comes when it is read.
 *
 * A table of contents is believed when an annotation of the layer's descriptor has its digest, so that the image's
 * own digest binds it:
 *
 *     containerd.io/snapshot/stargz/toc.digest             of the uncompressed JSON
 *     io.github.containers.zstd-chunked.manifest-checksum  of the compressed one; …manifest-position says where it is;
 *                                                          the older prefix is io.containers.zstd-chunked.
 *
 * stargz's own zstd:chunked has both. Without a digest the layer is what its compression says: index_layer. The table
 * of an eStargz may lie in a blob of another image (external_toc.h): it is bound by the same annotation. */

#include <stdatomic.h>

#include "regfs/blob.h"
#include "regfs/error.h"
#include "regfs/pool.h"
#include "regfs/store.h"

/* What the layer's directory in the store is called, from the annotations alone: "zstdchunked-<hex of the
 * manifest-checksum>", else "estargz-<hex of the toc.digest>". Returns 0, or -ENOENT when none of them is a SHA-256. */
int embedded_kind(const struct descriptor *descriptor, char ret_kind[LAYER_KIND_MAX]);

struct embedded_options {
        struct blob *blob;
        const struct descriptor *descriptor; /* of the blob, out of a verified manifest */
        struct pool *pool;
        struct store *store;
        uint64_t timeout_ms; /* without progress */
        atomic_bool *cancel; /* ends it with -ECANCELED when set; or NULL */

        /* Where the table of LAYER is when the layer says that it lies elsewhere: *RET gets a blob of the table alone,
         * which is freed before embedded_index returns. 0, or -ENOENT. NULL: there is none for any layer. */
        int (*external)(void *context, const struct digest *layer, struct blob **ret);
        void *external_context;
};

#define EMBEDDED_TOC_MAX (256 * MIB) /* of JSON, compressed or not */

/* What is read first, from the blob's end, where no annotation says where the table is; less of a small blob. */
#define EMBEDDED_TAIL (192 * KIB)

#define EMBEDDED_ZEROS_MAX (1024 * GIB) /* in chunks of zeros, of one layer */

/* Reads the layer's table of contents, verifies it and publishes {toc, content, map} in the store as the kind of
 * embedded_kind, all chunks absent. Costs one request; a second one where no annotation says where the table is and
 * it is not all in the blob's tail, or lies elsewhere; and one for every 4 MiB of a longer one. What fails verification
 * is fetched once more. Blocks; call it from a thread of its own.
 *
 * The content space has the payloads of the regular files end to end, in the order of the table, which must be that
 * of the blob. Landmarks (".prefetch.landmark", ".no.prefetch.landmark" in the root, one byte 0x0f) are left out;
 * what stands before the first is chunk_table.prefetch.
 *
 * Returns 0. In two cases index_layer can still do the layer, as what its compression says: -ENOENT with E untouched
 * when there is no table that can be used (no digest is annotated, or the table lies elsewhere and cannot be had), and
 * -EBADMSG with E that names blob, entry and cause. That is a table that is not what the annotation says; JSON that is
 * malformed, or nests, or has numbers, names and counts past their bounds; chunks outside of the blob's data, that
 * overlap or descend, whose sizes do not add up, that cannot hold what they claim; what layer_tree_add refuses; and
 * what is not served lazily: chunks without a digest, or longer than CHUNK_CONTENT_MAX and no zeros. Otherwise -errno
 * with E. */
int embedded_index(const struct embedded_options *options, char ret_kind[LAYER_KIND_MAX], struct error *e);
