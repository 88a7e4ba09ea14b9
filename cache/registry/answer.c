/* SPDX-License-Identifier: Apache-2.0 */

#include <stdio.h>
#include <string.h>

#include "client_internal.h"
#include "regfs/json.h"

/* For the body of an error, which only explains it. */
#define BODY_PATIENCE_MS 2000

enum verdict answer_judge(const struct transfer *t)
{
        unsigned status = transfer_status(t);

        if (status >= 200 && status < 300)
                return VERDICT_OK;
        switch (status) {
        case 301:
        case 302:
        case 303:
        case 307:
        case 308:
                return transfer_header(t, "Location", 0) ? VERDICT_REDIRECT : VERDICT_FAILED;
        case 401:
                return VERDICT_UNAUTHORIZED;
        case 408:
        case 429:
        case 500:
        case 502:
        case 503:
        case 504:
                return VERDICT_AGAIN;
        default:
                return VERDICT_FAILED;
        }
}

/* The status line in words, for the ones that people meet. */
static const char *reason(unsigned status)
{
        switch (status) {
        case 400:
                return " Bad Request";
        case 401:
                return " Unauthorized";
        case 403:
                return " Forbidden";
        case 404:
                return " Not Found";
        case 405:
                return " Method Not Allowed";
        case 408:
                return " Request Timeout";
        case 410:
                return " Gone";
        case 416:
                return " Range Not Satisfiable";
        case 429:
                return " Too Many Requests";
        case 500:
                return " Internal Server Error";
        case 502:
                return " Bad Gateway";
        case 503:
                return " Service Unavailable";
        case 504:
                return " Gateway Timeout";
        default:
                return "";
        }
}

/* distribution-spec "Error Codes": {"errors": [{"code": …, "message": …}]}. */
static void quote_errors(const char *body, size_t n, char *out, size_t size)
{
        _cleanup_(json_free_ptr) struct json *root = NULL;
        const struct json *first;
        const char *code, *message;

        out[0] = '\0';
        if (!body || n == 0 || json_parse(body, n, &root, NULL) < 0)
                return;
        first = json_first(json_member(root, "errors"));
        code = json_member_text(first, "code");
        message = json_member_text(first, "message");
        if (!message)
                message = json_member_text(root, "message");
        if (!message)
                message = json_member_text(root, "details");
        if (code || message)
                (void) snprintf(out, size, ": %s%s%s", code ? code : "", code && message ? ": " : "",
                                message ? message : "");
}

static enum error_kind kind_of(unsigned status, int *ret_code)
{
        switch (status) {
        case 401:
        case 403:
                *ret_code = EACCES;
                return ERROR_DENIED;
        case 404:
        case 410:
                *ret_code = ENOENT;
                return ERROR_NOT_FOUND;
        case 416:
                *ret_code = EBADMSG;
                return ERROR_BAD_DATA;
        case 408:
        case 429:
        case 500:
        case 502:
        case 503:
        case 504:
                *ret_code = EAGAIN;
                return ERROR_UNREACHABLE;
        default:
                *ret_code = EIO;
                return ERROR_OTHER;
        }
}

int answer_error(struct transfer *t, const char *url, deadline_t deadline, struct error *e)
{
        unsigned status = transfer_status(t);
        char masked[400], quoted[400] = "";
        enum error_kind kind;
        const char *body;
        size_t n = 0;
        int code;

        /* A body that does not come says nothing; the status does. One that still comes is not ours to look at. */
        if (transfer_wait(t, UINT64_MAX, MIN(deadline, deadline_in(BODY_PATIENCE_MS)), NULL, NULL) == 0) {
                body = transfer_body(t, &n);
                quote_errors(body, n, quoted, sizeof(quoted));
        }
        kind = kind_of(status, &code);
        return error_set(e, kind, code, "%s: %u%s%s", http_mask_url(url, masked, sizeof(masked)), status,
                         reason(status), quoted);
}
