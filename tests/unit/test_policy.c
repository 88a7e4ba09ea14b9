/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../../cache/registry/policy.h"
#include "config_tree.h"

#define HEX "7cc4b5aefd1d0cadf8d97d4350462ba51c694ebca145b08d7d41b41acc8db5aa"
#define ACCEPT "[{\"type\": \"insecureAcceptAnything\"}]"
#define REJECT "[{\"type\": \"reject\"}]"
#define SIGNED "[{\"type\": \"signedBy\", \"keyType\": \"GPGKeys\", \"keyPath\": \"/k\"}]"
#define SIGSTORE "[{\"type\": \"sigstoreSigned\", \"keyPath\": \"/k\"}]"

#define USER_FILE "user/containers/policy.json"
#define SYSTEM_FILE "system/containers/policy.json"

static int check(const struct config_tree *t, const char *name, struct error *e)
{
        _cleanup_reference_ struct reference r = { 0 };

        *e = (struct error) ERROR_INIT;
        if (reference_parse(name, &r, e) < 0)
                fail_msg("%s", e->message);
        return policy_check_at(&t->paths, &r, e);
}

static void assert_allowed(const struct config_tree *t, const char *name)
{
        struct error e;

        if (check(t, name, &e) != 0)
                fail_msg("%s", e.message);
}

/* The message names the image's scope and the rule, and the file. */
static void assert_denied(const struct config_tree *t, const char *name, const char *scope, const char *rule)
{
        struct error e;
        int k = check(t, name, &e);

        if (k != -EACCES)
                fail_msg("%s gives %d", name, k);
        assert_int_equal(e.kind, ERROR_DENIED);
        assert_contains(e.message, scope);
        assert_contains(e.message, rule);
        assert_contains(e.message, "/containers/policy.json");
}

static void without_a_file_everything_is_allowed(void **state)
{
        assert_allowed(*state, "docker.io/library/alpine");
        assert_allowed(*state, "oci:/");
        assert_allowed(*state, "docker-archive:x.tar");
}

static void users_file_hides_the_systems(void **state)
{
        config_tree_write(*state, SYSTEM_FILE, "{\"default\": " REJECT "}");
        assert_denied(*state, "quay.io/a", "the default in", "reject");
        config_tree_write(*state, USER_FILE, "{\"default\": " ACCEPT "}");
        assert_allowed(*state, "quay.io/a");
}

static void real_home_directory_is_asked_first(void **state)
{
        const struct config_tree *t = *state;
        _cleanup_reference_ struct reference r = { 0 };
        _cleanup_free_ char *home = NULL;
        struct error e = ERROR_INIT;

        home = getenv("HOME") ? strdup(getenv("HOME")) : NULL;
        config_tree_write(t, ".config/containers/policy.json", "{\"default\": " REJECT "}");
        assert_int_equal(reference_parse("quay.io/a", &r, &e), 0);
        assert_int_equal(setenv("HOME", t->root, 1), 0);
        assert_int_equal(policy_check(&r, &e), -EACCES);
        assert_contains(e.message, t->root);
        if (home)
                assert_int_equal(setenv("HOME", home, 1), 0);
        else
                assert_int_equal(unsetenv("HOME"), 0);
}

static void default_counts_where_no_scope_does(void **state)
{
        config_tree_write(*state, USER_FILE,
                          "{\"default\": " SIGNED ", \"transports\": {"
                          " \"docker\": {\"quay.io\": " ACCEPT "},"
                          " \"docker-archive\": {\"\": " ACCEPT "},"
                          " \"docker-daemon\": {\"\": " ACCEPT "}}}");
        assert_allowed(*state, "quay.io/a");
        assert_denied(*state, "ghcr.io/a", "ghcr.io/a:latest: the default in", "signedBy");
        assert_allowed(*state, "docker-archive:x.tar:alpine:1");
        assert_denied(*state, "oci:/", "oci:/: the default in", "signedBy");
}

static void transports_default_counts_before_the_global_one(void **state)
{
        config_tree_write(*state, USER_FILE,
                          "{\"default\": " ACCEPT ", \"transports\": {"
                          " \"docker\": {\"\": " SIGSTORE "},"
                          " \"docker-archive\": {\"\": " REJECT "},"
                          " \"oci\": {}}}");
        assert_denied(*state, "quay.io/a", "the default of transport docker", "sigstoreSigned");
        assert_denied(*state, "docker-archive:x.tar", "the default of transport docker-archive", "reject");
        assert_allowed(*state, "oci:/");
}

