/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "regfs/json.h"
#include "regfs/text.h"

#define _cleanup_json_ _cleanup_(json_free_ptr)

/* Parses a copy of exactly the text's size, so that a sanitizer sees a byte too many. */
static int parse_bytes(const char *data, size_t n, struct json **ret, struct error *e)
{
        _cleanup_free_ char *copy = malloc(n > 0 ? n : 1);

        assert_non_null(copy);
        memcpy(copy, data, n);
        return json_parse(copy, n, ret, e);
}

static struct json *parse(const char *text)
{
        struct json *root = NULL;
        struct error e = ERROR_INIT;

        if (parse_bytes(text, strlen(text), &root, &e) < 0)
                fail_msg("%s: %s", text, e.message);
        return root;
}

static void parse_fails(const char *data, size_t n, const char *because)
{
        struct json *root = (struct json *) 1;
        struct error e = ERROR_INIT;

        if (parse_bytes(data, n, &root, &e) != -EBADMSG)
                fail_msg("%s: parsed", data);
        assert_int_equal(e.kind, ERROR_BAD_DATA);
        assert_ptr_equal(root, (struct json *) 1);
        assert_non_null(strstr(e.message, because));
}

static void document_is_read_by_name_and_type(void **state _unused_)
{
        _cleanup_json_ struct json *root =
                parse("{\"text\": \"caf\\u00e9 \\ud83d\\udc33\", \"Number\": 42, \"yes\": true, \"no\": "
                      "false, \"nothing\": null, \"list\": [1, \"two\"], \"table\": {\"a\": \"b\"}}");
        uint64_t n = 0;
        bool b = false;

        assert_true(json_is_object(root));
        assert_string_equal(json_member_text(root, "text"), "caf\xc3\xa9 \xf0\x9f\x90\xb3");
        assert_int_equal(json_u64(json_member(root, "Number"), &n), 0);
        assert_int_equal(n, 42);
        assert_int_equal(json_bool(json_member(root, "yes"), &b), 0);
        assert_true(b);
        assert_int_equal(json_bool(json_member(root, "no"), &b), 0);
        assert_false(b);
        assert_true(json_is_null(json_member(root, "nothing")));
        assert_true(json_is_array(json_member(root, "list")));
        assert_string_equal(json_member_text(json_member(root, "table"), "a"), "b");
}

static void member_names_are_case_sensitive(void **state _unused_)
{
        _cleanup_json_ struct json *root = parse("{\"digest\": \"a\", \"Digest\": \"b\"}");

        assert_string_equal(json_member_text(root, "digest"), "a");
        assert_string_equal(json_member_text(root, "Digest"), "b");
        assert_null(json_member(root, "DIGEST"));
}

static void another_type_is_never_taken_for_the_one_asked(void **state _unused_)
{
        _cleanup_json_ struct json *root = parse("[\"1\", 1, true, null, {}, []]");
        const struct json *v = json_first(root);
        uint64_t n = 77;
        bool b = true;

        for (int k = 0; v; v = json_next(v), k++) {
                assert_true((json_text(v) != NULL) == (k == 0));
                assert_int_equal(json_u64(v, &n), k == 1 ? 0 : -EINVAL);
                assert_int_equal(json_bool(v, &b), k == 2 ? 0 : -EINVAL);
                assert_true(json_is_null(v) == (k == 3));
                assert_true(json_is_object(v) == (k == 4));
                assert_true(json_is_array(v) == (k == 5));
                assert_null(json_member(v, "a"));
                assert_null(json_first(v));
                assert_null(json_name(v));
        }
}

static void absent_value_is_safe_to_ask(void **state _unused_)
{
        uint64_t n = 77;
        bool b = true;

        assert_null(json_member(NULL, "a"));
        assert_null(json_member_text(NULL, "a"));
        assert_null(json_text(NULL));
        assert_null(json_first(NULL));
        assert_null(json_next(NULL));
        assert_null(json_name(NULL));
        assert_false(json_is_object(NULL));
        assert_false(json_is_array(NULL));
        assert_false(json_is_null(NULL));
        assert_int_equal(json_u64(NULL, &n), -ENOENT);
        assert_int_equal(json_bool(NULL, &b), -ENOENT);
        assert_int_equal(n, 77);
        assert_null(json_free(NULL));
}

static void members_come_in_the_order_of_the_text(void **state _unused_)
{
        _cleanup_json_ struct json *root = parse("{\"b\": 1, \"a\": 2, \"\": 3}");
        const struct json *v = json_first(root);

        assert_string_equal(json_name(v), "b");
        v = json_next(v);
        assert_string_equal(json_name(v), "a");
        v = json_next(v);
        assert_string_equal(json_name(v), "");
        assert_null(json_next(v));
}

