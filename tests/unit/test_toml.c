/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "regfs/text.h"
#include "regfs/toml.h"

#define _cleanup_toml_ _cleanup_(toml_free_ptr)

/* Parses a copy of exactly the text's size, so that a sanitizer sees a byte too many. */
static int parse_bytes(const char *data, size_t n, struct toml **ret, struct error *e)
{
        _cleanup_free_ char *copy = malloc(n > 0 ? n : 1);

        assert_non_null(copy);
        memcpy(copy, data, n);
        return toml_parse(copy, n, ret, e);
}

static struct toml *parse(const char *text)
{
        struct toml *root = NULL;
        struct error e = ERROR_INIT;

        if (parse_bytes(text, strlen(text), &root, &e) < 0)
                fail_msg("%s: %s", text, e.message);
        return root;
}

static void parse_fails_at(const char *data, size_t n, unsigned line, const char *because)
{
        struct toml *root = (struct toml *) 1;
        struct error e = ERROR_INIT;
        char where[32];

        if (parse_bytes(data, n, &root, &e) != -EBADMSG)
                fail_msg("%s: parsed", data);
        assert_int_equal(e.kind, ERROR_BAD_DATA);
        assert_ptr_equal(root, (struct toml *) 1);
        (void) snprintf(where, sizeof(where), "line %u: ", line);
        if (!str_after(e.message, where) || !strstr(e.message, because))
                fail_msg("%s: \"%s\", expected \"%s%s\"", data, e.message, where, because);
}

static void parse_fails(const char *text, unsigned line, const char *because)
{
        parse_fails_at(text, strlen(text), line, because);
}

/* The value at a path of names with dots between them. */
static const struct toml *at(const struct toml *v, const char *path)
{
        while (v && *path) {
                size_t n = strcspn(path, ".");
                _cleanup_free_ char *name = strndup(path, n);

                v = toml_member(v, name);
                path += n + (path[n] == '.');
        }
        return v;
}

static void assert_text(const char *document, const char *expected)
{
        _cleanup_toml_ struct toml *root = parse(document);
        const char *s = toml_text(toml_member(root, "a"));

        assert_non_null(s);
        assert_string_equal(s, expected);
}

static void assert_integer(const struct toml *v, int64_t expected)
{
        int64_t n = 77;

        assert_int_equal(toml_integer(v, &n), 0);
        assert_true(n == expected);
}

static size_t count(const struct toml *v)
{
        size_t n = 0;

        for (v = toml_first(v); v; v = toml_next(v))
                n++;
        return n;
}

static void registries_conf_is_read(void **state _unused_)
{
        _cleanup_toml_ struct toml *root =
                parse("# For more information on this configuration file, see containers-registries.conf(5).\n"
                      "unqualified-search-registries = ['registry.fedoraproject.org', \"docker.io\"]\n"
                      "short-name-mode = \"enforcing\" # \"permissive\"\n"
                      "credential-helpers = [ \"containers-auth.json\",\n"
                      "    \"secretservice\", # a comment\n"
                      "]\n"
                      "\n"
                      "[[registry]]\n"
                      "prefix = \"example.com/foo\"\n"
                      "insecure = false\n"
                      "blocked = false\n"
                      "location = \"internal-registry-for-example.com/bar\"\n"
                      "\n"
                      "  [[registry.mirror]]\n"
                      "  location = \"example-mirror-0.local/mirror-for-foo\"\n"
                      "  [[registry.mirror]]\n"
                      "  location = \"example-mirror-1.local/mirrors/foo\"\n"
                      "  insecure = true\n"
                      "  pull-from-mirror = \"digest-only\"\n"
                      "\n"
                      "[[registry]]\r\n"
                      "location = \"registry.com\"\r\n"
                      "  [[registry.mirror]]\r\n"
                      "  location = \"mirror.registry.com\"\r\n"
                      "\n"
                      "[aliases]\n"
                      "  \"alpine\" = \"docker.io/library/alpine\"\n"
                      "  fedora = \"registry.fedoraproject.org/fedora\"\n"
                      "  \"ubi8/ubi\"=\"registry.access.redhat.com/ubi8/ubi\"");
        const struct toml *list = toml_member(root, "unqualified-search-registries");
        const struct toml *registry = toml_first(toml_member(root, "registry")), *mirror;
        bool b = true;

        assert_int_equal(toml_type(list), TOML_ARRAY);
        assert_string_equal(toml_text(toml_first(list)), "registry.fedoraproject.org");
        assert_string_equal(toml_text(toml_next(toml_first(list))), "docker.io");
        assert_int_equal(count(list), 2);
        assert_int_equal(count(toml_member(root, "credential-helpers")), 2);

        assert_int_equal(toml_type(toml_member(root, "registry")), TOML_ARRAY);
        assert_int_equal(toml_type(registry), TOML_TABLE);
        assert_string_equal(toml_text(toml_member(registry, "prefix")), "example.com/foo");
        assert_int_equal(toml_bool(toml_member(registry, "blocked"), &b), 0);
        assert_false(b);
        assert_int_equal(count(toml_member(registry, "mirror")), 2);
        mirror = toml_next(toml_first(toml_member(registry, "mirror")));
        assert_string_equal(toml_text(toml_member(mirror, "location")), "example-mirror-1.local/mirrors/foo");
        assert_int_equal(toml_bool(toml_member(mirror, "insecure"), &b), 0);
        assert_true(b);

        registry = toml_next(registry);
        assert_string_equal(toml_text(toml_member(registry, "location")), "registry.com");
        assert_int_equal(count(toml_member(registry, "mirror")), 1);
        assert_null(toml_next(registry));

        assert_string_equal(toml_text(at(root, "aliases.ubi8/ubi")), "registry.access.redhat.com/ubi8/ubi");
        assert_string_equal(toml_name(toml_first(toml_member(root, "aliases"))), "alpine");
        assert_int_equal(count(toml_member(root, "aliases")), 3);
}

