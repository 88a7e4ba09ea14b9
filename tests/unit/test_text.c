/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>

#include "regfs/text.h"

static void buffer_keeps_everything_and_its_nul(void **state _unused_)
{
        _cleanup_buf_ struct buf b = { 0 };

        for (int k = 0; k < 1000; k++) {
                assert_int_equal(buf_append(&b, "ab", 2), 0);
                assert_int_equal(buf_append_str(&b, "c"), 0);
                assert_int_equal(buf_append_char(&b, '\0'), 0);
                assert_int_equal(buf_printf(&b, "%03d", k), 0);
                assert_int_equal(b.data[b.len], '\0');
        }
        assert_int_equal(b.len, 7000);
        assert_memory_equal(b.data + 999 * 7,
                            "abc\0"
                            "999",
                            8);
}

static void empty_append_makes_a_terminated_buffer(void **state _unused_)
{
        _cleanup_buf_ struct buf b = { 0 };

        assert_int_equal(buf_append(&b, NULL, 0), 0);
        assert_string_equal(b.data, "");
        assert_int_equal(b.len, 0);
}

static void buffer_is_unchanged_past_its_cap(void **state _unused_)
{
        _cleanup_buf_ struct buf b = { .max = 5 };

        assert_int_equal(buf_append_str(&b, "1234"), 0);
        assert_int_equal(buf_append_str(&b, "56"), -EFBIG);
        assert_int_equal(buf_printf(&b, "%d", 56), -EFBIG);
        assert_int_equal(buf_reserve(&b, 2), -EFBIG);
        assert_string_equal(b.data, "1234");
        assert_int_equal(b.len, 4);
        assert_int_equal(buf_append_char(&b, '5'), 0);
        assert_int_equal(buf_append_char(&b, '6'), -EFBIG);
        assert_int_equal(buf_append_str(&b, ""), 0);
        assert_string_equal(b.data, "12345");
}

static void every_cap_holds_exactly(void **state _unused_)
{
        for (size_t max = 1; max < 300; max++) {
                _cleanup_buf_ struct buf b = { .max = max };

                for (size_t k = 0; k < max; k++)
                        assert_int_equal(buf_append_char(&b, 'x'), 0);
                assert_int_equal(buf_append_char(&b, 'x'), -EFBIG);
                assert_int_equal(strlen(b.data), max);
        }
}

static void sizes_that_overflow_are_refused(void **state _unused_)
{
        _cleanup_buf_ struct buf b = { 0 }, widest = { .max = SIZE_MAX };

        assert_int_equal(buf_append_str(&b, "a"), 0);
        assert_int_equal(buf_reserve(&b, SIZE_MAX), -ENOMEM);
        assert_int_equal(buf_reserve(&b, SIZE_MAX - 1), -ENOMEM);
        assert_string_equal(b.data, "a");
        assert_int_equal(buf_append_str(&widest, "abc"), 0);
        assert_string_equal(widest.data, "abc");
}

static void stolen_buffer_starts_anew_with_its_cap(void **state _unused_)
{
        _cleanup_buf_ struct buf b = { .max = 3 };
        _cleanup_free_ char *empty = buf_steal(&b), *full = NULL;

        assert_string_equal(empty, "");
        assert_int_equal(buf_append_str(&b, "abc"), 0);
        full = buf_steal(&b);
        assert_string_equal(full, "abc");
        assert_null(b.data);
        assert_int_equal(b.len, 0);
        assert_int_equal(buf_append_str(&b, "abcd"), -EFBIG);
}

static void array_grows_and_keeps_its_elements(void **state _unused_)
{
        _cleanup_free_ uint64_t *a = NULL;
        size_t allocated = 0, changes = 0;

        for (size_t k = 0; k < 10000; k++) {
                size_t before = allocated;

                assert_int_equal(array_reserve(a, &allocated, k + 1), 0);
                assert_true(allocated > k);
                changes += allocated != before;
                a[k] = k;
        }
        for (size_t k = 0; k < 10000; k++)
                assert_int_equal(a[k], k);
        assert_true(changes < 40);
}

