/* SPDX-License-Identifier: Apache-2.0 */

/* Stores behind one's own. */

#include "cache/store/store_internal.h"
#include "content_fixture.h"
#include "regfs/log.h"

#define OTHER_USER 1234

static const char *lower_path(const struct layer *l, const char *name)
{
        static char path[2][1024];
        static unsigned next;
        char *out = path[next++ % 2];

        snprintf(out, sizeof(path[0]), "%s/lower/%s", l->place.path, name);
        return out;
}

/* Opens the store that is to be the lower one in the fixture's place. */
static void open_lower_as_own(struct layer *l)
{
        struct error e = ERROR_INIT;

        if (store_open(lower_path(l, ""), &l->store, &e) < 0)
                fail_msg("%s", e.message);
}

static void close_own(struct layer *l)
{
        l->store = store_close(l->store);
}

static void add_lower(struct layer *l)
{
        struct error e = ERROR_INIT;

        if (!l->store)
                layer_open_store(l);
        if (store_add(l->store, lower_path(l, ""), &e) < 0)
                fail_msg("%s", e.message);
}

/* The fixture's layer in the lower store, and the own one with that behind it. */
static void publish_lower(struct layer *l)
{
        open_lower_as_own(l);
        assert_int_equal(publish(l, 10007), 0);
        close_own(l);
}

static struct content *open_above(struct layer *l)
{
        add_lower(l);
        return open_content(l);
}

static void poke_lower(const struct layer *l, const char *file, uint64_t offset, const void *data, size_t n)
{
        int fd = open(lower_path(l, file), O_WRONLY | O_CLOEXEC);

        assert_true(fd >= 0);
        assert_int_equal(pwrite(fd, data, n, (off_t) offset), n);
        close(fd);
}

static void drop_lower_word(const struct layer *l, size_t i)
{
        const uint64_t zero = 0;

        poke_lower(l, MAP, MAP_HEADER + 8 * i, &zero, sizeof(zero));
}

static bool same_contents(const char *a, const char *b)
{
        char command[2200];

        snprintf(command, sizeof(command), "diff -r '%s' '%s' > /dev/null", a, b);
        return system(command) == 0;
}

/* ---- small things ---- */

static void blob_of_a_lower_store_is_got(void **state)
{
        struct layer *l = *state;
        _cleanup_buf_ struct buf b = { 0 };
        struct error e = ERROR_INIT;

        open_lower_as_own(l);
        assert_int_equal(store_blob_put(l->store, &l->digest, "x", 1, &e), 0);
        close_own(l);
        layer_open_store(l);
        assert_int_equal(store_blob_get(l->store, &l->digest, 10, &b, &e), -ENOENT);
        assert_non_null(strstr(e.message, l->place.store));
        add_lower(l);
        assert_int_equal(store_blob_get(l->store, &l->digest, 10, &b, &e), 0);
        assert_string_equal(b.data, "x");
        assert_int_equal(entries(below(&l->place, "blobs")), 0);
}

static void damaged_blob_of_a_lower_store_is_absent_and_stays(void **state)
{
        struct layer *l = *state;
        _cleanup_buf_ struct buf b = { 0 };

        open_lower_as_own(l);
        assert_int_equal(store_blob_put(l->store, &l->digest, "x", 1, NULL), 0);
        close_own(l);
        write_file(lower_path(l, "blobs/sha256/" HEX_X), "y", 1);
        add_lower(l);
        assert_int_equal(store_blob_get(l->store, &l->digest, 10, &b, NULL), -ENOENT);
        assert_int_equal(access(lower_path(l, "blobs/sha256/" HEX_X), F_OK), 0);
}

