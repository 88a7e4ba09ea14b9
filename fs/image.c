/* SPDX-License-Identifier: Apache-2.0 */

#include "regfs/image.h"

#include <stdio.h>

#include "image_internal.h"
#include "regfs/embedded.h"
#include "regfs/log.h"

#define DEFAULT_MEMORY (64 * MIB)
#define DEFAULT_TIMEOUT_S 60
#define FLIGHT_THREADS 8
#define INDEX_NESTING_MAX 4

struct image *image_close(struct image *i)
{
        if (!i)
                return NULL;

        /* Nobody waits for what is on its way; flights end at once. */
        atomic_store(&i->closing, true);
        if (i->http)
                http_stop(i->http);
        image_end_warming(i);
        keepsakes_free(i->keepsakes);
        for (size_t k = 0; k < i->layer_count; k++) {
                struct image_layer *l = &i->layers[k];

                fetcher_free(l->fetcher);
                recovery_free(l->recovery);
                content_close(l->content);
                toc_close(l->toc);
                blob_free(l->blob);
                descriptor_clear(&l->descriptor);
        }
        free(i->layers);
        tree_close(i->tree);
        published_clear(&i->published);
        source_free(i->index_source);
        source_free(i->source);
        workers_free(i->workers);
        client_free(i->client);
        http_free(i->http);
        registries_free(i->registries);
        pool_free(i->pool);
        store_close(i->store);
        reference_clear(&i->name);
        free(i->index_reference);
        free(i->reference);
        free(i->digest_text);
        free(i->platform_text);
        free(i);
        return NULL;
}

const struct tree *image_tree(const struct image *i)
{
        return i->tree;
}

const char *image_reference(const struct image *i)
{
        return i->reference;
}

const char *image_digest(const struct image *i)
{
        return i->digest_text;
}

const char *image_platform(const struct image *i)
{
        return i->platform_text;
}

/* ---- manifest and platform ---- */

/* Follows indexes down to the manifest of the platform wanted. DOCUMENT is that of DIGEST, or empty: then it is
 * loaded. */
static int find_manifest(struct image *i, struct document *document, struct digest *digest,
                         const struct platform *wanted, struct manifest *ret, bool *ret_chosen, struct error *e)
{
        bool chosen = false;

        for (unsigned depth = 0; depth < INDEX_NESTING_MAX; depth++) {
                _cleanup_manifest_ struct manifest m = { 0 };
                char text[DIGEST_STRING_MAX];
                _cleanup_free_ char *name = NULL;
                size_t entry;
                int r;

                if (!document->body.data) {
                        r = image_document(i, i->source, digest, document, e);
                        if (r < 0)
                                return r;
                }
                name = str_printf("%s (manifest %s)", i->reference, digest_format(digest, text));
                if (!name)
                        return error_oom(e);
                r = manifest_parse(document, name, &m, e);
                if (r < 0)
                        return r;
                document_clear(document);
                *document = (struct document) { 0 };

                if (m.kind == MANIFEST_IMAGE) {
                        *ret = m;
                        m = (struct manifest) { 0 };
                        *ret_chosen = chosen;
                        return 0;
                }
                r = manifest_choose(&m, wanted, name, &entry, e);
                if (r < 0)
                        return r;
                chosen = true;
                *digest = m.manifests[entry].digest;
        }
        return error_set(e, ERROR_BAD_DATA, EBADMSG, "%s: image indexes nest more than %d deep", i->reference,
                         INDEX_NESTING_MAX);
}

static int take_layers(struct image *i, struct manifest *m, struct error *e)
{
        i->layers = calloc(m->layer_count, sizeof(*i->layers));
        if (!i->layers)
                return error_oom(e);
        i->layer_count = m->layer_count;

        for (size_t k = 0; k < m->layer_count; k++) {
                struct image_layer *l = &i->layers[k];

                l->descriptor = m->layers[k];
                m->layers[k] = (struct descriptor) { 0 };
                l->same_as = 0;
                while (!digest_equal(&i->layers[l->same_as].descriptor.digest, &l->descriptor.digest))
                        l->same_as++;
        }
        return 0;
}

/* ---- content ---- */