static void whole_numbers_are_exact(void **state _unused_)
{
        static const struct {
                const char *text;
                int r;
                uint64_t n;
        } table[] = {
                { "0", 0, 0 },
                { "-0", 0, 0 },
                { "1e3", 0, 1000 },
                { "1.0", 0, 1 },
                { "4294967296", 0, UINT64_C(4294967296) },
                { "9007199254740991", 0, UINT64_C(9007199254740991) },
                { "9007199254740992", -EINVAL, 0 },
                { "9007199254740993", -EINVAL, 0 },
                { "18446744073709551616", -EINVAL, 0 },
                { "1e400", -EINVAL, 0 },
                { "-1", -EINVAL, 0 },
                { "0.5", -EINVAL, 0 },
                { "1e-1", -EINVAL, 0 },
        };

        for (size_t k = 0; k < ELEMENTSOF(table); k++) {
                _cleanup_json_ struct json *root = parse(table[k].text);
                uint64_t n = 77;

                assert_int_equal(json_u64(root, &n), table[k].r);
                assert_int_equal(n, table[k].r == 0 ? table[k].n : 77);
        }
}

static void white_space_may_surround_the_value(void **state _unused_)
{
        _cleanup_json_ struct json *root = parse(" \t\r\n{ \"a\" : [ ] } \t\r\n");

        assert_true(json_is_array(json_member(root, "a")));
}

static void malformed_text_is_refused(void **state _unused_)
{
        static const char *const bad[] = {
                "",
                " ",
                "{",
                "}",
                "[",
                "]",
                "[1",
                "[1,]",
                "[,1]",
                "[1 2]",
                "{\"a\":1,}",
                "{\"a\" 1}",
                "{\"a\":}",
                "{a:1}",
                "{1:1}",
                "{'a':1}",
                "\"",
                "\"a",
                "\"\\",
                "\"\\\"",
                "\"\\x41\"",
                "\"\\u12",
                "\"\\u12g4\"",
                "nul",
                "True",
                "NaN",
                "Infinity",
                "+1",
                ".5",
                "1.",
                "01",
                "-",
                "-01",
                "1e",
                "1e+",
                "0x10",
                "1_000",
                "--1",
                "1.e5",
                "// a\n1",
                "/* */1",
                "[1]]",
                "true false",
                "{}{}",
                "1 2",
                "\"a\"b",
                "nullnull",
                "[1}",
                "{\"a\":1,\"b\"}",
                "\"\\ud800\"",
                "\"\\udc00\"",
                "\"\\ud800\\u0041\"",
                "\"\\ud800x\"",
        };

        for (size_t k = 0; k < ELEMENTSOF(bad); k++)
                parse_fails(bad[k], strlen(bad[k]), "at byte");
}

static void place_of_the_fault_is_named(void **state _unused_)
{
        parse_fails("{\"a\": 01}", 9, "number, at byte 6");
        parse_fails("[1] x", 5, "at byte 4");
        parse_fails("[\"a\", \"\xff\"]", 10, "not UTF-8, at byte 7");
}

static void bytes_that_are_no_text_are_refused(void **state _unused_)
{
        parse_fails("\"\xff\"", 3, "UTF-8");
        parse_fails("\"\xc0\x80\"", 4, "UTF-8");
        parse_fails("\"\xed\xa0\x80\"", 5, "UTF-8");
        parse_fails("{\"\xe2\x80\":1}", 8, "UTF-8");
        parse_fails("\"a\nb\"", 5, "control");
        parse_fails("\"a\0b\"", 5, "control");
        parse_fails("1\0", 2, "control");
        parse_fails("\0", 1, "control");
        parse_fails("[\x0b]", 3, "control");
        parse_fails("\xef\xbb\xbf{}", 5, "unexpected byte");
        parse_fails("[\x7f]", 3, "unexpected byte");
}

static void text_with_a_nul_is_no_text(void **state _unused_)
{
        _cleanup_json_ struct json *root = parse(
                "{\"a\": \"x\\u0000y\", \"b\": \"\\u0000\", \"c\": \"\\\\u0000\", \"d\\u0000\": \"e\", \"f\": \"g\\u0001\"}");

        assert_non_null(json_member(root, "a"));
        assert_null(json_member_text(root, "a"));
        assert_null(json_member_text(root, "b"));
        assert_string_equal(json_member_text(root, "c"), "\\u0000");
        assert_null(json_member(root, "d"));
        assert_string_equal(json_member_text(root, "f"), "g\x01");
}

static void nest(struct buf *b, size_t depth, const char *open, const char *inside, const char *close)
{
        for (size_t k = 0; k < depth; k++)
                assert_int_equal(buf_append_str(b, open), 0);
        assert_int_equal(buf_append_str(b, inside), 0);
        for (size_t k = 0; k < depth; k++)
                assert_int_equal(buf_append_str(b, close), 0);
}

