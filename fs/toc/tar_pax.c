/* SPDX-License-Identifier: Apache-2.0 */

/* Records of pax extended headers (POSIX pax(1), "pax Extended Header"; GNU tar manual, "Storing Sparse Files";
 * libarchive tar(5) for SCHILY.xattr and LIBARCHIVE.xattr). A later record of a key wins; an empty value takes the key
 * back. Strings are taken as bytes, whatever hdrcharset says. */

#include <inttypes.h>
#include <string.h>

#include "regfs/text.h"
#include "tar_internal.h"

void pax_records_clear(struct pax_records *r)
{
        r->set = 0;
        r->deleted = 0;
        r->xattr_count = 0;
}

void pax_records_free(struct pax_records *r)
{
        free(r->xattrs);
        free(r->strings);
        *r = (struct pax_records) { 0 };
}

int pax_number(const char *s, uint64_t max, uint64_t *ret, struct error *e)
{
        uint64_t value = 0;

        if (*s == '\0')
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "a number is missing");
        for (const char *p = s; *p; p++) {
                uint64_t digit = (uint64_t) (*p - '0');

                if (*p < '0' || *p > '9')
                        return error_set(e, ERROR_BAD_DATA, EBADMSG, "\"%.32s\" is not an unsigned number", s);
                if (value > max / 10 || value * 10 > max - MIN(digit, max))
                        return error_set(e, ERROR_BAD_DATA, EBADMSG, "%.32s is out of range", s);
                value = value * 10 + digit;
        }
        *ret = value;
        return 0;
}

/* Nanoseconds from the digits behind the point; more than nine are cut off. Returns false for what is no digit. */
static bool parse_fraction(const char *s, uint32_t *ret)
{
        uint32_t value = 0, scale = 100000000;

        for (; *s; s++) {
                if (*s < '0' || *s > '9')
                        return false;
                value += scale * (uint32_t) (*s - '0');
                scale /= 10;
        }
        *ret = value;
        return true;
}

/* Seconds since 1970 as [-]digits[.digits]; the fraction has the sign too, but nsec counts up from the second below. */
static int parse_time(char *s, int64_t *ret_seconds, uint32_t *ret_nsec, struct error *e)
{
        bool negative = *s == '-';
        char *digits = negative ? s + 1 : s;
        char *point = strchr(digits, '.');
        uint64_t seconds;
        uint32_t nsec = 0;
        int r;

        if (point && !parse_fraction(point + 1, &nsec))
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "\"%.40s\" is not a time", s);
        if (point)
                *point = '\0';
        r = pax_number(digits, (uint64_t) INT64_MAX + negative, &seconds, e);
        if (r < 0)
                return r;
        if (!negative) {
                *ret_seconds = (int64_t) seconds;
                *ret_nsec = nsec;
                return 0;
        }
        if (nsec > 0 && seconds > INT64_MAX)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "a time that is out of range");
        *ret_seconds = (int64_t) (0 - seconds - (nsec > 0));
        *ret_nsec = nsec > 0 ? 1000000000 - nsec : 0;
        return 0;
}

/* %XX in place; a percent sign without two hex digits stands for itself. False when a NUL comes out. */
static bool url_decode(char *s)
{
        char *out = s;

        while (*s) {
                int high = *s == '%' ? hex_value(s[1]) : -1;
                int low = high >= 0 ? hex_value(s[2]) : -1;

                if (low < 0) {
                        *out++ = *s++;
                        continue;
                }
                if (high == 0 && low == 0)
                        return false;
                *out++ = (char) (high << 4 | low);
                s += 3;
        }
        *out = '\0';
        return true;
}

static int base64_digit(char c)
{
        if (c >= 'A' && c <= 'Z')
                return c - 'A';
        if (c >= 'a' && c <= 'z')
                return c - 'a' + 26;
        if (c >= '0' && c <= '9')
                return c - '0' + 52;
        return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* Base64 in place; libarchive leaves the padding out. */
static bool base64_decode_in_place(char *s, size_t *length)
{
        size_t n = *length, out = 0;
        uint32_t bits = 0;
        unsigned count = 0;

        if (n > 0 && n % 4 == 0)
                for (int i = 0; i < 2 && s[n - 1] == '='; i++)
                        n--;
        if (n % 4 == 1)
                return false;
        for (size_t i = 0; i < n; i++) {
                int digit = base64_digit(s[i]);

                if (digit < 0)
                        return false;
                bits = bits << 6 | (uint32_t) digit;
                count += 6;
                if (count >= 8) {
                        count -= 8;
                        s[out++] = (char) (bits >> count);
                }
        }
        *length = out;
        return true;
}

static int add_xattr(struct pax_records *r, const char *name, const char *value, size_t length, struct error *e)
{
        if (*name == '\0')
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "an extended attribute without a name");
        if (r->xattr_count >= TAR_XATTRS_MAX)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "more than %u extended attributes", TAR_XATTRS_MAX);
        if (array_reserve(r->xattrs, &r->xattr_allocated, r->xattr_count + 1) < 0)
                return error_oom(e);
        r->xattrs[r->xattr_count++] = (struct layer_xattr) {
                .name = name,
                .value = (const uint8_t *) value,
                .value_length = length,
        };
        return 0;
}

