/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A registry that a test commands, with a mirror, a storage that it may redirect to and a token server, and a client
 * for it. Every request is written down as one line of text:
 *
 *     registry GET /v2/team/app/manifests/1.0 auth=Bearer t1 range=0-99
 *
 * Functions that assert are for the test's own thread; handlers run in the servers' threads. Included after
 * cmocka.h. */

#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "http_server.h"
#include "regfs/client.h"
#include "regfs/io.h"
#include "regfs/thread.h"

#define REPOSITORY "team/app"
#define TAG "1.0"
#define OCI_MANIFEST "application/vnd.oci.image.manifest.v1+json"
#define BODY "{\"schemaVersion\":2,\"mediaType\":\"" OCI_MANIFEST "\",\"config\":{},\"layers\":[]}"
#define BLOB_LENGTH (300 * KIB)

/* What a call may take that is to succeed: passed only by a bug. */
#define LONG_MS 20000

enum place {
        REGISTRY,
        MIRROR,
        STORAGE,
        TOKENS,
        PLACES,
};

static const char *const place_names[] = { "registry", "mirror", "storage", "tokens" };

struct fake;

struct fake_server {
        struct fake *fake;
        enum place place;
        struct http_server *server;
};

/* Answers X and returns true, or leaves it to the default. N: the number of such calls at this place, from 1. */
typedef bool answer_fn(struct fake *f, struct http_exchange *x, unsigned n);

struct fake {
        struct fake_server servers[PLACES];
        char directory[64];
        struct http *http;
        struct registries *registries;
        struct client *client;
        struct pool *pool;

        /* Set before the first request. */
        answer_fn *answer[PLACES];
        const char *wants;        /* "Bearer", "Basic": what the registry wants for manifests; NULL: nothing */
        const char *blobs_want;   /* … for blobs: "Bearer" of another service than the manifests', "same", or NULL */
        bool redirects;           /* blobs lie at the storage */
        bool no_digest;           /* no Docker-Content-Digest */
        const char *content_type; /* of manifests */
        const char *body;         /* of manifests */
        uint8_t *blob;
        struct digest manifest_digest, blob_digest;

        struct mutex lock;
        struct cond changed;
        unsigned calls[PLACES] GUARDED_BY(lock);
        unsigned held GUARDED_BY(lock); /* handlers that wait in fake_meet or fake_hold */
        unsigned met GUARDED_BY(lock);  /* of fake_meet */
        bool released GUARDED_BY(lock);
        unsigned tokens GUARDED_BY(lock);  /* handed out */
        unsigned revoked GUARDED_BY(lock); /* tokens up to this number count no more */
        struct buf seen GUARDED_BY(lock);  /* the lines */
};

/* ---- in the servers' threads ---- */

static inline unsigned fake_note(struct fake *f, enum place place, const struct http_exchange *x)
{
        char value[1000];
        uint64_t first, last;
        unsigned n;

        mutex_lock(&f->lock);
        n = ++f->calls[place];
        (void) buf_printf(&f->seen, "%s %s %s", place_names[place], x->method, x->target);
        if (exchange_header(x, "Authorization", value, sizeof(value)))
                (void) buf_printf(&f->seen, " auth=%s", value);
        if (exchange_range(x, &first, &last))
                (void) buf_printf(&f->seen, " range=%ju-%ju", (uintmax_t) first, (uintmax_t) last);
        if (x->body_length > 0)
                (void) buf_printf(&f->seen, " body=%s", x->body);
        (void) buf_append_char(&f->seen, '\n');
        mutex_unlock(&f->lock);
        return n;
}

/* The handler waits until so many are here together. */
static inline void fake_meet(struct fake *f, unsigned together)
{
        mutex_lock(&f->lock);
        f->met++;
        cond_broadcast(&f->changed);
        while (f->met < together && !f->released)
                cond_wait(&f->changed, &f->lock);
        mutex_unlock(&f->lock);
}

/* The handler waits until fake_release. */
static inline void fake_hold(struct fake *f)
{
        mutex_lock(&f->lock);
        f->held++;
        cond_broadcast(&f->changed);
        while (!f->released)
                cond_wait(&f->changed, &f->lock);
        mutex_unlock(&f->lock);
}

static inline void fake_release(struct fake *f)
{
        mutex_lock(&f->lock);
        f->released = true;
        cond_broadcast(&f->changed);
        mutex_unlock(&f->lock);
}

static inline char *fake_url(const struct fake *f, enum place place, const char *target, char *out, size_t size)
{
        return http_server_url(f->servers[place].server, target, out, size);
}

