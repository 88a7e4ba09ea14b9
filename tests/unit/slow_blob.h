/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A blob that a test commands. Each range has a producer, a thread that writes into the pool buffer and, as
 * transfers and decoders do, goes on writing there after the range was closed, until the test lets it end: only
 * then does it let go of the buffer. Included after cmocka.h. */

#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "regfs/blob.h"
#include "regfs/thread.h"

#define PRODUCER_STEP (16 * KIB)

/* A range that was asked for. */
struct slow_ask {
        uint64_t offset, length;
        bool closed;
};

#define SLOW_ASKS_MAX 4096

struct slow_blob {
        struct blob blob;
        const uint8_t *data;
        struct mutex lock;
        struct cond changed;
        uint64_t allowed GUARDED_BY(lock); /* no range gets bytes of the blob from here on */
        bool lingers GUARDED_BY(lock);     /* producers of closed ranges go on writing */
        unsigned wrong GUARDED_BY(lock);   /* so many of the next ranges that hold it get the byte at wrong_at wrong */
        uint64_t wrong_at GUARDED_BY(lock);
        int open_failure GUARDED_BY(lock); /* -errno of every range_open, or 0 */
        int wait_failure GUARDED_BY(lock);
        unsigned opened GUARDED_BY(lock);
        uint64_t asked GUARDED_BY(lock);     /* bytes, of all ranges */
        uint64_t sent GUARDED_BY(lock);      /* and those that have come */
        unsigned producers GUARDED_BY(lock); /* that have not ended */
        unsigned lingering GUARDED_BY(lock); /* of them, whose range is closed */
        struct slow_ask asks[SLOW_ASKS_MAX] GUARDED_BY(lock);
        uint64_t twice GUARDED_BY(lock);   /* bytes asked for that were asked for before */
        unsigned at_once GUARDED_BY(lock); /* ranges opened while another one that shares bytes with it was open */
};

struct slow_range {
        struct blob_range range;
        struct pool_buf *buffer;
        uint8_t *to;
        uint64_t offset, length;
        uint64_t patience_ms;
        uint64_t wrong_at; /* or UINT64_MAX */
        size_t ask;
        uint64_t received; /* the blob's lock guards it, as the next two */
        bool closed;
        bool ended; /* by a failure */
};

static inline struct slow_blob *slow_blob(struct blob *b)
{
        return (struct slow_blob *) b;
}

/* What is written by whoever does not know that nobody wants it any more. A range that was complete has nothing to
 * write. */
static inline void slow_linger(struct slow_blob *b, struct slow_range *r) REQUIRES(b->lock)
{
        uint8_t byte = 0;

        if (r->received == r->length)
                return;
        b->lingering++;
        cond_broadcast(&b->changed);
        while (b->lingers) {
                mutex_unlock(&b->lock);
                memset(r->to, byte++, (size_t) r->length);
                nanosleep(&(struct timespec) { .tv_nsec = 100000 }, NULL);
                mutex_lock(&b->lock);
        }
        b->lingering--;
}

static inline void *slow_produce(void *arg)
{
        struct slow_range *r = arg;
        struct slow_blob *b = slow_blob(r->range.blob);

        mutex_lock(&b->lock);
        while (!r->closed) {
                uint64_t at = r->received, end = MIN(r->length, b->allowed > r->offset ? b->allowed - r->offset : 0);
                size_t n;

                if (at >= end) {
                        cond_wait(&b->changed, &b->lock);
                        continue;
                }
                n = (size_t) MIN(end - at, (uint64_t) PRODUCER_STEP);
                mutex_unlock(&b->lock);
                memcpy(r->to + at, b->data + r->offset + at, n);
                if (r->wrong_at >= r->offset + at && r->wrong_at < r->offset + at + n)
                        r->to[r->wrong_at - r->offset] ^= 0x20;
                mutex_lock(&b->lock);
                r->received += n;
                b->sent += n;
                cond_broadcast(&b->changed);
        }
        slow_linger(b, r);
        mutex_unlock(&b->lock);

        pool_buf_unref(r->buffer);
        free(r);
        mutex_lock(&b->lock);
        b->producers--;
        cond_broadcast(&b->changed);
        mutex_unlock(&b->lock);
        return NULL;
}

/* Enters a range into the list of those that were asked for. */
static inline size_t slow_ask(struct slow_blob *b, uint64_t offset, uint64_t length) REQUIRES(b->lock)
{
        size_t n = b->opened++;
        bool at_once = false;

        if (n >= SLOW_ASKS_MAX)
                abort();
        for (size_t k = 0; k < n; k++) {
                const struct slow_ask *o = &b->asks[k];
                uint64_t from = MAX(offset, o->offset), to = MIN(offset + length, o->offset + o->length);

                if (from >= to)
                        continue;
                b->twice += to - from;
                at_once |= !o->closed;
        }
        b->at_once += at_once;
        b->asks[n] = (struct slow_ask) { .offset = offset, .length = length };
        return n;
}

