/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cache/auth/token_name.h"

#define SCOPES(...)               \
        (const char *const[])     \
        {                         \
                __VA_ARGS__, NULL \
        }

static bool names_equal(const struct token_key *x, const struct token_key *y)
{
        _cleanup_token_name_ struct token_name a = {}, b = {};

        assert_int_equal(token_name_init(&a, x, NULL), 0);
        assert_int_equal(token_name_init(&b, y, NULL), 0);
        return a.bytes.len == b.bytes.len && memcmp(a.bytes.data, b.bytes.data, a.bytes.len) == 0;
}

static void scopes_are_a_set_however_they_are_written(_unused_ void **state)
{
        const struct token_key keys[] = {
                { "https://h/t", "s", SCOPES("b", "a"), "id" },
                { "https://h/t", "s", SCOPES("a", "b"), "id" },
                { "https://h/t", "s", SCOPES("a", "b", "a"), "id" },
                { "https://h/t", "s", SCOPES("a b"), "id" },
                { "https://h/t", "s", SCOPES(" b  a "), "id" },
                { "https://h/t", "s", SCOPES("", "b a", "b", " "), "id" },
        };

        for (size_t i = 1; i < ELEMENTSOF(keys); i++)
                assert_true(names_equal(&keys[0], &keys[i]));
}

static void keys_without_scopes_are_the_same(_unused_ void **state)
{
        const struct token_key keys[] = {
                { "https://h/t", NULL, NULL, "" },
                { "https://h/t", NULL, (const char *const[]) { NULL }, "" },
                { "https://h/t", NULL, SCOPES(" ", ""), "" },
        };

        for (size_t i = 1; i < ELEMENTSOF(keys); i++)
                assert_true(names_equal(&keys[0], &keys[i]));
}

static void keys_that_differ_in_anything_are_different(_unused_ void **state)
{
        const struct token_key keys[] = {
                { "r", "s", SCOPES("a", "b"), "i" },
                { "R", "s", SCOPES("a", "b"), "i" },
                { "r", "S", SCOPES("a", "b"), "i" },
                { "r", NULL, SCOPES("a", "b"), "i" },
                { "r", "", SCOPES("a", "b"), "i" },
                { "r", "s", SCOPES("a", "b"), "I" },
                { "r", "s", SCOPES("a", "b"), "" },
                { "r", "s", SCOPES("a"), "i" },
                { "r", "s", SCOPES("b"), "i" },
                { "r", "s", SCOPES("ab"), "i" },
                { "r", "s", SCOPES("a,b"), "i" },
                { "r", "s", SCOPES("a", "B"), "i" },
                { "r", "s", SCOPES("aa"), "i" },
                { "r", "s", SCOPES("aa", "ab"), "i" },
                { "r", "s", SCOPES("a", "b", "c"), "i" },
                { "r", "s", NULL, "i" },
                { "rs", "", NULL, "i" },
                { "rs", NULL, NULL, "i" },
                { "r", "", NULL, "si" },
                { "r", "si", NULL, "" },
                { "r", "s", SCOPES("i"), "" },
                { "r", NULL, SCOPES("s", "i"), "" },
                { "r+s", NULL, NULL, "" },
                { "r", "s-", NULL, "" },
                { "r", "-", NULL, "" },
        };

        for (size_t i = 0; i < ELEMENTSOF(keys); i++)
                for (size_t j = 0; j < ELEMENTSOF(keys); j++)
                        if (names_equal(&keys[i], &keys[j]) != (i == j))
                                fail_msg("keys %zu and %zu", i, j);
}

static void an_incomplete_key_is_refused(_unused_ void **state)
{
        static const struct token_key keys[] = {
                { .realm = "r" }, /* what credential_identity gives without memory must not mean "anonymous" */
                { .identity = "" },
                { .realm = "", .identity = "" },
        };

        for (size_t i = 0; i < ELEMENTSOF(keys); i++) {
                _cleanup_token_name_ struct token_name name = {};
                struct error e = ERROR_INIT;

                assert_int_equal(token_name_init(&name, &keys[i], &e), -EINVAL);
                assert_non_null(strstr(e.message, i == 0 ? "identity" : "realm"));
        }
}

static void labels_name_everything_but_secrets(_unused_ void **state)
{
        const struct {
                struct token_key key;
                const char *label;
        } cases[] = {
                { { "https://auth.docker.io/token", "registry.docker.io", SCOPES("repository:b:pull", "aws"), "0123" },
                  "https://auth.docker.io/token, service registry.docker.io, scopes aws repository:b:pull" },
                { { "https://h/t", NULL, NULL, "0123" }, "https://h/t" },
                { { "https://user:pass@h:5000/t?key=pass@x", NULL, NULL, "" }, "https://h:5000/t" },
                { { "https://u@pass@h#pass", "", NULL, "" }, "https://h, service " },
                { { "https://h/t@v", NULL, NULL, "" }, "https://h/t@v" },
                { { "user:pass@h/t?pass", NULL, NULL, "" }, "h/t" },
                { { "https://", NULL, NULL, "" }, "https://" },
                { { "@", NULL, NULL, "" }, "" },
                { { "?", NULL, NULL, "" }, "" },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_token_name_ struct token_name name = {};

                assert_int_equal(token_name_init(&name, &cases[i].key, NULL), 0);
                assert_string_equal(name.label.data, cases[i].label);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(scopes_are_a_set_however_they_are_written),
                cmocka_unit_test(keys_without_scopes_are_the_same),
                cmocka_unit_test(keys_that_differ_in_anything_are_different),
                cmocka_unit_test(an_incomplete_key_is_refused),
                cmocka_unit_test(labels_name_everything_but_secrets),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
