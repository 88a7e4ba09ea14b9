/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>

#include "credential_internal.h"
#include "quote.h"

#include "regfs/broker.h"
#include "regfs/text.h"
#include "regfs/thread.h"

#define STDERR_KEPT (4 * KIB)

/* What docker's helpers write when they simply have nothing. */
#define NOT_FOUND_MESSAGE "credentials not found in native keychain"

/* Output of a helper in memory that never moves, so that one overwriting is enough. */
struct capture {
        int fd; /* -1 after its end */
        char *data;
        size_t len;
        size_t max; /* data has one byte more, for the NUL */
};

struct helper {
        char *program; /* "docker-credential-NAME" */
        const char *server;
        struct error *e;
        uint64_t limit_ms;
        deadline_t deadline;
        pid_t pid; /* 0 when there is nothing to reap */
        int pidfd;
        int requester; /* a pipe: nobody wants the answer any more when its other end is closed; or -1 */
        int status;    /* of waitpid */
        struct capture out, err;
};

static void capture_clear(struct capture *c)
{
        if (c->data)
                explicit_bzero(c->data, c->len + 1);
        free(c->data);
        close_fd_ptr(&c->fd);
}

static void helper_clear(struct helper *h)
{
        /* The whole group: what the helper started itself would go on holding pipes and prompts. */
        if (h->pid > 0) {
                kill(-h->pid, SIGKILL);
                while (waitpid(h->pid, NULL, 0) < 0 && errno == EINTR)
                        ;
        }
        close_fd_ptr(&h->pidfd);
        capture_clear(&h->out);
        capture_clear(&h->err);
        free(h->program);
}

static _printf_(3, 4) int failed(const struct helper *h, int code, const char *format, ...)
{
        char why[QUOTE_SIZE + 100];
        va_list ap;

        va_start(ap, format);
        vsnprintf(why, sizeof(why), format, ap);
        va_end(ap);
        return error_set(h->e, ERROR_DENIED, code, "%s get for %s: %s", h->program, h->server, why);
}

static int failed_errno(const struct helper *h, int code, const char *what)
{
        return failed(h, code, "%s: %s", what, strerrordesc_np(code));
}

struct pipe {
        int read_end;
        int write_end;
};

#define PIPE_INIT      \
        {              \
                -1, -1 \
        }

static void pipe_clear(struct pipe *p)
{
        close_fd_ptr(&p->read_end);
        close_fd_ptr(&p->write_end);
}

#define _cleanup_pipe_ _cleanup_(pipe_clear)

static int pipe_open(struct pipe *p)
{
        int fds[2];

        if (pipe2(fds, O_CLOEXEC) < 0)
                return -errno;
        p->read_end = fds[0];
        p->write_end = fds[1];
        return 0;
}

/* A pipe that holds all of the input already: nobody has to write while the helper runs, or meets SIGPIPE. */
static int input_open(struct pipe *p, const char *input)
{
        size_t n = strlen(input);
        int r;

        if (n > PIPE_BUF)
                return -ENAMETOOLONG;
        r = pipe_open(p);
        if (r < 0)
                return r;
        if (write(p->write_end, input, n) != (ssize_t) n)
                return -EIO;
        close(steal_fd(&p->write_end));
        return 0;
}

static int output_open(struct pipe *p, struct capture *c, size_t max)
{
        int r;

        c->data = malloc(max + 1);
        if (!c->data)
                return -ENOMEM;
        c->max = max;
        c->data[0] = '\0';
        r = pipe_open(p);
        if (r < 0)
                return r;
        if (fcntl(p->read_end, F_SETFL, O_NONBLOCK) < 0)
                return -errno;
        c->fd = steal_fd(&p->read_end);
        return 0;
}

/* Starts the program with default signals, whatever this process or thread blocks and ignores. */
static int spawn(struct helper *h, const struct pipe *in, const struct pipe *out, const struct pipe *err)
{
        char get[] = "get", *const argv[] = { h->program, get, NULL };
        posix_spawn_file_actions_t actions;
        posix_spawnattr_t attributes;
        sigset_t none, all;
        int r;

        r = posix_spawn_file_actions_init(&actions);
        if (r != 0)
                return -r;
        r = posix_spawnattr_init(&attributes);
        if (r != 0) {
                posix_spawn_file_actions_destroy(&actions);
                return -r;
        }

        sigemptyset(&none);
        sigfillset(&all);
        posix_spawnattr_setsigmask(&attributes, &none);
        posix_spawnattr_setsigdefault(&attributes, &all);
        posix_spawnattr_setpgroup(&attributes, 0);
        posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);

        /* The ends were made in this order too: even when standard descriptors are closed, and ends have got their
         * numbers, none is overwritten before its turn. */
        r = posix_spawn_file_actions_adddup2(&actions, in->read_end, STDIN_FILENO);
        if (r == 0)
                r = posix_spawn_file_actions_adddup2(&actions, out->write_end, STDOUT_FILENO);
        if (r == 0)
                r = posix_spawn_file_actions_adddup2(&actions, err->write_end, STDERR_FILENO);
        if (r == 0)
                r = posix_spawnp(&h->pid, h->program, &actions, &attributes, argv, environ);
        if (r != 0)
                h->pid = 0;

        posix_spawnattr_destroy(&attributes);
        posix_spawn_file_actions_destroy(&actions);
        return -r;
}

