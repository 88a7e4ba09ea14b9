/* SPDX-License-Identifier: Apache-2.0 */

#include <string.h>
#include <sys/stat.h>

#include "regfs/itable.h"

uint32_t itable_find(const struct itable *t, uint32_t dir, const char *name, size_t length)
{
        const struct inode *i = &t->inodes[dir];
        uint32_t low = (uint32_t) i->data, high = low + i->count;

        if (!S_ISDIR(i->mode))
                return ITABLE_NONE;
        while (low < high) {
                uint32_t middle = low + (high - low) / 2;
                const struct dirent_row *d = &t->dirents[middle];
                int r = itable_compare_names(name, length, dirent_name(t, d), d->name_length);

                if (r == 0)
                        return middle;
                if (r < 0)
                        high = middle;
                else
                        low = middle + 1;
        }
        return ITABLE_NONE;
}

int itable_xattr(const struct itable *t, const struct inode *i, const char *name, const uint8_t **ret_value,
                 size_t *ret_length)
{
        const struct xattr_set *set = &t->xattr_sets[i->xattrs];
        uint32_t low = set->first, high = low + set->count;

        while (low < high) {
                uint32_t middle = low + (high - low) / 2;
                const struct xattr_pair *p = &t->xattr_pairs[middle];
                int r = strcmp(name, t->strings + p->name);

                if (r == 0) {
                        *ret_value = (const uint8_t *) t->strings + p->value;
                        *ret_length = p->value_length;
                        return 0;
                }
                if (r < 0)
                        high = middle;
                else
                        low = middle + 1;
        }
        return -ENODATA;
}
