/* SPDX-License-Identifier: Apache-2.0 */

/* A store that cannot take something: a disk that is full, a directory that may not be written any more. */

#include "store_fixture.h"

#include <sys/resource.h>

#include "regfs/io.h"
#include "regfs/log.h"

#define LAYER "layers/sha256/" HEX_X "/plain"

/* ---- places ---- */

/* A store on a disk of its own, in a mount namespace of this child's own. */
static struct store *open_on_small_disk(const struct place *p, const char *size)
{
        struct store *s = NULL;

        private_mounts();
        make_small_disk(p->store, size);
        CHECK(store_open(p->store, &s, NULL) == 0);
        return s;
}

/* Takes all the room that there is below DIRECTORY. */
static void fill_disk(const char *directory)
{
        static const char block[4096];
        char path[1100];
        int fd;

        snprintf(path, sizeof(path), "%s/filler", directory);
        fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        CHECK(fd >= 0);
        while (write(fd, block, sizeof(block)) > 0)
                ;
        CHECK(errno == ENOSPC);
        close(fd);
}

static void use_temporary_directory(const char *path)
{
        CHECK(setenv("TMPDIR", path, 1) == 0);
}

static struct layer_draft *begin(struct store *s, const char *kind)
{
        struct digest d = digest_x();
        struct layer_draft *l = NULL;
        struct error e = ERROR_INIT;

        if (layer_draft_new(s, &d, kind, &l, &e) < 0)
                fprintf(stderr, "%s\n", e.message);
        CHECK(l);
        return l;
}

/* Writes SIZE bytes of TOC as those do who write one. Returns how often it lay elsewhere. */
static unsigned write_toc(struct layer_draft *l, size_t size)
{
        _cleanup_free_ char *data = malloc(size);
        struct error e = ERROR_INIT;
        unsigned moves = 0;
        int r;

        CHECK(data);
        memset(data, 't', size);
        while ((r = pwrite_full(layer_draft_toc_fd(l), data, size, 0)) < 0) {
                error_errno(&e, -r, "writing");
                CHECK(layer_draft_move_out(l, r, &e));
                CHECK(e.kind == ERROR_NONE && !*e.message);
                moves++;
        }
        return moves;
}

static bool has_toc(struct store *s, const char *kind, size_t size)
{
        struct digest d = digest_x();
        int fd = store_layer_toc(s, &d, kind);
        struct stat st;
        bool has;

        if (fd < 0)
                return false;
        has = fstat(fd, &st) == 0 && (size_t) st.st_size == size;
        close(fd);
        return has;
}

static bool is_in_memory(int fd)
{
        char path[40], target[200];
        ssize_t n;

        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        n = readlink(path, target, sizeof(target) - 1);
        CHECK(n > 0);
        target[n] = '\0';
        return strstr(target, "memfd:");
}

#define NEEDS_MOUNTS "no root with a mount namespace"

/* ---- tables of contents ---- */

static void full_from_the_start(const struct place *p)
{
        struct store *s = open_on_small_disk(p, "64k");
        struct layer_draft *l;

        use_temporary_directory(p->store);
        fill_disk(p->store);
        l = begin(s, "plain");
        CHECK(write_toc(l, 100000) == 1);
        CHECK(is_in_memory(layer_draft_toc_fd(l)));
        CHECK(!has_toc(s, "plain", 100000));
        CHECK(layer_draft_publish(l, NULL) == 0);
        layer_draft_free(l);
        CHECK(has_toc(s, "plain", 100000));
        CHECK(entries(below(p, "tmp")) == 0 && entries(below(p, "layers")) == 0);
        store_close(s);
        CHECK(store_open(p->store, &s, NULL) == 0);
        CHECK(!has_toc(s, "plain", 100000));
        store_close(s);
}

static void toc_without_room_is_found_until_the_store_is_closed(void **state)
{
        run_in_child(full_from_the_start, *state, NEEDS_MOUNTS);
}

static void full_on_the_way(const struct place *p)
{
        struct store *s = open_on_small_disk(p, "128k");
        struct layer_draft *l = begin(s, "plain");
        struct error e = ERROR_INIT;
        int fd = layer_draft_toc_fd(l);
        char data[4096], back[4096];
        uint64_t end = 0;

        use_temporary_directory(p->store);
        for (int r = 0; r == 0; end += sizeof(data)) {
                memset(data, 'a' + (int) (end / sizeof(data) % 26), sizeof(data));
                r = pwrite_full(fd, data, sizeof(data), end);
                if (r == 0)
                        continue;
                CHECK(r == -ENOSPC && end > 0);
                CHECK(layer_draft_move_out(l, r, &e));
                CHECK(layer_draft_toc_fd(l) == fd && is_in_memory(fd));
                CHECK(pwrite_full(fd, data, sizeof(data), end) == 0);
        }
        for (uint64_t k = 0; k < end; k += sizeof(data)) {
                memset(data, 'a' + (int) (k / sizeof(data) % 26), sizeof(data));
                CHECK(pread_full(fd, back, sizeof(back), k) == 0 && memcmp(data, back, sizeof(data)) == 0);
        }
        CHECK(layer_draft_publish(l, NULL) == 0);
        layer_draft_free(l);
        CHECK(has_toc(s, "plain", end));
        CHECK(entries(below(p, "tmp")) == 0);
        store_close(s);
}

