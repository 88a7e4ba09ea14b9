/* SPDX-License-Identifier: Apache-2.0 */

/* A repository of a registry as a target (distribution-spec "Push"). */

#include "regfs/push.h"

#include <stdio.h>
#include <string.h>

#include "../blob/index_text.h"
#include "client_internal.h"
#include "regfs/log.h"
#include "regfs/manifest.h"

#define ANSWER_MAX MIB
#define CANCEL_MS 2000

struct registry_target {
        struct target target;
        struct registry_source *source; /* the repository; of its endpoints only the registry itself is asked */
        struct mutex lock;
        struct digest *attached GUARDED_BY(lock); /* manifests that the registry knows as referrers by itself */
        size_t attached_count GUARDED_BY(lock), attached_allocated GUARDED_BY(lock);
};

static struct registry_target *registry_target(struct target *t)
{
        return (struct registry_target *) t;
}

/* The registry itself is the last of the endpoints, behind its mirrors. */
static void fill_exchange(struct registry_target *t, const char *method, const char *path, struct exchange *x)
{
        x->source = t->source;
        x->endpoint = t->source->endpoints.count - 1;
        x->given_up = ~((uint64_t) 1 << x->endpoint);
        x->kind = REQUEST_PUSH;
        x->method = method;
        x->path = path;
        x->max_body = ANSWER_MAX;
}

/* Reads what is left of a small answer: its connection can be used again. */
static void drain(const struct exchange *x, deadline_t deadline)
{
        (void) transfer_wait(x->transfer, UINT64_MAX, deadline, NULL, NULL);
}

/* 201 says that it is stored; some registries say 200 or 204. */
static int expect_stored(const struct exchange *x, struct error *e)
{
        char masked[400];

        if (x->status == 201 || x->status == 200 || x->status == 204)
                return 0;
        return error_set(e, ERROR_BAD_DATA, EBADMSG,
                         "%s: the registry answers %u, which does not say that it is stored",
                         http_mask_url(x->url, masked, sizeof(masked)), x->status);
}

/* ---- uploading a blob ---- */

/* 1: the repository has it, 0: not. */
static int has_blob(struct registry_target *t, const struct digest *digest, deadline_t deadline, struct error *e)
{
        _cleanup_exchange_ struct exchange x = EXCHANGE_INIT;
        char text[DIGEST_STRING_MAX], path[sizeof("blobs/") + DIGEST_STRING_MAX];
        int r;

        (void) snprintf(path, sizeof(path), "blobs/%s", digest_format(digest, text));
        fill_exchange(t, "HEAD", path, &x);
        r = exchange_answer(&x, deadline, e);
        if (r == 0)
                return 1;
        /* A storage that the registry redirects to may allow a GET alone. */
        if (x.elsewhere && (r == -EACCES || r == -EIO))
                return 1;
        return r == -ENOENT || r == -EIO ? 0 : r;
}

/* Where the registry wants the upload that it has just opened. */
static int upload_location(const struct exchange *x, char **ret, struct error *e)
{
        const char *location = transfer_header(x->transfer, "Location", 0);
        char masked[400];

        http_mask_url(x->url, masked, sizeof(masked));
        if (x->status != 202 || !location)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "%s: the registry answers %u%s, which opens no upload",
                                 masked, x->status, location ? "" : " without a Location");
        if (http_join_url(x->url, location, ret, e) < 0)
                return error_prefix(e, "%s: Location", masked);
        return 0;
}

/* Sends the bytes to LOCATION. X, which opened the upload, gets the answer of a failure: it says how long to wait. */
static int send_blob(struct registry_target *t, struct exchange *x, const char *location, const struct digest *digest,
                     const void *data, size_t n, deadline_t deadline, struct error *e)
{
        _cleanup_exchange_ struct exchange put = EXCHANGE_INIT;
        _cleanup_free_ char *url = NULL;
        char text[DIGEST_STRING_MAX];
        int r;

        url = str_printf("%s%cdigest=%s", location, strchr(location, '?') ? '&' : '?', digest_format(digest, text));
        if (!url)
                return error_oom(e);
        fill_exchange(t, "PUT", x->path, &put);
        put.upload = url;
        put.content_type = "application/octet-stream";
        put.body = data;
        put.body_length = n;
        put.once = true;
        r = exchange_answer(&put, deadline, e);
        if (r == 0)
                r = expect_stored(&put, e);
        if (r == 0) {
                drain(&put, deadline);
                return 0;
        }
        transfer_unref(x->transfer);
        x->transfer = steal_ptr(put.transfer);
        return r;
}

/* Opens an upload and sends the blob in one piece. What breaks in between is tried again from the beginning: nobody
 * knows how far the registry came. */
