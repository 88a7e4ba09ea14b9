/* SPDX-License-Identifier: Apache-2.0 */

/* Ztocs that somebody cut, changed or made up. */

#include "soci_fixture.h"

/* A change to a sound ztoc, and why it is refused. */
struct damage {
        void (*change)(struct buf *ztoc);
        const char *why;
};

static void expect_all_refused(void (*load)(struct layer *), const struct damage *damages, size_t count)
{
        _cleanup_layer_ struct layer l;
        _cleanup_buf_ struct buf sound = { 0 };

        load(&l);
        assert_int_equal(buf_append(&sound, l.ztoc.data, l.ztoc.len), 0);
        for (size_t k = 0; k < count; k++) {
                l.ztoc.len = 0;
                assert_int_equal(buf_append(&l.ztoc, sound.data, sound.len), 0);
                damages[k].change(&l.ztoc);
                expect_refused(&l, damages[k].why);
        }
}

/* ---- the root ---- */

static void root_outside(struct buf *z)
{
        put_u32(z, 0, (uint32_t) z->len - 3);
}

static void vtable_before_the_buffer(struct buf *z)
{
        put_u32(z, root_of(z), (uint32_t) root_of(z) + 1);
}

static void vtable_behind_the_buffer(struct buf *z)
{
        put_u32(z, root_of(z), (uint32_t) - (int32_t) z->len);
}

static void vtable_of_odd_size(struct buf *z)
{
        z->data[root_of(z) - get_u32(z, root_of(z))] |= 1;
}

static void field_outside_of_its_table(struct buf *z)
{
        memset(z->data + slot_of(z, root_of(z), ZTOC_UNCOMPRESSED), 0x7f, 1);
}

static void string_outside(struct buf *z)
{
        put_u32(z, place_of(z, root_of(z), ZTOC_VERSION), UINT32_MAX);
}

static void string_past_the_end(struct buf *z)
{
        put_u32(z, target_of(z, place_of(z, root_of(z), ZTOC_VERSION)), UINT32_MAX);
}

static void string_without_nul(struct buf *z)
{
        text_of(z, root_of(z), ZTOC_VERSION)[3] = 'x';
}

static void string_with_nul(struct buf *z)
{
        text_of(z, root_of(z), ZTOC_VERSION)[1] = '\0';
}

static void other_version(struct buf *z)
{
        text_of(z, root_of(z), ZTOC_VERSION)[0] = '1';
}

static void no_toc(struct buf *z)
{
        memset(z->data + slot_of(z, root_of(z), ZTOC_TOC), 0, 2);
}

static void no_info(struct buf *z)
{
        memset(z->data + slot_of(z, root_of(z), ZTOC_INFO), 0, 2);
}

static void other_layer(struct buf *z)
{
        size_t at = place_of(z, root_of(z), ZTOC_COMPRESSED);

        put_u64(z, at, get_u64(z, at) + 1);
}

static void negative_size(struct buf *z)
{
        put_u64(z, place_of(z, root_of(z), ZTOC_UNCOMPRESSED), UINT64_MAX);
}

static void tables_that_lead_astray_are_refused(_unused_ void **state)
{
        static const struct damage damages[] = {
                { root_outside, "table Ztoc at byte 89061 lies outside of the buffer" },
                { vtable_before_the_buffer, "its vtable lies outside of the buffer" },
                { vtable_behind_the_buffer, "its vtable lies outside of the buffer" },
                { vtable_of_odd_size, "impossible sizes in its vtable" },
                { field_outside_of_its_table, "Ztoc.uncompressed_archive_size: lies outside of its table" },
                { string_outside, "Ztoc.version: lies outside of the buffer" },
                { string_past_the_end, "Ztoc.version: does not end within the buffer" },
                { string_without_nul, "Ztoc.version: a string without its NUL" },
                { string_with_nul, "Ztoc.version: a NUL inside" },
                { other_version, "Ztoc.version: \"1.9\": regfs knows 0.9" },
                { no_toc, "Ztoc.toc: missing" },
                { no_info, "Ztoc.compression_info: missing" },
                { other_layer, "Ztoc.compressed_archive_size: " },
                { negative_size, "Ztoc.uncompressed_archive_size: -1 is negative" },
        };

        expect_all_refused(load_tar, damages, ELEMENTSOF(damages));
}

