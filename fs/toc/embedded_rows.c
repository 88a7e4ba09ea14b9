/* SPDX-License-Identifier: Apache-2.0 */

/* Entries become a layer tree, and their chunks rows. A table is taken for sound only in the order that its writers
 * give it: that of the blob. So each chunk either begins behind the range of the one before, whose end is then
 * known, or goes on in it (innerOffset), and nothing overlaps. */

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "embedded_internal.h"
#include "layer_path.h"
#include "region.h"

#define CHUNKS_MAX 16000000u

/* Chunks longer than CHUNK_CONTENT_MAX are found out to be zeros by their digest; so much is hashed for that at
 * most. */
#define ZEROS_HASHED_MAX (8 * GIB)

/* SHA-256 of the byte 0x0f, which is what a landmark holds. */
static const uint8_t landmark_digest[SHA256_SIZE] = {
        0xdc, 0x0e, 0x9c, 0x36, 0x58, 0xa1, 0xa3, 0xed, 0x1e, 0xc9, 0x42, 0x74, 0xd8, 0xb1, 0x99, 0x25,
        0xc9, 0x3e, 0x1a, 0xbb, 0x7d, 0xdb, 0xa2, 0x94, 0x92, 0x3a, 0xd9, 0xbd, 0xe3, 0x0f, 0x8c, 0xb8,
};

struct toc_rows {
        struct layer_tree *tree;
        struct region chunks;
        uint32_t dropped; /* chunks in front of those */
        enum codec codec;
        uint64_t data_end;
        uint64_t content_size;
        uint64_t prefetch; /* content that stands before the landmark */
        uint64_t zeros;    /* bytes in chunks of zeros */
        uint64_t zeros_hashed;

        /* The regular file whose chunks come: its name is empty when there is none. */
        char name[ITABLE_PATH_MAX + 1];
        uint64_t size;
        uint64_t covered;
        uint64_t end_offset; /* of its range in the blob, or 0 */

        /* The blob range of the last chunks, while its end is not known: from row `run` on, all at run_offset. */
        bool open;
        uint32_t run;
        char run_name[ITABLE_PATH_MAX + 1]; /* of its first file */
        uint64_t run_offset;
        uint64_t run_decoded; /* where the last chunk of it ends */
        uint64_t floor;       /* no other range begins before this */
};

int toc_rows_new(enum codec codec, uint64_t data_end, struct toc_rows **ret)
{
        _cleanup_(toc_rows_free_ptr) struct toc_rows *rows = calloc(1, sizeof(*rows));

        if (!rows || layer_tree_new(&rows->tree) < 0)
                return -ENOMEM;
        rows->codec = codec;
        rows->data_end = data_end;
        *ret = steal_ptr(rows);
        return 0;
}

struct toc_rows *toc_rows_free(struct toc_rows *rows)
{
        if (!rows)
                return NULL;
        layer_tree_free(rows->tree);
        region_free(&rows->chunks);
        free(rows);
        return NULL;
}

static int refuse(const char *name, struct error *e, const char *format, ...) _printf_(3, 4);

static int refuse(const char *name, struct error *e, const char *format, ...)
{
        char shown[LAYER_PATH_SHOWN_MAX], why[200];
        va_list ap;

        va_start(ap, format);
        vsnprintf(why, sizeof(why), format, ap);
        va_end(ap);
        return error_set(e, ERROR_BAD_DATA, EBADMSG, "%s: %s", layer_path_show(name, strlen(name), shown), why);
}

/* ---- ranges ---- */

/* The range that is open ends at END. */
static int end_range(struct toc_rows *rows, uint64_t end, struct error *e)
{
        struct chunk_table t = { .content_size = rows->content_size, .blob_size = rows->data_end };
        struct chunk *first = region_at(&rows->chunks, struct chunk, rows->run);
        char shown[LAYER_PATH_SHOWN_MAX];
        int r;

        t.chunks = first;
        t.chunk_count = region_count(&rows->chunks, struct chunk) - rows->run;
        for (size_t k = 0; k < t.chunk_count; k++) {
                first[k].blob_length = end - rows->run_offset;
                if (t.chunk_count > 1)
                        first[k].flags |= CHUNK_SLICE;
        }
        rows->open = false;
        rows->floor = end;
        r = chunk_table_check(&t, e);
        return r < 0 ? error_prefix(e, "%s", layer_path_show(rows->run_name, strlen(rows->run_name), shown)) : 0;
}

