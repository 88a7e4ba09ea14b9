/* SPDX-License-Identifier: Apache-2.0 */

/* Ztocs of the reference writer, and what else its versions wrote, against the layers that they tell of. */

#include "soci_fixture.h"

static struct ztoc *read_sound(const struct layer *l)
{
        struct error e = ERROR_INIT;
        struct ztoc *z = NULL;

        if (ztoc_read(l->ztoc.data, l->ztoc.len, l->blob.len, &z, &e) < 0)
                fail_msg("%s", e.message);
        return z;
}

/* The same entries in the same order make the same rows, byte by byte. */
static void expect_tree_of_tar(const struct layer *l, const struct ztoc *z)
{
        _cleanup_(layer_tree_free_ptr) struct layer_tree *tree = scan_tar(&l->tar);
        _cleanup_rows_ struct rows a = { 0 }, b = { 0 };
        struct chunk_table chunks;

        ztoc_chunks(z, &chunks);
        rows_make(tree, l->tar.len, &a);
        rows_make(ztoc_tree(z), chunks.content_size, &b);

        const struct itable *x = &a.table, *y = &b.table;

        assert_true(x->dirent_count > 500);
        assert_int_equal(x->inode_count, y->inode_count);
        for (uint32_t i = 0; i < x->inode_count; i++)
                if (memcmp(&x->inodes[i], &y->inodes[i], sizeof(x->inodes[i])) != 0)
                        fail_msg("row %u: mode %o and %o, mtime %jd.%u and %jd.%u, data %ju and %ju", i,
                                 x->inodes[i].mode, y->inodes[i].mode, (intmax_t) x->inodes[i].mtime,
                                 x->inodes[i].mtime_nsec, (intmax_t) y->inodes[i].mtime, y->inodes[i].mtime_nsec,
                                 (uintmax_t) x->inodes[i].data, (uintmax_t) y->inodes[i].data);
        assert_int_equal(x->dirent_count, y->dirent_count);
        assert_memory_equal(x->dirents, y->dirents, x->dirent_count * sizeof(*x->dirents));
        assert_int_equal(x->xattr_set_count, y->xattr_set_count);
        assert_memory_equal(x->xattr_sets, y->xattr_sets, x->xattr_set_count * sizeof(*x->xattr_sets));
        assert_int_equal(x->xattr_pair_count, y->xattr_pair_count);
        assert_memory_equal(x->xattr_pairs, y->xattr_pairs, x->xattr_pair_count * sizeof(*x->xattr_pairs));
        assert_int_equal(x->strings_size, y->strings_size);
        assert_memory_equal(x->strings, y->strings, x->strings_size);
        assert_int_equal(x->extent_count, 0);
}

static void ztoc_has_the_tree_of_the_tar(_unused_ void **state)
{
        void (*const loads[])(struct layer *) = { load_gzip, load_tar };

        for (size_t k = 0; k < ELEMENTSOF(loads); k++) {
                _cleanup_layer_ struct layer l;
                _cleanup_(ztoc_free_ptr) struct ztoc *z = NULL;

                loads[k](&l);
                z = read_sound(&l);
                expect_tree_of_tar(&l, z);
        }
}

static void spans_decode_to_the_tar(_unused_ void **state)
{
        _cleanup_layer_ struct layer gzip, tar;
        _cleanup_(ztoc_free_ptr) struct ztoc *a = NULL, *b = NULL;
        struct chunk_table chunks;

        load_gzip(&gzip);
        a = read_sound(&gzip);
        assert_int_equal(ztoc_compression(a), COMPRESSION_GZIP);
        ztoc_chunks(a, &chunks);
        assert_int_equal(chunks.chunk_count, span_count(&gzip.ztoc));
        assert_int_equal(chunks.checkpoint_count, chunks.chunk_count);
        assert_true(chunks.chunk_count > 5);
        expect_content(&gzip, a);

        load_tar(&tar);
        b = read_sound(&tar);
        assert_int_equal(ztoc_compression(b), COMPRESSION_NONE);
        ztoc_chunks(b, &chunks);
        assert_int_equal(chunks.chunk_count, (tar.tar.len + 256 * KIB - 1) / (256 * KIB));
        assert_int_equal(chunks.content_size, tar.tar.len);
        expect_content(&tar, b);
}

/* Windows of the tar's first 32 KiB have zeros where nothing was yet; and most of them shrink. */
static void windows_are_packed(_unused_ void **state)
{
        _cleanup_layer_ struct layer l;
        _cleanup_(ztoc_free_ptr) struct ztoc *z = NULL;
        struct chunk_table t;

        load_gzip(&l);
        z = read_sound(&l);
        ztoc_chunks(z, &t);
        assert_int_equal(t.checkpoints[0].window_raw, 0);
        assert_true(t.windows_size > 0 && t.windows_size < t.checkpoint_count * 32768);
        assert_int_equal(t.checkpoints[1].window_raw, 32768);
}

