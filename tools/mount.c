/* SPDX-License-Identifier: Apache-2.0 */

/* regfs mount: the parent forks before there is any thread, shows progress, and leaves when the child says that the
 * tree is there, or why it is not. The child opens the image, mounts it and stays. */

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "command.h"
#include "confined.h"
#include "regfs/io.h"
#include "regfs/mount.h"
#include "stop.h"

static const char help[] =
        "Usage: regfs mount [OPTIONS] REF DIR\n"
        "       regfs REF DIR [-o OPTION,…]\n"
        "\n"
        "Mounts the container image REF at DIR, read-only, and returns when the tree is there. A process in the background\n"
        "serves it until it is unmounted (regfs umount DIR, umount, fusermount3 -u).\n"
        "\n"
        "REF is [docker://]NAME[:TAG][@DIGEST], oci:DIR[:TAG] or docker-archive:FILE[:REF].\n"
        "\n"
        "Exit codes: 0 mounted, 2 usage, 3 not found, 4 access denied, 5 registry unreachable, 6 bad data, 7 cannot mount,\n"
        "1 anything else.\n"
        "\n"
        "  -f, --foreground                  stay in the foreground; SIGINT and SIGTERM unmount\n"
        "      --sandbox=on|off              confine the process in the background to the store, its configuration and the\n"
        "                                    network, as far as the kernel can (on, the default)\n"
        "  -o OPTION,…                       allow_other, default_permissions, auto_unmount, … of FUSE; any option below\n"
        "                                    as NAME=VALUE, so that fstab can say it\n"
        "      --prefetch=none|all|LIST-FILE\n"
        "                                    fetch content in the background: none (the default), all, or the files\n"
        "                                    and directories that LIST-FILE names, one path on a line\n"
        "      --offline                     ask no registry: what is not in the store is missing\n";

/* What the child tells the parent, one write each; smaller than PIPE_BUF, so that writes are whole. */
struct report {
        enum { REPORT_PROGRESS, REPORT_READY, REPORT_FAILED } kind;
        union {
                struct regfs_progress progress;
                struct error error;
        };
};

/* ---- child, or the one process of --foreground ---- */

struct server {
        struct command_options *options;
        const char *reference;
        const char *directory;
        int reports; /* to the parent, or -1 */
};

static int send_report(int fd, const struct report *report)
{
        return fd < 0 ? 0 : write_full(fd, report, sizeof(*report));
}

static int on_progress(void *context, const struct regfs_progress *progress)
{
        struct server *s = context;
        struct report report = { .kind = REPORT_PROGRESS, .progress = *progress };

        if (s->reports < 0)
                progress_show(progress);
        /* A parent that is gone wants no mount any more. */
        return stop_requested() || send_report(s->reports, &report) < 0;
}

/* Cuts the ties to the terminal once the parent may leave. */
static void go_to_background(void)
{
        _cleanup_close_ int null = open("/dev/null", O_RDWR | O_CLOEXEC);

        if (chdir("/") < 0)
                log_warning("chdir /: %s", strerror(errno));
        if (null < 0)
                return;
        dup2(null, STDIN_FILENO);
        dup2(null, STDOUT_FILENO);
        dup2(null, STDERR_FILENO);
}

static int tell_ready(struct server *s)
{
        struct report report = { .kind = REPORT_READY };
        int r;

        if (s->reports < 0) {
                progress_end();
                return 0;
        }
        r = send_report(s->reports, &report);
        close(s->reports);
        s->reports = -1;
        go_to_background();
        return r;
}

static int serve(struct server *s, struct error *e)
{
        struct session_options session_options = { .directory = s->directory, .fuse_options = s->options->fuse.data };
        _cleanup_(confinement_end_ptr) struct confinement *confinement = NULL;
        const char *what = s->options->prefetch;
        _cleanup_(image_close_ptr) struct image *image = NULL;
        _cleanup_(prefetch_free_ptr) struct prefetch *prefetch = NULL;
        _cleanup_(session_free_ptr) struct session *session = NULL;
        int r;

        r = log_open(s->options->log_level, s->options->log_file, e);
        if (r < 0)
                return r;
        stop_on_signals(STOP_ASKS);
        s->options->image.progress = on_progress;
        s->options->image.progress_context = s;
        r = confinement_begin(s->options, s->reference, s->directory, &confinement, e);
        if (r == 0)
                r = confinement_open(confinement, s->reference, &s->options->image, &image, e);
        if (r < 0)
                return r;
        if (stop_requested())
                return error_set(e, ERROR_OTHER, EINTR, "%s: interrupted", s->reference);

        if (what && !str_eq(what, "none"))
                r = prefetch_new(image, what, &prefetch, e);
        if (r < 0)
                return r;
        session_options.prefetch = prefetch;

        /* libfuse takes the signals over, but only where they have no handler. */
        stop_on_signals(STOP_ENDS);
        confinement_for_session(confinement, &session_options);
        r = session_mount(image, &session_options, &session, e);
        if (r == 0)
                r = confinement_enter(confinement, e);
        if (r < 0)
                return r;
        r = tell_ready(s);
        if (r < 0)
                return error_set(e, ERROR_OTHER, EPIPE, "%s: the process that asked for the mount is gone",
                                 s->directory);
        if (prefetch)
                r = prefetch_start(prefetch, e);
        return r < 0 ? r : session_run(session, e);
}

