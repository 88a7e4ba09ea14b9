/* SPDX-License-Identifier: Apache-2.0 */

/* What a worker does for one flight: blob range → decode → verify → store → wake, chunk by chunk while the range
 * arrives. */

#include <stdio.h>
#include <string.h>

#include "fetch_internal.h"
#include "regfs/codec.h"
#include "regfs/log.h"

/* Slices are decoded from a stream that may be long: it passes through a window of this size. */
#define SLICE_WINDOW (1 * MIB)
/* … and is waited for in pieces that are worth a decoder's while. */
#define SLICE_PIECE (64 * KIB)

/* Bytes of the blob from `offset` on, on their way into the start of `buffer`; behind `room` bytes a chunk is
 * decoded. */
struct arrival {
        struct flight *flight;
        struct blob_range *range;
        struct pool_buf *buffer;
        size_t room;
        uint64_t offset; /* of the range in the blob */
        uint64_t length;
        uint64_t received;
        bool abandoned; /* a range was closed before its end: something may still write into the buffer */
};

static const struct chunk *chunk_row(const struct flight *flight, size_t i)
{
        return &flight->fetcher->options.table->chunks[i];
}

static void fail_from(struct flight *flight, size_t i, int result, const struct error *e)
{
        fetch_chunks_failed(flight, i, flight->first + flight->count, result, e);
}

/* ---- the range ---- */

static uint32_t largest_content(const struct flight *flight)
{
        uint32_t largest = 0;

        for (size_t i = flight->first; i < flight->first + flight->count; i++)
                largest = MAX(largest, chunk_row(flight, i)->content_length);
        return largest;
}

static uint64_t range_end(const struct flight *flight)
{
        uint64_t end = 0;

        for (size_t i = flight->first; i < flight->first + flight->count; i++)
                end = MAX(end, chunk_row(flight, i)->blob_offset + chunk_row(flight, i)->blob_length);
        return end;
}

/* One buffer for everything: a range of at most ROOM bytes, and one decoded chunk. Waiting for it needs no patience:
 * who has room gives it back, and a slow link is no error. */
static int arrival_init(struct arrival *a, struct flight *flight, size_t room, struct error *e)
{
        const struct fetcher_options *o = &flight->fetcher->options;

        a->flight = flight;
        a->room = room;
        return pool_get(o->pool, room + largest_content(flight), DEADLINE_NEVER, &a->buffer, e);
}

static void arrival_close(struct arrival *a)
{
        if (a->range && a->received < a->length)
                a->abandoned = true;
        a->range = blob_range_close(a->range);
}

static void arrival_clear(struct arrival *a)
{
        arrival_close(a);
        a->buffer = pool_buf_unref(a->buffer);
}

/* A transfer that was left alone keeps its buffer until it has truly ended: the next one writes elsewhere. */
static int arrival_renew(struct arrival *a, struct error *e)
{
        const struct fetcher_options *o = &a->flight->fetcher->options;
        size_t size = a->buffer->size;

        a->buffer = pool_buf_unref(a->buffer);
        a->abandoned = false;
        return pool_get(o->pool, size, DEADLINE_NEVER, &a->buffer, e);
}

static int arrival_open(struct arrival *a, uint64_t offset, uint64_t length, struct error *e)
{
        const struct fetcher_options *o = &a->flight->fetcher->options;
        int r;

        arrival_close(a);
        if (a->abandoned || !a->buffer) {
                r = arrival_renew(a, e);
                if (r < 0)
                        return r;
        }
        r = blob_range_open(o->blob, offset, length, a->buffer, 0, o->timeout_ms, &a->range, e);
        if (r < 0)
                return r;
        a->offset = offset;
        a->length = length;
        a->received = 0;
        mutex_lock(&a->flight->fetcher->lock);
        a->flight->fetcher->stats.bytes += length;
        mutex_unlock(&a->flight->fetcher->lock);
        return 0;
}

/* Waits until the first N bytes of the range are there. A range that fails is over. */
static int arrival_wait(struct arrival *a, uint64_t n, struct error *e)
{
        int r = a->received >= n ? 0 : blob_range_wait(a->range, n, &a->received, e);

        if (r < 0)
                arrival_close(a);
        return r;
}

static const uint8_t *arrival_data(const struct arrival *a, uint64_t blob_offset)
{
        return a->buffer->data + (blob_offset - a->offset);
}

static uint8_t *arrival_out(const struct arrival *a)
{
        return a->buffer->data + a->room;
}

/* ---- one chunk that stands alone ---- */

/* The blob range of one chunk, all there, as the codec wants to be fed. */
struct whole {
        const uint8_t *data;
        uint64_t length;
};

static int feed_whole(void *context, uint64_t offset, const uint8_t **ret_data, size_t *ret_length, struct error *e)
{
        const struct whole *w = context;

        (void) e;
        *ret_data = w->data + offset;
        *ret_length = (size_t) (w->length - offset);
        return 0;
}

