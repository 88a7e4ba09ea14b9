/* SPDX-License-Identifier: Apache-2.0 */

#include "toml_scan.h"

#include <stdarg.h>
#include <stdio.h>

#include "regfs/text.h"

int toml_scan_wrong(struct toml_scan *p, const char *format, ...)
{
        char what[200];
        size_t line = 1;
        va_list ap;

        va_start(ap, format);
        (void) vsnprintf(what, sizeof(what), format, ap);
        va_end(ap);
        for (size_t k = 0; k < p->at && k < p->length; k++)
                line += p->text[k] == '\n';
        return error_set(p->e, ERROR_BAD_DATA, EBADMSG, "line %zu: %s", line, what);
}

int toml_scan_check(struct toml_scan *p)
{
        while (!scan_at_end(p)) {
                unsigned char c = (unsigned char) scan_peek(p);
                size_t n = utf8_length(p->text + p->at, p->length - p->at);

                if (n == 0)
                        return toml_scan_wrong(p, "not UTF-8");
                if (c == 0x7f || (c < 0x20 && c != '\t' && c != '\n' && (c != '\r' || scan_peek_at(p, 1) != '\n')))
                        return toml_scan_wrong(p, "a control character");
                p->at += n;
        }
        p->at = 0;
        return 0;
}

static int put(struct toml_scan *p, struct buf *b, const char *data, size_t n)
{
        return buf_append(b, data, n) < 0 ? error_oom(p->e) : 0;
}

