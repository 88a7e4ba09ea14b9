/* SPDX-License-Identifier: Apache-2.0 */

/* The config of an image is read for its platform, and because an image without a right one is none. It comes in a
 * thread of its own, beside the layers' tables; only a layer that is to be read whole waits for it. */

#include "image_internal.h"
#include "regfs/log.h"

struct config_reading {
        struct image *image;
        struct descriptor descriptor;
        struct keepsakes *keepsakes;
        const struct platform *wanted;
        bool chosen;
        uint64_t request; /* of the log */
        pthread_t thread;
        bool in_thread;
        struct mutex lock;
        struct cond changed;
        bool over GUARDED_BY(lock); /* then the rest is settled */
        int result;
        struct buf config;
        struct error error;
};

static struct config_reading *reading_free(struct config_reading *c)
{
        if (!c)
                return NULL;
        descriptor_clear(&c->descriptor);
        keepsakes_free(c->keepsakes);
        buf_free(&c->config);
        cond_destroy(&c->changed);
        mutex_destroy(&c->lock);
        free(c);
        return NULL;
}

static int remember(struct config_reading *c)
{
        const struct document config = { .body = c->config, .digest = c->descriptor.digest };
        int r = keepsakes_put(c->keepsakes, c->image, &c->error);

        return r < 0 ? r : image_remember(c->image, &config, &c->error);
}

static void fetch(struct config_reading *c)
{
        struct image *i = c->image;

        c->result = source_blob_read(i->source, &c->descriptor, i->pool, MANIFEST_MAX, image_deadline(i), &c->config,
                                     &c->error);
        if (c->result < 0)
                error_prefix(&c->error, "%s: config", i->reference);
        else
                c->result = remember(c);
        mutex_lock(&c->lock);
        c->over = true;
        cond_broadcast(&c->changed);
        mutex_unlock(&c->lock);
}

static void *fetch_in_thread(void *arg)
{
        struct config_reading *c = arg;

        LOG_SCOPE(c->request, c->image->reference);
        fetch(c);
        return NULL;
}

int config_begin(struct image *i, struct descriptor *descriptor, const struct platform *wanted, bool chosen,
                 struct error *e)
{
        struct config_reading *c = calloc(1, sizeof(*c));
        bool known;

        if (!c)
                return error_oom(e);
        mutex_init(&c->lock);
        cond_init(&c->changed);
        c->image = i;
        c->wanted = wanted;
        c->chosen = chosen;
        c->request = log_current_request();
        c->descriptor = *descriptor;
        *descriptor = (struct descriptor) { 0 };
        c->keepsakes = steal_ptr(i->keepsakes);
        known = store_blob_get(i->store, &c->descriptor.digest, MANIFEST_MAX, &c->config, NULL) == 0;
        mutex_lock(&c->lock);
        c->over = known;
        mutex_unlock(&c->lock);
        i->config = c;
        if (known)
                return keepsakes_put(c->keepsakes, i, e);
        buf_free(&c->config);
        c->config = (struct buf) { 0 };
        c->in_thread = thread_start(&c->thread, "config", fetch_in_thread, c) == 0;
        if (!c->in_thread)
                fetch(c);
        return 0;
}

int config_wait(struct image *i, struct error *e)
{
        struct config_reading *c = i->config;

        mutex_lock(&c->lock);
        while (!c->over)
                cond_wait(&c->changed, &c->lock);
        mutex_unlock(&c->lock);
        if (c->result < 0)
                *e = c->error;
        return c->result;
}

static int take_platform(const struct config_reading *c, struct error *e)
{
        _cleanup_platform_ struct platform actual = { 0 };
        const struct platform *wanted = c->wanted;
        _cleanup_free_ char *wanted_text = NULL;
        struct image *i = c->image;
        int r;

        r = config_platform(&c->config, i->reference, &actual, e);
        if (r < 0)
                return r;
        i->platform_text = platform_format(&actual);
        wanted_text = platform_format(wanted);
        if (!i->platform_text || !wanted_text)
                return error_oom(e);
        if (!c->chosen && (!str_eq(actual.os, wanted->os) || !str_eq(actual.architecture, wanted->architecture)))
                log_warning("the image has no index and is for %s, not %s: used as it is", i->platform_text,
                            wanted_text);
        else
                log_info("platform %s", i->platform_text);
        return 0;
}

int config_end(struct image *i, struct error *e)
{
        struct config_reading *c = i->config;
        int r;

        if (!c)
                return 0;
        r = config_wait(i, e);
        if (c->in_thread)
                pthread_join(c->thread, NULL);
        if (r == 0)
                r = take_platform(c, e);
        i->config = reading_free(c);
        return r;
}
