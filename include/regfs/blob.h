/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Where an image's bytes come from: a registry, an OCI image layout, a docker archive, behind one small interface.
 * A source yields manifests and blobs; a blob yields ranges of its bytes into pool buffers.
 *
 * Nothing here verifies layers: whoever reads a range checks it (fetch, index). Manifests and other documents that are
 * read whole are verified against their digest here. Sources and blobs are thread-safe; calls block, so they are never
 * made from a FUSE thread or the transfer thread. */

#include <stdatomic.h>

#include "regfs/base.h"
#include "regfs/digest.h"
#include "regfs/error.h"
#include "regfs/pool.h"
#include "regfs/text.h"
#include "regfs/thread.h"

#define MANIFEST_MAX (4 * MIB)

/* image-spec descriptor.md. Owned strings. */
struct descriptor {
        struct digest digest;
        uint64_t size;
        char *media_type;    /* without parameters; "" when absent */
        char *artifact_type; /* or NULL */
        char **urls;         /* NULL-terminated, or NULL */
        char **annotations;  /* key, value, key, value …, NULL-terminated, or NULL */
        uint8_t *data;       /* inlined content, verified, or NULL */
        size_t data_size;
        char *os, *architecture, *variant; /* of an index entry's platform, or NULL */
};

void descriptor_clear(struct descriptor *d);
#define _cleanup_descriptor_ _cleanup_(descriptor_clear)
int descriptor_copy(const struct descriptor *d, struct descriptor *ret);

/* The value of an annotation, or NULL. */
const char *descriptor_annotation(const struct descriptor *d, const char *key);

struct blob;
struct blob_range;

struct blob_ops {
        int (*range_open)(struct blob *b, uint64_t offset, uint64_t length, struct pool_buf *buffer, size_t at,
                          uint64_t patience_ms, struct blob_range **ret, struct error *e);
        int (*range_wait)(struct blob_range *r, uint64_t n, uint64_t *ret_received, struct error *e);
        struct blob_range *(*range_close)(struct blob_range *r);
        unsigned (*doubt)(struct blob *b); /* NULL: it says the same again */
        struct blob *(*free)(struct blob *b);
};

struct blob {
        const struct blob_ops *ops;
        struct digest digest;
        uint64_t size;
        char *name; /* for errors and logs: "sha256:… of docker.io/library/alpine" */
};

struct blob_range {
        struct blob *blob;
};

static inline struct blob *blob_free(struct blob *b)
{
        return b ? b->ops->free(b) : NULL;
}
DEFINE_CLEANUP(struct blob *, blob_free)

/* Begins to read [offset, offset + length) of the blob into BUFFER from position AT; the range keeps its own
 * reference on BUFFER as long as anything may write to it, also past range_close. It is given up when no byte has
 * arrived for PATIENCE_MS, with all retries: a slow link is no error, a dead one is. Returns 0, or -errno with E. */
static inline int blob_range_open(struct blob *b, uint64_t offset, uint64_t length, struct pool_buf *buffer, size_t at,
                                  uint64_t patience_ms, struct blob_range **ret, struct error *e)
{
        return b->ops->range_open(b, offset, length, buffer, at, patience_ms, ret, e);
}

/* Waits until the first N bytes of the range (N ≤ length) are in the buffer. All patience is in here: broken
 * connections, 429 and 5xx, expired tokens, redirects that expired and mirrors that died are tried again from where
 * the bytes ended, until the patience ends. *ret_received ≥ N on success. One thread at a time. Returns 0 or -errno
 * with E that names blob, range, host and cause. */
static inline int blob_range_wait(struct blob_range *r, uint64_t n, uint64_t *ret_received, struct error *e)
{
        return r->blob->ops->range_wait(r, n, ret_received, e);
}

/* NULL is legal. Returns NULL. Does not wait for the transfer. */
static inline struct blob_range *blob_range_close(struct blob_range *r)
{
        return r ? r->blob->ops->range_close(r) : NULL;
}
DEFINE_CLEANUP(struct blob_range *, blob_range_close)

/* What the blob brought last is wrong: from now on somebody else is asked first, where there is somebody else. Returns
 * how many times in all it makes sense to ask anew before one gives up. */
static inline unsigned blob_doubt(struct blob *b)
{
        return b->ops->doubt ? b->ops->doubt(b) : 0;
}

/* Reads on through a long stretch of a blob. */
struct blob_stream {
        struct blob *blob;
        struct pool
                *pool; /* two windows of BLOB_WINDOW bytes come out of it, in one buffer; less for a short stretch */
        uint64_t timeout_ms; /* without progress */
        atomic_bool *cancel; /* ends it with -ECANCELED when set; or NULL */
};
#define BLOB_WINDOW (4 * MIB)

/* Calls PIECE for the bytes [offset, end) of the blob, in order and as they arrive; one window is consumed while the
 * next one travels. A PIECE is borrowed for the call; what it returns, unless 0, ends the stream. Returns 0, that,
 * or -errno with E. */
