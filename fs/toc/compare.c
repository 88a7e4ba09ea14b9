/* SPDX-License-Identifier: Apache-2.0 */

/* Both trees are walked at once, directory by directory: their children are sorted alike. Rows are numbered differently
 * where the same tree was told in another order, so inodes are matched by the names that lead to them: the first name
 * makes two rows a pair, and every further one must lead to the same pair. */

#include "compare.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "layer_path.h"

#define HALF_SECOND 500000000u

/* A directory on the way down, in both tables. */
struct place {
        uint32_t told_dir, true_dir;
        uint32_t told_at, true_at; /* children passed so far */
        size_t path_length;
};

struct comparison {
        const struct itable *told;
        const struct itable *truth;
        difference_fn *report; /* NULL: nobody listens any more */
        void *context;
        struct row_pair *pairs;
        uint32_t *back; /* by true row: the told row of its pair */
        bool whole_seconds;
        uint32_t same_told_xattrs, same_true_xattrs; /* sets found equal last */
        struct buf path;                             /* of what is being compared */
        struct place *stack;
        size_t stack_allocated;
        size_t depth;
        struct comparison_result result;
};

static void comparison_clear(struct comparison *c)
{
        buf_free(&c->path);
        free(c->stack);
        free(c->back);
}

/* ---- telling ---- */

static void differ(struct comparison *c, const char *format, ...) _printf_(2, 3);

static void differ(struct comparison *c, const char *format, ...)
{
        char shown[LAYER_PATH_SHOWN_MAX], cause[900], text[LAYER_PATH_SHOWN_MAX + sizeof(cause) + 2];
        va_list ap;

        c->result.differences++;
        if (!c->report)
                return;
        va_start(ap, format);
        vsnprintf(cause, sizeof(cause), format, ap);
        va_end(ap);
        snprintf(text, sizeof(text), "%s: %s", layer_path_show(c->path.data, c->path.len, shown), cause);
        if (c->report(c->context, text) != 0)
                c->report = NULL;
}

static const char *show(const char *text, char shown[LAYER_PATH_SHOWN_MAX])
{
        return layer_path_show(text, strlen(text), shown);
}

static const char *type_name(uint32_t mode)
{
        switch (mode & S_IFMT) {
        case S_IFREG:
                return "a regular file";
        case S_IFDIR:
                return "a directory";
        case S_IFLNK:
                return "a symlink";
        case S_IFCHR:
                return "a character device";
        case S_IFBLK:
                return "a block device";
        default:
                return "a fifo";
        }
}

/* What a name stands for; NULL is no name. */
static const char *dirent_kind(const struct itable *t, const struct dirent_row *d)
{
        if (!d)
                return "nothing";
        switch (d->type) {
        case DIRENT_WHITEOUT:
                return "a whiteout";
        case DIRENT_LINK:
                return "a hardlink into a lower layer";
        default:
                return type_name(t->inodes[d->target].mode);
        }
}

/* ---- attributes ---- */

static bool same_time(const struct comparison *c, const struct inode *a, const struct inode *b)
{
        if (!c->whole_seconds)
                return a->mtime == b->mtime && a->mtime_nsec == b->mtime_nsec;
        return a->mtime == b->mtime || (b->mtime_nsec >= HALF_SECOND && a->mtime - 1 == b->mtime);
}

static int compare_pairs(const struct comparison *c, const struct xattr_pair *a, const struct xattr_pair *b)
{
        if (!a || !b)
                return a ? -1 : 1;
        return strcmp(c->told->strings + a->name, c->truth->strings + b->name);
}

static bool same_value(const struct comparison *c, const struct xattr_pair *a, const struct xattr_pair *b)
{
        return a->value_length == b->value_length &&
               memcmp(c->told->strings + a->value, c->truth->strings + b->value, a->value_length) == 0;
}

