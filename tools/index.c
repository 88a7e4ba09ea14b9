/* SPDX-License-Identifier: Apache-2.0 */

#include <stdio.h>

#include "command.h"
#include "layers.h"
#include "stop.h"

static const char help[] =
        "Usage: regfs index [OPTIONS] REF\n"
        "\n"
        "Indexes the layers of the container image REF that carry no table of contents of their own: reads each of them whole,\n"
        "once, and keeps its table in the store. Prints what that costs. Published, the index spares everybody else the\n"
        "reading: regfs mount finds it by itself.\n"
        "\n"
        "      --push                        publish the index beside the image, as its referrer\n"
        "      --bind NEWREF                 with --push: also push the image's manifest under NEWREF with an annotation that\n"
        "                                    names the index, so that NEWREF's digest vouches for both\n"
        "  -o, --output DIR                  write the index as an OCI image layout\n"
        "      --json                        an object\n"
        "      --index=none                  index layers that carry a table, too\n";

static int on_progress(void *context, const struct regfs_progress *progress)
{
        (void) context;
        progress_show(progress);
        return stop_requested();
}

static void print_rows(const struct image *i)
{
        char text[DIGEST_STRING_MAX], size[16], toc[16];

        print_image(i);
        printf("\n%-71s  %8s  %-12s  %8s  %7s  %8s  %9s\n", "LAYER", "SIZE", "TABLE", "ENTRIES", "CHUNKS", "TOC",
               "TIME");
        for (size_t k = 0; k < image_layer_count(i); k++) {
                struct image_layer_info l;
                char time[24] = "known";

                image_layer_info(i, k, &l);
                if (l.index_ms > 0)
                        snprintf(time, sizeof(time), "%.2f s", (double) l.index_ms / 1000.0);
                printf("%-71s  %8s  %-12s  %8u  %7zu  %8s  %9s\n", digest_format(&l.digest, text),
                       format_bytes(l.size, size, sizeof(size)), layer_table_name(l.kind), l.entries, l.chunks,
                       format_bytes(l.toc_size, toc, sizeof(toc)), time);
        }
}

static void print_published(const struct command_options *o, const struct publish_result *p)
{
        char text[DIGEST_STRING_MAX], size[16];

        if (p->layers == 0) {
                puts("\nNothing to publish: every layer carries a table of contents.");
                return;
        }
        printf("\nindex      %s, %zu layers, %s%s%s\n", digest_format(&p->index, text), p->layers,
               format_bytes(p->bytes, size, sizeof(size)), o->output ? ", in " : ", pushed",
               o->output ? o->output : "");
        if (o->bind)
                printf("bound by   %s, %s\n", digest_format(&p->bound, text), o->bind);
}

static int print_json(const struct image *i, const struct command_options *o, const struct publish_result *p)
{
        char text[DIGEST_STRING_MAX];
        struct json_text j = { 0 };

        json_text_open(&j, NULL, '{');
        put_image_names(&j, i);
        json_text_open(&j, "layers", '[');
        for (size_t k = 0; k < image_layer_count(i); k++) {
                struct image_layer_info l;

                image_layer_info(i, k, &l);
                json_text_open(&j, NULL, '{');
                json_text_string(&j, "digest", digest_format(&l.digest, text));
                json_text_number(&j, "size", l.size);
                json_text_string(&j, "kind", l.kind);
                json_text_number(&j, "entries", l.entries);
                json_text_number(&j, "chunks", l.chunks);
                json_text_number(&j, "toc", l.toc_size);
                json_text_number(&j, "milliseconds", l.index_ms);
                json_text_close(&j, '}');
        }
        json_text_close(&j, ']');
        if (p->layers > 0) {
                json_text_open(&j, "index", '{');
                json_text_string(&j, "digest", digest_format(&p->index, text));
                json_text_number(&j, "layers", p->layers);
                json_text_number(&j, "size", p->bytes);
                json_text_close(&j, '}');
        }
        if (p->layers > 0 && o->bind)
                json_text_string(&j, "bound", digest_format(&p->bound, text));
        json_text_close(&j, '}');
        return json_text_print(&j);
}

static int check(const struct command_options *o, int operands, struct error *e)
{
        if (operands != 1)
                return error_set(e, ERROR_USAGE, EINVAL, "index takes one reference (regfs index REF)");
        if (o->push && o->output)
                return error_set(e, ERROR_USAGE, EINVAL, "--push and --output: one of them");
        if (o->bind && !o->push)
                return error_set(e, ERROR_USAGE, EINVAL, "--bind needs --push");
        if (o->image.index && !str_eq(o->image.index, "none"))
                return error_set(e, ERROR_USAGE, EINVAL,
                                 "--index=%s: regfs index makes an index; only none is known here", o->image.index);
        return 0;
}

static int run(struct command_options *o, const char *reference, struct error *e)
{
        _cleanup_(image_close_ptr) struct image *image = NULL;
        struct publish_options publish = { .output = o->output, .bind = o->bind };
        struct publish_result result = { 0 };
        int r;

        o->image.progress = on_progress;
        r = image_open_for_index(reference, &o->image, &image, e);
        progress_end();
        if (r == 0 && (o->push || o->output))
                r = image_publish(image, &publish, &result, e);
        if (r < 0)
                return r;
        if (o->json)
                return command_printed(print_json(image, o, &result), e);
        print_rows(image);
        if (o->push || o->output)
                print_published(o, &result);
        return command_printed(0, e);
}

int command_index(int argc, char **argv)
{
        _cleanup_(command_options_clear) struct command_options options;
        struct error e = ERROR_INIT;
        int first, r;

        command_options_init(&options, COMMAND_INDEX);
        r = command_options_parse(&options, argc, argv, help, &first, &e);
        if (r > 0)
                return 0;
        if (r == 0)
                r = check(&options, argc - first, &e);
        if (r == 0)
                r = log_open(options.log_level, options.log_file, &e);
        if (r < 0)
                return command_failed(&e);
        stop_on_signals(STOP_ASKS_ONCE);
        r = run(&options, argv[first], &e);
        return r < 0 ? command_failed(&e) : 0;
}
