/* SPDX-License-Identifier: Apache-2.0 */

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "regfs/manifest.h"

static void expect_platform(const char *text, const char *expected)
{
        _cleanup_platform_ struct platform p = { 0 };
        _cleanup_free_ char *formatted = NULL;
        struct error e = ERROR_INIT;

        if (platform_parse(text, &p, &e) < 0)
                fail_msg("%s", e.message);
        formatted = platform_format(&p);
        assert_string_equal(formatted, expected);
}

static void platforms_are_normalised(void **state _unused_)
{
        expect_platform("linux/amd64", "linux/amd64");
        expect_platform("Linux/AMD64", "linux/amd64");
        expect_platform("linux/x86_64", "linux/amd64");
        expect_platform("linux/amd64/v1", "linux/amd64");
        expect_platform("linux/amd64/v3", "linux/amd64/v3");
        expect_platform("linux/aarch64", "linux/arm64");
        expect_platform("linux/arm64/v8", "linux/arm64");
        expect_platform("linux/arm64/8", "linux/arm64");
        expect_platform("linux/armhf", "linux/arm/v7");
        expect_platform("linux/armel", "linux/arm/v6");
        expect_platform("linux/armv7l", "linux/arm/v7");
        expect_platform("linux/arm/7", "linux/arm/v7");
        expect_platform("linux/arm/v5", "linux/arm/v5");
        expect_platform("linux/i686", "linux/386");
        expect_platform("linux/ppc64le", "linux/ppc64le");
        expect_platform("windows/amd64", "windows/amd64");
}

static void malformed_platforms_are_refused(void **state _unused_)
{
        static const char *const texts[] = {
                "",
                "linux",
                "linux/",
                "/amd64",
                "linux//amd64",
                "linux/amd64/",
                "linux/amd64/v2/x",
                "linux/amd 64",
                "linux/amd64/v2/",
                "a/b/c\n",
        };

        for (size_t k = 0; k < ELEMENTSOF(texts); k++) {
                _cleanup_platform_ struct platform p = { 0 };
                struct error e = ERROR_INIT;

                if (platform_parse(texts[k], &p, &e) != -EINVAL)
                        fail_msg("'%s' was taken", texts[k]);
                assert_int_equal(e.kind, ERROR_USAGE);
                assert_null(p.os);
        }
}

static void host_is_a_linux(void **state _unused_)
{
        _cleanup_platform_ struct platform p = { 0 };

        assert_int_equal(platform_host(&p), 0);
        assert_string_equal(p.os, "linux");
        assert_null(strchr(p.architecture, '_'));
}

/* ---- choosing ---- */

/* An index with entries as they are written: "os/arch[/variant]", "-" for none, "+type" behind it for another
 * media type. */
struct choice {
        struct descriptor entries[8];
        char texts[8][100];
        struct manifest index;
};

static void choice_make(struct choice *c, const char *const *entries)
{
        *c = (struct choice) { .index = { .kind = MANIFEST_INDEX, .manifests = c->entries } };
        for (size_t k = 0; entries[k]; k++) {
                struct descriptor *d = &c->entries[k];
                char *type, *save = NULL;

                snprintf(c->texts[k], sizeof(c->texts[k]), "%s", entries[k]);
                type = strchr(c->texts[k], '+');
                if (type)
                        *type++ = '\0';
                d->media_type = type ? type : (char *) "application/vnd.oci.image.manifest.v1+json";
                if (c->texts[k][0] != '-') {
                        d->os = strtok_r(c->texts[k], "/", &save);
                        d->architecture = strtok_r(NULL, "/", &save);
                        d->variant = strtok_r(NULL, "/", &save);
                }
                c->index.manifest_count++;
        }
}

static int choose(struct choice *c, const char *wanted, size_t *ret, struct error *e)
{
        _cleanup_platform_ struct platform p = { 0 };

        assert_int_equal(platform_parse(wanted, &p, NULL), 0);
        *e = (struct error) ERROR_INIT;
        return manifest_choose(&c->index, &p, "the name", ret, e);
}

static void expect_choice(const char *wanted, size_t expected, const char *const *entries)
{
        struct choice c;
        struct error e;
        size_t entry = SIZE_MAX;

        choice_make(&c, entries);
        if (choose(&c, wanted, &entry, &e) < 0)
                fail_msg("%s: %s", wanted, e.message);
        if (entry != expected)
                fail_msg("%s: entry %zu was chosen, not %zu", wanted, entry, expected);
}

static void expect_none(const char *wanted, const char *words, const char *const *entries)
{
        struct choice c;
        struct error e;
        size_t entry = SIZE_MAX;

        choice_make(&c, entries);
        assert_int_equal(choose(&c, wanted, &entry, &e), -ENOENT);
        assert_int_equal(e.kind, ERROR_NOT_FOUND);
        assert_int_equal(entry, SIZE_MAX);
        if (!strstr(e.message, words))
                fail_msg("'%s' is not in '%s'", words, e.message);
}

#define ENTRIES(...) ((const char *const[]) { __VA_ARGS__, NULL })

static void exact_platform_is_chosen(void **state _unused_)
{
        expect_choice("linux/arm64", 1, ENTRIES("linux/amd64", "linux/arm64", "linux/arm/v7"));
        expect_choice("linux/arm64", 0, ENTRIES("linux/arm64/v8", "linux/amd64"));
        expect_choice("linux/arm/v6", 2, ENTRIES("linux/arm/v5", "linux/arm/v7", "linux/arm/v6"));
        expect_choice("linux/amd64", 1, ENTRIES("linux/amd64/v2", "linux/amd64"));
        expect_choice("linux/x86_64", 1, ENTRIES("linux/386", "linux/AMD64"));
        expect_choice("windows/amd64", 1, ENTRIES("linux/amd64", "windows/amd64", "windows/amd64"));
}