static int run_child(struct server *s)
{
        struct report report = { .kind = REPORT_FAILED };
        int r;

        /* Out of the terminal's process group: a Ctrl-C there is the parent's business. */
        setsid();
        signal(SIGPIPE, SIG_IGN);
        r = serve(s, &report.error);
        if (r < 0 && s->reports >= 0)
                (void) send_report(s->reports, &report);
        return r < 0 ? ERROR_OTHER : 0;
}

static int run_foreground(struct server *s)
{
        struct error e = ERROR_INIT;
        int r;

        signal(SIGPIPE, SIG_IGN);
        r = serve(s, &e);
        progress_end();
        return r < 0 ? command_failed(&e) : 0;
}

/* ---- parent ---- */

/* The child said nothing: how did it end? */
static int child_died(pid_t child, struct error *e)
{
        int status = 0;

        while (waitpid(child, &status, 0) < 0 && errno == EINTR)
                ;
        if (WIFSIGNALED(status))
                return error_set(e, ERROR_OTHER, EIO, "the mounting process was killed by signal %d (%s)",
                                 WTERMSIG(status), strsignal(WTERMSIG(status)));
        return error_set(e, ERROR_OTHER, EIO, "the mounting process ended without a word");
}

/* Follows the child's reports to the decisive one. A first signal is handed on; the child then says how it ended. */
static int wait_for_child(pid_t child, int reports, struct error *e)
{
        bool forwarded = false;
        struct report report;

        for (;;) {
                ssize_t n = read(reports, &report, sizeof(report));

                if (stop_requested() && !forwarded) {
                        kill(child, SIGTERM);
                        forwarded = true;
                }
                if (n < 0 && errno == EINTR)
                        continue;
                if (n != (ssize_t) sizeof(report)) {
                        progress_end();
                        return child_died(child, e);
                }
                if (report.kind == REPORT_PROGRESS) {
                        progress_show(&report.progress);
                        continue;
                }
                progress_end();
                if (report.kind == REPORT_READY)
                        return 0;
                while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
                        ;
                *e = report.error;
                return -EIO;
        }
}

static int run_background(struct server *s)
{
        struct error e = ERROR_INIT;
        int ends[2], r;
        pid_t child;

        if (pipe2(ends, O_CLOEXEC) < 0) {
                error_errno(&e, errno, "pipe");
                return command_failed(&e);
        }
        stop_on_signals(STOP_ASKS);
        child = fork();
        if (child < 0) {
                error_errno(&e, errno, "fork");
                return command_failed(&e);
        }
        if (child == 0) {
                close(ends[0]);
                s->reports = ends[1];
                exit(run_child(s));
        }
        close(ends[1]);
        r = wait_for_child(child, ends[0], &e);
        close(ends[0]);
        return r < 0 ? command_failed(&e) : 0;
}

int command_mount(int argc, char **argv)
{
        _cleanup_(command_options_clear) struct command_options options;
        struct server server = { .options = &options, .reports = -1 };
        _cleanup_free_ char *directory = NULL;
        struct error e = ERROR_INIT;
        int first, r;

        command_options_init(&options, COMMAND_MOUNT);
        r = command_options_parse(&options, argc, argv, help, &first, &e);
        if (r > 0)
                return 0;
        if (r < 0)
                return command_failed(&e);
        if (argc - first != 2) {
                error_set(&e, ERROR_USAGE, EINVAL, "mount takes a reference and a directory (regfs mount REF DIR)");
                return command_failed(&e);
        }
        if (mountpoint_check(argv[first + 1], &directory, &e) < 0)
                return command_failed(&e);
        server.reference = argv[first];
        server.directory = directory;
        return options.foreground ? run_foreground(&server) : run_background(&server);
}
