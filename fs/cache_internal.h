/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Files of a store opened as what they are, without marking them as used. */

#include "regfs/cache.h"
#include "regfs/text.h"
#include "regfs/toc.h"

/* 0; -ENOENT when it is gone; -EBADMSG, -ESTALE or another -errno with E. *RET_FD, unless NULL, is the file's
 * descriptor, also on failure; -1 when it could not be opened. */
int cache_open_toc(struct store *s, const struct inventory_item *layer, struct toc **ret, int *ret_fd, struct error *e);

/* Also compares the manifest and the layers with the file's name. */
int cache_open_tree(struct store *s, const struct inventory_item *image, struct tree **ret, int *ret_fd,
                    struct error *e);

/* The blob whole, of MAX bytes at most, verified. */
int cache_read_blob(struct store *s, const struct inventory_item *blob, size_t max, struct buf *ret, struct error *e);
