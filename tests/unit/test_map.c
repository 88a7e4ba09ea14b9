/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "regfs/map.h"

#define MANY 5000

static int values[MANY];

static void free_map(struct map **m)
{
        map_free(*m, NULL);
}

#define _cleanup_map_ _cleanup_(free_map)

static size_t key_of(size_t k, char *out, size_t size)
{
        return (size_t) snprintf(out, size, "key %zu", k);
}

static void empty_map_has_nothing(void **state _unused_)
{
        _cleanup_map_ struct map *m = map_new();
        const void *key;
        size_t cursor = 0, len;
        void *value;

        assert_non_null(m);
        assert_int_equal(map_size(m), 0);
        assert_null(map_get(m, "a", 1));
        assert_null(map_remove(m, "a", 1));
        assert_false(map_next(m, &cursor, &key, &len, &value));
        assert_null(map_free(NULL, NULL));
}

static void value_is_found_under_its_key_only(void **state _unused_)
{
        _cleanup_map_ struct map *m = map_new();

        for (size_t k = 0; k < MANY; k++) {
                char key[32];
                size_t n = key_of(k, key, sizeof(key));

                assert_int_equal(map_put(m, key, n, &values[k], NULL), 0);
                memset(key, 'x', sizeof(key)); /* the map has its own copy */
        }
        assert_int_equal(map_size(m), MANY);
        for (size_t k = 0; k < MANY; k++) {
                char key[32];
                size_t n = key_of(k, key, sizeof(key));

                assert_ptr_equal(map_get(m, key, n), &values[k]);
                assert_null(map_get(m, key, n + 1));
        }
        assert_null(map_get(m, "key", 3));
        assert_null(map_get(m, "", 0));
}

static void keys_are_bytes(void **state _unused_)
{
        _cleanup_map_ struct map *m = map_new();

        assert_int_equal(map_put(m, NULL, 0, &values[0], NULL), 0);
        assert_int_equal(map_put(m, "\0", 1, &values[1], NULL), 0);
        assert_int_equal(map_put(m, "a\0b", 3, &values[2], NULL), 0);
        assert_int_equal(map_put(m, "a\0c", 3, &values[3], NULL), 0);
        assert_ptr_equal(map_get(m, "", 0), &values[0]);
        assert_ptr_equal(map_get(m, "\0", 1), &values[1]);
        assert_ptr_equal(map_get(m, "a\0b", 3), &values[2]);
        assert_ptr_equal(map_get(m, "a\0c", 3), &values[3]);
        assert_null(map_get(m, "a", 1));
}

static void replaced_value_is_handed_back(void **state _unused_)
{
        _cleanup_map_ struct map *m = map_new();
        void *old = &values[9];

        assert_int_equal(map_put(m, "a", 1, &values[0], &old), 0);
        assert_null(old);
        assert_int_equal(map_put(m, "a", 1, &values[1], &old), 0);
        assert_ptr_equal(old, &values[0]);
        assert_ptr_equal(map_get(m, "a", 1), &values[1]);
        assert_int_equal(map_size(m), 1);
}

static void removed_key_is_gone_and_the_others_stay(void **state _unused_)
{
        _cleanup_map_ struct map *m = map_new();
        char key[32];

        for (size_t k = 0; k < MANY; k++)
                assert_int_equal(map_put(m, key, key_of(k, key, sizeof(key)), &values[k], NULL), 0);
        for (size_t k = 0; k < MANY; k += 2)
                assert_ptr_equal(map_remove(m, key, key_of(k, key, sizeof(key))), &values[k]);
        assert_int_equal(map_size(m), MANY / 2);
        for (size_t k = 0; k < MANY; k++)
                assert_ptr_equal(map_get(m, key, key_of(k, key, sizeof(key))), k % 2 == 0 ? NULL : &values[k]);
        assert_null(map_remove(m, key, key_of(0, key, sizeof(key))));
}

static void iteration_meets_each_entry_once(void **state _unused_)
{
        _cleanup_map_ struct map *m = map_new();
        uint8_t met[MANY] = { 0 };
        size_t cursor = 0, count = 0, len;
        const void *key;
        void *value;
        char name[32];

        for (size_t k = 0; k < MANY; k++)
                assert_int_equal(map_put(m, name, key_of(k, name, sizeof(name)), &values[k], NULL), 0);
        while (map_next(m, &cursor, &key, &len, &value)) {
                size_t k = (size_t) ((int *) value - values);

                assert_int_equal(len, key_of(k, name, sizeof(name)));
                assert_memory_equal(key, name, len);
                assert_int_equal(met[k]++, 0);
                count++;
        }
        assert_int_equal(count, MANY);
}

static void count_one(void *value)
{
        ++*(int *) value;
}

static void destroying_calls_for_every_value_left(void **state _unused_)
{
        struct map *m = map_new();
        int counts[3] = { 0 };

        assert_int_equal(map_put(m, "a", 1, &counts[0], NULL), 0);
        assert_int_equal(map_put(m, "b", 1, &counts[1], NULL), 0);
        assert_int_equal(map_put(m, "c", 1, &counts[2], NULL), 0);
        map_remove(m, "b", 1);
        assert_null(map_free(m, count_one));
        assert_int_equal(counts[0], 1);
        assert_int_equal(counts[1], 0);
        assert_int_equal(counts[2], 1);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(empty_map_has_nothing),
                cmocka_unit_test(value_is_found_under_its_key_only),
                cmocka_unit_test(keys_are_bytes),
                cmocka_unit_test(replaced_value_is_handed_back),
                cmocka_unit_test(removed_key_is_gone_and_the_others_stay),
                cmocka_unit_test(iteration_meets_each_entry_once),
                cmocka_unit_test(destroying_calls_for_every_value_left),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
