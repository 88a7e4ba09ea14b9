/* SPDX-License-Identifier: Apache-2.0 */

/* Every layer gets its TOC: from the store, or by a pass over the layer in a thread of its own, side by side with
 * others. Of the processes that share a store one makes the pass and the others wait for what comes of it: for as long as
 * it comes farther. */

#include <stdatomic.h>
#include <stdio.h>

#include "image_internal.h"
#include "regfs/embedded.h"
#include "regfs/external_toc.h"
#include "regfs/log.h"

#define PASSES_AT_ONCE 3 /* that keep a core busy */
#define THREADS_MAX 8    /* tables of contents are waited for, mostly */
#define OPEN_ATTEMPTS 4
#define PROGRESS_INTERVAL_MS 100

struct pass {
        struct passes *all;
        struct image_layer *layer;
        bool whole; /* it was known from the start that the layer has to be read whole: what the progress bar counts */
        atomic_uint_fast64_t progress;
        struct mutex lock;
        struct store_turn turn GUARDED_BY(lock); /* to make the pass, while that is under way */
        uint64_t told;                           /* of the progress, to those who wait for their turn */
};

/* One lock for the queue of passes and the first error. */
struct passes {
        struct image *image;
        struct external_toc *external;
        struct mutex lock;
        struct cond changed;
        struct pass *items;
        size_t count;
        size_t next GUARDED_BY(lock);
        size_t done GUARDED_BY(lock);
        int result GUARDED_BY(lock);
        struct error error GUARDED_BY(lock);
        atomic_bool cancel;
        uint64_t request; /* of the log */
};

/* ---- turns ---- */

void image_toc_turn(const struct image_layer *l, const char *kind, char ret_name[TOC_TURN_MAX])
{
        char digest[DIGEST_STRING_MAX];

        snprintf(ret_name, TOC_TURN_MAX, "toc %s %s", digest_format(&l->descriptor.digest, digest), kind);
}

/* Somebody has made the TOC of that kind meanwhile; it is open then. */
static bool is_known(struct pass *p, const char *kind)
{
        struct image *i = p->all->image;
        _cleanup_close_ int fd = store_layer_toc_here(i->store, &p->layer->descriptor.digest, kind);
        struct error why = ERROR_INIT;

        return fd >= 0 && image_open_toc(i, p->layer, &why) == 0;
}

/* The passes of this process are cancelled, or a while has gone by. */
static bool pause_pass(struct passes *a, uint64_t ms)
{
        deadline_t deadline = deadline_in(ms);

        mutex_lock(&a->lock);
        while (!atomic_load(&a->cancel) && deadline_left(deadline) > 0)
                (void) cond_wait_until(&a->changed, &a->lock, deadline);
        mutex_unlock(&a->lock);
        return !atomic_load(&a->cancel);
}

/* Waits until it is this process's turn to make a TOC of that kind: 0, and pass_end_turn ends it. 1 when there is such a
 * TOC. So it is when one who has the turn comes no farther: the turn is only a hint. */
static int wait_for_turn(struct pass *p, const char *kind, struct error *e)
{
        struct store *store = p->all->image->store;
        struct store_turn turn = STORE_TURN_INIT;
        struct patience patience;
        char name[TOC_TURN_MAX];
        bool waited = false;

        image_toc_turn(p->layer, kind, name);
        patience_begin(&patience, p->all->image->timeout_ms);
        while (store_turn_try(store, name, &turn) < 0) {
                uint64_t progress = store_turn_progress(store, name), pause;

                if (is_known(p, kind))
                        return 1;
                if (!waited)
                        log_info("%s: another process indexes it: waiting", p->layer->blob->name);
                waited = true;
                atomic_store(&p->progress, MIN(progress, p->layer->blob->size));
                if (!patience_left(&patience, progress, &pause)) {
                        log_warning("%s: the process that indexes it came no farther for %ju s: it is indexed here",
                                    p->layer->blob->name, (uintmax_t) p->all->image->timeout_ms / 1000);
                        break;
                }
                if (!pause_pass(p->all, pause))
                        return error_set(e, ERROR_OTHER, ECANCELED, "%s: indexing was cancelled", p->layer->blob->name);
        }
        atomic_store(&p->progress, 0);
        if (is_known(p, kind)) {
                store_turn_end(&turn);
                return 1;
        }
        mutex_lock(&p->lock);
        p->turn = turn;
        mutex_unlock(&p->lock);
        return 0;
}

