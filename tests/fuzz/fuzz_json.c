/* SPDX-License-Identifier: Apache-2.0 */

/* JSON of any bytes: what the reader of documents takes, the more lenient one of tables takes too; and texts survive being
 * written. */

#include <yajl/yajl_parse.h>

#include "fuzz.h"
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

struct other {
        unsigned depth, deepest;
};

static int begin(void *context)
{
        struct other *o = context;

        o->depth++;
        o->deepest = MAX(o->depth, o->deepest);
        return 1;
}

static int end(void *context)
{
        struct other *o = context;

        o->depth--;
        return 1;
}

/* Whether yajl takes it, which is to look no deeper than the other. */
static bool is_json(const uint8_t *data, size_t size)
{
        static const yajl_callbacks callbacks = {
                .yajl_start_map = begin, .yajl_end_map = end, .yajl_start_array = begin, .yajl_end_array = end
        };
        struct other o = { 0 };
        yajl_handle y = yajl_alloc(&callbacks, NULL, &o);
        bool good;

        REQUIRE(y);
        good = yajl_parse(y, data, size) == yajl_status_ok && yajl_complete_parse(y) == yajl_status_ok;
        yajl_free(y);
        return good && o.deepest <= 64;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        _cleanup_(json_free_ptr) struct json *root = NULL;
        _cleanup_free_ uint8_t *bytes = exact_bytes(data, size);
        struct error e = ERROR_INIT;
        int r = json_parse((const char *) bytes, size, &root, &e);

        REQUIRE(r < 0 || is_json(bytes, size));
        if (r < 0)
                REQUIRE(r == -EBADMSG && is_told(r, &e));
        else
                walk(root);
        return 0;
}
