/* SPDX-License-Identifier: Apache-2.0 */

#include <inttypes.h>
#include <string.h>

#include "regfs/soci.h"

#include "soci_internal.h"

#define VERSION "0.9"

enum ztoc_field {
        ZTOC_VERSION,
        ZTOC_BUILD_TOOL,
        ZTOC_COMPRESSED_SIZE,
        ZTOC_UNCOMPRESSED_SIZE,
        ZTOC_TOC,
        ZTOC_COMPRESSION_INFO,
};

static const char *const fields[] = {
        [ZTOC_VERSION] = "version",
        [ZTOC_BUILD_TOOL] = "build_tool_identifier",
        [ZTOC_COMPRESSED_SIZE] = "compressed_archive_size",
        [ZTOC_UNCOMPRESSED_SIZE] = "uncompressed_archive_size",
        [ZTOC_TOC] = "toc",
        [ZTOC_COMPRESSION_INFO] = "compression_info",
};

static const struct fb_schema schema = { "Ztoc", fields };

struct ztoc {
        struct layer_tree *tree;
        struct ztoc_spans spans;
        uint64_t blob_size;
};

struct ztoc *ztoc_free(struct ztoc *z)
{
        if (!z)
                return NULL;
        layer_tree_free(z->tree);
        ztoc_spans_free(&z->spans);
        free(z);
        return NULL;
}

/* Version and sizes; *RET_TAR is how long the tar is, without what may follow its end. */
static int read_head(const struct fb_table *root, uint64_t blob_size, uint64_t *ret_tar, struct error *e)
{
        const char *version;
        uint64_t size;
        size_t n;
        int r;

        r = fb_text(root, ZTOC_VERSION, &version, &n, e);
        if (r < 0)
                return r;
        if (strcmp(version, VERSION) != 0)
                return fb_refuse(&schema, ZTOC_VERSION, e, "\"%.32s\": regfs knows " VERSION, version);
        r = fb_size(root, ZTOC_COMPRESSED_SIZE, &size, e);
        if (r < 0)
                return r;
        if (size != blob_size)
                return fb_refuse(&schema, ZTOC_COMPRESSED_SIZE, e, "%" PRIu64 ", but the layer has %" PRIu64 " bytes",
                                 size, blob_size);
        return fb_size(root, ZTOC_UNCOMPRESSED_SIZE, ret_tar, e);
}

static int read_root(struct ztoc *z, const struct fb_table *root, struct error *e)
{
        struct chunk_table chunks;
        struct fb_table table;
        uint64_t tar_size;
        int r;

        r = read_head(root, z->blob_size, &tar_size, e);
        if (r == 0)
                r = fb_table(root, ZTOC_COMPRESSION_INFO, &ztoc_compression_info, &table, e);
        if (r == 0)
                r = ztoc_spans_read(&z->spans, &table, z->blob_size, tar_size, e);
        if (r < 0)
                return r;
        ztoc_chunks(z, &chunks);
        r = chunk_table_check(&chunks, e);
        if (r == 0)
                r = fb_table(root, ZTOC_TOC, &ztoc_toc, &table, e);
        if (r == 0)
                r = ztoc_files_read(z->tree, &table, tar_size, e);
        return r == 0 ? layer_tree_finish(z->tree, e) : r;
}

int ztoc_read(const void *data, size_t n, uint64_t blob_size, struct ztoc **ret, struct error *e)
{
        _cleanup_(ztoc_free_ptr) struct ztoc *z = calloc(1, sizeof(*z));
        struct flatbuffer b;
        struct fb_table root;
        int r;

        if (!z || layer_tree_new(&z->tree) < 0)
                return error_oom(e);
        if (n > ZTOC_MAX)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "ztoc: %zu bytes: regfs takes up to %zu MiB", n,
                                 ZTOC_MAX / MIB);
        z->blob_size = blob_size;
        flatbuffer_init(&b, data, n);
        r = fb_root(&b, &schema, &root, e);
        if (r == 0)
                r = read_root(z, &root, e);
        if (r < 0)
                return r == -EBADMSG ? error_prefix(e, "ztoc") : r;
        *ret = steal_ptr(z);
        return 0;
}

const struct layer_tree *ztoc_tree(const struct ztoc *z)
{
        return z->tree;
}

void ztoc_chunks(const struct ztoc *z, struct chunk_table *ret)
{
        const struct ztoc_spans *s = &z->spans;

        *ret = (struct chunk_table) {
                .chunks = region_array(&s->chunks, struct chunk),
                .chunk_count = region_count(&s->chunks, struct chunk),
                .checkpoints = region_array(&s->checkpoints, struct checkpoint),
                .checkpoint_count = region_count(&s->checkpoints, struct checkpoint),
                .windows = (const uint8_t *) s->windows.data,
                .windows_size = s->windows.size,
                .content_size = s->content_size,
                .blob_size = z->blob_size,
        };
}

enum compression ztoc_compression(const struct ztoc *z)
{
        return z->spans.compression;
}

bool ztoc_start_is_assumed(const struct ztoc *z)
{
        return z->spans.first_assumed;
}

/* RFC 1952: FHCRC, FEXTRA, FNAME and FCOMMENT make the header longer. */
#define GZIP_LONG_HEADER 0x1e

int ztoc_check_start(const struct ztoc *z, const uint8_t start[static ZTOC_START], struct error *e)
{
        bool lengthened;

        if (z->spans.compression != COMPRESSION_GZIP)
                return 0;
        if (compression_detect(start, ZTOC_START) != COMPRESSION_GZIP)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "ztoc: made for a gzip layer, but the layer is none");
        lengthened = start[3] & GZIP_LONG_HEADER;
        if (lengthened != (z->spans.first > ZTOC_START))
                return error_set(e, ERROR_BAD_DATA, EBADMSG,
                                 "ztoc: its first span begins at byte %" PRIu64
                                 ", but the layer's gzip header has %s than 10 bytes",
                                 z->spans.first, lengthened ? "more" : "no more");
        return 0;
}
