/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Refcounted buffers out of one bounded pool: what transfers write into and decoders read from and write to.
 *
 * A buffer goes back to the pool when its last holder lets go, and by nothing else. Whoever writes to a buffer or reads
 * from it holds a reference of its own until it has truly ended: a caller that gives up (interrupt, timeout) drops only
 * its own, and the buffer stays out until the producer has dropped its too. In debug builds (REGFS_POISON) a free
 * buffer is filled with 0xa5 and, under AddressSanitizer, poisoned until it is handed out again.
 *
 * Bound: the bytes of all buffers, handed out or kept for reuse, stay within the limit; pool_get waits for room.
 * So that a holder of one buffer never waits for another one that cannot come, a caller takes everything that it
 * needs for one job in one buffer. A request for more than the limit is granted when no other buffer is out.
 * Thread-safe. */

#include "regfs/base.h"
#include "regfs/error.h"
#include "regfs/thread.h"

struct pool;

struct pool_buf {
        uint8_t *data;
        size_t size; /* as asked for; the bytes are not initialised */
};

struct pool_stats {
        size_t limit;
        size_t out;     /* bytes handed out, rounded up to size classes */
        size_t kept;    /* bytes of free buffers kept for reuse */
        size_t buffers; /* buffers handed out */
        size_t waiting; /* callers that wait for room */
        uint64_t gets;  /* since the start */
        uint64_t waits; /* of these, how many had to wait */
};

/* Returns 0 or -ENOMEM. LIMIT in bytes. */
int pool_new(size_t limit, struct pool **ret);

/* The pool lives on until the last buffer has come back; new gets fail with -ESHUTDOWN. NULL is legal. */
struct pool *pool_free(struct pool *p);
DEFINE_CLEANUP(struct pool *, pool_free)

/* A buffer of SIZE > 0 bytes with one reference, the caller's. Waits for room until DEADLINE, first come first served.
 * Returns 0, -ETIMEDOUT, -ENOMEM or -ESHUTDOWN with E. */
int pool_get(struct pool *p, size_t size, deadline_t deadline, struct pool_buf **ret, struct error *e);

struct pool_buf *pool_buf_ref(struct pool_buf *b);

/* Drops a reference; NULL is legal. Returns NULL. */
struct pool_buf *pool_buf_unref(struct pool_buf *b);
DEFINE_CLEANUP(struct pool_buf *, pool_buf_unref)

/* Gives the memory of free buffers back to the system. */
void pool_trim(struct pool *p);

void pool_get_stats(struct pool *p, struct pool_stats *ret);
