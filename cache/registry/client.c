/* SPDX-License-Identifier: Apache-2.0 */

#include <string.h>

#include "client_internal.h"
#include "regfs/log.h"
#include "regfs/manifest.h"

#define MANIFEST_TYPES                                                \
        "application/vnd.oci.image.index.v1+json, "                   \
        "application/vnd.docker.distribution.manifest.list.v2+json, " \
        "application/vnd.oci.image.manifest.v1+json, "                \
        "application/vnd.docker.distribution.manifest.v2+json"

#define TIMEOUT_DEFAULT_MS 60000

/* ---- the client ---- */

int client_new(const struct client_options *options, struct client **ret, struct error *e)
{
        _cleanup_(client_free_ptr) struct client *c = calloc(1, sizeof(*c));

        if (!c)
                return error_oom(e);
        mutex_init(&c->lock);
        c->http = options->http;
        c->registries = options->registries;
        c->timeout_ms = options->timeout_ms > 0 ? options->timeout_ms : TIMEOUT_DEFAULT_MS;
        c->challenges = map_new();
        c->credentials = map_new();
        c->plain_hosts = map_new();
        if (!c->challenges || !c->credentials || !c->plain_hosts ||
            str_copy(options->credentials.creds, &c->creds) < 0 ||
            str_copy(options->credentials.authfile, &c->authfile) < 0 || token_cache_new(&c->tokens) < 0)
                return error_oom(e);
        *ret = steal_ptr(c);
        return 0;
}

static void free_challenge(void *value)
{
        challenge_clear(value);
        free(value);
}

static void free_credential(void *value)
{
        credential_clear(value);
        free(value);
}

struct client *client_free(struct client *c)
{
        if (!c)
                return NULL;
        token_cache_free(c->tokens);
        map_free(c->challenges, free_challenge);
        map_free(c->credentials, free_credential);
        map_free(c->plain_hosts, NULL);
        secret_free(c->creds);
        free(c->authfile);
        mutex_destroy(&c->lock);
        free(c);
        return NULL;
}

/* ---- what it remembers ---- */

int challenge_copy(const struct challenge *c, struct challenge *ret)
{
        _cleanup_challenge_ struct challenge copy = { .scheme = c->scheme };

        if (str_copy(c->realm, &copy.realm) < 0 || str_copy(c->service, &copy.service) < 0 ||
            str_copy(c->scope, &copy.scope) < 0)
                return -ENOMEM;
        challenge_clear(ret);
        *ret = copy;
        copy = (struct challenge) { 0 };
        return 0;
}

static int credential_copy(const struct credential *c, struct credential *ret)
{
        _cleanup_credential_ struct credential copy = { 0 };

        if (str_copy(c->user, &copy.user) < 0 || str_copy(c->secret, &copy.secret) < 0 ||
            str_copy(c->identity_token, &copy.identity_token) < 0)
                return -ENOMEM;
        *ret = copy;
        copy = (struct credential) { 0 };
        return 0;
}

static char *challenge_key(const struct endpoint *endpoint, enum request_kind kind)
{
        return str_printf("%s %s %d", endpoint->host, endpoint->repository, (int) kind);
}

/* Blobs of a repository that only its manifest was asked of: most registries want the same token. Not for a push, which
 * no token for pulls is good for. */
int client_recall(struct client *c, const struct endpoint *endpoint, enum request_kind kind, struct challenge *ret)
{
        const enum request_kind second = kind == REQUEST_PUSH ? kind : REQUEST_MANIFEST;
        _cleanup_free_ char *key = challenge_key(endpoint, kind), *other = challenge_key(endpoint, second);
        const struct challenge *known;
        int r = 0;

        if (!key || !other)
                return -ENOMEM;
        mutex_lock(&c->lock);
        known = map_get(c->challenges, key, strlen(key));
        if (!known)
                known = map_get(c->challenges, other, strlen(other));
        if (known)
                r = challenge_copy(known, ret);
        mutex_unlock(&c->lock);
        return r;
}

int client_remember(struct client *c, const struct endpoint *endpoint, enum request_kind kind,
                    const struct challenge *challenge)
{
        _cleanup_free_ char *key = challenge_key(endpoint, kind);
        struct challenge *copy = calloc(1, sizeof(*copy));
        void *old = NULL;
        int r = -ENOMEM;

        if (key && copy && challenge_copy(challenge, copy) == 0) {
                mutex_lock(&c->lock);
                r = map_put(c->challenges, key, strlen(key), copy, &old);
                mutex_unlock(&c->lock);
        }
        if (r < 0 && copy)
                free_challenge(copy);
        if (old)
                free_challenge(old);
        return r;
}

