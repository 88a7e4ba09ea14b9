/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Names of images. Registry references follow the grammar of distribution/reference; the other transports are
 * those of containers-transports(5).
 *
 *     [docker://]NAME[:TAG][@DIGEST]     a registry
 *     oci:DIR[:TAG]                      an OCI image layout (image-spec image-layout.md)
 *     docker-archive:FILE[:REF]          what `docker save` writes */

#include "regfs/base.h"
#include "regfs/digest.h"
#include "regfs/error.h"

enum transport {
        TRANSPORT_REGISTRY,
        TRANSPORT_OCI_LAYOUT,
        TRANSPORT_DOCKER_ARCHIVE,
};

/* Owned strings, NULL where absent. */
struct reference {
        enum transport transport;
        char *host;       /* registry: "docker.io", "localhost:5000", "[::1]:5000"; NULL: a short name, unresolved */
        char *repository; /* "library/alpine" once the host is known */
        char *path;       /* layout: directory; archive: file */
        char *tag;        /* registry: NULL only together with a digest, otherwise "latest" by default;
                            * layout: org.opencontainers.image.ref.name; archive: NAME:TAG */
        bool has_digest;  /* tag and digest together: the digest decides */
        struct digest digest;
};

void reference_clear(struct reference *r);
#define _cleanup_reference_ _cleanup_(reference_clear)

/* Returns 0, or -EINVAL (kind USAGE) with E that quotes the reference and says what is wrong with it. A name without
 * a host stays short (host NULL, repository as written): registries.conf decides, registries_resolve.
 * index.docker.io becomes docker.io. An archive's REF keeps its spelling, just ":latest" is added to one without
 * tag. */
int reference_parse(const char *s, struct reference *ret, struct error *e);

int reference_copy(const struct reference *r, struct reference *ret);

/* The canonical text: "docker.io/library/alpine:edge", "oci:DIR:TAG" … The caller frees; NULL when out of memory. */
char *reference_format(const struct reference *r);

/* Gives a short name its host: sets host and puts "library/" before a single-component repository of docker.io.
 * Returns 0, -ENOMEM, -EINVAL for what is no host or when R has one, -ENAMETOOLONG when "library/" does not fit; R is
 * unchanged then. */
int reference_set_host(struct reference *r, const char *host);