static void most_specific_scope_of_a_registry_counts(void **state)
{
        static const struct {
                const char *name, *scope;
        } denied[] = {
                { "example.com/x", "scope \"example.com\"" },
                { "EXAMPLE.com/x", "scope \"example.com\"" },
                { "example.com/ns/other:1", "scope \"example.com/ns/other\"" },
                { "example.com/ns/tagged:bad", "scope \"example.com/ns/tagged:bad\"" },
                { "example.com/ns/tagged@sha256:" HEX, "scope \"example.com/ns/tagged@sha256:" HEX "\"" },
                { "example.com/ns/tagged:1@sha256:" HEX, "scope \"example.com/ns/tagged@sha256:" HEX "\"" },
                { "example.com:5000/x", "the default in" },
                { "notexample.com/x", "the default in" },
                { "a.wild.org/x", "scope \"*.wild.org\"" },
                { "a.wild.org:5000/x", "scope \"*.wild.org\"" },
                { "a.b.wild.org/x", "scope \"*.wild.org\"" },
                { "wild.org/x", "the default in" },
                { "a.good.wild.org.example/x", "the default in" },
        };
        static const char *const allowed[] = {
                "example.com/ns/a",
                "example.com/ns",
                "example.com/ns/tagged:good",
                "example.com/ns/otherness",
                "example.com/ns/tagged",
                "a.good.wild.org/x",
                "b.wild.org/x",
        };

        config_tree_write(*state, USER_FILE,
                          "{\"default\": " REJECT ", \"transports\": {\"docker\": {"
                          " \"example.com\": " REJECT ","
                          " \"example.com/ns\": " ACCEPT ","
                          " \"example.com/ns/other\": " REJECT ","
                          " \"example.com/ns/tagged:bad\": " REJECT ","
                          " \"example.com/ns/tagged@sha256:" HEX "\": " REJECT ","
                          " \"*.wild.org\": " REJECT ","
                          " \"*.good.wild.org\": " ACCEPT ","
                          " \"b.wild.org\": " ACCEPT "}}}");
        for (size_t i = 0; i < ELEMENTSOF(denied); i++)
                assert_denied(*state, denied[i].name, denied[i].scope, "reject");
        for (size_t i = 0; i < ELEMENTSOF(allowed); i++)
                assert_allowed(*state, allowed[i]);
}

static void docker_hub_is_matched_in_its_full_form(void **state)
{
        config_tree_write(*state, USER_FILE,
                          "{\"default\": " ACCEPT ", \"transports\": {\"docker\": {"
                          " \"docker.io/library\": " REJECT "}}}");
        assert_denied(*state, "docker.io/alpine", "docker.io/library/alpine:latest: scope \"docker.io/library\"",
                      "reject");
        assert_denied(*state, "index.docker.io/alpine", "scope \"docker.io/library\"", "reject");
        assert_allowed(*state, "docker.io/user/app");
}

static void layouts_are_matched_by_their_real_path(void **state)
{
        const struct config_tree *t = *state;
        _cleanup_free_ char *real = realpath(t->root, NULL);
        _cleanup_free_ char *link = config_tree_path(t, "link"), *layout = config_tree_path(t, "layouts/a");
        _cleanup_free_ char *text = NULL, *by_link = NULL, *by_path = NULL, *tagged = NULL;
        _cleanup_free_ char *outside = NULL, *missing = NULL;
        struct error e;

        assert_non_null(real);
        config_tree_write(t, "layouts/a/oci-layout", "{}");
        config_tree_write(t, "layouts-not/oci-layout", "{}");
        assert_int_equal(symlink(layout, link), 0);
        text = str_printf("{\"default\": " ACCEPT ", \"transports\": {\"oci\": {"
                          " \"%s/layouts\": " REJECT ", \"%s/layouts/a:good\": " ACCEPT "}}}",
                          real, real);
        by_path = str_printf("oci:%s", layout);
        by_link = str_printf("oci:%s:bad", link);
        tagged = str_printf("oci:%s:good", link);
        outside = str_printf("oci:%s/layouts-not", t->root);
        missing = str_printf("oci:%s/missing", t->root);
        assert_true(text && by_path && by_link && tagged && outside && missing);
        config_tree_write(t, USER_FILE, text);

        assert_denied(t, by_path, "/layouts\" of transport oci", "reject");
        assert_denied(t, by_link, "/layouts\" of transport oci", "reject");
        assert_allowed(t, tagged);
        assert_allowed(t, outside);
        assert_int_equal(check(t, missing, &e), -ENOENT);
        assert_contains(e.message, "/missing");
}

static void acceptance_must_stand_alone(void **state)
{
        config_tree_write(*state, USER_FILE,
                          "{\"default\": " REJECT ", \"transports\": {\"docker\": {"
                          " \"a.example\": [{\"type\": \"insecureAcceptAnything\"}, {\"type\": \"signedBy\"}],"
                          " \"b.example\": [{\"type\": \"insecureAcceptAnything\"}, {\"type\": \"reject\"}],"
                          " \"c.example\": [{\"type\": \"signedBaseLayer\"}],"
                          " \"d.example\": [{\"type\": \"fromTheFuture\"}],"
                          " \"e.example\": [{\"type\": \"insecureAcceptAnything\"}]}}}");
        assert_denied(*state, "a.example/x", "scope \"a.example\" of transport docker", "demands \"signedBy\"");
        assert_denied(*state, "b.example/x", "scope \"b.example\" of transport docker", "is \"reject\"");
        assert_denied(*state, "c.example/x", "scope \"c.example\" of transport docker", "demands \"signedBaseLayer\"");
        assert_denied(*state, "d.example/x", "scope \"d.example\" of transport docker", "demands \"fromTheFuture\"");
        assert_allowed(*state, "e.example/x");
}

