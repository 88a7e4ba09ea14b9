/* SPDX-License-Identifier: Apache-2.0 */

/* eStargz: gzip members, the one before the footer a tar with the table (stargz-snapshotter, docs/estargz.md).
 *
 * The footer is an empty gzip member whose extra field has the table's offset in 16 hex digits and "STARGZ": 51 bytes,
 * the extra field one subfield "SG"; or 47 bytes, without the subfield's header, as the first stargz wrote it. One of
 * 46 bytes has "STARGZEXTERNALTOC" instead: the same gzip'd tar with the table is a blob of an image of its own. */

#include <sys/stat.h>

#include "embedded_internal.h"
#include "regfs/codec.h"
#include "regfs/tar.h"
#include "regfs/text.h"

#define FOOTER_SIZE 51
#define LEGACY_FOOTER_SIZE 47
#define EXTERNAL_FOOTER_SIZE 46

#define OFFSET_DIGITS 16
#define MAGIC "STARGZ"
#define MAGIC_SIZE (sizeof(MAGIC) - 1)
#define EXTERNAL_MAGIC "STARGZEXTERNALTOC"

#define TABLE_NAME "stargz.index.json"
#define TABLE_TAR_MAX (EMBEDDED_TOC_MAX + 1 * MIB) /* with the headers and the padding around the table */

/* ---- the footer ---- */

#define GZIP_HEADER_SIZE 10
#define GZIP_FLAGS 3
#define GZIP_EXTRA 0x04

/* How a footer of SIZE bytes begins its extra field, and how many bytes follow there. */
struct footer {
        size_t size;
        const char *prefix;
        size_t prefix_length;
        size_t length;
};

static const struct footer footer = { FOOTER_SIZE, "SG\x16", 4, OFFSET_DIGITS + MAGIC_SIZE };
static const struct footer legacy_footer = { LEGACY_FOOTER_SIZE, "", 0, OFFSET_DIGITS + MAGIC_SIZE };
static const struct footer external_footer = { EXTERNAL_FOOTER_SIZE, "SG\x11", 4, sizeof(EXTERNAL_MAGIC) - 1 };

/* What follows the prefix, or NULL when TAIL does not end in such a footer. */
static const char *find(const struct footer *f, const uint8_t *tail, size_t n)
{
        const uint8_t *p;

        if (n < f->size)
                return NULL;
        p = tail + n - f->size;
        if (p[0] != 0x1f || p[1] != 0x8b || p[2] != 8 || p[GZIP_FLAGS] != GZIP_EXTRA)
                return NULL;
        p += GZIP_HEADER_SIZE;
        if (p[0] != f->prefix_length + f->length || p[1] != 0 || memcmp(p + 2, f->prefix, f->prefix_length) != 0)
                return NULL;
        return (const char *) p + 2 + f->prefix_length;
}

static int parse_offset(const char *digits, uint64_t *ret)
{
        uint64_t offset = 0;

        for (size_t k = 0; k < OFFSET_DIGITS; k++) {
                int value = hex_value(digits[k]);

                if (value < 0)
                        return -EINVAL;
                offset = offset << 4 | (uint64_t) value;
        }
        *ret = offset;
        return 0;
}

int estargz_footer(const uint8_t *tail, size_t n, uint64_t size, struct toc_place *ret, struct error *e)
{
        struct toc_place place = { .codec = CODEC_GZIP };
        const struct footer *kind = &footer;
        const char *found;

        found = find(&external_footer, tail, n);
        if (found && memcmp(found, EXTERNAL_MAGIC, external_footer.length) == 0) {
                place.external = true;
                place.data_end = size - EXTERNAL_FOOTER_SIZE;
                *ret = place;
                return 0;
        }
        found = find(kind, tail, n);
        if (!found) {
                kind = &legacy_footer;
                found = find(kind, tail, n);
        }
        if (!found || memcmp(found + OFFSET_DIGITS, MAGIC, MAGIC_SIZE) != 0 || parse_offset(found, &place.offset) < 0)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "the blob does not end in the footer of an eStargz");
        if (place.offset >= size - kind->size)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "the footer names offset %ju of a blob of %ju bytes",
                                 (uintmax_t) place.offset, (uintmax_t) size);
        place.length = size - kind->size - place.offset;
        place.data_end = place.offset;
        *ret = place;
        return toc_place_check(ret, size, e);
}

