/* SPDX-License-Identifier: Apache-2.0 */

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "../../fs/toc/embedded_internal.h"
#include "regfs/text.h"

#define SHA "sha256:dc0e9c3658a1a3ed1ec94274d8b19925c93e1abb7ddba294923ad9bde30f8cb8"

/* Entries as text: only what is not zero. */
static int list(void *context, const struct toc_entry *t, struct error *e)
{
        static const char *const types[] = {
                "?", "dir", "reg", "symlink", "hardlink", "char", "block", "fifo", "chunk"
        };
        const struct {
                const char *name;
                uint64_t value;
        } numbers[] = {
                { "size", t->size },
                { "mode", t->mode },
                { "uid", t->uid },
                { "gid", t->gid },
                { "major", t->major },
                { "minor", t->minor },
                { "offset", t->offset },
                { "end", t->end_offset },
                { "inner", t->inner_offset },
                { "at", t->chunk_offset },
                { "length", t->chunk_size },
                { "zeros", t->zeros },
                { "digest", t->digest.bytes[0] },
                { "chunk", t->chunk_digest.bytes[0] },
        };
        struct buf *b = context;

        if (str_eq(t->name, "refused"))
                return error_set(e, ERROR_OTHER, EXDEV, "no");
        buf_printf(b, "%s %s", types[t->type], t->name);
        if (*t->link)
                buf_printf(b, " -> %s", t->link);
        for (size_t k = 0; k < ELEMENTSOF(numbers); k++)
                if (numbers[k].value)
                        buf_printf(b, " %s=%ju", numbers[k].name, (uintmax_t) numbers[k].value);
        if (t->mtime || t->mtime_nsec)
                buf_printf(b, " t=%jd.%u", (intmax_t) t->mtime, t->mtime_nsec);
        for (size_t k = 0; k < t->xattr_count; k++)
                buf_printf(b, " {%s=%.*s}", t->xattrs[k].name, (int) t->xattrs[k].value_length,
                           (const char *) t->xattrs[k].value);
        buf_append_char(b, '\n');
        return 0;
}

/* Feeds TEXT in pieces of STEP bytes. */
static int parse_in(const char *text, size_t n, size_t step, struct buf *ret, struct error *e)
{
        _cleanup_(toc_parser_free_ptr) struct toc_parser *p = NULL;
        int r = 0;

        assert_int_equal(toc_parser_new(list, ret, &p), 0);
        for (size_t done = 0; r == 0 && done < n; done += step) {
                /* A copy, so that the sanitizer sees what is read past the end. */
                size_t length = MIN(step, n - done);
                _cleanup_free_ uint8_t *piece = malloc(length);

                memcpy(piece, text + done, length);
                r = toc_parser_feed(p, piece, length, e);
                if (r < 0)
                        assert_int_equal(toc_parser_feed(p, piece, length, NULL), r);
        }
        if (r == 0)
                r = toc_parser_finish(p, e);
        return r;
}

static void expect(const char *text, const char *expected)
{
        static const size_t steps[] = { 1, 2, 7, 64, SIZE_MAX / 2 };

        for (size_t k = 0; k < ELEMENTSOF(steps); k++) {
                _cleanup_buf_ struct buf b = { 0 };
                struct error e = ERROR_INIT;

                buf_append_str(&b, "");
                if (parse_in(text, strlen(text), steps[k], &b, &e) < 0)
                        fail_msg("%s\n%s", text, e.message);
                assert_string_equal(b.data, expected);
        }
}

static void expect_refused(const char *text, size_t n, const char *why)
{
        static const size_t steps[] = { 1, SIZE_MAX / 2 };

        for (size_t k = 0; k < ELEMENTSOF(steps); k++) {
                _cleanup_buf_ struct buf b = { 0 };
                struct error e = ERROR_INIT;

                if (parse_in(text, n, steps[k], &b, &e) != -EBADMSG)
                        fail_msg("passes: %.200s", text);
                assert_int_equal(e.kind, ERROR_BAD_DATA);
                if (!strstr(e.message, why))
                        fail_msg("%.200s\nsays: %s\nnot: %s", text, e.message, why);
        }
}

