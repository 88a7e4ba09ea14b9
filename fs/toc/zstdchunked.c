/* SPDX-License-Identifier: Apache-2.0 */

/* zstd:chunked: frames of file data, then the table in a skippable frame, and others with what only writers need
 * (container-libs, storage/pkg/chunked). Positions name payloads, past the 8 bytes of a frame's header.
 *
 * The footer is the payload of the last frame, 64-bit little-endian numbers: offset, compressed and decoded length
 * and type of the table, then "GnUlInUx" (40 bytes; stargz writes this one too); or those four, the same of
 * tar-split without a type, then "GNUlInUx" (64 bytes). In between came writers whose footer nobody reads. */

#include <endian.h>
#include <inttypes.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "embedded_internal.h"
#include "regfs/text.h"

#define FRAME_HEADER_SIZE 8
#define TYPE_CRFS 1u /* the only one */
#define WINDOW_LOG_MAX 27
#define PIECE (128 * KIB)

static int check(struct toc_place *place, uint64_t type, uint64_t size, struct error *e)
{
        if (type != TYPE_CRFS)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "a table of the unknown type %" PRIu64, type);
        if (place->offset < FRAME_HEADER_SIZE || place->decoded == 0 || place->decoded > EMBEDDED_TOC_MAX)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "a table at offset %" PRIu64 " of %" PRIu64 " bytes",
                                 place->offset, place->decoded);
        place->codec = CODEC_ZSTD;
        place->data_end = place->offset - FRAME_HEADER_SIZE;
        return toc_place_check(place, size, e);
}

int zstdchunked_position(const char *text, uint64_t size, struct toc_place *ret, struct error *e)
{
        _cleanup_free_ char *copy = strdup(text);
        uint64_t numbers[4];
        char *rest = copy;

        if (!copy)
                return error_oom(e);
        for (size_t k = 0; k < ELEMENTSOF(numbers); k++) {
                char *number = strsep(&rest, ":");

                if (!number || str_to_u64(number, &numbers[k]) < 0)
                        return error_set(e, ERROR_BAD_DATA, EBADMSG, "not offset:length:length:type");
        }
        if (rest)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "not offset:length:length:type");
        *ret = (struct toc_place) { .offset = numbers[0], .length = numbers[1], .decoded = numbers[2] };
        return check(ret, numbers[3], size, e);
}

int zstdchunked_footer(const uint8_t *tail, size_t n, uint64_t size, struct toc_place *ret, struct error *e)
{
        static const struct {
                size_t size;
                const char *magic;
        } footers[] = { { 64, "GNUlInUx" }, { 40, "GnUlInUx" } };

        for (size_t k = 0; k < ELEMENTSOF(footers); k++) {
                size_t length = footers[k].size;
                uint64_t numbers[4];

                if (n < length || memcmp(tail + n - 8, footers[k].magic, 8) != 0)
                        continue;
                memcpy(numbers, tail + n - length, sizeof(numbers));
                *ret = (struct toc_place) {
                        .offset = le64toh(numbers[0]),
                        .length = le64toh(numbers[1]),
                        .decoded = le64toh(numbers[2]),
                };
                return check(ret, le64toh(numbers[3]), size, e);
        }
        return error_set(e, ERROR_BAD_DATA, EBADMSG, "the blob does not end in the footer of a zstd:chunked layer");
}

/* ---- the table ---- */

struct toc_decoder {
        toc_output_fn *output;
        void *context;
        ZSTD_DCtx *zstd;
        bool ended; /* at the end of a frame */
        uint8_t piece[PIECE];
};

static void zstdchunked_close(struct toc_decoder *d)
{
        if (!d)
                return;
        ZSTD_freeDCtx(d->zstd);
        free(d);
}

static int zstdchunked_open(toc_output_fn *output, void *context, struct toc_decoder **ret, struct error *e)
{
        struct toc_decoder *d = calloc(1, sizeof(*d));

        if (!d)
                return error_oom(e);
        d->output = output;
        d->context = context;
        d->zstd = ZSTD_createDCtx();
        if (!d->zstd || ZSTD_isError(ZSTD_DCtx_setParameter(d->zstd, ZSTD_d_windowLogMax, WINDOW_LOG_MAX))) {
                zstdchunked_close(d);
                return error_oom(e);
        }
        *ret = d;
        return 0;
}

/* The library keeps a byte of the frame back until all that the frame decodes to is out. */
static int zstdchunked_feed(struct toc_decoder *d, const uint8_t *data, size_t n, struct error *e)
{
        ZSTD_inBuffer in = { .src = data, .size = n };

        while (in.pos < in.size) {
                ZSTD_outBuffer out = { .dst = d->piece, .size = PIECE };
                size_t hint = ZSTD_decompressStream(d->zstd, &out, &in);
                int r;

                if (ZSTD_getErrorCode(hint) == ZSTD_error_memory_allocation)
                        return error_oom(e);
                if (ZSTD_isError(hint))
                        return error_set(e, ERROR_BAD_DATA, EBADMSG, "zstd: %s", ZSTD_getErrorName(hint));
                d->ended = hint == 0;
                r = out.pos > 0 ? d->output(d->context, d->piece, out.pos, e) : 0;
                if (r < 0)
                        return r;
        }
        return 0;
}

static int zstdchunked_finish(struct toc_decoder *d, struct error *e)
{
        return d->ended ? 0 : error_set(e, ERROR_BAD_DATA, EBADMSG, "zstd: the table ends inside a frame");
}

const struct toc_decoder_ops zstdchunked_decoder = {
        .open = zstdchunked_open,
        .feed = zstdchunked_feed,
        .finish = zstdchunked_finish,
        .close = zstdchunked_close,
};
