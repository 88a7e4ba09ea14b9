/* SPDX-License-Identifier: Apache-2.0 */

/* Tables that somebody cut, changed or exchanged on their way, or put in another place. */

#include "embedded_maker.h"

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

static void first_fault_of_a_long_table_is_told(void **state)
{
        _cleanup_maker_ struct maker m = { .codec = CODEC_GZIP };
        _cleanup_buf_ struct buf table = { 0 };

        buf_append_str(&table, "{\"type\":\"dir\",\"name\":\"d\",\"size\":-1}");
        for (unsigned i = 0; i < 10000; i++)
                buf_printf(&table, ",{\"type\":\"dir\",\"name\":\"d%u\"}", i);
        end_with(&m, table.data);
        expect_damage(*state, &m, "blob 7: table of contents: entry 1 (d): size is not a whole number");
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
                TEST(wrong_digests_are_refused),
                TEST(digest_is_blamed_before_the_table),
                TEST(first_fault_of_a_long_table_is_told),
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
