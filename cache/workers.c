/* SPDX-License-Identifier: Apache-2.0 */

/* One lock, one queue for each priority. Whoever takes a piece of work looks whether the next one can start as well and
 * if so wakes or starts one more thread: a wake-up that met a thread already on its way is made good by that thread.
 *
 * The last thread never ends before workers_free, so whatever cannot get a thread of its own still gets done. A thread
 * that ends joins those that ended before it; workers_free joins the rest. */

#include <stdio.h>
#include <string.h>
#include <sys/queue.h>

#include "regfs/log.h"
#include "regfs/thread.h"
#include "regfs/workers.h"

#define IDLE_MS 3000

struct worker {
        pthread_t thread; /* set by the thread itself */
        struct workers *workers;
        SLIST_ENTRY(worker) next;
};

SLIST_HEAD(worker_list, worker);

struct work_queue {
        struct work *first, *last;
};

struct workers {
        char name[12];
        unsigned max_threads;
        unsigned max_busy[PRIORITY_COUNT]; /* of this priority and all lower ones together */
        struct mutex lock;
        struct cond wake;   /* idle threads: there may be work, or the end */
        struct cond ending; /* workers_free: the last thread ends */
        struct work_queue queues[PRIORITY_COUNT] GUARDED_BY(lock);
        struct work_queue delayed GUARDED_BY(lock); /* in no order: there are few of them */
        unsigned queued[PRIORITY_COUNT] GUARDED_BY(lock);
        unsigned busy[PRIORITY_COUNT] GUARDED_BY(lock);
        unsigned threads GUARDED_BY(lock); /* also those about to be started */
        unsigned idle GUARDED_BY(lock);    /* in cond_wait, perhaps woken already */
        uint64_t done GUARDED_BY(lock);
        bool stopping GUARDED_BY(lock);
        struct worker_list ended GUARDED_BY(lock); /* to be joined */
};

static void append(struct work_queue *q, struct work *work)
{
        work->next = NULL;
        work->previous = q->last;
        if (q->last)
                q->last->next = work;
        else
                q->first = work;
        q->last = work;
}

static void take_out(struct work_queue *q, struct work *work)
{
        if (work->previous)
                work->previous->next = work->next;
        else
                q->first = work->next;
        if (work->next)
                work->next->previous = work->previous;
        else
                q->last = work->previous;
        work->next = work->previous = NULL;
}

static void enqueue(struct workers *w, struct work *work, enum priority priority) REQUIRES(w->lock)
{
        work->priority = priority;
        work->queued = true;
        append(&w->queues[priority], work);
        w->queued[priority]++;
}

static void dequeue(struct workers *w, struct work *work) REQUIRES(w->lock)
{
        take_out(&w->queues[work->priority], work);
        work->queued = false;
        w->queued[work->priority]--;
}

static bool is_empty(struct workers *w) REQUIRES(w->lock)
{
        for (int i = 0; i < PRIORITY_COUNT; i++)
                if (w->queues[i].first)
                        return false;
        return !w->delayed.first;
}

/* Queues the delayed work that is due. Returns when the next one is. */
static deadline_t enqueue_due(struct workers *w) REQUIRES(w->lock)
{
        deadline_t next = DEADLINE_NEVER;

        for (struct work *work = w->delayed.first, *behind; work; work = behind) {
                behind = work->next;
                if (!w->stopping && deadline_left(work->due) > 0) {
                        next = MIN(next, work->due);
                        continue;
                }
                take_out(&w->delayed, work);
                work->delayed = false;
                enqueue(w, work, work->priority);
        }
        return next;
}

/* True when one more thread may be busy with PRIORITY. */
static bool may_start(struct workers *w, int priority) REQUIRES(w->lock)
{
        unsigned lower = 0;

        for (int i = PRIORITY_COUNT - 1; i >= 0; i--) {
                lower += w->busy[i];
                if (i <= priority && lower >= w->max_busy[i])
                        return false;
        }
        return true;
}

/* The piece of work to start next, still in its queue; or NULL. */
static struct work *next_work(struct workers *w) REQUIRES(w->lock)
{
        for (int i = 0; i < PRIORITY_COUNT; i++)
                if (w->queues[i].first && may_start(w, i))
                        return w->queues[i].first;
        return NULL;
}

/* Work that could start needs a thread, and delayed work one that looks at the clock. True when the caller has to start
 * one, with start_thread, outside the lock: it is counted already. */
static bool call_thread(struct workers *w) REQUIRES(w->lock)
{
        if (!next_work(w) && !w->delayed.first)
                return false;
        if (w->idle > 0) {
                cond_signal(&w->wake);
                return false;
        }
        if (w->threads >= w->max_threads)
                return false;
        w->threads++;
        return true;
}

static void join_all(struct worker_list *list)
{
        struct worker *worker;

        while ((worker = SLIST_FIRST(list))) {
                SLIST_REMOVE_HEAD(list, next);
                pthread_join(worker->thread, NULL);
                free(worker);
        }
}

static void *worker_run(void *arg);

/* Starts the thread that is counted already; takes it off the count when that fails. */
static int start_thread(struct workers *w)
{
        struct worker *worker = calloc(1, sizeof(*worker));
        char name[16];
        pthread_t thread;
        int r = -ENOMEM;

        if (worker) {
                worker->workers = w;
                snprintf(name, sizeof(name), "%s", w->name);
                r = thread_start(&thread, name, worker_run, worker);
                if (r == 0)
                        return 0;
        }
        free(worker);

        mutex_lock(&w->lock);
        w->threads--;
        cond_signal(&w->ending);
        mutex_unlock(&w->lock);
        return r;
}

