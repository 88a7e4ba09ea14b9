/* SPDX-License-Identifier: Apache-2.0 */

/* The queue and the thread. A transfer is created by its caller, queued, and from then on driven by the thread alone;
 * the caller waits on the transfer's own lock and condition. The caller's unref only marks the transfer as abandoned:
 * the thread takes it out of libcurl, lets go of the sink, and drops the last reference. */

#include <inttypes.h>
#include <poll.h>
#include <string.h>
#include <strings.h>
#include <sys/eventfd.h>

#include "http_internal.h"
#include "regfs/log.h"

#define CONNECTIONS_PER_HOST 6
#define STREAMS_PER_HOST 32
#define ORIGINS_KEPT 32
#define CONNECTIONS_KEPT 64L
#define CONNECT_TIMEOUT_MS 10000
#define STALL_TIMEOUT_MS 20000
#define POLL_MAX_MS 60000

/* An abandoned answer that is nearly there is read to its end, to keep the connection for the next request. */
#define REST_MAX (64 * KIB)
#define REST_MS 1000

static void wake_thread(struct http *h)
{
        eventfd_write(h->wake_fd, 1); /* fails only when a wake-up is pending anyway */
}

static long http_version(const struct transfer *t)
{
        long version = 0;

        curl_easy_getinfo(t->easy, CURLINFO_HTTP_VERSION, &version);
        return version;
}

void transfer_answered(struct transfer *t)
{
        t->answered = true;
        t->origin->limit = http_version(t) == CURL_HTTP_VERSION_2_0 ? STREAMS_PER_HOST : t->http->connections_per_host;
        mutex_lock(&t->lock);
        t->phase = PHASE_HEADERS;
        cond_broadcast(&t->changed);
        mutex_unlock(&t->lock);
}

void transfer_received(struct transfer *t, size_t n)
{
        t->body_received += n;
        atomic_fetch_add_explicit(&t->http->bytes, n, memory_order_relaxed);

        mutex_lock(&t->lock);
        t->received = t->body_received;
        if (t->received >= t->wanted) {
                t->wanted = UINT64_MAX;
                cond_broadcast(&t->changed);
        }
        mutex_unlock(&t->lock);
}

static void drop(struct transfer *t)
{
        if (atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) == 1)
                transfer_free(t);
}

static const char *version_name(long version)
{
        switch (version) {
        case CURL_HTTP_VERSION_2_0:
                return "HTTP/2";
        case CURL_HTTP_VERSION_1_0:
                return "HTTP/1.0";
        default:
                return "HTTP/1.1";
        }
}

static void log_end(const struct transfer *t)
{
        LOG_SCOPE(t->request, NULL);
        uint64_t elapsed = clock_ms() - t->started;
        long connects = 0;

        if (t->error.kind != ERROR_NONE) {
                log_debug("%s; %" PRIu64 " bytes of the body, %" PRIu64 " ms", t->error.message, t->body_received,
                          elapsed);
                return;
        }
        curl_easy_getinfo(t->easy, CURLINFO_NUM_CONNECTS, &connects);
        log_debug("%s%s: %u, %" PRIu64 " bytes, %" PRIu64 " ms, %s connection, %s", t->title, t->range_text, t->status,
                  t->body_received, elapsed, connects > 0 ? "new" : "reused", version_name(http_version(t)));
}

static void free_origin(struct http_origin *o)
{
        free(o->key);
        free(o);
}

static struct http_origin *find_origin(struct http *h, const char *key)
{
        struct http_origin *o;

        TAILQ_FOREACH(o, &h->origins, next)
                if (strcasecmp(o->key, key) == 0)
                        return o;
        o = calloc(1, sizeof(*o));
        if (!o)
                return NULL;
        o->key = strdup(key);
        if (!o->key) {
                free(o);
                return NULL;
        }
        o->limit = h->connections_per_host;
        TAILQ_INIT(&o->waiting);
        TAILQ_INSERT_TAIL(&h->origins, o, next);
        h->origin_count++;
        return o;
}

/* Puts T at the end of its origin's line. */
static int join_origin(struct http *h, struct transfer *t)
{
        t->origin = find_origin(h, t->origin_key);
        if (!t->origin) {
                transfer_fail(t, ERROR_OTHER, ENOMEM, "out of memory");
                return -ENOMEM;
        }
        TAILQ_INSERT_TAIL(&t->origin->waiting, t, in_line);
        return 0;
}

static void leave_origin(struct transfer *t)
{
        if (!t->origin)
                return;
        if (t->admitted)
                t->origin->running--;
        else
                TAILQ_REMOVE(&t->origin->waiting, t, in_line);
        t->origin = NULL;
}

