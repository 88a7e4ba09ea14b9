/* SPDX-License-Identifier: Apache-2.0 */

#include <stdatomic.h>
#include <string.h>

#include "fetch_internal.h"
#include "regfs/log.h"

/* Refcounted: its caller holds one reference, each want another, and fetch_start one while it runs. */
struct fetch_read {
        atomic_uint references;
        uint8_t *out;
        fetch_done_fn *done;
        void *context;
        struct mutex lock;
        struct pool_buf *buffer GUARDED_BY(lock); /* until the read is finished */
        size_t remaining GUARDED_BY(lock);        /* wants not yet answered, and one for fetch_start itself */
        bool starting GUARDED_BY(lock);           /* fetch_start writes to `out`: the read must not finish yet */
        bool finished GUARDED_BY(lock);           /* done was or is being called: nothing writes to `out` any more */
        int failure GUARDED_BY(lock);             /* the first one while starting, with its error */
        struct error error GUARDED_BY(lock);
        struct fetch_part parts[];
};

/* ---- fetcher ---- */

int fetcher_new(const struct fetcher_options *options, struct fetcher **ret, struct error *e)
{
        struct fetcher *f = calloc(1, sizeof(*f));
        struct pool_stats pool;

        if (!f)
                return error_oom(e);
        f->options = *options;
        if (f->options.timeout_ms == 0)
                f->options.timeout_ms = 60000;
        f->in_flight = map_new();
        f->distrusted = map_new();
        if (!f->in_flight || !f->distrusted) {
                map_free(f->in_flight, NULL);
                map_free(f->distrusted, NULL);
                free(f);
                return error_oom(e);
        }
        mutex_init(&f->lock);
        cond_init(&f->idle);
        for (size_t k = 0; k < STREAM_COUNT; k++)
                f->streams[k].next = SIZE_MAX;
        pool_get_stats(options->pool, &pool);
        f->keeps_nothing = !content_keeps(options->content);
        f->window_max = FLIGHT_BLOB_MAX;
        while (f->window_max > FLIGHT_WINDOW_MIN && f->window_max > pool.limit / 8)
                f->window_max /= 2;
        *ret = f;
        return 0;
}

struct fetcher *fetcher_free(struct fetcher *f)
{
        struct fetch_stats stats;

        if (!f)
                return NULL;
        mutex_lock(&f->lock);
        f->closing = true;
        while (f->active > 0)
                cond_wait(&f->idle, &f->lock);
        map_free(f->in_flight, NULL);
        map_free(f->distrusted, NULL);
        stats = f->stats;
        mutex_unlock(&f->lock);
        if (stats.requests > 0)
                log_debug("%s: %ju requests for %ju bytes brought %ju chunks of %ju bytes", f->options.blob->name,
                          (uintmax_t) stats.requests, (uintmax_t) stats.bytes, (uintmax_t) stats.chunks,
                          (uintmax_t) stats.content);
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
                int r = content_read(parts[k].fetcher->options.content, parts[k].offset, parts[k].length,
                                     out + parts[k].at);

                if (r < 0)
                        return r;
                plan_passed(parts[k].fetcher, parts[k].offset + parts[k].length);
        }
        return 0;
}

/* ---- reads ---- */

struct fetch_read *fetch_read_unref(struct fetch_read *r)
{
        struct pool_buf *buffer;

        if (!r || atomic_fetch_sub(&r->references, 1) > 1)
                return NULL;
        mutex_lock(&r->lock);
        buffer = r->buffer;
        mutex_unlock(&r->lock);
        pool_buf_unref(buffer);
        mutex_destroy(&r->lock);
        free(r);
        return NULL;
}

/* Ends the read with RESULT unless it has ended. A failure that comes while fetch_start still runs waits for it
 * there. */
