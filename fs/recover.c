/* SPDX-License-Identifier: Apache-2.0 */

/* A layer that is read by a published index, when a chunk is not what the index says: is it the index, or the bytes?
 * The layer's own digest decides. A pass over the whole layer either fails, and then the bytes are wrong; or it
 * makes a TOC of the layer's own, and then the index is wrong: it leaves the store, and reads go on by the layer's
 * TOC, if the index has shown the right tree. Both have one content space, the decoded tar. */

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "image_internal.h"
#include "regfs/log.h"
#include "regfs/verify.h"

#define FLIGHT_THREADS 2
#define FIRST_MAX 400 /* of the first difference, in an error */

/* A layer that cannot be read now is not read whole again for every chunk that somebody wants of it. */
#define BACK_OFF_MS 30000

struct recovery {
        struct image *image;
        struct image_layer *layer;
        struct mutex lock;
        struct cond changed;
        bool running GUARDED_BY(lock);
        bool refused GUARDED_BY(lock);     /* the index has shown another tree: nothing of the layer can be read */
        deadline_t again GUARDED_BY(lock); /* until then a failure stands for all who ask */
        struct error failure GUARDED_BY(lock);
        struct fetcher *fetcher GUARDED_BY(lock); /* of the layer's own TOC, once there; then it stays */

        /* Of the one that runs; FETCHER stands on them. */
        struct toc *toc;
        struct content *content;
        struct workers *workers; /* flights wait here for flights: not on the threads that the former have */
};

int recovery_new(struct image *image, struct image_layer *layer, struct recovery **ret, struct error *e)
{
        struct recovery *r = calloc(1, sizeof(*r));

        if (!r)
                return error_oom(e);
        r->image = image;
        r->layer = layer;
        mutex_init(&r->lock);
        cond_init(&r->changed);
        *ret = r;
        return 0;
}

struct recovery *recovery_free(struct recovery *r)
{
        struct fetcher *fetcher;

        if (!r)
                return NULL;
        mutex_lock(&r->lock);
        fetcher = r->fetcher;
        mutex_unlock(&r->lock);
        fetcher_free(fetcher);
        content_close(r->content);
        toc_close(r->toc);
        workers_free(r->workers);
        cond_destroy(&r->changed);
        mutex_destroy(&r->lock);
        free(r);
        return NULL;
}

/* ---- the layer's own TOC ---- */

static bool is_indexed(struct recovery *r)
{
        _cleanup_close_ int fd = store_layer_toc_here(r->image->store, &r->layer->descriptor.digest, KIND_PLAIN);

        return fd >= 0;
}

/* Of the processes that find the index wrong one reads the layer. The others wait, as those do who index it for a
 * mount, until there is a TOC or that one comes no farther. */
static int wait_for_turn(struct recovery *r, struct store_turn *turn, struct error *e)
{
        struct store *store = r->image->store;
        struct patience patience;
        char name[TOC_TURN_MAX];
        uint64_t pause;

        image_toc_turn(r->layer, KIND_PLAIN, name);
        patience_begin(&patience, r->image->timeout_ms);
        while (store_turn_try(store, name, turn) < 0 && !is_indexed(r) &&
               patience_left(&patience, store_turn_progress(store, name), &pause)) {
                struct timespec t = { .tv_nsec = (long) pause * 1000000 };

                if (atomic_load(&r->image->closing))
                        return error_set(e, ERROR_OTHER, ECANCELED, "%s: the image is closed", r->layer->blob->name);
                nanosleep(&t, NULL);
        }
        return 0;
}

static int index_plain(struct recovery *r, struct error *e)
{
        _cleanup_turn_ struct store_turn turn = STORE_TURN_INIT;
        const struct index_options options = {
                .blob = r->layer->blob,
                .pool = r->image->pool,
                .store = r->image->store,
                .timeout_ms = r->image->timeout_ms,
                .turn = &turn,
        };
        int result = wait_for_turn(r, &turn, e);

        if (result < 0 || is_indexed(r))
                return result;
        log_warning("%s: the layer is read whole", r->layer->blob->name);
        return index_layer(&options, e);
}