/* ---- spans ---- */

static void unknown_algorithm(struct buf *z)
{
        z->data[place_of(z, info_of(z), INFO_ALGORITHM)] = 3;
}

static void too_few_spans(struct buf *z)
{
        put_u32(z, place_of(z, info_of(z), INFO_MAX_SPAN_ID), span_count(z) - 2);
}

static void too_few_digests(struct buf *z)
{
        put_u32(z, target_of(z, place_of(z, info_of(z), INFO_DIGESTS)), span_count(z) - 1);
}

static void too_many_digests(struct buf *z)
{
        put_u32(z, target_of(z, place_of(z, info_of(z), INFO_DIGESTS)), UINT32_MAX);
}

static void other_digest(struct buf *z)
{
        memcpy(digest_of_span(z, 2), "sha512", 6);
}

static void empty_digest(struct buf *z)
{
        put_u32(z, (size_t) (digest_of_span(z, 2) - z->data) - 4, 0);
        *digest_of_span(z, 2) = '\0';
}

static void digest_with_capitals(struct buf *z)
{
        memset(digest_of_span(z, 2) + 7, 'A', 4);
}

static const struct damage info_damages[] = {
        { unknown_algorithm, "CompressionInfo.compression_algorithm: 3 is unknown" },
        { too_few_spans, "CompressionInfo.max_span_id: " },
        { too_few_digests, "CompressionInfo.span_digests: " },
        { too_many_digests, "CompressionInfo.span_digests: does not end within the buffer" },
        { other_digest, "span 2: its digest is no SHA-256" },
        { empty_digest, "span 2: its digest is no SHA-256" },
        { digest_with_capitals, "span 2: its digest is no SHA-256" },
};

static void spans_that_are_not_told_are_refused(_unused_ void **state)
{
        expect_all_refused(load_tar, info_damages, ELEMENTSOF(info_damages));
        /* Where nothing but the default is to be changed there is no place for it. */
        expect_all_refused(load_gzip, info_damages + 1, ELEMENTSOF(info_damages) - 1);
}

static void no_checkpoints(struct buf *z)
{
        put_u32(z, checkpoints_of(z), 0);
}

static void count_of_none(struct buf *z)
{
        put_u32(z, checkpoints_of(z) + 4, 0);
}

static void negative_count(struct buf *z)
{
        put_u32(z, checkpoints_of(z) + 4, UINT32_MAX);
}

static void count_past_the_bytes(struct buf *z)
{
        put_u32(z, checkpoints_of(z) + 4, span_count(z) + 2);
}

static void half_a_checkpoint(struct buf *z)
{
        put_u32(z, checkpoints_of(z), get_u32(z, checkpoints_of(z)) - 1);
}

static void start_inside_the_header(struct buf *z)
{
        put_u64(z, record_of(z, 0), 9);
}

static void start_with_bits(struct buf *z)
{
        z->data[record_of(z, 0) + 16] = 1;
}

static void start_with_content_before(struct buf *z)
{
        put_u64(z, record_of(z, 0) + 8, 1);
}

static void eight_bits(struct buf *z)
{
        z->data[record_of(z, 1) + 16] = 8;
}

static void span_outside(struct buf *z)
{
        put_u64(z, record_of(z, span_count(z) - 1), UINT64_MAX);
}

static void span_at_the_end(struct buf *z)
{
        put_u64(z, record_of(z, span_count(z) - 1), get_u64(z, place_of(z, root_of(z), ZTOC_COMPRESSED)));
}

static void spans_descend_in_the_blob(struct buf *z)
{
        put_u64(z, record_of(z, 2), get_u64(z, record_of(z, 1)));
}

static void spans_descend_in_the_tar(struct buf *z)
{
        put_u64(z, record_of(z, 2) + 8, get_u64(z, record_of(z, 1) + 8) - 1);
}

static void span_out_of_range(struct buf *z)
{
        put_u64(z, record_of(z, span_count(z) - 1) + 8, UINT64_MAX);
}

