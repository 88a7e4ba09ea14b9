/* SPDX-License-Identifier: Apache-2.0 */

#include "regfs/text.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdio.h>

int buf_reserve(struct buf *b, size_t more)
{
        size_t need, allocated;
        char *data;

        if (more > SIZE_MAX - 1 - b->len)
                return -ENOMEM;
        if (b->max > 0 && b->len + more > b->max)
                return -EFBIG;
        need = b->len + more + 1;
        if (need <= b->allocated)
                return 0;
        allocated = MAX(need, b->allocated + b->allocated / 2);
        if (b->max > 0)
                allocated = MIN(allocated - 1, b->max) + 1;
        allocated = MAX(allocated, (size_t) 64);
        data = realloc(b->data, allocated);
        if (!data)
                return -ENOMEM;
        b->data = data;
        b->allocated = allocated;
        b->data[b->len] = '\0';
        return 0;
}

int buf_append(struct buf *b, const void *data, size_t n)
{
        int r = buf_reserve(b, n);

        if (r < 0)
                return r;
        if (n > 0)
                memcpy(b->data + b->len, data, n);
        b->len += n;
        b->data[b->len] = '\0';
        return 0;
}

int buf_append_str(struct buf *b, const char *s)
{
        return buf_append(b, s, strlen(s));
}

int buf_append_char(struct buf *b, char c)
{
        return buf_append(b, &c, 1);
}

int buf_vprintf(struct buf *b, const char *format, va_list ap)
{
        va_list again;
        int n, r;

        va_copy(again, ap);
        n = vsnprintf(NULL, 0, format, again);
        va_end(again);
        if (n < 0) /* longer than INT_MAX */
                return -ENOMEM;
        r = buf_reserve(b, (size_t) n);
        if (r < 0)
                return r;
        (void) vsnprintf(b->data + b->len, (size_t) n + 1, format, ap);
        b->len += (size_t) n;
        return 0;
}

int buf_printf(struct buf *b, const char *format, ...)
{
        va_list ap;
        int r;

        va_start(ap, format);
        r = buf_vprintf(b, format, ap);
        va_end(ap);
        return r;
}

void buf_free(struct buf *b)
{
        free(b->data);
        *b = (struct buf) { .max = b->max };
}

char *buf_steal(struct buf *b)
{
        char *data = b->data ? b->data : strdup("");

        *b = (struct buf) { .max = b->max };
        return data;
}

int array_reserve_bytes(void **p, size_t *allocated, size_t need, size_t size)
{
        size_t n;
        void *grown;

        if (need <= *allocated)
                return 0;
        n = MAX(need, *allocated + *allocated / 2);
        n = MAX(n, (size_t) 8);
        if (n > PTRDIFF_MAX / size)
                return -ENOMEM;
        grown = realloc(*p, n * size);
        if (!grown)
                return -ENOMEM;
        *p = grown;
        *allocated = n;
        return 0;
}

int str_copy(const char *s, char **ret)
{
        char *copy = s ? strdup(s) : NULL;

        if (s && !copy)
                return -ENOMEM;
        *ret = copy;
        return 0;
}

char *str_printf(const char *format, ...)
{
        char *s = NULL;
        va_list ap;
        int n;

        va_start(ap, format);
        n = vasprintf(&s, format, ap);
        va_end(ap);
        return n < 0 ? NULL : s;
}

bool str_ends_with(const char *s, const char *suffix)
{
        size_t n = strlen(s), m = strlen(suffix);

        return n >= m && memcmp(s + n - m, suffix, m) == 0;
}

size_t utf8_length(const void *s, size_t n)
{
        static const uint32_t smallest[] = { 0, 0, 0x80, 0x800, 0x10000 };
        const uint8_t *p = s;
        size_t length;
        uint32_t c;

        if (n == 0)
                return 0;
        if (p[0] < 0x80)
                return 1;
        length = p[0] >= 0xf8 ? 0 : p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : p[0] >= 0xc0 ? 2 : 0;
        if (length == 0 || length > n)
                return 0;
        c = p[0] & (0x7fu >> length);
        for (size_t k = 1; k < length; k++) {
                if ((p[k] & 0xc0) != 0x80)
                        return 0;
                c = c << 6 | (p[k] & 0x3f);
        }
        return c < smallest[length] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff) ? 0 : length;
}

size_t utf8_encode(uint32_t c, char out[4])
{
        static const uint8_t lead[] = { 0, 0, 0xc0, 0xe0, 0xf0 };
        size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;

        for (size_t k = n; k-- > 1; c >>= 6)
                out[k] = (char) (0x80 | (c & 0x3f));
        out[0] = (char) (lead[n] | c);
        return n;
}

/* How the byte at S is shown: as an escape in OUT (5 bytes), or, with a length of 0, as it is. A terminal obeys the
 * controls from U+0080 to U+009F as well. */
