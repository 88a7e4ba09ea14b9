/* SPDX-License-Identifier: Apache-2.0 */

/* The source of an image whose registry is not to be asked. */

#include "regfs/blob.h"
#include "regfs/reference.h"

static int missing(struct error *e, const char *what, const char *name)
{
        return error_set(e, ERROR_NOT_FOUND, ENOENT, "%s: offline: %s is not in the store", name, what);
}

/* ---- blobs ---- */

static int offline_range_open(struct blob *b, uint64_t offset, uint64_t length, struct pool_buf *buffer, size_t at,
                              uint64_t patience_ms, struct blob_range **ret, struct error *e)
{
        (void) buffer;
        (void) at;
        (void) patience_ms;
        (void) ret;
        return error_set(e, ERROR_NOT_FOUND, EIO, "%s: offline: bytes %ju-%ju are not in the store", b->name,
                         (uintmax_t) offset, (uintmax_t) (offset + length - 1));
}

static int offline_range_wait(struct blob_range *r, uint64_t n, uint64_t *ret_received, struct error *e)
{
        (void) n;
        (void) ret_received;
        return missing(e, "a range", r->blob->name);
}

static struct blob_range *offline_range_close(struct blob_range *r)
{
        (void) r;
        return NULL;
}

static struct blob *offline_blob_free(struct blob *b)
{
        free(b->name);
        free(b);
        return NULL;
}

static const struct blob_ops blob_ops = {
        .range_open = offline_range_open,
        .range_wait = offline_range_wait,
        .range_close = offline_range_close,
        .free = offline_blob_free,
};

/* ---- the source ---- */

static int offline_resolve(struct source *s, deadline_t deadline, struct digest *ret, struct error *e)
{
        (void) deadline;
        (void) ret;
        return missing(e, "what it stands for", s->name);
}

static int offline_manifest(struct source *s, const struct digest *digest, deadline_t deadline, struct document *ret,
                            struct error *e)
{
        char text[sizeof("manifest ") + DIGEST_STRING_MAX] = "manifest ";

        (void) deadline;
        (void) ret;
        if (!digest)
                return missing(e, "its manifest", s->name);
        digest_format(digest, text + strlen(text));
        return missing(e, text, s->name);
}

static int offline_blob(struct source *s, const struct descriptor *descriptor, struct blob **ret, struct error *e)
{
        char text[DIGEST_STRING_MAX];
        struct blob *b = calloc(1, sizeof(*b));

        if (!b)
                return error_oom(e);
        b->ops = &blob_ops;
        b->digest = descriptor->digest;
        b->size = descriptor->size;
        b->name = str_printf("%s of %s", digest_format(&descriptor->digest, text), s->name);
        if (!b->name) {
                offline_blob_free(b);
                return error_oom(e);
        }
        *ret = b;
        return 0;
}

static struct source *offline_source_free(struct source *s)
{
        free(s->name);
        free(s);
        return NULL;
}

static const struct source_ops source_ops = {
        .resolve = offline_resolve,
        .manifest = offline_manifest,
        .blob = offline_blob,
        .free = offline_source_free,
};

int offline_source_new(const struct reference *ref, struct source **ret, struct error *e)
{
        struct source *s = calloc(1, sizeof(*s));

        if (!s)
                return error_oom(e);
        s->ops = &source_ops;
        s->name = reference_format(ref);
        if (!s->name) {
                free(s);
                return error_oom(e);
        }
        *ret = s;
        return 0;
}
