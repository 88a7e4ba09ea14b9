/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* System calls carried to their end: no short reads, no EINTR. Lengths in bytes; all return 0 or -errno. */

#include <sys/types.h>

#include "regfs/base.h"
#include "regfs/error.h"
#include "regfs/text.h"

/* Exactly N bytes; a file that ends before gives -ENODATA. */
int read_full(int fd, void *data, size_t n);
int pread_full(int fd, void *data, size_t n, uint64_t offset);

int write_full(int fd, const void *data, size_t n);
int pwrite_full(int fd, const void *data, size_t n, uint64_t offset);

/* The first SIZE bytes of FROM, to the same place in TO. */
int copy_full(int from, int to, uint64_t size);

/* Appends the whole file to *B; -EFBIG past MAX bytes. AT may be AT_FDCWD. E names the path. */
int file_read(int at, const char *path, size_t max, struct buf *b, struct error *e);

/* Creates directory PATH and its missing parents with MODE. Existing directories are fine. */
int make_directories(const char *path, mode_t mode, struct error *e);

/* $TMPDIR, else /var/tmp: where what is too large for memory lies for a while. */
const char *temporary_directory(void);

/* A file without a name in there, to be written and read; it is gone when it is closed. A descriptor, or -errno with
 * E. */
int temporary_file(struct error *e);

/* True when all N bytes are zero. Fast. */
bool bytes_are_zero(const void *data, size_t n);
