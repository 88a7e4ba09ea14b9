/* SPDX-License-Identifier: Apache-2.0 */

/* The config of an image is read for its platform, and because an image without a right one is none. Nothing else waits
 * for it, so what has to come from the registry comes in a thread of its own, beside the layers' tables. */

#include "image_internal.h"
#include "regfs/log.h"

struct config_reading {
        struct image *image;
        struct descriptor descriptor;
        const struct platform *wanted;
        bool chosen;
        uint64_t request; /* of the log */
        pthread_t thread;
        bool in_thread;
        int result;
        struct buf config;
        struct error error;
};

static struct config_reading *reading_free(struct config_reading *c)
{
        if (!c)
                return NULL;
        descriptor_clear(&c->descriptor);
        buf_free(&c->config);
        free(c);
        return NULL;
}

static void fetch(struct config_reading *c)
{
        struct image *i = c->image;

        c->result = source_blob_read(i->source, &c->descriptor, i->pool, MANIFEST_MAX, image_deadline(i), &c->config,
                                     &c->error);
        if (c->result == 0)
                image_remember(i, &(struct document) { .body = c->config, .digest = c->descriptor.digest });
}

static void *fetch_in_thread(void *arg)
{
        struct config_reading *c = arg;

        LOG_SCOPE(c->request, c->image->reference);
        fetch(c);
        return NULL;
}

int config_begin(struct image *i, struct descriptor *descriptor, const struct platform *wanted, bool chosen,
                 struct config_reading **ret, struct error *e)
{
        struct config_reading *c = calloc(1, sizeof(*c));

        if (!c)
                return error_oom(e);
        c->image = i;
        c->wanted = wanted;
        c->chosen = chosen;
        c->request = log_current_request();
        c->descriptor = *descriptor;
        *descriptor = (struct descriptor) { 0 };
        *ret = c;
        if (store_blob_get(i->store, &c->descriptor.digest, MANIFEST_MAX, &c->config, NULL) == 0)
                return 0;
        buf_free(&c->config);
        c->config = (struct buf) { 0 };
        c->in_thread = thread_start(&c->thread, "config", fetch_in_thread, c) == 0;
        if (!c->in_thread)
                fetch(c);
        return 0;
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

int config_end(struct config_reading *c, struct error *e)
{
        int r;

        if (c->in_thread)
                pthread_join(c->thread, NULL);
        r = c->result;
        if (r < 0) {
                *e = c->error;
                error_prefix(e, "%s: config", c->image->reference);
        } else {
                r = take_platform(c, e);
        }
        reading_free(c);
        return r;
}
