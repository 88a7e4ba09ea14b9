/* SPDX-License-Identifier: Apache-2.0 */

/* Each trial runs in a process of its own, which enters the sandbox as a mount does, from each kind of thread. */

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <netdb.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include <cmocka.h>

#include "regfs/io.h"
#include "regfs/sandbox.h"
#include "regfs/text.h"
#include "regfs/thread.h"
#include "regfs/workers.h"

static char root[200];
static int landlock; /* its version */

/* PATH below the scratch directory: static storage, four calls deep. */
static const char *in(const char *path)
{
        static __thread char paths[4][300];
        static __thread unsigned next;
        char *full = paths[next++ % ELEMENTSOF(paths)];

        snprintf(full, sizeof(paths[0]), "%s/%s", root, path);
        return full;
}

static void make(const char *path, const char *text)
{
        FILE *file = fopen(in(path), "we");

        assert_non_null(file);
        assert_true(fputs(text, file) >= 0);
        assert_int_equal(fclose(file), 0);
}

static int remove_entry(const char *path, _unused_ const struct stat *st, _unused_ int type, _unused_ struct FTW *ftw)
{
        return remove(path);
}

static int setup(_unused_ void **state)
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

static int teardown(_unused_ void **state)
{
        return nftw(root, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

/* ---- trials ---- */

static int enter(void)
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

static void *in_thread(_unused_ void *arg)
{
        return (void *) (intptr_t) thread_trial();
}

static int by_thread(void)
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

static void work_trial(struct work *work)
{
        ((struct trial_work *) work)->result = thread_trial();
}

static int by_worker(void)
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

static void *enter_and_start(_unused_ void *arg)
{
        return (void *) (intptr_t) (enter() < 0 || workers_new("early", 2, &early_workers, NULL) < 0);
}

static int by_early_worker(void)
{
        struct trial_work t = { .work.run = work_trial, .result = WRONG };

        workers_submit(early_workers, &t.work, PRIORITY_DEMAND);
        workers_free(early_workers);
        return t.result;
}

/* The status of a process that was confined and then ran RUN. */
static int status_of(int (*run)(void), bool early)
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

static void check(int status, int expected, const char *name, const char *where)
{
        if (!WIFEXITED(status) || WEXITSTATUS(status) != expected)
                fail_msg("%s in %s: status %#x, not %d", name, where, status, expected);
}

static void expect_everywhere(trial *t, int expected, const char *name)
{
        thread_trial = t;
        check(status_of(t, false), expected, name, "the main thread");
        check(status_of(by_thread, false), expected, name, "a thread");
        check(status_of(by_worker, false), expected, name, "a worker");
        check(status_of(by_early_worker, true), expected, name, "a worker of the opening thread");
}
#define EXPECT(trial, expected) expect_everywhere(trial, expected, #trial)

static void check_killed(int status, const char *name, const char *where)
{
        if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSYS)
                fail_msg("%s in %s: status %#x, not killed by SIGSYS", name, where, status);
}

static void expect_death_everywhere(trial *t, const char *name)
{
        thread_trial = t;
        check_killed(status_of(t, false), name, "the main thread");
        check_killed(status_of(by_thread, false), name, "a thread");
        check_killed(status_of(by_worker, false), name, "a worker");
        check_killed(status_of(by_early_worker, true), name, "a worker of the opening thread");
}
#define EXPECT_DEATH(trial) expect_death_everywhere(trial, #trial)

static int outcome(long r)
{
        return r < 0 ? errno : 0;
}

/* ---- files ---- */

static int open_result(const char *path, int flags)
{
        _cleanup_close_ int fd = open(path, flags | O_CLOEXEC, 0600);

        return outcome(fd);
}

static int opens_passwd(void)
{
        return open_result("/etc/passwd", O_RDONLY);
}

static int opens_outside(void)
{
        return open_result(in("outside/file"), O_RDONLY);
}

static int opens_outside_from_the_store(void)
{
        return open_result(in("store/../outside/file"), O_RDONLY);
}

static int follows_a_link_outside(void)
{
        return open_result(in("store/link"), O_RDONLY);
}

static int lists_outside(void)
{
        return open_result(in("outside"), O_RDONLY | O_DIRECTORY);
}

static int makes_a_file_outside(void)
{
        return open_result(in("outside/new"), O_WRONLY | O_CREAT);
}

static int opens_its_own_memory(void)
{
        return open_result("/proc/self/mem", O_RDWR);
}

static int changes_configuration(void)
{
        return open_result(in("configuration/file"), O_WRONLY);
}

static int removes_configuration(void)
{
        return outcome(unlink(in("configuration/file")));
}

static int moves_a_file_out(void)
{
        return outcome(rename(in("store/file"), in("outside/moved")));
}

static int makes_a_device(void)
{
        return outcome(mknod(in("store/device"), S_IFCHR | 0600, 0));
}

static void files_outside_are_refused(_unused_ void **state)
{
        if (!landlock)
                skip();
        EXPECT(opens_passwd, EACCES);
        EXPECT(opens_outside, EACCES);
        EXPECT(opens_outside_from_the_store, EACCES);
        EXPECT(follows_a_link_outside, EACCES);
        EXPECT(lists_outside, EACCES);
        EXPECT(makes_a_file_outside, EACCES);
        EXPECT(opens_its_own_memory, EACCES);
        EXPECT(changes_configuration, EACCES);
        EXPECT(removes_configuration, EACCES);
        EXPECT(moves_a_file_out, landlock >= 2 ? EACCES : EXDEV);
        EXPECT(makes_a_device, EPERM); /* the filter comes first */
}

static int reads_configuration(void)
{
        int r = open_result(in("configuration/file"), O_RDONLY);

        return r == 0 ? open_result(in("single"), O_RDONLY) : r;
}

static int lists_configuration(void)
{
        return open_result(in("configuration"), O_RDONLY | O_DIRECTORY);
}

static int looks_a_name_up_outside(void)
{
        struct stat st;

        return outcome(stat(in("outside/file"), &st));
}

/* All that the store does to its files. */
static int uses_the_store(void)
{
        _cleanup_close_ int dir = open(in("store"), O_RDONLY | O_DIRECTORY | O_CLOEXEC), fd = -1;
        struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
        struct stat st;
        void *map;

        if (dir < 0 || mkdirat(dir, "tmp/draft", 0700) < 0)
                return errno;
        fd = openat(dir, "tmp/draft/content", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd < 0 || pwrite(fd, "content", 7, 4096) != 7 || ftruncate(fd, 64 << 10) < 0)
                return errno;
        if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096) < 0 && errno != EOPNOTSUPP)
                return errno;
        if (fcntl(fd, F_OFD_SETLK, &lock) < 0 || fsync(fd) < 0 || fstat(fd, &st) < 0)
                return errno;
        map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (map == MAP_FAILED || msync(map, 4096, MS_SYNC) < 0 || munmap(map, 4096) < 0)
                return errno;
        if (renameat(dir, "tmp/draft", dir, "layer") < 0 || unlinkat(dir, "layer/content", 0) < 0 ||
            unlinkat(dir, "layer", AT_REMOVEDIR) < 0)
                return errno;
        return open_result(in("store/file"), O_RDWR | O_TRUNC);
}

