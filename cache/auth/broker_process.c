/* SPDX-License-Identifier: Apache-2.0 */

/* The broker itself. Its requests come from a process that is not trusted any more. */

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "broker_internal.h"
#include "credential_internal.h"

#include "regfs/io.h"

/* Processes that serve requests at a time; further requests wait. */
#define SERVED_MAX 16

struct service {
        int socket;
        const struct broker_files *files;
        const struct broker_options *options;
        unsigned running;
};

/* ---- one request, in a process of its own ---- */

static int read_document(const struct service *s, const char *name, struct buf *text, struct error *e)
{
        for (size_t k = 0; k < s->files->count; k++)
                if (str_eq(s->files->items[k].name, name))
                        return file_read(AT_FDCWD, s->files->items[k].path, CREDENTIAL_FILE_MAX, text, e);
        return error_set(e, ERROR_DENIED, EPERM, "%s: not one of the credential files of this mount", name);
}

/* True when one of the files has NAME for a string. There is no character in it that JSON would have to escape. */
static bool is_configured(const struct service *s, const char *name)
{
        _cleanup_free_ char *quoted = str_printf("\"%s\"", name);
        bool found = false;

        for (size_t k = 0; k < s->files->count && quoted && !found; k++) {
                _cleanup_buf_ struct buf text = { 0 };

                if (file_read(AT_FDCWD, s->files->items[k].path, CREDENTIAL_FILE_MAX, &text, NULL) == 0)
                        found = memmem(text.data, text.len, quoted, strlen(quoted)) != NULL;
        }
        return found;
}

static bool is_helper_name(const char *name)
{
        static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";

        return name[0] != '\0' && name[0] != '.' && name[strspn(name, allowed)] == '\0';
}

static int run_helper(const struct service *s, const struct broker_request *request, int requester,
                      struct helper_output *ret, struct error *e)
{
        if (!is_helper_name(request->name))
                return error_set(e, ERROR_DENIED, EACCES, "\"%s\" is no name of a credential helper", request->name);
        if (!is_configured(s, request->name))
                return error_set(e, ERROR_DENIED, EACCES,
                                 "docker-credential-%s: no credential file of this mount names that helper",
                                 request->name);
        return credential_process_run(request->name, request->subject,
                                      MIN(request->limit_ms, (uint64_t) CREDENTIAL_HELPER_LIMIT_MS), requester, ret, e);
}

static int unmount(const struct broker_options *options, struct error *e)
{
        if (options->unmount)
                return options->unmount(options->context, e);
        return error_set(e, ERROR_OTHER, EINVAL, "there is nothing to unmount");
}

static void answer(int requester, const struct broker_answer *a, const struct helper_output *o)
{
        if (write_full(requester, a, sizeof(*a)) == 0 && write_full(requester, o->out.data, a->first) == 0)
                (void) write_full(requester, o->err.data, a->second);
}

static void serve(const struct service *s, const struct broker_request *request, int requester)
{
        _cleanup_(helper_output_clear) struct helper_output o = { 0 };
        struct broker_answer a;

        memset(&a, 0, sizeof(a)); /* padding travels, too */
        switch (request->kind) {
        case BROKER_HELPER:
                a.result = run_helper(s, request, requester, &o, &a.error);
                break;
        case BROKER_FILE:
                a.result = read_document(s, request->subject, &o.out, &a.error);
                break;
        case BROKER_UNMOUNT:
                a.result = unmount(s->options, &a.error);
                break;
        default:
                a.result = error_set(&a.error, ERROR_OTHER, EINVAL, "the broker serves no such request");
        }
        if (a.result == 0) {
                a.status = o.status;
                a.first = (uint32_t) o.out.len;
                a.second = (uint32_t) o.err.len;
        }
        answer(requester, &a, &o);
}

/* ---- requests ---- */

/* Whatever a message brought is open here. Keeps the first descriptor, closes the others, and returns how many there
 * were. */
static size_t take_descriptors(struct msghdr *message, int *ret_first)
{
        size_t count = 0;

        for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
                size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

                if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
                        continue;
                for (size_t k = 0; k < n; k++) {
                        int fd;

                        memcpy(&fd, CMSG_DATA(c) + k * sizeof(fd), sizeof(fd));
                        if (count++ == 0)
                                *ret_first = fd;
                        else
                                close(fd);
                }
        }
        return count;
}

/* Returns 1 with a request and the pipe to answer through, 0 when there is none, -1 at the end. */
static int receive(int socket, struct broker_request *ret, int *ret_requester)
{
        union {
                struct cmsghdr header;
                char room[CMSG_SPACE(sizeof(int))];
        } control;
        struct iovec data = { .iov_base = ret, .iov_len = sizeof(*ret) };
        struct msghdr message = {
                .msg_iov = &data,
                .msg_iovlen = 1,
                .msg_control = &control,
                .msg_controllen = sizeof(control),
        };
        ssize_t n = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
        int requester = -1;

        if (n < 0)
                return errno == EINTR || errno == EAGAIN ? 0 : -1;
        if (take_descriptors(&message, &requester) == 1 && n == (ssize_t) sizeof(*ret) &&
            memchr(ret->name, '\0', sizeof(ret->name)) && memchr(ret->subject, '\0', sizeof(ret->subject))) {
                *ret_requester = requester;
                return 1;
        }
        if (requester >= 0)
                close(requester);
        return n > 0 ? 0 : -1;
}

/* Takes one request; false at the end. One that finds no process to serve it sees its pipe closed. */
static bool take_request(struct service *s, const sigset_t *normal)
{
        struct broker_request request;
        int requester = -1, r;
        pid_t pid;

        r = receive(s->socket, &request, &requester);
        if (r <= 0)
                return r == 0;
        pid = fork();
        if (pid == 0) {
                close(s->socket);
                signal(SIGCHLD, SIG_DFL);
                sigprocmask(SIG_SETMASK, normal, NULL);
                serve(s, &request, requester);
                _exit(0);
        }
        close(requester);
        if (pid > 0)
                s->running++;
        return true;
}

static void reap(struct service *s, int flags)
{
        while (s->running > 0) {
                pid_t pid = waitpid(-1, NULL, flags);

                if (pid > 0)
                        s->running--;
                else if (pid == 0 || errno != EINTR)
                        break;
        }
}

static void on_child(int number)
{
        (void) number; /* ppoll returns, that is all */
}

void broker_serve(int socket, const struct broker_files *files, const struct broker_options *options)
{
        struct service s = { .socket = socket, .files = files, .options = options };
        struct sigaction child = { .sa_handler = on_child };
        sigset_t blocked, normal;
        bool going = true;

        sigemptyset(&normal);
        sigemptyset(&blocked);
        sigaddset(&blocked, SIGCHLD);
        sigprocmask(SIG_SETMASK, &blocked, NULL);
        sigemptyset(&child.sa_mask);
        sigaction(SIGCHLD, &child, NULL);

        while (going) {
                struct pollfd p = { .fd = s.running < SERVED_MAX ? socket : -1, .events = POLLIN };

                if (ppoll(&p, 1, NULL, &normal) > 0)
                        going = take_request(&s, &normal);
                reap(&s, WNOHANG);
        }
        /* Those who asked are gone, which the processes that serve them notice, too. */
        reap(&s, 0);
}
