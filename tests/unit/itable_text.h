/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Inode tables as text, and layers as lists of entries, so that a test reads as what goes in and what must come out:
 *
 *     usr/ 755 implicit        a directory: mode, flags
 *     usr/a 644 #3             a regular file: mode, number (see REG)
 *     usr/b = usr/a            one more name of the same inode
 *     usr/c -> a               a symlink
 *     usr/d c 1:3              a device; p: a fifo
 *     usr/e whiteout
 *     usr/f link bin/x         a hardlink that this layer does not resolve
 *
 * " x2" behind a file is nlink, if not 1; " @1" the layer, if not 0; " {name=value}" an xattr; " 5:6" uid and gid and
 * " t7" mtime, if not 0. The root is "/". */

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "regfs/itable.h"
#include "regfs/text.h"

#define CONTENT_SIZE 1000000u

/* Regular file number N: ten bytes at content offset 10 N. */
#define REG(p, n)                                                                            \
        {                                                                                    \
                .path = (p), .mode = S_IFREG | 0644, .size = 10, .content_offset = 10u * (n) \
        }
#define DIR(p, m)                                  \
        {                                          \
                .path = (p), .mode = S_IFDIR | (m) \
        }
#define SYM(p, t)                                                \
        {                                                        \
                .path = (p), .mode = S_IFLNK | 0777, .link = (t) \
        }
#define HARD(p, t)                                                                 \
        {                                                                          \
                .path = (p), .mode = S_IFREG | 0600, .hardlink = true, .link = (t) \
        }
#define WHITEOUT(p)                          \
        {                                    \
                .path = (p), .mode = S_IFREG \
        }

#define ENTRIES(...) \
        (const struct layer_entry[]) { __VA_ARGS__ }, ELEMENTSOF(((const struct layer_entry[]) { __VA_ARGS__ }))

/* A copy of a table with each section in an allocation of its exact size, so that the address sanitizer sees any access
 * past its end. */
static inline const void *exact_copy(const void *data, size_t n)
{
        char *copy = malloc(n);

        assert_true(copy || n == 0);
        if (n > 0)
                memcpy(copy, data, n);
        return copy;
}

static inline struct itable itable_exact_copy(const struct itable *t)
{
        struct itable copy = *t;

        copy.inodes = exact_copy(t->inodes, t->inode_count * sizeof(*t->inodes));
        copy.dirents = exact_copy(t->dirents, t->dirent_count * sizeof(*t->dirents));
        copy.extents = exact_copy(t->extents, t->extent_count * sizeof(*t->extents));
        copy.xattr_sets = exact_copy(t->xattr_sets, t->xattr_set_count * sizeof(*t->xattr_sets));
        copy.xattr_pairs = exact_copy(t->xattr_pairs, t->xattr_pair_count * sizeof(*t->xattr_pairs));
        copy.strings = exact_copy(t->strings, t->strings_size);
        return copy;
}

static inline void itable_exact_free(struct itable *t)
{
        free((void *) t->inodes);
        free((void *) t->dirents);
        free((void *) t->extents);
        free((void *) t->xattr_sets);
        free((void *) t->xattr_pairs);
        free((void *) t->strings);
}

static inline void text_inode(struct buf *b, const struct itable *t, const struct inode *i)
{
        const struct xattr_set *set = &t->xattr_sets[i->xattrs];

        switch (i->mode & S_IFMT) {
        case S_IFDIR:
                buf_printf(b, " %o%s%s%s", i->mode & 07777, i->flags & INODE_IMPLICIT ? " implicit" : "",
                           i->flags & INODE_OPAQUE ? " opaque" : "", i->flags & INODE_GHOST ? " ghost" : "");
                break;
        case S_IFLNK:
                buf_printf(b, " -> %s", inode_symlink(t, i));
                break;
        case S_IFREG:
                buf_printf(b, " %o", i->mode & 07777);
                if (!(i->flags & INODE_SPARSE))
                        buf_printf(b, " #%u", (unsigned) (i->data / 10));
                for (uint32_t k = 0; i->flags & INODE_SPARSE && k < i->count; k++)
                        buf_printf(b, " [%u+%u]", (unsigned) t->extents[i->data + k].file_offset,
                                   (unsigned) t->extents[i->data + k].length);
                break;
        case S_IFIFO:
                buf_printf(b, " p");
                break;
        default:
                buf_printf(b, " %c %u:%u", S_ISCHR(i->mode) ? 'c' : 'b', (unsigned) (i->data >> 32),
                           (unsigned) i->data);
        }
        if (!S_ISDIR(i->mode) && i->nlink != 1)
                buf_printf(b, " x%u", i->nlink);
        if (i->uid || i->gid)
                buf_printf(b, " %u:%u", i->uid, i->gid);
        if (i->mtime || i->mtime_nsec)
                buf_printf(b, " t%d", (int) i->mtime);
        for (uint32_t k = 0; k < set->count; k++) {
                const struct xattr_pair *p = &t->xattr_pairs[set->first + k];

                buf_printf(b, " {%s=%.*s}", t->strings + p->name, (int) p->value_length, t->strings + p->value);
        }
        if (S_ISREG(i->mode) && i->layer)
                buf_printf(b, " @%u", i->layer);
        buf_append_char(b, '\n');
}

