/* SPDX-License-Identifier: Apache-2.0 */

/* The merge of layers. A directory of the merged tree stands on source directories of one or more layers; their sorted
 * dirents are read side by side, and for each name combine() decides what shows. The same function walks a path for a
 * hardlink into lower layers, so both see one tree. */

#include <string.h>
#include <sys/stat.h>

#include "builder.h"
#include "layer_path.h"

/* A row of a layer. */
struct source {
        uint32_t layer;
        uint32_t row;
};

/* What a layer says about one name. */
struct claim {
        uint32_t layer;
        uint32_t target;
        uint8_t type; /* enum dirent_type */
};

/* What shows of a name. */
struct outcome {
        enum { NOTHING, FILE_OR_LINK, DIRECTORY } what;
        struct claim file;        /* FILE_OR_LINK */
        struct source attributes; /* DIRECTORY: whose attributes it has */
        uint32_t first, count;    /* DIRECTORY: its sources, top layer first */
};

/* A directory whose dirents are to be made. */
struct pending {
        uint32_t row;
        uint32_t first, count; /* in sources */
        uint32_t parent;       /* in the queue */
        uint32_t name;         /* in the builder's strings */
        uint32_t name_length;
};

/* A reader of one source directory. */
struct cursor {
        const struct itable *table;
        const struct dirent_row *at, *end;
        uint32_t layer;
};

struct layer_state {
        struct itable table; /* with its strings in those of the builder */
        struct region rows;  /* by the layer's row: the merged row + 1, or 0 */
        struct set_map sets;
};

struct merge {
        struct itable_builder *b;
        struct layer_state *layers;
        size_t layer_count;
        struct region sources; /* of the queue's directories */
        struct region scratch; /* sources along the path of a hardlink */
        struct region queue;
        struct cursor *cursors; /* a heap; room for one a layer */
        size_t cursor_count;
        struct claim *claims;
};

static void merge_clear(struct merge *m)
{
        for (size_t i = 0; m->layers && i < m->layer_count; i++) {
                region_free(&m->layers[i].rows);
                set_map_free(&m->layers[i].sets);
        }
        free(m->layers);
        free(m->cursors);
        free(m->claims);
        region_free(&m->sources);
        region_free(&m->scratch);
        region_free(&m->queue);
}

/* Rows for all that the layers have: most of it shows. */
static int reserve_rows(struct merge *m)
{
        size_t inodes = 0, dirents = 0, strings = 0;
        int r;

        for (size_t i = 0; i < m->layer_count; i++) {
                inodes += m->layers[i].table.inode_count;
                dirents += m->layers[i].table.dirent_count;
                strings += m->layers[i].table.strings_size;
        }
        r = region_reserve(&m->b->inodes, inodes * sizeof(struct inode));
        if (r == 0)
                r = region_reserve(&m->b->dirents, dirents * sizeof(struct dirent_row));
        return r < 0 ? r : region_reserve(&m->b->strings.bytes, MIN(strings, (size_t) ITABLE_STRINGS_MAX));
}

/* Names are most of what the merged tree has in common with its layers: they are taken over as they are, those that no
 * longer show too, so that none of them has to be looked for. */
static int take_strings(struct merge *m)
{
        struct region *all = &m->b->strings.bytes;
        const char *at;

        if (reserve_rows(m) < 0)
                return -ENOMEM;
        for (size_t i = 0; i < m->layer_count; i++) {
                const struct itable *t = &m->layers[i].table;

                if (t->strings_size > ITABLE_STRINGS_MAX - all->size)
                        return -EFBIG;
                if (t->strings_size > 0 && !region_append(all, t->strings, t->strings_size))
                        return -ENOMEM;
        }
        at = all->data;
        for (size_t i = 0; i < m->layer_count; i++) {
                m->layers[i].table.strings = at;
                at += m->layers[i].table.strings_size;
        }
        return 0;
}

