/* SPDX-License-Identifier: Apache-2.0 */

#include "itable_text.h"
#include "merge_model.h"

#define LAYERS_MAX 8

struct layer_text {
        const struct layer_entry *entries;
        size_t count;
};

#define LAYER(...)                   \
        {                            \
                ENTRIES(__VA_ARGS__) \
        }
#define LAYERS(...) \
        (const struct layer_text[]) { __VA_ARGS__ }, ELEMENTSOF(((const struct layer_text[]) { __VA_ARGS__ }))

/* Merges tables; the result is checked. Returns what itable_builder_merge does. */
static int merge_tables(const struct itable *tables, size_t count, struct itable *ret, struct error *e)
{
        _cleanup_(itable_builder_free_ptr) struct itable_builder *b = NULL;
        const struct itable *pointers[LAYERS_MAX];
        int r;

        assert_true(count <= LAYERS_MAX);
        for (size_t i = 0; i < count; i++)
                pointers[i] = &tables[i];
        assert_int_equal(itable_builder_new(&b), 0);
        r = itable_builder_merge(b, pointers, count, e);
        if (r == 0)
                *ret = checked_table(b, count);
        return r;
}

static int merge_layers(const struct layer_text *layers, size_t count, struct itable *ret, struct error *e)
{
        struct itable tables[LAYERS_MAX] = { 0 };
        int r;

        for (size_t i = 0; i < count; i++)
                tables[i] = layer_table(layers[i].entries, layers[i].count);
        r = merge_tables(tables, count, ret, e);
        for (size_t i = 0; i < count; i++)
                itable_exact_free(&tables[i]);
        return r;
}

/* LAYERS, lowest first, must give the tree EXPECTED. */
static void expect_merge(const struct layer_text *layers, size_t count, const char *expected)
{
        _cleanup_free_ char *text = NULL;
        struct error e = ERROR_INIT;
        struct itable t;

        if (merge_layers(layers, count, &t, &e) < 0)
                fail_msg("%s", e.message);
        text = itable_text(&t);
        assert_string_equal(text, expected);
        itable_exact_free(&t);
}

static void expect_refusal(const struct layer_text *layers, size_t count, const char *message)
{
        struct error e = ERROR_INIT;
        struct itable t;

        assert_int_equal(merge_layers(layers, count, &t, &e), -EBADMSG);
        assert_int_equal(e.kind, ERROR_BAD_DATA);
        assert_string_equal(e.message, message);
}

/* ---- what shows ---- */

static void image_without_layers_is_a_bare_root(void **state)
{
        (void) state;
        expect_merge(NULL, 0, "/ 755\n");
}

static void single_layer_shows_neither_whiteouts_nor_markers(void **state)
{
        (void) state;
        expect_merge(LAYERS(LAYER(REG("d/f", 1), WHITEOUT("d/.wh.g"), WHITEOUT("d/.wh..wh..opq"),
                                  WHITEOUT("gone/.wh.x"), WHITEOUT("gone/deeper/.wh..wh..opq"), WHITEOUT(".wh.never"))),
                     "/ 755\nd/ 755\nd/f 644 #1\n");
}

static void upper_file_wins(void **state)
{
        (void) state;
        expect_merge(LAYERS(LAYER(REG("a", 1), REG("b", 1)), LAYER(REG("b", 2), REG("c", 2)), LAYER(SYM("c", "x"))),
                     "/ 755\na 644 #1\nb 644 #2 @1\nc -> x\n");
}

static void whiteout_hides_the_name_in_every_lower_layer(void **state)
{
        (void) state;
        expect_merge(LAYERS(LAYER(REG("d/f", 1), REG("g", 1)), LAYER(REG("d/f", 2)), LAYER(WHITEOUT("d/.wh.f"))),
                     "/ 755\nd/ 755\ng 644 #1\n");
        expect_merge(LAYERS(LAYER(REG("d/f", 1)), LAYER(WHITEOUT(".wh.d")), LAYER(REG("e", 1))),
                     "/ 755\ne 644 #1 @2\n");
}

static void whiteout_leaves_its_own_and_higher_layers_alone(void **state)
{
        (void) state;
        expect_merge(LAYERS(LAYER(REG("f", 1)), LAYER(REG("f", 2), WHITEOUT(".wh.f"))), "/ 755\nf 644 #2 @1\n");
        expect_merge(LAYERS(LAYER(REG("f", 1)), LAYER(WHITEOUT(".wh.f")), LAYER(REG("f", 3))), "/ 755\nf 644 #3 @2\n");
}

