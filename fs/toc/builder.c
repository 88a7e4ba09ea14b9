/* SPDX-License-Identifier: Apache-2.0 */

#include <endian.h>
#include <string.h>
#include <sys/stat.h>

#include "builder.h"
#include "layer_tree.h"

int itable_builder_new(struct itable_builder **ret)
{
        _cleanup_(itable_builder_free_ptr) struct itable_builder *b = calloc(1, sizeof(*b));

        if (!b || xattr_table_init(&b->xattrs) < 0)
                return -ENOMEM;
        *ret = steal_ptr(b);
        return 0;
}

struct itable_builder *itable_builder_free(struct itable_builder *b)
{
        if (!b)
                return NULL;
        region_free(&b->inodes);
        region_free(&b->dirents);
        region_free(&b->extents);
        xattr_table_free(&b->xattrs);
        string_table_free(&b->strings);
        free(b);
        return NULL;
}

void itable_builder_view(const struct itable_builder *b, struct itable *ret)
{
        *ret = (struct itable) {
                .inodes = region_array(&b->inodes, struct inode),
                .dirents = region_array(&b->dirents, struct dirent_row),
                .extents = region_array(&b->extents, struct extent),
                .xattr_sets = region_array(&b->xattrs.sets, struct xattr_set),
                .xattr_pairs = region_array(&b->xattrs.pairs, struct xattr_pair),
                .strings = b->strings.bytes.data,
                .inode_count = region_count(&b->inodes, struct inode),
                .dirent_count = region_count(&b->dirents, struct dirent_row),
                .extent_count = region_count(&b->extents, struct extent),
                .xattr_set_count = region_count(&b->xattrs.sets, struct xattr_set),
                .xattr_pair_count = region_count(&b->xattrs.pairs, struct xattr_pair),
                .strings_size = (uint32_t) b->strings.bytes.size,
        };
}

int builder_error(int r, struct error *e)
{
        if (r == -ENOMEM)
                return error_oom(e);
        if (r == -EFBIG)
                return error_set(e, ERROR_BAD_DATA, EBADMSG,
                                 "the tree has more than 16 million entries or 1 GiB of names");
        return r;
}

int set_map_init(struct set_map *m, const struct itable *from)
{
        *m = (struct set_map) { 0 };
        return region_append(&m->sets, NULL, from->xattr_set_count * sizeof(uint32_t)) ? 0 : -ENOMEM;
}

void set_map_free(struct set_map *m)
{
        region_free(&m->sets);
}

static int copy_xattrs(struct itable_builder *b, const struct itable *from, struct set_map *sets, uint32_t set,
                       uint32_t *ret)
{
        const struct xattr_set *source = &from->xattr_sets[set];
        _cleanup_free_ struct layer_xattr *xattrs = NULL;
        uint32_t *known = region_at(&sets->sets, uint32_t, set);
        int r;

        if (*known == 0 && source->count > 0) {
                xattrs = calloc(source->count, sizeof(*xattrs));
                if (!xattrs)
                        return -ENOMEM;
                for (uint32_t i = 0; i < source->count; i++) {
                        const struct xattr_pair *p = &from->xattr_pairs[source->first + i];

                        xattrs[i] = (struct layer_xattr) {
                                .name = from->strings + p->name,
                                .value = (const uint8_t *) from->strings + p->value,
                                .value_length = p->value_length,
                        };
                }
                r = xattr_table_add(&b->xattrs, &b->strings, xattrs, source->count, known);
                if (r < 0)
                        return r;
        }
        *ret = *known;
        return 0;
}

static int copy_extents(struct itable_builder *b, const struct itable *from, const struct inode *i, uint64_t *ret_first)
{
        uint32_t first = region_count(&b->extents, struct extent);

        if (i->count > ITABLE_EXTENTS_MAX - first)
                return -EFBIG;
        if (i->count > 0 && !region_append(&b->extents, from->extents + i->data, i->count * sizeof(struct extent)))
                return -ENOMEM;
        *ret_first = first;
        return 0;
}

