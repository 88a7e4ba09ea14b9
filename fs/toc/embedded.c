/* SPDX-License-Identifier: Apache-2.0 */

#include "regfs/embedded.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "embedded_internal.h"
#include "regfs/log.h"
#include "regfs/toc.h"

#define STARGZ_DIGEST "containerd.io/snapshot/stargz/toc.digest"
#define CHUNKED_PREFIX "io.github.containers.zstd-chunked."
#define CHUNKED_OLD_PREFIX "io.containers.zstd-chunked."

#define TAIL_MIN (16 * KIB)
#define ENTRY_SIZE 50 /* of most in a compressed table */

/* ---- what the annotations say ---- */

struct trust {
        struct digest stored; /* of the table's bytes in the blob, or without algorithm */
        struct digest json;   /* of what they decode to, likewise */
        const char *position; /* or NULL */
};

static struct digest annotated_sha256(const struct descriptor *d, const char *key)
{
        struct digest digest;

        if (digest_parse(descriptor_annotation(d, key), &digest, NULL) < 0 || digest.algorithm != DIGEST_SHA256)
                return (struct digest) { 0 };
        return digest;
}

static int read_annotations(const struct descriptor *d, struct trust *ret)
{
        struct trust t = { .json = annotated_sha256(d, STARGZ_DIGEST) };

        t.stored = annotated_sha256(d, CHUNKED_PREFIX "manifest-checksum");
        t.position = descriptor_annotation(d, CHUNKED_PREFIX "manifest-position");
        if (t.stored.algorithm == DIGEST_NONE) {
                t.stored = annotated_sha256(d, CHUNKED_OLD_PREFIX "manifest-checksum");
                t.position = descriptor_annotation(d, CHUNKED_OLD_PREFIX "manifest-position");
        }
        if (t.stored.algorithm == DIGEST_NONE)
                t.position = NULL;
        *ret = t;
        return t.stored.algorithm || t.json.algorithm ? 0 : -ENOENT;
}

static void name_kind(const struct trust *t, char ret_kind[LAYER_KIND_MAX])
{
        bool chunked = t->stored.algorithm;
        char hex[DIGEST_STRING_MAX];

        snprintf(ret_kind, LAYER_KIND_MAX, "%s-%.*s", chunked ? "zstdchunked" : "estargz", 2 * SHA256_SIZE,
                 digest_hex(chunked ? &t->stored : &t->json, hex));
}

int embedded_kind(const struct descriptor *descriptor, char ret_kind[LAYER_KIND_MAX])
{
        struct trust t;
        int r = read_annotations(descriptor, &t);

        if (r == 0)
                name_kind(&t, ret_kind);
        return r;
}

/* ---- one reading of the table ---- */

struct reading {
        const struct embedded_options *options;
        const struct trust *trust;
        const char *kind;
        struct blob *table;    /* has the table */
        struct blob *external; /* the same where it is not the layer */
        struct toc_place place;
        const struct toc_decoder_ops *ops;
        struct toc_decoder *decoder;
        struct toc_parser *parser;
        struct toc_rows *rows;
        struct toc_draft *draft;
        struct hasher *stored, *json; /* NULL where there is nothing to compare with */
        uint64_t decoded;

        /* What is wrong with the table. It is told only when its digest is right: what others have changed on the
         * way says nothing about it. */
        int failed;
        struct error why;
        bool verified;
};

static void reading_clear(struct reading *d)
{
        if (d->ops)
                d->ops->close(d->decoder);
        toc_parser_free(d->parser);
        toc_rows_free(d->rows);
        toc_draft_free(d->draft);
        hasher_free(d->stored);
        hasher_free(d->json);
        blob_free(d->external);
}

static int hash(struct hasher *h, const uint8_t *data, size_t n, struct error *e)
{
        int r = h ? hasher_update(h, data, n) : 0;

        return r < 0 ? error_errno(e, -r, "hashing") : 0;
}

