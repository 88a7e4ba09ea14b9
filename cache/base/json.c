/* SPDX-License-Identifier: Apache-2.0 */

/* A thin layer over cJSON, which is lenient where registries must not be: the text is checked before cJSON sees it. */

#include "regfs/json.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <string.h>

#include "regfs/text.h"

#define DEPTH_MAX 64
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

/* Length of the escape that starts at S, 0 when it is none. cJSON takes four wrong digits for zeros. */
static size_t escape_length(const char *s, size_t n)
{
        if (n >= 2 && s[1] != '\0' && strchr("\"\\/bfnrt", s[1]))
                return 2;
        if (n < 6 || s[1] != 'u')
                return 0;
        for (size_t k = 2; k < 6; k++)
                if (!(s[k] >= '0' && s[k] <= '9') && !((s[k] | 0x20) >= 'a' && (s[k] | 0x20) <= 'f'))
                        return 0;
        return 6;
}

/* Checks the string that starts behind its quote at *K, and leaves *K behind its closing quote. */
static const char *check_string(const char *s, size_t n, size_t *k, bool *has_nul)
{
        while (*k < n && s[*k] != '"') {
                size_t length;

                if ((unsigned char) s[*k] < 0x20)
                        return "a control character in a string";
                if (s[*k] == '\\') {
                        length = escape_length(s + *k, n - *k);
                        if (length == 0)
                                return "an unknown escape in a string";
                        *has_nul = *has_nul || is_nul_escape(s + *k, n - *k);
                } else {
                        length = utf8_length(s + *k, n - *k);
                        if (length == 0)
                                return "a string that is not UTF-8";
                }
                *k += length;
        }
        if (*k >= n)
                return "a string without end";
        (*k)++;
        return NULL;
}

static size_t count_digits(const char *s, size_t n, size_t k)
{
        size_t start = k;

        while (k < n && s[k] >= '0' && s[k] <= '9')
                k++;
        return k - start;
}

/* The same for a number that starts at *K. */
static const char *check_number(const char *s, size_t n, size_t *k)
{
        static const char malformed[] = "a malformed number";
        size_t at = *k, digits;

        at += s[at] == '-';
        digits = count_digits(s, n, at);
        if (digits == 0 || (digits > 1 && s[at] == '0'))
                return malformed;
        at += digits;
        if (at < n && s[at] == '.') {
                digits = count_digits(s, n, ++at);
                if (digits == 0)
                        return malformed;
                at += digits;
        }
        if (at < n && (s[at] == 'e' || s[at] == 'E')) {
                at++;
                if (at < n && (s[at] == '+' || s[at] == '-'))
                        at++;
                digits = count_digits(s, n, at);
                if (digits == 0)
                        return malformed;
                at += digits;
        }
        *k = at;
        return NULL;
}

/* Looks for all that cJSON lets pass; the rest of the grammar is its own. Returns what is wrong at *ret_at, or NULL. */
static const char *check_text(const char *s, size_t n, size_t *ret_at, bool *has_nul)
{
        size_t depth = 0, k = 0;

        while (k < n) {
                unsigned char c = (unsigned char) s[k];
                const char *wrong = NULL;

                *ret_at = k;
                if (c == '-' || (c >= '0' && c <= '9')) {
                        wrong = check_number(s, n, &k);
                } else if (c == '"') {
                        k++;
                        wrong = check_string(s, n, &k, has_nul);
                } else {
                        if ((c == '{' || c == '[') && ++depth > DEPTH_MAX)
                                wrong = "nested more than 64 deep";
                        if ((c == '}' || c == ']') && depth > 0)
                                depth--;
                        if (c < ' ' && c != '\t' && c != '\n' && c != '\r')
                                wrong = "a control character";
                        if (c >= 0x7f)
                                wrong = "an unexpected byte";
                        k++;
                }
                if (wrong)
                        return wrong;
        }
        return NULL;
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

static size_t skip_space(const char *s, size_t n, size_t k)
{
        while (k < n && (s[k] == ' ' || s[k] == '\t' || s[k] == '\n' || s[k] == '\r'))
                k++;
        return k;
}

int json_parse(const char *data, size_t n, struct json **ret, struct error *e)
{
        _cleanup_free_ char *copy = NULL;
        const char *end = NULL, *wrong;
        bool has_nul = false;
        size_t at = 0;
        cJSON *root;

        wrong = check_text(data, n, &at, &has_nul);
        if (wrong)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "not valid JSON: %s, at byte %zu", wrong, at);
        if (has_nul) {
                copy = mark_nuls(data, n);
                if (!copy)
                        return error_oom(e);
                data = copy;
        }
        errno = 0;
        root = cJSON_ParseWithLengthOpts(data, n, &end, false);
        at = end ? (size_t) (end - data) : 0;
        if (!root && errno == ENOMEM)
                return error_oom(e);
        if (!root)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "not valid JSON, at byte %zu", at);
        at = skip_space(data, n, at);
        if (at != n) {
                cJSON_Delete(root);
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "not valid JSON: more behind its end, at byte %zu", at);
        }
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