static void name_whited_out_and_made_again_has_nothing_of_the_old(void **state)
{
        (void) state;
        expect_merge(LAYERS(LAYER(DIR("d", 0700), REG("d/f", 1)), LAYER(WHITEOUT(".wh.d")), LAYER(REG("d/g", 3))),
                     "/ 755\nd/ 755\nd/g 644 #3 @2\n");
        expect_merge(LAYERS(LAYER(DIR("d", 0700), REG("d/f", 1)), LAYER(WHITEOUT(".wh.d"), REG("d/g", 2))),
                     "/ 755\nd/ 755\nd/g 644 #2 @1\n");
        expect_merge(LAYERS(LAYER(DIR("d", 0700), REG("d/f", 1)), LAYER(DIR("d", 0711), WHITEOUT(".wh.d"))),
                     "/ 755\nd/ 711\n");
}

static void opaque_directory_hides_lower_children_only(void **state)
{
        (void) state;
        expect_merge(LAYERS(LAYER(REG("d/low", 1), REG("d/sub/low", 1)),
                            LAYER(REG("d/new", 2), WHITEOUT("d/.wh..wh..opq"), DIR("d/sub", 0711)),
                            LAYER(REG("d/high", 3))),
                     "/ 755\nd/ 755\nd/high 644 #3 @2\nd/new 644 #2 @1\nd/sub/ 711\n");
}

static void directories_below_an_opaque_one_merge_with_nothing_lower(void **state)
{
        (void) state;
        expect_merge(LAYERS(LAYER(DIR("a/b", 0700), DIR("a/b/c", 0700), REG("a/b/c/low", 1)),
                            LAYER(WHITEOUT("a/.wh..wh..opq"), REG("a/b/c/new", 2)), LAYER(REG("a/b/c/high", 3))),
                     "/ 755\na/ 755\na/b/ 755\na/b/c/ 755\na/b/c/high 644 #3 @2\na/b/c/new 644 #2 @1\n");
}

static void opaque_root_hides_all_lower_layers(void **state)
{
        (void) state;
        expect_merge(LAYERS(LAYER(DIR("/", 0700), REG("low", 1)), LAYER(REG("a", 2), WHITEOUT(".wh..wh..opq")),
                            LAYER(REG("b", 3))),
                     "/ 700\na 644 #2 @1\nb 644 #3 @2\n");
}

static void opaque_marker_leaves_the_attributes_of_an_unnamed_directory(void **state)
{
        (void) state;
        expect_merge(LAYERS(LAYER(DIR("d", 0700), REG("d/f", 1)), LAYER(WHITEOUT("d/.wh..wh..opq"))),
                     "/ 755\nd/ 700\n");
        expect_merge(LAYERS(LAYER(DIR("d", 0700), REG("d/f", 1)), LAYER(REG("d/g", 2), WHITEOUT("d/.wh..wh..opq"))),
                     "/ 755\nd/ 700\nd/g 644 #2 @1\n");
}

static void file_over_a_directory_hides_the_tree_below(void **state)
{
        (void) state;
        expect_merge(LAYERS(LAYER(REG("d/e/f", 1)), LAYER(REG("d", 2))), "/ 755\nd 644 #2 @1\n");
        expect_merge(LAYERS(LAYER(REG("d/e/f", 1)), LAYER(SYM("d", "x"))), "/ 755\nd -> x\n");
}

static void directory_over_a_file_starts_empty(void **state)
{
        (void) state;
        expect_merge(LAYERS(LAYER(REG("d", 1)), LAYER(DIR("d", 0700))), "/ 755\nd/ 700\n");
        expect_merge(LAYERS(LAYER(REG("d/low", 1)), LAYER(REG("d", 2)), LAYER(REG("d/high", 3))),
                     "/ 755\nd/ 755\nd/high 644 #3 @2\n");
        expect_merge(LAYERS(LAYER(DIR("d", 0700), REG("d/low", 1)), LAYER(REG("d", 2), DIR("d", 0711))),
                     "/ 755\nd/ 711\n");
        expect_merge(LAYERS(LAYER(DIR("d", 0700), REG("d/low", 1)), LAYER(REG("d", 2), REG("d/x", 2))),
                     "/ 755\nd/ 755\nd/x 644 #2 @1\n");
}

