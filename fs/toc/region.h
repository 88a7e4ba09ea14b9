/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Memory for tables of unknown size: arrays that soon lie in mappings of their own, which grow by moving pages and go
 * back to the system when freed, and the open-addressed index that finds their elements by hash. */

#include <sys/random.h>

#include "regfs/base.h"

/* A zero-initialised region is empty. Pointers into it are good until the next append. */
struct region {
        char *data;
        size_t size;
        size_t room;
};

/* Appends N bytes, zeros when DATA is NULL, and returns where they lie; NULL when out of memory. DATA must not point
 * into the region. */
void *region_append(struct region *r, const void *data, size_t n);

/* Maps room for N bytes in all at once, which costs less than page by page; of use when most of it will be filled.
 * Returns 0 or -ENOMEM. */
int region_reserve(struct region *r, size_t n);

/* Drops what lies behind SIZE. */
static inline void region_truncate(struct region *r, size_t size)
{
        r->size = size;
}

void region_free(struct region *r);

#define _cleanup_region_ _cleanup_(region_free)

/* region_at(&r, struct node, 7): element 7 of an array of struct node. region_array: all of it, NULL when empty. */
#define region_array(r, type) ((type *) (void *) (r)->data)
#define region_at(r, type, index) (region_array(r, type) + (index))
#define region_count(r, type) ((uint32_t) ((r)->size / sizeof(type)))

#define SLOT_NONE UINT32_MAX

/* A set of indices below SLOT_NONE, found by the hash of what they stand for; the owner compares. The hash is seeded at
 * random, so that nobody can choose names that collide. A zero-initialised index is empty. */
struct slots {
        struct slot {
                uint32_t hash;
                uint32_t value; /* index + 1; 0: free */
        } * cells;
        uint32_t mask;
        uint32_t used;
        uint64_t seed;
};

uint32_t slots_hash(const struct slots *s, const void *data, size_t n, uint64_t salt);

/* Goes through the indices that have HASH: start with *cursor = HASH; SLOT_NONE at the end. Before slots_set, CURSOR
 * tells the cell of the index that came last. */
static inline uint32_t slots_next(const struct slots *s, uint32_t hash, uint32_t *cursor)
{
        if (!s->cells)
                return SLOT_NONE;
        for (uint32_t i = *cursor & s->mask; s->cells[i].value; i = (i + 1) & s->mask)
                if (s->cells[i].hash == hash) {
                        *cursor = i + 1;
                        return s->cells[i].value - 1;
                }
        return SLOT_NONE;
}

/* Puts INDEX in the place of the one that slots_next returned last. */
static inline void slots_set(struct slots *s, uint32_t cursor, uint32_t index)
{
        s->cells[(cursor - 1) & s->mask].value = index + 1;
}

/* Gives an empty index room for about N: it need not grow on its way there. Returns 0 or -ENOMEM. */
int slots_expect(struct slots *s, size_t n);

/* Makes the seed and room for one more: to be called before the hash is made. Returns 0 or -ENOMEM. */
int slots_reserve(struct slots *s);

/* Adds INDEX; after slots_reserve it cannot fail. */
void slots_add(struct slots *s, uint32_t hash, uint32_t index);

void slots_free(struct slots *s);
