/* SPDX-License-Identifier: Apache-2.0 */

/* What reaches the broker's process through its socket. */

#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

#include <cmocka.h>

#include "cache/auth/broker_internal.h"
#include "regfs/thread.h"

#define LIMIT_MS 20000

static void nap(void)
{
        nanosleep(&(struct timespec) { .tv_nsec = 2000000 }, NULL);
}

/* The broker's process alone, which ends when nobody holds *RET_SOCKET any more. */
static pid_t serve_alone(int *ret_socket)
{
        const struct broker_options options = { 0 };
        const struct broker_files files = { 0 };
        int ends[2];
        pid_t pid;

        assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
                close(ends[0]);
                broker_serve(ends[1], &files, &options);
                _exit(0);
        }
        close(ends[1]);
        *ret_socket = ends[0];
        return pid;
}

/* The first N bytes of REQUEST, with COUNT times the descriptor FD. */
static void send_with(int socket, const struct broker_request *request, size_t n, int fd, size_t count)
{
        union {
                struct cmsghdr header;
                char room[CMSG_SPACE(4 * sizeof(int))];
        } control = { 0 };
        struct iovec data = { .iov_base = (void *) request, .iov_len = n };
        struct msghdr message = {
                .msg_iov = &data,
                .msg_iovlen = 1,
                .msg_control = &control,
                .msg_controllen = CMSG_SPACE(count * sizeof(int)),
        };
        struct cmsghdr *c = CMSG_FIRSTHDR(&message);

        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(count * sizeof(int));
        for (size_t k = 0; k < count; k++)
                memcpy(CMSG_DATA(c) + k * sizeof(fd), &fd, sizeof(fd));
        assert_int_equal(sendmsg(socket, &message, MSG_NOSIGNAL), n);
}

static size_t count_descriptors(pid_t pid)
{
        char path[64];
        size_t n = 0;
        DIR *d;

        snprintf(path, sizeof(path), "/proc/%d/fd", pid);
        d = opendir(path);
        assert_non_null(d);
        while (readdir(d))
                n++;
        closedir(d);
        return n;
}

/* All that was sent before has been taken when this is answered. */
static void wait_for_answer(int socket, const struct broker_request *request)
{
        struct broker_answer answer;
        int ends[2];

        assert_int_equal(pipe(ends), 0);
        send_with(socket, request, sizeof(*request), ends[1], 1);
        close(ends[1]);
        assert_int_equal(read(ends[0], &answer, sizeof(answer)), sizeof(answer));
        assert_int_equal(answer.result, -EINVAL);
        close(ends[0]);
}

static void descriptors_of_a_malformed_request_do_not_stay_open(_unused_ void **state)
{
        const struct broker_request request = { .kind = BROKER_UNMOUNT + 1 };
        deadline_t deadline = deadline_in(LIMIT_MS);
        int null = open("/dev/null", O_RDONLY | O_CLOEXEC), socket;
        pid_t pid = serve_alone(&socket);
        size_t before;

        assert_true(null >= 0);
        wait_for_answer(socket, &request);
        before = count_descriptors(pid);
        for (int k = 0; k < 3; k++) {
                send_with(socket, &request, sizeof(request), null, 2);
                send_with(socket, &request, sizeof(request), null, 4); /* more than there is room for */
                send_with(socket, &request, 1, null, 1);
                send_with(socket, &request, 1, null, 2);
        }
        wait_for_answer(socket, &request);
        /* That of the last request may be on its way out, and that of the first when they were counted. */
        for (; count_descriptors(pid) > before; nap())
                assert_true(deadline_left(deadline) > 0);
        close(null);
        close(socket);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(descriptors_of_a_malformed_request_do_not_stay_open),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
