/* SPDX-License-Identifier: Apache-2.0 */

/* Bringing a layer into the store, or a part of it: a few steps of a flight's size are under way, and when the oldest
 * has ended the next one begins. */

#include "fetch_internal.h"
#include "regfs/log.h"

#define STEPS_MAX 4
#define LOOK_MS 100

/* Rows [first, end), and the blob bytes of what is wanted of them. */
struct step {
        size_t first, end;
        uint64_t bytes;
        bool again;               /* what others had under way did not come: asked for by ourselves */
        bool impatient;           /* and this time whoever has claimed it */
        struct patience patience; /* with another process that fetches some of it; limit_ms 0: not begun */
};

struct filling {
        struct fetcher *fetcher;
        const struct fetch_fill *fill;
        struct step steps[STEPS_MAX]; /* oldest first */
        size_t count;
        size_t next;          /* row */
        uint64_t done;        /* blob bytes */
        struct error failure; /* guarded by fetcher->lock */
};

static bool is_wanted(const struct fetcher *f, const struct fetch_fill *fill, size_t i)
{
        return f->options.table->chunks[i].codec != CODEC_ZEROS && (!fill->wanted || fill->wanted[i]);
}

/* Of the unit U: whether anything is wanted, and whether all of that is there. */
static void look_at(struct fetcher *f, const struct fetch_fill *fill, const struct span *u, bool *ret_wanted,
                    bool *ret_there)
{
        *ret_wanted = false;
        *ret_there = true;
        for (size_t i = u->first; i < u->end; i++) {
                if (!is_wanted(f, fill, i))
                        continue;
                *ret_wanted = true;
                if (!content_has(f->options.content, i))
                        *ret_there = false;
        }
}

void fetch_fill_size(struct fetcher *f, const struct fetch_fill *fill, uint64_t *ret_total, uint64_t *ret_there)
{
        uint64_t total = 0, present = 0;
        struct span u;

        for (size_t i = 0; i < f->options.table->chunk_count; i = u.end) {
                bool wanted, there;

                u = plan_unit(f->options.table, i);
                look_at(f, fill, &u, &wanted, &there);
                if (!wanted)
                        continue;
                total += u.to - u.from;
                if (there)
                        present += u.to - u.from;
        }
        *ret_total = total;
        *ret_there = present;
}

/* The next rows, without a gap, that are wanted and not there; up to the end of an aligned window of the blob, where
 * flights end. False when there are none. */
static bool next_step(struct filling *l, struct step *ret)
{
        const struct chunk_table *t = l->fetcher->options.table;
        uint64_t size = l->fetcher->window_max;
        struct step s = { 0 };

        while (l->next < t->chunk_count) {
                struct span u = plan_unit(t, l->next);
                bool wanted, there;

                look_at(l->fetcher, l->fill, &u, &wanted, &there);
                if (s.bytes > 0 && (!wanted || there || u.from / size != t->chunks[s.first].blob_offset / size))
                        break;
                l->next = u.end;
                if (!wanted || there)
                        continue;
                if (s.bytes == 0)
                        s.first = u.first;
                s.end = u.end;
                s.bytes += u.to - u.from;
        }
        *ret = s;
        return s.bytes > 0;
}

static bool is_under_way(struct fetcher *f, const struct step *s) REQUIRES(f->lock)
{
        for (size_t i = s->first; i < s->end; i++)
                if (map_get(f->in_flight, &i, sizeof(i)))
                        return true;
        return false;
}

static bool is_there(struct fetcher *f, const struct step *s)
{
        for (size_t i = s->first; i < s->end; i++)
                if (!content_has(f->options.content, i))
                        return false;
        return true;
}

static void begin(struct filling *l, struct step s)
{
        mutex_lock(&l->fetcher->lock);
        (void) plan_rows(l->fetcher, s.first, s.end, l->fill->priority, s.impatient);
        mutex_unlock(&l->fetcher->lock);
        l->steps[l->count++] = s;
}

