/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Where the files of a tar lie: name → offset and size. Symlinks and hardlinks between its files are followed. */

#include "regfs/error.h"

struct archive_index;

/* Reads the headers of the uncompressed tar at FD. Returns 0, or -errno with E. */
int archive_index_new(int fd, struct archive_index **ret, struct error *e);
struct archive_index *archive_index_free(struct archive_index *i);

/* The regular file PATH ("a/b"): 0, -ENOENT, or -ELOOP for links that go round. */
int archive_index_find(const struct archive_index *i, const char *path, uint64_t *ret_offset, uint64_t *ret_size);
