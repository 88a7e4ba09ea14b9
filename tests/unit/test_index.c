/* SPDX-License-Identifier: Apache-2.0 */

/* The one pass over a layer: what it leaves in the store is right, or there is nothing. */

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "index_fixture.h"
#include "slow_blob.h"
#include "tar_tape.h"

#if !defined(REGFS_NO_ISAL) && __has_include(<isa-l.h>)
#define HAVE_ISAL
#include <isa-l.h>
#endif

/* ---- layers of all kinds ---- */

static void straight_decode(const struct buf *blob, struct buf *ret)
{
        switch (compression_detect(blob->data, blob->len)) {
        case COMPRESSION_GZIP:
                straight_gunzip(blob, ret);
                break;
        case COMPRESSION_ZSTD:
                straight_unzstd(blob, ret);
                break;
        case COMPRESSION_NONE:
                assert_int_equal(buf_append(ret, blob->data, blob->len), 0);
                break;
        }
}

/* Returns the number of chunks. */
static size_t expect_bytes(struct bench *b, const struct buf *bytes)
{
        _cleanup_(blob_free_ptr) struct blob *blob = memory_blob(bytes->data, bytes->len);
        _cleanup_buf_ struct buf straight = { 0 };

        straight_decode(bytes, &straight);
        return expect_layer(b, blob, &straight);
}

static void fixtures_read_as_they_decode(void **state)
{
        static const char *const names[] = {
                "base.esgz",
                "base.landmark.esgz",
                "base.members.gz",
                "base.pigz.gz",
                "base.tar.gz",
                "base.tar.zst",
                "base.zstdchunked-v40.zst",
                "base.zstdchunked-v64.zst",
                "twice.tar.gz",
                "upper.tar.gz",
                "base.stargz-zstdchunked.zst",
        };
        struct bench *b = *state;

        for (size_t k = 0; k < ELEMENTSOF(names); k++) {
                _cleanup_buf_ struct buf bytes = { 0 };

                fixture_read(names[k], &bytes);
                assert_true(expect_bytes(b, &bytes) > 0);
        }
}

static void file_in_the_layer_is_found_where_its_bytes_are(void **state)
{
        static const char text[] = "NAME=\"regfs fixture\"\nID=fixture\nVERSION_ID=1\n";
        struct bench *b = *state;
        _cleanup_(blob_free_ptr) struct blob *blob = NULL;
        _cleanup_(toc_close_ptr) struct toc *t = NULL;
        _cleanup_(content_close_ptr) struct content *content = NULL;
        _cleanup_buf_ struct buf bytes = { 0 };
        char out[sizeof(text)] = "";
        uint32_t etc, file;

        fixture_read("base.tar.gz", &bytes);
        blob = memory_blob(bytes.data, bytes.len);
        expect_indexed(b, blob);
        t = open_layer(b, blob);
        etc = itable_find(&t->itable, 0, "etc", 3);
        assert_int_not_equal(etc, ITABLE_NONE);
        file = itable_find(&t->itable, t->itable.dirents[etc].target, "os-release", 10);
        assert_int_not_equal(file, ITABLE_NONE);

        const struct inode *i = &t->itable.inodes[t->itable.dirents[file].target];

        assert_int_equal(i->size, strlen(text));
        content = layer_content(b, t);
        assert_int_equal(content_read(content, i->data, (size_t) i->size, out), 0);
        assert_string_equal(out, text);
}

/* A tar of one file of N bytes as tars have them. */
static void make_tar(struct tape *t, size_t n)
{
        _cleanup_free_ uint8_t *content = make_content(n, 5);

        MEMBER(t, .name = "file", .size = n);
        tape_data(t, content, n);
        tape_end(t);
}

static const uint8_t *bytes_of(const struct tape *t)
{
        return (const uint8_t *) t->bytes.data;
}

static void plain_tar_is_cut_into_chunks(void **state)
{
        struct tape t _cleanup_(tape_free) = { 0 };

        make_tar(&t, 9 * MIB + 5);
        assert_int_equal(expect_bytes(*state, &t.bytes), 5);
}

