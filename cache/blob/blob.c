/* SPDX-License-Identifier: Apache-2.0 */

#include "regfs/blob.h"

#include <stdio.h>
#include <string.h>

static void strv_free(char **v)
{
        for (size_t k = 0; v && v[k]; k++)
                free(v[k]);
        free(v);
}

static int strv_copy(char **v, char ***ret)
{
        size_t n = 0;
        char **copy;

        if (!v) {
                *ret = NULL;
                return 0;
        }
        while (v[n])
                n++;
        copy = calloc(n + 1, sizeof(*copy));
        if (!copy)
                return -ENOMEM;
        for (size_t k = 0; k < n; k++) {
                copy[k] = strdup(v[k]);
                if (!copy[k]) {
                        strv_free(copy);
                        return -ENOMEM;
                }
        }
        *ret = copy;
        return 0;
}

void descriptor_clear(struct descriptor *d)
{
        free(d->media_type);
        free(d->artifact_type);
        strv_free(d->urls);
        strv_free(d->annotations);
        free(d->data);
        free(d->os);
        free(d->architecture);
        free(d->variant);
        *d = (struct descriptor) { 0 };
}

void descriptors_free(struct descriptor *items, size_t count)
{
        for (size_t k = 0; k < count; k++)
                descriptor_clear(&items[k]);
        free(items);
}

char *referrers_tag(const struct digest *subject, char *out)
{
        char hex[2 * DIGEST_MAX_SIZE + 1];

        (void) snprintf(out, REFERRERS_TAG_MAX, "%s-%.64s", digest_algorithm_name(subject->algorithm),
                        digest_hex(subject, hex));
        return out;
}

int descriptor_copy(const struct descriptor *d, struct descriptor *ret)
{
        _cleanup_descriptor_ struct descriptor c = { .digest = d->digest, .size = d->size };

        if (str_copy(d->media_type, &c.media_type) < 0 || str_copy(d->artifact_type, &c.artifact_type) < 0 ||
            str_copy(d->os, &c.os) < 0 || str_copy(d->architecture, &c.architecture) < 0 ||
            str_copy(d->variant, &c.variant) < 0 || strv_copy(d->urls, &c.urls) < 0 ||
            strv_copy(d->annotations, &c.annotations) < 0)
                return -ENOMEM;
        if (d->data) {
                c.data = malloc(d->data_size + 1);
                if (!c.data)
                        return -ENOMEM;
                memcpy(c.data, d->data, d->data_size);
                c.data_size = d->data_size;
        }
        *ret = c;
        c = (struct descriptor) { 0 };
        return 0;
}

const char *descriptor_annotation(const struct descriptor *d, const char *key)
{
        for (char **a = d->annotations; a && a[0] && a[1]; a += 2)
                if (strcmp(a[0], key) == 0)
                        return a[1];
        return NULL;
}

void document_clear(struct document *d)
{
        buf_free(&d->body);
        free(d->media_type);
        *d = (struct document) { 0 };
}

static int read_whole(struct blob *blob, struct pool *pool, uint64_t patience_ms, struct buf *ret, struct error *e)
{
        _cleanup_(blob_range_close_ptr) struct blob_range *range = NULL;
        _cleanup_(pool_buf_unref_ptr) struct pool_buf *buffer = NULL;
        uint64_t received;
        int r;

        r = pool_get(pool, (size_t) blob->size, deadline_in(patience_ms), &buffer, e);
        if (r < 0)
                return r;
        r = blob_range_open(blob, 0, blob->size, buffer, 0, patience_ms, &range, e);
        if (r < 0)
                return r;
        r = blob_range_wait(range, blob->size, &received, e);
        if (r < 0)
                return r;
        r = digest_verify(&blob->digest, buffer->data, (size_t) blob->size, blob->name, e);
        if (r < 0)
                return r;
        return buf_append(ret, buffer->data, (size_t) blob->size) < 0 ? error_oom(e) : 0;
}

int source_blob_read(struct source *s, const struct descriptor *d, struct pool *pool, size_t max, deadline_t deadline,
                     struct buf *ret, struct error *e)
{
        _cleanup_(blob_free_ptr) struct blob *blob = NULL;
        char digest[DIGEST_STRING_MAX];
        int r;

        if (d->data)
                return buf_append(ret, d->data, d->data_size) < 0 ? error_oom(e) : 0;
        if (d->size > max)
                return error_set(e, ERROR_BAD_DATA, EFBIG, "%s: blob %s has %ju bytes, more than the %zu allowed",
                                 s->name, digest_format(&d->digest, digest), (uintmax_t) d->size, max);
        if (d->size == 0)
                return digest_verify(&d->digest, "", 0, s->name, e);
        r = source_blob(s, d, &blob, e);
        return r < 0 ? r : read_whole(blob, pool, deadline_left(deadline), ret, e);
}
