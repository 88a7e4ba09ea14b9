/* SPDX-License-Identifier: Apache-2.0 */

/* Layers that are not compressed: blob bytes are content bytes, and a chunk can begin anywhere. */

#include <string.h>

#include "codec_internal.h"

static int stored_feed(struct scan *s, const uint8_t *data, size_t n, struct error *e)
{
        while (n > 0) {
                size_t take;
                int r;

                if (s->chunk_length == s->target) {
                        r = scan_begin_chunk(s, s->content, e);
                        if (r != 0)
                                return r;
                }
                take = MIN(n, s->target - (size_t) s->chunk_length);
                r = scan_output(s, data, take, e);
                if (r != 0)
                        return r;
                data += take;
                n -= take;
        }
        return 0;
}

const struct scan_ops scan_stored = {
        .size = sizeof(struct scan),
        .codec = CODEC_STORED,
        .name = "tar layer",
        .feed = stored_feed,
};

static int stored_read(struct decoder *d, uint8_t *out, size_t n, size_t *ret_n, struct error *e)
{
        struct codec_source *source = &d->source;
        int r = source_fill(source, e);

        if (r < 0)
                return r;
        if (r == 0)
                return decoder_ended_early(d, e);
        *ret_n = MIN(n, (size_t) (source->end - source->at));
        memcpy(out, source->at, *ret_n);
        source->at += *ret_n;
        return 0;
}

const struct decoder_ops decoder_stored = {
        .size = sizeof(struct decoder),
        .name = "stored chunk",
        .read = stored_read,
};
