/* SPDX-License-Identifier: Apache-2.0 */

#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "regfs/io.h"
#include "regfs/store.h"

#include "file.h"

#define HASH_START offsetof(struct itable_file_header, identity)
#define PIECE (256 * KIB)
#define WINDOW (8 * MIB) /* of a mapping, and whole pages */

static uint64_t align8(uint64_t n)
{
        return (n + 7) & ~(uint64_t) 7;
}

void itable_to_sections(const struct itable *t, struct section sections[ITABLE_SECTIONS])
{
        sections[0] = SECTION(SECTION_INODES, t->inodes, t->inode_count);
        sections[1] = SECTION(SECTION_DIRENTS, t->dirents, t->dirent_count);
        sections[2] = SECTION(SECTION_EXTENTS, t->extents, t->extent_count);
        sections[3] = SECTION(SECTION_XATTR_SETS, t->xattr_sets, t->xattr_set_count);
        sections[4] = SECTION(SECTION_XATTR_PAIRS, t->xattr_pairs, t->xattr_pair_count);
        sections[5] = SECTION(SECTION_STRINGS, t->strings, t->strings_size);
}

void itable_from_sections(const struct section sections[ITABLE_SECTIONS], struct itable *ret)
{
        *ret = (struct itable) {
                .inodes = sections[0].data,
                .dirents = sections[1].data,
                .extents = sections[2].data,
                .xattr_sets = sections[3].data,
                .xattr_pairs = sections[4].data,
                .strings = sections[5].data,
                .inode_count = (uint32_t) sections[0].count,
                .dirent_count = (uint32_t) sections[1].count,
                .extent_count = (uint32_t) sections[2].count,
                .xattr_set_count = (uint32_t) sections[3].count,
                .xattr_pair_count = (uint32_t) sections[4].count,
                .strings_size = (uint32_t) sections[5].count,
        };
}

/* ---- writing ---- */

struct whole_header {
        struct itable_file_header header;
        struct itable_file_section table[SECTIONS_MAX];
};

static const uint8_t padding[8];

static uint64_t lay_out(const struct section *sections, size_t count, struct whole_header *h)
{
        uint64_t offset = h->header.header_length;

        for (size_t i = 0; i < count; i++) {
                h->table[i] = (struct itable_file_section) {
                        .kind = sections[i].kind,
                        .element_size = sections[i].element_size,
                        .offset = offset,
                        .length = sections[i].count * sections[i].element_size,
                };
                offset = align8(offset + h->table[i].length);
        }
        return offset;
}

static bool is_in_place(const struct section *s)
{
        return !s->data && s->count > 0;
}

static int hash_file(int fd, uint64_t offset, uint64_t length, XXH3_state_t *state)
{
        _cleanup_free_ char *piece = malloc(PIECE);
        int r = piece ? 0 : -ENOMEM;

        for (size_t n; r == 0 && length > 0; offset += n, length -= n) {
                n = (size_t) MIN(length, (uint64_t) PIECE);
                r = pread_full(fd, piece, n, offset);
                if (r == 0)
                        XXH3_64bits_update(state, piece, n);
        }
        return r;
}

static int hash_sections(int fd, const struct whole_header *h, const struct section *sections, size_t count,
                         uint64_t *ret)
{
        XXH3_state_t *state = XXH3_createState();
        int r = 0;

        if (!state)
                return -ENOMEM;
        XXH3_64bits_reset(state);
        XXH3_64bits_update(state, (const char *) h + HASH_START, h->header.header_length - HASH_START);
        for (size_t i = 0; r == 0 && i < count; i++) {
                uint64_t length = h->table[i].length;

                if (is_in_place(&sections[i]))
                        r = hash_file(fd, h->table[i].offset, length, state);
                else if (length > 0)
                        XXH3_64bits_update(state, sections[i].data, length);
                XXH3_64bits_update(state, padding, align8(length) - length);
        }
        *ret = XXH3_64bits_digest(state);
        XXH3_freeState(state);
        return r;
}

static int write_sections(int fd, const struct whole_header *h, const struct section *sections, size_t count)
{
        uint64_t kept = is_in_place(&sections[0]) ? h->table[0].offset + h->table[0].length : 0;
        int r;

        /* The padding comes from the cut: a file grows by zeros. */
        if (ftruncate(fd, (off_t) kept) < 0 || ftruncate(fd, (off_t) h->header.file_length) < 0)
                return -errno;
        r = pwrite_full(fd, h, h->header.header_length, 0);
        for (size_t i = 0; r == 0 && i < count; i++)
                if (h->table[i].length > 0 && !is_in_place(&sections[i]))
                        r = pwrite_full(fd, sections[i].data, h->table[i].length, h->table[i].offset);
        return r;
}

