/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The one hash map: keys are byte strings that the map copies, values are pointers that it does not own.
 * Not locked: the owner's lock guards it. The hash is XXH3 with a random seed per process. */

#include "regfs/base.h"

struct map;

/* NULL when out of memory. */
struct map *map_new(void);

/* Frees the map and its keys; when DESTROY is given it is called on every value. NULL is legal. Returns NULL. */
struct map *map_free(struct map *m, void (*destroy)(void *value));

/* The value, or NULL when the key is absent. */
void *map_get(const struct map *m, const void *key, size_t len);

/* Adds or replaces. VALUE is not NULL. *ret_old (may be NULL) gets the value replaced, else NULL.
 * Returns 0, or -ENOMEM with the map unchanged. */
int map_put(struct map *m, const void *key, size_t len, void *value, void **ret_old);

/* Takes the key out and returns its value, or NULL. */
void *map_remove(struct map *m, const void *key, size_t len);

size_t map_size(const struct map *m);

/* Iterates in no particular order: start with *cursor = 0, false at the end. The map must not change meanwhile. */
bool map_next(const struct map *m, size_t *cursor, const void **ret_key, size_t *ret_len, void **ret_value);
