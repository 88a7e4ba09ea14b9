/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The shared token cache: one flight for each key, every waiter woken with that flight's own result.
 *
 * The key is everything that decides what a token allows: realm, service, scopes (sorted, each once), and the identity
 * of the credential. Different tokens for the manifest and the blobs of one repository are different keys.
 *
 * The first caller of a key becomes the flight's owner and fetches in its own thread; later callers wait. Success or
 * failure wakes them all with that flight's own token or error. A failure is remembered for TOKEN_BACKOFF_MS, so that a
 * crowd does not ask a broken server one after the other, and no longer. When the owner's own deadline passes before
 * its server answers, the owner alone fails and the flight is handed to a waiter that still has time. A token is handed
 * out until TOKEN_RENEW_PERCENT of its lifetime are over; lifetimes count from receipt on the monotonic clock.
 * Thread-safe; no lock is held while a token is fetched. */

#include "regfs/base.h"
#include "regfs/error.h"
#include "regfs/thread.h"

#define TOKEN_BACKOFF_MS 1000
#define TOKEN_RENEW_PERCENT 90
#define TOKEN_DEFAULT_LIFETIME_S 60

struct token_key {
        const char *realm;
        const char *service;       /* or NULL */
        const char *const *scopes; /* NULL-terminated, any order; or NULL for none. One with spaces is several scopes */
        const char *identity;      /* of the credential: credential_identity(), "" for anonymous; never NULL */
};

struct token_cache;

int token_cache_new(struct token_cache **ret);

/* Nobody may be inside token_cache_get any more. NULL is legal. */
struct token_cache *token_cache_free(struct token_cache *c);
DEFINE_CLEANUP(struct token_cache *, token_cache_free)

/* Fetches a token for KEY until DEADLINE. On success *ret_token (malloc'd, the cache takes it) and the lifetime in
 * seconds; a token with lifetime 0 is for this flight's callers alone. The flight is handed on for -ETIMEDOUT when
 * DEADLINE has passed, and for -ECANCELED. Every other error, a server that stalls while there is time among them, is
 * the flight's result. It must not ask the cache for the same key. */
typedef int token_fetch_fn(void *context, const struct token_key *key, deadline_t deadline, char **ret_token,
                           uint64_t *ret_lifetime_s, struct error *e);

/* A token for KEY: *ret is a copy that the caller frees with secret_free. A deadline that has passed already gets the
 * token that is there, and starts no flight.
 * Returns 0, -ETIMEDOUT at DEADLINE, -EINVAL for a key without realm or identity, or the flight's own error with E. */
int token_cache_get(struct token_cache *c, const struct token_key *key, deadline_t deadline, token_fetch_fn *fetch,
                    void *context, char **ret, struct error *e);

/* Drops KEY's token if it still is TOKEN (the server refused it); a newer one stays. */
void token_cache_drop(struct token_cache *c, const struct token_key *key, const char *token);

struct token_cache_stats {
        uint64_t hits;      /* calls answered with a token that was there */
        uint64_t flights;   /* begun */
        uint64_t joins;     /* calls that found a flight in the air */
        uint64_t failures;  /* flights that ended with an error */
        uint64_t handed_on; /* times that a flight got another owner */
};
void token_cache_get_stats(struct token_cache *c, struct token_cache_stats *ret);
