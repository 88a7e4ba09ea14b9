/* SPDX-License-Identifier: Apache-2.0 */

#include <fcntl.h>
#include <sys/mman.h>
#include <xxhash.h>

#include "itable_text.h"

#include "regfs/io.h"
#include "regfs/toc.h"

#include "../../fs/toc/file.h"

#define HASH_START offsetof(struct itable_file_header, identity)

static const struct digest layer_digest = { .algorithm = DIGEST_SHA256, .bytes = { 1, 2, 3 } };
static const struct digest other_digest = { .algorithm = DIGEST_SHA256, .bytes = { 1, 2, 4 } };

/* ---- files ---- */

static int new_file(void)
{
        int fd = memfd_create("regfs-test", MFD_CLOEXEC);

        assert_true(fd >= 0);
        return fd;
}

static size_t file_size(int fd)
{
        struct stat st;

        assert_int_equal(fstat(fd, &st), 0);
        return (size_t) st.st_size;
}

static uint8_t *file_bytes(int fd, size_t *ret_size)
{
        size_t n = file_size(fd);
        uint8_t *bytes = malloc(n + 1);

        assert_non_null(bytes);
        assert_int_equal(pread_full(fd, bytes, n, 0), 0);
        *ret_size = n;
        return bytes;
}

static int file_of(const void *bytes, size_t n)
{
        int fd = new_file();

        assert_int_equal(pwrite_full(fd, bytes, n, 0), 0);
        return fd;
}

/* Makes damage look like a file that somebody wrote so. */
static void set_hash(uint8_t *bytes, size_t n)
{
        struct itable_file_header *header = (void *) bytes;

        header->hash = XXH3_64bits(bytes + HASH_START, n - HASH_START);
}

/* ---- a sample with some of everything ---- */

static const struct extent sample_extents[] = { { 0, 300, 100 }, { 500, 400, 50 } };
static const struct layer_xattr sample_xattrs[] = { { "user.a", (const uint8_t *) "1", 1 }, { "user.b", (const uint8_t *) "", 0 } };

static const struct layer_entry sample_entries[] = {
        DIR("/", 0700),
        REG("a/file", 1),
        HARD("a/link", "a/file"),
        HARD("a/lower", "b/elsewhere"),
        SYM("a/sym", "../b"),
        { .path = "b/sparse", .mode = S_IFREG | 0600, .size = 1000, .sparse = true, .extents = sample_extents, .extent_count = 2 },
        { .path = "b/xattrs", .mode = S_IFREG | 0755, .size = 5, .content_offset = 50, .xattrs = sample_xattrs, .xattr_count = 2 },
        { .path = "b/c/null", .mode = S_IFCHR | 0666, .major = 1, .minor = 3 },
        { .path = "b/c/pipe", .mode = S_IFIFO | 0600 },
        WHITEOUT("b/.wh.gone"),
        WHITEOUT("b/c/.wh..wh..opq"),
        WHITEOUT("ghost/.wh.gone"),
};

static const struct chunk sample_chunks[] = {
        { .content_offset = 0, .blob_offset = 0, .blob_length = 501, .content_length = 600, .checkpoint = CHECKPOINT_NONE,
          .codec = CODEC_GZIP, .digest = { 1 } },
        { .content_offset = 600, .blob_offset = 500, .blob_length = 400, .content_length = 400, .checkpoint = 0,
          .codec = CODEC_GZIP, .digest = { 2 } },
};
static const struct checkpoint sample_checkpoint = { .in = 501, .out = 600, .window_length = 12, .window_raw = 600, .bits = 3 };
static const struct chunk_table sample_table = {
        .chunks = sample_chunks,
        .chunk_count = ELEMENTSOF(sample_chunks),
        .checkpoints = &sample_checkpoint,
        .checkpoint_count = 1,
        .windows = (const uint8_t *) "twelve bytes",
        .windows_size = 12,
        .content_size = 1000,
        .blob_size = 1000,
};

static struct itable sample_itable(void)
{
        return layer_table(sample_entries, ELEMENTSOF(sample_entries));
}

