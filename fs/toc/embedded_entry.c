/* SPDX-License-Identifier: Apache-2.0 */

/* What the members of a table of contents mean. */

#include <stdio.h>
#include <strings.h>

#include "embedded_json.h"
#include "layer_path.h"

#define BASE64_LENGTH(n) (((n) + 2) / 3 * 4)

int parser_refuse(struct toc_parser *p, const char *format, ...)
{
        char shown[LAYER_PATH_SHOWN_MAX], why[200];
        bool in_entry = p->place == PLACE_ENTRY || p->place == PLACE_XATTRS;
        va_list ap;

        va_start(ap, format);
        vsnprintf(why, sizeof(why), format, ap);
        va_end(ap);
        p->failed = -EBADMSG;
        if (!in_entry)
                error_set(p->e, ERROR_BAD_DATA, EBADMSG, "%s", why);
        else if (*p->name)
                error_set(p->e, ERROR_BAD_DATA, EBADMSG, "entry %ju (%s): %s", (uintmax_t) p->count,
                          layer_path_show(p->name, strlen(p->name), shown), why);
        else
                error_set(p->e, ERROR_BAD_DATA, EBADMSG, "entry %ju: %s", (uintmax_t) p->count, why);
        return p->failed;
}

int parser_oom(struct toc_parser *p)
{
        p->failed = error_oom(p->e);
        return p->failed;
}

/* ---- members ---- */

static int take_path(struct toc_parser *p, const char *text, size_t n, char *out)
{
        if (n > ITABLE_PATH_MAX)
                return parser_refuse(p, "%s: longer than %d bytes", p->member->name, ITABLE_PATH_MAX);
        if (memchr(text, 0, n))
                return parser_refuse(p, "%s: a NUL", p->member->name);
        memcpy(out, text, n);
        out[n] = '\0';
        return 0;
}

static int take_name(struct toc_parser *p, const char *text, size_t n)
{
        return take_path(p, text, n, p->name);
}

static int take_link(struct toc_parser *p, const char *text, size_t n)
{
        return take_path(p, text, n, p->link);
}

static bool text_is(const char *text, size_t n, const char *expected)
{
        return n == strlen(expected) && memcmp(text, expected, n) == 0;
}

static int take_type(struct toc_parser *p, const char *text, size_t n)
{
        static const char *const types[] = {
                [TOC_ENTRY_DIRECTORY] = "dir",     [TOC_ENTRY_REGULAR] = "reg",    [TOC_ENTRY_SYMLINK] = "symlink",
                [TOC_ENTRY_HARDLINK] = "hardlink", [TOC_ENTRY_CHARACTER] = "char", [TOC_ENTRY_BLOCK] = "block",
                [TOC_ENTRY_FIFO] = "fifo",         [TOC_ENTRY_CHUNK] = "chunk",
        };

        for (size_t k = TOC_ENTRY_DIRECTORY; k < ELEMENTSOF(types); k++)
                if (text_is(text, n, types[k])) {
                        p->at.type = (enum toc_entry_type) k;
                        return 0;
                }
        return parser_refuse(p, "an unknown type");
}

static int take_chunk_type(struct toc_parser *p, const char *text, size_t n)
{
        p->at.zeros = text_is(text, n, "zeros");
        return p->at.zeros || n == 0 ? 0 : parser_refuse(p, "an unknown chunkType");
}

/* Files that were made together have one time: mostly it is that of the entry before. */
static int take_time(struct toc_parser *p, const char *text, size_t n)
{
        struct known_time *known = &p->known_time;

        if (known->length == 0 || n != known->length || memcmp(text, known->text, n) != 0) {
                known->length = 0;
                if (toc_time_parse(text, n, &known->seconds, &known->nanoseconds) < 0)
                        return parser_refuse(p, "modtime: no time of RFC 3339");
                if (n <= sizeof(known->text)) {
                        memcpy(known->text, text, n);
                        known->length = n;
                }
        }
        p->at.mtime = known->seconds;
        p->at.mtime_nsec = known->nanoseconds;
        return 0;
}

static int take_sha256(struct toc_parser *p, const char *text, size_t n, struct digest *ret)
{
        struct known_digest *known = &p->known_digest;
        char terminated[DIGEST_STRING_MAX];

        *ret = (struct digest) { 0 };
        if (n == 0)
                return 0;
        /* A file of one chunk has its digest twice. */
        if (n == sizeof(known->text) && known->digest.algorithm && memcmp(text, known->text, n) == 0) {
                *ret = known->digest;
                return 0;
        }
        if (n >= sizeof(terminated) || memchr(text, 0, n))
                return parser_refuse(p, "%s: no SHA-256", p->member->name);
        memcpy(terminated, text, n);
        terminated[n] = '\0';
        if (digest_parse(terminated, ret, NULL) < 0 || ret->algorithm != DIGEST_SHA256)
                return parser_refuse(p, "%s: no SHA-256", p->member->name);
        memcpy(known->text, text, sizeof(known->text));
        known->digest = *ret;
        return 0;
}

