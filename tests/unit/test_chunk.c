/* SPDX-License-Identifier: Apache-2.0 */

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "regfs/chunk.h"

/* A table with every kind of chunk, of a blob of 10,000 bytes and a content of 500,000. */
struct table {
        struct chunk chunks[8];
        struct checkpoint checkpoints[2];
        uint8_t windows[100];
        struct chunk_table t;
};

enum { GZIP_PLAIN, GZIP_RESUMED, GZIP_SLICE_1, GZIP_SLICE_2, ZSTD_SLICE, ZEROS, STORED, INNER };

static void table_init(struct table *x)
{
        static const struct table example = {
                .chunks = {
                        [GZIP_PLAIN] = { .content_length = 1000, .blob_length = 400, .codec = CODEC_GZIP,
                                         .checkpoint = CHECKPOINT_NONE },
                        [GZIP_RESUMED] = { .content_offset = 1000, .content_length = 2000, .blob_offset = 399,
                                           .blob_length = 601, .codec = CODEC_GZIP, .checkpoint = 0 },
                        [GZIP_SLICE_1] = { .content_offset = 3000, .content_length = 4000, .blob_offset = 1000,
                                           .blob_length = 500, .codec = CODEC_GZIP, .checkpoint = 1,
                                           .flags = CHUNK_SLICE | CHUNK_DIGEST_CONTENT },
                        [GZIP_SLICE_2] = { .content_offset = 7000, .content_length = 1, .blob_offset = 1000,
                                           .blob_length = 500, .codec = CODEC_GZIP, .checkpoint = 1, .skip = 4000,
                                           .flags = CHUNK_SLICE | CHUNK_DIGEST_CONTENT },
                        [ZSTD_SLICE] = { .content_offset = 7001, .content_length = 9, .blob_offset = 1500,
                                         .blob_length = 20, .codec = CODEC_ZSTD, .checkpoint = CHECKPOINT_NONE,
                                         .flags = CHUNK_SLICE | CHUNK_NO_DIGEST },
                        /* a gap of content: 7010 … 7999 */
                        [ZEROS] = { .content_offset = 8000, .content_length = 1000, .codec = CODEC_ZEROS,
                                    .checkpoint = CHECKPOINT_NONE },
                        [STORED] = { .content_offset = 9000, .content_length = 80, .blob_offset = 1520,
                                     .blob_length = 100, .skip = 20, .codec = CODEC_STORED,
                                     .checkpoint = CHECKPOINT_NONE, .flags = CHUNK_DIGEST_CONTENT },
                        /* eStargz: in the middle of a member that another chunk may begin */
                        [INNER] = { .content_offset = 9080, .content_length = 490920, .blob_offset = 9000,
                                    .blob_length = 1000, .skip = 100000, .codec = CODEC_GZIP,
                                    .checkpoint = CHECKPOINT_NONE, .flags = CHUNK_DIGEST_CONTENT },
                },
                .checkpoints = {
                        { .in = 400, .out = 1000, .bits = 3, .window_length = 60, .window_raw = 32768 },
                        { .in = 1000, .out = 3000, .window_offset = 60, .window_length = 40, .window_raw = 40 },
                },
        };

        *x = example;
        x->t = (struct chunk_table) {
                .chunks = x->chunks,
                .chunk_count = ELEMENTSOF(x->chunks),
                .checkpoints = x->checkpoints,
                .checkpoint_count = ELEMENTSOF(x->checkpoints),
                .windows = x->windows,
                .windows_size = sizeof(x->windows),
                .content_size = 500000,
                .blob_size = 10000,
        };
}

static void find_returns_the_holder_or_the_next(_unused_ void **state)
{
        static const struct {
                uint64_t offset;
                size_t chunk;
        } cases[] = {
                { 0, GZIP_PLAIN },      { 999, GZIP_PLAIN },    { 1000, GZIP_RESUMED }, { 2999, GZIP_RESUMED },
                { 6999, GZIP_SLICE_1 }, { 7000, GZIP_SLICE_2 }, { 7001, ZSTD_SLICE },   { 7009, ZSTD_SLICE },
                { 7010, ZEROS },        { 7999, ZEROS },        { 8000, ZEROS },        { 9079, STORED },
                { 9080, INNER },        { 499999, INNER },      { 500000, 8 },          { UINT64_MAX, 8 },
        };
        const struct chunk_table empty = {};
        struct table x;

        table_init(&x);
        for (size_t i = 0; i < ELEMENTSOF(cases); i++)
                assert_int_equal(chunk_find(&x.t, cases[i].offset), cases[i].chunk);
        assert_int_equal(chunk_find(&empty, 0), 0);
}

