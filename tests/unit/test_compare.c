/* SPDX-License-Identifier: Apache-2.0 */

/* The tree that a table tells, against the tree of the tar. */

#include "embedded_fixture.h"
#include "itable_text.h"

#include "regfs/index.h"
#include "regfs/verify.h"

/* ---- differences as text ---- */

static int on_difference(void *context, const char *text)
{
        struct buf *b = context;

        assert_int_equal(buf_printf(b, "%s\n", text), 0);
        return 0;
}

/* The differences, a line each; the caller frees. */
static char *differences(const struct toc *told, const struct toc *truth)
{
        struct buf lines = { 0 };
        struct error e = ERROR_INIT;
        uint64_t count = 77, counted = 0, silent = 0;

        if (toc_compare(told, truth, on_difference, &lines, &count, &e) < 0)
                fail_msg("%s", e.message);
        for (size_t k = 0; k < lines.len; k++)
                counted += lines.data[k] == '\n';
        assert_int_equal(count, counted);
        assert_int_equal(toc_compare(told, truth, NULL, NULL, &silent, &e), 0);
        assert_int_equal(silent, count);
        return buf_steal(&lines);
}

static void expect_differences(const struct layer_entry *told, size_t told_count, const struct layer_entry *truth,
                               size_t true_count, const char *expected)
{
        struct toc a = { .itable = layer_table(told, told_count) }, b = { .itable = layer_table(truth, true_count) };
        _cleanup_free_ char *lines = differences(&a, &b);

        assert_string_equal(lines, expected);
        itable_exact_free((struct itable *) &a.itable);
        itable_exact_free((struct itable *) &b.itable);
}

#define X(n, text)                                                                               \
        {                                                                                        \
                .name = (n), .value = (const uint8_t *) (text), .value_length = sizeof(text) - 1 \
        }

/* ---- one edit, one difference ---- */

static const struct layer_xattr two_xattrs[] = { X("user.a", "1"), X("user.b", "2") };
static const struct layer_xattr one_xattr[] = { X("user.a", "1") };
static const struct layer_xattr other_name[] = { X("user.a", "1"), X("user.c", "2") };
static const struct layer_xattr other_value[] = { X("user.a", "1"), X("user.b", "3") };
static const struct layer_xattr other_length[] = { X("user.a", "1"), X("user.b", "") };

#define PLAIN(m, s, t, ...)                                                                       \
        {                                                                                         \
                .path = "etc/file", .mode = S_IFREG | (m), .size = (s), .mtime = (t), __VA_ARGS__ \
        }
#define FILE_WITH(...) PLAIN(0644, 10, 1700000000, __VA_ARGS__)

/* The tar has ONE; a table that has OTHER instead must be found out. */
struct edit {
        struct layer_entry one, other;
        const char *expected;
};

