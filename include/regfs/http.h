/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The transfer thread: one CURLM, owned by one thread; everybody else queues requests and waits for bytes.
 *
 * One transfer is one request and one answer: redirects are not followed, nothing is tried again, no credentials are
 * added here; the registry client does that. Only http and https. "Accept-Encoding: identity" always. Proxies come from
 * libcurl's environment variables. A body goes to exactly one sink that is bounded when the request is made, so a
 * transfer never has to be paused:
 *
 *  - memory (the default): at most max_body bytes, kept in the transfer;
 *  - a pool buffer: the transfer keeps its own reference until curl has let go of it, however early the caller leaves;
 *  - a file: written in order from its position 0.
 *
 * The pool buffer and the file get the body of a 200 or 206 only, max_body is for any 2xx; every other body goes to
 * memory (cut at 64 KiB), to be quoted in an error. A body past its bound, or past its range, ends the transfer with
 * -EFBIG.
 *
 * At most connections_per_host requests run at a time for each scheme, host and port (32 once it speaks HTTP/2); the
 * others wait in line, within their deadline.
 *
 * No worker blocks the transfer thread; a transfer is refcounted, shared by its caller and the transfer thread.
 * Fork before http_new: it starts a thread and initialises libcurl. Thread-safe. */

#include "regfs/base.h"
#include "regfs/error.h"
#include "regfs/pool.h"
#include "regfs/thread.h"

struct http;

struct http_options {
        const char *user_agent;        /* NULL: "regfs/VERSION" */
        unsigned connections_per_host; /* 0: 6 */
        uint64_t connect_timeout_ms;   /* 0: 10 s, name and TLS included */
        uint64_t stall_timeout_ms;     /* 0: 20 s without a byte end a transfer with -ETIMEDOUT */
};

/* What to trust and who to be, for one host. Borrowed for the call that takes it; contents are copied. */
struct http_tls {
        bool insecure;           /* do not verify the peer */
        const char *ca_pem;      /* certificates to trust besides the system's, PEM, or NULL */
        const char *client_cert; /* paths of a client pair, or NULL */
        const char *client_key;
};

struct http_request {
        const char *method;         /* "GET", "HEAD", "POST", "PUT", "DELETE" */
        const char *url;            /* http:// or https://; user info is refused */
        const char *const *headers; /* "Name: value" …, NULL-terminated; or NULL. Copied */
        const void *body;           /* of a POST or PUT; copied. Sent with its Content-Length, at once */
        size_t body_length;
        const struct http_tls *tls; /* or NULL: the system's trust */

        bool ranged; /* send "Range: bytes=offset-(offset+length-1)"; see transfer_wait_headers */
        uint64_t range_offset;
        uint64_t range_length; /* > 0 */

        size_t max_body;       /* memory sink: 0 = 1 MiB */
        struct pool_buf *sink; /* pool sink, or NULL: the body goes to [sink_offset, sink_offset + sink_capacity) */
        size_t sink_offset;
        size_t sink_capacity;
        int sink_fd;          /* file sink: a descriptor (duplicated), or -1 */
        uint64_t sink_fd_max; /* its bound in bytes */

        deadline_t deadline; /* the transfer ends with -ETIMEDOUT then */
};

#define HTTP_REQUEST_INIT                                                  \
        {                                                                  \
                .method = "GET", .sink_fd = -1, .deadline = DEADLINE_NEVER \
        }

int http_new(const struct http_options *options, struct http **ret, struct error *e);

/* Ends every transfer with -ESHUTDOWN, those that are yet to begin and pauses between them, too: who waits for them
 * comes to an end. http_free still has to follow. */
void http_stop(struct http *h);

/* Waits for MS before something is tried again, or until http_stop. */
void http_pause(struct http *h, uint64_t ms);

/* http_stop, and the end of the thread. NULL is legal. */
struct http *http_free(struct http *h);
DEFINE_CLEANUP(struct http *, http_free)

struct transfer;

