/* SPDX-License-Identifier: Apache-2.0 */

#include "regfs/mount.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "init_flags.h"
#include "ops.h"
#include "regfs/log.h"
#include "regfs/text.h"

#define FUSE_THREADS 8

struct session {
        struct ops_state state;
        struct fuse_session *fuse;
        char *directory;
        int (*unmount)(void *context, struct error *e);
        void *unmount_context;
        bool mounted;
        bool signals;
};

/* ---- what libfuse has to say ---- */

/* libfuse tells its errors to a log function only. The last one becomes part of our error. Written while a session
 * is set up, by the one thread there is, and ignored later. */
static char last_words[400];

static void _printf_(2, 0) take_words(enum fuse_log_level level, const char *format, va_list ap)
{
        char line[sizeof(last_words)];

        (void) vsnprintf(line, sizeof(line), format, ap);
        line[strcspn(line, "\n")] = '\0';
        if (level <= FUSE_LOG_ERR)
                memcpy(last_words, line, sizeof(line));
        log_debug("libfuse: %s", line);
}

static void _printf_(2, 0) log_words(enum fuse_log_level level, const char *format, va_list ap)
{
        char line[sizeof(last_words)];

        (void) vsnprintf(line, sizeof(line), format, ap);
        line[strcspn(line, "\n")] = '\0';
        if (level <= FUSE_LOG_ERR)
                log_error("libfuse: %s", line);
        else
                log_debug("libfuse: %s", line);
}

static int fuse_failed(struct error *e, const char *directory, const char *what)
{
        return error_set(e, ERROR_MOUNT, EIO, "%s: %s%s%s", directory, what, last_words[0] ? ": " : "", last_words);
}

/* ---- the mountpoint ---- */

static int check_fuse(struct error *e)
{
        _cleanup_close_ int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);

        if (fd >= 0)
                return 0;
        if (errno == ENOENT || errno == ENXIO || errno == ENODEV)
                return error_set(e, ERROR_MOUNT, errno,
                                 "/dev/fuse: %s: this kernel or container has no FUSE (modprobe fuse)",
                                 strerror(errno));
        return error_set(e, ERROR_MOUNT, errno, "/dev/fuse: %s", strerror(errno));
}

/* ECONNABORTED: it died while it was asked. */
static bool means_stale(int code)
{
        return code == ENOTCONN || code == ECONNABORTED;
}

static int refuse_stale(const char *directory, struct error *e)
{
        return error_set(e, ERROR_MOUNT, ENOTCONN,
                         "%s is stale: the mount of a process that has died is still there (regfs umount %s)",
                         directory, directory);
}

static int check_not_mounted(const char *absolute, struct error *e)
{
        struct mount_table table = { 0 };
        const char *reference = NULL;
        struct statvfs filesystem;
        struct stat own, parent;
        _cleanup_free_ char *up = str_printf("%s/..", absolute);
        int r;

        if (!up)
                return error_oom(e);
        r = mount_table_read(&table, e);
        if (r < 0)
                return r;
        for (size_t k = 0; k < table.count; k++)
                if (str_eq(table.items[k].directory, absolute))
                        reference = table.items[k].reference;
        /* The kernel may know the attributes of a root whose daemon is dead; statfs is always the daemon's to
         * answer. */
        if (reference && statvfs(absolute, &filesystem) < 0 && means_stale(errno))
                r = refuse_stale(absolute, e);
        else if (reference)
                r = error_set(e, ERROR_MOUNT, EBUSY, "%s is busy: %s is mounted there (regfs umount %s)", absolute,
                              reference, absolute);
        else if (stat(absolute, &own) == 0 && stat(up, &parent) == 0 && own.st_dev != parent.st_dev)
                r = error_set(e, ERROR_MOUNT, EBUSY, "%s is busy: another filesystem is mounted there", absolute);
        mount_table_clear(&table);
        return r;
}

int mountpoint_check(const char *directory, char **ret_absolute, struct error *e)
{
        _cleanup_free_ char *absolute = NULL;
        struct stat st;
        int r;

        if (stat(directory, &st) < 0) {
                if (means_stale(errno))
                        return refuse_stale(directory, e);
                return error_set(e, ERROR_MOUNT, errno, "mountpoint %s: %s", directory, strerror(errno));
        }
        if (!S_ISDIR(st.st_mode))
                return error_set(e, ERROR_MOUNT, ENOTDIR, "mountpoint %s: not a directory", directory);
        absolute = realpath(directory, NULL);
        if (!absolute)
                return error_set(e, ERROR_MOUNT, errno, "mountpoint %s: %s", directory, strerror(errno));
        r = check_not_mounted(absolute, e);
        if (r < 0)
                return r;
        r = check_fuse(e);
        if (r < 0)
                return r;
        *ret_absolute = steal_ptr(absolute);
        return 0;
}

/* ---- the session ---- */

/* libfuse unmounts unless the kernel says that the mount has gone, with a call or a program that this process may not
 * make. Then it is given a descriptor that looks the same: the end of a pipe that nobody reads. It takes the device's
 * place, which is closed by that, so that an unmounting that failed leaves no reader waiting. */
