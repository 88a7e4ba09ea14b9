/* SPDX-License-Identifier: Apache-2.0 */

#include <zstd.h>

#include "embedded_fixture.h"

#include "regfs/index.h"
#include "regfs/json.h"
#include "regfs/published.h"

#define LAYER "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define OTHER "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define TABLE "sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"

#define QUOTE_(x) #x
#define QUOTE(x) QUOTE_(x)
#define VERSION QUOTE(TOC_VERSION)

/* ---- a source with one blob ---- */

struct fake_source {
        struct source source;
        const struct buf *data;
        unsigned opened;
        unsigned spoilt; /* so many openings yet come with a byte changed */
};

/* There is somebody else to ask. */
static unsigned fake_doubt(struct blob *b)
{
        (void) b;
        return 1;
}

static int fake_blob(struct source *s, const struct descriptor *descriptor, struct blob **ret, struct error *e)
{
        struct fake_source *f = (struct fake_source *) s;
        static struct blob_ops ops;
        struct watched_blob *w = watch(f->data->data, f->data->len);

        (void) e;
        ops = *w->blob.ops;
        ops.doubt = fake_doubt;
        w->blob.ops = &ops;
        w->blob.digest = descriptor->digest;
        w->blob.size = descriptor->size;
        atomic_store(&w->spoilt, f->spoilt);
        f->opened++;
        *ret = &w->blob;
        return 0;
}

static const struct source_ops fake_ops = { .blob = fake_blob };

/* ---- a layer, its TOC, and what is published of it ---- */

struct sample {
        struct bench *bench;
        struct watched_blob *layer;
        struct published_layer compressed;
        struct buf toc; /* the file */
};

static struct sample sample_make(struct bench *b, const char *fixture)
{
        struct sample s = { .bench = b, .layer = watch_fixture(fixture) };
        const struct index_options options = {
                .blob = &s.layer->blob, .pool = b->pool, .store = b->store, .timeout_ms = 1000
        };
        struct error e = ERROR_INIT;
        int fd;

        if (index_layer(&options, &e) < 0)
                fail_msg("%s", e.message);
        fd = store_layer_toc(b->store, &s.layer->blob.digest, "plain");
        assert_true(fd >= 0);
        assert_int_equal(published_compress(fd, &s.layer->blob.digest, &s.compressed, &e), 0);
        assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
        for (char part[4096];;) {
                ssize_t n = read(fd, part, sizeof(part));

                if (n <= 0)
                        break;
                assert_int_equal(buf_append(&s.toc, part, (size_t) n), 0);
        }
        close(fd);
        return s;
}

static void sample_clear(struct sample *s)
{
        unwatch(&s->layer);
        buf_free(&s->compressed.data);
        buf_free(&s->toc);
}
#define _cleanup_sample_ _cleanup_(sample_clear)

static int import_as(struct sample *s, struct fake_source *f, const struct digest *digest, struct blob *layer,
                     struct error *e)
{
        const struct descriptor table = { .digest = *digest, .size = f->data->len };
        const struct published_import import = {
                .source = &f->source,
                .table = &table,
                .format = PUBLISHED_REGFS,
                .layer = layer,
                .kind = "regfs-1",
                .pool = s->bench->pool,
                .store = s->bench->store,
                .timeout_ms = 1000,
        };

        return published_import(&import, e);
}

/* Imports DATA as the TOC of the sample's layer. */
static int import_data(struct sample *s, const struct buf *data, struct error *e)
{
        struct fake_source f = { .source = { .ops = &fake_ops }, .data = data };
        struct digest digest;

        assert_int_equal(digest_of(DIGEST_SHA256, data->data, data->len, &digest), 0);
        return import_as(s, &f, &digest, &s->layer->blob, e);
}

static struct buf compressed(const void *data, size_t n)
{
        struct buf b = { 0 };

        assert_int_equal(buf_reserve(&b, ZSTD_compressBound(n)), 0);
        b.len = ZSTD_compress(b.data, ZSTD_compressBound(n), data, n, 1);
        assert_false(ZSTD_isError(b.len));
        return b;
}

static void expect_refused(struct sample *s, const struct buf *data, int code, const char *words)
{
        struct error e = ERROR_INIT;

        assert_int_equal(import_data(s, data, &e), code);
        if (!strstr(e.message, words))
                fail_msg("'%s' is not in '%s'", words, e.message);
        assert_int_equal(store_layer_toc(s->bench->store, &s->layer->blob.digest, "regfs-1"), -ENOENT);
}

