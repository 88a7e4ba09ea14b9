/* SPDX-License-Identifier: Apache-2.0 */

/* Ztocs that would take too much, that end early, and that are changed at random. */

#include "soci_fixture.h"

/* ---- bounds ---- */

static void append_u32(struct buf *b, uint32_t n)
{
        assert_int_equal(buf_append(b, &n, sizeof(n)), 0);
}

static void append_string(struct buf *b, const char *text)
{
        append_u32(b, (uint32_t) strlen(text));
        assert_int_equal(buf_append(b, text, strlen(text) + 1), 0);
        while (b->len % 4 != 0)
                assert_int_equal(buf_append_char(b, '\0'), 0);
}

/* Appends a vector of COUNT offsets, all to one record with a value of 1000 bytes; returns where. */
static size_t append_shared_records(struct buf *b, uint32_t count)
{
        const uint16_t vtable[] = { 8, 12, 4, 8 };
        char value[1001];
        size_t vector, table;

        while (b->len % 4 != 0)
                assert_int_equal(buf_append_char(b, '\0'), 0);
        vector = b->len;
        table = vector + 4 + 4 * (size_t) count + sizeof(vtable);
        append_u32(b, count);
        for (uint32_t i = 0; i < count; i++)
                append_u32(b, (uint32_t) (table - b->len));
        assert_int_equal(buf_append(b, vtable, sizeof(vtable)), 0);
        append_u32(b, sizeof(vtable));
        append_u32(b, 8);
        append_u32(b, 0);
        append_string(b, "SCHILY.xattr.user.x");
        put_u32(b, table + 8, (uint32_t) (b->len - (table + 8)));
        memset(value, 'v', 1000);
        value[1000] = '\0';
        append_string(b, value);
        return vector;
}

/* A few bytes that are told again and again. */
static void endless_sharing_is_refused(_unused_ void **state)
{
        _cleanup_layer_ struct layer l;
        size_t vector;

        load_tar(&l);
        vector = append_shared_records(&l.ztoc, 100);
        for (uint32_t i = 0; i < get_u32(&l.ztoc, files_of(&l.ztoc)); i++) {
                size_t at = place_of(&l.ztoc, file_of(&l.ztoc, i), FILE_RECORDS);

                put_u32(&l.ztoc, at, (uint32_t) (vector - at));
        }
        expect_refused(&l, "shared strings come to more than 4 times");
}

static void records_past_their_bound_are_refused(_unused_ void **state)
{
        _cleanup_layer_ struct layer l;
        size_t vector, at;

        load_gzip(&l);
        vector = append_shared_records(&l.ztoc, 1050);
        at = place_of(&l.ztoc, file_of(&l.ztoc, 0), FILE_RECORDS);
        put_u32(&l.ztoc, at, (uint32_t) (vector - at));
        expect_refused(&l, "more than 1048576 bytes of pax records");
}

static void truncated_ztocs_are_refused(_unused_ void **state)
{
        _cleanup_layer_ struct layer l;
        size_t whole;

        load_tar(&l);
        whole = l.ztoc.len;
        for (size_t n = 0; n < whole; n += n < 200 ? 1 : 211) {
                l.ztoc.len = n;
                expect_refused(&l, "");
        }
}

static void ztoc_past_the_bound_is_refused(_unused_ void **state)
{
        struct error e = ERROR_INIT;
        struct ztoc *z = NULL;

        assert_int_equal(ztoc_read("", ZTOC_MAX + 1, 100, &z, &e), -EBADMSG);
        assert_string_equal(e.message, "ztoc: 268435457 bytes: regfs takes up to 256 MiB");
}

/* ---- any change ---- */

/* Whatever is accepted is sound. */
static void read_changed(const struct layer *l, unsigned *accepted)
{
        _cleanup_free_ uint8_t *copy = NULL;
        _cleanup_(ztoc_free_ptr) struct ztoc *z = NULL;
        _cleanup_rows_ struct rows rows = { 0 };
        struct error e = ERROR_INIT;
        struct chunk_table t;
        int r = read_exactly(l, &copy, &z, &e);

        if (r < 0) {
                assert_int_equal(r, -EBADMSG);
                assert_true(e.message[0]);
                return;
        }
        ++*accepted;
        ztoc_chunks(z, &t);
        assert_int_equal(chunk_table_check(&t, NULL), 0);
        rows_make(ztoc_tree(z), t.content_size, &rows);
}

static void change(struct buf *z, uint32_t *seed)
{
        static const uint32_t values[] = { 0, 1, 4, 0x7f, 0x80, 0xffff, 0x7fffffff, 0x80000000, UINT32_MAX };
        /* Most of a gzip layer's ztoc is windows, where nothing can go wrong: half the changes are before them. */
        size_t range = next_random(seed) % 2 ? z->len : z->len / 4;
        size_t at = next_random(seed) % (range - 4);

        switch (next_random(seed) % 3) {
        case 0:
                z->data[at] ^= (char) (1 << next_random(seed) % 8);
                break;
        case 1:
                put_u32(z, at & ~(size_t) 3, values[next_random(seed) % ELEMENTSOF(values)]);
                break;
        default:
                put_u32(z, at & ~(size_t) 3, (uint32_t) (next_random(seed) % z->len));
        }
}

static void any_change_is_refused_or_harmless(_unused_ void **state)
{
        void (*const loads[])(struct layer *) = { load_gzip, load_tar };
        uint32_t seed = 20260801;

        for (size_t k = 0; k < ELEMENTSOF(loads); k++) {
                _cleanup_layer_ struct layer l;
                _cleanup_buf_ struct buf sound = { 0 };
                unsigned accepted = 0, tries = 400;

                loads[k](&l);
                assert_int_equal(buf_append(&sound, l.ztoc.data, l.ztoc.len), 0);
                for (unsigned i = 0; i < tries; i++) {
                        memcpy(l.ztoc.data, sound.data, sound.len);
                        for (uint32_t n = 1 + next_random(&seed) % 3; n > 0; n--)
                                change(&l.ztoc, &seed);
                        read_changed(&l, &accepted);
                }
                assert_in_range(accepted, tries / 20, tries - tries / 20);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(endless_sharing_is_refused),
                cmocka_unit_test(records_past_their_bound_are_refused),
                cmocka_unit_test(truncated_ztocs_are_refused),
                cmocka_unit_test(ztoc_past_the_bound_is_refused),
                cmocka_unit_test(any_change_is_refused_or_harmless),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
