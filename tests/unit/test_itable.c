/* SPDX-License-Identifier: Apache-2.0 */

#include "toc_sample.h"

/* Everything that a check must refuse, one damage at a time. */
static void damage(struct itable *t, unsigned which)
{
        struct inode *inodes = (struct inode *) t->inodes;
        struct dirent_row *dirents = (struct dirent_row *) t->dirents;
        struct extent *extents = (struct extent *) t->extents;
        struct xattr_set *sets = (struct xattr_set *) t->xattr_sets;
        struct xattr_pair *pairs = (struct xattr_pair *) t->xattr_pairs;
        char *strings = (char *) t->strings;

        /* Rows of the sample: 0 root, 1 a, 2 b, 3 ghost, 4 a/file, 5 a/sym, 6 b/c, 7 b/sparse, 8 b/xattrs, 9 null,
         * 10 pipe. Dirents: 0-2 of the root, 3 file, 4 link, 5 lower, 6 sym, 7 c, 8 gone, 9 sparse, 10 xattrs, 11 gone,
         * 12 null, 13 pipe. */
        /* clang-format off */
        switch (which) {
        case 0: inodes[0].mode = S_IFREG; break;
        case 1: inodes[4].mode = S_IFSOCK; break;
        case 2: inodes[4].mode |= 1u << 20; break;
        case 3: inodes[4].flags = INODE_OPAQUE; break;
        case 4: inodes[4].flags = INODE_SPARSE; break;
        case 5: inodes[1].flags = INODE_GHOST; break;
        case 6: inodes[1].flags |= 1 << 9; break;
        case 7: inodes[4].reserved = 1; break;
        case 8: inodes[4].mtime_nsec = 1000000000; break;
        case 9: inodes[4].layer = 1; break;
        case 10: inodes[4].xattrs = t->xattr_set_count; break;
        case 11: inodes[4].size = 991; break;
        case 12: inodes[4].data = UINT64_MAX; break;
        case 13: inodes[4].nlink = 3; break;
        case 14: inodes[4].count = 1; break;
        case 15: inodes[5].size = 5; break;
        case 16: inodes[5].size = 3; break;
        case 17: inodes[5].data = t->strings_size; break;
        case 18: inodes[5].data = UINT64_MAX; break;
        case 19: inodes[5].size = 0; break;
        case 20: inodes[7].count = 3; break;
        case 21: inodes[7].data = 1; break;
        case 22: inodes[7].count = 1; break;
        case 23: inodes[7].size = 549; break;
        case 24: extents[1].file_offset = 99; break;
        case 25: extents[1].content_offset = 951; break;
        case 26: extents[0].length = 0; break;
        case 27: inodes[9].size = 1; break;
        case 28: inodes[10].count = 1; break;
        case 29: inodes[1].size = 1; break;
        case 30: inodes[1].nlink = 3; break;
        case 31: inodes[1].data = 2; break;
        case 32: inodes[6].count = 3; break;
        case 33: inodes[6].count = 1; break;
        case 34: inodes[6].parent = 1; break;
        case 35: inodes[0].parent = 1; break;
        case 36: dirents[7].target = 2; break;  /* a cycle */
        case 37: dirents[7].target = 0; break;
        case 38: dirents[7].target = 1; break;  /* a second parent */
        case 39: dirents[3].target = 5; break; /* not the next one */
        case 40: dirents[13].target = 11; break;
        case 41: dirents[13].target = 9; break; /* no name left for row 10 */
        case 42: dirents[3].name_length = 0; break;
        case 43: dirents[3].name_length = 256; break;
        case 44: dirents[3].name = t->strings_size - 3; break;
        case 45: dirents[4].name = dirents[3].name; break;
        case 46: strings[dirents[3].name] = '/'; break;
        case 47: strings[dirents[3].name] = '\0'; break;
        case 48: dirents[0].name_length = 1; strings[dirents[0].name] = '.'; break;
        case 49: dirents[3].reserved = 1; break;
        case 50: dirents[3].type = 3; break;
        case 51: dirents[8].target = 1; break;
        case 52: dirents[5].target = t->strings_size; break;
        case 53: sets[0].count = 1; break;
        case 54: sets[1].first = 1; break;
        case 55: sets[1].count = 3; break;
        case 56: sets[1].count = 1; break;
        case 57: pairs[0].name = t->strings_size; break;
        case 58: pairs[1].name = pairs[0].name; break;
        case 59: pairs[0].value = t->strings_size; break;
        case 60: pairs[0].value_length = 65537; break;
        case 61: strings[pairs[0].name] = '\0'; break;
        case 62: t->inode_count--; break;
        case 63: t->dirent_count--; break;
        case 64: t->extent_count--; break;
        case 65: t->xattr_pair_count--; break;
        case 66: t->xattr_set_count = 0; break;
        case 67: t->inode_count = 0; break;
        case 68: sets[0].count = 1; sets[1].first = 1; sets[1].count = 1; break;
        case 69: inodes[5].count = 1; break;
        case 70: inodes[5].data += inodes[5].size; inodes[5].size = 0; break;
        case 71: dirents[12].target = 10; dirents[13].target = 9; break; /* right counts, wrong order */
        case 72: dirents[8].type = DIRENT_INODE; dirents[8].target = 6; inodes[2].nlink++; break; /* two names */
        case 73: dirents[13].type = DIRENT_WHITEOUT; dirents[13].target = 0; inodes[10].nlink = 0; break;
        case 74: inodes[6].count = 1; t->inode_count--; break; /* a dirent that no directory has */
        case 75: inodes[7].flags = 0; inodes[7].count = 0; inodes[7].data = 0; break; /* extents that no file has */
        default: fail();
        }
        /* clang-format on */
}

