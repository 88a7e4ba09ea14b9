/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the tests of the token cache share: a token server and a clock that a test commands, and callers in threads. */

#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

#include <cmocka.h>

#include "cache/auth/token_internal.h"

#include "regfs/text.h"

/* What a test waits for at most: passed only by a bug. */
#define PATIENCE_MS 20000

/* All tokens begin with it, and the realm has it where a log line must not. */
#define SECRET "s3cr3t"

/* A clock that stands still until a test moves it. */
static _Atomic uint64_t fake_now;

static inline uint64_t fake_clock(_unused_ void *context)
{
        return fake_now;
}

/* A token server that a test commands. Fetches are numbered from 1; the tokens are "s3cr3t-1", "s3cr3t-2" … */
struct server {
        struct token_cache *cache;
        struct mutex lock;
        struct cond changed;
        unsigned calls GUARDED_BY(lock);
        unsigned busy GUARDED_BY(lock);
        unsigned released GUARDED_BY(lock); /* a fetch with a greater number gets no answer */
        int results[3] GUARDED_BY(lock);    /* of the first fetches; all others succeed */
        uint64_t lifetime_s GUARDED_BY(lock);
        uint64_t takes_ms GUARDED_BY(lock); /* of the fake clock */
        uint64_t joins GUARDED_BY(lock);    /* no fetch ends before so many calls have joined a flight */
};

static inline void server_init(struct server *s, struct token_cache *cache)
{
        *s = (struct server) { .cache = cache };
        mutex_init(&s->lock);
        cond_init(&s->changed);
        mutex_lock(&s->lock);
        s->released = UINT_MAX;
        s->lifetime_s = 300;
        mutex_unlock(&s->lock);
}

static inline void server_destroy(struct server *s)
{
        cond_destroy(&s->changed);
        mutex_destroy(&s->lock);
}

/* Lets the first N fetches have their answers, and no other. */
static inline void server_release(struct server *s, unsigned n)
{
        mutex_lock(&s->lock);
        s->released = n;
        cond_broadcast(&s->changed);
        mutex_unlock(&s->lock);
}

static inline void server_set_result(struct server *s, unsigned n, int result)
{
        mutex_lock(&s->lock);
        s->results[n - 1] = result;
        mutex_unlock(&s->lock);
}

static inline void server_set_lifetime(struct server *s, uint64_t lifetime_s, uint64_t takes_ms)
{
        mutex_lock(&s->lock);
        s->lifetime_s = lifetime_s;
        s->takes_ms = takes_ms;
        mutex_unlock(&s->lock);
}

static inline void server_require_joins(struct server *s, uint64_t joins)
{
        mutex_lock(&s->lock);
        s->joins = joins;
        mutex_unlock(&s->lock);
}

static inline unsigned server_calls(struct server *s)
{
        unsigned calls;

        mutex_lock(&s->lock);
        calls = s->calls;
        mutex_unlock(&s->lock);
        return calls;
}

static inline void server_await_calls(struct server *s, unsigned calls)
{
        deadline_t deadline = deadline_in(PATIENCE_MS);
        bool reached;

        mutex_lock(&s->lock);
        while (s->calls < calls && cond_wait_until(&s->changed, &s->lock, deadline) == 0)
                ;
        reached = s->calls >= calls;
        mutex_unlock(&s->lock);
        assert_true(reached);
}

static inline struct token_cache_stats stats_of(struct token_cache *c)
{
        struct token_cache_stats stats;

        token_cache_get_stats(c, &stats);
        return stats;
}

static inline bool wait_for_joins(struct token_cache *c, uint64_t joins)
{
        deadline_t deadline = deadline_in(PATIENCE_MS);

        while (stats_of(c).joins < joins && deadline_left(deadline) > 0)
                nanosleep(&(struct timespec) { .tv_nsec = 1000000 }, NULL);
        return stats_of(c).joins >= joins;
}