static inline void text_directory(struct buf *b, const struct itable *t, uint32_t dir, const char *path,
                                  char **first_names)
{
        const struct inode *i = &t->inodes[dir];

        for (uint32_t k = 0; k < i->count; k++) {
                const struct dirent_row *d = &t->dirents[i->data + k];
                const struct inode *child = &t->inodes[d->target];
                _cleanup_free_ char *child_path = str_printf("%s%.*s", path, d->name_length, dirent_name(t, d));

                if (d->type == DIRENT_WHITEOUT) {
                        buf_printf(b, "%s whiteout\n", child_path);
                } else if (d->type == DIRENT_LINK) {
                        buf_printf(b, "%s link %s\n", child_path, t->strings + d->target);
                } else if (S_ISDIR(child->mode)) {
                        _cleanup_free_ char *below = str_printf("%s/", child_path);

                        buf_append_str(b, below);
                        text_inode(b, t, child);
                        text_directory(b, t, d->target, below, first_names);
                } else if (first_names[d->target]) {
                        buf_printf(b, "%s = %s\n", child_path, first_names[d->target]);
                } else {
                        buf_append_str(b, child_path);
                        text_inode(b, t, child);
                        first_names[d->target] = steal_ptr(child_path);
                }
        }
}

/* The caller frees. */
static inline char *itable_text(const struct itable *t)
{
        char **first_names = calloc(t->inode_count, sizeof(*first_names));
        struct buf b = { 0 };

        assert_non_null(first_names);
        buf_append_char(&b, '/');
        text_inode(&b, t, &t->inodes[0]);
        text_directory(&b, t, 0, "", first_names);
        for (uint32_t i = 0; i < t->inode_count; i++)
                free(first_names[i]);
        free(first_names);
        return buf_steal(&b);
}

/* A finished layer of these entries, all of which must be accepted. */
static inline struct layer_tree *make_layer(const struct layer_entry *entries, size_t count)
{
        struct error e = ERROR_INIT;
        struct layer_tree *t;

        assert_int_equal(layer_tree_new(&t), 0);
        for (size_t i = 0; i < count; i++)
                if (layer_tree_add(t, &entries[i], &e) < 0)
                        fail_msg("%s", e.message);
        if (layer_tree_finish(t, &e) < 0)
                fail_msg("%s", e.message);
        return t;
}

/* A checked copy of what BUILDER holds. */
static inline struct itable checked_table(const struct itable_builder *builder, size_t layers)
{
        uint64_t sizes[8] = { CONTENT_SIZE, CONTENT_SIZE, CONTENT_SIZE, CONTENT_SIZE,
                              CONTENT_SIZE, CONTENT_SIZE, CONTENT_SIZE, CONTENT_SIZE };
        struct error e = ERROR_INIT;
        struct itable view, copy;

        itable_builder_view(builder, &view);
        copy = itable_exact_copy(&view);
        if (itable_check(&copy, sizes, layers ? layers : 1, &e) < 0)
                fail_msg("%s", e.message);
        return copy;
}

/* The table of one layer; itable_exact_free when done. */
static inline struct itable layer_table(const struct layer_entry *entries, size_t count)
{
        _cleanup_(layer_tree_free_ptr) struct layer_tree *t = make_layer(entries, count);
        _cleanup_(itable_builder_free_ptr) struct itable_builder *b = NULL;
        struct error e = ERROR_INIT;

        assert_int_equal(itable_builder_new(&b), 0);
        assert_int_equal(itable_builder_from_layer(b, t, &e), 0);
        return checked_table(b, 1);
}