/* Rows go to the draft as they come: of a million, only those that are not complete are in memory. */
static int keep_chunks(struct reading *d, struct error *e)
{
        const struct chunk *chunks;
        size_t n = toc_rows_complete(d->rows, &chunks);
        int r = n > 0 ? toc_draft_chunks(d->draft, chunks, n, e) : 0;

        if (r == 0)
                toc_rows_drop(d->rows);
        return r;
}

static int on_json(void *context, const uint8_t *data, size_t n, struct error *e)
{
        struct reading *d = context;
        int r;

        d->decoded += n;
        if (d->decoded > EMBEDDED_TOC_MAX)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "more than %zu MiB of JSON", EMBEDDED_TOC_MAX / MIB);
        r = hash(d->json, data, n, e);
        if (r < 0 || d->failed)
                return r;
        r = toc_parser_feed(d->parser, data, n, &d->why);
        if (r == -EBADMSG) {
                d->failed = r;
                return 0;
        }
        if (r < 0 && e)
                *e = d->why;
        return r < 0 ? r : keep_chunks(d, e);
}

static int on_entry(void *context, const struct toc_entry *entry, struct error *e)
{
        struct reading *d = context;

        return toc_rows_add(d->rows, entry, e);
}

static int start(struct reading *d, struct error *e)
{
        const struct trust *t = d->trust;
        int r;

        d->ops = d->place.codec == CODEC_GZIP ? &estargz_decoder : &zstdchunked_decoder;
        d->stored = t->stored.algorithm ? hasher_new(t->stored.algorithm) : NULL;
        d->json = t->json.algorithm ? hasher_new(t->json.algorithm) : NULL;
        if ((t->stored.algorithm && !d->stored) || (t->json.algorithm && !d->json) ||
            toc_rows_new(d->place.codec, d->place.data_end, &d->rows) < 0 ||
            layer_tree_expect(toc_rows_tree(d->rows), (size_t) (d->place.length / ENTRY_SIZE)) < 0 ||
            toc_parser_new(on_entry, d, &d->parser) < 0)
                return error_oom(e);
        r = toc_draft_new(d->options->store, &d->options->blob->digest, d->kind, &d->draft, e);
        return r < 0 ? r : d->ops->open(on_json, d, &d->decoder, e);
}

static int feed(struct reading *d, const uint8_t *data, size_t n, struct error *e)
{
        int r = hash(d->stored, data, n, e);

        return r < 0 ? r : d->ops->feed(d->decoder, data, n, e);
}

static int compare(struct hasher *h, const struct digest *expected, const char *what, struct error *e)
{
        char shown[DIGEST_STRING_MAX], shown_expected[DIGEST_STRING_MAX];
        struct digest actual;
        int r;

        if (!h)
                return 0;
        r = hasher_finish(h, &actual);
        if (r < 0)
                return error_errno(e, -r, "hashing");
        if (digest_equal(&actual, expected))
                return 0;
        return error_set(e, ERROR_BAD_DATA, EBADMSG, "%s is %s, the annotation says %s", what,
                         digest_format(&actual, shown), digest_format(expected, shown_expected));
}

static int finish(struct reading *d, struct error *e)
{
        int r = d->ops->finish(d->decoder, e);

        if (r == 0)
                r = compare(d->stored, &d->trust->stored, "its digest", e);
        if (r == 0)
                r = compare(d->json, &d->trust->json, "the digest of its JSON", e);
        if (r < 0)
                return r;
        d->verified = true;
        if (d->failed) {
                if (e)
                        *e = d->why;
                return d->failed;
        }
        if (d->place.decoded > 0 && d->place.decoded != d->decoded)
                return error_set(e, ERROR_BAD_DATA, EBADMSG,
                                 "%" PRIu64 " bytes of JSON where %" PRIu64 " are announced", d->decoded,
                                 d->place.decoded);
        r = toc_parser_finish(d->parser, e);
        return r < 0 ? r : toc_rows_finish(d->rows, e);
}