static void array_that_overflows_is_unchanged(void **state _unused_)
{
        _cleanup_free_ uint64_t *a = NULL;
        size_t allocated = 0, before;

        assert_int_equal(array_reserve(a, &allocated, 1), 0);
        a[0] = 7;
        before = allocated;
        assert_int_equal(array_reserve(a, &allocated, SIZE_MAX / 4), -ENOMEM);
        assert_int_equal(allocated, before);
        assert_int_equal(a[0], 7);
}

static void strings_compare_by_their_ends(void **state _unused_)
{
        _cleanup_free_ char *s = str_printf("%s-%d", "a", 7);

        assert_string_equal(s, "a-7");
        assert_true(str_eq("a", "a"));
        assert_false(str_eq("a", "b"));
        assert_false(str_eq(NULL, "a"));
        assert_false(str_eq(NULL, NULL));
        assert_string_equal(str_after("sha256:ab", "sha256:"), "ab");
        assert_string_equal(str_after("ab", ""), "ab");
        assert_null(str_after("sha25", "sha256:"));
        assert_true(str_ends_with("a.conf", ".conf"));
        assert_true(str_ends_with("a", ""));
        assert_false(str_ends_with("conf", ".conf"));
        assert_false(str_ends_with("a.confx", ".conf"));
}

static void utf8_is_as_strict_as_rfc_3629(void **state _unused_)
{
        static const struct {
                const char *s;
                size_t length;
        } table[] = {
                { "a", 1 },
                { "\x7f", 1 },
                { "\xc2\x80", 2 },
                { "\xdf\xbf", 2 },
                { "\xe0\xa0\x80", 3 },
                { "\xed\x9f\xbf", 3 },
                { "\xee\x80\x80", 3 },
                { "\xef\xbf\xbf", 3 },
                { "\xf0\x90\x80\x80", 4 },
                { "\xf4\x8f\xbf\xbf", 4 },
                { "\x80", 0 },
                { "\xbf", 0 },
                { "\xc0\x80", 0 },
                { "\xc1\xbf", 0 },
                { "\xc2", 0 },
                { "\xc2"
                  "a",
                  0 },
                { "\xe0\x9f\xbf", 0 },
                { "\xe2\x80", 0 },
                { "\xed\xa0\x80", 0 },
                { "\xed\xbf\xbf", 0 },
                { "\xf0\x8f\xbf\xbf", 0 },
                { "\xf4\x90\x80\x80", 0 },
                { "\xf5\x80\x80\x80", 0 },
                { "\xf0\x90\x80", 0 },
                { "\xf8\x88\x80\x80", 0 },
                { "\xfe", 0 },
                { "\xff", 0 },
                { "", 0 },
        };

        for (size_t k = 0; k < ELEMENTSOF(table); k++)
                assert_int_equal(utf8_length(table[k].s, strlen(table[k].s)), table[k].length);
        assert_int_equal(utf8_length("", 1), 1);
}

static void escaped_text_is_one_line_of_utf8(void **state _unused_)
{
        char out[100];

        assert_int_equal(str_escape("a\tb\nc\rd\x01\x1b\x7f", out, sizeof(out)), 22);
        assert_string_equal(out, "a\\tb\\nc\\rd\\x01\\x1b\\x7f");
        str_escape("\xc2\x80\xc2\x9f\xc2\xa0\xff\xe2\x80", out, sizeof(out));
        assert_string_equal(out, "\\xc2\\x80\\xc2\\x9f\xc2\xa0\\xff\\xe2\\x80");
        str_escape("back\\slash \"quote\"", out, sizeof(out));
        assert_string_equal(out, "back\\slash \"quote\"");
}

