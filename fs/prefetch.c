/* SPDX-License-Identifier: Apache-2.0 */

#include "regfs/prefetch.h"

#include <fcntl.h>
#include <string.h>

#include "image_internal.h"
#include "regfs/io.h"
#include "regfs/log.h"

#define LIST_MAX (16 * MIB)
#define PAUSE_MS 10000 /* between a failure and the next attempt */

/* A layer, and which of its chunks are wanted. */
struct share {
        struct fetcher *fetcher; /* NULL: nothing of it */
        const struct chunk_table *table;
        uint8_t *wanted; /* NULL: all */
        uint64_t total;
        bool given_up;
};

struct prefetch {
        struct image *image;
        struct share *shares; /* one for each layer of the image */
        atomic_uint_fast64_t total, done;
        enum priority priority;
        int (*progress)(void *context, const struct prefetch_status *status);
        void *context;
        uint64_t before; /* bytes of the shares before the one that is being filled */

        bool has_thread;
        pthread_t thread;
        struct mutex lock;
        struct cond changed;
        bool stop GUARDED_BY(lock);
};

/* ---- what is wanted ---- */

static struct fetch_fill fill_of(const struct prefetch *p, const struct share *s)
{
        return (struct fetch_fill) { .wanted = s->wanted, .priority = p->priority };
}

static void want_range(struct share *s, uint64_t offset, uint64_t length)
{
        for (size_t i = chunk_find(s->table, offset);
             i < s->table->chunk_count && s->table->chunks[i].content_offset < offset + length; i++)
                s->wanted[i] = 1;
}

static void want_file(struct prefetch *p, const struct inode *n)
{
        const struct itable *t = &image_tree(p->image)->itable;
        struct share *s = &p->shares[p->image->layers[n->layer].same_as];

        if (!(n->flags & INODE_SPARSE)) {
                want_range(s, n->data, n->size);
                return;
        }
        for (uint32_t k = 0; k < n->count; k++)
                want_range(s, t->extents[n->data + k].content_offset, t->extents[n->data + k].length);
}

/* Directories nest no deeper than ITABLE_DEPTH_MAX; the way back up stands in the table. */
static void want_below(struct prefetch *p, uint32_t top)
{
        const struct itable *t = &image_tree(p->image)->itable;
        uint32_t positions[ITABLE_DEPTH_MAX + 1], depth = 0, row = top;

        positions[0] = 0;
        for (;;) {
                const struct inode *dir = &t->inodes[row];
                uint32_t child;

                if (positions[depth] == dir->count) {
                        if (depth-- == 0)
                                return;
                        row = dir->parent;
                        continue;
                }
                child = t->dirents[dir->data + positions[depth]++].target;
                if (S_ISREG(t->inodes[child].mode))
                        want_file(p, &t->inodes[child]);
                if (!S_ISDIR(t->inodes[child].mode) || depth == ITABLE_DEPTH_MAX)
                        continue;
                row = child;
                positions[++depth] = 0;
        }
}

static void want_path(struct prefetch *p, const char *list, const char *path)
{
        const struct itable *t = &image_tree(p->image)->itable;
        uint64_t ino;

        if (regfs_lookup((struct regfs_image *) p->image, path, REGFS_FOLLOW, &ino, NULL) < 0) {
                log_warning("%s: %s is not in the image", list, path);
                return;
        }
        if (S_ISDIR(t->inodes[ino - 1].mode))
                want_below(p, (uint32_t) (ino - 1));
        else if (S_ISREG(t->inodes[ino - 1].mode))
                want_file(p, &t->inodes[ino - 1]);
}

