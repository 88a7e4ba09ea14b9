/* SPDX-License-Identifier: Apache-2.0 */

#include "regfs/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "regfs/text.h"

#define MESSAGE_SIZE sizeof(((struct error *) NULL)->message)

/* vsnprintf may leave half a character at the end of its buffer: with this much more than is kept, it is never kept. */
#define FORMAT_SIZE (MESSAGE_SIZE + 4)

/* When a message gets too long it is what was put in front that is cut, down to this: the first cause is to survive. */
#define PREFIX_MIN 160

static int set(struct error *e, enum error_kind kind, int code)
{
        if (code <= 0)
                code = EIO;
        if (e) {
                e->kind = kind;
                e->code = code;
        }
        return -code;
}

int error_set(struct error *e, enum error_kind kind, int code, const char *format, ...)
{
        char text[FORMAT_SIZE];
        va_list ap;

        if (e) {
                va_start(ap, format);
                (void) vsnprintf(text, sizeof(text), format, ap);
                va_end(ap);
                (void) str_escape(text, e->message, sizeof(e->message));
        }
        return set(e, kind, code);
}

static enum error_kind kind_of(int code)
{
        switch (code) {
        case EACCES:
        case EPERM:
                return ERROR_DENIED;
        case ENOENT:
        case ENOTDIR:
                return ERROR_NOT_FOUND;
        case EBADMSG:
                return ERROR_BAD_DATA;
        case ETIMEDOUT:
        case ECONNREFUSED:
        case ECONNRESET:
        case ECONNABORTED:
        case EHOSTUNREACH:
        case ENETUNREACH:
        case EHOSTDOWN:
        case ENETDOWN:
        case ENETRESET:
                return ERROR_UNREACHABLE;
        default:
                return ERROR_OTHER;
        }
}

/* Makes the message "<format>: <cause>". */
static void put_before(struct error *e, const char *cause, const char *format, va_list ap) _printf_(3, 0);

static void put_before(struct error *e, const char *cause, const char *format, va_list ap)
{
        size_t taken = strlen(": ") + strlen(cause);
        size_t room = MESSAGE_SIZE - MIN(taken, MESSAGE_SIZE - PREFIX_MIN);
        char text[FORMAT_SIZE], whole[2 * MESSAGE_SIZE + 4];
        size_t n;

        (void) vsnprintf(text, sizeof(text), format, ap);
        n = str_escape(text, whole, room);
        (void) snprintf(whole + n, sizeof(whole) - n, ": %s", cause);
        (void) str_escape(whole, e->message, sizeof(e->message));
}

int error_errno(struct error *e, int code, const char *format, ...)
{
        va_list ap;

        if (code <= 0)
                code = EIO;
        if (e) {
                const char *cause = strerrordesc_np(code);

                va_start(ap, format);
                put_before(e, cause ? cause : "unknown error", format, ap);
                va_end(ap);
        }
        return set(e, kind_of(code), code);
}

int error_prefix(struct error *e, const char *format, ...)
{
        char cause[MESSAGE_SIZE];
        va_list ap;

        if (!e)
                return -EIO;
        memcpy(cause, e->message, sizeof(cause));
        va_start(ap, format);
        put_before(e, cause, format, ap);
        va_end(ap);
        return set(e, e->kind == ERROR_NONE ? ERROR_OTHER : e->kind, e->code);
}

const char *error_kind_name(enum error_kind kind)
{
        switch (kind) {
        case ERROR_NONE:
                return "no error";
        case ERROR_USAGE:
                return "usage";
        case ERROR_NOT_FOUND:
                return "not found";
        case ERROR_DENIED:
                return "access denied";
        case ERROR_UNREACHABLE:
                return "registry unreachable";
        case ERROR_BAD_DATA:
                return "bad data";
        case ERROR_MOUNT:
                return "cannot mount";
        case ERROR_OTHER:
                break;
        }
        return "error";
}

int error_oom(struct error *e)
{
        return error_set(e, ERROR_OTHER, ENOMEM, "out of memory");
}