/* ---- its bytes ---- */

static struct blob_stream stream_of(struct reading *d, struct blob *blob)
{
        const struct embedded_options *o = d->options;

        return (struct blob_stream) { .blob = blob, .pool = o->pool, .timeout_ms = o->timeout_ms, .cancel = o->cancel };
}

static int on_table(void *context, uint64_t offset, const uint8_t *data, size_t n, struct error *e)
{
        (void) offset;
        return feed(context, data, n, e);
}

/* Bytes [offset, end) of the table's blob. */
static int feed_range(struct reading *d, uint64_t offset, uint64_t end, struct error *e)
{
        const struct blob_stream stream = stream_of(d, d->table);

        return blob_stream(&stream, offset, end, on_table, d, e);
}

struct tail {
        uint8_t *data;
        uint64_t offset; /* in the blob */
};

static int on_tail(void *context, uint64_t offset, const uint8_t *data, size_t n, struct error *e)
{
        const struct tail *t = context;

        (void) e;
        memcpy(t->data + (offset - t->offset), data, n);
        return 0;
}

/* The end of the blob, which has the footer and often the table. The caller frees. */
static int read_tail(struct reading *d, size_t n, uint8_t **ret, struct error *e)
{
        const struct blob_stream stream = stream_of(d, d->options->blob);
        uint64_t size = d->options->blob->size;
        _cleanup_free_ uint8_t *copy = malloc(n);
        struct tail tail = { .data = copy, .offset = size - n };
        int r;

        if (!copy)
                return error_oom(e);
        r = blob_stream(&stream, size - n, size, on_tail, &tail, e);
        if (r == 0)
                *ret = steal_ptr(copy);
        return r;
}

/* ---- where it is ---- */

int toc_place_check(const struct toc_place *place, uint64_t size, struct error *e)
{
        if (place->length == 0 || !range_fits(place->offset, place->length, size))
                return error_set(e, ERROR_BAD_DATA, EBADMSG,
                                 "a table of %" PRIu64 " bytes at offset %" PRIu64 " of a blob of %" PRIu64,
                                 place->length, place->offset, size);
        if (place->length > EMBEDDED_TOC_MAX)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "a table of %" PRIu64 " bytes, more than %zu MiB",
                                 place->length, EMBEDDED_TOC_MAX / MIB);
        return 0;
}

/* stargz's own zstd:chunked may have its digest alone annotated. */
static int find_footer(struct reading *d, const uint8_t *tail, size_t n, struct toc_place *ret, struct error *e)
{
        uint64_t size = d->options->blob->size;
        int r;

        if (d->trust->stored.algorithm)
                return zstdchunked_footer(tail, n, size, ret, e);
        r = estargz_footer(tail, n, size, ret, e);
        return r == -EBADMSG && zstdchunked_footer(tail, n, size, ret, NULL) == 0 ? 0 : r;
}

/* How much of a blob's end is read at once. Of small blobs, whose files' data is fetched a second time with it, a
 * part. */
static size_t tail_length(uint64_t size)
{
        uint64_t n = MAX(size / 4, (uint64_t) TAIL_MIN);

        n = MIN(n, (uint64_t) EMBEDDED_TAIL);
        return (size_t) MIN(n, size);
}

/* A blob that cannot be had is no reason to fail: the layer itself is another one. */
static int feed_external(struct reading *d, struct error *e)
{
        struct error why = ERROR_INIT;
        int r = feed_range(d, 0, d->place.length, &why);

        if (r == 0)
                return 0;
        if (r == -EBADMSG || r == -ECANCELED || r == -ENOMEM) {
                *e = why;
                return r;
        }
        log_warning("%s: its table of contents cannot be had: %s", d->options->blob->name, why.message);
        return -ENOENT;
}