static inline bool respond_status(struct http_exchange *x, unsigned status)
{
        return exchange_respond(x, status, NULL, "", 0);
}

static inline bool respond_redirect(struct fake *f, struct http_exchange *x, enum place place, const char *target)
{
        char url[5000], header[5100];

        snprintf(header, sizeof(header), "Location: %s\r\n", fake_url(f, place, target, url, sizeof(url)));
        return exchange_respond(x, 307, header, "", 0);
}

static inline bool respond_challenge(struct http_exchange *x, const char *challenge)
{
        static const char body[] = "{\"errors\":[{\"code\":\"UNAUTHORIZED\",\"message\":\"who are you\"}]}";
        char header[2000];

        snprintf(header, sizeof(header), "WWW-Authenticate: %s\r\n", challenge);
        return exchange_respond(x, 401, header, body, strlen(body));
}

static inline bool respond_bearer(struct fake *f, struct http_exchange *x, const char *service)
{
        char realm[200], challenge[500];

        snprintf(challenge, sizeof(challenge),
                 "Bearer realm=\"%s\",service=\"%s\",scope=\"repository:" REPOSITORY ":pull\"",
                 fake_url(f, TOKENS, "/token", realm, sizeof(realm)), service);
        return respond_challenge(x, challenge);
}

/* "Bearer SERVICE-N" with N not revoked. */
static inline bool has_token(struct fake *f, const struct http_exchange *x, const char *service)
{
        char value[1000], expected[100];
        const char *number;
        bool valid;

        if (!exchange_header(x, "Authorization", value, sizeof(value)))
                return false;
        snprintf(expected, sizeof(expected), "Bearer %s-", service);
        number = str_after(value, expected);
        mutex_lock(&f->lock);
        valid = number && strtoul(number, NULL, 10) > f->revoked;
        mutex_unlock(&f->lock);
        return valid;
}

/* True when the request may pass; otherwise it is answered. */
static inline bool check_in(struct fake *f, struct http_exchange *x, const char *wants, const char *service)
{
        char value[1000];

        if (!wants)
                return true;
        if (str_eq(wants, "Basic")) {
                /* user:secret */
                if (str_eq(exchange_header(x, "Authorization", value, sizeof(value)), "Basic dXNlcjpzZWNyZXQ="))
                        return true;
                respond_challenge(x, "Basic realm=\"here\"");
                return false;
        }
        if (has_token(f, x, service))
                return true;
        respond_bearer(f, x, service);
        return false;
}

static inline void nap_ms(long ms)
{
        nanosleep(&(struct timespec) { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 }, NULL);
}