typedef int blob_piece_fn(void *context, uint64_t offset, const uint8_t *data, size_t n, struct error *e);
int blob_stream(const struct blob_stream *s, uint64_t offset, uint64_t end, blob_piece_fn *piece, void *context,
                struct error *e);

/* A manifest or an index as the source gave it, verified. */
struct document {
        struct buf body;
        char *media_type;     /* as served or as the body says; without parameters */
        struct digest digest; /* of the body */
};

void document_clear(struct document *d);
#define _cleanup_document_ _cleanup_(document_clear)

struct source;

struct source_ops {
        int (*resolve)(struct source *s, deadline_t deadline, struct digest *ret, struct error *e);
        int (*manifest)(struct source *s, const struct digest *digest, deadline_t deadline, struct document *ret,
                        struct error *e);
        int (*blob)(struct source *s, const struct descriptor *descriptor, struct blob **ret, struct error *e);
        /* NULL: this kind of source has none */
        int (*referrers)(struct source *s, const struct digest *subject, deadline_t deadline, struct descriptor **ret,
                         size_t *ret_count, struct error *e);
        struct source *(*free)(struct source *s);
};

struct source {
        const struct source_ops *ops;
        char *name; /* canonical reference, for errors and logs */
};

static inline struct source *source_free(struct source *s)
{
        return s ? s->ops->free(s) : NULL;
}
DEFINE_CLEANUP(struct source *, source_free)

/* The digest that the reference stands for now (its own digest, a tag's: HEAD, else GET). One small request at most. */
static inline int source_resolve(struct source *s, deadline_t deadline, struct digest *ret, struct error *e)
{
        return s->ops->resolve(s, deadline, ret, e);
}

/* The manifest or index of that digest, verified against it; DIGEST NULL: what the reference stands for. */
static inline int source_manifest(struct source *s, const struct digest *digest, deadline_t deadline,
                                  struct document *ret, struct error *e)
{
        return s->ops->manifest(s, digest, deadline, ret, e);
}

/* A blob of the image; no request is made yet. The blob keeps nothing of DESCRIPTOR and must not outlive the source. */
static inline int source_blob(struct source *s, const struct descriptor *descriptor, struct blob **ret, struct error *e)
{
        return s->ops->blob(s, descriptor, ret, e);
}

/* The manifests that name SUBJECT as their subject, as their descriptors say: artifact type, annotations. A registry
 * is asked for its referrers, page by page, and where it does not know that (404) for the index at the fallback tag
 * "<algorithm>-<hex>" (distribution-spec "Listing Referrers"): the endpoint that served last, a mirror or the registry
 * itself, and no other; a layout is searched for manifests with that subject.
 * Nothing in the answer is bound by the image's digest. None is no error: *ret_count is 0 and *ret NULL. At most
 * REFERRERS_MAX are taken. The caller frees with descriptors_free. */
#define REFERRERS_MAX 4096
static inline int source_referrers(struct source *s, const struct digest *subject, deadline_t deadline,
                                   struct descriptor **ret, size_t *ret_count, struct error *e)
{
        *ret = NULL;
        *ret_count = 0;
        return s->ops->referrers ? s->ops->referrers(s, subject, deadline, ret, ret_count, e) : 0;
}
void descriptors_free(struct descriptor *items, size_t count);

/* The fallback tag of SUBJECT into OUT, at least REFERRERS_TAG_MAX bytes: "sha256-<64 hex digits>"; of a longer digest
 * the first 64 digits. Returns OUT. */
#define REFERRERS_TAG_MAX (sizeof("sha512-") + 64)
char *referrers_tag(const struct digest *subject, char *out);

/* A small blob (config, TOC …) whole and verified: at most MAX bytes. Inlined data is used where the descriptor has
 * it. */
int source_blob_read(struct source *s, const struct descriptor *descriptor, struct pool *pool, size_t max,
                     deadline_t deadline, struct buf *ret, struct error *e);

/* The image REF of a registry that is not asked, because the user said so: everything that would be, manifests, blobs,
 * bytes of a blob, is an error (NOT_FOUND) that names it and says that it is not in the store. */
struct reference;
int offline_source_new(const struct reference *ref, struct source **ret, struct error *e);

/* oci:DIR[:TAG]. Reads index.json. Which manifest is meant is decided when somebody asks for it (resolve, manifest of
 * digest NULL): without a tag there must be one image then. Blobs are files. */
int layout_source_new(const char *directory, const char *tag, struct source **ret, struct error *e);

/* docker-archive:FILE[:REF]. manifest.json of `docker save` (and the layout inside that newer dockers write). Its image
 * manifest is made from it; layers are verified by their diff_id. */
int archive_source_new(const char *file, const char *tag, struct source **ret, struct error *e);