/* Runs in threads, where no assertion may fail: what goes wrong becomes an error that the test does not expect. */
static inline int fetch(void *context, _unused_ const struct token_key *key, deadline_t deadline, char **ret_token,
                        uint64_t *ret_lifetime_s, struct error *e)
{
        struct server *s = context;
        unsigned serial;
        uint64_t joins;
        bool alone, answered;
        int result;

        mutex_lock(&s->lock);
        serial = ++s->calls;
        alone = ++s->busy == 1;
        joins = s->joins;
        cond_broadcast(&s->changed);
        while (s->released < serial && deadline_left(deadline) > 0)
                cond_wait_until(&s->changed, &s->lock, deadline);
        answered = s->released >= serial;
        result = serial <= ELEMENTSOF(s->results) ? s->results[serial - 1] : 0;
        *ret_lifetime_s = s->lifetime_s;
        fake_now += s->takes_ms;
        mutex_unlock(&s->lock);

        if (!wait_for_joins(s->cache, joins))
                result = -EDEADLK;
        mutex_lock(&s->lock);
        s->busy--;
        mutex_unlock(&s->lock);

        if (!alone)
                return error_set(e, ERROR_OTHER, EDEADLK, "two fetches at the same time");
        if (!answered)
                return error_set(e, ERROR_UNREACHABLE, ETIMEDOUT, "fetch %u: no answer", serial);
        if (result < 0)
                return error_set(e, ERROR_DENIED, -result, "fetch %u: refused by the token server", serial);
        *ret_token = str_printf(SECRET "-%u", serial);
        return *ret_token ? 0 : error_oom(e);
}

static const struct token_key key_a = {
        .realm = "https://user:" SECRET "@auth.example/token?sig=" SECRET "@h",
        .service = "registry.example",
        .scopes = (const char *const[]) { "repository:a:pull", NULL },
        .identity = "",
};

static const struct token_key key_b = {
        .realm = "https://auth.example/token",
        .service = "registry.example",
        .scopes = (const char *const[]) { "repository:b:pull", NULL },
        .identity = "",
};

#define SCOPES(...)               \
        (const char *const[])     \
        {                         \
                __VA_ARGS__, NULL \
        }

/* One call of token_cache_get in a thread of its own. */
struct caller {
        struct token_cache *cache;
        struct server *server;
        uint64_t patience_ms;
        pthread_barrier_t *barrier; /* or NULL */
        pthread_t thread;
        int result;
        char *token;
        struct error error;
};

static inline void *caller_run(void *arg)
{
        struct caller *c = arg;

        if (c->barrier)
                pthread_barrier_wait(c->barrier);
        c->result =
                token_cache_get(c->cache, &key_a, deadline_in(c->patience_ms), fetch, c->server, &c->token, &c->error);
        return NULL;
}

static inline void caller_start(struct caller *c, struct token_cache *cache, struct server *server,
                                uint64_t patience_ms)
{
        c->cache = cache;
        c->server = server;
        c->patience_ms = patience_ms;
        assert_int_equal(thread_start(&c->thread, "caller", caller_run, c), 0);
}

static inline void caller_join(struct caller *c)
{
        assert_int_equal(pthread_join(c->thread, NULL), 0);
}

static inline void caller_expect(struct caller *c, int result, const char *text)
{
        caller_join(c);
        assert_int_equal(c->result, result);
        if (result < 0) {
                assert_null(c->token);
                assert_non_null(strstr(c->error.message, text));
        } else {
                assert_string_equal(c->token, text);
        }
        secret_free(steal_ptr(c->token));
}

struct fixture {
        struct token_cache *cache;
        struct server server;
};

static inline int setup(void **state)
{
        static struct fixture f;

        fake_now = 1000000;
        assert_int_equal(token_cache_new(&f.cache), 0);
        token_cache_set_clock(f.cache, fake_clock, NULL);
        server_init(&f.server, f.cache);
        *state = &f;
        return 0;
}

static inline int teardown(void **state)
{
        struct fixture *f = *state;

        f->cache = token_cache_free(f->cache);
        server_destroy(&f->server);
        return 0;
}

/* A call in the test's own thread. */
static inline void expect_for(struct fixture *f, const struct token_key *key, int result, const char *text)
{
        _cleanup_(secret_free_ptr) char *token = NULL;
        struct error e = ERROR_INIT;
        int r = token_cache_get(f->cache, key, deadline_in(PATIENCE_MS), fetch, &f->server, &token, &e);

        if (r != result)
                fail_msg("%d instead of %d: %s", r, result, e.message);
        if (r < 0)
                assert_non_null(strstr(e.message, text));
        else
                assert_string_equal(token, text);
}

static inline void expect(struct fixture *f, int result, const char *text)
{
        expect_for(f, &key_a, result, text);
}

/* Starts N callers, and returns when the first has begun a flight that the others wait for. */
static inline void start_crowd(struct fixture *f, struct caller *crowd, unsigned n, uint64_t owner_patience_ms)
{
        server_release(&f->server, 0);
        server_require_joins(&f->server, n - 1);
        caller_start(&crowd[0], f->cache, &f->server, owner_patience_ms);
        server_await_calls(&f->server, 1);
        for (unsigned i = 1; i < n; i++)
                caller_start(&crowd[i], f->cache, &f->server, PATIENCE_MS);
        assert_true(wait_for_joins(f->cache, n - 1));
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)