static void gzip_is_cut_at_checkpoints(void **state)
{
        struct tape t _cleanup_(tape_free) = { 0 };
        _cleanup_buf_ struct buf gz = { 0 };

        make_tar(&t, 11 * MIB);
        append_gzip(&gz, bytes_of(&t), t.bytes.len, &(struct gzip_options) { .level = 6 });
        assert_in_range(expect_bytes(*state, &gz), 5, 6);
}

static void frames_of_zstd_are_chunks(void **state)
{
        struct tape t _cleanup_(tape_free) = { 0 };
        _cleanup_buf_ struct buf zst = { 0 };

        make_tar(&t, 8 * MIB);
        append_skippable(&zst, 100);
        for (size_t at = 0; at < t.bytes.len; at += 3 * MIB)
                append_zstd(&zst, bytes_of(&t) + at, MIN(3 * MIB, t.bytes.len - at), 3, at == 0);
        assert_int_equal(expect_bytes(*state, &zst), 3);
}

/* The chunks of the layer that are slices. */
static size_t count_slices(struct bench *b, const struct buf *bytes)
{
        _cleanup_(blob_free_ptr) struct blob *blob = memory_blob(bytes->data, bytes->len);
        _cleanup_(toc_close_ptr) struct toc *t = open_layer(b, blob);
        size_t n = 0;

        for (size_t i = 0; i < t->chunks.chunk_count; i++)
                n += (t->chunks.chunks[i].flags & CHUNK_SLICE) != 0;
        return n;
}

static void single_frame_is_cut_into_slices(void **state)
{
        struct tape t _cleanup_(tape_free) = { 0 };
        _cleanup_buf_ struct buf zst = { 0 };
        struct bench *b = *state;

        make_tar(&t, 11 * MIB);
        append_zstd(&zst, bytes_of(&t), t.bytes.len, 3, true);
        assert_int_equal(expect_bytes(b, &zst), 5);
        assert_int_equal(count_slices(b, &zst), 5);
}

/* As igzip -0 writes it: one deflate block for the whole stream. */
static void single_block_is_cut_into_slices(void **state)
{
#ifdef HAVE_ISAL
        struct tape t _cleanup_(tape_free) = { 0 };
        struct isal_zstream *z = calloc(1, sizeof(*z));
        _cleanup_buf_ struct buf gz = { 0 };
        struct bench *b = *state;

        make_tar(&t, 13 * MIB);
        assert_int_equal(buf_reserve(&gz, 2 * t.bytes.len), 0);
        isal_deflate_init(z);
        z->gzip_flag = IGZIP_GZIP;
        z->end_of_stream = 1;
        z->next_in = (uint8_t *) t.bytes.data;
        z->avail_in = (uint32_t) t.bytes.len;
        z->next_out = (uint8_t *) gz.data;
        z->avail_out = (uint32_t) (2 * t.bytes.len);
        assert_int_equal(isal_deflate(z), COMP_OK);
        assert_int_equal(z->avail_in, 0);
        gz.len = z->total_out;
        free(z);

        assert_true(expect_bytes(b, &gz) >= 6);
        assert_true(count_slices(b, &gz) >= 6);
#else
        (void) state;
        skip();
#endif
}

static void layers_without_entries_are_layers(void **state)
{
        struct tape t _cleanup_(tape_free) = { 0 };
        _cleanup_buf_ struct buf gz = { 0 }, nothing = { 0 }, zst = { 0 };

        tape_end(&t);
        assert_int_equal(expect_bytes(*state, &t.bytes), 1);
        append_gzip(&gz, bytes_of(&t), t.bytes.len, &(struct gzip_options) { .level = 6 });
        assert_int_equal(expect_bytes(*state, &gz), 1);
        append_gzip(&nothing, bytes_of(&t), 0, &(struct gzip_options) { .level = 6 });
        assert_int_equal(expect_bytes(*state, &nothing), 0);
        append_zstd(&zst, bytes_of(&t), 0, 3, false);
        assert_int_equal(expect_bytes(*state, &zst), 0);
}

static void layer_may_be_indexed_twice(void **state)
{
        struct tape t _cleanup_(tape_free) = { 0 };
        _cleanup_(blob_free_ptr) struct blob *blob = NULL;

        make_tar(&t, 100000);
        blob = memory_blob(t.bytes.data, t.bytes.len);
        expect_indexed(*state, blob);
        expect_indexed(*state, blob);
}

