/* SPDX-License-Identifier: Apache-2.0 */

/* What a registry wants to see, who gets to see it, and what happens when it is refused. */

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "cache/registry/client_internal.h"
#include "registry_fixture.h"

#define CREDS "user:secret"
#define BASIC "Basic dXNlcjpzZWNyZXQ="

/* The manifest cannot be had: CODE, with WORDS. */
static void expect_no_manifest(struct source *s, int code, const char *words)
{
        struct error e = ERROR_INIT;

        assert_int_equal(get_manifest(s, LONG_MS, &e), -code);
        expect_words(&e, words);
}

/* ---- Bearer ---- */

static void bearer_challenge_is_answered_once_and_remembered(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = source_with(f, "Bearer", NULL);
        _cleanup_(blob_free_ptr) struct blob *b = fake_blob(f, s, NULL);

        expect_manifest(s);
        assert_int_equal(seen(f, "tokens GET /token?service=manifests&scope=repository%3Ateam%2Fapp%3Apull", ""), 1);
        assert_int_equal(seen(f, "", ""), 3);
        expect_manifest(s);
        expect_range(f, b, 0, 100);
        assert_int_equal(seen(f, "registry", "auth=Bearer manifests-1"), 3);
        assert_int_equal(seen(f, "", ""), 5);
}

static void blobs_may_want_another_token_than_manifests(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = NULL;
        _cleanup_(blob_free_ptr) struct blob *b = NULL;

        f->blobs_want = "Bearer";
        s = source_with(f, "Bearer", NULL);
        b = fake_blob(f, s, NULL);
        for (int k = 0; k < 3; k++) {
                expect_manifest(s);
                expect_range(f, b, 0, 100);
        }
        assert_int_equal(seen(f, "tokens", "service=manifests&"), 1);
        assert_int_equal(seen(f, "tokens", "service=blobs&"), 1);
        /* 401 and three answers for manifests; for blobs the manifests' token once, and three answers. */
        assert_int_equal(seen(f, "registry", ""), 8);
}

static void credentials_go_to_the_token_server_alone(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = source_with(f, "Bearer", CREDS);

        expect_manifest(s);
        assert_int_equal(seen(f, "tokens GET", "auth=" BASIC), 1);
        assert_int_equal(seen(f, "registry", "Basic"), 0);
}

static struct source *source_with_identity_token(struct fake *f)
{
        char text[200];

        snprintf(text, sizeof(text), "{\"auths\":{\"127.0.0.1:%u\":{\"auth\":\"\",\"identitytoken\":\"refresh\"}}}",
                 http_server_port(f->servers[REGISTRY].server));
        fake_write(f, "auth.json", text);
        return source_with(f, "Bearer", NULL);
}

static bool accept_post(struct fake *f, struct http_exchange *x, unsigned n _unused_)
{
        static const char body[] = "{\"access_token\":\"manifests-7\"}";

        (void) f;
        return strcmp(x->method, "POST") == 0 && exchange_respond(x, 200, NULL, body, strlen(body));
}

static void identity_token_is_posted(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = source_with_identity_token(f);

        f->answer[TOKENS] = accept_post;
        expect_manifest(s);
        assert_int_equal(seen(f,
                              "tokens POST /token body=grant_type=refresh_token&client_id=regfs&refresh_token=refresh&"
                              "service=manifests&scope=repository%3Ateam%2Fapp%3Apull",
                              ""),
                         1);
        assert_int_equal(seen(f, "tokens", ""), 1);
}

static bool refuse_post(struct fake *f _unused_, struct http_exchange *x, unsigned n _unused_)
{
        return strcmp(x->method, "POST") == 0 && respond_status(x, 405);
}

static void token_is_got_where_it_cannot_be_posted_for(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = source_with_identity_token(f);

        f->answer[TOKENS] = refuse_post;
        expect_manifest(s);
        assert_int_equal(seen(f, "tokens POST", ""), 1);
        assert_int_equal(seen(f, "tokens GET", ""), 1);
}

static void revoke_tokens(struct fake *f, unsigned up_to)
{
        mutex_lock(&f->lock);
        f->revoked = up_to;
        mutex_unlock(&f->lock);
}

static void refused_token_is_renewed_once(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = source_with(f, "Bearer", NULL);

        expect_manifest(s);
        revoke_tokens(f, 1);
        expect_manifest(s);
        assert_int_equal(seen(f, "tokens", ""), 2);
        assert_int_equal(seen(f, "registry", "auth=Bearer manifests-1"), 2);
        assert_int_equal(seen(f, "registry", "auth=Bearer manifests-2"), 1);
}

