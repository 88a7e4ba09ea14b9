/* SPDX-License-Identifier: Apache-2.0 */

/* Many threads, few keys, short deadlines, a token server of moods. */

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <time.h>

#include <cmocka.h>

#include "cache/auth/token_internal.h"

#include "regfs/text.h"

#define KEYS 3
#define THREADS 16
#define CALLS 300
#define PATIENCE_MS 20000

static struct token_cache *cache;
static _Atomic uint64_t fake_now;
static _Atomic int busy[KEYS];
static _Atomic int wrong;
static _Atomic unsigned serial;

static uint64_t fake_clock(_unused_ void *context)
{
        return fake_now;
}

static void doze(unsigned ns)
{
        nanosleep(&(struct timespec) { .tv_nsec = ns }, NULL);
}

enum mood {
        MOOD_SLOW,
        MOOD_FLEETING, /* a token without a lifetime */
        MOOD_PROMPT,
        MOOD_HANGING,
        MOOD_CANCELLED,
        MOOD_REFUSING,
        MOODS,
};

static int fetch(void *context, const struct token_key *key, deadline_t deadline, char **ret_token,
                 uint64_t *ret_lifetime_s, struct error *e)
{
        unsigned *seed = context;
        int k = key->identity[0] - '0';
        enum mood mood = (enum mood)(rand_r(seed) % MOODS);

        if (busy[k]++ != 0)
                wrong++;
        if (mood == MOOD_SLOW)
                doze((unsigned) rand_r(seed) % 3000000);
        while (mood == MOOD_HANGING && deadline_left(deadline) > 0)
                doze(200000);
        busy[k]--;

        if (deadline_left(deadline) == 0)
                return error_set(e, ERROR_UNREACHABLE, ETIMEDOUT, "key %d: no answer", k);
        if (mood == MOOD_CANCELLED || mood == MOOD_REFUSING)
                return error_set(e, ERROR_DENIED, mood == MOOD_REFUSING ? EPROTO : ECANCELED, "key %d: refused", k);
        *ret_lifetime_s = mood == MOOD_FLEETING ? 0 : 300;
        *ret_token = str_printf("%d-%u", k, ++serial);
        return *ret_token ? 0 : error_oom(e);
}

static void *run(void *arg)
{
        unsigned seed = *(unsigned *) arg;

        for (int i = 0; i < CALLS; i++) {
                const char identity[2] = { (char) ('0' + rand_r(&seed) % KEYS), '\0' };
                const struct token_key key = { "r", "s", NULL, identity };
                deadline_t deadline = deadline_in((uint64_t) rand_r(&seed) % 6);
                struct error e = ERROR_INIT;
                char *token = NULL;
                int r = token_cache_get(cache, &key, deadline, fetch, &seed, &token, &e);

                if (r == 0 ? token[0] != identity[0] : (token || e.kind == ERROR_NONE || e.code != -r))
                        wrong++;
                if (r == 0 && rand_r(&seed) % 2)
                        token_cache_drop(cache, &key, token);
                if (rand_r(&seed) % 4 == 0)
                        fake_now += TOKEN_BACKOFF_MS;
                secret_free(token);
        }
        return NULL;
}

static int fetch_at_once(_unused_ void *context, const struct token_key *key, _unused_ deadline_t deadline,
                         char **ret_token, uint64_t *ret_lifetime_s, struct error *e)
{
        *ret_lifetime_s = 300;
        *ret_token = strdup(key->identity);
        return *ret_token ? 0 : error_oom(e);
}

static void every_call_ends_and_no_key_has_two_fetches_at_once(_unused_ void **state)
{
        pthread_t threads[THREADS];
        unsigned seeds[THREADS];
        struct token_cache_stats stats;

        assert_int_equal(token_cache_new(&cache), 0);
        token_cache_set_clock(cache, fake_clock, NULL);
        for (unsigned i = 0; i < THREADS; i++) {
                seeds[i] = i;
                assert_int_equal(thread_start(&threads[i], "stress", run, &seeds[i]), 0);
        }
        for (unsigned i = 0; i < THREADS; i++)
                assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(wrong, 0);

        /* The mixture had some of everything. */
        token_cache_get_stats(cache, &stats);
        assert_true(stats.hits > 0 && stats.flights > 0 && stats.joins > 0);
        assert_true(stats.failures > 0 && stats.handed_on > 0);

        /* And left every key usable. */
        fake_now += TOKEN_BACKOFF_MS + 300000;
        for (char k = '0'; k < '0' + KEYS; k++) {
                const char identity[2] = { k, '\0' };
                const struct token_key key = { "r", "s", NULL, identity };
                char *token = NULL;

                assert_int_equal(
                        token_cache_get(cache, &key, deadline_in(PATIENCE_MS), fetch_at_once, NULL, &token, NULL), 0);
                assert_string_equal(token, identity);
                secret_free(token);
        }
        cache = token_cache_free(cache);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(every_call_ends_and_no_key_has_two_fetches_at_once),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
