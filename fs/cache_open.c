/* SPDX-License-Identifier: Apache-2.0 */

#include <string.h>
#include <sys/stat.h>

#include "cache_internal.h"
#include "regfs/io.h"

#include "toc/file.h"

static int open_item(struct store *s, const struct inventory_item *item, const char *file, struct error *e)
{
        int fd = inventory_open(s, item, file, false);

        return fd < 0 && fd != -ENOENT ? error_errno(e, -fd, "%s%s%s", item->path, file ? "/" : "", file ? file : "")
                                       : fd;
}

/* Hands the descriptor to the caller, or closes it. */
static void hand_on(int *fd, int *ret)
{
        if (ret)
                *ret = steal_fd(fd);
}

int cache_open_toc(struct store *s, const struct inventory_item *layer, struct toc **ret, int *ret_fd, struct error *e)
{
        _cleanup_close_ int fd = open_item(s, layer, "toc", e);
        int r = fd < 0 ? fd : toc_open(fd, &layer->digest, ret, e);

        fd = MAX(fd, -1);
        hand_on(&fd, ret_fd);
        return r;
}

/* Whose image index the file says it is. */
static int read_subject(int fd, struct digest *ret, struct error *e)
{
        struct itable_file_header header;
        struct digest subject = { 0 };
        int r = pread_full(fd, &header, sizeof(header), 0);

        if (r == -ENODATA)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "image index: the file is cut");
        if (r < 0)
                return error_errno(e, -r, "image index");
        if (header.identity.algorithm != DIGEST_SHA256 && header.identity.algorithm != DIGEST_SHA512)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "image index: the file names no manifest");
        subject.algorithm = header.identity.algorithm;
        memcpy(subject.bytes, header.identity.digest, digest_size(subject.algorithm));
        *ret = subject;
        return 0;
}

static int check_key(const struct inventory_item *image, const struct tree *t, struct error *e)
{
        const char *name = str_after(image->path, "images/");
        char key[65];

        if (tree_key(&t->manifest, t->layers, t->layer_count, key) < 0)
                return error_oom(e);
        if (!str_eq(name, key))
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "image index: its manifest and layers are another file's");
        return 0;
}

int cache_open_tree(struct store *s, const struct inventory_item *image, struct tree **ret, int *ret_fd,
                    struct error *e)
{
        _cleanup_(tree_close_ptr) struct tree *t = NULL;
        _cleanup_close_ int fd = open_item(s, image, NULL, e);
        struct digest manifest;
        int r = fd < 0 ? fd : read_subject(fd, &manifest, e);

        if (r == 0)
                r = tree_open(fd, &manifest, &t, e);
        if (r == 0)
                r = check_key(image, t, e);
        fd = MAX(fd, -1);
        hand_on(&fd, ret_fd);
        if (r == 0)
                *ret = steal_ptr(t);
        return r;
}

int cache_read_blob(struct store *s, const struct inventory_item *blob, size_t max, struct buf *ret, struct error *e)
{
        _cleanup_close_ int fd = open_item(s, blob, NULL, e);
        _cleanup_buf_ struct buf b = { 0 };
        struct stat st;
        int r;

        if (fd < 0)
                return fd;
        if (fstat(fd, &st) < 0)
                return error_errno(e, errno, "%s", blob->path);
        if ((uint64_t) st.st_size > max)
                return error_set(e, ERROR_BAD_DATA, EFBIG, "%s: more than %zu bytes", blob->path, max);
        if (buf_reserve(&b, (size_t) st.st_size) < 0)
                return error_oom(e);
        r = pread_full(fd, b.data, (size_t) st.st_size, 0);
        if (r < 0)
                return error_errno(e, -r, "%s", blob->path);
        b.len = (size_t) st.st_size;
        b.data[b.len] = '\0';
        r = digest_verify(&blob->digest, b.data, b.len, blob->path, e);
        if (r < 0)
                return r;
        buf_free(ret);
        *ret = b;
        b = (struct buf) { 0 };
        return 0;
}
