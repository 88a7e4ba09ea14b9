/* SPDX-License-Identifier: Apache-2.0 */

/* Pax records of fs/toc/tar_pax.c, and the sparse maps that come with them, through the scanner. */

#include "tar_tape.h"

/* One extension header with one record, and the entry "a". */
static void put_one(struct tape *t, const char *key, const void *value, size_t n)
{
        _cleanup_buf_ struct buf b = { 0 };

        t->bytes.len = 0;
        put_record(&b, key, value, n);
        tape_extension(t, 'x', b.data, b.len);
        MEMBER(t, .name = "a");
}

static void records_take_the_place_of_fields(void **state)
{
        struct tape *t = *state;

        PAX(t, "path", "long/path=1", "linkpath", "target", "uid", "4294967295", "gid", "3000000", "mtime", "1.5",
            "atime", "7", "comment", "anything", "VENDOR.key", "x", "uname", "root");
        MEMBER(t, .name = "cut", .type = '2', .link = "cut");
        tape_patch(t, 108, "toobig!", 7);
        tape_patch(t, 136, "toobig!", 7);
        PAX(t, "size", "3");
        MEMBER(t, .name = "sized");
        tape_text(t, "abc");
        MEMBER(t, .name = "after");
        expect(t, "long/path=1 120644 4294967295:3000000 0 1.500000000 -> target\n"
                  "sized 100644 0:0 3 0 @3072\n"
                  "after 100644 0:0 0 0 @4096\n");
}

static void later_record_and_later_header_win(void **state)
{
        struct tape *t = *state;

        PAX(t, "path", "dropped", "uid", "9");
        PAX(t, "path", "first", "path", "second");
        MEMBER(t, .name = "a", .uid = 1);
        expect(t, "second 100644 1:0 0 0 @2560\n");
}

static void empty_value_takes_a_key_back(void **state)
{
        struct tape *t = *state;

        GLOBAL(t, "uid", "7", "gid", "8");
        PAX(t, "path", "x", "path", "", "uid", "", "mtime", "");
        MEMBER(t, .name = "a", .uid = 1, .gid = 2, .mtime = 3);
        GLOBAL(t, "gid", "");
        MEMBER(t, .name = "b", .uid = 1, .gid = 2);
        expect(t, "a 100644 1:8 0 3 @2560\n"
                  "b 100644 7:2 0 0 @4096\n");
}

static void times_have_nanoseconds_and_signs(void **state)
{
        static const struct {
                const char *value;
                const char *listed;
        } times[] = {
                { "1700000000.123456789", "1700000000.123456789" },
                { "1700000000.1234567899", "1700000000.123456789" },
                { "5.", "5" },
                { "5.000000000", "5" },
                { "0.03", "0.030000000" },
                { "-86400", "-86400" },
                { "-1.25", "-2.750000000" },
                { "-0.5", "-1.500000000" },
                { "-0", "0" },
                { "9223372036854775807.999999999", "9223372036854775807.999999999" },
                { "-9223372036854775808", "-9223372036854775808" },
                { "-9223372036854775807.1", "-9223372036854775808.900000000" },
        };
        struct tape *t = *state;
        char want[100];

        for (size_t i = 0; i < ELEMENTSOF(times); i++) {
                put_one(t, "mtime", times[i].value, strlen(times[i].value));
                snprintf(want, sizeof(want), "a 100644 0:0 0 %s @1536\n", times[i].listed);
                expect(t, want);
        }
}

