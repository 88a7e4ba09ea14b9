/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "regfs/io.h"

static char directory[4096];

static int make_directory(void **state _unused_)
{
        const char *parent = getenv("TMPDIR");

        (void) snprintf(directory, sizeof(directory), "%s/regfs-io-XXXXXX", parent ? parent : "/tmp");
        return mkdtemp(directory) ? 0 : -1;
}

static int remove_directory(void **state _unused_)
{
        pid_t pid = fork();
        int status;

        if (pid == 0) {
                execlp("rm", "rm", "-rf", "--", directory, (char *) NULL);
                _exit(127);
        }
        return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0 ? 0 : -1;
}

static char *path_of(const char *name)
{
        char *path = str_printf("%s/%s", directory, name);

        assert_non_null(path);
        return path;
}

static void write_file(const char *name, const char *data, size_t n)
{
        _cleanup_free_ char *path = path_of(name);
        _cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

        assert_true(fd >= 0);
        assert_int_equal(write_full(fd, data, n), 0);
}

/* Writes to a pipe byte by byte, so that every read of the parent is short. */
static int start_slow_writer(const char *data, size_t n, pid_t *ret)
{
        int fds[2];
        pid_t pid;

        assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
                for (size_t k = 0; k < n; k++)
                        if (write(fds[1], data + k, 1) != 1)
                                _exit(1);
                _exit(0);
        }
        close(fds[1]);
        *ret = pid;
        return fds[0];
}

static void wait_for(pid_t pid)
{
        int status;

        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
}

static void short_reads_are_carried_on(void **state _unused_)
{
        char data[8] = "";
        pid_t pid;
        _cleanup_close_ int fd = start_slow_writer("abcdefg", 7, &pid);

        assert_int_equal(read_full(fd, data, 7), 0);
        assert_string_equal(data, "abcdefg");
        assert_int_equal(read_full(fd, data, 1), -ENODATA);
        wait_for(pid);
}

static void end_within_a_read_is_no_data(void **state _unused_)
{
        _cleanup_free_ char *path = path_of("seven");
        _cleanup_close_ int fd = -1;
        char data[8];

        write_file("seven", "abcdefg", 7);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        assert_int_equal(pread_full(fd, data, 8, 0), -ENODATA);
        assert_int_equal(pread_full(fd, data, 1, 7), -ENODATA);
        assert_int_equal(pread_full(fd, data, 0, 100), 0);
        assert_int_equal(pread_full(fd, data, 3, 4), 0);
        assert_memory_equal(data, "efg", 3);
        assert_int_equal(read_full(fd, data, 8), -ENODATA);
        assert_int_equal(read_full(-1, data, 1), -EBADF);
}

static void offset_past_what_the_kernel_counts_is_refused(void **state _unused_)
{
        _cleanup_free_ char *path = path_of("offset");
        _cleanup_close_ int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        char c = 'x';

        assert_int_equal(pread_full(fd, &c, 1, UINT64_MAX), -EOVERFLOW);
        assert_int_equal(pwrite_full(fd, &c, 1, (uint64_t) INT64_MAX + 1), -EOVERFLOW);
}

static void written_bytes_are_where_they_belong(void **state _unused_)
{
        _cleanup_free_ char *path = path_of("written");
        _cleanup_close_ int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        char data[8];

        assert_int_equal(pwrite_full(fd, "efg", 3, 4), 0);
        assert_int_equal(write_full(fd, "abcd", 4), 0);
        assert_int_equal(pread_full(fd, data, 7, 0), 0);
        assert_memory_equal(data, "abcdefg", 7);
        assert_int_equal(write_full(-1, "a", 1), -EBADF);
        assert_int_equal(pwrite_full(-1, "a", 1, 0), -EBADF);
}

static void full_device_is_an_error(void **state _unused_)
{
        _cleanup_close_ int fd = open("/dev/full", O_WRONLY | O_CLOEXEC);

        assert_int_equal(write_full(fd, "a", 1), -ENOSPC);
}

