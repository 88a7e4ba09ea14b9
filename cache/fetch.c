/* SPDX-License-Identifier: Apache-2.0 */

#include <stdatomic.h>
#include <string.h>

#include "fetch_internal.h"
#include "regfs/log.h"

#define WINDOW_MIN (2 * MIB)
#define WINDOW_MAX (16 * MIB)

/* Refcounted: its caller holds one reference, each want another. */
struct fetch_read {
        atomic_uint references;
        struct pool_buf *buffer;
        uint8_t *out;
        fetch_done_fn *done;
        void *context;
        size_t part_count;
        struct mutex lock;
        size_t remaining GUARDED_BY(lock); /* wants not yet answered, and one for fetch_start itself */
        bool finished GUARDED_BY(lock);    /* done was or is being called: nothing writes to `out` any more */
        struct fetch_part parts[];
};

/* ---- fetcher ---- */

int fetcher_new(const struct fetcher_options *options, struct fetcher **ret, struct error *e)
{
        struct fetcher *f = calloc(1, sizeof(*f));

        if (!f)
                return error_oom(e);
        f->options = *options;
        if (f->options.timeout_ms == 0)
                f->options.timeout_ms = 60000;
        f->in_flight = map_new();
        if (!f->in_flight) {
                free(f);
                return error_oom(e);
        }
        mutex_init(&f->lock);
        cond_init(&f->idle);
        for (size_t k = 0; k < ELEMENTSOF(f->streams); k++)
                f->streams[k].next_chunk = SIZE_MAX;
        *ret = f;
        return 0;
}

struct fetcher *fetcher_free(struct fetcher *f)
{
        if (!f)
                return NULL;
        mutex_lock(&f->lock);
        while (f->active > 0)
                cond_wait(&f->idle, &f->lock);
        map_free(f->in_flight, NULL);
        mutex_unlock(&f->lock);
        cond_destroy(&f->idle);
        mutex_destroy(&f->lock);
        free(f);
        return NULL;
}

void fetcher_get_stats(struct fetcher *f, struct fetch_stats *ret)
{
        mutex_lock(&f->lock);
        *ret = f->stats;
        mutex_unlock(&f->lock);
}

int fetch_cached(const struct fetch_part *parts, size_t count, uint8_t *out)
{
        for (size_t k = 0; k < count; k++) {
                int r = content_read(parts[k].fetcher->options.content, parts[k].offset, parts[k].length, out + parts[k].at);

                if (r < 0)
                        return r;
        }
        return 0;
}

/* ---- reads ---- */

struct fetch_read *fetch_read_unref(struct fetch_read *r)
{
        if (!r || atomic_fetch_sub(&r->references, 1) > 1)
                return NULL;
        pool_buf_unref(r->buffer);
        mutex_destroy(&r->lock);
        free(r);
        return NULL;
}

/* Ends the read with RESULT unless it has ended. */
static void read_end(struct fetch_read *r, int result, const struct error *e)
{
        bool first;

        mutex_lock(&r->lock);
        first = !r->finished;
        r->finished = true;
        mutex_unlock(&r->lock);
        if (first)
                r->done(r->context, result, e);
}

void fetch_cancel(struct fetch_read *r)
{
        struct error e = ERROR_INIT;

        error_set(&e, ERROR_OTHER, EINTR, "the read was interrupted");
        read_end(r, -EINTR, &e);
}

/* One thing that the read waited for is there; the last one ends it. */
static void read_arrived(struct fetch_read *r)
{
        bool last;

        mutex_lock(&r->lock);
        last = --r->remaining == 0;
        mutex_unlock(&r->lock);
        if (last)
                read_end(r, 0, NULL);
}

/* The bytes that PART and CHUNK have in common: false when there are none. */
static bool overlap(const struct fetch_part *part, const struct chunk *c, uint64_t *ret_offset, size_t *ret_length)
{
        uint64_t from = MAX(part->offset, c->content_offset);
        uint64_t to = MIN(part->offset + part->length, c->content_offset + c->content_length);

        if (from >= to)
                return false;
        *ret_offset = from;
        *ret_length = (size_t) (to - from);
        return true;
}

