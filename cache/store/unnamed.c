/* SPDX-License-Identifier: Apache-2.0 */

/* What a store could not take, and this process made for itself alone, in files without a name. */

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "regfs/map.h"
#include "store_internal.h"

/* Descriptor 0 is one, NULL is none. */
static void *to_value(int fd)
{
        return (void *) (intptr_t) (fd + 1);
}

static int to_fd(const void *value)
{
        return (int) (intptr_t) value - 1;
}

static void close_value(void *value)
{
        close(to_fd(value));
}

/* Of memory. */
static uint64_t size_of(int fd)
{
        struct stat st;

        return store_is_in_memory(fd) && fstat(fd, &st) == 0 ? (uint64_t) st.st_size : 0;
}

/* Of all of them. */
static uint64_t total_size(const struct map *m)
{
        const void *key;
        uint64_t sum = 0;
        size_t cursor = 0, n;
        void *value;

        while (map_next(m, &cursor, &key, &n, &value))
                sum += size_of(to_fd(value));
        return sum;
}

int store_unnamed_put(struct store *s, const char *path, int fd)
{
        int own = fcntl(fd, F_DUPFD_CLOEXEC, 0), r = 0;
        void *before = NULL;

        if (own < 0)
                return -errno;
        mutex_lock(&s->lock);
        if (!s->unnamed)
                s->unnamed = map_new();
        if (!s->unnamed)
                r = -ENOMEM;
        else if (total_size(s->unnamed) + size_of(own) > STORE_OUTSIDE_MAX)
                r = -ENOSPC;
        else
                r = map_put(s->unnamed, path, strlen(path), to_value(own), &before);
        mutex_unlock(&s->lock);
        if (r < 0)
                close(own);
        else if (before)
                close_value(before);
        return r;
}

int store_unnamed_get(struct store *s, const char *path)
{
        const void *value = NULL;
        int fd = -ENOENT;

        mutex_lock(&s->lock);
        if (s->unnamed)
                value = map_get(s->unnamed, path, strlen(path));
        if (value) {
                fd = fcntl(to_fd(value), F_DUPFD_CLOEXEC, 0);
                if (fd < 0)
                        fd = -errno;
        }
        mutex_unlock(&s->lock);
        return fd;
}

void store_unnamed_remove(struct store *s, const char *path)
{
        void *value = NULL;

        mutex_lock(&s->lock);
        if (s->unnamed)
                value = map_remove(s->unnamed, path, strlen(path));
        mutex_unlock(&s->lock);
        if (value)
                close_value(value);
}

void store_unnamed_clear(struct store *s)
{
        mutex_lock(&s->lock);
        map_free(s->unnamed, close_value);
        s->unnamed = NULL;
        mutex_unlock(&s->lock);
}
