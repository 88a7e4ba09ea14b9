/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Manifests, indexes and configs of images (image-spec manifest.md, image-index.md, config.md; docker's schema 2),
 * parsed strictly, and the choice of a platform. */

#include "regfs/blob.h"

struct platform {
        char *os;
        char *architecture; /* GOARCH names: amd64, arm64, arm, … */
        char *variant;      /* "v7", or NULL */
};

void platform_clear(struct platform *p);
#define _cleanup_platform_ _cleanup_(platform_clear)

/* "os/arch[/variant]", normalised (aarch64 → arm64, armhf → arm/v7, x86_64 → amd64 …). -EINVAL (USAGE) with E. */
int platform_parse(const char *s, struct platform *ret, struct error *e);
int platform_host(struct platform *ret);
char *platform_format(const struct platform *p);

enum manifest_kind {
        MANIFEST_IMAGE,
        MANIFEST_INDEX,
};

#define MANIFEST_LAYERS_MAX 1024

struct manifest {
        enum manifest_kind kind;
        struct descriptor config;  /* image */
        struct descriptor *layers; /* image: lowest first; at least one */
        size_t layer_count;
        struct descriptor *manifests; /* index */
        size_t manifest_count;
        char **annotations;    /* as in struct descriptor */
        char *artifact_type;   /* of an artifact: artifactType, else the config's media type; NULL for an image */
        struct digest subject; /* of an artifact; algorithm DIGEST_NONE: none */
};

void manifest_clear(struct manifest *m);
#define _cleanup_manifest_ _cleanup_(manifest_clear)

/* Returns 0, or -errno with E naming the document and the cause: schema 1 ("…is a schema 1 manifest, which registries
 * stopped serving…"), both layers and manifests, a mediaType that contradicts, an artifact that is no container image
 * (artifactType, unknown config type), 0 layers, a layer of unknown media type, too many layers: kind BAD_DATA. */
int manifest_parse(const struct document *document, const char *name, struct manifest *ret, struct error *e);

/* The manifest of an artifact (image-spec manifest.md "Guidelines for Artifact Usage"): an image manifest whose config
 * and layers may be of any media type. The config may be absent, the layers too. Otherwise as manifest_parse. */
int manifest_parse_artifact(const struct document *document, const char *name, struct manifest *ret, struct error *e);

/* Which entry of an index suits WANTED: exact, else a lower variant (arm v8→v7→v6→v5, amd64 v3→v2→v1), never another
 * architecture. Entries with an artifactType, attestations and unknown media types are never chosen; entries that
 * are indexes themselves are (nested). -ENOENT (NOT_FOUND) with E that lists what there is. */
int manifest_choose(const struct manifest *index, const struct platform *wanted, const char *name, size_t *ret_entry,
                    struct error *e);

/* The platform that a config document states. */
int config_platform(const struct buf *config, const char *name, struct platform *ret, struct error *e);
