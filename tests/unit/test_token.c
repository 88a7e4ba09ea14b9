/* SPDX-License-Identifier: Apache-2.0 */

/* The flights of the token cache. */

#include "token_fixture.h"

#include <fcntl.h>

#include "regfs/io.h"
#include "regfs/log.h"

#define CROWD 64

static char log_path[200];

static void callers_that_come_together_share_one_fetch(void **state)
{
        struct fixture *f = *state;
        struct caller crowd[CROWD] = {};
        pthread_barrier_t barrier;
        struct token_cache_stats stats;

        assert_int_equal(pthread_barrier_init(&barrier, NULL, CROWD), 0);
        server_require_joins(&f->server, CROWD - 1);
        for (int i = 0; i < CROWD; i++) {
                crowd[i].barrier = &barrier;
                caller_start(&crowd[i], f->cache, &f->server, PATIENCE_MS);
        }
        for (int i = 0; i < CROWD; i++)
                caller_expect(&crowd[i], 0, SECRET "-1");
        pthread_barrier_destroy(&barrier);

        expect(f, 0, SECRET "-1");
        assert_int_equal(server_calls(&f->server), 1);
        stats = stats_of(f->cache);
        assert_int_equal(stats.flights, 1);
        assert_int_equal(stats.joins, CROWD - 1);
        assert_int_equal(stats.hits, 1);
        assert_int_equal(stats.failures, 0);
        assert_int_equal(stats.handed_on, 0);
}

static void a_failure_reaches_everybody_and_leaves_the_cache_usable(void **state)
{
        struct fixture *f = *state;
        struct caller crowd[CROWD] = {};

        server_set_result(&f->server, 1, -ECONNREFUSED);
        start_crowd(f, crowd, CROWD, PATIENCE_MS);
        server_release(&f->server, UINT_MAX);
        for (int i = 0; i < CROWD; i++) {
                caller_expect(&crowd[i], -ECONNREFUSED, "fetch 1: refused by the token server");
                assert_int_equal(crowd[i].error.kind, ERROR_DENIED);
                assert_int_equal(crowd[i].error.code, ECONNREFUSED);
        }
        assert_int_equal(server_calls(&f->server), 1);
        assert_int_equal(stats_of(f->cache).failures, 1);

        /* It is repeated until the back-off is over, and no longer. */
        fake_now += TOKEN_BACKOFF_MS - 1;
        expect(f, -ECONNREFUSED, "fetch 1: refused by the token server");
        assert_int_equal(server_calls(&f->server), 1);
        fake_now += 1;
        expect(f, 0, SECRET "-2");
}

static void an_owner_out_of_time_fails_alone_and_a_waiter_takes_over(void **state)
{
        struct fixture *f = *state;
        struct caller crowd[9] = {};

        start_crowd(f, crowd, ELEMENTSOF(crowd), 300);
        caller_expect(&crowd[0], -ETIMEDOUT, "fetch 1: no answer");
        server_await_calls(&f->server, 2);
        server_release(&f->server, 2);
        for (size_t i = 1; i < ELEMENTSOF(crowd); i++)
                caller_expect(&crowd[i], 0, SECRET "-2");

        assert_int_equal(server_calls(&f->server), 2);
        assert_int_equal(stats_of(f->cache).flights, 1);
        assert_int_equal(stats_of(f->cache).handed_on, 1);
        assert_int_equal(stats_of(f->cache).failures, 0);
        expect(f, 0, SECRET "-2");
}

static void the_failure_of_a_flight_taken_over_reaches_the_rest(void **state)
{
        struct fixture *f = *state;
        struct caller crowd[9] = {};

        server_set_result(&f->server, 2, -EPROTO);
        start_crowd(f, crowd, ELEMENTSOF(crowd), 300);
        caller_expect(&crowd[0], -ETIMEDOUT, "fetch 1: no answer");
        server_release(&f->server, 2);
        for (size_t i = 1; i < ELEMENTSOF(crowd); i++)
                caller_expect(&crowd[i], -EPROTO, "fetch 2: refused");
        expect(f, -EPROTO, "fetch 2: refused");
}

