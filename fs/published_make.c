/* SPDX-License-Identifier: Apache-2.0 */

/* The documents of published indexes. */

#include <cjson/cJSON.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <zstd.h>

#include "regfs/json.h"
#include "regfs/published.h"

#define MANIFEST_TYPE "application/vnd.oci.image.manifest.v1+json"
#define CONFIG_TYPE "application/vnd.oci.image.config.v1+json"
#define EMPTY_TYPE "application/vnd.oci.empty.v1+json"
#define EMPTY_DIGEST "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a" /* of "{}" */

/* ---- tables ---- */

static int compress_into(struct buf *b, const void *data, size_t n)
{
        size_t bound = ZSTD_compressBound(n), done;
        ZSTD_CCtx *c;
        int r = buf_reserve(b, bound);

        if (r < 0)
                return r;
        c = ZSTD_createCCtx();
        if (!c)
                return -ENOMEM;
        ZSTD_CCtx_setParameter(c, ZSTD_c_checksumFlag, 1);
        done = ZSTD_compress2(c, b->data, bound, data, n);
        ZSTD_freeCCtx(c);
        if (ZSTD_isError(done))
                return -ENOMEM; /* the parameters and the room are right: nothing else is left to go wrong */
        b->len = done;
        return 0;
}

int published_compress(int fd, const struct digest *layer, struct published_layer *ret, struct error *e)
{
        struct published_layer l = { .layer = *layer };
        char shown[DIGEST_STRING_MAX];
        const void *data;
        struct stat st;
        int r;

        if (fstat(fd, &st) < 0)
                return error_errno(e, errno, "TOC of %s", digest_format(layer, shown));
        r = store_map_file(fd, (size_t) st.st_size, &data);
        if (r < 0)
                return error_errno(e, -r, "mapping the TOC of %s", digest_format(layer, shown));
        r = compress_into(&l.data, data, (size_t) st.st_size);
        munmap((void *) data, (size_t) st.st_size);
        if (r == 0)
                r = digest_of(DIGEST_SHA256, l.data.data, l.data.len, &l.digest);
        if (r < 0) {
                buf_free(&l.data);
                return error_errno(e, -r, "compressing the TOC of %s", digest_format(layer, shown));
        }
        *ret = l;
        return 0;
}

/* ---- manifests ---- */

static int add_table(struct buf *b, const struct published_layer *l)
{
        char table[DIGEST_STRING_MAX], layer[DIGEST_STRING_MAX];

        return buf_printf(b, "{\"mediaType\":\"%s\",\"digest\":\"%s\",\"size\":%zu,\"annotations\":{\"%s\":\"%s\"}}",
                          PUBLISHED_TOC_TYPE, digest_format(&l->digest, table), l->data.len, PUBLISHED_LAYER,
                          digest_format(&l->layer, layer));
}

/* Digests and our own types need no quoting; the subject's media type is somebody else's. */
static int add_subject(struct buf *b, const struct descriptor *subject)
{
        char digest[DIGEST_STRING_MAX];
        int r = buf_append_str(b, "\"subject\":{\"mediaType\":");

        if (r == 0)
                r = json_quote(b, subject->media_type);
        return r < 0 ? r
                     : buf_printf(b, ",\"digest\":\"%s\",\"size\":%ju}", digest_format(&subject->digest, digest),
                                  (uintmax_t) subject->size);
}

int published_manifest(const struct descriptor *subject, const struct published_layer *layers, size_t count,
                       struct buf *ret, struct error *e)
{
        _cleanup_buf_ struct buf b = { 0 };
        int r;

