/* SPDX-License-Identifier: Apache-2.0 */

/* What a worker does for one flight: blob range → decode → verify → store → wake, chunk by chunk while the range
 * arrives. */

#include <stdio.h>
#include <string.h>

#include "fetch_internal.h"
#include "regfs/codec.h"
#include "regfs/log.h"

/* Slices may be decoded from a range that is too long for one buffer: it comes in requests of this size, or up to
 * twice that. */
#define STREAM_REQUEST (1 * MIB)
/* The range of slices is waited for in pieces that are worth a decoder's while. */
#define SLICE_PIECE (64 * KIB)

/* Bytes of the blob from `offset` on, on their way into the start of `buffer`; behind `room` bytes a chunk is
 * decoded. */
struct arrival {
        struct flight *flight;
        struct span rows; /* of the flight, and their range, which holds all that is absent of them */
        struct blob_range *range;
        struct pool_buf *buffer;
        size_t room;
        uint64_t offset; /* of the range in the blob */
        uint64_t length;
        uint64_t received;
        bool abandoned; /* a range was closed before its end: something may still write into the buffer */
        bool bad;       /* chunks remain that can't be had from their range */
        size_t first_bad;
        struct error cause;
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

static uint32_t largest_content(const struct arrival *a)
{
        uint32_t largest = 0;

        for (size_t i = a->rows.first; i < a->rows.end; i++)
                if (chunk_row(a->flight, i)->codec != CODEC_ZEROS)
                        largest = MAX(largest, chunk_row(a->flight, i)->content_length);
        return largest;
}

/* How much of the range is asked for at once: all of it, or an even part of what is too long for that. */
static size_t request_max(const struct arrival *a)
{
        uint64_t length = a->rows.to - a->rows.from, parts = length / STREAM_REQUEST;

        if (length <= FLIGHT_BLOB_MAX || !(chunk_row(a->flight, a->rows.first)->flags & CHUNK_SLICE))
                return (size_t) length;
        return (size_t) ((length + parts - 1) / parts);
}

/* One buffer for everything: a range, and one decoded chunk. Waiting for it needs no patience: who has room gives it
 * back, and a slow link is no error. */
static int arrival_init(struct arrival *a, struct error *e)
{
        const struct fetcher_options *o = &a->flight->fetcher->options;

        a->room = request_max(a);
        return pool_get(o->pool, a->room + largest_content(a), DEADLINE_NEVER, &a->buffer, e);
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

/* Asks for the blob from OFFSET up to END, or as much of it as there is room for. */
static int arrival_open(struct arrival *a, uint64_t offset, uint64_t end, struct error *e)
{
        const struct fetcher_options *o = &a->flight->fetcher->options;
        uint64_t length = MIN(end - offset, (uint64_t) a->room);
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
        a->flight->fetcher->stats.requests++;
        a->flight->fetcher->stats.bytes += length;
        mutex_unlock(&a->flight->fetcher->lock);
        return 0;
}

static bool arrival_holds(const struct arrival *a, uint64_t offset, uint64_t length)
{
        return a->range && offset >= a->offset && range_fits(offset - a->offset, length, a->length);
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
        f->keeps_nothing = r < 0 && r != -EAGAIN;
        tell = f->keeps_nothing && r != -EROFS && r != -EDQUOT && !f->failure_told;
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

/* Nothing is to be done about chunk I: it is not the flight's, or in the store, from a flight or a process that was
 * faster. Then whoever waits for it gets it. */
static bool settled(struct flight *flight, size_t i, uint8_t *out)
{
        const struct chunk *c = chunk_row(flight, i);

        if (!fetch_chunk_expected(flight, i))
                return true;
        if (!content_has(flight->fetcher->options.content, i))
                return false;
        if (!fetch_chunk_wanted(flight, i))
                return true;
        if (content_read(flight->fetcher->options.content, c->content_offset, c->content_length, out) < 0)
                return false;
        fetch_chunk_done(flight, i, out);
        return true;
}

/* What has failed for good. Where there is another road, it is taken when the flight's other chunks are there. */
static void found_bad(struct arrival *a, size_t first, size_t end, const struct error *e)
{
        if (!a->flight->fetcher->options.recover) {
                fetch_chunks_failed(a->flight, first, end, -EBADMSG, e);
                return;
        }
        if (!a->bad) {
                a->cause = *e;
                a->first_bad = first;
        }
        a->bad = true;
}

/* What was there when the range was claimed may be gone. It is not in the range: whoever waits for it waits until the
 * flight comes back. */
static bool is_outside(const struct arrival *a, uint64_t from, uint64_t to)
{
        return from < a->rows.from || to > a->rows.to;
}

static int try_chunk(struct arrival *a, const struct chunk *c, uint64_t end, struct error *e)
{
        int r = 0;

        if (!arrival_holds(a, c->blob_offset, c->blob_length))
                r = arrival_open(a, c->blob_offset, end, e);
        if (r == 0)
                r = arrival_wait(a, c->blob_offset + c->blob_length - a->offset, e);
        return r == 0 ? decode(a, c, e) : r;
}

/* Wrong bytes came after so many attempts to get others. A file may have been read while it was written: once. */
static bool ask_anew(struct arrival *a, unsigned attempts)
{
        return attempts < MAX(blob_doubt(a->flight->fetcher->options.blob), 1U);
}

/* Chunk I out of the range that is arriving, where those from NEXT on are not settled yet. Bytes that are wrong are
 * asked for once more, in a request of their own; that ends the common range, and the next unit begins another one for
 * all that is left. Returns 0, or -errno when nothing else comes either. */
static int fetch_chunk(struct arrival *a, size_t i, size_t next, struct error *e)
{
        const struct chunk *c = chunk_row(a->flight, i);
        bool kept;
        int r;

        if (settled(a->flight, i, arrival_out(a)) || is_outside(a, c->blob_offset, c->blob_offset + c->blob_length))
                return 0;
        r = try_chunk(a, c, a->rows.to, e);
        for (unsigned attempt = 0; r == -EBADMSG && ask_anew(a, attempt); attempt++) {
                log_warning("%s: fetched once more", e->message);
                count_refetch(a->flight);
                arrival_close(a);
                r = try_chunk(a, c, c->blob_offset + c->blob_length, e);
        }
        if (r == -EBADMSG) {
                found_bad(a, i, i + 1, e);
                return 0;
        }
        if (r < 0)
                return r;
        kept = keep(a->flight, i, arrival_out(a));
        fetch_chunk_done(a->flight, i, arrival_out(a));
        if (!kept)
                (void) fetch_flight_cut(a->flight, i > next ? next : next + 1);
        return 0;
}

/* Chunks of the rows from NEXT on whose bytes have come and that somebody waits for: they take precedence over what is
 * carried along. Behind one that is bad everything is done in its order. */
static int fetch_wanted(struct arrival *a, size_t next, struct error *e)
{
        struct error ignored = ERROR_INIT;
        size_t i;
        int r = 0;

        /* What is wrong with the range is found by who needs its bytes. */
        if (a->range)
                (void) blob_range_wait(a->range, a->received, &a->received, &ignored);
        while (r == 0 && a->range && !a->bad &&
               fetch_chunk_ready(a->flight, next, a->rows.end, a->offset, a->offset + a->received, &i))
                r = fetch_chunk(a, i, next, e);
        return r;
}

/* ---- slices ---- */

/* The slices of one range, decoded in order from its start. */
struct slices {
        struct arrival *arrival;
        struct span unit;
        size_t next;  /* the slice to come */
        uint64_t end; /* of what is asked for: the range, or all that is left of the flight */
        bool again;   /* the range is read once more: what is wrong now stays wrong */
};

static int feed_slices(void *context, uint64_t offset, const uint8_t **ret_data, size_t *ret_length, struct error *e)
{
        struct slices *s = context;
        struct arrival *a = s->arrival;
        uint64_t at = s->unit.from + offset;
        int r;

        if (at >= s->unit.to) {
                *ret_length = 0;
                return 0;
        }
        if (!arrival_holds(a, at, 1)) {
                r = arrival_open(a, at, s->end, e);
                if (r < 0)
                        return r;
        }
        r = arrival_wait(a, MIN(at - a->offset + SLICE_PIECE, a->length), e);
        if (r < 0)
                return r;
        *ret_data = arrival_data(a, at);
        *ret_length = (size_t) (MIN(a->offset + a->received, s->unit.to) - at);
        return 0;
}

static int deliver_slice(void *context, const struct chunk *chunk, const uint8_t *data, struct error *e)
{
        struct slices *s = context;
        struct flight *flight = s->arrival->flight;
        size_t i = s->next;
        bool kept;
        int r;

        r = verify(flight, chunk, data, chunk->content_length, "digest of the content", e);
        if (r < 0 && (r != -EBADMSG || !s->again))
                return r;
        s->next++;
        if (r < 0) {
                found_bad(s->arrival, i, i + 1, e);
                return 0;
        }
        kept = content_has(flight->fetcher->options.content, i) || keep(flight, i, data);
        fetch_chunk_done(flight, i, data);
        return !kept && fetch_flight_cut(flight, s->next);
}

/* Decodes from the start of the range; what was delivered before is passed over. */
static int decode_slices(struct slices *s, struct error *e)
{
        struct flight *flight = s->arrival->flight;
        int r = 0;

        /* A range that is opened behind one that was abandoned renews the buffer. From here on none is abandoned, so that
         * the decoder's output stays where it is. */
        if (!arrival_holds(s->arrival, s->unit.from, 1))
                r = arrival_open(s->arrival, s->unit.from, s->end, e);
        if (r < 0)
                return r;
        return codec_decode_slices(flight->fetcher->options.table, chunk_row(flight, s->next), s->unit.end - s->next,
                                   feed_slices, s, arrival_out(s->arrival), deliver_slice, s, e);
}

/* As fetch_chunk, for the slices of UNIT. */
static int fetch_slices(struct arrival *a, const struct span *unit, struct error *e)
{
        struct slices s = { .arrival = a, .unit = *unit, .next = unit->first, .end = a->rows.to };
        int r;

        while (s.next < unit->end && settled(a->flight, s.next, arrival_out(a)))
                s.next++;
        if (s.next == unit->end || is_outside(a, unit->from, unit->to))
                return 0;
        r = decode_slices(&s, e);
        for (unsigned attempt = 0; r == -EBADMSG && ask_anew(a, attempt); attempt++) {
                log_warning("%s: read once more", e->message);
                count_refetch(a->flight);
                s.again = true;
                s.end = unit->to;
                arrival_close(a);
                r = decode_slices(&s, e);
        }
        if (r == -EBADMSG) {
                found_bad(a, s.next, unit->end, e);
                return 0;
        }
        return r;
}

/* ---- all of it ---- */

/* Returns 0, or -errno when the rest of the flight has failed. */
static int run_units(struct arrival *a)
{
        const struct chunk_table *t = a->flight->fetcher->options.table;
        size_t i = a->rows.first, end = a->rows.end;
        struct error e = ERROR_INIT;
        int r;

        r = arrival_init(a, &e);
        if (r < 0)
                fail_from(a->flight, i, r, &e);
        /* The flight may be cut on the way. */
        while (r == 0 && i < MIN(end, a->flight->first + a->flight->count)) {
                struct span unit = plan_unit(t, i);

                r = fetch_wanted(a, i, &e);
                if (r == 0 && t->chunks[i].flags & CHUNK_SLICE)
                        r = fetch_slices(a, &unit, &e);
                else if (r == 0 && !(a->bad && a->first_bad == i))
                        r = fetch_chunk(a, i, i, &e);
                if (r < 0)
                        fail_from(a->flight, i, r, &e);
                i = unit.end;
        }
        arrival_clear(a);
        return r;
}

/* Brings chunk I, which CAUSE says can't be had from its range, by the other road, when somebody waits for it. */
static void recover(struct flight *flight, size_t i, const struct error *cause)
{
        const struct fetcher_options *o = &flight->fetcher->options;
        const struct chunk *c = chunk_row(flight, i);
        _cleanup_free_ uint8_t *out = NULL;
        struct error e = ERROR_INIT;
        int r;

        if (!fetch_chunk_wanted(flight, i))
                return;
        out = malloc(c->content_length);
        r = out ? o->recover(o->recover_context, c->content_offset, c->content_length, out, &e) : error_oom(&e);
        if (r < 0) {
                error_prefix(&e, "%s", cause->message);
                fetch_chunks_failed(flight, i, i + 1, r, &e);
                return;
        }
        if (fetch_chunk_distrust(flight, i))
                log_warning("%s: the layer's index is wrong, such content is had without it", cause->message);
        fetch_chunk_done(flight, i, out);
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

static void recover_rows(struct flight *flight, size_t first, size_t end, const struct error *cause)
{
        for (size_t i = first; i < end; i++)
                recover(flight, i, cause);
}

static bool wants_any(struct flight *flight, const struct span *rows)
{
        bool any = false;

        for (size_t i = rows->first; i < rows->end; i++)
                any |= fetch_chunk_wanted(flight, i);
        return any;
}

/* Rows that are there, and rows that were claimed. */
static int run_rows(struct flight *flight, const struct span *rows)
{
        struct arrival a = { .flight = flight, .rows = *rows };
        int r;

        if (rows->from == rows->to && !wants_any(flight, rows))
                return 0;
        r = run_units(&a);
        claim_end(flight);
        if (a.bad)
                recover_rows(flight, rows->first, rows->end, &a.cause);
        return r;
}

static void run_flight(struct flight *flight)
{
        size_t i = flight->first;
        struct span rows;
        int r = 0;

        while (r == 0 && claim_next(flight, &i, &rows)) {
                r = run_rows(flight, &rows);
                claim_end(flight);
        }
}

/* Its chunk is not even asked for. */
static void run_distrusted(struct flight *flight)
{
        struct error e = ERROR_INIT;

        error_set(&e, ERROR_BAD_DATA, EBADMSG, "%s: bytes %ju-%ju were wrong before",
                  flight->fetcher->options.blob->name, (uintmax_t) flight->from, (uintmax_t) (flight->to - 1));
        recover_rows(flight, flight->first, flight->first + flight->count, &e);
}

void flight_run(struct work *work)
{
        struct flight *flight = (struct flight *) ((char *) work - offsetof(struct flight, work));
        uint64_t begin = clock_ms();
        char object[400];

        snprintf(object, sizeof(object), "%s", flight->fetcher->options.blob->name);
        LOG_SCOPE(flight->request, object);
        log_debug("flight begins: chunks %zu-%zu, blob bytes %ju-%ju", flight->first, flight->first + flight->count - 1,
                  (uintmax_t) flight->from, (uintmax_t) (flight->to - 1));
        if (flight->distrusted)
                run_distrusted(flight);
        else
                run_flight(flight);
        if (claim_come_back(flight))
                return;
        log_end(flight, begin);
        fetch_flight_done(flight);
}
