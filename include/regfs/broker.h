/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A small process that does for a confined one what that may no longer do itself: read the files with credentials,
 * run the credential helpers that those files name, unmount. It is forked off while there is one thread and takes
 * three requests, none of which can name a program, a file or a directory that was not settled when it was started.
 *
 * Each request is served by a process of its own, so that none waits for another; what that has in memory lives until
 * the helper that it runs has been reaped. A requester that gives up, or dies, is noticed by its pipe: the helper is
 * killed then. A broker that has died is an error of each request, and of nothing else. */

#include "regfs/credential.h"
#include "regfs/error.h"
#include "regfs/text.h"

struct broker;

struct broker_options {
        struct credential_options credentials; /* which files there are is settled by this and the environment */
        int (*unmount)(void *context, struct error *e); /* runs in a process of the broker's; or NULL */
        void *context;
};

/* Starts the broker; what is borrowed by OPTIONS has to live for the call only, CONTEXT excepted. The process must
 * have one thread, and must have opened what the broker is not to get: it keeps no descriptor, no terminal and no
 * working directory. Returns 0 or -errno with E. */
int broker_start(const struct broker_options *options, struct broker **ret, struct error *e);

/* Ends it and waits until it is gone. Nobody may be inside of another call. NULL is legal; returns NULL. */
struct broker *broker_stop(struct broker *b);
DEFINE_CLEANUP(struct broker *, broker_stop)

/* For tests: its process. */
int broker_pid(const struct broker *b);

/* What a credential helper left behind when it ended. */
struct helper_output {
        int status; /* of waitpid */
        struct buf out, err;
};

/* Overwrites the secrets. */
void helper_output_clear(struct helper_output *o);

/* Runs "docker-credential-NAME get" for SERVER. NAME must consist of A-Z a-z 0-9 . _ - and be a string in one of the
 * credential files. Returns 0, whatever the helper's status, or -errno with E: -ETIMEDOUT, -EFBIG past
 * CREDENTIAL_HELPER_OUTPUT_MAX … as credential_process_get has them; -EPIPE when the broker is gone. Thread-safe. */
int broker_run_helper(struct broker *b, const char *name, const char *server, uint64_t limit_ms,
                      struct helper_output *ret, struct error *e);

/* Appends one of the credential files, PATH as credential_find calls it, to *RET, which should have room for it. As
 * file_read otherwise. Thread-safe. */
int broker_read_file(struct broker *b, const char *path, struct buf *ret, struct error *e);

/* Has OPTIONS.unmount called. Thread-safe. */
int broker_unmount(struct broker *b, struct error *e);
