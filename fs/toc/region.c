/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <xxhash.h>

#include "region.h"

/* Many a table stays small. Of a mapping, what is not touched costs nothing, and what has to grow costs all threads: they
 * have one address space. */
#define SMALL_FIRST (1 * KIB)
#define SMALL_MAX (64 * KIB)
#define MAPPED_FIRST (1 * MIB)
#define SLOTS_FIRST 4096u

static void *map_memory(size_t n, int flags)
{
        void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);

        return p == MAP_FAILED ? NULL : p;
}

static bool is_mapped(const struct region *r)
{
        return r->room > SMALL_MAX;
}

/* Moves a small region to memory of SIZE bytes. */
static void *map_small(struct region *r, size_t size, int flags)
{
        void *p = map_memory(size, flags);

        if (p && r->data)
                memcpy(p, r->data, r->size);
        if (p)
                free(r->data);
        return p;
}

static void *grow_to(struct region *r, size_t size)
{
        void *p;

        if (size <= SMALL_MAX)
                return realloc(r->data, size);
        if (!is_mapped(r))
                return map_small(r, size, 0);
        p = mremap(r->data, r->room, size, MREMAP_MAYMOVE);
        return p == MAP_FAILED ? NULL : p;
}

static int region_grow(struct region *r, size_t n)
{
        size_t need, size = r->room ? r->room : SMALL_FIRST;
        void *p;

        if (__builtin_add_overflow(r->size, n, &need) || need > SIZE_MAX / 4)
                return -ENOMEM;
        while (size < need)
                size *= 2;
        if (size > SMALL_MAX)
                size = MAX(size, MAPPED_FIRST);
        p = grow_to(r, size);
        if (!p)
                return -ENOMEM;
        r->data = p;
        r->room = size;
        return 0;
}

int region_reserve(struct region *r, size_t n)
{
        void *p;

        if (is_mapped(r) || n <= SMALL_MAX)
                return 0;
        p = map_small(r, n, MAP_POPULATE);
        if (!p)
                return -ENOMEM;
        r->data = p;
        r->room = n;
        return 0;
}

void *region_append(struct region *r, const void *data, size_t n)
{
        char *p;

        if ((!r->data || n > r->room - r->size) && region_grow(r, n) < 0)
                return NULL;
        p = r->data + r->size;
        if (data)
                memcpy(p, data, n);
        else
                memset(p, 0, n);
        r->size += n;
        return p;
}

void region_free(struct region *r)
{
        if (is_mapped(r))
                munmap(r->data, r->room);
        else
                free(r->data);
        *r = (struct region) { 0 };
}

uint32_t slots_hash(const struct slots *s, const void *data, size_t n, uint64_t salt)
{
        return (uint32_t) XXH3_64bits_withSeed(data, n, s->seed ^ (salt * 0x9e3779b97f4a7c15u));
}

static void slots_place(struct slots *s, uint32_t hash, uint32_t value)
{
        uint32_t i = hash & s->mask;

        while (s->cells[i].value)
                i = (i + 1) & s->mask;
        s->cells[i] = (struct slot) { .hash = hash, .value = value };
}

static size_t slots_bytes(const struct slots *s)
{
        return ((size_t) s->mask + 1) * sizeof(struct slot);
}

static int slots_resize(struct slots *s, uint32_t mask)
{
        struct slots bigger = *s;

        bigger.mask = mask;
        /* Without randomness the table still works: it is only slower against chosen names. */
        if (!s->cells && getrandom(&bigger.seed, sizeof(bigger.seed), GRND_NONBLOCK) < 0)
                bigger.seed = (uintptr_t) s;
        /* All of it will be used, in no order. A page that is read before it is written is mapped twice, and the second
         * time every processor that this process runs on is told. */
        bigger.cells = map_memory(slots_bytes(&bigger), MAP_POPULATE);
        if (!bigger.cells)
                return -ENOMEM;
        for (size_t i = 0; s->cells && i <= s->mask; i++)
                if (s->cells[i].value)
                        slots_place(&bigger, s->cells[i].hash, s->cells[i].value);
        slots_free(s);
        *s = bigger;
        return 0;
}

static bool slots_full(const struct slots *s, size_t used)
{
        return used >= s->mask / 8 * 5;
}

int slots_reserve(struct slots *s)
{
        if (!s->cells)
                return slots_resize(s, SLOTS_FIRST - 1);
        if (!slots_full(s, s->used))
                return 0;
        return s->mask > UINT32_MAX / 4 ? -ENOMEM : slots_resize(s, s->mask * 2 + 1);
}

int slots_expect(struct slots *s, size_t n)
{
        struct slots sized = { .mask = SLOTS_FIRST - 1 };

        while (slots_full(&sized, n))
                sized.mask = sized.mask * 2 + 1;
        return s->cells ? 0 : slots_resize(s, sized.mask);
}

void slots_add(struct slots *s, uint32_t hash, uint32_t index)
{
        slots_place(s, hash, index + 1);
        s->used++;
}

void slots_free(struct slots *s)
{
        if (s->cells)
                munmap(s->cells, slots_bytes(s));
        *s = (struct slots) { 0 };
}
