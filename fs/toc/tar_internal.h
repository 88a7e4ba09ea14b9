/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The parts of the tar scanner: header blocks (tar_header.c), pax records (tar_pax.c), what both say of an entry
 * (tar_entry.c), sparse maps (tar_sparse.c).
 * All of them refuse with -EBADMSG and a cause in E; tar.c adds which entry, and where. E is never NULL here. */

#include <sys/stat.h>

#include "regfs/base.h"
#include "regfs/error.h"
#include "regfs/itable.h"

#define TAR_BLOCK 512u
#define TAR_NAME_SIZE 257 /* prefix, slash, name and NUL */
#define TAR_LINK_SIZE 101

/* What one entry may bring along: extension headers with their bodies, sparse extension blocks, a sparse map. */
#define TAR_EXTENSIONS_MAX MIB
#define TAR_XATTRS_MAX 4096u

/* Strings and xattrs that global headers leave behind for all entries. */
#define TAR_GLOBALS_MAX (64 * KIB)

/* ---- header blocks ---- */

struct tar_sparse_field {
        uint8_t offset[12];
        uint8_t length[12];
};

/* A header block as it lies in the stream. */
struct tar_header {
        uint8_t name[100];
        uint8_t mode[8];
        uint8_t uid[8];
        uint8_t gid[8];
        uint8_t size[12];
        uint8_t mtime[12];
        uint8_t checksum[8];
        uint8_t type;
        uint8_t link[100];
        uint8_t magic[6];
        uint8_t version[2];
        uint8_t uname[32];
        uint8_t gname[32];
        uint8_t major[8];
        uint8_t minor[8];
        union {
                struct {
                        uint8_t prefix[155];
                        uint8_t unused[12];
                } ustar;
                struct {
                        uint8_t prefix[131];
                        uint8_t atime[12];
                        uint8_t ctime[12];
                        uint8_t unused[8];
                        uint8_t trailer[4];
                } star;
                struct {
                        uint8_t atime[12];
                        uint8_t ctime[12];
                        uint8_t volume_offset[12];
                        uint8_t unused[5];
                        struct tar_sparse_field sparse[4];
                        uint8_t extended;
                        uint8_t real_size[12];
                        uint8_t unused_end[17];
                } gnu;
        };
};

/* More of an old GNU sparse map: follows the header block, or another of its kind. */
struct tar_sparse_block {
        struct tar_sparse_field sparse[21];
        uint8_t extended;
        uint8_t unused[7];
};

_Static_assert(sizeof(struct tar_header) == TAR_BLOCK, "a header is one block");
_Static_assert(sizeof(struct tar_sparse_block) == TAR_BLOCK, "a sparse extension is one block");

enum tar_format {
        TAR_V7,
        TAR_USTAR, /* and pax */
        TAR_STAR,
        TAR_GNU,
};

/* Octal, surrounded by spaces and NULs (blank: 0), or base-256, where the first byte's upper bits are 1 and the sign.
 * Returns 0, -EINVAL or -ERANGE. */
int tar_number(const uint8_t *field, size_t n, int64_t *ret);

/* Whether the block's checksum is the sum of its bytes, be they taken as unsigned or, as old writers did, signed. */
bool tar_header_is_valid(const struct tar_header *h);

enum tar_format tar_header_format(const struct tar_header *h);

/* NUL-terminated name with its prefix. */
void tar_header_name(const struct tar_header *h, enum tar_format format, char ret[TAR_NAME_SIZE]);
void tar_header_link(const struct tar_header *h, char ret[TAR_LINK_SIZE]);

/* A field that is no number, negative, or above MAX is refused; NAME is for the message. */
int tar_header_unsigned(const uint8_t *field, size_t n, const char *name, uint64_t max, uint64_t *ret, struct error *e);

/* ---- sparse maps ---- */

struct sparse_map {
        struct extent *extents; /* content offsets are set by sparse_map_place */
        size_t count;
        size_t allocated;
        uint64_t pairs;  /* with the empty ones, which are not kept */
        uint64_t stored; /* sum of all lengths */
        uint64_t end;    /* of the last pair */
};

void sparse_map_clear(struct sparse_map *m);
void sparse_map_free(struct sparse_map *m);

/* Pairs come in the file's order and do not overlap. */
int sparse_map_add(struct sparse_map *m, uint64_t offset, uint64_t length, struct error *e);

/* The pairs of an old GNU header or extension block, up to the first unused one. */
int sparse_map_add_fields(struct sparse_map *m, const struct tar_sparse_field *fields, size_t n, struct error *e);

/* "offset,length,offset,length,…", as in GNU.sparse.map. */
int sparse_map_add_text(struct sparse_map *m, const char *text, struct error *e);

/* Lays the extents out from content offset START. The map must use all of the STORED bytes and stay within the SIZE of
 * the file. */