static int verify(struct flight *flight, const struct chunk *c, const uint8_t *data, size_t n, const char *what,
                  struct error *e)
{
        struct digest expected = { .algorithm = DIGEST_SHA256 };
        char name[400];

        if (c->flags & CHUNK_NO_DIGEST)
                return 0;
        memcpy(expected.bytes, c->digest, SHA256_SIZE);
        snprintf(name, sizeof(name), "%s: %s of bytes %ju-%ju", flight->fetcher->options.blob->name, what,
                 (uintmax_t) c->blob_offset, (uintmax_t) (c->blob_offset + c->blob_length - 1));
        return digest_verify(&expected, data, n, name, e);
}

/* Verifies and decodes chunk C, whose blob range has arrived. */
static int decode(struct arrival *a, const struct chunk *c, struct error *e)
{
        uint8_t *out = arrival_out(a);
        struct flight *flight = a->flight;
        struct whole whole = { .data = arrival_data(a, c->blob_offset), .length = c->blob_length };
        int r;

        if (!(c->flags & CHUNK_DIGEST_CONTENT)) {
                r = verify(flight, c, whole.data, (size_t) whole.length, "digest", e);
                if (r < 0)
                        return r;
        }
        r = codec_decode(flight->fetcher->options.table, c, feed_whole, &whole, out, e);
        if (r < 0)
                return error_prefix(e, "%s: bytes %ju-%ju", flight->fetcher->options.blob->name,
                                    (uintmax_t) c->blob_offset, (uintmax_t) (c->blob_offset + c->blob_length - 1));
        if (c->flags & CHUNK_DIGEST_CONTENT)
                return verify(flight, c, out, c->content_length, "digest of the content", e);
        return 0;
}

/* A store that can't take the chunk costs speed only; it is said once. True when the chunk is kept. */
static bool keep(struct flight *flight, size_t i, const uint8_t *data)
{
        struct fetcher *f = flight->fetcher;
        int r = content_write(f->options.content, i, data);
        bool tell;

        mutex_lock(&f->lock);
        f->keeps_nothing = r < 0;
        tell = r < 0 && r != -EROFS && !f->failure_told;
        if (tell)
                f->failure_told = true;
        mutex_unlock(&f->lock);
        if (tell)
                log_warning("%s: content is not kept in the store: %s", f->options.blob->name, strerror(-r));
        return r >= 0;
}

static void count_refetch(struct flight *flight)
{
        mutex_lock(&flight->fetcher->lock);
        flight->fetcher->stats.refetches++;
        mutex_unlock(&flight->fetcher->lock);
}

/* Chunk I out of the range that is arriving. Bytes that are wrong are asked for once more, in a request of their
 * own; that ends the common range, and the next chunk begins another one for all that is left. */
static int fetch_chunk(struct arrival *a, size_t i, struct error *e)
{
        const struct chunk *c = chunk_row(a->flight, i);
        int r;

        if (!a->range || c->blob_offset < a->offset || c->blob_offset + c->blob_length > a->offset + a->length) {
                r = arrival_open(a, c->blob_offset, range_end(a->flight) - c->blob_offset, e);
                if (r < 0)
                        return r;
        }
        r = arrival_wait(a, c->blob_offset + c->blob_length - a->offset, e);
        if (r == 0)
                r = decode(a, c, e);
        if (r != -EBADMSG)
                return r;

        log_warning("%s: fetched once more", e->message);
        count_refetch(a->flight);
        r = arrival_open(a, c->blob_offset, c->blob_length, e);
        if (r == 0)
                r = arrival_wait(a, c->blob_length, e);
        return r < 0 ? r : decode(a, c, e);
}

/* Somebody else, another process perhaps, has stored the chunk since the flight was planned. */
static bool deliver_stored(struct flight *flight, size_t i, uint8_t *out)
{
        const struct chunk *c = chunk_row(flight, i);

        if (!content_has(flight->fetcher->options.content, i) ||
            content_read(flight->fetcher->options.content, c->content_offset, c->content_length, out) < 0)
                return false;
        fetch_chunk_done(flight, i, out);
        return true;
}

static void run_chunks(struct flight *flight)
{
        uint64_t length = range_end(flight) - chunk_row(flight, flight->first)->blob_offset;
        struct error e = ERROR_INIT;
        struct arrival a = { 0 };
        size_t i = flight->first;
        int r;

        r = arrival_init(&a, flight, (size_t) length, &e);
        if (r < 0) {
                fail_from(flight, i, r, &e);
                return;
        }
        for (; i < flight->first + flight->count; i++) {
                if (deliver_stored(flight, i, arrival_out(&a)))
                        continue;
                /* What is not stored yet travels in one request, from here on. */
                r = fetch_chunk(&a, i, &e);
                if (r == 0) {
                        bool kept = keep(flight, i, arrival_out(&a));

                        fetch_chunk_done(flight, i, arrival_out(&a));
                        if (!kept && fetch_flight_cut(flight, i + 1))
                                break;
                } else if (r == -EBADMSG) {
                        /* This one is bad for good; its neighbours may be right. */
                        fetch_chunks_failed(flight, i, i + 1, r, &e);
                } else {
                        fail_from(flight, i, r, &e);
                        break;
                }
        }
        arrival_clear(&a);
}