static void progress_ends_at_the_size_of_the_blob(void **state)
{
        struct bench *b = *state;
        struct tape t _cleanup_(tape_free) = { 0 };
        _cleanup_(blob_free_ptr) struct blob *blob = NULL;
        atomic_uint_fast64_t progress = 0;
        struct index_options o = { .progress = &progress };

        make_tar(&t, 9 * MIB);
        blob = memory_blob(t.bytes.data, t.bytes.len);
        assert_int_equal(index_with(b, blob, &o, NULL), 0);
        assert_int_equal(atomic_load(&progress), blob->size);
}

static void small_pool_suffices(void **state)
{
        struct bench *b = *state;
        struct tape t _cleanup_(tape_free) = { 0 };
        _cleanup_(blob_free_ptr) struct blob *blob = NULL;
        struct index_options o = { 0 };

        make_tar(&t, 9 * MIB);
        blob = memory_blob(t.bytes.data, t.bytes.len);
        assert_int_equal(pool_new(MIB, &o.pool), 0);
        assert_int_equal(index_with(b, blob, &o, NULL), 0);
        pool_free(o.pool);
}

/* ---- digests ---- */

static void wrong_digest_publishes_nothing(void **state)
{
        struct bench *b = *state;
        static const char *const names[] = { "base.tar.gz", "base.tar.zst", "upper.tar.gz" };
        char actual[DIGEST_STRING_MAX];

        for (size_t k = 0; k < ELEMENTSOF(names); k++) {
                _cleanup_(blob_free_ptr) struct blob *blob = NULL;
                _cleanup_buf_ struct buf bytes = { 0 };

                fixture_read(names[k], &bytes);
                blob = memory_blob(bytes.data, bytes.len);
                digest_format(&blob->digest, actual);
                blob->digest.bytes[31] ^= 1;
                expect_not_indexed(b, blob, NULL, EBADMSG, actual);
        }
}

static void archive_layer_may_be_named_by_its_content_or_by_itself(void **state)
{
        const struct index_options by_content = { .digest_is_diff_id = true };
        struct bench *b = *state;
        _cleanup_buf_ struct buf bytes = { 0 }, straight = { 0 };
        _cleanup_(blob_free_ptr) struct blob *own = NULL, *content = NULL, *neither = NULL, *tar = NULL;
        struct digest diff_id;

        fixture_read("base.tar.gz", &bytes);
        straight_gunzip(&bytes, &straight);
        assert_int_equal(digest_of(DIGEST_SHA256, straight.data, straight.len, &diff_id), 0);

        own = memory_blob(bytes.data, bytes.len);
        assert_int_equal(index_with(b, own, &by_content, NULL), 0);
        content = memory_blob(bytes.data, bytes.len);
        content->digest = diff_id;
        assert_int_equal(index_with(b, content, &by_content, NULL), 0);
        assert_int_equal(store_layer_remove(b->store, &diff_id, "plain", NULL), 0);
        expect_not_indexed(b, content, NULL, EBADMSG, "expected sha256:");

        tar = memory_blob(straight.data, straight.len);
        assert_int_equal(index_with(b, tar, &by_content, NULL), 0);
        neither = memory_blob(bytes.data, bytes.len);
        neither->digest.bytes[0] ^= 1;
        expect_not_indexed(b, neither, &by_content, EBADMSG, "expected sha256:");
}

/* ---- what is damaged ---- */

static void truncated_layer_publishes_nothing(void **state)
{
        struct bench *b = *state;
        _cleanup_(blob_free_ptr) struct blob *gz = NULL, *zst = NULL, *file = NULL;
        _cleanup_buf_ struct buf bytes = { 0 }, frames = { 0 };

        fixture_read("base.tar.gz", &bytes);
        gz = memory_blob(bytes.data, bytes.len - 1000);
        expect_not_indexed(b, gz, NULL, EBADMSG, "gzip");
        fixture_read("base.tar.zst", &frames);
        zst = memory_blob(frames.data, frames.len / 2);
        expect_not_indexed(b, zst, NULL, EBADMSG, "zstd");

        file = memory_blob(bytes.data, bytes.len);
        file->size += 10;
        expect_not_indexed(b, file, NULL, EBADMSG, "the file is shorter");
}

