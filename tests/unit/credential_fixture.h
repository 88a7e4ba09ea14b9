/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the tests of credentials share: a home directory of their own, files and helper programs in it, and an
 * environment in which nothing of the machine's is found. */

#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "cache/auth/credential_internal.h"

#include "regfs/io.h"
#include "regfs/text.h"

/* Helpers of these tests answer at once or never: passed only by a bug. */
#define LIMIT_MS 20000

/* No error and no log line may hold it. */
#define SECRET "s3cr3t"

static char home[200];

/* PATH below the home directory: static storage, four calls deep. */
static inline const char *in_home(const char *path)
{
        static char paths[4][400];
        static unsigned next;
        char *full = paths[next++ % ELEMENTSOF(paths)];

        snprintf(full, sizeof(paths[0]), "%s/%s", home, path);
        return full;
}

static inline void make_file(const char *path, const char *text, mode_t mode)
{
        char directory[400];
        FILE *file;

        snprintf(directory, sizeof(directory), "%s", in_home(path));
        *strrchr(directory, '/') = '\0';
        assert_int_equal(make_directories(directory, 0700, NULL), 0);
        file = fopen(in_home(path), "we");
        assert_non_null(file);
        assert_true(fputs(text, file) >= 0);
        assert_int_equal(fclose(file), 0);
        assert_int_equal(chmod(in_home(path), mode), 0);
}

/* A helper that is a shell script: BODY sees the host in $host, and appends it to the file "asked". */
static inline void make_helper(const char *name, const char *body)
{
        _cleanup_free_ char *path = str_printf("bin/docker-credential-%s", name);
        _cleanup_free_ char *text =
                str_printf("#!/bin/sh\nhost=$(cat)\necho \"${0##*/} $1 $host\" >>'%s'\n%s\n", in_home("asked"), body);

        assert_true(path && text);
        make_file(path, text, 0700);
}

/* What the helpers were asked so far, a line each: "docker-credential-NAME get HOST". */
static inline void assert_asked(const char *expected)
{
        _cleanup_buf_ struct buf text = {};

        assert_int_equal(file_read(AT_FDCWD, in_home("asked"), MIB, &text, NULL), 0);
        assert_string_equal(text.data, expected);
}

static inline int remove_entry(const char *path, _unused_ const struct stat *st, _unused_ int type,
                               _unused_ struct FTW *ftw)
{
        return remove(path);
}

static inline int setup(_unused_ void **state)
{
        static const char *const variables[] = { "REGISTRY_AUTH_FILE", "XDG_CONFIG_HOME", "DOCKER_CONFIG" };
        const char *directory = getenv("TMPDIR");

        snprintf(home, sizeof(home), "%s/regfs-credential-XXXXXX", directory ? directory : "/tmp");
        assert_non_null(mkdtemp(home));
        for (size_t i = 0; i < ELEMENTSOF(variables); i++)
                assert_int_equal(unsetenv(variables[i]), 0);
        assert_int_equal(setenv("HOME", home, 1), 0);
        assert_int_equal(setenv("XDG_RUNTIME_DIR", in_home("run"), 1), 0);
        assert_int_equal(setenv("PATH", in_home("bin:/usr/bin:/bin"), 1), 0);
        return 0;
}

static inline int teardown(_unused_ void **state)
{
        return nftw(home, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)
