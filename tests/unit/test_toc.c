/* SPDX-License-Identifier: Apache-2.0 */

#include <fcntl.h>

#include "toc_sample.h"

static const struct digest other_digest = { .algorithm = DIGEST_SHA256, .bytes = { 1, 2, 4 } };

static void expect_open(int fd, int expected, const char *cause)
{
        _cleanup_(toc_close_ptr) struct toc *t = NULL;
        struct error e = ERROR_INIT;

        assert_int_equal(toc_open(fd, &layer_digest, &t, &e), expected);
        assert_null(t);
        assert_int_equal(e.kind, expected == -EBADMSG ? ERROR_BAD_DATA : ERROR_OTHER);
        if (!strstr(e.message, cause))
                fail_msg("\"%s\" is not in \"%s\"", cause, e.message);
}

/* ---- TOC files ---- */

static void written_toc_is_read_back(void **state)
{
        _cleanup_(toc_close_ptr) struct toc *toc = NULL;
        _cleanup_close_ int fd = sample_file();
        struct itable t = sample_itable();
        _cleanup_free_ char *expected = itable_text(&t), *text = NULL;
        struct error e = ERROR_INIT;

        (void) state;
        assert_int_equal(toc_open(fd, &layer_digest, &toc, &e), 0);
        text = itable_text(&toc->itable);
        assert_string_equal(text, expected);
        assert_string_equal(text, "/ 700\n"
                                  "a/ 755 implicit\n"
                                  "a/file 644 #1 x2\n"
                                  "a/link = a/file\n"
                                  "a/lower link b/elsewhere\n"
                                  "a/sym -> ../b\n"
                                  "b/ 755 implicit\n"
                                  "b/c/ 755 implicit opaque\n"
                                  "b/c/null c 1:3\n"
                                  "b/c/pipe p\n"
                                  "b/gone whiteout\n"
                                  "b/sparse 600 [0+100] [500+50]\n"
                                  "b/xattrs 755 #5 {user.a=1} {user.b=}\n"
                                  "ghost/ 755 implicit ghost\n"
                                  "ghost/gone whiteout\n");
        assert_int_equal(toc->compression, COMPRESSION_GZIP);
        assert_true(digest_equal(&toc->layer, &layer_digest));
        assert_int_equal(toc->chunks.chunk_count, 2);
        assert_memory_equal(toc->chunks.chunks, sample_chunks, sizeof(sample_chunks));
        assert_int_equal(toc->chunks.checkpoint_count, 1);
        assert_memory_equal(toc->chunks.checkpoints, &sample_checkpoint, sizeof(sample_checkpoint));
        assert_int_equal(toc->chunks.windows_size, 12);
        assert_memory_equal(toc->chunks.windows, "twelve bytes", 12);
        assert_int_equal(toc->chunks.content_size, 1000);
        assert_int_equal(toc->chunks.prefetch, 600);
        assert_int_equal(toc->chunks.blob_size, 1000);
        assert_int_equal(toc_check(toc, &e), 0);
        itable_exact_free(&t);
}

static void open_toc_outlives_its_file_descriptor(void **state)
{
        _cleanup_(toc_close_ptr) struct toc *toc = NULL;
        int fd = sample_file();

        (void) state;
        assert_int_equal(toc_open(fd, &layer_digest, &toc, NULL), 0);
        close(fd);
        assert_int_not_equal(itable_find(&toc->itable, 0, "a", 1), ITABLE_NONE);
        assert_null(toc_close(NULL));
}

static void equal_tocs_give_equal_files(void **state)
{
        _cleanup_close_ int a = sample_file(), b = new_file();
        struct itable t = sample_itable();
        size_t n, k = 0;
        _cleanup_free_ uint8_t *x = file_bytes(a, &n), *y = NULL;
        uint8_t junk[8192];

        (void) state;
        memset(junk, 0xaa, sizeof(junk));
        assert_int_equal(pwrite_full(b, junk, sizeof(junk), 0), 0);
        assert_int_equal(toc_write(b, &t, &sample_table, &layer_digest, COMPRESSION_GZIP, NULL), 0);
        y = file_bytes(b, &k);
        assert_int_equal(n, k);
        assert_memory_equal(x, y, n);
        itable_exact_free(&t);
}

static void sections_lie_at_multiples_of_eight(void **state)
{
        _cleanup_close_ int fd = sample_file();
        size_t n;
        _cleanup_free_ uint8_t *bytes = file_bytes(fd, &n);
        const struct itable_file_header *header = (void *) bytes;
        const struct itable_file_section *sections = (void *) (header + 1);

        (void) state;
        assert_memory_equal(bytes, "REGFSTOC\3\0\0\0", 12);
        assert_int_equal(header->file_length, n);
        assert_int_equal(header->section_count, 9);
        for (uint32_t i = 0; i < header->section_count; i++) {
                assert_int_equal(sections[i].kind, i < 3 ? SECTION_CHUNKS + i : i - 2);
                assert_int_equal(sections[i].offset % 8, 0);
        }
}

