/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The store as people think of it: images, the layers that they share, what of their content is there; its check against
 * everything that it has digests of; and what is taken out of it to make room. What `regfs cache` stands on.
 *
 * Safe beside mounts and other processes that use the store. None of this asks a registry anything. */

#include "regfs/inventory.h"

struct cache_layer {
        const struct inventory_item *item; /* NULL: an image is made of it, and it is not there */
        struct digest digest;
        char kind[LAYER_KIND_MAX];
        bool in_use;
        int64_t used;
        size_t images; /* that are made of it */

        bool usable; /* its TOC can be opened; what follows is 0 where not */
        uint64_t blob_size;
        uint64_t entries;
        uint64_t chunks, chunks_present; /* but for those of zeros */
        uint64_t bytes, bytes_present;   /* of content, decoded, but for chunks of zeros */
};

/* An image index. One manifest has several when its layers were read by different tables. */
struct cache_image {
        struct inventory_item *item;
        bool usable; /* it can be opened; what follows is empty where not */
        struct digest manifest;
        char *platform;    /* NULL where the store no longer has manifest or config */
        char **references; /* tags that led to it when they were last resolved; sorted */
        size_t reference_count;
        size_t *layers; /* rows of `layers`, lowest first, each once */
        size_t layer_count;
        bool in_use;
        int64_t used;
};

/* Pointers are into one another: not to be copied. */
struct cache_view {
        struct inventory
                inventory; /* blobs, refs and image indexes: as last used, and in use, as the image they are of */
        struct cache_layer *layers; /* sorted by digest and kind; those that are not there behind the others */
        size_t layer_count, layer_allocated;
        struct cache_image *images;
        size_t image_count, image_allocated;
};

/* MOUNTED: manifests of images that are mounted, as the mount table tells: where locks don't work nobody else knows.
 * An image is in use when it is one of them, or all of its layers are in use. 0, or -errno with E. */
int cache_read(struct store *s, const struct digest *mounted, size_t mounted_count, struct cache_view *ret,
               struct error *e);
void cache_view_clear(struct cache_view *v);
#define _cleanup_cache_view_ _cleanup_(cache_view_clear)

/* What all layers of an image take, and of that what no other image shares. */
void cache_image_size(const struct cache_view *v, const struct cache_image *i, struct inventory_size *ret_all,
                      struct inventory_size *ret_own);

/* ---- verification ---- */

/* PATH is below the store, TEXT says what is wrong with it; REMOVED: it is thrown out. For the call. */
typedef void cache_report_fn(void *context, const char *path, const char *text, bool removed);

struct cache_verify_options {
        cache_report_fn *report;
        void *report_context;
        /* Bytes, about. Non-zero ends it with -ECANCELED. Or NULL. */
        int (*progress)(void *context, uint64_t done, uint64_t total);
        void *progress_context;
};

struct cache_verify_result {
        uint64_t layers, images, blobs, refs; /* looked at */
        uint64_t chunks, bytes;               /* of content, read */
        uint64_t problems;
        uint64_t removed; /* of the problems: what was wrong is gone */
};

/* Reads everything that the store has and compares it: chunks that the map says are there with their checksums and, where
 * the TOC has one, the SHA-256 of their content; TOCs and image indexes with their checksums, and row by row; blobs with
 * their digests; refs with their form. Throws out what is wrong: of content the chunk alone. 0, however many problems
 * there are; -errno with E when it could not go on. */
int cache_verify(struct store *s, const struct cache_verify_options *options, struct cache_verify_result *ret,
                 struct error *e);

/* ---- removal ---- */

struct cache_prune_options {
        bool everything;      /* whatever its age */
        bool even_in_use;     /* what is in use, too: who uses it goes on without loss but of cached content */
        int64_t older_than_s; /* not used for so long; negative: whatever its age stays */
        uint64_t max_size;    /* bytes on the disk: layers go, least recently used first; UINT64_MAX: no bound */

        /* Each item that is gone, and why. */
        void (*report)(void *context, const struct inventory_item *item, const char *why);
        void *report_context;
};

struct cache_prune_result {
        size_t removed[INVENTORY_KINDS];
        uint64_t freed; /* bytes of the disk */
        uint64_t left;  /* bytes of the disk, without what is foreign */
        size_t in_use;  /* layers and image indexes that would have gone */
};

/* Takes out the drafts of processes that are dead, what is wanted by OPTIONS, and image indexes that have lost all of
 * their layers by it. Drafts of the living stay, and what is foreign. Items that can't
 * be removed don't keep the others from it: the first error is returned behind them. */
int cache_prune(struct store *s, struct cache_view *v, const struct cache_prune_options *options,
                struct cache_prune_result *ret, struct error *e);
