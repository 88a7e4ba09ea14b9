/* SPDX-License-Identifier: Apache-2.0 */

/* Images whose layers are read by a table that was changed by hand: the tar's own stream as content space. */

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>
#include <zstd.h>

#include "itable_text.h"
#include "layout_fixture.h"
#include "regfs/image.h"
#include "regfs/verify.h"
#include "tar_tape.h"

#define LARGE (5 * MIB + 77)

struct bench {
        struct layout *layout;
        struct tape tape;
        struct stored_blob plain, zstd;
        char tmp[200];
};

/* ---- the image ---- */

static void make_layer_tape(struct tape *t)
{
        uint8_t *noise = malloc(LARGE);
        uint32_t x = 3;

        assert_non_null(noise);
        for (size_t k = 0; k < LARGE; k++) {
                x = x * 1664525 + 1013904223;
                noise[k] = (uint8_t) (x >> 24);
        }
        MEMBER(t, .name = "large", .size = LARGE);
        tape_data(t, noise, LARGE);
        MEMBER(t, .name = "one", .size = 1000);
        tape_data(t, noise, 1000);
        MEMBER(t, .name = "two", .size = 1000);
        tape_data(t, noise + 1000, 1000);
        PAX(t, "GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.name", "sparse", "GNU.sparse.realsize",
            "300000");
        MEMBER(t, .name = "GNUSparseFile.0/sparse", .size = 512 + 10);
        tape_data(t, "2\n100000\n5\n250000\n5\n", 20);
        tape_text(t, "firstlater");
        tape_end(t);
        free(noise);
}

static int setup(void **state)
{
        struct bench *b = calloc(1, sizeof(*b));
        size_t bound;
        void *made;
        char *frame;

        if (!b || layout_setup(&made) < 0)
                return -1;
        *state = b;
        b->layout = made;
        snprintf(b->tmp, sizeof(b->tmp), "%s/tmp", b->layout->path);
        if (mkdir(b->tmp, 0700) < 0)
                return -1;

        make_layer_tape(&b->tape);
        b->plain = layout_put(b->layout, b->tape.bytes.data, b->tape.bytes.len);
        layout_image(b->layout, "plain", &b->plain, 1, CONFIG);
        bound = ZSTD_compressBound(b->tape.bytes.len);
        frame = malloc(bound);
        if (!frame)
                return -1;
        b->zstd = layout_put(b->layout, frame, ZSTD_compress(frame, bound, b->tape.bytes.data, b->tape.bytes.len, 1));
        free(frame);
        layout_image(b->layout, "zstd", &b->zstd, 1, CONFIG);
        layout_finish(b->layout);
        return setenv("TMPDIR", b->tmp, 1);
}

static int teardown(void **state)
{
        struct bench *b = *state;
        void *made = b->layout;
        int r = unsetenv("TMPDIR");

        tape_free(&b->tape);
        free(b);
        return layout_teardown(&made) < 0 ? -1 : r;
}

static struct image *open_image(const struct bench *b, const char *tag)
{
        struct regfs_options o = REGFS_OPTIONS_INIT;
        struct error e = ERROR_INIT;
        struct image *image = NULL;
        char reference[300];

        o.cache_dir = b->layout->store;
        o.platform = "linux/amd64";
        snprintf(reference, sizeof(reference), "oci:%s:%s", b->layout->path, tag);
        if (image_open(reference, &o, &image, &e) < 0)
                fail_msg("%s", e.message);
        return image;
}

/* ---- its table, changed ---- */

struct table {
        struct itable itable;
        struct chunk_table chunks;
        struct chunk *rows; /* of chunks */
        const struct bench *bench;
};

static struct inode *inode_of(struct table *t, const char *name)
{
        uint32_t dirent = itable_find(&t->itable, 0, name, strlen(name));

        assert_int_not_equal(dirent, ITABLE_NONE);
        return (struct inode *) &t->itable.inodes[t->itable.dirents[dirent].target];
}

