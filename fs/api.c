/* SPDX-License-Identifier: Apache-2.0 */

/* regfs.h on top of the internal faces. */

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "regfs.h"
#include "regfs/image.h"

#define SYMLINKS_MAX 40
#define PARTS_ON_STACK 8

_Static_assert(sizeof(struct regfs_error) == sizeof(struct error), "the public error is the internal one");
_Static_assert(offsetof(struct regfs_error, message) == offsetof(struct error, message), "see above");
_Static_assert((int) REGFS_ERROR_MOUNT == (int) ERROR_MOUNT, "see above");

static struct error *internal(struct regfs_error *e)
{
        return (struct error *) e;
}

static struct image *inside(struct regfs_image *i)
{
        return (struct image *) i;
}

const char *regfs_version(void)
{
        return REGFS_VERSION;
}

int regfs_open(const char *reference, const struct regfs_options *options, struct regfs_image **ret,
               struct regfs_error *error)
{
        struct regfs_options known = REGFS_OPTIONS_INIT;
        struct image *image;
        int r;

        if (error)
                *error = (struct regfs_error) { .kind = REGFS_ERROR_NONE };
        if (options) {
                if (options->size < offsetof(struct regfs_options, platform) || options->size > sizeof(known))
                        return error_set(internal(error), ERROR_USAGE, EINVAL,
                                         "options of another version of libregfs");
                memcpy(&known, options, options->size);
        }
        r = image_open(reference, &known, &image, internal(error));
        if (r < 0)
                return r;
        *ret = (struct regfs_image *) image;
        return 0;
}

void regfs_close(struct regfs_image *image)
{
        image_close(inside(image));
}

const char *regfs_reference(const struct regfs_image *image)
{
        return image_reference((const struct image *) image);
}

const char *regfs_digest(const struct regfs_image *image)
{
        return image_digest((const struct image *) image);
}

const char *regfs_platform(const struct regfs_image *image)
{
        return image_platform((const struct image *) image);
}

/* The inode of INO, or NULL with an error. */
static const struct inode *inode_of(struct regfs_image *image, uint64_t ino, struct regfs_error *error)
{
        const struct itable *t = &image_tree(inside(image))->itable;

        if (ino == 0 || ino > t->inode_count) {
                error_set(internal(error), ERROR_NOT_FOUND, ENOENT, "%s: no inode %ju", regfs_reference(image),
                          (uintmax_t) ino);
                return NULL;
        }
        return &t->inodes[ino - 1];
}

/* ---- paths ---- */

/* What is left to walk: a path on a small stack of symlink targets, spliced into one string. */
struct walk {
        const struct itable *t;
        uint32_t row;
        char rest[2 * PATH_MAX];
        unsigned links;
};

static int splice_symlink(struct walk *w, const struct inode *link, const char *rest)
{
        char joined[sizeof(w->rest)];
        int n;

        if (++w->links > SYMLINKS_MAX)
                return -ELOOP;
        if (link->size == 0)
                return -ENOENT;
        n = snprintf(joined, sizeof(joined), "%s%s", inode_symlink(w->t, link), rest);
        if (n < 0 || (size_t) n >= sizeof(joined))
                return -ENAMETOOLONG;
        if (joined[0] == '/')
                w->row = 0;
        memcpy(w->rest, joined, (size_t) n + 1);
        return 0;
}

/* One component: NAME of LENGTH bytes; REST is what follows it in w->rest, nothing or a slash and more. */
static int step(struct walk *w, const char *name, size_t length, const char *rest, bool follow)
{
        const struct inode *dir = &w->t->inodes[w->row];
        const struct inode *child;
        uint32_t d;

        if (!S_ISDIR(dir->mode))
                return -ENOTDIR;
        if (length == 1 && name[0] == '.')
                goto advance;
        if (length == 2 && name[0] == '.' && name[1] == '.') {
                w->row = dir->parent;
                goto advance;
        }
        if (length > NAME_MAX)
                return -ENAMETOOLONG;
        d = itable_find(w->t, w->row, name, length);
        if (d == ITABLE_NONE)
                return -ENOENT;
        child = &w->t->inodes[w->t->dirents[d].target];
        if (S_ISLNK(child->mode) && (follow || *rest != '\0'))
                return splice_symlink(w, child, rest);
        w->row = w->t->dirents[d].target;
advance:
        memmove(w->rest, rest, strlen(rest) + 1);
        return 0;
}

static int walk_path(const struct itable *t, const char *path, bool follow, uint32_t *ret_row)
{
        struct walk w = { .t = t };
        size_t n = strlen(path);

        if (n >= PATH_MAX)
                return -ENAMETOOLONG;
        memcpy(w.rest, path, n + 1);
        for (;;) {
                const char *name = w.rest + strspn(w.rest, "/");
                size_t length = strcspn(name, "/");
                int r;

                if (length == 0)
                        break;
                r = step(&w, name, length, name + length, follow);
                if (r < 0)
                        return r;
                if (w.rest[0] == '/' && !S_ISDIR(t->inodes[w.row].mode))
                        return -ENOTDIR;
        }
        *ret_row = w.row;
        return 0;
}

