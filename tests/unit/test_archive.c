/* SPDX-License-Identifier: Apache-2.0 */

/* Docker archives: what docker wrote once (a tar of tars), what it writes now, and what is wrong with both. */

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "fs/archive/index.h"
#include "regfs/blob.h"
#include "regfs/io.h"
#include "regfs/manifest.h"
#include "tar_tape.h"

/* An archive on its way into a file. */
struct archive {
        struct tape tape;
        char path[100];
};

static int setup(void **state)
{
        struct archive *a = calloc(1, sizeof(*a));
        const char *tmp = getenv("TMPDIR");
        int fd;

        *state = a;
        if (!a)
                return -1;
        snprintf(a->path, sizeof(a->path), "%.60s/regfs-archive-XXXXXX", tmp && *tmp ? tmp : "/tmp");
        fd = mkstemp(a->path);
        return fd < 0 ? -1 : close(fd);
}

static int teardown(void **state)
{
        struct archive *a = *state;
        int r = unlink(a->path);

        tape_free(&a->tape);
        free(a);
        return r;
}

#define archive_test(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

static void add(struct archive *a, const char *name, const char *text)
{
        MEMBER(&a->tape, .name = name, .size = strlen(text));
        tape_text(&a->tape, text);
}

static void add_bytes(struct archive *a, const char *name, const void *data, size_t n)
{
        MEMBER(&a->tape, .name = name, .size = n);
        tape_data(&a->tape, data, n);
}

static void add_link(struct archive *a, const char *name, char type, const char *target)
{
        MEMBER(&a->tape, .name = name, .type = type, .link = target);
}

static void write_archive(struct archive *a, const void *data, size_t n)
{
        int fd = open(a->path, O_WRONLY | O_TRUNC | O_CLOEXEC);

        assert_true(fd >= 0);
        assert_int_equal(write_full(fd, data, n), 0);
        close(fd);
}

static void finish(struct archive *a)
{
        tape_end(&a->tape);
        write_archive(a, a->tape.bytes.data, a->tape.bytes.len);
}

static char *hex_of(const char *text)
{
        static char hex[4][2 * DIGEST_MAX_SIZE + 1];
        static unsigned next;
        struct digest d;

        assert_int_equal(digest_of(DIGEST_SHA256, text, strlen(text), &d), 0);
        return digest_hex(&d, hex[next++ % 4]);
}

static struct source *open_archive(struct archive *a, const char *tag)
{
        struct error e = ERROR_INIT;
        struct source *s = NULL;

        if (archive_source_new(a->path, tag, &s, &e) < 0)
                fail_msg("%s", e.message);
        return s;
}

static void expect_unopened(struct archive *a, const char *tag, int code, enum error_kind kind, const char *words)
{
        struct error e = ERROR_INIT;
        struct source *s = NULL;

        assert_int_equal(archive_source_new(a->path, tag, &s, &e), -code);
        assert_null(s);
        assert_int_equal(e.kind, kind);
        if (!strstr(e.message, words))
                fail_msg("'%s' is not in '%s'", words, e.message);
        if (!strstr(e.message, a->path))
                fail_msg("the archive is not named in '%s'", e.message);
}

static void get_manifest(struct source *s, struct manifest *ret)
{
        _cleanup_document_ struct document d = { 0 };
        struct error e = ERROR_INIT;
        struct digest digest;

        if (source_manifest(s, NULL, DEADLINE_NEVER, &d, &e) < 0 || manifest_parse(&d, s->name, ret, &e) < 0)
                fail_msg("%s", e.message);
        assert_int_equal(source_resolve(s, DEADLINE_NEVER, &digest, NULL), 0);
        assert_true(digest_equal(&digest, &d.digest));
        assert_int_equal(digest_verify(&digest, d.body.data, d.body.len, "manifest", NULL), 0);
}

