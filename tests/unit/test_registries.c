/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "registries_fixture.h"

#define HEX "7cc4b5aefd1d0cadf8d97d4350462ba51c694ebca145b08d7d41b41acc8db5aa"
#define DIGEST "@sha256:" HEX

static void without_a_file_names_go_to_docker_hub(void **state)
{
        _cleanup_(registries_free_ptr) struct registries *r = load(*state);

        assert_resolves(r, "alpine", "docker.io/library/alpine:latest");
        assert_resolves(r, "user/app:1", "docker.io/user/app:1");
        assert_resolves(r, "alpine" DIGEST, "docker.io/library/alpine" DIGEST);
        assert_endpoints(r, "docker.io/alpine", "registry-1.docker.io/library/alpine");
        assert_endpoints(r, "quay.io/a/b", "quay.io/a/b");
}

static void docker_hub_keeps_its_credentials_under_docker_io(void **state)
{
        _cleanup_(registries_free_ptr) struct registries *r = load(*state);
        _cleanup_endpoints_ struct endpoints list = { 0 };

        get_endpoints(r, "index.docker.io/alpine", &list);
        assert_int_equal(list.count, 1);
        assert_string_equal(list.items[0].host, "registry-1.docker.io");
        assert_string_equal(list.items[0].repository, "library/alpine");
        assert_string_equal(list.items[0].credential_host, "docker.io");
        assert_string_equal(list.items[0].credential_repository, "library/alpine");
}

static void other_endpoints_keep_theirs_under_their_own_name(void **state)
{
        _cleanup_(registries_free_ptr) struct registries *r = NULL;
        _cleanup_endpoints_ struct endpoints list = { 0 };

        config_tree_write(*state, USER_FILE, "[[registry]]\nprefix='a.io'\nlocation='b.io:5000/ns'\n");
        r = load(*state);
        get_endpoints(r, "a.io/x", &list);
        assert_int_equal(list.count, 1);
        assert_string_equal(list.items[0].credential_host, "b.io:5000");
        assert_string_equal(list.items[0].credential_repository, "ns/x");
}

static void full_names_and_other_transports_resolve_to_themselves(void **state)
{
        _cleanup_(registries_free_ptr) struct registries *r = NULL;

        config_tree_write(*state, USER_FILE, "unqualified-search-registries = ['quay.io', 'ghcr.io']\n");
        r = load(*state);
        assert_resolves(r, "example.com/a:1", "example.com/a:1");
        assert_resolves(r, "oci:dir:tag", "oci:dir:tag");
        assert_resolves(r, "docker-archive:x:alpine:1", "docker-archive:x:alpine:1");
}

static void search_registries_are_candidates_in_their_order(void **state)
{
        _cleanup_(registries_free_ptr) struct registries *r = NULL;

        config_tree_write(*state, USER_FILE,
                          "unqualified-search-registries = ['localhost:5000', 'docker.io/', '[::1]:80']\n");
        r = load(*state);
        assert_resolves(r, "alpine:1", "localhost:5000/alpine:1 docker.io/library/alpine:1 [::1]:80/alpine:1");
        assert_resolves(r, "x/y" DIGEST, "localhost:5000/x/y" DIGEST " docker.io/x/y" DIGEST " [::1]:80/x/y" DIGEST);
}

static void empty_search_list_is_said_to_be_empty(void **state)
{
        _cleanup_(registries_free_ptr) struct registries *r = NULL;

        config_tree_write(*state, SYSTEM_FILE, "unqualified-search-registries = ['quay.io']\n");
        config_tree_write(*state, SYSTEM_DROP_IN "a.conf", "unqualified-search-registries = []\n");
        r = load(*state);
        assert_unresolved(r, "alpine", "is empty", "/" SYSTEM_DROP_IN "a.conf");
        assert_resolves(r, "quay.io/alpine", "quay.io/alpine:latest");
}