static void layer_of_nothing_is_refused(void **state)
{
        _cleanup_(blob_free_ptr) struct blob *blob = memory_blob("", 0);

        expect_not_indexed(*state, blob, NULL, EBADMSG, "the layer is empty");
}

static void tar_that_lies_publishes_nothing(void **state)
{
        struct bench *b = *state;
        struct tape past _cleanup_(tape_free) = { 0 }, sum _cleanup_(tape_free) = { 0 },
                         name _cleanup_(tape_free) = { 0 };
        _cleanup_(blob_free_ptr) struct blob *short_blob = NULL, *sum_blob = NULL, *name_blob = NULL;

        MEMBER(&past, .name = "some/file", .size = 100000);
        tape_fill(&past, 5000);
        short_blob = memory_blob(past.bytes.data, past.bytes.len);
        expect_not_indexed(b, short_blob, NULL, EBADMSG, "some/file");

        MEMBER(&sum, .name = "first", .size = 10);
        tape_fill(&sum, 10);
        MEMBER(&sum, .name = "second", .size = 10);
        sum.bytes.data[sum.header] = 'S';
        tape_fill(&sum, 10);
        tape_end(&sum);
        sum_blob = memory_blob(sum.bytes.data, sum.bytes.len);
        expect_not_indexed(b, sum_blob, NULL, EBADMSG, "checksum");

        MEMBER(&name, .name = "directory/.wh.");
        tape_end(&name);
        name_blob = memory_blob(name.bytes.data, name.bytes.len);
        expect_not_indexed(b, name_blob, NULL, EBADMSG, "directory/.wh.");
}

static void chunk_that_takes_too_much_of_the_blob_is_refused(void **state)
{
        struct tape t _cleanup_(tape_free) = { 0 };
        _cleanup_(blob_free_ptr) struct blob *blob = NULL;
        _cleanup_buf_ struct buf zst = { 0 };

        /* What is skipped comes before the first frame, and with it. */
        make_tar(&t, 1000);
        assert_int_equal(buf_append(&zst, "\x50\x2a\x4d\x18\x00\x00\x40\x04", 8), 0);
        assert_int_equal(buf_reserve(&zst, 68 * MIB), 0);
        memset(zst.data + zst.len, 0, 68 * MIB);
        zst.len += 68 * MIB;
        append_zstd(&zst, bytes_of(&t), t.bytes.len, 3, false);
        blob = memory_blob(zst.data, zst.len);
        expect_not_indexed(*state, blob, NULL, EBADMSG, "hold a chunk of");
}

/* A file of zeros, as zstd packs it: more than deflate could. */
static void layer_that_decodes_to_too_much_is_refused(void **state)
{
        const struct index_options bounded = { .content_free = 4 * MIB };
        struct tape t _cleanup_(tape_free) = { 0 };
        _cleanup_(blob_free_ptr) struct blob *blob = NULL;
        _cleanup_buf_ struct buf zst = { 0 };

        MEMBER(&t, .name = "zeros", .size = 16 * MIB);
        assert_int_equal(buf_reserve(&t.bytes, 16 * MIB), 0);
        memset(t.bytes.data + t.bytes.len, 0, 16 * MIB);
        t.bytes.len += 16 * MIB;
        append_zstd(&zst, bytes_of(&t), t.bytes.len, 3, false);
        assert_true(zst.len < 16 * MIB / INDEX_RATIO_MAX);
        blob = memory_blob(zst.data, zst.len);
        expect_not_indexed(*state, blob, &bounded, EBADMSG,
                           "more than 4194304 bytes and more than 1032 times its size");
        expect_indexed(*state, blob);
}

/* ---- what breaks off ---- */

struct job {
        struct bench *bench;
        struct blob *blob;
        struct index_options options;
        pthread_t thread;
        int result;
        struct error error;
};

static void *job_run(void *arg)
{
        struct job *j = arg;

        j->result = index_with(j->bench, j->blob, &j->options, &j->error);
        return NULL;
}