static void pass_end_turn(struct pass *p)
{
        mutex_lock(&p->lock);
        store_turn_end(&p->turn);
        mutex_unlock(&p->lock);
}

/* Those who wait see how far it is. */
static void tell_progress(struct pass *p)
{
        uint64_t progress = atomic_load(&p->progress);

        if (progress == p->told)
                return;
        p->told = progress;
        mutex_lock(&p->lock);
        store_turn_tell(&p->turn, progress);
        mutex_unlock(&p->lock);
}

/* ---- passes ---- */

/* A few small requests for the table of contents that the layer carries. */
static int read_embedded(struct pass *p, struct error *e)
{
        struct image *i = p->all->image;
        struct embedded_options options = {
                .blob = p->layer->blob,
                .descriptor = &p->layer->descriptor,
                .pool = i->pool,
                .store = i->store,
                .timeout_ms = i->timeout_ms,
                .cancel = &p->all->cancel,
                .external = external_toc_find,
                .external_context = p->all->external,
        };
        char kind[LAYER_KIND_MAX];

        return embedded_index(&options, kind, e);
}

/* One request for the table that the image's published index has. */
static int read_published(struct pass *p, struct error *e)
{
        struct image *i = p->all->image;
        struct published_import import = {
                .source = i->index_source ? i->index_source : i->source,
                .table = p->layer->table,
                .format = i->published.format,
                .layer = p->layer->blob,
                .kind = p->layer->kind,
                .pool = i->pool,
                .store = i->store,
                .timeout_ms = i->timeout_ms,
                .cancel = &p->all->cancel,
        };

        return published_import(&import, e);
}

/* The layer's TOC without reading all of it. Returns 1 when it has to be read whole. */
static int read_table(struct pass *p, struct error *e)
{
        int r;

        if (p->layer->origin == INDEX_FROM_LAYER)
                return 1;
        r = wait_for_turn(p, p->layer->kind, e);
        if (r != 0)
                return MIN(r, 0);
        r = p->layer->origin == INDEX_FROM_TABLE ? read_embedded(p, e) : read_published(p, e);
        pass_end_turn(p);
        if (r != -EBADMSG && r != -ESTALE && r != -ENOENT)
                return r;
        /* Nothing in E: there is no table that could be used, which the log has heard already. */
        if (*e->message)
                log_warning("%s: this table of contents is not used, the layer is read whole", e->message);
        image_layer_set_plain(p->layer);
        return 1;
}

static int read_whole(struct pass *p, struct error *e)
{
        struct image *i = p->all->image;
        struct index_options options = {
                .blob = p->layer->blob,
                .digest_is_diff_id = str_after(i->source->name, "docker-archive:") != NULL,
                .pool = i->pool,
                .store = i->store,
                .timeout_ms = i->timeout_ms,
                .progress = &p->progress,
                .cancel = &p->all->cancel,
        };
        struct error why = ERROR_INIT;
        int r;

        /* It may be known all the time: then the layer was to be read by a table that can't be used. */
        if (image_open_toc(i, p->layer, &why) == 0)
                return 0;
        r = config_wait(i, e); /* not in vain */
        if (r == 0)
                r = wait_for_turn(p, KIND_PLAIN, e);
        if (r != 0)
                return MIN(r, 0);
        r = index_layer(&options, e);
        pass_end_turn(p);
        return r;
}

