/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Growing byte buffers with a cap, arrays that grow, and the few string functions that C lacks. */

#include <stdarg.h>
#include <string.h>

#include "regfs/base.h"

/* Bytes that grow. data is always NUL-terminated after the first successful call; len does not count the NUL.
 * A zero-initialised struct is an empty buffer without a cap. */
struct buf {
        char *data;
        size_t len;
        size_t allocated;
        size_t max; /* largest len allowed; 0 = no cap */
};

/* All return 0, -ENOMEM, or -EFBIG when the cap would be passed; the content is then unchanged. */
int buf_reserve(struct buf *b, size_t more);
int buf_append(struct buf *b, const void *data, size_t n);
int buf_append_str(struct buf *b, const char *s);
int buf_append_char(struct buf *b, char c);
int buf_printf(struct buf *b, const char *format, ...) _printf_(2, 3);
int buf_vprintf(struct buf *b, const char *format, va_list ap) _printf_(2, 0);

void buf_free(struct buf *b);

/* Takes the memory out (NUL-terminated; "" when empty): the caller frees it. NULL when out of memory. */
char *buf_steal(struct buf *b);

#define _cleanup_buf_ _cleanup_(buf_free)

/* Makes room in an array *P of *ALLOCATED elements of SIZE bytes for NEED elements, growing by half at least.
 * Returns 0 or -ENOMEM (also for a size that overflows). New elements are not initialised. */
int array_reserve_bytes(void **p, size_t *allocated, size_t need, size_t size);

/* array_reserve(p, &allocated, need): P is an lvalue of pointer type. */
#define array_reserve(p, allocated, need)                                                 \
        ({                                                                                \
                void *_array = (p);                                                       \
                int _r = array_reserve_bytes(&_array, (allocated), (need), sizeof(*(p))); \
                (p) = _array;                                                             \
                _r;                                                                       \
        })

/* strdup that takes NULL for NULL: 0 with *RET the caller's to free, or -ENOMEM. */
int str_copy(const char *s, char **ret);

/* asprintf that returns NULL when out of memory. */
char *str_printf(const char *format, ...) _printf_(1, 2);

static inline bool str_eq(const char *a, const char *b)
{
        return a && b && strcmp(a, b) == 0;
}

/* The rest of S after PREFIX, or NULL when S does not start with it. */
static inline const char *str_after(const char *s, const char *prefix)
{
        size_t n = strlen(prefix);

        return strncmp(s, prefix, n) == 0 ? s + n : NULL;
}

bool str_ends_with(const char *s, const char *suffix);

/* Length of the UTF-8 sequence that starts at S and ends within N bytes; 0 when there is none: a stray or missing
 * continuation byte, an overlong form, a surrogate, a value past U+10FFFF. */
size_t utf8_length(const void *s, size_t n);

/* Writes the UTF-8 of C, which is at most 0x10ffff, and returns its length. */
size_t utf8_encode(uint32_t c, char out[4]);

/* Writes S into OUT so that it can be shown on one line: control characters and bytes that are not UTF-8 become
 * \n, \t, \r or \xNN. What does not fit into SIZE (at least 1) is cut between characters. Returns the length of OUT. */
size_t str_escape(const char *s, char *out, size_t size);

/* Decimal digits only, no sign, no space; whole string. Returns 0, -EINVAL or -ERANGE. */
int str_to_u64(const char *s, uint64_t *ret);

/* Lower-case hex of N bytes into OUT (2 N + 1 bytes). */
void hex_encode(const uint8_t *bytes, size_t n, char *out);

/* Exactly 2 N lower-case hex digits at S into OUT. Returns 0 or -EINVAL. */
int hex_decode(const char *s, size_t n, uint8_t *out);

/* The value of a hexadecimal digit of either case, or -1. */
int hex_value(char c);

/* Standard base64 with padding. encode: NUL-terminated, NULL when out of memory. decode: 0, -EINVAL, -ENOMEM;
 * *ret has a NUL behind its *ret_len bytes. The caller frees. */
char *base64_encode(const void *data, size_t n);
int base64_decode(const char *s, uint8_t **ret, size_t *ret_len);

/* "12.3 MB" into OUT: decimal units, at least 16 bytes. Returns OUT. */
char *format_bytes(uint64_t n, char *out, size_t size);

/* Overwrites and frees a secret string; NULL is legal. */
void secret_free(char *s);
static inline void secret_free_ptr(char **s)
{
        secret_free(*s);
}
