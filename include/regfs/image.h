/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* An open image: reference → manifest → platform → layers, each with its TOC and fetcher, and the merged tree.
 * This is what regfs.h wraps, and what the FUSE operations stand on. Thread-safe once open. */

#include <sys/stat.h>

#include "regfs.h"
#include "regfs/error.h"
#include "regfs/fetch.h"
#include "regfs/toc.h"

/* libregfs's struct regfs_image. */
struct image;

int image_open(const char *reference, const struct regfs_options *options, struct image **ret, struct error *e);

/* Waits for flights under way. No read may be pending. NULL is legal. */
struct image *image_close(struct image *i);
DEFINE_CLEANUP(struct image *, image_close)

const struct tree *image_tree(const struct image *i);
const char *image_reference(const struct image *i);
const char *image_digest(const struct image *i);
const char *image_platform(const struct image *i);

/* What stat(2) says of a row; st_dev is 0. */
void image_stat(const struct image *i, uint32_t row, struct stat *ret);

/* The parts of the file at ROW that [offset, offset + length) is made of. The range lies within the file. What no
 * part covers reads as zeros: *RET_HOLES tells whether there is any. At most MAX parts go to PARTS; returns how many
 * there are in all: when that is more than MAX, call again with more room. */
size_t image_parts(struct image *i, uint32_t row, uint64_t offset, size_t length, struct fetch_part *parts, size_t max,
                   bool *ret_holes);

/* Figures of pool and workers into the log, at debug. */
void image_log_stats(struct image *i);