static void latest_ref_of_all_stores_counts(void **state)
{
        struct layer *l = *state;
        struct digest other = { .algorithm = DIGEST_SHA256 }, found;
        char text[200], shown[DIGEST_STRING_MAX];
        int64_t when;

        open_lower_as_own(l);
        assert_int_equal(store_ref_put(l->store, "h/a:b", &other, NULL), 0);
        assert_int_equal(store_ref_put(l->store, "h/a:c", &other, NULL), 0);
        close_own(l);
        layer_open_store(l);
        assert_int_equal(store_ref_put(l->store, "h/a:b", &l->digest, NULL), 0);
        add_lower(l);

        /* Of the same second: the own one. */
        snprintf(text, sizeof(text), "%s 1000\n", digest_format(&other, shown));
        write_file(lower_path(l, "refs/h/a/b"), text, strlen(text));
        assert_int_equal(store_ref_get(l->store, "h/a:b", &found, &when, NULL), 0);
        assert_true(digest_equal(&found, &l->digest));
        snprintf(text, sizeof(text), "%s 99999999999\n", digest_format(&other, shown));
        write_file(lower_path(l, "refs/h/a/b"), text, strlen(text));
        assert_int_equal(store_ref_get(l->store, "h/a:b", &found, &when, NULL), 0);
        assert_true(digest_equal(&found, &other));
        assert_int_equal(when, 99999999999);
        assert_int_equal(store_ref_get(l->store, "h/a:c", &found, &when, NULL), 0);
        assert_true(digest_equal(&found, &other));
        assert_int_equal(store_ref_get(l->store, "h/a:d", &found, &when, NULL), -ENOENT);
}

static void toc_of_a_lower_store_is_found_behind_the_own_one(void **state)
{
        struct layer *l = *state;
        char text[8] = "";
        int fd;

        publish_lower(l);
        add_lower(l);
        assert_int_equal(store_layer_toc_here(l->store, &l->digest, "plain"), -ENOENT);
        fd = store_layer_toc(l->store, &l->digest, "plain");
        assert_true(fd >= 0);
        assert_int_equal(pread(fd, text, sizeof(text), 0), 3);
        close(fd);
        assert_int_equal(publish(l, 10007), 0);
        fd = store_layer_toc_here(l->store, &l->digest, "plain");
        assert_true(fd >= 0);
        close(fd);
}

static void image_index_is_asked_of_each_store(void **state)
{
        struct layer *l = *state;
        struct store_draft d = STORE_DRAFT_INIT;
        int fd;

        open_lower_as_own(l);
        assert_int_equal(store_draft_new(l->store, &d, NULL), 0);
        assert_int_equal(write(d.fd, "index", 5), 5);
        assert_int_equal(store_draft_publish_image(&d, "key", NULL), 0);
        close_own(l);
        add_lower(l);
        assert_int_equal(store_image_open(store_at(l->store, 0), "key"), -ENOENT);
        fd = store_image_open(store_at(l->store, 1), "key");
        assert_true(fd >= 0);
        close(fd);
        assert_null(store_at(l->store, 2));
}

/* ---- content ---- */

static void content_of_a_lower_store_is_read_there(void **state)
{
        struct layer *l = *state;
        struct content *c;

        publish_lower(l);
        c = open_above(l);
        for (size_t i = 0; i < CHUNKS; i++)
                assert_true(content_has(c, i));
        assert_true(reads(l, c, 0, CONTENT_SIZE));
        assert_true(reads(l, c, 4999, 2));
        assert_int_equal(peek_word(l, 0), 0);
        assert_true(content_keeps(c));
        content_close(c);
}

static void read_takes_each_chunk_from_where_it_is(void **state)
{
        struct layer *l = *state;
        struct content *c;

        publish_lower(l);
        drop_lower_word(l, 1);
        drop_lower_word(l, 4);
        c = open_above(l);
        assert_false(content_has(c, 1));
        assert_int_equal(read_result(c, 0, CONTENT_SIZE), -EAGAIN);
        assert_true(reads_chunk(l, c, 0));
        assert_int_equal(content_write(c, 1, bytes_of(l, 1)), 0);
        assert_int_equal(content_write(c, 4, bytes_of(l, 4)), 0);
        assert_true(reads(l, c, 0, CONTENT_SIZE));
        assert_true(reads(l, c, 4000, 60000));
        assert_true(reads(l, c, 377000, 7002));
        assert_int_equal(peek_word(l, 0), 0);
        assert_int_equal(peek_word(l, 1), hash_of(l, 1) | 1);
        content_close(c);
}

