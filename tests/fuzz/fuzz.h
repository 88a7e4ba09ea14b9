/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the targets share. A target is one function, which libFuzzer calls with bytes of its choice; what must hold
 * whatever they are is a REQUIRE. */

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "regfs/error.h"
#include "regfs/io.h"
#include "regfs/text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(condition)                                                                      \
        do {                                                                                    \
                if (!(condition)) {                                                             \
                        fprintf(stderr, "%s:%d: broken: %s\n", __FILE__, __LINE__, #condition); \
                        abort();                                                                \
                }                                                                               \
        } while (0)

/* A copy of its exact size, so that the address sanitizer sees any access past its end. The caller frees. */
static inline _unused_ uint8_t *exact_bytes(const void *data, size_t n)
{
        uint8_t *copy = malloc(n > 0 ? n : 1);

        REQUIRE(copy);
        if (n > 0)
                memcpy(copy, data, n);
        return copy;
}

/* The same with a NUL behind it. */
static inline _unused_ char *exact_text(const void *data, size_t n)
{
        char *copy = malloc(n + 1);

        REQUIRE(copy);
        if (n > 0)
                memcpy(copy, data, n);
        copy[n] = '\0';
        return copy;
}

/* Takes the first byte of the input; 0 where there is none. */
static inline _unused_ uint8_t take_byte(const uint8_t **data, size_t *size)
{
        if (*size == 0)
                return 0;
        --*size;
        return *(*data)++;
}

/* Takes the first line of the input, without its end, NUL-terminated. The caller frees. */
static inline _unused_ char *take_line(const uint8_t **data, size_t *size)
{
        const uint8_t *end = *size > 0 ? memchr(*data, '\n', *size) : NULL;
        size_t n = end ? (size_t) (end - *data) : *size;
        char *line = exact_text(*data, n);

        n += end != NULL;
        *data += n;
        *size -= n;
        return line;
}

static inline _unused_ int remove_one(const char *path, _unused_ const struct stat *st, _unused_ int type,
                                      _unused_ struct FTW *at)
{
        return remove(path);
}

/* A directory for this process alone, to PLACE. A process of its own waits for this one to end, however it does, and
 * removes it. */
#define PLACE_MAX 200
static inline _unused_ void make_place(char place[PLACE_MAX])
{
        const char *tmp = getenv("TMPDIR");
        int ends[2], pid;
        char byte;

        snprintf(place, PLACE_MAX, "%.150s/regfs-fuzz-XXXXXX", tmp && *tmp ? tmp : "/tmp");
        REQUIRE(mkdtemp(place) && pipe2(ends, O_CLOEXEC) == 0);
        pid = fork();
        REQUIRE(pid >= 0);
        if (pid == 0) {
                (void) setsid();
                (void) dup2(ends[0], STDIN_FILENO);
                (void) close_range(STDIN_FILENO + 1, ~0U, 0);
                (void) !read(STDIN_FILENO, &byte, 1);
                (void) nftw(place, remove_one, 16, FTW_DEPTH | FTW_PHYS);
                _exit(0);
        }
        close(ends[0]);
}

/* A file in memory. */
static inline _unused_ int memory_file(const void *data, size_t n)
{
        int fd = memfd_create("fuzz", MFD_CLOEXEC);

        REQUIRE(fd >= 0 && pwrite_full(fd, data, n, 0) == 0);
        return fd;
}

/* What to open it by. */
#define MEMORY_PATH_MAX 40
static inline _unused_ const char *memory_path(int fd, char path[MEMORY_PATH_MAX])
{
        snprintf(path, MEMORY_PATH_MAX, "/proc/self/fd/%d", fd);
        return path;
}

/* What every failure must bring: its code, and one line that can be shown. */
static inline _unused_ bool is_told(int r, const struct error *e)
{
        size_t n = strlen(e->message), at = 0;

        while (at < n && (unsigned char) e->message[at] >= 0x20 && e->message[at] != 0x7f) {
                size_t length = utf8_length(e->message + at, n - at);

                if (length == 0)
                        return false;
                at += length;
        }
        return r < 0 && e->code == -r && e->kind != ERROR_NONE && n > 0 && at == n;
}

/* Gives the header blocks of a tar the checksums that a fuzzer does not guess. */
static inline _unused_ void seal_tar_headers(uint8_t *data, size_t size)
{
        for (size_t at = 0; at + 512 <= size; at += 512) {
                unsigned sum = 8 * ' ';
                char field[16];

                if (memcmp(data + at + 257, "ustar", 5) != 0)
                        continue;
                for (size_t i = 0; i < 512; i++)
                        sum += i < 148 || i >= 156 ? data[at + i] : 0;
                snprintf(field, sizeof(field), "%06o", sum);
                memcpy(data + at + 148, field, 7);
                data[at + 155] = ' ';
        }
}
