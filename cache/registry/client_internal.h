/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the files of the registry client share:
 *
 *     client.c       clients, what they remember, and sources: manifests, tags
 *     remote_blob.c  blobs by range
 *     exchange.c     one request, patiently: endpoints, redirects, retries
 *     authorize.c    which Authorization goes with it: challenges, tokens
 *     answer.c       what an answer that is no success means
 *     referrers.c    what names a manifest as its subject
 *     push.c         a repository as a target */

#include <stdatomic.h>

#include "regfs/challenge.h"
#include "regfs/client.h"
#include "regfs/map.h"

/* What is asked for. Registries may want different tokens for each of them. */
enum request_kind {
        REQUEST_MANIFEST,
        REQUEST_BLOB,
        REQUEST_OTHER,
        REQUEST_PUSH, /* whatever is asked to write: its token is no other's */
};

/* Lock order: `lock` is a leaf. */
struct client {
        struct http *http;
        const struct registries *registries;
        char *creds;
        char *authfile;
        uint64_t timeout_ms;
        struct token_cache *tokens;
        struct mutex lock;
        struct map *challenges GUARDED_BY(lock); /* "host repository kind" → struct challenge that its requests met */
        struct map *credentials GUARDED_BY(lock); /* "host repository" → struct credential */
        struct map *plain_hosts GUARDED_BY(lock); /* insecure hosts that turned out to speak http */
};

/* One reference at its endpoints. */
struct registry_source {
        struct source source;
        struct client *client;
        struct reference reference;
        struct endpoints endpoints;
        atomic_size_t current;        /* the endpoint that served last */
        atomic_uint_fast64_t doubted; /* bit per endpoint that sent wrong bytes: asked first no more */
};

/* ---- client.c ---- */

#define ENDPOINTS_MAX 48 /* of one source; exchanges have a bit for each, and for the external urls */

int challenge_copy(const struct challenge *c, struct challenge *ret);

/* The challenge that earlier requests of KIND to ENDPOINT met; *RET is left alone when there was none. 0 or -ENOMEM. */
int client_recall(struct client *c, const struct endpoint *endpoint, enum request_kind kind, struct challenge *ret);
int client_remember(struct client *c, const struct endpoint *endpoint, enum request_kind kind,
                    const struct challenge *challenge);
void client_forget(struct client *c, const struct endpoint *endpoint, enum request_kind kind);

/* The credential for ENDPOINT. Files are read and helpers run for the first request only: *RET_KNOWN tells a later
 * one. */
int client_credential(struct client *c, const struct endpoint *endpoint, struct credential *ret, bool *ret_known,
                      struct error *e);

/* From now on CREDENTIAL is used for ENDPOINT; NULL: whatever is found at the next request. 0 or -ENOMEM. */
int client_keep_credential(struct client *c, const struct endpoint *endpoint, const struct credential *credential);

/* ---- authorize.c ---- */

/* How one request is authorised; kept across its attempts. */
struct authorization {
        struct challenge challenge; /* the one that is answered; scheme AUTH_NONE: none so far */
        char *token;                /* of a Bearer header that was sent, to tell a refused one from a newer one */
        bool anonymous;    /* without credentials, whatever there are: for another host, or after they were refused */
        bool known;        /* the credentials are those of an earlier request: they may have expired since */
        unsigned refusals; /* how often the peer refused this request */
};

void authorization_clear(struct authorization *a);

/* The "Authorization: …" line for a request of KIND to ENDPOINT, from what earlier requests met; *RET NULL where
 * nothing is known to be needed. May fetch a token. The caller frees with secret_free. */
int authorize(struct client *c, const struct endpoint *endpoint, enum request_kind kind, deadline_t deadline,
              struct authorization *a, char **ret, struct error *e);

/* The peer answered 401, or 403 to a token. Returns 0 when the request is worth another try; -EACCES with E when
 * not. */
int authorize_again(struct client *c, const struct endpoint *endpoint, enum request_kind kind, struct transfer *answer,
                    const char *url, deadline_t deadline, struct authorization *a, struct error *e);

/* ---- answer.c ---- */

enum verdict {
        VERDICT_OK,       /* 2xx */
        VERDICT_REDIRECT, /* 3xx with a Location */
        VERDICT_UNAUTHORIZED,
        VERDICT_AGAIN,  /* 408, 429, 5xx: later */
        VERDICT_FAILED, /* for good */
};