static int start(struct helper *h)
{
        _cleanup_pipe_ struct pipe in = PIPE_INIT, out = PIPE_INIT, err = PIPE_INIT;
        int r;

        r = input_open(&in, h->server);
        if (r == 0)
                r = output_open(&out, &h->out, CREDENTIAL_HELPER_OUTPUT_MAX);
        if (r == 0)
                r = output_open(&err, &h->err, STDERR_KEPT);
        if (r < 0)
                return failed_errno(h, -r, "cannot make its pipes");

        h->deadline = deadline_in(h->limit_ms);
        r = spawn(h, &in, &out, &err);
        if (r < 0)
                return failed_errno(h, -r, "cannot be started from $PATH");
        h->pidfd = pidfd_open(h->pid, 0);
        if (h->pidfd < 0)
                return failed_errno(h, errno, "pidfd_open");
        return 0;
}

/* Reads once. Returns 1 when there may be more, 0 at the end and when there is nothing now, -EFBIG when CUT is not
 * allowed and there is more than fits. */
static int capture_read(struct capture *c, bool cut)
{
        char overflow[4096];
        bool full = c->len == c->max;
        ssize_t n;

        if (c->fd < 0)
                return 0;
        n = full ? read(c->fd, overflow, sizeof(overflow)) : read(c->fd, c->data + c->len, c->max - c->len);
        if (n < 0)
                return errno == EINTR ? 1 : errno == EAGAIN ? 0 : -errno;
        if (n == 0) {
                close(steal_fd(&c->fd));
                return 0;
        }
        if (!full) {
                c->len += (size_t) n;
                c->data[c->len] = '\0';
                return 1;
        }
        explicit_bzero(overflow, sizeof(overflow));
        return cut ? 1 : -EFBIG;
}

/* Reads what the helper writes until it has exited. The end of its output is no sign of that, and what it started may
 * hold the pipes open for ever: the process itself is waited for. */
static int collect(struct helper *h)
{
        int r;

        for (;;) {
                struct pollfd fds[] = {
                        { .fd = h->out.fd, .events = POLLIN },
                        { .fd = h->err.fd, .events = POLLIN },
                        { .fd = h->pidfd, .events = POLLIN },
                        { .fd = h->requester }, /* POLLERR */
                };
                uint64_t left = deadline_left(h->deadline);

                if (left == 0)
                        return -ETIMEDOUT;
                if (poll(fds, ELEMENTSOF(fds), (int) MIN(left, (uint64_t) INT_MAX)) < 0 && errno != EINTR)
                        return -errno;

                /* Standard error is only there to be quoted: its surplus is read and forgotten. */
                r = capture_read(&h->err, true);
                if (r < 0)
                        return r;
                do
                        r = capture_read(&h->out, false);
                while (r > 0);
                if (r < 0)
                        return r;
                if (fds[2].revents != 0)
                        return 0;
                if (fds[3].revents != 0)
                        return -ECANCELED;
        }
}

static int run(struct helper *h)
{
        int r;

        r = start(h);
        if (r < 0)
                return r;

        r = collect(h);
        if (r == -ETIMEDOUT)
                return failed(h, ETIMEDOUT, "no answer within %.1f s", (double) h->limit_ms / 1000);
        if (r == -EFBIG)
                return failed(h, EFBIG, "it wrote more than %zu bytes", CREDENTIAL_HELPER_OUTPUT_MAX);
        if (r < 0)
                return failed_errno(h, -r, "cannot read its output");

        while ((r = waitpid(h->pid, &h->status, 0)) < 0 && errno == EINTR)
                ;
        h->pid = 0;
        return r < 0 ? failed_errno(h, errno, "waitpid") : 0;
}

/* The first line of TEXT that is not blank; *ret_length is 0 when there is none. */
static const char *first_line(const char *text, size_t *ret_length)
{
        text += strspn(text, " \t\r\n");
        *ret_length = strcspn(text, "\r\n");
        return text;
}

/* An error with the first line of what the helper wrote. By the protocol the standard output of one that failed is a
 * message; what looks like the answer of one that did not may hold a secret. */
static int failed_with_output(const struct helper *h, const char *how)
{
        char quoted[QUOTE_SIZE];
        size_t n, err_n;
        const char *line = first_line(h->out.data, &n), *err_line = first_line(h->err.data, &err_n);

        if (n == 0 || line[0] == '{' || h->status == 0) {
                line = err_line;
                n = err_n;
        }
        if (n == 0)
                return failed(h, EACCES, "%s", how);
        return failed(h, EACCES, "%s: \"%s\"", how, auth_quote(line, n, quoted));
}

