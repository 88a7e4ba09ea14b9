/* SPDX-License-Identifier: Apache-2.0 */

#include "regfs/log.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "regfs/text.h"

#define LINE_MAX_BYTES 2048

static _Atomic int current_level = LOG_LEVEL_NONE;
static _Atomic int log_fd = -1;
static atomic_uint_fast64_t last_request;
static _Thread_local struct log_scope *scope_of_thread;

static const char *const level_names[] = {
        [LOG_LEVEL_NONE] = "none", [LOG_LEVEL_ERROR] = "error", [LOG_LEVEL_WARNING] = "warning",
        [LOG_LEVEL_INFO] = "info", [LOG_LEVEL_DEBUG] = "debug",
};

int log_open(enum log_level level, const char *path, struct error *e)
{
        int fd = STDERR_FILENO;

        if (path) {
                fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0600);
                if (fd < 0)
                        return error_errno(e, errno, "cannot open the log %s", path);
        }
        atomic_store(&log_fd, fd);
        atomic_store(&current_level, (int) level);
        return 0;
}

int log_level_parse(const char *s, enum log_level *ret)
{
        for (size_t k = 0; k < ELEMENTSOF(level_names); k++) {
                if (strcmp(s, level_names[k]) != 0)
                        continue;
                *ret = (enum log_level) k;
                return 0;
        }
        return -EINVAL;
}

bool log_enabled(enum log_level level)
{
        return level != LOG_LEVEL_NONE && (int) level <= atomic_load_explicit(&current_level, memory_order_relaxed);
}

/* "2026-03-01T12:00:00.123Z debug [4711/fetch] #42 OBJECT: " */
static size_t put_head(char *line, size_t size, enum log_level level)
{
        const struct log_scope *scope = scope_of_thread;
        const char *object = scope ? scope->object : NULL;
        char date[32] = "", name[16] = "", request[24] = "";
        struct timespec now;
        struct tm utc;
        int n;

        (void) clock_gettime(CLOCK_REALTIME, &now);
        if (gmtime_r(&now.tv_sec, &utc))
                (void) strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &utc);
        (void) prctl(PR_GET_NAME, name);
        if (scope && scope->request > 0)
                (void) snprintf(request, sizeof(request), "#%ju ", (uintmax_t) scope->request);
        n = snprintf(line, size, "%s.%03ldZ %s [%d/%s] %s%.300s%s", date, now.tv_nsec / 1000000, level_names[level],
                     (int) gettid(), name, request, object ? object : "", object ? ": " : "");
        return n < 0 ? 0 : MIN((size_t) n, size - 1);
}

void log_write(enum log_level level, const char *format, ...)
{
        /* With 4 bytes more, the half of a character that vsnprintf may leave at the end is never shown. */
        char text[LINE_MAX_BYTES + 4], line[LINE_MAX_BYTES];
        int saved = errno;
        va_list ap;
        size_t n;

        if (!log_enabled(level))
                return;
        n = put_head(text, sizeof(text), level);
        va_start(ap, format);
        (void) vsnprintf(text + n, sizeof(text) - n, format, ap);
        va_end(ap);
        /* One line stays one line, whatever a registry put into a header. */
        n = str_escape(text, line, sizeof(line));
        line[n++] = '\n';
        while (write(atomic_load(&log_fd), line, n) < 0 && errno == EINTR)
                ;
        errno = saved;
}

void log_scope_begin(struct log_scope *scope, uint64_t request, const char *object)
{
        struct log_scope *outer = scope_of_thread;

        *scope = (struct log_scope) {
                .request = request > 0 || !outer ? request : outer->request,
                .object = object || !outer ? object : outer->object,
                .outer = outer,
        };
        scope_of_thread = scope;
}

void log_scope_end(struct log_scope *scope)
{
        scope_of_thread = scope->outer;
}

uint64_t log_next_request(void)
{
        return atomic_fetch_add(&last_request, 1) + 1;
}

uint64_t log_current_request(void)
{
        return scope_of_thread ? scope_of_thread->request : 0;
}
