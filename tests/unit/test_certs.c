/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "registries_fixture.h"

#define PEM(text) "-----BEGIN CERTIFICATE-----\n" text "\n-----END CERTIFICATE-----\n"

/* Loads the default files and finds the only endpoint of NAME. */
static void get_endpoint(const struct config_tree *t, const char *name, struct endpoints *ret)
{
        _cleanup_(registries_free_ptr) struct registries *r = load(t);

        get_endpoints(r, name, ret);
        assert_int_equal(ret->count, 1);
}

static void certificates_come_from_the_first_directory_only(void **state)
{
        _cleanup_endpoints_ struct endpoints docker = { 0 }, system = { 0 }, user = { 0 }, other = { 0 };
        _cleanup_free_ char *cert = config_tree_path(*state, "user/containers/certs.d/host:5000/me.cert");
        _cleanup_free_ char *key = config_tree_path(*state, "user/containers/certs.d/host:5000/me.key");

        config_tree_write(*state, "system/docker/certs.d/host:5000/ca.crt", PEM("docker"));
        get_endpoint(*state, "host:5000/a", &docker);
        assert_string_equal(docker.items[0].ca_pem, PEM("docker"));
        assert_null(docker.items[0].client_cert);
        assert_null(docker.items[0].client_key);

        config_tree_write(*state, "system/containers/certs.d/host:5000/b.crt", PEM("two"));
        config_tree_write(*state, "system/containers/certs.d/host:5000/a.crt", "-----BEGIN CERTIFICATE-----one");
        config_tree_write(*state, "system/containers/certs.d/host:5000/README", "nothing");
        get_endpoint(*state, "host:5000/a", &system);
        assert_string_equal(system.items[0].ca_pem, "-----BEGIN CERTIFICATE-----one\n" PEM("two"));

        config_tree_write(*state, "user/containers/certs.d/host:5000/me.cert", "cert");
        config_tree_write(*state, "user/containers/certs.d/host:5000/me.key", "key");
        config_tree_write(*state, "user/containers/certs.d/host:5000/you.cert", "cert");
        config_tree_write(*state, "user/containers/certs.d/host:5000/you.key", "key");
        get_endpoint(*state, "host:5000/a", &user);
        assert_null(user.items[0].ca_pem);
        assert_string_equal(user.items[0].client_cert, cert);
        assert_string_equal(user.items[0].client_key, key);

        get_endpoint(*state, "host:5001/a", &other);
        assert_null(other.items[0].ca_pem);
        assert_null(other.items[0].client_cert);
}

static void empty_directory_hides_the_following_ones(void **state)
{
        _cleanup_endpoints_ struct endpoints list = { 0 };

        config_tree_write(*state, "system/docker/certs.d/host:5000/ca.crt", PEM("docker"));
        config_tree_write(*state, "user/containers/certs.d/host:5000/README", "");
        get_endpoint(*state, "host:5000/a", &list);
        assert_null(list.items[0].ca_pem);
}

static void docker_hubs_certificates_are_under_docker_io(void **state)
{
        _cleanup_endpoints_ struct endpoints list = { 0 };

        config_tree_write(*state, "system/containers/certs.d/docker.io/ca.crt", PEM("hub"));
        config_tree_write(*state, "system/containers/certs.d/registry-1.docker.io/ca.crt", PEM("not asked"));
        get_endpoint(*state, "docker.io/alpine", &list);
        assert_string_equal(list.items[0].ca_pem, PEM("hub"));
}

static void mirror_has_its_own_certificates(void **state)
{
        _cleanup_(registries_free_ptr) struct registries *r = NULL;
        _cleanup_endpoints_ struct endpoints list = { 0 };

        config_tree_write(*state, USER_FILE, "[[registry]]\nlocation='a.io'\n[[registry.mirror]]\nlocation='m.io/x'\n");
        config_tree_write(*state, "system/containers/certs.d/m.io/ca.crt", PEM("mirror"));
        config_tree_write(*state, "system/containers/certs.d/a.io/ca.crt", PEM("primary"));
        r = load(*state);
        get_endpoints(r, "a.io/y", &list);
        assert_int_equal(list.count, 2);
        assert_string_equal(list.items[0].ca_pem, PEM("mirror"));
        assert_string_equal(list.items[1].ca_pem, PEM("primary"));
}

static void file_without_a_certificate_is_skipped(void **state)
{
        _cleanup_endpoints_ struct endpoints list = { 0 };
        _cleanup_free_ char *link = config_tree_path(*state, "user/containers/certs.d/a.io/0.crt");

        config_tree_write(*state, "user/containers/certs.d/a.io/1.crt", "");
        config_tree_write(*state, "user/containers/certs.d/a.io/2.crt", "garbage");
        config_tree_write(*state, "user/containers/certs.d/a.io/3.crt", PEM("good"));
        config_tree_write(*state, "user/containers/certs.d/a.io/4.crt/inside", PEM("directory"));
        assert_int_equal(symlink("/nowhere/at/all", link), 0);
        get_endpoint(*state, "a.io/x", &list);
        assert_string_equal(list.items[0].ca_pem, PEM("good"));
}

static void half_a_client_pair_is_an_error(void **state)
{
        static const char *const table[][2] = {
                { "only.cert", "only.key is missing" },
                { "only.key", "only.cert is missing" },
        };

        for (size_t i = 0; i < ELEMENTSOF(table); i++) {
                _cleanup_free_ char *name = str_printf("user/containers/certs.d/%zu.io/%s", i, table[i][0]);
                _cleanup_free_ char *image = str_printf("%zu.io/x", i);
                _cleanup_(registries_free_ptr) struct registries *r = load(*state);
                struct endpoints list = { 0 };
                struct error e;

                assert_true(name && image);
                config_tree_write(*state, name, "x");
                assert_int_equal(find_endpoints(r, image, &list, &e), -EBADMSG);
                assert_contains(e.message, table[i][0]);
                assert_contains(e.message, table[i][1]);
                assert_null(list.items);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TREE_TEST(certificates_come_from_the_first_directory_only),
                TREE_TEST(empty_directory_hides_the_following_ones),
                TREE_TEST(docker_hubs_certificates_are_under_docker_io),
                TREE_TEST(mirror_has_its_own_certificates),
                TREE_TEST(file_without_a_certificate_is_skipped),
                TREE_TEST(half_a_client_pair_is_an_error),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
