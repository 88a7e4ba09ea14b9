/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The rules of OCI layers once more, as slow and as plain as possible: flat lists of paths, searched from end to end,
 * and layers laid one over the other by removing and adding paths. For comparison with the real thing on random
 * images. */

#include "itable_text.h"

#define MODEL_PATHS 400

enum model_kind { MODEL_DIR, MODEL_FILE, MODEL_LINK, MODEL_BROKEN };

struct model_item {
        char path[32];
        enum model_kind kind;
        unsigned number; /* file: which; directory: its mode */
        bool implicit;
        char target[32];
};

/* One layer's final state, or an image. */
struct model {
        struct model_item items[MODEL_PATHS];
        size_t count;
        char hides[MODEL_PATHS][32]; /* paths that lower layers have nothing at */
        size_t hides_count;
        char opaque[MODEL_PATHS][32]; /* directories whose lower children are hidden */
        size_t opaque_count;
        bool opaque_root;
};

static inline bool model_below(const char *path, const char *dir)
{
        size_t n = strlen(dir);

        return strncmp(path, dir, n) == 0 && path[n] == '/';
}

static inline struct model_item *model_find(struct model *m, const char *path)
{
        for (size_t i = 0; i < m->count; i++)
                if (strcmp(m->items[i].path, path) == 0)
                        return &m->items[i];
        return NULL;
}

static inline void model_remove_paths(char (*paths)[32], size_t *count, const char *path, bool itself)
{
        size_t kept = 0;

        for (size_t i = 0; i < *count; i++)
                if (!model_below(paths[i], path) && !(itself && strcmp(paths[i], path) == 0))
                        memmove(paths[kept++], paths[i], sizeof(paths[i]));
        *count = kept;
}

static inline void model_remove(struct model *m, const char *path, bool itself)
{
        size_t kept = 0;

        for (size_t i = 0; i < m->count; i++)
                if (!model_below(m->items[i].path, path) && !(itself && strcmp(m->items[i].path, path) == 0))
                        m->items[kept++] = m->items[i];
        m->count = kept;
}

static inline void model_note(char (*paths)[32], size_t *count, const char *path)
{
        assert_true(*count < MODEL_PATHS);
        snprintf(paths[(*count)++], 32, "%s", path);
}

static inline struct model_item *model_put(struct model *m, const char *path, enum model_kind kind)
{
        struct model_item *item = model_find(m, path);

        assert_true(item || m->count < MODEL_PATHS);
        if (!item)
                item = &m->items[m->count++];
        *item = (struct model_item) { .kind = kind };
        snprintf(item->path, sizeof(item->path), "%s", path);
        return item;
}

/* Makes the directories above PATH in a layer. */
static inline void model_make_parents(struct model *layer, const char *path)
{
        for (const char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
                struct model_item *item;
                char dir[32];

                snprintf(dir, sizeof(dir), "%.*s", (int) (slash - path), path);
                item = model_find(layer, dir);
                if (item && item->kind == MODEL_DIR)
                        continue;
                if (item)
                        model_note(layer->hides, &layer->hides_count, dir);
                item = model_put(layer, dir, MODEL_DIR);
                item->number = 0755;
                item->implicit = true;
        }
}

static inline bool model_is_below_file(const struct model *layer, const char *path)
{
        for (size_t i = 0; i < layer->count; i++)
                if (layer->items[i].kind != MODEL_DIR && model_below(path, layer->items[i].path))
                        return true;
        return false;
}

static inline void model_add(struct model *layer, const char *path, enum model_kind kind, unsigned number,
                             const char *target)
{
        struct model_item *item;

        model_make_parents(layer, path);
        item = model_find(layer, path);
        if (kind != MODEL_DIR) {
                model_remove(layer, path, true);
                model_remove_paths(layer->hides, &layer->hides_count, path, false);
                model_remove_paths(layer->opaque, &layer->opaque_count, path, true);
        } else if (item && item->kind != MODEL_DIR) {
                model_note(layer->hides, &layer->hides_count, path);
        }
        item = model_put(layer, path, kind);
        item->number = number;
        snprintf(item->target, sizeof(item->target), "%s", target);
}

