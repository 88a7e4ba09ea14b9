/* SPDX-License-Identifier: Apache-2.0 */

#include <time.h>

#include "store_fixture.h"

static mode_t mode_of(const char *path)
{
        struct stat st;

        assert_int_equal(stat(path, &st), 0);
        return st.st_mode & 07777;
}

static void make_old(const char *path)
{
        struct timespec times[2] = { { .tv_sec = time(NULL) - 25 * 60 * 60 }, { .tv_sec = time(NULL) - 25 * 60 * 60 } };

        assert_int_equal(utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW), 0);
}

/* ---- open ---- */

static void open_creates_private_directories(void **state)
{
        struct place *p = *state;
        struct store *s;

        snprintf(p->store, sizeof(p->store), "%s/a/b", p->path);
        s = open_store(p);
        assert_string_equal(store_path(s), p->store);
        assert_int_equal(mode_of(p->store), 0700);
        assert_int_equal(mode_of(below(p, "layers")), 0700);
        assert_int_equal(mode_of(below(p, "tmp")), 0700);
        s = store_close(s);
        assert_null(s);

        s = open_store(p);
        store_close(s);
}

static void open_refuses_a_directory_that_others_can_write(void **state)
{
        static const mode_t modes[] = { 0777, 01777, 0770, 0720, 0702 };
        struct place *p = *state;

        for (size_t k = 0; k < ELEMENTSOF(modes); k++) {
                struct error e = ERROR_INIT;
                struct store *s = NULL;

                (void) mkdir(p->store, 0700);
                assert_int_equal(chmod(p->store, modes[k]), 0);
                assert_int_equal(store_open(p->store, &s, &e), -EPERM);
                assert_null(s);
                assert_int_equal(e.kind, ERROR_DENIED);
                assert_non_null(strstr(e.message, p->store));
        }
        assert_int_equal(entries(p->store), 0);
        assert_int_equal(chmod(p->store, 0755), 0);
        store_close(open_store(p));
}

static void open_refuses_a_directory_of_another_user(void **state)
{
        struct place *p = *state;
        struct error e = ERROR_INIT;
        struct store *s = NULL;
        const char *foreign = "/";

        if (geteuid() == 0) {
                assert_int_equal(mkdir(p->store, 0700), 0);
                assert_int_equal(chown(p->store, NOBODY, NOBODY), 0);
                foreign = p->store;
        }
        assert_int_equal(store_open(foreign, &s, &e), -EPERM);
        assert_int_equal(e.kind, ERROR_DENIED);
        assert_null(s);
}

static void open_says_what_is_in_the_way(void **state)
{
        struct place *p = *state;
        struct error e = ERROR_INIT;
        struct store *s = NULL;

        write_file(p->store, "", 0);
        assert_int_equal(store_open(p->store, &s, &e), -ENOTDIR);
        assert_non_null(strstr(e.message, p->store));
        assert_int_equal(store_open("", &s, &e), -EINVAL);
}

static void open_default(const char *expected)
{
        struct error e = ERROR_INIT;
        struct store *s = NULL;

        CHECK(store_open(NULL, &s, &e) == 0);
        CHECK(str_eq(store_path(s), expected));
        store_close(s);
}

static void default_of_a_user(const struct place *p)
{
        char path[300];

        become_nobody();
        CHECK(chdir(p->path) == 0);
        unsetenv("REGFS_CACHE_DIR");
        unsetenv("XDG_CACHE_HOME");
        setenv("HOME", p->path, 1);
        snprintf(path, sizeof(path), "%s/.cache/regfs", p->path);
        open_default(path);

        setenv("XDG_CACHE_HOME", "relative", 1);
        setenv("REGFS_CACHE_DIR", "", 1);
        open_default(path);

        snprintf(path, sizeof(path), "%s/xdg", p->path);
        setenv("XDG_CACHE_HOME", path, 1);
        snprintf(path, sizeof(path), "%s/xdg/regfs", p->path);
        open_default(path);

        setenv("REGFS_CACHE_DIR", p->store, 1);
        open_default(p->store);
}

static void default_follows_the_environment(void **state)
{
        struct place *p = *state;

        place_give(p);
        run_in_child(default_of_a_user, p, NULL);
        assert_true(exists(p, "layers"));
}

