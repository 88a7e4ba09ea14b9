/* SPDX-License-Identifier: Apache-2.0 */

/* Hostile and broken input of the codecs: the answer is -EBADMSG, or the right bytes, and never anything else. */

#include "codec_index.h"

#define TARGET (8 * KIB)

/* Rounds of each mutation loop; $REGFS_TEST_MUTATIONS asks for more. */
static unsigned mutations = 250;

static const struct inflate_ops *backends[2];
static size_t backend_count;

struct stream {
        const char *name;
        enum compression compression;
        struct buf blob;
        struct buf content;
};

static struct stream streams[7];

static void make_streams(void)
{
        static const struct gzip_options options[] = {
                { .level = 6, .memory = 3 },
                { .level = 9, .memory = 1, .header_fields = true },
                { .level = 0 },
                { .level = 6, .strategy = Z_FIXED, .memory = 2 },
                { .level = 1, .flush = Z_SYNC_FLUSH, .flush_every = 700, .memory = 5 },
        };
        static const char *const names[] = { "small blocks", "header fields", "stored", "fixed",
                                             "flushed",      "members",       "zstd" };
        const size_t n = 40000;

        for (size_t i = 0; i < ELEMENTSOF(streams); i++) {
                struct stream *s = &streams[i];
                uint8_t *content = make_content(n, (uint32_t) (1000 + i));

                s->name = names[i];
                s->compression = i == 6 ? COMPRESSION_ZSTD : COMPRESSION_GZIP;
                s->content = (struct buf) { .data = (char *) content, .len = n };
                if (i < ELEMENTSOF(options))
                        append_gzip(&s->blob, content, n, &options[i]);
                for (size_t at = 0; i == 5 && at < n; at += 5000)
                        append_gzip(&s->blob, content + at, 5000, &options[at / 5000 % 5]);
                for (size_t at = 0; i == 6 && at < n; at += 8000) {
                        append_zstd(&s->blob, content + at, 8000, 5, at % 16000 == 0);
                        append_skippable(&s->blob, 20);
                }
        }
}

static int set_up(_unused_ void **state)
{
        const char *asked = getenv("REGFS_TEST_MUTATIONS");

        if (asked)
                mutations = (unsigned) strtoul(asked, NULL, 10);
        backends[backend_count++] = &inflate_zlib;
        if (inflate_isal())
                backends[backend_count++] = inflate_isal();
        make_streams();
        return 0;
}

static int tear_down(_unused_ void **state)
{
        for (size_t i = 0; i < ELEMENTSOF(streams); i++) {
                buf_free(&streams[i].blob);
                buf_free(&streams[i].content);
        }
        return 0;
}

/* Runs the pass over bytes that may be damaged. Returns its value, after checking that a pass that succeeds has the
 * content. */
static int scan_damaged(const struct stream *s, size_t backend, const uint8_t *blob, size_t n, size_t feed)
{
        _cleanup_(index_free) struct index x = {};
        struct error e = ERROR_INIT;
        int r = index_run(&x, s->compression, backends[backend], TARGET, blob, n, feed, &e);

        if (r == 0) {
                assert_int_equal(x.content.len, s->content.len);
                assert_memory_equal(x.content.data, s->content.data, s->content.len);
        } else if (r != -EBADMSG) {
                fail_msg("%s with %s: %d: %s", s->name, backends[backend]->name, r, e.message);
        } else {
                assert_int_equal(e.kind, ERROR_BAD_DATA);
                assert_non_null(strstr(e.message, "blob offset"));
        }
        return r;
}

static void mutate(uint8_t *bytes, size_t n, uint32_t *x)
{
        unsigned count = 1 + next_random(x) % 3;

        for (unsigned i = 0; i < count; i++) {
                size_t at = next_random(x) % n;

                switch (next_random(x) % 3) {
                case 0:
                        bytes[at] ^= (uint8_t) (1u << next_random(x) % 8);
                        break;
                case 1:
                        bytes[at] = (uint8_t) next_random(x);
                        break;
                default: /* repeat something from elsewhere */
                        memmove(bytes + at, bytes + next_random(x) % (n - MIN(n - 1, (size_t) 40)),
                                MIN(n - at, (size_t) (next_random(x) % 40)));
                        break;
                }
        }
}

