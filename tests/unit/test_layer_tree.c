/* SPDX-License-Identifier: Apache-2.0 */

#include "itable_text.h"

#include "../../fs/toc/layer_tree.h"

static void expect_layer(const struct layer_entry *entries, size_t count, const char *expected)
{
        struct itable t = layer_table(entries, count);
        _cleanup_free_ char *text = itable_text(&t);

        assert_string_equal(text, expected);
        itable_exact_free(&t);
}

/* ENTRIES must be refused, the last one or at the end, with a message that holds CAUSE. */
static void expect_refusal(const struct layer_entry *entries, size_t count, const char *cause)
{
        _cleanup_(layer_tree_free_ptr) struct layer_tree *t = NULL;
        struct error e = ERROR_INIT;
        int r = 0;

        assert_int_equal(layer_tree_new(&t), 0);
        for (size_t i = 0; i < count; i++) {
                assert_int_equal(r, 0);
                r = layer_tree_add(t, &entries[i], &e);
        }
        if (r == 0)
                r = layer_tree_finish(t, &e);
        assert_int_equal(r, -EBADMSG);
        assert_int_equal(e.kind, ERROR_BAD_DATA);
        if (!strstr(e.message, cause))
                fail_msg("\"%s\" is not in \"%s\"", cause, e.message);
}

static void expect_same_path(const char *written, const char *file)
{
        const struct layer_entry entry = REG(written, 1);
        _cleanup_free_ char *expected = str_printf("/ 755 implicit\n%s 644 #1\n", file);

        expect_layer(&entry, 1, expected);
}

/* ---- entries ---- */

static void empty_layer_is_a_bare_root(void **state)
{
        (void) state;
        expect_layer(NULL, 0, "/ 755 implicit\n");
}