#define DOCUMENT(entries) "{\"version\":1,\"entries\":[" entries "]}"
#define REFUSED(entries, why) expect_refused(DOCUMENT(entries), strlen(DOCUMENT(entries)), why)

static void entries_come_with_all_their_members(_unused_ void **state)
{
        expect(DOCUMENT(""), "");
        expect(" {\"entries\" : [ {\"name\":\"a/\",\"type\":\"dir\",\"mode\":493} ] ,\n\t\"version\": 1} \n",
               "dir a/ mode=493\n");
        expect(DOCUMENT(
                       "{\"type\":\"reg\",\"name\":\"f\",\"size\":9223372036854775807,\"mode\":2541,\"uid\":4294967295,"
                       "\"gid\":3,\"offset\":4,\"endOffset\":5,\"innerOffset\":6,\"chunkSize\":7,\"digest\":\"" SHA
                       "\","
                       "\"chunkDigest\":\"" SHA "\",\"userName\":\"root\",\"groupName\":\"x\","
                       "\"accesstime\":\"nonsense\",\"modtime\":\"1970-01-01T00:00:05.25Z\"},"
                       "{\"type\":\"chunk\",\"chunkOffset\":8,\"chunkType\":\"zeros\"},"
                       "{\"type\":\"chunk\",\"name\":\"f\",\"chunkType\":\"\"}"),
               "reg f size=9223372036854775807 mode=2541 uid=4294967295 gid=3 offset=4 end=5 inner=6 length=7 digest=220 "
               "chunk=220 t=5.250000000\nchunk  at=8 zeros=1\nchunk f\n");
        expect(DOCUMENT("{\"type\":\"symlink\",\"name\":\"s\",\"linkName\":\"../x\"},"
                        "{\"type\":\"hardlink\",\"name\":\"h\",\"linkName\":\"s\"},"
                        "{\"type\":\"char\",\"name\":\"c\",\"devMajor\":4095,\"devMinor\":1048575},"
                        "{\"type\":\"block\",\"name\":\"b\",\"devMajor\":8},{\"type\":\"fifo\",\"name\":\"p\"}"),
               "symlink s -> ../x\nhardlink h -> s\nchar c major=4095 minor=1048575\nblock b major=8\nfifo p\n");
}

static void strings_are_decoded(_unused_ void **state)
{
        expect(DOCUMENT("{\"type\":\"dir\",\"name\":\"a\\n\\u0041\\\"\\\\\\/\\u00e9\\u65e5 \xc5\x82\"}"),
               "dir a\nA\"\\/\xc3\xa9\xe6\x97\xa5 \xc5\x82\n");
        /* a backslash and then what looks like an escape */
        expect(DOCUMENT("{\"type\":\"dir\",\"name\":\"\\\\ud800\"}"), "dir \\ud800\n");
        expect(DOCUMENT("{\"type\":\"dir\",\"name\":\"\\ud7ff\\ue000\"}"), "dir \xed\x9f\xbf\xee\x80\x80\n");
        expect(DOCUMENT("{\"type\":\"dir\",\"name\":\"\\ud83d\\ude00\"}"), "dir \xf0\x9f\x98\x80\n");
}

/* Each entry begins afresh. */
static void nothing_is_left_of_the_entry_before(_unused_ void **state)
{
        expect(DOCUMENT("{\"type\":\"symlink\",\"name\":\"s\",\"linkName\":\"x\",\"uid\":7,\"digest\":\"" SHA "\","
                        "\"xattrs\":{\"user.a\":\"MQ==\"},\"modtime\":\"1970-01-01T00:00:05Z\"},"
                        "{\"type\":\"dir\",\"name\":\"d\"}"),
               "symlink s -> x uid=7 digest=220 t=5.0 {user.a=1}\ndir d\n");
}

static void unknown_and_null_members_are_passed_over(_unused_ void **state)
{
        expect("{\"x\":[[{\"entries\":[{}]}]],\"tarSplitDigest\":\"" SHA "\",\"version\":1,\"y\":{\"a\":{}},\"z\":null,"
               "\"entries\":[{\"type\":\"dir\",\"q\":{\"name\":\"no\",\"xattrs\":{\"a\":[1]}},\"name\":\"d\",\"r\":[{}],"
               "\"s\":1.5e300,\"t\":true,\"u\":-1,\"uid\":null,\"xattrs\":null,\"linkName\":null}]}",
               "dir d\n");
}

