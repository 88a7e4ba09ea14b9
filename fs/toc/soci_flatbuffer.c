/* SPDX-License-Identifier: Apache-2.0 */

/* Tables, vectors and strings of a FlatBuffer that nobody vouches for: each place is checked before it is looked at.
 * Alignment does not matter here, everything is copied out. */

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "soci_internal.h"

#define OFFSET_SIZE 4u
#define VTABLE_HEADER 4u

void flatbuffer_init(struct flatbuffer *b, const void *data, size_t n)
{
        *b = (struct flatbuffer) { .data = data, .size = n, .left = (uint64_t) n * FLATBUFFER_SHARING };
}

int fb_refuse(const struct fb_schema *schema, unsigned field, struct error *e, const char *format, ...)
{
        char why[200];
        va_list ap;

        va_start(ap, format);
        vsnprintf(why, sizeof(why), format, ap);
        va_end(ap);
        return error_set(e, ERROR_BAD_DATA, EBADMSG, "%s.%s: %s", schema->name, schema->fields[field], why);
}

static uint16_t load_u16(const struct flatbuffer *b, size_t at)
{
        uint16_t n;

        memcpy(&n, b->data + at, sizeof(n));
        return n;
}

static uint32_t load_u32(const struct flatbuffer *b, size_t at)
{
        uint32_t n;

        memcpy(&n, b->data + at, sizeof(n));
        return n;
}

/* ---- tables ---- */

static int open_table(struct flatbuffer *b, const struct fb_schema *schema, size_t at, struct fb_table *ret,
                      struct error *e)
{
        struct fb_table t = { .buffer = b, .schema = schema, .at = at };
        int64_t vtable;

        if (!range_fits(at, OFFSET_SIZE, b->size))
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "table %s at byte %zu lies outside of the buffer",
                                 schema->name, at);
        vtable = (int64_t) at - (int32_t) load_u32(b, at);
        if (vtable < 0 || !range_fits((uint64_t) vtable, VTABLE_HEADER, b->size))
                return error_set(e, ERROR_BAD_DATA, EBADMSG,
                                 "table %s at byte %zu: its vtable lies outside of the buffer", schema->name, at);
        t.vtable = (size_t) vtable;
        t.vtable_size = load_u16(b, t.vtable);
        t.size = load_u16(b, t.vtable + 2);
        if (t.vtable_size < VTABLE_HEADER || t.vtable_size % 2 != 0 || !range_fits(t.vtable, t.vtable_size, b->size) ||
            t.size < OFFSET_SIZE || !range_fits(at, t.size, b->size))
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "table %s at byte %zu: impossible sizes in its vtable",
                                 schema->name, at);
        *ret = t;
        return 0;
}

int fb_root(struct flatbuffer *b, const struct fb_schema *schema, struct fb_table *ret, struct error *e)
{
        if (b->size < OFFSET_SIZE)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "%zu bytes hold no table %s", b->size, schema->name);
        return open_table(b, schema, load_u32(b, 0), ret, e);
}

/* Where FIELD has its WIDTH bytes. Returns 1, 0 when it is absent, or -EBADMSG with E. */
static int find_field(const struct fb_table *t, unsigned field, size_t width, size_t *ret, struct error *e)
{
        size_t entry = VTABLE_HEADER + 2 * (size_t) field, offset;

        if (entry + 2 > t->vtable_size)
                return 0;
        offset = load_u16(t->buffer, t->vtable + entry);
        if (offset == 0)
                return 0;
        if (offset < OFFSET_SIZE || !range_fits(offset, width, t->size))
                return fb_refuse(t->schema, field, e, "lies outside of its table, at byte %zu", t->at);
        *ret = t->at + offset;
        return 1;
}

int fb_number(const struct fb_table *t, unsigned field, void *ret, size_t width, struct error *e)
{
        size_t at = 0;
        int r = find_field(t, field, width, &at, e);

        if (r <= 0)
                return r;
        memcpy(ret, t->buffer->data + at, width);
        return 0;
}

int fb_size(const struct fb_table *t, unsigned field, uint64_t *ret, struct error *e)
{
        uint64_t n = 0;
        int r = fb_number(t, field, &n, sizeof(n), e);

        if (r < 0)
                return r;
        if (n > INT64_MAX)
                return fb_refuse(t->schema, field, e, "%" PRId64 " is negative", (int64_t) n);
        *ret = n;
        return 0;
}