/* Rewrites the table of the store as somebody with bad intentions would: file checksum and all. */
static void change_table(const struct bench *b, const struct stored_blob *layer, void (*change)(struct table *t))
{
        char hex[2 * DIGEST_MAX_SIZE + 1], path[500];
        _cleanup_(toc_close_ptr) struct toc *toc = NULL;
        _cleanup_close_ int fd = -1, out = -1;
        struct table t = { .bench = b };
        struct error e = ERROR_INIT;

        snprintf(path, sizeof(path), "%s/layers/sha256/%s/plain/toc", b->layout->store,
                 digest_hex(&layer->digest, hex));
        fd = open(path, O_RDONLY | O_CLOEXEC);
        assert_true(fd >= 0);
        if (toc_open(fd, &layer->digest, &toc, &e) < 0)
                fail_msg("%s", e.message);
        t.itable = itable_exact_copy(&toc->itable);
        t.chunks = toc->chunks;
        t.rows = (struct chunk *) exact_copy(t.chunks.chunks, t.chunks.chunk_count * sizeof(*t.rows));
        t.chunks.chunks = t.rows;
        change(&t);
        assert_int_equal(unlink(path), 0);
        out = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        assert_true(out >= 0);
        if (toc_write(out, &t.itable, &t.chunks, &layer->digest, toc->compression, &e) < 0)
                fail_msg("%s", e.message);
        free(t.rows);
        itable_exact_free(&t.itable);
}

/* ---- what verify says ---- */

static int on_problem(void *context, const char *text)
{
        assert_int_equal(buf_printf(context, "%s\n", text), 0);
        return 0;
}

static void expect_no_leftovers(const struct bench *b)
{
        assert_int_equal(rmdir(b->tmp), 0);
        assert_int_equal(mkdir(b->tmp, 0700), 0);
}

/* The problems found, without "layer sha256:…: "; the caller frees. */
static char *problems(const struct bench *b, const char *tag, uint64_t max, struct verify_result *ret)
{
        _cleanup_(image_close_ptr) struct image *image = open_image(b, tag);
        _cleanup_buf_ struct buf lines = { 0 };
        const struct verify_options options = { .report = on_problem, .report_context = &lines, .report_max = max };
        struct buf bare = { 0 };
        struct error e = ERROR_INIT;

        if (image_verify(image, &options, ret, &e) < 0)
                fail_msg("%s", e.message);
        expect_no_leftovers(b);
        assert_int_equal(buf_append_str(&bare, ""), 0);
        for (const char *line = lines.data; line && *line; line = strchr(line, '\n') + 1) {
                const char *rest = str_after(line, "layer sha256:");

                assert_non_null(rest);
                assert_true(str_after(rest + 64, ": "));
                assert_int_equal(buf_append(&bare, rest + 66, (size_t) (strchr(line, '\n') + 1 - rest - 66)), 0);
        }
        return buf_steal(&bare);
}

static void expect_problems(const struct bench *b, const char *tag, uint64_t count, const char *expected)
{
        struct verify_result result = { 0 };
        _cleanup_free_ char *found = problems(b, tag, 0, &result);

        if (!strstr(found, expected) || (count == 0 && *found))
                fail_msg("says: %snot: %s", found, expected);
        assert_int_equal(result.problems, count);
        assert_int_equal(result.layers, 1);
}

static void image_that_nobody_touched_has_no_problems(void **state)
{
        struct bench *b = *state;
        struct verify_result result = { 0 };
        _cleanup_free_ char *found = problems(b, "plain", 0, &result);

        assert_string_equal(found, "");
        assert_int_equal(result.problems, 0);
        assert_int_equal(result.entries, 4);
        assert_int_equal(result.chunks, 3);
        assert_int_equal(result.bytes, b->tape.bytes.len);
        expect_problems(b, "zstd", 0, "");
}

/* ---- changes ---- */

static void swap_files(struct table *t)
{
        struct inode *one = inode_of(t, "one"), *two = inode_of(t, "two");
        uint64_t data = one->data;

        one->data = two->data;
        two->data = data;
}

static void move_extent(struct table *t)
{
        ((struct extent *) t->itable.extents)[1].file_offset++;
}

