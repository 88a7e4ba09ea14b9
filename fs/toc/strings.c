/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <string.h>

#include "strings.h"

struct span {
        uint32_t offset;
        uint32_t length;
};

int string_table_add(struct string_table *t, const void *data, size_t n, uint32_t *ret_offset)
{
        struct span span = { .offset = (uint32_t) t->bytes.size, .length = (uint32_t) n };
        uint32_t hash, cursor, i;

        if (n == 0) {
                *ret_offset = 0;
                return 0;
        }
        if ((uintptr_t) data - (uintptr_t) t->bytes.data < t->bytes.size) {
                *ret_offset = (uint32_t) ((uintptr_t) data - (uintptr_t) t->bytes.data);
                return 0;
        }
        if (slots_reserve(&t->index) < 0)
                return -ENOMEM;
        hash = cursor = slots_hash(&t->index, data, n, 0);
        while ((i = slots_next(&t->index, hash, &cursor)) != SLOT_NONE) {
                const struct span *known = region_at(&t->spans, struct span, i);

                if (known->length == n && memcmp(t->bytes.data + known->offset, data, n) == 0) {
                        *ret_offset = known->offset;
                        return 0;
                }
        }
        if (n > ITABLE_STRINGS_MAX - t->bytes.size)
                return -EFBIG;
        i = region_count(&t->spans, struct span);
        if (!region_append(&t->bytes, data, n))
                return -ENOMEM;
        if (!region_append(&t->spans, &span, sizeof(span))) {
                region_truncate(&t->bytes, span.offset);
                return -ENOMEM;
        }
        slots_add(&t->index, hash, i);
        *ret_offset = span.offset;
        return 0;
}

void string_table_seal(struct string_table *t)
{
        region_free(&t->spans);
        slots_free(&t->index);
}

void string_table_free(struct string_table *t)
{
        region_free(&t->bytes);
        region_free(&t->spans);
        slots_free(&t->index);
}

int xattr_table_init(struct xattr_table *t)
{
        return region_append(&t->sets, NULL, sizeof(struct xattr_set)) ? 0 : -ENOMEM;
}

static int compare_xattrs(const void *a, const void *b)
{
        const struct layer_xattr *const *x = a, *const *y = b;
        int r = strcmp((*x)->name, (*y)->name);

        /* Of equal names, all from one array, the later entry comes last. */
        return r ? r : (*x > *y) - (*x < *y);
}

static int append_pairs(struct xattr_table *t, struct string_table *strings, const struct layer_xattr **sorted,
                        size_t count)
{
        for (size_t i = 0; i < count; i++) {
                const struct layer_xattr *x = sorted[i];
                struct xattr_pair pair = { .value_length = (uint32_t) x->value_length };
                int r;

                if (i + 1 < count && strcmp(x->name, sorted[i + 1]->name) == 0)
                        continue;
                r = string_table_add(strings, x->name, strlen(x->name) + 1, &pair.name);
                if (r == 0)
                        r = string_table_add(strings, x->value, x->value_length, &pair.value);
                if (r == 0 && !region_append(&t->pairs, &pair, sizeof(pair)))
                        r = -ENOMEM;
                if (r < 0)
                        return r;
        }
        return 0;
}

/* The pairs from FIRST on become a set of their own unless an equal one is there already: strings are deduplicated, so
 * equal sets have equal rows. */
static int settle_set(struct xattr_table *t, uint32_t first, uint32_t *ret_set)
{
        uint32_t hash, cursor, i, count = region_count(&t->pairs, struct xattr_pair) - first;
        const struct xattr_pair *pairs = region_at(&t->pairs, struct xattr_pair, first);
        struct xattr_set set = { .first = first, .count = count };

        if (slots_reserve(&t->index) < 0)
                return -ENOMEM;
        hash = cursor = slots_hash(&t->index, pairs, count * sizeof(*pairs), 0);
        while ((i = slots_next(&t->index, hash, &cursor)) != SLOT_NONE) {
                const struct xattr_set *known = region_at(&t->sets, struct xattr_set, i);

                if (known->count == count &&
                    memcmp(region_at(&t->pairs, struct xattr_pair, known->first), pairs, count * sizeof(*pairs)) == 0) {
                        region_truncate(&t->pairs, first * sizeof(*pairs));
                        *ret_set = i;
                        return 0;
                }
        }
        i = region_count(&t->sets, struct xattr_set);
        if (!region_append(&t->sets, &set, sizeof(set)))
                return -ENOMEM;
        slots_add(&t->index, hash, i);
        *ret_set = i;
        return 0;
}

int xattr_table_add(struct xattr_table *t, struct string_table *strings, const struct layer_xattr *xattrs, size_t count,
                    uint32_t *ret_set)
{
        uint32_t first = region_count(&t->pairs, struct xattr_pair);
        _cleanup_free_ const struct layer_xattr **sorted = NULL;
        int r;

        if (count == 0) {
                *ret_set = 0;
                return 0;
        }
        if (count > ITABLE_XATTRS_MAX - first)
                return -EFBIG;
        sorted = calloc(count, sizeof(*sorted));
        if (!sorted)
                return -ENOMEM;
        for (size_t i = 0; i < count; i++)
                sorted[i] = &xattrs[i];
        qsort(sorted, count, sizeof(*sorted), compare_xattrs);
        r = append_pairs(t, strings, sorted, count);
        if (r == 0)
                r = settle_set(t, first, ret_set);
        if (r < 0)
                region_truncate(&t->pairs, first * sizeof(struct xattr_pair));
        return r;
}

void xattr_table_free(struct xattr_table *t)
{
        region_free(&t->sets);
        region_free(&t->pairs);
        slots_free(&t->index);
}
