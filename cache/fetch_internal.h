/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What fetch.c (readers, and who waits for what), plan.c (what is fetched together) and flight.c (what a worker does)
 * share. */

#include <stdatomic.h>

#include "regfs/fetch.h"
#include "regfs/map.h"
#include "regfs/thread.h"

/* The largest window whose chunks travel in one request. A unit that begins in it may end behind it. */
#define FLIGHT_BLOB_MAX (4 * MIB)
#define FLIGHT_WINDOW_MIN (512 * KIB)
/* Blob bytes between two chunks that are cheaper to carry along than to ask for the next one. */
#define FLIGHT_GAP_MAX (64 * KIB)

#define STREAM_COUNT 8

/* A sequential reader, recognised by missing where the last flight ended. */
struct stream {
        size_t next;     /* chunk; SIZE_MAX: there is no such reader */
        uint64_t window; /* blob bytes to fetch ahead */
};

/* A stream whose reader has come to `from`, and not behind `to`, is to be fetched ahead of again. Content offsets,
 * written under the fetcher's lock; `to` is 0 when there is nothing to do. */
struct mark {
        _Atomic uint64_t from, to;
};

/* Neighbouring rows [first, end), and their blob range [from, to). */
struct span {
        size_t first, end;
        uint64_t from, to;
};

struct fetcher {
        struct fetcher_options options;
        uint64_t window_max; /* a power of two: what a flight asks for leaves room for others in the pool */
        struct mutex lock;
        struct cond idle;
        struct map *in_flight GUARDED_BY(lock);  /* chunk index (size_t) → struct flight */
        size_t active GUARDED_BY(lock);          /* flights that exist */
        struct map *distrusted GUARDED_BY(lock); /* index → fetcher, of chunks that were right by another road only */
        uint64_t asked GUARDED_BY(lock);         /* blob bytes, of flights begun for readers */
        struct stream streams[STREAM_COUNT] GUARDED_BY(lock);
        struct mark marks[STREAM_COUNT]; /* of the streams */
        size_t stream_turn GUARDED_BY(lock);
        struct fetch_stats stats GUARDED_BY(lock);
        struct error *filling GUARDED_BY(lock); /* of a fetch_fill under way: gets what fails meanwhile; or NULL */
        bool keeps_nothing GUARDED_BY(lock);    /* the last chunk could not be stored */
        bool failure_told GUARDED_BY(lock);     /* … and the log says why */
        bool recovery_told GUARDED_BY(lock);    /* the log says that the table is wrong */
        bool closing GUARDED_BY(lock);          /* flights don't wait for other processes any more */
};

/* A part of a read waits for one chunk of a flight. Holds a reference on the read, which holds the part. */
struct want {
        struct want *next;
        struct fetch_read *read;
        const struct fetch_part *part;
        size_t chunk;
};

/* A run of neighbouring chunks [first, first + count) on its way. Belongs to the workers, from submission to the
 * end of run. */
struct flight {
        struct work work;
        struct fetcher *fetcher;
        size_t first, count;
        uint64_t from, to;   /* blob range that holds what is to be fetched */
        bool distrusted;     /* its one chunk is not even asked for */
        struct flight *next; /* of those that one read has begun, until they are submitted */
        uint64_t request;    /* of the log: who began it */
        struct want *wants;  /* guarded by fetcher->lock */

        /* Where other processes fetch as well (claim.c). */
        size_t claimed, claimed_end; /* rows */
        struct patience patience;
        bool impatient; /* there was no patience left: what remains is fetched, whoever has claimed it */
};

/* ---- plan.c ---- */

/* What is decoded together with chunk I: itself, or the run of slices that it belongs to. */
struct span plan_unit(const struct chunk_table *t, size_t i);

/* Enters a flight for chunk I, which a read up to LAST waits for, in the table, together with what is fetched along
 * with it. The caller submits it. NULL when out of memory. */
struct flight *plan_demand(struct fetcher *f, size_t i, size_t last) REQUIRES(f->lock);

/* Submits flights for what is absent of the chunks [first, end); impatient ones fetch also what others have claimed.
 * Returns the bytes that they ask for. */
uint64_t plan_rows(struct fetcher *f, size_t first, size_t end, enum priority priority, bool impatient)
        REQUIRES(f->lock);

/* A reader has missed chunk FIRST, and flights up to NEXT were begun for it: fetches ahead of one that reads in
 * order. */
void plan_ahead(struct fetcher *f, size_t first, size_t next);

/* A reader has got its bytes up to END without a flight of its own: goes on fetching ahead of one that comes to the
 * end of what was fetched ahead. Cheap when it is none. */
void plan_passed(struct fetcher *f, uint64_t end);

/* The first chunk that begins at content offset END or behind it. */
size_t plan_behind(const struct chunk_table *t, uint64_t end);

/* ---- claim.c ---- */

/* The next rows of the flight from *I on that are to be looked after: *RET is those that are there already, and behind them
 * those that are absent, with their blob range [from, to), claimed until claim_end; there is no range when all of them
 * are there. *I moves behind them. Rows that other processes have claimed are passed over. False when no more are left. */
bool claim_next(struct flight *flight, size_t *i, struct span *ret);
void claim_end(struct flight *flight);

/* Behind the last rows: true when somebody still waits for some. Then the flight is no longer the caller's and will be
 * run once more. */
bool claim_come_back(struct flight *flight);

/* ---- flight.c ---- */

/* The work function of a flight. */
void flight_run(struct work *work);

/* ---- fetch.c ---- */

/* From now on FLIGHT does not bring the chunks [first, end). */
void fetch_leave_table(struct fetcher *f, const struct flight *flight, size_t first, size_t end) REQUIRES(f->lock);

/* True while FLIGHT is to bring CHUNK. Others that lie between its own are carried along in vain. */
bool fetch_chunk_expected(struct flight *flight, size_t chunk);

/* A flight calls one of the two for each chunk that it is to bring exactly once, unless nobody wants it: they wake
 * who waits. DATA is the decoded chunk. Who comes after the chunks [first, end) have failed begins a flight of their
 * own. */
void fetch_chunk_done(struct flight *flight, size_t chunk, const uint8_t *data);
void fetch_chunks_failed(struct flight *flight, size_t first, size_t end, int result, const struct error *e);

/* True when somebody waits for CHUNK; otherwise it is not the flight's any more. */
bool fetch_chunk_wanted(struct flight *flight, size_t chunk);

/* A chunk of [first, end) that somebody waits for, decoded alone, whose range lies in [from, to) of the blob. */
bool fetch_chunk_ready(struct flight *flight, size_t first, size_t end, uint64_t from, uint64_t to, size_t *ret);

/* CHUNK had to be got by another road. True when the log is to say so. */
bool fetch_chunk_distrust(struct flight *flight, size_t chunk);

/* Ends the flight before CHUNK when nobody waits for that one or a later one. True when it did: they are no longer
 * the flight's. */
bool fetch_flight_cut(struct flight *flight, size_t chunk);

/* Reduces the flight to the rows that somebody waits for. False when there are none: it has no rows any more. */
bool fetch_flight_narrow(struct flight *flight);

/* The flight is over: frees it. */
void fetch_flight_done(struct flight *flight);
