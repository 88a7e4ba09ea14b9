/* SPDX-License-Identifier: Apache-2.0 */

#include <string.h>
#include <sys/stat.h>

#include "layer_tree.h"

#define NODE_ROOT 0u
#define EXPECTED_MAX ((size_t) 40000) /* what others say is no reason to take more memory than for these */

int layer_tree_new(struct layer_tree **ret)
{
        _cleanup_(layer_tree_free_ptr) struct layer_tree *t = calloc(1, sizeof(*t));
        struct node *root;

        if (!t || xattr_table_init(&t->xattrs) < 0)
                return -ENOMEM;
        root = region_append(&t->nodes, NULL, sizeof(*root));
        if (!root)
                return -ENOMEM;
        root->kind = NODE_DIRECTORY;
        root->inode.mode = S_IFDIR | 0755;
        root->inode.flags = INODE_IMPLICIT;
        root->child = root->sibling = ITABLE_NONE;
        t->nodes_max = ITABLE_ENTRIES_MAX;
        t->last_directory = ITABLE_NONE;
        *ret = steal_ptr(t);
        return 0;
}

int layer_tree_expect(struct layer_tree *t, size_t entries)
{
        int r;

        entries = MIN(entries, EXPECTED_MAX);
        r = slots_expect(&t->children, entries);
        if (r == 0)
                r = slots_expect(&t->strings.index, entries);
        return r < 0 ? r : region_reserve(&t->nodes, entries * sizeof(struct node));
}

struct layer_tree *layer_tree_free(struct layer_tree *t)
{
        if (!t)
                return NULL;
        region_free(&t->nodes);
        region_free(&t->extents);
        string_table_free(&t->strings);
        xattr_table_free(&t->xattrs);
        slots_free(&t->children);
        free(t);
        return NULL;
}

static int refuse(const struct layer_path *path, struct error *e, const char *why)
{
        char shown[LAYER_PATH_SHOWN_MAX];

        return error_set(e, ERROR_BAD_DATA, EBADMSG, "%s: %s", layer_path_show(path->text, path->length, shown), why);
}

/* For the codes of string_table_add and its like. */
static int refuse_code(const struct layer_path *path, int r, struct error *e)
{
        return r == -EFBIG ? refuse(path, e,
                                    "the layer has more than 1 GiB of names, targets and xattrs, or 16 million xattrs")
                           : error_oom(e);
}

uint32_t layer_tree_child(const struct layer_tree *t, uint32_t dir, const char *name, size_t length,
                          uint32_t *ret_cursor)
{
        uint32_t i, hash = slots_hash(&t->children, name, length, dir + 1);

        *ret_cursor = hash;
        while ((i = slots_next(&t->children, hash, ret_cursor)) != SLOT_NONE) {
                const struct node *n = layer_node(t, i);

                if (n->inode.parent == dir && n->name_length == length &&
                    memcmp(t->strings.bytes.data + n->name, name, length) == 0)
                        return i;
        }
        return ITABLE_NONE;
}

/* Appends a node of the same parent and name as MODEL, and as hidden. */
static int append_node(struct layer_tree *t, const struct node *model, uint32_t *ret)
{
        uint32_t index = region_count(&t->nodes, struct node);
        struct node *n, *parent;

        if (index >= t->nodes_max)
                return -EFBIG;
        n = region_append(&t->nodes, NULL, sizeof(*n));
        if (!n)
                return -ENOMEM;
        parent = layer_node(t, model->inode.parent);
        n->inode.parent = model->inode.parent;
        n->name = model->name;
        n->name_length = model->name_length;
        n->flags = model->flags & NODE_HIDDEN;
        n->kind = NODE_WHITEOUT;
        n->child = ITABLE_NONE;
        n->sibling = parent->child;
        parent->child = index;
        *ret = index;
        return 0;
}

/* Adds a child that is not there yet, with nothing in its place. */
static int add_child(struct layer_tree *t, uint32_t dir, const char *name, size_t length, uint32_t *ret)
{
        struct node model = { .name_length = (uint16_t) length, .inode.parent = dir };
        int r;

        if (slots_reserve(&t->children) < 0)
                return -ENOMEM;
        r = string_table_add(&t->strings, name, length, &model.name);
        if (r < 0)
                return r;
        model.flags = layer_node(t, dir)->flags & NODE_HIDDEN;
        if (layer_name_classify(name, length) != LAYER_NAME_PLAIN)
                model.flags |= NODE_HIDDEN;
        r = append_node(t, &model, ret);
        if (r == 0)
                slots_add(&t->children, slots_hash(&t->children, name, length, dir + 1), *ret);
        return r;
}

