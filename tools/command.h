/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The commands of regfs and the options that they share. */

#include <stdbool.h>

#include "regfs.h"
#include "regfs/error.h"
#include "regfs/log.h"
#include "regfs/text.h"

/* Each takes its own arguments, argv[0] being the command's name, and returns the exit code. */
int command_mount(int argc, char **argv);
int command_umount(int argc, char **argv);
int command_mounts(int argc, char **argv);
int command_index(int argc, char **argv);
int command_inspect(int argc, char **argv);
int command_verify(int argc, char **argv);
int command_pull(int argc, char **argv);
int command_cache(int argc, char **argv);

/* Commands that open an image. */
enum command {
        COMMAND_MOUNT = 1 << 0,
        COMMAND_INDEX = 1 << 1,
        COMMAND_INSPECT = 1 << 2,
        COMMAND_VERIFY = 1 << 3,
        COMMAND_PULL = 1 << 4,
        COMMANDS_ALL = COMMAND_MOUNT | COMMAND_INDEX | COMMAND_INSPECT | COMMAND_VERIFY | COMMAND_PULL,
};

/* What the options of a command that opens an image say. Strings are borrowed from argv, or held in `owned`. */
struct command_options {
        enum command command;
        struct regfs_options image;
        enum log_level log_level;
        const char *log_file;
        bool foreground;
        enum { SANDBOX_DEFAULT, SANDBOX_ON, SANDBOX_OFF } sandbox; /* mount */
        bool json;
        bool push;            /* index */
        const char *bind;     /* index */
        const char *output;   /* index */
        const char *prefetch; /* mount: "none", "all" or a file; pull: a file; or NULL */
        const char **stores;  /* image.stores */
        size_t store_count;
        size_t stores_allocated;
        struct buf fuse; /* the -o options that are libfuse's, with commas between */
        char **owned;
        size_t owned_count;
        size_t owned_allocated;
};

void command_options_init(struct command_options *o, enum command command);
void command_options_clear(struct command_options *o);

/* Parses the options of an image command. *RET_FIRST is the index of the first operand in argv (which getopt permutes).
 * Returns 0; 1 when --help or --version has been answered; -EINVAL with E (USAGE). */
int command_options_parse(struct command_options *o, int argc, char **argv, const char *help, int *ret_first,
                          struct error *e);

/* The text on options that the help of each image command ends with. */
extern const char command_options_help[];

/* "64M": a number with an optional K, M or G, powers of 1024; not 0. Returns 0 or -EINVAL. */
int command_parse_size(const char *s, size_t *ret);

/* "regfs: MESSAGE" on standard error; returns the exit code. */
int command_failed(const struct error *e);

/* Behind the last word on standard output: R, or what became of those still on their way. Returns 0, or -errno with
 * E. */
int command_printed(int r, struct error *e);

/* A progress bar on standard error when that is a terminal, redrawn in place. */
void progress_show(const struct regfs_progress *p);
/* The same of something that is DOING ("verifying") so much of a total. */
void progress_show_part(const char *doing, uint64_t done, uint64_t total);
/* Wipes the bar. */
void progress_end(void);
