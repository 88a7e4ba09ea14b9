/* SPDX-License-Identifier: Apache-2.0 */

/* Layers that no producer wrote: odd ones that must be read all the same, and damaged or hostile ones. */

#include <zlib.h>
#include <zstd.h>

#include "embedded_fixture.h"

#define SPAN_MAX 8

/* A layer in the making: payloads that a table can name by letter. */
struct maker {
        struct buf blob;
        enum codec codec;
        struct {
                size_t offset;
                char digest[DIGEST_STRING_MAX];
        } payloads[SPAN_MAX];
        size_t count;
        char digest[DIGEST_STRING_MAX];   /* of the JSON */
        char checksum[DIGEST_STRING_MAX]; /* of the table as stored */
        char position[100];
};

static void maker_clear(struct maker *m)
{
        buf_free(&m->blob);
}
#define _cleanup_maker_ _cleanup_(maker_clear)

static void sha256_text(const void *data, size_t n, char out[DIGEST_STRING_MAX])
{
        struct digest d;

        assert_int_equal(digest_of(DIGEST_SHA256, data, n, &d), 0);
        digest_format(&d, out);
}

static void append_gzip(struct buf *b, const void *data, size_t n)
{
        z_stream z = { 0 };

        assert_int_equal(deflateInit2(&z, 1, Z_DEFLATED, MAX_WBITS + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
        assert_int_equal(buf_reserve(b, deflateBound(&z, n)), 0);
        z.next_in = (Bytef *) data;
        z.avail_in = (uInt) n;
        z.next_out = (Bytef *) b->data + b->len;
        z.avail_out = (uInt) deflateBound(&z, n);
        assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
        b->len += z.total_out;
        deflateEnd(&z);
}

static void append_zstd(struct buf *b, const void *data, size_t n)
{
        assert_int_equal(buf_reserve(b, ZSTD_compressBound(n)), 0);
        b->len += ZSTD_compress(b->data + b->len, ZSTD_compressBound(n), data, n, 1);
}

/* A member, or a frame, with these bytes. */
static void add_payload(struct maker *m, const void *data, size_t n)
{
        m->payloads[m->count].offset = m->blob.len;
        sha256_text(data, n, m->payloads[m->count].digest);
        m->count++;
        if (m->codec == CODEC_ZSTD)
                append_zstd(&m->blob, data, n);
        else
                append_gzip(&m->blob, data, n);
}

/* TEMPLATE with @A, @B … replaced by the offset of a payload, #A by its digest and @$ by the end of the data. */
static void fill_template(const struct maker *m, const char *template, struct buf *ret)
{
        for (const char *p = template; *p; p++) {
                size_t i = (size_t) (p[1] - 'A');

                if (*p == '@' && p[1] == '$') {
                        buf_printf(ret, "%zu", m->blob.len);
                        p++;
                } else if (*p == '@' && i < m->count) {
                        buf_printf(ret, "%zu", m->payloads[i].offset);
                        p++;
                } else if (*p == '#' && i < m->count) {
                        buf_append_str(ret, m->payloads[i].digest);
                        p++;
                } else {
                        buf_append_char(ret, *p);
                }
        }
}

/* A ustar member NAME. */
static void append_tar(struct buf *b, const char *name, const void *data, size_t n)
{
        static const char zeros[1024];
        char header[512] = { 0 };
        unsigned sum = 8 * ' ';

        snprintf(header, 100, "%s", name);
        snprintf(header + 100, 8, "%07o", 0644u);
        snprintf(header + 108, 8, "%07o", 0u);
        snprintf(header + 116, 8, "%07o", 0u);
        snprintf(header + 124, 12, "%011zo", n);
        snprintf(header + 136, 12, "%011o", 0u);
        header[156] = '0';
        memcpy(header + 257, "ustar\00000", 8);
        for (size_t k = 0; k < sizeof(header); k++)
                sum += (unsigned char) header[k];
        snprintf(header + 148, 8, "%06o", sum);
        header[155] = ' ';
        buf_append(b, header, sizeof(header));
        buf_append(b, data, n);
        buf_append(b, zeros, -n % 512);
}

enum footer {
        FOOTER_ESTARGZ,
        FOOTER_LEGACY,
        FOOTER_EXTERNAL,
};

static void append_footer(struct buf *b, uint64_t offset, enum footer kind)
{
        static const char *const formats[] = { "%016jxSTARGZ", "%016jxSTARGZ", "STARGZEXTERNALTOC" };
        char extra[64];
        uint8_t header[16] = { 0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff };
        size_t n = 12;

        _Pragma("GCC diagnostic push") _Pragma("GCC diagnostic ignored \"-Wformat-nonliteral\"")
                snprintf(extra, sizeof(extra), formats[kind], (uintmax_t) offset);
        _Pragma("GCC diagnostic pop") header[10] = (uint8_t) strlen(extra);
        if (kind != FOOTER_LEGACY) {
                memcpy(header + 12, "SG", 2);
                header[14] = (uint8_t) strlen(extra);
                header[10] += 4;
                n = 16;
        }
        buf_append(b, header, n);
        buf_append_str(b, extra);
        buf_append(b, "\1\0\0\xff\xff\0\0\0\0\0\0\0\0", 13);
}

static void end_estargz(struct maker *m, const struct buf *json, const char *name, enum footer kind)
{
        _cleanup_buf_ struct buf tar = { 0 };
        uint64_t offset = m->blob.len;

        append_tar(&tar, name, json->data, json->len);
        append_gzip(&m->blob, tar.data, tar.len);
        append_footer(&m->blob, offset, kind);
        sha256_text(json->data, json->len, m->digest);
}

static void append_skippable(struct buf *b, const void *data, size_t n)
{
        const uint32_t header[] = { 0x184d2a50, (uint32_t) n };

        buf_append(b, header, sizeof(header));
        buf_append(b, data, n);
}

static void end_zstdchunked(struct maker *m, const struct buf *json)
{
        _cleanup_buf_ struct buf packed = { 0 };
        uint64_t numbers[4];

        append_zstd(&packed, json->data, json->len);
        sha256_text(packed.data, packed.len, m->checksum);
        numbers[0] = m->blob.len + 8;
        numbers[1] = packed.len;
        numbers[2] = json->len;
        numbers[3] = 1;
        snprintf(m->position, sizeof(m->position), "%ju:%ju:%ju:1", (uintmax_t) numbers[0], (uintmax_t) numbers[1],
                 (uintmax_t) numbers[2]);
        append_skippable(&m->blob, packed.data, packed.len);

        struct buf footer = { 0 };
        buf_append(&footer, numbers, sizeof(numbers));
        buf_append_str(&footer, "GnUlInUx");
        append_skippable(&m->blob, footer.data, footer.len);
        buf_free(&footer);
}

/* Ends the layer with a table of these entries. */
static void end_with(struct maker *m, const char *entries)
{
        _cleanup_buf_ struct buf json = { 0 };

        buf_append_str(&json, "{\"version\":1,\"entries\":[");
        fill_template(m, entries, &json);
        buf_append_str(&json, "]}");
        if (m->codec == CODEC_ZSTD)
                end_zstdchunked(m, &json);
        else
                end_estargz(m, &json, "stargz.index.json", FOOTER_ESTARGZ);
}

/* Annotations of what was made; borrowed from M. */
struct annotations {
        char *list[5];
};

static struct annotations annotate(struct maker *m)
{
        struct annotations a = { { (char *) STARGZ, m->digest } };

        if (m->codec == CODEC_ZSTD)
                a = (struct annotations) { { (char *) CHUNKED "manifest-checksum", m->checksum,
                                             (char *) CHUNKED "manifest-position", m->position } };
        return a;
}

static int index_made(struct bench *b, struct maker *m, struct error *e)
{
        _cleanup_watched_ struct watched_blob *w = watch(m->blob.data, m->blob.len);
        struct annotations a = annotate(m);
        char kind[LAYER_KIND_MAX];
        int r = index_blob(b, w, a.list, kind, e);

        if (r < 0) {
                assert_int_equal(entries(below(&b->place, "layers")), 0);
                assert_int_equal(entries(below(&b->place, "tmp")), 0);
        }
        return r;
}

#define A "alpha alpha"
#define B "beta, which is longer than alpha"
#define A_SIZE "11"
#define B_SIZE "32"

/* Payload A, a megabyte of zeros, payload B. */
static void add_usual(struct maker *m)
{
        _cleanup_free_ char *zeros = calloc(1, MIB);

        add_payload(m, A, strlen(A));
        add_payload(m, B, strlen(B));
        add_payload(m, zeros, MIB);
}

#define FILE_A "{\"type\":\"reg\",\"name\":\"a\",\"size\":" A_SIZE ",\"offset\":@A,\"digest\":\"#A\"}"
#define FILE_B "{\"type\":\"reg\",\"name\":\"b\",\"size\":" B_SIZE ",\"offset\":@B,\"digest\":\"#B\"}"

static void expect_refused(struct bench *b, enum codec codec, const char *table, const char *why)
{
        _cleanup_maker_ struct maker m = { .codec = codec };
        struct error e = ERROR_INIT;

        add_usual(&m);
        end_with(&m, table);
        if (index_made(b, &m, &e) != -EBADMSG)
                fail_msg("passes: %s", table);
        assert_int_equal(e.kind, ERROR_BAD_DATA);
        if (!strstr(e.message, why) || strncmp(e.message, "blob 7: table of contents: ", 27) != 0)
                fail_msg("%s\nsays: %s\nnot: %s", table, e.message, why);
}

/* ---- tables ---- */

static void table_that_cannot_be_true_is_refused(void **state)
{
        static const struct {
                const char *table, *why;
        } cases[] = {
                /* sizes */
                { "{\"type\":\"chunk\",\"name\":\"a\",\"offset\":@A}", "a: a chunk without a file" },
                { "{\"type\":\"dir\",\"name\":\"d\"},{\"type\":\"chunk\",\"offset\":@A}", "a chunk without a file" },
                { FILE_A ",{\"type\":\"dir\",\"name\":\"d\"},{\"type\":\"chunk\",\"offset\":@B}",
                  "a chunk without a file" },
                { "{\"type\":\"reg\",\"name\":\"a\",\"chunkSize\":5}", "a: an empty file with a chunk" },
                { "{\"type\":\"reg\",\"name\":\"a\"},{\"type\":\"chunk\",\"offset\":@A}", "a chunk without a file" },
                { "{\"type\":\"reg\",\"name\":\"a\",\"size\":20,\"offset\":@A,\"chunkSize\":11,\"chunkDigest\":\"#A\"}",
                  "a: its chunks hold 11 of its 20 bytes" },
                { "{\"type\":\"reg\",\"name\":\"a\",\"size\":20,\"offset\":@A,\"chunkSize\":11,\"chunkDigest\":\"#A\"}," FILE_B,
                  "a: its chunks hold 11 of its 20 bytes" },
                { "{\"type\":\"reg\",\"name\":\"a\",\"size\":11,\"offset\":@A,\"chunkSize\":12,\"digest\":\"#A\"}",
                  "a: a chunk of 12 bytes where 11 of the file are left" },
                { FILE_A ",{\"type\":\"chunk\",\"offset\":@B,\"chunkOffset\":11}", "a: a chunk of 0 bytes where 0 of" },
                { "{\"type\":\"reg\",\"name\":\"a\",\"size\":11,\"offset\":@A,\"chunkOffset\":1,\"digest\":\"#A\"}",
                  "a: a chunk at file offset 1 where 0 is due" },
                { "{\"type\":\"reg\",\"name\":\"a\",\"size\":43,\"offset\":@A,\"chunkSize\":11,\"chunkDigest\":\"#A\"},"
                  "{\"type\":\"chunk\",\"offset\":@B,\"chunkOffset\":10,\"chunkDigest\":\"#B\"}",
                  "a: a chunk at file offset 10 where 11 is due" },
                { "{\"type\":\"reg\",\"name\":\"a\",\"size\":43,\"offset\":@A,\"chunkSize\":11,\"chunkDigest\":\"#A\"},"
                  "{\"type\":\"chunk\",\"offset\":@B,\"chunkOffset\":12,\"chunkDigest\":\"#B\"}",
                  "a: a chunk at file offset 12 where 11 is due" },
                { "{\"type\":\"reg\",\"name\":\"a\",\"size\":9223372036854775807,\"offset\":@A,\"chunkSize\":11,"
                  "\"chunkDigest\":\"#A\"}",
                  "a: its chunks hold 11 of its 9223372036854775807 bytes" },
                /* digests */
                { "{\"type\":\"reg\",\"name\":\"a\",\"size\":11,\"offset\":@A}",
                  "a: the chunk at file offset 0 has no digest" },
                { "{\"type\":\"reg\",\"name\":\"a\",\"size\":43,\"offset\":@A,\"chunkSize\":11,\"digest\":\"#A\"}",
                  "a: the chunk at file offset 0 has no digest" },
                { "{\"type\":\"reg\",\"name\":\"a\",\"size\":11,\"offset\":@A,\"digest\":\"#A\",\"chunkDigest\":\"#B\"}",
                  "a: one chunk, but its digest is not the file's" },
                /* places */
                { "{\"type\":\"reg\",\"name\":\"a\",\"size\":11,\"offset\":9223372036854775807,\"digest\":\"#A\"}",
                  "a: blob offset 9223372036854775807 lies outside" },
                { "{\"type\":\"reg\",\"name\":\"a\",\"size\":11,\"offset\":@$1,\"digest\":\"#A\"}",
                  "lies outside of the" },
                { "{\"type\":\"reg\",\"name\":\"a\",\"size\":11,\"offset\":@$,\"digest\":\"#A\"}",
                  "a: chunk 0: the blob range is empty" },
                { FILE_B "," FILE_A, "a: blob offset 0 overlaps what stands before it, or precedes it" },
                { FILE_A "," FILE_A, "a: the chunk at blob offset 0, inner offset 0, overlaps the one before it" },
                { FILE_A
                  ",{\"type\":\"reg\",\"name\":\"x\",\"size\":1,\"offset\":@A,\"innerOffset\":10,\"digest\":\"#A\"}",
                  "x: the chunk at blob offset 0, inner offset 10, overlaps the one before it" },
                { "{\"type\":\"reg\",\"name\":\"a\",\"size\":11,\"offset\":@B,\"endOffset\":@B,\"digest\":\"#A\"}",
                  "a: it ends in the blob where it begins" },
                { "{\"type\":\"reg\",\"name\":\"a\",\"size\":11,\"offset\":@B,\"endOffset\":1,\"digest\":\"#A\"}",
                  "a: blob offset 1 overlaps what stands before it, or precedes it" },
                { "{\"type\":\"reg\",\"name\":\"a\",\"size\":11,\"offset\":@A,\"endOffset\":@$0,\"digest\":\"#A\"}",
                  "lies outside of the" },
                { "{\"type\":\"reg\",\"name\":\"a\",\"size\":11,\"offset\":@A,\"endOffset\":@C,\"digest\":\"#A\"}," FILE_B,
                  "overlaps what stands before it, or precedes it" },
                { FILE_B ",{\"type\":\"reg\",\"name\":\"z\",\"size\":5,\"offset\":@A,\"chunkType\":\"zeros\"}",
                  "z: blob offset 0 overlaps what stands before it, or precedes it" },
                { FILE_A ",{\"type\":\"reg\",\"name\":\"z\",\"size\":5,\"offset\":@A,\"chunkType\":\"zeros\"}",
                  "z: blob offset 0 overlaps what stands before it" },
                { "{\"type\":\"reg\",\"name\":\"a\",\"size\":11,\"offset\":@A,\"innerOffset\":9223372036854775807,"
                  "\"digest\":\"#A\"}",
                  "a: chunk 0: the blob range cannot hold so much content" },
                /* lengths */
                { "{\"type\":\"reg\",\"name\":\"a\",\"size\":33554432,\"offset\":@A,\"endOffset\":5,\"digest\":\"#A\"}",
                  "a: chunk 0: the blob range cannot hold so much content" },
                { "{\"type\":\"reg\",\"name\":\"a\",\"size\":33554433,\"offset\":@A,\"digest\":\"#A\"}",
                  "a: a chunk of 33554433 bytes: regfs takes chunks of at most 32 MiB" },
                { "{\"type\":\"reg\",\"name\":\"a\",\"size\":1099511627777,\"offset\":@A,\"chunkType\":\"zeros\"}",
                  "a: the layer has more than 1 TiB of zeros" },
                /* what the tree refuses */
                { "{\"type\":\"reg\",\"name\":\"/\"}", "the root is no directory" },
                { "{\"type\":\"symlink\",\"name\":\"s\"}", "s: the symlink has no target" },
                { "{\"type\":\"hardlink\",\"name\":\"h\"}", "h: the hardlink has no target" },
                { "{\"type\":\"hardlink\",\"name\":\"h\",\"linkName\":\"h\"}", "h: hardlink to h" },
                { "{\"type\":\"dir\",\"name\":\"d\"},{\"type\":\"hardlink\",\"name\":\"h\",\"linkName\":\"d\"}",
                  "h: hardlink to d, which leads to a directory" },
                { "{\"type\":\"reg\",\"name\":\"d/.wh.\"}", "a whiteout must name a file" },
                /* JSON */
                { "{\"type\":\"dir\",\"name\":\"d\"},{\"type\":\"dir\"}", "entry 2: no name" },
                { "[[[[", "an element of entries is no object" },
                { "{\"x\":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", "nests more than" },
        };

        for (size_t k = 0; k < ELEMENTSOF(cases); k++) {
                expect_refused(*state, CODEC_GZIP, cases[k].table, cases[k].why);
                if (!strstr(cases[k].why, "cannot hold so much"))
                        expect_refused(*state, CODEC_ZSTD, cases[k].table, cases[k].why);
        }
}

static void names_stay_inside_the_root(void **state)
{
        _cleanup_maker_ struct maker m = { .codec = CODEC_GZIP };
        _cleanup_watched_ struct watched_blob *w = NULL;
        _cleanup_(toc_close_ptr) struct toc *toc = NULL;
        char kind[LAYER_KIND_MAX];

        add_usual(&m);
        end_with(&m,
                 "{\"type\":\"dir\",\"name\":\"./\",\"mode\":448},{\"type\":\"dir\",\"name\":\"./a/\",\"mode\":493},"
                 "{\"type\":\"reg\",\"name\":\"../../etc//passwd\"},{\"type\":\"reg\",\"name\":\"/a/./b/../c\"},"
                 "{\"type\":\"hardlink\",\"name\":\"up\",\"linkName\":\"/../../etc/passwd\"},"
                 "{\"type\":\"hardlink\",\"name\":\"nowhere\",\"linkName\":\"./no/such\"}");
        w = watch(m.blob.data, m.blob.len);
        toc = index_and_open(*state, w, annotate(&m).list, kind);
        assert_int_equal(inode_at(&toc->itable, "")->mode, S_IFDIR | 0700);
        assert_non_null(inode_at(&toc->itable, "a/c"));
        assert_ptr_equal(inode_at(&toc->itable, "etc/passwd"), inode_at(&toc->itable, "up"));
        assert_int_equal(toc->itable.dirents[itable_find(&toc->itable, 0, "nowhere", 7)].type, DIRENT_LINK);
}

/* ---- odd layers ---- */

/* What stargz writes with a smallest chunk size: members with several files, their tar headers between them. */
static void files_that_share_a_member_are_slices_of_it(void **state)
{
        static const char member[] = "header..." A "padding and another header" B "...";
        struct bench *b = *state;
        _cleanup_maker_ struct maker m = { .codec = CODEC_GZIP };
        _cleanup_watched_ struct watched_blob *w = NULL;
        _cleanup_(toc_close_ptr) struct toc *toc = NULL;
        _cleanup_reader_ struct reader reader = { 0 };
        _cleanup_free_ uint8_t *bytes = NULL;
        char kind[LAYER_KIND_MAX];

        add_payload(&m, A, strlen(A));
        add_payload(&m, B, strlen(B));
        buf_free(&m.blob);
        m.blob = (struct buf) { 0 };
        add_payload(&m, member, strlen(member));
        add_payload(&m, A, strlen(A));
        end_with(&m, "{\"type\":\"reg\",\"name\":\"a\",\"size\":" A_SIZE ",\"innerOffset\":9,\"digest\":\"#A\"},"
                     "{\"type\":\"reg\",\"name\":\"b\",\"size\":" B_SIZE ",\"innerOffset\":46,\"chunkDigest\":\"#B\"},"
                     "{\"type\":\"reg\",\"name\":\"empty\"},"
                     "{\"type\":\"reg\",\"name\":\"c\",\"size\":" A_SIZE ",\"offset\":@D,\"digest\":\"#A\"}");
        w = watch(m.blob.data, m.blob.len);
        toc = index_and_open(b, w, annotate(&m).list, kind);
        assert_int_equal(toc->chunks.chunk_count, 3);
        assert_int_equal(toc->chunks.chunks[0].flags, CHUNK_DIGEST_CONTENT | CHUNK_SLICE);
        assert_int_equal(toc->chunks.chunks[1].flags, CHUNK_DIGEST_CONTENT | CHUNK_SLICE);
        assert_int_equal(toc->chunks.chunks[2].flags, CHUNK_DIGEST_CONTENT);

        reader = reader_open(b, w, toc, kind);
        atomic_store(&w->requests, 0);
        bytes = read_content(&reader, inode_at(&toc->itable, "b")->data, strlen(B));
        assert_memory_equal(bytes, B, strlen(B));
        free(bytes);
        bytes = read_content(&reader, inode_at(&toc->itable, "a")->data, strlen(A));
        assert_memory_equal(bytes, A, strlen(A));
        assert_int_equal(atomic_load(&w->requests), 1);
        free(bytes);
        bytes = read_content(&reader, inode_at(&toc->itable, "c")->data, strlen(A));
        assert_memory_equal(bytes, A, strlen(A));
}

/* The landmark begins a member that files behind it share. */
static void landmark_may_share_its_member(void **state)
{
        static const char member[] = "\x0fpadding" A;
        struct bench *b = *state;
        _cleanup_maker_ struct maker m = { .codec = CODEC_GZIP };
        _cleanup_watched_ struct watched_blob *w = NULL;
        _cleanup_(toc_close_ptr) struct toc *toc = NULL;
        _cleanup_reader_ struct reader reader = { 0 };
        _cleanup_free_ uint8_t *bytes = NULL;
        char kind[LAYER_KIND_MAX];

        add_payload(&m, B, strlen(B));
        add_payload(&m, member, strlen(member));
        sha256_text(A, strlen(A), m.payloads[m.count++].digest);
        end_with(&m, "{\"type\":\"reg\",\"name\":\"b\",\"size\":" B_SIZE ",\"offset\":@A,\"digest\":\"#A\"},"
                     "{\"type\":\"reg\",\"name\":\".prefetch.landmark\",\"size\":1,\"offset\":@B,\"digest\":"
                     "\"sha256:dc0e9c3658a1a3ed1ec94274d8b19925c93e1abb7ddba294923ad9bde30f8cb8\"},"
                     "{\"type\":\"reg\",\"name\":\"a\",\"size\":" A_SIZE
                     ",\"offset\":@B,\"innerOffset\":8,\"digest\":\"#C\"}");
        w = watch(m.blob.data, m.blob.len);
        toc = index_and_open(b, w, annotate(&m).list, kind);
        assert_null(inode_at(&toc->itable, ".prefetch.landmark"));
        assert_int_equal(toc->chunks.prefetch, strlen(B));
        reader = reader_open(b, w, toc, kind);
        bytes = read_content(&reader, 0, strlen(B) + strlen(A));
        assert_memory_equal(bytes, B A, strlen(B) + strlen(A));
}

/* Files that only look like landmarks. */
static void other_files_named_like_landmarks_show(void **state)
{
        _cleanup_maker_ struct maker m = { .codec = CODEC_GZIP };
        _cleanup_watched_ struct watched_blob *w = NULL;
        _cleanup_(toc_close_ptr) struct toc *toc = NULL;
        char kind[LAYER_KIND_MAX];

        add_usual(&m);
        end_with(&m, "{\"type\":\"reg\",\"name\":\".no.prefetch.landmark\",\"size\":" A_SIZE
                     ",\"offset\":@A,\"digest\":\"#A\"},"
                     "{\"type\":\"dir\",\"name\":\".prefetch.landmark\"}");
        w = watch(m.blob.data, m.blob.len);
        toc = index_and_open(*state, w, annotate(&m).list, kind);
        assert_non_null(inode_at(&toc->itable, ".no.prefetch.landmark"));
        assert_non_null(inode_at(&toc->itable, ".prefetch.landmark"));
        assert_int_equal(toc->chunks.prefetch, 0);
}

static void sha256_of_zeros(size_t n, char out[DIGEST_STRING_MAX])
{
        _cleanup_free_ uint8_t *zeros = calloc(1, n);

        sha256_text(zeros, n, out);
}

/* A hole longer than any chunk: named as one, or known by its digest. */
static void long_holes_are_cut(void **state)
{
        static const char *const tables[] = {
                FILE_A
                ",{\"type\":\"reg\",\"name\":\"z\",\"size\":41943047,\"offset\":@B,\"digest\":\"#D\",\"endOffset\":@C}",
                FILE_A ",{\"type\":\"reg\",\"name\":\"z\",\"size\":41943047,\"offset\":@B,\"chunkType\":\"zeros\"}",
        };
        struct bench *b = *state;

        for (size_t k = 0; k < ELEMENTSOF(tables); k++) {
                _cleanup_maker_ struct maker m = { .codec = CODEC_ZSTD };
                _cleanup_watched_ struct watched_blob *w = NULL;
                _cleanup_(toc_close_ptr) struct toc *toc = NULL;
                _cleanup_reader_ struct reader reader = { 0 };
                _cleanup_free_ uint8_t *bytes = NULL;
                char kind[LAYER_KIND_MAX];

                add_usual(&m);
                sha256_of_zeros(41943047, m.payloads[m.count++].digest);
                end_with(&m, tables[k]);
                w = watch(m.blob.data, m.blob.len);
                toc = index_and_open(b, w, annotate(&m).list, kind);
                assert_int_equal(toc->chunks.chunk_count, 3);
                reader = reader_open(b, w, toc, kind);
                atomic_store(&w->requests, 0);
                bytes = read_content(&reader, inode_at(&toc->itable, "z")->data, 41943047);
                assert_true(bytes_are_zero(bytes, 41943047));
                assert_int_equal(atomic_load(&w->requests), 0);
        }
}

/* More than the first request brings, and incompressible. */
static void long_table_costs_one_more_request(void **state)
{
        for (unsigned k = 0; k < 2; k++) {
                _cleanup_maker_ struct maker m = { .codec = k ? CODEC_ZSTD : CODEC_GZIP };
                _cleanup_watched_ struct watched_blob *w = NULL;
                _cleanup_(toc_close_ptr) struct toc *toc = NULL;
                _cleanup_buf_ struct buf table = { 0 };
                char kind[LAYER_KIND_MAX];
                char digest[DIGEST_STRING_MAX];
                size_t data;

                add_usual(&m);
                data = m.blob.len;
                for (unsigned i = 0; i < 10000; i++) {
                        sha256_text(&i, sizeof(i), digest);
                        buf_printf(&table, "{\"type\":\"dir\",\"name\":\"%s\"},", digest);
                }
                buf_append_str(&table, FILE_A);
                end_with(&m, table.data);
                w = watch(m.blob.data, m.blob.len);
                toc = index_and_open(*state, w, annotate(&m).list, kind);
                assert_int_equal(toc->itable.inode_count, 10002);
                assert_true(m.blob.len > data + 2 * EMBEDDED_TAIL);
                assert_int_equal(atomic_load(&w->requests), k ? 1 : 2);
                assert_true(atomic_load(&w->bytes) <= m.blob.len - data);
        }
}

static void legacy_footer_is_read(void **state)
{
        _cleanup_maker_ struct maker m = { .codec = CODEC_GZIP };
        _cleanup_buf_ struct buf json = { 0 };
        struct error e = ERROR_INIT;

        add_usual(&m);
        fill_template(&m, "{\"version\":1,\"entries\":[" FILE_A "," FILE_B "]}", &json);
        end_estargz(&m, &json, "stargz.index.json", FOOTER_LEGACY);
        assert_int_equal(index_made(*state, &m, &e), 0);
}

static void table_elsewhere_is_no_error(void **state)
{
        _cleanup_maker_ struct maker m = { .codec = CODEC_GZIP };
        struct error e = ERROR_INIT;

        add_usual(&m);
        append_footer(&m.blob, 0, FOOTER_EXTERNAL);
        sha256_text("x", 1, m.digest);
        assert_int_equal(index_made(*state, &m, &e), -ENOENT);
        assert_int_equal(e.kind, ERROR_NONE);
}

/* ---- damage on the way ---- */

static void expect_damage(struct bench *b, struct maker *m, const char *why)
{
        struct error e = ERROR_INIT;

        assert_int_equal(index_made(b, m, &e), -EBADMSG);
        if (!strstr(e.message, why))
                fail_msg("says: %s\nnot: %s", e.message, why);
}

static void spoil_digest(char *digest)
{
        digest[10] = digest[10] == '0' ? '1' : '0';
}

static void wrong_digests_are_refused(void **state)
{
        _cleanup_maker_ struct maker gzip = { .codec = CODEC_GZIP }, zstd = { .codec = CODEC_ZSTD };

        add_usual(&gzip);
        end_with(&gzip, FILE_A);
        spoil_digest(gzip.digest);
        expect_damage(*state, &gzip, "the digest of its JSON is sha256:");

        add_usual(&zstd);
        end_with(&zstd, FILE_A);
        spoil_digest(zstd.checksum);
        expect_damage(*state, &zstd, "its digest is sha256:");
}

/* Bytes that somebody changed say nothing about the table. */
static void digest_is_blamed_before_the_table(void **state)
{
        _cleanup_maker_ struct maker m = { .codec = CODEC_GZIP };

        add_usual(&m);
        end_with(&m, "{}");
        spoil_digest(m.digest);
        expect_damage(*state, &m, "the digest of its JSON is sha256:");
}

static void both_digests_of_stargz_are_checked(void **state)
{
        _cleanup_maker_ struct maker m = { .codec = CODEC_ZSTD };
        char *annotations[] = { (char *) CHUNKED "manifest-checksum",
                                m.checksum,
                                (char *) CHUNKED "manifest-position",
                                m.position,
                                (char *) STARGZ,
                                m.digest,
                                NULL };
        _cleanup_watched_ struct watched_blob *w = NULL;
        struct error e = ERROR_INIT;
        char kind[LAYER_KIND_MAX];

        add_usual(&m);
        end_with(&m, FILE_A);
        sha256_text("something else", 14, m.digest);
        w = watch(m.blob.data, m.blob.len);
        assert_int_equal(index_blob(*state, w, annotations, kind, &e), -EBADMSG);
        assert_non_null(strstr(e.message, "the digest of its JSON is sha256:"));
}

static void truncated_layers_are_refused(void **state)
{
        for (unsigned k = 0; k < 2; k++) {
                _cleanup_maker_ struct maker m = { .codec = k ? CODEC_ZSTD : CODEC_GZIP };
                size_t data, whole;

                add_usual(&m);
                data = m.blob.len;
                end_with(&m, FILE_A "," FILE_B);
                whole = m.blob.len;
                for (size_t n = 1; n < whole; n += n < data ? 97 : 1) {
                        struct error e = ERROR_INIT;

                        m.blob.len = n;
                        /* zstd:chunked needs nothing behind the table */
                        if (k == 1 && n >= whole - 48)
                                break;
                        assert_int_equal(index_made(*state, &m, &e), -EBADMSG);
                        assert_int_equal(e.kind, ERROR_BAD_DATA);
                }
        }
}

static void changed_bytes_of_the_table_are_found(void **state)
{
        for (unsigned k = 0; k < 2; k++) {
                _cleanup_maker_ struct maker m = { .codec = k ? CODEC_ZSTD : CODEC_GZIP };
                size_t data, end, refused = 0;

                add_usual(&m);
                data = m.blob.len;
                end_with(&m, FILE_A "," FILE_B);
                end = m.blob.len - (k ? 48 : 51);
                for (size_t i = data; i < end; i++) {
                        struct error e = ERROR_INIT;
                        int r;

                        m.blob.data[i] ^= 0x20;
                        r = index_made(*state, &m, &e);
                        m.blob.data[i] ^= 0x20;
                        if (r < 0) {
                                assert_int_equal(r, -EBADMSG);
                                refused++;
                        } else { /* a byte of a header that means nothing: the JSON was right, and is published */
                                assert_int_equal(bench_teardown(state), 0);
                                assert_int_equal(bench_setup(state), 0);
                        }
                }
                assert_true(refused > (end - data) / 2);
        }
}

static void damage_on_the_way_is_fetched_once_more(void **state)
{
        for (unsigned spoilt = 1; spoilt <= 2; spoilt++)
                for (unsigned k = 0; k < 2; k++) {
                        _cleanup_maker_ struct maker m = { .codec = k ? CODEC_ZSTD : CODEC_GZIP };
                        _cleanup_watched_ struct watched_blob *w = NULL;
                        _cleanup_buf_ struct buf table = { 0 };
                        struct error e = ERROR_INIT;
                        char kind[LAYER_KIND_MAX];
                        int r;

                        /* Long enough that the first byte of the first request lies in it. */
                        for (unsigned i = 0; i < 10000; i++) {
                                char digest[DIGEST_STRING_MAX];

                                sha256_text(&i, sizeof(i), digest);
                                buf_printf(&table, "%s{\"type\":\"dir\",\"name\":\"%s\"}", i ? "," : "", digest);
                        }
                        end_with(&m, table.data);
                        w = watch(m.blob.data, m.blob.len);
                        atomic_store(&w->spoilt, k ? spoilt : spoilt == 1 ? 1 : 4);
                        r = index_blob(*state, w, annotate(&m).list, kind, &e);
                        assert_int_equal(r, spoilt == 1 ? 0 : -EBADMSG);
                        assert_int_equal(atomic_load(&w->requests), k ? 2 : 4);
                }
}

/* What is right by its digest and bad all the same does not get better. */
static void bad_table_is_not_fetched_again(void **state)
{
        _cleanup_maker_ struct maker m = { .codec = CODEC_ZSTD };
        _cleanup_watched_ struct watched_blob *w = NULL;
        struct error e = ERROR_INIT;
        char kind[LAYER_KIND_MAX];

        end_with(&m, "{}");
        w = watch(m.blob.data, m.blob.len);
        assert_int_equal(index_blob(*state, w, annotate(&m).list, kind, &e), -EBADMSG);
        assert_int_equal(atomic_load(&w->requests), 1);
}

static void wrong_positions_are_refused(void **state)
{
        static const struct {
                const char *position, *why;
        } cases[] = {
                { "", "annotation manifest-position: not offset:length:length:type" },
                { "1:2:3", "not offset:length:length:type" },
                { "1:2:3:1:5", "not offset:length:length:type" },
                { "-1:2:3:1", "not offset:length:length:type" },
                { "99999999999999999999:2:3:1", "not offset:length:length:type" },
                { "100:2:3:2", "unknown type 2" },
                { "7:2:3:1", "a table at offset 7 of 3 bytes" },
                { "100:0:3:1", "a table of 0 bytes" },
                { "100:2:0:1", "a table at offset 100 of 0 bytes" },
                { "100:2:268435457:1", "a table at offset 100 of 268435457 bytes" },
                { "18446744073709551615:2:3:1", "a table of 2 bytes at offset 18446744073709551615 of a blob of" },
                { "100:18446744073709551615:3:1", "of a blob of" },
                { "100:20:30:1", "zstd: " },
        };

        for (size_t k = 0; k < ELEMENTSOF(cases); k++) {
                _cleanup_maker_ struct maker m = { .codec = CODEC_ZSTD };

                add_usual(&m);
                end_with(&m, FILE_A);
                snprintf(m.position, sizeof(m.position), "%s", cases[k].position);
                expect_damage(*state, &m, cases[k].why);
        }
}

static void announced_length_must_be_right(void **state)
{
        _cleanup_maker_ struct maker m = { .codec = CODEC_ZSTD };
        char *length;

        add_usual(&m);
        end_with(&m, FILE_A);
        length = strrchr(m.position, ':');
        length[-1] = length[-1] == '9' ? '8' : (char) (length[-1] + 1);
        expect_damage(*state, &m, "bytes of JSON where");
}

static void wrong_footers_are_refused(void **state)
{
        _cleanup_maker_ struct maker good = { .codec = CODEC_GZIP };
        size_t end;

        add_usual(&good);
        end_with(&good, FILE_A);
        end = good.blob.len;
        /* Every byte that says that this is a footer, and where the table is. */
        for (size_t i = 0; i < 12 + 4 + 16 + 6; i++) {
                struct error e = ERROR_INIT;

                if (i >= 4 && i < 10)
                        continue;
                good.blob.data[end - 51 + i] ^= 0x50;
                if (index_made(*state, &good, &e) != -EBADMSG)
                        fail_msg("byte %zu of the footer", i);
                good.blob.data[end - 51 + i] ^= 0x50;
        }
}

static void archive_without_a_table_is_refused(void **state)
{
        _cleanup_maker_ struct maker m = { .codec = CODEC_GZIP };
        _cleanup_buf_ struct buf json = { 0 };

        buf_append_str(&json, "{\"version\":1,\"entries\":[]}");
        end_estargz(&m, &json, "another.json", FOOTER_ESTARGZ);
        expect_damage(*state, &m, "there is no stargz.index.json");
}

static void empty_layer_is_refused(void **state)
{
        _cleanup_maker_ struct maker m = { .codec = CODEC_GZIP };

        sha256_text("", 0, m.digest);
        expect_damage(*state, &m, "the layer is empty");
}

/* It inflates to more than is taken; that it is no JSON does not matter then. */
static void table_of_more_than_256_mib_is_refused(void **state)
{
        _cleanup_maker_ struct maker m = { .codec = CODEC_ZSTD };
        _cleanup_buf_ struct buf json = { 0 };
        char *rest;

        assert_int_equal(buf_reserve(&json, EMBEDDED_TOC_MAX + 1), 0);
        memset(json.data, '[', EMBEDDED_TOC_MAX + 1);
        json.len = EMBEDDED_TOC_MAX + 1;
        end_zstdchunked(&m, &json);
        expect_damage(*state, &m, "a table at offset 8 of 268435457 bytes");
        rest = strstr(m.position, "268435457:1");
        assert_non_null(rest);
        strcpy(rest, "5:1");
        expect_damage(*state, &m, "more than 256 MiB of JSON");
}

static void cancelled_index_ends(void **state)
{
        _cleanup_maker_ struct maker m = { .codec = CODEC_GZIP };
        _cleanup_watched_ struct watched_blob *w = NULL;
        struct bench *b = *state;
        atomic_bool cancel = true;
        struct error e = ERROR_INIT;
        char kind[LAYER_KIND_MAX];

        add_usual(&m);
        end_with(&m, FILE_A);
        w = watch(m.blob.data, m.blob.len);

        struct annotations a = annotate(&m);
        const struct descriptor d = { .digest = w->blob.digest, .size = w->blob.size, .annotations = a.list };
        const struct embedded_options options = {
                .blob = &w->blob,
                .descriptor = &d,
                .pool = b->pool,
                .store = b->store,
                .timeout_ms = 1000,
                .cancel = &cancel,
        };
        assert_int_equal(embedded_index(&options, kind, &e), -ECANCELED);
        assert_int_equal(atomic_load(&w->requests), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, bench_setup, bench_teardown)
        const struct CMUnitTest tests[] = {
                TEST(table_that_cannot_be_true_is_refused),
                TEST(names_stay_inside_the_root),
                TEST(files_that_share_a_member_are_slices_of_it),
                TEST(landmark_may_share_its_member),
                TEST(other_files_named_like_landmarks_show),
                TEST(long_holes_are_cut),
                TEST(long_table_costs_one_more_request),
                TEST(legacy_footer_is_read),
                TEST(table_elsewhere_is_no_error),
                TEST(wrong_digests_are_refused),
                TEST(digest_is_blamed_before_the_table),
                TEST(both_digests_of_stargz_are_checked),
                TEST(truncated_layers_are_refused),
                TEST(changed_bytes_of_the_table_are_found),
                TEST(damage_on_the_way_is_fetched_once_more),
                TEST(bad_table_is_not_fetched_again),
                TEST(wrong_positions_are_refused),
                TEST(announced_length_must_be_right),
                TEST(wrong_footers_are_refused),
                TEST(archive_without_a_table_is_refused),
                TEST(empty_layer_is_refused),
                TEST(table_of_more_than_256_mib_is_refused),
                TEST(cancelled_index_ends),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
