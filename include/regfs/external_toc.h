/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Tables of contents that lie beside an image: those of its eStargz layers whose footer names none are blobs of another
 * image, in the same repository or layout, whose tag is the image's with "-esgztoc" behind it (stargz-snapshotter,
 * docs/smaller-estargz.md). That image is a manifest whose layers are the tables, each with the annotation
 *
 *     containerd.io/snapshot/stargz/layer.digest    the layer that it is of
 *
 * for the layers of all platforms together. Nothing in it is believed: a table is used when it has the digest that
 * the layer's own descriptor says (embedded.h). */

#include "regfs/blob.h"
#include "regfs/client.h"

struct external_toc;

/* For the image at REFERENCE (canonical text). Without a tag, and out of an archive, there are no tables; a tag next to
 * a digest counts. CLIENT is borrowed and outlives it; NULL where REFERENCE is no registry's. Makes no request. */
int external_toc_new(const char *reference, struct client *client, uint64_t timeout_ms, struct external_toc **ret,
                     struct error *e);
struct external_toc *external_toc_free(struct external_toc *x);
DEFINE_CLEANUP(struct external_toc *, external_toc_free)

/* For struct embedded_options; CONTEXT is a struct external_toc. The first call fetches the manifest, and others that
 * come meanwhile wait for it: one request for all layers. Returns 0, or -ENOENT when there is no table of LAYER, or
 * when it cannot be had, which a line in the log tells. The blob must not outlive CONTEXT. Thread-safe. */
int external_toc_find(void *context, const struct digest *layer, struct blob **ret);
