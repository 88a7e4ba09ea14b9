/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Where artifacts are published: a repository of a registry, or a directory with an OCI image layout. A target takes
 * small blobs and manifests that are whole in memory (a published index has no others), and puts nothing there twice.
 *
 * Thread-safe; calls block and have the patience of a read: what is worth trying again is tried again until their
 * deadline. */

#include "regfs/blob.h"

struct target;

struct target_ops {
        int (*blob)(struct target *t, const struct digest *digest, const void *data, size_t n, deadline_t deadline,
                    struct error *e);
        int (*take_blob)(struct target *t, const struct descriptor *blob, const char *repository, deadline_t deadline,
                         struct error *e);
        int (*manifest)(struct target *t, const char *tag, const char *media_type, const void *data, size_t n,
                        deadline_t deadline, struct error *e);
        int (*attach)(struct target *t, const struct digest *subject, const struct descriptor *artifact,
                      deadline_t deadline, struct error *e);
        struct target *(*free)(struct target *t);
};

struct target {
        const struct target_ops *ops;
        char *name; /* for errors and logs */
};

static inline struct target *target_free(struct target *t)
{
        return t ? t->ops->free(t) : NULL;
}
DEFINE_CLEANUP(struct target *, target_free)

/* Puts a blob there unless it is. DIGEST is that of the N bytes at DATA. 0 or -errno with E: -EACCES (DENIED) where
 * the registry wants other credentials or none may push. */
static inline int target_blob(struct target *t, const struct digest *digest, const void *data, size_t n,
                              deadline_t deadline, struct error *e)
{
        return t->ops->blob(t, digest, data, n, deadline, e);
}

/* Makes BLOB, which REPOSITORY of the same registry has, one of the target's own (distribution-spec "Mounting a blob
 * from another repository"); nothing is done for one that is there. 0; -ENOENT with E where the registry would have it
 * uploaded (or the target is a layout without it). */
static inline int target_take_blob(struct target *t, const struct descriptor *blob, const char *repository,
                                   deadline_t deadline, struct error *e)
{
        return t->ops->take_blob(t, blob, repository, deadline, e);
}

/* Stores a manifest or index, whose blobs are there, under its digest and, unless TAG is NULL, under TAG. MEDIA_TYPE is
 * what it is served as. */
static inline int target_manifest(struct target *t, const char *tag, const char *media_type, const void *data, size_t n,
                                  deadline_t deadline, struct error *e)
{
        return t->ops->manifest(t, tag, media_type, data, n, deadline, e);
}

/* Makes ARTIFACT, a manifest that names SUBJECT as its subject and that target_manifest has stored, one that
 * source_referrers finds. A registry with the referrers API knows it from the manifest alone (it answered
 * OCI-Subject); elsewhere ARTIFACT (media type, digest, size, artifact type and annotations) is entered in the index
 * at the fallback tag (distribution-spec "Referrers Tag Schema"), beside what others have entered there; a layout has
 * it in index.json. */
static inline int target_attach(struct target *t, const struct digest *subject, const struct descriptor *artifact,
                                deadline_t deadline, struct error *e)
{
        return t->ops->attach(t, subject, artifact, deadline, e);
}

/* A layout at DIRECTORY, which is made where it is missing. Files appear whole, by rename; an index.json that others
 * write at the same time may lose what they entered. */
int layout_target_new(const char *directory, struct target **ret, struct error *e);