static void default_of_root(const struct place *p)
{
        private_mounts();
        CHECK(mount("tmpfs", "/var", "tmpfs", 0, "mode=755") == 0);
        unsetenv("REGFS_CACHE_DIR");
        setenv("XDG_CACHE_HOME", p->path, 1);
        open_default("/var/cache/regfs");
}

static void default_of_root_is_in_var(void **state)
{
        run_in_child(default_of_root, *state, "no root with a mount namespace");
}

#define FRESH "tmp/file-00112233445566778899aabbccddee00"
#define DEAD_FILE "tmp/file-00112233445566778899aabbccddee01"
#define DEAD_LAYER "tmp/layer-00112233445566778899aabbccddee02"

static void open_removes_old_leftovers_that_nobody_holds(void **state)
{
        struct place *p = *state;
        struct store *s = open_store(p), *other;
        struct store_draft held = STORE_DRAFT_INIT;
        struct layer_draft *layer = NULL;
        struct digest d = digest_x();
        struct dirent **list;

        assert_int_equal(store_draft_new(s, &held, NULL), 0);
        assert_int_equal(layer_draft_new(s, &d, "plain", &layer, NULL), 0);
        assert_int_equal(scandir(below(p, "tmp"), &list, NULL, NULL), 4);
        for (int k = 0; k < 4; k++) {
                if (*list[k]->d_name != '.') {
                        char name[300];

                        snprintf(name, sizeof(name), "tmp/%s", list[k]->d_name);
                        make_old(below(p, name));
                }
                free(list[k]);
        }
        free(list);

        write_file(below(p, FRESH), "x", 1);
        write_file(below(p, DEAD_FILE), "x", 1);
        make_old(below(p, DEAD_FILE));
        assert_int_equal(mkdir(below(p, DEAD_LAYER), 0700), 0);
        assert_int_equal(mkdir(below(p, DEAD_LAYER "/deeper"), 0700), 0);
        write_file(below(p, DEAD_LAYER "/toc"), "x", 1);
        write_file(below(p, DEAD_LAYER "/deeper/x"), "x", 1);
        make_old(below(p, DEAD_LAYER));

        other = open_store(p);
        assert_false(exists(p, DEAD_FILE));
        assert_false(exists(p, DEAD_LAYER));
        assert_true(exists(p, FRESH));
        assert_int_equal(entries(below(p, "tmp")), 3);

        store_draft_clear(&held);
        layer_draft_free(layer);
        assert_int_equal(entries(below(p, "tmp")), 1);
        store_close(other);
        store_close(s);
}

/* The directory may be one that the user had before, with a tmp of its own. */
static void open_leaves_alone_what_is_no_draft(void **state)
{
        static const char *const names[] = {
                "tmp/thesis",
                "tmp/thesis-2",
                "tmp/file-00112233445566778899AABBCCDDEEFF",
                "tmp/-00112233445566778899aabbccddeeff",
                "tmp/00112233445566778899aabbccddeeff",
                "tmp/file-00112233445566778899aabbccddeeff0",
        };
        struct place *p = *state;

        store_close(open_store(p));
        for (size_t k = 0; k < ELEMENTSOF(names); k++) {
                write_file(below(p, names[k]), "x", 1);
                make_old(below(p, names[k]));
        }
        assert_int_equal(mkdir(below(p, "tmp/letters"), 0700), 0);
        write_file(below(p, "tmp/letters/x"), "x", 1);
        make_old(below(p, "tmp/letters"));
        assert_int_equal(symlink("/etc", below(p, "tmp/file-00112233445566778899aabbccddeeff")), 0);
        make_old(below(p, "tmp/file-00112233445566778899aabbccddeeff"));

        store_close(open_store(p));
        assert_int_equal(entries(below(p, "tmp")), (int) ELEMENTSOF(names) + 2);
        assert_true(exists(p, "tmp/letters/x"));
}

/* ---- blobs ---- */

