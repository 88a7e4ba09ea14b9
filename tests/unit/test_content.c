/* SPDX-License-Identifier: Apache-2.0 */

#include <sys/inotify.h>

#include "content_fixture.h"
#include "regfs/log.h"

/* ---- what the indexer kept ---- */

static void appended_content_is_served(void **state)
{
        static const size_t steps[] = { 1, 511, 4096, 65536, CONTENT_SIZE };
        struct layer *l = *state;

        layer_open_store(l);
        for (size_t k = 0; k < ELEMENTSOF(steps); k++) {
                struct content *c;

                assert_int_equal(publish(l, steps[k]), 0);
                c = open_content(l);
                for (size_t i = 0; i < CHUNKS; i++) {
                        assert_true(content_has(c, i));
                        assert_true(reads_chunk(l, c, i));
                }
                content_close(c);
                assert_int_equal(store_layer_remove(l->store, &l->digest, "plain", NULL), 0);
        }
}

static void zero_blocks_become_holes(void **state)
{
        struct layer *l = *state;
        struct content *c = publish_and_open(l);
        struct stat st;
        int fd;

        assert_int_equal(stat(below(&l->place, CONTENT), &st), 0);
        assert_int_equal(st.st_size, CONTENT_SIZE);
        fd = open(below(&l->place, CONTENT), O_RDONLY | O_CLOEXEC);
        assert_int_equal(lseek(fd, 61440, SEEK_DATA), 77824);
        assert_int_equal(lseek(fd, 98304, SEEK_DATA), 98304 + 131072);
        close(fd);
        assert_int_not_equal(peek_word(l, 2), 0);
        assert_true(reads_chunk(l, c, 2));
        content_close(c);
}

static void draft_without_content_has_no_chunks(void **state)
{
        struct layer *l = *state;
        struct layer_draft *d = NULL;
        struct content *c;

        layer_open_store(l);
        assert_int_equal(layer_draft_new(l->store, &l->digest, "plain", &d, NULL), 0);
        assert_int_equal(layer_draft_append(d, l->bytes, 5000, NULL), 0);
        for (size_t i = 0; i < CHUNKS; i++)
                assert_int_equal(end_chunk(l, d, i), 0);
        assert_int_equal(layer_draft_chunk(d, 1000, 10, 0, NULL), -EBADMSG);
        assert_int_equal(write(layer_draft_toc_fd(d), "toc", 3), 3);
        assert_int_equal(layer_draft_publish(d, NULL), 0);
        layer_draft_free(d);

        c = open_content(l);
        assert_true(reads_chunk(l, c, 0));
        for (size_t i = 1; i < CHUNKS; i++)
                assert_false(content_has(c, i));
        content_close(c);
}

/* ---- reading ---- */

static void chunk_of_zeros_is_there_without_being_stored(void **state)
{
        struct layer *l = *state;
        struct content *c;

        l->rows[2].codec = CODEC_ZEROS;
        c = open_content(l);
        assert_true(content_has(c, 2));
        assert_false(content_has(c, 1) || content_has(c, 3) || content_has(c, CHUNKS));
        assert_true(reads_chunk(l, c, 2));
        assert_true(reads(l, c, 61440 + 10, 100));
        /* From the gap before it to its end. */
        assert_true(reads(l, c, 50000, 77824 - 50000));
        assert_int_equal(read_result(c, 49999, 77824 - 49999), -EAGAIN);
        assert_int_equal(read_result(c, 61440, 16384 + 1), -EAGAIN);
        assert_int_equal(content_write(c, 1, bytes_of(l, 1)), 0);
        assert_int_equal(content_write(c, 3, bytes_of(l, 3)), 0);
        assert_true(reads(l, c, 40000, 100000));
        content_close(c);
}