/* T is over: with t->error or without. */
static void finish(struct http *h, struct transfer *t)
{
        if (log_enabled(LOG_LEVEL_DEBUG))
                log_end(t);
        TAILQ_REMOVE(&h->active, t, next);
        if (t->easy) {
                curl_multi_remove_handle(h->multi, t->easy);
                curl_easy_cleanup(t->easy);
                t->easy = NULL;
        }
        leave_origin(t);
        transfer_release_sink(t);
        atomic_fetch_sub(&h->active_count, 1);

        mutex_lock(&t->lock);
        t->phase = PHASE_DONE;
        cond_broadcast(&t->changed);
        mutex_unlock(&t->lock);
        drop(t);
}

/* Takes T from its origin's line into libcurl. */
static void begin(struct http *h, struct transfer *t)
{
        LOG_SCOPE(t->request, NULL);
        CURLMcode code;

        TAILQ_REMOVE(&t->origin->waiting, t, in_line);
        t->admitted = true;
        t->origin->running++;
        t->started = clock_ms();
        atomic_fetch_add_explicit(&h->requests, 1, memory_order_relaxed);
        log_debug("%s%s: asking", t->title, t->range_text);

        if (transfer_make_easy(t) == 0) {
                code = curl_multi_add_handle(h->multi, t->easy);
                if (code == CURLM_OK)
                        return;
                transfer_fail(t, ERROR_OTHER, code == CURLM_OUT_OF_MEMORY ? ENOMEM : EIO, "%s",
                              curl_multi_strerror(code));
        }
        finish(h, t);
}

static void forget_origin(struct http *h, struct http_origin *o)
{
        TAILQ_REMOVE(&h->origins, o, next);
        h->origin_count--;
        free_origin(o);
}

/* Begins what has its turn; libcurl takes it up in the next round. */
static void begin_waiting(struct http *h)
{
        struct http_origin *o, *following;

        for (o = TAILQ_FIRST(&h->origins); o; o = following) {
                following = TAILQ_NEXT(o, next);
                while (!TAILQ_EMPTY(&o->waiting) && o->running < o->limit)
                        begin(h, TAILQ_FIRST(&o->waiting));
                if (h->origin_count > ORIGINS_KEPT && o->running == 0 && TAILQ_EMPTY(&o->waiting))
                        forget_origin(h, o);
        }
}

static void accept_queued(struct http *h, bool *ret_stopping)
{
        struct transfer_list queue = TAILQ_HEAD_INITIALIZER(queue);
        struct transfer *t;

        mutex_lock(&h->lock);
        TAILQ_CONCAT(&queue, &h->queue, next);
        *ret_stopping = h->stopping;
        mutex_unlock(&h->lock);

        while ((t = TAILQ_FIRST(&queue))) {
                TAILQ_REMOVE(&queue, t, next);
                TAILQ_INSERT_TAIL(&h->active, t, next);
                t->started = clock_ms();
                if (join_origin(h, t) < 0)
                        finish(h, t);
        }
}

static void fail_deadline(struct transfer *t)
{
        if (t->answered)
                transfer_fail(t, ERROR_UNREACHABLE, ETIMEDOUT, "deadline passed after %" PRIu64 " bytes",
                              t->body_received);
        else if (!t->admitted && t->origin->running > 0)
                transfer_fail(t, ERROR_UNREACHABLE, ETIMEDOUT, "deadline passed while %u others had the connections",
                              t->origin->running);
        else
                transfer_fail(t, ERROR_UNREACHABLE, ETIMEDOUT, "deadline passed %s",
                              t->stalled != DEADLINE_NEVER ? "before the server answered" : "without a connection");
}

static void fail_stalled(struct transfer *t)
{
        transfer_fail(t, ERROR_UNREACHABLE, ETIMEDOUT,
                      "the server is silent: nothing for %" PRIu64 ".%" PRIu64 " s, after %" PRIu64
                      " bytes of the body",
                      t->http->stall_timeout_ms / 1000, t->http->stall_timeout_ms % 1000 / 100, t->body_received);
}

/* Whether the rest of the abandoned T is worth waiting for: the short body of an error or a redirect, most often.
 * HTTP/2 needs no such thing: there only the stream ends. */
static bool may_finish(struct transfer *t, uint64_t now)
{
        if (t->finishing)
                return true;
        if (!t->answered || (t->target != BODY_MEMORY && t->target != BODY_ERROR) || t->content_length == UINT64_MAX ||
            t->content_length - t->body_received > REST_MAX || http_version(t) == CURL_HTTP_VERSION_2_0)
                return false;
        t->finishing = true;
        t->deadline = MIN(t->deadline, now + REST_MS);
        return true;
}

/* Ends what its caller gave up, what is past its deadline or stalled, and on shutdown everything.
 * Returns the next deadline. */