/* Copies what the read wants of a decoded chunk. A read that has ended is left alone: its memory may be gone. */
static void read_copy(struct fetch_read *r, const struct fetcher *f, const struct chunk *c, const uint8_t *data)
{
        mutex_lock(&r->lock);
        for (size_t k = 0; k < r->part_count && !r->finished; k++) {
                const struct fetch_part *part = &r->parts[k];
                uint64_t from;
                size_t n;

                if (part->fetcher == f && overlap(part, c, &from, &n))
                        memcpy(r->out + part->at + (from - part->offset), data + (from - c->content_offset), n);
        }
        mutex_unlock(&r->lock);
}

/* ---- what flights say ---- */

/* Takes the wants for CHUNK out of the flight, and the chunk out of the table. */
static struct want *take_wants(struct flight *flight, size_t chunk, bool failed)
{
        struct fetcher *f = flight->fetcher;
        struct want *taken = NULL, **link;

        mutex_lock(&f->lock);
        for (link = &flight->wants; *link;) {
                struct want *w = *link;

                if (w->chunk != chunk) {
                        link = &w->next;
                        continue;
                }
                *link = w->next;
                w->next = taken;
                taken = w;
        }
        if (map_get(f->in_flight, &chunk, sizeof(chunk)) == flight)
                map_remove(f->in_flight, &chunk, sizeof(chunk));
        if (failed)
                f->stats.failures++;
        else
                f->stats.chunks++;
        mutex_unlock(&f->lock);
        return taken;
}

void fetch_chunk_done(struct flight *flight, size_t chunk, const uint8_t *data, int result, const struct error *e)
{
        const struct chunk *c = &flight->fetcher->options.table->chunks[chunk];
        struct want *w = take_wants(flight, chunk, !data);

        while (w) {
                struct want *next = w->next;

                if (data) {
                        read_copy(w->read, flight->fetcher, c, data);
                        read_arrived(w->read);
                } else {
                        read_end(w->read, result, e);
                }
                fetch_read_unref(w->read);
                free(w);
                w = next;
        }
}

void fetch_flight_done(struct flight *flight)
{
        struct fetcher *f = flight->fetcher;

        free(flight);
        mutex_lock(&f->lock);
        f->active--;
        if (f->active == 0)
                cond_broadcast(&f->idle);
        mutex_unlock(&f->lock);
}

/* ---- starting flights ---- */

static bool is_absent(struct fetcher *f, size_t i) REQUIRES(f->lock)
{
        return f->options.table->chunks[i].codec != CODEC_ZEROS && !content_has(f->options.content, i) &&
               !map_get(f->in_flight, &i, sizeof(i));
}

static bool same_range(const struct chunk *a, const struct chunk *b)
{
        return (a->flags & b->flags & CHUNK_SLICE) && a->blob_offset == b->blob_offset;
}

/* The chunks that a flight for chunk I takes along: slices of one range travel together, neighbours up to the last one wanted
 * while they are absent and the request stays small. */
static void flight_extent(struct fetcher *f, size_t i, size_t last, size_t *ret_first, size_t *ret_count) REQUIRES(f->lock)
{
        const struct chunk *c = f->options.table->chunks;
        size_t total = f->options.table->chunk_count, first = i, end = i + 1;

        if (c[i].flags & CHUNK_SLICE) {
                while (first > 0 && same_range(&c[first - 1], &c[i]))
                        first--;
                while (end < total && same_range(&c[end], &c[i]))
                        end++;
        } else {
                uint64_t from = c[i].blob_offset;

                while (end <= last && end < total && !(c[end].flags & CHUNK_SLICE) && c[end].blob_offset >= from &&
                       c[end].blob_offset <= c[end - 1].blob_offset + c[end - 1].blob_length + FLIGHT_GAP_MAX &&
                       c[end].blob_offset + c[end].blob_length - from <= FLIGHT_BLOB_MAX && is_absent(f, end))
                        end++;
        }
        *ret_first = first;
        *ret_count = end - first;
}

/* Enters a flight that covers chunk I, and perhaps its neighbours up to LAST, in the table. The caller submits it.
 * NULL when out of memory. */
static struct flight *flight_new(struct fetcher *f, size_t i, size_t last) REQUIRES(f->lock)
{
        struct flight *flight = calloc(1, sizeof(*flight));

