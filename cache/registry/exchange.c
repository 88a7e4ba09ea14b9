/* SPDX-License-Identifier: Apache-2.0 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client_internal.h"
#include "regfs/log.h"

#define HOPS_MAX 5
#define PAUSE_FIRST_MS 200
#define PAUSE_MAX_MS 10000

_Static_assert(ENDPOINTS_MAX + EXTERNAL_URLS_MAX <= 64, "given_up has a bit for each");

void exchange_clear(struct exchange *x)
{
        x->transfer = transfer_unref(x->transfer);
        authorization_clear(&x->authorization);
        free(x->url);
        x->url = NULL;
}

static bool is_external(const struct exchange *x)
{
        return x->endpoint >= x->source->endpoints.count;
}

static const struct endpoint *endpoint_of(const struct exchange *x)
{
        return &x->source->endpoints.items[x->endpoint];
}

/* How many places there are to ask: endpoints, then external urls. */
static size_t places(const struct exchange *x)
{
        size_t external = 0;

        while (x->external && x->external[external] && external < EXTERNAL_URLS_MAX)
                external++;
        return x->source->endpoints.count + external;
}

/* A mirror may be there for tags or for digests alone. */
static bool may_ask(const struct exchange *x, size_t place)
{
        if (x->given_up & (uint64_t) 1 << place)
                return false;
        if (place >= x->source->endpoints.count)
                return true;
        return x->by_tag ? x->source->endpoints.items[place].pull_by_tag
                         : x->source->endpoints.items[place].pull_by_digest;
}

/* The next place from FROM on that may be asked, around the end; SIZE_MAX when there is none. External urls come
 * only when every endpoint has given up. */
static size_t next_place(const struct exchange *x, size_t from)
{
        size_t own = x->source->endpoints.count, all = places(x);

        for (size_t k = 0; k < own; k++)
                if (may_ask(x, (from + k) % own))
                        return (from + k) % own;
        for (size_t k = own; k < all; k++)
                if (may_ask(x, k))
                        return k;
        return SIZE_MAX;
}

/* Where to begin: where the last answer came from, unless that was wrong. */
static size_t first_place(const struct exchange *x)
{
        uint64_t doubted = x->kind == REQUEST_BLOB ? atomic_load(&x->source->doubted) : 0;
        size_t own = x->source->endpoints.count, first = next_place(x, atomic_load(&x->source->current));

        for (size_t k = 0; first < own && k < own; k++) {
                size_t place = (first + k) % own;

                if (may_ask(x, place) && !(doubted & (uint64_t) 1 << place))
                        return place;
        }
        return first;
}

/* ---- the url ---- */

static bool speaks_plain_http(struct client *c, const struct endpoint *endpoint)
{
        bool known;

        if (endpoint->plain_http)
                return true;
        if (!endpoint->insecure)
                return false;
        mutex_lock(&c->lock);
        known = map_get(c->plain_hosts, endpoint->host, strlen(endpoint->host));
        mutex_unlock(&c->lock);
        return known;
}

/* An insecure registry that does not answer with TLS is tried in plain http; the next attempt is one with TLS again. */
static bool fall_back_to_plain(struct exchange *x)
{
        /* Others may have found out in the meantime that it speaks plain http: what counts is how it was asked. */
        x->plain =
                !is_external(x) && !x->elsewhere && endpoint_of(x)->insecure && x->url && str_after(x->url, "https://");
        return x->plain;
}

/* The endpoint has answered in plain http: it is asked so from now on. Not remembering it costs a request, no more. */
static void remember_plain(const struct exchange *x)
{
        struct client *c = x->source->client;

        mutex_lock(&c->lock);
        (void) map_put(c->plain_hosts, endpoint_of(x)->host, strlen(endpoint_of(x)->host), c, NULL);
        mutex_unlock(&c->lock);
}

/* True when URL is at the endpoint itself. */
static bool is_own(const struct exchange *x, const char *url)
{
        const struct endpoint *endpoint = endpoint_of(x);
        _cleanup_free_ char *own = str_printf(
                "%s://%s/", speaks_plain_http(x->source->client, endpoint) ? "http" : "https", endpoint->host);

        return own && http_same_origin(own, url);
}

