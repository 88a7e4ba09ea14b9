/* SPDX-License-Identifier: Apache-2.0 */

#include "regfs/file_blob.h"

#include <string.h>
#include <unistd.h>

#include "regfs/io.h"

struct file_blob {
        struct blob blob;
        int fd;
        uint64_t start;
};

struct file_range {
        struct blob_range range;
        struct pool_buf *buffer;
        uint64_t length;
        size_t at;
        uint64_t offset;
        uint64_t done;
};

static int file_range_open(struct blob *b, uint64_t offset, uint64_t length, struct pool_buf *buffer, size_t at,
                           uint64_t patience_ms, struct blob_range **ret, struct error *e)
{
        struct file_range *r;

        (void) patience_ms;
        if (!range_fits(offset, length, b->size))
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "%s: bytes %ju-%ju lie outside its %ju bytes", b->name,
                                 (uintmax_t) offset, (uintmax_t) (offset + length - 1), (uintmax_t) b->size);
        r = calloc(1, sizeof(*r));
        if (!r)
                return error_oom(e);
        r->range.blob = b;
        r->buffer = pool_buf_ref(buffer);
        r->length = length;
        r->at = at;
        r->offset = offset;
        *ret = &r->range;
        return 0;
}

static int file_range_wait(struct blob_range *range, uint64_t n, uint64_t *ret_received, struct error *e)
{
        struct file_range *r = (struct file_range *) range;
        struct file_blob *f = (struct file_blob *) range->blob;
        int k;

        if (n > r->done) {
                k = pread_full(f->fd, r->buffer->data + r->at + r->done, (size_t) (n - r->done),
                               f->start + r->offset + r->done);
                if (k == -ENODATA)
                        return error_set(e, ERROR_BAD_DATA, EBADMSG, "%s: the file is shorter than its %ju bytes",
                                         f->blob.name, (uintmax_t) f->blob.size);
                if (k < 0)
                        return error_errno(e, -k, "%s", f->blob.name);
                r->done = n;
        }
        *ret_received = r->done;
        return 0;
}

static struct blob_range *file_range_close(struct blob_range *range)
{
        struct file_range *r = (struct file_range *) range;

        pool_buf_unref(r->buffer);
        free(r);
        return NULL;
}

static struct blob *file_blob_free(struct blob *b)
{
        struct file_blob *f = (struct file_blob *) b;

        close(f->fd);
        free(b->name);
        free(f);
        return NULL;
}

static const struct blob_ops file_blob_ops = {
        .range_open = file_range_open,
        .range_wait = file_range_wait,
        .range_close = file_range_close,
        .free = file_blob_free,
};

int file_blob_new(int fd, uint64_t start, const struct digest *digest, uint64_t size, const char *name,
                  struct blob **ret, struct error *e)
{
        struct file_blob *f = calloc(1, sizeof(*f));

        if (f)
                f->blob.name = strdup(name);
        if (!f || !f->blob.name) {
                free(f);
                close(fd);
                return error_oom(e);
        }
        f->blob.ops = &file_blob_ops;
        f->blob.digest = *digest;
        f->blob.size = size;
        f->fd = fd;
        f->start = start;
        *ret = &f->blob;
        return 0;
}