/* Pairs are sorted by their names in both. */
static void compare_xattrs(struct comparison *c, uint32_t told_set, uint32_t true_set)
{
        const struct xattr_set *s = &c->told->xattr_sets[told_set], *t = &c->truth->xattr_sets[true_set];
        uint64_t before = c->result.differences;
        char shown[LAYER_PATH_SHOWN_MAX];

        if (told_set == c->same_told_xattrs && true_set == c->same_true_xattrs)
                return;
        for (uint32_t i = 0, k = 0; i < s->count || k < t->count;) {
                const struct xattr_pair *a = i < s->count ? &c->told->xattr_pairs[s->first + i] : NULL;
                const struct xattr_pair *b = k < t->count ? &c->truth->xattr_pairs[t->first + k] : NULL;
                int order = compare_pairs(c, a, b);

                i += order <= 0;
                k += order >= 0;
                if (order < 0)
                        differ(c, "xattr %s is in the table, not in the tar", show(c->told->strings + a->name, shown));
                else if (order > 0)
                        differ(c, "xattr %s is in the tar, not in the table", show(c->truth->strings + b->name, shown));
                else if (!same_value(c, a, b))
                        differ(c, "xattr %s has another value in the table than in the tar",
                               show(c->told->strings + a->name, shown));
        }
        if (c->result.differences == before) {
                c->same_told_xattrs = told_set;
                c->same_true_xattrs = true_set;
        }
}

/* What makes a directory be there, and so whether a lower layer's attributes show. */
static const char *origin(const struct inode *i)
{
        return i->flags & INODE_GHOST      ? "named by whiteouts alone"
               : i->flags & INODE_IMPLICIT ? "implied by what is in it"
                                           : "with an entry of its own";
}

static void compare_directories(struct comparison *c, const struct inode *a, const struct inode *b)
{
        bool told = a->flags & INODE_OPAQUE, true_one = b->flags & INODE_OPAQUE;

        if (told != true_one)
                differ(c, "a directory that %s what lower layers have there by the table, %s it in the tar",
                       told ? "hides" : "shows", true_one ? "hides" : "shows");
        if (origin(a) != origin(b))
                differ(c, "a directory %s in the table, %s in the tar", origin(a), origin(b));
}

/* What only inodes of one type have. */
static void compare_kind(struct comparison *c, const struct inode *a, const struct inode *b)
{
        char told[LAYER_PATH_SHOWN_MAX], true_one[LAYER_PATH_SHOWN_MAX];

        switch (a->mode & S_IFMT) {
        case S_IFREG:
                if (a->size != b->size)
                        differ(c, "%" PRIu64 " bytes in the table, %" PRIu64 " in the tar", a->size, b->size);
                break;
        case S_IFLNK:
                if (strcmp(inode_symlink(c->told, a), inode_symlink(c->truth, b)) != 0)
                        differ(c, "a symlink to %s in the table, to %s in the tar",
                               show(inode_symlink(c->told, a), told), show(inode_symlink(c->truth, b), true_one));
                break;
        case S_IFCHR:
        case S_IFBLK:
                if (a->data != b->data)
                        differ(c, "device %u:%u in the table, %u:%u in the tar", (unsigned) (a->data >> 32),
                               (unsigned) a->data, (unsigned) (b->data >> 32), (unsigned) b->data);
                break;
        case S_IFDIR:
                compare_directories(c, a, b);
                break;
        }
}

/* The two are of one type. */
static void compare_inodes(struct comparison *c, const struct inode *a, const struct inode *b)
{
        if (a->mode != b->mode)
                differ(c, "mode %04o in the table, %04o in the tar", a->mode & 07777, b->mode & 07777);
        if (a->uid != b->uid || a->gid != b->gid)
                differ(c, "owner %u:%u in the table, %u:%u in the tar", a->uid, a->gid, b->uid, b->gid);
        if (!same_time(c, a, b))
                differ(c, "modified at %" PRId64 ".%09u in the table, %" PRId64 ".%09u in the tar", a->mtime,
                       a->mtime_nsec, b->mtime, b->mtime_nsec);
        compare_kind(c, a, b);
        compare_xattrs(c, a->xattrs, b->xattrs);
}

/* ---- names ---- */

/* The first name of told row ROW, to be shown. */
static int first_name(const struct comparison *c, uint32_t row, char shown[LAYER_PATH_SHOWN_MAX], struct error *e)
{
        _cleanup_buf_ struct buf path = { 0 };

        if (row_pair_path(c->told, c->pairs, row, &path) < 0)
                return error_oom(e);
        layer_path_show(path.data, path.len, shown);
        return 0;
}

/* A name that leads to told row A and true row B, which are no directories: both must have been met together before, or
 * neither. */