static void values_that_cannot_be_are_refused(void **state)
{
        static const struct {
                const char *key;
                const char *value;
        } records[] = {
                { "uid", "-1" },
                { "uid", "4294967296" },
                { "gid", "18446744073709551616" },
                { "gid", "1 " },
                { "size", "-5" },
                { "size", "9223372036854775808" },
                { "size", "0x10" },
                { "mtime", "9223372036854775808" },
                { "mtime", "-9223372036854775808.5" },
                { "mtime", "-9223372036854775809" },
                { "mtime", ".5" },
                { "mtime", "-" },
                { "mtime", "1e5" },
                { "mtime", "1.5x" },
                { "mtime", "1.5.5" },
                { "SCHILY.xattr.", "x" },
                { "LIBARCHIVE.xattr.", "eA" },
                { "LIBARCHIVE.xattr.user.a%00b", "eA" },
                { "LIBARCHIVE.xattr.user.a", "e" },
                { "LIBARCHIVE.xattr.user.a", "e*==" },
                { "LIBARCHIVE.xattr.user.a", "eA=" },
                { "GNU.sparse.map", "1" },
                { "GNU.sparse.map", "1,x" },
                { "GNU.sparse.map", "1,2,,4" },
                { "GNU.sparse.map", "5,5,9,1" },
                { "GNU.sparse.offset", "5" },
                { "GNU.sparse.numbytes", "5" },
        };
        struct tape *t = *state;

        for (size_t i = 0; i < ELEMENTSOF(records); i++) {
                put_one(t, records[i].key, records[i].value, strlen(records[i].value));
                expect_refusal(t, "tar header at offset 0: ");
        }
        put_one(t, "path", "a\0b", 3);
        expect_refusal(t, "tar header at offset 0: pax record \"path\" at its byte 0: a NUL inside");
        put_one(t, "linkpath", "a\0b", 3);
        expect_refusal(t, "tar header at offset 0: pax record \"linkpath\" at its byte 0: a NUL inside");
}

static void malformed_records_are_refused(void **state)
{
        static const char *const bodies[] = {
                "path=x\n",
                "7 path=x\n",
                "100 path=x\n",
                "10path=xy\n",
                " 9 path=\n",
                "-9 path=x\n",
                "9 path\n\n\n",
                "10 path=x\n\n",
                "6 =x\nx\n",
                "5 =x\n",
                "0 path=x\n",
                "1\n",
                "11 path=xyzw",
                "9 path=x",
                "99999999999999999999 path=x\n",
                "18446744073709551625 path=x\n",
                "0000000000000000000000000000000000000000000000000",
        };
        struct tape *t = *state;

        for (size_t i = 0; i < ELEMENTSOF(bodies); i++) {
                t->bytes.len = 0;
                tape_extension(t, 'x', bodies[i], strlen(bodies[i]));
                MEMBER(t, .name = "a");
                expect_refusal(t, "tar header at offset 0: a malformed pax record at its byte ");
        }
        t->bytes.len = 0;
        tape_extension(t, 'x', "11 path=xy\n12 pa\0th=xy\n", 23);
        expect_refusal(t, "tar header at offset 0: a malformed pax record at its byte 11");
}

static void xattrs_come_in_both_spellings(void **state)
{
        struct tape *t = *state;
        _cleanup_buf_ struct buf b = { 0 };

        put_record(&b, "SCHILY.xattr.user.b", "x\0y\n", 4);
        put_record(&b, "LIBARCHIVE.xattr.user.c%20%c3%A9%zz", "AP8", 3);
        put_record(&b, "SCHILY.xattr.user.a", "", 0);
        put_record(&b, "LIBARCHIVE.xattr.user.pad", "QUI=", 4);
        put_record(&b, "LIBARCHIVE.xattr.user.empty", "", 0);
        put_record(&b, "LIBARCHIVE.xattr.user.long", "+/+/YWJjZGVmZw==", 16);
        tape_extension(t, 'x', b.data, b.len);
        MEMBER(t, .name = "a");
        MEMBER(t, .name = "b");
        expect(t, "a 100644 0:0 0 0 @1536 user.b=x\\00y\\0a user.c \xc3\xa9%zz=\\00\\ff"
                  " user.long=\\fb\\ff\\bfabcdefg user.pad=AB\n"
                  "b 100644 0:0 0 0 @2048\n");
}

static void last_xattr_of_a_name_counts(void **state)
{
        struct tape *t = *state;

        PAX(t, "SCHILY.xattr.user.b", "1", "SCHILY.xattr.user.a", "2", "LIBARCHIVE.xattr.user.%62", "Mw",
            "SCHILY.xattr.user.a", "4");
        MEMBER(t, .name = "a");
        expect(t, "a 100644 0:0 0 0 @1536 user.a=4 user.b=3\n");
}

