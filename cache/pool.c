/* SPDX-License-Identifier: Apache-2.0 */

/* Buffers are anonymous mappings of their size class, so that giving one up really gives memory back. A free buffer
 * waits in two lists: its class's, for the next request of that class, and the pool's, from the most recently
 * returned to the oldest, which makes room for other classes first.
 *
 * Room is reserved under the lock; mapping, unmapping and poisoning happen outside of it. Whoever reserves takes the
 * buffers that had to make room along and unmaps them before it maps its own: the bound holds at every moment. */

#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/queue.h>

#include "regfs/pool.h"

#if defined(__SANITIZE_ADDRESS__)
#define POOL_ASAN
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define POOL_ASAN
#endif
#endif

#if defined(REGFS_POISON) && defined(POOL_ASAN)
#include <sanitizer/asan_interface.h>
#define poison(address, size) __asan_poison_memory_region((address), (size))
#define unpoison(address, size) __asan_unpoison_memory_region((address), (size))
#else
#define poison(address, size) ((void) (address), (void) (size))
#define unpoison(address, size) ((void) (address), (void) (size))
#endif

#define PAGE ((size_t) 4096)

/* Up to 16 KiB a class for each page; above, four for each doubling: at most a quarter of a buffer is rounding. */
#define CLASS_LINEAR_MAX (4 * PAGE)
#define CLASS_LINEAR_SHIFT 14
#define CLASS_COUNT (4 + (63 - CLASS_LINEAR_SHIFT) * 4)

/* The class of buffers larger than the limit: never kept. */
#define CLASS_OVERSIZED SIZE_MAX

struct buffer {
        struct pool_buf face; /* first: what callers see */
        struct pool *pool;
        atomic_uint refs;
        size_t capacity;
        size_t class;
        TAILQ_ENTRY(buffer) by_age;
        TAILQ_ENTRY(buffer) by_class;
};

TAILQ_HEAD(buffer_list, buffer);

/* One pool_get under way. Its fields are the pool's lock's. */
struct request {
        size_t capacity;
        size_t class;
        bool granted;
        struct buffer *reused;
        struct buffer_list evicted; /* made room; linked by age */
        struct cond wake;
        TAILQ_ENTRY(request) next;
};

TAILQ_HEAD(request_list, request);

struct pool {
        size_t limit;
        struct mutex lock;
        size_t out GUARDED_BY(lock);
        size_t kept GUARDED_BY(lock);
        size_t buffers GUARDED_BY(lock);
        size_t waiting GUARDED_BY(lock);
        size_t holders GUARDED_BY(lock); /* the owner, every buffer that is out, every pool_get under way */
        uint64_t gets GUARDED_BY(lock);
        uint64_t waits GUARDED_BY(lock);
        bool shut_down GUARDED_BY(lock);
        struct request_list requests GUARDED_BY(lock);
        struct buffer_list by_age GUARDED_BY(lock); /* first: returned last */
        struct buffer_list by_class[CLASS_COUNT] GUARDED_BY(lock);
};

/* SIZE is at most SIZE_MAX / 4. Sets what a request of SIZE bytes takes from the pool. */
static void classify(size_t size, size_t limit, size_t *ret_capacity, size_t *ret_class)
{
        size_t capacity, class;

        if (size > limit) {
                *ret_capacity = (size + PAGE - 1) & ~(PAGE - 1);
                *ret_class = CLASS_OVERSIZED;
                return;
        }
        if (size <= CLASS_LINEAR_MAX) {
                class = (size - 1) / PAGE;
                capacity = (class + 1) * PAGE;
        } else {
                unsigned shift = 63 - (unsigned) __builtin_clzll(size - 1);
                size_t base = (size_t) 1 << shift, step = base / 4;
                size_t steps = (size - base + step - 1) / step;

                class = 3 + (size_t) (shift - CLASS_LINEAR_SHIFT) * 4 + steps;
                capacity = base + steps * step;
        }
        /* The limit cuts the largest class short, for every request of that class alike. */
        *ret_capacity = MIN(capacity, limit);
        *ret_class = class;
}

static struct buffer *buffer_destroy(struct buffer *b)
{
        if (b->face.data) {
                unpoison(b->face.data, b->capacity);
                munmap(b->face.data, b->capacity);
        }
        free(b);
        return NULL;
}

static struct buffer *buffer_new(struct pool *p, size_t capacity, size_t class)
{
        struct buffer *b = calloc(1, sizeof(*b));
        void *data;

