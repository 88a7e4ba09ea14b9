/* SPDX-License-Identifier: Apache-2.0 */

/* libisal inflates about twice as fast as zlib, but has no call that stops between two deflate blocks. It has
 * fields that do: when a block ends, isal_inflate looks at the public field bfinal to see whether that was the last
 * one, and if so stops, with the bits that it read ahead in read_in. So a stop is asked for by setting bfinal while
 * a block is being decoded. Nothing is rolled back or decoded twice.
 *
 * This holds for libisal 2.30.0 and 2.31.0; from 2.31.1 on the bits of a partly used byte are dropped at the end.
 * The versions are checked here against the header, and by inflate_self_test against the library that is really
 * loaded. */

#include "inflate.h"

#if !defined(REGFS_NO_ISAL) && __has_include(<isa-l.h>)
#include <isa-l.h>
#define KNOWN_VERSION (ISAL_VERSION >= ISAL_MAKE_VERSION(2, 30, 0) && ISAL_VERSION <= ISAL_MAKE_VERSION(2, 31, 0))
#else
#define KNOWN_VERSION 0
#endif

#if KNOWN_VERSION

#include <limits.h>
#include <stdlib.h>

struct inflate {
        struct inflate_state state;
        bool produced; /* output since start: the place where the stream stands is not the one where it started */
        bool stopping; /* bfinal is ours, not the stream's */
};

static struct inflate *isal_create(void)
{
        struct inflate *i = calloc(1, sizeof(*i));

        if (i)
                isal_inflate_init(&i->state);
        return i;
}

static void isal_destroy(struct inflate *i)
{
        free(i);
}

static int isal_start(struct inflate *i, const struct inflate_place *place, struct error *e)
{
        struct inflate_state *s = &i->state;

        isal_inflate_reset(s);
        i->produced = false;
        i->stopping = false;
        if (!place)
                return 0;
        if (place->bits > 0) {
                s->read_in = (uint64_t) place->byte >> (8 - place->bits);
                s->read_in_length = (int32_t) place->bits;
        }
        if (place->window_length > 0 &&
            isal_inflate_set_dict(s, (uint8_t *) place->window, (uint32_t) place->window_length) != COMP_OK)
                return error_set(e, ERROR_OTHER, EINVAL, "libisal cannot resume here");
        return 0;
}

static const char *isal_strerror(int r)
{
        switch (r) {
        case ISAL_INVALID_BLOCK:
                return "invalid deflate block header";
        case ISAL_INVALID_SYMBOL:
                return "invalid deflate code";
        case ISAL_INVALID_LOOKBACK:
                return "invalid deflate distance";
        default:
                return "invalid deflate data";
        }
}

/* Bytes of input beyond the place between two blocks where the stream stands. */
static size_t isal_ahead(const struct inflate_state *s)
{
        size_t ahead = (size_t) s->read_in_length / 8;

        return s->block_state == ISAL_BLOCK_HDR ? ahead + (size_t) s->tmp_in_size : ahead;
}

/* True when the stream stands between two blocks, with all output written, and the bytes behind can be given back. */
static bool isal_is_between(const struct inflate_state *s, const struct inflate_io *io)
{
        return (s->block_state == ISAL_BLOCK_NEW_HDR || s->block_state == ISAL_BLOCK_HDR) &&
               s->tmp_out_processed == s->tmp_out_valid && isal_ahead(s) < (size_t) (io->in - io->piece);
}

/* Ends a run between two blocks: gives back the whole bytes that were read ahead. */
static int isal_settle(const struct inflate_state *s, struct inflate_io *io, int status, struct error *e)
{
        size_t ahead = isal_ahead(s);

        if (s->read_in_length < 0 || ahead > (size_t) (io->in - io->piece))
                return error_set(e, ERROR_OTHER, EIO, "libisal stopped too late");
        io->in -= ahead;
        io->in_length += ahead;
        io->bits = (unsigned) s->read_in_length % 8;
        return status;
}

static int isal_run(struct inflate *i, struct inflate_io *io, bool stop, struct error *e)
{
        struct inflate_state *s = &i->state;
        size_t in_length = MIN(io->in_length, (size_t) INT_MAX), out_length = MIN(io->out_length, (size_t) INT_MAX);
        int r;

        if (stop && i->produced && isal_is_between(s, io))
                return isal_settle(s, io, INFLATE_BOUNDARY, e);
        if (stop && !s->bfinal && (s->block_state == ISAL_BLOCK_CODED || s->block_state == ISAL_BLOCK_TYPE0)) {
                s->bfinal = 1;
                i->stopping = true;
        }

        s->next_in = (uint8_t *) io->in;
        s->avail_in = (uint32_t) in_length;
        s->next_out = io->out;
        s->avail_out = (uint32_t) out_length;
        r = isal_inflate(s);
        if (r < 0) /* and the counts are wrong: the assembly returns in the middle of its arithmetic */
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "%s", isal_strerror(r));
        io->in += in_length - s->avail_in;
        io->in_length -= in_length - s->avail_in;
        io->out += out_length - s->avail_out;
        io->out_length -= out_length - s->avail_out;
        if (s->avail_out < out_length)
                i->produced = true;
        if (s->block_state == ISAL_BLOCK_FINISH)
                return isal_settle(s, io, i->stopping ? INFLATE_BOUNDARY : INFLATE_END, e);
        return INFLATE_MORE;
}

static uint32_t isal_crc32(uint32_t crc, const uint8_t *data, size_t n)
{
        return crc32_gzip_refl(crc, data, n);
}

const struct inflate_ops *inflate_isal(void)
{
        static const struct inflate_ops ops = {
                .name = "isal",
                .create = isal_create,
                .destroy = isal_destroy,
                .start = isal_start,
                .run = isal_run,
                .crc32 = isal_crc32,
        };

        return &ops;
}

#else

const struct inflate_ops *inflate_isal(void)
{
        return NULL;
}

#endif