        if (!flight)
                return NULL;
        flight->work.run = flight_run;
        flight->fetcher = f;
        flight->request = log_current_request();
        flight_extent(f, i, last, &flight->first, &flight->count);
        for (size_t k = flight->first; k < flight->first + flight->count; k++) {
                /* Another chunk of a run of slices may have its own flight: that one stays where it is. */
                if (map_get(f->in_flight, &k, sizeof(k)))
                        continue;
                if (map_put(f->in_flight, &k, sizeof(k), flight, NULL) < 0) {
                        for (size_t undo = flight->first; undo < k; undo++)
                                if (map_get(f->in_flight, &undo, sizeof(undo)) == flight)
                                        map_remove(f->in_flight, &undo, sizeof(undo));
                        free(flight);
                        return NULL;
                }
        }
        f->active++;
        f->stats.flights++;
        return flight;
}

/* Lets READ wait for chunk I: joins its flight, or begins one that covers chunks up to LAST where it may. */
static int want_chunk(struct fetcher *f, struct fetch_read *read, size_t i, size_t last)
{
        struct want *w = calloc(1, sizeof(*w));
        struct flight *flight;
        uint64_t begun_by;
        bool joined;

        if (!w)
                return -ENOMEM;
        w->read = read;
        w->chunk = i;

        mutex_lock(&f->lock);
        flight = map_get(f->in_flight, &i, sizeof(i));
        joined = flight;
        if (!flight)
                flight = flight_new(f, i, last);
        if (!flight) {
                mutex_unlock(&f->lock);
                free(w);
                return -ENOMEM;
        }
        w->next = flight->wants;
        flight->wants = w;
        atomic_fetch_add(&read->references, 1);
        mutex_lock(&read->lock);
        read->remaining++;
        mutex_unlock(&read->lock);
        begun_by = flight->request;
        if (joined) {
                f->stats.joined++;
                /* Under the lock: the flight is in the table, so it is alive. */
                workers_raise(f->options.workers, &flight->work, PRIORITY_DEMAND);
        } else {
                workers_submit(f->options.workers, &flight->work, PRIORITY_DEMAND);
        }
        mutex_unlock(&f->lock);
        if (joined)
                log_debug("flight joined: chunk %zu of %s, begun by #%ju", i, f->options.blob->name, (uintmax_t) begun_by);
        return 0;
}

/* ---- readahead ---- */

/* A miss at chunk FIRST, the last chunk wanted being LAST: how many content bytes are worth fetching ahead? */
static uint64_t stream_window(struct fetcher *f, size_t first, size_t last)
{
        struct stream *s = NULL;
        uint64_t window;

        mutex_lock(&f->lock);
        for (size_t k = 0; k < ELEMENTSOF(f->streams) && !s; k++)
                if (f->streams[k].next_chunk == first)
                        s = &f->streams[k];
        if (s) {
                s->window = MIN(MAX(2 * s->window, (uint64_t) WINDOW_MIN), (uint64_t) WINDOW_MAX);
        } else {
                s = &f->streams[f->stream_turn++ % ELEMENTSOF(f->streams)];
                s->window = 0;
        }
        window = s->window;

        /* The next miss of this reader comes behind what is fetched now. */
        uint64_t end = f->options.table->chunks[last].content_offset + f->options.table->chunks[last].content_length + window;
        s->next_chunk = chunk_find(f->options.table, end);
        mutex_unlock(&f->lock);
        return window;
}

void fetch_ahead(struct fetcher *f, uint64_t offset, uint64_t length, enum priority priority)
{
        const struct chunk_table *t = f->options.table;
        size_t i = chunk_find(t, offset), last;
        uint64_t end = offset + length;

        if (i == t->chunk_count || length == 0)
                return;
        for (last = i; last + 1 < t->chunk_count && t->chunks[last + 1].content_offset < end; last++)
                ;
        mutex_lock(&f->lock);
        for (; i <= last; i++) {
                struct flight *flight;

                if (!is_absent(f, i))
                        continue;
                flight = flight_new(f, i, last);
                if (!flight)
                        break;
                workers_submit(f->options.workers, &flight->work, priority);
        }
        mutex_unlock(&f->lock);
}

