/* SPDX-License-Identifier: Apache-2.0 */

/* What the filesystem below the store can do.
 *
 * Locks and shared mappings are for filesystems that are known to keep both in the memory of this machine. Anywhere
 * else (NFS, SMB, every kind of FUSE, what nobody has heard of) other machines may write as well, and another process
 * has to answer. A request for a lock that has reached a FUSE server which then hangs can't be interrupted, not even by
 * SIGKILL; so there is none, not even one to try. What lies there may change or go away under whoever has it open: it
 * is copied instead of mapped, and verified whenever it is read. */

#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "regfs/io.h"
#include "regfs/log.h"
#include "store_internal.h"

#define PROBE_SIZE (1 * MIB)
#define COPY_MAX ((uint64_t) 4 * GIB)

enum kind {
        KIND_LOCAL,  /* known to lock, and to have holes */
        KIND_PLAIN,  /* known to lock; holes are to be tried */
        KIND_REMOTE, /* all others */
};

static const struct {
        uint32_t magic;
        enum kind kind;
} known[] = {
        { EXT4_SUPER_MAGIC, KIND_LOCAL },
        { XFS_SUPER_MAGIC, KIND_LOCAL },
        { BTRFS_SUPER_MAGIC, KIND_LOCAL },
        { TMPFS_MAGIC, KIND_LOCAL },
        { F2FS_SUPER_MAGIC, KIND_LOCAL },
        { 0xca451a4e /* bcachefs */, KIND_LOCAL },
        { OVERLAYFS_SUPER_MAGIC, KIND_PLAIN },
        { 0x2fc12fc1 /* zfs */, KIND_PLAIN },
        { RAMFS_MAGIC, KIND_PLAIN },
        { MSDOS_SUPER_MAGIC, KIND_PLAIN },
        { 0x2011bab0 /* exfat */, KIND_PLAIN },
        { 0x7366746e /* ntfs3 */, KIND_PLAIN },
        { 0x3153464a /* jfs */, KIND_PLAIN },
        { REISERFS_SUPER_MAGIC, KIND_PLAIN },
        { NILFS_SUPER_MAGIC, KIND_PLAIN },
        { 0x24051905 /* ubifs */, KIND_PLAIN },
        { 0x482b /* hfs+ */, KIND_PLAIN },
        { UDF_SUPER_MAGIC, KIND_PLAIN },
        { SQUASHFS_MAGIC, KIND_PLAIN },
        { EROFS_SUPER_MAGIC_V1, KIND_PLAIN },
        { ISOFS_SUPER_MAGIC, KIND_PLAIN },
};

static enum kind kind_of(uint32_t magic)
{
        for (size_t k = 0; k < ELEMENTSOF(known); k++)
                if (known[k].magic == magic)
                        return known[k].kind;
        return KIND_REMOTE;
}

/* ---- the store's ---- */

/* A process opens its store more than once, and says once what is odd about it. */
static bool is_news(const struct store *s)
{
        static _Atomic uint64_t told;
        uint64_t name = XXH3_64bits(s->path, strlen(s->path));

        return atomic_exchange(&told, name) != name;
}

/* True when a file gets no blocks where nothing was written. */
static bool has_holes(int fd)
{
        struct stat st;

        return ftruncate(fd, (off_t) PROBE_SIZE) == 0 && fstat(fd, &st) == 0 &&
               (uint64_t) st.st_blocks * 512 < PROBE_SIZE / 2;
}

static void try_holes(struct store *s, bool tells)
{
        _cleanup_draft_ struct store_draft d = STORE_DRAFT_INIT;

        if (store_draft_new(s, &d, NULL) < 0)
                return; /* whatever comes first of all that needs it will say so */
        s->sparse = has_holes(d.fd);
        if (!s->sparse && tells)
                log_info("store %s: %s has no holes: only the content of whole layers is kept", s->path, s->filesystem);
}

void store_do_without_locks(struct store *s, const char *why)
{
        if (atomic_exchange(&s->locks, false))
                log_warning(
                        "store %s: locks do not work here (%s: %s): it is used without them, and processes may fetch "
                        "the same bytes twice",
                        s->path, s->filesystem, why);
}

void store_look_at_filesystem(struct store *s)
{
        struct statfs v = { 0 };
        enum kind kind;
        bool tells;

        s->sparse = true;
        atomic_store(&s->locks, !s->read_only);
        atomic_store(&s->punches, true);
        snprintf(s->filesystem, sizeof(s->filesystem), "filesystem");
        (void) fstatfs(s->fd, &v);
        kind = kind_of((uint32_t) v.f_type);
        if (kind != KIND_LOCAL && store_name_filesystem(s->fd, s->filesystem, sizeof(s->filesystem)) < 0)
                snprintf(s->filesystem, sizeof(s->filesystem), "filesystem type 0x%x", (unsigned) v.f_type);
        tells = kind != KIND_LOCAL && !s->read_only && is_news(s);
        if (kind == KIND_REMOTE) {
                s->remote = true;
                atomic_store(&s->locks, false);
                if (tells)
                        log_info(
                                "store %s: it lies on %s and is used without locks: processes may fetch the same bytes "
                                "twice",
                                s->path, s->filesystem);
        }
        if (!s->read_only && kind != KIND_LOCAL)
                try_holes(s, tells);
}

int store_sync(int fd)
{
        if (fsync(fd) == 0)
                return 0;
        /* A filesystem that doesn't know what that is. */
        return errno == EINVAL || errno == ENOSYS || errno == EOPNOTSUPP ? 0 : -errno;
}

/* ---- mappings ---- */

static bool may_be_mapped(int fd)
{
        struct statfs v;

        return fstatfs(fd, &v) == 0 && kind_of((uint32_t) v.f_type) != KIND_REMOTE;
}

/* A file without a name on this machine, on disk or else IN_MEMORY. */
static int open_unnamed(bool in_memory)
{
        int fd = in_memory ? memfd_create("regfs", MFD_CLOEXEC) : temporary_file(NULL);

        if (fd < 0)
                return -errno;
        if (in_memory || may_be_mapped(fd))
                return fd;
        close(fd);
        return -EOPNOTSUPP;
}

/* One that has the first SIZE bytes of FD: a descriptor, or -errno. */
static int private_copy(int fd, uint64_t size)
{
        int r = size > COPY_MAX ? -EFBIG : -EAGAIN;

        for (int place = 0; place < 2 && r < 0 && r != -EFBIG; place++) {
                _cleanup_close_ int copy = open_unnamed(place > 0);

                r = copy < 0 ? copy : copy_full(fd, copy, size);
                if (r == 0)
                        r = steal_fd(&copy);
        }
        return r;
}

int store_map_file(int fd, size_t size, const void **ret)
{
        _cleanup_close_ int copy = -1;
        void *map;

        if (!may_be_mapped(fd)) {
                copy = private_copy(fd, size);
                if (copy < 0)
                        return copy;
        }
        map = mmap(NULL, size, PROT_READ, MAP_SHARED, copy < 0 ? fd : copy, 0);
        if (map == MAP_FAILED)
                return -errno;
        *ret = map;
        return 0;
}
