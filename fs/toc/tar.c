/* SPDX-License-Identifier: Apache-2.0 */

/* The tar scanner: a state machine over 512-byte blocks that takes its input in pieces of any size. Only header blocks,
 * the bodies of extension headers and sparse maps are looked at; the data of files is counted. An entry goes to the
 * callback as soon as its headers are complete, before its data. */

#include <inttypes.h>
#include <string.h>

#include "regfs/io.h"
#include "regfs/tar.h"
#include "regfs/text.h"
#include "tar_internal.h"

enum state {
        STATE_HEADER,       /* gathers a header block */
        STATE_BODY,         /* gathers the body of an extension header */
        STATE_SPARSE_BLOCK, /* gathers an extension block of an old GNU sparse map */
        STATE_SPARSE_MAP,   /* reads the map in front of a sparse file's data */
        STATE_DATA,         /* passes over data and padding */
        STATE_END,          /* ignores what follows the end of the archive */
};

struct tar_scanner {
        tar_entry_fn *callback;
        void *context;
        enum state state;
        int failed;      /* the -errno that ended the scan */
        uint64_t offset; /* bytes fed */
        uint8_t block[TAR_BLOCK];
        size_t block_used;
        uint64_t remaining; /* bytes of data or body to come */
        uint64_t padding;   /* bytes behind them, up to the next block */
        uint64_t link_body; /* size of a hardlink whose body, if it has one, begins with the next block */

        /* The entry whose headers are being read, or were last read. */
        uint64_t header_offset;
        bool pending; /* extension headers came, their entry did not yet */
        size_t extension_bytes;
        struct buf pax_text;
        struct buf global_text;
        struct buf long_name;
        struct buf long_link;
        struct buf *body; /* the one that STATE_BODY fills */
        struct pax_records local;
        struct pax_records global;
        struct sparse_map sparse;
        struct sparse_reader sparse_reader;
        size_t sparse_bytes; /* of the map in front of the data */
        struct tar_names names;
        struct layer_xattr *xattrs; /* merged from local and global */
        size_t xattrs_allocated;
        struct layer_entry entry; /* path is NULL until it is known */
};

/* What is left of the piece being fed. */
struct input {
        const uint8_t *data;
        size_t n;
};

int tar_scanner_new(tar_entry_fn *entry, void *context, struct tar_scanner **ret)
{
        struct tar_scanner *t = calloc(1, sizeof(*t));

        if (!t)
                return -ENOMEM;
        t->callback = entry;
        t->context = context;
        *ret = t;
        return 0;
}

struct tar_scanner *tar_scanner_free(struct tar_scanner *t)
{
        if (!t)
                return NULL;
        buf_free(&t->pax_text);
        buf_free(&t->global_text);
        buf_free(&t->long_name);
        buf_free(&t->long_link);
        pax_records_free(&t->local);
        pax_records_free(&t->global);
        sparse_map_free(&t->sparse);
        free(t->xattrs);
        free(t);
        return NULL;
}

/* Puts entry and offset in front of the cause. */
static int blame(const struct tar_scanner *t, struct error *e)
{
        if (t->entry.path)
                return error_prefix(e, "tar entry \"%.300s\" at offset %" PRIu64, t->entry.path, t->header_offset);
        return error_prefix(e, "tar header at offset %" PRIu64, t->header_offset);
}

static int refuse(const struct tar_scanner *t, struct error *e, const char *cause)
{
        error_set(e, ERROR_BAD_DATA, EBADMSG, "%s", cause);
        return blame(t, e);
}

static void advance(struct tar_scanner *t, struct input *in, size_t n)
{
        in->data += n;
        in->n -= n;
        t->offset += n;
}

/* The next whole block: in place when the input has it, NULL when more input is needed. */
static const uint8_t *next_block(struct tar_scanner *t, struct input *in)
{
        const uint8_t *block = in->data;
        size_t n = MIN(in->n, TAR_BLOCK - t->block_used);

        if (n == TAR_BLOCK) {
                advance(t, in, n);
                return block;
        }
        memcpy(t->block + t->block_used, in->data, n);
        t->block_used += n;
        advance(t, in, n);
        if (t->block_used < TAR_BLOCK)
                return NULL;
        t->block_used = 0;
        return t->block;
}

static void expect_data(struct tar_scanner *t, uint64_t n)
{
        t->remaining = n;
        t->padding = -n % TAR_BLOCK;
}

static void pass_over_data(struct tar_scanner *t)
{
        t->state = t->remaining > 0 || t->padding > 0 ? STATE_DATA : STATE_HEADER;
}

