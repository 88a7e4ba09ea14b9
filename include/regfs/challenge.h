/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* WWW-Authenticate, as RFC 9110 section 11.6.1 writes it: several headers, several challenges in one header, quoted
 * strings with commas and escapes, token68. */

#include "regfs/base.h"
#include "regfs/error.h"

enum auth_scheme {
        AUTH_NONE,
        AUTH_BASIC,
        AUTH_BEARER,
};

/* The challenge that regfs answers. Strings are owned; NULL when the parameter is absent. */
struct challenge {
        enum auth_scheme scheme;
        char *realm;
        char *service;
        char *scope; /* as sent: possibly several scopes with spaces between */
        char *error; /* "insufficient_scope", "invalid_token", … */
};

void challenge_clear(struct challenge *c);
#define _cleanup_challenge_ _cleanup_(challenge_clear)

/* Chooses among the challenges of all COUNT header values: Bearer before Basic, the first of its kind. Unknown schemes
 * are skipped. Returns 0; -ENOENT when no header holds a scheme that regfs knows; -EBADMSG with E (which quotes the
 * header, cut to 200 bytes) when a header is malformed, a Bearer has no realm, or a parameter stands twice.
 * A malformed header is an error even if another one would do: guessing hides the culprit. */
int challenge_parse(const char *const *headers, size_t count, struct challenge *ret, struct error *e);