static void file_is_appended_whole(void **state _unused_)
{
        const size_t sizes[] = { 0, 1, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, 300 * KIB };

        for (size_t k = 0; k < ELEMENTSOF(sizes); k++) {
                _cleanup_free_ char *data = calloc(1, sizes[k] + 1), *path = path_of("whole");
                _cleanup_buf_ struct buf b = { 0 }, exact = { .max = sizes[k] + 1 };
                struct error e = ERROR_INIT;

                assert_non_null(data);
                for (size_t i = 0; i < sizes[k]; i++)
                        data[i] = (char) (i * 31 >> 3);
                write_file("whole", data, sizes[k]);
                assert_int_equal(buf_append_char(&b, '<'), 0);
                assert_int_equal(file_read(AT_FDCWD, path, sizes[k], &b, &e), 0);
                assert_int_equal(b.len, sizes[k] + 1);
                assert_int_equal(b.data[0], '<');
                assert_memory_equal(b.data + 1, data, sizes[k]);
                assert_int_equal(b.data[b.len], '\0');

                /* The buffer's own cap has room for the file, and for nothing more. */
                assert_int_equal(buf_append_char(&exact, '<'), 0);
                assert_int_equal(file_read(AT_FDCWD, path, SIZE_MAX, &exact, &e), 0);
                assert_int_equal(exact.len, sizes[k] + 1);
        }
}

static void file_past_the_bound_leaves_the_buffer_alone(void **state _unused_)
{
        _cleanup_buf_ struct buf b = { 0 }, capped = { .max = 5 };
        _cleanup_free_ char *path = path_of("large");
        struct error e = ERROR_INIT;

        write_file("large", "abcdefg", 7);
        assert_int_equal(buf_append_str(&b, "<"), 0);
        assert_int_equal(file_read(AT_FDCWD, path, 6, &b, &e), -EFBIG);
        assert_int_equal(e.kind, ERROR_BAD_DATA);
        assert_non_null(strstr(e.message, path));
        assert_string_equal(b.data, "<");
        assert_int_equal(b.len, 1);
        assert_int_equal(file_read(AT_FDCWD, path, 100, &capped, &e), -EFBIG);
        assert_int_equal(capped.len, 0);
}

static void endless_file_ends_at_the_bound(void **state _unused_)
{
        _cleanup_buf_ struct buf b = { 0 };

        assert_int_equal(file_read(AT_FDCWD, "/dev/zero", 200000, &b, NULL), -EFBIG);
        assert_int_equal(b.len, 0);
}

static void unreadable_file_is_named_with_its_cause(void **state _unused_)
{
        _cleanup_buf_ struct buf b = { 0 };
        _cleanup_free_ char *path = path_of("absent");
        struct error e = ERROR_INIT;

        assert_int_equal(file_read(AT_FDCWD, path, 10, &b, &e), -ENOENT);
        assert_int_equal(e.kind, ERROR_NOT_FOUND);
        assert_non_null(strstr(e.message, path));
        assert_true(str_ends_with(e.message, ": No such file or directory"));
        assert_int_equal(file_read(AT_FDCWD, directory, 10, &b, &e), -EISDIR);
        assert_int_equal(b.len, 0);
}

static void file_is_found_below_an_open_directory(void **state _unused_)
{
        _cleanup_close_ int at = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        _cleanup_buf_ struct buf b = { 0 };

        write_file("below", "x", 1);
        assert_int_equal(file_read(at, "below", 10, &b, NULL), 0);
        assert_string_equal(b.data, "x");
}

static void assert_is_directory(const char *path, mode_t mode)
{
        struct stat st;

        assert_int_equal(stat(path, &st), 0);
        assert_true(S_ISDIR(st.st_mode));
        assert_int_equal(st.st_mode & 07777, mode);
}

static void parents_are_made_and_existing_ones_kept(void **state _unused_)
{
        _cleanup_free_ char *deep = path_of("a//b/c/"), *a = path_of("a"), *b = path_of("a/b"),
                            *other = path_of("a/b/d");
        struct error e = ERROR_INIT;

        assert_int_equal(make_directories(deep, 0700, &e), 0);
        assert_is_directory(a, 0700);
        assert_is_directory(deep, 0700);
        assert_int_equal(chmod(b, 0750), 0);
        assert_int_equal(make_directories(deep, 0700, &e), 0);
        assert_int_equal(make_directories(other, 0700, &e), 0);
        assert_is_directory(b, 0750);
        assert_int_equal(make_directories("/", 0700, &e), 0);
}

