/* SPDX-License-Identifier: Apache-2.0 */

/* A read-only store works: what it lacks is made for this process alone, in files without a name. */

#include <fcntl.h>
#include <string.h>

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

int store_unnamed_put(struct store *s, const char *path, int fd)
{
        int own = fcntl(fd, F_DUPFD_CLOEXEC, 0), r = 0;
        void *before = NULL;

        if (own < 0)
                return -errno;
        mutex_lock(&s->lock);
        if (!s->unnamed)
                s->unnamed = map_new();
        r = s->unnamed ? map_put(s->unnamed, path, strlen(path), to_value(own), &before) : -ENOMEM;
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

void store_unnamed_clear(struct store *s)
{
        mutex_lock(&s->lock);
        map_free(s->unnamed, close_value);
        s->unnamed = NULL;
        mutex_unlock(&s->lock);
}