static void make_hole(struct table *t)
{
        struct inode *one = inode_of(t, "one");

        one->flags |= INODE_SPARSE;
        one->count = 0;
        one->data = 0;
}

static void set_mode(struct table *t)
{
        inode_of(t, "two")->mode = S_IFREG | 0755;
}

static void set_digest(struct table *t)
{
        t->rows[1].digest[0] ^= 1;
}

/* The chunk has the digest of what it names. */
static void move_chunk(struct table *t, size_t k, uint64_t offset)
{
        struct digest digest;

        t->rows[k].blob_offset = offset;
        assert_int_equal(digest_of(DIGEST_SHA256, t->bench->tape.bytes.data + offset, t->rows[k].blob_length, &digest),
                         0);
        memcpy(t->rows[k].digest, digest.bytes, SHA256_SIZE);
}

static void move_first_chunk(struct table *t)
{
        move_chunk(t, 0, 512);
}

static void move_second_chunk(struct table *t)
{
        move_chunk(t, 1, 0);
}

static void drop_chunk(struct table *t)
{
        memmove(t->rows + 1, t->rows + 2, (t->chunks.chunk_count - 2) * sizeof(*t->rows));
        t->chunks.chunk_count--;
}

static void swap_chunks(struct table *t)
{
        struct chunk first = t->rows[0];

        t->rows[0] = t->rows[1];
        t->rows[1] = first;
}

static void grow_blob(struct table *t)
{
        t->chunks.blob_size++;
}

static void cut_frame(struct table *t)
{
        for (size_t k = 0; k < t->chunks.chunk_count; k++) {
                assert_true(t->rows[k].flags & CHUNK_SLICE);
                t->rows[k].blob_length -= 1000;
        }
}

static void each_change_is_found_and_named(void **state)
{
        static const struct {
                const char *tag;
                void (*change)(struct table *t);
                uint64_t count;
                const char *expected;
        } cases[] = {
                { "plain", swap_files, 2,
                  "one: from byte 0 on, other bytes by the table than in the tar\n"
                  "two: from byte 0 on, other bytes by the table than in the tar\n" },
                { "plain", move_extent, 1, "sparse: from byte 250000 on, other bytes by the table than in the tar\n" },
                { "plain", make_hole, 1, "one: from byte 0 on, other bytes by the table than in the tar\n" },
                { "plain", set_mode, 1, "two: mode 0755 in the table, 0644 in the tar\n" },
                { "plain", set_digest, 1,
                  "large: the chunk of 2097152 bytes in blob bytes 2097152-4194303: the digest of its blob range is " },
                { "plain", move_first_chunk, 1,
                  "content byte 0, which is in no file, is another one than in the tar\n" },
                /* The file begins behind a header of 512 bytes. */
                { "plain", move_second_chunk, 1,
                  "large: from byte 2096640 on, other bytes by the table than in the tar\n" },
                { "plain", drop_chunk, 1, "large: no chunk has content bytes 2097152-4194303\n" },
                { "plain", swap_chunks, 1, "chunk 1: out of order" },
                { "plain", grow_blob, 1, "the table is of a blob of " },
                /* Two slices of one frame, of 4 MiB and the rest. */
                { "zstd", set_digest, 1, "large: the chunk of 1056256 bytes in blob bytes 0-" },
                { "zstd", cut_frame, 1, "large: the chunk of 1056256 bytes in blob bytes 0-" },
        };
        struct bench *b = *state;

        for (size_t k = 0; k < ELEMENTSOF(cases); k++) {
                bool plain = str_eq(cases[k].tag, "plain");

                image_close(open_image(b, cases[k].tag));
                change_table(b, plain ? &b->plain : &b->zstd, cases[k].change);
                expect_problems(b, cases[k].tag, cases[k].count, cases[k].expected);
                assert_int_equal(nftw(b->layout->store, layout_remove_one, 16, FTW_PHYS | FTW_DEPTH), 0);
        }
}

