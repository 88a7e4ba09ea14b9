/* SPDX-License-Identifier: Apache-2.0 */

/* The pass over a gzip layer: any number of members, chunks at members or at deflate blocks.
 *
 * At a block boundary the inflate stream is started anew from the very checkpoint that is reported. So the CRC-32 at
 * the member's end proves every checkpoint in it: one that was wrong would have spoilt what came behind it. */

#include <string.h>

#include "codec_internal.h"
#include "gzip_member.h"

/* Output is collected in front of the sink, behind the window. Small enough to stay in a second-level cache. */
#define PIECE (256 * KIB)

/* libisal copies where it has less room than this, and decodes ahead. */
#define ROOM_MIN (32 * KIB)

enum gzip_state {
        GZIP_HEADER,
        GZIP_DEFLATE,
        GZIP_TRAILER,
        GZIP_BETWEEN, /* members: another one, padding or the end may follow */
        GZIP_PADDING,
};

struct gzip_scan {
        struct scan scan;
        enum gzip_state state;
        struct gzip_header header;
        struct gzip_trailer trailer;
        struct inflate *inflate;
        uint64_t member_length; /* decoded bytes of this member */
        uint32_t crc;           /* of them */
        size_t filled;          /* decoded bytes in buffer */
        size_t sent;            /* how many of these the sink has got */
        uint8_t buffer[INFLATE_WINDOW + PIECE];
};

static int gzip_scan_open(struct scan *scan, struct error *e)
{
        struct gzip_scan *s = (struct gzip_scan *) scan;

        s->inflate = scan->inflate->create();
        return s->inflate ? 0 : error_oom(e);
}

static void gzip_scan_close(struct scan *scan)
{
        struct gzip_scan *s = (struct gzip_scan *) scan;

        scan->inflate->destroy(s->inflate);
}

/* Length of the current chunk, with what the sink has not got yet. */
static uint64_t chunk_length(const struct gzip_scan *s)
{
        return s->scan.chunk_length + (s->filled - s->sent);
}

static int gzip_flush(struct gzip_scan *s, struct error *e)
{
        int r = scan_output(&s->scan, s->buffer + s->sent, s->filled - s->sent, e);

        s->sent = s->filled;
        return r;
}

/* Makes room for output, and keeps the window in front of it. */
static int gzip_make_room(struct gzip_scan *s, struct error *e)
{
        int r;

        if (sizeof(s->buffer) - s->filled >= ROOM_MIN)
                return 0;
        r = gzip_flush(s, e);
        if (r != 0)
                return r;
        memmove(s->buffer, s->buffer + s->filled - INFLATE_WINDOW, INFLATE_WINDOW);
        s->filled = s->sent = INFLATE_WINDOW;
        return 0;
}

/* A deflate block has ended and the chunk is long enough. *IO stands behind the block. */
static int gzip_block_boundary(struct gzip_scan *s, const struct inflate_io *io, struct error *e)
{
        size_t behind = MIN(s->filled, INFLATE_WINDOW);
        size_t window = (size_t) MIN((uint64_t) behind, s->member_length);
        struct inflate_place place = {
                .bits = io->bits,
                .window = s->buffer + s->filled - window,
                .window_length = window,
        };
        int r;

        if (io->bits > 0) {
                if (io->in == io->piece)
                        return error_set(e, ERROR_OTHER, EIO, "%s stopped too late", s->scan.inflate->name);
                place.byte = io->in[-1];
        }
        r = gzip_flush(s, e);
        if (r == 0 && s->scan.chunk_length > 0)
                r = scan_begin_at_checkpoint(&s->scan, s->scan.fed + (size_t) (io->in - io->piece), &place, e);
        return r == 0 ? s->scan.inflate->start(s->inflate, &place, e) : r;
}

static bool gzip_is_due(const struct gzip_scan *s)
{
        return chunk_length(s) > 0 && (chunk_length(s) >= s->scan.target || s->scan.slice);
}

/* One run of inflate into the room that there is. Returns its status or -errno. */
static int gzip_run(struct gzip_scan *s, struct inflate_io *io, bool stop, struct error *e)
{
        size_t room = sizeof(s->buffer) - s->filled, got;
        int status;

        if (!stop && chunk_length(s) < s->scan.target)
                room = MIN(room, MAX(s->scan.target - (size_t) chunk_length(s), ROOM_MIN));
        io->out = s->buffer + s->filled;
        io->out_length = room;

        status = s->scan.inflate->run(s->inflate, io, stop, e);
        if (status < 0)
                return status;
        got = room - io->out_length;
        s->crc = s->scan.inflate->crc32(s->crc, s->buffer + s->filled, got);
        s->filled += got;
        s->member_length += got;
        return status;
}

