/* SPDX-License-Identifier: Apache-2.0 */

/* Reads: answered from the store by the thread that got the request, or by whoever ends the flight that brings the
 * bytes. */

#include "ops.h"

#include <string.h>

#include "regfs/log.h"
#include "regfs/map.h"

#define PARTS_ON_STACK 8

/* A read that waits for a flight. Two hold it: op_read until it has started the fetch, and the answer that is to come.
 * The table holds none: whoever looks one up there takes a reference under the lock. */
struct pending {
        struct ops_state *state;
        uint64_t id;
        fuse_req_t req;
        fuse_ino_t ino;
        struct fetch_read *read; /* guarded by state->lock */
        bool interrupted;        /* guarded by state->lock */
        unsigned references;     /* guarded by state->lock */
        size_t size;
        uint64_t offset;
        uint8_t data[];
};

/* What a thread reads cached bytes into: grown on demand, freed when the thread ends. */
static _Thread_local struct {
        uint8_t *data;
        size_t size;
} scratch;
static pthread_key_t scratch_key;
static pthread_once_t scratch_once = PTHREAD_ONCE_INIT;

static void make_scratch_key(void)
{
        (void) pthread_key_create(&scratch_key, free);
}

static uint8_t *get_scratch(size_t size)
{
        if (scratch.size < size) {
                uint8_t *grown = malloc(size);

                if (!grown)
                        return NULL;
                free(scratch.data);
                scratch.data = grown;
                scratch.size = size;
                (void) pthread_once(&scratch_once, make_scratch_key);
                (void) pthread_setspecific(scratch_key, grown);
        }
        return scratch.data;
}

static void pending_unref(struct pending *p)
{
        struct ops_state *s = p->state;
        bool last;

        mutex_lock(&s->lock);
        last = --p->references == 0;
        mutex_unlock(&s->lock);
        if (!last)
                return;
        fetch_read_unref(p->read);
        free(p);
}

/* The flight has ended, or the read was cancelled: the one place where a pending read is answered. Never short. */
static void answer(void *context, int result, const struct error *e)
{
        struct pending *p = context;
        struct ops_state *s = p->state;

        if (result == 0) {
                fuse_reply_buf(p->req, (const char *) p->data, p->size);
        } else if (result == -EINTR) {
                log_debug("read #%ju of inode %ju interrupted: the flight goes on", (uintmax_t) p->id,
                          (uintmax_t) p->ino);
                fuse_reply_err(p->req, EINTR);
        } else {
                log_error("read of %zu bytes at %ju of inode %ju: %s", p->size, (uintmax_t) p->offset,
                          (uintmax_t) p->ino, e->message);
                fuse_reply_err(p->req, EIO);
        }

        /* Only now: whoever drains the session waits for the answer itself, not for its beginning. */
        mutex_lock(&s->lock);
        map_remove(s->pending, &p->id, sizeof(p->id));
        if (map_size(s->pending) == 0)
                cond_broadcast(&s->idle);
        mutex_unlock(&s->lock);
        pending_unref(p);
}

/* Detaches the reader of read number ID, if it still waits. */
static void cancel(struct ops_state *s, uint64_t id)
{
        struct fetch_read *read = NULL;
        struct pending *p;

        mutex_lock(&s->lock);
        p = map_get(s->pending, &id, sizeof(id));
        if (p) {
                p->references++;
                p->interrupted = true;
                read = p->read;
        }
        mutex_unlock(&s->lock);
        if (!p)
                return;
        if (read)
                fetch_cancel(read);
        pending_unref(p);
}

/* libfuse calls this from any thread, also long after the answer: hence a number and not a pointer. */
static void on_interrupt(fuse_req_t req, void *id)
{
        cancel(fuse_req_userdata(req), (uint64_t) (uintptr_t) id);
}

static struct pending *pending_new(fuse_req_t req, fuse_ino_t ino, size_t size, uint64_t offset)
{
        struct ops_state *s = fuse_req_userdata(req);
        struct pending *p = malloc(sizeof(*p) + size);
        int r;

