/* SPDX-License-Identifier: Apache-2.0 */

#include "layer_expect.h"

/* ---- entries ---- */

static void empty_layer_is_a_bare_root(void **state)
{
        (void) state;
        expect_layer(NULL, 0, "/ 755 implicit\n");
}

static void entries_keep_type_and_attributes(void **state)
{
        static const struct extent extents[] = { { 5, 100, 10 }, { 20, 110, 0 }, { 30, 110, 5 } };
        static const struct layer_xattr xattrs[] = { { "user.b", (const uint8_t *) "2", 1 },
                                                     { "user.a", NULL, 0 },
                                                     { "user.b", (const uint8_t *) "three", 5 } };

        (void) state;
        expect_layer(ENTRIES({ .path = "reg",
                               .mode = S_IFREG | 04755,
                               .size = 1,
                               .content_offset = 70,
                               .uid = 3000000,
                               .gid = 5 },
                             { .path = "old", .mode = S_IFDIR | 01777, .mtime = -86400, .mtime_nsec = 999999999 },
                             { .path = "chr", .mode = S_IFCHR | 0600, .major = 1, .minor = 3 },
                             { .path = "blk", .mode = S_IFBLK | 0600, .major = 0xffffffff, .minor = 0xfffffffe },
                             { .path = "fifo", .mode = S_IFIFO | 0600 }, SYM("sym", "../../etc/passwd"),
                             { .path = "sparse",
                               .mode = S_IFREG | 0644,
                               .size = 50,
                               .sparse = true,
                               .extents = extents,
                               .extent_count = 3 },
                             { .path = "hole", .mode = S_IFREG | 0644, .size = 50, .sparse = true },
                             { .path = "x", .mode = S_IFREG | 0644, .xattrs = xattrs, .xattr_count = 3 }),
                     "/ 755 implicit\n"
                     "blk b 4294967295:4294967294\n"
                     "chr c 1:3\n"
                     "fifo p\n"
                     "hole 644\n"
                     "old/ 1777 t-86400\n"
                     "reg 4755 #7 3000000:5\n"
                     "sparse 644 [5+10] [30+5]\n"
                     "sym -> ../../etc/passwd\n"
                     "x 644 #0 {user.a=} {user.b=three}\n");
}

static void equal_xattrs_share_one_set(void **state)
{
        static const struct layer_xattr ab[] = { { "a", (const uint8_t *) "1", 1 }, { "b", (const uint8_t *) "2", 1 } };
        static const struct layer_xattr ba[] = { { "b", (const uint8_t *) "2", 1 }, { "a", (const uint8_t *) "1", 1 } };
        static const struct layer_xattr other[] = { { "a", (const uint8_t *) "2", 1 },
                                                    { "b", (const uint8_t *) "1", 1 } };
        struct itable t = layer_table(ENTRIES({ .path = "1", .mode = S_IFREG, .xattrs = ab, .xattr_count = 2 },
                                              { .path = "2", .mode = S_IFREG, .xattrs = ba, .xattr_count = 2 },
                                              { .path = "3", .mode = S_IFREG, .xattrs = other, .xattr_count = 2 }));
        const uint8_t *value;
        size_t length;

        (void) state;
        assert_int_equal(t.xattr_set_count, 3);
        assert_int_equal(t.xattr_pair_count, 4);
        assert_int_equal(t.inodes[1].xattrs, t.inodes[2].xattrs);
        assert_int_not_equal(t.inodes[1].xattrs, t.inodes[3].xattrs);
        assert_int_equal(itable_xattr(&t, &t.inodes[3], "b", &value, &length), 0);
        assert_int_equal(length, 1);
        assert_memory_equal(value, "1", 1);
        assert_int_equal(itable_xattr(&t, &t.inodes[3], "c", &value, &length), -ENODATA);
        assert_int_equal(itable_xattr(&t, &t.inodes[0], "a", &value, &length), -ENODATA);
        itable_exact_free(&t);
}

static void unnamed_parents_are_implicit(void **state)
{
        (void) state;
        expect_layer(ENTRIES(REG("a/b/c", 1)), "/ 755 implicit\na/ 755 implicit\na/b/ 755 implicit\na/b/c 644 #1\n");
}

static void parent_named_later_gets_its_attributes(void **state)
{
        (void) state;
        expect_layer(ENTRIES(REG("a/b", 1), DIR("a/", 0700)), "/ 755 implicit\na/ 700\na/b 644 #1\n");
}

