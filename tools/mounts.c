/* SPDX-License-Identifier: Apache-2.0 */

#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "command.h"
#include "json_text.h"
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

static void put_prefetch(struct json_text *j, const struct mount_entry *m)
{
        if (!m->answers || m->status.prefetch_total == 0) {
                json_text_string(j, "prefetch", NULL);
                return;
        }
        json_text_open(j, "prefetch", '{');
        json_text_number(j, "done", m->status.prefetch_done);
        json_text_number(j, "total", m->status.prefetch_total);
        json_text_close(j, '}');
}

static int print_json(const struct mount_table *t)
{
        struct json_text j = { 0 };

        json_text_open(&j, NULL, '[');
        for (size_t k = 0; k < t->count; k++) {
                const struct mount_entry *m = &t->items[k];

                json_text_open(&j, NULL, '{');
                json_text_string(&j, "directory", m->directory);
                json_text_string(&j, "reference", m->reference);
                json_text_string(&j, "digest", m->digest);
                json_text_string(&j, "platform", m->platform);
                json_text_number(&j, "pid", (uint64_t) m->pid);
                put_prefetch(&j, m);
                json_text_close(&j, '}');
        }
        json_text_close(&j, ']');
        return json_text_print(&j);
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
        int option, r = 0;

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
                r = print_json(&table);
        else
                print_table(&table);
        mount_table_clear(&table);
        return command_printed(r, &e) < 0 ? command_failed(&e) : 0;
}
