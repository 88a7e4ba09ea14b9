/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "regfs/reference.h"
#include "regfs/text.h"

#define HEX "7cc4b5aefd1d0cadf8d97d4350462ba51c694ebca145b08d7d41b41acc8db5aa"
#define SHA256 "sha256:" HEX
#define SHA512 "sha512:" HEX HEX

struct valid {
        const char *text;
        const char *host;
        const char *repository;
        const char *tag;
        const char *digest;
        const char *canonical;
};

static void assert_text(const char *actual, const char *expected)
{
        if (!expected) {
                assert_null(actual);
                return;
        }
        assert_non_null(actual);
        assert_string_equal(actual, expected);
}

static void assert_digest(const struct reference *r, const char *expected)
{
        char text[DIGEST_STRING_MAX];

        assert_int_equal(r->has_digest, expected != NULL);
        if (expected)
                assert_string_equal(digest_format(&r->digest, text), expected);
}

static void assert_format(const struct reference *r, const char *expected)
{
        _cleanup_free_ char *text = reference_format(r);

        assert_text(text, expected);
}

static void parse_ok(const char *text, struct reference *ret)
{
        struct error e = ERROR_INIT;

        if (reference_parse(text, ret, &e) < 0)
                fail_msg("%s", e.message);
}

/* Returns what is wrong; the reference must not have been touched. */
static void parse_fails(const char *text, struct error *e)
{
        struct reference r = { .host = (char *) "untouched" };
        int k;

        k = reference_parse(text, &r, e);
        if (k != -EINVAL)
                fail_msg("\"%s\" gives %d", text, k);
        assert_int_equal(e->kind, ERROR_USAGE);
        assert_int_equal(e->code, EINVAL);
        assert_string_equal(r.host, "untouched");
        assert_null(r.repository);
}