static void too_many_xattrs_are_refused(void **state)
{
        _cleanup_buf_ struct buf b = { 0 }, got = { 0 };
        struct tape *t = *state;
        char key[40];

        for (int i = 0; i < 4097; i++) {
                snprintf(key, sizeof(key), "SCHILY.xattr.user.%04d", i);
                put_record(&b, key, "", 0);
        }
        tape_extension(t, 'x', b.data, b.len);
        assert_int_equal(list(t, &got), -EBADMSG);
        assert_ptr_equal(strstr(got.data, "tar header at offset 0: pax record \"SCHILY.xattr.user.4096\" at its byte "),
                         got.data);
        assert_non_null(strstr(got.data, "more than 4096 extended attributes"));
}

static void devices_may_have_their_numbers_in_records(void **state)
{
        struct tape *t = *state;

        PAX(t, "SCHILY.devmajor", "4095", "SCHILY.devminor", "1048575");
        MEMBER(t, .name = "d", .type = '4');
        PAX(t, "SCHILY.devmajor", "4096");
        MEMBER(t, .name = "no device");
        PAX(t, "SCHILY.devmajor", "4096");
        MEMBER(t, .name = "d", .type = '3');
        expect_refusal(t, "d 060644 0:0 0 0 4095:1048575\n"
                          "no\\20device 100644 0:0 0 0 @3072\n"
                          "tar entry \"d\" at offset 4096: its major 4096 is out of range");
}

static void extension_headers_are_bounded(void **state)
{
        _cleanup_buf_ struct buf b = { 0 };
        struct tape *t = *state;

        /* A record of 1 MiB less the block of its header: the most there is room for. */
        assert_int_equal(buf_reserve(&b, MIB), 0);
        memset(b.data, 'x', MIB);
        b.len = MIB - 512;
        memcpy(b.data, "1048064 comment=", 16);
        b.data[b.len - 1] = '\n';
        tape_extension(t, 'x', b.data, b.len);
        MEMBER(t, .name = "a");
        expect(t, "a 100644 0:0 0 0 @1049088\n");
        t->bytes.len = 0;
        tape_extension(t, 'x', b.data, b.len);
        tape_extension(t, 'L', "", 0);
        expect_refusal(t, "tar header at offset 1048576: more than 1 MiB of extension headers");
        t->bytes.len = 0;
        MEMBER(t, .name = "x", .type = 'x', .size = (uint64_t) 1 << 32);
        expect_refusal(t, "tar header at offset 0: more than 1 MiB of extension headers");
        t->bytes.len = 0;
        for (int i = 0; i < 2049; i++)
                tape_extension(t, 'L', "", 0);
        expect_refusal(t, "tar header at offset 1048576: more than 1 MiB of extension headers");
}

static void global_records_are_defaults(void **state)
{
        struct tape *t = *state;

        GLOBAL(t, "uid", "7", "mtime", "5.5", "SCHILY.xattr.user.b", "global", "SCHILY.xattr.user.d", "d", "comment",
               "x");
        MEMBER(t, .name = "a", .uid = 1, .gid = 2);
        PAX(t, "uid", "8", "SCHILY.xattr.user.b", "local", "SCHILY.xattr.user.a", "", "SCHILY.xattr.user.c", "c");
        MEMBER(t, .name = "b");
        GLOBAL(t, "uid", "9", "SCHILY.xattr.user.b", "", "path", "all", "linkpath", "over");
        MEMBER(t, .name = "c", .type = '2');
        GLOBAL(t, "path", "");
        PAX(t, "linkpath", "own");
        MEMBER(t, .name = "d", .type = '2');
        expect(t, "a 100644 7:2 0 5.500000000 @1536 user.b=global user.d=d\n"
                  "b 100644 8:0 0 5.500000000 @3072 user.b=local user.c=c user.d=d\n"
                  "all 120644 9:0 0 5.500000000 -> over user.d=d\n"
                  "d 120644 9:0 0 5.500000000 -> own user.d=d\n");
}

static void global_header_between_local_ones_keeps_them(void **state)
{
        struct tape *t = *state;

        PAX(t, "path", "local");
        GLOBAL(t, "uid", "7");
        tape_extension(t, 'K', "target", 6);
        MEMBER(t, .name = "a", .type = '2');
        expect(t, "local 120644 7:0 0 0 -> target\n");
}

