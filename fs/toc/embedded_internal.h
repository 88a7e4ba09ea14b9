/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the files of embedded tables of contents share. Bytes go one way:
 *
 *     blob → embedded.c → estargz.c, zstdchunked.c → embedded.c → embedded_json.c → embedded_rows.c
 *            fetches      decode                     hashes       entries           tree and chunks */

#include "regfs/chunk.h"
#include "regfs/digest.h"
#include "regfs/embedded.h"
#include "regfs/error.h"
#include "regfs/itable.h"

/* ---- entries: embedded_json.c ---- */

enum toc_entry_type {
        TOC_ENTRY_NONE,
        TOC_ENTRY_DIRECTORY,
        TOC_ENTRY_REGULAR,
        TOC_ENTRY_SYMLINK,
        TOC_ENTRY_HARDLINK,
        TOC_ENTRY_CHARACTER,
        TOC_ENTRY_BLOCK,
        TOC_ENTRY_FIFO,
        TOC_ENTRY_CHUNK, /* one more chunk of the regular file before it */
};

/* An entry as the table has it; members that are absent are 0, "" or a digest without algorithm. */
struct toc_entry {
        enum toc_entry_type type;
        const char *name;
        const char *link;
        uint64_t size;
        int64_t mtime;
        uint32_t mtime_nsec;
        uint32_t mode, uid, gid, major, minor;
        uint64_t offset, end_offset;       /* in the blob */
        uint64_t inner_offset;             /* in what is decoded there */
        uint64_t chunk_offset, chunk_size; /* in the file */
        bool zeros;
        struct digest digest;             /* of the whole file */
        struct digest chunk_digest;       /* SHA-256, as the other one */
        const struct layer_xattr *xattrs; /* those with a value, as in tar.h */
        size_t xattr_count;
};

/* ENTRY and everything in it is borrowed for the call. Return 0 or -errno with E; that ends the parse. */
typedef int toc_entry_fn(void *context, const struct toc_entry *entry, struct error *e);

/* The JSON of a table of contents, pushed in pieces of any size: {"version": 1, "entries": [{…}, …]}. Unknown
 * members are passed over. Memory is bounded, whatever comes. */
struct toc_parser;

int toc_parser_new(toc_entry_fn *entry, void *context, struct toc_parser **ret);
struct toc_parser *toc_parser_free(struct toc_parser *p);
DEFINE_CLEANUP(struct toc_parser *, toc_parser_free)

/* Returns 0; -EBADMSG with E naming entry, member and cause, or the byte: what is no JSON, nests more than 32 deep
 * or has a token of more than 1 MiB; members of a wrong type or out of range, twice in an entry, or spelt in another
 * case (Go's reader takes both, and the last of two: no two readers shall see different trees); names and targets
 * past 4096 bytes or with a NUL; what the callback returns. After a failure every call fails with its code. */
int toc_parser_feed(struct toc_parser *p, const uint8_t *data, size_t n, struct error *e);
int toc_parser_finish(struct toc_parser *p, struct error *e);

/* RFC 3339 ("2023-11-14T22:13:20.5+01:00") as seconds since 1970 and nanoseconds; digits past those are dropped.
 * Returns 0 or -EINVAL. */
int toc_time_parse(const char *s, size_t n, int64_t *ret_seconds, uint32_t *ret_nanoseconds);

/* ---- tree and chunks: embedded_rows.c ---- */

/* Takes the entries in the order of the table. */
struct toc_rows;

/* Chunks of CODEC whose ranges lie in [0, DATA_END) of the blob. */
int toc_rows_new(enum codec codec, uint64_t data_end, struct toc_rows **ret);
struct toc_rows *toc_rows_free(struct toc_rows *rows);
DEFINE_CLEANUP(struct toc_rows *, toc_rows_free)

/* Returns 0; -EBADMSG with E naming entry and cause: a chunk that belongs to no file, whose size does not fit the
 * file's, whose range lies outside of the data, overlaps another one or stands before it, that cannot hold what it
 * claims, or that has no digest; what layer_tree_add refuses; -ENOMEM. */
int toc_rows_add(struct toc_rows *rows, const struct toc_entry *entry, struct error *e);

/* Ends the last chunk, and the tree. */
int toc_rows_finish(struct toc_rows *rows, struct error *e);

/* The chunks that are complete so far, in order; toc_rows_drop makes room where they are kept elsewhere. */
size_t toc_rows_complete(const struct toc_rows *rows, const struct chunk **ret);
void toc_rows_drop(struct toc_rows *rows);

/* Valid while ROWS lives; the chunks are those that were not dropped. */
struct layer_tree *toc_rows_tree(const struct toc_rows *rows);
void toc_rows_view(const struct toc_rows *rows, uint64_t blob_size, struct chunk_table *ret);

/* ---- where the table is, and its decoding: estargz.c, zstdchunked.c ---- */

/* [offset, offset + length) of the blob, or all of another one. */
struct toc_place {
        enum codec codec;
        bool external; /* which one, the footer does not say: offset and length are 0 */
        uint64_t offset;
        uint64_t length;
        uint64_t decoded;  /* bytes, or 0 where that is not told */
        uint64_t data_end; /* of the files' data in front of it */
};

/* Finds the footer at the end of a blob of SIZE bytes, the last N of which are at TAIL. Returns 0; -EBADMSG with E
 * when there is none or it tells what cannot be. */
int estargz_footer(const uint8_t *tail, size_t n, uint64_t size, struct toc_place *ret, struct error *e);
int zstdchunked_footer(const uint8_t *tail, size_t n, uint64_t size, struct toc_place *ret, struct error *e);

/* The value of the annotation manifest-position, for a blob of SIZE bytes. Returns 0 or -EBADMSG with E. */
int zstdchunked_position(const char *text, uint64_t size, struct toc_place *ret, struct error *e);

/* What a footer or an annotation says must lie inside a blob of SIZE bytes, and within EMBEDDED_TOC_MAX. */
int toc_place_check(const struct toc_place *place, uint64_t size, struct error *e);

/* Takes the JSON. Return 0 or -errno with E; that ends the decoding. */
typedef int toc_output_fn(void *context, const uint8_t *data, size_t n, struct error *e);

/* A decoding of the bytes at a place: pushed in pieces of any size, JSON comes out. */
struct toc_decoder;

struct toc_decoder_ops {
        int (*open)(toc_output_fn *output, void *context, struct toc_decoder **ret, struct error *e);
        int (*feed)(struct toc_decoder *d, const uint8_t *data, size_t n, struct error *e);
        int (*finish)(struct toc_decoder *d, struct error *e); /* -EBADMSG with E when the end is missing */
        void (*close)(struct toc_decoder *d);                  /* NULL is legal */
};

extern const struct toc_decoder_ops estargz_decoder;
extern const struct toc_decoder_ops zstdchunked_decoder;