static void xattrs_are_decoded_from_base64(_unused_ void **state)
{
        expect(DOCUMENT("{\"type\":\"dir\",\"name\":\"d\",\"xattrs\":{\"user.b\":\"aGVsbG8=\",\"user.empty\":\"\","
                        "\"user.null\":null,\"user.a\":\"QQ==\"}}"),
               "dir d {user.b=hello} {user.a=A}\n");
}

static void malformed_json_is_refused_with_its_place(_unused_ void **state)
{
        static const struct {
                const char *text, *why;
        } cases[] = {
                { "", "JSON, byte 0" },
                { "{", "JSON, byte 1" },
                { DOCUMENT("") "x", "JSON, byte 26: more behind its end" },
                { DOCUMENT("") DOCUMENT(""), "JSON, byte 26: more behind its end" },
                { DOCUMENT("") "\"x", "JSON, byte 26: more behind its end" },
                { DOCUMENT("") " \n\"x\\", "JSON, byte 28: more behind its end" },
                { DOCUMENT("{\"type\" \"dir\"}"), "JSON, byte 3" },
                { DOCUMENT("{\"type\":\"dir\",}"), "JSON, byte" },
                { DOCUMENT("{\"name\":\"\xff\"}"), "JSON, byte" },
                { DOCUMENT("{\"name\":\"a\nb\"}"), "JSON, byte" },
                { DOCUMENT("{\"name\":\"\\u12\"}"), "JSON, byte" },
                { DOCUMENT("{\"size\":01}"), "JSON, byte" },
                { DOCUMENT("/* */"), "JSON, byte" },
                { "{\"version\":1,\"entries\":[", "JSON, byte" },
                { DOCUMENT("{\"name\":\"\\uDBFF\"}"), "half a character" },
        };

        for (size_t k = 0; k < ELEMENTSOF(cases); k++)
                expect_refused(cases[k].text, strlen(cases[k].text), cases[k].why);
        expect_refused("{\0}", 3, "JSON, byte 1: a control character");
}

static void other_documents_are_refused(_unused_ void **state)
{
        static const struct {
                const char *text, *why;
        } cases[] = {
                { "1", "the JSON is no object" },
                { "null", "the JSON is no object" },
                { "\"x\"", "the JSON is no object" },
                { "[]", "the JSON is no object" },
                { "{}", "the JSON has no " },
                { "{\"version\":1}", "the JSON has no entries" },
                { "{\"entries\":[]}", "the JSON has no version" },
                { "{\"version\":2,\"entries\":[]}", "version 2" },
                { "{\"version\":\"1\",\"entries\":[]}", "version has a value of the wrong type" },
                { "{\"version\":null,\"entries\":[]}", "version has a value of the wrong type" },
                { "{\"version\":1,\"entries\":{}}", "entries has a value of the wrong type" },
                { "{\"version\":1,\"entries\":null}", "entries has a value of the wrong type" },
                { "{\"version\":1,\"entries\":[],\"entries\":[]}", "entries twice" },
                { "{\"version\":1,\"Entries\":[]}", "a member named Entries" },
                { DOCUMENT("null"), "an element of entries is no object" },
                { DOCUMENT("[]"), "an element of entries is no object" },
                { DOCUMENT("3"), "an element of entries is no object" },
        };

        for (size_t k = 0; k < ELEMENTSOF(cases); k++)
                expect_refused(cases[k].text, strlen(cases[k].text), cases[k].why);
}