static int check_status(const struct helper *h)
{
        char how[40];

        if (h->status == 0)
                return 0;
        if (WIFEXITED(h->status))
                snprintf(how, sizeof(how), "it failed with status %d", WEXITSTATUS(h->status));
        else
                snprintf(how, sizeof(how), "it was ended by signal %d", WTERMSIG(h->status));
        return failed_with_output(h, how);
}

static bool says_not_found(const struct helper *h)
{
        size_t n;
        const char *line = first_line(h->out.data, &n);

        return n >= strlen(NOT_FOUND_MESSAGE) && strncmp(line, NOT_FOUND_MESSAGE, strlen(NOT_FOUND_MESSAGE)) == 0;
}

int credential_answer_parse(const char *text, size_t n, struct credential *ret, const char **ret_why)
{
        _cleanup_(secret_json_free_ptr) struct json *root = NULL;
        _cleanup_credential_ struct credential c = {};
        const char *user, *secret;
        int r;

        r = json_parse(text, n, &root, NULL);
        if (r == -ENOMEM)
                return r;
        user = json_member_text(root, "Username");
        secret = json_member_text(root, "Secret");
        if (r < 0 || !user || !secret) {
                *ret_why = "its output is no JSON object with the strings Username and Secret";
                return -EBADMSG;
        }
        if (user[0] == '\0' && secret[0] != '\0') {
                *ret_why = "it gave a secret without a user";
                return -EBADMSG;
        }

        if (str_eq(user, "<token>")) {
                c.identity_token = strdup(secret);
        } else if (user[0] != '\0') {
                c.user = strdup(user);
                c.secret = strdup(secret);
        }
        if (user[0] != '\0' && !c.identity_token && (!c.user || !c.secret))
                return -ENOMEM;

        *ret = c;
        c = (struct credential) {};
        return 0;
}

/* The name comes from a file: it may choose among the programs in $PATH, not beyond. */
static int name_program(struct helper *h, const char *name)
{
        if (name[0] == '\0' || strchr(name, '/'))
                return error_set(h->e, ERROR_DENIED, EACCES, "\"%s\" is no name of a credential helper", name);
        h->program = str_printf("docker-credential-%s", name);
        return h->program ? 0 : error_oom(h->e);
}

static void capture_move(struct capture *c, struct buf *ret)
{
        *ret = (struct buf) { .data = steal_ptr(c->data), .len = c->len, .allocated = c->max + 1 };
}

static void capture_take(struct capture *c, struct buf *b)
{
        c->len = b->len;
        c->max = b->allocated - 1;
        c->data = steal_ptr(b->data);
        *b = (struct buf) { 0 };
}

#define HELPER_INIT(for_server, limit, error)                                                                          \
        {                                                                                                              \
                .server = (for_server), .e = (error), .limit_ms = (limit), .pidfd = -1, .requester = -1, .out.fd = -1, \
                .err.fd = -1,                                                                                          \
        }

int credential_process_run(const char *name, const char *server, uint64_t limit_ms, int requester,
                           struct helper_output *ret, struct error *e)
{
        _cleanup_(helper_clear) struct helper h = HELPER_INIT(server, limit_ms, e);
        int r;

        h.requester = requester;
        r = name_program(&h, name);
        if (r == 0)
                r = run(&h);
        if (r < 0)
                return r;
        ret->status = h.status;
        capture_move(&h.out, &ret->out);
        capture_move(&h.err, &ret->err);
        return 0;
}

static int run_by_broker(struct helper *h, struct broker *b, const char *name)
{
        struct helper_output o = { 0 };
        int r = broker_run_helper(b, name, h->server, h->limit_ms, &o, h->e);

        if (r < 0)
                return r;
        h->status = o.status;
        capture_take(&h->out, &o.out);
        capture_take(&h->err, &o.err);
        return 0;
}

int credential_process_get(const char *name, const char *server, uint64_t limit_ms, struct credential *ret,
                           struct error *e)
{
        _cleanup_(helper_clear) struct helper h = HELPER_INIT(server, limit_ms, e);
        struct broker *broker = credential_broker();
        const char *why = NULL;
        int r;

        r = name_program(&h, name);
        if (r == 0)
                r = broker ? run_by_broker(&h, broker, name) : run(&h);
        if (r < 0)
                return r;
        if (says_not_found(&h)) {
                *ret = (struct credential) {};
                return 0;
        }
        r = check_status(&h);
        if (r < 0)
                return r;
        r = credential_answer_parse(h.out.data, h.out.len, ret, &why);
        if (r == -EBADMSG)
                return failed_with_output(&h, why);
        return r < 0 ? error_oom(e) : 0;
}
