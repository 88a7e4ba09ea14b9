/* SPDX-License-Identifier: Apache-2.0 */

/* Manifests that are pushed, and how those with a subject are found again. */

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "push_fixture.h"

#define ARTIFACT "{\"schemaVersion\":2,\"artifactType\":\"application/vnd.example\"}"
#define MANIFESTS "/v2/" REPOSITORY "/manifests/"

static const char subject_text[] = "the image";

static int put(struct target *t, const char *tag, struct error *e)
{
        return target_manifest(t, tag, OCI_MANIFEST, ARTIFACT, strlen(ARTIFACT), deadline_in(LONG_MS), e);
}

static void expect_put(struct target *t, const char *tag)
{
        struct error e = ERROR_INIT;

        if (put(t, tag, &e) < 0)
                fail_msg("%s", e.message);
}

static int attach(struct target *t, struct error *e)
{
        char *annotations[] = { (char *) "a \"key\"", (char *) "a\nvalue", (char *) "b", (char *) "", NULL };
        struct descriptor d = {
                .digest = digest_of_text(ARTIFACT),
                .size = strlen(ARTIFACT),
                .media_type = (char *) OCI_MANIFEST,
                .artifact_type = (char *) "application/vnd.example",
                .annotations = annotations,
        };
        struct digest subject = digest_of_text(subject_text);

        return target_attach(t, &subject, &d, deadline_in(LONG_MS), e);
}

static void expect_attached(struct target *t)
{
        struct error e = ERROR_INIT;

        if (attach(t, &e) < 0)
                fail_msg("%s", e.message);
}

/* ---- manifests ---- */

static char type_seen[200]; /* of the last PUT */

static bool take_manifests(struct fake *f _unused_, struct http_exchange *x, unsigned n _unused_)
{
        struct digest d = digest_of_text(x->body);
        char headers[200], digest[DIGEST_STRING_MAX];

        if (strcmp(x->method, "PUT") != 0)
                return respond_status(x, 404);
        (void) exchange_header(x, "Content-Type", type_seen, sizeof(type_seen));
        snprintf(headers, sizeof(headers), "Docker-Content-Digest: %s\r\n", digest_format(&d, digest));
        return exchange_respond(x, 201, headers, "", 0);
}

static void manifest_is_put_under_its_tag_or_its_digest(void **state)
{
        struct fake *f = *state;
        _cleanup_(target_free_ptr) struct target *t = fake_target(f);
        struct digest d = digest_of_text(ARTIFACT);
        char line[300], digest[DIGEST_STRING_MAX];

        f->answer[REGISTRY] = take_manifests;
        expect_put(t, "new");
        assert_int_equal(seen(f, "registry PUT " MANIFESTS "new body=" ARTIFACT, ""), 1);
        assert_string_equal(type_seen, OCI_MANIFEST);
        expect_put(t, NULL);
        snprintf(line, sizeof(line), "registry PUT " MANIFESTS "%s body=" ARTIFACT, digest_format(&d, digest));
        assert_int_equal(seen(f, line, ""), 1);
        assert_int_equal(seen(f, "", ""), 2);
}

static bool busy_at_first(struct fake *f, struct http_exchange *x, unsigned n)
{
        return n < 3 ? respond_status(x, 503) : take_manifests(f, x, n);
}

static void manifest_is_put_again_when_the_registry_is_busy(void **state)
{
        struct fake *f = *state;
        _cleanup_(target_free_ptr) struct target *t = fake_target(f);

        f->answer[REGISTRY] = busy_at_first;
        expect_put(t, "new");
        assert_int_equal(seen(f, "registry PUT " MANIFESTS "new body=" ARTIFACT, ""), 3);
}

static bool store_another(struct fake *f _unused_, struct http_exchange *x, unsigned n)
{
        static const char body[] = "{\"errors\":[{\"code\":\"MANIFEST_INVALID\",\"message\":\"a layer is missing\"}]}";

        if (n > 1)
                return exchange_respond(x, 400, NULL, body, strlen(body));
        return exchange_respond(x, 201,
                                "Docker-Content-Digest: "
                                "sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881\r\n",
                                "", 0);
}