/* What the offset at AT leads to: a count, with COUNT × WIDTH + TAIL bytes behind it. */
static int follow(struct flatbuffer *b, const struct fb_schema *schema, unsigned field, size_t at, size_t width,
                  size_t tail, size_t *ret_at, uint32_t *ret_count, struct error *e)
{
        uint64_t target = (uint64_t) at + load_u32(b, at);
        uint32_t count;

        if (!range_fits(target, OFFSET_SIZE, b->size))
                return fb_refuse(schema, field, e, "lies outside of the buffer");
        count = load_u32(b, (size_t) target);
        target += OFFSET_SIZE;
        if (!range_fits(target, (uint64_t) count * width + tail, b->size))
                return fb_refuse(schema, field, e, "does not end within the buffer");
        *ret_at = (size_t) target;
        *ret_count = count;
        return 0;
}

int fb_table(const struct fb_table *t, unsigned field, const struct fb_schema *schema, struct fb_table *ret,
             struct error *e)
{
        size_t at = 0;
        int r = find_field(t, field, OFFSET_SIZE, &at, e);

        if (r < 0)
                return r;
        if (r == 0)
                return fb_refuse(t->schema, field, e, "missing");
        r = open_table(t->buffer, schema, at + load_u32(t->buffer, at), ret, e);
        return r < 0 ? error_prefix(e, "%s.%s", t->schema->name, t->schema->fields[field]) : 0;
}

/* ---- strings ---- */

static int read_string(struct flatbuffer *b, const struct fb_schema *schema, unsigned field, size_t at,
                       const char **ret, size_t *ret_length, struct error *e)
{
        uint32_t length = 0;
        size_t text = 0;
        int r = follow(b, schema, field, at, 1, 1, &text, &length, e);

        if (r < 0)
                return r;
        if (b->data[text + length] != '\0')
                return fb_refuse(schema, field, e, "a string without its NUL");
        if (length + (uint64_t) OFFSET_SIZE > b->left)
                return fb_refuse(schema, field, e,
                                 "shared strings come to more than %d times the %zu bytes that hold them",
                                 FLATBUFFER_SHARING, b->size);
        b->left -= length + (uint64_t) OFFSET_SIZE;
        *ret = (const char *) b->data + text;
        *ret_length = length;
        return 0;
}

static int check_text(const struct fb_schema *schema, unsigned field, const char *text, size_t length, struct error *e)
{
        return memchr(text, '\0', length) ? fb_refuse(schema, field, e, "a NUL inside") : 0;
}

int fb_bytes(const struct fb_table *t, unsigned field, const char **ret, size_t *ret_length, struct error *e)
{
        size_t at = 0;
        int r = find_field(t, field, OFFSET_SIZE, &at, e);

        if (r > 0)
                return read_string(t->buffer, t->schema, field, at, ret, ret_length, e);
        if (r == 0) {
                *ret = "";
                *ret_length = 0;
        }
        return r;
}

int fb_text(const struct fb_table *t, unsigned field, const char **ret, size_t *ret_length, struct error *e)
{
        const char *text = NULL;
        size_t length = 0;
        int r = fb_bytes(t, field, &text, &length, e);

        if (r == 0)
                r = check_text(t->schema, field, text, length, e);
        if (r < 0)
                return r;
        *ret = text;
        *ret_length = length;
        return 0;
}

/* ---- vectors ---- */

int fb_vector(const struct fb_table *t, unsigned field, size_t width, struct fb_vector *ret, struct error *e)
{
        struct fb_vector v = { .buffer = t->buffer, .schema = t->schema, .field = field };
        size_t at = 0;
        int r = find_field(t, field, OFFSET_SIZE, &at, e);

        if (r > 0)
                r = follow(t->buffer, t->schema, field, at, width, 0, &v.at, &v.count, e);
        if (r < 0)
                return r;
        *ret = v;
        return 0;
}

static size_t element(const struct fb_vector *v, uint32_t index)
{
        return v->at + (size_t) index * OFFSET_SIZE;
}

int fb_vector_table(const struct fb_vector *v, uint32_t index, const struct fb_schema *schema, struct fb_table *ret,
                    struct error *e)
{
        size_t at = element(v, index);
        int r = open_table(v->buffer, schema, at + load_u32(v->buffer, at), ret, e);

        return r < 0 ? error_prefix(e, "%s.%s, element %" PRIu32, v->schema->name, v->schema->fields[v->field], index)
                     : 0;
}

int fb_vector_text(const struct fb_vector *v, uint32_t index, const char **ret, size_t *ret_length, struct error *e)
{
        const char *text = NULL;
        size_t length = 0;
        int r = read_string(v->buffer, v->schema, v->field, element(v, index), &text, &length, e);

        if (r == 0)
                r = check_text(v->schema, v->field, text, length, e);
        if (r < 0)
                return error_prefix(e, "element %" PRIu32, index);
        *ret = text;
        *ret_length = length;
        return 0;
}
