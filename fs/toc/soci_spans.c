/* SPDX-License-Identifier: Apache-2.0 */

/* CompressionInfo: SOCI's spans become chunks, its checkpoints ours (awslabs/soci-snapshotter,
 * ztoc/compression/gzip_zinfo.c, tar_zinfo.go, ztoc/zinfo_builder.go).
 *
 * The digest of a gzip span covers the blob from the byte that holds the checkpoint's first bit to the next one's `in`,
 * the last span's to the end of the blob. The first checkpoint lies behind the gzip header, so no span covers that: the
 * first chunk too begins at a checkpoint, which needs no window. A writer that knew of the first gzip member only left
 * all the others to its last span. */

#include <inttypes.h>
#include <string.h>
#include <zstd.h>

#include "soci_internal.h"

#include "regfs/digest.h"

#define GZIP_HEADER_MIN 10u
#define WINDOW_SIZE 32768u
#define WINDOW_LEVEL 1

/* The bytes of a gzip layer's checkpoints: a count and the span size that the writer was asked for, then records. */
#define RECORDS_HEADER 12u
#define RECORD_SIZE (8u + 8u + 1u + WINDOW_SIZE)

enum info_field {
        INFO_ALGORITHM,
        INFO_MAX_SPAN_ID,
        INFO_DIGESTS,
        INFO_CHECKPOINTS,
};

enum algorithm {
        ALGORITHM_GZIP = 1,
        ALGORITHM_UNCOMPRESSED = 2,
};

static const char *const info_fields[] = {
        [INFO_ALGORITHM] = "compression_algorithm",
        [INFO_MAX_SPAN_ID] = "max_span_id",
        [INFO_DIGESTS] = "span_digests",
        [INFO_CHECKPOINTS] = "checkpoints",
};

const struct fb_schema ztoc_compression_info = { "CompressionInfo", info_fields };

enum tar_field {
        TAR_VERSION,
        TAR_SPAN_SIZE,
        TAR_SIZE,
};

static const char *const tar_fields[] = {
        [TAR_VERSION] = "version",
        [TAR_SPAN_SIZE] = "span_size",
        [TAR_SIZE] = "size",
};

static const struct fb_schema tar_zinfo = { "TarZinfo", tar_fields };

struct spans_reader {
        struct ztoc_spans *spans;
        const struct fb_table *info;
        struct fb_vector digests;
        const uint8_t *checkpoints;
        size_t checkpoints_size;
        uint64_t blob_size;
        uint64_t tar_size;
        uint32_t count;
        ZSTD_CCtx *compressor;
};

/* Where a span begins: a record of the checkpoints. */
struct span {
        uint64_t in;
        uint64_t out;
        uint8_t bits;
        const uint8_t *window; /* WINDOW_SIZE bytes, or NULL */
};

static int refuse_span(uint32_t index, struct error *e, const char *why)
{
        return error_set(e, ERROR_BAD_DATA, EBADMSG, "span %" PRIu32 ": %s", index, why);
}

/* ---- chunks ---- */

static int add_chunk(struct spans_reader *r, uint32_t index, struct chunk *c, uint64_t content_length, struct error *e)
{
        const char *text;
        struct digest d;
        size_t length;
        int ret;

        if (content_length > CHUNK_CONTENT_MAX)
                return error_set(e, ERROR_BAD_DATA, EBADMSG,
                                 "span %" PRIu32 " holds %" PRIu64 " bytes: regfs takes spans of at most %zu MiB",
                                 index, content_length, CHUNK_CONTENT_MAX / MIB);
        ret = fb_vector_text(&r->digests, index, &text, &length, e);
        if (ret < 0)
                return ret;
        if (digest_parse(text, &d, NULL) < 0 || d.algorithm != DIGEST_SHA256)
                return refuse_span(index, e, "its digest is no SHA-256");
        memcpy(c->digest, d.bytes, SHA256_SIZE);
        c->content_length = (uint32_t) content_length;
        return region_append(&r->spans->chunks, c, sizeof(*c)) ? 0 : error_oom(e);
}

static int expect_count(const struct spans_reader *r, struct error *e)
{
        int32_t last = 0;
        int ret = fb_number(r->info, INFO_MAX_SPAN_ID, &last, sizeof(last), e);

        if (ret < 0)
                return ret;
        if ((int64_t) last + 1 != r->count)
                return fb_refuse(r->info->schema, INFO_MAX_SPAN_ID, e, "%" PRId32 ", but there are %" PRIu32 " spans",
                                 last, r->count);
        if (r->digests.count != r->count)
                return fb_refuse(r->info->schema, INFO_DIGESTS, e, "%" PRIu32 " digests of %" PRIu32 " spans",
                                 r->digests.count, r->count);
        return 0;
}