static void manifest_that_is_changed_or_refused_is_not_stored(void **state)
{
        struct fake *f = *state;
        _cleanup_(target_free_ptr) struct target *t = fake_target(f);
        struct error e = ERROR_INIT;

        f->answer[REGISTRY] = store_another;
        assert_int_equal(put(t, "new", &e), -EBADMSG);
        expect_words(&e, "stored it as sha256:2d71");
        assert_int_equal(put(t, "new", &e), -EIO);
        expect_words(&e, "MANIFEST_INVALID: a layer is missing");
        expect_words(&e, " as new: ");
}

/* ---- the referrers API ---- */

static bool know_subjects(struct fake *f _unused_, struct http_exchange *x, unsigned n _unused_)
{
        return strcmp(x->method, "PUT") == 0 ? exchange_respond(x, 201, "OCI-Subject: sha256:0\r\n", "", 0)
                                             : respond_status(x, 404);
}

static void registry_that_knows_the_subject_needs_no_index(void **state)
{
        struct fake *f = *state;
        _cleanup_(target_free_ptr) struct target *t = fake_target(f);

        f->answer[REGISTRY] = know_subjects;
        expect_put(t, NULL);
        expect_attached(t);
        assert_int_equal(seen(f, "", ""), 1);
}

/* ---- the fallback tag ---- */

static const char *fallback;      /* what the tag names, or NULL */
static const char *fallback_type; /* what it is served as */
static char written[8192];        /* what it was overwritten with */

static bool keep_an_index(struct fake *f, struct http_exchange *x, unsigned n)
{
        char headers[200];

        if (strcmp(x->method, "PUT") == 0) {
                snprintf(written, sizeof(written), "%s", x->body);
                return take_manifests(f, x, n);
        }
        if (!fallback || !str_after(x->target, MANIFESTS "sha256-"))
                return respond_status(x, 404);
        snprintf(headers, sizeof(headers), "Content-Type: %s\r\n", fallback_type);
        return exchange_respond(x, 200, headers, fallback, strlen(fallback));
}

static struct target *target_with_fallback(struct fake *f, const char *index)
{
        f->answer[REGISTRY] = keep_an_index;
        fallback = index;
        fallback_type = OCI_INDEX;
        written[0] = '\0';
        return fake_target(f);
}

/* The entry that attach makes. */
static void expected_entry(char *out, size_t size)
{
        struct digest d = digest_of_text(ARTIFACT);
        char digest[DIGEST_STRING_MAX];

        snprintf(out, size,
                 "{\"mediaType\":\"" OCI_MANIFEST "\",\"digest\":\"%s\",\"size\":%zu,"
                 "\"artifactType\":\"application/vnd.example\","
                 "\"annotations\":{\"a \\\"key\\\"\":\"a\\u000avalue\",\"b\":\"\"}}",
                 digest_format(&d, digest), strlen(ARTIFACT));
}

static void index_is_made_at_the_fallback_tag(void **state)
{
        struct fake *f = *state;
        _cleanup_(target_free_ptr) struct target *t = target_with_fallback(f, NULL);
        struct digest d = digest_of_text(subject_text);
        char line[300], tag[REFERRERS_TAG_MAX], entry[1000], expected[2000];

        expect_attached(t);
        expected_entry(entry, sizeof(entry));
        snprintf(expected, sizeof(expected), "{\"schemaVersion\":2,\"mediaType\":\"" OCI_INDEX "\",\"manifests\":[%s]}",
                 entry);
        assert_string_equal(written, expected);
        assert_string_equal(type_seen, OCI_INDEX);
        referrers_tag(&d, tag);
        snprintf(line, sizeof(line), "registry GET " MANIFESTS "%s", tag);
        assert_int_equal(seen(f, line, ""), 1);
        snprintf(line, sizeof(line), "registry PUT " MANIFESTS "%s", tag);
        assert_int_equal(seen(f, line, ""), 1);
        assert_int_equal(seen(f, "", ""), 2);
}