/* ---- manifests ---- */

static int parse(const char *text, struct published *ret, struct error *e)
{
        struct document d = { .body = { .data = (char *) text, .len = strlen(text) }, .media_type = (char *) "" };

        assert_int_equal(digest_of(DIGEST_SHA256, text, strlen(text), &d.digest), 0);
        return published_parse(&d, "the index", ret, e);
}

static void expect_bad(const char *text, const char *words)
{
        struct published p = { 0 };
        struct error e = ERROR_INIT;

        assert_int_equal(parse(text, &p, &e), -EBADMSG);
        if (!strstr(e.message, words))
                fail_msg("'%s' is not in '%s'", words, e.message);
        assert_int_equal(p.format, PUBLISHED_NONE);
}

#define INDEX(type, version, media, annotation)                                                                    \
        "{\"schemaVersion\":2,\"artifactType\":\"" type "\",\"config\":{\"mediaType\":\"x/y\",\"digest\":\"" OTHER \
        "\",\"size\":2},\"layers\":[{\"mediaType\":\"" media "\",\"digest\":\"" TABLE "\",\"size\":100,"           \
        "\"annotations\":{" annotation "}}],\"annotations\":{\"dev.regfs.toc.version\":\"" version "\"}}"

static void a_manifest_names_its_tables_by_layer(void **state)
{
        static const struct {
                const char *text, *kind;
                enum published_format format;
        } cases[] = {
                { INDEX(PUBLISHED_TYPE, VERSION, PUBLISHED_TOC_TYPE, "\"" PUBLISHED_LAYER "\":\"" LAYER "\""),
                  "regfs-cc", PUBLISHED_REGFS },
                { INDEX(SOCI_TYPE_V1, "", "application/octet-stream",
                        "\"com.amazon.soci.image-layer-digest\":\"" LAYER "\""),
                  "soci-cc", PUBLISHED_SOCI },
                { INDEX(SOCI_TYPE_V2, "", "application/octet-stream",
                        "\"com.amazon.soci.image-layer-digest\":\"" LAYER "\""),
                  "soci-cc", PUBLISHED_SOCI },
        };

        (void) state;
        for (size_t k = 0; k < ELEMENTSOF(cases); k++) {
                _cleanup_(published_clear) struct published p = { 0 };
                struct digest layer, other;
                const struct descriptor *table;
                char kind[LAYER_KIND_MAX];
                struct error e = ERROR_INIT;

                assert_int_equal(digest_parse(LAYER, &layer, NULL), 0);
                assert_int_equal(digest_parse(OTHER, &other, NULL), 0);
                if (parse(cases[k].text, &p, &e) < 0)
                        fail_msg("%s", e.message);
                assert_int_equal(p.format, cases[k].format);
                assert_null(published_toc(&p, &other));
                table = published_toc(&p, &layer);
                assert_non_null(table);
                published_kind(&p, table, kind);
                assert_non_null(str_after(kind, cases[k].kind));
                assert_int_equal(strlen(kind), strchr(kind, '-') + 65 - kind);
        }
}

/* Newer ones list other things beside their ztocs. */
static void soci_may_have_layers_of_other_types(void **state)
{
        static const char text[] = INDEX(SOCI_TYPE_V2, "", "application/vnd.amazon.soci.prefetch.v1+json",
                                         "\"com.amazon.soci.image-layer-digest\":\"" LAYER "\"");
        _cleanup_(published_clear) struct published p = { 0 };
        struct error e = ERROR_INIT;
        struct digest layer;

        (void) state;
        assert_int_equal(digest_parse(LAYER, &layer, NULL), 0);
        if (parse(text, &p, &e) < 0)
                fail_msg("%s", e.message);
        assert_null(published_toc(&p, &layer));
}

static void what_is_no_index_is_refused(void **state)
{
        (void) state;
        expect_bad(INDEX("text/plain", VERSION, PUBLISHED_TOC_TYPE, ""), "no index that regfs knows");
        expect_bad(INDEX(PUBLISHED_TYPE, "1", PUBLISHED_TOC_TYPE, "\"" PUBLISHED_LAYER "\":\"" LAYER "\""),
                   "version 1");
        expect_bad(INDEX(PUBLISHED_TYPE, VERSION, "text/plain", "\"" PUBLISHED_LAYER "\":\"" LAYER "\""), "media type");
        expect_bad(INDEX(PUBLISHED_TYPE, VERSION, PUBLISHED_TOC_TYPE, ""), PUBLISHED_LAYER);
        expect_bad(INDEX(PUBLISHED_TYPE, VERSION, PUBLISHED_TOC_TYPE, "\"" PUBLISHED_LAYER "\":\"sha256:zz\""), "zz");
        expect_bad("{\"schemaVersion\":2,\"manifests\":[]}", "the index");
}