/* ---- the older layout ---- */

/* Takes out the first record, as the older writer left it out. */
static void make_older(struct buf *ztoc)
{
        size_t count = checkpoints_of(ztoc), first = record_of(ztoc, 0);
        uint32_t size = get_u32(ztoc, count);

        memmove(ztoc->data + first, ztoc->data + first + RECORD_SIZE, size - RECORDS_HEADER - RECORD_SIZE);
        put_u32(ztoc, count, size - RECORD_SIZE);
}

static void older_layout_means_the_same(_unused_ void **state)
{
        _cleanup_layer_ struct layer l;
        _cleanup_(ztoc_free_ptr) struct ztoc *a = NULL, *b = NULL;
        struct chunk_table x, y;

        load_gzip(&l);
        a = read_sound(&l);
        assert_false(ztoc_start_is_assumed(a));
        make_older(&l.ztoc);
        b = read_sound(&l);
        assert_true(ztoc_start_is_assumed(b));
        expect_content(&l, b);
        ztoc_chunks(a, &x);
        ztoc_chunks(b, &y);
        assert_int_equal(x.chunk_count, y.chunk_count);
        assert_memory_equal(x.chunks, y.chunks, x.chunk_count * sizeof(*x.chunks));
        assert_memory_equal(x.checkpoints, y.checkpoints, x.checkpoint_count * sizeof(*x.checkpoints));
        assert_int_equal(ztoc_check_start(a, (uint8_t *) l.blob.data, NULL), 0);
        assert_int_equal(ztoc_check_start(b, (uint8_t *) l.blob.data, NULL), 0);
}

/* Gives the layer's gzip header a name of ten bytes, and the ztoc what a writer of either layout would have made of
 * that: the spans and their digests stay. */
static void lengthen_header(struct layer *l)
{
        static const char name[] = "layer.tar";
        _cleanup_buf_ struct buf old = l->blob;
        struct buf *z = &l->ztoc;

        l->blob = (struct buf) { 0 };
        assert_int_equal(buf_append(&l->blob, old.data, 10), 0);
        assert_int_equal(l->blob.data[3], 0);
        l->blob.data[3] = 8;
        assert_int_equal(buf_append(&l->blob, name, sizeof(name)), 0);
        assert_int_equal(buf_append(&l->blob, old.data + 10, old.len - 10), 0);

        put_u64(z, place_of(z, root_of(z), ZTOC_COMPRESSED), l->blob.len);
        for (uint32_t i = 0; i < span_count(z); i++)
                put_u64(z, record_of(z, i), get_u64(z, record_of(z, i)) + sizeof(name));
}

static void long_gzip_header_is_followed(_unused_ void **state)
{
        _cleanup_layer_ struct layer l;
        _cleanup_(ztoc_free_ptr) struct ztoc *z = NULL;

        load_gzip(&l);
        lengthen_header(&l);
        z = read_sound(&l);
        expect_content(&l, z);
        expect_tree_of_tar(&l, z);
        assert_int_equal(ztoc_check_start(z, (uint8_t *) l.blob.data, NULL), 0);
}

static void long_gzip_header_that_is_not_told_is_found(_unused_ void **state)
{
        _cleanup_layer_ struct layer l;
        _cleanup_(ztoc_free_ptr) struct ztoc *z = NULL;
        struct error e = ERROR_INIT;

        load_gzip(&l);
        lengthen_header(&l);
        make_older(&l.ztoc);
        z = read_sound(&l);
        assert_true(ztoc_start_is_assumed(z));
        assert_int_equal(ztoc_check_start(z, (uint8_t *) l.blob.data, &e), -EBADMSG);
        assert_non_null(strstr(e.message, "gzip header has more than 10 bytes"));
}

static void layer_that_is_no_gzip_is_found(_unused_ void **state)
{
        _cleanup_layer_ struct layer gzip, tar;
        _cleanup_(ztoc_free_ptr) struct ztoc *a = NULL, *b = NULL;

        load_gzip(&gzip);
        a = read_sound(&gzip);
        assert_int_equal(ztoc_check_start(a, (uint8_t *) gzip.tar.data, NULL), -EBADMSG);
        load_tar(&tar);
        b = read_sound(&tar);
        assert_int_equal(ztoc_check_start(b, (uint8_t *) tar.blob.data, NULL), 0);
}

/* ---- several members ---- */

/* The ztoc of a layer of several members by a writer that went no further than the first one, which was short: all is
 * one span. */
