/* SPDX-License-Identifier: Apache-2.0 */

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "layout_fixture.h"
#include "regfs/manifest.h"

static struct source *open_layout(struct layout *l, const char *tag)
{
        struct error e = ERROR_INIT;
        struct source *s = NULL;

        if (layout_source_new(l->path, tag, &s, &e) < 0)
                fail_msg("%s", e.message);
        return s;
}

static void expect_unopened(struct layout *l, const char *tag, int code, enum error_kind kind, const char *words)
{
        struct error e = ERROR_INIT;
        struct source *s = NULL;

        assert_int_equal(layout_source_new(l->path, tag, &s, &e), -code);
        assert_null(s);
        assert_int_equal(e.kind, kind);
        expect_words(&e, words);
}

/* The layout is opened, but no image chosen. */
static void expect_unchosen(struct layout *l, const char *tag, int code, enum error_kind kind, const char *words)
{
        _cleanup_(source_free_ptr) struct source *s = open_layout(l, tag);
        _cleanup_document_ struct document document = { 0 };
        struct error e = ERROR_INIT;
        struct digest d;

        assert_int_equal(source_resolve(s, DEADLINE_NEVER, &d, &e), -code);
        assert_int_equal(e.kind, kind);
        expect_words(&e, words);
        e = (struct error) ERROR_INIT;
        assert_int_equal(source_manifest(s, NULL, DEADLINE_NEVER, &document, &e), -code);
        assert_int_equal(e.kind, kind);
        expect_words(&e, words);
}

static void expect_resolves(struct source *s, const struct stored_blob *manifest)
{
        struct digest d;

        assert_int_equal(source_resolve(s, DEADLINE_NEVER, &d, NULL), 0);
        assert_true(digest_equal(&d, &manifest->digest));
}

static struct stored_blob put_two_images(struct layout *l)
{
        struct stored_blob a = layout_put(l, "first", 5), b = layout_put(l, "second", 6), manifest;

        layout_image(l, "first", &a, 1, CONFIG);
        manifest = layout_image(l, "second", &b, 1, CONFIG);
        layout_finish(l);
        return manifest;
}

static void image_is_found_by_its_tag(void **state)
{
        struct layout *l = *state;
        struct stored_blob second = put_two_images(l);
        _cleanup_(source_free_ptr) struct source *s = open_layout(l, "second");
        _cleanup_document_ struct document d = { 0 };
        _cleanup_manifest_ struct manifest m = { 0 };
        struct error e = ERROR_INIT;

        expect_resolves(s, &second);
        assert_int_equal(source_manifest(s, NULL, DEADLINE_NEVER, &d, &e), 0);
        assert_true(digest_equal(&d.digest, &second.digest));
        if (manifest_parse(&d, s->name, &m, &e) < 0)
                fail_msg("%s", e.message);
        assert_int_equal(m.layer_count, 1);
        assert_int_equal(m.layers[0].size, 6);
}

static void only_image_needs_no_tag(void **state)
{
        struct layout *l = *state;
        struct stored_blob a = layout_put(l, "first", 5), manifest;
        _cleanup_(source_free_ptr) struct source *s = NULL;

        manifest = layout_image(l, "one", &a, 1, CONFIG);
        layout_image(l, "another-name-of-it", &a, 1, CONFIG);
        layout_finish(l);
        s = open_layout(l, NULL);
        expect_resolves(s, &manifest);
}

static void tag_that_is_missing_or_ambiguous_is_told_with_those_there_are(void **state)
{
        struct layout *l = *state;

        put_two_images(l);
        expect_unchosen(l, "third", ENOENT, ERROR_NOT_FOUND, "no such image in the layout; its tags: first, second");
        expect_unchosen(l, NULL, EINVAL, ERROR_USAGE,
                        "2 images in the layout, name one of them; its tags: first, second");
}

