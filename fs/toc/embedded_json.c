/* SPDX-License-Identifier: Apache-2.0 */

/* Entry by entry out of the JSON, on the events of its scan: the document is never in memory, only the entry at hand is. */

#include <string.h>

#include "embedded_json.h"

#define PIECE (64 * KIB)
#define TOKEN_MAX (1 * MIB)
#define NESTING_MAX 32u
#define XATTRS_MAX (1 * MIB) /* of one entry, as in tar.h */

/* ---- the scan's events ---- */

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
        struct toc_parser *p = context;
        bool absent = p->place == PLACE_ENTRY || p->place == PLACE_XATTRS;

        return is_passed_over(p) || absent ? 0 : misplaced(p);
}

static int on_boolean(void *context, _unused_ bool value)
{
        struct toc_parser *p = context;

        return is_passed_over(p) ? 0 : misplaced(p);
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
        struct toc_parser *p = context;
        uint64_t number;

        if (is_passed_over(p))
                return 0;
        if ((p->place != PLACE_DOCUMENT && p->place != PLACE_ENTRY) || p->member->max == 0)
                return misplaced(p);
        if (!parse_whole(text, n, &number) || number > p->member->max)
                return parser_refuse(p, "%s is not a whole number from 0 to %ju", p->member->name,
                                     (uintmax_t) p->member->max);
        return parser_take_number(p, number);
}

static int on_string(void *context, const char *text, size_t n)
{
        struct toc_parser *p = context;

        if (is_passed_over(p))
                return 0;
        if (p->place == PLACE_XATTRS)
                return parser_end_xattr(p, text, n);
        if ((p->place != PLACE_DOCUMENT && p->place != PLACE_ENTRY) || !p->member->text)
                return misplaced(p);
        return p->member->text(p, text, n);
}

static int on_key(void *context, const char *key, size_t n)
{
        struct toc_parser *p = context;

        if (p->unknown > 0)
                return 0;
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
        return 0;
}

static int on_begin_object(void *context)
{
        struct toc_parser *p = context;

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
        return 0;
}

static int on_end_object(void *context)
{
        struct toc_parser *p = context;

        if (p->unknown > 0) {
                p->unknown--;
        } else if (p->place == PLACE_XATTRS) {
                p->place = PLACE_ENTRY;
        } else if (p->place == PLACE_ENTRY) {
                return parser_end_entry(p);
        } else {
                p->place = PLACE_END;
        }
        return 0;
}

static int on_begin_array(void *context)
{
        struct toc_parser *p = context;

        if (is_passed_over(p))
                return open_unknown(p);
        if (p->place != PLACE_DOCUMENT || p->member->opens != '[')
                return misplaced(p);
        p->place = PLACE_ENTRIES;
        return 0;
}

static int on_end_array(void *context)
{
        struct toc_parser *p = context;

        if (p->unknown > 0)
                p->unknown--;
        else
                p->place = PLACE_DOCUMENT;
        return 0;
}

static const struct json_events events = {
        .null = on_null,
        .boolean = on_boolean,
        .number = on_number,
        .string = on_string,
        .key = on_key,
        .begin_object = on_begin_object,
        .end_object = on_end_object,
        .begin_array = on_begin_array,
        .end_array = on_end_array,
};

/* ---- feeding ---- */

int toc_parser_new(toc_entry_fn *entry, void *context, struct toc_parser **ret)
{
        _cleanup_(toc_parser_free_ptr) struct toc_parser *p = calloc(1, sizeof(*p));

        if (!p || json_scan_new(&events, p, TOKEN_MAX, &p->scan) < 0)
                return -ENOMEM;
        p->entry = entry;
        p->context = context;
        p->xattr_bytes.max = XATTRS_MAX;
        *ret = steal_ptr(p);
        return 0;
}

struct toc_parser *toc_parser_free(struct toc_parser *p)
{
        if (!p)
                return NULL;
        json_scan_free(p->scan);
        buf_free(&p->xattr_bytes);
        free(p->xattrs);
        free(p->views);
        free(p);
        return NULL;
}

/* What the scan ended with, or a callback did, which has told why. */
static int ended(struct toc_parser *p, int r)
{
        const char *wrong;
        uint64_t at;

        if (r == 0 || p->failed)
                return p->failed;
        wrong = json_scan_wrong(p->scan, &at);
        return wrong ? parser_refuse(p, "JSON, byte %ju: %s", (uintmax_t) at, wrong) : parser_oom(p);
}

int toc_parser_feed(struct toc_parser *p, const uint8_t *data, size_t n, struct error *e)
{
        struct error ignored = ERROR_INIT;
        int r = 0;

        if (p->failed)
                return error_set(e, ERROR_BAD_DATA, -p->failed, "the table has failed before");
        p->e = e ? e : &ignored;
        for (size_t done = 0; r == 0 && done < n; done += PIECE)
                r = json_scan_feed(p->scan, data + done, MIN(n - done, PIECE));
        return ended(p, r);
}

int toc_parser_finish(struct toc_parser *p, struct error *e)
{
        struct error ignored = ERROR_INIT;
        int r;

        if (p->failed)
                return error_set(e, ERROR_BAD_DATA, -p->failed, "the table has failed before");
        p->e = e ? e : &ignored;
        r = ended(p, json_scan_finish(p->scan));
        return r < 0 ? r : parser_check_document(p);
}
