/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Where a reference is to be looked for: registries.conf(5) version 2, certs.d, policy.json, as podman and skopeo read
 * them. What registries_load returns is never changed again: any thread may use it. */

#include "regfs/base.h"
#include "regfs/error.h"
#include "regfs/reference.h"

struct registries;

struct registries_options {
        const char *conf; /* --registries-conf: this file alone. NULL: $CONTAINERS_REGISTRIES_CONF, else
                               * ~/.config/containers/registries.conf, else /etc/containers/registries.conf; then the
                               * drop-ins of /etc/containers/registries.conf.d (unless the file is that of ~/.config)
                               * and of ~/.config/containers/registries.conf.d */
        bool plain_http;  /* --plain-http: http for every registry named by the command line */
        int tls_verify;   /* --tls-verify: -1 not given, 0 false (as insecure = true), 1 true (overrules the file).
                               * Like plain_http for the primary, and for a mirror at the host of the reference */
};

/* No file at all is success, but one named by option or environment must exist. A malformed one: -EBADMSG with the file
 * and the line, or the table and the key. */
int registries_load(const struct registries_options *options, struct registries **ret, struct error *e);
struct registries *registries_free(struct registries *r);
DEFINE_CLEANUP(struct registries *, registries_free)

/* One place to ask, in order. Owned strings. */
struct endpoint {
        char *host;            /* "registry-1.docker.io", "localhost:5000": what the URL names */
        char *repository;      /* there: "mirror/library/alpine" */
        char *credential_host; /* under which credentials are kept: "docker.io", "localhost:5000" */
        char *credential_repository;
        bool insecure;   /* TLS without verification, and http when https does not answer there */
        bool plain_http; /* http at once */
        bool is_mirror;
        bool pull_by_tag;    /* pull-from-mirror: may be asked for tags */
        bool pull_by_digest; /* … for digests */
        char *ca_pem;        /* from certs.d: all *.crt, or NULL */
        char *client_cert;   /* paths, or NULL */
        char *client_key;
};

struct endpoints {
        struct endpoint *items;
        size_t count;
};

void endpoints_clear(struct endpoints *e);
#define _cleanup_endpoints_ _cleanup_(endpoints_clear)

/* Candidates for a short name, best first: an alias, else each of unqualified-search-registries, else docker.io.
 * A full name gives itself, and so does another transport's. Tag and digest stay. Items are full references; the caller
 * clears each and frees the array. -EINVAL (USAGE) with E: the list of registries is empty, or ambiguous under
 * short-name-mode = "enforcing". */
int registries_resolve(const struct registries *r, const struct reference *name, struct reference **ret,
                       size_t *ret_count, struct error *e);

/* Mirrors in their order, the primary last; all of them, whether they suit a tag or not (pull_by_tag, pull_by_digest).
 * REF is full (host set). A blocked registry: -EACCES (kind DENIED).
 * docker.io's primary is registry-1.docker.io. Reads certs.d for each endpoint's host. */
int registries_endpoints(const struct registries *r, const struct reference *ref, struct endpoints *ret,
                         struct error *e);

/* Reads policy.json (~/.config/containers, then /etc/containers; neither there: allowed). regfs verifies no signatures:
 * where the policy for REF is not insecureAcceptAnything alone, -EACCES (kind DENIED) naming file and rule. A malformed
 * file: -EBADMSG. REF is full; an image layout must exist, since scopes are paths without symbolic links. */
int policy_check(const struct reference *ref, struct error *e);
