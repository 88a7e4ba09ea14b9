/* SPDX-License-Identifier: Apache-2.0 */

/* What the store makes of the filesystem below it, and how it treats one where other machines write. Stores that lie on
 * such filesystems are in tests/integration/test_oddfs.py. */

#include <sys/mman.h>

#include "cache/store/store_internal.h"
#include "content_fixture.h"
#include "regfs/io.h"

#define filesystem_test(function) cmocka_unit_test_setup_teardown(function, layer_setup, layer_teardown)

/* ---- mappings ---- */

static void file_of_a_local_filesystem_is_mapped(void **state)
{
        struct layer *l = *state;
        char path[256];
        const void *map = NULL;
        int fd;

        snprintf(path, sizeof(path), "%s/file", l->place.path);
        write_file(path, "before", 6);
        fd = open(path, O_RDWR | O_CLOEXEC);
        assert_true(fd >= 0);
        assert_int_equal(store_map_file(fd, 6, &map), 0);
        assert_memory_equal(map, "before", 6);
        assert_int_equal(pwrite(fd, "behind", 6, 0), 6);
        assert_memory_equal(map, "behind", 6);
        munmap((void *) map, 6);
        close(fd);
}

/* The files of /proc can be read and not be mapped, and their filesystem is none that holds stores. */
static void file_of_any_other_filesystem_is_copied(_unused_ void **state)
{
        int fd = open("/proc/version", O_RDONLY | O_CLOEXEC);
        const void *map = NULL;
        char text[1000];
        ssize_t n;

        assert_true(fd >= 0);
        n = pread(fd, text, sizeof(text), 0);
        assert_true(n > 0);
        assert_ptr_equal(mmap(NULL, (size_t) n, PROT_READ, MAP_SHARED, fd, 0), MAP_FAILED);
        assert_int_equal(store_map_file(fd, (size_t) n, &map), 0);
        assert_memory_equal(map, text, n);
        munmap((void *) map, (size_t) n);
        /* What is not there to be copied. */
        map = NULL;
        assert_int_equal(store_map_file(fd, 100000, &map), -ENODATA);
        assert_int_equal(store_map_file(fd, (size_t) 5 * GIB, &map), -EFBIG);
        assert_null(map);
        close(fd);
}

static void filesystem_has_the_name_of_the_mount_table(_unused_ void **state)
{
        int fd = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        char name[40] = "";

        assert_true(fd >= 0);
        assert_int_equal(store_name_filesystem(fd, name, sizeof(name)), 0);
        assert_string_equal(name, "proc");
        close(fd);
        assert_int_equal(store_name_filesystem(fd, name, sizeof(name)), -EBADF);
}

static void file_without_fsync_needs_none(_unused_ void **state)
{
        int fds[2];

        assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
        assert_int_equal(store_sync(fds[1]), 0);
        close(fds[0]);
        close(fds[1]);
        assert_int_equal(store_sync(fds[1]), -EBADF);
}

static void store_that_is_added_is_looked_at(void **state)
{
        struct layer *l = *state;
        char other[256];

        layer_open_store(l);
        snprintf(other, sizeof(other), "%s/other", l->place.path);
        assert_int_equal(mkdir(other, 0700), 0);
        assert_int_equal(store_add(l->store, other, NULL), -ENOENT);
        strcat(other, "/layers");
        assert_int_equal(mkdir(other, 0700), 0);
        *strrchr(other, '/') = '\0';
        assert_int_equal(store_add(l->store, other, NULL), 0);
        assert_false(store_at(l->store, 1)->remote);
        assert_false(atomic_load(&store_at(l->store, 1)->locks));
}

/* ---- content where other machines write ---- */

static struct content *open_remote(struct layer *l)
{
        layer_open_store(l);
        l->store->remote = true;
        atomic_store(&l->store->locks, false);
        return open_content(l);
}

static void every_part_reads_as_it_was_written(void **state)
{
        struct layer *l = *state;
        struct content *c = open_remote(l);

        for (size_t i = 0; i < CHUNKS; i++)
                assert_int_equal(content_write(c, i, bytes_of(l, i)), 0);
        for (uint64_t offset = 0; offset < CONTENT_SIZE; offset += 3989) {
                assert_true(reads(l, c, offset, 1));
                assert_true(reads(l, c, offset, MIN((size_t) 70001, CONTENT_SIZE - offset)));
        }
        assert_true(reads(l, c, 0, CONTENT_SIZE));
        content_close(c);
}

/* Another machine wrote a page whose other half is a chunk that this one had verified before. */
static void chunk_is_verified_each_time(void **state)
{
        static const uint8_t zeros[100];
        struct layer *l = *state;
        struct content *c = open_remote(l);
        uint64_t word;

        for (size_t i = 0; i < CHUNKS; i++)
                assert_int_equal(content_write(c, i, bytes_of(l, i)), 0);
        assert_true(reads_chunk(l, c, 1));
        word = peek_word(l, 1);
        poke(l, CONTENT, 5000, zeros, sizeof(zeros));

        assert_int_equal(read_result(c, 20000, 10), -EAGAIN);
        assert_int_equal(read_chunk_result(l, c, 1), -EAGAIN);
        assert_false(content_has(c, 1));
        assert_true(reads_chunk(l, c, 0));
        assert_true(reads_chunk(l, c, 3));
        /* To others it may be right. */
        assert_int_equal(peek_word(l, 1), word);

        assert_int_equal(content_write(c, 1, bytes_of(l, 1)), 0);
        assert_true(reads(l, c, 0, CONTENT_SIZE));
        content_close(c);
}

/* The word that this machine knows is older than the bytes. */
static void word_is_looked_at_again(void **state)
{
        struct layer *l = *state;
        struct content *c;

        layer_open_store(l);
        c = open_content(l);
        assert_int_equal(content_write(c, 0, bytes_of(l, 0)), 0);
        content_close(c);
        poke_word(l, 0, 0x123457);
        l->store->remote = true;
        c = open_content(l);
        poke_word(l, 0, hash_of(l, 0) | 1);
        assert_true(reads_chunk(l, c, 0));
        content_close(c);
}

static void chunk_that_cannot_be_read_is_absent(void **state)
{
        struct layer *l = *state;
        struct content *c = open_remote(l);

        assert_int_equal(content_write(c, 3, bytes_of(l, 3)), 0);
        assert_int_equal(truncate(below(&l->place, CONTENT), 80000), 0);
        assert_int_equal(read_chunk_result(l, c, 3), -EAGAIN);
        assert_false(content_has(c, 3));
        assert_int_equal(content_write(c, 3, bytes_of(l, 3)), 0);
        assert_true(reads_chunk(l, c, 3));
        content_close(c);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                filesystem_test(file_of_a_local_filesystem_is_mapped),
                cmocka_unit_test(file_of_any_other_filesystem_is_copied),
                cmocka_unit_test(filesystem_has_the_name_of_the_mount_table),
                cmocka_unit_test(file_without_fsync_needs_none),
                filesystem_test(store_that_is_added_is_looked_at),
                filesystem_test(every_part_reads_as_it_was_written),
                filesystem_test(chunk_is_verified_each_time),
                filesystem_test(word_is_looked_at_again),
                filesystem_test(chunk_that_cannot_be_read_is_absent),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
