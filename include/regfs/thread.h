/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Mutex and condition with annotations for clang's thread-safety analysis, and the monotonic clock that every
 * deadline in regfs is written in. Conditions wait on CLOCK_MONOTONIC. Locks are held for memory operations only. */

#include <pthread.h>
#include <stdint.h>

#include "regfs/base.h"

/* A point in time: milliseconds of CLOCK_MONOTONIC. DEADLINE_NEVER waits for ever. */
typedef uint64_t deadline_t;
#define DEADLINE_NEVER UINT64_MAX

/* Milliseconds of CLOCK_MONOTONIC, now. */
uint64_t clock_ms(void);

/* The deadline MS milliseconds from now; saturates at DEADLINE_NEVER. */
deadline_t deadline_in(uint64_t ms);

/* Milliseconds left until DEADLINE: 0 when it has passed, UINT64_MAX for DEADLINE_NEVER. */
uint64_t deadline_left(deadline_t deadline);

struct CAPABILITY("mutex") mutex {
        pthread_mutex_t native;
};

struct cond {
        pthread_cond_t native;
};

#define MUTEX_INIT                                  \
        {                                           \
                .native = PTHREAD_MUTEX_INITIALIZER \
        }

void mutex_init(struct mutex *m);
void mutex_destroy(struct mutex *m);
void mutex_lock(struct mutex *m) ACQUIRE(m);
void mutex_unlock(struct mutex *m) RELEASE(m);

void cond_init(struct cond *c);
void cond_destroy(struct cond *c);
void cond_signal(struct cond *c);
void cond_broadcast(struct cond *c);
void cond_wait(struct cond *c, struct mutex *m) REQUIRES(m);

/* Waits until signalled or DEADLINE. Returns 0, or -ETIMEDOUT once the deadline has passed. Wakes spuriously. */
int cond_wait_until(struct cond *c, struct mutex *m, deadline_t deadline) REQUIRES(m);

/* Starts a thread with all signals blocked, a small stack (256 KiB) and NAME (at most 15 bytes) as its name.
 * Returns 0 or -errno. The caller joins it. */
int thread_start(pthread_t *ret, const char *name, void *(*run)(void *), void *arg);
