/* SPDX-License-Identifier: Apache-2.0 */

/* The check of a table that somebody else wrote. It takes only the one order of rows that itable_builder makes: rows in
 * the order of their first names, breadth first, and the dirents, extents and pairs of each following on those of the
 * one before. So no two rows can share or skip any, each check is one comparison, and the whole takes linear time. */

#include <string.h>
#include <sys/stat.h>

#include "regfs/itable.h"

struct check {
        const struct itable *t;
        const uint64_t *content_sizes;
        size_t layers;
        uint32_t *seen;    /* by row. directory: depth + 1; else: names so far; 0: no name yet */
        uint32_t next_row; /* the row that the next new name must have */
        uint32_t next_dirent;
        uint32_t next_extent;
        struct error *e;
};

#define refuse(c, ...) error_set((c)->e, ERROR_BAD_DATA, EBADMSG, __VA_ARGS__)

/* A NUL-terminated string of LENGTH bytes at OFFSET. */
static bool is_text(const struct itable *t, uint64_t offset, uint64_t length)
{
        return range_fits(offset, length + 1, t->strings_size) && strnlen(t->strings + offset, length + 1) == length;
}

static int check_bounds(const struct check *c)
{
        const struct itable *t = c->t;

        if (t->inode_count == 0 || !S_ISDIR(t->inodes[0].mode))
                return refuse(c, "inode table: row 0 is no directory");
        if (t->inode_count > ITABLE_ENTRIES_MAX || t->dirent_count > ITABLE_ENTRIES_MAX ||
            t->extent_count > ITABLE_EXTENTS_MAX || t->xattr_pair_count > ITABLE_XATTRS_MAX ||
            t->xattr_set_count > ITABLE_XATTRS_MAX || t->strings_size > ITABLE_STRINGS_MAX)
                return refuse(c, "inode table: a section is longer than its bound");
        return 0;
}

static int check_pair(const struct check *c, uint32_t pair, bool first)
{
        const struct itable *t = c->t;
        const struct xattr_pair *p = &t->xattr_pairs[pair];
        size_t n;

        if (p->name >= t->strings_size)
                return refuse(c, "xattr %u: its name lies past the strings", pair);
        n = strnlen(t->strings + p->name, MIN((size_t) t->strings_size - p->name, (size_t) ITABLE_XATTR_NAME_MAX + 1));
        if (n == 0 || n > ITABLE_XATTR_NAME_MAX || n == t->strings_size - p->name)
                return refuse(c, "xattr %u: its name is not of 1 to 255 bytes", pair);
        if (p->value_length > ITABLE_XATTR_VALUE_MAX || !range_fits(p->value, p->value_length, t->strings_size))
                return refuse(c, "xattr %u: its value lies past the strings or is longer than 64 KiB", pair);
        if (!first && strcmp(t->strings + t->xattr_pairs[pair - 1].name, t->strings + p->name) >= 0)
                return refuse(c, "xattr %u: out of order", pair);
        return 0;
}

static int check_xattrs(const struct check *c)
{
        const struct itable *t = c->t;
        uint32_t pair = 0;

        if (t->xattr_set_count == 0 || t->xattr_sets[0].count != 0)
                return refuse(c, "inode table: xattr set 0 is not empty");
        for (uint32_t i = 0; i < t->xattr_set_count; i++) {
                const struct xattr_set *s = &t->xattr_sets[i];

                if (s->first != pair || s->count > ITABLE_XATTR_COUNT_MAX || s->count > t->xattr_pair_count - pair)
                        return refuse(c, "xattr set %u: its pairs are not the next ones", i);
                for (uint32_t end = pair + s->count; pair < end; pair++) {
                        int r = check_pair(c, pair, pair == s->first);

                        if (r < 0)
                                return r;
                }
        }
        if (pair != t->xattr_pair_count)
                return refuse(c, "inode table: xattrs that belong to no set");
        return 0;
}