static void link_to_a_directory_is_one(void **state _unused_)
{
        _cleanup_free_ char *target = path_of("target"), *link = path_of("link"), *below = path_of("link/below");
        struct error e = ERROR_INIT;

        assert_int_equal(mkdir(target, 0700), 0);
        assert_int_equal(symlink(target, link), 0);
        assert_int_equal(make_directories(below, 0700, &e), 0);
        assert_is_directory(below, 0700);
}

static void file_in_the_way_is_no_directory(void **state _unused_)
{
        _cleanup_free_ char *path = path_of("file"), *below = path_of("file/x"), *dangling = path_of("dangling");
        struct error e = ERROR_INIT;

        write_file("file", "", 0);
        assert_int_equal(make_directories(path, 0700, &e), -ENOTDIR);
        assert_non_null(strstr(e.message, path));
        assert_int_equal(make_directories(below, 0700, &e), -ENOTDIR);
        assert_int_equal(symlink("nowhere", dangling), 0);
        assert_int_equal(make_directories(dangling, 0700, &e), -EEXIST);
}

static void path_without_end_or_beginning_is_refused(void **state _unused_)
{
        char path[5000];
        struct error e = ERROR_INIT;

        memset(path, 'x', sizeof(path));
        path[sizeof(path) - 1] = '\0';
        assert_int_equal(make_directories(path, 0700, &e), -ENAMETOOLONG);
        assert_int_equal(make_directories("", 0700, &e), -ENOENT);
}

static void any_other_byte_is_not_zero(void **state _unused_)
{
        for (size_t n = 0; n < 200; n++) {
                _cleanup_free_ uint8_t *data = calloc(1, n + 1), *exact = malloc(n + 1);

                assert_non_null(data);
                assert_non_null(exact);
                assert_true(bytes_are_zero(data + 1, n));
                for (size_t k = 0; k < n; k++) {
                        data[1 + k] = 1;
                        assert_false(bytes_are_zero(data + 1, n));
                        data[1 + k] = 0;
                }
                memset(exact, 7, n + 1);
                assert_true(bytes_are_zero(exact, n) == (n == 0));
        }
}

static void temporary_file_has_no_name_where_tmpdir_says(void **state _unused_)
{
        _cleanup_free_ char *before = getenv("TMPDIR") ? strdup(getenv("TMPDIR")) : NULL, *place = path_of("tmp");
        struct error e = ERROR_INIT;
        struct stat st;
        int fd, r;

        assert_int_equal(mkdir(place, 0700), 0);
        assert_int_equal(setenv("TMPDIR", place, 1), 0);
        assert_string_equal(temporary_directory(), place);
        fd = temporary_file(&e);
        assert_true(fd >= 0);
        assert_int_equal(pwrite_full(fd, "x", 1, 0), 0);
        assert_int_equal(fstat(fd, &st), 0);
        assert_int_equal(st.st_nlink, 0);
        assert_int_equal(st.st_mode & 07777, 0600);
        close(fd);

        /* Nothing lies in it. */
        assert_int_equal(rmdir(place), 0);
        r = temporary_file(&e);
        assert_int_equal(r, -ENOENT);
        assert_non_null(strstr(e.message, place));

        assert_int_equal(setenv("TMPDIR", "", 1), 0);
        assert_string_equal(temporary_directory(), "/var/tmp");
        assert_int_equal(before ? setenv("TMPDIR", before, 1) : unsetenv("TMPDIR"), 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(short_reads_are_carried_on),
                cmocka_unit_test(end_within_a_read_is_no_data),
                cmocka_unit_test(offset_past_what_the_kernel_counts_is_refused),
                cmocka_unit_test(written_bytes_are_where_they_belong),
                cmocka_unit_test(full_device_is_an_error),
                cmocka_unit_test(file_is_appended_whole),
                cmocka_unit_test(file_past_the_bound_leaves_the_buffer_alone),
                cmocka_unit_test(endless_file_ends_at_the_bound),
                cmocka_unit_test(unreadable_file_is_named_with_its_cause),
                cmocka_unit_test(file_is_found_below_an_open_directory),
                cmocka_unit_test(parents_are_made_and_existing_ones_kept),
                cmocka_unit_test(link_to_a_directory_is_one),
                cmocka_unit_test(file_in_the_way_is_no_directory),
                cmocka_unit_test(path_without_end_or_beginning_is_refused),
                cmocka_unit_test(any_other_byte_is_not_zero),
                cmocka_unit_test(temporary_file_has_no_name_where_tmpdir_says),
        };

        return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
