/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* SOCI's table of contents of one layer, the ztoc (awslabs/soci-snapshotter, ztoc/fbs/ztoc.fbs; formats.md "SOCI"): a
 * FlatBuffers table with the files of the tar, and checkpoints of its gzip stream.
 *
 * A ztoc is hostile input: every offset of the FlatBuffers is checked against the buffer before it is followed, and the
 * rows that come out have passed itable's and chunk_table_check's rules. What it tells of a file must be what the tar
 * could hold, else it is refused: the layer can always be indexed from its own bytes.
 *
 * The content space is that of index_layer: the decoded tar stream. Chunks are SOCI's spans, with the digests of their
 * compressed bytes. */

#include "regfs/blob.h"
#include "regfs/chunk.h"
#include "regfs/codec.h"
#include "regfs/itable.h"

#define ZTOC_MAX (256 * MIB)

struct ztoc;

/* Reads the N bytes at DATA, of whose digest the caller is sure, as the ztoc of a layer whose blob has BLOB_SIZE bytes.
 * DATA must stay until ztoc_free. Returns 0; -EBADMSG (BAD_DATA) with E that names table, field or file, and cause:
 * offsets outside of the buffer, another version than 0.9, an unknown algorithm, sizes that do not fit each other or
 * the blob, spans that overlap, descend, are missing, have no digest or are longer than CHUNK_CONTENT_MAX, files that
 * lie outside of the content or on each other, names that layer_tree_add refuses, and what a ztoc cannot tell truly
 * (sparse files: it has no map of them); -ENOMEM. */
int ztoc_read(const void *data, size_t n, uint64_t blob_size, struct ztoc **ret, struct error *e);
struct ztoc *ztoc_free(struct ztoc *z);
DEFINE_CLEANUP(struct ztoc *, ztoc_free)

/* Valid while Z lives. */
const struct layer_tree *ztoc_tree(const struct ztoc *z);
void ztoc_chunks(const struct ztoc *z, struct chunk_table *ret);
enum compression ztoc_compression(const struct ztoc *z);

/* The older layout of a gzip layer's checkpoints leaves out the first one: it is taken to lie at byte 10, behind a gzip
 * header without options. The writer hashed the first span from where the header really ended, so that with a longer
 * one the span's digest does not fit, and what lies in it cannot be read. Before such a ztoc is used, the layer's first
 * bytes should be looked at. */
#define ZTOC_START 10
bool ztoc_start_is_assumed(const struct ztoc *z);

/* START: the layer's first bytes. Returns 0, or -EBADMSG with E when the first span does not begin behind their gzip
 * header. For any ztoc. */
int ztoc_check_start(const struct ztoc *z, const uint8_t start[static ZTOC_START], struct error *e);