/* By name; records of one name in the order they came, which is that of their place in the text. */
static int compare_xattrs(const void *a, const void *b)
{
        const struct layer_xattr *x = a, *y = b;
        int r = strcmp(x->name, y->name);

        return r ? r : (x->name > y->name) - (x->name < y->name);
}

static void sort_xattrs(struct pax_records *r)
{
        size_t kept = 0;

        if (r->xattr_count < 2)
                return;
        qsort(r->xattrs, r->xattr_count, sizeof(*r->xattrs), compare_xattrs);
        for (size_t i = 0; i < r->xattr_count; i++)
                if (i + 1 == r->xattr_count || strcmp(r->xattrs[i].name, r->xattrs[i + 1].name) != 0)
                        r->xattrs[kept++] = r->xattrs[i];
        r->xattr_count = kept;
}

/* GNU.sparse.offset and GNU.sparse.numbytes take turns. */
static int take_sparse_pair(struct pax_records *r, enum pax_key key, uint64_t value, struct sparse_map *map,
                            struct error *e)
{
        if ((key == PAX_SPARSE_OFFSET) == ((r->set & PAX_SPARSE_OFFSET) != 0))
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "an offset and a length must take turns");
        if (key == PAX_SPARSE_OFFSET) {
                r->set |= PAX_SPARSE_OFFSET;
                r->sparse_offset = value;
                return 0;
        }
        r->set = (r->set & ~(unsigned) PAX_SPARSE_OFFSET) | PAX_SPARSE_MAP;
        return sparse_map_add(map, r->sparse_offset, value, e);
}

enum pax_kind {
        KIND_STRING,
        KIND_NUMBER,
        KIND_TIME,
        KIND_SPARSE_MAP,
        KIND_SPARSE_PAIR,
};

#define FIELD(member) offsetof(struct pax_records, member)

static const struct keyword {
        const char *name;
        enum pax_key key;
        enum pax_kind kind;
        size_t field;
        uint64_t max;
} keywords[] = {
        { "path", PAX_PATH, KIND_STRING, FIELD(path), 0 },
        { "linkpath", PAX_LINK, KIND_STRING, FIELD(link), 0 },
        { "size", PAX_SIZE, KIND_NUMBER, FIELD(size), INT64_MAX },
        { "uid", PAX_UID, KIND_NUMBER, FIELD(uid), UINT32_MAX },
        { "gid", PAX_GID, KIND_NUMBER, FIELD(gid), UINT32_MAX },
        { "mtime", PAX_MTIME, KIND_TIME, 0, 0 },
        { "SCHILY.devmajor", PAX_MAJOR, KIND_NUMBER, FIELD(major), INT64_MAX },
        { "SCHILY.devminor", PAX_MINOR, KIND_NUMBER, FIELD(minor), INT64_MAX },
        { "GNU.sparse.name", PAX_SPARSE_NAME, KIND_STRING, FIELD(sparse_name), 0 },
        { "GNU.sparse.size", PAX_SPARSE_SIZE, KIND_NUMBER, FIELD(sparse_size), INT64_MAX },
        { "GNU.sparse.realsize", PAX_SPARSE_REAL_SIZE, KIND_NUMBER, FIELD(sparse_real_size), INT64_MAX },
        { "GNU.sparse.numblocks", PAX_SPARSE_BLOCKS, KIND_NUMBER, FIELD(sparse_blocks), INT64_MAX },
        { "GNU.sparse.offset", PAX_SPARSE_OFFSET, KIND_SPARSE_PAIR, 0, INT64_MAX },
        { "GNU.sparse.numbytes", PAX_SPARSE_MAP, KIND_SPARSE_PAIR, 0, INT64_MAX },
        { "GNU.sparse.map", PAX_SPARSE_MAP, KIND_SPARSE_MAP, 0, 0 },
        { "GNU.sparse.major", PAX_SPARSE_VERSION_MAJOR, KIND_NUMBER, FIELD(sparse_major), INT64_MAX },
        { "GNU.sparse.minor", PAX_SPARSE_VERSION_MINOR, KIND_NUMBER, FIELD(sparse_minor), INT64_MAX },
};