static int compare_files(struct comparison *c, const struct place *p, uint32_t dirent, uint32_t a, uint32_t b,
                         struct error *e)
{
        const struct row_pair pair = { .other = b, .directory = p->told_dir, .dirent = dirent };
        bool known = c->pairs[a].other != ITABLE_NONE;
        char shown[LAYER_PATH_SHOWN_MAX];
        int r = 0;

        if (c->pairs[a].other == b)
                return 0;
        if (!known && c->back[b] == ITABLE_NONE) {
                c->back[b] = a;
        } else if (known) {
                r = first_name(c, a, shown, e);
                if (r == 0)
                        differ(c, "a hardlink of %s in the table, not in the tar", shown);
        } else {
                r = first_name(c, c->back[b], shown, e);
                if (r == 0)
                        differ(c, "a hardlink of %s in the tar, not in the table", shown);
        }
        if (!known)
                c->pairs[a] = pair;
        compare_inodes(c, &c->told->inodes[a], &c->truth->inodes[b]);
        return r;
}

static int enter(struct comparison *c, uint32_t told_dir, uint32_t true_dir, struct error *e)
{
        if (array_reserve(c->stack, &c->stack_allocated, c->depth + 1) < 0)
                return error_oom(e);
        c->stack[c->depth++] = (struct place) {
                .told_dir = told_dir,
                .true_dir = true_dir,
                .path_length = c->path.len,
        };
        compare_inodes(c, &c->told->inodes[told_dir], &c->truth->inodes[true_dir]);
        return 0;
}

/* A name that both tables have. P is not to be used any more when this returns. */
static int compare_names(struct comparison *c, const struct place *p, const struct dirent_row *a,
                         const struct dirent_row *b, struct error *e)
{
        uint32_t dirent = (uint32_t) (a - c->told->dirents);
        char told[LAYER_PATH_SHOWN_MAX], true_one[LAYER_PATH_SHOWN_MAX];
        uint32_t told_mode, true_mode;

        if (a->type == DIRENT_LINK && b->type == DIRENT_LINK &&
            strcmp(c->told->strings + a->target, c->truth->strings + b->target) != 0)
                differ(c, "a hardlink to %s in the table, to %s in the tar", show(c->told->strings + a->target, told),
                       show(c->truth->strings + b->target, true_one));
        if (a->type == b->type && a->type != DIRENT_INODE)
                return 0;

        told_mode = a->type == DIRENT_INODE ? c->told->inodes[a->target].mode : 0;
        true_mode = b->type == DIRENT_INODE ? c->truth->inodes[b->target].mode : 0;
        if (a->type != b->type || (told_mode & S_IFMT) != (true_mode & S_IFMT)) {
                differ(c, "%s in the table, %s in the tar", dirent_kind(c->told, a), dirent_kind(c->truth, b));
                return 0;
        }
        if (!S_ISDIR(told_mode))
                return compare_files(c, p, dirent, a->target, b->target, e);
        c->pairs[a->target] = (struct row_pair) { .other = b->target, .directory = p->told_dir, .dirent = dirent };
        return enter(c, a->target, b->target, e);
}

const char *compare_hidden_name(size_t index, bool *ret_mark)
{
        static const char *const names[] = { ".prefetch.landmark", ".no.prefetch.landmark", "stargz.index.json" };

        *ret_mark = index < 2;
        return index < ELEMENTSOF(names) ? names[index] : NULL;
}

/* Whether the true name B, in the root, is one that tables leave out. */
static bool is_hidden(const struct comparison *c, const struct dirent_row *b)
{
        const struct inode *i = b->type == DIRENT_INODE ? &c->truth->inodes[b->target] : NULL;
        const char *name;
        bool mark;

        for (size_t k = 0; (name = compare_hidden_name(k, &mark)); k++)
                if (i && S_ISREG(i->mode) && (!mark || i->size == 1) && b->name_length == strlen(name) &&
                    memcmp(dirent_name(c->truth, b), name, b->name_length) == 0)
                        return true;
        return false;
}

static int set_path(struct comparison *c, const struct place *p, const struct itable *t, const struct dirent_row *d)
{
        c->path.len = p->path_length;
        if (c->path.len > 0 && buf_append_char(&c->path, '/') < 0)
                return -ENOMEM;
        return buf_append(&c->path, dirent_name(t, d), d->name_length);
}

