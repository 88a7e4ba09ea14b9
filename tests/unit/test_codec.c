/* SPDX-License-Identifier: Apache-2.0 */

/* The pass over layers of every kind, and the decoding of what it found: each chunk alone, by each inflate, must
 * give the bytes that a straight decompression gives. */

#include <fcntl.h>
#include <sys/wait.h>

#include "codec_index.h"
#include "regfs/digest.h"
#include "regfs/io.h"

#if !defined(REGFS_NO_ISAL) && __has_include(<isa-l.h>)
#include <isa-l.h>
#define HAVE_IGZIP 1
#else
#define HAVE_IGZIP 0
#endif

#define SMALL_TARGET (64 * KIB)

static const struct inflate_ops *backends[2];
static size_t backend_count;

static void read_fixture(const char *name, struct buf *ret)
{
        _cleanup_free_ char *here = strdup(__FILE__);
        const char *set = getenv("REGFS_FIXTURES");
        char *slash = strrchr(here, '/'), path[4096];
        struct error e = ERROR_INIT;

        if (slash)
                *slash = '\0';
        if (set)
                snprintf(path, sizeof(path), "%s/layers/%s", set, name);
        else
                snprintf(path, sizeof(path), "%s/../fixtures/layers/%s", slash ? here : ".", name);
        if (file_read(AT_FDCWD, path, 64 * MIB, ret, &e) < 0)
                fail_msg("%s", e.message);
}

/* Pass with every inflate, decoding with every inflate. */
static void check_gzip(const struct buf *gz, const struct buf *expected, size_t target, size_t feed, size_t piece)
{
        for (size_t i = 0; i < backend_count; i++) {
                _cleanup_(index_free) struct index x = { .compress_windows = i == 0 };
                struct error e = ERROR_INIT;

                if (index_run(&x, COMPRESSION_GZIP, backends[i], target, gz->data, gz->len, feed, &e) != 0)
                        fail_msg("%s: %s", backends[i]->name, e.message);
                assert_int_equal(x.content.len, expected->len);
                if (expected->len > 0)
                        assert_memory_equal(x.content.data, expected->data, expected->len);
                for (size_t j = 0; j < backend_count; j++)
                        index_verify(&x, backends[j], gz->data, piece);
        }
}

static void check_zstd(const struct buf *zst, const struct buf *expected, size_t target, size_t feed, size_t piece,
                       struct index *ret)
{
        struct error e = ERROR_INIT;

        if (index_run(ret, COMPRESSION_ZSTD, NULL, target, zst->data, zst->len, feed, &e) != 0)
                fail_msg("%s", e.message);
        assert_int_equal(ret->content.len, expected->len);
        assert_memory_equal(ret->content.data, expected->data, expected->len);
        index_verify(ret, NULL, zst->data, piece);
}

static void backend_follows_the_environment(_unused_ void **state)
{
        static const char *const wanted[] = { "zlib", "isal", "nonsense" };

        for (size_t i = 0; i < ELEMENTSOF(wanted); i++) {
                const char *expected = i > 0 && inflate_isal() ? "isal" : "zlib";
                int status;
                pid_t pid = fork(); /* the choice is made once in a process */

                assert_true(pid >= 0);
                if (pid == 0) {
                        setenv("REGFS_INFLATE", wanted[i], 1);
                        _exit(strcmp(inflate_backend(), expected) == 0 ? 0 : 1);
                }
                assert_int_equal(waitpid(pid, &status, 0), pid);
                assert_int_equal(status, 0);
        }
}

static void self_test_passes_for_every_inflate(_unused_ void **state)
{
        struct error e = ERROR_INIT;

        for (size_t i = 0; i < backend_count; i++)
                if (inflate_self_test(backends[i], &e) < 0)
                        fail_msg("%s: %s", backends[i]->name, e.message);
}

static int lying_bits(struct inflate *i, struct inflate_io *io, bool stop, struct error *e)
{
        int status = inflate_zlib.run(i, io, stop, e);

        io->bits = 0;
        return status;
}

