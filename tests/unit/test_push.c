/* SPDX-License-Identifier: Apache-2.0 */

/* Blobs and manifests on their way to a registry. */

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "push_fixture.h"

/* ---- blobs ---- */

static void blob_is_uploaded_in_one_piece(void **state)
{
        struct fake *f = *state;
        _cleanup_(target_free_ptr) struct target *t = fake_target(f);
        char line[400], digest[DIGEST_STRING_MAX];
        struct digest d = digest_of_text(CONTENT);

        f->answer[REGISTRY] = take_all;
        expect_pushed(t, CONTENT);
        digest_format(&d, digest);
        snprintf(line, sizeof(line), "registry HEAD /v2/" REPOSITORY "/blobs/%s", digest);
        assert_int_equal(seen(f, line, ""), 1);
        assert_int_equal(seen(f, "registry POST " UPLOADS, ""), 1);
        snprintf(line, sizeof(line), "registry PUT " SESSION "?state=abc&digest=%s body=" CONTENT, digest);
        assert_int_equal(seen(f, line, ""), 1);
        assert_int_equal(seen(f, "", ""), 3);
        assert_int_equal(http_server_connections(f->servers[REGISTRY].server), 1);
}

static bool has_it(struct fake *f _unused_, struct http_exchange *x, unsigned n _unused_)
{
        return respond_status(x, 200);
}

static void blob_that_is_there_is_not_sent(void **state)
{
        struct fake *f = *state;
        _cleanup_(target_free_ptr) struct target *t = fake_target(f);

        f->answer[REGISTRY] = has_it;
        expect_pushed(t, CONTENT);
        assert_int_equal(seen(f, "registry HEAD", ""), 1);
        assert_int_equal(seen(f, "", ""), 1);
}

/* The blob lies at the storage, which allows no HEAD. */
static bool redirect_the_head(struct fake *f, struct http_exchange *x, unsigned n _unused_)
{
        return respond_redirect(f, x, STORAGE, "/data");
}

static bool forbid(struct fake *f _unused_, struct http_exchange *x, unsigned n _unused_)
{
        return respond_status(x, 403);
}

static void blob_at_a_storage_that_allows_no_head_is_there(void **state)
{
        struct fake *f = *state;
        _cleanup_(target_free_ptr) struct target *t = fake_target(f);

        f->answer[REGISTRY] = redirect_the_head;
        f->answer[STORAGE] = forbid;
        expect_pushed(t, CONTENT);
        assert_int_equal(seen(f, "registry HEAD", ""), 1);
        assert_int_equal(seen(f, "", ""), 2);
}

static void empty_blob_is_pushed_too(void **state)
{
        struct fake *f = *state;
        _cleanup_(target_free_ptr) struct target *t = fake_target(f);

        f->answer[REGISTRY] = take_all;
        expect_pushed(t, "");
        assert_int_equal(seen(f, "registry PUT " SESSION, ""), 1);
}

/* ---- where an upload goes ---- */

static bool upload_to_an_absolute_place(struct fake *f, struct http_exchange *x, unsigned n)
{
        char url[300];

        if (!check_in(f, x, "Basic", NULL))
                return true;
        if (strcmp(x->method, "POST") == 0)
                return open_upload(x, fake_url(f, REGISTRY, SESSION, url, sizeof(url)));
        return take_all(f, x, n);
}

static bool upload_to_the_storage(struct fake *f, struct http_exchange *x, unsigned n)
{
        char url[300];

        if (!check_in(f, x, "Basic", NULL))
                return true;
        if (strcmp(x->method, "POST") == 0)
                return open_upload(x, fake_url(f, STORAGE, "/bucket?signature=s", url, sizeof(url)));
        return take_all(f, x, n);
}

static void upload_goes_to_an_absolute_location_with_credentials(void **state)
{
        struct fake *f = *state;
        _cleanup_(target_free_ptr) struct target *t = NULL;

        f->answer[REGISTRY] = upload_to_an_absolute_place;
        fake_client(f, NULL, "user:secret");
        t = fake_target(f);
        expect_pushed(t, CONTENT);
        assert_int_equal(seen(f, "registry PUT " SESSION "?digest=sha256:", "auth=Basic dXNlcjpzZWNyZXQ="), 1);
}

