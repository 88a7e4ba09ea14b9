/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Raw deflate (RFC 1951) behind a table of functions, so that gzip.c does not know which library runs. What an
 * implementation must offer beyond inflating: to stop at the end of a deflate block and say at which bit that was, and
 * to start at such a place. Private to cache/codec. */

#include "regfs/base.h"
#include "regfs/error.h"

/* Deflate distances reach no further back (RFC 1951, 3.2.5). */
#define INFLATE_WINDOW (32 * KIB)

enum inflate_status {
        INFLATE_MORE,     /* the input is used up, or the output is full */
        INFLATE_BOUNDARY, /* a block that is not the last one ended; start() must come before the next run() */
        INFLATE_END,      /* the last block ended; likewise */
};

struct inflate_io {
        const uint8_t *piece; /* where the caller's piece of input begins: in never moves before it */
        const uint8_t *in;
        size_t in_length;
        uint8_t *out;
        size_t out_length;
        /* After INFLATE_BOUNDARY: the next block's first bits are the upper BITS bits of the byte ahead of in. It
         * lies in the piece too, because a block's end is found as soon as its last bit is there. */
        unsigned bits;
};

/* The place in a stream where start() begins. With BITS > 0 the upper BITS bits of BYTE come first. WINDOW is borrowed
 * for the call. */
struct inflate_place {
        unsigned bits;
        uint8_t byte;
        const uint8_t *window;
        size_t window_length; /* at most INFLATE_WINDOW */
};

struct inflate; /* an implementation's own stream; one thread at a time */

struct inflate_ops {
        const char *name;

        struct inflate *(*create)(void); /* NULL: out of memory */
        void (*destroy)(struct inflate *i);

        /* Forgets everything and makes ready to inflate from PLACE (NULL: from a byte boundary, without a window). */
        int (*start)(struct inflate *i, const struct inflate_place *place, struct error *e);

        /* Inflates: moves in and out forward. At INFLATE_BOUNDARY and INFLATE_END all output before that place has
         * been written, and in is at the first byte of which no bit was used; bytes that the implementation had
         * looked at ahead are given back. With STOP the run ends at the next block boundary that the implementation
         * can stop at: the end of the block that is being inflated, or the boundary where the run before it ended,
         * unless that lies before the piece. A stop is asked for only after output, and from then on in every run
         * until it comes. While the status is INFLATE_MORE with a full output, there may be more output without
         * further input: a caller runs on until the output is not filled before it lets go of the piece. Returns a
         * status, or -EBADMSG with E. */
        int (*run)(struct inflate *i, struct inflate_io *io, bool stop, struct error *e);

        /* CRC-32 of gzip, continued from CRC; 0 to begin. */
        uint32_t (*crc32)(uint32_t crc, const uint8_t *data, size_t n);
};

extern const struct inflate_ops inflate_zlib;

/* NULL when regfs was built without libisal, or with a version whose fields are not known to mean the same. */
const struct inflate_ops *inflate_isal(void);

/* Inflates a stream made on the spot with OPS, piece by piece, stopping at blocks, and resumes zlib and OPS at every
 * stop. Returns 0, or -errno with E that says what differed. */
int inflate_self_test(const struct inflate_ops *ops, struct error *e);

/* The implementation in use: chosen once, see inflate_backend in <regfs/codec.h>. */
const struct inflate_ops *inflate_chosen(void);