int regfs_lookup(struct regfs_image *image, const char *path, unsigned flags, uint64_t *ret_ino,
                 struct regfs_error *error)
{
        uint32_t row;
        int r;

        r = walk_path(&image_tree(inside(image))->itable, path, flags & REGFS_FOLLOW, &row);
        if (r < 0)
                return error_errno(internal(error), -r, "%s: %s", regfs_reference(image), path);
        *ret_ino = (uint64_t) row + 1;
        return 0;
}

/* ---- inodes ---- */

int regfs_stat(struct regfs_image *image, uint64_t ino, struct stat *ret, struct regfs_error *error)
{
        if (!inode_of(image, ino, error))
                return -ENOENT;
        image_stat(inside(image), (uint32_t) (ino - 1), ret);
        return 0;
}

int regfs_readlink(struct regfs_image *image, uint64_t ino, const char **ret, struct regfs_error *error)
{
        const struct inode *n = inode_of(image, ino, error);

        if (!n)
                return -ENOENT;
        if (!S_ISLNK(n->mode))
                return error_set(internal(error), ERROR_OTHER, EINVAL, "inode %ju is no symlink", (uintmax_t) ino);
        *ret = inode_symlink(&image_tree(inside(image))->itable, n);
        return 0;
}

int regfs_list(struct regfs_image *image, uint64_t ino, uint32_t index, struct regfs_dirent *ret,
               struct regfs_error *error)
{
        const struct itable *t = &image_tree(inside(image))->itable;
        const struct inode *n = inode_of(image, ino, error);
        const struct dirent_row *d;

        if (!n)
                return -ENOENT;
        if (!S_ISDIR(n->mode))
                return error_set(internal(error), ERROR_OTHER, ENOTDIR, "inode %ju is no directory", (uintmax_t) ino);
        if (index >= n->count)
                return 0;
        d = &t->dirents[n->data + index];
        *ret = (struct regfs_dirent) {
                .ino = (uint64_t) d->target + 1,
                .mode = t->inodes[d->target].mode,
                .name = dirent_name(t, d),
                .name_length = d->name_length,
        };
        return 1;
}

int regfs_getxattr(struct regfs_image *image, uint64_t ino, const char *name, const void **ret, size_t *ret_length,
                   struct regfs_error *error)
{
        const struct inode *n = inode_of(image, ino, error);
        const uint8_t *value;
        int r;

        if (!n)
                return -ENOENT;
        r = itable_xattr(&image_tree(inside(image))->itable, n, name, &value, ret_length);
        if (r < 0)
                return error_errno(internal(error), -r, "inode %ju: %s", (uintmax_t) ino, name);
        *ret = value;
        return 0;
}

int regfs_listxattr(struct regfs_image *image, uint64_t ino, uint32_t index, const char **ret,
                    struct regfs_error *error)
{
        const struct itable *t = &image_tree(inside(image))->itable;
        const struct inode *n = inode_of(image, ino, error);
        const struct xattr_set *set;

        if (!n)
                return -ENOENT;
        set = &t->xattr_sets[n->xattrs];
        if (index >= set->count)
                return 0;
        *ret = t->strings + t->xattr_pairs[set->first + index].name;
        return 1;
}

/* ---- content ---- */

static int read_parts(struct image *i, uint32_t row, uint64_t offset, size_t size, uint8_t *data, struct error *e)
{
        struct fetch_part few[PARTS_ON_STACK], *parts = few;
        _cleanup_free_ struct fetch_part *many = NULL;
        bool holes;
        size_t n;

        n = image_parts(i, row, offset, size, parts, ELEMENTSOF(few), &holes);
        if (n > ELEMENTSOF(few)) {
                parts = many = calloc(n, sizeof(*many));
                if (!many)
                        return error_oom(e);
                n = image_parts(i, row, offset, size, parts, n, &holes);
        }
        if (holes)
                memset(data, 0, size);
        if (fetch_cached(parts, n, data) == 0)
                return 0;
        return fetch_wait(parts, n, data, e);
}

ssize_t regfs_read(struct regfs_image *image, uint64_t ino, void *data, size_t size, uint64_t offset,
                   struct regfs_error *error)
{
        const struct inode *n = inode_of(image, ino, error);
        int r;

        if (!n)
                return -ENOENT;
        if (!S_ISREG(n->mode))
                return error_set(internal(error), ERROR_OTHER, S_ISDIR(n->mode) ? EISDIR : EINVAL,
                                 "inode %ju is no regular file", (uintmax_t) ino);
        if (offset >= n->size)
                return 0;
        size = MIN(size, (size_t) SSIZE_MAX);
        size = (size_t) MIN((uint64_t) size, n->size - offset);
        r = read_parts(inside(image), (uint32_t) (ino - 1), offset, size, data, internal(error));
        return r < 0 ? r : (ssize_t) size;
}
