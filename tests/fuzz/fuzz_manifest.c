/* SPDX-License-Identifier: Apache-2.0 */

/* Manifests, indexes, configs and published indexes of any bytes, and the changing of an index as text. The input's
 * first byte chooses what they are taken for and what the registry says they are. */

#include "cache/blob/index_text.h"
#include "fuzz.h"
#include "regfs/manifest.h"
#include "regfs/published.h"

#define OCI "application/vnd.oci.image."
#define DOCKER "application/vnd.docker.distribution.manifest."

static const char *const types[] = {
        "", OCI "manifest.v1+json", OCI "index.v1+json", DOCKER "v2+json", DOCKER "list.v2+json", "application/json",
};

static struct document document_of(const char *type, const void *data, size_t size)
{
        struct document d = { .media_type = exact_text(type, strlen(type)) };

        REQUIRE(buf_append(&d.body, data, size) == 0);
        REQUIRE(digest_of(DIGEST_SHA256, data, size, &d.digest) == 0);
        return d;
}

static void check_descriptor(const struct descriptor *d)
{
        REQUIRE(d->media_type && digest_size(d->digest.algorithm) > 0);
        REQUIRE(!d->data || d->data_size == d->size);
        for (char **a = d->annotations; a && a[0]; a += 2)
                REQUIRE(a[1] && descriptor_annotation(d, a[0]));
}

static void check_manifest(const struct manifest *m)
{
        for (size_t i = 0; i < m->layer_count; i++)
                check_descriptor(&m->layers[i]);
        for (size_t i = 0; i < m->manifest_count; i++)
                check_descriptor(&m->manifests[i]);
        REQUIRE(m->layer_count <= MANIFEST_LAYERS_MAX);
        if (m->kind == MANIFEST_INDEX)
                REQUIRE(m->layer_count == 0);
        else
                REQUIRE(m->manifest_count == 0);
}

static void check_choice(const struct manifest *m)
{
        _cleanup_platform_ struct platform wanted = { 0 };
        struct error e = ERROR_INIT;
        size_t entry = SIZE_MAX;
        int r;

        REQUIRE(platform_parse("linux/arm/v7", &wanted, NULL) == 0);
        r = manifest_choose(m, &wanted, "it", &entry, &e);

        REQUIRE(r == 0 ? entry < m->manifest_count : r == -ENOENT && is_told(r, &e));
}

/* An index that is changed as text is an index still, with one entry more. */
static void check_change(const struct document *d, const struct manifest *m, uint8_t dropped)
{
        static char type[] = OCI "manifest.v1+json";
        struct descriptor add = { .media_type = type,
                                  .digest = { .algorithm = DIGEST_SHA256, .bytes = { 7 } },
                                  .size = 1 };
        _cleanup_free_ bool *drop = calloc(m->manifest_count + 1, sizeof(*drop));
        _cleanup_manifest_ struct manifest changed = { 0 };
        _cleanup_document_ struct document after = { 0 };
        struct error e = ERROR_INIT;
        size_t left = 0;
        int r;

        REQUIRE(drop);
        for (size_t i = 0; i < m->manifest_count; i++) {
                drop[i] = dropped >> i % 8 & 1;
                left += !drop[i];
        }
        r = index_text_change(&d->body, m->manifest_count, drop, &add, &after.body, &e);
        if (r < 0) {
                REQUIRE((r == -EBADMSG || r == -EFBIG) && is_told(r, &e));
                return;
        }
        after.media_type = exact_text(d->media_type, strlen(d->media_type));
        REQUIRE(manifest_parse(&after, "it", &changed, &e) == 0);
        REQUIRE(changed.manifest_count == left + 1);
        REQUIRE(digest_equal(&changed.manifests[left].digest, &add.digest));
}

/* An image that binds an index is the same image, with an annotation more. */
static void check_binding(const struct document *d, const struct manifest *m)
{
        struct digest index = { .algorithm = DIGEST_SHA256, .bytes = { 9 } };
        _cleanup_document_ struct document bound = { .media_type = exact_text("", 0) };
        _cleanup_manifest_ struct manifest after = { 0 };
        char text[DIGEST_STRING_MAX];
        struct error e = ERROR_INIT;
        bool found = false;
        int r = published_bind(d, &index, &bound.body, &e);

        if (r < 0) {
                REQUIRE(is_told(r, &e));
                return;
        }
        REQUIRE(manifest_parse(&bound, "it", &after, &e) == 0);
        REQUIRE(after.kind == MANIFEST_IMAGE && after.layer_count == m->layer_count);
        for (size_t i = 0; i < m->layer_count; i++)
                REQUIRE(digest_equal(&after.layers[i].digest, &m->layers[i].digest));
        digest_format(&index, text);
        for (char **a = after.annotations; a && a[0]; a += 2)
                found = found || (str_eq(a[0], PUBLISHED_BINDING) && str_eq(a[1], text));
        REQUIRE(found);
}

static int parse(const struct document *d, uint8_t dropped, struct error *e)
{
        _cleanup_manifest_ struct manifest m = { 0 };
        int r = manifest_parse(d, "it", &m, e);

        if (r < 0)
                return r;
        check_manifest(&m);
        if (m.kind == MANIFEST_INDEX) {
                check_choice(&m);
                check_change(d, &m, dropped);
        } else {
                REQUIRE(m.layer_count > 0);
                check_descriptor(&m.config);
                check_binding(d, &m);
        }
        return 0;
}

static int parse_artifact(const struct document *d, struct error *e)
{
        _cleanup_manifest_ struct manifest m = { 0 };
        int r = manifest_parse_artifact(d, "it", &m, e);

        if (r == 0)
                check_manifest(&m);
        return r;
}

static int parse_published(const struct document *d, struct error *e)
{
        struct published p = { 0 };
        int r = published_parse(d, "it", &p, e);

        if (r == 0) {
                REQUIRE(p.format == PUBLISHED_REGFS || p.format == PUBLISHED_SOCI);
                check_manifest(&p.manifest);
                for (size_t i = 0; i < p.manifest.layer_count; i++) {
                        char kind[LAYER_KIND_MAX];

                        published_kind(&p, &p.manifest.layers[i], kind);
                }
                REQUIRE(!published_toc(&p, &d->digest));
        }
        published_clear(&p);
        return r;
}

static int parse_config(const struct document *d, struct error *e)
{
        _cleanup_platform_ struct platform p = { 0 };
        _cleanup_free_ char *text = NULL;
        int r = config_platform(&d->body, "it", &p, e);

        if (r < 0)
                return r;
        text = platform_format(&p);
        REQUIRE(p.os && p.architecture && text);
        return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        uint8_t choice = take_byte(&data, &size);
        uint8_t dropped = take_byte(&data, &size);
        _cleanup_document_ struct document d = document_of(types[(choice >> 2) % ELEMENTSOF(types)], data, size);
        struct error e = ERROR_INIT;
        int r;

        switch (choice & 3) {
        case 0:
                r = parse(&d, dropped, &e);
                break;
        case 1:
                r = parse_artifact(&d, &e);
                break;
        case 2:
                r = parse_published(&d, &e);
                break;
        default:
                r = parse_config(&d, &e);
        }
        REQUIRE(r == 0 || is_told(r, &e));
        return 0;
}
