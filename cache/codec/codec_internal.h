/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* How the codecs stand behind <regfs/codec.h>: one table of functions for the pass over a layer, one for decoding a
 * chunk, and what all of them share. Private to cache/codec and its tests. */

#include "inflate.h"
#include "regfs/codec.h"

/* ---- the pass ---- */

struct scan_ops {
        size_t size; /* of the codec's own struct, which begins with struct scan */
        enum codec codec;
        const char *name; /* begins the messages */
        int (*open)(struct scan *s, struct error *e);
        void (*close)(struct scan *s); /* accepts what open left half-built */
        int (*feed)(struct scan *s, const uint8_t *data, size_t n, struct error *e);
        int (*finish)(struct scan *s, struct error *e);
};

extern const struct scan_ops scan_stored;
extern const struct scan_ops scan_gzip;
extern const struct scan_ops scan_zstd;

struct scan {
        const struct scan_ops *ops;
        const struct inflate_ops *inflate;
        struct scan_sink sink;
        size_t target;         /* CHUNK_CONTENT_TARGET; smaller in tests */
        uint64_t fed;          /* blob bytes ahead of the current feed */
        size_t used;           /* bytes of the current feed that have been used: where an error is */
        uint64_t content;      /* decoded bytes that the sink has got */
        uint64_t chunk_length; /* how many of them belong to the current chunk */
        uint64_t range_offset; /* where the current chunk's blob range begins */
        bool begun;            /* the first chunk has been reported */
        bool slice;            /* the current chunk is a slice, and not its group's first one */
        bool sink_failed;
        int failed; /* what ended the pass */
};

/* Hands N decoded bytes to the sink, and cuts the current chunk into slices where it would grow past its bound. */
int scan_output(struct scan *s, const uint8_t *data, size_t n, struct error *e);

/* Begins a chunk at the current content offset, with its own blob range from BLOB_OFFSET. */
int scan_begin_chunk(struct scan *s, uint64_t blob_offset, struct error *e);

/* Likewise, with a checkpoint: the next whole byte is at blob offset IN. */
int scan_begin_at_checkpoint(struct scan *s, uint64_t in, const struct inflate_place *place, struct error *e);

/* scan_new with a chosen inflate and a smaller CHUNK_CONTENT_TARGET. */
int scan_new_with(enum compression compression, const struct scan_sink *sink, const struct inflate_ops *inflate,
                  size_t target, struct scan **ret, struct error *e);

/* ---- decoding ---- */

/* The chunk's blob range as the caller's input function yields it. The bytes that were not used yet are [at, end). */
struct codec_source {
        codec_input_fn *input;
        void *context;
        uint64_t offset; /* of end, in the range */
        uint64_t length; /* of the range */
        const uint8_t *piece;
        const uint8_t *at;
        const uint8_t *end;
};

/* Makes sure that there is a byte at AT. Returns 1, 0 at the end of the range, or the input function's error. */
int source_fill(struct codec_source *source, struct error *e);

struct decoder;

struct decoder_ops {
        size_t size; /* of the codec's own struct, which begins with struct decoder */
        const char *name;
        int (*open)(struct decoder *d, const struct chunk_table *table, const struct chunk *chunk, struct error *e);
        void (*close)(struct decoder *d); /* accepts what open left half-built */

        /* Decodes the next bytes into OUT: at most N, at least one. Returns 0, or -EBADMSG with E, also when the
         * blob range ends first. */
        int (*read)(struct decoder *d, uint8_t *out, size_t n, size_t *ret_n, struct error *e);
};

extern const struct decoder_ops decoder_stored;
extern const struct decoder_ops decoder_gzip;
extern const struct decoder_ops decoder_zstd;

struct decoder {
        const struct decoder_ops *ops;
        const struct inflate_ops *inflate;
        struct codec_source source;
        uint64_t position; /* decoded bytes so far */
};

/* -EBADMSG: the blob range ended before the content did. */
int decoder_ended_early(struct decoder *d, struct error *e);

/* codec_decode and codec_decode_slices with a chosen inflate. */
int codec_decode_with(const struct inflate_ops *inflate, const struct chunk_table *table, const struct chunk *chunk,
                      codec_input_fn *input, void *context, uint8_t *out, struct error *e);
int codec_decode_slices_with(const struct inflate_ops *inflate, const struct chunk_table *table,
                             const struct chunk *chunks, size_t count, codec_input_fn *input, void *input_context,
                             uint8_t *buffer, codec_deliver_fn *deliver, void *deliver_context, struct error *e);
