/* SPDX-License-Identifier: Apache-2.0 */

#include <stdio.h>

#include "command.h"
#include "json_text.h"
#include "regfs/verify.h"
#include "stop.h"

#define PROBLEMS_SHOWN 100 /* of each layer */

static const char help[] =
        "Usage: regfs verify [OPTIONS] REF\n"
        "\n"
        "Finds out whether the image REF is what its indexes say: reads every layer whole, checks its digest, and\n"
        "compares the tree that regfs shows, and every byte of its files, with what the layer's tar would unpack to.\n"
        "What differs is told on standard output, one line each, and then how much there was.\n"
        "\n"
        "REF is [docker://]NAME[:TAG][@DIGEST], oci:DIR[:TAG] or docker-archive:FILE[:REF].\n"
        "\n"
        "Exit codes: 0 nothing differs, 6 something does or is damaged, 2 usage, 3 not found, 4 access denied,\n"
        "5 registry unreachable, 1 anything else.\n"
        "\n"
        "      --json                        an object\n";

static int on_open_progress(void *context _unused_, const struct regfs_progress *progress)
{
        progress_show(progress);
        return stop_requested();
}

static int on_progress(void *context _unused_, uint64_t done, uint64_t total)
{
        progress_show_part("verifying", done, total);
        return stop_requested();
}

static int on_problem(void *context, const char *text)
{
        struct json_text *j = context;

        if (j) {
                json_text_string(j, NULL, text);
                return j->error;
        }
        progress_end();
        return puts(text) < 0;
}

/* With --json the problems go to PROBLEMS. */
static int verify(struct command_options *o, const char *reference, struct json_text *problems,
                  struct verify_result *ret, struct error *e)
{
        const struct verify_options options = {
                .report = on_problem,
                .report_context = o->json ? problems : NULL,
                .report_max = PROBLEMS_SHOWN,
                .progress = on_progress,
        };
        _cleanup_(image_close_ptr) struct image *image = NULL;
        int r;

        r = log_open(o->log_level, o->log_file, e);
        if (r < 0)
                return r;
        stop_on_signals(STOP_ASKS);
        o->image.progress = on_open_progress;
        r = image_open(reference, &o->image, &image, e);
        progress_end();
        if (r == 0)
                r = image_verify(image, &options, ret, e);
        progress_end();
        return r;
}

static void print_result(const struct verify_result *r)
{
        char bytes[16];

        printf("%zu layer%s, %ju entries, %ju chunks, %s: ", r->layers, r->layers == 1 ? "" : "s",
               (uintmax_t) r->entries, (uintmax_t) r->chunks, format_bytes(r->bytes, bytes, sizeof(bytes)));
        if (r->problems == 0)
                puts("no problems");
        else
                printf("%ju problem%s\n", (uintmax_t) r->problems, r->problems == 1 ? "" : "s");
}

static void put_result(struct json_text *j, const struct verify_result *r)
{
        json_text_number(j, "problemCount", r->problems);
        json_text_number(j, "layers", r->layers);
        json_text_number(j, "entries", r->entries);
        json_text_number(j, "chunks", r->chunks);
        json_text_number(j, "bytes", r->bytes);
}

int command_verify(int argc, char **argv)
{
        _cleanup_(command_options_clear) struct command_options options;
        struct verify_result result = { 0 };
        struct json_text j = { 0 };
        struct error e = ERROR_INIT;
        int first, r;

        command_options_init(&options, COMMAND_VERIFY);
        r = command_options_parse(&options, argc, argv, help, &first, &e);
        if (r > 0)
                return 0;
        if (r == 0 && argc - first != 1)
                r = error_set(&e, ERROR_USAGE, EINVAL, "verify takes one reference (regfs verify REF)");
        json_text_open(&j, NULL, '{');
        json_text_open(&j, "problems", '[');
        if (r == 0)
                r = verify(&options, argv[first], &j, &result, &e);
        if (r < 0) {
                buf_free(&j.text);
                return command_failed(&e);
        }
        json_text_close(&j, ']');
        put_result(&j, &result);
        json_text_close(&j, '}');
        if (options.json)
                r = json_text_print(&j);
        else
                print_result(&result);
        buf_free(&j.text);
        if (command_printed(r, &e) < 0)
                return command_failed(&e);
        return result.problems > 0 ? ERROR_BAD_DATA : 0;
}
