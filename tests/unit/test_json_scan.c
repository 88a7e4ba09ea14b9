/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "json_transcript.h"

#define TOKEN_MAX 1000

struct outcome {
        int result;
        struct buf events;
        const char *wrong; /* a constant */
        uint64_t at;
};

/* TEXT in pieces of STEP bytes, each a copy of its size: so a sanitizer sees a byte too many. */
static void scan(const struct json_events *events, const char *text, size_t n, size_t step, struct outcome *ret)
{
        _cleanup_(json_scan_free_ptr) struct json_scan *s = NULL;

        *ret = (struct outcome) { 0 };
        assert_int_equal(buf_append_str(&ret->events, ""), 0);
        assert_int_equal(json_scan_new(events, &ret->events, TOKEN_MAX, &s), 0);
        for (size_t done = 0; ret->result == 0 && done < n; done += step) {
                size_t length = MIN(step, n - done);
                _cleanup_free_ char *piece = malloc(length);

                assert_non_null(piece);
                memcpy(piece, text + done, length);
                ret->result = json_scan_feed(s, piece, length);
                if (ret->result < 0)
                        assert_int_equal(json_scan_feed(s, "1", 1), ret->result);
        }
        if (ret->result == 0)
                ret->result = json_scan_finish(s);
        assert_int_equal(json_scan_finish(s), ret->result);
        ret->wrong = json_scan_wrong(s, &ret->at);
}

static const size_t steps[] = { 1, 2, 3, 5, 7, 8, 9, 16, SIZE_MAX / 2 };

static void expect_bytes(const char *text, size_t n, const char *events, size_t length)
{
        for (size_t k = 0; k < ELEMENTSOF(steps); k++) {
                struct outcome o;

                scan(&transcript_events, text, n, steps[k], &o);
                if (o.result < 0)
                        fail_msg("%s: %s, at byte %ju", text, o.wrong, (uintmax_t) o.at);
                assert_int_equal(o.events.len, length);
                assert_memory_equal(o.events.data, events, length);
                assert_null(o.wrong);
                buf_free(&o.events);
        }
}

#define EXPECT(text, events) expect_bytes(text, sizeof(text) - 1, events, sizeof(events) - 1)

/* WHY is all of the cause. */
static void refused(const char *text, size_t n, const char *why, uint64_t at)
{
        for (size_t k = 0; k < ELEMENTSOF(steps); k++) {
                struct outcome o;

                scan(&transcript_events, text, n, steps[k], &o);
                if (o.result != -EBADMSG)
                        fail_msg("%s: %s", text, o.result == 0 ? "passes" : strerror(-o.result));
                if (!str_eq(o.wrong, why) || o.at != at)
                        fail_msg("%s: %s, at byte %ju\nnot: %s, at byte %ju", text, o.wrong, (uintmax_t) o.at, why,
                                 (uintmax_t) at);
                buf_free(&o.events);
        }
}

#define REFUSED(text, why, at) refused(text, sizeof(text) - 1, why, at)

/* ---- tests ---- */

static void every_kind_of_value_is_an_event(_unused_ void **state)
{
        EXPECT("{}", "{ } ");
        EXPECT("[]", "[ ] ");
        EXPECT(" \t\r\n[ ] \t\r\n", "[ ] ");
        EXPECT("\"a\"", "'a ");
        EXPECT("\"\"", "' ");
        EXPECT("null", "null ");
        EXPECT("true ", "yes ");
        EXPECT("[false,true,null]", "[ no yes null ] ");
        EXPECT("{\"a\":1,\"b\":{\"\":[]},\"c\":\"d\"}", "{ .a #1 .b { . [ ] } .c 'd } ");
        EXPECT("[{\"a\":[[]]},[{}],2]", "[ { .a [ [ ] ] } [ { } ] #2 ] ");
        EXPECT("{\n\t\t\"name\"   :   \"a long string without anything in it\"  ,\n\t\t\t\t\t\t\t\t\t\t\"k\":0\n}",
               "{ .name 'a long string without anything in it .k #0 } ");
}