static void truncated_stream_is_refused(_unused_ void **state)
{
        for (size_t i = 0; i < 5; i++) { /* one member each: no prefix is a whole stream */
                const struct stream *s = &streams[i];

                for (size_t b = 0; b < backend_count; b++)
                        for (size_t n = 0; n < s->blob.len;
                             n += n < 64 || n + 64 > s->blob.len ? 1 : 1 + s->blob.len / 97) {
                                _cleanup_(index_free) struct index x = {};
                                struct error e = ERROR_INIT;

                                assert_int_equal(
                                        index_run(&x, COMPRESSION_GZIP, backends[b], TARGET, s->blob.data, n, 0, &e),
                                        -EBADMSG);
                        }
        }
}

static void truncated_zstd_is_refused(_unused_ void **state)
{
        _cleanup_buf_ struct buf zst = {};

        append_zstd(&zst, (uint8_t *) streams[0].content.data, 3000, 3, false);
        for (size_t n = 0; n < zst.len; n++) {
                _cleanup_(index_free) struct index x = {};
                struct error e = ERROR_INIT;

                assert_int_equal(index_run(&x, COMPRESSION_ZSTD, NULL, TARGET, zst.data, n, 0, &e), -EBADMSG);
        }
}

static void mutated_stream_never_gives_other_bytes(_unused_ void **state)
{
        uint32_t x = 4711;
        unsigned refused = 0;

        for (size_t i = 0; i < ELEMENTSOF(streams); i++) {
                const struct stream *s = &streams[i];
                _cleanup_free_ uint8_t *bytes = malloc(s->blob.len);

                assert_non_null(bytes);
                for (unsigned k = 0; k < mutations; k++) {
                        memcpy(bytes, s->blob.data, s->blob.len);
                        mutate(bytes, s->blob.len, &x);
                        for (size_t b = 0; b < (s->compression == COMPRESSION_GZIP ? backend_count : 1); b++)
                                refused += scan_damaged(s, b, bytes, s->blob.len, k % 2 ? 0 : 997) != 0;
                }
        }
        assert_true(refused > ELEMENTSOF(streams) * mutations);
}

static void mutated_chunk_is_refused_or_decoded(_unused_ void **state)
{
        uint8_t out[2 * TARGET];
        uint32_t random = 99;

        for (size_t i = 0; i < ELEMENTSOF(streams); i++) {
                const struct stream *s = &streams[i];
                _cleanup_free_ uint8_t *bytes = malloc(s->blob.len);
                _cleanup_(index_free) struct index x = {};
                struct error e = ERROR_INIT;
                struct chunk_table t;

                assert_non_null(bytes);
                assert_int_equal(index_run(&x, s->compression, &inflate_zlib, TARGET, s->blob.data, s->blob.len, 0, &e),
                                 0);
                index_table(&x, &t);
                for (unsigned k = 0; k < mutations; k++) {
                        const struct chunk *c = &x.chunks[k % x.chunk_count];

                        memcpy(bytes, s->blob.data, s->blob.len);
                        mutate(bytes + c->blob_offset, c->blob_length, &random);
                        for (size_t b = 0; b < backend_count; b++) {
                                struct range_input in = {
                                        .blob = bytes,
                                        .blob_size = s->blob.len,
                                        .blob_offset = c->blob_offset,
                                        .piece = 1 + k,
                                };
                                int r = codec_decode_with(backends[b], &t, c, range_read, &in, out, &e);

                                free(in.held);
                                assert_true(r == 0 || r == -EBADMSG);
                        }
                }
        }
}

