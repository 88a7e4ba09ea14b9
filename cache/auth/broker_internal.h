/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What passes between the broker and those who ask it: a request is one datagram with the write end of a pipe, the
 * answer comes through the pipe and ends with it. Both ends are one program: structs travel as they lie in memory. */

#include <limits.h>

#include "regfs/broker.h"

enum broker_request_kind {
        BROKER_HELPER,
        BROKER_FILE,
        BROKER_UNMOUNT,
};

struct broker_request {
        enum broker_request_kind kind;
        uint64_t limit_ms;
        char name[256];         /* of a helper */
        char subject[PATH_MAX]; /* the server, or the file */
};

/* Followed by its bytes: what a helper wrote to its standard output and error; or a file, and nothing. */
struct broker_answer {
        int result; /* 0 or -errno with the error */
        struct error error;
        int status;
        uint32_t first, second;
};

/* The files that may be read. */
struct broker_files {
        struct {
                char *name; /* as the requester calls it */
                char *path; /* absolute */
        } items[CREDENTIAL_FILES_MAX];
        size_t count;
};

/* The broker's life, in a process with one thread. Ends when nobody holds the other end of SOCKET any more. */
void broker_serve(int socket, const struct broker_files *files, const struct broker_options *options);
