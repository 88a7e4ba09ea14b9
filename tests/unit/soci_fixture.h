/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Ztocs as their reference writer made them, the tars and layers that they tell of, and places in them to be
 * changed. */

#include <fcntl.h>

#include "codec_streams.h"
#include "itable_text.h"

#include "regfs/io.h"
#include "regfs/soci.h"
#include "regfs/tar.h"

#define RECORDS_HEADER 12u
#define RECORD_SIZE (8u + 8u + 1u + 32768u)

static inline void read_layer_file(const char *name, struct buf *ret)
{
        const char *directory = getenv("REGFS_FIXTURES");
        struct error e = ERROR_INIT;
        char path[4096];

        snprintf(path, sizeof(path), "%s/layers/%s", directory ? directory : "tests/fixtures", name);
        if (file_read(AT_FDCWD, path, 64 * MIB, ret, &e) < 0)
                fail_msg("%s", e.message);
}

/* ---- layers ---- */

/* A layer's blob, its ztoc, and what the blob holds. */
struct layer {
        struct buf blob;
        struct buf ztoc;
        struct buf tar;
};

static inline void layer_clear(struct layer *l)
{
        buf_free(&l->blob);
        buf_free(&l->ztoc);
        buf_free(&l->tar);
}
#define _cleanup_layer_ _cleanup_(layer_clear)

static inline void layer_load(const char *blob, const char *ztoc, struct layer *ret)
{
        *ret = (struct layer) { 0 };
        read_layer_file(blob, &ret->blob);
        straight_gunzip(&ret->blob, &ret->tar);
        read_layer_file(ztoc, &ret->ztoc);
}

static inline void load_gzip(struct layer *ret)
{
        layer_load("base.tar.gz", "base.tar.gz.ztoc", ret);
}

static inline void load_tar(struct layer *ret)
{
        layer_load("base.tar.gz", "base.tar.ztoc", ret);
        ret->blob.len = 0;
        assert_int_equal(buf_append(&ret->blob, ret->tar.data, ret->tar.len), 0);
}

/* Reads a copy of the ztoc that ends where its memory does. */
static inline int read_exactly(const struct layer *l, uint8_t **ret_copy, struct ztoc **ret, struct error *e)
{
        *ret_copy = malloc(l->ztoc.len);
        assert_true(*ret_copy || l->ztoc.len == 0);
        if (l->ztoc.len > 0)
                memcpy(*ret_copy, l->ztoc.data, l->ztoc.len);
        return ztoc_read(*ret_copy, l->ztoc.len, l->blob.len, ret, e);
}

/* What the tree of a ztoc and a tar become, checked. */
struct rows {
        struct itable_builder *builder;
        struct itable table;
};

static inline void rows_make(const struct layer_tree *tree, uint64_t content_size, struct rows *ret)
{
        struct error e = ERROR_INIT;

        assert_int_equal(itable_builder_new(&ret->builder), 0);
        assert_int_equal(itable_builder_from_layer(ret->builder, tree, &e), 0);
        itable_builder_view(ret->builder, &ret->table);
        if (itable_check(&ret->table, &content_size, 1, &e) < 0)
                fail_msg("%s", e.message);
}

static inline void rows_clear(struct rows *r)
{
        itable_builder_free(r->builder);
}
#define _cleanup_rows_ _cleanup_(rows_clear)

static inline int add_tar_entry(void *context, const struct layer_entry *entry, struct error *e)
{
        return layer_tree_add(context, entry, e);
}

static inline struct layer_tree *scan_tar(const struct buf *tar)
{
        _cleanup_(tar_scanner_free_ptr) struct tar_scanner *scanner = NULL;
        struct error e = ERROR_INIT;
        struct layer_tree *tree;

        assert_int_equal(layer_tree_new(&tree), 0);
        assert_int_equal(tar_scanner_new(add_tar_entry, tree, &scanner), 0);
        assert_int_equal(tar_scanner_feed(scanner, (uint8_t *) tar->data, tar->len, &e), 0);
        assert_int_equal(tar_scanner_finish(scanner, &e), 0);
        assert_int_equal(layer_tree_finish(tree, &e), 0);
        return tree;
}

/* ---- bytes ---- */

struct range {
        const uint8_t *data;
        size_t size;
};

static inline int range_input(void *context, uint64_t offset, const uint8_t **ret, size_t *ret_length,
                              _unused_ struct error *e)
{
        const struct range *r = context;

        *ret = r->data + offset;
        *ret_length = MIN(r->size - offset, (size_t) 10000);
        return 0;
}

/* Every chunk's digest is that of its range, which alone decodes to the tar's bytes; and nothing is missing. */
static inline void expect_content(const struct layer *l, const struct ztoc *z)
{
        _cleanup_free_ uint8_t *out = malloc(CHUNK_CONTENT_MAX);
        struct chunk_table t;
        uint64_t end = 0;

        ztoc_chunks(z, &t);
        assert_int_equal(chunk_table_check(&t, NULL), 0);
        assert_int_equal(t.blob_size, l->blob.len);
        assert_true(t.content_size <= l->tar.len);
        for (size_t i = 0; i < t.chunk_count; i++) {
                const struct chunk *c = &t.chunks[i];
                struct range range = { (const uint8_t *) l->blob.data + c->blob_offset, c->blob_length };
                struct error e = ERROR_INIT;
                struct digest digest;

                assert_int_equal(c->flags, 0);
                assert_int_equal(digest_of(DIGEST_SHA256, range.data, range.size, &digest), 0);
                assert_memory_equal(c->digest, digest.bytes, SHA256_SIZE);
                if (codec_decode(&t, c, range_input, &range, out, &e) < 0)
                        fail_msg("chunk %zu: %s", i, e.message);
                assert_int_equal(c->content_offset, end);
                assert_memory_equal(out, l->tar.data + c->content_offset, c->content_length);
                end = c->content_offset + c->content_length;
        }
        assert_int_equal(end, t.content_size);
}