/* The rows of an embedded table are not in memory all at once. */
static void chunks_may_be_written_as_they_come(void **state)
{
        _cleanup_close_ int sample = sample_file(), fd = new_file();
        _cleanup_(toc_close_ptr) struct toc *toc = NULL;
        struct error e = ERROR_INIT;
        struct chunk_table rest;
        size_t n, m;
        _cleanup_free_ uint8_t *expected = file_bytes(sample, &n), *actual = NULL;

        (void) state;
        assert_int_equal(toc_open(sample, &layer_digest, &toc, &e), 0);
        assert_true(toc->chunks.chunk_count > 1);
        for (size_t k = 0; k < toc->chunks.chunk_count; k++)
                assert_int_equal(toc_write_chunks(fd, k, &toc->chunks.chunks[k], 1, &e), 0);
        assert_int_equal(pwrite_full(fd, "left over", 9, 2 * n), 0);
        rest = toc->chunks;
        rest.chunks = NULL;
        if (toc_write(fd, &toc->itable, &rest, &toc->layer, toc->compression, &e) < 0)
                fail_msg("%s", e.message);
        actual = file_bytes(fd, &m);
        assert_int_equal(n, m);
        assert_memory_equal(actual, expected, n);
}

static void smallest_toc_is_read_back(void **state)
{
        const struct chunk_table nothing = { 0 };
        _cleanup_(toc_close_ptr) struct toc *toc = NULL;
        _cleanup_close_ int fd = new_file();
        struct itable t = layer_table(NULL, 0);

        (void) state;
        assert_int_equal(toc_write(fd, &t, &nothing, &layer_digest, COMPRESSION_NONE, NULL), 0);
        assert_int_equal(toc_open(fd, &layer_digest, &toc, NULL), 0);
        assert_int_equal(toc->itable.inode_count, 1);
        assert_int_equal(toc->chunks.chunk_count, 0);
        assert_int_equal(toc_check(toc, NULL), 0);
        itable_exact_free(&t);
}

static void file_that_cannot_be_written_is_an_error(void **state)
{
        _cleanup_close_ int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        struct itable t = sample_itable();
        struct error e = ERROR_INIT;

        (void) state;
        assert_true(toc_write(fd, &t, &sample_table, &layer_digest, COMPRESSION_GZIP, &e) < 0);
        assert_non_null(strstr(e.message, "writing the TOC of sha256:0102"));
        itable_exact_free(&t);
}

static void toc_of_another_layer_is_refused(void **state)
{
        _cleanup_close_ int fd = sample_file();
        _cleanup_(toc_close_ptr) struct toc *t = NULL;
        struct error e = ERROR_INIT;

        (void) state;
        assert_int_equal(toc_open(fd, &other_digest, &t, &e), -EBADMSG);
        assert_non_null(strstr(e.message, "TOC of sha256:010204"));
        assert_non_null(strstr(e.message, "another's"));
}

static void every_flipped_bit_is_noticed(void **state)
{
        _cleanup_close_ int fd = sample_file();
        size_t n;
        _cleanup_free_ uint8_t *bytes = file_bytes(fd, &n);

        (void) state;
        for (size_t i = 0; i < n; i++) {
                _cleanup_(toc_close_ptr) struct toc *t = NULL;
                uint8_t flipped = bytes[i] ^ (uint8_t) (1 << i % 8);
                int r;

                assert_int_equal(pwrite_full(fd, &flipped, 1, i), 0);
                r = toc_open(fd, &layer_digest, &t, NULL);
                if (r != -EBADMSG && r != -ESTALE)
                        fail_msg("byte %zu: %d", i, r);
                assert_int_equal(pwrite_full(fd, &bytes[i], 1, i), 0);
        }
}

static void file_of_another_length_is_refused(void **state)
{
        _cleanup_close_ int fd = sample_file();
        size_t n = file_size(fd);

        (void) state;
        assert_int_equal(ftruncate(fd, (off_t) n + 8), 0);
        expect_open(fd, -EBADMSG, "cut or has grown");
        for (size_t i = n; i-- > 0;) {
                assert_int_equal(ftruncate(fd, (off_t) i), 0);
                expect_open(fd, -EBADMSG,
                            i < sizeof(struct itable_file_header) ? "the file is none" : "cut or has grown");
        }
}