static void names_are_split_as_distribution_does(void **state _unused_)
{
        static const struct valid table[] = {
                /* short names */
                { "alpine", NULL, "alpine", "latest", NULL, "alpine:latest" },
                { "alpine:edge", NULL, "alpine", "edge", NULL, "alpine:edge" },
                { "library/alpine", NULL, "library/alpine", "latest", NULL, "library/alpine:latest" },
                { "a/b/c:1", NULL, "a/b/c", "1", NULL, "a/b/c:1" },
                { "test.com:5000", NULL, "test.com", "5000", NULL, "test.com:5000" },
                { "192.168.1.1", NULL, "192.168.1.1", "latest", NULL, "192.168.1.1:latest" },
                { "localhost", NULL, "localhost", "latest", NULL, "localhost:latest" },
                { "foo_bar.com:8080", NULL, "foo_bar.com", "8080", NULL, "foo_bar.com:8080" },
                { "foo/foo_bar.com:8080", NULL, "foo/foo_bar.com", "8080", NULL, "foo/foo_bar.com:8080" },
                { "lowercase:Upper_Case.-1", NULL, "lowercase", "Upper_Case.-1", NULL, "lowercase:Upper_Case.-1" },
                { "docker:dind", NULL, "docker", "dind", NULL, "docker:dind" },
                { "oci/thing", NULL, "oci/thing", "latest", NULL, "oci/thing:latest" },
                { HEX ":tag", NULL, HEX, "tag", NULL, HEX ":tag" },
                { "docker://alpine", NULL, "alpine", "latest", NULL, "alpine:latest" },
                { "docker://oci:1", NULL, "oci", "1", NULL, "docker://oci:1" },
                { "docker://dir:1", NULL, "dir", "1", NULL, "docker://dir:1" },
                { "docker://dir:80/x", "dir:80", "x", "latest", NULL, "docker://dir:80/x:latest" },
                { "oci", NULL, "oci", "latest", NULL, "docker://oci:latest" },
                /* inner separators */
                { "a-b/c--d", NULL, "a-b/c--d", "latest", NULL, "a-b/c--d:latest" },
                { "dock__er/d.e_f", NULL, "dock__er/d.e_f", "latest", NULL, "dock__er/d.e_f:latest" },
                { "a---b", NULL, "a---b", "latest", NULL, "a---b:latest" },
                /* hosts */
                { "example.com/a", "example.com", "a", "latest", NULL, "example.com/a:latest" },
                { "example.com:8443/a/b:t", "example.com:8443", "a/b", "t", NULL, "example.com:8443/a/b:t" },
                { "host:5000/repo", "host:5000", "repo", "latest", NULL, "host:5000/repo:latest" },
                { "localhost/repo", "localhost", "repo", "latest", NULL, "localhost/repo:latest" },
                { "localhost:65535/repo", "localhost:65535", "repo", "latest", NULL, "localhost:65535/repo:latest" },
                { "192.168.1.1:5000/repo:5050", "192.168.1.1:5000", "repo", "5050", NULL,
                  "192.168.1.1:5000/repo:5050" },
                { "LOCALDOMAIN/repo", "LOCALDOMAIN", "repo", "latest", NULL, "LOCALDOMAIN/repo:latest" },
                { "Uppercase/lowercase:tag", "Uppercase", "lowercase", "tag", NULL, "Uppercase/lowercase:tag" },
                { "xn--n3h.com/i:xn--n3h.com", "xn--n3h.com", "i", "xn--n3h.com", NULL, "xn--n3h.com/i:xn--n3h.com" },
                { "b.gcr.io/test.example.com/my-app:v1.0", "b.gcr.io", "test.example.com/my-app", "v1.0", NULL,
                  "b.gcr.io/test.example.com/my-app:v1.0" },
                { "docker://ghcr.io/x/y:1", "ghcr.io", "x/y", "1", NULL, "ghcr.io/x/y:1" },
                /* IPv6 */
                { "[::1]/repo", "[::1]", "repo", "latest", NULL, "[::1]/repo:latest" },
                { "[2001:db8::1]:5000/repo:tag", "[2001:db8::1]:5000", "repo", "tag", NULL,
                  "[2001:db8::1]:5000/repo:tag" },
                { "[2001:db8:1:2:3:4:5:6]/repo", "[2001:db8:1:2:3:4:5:6]", "repo", "latest", NULL,
                  "[2001:db8:1:2:3:4:5:6]/repo:latest" },
                /* digests */
                { "alpine@" SHA256, NULL, "alpine", NULL, SHA256, "alpine@" SHA256 },
                { "alpine:edge@" SHA256, NULL, "alpine", "edge", SHA256, "alpine:edge@" SHA256 },
                { "host:5000/repo@" SHA512, "host:5000", "repo", NULL, SHA512, "host:5000/repo@" SHA512 },
                { "[::1]:5000/a:t@" SHA256, "[::1]:5000", "a", "t", SHA256, "[::1]:5000/a:t@" SHA256 },
        };

        for (size_t i = 0; i < ELEMENTSOF(table); i++) {
                const struct valid *v = &table[i];
                _cleanup_reference_ struct reference r = { 0 };

                parse_ok(v->text, &r);
                assert_int_equal(r.transport, TRANSPORT_REGISTRY);
                assert_text(r.host, v->host);
                assert_text(r.repository, v->repository);
                assert_text(r.tag, v->tag);
                assert_null(r.path);
                assert_digest(&r, v->digest);
                assert_format(&r, v->canonical);
        }
}