static int want_list(struct prefetch *p, const char *list, struct error *e)
{
        _cleanup_buf_ struct buf text = { 0 };
        char *save = NULL;
        int r = file_read(AT_FDCWD, list, LIST_MAX, &text, e);

        if (r < 0)
                return error_prefix(e, "list of what to fetch");
        for (size_t k = 0; k < p->image->layer_count; k++) {
                struct share *s = &p->shares[k];

                s->wanted = s->fetcher ? calloc(s->table->chunk_count + 1, 1) : NULL;
                if (s->fetcher && !s->wanted)
                        return error_oom(e);
        }
        for (char *line = strtok_r(text.data, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
                want_path(p, list, line);
        return 0;
}

int prefetch_new(struct image *i, const char *what, struct prefetch **ret, struct error *e)
{
        _cleanup_(prefetch_free_ptr) struct prefetch *p = calloc(1, sizeof(*p));
        int r = 0;

        if (!p)
                return error_oom(e);
        mutex_init(&p->lock);
        cond_init(&p->changed);
        p->image = i;
        p->shares = calloc(i->layer_count + 1, sizeof(*p->shares));
        if (!p->shares)
                return error_oom(e);
        for (size_t k = 0; k < i->layer_count; k++) {
                if (i->layers[k].same_as != k)
                        continue;
                p->shares[k].fetcher = i->layers[k].fetcher;
                p->shares[k].table = &i->layers[k].toc->chunks;
        }
        if (!str_eq(what, "all"))
                r = want_list(p, what, e);
        if (r < 0)
                return r;
        for (size_t k = 0; k < i->layer_count; k++) {
                const struct fetch_fill fill = fill_of(p, &p->shares[k]);
                uint64_t there = 0;

                if (p->shares[k].fetcher)
                        fetch_fill_size(p->shares[k].fetcher, &fill, &p->shares[k].total, &there);
                atomic_fetch_add(&p->total, p->shares[k].total);
                atomic_fetch_add(&p->done, there);
        }
        *ret = steal_ptr(p);
        return 0;
}

void prefetch_get_status(struct prefetch *p, struct prefetch_status *ret)
{
        ret->total = atomic_load(&p->total);
        ret->done = MIN(atomic_load(&p->done), ret->total);
}

/* ---- bringing it ---- */

/* What is there of all shares, from their maps. */
static uint64_t count_done(struct prefetch *p)
{
        uint64_t sum = 0, total, there;

        for (size_t k = 0; k < p->image->layer_count; k++) {
                const struct fetch_fill fill = fill_of(p, &p->shares[k]);

                if (!p->shares[k].fetcher)
                        continue;
                fetch_fill_size(p->shares[k].fetcher, &fill, &total, &there);
                sum += there;
        }
        return sum;
}

static int on_fill(void *context, uint64_t done)
{
        struct prefetch *p = context;
        struct prefetch_status status;
        bool stop;

        atomic_store(&p->done, p->before + done);
        mutex_lock(&p->lock);
        stop = p->stop;
        mutex_unlock(&p->lock);
        if (stop || !p->progress)
                return stop;
        prefetch_get_status(p, &status);
        return p->progress(p->context, &status);
}

/* BEFORE is what the other shares have. */
static int fill_share(struct prefetch *p, struct share *s, struct error *e)
{
        struct fetch_fill fill = fill_of(p, s);
        uint64_t total, there;

        if (!s->fetcher)
                return 0;
        fill.progress = on_fill;
        fill.context = p;
        fetch_fill_size(s->fetcher, &fill, &total, &there);
        p->before = count_done(p) - there;
        return there == total ? 0 : fetch_fill(s->fetcher, &fill, e);
}

int prefetch_run(struct prefetch *p, int (*progress)(void *context, const struct prefetch_status *status),
                 void *context, struct error *e)
{
        int r = 0;

        p->priority = PRIORITY_READAHEAD;
        p->progress = progress;
        p->context = context;
        for (size_t k = 0; r == 0 && k < p->image->layer_count; k++)
                r = fill_share(p, &p->shares[k], e);
        atomic_store(&p->done, count_done(p));
        return r;
}

/* One round over all shares. False when something failed that may go well later. */
static bool fill_round(struct prefetch *p)
{
        bool complete = true;

        for (size_t k = 0; k < p->image->layer_count; k++) {
                struct share *s = &p->shares[k];
                struct error e = ERROR_INIT;
                int r = s->given_up ? 0 : fill_share(p, s, &e);

                if (r == -ECANCELED)
                        return true;
                if (r == 0)
                        continue;
                log_warning("prefetch: %s", e.message);
                s->given_up = r == -EBADMSG || r == -EROFS || r == -ENOSPC;
                complete = complete && s->given_up;
        }
        return complete;
}

static void *run_thread(void *arg)
{
        struct prefetch *p = arg;
        bool over = false;

        LOG_SCOPE(log_next_request(), image_reference(p->image));
        while (!over) {
                deadline_t pause = deadline_in(PAUSE_MS);

                over = fill_round(p);
                mutex_lock(&p->lock);
                while (!over && !p->stop && cond_wait_until(&p->changed, &p->lock, pause) == 0)
                        ;
                over = over || p->stop;
                mutex_unlock(&p->lock);
        }
        atomic_store(&p->done, count_done(p));
        log_info("prefetch: %ju of %ju bytes are there", (uintmax_t) atomic_load(&p->done),
                 (uintmax_t) atomic_load(&p->total));
        /* Whoever looks for the thread is to find it. */
        mutex_lock(&p->lock);
        while (!p->stop)
                cond_wait(&p->changed, &p->lock);
        mutex_unlock(&p->lock);
        return NULL;
}

int prefetch_start(struct prefetch *p, struct error *e)
{
        int r;

        p->priority = PRIORITY_BACKGROUND;
        r = thread_start(&p->thread, PREFETCH_THREAD, run_thread, p);
        if (r < 0)
                return error_errno(e, -r, "cannot start a thread");
        p->has_thread = true;
        return 0;
}

struct prefetch *prefetch_free(struct prefetch *p)
{
        if (!p)
                return NULL;
        mutex_lock(&p->lock);
        p->stop = true;
        cond_broadcast(&p->changed);
        mutex_unlock(&p->lock);
        if (p->has_thread)
                pthread_join(p->thread, NULL);
        for (size_t k = 0; p->shares && k < p->image->layer_count; k++)
                free(p->shares[k].wanted);
        free(p->shares);
        cond_destroy(&p->changed);
        mutex_destroy(&p->lock);
        free(p);
        return NULL;
}
