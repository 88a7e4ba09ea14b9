/* SPDX-License-Identifier: Apache-2.0 */

/* Who holds what, and for how long, when callers leave early and many come at once. */

#include <curl/curl.h>
#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#include <cmocka.h>

#include "http_fixture.h"

/* A gate in front of curl_easy_cleanup: whoever stands there has a handle that libcurl has not let go of yet. */
static struct mutex gate_lock = MUTEX_INIT;
static struct cond gate_changed;
static bool gate_closed;
static unsigned gate_waiting;

void curl_easy_cleanup(CURL *easy)
{
        void (*real)(CURL *) = (void (*)(CURL *)) dlsym(RTLD_NEXT, "curl_easy_cleanup");

        mutex_lock(&gate_lock);
        gate_waiting++;
        cond_broadcast(&gate_changed);
        while (gate_closed)
                cond_wait(&gate_changed, &gate_lock);
        gate_waiting--;
        mutex_unlock(&gate_lock);
        real(easy);
}

static void gate_set(bool closed)
{
        mutex_lock(&gate_lock);
        gate_closed = closed;
        cond_broadcast(&gate_changed);
        mutex_unlock(&gate_lock);
}

static void gate_await(unsigned waiting)
{
        mutex_lock(&gate_lock);
        while (gate_waiting < waiting)
                cond_wait(&gate_changed, &gate_lock);
        mutex_unlock(&gate_lock);
}

static void nap(long ns)
{
        nanosleep(&(struct timespec) { .tv_nsec = ns }, NULL);
}

static size_t buffers_out(struct pool *p)
{
        struct pool_stats s;

        pool_get_stats(p, &s);
        return s.buffers;
}

static unsigned active(struct http *h)
{
        struct http_stats s;

        http_get_stats(h, &s);
        return s.active;
}

static struct pool *new_pool(size_t limit)
{
        struct pool *p = NULL;

        assert_int_equal(pool_new(limit, &p), 0);
        return p;
}

/* Serves the range asked for in small pieces, slowly, until the peer has gone. */
static void serve_slowly(struct http_exchange *x, void *context _unused_)
{
        uint64_t first, last;

        if (!exchange_range(x, &first, &last) || last >= BLOB_SIZE) {
                exchange_close(x);
                return;
        }
        exchange_printf(x, "HTTP/1.1 206 P\r\nContent-Range: bytes %llu-%llu/%zu\r\nContent-Length: %llu\r\n\r\n",
                        (unsigned long long) first, (unsigned long long) last, BLOB_SIZE,
                        (unsigned long long) (last - first + 1));
        while (first <= last && exchange_send(x, blob + first, MIN(last - first + 1, (uint64_t) 100))) {
                first += 100;
                nap(200000);
        }
}

static void slow_transfer_keeps_its_buffer_until_curl_has_let_go(void **state _unused_)
{
        _cleanup_(http_server_stop_ptr) struct http_server *s = new_server(serve_slowly, NULL);
        _cleanup_(http_free_ptr) struct http *h = new_http();
        struct http_request r = HTTP_REQUEST_INIT;
        struct pool *p = new_pool(MIB);
        struct pool_buf *b = NULL;
        struct transfer *t;
        uint64_t received;

        assert_int_equal(pool_get(p, BLOB_SIZE, DEADLINE_NEVER, &b, NULL), 0);
        r.ranged = true;
        r.range_length = BLOB_SIZE;
        r.sink = b;
        r.sink_capacity = BLOB_SIZE;
        t = start(h, s, "/", &r);
        assert_int_equal(transfer_wait(t, 100, deadline_in(PATIENCE), &received, NULL), 0);
        assert_int_equal(transfer_wait(t, BLOB_SIZE, deadline_in(5), &received, NULL), -ETIMEDOUT);

        gate_set(true);
        transfer_unref(t);
        pool_buf_unref(b);
        gate_await(1);
        assert_int_equal(buffers_out(p), 1);
        gate_set(false);
        while (buffers_out(p) > 0)
                nap(100000);
        pool_free(p);
}

static void finished_transfer_has_given_its_buffer_back(void **state _unused_)
{
        _cleanup_(http_server_stop_ptr) struct http_server *s = new_server(serve_blob, NULL);
        _cleanup_(http_free_ptr) struct http *h = new_http();
        struct http_request r = HTTP_REQUEST_INIT;
        struct pool *p = new_pool(MIB);
        struct pool_buf *b = NULL;
        struct transfer *t;

        assert_int_equal(pool_get(p, BLOB_SIZE, DEADLINE_NEVER, &b, NULL), 0);
        r.sink = b;
        r.sink_capacity = BLOB_SIZE;
        t = start(h, s, "/", &r);
        pool_buf_unref(b);
        expect_body(t, BLOB_SIZE);
        assert_int_equal(buffers_out(p), 0);
        transfer_unref(t);
        pool_free(p);
}

