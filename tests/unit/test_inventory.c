/* SPDX-License-Identifier: Apache-2.0 */

#include <time.h>

#include "content_fixture.h"
#include "regfs/inventory.h"

#define KEY "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define OLD_DRAFT "tmp/layer-00112233445566778899aabbccddeeff"
#define DRAFT_AGE (INVENTORY_DRAFT_GRACE_S + 60)

static struct inventory read_inventory(struct layer *l)
{
        struct inventory i = { 0 };
        struct error e = ERROR_INIT;

        if (inventory_read(l->store, &i, &e) < 0)
                fail_msg("%s", e.message);
        return i;
}

static void write_below(const struct layer *l, const char *name, const char *text)
{
        write_file(below(&l->place, name), text, strlen(text));
}

static void make_directory(const struct layer *l, const char *name)
{
        assert_int_equal(mkdir(below(&l->place, name), 0700), 0);
}

static void age(const struct layer *l, const char *name, time_t seconds)
{
        const struct timespec then = { .tv_sec = time(NULL) - seconds };
        const struct timespec times[] = { then, then };

        assert_int_equal(utimensat(AT_FDCWD, below(&l->place, name), times, AT_SYMLINK_NOFOLLOW), 0);
}

static size_t count_kind(const struct inventory *i, enum inventory_kind kind)
{
        size_t n = 0;

        for (size_t k = 0; k < i->count; k++)
                n += i->items[k].kind == kind;
        return n;
}

static const struct inventory_item *find(const struct inventory *i, const char *path, enum inventory_kind kind)
{
        const struct inventory_item *item = inventory_find(i, path);

        if (!item)
                fail_msg("%s is not listed", path);
        assert_int_equal(item->kind, kind);
        return item;
}

static void remove_found(struct layer *l, const struct inventory *i, const char *path)
{
        const struct inventory_item *item = inventory_find(i, path);
        struct error e = ERROR_INIT;

        assert_non_null(item);
        if (inventory_remove(l->store, item, &e) < 0)
                fail_msg("%s", e.message);
}

/* ---- the walk ---- */

static void each_thing_is_listed_once_as_what_it_is(void **state)
{
        struct layer *l = *state;
        struct inventory i;
        const struct inventory_item *item;
        struct stat content;

        layer_open_store(l);
        assert_int_equal(publish(l, 10007), 0);
        assert_int_equal(store_blob_put(l->store, &l->digest, "x", 1, NULL), 0);
        assert_int_equal(store_ref_put(l->store, "docker.io/library/alpine:edge", &l->digest, NULL), 0);
        write_below(l, "images/" KEY, "index");
        i = read_inventory(l);

        assert_int_equal(i.count, 4);
        item = find(&i, "blobs/sha256/" HEX_X, INVENTORY_BLOB);
        assert_true(digest_equal(&item->digest, &l->digest));
        assert_int_equal(item->size.apparent, 1);
        find(&i, "refs/docker.io/library%2Falpine/edge", INVENTORY_REF);
        find(&i, "images/" KEY, INVENTORY_IMAGE);
        item = find(&i, LAYER_DIRECTORY, INVENTORY_LAYER);
        assert_true(digest_equal(&item->digest, &l->digest));
        assert_string_equal(item->layer_kind, "plain");
        assert_false(item->in_use);
        assert_int_equal(stat(below(&l->place, CONTENT), &content), 0);
        assert_int_equal(item->parts[INVENTORY_TOC].apparent, 3);
        assert_int_equal(item->parts[INVENTORY_CONTENT].apparent, content.st_size);
        assert_int_equal(item->parts[INVENTORY_CONTENT].disk, content.st_blocks * 512);
        assert_int_equal(item->parts[INVENTORY_MAP].apparent, MAP_SIZE);
        assert_int_equal(item->size.apparent, 3 + content.st_size + MAP_SIZE);
        inventory_clear(&i);
}