static int merge_init(struct merge *m, const struct itable *const *tables)
{
        m->layers = calloc(m->layer_count + 1, sizeof(*m->layers));
        m->cursors = calloc(m->layer_count + 1, sizeof(*m->cursors));
        m->claims = calloc(m->layer_count + 1, sizeof(*m->claims));
        if (!m->layers || !m->cursors || !m->claims)
                return -ENOMEM;
        for (size_t i = 0; i < m->layer_count; i++) {
                struct layer_state *l = &m->layers[i];

                l->table = *tables[i];
                if (!region_append(&l->rows, NULL, l->table.inode_count * sizeof(uint32_t)) ||
                    set_map_init(&l->sets, &l->table) < 0)
                        return -ENOMEM;
        }
        return take_strings(m);
}

static const struct inode *source_inode(const struct merge *m, struct source s)
{
        return &m->layers[s.layer].table.inodes[s.row];
}

/* Decides what shows of a name, from the COUNT claims on it, top layer first. Sources of a directory are appended to
 * SOURCES. Layers below an opaque directory add no children; they still lend attributes to one that no entry names. */
static int combine(const struct merge *m, const struct claim *claims, size_t count, struct region *sources,
                   struct outcome *ret)
{
        uint32_t first = region_count(sources, struct source);
        bool exists = false, open = true, described = false;
        struct outcome o = { .what = NOTHING, .first = first };

        for (size_t i = 0; i < count && (open || !described); i++) {
                struct source s = { .layer = claims[i].layer, .row = claims[i].target };
                const struct inode *inode;

                if (claims[i].type == DIRENT_WHITEOUT)
                        break;
                inode = claims[i].type == DIRENT_INODE ? source_inode(m, s) : NULL;
                if (!inode || !S_ISDIR(inode->mode)) {
                        if (!exists)
                                o = (struct outcome) { .what = FILE_OR_LINK, .file = claims[i] };
                        break;
                }
                if (open && !region_append(sources, &s, sizeof(s)))
                        return -ENOMEM;
                if (i == 0 || (!described && !(inode->flags & INODE_IMPLICIT)))
                        o.attributes = s;
                described |= !(inode->flags & INODE_IMPLICIT);
                exists |= !(inode->flags & INODE_GHOST);
                open &= !(inode->flags & INODE_OPAQUE);
        }
        if (exists) {
                o.what = DIRECTORY;
                o.count = region_count(sources, struct source) - first;
        } else {
                region_truncate(sources, first * sizeof(struct source));
        }
        *ret = o;
        return 0;
}

static int combine_roots(const struct merge *m, uint32_t below, struct region *sources, struct outcome *ret)
{
        for (uint32_t i = 0; i < below; i++)
                m->claims[i] = (struct claim) { .layer = below - 1 - i, .type = DIRENT_INODE };
        return combine(m, m->claims, below, sources, ret);
}

/* What shows of PATH in the tree of the layers under BELOW. */
static int look_up(struct merge *m, uint32_t below, const char *path, struct outcome *ret)
{
        size_t position = 0, length = strlen(path), n;
        struct outcome o;
        const char *name;
        int r;

        region_truncate(&m->scratch, 0);
        r = combine_roots(m, below, &m->scratch, &o);
        while (r == 0 && layer_path_next(path, length, &position, &name, &n)) {
                size_t count = 0;

                for (uint32_t i = 0; o.what == DIRECTORY && i < o.count; i++) {
                        struct source s = *region_at(&m->scratch, struct source, o.first + i);
                        const struct itable *table = &m->layers[s.layer].table;
                        uint32_t d = itable_find(table, s.row, name, n);

                        if (d != ITABLE_NONE)
                                m->claims[count++] = (struct claim) {
                                        .layer = s.layer,
                                        .type = table->dirents[d].type,
                                        .target = table->dirents[d].target,
                                };
                }
                r = combine(m, m->claims, count, &m->scratch, &o);
        }
        if (r == 0)
                *ret = o;
        return r;
}

/* The path of a directory in the queue, then NAME, into SHOWN. */
static const char *show_path(const struct merge *m, uint32_t dir, const char *name, size_t length,
                             char shown[LAYER_PATH_SHOWN_MAX])
{
        char path[ITABLE_PATH_MAX + ITABLE_NAME_MAX + 2];
        size_t start = sizeof(path) - length;

        memcpy(path + start, name, length);
        while (dir > 0) {
                const struct pending *p = region_at(&m->queue, struct pending, dir);

                if (start < p->name_length + 1u)
                        break;
                path[--start] = '/';
                start -= p->name_length;
                memcpy(path + start, m->b->strings.bytes.data + p->name, p->name_length);
                dir = p->parent;
        }
        return layer_path_show(path + start, sizeof(path) - start, shown);
}