static int sample_file(void)
{
        struct itable t = sample_itable();
        struct error e = ERROR_INIT;
        int fd = new_file();

        if (toc_write(fd, &t, &sample_table, &layer_digest, COMPRESSION_GZIP, &e) < 0)
                fail_msg("%s", e.message);
        itable_exact_free(&t);
        return fd;
}

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
        assert_memory_equal(bytes, "REGFSTOC\1\0\0\0", 12);
        assert_int_equal(header->file_length, n);
        assert_int_equal(header->section_count, 9);
        for (uint32_t i = 0; i < header->section_count; i++) {
                assert_int_equal(sections[i].kind, i + 1);
                assert_int_equal(sections[i].offset % 8, 0);
        }
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
                expect_open(fd, -EBADMSG, i < sizeof(struct itable_file_header) ? "the file is none" : "cut or has grown");
        }
}

static void what_is_no_file_is_refused(void **state)
{
        _cleanup_close_ int directory = open("/", O_RDONLY | O_CLOEXEC), device = open("/dev/zero", O_RDONLY | O_CLOEXEC);

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
#define IN_SECTION(i, field) (sizeof(struct itable_file_header) + (i) * sizeof(struct itable_file_section) + offsetof(struct itable_file_section, field))

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
        static const uint32_t values[] = { 0, 1, 2, 3, 7, 8, 64, 255, 256, 0x7fffffff, 0x80000000, UINT32_MAX - 1, UINT32_MAX };
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

/* Everything that a check must refuse, one damage at a time. */
static void damage(struct itable *t, unsigned which)
{
        struct inode *inodes = (struct inode *) t->inodes;
        struct dirent_row *dirents = (struct dirent_row *) t->dirents;
        struct extent *extents = (struct extent *) t->extents;
        struct xattr_set *sets = (struct xattr_set *) t->xattr_sets;
        struct xattr_pair *pairs = (struct xattr_pair *) t->xattr_pairs;
        char *strings = (char *) t->strings;

        /* Rows of the sample: 0 root, 1 a, 2 b, 3 ghost, 4 a/file, 5 a/sym, 6 b/c, 7 b/sparse, 8 b/xattrs, 9 null, 10 pipe.
         * Dirents: 0-2 of the root, 3 file, 4 link, 5 lower, 6 sym, 7 c, 8 gone, 9 sparse, 10 xattrs, 11 gone, 12 null, 13 pipe. */
        switch (which) {
        case 0: inodes[0].mode = S_IFREG; break;
        case 1: inodes[4].mode = S_IFSOCK; break;
        case 2: inodes[4].mode |= 1u << 20; break;
        case 3: inodes[4].flags = INODE_OPAQUE; break;
        case 4: inodes[4].flags = INODE_SPARSE; break;
        case 5: inodes[1].flags = INODE_GHOST; break;
        case 6: inodes[1].flags |= 1 << 9; break;
        case 7: inodes[4].reserved = 1; break;
        case 8: inodes[4].mtime_nsec = 1000000000; break;
        case 9: inodes[4].layer = 1; break;
        case 10: inodes[4].xattrs = t->xattr_set_count; break;
        case 11: inodes[4].size = 991; break;
        case 12: inodes[4].data = UINT64_MAX; break;
        case 13: inodes[4].nlink = 3; break;
        case 14: inodes[4].count = 1; break;
        case 15: inodes[5].size = 5; break;
        case 16: inodes[5].size = 3; break;
        case 17: inodes[5].data = t->strings_size; break;
        case 18: inodes[5].data = UINT64_MAX; break;
        case 19: inodes[5].size = 0; break;
        case 20: inodes[7].count = 3; break;
        case 21: inodes[7].data = 1; break;
        case 22: inodes[7].count = 1; break;
        case 23: inodes[7].size = 549; break;
        case 24: extents[1].file_offset = 99; break;
        case 25: extents[1].content_offset = 951; break;
        case 26: extents[0].length = 0; break;
        case 27: inodes[9].size = 1; break;
        case 28: inodes[10].count = 1; break;
        case 29: inodes[1].size = 1; break;
        case 30: inodes[1].nlink = 3; break;
        case 31: inodes[1].data = 2; break;
        case 32: inodes[6].count = 3; break;
        case 33: inodes[6].count = 1; break;
        case 34: inodes[6].parent = 1; break;
        case 35: inodes[0].parent = 1; break;
        case 36: dirents[7].target = 2; break;  /* a cycle */
        case 37: dirents[7].target = 0; break;
        case 38: dirents[7].target = 1; break;  /* a second parent */
        case 39: dirents[3].target = 5; break; /* not the next one */
        case 40: dirents[13].target = 11; break;
        case 41: dirents[13].target = 9; break; /* no name left for row 10 */
        case 42: dirents[3].name_length = 0; break;
        case 43: dirents[3].name_length = 256; break;
        case 44: dirents[3].name = t->strings_size - 3; break;
        case 45: dirents[4].name = dirents[3].name; break;
        case 46: strings[dirents[3].name] = '/'; break;
        case 47: strings[dirents[3].name] = '\0'; break;
        case 48: dirents[0].name_length = 1; strings[dirents[0].name] = '.'; break;
        case 49: dirents[3].reserved = 1; break;
        case 50: dirents[3].type = 3; break;
        case 51: dirents[8].target = 1; break;
        case 52: dirents[5].target = t->strings_size; break;
        case 53: sets[0].count = 1; break;
        case 54: sets[1].first = 1; break;
        case 55: sets[1].count = 3; break;
        case 56: sets[1].count = 1; break;
        case 57: pairs[0].name = t->strings_size; break;
        case 58: pairs[1].name = pairs[0].name; break;
        case 59: pairs[0].value = t->strings_size; break;
        case 60: pairs[0].value_length = 65537; break;
        case 61: strings[pairs[0].name] = '\0'; break;
        case 62: t->inode_count--; break;
        case 63: t->dirent_count--; break;
        case 64: t->extent_count--; break;
        case 65: t->xattr_pair_count--; break;
        case 66: t->xattr_set_count = 0; break;
        case 67: t->inode_count = 0; break;
        default: fail();
        }
}

#define DAMAGES 68

static void every_kind_of_damage_is_refused(void **state)
{
        static const uint64_t content_size = 1000;

        (void) state;
        for (unsigned i = 0; i < DAMAGES; i++) {
                struct itable t = sample_itable(), damaged;
                struct error e = ERROR_INIT;

                assert_int_equal(itable_check(&t, &content_size, 1, &e), 0);
                damage(&t, i);
                damaged = itable_exact_copy(&t);
                if (itable_check(&damaged, &content_size, 1, &e) != -EBADMSG)
                        fail_msg("damage %u was accepted", i);
                assert_int_equal(e.kind, ERROR_BAD_DATA);
                assert_true(strlen(e.message) > 10);
                itable_exact_free(&damaged);
                itable_exact_free(&t);
        }
}

static void last_string_without_an_end_is_refused(void **state)
{
        static const uint64_t content_size = 1000;
        struct itable link = layer_table(ENTRIES(HARD("a", "target"))), sym = layer_table(ENTRIES(SYM("a", "target")));
        struct itable *const tables[] = { &link, &sym };

        (void) state;
        for (size_t i = 0; i < ELEMENTSOF(tables); i++) {
                struct itable cut;

                /* The target was interned before the name: put the name first, so that the target can be cut. */
                assert_int_equal(tables[i]->strings_size, 8);
                memcpy((char *) tables[i]->strings, "atarget", 8);
                ((struct dirent_row *) tables[i]->dirents)[0].name = 0;
                if (tables[i] == &link)
                        ((struct dirent_row *) link.dirents)[0].target = 1;
                else
                        ((struct inode *) sym.inodes)[1].data = 1;
                assert_int_equal(itable_check(tables[i], &content_size, 1, NULL), 0);
                tables[i]->strings_size--;
                cut = itable_exact_copy(tables[i]);
                assert_int_equal(itable_check(&cut, &content_size, 1, NULL), -EBADMSG);
                itable_exact_free(&cut);
                itable_exact_free(tables[i]);
        }
}

static void too_deep_a_tree_is_refused(void **state)
{
        enum { DEPTH = ITABLE_DEPTH_MAX + 2 };
        static struct inode inodes[DEPTH];
        static struct dirent_row dirents[DEPTH];
        static const struct xattr_set no_xattrs;
        static const uint64_t content_size = 1000;
        struct itable t = { .inodes = inodes, .dirents = dirents, .xattr_sets = &no_xattrs, .strings = "d",
                            .xattr_set_count = 1, .strings_size = 1 };
        struct error e = ERROR_INIT;

        (void) state;
        for (uint32_t i = 0; i < DEPTH; i++) {
                inodes[i] = (struct inode) { .mode = S_IFDIR, .data = i, .count = 1, .nlink = 3, .parent = i ? i - 1 : 0 };
                dirents[i] = (struct dirent_row) { .name_length = 1, .target = i + 1 };
        }
        t.inode_count = DEPTH - 1;
        inodes[DEPTH - 2].count = 0;
        inodes[DEPTH - 2].nlink = 2;
        t.dirent_count = DEPTH - 2;
        assert_int_equal(itable_check(&t, &content_size, 1, &e), 0);
        inodes[DEPTH - 2].count = 1;
        inodes[DEPTH - 2].nlink = 3;
        inodes[DEPTH - 1].count = 0;
        inodes[DEPTH - 1].nlink = 2;
        t.inode_count = DEPTH;
        t.dirent_count = DEPTH - 1;
        assert_int_equal(itable_check(&t, &content_size, 1, &e), -EBADMSG);
        assert_non_null(strstr(e.message, "deeper"));
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
                        damage(&t, 11);
                table.chunks = i == 0 ? chunks : sample_chunks;
                assert_int_equal(toc_write(fd, &t, &table, &layer_digest, COMPRESSION_GZIP, NULL), 0);
                assert_int_equal(toc_open(fd, &layer_digest, &toc, &e), 0);
                assert_int_equal(toc_check(toc, &e), -EBADMSG);
                assert_non_null(strstr(e.message, i == 0 ? "chunk 1" : "inode 4"));
                assert_non_null(strstr(e.message, "TOC of sha256:0102"));
        }
        itable_exact_free(&t);
}

