/* SPDX-License-Identifier: Apache-2.0 */
#include "credential_fixture.h"

/* USER NULL: anonymous, or IDENTITY_TOKEN alone. */
static void assert_credential(const struct credential *c, const char *user, const char *secret,
                              const char *identity_token)
{
        if (user)
                assert_string_equal(c->user ? c->user : "(none)", user);
        else
                assert_null(c->user);
        if (secret)
                assert_string_equal(c->secret ? c->secret : "(none)", secret);
        else
                assert_null(c->secret);
        if (identity_token)
                assert_string_equal(c->identity_token ? c->identity_token : "(none)", identity_token);
        else
                assert_null(c->identity_token);
}

static void expect_with(const struct credential_options *options, const char *host, const char *repository,
                        const char *user, const char *secret)
{
        _cleanup_credential_ struct credential c = {};
        struct error e = ERROR_INIT;

        if (credential_find(options, host, repository, &c, &e) < 0)
                fail_msg("%s/%s: %s", host, repository, e.message);
        assert_credential(&c, user, secret, NULL);
}

static void expect(const char *host, const char *repository, const char *user, const char *secret)
{
        expect_with(&(struct credential_options) {}, host, repository, user, secret);
}

static void expect_error(const struct credential_options *options, int result, enum error_kind kind, const char *text)
{
        struct credential c = { .user = (char *) "untouched" };
        struct error e = ERROR_INIT;

        assert_int_equal(credential_find(options, "h.example", "a/b", &c, &e), result);
        assert_int_equal(e.kind, kind);
        if (!strstr(e.message, text))
                fail_msg("no \"%s\" in: %s", text, e.message);
        assert_null(strstr(e.message, SECRET));
        assert_string_equal(c.user, "untouched");
}

static void credentials_are_split_at_the_first_colon(_unused_ void **state)
{
        static const struct {
                const char *text, *user, *secret;
        } cases[] = {
                { "u:p", "u", "p" },
                { "u:p:q:", "u", "p:q:" },
                { "u:", "u", "" },
                { "AWS:ey JhbGciOi=", "AWS", "ey JhbGciOi=" },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_credential_ struct credential c = {};

                assert_int_equal(credential_parse(cases[i].text, &c, NULL), 0);
                assert_credential(&c, cases[i].user, cases[i].secret, NULL);
        }
}

static void credentials_without_colon_or_user_are_refused_unquoted(_unused_ void **state)
{
        static const char *const cases[] = { SECRET, (":" SECRET), "", ":" };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                struct credential c = {};
                struct error e = ERROR_INIT;

                assert_int_equal(credential_parse(cases[i], &c, &e), -EINVAL);
                assert_non_null(strstr(e.message, "USER:PASSWORD"));
                assert_null(strstr(e.message, SECRET));
                assert_null(c.user);
        }
}

static void clearing_leaves_an_anonymous_credential(_unused_ void **state)
{
        struct credential c = {};

        assert_int_equal(credential_parse("u:p", &c, NULL), 0);
        assert_false(credential_is_anonymous(&c));
        credential_clear(&c);
        assert_credential(&c, NULL, NULL, NULL);
        assert_true(credential_is_anonymous(&c));
        credential_clear(&c);
}

static void identities_are_equal_for_equal_credentials_only(_unused_ void **state)
{
#define T(s) ((char *) (s))
        const struct credential all[] = {
                {},
                { T("u"), T("p"), NULL },
                { T("u"), T("q"), NULL },
                { T("v"), T("p"), NULL },
                { T("u"), T(""), NULL },
                { T("u"), NULL, NULL },
                { T("up"), T(""), NULL },
                { T("u"), T("p"), T("t") },
                { T("u"), T("p"), T("") },
                { NULL, NULL, T("t") },
                { NULL, T("t"), T("t") },
                { T("t"), NULL, T("t") },
                { T("u+p"), NULL, T("t") },
                { T("u"), T("p-"), T("t") },
                { T("up"), NULL, NULL },
        };
#undef T

        for (size_t i = 0; i < ELEMENTSOF(all); i++) {
                for (size_t j = 0; j < ELEMENTSOF(all); j++) {
                        _cleanup_free_ char *a = credential_identity(&all[i]), *b = credential_identity(&all[j]);

                        assert_true(a && b);
                        assert_true(str_eq(a, b) == (i == j));
                        assert_int_equal(strlen(a), i == 0 ? 0 : 64);
                        assert_int_equal(strspn(a, "0123456789abcdef"), strlen(a));
                }
        }
}

