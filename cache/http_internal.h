/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the files of the http module share:
 *
 *     http.c           the queue, the transfer thread, waiting for a transfer
 *     http_request.c   a request: checked, copied, turned into a libcurl handle
 *     http_answer.c    an answer as it arrives: headers, range, body → sink
 *     http_error.c     why a transfer failed, in words and as a code
 *     http_url.c       URLs
 *
 * Lock order: none, no two locks are ever held together. */

#include <curl/curl.h>
#include <stdatomic.h>
#include <sys/queue.h>

#include "regfs/http.h"
#include "regfs/text.h"

#define HTTP_MEMORY_DEFAULT MIB
#define HTTP_ERROR_BODY_MAX (64 * KIB)
#define HTTP_HEADERS_MAX (256 * KIB)

/* Certificates of the system, as libcurl was built. A directory is preferred: OpenSSL reads from it what it needs,
 * where a bundle costs tens of milliseconds for every new connection. */
struct http_trust {
        const char *directory; /* or NULL */
        const char *bundle;    /* or NULL; only used without a directory */
};

enum transfer_method { METHOD_GET, METHOD_HEAD, METHOD_POST, METHOD_PUT, METHOD_DELETE };

/* Only grows. */
enum transfer_phase { PHASE_QUEUED, PHASE_HEADERS, PHASE_DONE };

enum body_target { BODY_MEMORY, BODY_POOL, BODY_FILE, BODY_ERROR };

struct transfer_header {
        char *name; /* one allocation with the value */
        const char *value;
};

struct transfer;
TAILQ_HEAD(transfer_list, transfer);

/* A scheme, host and port, and the transfers that wait until it has a connection for them. That line is kept here,
 * since libcurl's own forgets transfers: with CURLMOPT_MAX_HOST_CONNECTIONS, version 7.88 let some sleep until an
 * unrelated timer ran out. (CURLOPT_PIPEWAIT uses the same line.) libcurl is only given what it can start at once. */
struct http_origin {
        char *key;
        unsigned running;
        unsigned limit; /* connections, or, once it is known to speak HTTP/2, streams */
        struct transfer_list waiting;
        TAILQ_ENTRY(http_origin) next;
};

TAILQ_HEAD(http_origin_list, http_origin);

struct transfer {
        /* Constant after http_start. */
        struct http *http; /* a reference */
        uint64_t request;  /* of the caller's log scope */
        enum transfer_method method;
        char *url;
        char *origin_key;
        char title[400];     /* "GET <masked URL>", for messages */
        char range_text[64]; /* " bytes 0-99", or "" */
        struct curl_slist *headers;
        char *body;
        size_t body_length;
        struct http_tls tls; /* owned strings */
        bool ranged;
        uint64_t range_offset, range_length;
        enum body_target sink; /* of a body that was asked for; not BODY_ERROR */
        uint64_t sink_max;     /* its bound */
        size_t sink_offset;
        deadline_t deadline;

        atomic_uint refs; /* the caller, and the transfer thread until PHASE_DONE */
        atomic_bool abandoned;

        /* The transfer thread's own. */
        TAILQ_ENTRY(transfer) next;    /* active; before that http's queue, guarded by its lock */
        TAILQ_ENTRY(transfer) in_line; /* the origin's, until admitted */
        struct http_origin *origin;
        bool admitted; /* left the line */
        CURL *easy;
        char curl_message[CURL_ERROR_SIZE];
        uint64_t started;   /* clock_ms */
        deadline_t stalled; /* when the patience with a silent server ends; NEVER while there is no connection */
        size_t body_sent;   /* that libcurl has taken, of a PUT */
        size_t header_bytes;
        struct pool_buf *pool_sink; /* a reference, until curl has let go */
        int file_sink;              /* a descriptor likewise, or -1 */
        enum body_target target;    /* of the body that comes */
        uint64_t target_max;
        uint64_t body_received; /* what received says, for the thread itself */
        bool cut;               /* ended on purpose, with success */
        bool finishing;         /* abandoned, but read to its end: for the connection's sake */

