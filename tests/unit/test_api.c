/* SPDX-License-Identifier: Apache-2.0 */

/* libregfs as its users see it: an image out of a layout, walked, listed and read. */

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "layout_fixture.h"
#include "regfs.h"
#include "regfs/thread.h"
#include "tar_tape.h"

#define LARGE (5 * MIB + 123)

static struct layout *layout;
static struct regfs_image *image;
static uint8_t *large;

static void make_base(struct tape *t)
{
        static const char *const directories[] = { "bin/", "etc/", "etc/deep/", "usr/", "usr/bin/", "empty/" };

        for (size_t k = 0; k < ELEMENTSOF(directories); k++)
                MEMBER(t, .name = directories[k], .type = '5', .mode = 0755);
        MEMBER(t, .name = "usr/bin/tool", .size = 5, .mode = 04755, .uid = 7, .gid = 8, .mtime = 1234567890);
        tape_text(t, "tool\n");
        MEMBER(t, .name = "etc/hidden", .size = 1);
        tape_text(t, "h");
        MEMBER(t, .name = "etc/empty");
        MEMBER(t, .name = "bin/hard", .type = '1', .link = "usr/bin/tool");
        MEMBER(t, .name = "bin/tool", .type = '2', .link = "../usr/bin/tool");
        MEMBER(t, .name = "bin/absolute", .type = '2', .link = "/usr/bin/tool");
        MEMBER(t, .name = "bin/again", .type = '2', .link = "absolute");
        MEMBER(t, .name = "bin/up", .type = '2', .link = "../../../../usr");
        MEMBER(t, .name = "bin/root", .type = '2', .link = "/");
        MEMBER(t, .name = "bin/dangling", .type = '2', .link = "nowhere");
        MEMBER(t, .name = "bin/loop", .type = '2', .link = "loop");
        MEMBER(t, .name = "dev", .type = '3', .major = 1, .minor = 3, .mode = 0666);
        MEMBER(t, .name = "large", .size = LARGE);
        tape_data(t, large, LARGE);
        tape_end(t);
}

static void make_upper(struct tape *t)
{
        MEMBER(t, .name = "etc/.wh.hidden");
        PAX(t, "SCHILY.xattr.user.one", "first", "SCHILY.xattr.user.two", "2");
        MEMBER(t, .name = "etc/xattrs", .size = 1);
        tape_text(t, "x");
        PAX(t, "GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.name", "etc/sparse", "GNU.sparse.realsize",
            "300000");
        MEMBER(t, .name = "GNUSparseFile.0/sparse", .size = 512 + 10);
        tape_data(t, "2\n100000\n5\n250000\n5\n", 20);
        tape_text(t, "firstlater");
        tape_end(t);
}

static struct stored_blob put_tape(void (*make)(struct tape *t))
{
        struct tape t = { 0 };
        struct stored_blob b;

        make(&t);
        b = layout_put(layout, t.bytes.data, t.bytes.len);
        tape_free(&t);
        return b;
}

static int open_with(const char *tag, const struct regfs_options *extra, struct regfs_image **ret,
                     struct regfs_error *e)
{
        struct regfs_options o = extra ? *extra : (struct regfs_options) REGFS_OPTIONS_INIT;
        char reference[300];

        o.cache_dir = layout->store;
        if (!o.platform)
                o.platform = "linux/amd64";
        snprintf(reference, sizeof(reference), "oci:%s%s%s", layout->path, tag ? ":" : "", tag ? tag : "");
        return regfs_open(reference, &o, ret, e);
}

static int group_setup(void **state)
{
        struct regfs_error e;
        struct stored_blob layers[2];
        uint32_t x = 3;
        void *made;

        (void) state;
        large = malloc(LARGE);
        if (!large || layout_setup(&made) < 0)
                return -1;
        layout = made;
        for (size_t k = 0; k < LARGE; k++) {
                x = x * 1664525 + 1013904223;
                large[k] = (uint8_t) (x >> 24);
        }
        layers[0] = put_tape(make_base);
        layers[1] = put_tape(make_upper);
        layout_image(layout, "image", layers, 2, CONFIG);
        layout_finish(layout);
        if (open_with("image", NULL, &image, &e) < 0) {
                print_error("%s\n", e.message);
                return -1;
        }
        return 0;
}

