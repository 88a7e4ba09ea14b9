/* SPDX-License-Identifier: Apache-2.0 */

/* The bytes of a layer's files: what the chunks of its TOC decode to, against what the tar has.
 *
 * Files that both trees have become segments: so many bytes of the told content space, which are to equal so many of
 * the tar's. The chunks pass once, in content order, and so do the segments. Where the told space is the tar's own
 * decoded stream, every byte of a chunk must equal the tar's at the same place, headers too, and segments matter only
 * for files that the two trees find at different places of it. */

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "regfs/io.h"
#include "toc/layer_path.h"
#include "toc/region.h"
#include "verify_internal.h"

#define PIECE ((uint64_t) MIB)
#define ZEROS UINT64_MAX /* in place of a content offset: a hole */

struct segment {
        uint64_t told, truth; /* content offsets, or ZEROS */
        uint64_t length;
        uint64_t file_offset;
        uint32_t row; /* of the told table */
        uint32_t reserved;
};

struct content_check {
        struct layer_check *layer;
        const struct toc *told, *truth;
        bool one_space; /* told content offsets are the tar's */
        struct region region;
        struct segment *segments; /* in the region, by told offset; at the end, by file */
        size_t count;
        size_t first;        /* those before end before the chunk that comes */
        uint64_t passed;     /* told content so far */
        uint32_t complained; /* about this row last: once is enough */
        uint8_t *a, *b;      /* a PIECE each */
};

static void content_check_clear(struct content_check *c)
{
        region_free(&c->region);
        free(c->a);
        free(c->b);
}

/* ---- segments ---- */

/* A regular file, or a cursor on its extents. */
struct pieces {
        const struct inode *inode;
        const struct extent *at, *end; /* of a sparse one */
};

static struct pieces pieces_of(const struct itable *t, const struct inode *i)
{
        struct pieces p = { .inode = i };

        if (i->flags & INODE_SPARSE) {
                p.at = t->extents + i->data;
                p.end = p.at + i->count;
        }
        return p;
}

/* Where the content of file offset POSITION is, and how far it goes on like that. Positions only grow. */
static uint64_t piece_at(struct pieces *p, uint64_t position, uint64_t *ret_length)
{
        if (!(p->inode->flags & INODE_SPARSE)) {
                *ret_length = p->inode->size - position;
                return p->inode->data + position;
        }
        while (p->at < p->end && p->at->file_offset + p->at->length <= position)
                p->at++;
        if (p->at == p->end || p->at->file_offset > position) {
                *ret_length = (p->at < p->end ? p->at->file_offset : p->inode->size) - position;
                return ZEROS;
        }
        *ret_length = p->at->file_offset + p->at->length - position;
        return p->at->content_offset + (position - p->at->file_offset);
}

static int add_file(struct content_check *c, uint32_t row, const struct inode *told, const struct inode *truth,
                    struct error *e)
{
        struct pieces a = pieces_of(&c->told->itable, told), b = pieces_of(&c->truth->itable, truth);
        uint64_t n, m;

        for (uint64_t at = 0; at < told->size; at += n) {
                struct segment s = { .file_offset = at, .row = row };

                s.told = piece_at(&a, at, &n);
                s.truth = piece_at(&b, at, &m);
                s.length = n = MIN(n, m);
                if (s.told == ZEROS && s.truth == ZEROS)
                        continue;
                if (!region_append(&c->region, &s, sizeof(s)))
                        return error_oom(e);
        }
        return 0;
}

static int by_told_offset(const void *a, const void *b)
{
        const struct segment *x = a, *y = b;

        return (x->told > y->told) - (x->told < y->told);
}

/* Files of another size were found out before. */
static int make_segments(struct content_check *c, struct error *e)
{
        const struct itable *told = &c->told->itable;

        for (uint32_t row = 0; row < told->inode_count; row++) {
                const struct inode *i = &told->inodes[row], *o;
                int r;

                if (!S_ISREG(i->mode) || c->layer->pairs[row].other == ITABLE_NONE)
                        continue;
                o = &c->truth->itable.inodes[c->layer->pairs[row].other];
                if (i->size != o->size)
                        continue;
                r = add_file(c, row, i, o, e);
                if (r < 0)
                        return r;
        }
        c->count = region_count(&c->region, struct segment);
        c->segments = region_array(&c->region, struct segment);
        if (c->count > 0)
                qsort(c->segments, c->count, sizeof(*c->segments), by_told_offset);
        return 0;
}