void client_forget(struct client *c, const struct endpoint *endpoint, enum request_kind kind)
{
        const enum request_kind kinds[] = { kind, kind == REQUEST_PUSH ? kind : REQUEST_MANIFEST };

        for (size_t k = 0; k < ELEMENTSOF(kinds); k++) {
                _cleanup_free_ char *key = challenge_key(endpoint, kinds[k]);
                struct challenge *old = NULL;

                if (key) {
                        mutex_lock(&c->lock);
                        old = map_remove(c->challenges, key, strlen(key));
                        mutex_unlock(&c->lock);
                }
                if (old)
                        free_challenge(old);
        }
}

static char *credential_key(const struct endpoint *endpoint)
{
        return str_printf("%s %s", endpoint->credential_host, endpoint->credential_repository);
}

int client_keep_credential(struct client *c, const struct endpoint *endpoint, const struct credential *credential)
{
        _cleanup_free_ char *key = credential_key(endpoint);
        struct credential *copy = credential ? calloc(1, sizeof(*copy)) : NULL;
        void *old = NULL;
        int r = 0;

        if (!key || (credential && (!copy || credential_copy(credential, copy) < 0))) {
                free(copy);
                return -ENOMEM;
        }
        mutex_lock(&c->lock);
        if (copy)
                r = map_put(c->credentials, key, strlen(key), copy, &old);
        else
                old = map_remove(c->credentials, key, strlen(key));
        mutex_unlock(&c->lock);
        if (r < 0)
                free_credential(copy);
        if (old)
                free_credential(old);
        return r;
}

int client_credential(struct client *c, const struct endpoint *endpoint, struct credential *ret, bool *ret_known,
                      struct error *e)
{
        /* --creds are for the registry that the command line names; a mirror has its own in the files, or none. */
        const struct credential_options options = { .creds = endpoint->is_mirror ? NULL : c->creds,
                                                    .authfile = c->authfile };
        _cleanup_free_ char *key = credential_key(endpoint);
        const struct credential *known;
        int r = 0;

        if (!key)
                return error_oom(e);
        mutex_lock(&c->lock);
        known = map_get(c->credentials, key, strlen(key));
        if (known)
                r = credential_copy(known, ret);
        *ret_known = known;
        mutex_unlock(&c->lock);
        if (r < 0)
                return error_oom(e);
        if (*ret_known)
                return 0;
        r = credential_find(&options, endpoint->credential_host, endpoint->credential_repository, ret, e);
        if (r < 0)
                return r;
        return client_keep_credential(c, endpoint, ret) < 0 ? error_oom(e) : 0;
}

/* ---- manifests ---- */

static struct registry_source *registry_source(struct source *s)
{
        return (struct registry_source *) s;
}

/* "manifests/<tag or digest>". */
static char *manifest_path(const struct registry_source *s, const struct digest *digest, bool *ret_by_tag)
{
        char text[DIGEST_STRING_MAX];

        if (!digest && s->reference.has_digest)
                digest = &s->reference.digest;
        *ret_by_tag = !digest;
        return str_printf("manifests/%s", digest ? digest_format(digest, text) : s->reference.tag);
}

static int not_found(struct registry_source *s, const char *path, struct error *e)
{
        struct error cause = *e;

        return error_set(e, ERROR_NOT_FOUND, ENOENT, "%s: no such image: %s is not there (%s)", s->source.name,
                         path + strlen("manifests/"), cause.message);
}

/* The digest that a server states, when it does and it is one. */
static bool stated_digest(const struct transfer *t, struct digest *ret)
{
        const char *text = transfer_header(t, "Docker-Content-Digest", 0);

        return text && digest_parse(text, ret, NULL) == 0;
}

/* The body against the digest that was asked for, or that the server states. */
static int check_manifest(struct registry_source *s, const struct transfer *t, const struct digest *wanted,
                          struct document *d, struct error *e)
{
        _cleanup_free_ char *name = str_printf("%s: manifest", s->source.name);
        struct digest stated;
        int r;

        if (!name)
                return error_oom(e);
        if (!wanted && s->reference.has_digest)
                wanted = &s->reference.digest;
        if (wanted) {
                d->digest = *wanted;
                return digest_verify(wanted, d->body.data, d->body.len, name, e);
        }
        if (stated_digest(t, &stated)) {
                d->digest = stated;
                r = digest_verify(&stated, d->body.data, d->body.len, name, e);
                if (r < 0)
                        return r;
        }
        r = digest_of(DIGEST_SHA256, d->body.data, d->body.len, &d->digest);
        return r < 0 ? error_errno(e, -r, "%s: hashing", s->source.name) : 0;
}

static int get_manifest(struct source *source, const struct digest *digest, deadline_t deadline, struct document *ret,
                        struct error *e)
{
        struct registry_source *s = registry_source(source);
        _cleanup_exchange_ struct exchange x = EXCHANGE_INIT;
        _cleanup_document_ struct document d = { 0 };
        _cleanup_free_ char *path = NULL;
        struct error own = ERROR_INIT;
        const char *type;
        int r;