static void what_is_no_part_of_a_store_is_foreign(void **state)
{
        static const char *const files[] = {
                "README",
                "blobs/stray",
                "blobs/sha256/0123",
                "blobs/sha256/2D711642B726B04401627CA9FBAC32F5C8530FB1903CC4DB02258717921A4881",
                "blobs/sha256/" HEX_X ".bak",
                "images/short",
                "images/" KEY "0",
                "layers/sha256/file",
                "layers/sha256/" HEX_X "/file",
                "refs/docker.io/a b",
                "refs/docker.io/library%2Falpine/.hidden",
                "tmp/notes",
                "tmp/layer-0011",
                "a\nb\xff",
        };
        static const char *const directories[] = {
                "blobs/md5",
                "blobs/sha256/" KEY,
                "layers/sha256/0123",
                "images/" KEY,
                "lost+found",
                "layers/sha256/" HEX_X "/Plain",
                "refs/.x",
                "refs/docker.io/library%2Falpine/edge",
                "lock",
        };
        struct layer *l = *state;
        struct inventory i;

        layer_open_store(l);
        make_directory(l, "blobs/sha256");
        make_directory(l, "layers/sha256");
        make_directory(l, "layers/sha256/" HEX_X);
        make_directory(l, "refs/docker.io");
        make_directory(l, "refs/docker.io/library%2Falpine");
        for (size_t k = 0; k < ELEMENTSOF(files); k++)
                write_below(l, files[k], "mine");
        for (size_t k = 0; k < ELEMENTSOF(directories); k++)
                make_directory(l, directories[k]);
        i = read_inventory(l);

        for (size_t k = 0; k < ELEMENTSOF(files); k++)
                find(&i, files[k], INVENTORY_FOREIGN);
        for (size_t k = 0; k < ELEMENTSOF(directories); k++)
                find(&i, directories[k], INVENTORY_FOREIGN);
        assert_int_equal(i.count, ELEMENTSOF(files) + ELEMENTSOF(directories));
        for (size_t k = 0; k < i.count; k++)
                assert_int_equal(inventory_remove(l->store, &i.items[k], NULL), -EPERM);
        for (size_t k = 0; k < ELEMENTSOF(files); k++)
                assert_true(exists(&l->place, files[k]));
        inventory_clear(&i);
}

static void symlinks_are_not_followed(void **state)
{
        static const char link_image[] = "images/" KEY;
        static const char *const links[] = { "blobs/sha256", "layers/sha256", "refs/docker.io", link_image, OLD_DRAFT };
        struct layer *l = *state;
        struct inventory i;
        char outside[300];

        layer_open_store(l);
        snprintf(outside, sizeof(outside), "%s/outside", l->place.path);
        assert_int_equal(mkdir(outside, 0700), 0);
        for (size_t k = 0; k < ELEMENTSOF(links); k++)
                assert_int_equal(symlink(outside, below(&l->place, links[k])), 0);
        snprintf(outside, sizeof(outside), "%s/outside/" HEX_X, l->place.path);
        write_file(outside, "x", 1);
        i = read_inventory(l);
        assert_int_equal(i.count, ELEMENTSOF(links));
        for (size_t k = 0; k < ELEMENTSOF(links); k++)
                find(&i, links[k], INVENTORY_FOREIGN);
        inventory_clear(&i);
        assert_int_equal(access(outside, F_OK), 0);
}

static void a_symlink_in_a_layer_is_not_opened(void **state)
{
        struct layer *l = *state;
        struct inventory i;
        char outside[300];

        layer_open_store(l);
        assert_int_equal(publish(l, 10007), 0);
        snprintf(outside, sizeof(outside), "%s/outside", l->place.path);
        write_file(outside, "x", 1);
        assert_int_equal(unlink(below(&l->place, MAP)), 0);
        assert_int_equal(symlink(outside, below(&l->place, MAP)), 0);
        i = read_inventory(l);
        find(&i, MAP, INVENTORY_FOREIGN);
        assert_false(find(&i, LAYER_DIRECTORY, INVENTORY_LAYER)->has[INVENTORY_MAP]);
        assert_int_equal(inventory_open(l->store, inventory_find(&i, LAYER_DIRECTORY), "map", true), -ELOOP);
        inventory_clear(&i);
}

