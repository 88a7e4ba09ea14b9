/* SPDX-License-Identifier: Apache-2.0 */

#include <strings.h>

#include "http_internal.h"

static void curl_url_free(CURLU **u)
{
        curl_url_cleanup(*u);
}

#define _cleanup_url_ _cleanup_(curl_url_free)

static void curl_string_free(char **s)
{
        curl_free(*s);
}

#define _cleanup_curl_ _cleanup_(curl_string_free)

/* The end of a bounded string under construction; always NUL-terminated. */
struct text {
        char *out;
        size_t size, len;
};

static void put(struct text *t, const char *s, size_t n)
{
        size_t room = t->size - t->len - 1;

        n = MIN(n, room);
        memcpy(t->out + t->len, s, n);
        t->len += n;
        t->out[t->len] = '\0';
}

/* All of S or nothing: an ellipsis is three bytes that must not be torn. */
static void put_whole(struct text *t, const char *s)
{
        if (strlen(s) < t->size - t->len)
                put(t, s, strlen(s));
}

static void put_query(struct text *t, const char *query, size_t n)
{
        const char *end = query + n;

        for (const char *p = query; p < end;) {
                const char *stop = memchr(p, '&', (size_t) (end - p));
                const char *equals;

                if (!stop)
                        stop = end;
                equals = memchr(p, '=', (size_t) (stop - p));
                if (equals)
                        put(t, p, (size_t) (equals + 1 - p));
                if (stop > p)
                        put_whole(t, "…"); /* a parameter without a name may be the secret itself */
                if (stop < end)
                        put(t, "&", 1);
                p = stop + 1;
        }
}

char *http_mask_url(const char *url, char *out, size_t size)
{
        struct text t = { .out = out, .size = size };
        const char *authority = url + strcspn(url, "/?#"), *at;
        size_t n;

        if (size == 0)
                return out;
        out[0] = '\0';
        if (strncmp(authority, "//", 2) == 0) {
                authority += 2;
                put(&t, url, (size_t) (authority - url));
        } else {
                authority = url;
        }
        n = strcspn(authority, "/?#");
        at = memrchr(authority, '@', n);
        if (at) {
                n -= (size_t) (at + 1 - authority);
                authority = at + 1;
        }
        put(&t, authority, n);

        url = authority + n;
        n = strcspn(url, "?#");
        put(&t, url, n);
        if (url[n] == '?') {
                url += n + 1;
                put(&t, "?", 1);
                put_query(&t, url, strcspn(url, "#"));
        }
        return out;
}

static int parse(const char *url, CURLU **ret, struct error *e)
{
        _cleanup_url_ CURLU *u = curl_url();
        char masked[300];
        CURLUcode r;

        if (!u)
                return error_oom(e);
        r = curl_url_set(u, CURLUPART_URL, url, CURLU_NON_SUPPORT_SCHEME);
        if (r == CURLUE_OUT_OF_MEMORY)
                return error_oom(e);
        if (r != CURLUE_OK)
                return error_set(e, ERROR_OTHER, EINVAL, "bad URL '%s': %s", http_mask_url(url, masked, sizeof(masked)),
                                 curl_url_strerror(r));
        *ret = steal_ptr(u);
        return 0;
}

/* The URL in U is one that regfs may ask. */
static int check(CURLU *u, const char *url, struct error *e)
{
        _cleanup_curl_ char *scheme = NULL, *user = NULL, *password = NULL;
        char masked[300];

        http_mask_url(url, masked, sizeof(masked));
        if (curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) != CURLUE_OK ||
            (strcasecmp(scheme, "http") != 0 && strcasecmp(scheme, "https") != 0))
                return error_set(e, ERROR_OTHER, EINVAL, "bad URL '%s': neither http nor https", masked);
        if (curl_url_get(u, CURLUPART_USER, &user, 0) == CURLUE_OK ||
            curl_url_get(u, CURLUPART_PASSWORD, &password, 0) == CURLUE_OK)
                return error_set(e, ERROR_OTHER, EINVAL, "bad URL '%s': it carries a user name or a password", masked);
        return 0;
}

int http_check_url(const char *url, struct error *e)
{
        _cleanup_url_ CURLU *u = NULL;
        int r = parse(url, &u, e);

        return r < 0 ? r : check(u, url, e);
}

char *http_url_host(const char *url)
{
        _cleanup_url_ CURLU *u = NULL;
        _cleanup_curl_ char *host = NULL;
        size_t n;

        if (parse(url, &u, NULL) < 0 || curl_url_get(u, CURLUPART_HOST, &host, 0) != CURLUE_OK)
                return NULL;
        n = strlen(host);
        if (n > 2 && host[0] == '[' && host[n - 1] == ']')
                return strndup(host + 1, n - 2);
        return strdup(host);
}

char *http_url_origin(const char *url)
{
        _cleanup_url_ CURLU *u = NULL;
        _cleanup_curl_ char *scheme = NULL, *host = NULL, *port = NULL;

        if (parse(url, &u, NULL) < 0 || curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) != CURLUE_OK ||
            curl_url_get(u, CURLUPART_HOST, &host, 0) != CURLUE_OK ||
            curl_url_get(u, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) != CURLUE_OK)
                return NULL;
        return str_printf("%s://%s:%s", scheme, host, port);
}

int http_join_url(const char *base, const char *location, char **ret, struct error *e)
{
        _cleanup_url_ CURLU *u = NULL;
        _cleanup_curl_ char *joined = NULL;
        char masked[300];
        CURLUcode c;
        int r;

        r = parse(base, &u, e);
        if (r < 0)
                return r;
        /* As browsers do, spaces and bytes beyond ASCII are encoded; nothing else changes, or signatures would. */
        c = curl_url_set(u, CURLUPART_URL, location, CURLU_NON_SUPPORT_SCHEME | CURLU_URLENCODE | CURLU_ALLOW_SPACE);
        if (c == CURLUE_OK) {
                r = check(u, location, e);
                if (r < 0)
                        return r;
                c = curl_url_set(u, CURLUPART_FRAGMENT, NULL, 0);
        }
        if (c == CURLUE_OK)
                c = curl_url_get(u, CURLUPART_URL, &joined, 0);
        if (c == CURLUE_OUT_OF_MEMORY)
                return error_oom(e);
        if (c != CURLUE_OK)
                return error_set(e, ERROR_OTHER, EINVAL, "bad URL '%s': %s",
                                 http_mask_url(location, masked, sizeof(masked)), curl_url_strerror(c));
        *ret = strdup(joined); /* curl_free need not be free */
        return *ret ? 0 : error_oom(e);
}

static bool same_part(CURLU *a, CURLU *b, CURLUPart part)
{
        _cleanup_curl_ char *x = NULL, *y = NULL;

        return curl_url_get(a, part, &x, CURLU_DEFAULT_PORT) == CURLUE_OK &&
               curl_url_get(b, part, &y, CURLU_DEFAULT_PORT) == CURLUE_OK && strcasecmp(x, y) == 0;
}

bool http_same_origin(const char *a, const char *b)
{
        _cleanup_url_ CURLU *x = NULL, *y = NULL;

        return parse(a, &x, NULL) == 0 && parse(b, &y, NULL) == 0 && same_part(x, y, CURLUPART_SCHEME) &&
               same_part(x, y, CURLUPART_HOST) && same_part(x, y, CURLUPART_PORT);
}
