/* SPDX-License-Identifier: Apache-2.0 */

/* The result of a fetch belongs to its flight, not to the key: a caller that wakes late, when the key's next flight is
 * already in the air, still gets what its own flight brought.
 *
 * A flight is in one of three states: owned (a caller fetches), free (its owner ran out of time and no waiter has taken
 * it over yet), landed (it has its result, and the key has forgotten it). Every change wakes all who wait for it. The
 * last caller to leave frees it; when it is still free then, it ends without a result.
 *
 * There is one lock, and nothing but memory is touched while it is held: no fetch, no log line. */

#include <string.h>

#include "token_internal.h"
#include "token_name.h"

#include "regfs/log.h"
#include "regfs/map.h"

enum flight_state {
        FLIGHT_OWNED,
        FLIGHT_FREE,
        FLIGHT_LANDED,
};

/* Guarded by the cache's lock, all of it. */
struct flight {
        struct entry *entry;
        struct cond changed;
        size_t members; /* callers inside token_cache_get that hold it: the owner and the waiters */
        enum flight_state state;
        int result; /* since landed: 0 with the token, or -errno with the error */
        char *token;
        struct error error;
};

/* What is known about one key; guarded by the cache's lock. */
struct entry {
        struct flight *flight; /* owned or free; NULL when nobody fetches */
        char *token;           /* or NULL */
        uint64_t renew_at;
        int failure; /* the last flight's -errno, to be repeated until retry_at; or 0 */
        uint64_t retry_at;
        struct error error;
};

struct token_cache {
        token_clock_fn *clock; /* these two are set before the cache is shared */
        void *clock_context;
        struct mutex lock;
        struct map *entries GUARDED_BY(lock);
        size_t sweep_at GUARDED_BY(lock);
        struct token_cache_stats stats GUARDED_BY(lock);
};

/* How a call goes on. */
enum step {
        STEP_ANSWERED,
        STEP_WAIT,
        STEP_FETCH,
        STEP_LATE, /* the caller's deadline passed */
};

static uint64_t default_clock(_unused_ void *context)
{
        return clock_ms();
}

int token_cache_new(struct token_cache **ret)
{
        struct token_cache *c = calloc(1, sizeof(*c));
        struct map *entries = map_new();

        if (!c || !entries) {
                map_free(entries, NULL);
                free(c);
                return -ENOMEM;
        }
        mutex_init(&c->lock);
        c->clock = default_clock;
        mutex_lock(&c->lock);
        c->entries = entries;
        c->sweep_at = TOKEN_SWEEP_MIN;
        mutex_unlock(&c->lock);

        *ret = c;
        return 0;
}

static void entry_free(void *value)
{
        struct entry *entry = value;

        secret_free(entry->token);
        free(entry);
}

struct token_cache *token_cache_free(struct token_cache *c)
{
        if (!c)
                return NULL;

        mutex_lock(&c->lock);
        map_free(c->entries, entry_free);
        mutex_unlock(&c->lock);
        mutex_destroy(&c->lock);
        free(c);
        return NULL;
}

void token_cache_set_clock(struct token_cache *c, token_clock_fn *clock, void *context)
{
        c->clock = clock;
        c->clock_context = context;
}

size_t token_cache_size(struct token_cache *c)
{
        size_t size;

        mutex_lock(&c->lock);
        size = map_size(c->entries);
        mutex_unlock(&c->lock);
        return size;
}

static bool entry_is_dead(const struct entry *entry, uint64_t now)
{
        return !entry->flight && (!entry->token || now >= entry->renew_at) &&
               (!entry->failure || now >= entry->retry_at);
}

/* Takes dead entries out, so that a process that lives for ever keeps neither their memory nor their secrets. Short of
 * memory it does nothing. */
static void sweep(struct token_cache *c, uint64_t now) REQUIRES(c->lock)
{
        struct map *live = map_new();
        const void *key;
        size_t cursor = 0, len;
        void *value;

        while (live && map_next(c->entries, &cursor, &key, &len, &value))
                if (!entry_is_dead(value, now) && map_put(live, key, len, value, NULL) < 0)
                        live = map_free(live, NULL);
        if (!live)
                return;

        cursor = 0;
        while (map_next(c->entries, &cursor, &key, &len, &value))
                if (entry_is_dead(value, now))
                        entry_free(value);
        map_free(c->entries, NULL);
        c->entries = live;
}

/* NULL when out of memory. */
static struct entry *get_entry(struct token_cache *c, const struct token_name *name, uint64_t now) REQUIRES(c->lock)
{
        struct entry *entry = map_get(c->entries, name->bytes.data, name->bytes.len);

        if (entry)
                return entry;
        if (map_size(c->entries) >= c->sweep_at) {
                sweep(c, now);
                c->sweep_at = MAX(2 * map_size(c->entries), (size_t) TOKEN_SWEEP_MIN);
        }

