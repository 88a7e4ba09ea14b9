/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the files of the store share: where things lie, how they move into place, locks between processes, the room on
 * the disk, and the content of a layer. */

#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/queue.h>
#include <xxhash.h>

#include "regfs/store.h"
#include "regfs/thread.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "maps are used where they lie");

struct map;

TAILQ_HEAD(content_list, content);

/* Keeps the store within its limit (evict.c). */
struct evictor {
        uint64_t limit;               /* bytes; UINT64_MAX: there is none. Set before anything is written */
        atomic_uint_fast64_t used;    /* when it last looked, less what it took away */
        atomic_uint_fast64_t written; /* by this process since then */
        atomic_bool looked;           /* `used` says something */
        atomic_bool stuck;            /* it found less than it wanted to take away */
        atomic_bool disk_is_full;     /* somebody could not write: take away more than the limit wants */
        atomic_bool wanted;           /* it is to look */
        atomic_uint leaving;          /* layers that wait to be closed */
        struct mutex lock;
        struct cond changed;
        pthread_t thread;
        bool running GUARDED_BY(lock); /* the thread is there */
        bool stopping GUARDED_BY(lock);
        bool evicting GUARDED_BY(lock);                /* the thread holds on to `contents` */
        struct content_list contents GUARDED_BY(lock); /* that are open */
};

struct store {
        char *path;
        int fd;
        bool read_only;
        int refused;           /* why it is: errno, or 0: it was when it was opened */
        bool keeps_all;        /* what it cannot take is an error */
        atomic_bool told;      /* what becomes of that */
        bool lower;            /* one of another store's `lowers` */
        uid_t owner;           /* of the directory */
        struct store **lowers; /* what was added, in that order; fixed before threads use the store */
        size_t lower_count;
        struct mutex lock; /* of what follows */
        /* What it could not take: path → descriptor + 1; or NULL. */
        struct map *unnamed GUARDED_BY(lock);
        atomic_int_fast64_t room; /* bytes that may be written before the disk is asked again */
        atomic_bool full;         /* said so once */

        /* Of its filesystem (filesystem.c). */
        char filesystem[40];
        bool remote;         /* other machines may write there: what was right once need not be when it is read again */
        bool sparse;         /* files have holes */
        atomic_bool locks;   /* … and locks */
        atomic_bool punches; /* … and holes can be made */

        struct evictor evictor;
};

/* ---- names (store.c) ---- */

/* Where the store is by default. */
int store_default_path(char **ret, struct error *e);

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

/* True for what that may have named, without "tmp/". */
bool store_is_draft_name(const char *name);

/* True for the name of an image index, without "images/". */
bool store_is_image_key(const char *name);

/* The digest that ALGORITHM and HEX name, the components of a path, each up to a slash or its end. 0 or -EINVAL. */
int store_parse_digest(const char *algorithm, const char *hex, struct digest *ret);

/* 0; for a read-only store the reason with E: -EROFS, mostly. */
int store_check_writable(const struct store *s, struct error *e);

/* Keeps others from removing a leftover that is none: the lock ends with FD, however this process ends. */
void store_draft_claim(struct store *s, int fd);

/* Renames within the store and makes the parents of TO where they are missing. Returns 0 or -errno. */
int store_move(struct store *s, const char *from, const char *to);

/* Renames the draft to TO, without fsync: for files that are checked when they are read. The draft is empty
 * afterwards. */
int store_draft_move(struct store_draft *d, const char *to, struct error *e);

/* Writes the file at PATH, whole. */
int store_put_file(struct store *s, const char *path, const void *data, size_t n, struct error *e);

/* Removes a file, or a directory with all that is in it. What is gone already is fine. Returns 0 or -errno. */
int store_remove_tree(int at, const char *name);

/* ---- refs (refs.c) ---- */

/* A ref's file is shorter. */
#define STORE_REF_MAX 256

/* "<digest> <unix time>\n"; TEXT, of LENGTH bytes (at least 1) and a NUL, is cut in pieces. Returns 0 or -EBADMSG. */
int store_parse_ref(char *text, size_t length, struct digest *ret, int64_t *ret_time);

/* ---- other stores (lower.c) ---- */

/* Closes what was added. */
void store_clear_lowers(struct store *s);

/* 0 when FD, a file of S, may be believed: in a store that was added, a regular file that belongs to the store's owner
 * or root and that nobody else may write. Returns -EPERM, with a line in the log, or -errno. */
int store_check_file(const struct store *s, int fd, const char *path);

/* Opens the file at PATH of S alone, for reading, and checks it. A descriptor, or -errno. */
int store_open_file(const struct store *s, const char *path);

/* ---- what it could not take (outside.c, unnamed.c) ---- */

/* True for R where a place could not be written: as opposed to what was to be written, and to this process. */
bool store_is_at_fault(int r);

/* The log hears of the first R. */
void store_tell_refusal(struct store *s, int r);

