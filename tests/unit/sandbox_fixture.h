/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Trials of what can be done in a sandbox. Each runs in a process of its own, which is confined in the way of a mount,
 * from each kind of thread that a mount has. */

#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "regfs/sandbox.h"
#include "regfs/thread.h"
#include "regfs/workers.h"

static char root[200];
static int landlock; /* its version */

/* PATH below the scratch directory: static storage, four calls deep. */
static inline const char *in(const char *path)
{
        static __thread char paths[4][300];
        static __thread unsigned next;
        char *full = paths[next++ % ELEMENTSOF(paths)];

        snprintf(full, sizeof(paths[0]), "%s/%s", root, path);
        return full;
}

static inline void make(const char *path, const char *text)
{
        FILE *file = fopen(in(path), "we");

        assert_non_null(file);
        assert_true(fputs(text, file) >= 0);
        assert_int_equal(fclose(file), 0);
}

static inline int remove_entry(const char *path, _unused_ const struct stat *st, _unused_ int type,
                               _unused_ struct FTW *ftw)
{
        return remove(path);
}

static inline int setup(_unused_ void **state)
{
        static const char *const directories[] = { "store", "store/tmp", "configuration", "outside", "spool" };
        const char *directory = getenv("TMPDIR");

        snprintf(root, sizeof(root), "%s/regfs-sandbox-XXXXXX", directory && *directory ? directory : "/tmp");
        if (!mkdtemp(root))
                return -1;
        for (size_t i = 0; i < ELEMENTSOF(directories); i++)
                if (mkdir(in(directories[i]), 0700) < 0)
                        return -1;
        make("configuration/file", "configuration");
        make("store/file", "content");
        make("outside/file", "outside");
        make("single", "single");
        return symlink(in("outside/file"), in("configuration/link")) | symlink(in("outside/file"), in("store/link"));
}

static inline int teardown(_unused_ void **state)
{
        return nftw(root, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

/* ---- trials ---- */

static inline int enter(void)
{
        _cleanup_(sandbox_free_ptr) struct sandbox *s = NULL;
        int r = sandbox_new(&s, NULL);

        if (r == 0)
                r = sandbox_allow(s, in("store"), SANDBOX_WRITE, NULL);
        if (r == 0)
                r = sandbox_allow(s, in("configuration"), SANDBOX_READ, NULL);
        if (r == 0)
                r = sandbox_allow(s, in("single"), SANDBOX_READ, NULL);
        if (r == 0)
                r = sandbox_allow(s, in("not there"), SANDBOX_READ, NULL);
        if (r == 0)
                r = sandbox_allow(s, in("spool"), SANDBOX_SPOOL, NULL);
        return r == 0 ? sandbox_enter(s, NULL) : r;
}

/* 0 or a positive errno value of what TRIAL tried; past 200 when the trial itself went wrong. */
typedef int trial(void);
#define WRONG 201

static trial *thread_trial;

static inline void *in_thread(_unused_ void *arg)
{
        return (void *) (intptr_t) thread_trial();
}

static inline int by_thread(void)
{
        pthread_t thread;
        void *result;

        if (thread_start(&thread, "trial", in_thread, NULL) < 0 || pthread_join(thread, &result) != 0)
                return WRONG;
        return (int) (intptr_t) result;
}

struct trial_work {
        struct work work;
        int result;
};

static inline void work_trial(struct work *work)
{
        ((struct trial_work *) work)->result = thread_trial();
}

static inline int by_worker(void)
{
        struct trial_work t = { .work.run = work_trial, .result = WRONG };
        struct workers *w;

        if (workers_new("trial", 2, &w, NULL) < 0)
                return WRONG;
        workers_submit(w, &t.work, PRIORITY_DEMAND);
        workers_free(w);
        return t.result;
}

/* The order of a mount: one thread is confined and starts workers, the main thread is confined after that. */
static struct workers *early_workers;

static inline void *enter_and_start(_unused_ void *arg)
{
        return (void *) (intptr_t) (enter() < 0 || workers_new("early", 2, &early_workers, NULL) < 0);
}

static inline int by_early_worker(void)
{
        struct trial_work t = { .work.run = work_trial, .result = WRONG };

        workers_submit(early_workers, &t.work, PRIORITY_DEMAND);
        workers_free(early_workers);
        return t.result;
}

/* The status of a process that was confined and then ran RUN. */
static inline int status_of(int (*run)(void), bool early)
{
        pid_t pid = fork();
        int status;

        assert_true(pid >= 0);
        if (pid == 0) {
                pthread_t thread;
                void *failed = NULL;

                if (early && (pthread_create(&thread, NULL, enter_and_start, NULL) != 0 ||
                              pthread_join(thread, &failed) != 0 || failed))
                        _exit(WRONG);
                _exit(enter() < 0 ? WRONG : run());
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        return status;
}

static inline void check(int status, int expected, const char *name, const char *where)
{
        if (!WIFEXITED(status) || WEXITSTATUS(status) != expected)
                fail_msg("%s in %s: status %#x, not %d", name, where, status, expected);
}

static inline void expect_everywhere(trial *t, int expected, const char *name)
{
        thread_trial = t;
        check(status_of(t, false), expected, name, "the main thread");
        check(status_of(by_thread, false), expected, name, "a thread");
        check(status_of(by_worker, false), expected, name, "a worker");
        check(status_of(by_early_worker, true), expected, name, "a worker of the opening thread");
}
#define EXPECT(trial, expected) expect_everywhere(trial, expected, #trial)

static inline void check_killed(int status, const char *name, const char *where)
{
        if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSYS)
                fail_msg("%s in %s: status %#x, not killed by SIGSYS", name, where, status);
}

static inline void expect_death_everywhere(trial *t, const char *name)
{
        thread_trial = t;
        check_killed(status_of(t, false), name, "the main thread");
        check_killed(status_of(by_thread, false), name, "a thread");
        check_killed(status_of(by_worker, false), name, "a worker");
        check_killed(status_of(by_early_worker, true), name, "a worker of the opening thread");
}
#define EXPECT_DEATH(trial) expect_death_everywhere(trial, #trial)

static inline int outcome(long r)
{
        return r < 0 ? errno : 0;
}

static inline int open_result(const char *path, int flags)
{
        _cleanup_close_ int fd = open(path, flags | O_CLOEXEC, 0600);

        return outcome(fd);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

/* main's work; a build without sandbox is skipped. */
#define RUN_SANDBOX_TESTS(tests)                                                             \
        ({                                                                                   \
                landlock = (int) syscall(SYS_landlock_create_ruleset, NULL, (size_t) 0, 1U); \
                landlock = landlock < 0 ? 0 : landlock;                                      \
                sandbox_is_built() ? cmocka_run_group_tests(tests, NULL, NULL) : 77;         \
        })
