/* SPDX-License-Identifier: Apache-2.0 */

/* Layers as their reference producers wrote them, against the tar that they were made from. */

#include <zlib.h>

#include "embedded_fixture.h"

#include "regfs/tar.h"

#define TEXT(s) (char *) (s)
#define ANNOTATIONS(...)          \
        (char *const[])           \
        {                         \
                __VA_ARGS__, NULL \
        }

static const struct fixture {
        const char *file, *kind;
        char *const *annotations;
        uint64_t table;       /* bytes of the table in the blob */
        bool whole_seconds;   /* the producer drops fractions */
        uint64_t prefetch;    /* bytes of the files before the landmark */
        const char *external; /* the file with the table, when it is not the layer */
} fixtures[] = {
        {
                "base.esgz",
                "estargz-85f895913a2ad54941a9aa7b70ad4e6e99dc4388ee880e2436029a9fb1ce59cb",
                ANNOTATIONS(TEXT(STARGZ),
                            TEXT("sha256:85f895913a2ad54941a9aa7b70ad4e6e99dc4388ee880e2436029a9fb1ce59cb")),
                EMBEDDED_TAIL,
                true,
                0,
                NULL,
        },
        {
                "base.chunk64k.esgz",
                "estargz-224d8180f5254d1404b42fb3c505b130a2ab04825211c4bbaccb3f1a7cad62ae",
                ANNOTATIONS(TEXT(STARGZ),
                            TEXT("sha256:224d8180f5254d1404b42fb3c505b130a2ab04825211c4bbaccb3f1a7cad62ae")),
                EMBEDDED_TAIL,
                true,
                0,
                NULL,
        },
        {
                "base.landmark.esgz",
                "estargz-4989b6612f9e54b2e8d23eb35174146e184a8d54059d4b5eacaae97ef339a7d7",
                ANNOTATIONS(TEXT("unrelated"), TEXT("x"), TEXT(STARGZ),
                            TEXT("sha256:4989b6612f9e54b2e8d23eb35174146e184a8d54059d4b5eacaae97ef339a7d7")),
                EMBEDDED_TAIL,
                true,
                70000 + 45,
                /* bin/tool, etc/os-release */ NULL,
        },
        {
                "base.stargz-zstdchunked.zst",
                "zstdchunked-16b27956951e64e98cb2568b4f275e362c4d16c583289f98b688b08cdfcb3195",
                ANNOTATIONS(TEXT(STARGZ),
                            TEXT("sha256:d247b078398dec4fc462ff7960218b556698f984b058c44d300ae2ccd6d760c7"),
                            TEXT(OLD_CHUNKED "manifest-position"), TEXT("1249349:28276:179454:1"),
                            TEXT(OLD_CHUNKED "manifest-checksum"),
                            TEXT("sha256:16b27956951e64e98cb2568b4f275e362c4d16c583289f98b688b08cdfcb3195")),
                28276,
                true,
                0,
                NULL,
        },
        {
                "base.zstdchunked-v40.zst",
                "zstdchunked-bb75168457833f28605c2f8c14192996499df9ff525c5c0fa272be84ad30ffa1",
                ANNOTATIONS(TEXT(OLD_CHUNKED "manifest-checksum"),
                            TEXT("sha256:bb75168457833f28605c2f8c14192996499df9ff525c5c0fa272be84ad30ffa1"),
                            TEXT(OLD_CHUNKED "manifest-position"), TEXT("1289448:38015:189818:1")),
                38015,
                false,
                0,
                NULL,
        },
        {
                "base.zstdchunked-v64.zst",
                "zstdchunked-de0ff3b797e9231003685727acc451bc51da377495af6214890e9d19d0f68de3",
                ANNOTATIONS(TEXT(CHUNKED "manifest-checksum"),
                            TEXT("sha256:de0ff3b797e9231003685727acc451bc51da377495af6214890e9d19d0f68de3"),
                            TEXT(CHUNKED "manifest-position"), TEXT("1289460:37857:150181:1"),
                            TEXT(CHUNKED "tarsplit-position"), TEXT("1327325:21934:653084")),
                37857,
                false,
                0,
                NULL,
        },
        {
                "base.external.esgz",
                "estargz-0bf6874d69e23aa25ec0241e47cae387bcb8839dc9074d21c0f34afd6668fe9e",
                ANNOTATIONS(TEXT(STARGZ),
                            TEXT("sha256:0bf6874d69e23aa25ec0241e47cae387bcb8839dc9074d21c0f34afd6668fe9e")),
                EMBEDDED_TAIL,
                true,
                0,
                "base.external.toc",
        },
};