/* True for a file that lies in memory: a memfd, or one on a tmpfs. */
bool store_is_in_memory(int fd);

/* PATH is the file that FD would have become: it is found as long as S is open. FD stays the caller's. Returns 0,
 * -ENOMEM, or -ENOSPC where those in memory have more than STORE_OUTSIDE_MAX bytes together. */
int store_unnamed_put(struct store *s, const char *path, int fd);

/* A descriptor of its own, or -ENOENT. */
int store_unnamed_get(struct store *s, const char *path);
void store_unnamed_remove(struct store *s, const char *path);
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

/* ---- the filesystem (filesystem.c) ---- */

/* Finds out what the filesystem can do. */
void store_look_at_filesystem(struct store *s);

/* What the mount table calls the filesystem that holds FD ("nfs4", "fuse.sshfs"), to OUT (place.c). Returns 0 or
 * -errno. */
int store_name_filesystem(int fd, char *out, size_t size);

/* A lock failed for a reason of the filesystem's: from now on there are none. */
void store_do_without_locks(struct store *s, const char *why);

/* fsync, where the filesystem has it. Returns 0 or -errno. */
int store_sync(int fd);

/* ---- locks (lock.c) ---- */

/* Between two looks at what others do. */
#define PAUSE_MIN_MS 10
#define PAUSE_MAX_MS 200

/* TYPE (F_RDLCK, F_WRLCK, F_UNLCK) on a range of FD, at once: 0, also where there are no locks; or -EAGAIN when another
 * open file description is in the way. */
int store_lock(struct store *s, int fd, short type, uint64_t offset, uint64_t length);

/* Locks as much as is free from OFFSET on, exclusively: 0 with how much that is. -EAGAIN when others have the beginning:
 * then *RET_LENGTH is how much of it. */
int store_lock_run(struct store *s, int fd, uint64_t offset, uint64_t length, uint64_t *ret_length);

/* ---- room (sparse.c) ---- */

/* So much of a disk is left free: one part of twenty. */
#define STORE_RESERVE_PART 20

/* Takes N bytes from the room on the disk that holds FD. Returns 0; -ENOSPC when only the last 5 % are left; -EDQUOT when
 * the store's limit is reached. */
int store_take_room(struct store *s, int fd, uint64_t n);

/* Bytes of the disk below the store that may be used yet; UINT64_MAX where it doesn't say. */
uint64_t store_disk_room(int fd);

/* Writes N bytes at OFFSET; 4 KiB blocks that are all zeros become holes. FRESH: nothing was written there before.
 * Returns 0 or -errno; the range is then undefined. */
int store_write_sparse(struct store *s, int fd, const void *data, size_t n, uint64_t offset, bool fresh);

/* ---- eviction (evict.c) ---- */

void evictor_init(struct store *s);
void evictor_clear(struct store *s);

/* N bytes are about to be written: 0, or -EDQUOT when there is no room for them below the limit. Never waits. */
int evictor_take(struct store *s, uint64_t n);

/* The disk is full: what the store holds has to make room. */
void evictor_call(struct store *s);

/* Whether C is open: then its chunks may be evicted. Leaving waits while some are. */
void evictor_enter(struct content *c);
void evictor_leave(struct content *c);

/* ---- content (content.c) ---- */

/* A chunk's state: two bits, and pins below. */
#define STATE_WRONG ((uint32_t) 1 << 31)   /* absent for this process, whatever the word says */
#define STATE_EVICTED ((uint32_t) 1 << 30) /* is being taken away by this process: nobody in it may begin to use it */
#define STATE_PINS (STATE_EVICTED - 1)

struct content {
        struct store *store;
        const struct chunk_table *table;
        char *name; /* "sha256:… plain", for the log */
        int fd, map_fd;
        int denied;         /* why nothing can be written here: -errno, or 0 */
        atomic_int refused; /* why a chunk could not be written, last: -errno, or 0 */
        void *map;
        size_t map_size;
        _Atomic uint64_t *words; /* NULL: there is no map and every chunk is absent */
        bool words_are_own;      /* a copy of the map's; else they are in MAP, and so are the next two */
        _Atomic uint64_t *epochs;
        _Atomic uint32_t *stamps;
        bool has_no_epochs; /* a map of version 1: anything may be taken away at any time */
        _Atomic uint32_t *states;
        _Atomic uint64_t *verified; /* the epoch + 1 in which this process found a chunk's bytes right; or 0 */
        _Atomic uint32_t *used;     /* ticks of each chunk's last use; 0: not by this process */
        uint32_t opened;            /* tick */
        uint32_t told;              /* tick of the last content_tell; the evictor's own, as long as it is in its list */
        uint64_t idle_ms;           /* when it was opened: since somebody used it */
        _Atomic uint32_t touched;
        struct content_lowers lowers; /* the same layer's in other stores */
        bool entered;                 /* in the evictor's list */
        atomic_bool evicts;           /* somebody in this process has, or asks for, the lock on CONTENT_EVICT_OFFSET */
        enum { EVICT_UNTRIED, EVICT_LOCKED, EVICT_REFUSED } evicted; /* the evictor's own: has it that lock? */
        TAILQ_ENTRY(content) siblings;                               /* guarded by the evictor's lock */
};