static int spools(void)
{
        _cleanup_close_ int fd = -1;
        struct error e = ERROR_INIT;

        if (setenv("TMPDIR", in("spool"), 1) < 0)
                return WRONG;
        fd = temporary_file(&e);
        if (fd < 0)
                return e.code;
        return outcome(pwrite(fd, "spooled", 7, 0));
}

static int makes_a_name_in_the_spool(void)
{
        return open_result(in("spool/new"), O_RDWR | O_CREAT);
}

static void what_rules_allow_works(_unused_ void **state)
{
        _cleanup_close_ int nameless = open(in("spool"), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

        EXPECT(reads_configuration, 0);
        EXPECT(lists_configuration, 0);
        EXPECT(looks_a_name_up_outside, 0);
        EXPECT(uses_the_store, 0);
        EXPECT(spools, 0);
        if (landlock && nameless >= 0)
                EXPECT(makes_a_name_in_the_spool, EACCES);
}

static int follows_a_link_of_the_configuration(void)
{
        return open_result(in("configuration/link"), O_RDONLY);
}

/* fork() here, since status_of has no such rule. */
static void links_lead_outside_only_where_that_was_allowed(_unused_ void **state)
{
        int status;
        pid_t pid;

        if (!landlock)
                skip();
        EXPECT(follows_a_link_of_the_configuration, EACCES);
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
                struct sandbox *s;

                if (sandbox_new(&s, NULL) < 0 || sandbox_allow_linked(s, in("configuration"), NULL) < 0 ||
                    sandbox_enter(s, NULL) < 0 || lists_outside() != EACCES)
                        _exit(WRONG);
                _exit(follows_a_link_of_the_configuration());
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
}

/* ---- calls ---- */

static int executes(void)
{
        char *const argv[] = { (char *) "/bin/true", NULL };

        execv(argv[0], argv);
        return errno;
}

static int executes_a_descriptor(void)
{
        char empty[] = "", *const argv[] = { empty, NULL };

        syscall(SYS_execveat, STDIN_FILENO, empty, argv, argv, 0x1000 /* AT_EMPTY_PATH */);
        return errno;
}

static int traces(void)
{
        return outcome(ptrace(PTRACE_ATTACH, getppid(), NULL, NULL));
}

static int reads_memory_of_others(void)
{
        struct iovec none = { 0 };

        return outcome(syscall(SYS_process_vm_readv, getppid(), &none, 1UL, &none, 1UL, 0UL));
}

static int mounts(void)
{
        return outcome(mount("none", in("outside"), "tmpfs", 0, NULL));
}

static int enters_another_namespace(void)
{
        return outcome(unshare(CLONE_NEWUSER));
}

static int loads_a_module(void)
{
        return outcome(syscall(SYS_init_module, NULL, 0UL, ""));
}

static int loads_bpf(void)
{
        return outcome(syscall(SYS_bpf, 0, NULL, 0));
}

static void what_no_mistake_explains_kills(_unused_ void **state)
{
        EXPECT_DEATH(executes);
        EXPECT_DEATH(executes_a_descriptor);
        EXPECT_DEATH(traces);
        EXPECT_DEATH(reads_memory_of_others);
        EXPECT_DEATH(mounts);
        EXPECT_DEATH(enters_another_namespace);
        EXPECT_DEATH(loads_a_module);
        EXPECT_DEATH(loads_bpf);
}

static int forks(void)
{
        pid_t pid = (pid_t) syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, 0);

        if (pid == 0)
                _exit(0);
        return outcome(pid);
}

