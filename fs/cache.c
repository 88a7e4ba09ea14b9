/* SPDX-License-Identifier: Apache-2.0 */

/* From a store's files to its images: image indexes name their layers and their manifest, the manifest's blob its
 * config, and refs lead to manifests, through the indexes of images for several platforms. */

#include <stdio.h>
#include <string.h>

#include "cache_internal.h"
#include "regfs/manifest.h"

#define INDEX_NESTING_MAX 4

struct reading {
        struct store *store;
        struct cache_view *view;
        const struct digest *mounted;
        size_t mounted_count;
        struct error *e;
        struct error why; /* of what is passed over */
};

/* What is wrong with a file is for cache_verify to say: here it is less that is known. */
static int pass_over(struct reading *r, int result)
{
        return result == -ENOMEM ? error_oom(r->e) : 0;
}

static bool is_mounted(const struct reading *r, const struct digest *manifest)
{
        for (size_t k = 0; k < r->mounted_count; k++)
                if (digest_equal(&r->mounted[k], manifest))
                        return true;
        return false;
}

/* ---- layers ---- */

static struct cache_layer *add_layer(struct reading *r, const struct digest *digest, const char *kind)
{
        struct cache_view *v = r->view;
        struct cache_layer *l;

        if (array_reserve(v->layers, &v->layer_allocated, v->layer_count + 1) < 0) {
                (void) error_oom(r->e);
                return NULL;
        }
        l = &v->layers[v->layer_count++];
        *l = (struct cache_layer) { .digest = *digest };
        snprintf(l->kind, sizeof(l->kind), "%s", kind);
        return l;
}

static void count_content(struct cache_layer *l, const struct chunk_table *t, const struct audit *a)
{
        for (size_t i = 0; i < t->chunk_count; i++) {
                if (t->chunks[i].codec == CODEC_ZEROS)
                        continue;
                l->chunks++;
                l->bytes += t->chunks[i].content_length;
                if (!a || !audit_has(a, i))
                        continue;
                l->chunks_present++;
                l->bytes_present += t->chunks[i].content_length;
        }
}

static int look_into_layer(struct reading *r, struct cache_layer *l)
{
        _cleanup_(audit_close_ptr) struct audit *audit = NULL;
        _cleanup_(toc_close_ptr) struct toc *toc = NULL;
        int q = cache_open_toc(r->store, l->item, &toc, NULL, &r->why);

        if (q < 0)
                return pass_over(r, q);
        q = audit_open(r->store, l->item, &toc->chunks, &audit, &r->why);
        if (q == -ENOMEM)
                return error_oom(r->e);
        l->usable = true;
        l->blob_size = toc->chunks.blob_size;
        l->entries = toc->itable.inode_count;
        count_content(l, &toc->chunks, audit);
        return 0;
}

static int read_layers(struct reading *r)
{
        int q = 0;

        for (size_t k = 0; k < r->view->inventory.count && q == 0; k++) {
                const struct inventory_item *item = &r->view->inventory.items[k];
                struct cache_layer *l;

                if (item->kind != INVENTORY_LAYER)
                        continue;
                l = add_layer(r, &item->digest, item->layer_kind);
                if (!l)
                        return -ENOMEM;
                l->item = item;
                l->in_use = item->in_use;
                l->used = item->used;
                q = look_into_layer(r, l);
        }
        return q;
}

/* The row of an image's layer. */
static int find_layer(struct reading *r, const struct tree_layer *wanted, size_t *ret)
{
        struct cache_layer *l;

        for (size_t k = 0; k < r->view->layer_count; k++) {
                l = &r->view->layers[k];
                if (digest_equal(&l->digest, &wanted->digest) && str_eq(l->kind, wanted->kind)) {
                        *ret = k;
                        return 0;
                }
        }
        l = add_layer(r, &wanted->digest, wanted->kind);
        if (!l)
                return -ENOMEM;
        l->blob_size = wanted->blob_size;
        *ret = r->view->layer_count - 1;
        return 0;
}

