/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What is around the deflate data of a gzip member (RFC 1952, 2.3): a header of any length, read piece by piece, and a
 * trailer. Private to cache/codec. */

#include "regfs/base.h"
#include "regfs/error.h"

#define GZIP_MAGIC_0 0x1f
#define GZIP_MAGIC_1 0x8b

enum gzip_field {
        GZIP_FIELD_FIXED,
        GZIP_FIELD_EXTRA_LENGTH,
        GZIP_FIELD_EXTRA,
        GZIP_FIELD_NAME,
        GZIP_FIELD_COMMENT,
        GZIP_FIELD_CRC,
        GZIP_FIELD_END,
};

/* A header that is being read. All zero: at its first byte. */
struct gzip_header {
        enum gzip_field field;
        uint8_t flags;
        uint32_t at;     /* bytes of the field that have been read */
        uint32_t length; /* of the extra field */
        uint32_t crc;    /* of the header so far */
        uint32_t stored_crc;
};

/* Reads on from *IN up to END and moves *IN behind what belongs to the header. Returns 1 at its end, 0 when more
 * input is needed, or -EBADMSG with E. */
int gzip_header_read(struct gzip_header *h, const uint8_t **in, const uint8_t *end, struct error *e);

#define GZIP_TRAILER_SIZE 8

struct gzip_trailer {
        uint8_t bytes[GZIP_TRAILER_SIZE];
        size_t length;
};

/* Likewise: 1 when the trailer is complete, 0 when more input is needed. */
int gzip_trailer_read(struct gzip_trailer *t, const uint8_t **in, const uint8_t *end);

/* CRC and SIZE (modulo 2^32) are those of the member's content. 0 or -EBADMSG with E. */
int gzip_trailer_check(const struct gzip_trailer *t, uint32_t crc, uint32_t size, struct error *e);
