/* SPDX-License-Identifier: Apache-2.0 */

/* Entry by entry out of the JSON, on yajl's events: the document is never in memory, only the entry at hand is.
 *
 * What of yajl is not bounded is bounded here: nesting (it keeps a byte for each level) by counting, the length of a token
 * (it collects one that is cut by the end of a piece) by the bytes fed since its last event. It does not look whether
 * there is memory, so it gets all of it in advance. */

#include <stdio.h>
#include <strings.h>
#include <sys/mman.h>
#include <yajl/yajl_parse.h>

#include "embedded_internal.h"
#include "layer_path.h"
#include "regfs/text.h"

#define PIECE (64 * KIB)
#define TOKEN_MAX (1 * MIB)
#define NESTING_MAX 32u
#define XATTRS_MAX (1 * MIB) /* of one entry, as in tar.h */
#define BASE64_LENGTH(n) (((n) + 2) / 3 * 4)

/* yajl's two buffers grow by doubling up to twice a token, so all that they ever were is less than eight times that. */
#define ARENA_SIZE (16 * MIB)

/* ---- yajl's memory ---- */

/* Taken from the front, never given back before the end. Pages that nobody touches cost nothing. */
struct arena {
        uint8_t *memory;
        size_t used;
};

struct arena_block {
        size_t size;
        max_align_t data[];
};

static void *arena_malloc(void *context, size_t n)
{
        struct arena *a = context;
        struct arena_block *block = (void *) (a->memory + a->used);
        size_t total = sizeof(*block) + (n + sizeof(max_align_t) - 1) / sizeof(max_align_t) * sizeof(max_align_t);

        if (n > ARENA_SIZE || total > ARENA_SIZE - a->used)
                return NULL;
        a->used += total;
        block->size = n;
        return block->data;
}

static void arena_free(_unused_ void *context, _unused_ void *p)
{
}

static void *arena_realloc(void *context, void *p, size_t n)
{
        size_t old = p ? ((struct arena_block *) ((uint8_t *) p - offsetof(struct arena_block, data)))->size : 0;
        void *moved;

        if (n <= old)
                return p;
        moved = arena_malloc(context, n);
        if (moved && p)
                memcpy(moved, p, old);
        return moved;
}

/* ---- the parser ---- */

enum place {
        PLACE_START,
        PLACE_DOCUMENT,
        PLACE_ENTRIES,
        PLACE_ENTRY,
        PLACE_XATTRS,
        PLACE_END,
};

struct xattr_text {
        size_t name, value; /* in xattr_bytes */
        size_t value_length;
};

struct toc_parser {
        toc_entry_fn *entry;
        void *context;
        struct arena arena;
        yajl_handle yajl;
        struct error *e; /* of the call under way */
        int failed;

        uint64_t fed;    /* bytes in the pieces before */
        size_t quiet;    /* bytes since the last event */
        unsigned escape; /* how much of \uD8 has been seen at the end of the bytes fed */
        enum place place;
        unsigned unknown;                   /* levels of what is passed over */
        const struct member *member;        /* whose value comes next; NULL: it is passed over */
        uint32_t document_seen, entry_seen; /* members, by index */

        uint64_t count; /* of entries, the one at hand included */
        struct toc_entry at;
        char name[ITABLE_PATH_MAX + 1];
        char link[ITABLE_PATH_MAX + 1];
        struct buf xattr_bytes;
        struct xattr_text *xattrs;
        struct layer_xattr *views;
        size_t xattr_count, xattrs_allocated, views_allocated;
};

static int refuse(struct toc_parser *p, const char *format, ...) _printf_(2, 3);

/* Names the entry at hand, if there is one, and the member whose value is to blame. Returns 0 for yajl: stop. */
static int refuse(struct toc_parser *p, const char *format, ...)
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
        return 0;
}

static int out_of_memory(struct toc_parser *p)
{
        p->failed = error_oom(p->e);
        return 0;
}

/* ---- members ---- */

/* The value of a member that is a string, or a number. Return 1, or 0 with p->failed set. */
typedef int take_text_fn(struct toc_parser *p, const char *text, size_t n);
typedef int take_number_fn(struct toc_parser *p, uint64_t n);

struct member {
        const char *name;
        take_text_fn *text;
        take_number_fn *number;
        size_t field; /* of a number: in struct toc_entry, where MAX says how wide it is */
        uint64_t max;
        char opens; /* '[' or '{': the value is looked into */
};