static void enforcing_mode_refuses_to_choose(void **state)
{
        _cleanup_(registries_free_ptr) struct registries *two = NULL, *one = NULL, *permissive = NULL;

        config_tree_write(*state, USER_FILE,
                          "unqualified-search-registries = ['a.io', 'b.io']\nshort-name-mode = 'enforcing'\n"
                          "[aliases]\n'known' = 'c.io/known'\n");
        two = load(*state);
        assert_unresolved(two, "alpine", "enforcing", "/" USER_FILE);
        assert_resolves(two, "known", "c.io/known:latest");

        config_tree_write(*state, USER_DROP_IN "1.conf", "unqualified-search-registries = ['a.io']\n");
        one = load(*state);
        assert_resolves(one, "alpine", "a.io/alpine:latest");

        config_tree_write(*state, USER_DROP_IN "1.conf", "short-name-mode = 'permissive'\n");
        permissive = load(*state);
        assert_resolves(permissive, "alpine", "a.io/alpine:latest b.io/alpine:latest");
}

static void alias_wins_over_the_search_list(void **state)
{
        _cleanup_(registries_free_ptr) struct registries *r = NULL;

        config_tree_write(*state, USER_FILE,
                          "unqualified-search-registries = ['quay.io']\n"
                          "[aliases]\n"
                          "fedora = 'registry.fedoraproject.org/fedora'\n"
                          "'open/leap' = 'registry.opensuse.org/open/leap'\n"
                          "hub = 'docker.io/hub'\n");
        r = load(*state);
        assert_resolves(r, "fedora", "registry.fedoraproject.org/fedora:latest");
        assert_resolves(r, "fedora:39" DIGEST, "registry.fedoraproject.org/fedora:39" DIGEST);
        assert_resolves(r, "fedora" DIGEST, "registry.fedoraproject.org/fedora" DIGEST);
        assert_resolves(r, "open/leap:15", "registry.opensuse.org/open/leap:15");
        assert_resolves(r, "hub", "docker.io/library/hub:latest");
        assert_resolves(r, "leap", "quay.io/leap:latest");
        assert_resolves(r, "example.com/fedora", "example.com/fedora:latest");
}

static void name_too_long_for_docker_hub_is_an_error(void **state)
{
        _cleanup_(registries_free_ptr) struct registries *r = load(*state);
        struct reference *items = NULL;
        struct error e;
        size_t count = 0;
        char name[251];

        memset(name, 'a', sizeof(name) - 1);
        name[sizeof(name) - 1] = '\0';
        assert_int_equal(resolve(r, name, &items, &count, &e), -EINVAL);
        assert_contains(e.message, "too long");
}

static void longest_prefix_counts(void **state)
{
        static const char *const table[][2] = {
                { "example.com/x", "one.io/x" },
                { "example.com/ns/x", "two.io/x" },
                { "example.com/ns/sub/x", "two.io/sub/x" },
                { "example.com/nsx/y", "one.io/nsx/y" },
                { "example.com/ns/repo:1", "three.io/r" },
                { "example.com/ns/repo:2", "four.io/r" },
                { "example.com/ns/repo" DIGEST, "five.io/r" },
                { "example.com/ns/repo:2" DIGEST, "five.io/r" },
                { "example.com/ns/repo/deeper:2", "three.io/r/deeper" },
                { "example.com/ns/repository", "two.io/repository" },
                { "EXAMPLE.com/x", "one.io/x" },
                { "example.com:5000/x", "example.com:5000/x" },
                { "example.community/x", "example.community/x" },
                { "an.example.com/x", "an.example.com/x" },
                { "host:5000/x", "six.io/x" },
                { "host:50000/x", "host:50000/x" },
        };
        _cleanup_(registries_free_ptr) struct registries *r = NULL;

        config_tree_write(*state, USER_FILE,
                          "[[registry]]\nprefix='example.com/'\nlocation='one.io/'\n"
                          "[[registry]]\nprefix='example.com/ns'\nlocation='two.io'\n"
                          "[[registry]]\nprefix='example.com/ns/repo'\nlocation='three.io/r'\n"
                          "[[registry]]\nprefix='example.com/ns/repo:2'\nlocation='four.io/r'\n"
                          "[[registry]]\nprefix='example.com/ns/repo" DIGEST "'\nlocation='five.io/r" DIGEST "'\n"
                          "[[registry]]\nprefix='host:5000'\nlocation='six.io'\n");
        r = load(*state);
        for (size_t i = 0; i < ELEMENTSOF(table); i++)
                assert_endpoints(r, table[i][0], table[i][1]);
}

