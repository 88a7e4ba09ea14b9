/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Indexes that others write to as well, changed as text: what regfs does not know in them stays as it is. */

#include "regfs/blob.h"

#define INDEX_TYPE "application/vnd.oci.image.index.v1+json"
#define INDEX_EMPTY "{\"schemaVersion\":2,\"mediaType\":\"" INDEX_TYPE "\",\"manifests\":[]}"

/* Appends D as JSON: media type, digest, size, artifact type, annotations. 0 or -ENOMEM. */
int descriptor_write(struct buf *b, const struct descriptor *d);

/* TEXT is an index that manifest_parse took, with COUNT entries. *RET, an empty buffer, gets it without the entries
 * that DROP (of COUNT) marks (NULL: with all of them), and with ADD as the last. 0; -EBADMSG with E where the text
 * cannot be changed, -EFBIG where the index would grow past MANIFEST_MAX. */
int index_text_change(const struct buf *text, size_t count, const bool *drop, const struct descriptor *add,
                      struct buf *ret, struct error *e);
