/* SPDX-License-Identifier: Apache-2.0 */

/* Two windows in one buffer, in turn: nobody may wait for a buffer of the pool while he holds another. */

#include "regfs/blob.h"

/* What is worth a consumer's while. */
#define PIECE (256 * KIB)

static int check_cancel(const struct blob_stream *s, struct error *e)
{
        if (s->cancel && atomic_load(s->cancel))
                return error_set(e, ERROR_OTHER, ECANCELED, "%s: reading it was interrupted", s->blob->name);
        return 0;
}

static int consume(const struct blob_stream *s, struct blob_range *range, uint64_t offset, const uint8_t *data,
                   size_t length, blob_piece_fn *piece, void *context, struct error *e)
{
        size_t done = 0;

        while (done < length) {
                uint64_t received;
                int r = check_cancel(s, e);

                if (r == 0)
                        r = blob_range_wait(range, MIN(done + PIECE, length), &received, e);
                if (r == 0)
                        r = piece(context, offset + done, data + done, (size_t) received - done, e);
                if (r != 0)
                        return r;
                done = (size_t) received;
        }
        return 0;
}

int blob_stream(const struct blob_stream *s, uint64_t offset, uint64_t end, blob_piece_fn *piece, void *context,
                struct error *e)
{
        _cleanup_(blob_range_close_ptr) struct blob_range *current = NULL;
        _cleanup_(blob_range_close_ptr) struct blob_range *next = NULL;
        _cleanup_(pool_buf_unref_ptr) struct pool_buf *buffer = NULL;
        size_t at = 0;
        int r;

        if (offset >= end)
                return 0;
        r = check_cancel(s, e);
        if (r == 0)
                r = pool_get(s->pool, (size_t) MIN(end - offset, (uint64_t) 2 * BLOB_WINDOW), DEADLINE_NEVER, &buffer,
                             e);
        if (r == 0)
                r = blob_range_open(s->blob, offset, MIN((uint64_t) BLOB_WINDOW, end - offset), buffer, 0,
                                    s->timeout_ms, &next, e);
        for (; r == 0 && offset < end; at = BLOB_WINDOW - at) {
                uint64_t length = MIN((uint64_t) BLOB_WINDOW, end - offset), left = end - offset - length;

                current = steal_ptr(next);
                if (left > 0)
                        r = blob_range_open(s->blob, offset + length, MIN((uint64_t) BLOB_WINDOW, left), buffer,
                                            BLOB_WINDOW - at, s->timeout_ms, &next, e);
                if (r == 0)
                        r = consume(s, current, offset, buffer->data + at, (size_t) length, piece, context, e);
                current = blob_range_close(current);
                offset += length;
        }
        return r;
}