static void span_holds_more_than_it_can(struct buf *z)
{
        put_u64(z, record_of(z, 1), 11);
}

static void checkpoints_that_cannot_be_are_refused(_unused_ void **state)
{
        static const struct damage damages[] = {
                { no_checkpoints, "CompressionInfo.checkpoints: there are none" },
                { count_of_none, "CompressionInfo.checkpoints: there are none" },
                { negative_count, "CompressionInfo.checkpoints: there are none" },
                { count_past_the_bytes, "CompressionInfo.checkpoints: " },
                { half_a_checkpoint, "CompressionInfo.checkpoints: " },
                { start_inside_the_header, "span 0: it begins outside of the layer's data" },
                { start_with_bits, "span 0: it does not begin where the deflate data does" },
                { start_with_content_before, "span 0: it does not begin where the deflate data does" },
                { eight_bits, "span 1: impossible bit position" },
                { span_outside, "it begins outside of the layer's data" },
                { span_at_the_end, "it is empty, or the next one begins before it" },
                { spans_descend_in_the_blob, "span 1: it is empty, or the next one begins before it" },
                { spans_descend_in_the_tar, "span 1: the next one's place in the tar lies before it" },
                { span_out_of_range, "its place in the tar is out of range" },
                { span_holds_more_than_it_can, "chunk 0: the blob range cannot hold so much content" },
        };

        expect_all_refused(load_gzip, damages, ELEMENTSOF(damages));
}

/* The TarZinfo in the checkpoints of an uncompressed layer. */
static size_t tar_zinfo_field(const struct buf *z, unsigned field)
{
        return place_of(z, target_of(z, checkpoints_of(z) + 4), field);
}

static void zinfo_outside(struct buf *z)
{
        put_u32(z, checkpoints_of(z) + 4, 1 << 20);
}

static void zinfo_too_short(struct buf *z)
{
        put_u32(z, checkpoints_of(z), 3);
}

static void spans_of_nothing(struct buf *z)
{
        put_u64(z, tar_zinfo_field(z, 1), 0);
}

static void spans_of_another_size(struct buf *z)
{
        put_u64(z, tar_zinfo_field(z, 1), 64 * KIB);
}

static void spans_of_one_byte(struct buf *z)
{
        put_u64(z, tar_zinfo_field(z, 1), 1);
}

static void blob_of_another_size(struct buf *z)
{
        put_u64(z, tar_zinfo_field(z, 2), 512);
}

static void tar_longer_than_the_blob(struct buf *z)
{
        put_u64(z, place_of(z, root_of(z), ZTOC_UNCOMPRESSED), 100 * MIB);
}

static void uncompressed_spans_that_cannot_be_are_refused(_unused_ void **state)
{
        static const struct damage damages[] = {
                { zinfo_outside, "table TarZinfo at byte 1048576 lies outside of the buffer" },
                { zinfo_too_short, "3 bytes hold no table TarZinfo" },
                { spans_of_nothing, "TarZinfo.span_size: 0" },
                { spans_of_another_size, "CompressionInfo.max_span_id: " },
                { spans_of_one_byte, "CompressionInfo.max_span_id: " },
                { blob_of_another_size, "TarZinfo.size: 512, but the layer has " },
                { tar_longer_than_the_blob, "TarZinfo.size: " },
        };

        expect_all_refused(load_tar, damages, ELEMENTSOF(damages));
}

/* ---- files ---- */

/* A regular file with data in the middle of the list, and the number of another one behind it. */
#define SOME_FILE 200u

static size_t regular_after(const struct buf *z, uint32_t *index)
{
        while (strcmp(text_of(z, file_of(z, *index), FILE_TYPE), "reg") != 0 ||
               !find_place(z, file_of(z, *index), FILE_SIZE))
                ++*index;
        return file_of(z, *index);
}

static size_t some_file(const struct buf *z)
{
        uint32_t index = SOME_FILE;

        return regular_after(z, &index);
}

static size_t next_file(const struct buf *z)
{
        uint32_t index = SOME_FILE;

        regular_after(z, &index);
        index++;
        return regular_after(z, &index);
}