/* ---- gzip ---- */

static uint64_t load_u64(const uint8_t *p)
{
        uint64_t n;

        memcpy(&n, p, sizeof(n));
        return n;
}

/* Sets count and first_assumed: the older writer kept the first record to itself. */
static int count_records(struct spans_reader *r, struct error *e)
{
        int32_t count = 0;
        uint64_t size;

        if (r->checkpoints_size >= RECORDS_HEADER)
                memcpy(&count, r->checkpoints, sizeof(count));
        if (count <= 0)
                return fb_refuse(r->info->schema, INFO_CHECKPOINTS, e, "there are none");
        size = RECORDS_HEADER + (uint64_t) count * RECORD_SIZE;
        r->spans->first_assumed = r->checkpoints_size == size - RECORD_SIZE;
        if (r->checkpoints_size != size && !r->spans->first_assumed)
                return fb_refuse(r->info->schema, INFO_CHECKPOINTS, e, "%zu bytes do not hold %" PRId32 " checkpoints",
                                 r->checkpoints_size, count);
        r->count = (uint32_t) count;
        return 0;
}

/* Where span INDEX begins; behind the last one, where all ends. */
static struct span span_at(const struct spans_reader *r, uint32_t index)
{
        uint32_t record = index - r->spans->first_assumed;
        const uint8_t *p;

        if (index == r->count)
                return (struct span) { .in = r->blob_size, .out = r->tar_size };
        if (index == 0 && r->spans->first_assumed)
                return (struct span) { .in = GZIP_HEADER_MIN };
        p = r->checkpoints + RECORDS_HEADER + (size_t) record * RECORD_SIZE;
        return (struct span) { .in = load_u64(p), .out = load_u64(p + 8), .bits = p[16], .window = p + 17 };
}

/* Of the window only what there can be: the tar's own first bytes have fewer before them. */
static int pack_window(struct spans_reader *r, const struct span *s, struct checkpoint *c)
{
        uint32_t raw = (uint32_t) MIN(s->out, (uint64_t) WINDOW_SIZE);
        const uint8_t *window = s->window + (WINDOW_SIZE - raw);
        struct region *windows = &r->spans->windows;
        size_t start = windows->size, n;

        if (!region_append(windows, NULL, ZSTD_COMPRESSBOUND(WINDOW_SIZE)))
                return -ENOMEM;
        n = ZSTD_compressCCtx(r->compressor, windows->data + start, ZSTD_COMPRESSBOUND(WINDOW_SIZE), window, raw,
                              WINDOW_LEVEL);
        if (ZSTD_isError(n) || n >= raw) {
                memcpy(windows->data + start, window, raw);
                n = raw;
        }
        region_truncate(windows, start + n);
        c->window_offset = start;
        c->window_length = (uint32_t) n;
        c->window_raw = raw;
        return 0;
}

static int add_checkpoint(struct spans_reader *r, const struct span *s, uint32_t *ret, struct error *e)
{
        struct checkpoint c = { .in = s->in, .out = s->out, .bits = s->bits };

        if (s->out > 0 && pack_window(r, s, &c) < 0)
                return error_oom(e);
        *ret = region_count(&r->spans->checkpoints, struct checkpoint);
        return region_append(&r->spans->checkpoints, &c, sizeof(c)) ? 0 : error_oom(e);
}

static const char *span_fault(const struct spans_reader *r, uint32_t index, const struct span *s,
                              const struct span *next)
{
        bool last = index + 1 == r->count;

        if (s->bits > 7)
                return "impossible bit position";
        if (s->in > r->blob_size || s->in < GZIP_HEADER_MIN)
                return "it begins outside of the layer's data";
        if (s->out > INT64_MAX)
                return "its place in the tar is out of range";
        if (index == 0 && (s->out != 0 || s->bits != 0))
                return "it does not begin where the deflate data does";
        if (next->in <= s->in)
                return "it is empty, or the next one begins before it";
        /* Zeros behind the end of the archive are not part of the tar's size: spans may begin there. */
        if (!last && next->out < s->out)
                return "the next one's place in the tar lies before it";
        return NULL;
}

static int add_gzip_span(struct spans_reader *r, uint32_t index, struct error *e)
{
        const struct span s = span_at(r, index), next = span_at(r, index + 1);
        const char *fault = span_fault(r, index, &s, &next);
        uint64_t end = MIN(next.out, r->tar_size);
        struct chunk c = {
                .content_offset = s.out,
                .blob_offset = s.in - (s.bits > 0),
                .codec = CODEC_GZIP,
        };
        int ret;

        if (fault)
                return refuse_span(index, e, fault);
        c.blob_length = next.in - c.blob_offset;
        if (index == 0)
                r->spans->first = s.in;
        if (s.out >= end)
                return 0;
        ret = add_checkpoint(r, &s, &c.checkpoint, e);
        return ret < 0 ? ret : add_chunk(r, index, &c, end - s.out, e);
}

