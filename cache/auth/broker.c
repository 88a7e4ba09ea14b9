/* SPDX-License-Identifier: Apache-2.0 */

#include "regfs/broker.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "broker_internal.h"
#include "credential_internal.h"

#include "regfs/thread.h"

/* What the broker may take beyond a helper's time limit, and for a file or an unmount. */
#define GRACE_MS 10000
#define SEND_LIMIT_S 5

#define OUTPUT_MAX (CREDENTIAL_FILE_MAX + CREDENTIAL_HELPER_OUTPUT_MAX)

struct broker {
        pid_t pid;
        int socket;
};

void helper_output_clear(struct helper_output *o)
{
        if (o->out.data)
                explicit_bzero(o->out.data, o->out.len);
        if (o->err.data)
                explicit_bzero(o->err.data, o->err.len);
        buf_free(&o->out);
        buf_free(&o->err);
        *o = (struct helper_output) { 0 };
}

/* ---- start and end ---- */

static void files_clear(struct broker_files *f)
{
        for (size_t k = 0; k < f->count; k++) {
                free(f->items[k].name);
                free(f->items[k].path);
        }
}

static int files_find(const struct credential_options *options, struct broker_files *ret, struct error *e)
{
        char *names[CREDENTIAL_FILES_MAX] = { NULL }, cwd[PATH_MAX];
        int r = credential_files(options, names, e);

        *ret = (struct broker_files) { .count = 0 };
        if (r < 0)
                return r;
        for (size_t k = 0; k < ELEMENTSOF(names); k++) {
                size_t n = ret->count;

                if (!names[k])
                        continue;
                ret->items[n].name = names[k];
                if (names[k][0] == '/' || !getcwd(cwd, sizeof(cwd)))
                        ret->items[n].path = strdup(names[k]);
                else
                        ret->items[n].path = str_printf("%s/%s", cwd, names[k]);
                ret->count++;
                if (!ret->items[n].path)
                        r = error_oom(e);
        }
        return r;
}

/* Nothing that the other process has open, the terminal's signals, its directory. Signals that end a service as a
 * whole are not for the broker either: it is needed until the mount is gone, and then sees that the other end is
 * closed. */
static int become_broker(int socket)
{
        const struct rlimit no_core = { 0 };
        int null;

        (void) setsid();
        (void) prctl(PR_SET_NAME, "regfs-broker");
        signal(SIGINT, SIG_IGN);
        signal(SIGTERM, SIG_IGN);
        signal(SIGHUP, SIG_IGN);
        signal(SIGPIPE, SIG_IGN);
        (void) setrlimit(RLIMIT_CORE, &no_core); /* secrets pass through */

        null = open("/dev/null", O_RDWR);
        if (null < 0 || chdir("/") < 0)
                return -errno;
        for (int fd = 0; fd <= STDERR_FILENO; fd++)
                if (fd != null && fd != socket && dup2(null, fd) < 0)
                        return -errno;
        if (socket > STDERR_FILENO + 1 && close_range(STDERR_FILENO + 1, (unsigned) socket - 1, 0) < 0)
                return -errno;
        return close_range(MAX(socket, STDERR_FILENO) + 1, ~0U, 0) < 0 ? -errno : 0;
}

int broker_start(const struct broker_options *options, struct broker **ret, struct error *e)
{
        const struct timeval limit = { .tv_sec = SEND_LIMIT_S };
        _cleanup_free_ struct broker *b = calloc(1, sizeof(*b));
        _cleanup_(files_clear) struct broker_files files = { .count = 0 };
        int ends[2], r;

        if (!b)
                return error_oom(e);
        r = files_find(&options->credentials, &files, e);
        if (r < 0)
                return r;
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
                return error_errno(e, errno, "broker: socketpair");
        (void) setsockopt(ends[0], SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
        b->pid = fork();
        if (b->pid < 0) {
                r = error_errno(e, errno, "broker: fork");
                close(ends[0]);
                close(ends[1]);
                return r;
        }
        if (b->pid == 0) {
                close(ends[0]);
                r = become_broker(ends[1]);
                if (r == 0)
                        broker_serve(ends[1], &files, options);
                _exit(r < 0);
        }
        close(ends[1]);
        b->socket = ends[0];
        *ret = steal_ptr(b);
        return 0;
}

struct broker *broker_stop(struct broker *b)
{
        if (!b)
                return NULL;
        close(b->socket);
        while (waitpid(b->pid, NULL, 0) < 0 && errno == EINTR)
                ;
        free(b);
        return NULL;
}

int broker_pid(const struct broker *b)
{
        return b->pid;
}

/* ---- requests ---- */

static int gone(struct error *e)
{
        return error_set(e, ERROR_DENIED, EPIPE,
                         "the broker of this mount has ended, which reads credentials and unmounts");
}

static int send_request(const struct broker *b, const struct broker_request *request, int answer_end, struct error *e)
{
        union {
                struct cmsghdr header;
                char room[CMSG_SPACE(sizeof(int))];
        } control;
        struct iovec data = { .iov_base = (void *) request, .iov_len = sizeof(*request) };
        struct msghdr message = {
                .msg_iov = &data,
                .msg_iovlen = 1,
                .msg_control = &control,
                .msg_controllen = sizeof(control),
        };
        struct cmsghdr *c;
        ssize_t n;

        memset(&control, 0, sizeof(control));
        c = CMSG_FIRSTHDR(&message);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &answer_end, sizeof(answer_end));
        do
                n = sendmsg(b->socket, &message, MSG_NOSIGNAL);
        while (n < 0 && errno == EINTR);
        if (n >= 0)
                return 0;
        return errno == EPIPE || errno == ECONNRESET ? gone(e) : error_errno(e, errno, "broker");
}

