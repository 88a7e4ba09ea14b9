/* SPDX-License-Identifier: Apache-2.0 */

/* From a reference to a source, and to documents out of it. */

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "image_internal.h"
#include "regfs/codec.h"
#include "regfs/log.h"

deadline_t image_deadline(const struct image *i)
{
        return deadline_in(i->timeout_ms);
}

/* ---- where the image is ---- */

static int open_client(struct image *i, const struct regfs_options *o, struct error *e)
{
        struct registries_options registries = {
                .conf = o->registries_conf,
                .plain_http = o->plain_http,
                .tls_verify = o->tls_no_verify ? 0
                              : o->tls_verify  ? 1
                                               : -1,
        };
        struct http_options http = { 0 };
        int r;

        r = registries_load(&registries, &i->registries, e);
        if (r < 0 || i->offline)
                return r;
        r = http_new(&http, &i->http, e);
        if (r < 0)
                return r;

        struct client_options client = {
                .http = i->http,
                .registries = i->registries,
                .credentials = { .creds = o->creds, .authfile = o->authfile },
                .timeout_ms = i->timeout_ms,
        };
        return client_new(&client, &i->client, e);
}

/* "3 days": whole units of TIME until now. */
static const char *age_text(int64_t when, char out[32])
{
        static const struct {
                int64_t seconds;
                const char *name;
        } units[] = { { 86400, "day" }, { 3600, "hour" }, { 60, "minute" }, { 1, "second" } };
        int64_t age = MAX((int64_t) time(NULL) - when, (int64_t) 0), n;
        size_t k = 0;

        while (k + 1 < ELEMENTSOF(units) && age < units[k].seconds)
                k++;
        n = age / units[k].seconds;
        snprintf(out, 32, "%jd %s%s", (intmax_t) n, units[k].name, n == 1 ? "" : "s");
        return out;
}

/* What the tag was when somebody last asked. */
static int resolve_offline(struct image *i, struct located *l, struct error *e)
{
        char digest[DIGEST_STRING_MAX], age[32];
        int64_t when;
        int r;

        r = store_ref_get(i->store, l->text, &l->digest, &when, e);
        if (r == -ENOENT)
                return error_set(e, ERROR_NOT_FOUND, ENOENT,
                                 "%s: offline: what this tag stands for is not in the store", l->text);
        if (r == 0)
                log_info("%s is %s, as of %s ago", l->text, digest_format(&l->digest, digest), age_text(when, age));
        return r;
}

/* What is done once and takes some milliseconds: OpenSSL looks for its SHA-256, and the decoder is tested. */
static void *warm_up(_unused_ void *arg)
{
        hasher_free(hasher_new(DIGEST_SHA256));
        (void) inflate_backend();
        return NULL;
}

/* A manifest is asked for that is not known here, and the layers behind it are not either, mostly: while the answer is on
 * its way, what they need is made ready. Without a thread they do that themselves. */
static int ask_for_manifest(struct image *i, struct source *source, const struct digest *digest, struct document *ret,
                            struct error *e)
{
        if (!i->is_warming)
                i->is_warming = thread_start(&i->warming, "warm", warm_up, NULL) == 0;
        return source_manifest(source, digest, image_deadline(i), ret, e);
}

void image_end_warming(struct image *i)
{
        if (i->is_warming)
                pthread_join(i->warming, NULL);
        i->is_warming = false;
}

/* What the reference stands for. A tag that the store knows costs a HEAD; an unknown one is asked for its manifest
 * at once, which saves a round trip. */
static int resolve(struct image *i, struct located *l, struct error *e)
{
        struct digest last;
        int64_t when;
        int r;

        if (l->name.has_digest) {
                l->digest = l->name.digest;
                return 0;
        }
        if (i->offline && l->name.transport == TRANSPORT_REGISTRY)
                return resolve_offline(i, l, e);
        if (l->name.transport != TRANSPORT_REGISTRY || store_ref_get(i->store, l->text, &last, &when, NULL) == 0)
                return source_resolve(l->source, image_deadline(i), &l->digest, e);

        r = ask_for_manifest(i, l->source, NULL, &l->document, e);
        if (r == 0)
                l->digest = l->document.digest;
        return r;
}

void located_clear(struct located *l)
{
        source_free(l->source);
        reference_clear(&l->name);
        free(l->text);
        document_clear(&l->document);
        *l = (struct located) { 0 };
}

static int open_source(struct image *i, const struct reference *ref, struct source **ret, struct error *e)
{
        switch (ref->transport) {
        case TRANSPORT_REGISTRY:
                return i->offline ? offline_source_new(ref, ret, e) : client_source_new(i->client, ref, ret, e);
        case TRANSPORT_OCI_LAYOUT:
                return layout_source_new(ref->path, ref->tag, ret, e);
        case TRANSPORT_DOCKER_ARCHIVE:
                break;
        }
        return archive_source_new(ref->path, ref->tag, ret, e);
}

static int try_candidate(struct image *i, struct reference *ref, struct located *ret, struct error *e)
{
        _cleanup_(located_clear) struct located l = { .text = reference_format(ref) };
        int r;

        if (!l.text || reference_copy(ref, &l.name) < 0)
                return error_oom(e);
        r = policy_check(ref, e);
        if (r == 0)
                r = open_source(i, ref, &l.source, e);
        if (r == 0)
                r = resolve(i, &l, e);
        if (r < 0)
                return r;

        if (ref->transport == TRANSPORT_REGISTRY && !ref->has_digest && !i->offline) {
                r = image_remember_tag(i, l.text, &l.digest, e);
                if (r < 0)
                        return r;
        }
        *ret = l;
        l = (struct located) { 0 };
        return 0;
}

static void free_references(struct reference *refs, size_t count)
{
        for (size_t k = 0; k < count; k++)
                reference_clear(&refs[k]);
        free(refs);
}

/* Tries the candidates of a short name in turn: the next one only where this one says that it has no such image. */
int image_locate(struct image *i, const char *reference, const struct regfs_options *o, struct located *ret,
                 struct error *e)
{
        _cleanup_(reference_clear) struct reference ref = { 0 };
        struct reference *candidates = NULL;
        size_t count = 0;
        int r;

        r = reference_parse(reference, &ref, e);
        if (r < 0)
                return r;
        if (ref.transport != TRANSPORT_REGISTRY)
                return try_candidate(i, &ref, ret, e);

        r = i->registries ? 0 : open_client(i, o, e);
        if (r == 0)
                r = registries_resolve(i->registries, &ref, &candidates, &count, e);
        if (r < 0)
                return r;
        for (size_t k = 0; k < count; k++) {
                r = try_candidate(i, &candidates[k], ret, e);
                if (r != -ENOENT)
                        break;
        }
        free_references(candidates, count);
        return r;
}

/* ---- documents ---- */

int image_document(struct image *i, struct source *source, const struct digest *digest, struct document *ret,
                   struct error *e)
{
        _cleanup_document_ struct document d = { 0 };
        int r;

        r = store_blob_get(i->store, digest, MANIFEST_MAX, &d.body, NULL);
        if (r == 0) {
                d.digest = *digest;
                d.media_type = strdup("");
                if (!d.media_type)
                        return error_oom(e);
        } else {
                buf_free(&d.body);
                d.body = (struct buf) { 0 };
                r = ask_for_manifest(i, source, digest, &d, e);
                if (r < 0)
                        return r;
                r = image_remember(i, &d, e);
                if (r < 0)
                        return r;
        }
        *ret = d;
        d = (struct document) { 0 };
        return 0;
}
