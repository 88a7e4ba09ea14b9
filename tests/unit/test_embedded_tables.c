/* SPDX-License-Identifier: Apache-2.0 */

/* Tables that no producer wrote: odd ones that must be read all the same, and those that cannot be true. */

#include "../../fs/toc/embedded_internal.h"
#include "embedded_maker.h"

#define LANDMARK_AT_C                                                                            \
        "{\"type\":\"reg\",\"name\":\".prefetch.landmark\",\"size\":1,\"offset\":@C,\"digest\":" \
        "\"sha256:dc0e9c3658a1a3ed1ec94274d8b19925c93e1abb7ddba294923ad9bde30f8cb8\"}"

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
                { FILE_A "," LANDMARK_AT_C "," FILE_B, "b: blob offset" },
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
                for (unsigned i = 0; i < 15000; i++) {
                        sha256_text(&i, sizeof(i), digest);
                        buf_printf(&table, "{\"type\":\"dir\",\"name\":\"%s\"},", digest);
                }
                buf_append_str(&table, FILE_A);
                end_with(&m, table.data);
                w = watch(m.blob.data, m.blob.len);
                toc = index_and_open(*state, w, annotate(&m).list, kind);
                assert_int_equal(toc->itable.inode_count, 15002);
                assert_true(m.blob.len > data + 2 * EMBEDDED_TAIL);
                assert_int_equal(atomic_load(&w->requests), k ? 1 : 2);
                assert_true(atomic_load(&w->bytes) <= m.blob.len - data);
        }
}

