/* SPDX-License-Identifier: Apache-2.0 */

#include <inttypes.h>
#include <string.h>

#include "codec_internal.h"

#define SKIP_BUFFER (64 * KIB)

static const struct {
        const char *name;
        const struct scan_ops *scan;
} compressions[] = {
        [COMPRESSION_NONE] = { "none", &scan_stored },
        [COMPRESSION_GZIP] = { "gzip", &scan_gzip },
        [COMPRESSION_ZSTD] = { "zstd", &scan_zstd },
};

static const struct decoder_ops *const decoders[] = {
        [CODEC_STORED] = &decoder_stored,
        [CODEC_GZIP] = &decoder_gzip,
        [CODEC_ZSTD] = &decoder_zstd,
};

enum compression compression_detect(const void *data, size_t n)
{
        const uint8_t *p = data;

        if (n >= 2 && p[0] == 0x1f && p[1] == 0x8b)
                return COMPRESSION_GZIP;
        if (n >= 4 && memcmp(p, "\x28\xb5\x2f\xfd", 4) == 0)
                return COMPRESSION_ZSTD;
        if (n >= 4 && (p[0] & 0xf0) == 0x50 && memcmp(p + 1, "\x2a\x4d\x18", 3) == 0)
                return COMPRESSION_ZSTD;
        return COMPRESSION_NONE;
}

const char *compression_name(enum compression c)
{
        return (unsigned) c < ELEMENTSOF(compressions) ? compressions[c].name : "unknown";
}

/* ---- the pass ---- */

int scan_new_with(enum compression compression, const struct scan_sink *sink, const struct inflate_ops *inflate,
                  size_t target, struct scan **ret, struct error *e)
{
        _cleanup_(scan_free_ptr) struct scan *s = NULL;
        const struct scan_ops *ops;
        int r;

        if ((unsigned) compression >= ELEMENTSOF(compressions))
                return error_set(e, ERROR_OTHER, EINVAL, "unknown compression %d", (int) compression);
        ops = compressions[compression].scan;
        s = calloc(1, ops->size);
        if (!s)
                return error_oom(e);
        s->ops = ops;
        s->inflate = inflate;
        s->sink = *sink;
        s->target = target;
        r = ops->open ? ops->open(s, e) : 0;
        if (r < 0)
                return r;
        *ret = steal_ptr(s);
        return 0;
}

int scan_new(enum compression compression, const struct scan_sink *sink, struct scan **ret, struct error *e)
{
        return scan_new_with(compression, sink, compression == COMPRESSION_GZIP ? inflate_chosen() : NULL,
                             CHUNK_CONTENT_TARGET, ret, e);
}

struct scan *scan_free(struct scan *s)
{
        if (!s)
                return NULL;
        if (s->ops->close)
                s->ops->close(s);
        free(s);
        return NULL;
}

static int scan_boundary_call(struct scan *s, const struct scan_boundary *b, struct error *e)
{
        int r = s->sink.boundary(s->sink.context, b, e);

        s->sink_failed = r != 0;
        s->chunk_length = 0;
        s->slice = b->slice;
        s->range_offset = b->blob_offset;
        return r;
}

static int scan_begin_slice(struct scan *s, struct error *e)
{
        const struct scan_boundary b = {
                .content_offset = s->content,
                .blob_offset = s->range_offset,
                .previous_end = s->range_offset,
                .codec = s->ops->codec,
                .slice = true,
        };

        return scan_boundary_call(s, &b, e);
}

int scan_begin_chunk(struct scan *s, uint64_t blob_offset, struct error *e)
{
        const struct scan_boundary b = {
                .content_offset = s->content,
                .blob_offset = blob_offset,
                .previous_end = blob_offset,
                .codec = s->ops->codec,
        };

        return scan_boundary_call(s, &b, e);
}

int scan_begin_at_checkpoint(struct scan *s, uint64_t in, const struct inflate_place *place, struct error *e)
{
        const struct scan_boundary b = {
                .content_offset = s->content,
                .blob_offset = in - (place->bits > 0),
                .previous_end = in,
                .codec = s->ops->codec,
                .checkpoint = true,
                .bits = (uint8_t) place->bits,
                .in = in,
                .window = place->window,
                .window_length = (uint32_t) place->window_length,
        };

        return scan_boundary_call(s, &b, e);
}

