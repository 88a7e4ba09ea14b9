/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Does an index tell the truth about its layer? Every table of contents that was not made from the layer's own tar in
 * this store can show another tree than the one that a container runtime would unpack. `regfs verify` settles it. */

#include <stdatomic.h>

#include "regfs/image.h"
#include "regfs/toc.h"

/* ---- one tree against another ---- */

/* A difference, in words, naming the path: "etc/passwd: mode 0644, the layer's tar says 0600". Borrowed for the call.
 * Returns non-zero to hear no more. */
typedef int difference_fn(void *context, const char *text);

/* Compares TOLD, a layer's TOC, with TRUE, the one that index_layer made of the layer's own bytes, entry by entry: paths,
 * types, modes, ids, sizes, times, devices, link targets, xattrs, which names are one inode, whiteouts, opaque
 * directories. Rows and content spaces may differ: the same tree in another order is no difference. What embedded tables
 * cannot carry is none either: times are compared to the precision that TOLD has for all of its entries (whole seconds
 * or nanoseconds), and landmarks that a table hides. *RET_DIFFERENCES counts them all. 0, or -errno with E. */
int toc_compare(const struct toc *told, const struct toc *true_toc, difference_fn *report, void *context,
                uint64_t *ret_differences, struct error *e);

/* ---- an image against its layers ---- */

struct verify_options {
        difference_fn *report; /* each problem, one line that names layer, object and cause; or NULL */
        void *report_context;
        /* Blob bytes read so far, of all: for a progress bar; non-zero ends it with -ECANCELED. Or NULL. */
        int (*progress)(void *context, uint64_t done, uint64_t total);
        void *progress_context;
};

struct verify_result {
        size_t layers;
        uint64_t entries; /* compared */
        uint64_t chunks;  /* fetched, verified and compared */
        uint64_t bytes;   /* of blobs */
        uint64_t problems;
};

/* Reads every layer of the open image whole, once, from its source (into an unnamed file: the store's content is not
 * trusted here); checks its digest; makes an index of its tar; compares the tree of the TOC that the image is read by
 * with it, and for every chunk of that TOC: its digest, and that its bytes are those that the tar has for the files in
 * it. Returns 0 when all could be read, however many problems there are; -errno with E where not. */
int image_verify(struct image *i, const struct verify_options *options, struct verify_result *ret, struct error *e);
