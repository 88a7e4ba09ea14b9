/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The inside of struct toc_parser: embedded_json.c knows where in the document it is, embedded_entry.c what the
 * values there mean. Functions that return an int return 0, or -errno with `failed` set to the same. */

#include "embedded_internal.h"
#include "regfs/json_scan.h"
#include "regfs/text.h"

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

/* The value of a member that is a string, or a number. */
typedef int take_text_fn(struct toc_parser *p, const char *text, size_t n);
typedef int take_number_fn(struct toc_parser *p, uint64_t n);

struct member {
        const char *name;
        size_t length; /* of the name */
        take_text_fn *text;
        take_number_fn *number;
        size_t field; /* of a number: in struct toc_entry, where MAX says how wide it is */
        uint64_t max;
        char opens; /* '[' or '{': the value is looked into */
};

/* What the last text that was a time says; its length is 0 when it is not kept. */
struct known_time {
        char text[40];
        size_t length;
        int64_t seconds;
        uint32_t nanoseconds;
};

/* The last digest, and its text of "sha256:" and hex digits. */
struct known_digest {
        char text[7 + 2 * SHA256_SIZE];
        struct digest digest;
};

struct toc_parser {
        toc_entry_fn *entry;
        void *context;
        struct json_scan *scan;
        struct error *e; /* of the call under way */
        int failed;

        enum place place;
        unsigned unknown;                   /* levels of what is passed over */
        const struct member *member;        /* whose value comes next; NULL: it is passed over */
        uint32_t document_seen, entry_seen; /* members, by index */
        size_t next_member;                 /* of the entry, if it has all of them in their order */

        uint64_t count; /* of entries, the one at hand included */
        struct toc_entry at;
        struct known_time known_time;
        struct known_digest known_digest;
        char name[ITABLE_PATH_MAX + 1];
        char link[ITABLE_PATH_MAX + 1];
        struct buf xattr_bytes;
        struct xattr_text *xattrs;
        struct layer_xattr *views;
        size_t xattr_count, xattrs_allocated, views_allocated;
};

/* Says what is wrong, naming the entry at hand if there is one. */
int parser_refuse(struct toc_parser *p, const char *format, ...) _printf_(2, 3);
int parser_oom(struct toc_parser *p);

/* A key: of the document, of the entry at hand. Sets p->member. */
int parser_document_key(struct toc_parser *p, const char *key, size_t n);
int parser_entry_key(struct toc_parser *p, const char *key, size_t n);

/* Every member that a value must be there for has had one. */
int parser_check_document(struct toc_parser *p);

/* A number that p->member may have. */
int parser_take_number(struct toc_parser *p, uint64_t n);

int parser_begin_xattr(struct toc_parser *p, const char *name, size_t n);
int parser_end_xattr(struct toc_parser *p, const char *text, size_t n);

void parser_begin_entry(struct toc_parser *p);
int parser_end_entry(struct toc_parser *p); /* hands it to the callback */