static void make_implicit_directory(struct node *n, bool ghost)
{
        if (n->kind != NODE_WHITEOUT)
                n->flags |= NODE_HIDES_LOWER;
        n->kind = NODE_DIRECTORY;
        n->inode = (struct inode) {
                .mode = S_IFDIR | 0755,
                .flags = (uint16_t) (INODE_IMPLICIT | (ghost ? INODE_GHOST : 0)),
                .parent = n->inode.parent,
        };
}

static bool is_last_directory(const struct layer_tree *t, const struct layer_path *path, size_t length)
{
        return t->last_directory != ITABLE_NONE && t->last_length == length &&
               memcmp(t->last_path, path->text, length) == 0;
}

/* The directory of the first LENGTH bytes of PATH, made where it is missing. GHOST: for what never shows itself: it
 * makes directories that do not show for its sake, and goes nowhere (ITABLE_NONE) where this layer holds a file, which
 * hides everything below it anyway. */
static int walk(struct layer_tree *t, const struct layer_path *path, size_t length, bool ghost, uint32_t *ret)
{
        uint32_t dir = NODE_ROOT, child, cursor;
        size_t position = 0, n;
        const char *name;

        while (layer_path_next(path->text, length, &position, &name, &n)) {
                struct node *node;
                int r = 0;

                child = layer_tree_child(t, dir, name, n, &cursor);
                if (child == ITABLE_NONE)
                        r = add_child(t, dir, name, n, &child);
                if (r < 0)
                        return r;
                node = layer_node(t, child);
                if (ghost && (node->kind == NODE_FILE || node->kind == NODE_LINK)) {
                        *ret = ITABLE_NONE;
                        return 0;
                }
                if (node->kind != NODE_DIRECTORY)
                        make_implicit_directory(node, ghost);
                else if (!ghost)
                        node->inode.flags &= (uint16_t) ~INODE_GHOST;
                dir = child;
        }
        if (!ghost) {
                t->last_directory = dir;
                t->last_length = length;
                memcpy(t->last_path, path->text, length);
        }
        *ret = dir;
        return 0;
}

/* The node that an entry NAME of DIR is to fill. */
static int place(struct layer_tree *t, uint32_t dir, const char *name, size_t length, bool directory, uint32_t *ret)
{
        uint32_t cursor, fresh, i = layer_tree_child(t, dir, name, length, &cursor);
        struct node *n;
        int r;

        if (i == ITABLE_NONE)
                return add_child(t, dir, name, length, ret);
        n = layer_node(t, i);
        if (n->kind == NODE_DIRECTORY && !directory) {
                struct node model = *n;

                r = append_node(t, &model, &fresh);
                if (r < 0)
                        return r;
                layer_node(t, i)->flags |= NODE_DEAD;
                slots_set(&t->children, cursor, fresh);
                i = fresh;
        } else if (directory && (n->kind == NODE_FILE || n->kind == NODE_LINK)) {
                n->flags |= NODE_HIDES_LOWER;
        }
        *ret = i;
        return 0;
}

static int describe_extents(struct layer_tree *t, const struct layer_entry *entry, const struct layer_path *path,
                            struct inode *i, struct error *e)
{
        uint32_t first = region_count(&t->extents, struct extent);
        uint64_t end = 0, content_end;

        if (entry->extent_count > ITABLE_EXTENTS_MAX - first)
                return refuse(path, e, "the layer has more than 16 million pieces of sparse files");
        for (size_t k = 0; k < entry->extent_count; k++) {
                const struct extent *x = &entry->extents[k];

                if (x->file_offset < end || !range_fits(x->file_offset, x->length, entry->size) ||
                    __builtin_add_overflow(x->content_offset, x->length, &content_end))
                        return refuse(path, e, "the pieces of the sparse file overlap or lie past its end");
                end = x->file_offset + x->length;
                if (x->length > 0 && !region_append(&t->extents, x, sizeof(*x)))
                        return error_oom(e);
        }
        i->flags = INODE_SPARSE;
        i->data = first;
        i->count = region_count(&t->extents, struct extent) - first;
        return 0;
}