static int lying_end(struct inflate *i, struct inflate_io *io, _unused_ bool stop, struct error *e)
{
        return inflate_zlib.run(i, io, false, e);
}

static int lying_byte(struct inflate *i, struct inflate_io *io, bool stop, struct error *e)
{
        const uint8_t *out = io->out;
        int status = inflate_zlib.run(i, io, stop, e);

        if (status == INFLATE_END && io->out > out)
                io->out[-1] ^= 1;
        return status;
}

static uint32_t lying_crc32(uint32_t crc, const uint8_t *data, size_t n)
{
        return inflate_zlib.crc32(crc, data, n) ^ 1;
}

static void self_test_catches_an_inflate_that_errs(_unused_ void **state)
{
        struct inflate_ops ops = inflate_zlib;
        struct error e = ERROR_INIT;

        ops.run = lying_bits;
        assert_true(inflate_self_test(&ops, &e) < 0);
        ops.run = lying_end;
        assert_true(inflate_self_test(&ops, &e) < 0);
        ops.run = lying_byte;
        assert_true(inflate_self_test(&ops, &e) < 0);
        ops = inflate_zlib;
        ops.crc32 = lying_crc32;
        assert_true(inflate_self_test(&ops, &e) < 0);
}

static void compression_is_told_by_its_magic(_unused_ void **state)
{
        assert_int_equal(compression_detect("\x1f\x8b", 2), COMPRESSION_GZIP);
        assert_int_equal(compression_detect("\x1f", 1), COMPRESSION_NONE);
        assert_int_equal(compression_detect("\x28\xb5\x2f\xfd", 4), COMPRESSION_ZSTD);
        assert_int_equal(compression_detect("\x28\xb5\x2f", 3), COMPRESSION_NONE);
        assert_int_equal(compression_detect("\x50\x2a\x4d\x18", 4), COMPRESSION_ZSTD);
        assert_int_equal(compression_detect("\x5f\x2a\x4d\x18", 4), COMPRESSION_ZSTD);
        assert_int_equal(compression_detect("\x60\x2a\x4d\x18", 4), COMPRESSION_NONE);
        assert_int_equal(compression_detect("etc/passwd", 10), COMPRESSION_NONE);
        assert_int_equal(compression_detect(NULL, 0), COMPRESSION_NONE);
        assert_string_equal(compression_name(COMPRESSION_ZSTD), "zstd");
}

static const struct gzip_options gzip_kinds[] = {
        { .level = 6 },
        { .level = 0 },
        { .level = 1 },
        { .level = 9, .memory = 9 },
        { .level = 6, .memory = 1, .header_fields = true },
        { .level = 6, .strategy = Z_FIXED },
        { .level = 6, .strategy = Z_HUFFMAN_ONLY },
        { .level = 6, .strategy = Z_RLE, .memory = 4 },
        { .level = 6, .flush = Z_SYNC_FLUSH, .flush_every = 3001 },
        { .level = 1, .flush = Z_FULL_FLUSH, .flush_every = 20000 },
        { .level = 9, .flush = Z_PARTIAL_FLUSH, .flush_every = 777 },
        { .level = 6, .flush = Z_BLOCK, .flush_every = 5000 },
};

static void every_gzip_stream_decodes_chunk_by_chunk(_unused_ void **state)
{
        static const size_t feeds[] = { 0, 65536, 1021, 61 };
        struct buf expected = { .len = 700000 };

        expected.data = (char *) make_content(expected.len, 42);
        for (size_t i = 0; i < ELEMENTSOF(gzip_kinds); i++) {
                _cleanup_buf_ struct buf gz = {};

                append_gzip(&gz, (uint8_t *) expected.data, expected.len, &gzip_kinds[i]);
                check_gzip(&gz, &expected, SMALL_TARGET, feeds[i % ELEMENTSOF(feeds)], 4096);
                check_gzip(&gz, &expected, SMALL_TARGET, feeds[(i + 1) % ELEMENTSOF(feeds)], 333);
        }
        free(expected.data);
}