static void an_option_goes_before_every_file(_unused_ void **state)
{
        make_file("run/containers/auth.json", "not read", 0600);
        expect_with(&(struct credential_options) { .creds = "o:p", .authfile = "/nonexistent" }, "h.example", "a", "o",
                    "p");
        expect_error(&(struct credential_options) { .creds = SECRET }, -EINVAL, ERROR_USAGE, "USER:PASSWORD");
}

/* Each file has its own name as user for h.example. */
static void make_default_file(const char *path, const char *user)
{
        _cleanup_free_ char *pair = str_printf("%s:p", user), *auth = base64_encode(pair, strlen(pair)), *text = NULL;

        text = str_printf("{\"auths\": {\"h.example\": {\"auth\": \"%s\"}}}", auth);
        assert_non_null(text);
        make_file(path, text, 0600);
}

static void default_files_are_asked_in_podmans_order(_unused_ void **state)
{
        expect("h.example", "a", NULL, NULL);
        make_default_file(".docker/config.json", "docker-home");
        expect("h.example", "a", "docker-home", "p");
        make_default_file("docker/config.json", "docker");
        setenv("DOCKER_CONFIG", in_home("docker"), 1);
        expect("h.example", "a", "docker", "p");
        make_default_file(".config/containers/auth.json", "config-home");
        expect("h.example", "a", "config-home", "p");
        make_default_file("config/containers/auth.json", "config");
        setenv("XDG_CONFIG_HOME", in_home("config"), 1);
        expect("h.example", "a", "config", "p");
        make_default_file("run/containers/auth.json", "runtime");
        expect("h.example", "a", "runtime", "p");
        make_default_file("named.json", "environment");
        setenv("REGISTRY_AUTH_FILE", in_home("named.json"), 1);
        expect("h.example", "a", "environment", "p");
        make_default_file("option.json", "option");
        expect_with(&(struct credential_options) { .authfile = in_home("option.json") }, "h.example", "a", "option",
                    "p");
}

static void a_default_file_without_an_answer_is_passed_over(_unused_ void **state)
{
        make_file("run/containers/auth.json", "{\"auths\": {\"other.example\": {\"auth\": \"dTpw\"}}}", 0600);
        make_file(".config/containers/auth.json", "", 0600);
        make_default_file(".docker/config.json", "docker");
        expect("h.example", "a", "docker", "p");
        expect("other.example", "a", "u", "p");
}

static void a_named_file_is_the_only_one(_unused_ void **state)
{
        make_default_file("run/containers/auth.json", "runtime");
        make_file("empty.json", "{}", 0600);
        expect_with(&(struct credential_options) { .authfile = in_home("empty.json") }, "h.example", "a", NULL, NULL);
        expect_with(&(struct credential_options) { .authfile = "/dev/null" }, "h.example", "a", NULL, NULL);
        setenv("REGISTRY_AUTH_FILE", in_home("empty.json"), 1);
        expect("h.example", "a", NULL, NULL);
        setenv("REGISTRY_AUTH_FILE", "", 1);
        expect("h.example", "a", "runtime", "p");
}

static void a_named_file_must_be_there(_unused_ void **state)
{
        expect_error(&(struct credential_options) { .authfile = in_home("gone.json") }, -ENOENT, ERROR_NOT_FOUND,
                     "gone.json");
        setenv("REGISTRY_AUTH_FILE", in_home("gone.json"), 1);
        expect_error(&(struct credential_options) {}, -ENOENT, ERROR_NOT_FOUND, "$REGISTRY_AUTH_FILE");
        expect_error(&(struct credential_options) {}, -ENOENT, ERROR_NOT_FOUND, "gone.json");
}