static void docker_hub_has_one_spelling(void **state _unused_)
{
        static const char *const table[][2] = {
                { "docker.io/alpine", "docker.io/library/alpine:latest" },
                { "docker.io/library/alpine:edge", "docker.io/library/alpine:edge" },
                { "docker.io/user/app", "docker.io/user/app:latest" },
                { "index.docker.io/alpine", "docker.io/library/alpine:latest" },
                { "index.docker.io/user/app:1", "docker.io/user/app:1" },
                { "Docker.IO/alpine", "docker.io/library/alpine:latest" },
                { "docker.io/" HEX, "docker.io/library/" HEX ":latest" },
                { "registry-1.docker.io/alpine", "registry-1.docker.io/alpine:latest" },
                { "docker.io:443/alpine", "docker.io:443/alpine:latest" },
        };

        for (size_t i = 0; i < ELEMENTSOF(table); i++) {
                _cleanup_reference_ struct reference r = { 0 };

                parse_ok(table[i][0], &r);
                assert_format(&r, table[i][1]);
        }
}

static void malformed_names_are_refused_with_their_fault(void **state _unused_)
{
        static const char *const table[][2] = {
                { "", "empty" },
                { "docker://", "missing" },
                { ":justtag", "missing" },
                { "@" SHA256, "missing" },
                { HEX, "image ID" },
                { "Alpine", "lower case" },
                { "Uppercase:tag", "lower case" },
                { "docker/Docker", "lower case" },
                { "example.com/a/B", "lower case" },
                { "test:5000/Uppercase/lowercase:tag", "lower case" },
                { "docker/", "lower-case letters" },
                { "example.com/", "missing" },
                { "docker///docker", "lower-case letters" },
                { "/docker", "lower-case letters" },
                { "-docker", "lower-case letters" },
                { "docker-/docker", "lower-case letters" },
                { "_docker/_docker", "lower-case letters" },
                { "dock..er/docker", "domain name" },
                { "dock..er/docker", "domain name" },
                { "dock-.er/docker", "domain name" },
                { "dock___er", "lower-case letters" },
                { "aa/asdf$$^/aa", "lower-case letters" },
                { "a b", "lower-case letters" },
                { " alpine", "lower-case letters" },
                { "alpine ", "lower-case letters" },
                { "caf\xc3\xa9", "lower-case letters" },
                { "example.com/../../etc/passwd", "lower-case letters" },
                /* hosts */
                { "-docker.io/docker/docker", "domain name" },
                { "example..com/a", "domain name" },
                { "example.com./a", "domain name" },
                { "foo_bar.com/a", "character" },
                { "example.com:/a", "port" },
                { "example.com:http/a", "port" },
                { "example.com:80x/a", "port" },
                { "example.com:0/a", "port" },
                { "example.com:65536/a", "port" },
                { "example.com:99999999999999999999999999/a", "port" },
                { "user@example.com/a", "digest" },
                { "fc00::1:5000/debian", "port" },
                { "[2001:db8::1]", "missing after the address" },
                { "[2001:db8::1]:5000", "missing after the address" },
                { "[fe80::1%eth0]:5000/repo", "zone" },
                { "[2001:db8:3:4::192.0.2.33]:5000/debian", "IPv6" },
                { "[]/a", "lower-case letters" },
                { "[]:80/a", "IPv6" },
                { "[::1/a", "IPv6" },
                { "[::1]x/a", "character" },
                { "[1::2::3]/a", "IPv6" },
                { "[1:2:3:4:5:6:7:8:9]/a", "IPv6" },
                /* schemes and other transports */
                { "https://github.com/docker/docker", "docker://" },
                { "docker://https://x/y", "docker://" },
                { "dir:/tmp/x", "transport dir:" },
                { "oci-archive:x.tar", "transport oci-archive:" },
                { "docker-daemon:alpine:latest", "transport docker-daemon:" },
                { "containers-storage:alpine", "transport containers-storage:" },
                /* tags */
                { "alpine:", "tag is empty" },
                { "alpine:.x", "tag" },
                { "alpine:-x", "tag" },
                { "alpine:a:b", "tag" },
                { "alpine:a b", "tag" },
                { "alpine:a/b", "port" },
                { "example.com/alpine:caf\xc3\xa9", "tag" },
                /* digests */
                { "alpine@", "digest" },
                { "alpine@latest", "digest" },
                { "alpine@sha256:abc", "digest" },
                { "alpine@sha256:" HEX "0", "digest" },
                { "alpine@md5:" HEX, "digest" },
                { "alpine@sha256:7CC4B5AEFD1D0CADF8D97D4350462BA51C694EBCA145B08D7D41B41ACC8DB5AA", "digest" },
                { "alpine@" SHA256 "@" SHA256, "digest" },
                { "alpine@" SHA256 ":tag", "digest" },
        };

        for (size_t i = 0; i < ELEMENTSOF(table); i++) {
                struct error e = ERROR_INIT;

                parse_fails(table[i][0], &e);
                if (!strstr(e.message, table[i][1]))
                        fail_msg("no \"%s\" in: %s", table[i][1], e.message);
        }
}