static void feeding_byte_by_byte_changes_nothing(_unused_ void **state)
{
        _cleanup_buf_ struct buf gz = {}, zst = {};
        _cleanup_(index_free) struct index x = {};
        struct buf expected = { .len = 150000 };

        expected.data = (char *) make_content(expected.len, 7);
        for (size_t i = 0; i < 5; i++) {
                append_gzip(&gz, (uint8_t *) expected.data + i * 30000, 30000, &gzip_kinds[i]);
                append_zstd(&zst, (uint8_t *) expected.data + i * 30000, 30000, 1, i % 2);
        }
        check_gzip(&gz, &expected, 8 * KIB, 1, 1);
        check_zstd(&zst, &expected, 8 * KIB, 1, 1, &x);
        free(expected.data);
}

#if HAVE_IGZIP
static void append_igzip(struct buf *b, const uint8_t *content, size_t n, unsigned level)
{
        static const uint32_t room[] = { ISAL_DEF_LVL0_LARGE, ISAL_DEF_LVL1_LARGE, ISAL_DEF_LVL2_LARGE,
                                         ISAL_DEF_LVL3_LARGE };
        _cleanup_free_ uint8_t *level_buffer = malloc(room[level] + 1);
        struct isal_zstream *z = calloc(1, sizeof(*z));

        assert_non_null(z);
        assert_int_equal(buf_reserve(b, 2 * n + 1000), 0);
        isal_deflate_init(z);
        z->gzip_flag = IGZIP_GZIP;
        z->level = level;
        z->level_buf = room[level] > 0 ? level_buffer : NULL;
        z->level_buf_size = room[level];
        z->end_of_stream = 1;
        z->next_in = (uint8_t *) content;
        z->avail_in = (uint32_t) n;
        z->next_out = (uint8_t *) b->data + b->len;
        z->avail_out = (uint32_t) (2 * n + 1000);
        assert_int_equal(isal_deflate(z), COMP_OK);
        assert_int_equal(z->avail_in, 0);
        b->len += z->total_out;
        free(z);
}
#endif

static void igzip_streams_decode_chunk_by_chunk(_unused_ void **state)
{
#if HAVE_IGZIP
        struct buf expected = { .len = 900000 };

        expected.data = (char *) make_content(expected.len, 99);
        for (unsigned level = 0; level <= 3; level++) {
                _cleanup_buf_ struct buf gz = {};

                append_igzip(&gz, (uint8_t *) expected.data, expected.len, level);
                check_gzip(&gz, &expected, SMALL_TARGET, 10007, 4096);
        }
        free(expected.data);
#else
        skip();
#endif
}

static void members_follow_each_other(_unused_ void **state)
{
        struct buf expected = { .len = 600000 };
        _cleanup_buf_ struct buf gz = {};
        size_t at = 0;
        uint32_t x = 5;

        expected.data = (char *) make_content(expected.len, 3);
        while (at < expected.len) {
                size_t n = MIN(expected.len - at, (size_t) (next_random(&x) % 40000));

                append_gzip(&gz, (uint8_t *) expected.data + at, n,
                            &gzip_kinds[next_random(&x) % ELEMENTSOF(gzip_kinds)]);
                append_gzip(&gz, (const uint8_t *) "", 0, &gzip_kinds[0]);
                at += n;
        }
        assert_int_equal(buf_append(&gz, "\0\0\0\0\0\0\0", 7), 0); /* padding */
        check_gzip(&gz, &expected, SMALL_TARGET, 0, 65536);
        check_gzip(&gz, &expected, SMALL_TARGET, 97, 97);
        check_gzip(&gz, &expected, 4 * KIB, 5000, 65536);
        free(expected.data);
}