static inline uint64_t chunk_end(const struct chunk *c)
{
        return c->content_offset + c->content_length;
}

/* A coarse clock, without a system call: 1/64 seconds, never 0. Differences tell, up to a year. */
#define TICKS_PER_SECOND 64
uint32_t content_tick(void);

static inline uint64_t content_word_offset(size_t i)
{
        return 64 + i * sizeof(uint64_t);
}

/* Bytes far behind the map's end that are only locked. Who has the layer open holds a shared lock on the first; who
 * takes all of it away, and wants nobody to have it open, an exclusive one. Who takes chunks away, or ends what a dead
 * process has begun to take away, holds the second exclusively. */
#define CONTENT_USE_OFFSET ((uint64_t) 1 << 61)
#define CONTENT_EVICT_OFFSET (CONTENT_USE_OFFSET + 1)

/* ---- the map of a content that is open (content_map.c) ---- */

uint64_t content_load_word(const struct content *c, size_t i);
int content_store_words(struct content *c, size_t first, size_t count, uint64_t word);

/* The word, loaded anew where it is a copy and 0: what another machine may have stored since. */
uint64_t content_reload_word(struct content *c, size_t i);

/* No epoch of a map: odd, and never one that something was verified in. */
#define EPOCH_NONE UINT64_MAX

/* The epochs of COUNT chunks, as they are after all that was read before; EPOCH_NONE where there are none. */
void content_load_epochs(struct content *c, size_t first, size_t count, uint64_t *out);
uint64_t content_load_epoch(struct content *c, size_t i);

/* To the next odd epoch, or the next even one. By the holder of the evict lock. */
int content_raise_epochs(struct content *c, size_t first, size_t count, bool odd);

/* Writes down, for other processes, that chunk I is used now; which chunks this one has used since it did that last. */
void content_stamp(struct content *c, size_t i);
void content_tell(struct content *c);

/* How long nobody has used chunk I, as far as this process has it told. */
uint64_t content_idle_ms(const struct content *c, size_t i);

/* ---- taking chunks away (content_evict.c) ---- */

/* The layer's evict lock: false when another process has it, or another thread, when there are no locks, or when
 * somebody has put another map in the place of this one. */
bool content_lock_eviction(struct content *c);
void content_unlock_eviction(struct content *c);

/* Takes the chunks [first, end), which have one neighbouring range, away when nobody in this process uses them: clears
 * their words and gives their blocks back. The caller has the evict lock. Stops at the first one that is in use;
 * *RET_END is behind the last that is away. Returns the bytes that it gave back, about. */
uint64_t content_evict(struct content *c, size_t first, size_t end, size_t *ret_end);

/* Ends the eviction of chunk I that a process has begun and not lived to end. False when it lives, or this one may not
 * write. */
bool content_end_eviction(struct content *c, size_t i);

/* ---- the file "map" (content.c) ---- */

/* This header; then a 64-bit word for each chunk (0 = absent, else XXH3-64 of its bytes | 1); a 64-bit epoch for each
 * (odd while it is being taken away, see content_read.c); and 32 bits for each that say when it was last used (unix
 * seconds, about; 0: nobody has said). IDENTITY binds it to the cut of the content space into chunks. Version 1 ended
 * behind the words. */
struct content_map_header {
        char magic[8];
        uint32_t version;
        uint32_t header_length;
        uint64_t file_length;
        uint64_t chunk_count;
        uint64_t identity;
        uint64_t reserved[3];
};

_Static_assert(sizeof(struct content_map_header) == 64, "the header is part of the file format, and words follow it");

#define CONTENT_MAP_MAGIC "REGFSMAP"
#define CONTENT_MAP_VERSION 2

static inline uint64_t content_epoch_offset(size_t chunk_count, size_t i)
{
        return content_word_offset(chunk_count) + i * sizeof(uint64_t);
}

static inline uint64_t content_stamp_offset(size_t chunk_count, size_t i)
{
        return content_epoch_offset(chunk_count, chunk_count) + i * sizeof(uint32_t);
}

void content_map_header_init(struct content_map_header *h, uint64_t chunk_count, uint64_t identity);

/* A map with these words (NULL: all absent) to the empty file FD, without holes: on some filesystems (tmpfs) a load
 * from one needs room on the disk. Returns 0 or -errno. */
int content_map_write(int fd, const struct content_map_header *h, const uint64_t *words);

/* The identity of a table: XXH3-64 of {content offset, content length} of each row. Row by row, so that a layer
 * draft need not keep them. */
void content_identity_add(XXH3_state_t *identity, uint64_t content_offset, uint64_t content_length);

static inline uint64_t content_word(uint64_t hash)
{
        return hash | 1;
}
