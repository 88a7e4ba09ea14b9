/* SPDX-License-Identifier: Apache-2.0 */

/* Many threads that are asked for a token at the same time: one gets it, and all are told what became of that. */

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "registry_fixture.h"

#define CROWD 64

struct crowd {
        struct fake *fake;
        struct source *source;
        uint64_t patience_ms;
        pthread_t threads[CROWD];
        int results[CROWD];
        struct error errors[CROWD];
        atomic_uint next;
};

static void *crowd_run(void *arg)
{
        struct crowd *c = arg;
        unsigned me = atomic_fetch_add(&c->next, 1);

        c->results[me] = get_manifest(c->source, c->patience_ms, &c->errors[me]);
        return NULL;
}

static void crowd_ask(struct crowd *c)
{
        for (unsigned k = 0; k < CROWD; k++)
                assert_int_equal(thread_start(&c->threads[k], "crowd", crowd_run, c), 0);
        for (unsigned k = 0; k < CROWD; k++)
                pthread_join(c->threads[k], NULL);
}

static void expect_all(const struct crowd *c, int result, const char *words)
{
        for (unsigned k = 0; k < CROWD; k++) {
                if (c->results[k] != result)
                        fail_msg("%d: %s", c->results[k], c->errors[k].message);
                if (result < 0)
                        expect_words(&c->errors[k], words);
        }
}

/* The refusals go out when all of the crowd have met theirs. */
static bool refuse_together(struct fake *f, struct http_exchange *x, unsigned n _unused_)
{
        if (has_token(f, x, "manifests"))
                return false;
        fake_meet(f, CROWD);
        return respond_bearer(f, x, "manifests");
}

static void crowd_makes_one_token_request(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = source_with(f, NULL, NULL);
        struct crowd c = { .fake = f, .source = s, .patience_ms = LONG_MS };

        f->answer[REGISTRY] = refuse_together;
        crowd_ask(&c);
        expect_all(&c, 0, NULL);
        assert_int_equal(seen(f, "tokens", ""), 1);
        assert_int_equal(seen(f, "registry", ""), 2 * CROWD);
}

static bool challenge_with_garbage(struct fake *f, struct http_exchange *x, unsigned n _unused_)
{
        if (f->wants)
                return false;
        fake_meet(f, CROWD);
        return respond_challenge(x, "Bearer realm=\"unended, service=");
}

static void crowd_that_meets_a_garbage_challenge_is_told_and_the_next_call_works(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = source_with(f, NULL, NULL);
        struct crowd c = { .fake = f, .source = s, .patience_ms = LONG_MS };

        f->answer[REGISTRY] = challenge_with_garbage;
        crowd_ask(&c);
        expect_all(&c, -EBADMSG, "Bearer realm=");
        assert_int_equal(seen(f, "tokens", ""), 0);
        mutex_lock(&f->lock);
        f->wants = "Bearer";
        mutex_unlock(&f->lock);
        expect_manifest(s);
}

static bool garbage_once(struct fake *f _unused_, struct http_exchange *x, unsigned n)
{
        return n == 1 && exchange_respond(x, 200, NULL, "<html>", 6);
}

static void crowd_that_gets_a_garbage_token_is_told_and_a_later_call_works(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = source_with(f, NULL, NULL);
        struct crowd c = { .fake = f, .source = s, .patience_ms = LONG_MS };
        deadline_t deadline = deadline_in(LONG_MS);

        f->answer[REGISTRY] = refuse_together;
        f->answer[TOKENS] = garbage_once;
        crowd_ask(&c);
        expect_all(&c, -EBADMSG, "token server");
        assert_int_equal(seen(f, "tokens", ""), 1);

        /* The failure is remembered for a moment, so that a crowd does not ask a broken server one by one. */
        while (get_manifest(s, LONG_MS, NULL) < 0 && deadline_left(deadline) > 0)
                nanosleep(&(struct timespec) { .tv_nsec = 20000000 }, NULL);
        expect_manifest(s);
        assert_int_equal(seen(f, "tokens", ""), 2);
}

static bool hang_until_released(struct fake *f, struct http_exchange *x _unused_, unsigned n _unused_)
{
        fake_hold(f);
        return false;
}

static void crowd_whose_token_server_hangs_is_told_and_the_next_call_works(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = source_with(f, "Bearer", NULL);
        struct crowd c = { .fake = f, .source = s, .patience_ms = 400 };

        f->answer[TOKENS] = hang_until_released;
        crowd_ask(&c);
        expect_all(&c, -ETIMEDOUT, "");
        fake_release(f);
        expect_manifest(s);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                fake_test(crowd_makes_one_token_request),
                fake_test(crowd_that_meets_a_garbage_challenge_is_told_and_the_next_call_works),
                fake_test(crowd_that_gets_a_garbage_token_is_told_and_a_later_call_works),
                fake_test(crowd_whose_token_server_hangs_is_told_and_the_next_call_works),
        };

        return cmocka_run_group_tests_name("client_crowd", tests, NULL, NULL);
}
