/* SPDX-License-Identifier: Apache-2.0 */

#include "toc_sample.h"

static const struct digest manifest_digest = { .algorithm = DIGEST_SHA512, .bytes = { 9, [63] = 8 } };
static const struct tree_layer two_layers[] = {
        { .digest = { .algorithm = DIGEST_SHA256, .bytes = { 1 } },
          .kind = "plain",
          .blob_size = 70,
          .content_size = 1000 },
        { .digest = { .algorithm = DIGEST_SHA256, .bytes = { 2 } },
          .kind = "estargz-abcd",
          .blob_size = 80,
          .content_size = 2000 },
};

static int tree_file_of(const struct layer_entry *low, size_t low_count, const struct layer_entry *high,
                        size_t high_count)
{
        struct itable tables[] = { layer_table(low, low_count), layer_table(high, high_count) };
        const struct itable *const pointers[] = { &tables[0], &tables[1] };
        struct error e = ERROR_INIT;
        int fd = new_file();

        if (tree_write(fd, &manifest_digest, pointers, two_layers, 2, &e) < 0)
                fail_msg("%s", e.message);
        itable_exact_free(&tables[0]);
        itable_exact_free(&tables[1]);
        return fd;
}

static void written_tree_is_read_back(void **state)
{
        _cleanup_close_ int fd =
                tree_file_of(ENTRIES(REG("d/a", 1), REG("d/b", 2)), ENTRIES(WHITEOUT("d/.wh.a"), REG("c", 3)));
        _cleanup_(tree_close_ptr) struct tree *t = NULL;
        _cleanup_free_ char *text = NULL;

        (void) state;
        assert_int_equal(tree_open(fd, &manifest_digest, &t, NULL), 0);
        text = itable_text(&t->itable);
        assert_string_equal(text, "/ 755\nc 644 #3 @1\nd/ 755\nd/b 644 #2\n");
        assert_int_equal(t->layer_count, 2);
        for (size_t i = 0; i < 2; i++) {
                assert_true(digest_equal(&t->layers[i].digest, &two_layers[i].digest));
                assert_string_equal(t->layers[i].kind, two_layers[i].kind);
                assert_int_equal(t->layers[i].blob_size, two_layers[i].blob_size);
                assert_int_equal(t->layers[i].content_size, two_layers[i].content_size);
        }
        assert_true(digest_equal(&t->manifest, &manifest_digest));
        assert_false(t->has_xattrs);
        assert_null(tree_close(NULL));
}

static void tree_knows_whether_any_file_has_xattrs(void **state)
{
        const struct layer_entry with = { .path = "x", .mode = S_IFREG, .xattrs = sample_xattrs, .xattr_count = 1 };
        _cleanup_close_ int seen = tree_file_of(ENTRIES(REG("a", 1)), &with, 1);
        _cleanup_close_ int hidden = tree_file_of(&with, 1, ENTRIES(WHITEOUT(".wh.x")));
        _cleanup_(tree_close_ptr) struct tree *a = NULL, *b = NULL;

        (void) state;
        assert_int_equal(tree_open(seen, &manifest_digest, &a, NULL), 0);
        assert_true(a->has_xattrs);
        assert_int_equal(tree_open(hidden, &manifest_digest, &b, NULL), 0);
        assert_false(b->has_xattrs);
}

static void tree_and_toc_are_not_taken_for_each_other(void **state)
{
        _cleanup_close_ int tree = tree_file_of(ENTRIES(REG("a", 1)), NULL, 0), toc = sample_file();
        _cleanup_(tree_close_ptr) struct tree *t = NULL;
        _cleanup_(toc_close_ptr) struct toc *no_toc = NULL;
        struct error e = ERROR_INIT;

        (void) state;
        assert_int_equal(toc_open(tree, &manifest_digest, &no_toc, &e), -EBADMSG);
        assert_non_null(strstr(e.message, "the file is none"));
        assert_int_equal(tree_open(toc, &manifest_digest, &t, &e), -EBADMSG);
        assert_int_equal(tree_open(tree, &layer_digest, &t, &e), -EBADMSG);
        assert_non_null(strstr(e.message, "image index of sha256:0102"));
}

static void tree_with_a_nameless_layer_is_refused(void **state)
{
        _cleanup_close_ int fd = tree_file_of(ENTRIES(REG("a", 1)), NULL, 0);
        _cleanup_(tree_close_ptr) struct tree *t = NULL;
        struct error e = ERROR_INIT;
        size_t n;
        _cleanup_free_ uint8_t *bytes = file_bytes(fd, &n);
        struct tree_layer *layers = (void *) (bytes + n - 2 * sizeof(*layers));

        (void) state;
        assert_string_equal(layers[1].kind, "estargz-abcd");
        memset(layers[1].kind, 'x', sizeof(layers[1].kind));
        set_hash(bytes, n);
        assert_int_equal(pwrite_full(fd, bytes, n, 0), 0);
        assert_int_equal(tree_open(fd, &manifest_digest, &t, &e), -EBADMSG);
        assert_non_null(strstr(e.message, "a layer has no name"));
        layers[1] = two_layers[1];
        layers[0].digest.algorithm = DIGEST_NONE;
        set_hash(bytes, n);
        assert_int_equal(pwrite_full(fd, bytes, n, 0), 0);
        assert_int_equal(tree_open(fd, &manifest_digest, &t, &e), -EBADMSG);
}