/* ---- entries ---- */

static void buf_clear(struct buf *b)
{
        b->len = 0;
        if (b->data)
                b->data[0] = '\0';
}

static void reset_entry(struct tar_scanner *t)
{
        buf_clear(&t->pax_text);
        buf_clear(&t->long_name);
        buf_clear(&t->long_link);
        pax_records_clear(&t->local);
        sparse_map_clear(&t->sparse);
        t->extension_bytes = 0;
        t->pending = false;
}

static int count_extension(struct tar_scanner *t, uint64_t n, struct error *e)
{
        if (n > TAR_EXTENSIONS_MAX - t->extension_bytes)
                return refuse(t, e, "more than 1 MiB of extension headers for one entry");
        t->extension_bytes += n;
        return 0;
}

/* The local xattrs over the global ones. A record with an empty value takes its name back, here as with every key. */
static int set_xattrs(struct tar_scanner *t, struct error *e)
{
        const struct pax_records *local = &t->local, *global = &t->global;
        struct layer_entry *entry = &t->entry;
        size_t n;

        entry->xattrs = NULL;
        entry->xattr_count = 0;
        if (local->xattr_count == 0 && global->xattr_count == 0)
                return 0;
        if (array_reserve(t->xattrs, &t->xattrs_allocated, local->xattr_count + global->xattr_count) < 0)
                return error_oom(e);
        n = pax_merge_xattrs(global->xattrs, global->xattr_count, local->xattrs, local->xattr_count, t->xattrs);
        for (size_t i = 0; i < n; i++)
                if (t->xattrs[i].value_length > 0)
                        t->xattrs[entry->xattr_count++] = t->xattrs[i];
        entry->xattrs = t->xattrs;
        return 0;
}

static int emit(struct tar_scanner *t, struct error *e)
{
        int r = set_xattrs(t, e);

        if (r < 0)
                return r;
        t->pending = false;
        pass_over_data(t);
        return t->callback(t->context, &t->entry, e);
}

static int emit_sparse(struct tar_scanner *t, struct error *e)
{
        int r = sparse_map_place(&t->sparse, t->offset, t->remaining, t->entry.size, e);

        if (r < 0)
                return blame(t, e);
        t->entry.sparse = true;
        t->entry.extents = t->sparse.extents;
        t->entry.extent_count = t->sparse.count;
        return emit(t, e);
}

/* The map starts in the header block and goes on in extension blocks. */
static int begin_gnu_sparse(struct tar_scanner *t, const struct tar_header *h, struct error *e)
{
        int r;

        sparse_map_clear(&t->sparse);
        r = sparse_map_add_fields(&t->sparse, h->gnu.sparse, ELEMENTSOF(h->gnu.sparse), e);
        if (r < 0)
                return blame(t, e);
        if (h->gnu.extended == 0)
                return emit_sparse(t, e);
        t->state = STATE_SPARSE_BLOCK;
        return 0;
}

static int begin_sparse_records(struct tar_scanner *t, const struct pax_records *pax, struct error *e)
{
        if (pax->set & PAX_SPARSE_BLOCKS && pax->sparse_blocks != t->sparse.pairs)
                return refuse(t, e, "its sparse map does not have as many pairs as it claims");
        return emit_sparse(t, e);
}

static int begin_sparse_data(struct tar_scanner *t)
{
        sparse_map_clear(&t->sparse);
        t->sparse_reader = (struct sparse_reader) { 0 };
        t->sparse_bytes = 0;
        t->state = STATE_SPARSE_MAP;
        return 0;
}

/* A directory's body is GNU's list of its names, from an incremental backup; it is passed over. */
static int begin_entry(struct tar_scanner *t, const struct tar_header *h, struct error *e)
{
        struct pax_records pax = t->global;
        enum tar_sparse sparse = TAR_SPARSE_NONE;
        uint64_t body = 0;
        int r;

        if (t->local.set != 0 || t->local.deleted != 0)
                pax_records_overlay(&pax, &t->local);
        r = tar_entry_read(h, &pax, t->long_name.data, t->long_link.data, &t->names, &t->entry, &body, &sparse, e);
        if (r < 0)
                return blame(t, e);
        t->link_body = t->entry.hardlink ? body : 0;
        expect_data(t, t->entry.hardlink ? 0 : body);
        switch (sparse) {
        case TAR_SPARSE_GNU:
                return begin_gnu_sparse(t, h, e);
        case TAR_SPARSE_RECORDS:
                return begin_sparse_records(t, &pax, e);
        case TAR_SPARSE_DATA:
                return begin_sparse_data(t);
        case TAR_SPARSE_NONE:
                break;
        }
        if (S_ISREG(t->entry.mode) && !t->entry.hardlink)
                t->entry.content_offset = t->offset;
        return emit(t, e);
}