static void cancelled_pass_publishes_nothing(void **state)
{
        struct bench *b = *state;
        struct tape t _cleanup_(tape_free) = { 0 };
        atomic_uint_fast64_t progress = 0;
        atomic_bool cancel = false;
        struct slow_blob *slow;
        struct job j = { .bench = b, .options = { .progress = &progress, .cancel = &cancel } };

        make_tar(&t, 20 * MIB);
        slow = slow_blob_new(bytes_of(&t), t.bytes.len);
        j.blob = &slow->blob;
        slow_set(slow, allowed, 5 * MIB);
        slow_set(slow, lingers, true);
        assert_int_equal(thread_start(&j.thread, "index", job_run, &j), 0);
        while (atomic_load(&progress) < 4 * MIB)
                nanosleep(&(struct timespec) { .tv_nsec = 200000 }, NULL);
        atomic_store(&cancel, true);
        slow_set(slow, allowed, 6 * MIB);
        pthread_join(j.thread, NULL);
        assert_int_equal(j.result, -ECANCELED);
        expect_nothing_published(b, &slow->blob);
        blob_free(&slow->blob);
}

static void pass_that_gets_no_bytes_fails_after_its_patience(void **state)
{
        struct bench *b = *state;
        struct tape t _cleanup_(tape_free) = { 0 };
        struct index_options o = { .timeout_ms = 50 };
        struct slow_blob *slow;
        struct pool_stats s;

        make_tar(&t, 9 * MIB);
        slow = slow_blob_new(bytes_of(&t), t.bytes.len);
        slow_set(slow, allowed, 5 * MIB);
        slow_set(slow, lingers, true);
        expect_not_indexed(b, &slow->blob, &o, ETIMEDOUT, "the bytes do not come");

        /* The windows' buffer is out as long as something writes to it. */
        pool_get_stats(b->pool, &s);
        assert_int_equal(s.buffers, 1);
        blob_free(&slow->blob);
}

static void pass_over_a_broken_connection_publishes_nothing(void **state)
{
        struct bench *b = *state;
        struct tape t _cleanup_(tape_free) = { 0 };
        struct slow_blob *slow;

        make_tar(&t, 9 * MIB);
        slow = slow_blob_new(bytes_of(&t), t.bytes.len);
        slow_set(slow, open_failure, -ECONNREFUSED);
        expect_not_indexed(b, &slow->blob, NULL, ECONNREFUSED, "nobody is there");
        slow_set(slow, open_failure, 0);
        slow_set(slow, allowed, 4 * MIB);
        slow_set(slow, wait_failure, -ECONNRESET);
        expect_not_indexed(b, &slow->blob, NULL, ECONNRESET, "the bytes do not come");
        slow_set(slow, allowed, UINT64_MAX);
        slow_set(slow, wait_failure, 0);
        expect_indexed(b, &slow->blob);
        blob_free(&slow->blob);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                bench_test(fixtures_read_as_they_decode),
                bench_test(file_in_the_layer_is_found_where_its_bytes_are),
                bench_test(plain_tar_is_cut_into_chunks),
                bench_test(gzip_is_cut_at_checkpoints),
                bench_test(frames_of_zstd_are_chunks),
                bench_test(single_frame_is_cut_into_slices),
                bench_test(single_block_is_cut_into_slices),
                bench_test(layers_without_entries_are_layers),
                bench_test(layer_may_be_indexed_twice),
                bench_test(progress_ends_at_the_size_of_the_blob),
                bench_test(small_pool_suffices),
                bench_test(wrong_digest_publishes_nothing),
                bench_test(archive_layer_may_be_named_by_its_content_or_by_itself),
                bench_test(truncated_layer_publishes_nothing),
                bench_test(layer_of_nothing_is_refused),
                bench_test(tar_that_lies_publishes_nothing),
                bench_test(chunk_that_takes_too_much_of_the_blob_is_refused),
                bench_test(layer_that_decodes_to_too_much_is_refused),
                bench_test(cancelled_pass_publishes_nothing),
                bench_test(pass_that_gets_no_bytes_fails_after_its_patience),
                bench_test(pass_over_a_broken_connection_publishes_nothing),
        };

        return cmocka_run_group_tests_name("index", tests, NULL, NULL);
}
