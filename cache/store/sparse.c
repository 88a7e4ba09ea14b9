/* SPDX-License-Identifier: Apache-2.0 */

/* Bytes on their way into content files: as many as the disk and the store's limit allow, and holes for zeros. */

#include <fcntl.h>
#include <sys/statvfs.h>

#include "regfs/io.h"
#include "regfs/log.h"
#include "store_internal.h"

#define BLOCK ((size_t) 4096)
#define ROOM_STEP ((uint64_t) 4 * MIB)

uint64_t store_disk_room(int fd)
{
        struct statvfs v;
        uint64_t reserve;

        if (fstatvfs(fd, &v) < 0 || v.f_blocks == 0)
                return UINT64_MAX; /* a filesystem that doesn't say */
        reserve = v.f_blocks / STORE_RESERVE_PART + 1;
        return v.f_bavail > reserve ? (v.f_bavail - reserve) * v.f_frsize : 0;
}

int store_take_room(struct store *s, int fd, uint64_t n)
{
        int64_t want = (int64_t) MIN(n, (uint64_t) INT64_MAX);
        uint64_t available;
        int r;

        r = evictor_take(s, n);
        if (r < 0)
                return r;
        if (atomic_fetch_sub(&s->room, want) >= want)
                return 0;
        available = store_disk_room(fd);
        if (available < n) {
                atomic_store(&s->room, 0);
                evictor_call(s);
                if (!atomic_exchange(&s->full, true))
                        log_warning("store %s: only 5 %% of the disk are left: content is no longer kept", s->path);
                return -ENOSPC;
        }
        atomic_store(&s->room, (int64_t) MIN(available - n, ROOM_STEP));
        return 0;
}

/* The length of the run of blocks at the start of DATA that are all zeros, or all not. Blocks are those of the file;
 * the first and the last may be cut. */
static size_t next_run(const uint8_t *data, size_t n, uint64_t offset, bool *ret_zeros)
{
        size_t run = MIN(n, BLOCK - (size_t) (offset % BLOCK));
        bool zeros = bytes_are_zero(data, run);

        while (run < n) {
                size_t piece = MIN(n - run, BLOCK);

                if (bytes_are_zero(data + run, piece) != zeros)
                        break;
                run += piece;
        }
        *ret_zeros = zeros;
        return run;
}

static bool is_hole(int fd, uint64_t offset, size_t n)
{
        off_t data = lseek(fd, (off_t) offset, SEEK_DATA);

        return data < 0 ? errno == ENXIO : (uint64_t) data >= offset + n;
}

static int clear_range(int fd, const uint8_t *zeros, size_t n, uint64_t offset)
{
        if (is_hole(fd, offset, n))
                return 0;
        if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t) offset, (off_t) n) == 0)
                return 0;
        return pwrite_full(fd, zeros, n, offset);
}

int store_write_sparse(struct store *s, int fd, const void *data, size_t n, uint64_t offset, bool fresh)
{
        const uint8_t *p = data;
        int r = 0;

        while (n > 0 && r == 0) {
                bool zeros;
                size_t run = next_run(p, n, offset, &zeros);

                if (!zeros) {
                        r = store_take_room(s, fd, run);
                        if (r == 0)
                                r = pwrite_full(fd, p, run, offset);
                } else if (!fresh) {
                        r = clear_range(fd, p, run, offset);
                }
                p += run;
                offset += run;
                n -= run;
        }
        return r;
}