/* Follows links down through the layers until CLAIM is a row. Each step goes at least one layer down. */
static int follow_links(struct merge *m, struct claim *claim, uint32_t dir, const char *name, size_t length,
                        struct error *e)
{
        char shown[LAYER_PATH_SHOWN_MAX], shown_target[LAYER_PATH_SHOWN_MAX];

        while (claim->type == DIRENT_LINK) {
                const char *path = m->layers[claim->layer].table.strings + claim->target;
                struct outcome o = { .what = NOTHING };
                int r;

                r = look_up(m, claim->layer, path, &o);
                if (r < 0)
                        return builder_error(r, e);
                if (o.what != FILE_OR_LINK)
                        return error_set(e, ERROR_BAD_DATA, EBADMSG, "%s: hardlink to %s, which %s",
                                         show_path(m, dir, name, length, shown),
                                         layer_path_show(path, strlen(path), shown_target),
                                         o.what == DIRECTORY ? "is a directory in a lower layer" : "no layer holds");
                *claim = o.file;
        }
        return 0;
}

/* The merged row of a layer's file: one for all its names. */
static int file_row(struct merge *m, struct source s, uint32_t *ret)
{
        struct layer_state *l = &m->layers[s.layer];
        uint32_t *row = region_at(&l->rows, uint32_t, s.row);
        int r;

        if (*row == 0) {
                r = builder_copy_inode(m->b, &l->table, &l->sets, source_inode(m, s), 0, ret);
                if (r < 0)
                        return r;
                builder_inode(m->b, *ret)->layer = (uint16_t) s.layer;
                *row = *ret + 1;
        }
        *ret = *row - 1;
        return 0;
}

static int directory_row(struct merge *m, const struct outcome *o, struct pending *p, uint32_t *ret)
{
        struct layer_state *l = &m->layers[o->attributes.layer];
        int r = builder_copy_inode(m->b, &l->table, &l->sets, source_inode(m, o->attributes), p->row, ret);

        if (r < 0)
                return r;
        builder_inode(m->b, *ret)->layer = 0;
        p->row = *ret;
        p->first = o->first;
        p->count = o->count;
        return region_append(&m->queue, p, sizeof(*p)) ? 0 : -ENOMEM;
}

/* Makes the dirent NAME of directory DIR in the queue, out of the COUNT claims on it. */
static int add_name(struct merge *m, uint32_t dir, const char *name, size_t length, size_t count, struct error *e)
{
        struct pending p = { .parent = dir, .name_length = (uint32_t) length };
        uint32_t dir_row = region_at(&m->queue, struct pending, dir)->row, target;
        struct outcome o;
        int r;

        r = combine(m, m->claims, count, &m->sources, &o);
        if (r < 0)
                return builder_error(r, e);
        if (o.what == NOTHING)
                return 0;
        if (o.what == FILE_OR_LINK) {
                r = follow_links(m, &o.file, dir, name, length, e);
                if (r < 0)
                        return r;
                r = file_row(m, (struct source) { .layer = o.file.layer, .row = o.file.target }, &target);
        } else {
                p.row = dir_row;
                r = string_table_add(&m->b->strings, name, length, &p.name);
                if (r == 0)
                        r = directory_row(m, &o, &p, &target);
        }
        if (r == 0)
                r = builder_add_dirent(m->b, dir_row, name, length, DIRENT_INODE, target);
        return builder_error(r, e);
}

static int compare_cursor(const struct cursor *c, const char *name, size_t length)
{
        return itable_compare_names(dirent_name(c->table, c->at), c->at->name_length, name, length);
}

/* By name; of equal names the one of the higher layer comes first. */
static bool cursor_before(const struct cursor *a, const struct cursor *b)
{
        int r = compare_cursor(a, dirent_name(b->table, b->at), b->at->name_length);

        return r ? r < 0 : a->layer > b->layer;
}

