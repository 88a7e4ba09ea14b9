/* SPDX-License-Identifier: Apache-2.0 */

#include "layer_expect.h"

#include "../../fs/toc/layer_tree.h"

static void names_are_bounded(void **state)
{
        _cleanup_free_ char *fits = repeat("n", 255), *too_long = repeat("n", 256);
        _cleanup_free_ char *link = str_printf("a/%s/b", too_long);

        (void) state;
        expect_same_path(fits, fits);
        expect_refusal(ENTRIES(REG(too_long, 1)), "longer than 255");
        expect_refusal(ENTRIES(HARD("l", link)), "longer than 255");
}

static void paths_are_bounded(void **state)
{
        _cleanup_free_ char *fits = repeat("./", 2048), *too_long = repeat("./", 2049);

        (void) state;
        expect_layer(ENTRIES(DIR(fits, 0700)), "/ 700\n");
        expect_refusal(ENTRIES(DIR(too_long, 0700)), "longer than 4096");
}

static void depth_is_bounded(void **state)
{
        _cleanup_free_ char *fits = repeat("d/", 1024), *too_deep = repeat("d/", 1025), *turns = repeat("d/../", 800);
        struct itable t = layer_table(ENTRIES(DIR(fits, 0755)));

        (void) state;
        assert_int_equal(t.inode_count, 1025);
        itable_exact_free(&t);
        expect_refusal(ENTRIES(DIR(too_deep, 0755)), "deeper than 1024");
        expect_layer(ENTRIES(DIR(turns, 0700)), "/ 700\n");
}

static void entries_are_bounded(void **state)
{
        _cleanup_(layer_tree_free_ptr) struct layer_tree *t = NULL;
        const struct layer_entry a = REG("a", 1), b = REG("b", 1), again = REG("a", 2), below = REG("a/c", 2);
        struct error e = ERROR_INIT;

        (void) state;
        assert_int_equal(layer_tree_new(&t), 0);
        assert_int_equal(t->nodes_max, ITABLE_ENTRIES_MAX);
        t->nodes_max = 2;
        assert_int_equal(layer_tree_add(t, &a, &e), 0);
        assert_int_equal(layer_tree_add(t, &again, &e), 0);
        assert_int_equal(layer_tree_add(t, &b, &e), -EBADMSG);
        assert_non_null(strstr(e.message, "b: the layer has more than 16 million entries"));
        assert_int_equal(layer_tree_add(t, &below, &e), -EBADMSG);
}

static void xattrs_are_bounded(void **state)
{
        static struct layer_xattr many[4097];
        _cleanup_free_ char *value = repeat("v", 65537), *name = repeat("n", 256);
        struct layer_xattr one = { .name = "user.x", .value = (const uint8_t *) value, .value_length = 65536 };
        struct layer_entry entry = { .path = "f", .mode = S_IFREG, .xattrs = &one, .xattr_count = 1 };
        struct itable t = layer_table(&entry, 1);

        (void) state;
        itable_exact_free(&t);
        one.value_length = 65537;
        expect_refusal(&entry, 1, "f: an xattr's value is longer than 64 KiB");
        one = (struct layer_xattr) { .name = name };
        expect_refusal(&entry, 1, "an xattr's name");
        one.name = "";
        expect_refusal(&entry, 1, "an xattr's name");
        for (size_t i = 0; i < ELEMENTSOF(many); i++)
                many[i].name = str_printf("user.%zu", i);
        entry.xattrs = many;
        entry.xattr_count = 4096;
        t = layer_table(&entry, 1);
        assert_int_equal(t.xattr_pair_count, 4096);
        itable_exact_free(&t);
        entry.xattr_count = 4097;
        expect_refusal(&entry, 1, "more than 4096 xattrs");
        for (size_t i = 0; i < ELEMENTSOF(many); i++)
                free((void *) many[i].name);
}

/* ENTRY must be refused once the N bytes at SIZE, of a table that the tree keeps, are what is allowed. */
static void expect_full(struct layer_tree *t, size_t *size, size_t n, const struct layer_entry *entry,
                        const char *cause)
{
        size_t before = *size;
        struct error e = ERROR_INIT;
        int r;

        *size = n;
        r = layer_tree_add(t, entry, &e);
        *size = before;
        assert_int_equal(r, -EBADMSG);
        if (!strstr(e.message, cause))
                fail_msg("\"%s\" is not in \"%s\"", cause, e.message);
}