struct witness {
        struct mutex lock;
        struct cond changed;
        unsigned begun, hung_up;
        unsigned length; /* of the body that is promised */
};

static void serve_until_hangup(struct http_exchange *x, void *context)
{
        struct witness *w = context;

        exchange_printf(x, "HTTP/1.1 200 OK\r\nContent-Length: %u\r\n\r\n", w->length);
        mutex_lock(&w->lock);
        w->begun++;
        cond_broadcast(&w->changed);
        mutex_unlock(&w->lock);
        exchange_wait_hangup(x);
        mutex_lock(&w->lock);
        w->hung_up++;
        cond_broadcast(&w->changed);
        mutex_unlock(&w->lock);
}

static void witness_init(struct witness *w, unsigned length)
{
        memset(w, 0, sizeof(*w));
        w->length = length;
        mutex_init(&w->lock);
        cond_init(&w->changed);
}

static void witness_await(struct witness *w, const unsigned *counter, unsigned n)
{
        mutex_lock(&w->lock);
        while (*counter < n)
                cond_wait(&w->changed, &w->lock);
        mutex_unlock(&w->lock);
}

static void unref_ends_a_running_transfer(void **state _unused_)
{
        struct http_options patient = { .stall_timeout_ms = 3600000 };
        struct http_request r = HTTP_REQUEST_INIT;
        struct http_server *s;
        struct http *h = NULL;
        struct witness w;
        struct transfer *t;

        assert_int_equal(http_new(&patient, &h, NULL), 0);
        witness_init(&w, MIB);
        s = new_server(serve_until_hangup, &w);
        t = start(h, s, "/", &r);
        expect_status(t, 200);
        transfer_unref(t);
        witness_await(&w, &w.hung_up, 1);
        while (active(h) > 0)
                nap(100000);
        http_free(h);
        http_server_stop(s);
}

/* An error whose body comes in two parts, the second one when the test says so. */
static void serve_error_in_two_parts(struct http_exchange *x, void *context)
{
        struct witness *w = context;

        exchange_printf(x, "HTTP/1.1 401 No\r\nContent-Length: 10\r\n\r\n12345");
        mutex_lock(&w->lock);
        while (w->begun == 0)
                cond_wait(&w->changed, &w->lock);
        mutex_unlock(&w->lock);
        exchange_printf(x, "67890");
}

static void unref_after_the_headers_of_an_error_keeps_the_connection(void **state _unused_)
{
        _cleanup_(http_free_ptr) struct http *h = new_http();
        struct http_request r = HTTP_REQUEST_INIT;
        struct http_server *s;
        struct witness w;
        struct transfer *t;

        witness_init(&w, 0);
        s = new_server(serve_error_in_two_parts, &w);
        for (unsigned i = 0; i < 3; i++) {
                t = start(h, s, "/", &r);
                expect_status(t, 401);
                transfer_unref(t);
                mutex_lock(&w.lock);
                w.begun = 1;
                cond_broadcast(&w.changed);
                mutex_unlock(&w.lock);
                while (active(h) > 0)
                        nap(100000);
        }
        assert_int_equal(http_server_connections(s), 1);
        http_server_stop(s);
}

static void free_ends_every_transfer(void **state _unused_)
{
        struct transfer *transfers[10]; /* more than there are connections */
        struct pool *p = new_pool(MIB);
        struct http *h = new_http();
        struct http_server *s;
        struct witness w;

        witness_init(&w, 10);
        s = new_server(serve_until_hangup, &w);
        for (unsigned i = 0; i < 10; i++) {
                struct http_request r = HTTP_REQUEST_INIT;
                struct pool_buf *b = NULL;

                assert_int_equal(pool_get(p, 10, DEADLINE_NEVER, &b, NULL), 0);
                r.sink = b;
                r.sink_capacity = 10;
                transfers[i] = start(h, s, "/", &r);
                pool_buf_unref(b);
        }
        witness_await(&w, &w.begun, 3);
        assert_null(http_free(h));
        assert_int_equal(buffers_out(p), 0);
        for (unsigned i = 0; i < 10; i++) {
                expect_failure(transfers[i], ESHUTDOWN, "shutting down");
                transfer_unref(transfers[i]);
        }
        pool_free(p);
        http_server_stop(s);
}

/* A caller in a crowd: asks for ranges again and again, and leaves some of them early. */
struct caller {
        struct http *http;
        struct http_server *server;
        struct pool *pool;
        pthread_t thread;
        unsigned seed;
        unsigned rounds;
        bool leaves_early;
        unsigned wrong, failed, complete;
        struct error error; /* the last one that should not have been */
};

static void check_bytes(struct caller *c, const struct pool_buf *b, uint64_t offset, uint64_t received)
{
        if (memcmp(b->data, blob + offset, received) != 0)
                c->wrong++;
}