static int take_digest(struct toc_parser *p, const char *text, size_t n)
{
        return take_sha256(p, text, n, &p->at.digest);
}

static int take_chunk_digest(struct toc_parser *p, const char *text, size_t n)
{
        return take_sha256(p, text, n, &p->at.chunk_digest);
}

static int take_version(struct toc_parser *p, uint64_t n)
{
        return n == 1 ? 0 : parser_refuse(p, "version %ju of the table is not known", (uintmax_t) n);
}

#define NAME(n) .name = (n), .length = sizeof(n) - 1
#define NUMBER(n, f, m)                                                     \
        {                                                                   \
                NAME(n), .field = offsetof(struct toc_entry, f), .max = (m) \
        }

static const struct member document_members[] = {
        { NAME("version"), .number = take_version, .max = INT32_MAX },
        { NAME("entries"), .opens = '[' },
};

/* In the order in which most writers have them. Owners' names are ignored, and so are times other than the last
 * modification. */
static const struct member entry_members[] = {
        { NAME("name"), .text = take_name },
        { NAME("type"), .text = take_type },
        NUMBER("size", size, INT64_MAX),
        { NAME("modtime"), .text = take_time },
        { NAME("linkName"), .text = take_link },
        NUMBER("mode", mode, UINT32_MAX),
        NUMBER("uid", uid, UINT32_MAX),
        NUMBER("gid", gid, UINT32_MAX),
        NUMBER("offset", offset, INT64_MAX),
        NUMBER("innerOffset", inner_offset, INT64_MAX),
        NUMBER("endOffset", end_offset, INT64_MAX),
        NUMBER("devMajor", major, 0xfff), /* those of dev_t, as in tar.h */
        NUMBER("devMinor", minor, 0xfffff),
        { NAME("xattrs"), .opens = '{' },
        { NAME("digest"), .text = take_digest },
        NUMBER("chunkOffset", chunk_offset, INT64_MAX),
        NUMBER("chunkSize", chunk_size, INT64_MAX),
        { NAME("chunkDigest"), .text = take_chunk_digest },
        { NAME("chunkType"), .text = take_chunk_type },
};

_Static_assert(ELEMENTSOF(entry_members) <= 32, "entry_seen has a bit for each");

/* A member that another reader takes for one of TABLE. */
static int check_case(struct toc_parser *p, const struct member *table, size_t count, const char *key, size_t n)
{
        for (size_t k = 0; k < count; k++)
                if (n == table[k].length && strncasecmp(key, table[k].name, n) == 0)
                        return parser_refuse(p, "a member named %.*s, which some take for %s", (int) n, key,
                                             table[k].name);
        return 0;
}

/* What of TABLE the key names: sets p->member, NULL for what is unknown. Looks from *NEXT on, where the key is that
 * follows the one before in the order of the table. */
static int find_member(struct toc_parser *p, const struct member *table, size_t count, uint32_t *seen, size_t *next,
                       const char *key, size_t n)
{
        p->member = NULL;
        for (size_t looked = 0, k = *next; looked < count; looked++, k = k + 1 < count ? k + 1 : 0) {
                if (n != table[k].length || *key != *table[k].name || memcmp(key, table[k].name, n) != 0)
                        continue;
                if (*seen & 1u << k)
                        return parser_refuse(p, "%s twice", table[k].name);
                *seen |= 1u << k;
                *next = k + 1 < count ? k + 1 : 0;
                p->member = &table[k];
                return 0;
        }
        return check_case(p, table, count, key, n);
}

int parser_document_key(struct toc_parser *p, const char *key, size_t n)
{
        size_t next = 0;

        return find_member(p, document_members, ELEMENTSOF(document_members), &p->document_seen, &next, key, n);
}

int parser_entry_key(struct toc_parser *p, const char *key, size_t n)
{
        return find_member(p, entry_members, ELEMENTSOF(entry_members), &p->entry_seen, &p->next_member, key, n);
}

int parser_check_document(struct toc_parser *p)
{
        for (size_t k = 0; k < ELEMENTSOF(document_members); k++)
                if (!(p->document_seen & 1u << k))
                        return parser_refuse(p, "the JSON has no %s", document_members[k].name);
        return 0;
}

