/* SPDX-License-Identifier: Apache-2.0 */

/* What tags last resolved to; store.h says how they are named. */

#include <stdio.h>
#include <time.h>

#include "regfs/io.h"
#include "regfs/log.h"
#include "store_internal.h"

/* A reference longer than this names nothing: 255 bytes of repository, 128 of tag, and a host. */
#define REF_MAX 1024
#define REF_COMPONENT_MAX 140
#define REF_COMPONENT_KEEP 64

/* No two names differ in the case of letters alone, or in a dot at the end: on many filesystems they would be one. OUT
 * has room for 3 N + 1 bytes. */
static void escape(const char *s, size_t n, char *out)
{
        static const char digits[] = "0123456789ABCDEF";

        for (size_t k = 0; k < n; k++) {
                uint8_t c = (uint8_t) s[k];
                bool alphanumeric = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');

                if (alphanumeric || c == '-' || c == '_' || (c == '.' && k > 0 && k + 1 < n)) {
                        *out++ = (char) c;
                } else {
                        *out++ = '%';
                        *out++ = digits[c >> 4];
                        *out++ = digits[c & 15];
                }
        }
        *out = '\0';
}

/* One component of a reference as one component of a path; store.h says how. */
static int ref_component(const char *s, size_t n, char out[REF_COMPONENT_MAX + 1], struct error *e)
{
        char escaped[3 * REF_MAX + 1], hex[2 * DIGEST_MAX_SIZE + 1];
        struct digest digest;
        int r;

        if (n == 0)
                return error_set(e, ERROR_OTHER, EINVAL, "a reference with an empty part names nothing in the store");
        escape(s, n, escaped);
        if (strlen(escaped) <= REF_COMPONENT_MAX) {
                memcpy(out, escaped, strlen(escaped) + 1);
                return 0;
        }
        r = digest_of(DIGEST_SHA256, s, n, &digest);
        if (r < 0)
                return error_errno(e, -r, "hashing a long reference");
        snprintf(out, REF_COMPONENT_MAX + 1, "%.*s%%~%s", REF_COMPONENT_KEEP, escaped, digest_hex(&digest, hex));
        return 0;
}

/* The repository is one component, slashes included: a tag's file is never in the way of a longer repository's
 * directory. */
static int ref_path(const char *name, char out[STORE_PATH_MAX], struct error *e)
{
        char registry[REF_COMPONENT_MAX + 1], repository[REF_COMPONENT_MAX + 1], tag[REF_COMPONENT_MAX + 1];
        const char *slash = strchr(name, '/'), *colon = strrchr(name, ':');
        int r;

        if (strlen(name) > REF_MAX || !slash || !colon || colon < slash)
                return error_set(e, ERROR_OTHER, EINVAL, "\"%.200s\" is no REGISTRY/REPOSITORY:TAG", name);
        r = ref_component(name, (size_t) (slash - name), registry, e);
        if (r == 0)
                r = ref_component(slash + 1, (size_t) (colon - slash - 1), repository, e);
        if (r == 0)
                r = ref_component(colon + 1, strlen(colon + 1), tag, e);
        if (r < 0)
                return r;
        snprintf(out, STORE_PATH_MAX, "refs/%s/%s/%s", registry, repository, tag);
        return 0;
}

int store_parse_ref(char *text, size_t length, struct digest *ret, int64_t *ret_time)
{
        char *space = memchr(text, ' ', length);
        uint64_t when = 0;
        int r;

        if (!space || text[length - 1] != '\n' || strlen(text) != length)
                return -EBADMSG;
        *space = text[length - 1] = '\0';
        r = digest_parse(text, ret, NULL);
        if (r == 0)
                r = str_to_u64(space + 1, &when);
        if (r < 0 || when > INT64_MAX)
                return -EBADMSG;
        *ret_time = (int64_t) when;
        return 0;
}

/* PATH is that of NAME. */
static int get_ref(struct store *s, const char *name, const char *path, struct digest *ret, int64_t *ret_time,
                   struct error *e)
{
        _cleanup_close_ int fd = s->lower ? store_open_file(s, path) : -1;
        _cleanup_buf_ struct buf b = { 0 };
        struct digest digest;
        int64_t when;
        int r;

        /* Nothing in it is checked by a digest. */
        if (s->lower && fd < 0)
                return error_errno(e, -fd, "store %s: %s", s->path, path);
        r = file_read(s->fd, path, STORE_REF_MAX, &b, e);
        if (r == -ENOENT)
                return error_set(e, ERROR_NOT_FOUND, ENOENT, "store %s: %s was never resolved", s->path, name);
        if (r < 0 && r != -EFBIG) {
                error_prefix(e, "store %s", s->path);
                return r;
        }
        if (r == -EFBIG || b.len == 0 || store_parse_ref(b.data, b.len, &digest, &when) < 0) {
                log_warning("store %s: %s: damaged, counts as absent", s->path, path);
                return error_set(e, ERROR_NOT_FOUND, ENOENT, "store %s: %s: damaged", s->path, path);
        }
        *ret = digest;
        *ret_time = when;
        return 0;
}

int store_ref_get(struct store *s, const char *name, struct digest *ret, int64_t *ret_time, struct error *e)
{
        struct error other = ERROR_INIT;
        char path[STORE_PATH_MAX];
        struct digest digest;
        int64_t when, last;
        int r;

        r = ref_path(name, path, e);
        if (r < 0)
                return r;
        r = get_ref(s, name, path, ret, &last, e);
        /* The latest answer is the one that counts, whoever got it. */
        for (size_t k = 1; store_at(s, k); k++) {
                if (get_ref(store_at(s, k), name, path, &digest, &when, &other) < 0 || (r == 0 && when <= last))
                        continue;
                *ret = digest;
                last = when;
                r = 0;
        }
        if (r == 0)
                *ret_time = last;
        return r;
}

int store_ref_put(struct store *s, const char *name, const struct digest *digest, struct error *e)
{
        char path[STORE_PATH_MAX], text[DIGEST_STRING_MAX + 32], formatted[DIGEST_STRING_MAX];
        int n, r;

        r = ref_path(name, path, e);
        if (r < 0)
                return r;
        n = snprintf(text, sizeof(text), "%s %jd\n", digest_format(digest, formatted), (intmax_t) time(NULL));
        return store_put_file(s, path, text, (size_t) n, e);
}