static void root_may_be_named(void **state)
{
        static const char *const names[] = { "/", "./", ".", "", "//", "a/..", "../" };

        (void) state;
        for (size_t i = 0; i < ELEMENTSOF(names); i++)
                expect_layer(ENTRIES({ .path = names[i], .mode = S_IFDIR | 0700, .uid = 7, .mtime = 5 }),
                             "/ 700 7:0 t5\n");
}

static void root_must_be_a_directory(void **state)
{
        (void) state;
        expect_refusal(ENTRIES(REG("/", 1)), "/: the root is no directory");
        expect_refusal(ENTRIES(SYM("./", "a")), "root is no directory");
        expect_refusal(ENTRIES(HARD("a/..", "b")), "root is no directory");
        expect_refusal(ENTRIES({ .path = ".", .mode = S_IFDIR, .hardlink = true, .link = "b" }),
                       "root is no directory");
}

static void paths_are_normalised_inside_the_root(void **state)
{
        (void) state;
        expect_same_path("f", "f");
        expect_same_path("./f", "f");
        expect_same_path("/f", "f");
        expect_same_path("//.//f//", "f");
        expect_same_path("../../f", "f");
        expect_same_path("/../f", "f");
        expect_same_path("a/../f", "f");
        expect_same_path("a/b/../../../../f", "f");
        expect_same_path("...", "...");
        expect_same_path("..f", "..f");
}

static void symlinks_are_not_followed(void **state)
{
        (void) state;
        expect_layer(ENTRIES(SYM("out", "/etc"), DIR("etc", 0755), REG("out/passwd", 1)),
                     "/ 755 implicit\netc/ 755\nout/ 755 opaque\nout/passwd 644 #1\n");
}

static void names_are_sorted_by_their_bytes(void **state)
{
        (void) state;
        expect_layer(ENTRIES(REG("b", 1), REG("a.b", 2), REG("a", 3), REG("\xff", 4), REG("aaaaaaaab", 5),
                             REG("aaaaaaaa", 6), REG("aaaaaaaaa", 7), REG("B", 8), DIR("a-", 0755)),
                     "/ 755 implicit\nB 644 #8\na 644 #3\na-/ 755\na.b 644 #2\naaaaaaaa 644 #6\naaaaaaaaa 644 #7\n"
                     "aaaaaaaab 644 #5\nb 644 #1\n\xff 644 #4\n");
}

static void rows_are_breadth_first(void **state)
{
        struct itable t = layer_table(ENTRIES(REG("b/x", 1), REG("a/y", 2), REG("a/z/w", 3), REG("c", 4)));
        static const char *const names[] = { "a", "b", "c", "y", "z", "x", "w" };

        (void) state;
        assert_int_equal(t.dirent_count, ELEMENTSOF(names));
        for (uint32_t i = 0; i < t.dirent_count; i++) {
                assert_int_equal(t.dirents[i].target, i + 1);
                assert_memory_equal(dirent_name(&t, &t.dirents[i]), names[i], 1);
        }
        itable_exact_free(&t);
}

static void large_directory_in_any_order_is_found_again(void **state)
{
        _cleanup_(layer_tree_free_ptr) struct layer_tree *t = NULL;
        _cleanup_(itable_builder_free_ptr) struct itable_builder *b = NULL;
        const unsigned count = 100000;
        struct itable table;
        char name[32];

        (void) state;
        assert_int_equal(layer_tree_new(&t), 0);
        for (unsigned i = 0; i < count; i++) {
                unsigned number = (unsigned) (i * 7919ull % count);
                struct layer_entry entry = REG(name, 1);

                snprintf(name, sizeof(name), "d/file-%u", number);
                entry.uid = number;
                assert_int_equal(layer_tree_add(t, &entry, NULL), 0);
        }
        assert_int_equal(layer_tree_finish(t, NULL), 0);
        assert_int_equal(itable_builder_new(&b), 0);
        assert_int_equal(itable_builder_from_layer(b, t, NULL), 0);
        table = checked_table(b, 1);
        assert_int_equal(table.inode_count, count + 2);
        for (unsigned i = 0; i < count; i++) {
                int n = snprintf(name, sizeof(name), "file-%u", i);
                uint32_t d = itable_find(&table, 1, name, (size_t) n);

                assert_int_not_equal(d, ITABLE_NONE);
                assert_int_equal(table.inodes[table.dirents[d].target].uid, i);
        }
        assert_int_equal(itable_find(&table, 1, "file-", 5), ITABLE_NONE);
        assert_int_equal(itable_find(&table, 1, "file-100000", 11), ITABLE_NONE);
        assert_int_equal(itable_find(&table, 2, "file-1", 6), ITABLE_NONE);
        itable_exact_free(&table);
}

