/* SPDX-License-Identifier: Apache-2.0 */

#include "regfs/toc.h"

#include "regfs/io.h"

#include "file.h"

#define TOC_SECTIONS (3 + ITABLE_SECTIONS)

static struct itable_file toc_file(const struct digest *layer)
{
        return (struct itable_file) { .magic = "REGFSTOC", .what = "TOC", .version = TOC_VERSION, .subject = *layer };
}

/* Chunks come first: their place does not depend on how many there are of anything. */
static void to_sections(const struct itable *itable, const struct chunk_table *chunks,
                        struct section sections[TOC_SECTIONS])
{
        sections[0] = SECTION(SECTION_CHUNKS, chunks->chunks, chunks->chunk_count);
        sections[1] = SECTION(SECTION_CHECKPOINTS, chunks->checkpoints, chunks->checkpoint_count);
        sections[2] = SECTION(SECTION_WINDOWS, chunks->windows, chunks->windows_size);
        itable_to_sections(itable, sections + 3);
}

int toc_write_chunks(int fd, uint64_t first, const struct chunk *chunks, size_t count, struct error *e)
{
        int r = pwrite_full(fd, chunks, count * sizeof(*chunks),
                            itable_file_first(TOC_SECTIONS) + first * sizeof(*chunks));

        return r < 0 ? error_errno(e, -r, "writing the chunks of a TOC") : 0;
}

int toc_write(int fd, const struct itable *itable, const struct chunk_table *chunks, const struct digest *layer,
              enum compression compression, struct error *e)
{
        struct itable_file_identity identity = {
                .compression = compression,
                .blob_size = chunks->blob_size,
                .content_size = chunks->content_size,
                .prefetch = chunks->prefetch,
        };
        struct itable_file file = toc_file(layer);
        struct section sections[TOC_SECTIONS];

        to_sections(itable, chunks, sections);
        return itable_file_write(fd, &file, &identity, sections, TOC_SECTIONS, e);
}

int toc_open(int fd, const struct digest *layer, struct toc **ret, struct error *e)
{
        _cleanup_(toc_close_ptr) struct toc *t = calloc(1, sizeof(*t));
        struct itable_file file = toc_file(layer);
        struct itable_file_identity identity;
        struct section sections[TOC_SECTIONS];
        char shown[DIGEST_STRING_MAX];
        int r;

        if (!t)
                return error_oom(e);
        to_sections(&t->itable, &t->chunks, sections);
        r = itable_file_map(fd, &file, sections, TOC_SECTIONS, &identity, &t->map, &t->map_size, e);
        if (r < 0)
                return r;
        itable_from_sections(sections + 3, &t->itable);
        t->chunks = (struct chunk_table) {
                .chunks = sections[0].data,
                .chunk_count = sections[0].count,
                .checkpoints = sections[1].data,
                .checkpoint_count = sections[1].count,
                .windows = sections[2].data,
                .windows_size = sections[2].count,
                .content_size = identity.content_size,
                .blob_size = identity.blob_size,
                .prefetch = identity.prefetch,
        };
        t->layer = *layer;
        t->compression = identity.compression;
        if (identity.compression > COMPRESSION_ZSTD || t->itable.inode_count == 0)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "TOC of %s: %s", digest_format(layer, shown),
                                 t->itable.inode_count == 0 ? "it has no root" : "unknown compression");
        *ret = steal_ptr(t);
        return 0;
}

struct toc *toc_close(struct toc *t)
{
        if (!t)
                return NULL;
        itable_file_unmap(t->map, t->map_size);
        free(t);
        return NULL;
}

int toc_check(const struct toc *t, struct error *e)
{
        char shown[DIGEST_STRING_MAX];
        int r;

        r = itable_check(&t->itable, &t->chunks.content_size, 1, e);
        if (r == 0)
                r = chunk_table_check(&t->chunks, e);
        return r < 0 ? error_prefix(e, "TOC of %s", digest_format(&t->layer, shown)) : 0;
}