static void directory_over_a_directory_merges_and_takes_the_upper_attributes(void **state)
{
        static const struct layer_xattr low[] = { { "user.low", (const uint8_t *) "1", 1 } };
        static const struct layer_xattr high[] = { { "user.high", (const uint8_t *) "2", 1 } };

        (void) state;
        expect_merge(LAYERS(LAYER({ .path = "d", .mode = S_IFDIR | 0700, .mtime = 5, .xattrs = low, .xattr_count = 1 },
                                  REG("d/a", 1)),
                            LAYER({ .path = "d",
                                    .mode = S_IFDIR | 0750,
                                    .uid = 9,
                                    .gid = 8,
                                    .xattrs = high,
                                    .xattr_count = 1 },
                                  REG("d/b", 2))),
                     "/ 755\nd/ 750 9:8 {user.high=2}\nd/a 644 #1\nd/b 644 #2 @1\n");
        expect_merge(LAYERS(LAYER({ .path = "d", .mode = S_IFDIR | 0700, .xattrs = low, .xattr_count = 1 }),
                            LAYER(DIR("d", 0700))),
                     "/ 755\nd/ 700\n");
}

static void directory_that_no_entry_names_keeps_the_lower_attributes(void **state)
{
        static const struct layer_xattr low[] = { { "user.low", (const uint8_t *) "1", 1 } };

        (void) state;
        expect_merge(LAYERS(LAYER({ .path = "d",
                                    .mode = S_IFDIR | 0700,
                                    .uid = 4,
                                    .mtime = 5,
                                    .xattrs = low,
                                    .xattr_count = 1 }),
                            LAYER(REG("d/b", 2)), LAYER(REG("d/c", 3))),
                     "/ 755\nd/ 700 4:0 t5 {user.low=1}\nd/b 644 #2 @1\nd/c 644 #3 @2\n");
        expect_merge(LAYERS(LAYER(DIR("/", 0711)), LAYER(REG("b", 2))), "/ 711\nb 644 #2 @1\n");
        expect_merge(LAYERS(LAYER(REG("d/a", 1)), LAYER(REG("d/b", 2))), "/ 755\nd/ 755\nd/a 644 #1\nd/b 644 #2 @1\n");
}

static void directory_named_only_by_whiteouts_shows_only_where_it_is(void **state)
{
        (void) state;
        expect_merge(LAYERS(LAYER(REG("a", 1)), LAYER(WHITEOUT("gone/.wh.x"))), "/ 755\na 644 #1\n");
        expect_merge(LAYERS(LAYER(DIR("d", 0700), REG("d/x", 1)), LAYER(WHITEOUT("d/.wh.x"))), "/ 755\nd/ 700\n");
        expect_merge(LAYERS(LAYER(WHITEOUT("d/.wh.x")), LAYER(DIR("d", 0700))), "/ 755\nd/ 700\n");
        expect_merge(LAYERS(LAYER(REG("d/x", 1)), LAYER(WHITEOUT(".wh.d")), LAYER(WHITEOUT("d/.wh.y"))), "/ 755\n");
        expect_merge(LAYERS(LAYER(REG("f", 1)), LAYER(WHITEOUT("f/.wh.x"), WHITEOUT("f/.wh..wh..opq"))),
                     "/ 755\nf 644 #1\n");
        expect_merge(LAYERS(LAYER(REG("d/e/x", 1)), LAYER(WHITEOUT("d/.wh..wh..opq"), WHITEOUT("d/e/.wh.x"))),
                     "/ 755\nd/ 755\n");
}

static void names_of_many_layers_come_out_sorted(void **state)
{
        (void) state;
        expect_merge(LAYERS(LAYER(REG("d", 1), REG("a", 1)), LAYER(REG("e", 2), REG("b", 2)), LAYER(REG("c", 3)),
                            LAYER(REG("aa", 4), REG("f", 4)), LAYER(REG("bb", 5))),
                     "/ 755\na 644 #1\naa 644 #4 @3\nb 644 #2 @1\nbb 644 #5 @4\nc 644 #3 @2\nd 644 #1\ne 644 #2 @1\n"
                     "f 644 #4 @3\n");
}

