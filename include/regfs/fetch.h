/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Content ranges of one layer → bytes: from the store, or by a flight: range → decode → verify → store → wake.
 *
 * A flight fetches neighbouring absent chunks in one request, for any number of readers; nobody fetches a chunk that
 * another flight of this process has under way. What a reader misses brings its neighbourhood in the blob along: some
 * 512 KiB at first (unless the chunk alone is longer), more as more is read. Flights run on workers, never on the
 * caller's thread. A reader that is cancelled or times out is detached: the flight goes on, and its bytes reach the
 * store. A chunk that fails verification is fetched once more, then it is an error, of its own readers only.
 *
 * Lock order: fetcher → read. No lock is held during I/O or callbacks. */

#include "regfs/base.h"
#include "regfs/blob.h"
#include "regfs/chunk.h"
#include "regfs/error.h"
#include "regfs/pool.h"
#include "regfs/store.h"
#include "regfs/workers.h"

struct fetcher;

/* Gets the content bytes [offset, offset + length) by another road, for a chunk that fails verification whatever is
 * fetched: where the table came from outside, it may be the table that is wrong. Called from a worker, which holds no
 * lock and no buffer of the pool; may take long (it reads the whole layer). Returns 0 with the bytes in OUT, verified,
 * or -errno with E, which then stands for the chunk, behind what was wrong with it. Such bytes are delivered and not
 * stored: to others, the table would vouch for them. */
typedef int fetch_recover_fn(void *context, uint64_t offset, size_t length, uint8_t *out, struct error *e);

struct fetcher_options {
        struct blob *blob; /* borrowed, as all of these, for the fetcher's life */
        const struct chunk_table *table;
        struct content *content;
        struct pool *pool;
        struct workers *workers;
        uint64_t timeout_ms;       /* for one flight, with all retries; 0: 60 s */
        bool alone;                /* the blob can't be had: what fails is what somebody waits for and nothing else */
        fetch_recover_fn *recover; /* or NULL: such a chunk is an error */
        void *recover_context;
};

int fetcher_new(const struct fetcher_options *options, struct fetcher **ret, struct error *e);

/* Waits for flights under way. No read may be pending. NULL is legal. */
struct fetcher *fetcher_free(struct fetcher *f);
DEFINE_CLEANUP(struct fetcher *, fetcher_free)

/* One piece of a read: content bytes [offset, offset + length) go to DATA + at. */
struct fetch_part {
        struct fetcher *fetcher;
        uint64_t offset;
        size_t length;
        size_t at;
};

/* Tries to answer all parts from the store alone, into OUT. 0, or -EAGAIN when something must be fetched. Never
 * blocks on the network. */
int fetch_cached(const struct fetch_part *parts, size_t count, uint8_t *out);

struct fetch_read;

/* Called exactly once, from a worker or from within fetch_start (which has set *RET by then) or fetch_cancel, with
 * no lock held. RESULT: 0 with all bytes in place, or -errno with E (borrowed). The read itself may be released from
 * within. */
typedef void fetch_done_fn(void *context, int result, const struct error *e);

/* Begins to bring all parts into OUT, which is not written to any more once DONE is called. BUFFER (or NULL) is the
 * pool buffer that OUT lies in: the read holds a reference until then. It comes from another pool than the
 * fetcher's: flights wait there for as long as it takes. Returns 0, and DONE will be called; or -ENOMEM with E, and
 * it won't. The caller holds one reference on *ret. */
int fetch_start(const struct fetch_part *parts, size_t count, struct pool_buf *buffer, uint8_t *out,
                fetch_done_fn *done, void *context, struct fetch_read **ret, struct error *e);

/* Detaches the reader: DONE is called with -EINTR unless it has been or is being called. Flights go on. */
void fetch_cancel(struct fetch_read *r);
struct fetch_read *fetch_read_unref(struct fetch_read *r);

/* Waits for a read of parts in the calling thread (commands, not FUSE). */
int fetch_wait(const struct fetch_part *parts, size_t count, uint8_t *out, struct error *e);

/* Brings the chunks of [offset, offset + length) into the store at that priority; nobody waits. */
void fetch_ahead(struct fetcher *f, uint64_t offset, uint64_t length, enum priority priority);

/* Brings all chunks of a layer, or some, into the store, each byte once, a few flights at a time so that neither memory
 * nor the end of the process waits for many. */
struct fetch_fill {
        const uint8_t *wanted; /* one byte for each chunk: not 0 where it is wanted; NULL: all are */
        enum priority priority;
        /* Called several times a second with the bytes of the blob that are settled so far; not 0: it ends with
         * -ECANCELED. Or NULL. */
        int (*progress)(void *context, uint64_t done);
        void *context;
};

/* The bytes of the blob that FILL is about, and of these the ones whose content is there. */
void fetch_fill_size(struct fetcher *f, const struct fetch_fill *fill, uint64_t *ret_total, uint64_t *ret_there);

/* Returns 0 with everything there that can be kept; -errno with E after the first failure: -ENOSPC where the store keeps
 * nothing. What is under way then comes to its end by itself. One at a time for one fetcher. */
int fetch_fill(struct fetcher *f, const struct fetch_fill *fill, struct error *e);

struct fetch_stats {
        uint64_t flights, joined;
        uint64_t requests, bytes; /* ranges of the blob that were asked for, and what they hold */
        uint64_t chunks, content; /* brought by flights, and their decoded bytes */
        uint64_t failures, refetches;
        uint64_t recovered; /* chunks */
};
void fetcher_get_stats(struct fetcher *f, struct fetch_stats *ret);
