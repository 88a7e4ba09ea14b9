/* SPDX-License-Identifier: Apache-2.0 */

/* What names a manifest as its subject: by the API, page by page, and by the fallback tag. */

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "registry_fixture.h"

#define OCI_INDEX "application/vnd.oci.image.index.v1+json"
#define TYPE_HEADER "Content-Type: " OCI_INDEX "\r\n"
#define PAGES "/v2/" REPOSITORY "/referrers/"

static struct digest subject(void)
{
        struct digest d;

        assert_int_equal(digest_of(DIGEST_SHA256, "the image", 9, &d), 0);
        return d;
}

/* The page of N entries from FIRST on: each with a digest and annotation of its number. */
static void put_entries(struct buf *out, unsigned first, unsigned n)
{
        char text[20], digest[DIGEST_STRING_MAX];
        struct digest d;

        (void) buf_append_str(out, "{\"schemaVersion\":2,\"mediaType\":\"" OCI_INDEX "\",\"manifests\":[");
        for (unsigned k = first; k < first + n; k++) {
                snprintf(text, sizeof(text), "%u", k);
                (void) digest_of(DIGEST_SHA256, text, strlen(text), &d);
                (void) buf_printf(out,
                                  "%s{\"mediaType\":\"" OCI_MANIFEST "\",\"digest\":\"%s\",\"size\":%u,"
                                  "\"artifactType\":\"application/vnd.example\",\"annotations\":{\"number\":\"%u\"}}",
                                  k > first ? "," : "", digest_format(&d, digest), k + 1, k);
        }
        (void) buf_append_str(out, "]}");
}

/* LINK: the Link header's value, or NULL. */
static bool respond_page(struct http_exchange *x, unsigned first, unsigned n, const char *link)
{
        _cleanup_buf_ struct buf body = { 0 };
        char headers[1000];

        put_entries(&body, first, n);
        snprintf(headers, sizeof(headers), TYPE_HEADER "%s%s%s", link ? "Link: " : "", link ? link : "",
                 link ? "\r\n" : "");
        return exchange_respond(x, 200, headers, body.data, body.len);
}

static int list(struct source *s, struct descriptor **ret, size_t *ret_count, struct error *e)
{
        struct digest d = subject();

        return source_referrers(s, &d, deadline_in(LONG_MS), ret, ret_count, e);
}

/* COUNT referrers are listed, numbered from 0. */
static void expect_listed(struct source *s, size_t count)
{
        struct descriptor *found = NULL;
        struct error e = ERROR_INIT;
        char number[24];
        size_t n = 77;

        if (list(s, &found, &n, &e) < 0)
                fail_msg("%s", e.message);
        assert_int_equal(n, count);
        for (size_t k = 0; k < n; k++) {
                snprintf(number, sizeof(number), "%zu", k);
                assert_string_equal(descriptor_annotation(&found[k], "number"), number);
                assert_string_equal(found[k].artifact_type, "application/vnd.example");
                assert_int_equal(found[k].size, k + 1);
        }
        descriptors_free(found, n);
}

static void expect_unlisted(struct source *s, int code, const char *words)
{
        struct descriptor *found = NULL;
        struct error e = ERROR_INIT;
        size_t n = 77;

        assert_int_equal(list(s, &found, &n, &e), -code);
        assert_null(found);
        assert_int_equal(n, 0);
        expect_words(&e, words);
        expect_words(&e, REPOSITORY);
}

/* ---- the API ---- */

static bool two_referrers(struct fake *f _unused_, struct http_exchange *x, unsigned n _unused_)
{
        return strstr(x->target, "/referrers/") && respond_page(x, 0, 2, NULL);
}

static void referrers_are_listed_with_type_and_annotations(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = fake_source(f, ":" TAG);
        char digest[DIGEST_STRING_MAX], line[300];
        struct digest d = subject();

        f->answer[REGISTRY] = two_referrers;
        expect_listed(s, 2);
        snprintf(line, sizeof(line), "registry GET " PAGES "%s", digest_format(&d, digest));
        assert_int_equal(seen(f, line, ""), 1);
        assert_int_equal(seen(f, "", ""), 1);
}

static bool no_referrers(struct fake *f _unused_, struct http_exchange *x, unsigned n _unused_)
{
        return respond_page(x, 0, 0, NULL);
}

static void none_is_no_error_and_not_looked_for_at_the_fallback_tag(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = fake_source(f, ":" TAG);

        f->answer[REGISTRY] = no_referrers;
        expect_listed(s, 0);
        assert_int_equal(seen(f, "", ""), 1);
}

static bool referrers_with_token(struct fake *f, struct http_exchange *x, unsigned n _unused_)
{
        if (!has_token(f, x, "manifests"))
                return respond_bearer(f, x, "manifests");
        return respond_page(x, 0, 3, NULL);
}

static void referrers_are_listed_with_a_token_where_one_is_wanted(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = fake_source(f, ":" TAG);

        f->answer[REGISTRY] = referrers_with_token;
        expect_listed(s, 3);
        expect_listed(s, 3);
        assert_int_equal(seen(f, "tokens", ""), 1);
        assert_int_equal(seen(f, "registry", ""), 3);
}

