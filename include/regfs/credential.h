/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Who we are to a registry: --creds, auth.json of podman and skopeo (containers-auth.json(5)), docker's config.json,
 * credential helpers. The order of sources is that of registry.md "Credentials". */

#include "regfs/base.h"
#include "regfs/error.h"

struct credential {
        char *user; /* NULL: anonymous, or identity_token alone */
        char *secret;
        char *identity_token; /* oauth2 refresh token, or NULL */
};

/* Overwrites the secrets. */
void credential_clear(struct credential *c);
#define _cleanup_credential_ _cleanup_(credential_clear)

static inline bool credential_is_anonymous(const struct credential *c)
{
        return !c->user && !c->identity_token;
}

/* "USER:PASSWORD" → credential. -EINVAL with E for a text without a colon or user; the secret is not quoted. */
int credential_parse(const char *s, struct credential *ret, struct error *e);

/* A text that is equal for equal credentials only: "" for anonymous, otherwise hex of a keyed hash (the key is random
 * per process): fit for a map key and for logs. The caller frees; NULL when out of memory. */
char *credential_identity(const struct credential *c);

struct broker;

struct credential_options {
        const char *creds;    /* --creds, or NULL; taken for any host: leave it out for all but the reference's own */
        const char *authfile; /* --authfile, or NULL: $REGISTRY_AUTH_FILE, then the default files */
};

/* Looks for the credential of HOST (as written in references: "docker.io", "localhost:5000") and REPOSITORY
 * ("library/alpine"). Nothing found is success with an anonymous credential. A file that is named by option or
 * $REGISTRY_AUTH_FILE must exist, and is the only one; default files may be absent; a malformed or unreadable one is
 * an error that names it; an empty one holds nothing.
 * docker.io is also looked up as "https://index.docker.io/v1/", "index.docker.io", "registry-1.docker.io".
 * Helpers: "docker-credential-NAME get" with the host on standard input, 30 s limit; its failure is an error that
 * quotes the first line of what it wrote, unless that may be a secret. Nothing is cached: each call reads the files,
 * and starts the helper, again. May fork; never call it from the FUSE or transfer threads.
 * Returns 0 or -errno with E (kind DENIED for a failing helper). */
int credential_find(const struct credential_options *options, const char *host, const char *repository,
                    struct credential *ret, struct error *e);

/* The files in which credential_find may look, in its order: at most as many, NULL where there is no such place. The
 * caller frees each, also those of a call that failed. */
#define CREDENTIAL_FILES_MAX 3
int credential_files(const struct credential_options *options, char *ret[CREDENTIAL_FILES_MAX], struct error *e);

/* From now on credential_find has BROKER (broker.h) read files and run helpers; NULL: it does so itself again. BROKER is
 * borrowed. Nobody may be inside of credential_find. */
void credential_use_broker(struct broker *broker);
