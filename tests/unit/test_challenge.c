/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "regfs/challenge.h"
#include "regfs/text.h"

/* Parses a copy of exactly the header's size, so that a sanitizer sees one byte too many. */
static int parse_one(const char *header, struct challenge *ret, struct error *e)
{
        _cleanup_free_ char *copy = strdup(header);
        const char *headers[] = { copy };

        assert_non_null(copy);
        return challenge_parse(headers, 1, ret, e);
}

static void assert_text(const char *actual, const char *expected)
{
        if (!expected)
                assert_null(actual);
        else if (!actual)
                fail_msg("nothing where \"%s\" is expected", expected);
        else
                assert_string_equal(actual, expected);
}

struct good {
        const char *header;
        struct challenge expected;
};

static void assert_good(const struct good *cases, size_t count)
{
        for (size_t i = 0; i < count; i++) {
                _cleanup_challenge_ struct challenge c = {};
                struct error e = ERROR_INIT;

                if (parse_one(cases[i].header, &c, &e) < 0)
                        fail_msg("%s: %s", cases[i].header, e.message);
                if (c.scheme != cases[i].expected.scheme)
                        fail_msg("%s: scheme %d", cases[i].header, (int) c.scheme);
                assert_text(c.realm, cases[i].expected.realm);
                assert_text(c.service, cases[i].expected.service);
                assert_text(c.scope, cases[i].expected.scope);
                assert_text(c.error, cases[i].expected.error);
        }
}

#define BEARER(...)                                \
        {                                          \
                .scheme = AUTH_BEARER, __VA_ARGS__ \
        }
#define BASIC(...)                                \
        {                                         \
                .scheme = AUTH_BASIC, __VA_ARGS__ \
        }
#define TEXT(s) ((char *) (s))

static void challenges_of_real_registries_are_read(_unused_ void **state)
{
        static const struct good cases[] = {
                { "Bearer realm=\"https://auth.docker.io/token\",service=\"registry.docker.io\","
                  "scope=\"repository:library/alpine:pull\"",
                  BEARER(TEXT("https://auth.docker.io/token"), TEXT("registry.docker.io"),
                         TEXT("repository:library/alpine:pull")) },
                { "Bearer realm=\"https://public.ecr.aws/token/\",service=\"public.ecr.aws\",scope=\"aws\"",
                  BEARER(TEXT("https://public.ecr.aws/token/"), TEXT("public.ecr.aws"), TEXT("aws")) },
                { "Bearer realm=\"https://h/t\",service=\"s\",scope=\"repository:a:pull,push repository:b:pull\","
                  "error=\"insufficient_scope\"",
                  BEARER(TEXT("https://h/t"), TEXT("s"), TEXT("repository:a:pull,push repository:b:pull"),
                         TEXT("insufficient_scope")) },
                { "Basic realm=\"Registry Realm\"", BASIC(TEXT("Registry Realm")) },
                { "Basic realm=\"https://123.dkr.ecr.eu-west-1.amazonaws.com/\",service=\"ecr.amazonaws.com\"",
                  BASIC(TEXT("https://123.dkr.ecr.eu-west-1.amazonaws.com/"), TEXT("ecr.amazonaws.com")) },
                { "BASIC realm=basic-realm", BASIC(TEXT("basic-realm")) },
        };

        assert_good(cases, ELEMENTSOF(cases));
}

static void grammar_is_read_as_the_rfc_writes_it(_unused_ void **state)
{
        static const struct good cases[] = {
                { "bEaReR ReAlM=\"r\"", BEARER(TEXT("r")) },
                { "Bearer realm = \"r\" ,\tservice\t=\ts", BEARER(TEXT("r"), TEXT("s")) },
                { "Bearer realm=\"a\\\"b\\\\c\\d\"", BEARER(TEXT("a\"b\\cd")) },
                { "Bearer realm=\"r\",scope=\"\"", BEARER(TEXT("r"), NULL, TEXT("")) },
                { "Bearer realm=\"a,b=c, Basic realm=x\"", BEARER(TEXT("a,b=c, Basic realm=x")) },
                { "Bearer realm=\"r\\,\\\"\", service=\"s\"", BEARER(TEXT("r,\""), TEXT("s")) },
                { "Bearer realm=\"caf\xc3\xa9\ttab\"", BEARER(TEXT("caf\xc3\xa9\ttab")) },
                { ",, ,Bearer ,, realm=\"r\",,, service=s , ,", BEARER(TEXT("r"), TEXT("s")) },
                { "  \tBearer   realm=\"r\"  ", BEARER(TEXT("r")) },
                { "Bearer realm=r,nonce=\"x,y\",future=1", BEARER(TEXT("r")) },
                { "Bearer realm=r, service", BEARER(TEXT("r")) }, /* a bare token behind a comma is a scheme */
                { "Basic", BASIC() },
                { "Basic realm=", BASIC() }, /* "realm=" is a token68 here */
                { "Basic YWJj", BASIC() },
        };

        assert_good(cases, ELEMENTSOF(cases));
}

