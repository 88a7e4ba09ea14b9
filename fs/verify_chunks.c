/* SPDX-License-Identifier: Apache-2.0 */

/* A table's chunks out of a blob that lies in a file here: decoded in order, verified, handed on. Nothing is fetched
 * again or kept, and what is wrong with one chunk is said once. */

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "regfs/codec.h"
#include "regfs/io.h"
#include "verify_internal.h"

#define WINDOW (256 * KIB)

struct chunk_reader {
        const struct chunk_reader_options *options;
        uint64_t begin, length; /* of the blob range that is being decoded */
        uint8_t *window;
        uint8_t *out;        /* the largest chunk */
        size_t next;         /* the slice that comes next */
        struct hasher *hash; /* of blob ranges */
};

static void reader_clear(struct chunk_reader *r)
{
        hasher_free(r->hash);
        free(r->window);
        free(r->out);
}

static int reader_init(struct chunk_reader *r, const struct chunk_reader_options *options, struct error *e)
{
        const struct chunk_table *t = options->table;
        size_t largest = 1;

        for (size_t k = 0; k < t->chunk_count; k++)
                if (t->chunks[k].codec != CODEC_ZEROS)
                        largest = MAX(largest, (size_t) t->chunks[k].content_length);
        r->options = options;
        r->window = malloc(WINDOW);
        r->out = malloc(largest);
        r->hash = hasher_new(DIGEST_SHA256);
        return r->window && r->out && r->hash ? 0 : error_oom(e);
}

static int feed(void *context, uint64_t offset, const uint8_t **ret_data, size_t *ret_length, struct error *e)
{
        struct chunk_reader *r = context;
        size_t n = (size_t) MIN((uint64_t) WINDOW, r->length - offset);
        int k = n > 0 ? pread_full(r->options->fd, r->window, n, r->begin + offset) : 0;

        if (k < 0)
                return error_errno(e, -k, "the temporary file");
        *ret_data = r->window;
        *ret_length = n;
        return 0;
}

static int hash_range(struct chunk_reader *r, struct digest *ret, struct error *e)
{
        const uint8_t *data = NULL;
        size_t n = 0;
        int k = hasher_reset(r->hash);

        for (uint64_t at = 0; k == 0 && at < r->length; at += n) {
                k = feed(r, at, &data, &n, e);
                if (k < 0)
                        return k;
                k = hasher_update(r->hash, data, n);
        }
        if (k == 0)
                k = hasher_finish(r->hash, ret);
        return k < 0 ? error_errno(e, -k, "hashing") : 0;
}

/* -EBADMSG with E where C's digest is another one; DATA is its content, NULL while that is not decoded. */
static int verify(struct chunk_reader *r, const struct chunk *c, const uint8_t *data, struct error *e)
{
        char expected_text[DIGEST_STRING_MAX], actual_text[DIGEST_STRING_MAX];
        struct digest expected = { .algorithm = DIGEST_SHA256 }, actual;
        int k;

        if ((c->flags & CHUNK_NO_DIGEST) || !(c->flags & CHUNK_DIGEST_CONTENT) != !data)
                return 0;
        memcpy(expected.bytes, c->digest, SHA256_SIZE);
        if (data) {
                k = digest_of(DIGEST_SHA256, data, c->content_length, &actual);
                if (k < 0)
                        return error_errno(e, -k, "hashing");
        } else {
                k = hash_range(r, &actual, e);
                if (k < 0)
                        return k;
        }
        if (digest_equal(&expected, &actual))
                return 0;
        return error_set(e, ERROR_BAD_DATA, EBADMSG, "the digest of its %s is %s, the table says %s",
                         data ? "content" : "blob range", digest_format(&actual, actual_text),
                         digest_format(&expected, expected_text));
}

static int hand_on(struct chunk_reader *r, const struct chunk *c, int result, const struct error *why,
                   const uint8_t *data, struct error *e)
{
        const struct chunk_reader_options *o = r->options;

        if (result == -EBADMSG)
                return o->bad(o->context, c, why, e);
        if (result < 0) {
                *e = *why;
                return result;
        }
        return o->good(o->context, c, data, e);
}

static int read_alone(struct chunk_reader *r, const struct chunk *c, struct error *e)
{
        struct error why = ERROR_INIT;
        int k;

        k = verify(r, c, NULL, &why);
        if (k == 0)
                k = codec_decode(r->options->table, c, feed, r, r->out, &why);
        if (k == 0)
                k = verify(r, c, r->out, &why);
        return hand_on(r, c, k, &why, r->out, e);
}

static int on_slice(void *context, const struct chunk *c, const uint8_t *data, struct error *e)
{
        struct chunk_reader *r = context;
        struct error why = ERROR_INIT;
        int k = verify(r, c, data, &why);

        r->next++;
        return hand_on(r, c, k, &why, data, e);
}

/* The COUNT chunks at FIRST have one blob range. Where it cannot be decoded further, all that is left of it is bad. */
static int read_slices(struct chunk_reader *r, const struct chunk *first, size_t count, struct error *e)
{
        struct error why = ERROR_INIT;
        int k;

        r->next = 0;
        k = codec_decode_slices(r->options->table, first, count, feed, r, r->out, on_slice, r, &why);
        if (k == -EBADMSG && r->next < count) {
                for (k = 0; k == 0 && r->next < count; r->next++)
                        k = r->options->bad(r->options->context, &first[r->next], &why, e);
                return k;
        }
        if (k < 0)
                *e = why;
        return k;
}

static size_t group_size(const struct chunk_table *t, size_t k)
{
        const struct chunk *first = &t->chunks[k], *c;
        size_t n = 1;

        for (; k + n < t->chunk_count; n++) {
                c = &t->chunks[k + n];
                if (!(c->flags & CHUNK_SLICE) || c->codec == CODEC_ZEROS || c->blob_offset != first->blob_offset)
                        break;
        }
        return n;
}

int verify_chunks(const struct chunk_reader_options *options, struct error *e)
{
        _cleanup_(reader_clear) struct chunk_reader r = { 0 };
        const struct chunk_table *t = options->table;
        size_t count;
        int k = reader_init(&r, options, e);

        for (size_t i = 0; k == 0 && i < t->chunk_count; i += count) {
                const struct chunk *c = &t->chunks[i];

                count = 1;
                r.begin = c->blob_offset;
                r.length = c->blob_length;
                if (c->codec == CODEC_ZEROS) {
                        k = options->good(options->context, c, NULL, e);
                } else if (c->flags & CHUNK_SLICE) {
                        count = group_size(t, i);
                        k = read_slices(&r, c, count, e);
                } else {
                        k = read_alone(&r, c, e);
                }
        }
        return k;
}
