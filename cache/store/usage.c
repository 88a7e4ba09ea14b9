/* SPDX-License-Identifier: Apache-2.0 */

#include "usage.h"

#include <dirent.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

struct scan {
        struct store *store;
        struct usage *usage;
        struct timespec now;
};

/* PATH is an entry as many levels down as was asked for. */
typedef int entry_fn(struct scan *scan, const char *path);

static int walk(struct scan *scan, const char *path, unsigned depth, entry_fn *entry)
{
        int fd = openat(scan->store->fd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        DIR *d = fd < 0 ? NULL : fdopendir(fd);
        struct dirent *e;
        int r = 0;

        if (!d) {
                close_fd_ptr(&fd);
                return 0;
        }
        while (r == 0 && (e = readdir(d))) {
                char below[STORE_PATH_MAX];

                if (str_eq(e->d_name, ".") || str_eq(e->d_name, "..") ||
                    snprintf(below, sizeof(below), "%s/%s", path, e->d_name) >= (int) sizeof(below))
                        continue;
                r = depth > 1 ? walk(scan, below, depth - 1, entry) : entry(scan, below);
        }
        closedir(d);
        return r;
}

static uint64_t blocks_of(const struct stat *st)
{
        return (uint64_t) st->st_blocks * 512;
}

static uint64_t idle_of(const struct scan *scan, const struct stat *st)
{
        int64_t ms =
                (scan->now.tv_sec - st->st_mtim.tv_sec) * 1000 + (scan->now.tv_nsec - st->st_mtim.tv_nsec) / 1000000;

        return ms > 0 ? (uint64_t) ms : 0;
}

static bool stat_below(const struct scan *scan, const char *path, const char *name, struct stat *ret)
{
        char below[STORE_PATH_MAX + 16];

        snprintf(below, sizeof(below), "%s/%s", path, name);
        return fstatat(scan->store->fd, below, ret, AT_SYMLINK_NOFOLLOW) == 0;
}

/* ---- what is the store's ----
 *
 * Its directory may be one that the user has had before, with an images of its own: what is not named as the store
 * names its files is not counted, and never taken away. */

/* DIRECTORY/ALGORITHM/HEX, and what follows. */
static bool names_digest(const char *path)
{
        const char *algorithm = strchr(path, '/') + 1, *hex = strchr(algorithm, '/');
        struct digest digest;

        return hex && store_parse_digest(algorithm, hex + 1, &digest) == 0;
}

static bool names_image(const char *path)
{
        return store_is_image_key(strchr(path, '/') + 1);
}

/* ---- entries ---- */

/* A layer was last used when its map was; without one, when its TOC was. */
static int add_layer(struct scan *scan, const char *path)
{
        struct usage *u = scan->usage;
        struct usage_layer layer = { 0 };
        bool known = false;
        struct stat st;

        if (!names_digest(path))
                return 0;
        if (stat_below(scan, path, "toc", &st)) {
                layer.rest += blocks_of(&st);
                layer.idle_ms = idle_of(scan, &st);
                known = true;
        }
        if (stat_below(scan, path, "map", &st)) {
                layer.rest += blocks_of(&st);
                layer.idle_ms = idle_of(scan, &st);
                known = true;
        }
        if (stat_below(scan, path, "content", &st)) {
                layer.content = blocks_of(&st);
                layer.idle_ms = known ? layer.idle_ms : idle_of(scan, &st);
                known = true;
        }
        if (!known)
                return 0;
        if (array_reserve(u->layers, &u->layer_allocated, u->layer_count + 1) < 0)
                return -ENOMEM;
        layer.path = strdup(path);
        if (!layer.path)
                return -ENOMEM;
        u->layers[u->layer_count++] = layer;
        u->total += layer.content + layer.rest;
        return 0;
}

static int add_file(struct scan *scan, const char *path)
{
        struct usage *u = scan->usage;
        struct usage_file file = { 0 };
        struct stat st;

        if (fstatat(scan->store->fd, path, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode))
                return 0;
        if (array_reserve(u->files, &u->file_allocated, u->file_count + 1) < 0)
                return -ENOMEM;
        file.path = strdup(path);
        if (!file.path)
                return -ENOMEM;
        file.size = blocks_of(&st);
        file.idle_ms = idle_of(scan, &st);
        u->files[u->file_count++] = file;
        u->total += file.size;
        return 0;
}

static int add_image(struct scan *scan, const char *path)
{
        return names_image(path) ? add_file(scan, path) : 0;
}

static int add_blob(struct scan *scan, const char *path)
{
        return names_digest(path) ? add_file(scan, path) : 0;
}

static int add_draft(struct scan *scan, const char *path)
{
        struct stat st;

        if (fstatat(scan->store->fd, path, &st, AT_SYMLINK_NOFOLLOW) < 0)
                return 0;
        scan->usage->total += blocks_of(&st);
        return S_ISDIR(st.st_mode) ? walk(scan, path, 1, add_draft) : 0;
}

int usage_scan(struct store *s, struct usage *ret)
{
        struct usage u = { 0 };
        struct scan scan = { .store = s, .usage = &u };
        int r;

        (void) clock_gettime(CLOCK_REALTIME, &scan.now);
        r = walk(&scan, "layers", 3, add_layer);
        if (r == 0)
                r = walk(&scan, "images", 1, add_image);
        if (r == 0)
                r = walk(&scan, "blobs", 2, add_blob);
        if (r == 0)
                r = walk(&scan, "tmp", 1, add_draft);
        if (r < 0) {
                usage_clear(&u);
                return r;
        }
        *ret = u;
        return 0;
}

void usage_clear(struct usage *u)
{
        for (size_t k = 0; k < u->layer_count; k++)
                free(u->layers[k].path);
        for (size_t k = 0; k < u->file_count; k++)
                free(u->files[k].path);
        free(u->layers);
        free(u->files);
        *u = (struct usage) { 0 };
}
