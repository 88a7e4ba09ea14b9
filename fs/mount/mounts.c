/* SPDX-License-Identifier: Apache-2.0 */

/* The kernel's mount table is the only record of what is mounted: what is to be known of a mount stands in its
 * source. */

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "regfs/io.h"
#include "regfs/log.h"
#include "regfs/mount.h"
#include "regfs/text.h"

#define MOUNT_TABLE_MAX (64 * MIB)
#define DAEMON_END_MS 10000

extern char **environ;

char *mount_source_format(const char *reference, const char *digest, const char *platform, long pid)
{
        return str_printf("%s@%s#%s#%ld", reference, digest, platform, pid);
}

/* Cuts SOURCE apart from behind: references may hold any of these characters, the other parts don't. */
static int parse_source(char *source, struct mount_entry *m)
{
        char *pid = strrchr(source, '#'), *platform, *digest;
        uint64_t n;

        if (!pid)
                return -EINVAL;
        *pid++ = '\0';
        platform = strrchr(source, '#');
        if (!platform)
                return -EINVAL;
        *platform++ = '\0';
        digest = strrchr(source, '@');
        if (!digest)
                return -EINVAL;
        *digest++ = '\0';
        if (str_to_u64(pid, &n) == 0 && n <= INT_MAX)
                m->pid = (long) n;
        m->reference = strdup(source);
        m->digest = strdup(digest);
        m->platform = strdup(platform);
        return m->reference && m->digest && m->platform ? 0 : -ENOMEM;
}

static void mount_entry_clear(struct mount_entry *m)
{
        free(m->directory);
        free(m->reference);
        free(m->digest);
        free(m->platform);
        *m = (struct mount_entry) { 0 };
}

void mount_table_clear(struct mount_table *t)
{
        for (size_t k = 0; k < t->count; k++)
                mount_entry_clear(&t->items[k]);
        free(t->items);
        *t = (struct mount_table) { 0 };
}