static void members_that_are_wrong_are_named(_unused_ void **state)
{
        REFUSED("{}", "entry 1: no type");
        REFUSED("{\"type\":\"dir\",\"name\":\"a\"},{\"type\":\"dir\"}", "entry 2: no name");
        REFUSED("{\"name\":\"a\"}", "entry 1 (a): no type");
        REFUSED("{\"name\":\"a\",\"type\":\"socket\"}", "entry 1 (a): an unknown type");
        REFUSED("{\"name\":\"a\",\"chunkType\":\"ones\"}", "an unknown chunkType");
        REFUSED("{\"name\":\"a\",\"size\":-1}",
                "entry 1 (a): size is not a whole number from 0 to 9223372036854775807");
        REFUSED("{\"size\":9223372036854775808}", "size is not a whole number");
        REFUSED("{\"size\":18446744073709551617}", "size is not a whole number");
        REFUSED("{\"size\":100000000000000000000000000000000000}", "size is not a whole number");
        REFUSED("{\"size\":1.0}", "size is not a whole number");
        REFUSED("{\"size\":1e3}", "size is not a whole number");
        REFUSED("{\"size\":\"1\"}", "size has a value of the wrong type");
        REFUSED("{\"size\":true}", "size has a value of the wrong type");
        REFUSED("{\"size\":[1]}", "size has a value of the wrong type");
        REFUSED("{\"size\":{}}", "size has a value of the wrong type");
        REFUSED("{\"uid\":4294967296}", "uid is not a whole number from 0 to 4294967295");
        REFUSED("{\"devMajor\":4096}", "devMajor is not a whole number from 0 to 4095");
        REFUSED("{\"devMinor\":1048576}", "devMinor is not a whole number from 0 to 1048575");
        REFUSED("{\"name\":1}", "name has a value of the wrong type");
        REFUSED("{\"name\":\"a\\u0000b\"}", "name: a NUL");
        REFUSED("{\"linkName\":\"\\u0000\"}", "linkName: a NUL");
        REFUSED("{\"modtime\":\"yesterday\"}", "modtime");
        REFUSED("{\"modtime\":\"\"}", "modtime");
        REFUSED("{\"modtime\":5}", "modtime has a value of the wrong type");
        REFUSED("{\"digest\":\"sha256:00\"}", "digest: no SHA-256");
        REFUSED("{\"digest\":\"" SHA "\\u0000\"}", "digest: no SHA-256");
        REFUSED("{\"chunkDigest\":\"md5:00\"}", "chunkDigest: no SHA-256");
        REFUSED("{\"name\":\"a\",\"xattrs\":[]}", "xattrs has a value of the wrong type");
        REFUSED("{\"name\":\"a\",\"xattrs\":{\"\":\"\"}}", "entry 1 (a): an xattr's name");
        REFUSED("{\"name\":\"a\",\"xattrs\":{\"user.\\u0000\":\"\"}}", "an xattr's name");
        REFUSED("{\"name\":\"a\",\"xattrs\":{\"user.x\":\"?\"}}", "entry 1 (a): xattr user.x is not in base64");
        REFUSED("{\"name\":\"a\",\"xattrs\":{\"user.x\":1}}", "an xattr is no string");
        REFUSED("{\"name\":\"a\",\"xattrs\":{\"user.x\":{}}}", "an xattr is no string");
}

static void members_that_readers_take_differently_are_refused(_unused_ void **state)
{
        REFUSED("{\"name\":\"a\",\"size\":1,\"size\":2}", "entry 1 (a): size twice");
        REFUSED("{\"name\":\"a\",\"Name\":\"b\"}", "entry 1 (a): a member named Name");
        REFUSED("{\"name\":\"a\",\"linkname\":\"b\"}", "a member named linkname, which some take for linkName");
        REFUSED("{\"xattrs\":{},\"xattrs\":{}}", "xattrs twice");
}

static void callbacks_error_ends_the_parse(_unused_ void **state)
{
        static const char text[] =
                DOCUMENT("{\"type\":\"dir\",\"name\":\"a\"},{\"type\":\"dir\",\"name\":\"refused\"}");
        _cleanup_buf_ struct buf b = { 0 };
        struct error e = ERROR_INIT;

        assert_int_equal(parse_in(text, strlen(text), 5, &b, &e), -EXDEV);
        assert_string_equal(e.message, "entry 2: no");
        assert_string_equal(b.data, "dir a\n");
}

/* ---- bounds ---- */

static void repeat(struct buf *b, const char *s, size_t count)
{
        while (count-- > 0)
                assert_int_equal(buf_append_str(b, s), 0);
}

static void expect_buf_refused(const struct buf *b, const char *why)
{
        _cleanup_buf_ struct buf out = { 0 };
        struct error e = ERROR_INIT;

        assert_int_equal(parse_in(b->data, b->len, 70000, &out, &e), -EBADMSG);
        if (!strstr(e.message, why))
                fail_msg("%s\nnot: %s", e.message, why);
}

