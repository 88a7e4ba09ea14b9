/* SPDX-License-Identifier: Apache-2.0 */

/* Manifests and tags, and what is tried before one is given up. */

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "registry_fixture.h"
#include "regfs/manifest.h"

static const char other_digest[] = "sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";

static void manifest_by_tag_is_read_with_its_digest_and_type(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = NULL;
        _cleanup_document_ struct document d = { 0 };
        struct error e = ERROR_INIT;

        f->content_type = OCI_MANIFEST "; charset=utf-8";
        s = fake_source(f, ":" TAG);
        if (source_manifest(s, NULL, deadline_in(LONG_MS), &d, &e) < 0)
                fail_msg("%s", e.message);
        assert_string_equal(d.body.data, BODY);
        assert_string_equal(d.media_type, OCI_MANIFEST);
        assert_true(digest_equal(&d.digest, &f->manifest_digest));
        assert_int_equal(seen(f, "registry GET /v2/" REPOSITORY "/manifests/" TAG, ""), 1);
        assert_int_equal(seen(f, "", ""), 1);
}

static void manifest_without_a_stated_digest_is_hashed(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = NULL;
        _cleanup_document_ struct document d = { 0 };

        f->no_digest = true;
        s = fake_source(f, ":" TAG);
        assert_int_equal(source_manifest(s, NULL, deadline_in(LONG_MS), &d, NULL), 0);
        assert_true(digest_equal(&d.digest, &f->manifest_digest));
}

static void manifest_by_digest_is_verified(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = NULL, *wrong = NULL;
        char digest[DIGEST_STRING_MAX], name[200];
        struct error e = ERROR_INIT;

        snprintf(name, sizeof(name), ":" TAG "@%s", digest_format(&f->manifest_digest, digest));
        s = fake_source(f, name);
        expect_manifest(s);
        assert_int_equal(seen(f, "registry GET /v2/" REPOSITORY "/manifests/sha256:", ""), 1);

        snprintf(name, sizeof(name), "@%s", other_digest);
        wrong = fake_source(f, name);
        assert_int_equal(get_manifest(wrong, LONG_MS, &e), -EBADMSG);
        assert_int_equal(e.kind, ERROR_BAD_DATA);
        expect_words(&e, other_digest);
        expect_words(&e, digest);
}

static bool state_another_digest(struct fake *f, struct http_exchange *x, unsigned n _unused_)
{
        char headers[200];

        snprintf(headers, sizeof(headers), "Docker-Content-Digest: %s\r\n", other_digest);
        return exchange_respond(x, 200, headers, f->body, strlen(f->body));
}

static void manifest_that_is_not_what_the_registry_states_is_refused(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = NULL;
        struct error e = ERROR_INIT;

        f->answer[REGISTRY] = state_another_digest;
        s = fake_source(f, ":" TAG);
        assert_int_equal(get_manifest(s, LONG_MS, &e), -EBADMSG);
        expect_words(&e, other_digest);
}

static void manifest_served_as_another_type_is_refused(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = NULL;
        _cleanup_document_ struct document d = { 0 };
        _cleanup_manifest_ struct manifest m = { 0 };
        struct error e = ERROR_INIT;

        f->content_type = "application/vnd.oci.image.index.v1+json";
        s = fake_source(f, ":" TAG);
        assert_int_equal(source_manifest(s, NULL, deadline_in(LONG_MS), &d, &e), 0);
        assert_int_equal(manifest_parse(&d, "name", &m, &e), -EBADMSG);
        expect_words(&e, "served as application/vnd.oci.image.index.v1+json, but says it is " OCI_MANIFEST);
}