static inline void model_add_whiteout(struct model *layer, const char *path)
{
        if (!model_is_below_file(layer, path))
                model_note(layer->hides, &layer->hides_count, path);
}

static inline void model_add_opaque(struct model *layer, const char *dir)
{
        const struct model_item *item = model_find(layer, dir);

        if (!dir[0])
                layer->opaque_root = true;
        else if (!model_is_below_file(layer, dir) && !(item && item->kind != MODEL_DIR))
                model_note(layer->opaque, &layer->opaque_count, dir);
}

/* Gives each link of the layer the path where its chain ends: a file of the layer, or a path that it does not hold.
 * False for a chain without end and for a directory. */
static inline bool model_finish(struct model *layer)
{
        for (size_t i = 0; i < layer->count; i++) {
                const struct model_item *end = &layer->items[i];
                const char *target = "";
                size_t steps = 0;

                while (end && end->kind == MODEL_LINK) {
                        target = end->target;
                        end = model_find(layer, target);
                        if (++steps > layer->count)
                                return false;
                }
                if (steps > 0 && end && end->kind == MODEL_DIR)
                        return false;
                if (steps > 0)
                        memmove(layer->items[i].target, target, sizeof(layer->items[i].target));
        }
        return true;
}

/* Lays a finished layer over IMAGE. */
static inline void model_apply(struct model *image, struct model *layer)
{
        struct model *lower = malloc(sizeof(*lower));

        assert_non_null(lower);
        *lower = *image;
        if (layer->opaque_root)
                image->count = 0;
        for (size_t i = 0; i < layer->hides_count; i++)
                model_remove(image, layer->hides[i], true);
        for (size_t i = 0; i < layer->opaque_count; i++)
                model_remove(image, layer->opaque[i], false);
        for (size_t i = 0; i < layer->count; i++) {
                struct model_item item = layer->items[i], *there = model_find(image, item.path), *bound = NULL;

                if (item.kind == MODEL_DIR && there && there->kind == MODEL_DIR) {
                        if (!item.implicit)
                                *there = item;
                        continue;
                }
                if (item.kind != MODEL_DIR)
                        model_remove(image, item.path, true);
                if (item.kind == MODEL_LINK) {
                        bound = model_find(layer, item.target);
                        if (!bound)
                                bound = model_find(lower, item.target);
                        item.kind = bound && bound->kind == MODEL_FILE ? MODEL_FILE : MODEL_BROKEN;
                        item.number = bound ? bound->number : 0;
                }
                *model_put(image, item.path, item.kind) = item;
        }
        free(lower);
}

static inline int model_compare(const void *a, const void *b)
{
        return strcmp(((const struct model_item *) a)->path, ((const struct model_item *) b)->path);
}

/* IMAGE as itable_text writes trees whose files have distinct numbers; NULL when a link is broken. With the names a,
 * b, c and '/' before them, sorting whole paths gives the order of a walk. */
static inline char *model_text(struct model *image)
{
        struct buf b = { 0 };

        buf_append_str(&b, "/ 755\n");
        qsort(image->items, image->count, sizeof(*image->items), model_compare);
        for (size_t i = 0; i < image->count; i++) {
                const struct model_item *item = &image->items[i], *first = NULL;
                unsigned names = 0;

                for (size_t k = image->count; k-- > 0;)
                        if (image->items[k].kind == MODEL_FILE && image->items[k].number == item->number) {
                                first = &image->items[k];
                                names++;
                        }
                if (item->kind == MODEL_BROKEN) {
                        buf_free(&b);
                        return NULL;
                }
                if (item->kind == MODEL_DIR)
                        buf_printf(&b, "%s/ %o\n", item->path, item->number);
                else if (first != item)
                        buf_printf(&b, "%s = %s\n", item->path, first->path);
                else if (names > 1)
                        buf_printf(&b, "%s 644 #%u x%u\n", item->path, item->number, names);
                else
                        buf_printf(&b, "%s 644 #%u\n", item->path, item->number);
        }
        return buf_steal(&b);
}
