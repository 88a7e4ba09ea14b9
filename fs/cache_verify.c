/* SPDX-License-Identifier: Apache-2.0 */

/* Reads a store whole and throws out what is wrong. A file goes only while it is still the one that was looked at: others
 * may have put a sound one in its place. */

#include <stdio.h>
#include <sys/stat.h>

#include "cache_internal.h"
#include "regfs/io.h"

#define PIECE (256 * KIB)

struct verification {
        struct store *store;
        const struct cache_verify_options *options;
        struct cache_verify_result *result;
        uint64_t done, total;
        struct error *e;
};

static int advance(struct verification *v, uint64_t bytes)
{
        v->done += bytes;
        if (!v->options->progress || !v->options->progress(v->options->progress_context, v->done, v->total))
                return 0;
        return error_set(v->e, ERROR_OTHER, ECANCELED, "cancelled");
}

/* What ends everything, as opposed to what is wrong with one thing. */
static bool is_fatal(int r)
{
        return r == -ENOMEM || r == -ECANCELED;
}

static void tell(struct verification *v, const char *path, const struct error *why, bool removed)
{
        v->result->problems++;
        v->result->removed += removed;
        if (v->options->report)
                v->options->report(v->options->report_context, path, why->message, removed);
}

/* WHY is what is wrong with the item that is open at FD (negative: it could not be opened). */
static void throw_out(struct verification *v, const struct inventory_item *item, int fd, const struct error *why)
{
        struct error e = ERROR_INIT;
        bool removed = fd >= 0 && inventory_remove_same(v->store, item, fd, &e) == 0;

        tell(v, item->path, why, removed);
}

/* ---- layers ---- */

static int verify_chunk(struct verification *v, const struct inventory_item *layer, struct audit *a, size_t i,
                        uint64_t length)
{
        struct error why = ERROR_INIT, e = ERROR_INIT;
        int r = audit_check(a, i, &why);

        if (r == -ENOENT)
                return advance(v, length);
        if (is_fatal(r))
                return error_oom(v->e);
        v->result->chunks++;
        v->result->bytes += length;
        if (r < 0)
                tell(v, layer->path, &why, r == -EBADMSG && audit_drop(a, i, &e) == 0);
        return advance(v, length);
}

/* Without its map all content counts as absent, and whoever opens it next begins it afresh. */
static bool drop_map(struct verification *v, const struct inventory_item *layer, const struct chunk_table *table)
{
        struct error e = ERROR_INIT;
        struct audit *again = NULL;
        int r = audit_open(v->store, layer, table, &again, &e);

        /* Somebody may have begun it afresh already. */
        audit_close(again);
        return r == 0 || inventory_remove_map(v->store, layer, &e) == 0;
}

static int verify_content(struct verification *v, const struct inventory_item *layer, const struct chunk_table *t)
{
        _cleanup_(audit_close_ptr) struct audit *a = NULL;
        struct error why = ERROR_INIT;
        int r = audit_open(v->store, layer, t, &a, &why);

        if (r == -ENOENT)
                return 0;
        if (is_fatal(r))
                return error_oom(v->e);
        if (r < 0) {
                tell(v, layer->path, &why, r == -ESTALE && drop_map(v, layer, t));
                return 0;
        }
        for (size_t i = 0; i < t->chunk_count && r == 0; i++)
                if (t->chunks[i].codec != CODEC_ZEROS && audit_has(a, i))
                        r = verify_chunk(v, layer, a, i, t->chunks[i].content_length);
        return r;
}

static int verify_layer(struct verification *v, const struct inventory_item *item)
{
        _cleanup_(toc_close_ptr) struct toc *toc = NULL;
        struct error why = ERROR_INIT;
        _cleanup_close_ int fd = -1;
        int r;

        /* Content without a TOC is a leftover, or that of a mount whose layer was removed. */
        if (!item->has[INVENTORY_TOC])
                return 0;
        r = cache_open_toc(v->store, item, &toc, &fd, &why);
        if (r == 0)
                r = toc_check(toc, &why);
        if (r == -ENOENT)
                return 0;
        if (is_fatal(r))
                return error_oom(v->e);
        v->result->layers++;
        if (r < 0)
                throw_out(v, item, fd, &why);
        else
                r = verify_content(v, item, &toc->chunks);
        return is_fatal(r) ? r : advance(v, item->parts[INVENTORY_TOC].apparent);
}

/* ---- image indexes ---- */

static int check_rows(const struct tree *t, struct error *e)
{
        _cleanup_free_ uint64_t *sizes = calloc(t->layer_count + 1, sizeof(*sizes));

        if (!sizes)
                return error_oom(e);
        for (size_t k = 0; k < t->layer_count; k++)
                sizes[k] = t->layers[k].content_size;
        return itable_check(&t->itable, sizes, t->layer_count, e);
}