static deadline_t end_overdue(struct http *h, bool stopping)
{
        deadline_t next = DEADLINE_NEVER;
        struct transfer *t, *following;
        uint64_t now = clock_ms();

        for (t = TAILQ_FIRST(&h->active); t; t = following) {
                following = TAILQ_NEXT(t, next);
                if (stopping)
                        transfer_fail(t, ERROR_OTHER, ESHUTDOWN, "shutting down");
                else if (atomic_load(&t->abandoned) && !may_finish(t, now))
                        transfer_fail(t, ERROR_OTHER, ECANCELED, "given up by its caller");
                else if (t->deadline <= now)
                        fail_deadline(t);
                else if (t->stalled <= now)
                        fail_stalled(t);
                else {
                        next = MIN(next, t->deadline);
                        next = MIN(next, t->stalled);
                        continue;
                }
                finish(h, t);
        }
        return next;
}

static void end_completed(struct http *h)
{
        CURLMsg *message;
        int left;

        while ((message = curl_multi_info_read(h->multi, &left))) {
                CURLcode code = message->data.result;
                char *private = NULL;
                struct transfer *t;

                if (message->msg != CURLMSG_DONE)
                        continue;
                curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &private);
                t = (struct transfer *) (void *) private;
                transfer_conclude(t, code);
                finish(h, t);
        }
}

static void wait_for_events(struct http *h, deadline_t deadline)
{
        struct curl_waitfd wake = { .fd = h->wake_fd, .events = CURL_WAIT_POLLIN };
        int timeout = (int) MIN(deadline_left(deadline), (uint64_t) POLL_MAX_MS);
        CURLMcode code = curl_multi_poll(h->multi, &wake, 1, timeout, NULL);
        eventfd_t count;

        if (code != CURLM_OK) {
                log_warning("waiting for the network: %s", curl_multi_strerror(code));
                poll(NULL, 0, 100); /* out of memory, most likely: do not spin */
        }
        eventfd_read(h->wake_fd, &count);
}

static void *http_run(void *arg)
{
        struct http *h = arg;
        struct http_origin *o, *following;
        bool stopping = false;
        deadline_t next;
        int running;

        for (;;) {
                accept_queued(h, &stopping);
                curl_multi_perform(h->multi, &running);
                end_completed(h);
                next = end_overdue(h, stopping); /* after what has arrived was looked at */
                if (stopping)
                        break;
                begin_waiting(h);
                wait_for_events(h, next);
        }
        for (o = TAILQ_FIRST(&h->origins); o; o = following) {
                following = TAILQ_NEXT(o, next);
                free_origin(o);
        }
        curl_multi_cleanup(h->multi);
        return NULL;
}

static CURLcode curl_initialised;

static void initialise_curl(void)
{
        curl_initialised = curl_global_init(CURL_GLOBAL_DEFAULT);
}

struct http *http_unref(struct http *h)
{
        if (!h || atomic_fetch_sub_explicit(&h->refs, 1, memory_order_acq_rel) != 1)
                return NULL;
        if (h->wake_fd >= 0)
                close(h->wake_fd);
        free(h->user_agent);
        cond_destroy(&h->stopped);
        mutex_destroy(&h->lock);
        free(h);
        return NULL;
}

static int set_up_multi(struct http *h, struct error *e)
{
        CURLMcode code;

        h->multi = curl_multi_init();
        if (!h->multi)
                return error_oom(e);
        code = curl_multi_setopt(h->multi, CURLMOPT_PIPELINING, (long) CURLPIPE_MULTIPLEX);
        if (code == CURLM_OK)
                code = curl_multi_setopt(h->multi, CURLMOPT_MAXCONNECTS, CONNECTIONS_KEPT);
        if (code != CURLM_OK)
                return error_set(e, ERROR_OTHER, EIO, "setting up libcurl: %s", curl_multi_strerror(code));
        return 0;
}

static int set_up(struct http *h, const struct http_options *o, struct error *e)
{
        static pthread_once_t once = PTHREAD_ONCE_INIT;
        int r;

        h->connections_per_host = o && o->connections_per_host ? o->connections_per_host : CONNECTIONS_PER_HOST;
        h->connect_timeout_ms = o && o->connect_timeout_ms ? o->connect_timeout_ms : CONNECT_TIMEOUT_MS;
        h->stall_timeout_ms = o && o->stall_timeout_ms ? o->stall_timeout_ms : STALL_TIMEOUT_MS;
        h->user_agent = strdup(o && o->user_agent ? o->user_agent : "regfs/" REGFS_VERSION);
        if (!h->user_agent)
                return error_oom(e);
        h->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (h->wake_fd < 0)
                return error_errno(e, errno, "creating an eventfd for the transfer thread");
        r = pthread_once(&once, initialise_curl);
        if (r != 0 || curl_initialised != CURLE_OK)
                return error_set(e, ERROR_OTHER, EIO, "initialising libcurl: %s", curl_easy_strerror(curl_initialised));
        http_trust_find(&h->trust);
        r = set_up_multi(h, e);
        if (r < 0)
                return r;
        r = thread_start(&h->thread, "regfs-http", http_run, h);
        return r < 0 ? error_errno(e, -r, "starting the transfer thread") : 0;
}