static inline int slow_open(struct blob *blob, uint64_t offset, uint64_t length, struct pool_buf *buffer, size_t at,
                            uint64_t patience_ms, struct blob_range **ret, struct error *e)
{
        struct slow_blob *b = slow_blob(blob);
        struct slow_range *r = calloc(1, sizeof(*r));
        pthread_t thread;
        int failure;

        if (!r || !range_fits(offset, length, blob->size) || !range_fits(at, length, buffer->size))
                abort();
        *r = (struct slow_range) {
                .range = { .blob = blob },
                .buffer = pool_buf_ref(buffer),
                .to = buffer->data + at,
                .offset = offset,
                .length = length,
                .patience_ms = patience_ms,
                .wrong_at = UINT64_MAX,
        };
        mutex_lock(&b->lock);
        r->ask = slow_ask(b, offset, length);
        b->asked += length;
        if (b->wrong > 0 && b->wrong_at >= offset && b->wrong_at < offset + length) {
                r->wrong_at = b->wrong_at;
                b->wrong -= b->wrong != UINT32_MAX;
        }
        failure = b->open_failure;
        b->producers += failure == 0;
        cond_broadcast(&b->changed);
        mutex_unlock(&b->lock);
        if (failure < 0) {
                pool_buf_unref(r->buffer);
                free(r);
                return error_set(e, ERROR_UNREACHABLE, -failure, "%s: nobody is there", blob->name);
        }
        if (thread_start(&thread, "producer", slow_produce, r) < 0 || pthread_detach(thread) != 0)
                abort();
        *ret = &r->range;
        return 0;
}

static inline int slow_wait(struct blob_range *range, uint64_t n, uint64_t *ret_received, struct error *e)
{
        struct slow_range *r = (struct slow_range *) range;
        struct slow_blob *b = slow_blob(range->blob);
        deadline_t deadline = deadline_in(r->patience_ms);
        int k = 0;

        if (n > r->length)
                abort();
        mutex_lock(&b->lock);
        while (k == 0 && r->received < n) {
                uint64_t before = r->received;

                k = b->wait_failure;
                if (k == 0)
                        k = cond_wait_until(&b->changed, &b->lock, deadline);
                if (r->received > before) {
                        deadline = deadline_in(r->patience_ms);
                        k = 0;
                }
        }
        *ret_received = r->received;
        mutex_unlock(&b->lock);
        return k < 0 ? error_set(e, ERROR_UNREACHABLE, -k, "%s: the bytes do not come", b->blob.name) : 0;
}

static inline struct blob_range *slow_close(struct blob_range *range)
{
        struct slow_range *r = (struct slow_range *) range;
        struct slow_blob *b = slow_blob(range->blob);

        mutex_lock(&b->lock);
        r->closed = true;
        b->asks[r->ask].closed = true;
        cond_broadcast(&b->changed);
        mutex_unlock(&b->lock);
        return NULL;
}

/* Waits for the producers. */
static inline struct blob *slow_free(struct blob *blob)
{
        struct slow_blob *b = slow_blob(blob);

        mutex_lock(&b->lock);
        b->lingers = false;
        while (b->producers > 0)
                cond_wait(&b->changed, &b->lock);
        mutex_unlock(&b->lock);
        cond_destroy(&b->changed);
        mutex_destroy(&b->lock);
        free(b->blob.name);
        free(b);
        return NULL;
}

/* DATA is borrowed. All of it is allowed to come. */
static inline struct slow_blob *slow_blob_new(const uint8_t *data, size_t size)
{
        static const struct blob_ops ops = {
                .range_open = slow_open,
                .range_wait = slow_wait,
                .range_close = slow_close,
                .free = slow_free,
        };
        struct slow_blob *b = calloc(1, sizeof(*b));

        if (!b)
                abort();
        mutex_init(&b->lock);
        cond_init(&b->changed);
        b->blob.ops = &ops;
        b->blob.size = size;
        b->blob.name = strdup("slow blob");
        b->data = data;
        b->allowed = UINT64_MAX;
        if (!b->blob.name || digest_of(DIGEST_SHA256, data, size, &b->blob.digest) < 0)
                abort();
        return b;
}

/* ---- commands ---- */

/* Sets a field under the lock and wakes everybody. */
#define slow_set(blob, field, value)              \
        do {                                      \
                mutex_lock(&(blob)->lock);        \
                (blob)->field = (value);          \
                cond_broadcast(&(blob)->changed); \
                mutex_unlock(&(blob)->lock);      \
        } while (0)

#define slow_get(blob, field)                     \
        ({                                        \
                __typeof__((blob)->field) _value; \
                mutex_lock(&(blob)->lock);        \
                _value = (blob)->field;           \
                mutex_unlock(&(blob)->lock);      \
                _value;                           \
        })

/* Waits until FIELD has reached VALUE. */
#define slow_await(blob, field, value)                              \
        do {                                                        \
                mutex_lock(&(blob)->lock);                          \
                while ((blob)->field != (value))                    \
                        cond_wait(&(blob)->changed, &(blob)->lock); \
                mutex_unlock(&(blob)->lock);                        \
        } while (0)