static void an_unreadable_file_is_an_error_also_in_a_default_place(_unused_ void **state)
{
        assert_int_equal(make_directories(in_home("run/containers/auth.json"), 0700, NULL), 0);
        expect_error(&(struct credential_options) {}, -EISDIR, ERROR_OTHER, "run/containers/auth.json");
}

static void a_place_below_a_file_counts_as_absent(_unused_ void **state)
{
        make_file("run", "", 0600);
        make_default_file(".docker/config.json", "docker");
        expect("h.example", "a", "docker", "p");
}

static void a_huge_file_is_refused(_unused_ void **state)
{
        make_file("run/containers/auth.json", "{}", 0600);
        assert_int_equal(truncate(in_home("run/containers/auth.json"), CREDENTIAL_FILE_MAX + 1), 0);
        expect_error(&(struct credential_options) {}, -EFBIG, ERROR_BAD_DATA, "run/containers/auth.json");
}

/* What podman 4 and docker 26 wrote for logins to four registries, with one entry more for a namespace. */
static const char podman_file[] =
        "{\n"
        "\t\"auths\": {\n"
        "\t\t\"docker.io\": {\n\t\t\t\"auth\": \"aHViOnB3OjE=\"\n\t\t},\n"                  /* hub:pw:1 */
        "\t\t\"localhost:5000\": {\n\t\t\t\"auth\": \"bG9jYWw6cHc=\"\n\t\t},\n"             /* local:pw */
        "\t\t\"quay.io\": {\n\t\t\t\"auth\": \"cXVheTpwdw==\"\n\t\t},\n"                    /* quay:pw */
        "\t\t\"quay.io/team\": {\n\t\t\t\"auth\": \"dGVhbTpwdw==\"\n\t\t},\n"               /* team:pw */
        "\t\t\"quay.io/team/secret\": {\n\t\t\t\"auth\": \"c2VjcmV0LXJvYm90OnB3\"\n\t\t}\n" /* secret-robot:pw */
        "\t}\n"
        "}";

static const char docker_file[] =
        "{\n"
        "\t\"auths\": {\n"
        "\t\t\"https://index.docker.io/v1/\": {\n\t\t\t\"auth\": \"aHViOnB3OjE=\"\n\t\t},\n"
        "\t\t\"https://registry.example/v2/\": {\n\t\t\t\"auth\": \"cXVheTpwdw==\"\n\t\t},\n"
        "\t\t\"http://plain.example:5000\": {\n\t\t\t\"auth\": \"bG9jYWw6cHc=\"\n\t\t},\n"
        "\t\t\"old.example/v1/\": {\n\t\t\t\"auth\": \"b2xkOnB3\"\n\t\t},\n" /* old:pw */
        "\t\t\"acr.example\": {\n\t\t\t\"auth\": \"MDAwMDAwMDAtMDAwMC0wMDAwLTAwMDAtMDAwMDAwMDAwMDAwOg==\",\n"
        "\t\t\t\"identitytoken\": \"refresh\"\n\t\t},\n"
        "\t\t\"token.example\": {\n\t\t\t\"identitytoken\": \"refresh\"\n\t\t},\n"
        "\t\t\"pod.example\": {\n\t\t\t\"username\": \"pod\",\n\t\t\t\"password\": \"pw\",\n"
        "\t\t\t\"email\": \"x@y\"\n\t\t}\n"
        "\t},\n"
        "\t\"HttpHeaders\": {\n\t\t\"User-Agent\": \"Docker-Client/19.03.12 (linux)\"\n\t},\n"
        "\t\"detachKeys\": \"ctrl-e,e\"\n"
        "}\n";

