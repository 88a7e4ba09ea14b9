/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* For the tests of the tar scanner: a tape on which members are written block by block, right or wrong, and a listing
 * of what the scanner reads from it. */

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "regfs/tar.h"
#include "regfs/text.h"

/* ---- writing ---- */

struct tape {
        struct buf bytes;
        size_t header; /* where the last header block starts */
};

static inline void tape_free(struct tape *t)
{
        buf_free(&t->bytes);
}

enum tape_format {
        USTAR,
        V7,
        GNU,
        STAR,
};

/* What is zero or NULL stays blank, except the mode (0644) and the type ('0'). */
struct member {
        const char *name;
        const char *link;
        const char *prefix;
        char type;
        enum tape_format format;
        unsigned mode, uid, gid;
        uint64_t size;
        uint64_t mtime;
        unsigned major, minor;
};

static inline void tape_zeros(struct tape *t, size_t n)
{
        assert_int_equal(buf_reserve(&t->bytes, n), 0);
        memset(t->bytes.data + t->bytes.len, 0, n + 1);
        t->bytes.len += n;
}

static inline void tape_pad(struct tape *t)
{
        tape_zeros(t, -t->bytes.len % 512);
}

static inline void tape_end(struct tape *t)
{
        tape_zeros(t, 1024);
}

static inline void tape_data(struct tape *t, const void *data, size_t n)
{
        assert_int_equal(buf_append(&t->bytes, data, n), 0);
        tape_pad(t);
}

static inline void tape_text(struct tape *t, const char *s)
{
        tape_data(t, s, strlen(s));
}

/* N bytes of file data. */
static inline void tape_fill(struct tape *t, size_t n)
{
        size_t start = t->bytes.len;

        tape_zeros(t, n);
        for (size_t i = 0; i < n; i++)
                t->bytes.data[start + i] = (char) ('a' + i % 26);
        tape_pad(t);
}

/* Recomputes the checksum of the last header. */
static inline void tape_seal(struct tape *t)
{
        uint8_t *h = (uint8_t *) t->bytes.data + t->header;
        unsigned sum = 0;
        char field[16];

        memset(h + 148, ' ', 8);
        for (size_t i = 0; i < 512; i++)
                sum += h[i];
        snprintf(field, sizeof(field), "%06o", sum);
        memcpy(h + 148, field, 7);
}

/* Overwrites bytes of the last header. */
static inline void tape_patch(struct tape *t, size_t at, const void *bytes, size_t n)
{
        memcpy(t->bytes.data + t->header + at, bytes, n);
        tape_seal(t);
}

static inline void tape_octal(struct tape *t, size_t at, int width, uint64_t value)
{
        char field[32];

        snprintf(field, sizeof(field), "%0*" PRIo64, width, value);
        memcpy(t->bytes.data + t->header + at, field, (size_t) width + 1);
}

static inline void tape_string(struct tape *t, size_t at, size_t size, const char *s)
{
        if (s)
                memcpy(t->bytes.data + t->header + at, s, MIN(strlen(s), size));
}

static inline void tape_member(struct tape *t, const struct member *m)
{
        t->header = t->bytes.len;
        tape_zeros(t, 512);
        tape_string(t, 0, 100, m->name);
        tape_octal(t, 100, 7, m->mode ? m->mode : 0644);
        tape_octal(t, 108, 7, m->uid);
        tape_octal(t, 116, 7, m->gid);
        tape_octal(t, 124, 11, m->size);
        tape_octal(t, 136, 11, m->mtime);
        t->bytes.data[t->header + 156] = m->type ? m->type : '0';
        tape_string(t, 157, 100, m->link);
        if (m->format != V7) {
                memcpy(t->bytes.data + t->header + 257, m->format == GNU ? "ustar  " : "ustar\00000", 8);
                tape_octal(t, 329, 7, m->major);
                tape_octal(t, 337, 7, m->minor);
                tape_string(t, 345, m->format == STAR ? 131 : 155, m->prefix);
        }
        if (m->format == STAR)
                memcpy(t->bytes.data + t->header + 508, "tar", 4);
        tape_seal(t);
}

#define MEMBER(t, ...) tape_member((t), &(struct member) { __VA_ARGS__ })

static inline void put_record(struct buf *b, const char *key, const char *value, size_t n)
{
        size_t body = strlen(key) + n + 3, length = body + 1;
        char digits[24];

        while (length != body + (size_t) snprintf(digits, sizeof(digits), "%zu", length))
                length++;
        assert_int_equal(buf_printf(b, "%zu %s=", length, key), 0);
        assert_int_equal(buf_append(b, value, n), 0);
        assert_int_equal(buf_append(b, "\n", 1), 0);
}

/* An extension header with BODY as it is. */
static inline void tape_extension(struct tape *t, char type, const void *body, size_t n)
{
        MEMBER(t, .name = "././@Extension", .type = type, .size = n);
        tape_data(t, body, n);
}

/* Keys and values in turn, up to NULL. */
static inline void tape_records(struct tape *t, char type, const char *const *pairs)
{
        _cleanup_buf_ struct buf b = { 0 };

        for (; *pairs; pairs += 2)
                put_record(&b, pairs[0], pairs[1], strlen(pairs[1]));
        tape_extension(t, type, b.data, b.len);
}