static void wildcard_stands_for_subdomains(void **state)
{
        static const char *const table[][2] = {
                { "a.example.com/x", "a.example.com/x,i" },
                { "a.b.example.com/x", "a.b.example.com/x,i" },
                { "A.Example.COM:5000/x", "A.Example.COM:5000/x,i" },
                { "example.com/x", "example.com/x" },
                { "badexample.com/x", "badexample.com/x" },
                { "a.example.com.evil.io/x", "a.example.com.evil.io/x" },
                { "a.example.com.b.example.com/x", "a.example.com.b.example.com/x,i" },
                { "evil.io/a.example.com/x", "evil.io/a.example.com/x" },
                { "x.sub.example.com/r", "moved.io/m/r" },
                { "x.sub.example.com:81/r", "moved.io/m/r" },
                { "b.example.com/x", "b.example.com/x" },
        };
        _cleanup_(registries_free_ptr) struct registries *r = NULL;

        config_tree_write(*state, USER_FILE,
                          "[[registry]]\nprefix='*.example.com'\ninsecure=true\n"
                          "[[registry]]\nprefix='*.sub.example.com'\nlocation='moved.io/m'\n"
                          "[[registry]]\nprefix='b.example.com'\nlocation='b.example.com'\n");
        r = load(*state);
        for (size_t i = 0; i < ELEMENTSOF(table); i++)
                assert_endpoints(r, table[i][0], table[i][1]);
}

static void prefix_without_a_location_changes_settings_only(void **state)
{
        _cleanup_(registries_free_ptr) struct registries *r = NULL;

        config_tree_write(*state, USER_FILE,
                          "[[registry]]\nprefix='docker.io/library'\n[[registry.mirror]]\nlocation='m.io/hub'\n");
        r = load(*state);
        assert_endpoints(r, "docker.io/alpine", "m.io/hub/alpine,m registry-1.docker.io/library/alpine");
        assert_endpoints(r, "docker.io/user/app", "registry-1.docker.io/user/app");
}

static void mirrors_come_before_the_primary(void **state)
{
        _cleanup_(registries_free_ptr) struct registries *r = NULL;

        config_tree_write(*state, USER_FILE,
                          "[[registry]]\n"
                          "prefix = 'example.com/foo'\n"
                          "location = 'internal.example.com/bar'\n"
                          "[[registry.mirror]]\n"
                          "location = 'mirror-0.local/for-foo'\n"
                          "[[registry.mirror]]\n"
                          "location = 'mirror-1.local:5000/'\n"
                          "insecure = true\n"
                          "[[registry]]\n"
                          "location = 'docker.io'\n"
                          "insecure = true\n"
                          "[[registry.mirror]]\n"
                          "location = 'hub.local'\n"
                          "[[registry.mirror]]\n"
                          "location = 'hub.local/cache'\n");
        r = load(*state);
        assert_endpoints(r, "example.com/foo/image:1",
                         "mirror-0.local/for-foo/image,m mirror-1.local:5000/image,mi internal.example.com/bar/image");
        assert_endpoints(r, "example.com/other", "example.com/other");
        assert_endpoints(r, "docker.io/alpine",
                         "hub.local/library/alpine,m hub.local/cache/library/alpine,m "
                         "registry-1.docker.io/library/alpine,i");
}

