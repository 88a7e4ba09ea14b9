/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the store holds: one look at every file of it. */

#include "store_internal.h"

struct usage_layer {
        char *path; /* "layers/sha256/<hex>/<kind>" */
        uint64_t content, rest;
        uint64_t idle_ms;
};

/* An image index or a small blob. */
struct usage_file {
        char *path;
        uint64_t size;
        uint64_t idle_ms;
};

struct usage {
        uint64_t total; /* bytes on the disk, drafts included */
        struct usage_layer *layers;
        size_t layer_count, layer_allocated;
        struct usage_file *files;
        size_t file_count, file_allocated;
};

/* Returns 0 or -ENOMEM. What vanishes meanwhile counts or doesn't. */
int usage_scan(struct store *s, struct usage *ret);
void usage_clear(struct usage *u);
#define _cleanup_usage_ _cleanup_(usage_clear)
