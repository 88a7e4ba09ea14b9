/* SPDX-License-Identifier: Apache-2.0 */

/* What a store cannot take goes on outside of it, or is done without. */

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "regfs/io.h"
#include "regfs/log.h"
#include "store_internal.h"

bool store_is_at_fault(int r)
{
        switch (-r) {
        case ENOSPC:
        case EDQUOT:
        case EFBIG:
        case EROFS:
        case EIO:
        case EACCES:
        case EPERM:
        case ENOENT:
        case ENOTDIR:
        case ENXIO:
        case EMLINK:
        case ESTALE:
        case ENOTCONN:
        case ETIMEDOUT:
                return true;
        default:
                return false;
        }
}

void store_keep_all(struct store *s)
{
        s->keeps_all = true;
}

/* Whoever made it read-only knows that nothing is kept there. */
static bool is_read_only_by_intent(const struct store *s)
{
        return s->read_only && s->refused == 0;
}

static bool must_keep(const struct store *s)
{
        return s->keeps_all && !is_read_only_by_intent(s);
}

void store_tell_refusal(struct store *s, int r)
{
        if (r == -ENOSPC && !s->read_only)
                evictor_call(s);
        if (is_read_only_by_intent(s) || atomic_exchange(&s->told, true))
                return;
        log_warning("store %s cannot be written: %s: tables of contents that it cannot take are held outside of it, in "
                    "%s or in memory, for this process alone",
                    s->path, strerrordesc_np(-r), temporary_directory());
}

int store_forgo(struct store *s, int r, const struct error *e)
{
        if (must_keep(s))
                return r;
        if (store_is_at_fault(r))
                store_tell_refusal(s, r);
        else
                log_warning("%s", e->message);
        return 0;
}

/* ---- drafts ---- */

/* The temporary directory is no way out where it lies on the same disk. */
static bool is_elsewhere(const struct store *s, int fd)
{
        struct stat here, there;

        return s->read_only || fstat(s->fd, &here) < 0 || fstat(fd, &there) < 0 || here.st_dev != there.st_dev;
}

/* A new file at the first place behind *PLACE that has one. */
static int open_outside(const struct store *s, enum draft_place *place)
{
        if (*place < DRAFT_TEMPORARY) {
                _cleanup_close_ int fd = temporary_file(NULL);

                *place = DRAFT_TEMPORARY;
                if (fd >= 0 && is_elsewhere(s, fd))
                        return steal_fd(&fd);
        }
        *place = DRAFT_MEMORY;
        return memfd_create("regfs", MFD_CLOEXEC);
}

bool store_is_in_memory(int fd)
{
        return fcntl(fd, F_GET_SEALS) >= 0; /* no other file could have any */
}

static int copy_draft(const struct store_draft *d, int to)
{
        struct stat st;

        if (d->fd < 0)
                return 0;
        if (fstat(d->fd, &st) < 0)
                return -errno;
        if (store_is_in_memory(to) && (uint64_t) st.st_size > STORE_OUTSIDE_MAX)
                return -ENOSPC;
        return copy_full(d->fd, to, (uint64_t) st.st_size);
}

/* A copy of D at another place: its descriptor, or -1. */
static int make_copy(const struct store_draft *d, enum draft_place *place)
{
        while (*place < DRAFT_MEMORY) {
                _cleanup_close_ int fd = open_outside(d->store, place);

                if (fd >= 0 && copy_draft(d, fd) == 0)
                        return steal_fd(&fd);
        }
        return -1;
}

bool store_draft_move_out(struct store_draft *d, int r, struct error *e)
{
        enum draft_place place = d->place;
        _cleanup_close_ int fd = -1;

        if (!store_is_at_fault(r))
                return false;
        if (d->place == DRAFT_INSIDE && must_keep(d->store)) {
                if (e && !strstr(e->message, d->store->path))
                        error_prefix(e, "store %s", d->store->path);
                return false;
        }
        fd = make_copy(d, &place);
        if (fd < 0 || (d->fd >= 0 && dup3(fd, d->fd, O_CLOEXEC) < 0))
                return false;
        if (d->fd < 0)
                d->fd = steal_fd(&fd);
        if (*d->name)
                (void) unlinkat(d->store->fd, d->name, 0);
        *d->name = '\0';
        if (d->place == DRAFT_INSIDE)
                store_tell_refusal(d->store, r);
        d->place = place;
        if (e)
                *e = (struct error) ERROR_INIT;
        return true;
}

int store_draft_outside(struct store *s, struct store_draft *ret, struct error *e)
{
        struct store_draft d = { .store = s };

        d.fd = open_outside(s, &d.place);
        if (d.fd < 0)
                return error_errno(e, errno, "a file in memory");
        *ret = d;
        return 0;
}

int store_draft_begin(struct store *s, struct store_draft *ret, struct error *e)
{
        struct store_draft d = { .store = s, .fd = -1 };
        int r = store_draft_new(s, ret, e);

        if (r == 0 || !store_draft_move_out(&d, r, e))
                return r;
        *ret = d;
        return 0;
}