/* Something begins at OFFSET: what stood before ends there. */
static int advance(struct toc_rows *rows, const char *name, uint64_t offset, struct error *e)
{
        int r;

        if (offset > rows->data_end)
                return refuse(name, e, "blob offset %" PRIu64 " lies outside of the layer's data, %" PRIu64 " bytes",
                              offset, rows->data_end);
        if (rows->open && offset > rows->run_offset) {
                r = end_range(rows, offset, e);
                if (r < 0)
                        return r;
        }
        if (offset < rows->floor || (rows->open && offset < rows->run_offset))
                return refuse(name, e, "blob offset %" PRIu64 " overlaps what stands before it, or precedes it",
                              offset);
        return 0;
}

static int append_row(struct toc_rows *rows, const struct chunk *row, struct error *e)
{
        if (rows->dropped + region_count(&rows->chunks, struct chunk) >= CHUNKS_MAX)
                return refuse(rows->name, e, "the layer has more than 16 million chunks");
        if (row->content_length > INT64_MAX - rows->content_size)
                return refuse(rows->name, e, "the layer's files have more than 2^63 bytes");
        if (!region_append(&rows->chunks, row, sizeof(*row)))
                return error_oom(e);
        rows->content_size += row->content_length;
        return 0;
}

/* ---- chunks ---- */

static int add_zeros(struct toc_rows *rows, uint64_t length, struct error *e)
{
        if (length > EMBEDDED_ZEROS_MAX - rows->zeros)
                return refuse(rows->name, e, "the layer has more than 1 TiB of zeros");
        rows->zeros += length;
        while (length > 0) {
                struct chunk row = {
                        .content_offset = rows->content_size,
                        .blob_offset = rows->floor,
                        .content_length = (uint32_t) MIN(length, (uint64_t) CHUNK_CONTENT_MAX),
                        .checkpoint = CHECKPOINT_NONE,
                        .codec = CODEC_ZEROS,
                        .flags = CHUNK_NO_DIGEST,
                };
                int r = append_row(rows, &row, e);

                if (r < 0)
                        return r;
                length -= row.content_length;
        }
        return 0;
}

/* Whether DIGEST is that of LENGTH zeros. */
static int hash_zeros(struct toc_rows *rows, uint64_t length, const struct digest *digest, bool *ret)
{
        _cleanup_(hasher_free_ptr) struct hasher *h = hasher_new(DIGEST_SHA256);
        _cleanup_free_ uint8_t *zeros = calloc(1, 64 * KIB);
        struct digest actual;
        int r = 0;

        *ret = false;
        if (length > ZEROS_HASHED_MAX - rows->zeros_hashed)
                return 0;
        rows->zeros_hashed += length;
        if (!h || !zeros)
                return -ENOMEM;
        for (uint64_t n; r == 0 && length > 0; length -= n) {
                n = MIN(length, (uint64_t) 64 * KIB);
                r = hasher_update(h, zeros, (size_t) n);
        }
        if (r == 0)
                r = hasher_finish(h, &actual);
        if (r == 0)
                *ret = digest_equal(digest, &actual);
        return r;
}

/* No buffer holds such a chunk, and it cannot be cut: one digest stands for all of it. Unless it is a hole that its
 * writer had no name for. */
static int add_long(struct toc_rows *rows, uint64_t length, const struct digest *digest, struct error *e)
{
        bool zeros;
        int r = hash_zeros(rows, length, digest, &zeros);

        if (r < 0)
                return error_errno(e, -r, "hashing");
        if (!zeros)
                return refuse(rows->name, e, "a chunk of %" PRIu64 " bytes: regfs takes chunks of at most %zu MiB",
                              length, CHUNK_CONTENT_MAX / MIB);
        return add_zeros(rows, length, e);
}

