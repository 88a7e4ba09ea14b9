/* SPDX-License-Identifier: Apache-2.0 */

/* A blob of a registry, by range. A server that ignores ranges sends everything: the blob is then received once
 * into a file without a name, and ranges are read from there. */

#include <stdio.h>
#include <string.h>

#include "client_internal.h"
#include "regfs/io.h"
#include "regfs/log.h"

#define SPOOL_SLICE_MS 200
#define SPOOL_RESTARTS_MAX 5

/* What a server sends in answer to a range that it ignores. It is its receiver's: one thread after the other. */
struct spool {
        struct exchange exchange;
        int fd;
        bool answered; /* the exchange has its 200 */
};

struct remote_blob {
        struct blob blob;
        struct registry_source *source;
        char *path;           /* "blobs/<digest>" */
        char **urls;          /* of a foreign layer, or NULL */
        atomic_size_t served; /* the place that answered last */
        struct mutex lock;
        struct cond spooled;
        char *target GUARDED_BY(lock); /* where the registry redirected to last, or NULL */
        bool ignores_ranges GUARDED_BY(lock);
        bool spooling GUARDED_BY(lock);          /* somebody receives into the spool now: `spool` is theirs */
        uint64_t spooled_bytes GUARDED_BY(lock); /* that lie in the spool */
        struct spool *spool;
};

/* So many bytes after a connection broke, whatever broke it is over. */
#define TROUBLE_OVER (256 * KIB)

struct remote_range {
        struct blob_range range;
        struct pool_buf *buffer;
        size_t at;
        uint64_t offset, length;
        uint64_t patience_ms;
        uint64_t received;     /* bytes of the range in the buffer */
        deadline_t deadline;   /* moves on with every byte */
        deadline_t trouble;    /* connections break: until then they may; 0 while they don't */
        uint64_t trouble_from; /* `received` when that began */
        struct exchange exchange;
        bool answered;  /* the exchange has its answer: body from `begun` on */
        uint64_t begun; /* the range's position where the exchange's body begins */
        bool whole;     /* it comes out of the spool */
};

static struct remote_blob *remote_blob(struct blob_range *r)
{
        return (struct remote_blob *) r->blob;
}

/* ---- one range ---- */

static void prepare(struct remote_blob *b, struct remote_range *r)
{
        struct exchange *x = &r->exchange;
        uint64_t from = r->offset + r->received;

        x->source = b->source;
        x->kind = REQUEST_BLOB;
        x->path = b->path;
        x->external = b->urls;
        x->offset = from;
        x->length = r->offset + r->length - from;
        /* The whole blob is asked for without a range: every server can do that. */
        x->ranged = !(from == 0 && x->length == b->blob.size);
        x->sink = r->buffer;
        x->sink_offset = r->at + (size_t) r->received;
        r->begun = r->received;
        r->answered = false;
}

static char *copy_target(struct remote_blob *b)
{
        char *copy;

        mutex_lock(&b->lock);
        copy = b->target ? strdup(b->target) : NULL;
        mutex_unlock(&b->lock);
        return copy;
}

static void keep_target(struct remote_blob *b, const struct exchange *x)
{
        /* A target that wants a token of its own is asked by way of the registry: one that is remembered goes
         * without. */
        char *copy = x->elsewhere && x->url && !x->refused_elsewhere ? strdup(x->url) : NULL, *old;

        mutex_lock(&b->lock);
        old = b->target;
        b->target = copy;
        mutex_unlock(&b->lock);
        free(old);
}

static int begin(struct remote_blob *b, struct remote_range *r, struct error *e)
{
        _cleanup_free_ char *target = copy_target(b);

        prepare(b, r);
        return exchange_begin(&r->exchange, target, r->deadline, e);
}