static void chunks_of_members_need_no_checkpoint(_unused_ void **state)
{
        _cleanup_free_ uint8_t *content = make_content(400000, 8);

        for (size_t b = 0; b < backend_count; b++) {
                _cleanup_(index_free) struct index x = {};
                _cleanup_buf_ struct buf gz = {};
                struct error e = ERROR_INIT;

                for (size_t i = 0; i < 10; i++)
                        append_gzip(&gz, content + i * 40000, 40000, &gzip_kinds[0]);
                assert_int_equal(index_run(&x, COMPRESSION_GZIP, backends[b], SMALL_TARGET, gz.data, gz.len, 0, &e), 0);
                assert_int_equal(x.checkpoint_count, 0);
                assert_int_equal(x.chunk_count, 10); /* each has more than half of the target */
        }
}

static void one_block_becomes_slices(_unused_ void **state)
{
#if HAVE_IGZIP
        struct buf expected = { .len = 500000 };
        _cleanup_buf_ struct buf gz = {}, both = {};

        expected.data = (char *) make_content(expected.len, 17);
        append_igzip(&gz, (uint8_t *) expected.data, expected.len, 0);
        for (size_t b = 0; b < backend_count; b++) {
                _cleanup_(index_free) struct index x = {};
                struct error e = ERROR_INIT;

                assert_int_equal(index_run(&x, COMPRESSION_GZIP, backends[b], SMALL_TARGET, gz.data, gz.len, 5000, &e),
                                 0);
                assert_int_equal(x.chunk_count, 1 + (500000 - 2 * SMALL_TARGET + SMALL_TARGET - 1) / SMALL_TARGET);
                for (size_t i = 0; i < x.chunk_count; i++) {
                        assert_true(x.chunks[i].flags & CHUNK_SLICE);
                        assert_int_equal(x.chunks[i].blob_length, gz.len);
                }
                index_verify(&x, backends[b], gz.data, 1000);
        }

        /* and the next member ends the group */
        assert_int_equal(buf_append(&both, gz.data, gz.len), 0);
        append_gzip(&both, (uint8_t *) expected.data, 30000, &gzip_kinds[0]);
        for (size_t b = 0; b < backend_count; b++) {
                _cleanup_(index_free) struct index x = {};
                struct error e = ERROR_INIT;

                assert_int_equal(index_run(&x, COMPRESSION_GZIP, backends[b], SMALL_TARGET, both.data, both.len, 0, &e),
                                 0);
                assert_int_equal(x.chunks[x.chunk_count - 1].flags & CHUNK_SLICE, 0);
                assert_int_equal(x.chunks[x.chunk_count - 1].blob_offset, gz.len);
                index_verify(&x, backends[b], both.data, 1000);
        }
        free(expected.data);
#else
        skip();
#endif
}

/* zlib's blocks of zeros hold 4 MiB: behind the text, at a checkpoint, a group of slices begins. */
static void slices_resume_at_a_checkpoint(_unused_ void **state)
{
        const size_t text = 150000, zeros = 9000000;
        _cleanup_buf_ struct buf gz = {};
        struct buf expected = { .len = text + zeros + text };

        expected.data = calloc(1, expected.len);
        for (size_t i = 0; i < 2; i++) {
                _cleanup_free_ uint8_t *content = make_content(text, 23);

                memcpy(expected.data + i * (text + zeros), content, text);
        }
        append_gzip(&gz, (uint8_t *) expected.data, expected.len, &gzip_kinds[0]);
        check_gzip(&gz, &expected, SMALL_TARGET, 0, 65536);
        for (size_t b = 0; b < backend_count; b++) {
                _cleanup_(index_free) struct index x = {};
                struct error e = ERROR_INIT;
                size_t found = 0;

                assert_int_equal(index_run(&x, COMPRESSION_GZIP, backends[b], SMALL_TARGET, gz.data, gz.len, 100, &e),
                                 0);
                for (size_t i = 0; i < x.chunk_count; i++)
                        found += (x.chunks[i].flags & CHUNK_SLICE) && x.chunks[i].checkpoint != CHECKPOINT_NONE;
                assert_true(found > 20);
                index_verify(&x, backends[b], gz.data, 50);
        }
        free(expected.data);
}