static void bearer_is_chosen_before_basic_and_the_first_of_its_kind(_unused_ void **state)
{
        static const struct good cases[] = {
                { "Basic realm=\"b\", Bearer realm=\"r\",service=s", BEARER(TEXT("r"), TEXT("s")) },
                { "Bearer realm=\"r\", Basic realm=\"b\",service=s", BEARER(TEXT("r")) },
                { "Bearer realm=\"1\",scope=x, Bearer realm=\"2\",service=s", BEARER(TEXT("1"), NULL, TEXT("x")) },
                { "Basic realm=\"1\", Basic realm=\"2\",service=s", BASIC(TEXT("1")) },
        };

        assert_good(cases, ELEMENTSOF(cases));
}

static void unknown_schemes_are_skipped(_unused_ void **state)
{
        static const struct good cases[] = {
                { "Negotiate, NTLM, Basic realm=b", BASIC(TEXT("b")) },
                { "Negotiate YIIJvwYGKwYBBQUCoIIJszCC+/-._~==, Basic realm=b", BASIC(TEXT("b")) },
                { "Digest realm=\"d\", qop=\"auth,auth-int\", service=\"x\", Bearer realm=r", BEARER(TEXT("r")) },
                { "Bearer realm=r, Digest realm=\"d\", service=\"x\"", BEARER(TEXT("r")) },
                { "Bearerx realm=\"no\", Basic realm=b", BASIC(TEXT("b")) },
        };

        assert_good(cases, ELEMENTSOF(cases));
}

static void several_headers_count_as_one_list(_unused_ void **state)
{
        const char *headers[] = { "Negotiate", "Basic realm=\"b\"", "", "Bearer realm=\"1\"", "Bearer realm=\"2\"" };
        _cleanup_challenge_ struct challenge c = {};

        assert_int_equal(challenge_parse(headers, ELEMENTSOF(headers), &c, NULL), 0);
        assert_int_equal(c.scheme, AUTH_BEARER);
        assert_string_equal(c.realm, "1");
}

static void absence_of_a_known_scheme_is_told_from_malformation(_unused_ void **state)
{
        struct challenge c = { .realm = TEXT("untouched") };
        struct error e = ERROR_INIT;

        assert_int_equal(challenge_parse(NULL, 0, &c, &e), -ENOENT);
        assert_non_null(strstr(e.message, "no WWW-Authenticate"));
        assert_int_equal(parse_one("", &c, NULL), -ENOENT);
        assert_int_equal(parse_one(" , ,", &c, NULL), -ENOENT);
        assert_int_equal(parse_one("Negotiate abc==, Digest realm=\"d\"", &c, &e), -ENOENT);
        assert_non_null(strstr(e.message, "Negotiate abc==, Digest realm="));
        assert_int_equal(e.kind, ERROR_DENIED);
        assert_string_equal(c.realm, "untouched");
}