static int remote_range_open(struct blob *blob, uint64_t offset, uint64_t length, struct pool_buf *buffer, size_t at,
                             uint64_t patience_ms, struct blob_range **ret, struct error *e)
{
        struct remote_blob *b = (struct remote_blob *) blob;
        struct remote_range *r;
        struct error own = ERROR_INIT;

        if (!range_fits(offset, length, blob->size) || length == 0)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "%s: %ju bytes at %ju lie outside its %ju bytes",
                                 blob->name, (uintmax_t) length, (uintmax_t) offset, (uintmax_t) blob->size);
        r = calloc(1, sizeof(*r));
        if (!r)
                return error_oom(e);
        *r = (struct remote_range) {
                .range = { .blob = blob },
                .buffer = pool_buf_ref(buffer),
                .at = at,
                .offset = offset,
                .length = length,
                .patience_ms = patience_ms,
                .deadline = deadline_in(patience_ms),
                .exchange = EXCHANGE_INIT,
        };
        mutex_lock(&b->lock);
        r->whole = b->ignores_ranges;
        mutex_unlock(&b->lock);

        /* A request that could not be sent now is sent, and its failure told, when somebody waits. */
        if (!r->whole && begin(b, r, &own) < 0) {
                log_debug("%s: %s", blob->name, own.message);
                r->exchange.transfer = transfer_unref(r->exchange.transfer);
        }
        *ret = &r->range;
        return 0;
}

static struct blob_range *remote_range_close(struct blob_range *range)
{
        struct remote_range *r = (struct remote_range *) range;

        exchange_clear(&r->exchange);
        pool_buf_unref(r->buffer);
        free(r);
        return NULL;
}

/* ---- the spool ---- */

static struct spool *spool_free(struct spool *s)
{
        if (!s)
                return NULL;
        exchange_clear(&s->exchange);
        if (s->fd >= 0)
                close(s->fd);
        free(s);
        return NULL;
}

static int spool_new(struct remote_blob *b, struct error *e)
{
        struct spool *s = calloc(1, sizeof(*s));

        if (!s)
                return error_oom(e);
        s->exchange = (struct exchange) EXCHANGE_INIT;
        s->fd = temporary_file(e);
        if (s->fd < 0) {
                int r = s->fd;

                spool_free(s);
                return r;
        }
        s->exchange.source = b->source;
        s->exchange.kind = REQUEST_BLOB;
        s->exchange.path = b->path;
        s->exchange.external = b->urls;
        s->exchange.sink_fd = s->fd;
        s->exchange.sink_fd_max = b->blob.size;
        b->spool = s;
        log_info("%s: the server ignores ranges: receiving all %ju bytes at once", b->blob.name,
                 (uintmax_t) b->blob.size);
        return 0;
}

/* Receives into the spool until N bytes are there, but for a short while only: so others get to see what came.
 * FROM bytes are there. A broken connection starts over: that server knows no ranges. */
static int spool_receive(struct remote_blob *b, uint64_t from, uint64_t n, deadline_t deadline, uint64_t *ret_received,
                         struct error *e)
{
        deadline_t slice = MIN(deadline, deadline_in(SPOOL_SLICE_MS));
        struct spool *s = b->spool;
        uint64_t received = from;
        int r;

        if (!s->answered) {
                r = exchange_answer(&s->exchange, deadline, e);
                if (r < 0)
                        return r;
                s->answered = true;
        }
        r = transfer_wait(s->exchange.transfer, n, slice, &received, e);
        *ret_received = received;
        if (r == 0 && received < n)
                r = error_set(e, ERROR_BAD_DATA, EBADMSG, "%s: %ju bytes instead of %ju", b->blob.name,
                              (uintmax_t) received, (uintmax_t) b->blob.size);
        /* The slice is over, not the transfer; or nobody has patience left, and the transfer goes on for the next
         * one. */
        if (r == 0 || (r == -ETIMEDOUT && deadline_left(slice) == 0))
                return 0;
        s->answered = false;
        *ret_received = 0;
        return exchange_failed(&s->exchange, deadline, e);
}

/* Opens the spool, or receives into it, as the one that does now. */
static int spool_step(struct remote_blob *b, uint64_t from, uint64_t n, deadline_t deadline, uint64_t *ret_received,
                      struct error *e)
{
        int r = b->spool ? 0 : spool_new(b, e);

        return r < 0 ? r : spool_receive(b, from, n, deadline, ret_received, e);
}

/* Waits until the first N bytes are in the spool. One thread at a time receives; the others wait for what it
 * brings, or for their turn. Every byte renews the patience, but not for a server that breaks off again and again. */