/* Inflates from *IN until the member's deflate data ends (state changes) or the input is used up. */
static int gzip_inflate(struct gzip_scan *s, const uint8_t *piece, const uint8_t **in, const uint8_t *end,
                        struct error *e)
{
        struct inflate_io io = { .piece = piece, .in = *in, .in_length = (size_t) (end - *in) };
        bool stop;
        int status;

        do {
                int r = gzip_make_room(s, e);

                if (r != 0)
                        return r;
                stop = gzip_is_due(s);
                status = gzip_run(s, &io, stop, e);
                s->scan.used = (size_t) (io.in - piece);
                if (status < 0)
                        return status;
                r = status == INFLATE_BOUNDARY ? gzip_block_boundary(s, &io, e) : 0;
                if (r != 0)
                        return r;
                /* When the chunk has become long enough with the last of the input, a block may just have ended:
                 * that is asked for now, while the input is still there. */
        } while (status == INFLATE_BOUNDARY ||
                 (status == INFLATE_MORE && (io.in_length > 0 || io.out_length == 0 || gzip_is_due(s) != stop)));

        if (status == INFLATE_END) {
                s->state = GZIP_TRAILER;
                s->trailer.length = 0;
        }
        *in = io.in;
        return 0;
}

/* A member begins at blob offset OFFSET: the cheapest place for a chunk, since no window is needed. */
static int gzip_begin_member(struct gzip_scan *s, uint64_t offset, struct error *e)
{
        bool cut = chunk_length(s) >= s->scan.target / 2 || (s->scan.slice && chunk_length(s) > 0);
        int r = cut ? gzip_flush(s, e) : 0;

        if (r == 0 && cut)
                r = scan_begin_chunk(&s->scan, offset, e);
        s->state = GZIP_HEADER;
        s->header = (struct gzip_header) {};
        return r;
}

/* One step with at least one byte of input. */
static int gzip_step(struct gzip_scan *s, const uint8_t *piece, const uint8_t **in, const uint8_t *end, struct error *e)
{
        int r;

        switch (s->state) {
        case GZIP_HEADER:
                r = gzip_header_read(&s->header, in, end, e);
                if (r <= 0)
                        return r;
                s->state = GZIP_DEFLATE;
                s->member_length = 0;
                s->crc = 0;
                return s->scan.inflate->start(s->inflate, NULL, e);
        case GZIP_DEFLATE:
                return gzip_inflate(s, piece, in, end, e);
        case GZIP_TRAILER:
                if (!gzip_trailer_read(&s->trailer, in, end))
                        return 0;
                s->state = GZIP_BETWEEN;
                return gzip_trailer_check(&s->trailer, s->crc, (uint32_t) s->member_length, e);
        case GZIP_BETWEEN:
                if (**in == GZIP_MAGIC_0)
                        return gzip_begin_member(s, s->scan.fed + (size_t) (*in - piece), e);
                s->state = GZIP_PADDING;
                return 0;
        case GZIP_PADDING:
        default:
                if (**in != 0)
                        return error_set(e, ERROR_BAD_DATA, EBADMSG, "bytes that are not gzip follow the last member");
                ++*in;
                return 0;
        }
}

static int gzip_scan_feed(struct scan *scan, const uint8_t *data, size_t n, struct error *e)
{
        struct gzip_scan *s = (struct gzip_scan *) scan;
        const uint8_t *in = data, *end = data + n;

        while (in < end) {
                int r = gzip_step(s, data, &in, end, e);

                if (r != 0)
                        return r;
                scan->used = (size_t) (in - data);
        }
        return 0;
}

static int gzip_scan_finish(struct scan *scan, struct error *e)
{
        struct gzip_scan *s = (struct gzip_scan *) scan;

        if (s->state != GZIP_BETWEEN && s->state != GZIP_PADDING)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "the blob ends inside a gzip member");
        return gzip_flush(s, e);
}

const struct scan_ops scan_gzip = {
        .size = sizeof(struct gzip_scan),
        .codec = CODEC_GZIP,
        .name = "gzip layer",
        .open = gzip_scan_open,
        .close = gzip_scan_close,
        .feed = gzip_scan_feed,
        .finish = gzip_scan_finish,
};
