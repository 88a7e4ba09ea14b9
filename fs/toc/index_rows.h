/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The chunk rows of a layer while the indexer passes over it: boundaries as the scan reports them, digests of blob
 * ranges and of slices, checksums for the map, checkpoints with their windows. Used by one thread. */

#include "regfs/chunk.h"
#include "regfs/codec.h"
#include "regfs/error.h"
#include "regfs/store.h"

struct index_rows;

/* Chunks that end are told to DRAFT. NAME is borrowed, for errors. */
int index_rows_new(struct layer_draft *draft, const char *name, struct index_rows **ret, struct error *e);
struct index_rows *index_rows_free(struct index_rows *rows);

/* The bytes that the scan is fed now, and that it has been fed. */
void index_rows_feed_begin(struct index_rows *rows, uint64_t offset, const uint8_t *data, size_t n);
int index_rows_feed_end(struct index_rows *rows);

/* What comes out of the scan, in its order. */
int index_rows_content(struct index_rows *rows, const uint8_t *data, size_t n, struct error *e);
int index_rows_boundary(struct index_rows *rows, const struct scan_boundary *boundary, struct error *e);

/* Ends the last chunk. */
int index_rows_finish(struct index_rows *rows, uint64_t blob_size, struct error *e);

/* Valid while ROWS lives. */
void index_rows_view(const struct index_rows *rows, uint64_t content_size, uint64_t blob_size, struct chunk_table *ret);
