/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A registry that takes what is pushed to it, for the tests of targets. Included after cmocka.h. */

#include "regfs/push.h"
#include "registry_fixture.h"

#define UPLOADS "/v2/" REPOSITORY "/blobs/uploads/"
#define SESSION "/v2/" REPOSITORY "/blobs/uploads/1"
#define OCI_INDEX "application/vnd.oci.image.index.v1+json"
#define CONTENT "what is pushed"

/* Where the registry sends an upload. */
static inline bool open_upload(struct http_exchange *x, const char *location)
{
        char headers[1000];

        snprintf(headers, sizeof(headers), "Location: %s\r\n", location);
        return exchange_respond(x, 202, headers, "", 0);
}

/* Has nothing, and takes everything. */
static inline bool take_all(struct fake *f _unused_, struct http_exchange *x, unsigned n _unused_)
{
        if (strcmp(x->method, "HEAD") == 0 || strcmp(x->method, "GET") == 0)
                return respond_status(x, 404);
        if (strcmp(x->method, "POST") == 0)
                return open_upload(x, SESSION "?state=abc");
        return respond_status(x, strcmp(x->method, "PUT") == 0 ? 201 : 204);
}

/* A target for the registry; makes the plain client where there is none. */
static inline struct target *fake_target(struct fake *f)
{
        _cleanup_reference_ struct reference ref = { 0 };
        struct target *t = NULL;
        struct error e = ERROR_INIT;
        char text[400];

        if (!f->client)
                fake_client(f, NULL, NULL);
        snprintf(text, sizeof(text), "127.0.0.1:%u/" REPOSITORY ":ignored",
                 http_server_port(f->servers[REGISTRY].server));
        if (reference_parse(text, &ref, &e) < 0 || client_target_new(f->client, &ref, &t, &e) < 0)
                fail_msg("%s", e.message);
        return t;
}

static inline struct digest digest_of_text(const char *text)
{
        struct digest d;

        assert_int_equal(digest_of(DIGEST_SHA256, text, strlen(text), &d), 0);
        return d;
}

static inline int push_text(struct target *t, const char *text, uint64_t patience_ms, struct error *e)
{
        struct digest d = digest_of_text(text);

        return target_blob(t, &d, text, strlen(text), deadline_in(patience_ms), e);
}

static inline void expect_pushed(struct target *t, const char *text)
{
        struct error e = ERROR_INIT;

        if (push_text(t, text, LONG_MS, &e) < 0)
                fail_msg("%s", e.message);
}

static inline void expect_unpushed(struct target *t, int code, enum error_kind kind, const char *words)
{
        struct error e = ERROR_INIT;

        assert_int_equal(push_text(t, CONTENT, LONG_MS, &e), -code);
        assert_int_equal(e.kind, kind);
        expect_words(&e, words);
        expect_words(&e, REPOSITORY ": pushing blob sha256:");
}