static void any_range_reads_right(void **state)
{
        struct layer *l = *state;
        struct content *c = publish_and_open(l);
        uint64_t seed = 7;

        for (int k = 0; k < 500; k++) {
                uint64_t offset, length;

                seed = seed * 6364136223846793005u + 1442695040888963407u;
                offset = (seed >> 20) % CONTENT_SIZE;
                length = (seed >> 40) % (CONTENT_SIZE - offset + 1);
                assert_true(reads(l, c, offset, length));
                if (k % 50 == 0) {
                        content_close(c);
                        c = open_content(l);
                }
        }
        assert_true(reads(l, c, 0, CONTENT_SIZE));
        assert_true(reads(l, c, CONTENT_SIZE, 0));
        content_close(c);
}

static void range_outside_of_the_content_is_refused(void **state)
{
        struct layer *l = *state;
        struct content *c = publish_and_open(l);

        assert_int_equal(read_result(c, CONTENT_SIZE - 1, 2), -EINVAL);
        assert_int_equal(read_result(c, UINT64_MAX, 2), -EINVAL);
        assert_int_equal(content_write(c, CHUNKS, l->bytes), -EINVAL);
        assert_false(content_has(c, CHUNKS));
        content_close(c);
}

static void bytes_between_chunks_are_zeros_whatever_the_file_says(void **state)
{
        struct layer *l = *state;
        struct content *c = publish_and_open(l);

        poke(l, CONTENT, 50000, "garbage", 7);
        poke(l, CONTENT, 390000, "garbage", 7);
        assert_true(reads(l, c, 50000, 7));
        assert_true(reads(l, c, 390000, 7));
        assert_true(reads(l, c, 0, CONTENT_SIZE));
        content_close(c);
}

static void absent_chunk_makes_the_whole_read_fail(void **state)
{
        struct layer *l = *state;
        struct content *c = publish_and_open(l);

        poke_word(l, 1, 0);
        assert_false(content_has(c, 1));
        assert_int_equal(read_result(c, 0, CONTENT_SIZE), -EAGAIN);
        assert_int_equal(read_result(c, 4999, 2), -EAGAIN);
        assert_true(reads(l, c, 0, 5000));
        assert_true(reads(l, c, 50000, CONTENT_SIZE - 50000));
        content_close(c);
}

/* ---- writing ---- */

static void written_chunks_are_served_here_and_after_reopening(void **state)
{
        struct layer *l = *state;
        struct content *c = open_content(l);

        for (size_t i = 0; i < CHUNKS; i++) {
                assert_false(content_has(c, i));
                assert_int_equal(read_chunk_result(l, c, i), -EAGAIN);
                assert_int_equal(content_write(c, i, bytes_of(l, i)), 0);
                assert_true(content_has(c, i));
                assert_true(reads_chunk(l, c, i));
        }
        assert_int_equal(content_write(c, 1, bytes_of(l, 1)), 0);
        content_close(c);
        c = open_content(l);
        assert_true(reads(l, c, 0, CONTENT_SIZE));
        content_close(c);
        assert_int_equal(entries(below(&l->place, "tmp")), 0);
}

static void zero_blocks_replace_old_bytes(void **state)
{
        struct layer *l = *state;
        _cleanup_free_ uint8_t *garbage = malloc(CONTENT_SIZE);
        struct content *c = open_content(l);
        struct stat st;

        memset(garbage, 0xee, CONTENT_SIZE);
        poke(l, CONTENT, 0, garbage, CONTENT_SIZE);
        for (size_t i = 0; i < CHUNKS; i++)
                assert_int_equal(content_write(c, i, bytes_of(l, i)), 0);
        content_close(c);
        c = open_content(l);
        assert_true(reads(l, c, 0, CONTENT_SIZE));
        content_close(c);
        assert_int_equal(stat(below(&l->place, CONTENT), &st), 0);
        assert_int_equal(st.st_size, CONTENT_SIZE);
}

static void neighbours_survive_a_write(void **state)
{
        struct layer *l = *state;
        struct content *c = publish_and_open(l);

        for (size_t i = 0; i < CHUNKS; i++) {
                poke_word(l, i, 0);
                assert_int_equal(content_write(c, i, bytes_of(l, i)), 0);
        }
        content_close(c);
        c = open_content(l);
        assert_true(reads(l, c, 0, CONTENT_SIZE));
        content_close(c);
}

