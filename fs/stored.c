/* SPDX-License-Identifier: Apache-2.0 */

/* What the stores have of an image, TOCs and the image index, each believed as far as its store is.
 *
 * A store of one's own or of root is believed. One of another user was named by whoever runs this, so the tree that its
 * TOCs show is taken for the image's; but nothing there may harm this process, or those who did not name it: a TOC is
 * copied to where nobody changes it and every row of it is checked, the image index is merged from the TOCs instead of
 * being read, and neither the index nor content that such a TOC has led to is put where other mounts would find it. */

#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

#include "image_internal.h"
#include "regfs/io.h"
#include "regfs/log.h"

/* ---- TOCs ---- */

/* A copy of FD that nobody else can write: a descriptor, or -errno with E. */
static int private_copy(struct store *s, int fd, struct error *e)
{
        _cleanup_draft_ struct store_draft copy = STORE_DRAFT_INIT;
        struct stat st;
        int r;

        if (fstat(fd, &st) < 0)
                return error_errno(e, errno, "a copy of a TOC");
        if ((uint64_t) st.st_size > PUBLISHED_TOC_MAX)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "a TOC of %ju bytes: %zu MiB are allowed",
                                 (uintmax_t) st.st_size, (size_t) (PUBLISHED_TOC_MAX / MIB));
        r = store_draft_outside(s, &copy, e);
        if (r < 0)
                return r;
        do {
                r = copy_full(fd, copy.fd, (uint64_t) st.st_size);
                if (r < 0)
                        error_errno(e, -r, "a copy of a TOC");
        } while (r < 0 && store_draft_move_out(&copy, r, e));
        return r < 0 ? r : steal_fd(&copy.fd);
}

static int open_foreign(struct store *s, int fd, const struct digest *layer, struct toc **ret, struct error *e)
{
        _cleanup_(toc_close_ptr) struct toc *t = NULL;
        _cleanup_close_ int copy = private_copy(s, fd, e);
        int r;

        if (copy < 0)
                return copy;
        r = toc_open(copy, layer, &t, e);
        if (r == 0)
                r = toc_check(t, e);
        if (r < 0)
                return r;
        *ret = steal_ptr(t);
        return 0;
}

static int open_in(struct store *s, struct image_layer *l, struct error *e)
{
        _cleanup_close_ int fd = store_layer_toc_here(s, &l->descriptor.digest, l->kind);
        int r;

        if (fd == -ENOENT)
                return fd;
        /* No file of ours: it makes way for one. */
        if (fd == -EACCES || fd == -EPERM || fd == -ELOOP)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "TOC in the store: %s", strerror(-fd));
        if (fd < 0)
                return error_errno(e, -fd, "TOC in the store");
        if (store_is_foreign(s))
                r = open_foreign(s, fd, &l->descriptor.digest, &l->toc, e);
        else
                r = toc_open(fd, &l->descriptor.digest, &l->toc, e);
        if (r == 0 && l->toc->chunks.blob_size != l->descriptor.size && store_is_foreign(s)) {
                l->toc = toc_close(l->toc);
                r = error_set(e, ERROR_BAD_DATA, EBADMSG, "the TOC is of a layer of another size");
        }
        if (r == 0)
                l->toc_store = s;
        return r;
}

int image_open_toc(struct image *i, struct image_layer *l, struct error *e)
{
        int result = open_in(i->store, l, e);
        struct store *s;

        for (size_t k = 1; result < 0 && result != -ENOMEM && (s = store_at(i->store, k)); k++) {
                struct error why = ERROR_INIT;
                int r = i->indexing && store_is_foreign(s) ? -ENOENT : open_in(s, l, &why);

                if (r == 0 || r == -ENOMEM)
                        result = r;
                else if (r != -ENOENT)
                        log_warning("store %s: %s: %s: not used", store_path(s), l->kind, why.message);
        }
        return result;
}

/* What the content of L is called in the first store. */
static void name_content(const struct image_layer *l, char ret_kind[LAYER_KIND_MAX])
{
        if (l->toc_store && store_is_foreign(l->toc_store))
                snprintf(ret_kind, LAYER_KIND_MAX, "%.*s" LAYER_KIND_BY "%ju", LAYER_KIND_MAX - 16, l->kind,
                         (uintmax_t) store_owner(l->toc_store));
        else
                snprintf(ret_kind, LAYER_KIND_MAX, "%s", l->kind);
}

int image_open_content(struct image *i, struct image_layer *l, struct error *e)
{
        char kind[LAYER_KIND_MAX];

        if (l->content)
                return 0;
        name_content(l, kind);
        return content_open(i->store, &l->descriptor.digest, kind, &l->toc->chunks, &l->content, e);
}