/* ---- slices ---- */

/* The slices of one range, decoded in order from its start. */
struct slices {
        struct arrival arrival;
        uint64_t begin, length; /* of the blob range */
        size_t next;            /* the slice to come */
        bool again;             /* the range is read once more: what is wrong now stays wrong */
};

static int feed_window(void *context, uint64_t offset, const uint8_t **ret_data, size_t *ret_length, struct error *e)
{
        struct slices *s = context;
        struct arrival *a = &s->arrival;
        uint64_t at = s->begin + offset;
        int r;

        if (offset >= s->length) {
                *ret_length = 0;
                return 0;
        }
        if (!a->range || at < a->offset || at >= a->offset + a->length) {
                r = arrival_open(a, at, MIN((uint64_t) SLICE_WINDOW, s->length - offset), e);
                if (r < 0)
                        return r;
        }
        r = arrival_wait(a, MIN(at - a->offset + SLICE_PIECE, a->length), e);
        if (r < 0)
                return r;
        *ret_data = arrival_data(a, at);
        *ret_length = (size_t) (a->offset + a->received - at);
        return 0;
}

static int deliver_slice(void *context, const struct chunk *chunk, const uint8_t *data, struct error *e)
{
        struct slices *s = context;
        struct flight *flight = s->arrival.flight;
        size_t i = s->next;
        bool kept;
        int r;

        r = verify(flight, chunk, data, chunk->content_length, "digest of the content", e);
        if (r < 0 && (r != -EBADMSG || !s->again))
                return r;
        s->next++;
        if (r < 0) {
                fetch_chunks_failed(flight, i, i + 1, r, e);
                return 0;
        }
        kept = content_has(flight->fetcher->options.content, i) || keep(flight, i, data);
        fetch_chunk_done(flight, i, data);
        return !kept && fetch_flight_cut(flight, s->next);
}

/* Decodes from the start of the range; what was delivered before is passed over. */
static int decode_slices(struct slices *s, struct error *e)
{
        struct flight *flight = s->arrival.flight;

        return codec_decode_slices(flight->fetcher->options.table, chunk_row(flight, s->next),
                                   flight->first + flight->count - s->next, feed_window, s, arrival_out(&s->arrival),
                                   deliver_slice, s, e);
}

static void run_slices(struct flight *flight)
{
        const struct chunk *first = chunk_row(flight, flight->first);
        struct slices s = { .begin = first->blob_offset, .length = first->blob_length, .next = flight->first };
        struct error e = ERROR_INIT;
        int r;

        r = arrival_init(&s.arrival, flight, SLICE_WINDOW, &e);
        if (r == 0)
                r = decode_slices(&s, &e);
        if (r == -EBADMSG) {
                log_warning("%s: read once more", e.message);
                count_refetch(flight);
                s.again = true;
                arrival_close(&s.arrival);
                r = arrival_renew(&s.arrival, &e);
                if (r == 0)
                        r = decode_slices(&s, &e);
        }
        if (r < 0)
                fail_from(flight, s.next, r, &e);
        arrival_clear(&s.arrival);
}

/* With the figures of the moment: whoever looks for a wait finds what was full. */
static void log_end(const struct flight *flight, uint64_t begin)
{
        const struct fetcher_options *o = &flight->fetcher->options;
        struct workers_stats w;
        struct pool_stats p;

        if (!log_enabled(LOG_LEVEL_DEBUG))
                return;
        pool_get_stats(o->pool, &p);
        workers_get_stats(o->workers, &w);
        log_debug(
                "flight ends after %ju ms; pool: %zu of %zu bytes out, %zu waiting; workers: %u busy, %u+%u+%u queued",
                (uintmax_t) (clock_ms() - begin), p.out, p.limit, p.waiting, w.busy[0] + w.busy[1] + w.busy[2],
                w.queued[0], w.queued[1], w.queued[2]);
}

void flight_run(struct work *work)
{
        struct flight *flight = (struct flight *) ((char *) work - offsetof(struct flight, work));
        const struct chunk *first = chunk_row(flight, flight->first);
        uint64_t begin = clock_ms();
        char object[400];

        snprintf(object, sizeof(object), "%s", flight->fetcher->options.blob->name);
        LOG_SCOPE(flight->request, object);
        log_debug("flight begins: chunks %zu-%zu, blob bytes %ju-%ju", flight->first, flight->first + flight->count - 1,
                  (uintmax_t) first->blob_offset, (uintmax_t) (range_end(flight) - 1));
        if (first->flags & CHUNK_SLICE)
                run_slices(flight);
        else
                run_chunks(flight);
        log_end(flight, begin);
        fetch_flight_done(flight);
}
