/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "registries_fixture.h"

#define HEX "7cc4b5aefd1d0cadf8d97d4350462ba51c694ebca145b08d7d41b41acc8db5aa"
#define DIGEST "@sha256:" HEX

static void drop_in_replaces_and_takes_back_aliases(void **state)
{
        _cleanup_(registries_free_ptr) struct registries *r = NULL;

        config_tree_write(*state, SYSTEM_FILE, "[aliases]\na = 'one.io/a'\nb = 'one.io/b'\nc = 'one.io/c'\n");
        config_tree_write(*state, SYSTEM_DROP_IN "10.conf", "[aliases]\na = 'two.io/a'\nb = ''\n");
        config_tree_write(*state, USER_DROP_IN "00.conf", "[aliases]\na = 'three.io/a'\n");
        r = load(*state);
        assert_resolves(r, "a", "three.io/a:latest");
        assert_resolves(r, "b", "docker.io/library/b:latest");
        assert_resolves(r, "c", "one.io/c:latest");
}

static void users_main_file_hides_the_systems_files(void **state)
{
        _cleanup_(registries_free_ptr) struct registries *system = NULL, *user = NULL;

        config_tree_write(*state, SYSTEM_FILE, "[aliases]\na = 'system.io/a'\n");
        config_tree_write(*state, SYSTEM_DROP_IN "a.conf", "[aliases]\nb = 'system.io/b'\n");
        config_tree_write(*state, USER_DROP_IN "a.conf", "[aliases]\nc = 'user.io/c'\n");
        system = load(*state);
        assert_resolves(system, "a", "system.io/a:latest");
        assert_resolves(system, "b", "system.io/b:latest");
        assert_resolves(system, "c", "user.io/c:latest");

        config_tree_write(*state, USER_FILE, "[aliases]\nd = 'user.io/d'\n");
        user = load(*state);
        assert_resolves(user, "a", "docker.io/library/a:latest");
        assert_resolves(user, "b", "docker.io/library/b:latest");
        assert_resolves(user, "c", "user.io/c:latest");
        assert_resolves(user, "d", "user.io/d:latest");
}

static void option_names_the_only_file(void **state)
{
        _cleanup_free_ char *path = config_tree_path(*state, "my.conf");
        _cleanup_free_ char *absent = config_tree_path(*state, "absent.conf");
        struct registries_options options = { .conf = path, .tls_verify = -1 };
        _cleanup_(registries_free_ptr) struct registries *r = NULL;
        struct error e;

        config_tree_write(*state, "my.conf", "[aliases]\na = 'mine.io/a'\n");
        config_tree_write(*state, USER_FILE, "[aliases]\nb = 'user.io/b'\n");
        config_tree_write(*state, USER_DROP_IN "x.conf", "[aliases]\nc = 'user.io/c'\n");
        r = load_with(*state, &options);
        assert_resolves(r, "a", "mine.io/a:latest");
        assert_resolves(r, "b", "docker.io/library/b:latest");
        assert_resolves(r, "c", "docker.io/library/c:latest");

        options.conf = absent;
        assert_int_equal(load_fails(*state, &options, &e), -ENOENT);
        assert_contains(e.message, "/absent.conf");
}

static void environment_names_the_main_file(void **state)
{
        _cleanup_free_ char *path = config_tree_path(*state, "my.conf");
        _cleanup_free_ char *absent = config_tree_path(*state, "absent.conf");
        _cleanup_(registries_free_ptr) struct registries *r = NULL;
        struct error e;

        config_tree_write(*state, "my.conf", "[aliases]\na = 'mine.io/a'\n");
        config_tree_write(*state, USER_FILE, "[aliases]\nb = 'user.io/b'\n");
        config_tree_write(*state, SYSTEM_DROP_IN "x.conf", "[aliases]\nc = 'system.io/c'\n");
        config_tree_write(*state, USER_DROP_IN "x.conf", "[aliases]\nd = 'user.io/d'\n");
        assert_int_equal(setenv("CONTAINERS_REGISTRIES_CONF", path, 1), 0);
        r = load(*state);
        assert_resolves(r, "a", "mine.io/a:latest");
        assert_resolves(r, "b", "docker.io/library/b:latest");
        assert_resolves(r, "c", "system.io/c:latest");
        assert_resolves(r, "d", "user.io/d:latest");

        assert_int_equal(setenv("CONTAINERS_REGISTRIES_CONF", absent, 1), 0);
        assert_int_equal(load_fails(*state, &defaults, &e), -ENOENT);
        assert_contains(e.message, "/absent.conf");
        assert_int_equal(unsetenv("CONTAINERS_REGISTRIES_CONF"), 0);
}

static void real_home_directory_is_read(void **state)
{
        const struct config_tree *t = *state;
        _cleanup_(registries_free_ptr) struct registries *r = NULL;
        _cleanup_free_ char *home = getenv("HOME") ? strdup(getenv("HOME")) : NULL;
        struct error e = ERROR_INIT;

        config_tree_write(t, ".config/containers/registries.conf", "[aliases]\na = 'home.io/a'\n");
        assert_int_equal(setenv("HOME", t->root, 1), 0);
        assert_int_equal(registries_load(&defaults, &r, &e), 0);
        assert_resolves(r, "a", "home.io/a:latest");
        if (home)
                assert_int_equal(setenv("HOME", home, 1), 0);
        else
                assert_int_equal(unsetenv("HOME"), 0);
}