/* The blob of D reads as TEXT. */
static void expect_blob(struct source *s, const struct descriptor *d, const char *text)
{
        _cleanup_(pool_free_ptr) struct pool *pool = NULL;
        _cleanup_(pool_buf_unref_ptr) struct pool_buf *buffer = NULL;
        struct blob_range *range = NULL;
        struct error e = ERROR_INIT;
        struct blob *blob = NULL;
        uint64_t received;

        assert_int_equal(d->size, strlen(text));
        if (source_blob(s, d, &blob, &e) < 0)
                fail_msg("%s", e.message);
        assert_int_equal(blob->size, d->size);
        assert_int_equal(pool_new(MIB, &pool), 0);
        assert_int_equal(pool_get(pool, 100, DEADLINE_NEVER, &buffer, NULL), 0);
        assert_int_equal(blob_range_open(blob, 0, d->size, buffer, 0, 0, &range, NULL), 0);
        assert_int_equal(blob_range_wait(range, d->size, &received, NULL), 0);
        assert_memory_equal(buffer->data, text, d->size);
        blob_range_close(range);
        blob_free(blob);
}

/* ---- what docker wrote once ---- */

static void add_config(struct archive *a, const char *name, const char *first, const char *second)
{
        char text[500];

        snprintf(text, sizeof(text), "{\"os\":\"linux\",\"rootfs\":{\"diff_ids\":[\"sha256:%s\",\"sha256:%s\"]}}",
                 hex_of(first), hex_of(second));
        add(a, name, text);
}

static void layers_of_an_old_archive_are_named_by_their_diff_ids(void **state)
{
        struct archive *a = *state;
        _cleanup_(source_free_ptr) struct source *s = NULL;
        _cleanup_manifest_ struct manifest m = { 0 };
        char hex[2 * DIGEST_MAX_SIZE + 1];

        add(a, "aaa/layer.tar", "the first layer");
        add(a, "bbb/layer.tar", "the second");
        add_config(a, "config.json", "the first layer", "the second");
        add(a, "manifest.json",
            "[{\"Config\":\"config.json\",\"RepoTags\":[\"alpine:latest\"],"
            "\"Layers\":[\"aaa/layer.tar\",\"bbb/layer.tar\"]}]");
        finish(a);
        s = open_archive(a, NULL);
        get_manifest(s, &m);
        assert_int_equal(m.layer_count, 2);
        assert_string_equal(digest_hex(&m.layers[0].digest, hex), hex_of("the first layer"));
        assert_string_equal(digest_hex(&m.layers[1].digest, hex), hex_of("the second"));
        expect_blob(s, &m.layers[0], "the first layer");
        expect_blob(s, &m.layers[1], "the second");
}

static void config_is_read_like_a_blob(void **state)
{
        struct archive *a = *state;
        _cleanup_(source_free_ptr) struct source *s = NULL;
        _cleanup_(pool_free_ptr) struct pool *pool = NULL;
        _cleanup_manifest_ struct manifest m = { 0 };
        _cleanup_platform_ struct platform p = { 0 };
        _cleanup_buf_ struct buf text = { 0 };

        add(a, "l", "layer");
        add_config(a, "config.json", "layer", "layer");
        add(a, "manifest.json", "[{\"Config\":\"config.json\",\"Layers\":[\"l\",\"l\"]}]");
        finish(a);
        s = open_archive(a, NULL);
        get_manifest(s, &m);
        assert_int_equal(pool_new(MIB, &pool), 0);
        assert_int_equal(source_blob_read(s, &m.config, pool, KIB, DEADLINE_NEVER, &text, NULL), 0);
        assert_int_equal(config_platform(&text, "x", &p, NULL), 0);
        assert_string_equal(p.os, "linux");
}

static void layers_that_are_links_are_followed(void **state)
{
        struct archive *a = *state;
        _cleanup_(source_free_ptr) struct source *s = NULL;
        _cleanup_manifest_ struct manifest m = { 0 };

        add(a, "./aaa/layer.tar", "twice");
        add_link(a, "bbb/layer.tar", '2', "../aaa/./layer.tar");
        add_link(a, "ccc", '1', "bbb//layer.tar");
        add_config(a, "config.json", "twice", "twice");
        add(a, "manifest.json", "[{\"Config\":\"/config.json\",\"Layers\":[\"bbb/layer.tar\",\"ccc\"]}]");
        finish(a);
        s = open_archive(a, NULL);
        get_manifest(s, &m);
        expect_blob(s, &m.layers[0], "twice");
        expect_blob(s, &m.layers[1], "twice");
}