/* ---- damage ---- */

static void torn_write_is_cleared_and_the_others_stay(void **state)
{
        struct layer *l = *state;
        struct content *c = publish_and_open(l);

        for (size_t i = 0; i < CHUNKS; i++) {
                uint64_t last = l->rows[i].content_offset + l->rows[i].content_length - 1;
                uint8_t wrong = (uint8_t) ~l->bytes[last];

                poke(l, CONTENT, last, &wrong, 1);
                assert_true(content_has(c, i));
                /* One byte of it, then all of it: the two roads of verification. */
                if (i % 2)
                        assert_int_equal(read_result(c, l->rows[i].content_offset, 1), -EAGAIN);
                else
                        assert_int_equal(read_chunk_result(l, c, i), -EAGAIN);
                assert_false(content_has(c, i));
                assert_int_equal(peek_word(l, i), 0);
                for (size_t k = 0; k < CHUNKS; k++)
                        assert_int_equal(reads_chunk(l, c, k), k != i);

                assert_int_equal(content_write(c, i, bytes_of(l, i)), 0);
                assert_true(reads(l, c, 0, CONTENT_SIZE));
                content_close(c);
                c = open_content(l);
        }
        content_close(c);
}

static void wrong_word_is_cleared(void **state)
{
        struct layer *l = *state;
        struct content *c = publish_and_open(l);

        poke_word(l, 0, 1);
        poke_word(l, 3, peek_word(l, 3) ^ 2);
        poke_word(l, 4, ~peek_word(l, 4));
        assert_int_equal(read_chunk_result(l, c, 0), -EAGAIN);
        assert_int_equal(read_result(c, l->rows[3].content_offset + 100, 1), -EAGAIN);
        assert_int_equal(read_chunk_result(l, c, 4), -EAGAIN);
        assert_int_equal(peek_word(l, 0), 0);
        assert_int_equal(peek_word(l, 3), 0);
        assert_int_equal(peek_word(l, 4), 0);
        assert_true(reads_chunk(l, c, 1));
        content_close(c);
}

static void chunk_that_was_away_is_verified_again(void **state)
{
        struct layer *l = *state;
        struct content *c = publish_and_open(l);
        uint64_t word = peek_word(l, 1);
        uint8_t wrong = (uint8_t) ~l->bytes[5000];

        assert_true(reads_chunk(l, c, 1));
        poke_word(l, 1, 0);
        assert_int_equal(read_chunk_result(l, c, 1), -EAGAIN);
        poke(l, CONTENT, 5000, &wrong, 1);
        poke_word(l, 1, word);
        assert_int_equal(read_result(c, 6000, 10), -EAGAIN);
        assert_false(content_has(c, 1));
        content_close(c);
}

static void log_damage(const struct place *p)
{
        struct layer l = { 0 };
        char path[300];
        struct content *c = NULL;
        void *state = NULL;

        CHECK(layer_setup(&state) == 0);
        l = *(struct layer *) state;
        snprintf(path, sizeof(path), "%s/log", p->path);
        CHECK(log_open(LOG_LEVEL_WARNING, path, NULL) == 0);
        CHECK(store_open(l.place.store, &l.store, NULL) == 0);
        CHECK(publish(&l, 10007) == 0);
        poke_word(&l, 3, 1);
        CHECK(content_open(l.store, &l.digest, "plain", &l.table, &c, NULL) == 0);
        for (int k = 0; k < 3; k++) {
                CHECK(read_chunk_result(&l, c, 3) == -EAGAIN);
                CHECK(reads_chunk(&l, c, 0));
        }
        CHECK(lines_with(path, "") == 1);
        CHECK(lines_with(path, "sha256:" HEX_X " plain: chunk 3,") == 1);
        CHECK(place_remove(&l.place) == 0);
}

