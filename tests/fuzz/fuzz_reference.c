/* SPDX-License-Identifier: Apache-2.0 */

/* References of any bytes: what is accepted is written in a way that reads the same, short names after their host is
 * known too. */

#include <limits.h>

#include "cache/registry/grammar.h"
#include "cache/registry/prefix.h"
#include "fuzz.h"
#include "regfs/reference.h"

static bool same_text(const char *a, const char *b)
{
        return a && b ? strcmp(a, b) == 0 : a == b;
}

static bool same(const struct reference *a, const struct reference *b)
{
        return a->transport == b->transport && same_text(a->host, b->host) && same_text(a->repository, b->repository) &&
               same_text(a->path, b->path) && same_text(a->tag, b->tag) && a->has_digest == b->has_digest &&
               (!a->has_digest || digest_equal(&a->digest, &b->digest));
}

static void check_round_trip(const struct reference *r)
{
        _cleanup_reference_ struct reference again = { 0 };
        _cleanup_free_ char *text = reference_format(r);
        struct error e = ERROR_INIT;

        REQUIRE(text);
        if (strlen(text) > PATH_MAX)
                return;
        REQUIRE(reference_parse(text, &again, &e) == 0);
        REQUIRE(same(r, &again));
}

static void check_parts(const struct reference *r)
{
        if (r->transport != TRANSPORT_REGISTRY) {
                REQUIRE(r->path && r->path[0] && !r->host && !r->repository && !r->has_digest);
                return;
        }
        REQUIRE(!r->path && r->repository && !grammar_check_repository(r->repository));
        REQUIRE(!r->host || !grammar_check_host(r->host));
        REQUIRE(r->tag ? !grammar_check_tag(r->tag) : r->has_digest);
}

/* A full name is what its own text as a prefix stands for. */
static void check_prefix(const struct reference *r)
{
        _cleanup_(image_name_clear) struct image_name name = { 0 };

        REQUIRE(image_name_of(r, &name) == 0);
        REQUIRE(prefix_match(name.name, &name) == strlen(name.name));
        REQUIRE(prefix_match(r->host, &name) == strlen(r->host));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        _cleanup_reference_ struct reference r = { 0 };
        _cleanup_free_ char *text = exact_text(data, size);
        struct error e = ERROR_INIT;
        int k;

        k = reference_parse(text, &r, &e);
        if (k < 0) {
                REQUIRE(k == -EINVAL && e.kind == ERROR_USAGE && is_told(k, &e));
                return 0;
        }
        check_parts(&r);
        check_round_trip(&r);
        if (r.transport != TRANSPORT_REGISTRY)
                return 0;
        if (!r.host) {
                k = reference_set_host(&r, "docker.io");
                REQUIRE(k == 0 || k == -ENAMETOOLONG);
                if (k < 0)
                        return 0;
                check_parts(&r);
                check_round_trip(&r);
        }
        check_prefix(&r);
        return 0;
}