/* The next name of the directory on top of the stack, or the end of it. */
static int step(struct comparison *c, struct error *e)
{
        struct place *p = &c->stack[c->depth - 1];
        const struct inode *told_dir = &c->told->inodes[p->told_dir], *true_dir = &c->truth->inodes[p->true_dir];
        const struct dirent_row *a, *b;
        int order;

        a = p->told_at < told_dir->count ? &c->told->dirents[told_dir->data + p->told_at] : NULL;
        b = p->true_at < true_dir->count ? &c->truth->dirents[true_dir->data + p->true_at] : NULL;
        if (!a && !b) {
                c->depth--;
                return 0;
        }
        order = !a   ? 1
                : !b ? -1
                     : itable_compare_names(dirent_name(c->told, a), a->name_length, dirent_name(c->truth, b),
                                            b->name_length);
        p->told_at += order <= 0;
        p->true_at += order >= 0;
        if (order > 0 && c->depth == 1 && is_hidden(c, b))
                return 0;

        c->result.entries++;
        if (set_path(c, p, order > 0 ? c->truth : c->told, order > 0 ? b : a) < 0)
                return error_oom(e);
        if (order == 0)
                return compare_names(c, p, a, b, e);
        differ(c, "%s in the table, %s in the tar", dirent_kind(c->told, order < 0 ? a : NULL),
               dirent_kind(c->truth, order > 0 ? b : NULL));
        return 0;
}

/* ---- the whole ---- */

static bool has_whole_seconds(const struct itable *t)
{
        for (uint32_t i = 0; i < t->inode_count; i++)
                if (t->inodes[i].mtime_nsec != 0)
                        return false;
        return true;
}

int itable_compare(const struct itable *told, const struct itable *other, difference_fn *report, void *context,
                   struct row_pair *pairs, struct comparison_result *ret, struct error *e)
{
        _cleanup_(comparison_clear) struct comparison c = {
                .told = told,
                .truth = other,
                .report = report,
                .context = context,
                .pairs = pairs,
                .whole_seconds = has_whole_seconds(told),
        };
        int r;

        c.back = malloc(other->inode_count * sizeof(*c.back));
        if (!c.back || buf_reserve(&c.path, ITABLE_NAME_MAX) < 0)
                return error_oom(e);
        for (uint32_t i = 0; i < other->inode_count; i++)
                c.back[i] = ITABLE_NONE;
        for (uint32_t i = 0; i < told->inode_count; i++)
                pairs[i] = (struct row_pair) { .other = ITABLE_NONE };

        pairs[0].other = 0;
        r = enter(&c, 0, 0, e);
        while (r == 0 && c.depth > 0)
                r = step(&c, e);
        if (r < 0)
                return r;
        *ret = c.result;
        return 0;
}

int row_pair_path(const struct itable *told, const struct row_pair *pairs, uint32_t row, struct buf *ret)
{
        size_t length = 0, end;

        for (uint32_t i = row; i != 0; i = pairs[i].directory)
                length += told->dirents[pairs[i].dirent].name_length + (pairs[i].directory != 0);
        if (buf_reserve(ret, length) < 0)
                return -ENOMEM;
        ret->len += length;
        ret->data[ret->len] = '\0';
        end = ret->len;
        for (uint32_t i = row; i != 0; i = pairs[i].directory) {
                const struct dirent_row *d = &told->dirents[pairs[i].dirent];

                end -= d->name_length;
                memcpy(ret->data + end, dirent_name(told, d), d->name_length);
                if (pairs[i].directory != 0)
                        ret->data[--end] = '/';
        }
        return 0;
}

int toc_compare(const struct toc *told, const struct toc *true_toc, difference_fn *report, void *context,
                uint64_t *ret_differences, struct error *e)
{
        _cleanup_free_ struct row_pair *pairs = malloc(told->itable.inode_count * sizeof(*pairs));
        struct comparison_result result;
        int r;

        if (!pairs)
                return error_oom(e);
        r = itable_compare(&told->itable, &true_toc->itable, report, context, pairs, &result, e);
        if (r == 0)
                *ret_differences = result.differences;
        return r;
}
