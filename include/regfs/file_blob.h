/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A blob that lies in a file on this machine, at an offset: of a layout, or inside a docker archive. */

#include "regfs/blob.h"

/* The descriptor FD becomes the blob's, also on failure. NAME is copied. */
int file_blob_new(int fd, uint64_t start, const struct digest *digest, uint64_t size, const char *name,
                  struct blob **ret, struct error *e);
