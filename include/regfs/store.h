/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The store: the directory on disk that processes share (design "On disk"). Content is immutable and named by
 * digest; every file appears whole, by rename. Nothing here waits for a lock.
 *
 *     blobs/sha256/<hex>               manifests, indexes, configs
 *     refs/<registry>/<repo>/<tag>     "<digest> <unix time>\n"; components are escaped, see store_ref_get
 *     layers/sha256/<hex>/<kind>/      {toc, content, map}: published together by one rename
 *     images/<key>                     image indexes
 *     tmp/                             what is being written; leftovers of dead processes are removed at open when
 *                                      a day old
 *
 *     lock                             what processes do one at a time is locked here, see store_turn
 *
 * The TOC of a layer that was read whole is fsynced before its rename. The rest is checked whenever it is read, so a
 * crash costs it at most.
 *
 * Locks between processes only save work: whoever finds one taken looks for the result, and in the end does the work
 * itself. Where a lock might hang (NFS, SMB, FUSE, any filesystem that is not known to be local), or one fails, the
 * store does without, and says so in the log once.
 *
 * Behind a store others may stand that are only read (store_add): blobs, refs, TOCs, image indexes and content that it
 * does not have are looked for there. What is new goes to the first one.
 */

#include <sys/types.h>

#include "regfs/base.h"
#include "regfs/chunk.h"
#include "regfs/digest.h"
#include "regfs/error.h"
#include "regfs/text.h"

struct store;

/* Opens, and creates where missing, the store at DIRECTORY (NULL: the default of design.md), mode 0700. A store
 * directory that belongs to another user or is writable by others is refused. A read-only one is used as it is:
 * every write then returns -EROFS. So is one that has no room for its own directories: then it is -ENOSPC. */
int store_open(const char *directory, struct store **ret, struct error *e);
struct store *store_close(struct store *s);
DEFINE_CLEANUP(struct store *, store_close)
const char *store_path(const struct store *s);

/* Adds the finished store at DIRECTORY, which is looked into behind S and those that were added before. Nothing in it is
 * written or locked, so it may lie on read-only media, be exported by another machine, or belong to another user: naming
 * it is trusting its owner. It must be there, and nobody but its owner and root may be able to write it: a directory
 * for which that is not so is refused, a file counts as absent. Before S is used by several threads. */
int store_add(struct store *s, const char *directory, struct error *e);

/* As store_open, with all of STORES (NULL-terminated; or NULL) added. Where DIRECTORY can't be had because its place is
 * read-only or not to be entered, the first of STORES stands in its place. Where its disk is full, nothing does: the
 * store is empty and takes nothing. */
int store_open_all(const char *directory, const char *const *stores, struct store **ret, struct error *e);

/* True where S, or one of its own directories, could not be made because its disk is full. */
bool store_has_no_room(const struct store *s);

/* S itself (K = 0) and those that were added; NULL behind the last. */
struct store *store_at(struct store *s, size_t k);

/* True for a store of another user who is not root. What it says of a tree may have been made to deceive the reader's
 * code and may change while it is read: TOCs and image indexes are to be copied and checked row by row, and what is
 * made from them is nobody else's to use, so it does not go to S under its plain name. */
bool store_is_foreign(const struct store *s);
uid_t store_owner(const struct store *s);
/* What the store is kept to where nobody says otherwise. */
#define STORE_LIMIT_DEFAULT (10 * GIB)

/* The store is kept to so many bytes by taking away what was not used for longest: single chunks of layers that
 * this process has open, whoever else has, and whole layers that nobody has open. Before anything is written; by
 * default there is no limit. For a moment there may be more: 1/32 of the limit, but 8 MiB at least and 256 MiB at
 * most; from there on what is read is not kept. */
void store_set_limit(struct store *s, uint64_t bytes);

/* ---- what a store cannot take ----
 *
 * A full disk, a quota, a disk that fails, a directory that can't be written any more: that costs speed. What the
 * caller has in memory anyway is not kept (store_forgo). A file that is used where it lies, such as a TOC or an image
 * index, goes on outside of the store, without a name: in the temporary directory where that is on another filesystem
 * and has room, else in memory, where STORE_OUTSIDE_MAX is the most that TOCs of one store take. The log says so
 * once. */

#define STORE_OUTSIDE_MAX (1 * GIB)

/* For those whose purpose is to fill S: from now on what it cannot take is an error that names S and the cause. A store
 * that was read-only when it was opened goes on as it is. */
void store_keep_all(struct store *s);

/* R, with E, is why S did not take something. 0: it is done without, the log has it. R where S is to keep all. */
int store_forgo(struct store *s, int r, const struct error *e);

/* FD is a file of the store that is used now: it is not the next to be taken away. */
void store_touch(struct store *s, int fd);

/* A small blob, verified against its digest: 0 with *RET replaced, -ENOENT, or -errno with E; -EFBIG past MAX bytes.
 * A blob that fails is removed (in S, not in those that were added) and counts as absent. */