static void user_without_a_home_directory_has_the_systems_files(void **state)
{
        const struct config_tree *t = *state;
        const struct config_paths paths = { .system = t->paths.system };
        _cleanup_(registries_free_ptr) struct registries *r = NULL;
        struct error e = ERROR_INIT;

        config_tree_write(t, SYSTEM_FILE, "[aliases]\na = 'system.io/a'\n");
        assert_int_equal(registries_load_at(&paths, &defaults, &r, &e), 0);
        assert_resolves(r, "a", "system.io/a:latest");
        assert_endpoints(r, "quay.io/a", "quay.io/a");
}

static void drop_ins_are_read_in_the_order_of_their_names(void **state)
{
        const struct config_tree *t = *state;
        _cleanup_(registries_free_ptr) struct registries *r = NULL;
        _cleanup_free_ char *link = config_tree_path(t, SYSTEM_DROP_IN "95-gone.conf");

        config_tree_write(t, SYSTEM_FILE, "[[registry]]\nlocation = 'a.io'\ninsecure = true\n");
        config_tree_write(t, SYSTEM_DROP_IN "20.conf", "[[registry]]\nprefix = 'a.io'\nlocation = 'second.io'\n");
        config_tree_write(t, SYSTEM_DROP_IN "10.conf",
                          "[[registry]]\nprefix = 'a.io'\nlocation = 'first.io'\n"
                          "[[registry]]\nlocation = 'b.io'\ninsecure = true\n");
        config_tree_write(t, SYSTEM_DROP_IN "90.conf.bak", "not even TOML");
        config_tree_write(t, SYSTEM_DROP_IN "90.conf/inside.conf", "not even TOML");
        assert_int_equal(symlink("/nowhere/at/all", link), 0);
        r = load(t);
        assert_endpoints(r, "a.io/x", "second.io/x");
        assert_endpoints(r, "b.io/x", "b.io/x,i");
}

static void first_table_of_a_prefix_counts_within_a_file(void **state)
{
        _cleanup_(registries_free_ptr) struct registries *r = NULL;

        config_tree_write(*state, USER_FILE,
                          "[[registry]]\nprefix='a.io'\nlocation='one.io'\n"
                          "[[registry]]\nprefix='a.io'\nlocation='two.io'\n");
        r = load(*state);
        assert_endpoints(r, "a.io/x", "one.io/x");
}

static void unknown_keys_are_ignored(void **state)
{
        _cleanup_(registries_free_ptr) struct registries *r = NULL;

        config_tree_write(*state, USER_FILE,
                          "credential-helpers = ['x']\nfuture = 1\n"
                          "[[registry]]\nlocation='a.io'\nfuture = true\n[other]\nx=1\n");
        r = load(*state);
        assert_endpoints(r, "a.io/x", "a.io/x");
}