static void sparse_files_keep_their_extents(void **state)
{
        static const struct extent extents[] = { { 5, 100, 10 }, { 30, 110, 5 } };

        (void) state;
        expect_merge(LAYERS(LAYER({ .path = "a",
                                    .mode = S_IFREG,
                                    .size = 50,
                                    .sparse = true,
                                    .extents = extents,
                                    .extent_count = 2 }),
                            LAYER({ .path = "b",
                                    .mode = S_IFREG,
                                    .size = 15,
                                    .sparse = true,
                                    .extents = extents,
                                    .extent_count = 1 })),
                     "/ 755\na 0 [5+10] [30+5]\nb 0 [5+10] @1\n");
}

/* ---- hardlinks ---- */

static void overriding_one_name_leaves_the_other_links(void **state)
{
        (void) state;
        expect_merge(LAYERS(LAYER(REG("a", 1), HARD("b", "a"), HARD("c", "b")), LAYER(REG("a", 2))),
                     "/ 755\na 644 #2 @1\nb 644 #1 x2\nc = b\n");
        expect_merge(
                LAYERS(LAYER(REG("a", 1), HARD("b", "a"), HARD("c", "b")), LAYER(WHITEOUT(".wh.a"), WHITEOUT(".wh.c"))),
                "/ 755\nb 644 #1\n");
        expect_merge(LAYERS(LAYER(REG("d/a", 1), HARD("b", "d/a")), LAYER(WHITEOUT("d/.wh..wh..opq"))),
                     "/ 755\nb 644 #1\nd/ 755\n");
}

static void link_to_a_lower_file_shares_its_inode(void **state)
{
        (void) state;
        expect_merge(LAYERS(LAYER(REG("d/a", 1), HARD("b", "d/a")), LAYER(HARD("c", "d/a"))),
                     "/ 755\nb 644 #1 x3\nc = b\nd/ 755\nd/a = b\n");
        expect_merge(LAYERS(LAYER(SYM("s", "t")), LAYER(HARD("l", "s"))), "/ 755\nl -> t x2\ns = l\n");
}

static void link_binds_to_the_lower_tree_whatever_its_own_layer_hides(void **state)
{
        (void) state;
        expect_merge(LAYERS(LAYER(REG("a", 1)), LAYER(HARD("b", "a"), WHITEOUT(".wh.a"))), "/ 755\nb 644 #1\n");
        expect_merge(LAYERS(LAYER(REG("d/a", 1)), LAYER(HARD("b", "d/a"), REG("d", 2))),
                     "/ 755\nb 644 #1\nd 644 #2 @1\n");
        expect_merge(LAYERS(LAYER(REG("d/a", 1)), LAYER(HARD("d/b", "d/a"), WHITEOUT("d/.wh..wh..opq"))),
                     "/ 755\nd/ 755\nd/b 644 #1\n");
        expect_merge(LAYERS(LAYER(REG("a", 1)), LAYER(HARD("b", "a"), WHITEOUT(".wh.b"))),
                     "/ 755\na 644 #1 x2\nb = a\n");
}

static void link_sees_the_merged_tree_of_the_layers_below_its_own(void **state)
{
        (void) state;
        expect_merge(LAYERS(LAYER(REG("a", 1)), LAYER(REG("a", 2)), LAYER(HARD("b", "a")), LAYER(REG("a", 4))),
                     "/ 755\na 644 #4 @3\nb 644 #2 @1\n");
        expect_refusal(LAYERS(LAYER(REG("a", 1)), LAYER(WHITEOUT(".wh.a")), LAYER(HARD("b", "a"))),
                       "b: hardlink to a, which no layer holds");
        expect_refusal(LAYERS(LAYER(REG("d/a", 1)), LAYER(WHITEOUT("d/.wh..wh..opq")), LAYER(HARD("x/y/b", "d/a"))),
                       "x/y/b: hardlink to d/a, which no layer holds");
        expect_refusal(LAYERS(LAYER(HARD("b", "a")), LAYER(REG("a", 2))), "b: hardlink to a, which no layer holds");
        expect_refusal(LAYERS(LAYER(REG("a", 1)), LAYER(HARD("b", "a/x"))), "b: hardlink to a/x, which no layer holds");
}

static void links_are_followed_through_several_layers(void **state)
{
        (void) state;
        expect_merge(LAYERS(LAYER(REG("a", 1)), LAYER(HARD("b", "a")), LAYER(HARD("c", "b"), WHITEOUT(".wh.b")),
                            LAYER(HARD("d/d", "c"), HARD("e", "d/d"))),
                     "/ 755\na 644 #1 x4\nc = a\nd/ 755\nd/d = a\ne = a\n");
}