int store_blob_get(struct store *s, const struct digest *digest, size_t max, struct buf *ret, struct error *e);
int store_blob_put(struct store *s, const struct digest *digest, const void *data, size_t n, struct error *e);

/* What NAME ("docker.io/library/alpine:edge") last resolved to, and when (unix seconds), in any of the stores: 0, -ENOENT
 * (a damaged file included), or -EINVAL for anything but REGISTRY/REPOSITORY:TAG of at most 1024 bytes.
 *
 * Each of the three becomes one path component, so that no name is in another's way: the registry is what precedes
 * the first "/", the tag what follows the last ":". Small letters, digits, "-", "_" and "." (within) stand for
 * themselves, every other byte is %XX: refs/docker.io/library%2Falpine/edge. A component that would pass 140 bytes
 * is cut to 64 of them and "%~" and the SHA-256 of the unescaped component in hex follow; "%~" occurs nowhere else. */
int store_ref_get(struct store *s, const char *name, struct digest *ret, int64_t *ret_time, struct error *e);
int store_ref_put(struct store *s, const char *name, const struct digest *digest, struct error *e);

/* An image index by key, of S alone, read-only: a descriptor, or -ENOENT. */
int store_image_open(struct store *s, const char *key);

enum draft_place {
        DRAFT_INSIDE,
        DRAFT_TEMPORARY, /* a file without a name in the temporary directory */
        DRAFT_MEMORY,
};

/* A file being written below tmp/, or outside: write to fd, then publish or drop. */
struct store_draft {
        struct store *store;
        int fd;
        enum draft_place place;
        char name[64]; /* "" for one that has none */
};
#define STORE_DRAFT_INIT \
        {                \
                .fd = -1 \
        }

int store_draft_new(struct store *s, struct store_draft *ret, struct error *e);

/* As store_draft_new, but outside where S cannot take it. */
int store_draft_begin(struct store *s, struct store_draft *ret, struct error *e);

/* A file outside, for this process alone from the start; S tells where not to put it. */
int store_draft_outside(struct store *s, struct store_draft *ret, struct error *e);

/* Writing D (or reading it back) has failed with R, E. True when that was its place's fault and it lies elsewhere now,
 * with all that was written of it and under the same number: E is empty again, and what failed is to be written once
 * more:
 *
 *         do
 *                 r = toc_write(d.fd, …, e);
 *         while (r < 0 && store_draft_move_out(&d, r, e));
 *
 * False: R stands. */
bool store_draft_move_out(struct store_draft *d, int r, struct error *e);

/* Renames it to images/<key>. An existing one is replaced. One that the store cannot take is dropped: whoever has it
 * open may go on using it. */
int store_draft_publish_image(struct store_draft *d, const char *key, struct error *e);
/* Removes what was not published. Legal on an empty one. */
void store_draft_clear(struct store_draft *d);
#define _cleanup_draft_ _cleanup_(store_draft_clear)

/* ---- mappings ---- */

/* Maps SIZE bytes of FD for reading, to be unmapped by munmap. Where the filesystem is not known to be local, and a
 * page may change or go away, a private copy is mapped instead. Returns 0 or -errno; -EFBIG for a copy above 4 GiB. */
int store_map_file(int fd, size_t size, const void **ret);

/* ---- turns ---- */

/* A process's turn to do something once for all: to index a layer, say. Ends with the process at the latest. */
struct store_turn {
        struct store *store;
        int fd;
        uint64_t offset;
};
#define STORE_TURN_INIT  \
        {                \
                .fd = -1 \
        }

/* 0: it is this caller's turn to do WHAT, until store_turn_end; so too where there are no locks. -EAGAIN: somebody does
 * it; look for the result, and ask again. */
int store_turn_try(struct store *s, const char *what, struct store_turn *ret);
void store_turn_end(struct store_turn *t);
#define _cleanup_turn_ _cleanup_(store_turn_end)

/* How far the one whose turn it is says that it has come. */
void store_turn_tell(struct store_turn *t, uint64_t progress);
uint64_t store_turn_progress(struct store *s, const char *what);

/* How long to wait for somebody who may hang: LIMIT_MS since he last came farther, with pauses that grow. */
struct patience {
        uint64_t limit_ms, since, progress, pause_ms;
};

void patience_begin(struct patience *p, uint64_t limit_ms);
/* PROGRESS is what it is now. False when patience has ended; *RET_PAUSE_MS (10 to 200) is how long to wait before the
 * next look. */
bool patience_left(struct patience *p, uint64_t progress, uint64_t *ret_pause_ms);

/* ---- layers ---- */

#define LAYER_KIND_MAX 96

/* The TOC of a layer, read-only: a descriptor, or -ENOENT. The first one of all stores, and that of S alone. */
int store_layer_toc(struct store *s, const struct digest *layer, const char *kind);
int store_layer_toc_here(struct store *s, const struct digest *layer, const char *kind);

/* A layer being indexed: a directory below tmp/ that is published whole or not at all. Used by one thread. Where the
 * store cannot take it, its TOC lies outside, where S finds it until it is closed, and its content is not kept. */