        if (!b)
                return NULL;
        b->pool = p;
        b->capacity = capacity;
        b->class = class;
        data = mmap(NULL, capacity, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (data == MAP_FAILED)
                return buffer_destroy(b);
        b->face.data = data;
        return b;
}

static void buffers_destroy(struct buffer_list *list)
{
        struct buffer *b;

        while ((b = TAILQ_FIRST(list))) {
                TAILQ_REMOVE(list, b, by_age);
                buffer_destroy(b);
        }
}

static void keep(struct pool *p, struct buffer *b) REQUIRES(p->lock)
{
        TAILQ_INSERT_HEAD(&p->by_age, b, by_age);
        TAILQ_INSERT_HEAD(&p->by_class[b->class], b, by_class);
        p->kept += b->capacity;
}

static void unkeep(struct pool *p, struct buffer *b) REQUIRES(p->lock)
{
        TAILQ_REMOVE(&p->by_age, b, by_age);
        TAILQ_REMOVE(&p->by_class[b->class], b, by_class);
        p->kept -= b->capacity;
}

static void evict_oldest(struct pool *p, struct buffer_list *evicted) REQUIRES(p->lock)
{
        struct buffer *b = TAILQ_LAST(&p->by_age, buffer_list);

        unkeep(p, b);
        TAILQ_INSERT_TAIL(evicted, b, by_age);
}

static bool has_room(struct pool *p, size_t capacity) REQUIRES(p->lock)
{
        if (capacity > p->limit)
                return p->buffers == 0;
        return p->out <= p->limit && capacity <= p->limit - p->out;
}

/* Gives R its bytes: out of a kept buffer of its class, or of room that others make. */
static void grant(struct pool *p, struct request *r) REQUIRES(p->lock)
{
        if (r->class != CLASS_OVERSIZED)
                r->reused = TAILQ_FIRST(&p->by_class[r->class]);
        if (r->reused)
                unkeep(p, r->reused);
        p->out += r->capacity;
        p->buffers++;
        while (p->kept > 0 && (p->out > p->limit || p->kept > p->limit - p->out))
                evict_oldest(p, &r->evicted);
        r->granted = true;
}

/* First come, first served: nobody overtakes a large request that waits for its room. */
static void grant_waiting(struct pool *p) REQUIRES(p->lock)
{
        struct request *r;

        while ((r = TAILQ_FIRST(&p->requests)) && !p->shut_down && has_room(p, r->capacity)) {
                TAILQ_REMOVE(&p->requests, r, next);
                grant(p, r);
                cond_signal(&r->wake);
        }
}

static void pool_destroy(struct pool *p)
{
        mutex_destroy(&p->lock);
        free(p);
}

/* Takes back what a grant reserved, and the hold on the pool that went with it. */
static void give_back(struct pool *p, size_t capacity, struct buffer *b)
{
        bool last;

        mutex_lock(&p->lock);
        p->out -= capacity;
        p->buffers--;
        if (b && !p->shut_down)
                keep(p, steal_ptr(b));
        grant_waiting(p);
        last = --p->holders == 0;
        mutex_unlock(&p->lock);

        if (b)
                buffer_destroy(b);
        if (last)
                pool_destroy(p);
}

/* Waits until R is granted. Returns 0, -ETIMEDOUT or -ESHUTDOWN; then R is out of the queue. */
static int wait_for_room(struct pool *p, struct request *r, deadline_t deadline) REQUIRES(p->lock)
{
        int result = 0;

        p->waits++;
        p->waiting++;
        TAILQ_INSERT_TAIL(&p->requests, r, next);
        while (!r->granted && !p->shut_down && result == 0)
                result = cond_wait_until(&r->wake, &p->lock, deadline);
        p->waiting--;
        if (r->granted)
                return 0;

        TAILQ_REMOVE(&p->requests, r, next);
        grant_waiting(p); /* the one behind may need less */
        return p->shut_down ? -ESHUTDOWN : result;
}

static int reserve(struct pool *p, struct request *r, deadline_t deadline, struct error *e)
{
        size_t out;
        bool last = false;
        int result = 0;

        mutex_lock(&p->lock);
        p->gets++;
        p->holders++;
        if (p->shut_down)
                result = -ESHUTDOWN;
        else if (TAILQ_EMPTY(&p->requests) && has_room(p, r->capacity))
                grant(p, r);
        else
                result = wait_for_room(p, r, deadline);
        out = p->out;
        if (result < 0)
                last = --p->holders == 0;
        mutex_unlock(&p->lock);

        if (result == -ETIMEDOUT)
                error_set(e, ERROR_OTHER, ETIMEDOUT,
                          "waiting for %zu bytes of buffers: timed out with %zu of %zu bytes in use", r->capacity, out,
                          p->limit);
        else if (result < 0)
                error_set(e, ERROR_OTHER, ESHUTDOWN, "the buffer pool is shut down");
        if (last)
                pool_destroy(p);
        return result;
}

int pool_new(size_t limit, struct pool **ret)
{
        struct pool *p = calloc(1, sizeof(*p));

        if (!p)
                return -ENOMEM;
        p->limit = limit;
        mutex_init(&p->lock);
        mutex_lock(&p->lock);
        p->holders = 1;
        TAILQ_INIT(&p->requests);
        TAILQ_INIT(&p->by_age);
        for (size_t i = 0; i < CLASS_COUNT; i++)
                TAILQ_INIT(&p->by_class[i]);
        mutex_unlock(&p->lock);
        *ret = p;
        return 0;
}

struct pool *pool_free(struct pool *p)
{
        struct buffer_list kept = TAILQ_HEAD_INITIALIZER(kept);
        struct request *r;
        bool last;

