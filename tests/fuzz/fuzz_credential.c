/* SPDX-License-Identifier: Apache-2.0 */

/* auth.json and config.json of any bytes, and what a credential helper may write. The input's first byte chooses; a file
 * follows two lines with the host and the repository that are looked for in it. No helper is ever found. */

#include <stdlib.h>

#include "cache/auth/credential_internal.h"
#include "fuzz.h"

static void check_credential(struct credential *c)
{
        _cleanup_free_ char *identity = credential_identity(c);

        REQUIRE(identity && (identity[0] == '\0') == credential_is_anonymous(c));
        REQUIRE(c->user ? c->secret && c->user[0] : !c->secret);
        credential_clear(c);
}

static void find_in_file(const uint8_t *data, size_t size)
{
        _cleanup_free_ char *host = take_line(&data, &size), *repository = take_line(&data, &size);
        struct credential_subject subject = { .host = host, .repository = repository, .helper_limit_ms = 10000 };
        _cleanup_close_ int fd = memory_file(data, size);
        struct credential c = { 0 };
        struct error e = ERROR_INIT;
        char path[MEMORY_PATH_MAX];
        int r = credential_file_find(memory_path(fd, path), false, &subject, &c, &e);

        if (r < 0)
                REQUIRE(is_told(r, &e) && credential_is_anonymous(&c));
        else
                check_credential(&c);
}

static void read_answer(const uint8_t *data, size_t size)
{
        _cleanup_free_ uint8_t *bytes = exact_bytes(data, size);
        struct credential c = { 0 };
        const char *why = NULL;
        int r = credential_answer_parse((const char *) bytes, size, &c, &why);

        if (r < 0)
                REQUIRE(r == -EBADMSG && why && credential_is_anonymous(&c));
        else
                check_credential(&c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static bool prepared;

        if (!prepared)
                REQUIRE(setenv("PATH", "/proc/self/fd/none", 1) == 0);
        prepared = true;
        if (take_byte(&data, &size) & 1)
                read_answer(data, size);
        else
                find_in_file(data, size);
        return 0;
}
