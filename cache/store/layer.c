/* SPDX-License-Identifier: Apache-2.0 */

/* Layers: a directory is written below tmp/ and moved into its place by one rename, so nobody ever sees a part of
 * one. */

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "regfs/io.h"
#include "regfs/log.h"
#include "store_internal.h"

/* A leftover in the way is removed and the rename tried again: this often, as others may do the same. */
#define PUBLISH_ATTEMPTS 4

struct layer_draft {
        struct store *store;
        struct digest layer;
        char kind[LAYER_KIND_MAX];
        char path[STORE_PATH_MAX]; /* below tmp/; "" once published */
        int directory, content;    /* or -1 */
        struct store_draft toc;    /* in the directory, or outside */

        uint64_t end;      /* bytes appended */
        uint64_t kept_end; /* of them, those in the file */
        bool keeps;        /* content goes to the file; once false it stays so */

        uint64_t *words;
        size_t count, allocated;
        uint64_t chunks_end;
        uint64_t present_end; /* of the last chunk that is in the file */
        XXH3_state_t *identity;
};

int store_layer_toc_here(struct store *s, const struct digest *layer, const char *kind)
{
        char path[STORE_PATH_MAX];
        int fd, r;

        r = store_layer_path(layer, kind, "toc", path, NULL);
        if (r < 0)
                return r;
        fd = store_unnamed_get(s, path);
        return fd >= 0 ? fd : store_open_file(s, path);
}

int store_layer_toc(struct store *s, const struct digest *layer, const char *kind)
{
        int r = -ENOENT;

        for (size_t k = 0; r < 0 && store_at(s, k); k++)
                r = store_layer_toc_here(store_at(s, k), layer, kind);
        return r;
}

int store_layer_remove(struct store *s, const struct digest *layer, const char *kind, struct error *e)
{
        char toc[STORE_PATH_MAX], path[STORE_PATH_MAX], away[STORE_PATH_MAX];
        int r;

        r = store_layer_path(layer, kind, "toc", toc, e);
        if (r < 0)
                return r;
        store_unnamed_remove(s, toc);
        r = store_check_writable(s, e);
        if (r == 0)
                r = store_layer_path(layer, kind, NULL, path, e);
        if (r == 0)
                r = store_draft_name("removed", away, e);
        if (r < 0)
                return r;
        if (renameat(s->fd, path, s->fd, away) < 0) {
                r = -errno;
                /* A full disk may have no room for the new name. What has no TOC is a leftover. */
                if (r == -ENOENT || unlinkat(s->fd, toc, 0) == 0)
                        return 0;
                return error_errno(e, -r, "store %s: removing %s", s->path, path);
        }
        r = store_remove_tree(s->fd, away);
        if (r < 0) /* out of the way it is: the rest goes with the other leftovers */
                log_warning("store %s: %s: %s", s->path, away, strerror(-r));
        return 0;
}

/* ---- drafts ---- */