int sparse_map_place(struct sparse_map *m, uint64_t start, uint64_t stored, uint64_t size, struct error *e);

/* Reads the map that format 1.0 puts before the data, byte by byte: the number of pairs, then the pairs, a number a
 * line. */
struct sparse_reader {
        uint64_t value;
        uint64_t offset;
        uint64_t left; /* numbers to come */
        bool digits;   /* value has some */
        bool counted;  /* left is known */
};

static inline bool sparse_reader_is_done(const struct sparse_reader *r)
{
        return r->counted && r->left == 0;
}

int sparse_reader_next(struct sparse_reader *r, struct sparse_map *m, char c, struct error *e);

/* ---- pax records ---- */

enum pax_key {
        PAX_PATH = 1 << 0,
        PAX_LINK = 1 << 1,
        PAX_SIZE = 1 << 2,
        PAX_UID = 1 << 3,
        PAX_GID = 1 << 4,
        PAX_MTIME = 1 << 5,
        PAX_MAJOR = 1 << 6,
        PAX_MINOR = 1 << 7,
        PAX_SPARSE_NAME = 1 << 8,
        PAX_SPARSE_SIZE = 1 << 9,
        PAX_SPARSE_REAL_SIZE = 1 << 10,
        PAX_SPARSE_BLOCKS = 1 << 11,
        PAX_SPARSE_OFFSET = 1 << 12, /* read, its length not yet */
        PAX_SPARSE_MAP = 1 << 13,    /* the map has pairs from the records */
        PAX_SPARSE_VERSION_MAJOR = 1 << 14,
        PAX_SPARSE_VERSION_MINOR = 1 << 15,
};

/* What records say that regfs has a use for. Zero-initialised: nothing. */
struct pax_records {
        unsigned set;     /* enum pax_key: fields that hold a value */
        unsigned deleted; /* keys that were given empty: the header's own field counts, not the global default */
        const char *path;
        const char *link;
        uint64_t size;
        uint64_t uid, gid;
        uint64_t major, minor;
        int64_t mtime;
        uint32_t mtime_nsec;
        const char *sparse_name;
        uint64_t sparse_size;
        uint64_t sparse_real_size;
        uint64_t sparse_blocks;
        uint64_t sparse_offset;
        uint64_t sparse_major;
        uint64_t sparse_minor;
        struct layer_xattr *xattrs; /* sorted by name, each name once */
        size_t xattr_count;
        size_t xattr_allocated;
        char *strings; /* global records own theirs */
};

void pax_records_clear(struct pax_records *r);
void pax_records_free(struct pax_records *r);

/* Parses the records of an extended header. TEXT is changed (values are terminated and decoded where they lie) and must
 * outlive R; TEXT[n] is writable. Pairs of a sparse map go to MAP; without one (global headers), sparse keys are
 * ignored. */
int pax_records_parse(struct pax_records *r, struct sparse_map *map, char *text, size_t n, struct error *e);

/* Values that OVER sets take the place of R's, keys it deletes go; strings are borrowed, xattrs and sparse maps not
 * touched. */
void pax_records_overlay(struct pax_records *r, const struct pax_records *over);

/* Lays RECORDS over what the global records GLOBAL say; strings are copied. */
int pax_records_set_global(struct pax_records *global, const struct pax_records *records, struct error *e);

/* Merges two sorted sets into OUT, which has room for both; where both have a name, B's counts. Returns the count. */
size_t pax_merge_xattrs(const struct layer_xattr *a, size_t a_count, const struct layer_xattr *b, size_t b_count,
                        struct layer_xattr *out);

/* Digits only, up to MAX. */
int pax_number(const char *s, uint64_t max, uint64_t *ret, struct error *e);

/* ---- entries ---- */

/* Where the map of a sparse file is. */
enum tar_sparse {
        TAR_SPARSE_NONE,
        TAR_SPARSE_GNU,     /* in the header block and extension blocks */
        TAR_SPARSE_RECORDS, /* in the pax records: 0.0 and 0.1 */
        TAR_SPARSE_DATA,    /* in front of the data: 1.0 */
};

/* Strings of a header block, NUL-terminated. */
struct tar_names {
        char name[TAR_NAME_SIZE];
        char link[TAR_LINK_SIZE];
};

/* Fills *ENTRY, which is zero, from its header block and the records that hold for it; everything but xattrs, content
 * offset and sparse map. GNU's long names come before the records; NULL or empty: there is none. On failure the path is
 * set, if nothing else. Strings point into PAX, the long names and NAMES. *ret_body: how many bytes the entry has in
 * the stream, or for a hardlink, may have. */
int tar_entry_read(const struct tar_header *h, const struct pax_records *pax, const char *long_name,
                   const char *long_link, struct tar_names *names, struct layer_entry *entry, uint64_t *ret_body,
                   enum tar_sparse *ret_sparse, struct error *e);
