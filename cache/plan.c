/* SPDX-License-Identifier: Apache-2.0 */

/* What a flight takes along. A unit is what can be decoded by itself: a chunk, or a run of slices. For a unit that
 * somebody waits for, the absent units around it travel in the same request, within a window of the blob.
 *
 * Windows are aligned to their size, so whatever the order in which a layer is read, its windows leave no fragments
 * between them. They grow with what was asked for so far: who reads one file gets little more than that, who reads
 * everything gets large requests. */

#include "fetch_internal.h"
#include "regfs/log.h"

/* A blob of that size is one window. */
#define BLOB_SMALL (1 * MIB)
/* A request of that size is worth its round trip. */
#define REQUEST_WORTH (1 * MIB)
/* A longer flight begins at what is waited for, not at the start of its window. */
#define FLIGHT_CUT_MIN (3 * MIB)
/* What was fetched before is carried along once more up to this share of a flight. */
#define CARRIED_SHARE 64

/* Of blob bytes ahead of a sequential reader. */
#define AHEAD_MIN (1 * MIB)
#define AHEAD_MAX (8 * MIB)
/* A sequential reader skips a few chunks: files that another layer hides. */
#define STREAM_SKIP 8

/* Where a flight may extend to. */
struct window {
        uint64_t begin, end; /* units that begin there */
        uint64_t max;        /* bytes of the flight */
        size_t low, high;    /* rows */
};

/* ---- units ---- */

static bool same_range(const struct chunk *a, const struct chunk *b)
{
        return (a->flags & b->flags & CHUNK_SLICE) && a->blob_offset == b->blob_offset;
}

struct span plan_unit(const struct chunk_table *t, size_t i)
{
        const struct chunk *c = t->chunks;
        struct span u = {
                .first = i,
                .end = i + 1,
                .from = c[i].blob_offset,
                .to = c[i].blob_offset + c[i].blob_length,
        };

        if (!(c[i].flags & CHUNK_SLICE))
                return u;
        while (u.first > 0 && same_range(&c[u.first - 1], &c[i]))
                u.first--;
        while (u.end < t->chunk_count && same_range(&c[u.end], &c[i]))
                u.end++;
        return u;
}

static uint64_t span_length(const struct span *s)
{
        return s->to - s->from;
}

/* Slices whose range is longer than a flight pass through a small buffer, alone. */
static bool is_streamed(const struct chunk_table *t, const struct span *unit)
{
        return (t->chunks[unit->first].flags & CHUNK_SLICE) && span_length(unit) > FLIGHT_BLOB_MAX;
}

/* A chunk that had to be got by another road is not fetched again unless somebody wants it. */
static bool is_distrusted(struct fetcher *f, size_t i) REQUIRES(f->lock)
{
        return map_size(f->distrusted) > 0 && map_get(f->distrusted, &i, sizeof(i));
}

enum unit_state {
        UNIT_SETTLED, /* all there, or not to be fetched */
        UNIT_ABSENT,
        UNIT_UNDER_WAY, /* by another flight */
};

static enum unit_state chunk_state(struct fetcher *f, size_t i) REQUIRES(f->lock)
{
        if (content_has(f->options.content, i))
                return UNIT_SETTLED;
        if (map_get(f->in_flight, &i, sizeof(i)))
                return UNIT_UNDER_WAY;
        return is_distrusted(f, i) ? UNIT_SETTLED : UNIT_ABSENT;
}

static enum unit_state unit_state(struct fetcher *f, const struct span *unit) REQUIRES(f->lock)
{
        enum unit_state state = UNIT_SETTLED;

        for (size_t i = unit->first; i < unit->end && state != UNIT_UNDER_WAY; i++)
                state = MAX(state, chunk_state(f, i));
        return state;
}

/* ---- extents ---- */

/* The unit next to S, behind it or before it: false when there is none that a flight could take along, wherever it
 * lies and whatever its state. */
static bool next_unit(const struct chunk_table *t, const struct window *w, const struct span *s, bool forward,
                      struct span *ret)
{
        size_t i = forward ? s->end : s->first;
        uint64_t gap;

        if (forward) {
                while (i < w->high && t->chunks[i].codec == CODEC_ZEROS)
                        i++;
                if (i >= w->high)
                        return false;
        } else {
                while (i > w->low && t->chunks[i - 1].codec == CODEC_ZEROS)
                        i--;
                if (i-- <= w->low)
                        return false;
        }
        *ret = plan_unit(t, i);
        if (ret->first < w->low || ret->end > w->high || ret->from < w->begin || ret->from >= w->end ||
            is_streamed(t, ret))
                return false;
        /* Two neighbours of a gzip stream may share a byte. Others that overlap are no neighbours. */
        gap = forward ? ret->from - s->to : s->from - ret->to;
        return gap <= FLIGHT_GAP_MAX || gap == UINT64_MAX;
}

/* Extends S in one direction over absent units, and over what is there already (up to HOLE_MAX bytes in one place)
 * when there are absent ones behind. Adds what is carried in vain to *CARRIED. */
