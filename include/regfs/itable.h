/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The inode table: the part that a layer's TOC and an image index have in common. Fixed-size rows, little-endian, used
 * where they lie in a mapped file; children of a directory are contiguous and sorted by name (memcmp of the bytes, the
 * shorter first), so a lookup is a binary search and a listing is a slice. Row 0 is the root.
 *
 * This header holds the rows and the reader; itable_builder builds and writes tables. */

#include <sys/types.h>

#include "regfs/base.h"
#include "regfs/error.h"
#include "regfs/text.h"

enum inode_flags {
        INODE_SPARSE = 1 << 0,   /* regular: data is the first of `count` extents; otherwise data is a content offset */
        INODE_OPAQUE = 1 << 1,   /* directory of a layer: hides all lower children */
        INODE_IMPLICIT = 1 << 2, /* directory of a layer that no entry names: lower attributes win */
        INODE_GHOST = 1 << 3,    /* implicit directory that only whiteouts name: shows where another layer has it */
};

struct inode {
        uint64_t size; /* regular: bytes; symlink: length of the target; else 0 */
        int64_t mtime; /* seconds since 1970, may be negative */
        uint64_t data; /* regular: content offset or first extent; symlink: offset in strings;
                        * directory: first dirent; device: major << 32 | minor */
        uint32_t mtime_nsec;
        uint32_t mode; /* type and permission bits of stat(2) */
        uint32_t uid;
        uint32_t gid;
        uint32_t nlink;  /* names in this table; directory: 2 + subdirectories */
        uint32_t count;  /* directory: dirents; INODE_SPARSE: extents (0: all hole) */
        uint32_t xattrs; /* index of the set, 0: none */
        uint32_t parent; /* directory: row of the parent; root: 0; else undefined */
        uint16_t layer;  /* image index: which layer's content; TOC: 0 */
        uint16_t flags;
        uint32_t reserved;
};

_Static_assert(sizeof(struct inode) == 64, "inode rows are part of the file format");

enum dirent_type {
        DIRENT_INODE = 0,    /* target is an inode row */
        DIRENT_WHITEOUT = 1, /* TOC only: hides the name in lower layers; target is 0 */
        DIRENT_LINK = 2,     /* TOC only: a hardlink to a path that this layer does not hold: target is an offset in
                              * strings, of a NUL-terminated normalised path ("a/b") */
};

struct dirent_row {
        uint32_t name; /* offset in strings; not NUL-terminated */
        uint16_t name_length;
        uint8_t type; /* enum dirent_type */
        uint8_t reserved;
        uint32_t target;
};

_Static_assert(sizeof(struct dirent_row) == 12, "dirent rows are part of the file format");

/* Data of a sparse file; sorted by file_offset, not overlapping; the rest of the file reads as zeros. */
struct extent {
        uint64_t file_offset;
        uint64_t content_offset;
        uint64_t length;
};

/* One set = `count` pairs in xattr_pairs; set 0 is empty. Sets are deduplicated. */
struct xattr_set {
        uint32_t first;
        uint32_t count;
};

struct xattr_pair {
        uint32_t name;  /* offset in strings, NUL-terminated there */
        uint32_t value; /* offset in strings */
        uint32_t value_length;
};

/* Borrowed views into a mapped file. */
struct itable {
        const struct inode *inodes;
        const struct dirent_row *dirents;
        const struct extent *extents;
        const struct xattr_set *xattr_sets;
        const struct xattr_pair *xattr_pairs;
        const char *strings;
        uint32_t inode_count;
        uint32_t dirent_count;
        uint32_t extent_count;
        uint32_t xattr_set_count;
        uint32_t xattr_pair_count;
        uint32_t strings_size;
};

#define ITABLE_NONE UINT32_MAX
#define ITABLE_NAME_MAX 255
#define ITABLE_PATH_MAX 4096
#define ITABLE_DEPTH_MAX 1024
#define ITABLE_ENTRIES_MAX 16000000u /* rows, and dirents, of one table */
#define ITABLE_STRINGS_MAX (1u << 30)
#define ITABLE_EXTENTS_MAX 16000000u
#define ITABLE_XATTRS_MAX 16000000u /* pairs of one table */
#define ITABLE_SYMLINK_MAX 4095
#define ITABLE_XATTR_NAME_MAX 255
#define ITABLE_XATTR_VALUE_MAX 65536
#define ITABLE_XATTR_COUNT_MAX 4096 /* of one inode */

/* The order of names: negative, 0 or positive like memcmp. */
static inline int itable_compare_names(const char *a, size_t a_length, const char *b, size_t b_length)
{
        int r = memcmp(a, b, MIN(a_length, b_length));

        return r ? r : (a_length > b_length) - (a_length < b_length);
}

/* Checks every offset, count, type and name order, that each directory has one parent and the tree no cycle, so that
 * the functions below need no checks. Only the order of itable_builder passes: rows by their first names, breadth
 * first; dirents, extents and xattr pairs by the rows that have them. CONTENT_SIZES[layer] bounds content offsets
 * (LAYERS of them). 0, -EBADMSG with E, or -ENOMEM. */