static void malformed_headers_are_refused(_unused_ void **state)
{
        static const char *const cases[] = {
                "Bearer", /* no realm */
                "Bearer service=\"s\"",
                "Bearer realm=\"\"",
                "Bearer abc==",
                "Basic realm=b, Bearer service=s",      /* the one that would be chosen is broken */
                "Bearer realm=\"r\", Bearer service=s", /* so is one that would not */
                "Bearer realm=\"r",
                "Bearer realm=\"r\\",
                "Bearer realm=\"r\\\"",
                "Bearer realm=https://h/t", /* not a token, so it needs quotes */
                "Bearer realm=, service=s",
                "Bearer realm=\"r\" service=\"s\"", /* no comma */
                "Bearer realm=\"r\"service=\"s\"",
                "Bearer realm=\"r\"x",
                "Bearer realm=\"r\", =s",
                "Bearer realm=\"a\", realm=\"b\"",
                "Bearer realm=\"a\", REALM=\"a\"",
                "Bearer realm=\"a\", x=1, y=2, X=3",
                "Digest a=1, a=2, Bearer realm=r", /* also in a scheme that nobody asked for */
                "Bearer realm=\"r\", scope=\"a\", scope=\"b\"",
                "realm=\"r\"",
                "Bearer=\"r\"",
                "Bearer\"r\"",
                "Bearer Basic realm=\"r\"",
                "Negotiate abc== def",
                "Negotiate abc==, realm=\"r\"",
                "\"Bearer\" realm=\"r\"",
                "(Bearer) realm=\"r\"",
                "Bearer realm=\"r\nX\"",
                "Bearer realm=\"r\\\nX\"",
                "Bearer realm=\"r\x7f\"",
                "Bearer realm=\"r\"\r\n",
                "Bearer realm=\"r\"; service=s",
                "\xc3\xa9",
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                struct challenge c = { .realm = TEXT("untouched") };
                struct error e = ERROR_INIT;
                int r = parse_one(cases[i], &c, &e);

                if (r != -EBADMSG)
                        fail_msg("%s: %d", cases[i], r);
                assert_int_equal(e.kind, ERROR_BAD_DATA);
                assert_int_equal(e.code, EBADMSG);
                assert_string_equal(c.realm, "untouched");
        }
}

static void a_malformed_header_is_an_error_beside_a_good_one(_unused_ void **state)
{
        const char *before[] = { "Bearer realm=\"r", "Bearer realm=\"good\"" };
        const char *behind[] = { "Bearer realm=\"good\"", "Digest a=1, a=1" };
        struct challenge c = {};
        struct error e = ERROR_INIT;

        assert_int_equal(challenge_parse(before, 2, &c, &e), -EBADMSG);
        assert_int_equal(challenge_parse(behind, 2, &c, &e), -EBADMSG);
        assert_non_null(strstr(e.message, "Digest a=1, a=1"));
        assert_null(c.realm);
}

static void the_number_of_parameters_is_bounded(_unused_ void **state)
{
        _cleanup_buf_ struct buf header = {};
        struct challenge c = {};
        struct error e = ERROR_INIT;

        assert_int_equal(buf_append_str(&header, "Bearer realm=r"), 0);
        for (int i = 0; i < 10000; i++)
                assert_int_equal(buf_printf(&header, ",p%d=x", i), 0);
        assert_int_equal(parse_one(header.data, &c, &e), -EBADMSG);
        assert_non_null(strstr(e.message, "too many"));
}

static void errors_quote_the_header_cut_and_escaped(_unused_ void **state)
{
        char header[400] = "Bearer \x1b[31m\n", expected[300] = "\"Bearer \\x1b[31m\\x0a";
        struct challenge c = {};
        struct error e = ERROR_INIT;
        size_t n = strlen(header), m = strlen(expected);

        memset(header + n, 'x', sizeof(header) - n - 1);
        memset(expected + m, 'x', 200 - n);
        strcpy(expected + m + 200 - n, "...\": ");
        assert_int_equal(parse_one(header, &c, &e), -EBADMSG);
        assert_non_null(strstr(e.message, expected));
        assert_non_null(strstr(e.message, "at byte 7"));
}

static void assert_says(const char *header, const char *text)
{
        struct challenge c = {};
        struct error e = ERROR_INIT;

        assert_int_equal(parse_one(header, &c, &e), -EBADMSG);
        if (!strstr(e.message, text))
                fail_msg("no \"%s\" in: %s", text, e.message);
}

static void errors_say_what_is_wrong_and_where(_unused_ void **state)
{
        char header[300];

        assert_says("realm=\"r\"",
                    "malformed WWW-Authenticate header \"realm=\\x22r\\x22\": a parameter without a scheme at byte 0");
        assert_says("Basic, \"x\"", "no scheme at byte 7");
        assert_says("Bearer service=x", "without a realm");
        assert_says("Bearer a=1, b=2, a=3", "a parameter stands twice at byte 17");

        memset(header, '(', sizeof(header));
        header[200] = '\0';
        assert_says(header, "((\": ");
        header[200] = '(';
        header[201] = '\0';
        assert_says(header, "((...\": ");
}