static struct watched_blob *watch_layer(struct bench *b, const struct fixture *f)
{
        buf_free(&b->external);
        b->external = (struct buf) { 0 };
        b->external_read = 0;
        if (f->external)
                read_fixture(f->external, &b->external);
        return watch_fixture(f->file);
}

static char *const upper_annotations[] = {
        TEXT(STARGZ), TEXT("sha256:22cb9c79666ee7bc76ac7a9e9d1126d705d507c3628b3d203d491f1b215b76e1"), NULL
};

/* ---- the tar ---- */

struct tar {
        struct buf bytes;
        struct layer_tree *tree;
        struct itable_builder *builder;
        struct itable table; /* content offsets are those of the tar */
};

static void inflate_fixture(const char *name, struct buf *ret)
{
        _cleanup_buf_ struct buf packed = { 0 };
        z_stream z = { 0 };
        int status;

        read_fixture(name, &packed);
        assert_int_equal(inflateInit2(&z, MAX_WBITS + 16), Z_OK);
        z.next_in = (Bytef *) packed.data;
        z.avail_in = (uInt) packed.len;
        do {
                assert_int_equal(buf_reserve(ret, MIB), 0);
                z.next_out = (Bytef *) ret->data + ret->len;
                z.avail_out = MIB;
                status = inflate(&z, Z_NO_FLUSH);
                assert_true(status == Z_OK || status == Z_STREAM_END);
                ret->len += MIB - z.avail_out;
        } while (status != Z_STREAM_END);
        inflateEnd(&z);
}

static int add_entry(void *context, const struct layer_entry *entry, struct error *e)
{
        return layer_tree_add(context, entry, e);
}

static void tar_load(const char *name, struct tar *ret)
{
        _cleanup_(tar_scanner_free_ptr) struct tar_scanner *scanner = NULL;
        struct error e = ERROR_INIT;

        *ret = (struct tar) { 0 };
        inflate_fixture(name, &ret->bytes);
        assert_int_equal(layer_tree_new(&ret->tree), 0);
        assert_int_equal(tar_scanner_new(add_entry, ret->tree, &scanner), 0);
        assert_int_equal(tar_scanner_feed(scanner, (uint8_t *) ret->bytes.data, ret->bytes.len, &e), 0);
        assert_int_equal(tar_scanner_finish(scanner, &e), 0);
        assert_int_equal(layer_tree_finish(ret->tree, &e), 0);
        assert_int_equal(itable_builder_new(&ret->builder), 0);
        assert_int_equal(itable_builder_from_layer(ret->builder, ret->tree, &e), 0);
        itable_builder_view(ret->builder, &ret->table);
}

static void tar_clear(struct tar *t)
{
        itable_builder_free(t->builder);
        layer_tree_free(t->tree);
        buf_free(&t->bytes);
}
#define _cleanup_tar_ _cleanup_(tar_clear)

/* ---- comparing trees ---- */

struct comparison {
        const struct itable *a, *b;
        uint32_t *other; /* by row of A: the row of B + 1 */
        bool whole_seconds;
        size_t names;
};

static void compare_xattrs(const struct comparison *c, const struct inode *x, const struct inode *y)
{
        const struct xattr_set *set = &c->a->xattr_sets[x->xattrs];

        assert_int_equal(set->count, c->b->xattr_sets[y->xattrs].count);
        for (uint32_t k = 0; k < set->count; k++) {
                const struct xattr_pair *pair = &c->a->xattr_pairs[set->first + k];
                const uint8_t *value;
                size_t length;

                assert_int_equal(itable_xattr(c->b, y, c->a->strings + pair->name, &value, &length), 0);
                assert_int_equal(length, pair->value_length);
                assert_memory_equal(value, c->a->strings + pair->value, length);
        }
}

