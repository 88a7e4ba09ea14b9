/* SPDX-License-Identifier: Apache-2.0 */

#include "content_fixture.h"
#include "regfs/inventory.h"

struct look {
        struct inventory inventory;
        struct audit *audit;
        int result;
        struct error error;
};

static struct look look_at(struct layer *l)
{
        struct look k = { .result = 0 };

        assert_int_equal(inventory_read(l->store, &k.inventory, NULL), 0);
        k.result = audit_open(l->store, inventory_find(&k.inventory, LAYER_DIRECTORY), &l->table, &k.audit, &k.error);
        return k;
}

static void look_away(struct look *k)
{
        audit_close(k->audit);
        inventory_clear(&k->inventory);
}

static struct look publish_and_look(struct layer *l)
{
        struct look k;

        layer_open_store(l);
        assert_int_equal(publish(l, 10007), 0);
        k = look_at(l);
        assert_int_equal(k.result, 0);
        return k;
}

static void give_digest(struct layer *l, size_t i)
{
        struct digest d;

        assert_int_equal(digest_of(DIGEST_SHA256, bytes_of(l, i), l->rows[i].content_length, &d), 0);
        memcpy(l->rows[i].digest, d.bytes, SHA256_SIZE);
        l->rows[i].flags = CHUNK_DIGEST_CONTENT;
}

static void sound_content_passes(void **state)
{
        struct layer *l = *state;
        struct look k;

        give_digest(l, 1);
        give_digest(l, 3);
        k = publish_and_look(l);
        for (size_t i = 0; i < CHUNKS; i++) {
                assert_true(audit_has(k.audit, i));
                assert_int_equal(audit_check(k.audit, i, &k.error), 0);
        }
        look_away(&k);
}

static void a_flipped_byte_fails_its_chunk_alone(void **state)
{
        struct layer *l = *state;
        struct look k = publish_and_look(l);
        uint8_t byte = (uint8_t) ~l->bytes[200000];

        poke(l, CONTENT, 200000, &byte, 1);
        for (size_t i = 0; i < CHUNKS; i++)
                assert_int_equal(audit_check(k.audit, i, &k.error), i == 3 ? -EBADMSG : 0);
        assert_string_equal(k.error.message, "chunk 3, content bytes 77824-377823: wrong checksum");
        look_away(&k);
}

static void bytes_with_the_maps_checksum_need_the_tables_digest_too(void **state)
{
        struct layer *l = *state;
        struct look k;

        give_digest(l, 1);
        l->rows[1].digest[0] ^= 1;
        give_digest(l, 3);
        l->rows[3].digest[0] ^= 1;
        l->rows[3].flags |= CHUNK_NO_DIGEST;
        memset(l->rows[4].digest, 7, SHA256_SIZE); /* of the blob's range */
        k = publish_and_look(l);
        for (size_t i = 0; i < CHUNKS; i++)
                assert_int_equal(audit_check(k.audit, i, &k.error), i == 1 ? -EBADMSG : 0);
        assert_string_equal(k.error.message, "chunk 1, content bytes 5000-49999: wrong digest");
        look_away(&k);
}

static void a_dropped_chunk_is_absent_for_a_reader_and_comes_back(void **state)
{
        struct layer *l = *state;
        struct content *c = publish_and_open(l);
        struct look k = look_at(l);

        assert_true(reads_chunk(l, c, 1));
        assert_int_equal(audit_drop(k.audit, 1, NULL), 0);
        assert_false(audit_has(k.audit, 1));
        assert_int_equal(peek_word(l, 1), 0);
        assert_int_equal(read_chunk_result(l, c, 1), -EAGAIN);
        assert_int_equal(audit_check(k.audit, 1, &k.error), -ENOENT);
        assert_int_equal(content_write(c, 1, bytes_of(l, 1)), 0);
        assert_int_equal(audit_check(k.audit, 1, &k.error), 0);
        assert_true(reads_chunk(l, c, 1));
        look_away(&k);
        content_close(c);
}

