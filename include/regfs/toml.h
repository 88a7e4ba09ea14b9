/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The subset of TOML 1.0 that registries.conf is written in: comments, tables, arrays of tables, bare, quoted and
 * dotted keys, basic and literal strings (also multi-line), booleans, integers, arrays, inline tables.
 * Dates and floats are refused. A key or table defined twice is an error, as TOML demands. */

#include "regfs/base.h"
#include "regfs/error.h"

struct toml; /* a value; the root table owns the document */

/* Returns 0, or -EBADMSG with E: "line N: …". */
int toml_parse(const char *data, size_t n, struct toml **ret, struct error *e);
struct toml *toml_free(struct toml *root);
DEFINE_CLEANUP(struct toml *, toml_free)

enum toml_type { TOML_STRING, TOML_BOOL, TOML_INTEGER, TOML_ARRAY, TOML_TABLE };
enum toml_type toml_type(const struct toml *v);

/* Member of a table by name: NULL when absent, or when V is NULL or no table. */
const struct toml *toml_member(const struct toml *v, const char *name);

/* Borrowed text of a string; NULL for other types and for NULL. */
const char *toml_text(const struct toml *v);

/* Return 0, -ENOENT for NULL, -EINVAL for another type. */
int toml_bool(const struct toml *v, bool *ret);
int toml_integer(const struct toml *v, int64_t *ret);

/* Members of a table or elements of an array in the order of the file; NULL-safe. */
const struct toml *toml_first(const struct toml *v);
const struct toml *toml_next(const struct toml *v);
const char *toml_name(const struct toml *v);
