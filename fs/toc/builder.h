/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The inside of struct itable_builder: rows are appended in breadth-first order, each directory's dirents in one go. */

#include "region.h"
#include "strings.h"

struct itable_builder {
        struct region inodes;
        struct region dirents;
        struct region extents;
        struct xattr_table xattrs;
        struct string_table strings;
};

/* A memo of what the xattr sets of another table are called here: one per table; 0 = not known yet. */
struct set_map {
        struct region sets;
};

int set_map_init(struct set_map *m, const struct itable *from);
void set_map_free(struct set_map *m);

static inline struct inode *builder_inode(const struct itable_builder *b, uint32_t row)
{
        return region_at(&b->inodes, struct inode, row);
}

/* All return 0, -ENOMEM, or -EFBIG past a bound of itable.h. */

/* Appends a copy of I, a row of FROM, with all that it points to; as a child of directory row PARENT, with no names, no
 * dirents and no flags but INODE_SPARSE. */
int builder_copy_inode(struct itable_builder *b, const struct itable *from, struct set_map *sets, const struct inode *i,
                       uint32_t parent, uint32_t *ret_row);

/* Begins the dirents of directory DIR. */
void builder_open_directory(struct itable_builder *b, uint32_t dir);

/* Appends a dirent to DIR, the directory opened last, and counts the name in the nlink of its target. */
int builder_add_dirent(struct itable_builder *b, uint32_t dir, const char *name, size_t length, enum dirent_type type,
                       uint32_t target);

/* What a negative R means for the user. */
int builder_error(int r, struct error *e);
