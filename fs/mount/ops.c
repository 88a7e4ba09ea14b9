/* SPDX-License-Identifier: Apache-2.0 */

#include "ops.h"

#include <string.h>
#include <sys/statvfs.h>

#include "regfs/mount.h"
#include "regfs/text.h"

/* The tree never changes: names, attributes and absences may be kept for as long as the kernel can count. */
#define FOR_EVER 1e9
#define MAX_BACKGROUND 64
#define BLOCK_SIZE 4096

static struct ops_state *state_of(fuse_req_t req)
{
        return fuse_req_userdata(req);
}

static const struct itable *table_of(fuse_req_t req)
{
        return &image_tree(state_of(req)->image)->itable;
}

/* The inode that the kernel means, or NULL: then the request has been answered. */
static const struct inode *inode_of(fuse_req_t req, fuse_ino_t ino)
{
        const struct itable *t = table_of(req);

        if (ino == 0 || ino > t->inode_count) {
                fuse_reply_err(req, ENOENT);
                return NULL;
        }
        return &t->inodes[ino - 1];
}

static const struct inode *directory_of(fuse_req_t req, fuse_ino_t ino)
{
        const struct inode *n = inode_of(req, ino);

        if (n && !S_ISDIR(n->mode)) {
                fuse_reply_err(req, ENOTDIR);
                return NULL;
        }
        return n;
}

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
        const unsigned wanted = FUSE_CAP_ASYNC_READ | FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_READDIRPLUS |
                                FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_CACHE_SYMLINKS | FUSE_CAP_NO_OPEN_SUPPORT |
                                FUSE_CAP_NO_OPENDIR_SUPPORT | FUSE_CAP_EXPORT_SUPPORT | FUSE_CAP_EXPLICIT_INVAL_DATA |
                                FUSE_CAP_IOCTL_DIR;

        (void) userdata;
        conn->want |= conn->capable & wanted;
        conn->want &= ~(unsigned) (FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_ATOMIC_O_TRUNC);
        conn->max_background = MAX_BACKGROUND;
        conn->congestion_threshold = MAX_BACKGROUND * 3 / 4;
}

static void fill_entry(struct ops_state *s, uint32_t row, struct fuse_entry_param *ret)
{
        *ret = (struct fuse_entry_param) {
                .ino = (fuse_ino_t) row + 1,
                .attr_timeout = FOR_EVER,
                .entry_timeout = FOR_EVER,
        };
        image_stat(s->image, row, &ret->attr);
}

/* Row of NAME in directory ROW: ITABLE_NONE when there is none. "." and ".." come from exports over NFS. */
static uint32_t find_row(const struct itable *t, uint32_t row, const char *name)
{
        uint32_t d;

        if (strcmp(name, ".") == 0)
                return row;
        if (strcmp(name, "..") == 0)
                return t->inodes[row].parent;
        d = itable_find(t, row, name, strlen(name));
        return d == ITABLE_NONE ? ITABLE_NONE : t->dirents[d].target;
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
        struct fuse_entry_param entry = { .entry_timeout = FOR_EVER };
        uint32_t row;

        if (!directory_of(req, parent))
                return;
        row = find_row(table_of(req), (uint32_t) (parent - 1), name);
        if (row != ITABLE_NONE)
                fill_entry(state_of(req), row, &entry);
        /* Inode 0 is a negative entry that the kernel may keep. */
        fuse_reply_entry(req, &entry);
}

static void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count)
{
        (void) ino;
        (void) count;
        fuse_reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
        (void) count;
        (void) forgets;
        fuse_reply_none(req);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
        struct stat st;

        (void) fi;
        if (!inode_of(req, ino))
                return;
        image_stat(state_of(req)->image, (uint32_t) (ino - 1), &st);
        fuse_reply_attr(req, &st, FOR_EVER);
}

static void op_readlink(fuse_req_t req, fuse_ino_t ino)
{
        const struct inode *n = inode_of(req, ino);

        if (!n)
                return;
        if (!S_ISLNK(n->mode))
                fuse_reply_err(req, EINVAL);
        else
                fuse_reply_readlink(req, inode_symlink(table_of(req), n));
}

/* ENOSYS: the kernel opens by itself from now on, without a message, and keeps pages and listings. */
static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
        (void) ino;
        (void) fi;
        fuse_reply_err(req, ENOSYS);
}

/* ---- listings ---- */

/* Adds entry number POSITION of the directory (0 and 1 are "." and "..") to a listing; returns the bytes it takes. */
static size_t add_entry(fuse_req_t req, char *data, size_t room, fuse_ino_t ino, uint32_t position, bool plus)
{
        const struct itable *t = table_of(req);
        const struct inode *dir = &t->inodes[ino - 1];
        struct fuse_entry_param entry;
        char name[ITABLE_NAME_MAX + 1];
        uint32_t row;

        if (position == 0) {
                strcpy(name, ".");
                row = (uint32_t) (ino - 1);
        } else if (position == 1) {
                strcpy(name, "..");
                row = dir->parent;
        } else {
                const struct dirent_row *d = &t->dirents[dir->data + position - 2];

                memcpy(name, dirent_name(t, d), d->name_length);
                name[d->name_length] = '\0';
                row = d->target;
        }

        fill_entry(state_of(req), row, &entry);
        if (!plus)
                return fuse_add_direntry(req, data, room, name, &entry.attr, (off_t) position + 1);
        if (position < 2) {
                /* The kernel takes no reference on these: inode 0 says so, the attributes carry the number. */
                entry.ino = 0;
        }
        return fuse_add_direntry_plus(req, data, room, name, &entry, (off_t) position + 1);
}