/* ---- image indexes ---- */

static const struct digest manifest_digest = { .algorithm = DIGEST_SHA512, .bytes = { 9, [63] = 8 } };
static const struct tree_layer two_layers[] = {
        { .digest = { .algorithm = DIGEST_SHA256, .bytes = { 1 } }, .kind = "plain", .blob_size = 70, .content_size = 1000 },
        { .digest = { .algorithm = DIGEST_SHA256, .bytes = { 2 } }, .kind = "estargz-abcd", .blob_size = 80, .content_size = 2000 },
};

static int tree_file_of(const struct layer_entry *low, size_t low_count, const struct layer_entry *high, size_t high_count)
{
        struct itable tables[] = { layer_table(low, low_count), layer_table(high, high_count) };
        const struct itable *const pointers[] = { &tables[0], &tables[1] };
        struct error e = ERROR_INIT;
        int fd = new_file();

        if (tree_write(fd, &manifest_digest, pointers, two_layers, 2, &e) < 0)
                fail_msg("%s", e.message);
        itable_exact_free(&tables[0]);
        itable_exact_free(&tables[1]);
        return fd;
}

static void written_tree_is_read_back(void **state)
{
        _cleanup_close_ int fd = tree_file_of(ENTRIES(REG("d/a", 1), REG("d/b", 2)), ENTRIES(WHITEOUT("d/.wh.a"), REG("c", 3)));
        _cleanup_(tree_close_ptr) struct tree *t = NULL;
        _cleanup_free_ char *text = NULL;

        (void) state;
        assert_int_equal(tree_open(fd, &manifest_digest, &t, NULL), 0);
        text = itable_text(&t->itable);
        assert_string_equal(text, "/ 755\nc 644 #3 @1\nd/ 755\nd/b 644 #2\n");
        assert_int_equal(t->layer_count, 2);
        for (size_t i = 0; i < 2; i++) {
                assert_true(digest_equal(&t->layers[i].digest, &two_layers[i].digest));
                assert_string_equal(t->layers[i].kind, two_layers[i].kind);
                assert_int_equal(t->layers[i].blob_size, two_layers[i].blob_size);
                assert_int_equal(t->layers[i].content_size, two_layers[i].content_size);
        }
        assert_true(digest_equal(&t->manifest, &manifest_digest));
        assert_false(t->has_xattrs);
        assert_null(tree_close(NULL));
}

