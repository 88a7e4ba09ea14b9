/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the tests of the http module have in common. Include it behind <cmocka.h>. */

#include <string.h>

#include "http_server.h"
#include "regfs/http.h"

/* No test waits longer for what must come. */
#define PATIENCE 20000

static inline struct http *new_http(void)
{
        struct error e = ERROR_INIT;
        struct http *h = NULL;

        if (http_new(NULL, &h, &e) < 0)
                fail_msg("%s", e.message);
        return h;
}

static inline struct http_server *new_server(void (*handler)(struct http_exchange *x, void *context), void *context)
{
        struct http_server_options o = { .handler = handler, .context = context };

        return http_server_start(&o);
}

/* Starts REQUEST for TARGET on the server. */
static inline struct transfer *start(struct http *h, struct http_server *s, const char *target,
                                     struct http_request *request)
{
        struct error e = ERROR_INIT;
        struct transfer *t = NULL;
        char url[5000];

        request->url = http_server_url(s, target, url, sizeof(url));
        if (http_start(h, request, &t, &e) < 0)
                fail_msg("%s", e.message);
        return t;
}

static inline void expect_status(struct transfer *t, unsigned status)
{
        struct error e = ERROR_INIT;

        if (transfer_wait_headers(t, deadline_in(PATIENCE), &e) < 0)
                fail_msg("%s", e.message);
        assert_int_equal(transfer_status(t), status);
}

/* The whole body comes, of LENGTH bytes. */
static inline void expect_body(struct transfer *t, uint64_t length)
{
        struct error e = ERROR_INIT;
        uint64_t received = UINT64_MAX;

        if (transfer_wait(t, UINT64_MAX, deadline_in(PATIENCE), &received, &e) < 0)
                fail_msg("%s", e.message);
        assert_int_equal(received, length);
}

/* The transfer fails before or in its body with CODE and WORDS in the message. */
static inline void expect_failure(struct transfer *t, int code, const char *words)
{
        struct error e = ERROR_INIT;

        assert_int_equal(transfer_wait(t, UINT64_MAX, deadline_in(PATIENCE), NULL, &e), -code);
        assert_int_equal(e.code, code);
        if (!strstr(e.message, words))
                fail_msg("'%s' is not in '%s'", words, e.message);
}

/* LENGTH bytes in which no two neighbourhoods look alike. */
static inline void fill_pattern(uint8_t *data, size_t length)
{
        uint32_t x = 1;

        for (size_t i = 0; i < length; i++) {
                x = x * 1664525 + 1013904223;
                data[i] = (uint8_t) (x >> 24);
        }
}

#define BLOB_SIZE (300 * KIB)

/* What serve_blob serves; fill_pattern fills it. */
static uint8_t blob[BLOB_SIZE];

static inline void *context_of(const void *p)
{
        return (void *) (uintptr_t) p;
}

static inline void serve_blob(struct http_exchange *x, void *context _unused_)
{
        exchange_serve(x, blob, sizeof(blob));
}

/* Sends CONTEXT, a whole answer as text, and closes. */
static inline void serve_text(struct http_exchange *x, void *context)
{
        exchange_printf(x, "%s", (const char *) context);
        exchange_close(x);
}