static void upload_to_another_host_goes_without_credentials(void **state)
{
        struct fake *f = *state;
        _cleanup_(target_free_ptr) struct target *t = NULL;

        f->answer[REGISTRY] = upload_to_the_storage;
        f->answer[STORAGE] = take_all;
        fake_client(f, NULL, "user:secret");
        t = fake_target(f);
        expect_pushed(t, CONTENT);
        assert_int_equal(seen(f, "storage PUT /bucket?signature=s&digest=sha256:", ""), 1);
        assert_int_equal(seen(f, "storage", "auth="), 0);
        assert_int_equal(seen(f, "registry POST", "auth=Basic"), 1);
}

static bool open_no_upload(struct fake *f _unused_, struct http_exchange *x, unsigned n _unused_)
{
        return respond_status(x, strcmp(x->method, "HEAD") == 0 ? 404 : 202);
}

static void upload_without_a_location_is_refused(void **state)
{
        struct fake *f = *state;
        _cleanup_(target_free_ptr) struct target *t = fake_target(f);

        f->answer[REGISTRY] = open_no_upload;
        expect_unpushed(t, EBADMSG, ERROR_BAD_DATA, "202 without a Location");
}

static bool accept_only(struct fake *f, struct http_exchange *x, unsigned n)
{
        return strcmp(x->method, "PUT") == 0 ? respond_status(x, 202) : take_all(f, x, n);
}

static void upload_that_is_not_said_to_be_stored_is_none(void **state)
{
        struct fake *f = *state;
        _cleanup_(target_free_ptr) struct target *t = fake_target(f);

        f->answer[REGISTRY] = accept_only;
        expect_unpushed(t, EBADMSG, ERROR_BAD_DATA, "answers 202");
}

/* ---- failures ---- */

/* The first two PUTs fail: by an answer, and by the connection. */
static bool break_two_puts(struct fake *f, struct http_exchange *x, unsigned n)
{
        if (strcmp(x->method, "PUT") != 0 || n > 5)
                return take_all(f, x, n);
        if (n == 3)
                return respond_status(x, 500);
        exchange_reset(x);
        return true;
}

static void broken_upload_begins_again_with_a_new_session(void **state)
{
        struct fake *f = *state;
        _cleanup_(target_free_ptr) struct target *t = fake_target(f);

        f->answer[REGISTRY] = break_two_puts;
        expect_pushed(t, CONTENT);
        assert_int_equal(seen(f, "registry HEAD", ""), 1);
        assert_int_equal(seen(f, "registry POST", ""), 3);
        assert_int_equal(seen(f, "registry PUT", "body=" CONTENT), 3);
}

static bool too_many(struct fake *f, struct http_exchange *x, unsigned n)
{
        if (strcmp(x->method, "PUT") != 0 || n > 3)
                return take_all(f, x, n);
        return exchange_respond(x, 429, "Retry-After: 1\r\n", "", 0);
}

static void upload_waits_as_long_as_the_registry_says(void **state)
{
        struct fake *f = *state;
        _cleanup_(target_free_ptr) struct target *t = fake_target(f);
        uint64_t begun = clock_ms();

        f->answer[REGISTRY] = too_many;
        expect_pushed(t, CONTENT);
        assert_true(clock_ms() - begun >= 1000);
        assert_int_equal(seen(f, "registry PUT", ""), 2);
}

static bool break_every_put(struct fake *f, struct http_exchange *x, unsigned n)
{
        return strcmp(x->method, "PUT") == 0 ? respond_status(x, 503) : take_all(f, x, n);
}

static void upload_that_never_works_ends_with_its_cause(void **state)
{
        struct fake *f = *state;
        _cleanup_(target_free_ptr) struct target *t = fake_target(f);
        struct error e = ERROR_INIT;

        f->answer[REGISTRY] = break_every_put;
        assert_int_equal(push_text(t, CONTENT, 1000, &e), -EAGAIN);
        assert_int_equal(e.kind, ERROR_UNREACHABLE);
        expect_words(&e, "503 Service Unavailable");
        expect_words(&e, "gave up after");
        assert_true(seen(f, "registry POST", "") > 1);
}