static int spool_wait(struct remote_blob *b, uint64_t n, uint64_t patience_ms, struct error *e)
{
        deadline_t deadline = deadline_in(patience_ms);
        unsigned restarts = 0;
        uint64_t seen;
        int r = 0;

        mutex_lock(&b->lock);
        seen = b->spooled_bytes;
        while (r == 0 && b->spooled_bytes < n) {
                uint64_t received = b->spooled_bytes;

                if (received > seen)
                        deadline = deadline_in(patience_ms);
                else if (received < seen)
                        restarts++;
                seen = received;
                if (deadline_left(deadline) == 0 || restarts > SPOOL_RESTARTS_MAX) {
                        r = error_set(e, ERROR_UNREACHABLE, restarts > SPOOL_RESTARTS_MAX ? ECONNRESET : ETIMEDOUT,
                                      "only %ju bytes in time after %u restarts, of a server that ignores ranges",
                                      (uintmax_t) received, restarts);
                } else if (b->spooling) {
                        (void) cond_wait_until(&b->spooled, &b->lock, deadline);
                } else {
                        b->spooling = true;
                        mutex_unlock(&b->lock);
                        r = spool_step(b, received, n, deadline, &received, e);
                        mutex_lock(&b->lock);
                        b->spooled_bytes = received;
                        b->spooling = false;
                        cond_broadcast(&b->spooled);
                }
        }
        mutex_unlock(&b->lock);
        return r;
}

static int wait_whole(struct remote_blob *b, struct remote_range *r, uint64_t n, struct error *e)
{
        int k;

        k = spool_wait(b, r->offset + n, r->patience_ms, e);
        if (k < 0)
                return k;
        k = pread_full(b->spool->fd, r->buffer->data + r->at + r->received, (size_t) (n - r->received),
                       r->offset + r->received);
        if (k < 0)
                return error_errno(e, -k, "%s: temporary file", b->blob.name);
        r->received = n;
        return 0;
}

/* ---- waiting ---- */

static void answered(struct remote_blob *b, struct remote_range *r)
{
        r->answered = true;
        atomic_store(&b->served, r->exchange.endpoint);
        keep_target(b, &r->exchange);
        if (!transfer_range_ignored(r->exchange.transfer))
                return;
        r->whole = true;
        exchange_clear(&r->exchange);
        r->exchange = (struct exchange) EXCHANGE_INIT;
        mutex_lock(&b->lock);
        b->ignores_ranges = true;
        mutex_unlock(&b->lock);
}

/* Waits for the body that is under way. A byte renews the patience. */
static int receive(struct remote_blob *b, struct remote_range *r, uint64_t n, struct error *e)
{
        uint64_t before = r->received, got = 0;
        deadline_t was = r->deadline;
        int k;

        k = transfer_wait(r->exchange.transfer, n - r->begun, r->deadline, &got, e);
        r->received = r->begun + MIN(got, r->length - r->begun);
        if (r->received > before) {
                r->deadline = deadline_in(r->patience_ms);
                /* Our patience was over, not the server's: it sends. */
                if (k == -ETIMEDOUT && deadline_left(was) == 0)
                        return 0;
        }
        if (k == 0 && r->received < n)
                k = error_set(e, ERROR_BAD_DATA, EBADMSG, "%s: the server sent %ju bytes at %ju instead of %ju",
                              b->blob.name, (uintmax_t) got, (uintmax_t) (r->offset + r->begun),
                              (uintmax_t) (r->length - r->begun));
        return k;
}

/* The body broke off: what came stays, the rest is asked for again, from the registry itself; by who waits next,
 * when nothing is worth a try now. A few bytes before every break do not renew the patience: the end would never
 * come. */
static int renew(struct remote_blob *b, struct remote_range *r, struct error *e)
{
        int k;

        if (r->trouble == 0 || r->received - r->trouble_from >= TROUBLE_OVER) {
                r->trouble = deadline_in(r->patience_ms);
                r->trouble_from = r->received;
                r->exchange.attempts = 0;
        }
        k = exchange_failed(&r->exchange, MIN(r->deadline, r->trouble), e);
        if (k < 0)
                r->trouble = 0;
        prepare(b, r);
        return k;
}