static void blob_comes_back(void **state)
{
        struct place *p = *state;
        struct store *s = open_store(p);
        struct digest d = digest_x(), d512;
        _cleanup_buf_ struct buf b = { 0 };

        assert_int_equal(store_blob_get(s, &d, 100, &b, NULL), -ENOENT);
        assert_int_equal(store_blob_put(s, &d, "x", 1, NULL), 0);
        assert_true(exists(p, "blobs/sha256/" HEX_X));
        assert_int_equal(store_blob_get(s, &d, 100, &b, NULL), 0);
        assert_int_equal(b.len, 1);
        assert_string_equal(b.data, "x");

        assert_int_equal(digest_of(DIGEST_SHA512, "", 0, &d512), 0);
        assert_int_equal(store_blob_put(s, &d512, "", 0, NULL), 0);
        assert_int_equal(store_blob_get(s, &d512, 100, &b, NULL), 0);
        assert_int_equal(b.len, 0);
        assert_int_equal(entries(below(p, "tmp")), 0);
        store_close(s);
}

static void blob_past_the_bound_is_an_error(void **state)
{
        struct place *p = *state;
        struct store *s = open_store(p);
        struct error e = ERROR_INIT;
        struct buf b = { 0 };
        struct digest d;

        assert_int_equal(digest_of(DIGEST_SHA256, "0123456789", 10, &d), 0);
        assert_int_equal(store_blob_put(s, &d, "0123456789", 10, NULL), 0);
        assert_int_equal(store_blob_get(s, &d, 9, &b, &e), -EFBIG);
        assert_null(b.data);
        assert_int_equal(store_blob_get(s, &d, 10, &b, &e), 0);
        buf_free(&b);
        store_close(s);
}

static void damaged_blob_is_removed_and_absent(void **state)
{
        struct place *p = *state;
        struct store *s = open_store(p);
        struct digest d = digest_x();
        struct buf b = { 0 };

        assert_int_equal(store_blob_put(s, &d, "x", 1, NULL), 0);
        write_file(below(p, "blobs/sha256/" HEX_X), "y", 1);
        assert_int_equal(store_blob_get(s, &d, 100, &b, NULL), -ENOENT);
        assert_null(b.data);
        assert_false(exists(p, "blobs/sha256/" HEX_X));
        store_close(s);
}

static void blob_with_another_digest_is_refused(void **state)
{
        struct place *p = *state;
        struct store *s = open_store(p);
        struct digest d = digest_x(), none = { 0 };

        assert_int_equal(store_blob_put(s, &d, "y", 1, NULL), -EBADMSG);
        assert_false(exists(p, "blobs/sha256/" HEX_X));
        assert_int_equal(store_blob_put(s, &none, "y", 1, NULL), -EINVAL);
        store_close(s);
}

/* ---- refs ---- */

static void ref_comes_back_with_its_time(void **state)
{
        struct place *p = *state;
        struct store *s = open_store(p);
        struct digest d = digest_x(), found;
        int64_t before = time(NULL), when = 0;
        struct error e = ERROR_INIT;

        assert_int_equal(store_ref_get(s, "docker.io/library/alpine:edge", &found, &when, &e), -ENOENT);
        assert_int_equal(e.kind, ERROR_NOT_FOUND);
        assert_int_equal(store_ref_put(s, "docker.io/library/alpine:edge", &d, NULL), 0);
        assert_true(exists(p, "refs/docker.io/library%2Falpine/edge"));
        assert_int_equal(store_ref_get(s, "docker.io/library/alpine:edge", &found, &when, NULL), 0);
        assert_true(digest_equal(&d, &found));
        assert_in_range(when, before, time(NULL));

        assert_int_equal(digest_of(DIGEST_SHA512, "y", 1, &d), 0);
        assert_int_equal(store_ref_put(s, "docker.io/library/alpine:edge", &d, NULL), 0);
        assert_int_equal(store_ref_get(s, "docker.io/library/alpine:edge", &found, &when, NULL), 0);
        assert_true(digest_equal(&d, &found));
        store_close(s);
}