static int create(struct layer_draft *d, const char *name, struct error *e)
{
        int fd = openat(d->directory, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

        return fd < 0 ? error_errno(e, errno, "store %s: %s/%s", d->store->path, d->path, name) : fd;
}

/* Content is worth time, not correctness: without it the layer is fetched when it is read. */
static void stop_keeping(struct layer_draft *d, int r)
{
        char name[DIGEST_STRING_MAX];

        d->keeps = false;
        log_write(r == -EDQUOT ? LOG_LEVEL_INFO : LOG_LEVEL_WARNING,
                  "store %s: %s: content from byte %ju on is not kept: %s", d->store->path,
                  digest_format(&d->layer, name), (uintmax_t) d->end,
                  r == -EDQUOT ? "the store has reached its limit" : strerror(-r));
}

static int open_inside(struct layer_draft *d, struct error *e)
{
        char path[STORE_PATH_MAX];
        int r;

        r = store_check_writable(d->store, e);
        if (r == 0)
                r = store_draft_name("layer", path, e);
        if (r < 0)
                return r;
        if (mkdirat(d->store->fd, path, 0700) < 0)
                return error_errno(e, errno, "store %s: %s", d->store->path, path);
        snprintf(d->path, sizeof(d->path), "%s", path);
        d->directory = openat(d->store->fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (d->directory < 0)
                return error_errno(e, errno, "store %s: %s", d->store->path, path);
        store_draft_claim(d->store, d->directory);

        d->toc.fd = create(d, "toc", e);
        if (d->toc.fd < 0)
                return d->toc.fd;
        d->content = create(d, "content", e);
        if (d->content >= 0 || !store_is_at_fault(d->content))
                return MIN(d->content, 0);
        stop_keeping(d, d->content);
        return 0;
}

static int open_draft(struct layer_draft *d, struct error *e)
{
        int r = open_inside(d, e);

        return r < 0 && layer_draft_move_out(d, r, e) ? 0 : r;
}

int layer_draft_new(struct store *s, const struct digest *layer, const char *kind, struct layer_draft **ret,
                    struct error *e)
{
        _cleanup_(layer_draft_free_ptr) struct layer_draft *d = NULL;
        char target[STORE_PATH_MAX];
        int r;

        r = store_layer_path(layer, kind, NULL, target, e);
        if (r < 0)
                return r;
        d = calloc(1, sizeof(*d));
        if (!d)
                return error_oom(e);
        d->store = s;
        d->layer = *layer;
        snprintf(d->kind, sizeof(d->kind), "%s", kind);
        d->directory = d->content = -1;
        d->toc = (struct store_draft) { .store = s, .fd = -1 };
        d->keeps = true;
        d->identity = XXH3_createState();
        if (!d->identity)
                return error_oom(e);
        XXH3_64bits_reset(d->identity);
        r = open_draft(d, e);
        if (r < 0)
                return r;
        *ret = steal_ptr(d);
        return 0;
}

struct layer_draft *layer_draft_free(struct layer_draft *d)
{
        if (!d)
                return NULL;
        /* On NFS and FUSE a file that is open when it is removed stays, by another name, and so does its directory. */
        store_draft_clear(&d->toc);
        close_fd_ptr(&d->content);
        if (*d->path) {
                int r = store_remove_tree(d->store->fd, d->path);

                if (r < 0)
                        log_warning("store %s: %s: %s", d->store->path, d->path, strerror(-r));
        }
        close_fd_ptr(&d->directory);
        XXH3_freeState(d->identity);
        free(d->words);
        free(d);
        return NULL;
}

int layer_draft_toc_fd(struct layer_draft *d)
{
        return d->toc.fd;
}

struct store_draft *layer_draft_toc(struct layer_draft *d)
{
        return &d->toc;
}

/* What was kept makes room for the TOC, which is worth more. False when there is nothing. */
static bool give_up_content(struct layer_draft *d, int r)
{
        char name[DIGEST_STRING_MAX];

        if ((r != -ENOSPC && r != -EDQUOT) || d->toc.place != DRAFT_INSIDE || d->kept_end == 0 ||
            ftruncate(d->content, 0) < 0)
                return false;
        d->keeps = false;
        d->kept_end = d->present_end = 0;
        if (d->count > 0)
                memset(d->words, 0, d->count * sizeof(*d->words));
        log_warning("store %s: %s: no content is kept: its table of contents needs the room", d->store->path,
                    digest_format(&d->layer, name));
        return true;
}

bool layer_draft_move_out(struct layer_draft *d, int r, struct error *e)
{
        if (give_up_content(d, r)) {
                if (e)
                        *e = (struct error) ERROR_INIT;
                return true;
        }
        if (!store_draft_move_out(&d->toc, r, e))
                return false;
        d->keeps = false;
        return true;
}

int layer_draft_append(struct layer_draft *d, const void *data, size_t n, struct error *e)
{
        int r;

        if (n > INT64_MAX - d->end)
                return error_set(e, ERROR_BAD_DATA, EFBIG, "a layer with more than %jd bytes of content",
                                 (intmax_t) INT64_MAX);
        if (d->keeps) {
                r = store_write_sparse(d->store, d->content, data, n, d->end, true);
                if (r < 0)
                        stop_keeping(d, r);
                else
                        d->kept_end = d->end + n;
        }
        d->end += n;
        return 0;
}

int layer_draft_chunk(struct layer_draft *d, uint64_t content_offset, uint32_t length, uint64_t hash, struct error *e)
{
        bool kept = range_fits(content_offset, length, d->kept_end);
        int r;

        if (content_offset < d->chunks_end || length > INT64_MAX - content_offset)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "chunk %zu begins at content offset %ju, before %ju",
                                 d->count, (uintmax_t) content_offset, (uintmax_t) d->chunks_end);
        r = array_reserve(d->words, &d->allocated, d->count + 1);
        if (r < 0)
                return error_oom(e);
        d->words[d->count++] = kept ? content_word(hash) : 0;
        d->chunks_end = content_offset + length;
        if (kept)
                d->present_end = d->chunks_end;
        content_identity_add(d->identity, content_offset, length);
        return 0;
}

/* ---- publication ---- */

static int write_map(struct layer_draft *d)
{
        _cleanup_close_ int fd = create(d, "map", NULL);
        struct content_map_header header;
        int r;

        if (fd < 0)
                return fd;
        if (!d->store->sparse && d->kept_end < MAX(d->end, d->chunks_end))
                return -EOPNOTSUPP;
        /* The beginning of a chunk that was not kept to its end is nobody's: no word of the map would ever free it. */
        if (ftruncate(d->content, (off_t) d->present_end) < 0 ||
            ftruncate(d->content, (off_t) MAX(d->end, d->chunks_end)) < 0)
                return -errno;
        content_map_header_init(&header, d->count, XXH3_64bits_digest(d->identity));
        r = content_map_write(fd, &header, d->words);
        /* Another machine must not find the names before it can see the bytes. */
        if (r == 0 && d->store->remote)
                r = store_sync(d->content);
        if (r == 0 && d->store->remote)
                r = store_sync(fd);
        return r;
}

/* A full disk must not cost the index: then it goes without content, and the first reader makes an empty map. */
static void finish_content(struct layer_draft *d)
{
        int r;

        if (d->content < 0)
                return;
        r = write_map(d);
        if (r == 0)
                return;
        log_write(d->store->sparse ? LOG_LEVEL_WARNING : LOG_LEVEL_DEBUG, "store %s: %s: map: %s: content is not kept",
                  d->store->path, d->path, strerror(-r));
        (void) unlinkat(d->directory, "map", 0);
        (void) unlinkat(d->directory, "content", 0);
}

/* Somebody has put the whole layer there. What lacks a TOC is a leftover; whether a TOC is sound is its reader's to
 * say. */
static bool is_published(struct layer_draft *d)
{
        char path[STORE_PATH_MAX];
        struct stat st;

        if (store_layer_path(&d->layer, d->kind, "toc", path, NULL) < 0 || fstatat(d->store->fd, path, &st, 0) < 0)
                return false;
        return S_ISREG(st.st_mode) && st.st_size > 0;
}

static bool is_in_the_way(int r)
{
        return r == -ENOTEMPTY || r == -EEXIST || r == -ENOTDIR;
}

/* Nobody else will find it, and nothing survives. */
static int publish_unnamed(struct layer_draft *d, struct error *e)
{
        char path[STORE_PATH_MAX];
        int r = store_layer_path(&d->layer, d->kind, "toc", path, e);

        if (r == 0)
                r = store_unnamed_put(d->store, path, d->toc.fd);
        return r < 0 ? error_errno(e, -r, "store %s: keeping %s", d->store->path, path) : 0;
}

static int publish_inside(struct layer_draft *d, struct error *e)
{
        char target[STORE_PATH_MAX];
        int r;

        r = store_layer_path(&d->layer, d->kind, NULL, target, e);
        if (r < 0)
                return r;
        finish_content(d);
        /* What came of a pass over the layer is dear. A table that was fetched is not, and a torn one is found out. */
        r = d->end > 0 || d->store->remote ? store_sync(d->toc.fd) : 0;
        if (r < 0)
                return error_errno(e, -r, "store %s: %s/toc", d->store->path, target);

        r = store_move(d->store, d->path, target);
        for (unsigned attempt = 1; is_in_the_way(r) && attempt < PUBLISH_ATTEMPTS; attempt++) {
                if (is_published(d))
                        return 0;
                r = store_layer_remove(d->store, &d->layer, d->kind, e);
                if (r < 0)
                        return r;
                r = store_move(d->store, d->path, target);
        }
        if (r < 0)
                return error_errno(e, -r, "store %s: %s", d->store->path, target);
        *d->path = '\0';
        return 0;
}

int layer_draft_publish(struct layer_draft *d, struct error *e)
{
        int r = 0;

        if (d->toc.place == DRAFT_INSIDE) {
                r = publish_inside(d, e);
                if (r == 0 || !store_draft_move_out(&d->toc, r, e))
                        return r;
        }
        return publish_unnamed(d, e);
}