/* The first file that has pax records, with a key of at least N bytes. */
static size_t some_record(const struct buf *z, size_t n)
{
        for (uint32_t i = 0;; i++) {
                size_t records = target_of(z, place_of(z, file_of(z, i), FILE_RECORDS));
                size_t record;

                if (get_u32(z, records) == 0)
                        continue;
                record = target_of(z, records + 4);
                if (strlen(text_of(z, record, RECORD_KEY)) >= n)
                        return record;
        }
}

static void too_many_files(struct buf *z)
{
        put_u32(z, files_of(z), (uint32_t) z->len);
}

static void file_elsewhere(struct buf *z)
{
        put_u32(z, files_of(z) + 4 + 4 * 7, 0x7ffffff0);
}

static void no_name(struct buf *z)
{
        size_t text = target_of(z, place_of(z, some_file(z), FILE_NAME));

        put_u32(z, text, 0);
        z->data[text + 4] = '\0';
}

static void slash_behind_a_file(struct buf *z)
{
        char *name = text_of(z, some_file(z), FILE_NAME);

        name[strlen(name) - 1] = '/';
}

static void unknown_type(struct buf *z)
{
        memcpy(text_of(z, some_file(z), FILE_TYPE), "rog", 3);
}

static void link_without_target(struct buf *z)
{
        for (uint32_t i = 0;; i++)
                if (strcmp(text_of(z, file_of(z, i), FILE_TYPE), "symlink") == 0) {
                        memset(z->data + slot_of(z, file_of(z, i), FILE_LINK), 0, 2);
                        return;
                }
}

static void file_past_the_end(struct buf *z)
{
        put_u64(z, place_of(z, some_file(z), FILE_SIZE), 100 * MIB);
}

static void file_overflows(struct buf *z)
{
        put_u64(z, place_of(z, some_file(z), FILE_SIZE), INT64_MAX);
}

static void negative_offset(struct buf *z)
{
        put_u64(z, place_of(z, some_file(z), FILE_OFFSET), UINT64_MAX - 511);
}

static void offset_within_a_block(struct buf *z)
{
        size_t at = place_of(z, some_file(z), FILE_OFFSET);

        put_u64(z, at, get_u64(z, at) + 1);
}

static void files_in_one_place(struct buf *z)
{
        put_u64(z, place_of(z, next_file(z), FILE_OFFSET), get_u64(z, place_of(z, some_file(z), FILE_OFFSET)));
}

static void file_over_the_next_header(struct buf *z)
{
        size_t next = place_of(z, next_file(z), FILE_OFFSET), offset = place_of(z, some_file(z), FILE_OFFSET);

        put_u64(z, place_of(z, some_file(z), FILE_SIZE), get_u64(z, next) - get_u64(z, offset) - 511);
}

static void first_file_without_a_header(struct buf *z)
{
        put_u64(z, place_of(z, file_of(z, 0), FILE_OFFSET), 0);
}

static void no_time(struct buf *z)
{
        text_of(z, some_file(z), FILE_MTIME)[4] = '/';
}

static void negative_mode(struct buf *z)
{
        put_u64(z, place_of(z, some_file(z), FILE_MODE), UINT64_MAX);
}

static size_t some_device(const struct buf *z)
{
        for (uint32_t i = 0;; i++)
                if (strcmp(text_of(z, file_of(z, i), FILE_TYPE), "char") == 0)
                        return file_of(z, i);
}

static void large_device(struct buf *z)
{
        put_u64(z, place_of(z, some_device(z), FILE_MAJOR), 4096);
}

static void name_too_long(struct buf *z)
{
        /* Over what belongs to files that are read later. */
        size_t text = target_of(z, place_of(z, some_file(z), FILE_NAME));

        put_u32(z, text, 300);
        memset(z->data + text + 4, 'n', 300);
        z->data[text + 304] = '\0';
}