static void a_cancelled_owner_hands_its_flight_on(void **state)
{
        struct fixture *f = *state;
        struct caller crowd[9] = {};

        server_set_result(&f->server, 1, -ECANCELED);
        server_set_result(&f->server, 2, -ECANCELED);
        start_crowd(f, crowd, ELEMENTSOF(crowd), PATIENCE_MS);
        server_release(&f->server, 1);
        caller_expect(&crowd[0], -ECANCELED, "fetch 1: refused");
        server_release(&f->server, 3);

        /* One of the waiters has the second fetch, cancelled too; the third is everybody's. */
        for (size_t i = 1, cancelled = 0; i < ELEMENTSOF(crowd); i++) {
                caller_join(&crowd[i]);
                if (crowd[i].result == -ECANCELED)
                        assert_int_equal(++cancelled, 1);
                else
                        assert_string_equal(crowd[i].token, SECRET "-3");
                secret_free(crowd[i].token);
        }
        assert_int_equal(stats_of(f->cache).handed_on, 2);
        assert_int_equal(stats_of(f->cache).flights, 1);
}

static void a_cancelled_owner_without_waiters_leaves_nothing_behind(void **state)
{
        struct fixture *f = *state;

        server_set_result(&f->server, 1, -ECANCELED);
        expect(f, -ECANCELED, "fetch 1:");
        expect(f, 0, SECRET "-2");
}

static void a_server_that_stalls_while_there_is_time_is_everybodys_failure(void **state)
{
        struct fixture *f = *state;
        struct caller crowd[9] = {};

        server_set_result(&f->server, 1, -ETIMEDOUT);
        start_crowd(f, crowd, ELEMENTSOF(crowd), PATIENCE_MS);
        server_release(&f->server, UINT_MAX);
        for (size_t i = 0; i < ELEMENTSOF(crowd); i++)
                caller_expect(&crowd[i], -ETIMEDOUT, "fetch 1: refused");
        expect(f, -ETIMEDOUT, "fetch 1: refused");
        assert_int_equal(server_calls(&f->server), 1);
        assert_int_equal(stats_of(f->cache).handed_on, 0);
}

static void when_everybody_ran_out_of_time_the_next_call_works_at_once(void **state)
{
        struct fixture *f = *state;
        struct caller crowd[8] = {};
        char expected[40];

        server_release(&f->server, 0);
        for (size_t i = 0; i < ELEMENTSOF(crowd); i++)
                caller_start(&crowd[i], f->cache, &f->server, 20 + 20 * i);
        for (size_t i = 0; i < ELEMENTSOF(crowd); i++) {
                caller_expect(&crowd[i], -ETIMEDOUT, "");
                assert_int_equal(crowd[i].error.kind, ERROR_UNREACHABLE);
        }
        assert_int_equal(stats_of(f->cache).failures, 0);

        server_release(&f->server, UINT_MAX);
        snprintf(expected, sizeof(expected), SECRET "-%u", server_calls(&f->server) + 1);
        expect(f, 0, expected);
}

static void waiters_with_less_time_leave_without_harm(void **state)
{
        struct fixture *f = *state;
        struct caller crowd[2] = {}, hasty[8] = {};

        start_crowd(f, crowd, ELEMENTSOF(crowd), PATIENCE_MS);
        for (size_t i = 0; i < ELEMENTSOF(hasty); i++)
                caller_start(&hasty[i], f->cache, &f->server, 100);
        for (size_t i = 0; i < ELEMENTSOF(hasty); i++)
                caller_expect(&hasty[i], -ETIMEDOUT, "no token within the deadline");
        assert_true(stats_of(f->cache).joins > 1);

        server_release(&f->server, UINT_MAX);
        caller_expect(&crowd[0], 0, SECRET "-1");
        caller_expect(&crowd[1], 0, SECRET "-1");
        assert_int_equal(server_calls(&f->server), 1);
}

