/* SPDX-License-Identifier: Apache-2.0 */

#include <stdio.h>

#include "command.h"
#include "regfs/prefetch.h"
#include "stop.h"

static const char help[] =
        "Usage: regfs pull [OPTIONS] REF…\n"
        "\n"
        "Fetches all that mounts of the container images REF need into the store, and mounts nothing: manifests, tables of\n"
        "contents, and the content of all files. What is there is not fetched again, so a pull that was interrupted goes on\n"
        "where it was; but for a layer that is being indexed, which is read whole. Afterwards regfs mount --offline works.\n"
        "\n"
        "      --paths LIST-FILE             content of these files and directories alone, one path on a line\n";

static int on_open_progress(void *context _unused_, const struct regfs_progress *progress)
{
        progress_show(progress);
        return stop_requested();
}

static int on_progress(void *context _unused_, const struct prefetch_status *status)
{
        progress_show_part("fetching", status->done, status->total);
        return stop_requested();
}

static int fetch(struct command_options *o, const char *reference, struct image **ret, struct prefetch_status *status,
                 struct error *e)
{
        _cleanup_(image_close_ptr) struct image *image = NULL;
        _cleanup_(prefetch_free_ptr) struct prefetch *prefetch = NULL;
        int r;

        r = image_open_to_keep(reference, &o->image, &image, e);
        progress_end();
        if (r == 0)
                r = prefetch_new(image, o->prefetch ? o->prefetch : "all", &prefetch, e);
        if (r == 0)
                r = prefetch_run(prefetch, on_progress, NULL, e);
        progress_end();
        if (r < 0)
                return r;
        prefetch_get_status(prefetch, status);
        *ret = steal_ptr(image);
        return 0;
}

static int pull(struct command_options *o, const char *reference, struct error *e)
{
        _cleanup_(image_close_ptr) struct image *image = NULL;
        struct prefetch_status status = { 0 };
        char done[16], total[16];
        int r;

        r = fetch(o, reference, &image, &status, e);
        if (stop_requested())
                return error_set(e, ERROR_OTHER, EINTR,
                                 "%s: interrupted: what the store has by now is not fetched again", reference);
        if (r < 0)
                return r;
        if (status.done < status.total)
                return error_set(e, ERROR_OTHER, ENOSPC, "%s: only %s of %s stay in the store", reference,
                                 format_bytes(status.done, done, sizeof(done)),
                                 format_bytes(status.total, total, sizeof(total)));
        printf("%s: %s, %s, %zu layers, %s\n", image_reference(image), image_digest(image), image_platform(image),
               image_layer_count(image), format_bytes(status.total, total, sizeof(total)));
        return 0;
}

/* The others are pulled where one fails; the exit code is that of the first one. */
static int pull_all(struct command_options *o, char **references, int count)
{
        int code = 0;

        for (int k = 0; k < count && !stop_requested(); k++) {
                struct error e = ERROR_INIT;

                if (pull(o, references[k], &e) < 0) {
                        int failed = command_failed(&e);

                        code = code ? code : failed;
                }
        }
        return code;
}

int command_pull(int argc, char **argv)
{
        _cleanup_(command_options_clear) struct command_options options;
        struct error e = ERROR_INIT;
        int first, r;

        command_options_init(&options, COMMAND_PULL);
        r = command_options_parse(&options, argc, argv, help, &first, &e);
        if (r > 0)
                return 0;
        if (r == 0 && argc == first)
                r = error_set(&e, ERROR_USAGE, EINVAL, "pull takes references (regfs pull REF…)");
        if (r == 0)
                r = log_open(options.log_level, options.log_file, &e);
        if (r < 0)
                return command_failed(&e);
        stop_on_signals(STOP_ASKS_ONCE);
        options.image.progress = on_open_progress;
        return pull_all(&options, argv + first, argc - first);
}