static int step(struct remote_blob *b, struct remote_range *r, uint64_t n, struct error *e)
{
        int k;

        if (r->answered)
                return receive(b, r, n, e);
        k = exchange_answer(&r->exchange, r->deadline, e);
        if (k == 0)
                answered(b, r);
        return k;
}

static int remote_range_wait(struct blob_range *range, uint64_t n, uint64_t *ret_received, struct error *e)
{
        struct remote_range *r = (struct remote_range *) range;
        struct remote_blob *b = remote_blob(range);
        struct error own = ERROR_INIT;
        int k = 0;

        if (!e)
                e = &own;
        /* Between two waits nobody asked: that time is not the server's. */
        r->deadline = deadline_in(r->patience_ms);
        while (k == 0 && r->received < n) {
                if (r->whole) {
                        k = wait_whole(b, r, n, e);
                        break;
                }
                k = step(b, r, n, e);
                /* exchange_answer has tried everything there is; a body that broke off has not. */
                if (k < 0 && r->answered)
                        k = renew(b, r, e);
        }
        if (k < 0) {
                error_prefix(e, "%s: bytes %ju-%ju", b->blob.name, (uintmax_t) (r->offset + r->received),
                             (uintmax_t) (r->offset + r->length - 1));
                return k;
        }
        *ret_received = r->received;
        return 0;
}

/* ---- the blob ---- */

/* When all are doubted, it is the last one that is asked last. A target that was redirected to is not asked again
 * before who redirects. */
static unsigned remote_blob_doubt(struct blob *blob)
{
        struct remote_blob *b = (struct remote_blob *) blob;
        size_t own = b->source->endpoints.count, served = atomic_load(&b->served);
        uint64_t all = ((uint64_t) 1 << own) - 1, one = (uint64_t) 1 << served, doubted;
        char *target;

        mutex_lock(&b->lock);
        target = b->target;
        b->target = NULL;
        mutex_unlock(&b->lock);
        free(target);
        if (served < own) {
                doubted = atomic_fetch_or(&b->source->doubted, one) | one;
                if (doubted == all)
                        atomic_store(&b->source->doubted, one);
        }
        return (unsigned) MAX(own, (size_t) 2) - 1;
}

static struct blob *remote_blob_free(struct blob *blob)
{
        struct remote_blob *b = (struct remote_blob *) blob;

        spool_free(b->spool);
        for (char **u = b->urls; u && *u; u++)
                free(*u);
        free(b->urls);
        free(b->target);
        free(b->path);
        free(b->blob.name);
        cond_destroy(&b->spooled);
        mutex_destroy(&b->lock);
        free(b);
        return NULL;
}

static const struct blob_ops remote_blob_ops = {
        .range_open = remote_range_open,
        .range_wait = remote_range_wait,
        .range_close = remote_range_close,
        .doubt = remote_blob_doubt,
        .free = remote_blob_free,
};

int registry_blob_new(struct registry_source *s, const struct descriptor *descriptor, struct blob **ret,
                      struct error *e)
{
        _cleanup_(blob_free_ptr) struct blob *blob = NULL;
        struct remote_blob *b = calloc(1, sizeof(*b));
        char digest[DIGEST_STRING_MAX];
        size_t n = 0;

        if (!b)
                return error_oom(e);
        blob = &b->blob;
        mutex_init(&b->lock);
        cond_init(&b->spooled);
        b->blob.ops = &remote_blob_ops;
        b->blob.digest = descriptor->digest;
        b->blob.size = descriptor->size;
        b->source = s;
        digest_format(&descriptor->digest, digest);
        b->path = str_printf("blobs/%s", digest);
        b->blob.name = str_printf("%s: blob %s", s->source.name, digest);
        if (!b->path || !b->blob.name)
                return error_oom(e);
        for (char **u = descriptor->urls; u && *u && n < EXTERNAL_URLS_MAX; u++)
                n++;
        if (n > 0) {
                b->urls = calloc(n + 1, sizeof(*b->urls));
                if (!b->urls)
                        return error_oom(e);
                for (size_t k = 0; k < n; k++) {
                        b->urls[k] = strdup(descriptor->urls[k]);
                        if (!b->urls[k])
                                return error_oom(e);
                }
        }
        *ret = steal_ptr(blob);
        return 0;
}