static void what_was_written_before_the_disk_was_full_comes_along(void **state)
{
        run_in_child(full_on_the_way, *state, NEEDS_MOUNTS);
}

static void room_elsewhere(const struct place *p)
{
        char other[300];
        struct store *s = open_on_small_disk(p, "64k");
        struct layer_draft *l;

        snprintf(other, sizeof(other), "%s/other", p->path);
        make_small_disk(other, "256k");
        use_temporary_directory(other);
        fill_disk(p->store);
        l = begin(s, "plain");
        CHECK(write_toc(l, 100000) == 1);
        CHECK(!is_in_memory(layer_draft_toc_fd(l)));
        /* Until that is full as well. */
        CHECK(write_toc(l, 500000) == 1);
        CHECK(is_in_memory(layer_draft_toc_fd(l)));
        CHECK(layer_draft_publish(l, NULL) == 0);
        layer_draft_free(l);
        CHECK(has_toc(s, "plain", 500000));
        store_close(s);
}

static void temporary_directory_on_another_disk_spares_memory(void **state)
{
        run_in_child(room_elsewhere, *state, NEEDS_MOUNTS);
}

static void content_is_in_the_way(const struct place *p)
{
        struct store *s = open_on_small_disk(p, "1m");
        struct layer_draft *l = begin(s, "plain");
        _cleanup_free_ char *data = malloc(600 * KIB);
        struct stat st;

        CHECK(data);
        memset(data, 'c', 600 * KIB);
        CHECK(layer_draft_append(l, data, 600 * KIB, NULL) == 0);
        CHECK(layer_draft_chunk(l, 0, 600 * KIB, 1, NULL) == 0);
        CHECK(write_toc(l, 500000) == 1);
        CHECK(layer_draft_publish(l, NULL) == 0);
        layer_draft_free(l);
        CHECK(lstat(below(p, LAYER "/toc"), &st) == 0 && st.st_size == 500000);
        CHECK(lstat(below(p, LAYER "/content"), &st) == 0 && st.st_size == 600 * KIB && st.st_blocks == 0);
        store_close(s);
}

static void content_of_a_pass_makes_room_for_its_toc(void **state)
{
        run_in_child(content_is_in_the_way, *state, NEEDS_MOUNTS);
}

static void set_write_bits(const struct place *p, bool on)
{
        static const char *const names[] = { "", "tmp", "blobs", "refs", "layers", "images" };

        for (size_t k = 0; k < ELEMENTSOF(names); k++)
                CHECK(chmod(below(p, names[k]), on ? 0700 : 0500) == 0);
}

static void closed_on_the_way(const struct place *p)
{
        struct digest d = digest_x();
        struct layer_draft *begun, *later;
        struct store *s = NULL;
        struct error e = ERROR_INIT;

        become_nobody();
        CHECK(store_open(p->store, &s, NULL) == 0);
        begun = begin(s, "plain");
        CHECK(write_toc(begun, 1000) == 0);
        set_write_bits(p, false);
        CHECK(layer_draft_publish(begun, &e) == 0 && has_toc(s, "plain", 1000));
        layer_draft_free(begun);
        later = begin(s, "other");
        CHECK(write_toc(later, 2000) == 0);
        CHECK(layer_draft_publish(later, &e) == 0 && has_toc(s, "other", 2000));
        layer_draft_free(later);
        CHECK(store_layer_remove(s, &d, "other", &e) == 0 && !has_toc(s, "other", 2000));
        CHECK(entries(below(p, "layers")) == 0);
        set_write_bits(p, true);
        store_close(s);
}

static void toc_of_a_store_that_may_not_be_written_any_more_is_found(void **state)
{
        struct place *p = *state;

        place_give(p);
        run_in_child(closed_on_the_way, p, NULL);
}

static void too_much_of_it(const struct place *p)
{
        struct store *s = open_on_small_disk(p, "64k");
        struct layer_draft *l;
        struct error e = ERROR_INIT;

        use_temporary_directory(p->store);
        fill_disk(p->store);
        l = begin(s, "large");
        CHECK(write_toc(l, 100000) == 1);
        CHECK(ftruncate(layer_draft_toc_fd(l), (off_t) STORE_OUTSIDE_MAX) == 0); /* a hole: it takes no memory */
        CHECK(layer_draft_publish(l, NULL) == 0);
        layer_draft_free(l);
        l = begin(s, "plain");
        CHECK(write_toc(l, 100000) == 1);
        CHECK(layer_draft_publish(l, &e) == -ENOSPC && strstr(e.message, p->store));
        layer_draft_free(l);
        store_close(s);
}