/* A block of a thousand bytes, then one of 128 KiB: the decoder has more to give when it has taken all. */
static void decoded_bytes_come_to_the_last(void **state)
{
        _cleanup_maker_ struct maker m = { .codec = CODEC_ZSTD };
        _cleanup_buf_ struct buf json = { 0 }, packed = { 0 };
        ZSTD_CCtx *z = ZSTD_createCCtx();
        ZSTD_inBuffer in = { 0 };
        struct error e = ERROR_INIT;

        buf_printf(&json, "{\"version\":1,\"entries\":[%*s", (int) (1000 + 128 * KIB - 26), "");
        buf_append_str(&json, "]}");
        assert_int_equal(json.len, 1000 + 128 * KIB);
        assert_int_equal(buf_reserve(&packed, json.len), 0);

        ZSTD_outBuffer out = { .dst = packed.data, .size = json.len };
        in = (ZSTD_inBuffer) { .src = json.data, .size = 1000 };
        assert_int_equal(ZSTD_compressStream2(z, &out, &in, ZSTD_e_flush), 0);
        in.size = json.len;
        assert_int_equal(ZSTD_compressStream2(z, &out, &in, ZSTD_e_end), 0);
        packed.len = out.pos;
        ZSTD_freeCCtx(z);
        end_with_frame(&m, &json, &packed);
        if (index_made(*state, &m, &e) < 0)
                fail_msg("%s", e.message);
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

static int keep_json(void *context, const uint8_t *data, size_t n, _unused_ struct error *e)
{
        return buf_append(context, data, n);
}

/* Returns what the decoder says of PACKED when it comes in pieces of STEP bytes; OUT gets the JSON. */
static int decode_in_pieces(const struct buf *packed, size_t step, struct buf *out, struct error *e)
{
        struct toc_decoder *d = NULL;
        int r = 0;

        assert_int_equal(estargz_decoder.open(keep_json, out, &d, e), 0);
        for (size_t at = 0, n; r == 0 && at < packed->len; at += n) {
                n = MIN(step, packed->len - at);
                r = estargz_decoder.feed(d, (const uint8_t *) packed->data + at, n, e);
        }
        if (r == 0)
                r = estargz_decoder.finish(d, e);
        estargz_decoder.close(d);
        return r;
}

/* A table behind which the tar goes on with what is no header; then in a member whose checksum is wrong as well. */
static void what_follows_a_table_is_judged_in_any_pieces_alike(_unused_ void **state)
{
        _cleanup_buf_ struct buf tar = { 0 }, packed = { 0 };
        const size_t steps[] = { 1, 7, SIZE_MAX };
        static const char json[] = "{\"version\":1,\"entries\":[]}";
        char garbage[512];

        memset(garbage, 'g', sizeof(garbage));
        append_tar(&tar, "stargz.index.json", json, strlen(json));
        assert_int_equal(buf_append(&tar, garbage, sizeof(garbage)), 0);
        append_gzip(&packed, tar.data, tar.len);
        for (size_t i = 0; i < ELEMENTSOF(steps); i++) {
                _cleanup_buf_ struct buf out = { 0 }, none = { 0 };
                struct error e = ERROR_INIT;

                if (decode_in_pieces(&packed, steps[i], &out, &e) < 0)
                        fail_msg("in pieces of %zu: %s", steps[i], e.message);
                assert_string_equal(out.data, json);
                packed.data[packed.len - 8] ^= 1;
                assert_int_equal(decode_in_pieces(&packed, steps[i], &none, &e), -EBADMSG);
                assert_non_null(strstr(e.message, "CRC-32"));
                packed.data[packed.len - 8] ^= 1;
        }
}

/* Few bytes that are many more when they are decoded, before the table and behind it. */
static void tar_around_a_table_is_bounded(_unused_ void **state)
{
        _cleanup_free_ uint8_t *zeros = calloc(1, 8 * MIB);
        static const char json[] = "{\"version\":1,\"entries\":[]}";
        _cleanup_buf_ struct buf tar = { 0 }, member = { 0 };

        assert_non_null(zeros);
        append_tar(&tar, "stargz.index.json", json, strlen(json));
        append_gzip(&member, zeros, 8 * MIB);
        for (int with_table = 0; with_table < 2; with_table++) {
                _cleanup_buf_ struct buf packed = { 0 }, out = { 0 };
                struct error e = ERROR_INIT;

                if (with_table)
                        append_gzip(&packed, tar.data, tar.len);
                for (size_t k = 0; k < EMBEDDED_TOC_MAX / (8 * MIB) + 1; k++)
                        assert_int_equal(buf_append(&packed, member.data, member.len), 0);
                assert_int_equal(decode_in_pieces(&packed, 64 * KIB, &out, &e), -EBADMSG);
                assert_non_null(strstr(e.message, "MiB of tar"));
        }
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

/* A layer whose table is a blob of its own. */
static void make_external(struct bench *b, struct maker *m, const char *entries)
{
        _cleanup_buf_ struct buf json = { 0 }, tar = { 0 };

        add_usual(m);
        buf_append_str(&json, "{\"version\":1,\"entries\":[");
        fill_template(m, entries, &json);
        buf_append_str(&json, "]}");
        sha256_text(json.data, json.len, m->digest);
        append_tar(&tar, "stargz.index.json", json.data, json.len);
        append_gzip(&b->external, tar.data, tar.len);
        append_footer(&m->blob, 0, FOOTER_EXTERNAL);
}

static void table_elsewhere_is_as_good(void **state)
{
        struct bench *b = *state;
        _cleanup_maker_ struct maker m = { .codec = CODEC_GZIP };
        _cleanup_watched_ struct watched_blob *w = NULL;
        _cleanup_(toc_close_ptr) struct toc *toc = NULL;
        _cleanup_reader_ struct reader reader = { 0 };
        _cleanup_free_ uint8_t *bytes = NULL;
        char kind[LAYER_KIND_MAX];

        make_external(b, &m, FILE_A "," FILE_B);
        w = watch(m.blob.data, m.blob.len);
        toc = index_and_open(b, w, annotate(&m).list, kind);
        assert_int_equal(toc->chunks.blob_size, m.blob.len);
        assert_int_equal(toc->chunks.chunks[1].blob_offset + toc->chunks.chunks[1].blob_length, m.blob.len - 46);
        reader = reader_open(b, w, toc, kind);
        bytes = read_content(&reader, inode_at(&toc->itable, "b")->data, strlen(B));
        assert_memory_equal(bytes, B, strlen(B));
}

static void table_elsewhere_must_be_the_one_annotated(void **state)
{
        struct bench *b = *state;
        _cleanup_maker_ struct maker m = { .codec = CODEC_GZIP };
        struct error e = ERROR_INIT;

        make_external(b, &m, FILE_A "," FILE_B);
        sha256_text("x", 1, m.digest);
        assert_int_equal(index_made(b, &m, &e), -EBADMSG);
        assert_non_null(strstr(e.message, "blob 7: table of contents: the digest of its JSON is sha256:"));
        assert_int_equal(b->external_read, 2);
}

static void chunks_of_a_table_elsewhere_stay_inside_the_layer(void **state)
{
        struct bench *b = *state;
        _cleanup_maker_ struct maker m = { .codec = CODEC_GZIP };
        struct error e = ERROR_INIT;

        make_external(b, &m, FILE_A ",{\"type\":\"reg\",\"name\":\"b\",\"size\":1,\"offset\":@$1,\"digest\":\"#B\"}");
        assert_int_equal(index_made(b, &m, &e), -EBADMSG);
        assert_non_null(strstr(e.message, "lies outside of the layer's data"));
}

static void damaged_table_elsewhere_is_refused(void **state)
{
        struct bench *b = *state;
        _cleanup_maker_ struct maker m = { .codec = CODEC_GZIP };
        struct error e = ERROR_INIT;
        size_t whole;

        make_external(b, &m, FILE_A "," FILE_B);
        whole = b->external.len;
        for (size_t n = 1; n < whole - 30; n += 7) {
                b->external.len = n;
                if (index_made(b, &m, &e) != -EBADMSG)
                        fail_msg("%zu of %zu bytes", n, whole);
        }
        b->external.len = whole;
        b->external.data[0] ^= 1;
        assert_int_equal(index_made(b, &m, &e), -EBADMSG);
}

/* Nothing says that the layer cannot be had because the table cannot. */
static void table_elsewhere_that_cannot_be_had_is_no_error(void **state)
{
        struct bench *b = *state;
        _cleanup_maker_ struct maker m = { .codec = CODEC_GZIP };
        struct error e = ERROR_INIT;

        make_external(b, &m, FILE_A "," FILE_B);
        b->external_unreachable = true;
        assert_int_equal(index_made(b, &m, &e), -ENOENT);
        assert_int_equal(e.kind, ERROR_NONE);
        assert_int_equal(b->external_read, 1);
}

/* Every byte that says that this is the footer. */
static void footer_of_a_table_elsewhere_is_told_by_every_byte(void **state)
{
        struct bench *b = *state;
        _cleanup_maker_ struct maker m = { .codec = CODEC_GZIP };

        make_external(b, &m, FILE_A "," FILE_B);
        for (size_t i = 0; i < 12 + 4 + 17; i++) {
                struct error e = ERROR_INIT;

                if (i >= 4 && i < 10)
                        continue;
                m.blob.data[m.blob.len - 46 + i] ^= 0x50;
                if (index_made(b, &m, &e) != -EBADMSG)
                        fail_msg("byte %zu of the footer", i);
                assert_non_null(strstr(e.message, "does not end in the footer of an eStargz"));
                m.blob.data[m.blob.len - 46 + i] ^= 0x50;
        }
        assert_int_equal(b->external_read, 0);
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
                TEST(decoded_bytes_come_to_the_last),
                TEST(legacy_footer_is_read),
                cmocka_unit_test(what_follows_a_table_is_judged_in_any_pieces_alike),
                cmocka_unit_test(tar_around_a_table_is_bounded),
                TEST(table_elsewhere_is_no_error),
                TEST(table_elsewhere_is_as_good),
                TEST(table_elsewhere_must_be_the_one_annotated),
                TEST(chunks_of_a_table_elsewhere_stay_inside_the_layer),
                TEST(damaged_table_elsewhere_is_refused),
                TEST(table_elsewhere_that_cannot_be_had_is_no_error),
                TEST(footer_of_a_table_elsewhere_is_told_by_every_byte),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