static void list(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, bool plus)
{
        const struct inode *dir = directory_of(req, ino);
        _cleanup_free_ char *data = NULL;
        size_t used = 0;
        uint64_t total;

        if (!dir)
                return;
        data = malloc(size);
        if (!data) {
                fuse_reply_err(req, ENOMEM);
                return;
        }
        total = (uint64_t) dir->count + 2;
        for (uint64_t position = (uint64_t) offset; offset >= 0 && position < total; position++) {
                size_t n = add_entry(req, data + used, size - used, ino, (uint32_t) position, plus);

                if (n > size - used)
                        break;
                used += n;
        }
        fuse_reply_buf(req, data, used);
}

static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
        (void) fi;
        list(req, ino, size, offset, false);
}

static void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
        (void) fi;
        list(req, ino, size, offset, true);
}

/* ---- extended attributes ---- */

static void reply_sized(fuse_req_t req, const void *data, size_t length, size_t room)
{
        if (room == 0)
                fuse_reply_xattr(req, length);
        else if (length > room)
                fuse_reply_err(req, ERANGE);
        else
                fuse_reply_buf(req, data, length);
}

/* An image without any: ENOSYS, and the kernel never asks again. */
static bool has_xattrs(fuse_req_t req)
{
        if (image_tree(state_of(req)->image)->has_xattrs)
                return true;
        fuse_reply_err(req, ENOSYS);
        return false;
}

static void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
        const struct inode *n;
        const uint8_t *value;
        size_t length;

        if (!has_xattrs(req))
                return;
        n = inode_of(req, ino);
        if (!n)
                return;
        if (itable_xattr(table_of(req), n, name, &value, &length) < 0)
                fuse_reply_err(req, ENODATA);
        else
                reply_sized(req, value, length, size);
}

static void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
        const struct itable *t = table_of(req);
        _cleanup_buf_ struct buf names = { 0 };
        const struct xattr_set *set;
        const struct inode *n;

        if (!has_xattrs(req))
                return;
        n = inode_of(req, ino);
        if (!n)
                return;
        set = &t->xattr_sets[n->xattrs];
        for (uint32_t k = 0; k < set->count; k++) {
                const char *name = t->strings + t->xattr_pairs[set->first + k].name;

                if (buf_append(&names, name, strlen(name) + 1) < 0) {
                        fuse_reply_err(req, ENOMEM);
                        return;
                }
        }
        reply_sized(req, names.data ? names.data : "", names.len, size);
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
        const struct tree *t = image_tree(state_of(req)->image);
        struct statvfs st = {
                .f_bsize = BLOCK_SIZE,
                .f_frsize = BLOCK_SIZE,
                .f_files = t->itable.inode_count,
                .f_namemax = ITABLE_NAME_MAX,
        };

        (void) ino;
        for (size_t k = 0; k < t->layer_count; k++)
                st.f_blocks += (t->layers[k].content_size + BLOCK_SIZE - 1) / BLOCK_SIZE;
        fuse_reply_statfs(req, &st);
}

/* The one thing that a mount tells of itself: what no name in the tree stands for. */
static void op_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned cmd, void *arg, struct fuse_file_info *fi, unsigned flags,
                     const void *in, size_t in_size, size_t out_size)
{
        struct ops_state *s = state_of(req);
        struct mount_status status = { .pid = (int64_t) getpid() };
        struct prefetch_status prefetch;

        (void) arg;
        (void) fi;
        (void) flags;
        (void) in;
        (void) in_size;
        if (ino != FUSE_ROOT_ID || cmd != (unsigned) MOUNT_GET_STATUS || out_size < sizeof(status)) {
                fuse_reply_err(req, ENOTTY);
                return;
        }
        if (s->prefetch) {
                prefetch_get_status(s->prefetch, &prefetch);
                status.prefetch_total = prefetch.total;
                status.prefetch_done = prefetch.done;
        }
        fuse_reply_ioctl(req, 0, &status, sizeof(status));
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
        const struct inode *n = inode_of(req, ino);

        (void) fi;
        if (!n)
                return;
        if (!S_ISREG(n->mode)) {
                fuse_reply_err(req, S_ISDIR(n->mode) ? EISDIR : EINVAL);
                return;
        }
        if (offset < 0 || (uint64_t) offset >= n->size) {
                fuse_reply_buf(req, NULL, 0);
                return;
        }
        read_reply(req, ino, (uint64_t) offset, (size_t) MIN((uint64_t) size, n->size - (uint64_t) offset));
}

const struct fuse_lowlevel_ops fuse_operations = {
        .init = op_init,
        .lookup = op_lookup,
        .forget = op_forget,
        .forget_multi = op_forget_multi,
        .getattr = op_getattr,
        .readlink = op_readlink,
        .open = op_open,
        .opendir = op_open,
        .read = op_read,
        .readdir = op_readdir,
        .readdirplus = op_readdirplus,
        .ioctl = op_ioctl,
        .getxattr = op_getxattr,
        .listxattr = op_listxattr,
        .statfs = op_statfs,
};