static void global_records_are_bounded(void **state)
{
        _cleanup_buf_ struct buf value = { 0 }, b = { 0 };
        struct tape *t = *state;

        assert_int_equal(buf_reserve(&value, 40 * KIB), 0);
        memset(value.data, 'x', 40 * KIB);
        put_record(&b, "SCHILY.xattr.user.a", value.data, 40 * KIB);
        tape_extension(t, 'g', b.data, b.len);
        tape_extension(t, 'g', b.data, b.len);
        b.len = 0;
        put_record(&b, "SCHILY.xattr.user.b", value.data, 40 * KIB);
        tape_extension(t, 'g', b.data, b.len);
        expect_refusal(t, "tar header at offset 83968: global headers that hold 81934 bytes");
}

static void gnu_sparse_0_0_has_pairs_of_records(void **state)
{
        struct tape *t = *state;

        PAX(t, "GNU.sparse.size", "5000", "GNU.sparse.numblocks", "2", "GNU.sparse.offset", "10", "GNU.sparse.numbytes",
            "3", "GNU.sparse.offset", "4999", "GNU.sparse.numbytes", "1");
        MEMBER(t, .name = "s", .size = 4);
        tape_text(t, "abcd");
        PAX(t, "GNU.sparse.size", "5000", "GNU.sparse.numblocks", "0");
        MEMBER(t, .name = "hole");
        MEMBER(t, .name = "a");
        expect(t, "s 100644 0:0 5000 0 sparse 10+3@1536 4999+1@1539\n"
                  "hole 100644 0:0 5000 0 sparse\n"
                  "a 100644 0:0 0 0 @4096\n");
}

static void gnu_sparse_0_1_has_a_map_record(void **state)
{
        struct tape *t = *state;

        PAX(t, "path", "./GNUSparseFile.1/s", "GNU.sparse.name", "dir/s", "GNU.sparse.size", "5000",
            "GNU.sparse.numblocks", "3", "GNU.sparse.map", "10,3,4999,1,5000,0");
        MEMBER(t, .name = "s", .size = 4);
        tape_text(t, "abcd");
        PAX(t, "GNU.sparse.size", "5000", "GNU.sparse.major", "0", "GNU.sparse.minor", "1", "GNU.sparse.map", "0,1");
        MEMBER(t, .name = "t", .type = '5');
        MEMBER(t, .name = "a");
        expect(t, "dir/s 100644 0:0 5000 0 sparse 10+3@1536 4999+1@1539\n"
                  "t 040644 0:0 0 0\n"
                  "a 100644 0:0 0 0 @4096\n");
}

#define SPARSE_1_0 \
        "GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.name", "s", "GNU.sparse.realsize", "5000"

static void gnu_sparse_1_0_has_its_map_before_the_data(void **state)
{
        _cleanup_buf_ struct buf want = { 0 }, map = { 0 };
        struct tape *t = *state;

        PAX(t, SPARSE_1_0);
        MEMBER(t, .name = "x", .size = 512 + 4);
        tape_text(t, "2\n10\n3\n4999\n1\nthe rest is not looked at");
        tape_text(t, "abcd");
        PAX(t, SPARSE_1_0);
        MEMBER(t, .name = "x", .size = 512);
        tape_text(t, "0\n");
        buf_printf(&map, "100\n");
        buf_printf(&want, "s 100644 0:0 5000 0 sparse 10+3@2048 4999+1@2051\n"
                          "s 100644 0:0 5000 0 sparse\n"
                          "s 100644 0:0 5000 0 sparse");
        for (int i = 0; i < 100; i++) {
                buf_printf(&map, "%d\n1\n", i * 10);
                buf_printf(&want, " %d+1@%d", i * 10, 7168 + i);
        }
        assert_true(map.len > 512 && map.len < 1024);
        PAX(t, SPARSE_1_0);
        MEMBER(t, .name = "x", .size = 1024 + 100);
        tape_data(t, map.data, map.len);
        tape_fill(t, 100);
        MEMBER(t, .name = "a");
        buf_printf(&want, "\na 100644 0:0 0 0 @8192\n");
        expect(t, want.data);
}