/* ---- blocks ---- */

static int end_body(struct tar_scanner *t, struct error *e)
{
        struct pax_records records = { 0 };
        int r = 0;

        if (t->body == &t->pax_text) {
                r = pax_records_parse(&t->local, &t->sparse, t->body->data, t->body->len, e);
        } else if (t->body == &t->global_text) {
                r = pax_records_parse(&records, NULL, t->body->data, t->body->len, e);
                if (r == 0)
                        r = pax_records_set_global(&t->global, &records, e);
                pax_records_free(&records);
        }
        if (r < 0)
                return blame(t, e);
        pass_over_data(t);
        return 0;
}

/* An extension header, whose body goes to BODY. Of two of a kind the later counts. */
static int begin_body(struct tar_scanner *t, const struct tar_header *h, struct buf *body, struct error *e)
{
        uint64_t size;
        int r;

        r = tar_header_unsigned(h->size, sizeof(h->size), "size", INT64_MAX, &size, e);
        if (r < 0)
                return blame(t, e);
        r = count_extension(t, TAR_BLOCK, e);
        if (r == 0)
                r = count_extension(t, size, e);
        if (r < 0)
                return r;
        if (body == &t->pax_text) {
                pax_records_clear(&t->local);
                sparse_map_clear(&t->sparse);
        }
        if (body != &t->global_text)
                t->pending = true;
        buf_clear(body);
        t->body = body;
        expect_data(t, size);
        t->state = STATE_BODY;
        return size > 0 ? 0 : end_body(t, e);
}

static int skip_member(struct tar_scanner *t, const struct tar_header *h, struct error *e)
{
        uint64_t size;

        if (tar_header_unsigned(h->size, sizeof(h->size), "size", INT64_MAX, &size, e) < 0)
                return blame(t, e);
        expect_data(t, size);
        pass_over_data(t);
        return 0;
}

static int begin_member(struct tar_scanner *t, const struct tar_header *h, struct error *e)
{
        switch (h->type) {
        case 'x':
        case 'X': /* Solaris */
                return begin_body(t, h, &t->pax_text, e);
        case 'g':
                return begin_body(t, h, &t->global_text, e);
        case 'L':
                return begin_body(t, h, &t->long_name, e);
        case 'K':
                return begin_body(t, h, &t->long_link, e);
        case 'V': /* GNU: the label of a volume, which has a name but is no file */
                t->pending = false;
                return skip_member(t, h, e);
        case 'A': /* Solaris: an ACL for the entry that follows */
                return skip_member(t, h, e);
        case 'M':
                return refuse(t, e, "the rest of a file that began on another volume");
        default:
                return begin_entry(t, h, e);
        }
}

static int end_archive(struct tar_scanner *t, struct error *e)
{
        if (t->pending)
                return refuse(t, e, "the archive ends behind the extension headers of an entry");
        t->state = STATE_END;
        return 0;
}

/* The block in hand is the first of a hardlink's body. */
static void pass_over_link_body(struct tar_scanner *t)
{
        expect_data(t, t->link_body);
        t->padding = t->link_body < TAR_BLOCK ? 0 : t->padding;
        t->remaining -= MIN(t->link_body, TAR_BLOCK);
        t->link_body = 0;
        pass_over_data(t);
}

static int step_header(struct tar_scanner *t, struct input *in, struct error *e)
{
        const uint8_t *block = next_block(t, in);
        const struct tar_header *h = (const struct tar_header *) block;

        if (!block)
                return 0;
        if (block[0] == 0 && bytes_are_zero(block, TAR_BLOCK))
                return end_archive(t, e);
        if (!tar_header_is_valid(h)) {
                if (t->link_body > 0) {
                        pass_over_link_body(t);
                        return 0;
                }
                t->entry.path = NULL;
                t->header_offset = t->offset - TAR_BLOCK;
                return refuse(t, e, "no tar header, or its checksum is wrong");
        }
        if (!t->pending)
                reset_entry(t);
        t->link_body = 0;
        t->entry = (struct layer_entry) { 0 };
        t->header_offset = t->offset - TAR_BLOCK;
        return begin_member(t, h, e);
}