static bool busy_at_first(struct fake *f _unused_, struct http_exchange *x, unsigned n)
{
        return n < 3 ? respond_status(x, 503) : respond_page(x, 0, 1, NULL);
}

static void list_is_asked_for_again_when_the_registry_is_busy(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = fake_source(f, ":" TAG);

        f->answer[REGISTRY] = busy_at_first;
        expect_listed(s, 1);
        assert_int_equal(seen(f, "registry", ""), 3);
}

static bool forbid(struct fake *f _unused_, struct http_exchange *x, unsigned n _unused_)
{
        return respond_status(x, 403);
}

static void refusal_is_no_empty_list(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = fake_source(f, ":" TAG);

        f->answer[REGISTRY] = forbid;
        expect_unlisted(s, EACCES, "403 Forbidden");
        assert_int_equal(seen(f, "", ""), 1);
}

/* HTML, then the manifest of an image. */
static bool answer_no_index(struct fake *f _unused_, struct http_exchange *x, unsigned n)
{
        static const char text[] =
                "{\"schemaVersion\":2,\"config\":{\"mediaType\":\"application/vnd.oci.image.config.v1+json\","
                "\"digest\":"
                "\"sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881\",\"size\":1},\"layers\":[{"
                "\"mediaType\":\"application/vnd.oci.image.layer.v1.tar\",\"digest\":"
                "\"sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881\",\"size\":1}]}";

        return n == 1 ? exchange_respond(x, 200, "Content-Type: text/html\r\n", "<html>", 6)
                      : exchange_respond(x, 200, NULL, text, strlen(text));
}

static void answer_that_is_no_index_is_refused(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = fake_source(f, ":" TAG);

        f->answer[REGISTRY] = answer_no_index;
        expect_unlisted(s, EBADMSG, "referrers/sha256:");
        expect_unlisted(s, EBADMSG, "no index");
}

/* ---- pages ---- */

/* Ten pages of three; each links to the next one in another way. */
static bool ten_pages(struct fake *f, struct http_exchange *x, unsigned n _unused_)
{
        const char *at = strstr(x->target, "page=");
        unsigned page = at ? (unsigned) strtoul(at + 5, NULL, 10) : 0;
        char link[400], url[200];

        switch (page % 4) {
        case 0:
                snprintf(link, sizeof(link), "<" PAGES "x?page=%u>; rel=\"next\"", page + 1);
                break;
        case 1:
                snprintf(link, sizeof(link), "<?page=%u>;rel=next", page + 1);
                break;
        case 2:
                snprintf(link, sizeof(link),
                         "<" PAGES "x?page=0>; rel=\"first\", <" PAGES "x?page=%u>; title=\"more\"; rel=\"next\"",
                         page + 1);
                break;
        default:
                snprintf(link, sizeof(link), "<%s?page=%u>; rel=\"NEXT\"",
                         fake_url(f, REGISTRY, PAGES "x", url, sizeof(url)), page + 1);
                break;
        }
        return respond_page(x, 3 * page, 3, page < 9 ? link : "<" PAGES "x?page=0>; rel=\"prev\"");
}

static void pages_are_followed_to_the_last(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = fake_source(f, ":" TAG);

        f->answer[REGISTRY] = ten_pages;
        expect_listed(s, 30);
        assert_int_equal(seen(f, "registry GET " PAGES, ""), 10);
}

/* To another host, then to another repository. */
static bool link_elsewhere(struct fake *f, struct http_exchange *x, unsigned n)
{
        char link[400], url[200];

        snprintf(link, sizeof(link), "<%s>; rel=\"next\"", fake_url(f, MIRROR, PAGES "x", url, sizeof(url)));
        return respond_page(x, 0, 2, n == 1 ? link : "</v2/another/app/referrers/x>; rel=\"next\"");
}

static void link_to_another_place_is_not_followed(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = fake_source(f, ":" TAG);

        f->answer[REGISTRY] = link_elsewhere;
        expect_listed(s, 2);
        assert_int_equal(seen(f, "mirror", ""), 0);
        expect_listed(s, 2);
        assert_int_equal(seen(f, "", ""), 2);
}

static bool link_in_a_circle(struct fake *f _unused_, struct http_exchange *x, unsigned n)
{
        return respond_page(x, 0, 2, n % 2 ? "<?page=1>; rel=\"next\"" : "<?page=2>; rel=\"next\"");
}

static void pages_in_a_circle_end(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = fake_source(f, ":" TAG);

        f->answer[REGISTRY] = link_in_a_circle;
        expect_listed(s, 2);
        assert_in_range(seen(f, "", ""), 3, 256);
}

static bool link_to_itself(struct fake *f _unused_, struct http_exchange *x, unsigned n _unused_)
{
        return respond_page(x, 0, 2, "<?page=1>; rel=\"next\"");
}

static void page_that_links_to_itself_is_the_last(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = fake_source(f, ":" TAG);

        f->answer[REGISTRY] = link_to_itself;
        expect_listed(s, 2);
        assert_int_equal(seen(f, "", ""), 2);
}

