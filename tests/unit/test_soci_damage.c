/* SPDX-License-Identifier: Apache-2.0 */

/* Ztocs that somebody cut, changed or made up. */

#include "soci_fixture.h"

/* Must be refused with a message that holds WHY. */
static void expect_refused(const struct layer *l, const char *why)
{
        _cleanup_free_ uint8_t *copy = NULL;
        struct error e = ERROR_INIT;
        struct ztoc *z = NULL;

        assert_int_equal(read_exactly(l, &copy, &z, &e), -EBADMSG);
        assert_null(z);
        assert_int_equal(e.kind, ERROR_BAD_DATA);
        assert_int_equal(strncmp(e.message, "ztoc: ", 6), 0);
        if (!strstr(e.message, why))
                fail_msg("says: %s\nnot: %s", e.message, why);
}

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
                cmocka_unit_test(tables_that_lead_astray_are_refused),
                cmocka_unit_test(spans_that_are_not_told_are_refused),
                cmocka_unit_test(checkpoints_that_cannot_be_are_refused),
                cmocka_unit_test(uncompressed_spans_that_cannot_be_are_refused),
                cmocka_unit_test(files_that_no_tar_has_are_refused),
                cmocka_unit_test(records_that_cannot_be_are_refused),
                cmocka_unit_test(endless_sharing_is_refused),
                cmocka_unit_test(records_past_their_bound_are_refused),
                cmocka_unit_test(truncated_ztocs_are_refused),
                cmocka_unit_test(ztoc_past_the_bound_is_refused),
                cmocka_unit_test(any_change_is_refused_or_harmless),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