static void reach(struct fetcher *f, const struct window *w, bool forward, uint64_t hole_max, struct span *s,
                  uint64_t *carried) REQUIRES(f->lock)
{
        struct span seen = *s, unit;
        uint64_t hole = 0;

        while (next_unit(f->options.table, w, &seen, forward, &unit)) {
                enum unit_state state = unit_state(f, &unit);

                seen.first = MIN(seen.first, unit.first);
                seen.end = MAX(seen.end, unit.end);
                seen.from = MIN(seen.from, unit.from);
                seen.to = MAX(seen.to, unit.to);
                if (state == UNIT_SETTLED)
                        hole += span_length(&unit);
                if (state == UNIT_UNDER_WAY || hole > hole_max || span_length(&seen) > w->max)
                        break;
                if (state == UNIT_ABSENT) {
                        *s = seen;
                        *carried += hole;
                        hole = 0;
                }
        }
}

/* What travels with UNIT, which is always taken itself. Begins and ends with units to be fetched. */
static struct span extent(struct fetcher *f, const struct span *unit, const struct window *w) REQUIRES(f->lock)
{
        struct span s = *unit;
        uint64_t carried = 0;

        if (is_streamed(f->options.table, unit))
                return s;
        reach(f, w, true, FLIGHT_GAP_MAX, &s, &carried);
        reach(f, w, false, FLIGHT_GAP_MAX, &s, &carried);
        if (carried > span_length(&s) / CARRIED_SHARE) {
                s = *unit;
                reach(f, w, true, 0, &s, &carried);
                reach(f, w, false, 0, &s, &carried);
        }
        return s;
}

/* The aligned window of SIZE bytes in which UNIT begins. Its last unit may stand out of it a bit: left behind, it would
 * cost a request of its own. */
static struct window aligned_window(const struct fetcher *f, const struct span *unit, uint64_t size)
{
        const struct chunk_table *t = f->options.table;
        uint64_t begin = unit->from - unit->from % size;

        return (struct window) {
                .begin = begin,
                .end = begin + size,
                .max = size + size / 4,
                .high = t->chunk_count,
        };
}

static struct window demand_window(struct fetcher *f, const struct span *unit) REQUIRES(f->lock)
{
        uint64_t size = FLIGHT_WINDOW_MIN;

        if (f->options.table->blob_size <= BLOB_SMALL)
                return aligned_window(f, unit, BLOB_SMALL);
        while (2 * size <= MIN(f->asked, f->window_max))
                size *= 2;
        return aligned_window(f, unit, size);
}

/* ---- flights ---- */

/* Enters a flight for the chunks of S in the table, for WANTED in any case. The caller submits it. NULL when out of
 * memory. */
static struct flight *flight_new(struct fetcher *f, const struct span *s, size_t wanted) REQUIRES(f->lock)
{
        struct flight *flight = calloc(1, sizeof(*flight));

        if (!flight)
                return NULL;
        flight->work.run = flight_run;
        flight->fetcher = f;
        flight->request = log_current_request();
        flight->first = s->first;
        flight->count = s->end - s->first;
        flight->from = s->from;
        flight->to = s->to;
        for (size_t k = s->first; k < s->end; k++) {
                /* A slice may have left its run's flight, and be wanted again while that one is still under way: the
                 * others stay where they are. */
                if (k != wanted && chunk_state(f, k) != UNIT_ABSENT)
                        continue;
                if (map_put(f->in_flight, &k, sizeof(k), flight, NULL) < 0) {
                        fetch_leave_table(f, flight, s->first, k);
                        free(flight);
                        return NULL;
                }
        }
        f->active++;
        f->stats.flights++;
        return flight;
}

uint64_t plan_rows(struct fetcher *f, size_t first, size_t end, enum priority priority, bool impatient)
{
        const struct chunk_table *t = f->options.table;
        uint64_t bytes = 0;

        if (f->options.alone)
                return 0;
        for (size_t i = first; i < end;) {
                struct flight *flight;
                struct window w;
                struct span s;

                if (chunk_state(f, i) != UNIT_ABSENT) {
                        i++;
                        continue;
                }
                s = plan_unit(t, i);
                w = aligned_window(f, &s, f->window_max);
                w.low = first;
                w.high = end;
                s = extent(f, &s, &w);
                flight = flight_new(f, &s, i);
                if (!flight)
                        break;
                flight->impatient = impatient;
                bytes += span_length(&s);
                i = s.end;
                workers_submit(f->options.workers, &flight->work, priority);
        }
        return bytes;
}

/* Where the flight S, in which somebody waits for chunk I, is better cut in two: so that what is waited for comes
 * soon, and both parts are worth a request. S->first: nowhere. */
static size_t cut_of(const struct chunk_table *t, const struct span *s, size_t i)
{
        struct span at = plan_unit(t, i), before;
        struct window all = { .end = UINT64_MAX, .low = s->first, .high = s->end };

        if (span_length(s) < FLIGHT_CUT_MIN)
                return s->first;
        while (s->to - at.from < REQUEST_WORTH && next_unit(t, &all, &at, false, &before))
                at = before;
        return at.from - s->from >= REQUEST_WORTH ? at.first : s->first;
}