static void read_end(struct fetch_read *r, int result, const struct error *e)
{
        struct pool_buf *buffer = NULL;
        bool ends;

        mutex_lock(&r->lock);
        ends = !r->starting && !r->finished;
        if (r->starting && r->failure == 0) {
                r->failure = result;
                r->error = *e;
        }
        if (ends) {
                r->finished = true;
                buffer = steal_ptr(r->buffer);
        }
        mutex_unlock(&r->lock);

        if (ends)
                r->done(r->context, result, e); /* may free R */
        pool_buf_unref(buffer);
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

/* Copies what PART wants of a decoded chunk. A read that has ended is left alone: its memory may be gone. */
static void read_copy(struct fetch_read *r, const struct fetch_part *part, const struct chunk *c, const uint8_t *data)
{
        uint64_t from;
        size_t n;

        if (!overlap(part, c, &from, &n))
                return;
        mutex_lock(&r->lock);
        if (!r->finished)
                memcpy(r->out + part->at + (from - part->offset), data + (from - c->content_offset), n);
        mutex_unlock(&r->lock);
}

/* ---- what flights say ---- */

void fetch_leave_table(struct fetcher *f, const struct flight *flight, size_t first, size_t end)
{
        for (size_t k = first; k < end; k++)
                if (map_get(f->in_flight, &k, sizeof(k)) == flight)
                        map_remove(f->in_flight, &k, sizeof(k));
}

/* Takes the wants for the chunks [first, end) out of the flight, and the chunks out of the table. */
static struct want *take_wants(struct fetcher *f, struct flight *flight, size_t first, size_t end) REQUIRES(f->lock)
{
        struct want *taken = NULL, **link;

        for (link = &flight->wants; *link;) {
                struct want *w = *link;

                if (w->chunk < first || w->chunk >= end) {
                        link = &w->next;
                        continue;
                }
                *link = w->next;
                w->next = taken;
                taken = w;
        }
        fetch_leave_table(f, flight, first, end);
        return taken;
}

void fetch_chunk_done(struct flight *flight, size_t chunk, const uint8_t *data)
{
        struct fetcher *f = flight->fetcher;
        const struct chunk *c = &f->options.table->chunks[chunk];
        struct want *w;

        mutex_lock(&f->lock);
        w = take_wants(f, flight, chunk, chunk + 1);
        f->stats.chunks++;
        f->stats.content += c->content_length;
        mutex_unlock(&f->lock);
        while (w) {
                struct want *next = w->next;

                read_copy(w->read, w->part, c, data);
                read_arrived(w->read);
                fetch_read_unref(w->read);
                free(w);
                w = next;
        }
}

bool fetch_chunk_expected(struct flight *flight, size_t chunk)
{
        struct fetcher *f = flight->fetcher;
        bool expected;

        mutex_lock(&f->lock);
        expected = map_get(f->in_flight, &chunk, sizeof(chunk)) == flight;
        mutex_unlock(&f->lock);
        return expected;
}

bool fetch_chunk_wanted(struct flight *flight, size_t chunk)
{
        struct fetcher *f = flight->fetcher;
        const struct want *w;

        mutex_lock(&f->lock);
        for (w = flight->wants; w && w->chunk != chunk; w = w->next)
                ;
        if (!w)
                fetch_leave_table(f, flight, chunk, chunk + 1);
        mutex_unlock(&f->lock);
        return w;
}

bool fetch_chunk_ready(struct flight *flight, size_t first, size_t end, uint64_t from, uint64_t to, size_t *ret)
{
        const struct chunk *chunks = flight->fetcher->options.table->chunks;
        struct fetcher *f = flight->fetcher;
        size_t ready = SIZE_MAX;

        mutex_lock(&f->lock);
        for (const struct want *w = flight->wants; w; w = w->next) {
                const struct chunk *c = &chunks[w->chunk];

                if (w->chunk >= first && w->chunk < end && !(c->flags & CHUNK_SLICE) && c->blob_offset >= from &&
                    c->blob_offset + c->blob_length <= to)
                        ready = MIN(ready, w->chunk);
        }
        mutex_unlock(&f->lock);
        *ret = ready;
        return ready != SIZE_MAX;
}

bool fetch_chunk_distrust(struct flight *flight, size_t chunk)
{
        struct fetcher *f = flight->fetcher;
        bool tell;

        mutex_lock(&f->lock);
        /* Where that is not remembered, the chunk is asked for in vain once more. */
        (void) map_put(f->distrusted, &chunk, sizeof(chunk), f, NULL);
        f->stats.recovered++;
        tell = !f->recovery_told;
        f->recovery_told = true;
        mutex_unlock(&f->lock);
        return tell;
}

void fetch_chunks_failed(struct flight *flight, size_t first, size_t end, int result, const struct error *e)
{
        struct fetcher *f = flight->fetcher;
        struct want *w;

        mutex_lock(&f->lock);
        w = take_wants(f, flight, first, end);
        f->stats.failures += end - first;
        if (f->filling && f->filling->code == 0)
                *f->filling = *e;
        mutex_unlock(&f->lock);
        while (w) {
                struct want *next = w->next;

                read_end(w->read, result, e);
                fetch_read_unref(w->read);
                free(w);
                w = next;
        }
}

bool fetch_flight_cut(struct flight *flight, size_t chunk)
{
        struct fetcher *f = flight->fetcher;
        bool cut;

        mutex_lock(&f->lock);
        cut = !flight->wants;
        if (cut) {
                fetch_leave_table(f, flight, chunk, flight->first + flight->count);
                flight->count = chunk > flight->first ? chunk - flight->first : 0;
        }
        mutex_unlock(&f->lock);
        return cut;
}

static bool is_closing(struct fetcher *f)
{
        bool closing;

        mutex_lock(&f->lock);
        closing = f->closing;
        mutex_unlock(&f->lock);
        return closing;
}

bool fetch_flight_narrow(struct flight *flight)
{
        struct fetcher *f = flight->fetcher;
        size_t begin = flight->first, behind = flight->first + flight->count, first = SIZE_MAX, end = 0;

        if (is_closing(f)) {
                struct error e = ERROR_INIT;

                error_set(&e, ERROR_OTHER, ECANCELED, "%s is being closed", f->options.blob->name);
                fetch_chunks_failed(flight, begin, behind, -ECANCELED, &e);
        }
        mutex_lock(&f->lock);
        for (const struct want *w = flight->wants; w; w = w->next) {
                first = MIN(first, w->chunk);
                end = MAX(end, w->chunk + 1);
        }
        if (end > 0) {
                fetch_leave_table(f, flight, begin, first);
                fetch_leave_table(f, flight, end, behind);
                flight->first = first;
                flight->count = end - first;
        } else {
                fetch_leave_table(f, flight, begin, behind);
        }
        mutex_unlock(&f->lock);
        return end > 0;
}

void fetch_flight_done(struct flight *flight)
{
        struct fetcher *f = flight->fetcher;

        free(flight);
        mutex_lock(&f->lock);
        f->active--;
        if (f->active == 0 || f->filling)
                cond_broadcast(&f->idle);
        mutex_unlock(&f->lock);
}

/* ---- starting flights ---- */

/* What a part of a read misses, and the flights that were begun for it: they are submitted when all of it waits
 * for them, so that none of them is over before. */
struct missing {
        struct fetch_read *read;
        const struct fetch_part *part;
        size_t last;  /* chunk of the part */
        size_t first; /* that a flight was begun for, or SIZE_MAX */
        size_t next;  /* behind the flights that were begun */
        struct flight *begun, **end_of_begun;
};

/* Lets the part wait for chunk I: joins its flight, or begins one that covers chunks up to the last where it may.
 * Returns 0, -EEXIST when a flight that has just ended stored the chunk (unless FETCH), or -ENOMEM. */
static int want_chunk(struct missing *m, size_t i, bool fetch)
{
        const struct fetch_part *part = m->part;
        struct fetch_read *read = m->read;
        struct fetcher *f = part->fetcher;
        struct want *w = calloc(1, sizeof(*w));
        struct flight *flight;
        uint64_t begun_by;
        bool joined, stored;

        if (!w)
                return -ENOMEM;
        w->read = read;
        w->part = part;
        w->chunk = i;

        mutex_lock(&f->lock);
        flight = map_get(f->in_flight, &i, sizeof(i));
        joined = flight;
        stored = !flight && !fetch && content_has(f->options.content, i);
        if (!flight && !stored)
                flight = plan_demand(f, i, m->last);
        if (!flight) {
                mutex_unlock(&f->lock);
                free(w);
                return stored ? -EEXIST : -ENOMEM;
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
                *m->end_of_begun = flight;
                m->end_of_begun = &flight->next;
                m->first = MIN(m->first, i);
                m->next = MAX(m->next, flight->first + flight->count);
        }
        mutex_unlock(&f->lock);
        if (joined)
                log_debug("flight joined: chunk %zu of %s, begun by #%ju", i, f->options.blob->name,
                          (uintmax_t) begun_by);
        return 0;
}

static void submit_begun(struct missing *m)
{
        for (struct flight *flight = m->begun, *next; flight; flight = next) {
                next = flight->next;
                workers_submit(flight->fetcher->options.workers, &flight->work, PRIORITY_DEMAND);
        }
}

/* ---- starting reads ---- */

/* What the part wants of chunk I: from the store, or by a flight. Returns 0 or -ENOMEM. */
static int start_chunk(struct missing *m, size_t i)
{
        const struct fetch_part *part = m->part;
        struct fetcher *f = part->fetcher;
        uint64_t from;
        size_t n;
        int r;

        if (f->options.table->chunks[i].codec == CODEC_ZEROS || !overlap(part, &f->options.table->chunks[i], &from, &n))
                return 0;
        for (int attempt = 0;; attempt++) {
                if (content_read(f->options.content, from, n, m->read->out + part->at + (from - part->offset)) == 0)
                        return 0;
                r = want_chunk(m, i, attempt > 0);
                if (r != -EEXIST)
                        return r;
        }
}

/* Answers PART from the store where it can, and waits for the rest. */
static int start_part(struct fetch_read *read, const struct fetch_part *part)
{
        const struct chunk_table *t = part->fetcher->options.table;
        size_t first = chunk_find(t, part->offset), end = plan_behind(t, part->offset + part->length);
        struct missing m = { .read = read, .part = part, .first = SIZE_MAX, .last = end - 1, .end_of_begun = &m.begun };
        int r = 0;

        /* What no chunk covers reads as zeros. */
        memset(read->out + part->at, 0, part->length);
        for (size_t i = first; i < end && r == 0; i++)
                r = start_chunk(&m, i);
        submit_begun(&m);
        if (r == 0 && m.first != SIZE_MAX)
                plan_ahead(part->fetcher, m.first, m.next);
        else if (r == 0)
                plan_passed(part->fetcher, part->offset + part->length);
        return r;
}

int fetch_start(const struct fetch_part *parts, size_t count, struct pool_buf *buffer, uint8_t *out,
                fetch_done_fn *done, void *context, struct fetch_read **ret, struct error *e)
{
        struct fetch_read *read = calloc(1, sizeof(*read) + count * sizeof(*parts));
        int r = 0, failure;

        if (!read)
                return error_oom(e);
        atomic_init(&read->references, 2);
        mutex_init(&read->lock);
        read->out = out;
        read->done = done;
        read->context = context;
        if (count > 0)
                memcpy(read->parts, parts, count * sizeof(*parts));
        mutex_lock(&read->lock);
        read->buffer = buffer ? pool_buf_ref(buffer) : NULL;
        read->remaining = 1;
        read->starting = true;
        mutex_unlock(&read->lock);

        for (size_t k = 0; k < count && r == 0; k++)
                r = start_part(read, &read->parts[k]);

        if (r == 0)
                *ret = read; /* done may be called from here on */
        mutex_lock(&read->lock);
        read->starting = false;
        read->finished = r < 0; /* then flights that were begun go on without this reader */
        failure = read->failure;
        mutex_unlock(&read->lock);
        if (r < 0) {
                fetch_read_unref(read);
                fetch_read_unref(read);
                return error_oom(e);
        }

        if (failure < 0)
                read_end(read, failure, &read->error); /* which nobody writes to any more */
        else
                read_arrived(read);
        fetch_read_unref(read);
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