int itable_file_write(int fd, const struct itable_file *file, const struct itable_file_identity *identity,
                      const struct section *sections, size_t count, struct error *e)
{
        struct whole_header h = { 0 };
        char subject[DIGEST_STRING_MAX];
        int r;

        memcpy(h.header.magic, file->magic, sizeof(h.header.magic));
        h.header.version = file->version;
        h.header.header_length = (uint32_t) itable_file_first(count);
        h.header.identity = *identity;
        h.header.identity.algorithm = file->subject.algorithm;
        memcpy(h.header.identity.digest, file->subject.bytes, DIGEST_MAX_SIZE);
        h.header.section_count = (uint32_t) count;
        h.header.file_length = lay_out(sections, count, &h);
        r = hash_sections(fd, &h, sections, count, &h.header.hash);
        if (r == 0)
                r = write_sections(fd, &h, sections, count);
        return r < 0 ? error_errno(e, -r, "writing the %s of %s", file->what, digest_format(&file->subject, subject))
                     : 0;
}

/* ---- reading ---- */

struct reader {
        const struct itable_file *file;
        const uint8_t *map;
        size_t size;
        struct error *e;
};

static int refuse(const struct reader *r, int code, const char *why)
{
        char subject[DIGEST_STRING_MAX];

        return error_set(r->e, code == EBADMSG ? ERROR_BAD_DATA : ERROR_OTHER, code, "%s of %s: %s", r->file->what,
                         digest_format(&r->file->subject, subject), why);
}

/* The pages stay in the page cache; only those that somebody looks at later count as this process's memory. */
static int hash_map(const uint8_t *map, size_t size, uint64_t *ret)
{
        XXH3_state_t *state = XXH3_createState();

        if (!state)
                return -ENOMEM;
        XXH3_64bits_reset(state);
        for (size_t at = 0, n; at < size; at += n) {
                size_t begin = MAX(at, (size_t) HASH_START);

                n = MIN(size - at, (size_t) WINDOW);
                XXH3_64bits_update(state, map + begin, at + n - begin);
                madvise((void *) (map + at), n, MADV_DONTNEED);
        }
        *ret = XXH3_64bits_digest(state);
        XXH3_freeState(state);
        return 0;
}

static int check_header(const struct reader *r, size_t count)
{
        const struct itable_file_header *h = (const void *) r->map;
        struct digest subject = { 0 };
        uint64_t hash;

        if (memcmp(h->magic, r->file->magic, sizeof(h->magic)) != 0)
                return refuse(r, EBADMSG, "the file is none");
        if (h->version != r->file->version)
                return refuse(r, ESTALE, "the file has another version");
        if (h->file_length != r->size)
                return refuse(r, EBADMSG, "the file is cut or has grown");
        if (h->section_count != count || h->header_length != sizeof(*h) + count * sizeof(struct itable_file_section))
                return refuse(r, ESTALE, "the file has other sections");
        if (h->header_length > r->size)
                return refuse(r, EBADMSG, "the file is cut");
        if (hash_map(r->map, r->size, &hash) < 0)
                return error_oom(r->e);
        if (hash != h->hash)
                return refuse(r, EBADMSG, "the file's checksum is wrong");
        subject.algorithm = h->identity.algorithm;
        memcpy(subject.bytes, h->identity.digest, sizeof(subject.bytes));
        if (!digest_equal(&subject, &r->file->subject))
                return refuse(r, EBADMSG, "the file is another's");
        return 0;
}

static int find_sections(const struct reader *r, struct section *sections, size_t count)
{
        const struct itable_file_header *h = (const void *) r->map;
        const struct itable_file_section *table = (const void *) (h + 1);
        uint64_t end = h->header_length;

        for (size_t i = 0; i < count; i++) {
                const struct itable_file_section *s = &table[i];

                if (s->kind != sections[i].kind || s->element_size != sections[i].element_size)
                        return refuse(r, ESTALE, "the file has other sections");
                if (s->offset != end || !range_fits(s->offset, s->length, r->size) ||
                    s->length % s->element_size != 0 || s->length / s->element_size > UINT32_MAX)
                        return refuse(r, EBADMSG, "a section is out of bounds");
                sections[i].data = r->map + s->offset;
                sections[i].count = s->length / s->element_size;
                end = align8(s->offset + s->length);
        }
        if (end != r->size)
                return refuse(r, EBADMSG, "there is something behind the last section");
        return 0;
}

int itable_file_map(int fd, const struct itable_file *file, struct section *sections, size_t count,
                    struct itable_file_identity *ret_identity, const void **ret_map, size_t *ret_size, struct error *e)
{
        struct reader reader = { .file = file, .e = e };
        const void *map;
        struct stat st;
        int r;

        if (fstat(fd, &st) < 0)
                return error_errno(e, errno, "%s", file->what);
        if (!S_ISREG(st.st_mode) || st.st_size < (off_t) sizeof(struct itable_file_header))
                return refuse(&reader, EBADMSG, "the file is none");
        reader.size = (size_t) st.st_size;
        r = store_map_file(fd, reader.size, &map);
        if (r < 0)
                return error_errno(e, -r, "mapping the %s", file->what);
        reader.map = map;
        r = check_header(&reader, count);
        if (r == 0)
                r = find_sections(&reader, sections, count);
        if (r < 0) {
                itable_file_unmap(map, reader.size);
                return r;
        }
        *ret_identity = ((const struct itable_file_header *) map)->identity;
        *ret_map = map;
        *ret_size = reader.size;
        return 0;
}

void itable_file_unmap(const void *map, size_t size)
{
        if (map)
                munmap((void *) map, size);
}