/* ---- one path twice ---- */

static void later_file_wins(void **state)
{
        (void) state;
        expect_layer(ENTRIES(REG("f", 1), REG("./f", 2)), "/ 755 implicit\nf 644 #2\n");
        expect_layer(ENTRIES(REG("f", 1), SYM("f", "t")), "/ 755 implicit\nf -> t\n");
        expect_layer(ENTRIES({ .path = "f", .mode = S_IFREG, .size = 9, .sparse = true }, REG("f", 2)),
                     "/ 755 implicit\nf 644 #2\n");
}

static void later_directory_keeps_children_and_updates_attributes(void **state)
{
        (void) state;
        expect_layer(ENTRIES(DIR("d", 0755), REG("d/f", 1), DIR("d/", 0700)), "/ 755 implicit\nd/ 700\nd/f 644 #1\n");
}

static void later_file_drops_the_directory_below(void **state)
{
        (void) state;
        expect_layer(ENTRIES(REG("d/e/f", 1), REG("d/g", 2), REG("d", 3)), "/ 755 implicit\nd 644 #3\n");
        expect_layer(ENTRIES(REG("d/f", 1), WHITEOUT("d/.wh.g"), SYM("d", "e")), "/ 755 implicit\nd -> e\n");
}

static void later_directory_over_a_file_starts_empty_and_hides_lower_children(void **state)
{
        (void) state;
        expect_layer(ENTRIES(REG("d", 1), DIR("d", 0711)), "/ 755 implicit\nd/ 711 opaque\n");
        expect_layer(ENTRIES(REG("d/f", 1), REG("d", 2), REG("d/g", 3)), "/ 755 implicit\nd/ 755 opaque\nd/g 644 #3\n");
        expect_layer(ENTRIES(HARD("d", "x"), REG("x", 1), DIR("d", 0700)), "/ 755 implicit\nd/ 700 opaque\nx 644 #1\n");
}

static void entry_below_a_file_makes_it_a_directory(void **state)
{
        (void) state;
        expect_layer(ENTRIES(REG("f", 1), REG("f/a/b", 2)),
                     "/ 755 implicit\nf/ 755 opaque\nf/a/ 755 implicit\nf/a/b 644 #2\n");
}

static void children_dropped_by_a_file_do_not_come_back(void **state)
{
        (void) state;
        expect_layer(ENTRIES(REG("a/b/old", 1), REG("a/b", 2), DIR("a/b", 0700), REG("a/b/new", 3)),
                     "/ 755 implicit\na/ 755 implicit\na/b/ 700 opaque\na/b/new 644 #3\n");
        expect_layer(ENTRIES(REG("a/b/old", 1), REG("a", 2), REG("a/b/new", 3)),
                     "/ 755 implicit\na/ 755 opaque\na/b/ 755 implicit\na/b/new 644 #3\n");
}

/* ---- whiteouts ---- */

static void whiteout_does_not_show_as_a_file(void **state)
{
        (void) state;
        expect_layer(ENTRIES(WHITEOUT("d/.wh.f"), DIR("d", 0755)), "/ 755 implicit\nd/ 755\nd/f whiteout\n");
        expect_layer(ENTRIES(DIR("./.wh.g", 0755)), "/ 755 implicit\ng whiteout\n");
        expect_layer(ENTRIES(WHITEOUT("/.wh..w")), "/ 755 implicit\n.w whiteout\n");
        expect_layer(ENTRIES(WHITEOUT(".wh.wh.f")), "/ 755 implicit\nwh.f whiteout\n");
}

static void whiteout_leaves_the_layers_own_file(void **state)
{
        (void) state;
        expect_layer(ENTRIES(REG("f", 1), WHITEOUT(".wh.f")), "/ 755 implicit\nf 644 #1\n");
        expect_layer(ENTRIES(WHITEOUT(".wh.f"), REG("f", 1)), "/ 755 implicit\nf 644 #1\n");
}