static void compare_inodes(const struct comparison *c, const struct inode *x, const struct inode *y)
{
        assert_int_equal(x->mode, y->mode);
        assert_int_equal(x->size, y->size);
        assert_int_equal(x->uid, y->uid);
        assert_int_equal(x->gid, y->gid);
        assert_int_equal(x->mtime, y->mtime);
        assert_int_equal(c->whole_seconds ? 0 : x->mtime_nsec, y->mtime_nsec);
        assert_int_equal(x->nlink, y->nlink);
        assert_int_equal(x->flags, y->flags);
        if (S_ISLNK(x->mode))
                assert_string_equal(inode_symlink(c->a, x), inode_symlink(c->b, y));
        if (S_ISCHR(x->mode) || S_ISBLK(x->mode))
                assert_int_equal(x->data, y->data);
        compare_xattrs(c, x, y);
}

static void compare_rows(struct comparison *c, uint32_t a, uint32_t b)
{
        const struct inode *x = &c->a->inodes[a], *y = &c->b->inodes[b];

        if (c->other[a]) {
                assert_int_equal(c->other[a], b + 1);
                return;
        }
        c->other[a] = b + 1;
        compare_inodes(c, x, y);
        if (!S_ISDIR(x->mode))
                return;
        assert_int_equal(x->count, y->count);
        for (uint32_t k = 0; k < x->count; k++) {
                const struct dirent_row *p = &c->a->dirents[x->data + k], *q = &c->b->dirents[y->data + k];

                assert_int_equal(p->name_length, q->name_length);
                assert_memory_equal(dirent_name(c->a, p), dirent_name(c->b, q), p->name_length);
                assert_int_equal(p->type, q->type);
                c->names++;
                if (p->type == DIRENT_INODE)
                        compare_rows(c, p->target, q->target);
                if (p->type == DIRENT_LINK)
                        assert_string_equal(c->a->strings + p->target, c->b->strings + q->target);
        }
}

/* Fills OTHER, which has room for the rows of A. */
static size_t compare_trees(const struct itable *a, const struct itable *b, uint32_t *other, bool whole_seconds)
{
        struct comparison c = { .a = a, .b = b, .other = other, .whole_seconds = whole_seconds };

        assert_int_equal(a->inode_count, b->inode_count);
        compare_rows(&c, 0, 0);
        return c.names;
}

static void every_fixture_has_the_tree_of_the_tar(void **state)
{
        _cleanup_tar_ struct tar tar;

        tar_load("base.tar.gz", &tar);
        for (size_t k = 0; k < ELEMENTSOF(fixtures); k++) {
                const struct fixture *f = &fixtures[k];
                _cleanup_watched_ struct watched_blob *w = watch_layer(*state, f);
                _cleanup_(toc_close_ptr) struct toc *toc = NULL;
                _cleanup_free_ uint32_t *other = calloc(tar.table.inode_count, sizeof(*other));
                char kind[LAYER_KIND_MAX];

                toc = index_and_open(*state, w, f->annotations, kind);
                assert_string_equal(kind, f->kind);
                assert_true(compare_trees(&tar.table, &toc->itable, other, f->whole_seconds) > 500);
                assert_int_equal(toc->chunks.prefetch, f->prefetch);
        }
}

static void whiteouts_are_those_of_the_tar(void **state)
{
        _cleanup_watched_ struct watched_blob *w = watch_fixture("upper.esgz");
        _cleanup_(toc_close_ptr) struct toc *toc = NULL;
        _cleanup_free_ uint32_t *other = NULL;
        _cleanup_tar_ struct tar tar;
        char kind[LAYER_KIND_MAX];

        tar_load("upper.tar.gz", &tar);
        other = calloc(tar.table.inode_count, sizeof(*other));
        toc = index_and_open(*state, w, upper_annotations, kind);
        assert_true(compare_trees(&tar.table, &toc->itable, other, true) > 10);
}

/* ---- bytes ---- */

static void compare_bytes(const struct tar *tar, const struct toc *toc, const struct reader *reader,
                          const uint32_t *other)
{
        uint64_t total = 0;

        for (uint32_t k = 0; k < tar->table.inode_count; k++) {
                const struct inode *x = &tar->table.inodes[k], *y;
                _cleanup_free_ uint8_t *bytes = NULL;

                if (!S_ISREG(x->mode))
                        continue;
                y = &toc->itable.inodes[other[k] - 1];
                bytes = read_content(reader, y->data, x->size);
                assert_memory_equal(bytes, tar->bytes.data + x->data, x->size);
                total += x->size;
        }
        assert_int_equal(total, toc->chunks.content_size);
}

