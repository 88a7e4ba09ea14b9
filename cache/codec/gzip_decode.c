/* SPDX-License-Identifier: Apache-2.0 */

/* One chunk of a gzip stream: from a member's header or from a checkpoint, over the ends of members. Trailers are
 * passed over unread: the chunk's digest says more, and most chunks begin or end in the middle of a member. */

#include <zstd.h>

#include "codec_internal.h"
#include "gzip_member.h"

enum gzip_state {
        GZIP_HEADER,
        GZIP_DEFLATE,
        GZIP_TRAILER,
};

struct gzip_decoder {
        struct decoder decoder;
        enum gzip_state state;
        struct gzip_header header;
        struct gzip_trailer trailer;
        struct inflate *inflate;
};

/* The window of CP, in WINDOW or where it lies in the table. */
static int checkpoint_window(const struct chunk_table *t, const struct checkpoint *cp,
                             uint8_t window[static INFLATE_WINDOW], struct inflate_place *place, struct error *e)
{
        size_t n;

        if (cp->window_length == 0)
                return 0;
        if (cp->window_raw > INFLATE_WINDOW || cp->window_length > cp->window_raw ||
            !range_fits(cp->window_offset, cp->window_length, t->windows_size))
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "the checkpoint's window is out of bounds");
        place->window_length = cp->window_raw;
        if (cp->window_length == cp->window_raw) {
                place->window = t->windows + cp->window_offset;
                return 0;
        }
        n = ZSTD_decompress(window, INFLATE_WINDOW, t->windows + cp->window_offset, cp->window_length);
        if (ZSTD_isError(n) || n != cp->window_raw)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "the checkpoint's window is damaged");
        place->window = window;
        return 0;
}

static int gzip_start_at(struct gzip_decoder *d, const struct chunk_table *t, const struct checkpoint *cp,
                         struct error *e)
{
        struct inflate_place place = { .bits = cp->bits };
        uint8_t window[INFLATE_WINDOW];
        int r;

        if (cp->bits > 7)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "the checkpoint is damaged");
        r = checkpoint_window(t, cp, window, &place, e);
        if (r < 0)
                return r;
        if (cp->bits > 0) {
                r = source_fill(&d->decoder.source, e);
                if (r < 0)
                        return r;
                if (r == 0)
                        return decoder_ended_early(&d->decoder, e);
                place.byte = *d->decoder.source.at++;
        }
        d->state = GZIP_DEFLATE;
        return d->decoder.inflate->start(d->inflate, &place, e);
}

static int gzip_decoder_open(struct decoder *decoder, const struct chunk_table *table, const struct chunk *chunk,
                             struct error *e)
{
        struct gzip_decoder *d = (struct gzip_decoder *) decoder;

        d->inflate = decoder->inflate->create();
        if (!d->inflate)
                return error_oom(e);
        if (chunk->checkpoint == CHECKPOINT_NONE)
                return 0;
        if (chunk->checkpoint >= table->checkpoint_count)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "the chunk's checkpoint does not exist");
        return gzip_start_at(d, table, &table->checkpoints[chunk->checkpoint], e);
}

static void gzip_decoder_close(struct decoder *decoder)
{
        struct gzip_decoder *d = (struct gzip_decoder *) decoder;

        decoder->inflate->destroy(d->inflate);
}

/* One step in deflate data. The input may be used up: there can still be output inside the inflate stream. */
static int gzip_inflate_step(struct gzip_decoder *d, uint8_t *out, size_t n, size_t *ret_n, struct error *e)
{
        struct codec_source *source = &d->decoder.source;
        struct inflate_io io = {
                .piece = source->piece,
                .in = source->at,
                .in_length = (size_t) (source->end - source->at),
                .out = out,
                .out_length = n,
        };
        int status = d->decoder.inflate->run(d->inflate, &io, false, e);

        if (status < 0)
                return status;
        source->at = io.in;
        *ret_n = n - io.out_length;
        if (status == INFLATE_END) {
                d->state = GZIP_TRAILER;
                d->trailer.length = 0;
        }
        return 0;
}

/* One step in what is around the deflate data, with at least one byte of input. */
static int gzip_wrapper_step(struct gzip_decoder *d, struct error *e)
{
        struct codec_source *source = &d->decoder.source;
        int r;

        if (d->state == GZIP_TRAILER) {
                if (gzip_trailer_read(&d->trailer, &source->at, source->end)) {
                        d->state = GZIP_HEADER;
                        d->header = (struct gzip_header) {};
                }
                return 0;
        }
        r = gzip_header_read(&d->header, &source->at, source->end, e);
        if (r <= 0)
                return r;
        d->state = GZIP_DEFLATE;
        return d->decoder.inflate->start(d->inflate, NULL, e);
}

static int gzip_decoder_read(struct decoder *decoder, uint8_t *out, size_t n, size_t *ret_n, struct error *e)
{
        struct gzip_decoder *d = (struct gzip_decoder *) decoder;
        size_t got = 0;

        while (got == 0) {
                int r;

                if (d->state == GZIP_DEFLATE) {
                        r = gzip_inflate_step(d, out, n, &got, e);
                        if (r < 0)
                                return r;
                        if (got > 0 || d->state != GZIP_DEFLATE)
                                continue;
                }
                r = source_fill(&decoder->source, e);
                if (r < 0)
                        return r;
                if (r == 0)
                        return decoder_ended_early(decoder, e);
                r = d->state == GZIP_DEFLATE ? 0 : gzip_wrapper_step(d, e);
                if (r < 0)
                        return r;
        }
        *ret_n = got;
        return 0;
}

const struct decoder_ops decoder_gzip = {
        .size = sizeof(struct gzip_decoder),
        .name = "gzip chunk",
        .open = gzip_decoder_open,
        .close = gzip_decoder_close,
        .read = gzip_decoder_read,
};