static int run_pass(struct pass *p, struct error *e)
{
        const struct blob *blob = p->layer->blob;
        struct error ignored = ERROR_INIT;
        uint64_t begin = clock_ms();
        int r;

        LOG_SCOPE(p->all->request, NULL);
        log_debug("%s: indexing begins: %ju bytes, %s", blob->name, (uintmax_t) blob->size, p->layer->kind);
        r = read_table(p, e);
        if (r == 1)
                r = read_whole(p, e);
        if (r < 0)
                return r;
        p->layer->index_ms = MAX(clock_ms() - begin, (uint64_t) 1);
        /* While others are still at it. If they can't be opened, whoever waits for all of them finds out why. */
        if (p->layer->toc || image_open_toc(p->all->image, p->layer, &ignored) == 0)
                (void) image_open_content(p->all->image, p->layer, &ignored);
        log_info("%s: indexed as %s in %ju ms", blob->name, p->layer->kind, (uintmax_t) p->layer->index_ms);
        return 0;
}

/* A thread of passes: takes the next one until there is none, or somebody failed. */
static void *run_passes(void *arg)
{
        struct passes *a = arg;

        mutex_lock(&a->lock);
        while (a->next < a->count && a->result == 0) {
                struct pass *p = &a->items[a->next++];
                struct error e = ERROR_INIT;
                int r;

                mutex_unlock(&a->lock);
                r = run_pass(p, &e);
                mutex_lock(&a->lock);

                a->done++;
                if (r < 0 && a->result == 0) {
                        a->result = r;
                        a->error = e;
                        atomic_store(&a->cancel, true);
                }
                cond_broadcast(&a->changed);
        }
        mutex_unlock(&a->lock);
        return NULL;
}

static int larger_first(const void *a, const void *b)
{
        const struct pass *x = a, *y = b;

        return (x->layer->blob->size < y->layer->blob->size) - (x->layer->blob->size > y->layer->blob->size);
}

/* Tells the caller how far the passes are; it may end them. */
static void report(struct passes *a, const struct regfs_options *o, size_t done)
{
        struct regfs_progress progress = {
                .layers = (unsigned) a->image->layer_count,
                .layers_done = (unsigned) (a->image->layer_count - a->count + done),
        };

        for (size_t k = 0; k < a->count; k++)
                tell_progress(&a->items[k]);
        if (!o->progress)
                return;
        for (size_t k = 0; k < a->count; k++) {
                if (!a->items[k].whole)
                        continue;
                progress.bytes += a->items[k].layer->blob->size;
                progress.bytes_done += atomic_load(&a->items[k].progress);
        }
        if (o->progress(o->progress_context, &progress) == 0)
                return;
        mutex_lock(&a->lock);
        atomic_store(&a->cancel, true);
        cond_broadcast(&a->changed);
        mutex_unlock(&a->lock);
}

static void watch_passes(struct passes *a, const struct regfs_options *o)
{
        size_t done;

        do {
                mutex_lock(&a->lock);
                if (a->done < a->next || (a->next < a->count && a->result == 0))
                        (void) cond_wait_until(&a->changed, &a->lock, deadline_in(PROGRESS_INTERVAL_MS));
                done = a->done < a->next || (a->next < a->count && a->result == 0) ? a->done : a->count;
                mutex_unlock(&a->lock);
                report(a, o, done);
        } while (done < a->count);
}

static size_t threads_wanted(const struct passes *a)
{
        size_t whole = 0, wanted;

        for (size_t k = 0; k < a->count; k++)
                whole += a->items[k].whole;
        wanted = a->count - whole + MIN(whole, (size_t) PASSES_AT_ONCE);
        return MIN(wanted, (size_t) THREADS_MAX);
}

static int run_all(struct passes *a, const struct regfs_options *o, struct error *e)
{
        pthread_t threads[THREADS_MAX];
        size_t started = 0, wanted = threads_wanted(a);
        int r = 0;

        qsort(a->items, a->count, sizeof(*a->items), larger_first);
        while (started < wanted) {
                r = thread_start(&threads[started], "index", run_passes, a);
                if (r < 0)
                        break;
                started++;
        }
        if (started == 0)
                return error_errno(e, -r, "cannot start a thread");
        watch_passes(a, o);
        for (size_t k = 0; k < started; k++)
                pthread_join(threads[k], NULL);

        mutex_lock(&a->lock);
        r = a->result;
        if (r < 0 && e)
                *e = a->error;
        mutex_unlock(&a->lock);
        return r;
}

