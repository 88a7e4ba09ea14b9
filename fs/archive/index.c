/* SPDX-License-Identifier: Apache-2.0 */

#include "index.h"

#include <string.h>
#include <sys/stat.h>

#include "regfs/codec.h"
#include "regfs/io.h"
#include "regfs/map.h"
#include "regfs/tar.h"
#include "regfs/text.h"

#define PIECE (64 * KIB)
#define LINKS_MAX 16
#define FILES_MAX 100000

struct file {
        uint64_t offset, size;
        char *link; /* path of another file, or NULL */
};

struct archive_index {
        struct map *files;
};

static void file_free(void *value)
{
        struct file *f = value;

        free(f->link);
        free(f);
}

struct archive_index *archive_index_free(struct archive_index *i)
{
        if (!i)
                return NULL;
        map_free(i->files, file_free);
        free(i);
        return NULL;
}

/* Drops empty and "." components; ".." takes one back. In place. */
static void normalise(char *path)
{
        char *out = path, *save = NULL;

        for (char *part = strtok_r(path, "/", &save); part; part = strtok_r(NULL, "/", &save)) {
                size_t n = strlen(part);

                if (strcmp(part, ".") == 0)
                        continue;
                if (strcmp(part, "..") == 0) {
                        while (out > path && *--out != '/')
                                ;
                        continue;
                }
                if (out > path)
                        *out++ = '/';
                memmove(out, part, n);
                out += n;
        }
        *out = '\0';
}

/* A symlink's target is relative to its directory, a hardlink's to the root. */
static char *link_path(const char *path, const struct layer_entry *entry)
{
        const char *slash = strrchr(path, '/');
        char *target;

        if (entry->hardlink || entry->link[0] == '/' || !slash)
                target = strdup(entry->link);
        else
                target = str_printf("%.*s/%s", (int) (slash - path), path, entry->link);
        if (target)
                normalise(target);
        return target;
}

static int on_entry(void *context, const struct layer_entry *entry, struct error *e)
{
        struct archive_index *i = context;
        _cleanup_free_ char *path = strdup(entry->path);
        struct file *f;
        void *old = NULL;

        if (!path)
                return error_oom(e);
        if (!S_ISREG(entry->mode) && !S_ISLNK(entry->mode))
                return 0;
        if (map_size(i->files) >= FILES_MAX)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "more than %d files in the archive", FILES_MAX);
        normalise(path);
        f = calloc(1, sizeof(*f));
        if (!f)
                return error_oom(e);
        f->offset = entry->content_offset;
        f->size = entry->size;
        if (entry->link)
                f->link = link_path(path, entry);
        if ((entry->link && !f->link) || map_put(i->files, path, strlen(path), f, &old) < 0) {
                file_free(f);
                return error_oom(e);
        }
        if (old)
                file_free(old);
        return 0;
}

/* Feeds headers only: what the scanner would pass over is not read. */
static int scan(int fd, struct tar_scanner *scanner, uint64_t size, struct error *e)
{
        _cleanup_free_ uint8_t *piece = malloc(PIECE);

        if (!piece)
                return error_oom(e);
        for (uint64_t offset = 0; offset < size;) {
                size_t n = (size_t) MIN((uint64_t) PIECE, size - offset);
                int r = pread_full(fd, piece, n, offset);

                if (r < 0)
                        return error_errno(e, -r, "reading at %ju", (uintmax_t) offset);
                if (offset == 0 && compression_detect(piece, n) != COMPRESSION_NONE)
                        return error_set(e, ERROR_BAD_DATA, EBADMSG, "the archive is compressed (%s): unpack it first",
                                         compression_name(compression_detect(piece, n)));
                r = tar_scanner_feed(scanner, piece, n, e);
                if (r < 0)
                        return r;
                offset += n;
                offset += tar_scanner_skip(scanner, size - offset);
        }
        return tar_scanner_finish(scanner, e);
}

int archive_index_new(int fd, struct archive_index **ret, struct error *e)
{
        _cleanup_(tar_scanner_free_ptr) struct tar_scanner *scanner = NULL;
        struct archive_index *i = calloc(1, sizeof(*i));
        struct stat st;
        int r;

        if (i)
                i->files = map_new();
        if (!i || !i->files || tar_scanner_new(on_entry, i, &scanner) < 0) {
                archive_index_free(i);
                return error_oom(e);
        }
        r = fstat(fd, &st) < 0 ? error_errno(e, errno, "stat") : scan(fd, scanner, (uint64_t) st.st_size, e);
        if (r < 0) {
                archive_index_free(i);
                return r;
        }
        *ret = i;
        return 0;
}

int archive_index_find(const struct archive_index *i, const char *path, uint64_t *ret_offset, uint64_t *ret_size)
{
        _cleanup_free_ char *normal = strdup(path);
        const struct file *f;

        if (!normal)
                return -ENOMEM;
        normalise(normal);
        f = map_get(i->files, normal, strlen(normal));
        for (unsigned links = 0; f && f->link; links++) {
                if (links == LINKS_MAX)
                        return -ELOOP;
                f = map_get(i->files, f->link, strlen(f->link));
        }
        if (!f)
                return -ENOENT;
        *ret_offset = f->offset;
        *ret_size = f->size;
        return 0;
}
