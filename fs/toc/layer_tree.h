/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The inside of struct layer_tree, which itable_builder_from_layer turns into rows. */

#include "layer_path.h"
#include "region.h"
#include "strings.h"

enum node_kind {
        NODE_WHITEOUT, /* nothing stands here */
        NODE_DIRECTORY,
        NODE_FILE, /* anything else but: */
        NODE_LINK,
};

enum node_flags {
        NODE_HIDES_LOWER = 1 << 0, /* a whiteout, or a file that this directory came after */
        NODE_HIDDEN = 1 << 1,      /* below a name that never shows; hardlinks find it all the same */
        NODE_DEAD = 1 << 2,        /* a directory that a file took the place of, and all below it */
        NODE_FOLLOWED = 1 << 3,    /* a link whose chain is being followed */
        NODE_RESOLVED = 1 << 4,    /* a link with its target */
};

/* A node keeps its index; a file that replaces a directory gets a new one, so that no child is found any more. */
struct node {
        struct inode inode; /* attributes; parent is a node, xattrs and data count in the tree's tables */
        uint32_t name;      /* in strings */
        uint16_t name_length;
        uint8_t kind;
        uint8_t flags;
        uint32_t child;   /* directory: the child that came last */
        uint32_t sibling; /* the child of the same directory that came before */
        uint32_t link;    /* NODE_LINK: path of the target, in strings */
        union {
                uint32_t target; /* NODE_LINK, resolved: a NODE_FILE; ITABLE_NONE when this layer does not hold LINK */
                uint32_t row;    /* any other, once it has one: row + 1 */
        };
};

struct layer_tree {
        struct region nodes;
        struct region extents;
        struct string_table strings;
        struct xattr_table xattrs;
        struct slots children; /* nodes by parent and name */
        uint32_t nodes_max;
        bool finished;
        /* The directory of the last entry that shows: the next one is likely to lie there too. A file takes the place
         * of a directory only in its own walk's directory, so the one here is never dead. */
        uint32_t last_directory;
        size_t last_length;
        char last_path[ITABLE_PATH_MAX];
};

static inline struct node *layer_node(const struct layer_tree *t, uint32_t index)
{
        return region_at(&t->nodes, struct node, index);
}

/* The node NAME in directory node DIR, or ITABLE_NONE; *ret_cursor is for slots_set. */
uint32_t layer_tree_child(const struct layer_tree *t, uint32_t dir, const char *name, size_t length,
                          uint32_t *ret_cursor);

/* A directory that only whiteouts name and that one hides: nothing but that whiteout. */
static inline bool layer_node_is_whiteout(const struct node *n)
{
        return n->kind == NODE_WHITEOUT || ((n->inode.flags & INODE_GHOST) && (n->flags & NODE_HIDES_LOWER));
}

/* The tables that the attributes of nodes point into. */
static inline void layer_tree_tables(const struct layer_tree *t, struct itable *ret)
{
        *ret = (struct itable) {
                .extents = region_array(&t->extents, struct extent),
                .xattr_sets = region_array(&t->xattrs.sets, struct xattr_set),
                .xattr_pairs = region_array(&t->xattrs.pairs, struct xattr_pair),
                .strings = t->strings.bytes.data,
                .extent_count = region_count(&t->extents, struct extent),
                .xattr_set_count = region_count(&t->xattrs.sets, struct xattr_set),
                .xattr_pair_count = region_count(&t->xattrs.pairs, struct xattr_pair),
                .strings_size = (uint32_t) t->strings.bytes.size,
        };
}