static int describe_regular(struct layer_tree *t, const struct layer_entry *entry, const struct layer_path *path,
                            struct inode *i, struct error *e)
{
        uint64_t end;

        if (entry->size > INT64_MAX || __builtin_add_overflow(entry->content_offset, entry->size, &end))
                return refuse(path, e, "the file's size is out of range");
        i->size = entry->size;
        if (entry->sparse)
                return describe_extents(t, entry, path, i, e);
        i->data = entry->size > 0 ? entry->content_offset : 0;
        return 0;
}

static int describe_symlink(struct layer_tree *t, const struct layer_entry *entry, const struct layer_path *path,
                            struct inode *i, struct error *e)
{
        size_t n = entry->link ? strlen(entry->link) : 0;
        uint32_t offset;
        int r;

        if (n == 0)
                return refuse(path, e, "the symlink has no target");
        if (n > ITABLE_SYMLINK_MAX)
                return refuse(path, e, "the symlink's target is longer than 4095 bytes");
        r = string_table_add(&t->strings, entry->link, n + 1, &offset);
        if (r < 0)
                return refuse_code(path, r, e);
        i->size = n;
        i->data = offset;
        return 0;
}

static int describe_xattrs(struct layer_tree *t, const struct layer_entry *entry, const struct layer_path *path,
                           struct inode *i, struct error *e)
{
        int r;

        if (entry->xattr_count > ITABLE_XATTR_COUNT_MAX)
                return refuse(path, e, "more than 4096 xattrs");
        for (size_t k = 0; k < entry->xattr_count; k++) {
                const struct layer_xattr *x = &entry->xattrs[k];
                size_t n = strlen(x->name);

                if (n == 0 || n > ITABLE_XATTR_NAME_MAX)
                        return refuse(path, e, "an xattr's name is empty or longer than 255 bytes");
                if (x->value_length > ITABLE_XATTR_VALUE_MAX)
                        return refuse(path, e, "an xattr's value is longer than 64 KiB");
        }
        r = xattr_table_add(&t->xattrs, &t->strings, entry->xattrs, entry->xattr_count, &i->xattrs);
        return r < 0 ? refuse_code(path, r, e) : 0;
}

/* The attributes of anything but a hardlink. */
static int describe(struct layer_tree *t, const struct layer_entry *entry, const struct layer_path *path,
                    struct inode *ret, struct error *e)
{
        struct inode i = {
                .mtime = entry->mtime,
                .mtime_nsec = entry->mtime_nsec,
                .mode = entry->mode & (S_IFMT | 07777),
                .uid = entry->uid,
                .gid = entry->gid,
        };
        int r = 0;

        if (entry->mtime_nsec >= 1000000000)
                return refuse(path, e, "the time has more than 999999999 nanoseconds");
        switch (entry->mode & S_IFMT) {
        case S_IFREG:
                r = describe_regular(t, entry, path, &i, e);
                break;
        case S_IFLNK:
                r = describe_symlink(t, entry, path, &i, e);
                break;
        case S_IFCHR:
        case S_IFBLK:
                i.data = (uint64_t) entry->major << 32 | entry->minor;
                break;
        case S_IFDIR:
        case S_IFIFO:
                break;
        default:
                return refuse(path, e, "unknown type of file");
        }
        if (r == 0)
                r = describe_xattrs(t, entry, path, &i, e);
        if (r < 0)
                return r;
        *ret = i;
        return 0;
}

static int describe_link(struct layer_tree *t, const struct layer_entry *entry, const struct layer_path *path,
                         uint32_t *ret_link, struct error *e)
{
        struct layer_path target;
        int r;

        if (!entry->link || !entry->link[0])
                return refuse(path, e, "the hardlink has no target");
        r = layer_path_normalise(entry->link, &target, e);
        if (r < 0)
                return error_prefix(e, "target of a hardlink");
        r = string_table_add(&t->strings, target.text, target.length + 1, ret_link);
        return r < 0 ? refuse_code(path, r, e) : 0;
}

