/* SPDX-License-Identifier: Apache-2.0 */

#include "regfs/io.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#define READ_STEP (64 * KIB)
#define COPY_STEP (256 * KIB)

int read_full(int fd, void *data, size_t n)
{
        uint8_t *p = data;

        while (n > 0) {
                ssize_t k = read(fd, p, n);

                if (k < 0 && errno == EINTR)
                        continue;
                if (k < 0)
                        return -errno;
                if (k == 0)
                        return -ENODATA;
                p += k;
                n -= (size_t) k;
        }
        return 0;
}

int pread_full(int fd, void *data, size_t n, uint64_t offset)
{
        uint8_t *p = data;

        while (n > 0) {
                ssize_t k;

                if (offset > INT64_MAX)
                        return -EOVERFLOW;
                k = pread(fd, p, n, (off_t) offset);
                if (k < 0 && errno == EINTR)
                        continue;
                if (k < 0)
                        return -errno;
                if (k == 0)
                        return -ENODATA;
                p += k;
                n -= (size_t) k;
                offset += (uint64_t) k;
        }
        return 0;
}

int write_full(int fd, const void *data, size_t n)
{
        const uint8_t *p = data;

        while (n > 0) {
                ssize_t k = write(fd, p, n);

                if (k < 0 && errno == EINTR)
                        continue;
                if (k <= 0)
                        return k < 0 ? -errno : -EIO;
                p += k;
                n -= (size_t) k;
        }
        return 0;
}

int pwrite_full(int fd, const void *data, size_t n, uint64_t offset)
{
        const uint8_t *p = data;

        while (n > 0) {
                ssize_t k;

                if (offset > INT64_MAX)
                        return -EOVERFLOW;
                k = pwrite(fd, p, n, (off_t) offset);
                if (k < 0 && errno == EINTR)
                        continue;
                if (k <= 0)
                        return k < 0 ? -errno : -EIO;
                p += k;
                n -= (size_t) k;
                offset += (uint64_t) k;
        }
        return 0;
}

int copy_full(int from, int to, uint64_t size)
{
        _cleanup_free_ uint8_t *step = malloc(COPY_STEP);
        int r = step ? 0 : -ENOMEM;

        for (uint64_t done = 0; r == 0 && done < size;) {
                size_t n = (size_t) MIN(size - done, (uint64_t) COPY_STEP);

                r = pread_full(from, step, n, done);
                if (r == 0)
                        r = pwrite_full(to, step, n, done);
                done += n;
        }
        return r;
}

/* As read(2), without EINTR: the bytes read, 0 at the end, or -errno. */
static ssize_t read_some(int fd, void *data, size_t n)
{
        for (;;) {
                ssize_t k = read(fd, data, n);

                if (k >= 0)
                        return k;
                if (errno != EINTR)
                        return -errno;
        }
}

/* Appends the rest of the file, of at most MAX bytes. */
static int read_rest(int fd, size_t max, struct buf *b)
{
        if (b->max > 0)
                max = MIN(max, b->max - b->len);
        for (;;) {
                size_t step = MIN(READ_STEP, max);
                char beyond;
                ssize_t n;
                int r;

                if (max == 0) {
                        n = read_some(fd, &beyond, 1);
                        return n > 0 ? -EFBIG : (int) n;
                }
                r = buf_reserve(b, step);
                if (r < 0)
                        return r;
                n = read_some(fd, b->data + b->len, step);
                if (n <= 0)
                        return (int) n;
                b->len += (size_t) n;
                b->data[b->len] = '\0';
                max -= (size_t) n;
        }
}

int file_read(int at, const char *path, size_t max, struct buf *b, struct error *e)
{
        _cleanup_close_ int fd = openat(at, path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
        size_t start = b->len;
        int r;

        if (fd < 0)
                return error_errno(e, errno, "%s", path);
        r = read_rest(fd, max, b);
        if (r == 0)
                r = buf_reserve(b, 0); /* an empty file, too, is terminated */
        if (r == 0)
                return 0;
        b->len = start;
        if (b->data)
                b->data[start] = '\0';
        if (r == -EFBIG)
                return error_set(e, ERROR_BAD_DATA, EFBIG, "%s: larger than %zu bytes", path, max);
        return error_errno(e, -r, "%s", path);
}

/* Returns 0 or -errno; a directory that is there already is fine. */
static int make_directory(const char *path, mode_t mode)
{
        struct stat st;
        int r;

        if (mkdir(path, mode) == 0)
                return 0;
        r = -errno;
        if (stat(path, &st) < 0)
                return r;
        if (S_ISDIR(st.st_mode))
                return 0;
        return r == -EEXIST ? -ENOTDIR : r;
}

int make_directories(const char *path, mode_t mode, struct error *e)
{
        char part[PATH_MAX];
        size_t n = strlen(path);

        if (n == 0 || n >= sizeof(part))
                return error_errno(e, n == 0 ? ENOENT : ENAMETOOLONG, "cannot create directory %s", path);
        memcpy(part, path, n + 1);
        for (size_t k = 1; k <= n; k++) {
                int r;

                if (path[k] != '/' && path[k] != '\0')
                        continue;
                part[k] = '\0';
                r = make_directory(part, mode);
                if (r < 0)
                        return error_errno(e, -r, "cannot create directory %s", part);
                part[k] = path[k];
        }
        return 0;
}

const char *temporary_directory(void)
{
        const char *directory = getenv("TMPDIR");

        return directory && *directory ? directory : "/var/tmp";
}

int temporary_file(struct error *e)
{
        const char *directory = temporary_directory();
        _cleanup_free_ char *path = NULL;
        int fd;

        fd = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
        if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR)) {
                path = str_printf("%s/regfs-XXXXXX", directory);
                if (!path)
                        return error_oom(e);
                fd = mkostemp(path, O_CLOEXEC);
                if (fd >= 0)
                        (void) unlink(path);
        }
        return fd >= 0 ? fd : error_errno(e, errno, "%s: a temporary file", directory);
}

bool bytes_are_zero(const void *data, size_t n)
{
        const uint8_t *p = data;

        if (n == 0)
                return true;
        /* The first is zero, and each equals the one before: memcmp compares with the widest loads there are. */
        return p[0] == 0 && memcmp(p, p + 1, n - 1) == 0;
}