static void tree_knows_whether_any_file_has_xattrs(void **state)
{
        const struct layer_entry with = { .path = "x", .mode = S_IFREG, .xattrs = sample_xattrs, .xattr_count = 1 };
        _cleanup_close_ int seen = tree_file_of(ENTRIES(REG("a", 1)), &with, 1);
        _cleanup_close_ int hidden = tree_file_of(&with, 1, ENTRIES(WHITEOUT(".wh.x")));
        _cleanup_(tree_close_ptr) struct tree *a = NULL, *b = NULL;

        (void) state;
        assert_int_equal(tree_open(seen, &manifest_digest, &a, NULL), 0);
        assert_true(a->has_xattrs);
        assert_int_equal(tree_open(hidden, &manifest_digest, &b, NULL), 0);
        assert_false(b->has_xattrs);
}

static void tree_and_toc_are_not_taken_for_each_other(void **state)
{
        _cleanup_close_ int tree = tree_file_of(ENTRIES(REG("a", 1)), NULL, 0), toc = sample_file();
        _cleanup_(tree_close_ptr) struct tree *t = NULL;
        struct error e = ERROR_INIT;

        (void) state;
        expect_open(tree, -EBADMSG, "the file is none");
        assert_int_equal(tree_open(toc, &manifest_digest, &t, &e), -EBADMSG);
        assert_int_equal(tree_open(tree, &layer_digest, &t, &e), -EBADMSG);
        assert_non_null(strstr(e.message, "image index of sha256:0102"));
}