static void entries_of_podman_are_found_by_the_longest_namespace(_unused_ void **state)
{
        make_file("run/containers/auth.json", podman_file, 0600);
        expect("docker.io", "library/alpine", "hub", "pw:1");
        expect("localhost:5000", "x", "local", "pw");
        expect("localhost", "x", NULL, NULL);
        expect("quay.io", "other/x", "quay", "pw");
        expect("quay.io", "team/x", "team", "pw");
        expect("quay.io", "team", "team", "pw");
        expect("quay.io", "team/secret", "secret-robot", "pw");
        expect("quay.io", "team/secret/deep/x", "secret-robot", "pw");
        expect("quay.io", "team/secretive", "team", "pw");
        expect("quay.io", "teamwork/x", "quay", "pw");
        expect("quay.io", "", "quay", "pw");
        expect("quay.io.example", "team/x", NULL, NULL);
        expect_with(&(struct credential_options) {}, "quay.io", NULL, "quay", "pw");
}

static void entries_of_docker_are_found_by_the_host_of_their_url(_unused_ void **state)
{
        make_file(".docker/config.json", docker_file, 0600);
        expect("docker.io", "library/alpine", "hub", "pw:1");
        expect("index.docker.io", "library/alpine", "hub", "pw:1");
        expect("registry-1.docker.io", "library/alpine", "hub", "pw:1");
        expect("registry.example", "x", "quay", "pw");
        expect("plain.example:5000", "x", "local", "pw");
        expect("plain.example", "x", NULL, NULL);
        expect("old.example", "x", "old", "pw");
        expect("pod.example", "x", "pod", "pw");
        expect("https:", "x", NULL, NULL);
}

static void the_first_url_of_a_host_counts(_unused_ void **state)
{
        make_file("run/containers/auth.json",
                  "{\"auths\":{\"https://h.example/v3/\":{},\"https://h.example/v2/\":{\"auth\":\"dTpw\"},"
                  "\"https://h.example/v1/\":{\"auth\":\"b2xkOnB3\"}}}",
                  0600);
        expect("h.example", "x", "u", "p");
}

static void an_identity_token_is_kept_beside_the_user(_unused_ void **state)
{
        _cleanup_credential_ struct credential acr = {}, alone = {};

        make_file(".docker/config.json", docker_file, 0600);
        assert_int_equal(credential_find(&(struct credential_options) {}, "acr.example", "x", &acr, NULL), 0);
        assert_credential(&acr, "00000000-0000-0000-0000-000000000000", "", "refresh");
        assert_int_equal(credential_find(&(struct credential_options) {}, "token.example", "x", &alone, NULL), 0);
        assert_credential(&alone, NULL, NULL, "refresh");
}

static void every_name_of_docker_hub_finds_its_entry(_unused_ void **state)
{
        static const char *const keys[] = {
                "docker.io",
                "https://index.docker.io/v1/",
                "https://index.docker.io/v1",
                "https://index.docker.io",
                "index.docker.io",
                "index.docker.io/v1/",
                "registry-1.docker.io",
                "https://registry-1.docker.io/v2/",
                "http://docker.io",
                "docker.io/library",
                "registry-1.docker.io/library/alpine",
        };

        for (size_t i = 0; i < ELEMENTSOF(keys); i++) {
                _cleanup_free_ char *text = str_printf("{\"auths\":{\"%s\":{\"auth\":\"dTpw\"}}}", keys[i]);

                assert_non_null(text);
                make_file("run/containers/auth.json", text, 0600);
                expect("docker.io", "library/alpine", "u", "p");
                expect("example.io", "library/alpine", NULL, NULL);
        }
}

static void a_namespace_is_no_url_of_its_host(_unused_ void **state)
{
        make_file("run/containers/auth.json",
                  "{\"auths\":{\"h.example/team\":{\"auth\":\"dTpw\"},\"h.example/v1/x\":{\"auth\":\"dTpw\"}}}", 0600);
        expect("h.example", "other", NULL, NULL);
        expect("h.example", "team/x", "u", "p");
}