/* As ECR does with a token that has expired. */
static bool forbid_revoked_tokens(struct fake *f, struct http_exchange *x, unsigned n _unused_)
{
        char value[100];

        return exchange_header(x, "Authorization", value, sizeof(value)) && !has_token(f, x, "manifests") &&
               respond_status(x, 403);
}

static void token_that_is_forbidden_is_renewed_once(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = source_with(f, "Bearer", NULL);

        f->answer[REGISTRY] = forbid_revoked_tokens;
        expect_manifest(s);
        revoke_tokens(f, 1);
        expect_manifest(s);
        assert_int_equal(seen(f, "tokens", ""), 2);

        /* A new one that is forbidden all the same is the last. */
        revoke_tokens(f, 100);
        expect_no_manifest(s, EACCES, "403 Forbidden");
        assert_int_equal(seen(f, "tokens", ""), 3);
}

static bool refuse_everybody(struct fake *f, struct http_exchange *x, unsigned n _unused_)
{
        return respond_bearer(f, x, "manifests");
}

static void registry_that_refuses_every_token_is_asked_three_times(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = source_with(f, NULL, NULL);

        f->answer[REGISTRY] = refuse_everybody;
        expect_no_manifest(s, EACCES, "401 Unauthorized: UNAUTHORIZED: who are you");
        assert_int_equal(seen(f, "registry", ""), 3);
        assert_int_equal(seen(f, "tokens", ""), 2);
}

static bool forbid_credentials(struct fake *f _unused_, struct http_exchange *x, unsigned n _unused_)
{
        char value[100];

        return exchange_header(x, "Authorization", value, sizeof(value)) && respond_status(x, 403);
}

static void anonymous_goes_where_the_credentials_are_forbidden(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = source_with(f, "Bearer", CREDS);

        f->answer[TOKENS] = forbid_credentials;
        expect_manifest(s);
        revoke_tokens(f, 1);
        expect_manifest(s);
        /* That they are refused is asked once. */
        assert_int_equal(seen(f, "tokens GET", "auth=" BASIC), 1);
        assert_int_equal(seen(f, "tokens GET", ""), 3);
}

static bool send_token_with_newline(struct fake *f _unused_, struct http_exchange *x, unsigned n _unused_)
{
        static const char body[] = "{\"token\":\"manifests-1\\r\\nHost: elsewhere\"}";

        return exchange_respond(x, 200, NULL, body, strlen(body));
}

static void token_that_would_add_a_header_is_refused(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = source_with(f, "Bearer", NULL);

        f->answer[TOKENS] = send_token_with_newline;
        expect_no_manifest(s, EBADMSG, "characters that no token has");
        assert_int_equal(seen(f, "registry", "auth="), 0);
}

static bool challenge_at_the_door(struct fake *f, struct http_exchange *x, unsigned n _unused_)
{
        if (str_eq(x->target, "/v2/"))
                return respond_bearer(f, x, "manifests");
        return !has_token(f, x, "manifests") && respond_status(x, 401);
}

static void refusal_without_a_challenge_is_explained_at_the_front_door(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = source_with(f, NULL, NULL);

        f->answer[REGISTRY] = challenge_at_the_door;
        expect_manifest(s);
        assert_int_equal(seen(f, "registry GET /v2/ ", ""), 0);
        assert_int_equal(seen(f, "registry GET /v2/", ""), 3);
}

/* ---- Basic ---- */

static void basic_credentials_are_sent_when_they_are_asked_for(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = source_with(f, "Basic", CREDS);

        expect_manifest(s);
        expect_manifest(s);
        assert_int_equal(seen(f, "registry", "auth=" BASIC), 2);
        assert_int_equal(seen(f, "", ""), 3);
}

static void wrong_basic_credentials_are_refused_without_another_try(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = source_with(f, "Basic", "user:wrong");

        expect_no_manifest(s, EACCES, "401 Unauthorized");
        assert_int_equal(seen(f, "", ""), 2);
}

static void missing_credentials_are_named(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = source_with(f, "Basic", NULL);

        expect_no_manifest(s, EACCES, "wants a user and password, and there are none");
}

/* What authorizes is missing, not the image. */
static void helper_that_is_missing_is_not_taken_for_a_missing_image(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = NULL;
        char text[200];

        snprintf(text, sizeof(text), "{\"credHelpers\":{\"127.0.0.1:%u\":\"is-missing\"}}",
                 http_server_port(f->servers[REGISTRY].server));
        fake_write(f, "auth.json", text);
        s = source_with(f, "Basic", NULL);
        expect_no_manifest(s, EACCES, "docker-credential-is-missing");
}

static bool no_such_page(struct fake *f _unused_, struct http_exchange *x, unsigned n _unused_)
{
        return respond_status(x, 404);
}

