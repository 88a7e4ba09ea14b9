/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The events of a scan of JSON as text: their context is a struct buf. */

#include "regfs/json_scan.h"
#include "regfs/text.h"

static inline int transcript_put(struct buf *b, const char *sign, const char *text, size_t n)
{
        int r = buf_append_str(b, sign);

        if (r == 0)
                r = buf_append(b, text, n);
        return r < 0 ? r : buf_append_char(b, ' ');
}

static inline int transcript_null(void *context)
{
        return transcript_put(context, "null", "", 0);
}

static inline int transcript_boolean(void *context, bool value)
{
        return transcript_put(context, value ? "yes" : "no", "", 0);
}

static inline int transcript_number(void *context, const char *digits, size_t n)
{
        return transcript_put(context, "#", digits, n);
}

static inline int transcript_string(void *context, const char *text, size_t n)
{
        return transcript_put(context, "'", text, n);
}

static inline int transcript_key(void *context, const char *text, size_t n)
{
        return transcript_put(context, ".", text, n);
}

static inline int transcript_begin_object(void *context)
{
        return transcript_put(context, "{", "", 0);
}

static inline int transcript_end_object(void *context)
{
        return transcript_put(context, "}", "", 0);
}

static inline int transcript_begin_array(void *context)
{
        return transcript_put(context, "[", "", 0);
}

static inline int transcript_end_array(void *context)
{
        return transcript_put(context, "]", "", 0);
}

static const struct json_events transcript_events = {
        .null = transcript_null,
        .boolean = transcript_boolean,
        .number = transcript_number,
        .string = transcript_string,
        .key = transcript_key,
        .begin_object = transcript_begin_object,
        .end_object = transcript_end_object,
        .begin_array = transcript_begin_array,
        .end_array = transcript_end_array,
};
