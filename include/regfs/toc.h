/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Our index of one layer, and of one image: files that are opened by one mmap and one bounds check.
 *
 * Layout of both, all little-endian: struct itable_file_header {magic "REGFSTOC" or "REGFSIMG", version, header length,
 * file length, XXH3 of everything behind it, identity (layer digest, or manifest digest; blob size; content size;
 * compression)} and a table of sections {kind, element size, offset, length}, then the sections, each 8-aligned.
 * Unknown versions and sections are refused (-ESTALE: rebuild). cache/… knows nothing of these files.
 *
 * Every open verifies the XXH3, the bounds of the sections and whose file it is, and no more: a file with the right
 * checksum is one that this program wrote into a store that only its owner can write (mode 0700), and its rows were
 * sound when they were written. A file that others made, a published index, is checked row by row with toc_check, once,
 * before it goes into the store. */

#include "regfs/base.h"
#include "regfs/chunk.h"
#include "regfs/codec.h"
#include "regfs/digest.h"
#include "regfs/error.h"
#include "regfs/itable.h"

#define TOC_VERSION 3

struct toc {
        struct itable itable;
        struct chunk_table chunks;
        struct digest layer;
        enum compression compression;
        const void *map; /* private to toc.c */
        size_t map_size;
};

/* Maps the TOC file open at FD (kept by nobody: the caller closes it). LAYER must match. Returns 0; -ESTALE for another
 * version, -EBADMSG for a damaged file or another layer's, with E. */
int toc_open(int fd, const struct digest *layer, struct toc **ret, struct error *e);
struct toc *toc_close(struct toc *t);
DEFINE_CLEANUP(struct toc *, toc_close)

/* itable_check and chunk_table_check: what a TOC from outside must pass before anything else is done with it. */
int toc_check(const struct toc *t, struct error *e);

/* Writes rows FIRST, FIRST + 1, … of a TOC that toc_write is to complete: memory is then taken for a part of them at a
 * time. */
int toc_write_chunks(int fd, uint64_t first, const struct chunk *chunks, size_t count, struct error *e);

/* Writes a TOC to FD from its position 0. CHUNKS' views are read, not kept; its rows may be in the file already, all of
 * them by toc_write_chunks: then CHUNKS->chunks is NULL. */
int toc_write(int fd, const struct itable *itable, const struct chunk_table *chunks, const struct digest *layer,
              enum compression compression, struct error *e);

/* A TOC that is made from a table of contents, without a look at the layer's content: {toc, content, map} of LAYER as KIND
 * in the store, all chunks absent (store.h). Its chunk rows come in order, in pieces of any size. */
struct store;
struct toc_draft;

int toc_draft_new(struct store *s, const struct digest *layer, const char *kind, struct toc_draft **ret,
                  struct error *e);
struct toc_draft *toc_draft_free(struct toc_draft *d); /* what was not published is gone */
DEFINE_CLEANUP(struct toc_draft *, toc_draft_free)

int toc_draft_chunks(struct toc_draft *d, const struct chunk *chunks, size_t count, struct error *e);

/* With all of REST but its rows, which came before. TREE is of no use afterwards (itable.h). As layer_draft_publish. */
int toc_draft_publish(struct toc_draft *d, struct layer_tree *tree, const struct chunk_table *rest,
                      enum compression compression, struct error *e);

/* All of that at once, where CHUNKS has the rows. */
int toc_publish(struct store *s, const struct digest *layer, const char *kind, struct layer_tree *tree,
                const struct chunk_table *chunks, enum compression compression, struct error *e);

/* A layer of an image index: what its content space is called in the store. */
struct tree_layer {
        struct digest digest;
        char kind[96]; /* "plain", "estargz-<hex>" … */
        uint64_t blob_size;
        uint64_t content_size;
};

/* The image index. Row + 1 is the inode number. */
struct tree {
        struct itable itable;
        const struct tree_layer *layers; /* lowest first */
        size_t layer_count;
        struct digest manifest;
        bool has_xattrs;
        const void *map;
        size_t map_size;
};

int tree_open(int fd, const struct digest *manifest, struct tree **ret, struct error *e);
struct tree *tree_close(struct tree *t);
DEFINE_CLEANUP(struct tree *, tree_close)

/* Merges TOCS (lowest first; LAYERS describes them) and writes the image index of MANIFEST to FD. */
int tree_write(int fd, const struct digest *manifest, const struct itable *const *tables,
               const struct tree_layer *layers, size_t count, struct error *e);

/* The store's key of an image index: SHA-256 of manifest digest, each layer's digest and kind, and TOC_VERSION; 64 hex
 * + NUL. */
int tree_key(const struct digest *manifest, const struct tree_layer *layers, size_t count, char ret[65]);

/* Walks PATH ("/a/b", "a/b", "" = root) without following symlinks; "." and ".." mean what they mean in chroot(2), and
 * a slash behind the last name asks for a directory. Returns 0, -ENOENT or -ENOTDIR. */
int tree_lookup(const struct tree *t, const char *path, uint32_t *ret_row);