        if (!e)
                e = &own;
        path = manifest_path(s, digest, &x.by_tag);
        if (!path)
                return error_oom(e);
        x.source = s;
        x.kind = REQUEST_MANIFEST;
        x.path = path;
        x.accept = MANIFEST_TYPES;
        x.max_body = MANIFEST_MAX;
        r = exchange_read(&x, deadline, &d.body, e);
        if (r == -ENOENT)
                return not_found(s, path, e);
        if (r < 0)
                return error_prefix(e, "%s", source->name);
        r = check_manifest(s, x.transfer, digest, &d, e);
        if (r < 0)
                return r;
        type = transfer_header(x.transfer, "Content-Type", 0);
        d.media_type = strndup(type ? type : "", type ? strcspn(type, "; \t") : 0);
        if (!d.media_type)
                return error_oom(e);
        *ret = d;
        d = (struct document) { 0 };
        return 0;
}

/* A HEAD, which docker.io does not count as a pull; a GET where the server does not answer it with a digest. */
static int resolve(struct source *source, deadline_t deadline, struct digest *ret, struct error *e)
{
        struct registry_source *s = registry_source(source);
        _cleanup_exchange_ struct exchange x = EXCHANGE_INIT;
        _cleanup_document_ struct document d = { 0 };
        _cleanup_free_ char *path = NULL;
        struct error own = ERROR_INIT;
        int r;

        if (!e)
                e = &own;
        if (s->reference.has_digest) {
                *ret = s->reference.digest;
                return 0;
        }
        path = manifest_path(s, NULL, &x.by_tag);
        if (!path)
                return error_oom(e);
        x.source = s;
        x.kind = REQUEST_MANIFEST;
        x.method = "HEAD";
        x.path = path;
        x.accept = MANIFEST_TYPES;
        r = exchange_answer(&x, deadline, e);
        if (r == -ENOENT)
                return not_found(s, path, e);
        if (r == 0 && stated_digest(x.transfer, ret))
                return 0;
        if (r < 0 && e->kind != ERROR_OTHER)
                return error_prefix(e, "%s", source->name);

        r = get_manifest(source, NULL, deadline, &d, e);
        if (r == 0)
                *ret = d.digest;
        return r;
}

static int open_blob(struct source *source, const struct descriptor *descriptor, struct blob **ret, struct error *e)
{
        return registry_blob_new(registry_source(source), descriptor, ret, e);
}

static struct source *free_source(struct source *source)
{
        struct registry_source *s = registry_source(source);

        endpoints_clear(&s->endpoints);
        reference_clear(&s->reference);
        free(s->source.name);
        free(s);
        return NULL;
}

static const struct source_ops registry_ops = {
        .resolve = resolve,
        .manifest = get_manifest,
        .blob = open_blob,
        .referrers = registry_referrers,
        .free = free_source,
};

int client_source_new(struct client *c, const struct reference *ref, struct source **ret, struct error *e)
{
        _cleanup_(source_free_ptr) struct source *source = NULL;
        struct registry_source *s = calloc(1, sizeof(*s));
        int r;

        if (!s)
                return error_oom(e);
        source = &s->source;
        s->source.ops = &registry_ops;
        s->client = c;
        s->source.name = reference_format(ref);
        if (!s->source.name || reference_copy(ref, &s->reference) < 0)
                return error_oom(e);
        r = registries_endpoints(c->registries, ref, &s->endpoints, e);
        if (r < 0)
                return r;
        if (s->endpoints.count > ENDPOINTS_MAX)
                return error_set(e, ERROR_USAGE, EINVAL, "%s: registries.conf names more than %d mirrors",
                                 s->source.name, ENDPOINTS_MAX - 1);
        for (size_t k = 0; k < s->endpoints.count; k++)
                log_debug("%s: endpoint %zu: %s/%s%s%s", s->source.name, k, s->endpoints.items[k].host,
                          s->endpoints.items[k].repository, s->endpoints.items[k].is_mirror ? " (mirror)" : "",
                          s->endpoints.items[k].insecure ? " (insecure)" : "");
        *ret = steal_ptr(source);
        return 0;
}

int client_get(struct source *source, const char *path, const char *accept, size_t max, deadline_t deadline,
               struct buf *ret_body, struct error *e)
{
        _cleanup_exchange_ struct exchange x = EXCHANGE_INIT;
        struct error own = ERROR_INIT;
        int r;

        if (!e)
                e = &own;
        x.source = registry_source(source);
        x.kind = REQUEST_OTHER;
        x.path = path;
        x.accept = accept;
        x.max_body = max;
        r = exchange_read(&x, deadline, ret_body, e);
        return r < 0 ? error_prefix(e, "%s", source->name) : 0;
}