static void what_is_not_a_file_is_not_opened(void **state)
{
        struct inventory_item item = { .kind = INVENTORY_IMAGE, .path = (char *) "images/" KEY };
        struct layer *l = *state;

        layer_open_store(l);
        assert_int_equal(inventory_open(l->store, &item, NULL, false), -ENOENT);
        assert_int_equal(mkfifo(below(&l->place, "images/" KEY), 0600), 0);
        assert_int_equal(inventory_open(l->store, &item, NULL, false), -EINVAL);
}

/* ---- use ---- */

static void an_open_layer_is_in_use(void **state)
{
        struct layer *l = *state;
        struct content *c = publish_and_open(l);
        struct inventory i = read_inventory(l);

        assert_true(find(&i, LAYER_DIRECTORY, INVENTORY_LAYER)->in_use);
        content_close(c);
        assert_false(inventory_is_in_use(l->store, inventory_find(&i, LAYER_DIRECTORY)));
        inventory_clear(&i);
}

static void looking_is_no_use(void **state)
{
        struct layer *l = *state;
        struct inventory i;
        char byte;
        int fd;

        layer_open_store(l);
        assert_int_equal(publish(l, 10007), 0);
        assert_int_equal(store_blob_put(l->store, &l->digest, "x", 1, NULL), 0);
        age(l, "blobs/sha256/" HEX_X, 5000);
        age(l, MAP, 4000);
        for (int round = 0; round < 2; round++) {
                i = read_inventory(l);
                assert_in_range(time(NULL) - find(&i, "blobs/sha256/" HEX_X, INVENTORY_BLOB)->used, 5000, 5010);
                assert_in_range(time(NULL) - find(&i, LAYER_DIRECTORY, INVENTORY_LAYER)->used, 4000, 4010);
                fd = inventory_open(l->store, inventory_find(&i, "blobs/sha256/" HEX_X), NULL, false);
                assert_int_equal(read(fd, &byte, 1), 1);
                close(fd);
                inventory_clear(&i);
        }
}

static void a_draft_is_its_living_writers(void **state)
{
        struct layer_draft *d = NULL;
        struct layer *l = *state;
        struct inventory i;
        struct dirent **names = NULL;
        char path[300];

        layer_open_store(l);
        make_directory(l, OLD_DRAFT);
        write_below(l, OLD_DRAFT "/content", "twelve bytes");
        assert_int_equal(layer_draft_new(l->store, &l->digest, "plain", &d, NULL), 0);
        i = read_inventory(l);
        assert_int_equal(count_kind(&i, INVENTORY_DRAFT), 2);
        assert_int_equal(find(&i, OLD_DRAFT, INVENTORY_DRAFT)->size.apparent, 12);
        assert_true(find(&i, OLD_DRAFT, INVENTORY_DRAFT)->in_use); /* too young to tell */
        inventory_clear(&i);

        assert_int_equal(scandir(below(&l->place, "tmp"), &names, NULL, alphasort), 4);
        for (int k = 0; k < 4; k++) {
                snprintf(path, sizeof(path), "tmp/%s", names[k]->d_name);
                if (*names[k]->d_name != '.')
                        age(l, path, DRAFT_AGE);
                free(names[k]);
        }
        free(names);
        i = read_inventory(l);
        for (size_t k = 0; k < i.count; k++)
                assert_int_equal(i.items[k].in_use, !str_eq(i.items[k].path, OLD_DRAFT));
        remove_found(l, &i, OLD_DRAFT);
        inventory_clear(&i);
        assert_false(exists(&l->place, OLD_DRAFT));
        assert_int_equal(entries(below(&l->place, "tmp")), 1);
        layer_draft_free(d);
}

/* ---- removal ---- */

