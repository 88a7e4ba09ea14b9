/* SPDX-License-Identifier: Apache-2.0 */

#include <stdio.h>

#include "command.h"
#include "layers.h"

static const char help[] =
        "Usage: regfs inspect [OPTIONS] REF\n"
        "\n"
        "Tells of each layer of the container image REF what it is, and by which table of contents regfs would read it:\n"
        "one that the layer carries (eStargz, zstd:chunked), one that was published (by regfs index, or SOCI's), or one that\n"
        "regfs makes by reading the layer whole, once. Reads manifests only.\n"
        "\n"
        "      --json                        an object\n"
        "      --offline                     ask no registry: what is not in the store is missing\n";

static void print_table(const struct image *i)
{
        struct digest shown = { 0 };
        char text[DIGEST_STRING_MAX], size[16];

        print_image(i);
        printf("\n%-71s  %8s  %-4s  %-12s  %s\n", "LAYER", "SIZE", "TYPE", "TABLE", "FROM");
        for (size_t k = 0; k < image_layer_count(i); k++) {
                struct image_layer_info l;

                image_layer_info(i, k, &l);
                printf("%-71s  %8s  %-4s  %-12s  %s\n", digest_format(&l.digest, text),
                       format_bytes(l.size, size, sizeof(size)), layer_compression(l.media_type),
                       layer_table_name(l.kind), layer_origin_text(&l));
                if (l.index.algorithm != DIGEST_NONE)
                        shown = l.index;
        }
        if (shown.algorithm != DIGEST_NONE)
                printf("\nindex      %s\n", digest_format(&shown, text));
}

static int print_json(const struct image *i)
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
                json_text_string(&j, "mediaType", l.media_type);
                json_text_string(&j, "kind", l.kind);
                json_text_string(&j, "from", layer_origin_word(l.origin));
                json_text_bool(&j, "known", l.known);
                if (l.index.algorithm != DIGEST_NONE)
                        json_text_string(&j, "index", digest_format(&l.index, text));
                json_text_close(&j, '}');
        }
        json_text_close(&j, ']');
        json_text_close(&j, '}');
        return json_text_print(&j);
}

int command_inspect(int argc, char **argv)
{
        _cleanup_(command_options_clear) struct command_options options;
        _cleanup_(image_close_ptr) struct image *image = NULL;
        struct error e = ERROR_INIT;
        int first, r;

        command_options_init(&options, COMMAND_INSPECT);
        r = command_options_parse(&options, argc, argv, help, &first, &e);
        if (r > 0)
                return 0;
        if (r == 0 && argc - first != 1)
                r = error_set(&e, ERROR_USAGE, EINVAL, "inspect takes one reference (regfs inspect REF)");
        if (r == 0)
                r = log_open(options.log_level, options.log_file, &e);
        if (r == 0)
                r = image_inspect(argv[first], &options.image, &image, &e);
        if (r < 0)
                return command_failed(&e);
        if (options.json)
                r = print_json(image);
        else
                print_table(image);
        return command_printed(r, &e) < 0 ? command_failed(&e) : 0;
}