static int verify_image(struct verification *v, const struct inventory_item *item)
{
        _cleanup_(tree_close_ptr) struct tree *tree = NULL;
        struct error why = ERROR_INIT;
        _cleanup_close_ int fd = -1;
        int r = cache_open_tree(v->store, item, &tree, &fd, &why);

        if (r == 0)
                r = check_rows(tree, &why);
        if (r == -ENOENT)
                return 0;
        if (is_fatal(r))
                return error_oom(v->e);
        v->result->images++;
        if (r < 0)
                throw_out(v, item, fd, &why);
        return advance(v, item->size.apparent);
}

/* ---- blobs, refs ---- */

static int hash_file(int fd, enum digest_algorithm algorithm, struct digest *ret)
{
        _cleanup_(hasher_free_ptr) struct hasher *h = hasher_new(algorithm);
        _cleanup_free_ uint8_t *piece = malloc(PIECE);
        int r = h && piece ? 0 : -ENOMEM;

        while (r == 0) {
                ssize_t n = read(fd, piece, PIECE);

                if (n == 0)
                        return hasher_finish(h, ret);
                if (n > 0)
                        r = hasher_update(h, piece, (size_t) n);
                else if (errno != EINTR)
                        r = -errno;
        }
        return r;
}

static int verify_blob(struct verification *v, const struct inventory_item *item)
{
        _cleanup_close_ int fd = inventory_open(v->store, item, NULL, false);
        char found[DIGEST_STRING_MAX];
        struct error why = ERROR_INIT;
        struct digest digest;
        int r = fd < 0 ? fd : hash_file(fd, item->digest.algorithm, &digest);

        fd = MAX(fd, -1);
        if (r == -ENOENT)
                return 0;
        if (r == -ENOMEM)
                return error_oom(v->e);
        v->result->blobs++;
        if (r < 0) {
                error_errno(&why, -r, "it can't be read");
                tell(v, item->path, &why, false);
        } else if (!digest_equal(&digest, &item->digest)) {
                error_set(&why, ERROR_BAD_DATA, EBADMSG, "its digest is %s", digest_format(&digest, found));
                throw_out(v, item, fd, &why);
        }
        return advance(v, item->size.apparent);
}

static int verify_ref(struct verification *v, const struct inventory_item *item)
{
        _cleanup_close_ int fd = inventory_open(v->store, item, NULL, false);
        struct error why = ERROR_INIT;
        struct digest digest;
        int64_t when;
        int r = fd < 0 ? fd : inventory_ref_read(fd, &digest, &when);

        fd = MAX(fd, -1);
        if (r == -ENOENT)
                return 0;
        v->result->refs++;
        if (r == -EBADMSG) {
                error_set(&why, ERROR_BAD_DATA, EBADMSG, "it has no digest and time");
                throw_out(v, item, fd, &why);
        } else if (r < 0) {
                error_errno(&why, -r, "it can't be read");
                tell(v, item->path, &why, false);
        }
        return 0;
}

/* ---- all of it ---- */

static int verify_item(struct verification *v, const struct inventory_item *item)
{
        switch (item->kind) {
        case INVENTORY_LAYER:
                return verify_layer(v, item);
        case INVENTORY_IMAGE:
                return verify_image(v, item);
        case INVENTORY_BLOB:
                return verify_blob(v, item);
        case INVENTORY_REF:
                return verify_ref(v, item);
        case INVENTORY_DRAFT:
        case INVENTORY_FOREIGN:
        case INVENTORY_KINDS:
                break;
        }
        return 0;
}

/* About: of content, what is on the disk. */
static uint64_t bytes_of(const struct inventory_item *item)
{
        switch (item->kind) {
        case INVENTORY_LAYER:
                return item->parts[INVENTORY_TOC].apparent +
                       MIN(item->parts[INVENTORY_CONTENT].disk, item->parts[INVENTORY_CONTENT].apparent);
        case INVENTORY_IMAGE:
        case INVENTORY_BLOB:
                return item->size.apparent;
        default:
                return 0;
        }
}

int cache_verify(struct store *s, const struct cache_verify_options *options, struct cache_verify_result *ret,
                 struct error *e)
{
        _cleanup_inventory_ struct inventory inventory = { 0 };
        struct verification v = { .store = s, .options = options, .result = ret, .e = e };
        int r;

        *ret = (struct cache_verify_result) { 0 };
        r = inventory_read(s, &inventory, e);
        for (size_t k = 0; k < inventory.count && r == 0; k++)
                v.total += bytes_of(&inventory.items[k]);
        for (size_t k = 0; k < inventory.count && r == 0; k++)
                r = verify_item(&v, &inventory.items[k]);
        return r;
}
