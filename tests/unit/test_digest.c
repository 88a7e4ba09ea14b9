/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "regfs/digest.h"

/* Digests of "abc" and of nothing, from FIPS 180-4's examples. */
#define SHA256_ABC "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
#define SHA256_EMPTY "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define SHA512_ABC                                                         \
        "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a" \
        "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"

static void digest_reads_as_it_is_written(void **state _unused_)
{
        static const char *const texts[] = { "sha256:" SHA256_ABC, "sha512:" SHA512_ABC };

        for (size_t k = 0; k < ELEMENTSOF(texts); k++) {
                char out[DIGEST_STRING_MAX];
                struct digest d;

                assert_int_equal(digest_parse(texts[k], &d, NULL), 0);
                assert_ptr_equal(digest_format(&d, out), out);
                assert_string_equal(out, texts[k]);
                assert_ptr_equal(digest_hex(&d, out), out);
                assert_string_equal(out, texts[k] + strlen("sha256:"));
                for (size_t i = digest_size(d.algorithm); i < DIGEST_MAX_SIZE; i++)
                        assert_int_equal(d.bytes[i], 0);
        }
}

static void anything_else_is_no_digest(void **state _unused_)
{
        static const char *const bad[] = {
                "",
                "sha256",
                "sha256:",
                SHA256_ABC,
                "sha256:" SHA512_ABC,
                "sha512:" SHA256_ABC,
                "sha256:" SHA256_ABC "0",
                "sha256:" SHA256_ABC "\n",
                " sha256:" SHA256_ABC,
                "SHA256:" SHA256_ABC,
                "sha256-" SHA256_ABC,
                "sha384:" SHA256_ABC,
                "sha256:BA7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
                "sha256:../../../../../../../../../../../../../../../../../../../../etc/pass",
        };

        for (size_t k = 0; k < ELEMENTSOF(bad); k++) {
                struct digest d = { .algorithm = DIGEST_NONE };
                struct error e = ERROR_INIT;

                assert_int_equal(digest_parse(bad[k], &d, &e), -EINVAL);
                assert_int_equal(e.kind, ERROR_BAD_DATA);
                assert_int_equal(d.algorithm, DIGEST_NONE);
        }
        assert_int_equal(digest_parse(NULL, &(struct digest) { 0 }, NULL), -EINVAL);
}

static void malformed_digest_is_shown_short_and_escaped(void **state _unused_)
{
        char text[1000];
        struct error e = ERROR_INIT;
        struct digest d;

        memset(text, 'x', sizeof(text) - 1);
        text[sizeof(text) - 1] = '\0';
        memcpy(text, "sha256:\x1b[2J", 11);
        assert_int_equal(digest_parse(text, &d, &e), -EINVAL);
        assert_ptr_equal(strstr(e.message, "sha256:\\x1b[2J"), e.message);
        assert_true(strlen(e.message) < 200);
}

static void algorithm_has_name_and_size(void **state _unused_)
{
        assert_string_equal(digest_algorithm_name(DIGEST_SHA256), "sha256");
        assert_string_equal(digest_algorithm_name(DIGEST_SHA512), "sha512");
        assert_int_equal(digest_size(DIGEST_SHA256), SHA256_SIZE);
        assert_int_equal(digest_size(DIGEST_SHA512), 64);
        assert_int_equal(digest_size(DIGEST_NONE), 0);
}

static void digests_of_known_texts_match(void **state _unused_)
{
        static const struct {
                enum digest_algorithm algorithm;
                const char *data, *expected;
        } table[] = {
                { DIGEST_SHA256, "abc", "sha256:" SHA256_ABC },
                { DIGEST_SHA256, "", "sha256:" SHA256_EMPTY },
                { DIGEST_SHA512, "abc", "sha512:" SHA512_ABC },
        };

        for (size_t k = 0; k < ELEMENTSOF(table); k++) {
                struct digest expected, d;

                assert_int_equal(digest_parse(table[k].expected, &expected, NULL), 0);
                assert_int_equal(digest_of(table[k].algorithm, table[k].data, strlen(table[k].data), &d), 0);
                assert_true(digest_equal(&d, &expected));
        }
}

