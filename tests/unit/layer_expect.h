/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What a layer of some entries must become, or why it must be refused. */

#include "itable_text.h"

static inline void expect_layer(const struct layer_entry *entries, size_t count, const char *expected)
{
        struct itable t = layer_table(entries, count);
        _cleanup_free_ char *text = itable_text(&t);

        assert_string_equal(text, expected);
        itable_exact_free(&t);
}

/* ENTRIES must be refused, the last one or at the end, with a message that holds CAUSE. */
static inline void expect_refusal(const struct layer_entry *entries, size_t count, const char *cause)
{
        _cleanup_(layer_tree_free_ptr) struct layer_tree *t = NULL;
        struct error e = ERROR_INIT;
        int r = 0;

        assert_int_equal(layer_tree_new(&t), 0);
        for (size_t i = 0; i < count; i++) {
                assert_int_equal(r, 0);
                r = layer_tree_add(t, &entries[i], &e);
        }
        if (r == 0)
                r = layer_tree_finish(t, &e);
        assert_int_equal(r, -EBADMSG);
        assert_int_equal(e.kind, ERROR_BAD_DATA);
        if (!strstr(e.message, cause))
                fail_msg("\"%s\" is not in \"%s\"", cause, e.message);
}

static inline void expect_same_path(const char *written, const char *file)
{
        const struct layer_entry entry = REG(written, 1);
        _cleanup_free_ char *expected = str_printf("/ 755 implicit\n%s 644 #1\n", file);

        expect_layer(&entry, 1, expected);
}

static inline char *repeat(const char *s, size_t times)
{
        struct buf b = { 0 };

        for (size_t i = 0; i < times; i++)
                assert_int_equal(buf_append_str(&b, s), 0);
        return buf_steal(&b);
}