/* The digits of \uXXXX or \UXXXXXXXX. U+0000 is refused: text is handed out NUL-terminated. */
static int parse_unicode(struct toml_scan *p, struct buf *b, size_t digits)
{
        char bytes[4];
        uint32_t c = 0;

        for (size_t k = 0; k < digits; k++) {
                int digit = hex_value(scan_peek_at(p, k));

                if (digit < 0)
                        return toml_scan_wrong(p, "a Unicode escape needs %zu hexadecimal digits", digits);
                c = c << 4 | (uint32_t) digit;
        }
        if (c == 0 || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
                return toml_scan_wrong(p, "U+%04X cannot stand in a string", (unsigned) c);
        p->at += digits;
        return put(p, b, bytes, utf8_encode(c, bytes));
}

/* Behind a backslash. */
static int parse_escape(struct toml_scan *p, struct buf *b)
{
        static const char names[] = "btnfr\"\\", values[] = "\b\t\n\f\r\"\\";
        const char *found;

        if (scan_skip(p, "u"))
                return parse_unicode(p, b, 4);
        if (scan_skip(p, "U"))
                return parse_unicode(p, b, 8);
        found = scan_at_end(p) ? NULL : strchr(names, scan_peek(p));
        if (!found)
                return toml_scan_wrong(p, "unknown escape in a string");
        p->at++;
        return put(p, b, values + (found - names), 1);
}

/* Whether the backslash in front of the text ends its line: then it swallows all white space up to the next text. */
static bool skip_line_continuation(struct toml_scan *p)
{
        size_t start = p->at;

        scan_skip_blanks(p);
        if (!scan_skip_newline(p)) {
                p->at = start;
                return false;
        }
        do
                scan_skip_blanks(p);
        while (scan_skip_newline(p));
        return true;
}

static int parse_line_string(struct toml_scan *p, char quote, struct buf *b)
{
        while (scan_peek(p) != quote) {
                int r;

                if (scan_at_end(p) || scan_peek(p) == '\n' || scan_peek(p) == '\r')
                        return toml_scan_wrong(p, "a string does not end on its line");
                if (quote == '"' && scan_skip(p, "\\"))
                        r = parse_escape(p, b);
                else
                        r = put(p, b, p->text + p->at++, 1);
                if (r < 0)
                        return r;
        }
        p->at++;
        return 0;
}

/* Ends at three quotes; one or two more in front of them belong to the text. */
static int parse_block_string(struct toml_scan *p, char quote, struct buf *b)
{
        (void) scan_skip_newline(p);
        for (;;) {
                size_t quotes = 0;
                int r = 0;

                while (quotes < 5 && scan_peek_at(p, quotes) == quote)
                        quotes++;
                if (quotes >= 3) {
                        r = put(p, b, p->text + p->at, quotes - 3);
                        p->at += quotes;
                        return r;
                }
                if (scan_at_end(p))
                        return toml_scan_wrong(p, "the text ends within a string");
                if (scan_skip_newline(p))
                        r = put(p, b, "\n", 1);
                else if (quote != '"' || !scan_skip(p, "\\"))
                        r = put(p, b, p->text + p->at++, 1);
                else if (!skip_line_continuation(p))
                        r = parse_escape(p, b);
                if (r < 0)
                        return r;
        }
}

int toml_scan_string(struct toml_scan *p, bool block, char **ret)
{
        char quote = scan_peek(p), quotes[] = { quote, quote, quote, '\0' };
        _cleanup_buf_ struct buf b = { 0 };
        char *s;
        int r;

        if (block && scan_skip(p, quotes)) {
                r = parse_block_string(p, quote, &b);
        } else {
                p->at++;
                r = parse_line_string(p, quote, &b);
        }
        if (r < 0)
                return r;
        s = buf_steal(&b);
        if (!s)
                return error_oom(p->e);
        *ret = s;
        return 0;
}

static bool is_bare(char c)
{
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

int toml_scan_name(struct toml_scan *p, char **ret)
{
        size_t n = 0;
        char *name;

        if (scan_peek(p) == '"' || scan_peek(p) == '\'')
                return toml_scan_string(p, false, ret);
        while (is_bare(scan_peek_at(p, n)))
                n++;
        if (n == 0)
                return toml_scan_wrong(p, "a key is missing");
        name = strndup(p->text + p->at, n);
        if (!name)
                return error_oom(p->e);
        p->at += n;
        *ret = name;
        return 0;
}

/* Digits of BASE, single underscores between them. Returns 0, -EINVAL or -ERANGE. */
static int to_integer(const char *s, unsigned base, bool negative, int64_t *ret)
{
        uint64_t limit = (uint64_t) INT64_MAX + negative, value = 0;
        bool after_digit = false;

        for (; *s; s++) {
                unsigned digit = (unsigned) hex_value(*s); /* of no digit: the largest number */

                if (*s == '_' && after_digit) {
                        after_digit = false;
                        continue;
                }
                if (digit >= base)
                        return -EINVAL;
                if (value > (limit - digit) / base)
                        return -ERANGE;
                value = value * base + digit;
                after_digit = true;
        }
        if (!after_digit)
                return -EINVAL;
        *ret = negative ? (int64_t) (0 - value) : (int64_t) value;
        return 0;
}

static int parse_integer(const char *s, int64_t *ret)
{
        bool negative = *s == '-';

        if (s[0] == '0' && (s[1] == 'x' || s[1] == 'o' || s[1] == 'b'))
                return to_integer(s + 2, s[1] == 'x' ? 16 : s[1] == 'o' ? 8 : 2, false, ret);
        if (*s == '+' || *s == '-')
                s++;
        if (s[0] == '0' && s[1]) /* a leading zero */
                return -EINVAL;
        return to_integer(s, 10, negative, ret);
}

/* Something like a number that is none of ours: say so, instead of calling it malformed. */
static const char *unsupported(const char *s)
{
        bool hexadecimal = s[0] == '0' && s[1] == 'x';
        const char *rest = s + (*s == '+' || *s == '-');

        if (strchr(s, ':') || (strspn(s, "0123456789") == 4 && s[4] == '-'))
                return "dates and times are not supported";
        if (strcmp(rest, "inf") == 0 || strcmp(rest, "nan") == 0)
                return "floats are not supported";
        if (!hexadecimal && *rest >= '0' && *rest <= '9' && strpbrk(rest, ".eE"))
                return "floats are not supported";
        return NULL;
}

int toml_scan_word(struct toml_scan *p, bool *ret_is_boolean, bool *ret_boolean, int64_t *ret_integer)
{
        char word[80];
        const char *refused;
        size_t n = 0;
        int r;

        while (is_bare(scan_peek_at(p, n)) || (scan_peek_at(p, n) && strchr("+.:", scan_peek_at(p, n))))
                n++;
        if (n == 0)
                return toml_scan_wrong(p, "a value is missing");
        if (n >= sizeof(word))
                return toml_scan_wrong(p, "malformed value");
        memcpy(word, p->text + p->at, n);
        word[n] = '\0';

        if (str_eq(word, "true") || str_eq(word, "false")) {
                *ret_boolean = *word == 't';
                *ret_is_boolean = true;
        } else {
                refused = unsupported(word);
                if (refused)
                        return toml_scan_wrong(p, "%s", refused);
                r = parse_integer(word, ret_integer);
                if (r < 0)
                        return toml_scan_wrong(p, r == -ERANGE ? "%s is out of range" : "malformed value \"%s\"", word);
                *ret_is_boolean = false;
        }
        p->at += n;
        return 0;
}