static void some_of_the_slices_can_be_wanted(_unused_ void **state)
{
        _cleanup_free_ uint8_t *content = make_content(600000, 31), *out = malloc(2 * SMALL_TARGET);
        _cleanup_(index_free) struct index x = {};
        _cleanup_buf_ struct buf zst = {};
        struct error e = ERROR_INIT;
        struct chunk_table t;

        append_zstd(&zst, content, 600000, 3, false);
        assert_int_equal(index_run(&x, COMPRESSION_ZSTD, NULL, SMALL_TARGET, zst.data, zst.len, 0, &e), 0);
        assert_in_range(x.chunk_count, 5, 20);
        index_table(&x, &t);
        for (size_t first = 0; first + 3 < x.chunk_count; first++) {
                struct range_input in = { .blob = (uint8_t *) zst.data, .blob_size = zst.len, .piece = 10000 };
                struct slices_seen seen = { .index = &x, .stop_after = 2, .result = first % 2 ? 1 : -ENOSPC };
                int r = codec_decode_slices(&t, x.chunks + first, 3, range_read, &in, out, slice_delivered, &seen, &e);

                free(in.held);
                assert_int_equal(r, first % 2 ? 0 : -ENOSPC);
                assert_int_equal(seen.count, 2);
        }
}

static void chunks_have_the_target_size(_unused_ void **state)
{
        const size_t n = 9 * MIB;
        _cleanup_free_ uint8_t *content = make_content(n, 77);
        _cleanup_buf_ struct buf gz = {};
        struct error e = ERROR_INIT;

        append_gzip(&gz, content, n, &gzip_kinds[2]);
        for (size_t b = 0; b < backend_count; b++) {
                _cleanup_(index_free) struct index x = {};

                assert_int_equal(
                        index_run(&x, COMPRESSION_GZIP, backends[b], CHUNK_CONTENT_TARGET, gz.data, gz.len, 100000, &e),
                        0);
                assert_int_equal(x.chunk_count, 5);
                for (size_t i = 0; i + 1 < x.chunk_count; i++) {
                        assert_in_range(x.chunks[i].content_length, CHUNK_CONTENT_TARGET,
                                        CHUNK_CONTENT_TARGET + 300 * KIB);
                        assert_int_equal(x.chunks[i].flags & CHUNK_SLICE, 0);
                }
                assert_true(x.pieces < 2 * n / (128 * KIB));
                index_verify(&x, backends[b], gz.data, 65536);
        }
}

static void tar_layers_are_cut_anywhere(_unused_ void **state)
{
        static const size_t sizes[] = { 0, 1, SMALL_TARGET, SMALL_TARGET + 1, 10 * SMALL_TARGET };
        _cleanup_free_ uint8_t *content = make_content(10 * SMALL_TARGET, 1);

        for (size_t i = 0; i < ELEMENTSOF(sizes); i++) {
                _cleanup_(index_free) struct index x = {};
                struct error e = ERROR_INIT;

                assert_int_equal(index_run(&x, COMPRESSION_NONE, NULL, SMALL_TARGET, content, sizes[i], 10007, &e), 0);
                assert_int_equal(x.content.len, sizes[i]);
                assert_int_equal(x.chunk_count, (sizes[i] + SMALL_TARGET - 1) / SMALL_TARGET);
                if (sizes[i] > 0)
                        assert_memory_equal(x.content.data, content, sizes[i]);
                index_verify(&x, NULL, content, 4096);
        }
}

