/* SPDX-License-Identifier: Apache-2.0 */

/* Tokens are read where they lie. One that the end of a piece cuts is held until the bytes that end it have come; it is then
 * read as a whole, so everything that reads a token has all of it before it. */

#include "regfs/json_scan.h"

#include <errno.h>
#include <string.h>

#include "regfs/text.h"

enum expected {
        EXPECT_VALUE,
        EXPECT_VALUE_OR_END, /* behind [ */
        EXPECT_KEY,
        EXPECT_KEY_OR_END, /* behind { */
        EXPECT_COLON,
        EXPECT_COMMA_OR_END,
        EXPECT_NOTHING, /* the value is complete */
};

struct json_scan {
        const struct json_events *events;
        void *context;
        size_t token_max;
        enum expected expected;
        unsigned depth;
        uint64_t objects; /* bit k: what is open at depth k + 1 is an object */

        const char *begin, *end; /* of what is read: a piece, or what was held */
        uint64_t offset;         /* of BEGIN in the document */
        bool whole;              /* END ends a token */
        struct buf held;         /* a token without its end */
        bool escaped;            /* it ends in a backslash that belongs to what follows */
        struct buf decoded;      /* of a string with escapes */

        int failed;
        const char *wrong;
        uint64_t wrong_at;
};

#define CUT 1 /* the token goes on in the next piece */

int json_scan_new(const struct json_events *events, void *context, size_t token_max, struct json_scan **ret)
{
        struct json_scan *s = calloc(1, sizeof(*s));

        if (!s)
                return -ENOMEM;
        s->events = events;
        s->context = context;
        s->token_max = token_max;
        *ret = s;
        return 0;
}

struct json_scan *json_scan_free(struct json_scan *s)
{
        if (!s)
                return NULL;
        buf_free(&s->held);
        buf_free(&s->decoded);
        free(s);
        return NULL;
}

const char *json_scan_wrong(const struct json_scan *s, uint64_t *ret_at)
{
        *ret_at = s->wrong_at;
        return s->wrong;
}

static int refuse(struct json_scan *s, const char *at, const char *why)
{
        s->wrong = why;
        s->wrong_at = s->offset + (uint64_t) (at - s->begin);
        return -EBADMSG;
}

/* ---- eight bytes at a time ---- */

#define EACH(byte) (0x0101010101010101u * (byte))

/* The first of the bytes whose bit 7 is set in MARKS: the first in memory, little-endian as regfs is. */
static size_t first_of(uint64_t marks)
{
        return (size_t) __builtin_ctzll(marks) / 8;
}

/* Marks the bytes of WORD below N, which is at most 128, among those below 128. Right up to the first that is marked. */
static uint64_t bytes_below(uint64_t word, uint8_t n)
{
        return (word - EACH(n)) & ~word & EACH(0x80u);
}

/* Marks the bytes of WORD that are not BYTE: all of them right. Bits other than 7 mean nothing. */
static uint64_t bytes_other(uint64_t word, uint8_t byte)
{
        word ^= EACH(byte);
        return ((word & EACH(0x7f)) + EACH(0x7f)) | word;
}