enum verdict answer_judge(const struct transfer *t);

/* Puts an answer that is no success into words: status, URL, and what the registry's error body says. The kind
 * follows from the status. DEADLINE bounds the wait for the body. */
int answer_error(struct transfer *t, const char *url, deadline_t deadline, struct error *e);

/* A token server's answer, {"token": …} or {"access_token": …}, and "expires_in" (authorize.c). Outputs as those of
 * token_fetch_fn; the token is fit for a header. */
int answer_token(struct transfer *answer, const char *url, deadline_t deadline, char **ret_token,
                 uint64_t *ret_lifetime_s, struct error *e);

/* The target of the link to the next page, as it stands in the answer (referrers.c); the caller frees. NULL when there
 * is none, or no memory. */
char *answer_next_link(const struct transfer *answer);

/* ---- exchange.c ---- */

#define EXTERNAL_URLS_MAX 16

/* One request to the registry, with everything that may have to be tried before it is answered. */
struct exchange {
        struct registry_source *source;
        enum request_kind kind;
        const char *method;
        const char *path;         /* below /v2/<repository>/ */
        const char *accept;       /* or NULL */
        const char *upload;       /* or NULL: asked instead of the path; where the registry wants an upload to go */
        const char *content_type; /* of the body, or NULL */
        const void *body;         /* of a PUT: sent with each attempt */
        size_t body_length;
        bool once;   /* what fails is tried again by the caller, from further back */
        bool by_tag; /* a mirror may serve digests only */
        size_t max_body;
        bool ranged;
        uint64_t offset, length;
        struct pool_buf *sink; /* or NULL: memory */
        size_t sink_offset;
        int sink_fd; /* or -1 */
        uint64_t sink_fd_max;
        char *const *external; /* a foreign layer's urls: asked when the registry does not have it; or NULL */

        struct transfer *transfer; /* under way, or answered */
        size_t endpoint;           /* asked now; past the endpoints: external[endpoint - count] */
        uint64_t given_up;         /* bit per endpoint that said no for good */
        char *url;                 /* asked now */
        bool elsewhere;            /* url is a redirect's target on another origin */
        bool plain;                /* an insecure endpoint is tried in plain http */
        bool remembered;           /* url is a target that an earlier request was redirected to */
        unsigned hops;
        unsigned status;    /* of the last request's answer; 0: none */
        unsigned attempts;  /* failures that may go away, so far */
        bool contradicted;  /* an answer was none to the request; another one is no longer put down to chance */
        struct error cause; /* the last of them */
        struct authorization authorization;
        bool refused_elsewhere; /* a redirect's target has been asked with a token of its own */
};

#define EXCHANGE_INIT                          \
        {                                      \
                .method = "GET", .sink_fd = -1 \
        }

void exchange_clear(struct exchange *x);
#define _cleanup_exchange_ _cleanup_(exchange_clear)

/* Sends the request, without waiting for its answer; a token may have to be fetched first. TARGET: where an earlier
 * request for the same thing was redirected to, or NULL. */
int exchange_begin(struct exchange *x, const char *target, deadline_t deadline, struct error *e);

/* Waits for an answer of 2xx, trying whatever is worth trying until DEADLINE. x->transfer has it then. */
int exchange_answer(struct exchange *x, deadline_t deadline, struct error *e);

/* exchange_answer, and the whole body, appended to *RET. */
int exchange_read(struct exchange *x, deadline_t deadline, struct buf *ret, struct error *e);

/* The body broke off, or the attempt failed otherwise: E, which says why, decides whether another one is worth it.
 * Returns 0 after a pause, with the next attempt chosen (exchange_begin sends it), or the error for good. */
int exchange_failed(struct exchange *x, deadline_t deadline, struct error *e);

/* ---- referrers.c ---- */

/* As source_referrers. */
int registry_referrers(struct source *source, const struct digest *subject, deadline_t deadline,
                       struct descriptor **ret, size_t *ret_count, struct error *e);

/* ---- remote_blob.c ---- */

int registry_blob_new(struct registry_source *s, const struct descriptor *descriptor, struct blob **ret,
                      struct error *e);
