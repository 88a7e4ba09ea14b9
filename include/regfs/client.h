/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The registry client: distribution-spec's pull side, with everything that registry.md says real registries do.
 * A client is made for one process and shared by all its references; a source is one reference of it. */

#include "regfs/blob.h"
#include "regfs/credential.h"
#include "regfs/http.h"
#include "regfs/reference.h"
#include "regfs/registries.h"
#include "regfs/token.h"

struct client;

struct client_options {
        struct http *http;                     /* borrowed, outlives the client */
        const struct registries *registries;   /* borrowed likewise */
        struct credential_options credentials; /* strings are copied */
        uint64_t timeout_ms;                   /* patience for one request with all its retries; 0: 60 s */
};

int client_new(const struct client_options *options, struct client **ret, struct error *e);
struct client *client_free(struct client *c);
DEFINE_CLEANUP(struct client *, client_free)

/* A source for REF (a registry reference with its host set). Reads mirrors and certificates; makes no request.
 * -EACCES when the registry is blocked. */
int client_source_new(struct client *c, const struct reference *ref, struct source **ret, struct error *e);

/* The repository of REF as a target (push.h); tag and digest of REF are not looked at. Pushes go to the registry
 * itself, never to a mirror. */
struct target;
int client_target_new(struct client *c, const struct reference *ref, struct target **ret, struct error *e);

/* Requests that are not blobs of the image: path below "/v2/<repository>/" ("referrers/sha256:…", "tags/list").
 * Goes through mirrors, auth, retries. Not found: -ENOENT. For later commands. */
int client_get(struct source *s, const char *path, const char *accept, size_t max, deadline_t deadline,
               struct buf *ret_body, struct error *e);
