/* SPDX-License-Identifier: Apache-2.0 */

/* Sparse maps in their four encodings (GNU tar manual, "Storing Sparse Files"). */

#include <inttypes.h>
#include <string.h>

#include "regfs/text.h"
#include "tar_internal.h"

void sparse_map_clear(struct sparse_map *m)
{
        m->count = 0;
        m->pairs = 0;
        m->stored = 0;
        m->end = 0;
}

void sparse_map_free(struct sparse_map *m)
{
        free(m->extents);
        *m = (struct sparse_map) { 0 };
}

int sparse_map_add(struct sparse_map *m, uint64_t offset, uint64_t length, struct error *e)
{
        if (offset < m->end)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "its sparse map is out of order at file offset %" PRIu64,
                                 offset);
        if (!range_fits(offset, length, INT64_MAX))
                return error_set(e, ERROR_BAD_DATA, EBADMSG,
                                 "its sparse map has %" PRIu64 " bytes at file offset %" PRIu64
                                 ", which is out of range",
                                 length, offset);
        m->pairs++;
        m->end = offset + length;
        if (length == 0)
                return 0;
        if (array_reserve(m->extents, &m->allocated, m->count + 1) < 0)
                return error_oom(e);
        m->extents[m->count++] = (struct extent) { .file_offset = offset, .length = length };
        m->stored += length;
        return 0;
}

int sparse_map_add_fields(struct sparse_map *m, const struct tar_sparse_field *fields, size_t n, struct error *e)
{
        uint64_t offset, length;
        int r;

        for (size_t i = 0; i < n && fields[i].offset[0] != '\0'; i++) {
                r = tar_header_unsigned(fields[i].offset, sizeof(fields[i].offset), "sparse offset", INT64_MAX, &offset,
                                        e);
                if (r < 0)
                        return r;
                r = tar_header_unsigned(fields[i].length, sizeof(fields[i].length), "sparse length", INT64_MAX, &length,
                                        e);
                if (r < 0)
                        return r;
                r = sparse_map_add(m, offset, length, e);
                if (r < 0)
                        return r;
        }
        return 0;
}

/* One number of the list, and what follows its comma; NULL behind the last. */
static int list_number(const char **p, uint64_t *ret, struct error *e)
{
        char digits[21];
        const char *comma = strchrnul(*p, ',');
        size_t n = (size_t) (comma - *p);
        int r;

        if (n >= sizeof(digits))
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "a number of %zu digits", n);
        memcpy(digits, *p, n);
        digits[n] = '\0';
        r = pax_number(digits, INT64_MAX, ret, e);
        if (r == 0)
                *p = *comma ? comma + 1 : NULL;
        return r;
}

int sparse_map_add_text(struct sparse_map *m, const char *text, struct error *e)
{
        const char *p = text;
        uint64_t offset, length;
        int r;

        while (p) {
                r = list_number(&p, &offset, e);
                if (r < 0)
                        return r;
                if (!p)
                        return error_set(e, ERROR_BAD_DATA, EBADMSG, "an offset without its length");
                r = list_number(&p, &length, e);
                if (r < 0)
                        return r;
                r = sparse_map_add(m, offset, length, e);
                if (r < 0)
                        return r;
        }
        return 0;
}

int sparse_map_place(struct sparse_map *m, uint64_t start, uint64_t stored, uint64_t size, struct error *e)
{
        if (m->end > size)
                return error_set(e, ERROR_BAD_DATA, EBADMSG,
                                 "its sparse map ends at %" PRIu64 ", past the file's %" PRIu64 " bytes", m->end, size);
        if (m->stored != stored)
                return error_set(e, ERROR_BAD_DATA, EBADMSG,
                                 "its sparse map wants %" PRIu64 " bytes of data and %" PRIu64 " are stored", m->stored,
                                 stored);
        for (size_t i = 0; i < m->count; i++) {
                m->extents[i].content_offset = start;
                start += m->extents[i].length;
        }
        return 0;
}

static int reader_number(struct sparse_reader *r, struct sparse_map *m, struct error *e)
{
        if (!r->counted) {
                if (r->value > INT64_MAX / 2)
                        return error_set(e, ERROR_BAD_DATA, EBADMSG, "its sparse map claims %" PRIu64 " pairs",
                                         r->value);
                r->counted = true;
                r->left = 2 * r->value;
                return 0;
        }
        if (r->left-- % 2 == 0) {
                r->offset = r->value;
                return 0;
        }
        return sparse_map_add(m, r->offset, r->value, e);
}

int sparse_reader_next(struct sparse_reader *r, struct sparse_map *m, char c, struct error *e)
{
        int ret;

        if (c >= '0' && c <= '9') {
                if (r->value > (uint64_t) (INT64_MAX - (c - '0')) / 10)
                        return error_set(e, ERROR_BAD_DATA, EBADMSG,
                                         "its sparse map has a number that is out of range");
                r->value = r->value * 10 + (uint64_t) (c - '0');
                r->digits = true;
                return 0;
        }
        if (c != '\n' || !r->digits)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "its sparse map has byte 0x%02x where a number belongs",
                                 (unsigned) (uint8_t) c);
        ret = reader_number(r, m, e);
        r->value = 0;
        r->digits = false;
        return ret;
}