static void damaged_layer_is_one_problem(void **state)
{
        struct bench *b = *state;
        _cleanup_close_ int fd = -1;
        char byte;

        image_close(open_image(b, "plain"));
        fd = open(layout_file(b->layout, layout_blob_name(&b->plain.digest)), O_RDWR | O_CLOEXEC);
        assert_true(fd >= 0);
        assert_int_equal(pread_full(fd, &byte, 1, 3 * MIB), 0);
        byte ^= 1;
        assert_int_equal(pwrite_full(fd, &byte, 1, 3 * MIB), 0);
        expect_problems(b, "plain", 1, "the layer's digest is sha256:");
        byte ^= 1;
        assert_int_equal(pwrite_full(fd, &byte, 1, 3 * MIB), 0);
}

/* ---- telling ---- */

static void lines_of_a_layer_are_bounded(void **state)
{
        struct bench *b = *state;
        struct verify_result result = { 0 };
        _cleanup_free_ char *found = NULL;

        image_close(open_image(b, "plain"));
        change_table(b, &b->plain, swap_files);
        found = problems(b, "plain", 1, &result);
        assert_string_equal(found, "one: from byte 0 on, other bytes by the table than in the tar\n… and 1 more\n");
        assert_int_equal(result.problems, 2);
        assert_int_equal(nftw(b->layout->store, layout_remove_one, 16, FTW_PHYS | FTW_DEPTH), 0);
}

static int hear_one(void *context, const char *text _unused_)
{
        ++*(unsigned *) context;
        return 1;
}

static void who_hears_no_more_still_gets_the_result(void **state)
{
        struct bench *b = *state;
        unsigned heard = 0;

        image_close(open_image(b, "plain"));
        change_table(b, &b->plain, swap_files);
        for (unsigned k = 0; k < 2; k++) {
                const struct verify_options options = { .report = k == 0 ? hear_one : NULL, .report_context = &heard };
                _cleanup_(image_close_ptr) struct image *image = open_image(b, "plain");
                struct verify_result result = { 0 };
                struct error e = ERROR_INIT;

                assert_int_equal(image_verify(image, &options, &result, &e), 0);
                assert_int_equal(result.problems, 2);
        }
        assert_int_equal(heard, 1);
        assert_int_equal(nftw(b->layout->store, layout_remove_one, 16, FTW_PHYS | FTW_DEPTH), 0);
}

struct watcher {
        uint64_t until, done, total;
};

static int on_progress(void *context, uint64_t done, uint64_t total)
{
        struct watcher *w = context;

        assert_true(done >= w->done && done <= total);
        w->done = done;
        w->total = total;
        return done >= w->until;
}

static void progress_grows_to_the_total(void **state)
{
        struct bench *b = *state;
        _cleanup_(image_close_ptr) struct image *image = open_image(b, "zstd");
        struct watcher w = { .until = UINT64_MAX };
        const struct verify_options options = { .progress = on_progress, .progress_context = &w };
        struct verify_result result = { 0 };
        struct error e = ERROR_INIT;

        assert_int_equal(image_verify(image, &options, &result, &e), 0);
        assert_int_equal(w.total, 3 * b->zstd.size);
        assert_int_equal(w.done, w.total);
}

static void interrupted_verification_leaves_nothing_behind(void **state)
{
        struct bench *b = *state;
        _cleanup_(image_close_ptr) struct image *image = open_image(b, "plain");
        struct watcher w = { .until = 0 };
        const struct verify_options options = { .progress = on_progress, .progress_context = &w };
        struct verify_result result = { .layers = 77 };
        struct error e = ERROR_INIT;

        assert_int_equal(image_verify(image, &options, &result, &e), -ECANCELED);
        assert_non_null(strstr(e.message, "interrupted"));
        assert_int_equal(result.layers, 77);
        expect_no_leftovers(b);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(image_that_nobody_touched_has_no_problems),
                cmocka_unit_test(each_change_is_found_and_named),
                cmocka_unit_test(damaged_layer_is_one_problem),
                cmocka_unit_test(lines_of_a_layer_are_bounded),
                cmocka_unit_test(who_hears_no_more_still_gets_the_result),
                cmocka_unit_test(progress_grows_to_the_total),
                cmocka_unit_test(interrupted_verification_leaves_nothing_behind),
        };

        return cmocka_run_group_tests(tests, setup, teardown);
}