static void older_variant_will_do_the_newest_first(void **state _unused_)
{
        expect_choice("linux/arm/v7", 1, ENTRIES("linux/arm/v5", "linux/arm/v6", "linux/arm/v8"));
        expect_choice("linux/arm", 1, ENTRIES("linux/arm/v6", "linux/arm/v7"));
        expect_choice("linux/arm/v8", 0, ENTRIES("linux/arm", "linux/arm/v6"));
        expect_choice("linux/amd64/v3", 1, ENTRIES("linux/amd64", "linux/amd64/v2", "linux/amd64/v4"));
        expect_choice("linux/amd64/v2", 0, ENTRIES("linux/amd64"));
        expect_none("linux/arm/v6", "there is: linux/arm/v7, linux/arm64", ENTRIES("linux/arm/v7", "linux/arm64"));
        expect_none("linux/amd64", "there is: linux/amd64/v3", ENTRIES("linux/amd64/v3"));
}

static void another_architecture_is_never_chosen(void **state _unused_)
{
        expect_none("linux/amd64", "no image for platform linux/amd64; there is: linux/386, windows/amd64",
                    ENTRIES("linux/386", "windows/amd64"));
        expect_none("linux/arm64", "there is: linux/arm/v8", ENTRIES("linux/arm/v8"));
        expect_none("linux/amd64", "there is: none", ENTRIES("unknown/unknown"));
        expect_none("linux/amd64", "there is: none", (const char *const[]) { NULL });
}

static void what_is_no_image_is_never_chosen(void **state _unused_)
{
        static char *const reference[] = { (char *) "vnd.docker.reference.type", (char *) "attestation-manifest",
                                           NULL };
        struct choice c;
        struct error e;
        size_t entry = SIZE_MAX;

        choice_make(&c, ENTRIES("linux/amd64", "linux/amd64", "linux/amd64+application/vnd.example", "linux/amd64"));
        c.entries[0].artifact_type = (char *) "application/vnd.example";
        c.entries[1].annotations = (char **) reference;
        assert_int_equal(choose(&c, "linux/amd64", &entry, &e), 0);
        assert_int_equal(entry, 3);
        expect_choice("linux/amd64", 1, ENTRIES("unknown/unknown", "linux/amd64"));
}

static void only_image_may_be_silent_about_its_platform(void **state _unused_)
{
        expect_choice("linux/riscv64", 0, ENTRIES("-"));
        expect_choice("linux/riscv64", 1, ENTRIES("unknown/unknown", "-"));
        expect_choice("linux/riscv64", 0, ENTRIES("-+application/vnd.oci.image.index.v1+json"));
        expect_choice("linux/riscv64", 1, ENTRIES("-", "linux/riscv64"));
        expect_none("linux/riscv64", "there is: none", ENTRIES("-", "-"));
}

static void nested_indexes_are_chosen_by_platform(void **state _unused_)
{
        expect_choice("linux/arm64", 1,
                      ENTRIES("linux/amd64+application/vnd.oci.image.index.v1+json",
                              "linux/arm64+application/vnd.docker.distribution.manifest.list.v2+json"));
}

/* ---- configs ---- */

static void expect_config(const char *text, const char *expected)
{
        struct buf b = { .data = (char *) text, .len = strlen(text) };
        _cleanup_platform_ struct platform p = { 0 };
        _cleanup_free_ char *formatted = NULL;
        struct error e = ERROR_INIT;

        if (config_platform(&b, "the name", &p, &e) < 0)
                fail_msg("%s", e.message);
        formatted = platform_format(&p);
        assert_string_equal(formatted, expected);
}

static void config_states_its_platform(void **state _unused_)
{
        static const char *const malformed[] = { "", "[]", "{\"os\":\"a b\"}",
                                                 "{\"os\":\"linux/x\",\"architecture\":\"a/b\"}" };

        expect_config("{\"os\":\"linux\",\"architecture\":\"arm\",\"variant\":\"v6\"}", "linux/arm/v6");
        expect_config("{\"os\":\"linux\",\"architecture\":\"arm64\",\"variant\":\"v8\"}", "linux/arm64");
        expect_config("{\"os\":\"windows\",\"architecture\":\"amd64\",\"variant\":\"\"}", "windows/amd64");
        expect_config("{}", "linux/amd64");
        for (size_t k = 0; k < ELEMENTSOF(malformed); k++) {
                struct buf b = { .data = (char *) malformed[k], .len = strlen(malformed[k]) };
                _cleanup_platform_ struct platform p = { 0 };
                struct error e = ERROR_INIT;

                assert_int_equal(config_platform(&b, "the name", &p, &e), -EBADMSG);
                assert_int_equal(e.kind, ERROR_BAD_DATA);
                assert_non_null(strstr(e.message, "the name: config"));
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(platforms_are_normalised),
                cmocka_unit_test(malformed_platforms_are_refused),
                cmocka_unit_test(host_is_a_linux),
                cmocka_unit_test(exact_platform_is_chosen),
                cmocka_unit_test(older_variant_will_do_the_newest_first),
                cmocka_unit_test(another_architecture_is_never_chosen),
                cmocka_unit_test(what_is_no_image_is_never_chosen),
                cmocka_unit_test(only_image_may_be_silent_about_its_platform),
                cmocka_unit_test(nested_indexes_are_chosen_by_platform),
                cmocka_unit_test(config_states_its_platform),
        };

        return cmocka_run_group_tests_name("platform", tests, NULL, NULL);
}