static int make_url(struct exchange *x, struct error *e)
{
        const struct endpoint *endpoint;

        free(x->url);
        if (is_external(x)) {
                x->url = strdup(x->external[x->endpoint - x->source->endpoints.count]);
                x->elsewhere = true;
        } else if (x->upload) {
                x->url = strdup(x->upload);
                x->elsewhere = !is_own(x, x->upload);
        } else {
                endpoint = endpoint_of(x);
                x->url = str_printf("%s://%s/v2/%s/%s",
                                    x->plain || speaks_plain_http(x->source->client, endpoint) ? "http" : "https",
                                    endpoint->host, endpoint->repository, x->path);
                x->elsewhere = false;
        }
        return x->url ? 0 : error_oom(e);
}

/* ---- sending ---- */

static void fill_request(const struct exchange *x, const char *const *headers, const struct http_tls *tls,
                         struct http_request *ret)
{
        *ret = (struct http_request) {
                .method = x->method,
                .url = x->url,
                .headers = headers,
                .tls = tls,
                .body = x->body,
                .body_length = x->body_length,
                .ranged = x->ranged,
                .range_offset = x->offset,
                .range_length = x->length,
                .max_body = x->max_body,
                .sink = x->sink,
                .sink_offset = x->sink_offset,
                .sink_capacity = (size_t) x->length,
                .sink_fd = x->sink_fd,
                .sink_fd_max = x->sink_fd_max,
                .deadline = DEADLINE_NEVER, /* stalls end it; patience is the caller's */
        };
}

static int send_request(struct exchange *x, deadline_t deadline, struct error *e)
{
        struct client *c = x->source->client;
        const struct endpoint *endpoint = is_external(x) ? NULL : endpoint_of(x);
        _cleanup_(secret_free_ptr) char *authorization = NULL;
        struct http_request request;
        _cleanup_free_ char *accept = NULL, *content_type = NULL;
        const char *headers[4] = { NULL };
        struct http_tls tls = { 0 };
        size_t n = 0;
        int r;

        x->status = 0;
        /* Nothing of ours goes to another host: neither credentials nor certificates. */
        if (endpoint && !x->elsewhere) {
                r = authorize(c, endpoint, x->kind, deadline, &x->authorization, &authorization, e);
                if (r < 0)
                        return r;
                tls = (struct http_tls) {
                        .insecure = endpoint->insecure,
                        .ca_pem = endpoint->ca_pem,
                        .client_cert = endpoint->client_cert,
                        .client_key = endpoint->client_key,
                };
        } else if (endpoint) {
                tls = (struct http_tls) { .insecure = endpoint->insecure, .ca_pem = endpoint->ca_pem };
        }
        if (x->accept) {
                accept = str_printf("Accept: %s", x->accept);
                if (!accept)
                        return error_oom(e);
                headers[n++] = accept;
        }
        if (x->content_type) {
                content_type = str_printf("Content-Type: %s", x->content_type);
                if (!content_type)
                        return error_oom(e);
                headers[n++] = content_type;
        }
        if (authorization)
                headers[n++] = authorization;

        fill_request(x, headers, &tls, &request);
        x->transfer = transfer_unref(x->transfer);
        return http_start(c->http, &request, &x->transfer, e);
}

int exchange_begin(struct exchange *x, const char *target, deadline_t deadline, struct error *e)
{
        if (x->attempts == 0 && !x->url && x->given_up == 0) {
                size_t first = first_place(x);

                if (first == SIZE_MAX)
                        return error_set(e, ERROR_USAGE, EINVAL, "%s: no endpoint may be asked for it",
                                         x->source->source.name);
                x->endpoint = first;
        }
        x->hops = 0;
        x->refused_elsewhere = false;
        x->remembered = target;
        if (target) {
                free(x->url);
                x->url = strdup(target);
                x->elsewhere = true;
                if (!x->url)
                        return error_oom(e);
        } else {
                int r = make_url(x, e);

                if (r < 0)
                        return r;
        }
        return send_request(x, deadline, e);
}

/* ---- failures ---- */

/* 200 ms, 400, … with a quarter of jitter, so that a crowd does not come back together. */
static uint64_t pause_ms(unsigned attempts)
{
        uint64_t longer = (uint64_t) PAUSE_FIRST_MS << (attempts < 16 ? attempts : 16);
        uint64_t pause = MIN(longer, (uint64_t) PAUSE_MAX_MS);
        struct timespec now;

        (void) clock_gettime(CLOCK_MONOTONIC, &now);
        return pause * 3 / 4 + (uint64_t) now.tv_nsec / 1000 % (pause / 2 + 1);
}