static void chunk_that_no_store_has_is_absent(void **state)
{
        struct layer *l = *state;
        struct content *c;

        publish_lower(l);
        drop_lower_word(l, 3);
        c = open_above(l);
        assert_false(content_has(c, 3));
        assert_int_equal(read_chunk_result(l, c, 3), -EAGAIN);
        assert_true(reads(l, c, 0, 77824));
        content_close(c);
}

static void damaged_chunk_of_a_lower_store_is_absent(void **state)
{
        struct layer *l = *state;
        struct content *c;

        publish_lower(l);
        poke_lower(l, CONTENT, 5001, "damage", 6);
        c = open_above(l);
        assert_true(content_has(c, 1));
        assert_int_equal(read_chunk_result(l, c, 1), -EAGAIN);
        assert_false(content_has(c, 1));
        assert_int_equal(content_write(c, 1, bytes_of(l, 1)), 0);
        assert_true(reads(l, c, 0, CONTENT_SIZE));
        content_close(c);
}

static void damaged_chunk_is_read_from_the_next_store(void **state)
{
        struct layer *l = *state;
        struct content *c;

        publish_lower(l);
        layer_open_store(l);
        assert_int_equal(publish(l, 10007), 0);
        poke(l, CONTENT, 5001, "damage", 6);
        c = open_above(l);
        assert_true(reads(l, c, 0, CONTENT_SIZE));
        assert_int_equal(peek_word(l, 1), 0);
        content_close(c);
}

/* Its owner goes on using it, and asks nobody. */
static void chunk_that_a_lower_stores_owner_takes_away_is_absent(void **state)
{
        struct layer *l = *state;
        struct content *c, *owners = NULL;
        struct store *owner = NULL;

        publish_lower(l);
        c = open_above(l);
        assert_int_equal(store_open(lower_path(l, ""), &owner, NULL), 0);
        assert_int_equal(content_open(owner, &l->digest, "plain", &l->table, &owners, NULL), 0);
        for (size_t k = 0; k < 2; k++) {
                for (size_t i = 0; i < CHUNKS; i++) {
                        size_t end;

                        assert_true(reads_chunk(l, c, i));
                        assert_true(reads(l, c, l->rows[i].content_offset + 1, 100));
                        assert_true(content_lock_eviction(owners));
                        (void) content_evict(owners, i, i + 1, &end);
                        content_unlock_eviction(owners);
                        if (i == 2 || i == 4) { /* whose bytes are zeros, or no block of their own */
                                assert_true(reads_chunk(l, c, i));
                                assert_true(reads(l, c, l->rows[i].content_offset + 1, 100));
                        } else {
                                assert_int_equal(read_result(c, l->rows[i].content_offset + 1, 100 + k * 3000),
                                                 -EAGAIN);
                                assert_int_equal(read_chunk_result(l, c, i), -EAGAIN);
                        }
                        assert_int_equal(content_write(owners, i, bytes_of(l, i)), 0);
                }
                content_refresh(c->lowers.items[0], 0, CHUNKS);
        }
        /* Left half way: it still has its bytes. */
        assert_int_equal(content_raise_epochs(owners, 0, CHUNKS, true), 0);
        for (size_t i = 0; i < CHUNKS; i++) {
                assert_true(reads_chunk(l, c, i));
                assert_true(reads(l, c, l->rows[i].content_offset + 1, 100));
        }
        content_close(owners);
        store_close(owner);
        content_close(c);
}

static void punch(const char *path, uint64_t offset, size_t n)
{
        int fd = open(path, O_RDWR | O_CLOEXEC);

        assert_true(fd >= 0);
        assert_int_equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t) offset, (off_t) n), 0);
        close(fd);
}