        /* Written by the transfer thread before PHASE_HEADERS, constant from then on. */
        bool answered;
        unsigned status;
        bool range_ignored;
        struct transfer_header *answer_headers;
        size_t answer_header_count, answer_headers_allocated;
        uint64_t content_length;
        uint64_t range_total;

        /* Written by the transfer thread before PHASE_DONE, constant from then on. */
        struct buf memory;
        struct error error; /* kind ERROR_NONE: success */
        bool unresolved;    /* failed because the host's name did not resolve */

        struct mutex lock;
        struct cond changed;
        enum transfer_phase phase GUARDED_BY(lock);
        uint64_t received GUARDED_BY(lock); /* bytes of the body in the sink */
        uint64_t wanted GUARDED_BY(lock);   /* the least that somebody waits for */
};

struct http {
        char *user_agent;
        unsigned connections_per_host;
        uint64_t connect_timeout_ms;
        uint64_t stall_timeout_ms;
        struct http_trust trust;

        atomic_uint refs; /* the owner, the thread, every transfer */
        int wake_fd;      /* eventfd; not curl_multi_wakeup, since a transfer may outlive the CURLM */
        pthread_t thread;
        CURLM *multi;                    /* the thread's own */
        struct transfer_list active;     /* the thread's own */
        struct http_origin_list origins; /* the thread's own */
        unsigned origin_count;           /* the thread's own */

        atomic_uint_fast64_t requests;
        atomic_uint_fast64_t bytes;
        atomic_uint active_count;

        struct mutex lock;
        struct cond stopped;
        struct transfer_list queue GUARDED_BY(lock);
        bool stopping GUARDED_BY(lock);
};

/* http.c */
struct http *http_unref(struct http *h);

/* The thread says how far T has come; wakes waiters. */
void transfer_answered(struct transfer *t);
void transfer_received(struct transfer *t, size_t n);

/* http_request.c */
int transfer_new(struct http *h, const struct http_request *request, struct transfer **ret, struct error *e);
struct transfer *transfer_free(struct transfer *t);
DEFINE_CLEANUP(struct transfer *, transfer_free)

/* Sets t->easy. Returns 0, or -errno with t->error. */
int transfer_make_easy(struct transfer *t);

/* Drops the sink: curl has let go of it. */
void transfer_release_sink(struct transfer *t);

void http_trust_find(struct http_trust *ret);

/* http_answer.c: libcurl's callbacks; the first one says that the connection is there. */
int transfer_on_connection(void *data, char *ip, char *local_ip, int port, int local_port);
size_t transfer_on_header(char *line, size_t size, size_t n, void *data);
size_t transfer_on_body(char *data, size_t size, size_t n, void *arg);

/* The body of a PUT, as libcurl takes it. It is sent once: where a connection that was used before broke, libcurl would
 * send it again, though the server may have taken a part of it. */
size_t transfer_on_send(char *out, size_t size, size_t n, void *arg);
int transfer_on_rewind(void *arg, curl_off_t offset, int origin);

/* Sets t->error to what became of T, given how libcurl ended it. */
void transfer_conclude(struct transfer *t, CURLcode code);

/* http_error.c */
void transfer_fail(struct transfer *t, enum error_kind kind, int code, const char *format, ...) _printf_(4, 5);

/* Sets t->error from libcurl's CODE (not CURLE_OK) and message. */
void transfer_fail_curl(struct transfer *t, CURLcode code);

/* Copies T's failure to E; returns -code. Looks closer at a name that does not resolve: in the caller's thread. */
int transfer_explain(const struct transfer *t, struct error *e);

/* http_url.c: http or https, a host, no user info. Returns 0 or -EINVAL with E. */
int http_check_url(const char *url, struct error *e);

/* The host of URL without brackets: the caller frees it. NULL when there is none. */
char *http_url_host(const char *url);

/* "https://host:443": the caller frees it. NULL when out of memory. */
char *http_url_origin(const char *url);