static int upload_blob(struct registry_target *t, const struct digest *digest, const void *data, size_t n,
                       deadline_t deadline, struct error *e)
{
        _cleanup_exchange_ struct exchange x = EXCHANGE_INIT;
        int r;

        fill_exchange(t, "POST", "blobs/uploads/", &x);
        for (;;) {
                _cleanup_free_ char *location = NULL;

                r = exchange_answer(&x, deadline, e);
                if (r < 0)
                        return r;
                drain(&x, deadline);
                r = upload_location(&x, &location, e);
                if (r == 0)
                        r = send_blob(t, &x, location, digest, data, n, deadline, e);
                if (r == 0 || r == -ENOMEM)
                        return r;
                r = exchange_failed(&x, deadline, e);
                if (r < 0)
                        return r;
        }
}

static int put_blob(struct target *target, const struct digest *digest, const void *data, size_t n, deadline_t deadline,
                    struct error *e)
{
        struct registry_target *t = registry_target(target);
        struct error own = ERROR_INIT;
        char text[DIGEST_STRING_MAX];
        int r;

        if (!e)
                e = &own;
        r = has_blob(t, digest, deadline, e);
        if (r == 0)
                r = upload_blob(t, digest, data, n, deadline, e);
        return r < 0 ? error_prefix(e, "%s: pushing blob %s", target->name, digest_format(digest, text)) : 0;
}

/* ---- taking a blob from a neighbour ---- */

/* An upload that nobody will send is ended; where that fails, the registry does so in time. */
static void cancel_upload(struct registry_target *t, const struct exchange *opened)
{
        _cleanup_exchange_ struct exchange x = EXCHANGE_INIT;
        _cleanup_free_ char *location = NULL;
        struct error ignored = ERROR_INIT;

        if (upload_location(opened, &location, &ignored) < 0)
                return;
        fill_exchange(t, "DELETE", opened->path, &x);
        x.upload = location;
        x.once = true;
        if (exchange_answer(&x, deadline_in(CANCEL_MS), &ignored) < 0)
                log_debug("%s: the upload stays open", ignored.message);
}

static int mount_blob(struct registry_target *t, const struct digest *digest, const char *repository,
                      deadline_t deadline, struct error *e)
{
        _cleanup_exchange_ struct exchange x = EXCHANGE_INIT;
        char text[DIGEST_STRING_MAX];
        _cleanup_free_ char *path =
                str_printf("blobs/uploads/?mount=%s&from=%s", digest_format(digest, text), repository);
        int r;

        if (!path)
                return error_oom(e);
        fill_exchange(t, "POST", path, &x);
        r = exchange_answer(&x, deadline, e);
        if (r == -EIO) {
                struct error cause = *e;

                return error_set(e, ERROR_NOT_FOUND, ENOENT, "the registry does not know how to take it: %s",
                                 cause.message);
        }
        if (r < 0)
                return r;
        drain(&x, deadline);
        if (x.status == 201)
                return 0;
        cancel_upload(t, &x);
        return error_set(e, ERROR_NOT_FOUND, ENOENT, "the registry does not take it from repository %s", repository);
}

static int take_blob(struct target *target, const struct descriptor *blob, const char *repository, deadline_t deadline,
                     struct error *e)
{
        struct registry_target *t = registry_target(target);
        struct error own = ERROR_INIT;
        char text[DIGEST_STRING_MAX];
        int r;

        if (!e)
                e = &own;
        r = has_blob(t, &blob->digest, deadline, e);
        if (r == 0)
                r = mount_blob(t, &blob->digest, repository, deadline, e);
        return r < 0 ? error_prefix(e, "%s: blob %s", target->name, digest_format(&blob->digest, text)) : 0;
}

/* ---- manifests ---- */

/* The registry has said that it knows this manifest as a referrer. */
static int remember_attached(struct registry_target *t, const struct digest *digest)
{
        int r;

        mutex_lock(&t->lock);
        r = array_reserve(t->attached, &t->attached_allocated, t->attached_count + 1);
        if (r == 0)
                t->attached[t->attached_count++] = *digest;
        mutex_unlock(&t->lock);
        return r;
}

static bool is_attached(struct registry_target *t, const struct digest *digest)
{
        bool found = false;

        mutex_lock(&t->lock);
        for (size_t k = 0; k < t->attached_count && !found; k++)
                found = digest_equal(&t->attached[k], digest);
        mutex_unlock(&t->lock);
        return found;
}

/* A registry that stores something else than it was sent would serve what nobody can verify. */
static int check_stored(const struct exchange *x, const struct digest *digest, struct error *e)
{
        const char *stated = transfer_header(x->transfer, "Docker-Content-Digest", 0);
        char text[DIGEST_STRING_MAX];
        int r = expect_stored(x, e);

        if (r == 0 && stated && strcmp(stated, digest_format(digest, text)) != 0)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "the registry stored it as %.200s", stated);
        return r;
}