/* What another machine has taken away may be in the file sooner than in the map, as far as this one sees it. */
static void hole_that_no_epoch_tells_of_is_not_read(void **state)
{
        struct layer *l = *state;
        const struct chunk *chunk = &l->rows[3];
        uint64_t block = chunk->content_offset + 8192;
        struct content *c;

        publish_lower(l);
        c = open_above(l);
        for (size_t i = 0; i < CHUNKS; i++) {
                assert_true(reads_chunk(l, c, i));
                assert_true(reads(l, c, l->rows[i].content_offset + 1, 100));
        }
        assert_int_equal(block % 4096, 0);
        punch(lower_path(l, CONTENT), block, 4096);
        assert_true(reads(l, c, block - 4096, 4096));
        assert_true(reads(l, c, block + 4096, 100));
        assert_int_equal(read_result(c, block, 4096), -EAGAIN);
        assert_int_equal(read_result(c, block + 4000, 96), -EAGAIN);
        assert_int_equal(read_result(c, block - 100, 200), -EAGAIN);
        assert_int_equal(read_result(c, block + 4095, 200), -EAGAIN);
        assert_int_equal(read_result(c, 0, CONTENT_SIZE), -EAGAIN);
        assert_int_equal(read_chunk_result(l, c, 3), -EAGAIN);
        assert_true(reads_chunk(l, c, 1));
        content_close(c);
}

/* Or whoever wants it would look for it there again and again. */
static void chunk_with_such_a_hole_is_absent_from_then_on(void **state)
{
        struct layer *l = *state;
        struct content *c;

        layer_open_store(l);
        l->store->remote = true;
        assert_int_equal(publish(l, 10007), 0);
        c = open_content(l);
        assert_true(reads_chunk(l, c, 3));
        assert_true(reads(l, c, l->rows[3].content_offset + 1, 100));
        punch(below(&l->place, CONTENT), l->rows[3].content_offset + 8192, 4096);
        assert_int_equal(read_result(c, l->rows[3].content_offset + 8192, 4096), -EAGAIN);
        content_refresh(c, 0, CHUNKS);
        assert_false(content_has(c, 3));
        assert_int_equal(content_write(c, 3, bytes_of(l, 3)), 0);
        assert_true(reads_chunk(l, c, 3));
        content_close(c);
}

/* A map that says nothing of what is taken away: each read is verified. */
static void lower_content_of_the_first_version_is_used(void **state)
{
        struct layer *l = *state;
        const uint64_t length = MAP_WORDS_END;
        struct content *c;

        publish_lower(l);
        poke_lower(l, MAP, 8, "\x01", 1);
        assert_int_equal(truncate(lower_path(l, MAP), MAP_WORDS_END), 0);
        c = open_above(l);
        assert_false(content_has(c, 0)); /* the length is not that of the version */
        content_close(c);
        poke_lower(l, MAP, 16, &length, sizeof(length));
        c = open_content(l);
        for (int k = 0; k < 2; k++) {
                assert_true(reads(l, c, 0, CONTENT_SIZE));
                assert_true(reads(l, c, 4999, 2));
                assert_true(reads(l, c, 100000, 200000));
        }
        poke_lower(l, CONTENT, 5001, "damage", 6);
        assert_int_equal(read_result(c, 40000, 1), -EAGAIN);
        assert_false(content_has(c, 1));
        assert_true(reads_chunk(l, c, 0));
        content_close(c);
        c = open_content(l);
        assert_int_equal(read_chunk_result(l, c, 1), -EAGAIN);
        assert_false(content_has(c, 1));
        content_close(c);
}

static void lower_content_of_another_cut_is_not_used(void **state)
{
        struct layer *l = *state;
        struct content *c;

        publish_lower(l);
        l->rows[0].content_length -= 1;
        c = open_above(l);
        assert_false(content_has(c, 0));
        assert_false(content_has(c, 1));
        content_close(c);
}

