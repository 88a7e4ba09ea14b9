/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the files of the ztoc reader share: soci.c reads the root table, and leaves spans to soci_spans.c and files to
 * soci_files.c. All of them see the bytes through soci_flatbuffer.c only, and refuse with -EBADMSG and a cause in E. */

#include "region.h"

#include "regfs/chunk.h"
#include "regfs/codec.h"
#include "regfs/error.h"
#include "regfs/itable.h"

/* ---- FlatBuffers: soci_flatbuffer.c (flatbuffers.dev "FlatBuffers Internals") ---- */

/* Tables may share what they point at, so that a small buffer could tell an endless story: strings and bytes that are
 * read, each time that they are, may come to this many times the buffer. Nothing else costs more than its place. */
#define FLATBUFFER_SHARING 4

struct flatbuffer {
        const uint8_t *data;
        size_t size;
        uint64_t left; /* bytes of strings that may still be read */
};

/* Names for messages; fields are numbered in the order of the schema. */
struct fb_schema {
        const char *name;
        const char *const *fields;
};

struct fb_table {
        struct flatbuffer *buffer;
        const struct fb_schema *schema;
        size_t at;
        size_t size; /* from AT */
        size_t vtable;
        size_t vtable_size;
};

struct fb_vector {
        struct flatbuffer *buffer;
        const struct fb_schema *schema; /* of the table that has it as FIELD */
        unsigned field;
        size_t at; /* of element 0 */
        uint32_t count;
};

void flatbuffer_init(struct flatbuffer *b, const void *data, size_t n);

int fb_root(struct flatbuffer *b, const struct fb_schema *schema, struct fb_table *ret, struct error *e);

/* A number of WIDTH bytes into *RET, which keeps its value, the default, when the field is absent. */
int fb_number(const struct fb_table *t, unsigned field, void *ret, size_t width, struct error *e);

/* NUL-terminated, in the buffer; "" when absent. fb_text refuses a NUL inside. */
int fb_bytes(const struct fb_table *t, unsigned field, const char **ret, size_t *ret_length, struct error *e);
int fb_text(const struct fb_table *t, unsigned field, const char **ret, size_t *ret_length, struct error *e);

/* A table that must be there. */
int fb_table(const struct fb_table *t, unsigned field, const struct fb_schema *schema, struct fb_table *ret,
             struct error *e);

/* Elements of WIDTH bytes; none when absent. */
int fb_vector(const struct fb_table *t, unsigned field, size_t width, struct fb_vector *ret, struct error *e);

/* Element INDEX, below the count, of a vector of tables or strings (WIDTH 4). */
int fb_vector_table(const struct fb_vector *v, uint32_t index, const struct fb_schema *schema, struct fb_table *ret,
                    struct error *e);
int fb_vector_text(const struct fb_vector *v, uint32_t index, const char **ret, size_t *ret_length, struct error *e);

/* -EBADMSG with E: "Table.field: why". */
int fb_refuse(const struct fb_schema *schema, unsigned field, struct error *e, const char *format, ...) _printf_(4, 5);

/* Numbers that are int64_t in the schema, but sizes or offsets. */
int fb_size(const struct fb_table *t, unsigned field, uint64_t *ret, struct error *e);

/* ---- spans: soci_spans.c ---- */

struct ztoc_spans {
        struct region chunks;
        struct region checkpoints;
        struct region windows;
        enum compression compression;
        uint64_t content_size;
        uint64_t first;     /* gzip: where the first span begins in the blob */
        bool first_assumed; /* and the ztoc does not tell it */
};

/* INFO is the CompressionInfo of a layer of BLOB_SIZE bytes with a tar of TAR_SIZE. What it appends to S is not yet
 * checked by chunk_table_check. Returns 0, -EBADMSG with E, or -ENOMEM. */
int ztoc_spans_read(struct ztoc_spans *s, const struct fb_table *info, uint64_t blob_size, uint64_t tar_size,
                    struct error *e);
void ztoc_spans_free(struct ztoc_spans *s);

extern const struct fb_schema ztoc_compression_info;

/* ---- files: soci_files.c ---- */

/* Adds the files of TOC, whose data lies in [0, TAR_SIZE), to TREE. Returns 0, -EBADMSG with E, or -ENOMEM. */
int ztoc_files_read(struct layer_tree *tree, const struct fb_table *toc, uint64_t tar_size, struct error *e);

extern const struct fb_schema ztoc_toc;
