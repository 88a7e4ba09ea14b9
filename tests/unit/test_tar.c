/* SPDX-License-Identifier: Apache-2.0 */

#include <sys/mman.h>

#include "tar_tape.h"

/* ---- headers ---- */

static void reads_every_type_of_ustar(void **state)
{
        struct tape *t = *state;

        MEMBER(t, .name = "dir/", .type = '5', .mode = 01755, .uid = 1, .gid = 2, .mtime = 1700000000);
        MEMBER(t, .name = "dir/file", .mode = 04755, .size = 600, .mtime = 5);
        tape_fill(t, 600);
        MEMBER(t, .name = "dir/empty", .type = '7');
        MEMBER(t, .name = "dir/hard", .type = '1', .link = "dir/file", .mode = 04755);
        MEMBER(t, .name = "dir/soft", .type = '2', .link = "../x y", .mode = 0777);
        MEMBER(t, .name = "tty", .type = '3', .major = 5, .minor = 1, .mode = 0600);
        MEMBER(t, .name = "disk", .type = '4', .major = 8, .minor = 17, .mode = 0660, .gid = 6);
        MEMBER(t, .name = "fifo", .type = '6');
        tape_end(t);
        expect(t, "dir/ 041755 1:2 0 1700000000\n"
                  "dir/file 104755 0:0 600 5 @1024\n"
                  "dir/empty 100644 0:0 0 0 @2560\n"
                  "dir/hard 104755 0:0 0 0 = dir/file\n"
                  "dir/soft 120777 0:0 0 0 -> ../x\\20y\n"
                  "tty 020600 0:0 0 0 5:1\n"
                  "disk 060660 0:6 0 0 8:17\n"
                  "fifo 010644 0:0 0 0\n");
}

static void unknown_types_are_regular_files(void **state)
{
        struct tape *t = *state;

        MEMBER(t, .name = "old", .type = 'N', .format = GNU, .size = 3);
        tape_text(t, "abc");
        MEMBER(t, .name = "vendor", .type = 'Z', .size = 3);
        tape_text(t, "abc");
        expect(t, "old 100644 0:0 3 0 @512\n"
                  "vendor 100644 0:0 3 0 @1536\n");
}

static void volume_labels_and_solaris_acls_are_no_entries(void **state)
{
        struct tape *t = *state;

        MEMBER(t, .name = "label", .type = 'V', .format = GNU);
        MEMBER(t, .name = "acl", .type = 'A', .size = 5);
        tape_text(t, "12345");
        MEMBER(t, .name = "a");
        expect(t, "a 100644 0:0 0 0 @2048\n");
}

static void refuses_the_rest_of_another_volume(void **state)
{
        struct tape *t = *state;

        MEMBER(t, .name = "a", .type = 'M', .format = GNU, .size = 10);
        tape_fill(t, 10);
        expect_refusal(t, "tar header at offset 0: the rest of a file");
}

static void body_of_a_gnu_directory_is_passed_over(void **state)
{
        struct tape *t = *state;

        MEMBER(t, .name = "d/", .type = 'D', .format = GNU, .mode = 0755, .size = 6);
        tape_data(t, "Yfile\0", 6);
        MEMBER(t, .name = "d/file", .format = GNU);
        expect(t, "d/ 040755 0:0 0 0\n"
                  "d/file 100644 0:0 0 0 @1536\n");
}

static void sizes_of_types_without_data_are_ignored(void **state)
{
        struct tape *t = *state;

        MEMBER(t, .name = "d/", .type = '5', .size = 4096);
        MEMBER(t, .name = "l", .type = '2', .link = "x", .size = 1000);
        MEMBER(t, .name = "c", .type = '3', .size = 1);
        tape_patch(t, 124, "garbage", 7);
        MEMBER(t, .name = "a");
        expect(t, "d/ 040644 0:0 0 0\n"
                  "l 120644 0:0 0 0 -> x\n"
                  "c 020644 0:0 0 0 0:0\n"
                  "a 100644 0:0 0 0 @2048\n");
}

