/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A token_key as the cache's map and its log lines need it: a byte string that is equal for the same keys only, and
 * a line of text. */

#include "regfs/text.h"
#include "regfs/token.h"

struct token_name {
        struct buf bytes; /* every field with its end marked, scopes sorted and each once */
        struct buf label; /* "REALM, service S, scopes A B": no secret in it */
};

void token_name_clear(struct token_name *name);
#define _cleanup_token_name_ _cleanup_(token_name_clear)

/* A scope with spaces is several scopes. Returns 0; -EINVAL for a key without realm or identity; -ENOMEM. */
int token_name_init(struct token_name *name, const struct token_key *key, struct error *e);