/* The first segment that begins behind OFFSET. */
static size_t segment_behind(const struct content_check *c, uint64_t offset)
{
        size_t low = 0, high = c->count;

        while (low < high) {
                size_t middle = low + (high - low) / 2;

                if (c->segments[middle].told <= offset)
                        low = middle + 1;
                else
                        high = middle;
        }
        return low;
}

/* The one that has told content OFFSET, or NULL. */
static const struct segment *segment_at(const struct content_check *c, uint64_t offset)
{
        size_t k = segment_behind(c, offset);

        return k > 0 && offset - c->segments[k - 1].told < c->segments[k - 1].length ? &c->segments[k - 1] : NULL;
}

/* ---- what is wrong ---- */

static int show_path(const struct content_check *c, uint32_t row, char shown[LAYER_PATH_SHOWN_MAX], struct error *e)
{
        _cleanup_buf_ struct buf path = { 0 };

        if (row_pair_path(&c->told->itable, c->layer->pairs, row, &path) < 0)
                return error_oom(e);
        layer_path_show(path.data, path.len, shown);
        return 0;
}

static int complain(struct content_check *c, const struct segment *s, uint64_t file_offset, struct error *e)
{
        char shown[LAYER_PATH_SHOWN_MAX];
        int r;

        if (c->complained == s->row)
                return 0;
        c->complained = s->row;
        r = show_path(c, s->row, shown, e);
        if (r == 0)
                verify_problem(c->layer, "%s: from byte %" PRIu64 " on, other bytes by the table than in the tar",
                               shown, file_offset);
        return r;
}

/* ---- the tar's bytes ---- */

static int read_true(struct content_check *c, uint64_t offset, size_t n, uint8_t *out, struct error *e)
{
        const struct fetch_part part = { .fetcher = c->layer->fetcher, .offset = offset, .length = n };

        if (offset == ZEROS) {
                memset(out, 0, n);
                return 0;
        }
        return fetch_cached(&part, 1, out) == 0 ? 0 : fetch_wait(&part, 1, out, e);
}

static size_t first_difference(const uint8_t *a, const uint8_t *b, size_t n)
{
        size_t k = 0;

        while (k < n && a[k] == b[k])
                k++;
        return k;
}

/* How many of N bytes at DATA (NULL: zeros) the tar has at TRUTH, up to the first other one. */
static int count_equal(struct content_check *c, const uint8_t *data, uint64_t truth, uint64_t n, uint64_t *ret,
                       struct error *e)
{
        for (uint64_t at = 0; at < n;) {
                size_t m = (size_t) MIN(n - at, PIECE);
                int r = verify_check_cancel(c->layer, e);

                if (r == 0)
                        r = read_true(c, truth == ZEROS ? ZEROS : truth + at, m, c->a, e);
                if (r < 0)
                        return r;
                if (data ? memcmp(data + at, c->a, m) != 0 : !bytes_are_zero(c->a, m)) {
                        if (!data)
                                memset(c->b, 0, m);
                        *ret = at + first_difference(data ? data + at : c->b, c->a, m);
                        return 0;
                }
                at += m;
        }
        *ret = n;
        return 0;
}

/* ---- chunks as they pass ---- */

/* Told content [offset, offset + n) by its segments. */
static int compare_segments(struct content_check *c, uint64_t offset, uint64_t n, const uint8_t *data, struct error *e)
{
        uint64_t end = offset + n;

        while (c->first < c->count && c->segments[c->first].told < end &&
               c->segments[c->first].told + c->segments[c->first].length <= offset)
                c->first++;
        for (size_t k = c->first; k < c->count && c->segments[k].told < end; k++) {
                const struct segment *s = &c->segments[k];
                uint64_t from = MAX(s->told, offset), to = MIN(s->told + s->length, end), equal;
                uint64_t truth = s->truth == ZEROS ? ZEROS : s->truth + (from - s->told);
                int r;

                if (from >= to)
                        continue;
                r = count_equal(c, data ? data + (from - offset) : NULL, truth, to - from, &equal, e);
                if (r == 0 && equal < to - from)
                        r = complain(c, s, s->file_offset + (from - s->told) + equal, e);
                if (r < 0)
                        return r;
        }
        return 0;
}