static int group_teardown(void **state _unused_)
{
        void *made = layout;

        regfs_close(image);
        free(large);
        return layout_teardown(&made);
}

/* ---- walking ---- */

static uint64_t find(const char *path, unsigned flags)
{
        struct regfs_error e;
        uint64_t ino = 0;

        if (regfs_lookup(image, path, flags, &ino, &e) < 0)
                fail_msg("%s", e.message);
        assert_true(ino > 0);
        return ino;
}

static void expect_no_file(const char *path, unsigned flags, int code)
{
        struct regfs_error e = { 0 };
        uint64_t ino = 99;
        int r = regfs_lookup(image, path, flags, &ino, &e);

        if (r != -code)
                fail_msg("%s: %s instead of %s", path, strerror(-r), strerror(code));
        assert_int_equal(ino, 99);
        assert_int_equal(e.code, code);
        if (!strstr(e.message, path) && strlen(path) < 500)
                fail_msg("'%s' does not name '%s'", e.message, path);
}

static void paths_are_walked(void **state _unused_)
{
        uint64_t tool = find("/usr/bin/tool", 0);

        assert_int_equal(find("", 0), REGFS_ROOT);
        assert_int_equal(find("/", 0), REGFS_ROOT);
        assert_int_equal(find("/../..", 0), REGFS_ROOT);
        assert_int_equal(find("/.", 0), REGFS_ROOT);
        assert_int_equal(find("usr//./bin/../bin/tool", 0), tool);
        assert_int_equal(find("/etc/deep/", 0), find("etc/deep", 0));
        assert_int_equal(find("/bin/hard", 0), tool);
        expect_no_file("/nowhere", 0, ENOENT);
        expect_no_file("/usr/nowhere/tool", 0, ENOENT);
        expect_no_file("/etc/hidden", 0, ENOENT);
        expect_no_file("/usr/bin/tool/", 0, ENOTDIR);
        expect_no_file("/usr/bin/tool/.", 0, ENOTDIR);
        expect_no_file("/usr/bin/tool/..", 0, ENOTDIR);
        expect_no_file("/usr/bin/tool/x", 0, ENOTDIR);
}

static void symlinks_in_the_middle_are_followed_and_the_last_on_demand(void **state _unused_)
{
        uint64_t tool = find("/usr/bin/tool", 0);

        assert_int_not_equal(find("/bin/tool", 0), tool);
        assert_int_equal(find("/bin/tool", REGFS_FOLLOW), tool);
        assert_int_equal(find("/bin/absolute", REGFS_FOLLOW), tool);
        assert_int_equal(find("/bin/again", REGFS_FOLLOW), tool);
        assert_int_equal(find("/bin/up/bin/tool", 0), tool);
        assert_int_equal(find("/bin/up", REGFS_FOLLOW), find("/usr", 0));
        assert_int_equal(find("/bin/up/", 0), find("/usr", 0));
        assert_int_equal(find("/bin/root/bin/root/usr/bin/tool", 0), tool);
        assert_int_equal(find("/bin/root", REGFS_FOLLOW), REGFS_ROOT);
        assert_int_equal(find("/bin/dangling", 0), find("/bin/dangling", 0));
        expect_no_file("/bin/dangling", REGFS_FOLLOW, ENOENT);
        expect_no_file("/bin/tool/", REGFS_FOLLOW, ENOTDIR);
        expect_no_file("/bin/loop", REGFS_FOLLOW, ELOOP);
        expect_no_file("/bin/loop/x", 0, ELOOP);
}

static void names_and_paths_that_are_too_long_are_told(void **state _unused_)
{
        _cleanup_free_ char *path = malloc(6000);

        memset(path, 'a', 6000);
        path[5999] = '\0';
        expect_no_file(path, 0, ENAMETOOLONG);
        path[256] = '\0';
        expect_no_file(path, 0, ENAMETOOLONG);
        path[255] = '\0';
        expect_no_file(path, 0, ENOENT);
}

/* ---- inodes ---- */

