/* SPDX-License-Identifier: Apache-2.0 */

/* Locks between processes: open-file-description locks, tried and never waited for. They end with their descriptor,
 * however its process ends. They only save work, so where a filesystem has none, each of them counts as taken. */

#include <fcntl.h>
#include <stdio.h>
#include <xxhash.h>

#include "regfs/io.h"
#include "regfs/log.h"
#include "store_internal.h"

/* How far a turn's holder has come: a slot of the lock file, shared by the turns whose hashes agree there. */
#define PROGRESS_SLOTS 4096
#define TURN_OFFSET_MASK (((uint64_t) 1 << 62) - 1)

/* A range whose holders change is looked at this often before it counts as taken. */
#define RUN_ATTEMPTS 16

static struct flock lock_range(short type, uint64_t offset, uint64_t length)
{
        return (struct flock) {
                .l_type = type,
                .l_whence = SEEK_SET,
                .l_start = (off_t) offset,
                .l_len = (off_t) length,
        };
}

int store_lock(struct store *s, int fd, short type, uint64_t offset, uint64_t length)
{
        struct flock lock = lock_range(type, offset, length);

        if (!atomic_load(&s->locks))
                return 0;
        if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
                return 0;
        if (errno == EAGAIN || errno == EACCES)
                return -EAGAIN;
        store_do_without_locks(s, strerror(errno));
        return 0;
}

/* Who holds a part of the range [*BEGIN, *END): that part, cut to the range. False when nobody does. */
static bool find_holder(int fd, uint64_t *begin, uint64_t *end)
{
        struct flock lock = lock_range(F_WRLCK, *begin, *end - *begin);

        if (fcntl(fd, F_OFD_GETLK, &lock) < 0 || lock.l_type == F_UNLCK)
                return false;
        *begin = MAX(*begin, (uint64_t) lock.l_start);
        if (lock.l_len > 0)
                *end = MIN(*end, (uint64_t) lock.l_start + (uint64_t) lock.l_len);
        return *begin < *end;
}

int store_lock_run(struct store *s, int fd, uint64_t offset, uint64_t length, uint64_t *ret_length)
{
        uint64_t end = offset + length;

        for (int attempt = 0; attempt < RUN_ATTEMPTS; attempt++) {
                uint64_t from = offset, to = end;

                if (store_lock(s, fd, F_WRLCK, offset, end - offset) == 0) {
                        *ret_length = end - offset;
                        return 0;
                }
                if (!find_holder(fd, &from, &to))
                        continue;
                if (from == offset) {
                        *ret_length = to - offset;
                        return -EAGAIN;
                }
                end = from;
        }
        *ret_length = end - offset;
        return -EAGAIN;
}

/* ---- turns ---- */

static int open_lock_file(struct store *s)
{
        int fd = openat(s->fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);

        return fd < 0 ? -errno : fd;
}

static off_t progress_offset(const struct store_turn *t)
{
        return (off_t) (t->offset % PROGRESS_SLOTS * sizeof(uint64_t));
}

int store_turn_try(struct store *s, const char *what, struct store_turn *ret)
{
        struct store_turn t = { .store = s, .offset = XXH3_64bits(what, strlen(what)) & TURN_OFFSET_MASK };
        int r;

        *ret = (struct store_turn) STORE_TURN_INIT;
        if (s->read_only || !atomic_load(&s->locks))
                return 0;
        t.fd = open_lock_file(s);
        if (t.fd < 0)
                return 0;
        r = store_lock(s, t.fd, F_WRLCK, t.offset, 1);
        if (r < 0)
                close(t.fd);
        else
                *ret = t;
        return r;
}

void store_turn_end(struct store_turn *t)
{
        close_fd_ptr(&t->fd);
        t->fd = -1;
}

void store_turn_tell(struct store_turn *t, uint64_t progress)
{
        /* Where that can't be written others lose patience sooner. */
        if (t->fd >= 0)
                (void) pwrite_full(t->fd, &progress, sizeof(progress), (uint64_t) progress_offset(t));
}

uint64_t store_turn_progress(struct store *s, const char *what)
{
        struct store_turn t = { .offset = XXH3_64bits(what, strlen(what)) & TURN_OFFSET_MASK };
        _cleanup_close_ int fd = openat(s->fd, "lock", O_RDONLY | O_CLOEXEC);
        uint64_t progress = 0;

        if (fd < 0 || pread_full(fd, &progress, sizeof(progress), (uint64_t) progress_offset(&t)) < 0)
                return 0;
        return progress;
}

/* ---- patience ---- */

void patience_begin(struct patience *p, uint64_t limit_ms)
{
        *p = (struct patience) { .limit_ms = limit_ms, .since = clock_ms(), .pause_ms = PAUSE_MIN_MS };
}

bool patience_left(struct patience *p, uint64_t progress, uint64_t *ret_pause_ms)
{
        uint64_t now = clock_ms();

        if (progress != p->progress) {
                p->progress = progress;
                p->since = now;
                p->pause_ms = PAUSE_MIN_MS;
        }
        *ret_pause_ms = p->pause_ms;
        p->pause_ms = MIN(2 * p->pause_ms, (uint64_t) PAUSE_MAX_MS);
        return now - p->since < p->limit_ms;
}