static void forget_mount(struct session *s)
{
        int ends[2];

        if (pipe2(ends, O_CLOEXEC) < 0)
                return;
        close(ends[0]);
        (void) dup3(ends[1], fuse_session_fd(s->fuse), O_CLOEXEC);
        close(ends[1]);
}

static bool is_gone(const struct session *s)
{
        struct pollfd device = { .fd = fuse_session_fd(s->fuse) };

        return poll(&device, 1, 0) == 1 && (device.revents & POLLERR);
}

static int unmount(struct session *s, struct error *e)
{
        int r = 0;

        if (s->unmount && !is_gone(s)) {
                r = s->unmount(s->unmount_context, e);
                if (r < 0)
                        error_prefix(e, "%s: cannot be unmounted (regfs umount %s does it)", s->directory,
                                     s->directory);
                forget_mount(s);
        }
        fuse_session_unmount(s->fuse);
        s->mounted = false;
        return r;
}

struct session *session_free(struct session *s)
{
        struct error e = ERROR_INIT;

        if (!s)
                return NULL;
        if (s->mounted && unmount(s, &e) < 0)
                log_error("%s", e.message);
        if (s->state.pending)
                ops_state_drain(&s->state);
        if (s->signals)
                fuse_remove_signal_handlers(s->fuse);
        if (s->fuse)
                fuse_session_destroy(s->fuse);
        if (s->state.pending)
                ops_state_clear(&s->state);
        free(s->directory);
        free(s);
        return NULL;
}

/* Backslash and comma mean something to libfuse's option parser. */
static int append_escaped(struct buf *b, const char *s)
{
        int r = 0;

        for (; *s && r == 0; s++) {
                if (*s == ',' || *s == '\\')
                        r = buf_append_char(b, '\\');
                if (r == 0)
                        r = buf_append_char(b, *s);
        }
        return r;
}

static int fuse_arguments(struct image *image, const struct session_options *o, struct fuse_args *args, struct error *e)
{
        _cleanup_free_ char *source = mount_source_format(image_reference(image), image_digest(image),
                                                          image_platform(image), (long) getpid());
        _cleanup_buf_ struct buf b = { 0 };

        if (!source || buf_append_str(&b, "ro,subtype=regfs,fsname=") < 0 || append_escaped(&b, source) < 0)
                return error_oom(e);
        if (o->fuse_options && *o->fuse_options && buf_printf(&b, ",%s", o->fuse_options) < 0)
                return error_oom(e);
        if (fuse_opt_add_arg(args, "regfs") < 0 || fuse_opt_add_arg(args, "-o") < 0 ||
            fuse_opt_add_arg(args, b.data) < 0)
                return error_oom(e);
        return 0;
}

int session_mount(struct image *image, const struct session_options *options, struct session **ret, struct error *e)
{
        struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
        _cleanup_(session_free_ptr) struct session *s = calloc(1, sizeof(*s));
        int r;

        if (!s)
                return error_oom(e);
        r = ops_state_init(&s->state, image);
        if (r < 0)
                return error_oom(e);
        s->state.prefetch = options->prefetch;
        s->unmount = options->unmount;
        s->unmount_context = options->unmount_context;
        s->directory = strdup(options->directory);
        if (!s->directory)
                return error_oom(e);
        r = fuse_arguments(image, options, &args, e);
        if (r < 0) {
                fuse_opt_free_args(&args);
                return r;
        }

        last_words[0] = '\0';
        fuse_set_log_func(take_words);
        s->fuse = fuse_session_new(&args, &fuse_operations, sizeof(fuse_operations), &s->state);
        fuse_opt_free_args(&args);
        if (!s->fuse)
                return fuse_failed(e, s->directory, "mount options refused");
        if (fuse_set_signal_handlers(s->fuse) < 0)
                return fuse_failed(e, s->directory, "cannot handle signals");
        s->signals = true;
        if (fuse_session_mount(s->fuse, s->directory) < 0)
                return fuse_failed(e, s->directory, "mounting failed");
        s->mounted = true;
        r = init_flags_install(s->fuse);
        if (r < 0)
                return error_set(e, ERROR_MOUNT, -r, "%s: FUSE session: %s", s->directory, strerror(-r));
        fuse_set_log_func(log_words);
        *ret = steal_ptr(s);
        return 0;
}

int session_run(struct session *s, struct error *e)
{
        struct fuse_loop_config *config = fuse_loop_cfg_create();
        int r;

        if (!config)
                return error_oom(e);
        fuse_loop_cfg_set_max_threads(config, FUSE_THREADS);
        fuse_loop_cfg_set_idle_threads(config, FUSE_THREADS);
        r = fuse_session_loop_mt(s->fuse, config);
        fuse_loop_cfg_destroy(config);

        image_log_stats(s->state.image);
        /* A positive value is the signal that ended the loop: that is how a session is meant to end. */
        if (r < 0) {
                (void) unmount(s, NULL);
                return error_set(e, ERROR_OTHER, -r, "%s: FUSE: %s", s->directory, strerror(-r));
        }
        r = unmount(s, e);
        if (r < 0) {
                log_error("%s", e->message);
                return r;
        }
        log_info("%s: unmounted", s->directory);
        return 0;
}