static void document_may_be_empty(void **state _unused_)
{
        static const char *const texts[] = { "", "\n", "# only a comment", " \t\r\n\n  # x\n" };

        for (size_t k = 0; k < ELEMENTSOF(texts); k++) {
                _cleanup_toml_ struct toml *root = parse(texts[k]);

                assert_int_equal(toml_type(root), TOML_TABLE);
                assert_null(toml_first(root));
        }
}

static void strings_mean_what_toml_says(void **state _unused_)
{
        assert_text("a = \"\"", "");
        assert_text("a = \"x # y\" # z", "x # y");
        assert_text("a = \"\\b\\t\\n\\f\\r\\\"\\\\\"", "\b\t\n\f\r\"\\");
        assert_text("a = \"\\u00E9\\u2026\\U0001f433\\u0041\"", "\xc3\xa9\xe2\x80\xa6\xf0\x9f\x90\xb3"
                                                                "A");
        assert_text("a = \"\\u0001\\u007f\\u0080\\u07ff\"", "\x01\x7f\xc2\x80\xdf\xbf");
        assert_text("a = \"\\u0800\\uffff\\U00010000\\U0010ffff\"",
                    "\xe0\xa0\x80\xef\xbf\xbf\xf0\x90\x80\x80\xf4\x8f\xbf\xbf");
        assert_text("a = 'C:\\new\\u0041'", "C:\\new\\u0041");
        assert_text("a = 'a \"b\"'", "a \"b\"");
        assert_text("a = \"tab\there caf\xc3\xa9\"", "tab\there caf\xc3\xa9");
}

static void block_strings_mean_what_toml_says(void **state _unused_)
{
        assert_text("a = \"\"\"\none\ntwo\"\"\"", "one\ntwo");
        assert_text("a = \"\"\"\r\none\r\ntwo\"\"\"", "one\ntwo");
        assert_text("a = \"\"\"\n\none\"\"\"", "\none");
        assert_text("a = \"\"\"one \\\n\n   \t two \\  \r\n three\"\"\"", "one two three");
        assert_text("a = \"\"\"\"\"\"", "");
        assert_text("a = \"\"\"\"x\"\"\"\"\"", "\"x\"\"");
        assert_text("a = \"\"\"x\"\"y\\\"\"\"\"\"", "x\"\"y\"\"");
        assert_text("a = \"\"\"\\u0041\\n\"\"\"", "A\n");
        assert_text("a = '''\nI'm \\here\\\n'''", "I'm \\here\\\n");
        assert_text("a = ''''x'''''", "'x''");
}

