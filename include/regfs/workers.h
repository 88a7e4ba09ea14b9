/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Threads that run flights: each fetches, decodes, verifies and stores on its own, from start to end.
 * Work of a higher priority starts first; the lower ones never take the last threads: of N threads, readahead and
 * background together use at most N - 2 (at least 1), background alone at most N / 2 (at least 1).
 * Work that has to wait for something may be put off. Threads start when there is work for them and end after some idle seconds. Thread-safe. */

#include "regfs/base.h"
#include "regfs/error.h"

enum priority {
        PRIORITY_DEMAND,     /* somebody waits for it */
        PRIORITY_READAHEAD,  /* somebody will, soon */
        PRIORITY_BACKGROUND, /* nobody waits */
        PRIORITY_COUNT,
};

struct workers;

/* A piece of work, embedded in its owner's struct. The queue borrows it from workers_submit until RUN is entered;
 * RUN may free it. The fields are the queue's own while it is queued. */
struct work {
        void (*run)(struct work *work);
        enum priority priority;
        bool queued, delayed;
        uint64_t due; /* of delayed work: deadline_t */
        struct work *next, *previous;
};

struct workers_stats {
        unsigned threads;
        unsigned busy[PRIORITY_COUNT];
        unsigned queued[PRIORITY_COUNT];
        uint64_t done;
};

/* NAME names the threads (at most 11 bytes). One thread is started at once, so that submitting cannot fail. */
int workers_new(const char *name, unsigned max_threads, struct workers **ret, struct error *e);

/* Runs what is queued, waits for what runs, ends the threads. Nobody may submit any more. NULL is legal. */
struct workers *workers_free(struct workers *w);
DEFINE_CLEANUP(struct workers *, workers_free)

void workers_submit(struct workers *w, struct work *work, enum priority priority);

/* The same, DELAY_MS from now; workers_free does not wait for that. No thread is taken meanwhile. */
void workers_submit_later(struct workers *w, struct work *work, enum priority priority, uint64_t delay_ms);

/* Moves WORK up to PRIORITY if it is still queued with a lower one. Safe at any time while WORK's memory lives:
 * the caller guarantees that (it holds a reference on the owner). */
void workers_raise(struct workers *w, struct work *work, enum priority priority);

void workers_get_stats(struct workers *w, struct workers_stats *ret);