static void damage_is_logged_once(void **state)
{
        struct layer *l = *state;

        run_in_child(log_damage, &l->place, NULL);
}

/* ---- maps that don't fit ---- */

static void truncate_map(struct layer *l)
{
        assert_int_equal(truncate(below(&l->place, MAP), 70), 0);
}

static void empty_map(struct layer *l)
{
        assert_int_equal(truncate(below(&l->place, MAP), 0), 0);
}

static void longer_map(struct layer *l)
{
        poke(l, MAP, MAP_SIZE, "x", 1);
}

static void other_magic(struct layer *l)
{
        poke(l, MAP, 0, "X", 1);
}

static void other_version(struct layer *l)
{
        poke(l, MAP, 8, "\x03", 1);
}

/* Its words would fit. */
static void first_version(struct layer *l)
{
        const uint64_t length = MAP_WORDS_END;

        poke(l, MAP, 8, "\x01", 1);
        poke(l, MAP, 16, &length, sizeof(length));
        assert_int_equal(truncate(below(&l->place, MAP), MAP_WORDS_END), 0);
}

/* All there is, with another length. */
static void words_alone(struct layer *l)
{
        assert_int_equal(truncate(below(&l->place, MAP), MAP_WORDS_END), 0);
}

static void no_map(struct layer *l)
{
        assert_int_equal(unlink(below(&l->place, MAP)), 0);
}

static void no_content(struct layer *l)
{
        assert_int_equal(unlink(below(&l->place, CONTENT)), 0);
}

static void short_content(struct layer *l)
{
        assert_int_equal(truncate(below(&l->place, CONTENT), 384001), 0);
}

static void other_cut(struct layer *l)
{
        l->rows[0].content_length -= 1;
}

static void fewer_chunks(struct layer *l)
{
        l->table.chunk_count--;
}

static void files_that_do_not_fit_are_begun_afresh(void **state)
{
        static void (*const damages[])(struct layer *) = {
                truncate_map, empty_map, longer_map, other_magic,   other_version, first_version,
                words_alone,  no_map,    no_content, short_content, other_cut,     fewer_chunks,
        };
        struct layer *l = *state;

        layer_open_store(l);
        for (size_t k = 0; k < ELEMENTSOF(damages); k++) {
                struct content *old, *new;

                assert_int_equal(publish(l, 10007), 0);
                old = open_content(l);
                assert_true(damages[k] == short_content || reads_chunk(l, old, 4));
                content_close(old);

                damages[k](l);
                new = open_content(l);
                for (size_t i = 0; i < l->table.chunk_count; i++) {
                        assert_false(content_has(new, i));
                        assert_int_equal(content_write(new, i, bytes_of(l, i)), 0);
                        assert_true(reads_chunk(l, new, i));
                }
                content_close(new);
                assert_int_equal(entries(below(&l->place, LAYER_DIRECTORY)), 3);
                assert_int_equal(entries(below(&l->place, "tmp")), 0);
                assert_int_equal(store_layer_remove(l->store, &l->digest, "plain", NULL), 0);
        }
}

/* The place of WHAT happening to NAME among the events that INOTIFY has. */
static size_t find_event(const char *events, size_t n, uint32_t what, const char *name)
{
        size_t place = 0;

        for (size_t at = 0; at < n; place++) {
                const struct inotify_event *event = (const struct inotify_event *) (events + at);

                if ((event->mask & what) && str_eq(event->name, name))
                        return place;
                at += sizeof(*event) + event->len;
        }
        fail_msg("nothing happened to %s", name);
        return place;
}