static const struct keyword *find_keyword(const char *name)
{
        for (size_t i = 0; i < ELEMENTSOF(keywords); i++)
                if (keywords[i].name[0] == name[0] && strcmp(keywords[i].name, name) == 0)
                        return &keywords[i];
        return NULL;
}

static int take_value(struct pax_records *r, const struct keyword *k, struct sparse_map *map, char *value,
                      struct error *e)
{
        void *field = (char *) r + k->field;
        uint64_t number;
        int ret;

        switch (k->kind) {
        case KIND_STRING:
                *(const char **) field = value;
                return 0;
        case KIND_NUMBER:
                return pax_number(value, k->max, field, e);
        case KIND_TIME:
                return parse_time(value, &r->mtime, &r->mtime_nsec, e);
        case KIND_SPARSE_MAP:
                sparse_map_clear(map);
                return sparse_map_add_text(map, value, e);
        case KIND_SPARSE_PAIR:
                ret = pax_number(value, k->max, &number, e);
                return ret < 0 ? ret : take_sparse_pair(r, k->key, number, map, e);
        }
        return 0;
}

static int take_keyword(struct pax_records *r, const struct keyword *k, struct sparse_map *map, char *value,
                        size_t length, struct error *e)
{
        int ret;

        if (k->key >= PAX_SPARSE_NAME && !map)
                return 0;
        if (length == 0) {
                r->set &= ~(unsigned) k->key;
                r->deleted |= k->key;
                if (k->key == PAX_SPARSE_MAP)
                        sparse_map_clear(map);
                return 0;
        }
        if (strlen(value) != length)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "a NUL inside");
        ret = take_value(r, k, map, value, e);
        if (ret < 0)
                return ret;
        if (k->kind != KIND_SPARSE_PAIR)
                r->set |= k->key;
        r->deleted &= ~(unsigned) k->key;
        return 0;
}

/* One record whose key and value are NUL-terminated. Keys that nobody here asks for are passed over. */
static int take_record(struct pax_records *r, struct sparse_map *map, char *key, char *value, size_t length,
                       struct error *e)
{
        const struct keyword *k = find_keyword(key);
        char *name;

        if (k)
                return take_keyword(r, k, map, value, length, e);
        name = (char *) str_after(key, "SCHILY.xattr.");
        if (name)
                return add_xattr(r, name, value, length, e);
        name = (char *) str_after(key, "LIBARCHIVE.xattr.");
        if (!name)
                return 0;
        if (!url_decode(name))
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "a name with a NUL");
        if (!base64_decode_in_place(value, &length))
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "a value that is not base64");
        return add_xattr(r, name, value, length, e);
}

/* Splits "LENGTH KEY=VALUE\n", which is all of LENGTH bytes. Returns LENGTH, or 0 for what is no record. */
static size_t split_record(char *text, size_t n, char **ret_key, char **ret_value, size_t *ret_length)
{
        size_t length = 0, i = 0;
        char *equals;

        for (; i < n && text[i] >= '0' && text[i] <= '9' && length <= n; i++)
                length = length * 10 + (size_t) (text[i] - '0');
        if (i == 0 || i >= n || text[i] != ' ' || length > n || length < i + 3 || text[length - 1] != '\n')
                return 0;
        i++;
        equals = memchr(text + i, '=', length - 1 - i);
        if (!equals || equals == text + i || memchr(text + i, '\0', (size_t) (equals - text) - i))
                return 0;
        *equals = '\0';
        text[length - 1] = '\0';
        *ret_key = text + i;
        *ret_value = equals + 1;
        *ret_length = (size_t) (text + length - 1 - *ret_value);
        return length;
}