        if (!p)
                return NULL;
        mutex_lock(&p->lock);
        p->shut_down = true;
        while (p->kept > 0)
                evict_oldest(p, &kept);
        TAILQ_FOREACH(r, &p->requests, next)
                cond_signal(&r->wake);
        last = --p->holders == 0;
        mutex_unlock(&p->lock);

        buffers_destroy(&kept);
        if (last)
                pool_destroy(p);
        return NULL;
}

int pool_get(struct pool *p, size_t size, deadline_t deadline, struct pool_buf **ret, struct error *e)
{
        struct request r = { .evicted = TAILQ_HEAD_INITIALIZER(r.evicted) };
        struct buffer *b;
        int result;

        if (size == 0)
                return error_set(e, ERROR_OTHER, EINVAL, "a buffer of no bytes was asked for");
        if (size > SIZE_MAX / 4)
                return error_set(e, ERROR_OTHER, ENOMEM, "a buffer of %zu bytes cannot exist", size);
        classify(size, p->limit, &r.capacity, &r.class);
        cond_init(&r.wake);
        result = reserve(p, &r, deadline, e);
        cond_destroy(&r.wake);
        if (result < 0)
                return result;

        buffers_destroy(&r.evicted);
        b = r.reused ? r.reused : buffer_new(p, r.capacity, r.class);
        if (!b) {
                give_back(p, r.capacity, NULL);
                return error_oom(e);
        }
        unpoison(b->face.data, size);
        poison(b->face.data + size, b->capacity - size);
        b->face.size = size;
        atomic_init(&b->refs, 1);
        *ret = &b->face;
        return 0;
}

struct pool_buf *pool_buf_ref(struct pool_buf *b)
{
        struct buffer *buffer = (struct buffer *) b;

        atomic_fetch_add_explicit(&buffer->refs, 1, memory_order_relaxed);
        return b;
}

struct pool_buf *pool_buf_unref(struct pool_buf *b)
{
        struct buffer *buffer = (struct buffer *) b;
        struct pool *p;
        size_t capacity;

        if (!b || atomic_fetch_sub_explicit(&buffer->refs, 1, memory_order_acq_rel) != 1)
                return NULL;
        p = buffer->pool;
        capacity = buffer->capacity;
#ifdef REGFS_POISON
        unpoison(b->data, capacity);
        memset(b->data, 0xa5, capacity);
        poison(b->data, capacity);
#endif
        if (buffer->class == CLASS_OVERSIZED)
                buffer = buffer_destroy(buffer); /* its memory must be gone before its room is anybody's */
        give_back(p, capacity, buffer);
        return NULL;
}

void pool_trim(struct pool *p)
{
        struct buffer_list kept = TAILQ_HEAD_INITIALIZER(kept);

        mutex_lock(&p->lock);
        while (p->kept > 0)
                evict_oldest(p, &kept);
        mutex_unlock(&p->lock);
        buffers_destroy(&kept);
}

void pool_get_stats(struct pool *p, struct pool_stats *ret)
{
        mutex_lock(&p->lock);
        *ret = (struct pool_stats) {
                .limit = p->limit,
                .out = p->out,
                .kept = p->kept,
                .buffers = p->buffers,
                .waiting = p->waiting,
                .gets = p->gets,
                .waits = p->waits,
        };
        mutex_unlock(&p->lock);
}