struct flight *plan_demand(struct fetcher *f, size_t i, size_t last)
{
        const struct chunk_table *t = f->options.table;
        struct span unit = plan_unit(t, i), s, before;
        struct flight *flight;
        struct window w;
        size_t cut;

        if (is_distrusted(f, i)) {
                s = (struct span) { .first = i, .end = i + 1, .from = unit.from, .to = unit.to };
                flight = flight_new(f, &s, i);
                if (flight)
                        flight->distrusted = true;
                return flight;
        }
        if (f->options.alone) {
                w = (struct window) { .begin = unit.from, .end = unit.from, .low = unit.first, .high = unit.end };
        } else if (f->keeps_nothing) {
                w = (struct window) { .begin = unit.from, .low = unit.first, .high = MAX(last + 1, unit.end) };
                w.end = unit.from + FLIGHT_BLOB_MAX;
                w.max = FLIGHT_BLOB_MAX;
        } else {
                w = demand_window(f, &unit);
        }
        s = before = extent(f, &unit, &w);
        cut = cut_of(t, &s, i);
        if (cut > s.first) {
                s.first = cut;
                s.from = t->chunks[cut].blob_offset;
        }
        flight = flight_new(f, &s, i);
        if (!flight)
                return NULL;
        f->asked += span_length(&s);
        if (cut > before.first)
                f->asked += plan_rows(f, before.first, cut, PRIORITY_READAHEAD, false);
        return flight;
}

/* ---- readahead ---- */

size_t plan_behind(const struct chunk_table *t, uint64_t end)
{
        size_t i = chunk_find(t, end);

        return i < t->chunk_count && t->chunks[i].content_offset < end ? i + 1 : i;
}

/* The first row from NEXT on that lies in the blob at LIMIT or behind it. */
static size_t row_at(const struct chunk_table *t, size_t next, uint64_t limit)
{
        while (next < t->chunk_count && (t->chunks[next].codec == CODEC_ZEROS || t->chunks[next].blob_offset < limit))
                next++;
        return next;
}

/* Fetches ahead of stream K from chunk NEXT on: more than the last time. */
static void stream_advance(struct fetcher *f, size_t k, size_t next) REQUIRES(f->lock)
{
        const struct chunk_table *t = f->options.table;
        const struct chunk *last = &t->chunks[next - 1];
        struct stream *s = &f->streams[k];
        uint64_t from = last->content_offset + last->content_length, to, limit, size;

        s->window = MIN(MAX(2 * s->window, (uint64_t) AHEAD_MIN), (uint64_t) AHEAD_MAX);
        /* To the end of an aligned window: another one begins there. */
        size = MIN(s->window, f->window_max);
        limit = last->blob_offset + last->blob_length + s->window + size - 1;
        s->next = row_at(t, next, limit - limit % size);
        f->asked += plan_rows(f, next, s->next, PRIORITY_READAHEAD, false);

        last = &t->chunks[s->next - 1];
        to = last->content_offset + last->content_length;
        atomic_store(&f->marks[k].from, from + (to - from) / 2);
        atomic_store(&f->marks[k].to, to);
}

void plan_ahead(struct fetcher *f, size_t first, size_t next)
{
        size_t k;

        mutex_lock(&f->lock);
        for (k = 0; k < STREAM_COUNT; k++)
                if (first >= f->streams[k].next && first - f->streams[k].next <= STREAM_SKIP)
                        break;
        if (k == STREAM_COUNT) {
                /* Perhaps another one begins here: then the next miss comes behind what is fetched now. */
                k = f->stream_turn++ % STREAM_COUNT;
                f->streams[k] = (struct stream) { .next = next };
                atomic_store(&f->marks[k].to, 0);
        } else if (f->keeps_nothing) {
                f->streams[k].next = next;
        } else {
                stream_advance(f, k, next);
        }
        mutex_unlock(&f->lock);
}

static bool is_marked(const struct mark *m, uint64_t end)
{
        return end > atomic_load_explicit(&m->from, memory_order_relaxed) &&
               end <= atomic_load_explicit(&m->to, memory_order_relaxed);
}

void plan_passed(struct fetcher *f, uint64_t end)
{
        for (size_t k = 0; k < STREAM_COUNT; k++) {
                if (!is_marked(&f->marks[k], end))
                        continue;
                mutex_lock(&f->lock);
                /* Unless somebody else was here before. */
                if (is_marked(&f->marks[k], end)) {
                        atomic_store(&f->marks[k].to, 0);
                        if (!f->keeps_nothing && f->streams[k].next < f->options.table->chunk_count)
                                stream_advance(f, k, f->streams[k].next);
                }
                mutex_unlock(&f->lock);
        }
}

void fetch_ahead(struct fetcher *f, uint64_t offset, uint64_t length, enum priority priority)
{
        const struct chunk_table *t = f->options.table;

        if (length == 0)
                return;
        mutex_lock(&f->lock);
        (void) plan_rows(f, chunk_find(t, offset), plan_behind(t, offset + length), priority, false);
        mutex_unlock(&f->lock);
}