static void files_that_no_tar_has_are_refused(_unused_ void **state)
{
        static const struct damage damages[] = {
                { too_many_files, "TOC.metadata: does not end within the buffer" },
                { file_elsewhere, "TOC.metadata, element 7: table FileMetadata at byte " },
                { no_name, "FileMetadata.name: empty" },
                { slash_behind_a_file, "a file with a slash at the end of its name" },
                { unknown_type, "FileMetadata.type: \"rog\" is unknown" },
                { link_without_target, "the symlink has no target" },
                { file_past_the_end, "lie outside of the tar" },
                { file_overflows, "lie outside of the tar" },
                { negative_offset, "FileMetadata.uncompressed_offset: -512 is negative" },
                { offset_within_a_block, "is no multiple of 512" },
                { files_in_one_place, "but what stands before it ends at " },
                { file_over_the_next_header, "but what stands before it ends at " },
                { first_file_without_a_header, "and it has a header" },
                { no_time, "is no time of RFC 3339" },
                { negative_mode, "FileMetadata.mode: -1 is negative" },
                { large_device, "device 4096:" },
                { name_too_long, "a name in the path is longer than 255" },
        };

        expect_all_refused(load_gzip, damages, ELEMENTSOF(damages));
        expect_all_refused(load_tar, damages, ELEMENTSOF(damages));
}

/* ---- pax records ---- */

static void sparse_key(struct buf *z)
{
        char *key = text_of(z, some_record(z, 11), RECORD_KEY);

        memcpy(key, "GNU.sparse.", 11);
}

static void key_with_equals(struct buf *z)
{
        text_of(z, some_record(z, 1), RECORD_KEY)[0] = '=';
}

static void key_with_nul(struct buf *z)
{
        text_of(z, some_record(z, 2), RECORD_KEY)[1] = '\0';
}

static void record_without_a_key(struct buf *z)
{
        memset(z->data + slot_of(z, some_record(z, 1), RECORD_KEY), 0, 2);
}

/* The first record named KEY. */
static size_t record_named(const struct buf *z, const char *key, size_t *ret_file)
{
        for (uint32_t i = 0;; i++) {
                size_t records = target_of(z, place_of(z, file_of(z, i), FILE_RECORDS));

                for (uint32_t k = 0; k < get_u32(z, records); k++) {
                        size_t record = target_of(z, records + 4 + 4 * (size_t) k);

                        *ret_file = file_of(z, i);
                        if (strcmp(text_of(z, record, RECORD_KEY), key) == 0)
                                return record;
                }
        }
}

static void id_at_odds_with_its_record(struct buf *z)
{
        size_t file;

        record_named(z, "uid", &file);
        put_u32(z, place_of(z, file, FILE_UID), 77);
}

static void time_that_is_none(struct buf *z)
{
        size_t file;

        *text_of(z, record_named(z, "mtime", &file), RECORD_VALUE) = 'x';
}

static void records_that_cannot_be_are_refused(_unused_ void **state)
{
        static const struct damage damages[] = {
                { sparse_key, "a sparse file, of whose data a ztoc does not tell where it belongs" },
                { key_with_equals, "Xattr.key: no key of a pax record" },
                { key_with_nul, "Xattr.key: a NUL inside" },
                { record_without_a_key, "Xattr.key: no key of a pax record" },
                { id_at_odds_with_its_record, "FileMetadata.uid: 77, but its pax record says " },
                { time_that_is_none, "pax record \"mtime\"" },
        };

        expect_all_refused(load_gzip, damages, ELEMENTSOF(damages));
}

static void cause_need_not_be_heard(_unused_ void **state)
{
        _cleanup_layer_ struct layer l;
        struct ztoc *z = NULL;

        load_tar(&l);
        time_that_is_none(&l.ztoc);
        assert_int_equal(ztoc_read(l.ztoc.data, l.ztoc.len, l.blob.len, &z, NULL), -EBADMSG);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(tables_that_lead_astray_are_refused),
                cmocka_unit_test(spans_that_are_not_told_are_refused),
                cmocka_unit_test(checkpoints_that_cannot_be_are_refused),
                cmocka_unit_test(uncompressed_spans_that_cannot_be_are_refused),
                cmocka_unit_test(files_that_no_tar_has_are_refused),
                cmocka_unit_test(records_that_cannot_be_are_refused),
                cmocka_unit_test(cause_need_not_be_heard),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