static void refs_never_collide_nor_leave_their_directory(void **state)
{
        static char long_a[700], long_b[700], long_c[700];
        const char *const names[] = {
                "h/a:b",       "h/a/b:c",      "h/a/b/c:d",    "h/../../../x:y", "../../x:y",    "h/x:..",   "h/..:x",
                "./.:.",       "h/a%2Fb:c",    "h/a:b/c",      "h:5000/a:b",     "h%3A5000/a:b", "H/a:b",    "h/a b:c",
                "h/\xff:\x01", "h/a@sha256:b", "[::1]:50/a:b", "h/a//b:c",       "h/.a:b",       "h/%2Ea:b", long_a,
                long_b,        long_c,         "h/a:-",        "h/a::b",         "h/a:B",        "h/A:b",    "h/a:b.",
        };
        struct digest digests[ELEMENTSOF(names)], found;
        struct place *p = *state;
        struct store *s = open_store(p);
        int64_t when;

        snprintf(long_a, sizeof(long_a), "h/%0600d:a", 1);
        snprintf(long_b, sizeof(long_b), "h/%0600d:a", 2);
        snprintf(long_c, sizeof(long_c), "h/%0139d/%0139d:%0128d", 1, 2, 3);
        for (size_t k = 0; k < ELEMENTSOF(names); k++) {
                assert_int_equal(digest_of(DIGEST_SHA256, &k, sizeof(k), &digests[k]), 0);
                assert_int_equal(store_ref_put(s, names[k], &digests[k], NULL), 0);
        }
        for (size_t k = 0; k < ELEMENTSOF(names); k++) {
                assert_int_equal(store_ref_get(s, names[k], &found, &when, NULL), 0);
                assert_true(digest_equal(&digests[k], &found));
        }
        assert_int_equal(entries(p->path), 1);
        assert_int_equal(entries(p->store), 5);
        assert_int_equal(entries(below(p, "tmp")), 0);
        store_close(s);
}

/* Filesystems may take "V1" and "v1" for one name, and drop a dot behind it. */
static void names_of_refs_differ_in_more_than_case(void **state)
{
        struct place *p = *state;
        struct store *s = open_store(p);
        struct digest d = digest_x();

        assert_int_equal(store_ref_put(s, "h/a:V1", &d, NULL), 0);
        assert_int_equal(store_ref_put(s, "h/a:v1", &d, NULL), 0);
        assert_int_equal(store_ref_put(s, "h/a:v1.2.", &d, NULL), 0);
        assert_true(exists(p, "refs/h/a/%561"));
        assert_true(exists(p, "refs/h/a/v1"));
        assert_true(exists(p, "refs/h/a/v1.2%2E"));
        assert_int_equal(entries(below(p, "refs/h/a")), 3);
        store_close(s);
}

static void what_is_no_reference_is_refused(void **state)
{
        static char huge[2000];
        const char *const names[] = { "", "a", "a:b", "a/b", "h:5000/b", "/b:c", "a/:c", "a/b:", huge };
        struct place *p = *state;
        struct store *s = open_store(p);
        struct digest d = digest_x(), found;
        int64_t when;

        snprintf(huge, sizeof(huge), "h/%01500d:a", 1);
        for (size_t k = 0; k < ELEMENTSOF(names); k++) {
                assert_int_equal(store_ref_put(s, names[k], &d, NULL), -EINVAL);
                assert_int_equal(store_ref_get(s, names[k], &found, &when, NULL), -EINVAL);
        }
        assert_int_equal(entries(below(p, "refs")), 0);
        store_close(s);
}

static void damaged_ref_is_absent(void **state)
{
        static const char *const texts[] = {
                "",
                "\n",
                "sha256:" HEX_X,
                "sha256:" HEX_X "\n",
                "sha256:" HEX_X " 1700000000",
                "sha256:" HEX_X " 17000 00000\n",
                "sha256:" HEX_X " -1\n",
                "sha256:" HEX_X " 99999999999999999999999\n",
                "sha256:" HEX_X " 18446744073709551615\n",
                "sha256:" HEX_X " 1700000000\nmore\n",
                "md5:" HEX_X " 1700000000\n",
                " 1700000000\n",
        };
        struct place *p = *state;
        struct store *s = open_store(p);
        struct digest d = digest_x(), found;
        char long_text[5000];
        int64_t when;

        assert_int_equal(store_ref_put(s, "h/a:b", &d, NULL), 0);
        for (size_t k = 0; k < ELEMENTSOF(texts); k++) {
                write_file(below(p, "refs/h/a/b"), texts[k], strlen(texts[k]));
                assert_int_equal(store_ref_get(s, "h/a:b", &found, &when, NULL), -ENOENT);
        }
        write_file(below(p, "refs/h/a/b"), "sha256:" HEX_X " 17\0\n", sizeof("sha256:" HEX_X " 17\0\n") - 1);
        assert_int_equal(store_ref_get(s, "h/a:b", &found, &when, NULL), -ENOENT);
        memset(long_text, 0, sizeof(long_text));
        write_file(below(p, "refs/h/a/b"), long_text, sizeof(long_text));
        assert_int_equal(store_ref_get(s, "h/a:b", &found, &when, NULL), -ENOENT);
        write_file(below(p, "refs/h/a/b"), "sha256:" HEX_X " 17\n", sizeof("sha256:" HEX_X " 17\n") - 1);
        assert_int_equal(store_ref_get(s, "h/a:b", &found, &when, NULL), 0);
        assert_int_equal(when, 17);
        store_close(s);
}

