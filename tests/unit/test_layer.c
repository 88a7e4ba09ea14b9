/* SPDX-License-Identifier: Apache-2.0 */

#include "store_fixture.h"

#include <signal.h>
#include <sys/resource.h>

#define LAYER "layers/sha256/" HEX_X "/plain"

static struct layer_draft *draft_layer(struct store *s, const char *toc)
{
        struct digest d = digest_x();
        struct error e = ERROR_INIT;
        struct layer_draft *l = NULL;

        if (layer_draft_new(s, &d, "plain", &l, &e) < 0)
                fail_msg("%s", e.message);
        assert_int_equal(write(layer_draft_toc_fd(l), toc, strlen(toc)), strlen(toc));
        return l;
}

static void assert_toc(struct store *s, const char *expected)
{
        struct digest d = digest_x();
        int fd = store_layer_toc(s, &d, "plain");
        char text[32] = "";

        assert_true(fd >= 0);
        assert_int_equal(read(fd, text, sizeof(text)), strlen(expected));
        assert_string_equal(text, expected);
        close(fd);
}

static void layer_appears_whole(void **state)
{
        struct place *p = *state;
        struct store *s = open_store(p);
        struct digest d = digest_x();
        struct layer_draft *l = draft_layer(s, "toc");

        assert_int_equal(store_layer_toc(s, &d, "plain"), -ENOENT);
        assert_false(exists(p, LAYER));
        assert_int_equal(layer_draft_publish(l, NULL), 0);
        assert_toc(s, "toc");
        assert_true(exists(p, LAYER "/content"));
        assert_true(exists(p, LAYER "/map"));
        layer_draft_free(l);
        assert_toc(s, "toc");
        assert_int_equal(entries(below(p, "tmp")), 0);
        store_close(s);
}

static void dropped_layer_leaves_nothing(void **state)
{
        struct place *p = *state;
        struct store *s = open_store(p);
        struct digest d = digest_x();

        layer_draft_free(draft_layer(s, "toc"));
        assert_null(layer_draft_free(NULL));
        assert_int_equal(store_layer_toc(s, &d, "plain"), -ENOENT);
        assert_int_equal(entries(below(p, "tmp")), 0);
        assert_int_equal(entries(below(p, "layers")), 0);
        store_close(s);
}

static void first_publisher_of_a_layer_stays(void **state)
{
        struct place *p = *state;
        struct store *s = open_store(p);
        struct layer_draft *one = draft_layer(s, "one"), *two = draft_layer(s, "two");

        assert_int_equal(layer_draft_publish(one, NULL), 0);
        assert_int_equal(layer_draft_publish(two, NULL), 0);
        assert_toc(s, "one");
        layer_draft_free(two);
        layer_draft_free(one);
        assert_toc(s, "one");
        assert_int_equal(entries(below(p, "tmp")), 0);
        store_close(s);
}

static void incomplete_layer_is_replaced(void **state)
{
        struct place *p = *state;
        struct store *s = open_store(p);

        assert_int_equal(mkdir(below(p, "layers/sha256"), 0700), 0);
        assert_int_equal(mkdir(below(p, "layers/sha256/" HEX_X), 0700), 0);
        for (int round = 0; round < 4; round++) {
                struct layer_draft *l = draft_layer(s, "whole");

                assert_int_equal(round == 0 ? mkdir(below(p, LAYER), 0700) : 0, 0);
                if (round == 1) /* no TOC */
                        assert_int_equal(unlink(below(p, LAYER "/toc")), 0);
                if (round == 2) /* an empty one */
                        write_file(below(p, LAYER "/toc"), "", 0);
                if (round == 3) { /* no directory */
                        struct digest d = digest_x();

                        assert_int_equal(store_layer_remove(s, &d, "plain", NULL), 0);
                        write_file(below(p, LAYER), "x", 1);
                }
                assert_int_equal(layer_draft_publish(l, NULL), 0);
                layer_draft_free(l);
                assert_toc(s, "whole");
                assert_int_equal(entries(below(p, "tmp")), 0);
        }
        store_close(s);
}

/* What a file may grow to in this process: a write beyond fails, in its middle where that is the bound. */
static void limit_files(rlim_t size)
{
        struct rlimit limit;

        signal(SIGXFSZ, SIG_IGN);
        CHECK(getrlimit(RLIMIT_FSIZE, &limit) == 0);
        limit.rlim_cur = MIN(size, limit.rlim_max);
        CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
}

static void cut_in_the_second_chunk(const struct place *p)
{
        enum { CHUNK = 64 * KIB };
        _cleanup_free_ char *data = malloc(CHUNK);
        struct layer_draft *l = NULL;
        struct store *s = NULL;
        struct digest d;
        struct stat st;
        int fd;

        CHECK(data && digest_of(DIGEST_SHA256, "x", 1, &d) == 0 && store_open(p->store, &s, NULL) == 0);
        memset(data, 'c', CHUNK);
        CHECK(layer_draft_new(s, &d, "plain", &l, NULL) == 0);
        limit_files(CHUNK + CHUNK / 2);
        for (uint64_t k = 0; k < 3; k++) {
                CHECK(layer_draft_append(l, data, CHUNK, NULL) == 0);
                CHECK(layer_draft_chunk(l, k * CHUNK, CHUNK, k, NULL) == 0);
        }
        limit_files(RLIM_INFINITY);
        CHECK(write(layer_draft_toc_fd(l), "toc", 3) == 3);
        CHECK(layer_draft_publish(l, NULL) == 0);
        layer_draft_free(l);

        fd = open(below(p, LAYER "/content"), O_RDONLY | O_CLOEXEC);
        CHECK(fd >= 0 && fstat(fd, &st) == 0);
        CHECK(st.st_size == 3 * CHUNK);
        CHECK(lseek(fd, 0, SEEK_DATA) == 0);
        CHECK(lseek(fd, CHUNK, SEEK_DATA) == -1 && errno == ENXIO);
        store_close(s);
}