static int add_data(struct toc_rows *rows, const struct toc_entry *entry, uint64_t length, const struct digest *digest,
                    struct error *e)
{
        struct chunk row = {
                .content_offset = rows->content_size,
                .blob_offset = entry->offset,
                .skip = entry->inner_offset,
                .content_length = (uint32_t) length,
                .checkpoint = CHECKPOINT_NONE,
                .codec = (uint8_t) rows->codec,
                .flags = CHUNK_DIGEST_CONTENT,
        };

        if (!rows->open) {
                rows->open = true;
                rows->run = region_count(&rows->chunks, struct chunk);
                rows->run_offset = entry->offset;
                strcpy(rows->run_name, rows->name);
        } else if (entry->inner_offset < rows->run_decoded) {
                return refuse(rows->name, e,
                              "the chunk at blob offset %" PRIu64 ", inner offset %" PRIu64
                              ", overlaps the one before it",
                              entry->offset, entry->inner_offset);
        }
        rows->run_decoded = entry->inner_offset + length;
        memcpy(row.digest, digest->bytes, SHA256_SIZE);
        return append_row(rows, &row, e);
}

static int add_chunk(struct toc_rows *rows, const struct toc_entry *entry, struct error *e)
{
        uint64_t left = rows->size - rows->covered, length = entry->chunk_size ? entry->chunk_size : left;
        const struct digest *digest = &entry->chunk_digest;
        int r;

        if (entry->chunk_offset != rows->covered)
                return refuse(rows->name, e, "a chunk at file offset %" PRIu64 " where %" PRIu64 " is due",
                              entry->chunk_offset, rows->covered);
        if (length == 0 || length > left)
                return refuse(rows->name, e, "a chunk of %" PRIu64 " bytes where %" PRIu64 " of the file are left",
                              length, left);
        if (digest->algorithm == DIGEST_NONE && length == rows->size)
                digest = &entry->digest;
        if (digest->algorithm == DIGEST_NONE && !entry->zeros)
                return refuse(rows->name, e, "the chunk at file offset %" PRIu64 " has no digest", rows->covered);
        if (length == rows->size && entry->digest.algorithm != DIGEST_NONE && !entry->zeros &&
            !digest_equal(digest, &entry->digest))
                return refuse(rows->name, e, "one chunk, but its digest is not the file's");
        r = advance(rows, rows->name, entry->offset, e);
        if (r < 0)
                return r;
        rows->covered += length;
        if (!entry->zeros && length <= CHUNK_CONTENT_MAX)
                return add_data(rows, entry, length, digest, e);
        if (rows->open)
                return refuse(rows->name, e, "blob offset %" PRIu64 " overlaps what stands before it", entry->offset);
        rows->floor = entry->offset;
        return entry->zeros ? add_zeros(rows, length, e) : add_long(rows, length, digest, e);
}

/* ---- files ---- */

/* The entry that comes is no chunk: the file before it is complete. */
static int end_file(struct toc_rows *rows, struct error *e)
{
        int r = 0;

        if (rows->covered < rows->size)
                return refuse(rows->name, e, "its chunks hold %" PRIu64 " of its %" PRIu64 " bytes", rows->covered,
                              rows->size);
        if (rows->size > 0 && rows->end_offset > 0) {
                r = advance(rows, rows->name, rows->end_offset, e);
                if (r == 0 && rows->open)
                        r = refuse(rows->name, e, "it ends in the blob where it begins");
                rows->floor = rows->end_offset;
        }
        rows->size = rows->covered = rows->end_offset = 0;
        return r;
}

static bool is_landmark(const struct toc_entry *entry, bool *ret_prefetch)
{
        const char *name = entry->name;

        while (name[0] == '/' || (name[0] == '.' && name[1] == '/'))
                name++;
        *ret_prefetch = strcmp(name, ".prefetch.landmark") == 0;
        return entry->type == TOC_ENTRY_REGULAR && entry->size == 1 &&
               memcmp(entry->digest.bytes, landmark_digest, SHA256_SIZE) == 0 &&
               (*ret_prefetch || strcmp(name, ".no.prefetch.landmark") == 0);
}