static void directory_with_a_whiteout_of_its_name_is_opaque(void **state)
{
        (void) state;
        expect_layer(ENTRIES(DIR("d", 0700), WHITEOUT(".wh.d")), "/ 755 implicit\nd/ 700 opaque\n");
        expect_layer(ENTRIES(WHITEOUT(".wh.d"), REG("d/f", 1)), "/ 755 implicit\nd/ 755 opaque\nd/f 644 #1\n");
        expect_layer(ENTRIES(WHITEOUT(".wh.d"), REG("d/f", 1), REG("d", 2), DIR("d", 0711)),
                     "/ 755 implicit\nd/ 711 opaque\n");
}

static void opaque_marker_counts_wherever_it_stands(void **state)
{
        const char *expected = "/ 755 implicit\nd/ 700 opaque\nd/f 644 #1\n";

        (void) state;
        expect_layer(ENTRIES(WHITEOUT("d/.wh..wh..opq"), DIR("d", 0700), REG("d/f", 1)), expected);
        expect_layer(ENTRIES(DIR("d", 0700), WHITEOUT("d/.wh..wh..opq"), REG("d/f", 1)), expected);
        expect_layer(ENTRIES(DIR("d", 0700), REG("d/f", 1), WHITEOUT("d/.wh..wh..opq")), expected);
        expect_layer(ENTRIES(REG("d/f", 1), WHITEOUT("d/.wh..wh..opq"), DIR("d", 0700)), expected);
        expect_layer(ENTRIES(REG("d/f", 1), WHITEOUT("d/.wh..wh..opq")),
                     "/ 755 implicit\nd/ 755 implicit opaque\nd/f 644 #1\n");
        expect_layer(ENTRIES(WHITEOUT(".wh..wh..opq")), "/ 755 implicit opaque\n");
        expect_layer(ENTRIES(WHITEOUT(".wh..wh..opq"), DIR("/", 0700)), "/ 700 opaque\n");
}

static void only_the_exact_name_is_opaque(void **state)
{
        (void) state;
        expect_layer(ENTRIES(DIR("d", 0755), WHITEOUT("d/.wh..wh..opqx"), WHITEOUT("d/.wh..wh..op"),
                             WHITEOUT("d/.wh..wh.opq"), WHITEOUT("d/.wh..wh.")),
                     "/ 755 implicit\nd/ 755\n");
        expect_layer(ENTRIES(DIR("d", 0755), WHITEOUT("d/.wh..opq")), "/ 755 implicit\nd/ 755\nd/.opq whiteout\n");
}

static void aufs_names_are_ignored(void **state)
{
        (void) state;
        expect_layer(ENTRIES(REG(".wh..wh.aufs", 1), DIR(".wh..wh.plnk", 0700), REG(".wh..wh.plnk/1.2", 2),
                             REG(".wh..wh.plnk/d/.wh.x", 3), SYM("a", "b"), HARD(".wh..wh.plnk/3", ".wh..wh.plnk/3")),
                     "/ 755 implicit\na -> b\n");
}

static void hardlink_to_an_ignored_name_shows_its_file(void **state)
{
        (void) state;
        expect_layer(ENTRIES(HARD("a", "/.wh..wh.plnk/1.2"), DIR(".wh..wh.plnk", 0700), REG(".wh..wh.plnk/1.2", 2),
                             HARD("b", ".wh..wh.plnk/1.2")),
                     "/ 755 implicit\na 644 #2 x2\nb = a\n");
}

static void entries_below_a_whiteout_are_ignored(void **state)
{
        (void) state;
        expect_layer(ENTRIES(REG("a/.wh.b/c", 1), WHITEOUT("a/.wh.b/.wh.c"), WHITEOUT("a/.wh.b/.wh..wh..opq")),
                     "/ 755 implicit\na/ 755 implicit ghost\n");
        expect_layer(ENTRIES(DIR("a/.wh.b", 0755), REG("a/.wh.b/c", 1)),
                     "/ 755 implicit\na/ 755 implicit ghost\na/b whiteout\n");
}

static void whiteout_must_name_something(void **state)
{
        (void) state;
        expect_refusal(ENTRIES(WHITEOUT("usr/.wh.")), "usr/.wh.: a whiteout must name a file");
        expect_refusal(ENTRIES(WHITEOUT(".wh..")), "a whiteout must name a file");
        expect_refusal(ENTRIES(WHITEOUT(".wh...")), "a whiteout must name a file");
        expect_refusal(ENTRIES(REG(".wh./f", 1)), "a whiteout must name a file");
}