int scan_output(struct scan *s, const uint8_t *data, size_t n, struct error *e)
{
        while (n > 0) {
                uint64_t bound = s->slice ? s->target : 2 * (uint64_t) s->target;
                size_t take;
                int r;

                /* Only now is it known that the chunk goes on. */
                if (s->chunk_length >= bound) {
                        r = scan_begin_slice(s, e);
                        if (r != 0)
                                return r;
                        bound = s->target;
                }
                take = (size_t) MIN((uint64_t) n, bound - s->chunk_length);
                r = s->sink.output(s->sink.context, data, take, e);
                if (r != 0) {
                        s->sink_failed = true;
                        return r;
                }
                s->content += take;
                s->chunk_length += take;
                data += take;
                n -= take;
        }
        return 0;
}

/* Remembers that the pass is over, and says where it ended when the stream is to blame. */
static int scan_fail(struct scan *s, int r, struct error *e)
{
        s->failed = r;
        if (r < 0 && e && !s->sink_failed)
                error_prefix(e, "%s, blob offset %" PRIu64, s->ops->name, s->fed + s->used);
        return r;
}

static int scan_ended(const struct scan *s, struct error *e)
{
        return error_set(e, ERROR_OTHER, s->failed < 0 ? -s->failed : ECANCELED, "%s: the pass has already ended",
                         s->ops->name);
}

int scan_feed(struct scan *s, const uint8_t *data, size_t n, struct error *e)
{
        int r = 0;

        if (s->failed != 0)
                return scan_ended(s, e);
        if (n == 0)
                return 0;
        if (!s->begun) {
                s->begun = true;
                r = scan_begin_chunk(s, 0, e);
        }
        if (r == 0)
                r = s->ops->feed(s, data, n, e);
        if (r != 0)
                return scan_fail(s, r, e);
        s->fed += n;
        s->used = 0;
        return 0;
}

int scan_finish(struct scan *s, uint64_t *ret_content_size, struct error *e)
{
        int r;

        if (s->failed != 0)
                return scan_ended(s, e);
        r = s->ops->finish ? s->ops->finish(s, e) : 0;
        if (r != 0)
                return scan_fail(s, r, e);
        *ret_content_size = s->content;
        return 0;
}

/* ---- decoding ---- */

int source_fill(struct codec_source *source, struct error *e)
{
        const uint8_t *data = NULL;
        size_t n = 0;
        int r;

        if (source->at < source->end)
                return 1;
        if (source->offset >= source->length)
                return 0;
        r = source->input(source->context, source->offset, &data, &n, e);
        if (r < 0)
                return r;
        n = (size_t) MIN((uint64_t) n, source->length - source->offset);
        if (n == 0)
                return 0;
        source->offset += n;
        source->piece = source->at = data;
        source->end = data + n;
        return 1;
}

int decoder_ended_early(struct decoder *d, struct error *e)
{
        return error_set(e, ERROR_BAD_DATA, EBADMSG, "the range ends after %" PRIu64 " decoded bytes", d->position);
}

static struct decoder *decoder_close(struct decoder *d)
{
        if (!d)
                return NULL;
        if (d->ops->close)
                d->ops->close(d);
        free(d);
        return NULL;
}
DEFINE_CLEANUP(struct decoder *, decoder_close)

static int decoder_open(const struct inflate_ops *inflate, const struct chunk_table *table, const struct chunk *chunk,
                        codec_input_fn *input, void *context, struct decoder **ret, struct error *e)
{
        _cleanup_(decoder_close_ptr) struct decoder *d = NULL;
        static const uint8_t no_input = 0; /* a piece of no bytes, since C forbids arithmetic on NULL */
        const struct decoder_ops *ops = chunk->codec < ELEMENTSOF(decoders) ? decoders[chunk->codec] : NULL;
        int r;

        if (!ops)
                return error_set(e, ERROR_OTHER, EINVAL, "chunks of codec %u are not decoded", chunk->codec);
        d = calloc(1, ops->size);
        if (!d)
                return error_oom(e);
        d->ops = ops;
        d->inflate = inflate;
        d->source = (struct codec_source) {
                .input = input,
                .context = context,
                .length = chunk->blob_length,
                .piece = &no_input,
                .at = &no_input,
                .end = &no_input,
        };
        r = ops->open ? ops->open(d, table, chunk, e) : 0;
        if (r < 0)
                return r;
        *ret = steal_ptr(d);
        return 0;
}

