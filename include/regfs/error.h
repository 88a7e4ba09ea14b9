/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* One error on its way to whoever can show it: a kind (the exit code), an errno value, and a message that names
 * the object and keeps the first cause. It holds no memory of its own: it may be copied, and dropped at any time. */

#include <errno.h>

#include "regfs/base.h"

/* The values are the exit codes of the commands. */
enum error_kind {
        ERROR_NONE = 0,
        ERROR_OTHER = 1,
        ERROR_USAGE = 2,
        ERROR_NOT_FOUND = 3,   /* image, tag, platform, path */
        ERROR_DENIED = 4,      /* credentials, permission */
        ERROR_UNREACHABLE = 5, /* no registry there, TLS not trusted, deadline passed */
        ERROR_BAD_DATA = 6,    /* digest mismatch, malformed */
        ERROR_MOUNT = 7,       /* no FUSE, mountpoint missing, busy or stale */
};

struct error {
        enum error_kind kind;
        int code; /* a positive errno value */
        char message[1000];
};

#define ERROR_INIT                 \
        {                          \
                .kind = ERROR_NONE \
        }

/* Sets *E (may be NULL) and returns -CODE. CODE is a positive errno value; 0 is taken as EIO. A message that was
 * there before is replaced: to add what was being done, use error_prefix. Messages have no newline and no full stop. */
int error_set(struct error *e, enum error_kind kind, int code, const char *format, ...) _printf_(4, 5);

/* error_set with ": " and strerror(CODE) appended; the kind follows from the code: EACCES and EPERM are DENIED,
 * ENOENT and ENOTDIR NOT_FOUND, EBADMSG BAD_DATA, ETIMEDOUT and the connection's codes UNREACHABLE, else OTHER. */
int error_errno(struct error *e, int code, const char *format, ...) _printf_(3, 4);

/* Puts what was being done in front: "<format>: <old message>". Keeps kind and code; returns -code. */
int error_prefix(struct error *e, const char *format, ...) _printf_(2, 3);

/* Returns a name for the kind ("not found", …): static storage. */
const char *error_kind_name(enum error_kind kind);

/* -ENOMEM with its message. */
int error_oom(struct error *e);