#define DAMAGES 76

static void every_kind_of_damage_is_refused(void **state)
{
        static const uint64_t content_size = 1000;

        (void) state;
        for (unsigned i = 0; i < DAMAGES; i++) {
                struct itable t = sample_itable(), damaged;
                struct error e = ERROR_INIT;

                assert_int_equal(itable_check(&t, &content_size, 1, &e), 0);
                damage(&t, i);
                damaged = itable_exact_copy(&t);
                if (itable_check(&damaged, &content_size, 1, &e) != -EBADMSG)
                        fail_msg("damage %u was accepted", i);
                assert_int_equal(e.kind, ERROR_BAD_DATA);
                assert_true(strlen(e.message) > 10);
                itable_exact_free(&damaged);
                itable_exact_free(&t);
        }
}

static void expect_unsound(const struct itable *t, uint64_t content_size, const char *cause)
{
        struct error e = ERROR_INIT;

        assert_int_equal(itable_check(t, &content_size, 1, &e), -EBADMSG);
        if (!strstr(e.message, cause))
                fail_msg("\"%s\" is not in \"%s\"", cause, e.message);
}

static void counts_past_their_bounds_are_refused(void **state)
{
        const struct itable t = sample_itable();
        struct itable many[6] = { t, t, t, t, t, t };

        (void) state;
        many[0].inode_count = ITABLE_ENTRIES_MAX + 1;
        many[1].dirent_count = ITABLE_ENTRIES_MAX + 1;
        many[2].extent_count = ITABLE_EXTENTS_MAX + 1;
        many[3].xattr_set_count = ITABLE_XATTRS_MAX + 1;
        many[4].xattr_pair_count = ITABLE_XATTRS_MAX + 1;
        many[5].strings_size = ITABLE_STRINGS_MAX + 1;
        for (size_t i = 0; i < ELEMENTSOF(many); i++)
                expect_unsound(&many[i], 1000, "a section is longer than its bound");
        itable_exact_free(&many[0]);
}

static void lengths_past_their_bounds_are_refused(void **state)
{
        static const char *const causes[] = { "dirent 10: its name", "xattr 1: its name", "xattr 1: its value",
                                              "inode 5: bad target", "inode 4: impossible size" };

        (void) state;
        for (size_t i = 0; i < ELEMENTSOF(causes); i++) {
                struct itable t = sample_itable();
                struct xattr_pair *pair = (struct xattr_pair *) &t.xattr_pairs[1];
                uint32_t end = t.strings_size;
                char *strings = malloc(end + 70000);

                assert_non_null(strings);
                memcpy(strings, t.strings, end);
                memset(strings + end, 'x', 70000);
                free((void *) t.strings);
                t.strings = strings;
                t.strings_size += 70000;
                switch (i) {
                case 0:
                        ((struct dirent_row *) t.dirents)[10].name = end;
                        ((struct dirent_row *) t.dirents)[10].name_length = 256;
                        break;
                case 1:
                        pair->name = end;
                        strings[end + 256] = '\0';
                        break;
                case 2:
                        pair->value = end;
                        pair->value_length = 65537;
                        break;
                case 3:
                        ((struct inode *) t.inodes)[5].data = end;
                        ((struct inode *) t.inodes)[5].size = 4096;
                        strings[end + 4096] = '\0';
                        break;
                default:
                        ((struct inode *) t.inodes)[4].size = 1ull << 63;
                        ((struct inode *) t.inodes)[4].data = 0;
                }
                expect_unsound(&t, UINT64_MAX, causes[i]);
                itable_exact_free(&t);
        }
}