static void numbers_are_told_as_written(_unused_ void **state)
{
        EXPECT("0", "#0 ");
        EXPECT("-0", "#-0 ");
        EXPECT("[10,-7,1.50,1e5,1E+05,2e-3,-0.0e0]", "[ #10 #-7 #1.50 #1e5 #1E+05 #2e-3 #-0.0e0 ] ");
        EXPECT("123456789012345678901234567890", "#123456789012345678901234567890 ");
        REFUSED("01", "a malformed number", 0);
        REFUSED("[-]", "a malformed number", 1);
        REFUSED("[1.]", "a malformed number", 1);
        REFUSED("[.5]", "an unknown word", 1);
        REFUSED("[1e]", "a malformed number", 1);
        REFUSED("[1e+]", "a malformed number", 1);
        REFUSED("[1.e5]", "a malformed number", 1);
        REFUSED("[--1]", "a malformed number", 1);
        REFUSED("[+1]", "an unknown word", 1);
        REFUSED("[0x10]", "a malformed number", 1);
        REFUSED("[1true]", "a malformed number", 1);
        REFUSED("[1 2]", "a comma is expected, or an end", 3);
        REFUSED("-", "a malformed number", 0);
}

static void words_are_those_three(_unused_ void **state)
{
        REFUSED("[nul]", "an unknown word", 1);
        REFUSED("[nulll]", "an unknown word", 1);
        REFUSED("[True]", "an unknown word", 1);
        REFUSED("NaN", "an unknown word", 0);
        REFUSED("fals", "an unknown word", 0);
        REFUSED("[truefalse]", "an unknown word", 1);
}