static int read_gzip(struct spans_reader *r, struct error *e)
{
        int ret = count_records(r, e);

        if (ret == 0)
                ret = expect_count(r, e);
        if (ret < 0)
                return ret;
        r->compressor = ZSTD_createCCtx();
        if (!r->compressor)
                return error_oom(e);
        for (uint32_t i = 0; ret == 0 && i < r->count; i++)
                ret = add_gzip_span(r, i, e);
        ZSTD_freeCCtx(r->compressor);
        r->spans->compression = COMPRESSION_GZIP;
        r->spans->content_size = r->tar_size;
        return ret;
}

/* ---- uncompressed ---- */

static int read_tar_zinfo(const struct spans_reader *r, uint64_t *ret_span_size, struct error *e)
{
        struct flatbuffer b;
        struct fb_table t;
        uint64_t size;
        int ret;

        flatbuffer_init(&b, r->checkpoints, r->checkpoints_size);
        ret = fb_root(&b, &tar_zinfo, &t, e);
        if (ret == 0)
                ret = fb_size(&t, TAR_SPAN_SIZE, ret_span_size, e);
        if (ret == 0)
                ret = fb_size(&t, TAR_SIZE, &size, e);
        if (ret < 0)
                return ret;
        if (size != r->blob_size)
                return fb_refuse(&tar_zinfo, TAR_SIZE, e, "%" PRIu64 ", but the layer has %" PRIu64 " bytes", size,
                                 r->blob_size);
        if (*ret_span_size == 0)
                return fb_refuse(&tar_zinfo, TAR_SPAN_SIZE, e, "0");
        return 0;
}

/* Spans tell of the whole blob, also of what lies behind the end of the archive. */
static int read_uncompressed(struct spans_reader *r, struct error *e)
{
        uint64_t span_size, count;
        int ret = read_tar_zinfo(r, &span_size, e);

        if (ret < 0)
                return ret;
        count = r->blob_size / span_size + (r->blob_size % span_size != 0);
        if (count > INT32_MAX || r->tar_size > r->blob_size)
                return fb_refuse(&tar_zinfo, TAR_SIZE, e,
                                 "%" PRIu64 " bytes are cut into spans of %" PRIu64 ", and hold a tar of %" PRIu64,
                                 r->blob_size, span_size, r->tar_size);
        r->count = (uint32_t) count;
        ret = expect_count(r, e);
        for (uint32_t i = 0; ret == 0 && i < r->count; i++) {
                uint64_t offset = i * span_size;
                struct chunk c = {
                        .content_offset = offset,
                        .blob_offset = offset,
                        .blob_length = MIN(span_size, r->blob_size - offset),
                        .checkpoint = CHECKPOINT_NONE,
                        .codec = CODEC_STORED,
                };

                ret = add_chunk(r, i, &c, c.blob_length, e);
        }
        r->spans->compression = COMPRESSION_NONE;
        r->spans->content_size = r->blob_size;
        return ret;
}

int ztoc_spans_read(struct ztoc_spans *s, const struct fb_table *info, uint64_t blob_size, uint64_t tar_size,
                    struct error *e)
{
        struct spans_reader r = { .spans = s, .info = info, .blob_size = blob_size, .tar_size = tar_size };
        uint8_t algorithm = ALGORITHM_GZIP;
        struct fb_vector checkpoints;
        int ret;

        ret = fb_number(info, INFO_ALGORITHM, &algorithm, sizeof(algorithm), e);
        if (ret == 0)
                ret = fb_vector(info, INFO_DIGESTS, sizeof(uint32_t), &r.digests, e);
        if (ret == 0)
                ret = fb_vector(info, INFO_CHECKPOINTS, 1, &checkpoints, e);
        if (ret < 0)
                return ret;
        r.checkpoints = info->buffer->data + checkpoints.at;
        r.checkpoints_size = checkpoints.count;
        switch (algorithm) {
        case ALGORITHM_GZIP:
                return read_gzip(&r, e);
        case ALGORITHM_UNCOMPRESSED:
                return read_uncompressed(&r, e);
        default:
                return fb_refuse(info->schema, INFO_ALGORITHM, e, "%u is unknown", algorithm);
        }
}

void ztoc_spans_free(struct ztoc_spans *s)
{
        region_free(&s->chunks);
        region_free(&s->checkpoints);
        region_free(&s->windows);
}
