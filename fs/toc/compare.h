/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Two inode tables of one layer, name by name: what toc_compare stands on. */

#include "regfs/itable.h"
#include "regfs/verify.h"

/* What became of a row of the told table: the row of the true one that has the same name, and which name that was. The
 * directory has its pair too, so that the name can be followed up to the root. */
struct row_pair {
        uint32_t other; /* ITABLE_NONE: no name of this row is in both tables with the same type */
        uint32_t directory;
        uint32_t dirent; /* of that directory; the root has none */
};

struct comparison_result {
        uint64_t entries; /* names, of either table */
        uint64_t differences;
};

/* Compares as toc_compare says. PAIRS has a row for each of TOLD's inodes. */
int itable_compare(const struct itable *told, const struct itable *other, difference_fn *report, void *context,
                   struct row_pair *pairs, struct comparison_result *ret, struct error *e);

/* The path of ROW, which has a pair: "a/b"; "" is the root. Appends to *RET. 0 or -ENOMEM. */
int row_pair_path(const struct itable *told, const struct row_pair *pairs, uint32_t row, struct buf *ret);

/* The files in the root of an eStargz layer that tell how to read it, and that its table leaves out: name number INDEX,
 * or NULL behind the last. *RET_MARK: it is a landmark, of one byte, and not the table itself. */
const char *compare_hidden_name(size_t index, bool *ret_mark);
