/* SPDX-License-Identifier: Apache-2.0 */

/* Reading published indexes: their manifests, and their tables into the store. */

#include "regfs/published.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <zstd.h>

#include "regfs/io.h"
#include "regfs/soci.h"

#define SOCI_LAYER "com.amazon.soci.image-layer-digest"
#define SOCI_TABLE_TYPE "application/octet-stream"

enum published_format published_format_of(const char *artifact_type)
{
        if (str_eq(artifact_type, PUBLISHED_TYPE))
                return PUBLISHED_REGFS;
        if (str_eq(artifact_type, SOCI_TYPE_V1) || str_eq(artifact_type, SOCI_TYPE_V2))
                return PUBLISHED_SOCI;
        return PUBLISHED_NONE;
}

/* ---- manifests ---- */

void published_clear(struct published *p)
{
        manifest_clear(&p->manifest);
        *p = (struct published) { 0 };
}

static const char *layer_annotation(enum published_format format)
{
        return format == PUBLISHED_REGFS ? PUBLISHED_LAYER : SOCI_LAYER;
}

static const char *table_type(enum published_format format)
{
        return format == PUBLISHED_REGFS ? PUBLISHED_TOC_TYPE : SOCI_TABLE_TYPE;
}

static int check_tables(const struct published *p, const char *name, struct error *e)
{
        const char *type = table_type(p->format);
        char shown[DIGEST_STRING_MAX];

        for (size_t k = 0; k < p->manifest.layer_count; k++) {
                const struct descriptor *d = &p->manifest.layers[k];
                struct digest layer;
                struct error why = ERROR_INIT;

                /* SOCI's index may list other things, which have no need to be understood. */
                if (!str_eq(d->media_type, type) && p->format == PUBLISHED_SOCI)
                        continue;
                if (!str_eq(d->media_type, type))
                        return error_set(e, ERROR_BAD_DATA, EBADMSG, "%s: table %s has media type %s instead of %s",
                                         name, digest_format(&d->digest, shown), d->media_type, type);
                if (digest_parse(descriptor_annotation(d, layer_annotation(p->format)), &layer, &why) < 0)
                        return error_set(e, ERROR_BAD_DATA, EBADMSG, "%s: table %s: annotation %s: %s", name,
                                         digest_format(&d->digest, shown), layer_annotation(p->format), why.message);
                if (d->digest.algorithm != DIGEST_SHA256)
                        return error_set(e, ERROR_BAD_DATA, EBADMSG, "%s: table %s is not named by a SHA-256", name,
                                         digest_format(&d->digest, shown));
        }
        return 0;
}

static const char *annotation(char **annotations, const char *key)
{
        const struct descriptor d = { .annotations = annotations };

        return descriptor_annotation(&d, key);
}

static int check_version(const struct published *p, const char *name, struct error *e)
{
        const char *version = annotation(p->manifest.annotations, PUBLISHED_VERSION);
        char own[16];

        snprintf(own, sizeof(own), "%d", TOC_VERSION);
        if (p->format != PUBLISHED_REGFS || str_eq(version, own))
                return 0;
        return error_set(e, ERROR_BAD_DATA, EBADMSG, "%s: its tables have version %s, this regfs reads %s", name,
                         version ? version : "(none)", own);
}

int published_parse(const struct document *document, const char *name, struct published *ret, struct error *e)
{
        _cleanup_(published_clear) struct published p = { .digest = document->digest };
        const char *type;
        int r;

        r = manifest_parse_artifact(document, name, &p.manifest, e);
        if (r < 0)
                return r;
        type = p.manifest.artifact_type;
        p.format = published_format_of(type);
        p.subject = p.manifest.subject;
        if (p.format == PUBLISHED_NONE)
                return error_set(e, ERROR_BAD_DATA, EBADMSG,
                                 "%s: no index that regfs knows, but an artifact of type %s", name,
                                 type && *type ? type : "(none)");
        r = check_version(&p, name, e);
        if (r == 0)
                r = check_tables(&p, name, e);
        if (r < 0)
                return r;
        *ret = p;
        p = (struct published) { 0 };
        return 0;
}

const struct descriptor *published_toc(const struct published *p, const struct digest *layer)
{
        char text[DIGEST_STRING_MAX];

        digest_format(layer, text);
        for (size_t k = 0; k < p->manifest.layer_count; k++)
                if (str_eq(p->manifest.layers[k].media_type, table_type(p->format)) &&
                    str_eq(descriptor_annotation(&p->manifest.layers[k], layer_annotation(p->format)), text))
                        return &p->manifest.layers[k];
        return NULL;
}

void published_kind(const struct published *p, const struct descriptor *table, char ret_kind[LAYER_KIND_MAX])
{
        char hex[DIGEST_STRING_MAX];

        snprintf(ret_kind, LAYER_KIND_MAX, "%s-%.*s", p->format == PUBLISHED_REGFS ? "regfs" : "soci", 2 * SHA256_SIZE,
                 digest_hex(&table->digest, hex));
}

