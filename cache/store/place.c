/* SPDX-License-Identifier: Apache-2.0 */

/* Where a store lies: what the kernel calls the filesystem, what room there is, and whether locks do anything. */

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "regfs/inventory.h"
#include "store_internal.h"

/* Filesystems on which other machines or processes answer for a lock, and may not: none is tried there. */
static const char *const remote[] = { "nfs",    "nfs4", "cifs", "smb3",  "9p",     "afs",    "ceph", "coda",
                                      "lustre", "gpfs", "gfs2", "ocfs2", "beegfs", "vboxsf", "fuse", "fuseblk" };

static bool is_remote(const char *filesystem)
{
        for (size_t k = 0; k < ELEMENTSOF(remote); k++)
                if (str_eq(filesystem, remote[k]))
                        return true;
        return str_after(filesystem, "fuse.") != NULL;
}

/* The type of mount ID: the first word behind " - " of its line in mountinfo. */
static int find_filesystem(uint64_t id, char *out, size_t size)
{
        FILE *f = fopen("/proc/self/mountinfo", "re");
        char *line = NULL;
        size_t allocated = 0;
        int r = -ENOENT;

        if (!f)
                return -errno;
        while (r < 0 && getline(&line, &allocated, f) >= 0) {
                char *behind = strstr(line, " - ");

                if (strtoumax(line, NULL, 10) != id || !behind)
                        continue;
                behind += strlen(" - ");
                behind[strcspn(behind, " \n")] = '\0';
                snprintf(out, size, "%s", behind);
                r = 0;
        }
        free(line);
        fclose(f);
        return r;
}

static void name_filesystem(struct store *s, struct store_place *p)
{
        struct statx stx;

        if (statx(s->fd, "", AT_EMPTY_PATH, STATX_MNT_ID, &stx) < 0 || !(stx.stx_mask & STATX_MNT_ID) ||
            find_filesystem(stx.stx_mnt_id, p->filesystem, sizeof(p->filesystem)) < 0)
                snprintf(p->filesystem, sizeof(p->filesystem), "unknown");
}

/* A lock of one open file must be in the way of another's. */
static bool locks_work(struct store *s)
{
        struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1 };
        _cleanup_draft_ struct store_draft d = STORE_DRAFT_INIT;
        _cleanup_close_ int other = -1;

        if (store_draft_new(s, &d, NULL) < 0)
                return false;
        other = openat(s->fd, d.name, O_RDWR | O_CLOEXEC);
        if (other < 0 || fcntl(d.fd, F_OFD_SETLK, &lock) < 0)
                return false;
        lock.l_pid = 0;
        return fcntl(other, F_OFD_SETLK, &lock) < 0 && (errno == EAGAIN || errno == EACCES);
}

int store_look_at_place(struct store *s, struct store_place *ret, struct error *e)
{
        struct store_place p = { .read_only = s->read_only };
        struct statvfs v;

        if (fstatvfs(s->fd, &v) < 0)
                return error_errno(e, errno, "store %s", s->path);
        name_filesystem(s, &p);
        p.size = (uint64_t) v.f_blocks * v.f_frsize;
        p.available = (uint64_t) v.f_bavail * v.f_frsize;
        p.reserve = (v.f_blocks / STORE_RESERVE_PART + 1) * v.f_frsize;
        p.locks = !s->read_only && !is_remote(p.filesystem) && locks_work(s);
        *ret = p;
        return 0;
}