static void malformed_strings_are_refused(void **state _unused_)
{
        parse_fails("a = \"x", 1, "does not end");
        parse_fails("\na = \"x\ny\"", 2, "does not end");
        parse_fails("a = 'x\r\n'", 1, "does not end");
        parse_fails("a = \"x\\\"", 1, "does not end");
        parse_fails("a = \"\\", 1, "escape");
        parse_fails("a = \"\\x41\"", 1, "escape");
        parse_fails("a = \"\\e\"", 1, "escape");
        parse_fails("a = \"\\\n\"", 1, "escape");
        parse_fails("a = \"\\u12\"", 1, "hexadecimal");
        parse_fails("a = \"\\U0000004", 1, "hexadecimal");
        parse_fails("a = \"\\u0000\"", 1, "cannot stand");
        parse_fails("a = \"\\ud800\"", 1, "cannot stand");
        parse_fails("a = \"\\U00110000\"", 1, "cannot stand");
        parse_fails("a = \"\\Uffffffff\"", 1, "cannot stand");
        parse_fails("a = \"\"\"x\n\n", 3, "ends within");
        parse_fails("a = \"\"\"x\"\"", 1, "ends within");
        parse_fails("a = '''x''", 1, "ends within");
        parse_fails("a = \"\"\"x\"\"\"\"\"\"", 1, "left on the line");
        parse_fails("a = \"\"\"x \\ y\"\"\"", 1, "escape");
        parse_fails("\"\"\"a\"\"\" = 1", 1, "=");
}

static void bytes_that_are_no_text_are_refused(void **state _unused_)
{
        parse_fails("a = 1\nb = \"\xff\"", 2, "UTF-8");
        parse_fails("# \xc3", 1, "UTF-8");
        parse_fails("a = \"\x01\"", 1, "control");
        parse_fails("# \x7f", 1, "control");
        parse_fails("a = 1\rb = 2", 1, "control");
        parse_fails("a = 1\r", 1, "control");
        parse_fails_at("a = \"x\0y\"", 9, 1, "control");
        parse_fails_at("a = 1\n\0", 7, 2, "control");
        parse_fails("\xef\xbb\xbf"
                    "a = 1",
                    1, "key");
}

static void integers_mean_what_toml_says(void **state _unused_)
{
        static const struct {
                const char *text;
                int64_t value;
        } table[] = {
                { "0", 0 },
                { "+0", 0 },
                { "-0", 0 },
                { "42", 42 },
                { "+42", 42 },
                { "-17", -17 },
                { "1_000", 1000 },
                { "1_2_3", 123 },
                { "0xdead_BEEF", 0xdeadbeef },
                { "0x00e5", 0xe5 },
                { "0o755", 0755 },
                { "0b1101", 13 },
                { "9223372036854775807", INT64_MAX },
                { "-9223372036854775808", INT64_MIN },
                { "0x7fffffffffffffff", INT64_MAX },
        };

        for (size_t k = 0; k < ELEMENTSOF(table); k++) {
                _cleanup_free_ char *text = str_printf("a = %s\n", table[k].text);
                _cleanup_toml_ struct toml *root = parse(text);

                assert_integer(toml_member(root, "a"), table[k].value);
        }
}

static void words_that_are_no_value_are_refused(void **state _unused_)
{
        static const struct {
                const char *text, *because;
        } table[] = {
                { "", "missing" },
                { "# x", "missing" },
                { "=", "missing" },
                { "yes", "malformed" },
                { "True", "malformed" },
                { "TRUE", "malformed" },
                { "truefalse", "malformed" },
                { "a", "malformed" },
                { "007", "malformed" },
                { "-01", "malformed" },
                { "1__2", "malformed" },
                { "_1", "malformed" },
                { "1_", "malformed" },
                { "0x", "malformed" },
                { "0x_1", "malformed" },
                { "0xg", "malformed" },
                { "0o8", "malformed" },
                { "0b2", "malformed" },
                { "-0x1", "malformed" },
                { "+", "malformed" },
                { "-", "malformed" },
                { "--1", "malformed" },
                { "1-2", "malformed" },
                { "0X1", "malformed" },
                { "12a", "malformed" },
                { "9223372036854775808", "out of range" },
                { "-9223372036854775809", "out of range" },
                { "0xffffffffffffffff", "out of range" },
                { "1.5", "floats" },
                { "1e5", "floats" },
                { "-1E5", "floats" },
                { "inf", "floats" },
                { "+nan", "floats" },
                { "1979-05-27", "dates" },
                { "07:32:00", "dates" },
                { "1979-05-27T07:32:00Z", "dates" },
                { "1979-05-27 07:32:00", "dates" },
                { "1 2", "left on the line" },
                { "true b = 1", "left on the line" },
        };

        for (size_t k = 0; k < ELEMENTSOF(table); k++) {
                _cleanup_free_ char *text = str_printf("\na = %s\n", table[k].text);

                parse_fails(text, 2, table[k].because);
        }
}

