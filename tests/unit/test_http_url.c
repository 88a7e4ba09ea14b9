/* SPDX-License-Identifier: Apache-2.0 */

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "regfs/http.h"

static void url_mask_hides_users_and_queries(void **state _unused_)
{
        static const char *const cases[][2] = {
                { "https://host/v2/", "https://host/v2/" },
                { "https://user:secret@host:5000/v2/", "https://host:5000/v2/" },
                { "https://a@b:secret@host/", "https://host/" },
                { "https://host/p?token=secret", "https://host/p?token=…" },
                { "https://host/p?a=secret&b=secret&c=", "https://host/p?a=…&b=…&c=…" },
                { "https://host/p?secret", "https://host/p?…" },
                { "https://host/p?a=b=secret&&x", "https://host/p?a=…&&…" },
                { "https://host?a=secret#secret", "https://host?a=…" },
                { "https://host/p@q?", "https://host/p@q?" },
                { "https://host/p#secret", "https://host/p" },
                { "https://host/p?u=https://user:secret@x/", "https://host/p?u=…" },
                { "//user:secret@host/p", "//host/p" },
                { "/p?a=secret", "/p?a=…" },
                { "user:secret@host", "host" },
                { "https://user:secret@[::1]:80/", "https://[::1]:80/" },
                { "", "" },
        };
        char out[200];

        for (size_t i = 0; i < ELEMENTSOF(cases); i++)
                assert_string_equal(http_mask_url(cases[i][0], out, sizeof(out)), cases[i][1]);
}

static void url_mask_is_cut_at_its_size(void **state _unused_)
{
        static const char url[] = "https://user:secret@host/path?first=secret&second=secret";
        static const char whole[] = "https://host/path?first=…&second=…";
        char out[sizeof(whole) + 1];

        for (size_t size = 1; size <= sizeof(out); size++) {
                memset(out, 'x', sizeof(out));
                assert_ptr_equal(http_mask_url(url, out, size), out);
                assert_true(strlen(out) < size);
                if (size < sizeof(out))
                        assert_int_equal(out[size], 'x');
                assert_null(strstr(out, "secr"));
                /* No ellipsis is torn: behind its first byte come the others. */
                for (char *p = out; (p = strchr(p, '\xe2')); p++)
                        assert_memory_equal(p, "…", 3);
        }
        assert_string_equal(out, whole);
        out[0] = 'x';
        http_mask_url(url, out, 0);
        assert_int_equal(out[0], 'x');
}

static void url_join_resolves_like_a_browser(void **state _unused_)
{
        static const char *const cases[][3] = {
                { "https://host/v2/a/blobs/x", "https://cdn/y?Signature=a%2Fb%3D&z=1",
                  "https://cdn/y?Signature=a%2Fb%3D&z=1" },
                { "https://host/v2/a/blobs/x", "/y?z", "https://host/y?z" },
                { "https://host:5000/v2/a?q=1", "b", "https://host:5000/v2/b" },
                { "https://host/v2/a/", "../b", "https://host/v2/b" },
                { "https://host/v2/a?x=1", "?y=2", "https://host/v2/a?y=2" },
                { "https://host/v2/", "//other/y", "https://other/y" },
                { "https://host/", "http://other/", "http://other/" },
                { "https://host/", "/a b", "https://host/a%20b" },
                { "https://host/", "/a#secret", "https://host/a" },
                { "https://host/", "HTTPS://other/y", "https://other/y" },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                struct error e = ERROR_INIT;
                char *joined = NULL;

                if (http_join_url(cases[i][0], cases[i][1], &joined, &e) < 0)
                        fail_msg("%s", e.message);
                assert_string_equal(joined, cases[i][2]);
                free(joined);
        }
}

static void url_join_refuses_other_schemes_and_users(void **state _unused_)
{
        static const char *const locations[] = { "ftp://host/",       "file:///etc/passwd",        "gopher://host/",
                                                 "javascript:x",      "https://user:secret@host/", "https://",
                                                 "http://host:99999/" };

        for (size_t i = 0; i < ELEMENTSOF(locations); i++) {
                struct error e = ERROR_INIT;
                char *joined = NULL;

                if (http_join_url("https://host/v2/", locations[i], &joined, &e) != -EINVAL)
                        fail_msg("'%s' gave '%s'", locations[i], joined);
                assert_null(joined);
                assert_int_equal(e.code, EINVAL);
                assert_null(strstr(e.message, "secret"));
        }
        assert_int_equal(http_join_url("no base", "/x", &(char *) { NULL }, NULL), -EINVAL);
}

static void url_same_origin_compares_scheme_host_and_port(void **state _unused_)
{
        assert_true(http_same_origin("https://host/a", "https://host/b?c"));
        assert_true(http_same_origin("https://host/", "https://HOST:443/"));
        assert_true(http_same_origin("http://host:80/", "http://host/"));
        assert_true(http_same_origin("https://[::1]:5000/", "https://[::1]:5000/x"));
        assert_false(http_same_origin("https://host/", "http://host/"));
        assert_false(http_same_origin("https://host/", "https://host:444/"));
        assert_false(http_same_origin("https://host/", "https://host.example/"));
        assert_false(http_same_origin("https://host/", "no url"));
        assert_false(http_same_origin("no url", "no url"));
}

static void http_transient_failures_are_those_of_the_network(void **state _unused_)
{
        static const int transient[] = { ECONNREFUSED, ECONNRESET, EHOSTUNREACH, ENETUNREACH, ETIMEDOUT };
        static const int lasting[] = { 0, EPROTO, ENXIO, EBADMSG, EFBIG, ENOMEM, ESHUTDOWN, ECANCELED, EINVAL, EPERM };

        for (size_t i = 0; i < ELEMENTSOF(transient); i++)
                assert_true(http_error_is_transient(&(struct error) { .code = transient[i] }));
        for (size_t i = 0; i < ELEMENTSOF(lasting); i++)
                assert_false(http_error_is_transient(&(struct error) { .code = lasting[i] }));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(url_mask_hides_users_and_queries),
                cmocka_unit_test(url_mask_is_cut_at_its_size),
                cmocka_unit_test(url_join_resolves_like_a_browser),
                cmocka_unit_test(url_join_refuses_other_schemes_and_users),
                cmocka_unit_test(url_same_origin_compares_scheme_host_and_port),
                cmocka_unit_test(http_transient_failures_are_those_of_the_network),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