static void each_single_difference_is_found_and_named(void **state)
{
        static const struct edit edits[] = {
                { FILE_WITH(.uid = 0), PLAIN(04644, 10, 1700000000, .uid = 0),
                  "etc/file: mode 4644 in the table, 0644 in the tar\n" },
                { FILE_WITH(.uid = 1), FILE_WITH(.uid = 2), "etc/file: owner 2:0 in the table, 1:0 in the tar\n" },
                { FILE_WITH(.gid = 1), FILE_WITH(.gid = 2), "etc/file: owner 0:2 in the table, 0:1 in the tar\n" },
                { FILE_WITH(.uid = 0), PLAIN(0644, 11, 1700000000, .uid = 0),
                  "etc/file: 11 bytes in the table, 10 in the tar\n" },
                { FILE_WITH(.uid = 0), PLAIN(0644, 10, 1700000001, .uid = 0),
                  "etc/file: modified at 1700000001.000000000 in the table, 1700000000.000000000 in the tar\n" },
                { FILE_WITH(.mtime_nsec = 1), FILE_WITH(.mtime_nsec = 2),
                  "etc/file: modified at 1700000000.000000002 in the table, 1700000000.000000001 in the tar\n" },
                { FILE_WITH(.xattrs = two_xattrs, .xattr_count = 2), FILE_WITH(.xattrs = one_xattr, .xattr_count = 1),
                  "etc/file: xattr user.b is in the tar, not in the table\n" },
                { FILE_WITH(.xattrs = one_xattr, .xattr_count = 1), FILE_WITH(.xattrs = two_xattrs, .xattr_count = 2),
                  "etc/file: xattr user.b is in the table, not in the tar\n" },
                { FILE_WITH(.xattrs = two_xattrs, .xattr_count = 2), FILE_WITH(.xattrs = other_name, .xattr_count = 2),
                  "etc/file: xattr user.b is in the tar, not in the table\n"
                  "etc/file: xattr user.c is in the table, not in the tar\n" },
                { FILE_WITH(.xattrs = two_xattrs, .xattr_count = 2), FILE_WITH(.xattrs = other_value, .xattr_count = 2),
                  "etc/file: xattr user.b has another value in the table than in the tar\n" },
                { FILE_WITH(.xattrs = two_xattrs, .xattr_count = 2),
                  FILE_WITH(.xattrs = other_length, .xattr_count = 2),
                  "etc/file: xattr user.b has another value in the table than in the tar\n" },
                { SYM("etc/file", "a"), SYM("etc/file", "b"),
                  "etc/file: a symlink to b in the table, to a in the tar\n" },
                { SYM("etc/file", "a"), REG("etc/file", 1),
                  "etc/file: a regular file in the table, a symlink in the tar\n" },
                { DIR("etc/file", 0755), REG("etc/file", 1),
                  "etc/file: a regular file in the table, a directory in the tar\n" },
                { DIR("etc/file", 0755), DIR("etc/file", 0700), "etc/file: mode 0700 in the table, 0755 in the tar\n" },
                { { .path = "etc/file", .mode = S_IFCHR | 0600, .major = 1, .minor = 3 },
                  { .path = "etc/file", .mode = S_IFCHR | 0600, .major = 1, .minor = 5 },
                  "etc/file: device 1:5 in the table, 1:3 in the tar\n" },
                { { .path = "etc/file", .mode = S_IFBLK | 0600, .major = 8 },
                  { .path = "etc/file", .mode = S_IFCHR | 0600, .major = 8 },
                  "etc/file: a character device in the table, a block device in the tar\n" },
                { { .path = "etc/file", .mode = S_IFIFO | 0600 },
                  REG("etc/file", 1),
                  "etc/file: a regular file in the table, a fifo in the tar\n" },
                { REG("etc/file", 1), REG("etc/fild", 1),
                  "etc/fild: a regular file in the table, nothing in the tar\n"
                  "etc/file: nothing in the table, a regular file in the tar\n" },
                { DIR("etc/file", 0755), DIR("other", 0755),
                  "etc/file: nothing in the table, a directory in the tar\n"
                  "other: a directory in the table, nothing in the tar\n" },
                { WHITEOUT("etc/.wh.gone"), DIR("etc", 0755),
                  "etc/gone: nothing in the table, a whiteout in the tar\n" },
                { REG("new/file", 1), REG("new/fill", 1),
                  "new/file: nothing in the table, a regular file in the tar\n"
                  "new/fill: a regular file in the table, nothing in the tar\n" },
                { REG("etc/gone", 1), WHITEOUT("etc/.wh.gone"),
                  "etc/gone: a whiteout in the table, a regular file in the tar\n" },
                { WHITEOUT("etc/.wh..wh..opq"), WHITEOUT("etc/.wh.wh.opq"),
                  "etc: a directory that shows what lower layers have there by the table, hides it in the tar\n"
                  "etc/wh.opq: a whiteout in the table, nothing in the tar\n" },
                { HARD("etc/file", "low/a"), HARD("etc/file", "low/b"),
                  "etc/file: a hardlink to low/b in the table, to low/a in the tar\n" },
                { HARD("etc/file", "low/a"), REG("etc/file", 1),
                  "etc/file: a regular file in the table, a hardlink into a lower layer in the tar\n" },
                { DIR("/", 0755), DIR("/", 0700), "/: mode 0700 in the table, 0755 in the tar\n" },
        };

        (void) state;
        for (size_t k = 0; k < ELEMENTSOF(edits); k++) {
                const struct layer_entry around[] = { DIR("etc", 0755), REG("etc/aa", 3), REG("etc/zz", 4),
                                                      REG("zz", 5) };
                struct layer_entry one[5], other[5];

                memcpy(one, around, sizeof(around));
                memcpy(other, around, sizeof(around));
                one[4] = edits[k].one;
                other[4] = edits[k].other;
                expect_differences(one, 5, one, 5, "");
                expect_differences(other, 5, one, 5, edits[k].expected);
        }
}

