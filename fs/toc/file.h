/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The file format that a layer's TOC and an image index have in common: a header with a table of sections, then the
 * sections in the order of the table, each at a multiple of 8. A kind of file has one list of sections, all of them
 * present, if only with length 0. */

#include "regfs/codec.h"
#include "regfs/digest.h"
#include "regfs/error.h"
#include "regfs/itable.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the files are used where they lie, and are little-endian");

enum section_kind {
        SECTION_INODES = 1,
        SECTION_DIRENTS,
        SECTION_EXTENTS,
        SECTION_XATTR_SETS,
        SECTION_XATTR_PAIRS,
        SECTION_STRINGS,
        SECTION_CHUNKS,
        SECTION_CHECKPOINTS,
        SECTION_WINDOWS,
        SECTION_LAYERS,
};

#define SECTIONS_MAX 12

/* What the file is about. */
struct itable_file_identity {
        uint32_t algorithm; /* of the digest: the layer's, or the manifest's */
        uint8_t digest[DIGEST_MAX_SIZE];
        uint32_t compression; /* TOC: of the layer */
        uint64_t blob_size;   /* TOC */
        uint64_t content_size;
        uint64_t prefetch; /* TOC */
};

struct itable_file_header {
        char magic[8];
        uint32_t version;
        uint32_t header_length; /* with the table of sections */
        uint64_t file_length;
        uint64_t hash; /* XXH3 of all that follows, padding included */
        struct itable_file_identity identity;
        uint32_t section_count;
        uint32_t reserved;
};

struct itable_file_section {
        uint32_t kind;
        uint32_t element_size;
        uint64_t offset;
        uint64_t length; /* in bytes */
};

_Static_assert(sizeof(struct itable_file_header) == 136, "the header is part of the file format");
_Static_assert(sizeof(struct itable_file_section) == 24, "the section table is part of the file format");

/* A section in memory: to be written, or as found. The first one of a file may be in its place already, row by row as
 * the rows came: then DATA is NULL, and COUNT is not 0. */
struct section {
        enum section_kind kind;
        uint32_t element_size;
        const void *data;
        uint64_t count; /* of elements */
};

/* Sections in the order of the file; ADD with one of the macro's pointers typed, so that the size of a row follows. */
#define SECTION(k, pointer, n) \
        ((struct section) { .kind = (k), .element_size = sizeof(*(pointer)), .data = (pointer), .count = (n) })

/* The six sections of TABLE; of an empty table, the ones to expect. */
#define ITABLE_SECTIONS 6
void itable_to_sections(const struct itable *table, struct section sections[ITABLE_SECTIONS]);
void itable_from_sections(const struct section sections[ITABLE_SECTIONS], struct itable *ret);

/* Where the first section of a file of COUNT sections lies. */
static inline uint64_t itable_file_first(size_t count)
{
        return sizeof(struct itable_file_header) + count * sizeof(struct itable_file_section);
}

struct itable_file {
        const char *magic; /* of 8 bytes */
        const char *what;  /* for messages: "TOC" */
        uint32_t version;
        struct digest subject;
};

/* Writes a file to FD from position 0 and cuts FD behind it. COMPRESSION and sizes come from IDENTITY, the digest from
 * FILE. */
int itable_file_write(int fd, const struct itable_file *file, const struct itable_file_identity *identity,
                      const struct section *sections, size_t count, struct error *e);

/* Maps the file at FD, whose sections must be the COUNT of SECTIONS by kind and element size; sets their data and count
 * (below 2^32). -ESTALE for another version or other sections; -EBADMSG for another subject or a damaged file. */
int itable_file_map(int fd, const struct itable_file *file, struct section *sections, size_t count,
                    struct itable_file_identity *ret_identity, const void **ret_map, size_t *ret_size, struct error *e);
void itable_file_unmap(const void *map, size_t size);