/* ---- the table: gzip, then tar ---- */

struct toc_decoder {
        toc_output_fn *output;
        void *context;
        struct scan *gzip;
        struct tar_scanner *tar;
        uint64_t decoded;
        uint64_t position; /* in the tar: of the next byte out of gzip, until the table is complete */
        bool found;        /* the table's entry, whose data is [begin, end) of the tar */
        uint64_t begin, end;
};

static int on_entry(void *context, const struct layer_entry *entry, _unused_ struct error *e)
{
        struct toc_decoder *d = context;

        if (d->found || entry->hardlink || entry->sparse || !S_ISREG(entry->mode) || !str_eq(entry->path, TABLE_NAME))
                return 0;
        d->found = true;
        d->begin = entry->content_offset;
        d->end = entry->content_offset + entry->size;
        return 0;
}

static bool is_complete(const struct toc_decoder *d)
{
        return d->found && d->position >= d->end;
}

/* The next N bytes of the tar. What is wrong with it behind the table is not found when it comes in a piece of its own,
 * so it does not count here either. */
static int on_tar(void *context, const uint8_t *data, size_t n, struct error *e)
{
        struct toc_decoder *d = context;
        uint64_t from, to;
        int r;

        d->decoded += n;
        if (d->decoded > TABLE_TAR_MAX)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "more than %zu MiB of tar", TABLE_TAR_MAX / MIB);
        if (is_complete(d))
                return 0;
        r = tar_scanner_feed(d->tar, data, n, e);
        if (r < 0 && !(d->found && d->end <= d->position + n))
                return r;
        r = 0;
        from = MAX(d->position, d->begin);
        to = MIN(d->position + n, d->end);
        if (d->found && from < to)
                r = d->output(d->context, data + (from - d->position), (size_t) (to - from), e);
        d->position += n;
        return r;
}

static int on_boundary(_unused_ void *context, _unused_ const struct scan_boundary *boundary, _unused_ struct error *e)
{
        return 0;
}

static void estargz_close(struct toc_decoder *d)
{
        if (!d)
                return;
        scan_free(d->gzip);
        tar_scanner_free(d->tar);
        free(d);
}
DEFINE_CLEANUP(struct toc_decoder *, estargz_close)

static int estargz_open(toc_output_fn *output, void *context, struct toc_decoder **ret, struct error *e)
{
        _cleanup_(estargz_close_ptr) struct toc_decoder *d = calloc(1, sizeof(*d));
        struct scan_sink sink = { .output = on_tar, .boundary = on_boundary, .context = d };
        int r;

        if (!d || tar_scanner_new(on_entry, d, &d->tar) < 0)
                return error_oom(e);
        d->output = output;
        d->context = context;
        r = scan_new(COMPRESSION_GZIP, &sink, &d->gzip, e);
        if (r == 0)
                *ret = steal_ptr(d);
        return r;
}

static int estargz_feed(struct toc_decoder *d, const uint8_t *data, size_t n, struct error *e)
{
        return scan_feed(d->gzip, data, n, e);
}

static int estargz_finish(struct toc_decoder *d, struct error *e)
{
        uint64_t size;
        int r = scan_finish(d->gzip, &size, e);

        if (r < 0 || is_complete(d))
                return r;
        if (!d->found)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "there is no " TABLE_NAME " in %ju bytes of tar",
                                 (uintmax_t) d->position);
        return error_set(e, ERROR_BAD_DATA, EBADMSG, TABLE_NAME " ends %ju bytes early",
                         (uintmax_t) (d->end - d->position));
}

const struct toc_decoder_ops estargz_decoder = {
        .open = estargz_open,
        .feed = estargz_feed,
        .finish = estargz_finish,
        .close = estargz_close,
};