static void equal_trees_in_another_order_are_equal(void **state)
{
        static const struct layer_entry forward[] = {
                DIR("a", 0755),          REG("a/one", 1),     REG("a/two", 2),
                DIR("b", 0711),          SYM("b/s", "../a"),  HARD("c", "a/one"),
                HARD("b/link", "a/two"), WHITEOUT("b/.wh.x"), FILE_WITH(.xattrs = two_xattrs, .xattr_count = 2),
                HARD("z", "lower"),
        };
        struct layer_entry backward[ELEMENTSOF(forward)];
        static const struct layer_xattr reversed[] = { X("user.b", "2"), X("user.a", "1") };

        (void) state;
        for (size_t k = 0; k < ELEMENTSOF(forward); k++) {
                backward[k] = forward[ELEMENTSOF(forward) - 1 - k];
                if (backward[k].xattrs)
                        backward[k].xattrs = reversed;
                /* Another content space. */
                backward[k].content_offset += 5000;
        }
        expect_differences(forward, ELEMENTSOF(forward), backward, ELEMENTSOF(backward), "");
        expect_differences(backward, ELEMENTSOF(backward), forward, ELEMENTSOF(forward), "");
}

/* Above another layer, one shows the lower directory's attributes and the other its own. */
static void directory_that_only_the_table_names_is_a_difference(void **state)
{
        (void) state;
        expect_differences(
                ENTRIES(DIR("a", 0755), REG("a/b", 1)), ENTRIES(REG("a/b", 1)),
                "a: a directory with an entry of its own in the table, implied by what is in it in the tar\n");
        expect_differences(
                ENTRIES(REG("a/b", 1)), ENTRIES(DIR("a", 0755), REG("a/b", 1)),
                "a: a directory implied by what is in it in the table, with an entry of its own in the tar\n");
        expect_differences(
                ENTRIES(DIR("a", 0755), WHITEOUT("a/.wh.b")), ENTRIES(WHITEOUT("a/.wh.b")),
                "a: a directory with an entry of its own in the table, named by whiteouts alone in the tar\n");
}

/* ---- hardlinks ---- */

static void names_of_one_inode_are_compared_as_sets(void **state)
{
        (void) state;
        /* Whichever name is the file, and whatever a link leads through. */
        expect_differences(ENTRIES(REG("a", 1), HARD("b", "a"), HARD("c", "b")),
                           ENTRIES(REG("c", 1), HARD("a", "c"), HARD("b", "c")), "");
        /* One set in the table, two files in the tar. */
        expect_differences(ENTRIES(REG("a", 1), HARD("b", "a")), ENTRIES(REG("a", 1), REG("b", 1)),
                           "b: a hardlink of a in the table, not in the tar\n");
        expect_differences(ENTRIES(REG("a", 1), REG("d/b", 1)), ENTRIES(REG("a", 1), HARD("d/b", "a")),
                           "d/b: a hardlink of a in the tar, not in the table\n");
        /* Two pairs, crossed: nlink and all else are equal. */
        expect_differences(ENTRIES(REG("a", 1), HARD("b", "a"), REG("x/c", 2), HARD("x/d", "x/c")),
                           ENTRIES(REG("a", 1), HARD("x/c", "a"), REG("b", 2), HARD("x/d", "b")),
                           "b: a hardlink of a in the table, not in the tar\n"
                           "x/c: a hardlink of a in the tar, not in the table\n"
                           "x/d: a hardlink of x/c in the table, not in the tar\n");
        /* Attributes of an inode are told once, whatever its names. */
        expect_differences(ENTRIES({ .path = "a", .mode = S_IFREG | 0600, .size = 10 }, HARD("b", "a"), HARD("c", "a")),
                           ENTRIES(REG("a", 1), HARD("b", "a"), HARD("c", "a")),
                           "a: mode 0600 in the table, 0644 in the tar\n");
}

/* ---- what is no difference ---- */

#define AT(p, seconds, nanoseconds)                                                                              \
        {                                                                                                        \
                .path = (p), .mode = S_IFREG | 0644, .size = 10, .mtime = (seconds), .mtime_nsec = (nanoseconds) \
        }