/* … or against the tar's stream at the same place. */
static int compare_stream(struct content_check *c, uint64_t offset, uint64_t n, const uint8_t *data, struct error *e)
{
        uint64_t size = c->truth->chunks.content_size, equal = 0;
        const struct segment *s;
        int r;

        n = offset < size ? MIN(n, size - offset) : 0;
        r = count_equal(c, data, offset, n, &equal, e);
        if (r < 0 || equal == n)
                return r;
        s = segment_at(c, offset + equal);
        if (s)
                return complain(c, s, s->file_offset + (offset + equal - s->told), e);
        verify_problem(c->layer, "content byte %" PRIu64 ", which is in no file, is another one than in the tar",
                       offset + equal);
        return 0;
}

/* The path of the first file that has some of [offset, end). */
static int show_first_file(const struct content_check *c, uint64_t offset, uint64_t end,
                           char shown[LAYER_PATH_SHOWN_MAX], struct error *e)
{
        const struct segment *s = segment_at(c, offset);
        size_t k = segment_behind(c, offset);

        if (!s && k < c->count && c->segments[k].told < end)
                s = &c->segments[k];
        if (s)
                return show_path(c, s->row, shown, e);
        snprintf(shown, LAYER_PATH_SHOWN_MAX, "content in no file");
        return 0;
}

/* What no chunk has reads as zeros. A table of a stream leaves nothing out. */
static int pass_gap(struct content_check *c, uint64_t until, struct error *e)
{
        uint64_t from = c->passed;
        char shown[LAYER_PATH_SHOWN_MAX];
        int r;

        if (until <= from)
                return 0;
        c->passed = until;
        if (!c->one_space)
                return compare_segments(c, from, until - from, NULL, e);
        r = show_first_file(c, from, until, shown, e);
        if (r == 0)
                verify_problem(c->layer, "%s: no chunk has content bytes %" PRIu64 "-%" PRIu64, shown, from, until - 1);
        return r;
}

static int on_good(void *context, const struct chunk *chunk, const uint8_t *data, struct error *e)
{
        struct content_check *c = context;
        int r = verify_check_cancel(c->layer, e);

        if (r == 0)
                r = pass_gap(c, chunk->content_offset, e);
        if (r == 0 && c->one_space)
                r = compare_stream(c, chunk->content_offset, chunk->content_length, data, e);
        else if (r == 0)
                r = compare_segments(c, chunk->content_offset, chunk->content_length, data, e);
        c->passed = chunk->content_offset + chunk->content_length;
        verify_passed(c->layer, chunk->blob_offset + chunk->blob_length);
        return r;
}

static int on_bad(void *context, const struct chunk *chunk, const struct error *why, struct error *e)
{
        struct content_check *c = context;
        uint64_t end = chunk->content_offset + chunk->content_length;
        char shown[LAYER_PATH_SHOWN_MAX];
        int r = pass_gap(c, chunk->content_offset, e);

        if (r == 0)
                r = show_first_file(c, chunk->content_offset, end, shown, e);
        if (r == 0)
                verify_problem(c->layer, "%s: the chunk of %" PRIu32 " bytes in blob bytes %" PRIu64 "-%" PRIu64 ": %s",
                               shown, chunk->content_length, chunk->blob_offset,
                               chunk->blob_offset + chunk->blob_length - 1, why->message);
        c->passed = end;
        verify_passed(c->layer, chunk->blob_offset + chunk->blob_length);
        return r;
}

/* ---- what chunks do not show ---- */

/* A file that the two trees find at different places of one space, or that is a hole in the told one. */
static int compare_places(struct content_check *c, const struct segment *s, struct error *e)
{
        for (uint64_t at = 0; at < s->length; at += PIECE) {
                uint64_t n = MIN(s->length - at, PIECE), equal;
                int r;

                if (s->told != ZEROS && !range_fits(s->told + at, n, c->truth->chunks.content_size))
                        return complain(c, s, s->file_offset + at, e);
                r = read_true(c, s->told == ZEROS ? ZEROS : s->told + at, (size_t) n, c->b, e);
                if (r == 0)
                        r = count_equal(c, c->b, s->truth == ZEROS ? ZEROS : s->truth + at, n, &equal, e);
                if (r < 0)
                        return r;
                if (equal < n)
                        return complain(c, s, s->file_offset + at + equal, e);
        }
        return 0;
}