int http_new(const struct http_options *options, struct http **ret, struct error *e)
{
        struct http *h = calloc(1, sizeof(*h));
        int r;

        if (!h)
                return error_oom(e);
        mutex_init(&h->lock);
        cond_init(&h->stopped);
        mutex_lock(&h->lock);
        TAILQ_INIT(&h->queue);
        mutex_unlock(&h->lock);
        TAILQ_INIT(&h->active);
        TAILQ_INIT(&h->origins);
        atomic_init(&h->refs, 1);
        h->wake_fd = -1;
        r = set_up(h, options, e);
        if (r < 0) {
                if (h->multi)
                        curl_multi_cleanup(h->multi);
                http_unref(h);
                return r;
        }
        *ret = h;
        return 0;
}

void http_stop(struct http *h)
{
        mutex_lock(&h->lock);
        h->stopping = true;
        cond_broadcast(&h->stopped);
        mutex_unlock(&h->lock);
        wake_thread(h);
}

void http_pause(struct http *h, uint64_t ms)
{
        deadline_t deadline = deadline_in(ms);

        mutex_lock(&h->lock);
        while (!h->stopping && deadline_left(deadline) > 0)
                (void) cond_wait_until(&h->stopped, &h->lock, deadline);
        mutex_unlock(&h->lock);
}

struct http *http_free(struct http *h)
{
        if (!h)
                return NULL;
        http_stop(h);
        pthread_join(h->thread, NULL);
        return http_unref(h);
}

int http_start(struct http *h, const struct http_request *request, struct transfer **ret, struct error *e)
{
        _cleanup_(transfer_free_ptr) struct transfer *t = NULL;
        bool stopping;
        int r;

        r = transfer_new(h, request, &t, e);
        if (r < 0)
                return r;
        atomic_store_explicit(&t->refs, 2, memory_order_relaxed); /* the thread's */
        mutex_lock(&h->lock);
        stopping = h->stopping;
        if (!stopping) {
                TAILQ_INSERT_TAIL(&h->queue, t, next);
                atomic_fetch_add(&h->active_count, 1);
        }
        mutex_unlock(&h->lock);
        if (stopping)
                return error_set(e, ERROR_OTHER, ESHUTDOWN, "%s: shutting down", t->title);
        wake_thread(h);
        *ret = steal_ptr(t);
        return 0;
}

struct transfer *transfer_unref(struct transfer *t)
{
        bool running;

        if (!t)
                return NULL;
        mutex_lock(&t->lock);
        running = t->phase != PHASE_DONE;
        mutex_unlock(&t->lock);
        if (running) {
                atomic_store(&t->abandoned, true);
                wake_thread(t->http);
        }
        drop(t);
        return NULL;
}

int transfer_wait_headers(struct transfer *t, deadline_t deadline, struct error *e)
{
        enum transfer_phase phase;
        int r = 0;

        mutex_lock(&t->lock);
        while (t->phase == PHASE_QUEUED && r == 0)
                r = cond_wait_until(&t->changed, &t->lock, deadline);
        phase = t->phase;
        mutex_unlock(&t->lock);

        if (phase == PHASE_QUEUED)
                return error_set(e, ERROR_UNREACHABLE, ETIMEDOUT, "%s%s: no answer in time", t->title, t->range_text);
        return t->answered ? 0 : transfer_explain(t, e);
}

int transfer_wait(struct transfer *t, uint64_t n, deadline_t deadline, uint64_t *ret_received, struct error *e)
{
        uint64_t received;
        bool done;
        int r = 0;

        mutex_lock(&t->lock);
        while (t->phase != PHASE_DONE && t->received < n && r == 0) {
                t->wanted = MIN(t->wanted, n);
                r = cond_wait_until(&t->changed, &t->lock, deadline);
        }
        done = t->phase == PHASE_DONE;
        received = t->received;
        mutex_unlock(&t->lock);

        if (ret_received)
                *ret_received = received;
        if (received >= n)
                return 0;
        if (!done)
                return error_set(e, ERROR_UNREACHABLE, ETIMEDOUT, "%s%s: only %" PRIu64 " bytes in time", t->title,
                                 t->range_text, received);
        return t->error.kind == ERROR_NONE ? 0 : transfer_explain(t, e);
}

void http_get_stats(struct http *h, struct http_stats *ret)
{
        *ret = (struct http_stats) {
                .requests = atomic_load_explicit(&h->requests, memory_order_relaxed),
                .bytes = atomic_load_explicit(&h->bytes, memory_order_relaxed),
                .active = atomic_load(&h->active_count),
        };
}