static bool refuse_the_digest(struct fake *f, struct http_exchange *x, unsigned n)
{
        static const char body[] = "{\"errors\":[{\"code\":\"DIGEST_INVALID\",\"message\":\"no such digest\"}]}";

        return strcmp(x->method, "PUT") == 0 ? exchange_respond(x, 400, NULL, body, strlen(body)) : take_all(f, x, n);
}

static void refusal_is_told_in_the_words_of_the_registry_and_not_repeated(void **state)
{
        struct fake *f = *state;
        _cleanup_(target_free_ptr) struct target *t = fake_target(f);

        f->answer[REGISTRY] = refuse_the_digest;
        expect_unpushed(t, EIO, ERROR_OTHER, "400 Bad Request: DIGEST_INVALID: no such digest");
        assert_int_equal(seen(f, "registry PUT", ""), 1);
}

/* ---- authorization ---- */

/* Challenges as GHCR does: with the scope of a pull, whatever is asked for. */
static bool want_push_token(struct fake *f, struct http_exchange *x, unsigned n)
{
        if (!has_token(f, x, "push"))
                return respond_bearer(f, x, "push");
        return take_all(f, x, n);
}

static void token_is_asked_for_with_the_scope_of_a_push(void **state)
{
        struct fake *f = *state;
        _cleanup_(target_free_ptr) struct target *t = NULL;

        f->answer[REGISTRY] = want_push_token;
        fake_client(f, NULL, "user:secret");
        t = fake_target(f);
        expect_pushed(t, CONTENT);
        expect_pushed(t, "another");
        assert_int_equal(seen(f, "tokens GET /token?service=push&scope=repository%3Ateam%2Fapp%3Apull%2Cpush ",
                              "auth=Basic dXNlcjpzZWNyZXQ="),
                         1);
        assert_int_equal(seen(f, "tokens", ""), 1);
        assert_int_equal(seen(f, "registry PUT", "auth=Bearer push-1 body="), 2);
        /* One was refused. */
        assert_int_equal(seen(f, "registry", ""), 7);
}

/* Challenges as docker-registry does: with what the very request wants. */
static bool want_what_is_done(struct fake *f, struct http_exchange *x, unsigned n)
{
        char realm[200], challenge[600];

        if (has_token(f, x, "push"))
                return take_all(f, x, n);
        snprintf(challenge, sizeof(challenge),
                 "Bearer realm=\"%s\",service=\"push\",scope=\"repository:team/base:pull  repository:" REPOSITORY
                 ":%s repository:" REPOSITORY "2:pull\"",
                 fake_url(f, TOKENS, "/token", realm, sizeof(realm)),
                 strcmp(x->method, "HEAD") == 0 ? "pushed,delete" : "push,pull");
        return respond_challenge(x, challenge);
}

static void scope_of_a_challenge_is_kept_and_widened(void **state)
{
        struct fake *f = *state;
        _cleanup_(target_free_ptr) struct target *t = fake_target(f);

        f->answer[REGISTRY] = want_what_is_done;
        expect_pushed(t, CONTENT);
        assert_int_equal(seen(f, "tokens GET /token?service=push&", ""), 1);
        assert_int_equal(seen(f, "tokens", "&scope=repository%3Ateam%2Fapp%3Apushed%2Cdelete%2Cpull%2Cpush"), 1);
        assert_int_equal(seen(f, "tokens", "&scope=repository%3Ateam%2Fbase%3Apull"), 1);
        assert_int_equal(seen(f, "tokens", "&scope=repository%3Ateam%2Fapp2%3Apull"), 1);
        assert_int_equal(seen(f, "tokens", "base%3Apull%2Cpush"), 0);
        assert_int_equal(seen(f, "tokens", "app2%3Apull%2Cpush"), 0);
}

static bool want_a_put_token(struct fake *f, struct http_exchange *x, unsigned n)
{
        return strcmp(x->method, "HEAD") == 0 ? take_all(f, x, n) : want_what_is_done(f, x, n);
}

