/* SPDX-License-Identifier: Apache-2.0 */

/* Stores behind one's own, and content in them. */

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "regfs/io.h"
#include "regfs/log.h"
#include "store_internal.h"

/* Chunks of one read that turn out wrong in one place after the other, before it is fetched. */
#define WRONG_MAX 64

/* ---- stores ---- */

static bool is_writable_by_others(const struct stat *st)
{
        return st->st_mode & (S_IWGRP | S_IWOTH);
}

static int check_directory(struct store *s, struct error *e)
{
        struct stat st;

        if (fstat(s->fd, &st) < 0)
                return error_errno(e, errno, "store %s", s->path);
        if (is_writable_by_others(&st))
                return error_set(e, ERROR_DENIED, EPERM,
                                 "store %s is writable by others than its owner (mode %04o): refused", s->path,
                                 (unsigned) st.st_mode & 07777);
        if (faccessat(s->fd, "layers", F_OK, 0) < 0 && faccessat(s->fd, "blobs", F_OK, 0) < 0)
                return error_set(e, ERROR_NOT_FOUND, ENOENT, "store %s: there is no store: neither layers nor blobs",
                                 s->path);
        s->owner = st.st_uid;
        return 0;
}

/* A store at PATH that is only read, not yet open. */
static struct store *new_read_only(const char *path)
{
        struct store *s = calloc(1, sizeof(*s));

        if (!s)
                return NULL;
        s->fd = -1;
        s->read_only = true;
        /* As where other machines write: nothing is mapped that could change or go away, and no lock is taken. */
        s->remote = true;
        mutex_init(&s->lock);
        evictor_init(s);
        s->path = strdup(path);
        return s->path ? s : store_close(s);
}

int store_add(struct store *s, const char *directory, struct error *e)
{
        _cleanup_(store_close_ptr) struct store *lower = new_read_only(directory);
        size_t allocated = s->lower_count;
        int r;

        if (!lower)
                return error_oom(e);
        lower->lower = true;
        if (!*directory)
                return error_set(e, ERROR_USAGE, EINVAL, "a store's directory has an empty name");
        lower->fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (lower->fd < 0)
                return error_errno(e, errno, "store %s", directory);
        r = check_directory(lower, e);
        if (r < 0)
                return r;
        if (array_reserve(s->lowers, &allocated, s->lower_count + 1) < 0)
                return error_oom(e);
        if (store_is_foreign(lower))
                log_info("store %s belongs to user %ju: what it tells of trees is copied and checked", directory,
                         (uintmax_t) lower->owner);
        s->lowers[s->lower_count++] = steal_ptr(lower);
        return 0;
}

/* A place that can't be had, as opposed to one that must not be used. */
static bool is_out_of_reach(int r)
{
        return r == -EROFS || r == -EACCES || r == -ENOENT || r == -ENOTDIR;
}

static bool is_full(int r)
{
        return r == -ENOSPC || r == -EDQUOT;
}