static void what_is_no_file_is_refused(void **state)
{
        _cleanup_close_ int directory = open("/", O_RDONLY | O_CLOEXEC),
                            device = open("/dev/zero", O_RDONLY | O_CLOEXEC);

        (void) state;
        expect_open(directory, -EBADMSG, "the file is none");
        expect_open(device, -EBADMSG, "the file is none");
        expect_open(-1, -EBADF, "TOC");
}

/* Changes applied to a sample before its hash is set. */
struct change {
        size_t offset;
        uint32_t value;
        int expected;
        const char *cause;
};

#define IN_HEADER(field) offsetof(struct itable_file_header, field)
#define IN_SECTION(i, field)                                                            \
        (sizeof(struct itable_file_header) + (i) * sizeof(struct itable_file_section) + \
         offsetof(struct itable_file_section, field))

static void wrong_headers_and_sections_are_refused(void **state)
{
        static const struct change changes[] = {
                { IN_HEADER(magic), 0x64616572, -EBADMSG, "the file is none" },
                { IN_HEADER(version), TOC_VERSION + 1, -ESTALE, "another version" },
                { IN_HEADER(version), 0, -ESTALE, "another version" },
                { IN_HEADER(header_length), 128, -ESTALE, "other sections" },
                { IN_HEADER(section_count), 8, -ESTALE, "other sections" },
                { IN_HEADER(section_count), UINT32_MAX, -ESTALE, "other sections" },
                { IN_HEADER(identity.algorithm), 2, -EBADMSG, "another's" },
                { IN_HEADER(identity.digest[60]), 1, -EBADMSG, "another's" },
                { IN_HEADER(identity.compression), 3, -EBADMSG, "unknown compression" },
                { IN_SECTION(0, kind), 2, -ESTALE, "other sections" },
                { IN_SECTION(8, kind), 99, -ESTALE, "other sections" },
                { IN_SECTION(0, element_size), 72, -ESTALE, "other sections" },
                { IN_SECTION(0, element_size), 0, -ESTALE, "other sections" },
                { IN_SECTION(0, offset), 0, -EBADMSG, "out of bounds" },
                { IN_SECTION(1, offset) + 4, 1, -EBADMSG, "out of bounds" },
                { IN_SECTION(0, length), 63, -EBADMSG, "out of bounds" },
                { IN_SECTION(8, length) + 4, UINT32_MAX, -EBADMSG, "out of bounds" },
                { IN_SECTION(8, length), 99999, -EBADMSG, "out of bounds" },
                { IN_SECTION(8, length), 0, -EBADMSG, "behind the last section" },
                { IN_SECTION(4, length), 0, -EBADMSG, "out of bounds" },
        };
        _cleanup_close_ int sample = sample_file();
        size_t n;
        _cleanup_free_ uint8_t *bytes = file_bytes(sample, &n), *changed = malloc(n);

        (void) state;
        assert_non_null(changed);
        for (size_t i = 0; i < ELEMENTSOF(changes); i++) {
                _cleanup_close_ int fd = -1;

                memcpy(changed, bytes, n);
                memcpy(changed + changes[i].offset, &changes[i].value, 4);
                set_hash(changed, n);
                fd = file_of(changed, n);
                expect_open(fd, changes[i].expected, changes[i].cause);
        }
}

static void file_too_short_for_its_section_table_is_refused(void **state)
{
        _cleanup_close_ int sample = sample_file(), fd = -1;
        size_t n;
        _cleanup_free_ uint8_t *bytes = file_bytes(sample, &n);

        (void) state;
        n = 200;
        ((struct itable_file_header *) (void *) bytes)->file_length = n;
        set_hash(bytes, n);
        fd = file_of(bytes, n);
        expect_open(fd, -EBADMSG, "the file is cut");
}

static void table_without_a_root_is_refused(void **state)
{
        const struct itable empty = { 0 };
        _cleanup_close_ int fd = new_file();

        (void) state;
        assert_int_equal(toc_write(fd, &empty, &sample_table, &layer_digest, COMPRESSION_GZIP, NULL), 0);
        expect_open(fd, -EBADMSG, "it has no root");
}

/* ---- hostile files ---- */

static uint32_t next_random(uint64_t *state)
{
        *state = *state * 6364136223846793005u + 1442695040888963407u;
        return (uint32_t) (*state >> 33);
}

/* Reads whatever a table that passed its check can be asked for. */
static void use_table(const struct itable *t)
{
        _cleanup_(itable_builder_free_ptr) struct itable_builder *b = NULL;
        _cleanup_free_ char *text = itable_text(t);
        const struct itable *twice[] = { t, t };
        struct itable view, merged;
        const uint8_t *value;
        size_t length;

        assert_non_null(text);
        for (uint32_t i = 0; i < t->inode_count; i++) {
                itable_find(t, i, "link", 4);
                itable_xattr(t, &t->inodes[i], "user.b", &value, &length);
        }
        assert_int_equal(itable_builder_new(&b), 0);
        if (itable_builder_merge(b, twice, 2, NULL) == 0) {
                static const uint64_t sizes[] = { 1000, 1000 };

                itable_builder_view(b, &view);
                merged = itable_exact_copy(&view);
                assert_int_equal(itable_check(&merged, sizes, 2, NULL), 0);
                itable_exact_free(&merged);
        }
}