static void second_lower_store_is_looked_into(void **state)
{
        struct layer *l = *state;
        char second[1024];
        struct content *c;

        publish_lower(l);
        snprintf(second, sizeof(second), "%s/second", l->place.path);
        assert_int_equal(mkdir(second, 0700), 0);
        assert_int_equal(mkdir(lower_path(l, "../second/layers"), 0700), 0);
        layer_open_store(l);
        assert_int_equal(store_add(l->store, second, NULL), 0);
        c = open_above(l);
        assert_true(reads(l, c, 0, CONTENT_SIZE));
        content_close(c);
}

static void lower_store_is_not_written(void **state)
{
        struct layer *l = *state;
        char copy[1024], command[3000];
        struct content *c;

        publish_lower(l);
        drop_lower_word(l, 1);
        poke_lower(l, CONTENT, 62, "damage", 6);
        snprintf(copy, sizeof(copy), "%s/copy", l->place.path);
        snprintf(command, sizeof(command), "cp -a '%s' '%s'", lower_path(l, ""), copy);
        assert_int_equal(system(command), 0);
        c = open_above(l);
        assert_int_equal(read_chunk_result(l, c, 0), -EAGAIN);
        assert_int_equal(content_write(c, 0, bytes_of(l, 0)), 0);
        assert_int_equal(content_write(c, 1, bytes_of(l, 1)), 0);
        assert_true(reads(l, c, 0, CONTENT_SIZE));
        content_close(c);
        assert_true(same_contents(lower_path(l, ""), copy));
}

static void what_a_foreign_toc_brings_is_kept_apart(void **state)
{
        struct layer *l = *state;
        struct error e = ERROR_INIT;
        struct content *c = NULL;

        publish_lower(l);
        drop_lower_word(l, 1);
        add_lower(l);
        assert_int_equal(content_open(l->store, &l->digest, "plain" LAYER_KIND_BY "1234", &l->table, &c, &e), 0);
        assert_int_equal(content_write(c, 1, bytes_of(l, 1)), 0);
        assert_true(reads(l, c, 0, CONTENT_SIZE));
        content_close(c);
        assert_false(exists(&l->place, LAYER_DIRECTORY));
        assert_true(exists(&l->place, LAYER_DIRECTORY LAYER_KIND_BY "1234/map"));
}

/* ---- whom to believe ---- */

static void refuse(struct layer *l, const char *path, int code, const char *word)
{
        struct error e = ERROR_INIT;

        if (!l->store)
                layer_open_store(l);
        assert_int_equal(store_add(l->store, path, &e), -code);
        if (!strstr(e.message, path) || !strstr(e.message, word))
                fail_msg("%s", e.message);
        assert_null(store_at(l->store, 1));
}

static void directory_that_others_can_write_is_refused(void **state)
{
        struct layer *l = *state;

        publish_lower(l);
        assert_int_equal(chmod(lower_path(l, ""), 0770), 0);
        refuse(l, lower_path(l, ""), EPERM, "writable");
        assert_int_equal(chmod(lower_path(l, ""), 0757), 0);
        refuse(l, lower_path(l, ""), EPERM, "writable");
}

static void directory_that_is_no_store_is_refused(void **state)
{
        struct layer *l = *state;

        refuse(l, lower_path(l, ""), ENOENT, "No such file");
        assert_int_equal(mkdir(lower_path(l, ""), 0700), 0);
        refuse(l, lower_path(l, ""), ENOENT, "no store");
        refuse(l, "", EINVAL, "empty");
}

static void files_that_others_can_write_are_absent(void **state)
{
        struct layer *l = *state;
        struct content *c;

        publish_lower(l);
        assert_int_equal(chmod(lower_path(l, LAYER_DIRECTORY "/toc"), 0620), 0);
        assert_int_equal(chmod(lower_path(l, LAYER_DIRECTORY "/map"), 0602), 0);
        c = open_above(l);
        assert_true(store_layer_toc(l->store, &l->digest, "plain") < 0);
        assert_false(content_has(c, 0));
        content_close(c);
}