static void escaped_text_is_cut_between_characters(void **state _unused_)
{
        static const char *const whole[] = { "", "a", "a\xc3\xa9", "a\xc3\xa9\\n", "a\xc3\xa9\\n\\x01" };
        static const size_t last_size[] = { 1, 3, 5, 9, 20 };
        size_t k = 0;

        for (size_t size = 1; size <= 20; size++) {
                _cleanup_free_ char *out = malloc(size); /* alone, so that a sanitizer sees a byte too many */

                assert_non_null(out);
                k += size > last_size[k];
                assert_int_equal(str_escape("a\xc3\xa9\n\x01", out, size), strlen(whole[k]));
                assert_string_equal(out, whole[k]);
        }
}

static void number_is_decimal_digits_only(void **state _unused_)
{
        static const char *const bad[] = {
                "", " 1", "1 ", "+1", "-1", "0x1", "1.0", "99999999999999999999x", "\xd9\xa1"
        };
        uint64_t n = 77;

        for (size_t k = 0; k < ELEMENTSOF(bad); k++)
                assert_int_equal(str_to_u64(bad[k], &n), -EINVAL);
        assert_int_equal(str_to_u64("18446744073709551616", &n), -ERANGE);
        assert_int_equal(str_to_u64("99999999999999999999", &n), -ERANGE);
        assert_int_equal(n, 77);
        assert_int_equal(str_to_u64("18446744073709551615", &n), 0);
        assert_true(n == UINT64_MAX);
        assert_int_equal(str_to_u64("0007", &n), 0);
        assert_int_equal(n, 7);
}

static void hex_goes_both_ways(void **state _unused_)
{
        const uint8_t bytes[] = { 0x00, 0x0f, 0xa5, 0xff };
        uint8_t back[4];
        char hex[9];

        hex_encode(bytes, 4, hex);
        assert_string_equal(hex, "000fa5ff");
        assert_int_equal(hex_decode(hex, 4, back), 0);
        assert_memory_equal(back, bytes, 4);
        assert_int_equal(hex_decode("", 0, back), 0);
}

static void hex_of_another_length_or_case_is_refused(void **state _unused_)
{
        static const char *const bad[] = { "",         "0",        "000fa5f",  "000fa5ff0",
                                           "000FA5FF", "000fa5fg", "0x0fa5ff", "000fa5f " };
        uint8_t back[4] = { 1, 2, 3, 4 };

        for (size_t k = 0; k < ELEMENTSOF(bad); k++)
                assert_int_equal(hex_decode(bad[k], 4, back), -EINVAL);
        assert_memory_equal(back, "\1\2\3\4", 4);
}

static void base64_goes_both_ways_at_every_length(void **state _unused_)
{
        uint8_t bytes[100];

        for (size_t k = 0; k < sizeof(bytes); k++)
                bytes[k] = (uint8_t) (k * 151 + 3);
        for (size_t n = 0; n <= sizeof(bytes); n++) {
                _cleanup_free_ char *text = base64_encode(bytes, n);
                _cleanup_free_ uint8_t *back = NULL;
                size_t length = 0;

                assert_non_null(text);
                assert_int_equal(strlen(text), (n + 2) / 3 * 4);
                assert_int_equal(base64_decode(text, &back, &length), 0);
                assert_int_equal(length, n);
                assert_memory_equal(back, bytes, n);
                assert_int_equal(back[n], 0);
        }
}

static void base64_is_the_standards(void **state _unused_)
{
        _cleanup_free_ char *text = base64_encode("user:pass\xff\xfe", 11);
        _cleanup_free_ uint8_t *back = NULL;
        size_t length;

        assert_string_equal(text, "dXNlcjpwYXNz//4=");
        assert_int_equal(base64_decode("Zm9vYg==", &back, &length), 0);
        assert_int_equal(length, 4);
        assert_string_equal((const char *) back, "foob");
}

static void malformed_base64_is_refused(void **state _unused_)
{
        static const char *const bad[] = { "A",        "AA",         "AAA",      "AAAAA",   "A===", "====",
                                           "AA=A",     "=AAA",       "AA==A",    "Zm9v\n",  " Zm9", "Zm9v ",
                                           "Zm9vZm-_", "Zm\xc3\xa9", "Zm9vY===", "Zm=vZm9v" };
        uint8_t *back = (uint8_t *) 1;
        size_t length = 77;

        for (size_t k = 0; k < ELEMENTSOF(bad); k++)
                assert_int_equal(base64_decode(bad[k], &back, &length), -EINVAL);
        assert_ptr_equal(back, (uint8_t *) 1);
        assert_int_equal(length, 77);
}