        r = buf_printf(&b,
                       "{\"schemaVersion\":2,\"mediaType\":\"%s\",\"artifactType\":\"%s\","
                       "\"config\":{\"mediaType\":\"%s\",\"digest\":\"%s\",\"size\":2},\"layers\":[",
                       MANIFEST_TYPE, PUBLISHED_TYPE, EMPTY_TYPE, EMPTY_DIGEST);
        for (size_t k = 0; r == 0 && k < count; k++) {
                r = k > 0 ? buf_append_char(&b, ',') : 0;
                if (r == 0)
                        r = add_table(&b, &layers[k]);
        }
        if (r == 0)
                r = buf_append_str(&b, "],");
        if (r == 0)
                r = add_subject(&b, subject);
        if (r == 0)
                r = buf_printf(&b, ",\"annotations\":{\"%s\":\"%d\"}}", PUBLISHED_VERSION, TOC_VERSION);
        if (r < 0)
                return error_oom(e);
        *ret = b;
        b = (struct buf) { 0 };
        return 0;
}

/* ---- binding ---- */

/* docker's media types, which know no annotations, and image-spec's that mean the same. */
static const struct {
        const char *docker, *oci;
} types[] = {
        { "application/vnd.docker.container.image.v1+json", CONFIG_TYPE },
        { "application/vnd.docker.image.rootfs.diff.tar", "application/vnd.oci.image.layer.v1.tar" },
        { "application/vnd.docker.image.rootfs.foreign.diff.tar",
          "application/vnd.oci.image.layer.nondistributable.v1.tar" },
};

static int convert_type(cJSON *descriptor)
{
        const char *type = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(descriptor, "mediaType"));

        for (size_t k = 0; type && k < ELEMENTSOF(types); k++) {
                const char *rest = str_after(type, types[k].docker);
                _cleanup_free_ char *converted = NULL;
                cJSON *value;

                if (!rest || (*rest && *rest != '.'))
                        continue;
                /* ".gzip" is "+gzip" there. */
                converted = str_printf("%s%s%s", types[k].oci, *rest ? "+" : "", *rest ? rest + 1 : "");
                value = converted ? cJSON_CreateString(converted) : NULL;
                if (!value || !cJSON_ReplaceItemInObjectCaseSensitive(descriptor, "mediaType", value)) {
                        cJSON_Delete(value);
                        return -ENOMEM;
                }
                return 0;
        }
        return 0;
}

static int set_text(cJSON *object, const char *name, const char *text)
{
        cJSON_DeleteItemFromObjectCaseSensitive(object, name);
        return cJSON_AddStringToObject(object, name, text) ? 0 : -ENOMEM;
}

static int bind_index(cJSON *root, const struct digest *index)
{
        cJSON *annotations = cJSON_GetObjectItemCaseSensitive(root, "annotations"), *layer;
        char text[DIGEST_STRING_MAX];
        int r = set_text(root, "mediaType", MANIFEST_TYPE);

        if (r == 0)
                r = convert_type(cJSON_GetObjectItemCaseSensitive(root, "config"));
        cJSON_ArrayForEach(layer, cJSON_GetObjectItemCaseSensitive(root, "layers"))
        {
                if (r == 0)
                        r = convert_type(layer);
        }
        if (!cJSON_IsObject(annotations)) {
                cJSON_DeleteItemFromObjectCaseSensitive(root, "annotations");
                annotations = cJSON_AddObjectToObject(root, "annotations");
        }
        if (r == 0 && !annotations)
                r = -ENOMEM;
        return r < 0 ? r : set_text(annotations, PUBLISHED_BINDING, digest_format(index, text));
}

int published_bind(const struct document *document, const struct digest *index, struct buf *ret, struct error *e)
{
        _cleanup_buf_ struct buf b = { 0 };
        cJSON *root = cJSON_ParseWithLength(document->body.data, document->body.len);
        char *text = NULL;
        int r = 0;

        if (root && cJSON_IsObject(root))
                r = bind_index(root, index);
        if (root && r == 0)
                text = cJSON_PrintUnformatted(root);
        cJSON_Delete(root);
        if (!text || r < 0)
                return error_oom(e);
        r = buf_append_str(&b, text);
        cJSON_free(text);
        if (r < 0)
                return error_oom(e);
        *ret = b;
        b = (struct buf) { 0 };
        return 0;
}
