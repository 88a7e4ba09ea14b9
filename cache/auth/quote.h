/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What a peer wrote, made fit for an error message: at most QUOTE_MAX of the N bytes at S and "..." where it was cut;
 * quotes, backslashes and everything but printable ASCII as \xNN. OUT has QUOTE_SIZE bytes. Returns OUT. */

#include "regfs/base.h"

#define QUOTE_MAX ((size_t) 200)
#define QUOTE_SIZE (4 * QUOTE_MAX + sizeof("..."))

char *auth_quote(const char *s, size_t n, char *out);