static void link_to_a_lower_directory_is_refused(void **state)
{
        (void) state;
        expect_refusal(LAYERS(LAYER(DIR("d", 0755)), LAYER(HARD("u/b", "d"))),
                       "u/b: hardlink to d, which is a directory in a lower layer");
        expect_refusal(LAYERS(LAYER(REG("d/x", 1)), LAYER(HARD("b", "d"), WHITEOUT(".wh.d"))),
                       "b: hardlink to d, which is a directory in a lower layer");
        expect_refusal(LAYERS(LAYER(DIR("d", 0755)), LAYER(HARD("b", "d")), LAYER(HARD("c", "b"), WHITEOUT(".wh.b"))),
                       "c: hardlink to d, which is a directory in a lower layer");
}

static void broken_link_that_does_not_show_is_no_error(void **state)
{
        (void) state;
        expect_merge(LAYERS(LAYER(HARD("b", "nowhere")), LAYER(REG("b", 2))), "/ 755\nb 644 #2 @1\n");
        expect_merge(LAYERS(LAYER(HARD("d/b", "nowhere")), LAYER(WHITEOUT(".wh.d"))), "/ 755\n");
}

static void link_over_a_directory_hides_it_and_a_directory_over_a_link_starts_empty(void **state)
{
        (void) state;
        expect_merge(LAYERS(LAYER(REG("a", 1), REG("d/x", 1)), LAYER(HARD("d", "a"))), "/ 755\na 644 #1 x2\nd = a\n");
        expect_merge(LAYERS(LAYER(REG("a", 1)), LAYER(HARD("d", "a")), LAYER(DIR("d", 0700))),
                     "/ 755\na 644 #1\nd/ 700\n");
}

/* ---- random images against the model ---- */

struct dice {
        uint64_t state;
};

static unsigned roll(struct dice *d, unsigned sides)
{
        d->state = d->state * 6364136223846793005u + 1442695040888963407u;
        return (unsigned) (d->state >> 33) % sides;
}

/* A path of up to three of the names a, b, c. */
static void roll_path(struct dice *d, char path[32])
{
        size_t n = 0;

        for (unsigned depth = 1 + roll(d, 3); depth > 0; depth--) {
                path[n++] = (char) ('a' + roll(d, 3));
                path[n++] = '/';
        }
        path[n - 1] = '\0';
}

/* One random entry, into both. */
static void add_random(struct dice *d, struct layer_tree *tree, struct model *model, unsigned *next_number)
{
        char path[32], target[32], marker[48];
        struct layer_entry entry = { .path = path, .mode = S_IFREG | 0644, .size = 10, .link = target };
        char *slash;

        roll_path(d, path);
        roll_path(d, target);
        slash = strrchr(path, '/');
        switch (roll(d, 9)) {
        case 0:
        case 1:
                entry.mode = S_IFDIR | (0700 + roll(d, 64));
                model_add(model, path, MODEL_DIR, entry.mode & 07777, "");
                break;
        case 2:
        case 3:
                entry.hardlink = true;
                model_add(model, path, MODEL_LINK, 0, target);
                break;
        case 4:
                snprintf(marker, sizeof(marker), "%.*s/.wh.%s", slash ? (int) (slash - path) : 0, path,
                         slash ? slash + 1 : path);
                entry.path = marker;
                model_add_whiteout(model, path);
                break;
        case 5:
                snprintf(marker, sizeof(marker), "%s/.wh..wh..opq", roll(d, 20) ? path : "");
                entry.path = marker;
                model_add_opaque(model, marker[0] == '/' ? "" : path);
                break;
        default:
                entry.content_offset = 10u * ++*next_number;
                model_add(model, path, MODEL_FILE, *next_number, "");
        }
        assert_int_equal(layer_tree_add(tree, &entry, NULL), 0);
}

/* Returns false when tree and model both refuse the layer. */
static bool add_random_layer(struct dice *d, struct model *image, unsigned *next_number, struct itable *ret)
{
        _cleanup_(layer_tree_free_ptr) struct layer_tree *tree = NULL;
        _cleanup_(itable_builder_free_ptr) struct itable_builder *b = NULL;
        _cleanup_free_ struct model *layer = calloc(1, sizeof(*layer));
        bool good;

        assert_non_null(layer);
        assert_int_equal(layer_tree_new(&tree), 0);
        for (unsigned i = 1 + roll(d, 12); i > 0; i--)
                add_random(d, tree, layer, next_number);
        good = model_finish(layer);
        assert_int_equal(layer_tree_finish(tree, NULL), good ? 0 : -EBADMSG);
        if (!good)
                return false;
        assert_int_equal(itable_builder_new(&b), 0);
        assert_int_equal(itable_builder_from_layer(b, tree, NULL), 0);
        *ret = checked_table(b, 1);
        model_apply(image, layer);
        return true;
}

