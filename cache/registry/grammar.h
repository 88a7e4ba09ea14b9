/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The pieces of a registry reference, as distribution/reference writes them down. Each check returns NULL for a valid
 * piece, else what is wrong with it (static storage), as the second half of a sentence. */

#include "regfs/base.h"

#define REPOSITORY_MAX 255 /* bytes of a repository's name, without the host */
#define TAG_MAX 128

/* "example.com", "localhost:5000", "192.0.2.1", "[2001:db8::1]:5000". */
const char *grammar_check_host(const char *s);

/* Components of lower-case letters and digits, with single separators inside, joined by slashes. */
const char *grammar_check_repository(const char *s);

const char *grammar_check_tag(const char *s);

/* True for the first component of a name when it can only be a host: it has a dot, a colon or an upper-case letter, or
 * it is "localhost". */
bool grammar_looks_like_host(const char *s);
