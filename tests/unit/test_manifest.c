/* SPDX-License-Identifier: Apache-2.0 */

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "regfs/manifest.h"

#define OCI_MANIFEST "application/vnd.oci.image.manifest.v1+json"
#define OCI_INDEX "application/vnd.oci.image.index.v1+json"
#define OCI_CONFIG "application/vnd.oci.image.config.v1+json"
#define OCI_LAYER "application/vnd.oci.image.layer.v1.tar+gzip"
#define DOCKER_MANIFEST "application/vnd.docker.distribution.manifest.v2+json"
#define DOCKER_LIST "application/vnd.docker.distribution.manifest.list.v2+json"

/* SHA-256 of "x". */
#define DIGEST "sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
#define DESCRIPTOR(type) "{\"mediaType\":\"" type "\",\"digest\":\"" DIGEST "\",\"size\":1}"
#define IMAGE_WITH(more) \
        "{\"schemaVersion\":2," more "\"config\":" DESCRIPTOR(OCI_CONFIG) ",\"layers\":[" DESCRIPTOR(OCI_LAYER) "]}"
#define IMAGE IMAGE_WITH("\"mediaType\":\"" OCI_MANIFEST "\",")
#define INDEX_OF(entries) "{\"schemaVersion\":2,\"manifests\":[" entries "]}"

static int parse(const char *body, const char *served, struct manifest *ret, struct error *e)
{
        struct document d = { .body = { .data = (char *) body, .len = strlen(body) }, .media_type = (char *) served };

        *e = (struct error) ERROR_INIT;
        return manifest_parse(&d, "the name", ret, e);
}

static void expect_parsed(const char *body, const char *served, enum manifest_kind kind)
{
        _cleanup_manifest_ struct manifest m = { 0 };
        struct error e;

        if (parse(body, served, &m, &e) < 0)
                fail_msg("%s", e.message);
        assert_int_equal(m.kind, kind);
}

static void expect_refused(const char *body, const char *served, const char *words)
{
        _cleanup_manifest_ struct manifest m = { 0 };
        struct error e;

        assert_int_equal(parse(body, served, &m, &e), -EBADMSG);
        assert_int_equal(e.kind, ERROR_BAD_DATA);
        if (!strstr(e.message, words) || !strstr(e.message, "the name"))
                fail_msg("'%s' is not in '%s'", words, e.message);
        assert_null(m.layers);
        assert_null(m.manifests);
}

static void images_and_indexes_are_parsed_however_they_are_served(void **state _unused_)
{
        static const char *const silent[] = { "", "application/json", "application/octet-stream", "text/plain" };

        expect_parsed(IMAGE, OCI_MANIFEST, MANIFEST_IMAGE);
        expect_parsed(IMAGE_WITH(""), OCI_MANIFEST, MANIFEST_IMAGE);
        expect_parsed(IMAGE_WITH(""), DOCKER_MANIFEST, MANIFEST_IMAGE);
        expect_parsed(IMAGE_WITH("\"mediaType\":\"" DOCKER_MANIFEST "\","), DOCKER_MANIFEST, MANIFEST_IMAGE);
        expect_parsed(INDEX_OF(DESCRIPTOR(OCI_MANIFEST)), OCI_INDEX, MANIFEST_INDEX);
        expect_parsed(INDEX_OF(""), DOCKER_LIST, MANIFEST_INDEX);
        for (size_t k = 0; k < ELEMENTSOF(silent); k++) {
                expect_parsed(IMAGE, silent[k], MANIFEST_IMAGE);
                expect_parsed(INDEX_OF(""), silent[k], MANIFEST_INDEX);
        }
}

static void all_of_a_descriptor_is_taken(void **state _unused_)
{
        _cleanup_manifest_ struct manifest m = { 0 };
        struct error e;

        if (parse("{\"schemaVersion\":2,\"config\":" DESCRIPTOR(
                          OCI_CONFIG) ",\"annotations\":{\"a\":\"b\"},\"layers\":[{"
                                      "\"mediaType\":\"" OCI_LAYER "; charset=utf-8\",\"digest\":\"" DIGEST
                                      "\",\"size\":1,\"data\":\"eA==\","
                                      "\"urls\":[\"http://one\",\"http://two\"],\"annotations\":{\"k\":\"v\",\"l\":\"\"},\"artifactType\":null}]}",
                  "", &m, &e) < 0)
                fail_msg("%s", e.message);
        assert_int_equal(m.layer_count, 1);
        assert_string_equal(m.layers[0].media_type, OCI_LAYER);
        assert_string_equal(m.layers[0].urls[1], "http://two");
        assert_null(m.layers[0].urls[2]);
        assert_string_equal(descriptor_annotation(&m.layers[0], "k"), "v");
        assert_string_equal(descriptor_annotation(&m.layers[0], "l"), "");
        assert_int_equal(m.layers[0].data_size, 1);
        assert_int_equal(m.layers[0].data[0], 'x');
        assert_null(m.layers[0].artifact_type);
        assert_string_equal(m.config.media_type, OCI_CONFIG);
        assert_string_equal(m.annotations[1], "b");
}

