/* SPDX-License-Identifier: Apache-2.0 */

/* Archives that are valid, whatever the input: it is not the archive but says what is in it, and in which of the formats
 * that libarchive writes. What the scanner reads is what libarchive reads. */

#include <archive.h>
#include <archive_entry.h>
#include <inttypes.h>
#include <locale.h>
#include <sys/stat.h>

#include "fuzz.h"
#include "regfs/tar.h"

#define ENTRIES_MAX 12
#define ARCHIVE_MAX (512 * KIB)
#define DATA_MAX 5000

/* ---- the input as choices ---- */

struct choices {
        const uint8_t *data;
        size_t size;
};

static uint8_t choose(struct choices *c, unsigned of)
{
        return (uint8_t) (take_byte(&c->data, &c->size) % of);
}

static uint64_t number(struct choices *c)
{
        uint64_t n = 0;

        for (unsigned bytes = choose(c, 9); bytes > 0; bytes--)
                n = n << 8 | take_byte(&c->data, &c->size);
        return n;
}

/* A name of the length that a byte says, of characters that formats treat in their own ways. Slashes stand alone,
 * and none at the end, where they make a directory of a file. NUL-terminated. */
static const char *name(struct choices *c, char *out, size_t most)
{
        static const char characters[] = "abcdefgh/./..// =%\\\n\xc3\xa9";
        size_t n = take_byte(&c->data, &c->size) * 2u % most, at = 0;
        unsigned step = choose(c, 7) + 1;

        for (; at < n; at++) {
                out[at] = characters[(at * step + take_byte(&c->data, &c->size)) % (sizeof(characters) - 3)];
                if (at > 0 && out[at] == '/' && out[at - 1] == '/')
                        out[at] = '_';
        }
        if (at > 0 && out[at - 1] == '/')
                out[at - 1] = 'z';
        out[at] = '\0';
        return out;
}

/* ---- writing ---- */

static const struct {
        int (*set)(struct archive *a);
        bool pax;
        bool attributes;
} formats[] = {
        { archive_write_set_format_ustar, false, false },        { archive_write_set_format_gnutar, false, false },
        { archive_write_set_format_v7tar, false, false },        { archive_write_set_format_pax, true, true },
        { archive_write_set_format_pax_restricted, true, true },
};

static const mode_t types[] = { S_IFREG, S_IFREG, S_IFREG, S_IFDIR, S_IFLNK, S_IFCHR, S_IFBLK, S_IFIFO };

static void set_attributes(struct choices *c, struct archive_entry *x)
{
        char key[40], value[300];

        for (unsigned n = choose(c, 3); n > 0; n--) {
                size_t length = take_byte(&c->data, &c->size) + 1u;

                key[0] = 'k';
                name(c, key + 1, sizeof(key) - 2);
                memset(value, choose(c, 255), sizeof(value));
                archive_entry_xattr_add_entry(x, key, value, length);
        }
}

/* Data between holes, in order. */
static void set_extents(struct choices *c, struct archive_entry *x, size_t size)
{
        size_t at = 0;

        for (unsigned n = choose(c, 8); n > 0; n--) {
                size_t hole = number(c) % 1500, length = number(c) % 1500 + 1;

                if (!range_fits(at + hole, length, size))
                        break;
                archive_entry_sparse_add_entry(x, (int64_t) (at + hole), (int64_t) length);
                at += hole + length;
        }
}

/* libarchive writes the fraction of a time before 1970 with the wrong sign, and reads it so. */
static void set_time(struct choices *c, struct archive_entry *x, bool pax)
{
        int64_t seconds = (int64_t) (number(c) % 20000000000) - (pax ? 10000000000 : 0);

        archive_entry_set_mtime(x, seconds, pax && seconds >= 0 ? (long) (number(c) % 1000000000) : 0);
}

static void write_entry(struct choices *c, struct archive *a, struct archive_entry *x, bool pax)
{
        static uint8_t content[DATA_MAX];
        mode_t type = types[choose(c, ELEMENTSOF(types))];
        bool hardlink = type == S_IFREG && choose(c, 5) == 0;
        size_t size = type == S_IFREG && !hardlink ? number(c) % DATA_MAX : 0;
        char text[700];

        archive_entry_clear(x);
        text[0] = 'p';
        name(c, text + 1, 520);
        archive_entry_set_pathname(x, text);
        archive_entry_set_mode(x, type | (number(c) & 07777));
        archive_entry_set_size(x, (int64_t) size);
        archive_entry_set_uid(x, (int64_t) (uint32_t) number(c));
        archive_entry_set_gid(x, (int64_t) (uint32_t) number(c));
        set_time(c, x, pax);
        if (type == S_IFLNK || hardlink) {
                text[0] = 'l';
                name(c, text + 1, 520);
                if (hardlink)
                        archive_entry_set_hardlink(x, text);
                else
                        archive_entry_set_symlink(x, text);
        }
        if (S_ISCHR(type) || S_ISBLK(type)) {
                archive_entry_set_rdevmajor(x, number(c) % 4096);
                archive_entry_set_rdevminor(x, number(c) % (pax ? 1048576 : 262144));
        }
        if (pax)
                set_attributes(c, x);
        if (pax && choose(c, 3) == 0)
                set_extents(c, x, size);
        memset(content, choose(c, 256), size);
        /* What a format cannot hold is not in the archive. */
        if (archive_write_header(a, x) >= ARCHIVE_WARN)
                (void) archive_write_data(a, content, size);
}

