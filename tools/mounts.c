/* SPDX-License-Identifier: Apache-2.0 */

#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "command.h"
#include "layers.h"
#include "regfs/mount.h"

/* With daemons that do not answer. */
#define PATIENCE_MS 1000

static const char help[] =
        "Usage: regfs mounts [--json]\n"
        "\n"
        "Lists the images that are mounted here, as the kernel's mount table tells: directory, reference, platform,\n"
        "process and manifest digest; and how far a --prefetch is, as the process itself tells.\n"
        "\n"
        "      --json  an array of objects\n"
        "      --help  this text\n";

static void print_json_member(const char *name, const char *value)
{
        printf("\"%s\": ", name);
        print_json_string(value);
}

static void print_json(const struct mount_table *t)
{
        putchar('[');
        for (size_t k = 0; k < t->count; k++) {
                const struct mount_entry *m = &t->items[k];

                printf("%s\n  { ", k ? "," : "");
                print_json_member("directory", m->directory);
                fputs(", ", stdout);
                print_json_member("reference", m->reference);
                fputs(", ", stdout);
                print_json_member("digest", m->digest);
                fputs(", ", stdout);
                print_json_member("platform", m->platform);
                printf(", \"pid\": %ld, \"prefetch\": ", m->pid);
                if (m->answers && m->status.prefetch_total > 0)
                        printf("{ \"done\": %ju, \"total\": %ju } }", (uintmax_t) m->status.prefetch_done,
                               (uintmax_t) m->status.prefetch_total);
                else
                        fputs("null }", stdout);
        }
        puts(t->count ? "\n]" : "]");
}

/* Names with control characters must not move the cursor. */
static void print_column(const char *s, size_t width)
{
        size_t n = 0;

        for (; *s; s++, n++)
                putchar((unsigned char) *s < 0x20 || *s == 0x7f ? '?' : *s);
        for (; n < width; n++)
                putchar(' ');
        fputs("  ", stdout);
}

static const char *prefetch_text(const struct mount_entry *m, char out[40])
{
        char done[16], total[16];

        if (!m->answers || m->status.prefetch_total == 0)
                return "-";
        snprintf(out, 40, "%s / %s", format_bytes(m->status.prefetch_done, done, sizeof(done)),
                 format_bytes(m->status.prefetch_total, total, sizeof(total)));
        return out;
}

static void print_table(const struct mount_table *t)
{
        size_t directory = strlen("DIRECTORY"), reference = strlen("REFERENCE"), platform = strlen("PLATFORM");
        size_t prefetch = strlen("PREFETCH");
        char text[40];

        if (t->count == 0)
                return;
        for (size_t k = 0; k < t->count; k++) {
                directory = MAX(directory, strlen(t->items[k].directory));
                reference = MAX(reference, strlen(t->items[k].reference));
                platform = MAX(platform, strlen(t->items[k].platform));
                prefetch = MAX(prefetch, strlen(prefetch_text(&t->items[k], text)));
        }
        print_column("DIRECTORY", directory);
        print_column("REFERENCE", reference);
        print_column("PLATFORM", platform);
        fputs("    PID  ", stdout);
        print_column("PREFETCH", prefetch);
        puts("DIGEST");
        for (size_t k = 0; k < t->count; k++) {
                const struct mount_entry *m = &t->items[k];

                print_column(m->directory, directory);
                print_column(m->reference, reference);
                print_column(m->platform, platform);
                printf("%7ld  ", m->pid);
                print_column(prefetch_text(m, text), prefetch);
                puts(m->digest);
        }
}

int command_mounts(int argc, char **argv)
{
        static const struct option options[] = {
                { "json", no_argument, NULL, 'j' },
                { "help", no_argument, NULL, 'h' },
                { NULL, 0, NULL, 0 },
        };
        struct mount_table table = { 0 };
        struct error e = ERROR_INIT;
        bool json = false;
        int option;

        opterr = 0;
        while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
                switch (option) {
                case 'j':
                        json = true;
                        break;
                case 'h':
                        fputs(help, stdout);
                        return 0;
                default:
                        error_set(&e, ERROR_USAGE, EINVAL, "%s: unknown option (regfs mounts --help)",
                                  argv[optind - 1]);
                        return command_failed(&e);
                }
        }
        if (optind < argc) {
                error_set(&e, ERROR_USAGE, EINVAL, "%s: mounts takes no operand", argv[optind]);
                return command_failed(&e);
        }
        if (mount_table_read(&table, &e) < 0)
                return command_failed(&e);
        mount_table_ask(&table, PATIENCE_MS);
        if (json)
                print_json(&table);
        else
                print_table(&table);
        mount_table_clear(&table);
        return 0;
}
