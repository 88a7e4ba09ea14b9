/* SPDX-License-Identifier: Apache-2.0 */

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "cache/blob/index_text.h"
#include "regfs/manifest.h"

/* SHA-256 of "x". */
#define DIGEST "sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
#define NEW "{\"mediaType\":\"new\",\"digest\":\"" DIGEST "\",\"size\":1}"
#define A "{\"digest\":\"" DIGEST "\",\"size\":1,\"a\":\"[\\\"\\\\\"}"
#define B "{ \"size\":2 , \"digest\":\"" DIGEST "\" , \"b\":[{},[]] }"

static int change(const char *text, size_t count, const bool *drop, struct buf *ret, struct error *e)
{
        const struct buf before = { .data = (char *) text, .len = strlen(text) };
        struct descriptor d = { .size = 1, .media_type = (char *) "new" };

        assert_int_equal(digest_parse(DIGEST, &d.digest, NULL), 0);
        return index_text_change(&before, count, drop, &d, ret, e);
}

static void expect_changed(const char *text, size_t count, const bool *drop, const char *expected)
{
        struct document d = { .body = { .data = (char *) text, .len = strlen(text) }, .media_type = (char *) "" };
        _cleanup_manifest_ struct manifest index = { 0 };
        _cleanup_buf_ struct buf after = { 0 };
        struct error e = ERROR_INIT;

        if (manifest_parse(&d, "before", &index, &e) < 0)
                fail_msg("%s", e.message);
        assert_int_equal(index.manifest_count, count);
        manifest_clear(&index);
        if (change(text, count, drop, &after, &e) < 0)
                fail_msg("%s", e.message);
        assert_string_equal(after.data, expected);
        d.body = after;
        if (manifest_parse(&d, "after", &index, &e) < 0)
                fail_msg("%s", e.message);
}

static void entry_becomes_the_last(void **state _unused_)
{
        expect_changed("{\"schemaVersion\":2,\"manifests\":[]}", 0, NULL,
                       "{\"schemaVersion\":2,\"manifests\":[" NEW "]}");
        expect_changed("{\"manifests\":[" A "],\"schemaVersion\":2}", 1, NULL,
                       "{\"manifests\":[" A "," NEW "],\"schemaVersion\":2}");
        expect_changed(" { \"schemaVersion\":2 , \"manifests\" : [ " A " , " B " ] } ", 2, NULL,
                       " { \"schemaVersion\":2 , \"manifests\" : [" A "," B "," NEW "] } ");
        expect_changed(INDEX_EMPTY, 0, NULL,
                       "{\"schemaVersion\":2,\"mediaType\":\"" INDEX_TYPE "\",\"manifests\":[" NEW "]}");
}

static void manifests_of_inner_objects_are_not_meant(void **state _unused_)
{
        expect_changed("{\"x\":{\"manifests\":[1]},\"y\":[[\"manifests\"]],\"z\":\"\\\"manifests\\\":[\",\"t\":true,"
                       "\"n\":null,"
                       "\"schemaVersion\":2,\"manifests\":[" A "]}",
                       1, NULL,
                       "{\"x\":{\"manifests\":[1]},\"y\":[[\"manifests\"]],\"z\":\"\\\"manifests\\\":[\",\"t\":true,"
                       "\"n\":null,\"schemaVersion\":2,\"manifests\":[" A "," NEW "]}");
}

static void first_of_two_members_counts_as_it_does_for_the_parser(void **state _unused_)
{
        expect_changed("{\"schemaVersion\":2,\"manifests\":[" A "],\"manifests\":[]}", 1, NULL,
                       "{\"schemaVersion\":2,\"manifests\":[" A "," NEW "],\"manifests\":[]}");
}

static void marked_entries_are_left_out(void **state _unused_)
{
        static const bool first[] = { true, false }, last[] = { false, true }, all[] = { true, true };
        static const char text[] = "{\"schemaVersion\":2,\"manifests\":[" A "," B "]}";

        expect_changed(text, 2, first, "{\"schemaVersion\":2,\"manifests\":[" B "," NEW "]}");
        expect_changed(text, 2, last, "{\"schemaVersion\":2,\"manifests\":[" A "," NEW "]}");
        expect_changed(text, 2, all, "{\"schemaVersion\":2,\"manifests\":[" NEW "]}");
}

static void text_that_is_not_what_was_parsed_is_refused(void **state _unused_)
{
        _cleanup_buf_ struct buf after = { 0 };
        struct error e = ERROR_INIT;

        assert_int_equal(change("{\"schemaVersion\":2,\"m\\u0061nifests\":[]}", 0, NULL, &after, &e), -EBADMSG);
        assert_int_equal(change("{}", 0, NULL, &after, &e), -EBADMSG);
        assert_int_equal(change("{\"manifests\":{}}", 0, NULL, &after, &e), -EBADMSG);
        assert_int_equal(change("{\"manifests\":[" A "]}", 2, NULL, &after, &e), -EBADMSG);
        assert_null(after.data);
}

static void index_does_not_grow_past_what_would_be_read(void **state _unused_)
{
        _cleanup_buf_ struct buf text = { 0 }, after = { 0 };
        struct error e = ERROR_INIT;

        assert_int_equal(buf_append_str(&text, "{\"manifests\":[],\"x\":\""), 0);
        while (text.len < MANIFEST_MAX - 10)
                assert_int_equal(buf_append_char(&text, 'x'), 0);
        assert_int_equal(buf_append_str(&text, "\"}"), 0);
        assert_int_equal(change(text.data, 0, NULL, &after, &e), -EFBIG);
}

static void descriptor_is_written_with_what_it_has(void **state _unused_)
{
        char *annotations[] = { (char *) "k\"", (char *) "v\n", (char *) "l", (char *) "", NULL };
        struct descriptor d = { .size = UINT64_C(1) << 52,
                                .artifact_type = (char *) "a/b",
                                .annotations = annotations };
        _cleanup_buf_ struct buf b = { 0 };

        assert_int_equal(digest_parse(DIGEST, &d.digest, NULL), 0);
        assert_int_equal(descriptor_write(&b, &d), 0);
        assert_string_equal(b.data, "{\"mediaType\":\"\",\"digest\":\"" DIGEST
                                    "\",\"size\":4503599627370496,\"artifactType\":\"a/b\","
                                    "\"annotations\":{\"k\\\"\":\"v\\u000a\",\"l\":\"\"}}");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(entry_becomes_the_last),
                cmocka_unit_test(manifests_of_inner_objects_are_not_meant),
                cmocka_unit_test(first_of_two_members_counts_as_it_does_for_the_parser),
                cmocka_unit_test(marked_entries_are_left_out),
                cmocka_unit_test(text_that_is_not_what_was_parsed_is_refused),
                cmocka_unit_test(index_does_not_grow_past_what_would_be_read),
                cmocka_unit_test(descriptor_is_written_with_what_it_has),
        };

        return cmocka_run_group_tests_name("index_text", tests, NULL, NULL);
}