/* ---- a table's way into the store ---- */

/* The blob's bytes go to DRAFT, from its position 0: as they are, or decompressed. */
struct reception {
        const struct published_import *import;
        struct hasher *hasher;
        ZSTD_DStream *zstd; /* NULL: nothing to decompress */
        uint8_t *out;
        bool frame_ended;
        struct store_draft *draft;
        uint64_t written;
        /* Bytes whose digest is wrong say nothing about the table: what else is wrong is told after that. */
        int failed;
        struct error why;
};

static void reception_clear(struct reception *c)
{
        hasher_free(c->hasher);
        ZSTD_freeDStream(c->zstd);
        free(c->out);
}

static int write_out(struct reception *c, const void *data, size_t n, struct error *e)
{
        int r;

        do {
                r = pwrite_full(c->draft->fd, data, n, c->written);
                if (r < 0)
                        error_errno(e, -r, "store %s: writing a table", store_path(c->import->store));
        } while (r < 0 && store_draft_move_out(c->draft, r, e));
        c->written += n;
        return r;
}

static int decompress(struct reception *c, const uint8_t *data, size_t n, struct error *e)
{
        ZSTD_inBuffer in = { .src = data, .size = n };

        while (in.pos < in.size) {
                ZSTD_outBuffer out = { .dst = c->out, .size = ZSTD_DStreamOutSize() };
                uint64_t max = c->import->toc_max ? c->import->toc_max : PUBLISHED_TOC_MAX;
                size_t left;
                int r;

                if (c->frame_ended)
                        return error_set(&c->why, ERROR_BAD_DATA, EBADMSG, "there is something behind its zstd frame");
                left = ZSTD_decompressStream(c->zstd, &out, &in);
                if (ZSTD_isError(left))
                        return error_set(&c->why, ERROR_BAD_DATA, EBADMSG, "zstd: %s", ZSTD_getErrorName(left));
                c->frame_ended = left == 0;
                if (out.pos > max - c->written)
                        return error_set(&c->why, ERROR_BAD_DATA, EBADMSG, "more than %zu MiB, decompressed",
                                         (size_t) (max / MIB));
                r = write_out(c, c->out, out.pos, e);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int on_piece(void *context, uint64_t offset, const uint8_t *data, size_t n, struct error *e)
{
        struct reception *c = context;
        int r = hasher_update(c->hasher, data, n);

        (void) offset;
        if (r < 0)
                return error_errno(e, -r, "hashing");
        if (c->failed)
                return 0;
        if (!c->zstd)
                return write_out(c, data, n, e);
        r = decompress(c, data, n, e);
        if (r == -EBADMSG) {
                c->failed = r;
                return 0;
        }
        return r;
}

static int start(struct reception *c, struct error *e)
{
        c->hasher = hasher_new(c->import->table->digest.algorithm);
        if (!c->hasher)
                return error_oom(e);
        if (c->import->format != PUBLISHED_REGFS)
                return 0;
        c->zstd = ZSTD_createDStream();
        c->out = malloc(ZSTD_DStreamOutSize());
        if (!c->zstd || !c->out || ZSTD_isError(ZSTD_DCtx_setParameter(c->zstd, ZSTD_d_windowLogMax, 27)))
                return error_oom(e);
        return 0;
}

static int finish(struct reception *c, const char *name, struct error *e)
{
        const struct digest *expected = &c->import->table->digest;
        char shown[DIGEST_STRING_MAX], shown_expected[DIGEST_STRING_MAX];
        struct digest actual;
        int r = hasher_finish(c->hasher, &actual);

        if (r < 0)
                return error_errno(e, -r, "hashing");
        if (!digest_equal(&actual, expected))
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "%s: its digest is %s, expected %s", name,
                                 digest_format(&actual, shown), digest_format(expected, shown_expected));
        if (c->failed)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "%s: %s", name, c->why.message);
        if (c->zstd && !c->frame_ended)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "%s: its zstd frame has no end", name);
        return 0;
}

/* The table's bytes, verified, into DRAFT. */
static int receive(const struct published_import *import, struct blob *blob, struct store_draft *draft, struct error *e)
{
        _cleanup_(reception_clear) struct reception c = { .import = import, .draft = draft };
        const struct blob_stream stream = {
                .blob = blob, .pool = import->pool, .timeout_ms = import->timeout_ms, .cancel = import->cancel
        };
        int r = start(&c, e);

        if (r == 0)
                r = blob_stream(&stream, 0, blob->size, on_piece, &c, e);
        return r < 0 ? r : finish(&c, blob->name, e);
}

static int cut_to_nothing(const struct published_import *import, struct store_draft *draft, struct error *e)
{
        int r;

        do {
                r = ftruncate(draft->fd, 0) < 0 ? -errno : 0;
                if (r < 0)
                        error_errno(e, -r, "store %s: writing a table", store_path(import->store));
        } while (r < 0 && store_draft_move_out(draft, r, e));
        return r;
}

