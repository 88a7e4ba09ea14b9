/* SPDX-License-Identifier: Apache-2.0 */

/* The tar scanner on any bytes: what it hands out must keep the promises of regfs/tar.h, and be the same whether the
 * stream comes whole or in pieces. The input's first byte says whether header blocks get the checksum that the fuzzer
 * cannot guess, the next eight how the rest is cut. */

#include <sys/stat.h>

#include "fuzz.h"
#include "regfs/tar.h"

struct sum {
        uint64_t hash;  /* of all entries */
        uint64_t total; /* length of the stream */
};

static void add(struct sum *s, const void *data, size_t n)
{
        for (size_t i = 0; i < n; i++)
                s->hash = (s->hash ^ ((const uint8_t *) data)[i]) * 0x100000001b3u;
        s->hash = (s->hash ^ n) * 0x100000001b3u;
}

static void add_number(struct sum *s, uint64_t n)
{
        add(s, &n, sizeof(n));
}

static void check_extents(struct sum *s, const struct layer_entry *x)
{
        uint64_t file = 0, content = 0;

        REQUIRE(S_ISREG(x->mode) && !x->hardlink);
        for (size_t i = 0; i < x->extent_count; i++) {
                const struct extent *p = &x->extents[i];

                REQUIRE(p->length > 0 && p->file_offset >= file && p->content_offset >= content);
                REQUIRE(range_fits(p->file_offset, p->length, x->size));
                REQUIRE(i > 0 ? p->content_offset == content : p->content_offset % 512 == 0);
                file = p->file_offset + p->length;
                content = p->content_offset + p->length;
                add_number(s, p->file_offset);
                add_number(s, p->content_offset);
                add_number(s, p->length);
        }
}

static int check_entry(void *context, const struct layer_entry *x, _unused_ struct error *e)
{
        struct sum *s = context;

        REQUIRE(x->path && x->mtime_nsec < 1000000000 && (x->mode & ~(uint32_t) S_IFMT) <= 07777);
        REQUIRE((x->link != NULL) == (x->hardlink || S_ISLNK(x->mode)) && (!x->link || *x->link));
        REQUIRE(x->size <= INT64_MAX && (S_ISREG(x->mode) || x->size == 0));
        REQUIRE(x->content_offset <= s->total && x->content_offset % 512 == 0);
        add(s, x->path, strlen(x->path));
        if (x->link)
                add(s, x->link, strlen(x->link));
        add_number(s, x->mode | (uint64_t) x->hardlink << 32 | (uint64_t) x->sparse << 33);
        add_number(s, (uint64_t) x->uid << 32 | x->gid);
        add_number(s, (uint64_t) x->mtime);
        add_number(s, (uint64_t) x->mtime_nsec << 32 | x->major);
        add_number(s, x->minor);
        add_number(s, x->size);
        add_number(s, x->content_offset);
        if (x->sparse)
                check_extents(s, x);
        for (size_t i = 0; i < x->xattr_count; i++) {
                REQUIRE(x->xattrs[i].name[0] && (i == 0 || strcmp(x->xattrs[i - 1].name, x->xattrs[i].name) < 0));
                add(s, x->xattrs[i].name, strlen(x->xattrs[i].name));
                add(s, x->xattrs[i].value, x->xattrs[i].value_length);
        }
        return 0;
}

static int scan(const uint8_t *data, size_t size, uint64_t seed, struct sum *s, struct error *e)
{
        struct tar_scanner *t = NULL;
        int r = 0;

        *s = (struct sum) { .total = size };
        REQUIRE(tar_scanner_new(check_entry, s, &t) == 0);
        for (size_t at = 0, n; at < size && r == 0; at += n) {
                n = size - at;
                if (seed) {
                        seed ^= seed << 13;
                        seed ^= seed >> 7;
                        seed ^= seed << 17;
                        n = MIN(n, 1 + (size_t) (seed % (seed >> 60 ? 97 : 1500)));
                }
                r = tar_scanner_feed(t, data + at, n, e);
        }
        if (r == 0)
                r = tar_scanner_finish(t, e);
        REQUIRE(r == 0 || (r == -EBADMSG && e->message[0]));
        REQUIRE(!tar_scanner_free(t));
        return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct error whole_error = ERROR_INIT, pieces_error = ERROR_INIT;
        struct sum whole, pieces;
        uint64_t seed;
        uint8_t *copy;
        int r;

        if (size < 9)
                return 0;
        memcpy(&seed, data + 1, sizeof(seed));
        copy = malloc(size - 9 + 1);
        REQUIRE(copy);
        memcpy(copy, data + 9, size - 9);
        if (data[0] % 8)
                seal_tar_headers(copy, size - 9);
        r = scan(copy, size - 9, 0, &whole, &whole_error);
        REQUIRE(scan(copy, size - 9, seed | 1, &pieces, &pieces_error) == r);
        REQUIRE(whole.hash == pieces.hash && strcmp(whole_error.message, pieces_error.message) == 0);
        free(copy);
        return 0;
}
