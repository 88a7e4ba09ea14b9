/* SPDX-License-Identifier: Apache-2.0 */

#include <stdio.h>
#include <string.h>

#include "command.h"

static const struct {
        const char *name;
        int (*run)(int argc, char **argv);
        const char *arguments;
        const char *summary;
} commands[] = {
        { "mount", command_mount, "[OPTIONS] REF DIR", "mount an image, read-only" },
        { "umount", command_umount, "[-l] DIR…", "unmount images" },
        { "mounts", command_mounts, "[--json]", "list the images that are mounted" },
        { "inspect", command_inspect, "[OPTIONS] REF", "tell by which tables an image is read" },
        { "index", command_index, "[OPTIONS] REF", "index an image's layers, and publish that" },
        { "pull", command_pull, "[OPTIONS] REF…", "fetch images into the store" },
        { "verify", command_verify, "[OPTIONS] REF", "compare an image's tables with its layers" },
        { "cache", command_cache, "COMMAND [OPTIONS]", "look at the store, verify it, make room in it" },
};

#define USAGE_WIDTH 28

/* Bytes of UTF-8 that take no column. */
static int continuations(const char *s)
{
        int n = 0;

        for (; *s; s++)
                n += ((unsigned char) *s & 0xc0) == 0x80;
        return n;
}

static void print_help(FILE *f)
{
        fputs("regfs mounts container images straight from their registry, read-only and lazily.\n\nUsage:\n", f);
        for (size_t k = 0; k < ELEMENTSOF(commands); k++) {
                char usage[64];

                snprintf(usage, sizeof(usage), "%s %s", commands[k].name, commands[k].arguments);
                fprintf(f, "  regfs %-*s %s\n", USAGE_WIDTH + continuations(usage), usage, commands[k].summary);
        }
        fputs("  regfs REF DIR [-o OPTIONS]         the same as mount, for mount(8) and fstab(5)\n"
              "  regfs --version | --help\n"
              "\n"
              "REF is [docker://]NAME[:TAG][@DIGEST], oci:DIR[:TAG] or docker-archive:FILE[:REF].\n"
              "Each command explains itself with --help; regfs(1) tells the rest.\n",
              f);
}

int command_failed(const struct error *e)
{
        fprintf(stderr, "regfs: %s\n", e->message);
        return e->kind == ERROR_NONE ? ERROR_OTHER : (int) e->kind;
}

int command_printed(int r, struct error *e)
{
        if (r == 0 && fflush(stdout) != 0)
                r = -errno;
        return r < 0 ? error_errno(e, -r, "standard output") : 0;
}

/* "regfs REF DIR …" is how mount(8) calls its helpers: two operands, the first of which is no command. */
static bool is_mount_call(int argc, char **argv)
{
        return argc >= 3 && argv[1][0] != '-' && argv[2][0] != '-';
}

int main(int argc, char **argv)
{
        const char *name = argc > 1 ? argv[1] : NULL;
        struct error e = ERROR_INIT;

        if (!name) {
                print_help(stderr);
                return ERROR_USAGE;
        }
        if (str_eq(name, "--help") || str_eq(name, "-h") || str_eq(name, "help")) {
                print_help(stdout);
                return 0;
        }
        if (str_eq(name, "--version") || str_eq(name, "-V")) {
                printf("regfs %s\n", regfs_version());
                return 0;
        }
        for (size_t k = 0; k < ELEMENTSOF(commands); k++)
                if (str_eq(name, commands[k].name))
                        return commands[k].run(argc - 1, argv + 1);
        if (is_mount_call(argc, argv))
                return command_mount(argc, argv);

        error_set(&e, ERROR_USAGE, EINVAL, "%s: no such command (regfs --help lists them)", name);
        return command_failed(&e);
}