static int step_body(struct tar_scanner *t, struct input *in, struct error *e)
{
        size_t n = MIN(in->n, t->remaining);

        if (buf_append(t->body, in->data, n) < 0)
                return error_oom(e);
        advance(t, in, n);
        t->remaining -= n;
        return t->remaining > 0 ? 0 : end_body(t, e);
}

static int step_sparse_block(struct tar_scanner *t, struct input *in, struct error *e)
{
        const struct tar_sparse_block *block = (const struct tar_sparse_block *) next_block(t, in);
        int r;

        if (!block)
                return 0;
        r = count_extension(t, TAR_BLOCK, e);
        if (r < 0)
                return r;
        r = sparse_map_add_fields(&t->sparse, block->sparse, ELEMENTSOF(block->sparse), e);
        if (r < 0)
                return blame(t, e);
        return block->extended ? 0 : emit_sparse(t, e);
}

/* The map fills whole blocks; what follows its last number there is not looked at. */
static int step_sparse_map(struct tar_scanner *t, struct input *in, struct error *e)
{
        while (in->n > 0) {
                char c = (char) in->data[0];
                int r;

                if (t->remaining == 0)
                        return refuse(t, e, "its data ends within its sparse map");
                advance(t, in, 1);
                t->remaining--;
                t->sparse_bytes++;
                if (!sparse_reader_is_done(&t->sparse_reader)) {
                        r = count_extension(t, 1, e);
                        if (r < 0)
                                return r;
                        r = sparse_reader_next(&t->sparse_reader, &t->sparse, c, e);
                        if (r < 0)
                                return blame(t, e);
                }
                if (sparse_reader_is_done(&t->sparse_reader) && t->sparse_bytes % TAR_BLOCK == 0)
                        return emit_sparse(t, e);
        }
        return 0;
}

static void step_data(struct tar_scanner *t, struct input *in)
{
        size_t n = MIN(in->n, t->remaining);

        advance(t, in, n);
        t->remaining -= n;
        n = MIN(in->n, t->padding);
        if (t->remaining > 0)
                return;
        advance(t, in, n);
        t->padding -= n;
        pass_over_data(t);
}

static int step(struct tar_scanner *t, struct input *in, struct error *e)
{
        switch (t->state) {
        case STATE_HEADER:
                return step_header(t, in, e);
        case STATE_BODY:
                return step_body(t, in, e);
        case STATE_SPARSE_BLOCK:
                return step_sparse_block(t, in, e);
        case STATE_SPARSE_MAP:
                return step_sparse_map(t, in, e);
        case STATE_DATA:
                step_data(t, in);
                return 0;
        case STATE_END:
                advance(t, in, in->n);
                return 0;
        }
        return -EINVAL;
}

int tar_scanner_feed(struct tar_scanner *t, const uint8_t *data, size_t n, struct error *e)
{
        struct input in = { .data = data, .n = n };
        struct error ignored;

        if (t->failed)
                return error_set(e, ERROR_BAD_DATA, -t->failed, "the tar scan has failed before");
        while (in.n > 0 && !t->failed)
                t->failed = step(t, &in, e ? e : &ignored);
        return t->failed;
}

uint64_t tar_scanner_skip(struct tar_scanner *t, uint64_t max)
{
        uint64_t n;

        if (t->failed)
                return 0;
        if (t->state == STATE_END) {
                n = max;
        } else if (t->state == STATE_DATA) {
                n = MIN(max, t->remaining);
                t->remaining -= n;
        } else {
                return 0;
        }
        t->offset += n;
        return n;
}

int tar_scanner_finish(struct tar_scanner *t, struct error *e)
{
        struct error ignored;

        e = e ? e : &ignored;
        if (t->failed)
                return error_set(e, ERROR_BAD_DATA, -t->failed, "the tar scan has failed before");
        switch (t->state) {
        case STATE_END:
                return 0;
        case STATE_HEADER:
                if (t->block_used == 0)
                        break;
                t->entry.path = NULL;
                t->header_offset = t->offset - t->block_used;
                return refuse(t, e, "the stream ends within it");
        case STATE_DATA:
                if (t->remaining == 0)
                        break;
                error_set(e, ERROR_BAD_DATA, EBADMSG, "the stream ends %" PRIu64 " bytes before its data does",
                          t->remaining);
                return blame(t, e);
        case STATE_BODY:
                return refuse(t, e, "the stream ends within its body");
        case STATE_SPARSE_BLOCK:
        case STATE_SPARSE_MAP:
                return refuse(t, e, "the stream ends within its sparse map");
        }
        return t->pending ? refuse(t, e, "the stream ends behind the extension headers of an entry") : 0;
}