static void scope_that_has_all_is_not_widened(void **state)
{
        struct fake *f = *state;
        _cleanup_(target_free_ptr) struct target *t = fake_target(f);

        f->answer[REGISTRY] = want_a_put_token;
        expect_pushed(t, CONTENT);
        assert_int_equal(seen(f, "tokens", "app%3Apush%2Cpull&"), 1);
}

/* A token for each of pulls and pushes. */
static bool want_two_tokens(struct fake *f, struct http_exchange *x, unsigned n)
{
        if (strcmp(x->method, "GET") != 0)
                return want_push_token(f, x, n);
        return !has_token(f, x, "manifests") && respond_bearer(f, x, "manifests");
}

static void tokens_of_pulls_are_not_tried_for_pushes(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = NULL;
        _cleanup_(target_free_ptr) struct target *t = NULL;

        f->answer[REGISTRY] = want_two_tokens;
        s = fake_source(f, ":" TAG);
        t = fake_target(f);
        expect_manifest(s);
        expect_pushed(t, CONTENT);
        expect_manifest(s);
        assert_int_equal(seen(f, "registry HEAD", "auth=Bearer manifests"), 0);
        assert_int_equal(seen(f, "registry GET", "auth=Bearer push"), 0);
        assert_int_equal(seen(f, "tokens", ""), 2);
}

/* Who may read may not always write. */
static bool forbid_writes(struct fake *f, struct http_exchange *x, unsigned n)
{
        static const char body[] = "{\"errors\":[{\"code\":\"DENIED\",\"message\":\"ask the owner\"}]}";

        return strcmp(x->method, "HEAD") == 0 ? take_all(f, x, n) : exchange_respond(x, 403, NULL, body, strlen(body));
}

static bool refuse_everybody(struct fake *f, struct http_exchange *x, unsigned n _unused_)
{
        return respond_bearer(f, x, "push");
}

static void who_may_not_push_is_told_the_repository(void **state)
{
        struct fake *f = *state;
        _cleanup_(target_free_ptr) struct target *t = fake_target(f);

        f->answer[REGISTRY] = forbid_writes;
        expect_unpushed(t, EACCES, ERROR_DENIED, "403 Forbidden: DENIED: ask the owner");
        f->answer[REGISTRY] = refuse_everybody;
        expect_unpushed(t, EACCES, ERROR_DENIED, "401 Unauthorized");
}

/* ---- mirrors, blocked registries ---- */

static void pushes_never_go_to_a_mirror(void **state)
{
        struct fake *f = *state;
        _cleanup_(target_free_ptr) struct target *t = NULL;

        f->answer[REGISTRY] = break_two_puts;
        fake_client_with_mirror(f, NULL);
        t = fake_target(f);
        expect_pushed(t, CONTENT);
        assert_int_equal(seen(f, "mirror", ""), 0);
        assert_int_equal(seen(f, "registry PUT", ""), 3);
}

static void blocked_registry_is_no_target(void **state)
{
        struct fake *f = *state;
        _cleanup_reference_ struct reference ref = { 0 };
        struct error e = ERROR_INIT;
        struct target *t = NULL;
        char text[200];

        snprintf(text, sizeof(text), "[[registry]]\nlocation = \"127.0.0.1:%u\"\nblocked = true\n",
                 http_server_port(f->servers[REGISTRY].server));
        fake_client(f, text, NULL);
        snprintf(text, sizeof(text), "127.0.0.1:%u/" REPOSITORY, http_server_port(f->servers[REGISTRY].server));
        assert_int_equal(reference_parse(text, &ref, NULL), 0);
        assert_int_equal(client_target_new(f->client, &ref, &t, &e), -EACCES);
        assert_null(t);
        assert_int_equal(e.kind, ERROR_DENIED);
}

/* ---- blobs of a neighbour ---- */

static int take(struct target *t, struct error *e)
{
        struct descriptor d = { .digest = digest_of_text(CONTENT), .size = strlen(CONTENT) };

        return target_take_blob(t, &d, "team/base", deadline_in(LONG_MS), e);
}