static bool send_too_much(struct fake *f _unused_, struct http_exchange *x, unsigned n _unused_)
{
        exchange_printf(x, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", MANIFEST_MAX + 1);
        exchange_wait_hangup(x);
        return true;
}

static void manifest_past_its_bound_is_refused(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = NULL;
        struct error e = ERROR_INIT;

        f->answer[REGISTRY] = send_too_much;
        s = fake_source(f, ":" TAG);
        assert_int_equal(get_manifest(s, LONG_MS, &e), -EFBIG);
        assert_int_equal(e.kind, ERROR_BAD_DATA);
}

/* ---- tags ---- */

static void tag_is_resolved_by_one_head(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = fake_source(f, ":" TAG);
        struct digest d;

        assert_int_equal(source_resolve(s, deadline_in(LONG_MS), &d, NULL), 0);
        assert_true(digest_equal(&d, &f->manifest_digest));
        assert_int_equal(seen(f, "registry HEAD ", "/manifests/" TAG), 1);
        assert_int_equal(seen(f, "", ""), 1);
}

static void digest_resolves_to_itself_without_a_request(void **state)
{
        struct fake *f = *state;
        char digest[DIGEST_STRING_MAX], name[200];
        _cleanup_(source_free_ptr) struct source *s = NULL;
        struct digest d;

        snprintf(name, sizeof(name), "@%s", digest_format(&f->manifest_digest, digest));
        s = fake_source(f, name);
        assert_int_equal(source_resolve(s, deadline_in(LONG_MS), &d, NULL), 0);
        assert_true(digest_equal(&d, &f->manifest_digest));
        assert_int_equal(seen(f, "", ""), 0);
}

static void tag_is_resolved_by_get_where_head_states_no_digest(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = NULL;
        struct digest d;

        f->no_digest = true;
        s = fake_source(f, ":" TAG);
        assert_int_equal(source_resolve(s, deadline_in(LONG_MS), &d, NULL), 0);
        assert_true(digest_equal(&d, &f->manifest_digest));
        assert_int_equal(seen(f, "registry HEAD ", ""), 1);
        assert_int_equal(seen(f, "registry GET ", ""), 1);
}

static bool refuse_head(struct fake *f _unused_, struct http_exchange *x, unsigned n _unused_)
{
        return strcmp(x->method, "HEAD") == 0 && respond_status(x, 405);
}

static void tag_is_resolved_by_get_where_head_is_not_allowed(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = NULL;
        struct digest d;

        f->answer[REGISTRY] = refuse_head;
        s = fake_source(f, ":" TAG);
        assert_int_equal(source_resolve(s, deadline_in(LONG_MS), &d, NULL), 0);
        assert_true(digest_equal(&d, &f->manifest_digest));
}

/* ---- trying again ---- */

static bool too_many_once(struct fake *f _unused_, struct http_exchange *x, unsigned n)
{
        return n == 1 && exchange_respond(x, 429, "Retry-After: 1\r\n", "", 0);
}

static void retry_after_is_waited_for(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = NULL;
        uint64_t begin = clock_ms();

        f->answer[REGISTRY] = too_many_once;
        s = fake_source(f, ":" TAG);
        expect_manifest(s);
        assert_true(clock_ms() - begin >= 1000);
        assert_int_equal(seen(f, "", ""), 2);
}

static bool too_many_at_once(struct fake *f _unused_, struct http_exchange *x, unsigned n _unused_)
{
        return exchange_respond(x, 429, "Retry-After: 0\r\n", "", 0);
}

static void retry_after_nothing_is_no_endless_loop(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = NULL;
        struct error e = ERROR_INIT;

        f->answer[REGISTRY] = too_many_at_once;
        s = fake_source(f, ":" TAG);
        assert_int_equal(get_manifest(s, 700, &e), -EAGAIN);
        assert_int_equal(e.kind, ERROR_UNREACHABLE);
        expect_words(&e, "429 Too Many Requests");
        assert_in_range(seen(f, "", ""), 1, 5);
}

static bool too_many_for_an_hour(struct fake *f _unused_, struct http_exchange *x, unsigned n _unused_)
{
        return exchange_respond(x, 429, "Retry-After: 3600\r\n", "", 0);
}

static void retry_after_beyond_the_patience_fails_at_once(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = NULL;
        uint64_t begin = clock_ms();

        f->answer[REGISTRY] = too_many_for_an_hour;
        s = fake_source(f, ":" TAG);
        assert_int_equal(get_manifest(s, LONG_MS, NULL), -EAGAIN);
        assert_true(clock_ms() - begin < LONG_MS);
        assert_int_equal(seen(f, "", ""), 1);
}

static bool broken_three_times(struct fake *f _unused_, struct http_exchange *x, unsigned n)
{
        if (n == 1)
                return respond_status(x, 500);
        if (n == 2) {
                exchange_reset(x);
                return true;
        }
        return n == 3 && respond_status(x, 503);
}

static void failures_that_may_go_away_are_tried_again(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = NULL;

        f->answer[REGISTRY] = broken_three_times;
        s = fake_source(f, ":" TAG);
        expect_manifest(s);
        assert_int_equal(seen(f, "registry GET", ""), 4);
}

static bool hold(struct fake *f, struct http_exchange *x _unused_, unsigned n _unused_)
{
        fake_hold(f);
        return false;
}

static void silent_registry_fails_when_the_patience_ends(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = NULL;
        struct error e = ERROR_INIT;
        uint64_t begin = clock_ms();

        f->answer[REGISTRY] = hold;
        s = fake_source(f, ":" TAG);
        assert_int_equal(get_manifest(s, 200, &e), -ETIMEDOUT);
        assert_int_equal(e.kind, ERROR_UNREACHABLE);
        assert_true(clock_ms() - begin >= 200);
        expect_words(&e, "/v2/" REPOSITORY "/manifests/" TAG);
}

/* ---- failures for good ---- */

static bool forbid(struct fake *f _unused_, struct http_exchange *x, unsigned n _unused_)
{
        static const char body[] = "{\"errors\":[{\"code\":\"DENIED\",\"message\":\"not for \\u001b[31myou\"}]}";

        return exchange_respond(x, 403, NULL, body, strlen(body));
}

static void refusal_is_told_in_the_words_of_the_registry(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = NULL;
        struct error e = ERROR_INIT;

        f->answer[REGISTRY] = forbid;
        s = fake_source(f, ":" TAG);
        assert_int_equal(get_manifest(s, LONG_MS, &e), -EACCES);
        assert_int_equal(e.kind, ERROR_DENIED);
        expect_words(&e, "403 Forbidden: DENIED: not for \\x1b[31myou");
        assert_int_equal(seen(f, "", ""), 1);
}

static bool say_no_and_nothing_more(struct fake *f _unused_, struct http_exchange *x, unsigned n _unused_)
{
        exchange_printf(x, "HTTP/1.1 404 Not Found\r\nContent-Length: 100\r\n\r\n{\"err");
        exchange_wait_hangup(x);
        return true;
}

static void error_body_that_does_not_come_is_not_waited_for(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = NULL;
        struct error e = ERROR_INIT;
        uint64_t begin = clock_ms();

        f->answer[REGISTRY] = say_no_and_nothing_more;
        s = fake_source(f, ":" TAG);
        assert_int_equal(get_manifest(s, LONG_MS, &e), -ENOENT);
        expect_words(&e, "404 Not Found");
        assert_true(clock_ms() - begin < LONG_MS / 2);
}

static bool redirect_to_itself(struct fake *f, struct http_exchange *x, unsigned n _unused_)
{
        return respond_redirect(f, x, REGISTRY, x->target);
}

static void redirects_that_go_round_end(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = NULL;
        struct error e = ERROR_INIT;

        f->answer[REGISTRY] = redirect_to_itself;
        s = fake_source(f, ":" TAG);
        assert_int_equal(get_manifest(s, LONG_MS, &e), -ELOOP);
        expect_words(&e, "redirected more than 5 times");
        assert_int_equal(seen(f, "", ""), 6);
}

static bool redirect_to_a_file(struct fake *f _unused_, struct http_exchange *x, unsigned n _unused_)
{
        return exchange_respond(x, 302, "Location: file:///etc/passwd\r\n", "", 0);
}

static void redirect_to_anything_but_http_is_refused(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = NULL;
        struct error e = ERROR_INIT;

        f->answer[REGISTRY] = redirect_to_a_file;
        s = fake_source(f, ":" TAG);
        assert_int_equal(get_manifest(s, LONG_MS, &e), -EINVAL);
        expect_words(&e, "neither http nor https");
}

static bool not_found(struct fake *f _unused_, struct http_exchange *x, unsigned n _unused_)
{
        return respond_status(x, 404);
}

static void image_that_is_nowhere_is_not_found(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = NULL;
        struct error e = ERROR_INIT;

        f->answer[REGISTRY] = f->answer[MIRROR] = not_found;
        fake_client_with_mirror(f, NULL);
        s = fake_source(f, ":" TAG);
        assert_int_equal(get_manifest(s, LONG_MS, &e), -ENOENT);
        assert_int_equal(e.kind, ERROR_NOT_FOUND);
        expect_words(&e, "no such image: " TAG " is not there");
        assert_int_equal(seen(f, "mirror GET", ""), 1);
        assert_int_equal(seen(f, "registry GET", ""), 1);
}

/* ---- mirrors ---- */

static void mirror_is_asked_before_the_registry(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = NULL;

        fake_client_with_mirror(f, NULL);
        s = fake_source(f, ":" TAG);
        expect_manifest(s);
        assert_int_equal(seen(f, "mirror GET", ""), 1);
        assert_int_equal(seen(f, "registry", ""), 0);
}

static void dead_mirror_is_passed_over(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = NULL;

        fake_client_with_mirror(f, NULL);
        f->servers[MIRROR].server = http_server_stop(f->servers[MIRROR].server);
        s = fake_source(f, ":" TAG);
        expect_manifest(s);
        expect_manifest(s);
        assert_int_equal(seen(f, "registry GET", ""), 2);
}

static void registry_has_the_last_word_even_when_a_mirror_is_dead(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = NULL;
        struct error e = ERROR_INIT;

        f->answer[REGISTRY] = not_found;
        fake_client_with_mirror(f, NULL);
        f->servers[MIRROR].server = http_server_stop(f->servers[MIRROR].server);
        s = fake_source(f, ":" TAG);
        assert_int_equal(get_manifest(s, LONG_MS, &e), -ENOENT);
        assert_int_equal(seen(f, "registry GET", ""), 1);
}

static void mirror_for_digests_is_not_asked_for_tags(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = NULL;
        _cleanup_document_ struct document d = { 0 };
        char conf[500];

        snprintf(conf, sizeof(conf),
                 "[[registry]]\nlocation = \"127.0.0.1:%u\"\ninsecure = true\nmirror-by-digest-only = true\n"
                 "[[registry.mirror]]\nlocation = \"127.0.0.1:%u\"\ninsecure = true\n",
                 http_server_port(f->servers[REGISTRY].server), http_server_port(f->servers[MIRROR].server));
        fake_client(f, conf, NULL);
        s = fake_source(f, ":" TAG);
        expect_manifest(s);
        assert_int_equal(seen(f, "mirror", ""), 0);
        /* The registry served last, but a digest may come from anywhere: a source begun anew asks the mirror first. */
        source_free(s);
        s = fake_source(f, ":" TAG);
        assert_int_equal(source_manifest(s, &f->manifest_digest, deadline_in(LONG_MS), &d, NULL), 0);
        assert_int_equal(seen(f, "mirror GET", ""), 1);
}

static void other_documents_are_read_by_path(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = fake_source(f, ":" TAG);
        _cleanup_buf_ struct buf body = { 0 };
        struct error e = ERROR_INIT;

        assert_int_equal(client_get(s, "manifests/" TAG, NULL, KIB, deadline_in(LONG_MS), &body, &e), 0);
        assert_string_equal(body.data, BODY);
        assert_int_equal(client_get(s, "referrers/none", NULL, KIB, deadline_in(LONG_MS), &body, &e), -ENOENT);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                fake_test(manifest_by_tag_is_read_with_its_digest_and_type),
                fake_test(manifest_without_a_stated_digest_is_hashed),
                fake_test(manifest_by_digest_is_verified),
                fake_test(manifest_that_is_not_what_the_registry_states_is_refused),
                fake_test(manifest_served_as_another_type_is_refused),
                fake_test(manifest_past_its_bound_is_refused),
                fake_test(tag_is_resolved_by_one_head),
                fake_test(digest_resolves_to_itself_without_a_request),
                fake_test(tag_is_resolved_by_get_where_head_states_no_digest),
                fake_test(tag_is_resolved_by_get_where_head_is_not_allowed),
                fake_test(retry_after_is_waited_for),
                fake_test(retry_after_nothing_is_no_endless_loop),
                fake_test(retry_after_beyond_the_patience_fails_at_once),
                fake_test(failures_that_may_go_away_are_tried_again),
                fake_test(silent_registry_fails_when_the_patience_ends),
                fake_test(refusal_is_told_in_the_words_of_the_registry),
                fake_test(error_body_that_does_not_come_is_not_waited_for),
                fake_test(redirects_that_go_round_end),
                fake_test(redirect_to_anything_but_http_is_refused),
                fake_test(image_that_is_nowhere_is_not_found),
                fake_test(mirror_is_asked_before_the_registry),
                fake_test(dead_mirror_is_passed_over),
                fake_test(registry_has_the_last_word_even_when_a_mirror_is_dead),
                fake_test(mirror_for_digests_is_not_asked_for_tags),
                fake_test(other_documents_are_read_by_path),
        };

        return cmocka_run_group_tests_name("client", tests, NULL, NULL);
}
