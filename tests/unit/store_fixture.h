/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the tests of the store share: a directory for each test, and children that run with other rights or other
 * mounts. */

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <grp.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "regfs/store.h"

#define NOBODY 65534
#define CHILD_SKIPS 77

/* SHA-256 of "x", the digest of everything in these tests. */
#define HEX_X "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"

/* In a child, where cmocka's assertions can't report. */
#define CHECK(condition)                                                                          \
        do {                                                                                      \
                if (!(condition)) {                                                               \
                        fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
                        _exit(1);                                                                 \
                }                                                                                 \
        } while (0)

struct place {
        char path[200]; /* of the test's directory */
        char store[220];
};

static inline const char *below(const struct place *p, const char *name)
{
        static char path[4][1024];
        static unsigned next;
        char *out = path[next++ % 4];

        snprintf(out, sizeof(path[0]), "%s/%s", p->store, name);
        return out;
}

static inline int place_make(struct place *p)
{
        const char *tmp = getenv("TMPDIR");

        snprintf(p->path, sizeof(p->path), "%s/regfs-store-XXXXXX", tmp && *tmp ? tmp : "/tmp");
        if (!mkdtemp(p->path))
                return -1;
        snprintf(p->store, sizeof(p->store), "%s/store", p->path);
        return 0;
}

static inline int place_remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
        (void) st;
        (void) ftw;
        return type == FTW_DP ? rmdir(path) : unlink(path);
}

static inline int place_unlock_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
        (void) st;
        (void) ftw;
        return type == FTW_D || type == FTW_DNR ? chmod(path, 0700) : 0;
}

static inline int place_remove(struct place *p)
{
        (void) nftw(p->path, place_unlock_one, 16, FTW_PHYS);
        return nftw(p->path, place_remove_one, 16, FTW_PHYS | FTW_DEPTH);
}

static inline int place_setup(void **state)
{
        struct place *p = calloc(1, sizeof(*p));

        *state = p;
        return p ? place_make(p) : -1;
}

static inline int place_teardown(void **state)
{
        struct place *p = *state;
        int r = place_remove(p);

        free(p);
        return r;
}

static inline struct store *open_store(const struct place *p)
{
        struct error e = ERROR_INIT;
        struct store *s = NULL;

        if (store_open(p->store, &s, &e) < 0)
                fail_msg("%s", e.message);
        return s;
}

static inline struct digest digest_x(void)
{
        struct digest d;

        assert_int_equal(digest_of(DIGEST_SHA256, "x", 1, &d), 0);
        return d;
}

static inline bool exists(const struct place *p, const char *name)
{
        struct stat st;

        return lstat(below(p, name), &st) == 0;
}

static inline void write_file(const char *path, const void *data, size_t n)
{
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

        assert_true(fd >= 0);
        assert_int_equal(write(fd, data, n), n);
        close(fd);
}

/* Names in a directory, without "." and "..". */
static inline size_t entries(const char *path)
{
        struct dirent **list = NULL;
        int n = scandir(path, &list, NULL, NULL);
        size_t count = 0;

        for (int k = 0; k < n; k++) {
                count += !str_eq(list[k]->d_name, ".") && !str_eq(list[k]->d_name, "..");
                free(list[k]);
        }
        free(list);
        return count;
}

/* Runs BODY in a child. It ends with _exit(0), by a failed CHECK, or with CHILD_SKIPS when the machine lacks
 * something. */
static inline void run_in_child(void (*body)(const struct place *), const struct place *p, const char *lacks)
{
        pid_t pid;
        int status;

        fflush(NULL);
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
                body(p);
                _exit(0);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        if (WEXITSTATUS(status) == CHILD_SKIPS && lacks) {
                print_message("skipped: %s\n", lacks);
                skip();
        }
        assert_int_equal(WEXITSTATUS(status), 0);
}

/* The plain user that permissions apply to. PLACE must be theirs already: place_give. */
static inline void become_nobody(void)
{
        if (geteuid() != 0)
                return;
        CHECK(setgroups(0, NULL) == 0);
        CHECK(setresgid(NOBODY, NOBODY, NOBODY) == 0);
        CHECK(setresuid(NOBODY, NOBODY, NOBODY) == 0);
}

static inline void place_give(const struct place *p)
{
        if (geteuid() == 0)
                assert_int_equal(chown(p->path, NOBODY, NOBODY), 0);
}

/* A mount namespace of this child's own; needs root. */
static inline void private_mounts(void)
{
        if (geteuid() != 0 || unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
                _exit(CHILD_SKIPS);
}

static inline void make_read_only(const char *path)
{
        CHECK(mount(path, path, NULL, MS_BIND, NULL) == 0);
        CHECK(mount(NULL, path, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL) == 0);
}

static inline void make_small_disk(const char *path, const char *size)
{
        char options[64];

        CHECK(mkdir(path, 0700) == 0);
        snprintf(options, sizeof(options), "mode=700,size=%s", size);
        CHECK(mount("tmpfs", path, "tmpfs", 0, options) == 0);
}