static int by_file(const void *a, const void *b)
{
        const struct segment *x = a, *y = b;

        if (x->row != y->row)
                return x->row < y->row ? -1 : 1;
        return (x->file_offset > y->file_offset) - (x->file_offset < y->file_offset);
}

/* File by file, so that the first byte that differs is told. */
static int compare_rest(struct content_check *c, struct error *e)
{
        int r = 0;

        if (c->count > 0)
                qsort(c->segments, c->count, sizeof(*c->segments), by_file);
        for (size_t k = 0; k < c->count && r == 0; k++)
                if (c->segments[k].told == ZEROS || (c->one_space && c->segments[k].told != c->segments[k].truth))
                        r = compare_places(c, &c->segments[k], e);
        return r;
}

/* ---- files that the table leaves out ---- */

/* The digest of one whole file of the tar. */
static int hash_true(struct content_check *c, const struct inode *i, struct digest *ret, struct error *e)
{
        _cleanup_(hasher_free_ptr) struct hasher *h = hasher_new(DIGEST_SHA256);
        struct pieces p = pieces_of(&c->truth->itable, i);
        uint64_t n;
        int r = 0;

        if (!h)
                return error_oom(e);
        for (uint64_t at = 0; r == 0 && at < i->size; at += n) {
                uint64_t truth = piece_at(&p, at, &n);

                n = MIN(n, PIECE);
                r = verify_check_cancel(c->layer, e);
                if (r == 0)
                        r = read_true(c, truth, (size_t) n, c->a, e);
                if (r < 0)
                        return r;
                r = hasher_update(h, c->a, (size_t) n);
        }
        if (r == 0)
                r = hasher_finish(h, ret);
        return r < 0 ? error_errno(e, -r, "hashing") : 0;
}

/* Only what it is called for may hide: the table by which the layer is read, and a landmark's one byte. */
static int check_hidden(struct content_check *c, const char *name, bool mark, struct error *e)
{
        const struct itable *truth = &c->truth->itable;
        uint32_t dirent = itable_find(truth, 0, name, strlen(name));
        const struct dirent_row *d = dirent == ITABLE_NONE ? NULL : &truth->dirents[dirent];
        char landmark[2 * DIGEST_MAX_SIZE + 1], actual[2 * DIGEST_MAX_SIZE + 1];
        const char *expected = str_after(c->layer->layer->kind, "estargz-");
        struct digest digest;
        int r;

        if (!d || d->type != DIRENT_INODE || !S_ISREG(truth->inodes[d->target].mode) ||
            itable_find(&c->told->itable, 0, name, strlen(name)) != ITABLE_NONE)
                return 0;
        if (mark) {
                r = digest_of(DIGEST_SHA256, "\x0f", 1, &digest);
                if (r < 0)
                        return error_errno(e, -r, "hashing");
                expected = digest_hex(&digest, landmark);
        }
        r = hash_true(c, &truth->inodes[d->target], &digest, e);
        if (r == 0 && !str_eq(expected, digest_hex(&digest, actual)))
                verify_problem(c->layer,
                               "%s: nothing in the table, a regular file in the tar, with other bytes than %s", name,
                               mark ? "a landmark" : "the table");
        return r;
}

int verify_content(struct layer_check *layer, struct error *e)
{
        _cleanup_(content_check_clear) struct content_check c = {
                .layer = layer,
                .told = layer->layer->toc,
                .truth = layer->truth,
                .one_space =
                        !str_after(layer->layer->kind, "estargz-") && !str_after(layer->layer->kind, "zstdchunked-"),
                .complained = ITABLE_NONE,
        };
        const struct chunk_reader_options reader = {
                .fd = layer->fd,
                .table = &c.told->chunks,
                .good = on_good,
                .bad = on_bad,
                .context = &c,
        };
        const char *name;
        bool mark;
        int r;

        c.a = malloc(PIECE);
        c.b = malloc(PIECE);
        if (!c.a || !c.b)
                return error_oom(e);
        r = make_segments(&c, e);
        if (r == 0)
                r = verify_chunks(&reader, e);
        if (r == 0)
                r = pass_gap(&c, c.told->chunks.content_size, e);
        if (r == 0)
                r = compare_rest(&c, e);
        for (size_t k = 0; r == 0 && (name = compare_hidden_name(k, &mark)); k++)
                r = check_hidden(&c, name, mark, e);
        return r;
}