/* ---- images ---- */

static bool has_layer(const struct cache_image *i, size_t row)
{
        for (size_t k = 0; k < i->layer_count; k++)
                if (i->layers[k] == row)
                        return true;
        return false;
}

static int take_layers(struct reading *r, struct cache_image *i, const struct tree *t)
{
        i->layers = calloc(t->layer_count + 1, sizeof(*i->layers));
        if (!i->layers)
                return error_oom(r->e);
        for (size_t k = 0; k < t->layer_count; k++) {
                size_t row;
                int q = find_layer(r, &t->layers[k], &row);

                if (q < 0)
                        return q;
                if (has_layer(i, row))
                        continue;
                i->layers[i->layer_count++] = row;
                r->view->layers[row].images++;
        }
        return 0;
}

/* Layers of a mounted image are in use, and an image all of whose layers are in use is mounted, or as good as that. It was
 * used when the last of its layers to be used was, if not later: who opens it opens them all. */
static void settle_use(const struct reading *r, struct cache_image *i)
{
        bool mounted = is_mounted(r, &i->manifest), all = i->layer_count > 0;
        int64_t oldest = INT64_MAX;

        for (size_t k = 0; k < i->layer_count; k++) {
                struct cache_layer *l = &r->view->layers[i->layers[k]];

                if (mounted && l->item)
                        l->in_use = true;
                all = all && l->in_use;
                oldest = MIN(oldest, l->item ? l->used : 0);
        }
        i->in_use = mounted || all;
        i->used = MAX(i->item->used, oldest == INT64_MAX ? 0 : oldest);
        i->item->used = i->used;
        i->item->in_use = i->in_use;
}

static int read_image(struct reading *r, struct inventory_item *item)
{
        _cleanup_(tree_close_ptr) struct tree *tree = NULL;
        struct cache_view *v = r->view;
        struct cache_image *i;
        int q;

        if (array_reserve(v->images, &v->image_allocated, v->image_count + 1) < 0)
                return error_oom(r->e);
        i = &v->images[v->image_count++];
        *i = (struct cache_image) { .item = item, .used = item->used };
        q = cache_open_tree(r->store, item, &tree, NULL, &r->why);
        if (q < 0)
                return pass_over(r, q);
        i->usable = true;
        i->manifest = tree->manifest;
        return take_layers(r, i, tree);
}

static int read_images(struct reading *r)
{
        int q = 0;

        for (size_t k = 0; k < r->view->inventory.count && q == 0; k++)
                if (r->view->inventory.items[k].kind == INVENTORY_IMAGE)
                        q = read_image(r, &r->view->inventory.items[k]);
        for (size_t k = 0; k < r->view->image_count && q == 0; k++)
                if (r->view->images[k].usable)
                        settle_use(r, &r->view->images[k]);
        return q;
}

/* ---- documents ---- */

static struct inventory_item *find_blob(struct reading *r, const struct digest *digest)
{
        char path[sizeof("blobs/sha256/") + 2 * DIGEST_MAX_SIZE], hex[2 * DIGEST_MAX_SIZE + 1];

        snprintf(path, sizeof(path), "blobs/%s/%s", digest_algorithm_name(digest->algorithm), digest_hex(digest, hex));
        return (struct inventory_item *) inventory_find(&r->view->inventory, path);
}

static void mark_used(struct inventory_item *item, int64_t used, bool in_use)
{
        item->used = MAX(item->used, used);
        item->in_use = item->in_use || in_use;
}

/* The manifest or index of that digest. -ENOENT where the store has none that is sound. */
static int read_manifest(struct reading *r, const struct inventory_item *blob, struct manifest *ret)
{
        _cleanup_document_ struct document d = { .digest = blob->digest, .media_type = strdup("") };
        int q = d.media_type ? cache_read_blob(r->store, blob, MANIFEST_MAX, &d.body, &r->why) : -ENOMEM;

        if (q == 0)
                q = manifest_parse(&d, blob->path, ret, &r->why);
        return q == -ENOMEM ? error_oom(r->e) : q < 0 ? -ENOENT : 0;
}