static void stat_tells_what_the_layer_says(void **state _unused_)
{
        struct stat st;

        assert_int_equal(regfs_stat(image, find("/bin/hard", 0), &st, NULL), 0);
        assert_int_equal(st.st_ino, find("/usr/bin/tool", 0));
        assert_int_equal(st.st_mode, S_IFREG | 04755);
        assert_int_equal(st.st_nlink, 2);
        assert_int_equal(st.st_uid, 7);
        assert_int_equal(st.st_gid, 8);
        assert_int_equal(st.st_size, 5);
        assert_int_equal(st.st_mtim.tv_sec, 1234567890);
        assert_true(st.st_blocks > 0);
        assert_int_equal(regfs_stat(image, find("/dev", 0), &st, NULL), 0);
        assert_true(S_ISCHR(st.st_mode));
        assert_int_equal(st.st_rdev, 0x103);
        assert_int_equal(regfs_stat(image, find("/etc/sparse", 0), &st, NULL), 0);
        assert_int_equal(st.st_size, 300000);
}

static void links_are_read_verbatim(void **state _unused_)
{
        struct regfs_error e;
        const char *target;

        assert_int_equal(regfs_readlink(image, find("/bin/up", 0), &target, NULL), 0);
        assert_string_equal(target, "../../../../usr");
        assert_int_equal(regfs_readlink(image, find("/bin/hard", 0), &target, &e), -EINVAL);
}

static void directories_are_listed_in_order(void **state _unused_)
{
        static const char *const names[] = { "absolute", "again", "dangling", "hard", "loop", "root", "tool", "up" };
        uint64_t bin = find("/bin", 0);
        struct regfs_dirent d;
        uint32_t k = 0;

        for (; regfs_list(image, bin, k, &d, NULL) > 0; k++) {
                assert_true(k < ELEMENTSOF(names));
                assert_int_equal(d.name_length, strlen(names[k]));
                assert_memory_equal(d.name, names[k], d.name_length);
                assert_int_equal(d.mode & S_IFMT, k == 3 ? S_IFREG : S_IFLNK);
        }
        assert_int_equal(k, ELEMENTSOF(names));
        assert_int_equal(regfs_list(image, find("/empty", 0), 0, &d, NULL), 0);
        assert_int_equal(regfs_list(image, bin, UINT32_MAX, &d, NULL), 0);
        assert_int_equal(regfs_list(image, find("/dev", 0), 0, &d, NULL), -ENOTDIR);
}

static void extended_attributes_are_there(void **state _unused_)
{
        uint64_t ino = find("/etc/xattrs", 0);
        const void *value;
        const char *name;
        size_t n = 99;

        assert_int_equal(regfs_getxattr(image, ino, "user.one", &value, &n, NULL), 0);
        assert_int_equal(n, 5);
        assert_memory_equal(value, "first", 5);
        assert_int_equal(regfs_getxattr(image, ino, "user.two", &value, &n, NULL), 0);
        assert_int_equal(n, 1);
        assert_int_equal(regfs_getxattr(image, ino, "user.three", &value, &n, NULL), -ENODATA);
        assert_int_equal(regfs_getxattr(image, find("/etc", 0), "user.one", &value, &n, NULL), -ENODATA);
        assert_int_equal(regfs_listxattr(image, ino, 0, &name, NULL), 1);
        assert_string_equal(name, "user.one");
        assert_int_equal(regfs_listxattr(image, ino, 1, &name, NULL), 1);
        assert_int_equal(regfs_listxattr(image, ino, 2, &name, NULL), 0);
        assert_int_equal(regfs_listxattr(image, find("/etc", 0), 0, &name, NULL), 0);
}

static void inodes_that_do_not_exist_are_told(void **state _unused_)
{
        static const uint64_t inos[] = { 0, 1000000, UINT64_MAX };
        struct regfs_error e;
        struct regfs_dirent d;
        const char *text;
        struct stat st;
        char byte;

        for (size_t k = 0; k < ELEMENTSOF(inos); k++) {
                assert_int_equal(regfs_stat(image, inos[k], &st, &e), -ENOENT);
                assert_int_equal(e.kind, REGFS_ERROR_NOT_FOUND);
                assert_int_equal(regfs_readlink(image, inos[k], &text, NULL), -ENOENT);
                assert_int_equal(regfs_list(image, inos[k], 0, &d, NULL), -ENOENT);
                assert_int_equal(regfs_listxattr(image, inos[k], 0, &text, NULL), -ENOENT);
                assert_int_equal(regfs_read(image, inos[k], &byte, 1, 0, NULL), -ENOENT);
        }
}