/* Its byte is not content, but its range is the end of the one before. */
static int add_landmark(struct toc_rows *rows, const struct toc_entry *entry, bool prefetch, struct error *e)
{
        if (prefetch)
                rows->prefetch = rows->content_size;
        return advance(rows, entry->name, entry->offset, e);
}

static int add_to_tree(struct toc_rows *rows, const struct toc_entry *entry, struct error *e)
{
        static const uint32_t types[] = {
                [TOC_ENTRY_DIRECTORY] = S_IFDIR, [TOC_ENTRY_REGULAR] = S_IFREG,   [TOC_ENTRY_SYMLINK] = S_IFLNK,
                [TOC_ENTRY_HARDLINK] = S_IFREG,  [TOC_ENTRY_CHARACTER] = S_IFCHR, [TOC_ENTRY_BLOCK] = S_IFBLK,
                [TOC_ENTRY_FIFO] = S_IFIFO,
        };
        const struct layer_entry l = {
                .path = entry->name,
                .mode = types[entry->type] | (entry->mode & 07777),
                .hardlink = entry->type == TOC_ENTRY_HARDLINK,
                .link = entry->link,
                .uid = entry->uid,
                .gid = entry->gid,
                .size = entry->type == TOC_ENTRY_REGULAR ? entry->size : 0,
                .mtime = entry->mtime,
                .mtime_nsec = entry->mtime_nsec,
                .major = entry->major,
                .minor = entry->minor,
                .content_offset = rows->content_size,
                .xattrs = entry->xattrs,
                .xattr_count = entry->xattr_count,
        };

        return layer_tree_add(rows->tree, &l, e);
}

int toc_rows_add(struct toc_rows *rows, const struct toc_entry *entry, struct error *e)
{
        bool prefetch;
        int r;

        if (entry->type == TOC_ENTRY_CHUNK) {
                if (rows->size == 0)
                        return refuse(entry->name, e, "a chunk without a file in front of it");
                return add_chunk(rows, entry, e);
        }
        r = end_file(rows, e);
        if (r < 0)
                return r;
        if (is_landmark(entry, &prefetch))
                return add_landmark(rows, entry, prefetch, e);
        r = add_to_tree(rows, entry, e);
        if (r < 0 || entry->type != TOC_ENTRY_REGULAR)
                return r;
        if (entry->size == 0)
                return entry->chunk_size == 0 ? 0 : refuse(entry->name, e, "an empty file with a chunk");
        strcpy(rows->name, entry->name);
        rows->size = entry->size;
        rows->end_offset = entry->end_offset;
        return add_chunk(rows, entry, e);
}

int toc_rows_finish(struct toc_rows *rows, struct error *e)
{
        int r = end_file(rows, e);

        if (r == 0 && rows->open)
                r = end_range(rows, rows->data_end, e);
        return r < 0 ? r : layer_tree_finish(rows->tree, e);
}

size_t toc_rows_complete(const struct toc_rows *rows, const struct chunk **ret)
{
        *ret = region_array(&rows->chunks, struct chunk);
        return rows->open ? rows->run : region_count(&rows->chunks, struct chunk);
}

void toc_rows_drop(struct toc_rows *rows)
{
        const struct chunk *complete;
        size_t n = toc_rows_complete(rows, &complete);

        if (n == 0)
                return;
        memmove(rows->chunks.data, complete + n, rows->chunks.size - n * sizeof(*complete));
        region_truncate(&rows->chunks, rows->chunks.size - n * sizeof(*complete));
        rows->run = 0;
        rows->dropped += (uint32_t) n;
}

struct layer_tree *toc_rows_tree(const struct toc_rows *rows)
{
        return rows->tree;
}

void toc_rows_view(const struct toc_rows *rows, uint64_t blob_size, struct chunk_table *ret)
{
        *ret = (struct chunk_table) {
                .chunks = region_array(&rows->chunks, struct chunk),
                .chunk_count = region_count(&rows->chunks, struct chunk),
                .content_size = rows->content_size,
                .blob_size = blob_size,
                .prefetch = rows->prefetch,
        };
}