static void every_file_has_the_bytes_of_the_tar(void **state)
{
        struct bench *b = *state;
        _cleanup_tar_ struct tar tar;

        tar_load("base.tar.gz", &tar);
        for (size_t k = 0; k < ELEMENTSOF(fixtures); k++) {
                const struct fixture *f = &fixtures[k];
                _cleanup_watched_ struct watched_blob *w = watch_layer(*state, f);
                _cleanup_(toc_close_ptr) struct toc *toc = NULL;
                _cleanup_reader_ struct reader reader = { 0 };
                _cleanup_free_ uint32_t *other = calloc(tar.table.inode_count, sizeof(*other));
                struct fetch_stats stats;
                char kind[LAYER_KIND_MAX];

                toc = index_and_open(b, w, f->annotations, kind);
                compare_trees(&tar.table, &toc->itable, other, f->whole_seconds);
                reader = reader_open(b, w, toc, kind);
                for (size_t i = 0; i < toc->chunks.chunk_count; i++)
                        assert_int_equal(content_has(reader.content, i), toc->chunks.chunks[i].codec == CODEC_ZEROS);
                compare_bytes(&tar, toc, &reader, other);
                fetcher_get_stats(reader.fetcher, &stats);
                assert_int_equal(stats.refetches, 0);
        }
}

/* The chunks of a layer in turn, so that all that is between them is fetched too. */
static void whole_layer_comes_once(void **state)
{
        struct bench *b = *state;

        for (size_t k = 0; k < ELEMENTSOF(fixtures); k++) {
                _cleanup_watched_ struct watched_blob *w = watch_layer(*state, &fixtures[k]);
                _cleanup_(toc_close_ptr) struct toc *toc = NULL;
                _cleanup_reader_ struct reader reader = { 0 };
                _cleanup_free_ uint8_t *bytes = NULL;
                char kind[LAYER_KIND_MAX];

                toc = index_and_open(b, w, fixtures[k].annotations, kind);
                atomic_store(&w->bytes, 0);
                reader = reader_open(b, w, toc, kind);
                bytes = read_content(&reader, 0, toc->chunks.content_size);
                assert_true(atomic_load(&w->bytes) <= w->blob.size);
        }
}

static void zeros_cost_no_request(void **state)
{
        struct bench *b = *state;

        for (size_t k = 0; k < ELEMENTSOF(fixtures); k++) {
                const struct fixture *f = &fixtures[k];
                _cleanup_watched_ struct watched_blob *w = NULL;
                _cleanup_(toc_close_ptr) struct toc *toc = NULL;
                _cleanup_reader_ struct reader reader = { 0 };
                const struct chunk *zeros = NULL;
                _cleanup_free_ uint8_t *bytes = NULL;
                char kind[LAYER_KIND_MAX];
                const struct inode *mixed;

                if (!strstr(f->file, ".zstdchunked"))
                        continue;
                w = watch_layer(*state, f);
                toc = index_and_open(b, w, f->annotations, kind);
                for (size_t i = 0; i < toc->chunks.chunk_count; i++)
                        if (toc->chunks.chunks[i].codec == CODEC_ZEROS)
                                zeros = &toc->chunks.chunks[i];
                mixed = inode_at(&toc->itable, "mixed-600k");
                assert_non_null(zeros);
                assert_non_null(mixed);
                assert_int_equal(zeros->content_offset, mixed->data + 200000);
                assert_int_equal(zeros->content_length, 200000);

                reader = reader_open(b, w, toc, kind);
                atomic_store(&w->requests, 0);
                bytes = read_content(&reader, zeros->content_offset, zeros->content_length);
                assert_true(bytes_are_zero(bytes, zeros->content_length));
                assert_int_equal(atomic_load(&w->requests), 0);
        }
}

/* ---- requests ---- */

static void table_comes_in_one_request(void **state)
{
        for (size_t k = 0; k < ELEMENTSOF(fixtures); k++) {
                _cleanup_watched_ struct watched_blob *w = watch_layer(*state, &fixtures[k]);
                char kind[LAYER_KIND_MAX];
                struct error e = ERROR_INIT;

                assert_int_equal(index_blob(*state, w, fixtures[k].annotations, kind, &e), 0);
                assert_int_equal(atomic_load(&w->requests), 1);
                assert_int_equal(atomic_load(&w->bytes), fixtures[k].table);
                assert_int_equal(((struct bench *) *state)->external_read, fixtures[k].external ? 1 : 0);
        }
}