static void fifo_in_the_place_of_a_file_holds_nobody_up(void **state)
{
        struct layer *l = *state;
        struct content *c;

        publish_lower(l);
        assert_int_equal(unlink(lower_path(l, LAYER_DIRECTORY "/toc")), 0);
        assert_int_equal(mkfifo(lower_path(l, LAYER_DIRECTORY "/toc"), 0600), 0);
        assert_int_equal(unlink(lower_path(l, CONTENT)), 0);
        assert_int_equal(mkfifo(lower_path(l, CONTENT), 0600), 0);
        c = open_above(l);
        assert_true(store_layer_toc(l->store, &l->digest, "plain") < 0);
        assert_false(content_has(c, 0));
        content_close(c);
}

static void files_of_a_third_user_are_absent(void **state)
{
        struct layer *l = *state;
        int fd;

        if (geteuid() != 0)
                skip();
        publish_lower(l);
        assert_int_equal(chown(lower_path(l, ""), OTHER_USER, OTHER_USER), 0);
        add_lower(l);
        assert_true(store_is_foreign(store_at(l->store, 1)));
        assert_int_equal(store_owner(store_at(l->store, 1)), OTHER_USER);
        /* Root's files are as good as the owner's. */
        close(store_layer_toc(l->store, &l->digest, "plain"));
        assert_int_equal(chown(lower_path(l, LAYER_DIRECTORY "/toc"), OTHER_USER + 1, 0), 0);
        assert_true(store_layer_toc(l->store, &l->digest, "plain") < 0);
        assert_int_equal(chown(lower_path(l, LAYER_DIRECTORY "/toc"), OTHER_USER, 0), 0);
        fd = store_layer_toc(l->store, &l->digest, "plain");
        assert_true(fd >= 0);
        close(fd);
}

static void own_store_is_not_foreign(void **state)
{
        struct layer *l = *state;

        publish_lower(l);
        add_lower(l);
        assert_false(store_is_foreign(store_at(l->store, 0)));
        assert_false(store_is_foreign(store_at(l->store, 1)));
}

/* ---- without a store of one's own ---- */

static void in_a_home_that_is_not_there(const struct place *p)
{
        struct layer l = { .place = *p };
        const char *stores[] = { lower_path(&l, ""), NULL };
        char missing[400];
        struct error e = ERROR_INIT;
        struct store *s = NULL;
        struct digest d = digest_x();
        int fd;

        become_nobody();
        snprintf(missing, sizeof(missing), "%s/locked/store", p->path);
        CHECK(store_open(missing, &s, &e) < 0);
        CHECK(store_open_all(missing, NULL, &s, &e) < 0);
        CHECK(store_open_all(missing, stores, &s, &e) == 0);
        fd = store_layer_toc(s, &d, "plain");
        CHECK(fd >= 0);
        CHECK(store_blob_put(s, &d, "x", 1, &e) == -EROFS);
        store_close(s);
}

static void other_stores_do_without_an_own_one(void **state)
{
        struct layer *l = *state;
        char locked[400];

        publish_lower(l);
        snprintf(locked, sizeof(locked), "%s/locked", l->place.path);
        assert_int_equal(mkdir(locked, 0000), 0);
        assert_int_equal(chmod(l->place.path, 0755), 0);
        assert_int_equal(chmod(lower_path(l, ""), 0755), 0);
        assert_int_equal(chmod(lower_path(l, "layers"), 0755), 0);
        assert_int_equal(chmod(lower_path(l, "layers/sha256"), 0755), 0);
        assert_int_equal(chmod(lower_path(l, "layers/sha256/" HEX_X), 0755), 0);
        assert_int_equal(chmod(lower_path(l, LAYER_DIRECTORY), 0755), 0);
        assert_int_equal(chmod(lower_path(l, LAYER_DIRECTORY "/toc"), 0644), 0);
        run_in_child(in_a_home_that_is_not_there, &l->place, NULL);
}