static void what_lies_outside_is_bounded(void **state)
{
        run_in_child(too_much_of_it, *state, NEEDS_MOUNTS);
}

/* ---- the image index, blobs and refs ---- */

static void an_index_without_room(const struct place *p)
{
        struct store *s = open_on_small_disk(p, "64k");
        struct store_draft d = STORE_DRAFT_INIT;
        struct error e = ERROR_INIT;
        char byte = 0;
        int fd, r;

        use_temporary_directory(p->store);
        CHECK(store_draft_begin(s, &d, NULL) == 0 && d.place == DRAFT_INSIDE);
        fill_disk(p->store);
        r = pwrite_full(d.fd, "index", 5, 8192);
        CHECK(r == -ENOSPC && store_draft_move_out(&d, r, &e) && d.place == DRAFT_MEMORY);
        CHECK(pwrite_full(d.fd, "index", 5, 8192) == 0);
        fd = fcntl(d.fd, F_DUPFD_CLOEXEC, 0);
        CHECK(store_draft_publish_image(&d, "key", &e) == 0);
        CHECK(store_image_open(s, "key") == -ENOENT);
        CHECK(pread_full(fd, &byte, 1, 8192) == 0 && byte == 'i');
        CHECK(entries(below(p, "tmp")) == 0);
        close(fd);
        store_close(s);
}

static void image_index_without_room_stays_with_who_has_it_open(void **state)
{
        run_in_child(an_index_without_room, *state, NEEDS_MOUNTS);
}

static void only_what_is_the_stores_fault(const struct place *p)
{
        static const int others[] = { ENOMEM, EMFILE, ENFILE, EBADMSG, ECANCELED, EINVAL };
        struct store_draft d = STORE_DRAFT_INIT;
        struct error e = ERROR_INIT;
        struct store *s = NULL;

        CHECK(store_open(p->store, &s, NULL) == 0);
        CHECK(store_draft_begin(s, &d, NULL) == 0);
        for (size_t k = 0; k < ELEMENTSOF(others); k++) {
                error_errno(&e, others[k], "cause");
                CHECK(!store_draft_move_out(&d, -others[k], &e));
                CHECK(d.place == DRAFT_INSIDE && e.code == others[k]);
        }
        store_draft_clear(&d);
        store_close(s);
}

static void what_is_not_the_stores_fault_stays_an_error(void **state)
{
        run_in_child(only_what_is_the_stores_fault, *state, NULL);
}

static void asked_to_keep_all(const struct place *p)
{
        struct store *s = open_on_small_disk(p, "64k");
        struct layer_draft *l = begin(s, "plain");
        struct store_draft d = STORE_DRAFT_INIT;
        struct digest digest = digest_x();
        struct error e = ERROR_INIT;
        int r;

        use_temporary_directory("/dev/shm");
        store_keep_all(s);
        fill_disk(p->store);
        r = pwrite_full(layer_draft_toc_fd(l), "toc", 3, 0);
        CHECK(r == -ENOSPC);
        error_errno(&e, -r, "writing the TOC");
        CHECK(!layer_draft_move_out(l, r, &e));
        CHECK(e.code == ENOSPC && strstr(e.message, p->store) && strstr(e.message, "No space left"));
        layer_draft_free(l);

        r = store_blob_put(s, &digest, "x", 1, &e);
        CHECK(r == -ENOSPC && store_forgo(s, r, &e) == -ENOSPC && strstr(e.message, p->store));
        CHECK(store_draft_begin(s, &d, &e) == 0); /* a name needs no room on a tmpfs */
        store_draft_clear(&d);
        store_close(s);
}

static void store_that_is_to_keep_all_says_what_it_cannot_take(void **state)
{
        run_in_child(asked_to_keep_all, *state, NEEDS_MOUNTS);
}

static size_t count_lines(const char *path, const char *text)
{
        _cleanup_buf_ struct buf b = { 0 };
        size_t count = 0;

        CHECK(file_read(AT_FDCWD, path, 1 * MIB, &b, NULL) == 0);
        for (char *line = b.data, *end; line && *line; line = end ? end + 1 : NULL) {
                end = strchr(line, '\n');
                if (end)
                        *end = '\0';
                count += strstr(line, text) != NULL;
        }
        return count;
}