static bool endless_pages(struct fake *f _unused_, struct http_exchange *x, unsigned n)
{
        char link[100];

        snprintf(link, sizeof(link), "<?page=%u>; rel=\"next\"", n);
        return respond_page(x, (n - 1) * 1000, 1000, link);
}

static void list_is_cut_at_its_bound(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = fake_source(f, ":" TAG);

        f->answer[REGISTRY] = endless_pages;
        expect_listed(s, REFERRERS_MAX);
        assert_int_equal(seen(f, "", ""), 5);
}

static bool page_that_is_not_there(struct fake *f _unused_, struct http_exchange *x, unsigned n)
{
        return n == 1 ? respond_page(x, 0, 2, "<?page=2>; rel=\"next\"") : respond_status(x, 404);
}

static void announced_page_that_is_not_there_is_an_error(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = fake_source(f, ":" TAG);

        f->answer[REGISTRY] = page_that_is_not_there;
        expect_unlisted(s, EBADMSG, "page 2");
        assert_int_equal(seen(f, "", "/manifests/"), 0);
}

/* ---- the fallback tag ---- */

static const unsigned unknown_here[] = { 404, 400, 405, 501 };

/* Each list is asked for in two requests: the API, then the tag. */
static bool only_the_tag(struct fake *f _unused_, struct http_exchange *x, unsigned n)
{
        if (strstr(x->target, "/referrers/"))
                return respond_status(x, unknown_here[(n - 1) / 2 % ELEMENTSOF(unknown_here)]);
        return respond_page(x, 0, 2, "<" PAGES "x?page=1>; rel=\"next\"");
}

static void fallback_tag_is_asked_where_there_is_no_api(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = fake_source(f, ":" TAG);
        char tag[REFERRERS_TAG_MAX], line[300];
        struct digest d = subject();

        f->answer[REGISTRY] = only_the_tag;
        snprintf(line, sizeof(line), "registry GET /v2/" REPOSITORY "/manifests/%s", referrers_tag(&d, tag));
        for (unsigned k = 0; k < ELEMENTSOF(unknown_here); k++) {
                expect_listed(s, 2);
                assert_int_equal(seen(f, line, ""), k + 1);
        }
        assert_int_equal(seen(f, "", ""), 8);
}

static bool nothing_there(struct fake *f _unused_, struct http_exchange *x, unsigned n _unused_)
{
        return respond_status(x, 404);
}

static void nothing_at_the_fallback_tag_is_none(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = fake_source(f, ":" TAG);

        f->answer[REGISTRY] = nothing_there;
        expect_listed(s, 0);
        assert_int_equal(seen(f, "", ""), 2);
}

/* ---- mirrors ---- */

static bool nothing_but_two_pages(struct fake *f, struct http_exchange *x, unsigned n)
{
        return n == 1 ? respond_page(x, 0, 2, "<?page=2>; rel=\"next\"") : two_referrers(f, x, n);
}

/* A mirror is there because the registry may be out of reach. */
static void registry_is_not_asked_where_a_mirror_serves(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = NULL;

        fake_client_with_mirror(f, NULL);
        f->answer[MIRROR] = nothing_there;
        f->answer[REGISTRY] = two_referrers;
        s = fake_source(f, ":" TAG);
        expect_listed(s, 0);
        assert_int_equal(seen(f, "mirror GET " PAGES, ""), 1);
        assert_int_equal(seen(f, "registry", ""), 0);
}

static void further_pages_are_those_of_the_mirror_that_served_the_first(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = NULL;

        fake_client_with_mirror(f, NULL);
        f->answer[MIRROR] = nothing_but_two_pages;
        s = fake_source(f, ":" TAG);
        expect_listed(s, 2);
        assert_int_equal(seen(f, "mirror GET " PAGES, ""), 2);
        assert_int_equal(seen(f, "registry", ""), 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                fake_test(referrers_are_listed_with_type_and_annotations),
                fake_test(none_is_no_error_and_not_looked_for_at_the_fallback_tag),
                fake_test(referrers_are_listed_with_a_token_where_one_is_wanted),
                fake_test(list_is_asked_for_again_when_the_registry_is_busy),
                fake_test(refusal_is_no_empty_list),
                fake_test(answer_that_is_no_index_is_refused),
                fake_test(pages_are_followed_to_the_last),
                fake_test(link_to_another_place_is_not_followed),
                fake_test(pages_in_a_circle_end),
                fake_test(page_that_links_to_itself_is_the_last),
                fake_test(list_is_cut_at_its_bound),
                fake_test(announced_page_that_is_not_there_is_an_error),
                fake_test(fallback_tag_is_asked_where_there_is_no_api),
                fake_test(nothing_at_the_fallback_tag_is_none),
                fake_test(registry_is_not_asked_where_a_mirror_serves),
                fake_test(further_pages_are_those_of_the_mirror_that_served_the_first),
        };

        return cmocka_run_group_tests_name("referrers", tests, NULL, NULL);
}
