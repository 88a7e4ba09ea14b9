/* SPDX-License-Identifier: Apache-2.0 */

/* An open image's index on its way to a registry or a layout. */

#include <stdio.h>
#include <string.h>

#include "image_internal.h"
#include "regfs/json.h"
#include "regfs/log.h"
#include "regfs/push.h"

#define MANIFEST_TYPE "application/vnd.oci.image.manifest.v1+json"
#define EMPTY "{}"

struct publication {
        struct image *image;
        struct document original; /* the image's manifest */
        struct descriptor subject;
        struct published_layer *layers;
        size_t count;
        struct buf manifest;
        struct digest digest; /* of it */
};

static void publication_clear(struct publication *p)
{
        document_clear(&p->original);
        descriptor_clear(&p->subject);
        for (size_t k = 0; k < p->count; k++)
                buf_free(&p->layers[k].data);
        free(p->layers);
        buf_free(&p->manifest);
}

/* ---- what is published ---- */

static int compress_layers(struct publication *p, struct error *e)
{
        struct image *i = p->image;

        p->layers = calloc(i->layer_count, sizeof(*p->layers));
        if (!p->layers)
                return error_oom(e);
        for (size_t k = 0; k < i->layer_count; k++) {
                const struct image_layer *l = &i->layers[k];
                _cleanup_close_ int fd = -1;
                int r;

                if (l->same_as != k || l->origin != INDEX_FROM_LAYER)
                        continue;
                fd = store_layer_toc_here(l->toc_store, &l->descriptor.digest, l->kind);
                if (fd < 0)
                        return error_errno(e, -fd, "%s: its TOC", l->blob->name);
                r = published_compress(fd, &l->descriptor.digest, &p->layers[p->count], e);
                if (r < 0)
                        return r;
                p->count++;
        }
        return 0;
}

/* The image's descriptor, as others refer to it. */
static int describe_image(struct publication *p, struct error *e)
{
        struct image *i = p->image;
        _cleanup_(json_free_ptr) struct json *root = NULL;
        const char *type;
        int r;

        r = image_document(i, i->source, &i->digest, &p->original, e);
        if (r == 0)
                r = json_parse(p->original.body.data, p->original.body.len, &root, e);
        if (r < 0)
                return error_prefix(e, "%s", i->reference);
        type = json_member_text(root, "mediaType");
        p->subject.digest = i->digest;
        p->subject.size = p->original.body.len;
        p->subject.media_type = strdup(type && *type ? type : MANIFEST_TYPE);
        return p->subject.media_type ? 0 : error_oom(e);
}

static int hash(const void *data, size_t n, struct digest *ret, struct error *e)
{
        int r = digest_of(DIGEST_SHA256, data, n, ret);

        return r < 0 ? error_errno(e, -r, "hashing") : 0;
}

static int make_index(struct publication *p, struct error *e)
{
        int r = describe_image(p, e);

        if (r == 0)
                r = published_manifest(&p->subject, p->layers, p->count, &p->manifest, e);
        if (r == 0)
                r = hash(p->manifest.data, p->manifest.len, &p->digest, e);
        return r;
}

/* ---- where it goes ---- */

static deadline_t patience(const struct publication *p)
{
        return image_deadline(p->image);
}

static int put_index(struct publication *p, struct target *t, struct error *e)
{
        struct digest empty;
        int r = hash(EMPTY, strlen(EMPTY), &empty, e);

        if (r == 0)
                r = target_blob(t, &empty, EMPTY, strlen(EMPTY), patience(p), e);
        for (size_t k = 0; r == 0 && k < p->count; k++)
                r = target_blob(t, &p->layers[k].digest, p->layers[k].data.data, p->layers[k].data.len, patience(p), e);
        return r < 0 ? r : target_manifest(t, NULL, MANIFEST_TYPE, p->manifest.data, p->manifest.len, patience(p), e);
}

static int attach_index(struct publication *p, struct target *t, struct error *e)
{
        char *annotations[] = { (char *) PUBLISHED_VERSION, NULL, NULL };
        struct descriptor d = {
                .digest = p->digest,
                .size = p->manifest.len,
                .media_type = (char *) MANIFEST_TYPE,
                .artifact_type = (char *) PUBLISHED_TYPE,
                .annotations = annotations,
        };
        char version[16];

        snprintf(version, sizeof(version), "%d", TOC_VERSION);
        annotations[1] = version;
        return target_attach(t, &p->image->digest, &d, patience(p), e);
}

/* Where the image itself is. */
static int home_of(struct image *i, struct target **ret, struct error *e)
{
        switch (i->name.transport) {
        case TRANSPORT_REGISTRY:
                return client_target_new(i->client, &i->name, ret, e);
        case TRANSPORT_OCI_LAYOUT:
                return layout_target_new(i->name.path, ret, e);
        case TRANSPORT_DOCKER_ARCHIVE:
                break;
        }
        return error_set(e, ERROR_USAGE, EINVAL, "%s: nothing can be published into an archive", i->reference);
}