static char *repeat(const char *before, size_t n, const char *after)
{
        char *s = malloc(strlen(before) + n + strlen(after) + 1);

        assert_non_null(s);
        strcpy(s, before);
        memset(s + strlen(before), 'a', n);
        strcpy(s + strlen(before) + n, after);
        return s;
}

static void lengths_are_limited(void **state _unused_)
{
        static const struct {
                const char *before, *after;
                size_t n;
                bool valid;
        } table[] = {
                { "", "", 255, true },
                { "", "", 256, false },
                { "example.com/", ":tag", 255, true },
                { "example.com/", ":tag", 256, false },
                { "docker.io/", ":tag", 255 - 8, true }, /* "library/" counts */
                { "docker.io/", ":tag", 255 - 7, false },
                { "docker.io/x/", ":tag", 253, true },
                { "docker.io/x/", ":tag", 254, false },
                { "alpine:", "", 128, true },
                { "alpine:", "", 129, false },
                { "", ".x/repo", 253, true },
                { "", ".x/repo", 254, false },
                { "", "", 100000, false },
                { "oci:", "", 4000, true },
                { "oci:", "", 5000, false },
        };

        for (size_t i = 0; i < ELEMENTSOF(table); i++) {
                _cleanup_free_ char *s = repeat(table[i].before, table[i].n, table[i].after);
                _cleanup_reference_ struct reference r = { 0 };
                struct error e = ERROR_INIT;

                if (table[i].valid)
                        parse_ok(s, &r);
                else
                        parse_fails(s, &e);
        }
}

static void error_quotes_the_reference_without_its_control_characters(void **state _unused_)
{
        struct error e = ERROR_INIT;

        parse_fails("al\x1b[31mpine\n", &e);
        assert_non_null(strstr(e.message, "\"al?[31mpine?\""));
        assert_null(strchr(e.message, '\x1b'));
        assert_null(strchr(e.message, '\n'));
}

static void error_may_be_left_out(void **state _unused_)
{
        struct reference r = { 0 };

        assert_int_equal(reference_parse("Alpine", &r, NULL), -EINVAL);
}

static void layout_tag_follows_the_last_colon_without_a_slash_behind(void **state _unused_)
{
        static const struct {
                const char *text, *path, *tag, *canonical;
        } table[] = {
                { "oci:dir", "dir", NULL, "oci:dir" },
                { "oci:/a/b:tag", "/a/b", "tag", "oci:/a/b:tag" },
                { "oci:dir:", "dir", NULL, "oci:dir" },
                { "oci:a:b:c", "a:b", "c", "oci:a:b:c" },
                { "oci:/a:b/c", "/a:b/c", NULL, "oci:/a:b/c" },
                { "oci:/a:b/c:d", "/a:b/c", "d", "oci:/a:b/c:d" },
                { "oci:a:b:", "a:b", NULL, "oci:a:b:" },
                { "oci:.:v1__x-", ".", "v1__x-", "oci:.:v1__x-" },
                { "oci:Dir With Space:t", "Dir With Space", "t", "oci:Dir With Space:t" },
                { "oci:x:caf\xc3\xa9", "x", "caf\xc3\xa9", "oci:x:caf\xc3\xa9" },
        };

        for (size_t i = 0; i < ELEMENTSOF(table); i++) {
                _cleanup_reference_ struct reference r = { 0 }, again = { 0 };

                parse_ok(table[i].text, &r);
                assert_int_equal(r.transport, TRANSPORT_OCI_LAYOUT);
                assert_text(r.path, table[i].path);
                assert_text(r.tag, table[i].tag);
                assert_null(r.host);
                assert_null(r.repository);
                assert_false(r.has_digest);
                assert_format(&r, table[i].canonical);

                parse_ok(table[i].canonical, &again);
                assert_text(again.path, table[i].path);
                assert_text(again.tag, table[i].tag);
        }
}