static void token_server_that_is_elsewhere_is_not_taken_for_a_missing_image(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = source_with(f, "Bearer", NULL);
        struct error e = ERROR_INIT;

        f->answer[TOKENS] = no_such_page;
        assert_int_equal(get_manifest(s, LONG_MS, &e), -EACCES);
        expect_words(&e, "404 Not Found");
        assert_null(strstr(e.message, "no such image"));
}

static void write_auth(struct fake *f, const char *pair)
{
        _cleanup_free_ char *encoded = base64_encode(pair, strlen(pair));
        char text[200];

        snprintf(text, sizeof(text), "{\"auths\":{\"127.0.0.1:%u\":{\"auth\":\"%s\"}}}",
                 http_server_port(f->servers[REGISTRY].server), encoded);
        fake_write(f, "auth.json", text);
}

static void credentials_are_looked_for_once_and_again_when_they_expire(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = NULL;

        write_auth(f, "user:secret");
        s = source_with(f, "Basic", NULL);
        expect_manifest(s);
        fake_write(f, "auth.json", "no longer JSON");
        expect_manifest(s);

        /* As if the registry no longer took what it took before. */
        write_auth(f, "user:old");
        assert_int_equal(
                client_keep_credential(f->client, &((struct registry_source *) s)->endpoints.items[0],
                                       &(struct credential) { .user = (char *) "user", .secret = (char *) "expired" }),
                0);
        write_auth(f, "user:secret");
        expect_manifest(s);
        assert_int_equal(seen(f, "registry", "auth="), 4);
}

/* ---- what is remembered ---- */

/* The realm of the first challenge gives nobody a token; later ones name another. */
static bool move_the_realm(struct fake *f, struct http_exchange *x, unsigned n)
{
        char realm[200], challenge[400];

        if (has_token(f, x, "manifests"))
                return false;
        snprintf(challenge, sizeof(challenge), "Bearer realm=\"%s\",service=\"manifests\"",
                 fake_url(f, TOKENS, n == 1 ? "/old" : "/new", realm, sizeof(realm)));
        return respond_challenge(x, challenge);
}

static bool nothing_at_the_old_place(struct fake *f _unused_, struct http_exchange *x, unsigned n _unused_)
{
        return str_after(x->target, "/old") && respond_status(x, 404);
}

static void challenge_that_leads_nowhere_is_not_remembered_for_ever(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = source_with(f, NULL, NULL);

        f->answer[REGISTRY] = move_the_realm;
        f->answer[TOKENS] = nothing_at_the_old_place;
        expect_no_manifest(s, EACCES, "404 Not Found");
        expect_manifest(s);
        assert_int_equal(seen(f, "tokens GET /old", ""), 1);
        assert_int_equal(seen(f, "tokens GET /new", ""), 1);
}

/* ---- what must not leak ---- */

/* A mirror that asks for a token at its own place, and then fails. */
static bool challenge_and_fail(struct fake *f, struct http_exchange *x, unsigned n)
{
        return n == 1 ? respond_bearer(f, x, "mirror") : respond_status(x, 503);
}

static void credentials_of_the_registry_never_go_where_a_mirror_says(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = NULL;

        write_auth(f, "user:secret");
        f->answer[MIRROR] = challenge_and_fail;
        fake_client_with_mirror(f, NULL);
        s = fake_source(f, ":" TAG);
        expect_manifest(s);
        assert_int_equal(seen(f, "mirror GET", ""), 2);
        assert_int_equal(seen(f, "tokens GET", ""), 1);
        assert_int_equal(seen(f, "", "auth=Basic"), 0);
        assert_int_equal(seen(f, "registry", "auth="), 0);
}

static bool name_a_private_realm(struct fake *f _unused_, struct http_exchange *x, unsigned n _unused_)
{
        return respond_challenge(x, "Bearer realm=\"http://169.254.169.254/latest\",service=\"s\"");
}

static struct source *public_source(struct fake *f)
{
        _cleanup_reference_ struct reference ref = { 0 };
        struct source *s = NULL;

        fake_client(f, NULL, NULL);
        assert_int_equal(reference_parse("registry.example/" REPOSITORY ":" TAG, &ref, NULL), 0);
        assert_int_equal(client_source_new(f->client, &ref, &s, NULL), 0);
        return s;
}

static void realm_at_a_private_address_is_refused(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = NULL;
        char proxy[100];

        /* A registry with a public name: the fake one, as a proxy. */
        setenv("http_proxy", fake_url(f, REGISTRY, "", proxy, sizeof(proxy)), 1);
        f->answer[REGISTRY] = name_a_private_realm;
        s = public_source(f);
        expect_no_manifest(s, EPERM, "a realm at the private address 169.254.169.254: refused");
        unsetenv("http_proxy");
        assert_int_equal(seen(f, "registry GET http://registry.example/v2/", ""), 1);
        assert_int_equal(seen(f, "", ""), 1);
}