static int open_fetchers(struct image *i, struct error *e)
{
        for (size_t k = 0; k < i->layer_count; k++) {
                struct image_layer *l = &i->layers[k];
                int r;

                if (l->same_as != k)
                        continue;
                r = image_open_content(i, l, e);
                if (r == 0 && l->table)
                        r = recovery_new(i, l, &l->recovery, e);
                if (r < 0)
                        return r;

                struct fetcher_options options = {
                        .blob = l->blob,
                        .table = &l->toc->chunks,
                        .content = l->content,
                        .pool = i->pool,
                        .workers = i->workers,
                        .timeout_ms = i->timeout_ms,
                        .alone = i->offline,
                        .recover = l->recovery ? recovery_read : NULL,
                        .recover_context = l->recovery,
                };
                r = fetcher_new(&options, &l->fetcher, e);
                if (r < 0)
                        return r;
                /* What the image's builder knows to be wanted first. */
                fetch_ahead(l->fetcher, 0, l->toc->chunks.prefetch, PRIORITY_BACKGROUND);
        }
        return 0;
}

/* ---- all of it ---- */

static int open_base(struct image *i, const struct regfs_options *o, struct error *e)
{
        int r;

        i->offline = o->offline;
        i->timeout_ms = (uint64_t) (o->timeout_s > 0 ? o->timeout_s : DEFAULT_TIMEOUT_S) * 1000;
        r = store_open_all(o->cache_dir, o->stores, &i->store, e);
        if (r < 0)
                return r;
        store_set_limit(i->store, o->cache_size == REGFS_CACHE_NOTHING ? 0
                                  : o->cache_size > 0                  ? o->cache_size
                                                                       : STORE_LIMIT_DEFAULT);
        r = pool_new(o->memory > 0 ? o->memory : DEFAULT_MEMORY, &i->pool);
        if (r < 0)
                return error_errno(e, -r, "buffer pool");
        return workers_new("flight", FLIGHT_THREADS, &i->workers, e);
}

/* What an image is opened for, and so how far. */
enum purpose {
        FOR_READING,
        FOR_KEEPING,  /* like reading, and a store that cannot take something is an error */
        FOR_INDEXING, /* like reading, by TOCs that regfs makes itself where a layer carries none */
        FOR_A_LOOK,   /* manifest and layers' kinds */
};

static int read_mode(struct image *i, const struct regfs_options *o, enum purpose purpose, struct error *e)
{
        const char *index = o->index ? o->index : "auto";

        i->index_mode = str_eq(index, "auto")        ? INDEX_AUTO
                        : str_eq(index, "none")      ? INDEX_NONE
                        : str_eq(index, "referrers") ? INDEX_REFERRERS
                                                     : INDEX_NAMED;
        if (i->index_mode == INDEX_NAMED) {
                i->index_reference = strdup(index);
                if (!i->index_reference)
                        return error_oom(e);
        }
        i->indexing = purpose == FOR_INDEXING;
        if (purpose == FOR_INDEXING || purpose == FOR_KEEPING)
                store_keep_all(i->store);
        if (i->indexing && i->index_mode != INDEX_NONE)
                i->index_mode = INDEX_EMBEDDED;
        return 0;
}

/* The image, its manifest, and by which tables its layers are read. Its config may still be read. */
static int find_image(struct image *i, const char *reference, const struct regfs_options *o,
                      const struct platform *wanted, struct error *e)
{
        _cleanup_(located_clear) struct located located = { 0 };
        _cleanup_manifest_ struct manifest manifest = { 0 };
        char text[DIGEST_STRING_MAX];
        bool chosen = false;
        int r;

        if (keepsakes_new(&i->keepsakes) < 0)
                return error_oom(e);
        r = image_locate(i, reference, o, &located, e);
        if (r < 0)
                return r;
        r = located.document.body.data ? image_remember(i, &located.document, e) : 0;
        if (r < 0)
                return r;
        i->source = steal_ptr(located.source);
        i->reference = steal_ptr(located.text);
        i->name = located.name;
        located.name = (struct reference) { 0 };
        i->digest = located.digest;

        LOG_SCOPE(0, i->reference);
        r = find_manifest(i, &located.document, &i->digest, wanted, &manifest, &chosen, e);
        if (r < 0)
                return r;
        i->digest_text = strdup(digest_format(&i->digest, text));
        if (!i->digest_text)
                return error_oom(e);
        r = config_begin(i, &manifest.config, wanted, chosen, e);
        if (r == 0)
                r = take_layers(i, &manifest, e);
        return r < 0 ? r : image_choose_indexes(i, &manifest, o, e);
}

static int open_layers(struct image *i, const struct regfs_options *o, struct error *e)
{
        int r;

        LOG_SCOPE(0, i->reference);
        r = image_open_layers(i, o, e);
        if (r == 0)
                r = image_open_tree(i, e);
        if (r == 0)
                r = open_fetchers(i, e);
        if (r < 0)
                return r;
        pool_trim(i->pool);
        log_info("open: %zu layers, %u inodes, manifest %s", i->layer_count, i->tree->itable.inode_count,
                 i->digest_text);
        return 0;
}