static void archive_ends_at_the_first_colon(void **state _unused_)
{
        static const struct {
                const char *text, *path, *tag, *canonical;
        } table[] = {
                { "docker-archive:x.tar", "x.tar", NULL, "docker-archive:x.tar" },
                { "docker-archive:/a/x.tar:alpine:edge", "/a/x.tar", "alpine:edge",
                  "docker-archive:/a/x.tar:alpine:edge" },
                { "docker-archive:x:alpine", "x", "alpine:latest", "docker-archive:x:alpine:latest" },
                { "docker-archive:x:localhost:5000/a/b", "x", "localhost:5000/a/b:latest",
                  "docker-archive:x:localhost:5000/a/b:latest" },
                { "docker-archive:x:docker.io/library/alpine:1", "x", "docker.io/library/alpine:1",
                  "docker-archive:x:docker.io/library/alpine:1" },
        };

        for (size_t i = 0; i < ELEMENTSOF(table); i++) {
                _cleanup_reference_ struct reference r = { 0 };

                parse_ok(table[i].text, &r);
                assert_int_equal(r.transport, TRANSPORT_DOCKER_ARCHIVE);
                assert_text(r.path, table[i].path);
                assert_text(r.tag, table[i].tag);
                assert_null(r.host);
                assert_null(r.repository);
                assert_format(&r, table[i].canonical);
        }
}

static void malformed_local_references_are_refused(void **state _unused_)
{
        static const char *const table[][2] = {
                { "oci:", "directory" },
                { "oci::tag", "directory" },
                { "oci:dir:@0", "position" },
                { "oci:dir@" SHA256, "digest" },
                { "oci:dir@" SHA512, "digest" },
                { "oci:dir:a b", "space" },
                { "oci:dir:a\x01", "control" },
                { "docker-archive:", "file" },
                { "docker-archive::alpine", "file" },
                { "docker-archive:x:", "missing" },
                { "docker-archive:x:@0", "position" },
                { "docker-archive:x:Alpine", "lower case" },
                { "docker-archive:x:alpine@" SHA256, "digest" },
                { "docker-archive:x:alpine:1@" SHA256, "digest" },
                { "docker-archive:x:a:b:c", "tag" },
        };

        for (size_t i = 0; i < ELEMENTSOF(table); i++) {
                struct error e = ERROR_INIT;

                parse_fails(table[i][0], &e);
                if (!strstr(e.message, table[i][1]))
                        fail_msg("no \"%s\" in: %s", table[i][1], e.message);
        }
}

static void canonical_text_parses_to_itself(void **state _unused_)
{
        static const char *const table[] = {
                "docker.io/library/alpine:edge",
                "localhost:5000/a@" SHA256,
                "[::1]:5000/a/b:t@" SHA512,
                "HOST/a:1",
                "docker-archive:x:alpine:1",
                "oci:a:b:",
                "oci:/x/y:z",
                "docker://oci:1",
                "docker://dir:80/x:1",
        };

        for (size_t i = 0; i < ELEMENTSOF(table); i++) {
                _cleanup_reference_ struct reference r = { 0 };

                parse_ok(table[i], &r);
                assert_format(&r, table[i]);
        }
}

