/* SPDX-License-Identifier: Apache-2.0 */

/* Where an embedded table of contents is said to be, by footers and by the annotation, and the decoding of what lies
 * there. The input's first byte chooses, and how the bytes of a table are cut. */

#include "../../fs/toc/embedded_internal.h"
#include "fuzz.h"

#define DECODED_MAX (4 * MIB)

static void check_place(int r, const struct toc_place *place, uint64_t size, const struct error *e)
{
        if (r < 0) {
                REQUIRE(r == -EBADMSG && is_told(r, e));
                return;
        }
        if (toc_place_check(place, size, NULL) < 0)
                return;
        REQUIRE(place->external || range_fits(place->offset, place->length, size));
        REQUIRE(place->length <= EMBEDDED_TOC_MAX && place->decoded <= EMBEDDED_TOC_MAX && place->data_end <= size);
}

static void read_footer(bool zstd, const uint8_t *data, size_t n)
{
        _cleanup_free_ uint8_t *tail = NULL;
        struct toc_place place = { 0 };
        struct error e = ERROR_INIT;
        uint64_t size;
        int r;

        if (n < sizeof(size))
                return;
        memcpy(&size, data, sizeof(size));
        n -= sizeof(size);
        tail = exact_bytes(data + sizeof(size), n);
        size = MAX(size % (64 * GIB), (uint64_t) n);
        r = zstd ? zstdchunked_footer(tail, n, size, &place, &e) : estargz_footer(tail, n, size, &place, &e);
        check_place(r, &place, size, &e);
}

static void read_position(const uint8_t *data, size_t n)
{
        _cleanup_free_ char *text = exact_text(data, n);
        struct toc_place place = { 0 };
        struct error e = ERROR_INIT;

        check_place(zstdchunked_position(text, GIB, &place, &e), &place, GIB, &e);
}

static int keep(void *context, const uint8_t *data, size_t n, struct error *e)
{
        struct buf *b = context;

        return buf_append(b, data, n) < 0 ? error_set(e, ERROR_OTHER, EFBIG, "too much") : 0;
}

static int decode(const struct toc_decoder_ops *ops, const uint8_t *data, size_t n, size_t step, struct buf *out)
{
        struct toc_decoder *d = NULL;
        struct error e = ERROR_INIT;
        int r = ops->open(keep, out, &d, &e);

        REQUIRE(r == 0);
        for (size_t at = 0, piece; r == 0 && at < n; at += piece) {
                _cleanup_free_ uint8_t *bytes = NULL;

                piece = MIN(step, n - at);
                bytes = exact_bytes(data + at, piece);
                r = ops->feed(d, bytes, piece, &e);
        }
        if (r == 0)
                r = ops->finish(d, &e);
        ops->close(d);
        REQUIRE(r == 0 || is_told(r, &e));
        return r;
}

/* However it is cut, the same comes out. */
static void read_table(const struct toc_decoder_ops *ops, const uint8_t *data, size_t n, size_t step)
{
        _cleanup_buf_ struct buf whole = { .max = DECODED_MAX }, cut = { .max = DECODED_MAX };
        int r = decode(ops, data, n, SIZE_MAX, &whole);

        REQUIRE(decode(ops, data, n, step, &cut) == r);
        REQUIRE(r < 0 || (whole.len == cut.len && (whole.len == 0 || memcmp(whole.data, cut.data, whole.len) == 0)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        uint8_t choice = take_byte(&data, &size);
        size_t step = (choice >> 3) + 1u;

        switch (choice & 7) {
        case 0:
        case 1:
                read_footer(choice & 1, data, size);
                break;
        case 2:
                read_position(data, size);
                break;
        case 3:
                read_table(&estargz_decoder, data, size, step);
                break;
        default:
                read_table(&zstdchunked_decoder, data, size, step);
        }
        return 0;
}
