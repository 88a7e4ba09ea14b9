/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Small images in a layout of the test's own, one of each kind. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../unit/embedded_maker.h"
#include "../unit/layout_fixture.h"
#include "regfs/image.h"
#include "regfs/manifest.h"
#include "regfs/published.h"

#define LAYERS_MAX 3

struct given_layer {
        struct stored_blob blob;
        const char *type;  /* behind "layer.v1." */
        char *const *keys; /* annotations: key, value … NULL; or NULL */
};

static inline void put_annotations(struct buf *out, char *const *pairs)
{
        const char *comma = "";

        (void) buf_append_str(out, ",\"annotations\":{");
        for (; pairs && *pairs; pairs += 2) {
                (void) buf_printf(out, "%s\"%s\":\"%s\"", comma, pairs[0], pairs[1]);
                comma = ",";
        }
        (void) buf_append_str(out, "}");
}

/* Puts an image of these layers, tagged "image", and writes the layout's index. */
static inline struct stored_blob put_image(struct layout *l, const struct given_layer *layers, size_t count)
{
        struct stored_blob c = layout_put(l, CONFIG, strlen(CONFIG)), manifest;
        _cleanup_buf_ struct buf text = { 0 };

        (void) buf_append_str(&text, "{\"schemaVersion\":2,\"mediaType\":\"" OCI "manifest.v1+json\",\"config\":");
        layout_descriptor(&text, OCI "config.v1+json", &c);
        (void) buf_append_str(&text, "},\"layers\":[");
        for (size_t k = 0; k < count; k++) {
                char type[100];

                snprintf(type, sizeof(type), OCI "layer.v1.%s", layers[k].type);
                (void) buf_append_str(&text, k > 0 ? "," : "");
                layout_descriptor(&text, type, &layers[k].blob);
                put_annotations(&text, layers[k].keys);
                (void) buf_append_str(&text, "}");
        }
        assert_int_equal(buf_append_str(&text, "]}"), 0);
        manifest = layout_put(l, text.data, text.len);
        layout_descriptor(&l->manifests, OCI "manifest.v1+json", &manifest);
        assert_int_equal(
                buf_append_str(&l->manifests, ",\"annotations\":{\"org.opencontainers.image.ref.name\":\"image\"}}"),
                0);
        layout_finish(l);
        return manifest;
}

static inline struct stored_blob put_fixture(struct layout *l, const char *name)
{
        _cleanup_buf_ struct buf data = { 0 };

        read_fixture(name, &data);
        return layout_put(l, data.data, data.len);
}

/* Three layers: gzip, zstd, tar. */
static inline void make_plain(struct layout *l)
{
        static const char blobs[] = "../demo/blobs/sha256/";
        static const char *const parts[LAYERS_MAX][2] = {
                { "d557abaeb8253483cf997191d640c3eff031a71a1a640c2d9639731e5ce6adb1", "tar+gzip" },
                { "b1ab00042ffcd3a5e4df3743344749836691b6cd96c9eee627a78598cfc52d73", "tar+zstd" },
                { "94055fce71d1190a2ca7f1d493b8f029a54e60862faf4a4884a3229f32ac7a2a", "tar" },
        };
        struct given_layer layers[LAYERS_MAX] = { 0 };

        for (size_t k = 0; k < LAYERS_MAX; k++) {
                char name[200];

                snprintf(name, sizeof(name), "%s%s", blobs, parts[k][0]);
                layers[k].blob = put_fixture(l, name);
                layers[k].type = parts[k][1];
        }
        put_image(l, layers, LAYERS_MAX);
}