/* What chunk_table_check lets through must be safe to decode, whatever it says. */
static void mutated_table_is_refused_or_decoded(_unused_ void **state)
{
        const struct stream *s = &streams[0];
        _cleanup_(index_free) struct index x = { .compress_windows = true };
        _cleanup_free_ uint8_t *out = malloc(CHUNK_CONTENT_MAX);
        struct error e = ERROR_INIT;
        uint32_t random = 1;
        unsigned passed = 0;

        assert_non_null(out);
        assert_int_equal(index_run(&x, s->compression, &inflate_zlib, TARGET, s->blob.data, s->blob.len, 0, &e), 0);
        for (unsigned k = 0; k < 4 * mutations; k++) {
                size_t chunks_size = x.chunk_count * sizeof(struct chunk),
                       checkpoints_size = x.checkpoint_count * sizeof(struct checkpoint);
                _cleanup_free_ struct chunk *chunks = malloc(chunks_size);
                _cleanup_free_ struct checkpoint *checkpoints = malloc(checkpoints_size);
                _cleanup_free_ uint8_t *windows = malloc(x.windows.len);
                struct chunk_table t;

                assert_true(chunks && checkpoints && windows);
                memcpy(chunks, x.chunks, chunks_size);
                memcpy(checkpoints, x.checkpoints, checkpoints_size);
                memcpy(windows, x.windows.data, x.windows.len);
                if (k % 3 == 0)
                        mutate((uint8_t *) chunks, chunks_size, &random);
                else if (k % 3 == 1)
                        mutate((uint8_t *) checkpoints, checkpoints_size, &random);
                else
                        mutate(windows, x.windows.len, &random);
                index_table(&x, &t);
                t.chunks = chunks;
                t.checkpoints = checkpoints;
                t.windows = windows;
                if (chunk_table_check(&t, &e) < 0)
                        continue;
                passed++;
                for (size_t i = 0; i < x.chunk_count; i++) {
                        struct range_input in = {
                                .blob = (uint8_t *) s->blob.data,
                                .blob_size = s->blob.len,
                                .blob_offset = chunks[i].blob_offset,
                                .piece = 4096,
                        };
                        int r;

                        if (chunks[i].codec == CODEC_ZEROS || (chunks[i].flags & CHUNK_SLICE))
                                continue;
                        r = codec_decode_with(backends[k % backend_count], &t, &chunks[i], range_read, &in, out, &e);
                        free(in.held);
                        assert_true(r == 0 || r == -EBADMSG);
                }
        }
        assert_true(passed > mutations / 2);
}

static void wrong_trailer_is_refused(_unused_ void **state)
{
        for (size_t b = 0; b < backend_count; b++)
                for (size_t i = 0; i < 5; i++) {
                        const struct stream *s = &streams[i];

                        for (size_t k = 1; k <= 8; k++) {
                                uint8_t *byte = (uint8_t *) s->blob.data + s->blob.len - k;

                                *byte ^= 0x10;
                                assert_int_equal(scan_damaged(s, b, (uint8_t *) s->blob.data, s->blob.len, 0),
                                                 -EBADMSG);
                                *byte ^= 0x10;
                        }
                        assert_int_equal(scan_damaged(s, b, (uint8_t *) s->blob.data, s->blob.len, 0), 0);
                }
}

static void trailing_bytes_other_than_zeros_are_refused(_unused_ void **state)
{
        static const struct {
                const char *bytes;
                size_t n;
                int result;
        } trails[] = { { "\0", 1, 0 },
                       { "\0\0\0", 3, 0 },
                       { "x", 1, -EBADMSG },
                       { "\0\0x", 3, -EBADMSG },
                       { "\x1f", 1, -EBADMSG },
                       { "\x1f\x8b", 2, -EBADMSG },
                       { "\0\x1f\x8b", 3, -EBADMSG },
                       { "\x1fx", 2, -EBADMSG } };

        for (size_t b = 0; b < backend_count; b++)
                for (size_t i = 0; i < ELEMENTSOF(trails); i++) {
                        _cleanup_buf_ struct buf blob = {};

                        assert_int_equal(buf_append(&blob, streams[1].blob.data, streams[1].blob.len), 0);
                        assert_int_equal(buf_append(&blob, trails[i].bytes, trails[i].n), 0);
                        assert_int_equal(scan_damaged(&streams[1], b, (uint8_t *) blob.data, blob.len, i % 2),
                                         trails[i].result);
                }
        for (size_t i = 0; i < 8; i++) {
                _cleanup_buf_ struct buf blob = {};

                assert_int_equal(buf_append(&blob, streams[6].blob.data, streams[6].blob.len), 0);
                assert_int_equal(buf_append(&blob, "12345678", i + 1), 0);
                assert_int_equal(scan_damaged(&streams[6], 0, (uint8_t *) blob.data, blob.len, 0), -EBADMSG);
        }
}

