/* SPDX-License-Identifier: Apache-2.0 */

#include "regfs/map.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <xxhash.h>

#define BUCKETS_MIN 16

struct node {
        struct node *next;
        void *value;
        uint64_t hash;
        size_t length;
        char key[];
};

/* Chains; doubled when there are as many nodes as buckets. */
struct map {
        struct node **buckets;
        size_t bucket_count; /* a power of two */
        size_t size;
};

static uint64_t seed;
static pthread_once_t seed_once = PTHREAD_ONCE_INIT;

/* Keys come from images and registries: without a secret, somebody could choose them to collide. */
static void make_seed(void)
{
        if (getrandom(&seed, sizeof(seed), GRND_NONBLOCK) != (ssize_t) sizeof(seed))
                seed = (uint64_t) time(NULL) ^ (uint64_t) (uintptr_t) &seed;
}

struct map *map_new(void)
{
        struct map *m = calloc(1, sizeof(*m));

        (void) pthread_once(&seed_once, make_seed);
        if (!m)
                return NULL;
        m->bucket_count = BUCKETS_MIN;
        m->buckets = calloc(m->bucket_count, sizeof(*m->buckets));
        if (!m->buckets) {
                free(m);
                return NULL;
        }
        return m;
}

struct map *map_free(struct map *m, void (*destroy)(void *value))
{
        if (!m)
                return NULL;
        for (size_t k = 0; k < m->bucket_count; k++) {
                struct node *next;

                for (struct node *n = m->buckets[k]; n; n = next) {
                        next = n->next;
                        if (destroy)
                                destroy(n->value);
                        free(n);
                }
        }
        free(m->buckets);
        free(m);
        return NULL;
}

static bool same_key(const struct node *n, const void *key, size_t len)
{
        return n->length == len && (len == 0 || memcmp(n->key, key, len) == 0);
}

/* The link that points to the node of that key, or to the NULL at the end of its chain. */
static struct node **find(const struct map *m, const void *key, size_t len, uint64_t hash)
{
        struct node **link = &m->buckets[hash & (m->bucket_count - 1)];

        while (*link && !((*link)->hash == hash && same_key(*link, key, len)))
                link = &(*link)->next;
        return link;
}

static uint64_t hash_of(const void *key, size_t len)
{
        return XXH3_64bits_withSeed(key, len, seed);
}

void *map_get(const struct map *m, const void *key, size_t len)
{
        struct node *n = *find(m, key, len, hash_of(key, len));

        return n ? n->value : NULL;
}

/* Staying small costs speed only: failure to grow is no error. */
static void grow(struct map *m)
{
        size_t count = 2 * m->bucket_count;
        struct node **buckets = calloc(count, sizeof(*buckets));

        if (!buckets)
                return;
        for (size_t k = 0; k < m->bucket_count; k++) {
                struct node *next;

                for (struct node *n = m->buckets[k]; n; n = next) {
                        struct node **home = &buckets[n->hash & (count - 1)];

                        next = n->next;
                        n->next = *home;
                        *home = n;
                }
        }
        free(m->buckets);
        m->buckets = buckets;
        m->bucket_count = count;
}

int map_put(struct map *m, const void *key, size_t len, void *value, void **ret_old)
{
        uint64_t hash = hash_of(key, len);
        struct node **link = find(m, key, len, hash), *n = *link;

        if (n) {
                if (ret_old)
                        *ret_old = n->value;
                n->value = value;
                return 0;
        }
        n = len > SIZE_MAX - sizeof(*n) ? NULL : malloc(sizeof(*n) + len);
        if (!n)
                return -ENOMEM;
        n->next = NULL;
        n->value = value;
        n->hash = hash;
        n->length = len;
        if (len > 0)
                memcpy(n->key, key, len);
        *link = n;
        if (++m->size > m->bucket_count)
                grow(m);
        if (ret_old)
                *ret_old = NULL;
        return 0;
}

void *map_remove(struct map *m, const void *key, size_t len)
{
        struct node **link = find(m, key, len, hash_of(key, len)), *n = *link;
        void *value;

        if (!n)
                return NULL;
        value = n->value;
        *link = n->next;
        free(n);
        m->size--;
        return value;
}

size_t map_size(const struct map *m)
{
        return m->size;
}

/* The cursor is the node met last. */
bool map_next(const struct map *m, size_t *cursor, const void **ret_key, size_t *ret_len, void **ret_value)
{
        const struct node *last = (const struct node *) (uintptr_t) *cursor, *n = NULL;
        size_t bucket = 0;

        if (last) {
                n = last->next;
                bucket = (last->hash & (m->bucket_count - 1)) + 1;
        }
        for (; !n && bucket < m->bucket_count; bucket++)
                n = m->buckets[bucket];
        if (!n)
                return false;
        *ret_key = n->key;
        *ret_len = n->length;
        *ret_value = n->value;
        *cursor = (size_t) (uintptr_t) n;
        return true;
}