static void root_that_is_a_file_is_refused(void **state)
{
        static const struct inode root = { .mode = S_IFREG, .nlink = 1 };
        static const struct xattr_set no_xattrs;
        const struct itable t = { .inodes = &root, .inode_count = 1, .xattr_sets = &no_xattrs, .xattr_set_count = 1 };

        (void) state;
        expect_unsound(&t, 1000, "row 0 is no directory");
}

static void last_string_without_an_end_is_refused(void **state)
{
        static const uint64_t content_size = 1000;
        struct itable link = layer_table(ENTRIES(HARD("a", "target"))), sym = layer_table(ENTRIES(SYM("a", "target")));
        struct itable *const tables[] = { &link, &sym };

        (void) state;
        for (size_t i = 0; i < ELEMENTSOF(tables); i++) {
                struct itable cut;

                /* The target was interned before the name: put the name first, so that the target can be cut. */
                assert_int_equal(tables[i]->strings_size, 8);
                memcpy((char *) tables[i]->strings, "atarget", 8);
                ((struct dirent_row *) tables[i]->dirents)[0].name = 0;
                if (tables[i] == &link)
                        ((struct dirent_row *) link.dirents)[0].target = 1;
                else
                        ((struct inode *) sym.inodes)[1].data = 1;
                assert_int_equal(itable_check(tables[i], &content_size, 1, NULL), 0);
                tables[i]->strings_size--;
                cut = itable_exact_copy(tables[i]);
                assert_int_equal(itable_check(&cut, &content_size, 1, NULL), -EBADMSG);
                itable_exact_free(&cut);
                itable_exact_free(tables[i]);
        }
}

static void too_deep_a_tree_is_refused(void **state)
{
        enum { DEPTH = ITABLE_DEPTH_MAX + 2 };
        static struct inode inodes[DEPTH];
        static struct dirent_row dirents[DEPTH];
        static const struct xattr_set no_xattrs;
        static const uint64_t content_size = 1000;
        struct itable t = { .inodes = inodes,
                            .dirents = dirents,
                            .xattr_sets = &no_xattrs,
                            .strings = "d",
                            .xattr_set_count = 1,
                            .strings_size = 1 };
        struct error e = ERROR_INIT;

        (void) state;
        for (uint32_t i = 0; i < DEPTH; i++) {
                inodes[i] =
                        (struct inode) { .mode = S_IFDIR, .data = i, .count = 1, .nlink = 3, .parent = i ? i - 1 : 0 };
                dirents[i] = (struct dirent_row) { .name_length = 1, .target = i + 1 };
        }
        t.inode_count = DEPTH - 1;
        inodes[DEPTH - 2].count = 0;
        inodes[DEPTH - 2].nlink = 2;
        t.dirent_count = DEPTH - 2;
        assert_int_equal(itable_check(&t, &content_size, 1, &e), 0);
        inodes[DEPTH - 2].count = 1;
        inodes[DEPTH - 2].nlink = 3;
        inodes[DEPTH - 1].count = 0;
        inodes[DEPTH - 1].nlink = 2;
        t.inode_count = DEPTH;
        t.dirent_count = DEPTH - 1;
        assert_int_equal(itable_check(&t, &content_size, 1, &e), -EBADMSG);
        assert_non_null(strstr(e.message, "deeper"));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(every_kind_of_damage_is_refused),
                cmocka_unit_test(counts_past_their_bounds_are_refused),
                cmocka_unit_test(lengths_past_their_bounds_are_refused),
                cmocka_unit_test(root_that_is_a_file_is_refused),
                cmocka_unit_test(last_string_without_an_end_is_refused),
                cmocka_unit_test(too_deep_a_tree_is_refused),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