        if (!p)
                return NULL;
        *p = (struct pending) {
                .state = s,
                .req = req,
                .ino = ino,
                .references = 2,
                .size = size,
                .offset = offset,
        };
        mutex_lock(&s->lock);
        p->id = s->next_id++;
        r = map_put(s->pending, &p->id, sizeof(p->id), p, NULL);
        mutex_unlock(&s->lock);
        if (r < 0) {
                free(p);
                return NULL;
        }
        return p;
}

static void read_later(fuse_req_t req, fuse_ino_t ino, uint64_t offset, size_t size, const struct fetch_part *parts,
                       size_t count, bool holes)
{
        struct ops_state *s = fuse_req_userdata(req);
        struct pending *p = pending_new(req, ino, size, offset);
        struct error e = ERROR_INIT;
        struct fetch_read *read;
        bool interrupted;
        int r;

        if (!p) {
                fuse_reply_err(req, ENOMEM);
                return;
        }
        LOG_SCOPE(log_next_request(), NULL);
        if (holes)
                memset(p->data, 0, size);
        fuse_req_interrupt_func(req, on_interrupt, (void *) (uintptr_t) p->id);

        r = fetch_start(parts, count, NULL, p->data, answer, p, &read, &e);
        if (r < 0) {
                answer(p, r, &e);
                pending_unref(p);
                return;
        }
        mutex_lock(&s->lock);
        p->read = read;
        interrupted = p->interrupted;
        mutex_unlock(&s->lock);
        if (interrupted)
                fetch_cancel(read);
        pending_unref(p);
}

void read_reply(fuse_req_t req, fuse_ino_t ino, uint64_t offset, size_t size)
{
        struct ops_state *s = fuse_req_userdata(req);
        struct image *image = s->image;
        struct fetch_part few[PARTS_ON_STACK], *parts = few;
        _cleanup_free_ struct fetch_part *many = NULL;
        uint32_t row = (uint32_t) (ino - 1);
        uint8_t *data;
        bool holes;
        size_t n;

        n = image_parts(image, row, offset, size, parts, ELEMENTSOF(few), &holes);
        if (n > ELEMENTSOF(few)) {
                parts = many = calloc(n, sizeof(*many));
                if (!many) {
                        fuse_reply_err(req, ENOMEM);
                        return;
                }
                n = image_parts(image, row, offset, size, parts, n, &holes);
        }
        data = get_scratch(size);
        if (!data) {
                fuse_reply_err(req, ENOMEM);
                return;
        }
        if (holes)
                memset(data, 0, size);
        if (fetch_cached(parts, n, data) == 0)
                fuse_reply_buf(req, (const char *) data, size);
        else
                read_later(req, ino, offset, size, parts, n, holes);
}

int ops_state_init(struct ops_state *s, struct image *image)
{
        *s = (struct ops_state) { .image = image, .next_id = 1 };
        mutex_init(&s->lock);
        cond_init(&s->idle);
        s->pending = map_new();
        return s->pending ? 0 : -ENOMEM;
}

void ops_state_drain(struct ops_state *s)
{
        mutex_lock(&s->lock);
        while (map_size(s->pending) > 0) {
                const void *key;
                size_t cursor = 0, length;
                void *value;
                uint64_t id;

                if (map_next(s->pending, &cursor, &key, &length, &value)) {
                        memcpy(&id, key, sizeof(id));
                        mutex_unlock(&s->lock);
                        cancel(s, id);
                        mutex_lock(&s->lock);
                }
                if (map_size(s->pending) > 0)
                        (void) cond_wait_until(&s->idle, &s->lock, deadline_in(10));
        }
        mutex_unlock(&s->lock);
}

void ops_state_clear(struct ops_state *s)
{
        map_free(s->pending, NULL);
        cond_destroy(&s->idle);
        mutex_destroy(&s->lock);
}