static void word_of_any_length_is_refused(void **state _unused_)
{
        for (size_t n = 60; n < 100; n++) {
                char text[128] = "a = ";

                memset(text + 4, 'x', n);
                parse_fails(text, 1, "malformed");
        }
}

static void arrays_may_span_lines(void **state _unused_)
{
        _cleanup_toml_ struct toml *root =
                parse("a = [\n  1, # one\n\n  [ 'x', \"y\" ]\n  , { b = true },\n]\nempty = [ ]\n");
        const struct toml *v = toml_first(toml_member(root, "a"));
        bool b = false;

        assert_integer(v, 1);
        assert_null(toml_name(v));
        v = toml_next(v);
        assert_int_equal(count(v), 2);
        assert_string_equal(toml_text(toml_first(v)), "x");
        v = toml_next(v);
        assert_int_equal(toml_bool(toml_member(v, "b"), &b), 0);
        assert_true(b);
        assert_null(toml_next(v));
        assert_int_equal(toml_type(toml_member(root, "empty")), TOML_ARRAY);
        assert_null(toml_first(toml_member(root, "empty")));
}

static void malformed_arrays_and_inline_tables_are_refused(void **state _unused_)
{
        parse_fails("a = [1 2]", 1, "array");
        parse_fails("a = [,]", 1, "missing");
        parse_fails("a = [1,,2]", 1, "missing");
        parse_fails("a = [\n1\n", 3, "array");
        parse_fails("a = [", 1, "missing");
        parse_fails("a = ]", 1, "missing");
        parse_fails("a = { b = 1, }", 1, "key");
        parse_fails("a = { b = 1 c = 2 }", 1, "inline table");
        parse_fails("a = { b = 1\n}", 1, "inline table");
        parse_fails("a = {\nb = 1 }", 1, "key");
        parse_fails("a = { b }", 1, "=");
        parse_fails("a = { b = 1, b = 2 }", 1, "twice");
        parse_fails("a = {", 1, "key");
}

static void keys_may_be_bare_quoted_and_dotted(void **state _unused_)
{
        _cleanup_toml_ struct toml *root = parse("a-b_9 = 1\n1234 = 2\n\"x y\" = 3\n'q\"' = 4\n\"\" = 5\n"
                                                 "site . \"google.com\" . 'n' = 6\nsite.other = 7\n\"\\u00e9\" = 8\n");

        assert_integer(at(root, "a-b_9"), 1);
        assert_integer(at(root, "1234"), 2);
        assert_integer(toml_member(root, "x y"), 3);
        assert_integer(toml_member(root, "q\""), 4);
        assert_integer(toml_member(root, ""), 5);
        assert_integer(toml_member(toml_member(toml_member(root, "site"), "google.com"), "n"), 6);
        assert_integer(at(root, "site.other"), 7);
        assert_integer(toml_member(root, "\xc3\xa9"), 8);
        assert_int_equal(count(root), 7);
}

static void malformed_keys_are_refused(void **state _unused_)
{
        parse_fails("= 1", 1, "key");
        parse_fails("a", 1, "=");
        parse_fails("a b = 1", 1, "=");
        parse_fails("a. = 1", 1, "key");
        parse_fails(".a = 1", 1, "key");
        parse_fails("a..b = 1", 1, "key");
        parse_fails("a\n= 1", 1, "=");
        parse_fails("a! = 1", 1, "=");
        parse_fails("\xc3\xa9 = 1", 1, "key");
        parse_fails("[]", 1, "key");
        parse_fails("[a", 1, "]");
        parse_fails("[a.]", 1, "key");
        parse_fails("[a] b = 1", 1, "left on the line");
        parse_fails("[[a]", 1, "]]");
        parse_fails("[[a] ]", 1, "]]");
        parse_fails("[ [a]]", 1, "key");
        parse_fails("[a]]", 1, "left on the line");
        parse_fails("[a\n]", 1, "]");
}