static size_t open_places(const struct exchange *x)
{
        size_t n = 0;

        for (size_t k = 0; k < x->source->endpoints.count; k++)
                n += may_ask(x, k);
        return MAX(n, (size_t) 1);
}

/* What one place wanted to see, and was given, is nothing to another. */
static void move_to(struct exchange *x, size_t place)
{
        if (place == x->endpoint)
                return;
        x->endpoint = place;
        authorization_clear(&x->authorization);
        x->authorization = (struct authorization) { 0 };
}

/* The time ran out in the middle of an attempt: what the attempts before it met says more. */
static void keep_cause(struct exchange *x, deadline_t deadline, struct error *e)
{
        if (e->code == ETIMEDOUT && deadline_left(deadline) == 0 && x->cause.kind != ERROR_NONE)
                *e = x->cause;
        else
                x->cause = *e;
}

/* The next place at once; a pause when all of them have had their turn: as long as the server says, else longer each
 * time. */
static int try_again(struct exchange *x, uint64_t retry_after, deadline_t deadline, struct error *e)
{
        size_t round = ++x->attempts / open_places(x), next = next_place(x, x->endpoint + 1);
        uint64_t pause = 0;

        keep_cause(x, deadline, e);
        if (x->attempts % open_places(x) == 0)
                pause = retry_after > 0 && retry_after != UINT64_MAX ? retry_after : pause_ms((unsigned) round - 1);
        if (next == SIZE_MAX || pause >= deadline_left(deadline))
                return error_prefix(e, "%s: gave up after %u attempt%s", x->source->source.name, x->attempts,
                                    x->attempts == 1 ? "" : "s");
        log_debug("%s: trying again in %ju ms (attempt %u)", e->message, (uintmax_t) pause, x->attempts + 1);
        move_to(x, next);
        http_pause(x->source->client->http, pause);
        return 0;
}

/* This place will not do; another one may. What the registry itself says of anything but blobs is the last word. */
static int give_up_place(struct exchange *x, struct error *e)
{
        size_t next;

        x->given_up |= (uint64_t) 1 << x->endpoint;
        if (x->kind != REQUEST_BLOB && !endpoint_of(x)->is_mirror)
                return -e->code;
        next = next_place(x, x->endpoint + 1);
        if (next == SIZE_MAX)
                return -e->code;
        log_info("%s: asking the next one", e->message);
        move_to(x, next);
        return 0;
}

int exchange_failed(struct exchange *x, deadline_t deadline, struct error *e)
{
        uint64_t retry_after = UINT64_MAX;

        if (x->once)
                return -e->code;
        if (x->transfer && e->code == EAGAIN)
                retry_after = transfer_retry_after(x->transfer);
        x->transfer = transfer_unref(x->transfer);
        if ((e->code == EPROTO || e->code == ECONNREFUSED) && fall_back_to_plain(x))
                return 0;
        x->plain = false;
        if (e->code == EBADMSG && !x->contradicted) {
                x->contradicted = true;
                return try_again(x, UINT64_MAX, deadline, e);
        }
        if (e->code == EAGAIN || http_error_is_transient(e))
                return try_again(x, retry_after, deadline, e);
        return give_up_place(x, e);
}

/* ---- answers ---- */

static int follow(struct exchange *x, deadline_t deadline, struct error *e)
{
        _cleanup_free_ char *target = NULL;
        char masked[400];
        int r;

        if (++x->hops > HOPS_MAX)
                return error_set(e, ERROR_UNREACHABLE, ELOOP, "%s: redirected more than %d times",
                                 http_mask_url(x->url, masked, sizeof(masked)), HOPS_MAX);
        r = http_join_url(x->url, transfer_header(x->transfer, "Location", 0), &target, e);
        if (r < 0)
                return error_prefix(e, "%s: redirect", http_mask_url(x->url, masked, sizeof(masked)));
        if (!http_same_origin(x->url, target))
                x->elsewhere = true;
        free(x->url);
        x->url = steal_ptr(target);
        return send_request(x, deadline, e);
}