static int put_manifest(struct target *target, const char *tag, const char *media_type, const void *data, size_t n,
                        deadline_t deadline, struct error *e)
{
        struct registry_target *t = registry_target(target);
        _cleanup_exchange_ struct exchange x = EXCHANGE_INIT;
        _cleanup_free_ char *path = NULL;
        char text[DIGEST_STRING_MAX];
        struct error own = ERROR_INIT;
        struct digest digest;
        int r;

        if (!e)
                e = &own;
        r = digest_of(DIGEST_SHA256, data, n, &digest);
        if (r < 0)
                return error_errno(e, -r, "%s: hashing", target->name);
        path = str_printf("manifests/%s", tag ? tag : digest_format(&digest, text));
        if (!path)
                return error_oom(e);
        fill_exchange(t, "PUT", path, &x);
        x.content_type = media_type;
        x.body = data;
        x.body_length = n;
        r = exchange_answer(&x, deadline, e);
        if (r == 0)
                r = check_stored(&x, &digest, e);
        if (r < 0)
                return error_prefix(e, "%s: pushing manifest %s%s%s", target->name, digest_format(&digest, text),
                                    tag ? " as " : "", tag ? tag : "");
        drain(&x, deadline);
        if (transfer_header(x.transfer, "OCI-Subject", 0) && remember_attached(t, &digest) < 0)
                return error_oom(e);
        return 0;
}

/* ---- referrers ---- */

/* The index at the fallback tag, or an empty one. */
static int read_fallback(struct registry_target *t, const char *tag, deadline_t deadline, struct document *ret,
                         struct manifest *ret_index, struct error *e)
{
        _cleanup_exchange_ struct exchange x = EXCHANGE_INIT;
        _cleanup_free_ char *path = str_printf("manifests/%s", tag);
        const char *type;
        int r;

        if (!path)
                return error_oom(e);
        fill_exchange(t, "GET", path, &x);
        x.accept = INDEX_TYPE;
        x.max_body = MANIFEST_MAX;
        r = exchange_read(&x, deadline, &ret->body, e);
        if (r < 0 && x.status != 404)
                return r;
        if (r < 0 && buf_append_str(&ret->body, INDEX_EMPTY) < 0)
                return error_oom(e);
        type = x.transfer ? transfer_header(x.transfer, "Content-Type", 0) : NULL;
        ret->media_type = strndup(type ? type : "", type ? strcspn(type, "; \t") : 0);
        if (!ret->media_type)
                return error_oom(e);
        r = manifest_parse(ret, path, ret_index, e);
        if (r == 0 && ret_index->kind != MANIFEST_INDEX)
                r = error_set(e, ERROR_BAD_DATA, EBADMSG, "%s is an image, no index", path);
        return r;
}

static int enter_fallback(struct registry_target *t, const char *tag, const struct descriptor *artifact,
                          deadline_t deadline, struct error *e)
{
        _cleanup_document_ struct document document = { 0 };
        _cleanup_manifest_ struct manifest index = { 0 };
        _cleanup_buf_ struct buf changed = { 0 };
        int r;

        r = read_fallback(t, tag, deadline, &document, &index, e);
        if (r < 0)
                return error_prefix(e, "%s: index of referrers", t->target.name);
        for (size_t k = 0; k < index.manifest_count; k++)
                if (digest_equal(&index.manifests[k].digest, &artifact->digest))
                        return 0;
        r = index_text_change(&document.body, index.manifest_count, NULL, artifact, &changed, e);
        if (r < 0)
                return error_prefix(e, "%s: index of referrers %s", t->target.name, tag);
        return put_manifest(&t->target, tag, INDEX_TYPE, changed.data, changed.len, deadline, e);
}

static int attach(struct target *target, const struct digest *subject, const struct descriptor *artifact,
                  deadline_t deadline, struct error *e)
{
        struct registry_target *t = registry_target(target);
        char tag[REFERRERS_TAG_MAX];
        struct error own = ERROR_INIT;

        if (!e)
                e = &own;
        if (is_attached(t, &artifact->digest))
                return 0;
        return enter_fallback(t, referrers_tag(subject, tag), artifact, deadline, e);
}

/* ---- opening ---- */

static struct target *free_target(struct target *target)
{
        struct registry_target *t = registry_target(target);

        if (t->source)
                source_free(&t->source->source);
        free(t->attached);
        mutex_destroy(&t->lock);
        free(t->target.name);
        free(t);
        return NULL;
}

static const struct target_ops registry_target_ops = {
        .blob = put_blob,
        .take_blob = take_blob,
        .manifest = put_manifest,
        .attach = attach,
        .free = free_target,
};

int client_target_new(struct client *c, const struct reference *ref, struct target **ret, struct error *e)
{
        _cleanup_(target_free_ptr) struct target *target = NULL;
        struct registry_target *t = calloc(1, sizeof(*t));
        /* Its tag and digest are nothing to a target. */
        const struct reference repository = {
                .transport = ref->transport,
                .host = ref->host,
                .repository = ref->repository,
        };
        struct source *source = NULL;
        int r;

        if (!t)
                return error_oom(e);
        target = &t->target;
        t->target.ops = &registry_target_ops;
        mutex_init(&t->lock);
        r = client_source_new(c, &repository, &source, e);
        if (r < 0)
                return r;
        t->source = (struct registry_source *) source;
        t->target.name = strdup(source->name);
        if (!t->target.name)
                return error_oom(e);
        *ret = steal_ptr(target);
        return 0;
}