static void hash_in_pieces_is_the_hash_of_the_whole(void **state _unused_)
{
        uint8_t data[1000];
        struct digest whole, pieces;
        _cleanup_(hasher_free_ptr) struct hasher *h = hasher_new(DIGEST_SHA256);

        assert_non_null(h);
        for (size_t k = 0; k < sizeof(data); k++)
                data[k] = (uint8_t) (k * 7);
        assert_int_equal(digest_of(DIGEST_SHA256, data, sizeof(data), &whole), 0);
        for (size_t step = 1; step < 200; step += 13) {
                assert_int_equal(hasher_reset(h), 0);
                for (size_t k = 0; k < sizeof(data); k += step)
                        assert_int_equal(hasher_update(h, data + k, MIN(step, sizeof(data) - k)), 0);
                assert_int_equal(hasher_finish(h, &pieces), 0);
                assert_true(digest_equal(&whole, &pieces));
        }
}

static void reset_forgets_what_came_before(void **state _unused_)
{
        _cleanup_(hasher_free_ptr) struct hasher *h = hasher_new(DIGEST_SHA512);
        struct digest expected, d;

        assert_non_null(h);
        assert_int_equal(digest_parse("sha512:" SHA512_ABC, &expected, NULL), 0);
        assert_int_equal(hasher_update(h, "garbage", 7), 0);
        assert_int_equal(hasher_reset(h), 0);
        assert_int_equal(hasher_update(h, "abc", 3), 0);
        assert_int_equal(hasher_finish(h, &d), 0);
        assert_true(digest_equal(&d, &expected));
}

static void one_bit_or_another_algorithm_is_another_digest(void **state _unused_)
{
        struct digest a, b;

        assert_int_equal(digest_parse("sha256:" SHA256_ABC, &a, NULL), 0);
        b = a;
        assert_true(digest_equal(&a, &b));
        b.bytes[31] ^= 1;
        assert_false(digest_equal(&a, &b));
        b = a;
        b.algorithm = DIGEST_SHA512;
        assert_false(digest_equal(&a, &b));
}

static void mismatch_names_object_and_both_digests(void **state _unused_)
{
        struct error e = ERROR_INIT;
        struct digest d;

        assert_int_equal(digest_parse("sha256:" SHA256_ABC, &d, NULL), 0);
        assert_int_equal(digest_verify(&d, "abc", 3, "manifest", &e), 0);
        assert_int_equal(e.kind, ERROR_NONE);
        assert_int_equal(digest_verify(&d, "", 0, "manifest", &e), -EBADMSG);
        assert_int_equal(e.kind, ERROR_BAD_DATA);
        assert_string_equal(e.message, "manifest: digest is sha256:" SHA256_EMPTY ", expected sha256:" SHA256_ABC);
}

static void no_algorithm_verifies_nothing(void **state _unused_)
{
        struct digest none = { .algorithm = DIGEST_NONE }, d;

        assert_null(hasher_new(DIGEST_NONE));
        assert_null(hasher_free(NULL));
        assert_int_equal(digest_of(DIGEST_NONE, "abc", 3, &d), -EINVAL);
        assert_int_equal(digest_verify(&none, "abc", 3, "manifest", NULL), -EINVAL);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(digest_reads_as_it_is_written),
                cmocka_unit_test(anything_else_is_no_digest),
                cmocka_unit_test(malformed_digest_is_shown_short_and_escaped),
                cmocka_unit_test(algorithm_has_name_and_size),
                cmocka_unit_test(digests_of_known_texts_match),
                cmocka_unit_test(hash_in_pieces_is_the_hash_of_the_whole),
                cmocka_unit_test(reset_forgets_what_came_before),
                cmocka_unit_test(one_bit_or_another_algorithm_is_another_digest),
                cmocka_unit_test(mismatch_names_object_and_both_digests),
                cmocka_unit_test(no_algorithm_verifies_nothing),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