#define HEX "85f895913a2ad54941a9aa7b70ad4e6e99dc4388ee880e2436029a9fb1ce59cb"

static void kind_follows_from_the_annotations(_unused_ void **state)
{
        static const char *const wrong[] = {
                "",
                "sha256:",
                HEX,
                "sha256:85F895913a2ad54941a9aa7b70ad4e6e99dc4388ee880e2436029a9fb1ce59cb",
                "sha256:" HEX "0",
                "sha512:" HEX HEX,
        };
        struct descriptor d = { 0 };
        char kind[LAYER_KIND_MAX] = "as before";

        for (size_t k = 0; k < ELEMENTSOF(fixtures); k++) {
                d.annotations = (char **) fixtures[k].annotations;
                assert_int_equal(embedded_kind(&d, kind), 0);
                assert_string_equal(kind, fixtures[k].kind);
        }
        strcpy(kind, "as before");
        for (size_t k = 0; k < ELEMENTSOF(wrong); k++) {
                char *annotations[] = { TEXT(STARGZ), TEXT(wrong[k]), NULL };

                d.annotations = annotations;
                assert_int_equal(embedded_kind(&d, kind), -ENOENT);
        }
        d.annotations = NULL;
        assert_int_equal(embedded_kind(&d, kind), -ENOENT);
        assert_string_equal(kind, "as before");
}

static void layer_without_a_digest_is_not_looked_at(void **state)
{
        static char *const none[] = { TEXT(CHUNKED "manifest-position"), TEXT("1289460:37857:150181:1"), NULL };
        _cleanup_watched_ struct watched_blob *w = watch_fixture("base.esgz");
        struct error e = ERROR_INIT;
        struct bench *b = *state;
        char kind[LAYER_KIND_MAX];

        assert_int_equal(index_blob(b, w, none, kind, &e), -ENOENT);
        assert_int_equal(index_blob(b, w, NULL, kind, &e), -ENOENT);
        assert_int_equal(e.kind, ERROR_NONE);
        assert_int_equal(atomic_load(&w->requests), 0);
        assert_int_equal(entries(below(&b->place, "layers")), 0);
}

/* The footers alone, where no annotation has the position. */
static void footer_tells_the_position_too(void **state)
{
        for (size_t k = 0; k < ELEMENTSOF(fixtures); k++) {
                const struct fixture *f = &fixtures[k];
                char *only_digests[5] = { 0 };
                _cleanup_watched_ struct watched_blob *w = NULL;
                struct error e = ERROR_INIT;
                char kind[LAYER_KIND_MAX];
                size_t n = 0;

                for (char *const *a = f->annotations; *a; a += 2)
                        if (!strstr(a[0], "position") && n + 2 < ELEMENTSOF(only_digests)) {
                                only_digests[n++] = a[0];
                                only_digests[n++] = a[1];
                        }
                w = watch_layer(*state, f);
                if (index_blob(*state, w, only_digests, kind, &e) < 0)
                        fail_msg("%s", e.message);
                assert_string_equal(kind, f->kind);
                assert_int_equal(atomic_load(&w->requests), 1);
        }
}

static void own_zstdchunked_of_stargz_needs_its_digest_only(void **state)
{
        char *annotations[] = { fixtures[3].annotations[0], fixtures[3].annotations[1], NULL };
        _cleanup_watched_ struct watched_blob *w = watch_fixture(fixtures[3].file);
        _cleanup_(toc_close_ptr) struct toc *toc = NULL;
        char kind[LAYER_KIND_MAX];

        toc = index_and_open(*state, w, annotations, kind);
        assert_string_equal(kind, "estargz-d247b078398dec4fc462ff7960218b556698f984b058c44d300ae2ccd6d760c7");
        assert_int_equal(toc->compression, COMPRESSION_ZSTD);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, bench_setup, bench_teardown)
        const struct CMUnitTest tests[] = {
                TEST(every_fixture_has_the_tree_of_the_tar),
                TEST(whiteouts_are_those_of_the_tar),
                TEST(every_file_has_the_bytes_of_the_tar),
                TEST(whole_layer_comes_once),
                TEST(zeros_cost_no_request),
                TEST(table_comes_in_one_request),
                TEST(kind_follows_from_the_annotations),
                TEST(layer_without_a_digest_is_not_looked_at),
                TEST(footer_tells_the_position_too),
                TEST(own_zstdchunked_of_stargz_needs_its_digest_only),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