static void tree_with_a_nameless_layer_is_refused(void **state)
{
        _cleanup_close_ int fd = tree_file_of(ENTRIES(REG("a", 1)), NULL, 0);
        _cleanup_(tree_close_ptr) struct tree *t = NULL;
        struct error e = ERROR_INIT;
        size_t n;
        _cleanup_free_ uint8_t *bytes = file_bytes(fd, &n);
        struct tree_layer *layers = (void *) (bytes + n - 2 * sizeof(*layers));

        (void) state;
        assert_string_equal(layers[1].kind, "estargz-abcd");
        memset(layers[1].kind, 'x', sizeof(layers[1].kind));
        set_hash(bytes, n);
        assert_int_equal(pwrite_full(fd, bytes, n, 0), 0);
        assert_int_equal(tree_open(fd, &manifest_digest, &t, &e), -EBADMSG);
        assert_non_null(strstr(e.message, "a layer has no name"));
        layers[1] = two_layers[1];
        layers[0].digest.algorithm = DIGEST_NONE;
        set_hash(bytes, n);
        assert_int_equal(pwrite_full(fd, bytes, n, 0), 0);
        assert_int_equal(tree_open(fd, &manifest_digest, &t, &e), -EBADMSG);
}

static void merge_error_names_image_and_path(void **state)
{
        struct itable table = layer_table(ENTRIES(HARD("a", "b")));
        const struct itable *const tables[] = { &table };
        _cleanup_close_ int fd = new_file();
        struct error e = ERROR_INIT;

        (void) state;
        assert_int_equal(tree_write(fd, &layer_digest, tables, two_layers, 1, &e), -EBADMSG);
        assert_non_null(strstr(e.message, "merging the layers of sha256:0102"));
        assert_non_null(strstr(e.message, "a: hardlink to b, which no layer holds"));
        itable_exact_free(&table);
}