/* ---- content ---- */

static void files_are_read_to_their_end_and_never_short(void **state _unused_)
{
        uint64_t tool = find("/usr/bin/tool", 0), all = find("/large", 0);
        _cleanup_free_ uint8_t *out = malloc(LARGE + 10);
        char text[20] = "";

        assert_int_equal(regfs_read(image, tool, text, sizeof(text), 0, NULL), 5);
        assert_string_equal(text, "tool\n");
        assert_int_equal(regfs_read(image, tool, text, 2, 2, NULL), 2);
        assert_memory_equal(text, "ol", 2);
        assert_int_equal(regfs_read(image, tool, text, 5, 5, NULL), 0);
        assert_int_equal(regfs_read(image, tool, text, 5, UINT64_MAX, NULL), 0);
        assert_int_equal(regfs_read(image, tool, text, 0, 0, NULL), 0);
        assert_int_equal(regfs_read(image, tool, text, SIZE_MAX, 4, NULL), 1);
        assert_int_equal(regfs_read(image, find("/etc/empty", 0), text, 5, 0, NULL), 0);
        assert_int_equal(regfs_read(image, all, out, LARGE + 10, 0, NULL), LARGE);
        assert_memory_equal(out, large, LARGE);
        assert_int_equal(regfs_read(image, all, out, 100000, 2 * MIB - 50000, NULL), 100000);
        assert_memory_equal(out, large + 2 * MIB - 50000, 100000);
        assert_int_equal(regfs_read(image, find("/etc", 0), out, 1, 0, NULL), -EISDIR);
        assert_int_equal(regfs_read(image, find("/bin/up", 0), out, 1, 0, NULL), -EINVAL);
        assert_int_equal(regfs_read(image, find("/dev", 0), out, 1, 0, NULL), -EINVAL);
}

static void holes_read_as_zeros(void **state _unused_)
{
        uint64_t ino = find("/etc/sparse", 0);
        _cleanup_free_ uint8_t *out = malloc(300000), *expected = calloc(1, 300000);

        memcpy(expected + 100000, "first", 5);
        memcpy(expected + 250000, "later", 5);
        memset(out, 0xee, 300000);
        assert_int_equal(regfs_read(image, ino, out, 400000, 0, NULL), 300000);
        assert_memory_equal(out, expected, 300000);
        memset(out, 0xee, 100);
        assert_int_equal(regfs_read(image, ino, out, 10, 99998, NULL), 10);
        assert_memory_equal(out, "\0\0first\0\0\0", 10);
        assert_int_equal(regfs_read(image, ino, out, 100, 150000, NULL), 100);
        assert_memory_equal(out, expected, 100);
}

static void *read_everything(void *arg)
{
        _cleanup_free_ uint8_t *out = malloc(LARGE);
        intptr_t *wrong = arg;

        for (uint64_t at = 0; at < LARGE; at += 70001) {
                size_t n = (size_t) MIN((uint64_t) 70001, LARGE - at);

                if (regfs_read(image, find("/large", 0), out, n, at, NULL) != (ssize_t) n ||
                    memcmp(out, large + at, n) != 0)
                        *wrong = 1;
        }
        return NULL;
}

static void many_threads_may_read_one_image(void **state _unused_)
{
        pthread_t threads[8];
        intptr_t wrong[8] = { 0 };

        for (size_t k = 0; k < 8; k++)
                assert_int_equal(thread_start(&threads[k], "reader", read_everything, &wrong[k]), 0);
        for (size_t k = 0; k < 8; k++) {
                pthread_join(threads[k], NULL);
                assert_int_equal(wrong[k], 0);
        }
}

/* ---- opening ---- */

static void image_says_what_it_is(void **state _unused_)
{
        assert_string_equal(regfs_version(), REGFS_VERSION);
        assert_non_null(str_after(regfs_reference(image), "oci:"));
        assert_int_equal(strlen(regfs_digest(image)), strlen("sha256:") + 64);
        assert_string_equal(regfs_platform(image), "linux/amd64");
}