/* Sends the blob in ten pieces with pauses: 1.5 s in all. */
static inline bool drip(struct fake *f, struct http_exchange *x, unsigned n _unused_)
{
        exchange_printf(x, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", BLOB_LENGTH);
        for (size_t k = 0; k < 10; k++) {
                nap_ms(150);
                if (!exchange_send(x, f->blob + k * (BLOB_LENGTH / 10), BLOB_LENGTH / 10))
                        break;
        }
        return true;
}

static inline void serve_manifest(struct fake *f, struct http_exchange *x)
{
        char headers[400], digest[DIGEST_STRING_MAX];

        snprintf(headers, sizeof(headers), "Content-Type: %s\r\n%s%s%s", f->content_type,
                 f->no_digest ? "" : "Docker-Content-Digest: ",
                 f->no_digest ? "" : digest_format(&f->manifest_digest, digest), f->no_digest ? "" : "\r\n");
        exchange_respond(x, 200, headers, f->body, strlen(f->body));
}

static inline void serve_registry(struct fake *f, struct http_exchange *x)
{
        bool same = !f->blobs_want || str_eq(f->blobs_want, "same");

        if (strstr(x->target, "/manifests/")) {
                if (check_in(f, x, f->wants, "manifests"))
                        serve_manifest(f, x);
        } else if (strstr(x->target, "/blobs/")) {
                if (!check_in(f, x, same ? f->wants : f->blobs_want, same ? "manifests" : "blobs"))
                        return;
                if (f->redirects)
                        respond_redirect(f, x, STORAGE, "/data?signature=secret");
                else
                        exchange_serve(x, f->blob, BLOB_LENGTH);
        } else {
                respond_status(x, str_eq(x->target, "/v2/") ? 200 : 404);
        }
}

/* {"token": "SERVICE-N"} for the service asked for. */
static inline void serve_token(struct fake *f, struct http_exchange *x)
{
        const char *service = strstr(x->target, "service=");
        char body[200];
        unsigned n;

        mutex_lock(&f->lock);
        n = ++f->tokens;
        mutex_unlock(&f->lock);
        service = service ? service + strlen("service=") : "manifests";
        snprintf(body, sizeof(body), "{\"token\":\"%.*s-%u\",\"expires_in\":300}", (int) strcspn(service, "&"), service,
                 n);
        exchange_respond(x, 200, NULL, body, strlen(body));
}

static inline void fake_handler(struct http_exchange *x, void *context)
{
        struct fake_server *s = context;
        struct fake *f = s->fake;
        unsigned n = fake_note(f, s->place, x);

        if (f->answer[s->place] && f->answer[s->place](f, x, n))
                return;
        switch (s->place) {
        case REGISTRY:
        case MIRROR:
                serve_registry(f, x);
                break;
        case STORAGE:
                exchange_serve(x, f->blob, BLOB_LENGTH);
                break;
        case TOKENS:
        case PLACES:
                serve_token(f, x);
                break;
        }
}

/* ---- in the test's thread ---- */

static inline const char *fake_file(const struct fake *f, const char *name)
{
        static char path[8][200];
        static unsigned next;
        char *out = path[next++ % 8];

        snprintf(out, sizeof(path[0]), "%s/%s", f->directory, name);
        return out;
}

static inline void fake_write(const struct fake *f, const char *name, const char *text)
{
        int fd = open(fake_file(f, name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

        assert_true(fd >= 0);
        assert_int_equal(write_full(fd, text, strlen(text)), 0);
        close(fd);
}

static inline void fake_fill(uint8_t *data, size_t n)
{
        uint32_t x = 7;

        for (size_t k = 0; k < n; k++) {
                x = x * 1664525 + 1013904223;
                data[k] = (uint8_t) (x >> 24);
        }
}

/* cmocka's setup and teardown: *state is the fake, its servers running, without a client. */
static inline int fake_setup(void **state)
{
        struct http_options http = { .connections_per_host = 64 };
        struct fake *f = calloc(1, sizeof(*f));
        const char *tmp = getenv("TMPDIR");

        *state = f;
        if (!f || http_new(&http, &f->http, NULL) < 0 || pool_new(8 * MIB, &f->pool) < 0)
                return -1;
        snprintf(f->directory, sizeof(f->directory), "%.40s/regfs-client-XXXXXX", tmp && *tmp ? tmp : "/tmp");
        f->blob = malloc(BLOB_LENGTH);
        if (!f->blob || !mkdtemp(f->directory))
                return -1;
        fake_fill(f->blob, BLOB_LENGTH);
        f->body = BODY;
        f->content_type = OCI_MANIFEST;
        mutex_init(&f->lock);
        cond_init(&f->changed);
        if (digest_of(DIGEST_SHA256, BODY, strlen(BODY), &f->manifest_digest) < 0 ||
            digest_of(DIGEST_SHA256, f->blob, BLOB_LENGTH, &f->blob_digest) < 0)
                return -1;
        for (int p = 0; p < PLACES; p++) {
                struct http_server_options o = { .handler = fake_handler, .context = &f->servers[p] };

                f->servers[p].fake = f;
                f->servers[p].place = (enum place) p;
                f->servers[p].server = http_server_start(&o);
        }
        return 0;
}

static inline int fake_teardown(void **state)
{
        static const char *const files[] = { "registries.conf", "auth.json" };
        struct fake *f = *state;

        fake_release(f);
        client_free(f->client);
        registries_free(f->registries);
        http_free(f->http);
        pool_free(f->pool);
        for (int p = 0; p < PLACES; p++)
                http_server_stop(f->servers[p].server);
        for (size_t k = 0; k < ELEMENTSOF(files); k++)
                unlink(fake_file(f, files[k]));
        rmdir(f->directory);
        buf_free(&f->seen);
        cond_destroy(&f->changed);
        mutex_destroy(&f->lock);
        free(f->blob);
        free(f);
        return 0;
}

#define fake_test(function) cmocka_unit_test_setup_teardown(function, fake_setup, fake_teardown)

/* A client that talks plain http. CONF: a registries.conf, or NULL; CREDS: USER:PASSWORD, or NULL. */
static inline void fake_client(struct fake *f, const char *conf, const char *creds)
{
        struct registries_options registries = { .conf = fake_file(f, "registries.conf"),
                                                 .plain_http = true,
                                                 .tls_verify = -1 };
        struct client_options client = { .http = f->http, .credentials = { .creds = creds } };
        struct error e = ERROR_INIT;

        fake_write(f, "registries.conf", conf ? conf : "");
        if (access(fake_file(f, "auth.json"), F_OK) < 0)
                fake_write(f, "auth.json", "{}");
        client.credentials.authfile = fake_file(f, "auth.json");
        if (registries_load(&registries, &f->registries, &e) < 0)
                fail_msg("%s", e.message);
        client.registries = f->registries;
        if (client_new(&client, &f->client, &e) < 0)
                fail_msg("%s", e.message);
}

/* A client with a mirror before the registry; makes one where there is none. */
static inline void fake_client_with_mirror(struct fake *f, const char *creds)
{
        char conf[400];

        snprintf(conf, sizeof(conf),
                 "[[registry]]\nlocation = \"127.0.0.1:%u\"\ninsecure = true\n"
                 "[[registry.mirror]]\nlocation = \"127.0.0.1:%u\"\ninsecure = true\n",
                 http_server_port(f->servers[REGISTRY].server), http_server_port(f->servers[MIRROR].server));
        fake_client(f, conf, creds);
}

/* A source for NAME of the registry (":tag", "@digest"); makes the plain client where there is none. */
static inline struct source *fake_source(struct fake *f, const char *name)
{
        _cleanup_reference_ struct reference ref = { 0 };
        struct source *s = NULL;
        struct error e = ERROR_INIT;
        char text[400];

        if (!f->client)
                fake_client(f, NULL, NULL);
        snprintf(text, sizeof(text), "127.0.0.1:%u/" REPOSITORY "%s", http_server_port(f->servers[REGISTRY].server),
                 name);
        if (reference_parse(text, &ref, &e) < 0 || client_source_new(f->client, &ref, &s, &e) < 0)
                fail_msg("%s", e.message);
        return s;
}

/* A source of a client with CREDS, at a registry that wants WANTS. */
static inline struct source *source_with(struct fake *f, const char *wants, const char *creds)
{
        f->wants = wants;
        fake_client(f, NULL, creds);
        return fake_source(f, ":" TAG);
}

static inline struct blob *fake_blob(struct fake *f, struct source *s, char **urls)
{
        struct descriptor d = { .digest = f->blob_digest, .size = BLOB_LENGTH, .urls = urls };
        struct error e = ERROR_INIT;
        struct blob *b = NULL;

        if (source_blob(s, &d, &b, &e) < 0)
                fail_msg("%s", e.message);
        return b;
}

/* Reads a range of the blob; 0 with the right bytes, or what failed. */
static inline int read_range(struct fake *f, struct blob *b, uint64_t offset, uint64_t length, uint64_t patience_ms,
                             struct error *e)
{
        _cleanup_(pool_buf_unref_ptr) struct pool_buf *buffer = NULL;
        _cleanup_(blob_range_close_ptr) struct blob_range *range = NULL;
        uint64_t received = 0;
        int r;

        r = pool_get(f->pool, (size_t) length, deadline_in(LONG_MS), &buffer, e);
        if (r == 0)
                r = blob_range_open(b, offset, length, buffer, 0, patience_ms, &range, e);
        if (r == 0)
                r = blob_range_wait(range, length, &received, e);
        if (r == 0 && (received != length || memcmp(buffer->data, f->blob + offset, (size_t) length) != 0))
                r = error_set(e, ERROR_OTHER, EILSEQ, "the wrong bytes were read");
        return r;
}

static inline void expect_range(struct fake *f, struct blob *b, uint64_t offset, uint64_t length)
{
        struct error e = ERROR_INIT;

        if (read_range(f, b, offset, length, LONG_MS, &e) < 0)
                fail_msg("%s", e.message);
}

static inline int get_manifest(struct source *s, uint64_t patience_ms, struct error *e)
{
        _cleanup_document_ struct document d = { 0 };

        return source_manifest(s, NULL, deadline_in(patience_ms), &d, e);
}

static inline void expect_manifest(struct source *s)
{
        struct error e = ERROR_INIT;

        if (get_manifest(s, LONG_MS, &e) < 0)
                fail_msg("%s", e.message);
}

/* How many of the lines seen begin with BEGIN and hold PART. */
static inline unsigned seen(struct fake *f, const char *begin, const char *part)
{
        _cleanup_free_ char *copy = NULL;
        char *save = NULL;
        unsigned n = 0;

        mutex_lock(&f->lock);
        copy = strdup(f->seen.data ? f->seen.data : "");
        mutex_unlock(&f->lock);
        assert_non_null(copy);
        for (char *line = strtok_r(copy, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
                n += str_after(line, begin) && strstr(line, part);
        return n;
}

static inline void expect_words(const struct error *e, const char *words)
{
        if (!strstr(e->message, words))
                fail_msg("'%s' is not in '%s'", words, e->message);
}