static void layout_without_an_image_is_opened_all_the_same(void **state)
{
        struct layout *l = *state;

        layout_finish(l);
        expect_unchosen(l, NULL, ENOENT, ERROR_NOT_FOUND, "no such image in the layout; its tags: none");
}

static void directory_that_is_no_layout_is_told_so(void **state)
{
        struct layout *l = *state;
        struct source *s = NULL;
        struct error e = ERROR_INIT;

        expect_unopened(l, NULL, ENOENT, ERROR_NOT_FOUND, "no OCI image layout: it has no file oci-layout");
        assert_int_equal(layout_source_new("/nowhere/at/all", NULL, &s, &e), -ENOENT);
        expect_words(&e, "oci:/nowhere/at/all");
}

static void damaged_layout_is_refused(void **state)
{
        struct layout *l = *state;

        put_two_images(l);
        layout_write(l, "oci-layout", "{\"imageLayoutVersion\":\"2.0.0\"}", 30);
        expect_unopened(l, "first", EBADMSG, ERROR_BAD_DATA, "version 2.0.0 is not known");
        layout_write(l, "oci-layout", "{}", 2);
        expect_unopened(l, "first", EBADMSG, ERROR_BAD_DATA, "version (none) is not known");
        layout_finish(l);
        layout_write(l, "index.json", "{\"schemaVersion\":2", 18);
        expect_unopened(l, "first", EBADMSG, ERROR_BAD_DATA, "index.json");
        layout_write(l, "index.json", "{\"schemaVersion\":2,\"config\":{}}", 31);
        expect_unopened(l, "first", EBADMSG, ERROR_BAD_DATA, "index.json");
}

static void manifest_is_verified(void **state)
{
        struct layout *l = *state;
        struct stored_blob second = put_two_images(l);
        _cleanup_(source_free_ptr) struct source *s = open_layout(l, "second");
        _cleanup_document_ struct document d = { 0 };
        struct error e = ERROR_INIT;

        layout_write(l, layout_blob_name(&second.digest), "{}", 2);
        assert_int_equal(source_manifest(s, NULL, DEADLINE_NEVER, &d, &e), -EBADMSG);
        expect_words(&e, "expected sha256:");
        expect_words(&e, l->path);
        unlink(layout_file(l, layout_blob_name(&second.digest)));
        assert_int_equal(source_manifest(s, &second.digest, DEADLINE_NEVER, &d, &e), -ENOENT);
}

static void blob_is_read_by_range_and_whole(void **state)
{
        struct layout *l = *state;
        _cleanup_(pool_free_ptr) struct pool *pool = NULL;
        _cleanup_(source_free_ptr) struct source *s = NULL;
        struct descriptor d = { 0 };
        struct stored_blob b;
        _cleanup_buf_ struct buf text = { 0 };
        struct pool_buf *buffer = NULL;
        struct blob_range *range = NULL;
        struct blob *blob = NULL;
        uint64_t received = 0;

        put_two_images(l);
        b = layout_put(l, "0123456789", 10);
        d.digest = b.digest;
        d.size = b.size;
        s = open_layout(l, "first");
        assert_int_equal(pool_new(MIB, &pool), 0);
        assert_int_equal(pool_get(pool, 100, DEADLINE_NEVER, &buffer, NULL), 0);
        assert_int_equal(source_blob(s, &d, &blob, NULL), 0);
        assert_int_equal(blob_range_open(blob, 3, 6, buffer, 50, 0, &range, NULL), 0);
        assert_int_equal(blob_range_wait(range, 2, &received, NULL), 0);
        assert_true(received >= 2);
        assert_int_equal(blob_range_wait(range, 6, &received, NULL), 0);
        assert_int_equal(received, 6);
        assert_memory_equal(buffer->data + 50, "345678", 6);
        blob_range_close(range);
        assert_int_equal(blob_range_open(blob, 5, 6, buffer, 0, 0, &range, NULL), -EBADMSG);
        blob_free(blob);
        pool_buf_unref(buffer);

        assert_int_equal(source_blob_read(s, &d, pool, 10, DEADLINE_NEVER, &text, NULL), 0);
        assert_string_equal(text.data, "0123456789");
}