/* ---- images ---- */

static void put_image(struct store *s, const char *key, const char *text)
{
        _cleanup_draft_ struct store_draft d = STORE_DRAFT_INIT;

        assert_int_equal(store_draft_new(s, &d, NULL), 0);
        assert_int_equal(write(d.fd, text, strlen(text)), strlen(text));
        assert_int_equal(store_draft_publish_image(&d, key, NULL), 0);
}

static void published_image_replaces_the_one_before(void **state)
{
        struct place *p = *state;
        struct store *s = open_store(p);
        char text[16] = "";
        int old, new;

        assert_int_equal(store_image_open(s, HEX_X), -ENOENT);
        put_image(s, HEX_X, "first");
        old = store_image_open(s, HEX_X);
        put_image(s, HEX_X, "other");
        new = store_image_open(s, HEX_X);
        assert_int_equal(read(new, text, sizeof(text)), 5);
        assert_string_equal(text, "other");
        assert_int_equal(read(old, text, sizeof(text)), 5);
        assert_string_equal(text, "first");
        assert_int_equal(write(new, "x", 1), -1);
        assert_int_equal(entries(below(p, "tmp")), 0);
        close(old);
        close(new);
        store_close(s);
}

static void dropped_draft_leaves_nothing(void **state)
{
        struct place *p = *state;
        struct store *s = open_store(p);
        struct store_draft d = STORE_DRAFT_INIT, zero = { 0 };

        store_draft_clear(&d);
        store_draft_clear(&zero);
        assert_int_equal(store_draft_new(s, &d, NULL), 0);
        assert_int_equal(entries(below(p, "tmp")), 1);
        store_draft_clear(&d);
        assert_int_equal(d.fd, -1);
        store_draft_clear(&d);
        assert_int_equal(entries(below(p, "tmp")), 0);
        store_close(s);
}

static void image_key_cannot_leave_the_directory(void **state)
{
        static const char *const keys[] = { "", ".", "..", "../x", "a/b", "A", "a b", ".a" };
        struct place *p = *state;
        struct store *s = open_store(p);

        for (size_t k = 0; k < ELEMENTSOF(keys); k++) {
                _cleanup_draft_ struct store_draft d = STORE_DRAFT_INIT;

                assert_int_equal(store_draft_new(s, &d, NULL), 0);
                assert_int_equal(store_draft_publish_image(&d, keys[k], NULL), -EINVAL);
                assert_int_equal(store_image_open(s, keys[k]), -EINVAL);
        }
        store_close(s);
}

/* ---- read-only ---- */

static void fill_store(const struct place *p)
{
        struct store *s = NULL;
        struct digest d;
        struct store_draft draft = STORE_DRAFT_INIT;
        struct layer_draft *l = NULL;

        CHECK(digest_of(DIGEST_SHA256, "x", 1, &d) == 0);
        CHECK(store_open(p->store, &s, NULL) == 0);
        CHECK(store_blob_put(s, &d, "x", 1, NULL) == 0);
        CHECK(store_ref_put(s, "h/a:b", &d, NULL) == 0);
        CHECK(store_draft_new(s, &draft, NULL) == 0);
        CHECK(store_draft_publish_image(&draft, "key", NULL) == 0);
        CHECK(layer_draft_new(s, &d, "plain", &l, NULL) == 0);
        CHECK(write(layer_draft_toc_fd(l), "toc", 3) == 3);
        CHECK(layer_draft_publish(l, NULL) == 0);
        layer_draft_free(l);
        store_close(s);
}

