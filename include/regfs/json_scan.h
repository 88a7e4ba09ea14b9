/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* JSON (RFC 8259) as a stream of events, pushed in pieces of any size: for documents that are too long to be in memory,
 * and for checking those that a more lenient reader takes. Strict: one value and nothing behind it but white space, valid
 * UTF-8 in strings, no escape of half a character, nesting of at most JSON_DEPTH_MAX.
 *
 * In memory is what a piece has begun and not ended: a string, number or word, up to a bound. One thread at a time. */

#include "regfs/base.h"

#define JSON_DEPTH_MAX 64

/* Text is decoded and not terminated; it may hold NULs. It is borrowed for the call, and so are digits, as written. Return 0,
 * or -errno: that ends the scan. NULL: not looked at. */
struct json_events {
        int (*null)(void *context);
        int (*boolean)(void *context, bool value);
        int (*number)(void *context, const char *digits, size_t n);
        int (*string)(void *context, const char *text, size_t n);
        int (*key)(void *context, const char *text, size_t n); /* of the member whose value is next */
        int (*begin_object)(void *context);
        int (*end_object)(void *context);
        int (*begin_array)(void *context);
        int (*end_array)(void *context);
};

struct json_scan;

/* EVENTS must live as long. TOKEN_MAX: bytes of one string, number or word, as written. Returns 0 or -ENOMEM. */
int json_scan_new(const struct json_events *events, void *context, size_t token_max, struct json_scan **ret);
struct json_scan *json_scan_free(struct json_scan *s);
DEFINE_CLEANUP(struct json_scan *, json_scan_free)

/* Returns 0; -EBADMSG for what is no JSON, which json_scan_wrong tells; -ENOMEM; what a callback has returned. After a
 * failure every call fails with its code. */
int json_scan_feed(struct json_scan *s, const void *data, size_t n);

/* Nothing follows. Returns as json_scan_feed does. */
int json_scan_finish(struct json_scan *s);

/* What is wrong with the JSON and, in *RET_AT, at which byte; NULL when it was none of that. */
const char *json_scan_wrong(const struct json_scan *s, uint64_t *ret_at);