static size_t escape_of(const uint8_t *s, size_t character, char *out)
{
        bool control = s[0] < 0x20 || s[0] == 0x7f || (character == 2 && s[0] == 0xc2 && s[1] < 0xa0);

        if (character > 0 && !control)
                return 0;
        if (s[0] == '\n' || s[0] == '\t' || s[0] == '\r') {
                out[0] = '\\';
                out[1] = s[0] == '\n' ? 'n' : s[0] == '\t' ? 't' : 'r';
                return 2;
        }
        out[0] = '\\';
        out[1] = 'x';
        hex_encode(s, 1, out + 2);
        return 4;
}

size_t str_escape(const char *s, char *out, size_t size)
{
        size_t left = strlen(s), at = 0;

        while (left > 0) {
                size_t character = utf8_length(s, left), n;
                char escape[5];
                const char *shown = escape;

                n = escape_of((const uint8_t *) s, character, escape);
                if (n == 0) {
                        shown = s;
                        n = character;
                } else {
                        character = 1;
                }
                if (n >= size - at)
                        break;
                memcpy(out + at, shown, n);
                at += n;
                s += character;
                left -= character;
        }
        out[at] = '\0';
        return at;
}

int str_to_u64(const char *s, uint64_t *ret)
{
        uint64_t value = 0;

        if (*s == '\0' || s[strspn(s, "0123456789")] != '\0')
                return -EINVAL;
        for (; *s; s++) {
                unsigned digit = (unsigned) (*s - '0');

                if (value > (UINT64_MAX - digit) / 10)
                        return -ERANGE;
                value = value * 10 + digit;
        }
        *ret = value;
        return 0;
}

void hex_encode(const uint8_t *bytes, size_t n, char *out)
{
        static const char digits[] = "0123456789abcdef";

        for (size_t k = 0; k < n; k++) {
                out[2 * k] = digits[bytes[k] >> 4];
                out[2 * k + 1] = digits[bytes[k] & 15];
        }
        out[2 * n] = '\0';
}

/* Of what is no digit: a bit that no digit's value has. */
#define NO_DIGIT 0x80

static uint8_t hex_digit(char c)
{
        if (c >= '0' && c <= '9')
                return (uint8_t) (c - '0');
        return c >= 'a' && c <= 'f' ? (uint8_t) (c - 'a' + 10) : NO_DIGIT;
}

int hex_decode(const char *s, size_t n, uint8_t *out)
{
        uint8_t wrong = 0;

        if (strnlen(s, 2 * n + 1) != 2 * n)
                return -EINVAL;
        for (size_t k = 0; k < 2 * n; k++)
                wrong |= hex_digit(s[k]);
        if (wrong & NO_DIGIT)
                return -EINVAL;
        for (size_t k = 0; k < n; k++)
                out[k] = (uint8_t) (hex_digit(s[2 * k]) << 4 | hex_digit(s[2 * k + 1]));
        return 0;
}

int hex_value(char c)
{
        if (c >= '0' && c <= '9')
                return c - '0';
        if (c >= 'a' && c <= 'f')
                return c - 'a' + 10;
        return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

char *base64_encode(const void *data, size_t n)
{
        char *out;

        if (n > INT_MAX / 2)
                return NULL;
        out = malloc((n + 2) / 3 * 4 + 1);
        if (!out)
                return NULL;
        out[0] = '\0';
        (void) EVP_EncodeBlock((unsigned char *) out, data, (int) n);
        return out;
}

/* EVP_DecodeBlock trims white space and takes padding anywhere: look at the text first. */
static int check_base64(const char *s, size_t n, size_t *ret_padding)
{
        size_t padding = 0;

        if (n % 4 != 0 || n > INT_MAX / 2)
                return -EINVAL;
        while (padding < 2 && padding < n && s[n - 1 - padding] == '=')
                padding++;
        for (size_t k = 0; k < n - padding; k++)
                if (!isalnum((unsigned char) s[k]) && s[k] != '+' && s[k] != '/')
                        return -EINVAL;
        *ret_padding = padding;
        return 0;
}

int base64_decode(const char *s, uint8_t **ret, size_t *ret_len)
{
        size_t n = strlen(s), padding;
        uint8_t *out;
        int r;

        r = check_base64(s, n, &padding);
        if (r < 0)
                return r;
        out = malloc(n / 4 * 3 + 1);
        if (!out)
                return -ENOMEM;
        if (EVP_DecodeBlock(out, (const unsigned char *) s, (int) n) < 0) {
                free(out);
                return -EINVAL;
        }
        *ret_len = n / 4 * 3 - padding;
        out[*ret_len] = '\0';
        *ret = out;
        return 0;
}

char *format_bytes(uint64_t n, char *out, size_t size)
{
        static const char *const units[] = { "kB", "MB", "GB", "TB", "PB", "EB" };
        double value = (double) n;
        size_t unit = 0;

        if (n < 1000) {
                (void) snprintf(out, size, "%u B", (unsigned) n);
                return out;
        }
        for (value /= 1000; value >= 999.95 && unit + 1 < ELEMENTSOF(units); value /= 1000)
                unit++;
        (void) snprintf(out, size, "%.1f %s", value, units[unit]);
        return out;
}

void secret_free(char *s)
{
        if (!s)
                return;
        OPENSSL_cleanse(s, strlen(s));
        free(s);
}