static int add_entry(struct layer_tree *t, const struct layer_entry *entry, const struct layer_path *path, uint32_t dir,
                     const char *name, size_t length, struct error *e)
{
        bool directory = !entry->hardlink && S_ISDIR(entry->mode);
        struct inode inode = { 0 };
        uint32_t i, link = 0;
        struct node *n;
        int r;

        r = entry->hardlink ? describe_link(t, entry, path, &link, e) : describe(t, entry, path, &inode, e);
        if (r < 0)
                return r;
        r = place(t, dir, name, length, directory, &i);
        if (r < 0)
                return r == -EFBIG ? r : error_oom(e);
        n = layer_node(t, i);
        if (directory && n->kind == NODE_DIRECTORY)
                inode.flags = n->inode.flags & INODE_OPAQUE;
        inode.parent = n->inode.parent;
        n->inode = inode;
        n->kind = directory ? NODE_DIRECTORY : entry->hardlink ? NODE_LINK : NODE_FILE;
        n->link = link;
        return 0;
}

static int add_root(struct layer_tree *t, const struct layer_entry *entry, const struct layer_path *path,
                    struct error *e)
{
        struct node *root = layer_node(t, NODE_ROOT);
        struct inode inode;
        int r;

        if (entry->hardlink || !S_ISDIR(entry->mode))
                return refuse(path, e, "the root is no directory");
        r = describe(t, entry, path, &inode, e);
        if (r < 0)
                return r;
        inode.flags = root->inode.flags & INODE_OPAQUE;
        root->inode = inode;
        return 0;
}

static int add_whiteout(struct layer_tree *t, uint32_t dir, const char *name, size_t length)
{
        uint32_t cursor, i = layer_tree_child(t, dir, name, length, &cursor);
        int r = 0;

        if (i == ITABLE_NONE)
                r = add_child(t, dir, name, length, &i);
        if (r == 0)
                layer_node(t, i)->flags |= NODE_HIDES_LOWER;
        return r;
}

/* What the names above the last one say: HIDDEN below anything that never shows, PLAIN otherwise, or BAD. */
static enum layer_name classify_parents(const struct layer_path *path, size_t length)
{
        enum layer_name ret = LAYER_NAME_PLAIN;
        size_t position = 0, n;
        const char *name;

        while (layer_path_next(path->text, length, &position, &name, &n)) {
                enum layer_name kind = layer_name_classify(name, n);

                if (kind == LAYER_NAME_BAD)
                        return kind;
                if (kind != LAYER_NAME_PLAIN)
                        ret = LAYER_NAME_HIDDEN;
        }
        return ret;
}

static int add_path(struct layer_tree *t, const struct layer_entry *entry, const struct layer_path *path,
                    struct error *e)
{
        const char *slash = memrchr(path->text, '/', path->length);
        const char *name = slash ? slash + 1 : path->text;
        size_t parents = slash ? (size_t) (slash - path->text) : 0,
               length = path->length - (size_t) (name - path->text);
        enum layer_name above = LAYER_NAME_PLAIN, kind = layer_name_classify(name, length);
        bool known = is_last_directory(t, path, parents);
        uint32_t dir = t->last_directory;
        int r = 0;

        if (!known)
                above = classify_parents(path, parents);
        if (above == LAYER_NAME_BAD || kind == LAYER_NAME_BAD)
                return refuse(path, e, "a whiteout must name a file");
        if (above == LAYER_NAME_HIDDEN && (kind == LAYER_NAME_WHITEOUT || kind == LAYER_NAME_OPAQUE))
                return 0;
        if (!known)
                r = walk(t, path, parents, above != LAYER_NAME_PLAIN || kind != LAYER_NAME_PLAIN, &dir);
        if (r < 0 || dir == ITABLE_NONE)
                return r;
        switch (kind) {
        case LAYER_NAME_OPAQUE:
                layer_node(t, dir)->inode.flags |= INODE_OPAQUE;
                return 0;
        case LAYER_NAME_WHITEOUT:
                return add_whiteout(t, dir, name + WHITEOUT_PREFIX_LENGTH, length - WHITEOUT_PREFIX_LENGTH);
        default:
                return add_entry(t, entry, path, dir, name, length, e);
        }
}

int layer_tree_add(struct layer_tree *t, const struct layer_entry *entry, struct error *e)
{
        struct layer_path path;
        int r;

        if (t->finished)
                return error_set(e, ERROR_OTHER, EINVAL, "the layer's tree is finished already");
        r = layer_path_normalise(entry->path, &path, e);
        if (r < 0)
                return r;
        if (path.length == 0)
                return add_root(t, entry, &path, e);
        r = add_path(t, entry, &path, e);
        if (r == -EFBIG)
                return refuse(&path, e, "the layer has more than 16 million entries or 1 GiB of names");
        return r == -ENOMEM ? error_oom(e) : r;
}