static void malformed_policy_allows_nothing(void **state)
{
        static const char *const table[][2] = {
                { "", "" },
                { "[]", "not a JSON object" },
                { "{}", "default" },
                { "{\"default\": []}", "at least one" },
                { "{\"default\": {}}", "array" },
                { "{\"default\": [1]}", "type" },
                { "{\"default\": [{}]}", "type" },
                { "{\"default\": [{\"type\": 1}]}", "type" },
                { "{\"default\": [{\"type\": \"insecureAcceptAnything\", \"x\": 1}]}", "member" },
                { "{\"default\": [{\"x\": 1, \"type\": \"reject\"}]}", "member" },
                { "{\"default\": [{\"type\": \"signedBy\", \"type\": \"insecureAcceptAnything\"}]}", "" },
                { "{\"default\": " ACCEPT ", \"default\": " ACCEPT "}", "" },
                { "{\"default\": " ACCEPT ", \"extra\": 1}", "extra" },
                { "{\"default\": " ACCEPT ", \"transports\": []}", "transports" },
                { "{\"default\": " ACCEPT ", \"transports\": {\"docker\": []}}", "docker" },
                { "{\"default\": " ACCEPT ", \"transports\": {\"dir\": {\"\": []}}}", "transport dir" },
                { "{\"default\": " ACCEPT ", \"transports\": {\"docker\": {\"quay.io\": 1}}}", "quay.io" },
                { "{\"default\": " ACCEPT ", \"transports\": {\"docker\": {\"a*.io\": " REJECT "}}}", "wildcard" },
                { "{\"default\": " ACCEPT ", \"transports\": {\"docker\": {\"*.io/x\": " REJECT "}}}", "wildcard" },
                { "{\"default\": " ACCEPT ", \"transports\": {\"oci\": {\"a\": " REJECT "}}}", "absolute" },
                { "{\"default\": " ACCEPT ", \"transports\": {\"oci\": {\"/\": " REJECT "}}}", "empty one" },
                { "{\"default\": " ACCEPT ", \"transports\": {\"docker-archive\": {\"/x\": " REJECT "}}}",
                  "empty scope" },
                { "{\"default\": " ACCEPT ", \"transports\": {\"docker\": {\"a.b\": " REJECT ", \"a.b\": " ACCEPT "}}}",
                  "" },
                { "{\"default\": " ACCEPT "} // comment", "" },
        };

        for (size_t i = 0; i < ELEMENTSOF(table); i++) {
                struct error e;
                int k;

                config_tree_write(*state, USER_FILE, table[i][0]);
                k = check(*state, "quay.io/a", &e);
                if (k != -EBADMSG)
                        fail_msg("%s gives %d", table[i][0], k);
                assert_int_equal(e.kind, ERROR_BAD_DATA);
                assert_contains(e.message, "/" USER_FILE);
                assert_contains(e.message, table[i][1]);
        }
}

static void short_name_has_no_policy_yet(void **state)
{
        struct error e;

        config_tree_write(*state, USER_FILE, "{\"default\": " ACCEPT "}");
        assert_int_equal(check(*state, "alpine", &e), -EINVAL);
        assert_contains(e.message, "alpine");
}

static void error_may_be_left_out(void **state)
{
        const struct config_tree *t = *state;
        _cleanup_reference_ struct reference r = { 0 };

        config_tree_write(t, USER_FILE, "{\"default\": " REJECT "}");
        assert_int_equal(reference_parse("quay.io/a", &r, NULL), 0);
        assert_int_equal(policy_check_at(&t->paths, &r, NULL), -EACCES);
        config_tree_write(t, USER_FILE, "{");
        assert_int_equal(policy_check_at(&t->paths, &r, NULL), -EBADMSG);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TREE_TEST(without_a_file_everything_is_allowed),
                TREE_TEST(users_file_hides_the_systems),
                TREE_TEST(real_home_directory_is_asked_first),
                TREE_TEST(default_counts_where_no_scope_does),
                TREE_TEST(transports_default_counts_before_the_global_one),
                TREE_TEST(most_specific_scope_of_a_registry_counts),
                TREE_TEST(docker_hub_is_matched_in_its_full_form),
                TREE_TEST(layouts_are_matched_by_their_real_path),
                TREE_TEST(acceptance_must_stand_alone),
                TREE_TEST(malformed_policy_allows_nothing),
                TREE_TEST(short_name_has_no_policy_yet),
                TREE_TEST(error_may_be_left_out),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
