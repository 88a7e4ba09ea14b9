/* SPDX-License-Identifier: Apache-2.0 */

/* What the filesystem below the store can do. Where others write as well (NFS, SMB), a lock may hang for as long as a
 * server is away and a shared mapping is not coherent between machines: there the store does without both. */

#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "regfs/io.h"
#include "regfs/log.h"
#include "regfs/thread.h"
#include "store_internal.h"

#define LOCK_PATIENCE_MS 2000
#define PROBE_SIZE (1 * MIB)

enum kind {
        KIND_LOCAL,  /* known to lock, and to have holes */
        KIND_PLAIN,  /* local and known to lock; holes are to be tried */
        KIND_REMOTE, /* other machines may write there, or another process has to answer for each lock */
};

static const struct {
        uint32_t magic;
        const char *name;
        enum kind kind;
} known[] = {
        { EXT4_SUPER_MAGIC, "ext4", KIND_LOCAL },   { XFS_SUPER_MAGIC, "xfs", KIND_LOCAL },
        { BTRFS_SUPER_MAGIC, "btrfs", KIND_LOCAL }, { TMPFS_MAGIC, "tmpfs", KIND_LOCAL },
        { F2FS_SUPER_MAGIC, "f2fs", KIND_LOCAL },   { OVERLAYFS_SUPER_MAGIC, "overlayfs", KIND_PLAIN },
        { MSDOS_SUPER_MAGIC, "vfat", KIND_PLAIN },  { 0x2011bab0, "exfat", KIND_PLAIN },
        { 0x2fc12fc1, "zfs", KIND_PLAIN },          { NFS_SUPER_MAGIC, "NFS", KIND_REMOTE },
        { SMB_SUPER_MAGIC, "SMB", KIND_REMOTE },    { 0xff534d42, "SMB (cifs)", KIND_REMOTE },
        { 0xfe534d42, "SMB", KIND_REMOTE },         { FUSE_SUPER_MAGIC, "FUSE", KIND_REMOTE },
        { V9FS_MAGIC, "9p", KIND_REMOTE },          { AFS_SUPER_MAGIC, "AFS", KIND_REMOTE },
        { 0x6b414653, "AFS", KIND_REMOTE },         { CODA_SUPER_MAGIC, "Coda", KIND_REMOTE },
        { NCP_SUPER_MAGIC, "NCP", KIND_REMOTE },    { 0x00c36400, "Ceph", KIND_REMOTE },
        { 0x0bd00bd0, "Lustre", KIND_REMOTE },      { 0x47504653, "GPFS", KIND_REMOTE },
        { 0x01161970, "GFS2", KIND_REMOTE },        { 0x7461636f, "OCFS2", KIND_REMOTE },
        { 0x19830326, "BeeGFS", KIND_REMOTE },      { 0x786f4256, "vboxsf", KIND_REMOTE },
};

/* One lock that is tried, and the thread that is left behind when the answer doesn't come. */
struct lock_probe {
        struct mutex lock;
        struct cond changed;
        unsigned holders GUARDED_BY(lock);
        bool answered GUARDED_BY(lock);
        int result GUARDED_BY(lock);
        int fd;
};

static void probe_unref(struct lock_probe *p)
{
        bool last;

        mutex_lock(&p->lock);
        last = --p->holders == 0;
        mutex_unlock(&p->lock);
        if (!last)
                return;
        close_fd_ptr(&p->fd);
        cond_destroy(&p->changed);
        mutex_destroy(&p->lock);
        free(p);
}

static void *try_lock(void *arg)
{
        struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1 };
        struct lock_probe *p = arg;
        int r = fcntl(p->fd, F_OFD_SETLK, &lock) < 0 ? -errno : 0;

        mutex_lock(&p->lock);
        p->answered = true;
        p->result = r;
        cond_signal(&p->changed);
        mutex_unlock(&p->lock);
        probe_unref(p);
        return NULL;
}

static int wait_for_probe(struct lock_probe *p)
{
        deadline_t deadline = deadline_in(LOCK_PATIENCE_MS);
        int r = 0;

        mutex_lock(&p->lock);
        while (!p->answered && r == 0)
                r = cond_wait_until(&p->changed, &p->lock, deadline);
        r = p->answered ? p->result : -ETIMEDOUT;
        mutex_unlock(&p->lock);
        return r;
}

/* Tries one lock on a filesystem that is not known to have any. Takes FD. */
static int probe_lock(int fd)
{
        struct lock_probe *p = calloc(1, sizeof(*p));
        pthread_t thread;
        int r;

        if (!p) {
                close(fd);
                return -ENOMEM;
        }
        mutex_init(&p->lock);
        cond_init(&p->changed);
        p->fd = fd;
        mutex_lock(&p->lock);
        p->holders = 2;
        mutex_unlock(&p->lock);
        r = thread_start(&thread, "lock probe", try_lock, p);
        if (r < 0) {
                probe_unref(p);
        } else {
                pthread_detach(thread);
                r = wait_for_probe(p);
        }
        probe_unref(p);
        return r;
}

/* True when a file gets no blocks where nothing was written. */
static bool has_holes(int fd)
{
        struct stat st;

        return ftruncate(fd, (off_t) PROBE_SIZE) == 0 && fstat(fd, &st) == 0 &&
               (uint64_t) st.st_blocks * 512 < PROBE_SIZE / 2;
}

void store_do_without_locks(struct store *s, const char *why)
{
        if (atomic_exchange(&s->locks, false))
                log_warning(
                        "store %s: locks do not work here (%s: %s): it is used without them, and processes may fetch "
                        "the same bytes twice",
                        s->path, s->filesystem, why);
}

static void try_out(struct store *s, bool locks)
{
        _cleanup_draft_ struct store_draft d = STORE_DRAFT_INIT;
        int fd, r;

        if (store_draft_new(s, &d, NULL) < 0)
                return; /* whatever comes first of all that needs it will say so */
        s->sparse = has_holes(d.fd);
        if (!s->sparse)
                log_info("store %s: %s has no holes: only the content of whole layers is kept", s->path, s->filesystem);
        if (locks)
                return;
        fd = openat(s->fd, d.name, O_RDWR | O_CLOEXEC);
        r = fd < 0 ? -errno : probe_lock(fd);
        if (r < 0)
                store_do_without_locks(s, r == -ETIMEDOUT ? "no answer" : strerror(-r));
}

void store_look_at_filesystem(struct store *s)
{
        enum kind kind = KIND_LOCAL;
        struct statfs v;
        size_t k;

        s->sparse = true;
        atomic_store(&s->locks, true);
        atomic_store(&s->punches, true);
        snprintf(s->filesystem, sizeof(s->filesystem), "filesystem");
        if (fstatfs(s->fd, &v) < 0)
                return;
        for (k = 0; k < ELEMENTSOF(known) && known[k].magic != (uint32_t) v.f_type; k++)
                ;
        if (k < ELEMENTSOF(known)) {
                kind = known[k].kind;
                snprintf(s->filesystem, sizeof(s->filesystem), "%s", known[k].name);
        } else {
                snprintf(s->filesystem, sizeof(s->filesystem), "filesystem type 0x%x", (unsigned) v.f_type);
        }
        if (kind == KIND_REMOTE) {
                s->remote = true;
                atomic_store(&s->locks, false);
                if (!s->read_only)
                        log_info(
                                "store %s: it lies on %s and is used without locks: processes may fetch the same bytes "
                                "twice",
                                s->path, s->filesystem);
        }
        if (!s->read_only && (kind != KIND_LOCAL || k == ELEMENTSOF(known)))
                try_out(s, k < ELEMENTSOF(known));
}