static void image_that_is_known_opens_again_with_the_same_inodes(void **state _unused_)
{
        struct regfs_image *again = NULL;
        struct regfs_error e;
        uint64_t ino = 0;

        if (open_with("image", NULL, &again, &e) < 0)
                fail_msg("%s", e.message);
        assert_int_equal(e.kind, REGFS_ERROR_NONE);
        assert_int_equal(regfs_lookup(again, "/usr/bin/tool", 0, &ino, NULL), 0);
        assert_int_equal(ino, find("/usr/bin/tool", 0));
        regfs_close(again);
}

static void what_cannot_be_opened_is_told_by_kind(void **state _unused_)
{
        struct regfs_options odd = REGFS_OPTIONS_INIT, bad = REGFS_OPTIONS_INIT;
        struct regfs_image *other = NULL;
        struct regfs_error e;

        assert_int_equal(open_with("nothing", NULL, &other, &e), -ENOENT);
        assert_int_equal(e.kind, REGFS_ERROR_NOT_FOUND);
        assert_int_equal(regfs_open("UPPER CASE", NULL, &other, &e), -EINVAL);
        assert_int_equal(e.kind, REGFS_ERROR_USAGE);
        odd.size = sizeof(odd) + 1;
        assert_int_equal(open_with("image", &odd, &other, &e), -EINVAL);
        odd.size = 0;
        assert_int_equal(open_with("image", &odd, &other, &e), -EINVAL);
        bad.platform = "nonsense";
        assert_int_equal(open_with("image", &bad, &other, &e), -EINVAL);
        assert_int_equal(e.kind, REGFS_ERROR_USAGE);
        assert_null(other);
        assert_int_equal(open_with("nothing", NULL, &other, NULL), -ENOENT);
        regfs_close(NULL);
}

struct watch {
        struct regfs_progress last;
        unsigned calls;
};

static int watch_progress(void *context, const struct regfs_progress *progress)
{
        struct watch *w = context;

        w->last = *progress;
        w->calls++;
        return 0;
}

static void progress_is_told(void **state _unused_)
{
        struct regfs_options o = REGFS_OPTIONS_INIT;
        struct watch watch = { .calls = 0 };
        struct regfs_image *fresh = NULL;
        struct regfs_error e;
        char store[200], reference[300];

        snprintf(store, sizeof(store), "%s-fresh", layout->store);
        o.cache_dir = store;
        o.platform = "linux/amd64";
        o.progress = watch_progress;
        o.progress_context = &watch;
        snprintf(reference, sizeof(reference), "oci:%s:image", layout->path);
        assert_int_equal(regfs_open(reference, &o, &fresh, &e), 0);
        assert_true(watch.calls > 0);
        assert_int_equal(watch.last.layers, 2);
        assert_int_equal(watch.last.layers_done, 2);
        assert_int_equal(watch.last.bytes, watch.last.bytes_done);
        assert_true(watch.last.bytes > LARGE);
        regfs_close(fresh);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(paths_are_walked),
                cmocka_unit_test(symlinks_in_the_middle_are_followed_and_the_last_on_demand),
                cmocka_unit_test(names_and_paths_that_are_too_long_are_told),
                cmocka_unit_test(stat_tells_what_the_layer_says),
                cmocka_unit_test(links_are_read_verbatim),
                cmocka_unit_test(directories_are_listed_in_order),
                cmocka_unit_test(extended_attributes_are_there),
                cmocka_unit_test(inodes_that_do_not_exist_are_told),
                cmocka_unit_test(files_are_read_to_their_end_and_never_short),
                cmocka_unit_test(holes_read_as_zeros),
                cmocka_unit_test(many_threads_may_read_one_image),
                cmocka_unit_test(image_says_what_it_is),
                cmocka_unit_test(image_that_is_known_opens_again_with_the_same_inodes),
                cmocka_unit_test(what_cannot_be_opened_is_told_by_kind),
                cmocka_unit_test(progress_is_told),
        };

        return cmocka_run_group_tests_name("api", tests, group_setup, group_teardown);
}