/* ---- the merged tree ---- */

static bool any_foreign(const struct image *i)
{
        for (size_t k = 0; k < i->layer_count; k++)
                if (i->layers[k].toc_store && store_is_foreign(i->layers[k].toc_store))
                        return true;
        return false;
}

/* Merges the tree into DRAFT, and opens it there. */
static int make_tree(struct image *i, struct store_draft *draft, const struct tree_layer *rows, struct error *e)
{
        _cleanup_free_ const struct itable **tables = calloc(i->layer_count, sizeof(*tables));
        int r;

        if (!tables)
                return error_oom(e);
        for (size_t k = 0; k < i->layer_count; k++)
                tables[k] = &i->layers[i->layers[k].same_as].toc->itable;
        do
                r = tree_write(draft->fd, &i->digest, tables, rows, i->layer_count, e);
        while (r < 0 && store_draft_move_out(draft, r, e));
        return r < 0 ? r : tree_open(draft->fd, &i->digest, &i->tree, e);
}

static int make_kept_tree(struct image *i, const struct tree_layer *rows, const char *key, struct error *e)
{
        _cleanup_draft_ struct store_draft draft = STORE_DRAFT_INIT;
        int r = store_draft_begin(i->store, &draft, e);

        if (r == 0)
                r = make_tree(i, &draft, rows, e);
        return r < 0 ? r : store_draft_publish_image(&draft, key, e);
}

/* For this process alone. */
static int make_own_tree(struct image *i, const struct tree_layer *rows, struct error *e)
{
        _cleanup_draft_ struct store_draft draft = STORE_DRAFT_INIT;
        int r = store_draft_outside(i->store, &draft, e);

        return r < 0 ? r : make_tree(i, &draft, rows, e);
}

/* The image index that a store has. False when it has none, or, with WHY, another version's or a damaged one. */
static bool open_known_tree(struct image *i, struct store *s, const char *key, struct error *why)
{
        _cleanup_close_ int fd = store_image_open(s, key);

        if (fd < 0 || store_is_foreign(s) || tree_open(fd, &i->digest, &i->tree, why) < 0)
                return false;
        if (s == i->store)
                store_touch(s, fd);
        return true;
}

static void describe_layers(const struct image *i, struct tree_layer *rows)
{
        for (size_t k = 0; k < i->layer_count; k++) {
                const struct image_layer *l = &i->layers[i->layers[k].same_as];

                rows[k].digest = l->descriptor.digest;
                memcpy(rows[k].kind, l->kind, sizeof(rows[k].kind));
                rows[k].blob_size = l->toc->chunks.blob_size;
                rows[k].content_size = l->toc->chunks.content_size;
        }
}

static bool open_any_tree(struct image *i, const char *key, struct error *why)
{
        struct store *s;

        for (size_t k = 0; (s = store_at(i->store, k)); k++)
                if (open_known_tree(i, s, key, why))
                        return true;
        return false;
}

/* Whose turn it is to write the image index writes it; the others see it come. True when it is open. */
static bool wait_for_tree(struct image *i, const char *key, struct store_turn *turn)
{
        struct error why = ERROR_INIT;
        struct patience patience;
        char name[80];
        uint64_t pause;

        snprintf(name, sizeof(name), "image %s", key);
        patience_begin(&patience, i->timeout_ms);
        while (store_turn_try(i->store, name, turn) < 0 && patience_left(&patience, 0, &pause)) {
                struct timespec t = { .tv_nsec = (long) pause * 1000000 };

                if (open_known_tree(i, i->store, key, &why))
                        return true;
                nanosleep(&t, NULL);
        }
        return open_known_tree(i, i->store, key, &why);
}

int image_open_tree(struct image *i, struct error *e)
{
        _cleanup_turn_ struct store_turn turn = STORE_TURN_INIT;
        _cleanup_free_ struct tree_layer *rows = calloc(i->layer_count, sizeof(*rows));
        struct error why = ERROR_INIT;
        bool own = any_foreign(i);
        char key[65];
        int r;

        if (!rows)
                return error_oom(e);
        describe_layers(i, rows);
        r = tree_key(&i->digest, rows, i->layer_count, key);
        if (r < 0)
                return error_errno(e, -r, "%s: name of the image index", i->reference);
        if (!own && (open_any_tree(i, key, &why) || wait_for_tree(i, key, &turn)))
                return 0;
        if (*why.message)
                log_warning("%s: %s: the image index is written afresh", i->reference, why.message);
        r = own ? make_own_tree(i, rows, e) : make_kept_tree(i, rows, key, e);
        return r < 0 ? error_prefix(e, "%s: image index", i->reference) : 0;
}