/* Layer K can't be read without what no store has, or what is wrong there: WHY. */
static int refuse_missing(const struct image *i, size_t k, const struct error *why, struct error *e)
{
        const struct image_layer *l = &i->layers[k];
        char digest[DIGEST_STRING_MAX];

        return error_set(e, ERROR_NOT_FOUND, ENOENT,
                         "%s: offline: layer %zu of %zu, %s: its table of contents (%s) %s%s", i->reference, k + 1,
                         i->layer_count, digest_format(&l->descriptor.digest, digest), l->kind,
                         why ? "can't be used: " : "is not in the store", why ? why->message : "");
}

/* Opens the TOCs that the stores have; collects the layers that have none in PASSES. */
static int open_known(struct image *i, struct passes *a, struct error *e)
{
        for (size_t k = 0; k < i->layer_count; k++) {
                struct image_layer *l = &i->layers[k];
                struct error why = ERROR_INIT;
                int r;

                if (l->same_as != k || l->toc)
                        continue;
                r = l->blob ? 0 : source_blob(i->source, &l->descriptor, &l->blob, e);
                if (r < 0)
                        return r;
                r = image_open_toc(i, l, &why);
                if (r == 0)
                        continue;
                if (r == -ENOMEM)
                        return error_oom(e);
                if (i->offline)
                        return refuse_missing(i, k, r == -ENOENT ? NULL : &why, e);
                /* What cannot be looked at now may be as good as ever. */
                if (r != -ENOENT && r != -EBADMSG && r != -ESTALE) {
                        *e = why;
                        return r;
                }
                if (r != -ENOENT) {
                        log_warning("%s: %s: indexed afresh", l->blob->name, why.message);
                        r = store_layer_remove(i->store, &l->descriptor.digest, l->kind, &why);
                        if (r < 0 && store_forgo(i->store, r, &why) < 0) {
                                *e = why;
                                return r;
                        }
                }
                a->items[a->count] = (struct pass) {
                        .all = a,
                        .layer = l,
                        .whole = str_eq(l->kind, KIND_PLAIN),
                        .lock = MUTEX_INIT,
                        .turn = STORE_TURN_INIT,
                };
                a->count++;
        }
        return 0;
}

/* *RET_GONE: a TOC was in the store and is no longer. */
static int open_layers(struct image *i, const struct regfs_options *options, bool *ret_gone, struct error *e)
{
        _cleanup_free_ struct pass *items = calloc(i->layer_count, sizeof(*items));
        struct passes all = { .image = i, .items = items, .request = log_current_request() };
        int r;

        if (!items)
                return error_oom(e);
        mutex_init(&all.lock);
        cond_init(&all.changed);
        r = open_known(i, &all, e);
        if (r == 0 && all.count > 0)
                r = external_toc_new(i->reference, i->client, i->timeout_ms, &all.external, e);
        if (r == 0 && all.count > 0)
                r = run_all(&all, options, e);
        external_toc_free(all.external);

        for (size_t k = 0; k < i->layer_count && r == 0; k++) {
                if (i->layers[k].same_as != k || i->layers[k].toc)
                        continue;
                r = image_open_toc(i, &i->layers[k], e);
                *ret_gone = r == -ENOENT;
                if (r == -ENOENT)
                        r = error_errno(e, ENOENT, "%s: index just written", i->layers[k].blob->name);
        }
        cond_destroy(&all.changed);
        mutex_destroy(&all.lock);
        return r;
}

int image_open_layers(struct image *i, const struct regfs_options *options, struct error *e)
{
        bool gone = false;
        int r = open_layers(i, options, &gone, e);

        /* Somebody may clear the store between a layer's pass and the end of them all. */
        for (unsigned attempt = 1; gone && attempt < OPEN_ATTEMPTS; attempt++) {
                gone = false;
                r = open_layers(i, options, &gone, e);
        }
        return r;
}