static void nesting_is_bounded(_unused_ void **state)
{
        static const char *const opens[] = { "[", "{\"a\":" };

        for (size_t k = 0; k < ELEMENTSOF(opens); k++) {
                _cleanup_buf_ struct buf b = { 0 };

                buf_append_str(&b, "{\"x\":");
                repeat(&b, opens[k], 100000);
                expect_buf_refused(&b, "nests more than 32 deep");
        }
}

static void tokens_are_bounded(_unused_ void **state)
{
        static const char *const begins[] = {
                "{\"x\":\"",
                "{\"",
                "{\"x\":1",
                "{\"version\":1,\"entries\":[{\"name\":\"",
                "{\"version\":1,\"entries\":[{\"xattrs\":{\"user.x\":\"",
        };

        for (size_t k = 0; k < ELEMENTSOF(begins); k++) {
                _cleanup_buf_ struct buf b = { 0 };

                buf_append_str(&b, begins[k]);
                repeat(&b, "1111111111", 200000);
                expect_buf_refused(&b, "a string, number or word that is too long");
        }
}

/* With escapes, so that it is decoded, too. */
static void longest_token_is_taken(_unused_ void **state)
{
        _cleanup_buf_ struct buf b = { 0 }, out = { 0 };
        struct error e = ERROR_INIT;

        buf_append_str(&b, "{\"x\":\"");
        repeat(&b, "\\u0041\\n..", (MIB - 200000) / 10);
        buf_append_str(&b, "\",\"version\":1,\"entries\":[]}");
        if (parse_in(b.data, b.len, 999, &out, &e) < 0)
                fail_msg("%s", e.message);
}

static void names_and_xattrs_are_bounded(_unused_ void **state)
{
        static const struct {
                const char *begin, *piece;
                size_t count;
                const char *end, *why;
        } cases[] = {
                { "{\"name\":\"", "a", ITABLE_PATH_MAX + 1, "\"}", "name: longer than 4096 bytes" },
                { "{\"linkName\":\"", "a", ITABLE_PATH_MAX + 1, "\"}", "linkName: longer than 4096 bytes" },
                { "{\"xattrs\":{\"", "a", 256, "\":\"\"}}", "an xattr's name" },
                { "{\"xattrs\":{\"a\":\"", "AAAA", 21847, "\"}}", "xattr a is longer than 65536 bytes" },
                { "{\"xattrs\":{", "\"a\":\"\",", 4097, "}}", "more than 4096 xattrs" },
                { "{\"digest\":\"", "a", 1000, "\"}", "digest: no SHA-256" },
                { "{\"type\":\"", "a", 1000, "\"}", "an unknown type" },
        };

        for (size_t k = 0; k < ELEMENTSOF(cases); k++) {
                _cleanup_buf_ struct buf b = { 0 };

                buf_append_str(&b, "{\"version\":1,\"entries\":[");
                buf_append_str(&b, cases[k].begin);
                repeat(&b, cases[k].piece, cases[k].count);
                buf_append_str(&b, cases[k].end);
                expect_buf_refused(&b, cases[k].why);
        }
}

static void sum_of_xattrs_is_bounded(_unused_ void **state)
{
        _cleanup_buf_ struct buf b = { 0 };

        buf_append_str(&b, "{\"version\":1,\"entries\":[{\"xattrs\":{");
        for (unsigned k = 0; k < 17; k++) {
                buf_printf(&b, "%s\"user.%u\":\"", k ? "," : "", k);
                repeat(&b, "AAAA", 21845);
                buf_append_str(&b, "\"");
        }
        expect_buf_refused(&b, "more than 1 MiB of xattrs");
}

static void longest_name_is_taken(_unused_ void **state)
{
        _cleanup_buf_ struct buf b = { 0 }, out = { 0 };
        struct error e = ERROR_INIT;

        buf_append_str(&b, "{\"version\":1,\"entries\":[{\"type\":\"dir\",\"name\":\"");
        repeat(&b, "\\u0061", ITABLE_PATH_MAX);
        buf_append_str(&b, "\"}]}");
        assert_int_equal(parse_in(b.data, b.len, 100, &out, &e), 0);
        assert_int_equal(out.len, strlen("dir \n") + ITABLE_PATH_MAX);
}