int pax_records_parse(struct pax_records *r, struct sparse_map *map, char *text, size_t n, struct error *e)
{
        char *key = NULL, *value = NULL;
        size_t length = 0, taken;
        int ret;

        for (size_t at = 0; at < n; at += taken) {
                taken = split_record(text + at, n - at, &key, &value, &length);
                if (taken == 0)
                        return error_set(e, ERROR_BAD_DATA, EBADMSG, "a malformed pax record at its byte %zu", at);
                ret = take_record(r, map, key, value, length, e);
                if (ret < 0)
                        return error_prefix(e, "pax record \"%.64s\" at its byte %zu", key, at);
        }
        if (r->set & PAX_SPARSE_OFFSET)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "a GNU.sparse.offset without its length");
        sort_xattrs(r);
        return 0;
}

void pax_records_overlay(struct pax_records *r, const struct pax_records *over)
{
        for (size_t i = 0; i < ELEMENTSOF(keywords); i++) {
                const struct keyword *k = &keywords[i];
                char *to = (char *) r + k->field;
                const char *from = (const char *) over + k->field;

                if (!(over->set & k->key))
                        continue;
                if (k->kind == KIND_STRING) {
                        *(const char **) to = *(const char *const *) from;
                } else if (k->kind == KIND_NUMBER) {
                        *(uint64_t *) to = *(const uint64_t *) from;
                } else if (k->kind == KIND_TIME) {
                        r->mtime = over->mtime;
                        r->mtime_nsec = over->mtime_nsec;
                }
        }
        r->set = (r->set & ~over->deleted) | over->set;
}

size_t pax_merge_xattrs(const struct layer_xattr *a, size_t a_count, const struct layer_xattr *b, size_t b_count,
                        struct layer_xattr *out)
{
        size_t i = 0, j = 0, n = 0;

        while (i < a_count && j < b_count) {
                int order = strcmp(a[i].name, b[j].name);

                out[n++] = order < 0 ? a[i] : b[j];
                i += order <= 0;
                j += order >= 0;
        }
        while (i < a_count)
                out[n++] = a[i++];
        while (j < b_count)
                out[n++] = b[j++];
        return n;
}

static const void *copy_bytes(char **pool, const void *data, size_t n)
{
        char *copy = *pool;

        memcpy(copy, data, n);
        *pool += n;
        return copy;
}

static size_t string_bytes(const struct pax_records *r)
{
        size_t n = 0;

        if (r->set & PAX_PATH)
                n += strlen(r->path) + 1;
        if (r->set & PAX_LINK)
                n += strlen(r->link) + 1;
        for (size_t i = 0; i < r->xattr_count; i++)
                n += strlen(r->xattrs[i].name) + 1 + r->xattrs[i].value_length;
        return n;
}

/* Lets R own what it points to; its array of xattrs is its own already. */
static int own_strings(struct pax_records *r, struct error *e)
{
        size_t n = string_bytes(r);
        char *pool;

        if (n > TAR_GLOBALS_MAX || r->xattr_count > TAR_XATTRS_MAX)
                return error_set(e, ERROR_BAD_DATA, EBADMSG,
                                 "global headers that hold %zu bytes and %zu extended attributes", n, r->xattr_count);
        r->strings = pool = malloc(n + 1);
        if (!pool)
                return error_oom(e);
        if (r->set & PAX_PATH)
                r->path = copy_bytes(&pool, r->path, strlen(r->path) + 1);
        if (r->set & PAX_LINK)
                r->link = copy_bytes(&pool, r->link, strlen(r->link) + 1);
        for (size_t i = 0; i < r->xattr_count; i++) {
                struct layer_xattr *x = &r->xattrs[i];

                x->name = copy_bytes(&pool, x->name, strlen(x->name) + 1);
                x->value = copy_bytes(&pool, x->value, x->value_length);
        }
        return 0;
}

int pax_records_set_global(struct pax_records *global, const struct pax_records *records, struct error *e)
{
        struct pax_records merged = *global;
        int r;

        if (records->set == 0 && records->deleted == 0 && records->xattr_count == 0)
                return 0;
        pax_records_overlay(&merged, records);
        merged.strings = NULL;
        merged.xattr_allocated = global->xattr_count + records->xattr_count;
        merged.xattrs = calloc(merged.xattr_allocated + 1, sizeof(*merged.xattrs));
        if (!merged.xattrs)
                return error_oom(e);
        merged.xattr_count = pax_merge_xattrs(global->xattrs, global->xattr_count, records->xattrs,
                                              records->xattr_count, merged.xattrs);
        r = own_strings(&merged, e);
        if (r < 0) {
                pax_records_free(&merged);
                return r;
        }
        pax_records_free(global);
        *global = merged;
        return 0;
}
