/* SPDX-License-Identifier: Apache-2.0 */

#include "layer_expect.h"

static void hardlinked_names_share_an_inode(void **state)
{
        (void) state;
        expect_layer(ENTRIES(REG("b", 1), HARD("a", "b"), HARD("c", "./b"), HARD("d/e", "/b")),
                     "/ 755 implicit\na 644 #1 x4\nb = a\nc = a\nd/ 755 implicit\nd/e = a\n");
}

static void hardlink_may_come_before_its_target(void **state)
{
        (void) state;
        expect_layer(ENTRIES(HARD("a", "z"), REG("z", 1)), "/ 755 implicit\na 644 #1 x2\nz = a\n");
}

static void hardlink_chains_end_at_one_file(void **state)
{
        (void) state;
        expect_layer(ENTRIES(HARD("a", "b"), HARD("d", "a"), HARD("b", "c"), REG("c", 1), HARD("e", "d")),
                     "/ 755 implicit\na 644 #1 x5\nb = a\nc = a\nd = a\ne = a\n");
}

static void hardlink_to_a_symlink_or_device_is_one_more_name(void **state)
{
        (void) state;
        expect_layer(ENTRIES(SYM("s", "t"), HARD("l", "s"),
                             { .path = "n", .mode = S_IFCHR | 0666, .major = 1, .minor = 3 }, HARD("m", "n")),
                     "/ 755 implicit\nl -> t x2\nm c 1:3 x2\nn = m\ns = l\n");
}

static void hardlink_binds_to_the_final_state_of_its_target(void **state)
{
        (void) state;
        expect_layer(ENTRIES(REG("f", 1), HARD("l", "f"), REG("f", 2)), "/ 755 implicit\nf 644 #2 x2\nl = f\n");
        expect_layer(ENTRIES(REG("d/f", 1), HARD("l", "d/f"), REG("d", 2), REG("d/f", 3)),
                     "/ 755 implicit\nd/ 755 opaque\nd/f 644 #3 x2\nl = d/f\n");
}

static void name_linked_then_overwritten_leaves_the_others(void **state)
{
        (void) state;
        expect_layer(ENTRIES(REG("f", 1), HARD("l", "f"), HARD("m", "f"), REG("l", 2)),
                     "/ 755 implicit\nf 644 #1 x2\nl 644 #2\nm = f\n");
}

static void hardlink_to_what_the_layer_does_not_hold_is_kept(void **state)
{
        (void) state;
        expect_layer(ENTRIES(HARD("a", "./usr/../bin//x"), HARD("b", "a")),
                     "/ 755 implicit\na link bin/x\nb link bin/x\n");
        expect_layer(ENTRIES(HARD("a", "f"), WHITEOUT(".wh.f")), "/ 755 implicit\na link f\nf whiteout\n");
        expect_layer(ENTRIES(HARD("a", "f/g"), REG("f", 1)), "/ 755 implicit\na link f/g\nf 644 #1\n");
        expect_layer(ENTRIES(REG("f/g", 1), HARD("a", "f/g"), REG("f", 2)), "/ 755 implicit\na link f/g\nf 644 #2\n");
        expect_layer(ENTRIES(HARD("a", "g"), WHITEOUT("g/.wh.x")),
                     "/ 755 implicit\na link g\ng/ 755 implicit ghost\ng/x whiteout\n");
}

static void hardlink_to_a_directory_is_refused(void **state)
{
        (void) state;
        expect_refusal(ENTRIES(DIR("d", 0755), HARD("x/l", "d")), "x/l: hardlink to d, which leads to a directory");
        expect_refusal(ENTRIES(REG("d/e/f", 1), HARD("l", "d/e")), "l: hardlink to d/e");
        expect_refusal(ENTRIES(HARD("l", "/")), "l: hardlink to /");
        expect_refusal(ENTRIES(HARD("l", "m"), HARD("m", "d"), DIR("d", 0755)), "l: hardlink to m");
}

static void hardlink_cycles_are_refused(void **state)
{
        (void) state;
        expect_refusal(ENTRIES(HARD("a", "a")), "a: hardlink to a, which is a link to a link without end");
        expect_refusal(ENTRIES(REG("a", 1), HARD("a", "./a")), "without end");
        expect_refusal(ENTRIES(HARD("a", "b"), HARD("b", "c"), HARD("c", "b")), "without end");
}

static void hardlinks_in_a_dropped_directory_are_forgotten(void **state)
{
        (void) state;
        expect_layer(ENTRIES(HARD("d/a", "d/a"), HARD("d/e/b", "/"), REG("d", 1)), "/ 755 implicit\nd 644 #1\n");
}

static void long_hardlink_chain_takes_linear_time(void **state)
{
        _cleanup_(layer_tree_free_ptr) struct layer_tree *t = NULL;
        char name[32], target[32];

        (void) state;
        assert_int_equal(layer_tree_new(&t), 0);
        for (unsigned i = 0; i < 200000; i++) {
                struct layer_entry entry = HARD(name, target);

                snprintf(name, sizeof(name), "%u", i);
                snprintf(target, sizeof(target), "%u", i + 1);
                assert_int_equal(layer_tree_add(t, &entry, NULL), 0);
        }
        assert_int_equal(layer_tree_finish(t, NULL), 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(hardlinked_names_share_an_inode),
                cmocka_unit_test(hardlink_may_come_before_its_target),
                cmocka_unit_test(hardlink_chains_end_at_one_file),
                cmocka_unit_test(hardlink_to_a_symlink_or_device_is_one_more_name),
                cmocka_unit_test(hardlink_binds_to_the_final_state_of_its_target),
                cmocka_unit_test(name_linked_then_overwritten_leaves_the_others),
                cmocka_unit_test(hardlink_to_what_the_layer_does_not_hold_is_kept),
                cmocka_unit_test(hardlink_to_a_directory_is_refused),
                cmocka_unit_test(hardlink_cycles_are_refused),
                cmocka_unit_test(hardlinks_in_a_dropped_directory_are_forgotten),
                cmocka_unit_test(long_hardlink_chain_takes_linear_time),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