static size_t write_archive(struct choices *c, char *out)
{
        unsigned format = choose(c, ELEMENTSOF(formats));
        struct archive *a = archive_write_new();
        struct archive_entry *x = archive_entry_new();
        size_t used = 0;

        REQUIRE(a && x && formats[format].set(a) == ARCHIVE_OK);
        REQUIRE(archive_write_set_bytes_per_block(a, 0) == ARCHIVE_OK);
        REQUIRE(archive_write_open_memory(a, out, ARCHIVE_MAX, &used) == ARCHIVE_OK);
        for (size_t i = 0; i < ENTRIES_MAX && c->size > 0; i++)
                write_entry(c, a, x, formats[format].pax);
        REQUIRE(archive_write_close(a) == ARCHIVE_OK);
        archive_write_free(a);
        archive_entry_free(x);
        return used;
}

/* ---- reading, the same line for each entry from both ---- */

static void add_bytes(struct buf *b, const void *data, size_t n)
{
        REQUIRE(buf_append_char(b, '"') == 0 && buf_append(b, data, n) == 0 && buf_append_char(b, '"') == 0);
}

struct facts {
        const char *path, *link;
        bool hardlink;
        unsigned mode, major, minor;
        uint64_t uid, gid, size, content;
        int64_t mtime;
        long nsec;
};

static void add_facts(struct buf *b, const struct facts *f)
{
        add_bytes(b, f->path, strlen(f->path));
        REQUIRE(buf_printf(b, " %o %" PRIu64 ":%" PRIu64 " %" PRIu64 " %" PRIx64 " %" PRId64 ".%ld", f->mode, f->uid,
                           f->gid, f->size, f->content, f->mtime, f->nsec) == 0);
        if (S_ISCHR(f->mode) || S_ISBLK(f->mode))
                REQUIRE(buf_printf(b, " %u:%u", f->major, f->minor) == 0);
        if (f->link) {
                REQUIRE(buf_append_str(b, f->hardlink ? " = " : " -> ") == 0);
                add_bytes(b, f->link, strlen(f->link));
        }
}

static void add_xattr(struct buf *b, const char *key, const void *value, size_t n)
{
        REQUIRE(buf_printf(b, " %s=", key) == 0);
        add_bytes(b, value, n);
}

#define HASH_START 0xcbf29ce484222325u

static uint64_t hash_byte(uint64_t hash, uint8_t byte)
{
        return (hash ^ byte) * 0x100000001b3u;
}

struct ours {
        const uint8_t *data;
        size_t size;
        struct buf *list;
};

static uint64_t hash_ours(const struct ours *o, const struct layer_entry *x)
{
        const struct extent whole = { .content_offset = x->content_offset, .length = x->size };
        const struct extent *extents = x->sparse ? x->extents : &whole;
        size_t count = x->sparse ? x->extent_count : x->size > 0;
        uint64_t hash = HASH_START, at = 0;

        for (size_t i = 0; i < count; i++) {
                REQUIRE(range_fits(extents[i].content_offset, extents[i].length, o->size));
                for (; at < extents[i].file_offset; at++)
                        hash = hash_byte(hash, 0);
                for (uint64_t k = 0; k < extents[i].length; k++, at++)
                        hash = hash_byte(hash, o->data[extents[i].content_offset + k]);
        }
        for (; at < x->size; at++)
                hash = hash_byte(hash, 0);
        return hash;
}

static int list_ours(void *context, const struct layer_entry *x, _unused_ struct error *e)
{
        struct ours *o = context;
        struct facts f = {
                .path = x->path,
                .link = x->link,
                .hardlink = x->hardlink,
                .mode = x->hardlink ? x->mode & 07777 : x->mode,
                .major = x->major,
                .minor = x->minor,
                .uid = x->uid,
                .gid = x->gid,
                .size = x->size,
                .mtime = x->mtime,
                .nsec = x->mtime_nsec,
                .content = S_ISREG(x->mode) && !x->hardlink ? hash_ours(o, x) : HASH_START,
        };

        add_facts(o->list, &f);
        for (size_t i = 0; i < x->xattr_count; i++)
                add_xattr(o->list, x->xattrs[i].name, x->xattrs[i].value, x->xattrs[i].value_length);
        return buf_append_char(o->list, '\n');
}