int builder_copy_inode(struct itable_builder *b, const struct itable *from, struct set_map *sets, const struct inode *i,
                       uint32_t parent, uint32_t *ret_row)
{
        uint32_t row = region_count(&b->inodes, struct inode), offset;
        struct inode copy = *i;
        int r = 0;

        if (row >= ITABLE_ENTRIES_MAX)
                return -EFBIG;
        copy.flags = i->flags & INODE_SPARSE;
        copy.nlink = 0;
        copy.parent = 0;
        if (S_ISDIR(i->mode)) {
                copy.nlink = 2;
                copy.data = copy.count = 0;
                copy.parent = parent;
        } else if (S_ISLNK(i->mode)) {
                r = string_table_add(&b->strings, from->strings + i->data, i->size + 1, &offset);
                copy.data = offset;
        } else if (i->flags & INODE_SPARSE) {
                r = copy_extents(b, from, i, &copy.data);
        }
        if (r == 0)
                r = copy_xattrs(b, from, sets, i->xattrs, &copy.xattrs);
        if (r == 0 && !region_append(&b->inodes, &copy, sizeof(copy)))
                r = -ENOMEM;
        if (r == 0)
                *ret_row = row;
        return r;
}

void builder_open_directory(struct itable_builder *b, uint32_t dir)
{
        builder_inode(b, dir)->data = region_count(&b->dirents, struct dirent_row);
}

int builder_add_dirent(struct itable_builder *b, uint32_t dir, const char *name, size_t length, enum dirent_type type,
                       uint32_t target)
{
        struct dirent_row d = { .name_length = (uint16_t) length, .type = (uint8_t) type, .target = target };
        int r;

        if (region_count(&b->dirents, struct dirent_row) >= ITABLE_ENTRIES_MAX)
                return -EFBIG;
        r = string_table_add(&b->strings, name, length, &d.name);
        if (r < 0)
                return r;
        if (!region_append(&b->dirents, &d, sizeof(d)))
                return -ENOMEM;
        builder_inode(b, dir)->count++;
        if (type != DIRENT_INODE)
                return 0;
        if (S_ISDIR(builder_inode(b, target)->mode))
                builder_inode(b, dir)->nlink++;
        else
                builder_inode(b, target)->nlink++;
        return 0;
}

/* A child on its way to its place: KEY is the name's first eight bytes, so that most comparisons stay in this array. */
struct child {
        uint64_t key;
        const char *name;
        uint32_t node;
        uint32_t length;
};

static uint64_t name_key(const char *name, size_t length)
{
        uint64_t key = 0;

        memcpy(&key, name, MIN(length, sizeof(key)));
        return be64toh(key);
}

static int compare_children(const void *a, const void *b)
{
        const struct child *x = a, *y = b;

        if (x->key != y->key)
                return x->key < y->key ? -1 : 1;
        return itable_compare_names(x->name, x->length, y->name, y->length);
}

struct conversion {
        struct itable_builder *b;
        struct layer_tree *tree;
        struct itable tables;
        struct set_map sets;
        struct region nodes;    /* by row: node */
        struct region children; /* of the directory at hand */
};

static void conversion_free(struct conversion *c)
{
        set_map_free(&c->sets);
        region_free(&c->nodes);
        region_free(&c->children);
}

/* The row of NODE, made if this is its first name. */
static int row_of(struct conversion *c, uint32_t node, uint32_t parent, uint32_t *ret)
{
        struct node *n = layer_node(c->tree, node);
        struct inode *inode;
        int r;

        if (n->row == 0) {
                r = builder_copy_inode(c->b, &c->tables, &c->sets, &n->inode, parent, ret);
                if (r < 0)
                        return r;
                if (!region_append(&c->nodes, &node, sizeof(node)))
                        return -ENOMEM;
                n->row = *ret + 1;
                inode = builder_inode(c->b, *ret);
                inode->flags = n->inode.flags;
                /* Whatever was below is gone, and with it the attributes that it would have lent. */
                if (n->kind == NODE_DIRECTORY && n->flags & NODE_HIDES_LOWER)
                        inode->flags = INODE_OPAQUE;
        }
        *ret = n->row - 1;
        return 0;
}