/* 401 at a redirect's target: it gets an anonymous token of its own, for this request only. */
static int authorize_elsewhere(struct exchange *x, deadline_t deadline, struct error *e)
{
        struct endpoint there = { .host = NULL };
        _cleanup_(secret_free_ptr) char *authorization = NULL;
        struct authorization anonymous = { .anonymous = true };
        _cleanup_free_ char *host = NULL;
        struct http_request request;
        const char *headers[2] = { NULL };
        const char *begin = strstr(x->url, "://");
        int r;

        if (!begin || x->refused_elsewhere)
                return answer_error(x->transfer, x->url, deadline, e);
        x->refused_elsewhere = true;
        host = strndup(begin + 3, strcspn(begin + 3, "/?#"));
        if (!host)
                return error_oom(e);
        there.host = host;
        there.repository = (char *) "";
        r = authorize_again(x->source->client, &there, x->kind, x->transfer, x->url, deadline, &anonymous, e);
        if (r == 0)
                r = authorize(x->source->client, &there, x->kind, deadline, &anonymous, &authorization, e);
        authorization_clear(&anonymous);
        if (r < 0)
                return r;

        headers[0] = authorization;
        fill_request(x, headers, NULL, &request);
        x->transfer = transfer_unref(x->transfer);
        return http_start(x->source->client->http, &request, &x->transfer, e);
}

static int refused(struct exchange *x, deadline_t deadline, struct error *e)
{
        int r;

        if (x->elsewhere)
                return authorize_elsewhere(x, deadline, e);
        r = authorize_again(x->source->client, endpoint_of(x), x->kind, x->transfer, x->url, deadline,
                            &x->authorization, e);
        return r < 0 ? r : send_request(x, deadline, e);
}

/* A remembered redirect target that says no has expired. */
static bool target_expired(const struct exchange *x)
{
        unsigned status;

        if (!x->remembered || x->hops > 0)
                return false;
        status = transfer_status(x->transfer);
        return status == 400 || status == 401 || status == 403 || status == 404 || status == 410;
}

/* One answer: 1 it is a success, 0 another request is under way, -errno the attempt failed. */
static int judge(struct exchange *x, deadline_t deadline, struct error *e)
{
        int r;

        r = transfer_wait_headers(x->transfer, deadline, e);
        if (r < 0)
                return r;
        x->status = transfer_status(x->transfer);
        if (target_expired(x)) {
                log_debug("the redirect target answers %u: asking the registry again", transfer_status(x->transfer));
                x->transfer = transfer_unref(x->transfer);
                return 0;
        }
        switch (answer_judge(x->transfer)) {
        case VERDICT_OK:
                return 1;
        case VERDICT_REDIRECT:
                return follow(x, deadline, e);
        case VERDICT_UNAUTHORIZED:
                return refused(x, deadline, e);
        case VERDICT_FAILED:
                if (transfer_status(x->transfer) == 403 && !x->elsewhere && x->authorization.token)
                        return refused(x, deadline, e);
                break;
        case VERDICT_AGAIN:
                break;
        }
        return answer_error(x->transfer, x->url, deadline, e);
}

int exchange_answer(struct exchange *x, deadline_t deadline, struct error *e)
{
        int r;

        for (;;) {
                r = x->transfer ? judge(x, deadline, e) : exchange_begin(x, NULL, deadline, e);
                if (r == 1) {
                        if (!is_external(x))
                                atomic_store(&x->source->current, x->endpoint);
                        if (x->plain)
                                remember_plain(x);
                        x->authorization.refusals = 0;
                        return 0;
                }
                if (r == 0)
                        continue;
                if (r == -ENOMEM)
                        return r;
                r = exchange_failed(x, deadline, e);
                if (r < 0)
                        return r;
        }
}

int exchange_read(struct exchange *x, deadline_t deadline, struct buf *ret, struct error *e)
{
        uint64_t received;
        const char *body;
        size_t n;

        for (;;) {
                int r = exchange_answer(x, deadline, e);

                if (r < 0)
                        return r;
                r = transfer_wait(x->transfer, UINT64_MAX, deadline, &received, e);
                if (r == 0)
                        break;
                r = exchange_failed(x, deadline, e);
                if (r < 0)
                        return r;
        }
        body = transfer_body(x->transfer, &n);
        return buf_append(ret, body, n) < 0 ? error_oom(e) : 0;
}