static void a_layer_goes_whole_and_its_reader_goes_on(void **state)
{
        struct layer *l = *state;
        struct content *c = publish_and_open(l);
        struct inventory i = read_inventory(l);

        remove_found(l, &i, LAYER_DIRECTORY);
        remove_found(l, &i, LAYER_DIRECTORY);
        assert_false(exists(&l->place, "layers/sha256/" HEX_X));
        assert_int_equal(entries(below(&l->place, "tmp")), 0);
        for (size_t k = 0; k < CHUNKS; k++)
                assert_true(reads_chunk(l, c, k));
        assert_int_equal(content_write(c, 0, bytes_of(l, 0)), 0);
        content_close(c);
        assert_int_equal(publish(l, 10007), 0);
        inventory_clear(&i);
}

static void foreign_files_survive_their_layer(void **state)
{
        struct layer *l = *state;
        struct inventory i;

        layer_open_store(l);
        assert_int_equal(publish(l, 10007), 0);
        write_below(l, LAYER_DIRECTORY "/notes", "mine");
        i = read_inventory(l);
        find(&i, LAYER_DIRECTORY "/notes", INVENTORY_FOREIGN);
        remove_found(l, &i, LAYER_DIRECTORY);
        inventory_clear(&i);
        assert_int_equal(entries(below(&l->place, LAYER_DIRECTORY)), 1);
        i = read_inventory(l);
        assert_int_equal(i.count, 1); /* the foreign file alone */
        inventory_clear(&i);
        assert_int_equal(publish(l, 10007), 0);
}

static void a_ref_takes_its_empty_directories_along(void **state)
{
        struct layer *l = *state;
        struct inventory i;

        layer_open_store(l);
        assert_int_equal(store_ref_put(l->store, "a.io/one:x", &l->digest, NULL), 0);
        assert_int_equal(store_ref_put(l->store, "a.io/one:y", &l->digest, NULL), 0);
        i = read_inventory(l);
        remove_found(l, &i, "refs/a.io/one/x");
        assert_true(exists(&l->place, "refs/a.io/one/y"));
        remove_found(l, &i, "refs/a.io/one/y");
        inventory_clear(&i);
        assert_false(exists(&l->place, "refs/a.io"));
        assert_true(exists(&l->place, "refs"));
        assert_int_equal(store_ref_put(l->store, "a.io/one:x", &l->digest, NULL), 0);
}

static void another_file_in_its_place_stays(void **state)
{
        struct layer *l = *state;
        struct inventory i;
        int fd;

        layer_open_store(l);
        write_below(l, "images/" KEY, "damaged");
        i = read_inventory(l);
        fd = inventory_open(l->store, inventory_find(&i, "images/" KEY), NULL, false);
        assert_true(fd >= 0);
        write_below(l, "images/new", "sound");
        assert_int_equal(rename(below(&l->place, "images/new"), below(&l->place, "images/" KEY)), 0);
        assert_int_equal(inventory_remove_same(l->store, inventory_find(&i, "images/" KEY), fd, NULL), 0);
        assert_true(exists(&l->place, "images/" KEY));
        close(fd);
        fd = inventory_open(l->store, inventory_find(&i, "images/" KEY), NULL, false);
        assert_int_equal(inventory_remove_same(l->store, inventory_find(&i, "images/" KEY), fd, NULL), 0);
        assert_false(exists(&l->place, "images/" KEY));
        close(fd);
        inventory_clear(&i);
}

/* ---- refs ---- */