static int check_sparse(struct check *c, uint32_t row, uint64_t content_size)
{
        const struct itable *t = c->t;
        const struct inode *i = &t->inodes[row];
        uint64_t end = 0;

        if (i->data != c->next_extent || i->count > t->extent_count - c->next_extent)
                return refuse(c, "inode %u: its extents are not the next ones", row);
        for (uint32_t k = 0; k < i->count; k++, c->next_extent++) {
                const struct extent *x = &t->extents[c->next_extent];

                if (x->length == 0 || x->file_offset < end || !range_fits(x->file_offset, x->length, i->size) ||
                    !range_fits(x->content_offset, x->length, content_size))
                        return refuse(c, "inode %u: extent %u is out of order or out of range", row, k);
                end = x->file_offset + x->length;
        }
        return 0;
}

/* What is particular to a type of file; a directory's dirents are checked in their turn. */
static int check_data(struct check *c, uint32_t row)
{
        const struct inode *i = &c->t->inodes[row];
        uint64_t content_size = c->content_sizes[i->layer];

        switch (i->mode & S_IFMT) {
        case S_IFREG:
                if (i->size > INT64_MAX)
                        return refuse(c, "inode %u: impossible size", row);
                if (i->flags & INODE_SPARSE)
                        return check_sparse(c, row, content_size);
                if (i->count != 0 || !range_fits(i->data, i->size, content_size))
                        return refuse(c, "inode %u: its data lies past the layer's content", row);
                return 0;
        case S_IFLNK:
                if (i->count != 0 || i->size == 0 || i->size > ITABLE_SYMLINK_MAX || !is_text(c->t, i->data, i->size))
                        return refuse(c, "inode %u: bad target of a symlink", row);
                return 0;
        case S_IFCHR:
        case S_IFBLK:
        case S_IFIFO:
                if (i->count != 0 || i->size != 0)
                        return refuse(c, "inode %u: a special file with data", row);
                return 0;
        case S_IFDIR:
                if (i->size != 0)
                        return refuse(c, "inode %u: a directory with a size", row);
                return 0;
        default:
                return refuse(c, "inode %u: unknown type of file", row);
        }
}

static int check_inode(struct check *c, uint32_t row)
{
        const struct inode *i = &c->t->inodes[row];
        unsigned allowed = 0;

        if (S_ISREG(i->mode))
                allowed = INODE_SPARSE;
        else if (S_ISDIR(i->mode))
                allowed = INODE_OPAQUE | INODE_IMPLICIT | INODE_GHOST;
        if (i->flags & ~allowed || (i->flags & INODE_GHOST && !(i->flags & INODE_IMPLICIT)))
                return refuse(c, "inode %u: unknown flags", row);
        if (i->mode & ~(unsigned) (S_IFMT | 07777) || i->reserved != 0)
                return refuse(c, "inode %u: unknown bits", row);
        if (i->mtime_nsec >= 1000000000)
                return refuse(c, "inode %u: impossible time", row);
        if (i->layer >= c->layers)
                return refuse(c, "inode %u: there is no layer %u", row, i->layer);
        if (i->xattrs >= c->t->xattr_set_count)
                return refuse(c, "inode %u: there is no xattr set %u", row, i->xattrs);
        return check_data(c, row);
}

static int check_name(const struct check *c, uint32_t dir, uint32_t dirent)
{
        const struct itable *t = c->t;
        const struct dirent_row *d = &t->dirents[dirent];
        const char *name;

        if (d->name_length == 0 || d->name_length > ITABLE_NAME_MAX ||
            !range_fits(d->name, d->name_length, t->strings_size))
                return refuse(c, "dirent %u: its name lies past the strings or is not of 1 to 255 bytes", dirent);
        name = dirent_name(t, d);
        if (memchr(name, '/', d->name_length) || memchr(name, '\0', d->name_length) ||
            (name[0] == '.' && (d->name_length == 1 || (d->name_length == 2 && name[1] == '.'))))
                return refuse(c, "dirent %u: no name for a file", dirent);
        if (dirent > t->inodes[dir].data &&
            itable_compare_names(dirent_name(t, d - 1), d[-1].name_length, name, d->name_length) >= 0)
                return refuse(c, "dirent %u: out of order", dirent);
        return 0;
}