static void bytes_are_shown_in_decimal_units(void **state _unused_)
{
        static const struct {
                uint64_t n;
                const char *shown;
        } table[] = {
                { 0, "0 B" },
                { 999, "999 B" },
                { 1000, "1.0 kB" },
                { 999949, "999.9 kB" },
                { 999950, "1.0 MB" },
                { 12345678, "12.3 MB" },
                { 1000000000, "1.0 GB" },
                { 999999999999, "1.0 TB" },
                { UINT64_MAX, "18.4 EB" },
        };
        char out[16];

        for (size_t k = 0; k < ELEMENTSOF(table); k++) {
                assert_ptr_equal(format_bytes(table[k].n, out, sizeof(out)), out);
                assert_string_equal(out, table[k].shown);
        }
}

static void secret_may_be_absent(void **state _unused_)
{
        _cleanup_(secret_free_ptr) char *secret = NULL, *other = strdup("hunter2");

        assert_non_null(other);
        secret_free(secret);
}

static void utf8_is_written_as_it_is_read(_unused_ void **state)
{
        static const uint32_t ends[] = { 0, 0x7f, 0x80, 0x7ff, 0x800, 0xd7ff, 0xe000, 0xffff, 0x10000, 0x10ffff };
        static const size_t lengths[] = { 1, 1, 2, 2, 3, 3, 3, 3, 4, 4 };
        char out[4];

        for (size_t k = 0; k < ELEMENTSOF(ends); k++) {
                assert_int_equal(utf8_encode(ends[k], out), lengths[k]);
                assert_int_equal(utf8_length(out, lengths[k]), lengths[k]);
        }
        assert_int_equal(utf8_encode(0x20ac, out), 3);
        assert_memory_equal(out, "\xe2\x82\xac", 3);
}

static void hexadecimal_digits_are_of_either_case(_unused_ void **state)
{
        static const char digits[] = "0123456789abcdefABCDEF";

        for (int c = -128; c < 128; c++) {
                const char *found = c ? strchr(digits, c) : NULL;
                long at = found ? found - digits : -1;

                assert_int_equal(hex_value((char) c), at > 15 ? at - 6 : at);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(utf8_is_written_as_it_is_read),
                cmocka_unit_test(hexadecimal_digits_are_of_either_case),
                cmocka_unit_test(buffer_keeps_everything_and_its_nul),
                cmocka_unit_test(empty_append_makes_a_terminated_buffer),
                cmocka_unit_test(buffer_is_unchanged_past_its_cap),
                cmocka_unit_test(every_cap_holds_exactly),
                cmocka_unit_test(sizes_that_overflow_are_refused),
                cmocka_unit_test(stolen_buffer_starts_anew_with_its_cap),
                cmocka_unit_test(array_grows_and_keeps_its_elements),
                cmocka_unit_test(array_that_overflows_is_unchanged),
                cmocka_unit_test(strings_compare_by_their_ends),
                cmocka_unit_test(utf8_is_as_strict_as_rfc_3629),
                cmocka_unit_test(escaped_text_is_one_line_of_utf8),
                cmocka_unit_test(escaped_text_is_cut_between_characters),
                cmocka_unit_test(number_is_decimal_digits_only),
                cmocka_unit_test(hex_goes_both_ways),
                cmocka_unit_test(hex_of_another_length_or_case_is_refused),
                cmocka_unit_test(base64_goes_both_ways_at_every_length),
                cmocka_unit_test(base64_is_the_standards),
                cmocka_unit_test(malformed_base64_is_refused),
                cmocka_unit_test(bytes_are_shown_in_decimal_units),
                cmocka_unit_test(secret_may_be_absent),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
