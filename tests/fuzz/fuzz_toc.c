/* SPDX-License-Identifier: Apache-2.0 */

/* A TOC that somebody else wrote: whatever it holds, as long as its checksum is right. What toc_check accepts can be
 * merged, looked up and decoded by. */

#include <stddef.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "fuzz.h"
#include "fs/toc/file.h"
#include "regfs/toc.h"

#define HASH_START offsetof(struct itable_file_header, identity)

static const struct digest layer = { .algorithm = DIGEST_SHA256, .bytes = { 1, 2, 3 } };

/* The file, made to look like one of ours. */
static int make_file(const uint8_t *data, size_t size)
{
        _cleanup_free_ uint8_t *copy = malloc(size);
        int fd = memfd_create("fuzz", MFD_CLOEXEC);
        struct itable_file_header *h = (void *) copy;

        REQUIRE(copy && fd >= 0);
        memcpy(copy, data, size);
        memcpy(h->magic, "REGFSTOC", sizeof(h->magic));
        h->version = TOC_VERSION;
        h->file_length = size;
        h->identity.algorithm = layer.algorithm;
        memcpy(h->identity.digest, layer.bytes, sizeof(layer.bytes));
        h->hash = XXH3_64bits(copy + HASH_START, size - HASH_START);
        REQUIRE(pwrite_full(fd, copy, size, 0) == 0);
        return fd;
}

static int no_input(_unused_ void *context, _unused_ uint64_t offset, const uint8_t **ret, size_t *ret_length,
                    _unused_ struct error *e)
{
        *ret = NULL;
        *ret_length = 0;
        return 0;
}

static void decode_by(const struct chunk_table *t)
{
        static uint8_t out[CHUNK_CONTENT_MAX];

        for (size_t i = 0; i < t->chunk_count; i++)
                if (t->chunks[i].codec != CODEC_ZEROS && !(t->chunks[i].flags & CHUNK_SLICE))
                        REQUIRE(codec_decode(t, &t->chunks[i], no_input, NULL, out, NULL) < 0);
}

/* Every name is found where it stands, and a layer can be merged with itself. */
static void look_up(const struct itable *t)
{
        _cleanup_(itable_builder_free_ptr) struct itable_builder *builder = NULL;
        const struct itable *twice[] = { t, t };
        struct error e = ERROR_INIT;
        int r;

        for (uint32_t row = 0; row < t->inode_count; row++) {
                const struct inode *n = &t->inodes[row];

                if ((n->mode & S_IFMT) != S_IFDIR)
                        continue;
                for (uint32_t k = 0; k < n->count; k++) {
                        const struct dirent_row *d = &t->dirents[n->data + k];

                        REQUIRE(itable_find(t, row, dirent_name(t, d), d->name_length) == n->data + k);
                }
        }
        REQUIRE(itable_builder_new(&builder) == 0);
        r = itable_builder_merge(builder, twice, ELEMENTSOF(twice), &e);
        REQUIRE(r == 0 || (r == -EBADMSG && *e.message));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        _cleanup_(toc_close_ptr) struct toc *t = NULL;
        _cleanup_close_ int fd = -1;
        struct error e = ERROR_INIT;
        int r;

        if (size < sizeof(struct itable_file_header))
                return 0;
        fd = make_file(data, size);
        r = toc_open(fd, &layer, &t, &e);
        if (r == 0)
                r = toc_check(t, &e);
        if (r < 0) {
                REQUIRE((r == -EBADMSG || r == -ESTALE) && *e.message);
                return 0;
        }
        look_up(&t->itable);
        decode_by(&t->chunks);
        return 0;
}
