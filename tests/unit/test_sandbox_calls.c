/* SPDX-License-Identifier: Apache-2.0 */

/* System calls: which kill, which are refused, and that what libraries need is neither. */

#include "sandbox_fixture.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <netdb.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>

#include "regfs/io.h"
#include "regfs/text.h"

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

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(what_no_mistake_explains_kills),
                TEST(what_is_not_needed_is_refused),
                TEST(sockets_work),
                TEST(libraries_do_without_what_they_would_load),
                TEST(every_thread_is_confined_and_gains_no_privileges),
        };

        return RUN_SANDBOX_TESTS(tests);
}
