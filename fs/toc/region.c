/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <xxhash.h>

#include "region.h"

/* What is not touched costs nothing, and what has to grow costs all threads: they have one address space. */
#define REGION_FIRST (1 * MIB)
#define SLOTS_FIRST 4096u

static void *map_memory(size_t n, int flags)
{
        void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);

        return p == MAP_FAILED ? NULL : p;
}

static int region_grow(struct region *r, size_t n)
{
        size_t need, size = r->mapped ? r->mapped : REGION_FIRST;
        void *p;

        if (__builtin_add_overflow(r->size, n, &need) || need > SIZE_MAX / 4)
                return -ENOMEM;
        while (size < need)
                size *= 2;
        p = r->data ? mremap(r->data, r->mapped, size, MREMAP_MAYMOVE) : map_memory(size, 0);
        if (!p || p == MAP_FAILED)
                return -ENOMEM;
        r->data = p;
        r->mapped = size;
        return 0;
}

void *region_append(struct region *r, const void *data, size_t n)
{
        char *p;

        if ((!r->data || n > r->mapped - r->size) && region_grow(r, n) < 0)
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
        if (r->data)
                munmap(r->data, r->mapped);
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

int slots_reserve(struct slots *s)
{
        struct slots bigger = *s;

        if (s->cells && s->used < s->mask / 8 * 5)
                return 0;
        if (!s->cells) {
                bigger.mask = SLOTS_FIRST - 1;
                /* Without randomness the table still works: it is only slower against chosen names. */
                if (getrandom(&bigger.seed, sizeof(bigger.seed), GRND_NONBLOCK) < 0)
                        bigger.seed = (uintptr_t) s;
        } else if (s->mask > UINT32_MAX / 4) {
                return -ENOMEM;
        } else {
                bigger.mask = s->mask * 2 + 1;
        }
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