static void use_read_only_store(const struct place *p)
{
        struct store_draft draft = STORE_DRAFT_INIT;
        struct layer_draft *l = NULL;
        struct error e = ERROR_INIT;
        struct store *s = NULL;
        struct buf b = { 0 };
        struct digest d, found;
        char text[8];
        int64_t when;
        int fd;

        CHECK(digest_of(DIGEST_SHA256, "x", 1, &d) == 0);
        CHECK(store_open(p->store, &s, &e) == 0);
        CHECK(store_blob_get(s, &d, 10, &b, &e) == 0 && b.len == 1);
        CHECK(store_ref_get(s, "h/a:b", &found, &when, &e) == 0 && digest_equal(&d, &found));
        fd = store_image_open(s, "key");
        CHECK(fd >= 0);
        close(fd);
        fd = store_layer_toc(s, &d, "plain");
        CHECK(fd >= 0);
        close(fd);

        CHECK(store_blob_put(s, &d, "x", 1, &e) == -EROFS && e.code == EROFS);
        CHECK(strstr(e.message, p->store));
        CHECK(store_ref_put(s, "h/a:b", &d, &e) == -EROFS && e.code == EROFS);
        CHECK(store_draft_new(s, &draft, &e) == -EROFS && draft.fd == -1);
        /* A layer that it lacks is indexed for this process alone. */
        CHECK(layer_draft_new(s, &d, "other", &l, &e) == 0 && write(layer_draft_toc_fd(l), "toc", 3) == 3);
        CHECK(layer_draft_append(l, "x", 1, &e) == 0 && layer_draft_chunk(l, 0, 1, 0, &e) == 0);
        CHECK(store_layer_toc(s, &d, "other") == -ENOENT && layer_draft_publish(l, &e) == 0);
        l = layer_draft_free(l);
        fd = store_layer_toc(s, &d, "other");
        CHECK(fd >= 0 && pread(fd, text, sizeof(text), 0) == 3 && memcmp(text, "toc", 3) == 0);
        close(fd);
        CHECK(store_layer_remove(s, &d, "plain", &e) == -EROFS);
        buf_free(&b);
        store_close(s);
}

static void read_only_mount(const struct place *p)
{
        private_mounts();
        fill_store(p);
        write_file(below(p, "tmp/old"), "x", 1);
        make_old(below(p, "tmp/old"));
        make_read_only(p->store);
        use_read_only_store(p);
        CHECK(exists(p, "tmp/old"));
}

static void store_on_a_read_only_mount_works(void **state)
{
        run_in_child(read_only_mount, *state, "no root with a mount namespace");
}

static void set_write_bits(const struct place *p, bool on)
{
        static const char *const names[] = { "", "tmp", "blobs", "refs", "layers", "images" };

        for (size_t k = 0; k < ELEMENTSOF(names); k++)
                CHECK(chmod(below(p, names[k]), on ? 0700 : 0500) == 0);
}

static void read_only_by_mode(const struct place *p)
{
        become_nobody();
        fill_store(p);
        set_write_bits(p, false);
        use_read_only_store(p);
        set_write_bits(p, true);
}

static void store_without_write_permission_works(void **state)
{
        struct place *p = *state;

        place_give(p);
        run_in_child(read_only_by_mode, p, NULL);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, place_setup, place_teardown)
        const struct CMUnitTest tests[] = {
                TEST(open_creates_private_directories),
                TEST(open_refuses_a_directory_that_others_can_write),
                TEST(open_refuses_a_directory_of_another_user),
                TEST(open_says_what_is_in_the_way),
                TEST(default_follows_the_environment),
                TEST(default_of_root_is_in_var),
                TEST(open_removes_old_leftovers_that_nobody_holds),
                TEST(open_leaves_alone_what_is_no_draft),
                TEST(blob_comes_back),
                TEST(blob_past_the_bound_is_an_error),
                TEST(damaged_blob_is_removed_and_absent),
                TEST(blob_with_another_digest_is_refused),
                TEST(ref_comes_back_with_its_time),
                TEST(refs_never_collide_nor_leave_their_directory),
                TEST(names_of_refs_differ_in_more_than_case),
                TEST(what_is_no_reference_is_refused),
                TEST(damaged_ref_is_absent),
                TEST(published_image_replaces_the_one_before),
                TEST(dropped_draft_leaves_nothing),
                TEST(image_key_cannot_leave_the_directory),
                TEST(store_on_a_read_only_mount_works),
                TEST(store_without_write_permission_works),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