static void tables_are_bounded(void **state)
{
        static const struct extent extent = { 0, 0, 5 };
        static const struct layer_xattr xattr = { "user.x", (const uint8_t *) "", 0 };
        const struct layer_entry name = REG("some name", 1), target = SYM("s", "some target"),
                                 sparse = { .path = "f",
                                            .mode = S_IFREG,
                                            .size = 20,
                                            .sparse = true,
                                            .extents = &extent,
                                            .extent_count = 1 },
                                 xattrs = { .path = "x", .mode = S_IFREG, .xattrs = &xattr, .xattr_count = 1 };
        _cleanup_(layer_tree_free_ptr) struct layer_tree *t = NULL;

        (void) state;
        assert_int_equal(layer_tree_new(&t), 0);
        expect_full(t, &t->strings.bytes.size, ITABLE_STRINGS_MAX, &name, "1 GiB of names");
        expect_full(t, &t->strings.bytes.size, ITABLE_STRINGS_MAX, &target, "1 GiB of names");
        expect_full(t, &t->extents.size, ITABLE_EXTENTS_MAX * sizeof(extent), &sparse,
                    "16 million pieces of sparse files");
        expect_full(t, &t->xattrs.pairs.size, ITABLE_XATTRS_MAX * sizeof(struct xattr_pair), &xattrs,
                    "16 million xattrs");
        assert_int_equal(layer_tree_add(t, &sparse, NULL), 0);
        assert_int_equal(layer_tree_add(t, &xattrs, NULL), 0);
}

static void impossible_attributes_are_refused(void **state)
{
        static const struct extent unsorted[] = { { 10, 0, 5 }, { 0, 5, 5 } },
                                   overlapping[] = { { 0, 0, 5 }, { 4, 5, 5 } }, past_end[] = { { 15, 0, 6 } },
                                   overflowing[] = { { 0, UINT64_MAX - 1, 5 } };
        static const struct extent *const bad[] = { unsorted, overlapping, past_end, overflowing };
        static const size_t counts[] = { 2, 2, 1, 1 };
        _cleanup_free_ char *target = repeat("t", 4096);

        (void) state;
        for (size_t i = 0; i < ELEMENTSOF(bad); i++)
                expect_refusal(ENTRIES({ .path = "f",
                                         .mode = S_IFREG,
                                         .size = 20,
                                         .sparse = true,
                                         .extents = bad[i],
                                         .extent_count = counts[i] }),
                               "f: the pieces of the sparse file");
        expect_refusal(ENTRIES({ .path = "f", .mode = S_IFREG, .size = 1ull << 63 }), "size");
        expect_refusal(ENTRIES({ .path = "f", .mode = S_IFREG, .size = 2, .content_offset = UINT64_MAX - 1 }), "size");
        expect_refusal(ENTRIES({ .path = "f", .mode = S_IFREG, .mtime_nsec = 1000000000 }), "nanoseconds");
        expect_refusal(ENTRIES({ .path = "f", .mode = 0644 }), "unknown type");
        expect_refusal(ENTRIES({ .path = "f", .mode = S_IFSOCK | 0644 }), "unknown type");
        expect_refusal(ENTRIES(SYM("s", "")), "s: the symlink has no target");
        expect_refusal(ENTRIES(SYM("s", NULL)), "no target");
        expect_refusal(ENTRIES(SYM("s", target)), "longer than 4095");
        expect_refusal(ENTRIES(HARD("h", NULL)), "h: the hardlink has no target");
        expect_refusal(ENTRIES(HARD("h", "")), "no target");
}

static void refused_entry_leaves_the_tree_as_it_was(void **state)
{
        _cleanup_(layer_tree_free_ptr) struct layer_tree *t = NULL;
        _cleanup_(itable_builder_free_ptr) struct itable_builder *b = NULL;
        const struct layer_entry good = REG("d/f", 1), bad = SYM("d", "");
        _cleanup_free_ char *text = NULL;
        struct itable table;

        (void) state;
        assert_int_equal(layer_tree_new(&t), 0);
        assert_int_equal(layer_tree_add(t, &good, NULL), 0);
        assert_int_equal(layer_tree_add(t, &bad, NULL), -EBADMSG);
        assert_int_equal(layer_tree_finish(t, NULL), 0);
        assert_int_equal(itable_builder_new(&b), 0);
        assert_int_equal(itable_builder_from_layer(b, t, NULL), 0);
        table = checked_table(b, 1);
        text = itable_text(&table);
        assert_string_equal(text, "/ 755 implicit\nd/ 755 implicit\nd/f 644 #1\n");
        itable_exact_free(&table);
}