static void every_named_store_has_to_be_there(void **state)
{
        struct layer *l = *state;
        const char *stores[] = { "/nonexistent/store", NULL };
        struct error e = ERROR_INIT;
        struct store *s = NULL;

        assert_int_equal(store_open_all(l->place.store, stores, &s, &e), -ENOENT);
        assert_non_null(strstr(e.message, "/nonexistent/store"));
        assert_null(s);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(blob_of_a_lower_store_is_got, layer_setup, layer_teardown),
                cmocka_unit_test_setup_teardown(damaged_blob_of_a_lower_store_is_absent_and_stays, layer_setup,
                                                layer_teardown),
                cmocka_unit_test_setup_teardown(latest_ref_of_all_stores_counts, layer_setup, layer_teardown),
                cmocka_unit_test_setup_teardown(toc_of_a_lower_store_is_found_behind_the_own_one, layer_setup,
                                                layer_teardown),
                cmocka_unit_test_setup_teardown(image_index_is_asked_of_each_store, layer_setup, layer_teardown),
                cmocka_unit_test_setup_teardown(content_of_a_lower_store_is_read_there, layer_setup, layer_teardown),
                cmocka_unit_test_setup_teardown(read_takes_each_chunk_from_where_it_is, layer_setup, layer_teardown),
                cmocka_unit_test_setup_teardown(chunk_that_no_store_has_is_absent, layer_setup, layer_teardown),
                cmocka_unit_test_setup_teardown(damaged_chunk_of_a_lower_store_is_absent, layer_setup, layer_teardown),
                cmocka_unit_test_setup_teardown(damaged_chunk_is_read_from_the_next_store, layer_setup, layer_teardown),
                cmocka_unit_test_setup_teardown(chunk_that_a_lower_stores_owner_takes_away_is_absent, layer_setup,
                                                layer_teardown),
                cmocka_unit_test_setup_teardown(hole_that_no_epoch_tells_of_is_not_read, layer_setup, layer_teardown),
                cmocka_unit_test_setup_teardown(chunk_with_such_a_hole_is_absent_from_then_on, layer_setup,
                                                layer_teardown),
                cmocka_unit_test_setup_teardown(lower_content_of_the_first_version_is_used, layer_setup,
                                                layer_teardown),
                cmocka_unit_test_setup_teardown(lower_content_of_another_cut_is_not_used, layer_setup, layer_teardown),
                cmocka_unit_test_setup_teardown(second_lower_store_is_looked_into, layer_setup, layer_teardown),
                cmocka_unit_test_setup_teardown(lower_store_is_not_written, layer_setup, layer_teardown),
                cmocka_unit_test_setup_teardown(what_a_foreign_toc_brings_is_kept_apart, layer_setup, layer_teardown),
                cmocka_unit_test_setup_teardown(directory_that_others_can_write_is_refused, layer_setup,
                                                layer_teardown),
                cmocka_unit_test_setup_teardown(directory_that_is_no_store_is_refused, layer_setup, layer_teardown),
                cmocka_unit_test_setup_teardown(files_that_others_can_write_are_absent, layer_setup, layer_teardown),
                cmocka_unit_test_setup_teardown(fifo_in_the_place_of_a_file_holds_nobody_up, layer_setup,
                                                layer_teardown),
                cmocka_unit_test_setup_teardown(files_of_a_third_user_are_absent, layer_setup, layer_teardown),
                cmocka_unit_test_setup_teardown(own_store_is_not_foreign, layer_setup, layer_teardown),
                cmocka_unit_test_setup_teardown(other_stores_do_without_an_own_one, layer_setup, layer_teardown),
                cmocka_unit_test_setup_teardown(every_named_store_has_to_be_there, layer_setup, layer_teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