static void copy_is_independent_of_its_origin(void **state _unused_)
{
        static const char *const table[] = {
                "example.com/a:t@" SHA256,
                "alpine",
                "oci:dir:tag",
                "docker-archive:x:alpine:1",
        };

        for (size_t i = 0; i < ELEMENTSOF(table); i++) {
                _cleanup_reference_ struct reference r = { 0 }, copy = { 0 };
                _cleanup_free_ char *before = NULL;

                parse_ok(table[i], &r);
                before = reference_format(&r);
                assert_int_equal(reference_copy(&r, &copy), 0);
                reference_clear(&r);
                assert_format(&copy, before);
        }
}

static void clear_leaves_an_empty_reference(void **state _unused_)
{
        struct reference r = { 0 };

        reference_clear(&r);
        parse_ok("example.com/a:t@" SHA256, &r);
        reference_clear(&r);
        assert_null(r.host);
        assert_null(r.repository);
        assert_null(r.tag);
        assert_false(r.has_digest);
        reference_clear(&r);
}

static void set_host_completes_a_short_name(void **state _unused_)
{
        static const char *const table[][3] = {
                { "alpine:1", "docker.io", "docker.io/library/alpine:1" },
                { "alpine:1", "index.docker.io", "docker.io/library/alpine:1" },
                { "user/app", "docker.io", "docker.io/user/app:latest" },
                { "alpine", "quay.io", "quay.io/alpine:latest" },
                { "alpine@" SHA256, "[::1]:5000", "[::1]:5000/alpine@" SHA256 },
        };

        for (size_t i = 0; i < ELEMENTSOF(table); i++) {
                _cleanup_reference_ struct reference r = { 0 };

                parse_ok(table[i][0], &r);
                assert_int_equal(reference_set_host(&r, table[i][1]), 0);
                assert_format(&r, table[i][2]);
        }
}

static void set_host_leaves_the_reference_alone_when_it_refuses(void **state _unused_)
{
        _cleanup_free_ char *name = repeat("", 250, "");
        _cleanup_free_ char *canonical = repeat("", 250, ":latest");
        _cleanup_reference_ struct reference long_name = { 0 }, short_name = { 0 }, full = { 0 }, layout = { 0 };

        parse_ok(name, &long_name);
        assert_int_equal(reference_set_host(&long_name, "docker.io"), -ENAMETOOLONG);
        assert_format(&long_name, canonical);
        assert_int_equal(reference_set_host(&long_name, "quay.io"), 0);

        parse_ok("alpine", &short_name);
        assert_int_equal(reference_set_host(&short_name, "no/host"), -EINVAL);
        assert_int_equal(reference_set_host(&short_name, ""), -EINVAL);
        assert_format(&short_name, "alpine:latest");

        parse_ok("quay.io/a", &full);
        assert_int_equal(reference_set_host(&full, "docker.io"), -EINVAL);
        assert_format(&full, "quay.io/a:latest");

        parse_ok("oci:dir", &layout);
        assert_int_equal(reference_set_host(&layout, "docker.io"), -EINVAL);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(names_are_split_as_distribution_does),
                cmocka_unit_test(docker_hub_has_one_spelling),
                cmocka_unit_test(malformed_names_are_refused_with_their_fault),
                cmocka_unit_test(lengths_are_limited),
                cmocka_unit_test(error_quotes_the_reference_without_its_control_characters),
                cmocka_unit_test(error_may_be_left_out),
                cmocka_unit_test(layout_tag_follows_the_last_colon_without_a_slash_behind),
                cmocka_unit_test(archive_ends_at_the_first_colon),
                cmocka_unit_test(malformed_local_references_are_refused),
                cmocka_unit_test(canonical_text_parses_to_itself),
                cmocka_unit_test(copy_is_independent_of_its_origin),
                cmocka_unit_test(clear_leaves_an_empty_reference),
                cmocka_unit_test(set_host_completes_a_short_name),
                cmocka_unit_test(set_host_leaves_the_reference_alone_when_it_refuses),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