static int open_plain(struct recovery *r, struct error *e)
{
        _cleanup_close_ int fd = store_layer_toc_here(r->image->store, &r->layer->descriptor.digest, KIND_PLAIN);

        toc_close(r->toc);
        r->toc = NULL;
        if (fd < 0)
                return error_errno(e, -fd, "%s: the TOC just written", r->layer->blob->name);
        return toc_open(fd, &r->layer->descriptor.digest, &r->toc, e);
}

static int keep_first(void *context, const char *text)
{
        snprintf(context, FIRST_MAX, "%s", text);
        return 1;
}

/* -EBADMSG where the published table has shown what is not there. */
static int compare_trees(struct recovery *r, struct error *e)
{
        char first[FIRST_MAX] = "";
        uint64_t differences;
        int result = toc_compare(r->layer->toc, r->toc, keep_first, first, &differences, e);

        if (result < 0 || differences == 0)
                return result;
        mutex_lock(&r->lock);
        r->refused = true;
        mutex_unlock(&r->lock);
        return error_set(e, ERROR_BAD_DATA, EBADMSG,
                         "%s: the published index shows another tree than the layer has: %s; mount it again: the index "
                         "is not used any more",
                         r->layer->blob->name, first);
}

static int open_fetcher(struct recovery *r, struct fetcher **ret, struct error *e)
{
        struct image *i = r->image;
        int result = 0;

        if (!r->content)
                result = content_open(i->store, &r->layer->descriptor.digest, KIND_PLAIN, &r->toc->chunks, &r->content,
                                      e);
        if (result == 0 && !r->workers)
                result = workers_new("recover", FLIGHT_THREADS, &r->workers, e);
        if (result < 0)
                return result;

        struct fetcher_options options = {
                .blob = r->layer->blob,
                .table = &r->toc->chunks,
                .content = r->content,
                .pool = i->pool,
                .workers = r->workers,
                .timeout_ms = i->timeout_ms,
        };
        return fetcher_new(&options, ret, e);
}

/* From here on the store does without the index: the next mount reads the layer by its own TOC. */
static void forget_index(struct recovery *r)
{
        struct error e = ERROR_INIT;

        if (store_layer_remove(r->image->store, &r->layer->descriptor.digest, r->layer->kind, &e) < 0)
                log_warning("%s", e.message);
}

static int prepare(struct recovery *r, struct fetcher **ret, struct error *e)
{
        int result;

        log_warning("%s: a chunk is not what the published index says", r->layer->blob->name);
        result = index_plain(r, e);
        if (result == 0)
                result = open_plain(r, e);
        if (result < 0)
                return result;
        log_warning("%s: the layer is right and the published index is wrong: it is not used any more",
                    r->layer->blob->name);
        forget_index(r);
        result = compare_trees(r, e);
        return result < 0 ? result : open_fetcher(r, ret, e);
}

/* What is known already. Returns 1 when nothing is: the caller is the one who finds out. */
static int join(struct recovery *r, struct fetcher **ret, struct error *e)
{
        int result = 0;

        mutex_lock(&r->lock);
        while (r->running)
                cond_wait(&r->changed, &r->lock);
        *ret = r->fetcher;
        if (!r->fetcher && (r->refused || deadline_left(r->again) > 0)) {
                result = -r->failure.code;
                if (e)
                        *e = r->failure;
        } else if (!r->fetcher) {
                r->running = true;
                result = 1;
        }
        mutex_unlock(&r->lock);
        return result;
}

/* The fetcher of the layer's own TOC. One caller makes it, the others wait. */
static int recovery_fetcher(struct recovery *r, struct fetcher **ret, struct error *e)
{
        struct error own = ERROR_INIT;
        int result = join(r, ret, e);

        if (result <= 0)
                return result;
        result = prepare(r, ret, &own);

        mutex_lock(&r->lock);
        r->running = false;
        if (result == 0) {
                r->fetcher = *ret;
        } else {
                r->failure = own;
                r->again = deadline_in(BACK_OFF_MS);
        }
        cond_broadcast(&r->changed);
        mutex_unlock(&r->lock);
        if (result < 0 && e)
                *e = own;
        return result;
}

int recovery_read(void *context, uint64_t offset, size_t length, uint8_t *out, struct error *e)
{
        struct recovery *r = context;
        struct fetch_part part = { .offset = offset, .length = length };
        int result = recovery_fetcher(r, &part.fetcher, e);

        return result < 0 ? result : fetch_wait(&part, 1, out, e);
}