/* ---- starting reads ---- */

/* Answers PART from the store where it can, and waits for the rest. */
static int start_part(struct fetch_read *read, const struct fetch_part *part)
{
        struct fetcher *f = part->fetcher;
        const struct chunk_table *t = f->options.table;
        size_t first_missing = SIZE_MAX, last = 0;
        uint64_t end = part->offset + part->length, window;
        size_t first = chunk_find(t, part->offset);

        /* What no chunk covers reads as zeros. */
        memset(read->out + part->at, 0, part->length);
        for (size_t i = first; i < t->chunk_count && t->chunks[i].content_offset < end; i++)
                last = i;
        for (size_t i = first; i < t->chunk_count && t->chunks[i].content_offset < end; i++) {
                uint64_t from;
                size_t n;
                int r;

                if (t->chunks[i].codec == CODEC_ZEROS || !overlap(part, &t->chunks[i], &from, &n))
                        continue;
                r = content_read(f->options.content, from, n, read->out + part->at + (from - part->offset));
                if (r == 0)
                        continue;
                if (first_missing == SIZE_MAX)
                        first_missing = i;
                r = want_chunk(f, read, i, last);
                if (r < 0)
                        return r;
        }
        if (first_missing == SIZE_MAX)
                return 0;
        window = stream_window(f, first_missing, last);
        if (window > 0)
                fetch_ahead(f, t->chunks[last].content_offset + t->chunks[last].content_length, window, PRIORITY_READAHEAD);
        return 0;
}

int fetch_start(const struct fetch_part *parts, size_t count, struct pool_buf *buffer, uint8_t *out, fetch_done_fn *done,
                void *context, struct fetch_read **ret, struct error *e)
{
        struct fetch_read *read = calloc(1, sizeof(*read) + count * sizeof(*parts));
        int r = 0;

        if (!read)
                return error_oom(e);
        atomic_init(&read->references, 1);
        mutex_init(&read->lock);
        read->buffer = buffer ? pool_buf_ref(buffer) : NULL;
        read->out = out;
        read->done = done;
        read->context = context;
        read->part_count = count;
        memcpy(read->parts, parts, count * sizeof(*parts));
        mutex_lock(&read->lock);
        read->remaining = 1;
        mutex_unlock(&read->lock);

        for (size_t k = 0; k < count && r == 0; k++)
                r = start_part(read, &read->parts[k]);
        if (r < 0) {
                bool ended;

                /* Flights that were begun go on without this reader. One may have ended it already: then it was told. */
                mutex_lock(&read->lock);
                ended = read->finished;
                read->finished = true;
                mutex_unlock(&read->lock);
                if (!ended) {
                        fetch_read_unref(read);
                        return error_oom(e);
                }
        }
        *ret = read;
        if (r == 0)
                read_arrived(read);
        return 0;
}

/* ---- waiting in the calling thread ---- */

struct waiter {
        struct mutex lock;
        struct cond done;
        bool finished GUARDED_BY(lock);
        int result GUARDED_BY(lock);
        struct error error GUARDED_BY(lock);
};

static void wake(void *context, int result, const struct error *e)
{
        struct waiter *w = context;

        mutex_lock(&w->lock);
        w->finished = true;
        w->result = result;
        if (e)
                w->error = *e;
        cond_signal(&w->done);
        mutex_unlock(&w->lock);
}

int fetch_wait(const struct fetch_part *parts, size_t count, uint8_t *out, struct error *e)
{
        struct waiter w = { .lock = MUTEX_INIT };
        struct fetch_read *read;
        int r;

        cond_init(&w.done);
        LOG_SCOPE(log_next_request(), NULL);
        r = fetch_start(parts, count, NULL, out, wake, &w, &read, e);
        if (r == 0) {
                mutex_lock(&w.lock);
                while (!w.finished)
                        cond_wait(&w.done, &w.lock);
                r = w.result;
                if (r < 0 && e)
                        *e = w.error;
                mutex_unlock(&w.lock);
                fetch_read_unref(read);
        }
        cond_destroy(&w.done);
        mutex_destroy(&w.lock);
        return r;
}