static void a_refs_name_comes_back(void **state)
{
        static const struct {
                const char *name, *shown;
                bool is_record;
        } refs[] = {
                { "docker.io/library/alpine:edge", "docker.io/library/alpine:edge", false },
                { "localhost:5000/a/b.c_d-e:V1.2", "localhost:5000/a/b.c_d-e:V1.2", false },
                { "a.io/x:index@sha256-" HEX_X, "a.io/x:index@sha256-" HEX_X, true },
                { "a.io/x:index", "a.io/x:index", false },
        };
        struct layer *l = *state;
        struct inventory i;

        layer_open_store(l);
        for (size_t k = 0; k < ELEMENTSOF(refs); k++) {
                _cleanup_free_ char *name = NULL;
                struct digest digest;
                bool is_record;
                int64_t when;
                int fd;

                assert_int_equal(store_ref_put(l->store, refs[k].name, &l->digest, NULL), 0);
                i = read_inventory(l);
                assert_int_equal(i.count, 1);
                name = inventory_ref_name(&i.items[0], &is_record);
                assert_string_equal(name, refs[k].shown);
                assert_int_equal(is_record, refs[k].is_record);
                fd = inventory_open(l->store, &i.items[0], NULL, false);
                assert_int_equal(inventory_ref_read(fd, &digest, &when), 0);
                assert_true(digest_equal(&digest, &l->digest));
                close(fd);
                remove_found(l, &i, i.items[0].path);
                inventory_clear(&i);
        }
}

static void a_long_refs_name_is_shown_cut(void **state)
{
        char name[400] = "a.io/", *end = name + strlen(name);
        _cleanup_free_ char *shown = NULL;
        struct layer *l = *state;
        struct inventory i;
        bool is_record;

        layer_open_store(l);
        memset(end, 'r', 200);
        snprintf(end + 200, sizeof(name) - 205, ":tag");
        assert_int_equal(store_ref_put(l->store, name, &l->digest, NULL), 0);
        i = read_inventory(l);
        shown = inventory_ref_name(&i.items[0], &is_record);
        snprintf(end + 64, sizeof(name) - 69, "...:tag");
        assert_string_equal(shown, name);
        inventory_clear(&i);
}

static void a_damaged_ref_is_told(void **state)
{
        static const char *const texts[] = {
                "", "\n", "sha256:12 5\n", "sha256:" HEX_X "\n", "sha256:" HEX_X " x\n", "sha256:" HEX_X " 5"
        };
        struct layer *l = *state;
        struct digest digest;
        char large[1000];
        int64_t when;

        layer_open_store(l);
        for (size_t k = 0; k <= ELEMENTSOF(texts); k++) {
                int fd;

                memset(large, 'x', sizeof(large));
                if (k < ELEMENTSOF(texts))
                        write_below(l, "ref", texts[k]);
                else
                        write_file(below(&l->place, "ref"), large, sizeof(large));
                fd = open(below(&l->place, "ref"), O_RDONLY | O_CLOEXEC);
                assert_int_equal(inventory_ref_read(fd, &digest, &when), -EBADMSG);
                close(fd);
        }
}

/* ---- the place ---- */

static void the_place_is_known(void **state)
{
        struct layer *l = *state;
        struct store_place place;

        layer_open_store(l);
        assert_int_equal(store_look_at_place(l->store, &place, NULL), 0);
        assert_string_not_equal(place.filesystem, "unknown");
        assert_false(place.read_only);
        assert_true(place.size > place.available);
        assert_int_equal(entries(below(&l->place, "tmp")), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, layer_setup, layer_teardown)
        const struct CMUnitTest tests[] = {
                TEST(each_thing_is_listed_once_as_what_it_is),
                TEST(what_is_no_part_of_a_store_is_foreign),
                TEST(symlinks_are_not_followed),
                TEST(a_symlink_in_a_layer_is_not_opened),
                TEST(what_is_not_a_file_is_not_opened),
                TEST(an_open_layer_is_in_use),
                TEST(looking_is_no_use),
                TEST(a_draft_is_its_living_writers),
                TEST(a_layer_goes_whole_and_its_reader_goes_on),
                TEST(foreign_files_survive_their_layer),
                TEST(a_ref_takes_its_empty_directories_along),
                TEST(another_file_in_its_place_stays),
                TEST(a_refs_name_comes_back),
                TEST(a_long_refs_name_is_shown_cut),
                TEST(a_damaged_ref_is_told),
                TEST(the_place_is_known),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
