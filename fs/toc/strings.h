/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The sections of an inode table that are deduplicated: byte strings and sets of xattrs. */

#include "regfs/itable.h"

#include "region.h"

/* A zero-initialised table is empty. */
struct string_table {
        struct region bytes;
        struct region spans; /* where each distinct string lies */
        struct slots index;
};

/* The offset of N bytes equal to DATA; what points into the table stays where it is. A string with its NUL is one byte
 * longer than, and another string than, the same without it. Returns 0, -ENOMEM, or -EFBIG past ITABLE_STRINGS_MAX. */
int string_table_add(struct string_table *t, const void *data, size_t n, uint32_t *ret_offset);

/* Forgets what equal strings are found by: the memory of a table that is not added to any more. */
void string_table_seal(struct string_table *t);
void string_table_free(struct string_table *t);

struct xattr_table {
        struct region sets;
        struct region pairs;
        struct slots index;
};

/* Makes set 0, the empty one. */
int xattr_table_init(struct xattr_table *t);

/* The set of these attributes: sorted by name, the last of equal names alone. NAMES AND VALUES go to STRINGS.
 * Returns 0, -ENOMEM or -EFBIG. */
int xattr_table_add(struct xattr_table *t, struct string_table *strings, const struct layer_xattr *xattrs, size_t count,
                    uint32_t *ret_set);
void xattr_table_free(struct xattr_table *t);