static void slash_at_the_end_makes_a_directory_before_ustar(void **state)
{
        struct tape *t = *state;

        MEMBER(t, .name = "v7/", .format = V7);
        MEMBER(t, .name = "nul/", .format = GNU);
        tape_patch(t, 156, "\0", 1);
        MEMBER(t, .name = "posix/");
        MEMBER(t, .name = "v7", .format = V7);
        tape_patch(t, 156, "\0", 1);
        expect(t, "v7/ 040644 0:0 0 0\n"
                  "nul/ 040644 0:0 0 0\n"
                  "posix/ 100644 0:0 0 0 @1536\n"
                  "v7 100644 0:0 0 0 @2048\n");
}

static void names_fill_their_fields(void **state)
{
        struct tape *t = *state;
        char name[101], prefix[156], want[600];

        memset(name, 'n', 100);
        memset(prefix, 'p', 155);
        name[100] = prefix[155] = '\0';
        MEMBER(t, .name = name, .prefix = prefix, .type = '2', .link = name);
        MEMBER(t, .name = name, .format = GNU);
        MEMBER(t, .name = "n", .prefix = "a/b");
        snprintf(want, sizeof(want),
                 "%s/%s 120644 0:0 0 0 -> %s\n%s 100644 0:0 0 0 @1024\na/b/n 100644 0:0 0 0 @1536\n", prefix, name,
                 name, name);
        expect(t, want);
}

static void star_has_a_shorter_prefix(void **state)
{
        struct tape *t = *state;

        MEMBER(t, .name = "n", .prefix = "a", .format = STAR);
        tape_patch(t, 345 + 131, "14524000000 14524000000 ", 24);
        expect(t, "a/n 100644 0:0 0 0 @512\n");
}

static void times_of_gnu_headers_are_no_prefix(void **state)
{
        struct tape *t = *state;

        MEMBER(t, .name = "n", .format = GNU);
        tape_patch(t, 345, "14524000000 14524000000 ", 24);
        MEMBER(t, .name = "n", .format = GNU, .prefix = "go/before/1.8");
        expect(t, "n 100644 0:0 0 0 @512\n"
                  "go/before/1.8/n 100644 0:0 0 0 @1024\n");
}

static void odd_names_are_kept(void **state)
{
        struct tape *t = *state;

        MEMBER(t, .name = "a\nb\x1b[31m");
        MEMBER(t, .name = "/abs/../\xff");
        expect(t, "a\\0ab\\1b[31m 100644 0:0 0 0 @512\n"
                  "/abs/../\\ff 100644 0:0 0 0 @1024\n");
}

static void octal_fields_may_have_spaces_and_nuls(void **state)
{
        struct tape *t = *state;

        MEMBER(t, .name = "a");
        tape_patch(t, 100, "   755 \0", 8);
        tape_patch(t, 108, "12345670", 8);
        tape_patch(t, 116, "\0\0 17 \0\0", 8);
        tape_patch(t, 124, "            ", 12);
        tape_patch(t, 136, "777777777777", 12);
        expect(t, "a 100755 2739128:15 0 68719476735 @512\n");
}

static void fields_that_are_no_numbers_are_refused(void **state)
{
        static const struct {
                size_t at;
                const char *bytes;
        } fields[] = {
                { 100, "0000648" }, { 108, "0 1    " }, { 116, "-1     " }, { 124, "0000000000x" }, { 136, "1.5" }
        };
        struct tape *t = *state;

        for (size_t i = 0; i < ELEMENTSOF(fields); i++) {
                t->bytes.len = 0;
                MEMBER(t, .name = "bad");
                tape_patch(t, fields[i].at, fields[i].bytes, strlen(fields[i].bytes));
                expect_refusal(t, "tar entry \"bad\" at offset 0: its ");
        }
}