static int decoder_read_full(struct decoder *d, uint8_t *out, size_t n, struct error *e)
{
        while (n > 0) {
                size_t got = 0;
                int r = d->ops->read(d, out, n, &got, e);

                if (r < 0)
                        return r;
                out += got;
                n -= got;
                d->position += got;
        }
        return 0;
}

static int decoder_skip_to(struct decoder *d, uint64_t position, struct error *e)
{
        _cleanup_free_ uint8_t *scratch = NULL;
        int r = 0;

        if (d->position == position)
                return 0;
        if (d->position > position)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "slices are out of order");
        scratch = malloc(SKIP_BUFFER);
        if (!scratch)
                return error_oom(e);
        while (r == 0 && d->position < position)
                r = decoder_read_full(d, scratch, (size_t) MIN(position - d->position, (uint64_t) SKIP_BUFFER), e);
        return r;
}

/* An input function's error is its own; what the decoder finds is told with the place. */
static int decode_failed(int r, const struct decoder_ops *ops, const struct chunk *chunk, struct error *e)
{
        if (r == -EBADMSG && e)
                error_prefix(e, "%s at blob offset %" PRIu64, ops ? ops->name : "chunk", chunk->blob_offset);
        return r;
}

int codec_decode_with(const struct inflate_ops *inflate, const struct chunk_table *table, const struct chunk *chunk,
                      codec_input_fn *input, void *context, uint8_t *out, struct error *e)
{
        _cleanup_(decoder_close_ptr) struct decoder *d = NULL;
        int r = decoder_open(inflate, table, chunk, input, context, &d, e);

        if (r == 0)
                r = decoder_skip_to(d, chunk->skip, e);
        if (r == 0)
                r = decoder_read_full(d, out, chunk->content_length, e);
        return decode_failed(r, d ? d->ops : NULL, chunk, e);
}

int codec_decode_slices_with(const struct inflate_ops *inflate, const struct chunk_table *table,
                             const struct chunk *chunks, size_t count, codec_input_fn *input, void *input_context,
                             uint8_t *buffer, codec_deliver_fn *deliver, void *deliver_context, struct error *e)
{
        _cleanup_(decoder_close_ptr) struct decoder *d = NULL;
        int r;

        if (count == 0)
                return 0;
        r = decoder_open(inflate, table, &chunks[0], input, input_context, &d, e);
        for (size_t i = 0; r == 0 && i < count; i++) {
                const struct chunk *chunk = &chunks[i];
                int delivered;

                r = decoder_skip_to(d, chunk->skip, e);
                if (r == 0)
                        r = decoder_read_full(d, buffer, chunk->content_length, e);
                if (r < 0)
                        break;
                delivered = deliver(deliver_context, chunk, buffer, e);
                if (delivered != 0)
                        return MIN(delivered, 0);
        }
        return decode_failed(r, d ? d->ops : NULL, &chunks[0], e);
}

int codec_decode(const struct chunk_table *table, const struct chunk *chunk, codec_input_fn *input, void *context,
                 uint8_t *out, struct error *e)
{
        return codec_decode_with(chunk->codec == CODEC_GZIP ? inflate_chosen() : NULL, table, chunk, input, context,
                                 out, e);
}

int codec_decode_slices(const struct chunk_table *table, const struct chunk *chunks, size_t count,
                        codec_input_fn *input, void *input_context, uint8_t *buffer, codec_deliver_fn *deliver,
                        void *deliver_context, struct error *e)
{
        if (count == 0)
                return 0;
        return codec_decode_slices_with(chunks[0].codec == CODEC_GZIP ? inflate_chosen() : NULL, table, chunks, count,
                                        input, input_context, buffer, deliver, deliver_context, e);
}