static int read_platform(struct reading *r, struct cache_image *i, const struct digest *config)
{
        struct inventory_item *blob = find_blob(r, config);
        _cleanup_platform_ struct platform p = { 0 };
        _cleanup_buf_ struct buf b = { 0 };
        int q;

        if (!blob)
                return 0;
        mark_used(blob, i->used, i->in_use);
        q = cache_read_blob(r->store, blob, MANIFEST_MAX, &b, &r->why);
        if (q == 0)
                q = config_platform(&b, blob->path, &p, &r->why);
        if (q < 0)
                return pass_over(r, q);
        i->platform = platform_format(&p);
        return i->platform ? 0 : error_oom(r->e);
}

static int read_documents(struct reading *r, struct cache_image *i)
{
        struct inventory_item *blob = i->usable ? find_blob(r, &i->manifest) : NULL;
        _cleanup_manifest_ struct manifest m = { 0 };
        int q;

        if (!blob)
                return 0;
        mark_used(blob, i->used, i->in_use);
        q = read_manifest(r, blob, &m);
        if (q == 0 && m.kind == MANIFEST_IMAGE)
                q = read_platform(r, i, &m.config.digest);
        return q == -ENOENT ? 0 : q;
}

/* ---- refs ---- */

static int add_reference(struct reading *r, struct cache_image *i, const char *name)
{
        size_t allocated = i->reference_count;

        if (array_reserve(i->references, &allocated, i->reference_count + 1) < 0)
                return error_oom(r->e);
        i->references[i->reference_count] = strdup(name);
        if (!i->references[i->reference_count])
                return error_oom(r->e);
        i->reference_count++;
        return 0;
}

/* What a ref leads to: the latest use of the images, and whether one of them is in use. */
struct led_to {
        int64_t used;
        bool in_use;
};

/* Gives the images that DIGEST is or leads to the reference NAME. */
static int follow(struct reading *r, const struct digest *digest, const char *name, unsigned depth, struct led_to *to)
{
        _cleanup_manifest_ struct manifest m = { 0 };
        struct inventory_item *blob;
        struct led_to here = { 0 };
        int q = 0;

        for (size_t k = 0; k < r->view->image_count && q == 0; k++) {
                struct cache_image *i = &r->view->images[k];

                if (!i->usable || !digest_equal(&i->manifest, digest))
                        continue;
                here.used = MAX(here.used, i->used);
                here.in_use = here.in_use || i->in_use;
                q = add_reference(r, i, name);
        }
        blob = q == 0 && depth > 0 ? find_blob(r, digest) : NULL;
        if (blob) {
                q = read_manifest(r, blob, &m);
                for (size_t k = 0; q == 0 && m.kind == MANIFEST_INDEX && k < m.manifest_count; k++)
                        q = follow(r, &m.manifests[k].digest, name, depth - 1, &here);
                mark_used(blob, here.used, here.in_use);
        }
        to->used = MAX(to->used, here.used);
        to->in_use = to->in_use || here.in_use;
        return q == -ENOENT ? 0 : q;
}

/* "…:index@sha256-<hex>" says which published index the image of that digest is read by. */
static void follow_record(struct reading *r, const char *name, const struct digest *index, struct led_to *to)
{
        const char *at = strrchr(name, '@');
        _cleanup_free_ char *text = at ? strdup(at + 1) : NULL;
        struct inventory_item *blob;
        struct digest digest;

        if (text && strchr(text, '-'))
                *strchr(text, '-') = ':';
        if (digest_parse(text, &digest, NULL) < 0)
                return;
        for (size_t k = 0; k < r->view->image_count; k++) {
                const struct cache_image *i = &r->view->images[k];

                if (!i->usable || !digest_equal(&i->manifest, &digest))
                        continue;
                to->used = MAX(to->used, i->used);
                to->in_use = to->in_use || i->in_use;
        }
        blob = find_blob(r, index);
        if (blob)
                mark_used(blob, to->used, to->in_use);
}