static void tree_key_depends_on_all_that_the_index_depends_on(void **state)
{
        struct tree_layer changed[2] = { two_layers[0], two_layers[1] };
        char key[65], other[65];

        (void) state;
        assert_int_equal(tree_key(&manifest_digest, two_layers, 2, key), 0);
        assert_int_equal(strlen(key), 64);
        assert_int_equal(strspn(key, "0123456789abcdef"), 64);
        assert_int_equal(tree_key(&manifest_digest, changed, 2, other), 0);
        assert_string_equal(key, other);
        assert_int_equal(tree_key(&layer_digest, two_layers, 2, other), 0);
        assert_string_not_equal(key, other);
        assert_int_equal(tree_key(&manifest_digest, two_layers, 1, other), 0);
        assert_string_not_equal(key, other);
        snprintf(changed[0].kind, sizeof(changed[0].kind), "soci-12");
        assert_int_equal(tree_key(&manifest_digest, changed, 2, other), 0);
        assert_string_not_equal(key, other);
        changed[0] = two_layers[1];
        changed[1] = two_layers[0];
        assert_int_equal(tree_key(&manifest_digest, changed, 2, other), 0);
        assert_string_not_equal(key, other);
        changed[0] = two_layers[0];
        changed[1] = two_layers[1];
        changed[1].digest.bytes[31] = 1;
        assert_int_equal(tree_key(&manifest_digest, changed, 2, other), 0);
        assert_string_not_equal(key, other);
}

static void lookup_walks_names_and_no_symlinks(void **state)
{
        static const struct {
                const char *path;
                int expected;
                uint32_t row;
        } cases[] = {
                { "", 0, 0 },       { "/", 0, 0 },          { "..", 0, 0 },          { "/../..", 0, 0 },
                { "a", 0, 1 },      { "/a/", 0, 1 },        { "//a//.//", 0, 1 },    { "a/b/f", 0, 4 },
                { "/a/b/f", 0, 4 }, { "a/b/../../a", 0, 1 }, { "a/b/..", 0, 1 },     { "a/s", 0, 3 },
                { "x", -ENOENT, 0 }, { "a/x/f", -ENOENT, 0 }, { "a/b/f/", -ENOTDIR, 0 }, { "a/b/f/.", -ENOTDIR, 0 },
                { "a/b/f/..", -ENOTDIR, 0 }, { "a/b/f/x", -ENOTDIR, 0 }, { "a/s/f", -ENOTDIR, 0 }, { "x/..", -ENOENT, 0 },
        };
        _cleanup_close_ int fd = tree_file_of(ENTRIES(REG("a/b/f", 1)), ENTRIES(SYM("a/s", "b")));
        _cleanup_(tree_close_ptr) struct tree *t = NULL;

        (void) state;
        assert_int_equal(tree_open(fd, &manifest_digest, &t, NULL), 0);
        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                uint32_t row = 99;
                int r = tree_lookup(t, cases[i].path, &row);

                if (r != cases[i].expected || row != (r == 0 ? cases[i].row : 99))
                        fail_msg("\"%s\": %d, row %u", cases[i].path, r, row);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(written_toc_is_read_back),
                cmocka_unit_test(open_toc_outlives_its_file_descriptor),
                cmocka_unit_test(equal_tocs_give_equal_files),
                cmocka_unit_test(sections_lie_at_multiples_of_eight),
                cmocka_unit_test(smallest_toc_is_read_back),
                cmocka_unit_test(file_that_cannot_be_written_is_an_error),
                cmocka_unit_test(toc_of_another_layer_is_refused),
                cmocka_unit_test(every_flipped_bit_is_noticed),
                cmocka_unit_test(file_of_another_length_is_refused),
                cmocka_unit_test(what_is_no_file_is_refused),
                cmocka_unit_test(wrong_headers_and_sections_are_refused),
                cmocka_unit_test(table_without_a_root_is_refused),
                cmocka_unit_test(mutated_files_are_refused_or_safe_to_read),
                cmocka_unit_test(every_kind_of_damage_is_refused),
                cmocka_unit_test(last_string_without_an_end_is_refused),
                cmocka_unit_test(too_deep_a_tree_is_refused),
                cmocka_unit_test(toc_check_looks_at_rows_and_chunks),
                cmocka_unit_test(written_tree_is_read_back),
                cmocka_unit_test(tree_knows_whether_any_file_has_xattrs),
                cmocka_unit_test(tree_and_toc_are_not_taken_for_each_other),
                cmocka_unit_test(tree_with_a_nameless_layer_is_refused),
                cmocka_unit_test(merge_error_names_image_and_path),
                cmocka_unit_test(tree_key_depends_on_all_that_the_index_depends_on),
                cmocka_unit_test(lookup_walks_names_and_no_symlinks),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