static void malformed_files_are_refused_with_their_fault(void **state)
{
        static const char *const table[][2] = {
                { "a = \n", "line 1" },
                { "\n[[registry]\n", "line 2" },
                { "registry = 1\n", "registry" },
                { "[registry]\nlocation='a.io'\n", "[[registry]]" },
                { "registry = ['a.io']\n", "[[registry]] 1: registry: not a table" },
                { "[[registry]]\ninsecure=true\n", "[[registry]] 1: prefix: missing" },
                { "[[registry]]\nlocation=''\n", "prefix: missing" },
                { "[[registry]]\nlocation='/'\n", "prefix: missing" },
                { "[[registry]]\nlocation=1\n", "location: not a string" },
                { "[[registry]]\nlocation='http://a.io'\n", "location: begins with a scheme" },
                { "[[registry]]\nprefix='https://a.io'\n", "prefix: begins with a scheme" },
                { "[[registry]]\nlocation='a.io'\ninsecure='true'\n", "insecure: not true or false" },
                { "[[registry]]\nlocation='a.io'\nblocked=1\n", "blocked: not true or false" },
                { "[[registry]]\nprefix='a.*.io'\n", "wildcard" },
                { "[[registry]]\nprefix='*.a.io/x'\n", "wildcard" },
                { "[[registry]]\nprefix='*.a.io:5000'\n", "wildcard" },
                { "[[registry]]\nprefix='*.*.io'\n", "wildcard" },
                { "[[registry]]\nprefix='*'\n", "wildcard" },
                { "[[registry]]\nlocation='a.io'\npull-from-mirror='all'\n", "belongs to a mirror" },
                { "[[registry]]\nlocation='a.io'\nmirror='m.io'\n", "mirror: not an array" },
                { "[[registry]]\nlocation='a.io'\nmirror=['m.io']\n", "mirror 1: mirror: not a table" },
                { "[[registry]]\nlocation='a.io'\nmirror=[{location='b.io'}, {}]\n", "mirror 2: location: missing" },
                { "[[registry]]\nlocation='a.io'\nmirror=[{location='b.io', insecure=1}]\n", "mirror 1: insecure" },
                { "[[registry]]\nlocation='a.io'\nmirror=[{location='b.io', pull-from-mirror='x'}]\n", "neither all" },
                { "[[registry]]\nlocation='a.io'\nmirror-by-digest-only=true\n"
                  "mirror=[{location='b.io', pull-from-mirror='all'}]\n",
                  "mirror-by-digest-only" },
                { "[[registry]]\nlocation='a.io'\nmirror-by-digest-only='x'\n", "mirror-by-digest-only: not true" },
                { "[[registry]]\nlocation='a.io'\n[[registry]]\nprefix='b.io'\nlocation='a.io'\ninsecure=true\n",
                  "[[registry]] 2: insecure: differs" },
                { "[[registry]]\nlocation='a.io'\nblocked=true\n[[registry]]\nprefix='b.io'\nlocation='a.io'\n",
                  "[[registry]] 2: blocked: differs" },
                { "unqualified-search-registries = 'a.io'\n", "unqualified-search-registries: not an array" },
                { "unqualified-search-registries = ['a.io', 1]\n", "not a string" },
                { "unqualified-search-registries = ['a.io', 'b.io/ns']\n", "b.io/ns" },
                { "unqualified-search-registries = ['']\n", "unqualified-search-registries" },
                { "short-name-mode = 'sometimes'\n", "short-name-mode: neither" },
                { "short-name-mode = 1\n", "short-name-mode: not a string" },
                { "aliases = 1\n", "aliases: not a table" },
                { "[aliases]\na = 1\n", "[aliases]: a: not a string" },
                { "[aliases]\na = 'b'\n", "[aliases]: a: an alias stands for" },
                { "[aliases]\na = 'b.io/c:1'\n", "neither tag nor digest" },
                { "[aliases]\na = 'b.io/c" DIGEST "'\n", "neither tag nor digest" },
                { "[aliases]\n'a:1' = 'b.io/c'\n", "neither tag nor digest" },
                { "[aliases]\n'a.io/b' = 'b.io/c'\n", "without a registry" },
                { "[aliases]\n'oci:a/b' = 'b.io/c'\n", "without a registry" },
                { "[aliases]\na = 'oci:a/b'\n", "with its registry" },
                { "[aliases]\n'A' = 'b.io/c'\n", "lower case" },
                { "[aliases]\na = 'b.io/C'\n", "lower case" },
                { "[registries.search]\nregistries = ['a.io']\n", "version 1" },
        };

        for (size_t i = 0; i < ELEMENTSOF(table); i++) {
                struct error e;
                int k;

                config_tree_write(*state, USER_FILE, table[i][0]);
                k = load_fails(*state, &defaults, &e);
                if (k != -EBADMSG)
                        fail_msg("%s gives %d", table[i][0], k);
                assert_int_equal(e.kind, ERROR_BAD_DATA);
                assert_contains(e.message, "/" USER_FILE ": ");
                assert_contains(e.message, table[i][1]);
        }
}

static void malformed_drop_in_is_named(void **state)
{
        struct error e;

        config_tree_write(*state, SYSTEM_DROP_IN "good.conf", "[[registry]]\nlocation='a.io'\n");
        config_tree_write(*state, SYSTEM_DROP_IN "worse.conf", "[[registry]]\n");
        assert_int_equal(load_fails(*state, &defaults, &e), -EBADMSG);
        assert_contains(e.message, "/" SYSTEM_DROP_IN "worse.conf: [[registry]] 1: ");
}

static void ignored_drop_in_leaves_no_error_behind(void **state)
{
        _cleanup_free_ char *link = config_tree_path(*state, SYSTEM_DROP_IN "a.conf");
        const struct config_tree *t = *state;
        _cleanup_(registries_free_ptr) struct registries *r = NULL;
        struct error e = ERROR_INIT;

        config_tree_write(t, SYSTEM_DROP_IN "b.conf", "");
        assert_int_equal(symlink("/nowhere/at/all", link), 0);
        assert_int_equal(registries_load_at(&t->paths, &defaults, &r, &e), 0);
        assert_int_equal(e.kind, ERROR_NONE);
        assert_string_equal(e.message, "");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TREE_TEST(drop_in_replaces_and_takes_back_aliases),
                TREE_TEST(users_main_file_hides_the_systems_files),
                TREE_TEST(option_names_the_only_file),
                TREE_TEST(environment_names_the_main_file),
                TREE_TEST(real_home_directory_is_read),
                TREE_TEST(user_without_a_home_directory_has_the_systems_files),
                TREE_TEST(drop_ins_are_read_in_the_order_of_their_names),
                TREE_TEST(first_table_of_a_prefix_counts_within_a_file),
                TREE_TEST(unknown_keys_are_ignored),
                TREE_TEST(malformed_files_are_refused_with_their_fault),
                TREE_TEST(malformed_drop_in_is_named),
                TREE_TEST(ignored_drop_in_leaves_no_error_behind),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