static void ask(struct caller *c)
{
        struct http_request r = HTTP_REQUEST_INIT;
        struct pool_buf *b = NULL;
        struct transfer *t = NULL;
        struct error e = ERROR_INIT;
        uint64_t received = 0;
        char url[100];
        int result;

        r.range_length = (unsigned) rand_r(&c->seed) % 20000 + 1;
        r.range_offset = (unsigned) rand_r(&c->seed) % (BLOB_SIZE - r.range_length);
        if (pool_get(c->pool, r.range_length, deadline_in(PATIENCE), &b, &e) < 0) {
                c->failed++;
                c->error = e;
                return;
        }
        r.url = http_server_url(c->server, "/blob", url, sizeof(url));
        r.ranged = true;
        r.sink = b;
        r.sink_capacity = r.range_length;
        r.deadline = deadline_in(PATIENCE);
        if (http_start(c->http, &r, &t, &e) < 0) {
                c->failed++;
                c->error = e;
                pool_buf_unref(b);
                return;
        }
        result = transfer_wait(t, UINT64_MAX, deadline_in(c->leaves_early ? (unsigned) rand_r(&c->seed) % 8 : PATIENCE),
                               &received, &e);
        check_bytes(c, b, r.range_offset, received);
        if (result == 0 && received == r.range_length)
                c->complete++;
        else if (!(c->leaves_early && result == -ETIMEDOUT)) {
                c->failed++;
                c->error = e;
        }
        transfer_unref(t);
        pool_buf_unref(b);
}

static void *caller_run(void *arg)
{
        struct caller *c = arg;

        for (unsigned i = 0; i < c->rounds; i++)
                ask(c);
        return NULL;
}

static void run_crowd(struct caller *crowd, unsigned count)
{
        for (unsigned i = 0; i < count; i++) {
                crowd[i].seed = i + 1;
                assert_int_equal(thread_start(&crowd[i].thread, "test-caller", caller_run, &crowd[i]), 0);
        }
        for (unsigned i = 0; i < count; i++)
                assert_int_equal(pthread_join(crowd[i].thread, NULL), 0);
        for (unsigned i = 0; i < count; i++) {
                assert_int_equal(crowd[i].wrong, 0);
                if (crowd[i].failed > 0)
                        fail_msg("%u failed: %s", crowd[i].failed, crowd[i].error.message);
        }
}

static void early_leavers_disturb_nobody(void **state _unused_)
{
        _cleanup_(http_server_stop_ptr) struct http_server *slow = new_server(serve_slowly, NULL);
        _cleanup_(http_free_ptr) struct http *h = new_http();
        struct pool *p = new_pool(512 * KIB); /* buffers are handed on all the time */
        struct caller crowd[12];

        for (unsigned i = 0; i < ELEMENTSOF(crowd); i++)
                crowd[i] = (struct caller) { .http = h, .server = slow, .pool = p, .rounds = 30, .leaves_early = true };
        run_crowd(crowd, ELEMENTSOF(crowd));
        while (active(h) > 0)
                nap(100000);
        assert_int_equal(buffers_out(p), 0);
        pool_free(p);
}

static void many_threads_are_served_at_once(void **state _unused_)
{
        _cleanup_(http_server_stop_ptr) struct http_server *s = new_server(serve_blob, NULL);
        _cleanup_(http_free_ptr) struct http *h = new_http();
        struct pool *p = new_pool(MIB);
        struct caller crowd[64];
        struct http_stats stats;

        for (unsigned i = 0; i < ELEMENTSOF(crowd); i++)
                crowd[i] = (struct caller) { .http = h, .server = s, .pool = p, .rounds = 10 };
        run_crowd(crowd, ELEMENTSOF(crowd));
        for (unsigned i = 0; i < ELEMENTSOF(crowd); i++)
                assert_int_equal(crowd[i].complete, 10);
        http_get_stats(h, &stats);
        assert_int_equal(stats.requests, 640);
        assert_int_equal(stats.active, 0);
        assert_int_equal(buffers_out(p), 0);
        assert_in_range(http_server_connections(s), 1, 6);
        pool_free(p);
}

static int set_up(void **state _unused_)
{
        cond_init(&gate_changed);
        fill_pattern(blob, sizeof(blob));
        return 0;
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(slow_transfer_keeps_its_buffer_until_curl_has_let_go),
                cmocka_unit_test(finished_transfer_has_given_its_buffer_back),
                cmocka_unit_test(unref_ends_a_running_transfer),
                cmocka_unit_test(unref_after_the_headers_of_an_error_keeps_the_connection),
                cmocka_unit_test(free_ends_every_transfer),
                cmocka_unit_test(early_leavers_disturb_nobody),
                cmocka_unit_test(many_threads_are_served_at_once),
        };

        return cmocka_run_group_tests(tests, set_up, NULL);
}
