/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "regfs/error.h"
#include "regfs/text.h"

#define MESSAGE_MAX (sizeof(((struct error *) NULL)->message) - 1)

static char *repeat(const char *s, size_t times)
{
        _cleanup_buf_ struct buf b = { 0 };

        for (size_t k = 0; k < times; k++)
                assert_int_equal(buf_append_str(&b, s), 0);
        return buf_steal(&b);
}

static bool is_utf8(const char *s)
{
        size_t left = strlen(s), n;

        for (; left > 0; s += n, left -= n) {
                n = utf8_length(s, left);
                if (n == 0)
                        return false;
        }
        return true;
}

static void set_fills_all_and_returns_the_negative_code(void **state _unused_)
{
        struct error e = ERROR_INIT;

        assert_int_equal(e.kind, ERROR_NONE);
        assert_int_equal(error_set(&e, ERROR_DENIED, EACCES, "blob %d of %s", 3, "alpine"), -EACCES);
        assert_int_equal(e.kind, ERROR_DENIED);
        assert_int_equal(e.code, EACCES);
        assert_string_equal(e.message, "blob 3 of alpine");

        assert_int_equal(error_set(&e, ERROR_USAGE, EINVAL, "other"), -EINVAL);
        assert_int_equal(e.kind, ERROR_USAGE);
        assert_string_equal(e.message, "other");
}

static void set_without_a_code_is_eio(void **state _unused_)
{
        struct error e = ERROR_INIT;

        assert_int_equal(error_set(&e, ERROR_OTHER, 0, "x"), -EIO);
        assert_int_equal(e.code, EIO);
        assert_int_equal(error_errno(&e, 0, "x"), -EIO);
        assert_string_equal(e.message, "x: Input/output error");
        assert_int_equal(e.code, EIO);
}

static void nobody_needs_to_listen(void **state _unused_)
{
        assert_int_equal(error_set(NULL, ERROR_OTHER, ENOSPC, "x"), -ENOSPC);
        assert_int_equal(error_errno(NULL, ENOENT, "x"), -ENOENT);
        assert_true(error_prefix(NULL, "x") < 0);
        assert_int_equal(error_oom(NULL), -ENOMEM);
}

static void kind_follows_from_the_errno_value(void **state _unused_)
{
        static const struct {
                int code;
                enum error_kind kind;
        } table[] = {
                { EACCES, ERROR_DENIED },
                { EPERM, ERROR_DENIED },
                { ENOENT, ERROR_NOT_FOUND },
                { ENOTDIR, ERROR_NOT_FOUND },
                { EBADMSG, ERROR_BAD_DATA },
                { ETIMEDOUT, ERROR_UNREACHABLE },
                { ECONNREFUSED, ERROR_UNREACHABLE },
                { ECONNRESET, ERROR_UNREACHABLE },
                { ENETUNREACH, ERROR_UNREACHABLE },
                { EHOSTUNREACH, ERROR_UNREACHABLE },
                { ENOMEM, ERROR_OTHER },
                { EIO, ERROR_OTHER },
        };

        for (size_t k = 0; k < ELEMENTSOF(table); k++) {
                struct error e = ERROR_INIT;

                assert_int_equal(error_errno(&e, table[k].code, "what"), -table[k].code);
                assert_int_equal(e.kind, table[k].kind);
                assert_int_equal(e.code, table[k].code);
        }
}

static void errno_value_is_spelled_out(void **state _unused_)
{
        struct error e = ERROR_INIT;

        error_errno(&e, ENOENT, "cannot open %s", "/a/b");
        assert_string_equal(e.message, "cannot open /a/b: No such file or directory");
        error_errno(&e, 99999, "what");
        assert_string_equal(e.message, "what: unknown error");
}

static void prefix_keeps_kind_code_and_cause(void **state _unused_)
{
        struct error e = ERROR_INIT;

        error_set(&e, ERROR_BAD_DATA, EBADMSG, "digest is a");
        assert_int_equal(error_prefix(&e, "layer %d", 2), -EBADMSG);
        assert_int_equal(error_prefix(&e, "alpine:edge"), -EBADMSG);
        assert_int_equal(e.kind, ERROR_BAD_DATA);
        assert_string_equal(e.message, "alpine:edge: layer 2: digest is a");
}

