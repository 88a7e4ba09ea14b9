/* SPDX-License-Identifier: Apache-2.0 */

/* The walk over a store's directories. Each level has a function that judges one entry: known, to be walked, or
 * foreign. */

#include "regfs/inventory.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "store_internal.h"

/* A directory that is walked. */
struct walk {
        struct store *store;
        struct inventory *inventory;
        struct inventory_item *item; /* the layer or draft that the directory is */
        int64_t used[INVENTORY_PARTS];
        struct error *e;
};

struct place {
        int fd;           /* of the directory */
        const char *path; /* below the store; "" for the store itself */
        const char *name; /* of the entry */
        struct stat st;
};

typedef int visit_fn(struct walk *w, const struct place *p);

static int fail(struct walk *w, const char *path, int code)
{
        return error_errno(w->e, code, "store %s: %s", w->store->path, *path ? path : ".");
}

/* Visits each entry of directory NAME below AT; PATH is its path. What is gone meanwhile is passed over. */
static int walk(struct walk *w, int at, const char *name, const char *path, visit_fn *visit)
{
        struct place p = { .path = path };
        struct dirent *entry;
        int fd, r = 0;
        DIR *d;

        fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0)
                return errno == ENOENT ? 0 : fail(w, path, errno);
        d = fdopendir(fd);
        if (!d) {
                r = fail(w, path, errno);
                close(fd);
                return r;
        }
        p.fd = fd;
        while (r == 0) {
                errno = 0;
                entry = readdir(d);
                if (!entry) {
                        if (errno != 0)
                                r = fail(w, path, errno);
                        break;
                }
                p.name = entry->d_name;
                if (str_eq(p.name, ".") || str_eq(p.name, ".."))
                        continue;
                if (fstatat(fd, p.name, &p.st, AT_SYMLINK_NOFOLLOW) == 0)
                        r = visit(w, &p);
                else if (errno != ENOENT)
                        r = fail(w, path, errno);
        }
        closedir(d);
        return r;
}

static char *path_of(const struct place *p)
{
        return *p->path ? str_printf("%s/%s", p->path, p->name) : strdup(p->name);
}

/* Walks the directory that P is. */
static int descend(struct walk *w, const struct place *p, visit_fn *visit)
{
        _cleanup_free_ char *path = path_of(p);

        return path ? walk(w, p->fd, p->name, path, visit) : error_oom(w->e);
}

static struct inventory_size size_of(const struct stat *st)
{
        return (struct inventory_size) { .apparent = (uint64_t) st->st_size, .disk = (uint64_t) st->st_blocks * 512 };
}

static void add_size(struct inventory_size *sum, const struct stat *st)
{
        struct inventory_size size = size_of(st);

        sum->apparent += size.apparent;
        sum->disk += size.disk;
}

static int64_t used(const struct stat *st)
{
        return MAX((int64_t) st->st_atime, (int64_t) st->st_mtime);
}

/* A new item for P. Returns NULL when out of memory; valid until the next one. */
static struct inventory_item *add(struct walk *w, const struct place *p, enum inventory_kind kind)
{
        struct inventory *i = w->inventory;
        struct inventory_item item = { .kind = kind, .path = path_of(p), .used = used(&p->st) };

        if (!item.path || array_reserve(i->items, &i->allocated, i->count + 1) < 0) {
                free(item.path);
                (void) error_oom(w->e);
                return NULL;
        }
        if (S_ISREG(p->st.st_mode))
                item.size = size_of(&p->st);
        i->items[i->count] = item;
        return &i->items[i->count++];
}

static int add_foreign(struct walk *w, const struct place *p)
{
        return add(w, p, INVENTORY_FOREIGN) ? 0 : -ENOMEM;
}

static const char *last_component(const char *path)
{
        const char *slash = strrchr(path, '/');

        return slash ? slash + 1 : path;
}