static void good_table_passes(_unused_ void **state)
{
        const struct chunk_table empty = {};
        struct error e = ERROR_INIT;
        struct table x;

        table_init(&x);
        if (chunk_table_check(&x.t, &e) < 0)
                fail_msg("%s", e.message);
        assert_int_equal(chunk_table_check(&empty, &e), 0);
}

/* The members of an eStargz have tar headers in front of the files. */
static void slices_may_leave_out_what_is_between_them(_unused_ void **state)
{
        struct error e = ERROR_INIT;
        struct table x;

        table_init(&x);
        x.chunks[GZIP_SLICE_1].checkpoint = x.chunks[GZIP_SLICE_2].checkpoint = CHECKPOINT_NONE;
        x.chunks[GZIP_SLICE_1].skip = 512;
        x.chunks[GZIP_SLICE_2].skip = 5120;
        if (chunk_table_check(&x.t, &e) < 0)
                fail_msg("%s", e.message);
        x.chunks[GZIP_SLICE_2].skip = 4511;
        assert_int_equal(chunk_table_check(&x.t, &e), -EBADMSG);
        assert_non_null(strstr(e.message, "chunk 3: slices of one range overlap"));
}

static void prefetch_ends_inside_the_content(_unused_ void **state)
{
        struct error e = ERROR_INIT;
        struct table x;

        table_init(&x);
        x.t.prefetch = x.t.content_size;
        assert_int_equal(chunk_table_check(&x.t, &e), 0);
        x.t.prefetch++;
        assert_int_equal(chunk_table_check(&x.t, &e), -EBADMSG);
}

#define CHUNK_FAULT(row, field, value)                                                                  \
        {                                                                                               \
                "chunk", row, offsetof(struct chunk, field), sizeof(((struct chunk *) 0)->field), value \
        }
#define CHECKPOINT_FAULT(row, field, value)                                                                            \
        {                                                                                                              \
                "checkpoint", row, offsetof(struct checkpoint, field), sizeof(((struct checkpoint *) 0)->field), value \
        }