static void message_may_be_made_from_itself(void **state _unused_)
{
        struct error e = ERROR_INIT;

        error_set(&e, ERROR_OTHER, EIO, "a");
        error_set(&e, ERROR_OTHER, EIO, "%s and b", e.message);
        assert_string_equal(e.message, "a and b");
        error_prefix(&e, "<%s>", e.message);
        assert_string_equal(e.message, "<a and b>: a and b");
}

static void control_characters_are_escaped_once(void **state _unused_)
{
        struct error e = ERROR_INIT;

        error_set(&e, ERROR_OTHER, EIO, "%s", "a\nb\x1b[31m\x7f\t\xff\xc2\x9b caf\xc3\xa9");
        assert_string_equal(e.message, "a\\nb\\x1b[31m\\x7f\\t\\xff\\xc2\\x9b caf\xc3\xa9");
        error_prefix(&e, "%s", "\r");
        assert_string_equal(e.message, "\\r: a\\nb\\x1b[31m\\x7f\\t\\xff\\xc2\\x9b caf\xc3\xa9");
        error_errno(&e, EIO, "%s", "\n");
        assert_string_equal(e.message, "\\n: Input/output error");
}

static void long_message_is_cut_between_characters(void **state _unused_)
{
        static const char *const characters[] = { "x", "\xc3\xa9", "\xe2\x80\xa6", "\xf0\x9f\x90\xb3" };

        for (size_t shift = 0; shift < 4; shift++) {
                for (size_t k = 0; k < ELEMENTSOF(characters); k++) {
                        _cleanup_free_ char *s = repeat(characters[k], 1200);
                        size_t width = strlen(characters[k]);
                        struct error e = ERROR_INIT;

                        error_set(&e, ERROR_OTHER, EIO, "%.*s%s", (int) shift, "---", s);
                        assert_true(is_utf8(e.message));
                        assert_null(strstr(e.message, "\\x"));
                        assert_in_range(strlen(e.message), MESSAGE_MAX - width + 1, MESSAGE_MAX);
                }
        }
}

static void cause_survives_long_prefixes(void **state _unused_)
{
        _cleanup_free_ char *s = repeat("\xc3\xa9", 2000);
        struct error e = ERROR_INIT;

        error_errno(&e, ENOSPC, "%s", s);
        assert_true(str_ends_with(e.message, ": No space left on device"));
        assert_true(is_utf8(e.message));

        error_set(&e, ERROR_OTHER, EIO, "the first cause");
        for (int k = 0; k < 5; k++)
                error_prefix(&e, "x%s", s);
        assert_true(is_utf8(e.message));
        assert_true(strlen(e.message) <= MESSAGE_MAX);
        assert_non_null(str_after(e.message, "x\xc3\xa9"));

        error_set(&e, ERROR_OTHER, EIO, "the first cause");
        error_prefix(&e, "%s", s);
        assert_true(str_ends_with(e.message, ": the first cause"));
        assert_in_range(strlen(e.message), MESSAGE_MAX - 1, MESSAGE_MAX);
}

static void prefix_of_no_error_is_an_error(void **state _unused_)
{
        struct error e = ERROR_INIT;

        assert_int_equal(error_prefix(&e, "x"), -EIO);
        assert_int_not_equal(e.kind, ERROR_NONE);
}

static void every_kind_has_its_own_name(void **state _unused_)
{
        for (enum error_kind a = ERROR_NONE; a <= ERROR_MOUNT; a++) {
                assert_true(strlen(error_kind_name(a)) > 0);
                for (enum error_kind b = ERROR_NONE; b < a; b++)
                        assert_string_not_equal(error_kind_name(a), error_kind_name(b));
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(set_fills_all_and_returns_the_negative_code),
                cmocka_unit_test(set_without_a_code_is_eio),
                cmocka_unit_test(nobody_needs_to_listen),
                cmocka_unit_test(kind_follows_from_the_errno_value),
                cmocka_unit_test(errno_value_is_spelled_out),
                cmocka_unit_test(prefix_keeps_kind_code_and_cause),
                cmocka_unit_test(message_may_be_made_from_itself),
                cmocka_unit_test(control_characters_are_escaped_once),
                cmocka_unit_test(long_message_is_cut_between_characters),
                cmocka_unit_test(cause_survives_long_prefixes),
                cmocka_unit_test(prefix_of_no_error_is_an_error),
                cmocka_unit_test(every_kind_has_its_own_name),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