static void large_layers_are_passed_over(void **state)
{
        struct archive *a = *state;
        _cleanup_(source_free_ptr) struct source *s = NULL;
        _cleanup_free_ char *large = malloc(3 * MIB);
        _cleanup_manifest_ struct manifest m = { 0 };
        struct digest d;
        char config[400], hex[2 * DIGEST_MAX_SIZE + 1];

        memset(large, 'x', 3 * MIB);
        assert_int_equal(digest_of(DIGEST_SHA256, large, 3 * MIB, &d), 0);
        add_bytes(a, "large.tar", large, 3 * MIB);
        add(a, "small.tar", "small");
        snprintf(config, sizeof(config), "{\"rootfs\":{\"diff_ids\":[\"sha256:%s\",\"sha256:%s\"]}}",
                 digest_hex(&d, hex), hex_of("small"));
        add(a, "config.json", config);
        add(a, "manifest.json", "[{\"Config\":\"config.json\",\"Layers\":[\"large.tar\",\"small.tar\"]}]");
        finish(a);
        s = open_archive(a, NULL);
        get_manifest(s, &m);
        assert_int_equal(m.layers[0].size, 3 * MIB);
        expect_blob(s, &m.layers[1], "small");
}

/* ---- what docker writes now ---- */

static void layers_of_a_new_archive_are_named_by_their_files(void **state)
{
        struct archive *a = *state;
        _cleanup_(source_free_ptr) struct source *s = NULL;
        _cleanup_manifest_ struct manifest m = { 0 };
        char name[200], manifest[500], hex[2 * DIGEST_MAX_SIZE + 1];

        /* A compressed layer: its file is named by its own digest, its diff_id is another. */
        snprintf(name, sizeof(name), "blobs/sha256/%s", hex_of("as if compressed"));
        add(a, name, "as if compressed");
        add(a, "l", "second");
        add_config(a, "config.json", "as if decoded", "second");
        snprintf(manifest, sizeof(manifest), "[{\"Config\":\"config.json\",\"Layers\":[\"%s\",\"l\"]}]", name);
        add(a, "manifest.json", manifest);
        finish(a);
        s = open_archive(a, NULL);
        get_manifest(s, &m);
        assert_string_equal(digest_hex(&m.layers[0].digest, hex), hex_of("as if compressed"));
        expect_blob(s, &m.layers[0], "as if compressed");
}

/* ---- choosing ---- */

static void put_two_images(struct archive *a)
{
        add(a, "l", "layer");
        add(a, "m", "other");
        add_config(a, "one.json", "layer", "other");
        add_config(a, "two.json", "other", "layer");
        add(a, "manifest.json",
            "[{\"Config\":\"one.json\",\"RepoTags\":[\"docker.io/library/one:1\",\"one:latest\"],"
            "\"Layers\":[\"l\",\"m\"]},"
            "{\"Config\":\"two.json\",\"RepoTags\":[\"two:latest\"],\"Layers\":[\"m\",\"l\"]}]");
        finish(a);
}

static void image_is_found_by_its_tag(void **state)
{
        static const char *const tags[] = { "one:1", "docker.io/library/one:1", "one:latest" };
        struct archive *a = *state;
        char hex[2 * DIGEST_MAX_SIZE + 1];

        put_two_images(a);
        for (size_t k = 0; k < ELEMENTSOF(tags); k++) {
                _cleanup_(source_free_ptr) struct source *s = open_archive(a, tags[k]);
                _cleanup_manifest_ struct manifest m = { 0 };

                get_manifest(s, &m);
                assert_string_equal(digest_hex(&m.layers[0].digest, hex), hex_of("layer"));
        }

        _cleanup_(source_free_ptr) struct source *two = open_archive(a, "two:latest");
        _cleanup_manifest_ struct manifest m = { 0 };

        get_manifest(two, &m);
        assert_string_equal(digest_hex(&m.layers[0].digest, hex), hex_of("other"));
}

static void tag_that_is_missing_or_ambiguous_is_told_with_those_there_are(void **state)
{
        struct archive *a = *state;

        put_two_images(a);
        expect_unopened(a, "three:latest", ENOENT, ERROR_NOT_FOUND,
                        "its tags: docker.io/library/one:1, one:latest, two:latest");
        expect_unopened(a, NULL, EINVAL, ERROR_USAGE, "2 images in the archive, name one of them");
}