int parser_take_number(struct toc_parser *p, uint64_t n)
{
        const struct member *m = p->member;
        uint8_t *field = (uint8_t *) &p->at + m->field;

        if (m->number)
                return m->number(p, n);
        if (m->max > UINT32_MAX)
                memcpy(field, &n, sizeof(uint64_t));
        else
                memcpy(field, &n, sizeof(uint32_t)); /* little-endian, as regfs is */
        return 0;
}

/* ---- xattrs ---- */

static int append_xattr(struct toc_parser *p, const void *data, size_t n)
{
        int r = buf_append(&p->xattr_bytes, data, n);

        if (r == -EFBIG)
                return parser_refuse(p, "more than 1 MiB of xattrs");
        return r < 0 ? parser_oom(p) : 0;
}

int parser_begin_xattr(struct toc_parser *p, const char *name, size_t n)
{
        struct xattr_text x = { .name = p->xattr_bytes.len };
        int r;

        if (p->xattr_count >= ITABLE_XATTR_COUNT_MAX)
                return parser_refuse(p, "more than %d xattrs", ITABLE_XATTR_COUNT_MAX);
        if (n == 0 || n > ITABLE_XATTR_NAME_MAX || memchr(name, 0, n))
                return parser_refuse(p, "an xattr's name is empty, longer than %d bytes or has a NUL",
                                     ITABLE_XATTR_NAME_MAX);
        if (array_reserve(p->xattrs, &p->xattrs_allocated, p->xattr_count + 1) < 0)
                return parser_oom(p);
        p->xattrs[p->xattr_count++] = x;
        r = append_xattr(p, name, n);
        return r < 0 ? r : append_xattr(p, "", 1);
}

int parser_end_xattr(struct toc_parser *p, const char *text, size_t n)
{
        struct xattr_text *x = &p->xattrs[p->xattr_count - 1];
        _cleanup_free_ char *terminated = NULL;
        _cleanup_free_ uint8_t *value = NULL;
        int r = -EINVAL;

        if (n > BASE64_LENGTH(ITABLE_XATTR_VALUE_MAX))
                return parser_refuse(p, "xattr %s is longer than %d bytes", p->xattr_bytes.data + x->name,
                                     ITABLE_XATTR_VALUE_MAX);
        terminated = strndup(text, n);
        if (!terminated)
                return parser_oom(p);
        if (strlen(terminated) == n)
                r = base64_decode(terminated, &value, &x->value_length);
        if (r == -EINVAL)
                return parser_refuse(p, "xattr %s is not in base64", p->xattr_bytes.data + x->name);
        if (r < 0)
                return parser_oom(p);
        x->value = p->xattr_bytes.len;
        return append_xattr(p, value, x->value_length);
}

/* Those without a value are none, as in a tar: the same image has one tree, whatever it was indexed by. */
static int view_xattrs(struct toc_parser *p)
{
        if (array_reserve(p->views, &p->views_allocated, p->xattr_count) < 0)
                return -ENOMEM;
        for (size_t k = 0; k < p->xattr_count; k++) {
                const struct xattr_text *x = &p->xattrs[k];

                if (x->value_length > 0)
                        p->views[p->at.xattr_count++] = (struct layer_xattr) {
                                .name = p->xattr_bytes.data + x->name,
                                .value = (const uint8_t *) p->xattr_bytes.data + x->value,
                                .value_length = x->value_length,
                        };
        }
        p->at.xattrs = p->views;
        return 0;
}

/* ---- entries ---- */

void parser_begin_entry(struct toc_parser *p)
{
        p->place = PLACE_ENTRY;
        p->count++;
        p->at = (struct toc_entry) { .name = p->name, .link = p->link };
        p->name[0] = p->link[0] = '\0';
        p->entry_seen = 0;
        p->next_member = 0;
        p->xattr_count = 0;
        p->xattr_bytes.len = 0;
}

int parser_end_entry(struct toc_parser *p)
{
        int r;

        if (p->at.type == TOC_ENTRY_NONE)
                return parser_refuse(p, "no type");
        if (!p->name[0] && p->at.type != TOC_ENTRY_CHUNK)
                return parser_refuse(p, "no name");
        if (p->xattr_count > 0 && view_xattrs(p) < 0)
                return parser_oom(p);
        r = p->entry(p->context, &p->at, p->e);
        if (r < 0) {
                p->failed = r;
                error_prefix(p->e, "entry %ju", (uintmax_t) p->count);
                return r;
        }
        p->place = PLACE_ENTRIES;
        return 0;
}