static void a_manifest_that_is_made_can_be_read(void **state)
{
        struct descriptor subject = { .size = 1234, .media_type = (char *) "application/\"odd\"" };
        struct published_layer layers[2] = { 0 };
        _cleanup_(published_clear) struct published p = { 0 };
        _cleanup_buf_ struct buf text = { 0 };
        struct error e = ERROR_INIT;

        (void) state;
        assert_int_equal(digest_parse(OTHER, &subject.digest, NULL), 0);
        assert_int_equal(digest_parse(LAYER, &layers[0].layer, NULL), 0);
        assert_int_equal(digest_parse(OTHER, &layers[1].layer, NULL), 0);
        assert_int_equal(digest_parse(TABLE, &layers[0].digest, NULL), 0);
        assert_int_equal(digest_parse(LAYER, &layers[1].digest, NULL), 0);
        layers[0].data.len = 77;
        assert_int_equal(published_manifest(&subject, layers, 2, &text, &e), 0);
        if (parse(text.data, &p, &e) < 0)
                fail_msg("%s", e.message);
        assert_int_equal(p.format, PUBLISHED_REGFS);
        assert_true(digest_equal(&p.subject, &subject.digest));
        assert_int_equal(p.manifest.layer_count, 2);
        assert_int_equal(published_toc(&p, &layers[0].layer)->size, 77);
        assert_true(digest_equal(&published_toc(&p, &layers[1].layer)->digest, &layers[1].digest));
}

/* ---- binding ---- */

static const char *text_at(const struct json *v, const char *a, const char *b)
{
        return json_member_text(json_member(v, a), b);
}