static void a_padded_password_loses_its_nuls(_unused_ void **state)
{
        make_file("run/containers/auth.json", "{\"auths\":{\"h.example\":{\"auth\":\"dTpwAAA=\"}}}", 0600);
        expect("h.example", "x", "u", "p");
}

static void malformed_files_are_errors_that_name_file_and_place(_unused_ void **state)
{
        static const struct {
                const char *text, *place;
        } cases[] = {
                { "{", "JSON" },
                { "{} x", "JSON" },
                { " ", "JSON" },
                { "[]", "not an object" },
                { "{\"auths\": []}", "auths" },
                { "{\"auths\": {\"h.example\": \"" SECRET "\"}}", "h.example" },
                { "{\"auths\": {\"h.example\": {\"auth\": 7}}}", "h.example" },
                { "{\"auths\": {\"h.example\": {\"auth\": \"" SECRET "!\"}}}", "not base64" },
                { "{\"auths\": {\"h.example\": {\"auth\": \"czNjcjN0\"}}}", "USER:PASSWORD" }, /* s3cr3t */
                { "{\"auths\": {\"h.example\": {\"auth\": \"OnAz\"}}}", "USER:PASSWORD" },
                { "{\"auths\": {\"h.example\": {\"auth\": \"dTpwAHE=\"}}}", "NUL" },
                { "{\"auths\": {\"h.example\": {\"identitytoken\": {}}}}", "h.example" },
                { "{\"auths\": {\"https://h.example/\": {\"auth\": \"" SECRET "\"}}}", "https://h.example/" },
                { "{\"credHelpers\": \"x\"}", "credHelpers" },
                { "{\"credHelpers\": {\"h.example\": 1}}", "credHelpers" },
                { "{\"credsStore\": [\"x\"]}", "credsStore" },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                make_file("run/containers/auth.json", cases[i].text, 0600);
                expect_error(&(struct credential_options) {}, -EBADMSG, ERROR_BAD_DATA,
                             in_home("run/containers/auth.json"));
                expect_error(&(struct credential_options) {}, -EBADMSG, ERROR_BAD_DATA, cases[i].place);
        }
}

static void what_concerns_another_host_is_not_judged(_unused_ void **state)
{
        make_file("run/containers/auth.json",
                  "{\"auths\": {\"other.example\": 7, \"h.example\": {}}, \"credHelpers\": {\"other.example\": 1}}",
                  0600);
        expect("h.example", "x", NULL, NULL);
}

static void absent_null_and_empty_members_mean_nothing(_unused_ void **state)
{
        static const char *const cases[] = {
                "{\"auths\": null, \"credHelpers\": null, \"credsStore\": null}",
                "{\"auths\": {}, \"credHelpers\": {}, \"credsStore\": \"\"}",
                "{\"auths\": {\"h.example\": {\"auth\": \"\", \"identitytoken\": \"\", \"username\": \"\"}}}",
                "{\"auths\": {\"h.example\": {\"auth\": null}}, \"credHelpers\": {\"h.example\": \"\"}}",
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                make_file("run/containers/auth.json", cases[i], 0600);
                expect("h.example", "x", NULL, NULL);
        }
}

static void a_files_helper_goes_before_its_entries_and_its_store_behind(_unused_ void **state)
{
        make_helper("one", "echo '{\"ServerURL\":\"x\",\"Username\":\"one\",\"Secret\":\"1\"}'");
        make_helper("none", "echo 'credentials not found in native keychain'; exit 1");
        make_helper("store", "echo '{\"Username\":\"store\",\"Secret\":\"s\"}'");
        make_file("run/containers/auth.json",
                  "{\"auths\": {\"h1.example\": {\"auth\": \"dTpw\"}, \"h2.example\": {\"auth\": \"dTpw\"},\n"
                  "             \"h3.example\": {\"auth\": \"dTpw\"}, \"h4.example\": {}},\n"
                  " \"credHelpers\": {\"h1.example\": \"one\", \"h2.example\": \"none\"}, \"credsStore\": \"store\"}",
                  0600);
        expect("h1.example", "x", "one", "1");
        expect("h2.example", "x", "u", "p");
        expect("h3.example", "x", "u", "p");
        expect("h4.example", "x", "store", "s");
        expect("h5.example", "x", "store", "s");
        assert_asked("docker-credential-one get h1.example\n"
                     "docker-credential-none get h2.example\n"
                     "docker-credential-store get h4.example\n"
                     "docker-credential-store get h5.example\n");
}

