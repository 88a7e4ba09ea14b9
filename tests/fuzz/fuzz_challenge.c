/* SPDX-License-Identifier: Apache-2.0 */

/* WWW-Authenticate headers of any bytes, one a line; and what the token cache makes of the challenge that is chosen. */

#include "cache/auth/token_name.h"
#include "fuzz.h"
#include "regfs/challenge.h"

#define HEADERS_MAX 8

static int name_of(const struct challenge *c, const char *const *scopes, struct token_name *ret)
{
        const struct token_key key = { .realm = c->realm, .service = c->service, .scopes = scopes, .identity = "" };

        return token_name_init(ret, &key, NULL);
}

/* The same scopes are the same token, however often they stand there. */
static void check_name(const struct challenge *c)
{
        _cleanup_token_name_ struct token_name once = { 0 }, twice = { 0 };
        const char *const one[] = { c->scope, NULL }, *const two[] = { c->scope, c->scope, NULL };

        REQUIRE(name_of(c, one, &once) == 0 && name_of(c, c->scope ? two : one, &twice) == 0);
        REQUIRE(once.bytes.len == twice.bytes.len && memcmp(once.bytes.data, twice.bytes.data, once.bytes.len) == 0);
        REQUIRE(strcmp(once.label.data, twice.label.data) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        _cleanup_challenge_ struct challenge c = { 0 };
        struct error e = ERROR_INIT;
        char *headers[HEADERS_MAX];
        size_t count = 0;
        int r;

        while (size > 0 && count < HEADERS_MAX)
                headers[count++] = take_line(&data, &size);
        r = challenge_parse((const char *const *) headers, count, &c, &e);
        for (size_t i = 0; i < count; i++)
                free(headers[i]);
        if (r < 0) {
                REQUIRE((r == -ENOENT || r == -EBADMSG) && is_told(r, &e) && c.scheme == AUTH_NONE);
                return 0;
        }
        REQUIRE(c.scheme == AUTH_BASIC || c.scheme == AUTH_BEARER);
        REQUIRE(c.scheme == AUTH_BASIC || (c.realm && c.realm[0]));
        if (c.scheme == AUTH_BEARER)
                check_name(&c);
        return 0;
}
