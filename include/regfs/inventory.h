/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What lies in a store, as files: what each is by its place and name, what it weighs, when it was last used and whether
 * somebody uses it now. Nothing is read but directories, nothing is changed, no symlink is followed. What is inside the
 * files is cache.h's business.
 *
 * All of this is safe beside processes that use the store: a file that is removed stays with those that have it open. */

#include "regfs/store.h"

/* A draft that is younger than this counts as somebody's: its writer may not have claimed it yet. */
#define INVENTORY_DRAFT_GRACE_S 60

enum inventory_kind {
        INVENTORY_BLOB,
        INVENTORY_REF,
        INVENTORY_IMAGE,
        INVENTORY_LAYER,
        INVENTORY_DRAFT,   /* in tmp/ */
        INVENTORY_FOREIGN, /* by its name or type nothing of a store; left alone */
        INVENTORY_KINDS,
};

/* In bytes: what the file's length is, and what it takes on the disk. Directories weigh nothing. */
struct inventory_size {
        uint64_t apparent;
        uint64_t disk;
};

enum inventory_part {
        INVENTORY_TOC,
        INVENTORY_CONTENT,
        INVENTORY_MAP,
        INVENTORY_PARTS,
};

/* The parts' file names. */
extern const char *const inventory_part_names[INVENTORY_PARTS];

struct inventory_item {
        enum inventory_kind kind;
        char *path; /* below the store's directory */
        struct inventory_size size;
        /* Last use, unix seconds: of a layer, when its map changed, which whoever has it open sees to (without a map, its
         * TOC); of other files the later one of access and change. */
        int64_t used;
        /* A layer is in use when another open file holds a lock in its map; a draft, as long as its writer lives; other
         * things, when an image is that they belong to (cache.h). Where the store does without locks, no layer is known
         * to be, and a draft for a day. */
        bool in_use;

        struct digest digest; /* blob, layer */

        /* Of a layer: */
        char layer_kind[LAYER_KIND_MAX];
        struct inventory_size parts[INVENTORY_PARTS];
        bool has[INVENTORY_PARTS];
        bool has_foreign; /* there is something else in its directory */
};

struct inventory {
        struct inventory_item *items; /* sorted by path */
        size_t count;
        size_t allocated;
};

/* Lists the store. What comes or goes meanwhile may be in it or not. 0, or -errno with E. */
int inventory_read(struct store *s, struct inventory *ret, struct error *e);
void inventory_clear(struct inventory *i);
#define _cleanup_inventory_ _cleanup_(inventory_clear)

/* The item at PATH, or NULL. */
const struct inventory_item *inventory_find(const struct inventory *i, const char *path);

/* Opens the item, or the part FILE ("toc", "content", "map") of a layer, for reading and, with WRITES, writing; its last
 * use stays what it was. A descriptor of a regular file, or -errno. */
int inventory_open(struct store *s, const struct inventory_item *item, const char *file, bool writes);

/* Whether a layer, or a draft, is used by somebody at this moment. */
bool inventory_is_in_use(struct store *s, const struct inventory_item *item);

/* Takes the item out of the store: at once and whole, a layer in whose directory foreign files lie by its own files
 * alone. What is gone already is fine. -EPERM for what is foreign. */
int inventory_remove(struct store *s, const struct inventory_item *item, struct error *e);

/* inventory_remove, unless the file at its path (of a layer: its TOC) is not the one open at FD any more. */
int inventory_remove_same(struct store *s, const struct inventory_item *item, int fd, struct error *e);

/* Takes the map of a layer away: all of its content then counts as absent. */
int inventory_remove_map(struct store *s, const struct inventory_item *layer, struct error *e);

/* "docker.io/library/alpine:edge" out of the path of a ref, and whether it is the record of which published index an
 * image was read by. A name of which the store keeps a part alone ends its cut components with "...". NULL when out of
 * memory. */
char *inventory_ref_name(const struct inventory_item *ref, bool *ret_is_record);

/* What the ref open at FD says: 0, or -EBADMSG. */
int inventory_ref_read(int fd, struct digest *ret, int64_t *ret_time);

/* ---- where the store lies ---- */

struct store_place {
        char filesystem[64]; /* its name as the kernel has it, "ext4" */
        bool read_only;
        bool locks;         /* those between processes work: what is in use can be told */
        uint64_t size;      /* of the filesystem */
        uint64_t available; /* what this user may still write */
        uint64_t reserve;   /* of that, what regfs leaves free */
};

int store_look_at_place(struct store *s, struct store_place *ret, struct error *e);

/* ---- content, seen from outside ---- */

/* The content of a layer that is looked at without being used: nothing is begun afresh, marked as used or locked.
 * By one thread. TABLE is borrowed. */
struct audit;

/* 0; -ENOENT when content or map are missing; -ESTALE with E when they don't fit TABLE or each other. */
int audit_open(struct store *s, const struct inventory_item *layer, const struct chunk_table *table, struct audit **ret,
               struct error *e);
struct audit *audit_close(struct audit *a);
DEFINE_CLEANUP(struct audit *, audit_close)

/* The map said so when it was opened. A chunk of zeros always is. */
bool audit_has(const struct audit *a, size_t i);

/* Reads chunk I where it lies: its checksum must be the map's, and its SHA-256 the table's where that has one of the
 * content. 0; -ENOENT when it is absent by now; -EBADMSG with E: it is wrong; other errors of reading with E. A chunk
 * that somebody takes away or writes anew meanwhile is not wrong. */
int audit_check(struct audit *a, size_t i, struct error *e);

/* Clears the chunk's word, which is safe under a reader: its bytes stay until they are written anew. */
int audit_drop(struct audit *a, size_t i, struct error *e);