/* ---- binding ---- */

/* NEWREF, complete: in the image's registry, with a tag. */
static int parse_bound(struct image *i, const char *text, struct reference *ret, struct error *e)
{
        _cleanup_reference_ struct reference ref = { 0 };
        int r = reference_parse(text, &ref, e);

        if (r == 0 && ref.transport != i->name.transport)
                r = error_set(e, ERROR_USAGE, EINVAL, "%s is not where %s is", text, i->reference);
        if (r == 0 && ref.transport == TRANSPORT_REGISTRY && !ref.host)
                r = reference_set_host(&ref, i->name.host);
        if (r < 0)
                return error_prefix(e, "--bind");
        if (ref.has_digest || !ref.tag)
                return error_set(e, ERROR_USAGE, EINVAL, "--bind: %s: it needs a tag, and no digest", text);
        if (ref.transport == TRANSPORT_REGISTRY ? !str_eq(ref.host, i->name.host) : !str_eq(ref.path, i->name.path))
                return error_set(e, ERROR_USAGE, EINVAL, "--bind: %s: the image is in %s; copy it first", text,
                                 i->reference);
        *ret = ref;
        ref = (struct reference) { 0 };
        return 0;
}

/* The image's blobs, where they are not yet. What a foreign layer's urls have, nobody has to. */
static int take_blobs(struct publication *p, const struct manifest *m, struct target *t, struct error *e)
{
        const char *from = p->image->name.repository ? p->image->name.repository : "";
        int r = target_take_blob(t, &m->config, from, patience(p), e);

        for (size_t k = 0; r == 0 && k < m->layer_count; k++) {
                r = target_take_blob(t, &m->layers[k], from, patience(p), e);
                if (r == -ENOENT && m->layers[k].urls)
                        r = 0;
        }
        return r;
}

static int put_bound(struct publication *p, const struct reference *ref, struct target *t, struct digest *ret,
                     struct error *e)
{
        _cleanup_manifest_ struct manifest m = { 0 };
        _cleanup_buf_ struct buf bound = { 0 };
        int r = manifest_parse(&p->original, p->image->reference, &m, e);

        if (r == 0)
                r = take_blobs(p, &m, t, e);
        if (r == 0)
                r = put_index(p, t, e);
        if (r == 0)
                r = published_bind(&p->original, &p->digest, &bound, e);
        if (r == 0)
                r = hash(bound.data, bound.len, ret, e);
        return r < 0 ? r : target_manifest(t, ref->tag, MANIFEST_TYPE, bound.data, bound.len, patience(p), e);
}

static int bind_index(struct publication *p, const struct reference *ref, struct digest *ret, struct error *e)
{
        _cleanup_(target_free_ptr) struct target *t = NULL;
        int r;

        if (ref->transport == TRANSPORT_REGISTRY)
                r = client_target_new(p->image->client, ref, &t, e);
        else
                r = layout_target_new(ref->path, &t, e);
        return r < 0 ? r : put_bound(p, ref, t, ret, e);
}

/* ---- all of it ---- */

static int publish(struct publication *p, const struct publish_options *o, struct publish_result *result,
                   struct error *e)
{
        _cleanup_reference_ struct reference bound = { 0 };
        _cleanup_(target_free_ptr) struct target *t = NULL;
        int r = o->bind ? parse_bound(p->image, o->bind, &bound, e) : 0;

        if (r == 0)
                r = o->output ? layout_target_new(o->output, &t, e) : home_of(p->image, &t, e);
        if (r == 0)
                r = make_index(p, e);
        if (r == 0)
                r = put_index(p, t, e);
        if (r == 0)
                r = attach_index(p, t, e);
        if (r == 0 && o->bind)
                r = bind_index(p, &bound, &result->bound, e);
        result->index = p->digest;
        return r;
}

int image_publish(struct image *i, const struct publish_options *options, struct publish_result *ret, struct error *e)
{
        _cleanup_(publication_clear) struct publication p = { .image = i };
        struct publish_result result = { 0 };
        struct error own = ERROR_INIT;
        int r;

        if (!e)
                e = &own;
        LOG_SCOPE(0, i->reference);
        r = compress_layers(&p, e);
        if (r < 0)
                return r;
        if (p.count == 0 && options->bind)
                return error_set(e, ERROR_USAGE, EINVAL, "%s: every layer carries a table: there is nothing to bind",
                                 i->reference);
        if (p.count > 0)
                r = publish(&p, options, &result, e);
        if (r < 0)
                return r;
        result.layers = p.count;
        for (size_t k = 0; k < p.count; k++)
                result.bytes += p.layers[k].data.len;
        *ret = result;
        return 0;
}
