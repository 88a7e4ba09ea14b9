/* SPDX-License-Identifier: Apache-2.0 */

#include "regfs/external_toc.h"

#include "regfs/log.h"
#include "regfs/manifest.h"
#include "regfs/reference.h"

#define SUFFIX "-esgztoc"
#define LAYER_DIGEST "containerd.io/snapshot/stargz/layer.digest"

enum progress {
        TO_BE_READ,
        BEING_READ,
        READ,
};

struct external_toc {
        struct reference reference; /* of the other image; tag NULL: there is none */
        struct client *client;
        uint64_t timeout_ms;
        struct mutex lock;
        struct cond changed;
        enum progress progress GUARDED_BY(lock);
        /* Set by whoever reads the manifest; once it is READ they stay. No layers: it cannot be had. */
        struct source *source;
        struct manifest manifest;
};

/* From the image to the one beside it. */
static int rename_image(struct reference *r)
{
        char *tag = NULL;

        if (r->tag && r->transport != TRANSPORT_DOCKER_ARCHIVE) {
                tag = str_printf("%s" SUFFIX, r->tag);
                if (!tag)
                        return -ENOMEM;
        }
        free(r->tag);
        r->tag = tag;
        r->has_digest = false;
        return 0;
}

int external_toc_new(const char *reference, struct client *client, uint64_t timeout_ms, struct external_toc **ret,
                     struct error *e)
{
        _cleanup_(external_toc_free_ptr) struct external_toc *x = calloc(1, sizeof(*x));
        int r;

        if (!x)
                return error_oom(e);
        mutex_init(&x->lock);
        cond_init(&x->changed);
        x->client = client;
        x->timeout_ms = timeout_ms;
        r = reference_parse(reference, &x->reference, e);
        if (r < 0)
                return r;
        if (rename_image(&x->reference) < 0)
                return error_oom(e);
        *ret = steal_ptr(x);
        return 0;
}

struct external_toc *external_toc_free(struct external_toc *x)
{
        if (!x)
                return NULL;
        manifest_clear(&x->manifest);
        source_free(x->source);
        reference_clear(&x->reference);
        cond_destroy(&x->changed);
        mutex_destroy(&x->lock);
        free(x);
        return NULL;
}

static int read_manifest(struct external_toc *x, struct error *e)
{
        const struct reference *ref = &x->reference;
        _cleanup_document_ struct document document = { 0 };
        int r;

        if (ref->transport == TRANSPORT_REGISTRY)
                r = client_source_new(x->client, ref, &x->source, e);
        else
                r = layout_source_new(ref->path, ref->tag, &x->source, e);
        if (r == 0)
                r = source_manifest(x->source, NULL, deadline_in(x->timeout_ms), &document, e);
        return r < 0 ? r : manifest_parse(&document, x->source->name, &x->manifest, e);
}

/* What goes wrong costs speed, nothing else: the layers can be read whole. */
static void read_once(struct external_toc *x)
{
        struct error e = ERROR_INIT;
        int r;

        mutex_lock(&x->lock);
        while (x->progress == BEING_READ)
                cond_wait(&x->changed, &x->lock);
        if (x->progress == READ) {
                mutex_unlock(&x->lock);
                return;
        }
        x->progress = BEING_READ;
        mutex_unlock(&x->lock);

        r = read_manifest(x, &e);
        if (r == -ENOENT)
                log_info("tables of contents of the image: %s", e.message);
        else if (r < 0)
                log_warning("tables of contents of the image are not used: %s", e.message);

        mutex_lock(&x->lock);
        x->progress = READ;
        cond_broadcast(&x->changed);
        mutex_unlock(&x->lock);
}

int external_toc_find(void *context, const struct digest *layer, struct blob **ret)
{
        const struct descriptor *d = NULL;
        struct external_toc *x = context;
        struct error e = ERROR_INIT;
        char name[DIGEST_STRING_MAX];
        int r;

        if (!x->reference.tag)
                return -ENOENT;
        read_once(x);
        digest_format(layer, name);
        for (size_t k = 0; !d && k < x->manifest.layer_count; k++)
                if (str_eq(descriptor_annotation(&x->manifest.layers[k], LAYER_DIGEST), name))
                        d = &x->manifest.layers[k];
        if (!d)
                return -ENOENT;

        /* Nobody vouches for what else it says, such as other places to ask. */
        const struct descriptor found = { .digest = d->digest, .size = d->size, .media_type = d->media_type };
        r = source_blob(x->source, &found, ret, &e);
        if (r == 0)
                return 0;
        log_warning("layer %s: its table of contents cannot be had: %s", name, e.message);
        return -ENOENT;
}