/* A layer that has its table in it: two small files and one of some chunks. */
static inline void make_embedded(struct layout *l, enum codec codec)
{
        _cleanup_maker_ struct maker m = { .codec = codec };
        _cleanup_free_ uint8_t *noise = malloc(200000);
        struct given_layer layer = { .type = codec == CODEC_ZSTD ? "tar+zstd" : "tar+gzip" };
        struct annotations a;
        uint32_t x = 7;

        assert_non_null(noise);
        for (size_t k = 0; k < 200000; k++) {
                x = x * 1664525 + 1013904223;
                noise[k] = (uint8_t) (x >> 24);
        }
        add_payload(&m, A, strlen(A));
        add_payload(&m, B, strlen(B));
        add_payload(&m, noise, 100000);
        add_payload(&m, noise + 100000, 100000);
        end_with(&m,
                 FILE_A "," FILE_B ",{\"type\":\"reg\",\"name\":\"c\",\"size\":200000,\"offset\":@C,\"chunkOffset\":0,"
                        "\"chunkSize\":100000,\"chunkDigest\":\"#C\"},{\"type\":\"chunk\",\"name\":\"c\","
                        "\"offset\":@D,\"chunkOffset\":100000,\"chunkSize\":100000,\"chunkDigest\":\"#D\"}");
        a = annotate(&m);
        layer.keys = a.list;
        layer.blob = layout_put(l, m.blob.data, m.blob.len);
        put_image(l, &layer, 1);
}

static inline void make_estargz(struct layout *l)
{
        make_embedded(l, CODEC_GZIP);
}

static inline void make_zstdchunked(struct layout *l)
{
        make_embedded(l, CODEC_ZSTD);
}

/* Five megabytes in one gzip layer, with SOCI's table beside it. */
static inline void make_soci(struct layout *l)
{
        struct stored_blob table = put_fixture(l, "base.tar.gz.ztoc"), empty = layout_put(l, "{}", 2), index;
        struct given_layer layer = { .blob = put_fixture(l, "base.tar.gz"), .type = "tar+gzip" };
        struct stored_blob image = put_image(l, &layer, 1);
        _cleanup_buf_ struct buf text = { 0 };
        char digest[DIGEST_STRING_MAX];

        (void) buf_append_str(&text, "{\"schemaVersion\":2,\"mediaType\":\"" OCI
                                     "manifest.v1+json\",\"artifactType\":\"" SOCI_TYPE_V1 "\",\"config\":");
        layout_descriptor(&text, SOCI_TYPE_V1, &empty);
        (void) buf_append_str(&text, "},\"layers\":[");
        layout_descriptor(&text, "application/octet-stream", &table);
        (void) buf_printf(&text, ",\"annotations\":{\"com.amazon.soci.image-layer-digest\":\"%s\"}}],\"subject\":",
                          digest_format(&layer.blob.digest, digest));
        layout_descriptor(&text, OCI "manifest.v1+json", &image);
        assert_int_equal(buf_append_str(&text, "}}"), 0);
        index = layout_put(l, text.data, text.len);

        (void) buf_append_str(&l->manifests, ",");
        layout_descriptor(&l->manifests, OCI "manifest.v1+json", &index);
        assert_int_equal(buf_append_str(&l->manifests, ",\"artifactType\":\"" SOCI_TYPE_V1 "\"}"), 0);
        layout_finish(l);
}

/* The plain image with regfs's own index beside it. */
static inline void make_published(struct layout *l)
{
        struct regfs_options o = REGFS_OPTIONS_INIT;
        const struct publish_options where = { 0 };
        _cleanup_(image_close_ptr) struct image *i = NULL;
        struct publish_result result;
        struct error e = ERROR_INIT;
        char reference[200], store[200];

        make_plain(l);
        snprintf(reference, sizeof(reference), "oci:%s:image", l->path);
        snprintf(store, sizeof(store), "%s/publisher", l->path);
        o.cache_dir = store;
        o.platform = "linux/amd64";
        if (image_open_for_index(reference, &o, &i, &e) < 0 || image_publish(i, &where, &result, &e) < 0)
                fail_msg("%s", e.message);
        assert_int_equal(result.layers, LAYERS_MAX);
}