static void small_zstd_frames_share_chunks(_unused_ void **state)
{
        struct buf expected = { .len = 40 * 10000 };
        _cleanup_(index_free) struct index x = {};
        _cleanup_buf_ struct buf zst = {};

        expected.data = (char *) make_content(expected.len, 12);
        for (size_t i = 0; i < 40; i++) {
                append_zstd(&zst, (uint8_t *) expected.data + i * 10000, 10000, 3, false);
                append_skippable(&zst, i);
        }
        append_skippable(&zst, 100000);
        check_zstd(&zst, &expected, SMALL_TARGET, 0, 1000, &x);
        assert_int_equal(x.chunk_count, 10); /* four frames have more than half of 64 KiB */
        for (size_t i = 0; i < x.chunk_count; i++)
                assert_int_equal(x.chunks[i].content_length, 40000);
        free(expected.data);
}

/* As streaming compressors write them: no size in the header, but one block. */
static void small_unsized_zstd_frames_share_chunks(_unused_ void **state)
{
        struct buf expected = { .len = 60 * 4000 };
        _cleanup_(index_free) struct index x = {};
        _cleanup_buf_ struct buf zst = {};

        expected.data = (char *) make_content(expected.len, 14);
        for (size_t i = 0; i < 60; i++)
                append_zstd(&zst, (uint8_t *) expected.data + i * 4000, 4000, 3, true);
        check_zstd(&zst, &expected, 512 * KIB, 100000, 1000, &x);
        assert_int_equal(x.chunk_count, 1);
        free(expected.data);
}

static void zstd_frame_that_may_be_large_begins_a_chunk(_unused_ void **state)
{
        struct buf expected = { .len = 5000 + 300000 + 5000 + 300000 + 5000 + 5000 + 62000 };
        static const struct {
                size_t n;
                bool unsized;
        } frames[] = { { 5000, false }, { 300000, false }, { 5000, false }, { 300000, true },
                       { 5000, false }, { 5000, true },    { 62000, false } };
        static const size_t begins[] = { 0, 5000, 305000, 310000, 610000, 615000, 620000 };
        _cleanup_(index_free) struct index x = {};
        _cleanup_buf_ struct buf zst = {};
        size_t at = 0, begun = 0;

        expected.data = (char *) make_content(expected.len, 13);
        for (size_t i = 0; i < ELEMENTSOF(frames); i++) {
                append_zstd(&zst, (uint8_t *) expected.data + at, frames[i].n, 3, frames[i].unsized);
                at += frames[i].n;
        }
        check_zstd(&zst, &expected, SMALL_TARGET, 0, 1000, &x);
        for (size_t i = 0; i < x.chunk_count; i++)
                if (x.chunks[i].skip == 0)
                        assert_int_equal(x.chunks[i].content_offset, begins[begun++]);
        assert_int_equal(begun, ELEMENTSOF(begins));
        free(expected.data);
}

static void zstd_window_past_the_bound_is_refused(_unused_ void **state)
{
        /* magic, descriptor: no single segment, no size; window descriptor: 2^28 bytes; a raw block of one byte, the
         * last */
        static const uint8_t blob[] = { 0x28, 0xb5, 0x2f, 0xfd, 0x00, (28 - 10) << 3, 0x09, 0x00, 0x00, 'x' };
        _cleanup_(index_free) struct index x = {};
        struct error e = ERROR_INIT;

        assert_int_equal(index_run(&x, COMPRESSION_ZSTD, NULL, SMALL_TARGET, blob, sizeof(blob), 0, &e), -EBADMSG);
        assert_non_null(strstr(e.message, "window of more than 128 MiB"));
}

