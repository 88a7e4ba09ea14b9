/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A scratch directory with the configuration directories of a user ("user/") and of the system ("system/"), for tests
 * of what reads them. Included after cmocka.h. */

#include <fcntl.h>
#include <ftw.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "../../cache/registry/paths.h"
#include "regfs/io.h"
#include "regfs/text.h"

struct config_tree {
        char *root;
        struct config_paths paths;
};

static inline int config_tree_remove_entry(const char *path, const struct stat *st _unused_, int type _unused_,
                                           struct FTW *ftw _unused_)
{
        return remove(path);
}

/* cmocka's setup and teardown: *state is the tree. $CONTAINERS_REGISTRIES_CONF is out of the way. */
static inline int config_tree_setup(void **state)
{
        const char *directory = getenv("TMPDIR");
        struct config_tree *t = calloc(1, sizeof(*t));

        if (!t)
                return -1;
        unsetenv("CONTAINERS_REGISTRIES_CONF");
        t->root = str_printf("%s/regfs-config-XXXXXX", directory && *directory ? directory : "/tmp");
        if (!t->root || !mkdtemp(t->root))
                return -1;
        t->paths.user = str_printf("%s/user", t->root);
        t->paths.system = str_printf("%s/system", t->root);
        *state = t;
        return t->paths.user && t->paths.system ? 0 : -1;
}

static inline int config_tree_teardown(void **state)
{
        struct config_tree *t = *state;
        int k = nftw(t->root, config_tree_remove_entry, 16, FTW_DEPTH | FTW_PHYS);

        config_paths_clear(&t->paths);
        free(t->root);
        free(t);
        return k;
}

static inline char *config_tree_path(const struct config_tree *t, const char *name)
{
        char *path = str_printf("%s/%s", t->root, name);

        assert_non_null(path);
        return path;
}

/* Writes a file, with its directories. */
static inline void config_tree_write(const struct config_tree *t, const char *name, const char *text)
{
        _cleanup_free_ char *path = config_tree_path(t, name);
        _cleanup_free_ char *copy = strdup(path);
        _cleanup_close_ int fd = -1;

        assert_non_null(copy);
        assert_int_equal(make_directories(dirname(copy), 0700, NULL), 0);
        fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        assert_true(fd >= 0);
        assert_int_equal(write_full(fd, text, strlen(text)), 0);
}

static inline void assert_contains(const char *text, const char *part)
{
        if (!text || !strstr(text, part))
                fail_msg("no \"%s\" in: %s", part, text ? text : "(null)");
}

#define TREE_TEST(test) cmocka_unit_test_setup_teardown(test, config_tree_setup, config_tree_teardown)