static void tables_may_come_in_any_order(void **state _unused_)
{
        _cleanup_toml_ struct toml *root =
                parse("[x.y.z]\na = 1\n[x]\nb = 2\n[ x . \"y\" ]\nc = 3\n[[x.list]]\n[[x.list]]\nd = 4\n"
                      "[x.list.sub]\ne = 5\n[[x.list.deep.more]]\nf = 6\n");
        const struct toml *last = toml_next(toml_first(at(root, "x.list")));

        assert_integer(at(root, "x.y.z.a"), 1);
        assert_integer(at(root, "x.b"), 2);
        assert_integer(at(root, "x.y.c"), 3);
        assert_null(toml_first(toml_first(at(root, "x.list"))));
        assert_integer(toml_member(last, "d"), 4);
        assert_integer(at(last, "sub.e"), 5);
        assert_integer(toml_member(toml_first(at(last, "deep.more")), "f"), 6);
}

static void dotted_keys_and_headers_share_what_toml_lets_them(void **state _unused_)
{
        _cleanup_toml_ struct toml *root =
                parse("[fruit]\napple.color = 'red'\napple.taste.sweet = true\n[fruit.apple.texture]\n"
                      "smooth = true\n[a.b.c]\nx = 1\n[a]\nb.d = 2\n");

        assert_string_equal(toml_text(at(root, "fruit.apple.color")), "red");
        assert_int_equal(count(at(root, "fruit.apple")), 3);
        assert_integer(at(root, "a.b.c.x"), 1);
        assert_integer(at(root, "a.b.d"), 2);
}

static void nothing_is_defined_twice(void **state _unused_)
{
        parse_fails("a = 1\na = 2", 2, "\"a\" is defined twice");
        parse_fails("a = 1\n'a' = 2", 2, "twice");
        parse_fails("a.b = 1\na.b = 2", 2, "twice");
        parse_fails("a = 1\na.b = 2", 2, "dotted key");
        parse_fails("a.b = 1\na = 2", 2, "twice");
        parse_fails("[a]\n[a]", 2, "twice");
        parse_fails("[a]\nb = 1\n[a.b]", 3, "twice");
        parse_fails("[a]\nb = 1\n[a.b.c]", 3, "table header");
        parse_fails("[a.b]\n[a]\nb = 1", 3, "twice");
        parse_fails("[a.b]\n[a]\nb.c = 1", 3, "dotted key");
        parse_fails("[a.b.c]\n[a]\nb.c.d = 1", 3, "dotted key");
        parse_fails("[f]\na.c = 1\n[f.a]", 3, "twice");
        parse_fails("a.c = 1\n[a]", 2, "twice");
        parse_fails("[f]\na.t.s = 1\n[f.a.t]", 3, "twice");
        parse_fails("[a.b]\n[a]\nb.x = 1", 3, "dotted key");
        parse_fails("[[a]]\n[a]", 2, "twice");
        parse_fails("[a]\n[[a]]", 2, "array of tables");
        parse_fails("[a.b]\n[[a]]", 2, "array of tables");
        parse_fails("[[a.b]]\n[a]\nb.c = 1", 3, "dotted key");
        parse_fails("[[a]]\n[a.b]\n[[a.b]]", 3, "array of tables");
        parse_fails("[[a]]\n[[a.b]]\n[a.b]", 3, "twice");
}

static void values_are_complete_as_written(void **state _unused_)
{
        parse_fails("a = []\n[[a]]", 2, "array of tables");
        parse_fails("a = [{}]\n[a.b]", 2, "table header");
        parse_fails("a = {}\n[a]", 2, "twice");
        parse_fails("a = {}\n[a.b]", 2, "table header");
        parse_fails("a = { b.c = 1 }\n[a.b.d]", 2, "table header");
        parse_fails("a = {}\na.b = 1", 2, "dotted key");
        parse_fails("a = { b = {} , b.c = 1 }", 1, "dotted key");
        parse_fails("a = { b.c = 1, b = 2 }", 1, "twice");
}