static void times_are_compared_to_the_precision_of_the_table(void **state)
{
        (void) state;
        /* Whole seconds: cut off or rounded, before 1970 too, but no more than that. */
        expect_differences(
                ENTRIES(AT("a", 5, 0), AT("b", 6, 0), AT("c", -1, 0), AT("d", -2, 0)),
                ENTRIES(AT("a", 5, 900000000), AT("b", 5, 500000000), AT("c", -2, 600000000), AT("d", -2, 600000000)),
                "");
        expect_differences(ENTRIES(AT("a", 6, 0), AT("b", 7, 0), AT("c", 4, 0)),
                           ENTRIES(AT("a", 5, 499999999), AT("b", 5, 900000000), AT("c", 5, 0)),
                           "a: modified at 6.000000000 in the table, 5.499999999 in the tar\n"
                           "b: modified at 7.000000000 in the table, 5.900000000 in the tar\n"
                           "c: modified at 4.000000000 in the table, 5.000000000 in the tar\n");
        /* One entry with a fraction shows that the table can have them. */
        expect_differences(ENTRIES(AT("a", 5, 0), AT("b", 5, 1)), ENTRIES(AT("a", 5, 3), AT("b", 5, 1)),
                           "a: modified at 5.000000000 in the table, 5.000000003 in the tar\n");
}

static void files_of_the_format_in_the_root_may_hide(void **state)
{
        static const struct layer_entry told[] = { REG("a", 1) };
        static const struct layer_entry truth[] = {
                { .path = ".prefetch.landmark", .mode = S_IFREG | 0644, .size = 1 },
                { .path = ".no.prefetch.landmark", .mode = S_IFREG | 0644, .size = 1 },
                REG("stargz.index.json", 2),
                REG("a", 1),
        };

        (void) state;
        expect_differences(told, 1, truth, ELEMENTSOF(truth), "");
        expect_differences(truth, ELEMENTSOF(truth), told, 1,
                           ".no.prefetch.landmark: a regular file in the table, nothing in the tar\n"
                           ".prefetch.landmark: a regular file in the table, nothing in the tar\n"
                           "stargz.index.json: a regular file in the table, nothing in the tar\n");
        expect_differences(told, 1,
                           ENTRIES(REG("a", 1), REG(".prefetch.landmark", 2), DIR(".no.prefetch.landmark", 0755),
                                   REG("stargz.index.jsom", 3)),
                           ".no.prefetch.landmark: nothing in the table, a directory in the tar\n"
                           ".prefetch.landmark: nothing in the table, a regular file in the tar\n"
                           "stargz.index.jsom: nothing in the table, a regular file in the tar\n");
        expect_differences(ENTRIES(DIR("d", 0755)), ENTRIES(DIR("d", 0755), REG("d/stargz.index.json", 2)),
                           "d/stargz.index.json: nothing in the table, a regular file in the tar\n");
}

/* ---- telling ---- */

static int only_two(void *context, const char *text _unused_)
{
        return ++*(unsigned *) context == 2;
}

static void who_hears_no_more_still_gets_the_count(void **state)
{
        struct toc told = { .itable = layer_table(ENTRIES(REG("a", 1))) },
                   truth = { .itable = layer_table(ENTRIES(REG("b", 1), REG("c", 1), REG("d", 1))) };
        struct error e = ERROR_INIT;
        unsigned heard = 0;
        uint64_t count;

        (void) state;
        assert_int_equal(toc_compare(&told, &truth, only_two, &heard, &count, &e), 0);
        assert_int_equal(heard, 2);
        assert_int_equal(count, 4);
        itable_exact_free((struct itable *) &told.itable);
        itable_exact_free((struct itable *) &truth.itable);
}

static void odd_and_deep_paths_are_shown_on_one_line(void **state)
{
        _cleanup_buf_ struct buf deep = { 0 }, expected = { 0 };
        char *path;

        (void) state;
        expect_differences(ENTRIES(DIR("/", 0755)), ENTRIES(DIR("/", 0755), REG("new\nline", 1)),
                           "new?line: nothing in the table, a regular file in the tar\n");
        for (unsigned k = 0; k < 1000; k++)
                assert_int_equal(buf_printf(&deep, "%sd", k > 0 ? "/" : ""), 0);
        path = deep.data;
        assert_int_equal(
                buf_printf(&expected, "...%s: mode 0600 in the table, 0644 in the tar\n", path + strlen(path) - 252),
                0);
        expect_differences(ENTRIES({ .path = path, .mode = S_IFREG | 0600, .size = 10 }), ENTRIES(REG(path, 1)),
                           expected.data);
}