static void empty_blob_is_read_and_verified(void **state)
{
        struct layout *l = *state;
        _cleanup_(source_free_ptr) struct source *s = NULL;
        _cleanup_buf_ struct buf text = { 0 };
        struct descriptor d = { 0 };

        put_two_images(l);
        s = open_layout(l, "first");
        d.digest = layout_put(l, "", 0).digest;
        assert_int_equal(source_blob_read(s, &d, NULL, 10, DEADLINE_NEVER, &text, NULL), 0);
        d.digest.bytes[0] ^= 1;
        assert_int_equal(source_blob_read(s, &d, NULL, 10, DEADLINE_NEVER, &text, NULL), -EBADMSG);
}

static void blob_of_another_size_or_kind_is_refused(void **state)
{
        struct layout *l = *state;
        _cleanup_(source_free_ptr) struct source *s = NULL;
        struct error e = ERROR_INIT;
        struct blob *blob = NULL;
        struct descriptor d = { 0 };
        struct stored_blob b;

        put_two_images(l);
        s = open_layout(l, "first");
        b = layout_put(l, "0123456789", 10);
        d.digest = b.digest;
        d.size = 11;
        assert_int_equal(source_blob(s, &d, &blob, &e), -EBADMSG);
        expect_words(&e, "10 bytes, the manifest says 11");

        unlink(layout_file(l, layout_blob_name(&b.digest)));
        d.size = 0;
        assert_int_equal(mkfifo(layout_file(l, layout_blob_name(&b.digest)), 0600), 0);
        assert_int_equal(source_blob(s, &d, &blob, &e), -EBADMSG);
        expect_words(&e, "not a regular file");
        unlink(layout_file(l, layout_blob_name(&b.digest)));
        assert_int_equal(source_blob(s, &d, &blob, &e), -ENOENT);
}

static void inlined_data_is_used_without_a_file(void **state)
{
        struct layout *l = *state;
        _cleanup_(source_free_ptr) struct source *s = NULL;
        uint8_t inlined[] = "inlined";
        struct descriptor d = { .data = inlined, .data_size = 7, .size = 7 };
        _cleanup_buf_ struct buf text = { 0 };

        put_two_images(l);
        s = open_layout(l, "first");
        assert_int_equal(source_blob_read(s, &d, NULL, 10, DEADLINE_NEVER, &text, NULL), 0);
        assert_string_equal(text.data, "inlined");
}

/* ---- referrers ---- */

#define SBOM "application/vnd.example.sbom.v1"
#define REF_NAME "org.opencontainers.image.ref.name"

/* Puts an artifact's manifest; SUBJECT NULL: of nothing. */
static struct stored_blob put_artifact(struct layout *l, const struct stored_blob *subject, const char *more)
{
        _cleanup_buf_ struct buf text = { 0 };

        (void) buf_printf(&text, "{\"schemaVersion\":2,\"mediaType\":\"" OCI "manifest.v1+json\",%s\"layers\":[]",
                          more);
        if (subject) {
                (void) buf_append_str(&text, ",\"subject\":");
                layout_descriptor(&text, OCI "manifest.v1+json", subject);
                (void) buf_append_char(&text, '}');
        }
        assert_int_equal(buf_append_char(&text, '}'), 0);
        return layout_put(l, text.data, text.len);
}

/* Appends an entry for B to the list LIST; MORE ends it: ",\"artifactType\":…", or "". */
static void enter(struct buf *list, const struct stored_blob *b, const char *type, const char *more)
{
        (void) buf_append_str(list, list->len > 0 ? "," : "");
        layout_descriptor(list, type, b);
        assert_int_equal(buf_printf(list, "%s}", more), 0);
}