static void sift_down(struct merge *m, size_t i)
{
        struct cursor *heap = m->cursors;

        for (;;) {
                size_t least = i;
                struct cursor swapped;

                for (size_t child = 2 * i + 1; child <= 2 * i + 2 && child < m->cursor_count; child++)
                        if (cursor_before(&heap[child], &heap[least]))
                                least = child;
                if (least == i)
                        return;
                swapped = heap[i];
                heap[i] = heap[least];
                heap[least] = swapped;
                i = least;
        }
}

static void open_sources(struct merge *m, const struct pending *p)
{
        m->cursor_count = 0;
        for (uint32_t i = 0; i < p->count; i++) {
                struct source s = *region_at(&m->sources, struct source, p->first + i);
                const struct itable *table = &m->layers[s.layer].table;
                const struct inode *dir = &table->inodes[s.row];

                if (dir->count > 0)
                        m->cursors[m->cursor_count++] = (struct cursor) {
                                .table = table,
                                .at = table->dirents + dir->data,
                                .end = table->dirents + dir->data + dir->count,
                                .layer = s.layer,
                        };
        }
        for (size_t i = m->cursor_count / 2; i-- > 0;)
                sift_down(m, i);
}

/* Takes the least name of all sources, with every claim on it, top layer first; the number of claims, 0 at the end. */
static size_t next_name(struct merge *m, const char **ret_name, size_t *ret_length)
{
        struct cursor *top = &m->cursors[0];
        size_t count = 0;

        if (m->cursor_count == 0)
                return 0;
        *ret_name = dirent_name(top->table, top->at);
        *ret_length = top->at->name_length;
        do {
                m->claims[count++] = (struct claim) {
                        .layer = top->layer,
                        .target = top->at->target,
                        .type = top->at->type,
                };
                if (++top->at == top->end)
                        *top = m->cursors[--m->cursor_count];
                sift_down(m, 0);
        } while (m->cursor_count > 0 && compare_cursor(top, *ret_name, *ret_length) == 0);
        return count;
}

static int merge_directory(struct merge *m, uint32_t dir, struct error *e)
{
        struct pending p = *region_at(&m->queue, struct pending, dir);
        const char *name;
        size_t length, count;

        builder_open_directory(m->b, p.row);
        open_sources(m, &p);
        while ((count = next_name(m, &name, &length)) > 0) {
                int r = add_name(m, dir, name, length, count, e);

                if (r < 0)
                        return r;
        }
        return 0;
}

static int add_root(struct merge *m)
{
        static const struct xattr_set no_xattrs;
        static const struct inode bare_root = { .mode = S_IFDIR | 0755 };
        const struct itable nothing = { .xattr_sets = &no_xattrs, .xattr_set_count = 1 };
        _cleanup_(set_map_free) struct set_map sets = { 0 };
        struct pending p = { 0 };
        struct outcome o;
        uint32_t row;
        int r;

        r = combine_roots(m, (uint32_t) m->layer_count, &m->sources, &o);
        if (r == 0 && o.what == DIRECTORY)
                return directory_row(m, &o, &p, &row);
        if (r == 0)
                r = set_map_init(&sets, &nothing);
        if (r == 0)
                r = builder_copy_inode(m->b, &nothing, &sets, &bare_root, 0, &row);
        if (r == 0 && !region_append(&m->queue, &p, sizeof(p)))
                r = -ENOMEM;
        return r;
}

int itable_builder_merge(struct itable_builder *b, const struct itable *const *layers, size_t count, struct error *e)
{
        _cleanup_(merge_clear) struct merge m = { .b = b, .layer_count = count };
        int r;

        if (b->inodes.size > 0)
                return error_set(e, ERROR_OTHER, EINVAL, "the builder is not empty");
        if (count > UINT16_MAX)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "%zu layers are more than regfs takes (%u)", count,
                                 UINT16_MAX);
        r = merge_init(&m, layers);
        if (r == 0)
                r = add_root(&m);
        r = builder_error(r, e);
        for (uint32_t i = 0; r == 0 && i < region_count(&m.queue, struct pending); i++)
                r = merge_directory(&m, i, e);
        return r;
}