/* Exactly N bytes before the deadline. -ENODATA when the pipe ends before. */
static int read_answer(int fd, void *data, size_t n, deadline_t deadline)
{
        uint8_t *p = data;

        while (n > 0) {
                struct pollfd ready = { .fd = fd, .events = POLLIN };
                uint64_t left = deadline_left(deadline);
                ssize_t k;

                if (left == 0)
                        return -ETIMEDOUT;
                if (poll(&ready, 1, (int) MIN(left, (uint64_t) INT_MAX)) <= 0)
                        continue;
                k = read(fd, p, n);
                if (k < 0 && errno != EINTR && errno != EAGAIN)
                        return -errno;
                if (k == 0)
                        return -ENODATA;
                if (k > 0) {
                        p += k;
                        n -= (size_t) k;
                }
        }
        return 0;
}

static int append_answer(int fd, size_t n, deadline_t deadline, struct buf *b)
{
        int r = buf_reserve(b, n + 1);

        if (r == 0)
                r = read_answer(fd, b->data + b->len, n, deadline);
        if (r < 0)
                return r;
        b->len += n;
        b->data[b->len] = '\0';
        return 0;
}

static int receive_answer(int fd, deadline_t deadline, int *ret_status, struct buf *first, struct buf *second,
                          struct error *e)
{
        struct broker_answer a;
        int r;

        r = read_answer(fd, &a, sizeof(a), deadline);
        if (r == 0 && (uint64_t) a.first + a.second > OUTPUT_MAX)
                r = -EBADMSG;
        if (r == 0 && a.result < 0) {
                a.error.message[sizeof(a.error.message) - 1] = '\0';
                if (e)
                        *e = a.error;
                return a.result;
        }
        if (r == 0)
                r = append_answer(fd, a.first, deadline, first);
        if (r == 0)
                r = append_answer(fd, a.second, deadline, second);
        if (r == -ENODATA)
                return gone(e);
        if (r == -ETIMEDOUT)
                return error_set(e, ERROR_DENIED, ETIMEDOUT, "no answer from the broker of this mount");
        if (r < 0)
                return error_errno(e, -r, "broker");
        *ret_status = a.status;
        return 0;
}

/* One request and its answer, through a pipe of its own: closing it tells the broker that nobody waits any more. */
static int ask(struct broker *b, enum broker_request_kind kind, const char *name, const char *subject,
               uint64_t limit_ms, int *ret_status, struct buf *first, struct buf *second, struct error *e)
{
        struct broker_request request;
        _cleanup_close_ int read_end = -1, write_end = -1;
        int ends[2], r;

        memset(&request, 0, sizeof(request));
        request.kind = kind;
        request.limit_ms = limit_ms;
        if (strlen(name) >= sizeof(request.name) || strlen(subject) >= sizeof(request.subject))
                return error_set(e, ERROR_DENIED, ENAMETOOLONG, "%s for %.100s…: too long for a request", name,
                                 subject);
        strcpy(request.name, name);
        strcpy(request.subject, subject);
        if (pipe2(ends, O_CLOEXEC) < 0)
                return error_errno(e, errno, "pipe");
        read_end = ends[0];
        write_end = ends[1];
        r = send_request(b, &request, write_end, e);
        close(steal_fd(&write_end));
        if (r < 0)
                return r;
        return receive_answer(read_end, deadline_in(limit_ms + GRACE_MS), ret_status, first, second, e);
}

int broker_run_helper(struct broker *b, const char *name, const char *server, uint64_t limit_ms,
                      struct helper_output *ret, struct error *e)
{
        struct helper_output o = { 0 };
        int r;

        r = ask(b, BROKER_HELPER, name, server, limit_ms, &o.status, &o.out, &o.err, e);
        if (r < 0) {
                helper_output_clear(&o);
                return r;
        }
        *ret = o;
        return 0;
}

int broker_read_file(struct broker *b, const char *path, struct buf *ret, struct error *e)
{
        _cleanup_buf_ struct buf nothing = { 0 };
        int status;

        return ask(b, BROKER_FILE, "", path, 0, &status, ret, &nothing, e);
}

int broker_unmount(struct broker *b, struct error *e)
{
        _cleanup_buf_ struct buf first = { 0 }, second = { 0 };
        int status, r;

        r = ask(b, BROKER_UNMOUNT, "", "", 0, &status, &first, &second, e);
        return r;
}