static void same_archive_gives_the_same_manifest(void **state)
{
        struct archive *a = *state;
        struct digest first, second;

        put_two_images(a);
        for (int k = 0; k < 2; k++) {
                _cleanup_(source_free_ptr) struct source *s = open_archive(a, "one:1");

                assert_int_equal(source_resolve(s, DEADLINE_NEVER, k == 0 ? &first : &second, NULL), 0);
        }
        assert_true(digest_equal(&first, &second));
}

static void what_the_archive_does_not_have_is_not_found(void **state)
{
        struct archive *a = *state;
        _cleanup_(source_free_ptr) struct source *s = NULL;
        _cleanup_document_ struct document d = { 0 };
        struct descriptor descriptor = { 0 };
        struct error e = ERROR_INIT;
        struct blob *blob = NULL;

        put_two_images(a);
        s = open_archive(a, "one:1");
        assert_int_equal(digest_of(DIGEST_SHA256, "?", 1, &descriptor.digest), 0);
        assert_int_equal(source_manifest(s, &descriptor.digest, DEADLINE_NEVER, &d, &e), -ENOENT);
        assert_int_equal(source_blob(s, &descriptor, &blob, &e), -ENOENT);
}

/* ---- what is wrong ---- */

static void archive_without_its_parts_is_refused(void **state)
{
        struct archive *a = *state;

        finish(a);
        expect_unopened(a, NULL, EBADMSG, ERROR_BAD_DATA, "holds no manifest.json");

        tape_free(&a->tape);
        a->tape = (struct tape) { 0 };
        add(a, "manifest.json", "[{\"Config\":\"config.json\",\"Layers\":[\"l\"]}]");
        finish(a);
        expect_unopened(a, NULL, EBADMSG, ERROR_BAD_DATA, "holds no config.json");

        tape_free(&a->tape);
        a->tape = (struct tape) { 0 };
        add_config(a, "config.json", "a", "b");
        add(a, "a", "a");
        add(a, "manifest.json", "[{\"Config\":\"config.json\",\"Layers\":[\"a\",\"b\"]}]");
        finish(a);
        expect_unopened(a, NULL, EBADMSG, ERROR_BAD_DATA, "holds no layer b");
}

static void manifest_that_is_malformed_is_refused(void **state)
{
        static const struct {
                const char *manifest, *words;
        } cases[] = {
                { "{}", "manifest.json is no array" },
                { "[", "manifest.json" },
                { "[]", "no such image in the archive; its tags: none" },
                { "[{\"Layers\":[\"a\"]}]", "names no config" },
                { "[{\"Config\":\"config.json\",\"Layers\":[\"a\"]}]", "disagree on the number of layers" },
                { "[{\"Config\":\"config.json\",\"Layers\":[\"a\",\"a\",\"a\"]}]", "disagree on the number of layers" },
                { "[{\"Config\":\"config.json\",\"Layers\":[\"a\",7]}]", "is no string" },
                { "[{\"Config\":\"bad.json\",\"Layers\":[\"a\"]}]", "diff_id of layer a" },
                { "[{\"Config\":\"a\",\"Layers\":[\"a\"]}]", "byte" },
        };
        struct archive *a = *state;

        for (size_t k = 0; k < ELEMENTSOF(cases); k++) {
                struct error e = ERROR_INIT;
                struct source *s = NULL;

                tape_free(&a->tape);
                a->tape = (struct tape) { 0 };
                add(a, "a", "a");
                add_config(a, "config.json", "a", "a");
                add(a, "bad.json", "{\"rootfs\":{\"diff_ids\":[\"sha256:../..\"]}}");
                add(a, "manifest.json", cases[k].manifest);
                finish(a);
                assert_true(archive_source_new(a->path, NULL, &s, &e) < 0);
                assert_null(s);
                if (!strstr(e.message, cases[k].words))
                        fail_msg("'%s' is not in '%s'", cases[k].words, e.message);
        }
}

static void file_that_is_no_archive_is_refused(void **state)
{
        struct archive *a = *state;
        _cleanup_free_ char *noise = malloc(4096);
        struct error e = ERROR_INIT;
        struct source *s = NULL;

        memset(noise, 'x', 4096);
        write_archive(a, noise, 4096);
        expect_unopened(a, NULL, EBADMSG, ERROR_BAD_DATA, "checksum");
        write_archive(a, "\x1f\x8b\x08\x00", 4);
        expect_unopened(a, NULL, EBADMSG, ERROR_BAD_DATA, "the archive is compressed (gzip): unpack it first");
        assert_int_equal(archive_source_new("/nowhere.tar", NULL, &s, &e), -ENOENT);
        assert_non_null(strstr(e.message, "/nowhere.tar"));
}