static void directories_that_only_whiteouts_name_are_ghosts(void **state)
{
        (void) state;
        expect_layer(ENTRIES(WHITEOUT("a/b/.wh.f")),
                     "/ 755 implicit\na/ 755 implicit ghost\na/b/ 755 implicit ghost\na/b/f whiteout\n");
        expect_layer(ENTRIES(WHITEOUT("a/b/.wh..wh..opq")),
                     "/ 755 implicit\na/ 755 implicit ghost\na/b/ 755 implicit opaque ghost\n");
        expect_layer(ENTRIES(WHITEOUT("a/b/.wh.f"), REG("a/g", 1)),
                     "/ 755 implicit\na/ 755 implicit\na/b/ 755 implicit ghost\na/b/f whiteout\na/g 644 #1\n");
        expect_layer(ENTRIES(REG("a/b/g", 1), WHITEOUT("a/b/.wh.f")),
                     "/ 755 implicit\na/ 755 implicit\na/b/ 755 implicit\na/b/f whiteout\na/b/g 644 #1\n");
        expect_layer(ENTRIES(WHITEOUT(".wh.a"), WHITEOUT("a/.wh.b")), "/ 755 implicit\na whiteout\n");
        expect_layer(ENTRIES(WHITEOUT("a/.wh.b"), WHITEOUT(".wh.a")), "/ 755 implicit\na whiteout\n");
}

static void whiteout_below_a_file_of_the_layer_changes_nothing(void **state)
{
        (void) state;
        expect_layer(ENTRIES(REG("f", 1), WHITEOUT("f/.wh.x"), WHITEOUT("f/.wh..wh..opq")),
                     "/ 755 implicit\nf 644 #1\n");
        expect_layer(ENTRIES(WHITEOUT("f/.wh.x"), WHITEOUT("f/.wh..wh..opq"), REG("f", 1)),
                     "/ 755 implicit\nf 644 #1\n");
        expect_layer(ENTRIES(HARD("l", "f"), REG("f", 1), WHITEOUT("l/.wh.x")), "/ 755 implicit\nf 644 #1 x2\nl = f\n");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(empty_layer_is_a_bare_root),
                cmocka_unit_test(entries_keep_type_and_attributes),
                cmocka_unit_test(equal_xattrs_share_one_set),
                cmocka_unit_test(unnamed_parents_are_implicit),
                cmocka_unit_test(parent_named_later_gets_its_attributes),
                cmocka_unit_test(root_may_be_named),
                cmocka_unit_test(root_must_be_a_directory),
                cmocka_unit_test(paths_are_normalised_inside_the_root),
                cmocka_unit_test(symlinks_are_not_followed),
                cmocka_unit_test(names_are_sorted_by_their_bytes),
                cmocka_unit_test(rows_are_breadth_first),
                cmocka_unit_test(large_directory_in_any_order_is_found_again),
                cmocka_unit_test(later_file_wins),
                cmocka_unit_test(later_directory_keeps_children_and_updates_attributes),
                cmocka_unit_test(later_file_drops_the_directory_below),
                cmocka_unit_test(later_directory_over_a_file_starts_empty_and_hides_lower_children),
                cmocka_unit_test(entry_below_a_file_makes_it_a_directory),
                cmocka_unit_test(children_dropped_by_a_file_do_not_come_back),
                cmocka_unit_test(whiteout_does_not_show_as_a_file),
                cmocka_unit_test(whiteout_leaves_the_layers_own_file),
                cmocka_unit_test(directory_with_a_whiteout_of_its_name_is_opaque),
                cmocka_unit_test(opaque_marker_counts_wherever_it_stands),
                cmocka_unit_test(only_the_exact_name_is_opaque),
                cmocka_unit_test(aufs_names_are_ignored),
                cmocka_unit_test(hardlink_to_an_ignored_name_shows_its_file),
                cmocka_unit_test(entries_below_a_whiteout_are_ignored),
                cmocka_unit_test(whiteout_must_name_something),
                cmocka_unit_test(directories_that_only_whiteouts_name_are_ghosts),
                cmocka_unit_test(whiteout_below_a_file_of_the_layer_changes_nothing),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