/* The footer says that the table is elsewhere: all of a blob that others have to find. */
static int read_external(struct reading *d, struct error *e)
{
        const struct embedded_options *o = d->options;
        int r = -ENOENT;

        if (o->external)
                r = o->external(o->external_context, &o->descriptor->digest, &d->external);
        if (r == -ENOENT)
                log_info("%s: its table of contents lies elsewhere and is not found: read whole", o->blob->name);
        if (r < 0)
                return r;
        d->table = d->external;
        d->place.length = d->table->size;
        r = toc_place_check(&d->place, d->table->size, e);
        if (r == 0)
                r = start(d, e);
        if (r == 0)
                r = feed_external(d, e);
        return r < 0 ? r : finish(d, e);
}

/* Reads the end of the blob, then what of the table stands in front of that. */
static int read_by_footer(struct reading *d, struct error *e)
{
        size_t n = tail_length(d->options->blob->size);
        uint64_t tail_offset = d->options->blob->size - n, end, from;
        _cleanup_free_ uint8_t *tail = NULL;
        int r;

        r = read_tail(d, n, &tail, e);
        if (r == 0)
                r = find_footer(d, tail, n, &d->place, e);
        if (r == 0 && d->place.external)
                return read_external(d, e);
        if (r == 0)
                r = start(d, e);
        if (r < 0)
                return r;
        end = d->place.offset + d->place.length;
        if (d->place.offset < tail_offset) {
                r = feed_range(d, d->place.offset, MIN(tail_offset, end), e);
                if (r < 0)
                        return r;
        }
        from = MAX(d->place.offset, tail_offset);
        if (from < end)
                r = feed(d, tail + (from - tail_offset), (size_t) (end - from), e);
        return r < 0 ? r : finish(d, e);
}

static int read_by_position(struct reading *d, struct error *e)
{
        int r = zstdchunked_position(d->trust->position, d->options->blob->size, &d->place, e);

        if (r < 0) {
                d->verified = true; /* whatever comes from the registry, this stays wrong */
                return error_prefix(e, "annotation manifest-position");
        }
        r = start(d, e);
        if (r == 0)
                r = feed_range(d, d->place.offset, d->place.offset + d->place.length, e);
        return r < 0 ? r : finish(d, e);
}

/* ---- publication ---- */

static int publish(struct reading *d, struct error *e)
{
        struct chunk_table chunks;
        int r = keep_chunks(d, e);

        if (r < 0)
                return r;
        /* The rows of a large table want the memory that its bytes had. */
        pool_trim(d->options->pool);
        toc_rows_view(d->rows, d->options->blob->size, &chunks);
        return toc_draft_publish(d->draft, toc_rows_tree(d->rows), &chunks,
                                 d->place.codec == CODEC_GZIP ? COMPRESSION_GZIP : COMPRESSION_ZSTD, e);
}

static int read_table(struct reading *d, struct error *e)
{
        int r;

        if (d->options->blob->size == 0)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "%s: the layer is empty", d->options->blob->name);
        r = d->trust->position ? read_by_position(d, e) : read_by_footer(d, e);
        if (r == -EBADMSG && !strstr(e->message, d->options->blob->name))
                error_prefix(e, "%s: table of contents", d->options->blob->name);
        return r;
}

int embedded_index(const struct embedded_options *options, char ret_kind[LAYER_KIND_MAX], struct error *e)
{
        struct error own = ERROR_INIT;
        char kind[LAYER_KIND_MAX];
        struct trust trust;
        int r;

        if (!e)
                e = &own;
        r = read_annotations(options->descriptor, &trust);
        if (r < 0)
                return r;
        name_kind(&trust, kind);
        for (bool again = false;; again = true) {
                _cleanup_(reading_clear) struct reading d = {
                        .options = options, .trust = &trust, .kind = kind, .table = options->blob
                };

                r = read_table(&d, e);
                if (r == -EBADMSG && !d.verified && !again) {
                        log_warning("%s: fetched once more", e->message);
                        continue;
                }
                if (r == 0)
                        r = publish(&d, e);
                break;
        }
        if (r == 0)
                memcpy(ret_kind, kind, sizeof(kind));
        return r;
}