static const struct {
        const char *kind;
        size_t row, offset, size;
        uint64_t value;
} faults[] = {
        /* order and bounds of the content */
        CHUNK_FAULT(GZIP_RESUMED, content_offset, 999),
        CHUNK_FAULT(ZEROS, content_offset, 7009),
        CHUNK_FAULT(ZEROS, content_offset, 8001),
        CHUNK_FAULT(ZEROS, content_offset, UINT64_MAX),
        CHUNK_FAULT(ZEROS, content_offset, UINT64_MAX - 500),
        CHUNK_FAULT(INNER, content_offset, 9081),
        CHUNK_FAULT(GZIP_PLAIN, content_length, 0),
        CHUNK_FAULT(GZIP_PLAIN, content_length, 1001),
        CHUNK_FAULT(INNER, content_length, 490921),
        CHUNK_FAULT(INNER, content_length, CHUNK_CONTENT_MAX + 1),
        CHUNK_FAULT(INNER, content_length, UINT32_MAX),
        /* the blob's range */
        CHUNK_FAULT(GZIP_PLAIN, blob_length, 0),
        CHUNK_FAULT(GZIP_PLAIN, blob_length, 10001),
        CHUNK_FAULT(GZIP_PLAIN, blob_length, UINT64_MAX),
        CHUNK_FAULT(GZIP_PLAIN, blob_offset, 9601),
        CHUNK_FAULT(GZIP_PLAIN, blob_offset, UINT64_MAX - 10),
        CHUNK_FAULT(ZEROS, blob_length, 1),
        CHUNK_FAULT(ZEROS, skip, 1),
        /* more content than the range can hold */
        CHUNK_FAULT(STORED, skip, 21),
        CHUNK_FAULT(STORED, blob_length, 99),
        CHUNK_FAULT(INNER, blob_length, 572), /* 1032 * 572 < 590,920 */
        CHUNK_FAULT(INNER, skip, 1032 * 1000),
        CHUNK_FAULT(INNER, skip, UINT64_MAX - 490000),
        /* codec, flags, reserved */
        CHUNK_FAULT(GZIP_PLAIN, codec, 0),
        CHUNK_FAULT(GZIP_PLAIN, codec, 5),
        CHUNK_FAULT(GZIP_PLAIN, codec, 255),
        CHUNK_FAULT(GZIP_PLAIN, flags, 8),
        CHUNK_FAULT(GZIP_PLAIN, reserved, 1),
        CHUNK_FAULT(GZIP_PLAIN, reserved2, 1),
        /* resuming */
        CHUNK_FAULT(GZIP_PLAIN, checkpoint, 0),
        CHUNK_FAULT(GZIP_RESUMED, checkpoint, 1),
        CHUNK_FAULT(GZIP_RESUMED, checkpoint, 2),
        CHUNK_FAULT(GZIP_RESUMED, skip, 1),
        CHUNK_FAULT(GZIP_RESUMED, blob_offset, 400),
        CHUNK_FAULT(ZSTD_SLICE, checkpoint, 1),
        CHUNK_FAULT(STORED, checkpoint, 1),
        /* slices */
        CHUNK_FAULT(GZIP_SLICE_2, skip, 3999),
        CHUNK_FAULT(GZIP_SLICE_2, skip, 0),
        CHUNK_FAULT(GZIP_SLICE_2, blob_length, 501),
        CHUNK_FAULT(GZIP_SLICE_2, checkpoint, CHECKPOINT_NONE),
        CHUNK_FAULT(GZIP_SLICE_1, flags, CHUNK_DIGEST_CONTENT),
        CHUNK_FAULT(GZIP_SLICE_1, flags, CHUNK_SLICE),
        CHUNK_FAULT(ZSTD_SLICE, blob_offset, 1000),
        CHUNK_FAULT(STORED, flags, CHUNK_SLICE | CHUNK_DIGEST_CONTENT),
        /* checkpoints */
        CHECKPOINT_FAULT(0, bits, 8),
        CHECKPOINT_FAULT(0, bits, 0),
        CHECKPOINT_FAULT(0, in, 401),
        CHECKPOINT_FAULT(0, in, 0),
        CHECKPOINT_FAULT(0, in, 10001),
        CHECKPOINT_FAULT(0, out, 1001),
        CHECKPOINT_FAULT(0, out, UINT64_MAX),
        CHECKPOINT_FAULT(0, window_raw, 32769),
        CHECKPOINT_FAULT(0, window_raw, 59),
        CHECKPOINT_FAULT(0, window_length, 0),
        CHECKPOINT_FAULT(0, window_length, 101),
        CHECKPOINT_FAULT(1, window_offset, 61),
        CHECKPOINT_FAULT(1, window_offset, UINT64_MAX),
};

static void every_fault_is_found(_unused_ void **state)
{
        for (size_t i = 0; i < ELEMENTSOF(faults); i++) {
                struct error e = ERROR_INIT;
                struct table x;
                uint8_t *row;

                table_init(&x);
                row = strcmp(faults[i].kind, "chunk") == 0 ? (uint8_t *) &x.chunks[faults[i].row]
                                                           : (uint8_t *) &x.checkpoints[faults[i].row];
                assert_memory_not_equal(row + faults[i].offset, &faults[i].value, faults[i].size);
                memcpy(row + faults[i].offset, &faults[i].value, faults[i].size); /* little-endian, as the rows are */
                if (chunk_table_check(&x.t, &e) != -EBADMSG)
                        fail_msg("fault %zu passes: %s %zu, byte %zu", i, faults[i].kind, faults[i].row,
                                 faults[i].offset);
                assert_int_equal(e.kind, ERROR_BAD_DATA);
        }
}

static void message_names_the_row(_unused_ void **state)
{
        struct error e = ERROR_INIT;
        struct table x;

        table_init(&x);
        x.chunks[STORED].codec = 77;
        assert_int_equal(chunk_table_check(&x.t, &e), -EBADMSG);
        assert_string_equal(e.message, "chunk 6: unknown codec (content offset 9000, blob offset 1520)");
        table_init(&x);
        x.chunks[INNER].blob_length = 572;
        assert_int_equal(chunk_table_check(&x.t, &e), -EBADMSG);
        assert_non_null(strstr(e.message, "deflate makes 1032 bytes of one"));
        table_init(&x);
        x.checkpoints[1].bits = 9;
        assert_int_equal(chunk_table_check(&x.t, &e), -EBADMSG);
        assert_string_equal(e.message, "checkpoint 1: impossible bit position");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(find_returns_the_holder_or_the_next),
                cmocka_unit_test(good_table_passes),
                cmocka_unit_test(slices_may_leave_out_what_is_between_them),
                cmocka_unit_test(prefetch_ends_inside_the_content),
                cmocka_unit_test(every_fault_is_found),
                cmocka_unit_test(message_names_the_row),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
