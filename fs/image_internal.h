/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the files of fs/image share. */

#include "regfs/client.h"
#include "regfs/image.h"
#include "regfs/index.h"
#include "regfs/manifest.h"

/* What a layer is called in the store that is indexed by reading it whole. */
#define KIND_PLAIN "plain"

/* One layer of an open image. Several rows may name one digest: they share the first one's parts. */
struct image_layer {
        struct descriptor descriptor;
        char kind[LAYER_KIND_MAX];
        struct blob *blob;
        struct toc *toc;
        struct content *content;
        struct fetcher *fetcher;
        size_t same_as; /* index of the first layer with this digest; its own when it is the first */
};

struct image {
        char *reference;
        char *digest_text;
        char *platform_text;
        struct digest digest; /* of the image manifest */
        uint64_t timeout_ms;

        struct store *store;
        struct pool *pool;
        struct workers *workers;
        struct http *http;
        struct registries *registries;
        struct client *client;
        struct source *source;

        struct tree *tree;
        struct image_layer *layers;
        size_t layer_count;
};

/* Makes sure that every layer has a TOC in the store, and opens it: known ones at once, the others by one pass each,
 * side by side. Calls OPTIONS->progress meanwhile. */
int image_open_layers(struct image *i, const struct regfs_options *options, struct error *e);