/* ---- places in a ztoc ---- */

/* Fields by their number in ztoc.fbs. */
enum { ZTOC_VERSION, ZTOC_TOOL, ZTOC_COMPRESSED, ZTOC_UNCOMPRESSED, ZTOC_TOC, ZTOC_INFO };
enum { INFO_ALGORITHM, INFO_MAX_SPAN_ID, INFO_DIGESTS, INFO_CHECKPOINTS };
enum { FILE_NAME, FILE_TYPE, FILE_OFFSET, FILE_SIZE, FILE_LINK, FILE_MODE, FILE_UID, FILE_GID };
enum { FILE_MTIME = 10, FILE_MAJOR, FILE_MINOR, FILE_RECORDS };
enum { RECORD_KEY, RECORD_VALUE };

static inline uint32_t get_u32(const struct buf *b, size_t at)
{
        uint32_t n;

        assert_true(range_fits(at, sizeof(n), b->len));
        memcpy(&n, b->data + at, sizeof(n));
        return n;
}

static inline uint64_t get_u64(const struct buf *b, size_t at)
{
        return get_u32(b, at) | (uint64_t) get_u32(b, at + 4) << 32;
}

static inline void put_u32(struct buf *b, size_t at, uint32_t n)
{
        assert_true(range_fits(at, sizeof(n), b->len));
        memcpy(b->data + at, &n, sizeof(n));
}

static inline void put_u64(struct buf *b, size_t at, uint64_t n)
{
        put_u32(b, at, (uint32_t) n);
        put_u32(b, at + 4, (uint32_t) (n >> 32));
}

/* Where the vtable of TABLE says where FIELD is, or 0: it is too short. */
static inline size_t slot_of(const struct buf *b, size_t table, unsigned field)
{
        size_t vtable = (size_t) ((int64_t) table - (int32_t) get_u32(b, table));
        size_t entry = 4 + 2 * (size_t) field;

        return entry < (get_u32(b, vtable) & 0xffff) ? vtable + entry : 0;
}

/* Where FIELD is, or 0: it has its default. */
static inline size_t find_place(const struct buf *b, size_t table, unsigned field)
{
        size_t slot = slot_of(b, table, field);
        uint16_t offset = 0;

        if (slot > 0)
                memcpy(&offset, b->data + slot, sizeof(offset));
        return offset > 0 ? table + offset : 0;
}

static inline size_t place_of(const struct buf *b, size_t table, unsigned field)
{
        size_t place = find_place(b, table, field);

        assert_true(place > 0);
        return place;
}

/* What the offset at PLACE leads to: a table, or the count of a vector or string. */
static inline size_t target_of(const struct buf *b, size_t place)
{
        return place + get_u32(b, place);
}

static inline size_t root_of(const struct buf *b)
{
        return target_of(b, 0);
}

static inline size_t info_of(const struct buf *b)
{
        return target_of(b, place_of(b, root_of(b), ZTOC_INFO));
}

/* The count of the vector of files. */
static inline size_t files_of(const struct buf *b)
{
        return target_of(b, place_of(b, target_of(b, place_of(b, root_of(b), ZTOC_TOC)), 0));
}

static inline size_t file_of(const struct buf *b, uint32_t index)
{
        assert_true(index < get_u32(b, files_of(b)));
        return target_of(b, files_of(b) + 4 + 4 * (size_t) index);
}

/* The file named NAME. */
static inline size_t file_named(const struct buf *b, const char *name)
{
        for (uint32_t i = 0;; i++) {
                size_t text = target_of(b, place_of(b, file_of(b, i), FILE_NAME));

                if (strcmp(b->data + text + 4, name) == 0)
                        return file_of(b, i);
        }
}

/* The characters of a string field of a table. */
static inline char *text_of(const struct buf *b, size_t table, unsigned field)
{
        return b->data + target_of(b, place_of(b, table, field)) + 4;
}

/* The characters of a span's digest. */
static inline char *digest_of_span(const struct buf *b, uint32_t index)
{
        size_t digests = target_of(b, place_of(b, info_of(b), INFO_DIGESTS));

        return b->data + target_of(b, digests + 4 + 4 * (size_t) index) + 4;
}

/* The count of the bytes of the checkpoints. */
static inline size_t checkpoints_of(const struct buf *b)
{
        return target_of(b, place_of(b, info_of(b), INFO_CHECKPOINTS));
}

static inline size_t record_of(const struct buf *b, uint32_t index)
{
        return checkpoints_of(b) + 4 + RECORDS_HEADER + (size_t) index * RECORD_SIZE;
}

static inline uint32_t span_count(const struct buf *b)
{
        return get_u32(b, place_of(b, info_of(b), INFO_MAX_SPAN_ID)) + 1;
}