/* The config is looked at last: what is wrong with it is the reason for everything else. */
static int find_and_open(struct image *i, enum purpose purpose, const char *reference, const struct regfs_options *o,
                         const struct platform *wanted, struct error *e)
{
        struct error why = ERROR_INIT;
        int r, result;

        result = find_image(i, reference, o, wanted, e);
        if (result == 0 && purpose != FOR_A_LOOK)
                result = open_layers(i, o, e);
        if (result < 0 && i->http)
                http_stop(i->http); /* nobody waits for it any more */
        image_end_warming(i);
        r = config_end(i, &why);
        if (r == 0 || (result < 0 && r != -EBADMSG))
                return result;
        *e = why;
        return r;
}

static int open_for(enum purpose purpose, const char *reference, const struct regfs_options *options,
                    struct image **ret, struct error *e)
{
        const struct regfs_options defaults = REGFS_OPTIONS_INIT;
        _cleanup_(image_close_ptr) struct image *i = NULL;
        _cleanup_platform_ struct platform wanted = { 0 };
        struct error own = ERROR_INIT;
        int r;

        if (!e)
                e = &own;
        if (!options)
                options = &defaults;
        r = options->platform ? platform_parse(options->platform, &wanted, e) : platform_host(&wanted);
        if (r < 0)
                return options->platform ? r : error_errno(e, -r, "platform of this host");

        i = calloc(1, sizeof(*i));
        if (!i)
                return error_oom(e);
        r = open_base(i, options, e);
        if (r == 0)
                r = read_mode(i, options, purpose, e);
        if (r == 0)
                r = find_and_open(i, purpose, reference, options, &wanted, e);
        if (r < 0)
                return r;
        *ret = steal_ptr(i);
        return 0;
}

int image_open(const char *reference, const struct regfs_options *options, struct image **ret, struct error *e)
{
        return open_for(FOR_READING, reference, options, ret, e);
}

int image_open_to_keep(const char *reference, const struct regfs_options *options, struct image **ret, struct error *e)
{
        return open_for(FOR_KEEPING, reference, options, ret, e);
}

int image_open_for_index(const char *reference, const struct regfs_options *options, struct image **ret,
                         struct error *e)
{
        return open_for(FOR_INDEXING, reference, options, ret, e);
}

int image_inspect(const char *reference, const struct regfs_options *options, struct image **ret, struct error *e)
{
        return open_for(FOR_A_LOOK, reference, options, ret, e);
}

/* ---- what is told of it ---- */

size_t image_layer_count(const struct image *i)
{
        return i->layer_count;
}

void image_layer_info(const struct image *i, size_t k, struct image_layer_info *ret)
{
        const struct image_layer *l = &i->layers[i->layers[k].same_as];
        _cleanup_close_ int fd = store_layer_toc(i->store, &l->descriptor.digest, l->kind);

        *ret = (struct image_layer_info) {
                .digest = l->descriptor.digest,
                .size = l->descriptor.size,
                .media_type = l->descriptor.media_type,
                .kind = l->kind,
                .origin = l->origin,
                .known = fd >= 0,
                .index_ms = l->index_ms,
        };
        if (l->table)
                ret->index = i->published.digest;
        if (!l->toc)
                return;
        ret->entries = l->toc->itable.inode_count;
        ret->chunks = l->toc->chunks.chunk_count;
        ret->toc_size = l->toc->map_size;
}

void image_log_stats(struct image *i)
{
        struct workers_stats w;
        struct pool_stats p;

        pool_get_stats(i->pool, &p);
        workers_get_stats(i->workers, &w);
        log_debug("pool: %zu of %zu bytes out in %zu buffers, %zu kept, %zu waiting; workers: %u threads, "
                  "busy %u+%u+%u, queued %u+%u+%u (demand+readahead+background)",
                  p.out, p.limit, p.buffers, p.kept, p.waiting, w.threads, w.busy[0], w.busy[1], w.busy[2], w.queued[0],
                  w.queued[1], w.queued[2]);
        for (size_t k = 0; k < i->layer_count; k++) {
                char digest[DIGEST_STRING_MAX];
                struct fetch_stats f;

                if (!i->layers[k].fetcher)
                        continue;
                fetcher_get_stats(i->layers[k].fetcher, &f);
                log_debug("layer %s: %ju flights, %ju joined, %ju chunks, %ju bytes fetched, %ju refetched, %ju failed",
                          digest_format(&i->layers[k].descriptor.digest, digest), (uintmax_t) f.flights,
                          (uintmax_t) f.joined, (uintmax_t) f.chunks, (uintmax_t) f.bytes, (uintmax_t) f.refetches,
                          (uintmax_t) f.failures);
        }
}
