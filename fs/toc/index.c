/* SPDX-License-Identifier: Apache-2.0 */

#include "regfs/index.h"

#include <string.h>

#include "index_rows.h"
#include "regfs/codec.h"
#include "regfs/log.h"
#include "regfs/tar.h"
#include "regfs/toc.h"

/* So many bytes of the blob are worth telling those who wait. */
#define TELL_STEP (1 * MIB)

/* One pass: bytes go from the blob through `scan`, and what comes out of it to tar scanner, draft and rows. */
struct pass {
        const struct index_options *options;
        struct scan *scan;
        struct tar_scanner *tar;
        struct layer_tree *tree;
        struct layer_draft *draft;
        struct index_rows *rows;
        struct hasher *whole;   /* of the blob */
        struct hasher *decoded; /* of its content, where the digest may be the diff_id of a compressed blob; or NULL */
        enum compression compression;
        uint64_t content_free, content_max; /* what it may decode to: any layer, and this one */
        uint64_t content;
        uint64_t told;
};

static void pass_clear(struct pass *p)
{
        scan_free(p->scan);
        tar_scanner_free(p->tar);
        layer_tree_free(p->tree);
        index_rows_free(p->rows);
        layer_draft_free(p->draft);
        hasher_free(p->whole);
        hasher_free(p->decoded);
}

static int hash_failed(struct pass *p, int r, struct error *e)
{
        return error_errno(e, -r, "%s: hashing", p->options->blob->name);
}

/* ---- from the scan ---- */

static void bound_content(struct pass *p)
{
        const struct index_options *o = p->options;

        p->content_free = o->content_free ? o->content_free : INDEX_CONTENT_FREE;
        if (__builtin_mul_overflow(o->blob->size, INDEX_RATIO_MAX, &p->content_max))
                p->content_max = UINT64_MAX;
        p->content_max = MAX(p->content_max, p->content_free);
}

static int check_bound(struct pass *p, size_t n, struct error *e)
{
        if (n > p->content_max - p->content)
                return error_set(e, ERROR_BAD_DATA, EBADMSG,
                                 "%s: the layer decodes to more than %ju bytes and more than %d times its size",
                                 p->options->blob->name, (uintmax_t) p->content_free, INDEX_RATIO_MAX);
        p->content += n;
        return 0;
}

static int on_output(void *context, const uint8_t *data, size_t n, struct error *e)
{
        struct pass *p = context;
        int r = check_bound(p, n, e);

        if (r < 0)
                return r;
        if (p->decoded) {
                r = hasher_update(p->decoded, data, n);
                if (r < 0)
                        return hash_failed(p, r, e);
        }
        r = tar_scanner_feed(p->tar, data, n, e);
        if (r < 0)
                return r;
        r = index_rows_content(p->rows, data, n, e);
        if (r < 0)
                return r;
        return layer_draft_append(p->draft, data, n, e);
}

static int on_boundary(void *context, const struct scan_boundary *boundary, struct error *e)
{
        struct pass *p = context;

        return index_rows_boundary(p->rows, boundary, e);
}

static int on_entry(void *context, const struct layer_entry *entry, struct error *e)
{
        struct pass *p = context;

        return layer_tree_add(p->tree, entry, e);
}

static int start_scan(struct pass *p, const uint8_t *data, size_t n, struct error *e)
{
        const struct scan_sink sink = { .output = on_output, .boundary = on_boundary, .context = p };
        int r;

        p->compression = compression_detect(data, n);
        if (p->options->digest_is_diff_id && p->compression != COMPRESSION_NONE) {
                p->decoded = hasher_new(p->options->blob->digest.algorithm);
                if (!p->decoded)
                        return error_oom(e);
        }
        r = index_rows_new(p->draft, p->options->blob->name, &p->rows, e);
        if (r < 0)
                return r;
        return scan_new(p->compression, &sink, &p->scan, e);
}

static int feed(struct pass *p, uint64_t offset, const uint8_t *data, size_t n, struct error *e)
{
        int r;

        if (!p->scan) {
                r = start_scan(p, data, n, e);
                if (r < 0)
                        return r;
        }
        r = hasher_update(p->whole, data, n);
        if (r < 0)
                return hash_failed(p, r, e);
        index_rows_feed_begin(p->rows, offset, data, n);
        r = scan_feed(p->scan, data, n, e);
        if (r < 0)
                return r;
        r = index_rows_feed_end(p->rows);
        return r < 0 ? hash_failed(p, r, e) : 0;
}

/* ---- the stream ---- */

