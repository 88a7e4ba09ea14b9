/* SPDX-License-Identifier: Apache-2.0 */

/* Where a store lies: what the kernel calls the filesystem, and what room there is. */

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "regfs/inventory.h"
#include "store_internal.h"

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

int store_name_filesystem(int fd, char *out, size_t size)
{
        struct statx stx;

        if (statx(fd, "", AT_EMPTY_PATH, STATX_MNT_ID, &stx) < 0)
                return -errno;
        return stx.stx_mask & STATX_MNT_ID ? find_filesystem(stx.stx_mnt_id, out, size) : -EOPNOTSUPP;
}

int store_look_at_place(struct store *s, struct store_place *ret, struct error *e)
{
        struct store_place p = { .read_only = s->read_only };
        struct statvfs v;

        if (fstatvfs(s->fd, &v) < 0)
                return error_errno(e, errno, "store %s", s->path);
        if (store_name_filesystem(s->fd, p.filesystem, sizeof(p.filesystem)) < 0)
                snprintf(p.filesystem, sizeof(p.filesystem), "unknown");
        p.size = (uint64_t) v.f_blocks * v.f_frsize;
        p.available = (uint64_t) v.f_bavail * v.f_frsize;
        p.reserve = (v.f_blocks / STORE_RESERVE_PART + 1) * v.f_frsize;
        p.locks = !s->read_only && atomic_load(&s->locks);
        *ret = p;
        return 0;
}