static void odd_gzip_headers_are_refused(_unused_ void **state)
{
        struct stream *s = &streams[1]; /* has every field */
        static const struct {
                size_t at;
                uint8_t flip;
                int result;
        } faults[] = {
                { 0, 0x01, -EBADMSG }, { 1, 0x01, -EBADMSG },  { 2, 0x01, -EBADMSG }, /* magic, method */
                { 3, 0x20, -EBADMSG }, { 3, 0x80, -EBADMSG },                         /* reserved flags */
                { 4, 0x01, -EBADMSG }, { 14, 0x01, -EBADMSG },                        /* under the header's CRC */
        };

        for (size_t b = 0; b < backend_count; b++)
                for (size_t i = 0; i < ELEMENTSOF(faults); i++) {
                        uint8_t *byte = (uint8_t *) s->blob.data + faults[i].at;

                        *byte ^= faults[i].flip;
                        assert_int_equal(scan_damaged(s, b, (uint8_t *) s->blob.data, s->blob.len, 3),
                                         faults[i].result);
                        *byte ^= faults[i].flip;
                }
        /* without a CRC of its own, a changed MTIME is nobody's business */
        ((uint8_t *) streams[0].blob.data)[4] ^= 1;
        assert_int_equal(scan_damaged(&streams[0], 0, (uint8_t *) streams[0].blob.data, streams[0].blob.len, 0), 0);
        ((uint8_t *) streams[0].blob.data)[4] ^= 1;
}

static void zstd_frame_that_lies_about_its_size_is_refused(_unused_ void **state)
{
        for (int delta = -1; delta <= 1; delta++) {
                _cleanup_(index_free) struct index x = {};
                _cleanup_buf_ struct buf zst = {};
                struct error e = ERROR_INIT;

                append_zstd(&zst, (uint8_t *) streams[0].content.data, 3000, 3, false);
                assert_int_equal(zst.data[4] & 0xe0, 0x60); /* single segment, two bytes of size less 256 */
                zst.data[5] = (char) (zst.data[5] + delta);
                assert_int_equal(index_run(&x, COMPRESSION_ZSTD, NULL, TARGET, zst.data, zst.len, 0, &e),
                                 delta == 0 ? 0 : -EBADMSG);
        }
}

static void sink_ends_the_pass_with_its_own_value(_unused_ void **state)
{
        static const int values[] = { -ENOSPC, 7 };

        for (size_t i = 0; i < ELEMENTSOF(streams); i++)
                for (size_t k = 0; k < 4; k++)
                        for (size_t b = 0; b < backend_count; b++) {
                                const struct stream *s = &streams[i];
                                _cleanup_(index_free) struct index x = { .fail_at = 12000 };
                                struct error e = ERROR_INIT;

                                *(k < 2 ? &x.output_result : &x.boundary_result) = values[k % 2];
                                assert_int_equal(index_run(&x, s->compression, backends[b], TARGET, s->blob.data,
                                                           s->blob.len, 0, &e),
                                                 values[k % 2]);
                        }
}

/* The sink is also called when there is no boundary near, to make room for more output. */
static void sink_ends_the_pass_in_the_middle_of_a_chunk(_unused_ void **state)
{
        const size_t n = 900000;
        _cleanup_free_ uint8_t *content = make_content(n, 2);
        _cleanup_buf_ struct buf gz = {}, zst = {};

        append_gzip(&gz, content, n, &(struct gzip_options) { .level = 1 });
        append_zstd(&zst, content, n, 1, false);
        for (size_t b = 0; b < backend_count; b++) {
                _cleanup_(index_free) struct index x = { .output_result = 5 }, y = { .output_result = 5 },
                                                   z = { .output_result = 5 };
                struct error e = ERROR_INIT;

                assert_int_equal(index_run(&x, COMPRESSION_GZIP, backends[b], MIB, gz.data, gz.len, 0, &e), 5);
                assert_int_equal(index_run(&y, COMPRESSION_ZSTD, NULL, MIB, zst.data, zst.len, 0, &e), 5);
                assert_int_equal(index_run(&z, COMPRESSION_NONE, NULL, MIB, content, n, 0, &e), 5);
                assert_true(x.content.len < n && y.content.len < n);
        }
}

