/* SPDX-License-Identifier: Apache-2.0 */

/* The end of a layer: what its hardlinks are names of. */

#include <string.h>

#include "layer_tree.h"

static const char *show_node(const struct layer_tree *t, const struct node *n, char shown[LAYER_PATH_SHOWN_MAX])
{
        char path[ITABLE_PATH_MAX + 1];
        size_t start = sizeof(path);

        for (; n != layer_node(t, 0); n = layer_node(t, n->inode.parent)) {
                if (start < (size_t) n->name_length + 1)
                        break;
                if (start < sizeof(path))
                        path[--start] = '/';
                start -= n->name_length;
                memcpy(path + start, t->strings.bytes.data + n->name, n->name_length);
        }
        return layer_path_show(path + start, sizeof(path) - start, shown);
}

static int refuse_link(const struct layer_tree *t, const struct node *n, const char *why, struct error *e)
{
        const char *target = t->strings.bytes.data + n->link;
        char shown[LAYER_PATH_SHOWN_MAX], shown_target[LAYER_PATH_SHOWN_MAX];

        return error_set(e, ERROR_BAD_DATA, EBADMSG, "%s: hardlink to %s, %s", show_node(t, n, shown),
                         layer_path_show(target, strlen(target), shown_target), why);
}

/* What the layer holds at PATH: ITABLE_NONE when nothing, or nothing but whiteouts. */
static uint32_t look_up(const struct layer_tree *t, const char *path)
{
        size_t position = 0, length = strlen(path), n;
        const struct node *found;
        uint32_t i = 0, cursor;
        const char *name;

        while (i != ITABLE_NONE && layer_path_next(path, length, &position, &name, &n))
                i = layer_tree_child(t, i, name, n, &cursor);
        if (i == ITABLE_NONE)
                return ITABLE_NONE;
        found = layer_node(t, i);
        return found->kind == NODE_WHITEOUT || found->inode.flags & INODE_GHOST ? ITABLE_NONE : i;
}

/* Follows the chain from node START and gives its end to every link on the way, so that each link is followed once. */
static int resolve(struct layer_tree *t, uint32_t start, struct error *e)
{
        uint32_t at = start, end = ITABLE_NONE, link = 0;

        while (at != ITABLE_NONE) {
                struct node *n = layer_node(t, at);

                if (n->kind == NODE_DIRECTORY)
                        return refuse_link(t, layer_node(t, start), "which leads to a directory", e);
                if (n->kind == NODE_FILE) {
                        end = at;
                        break;
                }
                if (n->flags & NODE_RESOLVED) {
                        end = n->target;
                        link = n->link;
                        break;
                }
                if (n->flags & NODE_FOLLOWED)
                        return refuse_link(t, layer_node(t, start), "which is a link to a link without end", e);
                n->flags |= NODE_FOLLOWED;
                n->target = look_up(t, t->strings.bytes.data + n->link);
                link = n->link;
                at = n->target;
        }
        for (at = start; at != ITABLE_NONE && at != end;) {
                struct node *n = layer_node(t, at);

                at = n->target;
                n->flags |= NODE_RESOLVED;
                n->target = end;
                n->link = link;
        }
        return 0;
}

int layer_tree_finish(struct layer_tree *t, struct error *e)
{
        uint32_t count = region_count(&t->nodes, struct node);

        /* A node stands behind its parent, so one pass reaches all descendants. */
        for (uint32_t i = 1; i < count; i++)
                if (layer_node(t, layer_node(t, i)->inode.parent)->flags & NODE_DEAD)
                        layer_node(t, i)->flags |= NODE_DEAD;
        for (uint32_t i = 1; i < count; i++) {
                const struct node *n = layer_node(t, i);
                int r;

                if (n->kind != NODE_LINK || n->flags & (NODE_DEAD | NODE_HIDDEN))
                        continue;
                r = resolve(t, i, e);
                if (r < 0)
                        return r;
        }
        t->finished = true;
        /* Nothing is looked up any more. */
        slots_free(&t->children);
        string_table_seal(&t->strings);
        return 0;
}
