/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What fetch.c (readers, and who waits for what) and flight.c (what a worker does) share. */

#include "regfs/fetch.h"
#include "regfs/map.h"
#include "regfs/thread.h"

/* A flight fetches at most this many blob bytes in one request, slices apart. */
#define FLIGHT_BLOB_MAX (4 * MIB)
/* Blob bytes between two chunks that are cheaper to carry along than to ask for twice. */
#define FLIGHT_GAP_MAX (64 * KIB)

/* A sequential reader, recognised by missing where the last flight ended. */
struct stream {
        size_t next_chunk;
        uint64_t window; /* content bytes to fetch ahead */
};

struct fetcher {
        struct fetcher_options options;
        struct mutex lock;
        struct cond idle;
        struct map *in_flight GUARDED_BY(lock); /* chunk index (size_t) → struct flight */
        size_t active GUARDED_BY(lock);         /* flights that exist */
        struct stream streams[8] GUARDED_BY(lock);
        size_t stream_turn GUARDED_BY(lock);
        struct fetch_stats stats GUARDED_BY(lock);
        bool keeps_nothing GUARDED_BY(lock); /* the last chunk could not be stored */
        bool failure_told GUARDED_BY(lock);  /* … and the log says why */
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
        struct flight *next; /* of those that one read has begun, until they are submitted */
        uint64_t request;    /* of the log: who began it */
        struct want *wants;  /* guarded by fetcher->lock */
};

/* The work function of a flight. */
void flight_run(struct work *work);

/* A flight calls one of the two for each of its chunks exactly once: they wake who waits for it. DATA is the
 * decoded chunk. Who comes after the chunks [first, end) have failed begins a flight of their own. */
void fetch_chunk_done(struct flight *flight, size_t chunk, const uint8_t *data);
void fetch_chunks_failed(struct flight *flight, size_t first, size_t end, int result, const struct error *e);

/* Ends the flight before CHUNK when nobody waits for that one or a later one. True when it did: they are no longer
 * the flight's. */
bool fetch_flight_cut(struct flight *flight, size_t chunk);

/* The flight is over: frees it. */
void fetch_flight_done(struct flight *flight);
