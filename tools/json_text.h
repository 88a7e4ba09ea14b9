/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A JSON document that grows piece by piece. NAME is that of the member, or NULL in an array and at the top. */

#include "regfs/text.h"

struct json_text {
        struct buf text;
        bool comma; /* something stands before what comes next */
        int error;  /* the first one; nothing is added after it */
};

void json_text_open(struct json_text *j, const char *name, char bracket); /* '{' or '[' */
void json_text_close(struct json_text *j, char bracket);
void json_text_string(struct json_text *j, const char *name, const char *value); /* NULL: null */
void json_text_number(struct json_text *j, const char *name, uint64_t value);
void json_text_bool(struct json_text *j, const char *name, bool value);

/* Writes it to standard output, with a newline, and frees it. Returns 0 or -errno. */
int json_text_print(struct json_text *j);
