/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the files of fs/image share. */

#include <stdatomic.h>

#include "regfs/client.h"
#include "regfs/image.h"
#include "regfs/index.h"
#include "regfs/manifest.h"
#include "regfs/published.h"

/* What a layer is called in the store that is indexed by reading it whole. */
#define KIND_PLAIN "plain"

/* One layer of an open image. Several rows may name one digest: they share the first one's parts. */
struct image_layer {
        struct descriptor descriptor;
        char kind[LAYER_KIND_MAX];
        struct blob *blob;
        struct toc *toc;
        struct store *toc_store; /* that has it; borrowed from the image's */
        struct content *content;
        struct fetcher *fetcher;
        struct recovery *recovery; /* where a published index may turn out wrong; or NULL */
        size_t same_as;            /* index of the first layer with this digest; its own when it is the first */
        enum index_origin origin;
        const struct descriptor *table; /* of the image's published index, where that has the layer's TOC */
        uint64_t index_ms;              /* what its TOC took to make or to fetch; 0: it was known */
};

/* What --index says. */
enum index_mode {
        INDEX_AUTO,
        INDEX_NONE,      /* the layers alone */
        INDEX_EMBEDDED,  /* and what they carry: for making an index of the others */
        INDEX_REFERRERS, /* what lies beside the image, also for a reference by digest */
        INDEX_NAMED,     /* the index that a reference names */
};

struct image {
        char *reference;
        char *digest_text;
        char *platform_text;
        struct reference name; /* what was opened, with its host */
        struct digest digest;  /* of the image manifest */
        uint64_t timeout_ms;
        atomic_bool closing;
        bool offline;  /* the registry is not asked */
        bool indexing; /* for others: no TOC of another user's store is used */
        enum index_mode index_mode;
        char *index_reference; /* INDEX_NAMED */

        struct store *store;
        struct pool *pool;
        struct workers *workers;
        struct http *http;
        struct registries *registries;
        struct client *client;
        struct source *source;

        struct keepsakes *keepsakes;   /* until the config is begun */
        struct config_reading *config; /* while the image is being opened */
        pthread_t warming;             /* likewise: makes ready what decodes, if IS_WARMING */
        bool is_warming;
        struct published published;  /* the index that lies beside the image and is used; or empty */
        struct source *index_source; /* where it comes from, when that is not `source` */

        struct tree *tree;
        struct image_layer *layers;
        size_t layer_count;
};

/* ---- locate.c ---- */

deadline_t image_deadline(const struct image *i);

/* What a reference turned out to name. */
struct located {
        struct source *source;
        struct reference name; /* with its host */
        char *text;            /* canonical */
        struct digest digest;
        struct document document; /* of that digest, where it came along; else empty */
};

void located_clear(struct located *l);

int image_locate(struct image *i, const char *reference, const struct regfs_options *o, struct located *ret,
                 struct error *e);

/* The document of that digest from the store, else from SOURCE; then it goes to the store. */
int image_document(struct image *i, struct source *source, const struct digest *digest, struct document *ret,
                   struct error *e);

/* Waits until what image_locate has begun beside the caller is over. */
void image_end_warming(struct image *i);

/* ---- remember.c ---- */

/* Document D goes to the store, or what TAG stands for: now, or with I->keepsakes where there are some. */
int image_remember(struct image *i, const struct document *d, struct error *e);
int image_remember_tag(struct image *i, const char *tag, const struct digest *digest, struct error *e);

/* What is to be remembered and nobody waits for. */
struct keepsakes;

int keepsakes_new(struct keepsakes **ret);
struct keepsakes *keepsakes_free(struct keepsakes *k);
int keepsakes_put(const struct keepsakes *k, struct image *i, struct error *e);

/* ---- config.c ---- */

/* Begins to read the config that DESCRIPTOR names, which it takes; beside the caller where the store does not have it.
 * Takes the keepsakes, too. WANTED is borrowed until config_end; CHOSEN: an index said that the image is for it. */
int config_begin(struct image *i, struct descriptor *descriptor, const struct platform *wanted, bool chosen,
                 struct error *e);

/* Waits until it is there. Returns 0, or what the source says. Any thread, until config_end. E is not NULL. */
int config_wait(struct image *i, struct error *e);

/* Waits for it, if it was begun, and takes the platform. Returns 0; -EBADMSG when this is no image's config; what the
 * source says. E is not NULL. */
int config_end(struct image *i, struct error *e);

/* ---- stored.c ---- */

/* Opens the TOC of L by its kind, from the first store where it is sound: sets toc and toc_store. -ENOENT when no store has
 * it; when the first store's is damaged or of another version, and no other has it: -EBADMSG or -ESTALE with E. */
int image_open_toc(struct image *i, struct image_layer *l, struct error *e);

/* Opens the image index, or merges one; sets I->tree. Every layer has its TOC. */
int image_open_tree(struct image *i, struct error *e);

/* Opens the content of L, whose TOC is open, unless it is open already. */
int image_open_content(struct image *i, struct image_layer *l, struct error *e);

/* ---- choice.c ---- */

/* Decides for every layer by which table of contents it is read: kind, origin, table. MANIFEST is the image's, whose
 * layers have been taken. May ask the registry for published indexes; what is wrong with one of them is told in the
 * log, and the layers do without, unless the user has named it. */
int image_choose_indexes(struct image *i, const struct manifest *manifest, const struct regfs_options *o,
                         struct error *e);

/* The layer is read by its own bytes, after all. */
void image_layer_set_plain(struct image_layer *l);

/* ---- layers.c ---- */

/* Makes sure that every layer has a TOC in the store, and opens it: known ones at once, the others by one pass each,
 * side by side. Calls OPTIONS->progress meanwhile. */
int image_open_layers(struct image *i, const struct regfs_options *options, struct error *e);

#define TOC_TURN_MAX (DIGEST_STRING_MAX + LAYER_KIND_MAX + 8)

/* What the turn is called to make the TOC of that kind (store_turn_try). */
void image_toc_turn(const struct image_layer *l, const char *kind, char ret_name[TOC_TURN_MAX]);

/* ---- recover.c ---- */

/* Reads a layer by its own bytes when the published index by which it is read turns out wrong. Thread-safe. */
struct recovery;

int recovery_new(struct image *image, struct image_layer *layer, struct recovery **ret, struct error *e);

/* Nobody may read any more. */
struct recovery *recovery_free(struct recovery *r);

/* A fetch_recover_fn; CONTEXT is the recovery. */
int recovery_read(void *context, uint64_t offset, size_t length, uint8_t *out, struct error *e);