/* Who paired them would take chunks away by epochs that nobody else looks at. */
static void old_map_is_gone_before_there_is_new_content(void **state)
{
        _Alignas(struct inotify_event) char events[4096];
        _cleanup_close_ int inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
        struct layer *l = *state;
        ssize_t n;

        content_close(publish_and_open(l));
        no_content(l);
        assert_true(inotify >= 0);
        assert_true(inotify_add_watch(inotify, below(&l->place, LAYER_DIRECTORY), IN_DELETE | IN_MOVED_TO) >= 0);
        content_close(open_content(l));
        n = read(inotify, events, sizeof(events));
        assert_true(n > 0);
        assert_in_range(find_event(events, (size_t) n, IN_DELETE, "map"), 0,
                        find_event(events, (size_t) n, IN_MOVED_TO, "content"));
        assert_in_range(find_event(events, (size_t) n, IN_MOVED_TO, "content"), 0,
                        find_event(events, (size_t) n, IN_MOVED_TO, "map"));
}

static void content_that_is_replaced_goes_on_for_those_who_have_it_open(void **state)
{
        struct layer *l = *state;
        struct content *old = publish_and_open(l), *new;
        struct chunk rows[] = { { .content_offset = 10, .content_length = 4000, .codec = CODEC_STORED } };
        struct chunk_table table = { .chunks = rows, .chunk_count = 1, .content_size = CONTENT_SIZE };

        assert_int_equal(content_open(l->store, &l->digest, "plain", &table, &new, NULL), 0);
        assert_false(content_has(new, 0));
        assert_true(reads(l, old, 0, CONTENT_SIZE));
        assert_int_equal(content_write(new, 0, l->bytes + 10), 0);
        assert_true(reads(l, new, 10, 4000));
        assert_int_equal(content_write(old, 1, bytes_of(l, 1)), 0);
        assert_true(reads(l, old, 0, CONTENT_SIZE));

        assert_int_equal(store_layer_remove(l->store, &l->digest, "plain", NULL), 0);
        assert_true(reads(l, old, 0, CONTENT_SIZE));
        assert_true(reads(l, new, 10, 4000));
        content_close(old);
        content_close(new);
}

static void content_without_a_place_is_all_absent(void **state)
{
        struct layer *l = *state;
        struct content *c;

        layer_open_store(l);
        assert_int_equal(mkdir(below(&l->place, "layers/sha256"), 0700), 0);
        write_file(below(&l->place, "layers/sha256/" HEX_X), "", 0);
        c = open_content(l);
        assert_false(content_has(c, 0));
        assert_int_equal(read_chunk_result(l, c, 0), -EAGAIN);
        assert_int_equal(content_write(c, 0, bytes_of(l, 0)), -ENOTDIR);
        assert_true(reads(l, c, 50000, 100));
        content_close(c);
}

static void empty_layer_works(void **state)
{
        struct layer *l = *state;
        struct content *c;
        uint8_t out = 1;

        l->table = (struct chunk_table) { .content_size = 10 };
        c = open_content(l);
        assert_int_equal(content_read(c, 9, 1, &out), 0);
        assert_int_equal(out, 0);
        content_close(c);
        c = open_content(l);
        content_close(c);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, layer_setup, layer_teardown)
        const struct CMUnitTest tests[] = {
                TEST(appended_content_is_served),
                TEST(zero_blocks_become_holes),
                TEST(draft_without_content_has_no_chunks),
                TEST(chunk_of_zeros_is_there_without_being_stored),
                TEST(any_range_reads_right),
                TEST(range_outside_of_the_content_is_refused),
                TEST(bytes_between_chunks_are_zeros_whatever_the_file_says),
                TEST(absent_chunk_makes_the_whole_read_fail),
                TEST(written_chunks_are_served_here_and_after_reopening),
                TEST(zero_blocks_replace_old_bytes),
                TEST(neighbours_survive_a_write),
                TEST(torn_write_is_cleared_and_the_others_stay),
                TEST(wrong_word_is_cleared),
                TEST(chunk_that_was_away_is_verified_again),
                TEST(damage_is_logged_once),
                TEST(files_that_do_not_fit_are_begun_afresh),
                TEST(old_map_is_gone_before_there_is_new_content),
                TEST(content_that_is_replaced_goes_on_for_those_who_have_it_open),
                TEST(content_without_a_place_is_all_absent),
                TEST(empty_layer_works),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
