/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* JSON documents of registries and credential files: small, parsed whole, read with types checked.
 * Strict: one value, nothing but white space behind it, valid UTF-8 in strings, numbers as RFC 8259 writes them,
 * nesting of at most 64. Of members with the same name the first one counts. */

#include "regfs/base.h"
#include "regfs/error.h"

struct json; /* a value; the root owns the whole document */

/* Returns 0, or -EBADMSG with E: what is wrong, and at which byte. DATA need not be NUL-terminated. */
int json_parse(const char *data, size_t n, struct json **ret, struct error *e);

/* Frees a root; NULL is legal. Returns NULL. */
struct json *json_free(struct json *root);
DEFINE_CLEANUP(struct json *, json_free)

bool json_is_object(const struct json *v);
bool json_is_array(const struct json *v);
bool json_is_null(const struct json *v);

/* The member of an object by exact (case-sensitive) name; NULL when absent, or when V is NULL or no object. */
const struct json *json_member(const struct json *v, const char *name);

/* Text of a string value, borrowed from the document; NULL for anything else, and for one with an embedded NUL. */
const char *json_text(const struct json *v);

/* json_text of a member. */
const char *json_member_text(const struct json *v, const char *name);

/* A whole number from 0 to 2^53 - 1: beyond, a double may stand for several. Returns 0, -ENOENT when V is NULL,
 * -EINVAL for anything else. */
int json_u64(const struct json *v, uint64_t *ret);
int json_bool(const struct json *v, bool *ret);

/* Elements of an array or members of an object: for (c = json_first(v); c; c = json_next(c)); NULL-safe. */
const struct json *json_first(const struct json *v);
const struct json *json_next(const struct json *v);

/* Name of an object's member met while iterating; NULL for an element of an array. A name with an embedded NUL is shown
 * as one that no valid UTF-8 equals. */
const char *json_name(const struct json *v);

/* Writing: appends TEXT to *B as a JSON string, quotes included. What is no UTF-8 passes as it is. 0 or -ENOMEM. */
struct buf;
int json_quote(struct buf *b, const char *text);