static void escapes_are_decoded(_unused_ void **state)
{
        EXPECT("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "'\"\\/\b\f\n\r\t ");
        EXPECT("\"a\\u0041\\u00e9\\u20AC\\uFFFF\\u0000b\"", "'aA\xc3\xa9\xe2\x82\xac\xef\xbf\xbf\0b ");
        EXPECT("\"\\ud83d\\udc33\\uDBFF\\uDFFF\\ud800\\udc00\"", "'\xf0\x9f\x90\xb3\xf4\x8f\xbf\xbf\xf0\x90\x80\x80 ");
        EXPECT("{\"\\u0061\\\\\":\"\\\\\\\"\"}", "{ .a\\ '\\\" } ");
        REFUSED("[\"\\x\"]", "an unknown escape in a string", 2);
        REFUSED("[\"ab\\U0041\"]", "an unknown escape in a string", 4);
        REFUSED("[\"\\u12\"]", "an unknown escape in a string", 2);
        REFUSED("[\"\\u12g4\"]", "an unknown escape in a string", 2);
        REFUSED("[\"\\u 123\"]", "an unknown escape in a string", 2);
        REFUSED("[\"\\ud83d\"]", "a \\u escape of half a character", 2);
        REFUSED("[\"\\ud83dx\\udc33\"]", "a \\u escape of half a character", 2);
        REFUSED("[\"\\ud83d\\n\\udc33\"]", "a \\u escape of half a character", 2);
        REFUSED("[\"\\ud83d\\ud83d\"]", "a \\u escape of half a character", 2);
        REFUSED("[\"\\udc33\\ud83d\"]", "a \\u escape of half a character", 2);
        REFUSED("[\"\\ud83d\\u0041\"]", "a \\u escape of half a character", 2);
        REFUSED("[\"\\ud83d\\udc3\"]", "a \\u escape of half a character", 2);
}

static void strings_are_utf8(_unused_ void **state)
{
        EXPECT("\"\xc3\xa9 \xe6\x97\xa5 \xf0\x9f\x90\xb3 0123456789 \x7f\"",
               "'\xc3\xa9 \xe6\x97\xa5 \xf0\x9f\x90\xb3 0123456789 \x7f ");
        REFUSED("[\"\xff\"]", "a string that is not UTF-8", 2);
        REFUSED("[\"0123456789\x80\"]", "a string that is not UTF-8", 12);
        REFUSED("[\"\xc0\x80\"]", "a string that is not UTF-8", 2);
        REFUSED("[\"\xed\xa0\x80\"]", "a string that is not UTF-8", 2);
        REFUSED("[\"\xf4\x90\x80\x80\"]", "a string that is not UTF-8", 2);
        REFUSED("[\"\xe2\x80\"]", "a string that is not UTF-8", 2);
        REFUSED("{\"a\xe2\x80\":1}", "a string that is not UTF-8", 3);
}

/* Each byte at each place of a word of eight: as it is, or what is wrong with it. */
static void every_byte_is_looked_at(_unused_ void **state)
{
        for (unsigned c = 0; c < 256; c++)
                for (size_t place = 0; place < 20; place++) {
                        char text[] = "\"....................\"", events[] = "'.................... ";
                        struct outcome o;

                        text[1 + place] = events[1 + place] = (char) c;
                        scan(&transcript_events, text, sizeof(text) - 1, sizeof(text), &o);
                        if (c == '"')
                                assert_string_equal(o.wrong, "more behind its end");
                        else if (c == '\\')
                                assert_string_equal(o.wrong, place == 19 ? "a string without end"
                                                                         : "an unknown escape in a string");
                        else if (c < 0x20)
                                assert_string_equal(o.wrong, "a control character in a string");
                        else if (c >= 0x80)
                                assert_string_equal(o.wrong, "a string that is not UTF-8");
                        else
                                assert_string_equal(o.events.data, events);
                        buf_free(&o.events);
                }
}

/* And between tokens. */
static void white_space_is_four_bytes(_unused_ void **state)
{
        for (unsigned c = 0; c < 0x30; c++)
                for (size_t place = 0; place < 20; place++) {
                        char text[] = "[                    1]";
                        bool space = c == ' ' || c == '\t' || c == '\n' || c == '\r';
                        struct outcome o;

                        if (c == '-' && place == 19)
                                continue; /* a number */
                        text[1 + place] = (char) c;
                        scan(&transcript_events, text, sizeof(text) - 1, sizeof(text), &o);
                        assert_int_equal(o.result, space ? 0 : -EBADMSG);
                        assert_int_equal(o.at, !space && c != '"' ? 1 + place : o.at);
                        buf_free(&o.events);
                }
}

static void controls_in_strings_are_refused(_unused_ void **state)
{
        REFUSED("[\"a\nb\"]", "a control character in a string", 3);
        REFUSED("[\"a\0b\"]", "a control character in a string", 3);
        REFUSED("{\"\x1f\":1}", "a control character in a string", 2);
}

static void grammar_is_kept(_unused_ void **state)
{
        REFUSED("[,]", "a value is expected", 1);
        REFUSED("[1,]", "an unexpected ]", 3);
        REFUSED("[1,,2]", "a value is expected", 3);
        REFUSED("{,}", "a member's name is expected", 1);
        REFUSED("{\"a\":1,}", "an unexpected }", 7);
        REFUSED("{\"a\",1}", "a colon is expected", 4);
        REFUSED("{\"a\" \"b\"}", "a colon is expected", 5);
        REFUSED("{\"a\"}", "an unexpected }", 4);
        REFUSED("{\"a\":}", "an unexpected }", 5);
        REFUSED("{\"a\"::1}", "a value is expected", 5);
        REFUSED("{\"a\":1 \"b\":2}", "a comma is expected, or an end", 7);
        REFUSED("{\"a\":1:2}", "a comma is expected, or an end", 6);
        REFUSED("{1:2}", "a member's name is expected", 1);
        REFUSED("{[]:2}", "a member's name is expected", 1);
        REFUSED("[\"a\":1]", "a comma is expected, or an end", 4);
        REFUSED("[1}", "an unexpected }", 2);
        REFUSED("{\"a\":1]", "an unexpected ]", 6);
        REFUSED("]", "an unexpected ]", 0);
        REFUSED("[1]]", "an unexpected ]", 3);
        REFUSED("{} {}", "more behind its end", 3);
        REFUSED("1,2", "more behind its end", 1);
        REFUSED("\"a\"\"b\"", "more behind its end", 3);
        REFUSED("null null", "more behind its end", 5);
        REFUSED("[/* */]", "a value is expected", 1);
        REFUSED("['a']", "a value is expected", 1);
        REFUSED("[\x0b]", "a control character", 1);
        REFUSED("\xef\xbb\xbf{}", "an unexpected byte", 0);
        REFUSED("[\x7f]", "an unexpected byte", 1);
}

static void end_that_is_missing_is_told(_unused_ void **state)
{
        REFUSED("", "it ends early", 0);
        REFUSED("  ", "it ends early", 2);
        REFUSED("[", "it ends early", 1);
        REFUSED("[1", "it ends early", 2);
        REFUSED("[1,", "it ends early", 3);
        REFUSED("{\"a\"", "it ends early", 4);
        REFUSED("{\"a\": ", "it ends early", 6);
        REFUSED("[\"abc", "a string without end", 5);
        REFUSED("[\"abc\\", "a string without end", 6);
        REFUSED("[\"abc\\\"", "a string without end", 7);
}

static void nesting_is_bounded(_unused_ void **state)
{
        char text[2 * JSON_DEPTH_MAX + 3] = "";
        struct outcome o;

        memset(text, '[', JSON_DEPTH_MAX);
        memset(text + JSON_DEPTH_MAX, ']', JSON_DEPTH_MAX);
        scan(&transcript_events, text, strlen(text), 10, &o);
        assert_int_equal(o.result, 0);
        assert_int_equal(o.events.len, 4 * JSON_DEPTH_MAX);
        buf_free(&o.events);

        memset(text, '[', sizeof(text) - 1);
        refused(text, strlen(text), "nested more than 64 deep", JSON_DEPTH_MAX);
        for (size_t k = 0; k + 5 < sizeof(text); k += 5)
                memcpy(text + k, "{\"\":", 5);
        scan(&transcript_events, text, strlen(text), 10, &o);
        assert_string_equal(o.wrong, "it ends early");
        buf_free(&o.events);
}

/* What a piece has all of may be longer: it is not kept. */
static void what_is_held_is_bounded(_unused_ void **state)
{
        static const char begins[] = "\"19n";

        for (size_t k = 0; begins[k]; k++) {
                char text[TOKEN_MAX + 100];
                struct outcome o;

                memset(text, begins[k] == '"' ? 'x' : begins[k], sizeof(text));
                text[0] = begins[k];
                scan(&transcript_events, text, sizeof(text), 10, &o);
                assert_int_equal(o.result, -EBADMSG);
                assert_string_equal(o.wrong, "a string, number or word that is too long");
                assert_int_equal(o.at, 0);
                buf_free(&o.events);
        }
}

static int stop(void *context, const char *text, size_t n)
{
        return n == 4 && memcmp(text, "stop", n) == 0 ? -EXDEV : transcript_string(context, text, n);
}

static void callbacks_error_ends_the_scan(_unused_ void **state)
{
        struct json_events stopping = transcript_events;

        stopping.string = stop;
        for (size_t k = 0; k < ELEMENTSOF(steps); k++) {
                struct outcome o;

                scan(&stopping, "[1,\"stop\",2]", 12, steps[k], &o);
                assert_int_equal(o.result, -EXDEV);
                assert_null(o.wrong);
                assert_string_equal(o.events.data, "[ #1 ");
                buf_free(&o.events);
        }
}

static void events_that_nobody_wants_are_checked_all_the_same(_unused_ void **state)
{
        static const struct json_events none;
        static const char good[] = "{\"a\":[1,true,null,\"\\u0041\",{}]}", bad[] = "{\"a\":[1,\"\\ud800\"]}";
        struct outcome o;

        scan(&none, good, strlen(good), 4, &o);
        assert_int_equal(o.result, 0);
        assert_int_equal(o.events.len, 0);
        buf_free(&o.events);
        scan(&none, bad, strlen(bad), 4, &o);
        assert_int_equal(o.result, -EBADMSG);
        buf_free(&o.events);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(every_kind_of_value_is_an_event),
                cmocka_unit_test(numbers_are_told_as_written),
                cmocka_unit_test(words_are_those_three),
                cmocka_unit_test(escapes_are_decoded),
                cmocka_unit_test(strings_are_utf8),
                cmocka_unit_test(every_byte_is_looked_at),
                cmocka_unit_test(white_space_is_four_bytes),
                cmocka_unit_test(controls_in_strings_are_refused),
                cmocka_unit_test(grammar_is_kept),
                cmocka_unit_test(end_that_is_missing_is_told),
                cmocka_unit_test(nesting_is_bounded),
                cmocka_unit_test(what_is_held_is_bounded),
                cmocka_unit_test(callbacks_error_ends_the_scan),
                cmocka_unit_test(events_that_nobody_wants_are_checked_all_the_same),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