static void layers_of_every_known_type_are_taken(void **state _unused_)
{
        static const char *const types[] = {
                "application/vnd.oci.image.layer.v1.tar",
                "application/vnd.oci.image.layer.v1.tar+gzip",
                "application/vnd.oci.image.layer.v1.tar+zstd",
                "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
                "application/vnd.docker.image.rootfs.diff.tar.gzip",
                "application/vnd.docker.image.rootfs.diff.tar.zstd",
                "application/vnd.docker.image.rootfs.diff.tar",
                "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        };
        char body[1000];

        for (size_t k = 0; k < ELEMENTSOF(types); k++) {
                snprintf(body, sizeof(body),
                         "{\"schemaVersion\":2,\"config\":" DESCRIPTOR(OCI_CONFIG) ",\"layers\":[{\"mediaType\":\"%s\","
                                                                                   "\"digest\":\"" DIGEST
                                                                                   "\",\"size\":1}]}",
                         types[k]);
                expect_parsed(body, "", MANIFEST_IMAGE);
        }
}

static void schema_1_is_refused_by_its_name(void **state _unused_)
{
        expect_refused("{\"schemaVersion\":1,\"fsLayers\":[]}", "", "schema 1 manifest");
        expect_refused("{\"schemaVersion\":1}", "application/vnd.docker.distribution.manifest.v1+prettyjws",
                       "schema 1 manifest");
        expect_refused("{}", "application/vnd.docker.distribution.manifest.v1+json", "schema 1 manifest");
        expect_refused("{\"schemaVersion\":3,\"layers\":[]}", "", "schemaVersion is not 2");
        expect_refused("{\"layers\":[]}", "", "schemaVersion is not 2");
}

static void what_could_be_read_as_two_things_is_refused(void **state _unused_)
{
        expect_refused(IMAGE_WITH("\"manifests\":[],"), "", "both layers and manifests");
        expect_refused("{\"schemaVersion\":2,\"config\":" DESCRIPTOR(OCI_CONFIG) ",\"manifests\":[]}", "",
                       "both layers and manifests");
        expect_refused(IMAGE, DOCKER_MANIFEST, "served as " DOCKER_MANIFEST ", but says it is " OCI_MANIFEST);
        expect_refused(IMAGE_WITH("\"mediaType\":\"" OCI_INDEX "\","), "",
                       "its type is " OCI_INDEX ", but it has layers");
        expect_refused(IMAGE_WITH("\"mediaType\":\"" DOCKER_LIST "\","), "", "but it has layers");
        expect_refused(IMAGE_WITH(""), OCI_INDEX, "but it has layers");
        expect_refused(INDEX_OF(""), OCI_MANIFEST, "but it has manifests");
        expect_refused("{\"schemaVersion\":2,\"mediaType\":\"" OCI_MANIFEST "\",\"manifests\":[]}", "",
                       "but it has manifests");
}

static void what_is_no_image_is_refused(void **state _unused_)
{
        expect_refused("", "", "the name");
        expect_refused("<html>", "", "the name");
        expect_refused("[]", "", "no JSON object");
        expect_refused("{\"schemaVersion\":2}", "", "neither layers nor manifests");
        expect_refused("{\"schemaVersion\":2,\"mediaType\":\"application/x\"}", "", "it says it is application/x");
        expect_refused("{\"schemaVersion\":2,\"layers\":[]}", "", "no config");
        expect_refused("{\"schemaVersion\":2,\"config\":" DESCRIPTOR(OCI_CONFIG) ",\"layers\":[]}", "", "no layers");
        expect_refused("{\"schemaVersion\":2,\"config\":" DESCRIPTOR(OCI_CONFIG) ",\"layers\":{}}", "",
                       "layers is no array");
        expect_refused("{\"schemaVersion\":2,\"artifactType\":\"application/vnd.example\",\"config\":" DESCRIPTOR(
                               "application/vnd.oci.empty.v1+json") ",\"layers\":[" DESCRIPTOR(OCI_LAYER) "]}",
                       "", "an artifact of type application/vnd.example");
        expect_refused("{\"schemaVersion\":2,\"config\":" DESCRIPTOR(
                               "application/vnd.cncf.helm.config.v1+json") ",\"layers\":[" DESCRIPTOR(OCI_LAYER) "]}",
                       "", "an artifact of type application/vnd.cncf.helm.config.v1+json");
        expect_refused("{\"schemaVersion\":2,\"config\":" DESCRIPTOR(OCI_CONFIG) ",\"layers\":[" DESCRIPTOR(
                               "application/vnd.oci.image.layer.v1.tar+gzip+encrypted") "]}",
                       "", "+encrypted, which is not one");
        expect_refused("{\"schemaVersion\":2,\"config\":" DESCRIPTOR(OCI_CONFIG) ",\"layers\":[" DESCRIPTOR("") "]}",
                       "", "media type (none)");
}

static void expect_bad_layer(const char *descriptor, const char *words)
{
        char body[2000];

        snprintf(body, sizeof(body), "{\"schemaVersion\":2,\"config\":" DESCRIPTOR(OCI_CONFIG) ",\"layers\":[%s]}",
                 descriptor);
        expect_refused(body, "", words);
}

#define LAYER_WITH(digest, more) "{\"mediaType\":\"" OCI_LAYER "\",\"digest\":\"" digest "\"" more "}"

static void malformed_descriptors_are_refused(void **state _unused_)
{
        expect_bad_layer("\"" DIGEST "\"", "no object");
        expect_bad_layer("{\"mediaType\":\"" OCI_LAYER "\",\"size\":1}", "no digest");
        expect_bad_layer(LAYER_WITH("sha256:ABC", ",\"size\":1"), "sha256:ABC: not a digest");
        expect_bad_layer(LAYER_WITH("sha256:../../etc\\u001b", ",\"size\":1"), "../../etc\\x1b: not a digest");
        expect_bad_layer(LAYER_WITH(DIGEST, ""), "no valid size");
        expect_bad_layer(LAYER_WITH(DIGEST, ",\"size\":-1"), "no valid size");
        expect_bad_layer(LAYER_WITH(DIGEST, ",\"size\":1.5"), "no valid size");
        expect_bad_layer(LAYER_WITH(DIGEST, ",\"size\":1e30"), "no valid size");
        expect_bad_layer(LAYER_WITH(DIGEST, ",\"size\":1,\"urls\":\"http://a\""), "urls is malformed");
        expect_bad_layer(LAYER_WITH(DIGEST, ",\"size\":1,\"urls\":[1]"), "urls holds something that is no string");
        expect_bad_layer(LAYER_WITH(DIGEST, ",\"size\":1,\"annotations\":[]"), "annotations is malformed");
        expect_bad_layer(LAYER_WITH(DIGEST, ",\"size\":1,\"annotations\":{\"a\":{}}"), "annotations holds something");
        expect_bad_layer("{\"mediaType\":5,\"digest\":\"" DIGEST "\",\"size\":1}", "mediaType is no string");
        expect_bad_layer(LAYER_WITH(DIGEST, ",\"size\":1,\"data\":\"?\""), "no base64");
        expect_bad_layer(LAYER_WITH(DIGEST, ",\"size\":2,\"data\":\"eA==\""),
                         "inlined data has 1 bytes, the descriptor says 2");
        expect_bad_layer(LAYER_WITH(DIGEST, ",\"size\":1,\"data\":\"eQ==\""), "expected " DIGEST);
}

static void counts_are_bounded(void **state _unused_)
{
        _cleanup_buf_ struct buf body = { 0 };
        _cleanup_manifest_ struct manifest m = { 0 };
        struct error e;

        assert_int_equal(
                buf_append_str(&body, "{\"schemaVersion\":2,\"config\":" DESCRIPTOR(OCI_CONFIG) ",\"layers\":["), 0);
        for (size_t k = 0; k < MANIFEST_LAYERS_MAX; k++)
                assert_int_equal(buf_printf(&body, "%s" DESCRIPTOR(OCI_LAYER), k > 0 ? "," : ""), 0);
        size_t end = body.len;

        assert_int_equal(buf_append_str(&body, "]}"), 0);
        assert_int_equal(parse(body.data, "", &m, &e), 0);
        assert_int_equal(m.layer_count, MANIFEST_LAYERS_MAX);
        body.len = end;
        assert_int_equal(buf_append_str(&body, "," DESCRIPTOR(OCI_LAYER) "]}"), 0);
        expect_refused(body.data, "", "1025 layers are more than the 1024 allowed");
}

static void names_of_platforms_are_taken(void **state _unused_)
{
        _cleanup_manifest_ struct manifest m = { 0 };
        struct error e;

        if (parse(INDEX_OF("{\"mediaType\":\"" OCI_MANIFEST "\",\"digest\":\"" DIGEST
                           "\",\"size\":1,\"platform\":{\"os\":\"linux\","
                           "\"architecture\":\"arm\",\"variant\":\"v7\"}}," DESCRIPTOR("application/x")),
                  "", &m, &e) < 0)
                fail_msg("%s", e.message);
        assert_int_equal(m.manifest_count, 2);
        assert_string_equal(m.manifests[0].os, "linux");
        assert_string_equal(m.manifests[0].architecture, "arm");
        assert_string_equal(m.manifests[0].variant, "v7");
        assert_null(m.manifests[1].os);
        expect_refused(INDEX_OF("{\"digest\":\"" DIGEST "\",\"size\":1,\"platform\":{\"os\":7}}"), "",
                       "os is no string");
}

/* ---- artifacts ---- */

#define EMPTY_TYPE "application/vnd.oci.empty.v1+json"
#define ARTIFACT_TYPE "application/vnd.example.sbom.v1"
#define SUBJECT "\"subject\":" DESCRIPTOR(OCI_MANIFEST)
#define ARTIFACT_WITH(more) "{\"schemaVersion\":2,\"mediaType\":\"" OCI_MANIFEST "\"" more "}"

static int parse_artifact(const char *body, const char *served, struct manifest *ret, struct error *e)
{
        struct document d = { .body = { .data = (char *) body, .len = strlen(body) }, .media_type = (char *) served };

        *e = (struct error) ERROR_INIT;
        return manifest_parse_artifact(&d, "the name", ret, e);
}

/* TYPE NULL: it has none. */
static void expect_artifact(const char *body, const char *type, size_t layers)
{
        _cleanup_manifest_ struct manifest m = { 0 };
        struct error e;

        if (parse_artifact(body, OCI_MANIFEST, &m, &e) < 0)
                fail_msg("%s", e.message);
        assert_int_equal(m.kind, MANIFEST_IMAGE);
        assert_int_equal(m.layer_count, layers);
        if (type)
                assert_string_equal(m.artifact_type, type);
        else
                assert_null(m.artifact_type);
}

static void expect_no_artifact(const char *body, const char *served, const char *words)
{
        _cleanup_manifest_ struct manifest m = { 0 };
        struct error e;

        assert_int_equal(parse_artifact(body, served, &m, &e), -EBADMSG);
        assert_int_equal(e.kind, ERROR_BAD_DATA);
        if (!strstr(e.message, words) || !strstr(e.message, "the name"))
                fail_msg("'%s' is not in '%s'", words, e.message);
}

static void artifact_is_parsed_with_layers_of_any_type(void **state _unused_)
{
        _cleanup_manifest_ struct manifest m = { 0 };
        struct error e;

        if (parse_artifact(ARTIFACT_WITH(",\"artifactType\":\"" ARTIFACT_TYPE
                                         "\",\"config\":" DESCRIPTOR(EMPTY_TYPE) ",\"layers\":[" DESCRIPTOR(
                                                 "application/x") "," DESCRIPTOR("") "]," SUBJECT
                                                                                     ",\"annotations\":{\"a\":\"b\"}"),
                           OCI_MANIFEST, &m, &e) < 0)
                fail_msg("%s", e.message);
        assert_int_equal(m.layer_count, 2);
        assert_string_equal(m.layers[0].media_type, "application/x");
        assert_string_equal(m.artifact_type, ARTIFACT_TYPE);
        assert_string_equal(m.config.media_type, EMPTY_TYPE);
        assert_int_equal(m.subject.algorithm, DIGEST_SHA256);
        assert_true(digest_equal(&m.subject, &m.layers[0].digest));
        assert_string_equal(m.annotations[0], "a");
        assert_string_equal(m.annotations[1], "b");
}

static void artifact_needs_neither_config_nor_layers(void **state _unused_)
{
        _cleanup_manifest_ struct manifest m = { 0 };
        struct error e;

        expect_artifact(ARTIFACT_WITH(",\"artifactType\":\"" ARTIFACT_TYPE "\""), ARTIFACT_TYPE, 0);
        expect_artifact(ARTIFACT_WITH(",\"artifactType\":\"" ARTIFACT_TYPE
                                      "\",\"config\":null,\"layers\":null,\"subject\":null"),
                        ARTIFACT_TYPE, 0);
        expect_artifact(ARTIFACT_WITH(",\"layers\":[]"), NULL, 0);
        assert_int_equal(parse_artifact(ARTIFACT_WITH(",\"layers\":[]"), "", &m, &e), 0);
        assert_int_equal(m.subject.algorithm, DIGEST_NONE);
}

static void type_of_an_artifact_is_that_of_its_config_where_it_states_none(void **state _unused_)
{
        expect_artifact(ARTIFACT_WITH(",\"config\":" DESCRIPTOR(ARTIFACT_TYPE) ",\"layers\":[]"), ARTIFACT_TYPE, 0);
        expect_artifact(ARTIFACT_WITH(",\"artifactType\":\"\",\"config\":" DESCRIPTOR(ARTIFACT_TYPE)), ARTIFACT_TYPE,
                        0);
        expect_artifact(ARTIFACT_WITH(",\"config\":" DESCRIPTOR("")), NULL, 0);
        expect_artifact(IMAGE, OCI_CONFIG, 1);
}

static void artifacts_are_parsed_as_strictly_as_images(void **state _unused_)
{
        _cleanup_manifest_ struct manifest m = { 0 };
        struct error e;

        expect_no_artifact("[]", "", "no JSON object");
        expect_no_artifact(ARTIFACT_WITH(""), "", "not an artifact: the document has neither layers nor manifests");
        expect_no_artifact("{\"schemaVersion\":1,\"layers\":[]}", "", "schema 1 manifest");
        expect_no_artifact("{\"artifactType\":\"a\",\"blobs\":[]}", "", "schemaVersion is not 2");
        expect_no_artifact(ARTIFACT_WITH(",\"layers\":[],\"manifests\":[]"), "", "both layers and manifests");
        expect_no_artifact(INDEX_OF(""), OCI_INDEX, "an index");
        expect_no_artifact("{\"schemaVersion\":2,\"artifactType\":\"a\",\"manifests\":[]}", "", "an index");
        expect_no_artifact(ARTIFACT_WITH(",\"layers\":[]"), OCI_INDEX, "served as " OCI_INDEX);
        expect_no_artifact("{\"schemaVersion\":2,\"layers\":[]}", OCI_INDEX, "but it has layers");
        expect_no_artifact(ARTIFACT_WITH(",\"layers\":{}"), "", "layers is no array");
        expect_no_artifact(ARTIFACT_WITH(",\"layers\":[{}]"), "", "no digest");
        expect_no_artifact(ARTIFACT_WITH(",\"config\":{}"), "", "no digest");
        expect_no_artifact(ARTIFACT_WITH(",\"layers\":[],\"subject\":\"" DIGEST "\""), "", "no object");
        expect_no_artifact(ARTIFACT_WITH(",\"artifactType\":7"), "", "artifactType is no string");
        expect_no_artifact(ARTIFACT_WITH(",\"layers\":[],\"annotations\":[]"), "", "annotations is malformed");

        /* What an artifact may be, an image may not. */
        assert_int_equal(parse(ARTIFACT_WITH(",\"artifactType\":\"a\""), "", &m, &e), -EBADMSG);
        assert_int_equal(parse(ARTIFACT_WITH(",\"config\":null,\"layers\":[]"), "", &m, &e), -EBADMSG);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(images_and_indexes_are_parsed_however_they_are_served),
                cmocka_unit_test(all_of_a_descriptor_is_taken),
                cmocka_unit_test(layers_of_every_known_type_are_taken),
                cmocka_unit_test(schema_1_is_refused_by_its_name),
                cmocka_unit_test(what_could_be_read_as_two_things_is_refused),
                cmocka_unit_test(what_is_no_image_is_refused),
                cmocka_unit_test(malformed_descriptors_are_refused),
                cmocka_unit_test(counts_are_bounded),
                cmocka_unit_test(names_of_platforms_are_taken),
                cmocka_unit_test(artifact_is_parsed_with_layers_of_any_type),
                cmocka_unit_test(artifact_needs_neither_config_nor_layers),
                cmocka_unit_test(type_of_an_artifact_is_that_of_its_config_where_it_states_none),
                cmocka_unit_test(artifacts_are_parsed_as_strictly_as_images),
        };

        return cmocka_run_group_tests_name("manifest", tests, NULL, NULL);
}
