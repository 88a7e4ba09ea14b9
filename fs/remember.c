/* SPDX-License-Identifier: Apache-2.0 */

/* What the next mount of an image need not ask for: its documents, and what its tag stands for. Nobody waits for these
 * files to be written: until the config is asked for they are collected, then they are written beside the layers. */

#include <string.h>

#include "image_internal.h"

struct keepsakes {
        char *tag; /* or NULL */
        struct digest tagged;
        struct document *documents;
        size_t count, allocated;
};

int keepsakes_new(struct keepsakes **ret)
{
        *ret = calloc(1, sizeof(**ret));
        return *ret ? 0 : -ENOMEM;
}

struct keepsakes *keepsakes_free(struct keepsakes *k)
{
        if (!k)
                return NULL;
        for (size_t i = 0; i < k->count; i++)
                document_clear(&k->documents[i]);
        free(k->documents);
        free(k->tag);
        free(k);
        return NULL;
}

static int collect(struct keepsakes *k, const struct document *d)
{
        struct document copy = { .digest = d->digest };

        if (array_reserve(k->documents, &k->allocated, k->count + 1) < 0 ||
            buf_append(&copy.body, d->body.data, d->body.len) < 0)
                return -ENOMEM;
        k->documents[k->count++] = copy;
        return 0;
}

/* A store that cannot take something costs speed, nothing else, unless it is to keep all. */
static int forgo(struct image *i, int r, struct error *why, struct error *e)
{
        if (r < 0)
                r = store_forgo(i->store, r, why);
        if (r < 0 && e)
                *e = *why;
        return r;
}

static int put_document(struct image *i, const struct document *d, struct error *e)
{
        struct error why = ERROR_INIT;

        return forgo(i, store_blob_put(i->store, &d->digest, d->body.data, d->body.len, &why), &why, e);
}

static int put_tag(struct image *i, const char *tag, const struct digest *digest, struct error *e)
{
        struct error why = ERROR_INIT;

        return forgo(i, store_ref_put(i->store, tag, digest, &why), &why, e);
}

int image_remember(struct image *i, const struct document *d, struct error *e)
{
        if (!i->keepsakes)
                return put_document(i, d, e);
        return collect(i->keepsakes, d) < 0 ? error_oom(e) : 0;
}

int image_remember_tag(struct image *i, const char *tag, const struct digest *digest, struct error *e)
{
        struct keepsakes *k = i->keepsakes;

        if (!k)
                return put_tag(i, tag, digest, e);
        free(k->tag);
        k->tag = strdup(tag);
        k->tagged = *digest;
        return k->tag ? 0 : error_oom(e);
}

int keepsakes_put(const struct keepsakes *k, struct image *i, struct error *e)
{
        int r = k->tag ? put_tag(i, k->tag, &k->tagged, e) : 0;

        for (size_t n = 0; r == 0 && n < k->count; n++)
                r = put_document(i, &k->documents[n], e);
        return r;
}