/* The test's directory as a home, with certificates and a place for them to be found at. */
static void make_home(struct fake *f, unsigned port, char *home, size_t size)
{
        char directory[300], file[400];
        _cleanup_buf_ struct buf ca = { 0 };
        int fd;

        snprintf(home, size, "%s/home", f->directory);
        snprintf(directory, sizeof(directory), "%s/.config/containers/certs.d/localhost:%u", home, port);
        assert_int_equal(make_directories(directory, 0700, NULL), 0);
        snprintf(file, sizeof(file), "%s/ca.pem", f->directory);
        assert_int_equal(file_read(AT_FDCWD, file, MIB, &ca, NULL), 0);
        snprintf(file, sizeof(file), "%s/ca.crt", directory);
        fd = open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        assert_true(fd >= 0);
        assert_int_equal(write_full(fd, ca.data, ca.len), 0);
        close(fd);
}

static void remove_all(struct fake *f)
{
        _cleanup_free_ char *command = str_printf("rm -r '%s'", f->directory);

        assert_non_null(command);
        assert_int_equal(system(command), 0);
}

static void credentials_do_not_go_to_a_realm_that_is_not_encrypted(void **state)
{
        struct fake *f = *state;
        struct registries_options registries = { .conf = fake_file(f, "registries.conf"), .tls_verify = -1 };
        struct client_options client = { .http = f->http, .credentials = { .creds = CREDS } };
        struct http_server_options tls = { .handler = fake_handler, .context = &f->servers[REGISTRY] };
        _cleanup_(source_free_ptr) struct source *s = NULL;
        _cleanup_reference_ struct reference ref = { 0 };
        char certificate[200], key[200], home[200], name[200];
        _cleanup_free_ char *old = strdup(getenv("HOME") ? getenv("HOME") : "/");
        struct http_server *server;

        http_server_make_certificates(f->directory);
        snprintf(certificate, sizeof(certificate), "%s/good.pem", f->directory);
        snprintf(key, sizeof(key), "%s/good.key", f->directory);
        tls.certificate = certificate;
        tls.key = key;
        server = http_server_start(&tls);
        make_home(f, http_server_port(server), home, sizeof(home));
        setenv("HOME", home, 1);
        fake_write(f, "registries.conf", "");
        assert_int_equal(registries_load(&registries, &f->registries, NULL), 0);
        client.registries = f->registries;
        assert_int_equal(client_new(&client, &f->client, NULL), 0);
        f->wants = "Bearer";

        snprintf(name, sizeof(name), "localhost:%u/" REPOSITORY ":" TAG, http_server_port(server));
        assert_int_equal(reference_parse(name, &ref, NULL), 0);
        assert_int_equal(client_source_new(f->client, &ref, &s, NULL), 0);
        expect_no_manifest(s, EPERM, "which is not encrypted: refused");
        assert_int_equal(seen(f, "registry GET", ""), 1);
        assert_int_equal(seen(f, "tokens", ""), 0);

        setenv("HOME", old, 1);
        s = source_free(s);
        http_server_stop(server);
        remove_all(f);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                fake_test(bearer_challenge_is_answered_once_and_remembered),
                fake_test(blobs_may_want_another_token_than_manifests),
                fake_test(credentials_go_to_the_token_server_alone),
                fake_test(identity_token_is_posted),
                fake_test(token_is_got_where_it_cannot_be_posted_for),
                fake_test(refused_token_is_renewed_once),
                fake_test(token_that_is_forbidden_is_renewed_once),
                fake_test(registry_that_refuses_every_token_is_asked_three_times),
                fake_test(anonymous_goes_where_the_credentials_are_forbidden),
                fake_test(token_that_would_add_a_header_is_refused),
                fake_test(refusal_without_a_challenge_is_explained_at_the_front_door),
                fake_test(basic_credentials_are_sent_when_they_are_asked_for),
                fake_test(wrong_basic_credentials_are_refused_without_another_try),
                fake_test(missing_credentials_are_named),
                fake_test(helper_that_is_missing_is_not_taken_for_a_missing_image),
                fake_test(token_server_that_is_elsewhere_is_not_taken_for_a_missing_image),
                fake_test(credentials_are_looked_for_once_and_again_when_they_expire),
                fake_test(challenge_that_leads_nowhere_is_not_remembered_for_ever),
                fake_test(credentials_of_the_registry_never_go_where_a_mirror_says),
                fake_test(realm_at_a_private_address_is_refused),
                fake_test(credentials_do_not_go_to_a_realm_that_is_not_encrypted),
        };

        return cmocka_run_group_tests_name("client_auth", tests, NULL, NULL);
}
