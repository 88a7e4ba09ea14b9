/* SPDX-License-Identifier: Apache-2.0 */

/* A thin layer over cJSON, which is lenient where registries must not be: the text is checked before cJSON sees it. */

#include "regfs/json.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <string.h>

#include "regfs/json_scan.h"
#include "regfs/text.h"

#define NUMBER_MAX 9007199254740991.0 /* 2^53 - 1: behind it, doubles skip numbers */

#define NUL_ESCAPE "\\u0000"
#define NUL_MARK '\xff'

static const cJSON *node(const struct json *v)
{
        return (const cJSON *) v;
}

static const struct json *value(const cJSON *v)
{
        return (const struct json *) v;
}

static bool is_nul_escape(const char *s, size_t n)
{
        return n >= strlen(NUL_ESCAPE) && memcmp(s, NUL_ESCAPE, strlen(NUL_ESCAPE)) == 0;
}

static int look_for_nul(void *context, const char *text, size_t n)
{
        bool *has_nul = context;

        *has_nul = *has_nul || memchr(text, '\0', n);
        return 0;
}

/* Looks for all that cJSON lets pass. */
static int check_text(const char *s, size_t n, bool *ret_has_nul, struct error *e)
{
        static const struct json_events events = { .string = look_for_nul, .key = look_for_nul };
        _cleanup_(json_scan_free_ptr) struct json_scan *scan = NULL;
        const char *wrong;
        uint64_t at;
        int r;

        *ret_has_nul = false;
        r = json_scan_new(&events, ret_has_nul, n, &scan);
        if (r == 0)
                r = json_scan_feed(scan, s, n);
        if (r == 0)
                r = json_scan_finish(scan);
        if (r != -EBADMSG)
                return r < 0 ? error_oom(e) : 0;
        wrong = json_scan_wrong(scan, &at);
        return error_set(e, ERROR_BAD_DATA, EBADMSG, "not valid JSON: %s, at byte %ju", wrong, (uintmax_t) at);
}

/* cJSON would end a string at an escaped NUL. No UTF-8 has NUL_MARK, so a string that has it had a NUL. */
static char *mark_nuls(const char *data, size_t n)
{
        char *copy = malloc(n);

        if (!copy)
                return NULL;
        memcpy(copy, data, n);
        for (size_t k = 0; k + 1 < n; k++) {
                if (copy[k] != '\\')
                        continue;
                if (is_nul_escape(copy + k, n - k))
                        memset(copy + k, NUL_MARK, strlen(NUL_ESCAPE));
                else
                        k++;
        }
        return copy;
}

int json_parse(const char *data, size_t n, struct json **ret, struct error *e)
{
        _cleanup_free_ char *copy = NULL;
        const char *end = NULL;
        bool has_nul;
        cJSON *root;
        int r;

        r = check_text(data, n, &has_nul, e);
        if (r < 0)
                return r;
        if (has_nul) {
                copy = mark_nuls(data, n);
                if (!copy)
                        return error_oom(e);
                data = copy;
        }
        errno = 0;
        root = cJSON_ParseWithLengthOpts(data, n, &end, false);
        if (!root && errno == ENOMEM)
                return error_oom(e);
        if (!root) /* it is stricter about the length of numbers */
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "JSON that is not read, at byte %zu",
                                 end ? (size_t) (end - data) : 0);
        *ret = (struct json *) root;
        return 0;
}

struct json *json_free(struct json *root)
{
        cJSON_Delete((cJSON *) root);
        return NULL;
}

bool json_is_object(const struct json *v)
{
        return cJSON_IsObject(node(v));
}

bool json_is_array(const struct json *v)
{
        return cJSON_IsArray(node(v));
}

bool json_is_null(const struct json *v)
{
        return cJSON_IsNull(node(v));
}

const struct json *json_member(const struct json *v, const char *name)
{
        return json_is_object(v) ? value(cJSON_GetObjectItemCaseSensitive(node(v), name)) : NULL;
}

const char *json_text(const struct json *v)
{
        const char *s = cJSON_IsString(node(v)) ? node(v)->valuestring : NULL;

        return s && !strchr(s, NUL_MARK) ? s : NULL;
}

const char *json_member_text(const struct json *v, const char *name)
{
        return json_text(json_member(v, name));
}

int json_u64(const struct json *v, uint64_t *ret)
{
        double d;

        if (!v)
                return -ENOENT;
        if (!cJSON_IsNumber(node(v)))
                return -EINVAL;
        d = node(v)->valuedouble;
        if (!(d >= 0 && d <= NUMBER_MAX) || (double) (uint64_t) d < d)
                return -EINVAL;
        *ret = (uint64_t) d;
        return 0;
}

int json_bool(const struct json *v, bool *ret)
{
        if (!v)
                return -ENOENT;
        if (!cJSON_IsBool(node(v)))
                return -EINVAL;
        *ret = cJSON_IsTrue(node(v));
        return 0;
}

const struct json *json_first(const struct json *v)
{
        return json_is_object(v) || json_is_array(v) ? value(node(v)->child) : NULL;
}

const struct json *json_next(const struct json *v)
{
        return v ? value(node(v)->next) : NULL;
}

const char *json_name(const struct json *v)
{
        return v ? node(v)->string : NULL;
}

/* ---- writing ---- */

int json_quote(struct buf *b, const char *text)
{
        int r = buf_append(b, "\"", 1);

        for (const char *s = text; r == 0 && *s; s++) {
                unsigned char c = (unsigned char) *s;

                if (c == '"' || c == '\\')
                        r = buf_printf(b, "\\%c", c);
                else if (c < 0x20 || c == 0x7f)
                        r = buf_printf(b, "\\u%04x", c);
                else
                        r = buf_append(b, s, 1);
        }
        return r < 0 ? r : buf_append(b, "\"", 1);
}