/* Queues a request. Returns 0 with one reference for the caller, or -errno with E: -EINVAL for a bad URL, a malformed
 * header, a range larger than its sink; -ENOMEM, -ESHUTDOWN. Log lines have the caller's request number. */
int http_start(struct http *h, const struct http_request *request, struct transfer **ret, struct error *e);

/* Gives up the caller's reference. When the transfer still runs, it is ended soon after, by the transfer thread; its
 * sink stays referenced until then. (The short rest of a body in memory is read first, for a second at most, since to
 * end a transfer ends its HTTP/1.1 connection.) May be called after http_free. NULL is legal. Returns NULL. */
struct transfer *transfer_unref(struct transfer *t);
DEFINE_CLEANUP(struct transfer *, transfer_unref)

/* Waits until status line and headers are there, at most until DEADLINE (the caller's; the transfer goes on).
 * Returns 0, or -errno with E when the transfer failed before that. Failures are of kind UNREACHABLE: E names URL
 * (masked) and what libcurl said; a certificate that is not trusted, a name that does not resolve, a refused
 * connection, each with its own words and code (-ENOTCONN family: ECONNREFUSED, ECONNRESET, EHOSTUNREACH, ETIMEDOUT,
 * EPROTO for TLS). ENXIO: the name does not exist; EHOSTUNREACH: it cannot be resolved just now. To tell these two,
 * the caller's thread asks the resolver once more.
 *
 * A ranged request counts as answered by 206 with exactly the Content-Range asked for, or by 200 when the range
 * starts at 0 and Content-Length equals its length. transfer_range_ignored() tells a 200 that sends everything (the
 * body is not read then, transfer_wait returns -EOPNOTSUPP); a 206 with another range, or without a range asked for,
 * fails with -EBADMSG (kind BAD_DATA), and so do headers of more than 256 KiB. */
int transfer_wait_headers(struct transfer *t, deadline_t deadline, struct error *e);

/* Waits until N bytes of the body have reached the sink, or all of it; at most until DEADLINE. *ret_received gets the
 * count so far, also on error. Returns 0 or -errno with E: a body shorter than Content-Length is -ECONNRESET. */
int transfer_wait(struct transfer *t, uint64_t n, deadline_t deadline, uint64_t *ret_received, struct error *e);

/* The following are valid after transfer_wait_headers returned 0. Strings are borrowed from the transfer. */
unsigned transfer_status(const struct transfer *t);
bool transfer_range_ignored(const struct transfer *t);

/* The Nth (from 0) header of that name, any case; NULL when there is none. */
const char *transfer_header(const struct transfer *t, const char *name, unsigned n);

/* Content-Length, or UINT64_MAX when absent; total size from Content-Range (also of a 416), or UINT64_MAX. */
uint64_t transfer_content_length(const struct transfer *t);
uint64_t transfer_range_total(const struct transfer *t);

/* Retry-After in ms from now (seconds or date, never negative, clamped to 1 hour), or UINT64_MAX when absent. */
uint64_t transfer_retry_after(const struct transfer *t);

/* The memory sink, complete after transfer_wait(t, UINT64_MAX, …) returned 0. NUL-terminated behind its length. */
const char *transfer_body(const struct transfer *t, size_t *ret_length);

/* True when E's code is a failure that may go away: connection refused, reset, timed out, name not resolved now. */
bool http_error_is_transient(const struct error *e);

/* Copies URL without user info and with the values of its query replaced by "…", cut at SIZE: for logs and errors. */
char *http_mask_url(const char *url, char *out, size_t size);

/* Joins a possibly relative LOCATION to BASE. Only http and https results without user info; the fragment is dropped.
 * The caller frees *ret. Returns 0, -ENOMEM, or -EINVAL with E. */
int http_join_url(const char *base, const char *location, char **ret, struct error *e);

/* Same scheme, host and port. */
bool http_same_origin(const char *a, const char *b);

struct http_stats {
        uint64_t requests; /* sent */
        uint64_t bytes;    /* of bodies received */
        unsigned active;   /* transfers in line or running; 0: no sink is held any more */
};
void http_get_stats(struct http *h, struct http_stats *ret);