/* Stands in the place of one's own store at PATH: has nothing and takes nothing, because of REFUSED. */
static int open_none(const char *path, int refused, struct store **ret, struct error *e)
{
        _cleanup_(store_close_ptr) struct store *s = new_read_only(path);

        if (!s)
                return error_oom(e);
        s->refused = refused;
        s->owner = geteuid();
        /* A directory in which none of a store's names can ever be. */
        s->fd = open("/proc/self/fdinfo", O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (s->fd < 0)
                return error_errno(e, errno, "/proc/self/fdinfo");
        *ret = steal_ptr(s);
        return 0;
}

int store_open_all(const char *directory, const char *const *stores, struct store **ret, struct error *e)
{
        _cleanup_(store_close_ptr) struct store *s = NULL;
        _cleanup_free_ char *standard = NULL;
        struct error own = ERROR_INIT;
        int r;

        if (!e)
                e = &own;
        r = store_open(directory, &s, e);
        if (is_out_of_reach(r) && stores && stores[0]) {
                log_info("%s: what is fetched is not kept", e->message);
                r = open_none("/(none)", 0, &s, e);
        } else if (is_full(r)) {
                int refused = -r;

                log_info("%s", e->message);
                r = directory ? 0 : store_default_path(&standard, e);
                if (r == 0)
                        r = open_none(directory ? directory : standard, refused, &s, e);
        }
        for (size_t k = 0; r == 0 && stores && stores[k]; k++)
                r = store_add(s, stores[k], e);
        if (r < 0)
                return r;
        *ret = steal_ptr(s);
        return 0;
}

void store_clear_lowers(struct store *s)
{
        for (size_t k = 0; k < s->lower_count; k++)
                store_close(s->lowers[k]);
        free(s->lowers);
        s->lowers = NULL;
        s->lower_count = 0;
}

bool store_has_no_room(const struct store *s)
{
        return is_full(-s->refused);
}

struct store *store_at(struct store *s, size_t k)
{
        if (k == 0)
                return s;
        return k <= s->lower_count ? s->lowers[k - 1] : NULL;
}

bool store_is_foreign(const struct store *s)
{
        return s->lower && s->owner != 0 && s->owner != geteuid();
}

uid_t store_owner(const struct store *s)
{
        return s->owner;
}

/* ---- files ---- */

int store_check_file(const struct store *s, int fd, const char *path)
{
        struct stat st;

        if (!s->lower)
                return 0;
        if (fstat(fd, &st) < 0)
                return -errno;
        if (S_ISREG(st.st_mode) && (st.st_uid == s->owner || st.st_uid == 0) && !is_writable_by_others(&st))
                return 0;
        log_warning("store %s: %s is not used: it is no file, or others than the store's owner can write it (user %ju, "
                    "mode %06o)",
                    s->path, path, (uintmax_t) st.st_uid, (unsigned) st.st_mode);
        return -EPERM;
}

int store_open_file(const struct store *s, const char *path)
{
        /* A fifo in the place of a file must not hold us up. */
        _cleanup_close_ int fd = openat(s->fd, path, O_RDONLY | O_CLOEXEC | (s->lower ? O_NONBLOCK : 0));
        int r;

        if (fd < 0) {
                r = -errno;
                if (r == -EACCES && s->lower)
                        log_warning("store %s: %s: %s", s->path, path, strerror(EACCES));
                return r;
        }
        r = store_check_file(s, fd, path);
        return r < 0 ? r : steal_fd(&fd);
}

/* ---- content ---- */

/* KIND without ".by-<uid>". */
static void plain_kind(const char *kind, char out[LAYER_KIND_MAX])
{
        const char *by = strstr(kind, LAYER_KIND_BY);

        snprintf(out, LAYER_KIND_MAX, "%.*s", by ? (int) (by - kind) : (int) strlen(kind), kind);
}

int content_lowers_open(struct content_lowers *l, struct store *s, const struct digest *layer, const char *kind,
                        const struct chunk_table *table)
{
        char plain[LAYER_KIND_MAX];

        if (s->lower_count == 0)
                return 0;
        plain_kind(kind, plain);
        l->items = calloc(s->lower_count, sizeof(*l->items));
        if (!l->items)
                return -ENOMEM;
        for (size_t k = 0; k < s->lower_count; k++) {
                _cleanup_(content_close_ptr) struct content *c = NULL;
                int r = content_open(s->lowers[k], layer, plain, table, &c, NULL);

                if (r == -ENOMEM)
                        return r;
                if (r == 0 && content_is_there(c))
                        l->items[l->count++] = steal_ptr(c);
        }
        return 0;
}

void content_lowers_close(struct content_lowers *l)
{
        for (size_t k = 0; k < l->count; k++)
                content_close(l->items[k]);
        free(l->items);
        *l = (struct content_lowers) { 0 };
}

bool content_lowers_have(const struct content_lowers *l, size_t i)
{
        for (size_t k = 0; k < l->count; k++)
                if (content_has_here(l->items[k], i))
                        return true;
        return false;
}

/* The first place that has chunk I, or OWN: what lies behind the last chunk is everywhere. */
static struct content *place_of(const struct content_lowers *l, struct content *own, size_t i)
{
        if (content_has_here(own, i))
                return own;
        for (size_t k = 0; k < l->count; k++)
                if (content_has_here(l->items[k], i))
                        return l->items[k];
        return own;
}

/* A read begins with chunk I: where those that one place has end, END at most. */
static uint64_t place_end(const struct content_lowers *l, struct content *own, const struct chunk_table *t, size_t i,
                          const struct content *place, uint64_t end)
{
        uint64_t reached = end;

        /* Its first chunk is read there, wherever it is by now. */
        for (size_t k = i; k < t->chunk_count && (k == i || place_of(l, own, k) == place); k++) {
                reached = t->chunks[k].content_offset + t->chunks[k].content_length;
                if (reached >= end)
                        return end;
                if (k + 1 == t->chunk_count)
                        return end;
        }
        return reached;
}

int content_lowers_read(const struct content_lowers *l, struct content *own, const struct chunk_table *table,
                        uint64_t offset, size_t length, void *out)
{
        uint64_t end = offset + length;
        unsigned wrong = 0;
        uint8_t *p = out;

        while (offset < end) {
                size_t i = chunk_find(table, offset);
                struct content *place = place_of(l, own, i);
                uint64_t to = place_end(l, own, table, i, place, end);
                int r = content_read_here(place, offset, (size_t) (to - offset), p);

                /* What turned out wrong there is no longer there: another place may have it. */
                if (r == -EAGAIN && (place != own || content_has(own, i)) && wrong++ < WRONG_MAX)
                        continue;
                if (r < 0)
                        return r;
                p += to - offset;
                offset = to;
        }
        return 0;
}