static int scan_ours(const uint8_t *data, size_t size, struct buf *ret, struct error *e)
{
        _cleanup_(tar_scanner_free_ptr) struct tar_scanner *t = NULL;
        struct ours o = { .data = data, .size = size, .list = ret };
        int r;

        REQUIRE(tar_scanner_new(list_ours, &o, &t) == 0);
        r = tar_scanner_feed(t, data, size, e);
        return r < 0 ? r : tar_scanner_finish(t, e);
}

/* libarchive's writer gives every attribute twice, in its own spelling and in star's; ours come sorted, each once. */
static void list_their_xattrs(struct buf *b, struct archive_entry *x)
{
        struct {
                const char *name;
                const void *value;
                size_t size;
        } found[32], one;
        size_t count = 0;

        archive_entry_xattr_reset(x);
        while (archive_entry_xattr_next(x, &one.name, &one.value, &one.size) == ARCHIVE_OK) {
                size_t i = 0;

                while (i < count && strcmp(found[i].name, one.name) < 0)
                        i++;
                if (i < count && strcmp(found[i].name, one.name) == 0)
                        continue;
                REQUIRE(count < ELEMENTSOF(found));
                memmove(&found[i + 1], &found[i], (count++ - i) * sizeof(one));
                found[i] = one;
        }
        for (size_t i = 0; i < count; i++)
                add_xattr(b, found[i].name, found[i].value, found[i].size);
}

static void list_theirs(struct buf *b, struct archive *a, struct archive_entry *x)
{
        const char *hardlink = archive_entry_hardlink(x), *symlink = archive_entry_symlink(x);
        struct facts f = {
                .path = archive_entry_pathname(x),
                .link = hardlink ? hardlink : symlink,
                .hardlink = hardlink != NULL,
                .mode = hardlink ? archive_entry_perm(x) : archive_entry_mode(x),
                .major = (unsigned) archive_entry_rdevmajor(x),
                .minor = (unsigned) archive_entry_rdevminor(x),
                .uid = (uint64_t) archive_entry_uid(x),
                .gid = (uint64_t) archive_entry_gid(x),
                .size = (uint64_t) archive_entry_size(x),
                .mtime = archive_entry_mtime(x),
                .nsec = archive_entry_mtime_nsec(x),
                .content = HASH_START,
        };
        uint8_t data[4096];
        uint64_t done = 0;
        ssize_t n;

        while ((n = archive_read_data(a, data, sizeof(data))) > 0) {
                for (ssize_t i = 0; i < n; i++)
                        f.content = hash_byte(f.content, data[i]);
                done += (uint64_t) n;
        }
        REQUIRE(n == 0);
        for (; !hardlink && done < f.size; done++) /* a hole at the end is not always handed out */
                f.content = hash_byte(f.content, 0);
        add_facts(b, &f);
        list_their_xattrs(b, x);
        REQUIRE(buf_append_char(b, '\n') == 0);
}

static void scan_theirs(const uint8_t *data, size_t size, struct buf *ret)
{
        struct archive *a = archive_read_new();
        struct archive_entry *x;
        int r;

        REQUIRE(a);
        archive_read_support_format_tar(a);
        archive_read_support_format_empty(a);
        REQUIRE(archive_read_open_memory(a, data, size) == ARCHIVE_OK);
        while ((r = archive_read_next_header(a, &x)) == ARCHIVE_OK || r == ARCHIVE_WARN)
                list_theirs(ret, a, x);
        REQUIRE(r == ARCHIVE_EOF);
        archive_read_free(a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct choices choices = { .data = data, .size = size };
        _cleanup_buf_ struct buf ours = { 0 }, theirs = { 0 };
        static char archive[ARCHIVE_MAX];
        struct error e = ERROR_INIT;
        size_t n;

        if (!setlocale(LC_ALL, "C.UTF-8"))
                return 0;
        n = write_archive(&choices, archive);
        if (scan_ours((const uint8_t *) archive, n, &ours, &e) < 0) {
                fprintf(stderr, "refused: %s\n", e.message);
                abort();
        }
        scan_theirs((const uint8_t *) archive, n, &theirs);
        if (ours.len != theirs.len || (ours.len > 0 && memcmp(ours.data, theirs.data, ours.len) != 0)) {
                fprintf(stderr, "ours:\n%s\ntheirs:\n%s\n", ours.data ? ours.data : "", theirs.data ? theirs.data : "");
                abort();
        }
        return 0;
}