/* What is expected is a hint: it changes no tree, and takes no memory to speak of when it is absurd. */
static void expectations_may_be_wrong(void **state)
{
        static const size_t expected[] = { 0, 1, 100, 5000, 50000, SIZE_MAX };

        (void) state;
        for (size_t k = 0; k < ELEMENTSOF(expected); k++) {
                _cleanup_(layer_tree_free_ptr) struct layer_tree *t = NULL;
                struct error e = ERROR_INIT;
                uint32_t cursor;

                assert_int_equal(layer_tree_new(&t), 0);
                assert_int_equal(layer_tree_expect(t, expected[k]), 0);
                assert_true(t->nodes.room + 8 * (size_t) t->children.mask + 8 * (size_t) t->strings.index.mask <
                            8 * MIB);
                for (unsigned i = 0; i < 9000; i++) {
                        char path[32];
                        const struct layer_entry entry = REG(path, 0);

                        snprintf(path, sizeof(path), "d%u/f%u", i % 7, i);
                        if (layer_tree_add(t, &entry, &e) < 0)
                                fail_msg("%s", e.message);
                }
                assert_int_equal(region_count(&t->nodes, struct node), 1 + 7 + 9000);
                assert_int_not_equal(layer_tree_child(t, layer_tree_child(t, 0, "d3", 2, &cursor), "f8998", 5, &cursor),
                                     ITABLE_NONE);
                assert_int_equal(layer_tree_finish(t, NULL), 0);
        }
}

static void messages_show_long_and_odd_paths_safely(void **state)
{
        _cleanup_free_ char *path = repeat("long\n/", 300);
        const struct layer_entry entry = SYM(path, "");
        _cleanup_(layer_tree_free_ptr) struct layer_tree *t = NULL;
        struct error e = ERROR_INIT;

        (void) state;
        assert_int_equal(layer_tree_new(&t), 0);
        assert_int_equal(layer_tree_add(t, &entry, &e), -EBADMSG);
        assert_null(strchr(e.message, '\n'));
        assert_non_null(strstr(e.message, "/long?: the symlink has no target"));
        assert_true(strlen(e.message) < 400);
}

static void finished_tree_takes_no_more_and_an_unfinished_one_gives_no_rows(void **state)
{
        _cleanup_(layer_tree_free_ptr) struct layer_tree *t = NULL;
        _cleanup_(itable_builder_free_ptr) struct itable_builder *b = NULL;
        const struct layer_entry entry = REG("f", 1);

        (void) state;
        assert_int_equal(layer_tree_new(&t), 0);
        assert_int_equal(itable_builder_new(&b), 0);
        assert_int_equal(itable_builder_from_layer(b, t, NULL), -EINVAL);
        assert_int_equal(layer_tree_finish(t, NULL), 0);
        assert_int_equal(layer_tree_add(t, &entry, NULL), -EINVAL);
        assert_int_equal(itable_builder_from_layer(b, t, NULL), 0);
        assert_int_equal(itable_builder_from_layer(b, t, NULL), -EINVAL);
        assert_null(layer_tree_free(NULL));
        assert_null(itable_builder_free(NULL));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(names_are_bounded),
                cmocka_unit_test(paths_are_bounded),
                cmocka_unit_test(depth_is_bounded),
                cmocka_unit_test(entries_are_bounded),
                cmocka_unit_test(xattrs_are_bounded),
                cmocka_unit_test(tables_are_bounded),
                cmocka_unit_test(impossible_attributes_are_refused),
                cmocka_unit_test(refused_entry_leaves_the_tree_as_it_was),
                cmocka_unit_test(expectations_may_be_wrong),
                cmocka_unit_test(messages_show_long_and_odd_paths_safely),
                cmocka_unit_test(finished_tree_takes_no_more_and_an_unfinished_one_gives_no_rows),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