#define PAX(t, ...) tape_records((t), 'x', (const char *const[]) { __VA_ARGS__, NULL })
#define GLOBAL(t, ...) tape_records((t), 'g', (const char *const[]) { __VA_ARGS__, NULL })

/* ---- reading ---- */

static inline void list_bytes(struct buf *b, const uint8_t *data, size_t n)
{
        for (size_t i = 0; i < n; i++)
                buf_printf(b, data[i] > ' ' && data[i] < 0x7f && data[i] != '\\' ? "%c" : "\\%02x", data[i]);
}

/* One line: path mode uid:gid size mtime[.nsec], then -> symlink or = hardlink, device, place of the data, xattrs. */
static inline int list_entry(void *context, const struct layer_entry *x, _unused_ struct error *e)
{
        struct buf *b = context;

        list_bytes(b, (const uint8_t *) x->path, strlen(x->path));
        buf_printf(b, " %06o %u:%u %" PRIu64 " %" PRId64, x->mode, x->uid, x->gid, x->size, x->mtime);
        if (x->mtime_nsec)
                buf_printf(b, ".%09u", x->mtime_nsec);
        if (x->link) {
                buf_printf(b, x->hardlink ? " = " : " -> ");
                list_bytes(b, (const uint8_t *) x->link, strlen(x->link));
        }
        if (S_ISCHR(x->mode) || S_ISBLK(x->mode))
                buf_printf(b, " %u:%u", x->major, x->minor);
        if (x->sparse)
                buf_printf(b, " sparse");
        for (size_t i = 0; i < x->extent_count; i++)
                buf_printf(b, " %" PRIu64 "+%" PRIu64 "@%" PRIu64, x->extents[i].file_offset, x->extents[i].length,
                           x->extents[i].content_offset);
        if (S_ISREG(x->mode) && !x->hardlink && !x->sparse)
                buf_printf(b, " @%" PRIu64, x->content_offset);
        for (size_t i = 0; i < x->xattr_count; i++) {
                buf_printf(b, " %s=", x->xattrs[i].name);
                list_bytes(b, x->xattrs[i].value, x->xattrs[i].value_length);
        }
        return buf_printf(b, "\n");
}

/* Where the next piece ends: a constant length, or, for 0, what comes out of *SEED. */
static inline size_t piece_length(size_t piece, uint64_t *seed)
{
        if (piece > 0)
                return piece;
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        return 1 + *seed % (*seed % 3 ? 64 : 2000);
}

/* Feeds DATA in pieces. The listing, with the error's message as its last line, is the caller's to free. */
static inline int scan(const void *data, size_t n, size_t piece, uint64_t seed, struct buf *ret)
{
        _cleanup_(tar_scanner_free_ptr) struct tar_scanner *t = NULL;
        struct error e = ERROR_INIT;
        int r;

        assert_int_equal(tar_scanner_new(list_entry, ret, &t), 0);
        for (size_t at = 0, length; at < n; at += length) {
                uint8_t *copy;

                /* A copy of just this length lets the address sanitizer see a read past it. */
                length = MIN(piece_length(piece, &seed), n - at);
                copy = malloc(length);
                assert_non_null(copy);
                memcpy(copy, (const char *) data + at, length);
                r = tar_scanner_feed(t, copy, length, &e);
                free(copy);
                if (r < 0)
                        goto failed;
        }
        r = tar_scanner_finish(t, &e);
        if (r == 0)
                return 0;
failed:
        buf_printf(ret, "%s\n", e.message);
        return r;
}

/* The listing, however the tape is cut, and what the scan returned. */
static inline int list(const struct tape *t, struct buf *ret)
{
        static const size_t pieces[] = { 1, 7, 511, 512, 513, 1024, 0 };
        int r = scan(t->bytes.data, t->bytes.len, SIZE_MAX, 1, ret);

        for (size_t i = 0; i < ELEMENTSOF(pieces); i++) {
                _cleanup_buf_ struct buf again = { 0 };

                if (pieces[i] > 0 && t->bytes.len / pieces[i] > 64 * KIB)
                        continue;
                assert_int_equal(scan(t->bytes.data, t->bytes.len, pieces[i], i + 1, &again), r);
                assert_int_equal(again.len, ret->len);
                if (ret->len > 0)
                        assert_string_equal(again.data, ret->data);
        }
        return r;
}

static inline void expect(const struct tape *t, const char *listing)
{
        _cleanup_buf_ struct buf got = { 0 };
        int r = list(t, &got);

        assert_string_equal(got.len > 0 ? got.data : "", listing);
        assert_int_equal(r, 0);
}

/* LISTING is all of what comes before the refusal and the start of its message. */
static inline void expect_refusal(const struct tape *t, const char *listing)
{
        _cleanup_buf_ struct buf got = { 0 };

        assert_int_equal(list(t, &got), -EBADMSG);
        assert_true(got.len >= strlen(listing));
        got.data[strlen(listing)] = '\0';
        assert_string_equal(got.data, listing);
}

/* ---- a tape for each test ---- */

static inline int tape_setup(void **state)
{
        *state = calloc(1, sizeof(struct tape));
        return *state ? 0 : -1;
}

static inline int tape_teardown(void **state)
{
        struct tape *t = *state;

        tape_free(t);
        free(t);
        return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, tape_setup, tape_teardown)
