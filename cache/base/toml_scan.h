/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The characters of a TOML document, and the values and names that have no structure: strings, words, parts of keys. */

#include <string.h>

#include "regfs/base.h"
#include "regfs/error.h"

struct toml_scan {
        const char *text; /* once toml_scan_check has passed: UTF-8 without controls but TAB, LF and CRLF */
        size_t length;
        size_t at;
        unsigned depth; /* of arrays and inline tables */
        struct error *e;
};

/* Returns -EBADMSG with "line N: …" for the place that the scan is at. */
int toml_scan_wrong(struct toml_scan *p, const char *format, ...) _printf_(2, 3);

/* Looks through the whole text for what no document may have. Returns 0, or -EBADMSG with E. */
int toml_scan_check(struct toml_scan *p);

/* A string, at its quote; when BLOCK is allowed, also one in three quotes. The caller frees.
 * This and the following return 0 or -errno with E. */
int toml_scan_string(struct toml_scan *p, bool block, char **ret);

/* One part of a dotted key. The caller frees. */
int toml_scan_name(struct toml_scan *p, char **ret);

/* true, false or an integer: *ret_boolean or *ret_integer is set, as *ret_is_boolean says. */
int toml_scan_word(struct toml_scan *p, bool *ret_is_boolean, bool *ret_boolean, int64_t *ret_integer);

/* The character K places on; NUL, which no text has, past the end. */
static inline char scan_peek_at(const struct toml_scan *p, size_t k)
{
        return k < p->length - p->at ? p->text[p->at + k] : '\0';
}

static inline char scan_peek(const struct toml_scan *p)
{
        return scan_peek_at(p, 0);
}

static inline bool scan_at_end(const struct toml_scan *p)
{
        return p->at == p->length;
}

static inline bool scan_skip(struct toml_scan *p, const char *token)
{
        size_t n = strlen(token);

        if (n > p->length - p->at || memcmp(p->text + p->at, token, n) != 0)
                return false;
        p->at += n;
        return true;
}

static inline void scan_skip_blanks(struct toml_scan *p)
{
        while (scan_peek(p) == ' ' || scan_peek(p) == '\t')
                p->at++;
}

static inline bool scan_skip_newline(struct toml_scan *p)
{
        return scan_skip(p, "\n") || scan_skip(p, "\r\n");
}