static void only_what_has_a_codec_is_decoded(_unused_ void **state)
{
        const struct chunk zeros = { .content_length = 1, .codec = CODEC_ZEROS, .checkpoint = CHECKPOINT_NONE };
        const struct chunk stored = {
                .content_length = 1,
                .blob_length = 1,
                .codec = CODEC_STORED,
                .checkpoint = CHECKPOINT_NONE,
        };
        const struct chunk_table t = { .chunks = &zeros, .chunk_count = 1 };
        struct range_input in = { .blob = (const uint8_t *) "", .piece = 1 };
        struct slices_seen seen = {};
        struct error e = ERROR_INIT;
        uint8_t out[1];

        assert_int_equal(codec_decode(&t, &zeros, range_read, &in, out, &e), -EINVAL);
        assert_int_equal(codec_decode(&t, &stored, range_read, &in, out, &e), -EBADMSG); /* the input is empty */
        free(in.held);
        assert_int_equal(codec_decode_slices(&t, NULL, 0, range_read, &in, out, slice_delivered, &seen, &e), 0);
}

static void pass_that_ended_stays_ended(_unused_ void **state)
{
        _cleanup_(index_free) struct index x = { .target = TARGET };
        const struct scan_sink sink = { .output = index_output, .boundary = index_boundary, .context = &x };
        _cleanup_(scan_free_ptr) struct scan *s = NULL;
        struct error e = ERROR_INIT;
        uint64_t size;

        assert_int_equal(scan_new(COMPRESSION_GZIP, &sink, &s, &e), 0);
        assert_int_equal(scan_feed(s, (const uint8_t *) "not gzip", 8, &e), -EBADMSG);
        assert_true(scan_feed(s, (const uint8_t *) "\x1f\x8b", 2, &e) < 0);
        assert_true(scan_finish(s, &size, &e) < 0);
}

static void failing_input_is_passed_on(_unused_ void **state)
{
        uint8_t out[2 * TARGET];

        for (size_t i = 0; i < ELEMENTSOF(streams); i++) {
                const struct stream *s = &streams[i];
                _cleanup_(index_free) struct index x = {};
                struct error e = ERROR_INIT;
                struct chunk_table t;

                assert_int_equal(index_run(&x, s->compression, &inflate_zlib, TARGET, s->blob.data, s->blob.len, 0, &e),
                                 0);
                index_table(&x, &t);
                for (size_t k = 0; k < x.chunk_count; k++) {
                        const struct chunk *c = &x.chunks[k];
                        struct range_input in = {
                                .blob = (uint8_t *) s->blob.data,
                                .blob_size = s->blob.len,
                                .blob_offset = c->blob_offset,
                                .piece = 100,
                                .result = -ETIMEDOUT,
                                .fail_at = c->blob_length / 2,
                        };

                        if (c->flags & CHUNK_SLICE)
                                continue; /* the first slices need less than half of the range */
                        assert_int_equal(codec_decode(&t, c, range_read, &in, out, &e), -ETIMEDOUT);
                        free(in.held);

                        /* and a range that ends too early is bad data */
                        in = (struct range_input) {
                                .blob = (uint8_t *) s->blob.data,
                                .blob_size = c->blob_offset + c->blob_length / 2,
                                .blob_offset = c->blob_offset,
                                .piece = 100,
                        };
                        assert_int_equal(codec_decode(&t, c, range_read, &in, out, &e), -EBADMSG);
                        assert_non_null(strstr(e.message, "the range ends"));
                        free(in.held);
                }
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(truncated_stream_is_refused),
                cmocka_unit_test(truncated_zstd_is_refused),
                cmocka_unit_test(mutated_stream_never_gives_other_bytes),
                cmocka_unit_test(mutated_chunk_is_refused_or_decoded),
                cmocka_unit_test(mutated_table_is_refused_or_decoded),
                cmocka_unit_test(wrong_trailer_is_refused),
                cmocka_unit_test(trailing_bytes_other_than_zeros_are_refused),
                cmocka_unit_test(odd_gzip_headers_are_refused),
                cmocka_unit_test(zstd_frame_that_lies_about_its_size_is_refused),
                cmocka_unit_test(sink_ends_the_pass_with_its_own_value),
                cmocka_unit_test(sink_ends_the_pass_in_the_middle_of_a_chunk),
                cmocka_unit_test(only_what_has_a_codec_is_decoded),
                cmocka_unit_test(pass_that_ended_stays_ended),
                cmocka_unit_test(failing_input_is_passed_on),
        };

        return cmocka_run_group_tests(tests, set_up, tear_down);
}
