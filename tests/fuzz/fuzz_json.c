/* SPDX-License-Identifier: Apache-2.0 */

/* JSON of any bytes: the scan makes the same events of it whole and in pieces, and those that yajl makes of it; the reader of
 * documents takes nothing else; and texts survive being written. */

#include <yajl/yajl_parse.h>

#include "fuzz.h"
#include "../unit/json_transcript.h"
#include "regfs/json.h"

static void check_text(const char *text)
{
        _cleanup_(json_free_ptr) struct json *again = NULL;
        _cleanup_buf_ struct buf b = { 0 };

        REQUIRE(json_quote(&b, text) == 0);
        REQUIRE(json_parse(b.data, b.len, &again, NULL) == 0);
        REQUIRE(str_eq(json_text(again), text));
}

static void walk(const struct json *v)
{
        const char *text = json_text(v);
        uint64_t number;
        bool flag;

        REQUIRE(json_is_object(v) + json_is_array(v) + json_is_null(v) + (text != NULL) + (json_u64(v, &number) == 0) +
                        (json_bool(v, &flag) == 0) <=
                1);
        if (text)
                check_text(text);
        for (const struct json *c = json_first(v); c; c = json_next(c)) {
                REQUIRE(json_is_object(v) == (json_name(c) != NULL));
                if (json_is_object(v))
                        REQUIRE(json_member(v, json_name(c)));
                walk(c);
        }
}

/* ---- yajl's events ---- */

#define YAJL_SIGN(name)                                 \
        static int yajl_##name(void *context)           \
        {                                               \
                return transcript_##name(context) == 0; \
        }
#define YAJL_TEXT(name, type)                                                   \
        static int yajl_##name(void *context, const type *text, size_t n)       \
        {                                                                       \
                return transcript_##name(context, (const char *) text, n) == 0; \
        }

YAJL_SIGN(null)
YAJL_SIGN(begin_object)
YAJL_SIGN(end_object)
YAJL_SIGN(begin_array)
YAJL_SIGN(end_array)
YAJL_TEXT(number, char)
YAJL_TEXT(string, unsigned char)
YAJL_TEXT(key, unsigned char)

static int yajl_boolean(void *context, int value)
{
        return transcript_boolean(context, value) == 0;
}

static const yajl_callbacks yajl_events = {
        .yajl_null = yajl_null,
        .yajl_boolean = yajl_boolean,
        .yajl_number = yajl_number,
        .yajl_string = yajl_string,
        .yajl_map_key = yajl_key,
        .yajl_start_map = yajl_begin_object,
        .yajl_end_map = yajl_end_object,
        .yajl_start_array = yajl_begin_array,
        .yajl_end_array = yajl_end_array,
};

static bool is_yajl_json(const uint8_t *data, size_t size, struct buf *ret)
{
        yajl_handle y = yajl_alloc(&yajl_events, NULL, ret);
        bool good;

        REQUIRE(y);
        good = yajl_parse(y, data, size) == yajl_status_ok && yajl_complete_parse(y) == yajl_status_ok;
        yajl_free(y);
        return good;
}

/* In pieces of STEP bytes; returns what is wrong, or NULL. */
static const char *scan(const uint8_t *data, size_t size, size_t step, struct buf *ret, uint64_t *ret_at)
{
        _cleanup_(json_scan_free_ptr) struct json_scan *s = NULL;
        int r = 0;

        REQUIRE(json_scan_new(&transcript_events, ret, SIZE_MAX, &s) == 0);
        for (size_t done = 0; r == 0 && done < size; done += step) {
                size_t n = MIN(step, size - done);
                _cleanup_free_ uint8_t *piece = exact_bytes(data + done, n);

                r = json_scan_feed(s, piece, n);
        }
        if (r == 0)
                r = json_scan_finish(s);
        REQUIRE((r == 0) == (json_scan_wrong(s, ret_at) == NULL));
        return json_scan_wrong(s, ret_at);
}

static bool same(const struct buf *a, const struct buf *b)
{
        return a->len == b->len && (a->len == 0 || memcmp(a->data, b->data, a->len) == 0);
}

/* yajl lets halves of characters pass, UTF-8 of too many bytes, and more white space than there is; it goes deeper, and takes a
 * string without end behind the value for nothing. */
static bool is_yajls_own(const char *wrong)
{
        return strstr(wrong, "half a character") || strstr(wrong, "not UTF-8") || strstr(wrong, "nested more") ||
               strstr(wrong, "behind its end") || str_eq(wrong, "a control character");
}

static bool check_scan(const uint8_t *data, size_t size)
{
        _cleanup_buf_ struct buf whole = { 0 }, cut = { 0 }, others = { 0 };
        uint64_t at, cut_at;
        const char *wrong = scan(data, size, SIZE_MAX / 2, &whole, &at),
                   *cut_wrong = scan(data, size, size % 11 + 1, &cut, &cut_at);
        bool other = is_yajl_json(data, size, &others);

        REQUIRE(wrong ? cut_wrong && str_eq(wrong, cut_wrong) && at == cut_at : !cut_wrong);
        REQUIRE(same(&whole, &cut));
        REQUIRE(wrong ? !other || is_yajls_own(wrong) : other && same(&whole, &others));
        return !wrong;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        _cleanup_(json_free_ptr) struct json *root = NULL;
        _cleanup_free_ uint8_t *bytes = exact_bytes(data, size);
        struct error e = ERROR_INIT;
        int r = json_parse((const char *) bytes, size, &root, &e);

        REQUIRE(check_scan(bytes, size) || r < 0);
        if (r < 0)
                REQUIRE(r == -EBADMSG && is_told(r, &e));
        else
                walk(root);
        return 0;
}