static void tree_with_part_of_a_layer_is_refused(void **state)
{
        _cleanup_close_ int fd = tree_file_of(ENTRIES(REG("a", 1)), NULL, 0), cut = -1;
        _cleanup_(tree_close_ptr) struct tree *t = NULL;
        struct error e = ERROR_INIT;
        size_t n;
        _cleanup_free_ uint8_t *bytes = file_bytes(fd, &n);
        struct itable_file_header *header = (void *) bytes;
        struct itable_file_section *layers =
                (struct itable_file_section *) (void *) (header + 1) + header->section_count - 1;

        (void) state;
        assert_int_equal(layers->length, 2 * sizeof(struct tree_layer));
        layers->length -= 8;
        header->file_length -= 8;
        set_hash(bytes, n - 8);
        cut = file_of(bytes, n - 8);
        assert_int_equal(tree_open(cut, &manifest_digest, &t, &e), -EBADMSG);
        assert_non_null(strstr(e.message, "out of bounds"));
}

static void merge_error_names_image_and_path(void **state)
{
        struct itable table = layer_table(ENTRIES(HARD("a", "b")));
        const struct itable *const tables[] = { &table };
        _cleanup_close_ int fd = new_file();
        struct error e = ERROR_INIT;

        (void) state;
        assert_int_equal(tree_write(fd, &layer_digest, tables, two_layers, 1, &e), -EBADMSG);
        assert_non_null(strstr(e.message, "merging the layers of sha256:0102"));
        assert_non_null(strstr(e.message, "a: hardlink to b, which no layer holds"));
        itable_exact_free(&table);
}

static void tree_key_depends_on_all_that_the_index_depends_on(void **state)
{
        struct tree_layer changed[2] = { two_layers[0], two_layers[1] };
        char key[65], other[65];

        (void) state;
        assert_int_equal(tree_key(&manifest_digest, two_layers, 2, key), 0);
        assert_int_equal(strlen(key), 64);
        assert_int_equal(strspn(key, "0123456789abcdef"), 64);
        assert_int_equal(tree_key(&manifest_digest, changed, 2, other), 0);
        assert_string_equal(key, other);
        assert_int_equal(tree_key(&layer_digest, two_layers, 2, other), 0);
        assert_string_not_equal(key, other);
        assert_int_equal(tree_key(&manifest_digest, two_layers, 1, other), 0);
        assert_string_not_equal(key, other);
        snprintf(changed[0].kind, sizeof(changed[0].kind), "soci-12");
        assert_int_equal(tree_key(&manifest_digest, changed, 2, other), 0);
        assert_string_not_equal(key, other);
        changed[0] = two_layers[1];
        changed[1] = two_layers[0];
        assert_int_equal(tree_key(&manifest_digest, changed, 2, other), 0);
        assert_string_not_equal(key, other);
        changed[0] = two_layers[0];
        changed[1] = two_layers[1];
        changed[1].digest.bytes[31] = 1;
        assert_int_equal(tree_key(&manifest_digest, changed, 2, other), 0);
        assert_string_not_equal(key, other);
}

static void lookup_walks_names_and_no_symlinks(void **state)
{
        static const struct {
                const char *path;
                int expected;
                uint32_t row;
        } cases[] = {
                { "", 0, 0 },
                { "/", 0, 0 },
                { "..", 0, 0 },
                { "/../..", 0, 0 },
                { "a", 0, 1 },
                { "/a/", 0, 1 },
                { "//a//.//", 0, 1 },
                { "a/b/f", 0, 4 },
                { "/a/b/f", 0, 4 },
                { "a/b/../../a", 0, 1 },
                { "a/b/..", 0, 1 },
                { "a/s", 0, 3 },
                { "x", -ENOENT, 0 },
                { "a/x/f", -ENOENT, 0 },
                { "a/b/f/", -ENOTDIR, 0 },
                { "a/b/f/.", -ENOTDIR, 0 },
                { "a/b/f/..", -ENOTDIR, 0 },
                { "a/b/f/x", -ENOTDIR, 0 },
                { "a/s/f", -ENOTDIR, 0 },
                { "x/..", -ENOENT, 0 },
        };
        _cleanup_close_ int fd = tree_file_of(ENTRIES(REG("a/b/f", 1)), ENTRIES(SYM("a/s", "b")));
        _cleanup_(tree_close_ptr) struct tree *t = NULL;

        (void) state;
        assert_int_equal(tree_open(fd, &manifest_digest, &t, NULL), 0);
        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                uint32_t row = 99;
                int r = tree_lookup(t, cases[i].path, &row);

                if (r != cases[i].expected || row != (r == 0 ? cases[i].row : 99))
                        fail_msg("\"%s\": %d, row %u", cases[i].path, r, row);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(written_tree_is_read_back),
                cmocka_unit_test(tree_knows_whether_any_file_has_xattrs),
                cmocka_unit_test(tree_and_toc_are_not_taken_for_each_other),
                cmocka_unit_test(tree_with_a_nameless_layer_is_refused),
                cmocka_unit_test(tree_with_part_of_a_layer_is_refused),
                cmocka_unit_test(merge_error_names_image_and_path),
                cmocka_unit_test(tree_key_depends_on_all_that_the_index_depends_on),
                cmocka_unit_test(lookup_walks_names_and_no_symlinks),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