static void fixtures_decode_chunk_by_chunk(_unused_ void **state)
{
        static const char *const names[] = {
                "base.tar.gz",
                "base.pigz.gz",
                "base.members.gz",
                "upper.tar.gz",
                "twice.tar.gz",
                "base.esgz",
                "base.landmark.esgz",
                "base.tar.zst",
                "base.stargz-zstdchunked.zst",
                "base.zstdchunked-v40.zst",
                "base.zstdchunked-v64.zst",
        };

        for (size_t i = 0; i < ELEMENTSOF(names); i++) {
                _cleanup_buf_ struct buf blob = {}, expected = {};

                read_fixture(names[i], &blob);
                if (str_ends_with(names[i], ".zst")) {
                        _cleanup_(index_free) struct index x = {}, small = {};

                        assert_int_equal(compression_detect(blob.data, blob.len), COMPRESSION_ZSTD);
                        straight_unzstd(&blob, &expected);
                        check_zstd(&blob, &expected, CHUNK_CONTENT_TARGET, 0, 65536, &x);
                        check_zstd(&blob, &expected, SMALL_TARGET, 16384, 65536, &small);
                } else {
                        assert_int_equal(compression_detect(blob.data, blob.len), COMPRESSION_GZIP);
                        straight_gunzip(&blob, &expected);
                        check_gzip(&blob, &expected, CHUNK_CONTENT_TARGET, 0, 65536);
                        check_gzip(&blob, &expected, SMALL_TARGET, 16384, 65536);
                }
        }
}

/* That the oracle above is right itself. */
static void fixtures_have_the_known_digest(_unused_ void **state)
{
        _cleanup_buf_ struct buf sums = {};
        static const char *const names[] = { "base.tar.gz",  "base.pigz.gz", "base.members.gz",
                                             "upper.tar.gz", "twice.tar.gz", "base.tar.zst" };

        read_fixture("SHA256SUMS.tars", &sums);
        for (size_t i = 0; i < ELEMENTSOF(names); i++) {
                _cleanup_buf_ struct buf blob = {};
                _cleanup_(index_free) struct index x = {};
                char hex[2 * DIGEST_MAX_SIZE + 1];
                struct error e = ERROR_INIT;
                struct digest d;

                read_fixture(names[i], &blob);
                assert_int_equal(index_run(&x, compression_detect(blob.data, blob.len), backends[backend_count - 1],
                                           CHUNK_CONTENT_TARGET, blob.data, blob.len, 0, &e),
                                 0);
                assert_int_equal(digest_of(DIGEST_SHA256, x.content.data, x.content.len, &d), 0);
                assert_non_null(strstr(sums.data, digest_hex(&d, hex)));
        }
}

static int collect_backends(_unused_ void **state)
{
        backends[backend_count++] = &inflate_zlib;
        if (inflate_isal())
                backends[backend_count++] = inflate_isal();
        return 0;
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(backend_follows_the_environment), /* first: it must not have been chosen yet */
                cmocka_unit_test(self_test_passes_for_every_inflate),
                cmocka_unit_test(self_test_catches_an_inflate_that_errs),
                cmocka_unit_test(compression_is_told_by_its_magic),
                cmocka_unit_test(every_gzip_stream_decodes_chunk_by_chunk),
                cmocka_unit_test(feeding_byte_by_byte_changes_nothing),
                cmocka_unit_test(igzip_streams_decode_chunk_by_chunk),
                cmocka_unit_test(members_follow_each_other),
                cmocka_unit_test(chunks_of_members_need_no_checkpoint),
                cmocka_unit_test(one_block_becomes_slices),
                cmocka_unit_test(slices_resume_at_a_checkpoint),
                cmocka_unit_test(some_of_the_slices_can_be_wanted),
                cmocka_unit_test(chunks_have_the_target_size),
                cmocka_unit_test(tar_layers_are_cut_anywhere),
                cmocka_unit_test(small_zstd_frames_share_chunks),
                cmocka_unit_test(small_unsized_zstd_frames_share_chunks),
                cmocka_unit_test(zstd_frame_that_may_be_large_begins_a_chunk),
                cmocka_unit_test(zstd_window_past_the_bound_is_refused),
                cmocka_unit_test(fixtures_decode_chunk_by_chunk),
                cmocka_unit_test(fixtures_have_the_known_digest),
        };

        return cmocka_run_group_tests(tests, collect_backends, NULL);
}