static bool mount_it(struct fake *f, struct http_exchange *x, unsigned n)
{
        return strcmp(x->method, "POST") == 0 ? respond_status(x, 201) : take_all(f, x, n);
}

static void blob_of_another_repository_is_mounted(void **state)
{
        struct fake *f = *state;
        _cleanup_(target_free_ptr) struct target *t = fake_target(f);
        struct digest d = digest_of_text(CONTENT);
        char line[300], digest[DIGEST_STRING_MAX];
        struct error e = ERROR_INIT;

        f->answer[REGISTRY] = mount_it;
        if (take(t, &e) < 0)
                fail_msg("%s", e.message);
        snprintf(line, sizeof(line), "registry POST " UPLOADS "?mount=%s&from=team/base", digest_format(&d, digest));
        assert_int_equal(seen(f, line, ""), 1);
        assert_int_equal(seen(f, "", ""), 2);
}

static void blob_that_is_there_is_not_mounted(void **state)
{
        struct fake *f = *state;
        _cleanup_(target_free_ptr) struct target *t = fake_target(f);

        f->answer[REGISTRY] = has_it;
        assert_int_equal(take(t, NULL), 0);
        assert_int_equal(seen(f, "", ""), 1);
}

static void upload_that_a_mount_has_opened_is_cancelled(void **state)
{
        struct fake *f = *state;
        _cleanup_(target_free_ptr) struct target *t = fake_target(f);
        struct error e = ERROR_INIT;

        f->answer[REGISTRY] = take_all;
        assert_int_equal(take(t, &e), -ENOENT);
        assert_int_equal(e.kind, ERROR_NOT_FOUND);
        expect_words(&e, "team/base");
        assert_int_equal(seen(f, "registry DELETE " SESSION "?state=abc", ""), 1);
        assert_int_equal(seen(f, "registry PUT", ""), 0);
}

static bool know_no_mounts(struct fake *f _unused_, struct http_exchange *x, unsigned n _unused_)
{
        return respond_status(x, strcmp(x->method, "HEAD") == 0 ? 404 : 405);
}

static void registry_that_mounts_nothing_has_it_uploaded(void **state)
{
        struct fake *f = *state;
        _cleanup_(target_free_ptr) struct target *t = fake_target(f);
        struct error e = ERROR_INIT;

        f->answer[REGISTRY] = know_no_mounts;
        assert_int_equal(take(t, &e), -ENOENT);
        expect_words(&e, "405 Method Not Allowed");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                fake_test(blob_is_uploaded_in_one_piece),
                fake_test(blob_that_is_there_is_not_sent),
                fake_test(blob_at_a_storage_that_allows_no_head_is_there),
                fake_test(empty_blob_is_pushed_too),
                fake_test(upload_goes_to_an_absolute_location_with_credentials),
                fake_test(upload_to_another_host_goes_without_credentials),
                fake_test(upload_without_a_location_is_refused),
                fake_test(upload_that_is_not_said_to_be_stored_is_none),
                fake_test(broken_upload_begins_again_with_a_new_session),
                fake_test(upload_waits_as_long_as_the_registry_says),
                fake_test(upload_that_never_works_ends_with_its_cause),
                fake_test(refusal_is_told_in_the_words_of_the_registry_and_not_repeated),
                fake_test(token_is_asked_for_with_the_scope_of_a_push),
                fake_test(scope_of_a_challenge_is_kept_and_widened),
                fake_test(scope_that_has_all_is_not_widened),
                fake_test(tokens_of_pulls_are_not_tried_for_pushes),
                fake_test(who_may_not_push_is_told_the_repository),
                fake_test(pushes_never_go_to_a_mirror),
                fake_test(blocked_registry_is_no_target),
                fake_test(blob_of_another_repository_is_mounted),
                fake_test(blob_that_is_there_is_not_mounted),
                fake_test(upload_that_a_mount_has_opened_is_cancelled),
                fake_test(registry_that_mounts_nothing_has_it_uploaded),
        };

        return cmocka_run_group_tests_name("push", tests, NULL, NULL);
}