static void expect_referrers(struct source *s, const struct stored_blob *subject, struct descriptor **ret, size_t count)
{
        struct error e = ERROR_INIT;
        size_t n = 77;

        if (source_referrers(s, &subject->digest, DEADLINE_NEVER, ret, &n, &e) < 0)
                fail_msg("%s", e.message);
        assert_int_equal(n, count);
        if (n == 0)
                assert_null(*ret);
}

static void referrers_are_the_manifests_with_that_subject(void **state)
{
        struct layout *l = *state;
        struct stored_blob image = put_two_images(l), sbom, other, plain;
        _cleanup_(source_free_ptr) struct source *s = NULL;
        struct descriptor *found = NULL;

        sbom = put_artifact(l, &image,
                            "\"artifactType\":\"" SBOM "\",\"annotations\":{\"a\":\"manifest\",\"b\":\"b\"},");
        other = put_artifact(l, &sbom, "\"artifactType\":\"" SBOM "\",");
        plain = put_artifact(l, &image, "");
        enter(&l->manifests, &sbom, OCI "manifest.v1+json", ",\"annotations\":{\"a\":\"entry\"}");
        enter(&l->manifests, &sbom, OCI "manifest.v1+json", ",\"annotations\":{\"" REF_NAME "\":\"again\"}");
        enter(&l->manifests, &other, OCI "manifest.v1+json", "");
        enter(&l->manifests, &plain, OCI "manifest.v1+json", ",\"artifactType\":\"application/x\"");
        layout_finish(l);
        s = open_layout(l, "second");

        expect_referrers(s, &image, &found, 2);
        assert_true(digest_equal(&found[0].digest, &sbom.digest));
        assert_int_equal(found[0].size, sbom.size);
        assert_string_equal(found[0].artifact_type, SBOM);
        assert_string_equal(descriptor_annotation(&found[0], "a"), "entry");
        assert_string_equal(descriptor_annotation(&found[0], "b"), "b");
        assert_true(digest_equal(&found[1].digest, &plain.digest));
        assert_string_equal(found[1].artifact_type, "application/x");
        descriptors_free(found, 2);

        expect_referrers(s, &sbom, &found, 1);
        assert_true(digest_equal(&found[0].digest, &other.digest));
        descriptors_free(found, 1);
        expect_referrers(s, &other, &found, 0);
}

static void referrers_that_cannot_be_read_are_left_out(void **state)
{
        struct layout *l = *state;
        struct stored_blob image = put_two_images(l), lost, damaged, text, good;
        _cleanup_(source_free_ptr) struct source *s = NULL;
        struct descriptor *found = NULL;

        lost = put_artifact(l, &image, "\"artifactType\":\"lost\",");
        unlink(layout_file(l, layout_blob_name(&lost.digest)));
        damaged = put_artifact(l, &image, "\"artifactType\":\"damaged\",");
        layout_write(l, layout_blob_name(&damaged.digest), "{}", 2);
        text = layout_put(l, "hello", 5);
        good = put_artifact(l, &image, "\"artifactType\":\"good\",");
        enter(&l->manifests, &lost, OCI "manifest.v1+json", "");
        enter(&l->manifests, &damaged, OCI "manifest.v1+json", "");
        enter(&l->manifests, &text, OCI "manifest.v1+json", "");
        enter(&l->manifests, &good, OCI "manifest.v1+json", "");
        layout_finish(l);
        s = open_layout(l, "second");
        expect_referrers(s, &image, &found, 1);
        assert_string_equal(found[0].artifact_type, "good");
        descriptors_free(found, 1);
}

/* Enters an index of LIST under the fallback tag of SUBJECT. */
static void enter_fallback(struct layout *l, const struct stored_blob *subject, const struct buf *list)
{
        _cleanup_buf_ struct buf text = { 0 };
        char tag[REFERRERS_TAG_MAX], more[200];
        struct stored_blob index;

        assert_int_equal(buf_printf(&text, "{\"schemaVersion\":2,\"manifests\":[%s]}", list->data), 0);
        index = layout_put(l, text.data, text.len);
        snprintf(more, sizeof(more), ",\"annotations\":{\"" REF_NAME "\":\"%s\"}",
                 referrers_tag(&subject->digest, tag));
        enter(&l->manifests, &index, OCI "index.v1+json", more);
}