static void docker_hub_as_a_location_gets_its_namespace(void **state)
{
        _cleanup_(registries_free_ptr) struct registries *r = NULL;

        config_tree_write(*state, USER_FILE, "[[registry]]\nprefix='a.io'\nlocation='index.docker.io'\n");
        r = load(*state);
        assert_endpoints(r, "a.io/alpine", "registry-1.docker.io/library/alpine");
        assert_endpoints(r, "a.io/user/app", "registry-1.docker.io/user/app");
}

static void location_may_be_a_host_without_a_dot(void **state)
{
        _cleanup_(registries_free_ptr) struct registries *r = NULL;

        config_tree_write(*state, USER_FILE, "[[registry]]\nprefix='a.io/x'\nlocation='registry/y'\n");
        r = load(*state);
        assert_endpoints(r, "a.io/x/z", "registry/y/z");
        assert_endpoints(r, "a.io/x", "registry/y");
}

static void mirrors_say_what_they_may_be_asked_for(void **state)
{
        _cleanup_(registries_free_ptr) struct registries *r = NULL;

        config_tree_write(*state, USER_FILE,
                          "[[registry]]\nlocation='a.io'\n"
                          "mirror = [{location='all.io', pull-from-mirror='all'},"
                          " {location='none.io', pull-from-mirror=''},"
                          " {location='digest.io', pull-from-mirror='digest-only'},"
                          " {location='tag.io', pull-from-mirror='tag-only'}]\n"
                          "[[registry]]\nlocation='b.io'\nmirror-by-digest-only=true\n"
                          "[[registry.mirror]]\nlocation='m.io'\n");
        r = load(*state);
        assert_endpoints(r, "a.io/x", "all.io/x,m none.io/x,m digest.io/x,mt tag.io/x,md a.io/x");
        assert_endpoints(r, "b.io/x", "m.io/x,mt b.io/x");
}

static void blocked_registry_is_denied(void **state)
{
        _cleanup_(registries_free_ptr) struct registries *r = NULL;
        struct endpoints list = { 0 };
        struct error e;

        config_tree_write(*state, USER_FILE,
                          "[[registry]]\nlocation='a.io/bad'\nblocked=true\n"
                          "[[registry]]\nprefix='*.evil.io'\nblocked=true\n"
                          "[[registry]]\nlocation='docker.io/library/alpine'\nblocked=true\n");
        r = load(*state);
        assert_endpoints(r, "a.io/good", "a.io/good");
        assert_int_equal(find_endpoints(r, "a.io/bad/x:1", &list, &e), -EACCES);
        assert_int_equal(e.kind, ERROR_DENIED);
        assert_contains(e.message, "a.io/bad/x:1");
        assert_contains(e.message, "\"a.io/bad\" is blocked");
        assert_contains(e.message, "/" USER_FILE);
        assert_int_equal(find_endpoints(r, "A.io/bad", &list, &e), -EACCES);
        assert_int_equal(find_endpoints(r, "x.evil.io:5000/a", &list, &e), -EACCES);
        assert_int_equal(find_endpoints(r, "index.docker.io/alpine", &list, &e), -EACCES);
        assert_null(list.items);
}

static void options_apply_to_the_primary_and_to_the_named_host(void **state)
{
        static const struct {
                struct registries_options options;
                const char *expected;
        } table[] = {
                { { .tls_verify = -1 }, "m.io/x,mi a.io/mirror/x,m b.io/x,i" },
                { { .tls_verify = 0 }, "m.io/x,mi a.io/mirror/x,mi b.io/x,i" },
                { { .tls_verify = 1 }, "m.io/x,mi a.io/mirror/x,m b.io/x" },
                { { .tls_verify = -1, .plain_http = true }, "m.io/x,mi a.io/mirror/x,mh b.io/x,ih" },
        };

        config_tree_write(*state, USER_FILE,
                          "[[registry]]\nprefix='a.io'\nlocation='b.io'\ninsecure=true\n"
                          "[[registry.mirror]]\nlocation='m.io'\ninsecure=true\n"
                          "[[registry.mirror]]\nlocation='a.io/mirror'\n");
        for (size_t i = 0; i < ELEMENTSOF(table); i++) {
                _cleanup_(registries_free_ptr) struct registries *r = load_with(*state, &table[i].options);

                assert_endpoints(r, "a.io/x", table[i].expected);
        }
}