        entry = calloc(1, sizeof(*entry));
        if (entry && map_put(c->entries, name->bytes.data, name->bytes.len, entry, NULL) < 0) {
                free(entry);
                return NULL;
        }
        return entry;
}

static int give_token(const char *token, char **ret, struct error *e)
{
        char *copy = strdup(token);

        if (!copy)
                return error_oom(e);
        *ret = copy;
        return 0;
}

static int give_error(int result, const struct error *error, struct error *e)
{
        if (e)
                *e = *error;
        return result;
}

static void free_flight(struct flight *f)
{
        cond_destroy(&f->changed);
        secret_free(f->token);
        free(f);
}

static int begin_flight(struct token_cache *c, struct entry *entry, struct flight **ret, struct error *e)
        REQUIRES(c->lock)
{
        struct flight *f = calloc(1, sizeof(*f));

        if (!f)
                return error_oom(e);
        cond_init(&f->changed);
        f->entry = entry;
        f->members = 1;
        entry->flight = f;

        /* Whatever the entry had is over. */
        secret_free(steal_ptr(entry->token));
        entry->failure = 0;
        c->stats.flights++;
        *ret = f;
        return 0;
}

static void leave_flight(_unused_ struct token_cache *c, struct flight *f) REQUIRES(c->lock)
{
        if (--f->members > 0)
                return;
        if (f->state != FLIGHT_LANDED)
                f->entry->flight = NULL;
        free_flight(f);
}

static int timed_out(struct error *e, const struct token_name *name, const char *why)
{
        return error_set(e, ERROR_UNREACHABLE, ETIMEDOUT, "no token within the deadline: %s (%s)", why,
                         name->label.data);
}

static void take_over(struct token_cache *c, struct flight *f) REQUIRES(c->lock)
{
        f->state = FLIGHT_OWNED;
        c->stats.handed_on++;
}

/* Answers from what the entry has, joins its flight, or begins one. */
static int enter(struct token_cache *c, const struct token_name *name, uint64_t now, deadline_t deadline,
                 enum step *ret_step, struct flight **ret_flight, char **ret, struct error *e) REQUIRES(c->lock)
{
        struct entry *entry = get_entry(c, name, now);
        struct flight *f;

        if (!entry)
                return error_oom(e);
        *ret_step = STEP_ANSWERED;
        if (!entry->flight && entry->token && now < entry->renew_at) {
                c->stats.hits++;
                return give_token(entry->token, ret, e);
        }
        if (!entry->flight && entry->failure && now < entry->retry_at)
                return give_error(entry->failure, &entry->error, e);
        if (deadline_left(deadline) == 0)
                return timed_out(e, name, "it had passed already");

        f = entry->flight;
        if (!f) {
                *ret_step = STEP_FETCH;
                return begin_flight(c, entry, ret_flight, e);
        }
        f->members++;
        *ret_flight = f;
        c->stats.joins++;
        *ret_step = f->state == FLIGHT_FREE ? STEP_FETCH : STEP_WAIT;
        if (f->state == FLIGHT_FREE)
                take_over(c, f);
        return 0;
}

/* Waits for F's result, for the chance to take it over (then F is still held), or until DEADLINE. */
static int wait_for_flight(struct token_cache *c, struct flight *f, const struct token_name *name, deadline_t deadline,
                           enum step *ret_step, char **ret, struct error *e) REQUIRES(c->lock)
{
        int r = 0;

        while (f->state == FLIGHT_OWNED && r != -ETIMEDOUT)
                r = cond_wait_until(&f->changed, &c->lock, deadline);
        if (f->state == FLIGHT_FREE && deadline_left(deadline) > 0) {
                take_over(c, f);
                *ret_step = STEP_FETCH;
                return 0;
        }

        *ret_step = f->state == FLIGHT_LANDED ? STEP_ANSWERED : STEP_LATE;
        if (f->state != FLIGHT_LANDED)
                r = timed_out(e, name, "another caller's request for it was not answered");
        else
                r = f->result < 0 ? give_error(f->result, &f->error, e) : give_token(f->token, ret, e);
        leave_flight(c, f);
        return r;
}

/* Ends F with RESULT: takes TOKEN. */
static void land(struct token_cache *c, struct flight *f, uint64_t now, int result, char *token, uint64_t lifetime_s,
                 const struct error *error) REQUIRES(c->lock)
{
        struct entry *entry = f->entry;
        uint64_t usable_ms;

        f->state = FLIGHT_LANDED;
        f->result = result;
        entry->flight = NULL;
        if (result < 0) {
                f->error = entry->error = *error;
                entry->failure = result;
                entry->retry_at = now + TOKEN_BACKOFF_MS;
                c->stats.failures++;
        } else {
                f->token = token;
                if (__builtin_mul_overflow(lifetime_s, TOKEN_RENEW_PERCENT * 10, &usable_ms) ||
                    __builtin_add_overflow(now, usable_ms, &entry->renew_at))
                        entry->renew_at = UINT64_MAX;
                /* Without memory for the copy the token serves this flight only. */
                entry->token = strdup(token);
        }
        cond_broadcast(&f->changed);
}