static int forks_by_the_new_call(void)
{
        return outcome(syscall(SYS_clone3, NULL, 0UL));
}

static int unmounts(void)
{
        return outcome(umount2(in("outside"), MNT_DETACH));
}

static int makes_memory_executable(void)
{
        void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        return page == MAP_FAILED ? WRONG : outcome(mprotect(page, 4096, PROT_READ | PROT_EXEC));
}

static int maps_executable_memory(void)
{
        return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? errno : 0;
}

static int signals_another_process(void)
{
        return outcome(kill(getppid(), 0));
}

static int opens_a_local_socket(void)
{
        return outcome(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
}

static int opens_a_raw_socket(void)
{
        return outcome(socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMP));
}

static int listens(void)
{
        struct sockaddr_in any = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        _cleanup_close_ int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

        return fd < 0 ? WRONG : outcome(bind(fd, (struct sockaddr *) &any, sizeof(any)));
}

static int becomes_another_user(void)
{
        return outcome(syscall(SYS_setresuid, 65534, 65534, 65534));
}

static void what_is_not_needed_is_refused(_unused_ void **state)
{
        EXPECT(forks, EPERM);
        EXPECT(forks_by_the_new_call, ENOSYS);
        EXPECT(unmounts, EPERM);
        EXPECT(makes_memory_executable, EPERM);
        EXPECT(maps_executable_memory, EPERM);
        EXPECT(signals_another_process, EPERM);
        EXPECT(opens_a_local_socket, EPERM);
        EXPECT(opens_a_raw_socket, EPERM);
        EXPECT(listens, EPERM);
        EXPECT(becomes_another_user, EPERM);
}

static in_port_t listening_port;

static int talks_to_a_server(void)
{
        struct sockaddr_in server = {
                .sin_family = AF_INET,
                .sin_port = listening_port,
                .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
        };
        _cleanup_close_ int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

        if (fd < 0 || connect(fd, (struct sockaddr *) &server, sizeof(server)) < 0)
                return errno;
        return outcome(send(fd, "GET", 3, MSG_NOSIGNAL));
}

static void sockets_work(_unused_ void **state)
{
        struct sockaddr_in any = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        _cleanup_close_ int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        socklen_t size = sizeof(any);

        assert_int_equal(bind(fd, (struct sockaddr *) &any, sizeof(any)), 0);
        assert_int_equal(listen(fd, 16), 0);
        assert_int_equal(getsockname(fd, (struct sockaddr *) &any, &size), 0);
        listening_port = any.sin_port;
        EXPECT(talks_to_a_server, 0);
}

