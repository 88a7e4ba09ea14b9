/* SPDX-License-Identifier: Apache-2.0 */

/* Entry by entry out of the JSON, on yajl's events: the document is never in memory, only the entry at hand is.
 *
 * What of yajl is not bounded is bounded here: nesting (it keeps a byte for each level) by counting, the length of a
 * token (it collects one that is cut by the end of a piece) by the bytes fed since its last event. It does not look
 * whether there is memory, so it gets all of it in advance. */

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "embedded_json.h"

#define PIECE (64 * KIB)
#define TOKEN_MAX (1 * MIB)
#define NESTING_MAX 32u
#define XATTRS_MAX (1 * MIB) /* of one entry, as in tar.h */

/* yajl's two buffers grow by doubling up to twice a token, so all that they ever were is less than eight times that. */
#define ARENA_SIZE (16 * MIB)

/* ---- yajl's memory ---- */

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
                return parser_refuse(p, "%s has a value of the wrong type", p->member->name);
        case PLACE_ENTRIES:
                return parser_refuse(p, "an element of entries is no object");
        case PLACE_XATTRS:
                return parser_refuse(p, "an xattr is no string");
        case PLACE_START:
        case PLACE_END:
                break;
        }
        return parser_refuse(p, "the JSON is no object");
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

/* Digits alone: no sign, no fraction, no exponent. */
static bool parse_whole(const char *text, size_t n, uint64_t *ret)
{
        uint64_t number = 0;

        if (n == 0 || n > 19) /* 10^19 - 1 is less than 2^64 */
                return false;
        for (size_t k = 0; k < n; k++) {
                if (text[k] < '0' || text[k] > '9')
                        return false;
                number = 10 * number + (uint64_t) (text[k] - '0');
        }
        *ret = number;
        return true;
}

static int on_number(void *context, const char *text, size_t n)
{
        struct toc_parser *p = on_event(context);
        uint64_t number;

        if (is_passed_over(p))
                return 1;
        if ((p->place != PLACE_DOCUMENT && p->place != PLACE_ENTRY) || p->member->max == 0)
                return misplaced(p);
        if (!parse_whole(text, n, &number) || number > p->member->max)
                return parser_refuse(p, "%s is not a whole number from 0 to %ju", p->member->name,
                                     (uintmax_t) p->member->max);
        return parser_take_number(p, number);
}

static int on_string(void *context, const unsigned char *text, size_t n)
{
        struct toc_parser *p = on_event(context);

        if (is_passed_over(p))
                return 1;
        if (p->place == PLACE_XATTRS)
                return parser_end_xattr(p, (const char *) text, n);
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
                return parser_begin_xattr(p, key, n);
        if (p->place == PLACE_ENTRY)
                return parser_entry_key(p, key, n);
        return parser_document_key(p, key, n);
}

static int open_unknown(struct toc_parser *p)
{
        if (++p->unknown > NESTING_MAX)
                return parser_refuse(p, "the JSON nests more than %u deep", NESTING_MAX);
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
                parser_begin_entry(p);
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

        if (p->unknown > 0) {
                p->unknown--;
        } else if (p->place == PLACE_XATTRS) {
                p->place = PLACE_ENTRY;
        } else if (p->place == PLACE_ENTRY) {
                return parser_end_entry(p);
        } else {
                p->place = PLACE_END;
                p->end = p->fed + yajl_get_bytes_consumed(p->yajl);
        }
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

/* yajl makes something of halves of surrogate pairs that other readers make something else of. No writer of these
 * tables escapes characters that need a pair, so whatever does is refused. */
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
        parser_refuse(p, "JSON, byte %ju: %.*s", (uintmax_t) (p->fed + at),
                      text ? (int) strcspn((char *) text, "\n") : 9, text ? (char *) text : "malformed");
        return p->failed;
}

/* What follows the document and is a whole token, yajl refuses; a string without end it would take for nothing. */
static void check_behind(struct toc_parser *p, const uint8_t *data, size_t n)
{
        size_t at = p->end > p->fed ? (size_t) (p->end - p->fed) : 0;

        while (at < n && data[at] != '\0' && strchr(" \t\r\n", data[at]))
                at++;
        if (at < n)
                parser_refuse(p, "JSON, byte %ju: more behind its end", (uintmax_t) (p->fed + at));
}

static int feed_piece(struct toc_parser *p, const uint8_t *data, size_t n)
{
        yajl_status status;

        if (has_surrogate(p, data, n))
                parser_refuse(p, "JSON: a \\u escape of half a character");
        if (p->failed)
                return p->failed;
        p->quiet += n;
        status = yajl_parse(p->yajl, data, n);
        if (status != yajl_status_ok)
                return failed(p, status, yajl_get_bytes_consumed(p->yajl));
        if (p->place == PLACE_END)
                check_behind(p, data, n);
        p->fed += n;
        if (p->quiet > TOKEN_MAX)
                parser_refuse(p, "JSON: more than %zu bytes without a value", TOKEN_MAX);
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
        parser_check_document(p);
        return p->failed;
}