static void a_chunk_that_was_taken_away_is_not_wrong(void **state)
{
        struct layer *l = *state;
        struct look k = publish_and_look(l);

        poke_word(l, 0, 0);
        poke(l, CONTENT, 0, "garbage", 7);
        assert_true(audit_has(k.audit, 0));
        assert_int_equal(audit_check(k.audit, 0, &k.error), -ENOENT);
        look_away(&k);
}

static void a_chunk_of_zeros_needs_no_word(void **state)
{
        struct layer *l = *state;
        struct look k;

        l->rows[2].codec = CODEC_ZEROS;
        k = publish_and_look(l);
        poke_word(l, 2, 0);
        look_away(&k);
        k = look_at(l);
        assert_true(audit_has(k.audit, 2));
        assert_int_equal(audit_check(k.audit, 2, &k.error), 0);
        look_away(&k);
}

static void files_that_do_not_fit_are_told_apart(void **state)
{
        static const struct {
                const char *file;
                off_t length;
                const char *why;
        } cuts[] = {
                { MAP, 0, "map: it is cut" },
                { MAP, 40, "map: it is cut" },
                { MAP, MAP_SIZE - 1, "map: it is cut" },
                { MAP, MAP_SIZE + 1, "map: it is too long" },
                { CONTENT, 384001, "content: it is cut" },
        };
        struct layer *l = *state;
        struct look k;

        layer_open_store(l);
        for (size_t n = 0; n < ELEMENTSOF(cuts); n++) {
                assert_int_equal(publish(l, 10007), 0);
                assert_int_equal(truncate(below(&l->place, cuts[n].file), cuts[n].length), 0);
                k = look_at(l);
                assert_int_equal(k.result, -ESTALE);
                assert_non_null(strstr(k.error.message, cuts[n].why));
                look_away(&k);
                assert_int_equal(store_layer_remove(l->store, &l->digest, "plain", NULL), 0);
        }
        assert_int_equal(publish(l, 10007), 0);
        l->rows[0].content_length--;
        k = look_at(l);
        assert_int_equal(k.result, -ESTALE);
        assert_non_null(strstr(k.error.message, "map: it does not fit"));
        look_away(&k);
}

static void missing_files_are_no_damage(void **state)
{
        static const char *const files[] = { MAP, CONTENT };
        struct layer *l = *state;

        layer_open_store(l);
        for (size_t n = 0; n < ELEMENTSOF(files); n++) {
                struct look k;

                assert_int_equal(publish(l, 10007), 0);
                assert_int_equal(unlink(below(&l->place, files[n])), 0);
                k = look_at(l);
                assert_int_equal(k.result, -ENOENT);
                assert_false(exists(&l->place, files[n]));
                look_away(&k);
                assert_int_equal(store_layer_remove(l->store, &l->digest, "plain", NULL), 0);
        }
}

static void content_that_ends_early_is_wrong_and_no_crash(void **state)
{
        struct layer *l = *state;
        struct look k = publish_and_look(l);

        assert_int_equal(truncate(below(&l->place, CONTENT), 100000), 0);
        assert_int_equal(audit_check(k.audit, 1, &k.error), 0);
        assert_int_equal(audit_check(k.audit, 3, &k.error), -EBADMSG);
        assert_non_null(strstr(k.error.message, "can't be read"));
        look_away(&k);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, layer_setup, layer_teardown)
        const struct CMUnitTest tests[] = {
                TEST(sound_content_passes),
                TEST(a_flipped_byte_fails_its_chunk_alone),
                TEST(bytes_with_the_maps_checksum_need_the_tables_digest_too),
                TEST(a_dropped_chunk_is_absent_for_a_reader_and_comes_back),
                TEST(a_chunk_that_was_taken_away_is_not_wrong),
                TEST(a_chunk_of_zeros_needs_no_word),
                TEST(files_that_do_not_fit_are_told_apart),
                TEST(missing_files_are_no_damage),
                TEST(content_that_ends_early_is_wrong_and_no_crash),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