static uint32_t next_random(uint32_t *seed)
{
        *seed = *seed * 1664525 + 1013904223;
        return *seed >> 8;
}

/* A random string of what a quoted string may hold, and the same as a quoted string. */
static void random_value(uint32_t *seed, struct buf *plain, struct buf *quoted)
{
        static const char interesting[] = "\"\\,= \tab/:~\xff";
        size_t n = 1 + next_random(seed) % 12;

        assert_int_equal(buf_append_char(quoted, '"'), 0);
        for (size_t i = 0; i < n; i++) {
                char c = interesting[next_random(seed) % (sizeof(interesting) - 1)];

                assert_int_equal(buf_append_char(plain, c), 0);
                if (c == '"' || c == '\\' || next_random(seed) % 4 == 0)
                        assert_int_equal(buf_append_char(quoted, '\\'), 0);
                assert_int_equal(buf_append_char(quoted, c), 0);
        }
        assert_int_equal(buf_append_char(quoted, '"'), 0);
}

static void whatever_is_quoted_is_read_back(_unused_ void **state)
{
        uint32_t seed = 1;

        for (int i = 0; i < 2000; i++) {
                _cleanup_buf_ struct buf realm = {}, scope = {}, quoted_realm = {}, quoted_scope = {}, header = {};
                _cleanup_challenge_ struct challenge c = {};
                struct error e = ERROR_INIT;

                random_value(&seed, &realm, &quoted_realm);
                random_value(&seed, &scope, &quoted_scope);
                assert_int_equal(buf_printf(&header, "Digest %sx=%s,Bearer scope=%s,realm=%s%s", i % 2 ? "" : "a=b,",
                                            quoted_realm.data, quoted_scope.data, quoted_realm.data,
                                            i % 3 ? "" : ",Basic"),
                                 0);
                if (parse_one(header.data, &c, &e) < 0)
                        fail_msg("%s: %s", header.data, e.message);
                assert_string_equal(c.realm, realm.data);
                assert_string_equal(c.scope, scope.data);
        }
}

static void damaged_headers_do_no_harm(_unused_ void **state)
{
        static const char whole[] = "Digest qop=\"a,\\\"b\", Negotiate ab==, "
                                    "Bearer realm=\"https://h/t\" , scope=x,Basic";
        uint32_t seed = 7;

        for (size_t n = 0; n < sizeof(whole); n++) {
                for (int i = 0; i < 200; i++) {
                        _cleanup_challenge_ struct challenge c = {};
                        char header[sizeof(whole)];
                        int r;

                        memcpy(header, whole, n);
                        header[n] = '\0';
                        for (int hits = i % 4; hits > 0 && n > 0; hits--)
                                header[next_random(&seed) % n] = (char) next_random(&seed);
                        r = parse_one(header, &c, NULL);
                        assert_true(r == 0 || r == -EBADMSG || r == -ENOENT);
                        if (r == 0 && c.scheme != AUTH_BASIC)
                                assert_true(c.scheme == AUTH_BEARER && c.realm[0] != '\0');
                }
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(challenges_of_real_registries_are_read),
                cmocka_unit_test(grammar_is_read_as_the_rfc_writes_it),
                cmocka_unit_test(bearer_is_chosen_before_basic_and_the_first_of_its_kind),
                cmocka_unit_test(unknown_schemes_are_skipped),
                cmocka_unit_test(several_headers_count_as_one_list),
                cmocka_unit_test(absence_of_a_known_scheme_is_told_from_malformation),
                cmocka_unit_test(malformed_headers_are_refused),
                cmocka_unit_test(a_malformed_header_is_an_error_beside_a_good_one),
                cmocka_unit_test(the_number_of_parameters_is_bounded),
                cmocka_unit_test(errors_quote_the_header_cut_and_escaped),
                cmocka_unit_test(errors_say_what_is_wrong_and_where),
                cmocka_unit_test(whatever_is_quoted_is_read_back),
                cmocka_unit_test(damaged_headers_do_no_harm),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