static void nesting_ends_at_64(void **state _unused_)
{
        static const size_t depths[] = { 64, 65, 100000 };

        for (size_t k = 0; k < ELEMENTSOF(depths); k++) {
                _cleanup_buf_ struct buf lists = { 0 }, tables = { 0 };
                _cleanup_json_ struct json *a = NULL, *b = NULL;
                struct error e = ERROR_INIT;

                nest(&lists, depths[k], "[", "", "]");
                nest(&tables, depths[k], "{\"a\":", "1", "}");
                assert_int_equal(json_parse(lists.data, lists.len, &a, &e), depths[k] > 64 ? -EBADMSG : 0);
                assert_true(depths[k] <= 64 || strstr(e.message, "nested more than 64 deep"));
                assert_int_equal(json_parse(tables.data, tables.len, &b, NULL), depths[k] > 64 ? -EBADMSG : 0);
        }
}

static void brackets_side_by_side_or_in_strings_are_no_nesting(void **state _unused_)
{
        _cleanup_buf_ struct buf b = { 0 };
        _cleanup_json_ struct json *root = NULL;

        assert_int_equal(buf_append_str(&b, "[0"), 0);
        for (int k = 0; k < 200; k++)
                assert_int_equal(buf_append_str(&b, ",[],{},\"[[\\\"{{\""), 0);
        assert_int_equal(buf_append_str(&b, "]"), 0);
        assert_int_equal(json_parse(b.data, b.len, &root, NULL), 0);
}

static void every_beginning_of_a_document_is_refused(void **state _unused_)
{
        static const char text[] = "{\"a\": [1.5e+3, true, null, \"x\\u00e9\\n\xc3\xa9\\u0000\"], \"b\": {\"c\": -1}}";

        for (size_t n = 0; n < sizeof(text) - 1; n++)
                parse_fails(text, n, "not valid JSON");
}

/* ---- writing ---- */

static void expect_quoted(const char *text, const char *expected)
{
        _cleanup_buf_ struct buf b = { 0 };

        assert_int_equal(buf_append_str(&b, "x:"), 0);
        assert_int_equal(json_quote(&b, text), 0);
        assert_string_equal(b.data + 2, expected);
}

static void quoted_text_is_escaped_where_it_must_be(void **state _unused_)
{
        expect_quoted("", "\"\"");
        expect_quoted("plain/text", "\"plain/text\"");
        expect_quoted("a\"b\\c", "\"a\\\"b\\\\c\"");
        expect_quoted("line\n\ttab\x01\x7f", "\"line\\u000a\\u0009tab\\u0001\\u007f\"");
        expect_quoted("\xc3\xa9", "\"\xc3\xa9\"");
}

static void quoted_text_is_read_back_as_it_was(void **state _unused_)
{
        _cleanup_buf_ struct buf b = { 0 };
        _cleanup_json_ struct json *root = NULL;
        char text[512];
        size_t n = 0;

        for (int c = 1; c < 0x80; c++)
                text[n++] = (char) c;
        memcpy(text + n, "\xc3\xa9\xf0\x9f\x98\x80", 7);
        assert_int_equal(json_quote(&b, text), 0);
        assert_int_equal(json_parse(b.data, b.len, &root, NULL), 0);
        assert_string_equal(json_text(root), text);
}

static void quoting_past_a_bound_fails(void **state _unused_)
{
        _cleanup_buf_ struct buf b = { .max = 5 };

        assert_int_equal(json_quote(&b, "abc"), 0);
        b.len = 0;
        assert_int_equal(json_quote(&b, "abcd"), -EFBIG);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(document_is_read_by_name_and_type),
                cmocka_unit_test(member_names_are_case_sensitive),
                cmocka_unit_test(another_type_is_never_taken_for_the_one_asked),
                cmocka_unit_test(absent_value_is_safe_to_ask),
                cmocka_unit_test(members_come_in_the_order_of_the_text),
                cmocka_unit_test(whole_numbers_are_exact),
                cmocka_unit_test(white_space_may_surround_the_value),
                cmocka_unit_test(malformed_text_is_refused),
                cmocka_unit_test(place_of_the_fault_is_named),
                cmocka_unit_test(bytes_that_are_no_text_are_refused),
                cmocka_unit_test(text_with_a_nul_is_no_text),
                cmocka_unit_test(nesting_ends_at_64),
                cmocka_unit_test(brackets_side_by_side_or_in_strings_are_no_nesting),
                cmocka_unit_test(every_beginning_of_a_document_is_refused),
                cmocka_unit_test(quoted_text_is_escaped_where_it_must_be),
                cmocka_unit_test(quoted_text_is_read_back_as_it_was),
                cmocka_unit_test(quoting_past_a_bound_fails),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
