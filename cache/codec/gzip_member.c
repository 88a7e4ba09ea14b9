/* SPDX-License-Identifier: Apache-2.0 */

#include <inttypes.h>
#include <string.h>
#include <zlib.h>

#include "gzip_member.h"

#define FIXED_SIZE 10
#define METHOD_DEFLATE 8

/* FLG bits; FTEXT (1) says nothing that matters here. */
#define FLAG_CRC 2
#define FLAG_EXTRA 4
#define FLAG_NAME 8
#define FLAG_COMMENT 16
#define FLAGS_RESERVED 0xe0

static int header_fixed_byte(struct gzip_header *h, uint8_t c, struct error *e)
{
        switch (h->at) {
        case 0:
        case 1:
                if (c != (h->at == 0 ? GZIP_MAGIC_0 : GZIP_MAGIC_1))
                        return error_set(e, ERROR_BAD_DATA, EBADMSG, "no gzip header");
                break;
        case 2:
                if (c != METHOD_DEFLATE)
                        return error_set(e, ERROR_BAD_DATA, EBADMSG, "unknown gzip compression method %u", c);
                break;
        case 3:
                if (c & FLAGS_RESERVED)
                        return error_set(e, ERROR_BAD_DATA, EBADMSG, "reserved gzip header flags %#x", c);
                h->flags = c;
                break;
        default:
                break; /* MTIME, XFL, OS */
        }
        return 0;
}

static bool header_has(const struct gzip_header *h, enum gzip_field field)
{
        switch (field) {
        case GZIP_FIELD_EXTRA_LENGTH:
        case GZIP_FIELD_EXTRA:
                return h->flags & FLAG_EXTRA;
        case GZIP_FIELD_NAME:
                return h->flags & FLAG_NAME;
        case GZIP_FIELD_COMMENT:
                return h->flags & FLAG_COMMENT;
        case GZIP_FIELD_CRC:
                return h->flags & FLAG_CRC;
        default:
                return true;
        }
}

/* Goes on to the next field that the header has and that is not empty. */
static void header_next(struct gzip_header *h)
{
        do
                h->field++;
        while (!header_has(h, h->field) || (h->field == GZIP_FIELD_EXTRA && h->length == 0));
        h->at = 0;
}

/* Takes byte number h->at of the current field. Returns 1 when it is the field's last one, 0, or -EBADMSG. */
static int header_byte(struct gzip_header *h, uint8_t c, struct error *e)
{
        int r;

        switch (h->field) {
        case GZIP_FIELD_FIXED:
                r = header_fixed_byte(h, c, e);
                return r < 0 ? r : h->at == FIXED_SIZE - 1;
        case GZIP_FIELD_EXTRA_LENGTH:
                h->length |= (uint32_t) c << (8 * h->at);
                return h->at == 1;
        case GZIP_FIELD_EXTRA:
                return h->at == h->length - 1;
        case GZIP_FIELD_NAME:
        case GZIP_FIELD_COMMENT:
                h->at = 0; /* of any length: not counted */
                return c == 0;
        case GZIP_FIELD_CRC:
                h->stored_crc |= (uint32_t) c << (8 * h->at);
                if (h->at == 1 && h->stored_crc != (h->crc & 0xffff))
                        return error_set(e, ERROR_BAD_DATA, EBADMSG,
                                         "the gzip header's CRC is %04" PRIx32 ", it says %04" PRIx32, h->crc & 0xffff,
                                         h->stored_crc);
                return h->at == 1;
        case GZIP_FIELD_END:
        default:
                return 0;
        }
}

int gzip_header_read(struct gzip_header *h, const uint8_t **in, const uint8_t *end, struct error *e)
{
        while (h->field != GZIP_FIELD_END) {
                uint8_t c;
                int r;

                if (*in == end)
                        return 0;
                c = *(*in)++;
                r = header_byte(h, c, e);
                if (r < 0)
                        return r;
                if (h->field != GZIP_FIELD_CRC)
                        h->crc = (uint32_t) crc32(h->crc, &c, 1);
                h->at++;
                if (r > 0)
                        header_next(h);
        }
        return 1;
}

int gzip_trailer_read(struct gzip_trailer *t, const uint8_t **in, const uint8_t *end)
{
        size_t n = MIN(sizeof(t->bytes) - t->length, (size_t) (end - *in));

        memcpy(t->bytes + t->length, *in, n);
        t->length += n;
        *in += n;
        return t->length == sizeof(t->bytes);
}

static uint32_t read_le32(const uint8_t *p)
{
        return (uint32_t) p[0] | (uint32_t) p[1] << 8 | (uint32_t) p[2] << 16 | (uint32_t) p[3] << 24;
}

int gzip_trailer_check(const struct gzip_trailer *t, uint32_t crc, uint32_t size, struct error *e)
{
        uint32_t stored_crc = read_le32(t->bytes), stored_size = read_le32(t->bytes + 4);

        if (crc != stored_crc)
                return error_set(e, ERROR_BAD_DATA, EBADMSG,
                                 "CRC-32 is %08" PRIx32 ", the gzip trailer says %08" PRIx32, crc, stored_crc);
        if (size != stored_size)
                return error_set(e, ERROR_BAD_DATA, EBADMSG,
                                 "the size is %" PRIu32 ", the gzip trailer says %" PRIu32 " (modulo 2^32)", size,
                                 stored_size);
        return 0;
}