/* An owner that ran out of time, or was cancelled, says nothing about the server: somebody else's time may suffice.
 * A server that hangs until the fetcher's own patience ends is a failure like any other. */
static bool is_handed_on(int result, deadline_t deadline)
{
        return result == -ECANCELED || (result == -ETIMEDOUT && deadline_left(deadline) <= TOKEN_DEADLINE_SLACK_MS);
}

static int call_fetch(token_fetch_fn *fetch, void *context, const struct token_key *key, const struct token_name *name,
                      deadline_t deadline, char **ret_token, uint64_t *ret_lifetime_s, struct error *e)
{
        _cleanup_(secret_free_ptr) char *token = NULL;
        int r = fetch(context, key, deadline, &token, ret_lifetime_s, e);

        if (r == 0 && !token)
                return error_set(e, ERROR_OTHER, EIO, "a token server's answer had no token (%s)", name->label.data);
        if (r < 0 && e->kind == ERROR_NONE)
                error_errno(e, -r, "cannot get a token (%s)", name->label.data);
        *ret_token = steal_ptr(token);
        return r;
}

static void log_end(const struct token_name *name, int result, bool handed_on, size_t waiters, const struct error *e)
{
        const char *label = name->label.data;

        if (handed_on)
                log_debug("token flight handed on to %zu waiting: %s: %s", waiters, label, e->message);
        else if (result < 0)
                log_debug("token flight failed, %zu waiting: %s: %s", waiters, label, e->message);
        else
                log_debug("token flight brought a token, %zu waiting: %s", waiters, label);
}

/* Fetches as the owner of F, and leaves it. */
static int fly(struct token_cache *c, struct flight *f, const struct token_key *key, const struct token_name *name,
               deadline_t deadline, token_fetch_fn *fetch, void *context, char **ret, struct error *e)
{
        struct error error = ERROR_INIT;
        char *token = NULL;
        uint64_t lifetime_s = 0, now;
        bool handed_on;
        size_t waiters;
        int result, r;

        result = call_fetch(fetch, context, key, name, deadline, &token, &lifetime_s, &error);
        now = c->clock(c->clock_context);
        handed_on = is_handed_on(result, deadline);

        mutex_lock(&c->lock);
        if (handed_on) {
                f->state = FLIGHT_FREE;
                cond_broadcast(&f->changed);
        } else {
                land(c, f, now, result, token, lifetime_s, &error);
        }
        r = result < 0 ? give_error(result, &error, e) : give_token(f->token, ret, e);
        waiters = f->members - 1;
        leave_flight(c, f);
        mutex_unlock(&c->lock);

        log_end(name, result, handed_on, waiters, &error);
        return r;
}

int token_cache_get(struct token_cache *c, const struct token_key *key, deadline_t deadline, token_fetch_fn *fetch,
                    void *context, char **ret, struct error *e)
{
        _cleanup_token_name_ struct token_name name = {};
        struct flight *f = NULL;
        enum step step = STEP_ANSWERED;
        uint64_t now;
        int r;

        r = token_name_init(&name, key, e);
        if (r < 0)
                return r;
        now = c->clock(c->clock_context);

        mutex_lock(&c->lock);
        r = enter(c, &name, now, deadline, &step, &f, ret, e);
        mutex_unlock(&c->lock);
        if (r < 0 || step == STEP_ANSWERED)
                return r;
        if (step == STEP_FETCH) {
                log_debug("token flight begins: %s", name.label.data);
                return fly(c, f, key, &name, deadline, fetch, context, ret, e);
        }

        log_debug("token flight joined: %s", name.label.data);
        mutex_lock(&c->lock);
        r = wait_for_flight(c, f, &name, deadline, &step, ret, e);
        mutex_unlock(&c->lock);
        if (step == STEP_FETCH) {
                log_debug("token flight taken over: %s", name.label.data);
                return fly(c, f, key, &name, deadline, fetch, context, ret, e);
        }
        if (step == STEP_LATE)
                log_debug("token flight left at the caller's deadline: %s", name.label.data);
        return r;
}

void token_cache_drop(struct token_cache *c, const struct token_key *key, const char *token)
{
        _cleanup_token_name_ struct token_name name = {};
        struct entry *entry;
        bool dropped = false;

        if (token_name_init(&name, key, NULL) < 0)
                return;

        mutex_lock(&c->lock);
        entry = map_get(c->entries, name.bytes.data, name.bytes.len);
        if (entry && str_eq(entry->token, token)) {
                secret_free(steal_ptr(entry->token));
                dropped = true;
        }
        mutex_unlock(&c->lock);
        if (dropped)
                log_debug("token dropped: %s", name.label.data);
}

void token_cache_get_stats(struct token_cache *c, struct token_cache_stats *ret)
{
        mutex_lock(&c->lock);
        *ret = c->stats;
        mutex_unlock(&c->lock);
}