/* The layer number behind a file is no part of the model. */
static void strip_layers(char *text)
{
        for (char *at = strstr(text, " @"); at; at = strstr(at, " @"))
                memmove(at, at + 3, strlen(at + 3) + 1);
}

/* Returns whether the image was a good one. */
static bool compare_random_image(uint64_t seed)
{
        _cleanup_free_ struct model *image = calloc(1, sizeof(*image));
        _cleanup_free_ char *expected = NULL, *text = NULL;
        struct dice d = { .state = seed };
        struct error e = ERROR_INIT;
        struct itable tables[4] = { 0 }, merged;
        size_t count = 0;
        unsigned next_number = 0;
        int r;

        assert_non_null(image);
        for (unsigned layers = 1 + roll(&d, ELEMENTSOF(tables)); layers > 0; layers--)
                count += add_random_layer(&d, image, &next_number, &tables[count]);
        expected = model_text(image);
        r = merge_tables(tables, count, &merged, &e);
        if ((r == 0) != (expected != NULL))
                fail_msg("image %u: %s, expected %s", (unsigned) seed, r ? e.message : "no error",
                         expected ? expected : "an error");
        if (r == 0) {
                text = itable_text(&merged);
                strip_layers(text);
                if (strcmp(text, expected) != 0)
                        fail_msg("image %u:\n%sexpected\n%s", (unsigned) seed, text, expected);
                itable_exact_free(&merged);
        }
        for (size_t i = 0; i < count; i++)
                itable_exact_free(&tables[i]);
        return r == 0;
}

static void random_images_match_the_plain_model(void **state)
{
        unsigned good = 0, images = 2000;

        (void) state;
        for (unsigned seed = 0; seed < images; seed++)
                good += compare_random_image(seed);
        /* Both kinds must have occurred, or the comparison says little. */
        assert_in_range(good, images / 4, images - images / 20);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(image_without_layers_is_a_bare_root),
                cmocka_unit_test(single_layer_shows_neither_whiteouts_nor_markers),
                cmocka_unit_test(upper_file_wins),
                cmocka_unit_test(whiteout_hides_the_name_in_every_lower_layer),
                cmocka_unit_test(whiteout_leaves_its_own_and_higher_layers_alone),
                cmocka_unit_test(name_whited_out_and_made_again_has_nothing_of_the_old),
                cmocka_unit_test(opaque_directory_hides_lower_children_only),
                cmocka_unit_test(directories_below_an_opaque_one_merge_with_nothing_lower),
                cmocka_unit_test(opaque_root_hides_all_lower_layers),
                cmocka_unit_test(opaque_marker_leaves_the_attributes_of_an_unnamed_directory),
                cmocka_unit_test(file_over_a_directory_hides_the_tree_below),
                cmocka_unit_test(directory_over_a_file_starts_empty),
                cmocka_unit_test(directory_over_a_directory_merges_and_takes_the_upper_attributes),
                cmocka_unit_test(directory_that_no_entry_names_keeps_the_lower_attributes),
                cmocka_unit_test(directory_named_only_by_whiteouts_shows_only_where_it_is),
                cmocka_unit_test(names_of_many_layers_come_out_sorted),
                cmocka_unit_test(sparse_files_keep_their_extents),
                cmocka_unit_test(overriding_one_name_leaves_the_other_links),
                cmocka_unit_test(link_to_a_lower_file_shares_its_inode),
                cmocka_unit_test(link_binds_to_the_lower_tree_whatever_its_own_layer_hides),
                cmocka_unit_test(link_sees_the_merged_tree_of_the_layers_below_its_own),
                cmocka_unit_test(links_are_followed_through_several_layers),
                cmocka_unit_test(link_to_a_lower_directory_is_refused),
                cmocka_unit_test(broken_link_that_does_not_show_is_no_error),
                cmocka_unit_test(link_over_a_directory_hides_it_and_a_directory_over_a_link_starts_empty),
                cmocka_unit_test(random_images_match_the_plain_model),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