static void beginning_of_a_chunk_that_was_not_kept_to_its_end_takes_no_room(void **state)
{
        run_in_child(cut_in_the_second_chunk, *state, NULL);
}

static void removed_layer_is_gone_and_may_be_published_again(void **state)
{
        struct place *p = *state;
        struct store *s = open_store(p);
        struct digest d = digest_x();
        struct layer_draft *l = draft_layer(s, "damaged");

        assert_int_equal(layer_draft_publish(l, NULL), 0);
        layer_draft_free(l);
        assert_int_equal(store_layer_remove(s, &d, "plain", NULL), 0);
        assert_int_equal(store_layer_toc(s, &d, "plain"), -ENOENT);
        assert_false(exists(p, LAYER));
        assert_int_equal(store_layer_remove(s, &d, "plain", NULL), 0);
        assert_int_equal(entries(below(p, "tmp")), 0);

        l = draft_layer(s, "sound");
        assert_int_equal(layer_draft_publish(l, NULL), 0);
        layer_draft_free(l);
        assert_toc(s, "sound");
        store_close(s);
}

static void kind_cannot_leave_the_directory(void **state)
{
        static char long_kind[LAYER_KIND_MAX + 1];
        const char *const kinds[] = { "", "..", "../x", "a/b", "Plain", long_kind };
        struct place *p = *state;
        struct store *s = open_store(p);
        struct digest d = digest_x(), none = { 0 };
        struct chunk_table table = { 0 };

        memset(long_kind, 'a', LAYER_KIND_MAX);
        for (size_t k = 0; k < ELEMENTSOF(kinds); k++) {
                struct layer_draft *l = NULL;
                struct content *c = NULL;

                assert_int_equal(layer_draft_new(s, &d, kinds[k], &l, NULL), -EINVAL);
                assert_int_equal(store_layer_toc(s, &d, kinds[k]), -EINVAL);
                assert_int_equal(store_layer_remove(s, &d, kinds[k], NULL), -EINVAL);
                assert_int_equal(content_open(s, &d, kinds[k], &table, &c, NULL), -EINVAL);
                assert_null(l);
                assert_null(c);
        }
        assert_int_equal(store_layer_toc(s, &none, "plain"), -EINVAL);
        assert_int_equal(entries(below(p, "tmp")), 0);
        store_close(s);
}

/* Many processes publish and remove one layer: whoever looks sees a whole one or none. */
static void publish_and_remove(const struct place *p)
{
        struct digest d;
        struct store *s = NULL;

        CHECK(digest_of(DIGEST_SHA256, "x", 1, &d) == 0);
        CHECK(store_open(p->store, &s, NULL) == 0);
        for (int k = 0; k < 60; k++) {
                struct layer_draft *l = NULL;
                char text[8];
                int fd;

                CHECK(layer_draft_new(s, &d, "plain", &l, NULL) == 0);
                CHECK(write(layer_draft_toc_fd(l), "whole", 5) == 5);
                CHECK(layer_draft_publish(l, NULL) == 0);
                layer_draft_free(l);
                fd = store_layer_toc(s, &d, "plain");
                if (fd >= 0) {
                        CHECK(read(fd, text, sizeof(text)) == 5);
                        close(fd);
                } else {
                        CHECK(fd == -ENOENT);
                }
                if (k % 3 == 0)
                        CHECK(store_layer_remove(s, &d, "plain", NULL) == 0);
        }
        store_close(s);
}

static void processes_see_a_whole_layer_or_none(void **state)
{
        struct place *p = *state;
        pid_t children[3];

        store_close(open_store(p));
        fflush(NULL);
        for (size_t k = 0; k < ELEMENTSOF(children); k++) {
                children[k] = fork();
                assert_true(children[k] >= 0);
                if (children[k] == 0) {
                        publish_and_remove(p);
                        _exit(0);
                }
        }
        for (size_t k = 0; k < ELEMENTSOF(children); k++) {
                int status = -1;

                assert_int_equal(waitpid(children[k], &status, 0), children[k]);
                assert_int_equal(status, 0);
        }
        assert_int_equal(entries(below(p, "tmp")), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, place_setup, place_teardown)
        const struct CMUnitTest tests[] = {
                TEST(layer_appears_whole),
                TEST(dropped_layer_leaves_nothing),
                TEST(first_publisher_of_a_layer_stays),
                TEST(incomplete_layer_is_replaced),
                TEST(beginning_of_a_chunk_that_was_not_kept_to_its_end_takes_no_room),
                TEST(removed_layer_is_gone_and_may_be_published_again),
                TEST(kind_cannot_leave_the_directory),
                TEST(processes_see_a_whole_layer_or_none),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
