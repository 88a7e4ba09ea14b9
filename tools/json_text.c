/* SPDX-License-Identifier: Apache-2.0 */

#include "json_text.h"

#include <errno.h>
#include <stdio.h>

#include "regfs/json.h"

static void keep_error(struct json_text *j, int r)
{
        if (j->error == 0)
                j->error = r;
}

static void append(struct json_text *j, const char *s)
{
        if (j->error == 0)
                keep_error(j, buf_append_str(&j->text, s));
}

static void begin(struct json_text *j, const char *name)
{
        if (j->comma)
                append(j, ", ");
        j->comma = true;
        if (!name)
                return;
        if (j->error == 0)
                keep_error(j, json_quote(&j->text, name));
        append(j, ": ");
}

void json_text_open(struct json_text *j, const char *name, char bracket)
{
        begin(j, name);
        append(j, bracket == '{' ? "{" : "[");
        j->comma = false;
}

void json_text_close(struct json_text *j, char bracket)
{
        append(j, bracket == '}' ? "}" : "]");
        j->comma = true;
}

void json_text_string(struct json_text *j, const char *name, const char *value)
{
        begin(j, name);
        if (!value)
                append(j, "null");
        else if (j->error == 0)
                keep_error(j, json_quote(&j->text, value));
}

void json_text_number(struct json_text *j, const char *name, uint64_t value)
{
        begin(j, name);
        if (j->error == 0)
                keep_error(j, buf_printf(&j->text, "%ju", (uintmax_t) value));
}

void json_text_bool(struct json_text *j, const char *name, bool value)
{
        begin(j, name);
        append(j, value ? "true" : "false");
}

int json_text_print(struct json_text *j)
{
        int r = j->error;

        if (r == 0 && (fwrite(j->text.data, 1, j->text.len, stdout) != j->text.len || putchar('\n') == EOF))
                r = -EIO;
        buf_free(&j->text);
        *j = (struct json_text) { 0 };
        return r;
}
