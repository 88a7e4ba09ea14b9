/* SPDX-License-Identifier: Apache-2.0 */

/* What a mount's daemon tells of itself. Asking it is opening the mount's root and an ioctl, and a daemon that hangs lets
 * both hang, in a way that no signal handler ends: so a child of ours asks, and is left alone when it takes too long.
 * Meanwhile the mount is busy, so only one that has something to tell is asked: its process has a thread for that. */

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>

#include "regfs/io.h"
#include "regfs/mount.h"
#include "regfs/thread.h"

struct question {
        pid_t child;
        int answer; /* a pipe's end; -1: nobody is asked */
};

/* In the child: no answer is one, too. */
static void ask(const char *directory, int out)
{
        int fd = open(directory, O_RDONLY | O_DIRECTORY | O_NONBLOCK | O_CLOEXEC);
        struct mount_status status;

        if (fd >= 0 && ioctl(fd, MOUNT_GET_STATUS, &status) == 0)
                (void) write_full(out, &status, sizeof(status));
        _exit(0);
}

static struct question begin(const char *directory)
{
        struct question q = { .answer = -1 };
        int ends[2];

        if (pipe2(ends, O_CLOEXEC) < 0)
                return q;
        fflush(NULL);
        q.child = fork();
        if (q.child == 0)
                ask(directory, ends[1]);
        close(ends[1]);
        if (q.child > 0)
                q.answer = ends[0];
        else
                close(ends[0]);
        return q;
}

static bool end(struct question *q, deadline_t deadline, struct mount_status *ret)
{
        struct pollfd p = { .fd = q->answer, .events = POLLIN };
        struct mount_status status;
        bool known = false;

        if (q->answer < 0)
                return false;
        /* The answer is smaller than PIPE_BUF: it is there whole or not at all. */
        if (poll(&p, 1, (int) MIN(deadline_left(deadline), (uint64_t) INT32_MAX)) == 1)
                known = read(q->answer, &status, sizeof(status)) == (ssize_t) sizeof(status);
        close(q->answer);
        if (!known)
                kill(q->child, SIGKILL);
        /* One that the kernel doesn't let go is not waited for. */
        (void) waitpid(q->child, NULL, known ? 0 : WNOHANG);
        if (known)
                *ret = status;
        return known;
}

static bool has_name(int directory, const char *thread, const char *name)
{
        char path[300], comm[32] = "";
        _cleanup_close_ int fd = -1;
        ssize_t n;

        snprintf(path, sizeof(path), "%s/comm", thread);
        fd = openat(directory, path, O_RDONLY | O_CLOEXEC);
        n = fd < 0 ? -1 : read(fd, comm, sizeof(comm) - 1);
        return n > 0 && strcspn(comm, "\n") == strlen(name) && str_after(comm, name);
}

/* Without a word to the process itself. */
static bool has_thread(long pid, const char *name)
{
        bool found = false;
        struct dirent *e;
        char path[64];
        DIR *d;

        snprintf(path, sizeof(path), "/proc/%ld/task", pid);
        d = pid > 0 ? opendir(path) : NULL;
        if (!d)
                return false;
        while (!found && (e = readdir(d)))
                found = e->d_name[0] != '.' && has_name(dirfd(d), e->d_name, name);
        closedir(d);
        return found;
}

/* Mounts lie upon mounts: the path leads to the last one. */
static bool is_hidden(const struct mount_table *t, size_t k)
{
        for (size_t later = k + 1; later < t->count; later++)
                if (strcmp(t->items[later].directory, t->items[k].directory) == 0)
                        return true;
        return false;
}

void mount_table_ask(struct mount_table *t, unsigned patience_ms)
{
        struct question *questions = calloc(t->count + 1, sizeof(*questions));
        deadline_t deadline = deadline_in(patience_ms);

        if (!questions)
                return;
        for (size_t k = 0; k < t->count; k++) {
                const struct mount_entry *m = &t->items[k];

                questions[k].answer = -1;
                if (!is_hidden(t, k) && has_thread(m->pid, PREFETCH_THREAD))
                        questions[k] = begin(m->directory);
        }
        for (size_t k = 0; k < t->count; k++) {
                struct mount_entry *m = &t->items[k];

                m->answers = end(&questions[k], deadline, &m->status) && m->status.pid == m->pid;
        }
        free(questions);
}
