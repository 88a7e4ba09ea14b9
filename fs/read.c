/* SPDX-License-Identifier: Apache-2.0 */

/* From a row of the tree to stat(2)'s words and to content ranges. */

#include <sys/sysmacros.h>

#include "image_internal.h"

#define BLOCK_SIZE 4096
#define DIRECTORY_SIZE 4096

void image_stat(const struct image *i, uint32_t row, struct stat *ret)
{
        const struct inode *n = &i->tree->itable.inodes[row];
        struct stat st = {
                .st_ino = (ino_t) row + 1,
                .st_mode = n->mode,
                .st_nlink = n->nlink,
                .st_uid = n->uid,
                .st_gid = n->gid,
                .st_size = S_ISDIR(n->mode) ? DIRECTORY_SIZE : (off_t) n->size,
                .st_blksize = BLOCK_SIZE,
                .st_mtim = { .tv_sec = n->mtime, .tv_nsec = n->mtime_nsec },
        };

        if (S_ISCHR(n->mode) || S_ISBLK(n->mode))
                st.st_rdev = makedev((unsigned) (n->data >> 32), (unsigned) n->data);
        st.st_blocks = (st.st_size + 511) / 512;
        st.st_atim = st.st_ctim = st.st_mtim;
        *ret = st;
}

static struct fetcher *layer_fetcher(struct image *i, const struct inode *n)
{
        return i->layers[i->layers[n->layer].same_as].fetcher;
}

/* The first extent that ends behind OFFSET. */
static const struct extent *first_extent(const struct extent *extents, uint32_t count, uint64_t offset)
{
        uint32_t low = 0, high = count;

        while (low < high) {
                uint32_t middle = low + (high - low) / 2;

                if (extents[middle].file_offset + extents[middle].length <= offset)
                        low = middle + 1;
                else
                        high = middle;
        }
        return &extents[low];
}

size_t image_parts(struct image *i, uint32_t row, uint64_t offset, size_t length, struct fetch_part *parts, size_t max,
                   bool *ret_holes)
{
        const struct inode *n = &i->tree->itable.inodes[row];
        struct fetcher *fetcher = layer_fetcher(i, n);
        const struct extent *x, *end;
        size_t covered = 0, count = 0;

        if (!(n->flags & INODE_SPARSE)) {
                if (max > 0)
                        parts[0] = (struct fetch_part) { .fetcher = fetcher,
                                                         .offset = n->data + offset,
                                                         .length = length };
                *ret_holes = false;
                return 1;
        }

        end = i->tree->itable.extents + n->data + n->count;
        x = first_extent(i->tree->itable.extents + n->data, n->count, offset);
        for (; x < end && x->file_offset < offset + length; x++) {
                uint64_t from = MAX(x->file_offset, offset);
                uint64_t to = MIN(x->file_offset + x->length, offset + length);

                if (from >= to)
                        continue;
                if (count < max)
                        parts[count] = (struct fetch_part) {
                                .fetcher = fetcher,
                                .offset = x->content_offset + (from - x->file_offset),
                                .length = (size_t) (to - from),
                                .at = (size_t) (from - offset),
                        };
                covered += (size_t) (to - from);
                count++;
        }
        *ret_holes = covered < length;
        return count;
}