static void files_of_an_archive_are_bounded(void **state)
{
        struct archive *a = *state;
        char name[20];

        assert_int_equal(buf_reserve(&a->tape.bytes, 52 * MIB), 0);
        for (unsigned k = 0; k <= 100000; k++) {
                snprintf(name, sizeof(name), "%u", k);
                add(a, name, "");
        }
        finish(a);
        expect_unopened(a, NULL, EBADMSG, ERROR_BAD_DATA, "more than 100000 files in the archive");
}

static void truncated_archive_is_refused(void **state)
{
        struct archive *a = *state;
        size_t end;

        add(a, "l", "layer");
        MEMBER(&a->tape, .name = "large", .size = 100000);
        tape_fill(&a->tape, 100000);
        end = a->tape.bytes.len - 5000;
        write_archive(a, a->tape.bytes.data, end);
        expect_unopened(a, NULL, EBADMSG, ERROR_BAD_DATA, "large");
}

/* ---- the index ---- */

static struct archive_index *index_tape(struct archive *a, int *ret_fd)
{
        struct error e = ERROR_INIT;
        struct archive_index *i = NULL;

        finish(a);
        *ret_fd = open(a->path, O_RDONLY | O_CLOEXEC);
        assert_true(*ret_fd >= 0);
        if (archive_index_new(*ret_fd, &i, &e) < 0)
                fail_msg("%s", e.message);
        return i;
}

static void links_that_go_round_end(void **state)
{
        struct archive *a = *state;
        struct archive_index *i;
        _cleanup_close_ int fd = -1;
        uint64_t offset, size;

        add_link(a, "a", '2', "b");
        add_link(a, "b", '2', "a");
        add_link(a, "dangling", '2', "nowhere");
        add_link(a, "up", '2', "../../../file");
        add(a, "file", "text");
        MEMBER(&a->tape, .name = "directory/", .type = '5');
        i = index_tape(a, &fd);
        assert_int_equal(archive_index_find(i, "a", &offset, &size), -ELOOP);
        assert_int_equal(archive_index_find(i, "dangling", &offset, &size), -ENOENT);
        assert_int_equal(archive_index_find(i, "directory", &offset, &size), -ENOENT);
        assert_int_equal(archive_index_find(i, "", &offset, &size), -ENOENT);
        assert_int_equal(archive_index_find(i, "up", &offset, &size), 0);
        assert_int_equal(size, 4);
        archive_index_free(i);
}

static void later_of_two_files_of_a_name_counts(void **state)
{
        struct archive *a = *state;
        struct archive_index *i;
        _cleanup_close_ int fd = -1;
        uint64_t offset, size;
        char text[10];

        add(a, "file", "first");
        add(a, "./file", "second");
        i = index_tape(a, &fd);
        assert_int_equal(archive_index_find(i, "x/../file", &offset, &size), 0);
        assert_int_equal(size, 6);
        assert_int_equal(pread_full(fd, text, 6, offset), 0);
        assert_memory_equal(text, "second", 6);
        archive_index_free(i);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                archive_test(layers_of_an_old_archive_are_named_by_their_diff_ids),
                archive_test(config_is_read_like_a_blob),
                archive_test(layers_that_are_links_are_followed),
                archive_test(large_layers_are_passed_over),
                archive_test(layers_of_a_new_archive_are_named_by_their_files),
                archive_test(image_is_found_by_its_tag),
                archive_test(tag_that_is_missing_or_ambiguous_is_told_with_those_there_are),
                archive_test(same_archive_gives_the_same_manifest),
                archive_test(what_the_archive_does_not_have_is_not_found),
                archive_test(archive_without_its_parts_is_refused),
                archive_test(manifest_that_is_malformed_is_refused),
                archive_test(file_that_is_no_archive_is_refused),
                archive_test(truncated_archive_is_refused),
                archive_test(files_of_an_archive_are_bounded),
                archive_test(links_that_go_round_end),
                archive_test(later_of_two_files_of_a_name_counts),
        };

        return cmocka_run_group_tests_name("archive", tests, NULL, NULL);
}