/* ---- the reference producers ---- */

#define TEXT(s) (char *) (s)
#define ANNOTATIONS(...)          \
        (char *const[])           \
        {                         \
                __VA_ARGS__, NULL \
        }

static const struct {
        const char *file, *tar;
        char *const *annotations;
} fixtures[] = {
        { "base.esgz", "base.tar.gz",
          ANNOTATIONS(TEXT(STARGZ), TEXT("sha256:85f895913a2ad54941a9aa7b70ad4e6e99dc4388ee880e2436029a9fb1ce59cb")) },
        { "base.landmark.esgz", "base.tar.gz",
          ANNOTATIONS(TEXT(STARGZ), TEXT("sha256:4989b6612f9e54b2e8d23eb35174146e184a8d54059d4b5eacaae97ef339a7d7")) },
        { "base.zstdchunked-v40.zst", "base.tar.gz",
          ANNOTATIONS(TEXT(OLD_CHUNKED "manifest-checksum"),
                      TEXT("sha256:bb75168457833f28605c2f8c14192996499df9ff525c5c0fa272be84ad30ffa1"),
                      TEXT(OLD_CHUNKED "manifest-position"), TEXT("1289448:38015:189818:1")) },
        { "base.zstdchunked-v64.zst", "base.tar.gz",
          ANNOTATIONS(TEXT(CHUNKED "manifest-checksum"),
                      TEXT("sha256:de0ff3b797e9231003685727acc451bc51da377495af6214890e9d19d0f68de3"),
                      TEXT(CHUNKED "manifest-position"), TEXT("1289460:37857:150181:1")) },
        { "base.stargz-zstdchunked.zst", "base.tar.gz",
          ANNOTATIONS(TEXT(OLD_CHUNKED "manifest-checksum"),
                      TEXT("sha256:16b27956951e64e98cb2568b4f275e362c4d16c583289f98b688b08cdfcb3195"),
                      TEXT(OLD_CHUNKED "manifest-position"), TEXT("1249349:28276:179454:1")) },
};

static struct toc *plain_toc(struct bench *b, struct watched_blob *w)
{
        const struct index_options options = {
                .blob = &w->blob,
                .pool = b->pool,
                .store = b->store,
                .timeout_ms = 1000,
        };
        struct error e = ERROR_INIT;

        if (index_layer(&options, &e) < 0)
                fail_msg("%s", e.message);
        return open_toc(b, w, "plain");
}

/* Against the layer's own tar, and against the one that the producer was given. */
static void honest_tables_tell_the_tree_of_the_tar(void **state)
{
        struct bench *b = *state;

        for (size_t k = 0; k < ELEMENTSOF(fixtures); k++) {
                _cleanup_watched_ struct watched_blob *w = watch_fixture(fixtures[k].file);
                _cleanup_watched_ struct watched_blob *tar = watch_fixture(fixtures[k].tar);
                _cleanup_(toc_close_ptr) struct toc *told = NULL, *own = NULL, *original = NULL;
                _cleanup_free_ char *against_own = NULL, *against_original = NULL;
                char kind[LAYER_KIND_MAX];

                told = index_and_open(b, w, fixtures[k].annotations, kind);
                own = plain_toc(b, w);
                original = plain_toc(b, tar);
                assert_true(told->itable.inode_count > 500);
                against_own = differences(told, own);
                assert_string_equal(against_own, "");
                against_original = differences(told, original);
                assert_string_equal(against_original, "");
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(each_single_difference_is_found_and_named),
                cmocka_unit_test(equal_trees_in_another_order_are_equal),
                cmocka_unit_test(directory_that_only_the_table_names_is_a_difference),
                cmocka_unit_test(names_of_one_inode_are_compared_as_sets),
                cmocka_unit_test(times_are_compared_to_the_precision_of_the_table),
                cmocka_unit_test(files_of_the_format_in_the_root_may_hide),
                cmocka_unit_test(who_hears_no_more_still_gets_the_count),
                cmocka_unit_test(odd_and_deep_paths_are_shown_on_one_line),
                cmocka_unit_test_setup_teardown(honest_tables_tell_the_tree_of_the_tar, bench_setup, bench_teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