static void location_that_makes_no_name_is_an_error(void **state)
{
        static const char *const table[][2] = {
                { "a.io/x", "missing" },    /* rest of the name is empty */
                { "b.io/x", "lower case" }, /* upper case in the location */
                { "c.io/x", "domain name" },
                { "d.io/x:1", "another tag" },
        };
        _cleanup_(registries_free_ptr) struct registries *r = NULL;

        config_tree_write(*state, USER_FILE,
                          "[[registry]]\nprefix='a.io/x'\nlocation='z.io'\n"
                          "[[registry]]\nprefix='b.io'\nlocation='z.io/Foo'\n"
                          "[[registry]]\nprefix='c.io'\nlocation='-z.io'\n"
                          "[[registry]]\nprefix='d.io/x:1'\nlocation='z.io/y:2'\n");
        r = load(*state);
        for (size_t i = 0; i < ELEMENTSOF(table); i++) {
                struct endpoints list = { 0 };
                struct error e;

                assert_int_equal(find_endpoints(r, table[i][0], &list, &e), -EBADMSG);
                assert_contains(e.message, table[i][1]);
                assert_contains(e.message, "/" USER_FILE);
                assert_null(list.items);
        }
        assert_endpoints(r, "a.io/x/y", "z.io/y");
}

static void short_name_has_no_endpoints(void **state)
{
        _cleanup_(registries_free_ptr) struct registries *r = load(*state);
        struct endpoints list = { 0 };
        struct error e;

        assert_int_equal(find_endpoints(r, "alpine", &list, &e), -EINVAL);
        assert_int_equal(find_endpoints(r, "oci:dir", &list, &e), -EINVAL);
}

static void free_accepts_nothing(void **state _unused_)
{
        struct endpoints list = { 0 };

        assert_null(registries_free(NULL));
        endpoints_clear(&list);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TREE_TEST(without_a_file_names_go_to_docker_hub),
                TREE_TEST(docker_hub_keeps_its_credentials_under_docker_io),
                TREE_TEST(other_endpoints_keep_theirs_under_their_own_name),
                TREE_TEST(full_names_and_other_transports_resolve_to_themselves),
                TREE_TEST(search_registries_are_candidates_in_their_order),
                TREE_TEST(empty_search_list_is_said_to_be_empty),
                TREE_TEST(enforcing_mode_refuses_to_choose),
                TREE_TEST(alias_wins_over_the_search_list),
                TREE_TEST(name_too_long_for_docker_hub_is_an_error),
                TREE_TEST(longest_prefix_counts),
                TREE_TEST(wildcard_stands_for_subdomains),
                TREE_TEST(prefix_without_a_location_changes_settings_only),
                TREE_TEST(mirrors_come_before_the_primary),
                TREE_TEST(docker_hub_as_a_location_gets_its_namespace),
                TREE_TEST(location_may_be_a_host_without_a_dot),
                TREE_TEST(mirrors_say_what_they_may_be_asked_for),
                TREE_TEST(blocked_registry_is_denied),
                TREE_TEST(options_apply_to_the_primary_and_to_the_named_host),
                TREE_TEST(location_that_makes_no_name_is_an_error),
                TREE_TEST(short_name_has_no_endpoints),
                cmocka_unit_test(free_accepts_nothing),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