static void start_one_more(struct workers *w)
{
        int r = start_thread(w);

        if (r < 0)
                log_debug("cannot start another %s thread, the others will do its work: %s", w->name, strerror(-r));
}

/* Waits for work. NULL: the thread is to end. */
static struct work *wait_for_work(struct workers *w) REQUIRES(w->lock)
{
        deadline_t deadline = deadline_in(IDLE_MS);
        struct work *work;

        for (;;) {
                deadline_t due = enqueue_due(w);

                work = next_work(w);
                if (work)
                        return work;
                if (w->stopping && is_empty(w))
                        return NULL;
                if (deadline_left(deadline) == 0) {
                        if (w->threads > 1 && !w->stopping && (due == DEADLINE_NEVER || w->idle > 0))
                                return NULL;
                        deadline = deadline_in(IDLE_MS);
                }
                w->idle++;
                (void) cond_wait_until(&w->wake, &w->lock, MIN(deadline, due));
                w->idle--;
        }
}

static void *worker_run(void *arg)
{
        struct worker *worker = arg;
        struct workers *w = worker->workers;
        struct worker_list ended;
        struct work *work;

        worker->thread = pthread_self();
        mutex_lock(&w->lock);
        while ((work = wait_for_work(w))) {
                enum priority priority = work->priority;
                bool start;

                dequeue(w, work);
                w->busy[priority]++;
                start = call_thread(w);
                if (w->stopping && is_empty(w))
                        cond_broadcast(&w->wake);
                mutex_unlock(&w->lock);

                if (start)
                        start_one_more(w);
                work->run(work); /* may free WORK */

                mutex_lock(&w->lock);
                w->busy[priority]--;
                w->done++;
        }
        ended = w->ended;
        SLIST_INIT(&w->ended);
        SLIST_INSERT_HEAD(&w->ended, worker, next);
        w->threads--;
        cond_signal(&w->ending);
        mutex_unlock(&w->lock);
        join_all(&ended);
        return NULL;
}

int workers_new(const char *name, unsigned max_threads, struct workers **ret, struct error *e)
{
        struct workers *w = calloc(1, sizeof(*w));
        int r;

        if (!w)
                return error_oom(e);
        snprintf(w->name, sizeof(w->name), "%s", name);
        w->max_threads = MAX(max_threads, 1U);
        w->max_busy[PRIORITY_DEMAND] = w->max_threads;
        w->max_busy[PRIORITY_READAHEAD] = w->max_threads > 3 ? w->max_threads - 2 : 1;
        w->max_busy[PRIORITY_BACKGROUND] = MIN(MAX(w->max_threads / 2, 1U), w->max_busy[PRIORITY_READAHEAD]);
        mutex_init(&w->lock);
        cond_init(&w->wake);
        cond_init(&w->ending);
        mutex_lock(&w->lock);
        SLIST_INIT(&w->ended);
        w->threads = 1;
        mutex_unlock(&w->lock);

        r = start_thread(w);
        if (r < 0) {
                workers_free(w);
                return error_errno(e, -r, "starting the first %s thread", name);
        }
        *ret = w;
        return 0;
}

struct workers *workers_free(struct workers *w)
{
        struct worker_list ended;

        if (!w)
                return NULL;
        mutex_lock(&w->lock);
        w->stopping = true;
        cond_broadcast(&w->wake);
        while (w->threads > 0)
                cond_wait(&w->ending, &w->lock);
        ended = w->ended;
        SLIST_INIT(&w->ended);
        mutex_unlock(&w->lock);

        join_all(&ended);
        cond_destroy(&w->ending);
        cond_destroy(&w->wake);
        mutex_destroy(&w->lock);
        free(w);
        return NULL;
}

void workers_submit(struct workers *w, struct work *work, enum priority priority)
{
        bool start;

        mutex_lock(&w->lock);
        enqueue(w, work, priority);
        start = call_thread(w);
        mutex_unlock(&w->lock);
        if (start)
                start_one_more(w);
}

void workers_submit_later(struct workers *w, struct work *work, enum priority priority, uint64_t delay_ms)
{
        bool start;

        mutex_lock(&w->lock);
        work->priority = priority;
        work->delayed = true;
        work->due = deadline_in(delay_ms);
        append(&w->delayed, work);
        /* An idle thread, if there is one, has to look how long it may sleep. */
        start = call_thread(w);
        mutex_unlock(&w->lock);
        if (start)
                start_one_more(w);
}

void workers_raise(struct workers *w, struct work *work, enum priority priority)
{
        bool start = false;

        mutex_lock(&w->lock);
        if (work->delayed)
                work->priority = MIN(priority, work->priority);
        if (work->queued && priority < work->priority) {
                dequeue(w, work);
                enqueue(w, work, priority);
                start = call_thread(w);
        }
        mutex_unlock(&w->lock);
        if (start)
                start_one_more(w);
}

void workers_get_stats(struct workers *w, struct workers_stats *ret)
{
        mutex_lock(&w->lock);
        *ret = (struct workers_stats) { .threads = w->threads, .done = w->done };
        for (int i = 0; i < PRIORITY_COUNT; i++) {
                ret->busy[i] = w->busy[i];
                ret->queued[i] = w->queued[i];
        }
        mutex_unlock(&w->lock);
}
