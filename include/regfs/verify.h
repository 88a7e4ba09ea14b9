/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Does an index tell the truth about its layer? Every table of contents that was not made from the layer's own tar in
 * this store can show another tree than the one that a container runtime would unpack. `regfs verify` settles it. */

#include "regfs/image.h"
#include "regfs/toc.h"

/* ---- one tree against another ---- */

/* A difference, in words, naming the path: "etc/passwd: mode 0644 in the table, 0600 in the tar". Borrowed for the
 * call. Returns non-zero to hear no more. */
typedef int difference_fn(void *context, const char *text);

/* Compares TOLD, a layer's TOC, with TRUE_TOC, the one that index_layer made of the layer's own bytes, name by name:
 * types, modes, ids, sizes, times, devices, link targets, xattrs, which names are one inode, whiteouts, opaque
 * directories. Rows and content spaces may differ: the same tree in another order is no difference. What is in one tree
 * alone is one difference, with all that lies below it; so are two of another type at one name. Both TOCs are sound
 * (toc_check).
 *
 * What embedded tables cannot carry is no difference:
 * - Times are compared to the precision that TOLD has: where all of its entries have whole seconds, a fraction may have
 *   been cut off or rounded.
 * - In the root, TRUE_TOC alone may have the files that hold the table and its landmarks: "stargz.index.json", and
 *   ".prefetch.landmark" and ".no.prefetch.landmark" of one byte. image_verify looks into them.
 *
 * A directory that no entry of the tar names, but an entry of the table, is a difference even where the attributes are
 * the same: above another layer, the one shows the lower directory's attributes and the other its own. No producer
 * known makes such entries.
 *
 * REPORT may be NULL. *RET_DIFFERENCES counts them all, heard or not. 0, or -ENOMEM with E. */
int toc_compare(const struct toc *told, const struct toc *true_toc, difference_fn *report, void *context,
                uint64_t *ret_differences, struct error *e);

/* ---- an image against its layers ---- */

/* The functions are called from the thread that called image_verify. */
struct verify_options {
        difference_fn *report; /* each problem, one line that names layer, object and cause; or NULL */
        void *report_context;
        uint64_t report_max; /* of one layer; one more line then says how many there are besides. 0: all */
        /* How far it is, for a progress bar: layers are gone over three times (received, indexed, compared), and the
         * bytes of all three are counted. Non-zero ends it with -ECANCELED. Or NULL. */
        int (*progress)(void *context, uint64_t done, uint64_t total);
        void *progress_context;
};

struct verify_result {
        size_t layers;    /* distinct ones */
        uint64_t entries; /* names compared */
        uint64_t chunks;  /* read, verified and decoded */
        uint64_t bytes;   /* of blobs */
        uint64_t problems;
};

/* Reads every layer of the open image whole, once, from its source (into an unnamed file in temporary_directory: the
 * store's content is not trusted here); checks its digest; makes an index of its tar, beside the file, which takes as
 * much room as the layer's content; compares the tree of the TOC that the image is read by with it (toc_compare), and
 * for every chunk of that TOC: its digest, and that its bytes are those that the tar has for the files in it. One layer
 * after the other; what was written for one is gone before the next one. Returns 0 when all could be read, however many
 * problems there are; -errno with E where not. */
int image_verify(struct image *i, const struct verify_options *options, struct verify_result *ret, struct error *e);
