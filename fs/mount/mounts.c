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
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "regfs/io.h"
#include "regfs/log.h"
#include "regfs/mount.h"
#include "regfs/text.h"

#define BUSY_PAUSE_MS 50
#define BUSY_PAUSES 10
#define MOUNT_TABLE_MAX (64 * MIB)
#define DAEMON_END_MS 10000

extern char **environ;

char *mount_source_format(const char *reference, const char *digest, const char *platform, long pid)
{
        return str_printf("%s@%s#%s#%ld", reference, digest, platform, pid);
}

/* Cuts SOURCE apart from behind: references may hold any of these characters, the other parts don't. */
static int parse_source(const char *source, struct mount_entry *m)
{
        _cleanup_free_ char *copy = strdup(source);
        char *pid, *platform, *digest;
        uint64_t n;

        if (!copy)
                return -ENOMEM;
        pid = strrchr(copy, '#');
        if (!pid)
                return -EINVAL;
        *pid++ = '\0';
        platform = strrchr(copy, '#');
        if (!platform)
                return -EINVAL;
        *platform++ = '\0';
        digest = strrchr(copy, '@');
        if (!digest)
                return -EINVAL;
        *digest++ = '\0';
        if (str_to_u64(pid, &n) == 0 && n <= INT_MAX)
                m->pid = (long) n;
        m->reference = strdup(copy);
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

int mount_table_parse(char *text, struct mount_table *ret, struct error *e)
{
        struct mount_table t = { 0 };
        size_t allocated = 0;
        char *save = NULL;

        for (char *line = text ? strtok_r(text, "\n", &save) : NULL; line; line = strtok_r(NULL, "\n", &save)) {
                struct mount_entry m = { 0 };
                int r = parse_line(line, &m);

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

int mount_table_read(struct mount_table *ret, struct error *e)
{
        _cleanup_buf_ struct buf text = { 0 };
        int r = file_read(AT_FDCWD, "/proc/self/mountinfo", MOUNT_TABLE_MAX, &text, e);

        return r < 0 ? r : mount_table_parse(text.data, ret, e);
}

/* ---- unmounting ---- */

/* The absolute name of DIRECTORY without a look at what is mounted there: a dead daemon does not answer, nor does
 * one that hangs. NULL where the last component is no name, or the parent does not resolve. */
static char *absolute_name(const char *directory)
{
        _cleanup_free_ char *copy = strdup(directory), *parent = NULL;
        const char *name;
        char *slash;

        if (!copy)
                return NULL;
        for (size_t n = strlen(copy); n > 1 && copy[n - 1] == '/'; n--)
                copy[n - 1] = '\0';
        slash = strrchr(copy, '/');
        name = slash ? slash + 1 : copy;
        if (*name == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
                return NULL;
        if (slash)
                *slash = '\0';
        parent = realpath(!slash ? "." : slash == copy ? "/" : copy, NULL);
        return parent ? str_printf("%s/%s", str_eq(parent, "/") ? "" : parent, name) : NULL;
}

/* The last one of that name is the one on top. */
static const struct mount_entry *last_mount_at(const struct mount_table *t, const char *directory)
{
        for (size_t k = t->count; k-- > 0;)
                if (str_eq(t->items[k].directory, directory))
                        return &t->items[k];
        return NULL;
}

static int find_mount(const struct mount_table *t, const char *directory, const struct mount_entry **ret,
                      struct error *e)
{
        _cleanup_free_ char *name = absolute_name(directory), *real = NULL;

        *ret = name ? last_mount_at(t, name) : NULL;
        if (*ret)
                return 0;
        real = realpath(directory, NULL);
        if (!real)
                return error_set(e, ERROR_MOUNT, errno, "%s: %s", directory, strerror(errno));
        *ret = last_mount_at(t, real);
        return *ret ? 0 : error_set(e, ERROR_MOUNT, EINVAL, "%s: no regfs mount there", real);
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

static int unmount_now(const char *directory, bool lazy, struct error *e)
{
        if (geteuid() != 0)
                return run_fusermount(directory, lazy, e);
        if (umount2(directory, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) == 0)
                return 0;
        return error_set(e, ERROR_MOUNT, errno, "%s: %s%s", directory, strerror(errno),
                         errno == EBUSY ? ": somebody works in it (--lazy detaches it all the same)" : "");
}

/* Who looks at a mount only, as `regfs mounts` and desktops do, is through in a moment. */
static int unmount(const char *directory, bool lazy, struct error *e)
{
        const struct timespec pause = { .tv_nsec = BUSY_PAUSE_MS * 1000000L };
        int r = unmount_now(directory, lazy, e);

        /* fusermount3 speaks for itself, each time. */
        for (unsigned k = 0; r == -EBUSY && geteuid() == 0 && k < BUSY_PAUSES; k++) {
                nanosleep(&pause, NULL);
                r = unmount_now(directory, lazy, e);
        }
        return r;
}

/* A descriptor that becomes readable when the process ends; -1 when it has, or when this can't be known. */
static int watch_process(long pid)
{
        return pid > 0 ? (int) syscall(SYS_pidfd_open, (pid_t) pid, 0) : -1;
}

/* Its process has died, and the kernel knows. Whoever works there gets nothing but errors any more. */
static bool is_dead(const struct mount_entry *mount, int process)
{
        struct statvfs filesystem;

        return process < 0 && mount->pid > 0 && kill((pid_t) mount->pid, 0) < 0 && errno == ESRCH &&
               statvfs(mount->directory, &filesystem) < 0 && errno == ENOTCONN;
}

int mount_remove(const char *directory, bool lazy, struct error *e)
{
        _cleanup_(mount_table_clear) struct mount_table table = { 0 };
        const struct mount_entry *mount;
        _cleanup_close_ int process = -1;
        int r;

        r = mount_table_read(&table, e);
        if (r == 0)
                r = find_mount(&table, directory, &mount, e);
        if (r < 0)
                return r;
        process = watch_process(mount->pid);
        r = unmount(mount->directory, lazy || is_dead(mount, process), e);
        if (r < 0)
                return r;
        if (process >= 0 && !lazy) {
                struct pollfd p = { .fd = process, .events = POLLIN };

                (void) poll(&p, 1, DAEMON_END_MS);
        }
        return 0;
}
