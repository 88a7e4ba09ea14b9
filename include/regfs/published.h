/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Indexes that lie beside an image, as artifacts of their own: regfs's and SOCI's (formats.md "Our own published
 * index", "SOCI"). An artifact's manifest has one table of contents for each layer that has one; this header reads
 * such manifests, brings tables into the store, and makes manifests. Which of them an image uses, and why, is
 * fs/choice.c's to say. */

#include <stdatomic.h>

#include "regfs/blob.h"
#include "regfs/manifest.h"
#include "regfs/pool.h"
#include "regfs/store.h"
#include "regfs/toc.h"

#define PUBLISHED_TYPE "application/vnd.regfs.index.v1"
#define PUBLISHED_TOC_TYPE "application/vnd.regfs.toc.v1+zstd"
#define PUBLISHED_LAYER "dev.regfs.layer.digest"   /* on a TOC's descriptor: the layer that it is of */
#define PUBLISHED_VERSION "dev.regfs.toc.version"  /* on the manifest: TOC_VERSION */
#define PUBLISHED_BINDING "dev.regfs.index.digest" /* on an image's manifest: the index that it binds */
#define SOCI_TYPE_V1 "application/vnd.amazon.soci.index.v1+json"
#define SOCI_TYPE_V2 "application/vnd.amazon.soci.index.v2+json"
#define SOCI_BINDING "com.amazon.soci.index-digest"

enum published_format {
        PUBLISHED_NONE,
        PUBLISHED_REGFS,
        PUBLISHED_SOCI,
};

/* Which one an artifact of that type is; PUBLISHED_NONE for anything else, NULL included. */
enum published_format published_format_of(const char *artifact_type);

/* An artifact's manifest. */
struct published {
        enum published_format format;
        struct digest digest;  /* of its manifest */
        struct digest subject; /* algorithm DIGEST_NONE where it names none */
        struct manifest manifest;
};

void published_clear(struct published *p);

/* DOCUMENT as an index of either format. 0, or -EBADMSG with E that names NAME and what is wrong: no artifact of the
 * two types, a TOC of another media type or without its layer's digest, an unknown version. */
int published_parse(const struct document *document, const char *name, struct published *ret, struct error *e);

/* The table that P has of LAYER, or NULL. */
const struct descriptor *published_toc(const struct published *p, const struct digest *layer);

/* What a layer's directory in the store is called that is read by TABLE: "regfs-<hex>" or "soci-<hex>" of its
 * digest. */
void published_kind(const struct published *p, const struct descriptor *table, char ret_kind[LAYER_KIND_MAX]);

struct published_import {
        struct source *source; /* that has the table's blob */
        const struct descriptor *table;
        enum published_format format;
        struct blob *layer; /* a few bytes of it may be looked at */
        const char *kind;
        struct pool *pool;
        struct store *store;
        uint64_t timeout_ms;
        atomic_bool *cancel; /* or NULL */
        uint64_t toc_max;    /* 0: PUBLISHED_TOC_MAX */
};

#define PUBLISHED_TOC_MAX (1 * GIB) /* of a TOC file, decoded; its blob may have ZTOC_MAX */

/* Fetches a table, verifies it against its digest, checks every row, and publishes {toc, content, map} in the store,
 * all chunks absent. 0; -EBADMSG or -ESTALE with E where the table is none, is damaged, of another version or does
 * not fit the layer (its digest, its size): then the layer can still be indexed from its own bytes; -ENOENT where
 * the source does not have it. Otherwise -errno with E. */
int published_import(const struct published_import *import, struct error *e);

/* ---- making one ---- */

/* One TOC, compressed for publication. */
struct published_layer {
        struct digest layer;
        struct buf data; /* owned */
        struct digest digest;
};

/* Compresses the TOC file open at FD. */
int published_compress(int fd, const struct digest *layer, struct published_layer *ret, struct error *e);

/* The manifest of an index of the image SUBJECT (its descriptor). *RET gets the JSON. The blob of its config is
 * "{}". */
int published_manifest(const struct descriptor *subject, const struct published_layer *layers, size_t count,
                       struct buf *ret, struct error *e);

/* The image manifest DOCUMENT as one of image-spec (docker's types become OCI's) that binds INDEX by an annotation. */
int published_bind(const struct document *document, const struct digest *index, struct buf *ret, struct error *e);