static int take_path(struct toc_parser *p, const char *text, size_t n, char *out)
{
        if (n > ITABLE_PATH_MAX)
                return refuse(p, "%s: longer than %d bytes", p->member->name, ITABLE_PATH_MAX);
        if (memchr(text, 0, n))
                return refuse(p, "%s: a NUL", p->member->name);
        memcpy(out, text, n);
        out[n] = '\0';
        return 1;
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
                        return 1;
                }
        return refuse(p, "an unknown type");
}

static int take_chunk_type(struct toc_parser *p, const char *text, size_t n)
{
        p->at.zeros = text_is(text, n, "zeros");
        return p->at.zeros || n == 0 ? 1 : refuse(p, "an unknown chunkType");
}

static int take_time(struct toc_parser *p, const char *text, size_t n)
{
        if (toc_time_parse(text, n, &p->at.mtime, &p->at.mtime_nsec) < 0)
                return refuse(p, "modtime: no time of RFC 3339");
        return 1;
}

static int take_sha256(struct toc_parser *p, const char *text, size_t n, struct digest *ret)
{
        char terminated[DIGEST_STRING_MAX];

        if (n < sizeof(terminated)) {
                memcpy(terminated, text, n);
                terminated[n] = '\0';
                if (strlen(terminated) == n && digest_parse(terminated, ret, NULL) == 0 &&
                    ret->algorithm == DIGEST_SHA256)
                        return 1;
        }
        return refuse(p, "%s: no SHA-256", p->member->name);
}

static int take_digest(struct toc_parser *p, const char *text, size_t n)
{
        return n == 0 ? 1 : take_sha256(p, text, n, &p->at.digest);
}

static int take_chunk_digest(struct toc_parser *p, const char *text, size_t n)
{
        return n == 0 ? 1 : take_sha256(p, text, n, &p->at.chunk_digest);
}

static int take_version(struct toc_parser *p, uint64_t n)
{
        return n == 1 ? 1 : refuse(p, "version %ju of the table is not known", (uintmax_t) n);
}

#define NUMBER(n, f, m)                                                         \
        {                                                                       \
                .name = (n), .field = offsetof(struct toc_entry, f), .max = (m) \
        }

static const struct member document_members[] = {
        { .name = "version", .number = take_version, .max = INT32_MAX },
        { .name = "entries", .opens = '[' },
};

/* Owners' names are ignored, and so are times other than the last modification. */
static const struct member entry_members[] = {
        { .name = "name", .text = take_name },
        { .name = "type", .text = take_type },
        { .name = "linkName", .text = take_link },
        { .name = "modtime", .text = take_time },
        { .name = "digest", .text = take_digest },
        { .name = "chunkDigest", .text = take_chunk_digest },
        { .name = "chunkType", .text = take_chunk_type },
        { .name = "xattrs", .opens = '{' },
        NUMBER("size", size, INT64_MAX),
        NUMBER("mode", mode, UINT32_MAX),
        NUMBER("uid", uid, UINT32_MAX),
        NUMBER("gid", gid, UINT32_MAX),
        NUMBER("devMajor", major, 0xfff), /* those of dev_t, as in tar.h */
        NUMBER("devMinor", minor, 0xfffff),
        NUMBER("offset", offset, INT64_MAX),
        NUMBER("endOffset", end_offset, INT64_MAX),
        NUMBER("innerOffset", inner_offset, INT64_MAX),
        NUMBER("chunkOffset", chunk_offset, INT64_MAX),
        NUMBER("chunkSize", chunk_size, INT64_MAX),
};

_Static_assert(ELEMENTSOF(entry_members) <= 32, "entry_seen has a bit for each");

/* What of TABLE the key names: sets p->member, NULL for what is unknown. */
static int find_member(struct toc_parser *p, const struct member *table, size_t count, uint32_t *seen, const char *key,
                       size_t n)
{
        p->member = NULL;
        for (size_t k = 0; k < count; k++) {
                const char *name = table[k].name;

                if (n != strlen(name) || strncasecmp(key, name, n) != 0)
                        continue;
                if (memcmp(key, name, n) != 0)
                        return refuse(p, "a member named %.*s, which some take for %s", (int) n, key, name);
                if (*seen & 1u << k)
                        return refuse(p, "%s twice", name);
                *seen |= 1u << k;
                p->member = &table[k];
                break;
        }
        return 1;
}

