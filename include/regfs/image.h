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

/* The same for those who fill the store: what it cannot take is an error. */
int image_open_to_keep(const char *reference, const struct regfs_options *options, struct image **ret, struct error *e);

/* Waits for flights under way. No read may be pending. NULL is legal. */
struct image *image_close(struct image *i);
DEFINE_CLEANUP(struct image *, image_close)

/* Where the table of contents comes from by which a layer is read. */
enum index_origin {
        INDEX_FROM_LAYER,    /* a pass over its own bytes */
        INDEX_FROM_TABLE,    /* the layer carries it, and the image's manifest has its digest */
        INDEX_FROM_MANIFEST, /* a published index that the image's manifest binds */
        INDEX_FROM_REFERRER, /* a published index that names the image; nothing in the image names it */
        INDEX_FROM_USER,     /* the published index that --index names */
};

/* Opens an image by tables that its layers carry and by TOCs that regfs makes of them itself: what `regfs index` is
 * for. With OPTIONS->index "none", by the latter alone. What the store cannot take is an error. */
int image_open_for_index(const char *reference, const struct regfs_options *options, struct image **ret,
                         struct error *e);

/* An image as far as its manifest tells: no layer is read, there is no tree, and only image_layer_info and the
 * functions that return text may be asked. */
int image_inspect(const char *reference, const struct regfs_options *options, struct image **ret, struct error *e);

struct image_layer_info {
        struct digest digest;
        uint64_t size;          /* of the blob, in bytes */
        const char *media_type; /* borrowed, as all of these, from the image */
        const char *kind;       /* "plain", "estargz-<hex>", "zstdchunked-<hex>", "regfs-<hex>", "soci-<hex>" */
        enum index_origin origin;
        struct digest index; /* of the published index's manifest; algorithm DIGEST_NONE where there is none */
        bool known;          /* its TOC is in the store */
        /* Of an open image: */
        uint32_t entries;
        size_t chunks;
        uint64_t toc_size; /* bytes of the TOC file */
        uint64_t index_ms; /* what its TOC took to make or to fetch; 0: it was known */
};

/* Layers, lowest first. */
size_t image_layer_count(const struct image *i);
void image_layer_info(const struct image *i, size_t k, struct image_layer_info *ret);

/* Publishes the TOCs of the layers that were indexed by their own bytes, as an index of the image (published.h). */
struct publish_options {
        const char *output; /* directory of an OCI layout; NULL: beside the image, as its referrer */
        const char *bind; /* reference in the image's registry, under which a manifest is pushed that is the image's own
                             * but for an annotation that names the index; or NULL */
};

struct publish_result {
        size_t layers;       /* that the index has; 0: there was nothing to publish, all of them carry a table */
        uint64_t bytes;      /* of their TOCs, compressed */
        struct digest index; /* its manifest */
        struct digest bound; /* the manifest that binds it */
};

/* I is open. 0, or -errno with E: -EACCES where the registry does not let us push. */
int image_publish(struct image *i, const struct publish_options *options, struct publish_result *ret, struct error *e);

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