#define OTHER_DIGEST "sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
static void index_at_the_fallback_tag_is_extended_and_nothing_of_it_lost(void **state)
{
        static const char begin[] = "\n{ \"note\" : {\"manifests\":[{}]}, \"schemaVersion\" : 2 ,\n \"manifests\":[ ";
        static const char end[] = " ] , \"annotations\": {\"k\":\"v\"}, \"unknown\": [ ] }\n";
        struct fake *f = *state;
        _cleanup_(target_free_ptr) struct target *t = NULL;
        char index[3000], entry[1000],
                other[] = "{\"mediaType\":\"m\",\"x\":[1.50,{\"manifests\":[]},\"]}\\\"\\\\\"],"
                          "\"digest\":\"" OTHER_DIGEST "\",\n\"size\" : 7,\"y\":12345678901234567890}";
        char expected[5000];

        snprintf(index, sizeof(index), "%s%s%s", begin, other, end);
        t = target_with_fallback(f, index);
        expect_attached(t);
        expected_entry(entry, sizeof(entry));
        /* Only the space behind the last entry is gone. */
        snprintf(expected, sizeof(expected),
                 "\n{ \"note\" : {\"manifests\":[{}]}, \"schemaVersion\" : 2 ,\n "
                 "\"manifests\":[%s,%s%s",
                 other, entry, end + 1);
        assert_string_equal(written, expected);
}

static void what_the_index_has_already_is_not_written_again(void **state)
{
        struct fake *f = *state;
        _cleanup_(target_free_ptr) struct target *t = NULL;
        char index[3000], entry[1000];

        expected_entry(entry, sizeof(entry));
        snprintf(index, sizeof(index), "{\"schemaVersion\":2,\"manifests\":[%s]}", entry);
        t = target_with_fallback(f, index);
        expect_attached(t);
        assert_int_equal(seen(f, "registry PUT", ""), 0);
}

static void expect_unattached(struct fake *f, struct target *t, int code, const char *words)
{
        struct error e = ERROR_INIT;

        assert_int_equal(attach(t, &e), -code);
        expect_words(&e, words);
        expect_words(&e, REPOSITORY);
        assert_int_equal(seen(f, "registry PUT", ""), 0);
}

static void what_is_no_index_at_the_fallback_tag_is_left_alone(void **state)
{
        struct fake *f = *state;
        _cleanup_(target_free_ptr) struct target *t = target_with_fallback(f, "<html>");

        expect_unattached(f, t, EBADMSG, "manifests/sha256-");
        fallback = "{\"schemaVersion\":2,\"manifests\":[{}]}";
        expect_unattached(f, t, EBADMSG, "no digest");
        fallback = "{\"schemaVersion\":2,\"m\\u0061nifests\":[]}";
        expect_unattached(f, t, EBADMSG, "spells its member");
}

static bool forbid_reading(struct fake *f _unused_, struct http_exchange *x, unsigned n _unused_)
{
        return respond_status(x, 403);
}

static void index_that_cannot_be_read_is_not_overwritten(void **state)
{
        struct fake *f = *state;
        _cleanup_(target_free_ptr) struct target *t = fake_target(f);

        f->answer[REGISTRY] = forbid_reading;
        expect_unattached(f, t, EACCES, "403 Forbidden");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                fake_test(manifest_is_put_under_its_tag_or_its_digest),
                fake_test(manifest_is_put_again_when_the_registry_is_busy),
                fake_test(manifest_that_is_changed_or_refused_is_not_stored),
                fake_test(registry_that_knows_the_subject_needs_no_index),
                fake_test(index_is_made_at_the_fallback_tag),
                fake_test(index_at_the_fallback_tag_is_extended_and_nothing_of_it_lost),
                fake_test(what_the_index_has_already_is_not_written_again),
                fake_test(what_is_no_index_at_the_fallback_tag_is_left_alone),
                fake_test(index_that_cannot_be_read_is_not_overwritten),
        };

        return cmocka_run_group_tests_name("push_referrers", tests, NULL, NULL);
}