static void a_bound_manifest_is_the_image_and_an_annotation(void **state)
{
        static const char docker[] =
                "{\"schemaVersion\":2,\"mediaType\":\"application/vnd.docker.distribution.manifest.v2+json\","
                "\"config\":{\"mediaType\":\"application/vnd.docker.container.image.v1+json\",\"size\":7,"
                "\"digest\":\"" OTHER
                "\"},\"layers\":[{\"mediaType\":\"application/vnd.docker.image.rootfs.diff.tar.gzip\","
                "\"size\":6000000000,\"digest\":\"" LAYER "\",\"annotations\":{\"kept\":\"yes\"}},"
                "{\"mediaType\":\"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip\",\"size\":1,"
                "\"digest\":\"" TABLE "\"}],\"annotations\":{\"mine\":\"too\"}}";
        const struct document d = { .body = { .data = (char *) docker, .len = strlen(docker) } };
        _cleanup_(json_free_ptr) struct json *root = NULL;
        _cleanup_buf_ struct buf text = { 0 };
        const struct json *layer;
        struct error e = ERROR_INIT;
        struct digest index;
        uint64_t size;

        (void) state;
        assert_int_equal(digest_parse(TABLE, &index, NULL), 0);
        assert_int_equal(published_bind(&d, &index, &text, &e), 0);
        assert_int_equal(json_parse(text.data, text.len, &root, &e), 0);
        assert_string_equal(json_member_text(root, "mediaType"), "application/vnd.oci.image.manifest.v1+json");
        assert_string_equal(text_at(root, "config", "mediaType"), "application/vnd.oci.image.config.v1+json");
        assert_string_equal(text_at(root, "annotations", PUBLISHED_BINDING), TABLE);
        assert_string_equal(text_at(root, "annotations", "mine"), "too");
        layer = json_first(json_member(root, "layers"));
        assert_string_equal(json_member_text(layer, "mediaType"), "application/vnd.oci.image.layer.v1.tar+gzip");
        assert_string_equal(text_at(layer, "annotations", "kept"), "yes");
        assert_int_equal(json_u64(json_member(layer, "size"), &size), 0);
        assert_int_equal(size, 6000000000);
        layer = json_next(layer);
        assert_string_equal(json_member_text(layer, "mediaType"),
                            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip");
}

static void binding_again_replaces_the_annotation(void **state)
{
        static const char oci[] =
                "{\"schemaVersion\":2,\"config\":{},\"layers\":[],\"annotations\":{\"" PUBLISHED_BINDING "\":\"" OTHER
                "\"}}";
        const struct document d = { .body = { .data = (char *) oci, .len = strlen(oci) } };
        _cleanup_(json_free_ptr) struct json *root = NULL;
        _cleanup_buf_ struct buf text = { 0 };
        struct error e = ERROR_INIT;
        struct digest index;

        (void) state;
        assert_int_equal(digest_parse(TABLE, &index, NULL), 0);
        assert_int_equal(published_bind(&d, &index, &text, &e), 0);
        assert_int_equal(json_parse(text.data, text.len, &root, &e), 0);
        assert_string_equal(text_at(root, "annotations", PUBLISHED_BINDING), TABLE);
        assert_null(strstr(text.data, OTHER));
}

/* ---- tables ---- */

static void a_table_comes_back_as_it_was(void **state)
{
        _cleanup_sample_ struct sample s = sample_make(*state, "base.tar.gz");
        _cleanup_(toc_close_ptr) struct toc *t = NULL;
        struct error e = ERROR_INIT;
        struct content *content;

        if (import_data(&s, &s.compressed.data, &e) < 0)
                fail_msg("%s", e.message);
        t = open_toc(s.bench, s.layer, "regfs-1");
        assert_int_equal(t->map_size, s.toc.len);
        assert_memory_equal(t->map, s.toc.data, s.toc.len);

        /* … with no content: nothing of it has been fetched. */
        assert_int_equal(content_open(s.bench->store, &s.layer->blob.digest, "regfs-1", &t->chunks, &content, &e), 0);
        for (size_t k = 0; k < t->chunks.chunk_count; k++)
                assert_false(content_has(content, k));
        content_close(content);
}

static void a_table_with_wrong_bytes_is_fetched_once_more(void **state)
{
        _cleanup_sample_ struct sample s = sample_make(*state, "upper.tar.gz");
        struct fake_source f = { .source = { .ops = &fake_ops }, .data = &s.compressed.data, .spoilt = 1 };
        struct error e = ERROR_INIT;

        assert_int_equal(import_as(&s, &f, &s.compressed.digest, &s.layer->blob, &e), 0);

        assert_int_equal(store_layer_remove(s.bench->store, &s.layer->blob.digest, "regfs-1", &e), 0);
        f.spoilt = 2;
        assert_int_equal(import_as(&s, &f, &s.compressed.digest, &s.layer->blob, &e), -EBADMSG);
        assert_non_null(strstr(e.message, "digest"));
        assert_int_equal(store_layer_toc(s.bench->store, &s.layer->blob.digest, "regfs-1"), -ENOENT);
}

static void a_table_of_another_layer_is_refused(void **state)
{
        _cleanup_sample_ struct sample s = sample_make(*state, "base.tar.gz");
        _cleanup_watched_ struct watched_blob *other = watch_fixture("upper.tar.gz");
        struct fake_source f = { .source = { .ops = &fake_ops }, .data = &s.compressed.data };
        struct error e = ERROR_INIT;

        assert_int_equal(import_as(&s, &f, &s.compressed.digest, &other->blob, &e), -EBADMSG);
        assert_non_null(strstr(e.message, "another's"));

        /* The digest of the layer, and another size: it can't be both. */
        s.layer->blob.size++;
        expect_refused(&s, &s.compressed.data, -EBADMSG, "bytes");
        s.layer->blob.size--;
}

static void a_damaged_table_is_refused(void **state)
{
        _cleanup_sample_ struct sample s = sample_make(*state, "base.tar.gz");
        _cleanup_buf_ struct buf flipped = { 0 }, cut = { 0 }, more = { 0 }, none = { 0 }, stale = { 0 };

        s.toc.data[s.toc.len / 2] ^= 1;
        flipped = compressed(s.toc.data, s.toc.len);
        expect_refused(&s, &flipped, -EBADMSG, "checksum");
        s.toc.data[s.toc.len / 2] ^= 1;

        cut = compressed(s.toc.data, s.toc.len);
        cut.len--;
        expect_refused(&s, &cut, -EBADMSG, "no end");

        more = compressed(s.toc.data, s.toc.len);
        assert_int_equal(buf_append_char(&more, 'x'), 0);
        expect_refused(&s, &more, -EBADMSG, "behind");

        assert_int_equal(buf_append_str(&none, "no zstd at all"), 0);
        expect_refused(&s, &none, -EBADMSG, "zstd");

        s.toc.data[8]++; /* the version */
        stale = compressed(s.toc.data, s.toc.len);
        expect_refused(&s, &stale, -ESTALE, "version");
}

/* A file whose checksum is right can still have been written by somebody who means harm. */
static void a_table_with_bad_rows_is_refused(void **state)
{
        _cleanup_sample_ struct sample s = sample_make(*state, "base.tar.gz");
        _cleanup_(toc_close_ptr) struct toc *t = open_toc(s.bench, s.layer, "plain");
        size_t size = t->chunks.chunk_count * sizeof(struct chunk);
        _cleanup_free_ struct chunk *chunks = malloc(size);
        _cleanup_buf_ struct buf file = { 0 }, data = { 0 };
        struct chunk_table bad = t->chunks;
        struct error e = ERROR_INIT;
        int fd = memfd_create("regfs-test", MFD_CLOEXEC);

        assert_non_null(chunks);
        memcpy(chunks, t->chunks.chunks, size);
        chunks[t->chunks.chunk_count - 1].blob_offset += 1u << 30;
        bad.chunks = chunks;
        assert_int_equal(toc_write(fd, &t->itable, &bad, &s.layer->blob.digest, t->compression, &e), 0);
        assert_int_equal(buf_reserve(&file, t->map_size), 0);
        assert_int_equal(pread_full(fd, file.data, t->map_size, 0), 0);
        close(fd);
        data = compressed(file.data, t->map_size);
        expect_refused(&s, &data, -EBADMSG, "chunk");
}

static void a_table_that_decodes_to_too_much_is_refused(void **state)
{
        _cleanup_sample_ struct sample s = sample_make(*state, "upper.tar.gz");
        _cleanup_free_ uint8_t *zeros = calloc(1, 2 * MIB);
        _cleanup_buf_ struct buf data = compressed(zeros, 2 * MIB);
        struct fake_source f = { .source = { .ops = &fake_ops }, .data = &data };
        struct descriptor table = { .size = data.len };
        const struct published_import import = {
                .source = &f.source,
                .table = &table,
                .format = PUBLISHED_REGFS,
                .layer = &s.layer->blob,
                .kind = "regfs-1",
                .pool = s.bench->pool,
                .store = s.bench->store,
                .timeout_ms = 1000,
                .toc_max = MIB,
        };
        struct error e = ERROR_INIT;

        assert_int_equal(digest_of(DIGEST_SHA256, data.data, data.len, &table.digest), 0);
        assert_int_equal(published_import(&import, &e), -EBADMSG);
        if (!strstr(e.message, "more than 1 MiB, decompressed"))
                fail_msg("%s", e.message);
}

static void a_table_past_its_bound_is_not_asked_for(void **state)
{
        _cleanup_sample_ struct sample s = sample_make(*state, "upper.tar.gz");
        struct fake_source f = { .source = { .ops = &fake_ops }, .data = &s.compressed.data };
        const struct descriptor table = { .digest = s.compressed.digest, .size = 256 * MIB + 1 };
        const struct published_import import = {
                .source = &f.source,
                .table = &table,
                .format = PUBLISHED_REGFS,
                .layer = &s.layer->blob,
                .kind = "regfs-1",
                .pool = s.bench->pool,
                .store = s.bench->store,
                .timeout_ms = 1000,
        };
        struct error e = ERROR_INIT;

        assert_int_equal(published_import(&import, &e), -EBADMSG);
        assert_non_null(strstr(e.message, "256 MiB"));
        assert_int_equal(f.opened, 0);
}

#define bench_test(function) cmocka_unit_test_setup_teardown(function, bench_setup, bench_teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_manifest_names_its_tables_by_layer),
                cmocka_unit_test(soci_may_have_layers_of_other_types),
                cmocka_unit_test(what_is_no_index_is_refused),
                cmocka_unit_test(a_manifest_that_is_made_can_be_read),
                cmocka_unit_test(a_bound_manifest_is_the_image_and_an_annotation),
                cmocka_unit_test(binding_again_replaces_the_annotation),
                bench_test(a_table_comes_back_as_it_was),
                bench_test(a_table_with_wrong_bytes_is_fetched_once_more),
                bench_test(a_table_of_another_layer_is_refused),
                bench_test(a_damaged_table_is_refused),
                bench_test(a_table_with_bad_rows_is_refused),
                bench_test(a_table_past_its_bound_is_not_asked_for),
                bench_test(a_table_that_decodes_to_too_much_is_refused),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
