/* SPDX-License-Identifier: Apache-2.0 */

#include <limits.h>
#include <stdlib.h>
#include <zlib.h>

#include "inflate.h"

/* inflate() describes where it stands in data_type (zlib.h, inflate): unused bits of the last byte, and two flags. */
#define UNUSED_BITS 7
#define IN_LAST_BLOCK 64
#define AT_BLOCK_END 128

struct inflate {
        z_stream z;
};

static struct inflate *zlib_create(void)
{
        struct inflate *i = calloc(1, sizeof(*i));

        if (!i)
                return NULL;
        if (inflateInit2(&i->z, -MAX_WBITS) != Z_OK) {
                free(i);
                return NULL;
        }
        return i;
}

static void zlib_destroy(struct inflate *i)
{
        if (!i)
                return;
        inflateEnd(&i->z);
        free(i);
}

static int zlib_start(struct inflate *i, const struct inflate_place *place, struct error *e)
{
        int r = inflateReset2(&i->z, -MAX_WBITS);

        if (r == Z_OK && place && place->bits > 0)
                r = inflatePrime(&i->z, (int) place->bits, place->byte >> (8 - place->bits));
        if (r == Z_OK && place && place->window_length > 0)
                r = inflateSetDictionary(&i->z, place->window, (uInt) place->window_length);
        if (r == Z_MEM_ERROR)
                return error_oom(e);
        if (r != Z_OK)
                return error_set(e, ERROR_OTHER, EINVAL, "zlib cannot resume here: error %d", r);
        return 0;
}

static int zlib_run(struct inflate *i, struct inflate_io *io, bool stop, struct error *e)
{
        z_stream *z = &i->z;
        int r;

        z->next_in = (Bytef *) io->in;
        z->avail_in = (uInt) MIN(io->in_length, (size_t) INT_MAX);
        z->next_out = io->out;
        z->avail_out = (uInt) MIN(io->out_length, (size_t) INT_MAX);
        r = inflate(z, stop ? Z_BLOCK : Z_NO_FLUSH);
        io->in_length -= (size_t) (z->next_in - io->in);
        io->in = z->next_in;
        io->out_length -= (size_t) (z->next_out - io->out);
        io->out = z->next_out;

        switch (r) {
        case Z_STREAM_END:
                return INFLATE_END;
        case Z_OK:
        case Z_BUF_ERROR: /* no progress: there was no input, or no room */
                break;
        case Z_MEM_ERROR:
                return error_oom(e);
        default:
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "%s", z->msg ? z->msg : "invalid deflate data");
        }
        if (stop && (z->data_type & AT_BLOCK_END) && !(z->data_type & IN_LAST_BLOCK)) {
                io->bits = (unsigned) z->data_type & UNUSED_BITS;
                return INFLATE_BOUNDARY;
        }
        return INFLATE_MORE;
}

static uint32_t zlib_crc32(uint32_t crc, const uint8_t *data, size_t n)
{
        return (uint32_t) crc32_z(crc, data, n);
}

const struct inflate_ops inflate_zlib = {
        .name = "zlib",
        .create = zlib_create,
        .destroy = zlib_destroy,
        .start = zlib_start,
        .run = zlib_run,
        .crc32 = zlib_crc32,
};
