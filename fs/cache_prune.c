/* SPDX-License-Identifier: Apache-2.0 */

/* What goes out of a store, and in which order. Every removal is one that readers elsewhere survive: they go on with the
 * files that they have open. What is in use stays all the same: it would have to be fetched again. */

#include <stdio.h>
#include <time.h>

#include "cache_internal.h"

struct pruning {
        struct store *store;
        struct cache_view *view;
        const struct cache_prune_options *options;
        struct cache_prune_result *result;
        bool *gone; /* of each item */
        int64_t now;
        int first_error;
        struct error *e;
};

static size_t row_of(const struct pruning *p, const struct inventory_item *item)
{
        return (size_t) (item - p->view->inventory.items);
}

static void remove_item(struct pruning *p, const struct inventory_item *item, const char *why)
{
        struct error e = ERROR_INIT;
        int r = inventory_remove(p->store, item, &e);

        if (r < 0 && p->first_error == 0) {
                p->first_error = r;
                if (p->e)
                        *p->e = e;
        }
        if (r < 0)
                return;
        p->gone[row_of(p, item)] = true;
        p->result->removed[item->kind]++;
        p->result->freed += item->size.disk;
        p->result->left -= item->size.disk;
        if (p->options->report)
                p->options->report(p->options->report_context, item, why);
}

/* Whether somebody keeps the layer or image index, and with it what belongs to it. */
static bool is_kept(const struct pruning *p, const struct inventory_item *item, bool in_use)
{
        if (p->options->even_in_use)
                return false;
        /* It may have come into use since it was looked at. */
        return in_use || inventory_is_in_use(p->store, item);
}

static void count_kept(struct pruning *p)
{
        p->result->in_use++;
}

/* "not used for 3 days" */
static void say_idle(const struct pruning *p, const struct inventory_item *item, char *out, size_t size)
{
        int64_t idle = MAX(p->now - item->used, (int64_t) 0);
        const char *unit = idle >= 2 * 86400  ? "days"
                           : idle >= 2 * 3600 ? "hours"
                           : idle >= 2 * 60   ? "minutes"
                                              : "seconds";
        int64_t n = idle >= 2 * 86400  ? idle / 86400
                    : idle >= 2 * 3600 ? idle / 3600
                    : idle >= 2 * 60   ? idle / 60
                                       : idle;

        snprintf(out, size, "not used for %jd %s", (intmax_t) n, unit);
}

/* Drafts: the living claim theirs, whatever is wanted. */
static void prune_drafts(struct pruning *p)
{
        for (size_t k = 0; k < p->view->inventory.count; k++) {
                const struct inventory_item *item = &p->view->inventory.items[k];

                if (item->kind == INVENTORY_DRAFT && !inventory_is_in_use(p->store, item))
                        remove_item(p, item, "left behind by a process that has ended");
        }
}

static bool is_too_old(const struct pruning *p, const struct inventory_item *item)
{
        if (p->options->everything)
                return true;
        return p->options->older_than_s >= 0 && p->now - item->used >= p->options->older_than_s;
}

static void prune_old_item(struct pruning *p, const struct inventory_item *item, bool in_use)
{
        char why[64];

        if (p->gone[row_of(p, item)] || !is_too_old(p, item))
                return;
        if (is_kept(p, item, in_use)) {
                if (item->kind == INVENTORY_LAYER || item->kind == INVENTORY_IMAGE)
                        count_kept(p);
                return;
        }
        say_idle(p, item, why, sizeof(why));
        remove_item(p, item, p->options->everything ? "all was to go" : why);
}

/* What is not used for long. Refs and blobs first: without them an image index is found by nobody. */
static void prune_old(struct pruning *p)
{
        static const enum inventory_kind order[] = { INVENTORY_REF, INVENTORY_BLOB, INVENTORY_IMAGE };

        for (size_t n = 0; n < ELEMENTSOF(order); n++) {
                for (size_t k = 0; k < p->view->inventory.count; k++) {
                        const struct inventory_item *item = &p->view->inventory.items[k];

                        if (item->kind == order[n])
                                prune_old_item(p, item, item->in_use);
                }
        }
        for (size_t k = 0; k < p->view->layer_count; k++)
                if (p->view->layers[k].item)
                        prune_old_item(p, p->view->layers[k].item, p->view->layers[k].in_use);
}

static int longest_unused_first(const void *a, const void *b)
{
        const struct cache_layer *x = *(const struct cache_layer *const *) a,
                                 *y = *(const struct cache_layer *const *) b;

        if (x->used != y->used)
                return (x->used > y->used) - (x->used < y->used);
        return strcmp(x->item->path, y->item->path);
}

static int prune_to_size(struct pruning *p)
{
        _cleanup_free_ const struct cache_layer **layers = calloc(p->view->layer_count + 1, sizeof(*layers));
        size_t count = 0;

        if (!layers)
                return error_oom(p->e);
        for (size_t k = 0; k < p->view->layer_count; k++)
                if (p->view->layers[k].item && !p->gone[row_of(p, p->view->layers[k].item)])
                        layers[count++] = &p->view->layers[k];
        if (count > 0)
                qsort(layers, count, sizeof(*layers), longest_unused_first);
        for (size_t k = 0; k < count && p->result->left > p->options->max_size; k++) {
                if (is_kept(p, layers[k]->item, layers[k]->in_use))
                        count_kept(p);
                else
                        remove_item(p, layers[k]->item, "the store is larger than it may be");
        }
        return 0;
}

/* True when layers of the image have just gone, and none of them is left. */
static bool has_lost_all(const struct pruning *p, const struct cache_image *i)
{
        bool lost = false;

        for (size_t k = 0; k < i->layer_count; k++) {
                const struct cache_layer *l = &p->view->layers[i->layers[k]];

                if (l->item && !p->gone[row_of(p, l->item)])
                        return false;
                lost = lost || l->item;
        }
        return lost;
}

/* An image index is made anew with its layers, when somebody wants them. */
static void prune_useless(struct pruning *p)
{
        for (size_t k = 0; k < p->view->image_count; k++) {
                const struct cache_image *i = &p->view->images[k];

                if (!p->gone[row_of(p, i->item)] && has_lost_all(p, i) && !is_kept(p, i->item, i->in_use))
                        remove_item(p, i->item, "none of its layers is left");
        }
}

int cache_prune(struct store *s, struct cache_view *v, const struct cache_prune_options *options,
                struct cache_prune_result *ret, struct error *e)
{
        _cleanup_free_ bool *gone = calloc(v->inventory.count + 1, sizeof(*gone));
        struct pruning p = {
                .store = s, .view = v, .options = options, .result = ret, .gone = gone, .now = time(NULL), .e = e
        };
        int r;

        *ret = (struct cache_prune_result) { 0 };
        if (!gone)
                return error_oom(e);
        for (size_t k = 0; k < v->inventory.count; k++)
                if (v->inventory.items[k].kind != INVENTORY_FOREIGN)
                        ret->left += v->inventory.items[k].size.disk;
        prune_drafts(&p);
        prune_old(&p);
        r = prune_to_size(&p);
        if (r == 0)
                prune_useless(&p);
        return r < 0 ? r : p.first_error;
}