static void an_owner_whose_waiters_all_left_ends_alone(void **state)
{
        struct fixture *f = *state;
        struct caller owner = {}, hasty = {};

        server_release(&f->server, 0);
        server_require_joins(&f->server, 1);
        caller_start(&owner, f->cache, &f->server, 300);
        server_await_calls(&f->server, 1);
        caller_start(&hasty, f->cache, &f->server, 100);
        caller_expect(&hasty, -ETIMEDOUT, "no token within the deadline");
        caller_expect(&owner, -ETIMEDOUT, "fetch 1: no answer");

        server_release(&f->server, UINT_MAX);
        expect(f, 0, SECRET "-2");
        assert_int_equal(stats_of(f->cache).flights, 2);
}

static void a_call_without_time_gets_what_is_there_and_asks_nobody(void **state)
{
        struct fixture *f = *state;
        _cleanup_(secret_free_ptr) char *token = NULL;
        struct error e = ERROR_INIT;

        assert_int_equal(token_cache_get(f->cache, &key_a, 0, fetch, &f->server, &token, &e), -ETIMEDOUT);
        assert_non_null(strstr(e.message, "auth.example"));
        assert_int_equal(server_calls(&f->server), 0);
        expect(f, 0, SECRET "-1");
        assert_int_equal(token_cache_get(f->cache, &key_a, 0, fetch, &f->server, &token, &e), 0);
        assert_string_equal(token, SECRET "-1");
}

static void different_keys_do_not_wait_for_each_other(void **state)
{
        struct fixture *f = *state;
        struct server other;
        struct caller hanging[4] = {};

        server_init(&other, f->cache);
        start_crowd(f, hanging, ELEMENTSOF(hanging), PATIENCE_MS);
        for (int i = 0; i < 3; i++) {
                _cleanup_(secret_free_ptr) char *token = NULL;
                int r = token_cache_get(f->cache, &key_b, deadline_in(PATIENCE_MS), fetch, &other, &token, NULL);

                assert_int_equal(r, 0);
                assert_string_equal(token, SECRET "-1");
        }
        assert_int_equal(server_calls(&other), 1);

        server_release(&f->server, UINT_MAX);
        for (size_t i = 0; i < ELEMENTSOF(hanging); i++)
                caller_expect(&hanging[i], 0, SECRET "-1");
        server_destroy(&other);
}

static void waiters_get_their_own_flights_token_even_when_the_next_is_in_the_air(void **state)
{
        struct fixture *f = *state;
        struct caller crowd[16] = {}, next = {};

        /* The token lives for no time at all, so whoever asks after the landing begins the next flight. */
        server_set_lifetime(&f->server, 0, 0);
        start_crowd(f, crowd, ELEMENTSOF(crowd), PATIENCE_MS);
        server_release(&f->server, 1);
        caller_expect(&crowd[0], 0, SECRET "-1");
        caller_start(&next, f->cache, &f->server, PATIENCE_MS);
        server_await_calls(&f->server, 2);
        for (size_t i = 1; i < ELEMENTSOF(crowd); i++)
                caller_expect(&crowd[i], 0, SECRET "-1");
        server_release(&f->server, 2);
        caller_expect(&next, 0, SECRET "-2");
}

/* What makes keys the same is tested with token_name. */
static void scopes_in_another_order_find_the_same_token(void **state)
{
        struct fixture *f = *state;
        const struct token_key key = { "r", "s", SCOPES("a", "b"), "i" }, same = { "r", "s", SCOPES("b", "a"), "i" },
                               other = { "r", "s", SCOPES("a", "b"), "j" };

        expect_for(f, &key, 0, SECRET "-1");
        expect_for(f, &same, 0, SECRET "-1");
        expect_for(f, &other, 0, SECRET "-2");
        token_cache_drop(f->cache, &same, SECRET "-1");
        expect_for(f, &key, 0, SECRET "-3");
        expect_for(f, &other, 0, SECRET "-2");
}