static void index_at_the_fallback_tag_lists_referrers_and_is_no_image(void **state)
{
        struct layout *l = *state;
        struct stored_blob layer = layout_put(l, "layer", 5), image = layout_image(l, NULL, &layer, 1, CONFIG), sbom;
        _cleanup_(source_free_ptr) struct source *s = NULL;
        _cleanup_buf_ struct buf list = { 0 };
        struct descriptor *found = NULL;

        sbom = put_artifact(l, &image, "\"artifactType\":\"" SBOM "\",");
        enter(&list, &sbom, OCI "manifest.v1+json", "");
        enter_fallback(l, &image, &list);
        layout_finish(l);
        s = open_layout(l, NULL);
        expect_resolves(s, &image);
        expect_referrers(s, &image, &found, 1);
        assert_true(digest_equal(&found[0].digest, &sbom.digest));
        assert_string_equal(found[0].artifact_type, SBOM);
        descriptors_free(found, 1);
}

static void fallback_tag_is_cut_to_what_tags_may_have(void **state _unused_)
{
        char tag[REFERRERS_TAG_MAX];
        struct digest d;

        assert_int_equal(digest_of(DIGEST_SHA256, "x", 1, &d), 0);
        assert_string_equal(referrers_tag(&d, tag),
                            "sha256-2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881");
        assert_int_equal(digest_of(DIGEST_SHA512, "x", 1, &d), 0);
        assert_string_equal(referrers_tag(&d, tag),
                            "sha512-a4abd4448c49562d828115d13a1fccea927f52b4d5459297f8b43e42da89238b");
}

static void descriptors_are_copied_whole(void **state _unused_)
{
        char *urls[] = { (char *) "http://a", NULL }, *annotations[] = { (char *) "k", (char *) "v", NULL };
        uint8_t data[] = "x";
        const struct descriptor d = {
                .size = 1,
                .media_type = (char *) "type",
                .urls = urls,
                .annotations = annotations,
                .data = data,
                .data_size = 1,
                .os = (char *) "linux",
        };
        _cleanup_descriptor_ struct descriptor copy = { 0 };

        assert_int_equal(descriptor_copy(&d, &copy), 0);
        assert_string_equal(copy.media_type, "type");
        assert_string_equal(copy.urls[0], "http://a");
        assert_null(copy.urls[1]);
        assert_string_equal(descriptor_annotation(&copy, "k"), "v");
        assert_null(descriptor_annotation(&copy, "v"));
        assert_int_equal(copy.data[0], 'x');
        assert_string_equal(copy.os, "linux");
        assert_null(copy.artifact_type);
        assert_ptr_not_equal(copy.urls[0], urls[0]);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                layout_test(image_is_found_by_its_tag),
                layout_test(only_image_needs_no_tag),
                layout_test(tag_that_is_missing_or_ambiguous_is_told_with_those_there_are),
                layout_test(layout_without_an_image_is_opened_all_the_same),
                layout_test(directory_that_is_no_layout_is_told_so),
                layout_test(damaged_layout_is_refused),
                layout_test(manifest_is_verified),
                layout_test(blob_is_read_by_range_and_whole),
                layout_test(empty_blob_is_read_and_verified),
                layout_test(blob_of_another_size_or_kind_is_refused),
                layout_test(inlined_data_is_used_without_a_file),
                layout_test(referrers_are_the_manifests_with_that_subject),
                layout_test(referrers_that_cannot_be_read_are_left_out),
                layout_test(index_at_the_fallback_tag_lists_referrers_and_is_no_image),
                cmocka_unit_test(fallback_tag_is_cut_to_what_tags_may_have),
                cmocka_unit_test(descriptors_are_copied_whole),
        };

        return cmocka_run_group_tests_name("layout", tests, NULL, NULL);
}
