/* SPDX-License-Identifier: Apache-2.0 */

/* registries.conf of any bytes, behind a line with the reference that is looked for in it. */

#include "cache/registry/conf.h"
#include "cache/registry/grammar.h"
#include "fuzz.h"
#include "regfs/toml.h"

static void walk(const struct toml *v)
{
        int64_t number;
        bool flag;

        REQUIRE((toml_text(v) != NULL) == (toml_type(v) == TOML_STRING));
        REQUIRE((toml_bool(v, &flag) == 0) == (toml_type(v) == TOML_BOOL));
        REQUIRE((toml_integer(v, &number) == 0) == (toml_type(v) == TOML_INTEGER));
        for (const struct toml *c = toml_first(v); c; c = toml_next(c)) {
                if (toml_type(v) == TOML_TABLE)
                        REQUIRE(toml_member(v, toml_name(c)) == c);
                walk(c);
        }
}

static void check_toml(const uint8_t *data, size_t size)
{
        _cleanup_free_ uint8_t *bytes = exact_bytes(data, size);
        _cleanup_(toml_free_ptr) struct toml *root = NULL;
        struct error e = ERROR_INIT;
        int r = toml_parse((const char *) bytes, size, &root, &e);

        if (r < 0)
                REQUIRE(r == -EBADMSG && is_told(r, &e) && strncmp(e.message, "line ", 5) == 0);
        else
                walk(root);
}

static void check_endpoints(const struct registries *registries, const struct reference *full)
{
        _cleanup_endpoints_ struct endpoints endpoints = { 0 };
        struct error e = ERROR_INIT;
        int r = registries_endpoints(registries, full, &endpoints, &e);

        if (r < 0) {
                REQUIRE(is_told(r, &e));
                return;
        }
        REQUIRE(endpoints.count > 0);
        for (size_t i = 0; i < endpoints.count; i++) {
                const struct endpoint *x = &endpoints.items[i];

                REQUIRE(x->is_mirror == (i + 1 < endpoints.count));
                REQUIRE(!grammar_check_host(x->host) && !grammar_check_repository(x->repository));
                REQUIRE(x->credential_host && x->credential_repository);
        }
}

static void look_for(const struct registries *registries, const struct reference *name)
{
        struct reference *found = NULL;
        struct error e = ERROR_INIT;
        size_t count = 0;
        int r = registries_resolve(registries, name, &found, &count, &e);

        if (r < 0) {
                REQUIRE(is_told(r, &e));
                return;
        }
        REQUIRE(count > 0);
        for (size_t i = 0; i < count; i++) {
                if (found[i].transport == TRANSPORT_REGISTRY) {
                        REQUIRE(found[i].host && !grammar_check_repository(found[i].repository));
                        check_endpoints(registries, &found[i]);
                }
                reference_clear(&found[i]);
        }
        free(found);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static char none[] = "/proc/self/fd/none";
        struct config_paths nowhere = { .system = none };
        _cleanup_(registries_free_ptr) struct registries *registries = NULL;
        _cleanup_free_ char *line = take_line(&data, &size);
        _cleanup_close_ int fd = memory_file(data, size);
        struct registries_options options = { .tls_verify = -1 };
        _cleanup_reference_ struct reference name = { 0 };
        struct error e = ERROR_INIT;
        char path[MEMORY_PATH_MAX];
        int r;

        check_toml(data, size);
        options.conf = memory_path(fd, path);
        r = registries_load_at(&nowhere, &options, &registries, &e);
        if (r < 0)
                REQUIRE(r == -EBADMSG && is_told(r, &e));
        else if (reference_parse(line, &name, NULL) == 0)
                look_for(registries, &name);
        return 0;
}
