/* SPDX-License-Identifier: Apache-2.0 */

/* policy.json of any bytes, behind a line with the reference that it decides on: never does a policy allow what it
 * does not mention when its default is to refuse. */

#include "cache/registry/policy.h"
#include "fuzz.h"
#include "regfs/json.h"

/* Whether anything in the policy accepts anything. */
static bool may_accept(const struct json *v)
{
        if (str_eq(json_text(v), "insecureAcceptAnything"))
                return true;
        for (const struct json *c = json_first(v); c; c = json_next(c))
                if (may_accept(c))
                        return true;
        return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        _cleanup_(json_free_ptr) struct json *root = NULL;
        _cleanup_free_ char *line = take_line(&data, &size);
        _cleanup_reference_ struct reference ref = { 0 };
        _cleanup_free_ uint8_t *bytes = exact_bytes(data, size);
        struct error e = ERROR_INIT;
        int r;

        if (reference_parse(line, &ref, NULL) < 0)
                return 0;
        if (ref.transport == TRANSPORT_REGISTRY && !ref.host && reference_set_host(&ref, "docker.io") < 0)
                return 0;
        r = policy_check_text("policy.json", (const char *) bytes, size, &ref, &e);
        if (r < 0) {
                REQUIRE(is_told(r, &e));
                return 0;
        }
        REQUIRE(json_parse((const char *) bytes, size, &root, NULL) == 0 && may_accept(root));
        return 0;
}
