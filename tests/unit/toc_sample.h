/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A TOC with some of everything, as a table and as a file, and what it takes to damage files. */

#include <stddef.h>
#include <sys/mman.h>
#include <xxhash.h>

#include "itable_text.h"

#include "regfs/io.h"
#include "regfs/toc.h"

#include "../../fs/toc/file.h"

#define HASH_START offsetof(struct itable_file_header, identity)

static const struct digest layer_digest = { .algorithm = DIGEST_SHA256, .bytes = { 1, 2, 3 } };

/* ---- files ---- */

static inline int new_file(void)
{
        int fd = memfd_create("regfs-test", MFD_CLOEXEC);

        assert_true(fd >= 0);
        return fd;
}

static inline size_t file_size(int fd)
{
        struct stat st;

        assert_int_equal(fstat(fd, &st), 0);
        return (size_t) st.st_size;
}

static inline uint8_t *file_bytes(int fd, size_t *ret_size)
{
        size_t n = file_size(fd);
        uint8_t *bytes = malloc(n + 1);

        assert_non_null(bytes);
        assert_int_equal(pread_full(fd, bytes, n, 0), 0);
        *ret_size = n;
        return bytes;
}

static inline int file_of(const void *bytes, size_t n)
{
        int fd = new_file();

        assert_int_equal(pwrite_full(fd, bytes, n, 0), 0);
        return fd;
}

/* Makes damage look like a file that somebody wrote so. */
static inline void set_hash(uint8_t *bytes, size_t n)
{
        struct itable_file_header *header = (void *) bytes;

        header->hash = XXH3_64bits(bytes + HASH_START, n - HASH_START);
}

/* ---- a sample with some of everything ---- */

static const struct extent sample_extents[] = { { 0, 300, 100 }, { 500, 400, 50 } };
static const struct layer_xattr sample_xattrs[] = { { "user.a", (const uint8_t *) "1", 1 },
                                                    { "user.b", (const uint8_t *) "", 0 } };

static const struct layer_entry sample_entries[] = {
        DIR("/", 0700),
        REG("a/file", 1),
        HARD("a/link", "a/file"),
        HARD("a/lower", "b/elsewhere"),
        SYM("a/sym", "../b"),
        { .path = "b/sparse",
          .mode = S_IFREG | 0600,
          .size = 1000,
          .sparse = true,
          .extents = sample_extents,
          .extent_count = 2 },
        { .path = "b/xattrs",
          .mode = S_IFREG | 0755,
          .size = 5,
          .content_offset = 50,
          .xattrs = sample_xattrs,
          .xattr_count = 2 },
        { .path = "b/c/null", .mode = S_IFCHR | 0666, .major = 1, .minor = 3 },
        { .path = "b/c/pipe", .mode = S_IFIFO | 0600 },
        WHITEOUT("b/.wh.gone"),
        WHITEOUT("b/c/.wh..wh..opq"),
        WHITEOUT("ghost/.wh.gone"),
};

static const struct chunk sample_chunks[] = {
        { .content_offset = 0,
          .blob_offset = 0,
          .blob_length = 501,
          .content_length = 600,
          .checkpoint = CHECKPOINT_NONE,
          .codec = CODEC_GZIP,
          .digest = { 1 } },
        { .content_offset = 600,
          .blob_offset = 500,
          .blob_length = 400,
          .content_length = 400,
          .checkpoint = 0,
          .codec = CODEC_GZIP,
          .digest = { 2 } },
};
static const struct checkpoint sample_checkpoint = {
        .in = 501, .out = 600, .window_length = 12, .window_raw = 600, .bits = 3
};
static const struct chunk_table sample_table = {
        .chunks = sample_chunks,
        .chunk_count = ELEMENTSOF(sample_chunks),
        .checkpoints = &sample_checkpoint,
        .checkpoint_count = 1,
        .windows = (const uint8_t *) "twelve bytes",
        .windows_size = 12,
        .content_size = 1000,
        .blob_size = 1000,
        .prefetch = 600,
};

static inline struct itable sample_itable(void)
{
        return layer_table(sample_entries, ELEMENTSOF(sample_entries));
}

static inline int sample_file(void)
{
        struct itable t = sample_itable();
        struct error e = ERROR_INIT;
        int fd = new_file();

        if (toc_write(fd, &t, &sample_table, &layer_digest, COMPRESSION_GZIP, &e) < 0)
                fail_msg("%s", e.message);
        itable_exact_free(&t);
        return fd;
}