static void leave_one_span(struct layer *l)
{
        struct buf *z = &l->ztoc;
        char text[DIGEST_STRING_MAX];
        struct digest digest;

        put_u64(z, place_of(z, root_of(z), ZTOC_COMPRESSED), l->blob.len);
        put_u32(z, place_of(z, info_of(z), INFO_MAX_SPAN_ID), 0);
        put_u32(z, target_of(z, place_of(z, info_of(z), INFO_DIGESTS)), 1);
        put_u32(z, checkpoints_of(z), RECORDS_HEADER + RECORD_SIZE);
        put_u32(z, checkpoints_of(z) + 4, 1);
        assert_int_equal(digest_of(DIGEST_SHA256, l->blob.data + 10, l->blob.len - 10, &digest), 0);
        digest_format(&digest, text);
        memcpy(digest_of_span(z, 0), text, strlen(text));
}

static void one_span_of_several_members_decodes(_unused_ void **state)
{
        _cleanup_layer_ struct layer l;
        _cleanup_(ztoc_free_ptr) struct ztoc *z = NULL;
        struct chunk_table t;

        layer_load("base.members.gz", "base.tar.gz.ztoc", &l);
        leave_one_span(&l);
        z = read_sound(&l);
        ztoc_chunks(z, &t);
        assert_int_equal(t.chunk_count, 1);
        expect_content(&l, z);
        expect_tree_of_tar(&l, z);
}

static void giant_span_is_refused(_unused_ void **state)
{
        _cleanup_layer_ struct layer l;
        struct error e = ERROR_INIT;
        struct ztoc *z = NULL;

        layer_load("base.members.gz", "base.tar.gz.ztoc", &l);
        leave_one_span(&l);
        put_u64(&l.ztoc, place_of(&l.ztoc, root_of(&l.ztoc), ZTOC_UNCOMPRESSED), CHUNK_CONTENT_MAX + 1);
        assert_int_equal(ztoc_read(l.ztoc.data, l.ztoc.len, l.blob.len, &z, &e), -EBADMSG);
        assert_null(z);
        assert_string_equal(e.message, "ztoc: span 0 holds 33554433 bytes: regfs takes spans of at most 32 MiB");
}

/* ---- spans without content ---- */

/* An empty deflate block at the start has a span of its own. */
static void empty_span_has_no_chunk(_unused_ void **state)
{
        _cleanup_layer_ struct layer l;
        _cleanup_(ztoc_free_ptr) struct ztoc *z = NULL;
        struct chunk_table t;

        load_gzip(&l);
        /* Span 0 in two: nothing, and the rest, which is not where the digest says. */
        put_u64(&l.ztoc, record_of(&l.ztoc, 1), 11);
        put_u64(&l.ztoc, record_of(&l.ztoc, 1) + 8, 0);
        l.ztoc.data[record_of(&l.ztoc, 1) + 16] = 3;
        z = read_sound(&l);
        ztoc_chunks(z, &t);
        assert_int_equal(t.chunk_count, span_count(&l.ztoc) - 1);
        assert_int_equal(t.chunks[0].blob_offset, 10);
        assert_int_equal(t.checkpoints[0].in, 11);
        assert_int_equal(t.checkpoints[0].window_raw, 0);
}

/* Spans may begin in what follows the end of the archive. */
static void spans_behind_the_tar_are_left_out(_unused_ void **state)
{
        _cleanup_layer_ struct layer l;
        _cleanup_(ztoc_free_ptr) struct ztoc *z = NULL;
        uint64_t end;
        struct chunk_table t;

        load_gzip(&l);
        end = get_u64(&l.ztoc, record_of(&l.ztoc, 3) + 8) + 512;
        put_u32(&l.ztoc, files_of(&l.ztoc), 1);
        put_u64(&l.ztoc, place_of(&l.ztoc, root_of(&l.ztoc), ZTOC_UNCOMPRESSED), end);
        z = read_sound(&l);
        ztoc_chunks(z, &t);
        assert_int_equal(t.content_size, end);
        assert_int_equal(t.chunk_count, 4);
        assert_int_equal(t.chunks[3].content_length, 512);
        assert_true(t.chunks[3].blob_length > 512);
        expect_content(&l, z);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(ztoc_has_the_tree_of_the_tar),
                cmocka_unit_test(spans_decode_to_the_tar),
                cmocka_unit_test(windows_are_packed),
                cmocka_unit_test(older_layout_means_the_same),
                cmocka_unit_test(long_gzip_header_is_followed),
                cmocka_unit_test(long_gzip_header_that_is_not_told_is_found),
                cmocka_unit_test(layer_that_is_no_gzip_is_found),
                cmocka_unit_test(one_span_of_several_members_decodes),
                cmocka_unit_test(giant_span_is_refused),
                cmocka_unit_test(empty_span_has_no_chunk),
                cmocka_unit_test(spans_behind_the_tar_are_left_out),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