static void many_failures(const struct place *p)
{
        struct store *s = open_on_small_disk(p, "64k");
        struct digest digest = digest_x();
        struct error e = ERROR_INIT;
        char path[300];
        int r;

        snprintf(path, sizeof(path), "%s/log", p->path);
        CHECK(log_open(LOG_LEVEL_WARNING, path, NULL) == 0);
        use_temporary_directory(p->store);
        fill_disk(p->store);
        for (int k = 0; k < 3; k++) {
                struct layer_draft *l = begin(s, "plain");

                CHECK(write_toc(l, 100000) == 1 && layer_draft_publish(l, NULL) == 0);
                layer_draft_free(l);
                r = store_blob_put(s, &digest, "x", 1, &e);
                CHECK(r == -ENOSPC && store_forgo(s, r, &e) == 0);
        }
        CHECK(count_lines(path, "") == 1);
        CHECK(count_lines(path, p->store) == 1 && count_lines(path, "No space left") == 1);
        store_close(s);
}

static void it_is_said_once(void **state)
{
        run_in_child(many_failures, *state, NEEDS_MOUNTS);
}

/* ---- no room for the store itself ---- */

static void no_room_for_directories(const struct place *p)
{
        struct digest digest = digest_x();
        struct error e = ERROR_INIT;
        struct layer_draft *l;
        struct store *s = NULL;
        char inside[1100];

        private_mounts();
        CHECK(mkdir(p->store, 0700) == 0);
        CHECK(mount("tmpfs", p->store, "tmpfs", 0, "mode=700,nr_inodes=3") == 0);
        use_temporary_directory("/dev/shm");

        /* Room for two of its directories. */
        CHECK(store_open(p->store, &s, &e) == 0);
        CHECK(store_blob_put(s, &digest, "x", 1, &e) == -ENOSPC && strstr(e.message, p->store));
        l = begin(s, "plain");
        CHECK(write_toc(l, 1000) == 0 && layer_draft_publish(l, NULL) == 0 && has_toc(s, "plain", 1000));
        layer_draft_free(l);
        store_keep_all(s);
        CHECK(store_forgo(s, -ENOSPC, &e) == -ENOSPC);
        s = store_close(s);

        /* None for the one that it is. */
        snprintf(inside, sizeof(inside), "%s/of/its/own", p->store);
        CHECK(store_open(inside, &s, &e) == -ENOSPC && strstr(e.message, inside));
        CHECK(store_open_all(inside, NULL, &s, &e) == 0);
        CHECK(str_eq(store_path(s), inside));
        CHECK(store_blob_put(s, &digest, "x", 1, &e) == -ENOSPC && strstr(e.message, inside));
        l = begin(s, "plain");
        CHECK(write_toc(l, 1000) == 0 && layer_draft_publish(l, NULL) == 0 && has_toc(s, "plain", 1000));
        layer_draft_free(l);
        store_close(s);
}

static void store_without_room_for_its_directories_is_empty(void **state)
{
        run_in_child(no_room_for_directories, *state, NEEDS_MOUNTS);
}

/* ---- maps ---- */

#define MANY 8192

static void look_at_a_whole_map(const struct place *p)
{
        _cleanup_free_ struct chunk *rows = calloc(MANY, sizeof(*rows));
        struct chunk_table table = { .chunks = rows, .chunk_count = MANY, .content_size = MANY };
        struct store *s = open_on_small_disk(p, "1m");
        struct digest d = digest_x();
        struct content *c = NULL;

        CHECK(rows);
        for (size_t k = 0; k < MANY; k++)
                rows[k] = (struct chunk) { .content_offset = k, .content_length = 1, .codec = CODEC_STORED };
        CHECK(content_open(s, &d, "plain", &table, &c, NULL) == 0 && content_keeps(c));
        fill_disk(p->store);
        for (size_t k = 0; k < MANY; k++)
                CHECK(!content_has(c, k));
        content_close(c);
        store_close(s);
}

static void map_can_be_read_when_the_disk_is_full(void **state)
{
        run_in_child(look_at_a_whole_map, *state, NEEDS_MOUNTS);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, place_setup, place_teardown)
        const struct CMUnitTest tests[] = {
                TEST(toc_without_room_is_found_until_the_store_is_closed),
                TEST(what_was_written_before_the_disk_was_full_comes_along),
                TEST(temporary_directory_on_another_disk_spares_memory),
                TEST(content_of_a_pass_makes_room_for_its_toc),
                TEST(toc_of_a_store_that_may_not_be_written_any_more_is_found),
                TEST(what_lies_outside_is_bounded),
                TEST(image_index_without_room_stays_with_who_has_it_open),
                TEST(what_is_not_the_stores_fault_stays_an_error),
                TEST(store_that_is_to_keep_all_says_what_it_cannot_take),
                TEST(it_is_said_once),
                TEST(store_without_room_for_its_directories_is_empty),
                TEST(map_can_be_read_when_the_disk_is_full),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
