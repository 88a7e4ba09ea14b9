/* SPDX-License-Identifier: Apache-2.0 */

/* Several processes share a store: which rows of a flight this one fetches, and how it waits for the others.
 *
 * A flight claims what it is about to fetch. Rows that another process has claimed are left to it when nobody here
 * waits for them. For the others the flight comes back later, without a thread or a buffer meanwhile: by then they are
 * in the store, or their claim has ended with its process and they are claimed here; or nothing has happened for as long
 * as the flight has patience, and they are fetched all the same. */

#include "fetch_internal.h"
#include "regfs/log.h"

/* What is there already is carried along in a request up to this share of it. */
#define CARRIED_SHARE 64

static bool unit_is_there(struct fetcher *f, const struct span *unit)
{
        for (size_t i = unit->first; i < unit->end; i++)
                if (!content_has(f->options.content, i))
                        return false;
        return true;
}

/* The absent units from row FIRST up to END: *RET ends before a place where more than HOLE_MAX bytes are there already.
 * Returns the bytes in smaller ones. */
static uint64_t absent_span(struct fetcher *f, size_t first, size_t end, uint64_t hole_max, struct span *ret)
{
        uint64_t hole = 0, carried = 0;
        struct span s = { 0 }, unit;

        for (size_t i = first; i < end; i = unit.end) {
                unit = plan_unit(f->options.table, i);
                if (unit_is_there(f, &unit)) {
                        hole += unit.to - unit.from;
                        continue;
                }
                if (s.end == 0) {
                        s = unit;
                } else if (hole > hole_max) {
                        break;
                } else {
                        carried += hole;
                        s.end = unit.end;
                        s.from = MIN(s.from, unit.from);
                        s.to = MAX(s.to, unit.to);
                }
                hole = 0;
        }
        *ret = s;
        return carried;
}

/* What to ask for of the rows [first, end) next. False when all of them are there. */
static bool find_absent(struct fetcher *f, size_t first, size_t end, struct span *ret)
{
        if (absent_span(f, first, end, FLIGHT_GAP_MAX, ret) > (ret->to - ret->from) / CARRIED_SHARE)
                (void) absent_span(f, first, end, 0, ret);
        return ret->end > 0;
}

bool claim_next(struct flight *flight, size_t *i, struct span *ret)
{
        struct fetcher *f = flight->fetcher;
        struct content *content = f->options.content;

        while (*i < flight->first + flight->count) {
                size_t end = flight->first + flight->count, first = *i, taken;
                struct span s;

                if (!find_absent(f, first, end, &s)) {
                        *ret = (struct span) { .first = first, .end = end };
                        *i = end;
                        return true;
                }
                if (flight->impatient) {
                        *ret = s;
                } else if (content_claim(content, s.first, s.end, &taken) == 0) {
                        flight->claimed = s.first;
                        flight->claimed_end = taken;
                        /* Others may have brought them a moment ago. */
                        if (!find_absent(f, s.first, taken, ret))
                                *ret = (struct span) { .end = taken };
                } else if (s.first > first) {
                        *ret = (struct span) { .end = s.first };
                } else {
                        for (; *i < taken; ++*i)
                                (void) fetch_chunk_wanted(flight, *i);
                        continue;
                }
                ret->first = first;
                *i = ret->end;
                return true;
        }
        return false;
}

void claim_end(struct flight *flight)
{
        content_release(flight->fetcher->options.content, flight->claimed, flight->claimed_end);
        flight->claimed = flight->claimed_end = 0;
}

static uint64_t count_there(const struct flight *flight)
{
        uint64_t n = 0;

        for (size_t i = flight->first; i < flight->first + flight->count; i++)
                n += content_has(flight->fetcher->options.content, i);
        return n;
}

bool claim_come_back(struct flight *flight)
{
        struct fetcher *f = flight->fetcher;
        uint64_t pause;

        if (!fetch_flight_narrow(flight))
                return false;
        if (flight->patience.limit_ms == 0) {
                patience_begin(&flight->patience, f->options.timeout_ms);
                log_debug("flight waits for another process: chunks %zu-%zu", flight->first,
                          flight->first + flight->count - 1);
        }
        if (!patience_left(&flight->patience, count_there(flight), &pause)) {
                log_warning(
                        "%s: chunks %zu-%zu, which another process said that it fetches, did not come for %ju s: they "
                        "are fetched here",
                        f->options.blob->name, flight->first, flight->first + flight->count - 1,
                        (uintmax_t) f->options.timeout_ms / 1000);
                flight->impatient = true;
                pause = 0;
        }
        workers_submit_later(f->options.workers, &flight->work, flight->work.priority, pause);
        return true;
}