int itable_check(const struct itable *t, const uint64_t *content_sizes, size_t layers, struct error *e);

/* Row index of the dirent NAME in directory row DIR, or ITABLE_NONE. */
uint32_t itable_find(const struct itable *t, uint32_t dir, const char *name, size_t length);

static inline const char *dirent_name(const struct itable *t, const struct dirent_row *d)
{
        return t->strings + d->name;
}

/* Symlink target of row INODE, NUL-terminated (size bytes). */
static inline const char *inode_symlink(const struct itable *t, const struct inode *i)
{
        return t->strings + i->data;
}

/* Value of xattr NAME: 0, or -ENODATA. */
int itable_xattr(const struct itable *t, const struct inode *i, const char *name, const uint8_t **ret_value,
                 size_t *ret_length);

/* ---- building ---- */

struct layer_xattr {
        const char *name;
        const uint8_t *value;
        size_t value_length;
};

/* One entry of a layer as a scanner or an embedded TOC tells it. Everything is borrowed for the call. */
struct layer_entry {
        const char *path; /* as written in the layer; normalised here */
        uint32_t mode;    /* type and permission bits; S_IFREG for hardlinks (hardlink decides) */
        bool hardlink;
        const char *link; /* target of a hardlink (as written) or symlink (verbatim); NULL otherwise */
        uint32_t uid, gid;
        uint64_t size; /* regular: logical size */
        int64_t mtime;
        uint32_t mtime_nsec;
        uint32_t major, minor;
        uint64_t content_offset; /* regular, not sparse */
        bool sparse;
        const struct extent *extents; /* sparse */
        size_t extent_count;
        const struct layer_xattr *xattrs;
        size_t xattr_count;
};

/* The final state of one layer, entry by entry, by the rules of formats.md "OCI layers": later entries win, parents
 * that no entry names, whiteouts and opaque markers, hardlinks bound to the layer's own final state or to a lower
 * layer, names normalised inside the root. What those rules leave open is settled here:
 *
 * - A path is a name, not a walk: symlinks in it are not followed, and "a/../b" is "b".
 * - A file in the place of an earlier directory drops what was below; an entry below an earlier file makes that file a
 *   directory. A directory that came after a file of the same name, or has a whiteout of its own name, is opaque, and
 *   what was below lends it no attributes.
 * - Whiteouts make no directories: one that they alone name is a ghost. Below a file of the same layer they mean
 *   nothing.
 * - What lies below a whiteout's name, and other ".wh..wh.*" names, never show; but a hardlink to such a file shows it
 *   (aufs kept its hardlinked files in ".wh..wh.plnk").
 *
 * Memory grows with the entries (mappings, returned to the system by free). Not thread-safe. */
struct layer_tree;

int layer_tree_new(struct layer_tree **ret);
struct layer_tree *layer_tree_free(struct layer_tree *t);
DEFINE_CLEANUP(struct layer_tree *, layer_tree_free)

/* Tells an empty tree how many entries there will be, about: it is filled faster then. Returns 0 or -ENOMEM. */
int layer_tree_expect(struct layer_tree *t, size_t entries);

/* Returns 0; -EBADMSG (kind BAD_DATA) with E naming path and bound for what must be refused: a name past 255 or path
 * past 4096 bytes, depth past 1024, a bare ".wh." (or a whiteout of "." or ".."), a root that is no directory, more
 * than 16 million entries, an xattr value past 64 KiB or more than 4096 xattrs, a link without target, extents out of
 * order, a type that tar does not have; -ENOMEM. The tree is then as it was, but for parents. */
int layer_tree_add(struct layer_tree *t, const struct layer_entry *entry, struct error *e);

/* Resolves hardlinks. A hardlink chain that ends in itself, or a target that is a directory: -EBADMSG with E. A target
 * that this layer does not hold becomes DIRENT_LINK; merging decides. */
int layer_tree_finish(struct layer_tree *t, struct error *e);

/* Sections of a table in memory, ready to be written; owned. Also what the image merge produces. */
struct itable_builder;

int itable_builder_new(struct itable_builder **ret);
struct itable_builder *itable_builder_free(struct itable_builder *b);
DEFINE_CLEANUP(struct itable_builder *, itable_builder_free)

/* The finished layer tree as rows (breadth first from the root). Its names go over to the builder, also when it fails:
 * the tree is of no use afterwards but to be freed. */
int itable_builder_from_layer(struct itable_builder *b, struct layer_tree *t, struct error *e);

/* Merges COUNT layer tables, lowest first, into one tree: whiteouts, opaque directories, files over directories, links
 * to lower layers; hardlinked names share one row; nlink counts the names that remain. A row's layer is the index of
 * the table that it comes from. A link that shows binds to the merged tree of the layers below its own, whatever its
 * own layer hides; to a path that they do not hold, or to a directory: -EBADMSG with E naming both. The tables must
 * have passed itable_check, or come from a file that toc_open accepts. */
int itable_builder_merge(struct itable_builder *b, const struct itable *const *layers, size_t count, struct error *e);

/* A view of what was built; valid while the builder lives. */
void itable_builder_view(const struct itable_builder *b, struct itable *ret);
