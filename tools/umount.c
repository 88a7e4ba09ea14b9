/* SPDX-License-Identifier: Apache-2.0 */

#include <getopt.h>
#include <stdio.h>

#include "command.h"
#include "regfs/mount.h"

static const char help[] =
        "Usage: regfs umount [-l] DIR…\n"
        "\n"
        "Unmounts the images mounted at DIR and waits until their daemons have ended. The mount that a dead daemon\n"
        "left behind is cleared too.\n"
        "\n"
        "  -l, --lazy  detach a mount that somebody still works in; it goes when they are done\n"
        "      --help  this text\n";

int command_umount(int argc, char **argv)
{
        static const struct option options[] = {
                { "lazy", no_argument, NULL, 'l' },
                { "help", no_argument, NULL, 'h' },
                { NULL, 0, NULL, 0 },
        };
        struct error e = ERROR_INIT;
        int option, code = 0;
        bool lazy = false;

        opterr = 0;
        while ((option = getopt_long(argc, argv, "lh", options, NULL)) != -1) {
                switch (option) {
                case 'l':
                        lazy = true;
                        break;
                case 'h':
                        fputs(help, stdout);
                        return 0;
                default:
                        error_set(&e, ERROR_USAGE, EINVAL, "%s: unknown option (regfs umount --help)",
                                  argv[optind - 1]);
                        return command_failed(&e);
                }
        }
        if (optind == argc) {
                error_set(&e, ERROR_USAGE, EINVAL, "umount: which directory? (regfs umount DIR)");
                return command_failed(&e);
        }
        /* One that fails does not keep the others mounted. */
        for (; optind < argc; optind++)
                if (mount_remove(argv[optind], lazy, &e) < 0)
                        code = command_failed(&e);
        return code;
}
