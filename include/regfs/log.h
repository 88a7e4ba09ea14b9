/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* One log for the process, safe from any thread: a line is one write(2). Each line has the time (UTC, ms), level,
 * thread id, and, from the innermost scope of the thread, the request number and the object (a blob, a reference,
 * a URL):
 *
 *     2026-03-01T12:00:00.123Z debug [4711/fetch] #42 sha256:2241…: flight begins: bytes 0-4194303
 *
 * Nothing is logged before log_open: a library stays silent. Control characters in a message are escaped.
 * Secrets never come here: whoever logs a header or a URL masks it first (see http.h). */

#include <stdint.h>

#include "regfs/base.h"
#include "regfs/error.h"

enum log_level {
        LOG_LEVEL_NONE,
        LOG_LEVEL_ERROR,
        LOG_LEVEL_WARNING,
        LOG_LEVEL_INFO,
        LOG_LEVEL_DEBUG,
};

/* Starts logging at LEVEL to PATH (appended, created with mode 0600), or to standard error when PATH is NULL.
 * Call it once, before threads exist. Returns 0 or -errno with E. */
int log_open(enum log_level level, const char *path, struct error *e);

/* "error", "warning", "info", "debug", "none" → level. Returns 0, or -EINVAL. */
int log_level_parse(const char *s, enum log_level *ret);

bool log_enabled(enum log_level level);

void log_write(enum log_level level, const char *format, ...) _printf_(2, 3);

#define log_error(...) log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_write(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...) log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)                                           \
        do {                                                     \
                if (log_enabled(LOG_LEVEL_DEBUG))                \
                        log_write(LOG_LEVEL_DEBUG, __VA_ARGS__); \
        } while (0)

/* What the lines of this thread are about, until the scope ends. Scopes nest; OBJECT is borrowed and must outlive
 * the scope. REQUEST 0 inherits the outer scope's number, OBJECT NULL the outer scope's object. */
struct log_scope {
        uint64_t request;
        const char *object;
        struct log_scope *outer;
};

void log_scope_begin(struct log_scope *scope, uint64_t request, const char *object);
void log_scope_end(struct log_scope *scope);

/* LOG_SCOPE(request, object): a scope that ends with the enclosing block. */
#define LOG_SCOPE(request, object)                            \
        _cleanup_(log_scope_end) struct log_scope _log_scope; \
        log_scope_begin(&_log_scope, (request), (object))

/* A new request number, unique in this process, from 1. */
uint64_t log_next_request(void);

/* The request number of this thread's innermost scope, or 0: to hand on to another thread. */
uint64_t log_current_request(void);