static bool use_toc(const struct toc *toc)
{
        struct itable t = itable_exact_copy(&toc->itable);
        bool sound = itable_check(&t, &toc->chunks.content_size, 1, NULL) == 0;

        if (sound)
                use_table(&t);
        itable_exact_free(&t);
        return sound && toc_check(toc, NULL) == 0;
}

static void mutated_files_are_refused_or_safe_to_read(void **state)
{
        static const uint32_t values[] = { 0,         1,   2,   3,          7,          8,
                                           64,        255, 256, 0x7fffffff, 0x80000000, UINT32_MAX - 1,
                                           UINT32_MAX };
        _cleanup_close_ int sample = sample_file(), fd = new_file();
        unsigned unopened = 0, unsound = 0, sound = 0;
        uint64_t random = 1;
        size_t n;
        _cleanup_free_ uint8_t *bytes = file_bytes(sample, &n), *changed = malloc(n);

        (void) state;
        assert_non_null(changed);
        for (unsigned i = 0; i < 30000; i++) {
                _cleanup_(toc_close_ptr) struct toc *t = NULL;

                memcpy(changed, bytes, n);
                for (unsigned k = 1 + next_random(&random) % 3; k > 0; k--) {
                        size_t at = next_random(&random) % (n - 4);
                        uint32_t value = values[next_random(&random) % ELEMENTSOF(values)];

                        switch (next_random(&random) % 3) {
                        case 0:
                                changed[at] = (uint8_t) next_random(&random);
                                break;
                        case 1:
                                changed[at] = (uint8_t) (changed[at] + 1 - 2 * (next_random(&random) % 2));
                                break;
                        default:
                                memcpy(changed + (at & ~(size_t) 3), &value, sizeof(value));
                        }
                }
                set_hash(changed, n);
                assert_int_equal(pwrite_full(fd, changed, n, 0), 0);
                if (toc_open(fd, &layer_digest, &t, NULL) < 0)
                        unopened++;
                else if (use_toc(t))
                        sound++;
                else
                        unsound++;
        }
        assert_true(unopened > 1000 && unsound > 1000 && sound > 1000);
}

static void toc_check_looks_at_rows_and_chunks(void **state)
{
        struct chunk chunks[2] = { sample_chunks[0], sample_chunks[1] };
        struct chunk_table table = sample_table;
        struct itable t = sample_itable();
        struct error e = ERROR_INIT;

        (void) state;
        for (unsigned i = 0; i < 2; i++) {
                _cleanup_(toc_close_ptr) struct toc *toc = NULL;
                _cleanup_close_ int fd = new_file();

                if (i == 0)
                        chunks[1].content_offset = 0;
                else
                        ((struct inode *) t.inodes)[4].size = 991;
                table.chunks = i == 0 ? chunks : sample_chunks;
                assert_int_equal(toc_write(fd, &t, &table, &layer_digest, COMPRESSION_GZIP, NULL), 0);
                assert_int_equal(toc_open(fd, &layer_digest, &toc, &e), 0);
                assert_int_equal(toc_check(toc, &e), -EBADMSG);
                assert_non_null(strstr(e.message, i == 0 ? "chunk 1" : "inode 4"));
                assert_non_null(strstr(e.message, "TOC of sha256:0102"));
        }
        itable_exact_free(&t);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(written_toc_is_read_back),
                cmocka_unit_test(open_toc_outlives_its_file_descriptor),
                cmocka_unit_test(equal_tocs_give_equal_files),
                cmocka_unit_test(sections_lie_at_multiples_of_eight),
                cmocka_unit_test(chunks_may_be_written_as_they_come),
                cmocka_unit_test(smallest_toc_is_read_back),
                cmocka_unit_test(file_that_cannot_be_written_is_an_error),
                cmocka_unit_test(toc_of_another_layer_is_refused),
                cmocka_unit_test(every_flipped_bit_is_noticed),
                cmocka_unit_test(file_of_another_length_is_refused),
                cmocka_unit_test(what_is_no_file_is_refused),
                cmocka_unit_test(wrong_headers_and_sections_are_refused),
                cmocka_unit_test(file_too_short_for_its_section_table_is_refused),
                cmocka_unit_test(table_without_a_root_is_refused),
                cmocka_unit_test(mutated_files_are_refused_or_safe_to_read),
                cmocka_unit_test(toc_check_looks_at_rows_and_chunks),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