static bool is_space(char c)
{
        return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static const char *skip_space(const char *at, const char *end)
{
        uint64_t word, marks;

        if (at < end && !is_space(*at))
                return at;
        for (; end - at >= 8; at += 8) {
                memcpy(&word, at, sizeof(word));
                marks = bytes_other(word, ' ') & bytes_other(word, '\t') & bytes_other(word, '\n') &
                        bytes_other(word, '\r') & EACH(0x80u);
                if (marks)
                        return at + first_of(marks);
        }
        while (at < end && is_space(*at))
                at++;
        return at;
}

/* Skips bytes of a string that stand for themselves: ASCII but for controls, quotes and backslashes. */
static const char *skip_plain(const char *at, const char *end)
{
        uint64_t word, marks;

        for (; end - at >= 8; at += 8) {
                memcpy(&word, at, sizeof(word));
                marks = bytes_below(word, 0x20) | bytes_below(word ^ EACH('"'), 1) | bytes_below(word ^ EACH('\\'), 1) |
                        (word & EACH(0x80u));
                if (marks)
                        return at + first_of(marks);
        }
        while (at < end && *at != '"' && *at != '\\' && (unsigned char) (*at - 0x20) < 0x80 - 0x20)
                at++;
        return at;
}

/* ---- strings ---- */

/* The four digits at AT: of a half of a character, or all of one. -1 when they are none. */
static int32_t code_unit(const char *at, const char *end)
{
        int32_t unit = 0;

        if (end - at < 4)
                return -1;
        for (size_t k = 0; k < 4; k++) {
                int value = hex_value(at[k]);

                if (value < 0)
                        return -1;
                unit = unit << 4 | value;
        }
        return unit;
}

/* Decodes \uXXXX, or two of them, at *AT. */
static int decode_unicode(struct json_scan *s, const char **at, const char *end)
{
        int32_t unit = code_unit(*at + 2, end), low;
        char text[4];

        if (unit < 0)
                return refuse(s, *at, "an unknown escape in a string");
        if (unit >= 0xd800 && unit < 0xe000) {
                low = unit < 0xdc00 && end - *at >= 12 && (*at)[6] == '\\' && (*at)[7] == 'u' ? code_unit(*at + 8, end)
                                                                                              : -1;
                if (low < 0xdc00 || low >= 0xe000)
                        return refuse(s, *at, "a \\u escape of half a character");
                unit = 0x10000 + ((unit - 0xd800) << 10 | (low - 0xdc00));
                *at += 6;
        }
        *at += 6;
        return buf_append(&s->decoded, text, utf8_encode((uint32_t) unit, text));
}

/* Decodes the text from AT to END, which has escapes. */
static int decode(struct json_scan *s, const char *at, const char *end)
{
        static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
        int r = 0;

        s->decoded.len = 0;
        while (r == 0 && at < end) {
                const char *backslash = memchr(at, '\\', (size_t) (end - at)), *found;

                r = buf_append(&s->decoded, at, (size_t) ((backslash ? backslash : end) - at));
                if (r < 0 || !backslash)
                        break;
                at = backslash;
                found = at[1] ? strchr(names, at[1]) : NULL;
                if (found) {
                        r = buf_append(&s->decoded, &values[found - names], 1);
                        at += 2;
                } else if (at[1] == 'u') {
                        r = decode_unicode(s, &at, end);
                } else {
                        r = refuse(s, at, "an unknown escape in a string");
                }
        }
        return r;
}

/* Finds the end of the string that begins at the quote *AT, and leaves *AT behind it. */
static int find_end(struct json_scan *s, const char **at, bool *ret_escapes)
{
        const char *p = *at + 1;

        *ret_escapes = false;
        for (;;) {
                size_t n = 2;

                p = skip_plain(p, s->end);
                if (p < s->end && *p == '"')
                        break;
                if (p < s->end && (unsigned char) *p < 0x20)
                        return refuse(s, p, "a control character in a string");
                if (p < s->end && *p != '\\') {
                        n = utf8_length(p, (size_t) (s->end - p));
                        if (n == 0 && (s->whole || s->end - p >= 4))
                                return refuse(s, p, "a string that is not UTF-8");
                } else if (p < s->end) {
                        *ret_escapes = true;
                }
                if (n == 0 || (size_t) (s->end - p) < n)
                        return s->whole ? refuse(s, s->end, "a string without end") : CUT;
                p += n;
        }
        *at = p + 1;
        return 0;
}

static bool expects_key(const struct json_scan *s)
{
        return s->expected == EXPECT_KEY || s->expected == EXPECT_KEY_OR_END;
}

static int read_string(struct json_scan *s, const char **at)
{
        bool key = expects_key(s), escapes;
        int (*event)(void *, const char *, size_t) = key ? s->events->key : s->events->string;
        const char *text = *at + 1;
        size_t n;
        int r;

        r = find_end(s, at, &escapes);
        if (r != 0)
                return r;
        n = (size_t) (*at - 1 - text);
        s->expected = key ? EXPECT_COLON : EXPECT_COMMA_OR_END;
        if (escapes) {
                r = decode(s, text, *at - 1);
                text = s->decoded.data;
                n = s->decoded.len;
        }
        return r < 0 || !event ? r : event(s->context, text, n);
}

/* ---- numbers and words ---- */

static const char *skip_digits(const char *at, const char *end)
{
        while (at < end && *at >= '0' && *at <= '9')
                at++;
        return at;
}

/* The end of the number from AT to END; NULL when it is malformed. */
static const char *skip_number(const char *at, const char *end)
{
        const char *digits;

        at += *at == '-';
        digits = at;
        at = skip_digits(at, end);
        if (at == digits || (at - digits > 1 && *digits == '0'))
                return NULL;
        if (at < end && *at == '.') {
                digits = ++at;
                at = skip_digits(at, end);
                if (at == digits)
                        return NULL;
        }
        if (at < end && (*at == 'e' || *at == 'E')) {
                at++;
                at += at < end && (*at == '+' || *at == '-');
                digits = at;
                at = skip_digits(at, end);
                if (at == digits)
                        return NULL;
        }
        return at;
}

/* A byte of which numbers and words are made. */
static bool is_of_word(char c)
{
        return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || c == '-' || c == '+' || c == '.';
}

static const char *skip_word(const char *at, const char *end)
{
        while (at < end && is_of_word(*at))
                at++;
        return at;
}

static int read_number(struct json_scan *s, const char **at, const char *end)
{
        const char *begin = *at;

        if (skip_number(begin, end) != end)
                return refuse(s, begin, "a malformed number");
        *at = end;
        return s->events->number ? s->events->number(s->context, begin, (size_t) (end - begin)) : 0;
}

static bool word_is(const char *at, const char *end, const char *word)
{
        return (size_t) (end - at) == strlen(word) && memcmp(at, word, strlen(word)) == 0;
}

static int read_word(struct json_scan *s, const char **at)
{
        const char *begin = *at, *end = skip_word(begin, s->end);
        bool yes;

        if (end == s->end && !s->whole)
                return CUT;
        s->expected = EXPECT_COMMA_OR_END;
        if (*begin == '-' || (*begin >= '0' && *begin <= '9'))
                return read_number(s, at, end);
        *at = end;
        if (word_is(begin, end, "null"))
                return s->events->null ? s->events->null(s->context) : 0;
        yes = word_is(begin, end, "true");
        if (!yes && !word_is(begin, end, "false"))
                return refuse(s, begin, "an unknown word");
        return s->events->boolean ? s->events->boolean(s->context, yes) : 0;
}

/* ---- structure ---- */

static bool in_object(const struct json_scan *s)
{
        return s->depth > 0 && s->objects >> (s->depth - 1) & 1;
}

static int open_value(struct json_scan *s, const char *at, bool object)
{
        int (*event)(void *) = object ? s->events->begin_object : s->events->begin_array;
        uint64_t bit;

        if (s->depth == JSON_DEPTH_MAX)
                return refuse(s, at, "nested more than 64 deep");
        bit = (uint64_t) 1 << s->depth++;
        s->objects = object ? s->objects | bit : s->objects & ~bit;
        s->expected = object ? EXPECT_KEY_OR_END : EXPECT_VALUE_OR_END;
        return event ? event(s->context) : 0;
}

static int close_value(struct json_scan *s, const char *at, bool object)
{
        int (*event)(void *) = object ? s->events->end_object : s->events->end_array;
        enum expected empty = object ? EXPECT_KEY_OR_END : EXPECT_VALUE_OR_END;

        if (s->depth == 0 || in_object(s) != object || (s->expected != empty && s->expected != EXPECT_COMMA_OR_END))
                return refuse(s, at, object ? "an unexpected }" : "an unexpected ]");
        s->depth--;
        s->expected = EXPECT_COMMA_OR_END;
        return event ? event(s->context) : 0;
}

static bool expects_value(const struct json_scan *s)
{
        return s->expected == EXPECT_VALUE || s->expected == EXPECT_VALUE_OR_END;
}

/* What is at AT may not stand there. */
static int refuse_for_another(struct json_scan *s, const char *at)
{
        static const char *const wanted[] = {
                [EXPECT_VALUE] = "a value is expected",       [EXPECT_VALUE_OR_END] = "a value is expected",
                [EXPECT_KEY] = "a member's name is expected", [EXPECT_KEY_OR_END] = "a member's name is expected",
                [EXPECT_COLON] = "a colon is expected",       [EXPECT_COMMA_OR_END] = "a comma is expected, or an end",
                [EXPECT_NOTHING] = "more behind its end",
        };

        return refuse(s, at, wanted[s->expected]);
}

/* Reads the token that begins at *AT, and leaves *AT behind it. */
static int read_token(struct json_scan *s, const char **at)
{
        const char *begin = *at;

        switch (*begin) {
        case '"':
                return expects_value(s) || expects_key(s) ? read_string(s, at) : refuse_for_another(s, begin);
        case ',':
                if (s->expected != EXPECT_COMMA_OR_END)
                        return refuse_for_another(s, begin);
                s->expected = in_object(s) ? EXPECT_KEY : EXPECT_VALUE;
                break;
        case ':':
                if (s->expected != EXPECT_COLON)
                        return refuse_for_another(s, begin);
                s->expected = EXPECT_VALUE;
                break;
        case '}':
        case ']':
                (*at)++;
                return close_value(s, begin, *begin == '}');
        default:
                if ((unsigned char) *begin < 0x20)
                        return refuse(s, begin, "a control character");
                if ((unsigned char) *begin >= 0x7f)
                        return refuse(s, begin, "an unexpected byte");
                if (!expects_value(s))
                        return refuse_for_another(s, begin);
                if (is_of_word(*begin))
                        return read_word(s, at);
                if (*begin != '{' && *begin != '[')
                        return refuse_for_another(s, begin);
                (*at)++;
                return open_value(s, begin, *begin == '{');
        }
        (*at)++;
        return 0;
}

/* Keeps the token from AT on. Further bytes are looked at once: in a string it matters whether the last one is a backslash that
 * none stands before. */
static int hold(struct json_scan *s, const char *at)
{
        s->escaped = false;
        for (const char *p = s->end; p > at + 1 && p[-1] == '\\'; p--)
                s->escaped = !s->escaped;
        s->held.len = 0;
        return buf_append(&s->held, at, (size_t) (s->end - at));
}

/* Reads the N bytes at DATA, which begin where no token is under way. WHOLE: a token that they end in is complete. */
static int read_tokens(struct json_scan *s, const char *data, size_t n, uint64_t offset, bool whole)
{
        const char *at = data;
        int r = 0;

        s->begin = data;
        s->end = data + n;
        s->offset = offset;
        s->whole = whole;
        while (r == 0) {
                at = skip_space(at, s->end);
                if (at == s->end)
                        return 0;
                r = read_token(s, &at);
                if (s->depth == 0 && s->expected == EXPECT_COMMA_OR_END)
                        s->expected = EXPECT_NOTHING;
        }
        return r == CUT ? hold(s, at) : r;
}

/* How many of the N bytes at DATA belong to the token that is held; *RET_COMPLETE: and end it. */
static size_t rest_of_token(struct json_scan *s, const char *data, size_t n, bool *ret_complete)
{
        size_t k = 0;

        *ret_complete = false;
        if (s->held.data[0] != '"') {
                k = (size_t) (skip_word(data, data + n) - data);
                *ret_complete = k < n;
                return k;
        }
        while (k < n && !*ret_complete) {
                *ret_complete = data[k] == '"' && !s->escaped;
                s->escaped = data[k] == '\\' && !s->escaped;
                k++;
        }
        return k;
}

/* Reads what was held, which is complete. */
static int read_held(struct json_scan *s, uint64_t end)
{
        size_t n = s->held.len;

        s->held.len = 0;
        return read_tokens(s, s->held.data, n, end - n, true);
}

static int feed(struct json_scan *s, const char *data, size_t n)
{
        uint64_t offset = s->offset;
        bool complete;
        size_t rest;
        int r = 0;

        if (s->held.len > 0) {
                rest = rest_of_token(s, data, n, &complete);
                r = buf_append(&s->held, data, rest);
                data += rest;
                n -= rest;
                offset += rest;
                if (r == 0 && complete)
                        r = read_held(s, offset);
        }
        if (r == 0 && n > 0)
                r = read_tokens(s, data, n, offset, false);
        s->offset = offset + n;
        if (r == 0 && s->held.len > s->token_max) {
                s->wrong = "a string, number or word that is too long";
                s->wrong_at = s->offset - s->held.len;
                r = -EBADMSG;
        }
        return r;
}

int json_scan_feed(struct json_scan *s, const void *data, size_t n)
{
        if (s->failed == 0 && n > 0)
                s->failed = feed(s, data, n);
        return s->failed;
}

int json_scan_finish(struct json_scan *s)
{
        uint64_t end = s->offset;

        if (s->failed == 0 && s->held.len > 0)
                s->failed = read_held(s, end);
        if (s->failed == 0 && s->expected != EXPECT_NOTHING) {
                s->wrong = "it ends early";
                s->wrong_at = end;
                s->failed = -EBADMSG;
        }
        return s->failed;
}