static void bad_gnu_sparse_1_0_is_refused(void **state)
{
        static const struct {
                const char *map;
                uint64_t size;
        } maps[] = {
                { "", 0 },
                { "1\n0\n5", 5 },
                { "1\n0\n4\n", 6 },
                { "1\n0\n4\n", 512 + 5 },
                { "1\n0\n4\n", 512 + 3 },
                { "1\n4998\n4\n", 512 + 4 },
                { "2\n5\n4\n0\n1\n", 512 + 5 },
                { "\n0\n4\n", 512 + 4 },
                { "-1\n", 512 },
                { "1\n 0\n4\n", 512 + 4 },
                { "4611686018427387904\n", 512 },
                { "9223372036854775808\n", 512 },
                { "1\n9223372036854775807\n1\n", 512 + 1 },
                { "1,0,4\n", 512 + 4 },
        };
        struct tape *t = *state;

        for (size_t i = 0; i < ELEMENTSOF(maps); i++) {
                t->bytes.len = 0;
                PAX(t, SPARSE_1_0);
                MEMBER(t, .name = "x", .size = maps[i].size);
                tape_text(t, maps[i].map);
                tape_fill(t, 512);
                tape_fill(t, 512);
                expect_refusal(t, "tar entry \"s\" at offset 1024: its ");
        }
}

static void sparse_maps_are_bounded(void **state)
{
        struct tape *t = *state;

        PAX(t, SPARSE_1_0);
        MEMBER(t, .name = "x", .size = 2 * MIB);
        tape_text(t, "1000000\n");
        t->bytes.len = 2048 - 504;
        while (t->bytes.len < 2 * MIB)
                assert_int_equal(buf_append(&t->bytes, "0\n0\n", 4), 0);
        expect_refusal(t, "tar entry \"s\" at offset 1024: more than 1 MiB of extension headers");
}

static void sparse_records_that_disagree_are_refused(void **state)
{
        struct tape *t = *state;

        PAX(t, "GNU.sparse.size", "50", "GNU.sparse.numblocks", "2", "GNU.sparse.map", "0,4");
        MEMBER(t, .name = "s", .size = 4);
        expect_refusal(t, "tar entry \"s\" at offset 1024: its sparse map does not have as many pairs as it claims");
        t->bytes.len = 0;
        PAX(t, "GNU.sparse.major", "2", "GNU.sparse.minor", "0", "GNU.sparse.size", "50");
        MEMBER(t, .name = "s", .size = 4);
        expect_refusal(t, "tar entry \"s\" at offset 1024: GNU.sparse version 2.0, which is unknown");
        t->bytes.len = 0;
        PAX(t, "GNU.sparse.major", "1");
        MEMBER(t, .name = "s", .size = 4);
        expect_refusal(t, "tar entry \"s\" at offset 1024: half a GNU.sparse version");
        t->bytes.len = 0;
        PAX(t, "GNU.sparse.map", "0,4");
        MEMBER(t, .name = "s", .size = 4);
        expect_refusal(t, "tar entry \"s\" at offset 1024: a sparse entry without the size of its file");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(records_take_the_place_of_fields),
                TEST(later_record_and_later_header_win),
                TEST(empty_value_takes_a_key_back),
                TEST(times_have_nanoseconds_and_signs),
                TEST(values_that_cannot_be_are_refused),
                TEST(malformed_records_are_refused),
                TEST(xattrs_come_in_both_spellings),
                TEST(last_xattr_of_a_name_counts),
                TEST(too_many_xattrs_are_refused),
                TEST(devices_may_have_their_numbers_in_records),
                TEST(extension_headers_are_bounded),
                TEST(global_records_are_defaults),
                TEST(global_header_between_local_ones_keeps_them),
                TEST(global_records_are_bounded),
                TEST(gnu_sparse_0_0_has_pairs_of_records),
                TEST(gnu_sparse_0_1_has_a_map_record),
                TEST(gnu_sparse_1_0_has_its_map_before_the_data),
                TEST(bad_gnu_sparse_1_0_is_refused),
                TEST(sparse_maps_are_bounded),
                TEST(sparse_records_that_disagree_are_refused),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