static void *wait_for_cancellation(_unused_ void *arg)
{
        for (;;)
                pause();
        return NULL;
}

static int cancels_a_thread(void)
{
        pthread_t thread;
        void *result;

        if (pthread_create(&thread, NULL, wait_for_cancellation, NULL) != 0 || pthread_cancel(thread) != 0 ||
            pthread_join(thread, &result) != 0)
                return WRONG;
        return result == PTHREAD_CANCELED ? 0 : WRONG;
}

static int resolves_a_name(void)
{
        const struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
        struct addrinfo *found = NULL;
        int r = getaddrinfo("127.0.0.1", "80", &hints, &found);

        if (r == 0)
                freeaddrinfo(found);
        return r == 0 ? 0 : WRONG;
}

/* In a process that has loaded what a mount loads before it is confined. */
static void libraries_do_without_what_they_would_load(_unused_ void **state)
{
        int status;
        pid_t pid = fork();

        assert_true(pid >= 0);
        if (pid == 0) {
                sandbox_preload();
                if (enter() < 0)
                        _exit(WRONG);
                _exit(cancels_a_thread() | resolves_a_name());
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
}

/* A line of every thread's status in PROCESS says NAME VALUE; returns how many threads there are. */
static unsigned count_threads_with(pid_t process, const char *name, const char *value)
{
        _cleanup_free_ char *wanted = str_printf("\n%s:\t%s\n", name, value);
        const struct dirent *entry;
        unsigned n = 0;
        char path[64];
        DIR *d;

        snprintf(path, sizeof(path), "/proc/%d/task", process);
        d = opendir(path);
        assert_non_null(d);
        while ((entry = readdir(d))) {
                _cleanup_buf_ struct buf text = { 0 };

                if (entry->d_name[0] == '.')
                        continue;
                snprintf(path, sizeof(path), "/proc/%d/task/%.10s/status", process, entry->d_name);
                assert_int_equal(file_read(AT_FDCWD, path, 64 * KIB, &text, NULL), 0);
                if (!strstr(text.data, wanted))
                        fail_msg("thread %s: not \"%s\"", entry->d_name, wanted);
                n++;
        }
        closedir(d);
        return n;
}

/* The kernel's own account, taken while all threads are there. */
static void every_thread_is_confined_and_gains_no_privileges(_unused_ void **state)
{
        int started[2], status;
        char byte;
        pid_t pid;

        assert_int_equal(pipe2(started, O_CLOEXEC), 0);
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
                pthread_t early, late;

                if (pthread_create(&early, NULL, enter_and_start, NULL) != 0 || pthread_join(early, NULL) != 0 ||
                    enter() < 0 || thread_start(&late, "late", wait_for_cancellation, NULL) < 0 ||
                    write(started[1], "", 1) != 1)
                        _exit(WRONG);
                for (;;)
                        pause();
        }
        close(started[1]);
        assert_int_equal(read(started[0], &byte, 1), 1);
        assert_true(count_threads_with(pid, "NoNewPrivs", "1") >= 3);
        assert_true(count_threads_with(pid, "Seccomp", "2") >= 3);
        assert_int_equal(kill(pid, SIGKILL), 0);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        close(started[0]);
}

static void a_sandbox_is_that_of_one_thread_and_what_it_starts(_unused_ void **state)
{
        int status;
        pid_t pid = fork();

        assert_true(pid >= 0);
        if (pid == 0) {
                pthread_t thread;
                void *failed;

                if (pthread_create(&thread, NULL, enter_and_start, NULL) != 0 || pthread_join(thread, &failed) != 0 ||
                    failed)
                        _exit(WRONG);
                _exit(opens_outside());
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(files_outside_are_refused),
                TEST(what_rules_allow_works),
                TEST(links_lead_outside_only_where_that_was_allowed),
                TEST(what_no_mistake_explains_kills),
                TEST(what_is_not_needed_is_refused),
                TEST(sockets_work),
                TEST(libraries_do_without_what_they_would_load),
                TEST(every_thread_is_confined_and_gains_no_privileges),
                TEST(a_sandbox_is_that_of_one_thread_and_what_it_starts),
        };

        landlock = (int) syscall(SYS_landlock_create_ruleset, NULL, (size_t) 0, 1U);
        if (landlock < 0)
                landlock = 0;
        if (!sandbox_is_built())
                return 77;
        return cmocka_run_group_tests(tests, NULL, NULL);
}
