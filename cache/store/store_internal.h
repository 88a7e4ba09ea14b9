/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the files of the store share: where things lie, how they move into place, the room on the disk, and the map
 * file. */

#include <stdatomic.h>
#include <xxhash.h>

#include "regfs/store.h"
#include "regfs/thread.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "maps are used where they lie");

struct map;

struct store {
        char *path;
        int fd;
        bool read_only;
        bool lower;            /* one of another store's `lowers` */
        uid_t owner;           /* of the directory */
        struct store **lowers; /* what was added, in that order; fixed before threads use the store */
        size_t lower_count;
        struct mutex lock; /* of what follows */
        struct map *
                unnamed GUARDED_BY(lock); /* what a read-only store could not take: path → descriptor + 1; or NULL */
        atomic_int_fast64_t room;         /* bytes that may be written before the disk is asked again */
        atomic_bool full;                 /* said so once */
};

/* ---- names (store.c) ---- */

/* Longest path below the store's directory, with its NUL. */
#define STORE_PATH_MAX 512

/* True for a name that may be one path component as it is: [a-z0-9] and then [a-z0-9._-], shorter than MAX bytes. */
bool store_name_is_valid(const char *name, size_t max);

/* "layers/sha256/<hex>/<kind>" and "/<file>" unless FILE is NULL. Returns 0 or -EINVAL with E. */
int store_layer_path(const struct digest *layer, const char *kind, const char *file, char out[STORE_PATH_MAX],
                     struct error *e);

/* ---- drafts (store.c) ---- */

/* Fills OUT (64 bytes) with a name below tmp/ that nobody else uses: "tmp/<what>-<random>". */
int store_draft_name(const char *what, char *out, struct error *e);

/* 0, or -EROFS with E. */
int store_check_writable(const struct store *s, struct error *e);

/* Keeps others from removing a leftover that is none: the lock ends with FD, however this process ends. */
void store_draft_claim(int fd);

/* Renames within the store and makes the parents of TO where they are missing. Returns 0 or -errno. */
int store_move(struct store *s, const char *from, const char *to);

/* Renames the draft to TO, without fsync: for files that are checked when they are read. The draft is empty
 * afterwards. */
int store_draft_move(struct store_draft *d, const char *to, struct error *e);

/* Writes the file at PATH, whole. */
int store_put_file(struct store *s, const char *path, const void *data, size_t n, struct error *e);

/* Removes a file, or a directory with all that is in it. What is gone already is fine. Returns 0 or -errno. */
int store_remove_tree(int at, const char *name);

/* ---- other stores (lower.c) ---- */

/* Closes what was added. */
void store_clear_lowers(struct store *s);

/* 0 when FD, a file of S, may be believed: in a store that was added, a regular file that belongs to the store's owner
 * or root and that nobody else may write. Returns -EPERM, with a line in the log, or -errno. */
int store_check_file(const struct store *s, int fd, const char *path);

/* Opens the file at PATH of S alone, for reading, and checks it. A descriptor, or -errno. */
int store_open_file(const struct store *s, const char *path);

/* A copy of the first N bytes of FD in memory that munmap releases; MAP_FAILED with errno. */
void *store_copy_map(int fd, size_t n);

/* ---- what a read-only store could not take (unnamed.c) ---- */

/* PATH is the file that FD would have become: it is found as long as S is open. FD stays the caller's. */
int store_unnamed_put(struct store *s, const char *path, int fd);

/* A descriptor of its own, or -ENOENT. */
int store_unnamed_get(struct store *s, const char *path);
void store_unnamed_clear(struct store *s);

/* ---- content in other stores (lower.c) ---- */

/* The same layer's content in the stores that were added: where they have any that fits. */
struct content_lowers {
        struct content **items;
        size_t count;
};

/* KIND is what the layer is called in one's own store: ".by-<uid>" behind it counts for that one alone. Returns 0 or
 * -ENOMEM. */
int content_lowers_open(struct content_lowers *l, struct store *s, const struct digest *layer, const char *kind,
                        const struct chunk_table *table);
void content_lowers_close(struct content_lowers *l);
bool content_lowers_have(const struct content_lowers *l, size_t i);

/* content_read, each chunk from the first place that has it: OWN, then L. */
int content_lowers_read(const struct content_lowers *l, struct content *own, const struct chunk_table *table,
                        uint64_t offset, size_t length, void *out);

/* content_has and content_read of one place alone. */
bool content_has_here(struct content *c, size_t i);
int content_read_here(struct content *c, uint64_t offset, size_t length, void *out);

/* False when there are no files, or none that fit. */
bool content_is_there(const struct content *c);

/* ---- content (content.c) ---- */

/* Takes N bytes from the room on the disk that holds FD. Returns 0; -ENOSPC when only the last 5 % are left. */
int store_take_room(struct store *s, int fd, uint64_t n);

/* Writes N bytes at OFFSET; 4 KiB blocks that are all zeros become holes. FRESH: nothing was written there before.
 * Returns 0 or -errno; the range is then undefined. */
int store_write_sparse(struct store *s, int fd, const void *data, size_t n, uint64_t offset, bool fresh);

/* The file "map": this header, then a 64-bit word for each chunk (0 = absent, else XXH3-64 of its bytes | 1).
 * IDENTITY binds it to the cut of the content space into chunks. */
struct content_map_header {
        char magic[8];
        uint32_t version;
        uint32_t header_length;
        uint64_t file_length;
        uint64_t chunk_count;
        uint64_t identity;
        uint64_t reserved[3];
};

_Static_assert(sizeof(struct content_map_header) == 64, "the header is part of the file format");

#define CONTENT_MAP_MAGIC "REGFSMAP"
#define CONTENT_MAP_VERSION 1

void content_map_header_init(struct content_map_header *h, uint64_t chunk_count, uint64_t identity);

/* The identity of a table: XXH3-64 of {content offset, content length} of each row. Row by row, so that a layer
 * draft need not keep them. */
void content_identity_add(XXH3_state_t *identity, uint64_t content_offset, uint64_t content_length);

static inline uint64_t content_word(uint64_t hash)
{
        return hash | 1;
}
