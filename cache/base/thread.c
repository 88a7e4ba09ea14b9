/* SPDX-License-Identifier: Apache-2.0 */

#include "regfs/thread.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <time.h>

#define STACK_SIZE (256 * KIB)

uint64_t clock_ms(void)
{
        struct timespec t;

        (void) clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t) t.tv_sec * 1000 + (uint64_t) t.tv_nsec / 1000000;
}

deadline_t deadline_in(uint64_t ms)
{
        uint64_t now = clock_ms();

        return ms >= DEADLINE_NEVER - now ? DEADLINE_NEVER : now + ms;
}

uint64_t deadline_left(deadline_t deadline)
{
        uint64_t now;

        if (deadline == DEADLINE_NEVER)
                return UINT64_MAX;
        now = clock_ms();
        return deadline > now ? deadline - now : 0;
}

void mutex_init(struct mutex *m)
{
        (void) pthread_mutex_init(&m->native, NULL);
}

void mutex_destroy(struct mutex *m)
{
        (void) pthread_mutex_destroy(&m->native);
}

void mutex_lock(struct mutex *m) NO_THREAD_SAFETY_ANALYSIS
{
        (void) pthread_mutex_lock(&m->native);
}

void mutex_unlock(struct mutex *m) NO_THREAD_SAFETY_ANALYSIS
{
        (void) pthread_mutex_unlock(&m->native);
}

void cond_init(struct cond *c)
{
        pthread_condattr_t attributes;

        (void) pthread_condattr_init(&attributes);
        (void) pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
        (void) pthread_cond_init(&c->native, &attributes);
        (void) pthread_condattr_destroy(&attributes);
}

void cond_destroy(struct cond *c)
{
        (void) pthread_cond_destroy(&c->native);
}

void cond_signal(struct cond *c)
{
        (void) pthread_cond_signal(&c->native);
}

void cond_broadcast(struct cond *c)
{
        (void) pthread_cond_broadcast(&c->native);
}

void cond_wait(struct cond *c, struct mutex *m)
{
        (void) pthread_cond_wait(&c->native, &m->native);
}

int cond_wait_until(struct cond *c, struct mutex *m, deadline_t deadline)
{
        struct timespec t;

        if (deadline == DEADLINE_NEVER) {
                cond_wait(c, m);
                return 0;
        }
        t.tv_sec = (time_t) (deadline / 1000);
        t.tv_nsec = (long) (deadline % 1000) * 1000000;
        return pthread_cond_timedwait(&c->native, &m->native, &t) == ETIMEDOUT ? -ETIMEDOUT : 0;
}

struct start {
        void *(*run)(void *);
        void *arg;
        char name[16];
};

static void *named(void *arg)
{
        struct start start = *(struct start *) arg;

        free(arg);
        (void) pthread_setname_np(pthread_self(), start.name);
        return start.run(start.arg);
}

int thread_start(pthread_t *ret, const char *name, void *(*run)(void *), void *arg)
{
        struct start *start = calloc(1, sizeof(*start));
        pthread_attr_t attributes;
        sigset_t all, old;
        int r;

        if (!start)
                return -ENOMEM;
        start->run = run;
        start->arg = arg;
        for (size_t k = 0; k + 1 < sizeof(start->name) && name[k]; k++)
                start->name[k] = name[k];

        (void) pthread_attr_init(&attributes);
        (void) pthread_attr_setstacksize(&attributes, MAX(STACK_SIZE, (size_t) PTHREAD_STACK_MIN));
        (void) sigfillset(&all);
        (void) pthread_sigmask(SIG_SETMASK, &all, &old);
        r = pthread_create(ret, &attributes, named, start);
        (void) pthread_sigmask(SIG_SETMASK, &old, NULL);
        (void) pthread_attr_destroy(&attributes);
        if (r != 0)
                free(start);
        return -r;
}