/* ---- xattrs ---- */

static int append_xattr(struct toc_parser *p, const void *data, size_t n)
{
        int r = buf_append(&p->xattr_bytes, data, n);

        if (r == -EFBIG)
                return refuse(p, "more than 1 MiB of xattrs");
        return r < 0 ? out_of_memory(p) : 1;
}

static int begin_xattr(struct toc_parser *p, const char *name, size_t n)
{
        struct xattr_text x = { .name = p->xattr_bytes.len };

        if (p->xattr_count >= ITABLE_XATTR_COUNT_MAX)
                return refuse(p, "more than %d xattrs", ITABLE_XATTR_COUNT_MAX);
        if (n == 0 || n > ITABLE_XATTR_NAME_MAX || memchr(name, 0, n))
                return refuse(p, "an xattr's name is empty, longer than %d bytes or has a NUL", ITABLE_XATTR_NAME_MAX);
        if (array_reserve(p->xattrs, &p->xattrs_allocated, p->xattr_count + 1) < 0)
                return out_of_memory(p);
        p->xattrs[p->xattr_count++] = x;
        return append_xattr(p, name, n) && append_xattr(p, "", 1);
}

static int end_xattr(struct toc_parser *p, const char *text, size_t n)
{
        struct xattr_text *x = &p->xattrs[p->xattr_count - 1];
        _cleanup_free_ char *terminated = NULL;
        _cleanup_free_ uint8_t *value = NULL;
        int r = -EINVAL;

        if (n > BASE64_LENGTH(ITABLE_XATTR_VALUE_MAX))
                return refuse(p, "xattr %s is longer than %d bytes", p->xattr_bytes.data + x->name,
                              ITABLE_XATTR_VALUE_MAX);
        terminated = strndup(text, n);
        if (!terminated)
                return out_of_memory(p);
        if (strlen(terminated) == n)
                r = base64_decode(terminated, &value, &x->value_length);
        if (r == -EINVAL)
                return refuse(p, "xattr %s is not in base64", p->xattr_bytes.data + x->name);
        if (r < 0)
                return out_of_memory(p);
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

static void begin_entry(struct toc_parser *p)
{
        p->place = PLACE_ENTRY;
        p->count++;
        p->at = (struct toc_entry) { .name = p->name, .link = p->link };
        p->name[0] = p->link[0] = '\0';
        p->entry_seen = 0;
        p->xattr_count = 0;
        p->xattr_bytes.len = 0;
}

static int end_entry(struct toc_parser *p)
{
        int r;

        if (p->at.type == TOC_ENTRY_NONE)
                return refuse(p, "no type");
        if (!p->name[0] && p->at.type != TOC_ENTRY_CHUNK)
                return refuse(p, "no name");
        if (p->xattr_count > 0 && view_xattrs(p) < 0)
                return out_of_memory(p);
        r = p->entry(p->context, &p->at, p->e);
        if (r < 0) {
                p->failed = r;
                error_prefix(p->e, "entry %ju", (uintmax_t) p->count);
                return 0;
        }
        p->place = PLACE_ENTRIES;
        return 1;
}

/* ---- yajl's events ---- */

/* Every event begins here: yajl has got on. Returns the parser. */
static struct toc_parser *on_event(void *context)
{
        struct toc_parser *p = context;

        p->quiet = 0;
        return p;
}

/* True when the value that comes is not looked at; otherwise a member expects it, or nothing may stand here. */
static bool is_passed_over(const struct toc_parser *p)
{
        return p->unknown > 0 || ((p->place == PLACE_DOCUMENT || p->place == PLACE_ENTRY) && !p->member);
}

static int misplaced(struct toc_parser *p)
{
        switch (p->place) {
        case PLACE_DOCUMENT:
        case PLACE_ENTRY:
                return refuse(p, "%s has a value of the wrong type", p->member->name);
        case PLACE_ENTRIES:
                return refuse(p, "an element of entries is no object");
        case PLACE_XATTRS:
                return refuse(p, "an xattr is no string");
        case PLACE_START:
        case PLACE_END:
                break;
        }
        return refuse(p, "the JSON is no object");
}

/* Null leaves a member as if it were absent, in Go's reader too. */
static int on_null(void *context)
{
        struct toc_parser *p = on_event(context);
        bool absent = p->place == PLACE_ENTRY || p->place == PLACE_XATTRS;

        return is_passed_over(p) || absent ? 1 : misplaced(p);
}

static int on_boolean(void *context, _unused_ int value)
{
        struct toc_parser *p = on_event(context);

        return is_passed_over(p) ? 1 : misplaced(p);
}

static int take_number(struct toc_parser *p, uint64_t n)
{
        const struct member *m = p->member;
        uint8_t *field = (uint8_t *) &p->at + m->field;

        if (m->number)
                return m->number(p, n);
        if (m->max > UINT32_MAX)
                memcpy(field, &n, sizeof(uint64_t));
        else
                memcpy(field, &n, sizeof(uint32_t)); /* little-endian, as regfs is */
        return 1;
}

static int on_number(void *context, const char *text, size_t n)
{
        struct toc_parser *p = on_event(context);
        char terminated[24];
        uint64_t number;

        if (is_passed_over(p))
                return 1;
        if ((p->place != PLACE_DOCUMENT && p->place != PLACE_ENTRY) || p->member->max == 0)
                return misplaced(p);
        snprintf(terminated, sizeof(terminated), "%.*s", (int) MIN(n, sizeof(terminated) - 1), text);
        if (n >= sizeof(terminated) || str_to_u64(terminated, &number) < 0 || number > p->member->max)
                return refuse(p, "%s is not a whole number from 0 to %ju", p->member->name, (uintmax_t) p->member->max);
        return take_number(p, number);
}

static int on_string(void *context, const unsigned char *text, size_t n)
{
        struct toc_parser *p = on_event(context);

        if (is_passed_over(p))
                return 1;
        if (p->place == PLACE_XATTRS)
                return end_xattr(p, (const char *) text, n);
        if ((p->place != PLACE_DOCUMENT && p->place != PLACE_ENTRY) || !p->member->text)
                return misplaced(p);
        return p->member->text(p, (const char *) text, n);
}

static int on_key(void *context, const unsigned char *text, size_t n)
{
        struct toc_parser *p = on_event(context);
        const char *key = (const char *) text;

        if (p->unknown > 0)
                return 1;
        if (p->place == PLACE_XATTRS)
                return begin_xattr(p, key, n);
        if (p->place == PLACE_ENTRY)
                return find_member(p, entry_members, ELEMENTSOF(entry_members), &p->entry_seen, key, n);
        return find_member(p, document_members, ELEMENTSOF(document_members), &p->document_seen, key, n);
}

static int open_unknown(struct toc_parser *p)
{
        if (++p->unknown > NESTING_MAX)
                return refuse(p, "the JSON nests more than %u deep", NESTING_MAX);
        return 1;
}

static int on_start_map(void *context)
{
        struct toc_parser *p = on_event(context);

        if (is_passed_over(p))
                return open_unknown(p);
        if (p->place == PLACE_START) {
                p->place = PLACE_DOCUMENT;
        } else if (p->place == PLACE_ENTRIES) {
                begin_entry(p);
        } else if (p->place == PLACE_ENTRY && p->member->opens == '{') {
                p->place = PLACE_XATTRS;
        } else {
                return misplaced(p);
        }
        return 1;
}

static int on_end_map(void *context)
{
        struct toc_parser *p = on_event(context);

        if (p->unknown > 0)
                p->unknown--;
        else if (p->place == PLACE_XATTRS)
                p->place = PLACE_ENTRY;
        else if (p->place == PLACE_ENTRY)
                return end_entry(p);
        else
                p->place = PLACE_END;
        return 1;
}

static int on_start_array(void *context)
{
        struct toc_parser *p = on_event(context);

        if (is_passed_over(p))
                return open_unknown(p);
        if (p->place != PLACE_DOCUMENT || p->member->opens != '[')
                return misplaced(p);
        p->place = PLACE_ENTRIES;
        return 1;
}

static int on_end_array(void *context)
{
        struct toc_parser *p = on_event(context);

        if (p->unknown > 0)
                p->unknown--;
        else
                p->place = PLACE_DOCUMENT;
        return 1;
}

static const yajl_callbacks events = {
        .yajl_null = on_null,
        .yajl_boolean = on_boolean,
        .yajl_number = on_number,
        .yajl_string = on_string,
        .yajl_start_map = on_start_map,
        .yajl_map_key = on_key,
        .yajl_end_map = on_end_map,
        .yajl_start_array = on_start_array,
        .yajl_end_array = on_end_array,
};

/* ---- feeding ---- */

int toc_parser_new(toc_entry_fn *entry, void *context, struct toc_parser **ret)
{
        _cleanup_(toc_parser_free_ptr) struct toc_parser *p = calloc(1, sizeof(*p));
        yajl_alloc_funcs memory = { .malloc = arena_malloc, .realloc = arena_realloc, .free = arena_free };

        if (!p)
                return -ENOMEM;
        p->entry = entry;
        p->context = context;
        p->xattr_bytes.max = XATTRS_MAX;
        p->arena.memory = mmap(NULL, ARENA_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p->arena.memory == MAP_FAILED) {
                p->arena.memory = NULL;
                return -ENOMEM;
        }
        memory.ctx = &p->arena;
        p->yajl = yajl_alloc(&events, &memory, p);
        if (!p->yajl)
                return -ENOMEM;
        *ret = steal_ptr(p);
        return 0;
}

struct toc_parser *toc_parser_free(struct toc_parser *p)
{
        if (!p)
                return NULL;
        if (p->yajl)
                yajl_free(p->yajl);
        if (p->arena.memory)
                munmap(p->arena.memory, ARENA_SIZE);
        buf_free(&p->xattr_bytes);
        free(p->xattrs);
        free(p->views);
        free(p);
        return NULL;
}

/* yajl makes something of halves of surrogate pairs that other readers make something else of. No writer of these tables
 * escapes characters that need a pair, so whatever does is refused. */
static bool has_surrogate(struct toc_parser *p, const uint8_t *data, size_t n)
{
        const uint8_t *at = data, *end = data + n;

        while (at < end) {
                uint8_t c;

                if (p->escape == 0) {
                        at = memchr(at, '\\', (size_t) (end - at));
                        if (!at)
                                return false;
                }
                c = *at++;
                if (p->escape == 0 || (p->escape == 1 && c == 'u') || (p->escape == 2 && (c | 0x20) == 'd'))
                        p->escape++;
                else if (p->escape == 3 && (c == '8' || c == '9' || ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')))
                        return true;
                else
                        p->escape = 0;
        }
        return false;
}

/* What yajl has to say, AT bytes behind those fed before, or what a callback said already. */
static int failed(struct toc_parser *p, yajl_status status, size_t at)
{
        unsigned char *text;

        if (status != yajl_status_error)
                return p->failed;
        text = yajl_get_error(p->yajl, 0, NULL, 0);
        refuse(p, "JSON, byte %ju: %.*s", (uintmax_t) (p->fed + at), text ? (int) strcspn((char *) text, "\n") : 9,
               text ? (char *) text : "malformed");
        return p->failed;
}

static int feed_piece(struct toc_parser *p, const uint8_t *data, size_t n)
{
        yajl_status status;

        if (has_surrogate(p, data, n))
                refuse(p, "JSON: a \\u escape of half a character");
        if (p->failed)
                return p->failed;
        p->quiet += n;
        status = yajl_parse(p->yajl, data, n);
        if (status != yajl_status_ok)
                return failed(p, status, yajl_get_bytes_consumed(p->yajl));
        p->fed += n;
        if (p->quiet > TOKEN_MAX)
                refuse(p, "JSON: more than %zu bytes without a value", TOKEN_MAX);
        return p->failed;
}

int toc_parser_feed(struct toc_parser *p, const uint8_t *data, size_t n, struct error *e)
{
        struct error ignored = ERROR_INIT;
        int r = 0;

        if (p->failed)
                return error_set(e, ERROR_BAD_DATA, -p->failed, "the table has failed before");
        p->e = e ? e : &ignored;
        for (size_t done = 0; r == 0 && done < n; done += PIECE)
                r = feed_piece(p, data + done, MIN(n - done, PIECE));
        return r;
}

int toc_parser_finish(struct toc_parser *p, struct error *e)
{
        struct error ignored = ERROR_INIT;
        yajl_status status;

        if (p->failed)
                return error_set(e, ERROR_BAD_DATA, -p->failed, "the table has failed before");
        p->e = e ? e : &ignored;
        status = yajl_complete_parse(p->yajl);
        if (status != yajl_status_ok)
                return failed(p, status, 0);
        for (size_t k = 0; k < ELEMENTSOF(document_members); k++)
                if (!(p->document_seen & 1u << k))
                        refuse(p, "the JSON has no %s", document_members[k].name);
        return p->failed;
}
