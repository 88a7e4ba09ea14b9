/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* How regfs cache tells of a store. Each returns 0, or -errno where standard output can't be written. */

#include "regfs/cache.h"

int print_store_info(struct store *s, const struct store_place *place, const struct cache_view *v, bool json);
int print_store_list(const struct cache_view *v, bool json);

/* "docker.io/library/alpine:edge", or the digest of an image that no reference leads to; static storage. */
const char *cache_image_name(const struct cache_image *i);