/* What comes wrong is asked for once more: a bad answer may be a passing one. */
static int receive_patiently(const struct published_import *import, struct blob *blob, struct store_draft *draft,
                             struct error *e)
{
        int r = receive(import, blob, draft, e);

        for (unsigned attempt = 0; r == -EBADMSG && attempt < MAX(blob_doubt(blob), 1U); attempt++) {
                r = cut_to_nothing(import, draft, e);
                if (r < 0)
                        return r;
                r = receive(import, blob, draft, e);
        }
        return r;
}

/* ---- our own ---- */

static int check_toc(const struct published_import *import, const struct toc *t, const char *name, struct error *e)
{
        int r;

        if (t->chunks.blob_size != import->layer->size)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "%s: it is of a layer of %ju bytes, this one has %ju",
                                 name, (uintmax_t) t->chunks.blob_size, (uintmax_t) import->layer->size);
        r = toc_check(t, e);
        return r < 0 ? error_prefix(e, "%s", name) : 0;
}

static int import_toc(const struct published_import *import, struct blob *blob, struct error *e)
{
        _cleanup_(layer_draft_free_ptr) struct layer_draft *draft = NULL;
        _cleanup_(toc_close_ptr) struct toc *t = NULL;
        int r;

        r = layer_draft_new(import->store, &import->layer->digest, import->kind, &draft, e);
        if (r == 0)
                r = receive_patiently(import, blob, layer_draft_toc(draft), e);
        if (r < 0)
                return r;
        r = toc_open(layer_draft_toc_fd(draft), &import->layer->digest, &t, e);
        if (r < 0)
                return error_prefix(e, "%s", blob->name);
        r = check_toc(import, t, blob->name, e);
        for (size_t k = 0; r == 0 && k < t->chunks.chunk_count; k++)
                r = layer_draft_chunk(draft, t->chunks.chunks[k].content_offset, t->chunks.chunks[k].content_length, 0,
                                      e);
        return r < 0 ? r : layer_draft_publish(draft, e);
}

/* ---- SOCI's ---- */

static int take_start(void *context, uint64_t offset, const uint8_t *data, size_t n, struct error *e)
{
        uint8_t *start = context;

        (void) e;
        memcpy(start + offset, data, n);
        return 0;
}

/* What a ztoc does not tell of the layer's first bytes. */
static int check_start(const struct published_import *import, const struct ztoc *z, struct error *e)
{
        const struct blob_stream stream = {
                .blob = import->layer, .pool = import->pool, .timeout_ms = import->timeout_ms, .cancel = import->cancel
        };
        uint8_t start[ZTOC_START] = { 0 };
        int r;

        if (!ztoc_start_is_assumed(z))
                return 0;
        r = blob_stream(&stream, 0, MIN(import->layer->size, (uint64_t) ZTOC_START), take_start, start, e);
        return r < 0 ? r : ztoc_check_start(z, start, e);
}

static int convert_ztoc(const struct published_import *import, const void *data, const char *name, struct error *e)
{
        _cleanup_(ztoc_free_ptr) struct ztoc *z = NULL;
        struct chunk_table chunks;
        int r;

        r = ztoc_read(data, (size_t) import->table->size, import->layer->size, &z, e);
        if (r == 0)
                r = check_start(import, z, e);
        if (r < 0)
                return error_prefix(e, "%s", name);
        ztoc_chunks(z, &chunks);
        return toc_publish(import->store, &import->layer->digest, import->kind, ztoc_tree(z), &chunks,
                           ztoc_compression(z), e);
}

static int import_ztoc(const struct published_import *import, struct blob *blob, struct error *e)
{
        _cleanup_draft_ struct store_draft draft = STORE_DRAFT_INIT;
        void *data;
        int r;

        r = store_draft_begin(import->store, &draft, e);
        if (r == 0)
                r = receive_patiently(import, blob, &draft, e);
        if (r < 0)
                return r;
        data = mmap(NULL, (size_t) blob->size, PROT_READ, MAP_PRIVATE, draft.fd, 0);
        if (data == MAP_FAILED)
                return error_errno(e, errno, "%s: mapping it", blob->name);
        r = convert_ztoc(import, data, blob->name, e);
        munmap(data, (size_t) blob->size);
        return r;
}

int published_import(const struct published_import *import, struct error *e)
{
        _cleanup_(blob_free_ptr) struct blob *blob = NULL;
        char shown[DIGEST_STRING_MAX];
        int r;

        if (import->table->size == 0 || import->table->size > ZTOC_MAX)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "table %s has %ju bytes: 1 byte to %zu MiB are allowed",
                                 digest_format(&import->table->digest, shown), (uintmax_t) import->table->size,
                                 (size_t) (ZTOC_MAX / MIB));
        r = source_blob(import->source, import->table, &blob, e);
        if (r < 0)
                return r;
        return import->format == PUBLISHED_REGFS ? import_toc(import, blob, e) : import_ztoc(import, blob, e);
}