/* The kernel writes space, tab, newline, backslash and # as three octal digits. In place. */
static void unescape(char *s)
{
        char *out = s;

        while (*s) {
                if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' && s[3] >= '0' &&
                    s[3] <= '7') {
                        *out++ = (char) ((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
                        s += 4;
                } else {
                        *out++ = *s++;
                }
        }
        *out = '\0';
}

/* One line of proc_pid_mountinfo(5): "ID PARENT DEV ROOT DIRECTORY OPTIONS [TAGS…] - TYPE SOURCE SUPEROPTIONS".
 * Returns 1 with *M filled for a mount of ours, 0 for another one. */
static int parse_line(char *line, struct mount_entry *m)
{
        char *behind = strstr(line, " - "), *save = NULL, *field = NULL, *type, *source;

        if (!behind)
                return 0;
        *behind = '\0';
        type = strtok_r(behind + 3, " ", &save);
        source = strtok_r(NULL, " ", &save);
        if (!type || !source || strcmp(type, "fuse.regfs") != 0)
                return 0;

        field = strtok_r(line, " ", &save);
        for (int k = 0; k < 4 && field; k++)
                field = strtok_r(NULL, " ", &save);
        if (!field)
                return 0;
        unescape(field);
        unescape(source);
        m->directory = strdup(field);
        if (!m->directory)
                return -ENOMEM;
        if (parse_source(source, m) == 0)
                return 1;

        /* Somebody gave the mount another name: it is ours all the same. */
        free(m->reference);
        free(m->digest);
        free(m->platform);
        m->reference = strdup(source);
        m->digest = strdup("");
        m->platform = strdup("");
        m->pid = 0;
        return m->reference && m->digest && m->platform ? 1 : -ENOMEM;
}

int mount_table_read(struct mount_table *ret, struct error *e)
{
        _cleanup_buf_ struct buf text = { 0 };
        struct mount_table t = { 0 };
        size_t allocated = 0;
        char *save = NULL;
        int r;

        r = file_read(AT_FDCWD, "/proc/self/mountinfo", MOUNT_TABLE_MAX, &text, e);
        if (r < 0)
                return r;
        for (char *line = strtok_r(text.data, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
                struct mount_entry m = { 0 };

                r = parse_line(line, &m);
                if (r == 1)
                        r = array_reserve(t.items, &allocated, t.count + 1);
                else if (r == 0)
                        continue;
                if (r < 0) {
                        mount_entry_clear(&m);
                        mount_table_clear(&t);
                        return error_oom(e);
                }
                t.items[t.count++] = m;
        }
        *ret = t;
        return 0;
}

/* ---- unmounting ---- */

/* The absolute name of a mountpoint. Where its daemon is dead, only its parent can be looked at. */
static int resolve_mountpoint(const char *directory, char **ret, struct error *e)
{
        _cleanup_free_ char *copy = strdup(directory), *parent = NULL;
        const char *name;
        char *slash;
        size_t n;

        if (!copy)
                return error_oom(e);
        *ret = realpath(directory, NULL);
        if (*ret || errno == ENOENT)
                return *ret ? 0 : error_set(e, ERROR_MOUNT, ENOENT, "%s: %s", directory, strerror(ENOENT));
        for (n = strlen(copy); n > 1 && copy[n - 1] == '/'; n--)
                copy[n - 1] = '\0';
        slash = strrchr(copy, '/');
        name = slash ? slash + 1 : copy;
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || *name == '\0') {
                *ret = realpath(copy, NULL);
                return *ret ? 0 : error_set(e, ERROR_MOUNT, errno, "%s: %s", directory, strerror(errno));
        }
        if (slash)
                *slash = '\0';
        parent = realpath(slash ? (slash == copy ? "/" : copy) : ".", NULL);
        if (!parent)
                return error_set(e, ERROR_MOUNT, errno, "%s: %s", directory, strerror(errno));
        *ret = str_printf("%s/%s", str_eq(parent, "/") ? "" : parent, name);
        return *ret ? 0 : error_oom(e);
}

/* As the owner of the mount who is not root: the set-uid program of libfuse does it. */
static int run_fusermount(const char *directory, bool lazy, struct error *e)
{
        const char *argv[] = { "fusermount3",           "-u", lazy ? "-z" : "--", lazy ? "--" : directory,
                               lazy ? directory : NULL, NULL };
        int status;
        pid_t pid;
        int r;

        r = posix_spawnp(&pid, argv[0], NULL, NULL, (char *const *) argv, environ);
        if (r != 0)
                return error_set(e, ERROR_MOUNT, r, "%s: cannot run fusermount3 (package fuse3): %s", directory,
                                 strerror(r));
        while (waitpid(pid, &status, 0) < 0)
                if (errno != EINTR)
                        return error_set(e, ERROR_MOUNT, errno, "%s: fusermount3: %s", directory, strerror(errno));
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
                return 0;
        return error_set(e, ERROR_MOUNT, EBUSY, "%s: fusermount3 could not unmount it", directory);
}

static int unmount(const char *directory, bool lazy, struct error *e)
{
        if (geteuid() != 0)
                return run_fusermount(directory, lazy, e);
        if (umount2(directory, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) == 0)
                return 0;
        return error_set(e, ERROR_MOUNT, errno, "%s: %s%s", directory, strerror(errno),
                         errno == EBUSY ? ": somebody works in it (--lazy detaches it all the same)" : "");
}

/* A descriptor that becomes readable when the process ends; -1 when it has, or when this can't be known. */
static int watch_process(long pid)
{
        return pid > 0 ? (int) syscall(SYS_pidfd_open, (pid_t) pid, 0) : -1;
}

int mount_remove(const char *directory, bool lazy, struct error *e)
{
        _cleanup_free_ char *absolute = NULL;
        struct mount_table table = { 0 };
        _cleanup_close_ int process = -1;
        bool found = false;
        int r;

        r = resolve_mountpoint(directory, &absolute, e);
        if (r < 0)
                return r;
        r = mount_table_read(&table, e);
        if (r < 0)
                return r;
        /* The last one of that name is the one on top. */
        for (size_t k = table.count; k-- > 0 && !found;) {
                if (!str_eq(table.items[k].directory, absolute))
                        continue;
                found = true;
                process = watch_process(table.items[k].pid);
        }
        mount_table_clear(&table);
        if (!found)
                return error_set(e, ERROR_MOUNT, EINVAL, "%s: no regfs mount there", absolute);

        r = unmount(absolute, lazy, e);
        if (r < 0)
                return r;
        if (process >= 0 && !lazy) {
                struct pollfd p = { .fd = process, .events = POLLIN };

                (void) poll(&p, 1, DAEMON_END_MS);
        }
        return 0;
}