static void entries_keep_type_and_attributes(void **state)
{
        static const struct extent extents[] = { { 5, 100, 10 }, { 20, 110, 0 }, { 30, 110, 5 } };
        static const struct layer_xattr xattrs[] = {
                { "user.b", (const uint8_t *) "2", 1 }, { "user.a", NULL, 0 }, { "user.b", (const uint8_t *) "three", 5 } };

        (void) state;
        expect_layer(ENTRIES({ .path = "reg", .mode = S_IFREG | 04755, .size = 1, .content_offset = 70, .uid = 3000000, .gid = 5 },
                             { .path = "old", .mode = S_IFDIR | 01777, .mtime = -86400, .mtime_nsec = 999999999 },
                             { .path = "chr", .mode = S_IFCHR | 0600, .major = 1, .minor = 3 },
                             { .path = "blk", .mode = S_IFBLK | 0600, .major = 0xffffffff, .minor = 0xfffffffe },
                             { .path = "fifo", .mode = S_IFIFO | 0600 },
                             SYM("sym", "../../etc/passwd"),
                             { .path = "sparse", .mode = S_IFREG | 0644, .size = 50, .sparse = true, .extents = extents,
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
        static const struct layer_xattr other[] = { { "a", (const uint8_t *) "2", 1 }, { "b", (const uint8_t *) "1", 1 } };
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
                expect_layer(ENTRIES({ .path = names[i], .mode = S_IFDIR | 0700, .uid = 7, .mtime = 5 }), "/ 700 7:0 t5\n");
}

static void root_must_be_a_directory(void **state)
{
        (void) state;
        expect_refusal(ENTRIES(REG("/", 1)), "/: the root is no directory");
        expect_refusal(ENTRIES(SYM("./", "a")), "root is no directory");
        expect_refusal(ENTRIES(HARD("a/..", "b")), "root is no directory");
        expect_refusal(ENTRIES({ .path = ".", .mode = S_IFDIR, .hardlink = true, .link = "b" }), "root is no directory");
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
        expect_layer(ENTRIES(REG("b", 1), REG("a.b", 2), REG("a", 3), REG("\xff", 4), REG("aaaaaaaab", 5), REG("aaaaaaaa", 6),
                             REG("aaaaaaaaa", 7), REG("B", 8), DIR("a-", 0755)),
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
        expect_layer(ENTRIES({ .path = "f", .mode = S_IFREG, .size = 9, .sparse = true }, REG("f", 2)), "/ 755 implicit\nf 644 #2\n");
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
        expect_layer(ENTRIES(REG("f", 1), REG("f/a/b", 2)), "/ 755 implicit\nf/ 755 opaque\nf/a/ 755 implicit\nf/a/b 644 #2\n");
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
        expect_layer(ENTRIES(WHITEOUT(".wh.d"), REG("d/f", 1), REG("d", 2), DIR("d", 0711)), "/ 755 implicit\nd/ 711 opaque\n");
}

static void opaque_marker_counts_wherever_it_stands(void **state)
{
        const char *expected = "/ 755 implicit\nd/ 700 opaque\nd/f 644 #1\n";

        (void) state;
        expect_layer(ENTRIES(WHITEOUT("d/.wh..wh..opq"), DIR("d", 0700), REG("d/f", 1)), expected);
        expect_layer(ENTRIES(DIR("d", 0700), WHITEOUT("d/.wh..wh..opq"), REG("d/f", 1)), expected);
        expect_layer(ENTRIES(DIR("d", 0700), REG("d/f", 1), WHITEOUT("d/.wh..wh..opq")), expected);
        expect_layer(ENTRIES(REG("d/f", 1), WHITEOUT("d/.wh..wh..opq"), DIR("d", 0700)), expected);
        expect_layer(ENTRIES(REG("d/f", 1), WHITEOUT("d/.wh..wh..opq")), "/ 755 implicit\nd/ 755 implicit opaque\nd/f 644 #1\n");
        expect_layer(ENTRIES(WHITEOUT(".wh..wh..opq")), "/ 755 implicit opaque\n");
        expect_layer(ENTRIES(WHITEOUT(".wh..wh..opq"), DIR("/", 0700)), "/ 700 opaque\n");
}

static void only_the_exact_name_is_opaque(void **state)
{
        (void) state;
        expect_layer(ENTRIES(DIR("d", 0755), WHITEOUT("d/.wh..wh..opqx"), WHITEOUT("d/.wh..wh..op"), WHITEOUT("d/.wh..wh.opq"),
                             WHITEOUT("d/.wh..wh.")),
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
        expect_layer(ENTRIES(DIR("a/.wh.b", 0755), REG("a/.wh.b/c", 1)), "/ 755 implicit\na/ 755 implicit ghost\na/b whiteout\n");
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
        expect_layer(ENTRIES(WHITEOUT("a/b/.wh.f")), "/ 755 implicit\na/ 755 implicit ghost\na/b/ 755 implicit ghost\na/b/f whiteout\n");
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
        expect_layer(ENTRIES(REG("f", 1), WHITEOUT("f/.wh.x"), WHITEOUT("f/.wh..wh..opq")), "/ 755 implicit\nf 644 #1\n");
        expect_layer(ENTRIES(WHITEOUT("f/.wh.x"), WHITEOUT("f/.wh..wh..opq"), REG("f", 1)), "/ 755 implicit\nf 644 #1\n");
        expect_layer(ENTRIES(HARD("l", "f"), REG("f", 1), WHITEOUT("l/.wh.x")), "/ 755 implicit\nf 644 #1 x2\nl = f\n");
}

/* ---- hardlinks ---- */

static void hardlinked_names_share_an_inode(void **state)
{
        (void) state;
        expect_layer(ENTRIES(REG("b", 1), HARD("a", "b"), HARD("c", "./b"), HARD("d/e", "/b")),
                     "/ 755 implicit\na 644 #1 x4\nb = a\nc = a\nd/ 755 implicit\nd/e = a\n");
}

static void hardlink_may_come_before_its_target(void **state)
{
        (void) state;
        expect_layer(ENTRIES(HARD("a", "z"), REG("z", 1)), "/ 755 implicit\na 644 #1 x2\nz = a\n");
}

static void hardlink_chains_end_at_one_file(void **state)
{
        (void) state;
        expect_layer(ENTRIES(HARD("a", "b"), HARD("d", "a"), HARD("b", "c"), REG("c", 1), HARD("e", "d")),
                     "/ 755 implicit\na 644 #1 x5\nb = a\nc = a\nd = a\ne = a\n");
}

static void hardlink_to_a_symlink_or_device_is_one_more_name(void **state)
{
        (void) state;
        expect_layer(ENTRIES(SYM("s", "t"), HARD("l", "s"), { .path = "n", .mode = S_IFCHR | 0666, .major = 1, .minor = 3 },
                             HARD("m", "n")),
                     "/ 755 implicit\nl -> t x2\nm c 1:3 x2\nn = m\ns = l\n");
}

static void hardlink_binds_to_the_final_state_of_its_target(void **state)
{
        (void) state;
        expect_layer(ENTRIES(REG("f", 1), HARD("l", "f"), REG("f", 2)), "/ 755 implicit\nf 644 #2 x2\nl = f\n");
        expect_layer(ENTRIES(REG("d/f", 1), HARD("l", "d/f"), REG("d", 2), REG("d/f", 3)),
                     "/ 755 implicit\nd/ 755 opaque\nd/f 644 #3 x2\nl = d/f\n");
}

static void name_linked_then_overwritten_leaves_the_others(void **state)
{
        (void) state;
        expect_layer(ENTRIES(REG("f", 1), HARD("l", "f"), HARD("m", "f"), REG("l", 2)),
                     "/ 755 implicit\nf 644 #1 x2\nl 644 #2\nm = f\n");
}

static void hardlink_to_what_the_layer_does_not_hold_is_kept(void **state)
{
        (void) state;
        expect_layer(ENTRIES(HARD("a", "./usr/../bin//x"), HARD("b", "a")), "/ 755 implicit\na link bin/x\nb link bin/x\n");
        expect_layer(ENTRIES(HARD("a", "f"), WHITEOUT(".wh.f")), "/ 755 implicit\na link f\nf whiteout\n");
        expect_layer(ENTRIES(HARD("a", "f/g"), REG("f", 1)), "/ 755 implicit\na link f/g\nf 644 #1\n");
        expect_layer(ENTRIES(REG("f/g", 1), HARD("a", "f/g"), REG("f", 2)), "/ 755 implicit\na link f/g\nf 644 #2\n");
        expect_layer(ENTRIES(HARD("a", "g"), WHITEOUT("g/.wh.x")), "/ 755 implicit\na link g\ng/ 755 implicit ghost\ng/x whiteout\n");
}

static void hardlink_to_a_directory_is_refused(void **state)
{
        (void) state;
        expect_refusal(ENTRIES(DIR("d", 0755), HARD("x/l", "d")), "x/l: hardlink to d, which leads to a directory");
        expect_refusal(ENTRIES(REG("d/e/f", 1), HARD("l", "d/e")), "l: hardlink to d/e");
        expect_refusal(ENTRIES(HARD("l", "/")), "l: hardlink to /");
        expect_refusal(ENTRIES(HARD("l", "m"), HARD("m", "d"), DIR("d", 0755)), "l: hardlink to m");
}

static void hardlink_cycles_are_refused(void **state)
{
        (void) state;
        expect_refusal(ENTRIES(HARD("a", "a")), "a: hardlink to a, which is a link to a link without end");
        expect_refusal(ENTRIES(REG("a", 1), HARD("a", "./a")), "without end");
        expect_refusal(ENTRIES(HARD("a", "b"), HARD("b", "c"), HARD("c", "b")), "without end");
}

static void hardlinks_in_a_dropped_directory_are_forgotten(void **state)
{
        (void) state;
        expect_layer(ENTRIES(HARD("d/a", "d/a"), HARD("d/e/b", "/"), REG("d", 1)), "/ 755 implicit\nd 644 #1\n");
}

static void long_hardlink_chain_takes_linear_time(void **state)
{
        _cleanup_(layer_tree_free_ptr) struct layer_tree *t = NULL;
        char name[32], target[32];

        (void) state;
        assert_int_equal(layer_tree_new(&t), 0);
        for (unsigned i = 0; i < 200000; i++) {
                struct layer_entry entry = HARD(name, target);

                snprintf(name, sizeof(name), "%u", i);
                snprintf(target, sizeof(target), "%u", i + 1);
                assert_int_equal(layer_tree_add(t, &entry, NULL), 0);
        }
        assert_int_equal(layer_tree_finish(t, NULL), 0);
}

/* ---- bounds ---- */

static char *repeat(const char *s, size_t times)
{
        struct buf b = { 0 };

        for (size_t i = 0; i < times; i++)
                assert_int_equal(buf_append_str(&b, s), 0);
        return buf_steal(&b);
}

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

static void impossible_attributes_are_refused(void **state)
{
        static const struct extent unsorted[] = { { 10, 0, 5 }, { 0, 5, 5 } }, overlapping[] = { { 0, 0, 5 }, { 4, 5, 5 } },
                                   past_end[] = { { 15, 0, 6 } }, overflowing[] = { { 0, UINT64_MAX - 1, 5 } };
        static const struct extent *const bad[] = { unsorted, overlapping, past_end, overflowing };
        static const size_t counts[] = { 2, 2, 1, 1 };
        _cleanup_free_ char *target = repeat("t", 4096);

        (void) state;
        for (size_t i = 0; i < ELEMENTSOF(bad); i++)
                expect_refusal(ENTRIES({ .path = "f", .mode = S_IFREG, .size = 20, .sparse = true, .extents = bad[i],
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
                cmocka_unit_test(hardlinked_names_share_an_inode),
                cmocka_unit_test(hardlink_may_come_before_its_target),
                cmocka_unit_test(hardlink_chains_end_at_one_file),
                cmocka_unit_test(hardlink_to_a_symlink_or_device_is_one_more_name),
                cmocka_unit_test(hardlink_binds_to_the_final_state_of_its_target),
                cmocka_unit_test(name_linked_then_overwritten_leaves_the_others),
                cmocka_unit_test(hardlink_to_what_the_layer_does_not_hold_is_kept),
                cmocka_unit_test(hardlink_to_a_directory_is_refused),
                cmocka_unit_test(hardlink_cycles_are_refused),
                cmocka_unit_test(hardlinks_in_a_dropped_directory_are_forgotten),
                cmocka_unit_test(long_hardlink_chain_takes_linear_time),
                cmocka_unit_test(names_are_bounded),
                cmocka_unit_test(paths_are_bounded),
                cmocka_unit_test(depth_is_bounded),
                cmocka_unit_test(entries_are_bounded),
                cmocka_unit_test(xattrs_are_bounded),
                cmocka_unit_test(impossible_attributes_are_refused),
                cmocka_unit_test(refused_entry_leaves_the_tree_as_it_was),
                cmocka_unit_test(messages_show_long_and_odd_paths_safely),
                cmocka_unit_test(finished_tree_takes_no_more_and_an_unfinished_one_gives_no_rows),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
