/* SPDX-License-Identifier: Apache-2.0 */

#include "init_flags.h"

#include "ops.h"

#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 14) && FUSE_VERSION < FUSE_MAKE_VERSION(3, 17)

#include <errno.h>
#include <linux/fuse.h>
#include <stdatomic.h>
#include <sys/uio.h>

static atomic_bool amended;

/* The first answer of a session is the one to FUSE_INIT: a header and a struct fuse_init_out of the kernel's size. */
static ssize_t write_answer(int fd, struct iovec *iov, int count, void *userdata)
{
        (void) userdata;
        if (!atomic_load_explicit(&amended, memory_order_relaxed) && !atomic_exchange(&amended, true) && count >= 2 &&
            iov[1].iov_len >= FUSE_COMPAT_22_INIT_OUT_SIZE) {
                struct fuse_init_out *out = iov[1].iov_base;

                out->flags |= FUSE_PARALLEL_DIROPS;
        }
        return writev(fd, iov, count);
}

static ssize_t read_request(int fd, void *data, size_t size, void *userdata)
{
        (void) userdata;
        return read(fd, data, size);
}

int init_flags_install(struct fuse_session *fuse)
{
        static const struct fuse_custom_io io = { .writev = write_answer, .read = read_request };

        /* The session reads from the descriptor that fuse_session_mount opened. */
        return fuse_session_custom_io(fuse, &io, fuse_session_fd(fuse));
}

#else

int init_flags_install(struct fuse_session *fuse)
{
        (void) fuse;
        return 0;
}

#endif