static int on_piece(void *context, uint64_t offset, const uint8_t *data, size_t n, struct error *e)
{
        struct pass *p = context;
        int r = feed(p, offset, data, n, e);

        if (r < 0)
                return r;
        if (p->options->progress)
                atomic_store(p->options->progress, offset + n);
        if (p->options->turn && offset + n - p->told >= TELL_STEP) {
                p->told = offset + n;
                store_turn_tell(p->options->turn, p->told);
        }
        return 0;
}

static int stream(struct pass *p, struct error *e)
{
        const struct index_options *o = p->options;
        const struct blob_stream s = {
                .blob = o->blob, .pool = o->pool, .timeout_ms = o->timeout_ms, .cancel = o->cancel
        };

        if (o->blob->size == 0)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "%s: the layer is empty", o->blob->name);
        return blob_stream(&s, 0, o->blob->size, on_piece, p, e);
}

/* ---- the end ---- */

static int verify(struct pass *p, struct error *e)
{
        char expected[DIGEST_STRING_MAX], actual[DIGEST_STRING_MAX];
        struct digest digest;
        int r;

        r = hasher_finish(p->whole, &digest);
        if (r == 0 && digest_equal(&digest, &p->options->blob->digest))
                return 0;
        if (r == 0 && p->decoded)
                r = hasher_finish(p->decoded, &digest);
        if (r < 0)
                return hash_failed(p, r, e);
        if (digest_equal(&digest, &p->options->blob->digest))
                return 0;
        return error_set(e, ERROR_BAD_DATA, EBADMSG, "%s: the layer's digest is %s, expected %s",
                         p->options->blob->name, digest_format(&digest, actual),
                         digest_format(&p->options->blob->digest, expected));
}

static int write_toc(struct pass *p, uint64_t content_size, struct error *e)
{
        _cleanup_(itable_builder_free_ptr) struct itable_builder *builder = NULL;
        struct chunk_table chunks;
        struct itable itable;
        int r;

        r = itable_builder_new(&builder);
        if (r < 0)
                return error_oom(e);
        r = itable_builder_from_layer(builder, p->tree, e);
        if (r < 0)
                return r;
        itable_builder_view(builder, &itable);
        index_rows_view(p->rows, content_size, p->options->blob->size, &chunks);
        do
                r = toc_write(layer_draft_toc_fd(p->draft), &itable, &chunks, &p->options->blob->digest, p->compression,
                              e);
        while (r < 0 && layer_draft_move_out(p->draft, r, e));
        return r;
}

/* The digest comes first: whatever else is wrong with bytes that are not the layer's says nothing about the layer. */
static int finish(struct pass *p, bool *ret_verified, struct error *e)
{
        const char *name = p->options->blob->name;
        uint64_t content_size = 0;
        int r;

        r = scan_finish(p->scan, &content_size, e);
        if (r < 0)
                return error_prefix(e, "%s", name);
        r = verify(p, e);
        if (r < 0)
                return r;
        *ret_verified = true;
        r = index_rows_finish(p->rows, p->options->blob->size, e);
        if (r < 0)
                return r;
        r = tar_scanner_finish(p->tar, e);
        if (r < 0)
                return error_prefix(e, "%s", name);
        r = layer_tree_finish(p->tree, e);
        if (r < 0)
                return error_prefix(e, "%s", name);
        r = write_toc(p, content_size, e);
        if (r < 0)
                return r;
        return layer_draft_publish(p->draft, e);
}

/* *RET_VERIFIED: what was read is the layer. */
static int read_layer(const struct index_options *options, bool *ret_verified, struct error *e)
{
        _cleanup_(pass_clear) struct pass p = { .options = options };
        int r;

        bound_content(&p);
        p.whole = hasher_new(options->blob->digest.algorithm);
        if (!p.whole || layer_tree_new(&p.tree) < 0 || tar_scanner_new(on_entry, &p, &p.tar) < 0)
                return error_oom(e);
        r = layer_draft_new(options->store, &options->blob->digest, "plain", &p.draft, e);
        if (r < 0)
                return r;
        r = stream(&p, e);
        if (r == -EBADMSG && !strstr(e->message, options->blob->name))
                return error_prefix(e, "%s", options->blob->name);
        return r < 0 ? r : finish(&p, ret_verified, e);
}

int index_layer(const struct index_options *options, struct error *e)
{
        struct error own = ERROR_INIT;
        bool verified = false;
        int r;

        if (!e)
                e = &own;
        /* Wrong bytes may be a passing thing, but what has the right digest is what it is. */
        for (unsigned attempt = 0;; attempt++) {
                r = read_layer(options, &verified, e);
                if (r != -EBADMSG || verified || attempt >= blob_doubt(options->blob))
                        return r;
                log_warning("%s: the layer is read once more", e->message);
        }
}