/* ---- times ---- */

static void times_are_those_of_rfc_3339(_unused_ void **state)
{
        static const struct {
                const char *text;
                int64_t seconds;
                uint32_t nanoseconds;
        } good[] = {
                { "1970-01-01T00:00:00Z", 0, 0 },
                { "2023-11-14T22:13:20.123456789Z", 1700000000, 123456789 },
                { "2023-11-14T22:13:20.5Z", 1700000000, 500000000 },
                { "2023-11-14T22:13:20.1234567899Z", 1700000000, 123456789 },
                { "2023-11-14T23:13:20+01:00", 1700000000, 0 },
                { "2023-11-14T16:43:20-05:30", 1700000000, 0 },
                { "1969-12-31T23:59:59.75Z", -1, 750000000 },
                { "1969-12-31T00:00:00Z", -86400, 0 },
                { "0001-01-01T00:00:00Z", -62135596800, 0 },
                { "9999-12-31T23:59:59Z", 253402300799, 0 },
                { "2024-02-29T00:00:00Z", 1709164800, 0 },
        };
        static const char *const bad[] = {
                "",
                "Z",
                "2023-11-14",
                "2023-11-14T22:13:20",
                "2023-11-14 22:13:20Z",
                "2023-11-14T22:13:20.Z",
                "2023-11-14T22:13:20Zx",
                "2023-11-14T22:13:20+0100",
                "2023-11-14T22:13:20+24:00",
                "2023-13-14T22:13:20Z",
                "2023-00-14T22:13:20Z",
                "2023-11-00T22:13:20Z",
                "2023-11-31T22:13:20Z",
                "2023-02-29T22:13:20Z",
                "2023-11-14T24:13:20Z",
                "2023-11-14T22:60:20Z",
                "2023-11-14T22:13:60Z",
                "23-11-14T22:13:20Z",
                "+2023-11-14T22:13:20Z",
                "2023-11-14t22:13:20z",
                "2023-1-14T22:13:20Z",
                "2023-11-14T22:13:20.-5Z",
                "12023-11-14T22:13:20Z",
                "2023-11-14T22:13:20,5Z",
        };
        uint32_t nanoseconds = 7;
        int64_t seconds = 7;

        for (size_t k = 0; k < ELEMENTSOF(bad); k++)
                if (toc_time_parse(bad[k], strlen(bad[k]), &seconds, &nanoseconds) != -EINVAL)
                        fail_msg("passes: %s", bad[k]);
        assert_int_equal(seconds, 7);
        assert_int_equal(nanoseconds, 7);
        for (size_t k = 0; k < ELEMENTSOF(good); k++) {
                if (toc_time_parse(good[k].text, strlen(good[k].text), &seconds, &nanoseconds) < 0)
                        fail_msg("refused: %s", good[k].text);
                assert_int_equal(seconds, good[k].seconds);
                assert_int_equal(nanoseconds, good[k].nanoseconds);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(entries_come_with_all_their_members),
                cmocka_unit_test(strings_are_decoded),
                cmocka_unit_test(nothing_is_left_of_the_entry_before),
                cmocka_unit_test(unknown_and_null_members_are_passed_over),
                cmocka_unit_test(xattrs_are_decoded_from_base64),
                cmocka_unit_test(malformed_json_is_refused_with_its_place),
                cmocka_unit_test(other_documents_are_refused),
                cmocka_unit_test(members_that_are_wrong_are_named),
                cmocka_unit_test(members_that_readers_take_differently_are_refused),
                cmocka_unit_test(callbacks_error_ends_the_parse),
                cmocka_unit_test(nesting_is_bounded),
                cmocka_unit_test(tokens_are_bounded),
                cmocka_unit_test(longest_token_is_taken),
                cmocka_unit_test(names_and_xattrs_are_bounded),
                cmocka_unit_test(sum_of_xattrs_is_bounded),
                cmocka_unit_test(longest_name_is_taken),
                cmocka_unit_test(times_are_those_of_rfc_3339),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