struct layer_draft;

int layer_draft_new(struct store *s, const struct digest *layer, const char *kind, struct layer_draft **ret,
                    struct error *e);

/* Drops what was not published. NULL is legal. Returns NULL. */
struct layer_draft *layer_draft_free(struct layer_draft *d);
DEFINE_CLEANUP(struct layer_draft *, layer_draft_free)

/* Where the TOC is to be written, and what is to be done when that fails: as store_draft_move_out. Content is the first
 * thing to make room. */
int layer_draft_toc_fd(struct layer_draft *d);
struct store_draft *layer_draft_toc(struct layer_draft *d);
bool layer_draft_move_out(struct layer_draft *d, int r, struct error *e);

/* Appends decoded content in stream order; all-zero 4 KiB blocks become holes. Each call is at least one write:
 * pieces of 64 KiB and more are best. Once a write fails or only 5 % of the disk are left, content is no longer kept
 * and this goes on returning 0. */
int layer_draft_append(struct layer_draft *d, const void *data, size_t n, struct error *e);

/* A chunk of LENGTH content bytes from CONTENT_OFFSET has ended; in order of rows. HASH is the XXH3-64 of its bytes.
 * A chunk whose bytes were not all appended is published as absent. */
int layer_draft_chunk(struct layer_draft *d, uint64_t content_offset, uint32_t length, uint64_t hash, struct error *e);

/* Writes the map, fsyncs the TOC if content came with it, renames. When somebody else has published the same layer
 * meanwhile, theirs stays and this still succeeds; a directory without a TOC is a leftover and is replaced. */
int layer_draft_publish(struct layer_draft *d, struct error *e);

/* Removes a layer's directory (its TOC turned out damaged or of another version): the next open indexes it afresh. */
int store_layer_remove(struct store *s, const struct digest *layer, const char *kind, struct error *e);

/* ---- content ---- */

/* The decoded bytes of one layer: a sparse file and a map with one word for each chunk (0 = absent, else XXH3 | 1).
 * Thread-safe and shared with other processes. No read or write needs a lock. TABLE is borrowed and outlives the
 * content. While it is open, nobody takes the layer away whole, but any process that has it open may at any time take
 * away chunks that it does not use itself. */
struct content;

/* Opens content and map; files that are missing or of another cut into chunks are begun afresh. Where that is
 * impossible (read-only store, full disk) it still succeeds, with a line in the log, and every chunk is absent. Chunks
 * that stores which were added have are there, too, where their content is of the same cut.
 *
 * KIND may have ".by-<uid>" behind it, for a TOC that came from that user's store: what is fetched by it is kept apart, for
 * it alone to use. */
#define LAYER_KIND_BY ".by-"

int content_open(struct store *s, const struct digest *layer, const char *kind, const struct chunk_table *table,
                 struct content **ret, struct error *e);
struct content *content_close(struct content *c);
DEFINE_CLEANUP(struct content *, content_close)

/* False when it is known that no chunk can be stored: a read-only store, a directory that cannot be written. */
bool content_keeps(const struct content *c);

/* Content was not kept: sets E with the store, the layer and what was last in the way of it. Returns -EROFS when it is
 * that no chunk can be stored, else -ENOSPC. */
int content_not_kept(const struct content *c, struct error *e);

/* True when the map says that chunk I is there. Chunks of zeros always are. */
bool content_has(struct content *c, size_t i);

/* Copies [offset, offset + length) to OUT when every chunk that it touches is there; the first time that this
 * process uses a chunk it is read whole and its checksum compared. Returns 0; -EAGAIN when a chunk is absent or
 * turned out wrong (its word is then cleared, with a warning in the log, or where that can't be written this process
 * takes it for absent); -EINVAL for a range outside of the content. OUT is undefined on failure. Bytes between
 * chunks read as zeros. Never short. */
int content_read(struct content *c, uint64_t offset, size_t length, void *out);

/* Stores chunk I: its bytes, then its word. A failure (-EROFS; -ENOSPC, also where only 5 % of the disk are left;
 * -EDQUOT at the store's limit; -EAGAIN where somebody takes the chunk away meanwhile, of which nothing follows for
 * the next one) is returned but harms nothing: the chunk is absent. */
int content_write(struct content *c, size_t i, const void *data);

/* Claims the chunks [first, *RET_END), as many as are free from FIRST up to END, for this process to fetch: 0. -EAGAIN
 * when other processes have claimed [first, *RET_END). Never waits. A claim ends with content_release or with the
 * process. Openings of a layer in one process exclude each other too; claims of one opening don't. Whoever gets a claim
 * looks again whether the chunks are still absent. */
int content_claim(struct content *c, size_t first, size_t end, size_t *ret_end);
void content_release(struct content *c, size_t first, size_t end);

/* What other machines have stored of the chunks [first, end) may not be known here: looks. Cheap where there are no
 * others. */
void content_refresh(struct content *c, size_t first, size_t end);