static void a_store_is_asked_for_every_name_of_docker_hub(_unused_ void **state)
{
        make_helper("store",
                    "[ \"$host\" = https://index.docker.io/v1/ ] || { echo credentials not found in native keychain;"
                    " exit 1; }\necho '{\"Username\":\"hub\",\"Secret\":\"s\"}'");
        make_helper("never", "echo credentials not found in native keychain; exit 1");
        make_file("run/containers/auth.json", "{\"credsStore\": \"store\"}", 0600);
        expect("docker.io", "library/alpine", "hub", "s");
        assert_asked("docker-credential-store get docker.io\n"
                     "docker-credential-store get https://index.docker.io/v1/\n");

        assert_int_equal(unlink(in_home("asked")), 0);
        make_file("run/containers/auth.json",
                  "{\"credHelpers\": {\"https://index.docker.io/v1/\": \"store\", \"index.docker.io\": \"never\"}}",
                  0600);
        expect("docker.io", "library/alpine", "hub", "s");
        assert_asked("docker-credential-store get https://index.docker.io/v1/\n");
}

static void a_failing_helper_ends_the_search(_unused_ void **state)
{
        make_helper("bad", "echo 'the keychain is locked'; exit 3");
        make_file("run/containers/auth.json", "{\"credHelpers\": {\"h.example\": \"bad\"}}", 0600);
        make_default_file(".docker/config.json", "docker");
        expect_error(&(struct credential_options) {}, -EACCES, ERROR_DENIED, "the keychain is locked");
        expect_error(&(struct credential_options) {}, -EACCES, ERROR_DENIED, "run/containers/auth.json");

        /* One that is not installed is not taken for a file that is absent. */
        make_file("run/containers/auth.json", "{\"credHelpers\": {\"h.example\": \"missing\"}}", 0600);
        expect_error(&(struct credential_options) {}, -ENOENT, ERROR_DENIED, "docker-credential-missing");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(credentials_are_split_at_the_first_colon),
                TEST(credentials_without_colon_or_user_are_refused_unquoted),
                TEST(clearing_leaves_an_anonymous_credential),
                TEST(identities_are_equal_for_equal_credentials_only),
                TEST(an_option_goes_before_every_file),
                TEST(default_files_are_asked_in_podmans_order),
                TEST(a_default_file_without_an_answer_is_passed_over),
                TEST(a_named_file_is_the_only_one),
                TEST(a_named_file_must_be_there),
                TEST(an_unreadable_file_is_an_error_also_in_a_default_place),
                TEST(a_place_below_a_file_counts_as_absent),
                TEST(a_huge_file_is_refused),
                TEST(entries_of_podman_are_found_by_the_longest_namespace),
                TEST(entries_of_docker_are_found_by_the_host_of_their_url),
                TEST(the_first_url_of_a_host_counts),
                TEST(an_identity_token_is_kept_beside_the_user),
                TEST(every_name_of_docker_hub_finds_its_entry),
                TEST(a_namespace_is_no_url_of_its_host),
                TEST(a_padded_password_loses_its_nuls),
                TEST(malformed_files_are_errors_that_name_file_and_place),
                TEST(what_concerns_another_host_is_not_judged),
                TEST(absent_null_and_empty_members_mean_nothing),
                TEST(a_files_helper_goes_before_its_entries_and_its_store_behind),
                TEST(a_store_is_asked_for_every_name_of_docker_hub),
                TEST(a_failing_helper_ends_the_search),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