static int add_child(struct conversion *c, uint32_t dir, const struct child *child)
{
        const struct node *n = layer_node(c->tree, child->node);
        enum dirent_type type = DIRENT_INODE;
        uint32_t target = 0;
        int r = 0;

        if (layer_node_is_whiteout(n)) {
                type = DIRENT_WHITEOUT;
        } else if (n->kind == NODE_LINK && n->target == ITABLE_NONE) {
                const char *path = c->tables.strings + n->link;

                type = DIRENT_LINK;
                r = string_table_add(&c->b->strings, path, strlen(path) + 1, &target);
        } else {
                r = row_of(c, n->kind == NODE_LINK ? n->target : child->node, dir, &target);
        }
        return r < 0 ? r : builder_add_dirent(c->b, dir, child->name, child->length, type, target);
}

/* Layers are mostly written in order, or in the reverse of it as the list has it: sorting is for the others. */
static void sort_children(struct child *children, size_t count)
{
        for (size_t i = 0; i < count / 2; i++) {
                struct child swapped = children[i];

                children[i] = children[count - 1 - i];
                children[count - 1 - i] = swapped;
        }
        for (size_t i = 1; i < count; i++)
                if (compare_children(&children[i - 1], &children[i]) > 0) {
                        qsort(children, count, sizeof(*children), compare_children);
                        return;
                }
}

static int add_directory(struct conversion *c, uint32_t dir)
{
        const struct layer_tree *t = c->tree;
        const struct node *directory = layer_node(t, *region_at(&c->nodes, uint32_t, dir));
        size_t count;

        region_truncate(&c->children, 0);
        for (uint32_t i = directory->child; i != ITABLE_NONE; i = layer_node(t, i)->sibling) {
                const struct node *n = layer_node(t, i);
                const char *name = c->tables.strings + n->name;
                struct child child = {
                        .key = name_key(name, n->name_length), .name = name, .node = i, .length = n->name_length
                };

                if (n->flags & (NODE_DEAD | NODE_HIDDEN))
                        continue;
                if (!region_append(&c->children, &child, sizeof(child)))
                        return -ENOMEM;
        }
        count = region_count(&c->children, struct child);
        sort_children(region_array(&c->children, struct child), count);
        builder_open_directory(c->b, dir);
        for (size_t i = 0; i < count; i++) {
                int r = add_child(c, dir, region_at(&c->children, struct child, i));

                if (r < 0)
                        return r;
        }
        return 0;
}

static int convert(struct conversion *c)
{
        size_t nodes = region_count(&c->tree->nodes, struct node);
        struct itable_builder *b = c->b;
        uint32_t row;
        int r;

        layer_tree_tables(c->tree, &c->tables);
        /* Strings are most of what a tree and its rows have in common: they are not copied. */
        b->strings = c->tree->strings;
        c->tree->strings = (struct string_table) { 0 };
        r = set_map_init(&c->sets, &c->tables);
        if (r == 0)
                r = region_reserve(&b->inodes, nodes * sizeof(struct inode));
        if (r == 0)
                r = region_reserve(&b->dirents, nodes * sizeof(struct dirent_row));
        if (r == 0)
                r = row_of(c, 0, 0, &row);
        /* The rows are the queue: directories append theirs as they come. */
        for (uint32_t i = 0; r == 0 && i < region_count(&b->inodes, struct inode); i++)
                if (S_ISDIR(builder_inode(b, i)->mode))
                        r = add_directory(c, i);
        return r;
}

int itable_builder_from_layer(struct itable_builder *b, struct layer_tree *t, struct error *e)
{
        _cleanup_(conversion_free) struct conversion c = { .b = b, .tree = t };

        if (!t->finished || b->inodes.size > 0)
                return error_set(e, ERROR_OTHER, EINVAL, "the layer's tree is not finished, or the builder not empty");
        return builder_error(convert(&c), e);
}
