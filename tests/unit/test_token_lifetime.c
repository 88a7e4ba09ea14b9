/* SPDX-License-Identifier: Apache-2.0 */

/* How long the token cache keeps what a flight brought. */

#include "token_fixture.h"

static void a_token_is_renewed_before_its_lifetime_ends(void **state)
{
        struct fixture *f = *state;

        server_set_lifetime(&f->server, 100, 0);
        expect(f, 0, SECRET "-1");
        fake_now += 100 * 10 * TOKEN_RENEW_PERCENT - 1;
        expect(f, 0, SECRET "-1");
        fake_now += 1;
        expect(f, 0, SECRET "-2");
        fake_now += 100 * 10 * TOKEN_RENEW_PERCENT - 1;
        expect(f, 0, SECRET "-2");
}

static void a_lifetime_counts_from_receipt(void **state)
{
        struct fixture *f = *state;

        server_set_lifetime(&f->server, 10, 60000);
        expect(f, 0, SECRET "-1");
        fake_now += 10 * 10 * TOKEN_RENEW_PERCENT - 1;
        expect(f, 0, SECRET "-1");
        fake_now += 1;
        expect(f, 0, SECRET "-2");
}

static void extreme_lifetimes_are_taken_as_they_are(void **state)
{
        struct fixture *f = *state;

        server_set_lifetime(&f->server, 0, 0);
        expect(f, 0, SECRET "-1");
        server_set_lifetime(&f->server, UINT64_MAX, 0);
        expect(f, 0, SECRET "-2");
        fake_now = UINT64_MAX - 1;
        expect(f, 0, SECRET "-2");
        fake_now = 1000;
        token_cache_drop(f->cache, &key_a, SECRET "-2");
        server_set_lifetime(&f->server, UINT64_MAX / 900, 0); /* fits as a span, not on top of the clock */
        expect(f, 0, SECRET "-3");
        fake_now = UINT64_MAX - 1;
        expect(f, 0, SECRET "-3");
}

static void a_failed_renewal_does_not_bring_the_old_token_back(void **state)
{
        struct fixture *f = *state;

        server_set_result(&f->server, 2, -EPROTO);
        expect(f, 0, SECRET "-1");
        fake_now += 300000;
        expect(f, -EPROTO, "fetch 2:");
        expect(f, -EPROTO, "fetch 2:");
        fake_now += TOKEN_BACKOFF_MS;
        expect(f, 0, SECRET "-3");
}

static void each_failure_has_its_own_backoff(void **state)
{
        struct fixture *f = *state;

        server_set_result(&f->server, 1, -EPROTO);
        server_set_result(&f->server, 2, -EPIPE);
        expect(f, -EPROTO, "fetch 1:");
        fake_now += TOKEN_BACKOFF_MS;
        expect(f, -EPIPE, "fetch 2:");
        fake_now += TOKEN_BACKOFF_MS - 1;
        expect(f, -EPIPE, "fetch 2:");
        assert_int_equal(server_calls(&f->server), 2);
}

static void a_failure_backs_off_its_own_key_only(void **state)
{
        struct fixture *f = *state;

        server_set_result(&f->server, 1, -EPROTO);
        expect_for(f, &key_a, -EPROTO, "fetch 1:");
        expect_for(f, &key_b, 0, SECRET "-2");
}

static void only_the_current_token_can_be_dropped(void **state)
{
        struct fixture *f = *state;
        struct caller caller = {};

        token_cache_drop(f->cache, &key_a, SECRET "-1");
        expect(f, 0, SECRET "-1");
        token_cache_drop(f->cache, &key_b, SECRET "-1");
        expect(f, 0, SECRET "-1");
        token_cache_drop(f->cache, &key_a, SECRET "-1");
        expect(f, 0, SECRET "-2");
        token_cache_drop(f->cache, &key_a, SECRET "-1");
        token_cache_drop(f->cache, &key_a, "");
        expect(f, 0, SECRET "-2");

        /* A drop that comes late does not touch the flight that replaces the token already. */
        token_cache_drop(f->cache, &key_a, SECRET "-2");
        server_release(&f->server, 2);
        caller_start(&caller, f->cache, &f->server, PATIENCE_MS);
        server_await_calls(&f->server, 3);
        token_cache_drop(f->cache, &key_a, SECRET "-2");
        server_release(&f->server, 3);
        caller_expect(&caller, 0, SECRET "-3");
        token_cache_drop(f->cache, &key_a, SECRET "-2");
        expect(f, 0, SECRET "-3");
        assert_int_equal(server_calls(&f->server), 3);
}

static void keys_that_are_over_are_forgotten(void **state)
{
        struct fixture *f = *state;

        expect(f, 0, SECRET "-1");
        server_set_lifetime(&f->server, 1, 0);
        for (unsigned i = 0; i < 20 * TOKEN_SWEEP_MIN; i++) {
                char scope[40], expected[40];
                const struct token_key key = { "r", "s", SCOPES(scope), "" };

                snprintf(scope, sizeof(scope), "repository:%u:pull", i);
                snprintf(expected, sizeof(expected), SECRET "-%u", i + 2);
                expect_for(f, &key, 0, expected);
                assert_true(token_cache_size(f->cache) <= 2 * TOKEN_SWEEP_MIN);
                fake_now += 100;
        }
        expect(f, 0, SECRET "-1");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(a_token_is_renewed_before_its_lifetime_ends),
                TEST(a_lifetime_counts_from_receipt),
                TEST(extreme_lifetimes_are_taken_as_they_are),
                TEST(a_failed_renewal_does_not_bring_the_old_token_back),
                TEST(each_failure_has_its_own_backoff),
                TEST(a_failure_backs_off_its_own_key_only),
                TEST(only_the_current_token_can_be_dropped),
                TEST(keys_that_are_over_are_forgotten),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