static void base256_numbers_hold_what_octal_cannot(void **state)
{
        struct tape *t = *state;

        MEMBER(t, .name = "a");
        tape_patch(t, 108, "\x80\0\0\0\xff\xff\xff\xfe", 8);
        tape_patch(t, 136, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe", 12);
        MEMBER(t, .name = "b");
        tape_patch(t, 136, "\xff\xff\xff\xff\x80\0\0\0\0\0\0\0", 12);
        MEMBER(t, .name = "c");
        tape_patch(t, 136, "\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", 12);
        expect(t, "a 100644 4294967294:0 0 -2 @512\n"
                  "b 100644 0:0 0 -9223372036854775808 @1024\n"
                  "c 100644 0:0 0 9223372036854775807 @1536\n");
}

static void numbers_out_of_range_are_refused(void **state)
{
        static const struct {
                size_t at, n;
                const char *bytes;
                const char *message;
        } fields[] = {
                { 108, 8, "\x80\0\0\1\0\0\0\0", "its uid 4294967296 is out of range" },
                { 108, 8, "\xff\xff\xff\xff\xff\xff\xff\xff", "its uid -1 is out of range" },
                { 116, 8, "\x80\0\0\1\0\0\0\0", "its gid 4294967296 is out of range" },
                { 124, 12, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "its size -1 is out of range" },
                { 124, 12, "\x80\0\0\0\x80\0\0\0\0\0\0\0", "its size is not a number" },
                { 136, 12, "\x80\0\0\0\x80\0\0\0\0\0\0\0", "its mtime is not a number, or out of range" },
                { 136, 12, "\xff\xff\xff\xff\x7f\xff\xff\xff\xff\xff\xff\xff",
                  "its mtime is not a number, or out of range" },
                { 329, 8, "\x80\0\0\0\0\0\x10\0", "its major 4096 is out of range" },
                { 337, 8, "\x80\0\0\0\0\x10\0\0", "its minor 1048576 is out of range" },
        };
        struct tape *t = *state;
        char want[200];

        for (size_t i = 0; i < ELEMENTSOF(fields); i++) {
                t->bytes.len = 0;
                MEMBER(t, .name = "bad", .type = fields[i].at > 300 ? '4' : '0');
                tape_patch(t, fields[i].at, fields[i].bytes, fields[i].n);
                snprintf(want, sizeof(want), "tar entry \"bad\" at offset 0: %s", fields[i].message);
                expect_refusal(t, want);
        }
}

static void checksum_may_be_of_signed_bytes(void **state)
{
        struct tape *t = *state;
        unsigned sum = 0;
        char field[16];

        MEMBER(t, .name = "\xe9t\xe9");
        memset(t->bytes.data + 148, ' ', 8);
        for (size_t i = 0; i < 512; i++)
                sum += (unsigned) (signed char) t->bytes.data[i];
        snprintf(field, sizeof(field), "%06o", sum);
        memcpy(t->bytes.data + 148, field, 7);
        expect(t, "\\e9t\\e9 100644 0:0 0 0 @512\n");
}

static void wrong_checksum_is_refused(void **state)
{
        struct tape *t = *state;

        MEMBER(t, .name = "a");
        MEMBER(t, .name = "b");
        t->bytes.data[512 + 300] ^= 1;
        expect_refusal(t, "a 100644 0:0 0 0 @512\n"
                          "tar header at offset 512: no tar header, or its checksum is wrong");
        memcpy(t->bytes.data + 512 + 148, "       ", 8);
        expect_refusal(t, "a 100644 0:0 0 0 @512\n"
                          "tar header at offset 512: ");
}

static void links_without_a_target_are_refused(void **state)
{
        struct tape *t = *state;

        MEMBER(t, .name = "l", .type = '2');
        expect_refusal(t, "tar entry \"l\" at offset 0: a link without a target");
        t->bytes.len = 0;
        MEMBER(t, .name = "h", .type = '1');
        expect_refusal(t, "tar entry \"h\" at offset 0: a link without a target");
}

/* ---- bodies and ends ---- */

static void hardlink_with_a_size_may_have_a_body_or_not(void **state)
{
        struct tape *t = *state;

        MEMBER(t, .name = "none", .type = '1', .link = "x", .size = 1000);
        MEMBER(t, .name = "body", .type = '1', .link = "x", .size = 1000);
        tape_fill(t, 1000);
        MEMBER(t, .name = "short", .type = '1', .link = "x", .size = 10);
        tape_fill(t, 10);
        MEMBER(t, .name = "block", .type = '1', .link = "x", .size = 512);
        tape_fill(t, 512);
        MEMBER(t, .name = "last", .type = '1', .link = "x", .size = 1000);
        tape_end(t);
        expect(t, "none 100644 0:0 0 0 = x\n"
                  "body 100644 0:0 0 0 = x\n"
                  "short 100644 0:0 0 0 = x\n"
                  "block 100644 0:0 0 0 = x\n"
                  "last 100644 0:0 0 0 = x\n");
        t->bytes.len -= 1024;
        expect(t, "none 100644 0:0 0 0 = x\n"
                  "body 100644 0:0 0 0 = x\n"
                  "short 100644 0:0 0 0 = x\n"
                  "block 100644 0:0 0 0 = x\n"
                  "last 100644 0:0 0 0 = x\n");
}

static void zero_block_ends_the_archive(void **state)
{
        struct tape *t = *state;

        MEMBER(t, .name = "a");
        tape_zeros(t, 512);
        MEMBER(t, .name = "b");
        tape_data(t, "garbage", 7);
        t->bytes.len -= 100;
        expect(t, "a 100644 0:0 0 0 @512\n");
}

static void may_end_between_entries(void **state)
{
        struct tape *t = *state;

        expect(t, "");
        MEMBER(t, .name = "a", .size = 10);
        tape_fill(t, 10);
        expect(t, "a 100644 0:0 10 0 @512\n");
        t->bytes.len = 512 + 10;
        expect(t, "a 100644 0:0 10 0 @512\n");
        tape_pad(t);
        tape_zeros(t, 512);
        expect(t, "a 100644 0:0 10 0 @512\n");
}

static void ends_elsewhere_are_refused(void **state)
{
        struct tape *t = *state;

        MEMBER(t, .name = "a", .size = 10);
        tape_fill(t, 10);
        t->bytes.len = 512 + 9;
        expect_refusal(t, "a 100644 0:0 10 0 @512\n"
                          "tar entry \"a\" at offset 0: the stream ends 1 bytes before its data does");
        t->bytes.len = 511;
        expect_refusal(t, "tar header at offset 0: the stream ends within it");
        t->bytes.len = 0;
        PAX(t, "path", "x");
        expect_refusal(t, "tar header at offset 0: the stream ends behind the extension headers");
        tape_end(t);
        expect_refusal(t, "tar header at offset 0: the archive ends behind the extension headers");
        t->bytes.len = 512 + 3;
        expect_refusal(t, "tar header at offset 0: the stream ends within its body");
}

static int count_entries(void *context, _unused_ const struct layer_entry *entry, _unused_ struct error *e)
{
        ++*(int *) context;
        return 0;
}

static void file_data_is_never_looked_at(void **state)
{
        _cleanup_(tar_scanner_free_ptr) struct tar_scanner *scanner = NULL;
        struct tape *t = *state;
        struct error e = ERROR_INIT;
        const size_t piece = 64 * MIB;
        int count = 0;
        void *nothing = mmap(NULL, piece, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

        assert_true(nothing != MAP_FAILED);
        MEMBER(t, .name = "huge");
        tape_patch(t, 124, "\x80\0\0\0\0\0\0\x80\0\0\0\1", 12);
        assert_int_equal(tar_scanner_new(count_entries, &count, &scanner), 0);
        assert_int_equal(tar_scanner_feed(scanner, (const uint8_t *) t->bytes.data, 512, &e), 0);
        for (uint64_t at = 0; at < (uint64_t) 1 << 39; at += piece)
                assert_int_equal(tar_scanner_feed(scanner, nothing, piece, &e), 0);
        assert_int_equal(tar_scanner_finish(scanner, &e), -EBADMSG);
        assert_non_null(strstr(e.message, "\"huge\" at offset 0: the stream ends 1 bytes before its data does"));
        assert_int_equal(tar_scanner_feed(scanner, nothing, 512, &e), 0);
        assert_int_equal(tar_scanner_finish(scanner, &e), 0);
        assert_int_equal(count, 1);
        munmap(nothing, piece);
}

static int refuse_second(void *context, const struct layer_entry *entry, struct error *e)
{
        if (++*(int *) context < 2)
                return 0;
        return error_set(e, ERROR_OTHER, ENOSPC, "no room for %s", entry->path);
}

static void refusal_of_the_callback_ends_the_scan(void **state)
{
        _cleanup_(tar_scanner_free_ptr) struct tar_scanner *scanner = NULL;
        struct tape *t = *state;
        struct error e = ERROR_INIT;
        int count = 0;

        for (int i = 0; i < 4; i++)
                MEMBER(t, .name = "a");
        assert_int_equal(tar_scanner_new(refuse_second, &count, &scanner), 0);
        assert_int_equal(tar_scanner_feed(scanner, (const uint8_t *) t->bytes.data, t->bytes.len, &e), -ENOSPC);
        assert_string_equal(e.message, "no room for a");
        assert_int_equal(tar_scanner_feed(scanner, (const uint8_t *) t->bytes.data, t->bytes.len, &e), -ENOSPC);
        assert_int_equal(tar_scanner_finish(scanner, &e), -ENOSPC);
        assert_int_equal(count, 2);
        assert_null(tar_scanner_free(NULL));
}

static void messages_have_no_control_characters(void **state)
{
        _cleanup_buf_ struct buf got = { 0 };
        struct tape *t = *state;

        MEMBER(t, .name = "a\x1b[2J\n", .size = 1);
        assert_int_equal(list(t, &got), -EBADMSG);
        assert_non_null(strstr(got.data, "\ntar entry \"a"));
        for (const char *p = strchr(got.data, '\n') + 1; p[1]; p++)
                assert_true((uint8_t) *p >= ' ');
}

/* ---- GNU ---- */

static void gnu_long_names_take_the_place_of_fields(void **state)
{
        struct tape *t = *state;
        char name[701], want[2000];

        memset(name, 'x', 700);
        name[700] = '\0';
        tape_extension(t, 'K', name, 701);
        tape_extension(t, 'L', name, 700);
        MEMBER(t, .name = "cut", .type = '2', .link = "cut", .format = GNU);
        tape_extension(t, 'L', "cut\0off", 7);
        MEMBER(t, .name = "next", .type = '2', .link = "own", .format = GNU);
        tape_extension(t, 'L', "", 0);
        MEMBER(t, .name = "kept", .format = GNU);
        snprintf(want, sizeof(want), "%s 120644 0:0 0 0 -> %s\ncut 120644 0:0 0 0 -> own\nkept 100644 0:0 0 0 @6144\n",
                 name, name);
        expect(t, want);
}

static void put_sparse(struct tape *t, size_t at, int pair, uint64_t offset, uint64_t length)
{
        tape_octal(t, at + (size_t) pair * 24, 11, offset);
        tape_octal(t, at + (size_t) pair * 24 + 12, 11, length);
        tape_seal(t);
}

static void old_gnu_sparse_map_is_in_the_header(void **state)
{
        struct tape *t = *state;

        MEMBER(t, .name = "s", .type = 'S', .format = GNU, .size = 1000);
        put_sparse(t, 386, 0, 4096, 512);
        put_sparse(t, 386, 1, 8192, 488);
        put_sparse(t, 386, 2, 100000, 0);
        tape_octal(t, 483, 11, 100000);
        tape_seal(t);
        tape_fill(t, 1000);
        MEMBER(t, .name = "hole", .type = 'S', .format = GNU);
        tape_octal(t, 483, 11, 1 << 20);
        tape_seal(t);
        MEMBER(t, .name = "a");
        expect(t, "s 100644 0:0 100000 0 sparse 4096+512@512 8192+488@1024\n"
                  "hole 100644 0:0 1048576 0 sparse\n"
                  "a 100644 0:0 0 0 @2560\n");
}

static void old_gnu_sparse_map_goes_on_in_blocks(void **state)
{
        _cleanup_buf_ struct buf want = { 0 };
        struct tape *t = *state;
        size_t block;

        MEMBER(t, .name = "s", .type = 'S', .format = GNU, .size = 4 + 21 + 1);
        for (int i = 0; i < 4; i++)
                put_sparse(t, 386, i, (uint64_t) i * 10, 1);
        tape_patch(t, 482, "\1", 1);
        tape_octal(t, 483, 11, 1000);
        tape_seal(t);
        for (int b = 0; b < 2; b++) {
                block = t->bytes.len - t->header;
                tape_zeros(t, 512);
                for (int i = 0; i < (b ? 1 : 21); i++)
                        put_sparse(t, block, i, (uint64_t) (4 + 21 * b + i) * 10, 1);
                t->bytes.data[t->header + block + 504] = b == 0;
        }
        tape_fill(t, 26);
        MEMBER(t, .name = "a");
        buf_printf(&want, "s 100644 0:0 1000 0 sparse");
        for (int i = 0; i < 26; i++)
                buf_printf(&want, " %d+1@%d", i * 10, 1536 + i);
        buf_printf(&want, "\na 100644 0:0 0 0 @2560\n");
        expect(t, want.data);
}

static void sparse_maps_that_cannot_be_are_refused(void **state)
{
        static const struct {
                uint64_t first, first_length, second, second_length, size, real_size;
                const char *message;
        } maps[] = {
                { 10, 5, 14, 5, 10, 100, "out of order at file offset 14" },
                { 50, 5, 10, 5, 10, 100, "out of order at file offset 10" },
                { 10, 5, 90, 11, 16, 100, "ends at 101, past the file's 100 bytes" },
                { 10, 5, 20, 5, 11, 100, "wants 10 bytes of data and 11 are stored" },
                { 10, 5, 20, 5, 9, 100, "wants 10 bytes of data and 9 are stored" },
        };
        struct tape *t = *state;

        for (size_t i = 0; i < ELEMENTSOF(maps); i++) {
                _cleanup_buf_ struct buf got = { 0 };

                t->bytes.len = 0;
                MEMBER(t, .name = "s", .type = 'S', .format = GNU, .size = maps[i].size);
                put_sparse(t, 386, 0, maps[i].first, maps[i].first_length);
                put_sparse(t, 386, 1, maps[i].second, maps[i].second_length);
                tape_octal(t, 483, 11, maps[i].real_size);
                tape_seal(t);
                tape_fill(t, maps[i].size);
                assert_int_equal(list(t, &got), -EBADMSG);
                assert_non_null(strstr(got.data, "tar entry \"s\" at offset 0: its sparse map"));
                assert_non_null(strstr(got.data, maps[i].message));
        }
        t->bytes.len = 0;
        MEMBER(t, .name = "s", .type = 'S');
        expect_refusal(t, "tar entry \"s\" at offset 0: a sparse entry that is not in GNU format");
        t->bytes.len = 0;
        MEMBER(t, .name = "s", .type = 'S', .format = GNU);
        tape_patch(t, 482, "\1", 1);
        tape_zeros(t, 511);
        expect_refusal(t, "tar entry \"s\" at offset 0: the stream ends within its sparse map");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(reads_every_type_of_ustar),
                TEST(unknown_types_are_regular_files),
                TEST(volume_labels_and_solaris_acls_are_no_entries),
                TEST(refuses_the_rest_of_another_volume),
                TEST(body_of_a_gnu_directory_is_passed_over),
                TEST(sizes_of_types_without_data_are_ignored),
                TEST(slash_at_the_end_makes_a_directory_before_ustar),
                TEST(names_fill_their_fields),
                TEST(star_has_a_shorter_prefix),
                TEST(times_of_gnu_headers_are_no_prefix),
                TEST(odd_names_are_kept),
                TEST(octal_fields_may_have_spaces_and_nuls),
                TEST(fields_that_are_no_numbers_are_refused),
                TEST(base256_numbers_hold_what_octal_cannot),
                TEST(numbers_out_of_range_are_refused),
                TEST(checksum_may_be_of_signed_bytes),
                TEST(wrong_checksum_is_refused),
                TEST(links_without_a_target_are_refused),
                TEST(hardlink_with_a_size_may_have_a_body_or_not),
                TEST(zero_block_ends_the_archive),
                TEST(may_end_between_entries),
                TEST(ends_elsewhere_are_refused),
                TEST(file_data_is_never_looked_at),
                TEST(refusal_of_the_callback_ends_the_scan),
                TEST(messages_have_no_control_characters),
                TEST(gnu_long_names_take_the_place_of_fields),
                TEST(old_gnu_sparse_map_is_in_the_header),
                TEST(old_gnu_sparse_map_goes_on_in_blocks),
                TEST(sparse_maps_that_cannot_be_are_refused),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