static int read_ref(struct reading *r, struct inventory_item *item)
{
        _cleanup_close_ int fd = inventory_open(r->store, item, NULL, false);
        _cleanup_free_ char *name = NULL;
        struct led_to to = { 0 };
        struct digest digest;
        bool is_record;
        int64_t when;
        int q = 0;

        if (fd < 0 || inventory_ref_read(fd, &digest, &when) < 0)
                return 0;
        name = inventory_ref_name(item, &is_record);
        if (!name)
                return error_oom(r->e);
        if (is_record)
                follow_record(r, name, &digest, &to);
        else
                q = follow(r, &digest, name, INDEX_NESTING_MAX, &to);
        mark_used(item, to.used, to.in_use);
        return q;
}

static int compare_names(const void *a, const void *b)
{
        return strcmp(*(char *const *) a, *(char *const *) b);
}

static int read_refs(struct reading *r)
{
        int q = 0;

        for (size_t k = 0; k < r->view->inventory.count && q == 0; k++)
                if (r->view->inventory.items[k].kind == INVENTORY_REF)
                        q = read_ref(r, &r->view->inventory.items[k]);
        for (size_t k = 0; k < r->view->image_count; k++) {
                struct cache_image *i = &r->view->images[k];

                if (i->reference_count > 0)
                        qsort(i->references, i->reference_count, sizeof(*i->references), compare_names);
        }
        return q;
}

/* ---- all of it ---- */

static int compare_images(const void *a, const void *b)
{
        const struct cache_image *x = a, *y = b;
        const char *p = x->reference_count > 0 ? x->references[0] : "~",
                   *q = y->reference_count > 0 ? y->references[0] : "~";
        int r = strcmp(p, q);

        return r ? r : strcmp(x->item->path, y->item->path);
}

int cache_read(struct store *s, const struct digest *mounted, size_t mounted_count, struct cache_view *ret,
               struct error *e)
{
        _cleanup_cache_view_ struct cache_view v = { 0 };
        struct error own = ERROR_INIT;
        struct reading r = {
                .store = s,
                .view = &v,
                .mounted = mounted,
                .mounted_count = mounted_count,
                .e = e ? e : &own,
        };
        int q = inventory_read(s, &v.inventory, r.e);

        if (q == 0)
                q = read_layers(&r);
        if (q == 0)
                q = read_images(&r);
        for (size_t k = 0; k < v.image_count && q == 0; k++)
                q = read_documents(&r, &v.images[k]);
        if (q == 0)
                q = read_refs(&r);
        if (q < 0)
                return q;
        if (v.image_count > 0)
                qsort(v.images, v.image_count, sizeof(*v.images), compare_images);
        *ret = v;
        v = (struct cache_view) { 0 };
        return 0;
}

void cache_view_clear(struct cache_view *v)
{
        for (size_t k = 0; k < v->image_count; k++) {
                struct cache_image *i = &v->images[k];

                for (size_t n = 0; n < i->reference_count; n++)
                        free(i->references[n]);
                free(i->references);
                free(i->layers);
                free(i->platform);
        }
        free(v->images);
        free(v->layers);
        inventory_clear(&v->inventory);
        *v = (struct cache_view) { 0 };
}

void cache_image_size(const struct cache_view *v, const struct cache_image *i, struct inventory_size *ret_all,
                      struct inventory_size *ret_own)
{
        struct inventory_size all = i->item->size, own = i->item->size;

        for (size_t k = 0; k < i->layer_count; k++) {
                const struct cache_layer *l = &v->layers[i->layers[k]];

                if (!l->item)
                        continue;
                all.apparent += l->item->size.apparent;
                all.disk += l->item->size.disk;
                if (l->images > 1)
                        continue;
                own.apparent += l->item->size.apparent;
                own.disk += l->item->size.disk;
        }
        *ret_all = all;
        *ret_own = own;
}