/* A name of a row: of the next row that has none, or one more of a row that is no directory. */
static int check_target(struct check *c, uint32_t dir, uint32_t dirent)
{
        uint32_t row = c->t->dirents[dirent].target;
        const struct inode *i;
        bool fresh;

        if (row == 0 || row >= c->t->inode_count || row > c->next_row)
                return refuse(c, "dirent %u: row %u is not the next one", dirent, row);
        i = &c->t->inodes[row];
        fresh = row == c->next_row;
        c->next_row += fresh;
        if (!S_ISDIR(i->mode)) {
                c->seen[row]++;
                return 0;
        }
        if (!fresh || i->parent != dir)
                return refuse(c, "dirent %u: directory %u has another parent", dirent, row);
        c->seen[row] = c->seen[dir] + 1;
        if (c->seen[row] > ITABLE_DEPTH_MAX + 1)
                return refuse(c, "dirent %u: directory %u is deeper than %d", dirent, row, ITABLE_DEPTH_MAX);
        return 0;
}

static int check_dirent(struct check *c, uint32_t dir, uint32_t dirent)
{
        const struct itable *t = c->t;
        const struct dirent_row *d = &t->dirents[dirent];
        int r;

        r = check_name(c, dir, dirent);
        if (r < 0)
                return r;
        if (d->reserved != 0)
                return refuse(c, "dirent %u: unknown bits", dirent);
        switch (d->type) {
        case DIRENT_INODE:
                return check_target(c, dir, dirent);
        case DIRENT_WHITEOUT:
                if (d->target != 0)
                        return refuse(c, "dirent %u: a whiteout with a target", dirent);
                return 0;
        case DIRENT_LINK:
                if (d->target >= t->strings_size ||
                    !memchr(t->strings + d->target, '\0',
                            MIN((size_t) t->strings_size - d->target, (size_t) ITABLE_PATH_MAX + 1)))
                        return refuse(c, "dirent %u: bad target of a hardlink", dirent);
                return 0;
        default:
                return refuse(c, "dirent %u: unknown type", dirent);
        }
}

static int check_directory(struct check *c, uint32_t dir)
{
        const struct inode *i = &c->t->inodes[dir];
        uint32_t subdirectories = 0;

        if (i->data != c->next_dirent || i->count > c->t->dirent_count - c->next_dirent)
                return refuse(c, "inode %u: its dirents are not the next ones", dir);
        for (uint32_t k = 0; k < i->count; k++, c->next_dirent++) {
                const struct dirent_row *d = &c->t->dirents[c->next_dirent];
                int r = check_dirent(c, dir, c->next_dirent);

                if (r < 0)
                        return r;
                subdirectories += d->type == DIRENT_INODE && S_ISDIR(c->t->inodes[d->target].mode);
        }
        if (i->nlink != 2 + subdirectories)
                return refuse(c, "inode %u: %u links for %u subdirectories", dir, i->nlink, subdirectories);
        return 0;
}

static int check_rows(struct check *c)
{
        const struct itable *t = c->t;
        int r = 0;

        for (uint32_t i = 0; r == 0 && i < t->inode_count; i++)
                r = check_inode(c, i);
        if (t->inodes[0].parent != 0)
                r = r < 0 ? r : refuse(c, "inode 0: the root has a parent");
        c->seen[0] = 1;
        c->next_row = 1;
        for (uint32_t i = 0; r == 0 && i < c->next_row; i++)
                if (S_ISDIR(t->inodes[i].mode))
                        r = check_directory(c, i);
        if (r < 0)
                return r;
        if (c->next_row != t->inode_count || c->next_dirent != t->dirent_count || c->next_extent != t->extent_count)
                return refuse(c, "inode table: rows, names or extents that the root does not lead to");
        for (uint32_t i = 0; i < t->inode_count; i++)
                if (!S_ISDIR(t->inodes[i].mode) && t->inodes[i].nlink != c->seen[i])
                        return refuse(c, "inode %u: %u links for %u names", i, t->inodes[i].nlink, c->seen[i]);
        return 0;
}

int itable_check(const struct itable *t, const uint64_t *content_sizes, size_t layers, struct error *e)
{
        struct check c = { .t = t, .content_sizes = content_sizes, .layers = layers, .e = e };
        _cleanup_free_ uint32_t *seen = NULL;
        int r;

        r = check_bounds(&c);
        if (r < 0)
                return r;
        seen = calloc(t->inode_count, sizeof(*seen));
        if (!seen)
                return error_oom(e);
        c.seen = seen;
        r = check_xattrs(&c);
        return r < 0 ? r : check_rows(&c);
}