/* The digest that "<…>/ALGORITHM/HEX" names. */
static int parse_digest(const char *algorithm_path, const char *hex, struct digest *ret)
{
        return store_parse_digest(last_component(algorithm_path), hex, ret);
}

static bool is_algorithm(const struct place *p)
{
        return S_ISDIR(p->st.st_mode) && (str_eq(p->name, "sha256") || str_eq(p->name, "sha512"));
}

/* ---- blobs ---- */

static int visit_blob(struct walk *w, const struct place *p)
{
        struct inventory_item *item;
        struct digest digest;

        if (!S_ISREG(p->st.st_mode) || parse_digest(p->path, p->name, &digest) < 0)
                return add_foreign(w, p);
        item = add(w, p, INVENTORY_BLOB);
        if (!item)
                return -ENOMEM;
        item->digest = digest;
        return 0;
}

static int visit_blob_algorithm(struct walk *w, const struct place *p)
{
        return is_algorithm(p) ? descend(w, p, visit_blob) : add_foreign(w, p);
}

/* ---- refs ---- */

/* As store_ref_get writes components. */
static bool is_ref_component(const char *name)
{
        return *name != '.' &&
               name[strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.%~")] == 0;
}

static int visit_tag(struct walk *w, const struct place *p)
{
        if (!S_ISREG(p->st.st_mode) || !is_ref_component(p->name))
                return add_foreign(w, p);
        return add(w, p, INVENTORY_REF) ? 0 : -ENOMEM;
}

static int visit_repository(struct walk *w, const struct place *p)
{
        return S_ISDIR(p->st.st_mode) && is_ref_component(p->name) ? descend(w, p, visit_tag) : add_foreign(w, p);
}

static int visit_registry(struct walk *w, const struct place *p)
{
        return S_ISDIR(p->st.st_mode) && is_ref_component(p->name) ? descend(w, p, visit_repository)
                                                                   : add_foreign(w, p);
}

/* ---- layers ---- */

static int visit_part(struct walk *w, const struct place *p)
{
        for (size_t k = 0; k < INVENTORY_PARTS; k++) {
                if (!S_ISREG(p->st.st_mode) || !str_eq(p->name, inventory_part_names[k]))
                        continue;
                w->item->has[k] = true;
                w->item->parts[k] = size_of(&p->st);
                add_size(&w->item->size, &p->st);
                w->used[k] = (int64_t) p->st.st_mtime;
                return 0;
        }
        w->item->has_foreign = true;
        return add_foreign(w, p);
}

static int visit_layer_kind(struct walk *w, const struct place *p)
{
        struct inventory_item item = { .kind = INVENTORY_LAYER };
        struct walk inside = { .store = w->store, .inventory = w->inventory, .item = &item, .e = w->e };
        char algorithm[STORE_PATH_MAX];
        const char *hex = last_component(p->path);
        struct inventory_item *added;
        int r;

        snprintf(algorithm, sizeof(algorithm), "%.*s", (int) (hex - p->path - 1), p->path);
        if (!S_ISDIR(p->st.st_mode) || !store_name_is_valid(p->name, LAYER_KIND_MAX) ||
            parse_digest(algorithm, hex, &item.digest) < 0)
                return add_foreign(w, p);
        snprintf(item.layer_kind, sizeof(item.layer_kind), "%s", p->name);
        r = descend(&inside, p, visit_part);
        if (r < 0)
                return r;
        if (item.has_foreign && item.size.apparent == 0)
                return 0; /* the layer itself is gone */
        added = add(w, p, INVENTORY_LAYER);
        if (!added)
                return -ENOMEM;
        item.path = added->path;
        item.used = item.has[INVENTORY_MAP]       ? inside.used[INVENTORY_MAP]
                    : item.has[INVENTORY_TOC]     ? inside.used[INVENTORY_TOC]
                    : item.has[INVENTORY_CONTENT] ? inside.used[INVENTORY_CONTENT]
                                                  : (int64_t) p->st.st_mtime;
        item.in_use = inventory_is_in_use(w->store, &item);
        *added = item;
        return 0;
}

static int visit_layer(struct walk *w, const struct place *p)
{
        struct digest digest;

        if (!S_ISDIR(p->st.st_mode) || parse_digest(p->path, p->name, &digest) < 0)
                return add_foreign(w, p);
        return descend(w, p, visit_layer_kind);
}

static int visit_layer_algorithm(struct walk *w, const struct place *p)
{
        return is_algorithm(p) ? descend(w, p, visit_layer) : add_foreign(w, p);
}

/* ---- image indexes, drafts ---- */

static int visit_image(struct walk *w, const struct place *p)
{
        if (!S_ISREG(p->st.st_mode) || !store_is_image_key(p->name))
                return add_foreign(w, p);
        return add(w, p, INVENTORY_IMAGE) ? 0 : -ENOMEM;
}

static int visit_draft_part(struct walk *w, const struct place *p)
{
        if (S_ISREG(p->st.st_mode))
                add_size(&w->item->size, &p->st);
        return 0;
}

static int visit_draft(struct walk *w, const struct place *p)
{
        struct inventory_item item = { .kind = INVENTORY_DRAFT };
        struct walk inside = { .store = w->store, .inventory = w->inventory, .item = &item, .e = w->e };
        struct inventory_item *added;
        int r = 0;

        if ((!S_ISREG(p->st.st_mode) && !S_ISDIR(p->st.st_mode)) || !store_is_draft_name(p->name))
                return add_foreign(w, p);
        if (S_ISDIR(p->st.st_mode))
                r = descend(&inside, p, visit_draft_part);
        if (r < 0)
                return r;
        added = add(w, p, INVENTORY_DRAFT);
        if (!added)
                return -ENOMEM;
        added->size.apparent += item.size.apparent;
        added->size.disk += item.size.disk;
        added->used = (int64_t) p->st.st_mtime;
        added->in_use = inventory_is_in_use(w->store, added);
        return 0;
}

/* ---- the store ---- */

static int visit_top(struct walk *w, const struct place *p)
{
        static const struct {
                const char *name;
                visit_fn *visit;
        } rooms[] = {
                { "blobs", visit_blob_algorithm }, { "refs", visit_registry }, { "layers", visit_layer_algorithm },
                { "images", visit_image },         { "tmp", visit_draft },
        };

        for (size_t k = 0; k < ELEMENTSOF(rooms); k++)
                if (S_ISDIR(p->st.st_mode) && str_eq(p->name, rooms[k].name))
                        return descend(w, p, rooms[k].visit);
        /* What processes lock that take turns. */
        if (S_ISREG(p->st.st_mode) && str_eq(p->name, "lock"))
                return 0;
        return add_foreign(w, p);
}

static int compare_paths(const void *a, const void *b)
{
        return strcmp(((const struct inventory_item *) a)->path, ((const struct inventory_item *) b)->path);
}

int inventory_read(struct store *s, struct inventory *ret, struct error *e)
{
        _cleanup_inventory_ struct inventory i = { 0 };
        struct walk w = { .store = s, .inventory = &i, .e = e };
        int r = walk(&w, s->fd, ".", "", visit_top);

        if (r < 0)
                return r;
        if (i.count > 0)
                qsort(i.items, i.count, sizeof(*i.items), compare_paths);
        *ret = i;
        i = (struct inventory) { 0 };
        return 0;
}

void inventory_clear(struct inventory *i)
{
        for (size_t k = 0; k < i->count; k++)
                free(i->items[k].path);
        free(i->items);
        *i = (struct inventory) { 0 };
}

const struct inventory_item *inventory_find(const struct inventory *i, const char *path)
{
        const struct inventory_item wanted = { .path = (char *) path };

        return i->count > 0 ? bsearch(&wanted, i->items, i->count, sizeof(*i->items), compare_paths) : NULL;
}