static void other_types_and_absent_values_are_safe_to_ask(void **state _unused_)
{
        _cleanup_toml_ struct toml *root = parse("text = 'x'\nyes = true\nnumber = 1\nlist = []\n");
        int64_t n = 77;
        bool b = true;

        assert_null(toml_text(toml_member(root, "yes")));
        assert_null(toml_text(root));
        assert_null(toml_text(NULL));
        assert_int_equal(toml_bool(toml_member(root, "text"), &b), -EINVAL);
        assert_int_equal(toml_bool(NULL, &b), -ENOENT);
        assert_int_equal(toml_integer(toml_member(root, "yes"), &n), -EINVAL);
        assert_int_equal(toml_integer(NULL, &n), -ENOENT);
        assert_int_equal(n, 77);
        assert_null(toml_member(root, "absent"));
        assert_null(toml_member(toml_member(root, "list"), "a"));
        assert_null(toml_member(NULL, "a"));
        assert_null(toml_first(NULL));
        assert_null(toml_first(toml_member(root, "text")));
        assert_null(toml_next(NULL));
        assert_null(toml_next(root));
        assert_null(toml_name(NULL));
        assert_null(toml_name(root));
        assert_null(toml_free(NULL));
}

static void nest(struct buf *b, size_t depth, const char *open, const char *inside, const char *close)
{
        assert_int_equal(buf_append_str(b, "a = "), 0);
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
                _cleanup_toml_ struct toml *a = NULL, *b = NULL;

                nest(&lists, depths[k], "[", "", "]");
                nest(&tables, depths[k], "{a=", "1", "}");
                assert_int_equal(toml_parse(lists.data, lists.len, &a, NULL), depths[k] > 64 ? -EBADMSG : 0);
                assert_int_equal(toml_parse(tables.data, tables.len, &b, NULL), depths[k] > 64 ? -EBADMSG : 0);
        }
}

static void key_of_many_parts_costs_no_stack(void **state _unused_)
{
        _cleanup_buf_ struct buf b = { 0 };
        _cleanup_toml_ struct toml *root = NULL;

        for (int k = 0; k < 200000; k++)
                assert_int_equal(buf_append_str(&b, "a."), 0);
        assert_int_equal(buf_append_str(&b, "a = 1"), 0);
        assert_int_equal(toml_parse(b.data, b.len, &root, NULL), 0);
}

static void no_beginning_of_a_document_reads_past_its_end(void **state _unused_)
{
        static const char text[] =
                "[a.'b']\r\nc = [\"\\u00e9\", '''\nx''', { d = 0x1f }, true] # \xe2\x80\xa6\n[[e]]\nf.\"g\" = \"\"\"\\\n \"\"\"\n";

        for (size_t n = 0; n <= sizeof(text) - 1; n++) {
                _cleanup_toml_ struct toml *root = NULL;
                struct error e = ERROR_INIT;
                int r = parse_bytes(text, n, &root, &e);

                assert_true(r == 0 || r == -EBADMSG);
                assert_true((r == 0) == (root != NULL));
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(registries_conf_is_read),
                cmocka_unit_test(document_may_be_empty),
                cmocka_unit_test(strings_mean_what_toml_says),
                cmocka_unit_test(block_strings_mean_what_toml_says),
                cmocka_unit_test(malformed_strings_are_refused),
                cmocka_unit_test(bytes_that_are_no_text_are_refused),
                cmocka_unit_test(integers_mean_what_toml_says),
                cmocka_unit_test(words_that_are_no_value_are_refused),
                cmocka_unit_test(word_of_any_length_is_refused),
                cmocka_unit_test(arrays_may_span_lines),
                cmocka_unit_test(malformed_arrays_and_inline_tables_are_refused),
                cmocka_unit_test(keys_may_be_bare_quoted_and_dotted),
                cmocka_unit_test(malformed_keys_are_refused),
                cmocka_unit_test(tables_may_come_in_any_order),
                cmocka_unit_test(dotted_keys_and_headers_share_what_toml_lets_them),
                cmocka_unit_test(nothing_is_defined_twice),
                cmocka_unit_test(values_are_complete_as_written),
                cmocka_unit_test(other_types_and_absent_values_are_safe_to_ask),
                cmocka_unit_test(nesting_ends_at_64),
                cmocka_unit_test(key_of_many_parts_costs_no_stack),
                cmocka_unit_test(no_beginning_of_a_document_reads_past_its_end),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