/* Waits a little for the oldest step. Returns 1 when it has ended. */
static int wait_for_oldest(struct filling *l, struct error *e)
{
        struct fetcher *f = l->fetcher;
        bool under_way, keeps_nothing;
        int failed;

        mutex_lock(&f->lock);
        under_way = is_under_way(f, &l->steps[0]);
        if (under_way && l->failure.code == 0) {
                (void) cond_wait_until(&f->idle, &f->lock, deadline_in(LOOK_MS));
                under_way = is_under_way(f, &l->steps[0]);
        }
        keeps_nothing = f->keeps_nothing;
        failed = l->failure.code;
        if (failed != 0 && e)
                *e = l->failure;
        mutex_unlock(&f->lock);
        if (failed != 0)
                return -failed;
        if (!under_way && keeps_nothing && !is_there(f, &l->steps[0]))
                return content_not_kept(f->options.content, e);
        return !under_way;
}

/* Another process has claimed some of the rows of S that are not there. No flight of this one has them; one that begins
 * now may lose its claim, which others then fetch as well. */
static bool is_elsewhere(struct fetcher *f, const struct step *s)
{
        struct content *c = f->options.content;

        for (size_t i = s->first, end; i < s->end; i = end) {
                int r;

                end = i + 1;
                if (content_has(c, i))
                        continue;
                r = content_claim(c, i, s->end, &end);
                if (r < 0)
                        return r == -EAGAIN;
                content_release(c, i, end);
        }
        return false;
}

/* Waits a little for the other process. False when it has not come farther for too long. */
static bool wait_for_another(struct fetcher *f, struct step *s)
{
        uint64_t there = 0, pause;

        if (s->patience.limit_ms == 0)
                patience_begin(&s->patience, f->options.timeout_ms);
        for (size_t i = s->first; i < s->end; i++)
                there += content_has(f->options.content, i);
        if (!patience_left(&s->patience, there, &pause))
                return false;
        mutex_lock(&f->lock);
        (void) cond_wait_until(&f->idle, &f->lock, deadline_in(MIN(pause, (uint64_t) LOOK_MS)));
        mutex_unlock(&f->lock);
        return true;
}

/* The oldest step has ended: what is not there then is another process's, was another flight's, which brought less, or
 * has been evicted. */
static void end_oldest(struct filling *l)
{
        struct step s = l->steps[0];
        bool goes_on = false;

        for (size_t k = 1; k < l->count; k++)
                l->steps[k - 1] = l->steps[k];
        l->count--;
        if (!is_there(l->fetcher, &s)) {
                bool elsewhere = !s.impatient && is_elsewhere(l->fetcher, &s);

                if (elsewhere && !wait_for_another(l->fetcher, &s)) {
                        log_warning("%s: chunks %zu-%zu, which another process said that it fetches, did not come: "
                                    "they are fetched here",
                                    l->fetcher->options.blob->name, s.first, s.end - 1);
                        s.impatient = true;
                }
                goes_on = elsewhere || !s.again;
                s.again = !elsewhere || s.impatient;
        }
        if (goes_on)
                begin(l, s);
        else
                l->done += s.bytes;
}

static int run(struct filling *l, struct error *e)
{
        size_t steps_max = l->fill->priority == PRIORITY_BACKGROUND ? STEPS_MAX / 2 : STEPS_MAX;
        struct step s;
        int r = 0;

        while (r >= 0) {
                if (l->fill->progress && l->fill->progress(l->fill->context, l->done) != 0)
                        return error_set(e, ERROR_OTHER, ECANCELED, "%s: interrupted", l->fetcher->options.blob->name);
                while (l->count < steps_max && next_step(l, &s))
                        begin(l, s);
                if (l->count == 0)
                        return 0;
                r = wait_for_oldest(l, e);
                if (r > 0)
                        end_oldest(l);
        }
        return r;
}

int fetch_fill(struct fetcher *f, const struct fetch_fill *fill, struct error *e)
{
        struct filling l = { .fetcher = f, .fill = fill };
        uint64_t total;
        int r;

        if (f->options.alone)
                return 0;
        if (!content_keeps(f->options.content))
                return content_not_kept(f->options.content, e);
        fetch_fill_size(f, fill, &total, &l.done);
        mutex_lock(&f->lock);
        f->filling = &l.failure;
        f->keeps_nothing = false; /* it may have been full */
        mutex_unlock(&f->lock);
        r = run(&l, e);
        mutex_lock(&f->lock);
        f->filling = NULL;
        mutex_unlock(&f->lock);
        return r;
}
