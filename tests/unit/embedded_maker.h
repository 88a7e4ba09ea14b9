/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Layers with embedded tables of contents, made to order. */

#include <zlib.h>
#include <zstd.h>

#include "embedded_fixture.h"

#define SPAN_MAX 8

/* A layer in the making: payloads that a table can name by letter. */
struct maker {
        struct buf blob;
        enum codec codec;
        struct {
                size_t offset;
                char digest[DIGEST_STRING_MAX];
        } payloads[SPAN_MAX];
        size_t count;
        char digest[DIGEST_STRING_MAX];   /* of the JSON */
        char checksum[DIGEST_STRING_MAX]; /* of the table as stored */
        char position[100];
};

static inline void maker_clear(struct maker *m)
{
        buf_free(&m->blob);
}
#define _cleanup_maker_ _cleanup_(maker_clear)

static inline void sha256_text(const void *data, size_t n, char out[DIGEST_STRING_MAX])
{
        struct digest d;

        assert_int_equal(digest_of(DIGEST_SHA256, data, n, &d), 0);
        digest_format(&d, out);
}

static inline void append_gzip(struct buf *b, const void *data, size_t n)
{
        z_stream z = { 0 };

        assert_int_equal(deflateInit2(&z, 1, Z_DEFLATED, MAX_WBITS + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
        assert_int_equal(buf_reserve(b, deflateBound(&z, n)), 0);
        z.next_in = (Bytef *) data;
        z.avail_in = (uInt) n;
        z.next_out = (Bytef *) b->data + b->len;
        z.avail_out = (uInt) deflateBound(&z, n);
        assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
        b->len += z.total_out;
        deflateEnd(&z);
}

static inline void append_zstd(struct buf *b, const void *data, size_t n)
{
        assert_int_equal(buf_reserve(b, ZSTD_compressBound(n)), 0);
        b->len += ZSTD_compress(b->data + b->len, ZSTD_compressBound(n), data, n, 1);
}

/* A member, or a frame, with these bytes. */
static inline void add_payload(struct maker *m, const void *data, size_t n)
{
        m->payloads[m->count].offset = m->blob.len;
        sha256_text(data, n, m->payloads[m->count].digest);
        m->count++;
        if (m->codec == CODEC_ZSTD)
                append_zstd(&m->blob, data, n);
        else
                append_gzip(&m->blob, data, n);
}

/* TEMPLATE with @A, @B … replaced by the offset of a payload, #A by its digest and @$ by the end of the data. */
static inline void fill_template(const struct maker *m, const char *template, struct buf *ret)
{
        for (const char *p = template; *p; p++) {
                size_t i = (size_t) (p[1] - 'A');

                if (*p == '@' && p[1] == '$') {
                        buf_printf(ret, "%zu", m->blob.len);
                        p++;
                } else if (*p == '@' && i < m->count) {
                        buf_printf(ret, "%zu", m->payloads[i].offset);
                        p++;
                } else if (*p == '#' && i < m->count) {
                        buf_append_str(ret, m->payloads[i].digest);
                        p++;
                } else {
                        buf_append_char(ret, *p);
                }
        }
}

/* A ustar member NAME. */
static inline void append_tar(struct buf *b, const char *name, const void *data, size_t n)
{
        static const char zeros[1024];
        char header[512] = { 0 };
        unsigned sum = 8 * ' ';

        snprintf(header, 100, "%s", name);
        snprintf(header + 100, 8, "%07o", 0644u);
        snprintf(header + 108, 8, "%07o", 0u);
        snprintf(header + 116, 8, "%07o", 0u);
        snprintf(header + 124, 12, "%011zo", n);
        snprintf(header + 136, 12, "%011o", 0u);
        header[156] = '0';
        memcpy(header + 257, "ustar\00000", 8);
        for (size_t k = 0; k < sizeof(header); k++)
                sum += (unsigned char) header[k];
        snprintf(header + 148, 8, "%06o", sum);
        header[155] = ' ';
        buf_append(b, header, sizeof(header));
        buf_append(b, data, n);
        buf_append(b, zeros, -n % 512);
}

enum footer {
        FOOTER_ESTARGZ,
        FOOTER_LEGACY,
        FOOTER_EXTERNAL,
};

static inline void append_footer(struct buf *b, uint64_t offset, enum footer kind)
{
        static const char *const formats[] = { "%016jxSTARGZ", "%016jxSTARGZ", "STARGZEXTERNALTOC" };
        char extra[64];
        uint8_t header[16] = { 0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff };
        size_t n = 12;

        _Pragma("GCC diagnostic push") _Pragma("GCC diagnostic ignored \"-Wformat-nonliteral\"")
                snprintf(extra, sizeof(extra), formats[kind], (uintmax_t) offset);
        _Pragma("GCC diagnostic pop") header[10] = (uint8_t) strlen(extra);
        if (kind != FOOTER_LEGACY) {
                memcpy(header + 12, "SG", 2);
                header[14] = (uint8_t) strlen(extra);
                header[10] += 4;
                n = 16;
        }
        buf_append(b, header, n);
        buf_append_str(b, extra);
        buf_append(b, "\1\0\0\xff\xff\0\0\0\0\0\0\0\0", 13);
}

static inline void end_estargz(struct maker *m, const struct buf *json, const char *name, enum footer kind)
{
        _cleanup_buf_ struct buf tar = { 0 };
        uint64_t offset = m->blob.len;

        append_tar(&tar, name, json->data, json->len);
        append_gzip(&m->blob, tar.data, tar.len);
        append_footer(&m->blob, offset, kind);
        sha256_text(json->data, json->len, m->digest);
}

static inline void append_skippable(struct buf *b, const void *data, size_t n)
{
        const uint32_t header[] = { 0x184d2a50, (uint32_t) n };

        buf_append(b, header, sizeof(header));
        buf_append(b, data, n);
}

/* The layer's last frames around a table whose frame is PACKED. */
static inline void end_with_frame(struct maker *m, const struct buf *json, const struct buf *frame)
{
        const struct buf packed = *frame;
        uint64_t numbers[4];

        sha256_text(packed.data, packed.len, m->checksum);
        numbers[0] = m->blob.len + 8;
        numbers[1] = packed.len;
        numbers[2] = json->len;
        numbers[3] = 1;
        snprintf(m->position, sizeof(m->position), "%ju:%ju:%ju:1", (uintmax_t) numbers[0], (uintmax_t) numbers[1],
                 (uintmax_t) numbers[2]);
        append_skippable(&m->blob, packed.data, packed.len);

        struct buf footer = { 0 };
        buf_append(&footer, numbers, sizeof(numbers));
        buf_append_str(&footer, "GnUlInUx");
        append_skippable(&m->blob, footer.data, footer.len);
        buf_free(&footer);
}

static inline void end_zstdchunked(struct maker *m, const struct buf *json)
{
        _cleanup_buf_ struct buf packed = { 0 };

        append_zstd(&packed, json->data, json->len);
        end_with_frame(m, json, &packed);
}

/* Ends the layer with a table of these entries. */
static inline void end_with(struct maker *m, const char *entries)
{
        _cleanup_buf_ struct buf json = { 0 };

        buf_append_str(&json, "{\"version\":1,\"entries\":[");
        fill_template(m, entries, &json);
        buf_append_str(&json, "]}");
        if (m->codec == CODEC_ZSTD)
                end_zstdchunked(m, &json);
        else
                end_estargz(m, &json, "stargz.index.json", FOOTER_ESTARGZ);
}

/* Annotations of what was made; borrowed from M. */
struct annotations {
        char *list[5];
};

static inline struct annotations annotate(struct maker *m)
{
        struct annotations a = { { (char *) STARGZ, m->digest } };

        if (m->codec == CODEC_ZSTD)
                a = (struct annotations) { { (char *) CHUNKED "manifest-checksum", m->checksum,
                                             (char *) CHUNKED "manifest-position", m->position } };
        return a;
}

static inline int index_made(struct bench *b, struct maker *m, struct error *e)
{
        _cleanup_watched_ struct watched_blob *w = watch(m->blob.data, m->blob.len);
        struct annotations a = annotate(m);
        char kind[LAYER_KIND_MAX];
        int r = index_blob(b, w, a.list, kind, e);

        if (r < 0) {
                assert_int_equal(entries(below(&b->place, "layers")), 0);
                assert_int_equal(entries(below(&b->place, "tmp")), 0);
        }
        return r;
}

#define A "alpha alpha"
#define B "beta, which is longer than alpha"
#define A_SIZE "11"
#define B_SIZE "32"

/* Payload A, a megabyte of zeros, payload B. */
static inline void add_usual(struct maker *m)
{
        _cleanup_free_ char *zeros = calloc(1, MIB);

        add_payload(m, A, strlen(A));
        add_payload(m, B, strlen(B));
        add_payload(m, zeros, MIB);
}

#define FILE_A "{\"type\":\"reg\",\"name\":\"a\",\"size\":" A_SIZE ",\"offset\":@A,\"digest\":\"#A\"}"
#define FILE_B "{\"type\":\"reg\",\"name\":\"b\",\"size\":" B_SIZE ",\"offset\":@B,\"digest\":\"#B\"}"