static void an_incomplete_key_is_refused_and_nobody_asked(void **state)
{
        struct fixture *f = *state;

        expect_for(f, &(struct token_key) { .realm = "r" }, -EINVAL, "identity");
        assert_int_equal(server_calls(&f->server), 0);
}

static int fetch_nothing(void *context, _unused_ const struct token_key *key, _unused_ deadline_t deadline,
                         _unused_ char **ret_token, _unused_ uint64_t *ret_lifetime_s, _unused_ struct error *e)
{
        return *(int *) context;
}

static void a_fetch_that_says_nothing_still_gives_an_error_with_a_message(void **state)
{
        struct fixture *f = *state;
        struct error e = ERROR_INIT;
        char *token = NULL;
        int result = -EPROTO, r;

        r = token_cache_get(f->cache, &key_a, DEADLINE_NEVER, fetch_nothing, &result, &token, &e);
        assert_int_equal(r, -EPROTO);
        assert_non_null(strstr(e.message, "auth.example"));
        result = 0;
        r = token_cache_get(f->cache, &key_b, DEADLINE_NEVER, fetch_nothing, &result, &token, &e);
        assert_int_equal(r, -EIO);
        assert_non_null(strstr(e.message, "no token"));
        assert_null(token);
}

/* The last test: it reads what all the others left in the log. */
static void the_log_tells_the_flights_and_no_secret(_unused_ void **state)
{
        _cleanup_buf_ struct buf text = {};

        assert_int_equal(file_read(AT_FDCWD, log_path, 64 * MIB, &text, NULL), 0);
        assert_non_null(strstr(text.data, "token flight begins: https://auth.example/token, service registry.example, "
                                          "scopes repository:a:pull"));
        assert_non_null(strstr(text.data, "token flight joined: "));
        assert_non_null(strstr(text.data, "token flight taken over: "));
        assert_non_null(strstr(text.data, "token flight brought a token, 63 waiting: "));
        assert_non_null(strstr(text.data, "token flight failed, 63 waiting: "));
        assert_non_null(strstr(text.data, "token flight handed on to 8 waiting: "));
        assert_non_null(strstr(text.data, "token flight left at the caller's deadline: "));
        assert_non_null(strstr(text.data, "token dropped: "));
        assert_null(strstr(text.data, SECRET));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(callers_that_come_together_share_one_fetch),
                TEST(a_failure_reaches_everybody_and_leaves_the_cache_usable),
                TEST(an_owner_out_of_time_fails_alone_and_a_waiter_takes_over),
                TEST(the_failure_of_a_flight_taken_over_reaches_the_rest),
                TEST(a_cancelled_owner_hands_its_flight_on),
                TEST(a_cancelled_owner_without_waiters_leaves_nothing_behind),
                TEST(a_server_that_stalls_while_there_is_time_is_everybodys_failure),
                TEST(when_everybody_ran_out_of_time_the_next_call_works_at_once),
                TEST(waiters_with_less_time_leave_without_harm),
                TEST(an_owner_whose_waiters_all_left_ends_alone),
                TEST(a_call_without_time_gets_what_is_there_and_asks_nobody),
                TEST(different_keys_do_not_wait_for_each_other),
                TEST(waiters_get_their_own_flights_token_even_when_the_next_is_in_the_air),
                TEST(scopes_in_another_order_find_the_same_token),
                TEST(an_incomplete_key_is_refused_and_nobody_asked),
                TEST(a_fetch_that_says_nothing_still_gives_an_error_with_a_message),
                cmocka_unit_test(the_log_tells_the_flights_and_no_secret),
        };
        const char *directory = getenv("TMPDIR");
        int fd, failures;

        snprintf(log_path, sizeof(log_path), "%s/regfs-token-XXXXXX", directory ? directory : "/tmp");
        fd = mkstemp(log_path);
        if (fd < 0 || log_open(LOG_LEVEL_DEBUG, log_path, NULL) < 0)
                return 1;
        close(fd);
        failures = cmocka_run_group_tests(tests, NULL, NULL);
        unlink(log_path);
        return failures;
}
