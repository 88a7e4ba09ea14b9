/* SPDX-License-Identifier: Apache-2.0 */

/* By which table of contents each layer is read. The first of these that there is:
 *
 *  1. the index that --index names: somebody decided;
 *  2. the table that the layer carries (eStargz, zstd:chunked): the image's digest binds it, it costs no request to find,
 *     and its chunks are files;
 *  3. the index that the image's manifest names in an annotation, regfs's or SOCI's: the image's digest binds it too;
 *  4. the TOC that a pass over the layer has left in this store: nobody had to be believed;
 *  5. an index that was published beside the image, regfs's, else SOCI's: nothing in the image binds it, so a reference by
 *     digest does without unless told otherwise;
 *  6. a pass over the layer.
 *
 * Which index of the fifth sort an image is read by stands in the store, among the refs, so that a later mount needs
 * no request; its name has the repository in it: an index is trusted as far as that. */

#include <stdio.h>
#include <string.h>

#include "image_internal.h"
#include "regfs/embedded.h"
#include "regfs/log.h"

/* A registry that is slow with its referrers must not hold a mount up: there is another way. */
#define REFERRERS_PATIENCE_MS 10000

static bool mode_uses_embedded(const struct image *i)
{
        return i->index_mode != INDEX_NONE;
}

static bool mode_uses_bound(const struct image *i)
{
        return i->index_mode == INDEX_AUTO || i->index_mode == INDEX_REFERRERS || i->index_mode == INDEX_NAMED;
}

static bool mode_uses_referrers(const struct image *i)
{
        return i->index_mode == INDEX_REFERRERS || (i->index_mode == INDEX_AUTO && !i->name.has_digest);
}

void image_layer_set_plain(struct image_layer *l)
{
        snprintf(l->kind, sizeof(l->kind), KIND_PLAIN);
        l->origin = INDEX_FROM_LAYER;
        l->table = NULL;
}

static bool is_first(const struct image *i, size_t k)
{
        return i->layers[k].same_as == k;
}

static bool is_known(const struct image *i, const struct image_layer *l, const char *kind)
{
        _cleanup_close_ int fd = store_layer_toc(i->store, &l->descriptor.digest, kind);

        return fd >= 0;
}

/* ---- published indexes ---- */

static int load_index(struct image *i, struct source *source, const struct digest *digest, struct published *ret,
                      struct error *e)
{
        _cleanup_document_ struct document document = { 0 };
        _cleanup_free_ char *name = NULL;
        char text[DIGEST_STRING_MAX];
        int r;

        name = str_printf("index %s of %s", digest_format(digest, text), source->name);
        if (!name)
                return error_oom(e);
        r = image_document(i, source, digest, &document, e);
        return r < 0 ? r : published_parse(&document, name, ret, e);
}

/* How many of the layers that have no table yet get one from I->published. */
static size_t take_tables(struct image *i, enum index_origin origin)
{
        size_t taken = 0;

        for (size_t k = 0; k < i->layer_count; k++) {
                struct image_layer *l = &i->layers[k];
                const struct descriptor *table;

                if (!is_first(i, k) || l->origin != INDEX_FROM_LAYER)
                        continue;
                /* What a pass has left here is as good as what the image binds, and better than the rest. */
                if (origin == INDEX_FROM_REFERRER && is_known(i, l, KIND_PLAIN))
                        continue;
                table = published_toc(&i->published, &l->descriptor.digest);
                if (!table)
                        continue;
                l->table = table;
                l->origin = origin;
                published_kind(&i->published, table, l->kind);
                taken++;
        }
        return taken;
}

static void tell_unused(const struct error *e)
{
        log_warning("%s: this index is not used", e->message);
}

/* ---- the index that the manifest binds ---- */

static int choose_bound(struct image *i, const struct manifest *manifest, struct error *e)
{
        static const char *const annotations[] = { PUBLISHED_BINDING, SOCI_BINDING };
        const struct descriptor d = { .annotations = manifest->annotations };

        for (size_t k = 0; k < ELEMENTSOF(annotations); k++) {
                const char *text = descriptor_annotation(&d, annotations[k]);
                struct digest digest;
                int r;

                if (!text)
                        continue;
                r = digest_parse(text, &digest, e);
                if (r == 0)
                        r = load_index(i, i->source, &digest, &i->published, e);
                if (r == 0) {
                        take_tables(i, INDEX_FROM_MANIFEST);
                        return 0;
                }
                if (r != -EINVAL && r != -EBADMSG && r != -ENOENT)
                        return r;
                tell_unused(e);
        }
        return 0;
}

/* ---- an index beside the image ---- */

/* Where the store has which index this image is read by: no tag can be called that. NULL when out of memory, or for
 * an image that is in no registry. */
static char *record_name(const struct image *i)
{
        char hex[DIGEST_STRING_MAX];

        if (i->name.transport != TRANSPORT_REGISTRY)
                return NULL;
        return str_printf("%s/%s:index@%s-%s", i->name.host, i->name.repository,
                          digest_algorithm_name(i->digest.algorithm), digest_hex(&i->digest, hex));
}

static void record(struct image *i)
{
        _cleanup_free_ char *name = record_name(i);
        struct error e = ERROR_INIT;

        if (name && image_remember_tag(i, name, &i->published.digest, &e) < 0)
                log_warning("%s", e.message);
}

/* The index that this image was read by before. */
static bool choose_recorded(struct image *i)
{
        _cleanup_free_ char *name = record_name(i);
        struct error e = ERROR_INIT;
        struct digest digest;
        int64_t when;

        if (!name || store_ref_get(i->store, name, &digest, &when, NULL) < 0)
                return false;
        if (load_index(i, i->source, &digest, &i->published, &e) < 0) {
                log_info("%s: looking for another index", e.message);
                return false;
        }
        take_tables(i, INDEX_FROM_REFERRER);
        return true;
}

/* Whether candidate D of FORMAT is the image's. An artifact that names no subject came by way of its tag. */
static int try_referrer(struct image *i, struct source *source, const struct descriptor *d, struct error *e)
{
        _cleanup_(published_clear) struct published p = { 0 };
        char index[DIGEST_STRING_MAX], subject[DIGEST_STRING_MAX], image[DIGEST_STRING_MAX];
        int r = load_index(i, source, &d->digest, &p, e);

        if (r < 0)
                return r;
        if (p.subject.algorithm != DIGEST_NONE && !digest_equal(&p.subject, &i->digest))
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "index %s is of %s, not of %s",
                                 digest_format(&d->digest, index), digest_format(&p.subject, subject),
                                 digest_format(&i->digest, image));
        i->published = p;
        p = (struct published) { 0 };
        return 0;
}

/* The first usable index among what refers to the image: regfs's before SOCI's. Returns 0 with I->published set, or
 * -ENOENT. */
static int choose_among(struct image *i, struct source *source, const struct descriptor *items, size_t count)
{
        static const enum published_format order[] = { PUBLISHED_REGFS, PUBLISHED_SOCI };

        for (size_t f = 0; f < ELEMENTSOF(order); f++) {
                /* What was published last stands last. */
                for (size_t k = count; k-- > 0;) {
                        struct error e = ERROR_INIT;

                        if (published_format_of(items[k].artifact_type) != order[f])
                                continue;
                        if (try_referrer(i, source, &items[k], &e) == 0)
                                return 0;
                        tell_unused(&e);
                }
        }
        return -ENOENT;
}

static int find_referrer(struct image *i, struct source *source, deadline_t deadline, struct error *e)
{
        struct descriptor *items = NULL;
        size_t count = 0;
        int r = source_referrers(source, &i->digest, deadline, &items, &count, e);

        if (r < 0)
                return r;
        r = choose_among(i, source, items, count);
        descriptors_free(items, count);
        return r;
}

static void choose_referrer(struct image *i)
{
        struct error e = ERROR_INIT;
        int r;

        if (choose_recorded(i) || i->offline)
                return;
        r = find_referrer(i, i->source, deadline_in(MIN(i->timeout_ms, (uint64_t) REFERRERS_PATIENCE_MS)), &e);
        if (r == 0 && take_tables(i, INDEX_FROM_REFERRER) > 0)
                record(i);
        else if (r < 0 && r != -ENOENT)
                log_warning("%s: no published index is used", e.message);
}

/* ---- the index that the user names ---- */

/* REFERENCE is an index, or a list of them (the tag under which a registry without the referrers API keeps them). */
static int take_named(struct image *i, const struct located *l, struct error *e)
{
        _cleanup_document_ struct document document = { 0 };
        _cleanup_manifest_ struct manifest list = { 0 };
        struct error why = ERROR_INIT;
        int r = image_document(i, l->source, &l->digest, &document, e);

        if (r < 0)
                return r;
        if (manifest_parse(&document, l->text, &list, &why) == 0 && list.kind == MANIFEST_INDEX)
                return choose_among(i, l->source, list.manifests, list.manifest_count);
        return published_parse(&document, l->text, &i->published, e);
}

/* A layout that `regfs index -o` has written has no image that a reference could name: what it has of this one. */
static int find_in_layout(struct image *i, const char *directory, struct error *e)
{
        int r = layout_source_new(directory, NULL, &i->index_source, e);

        return r < 0 ? r : find_referrer(i, i->index_source, deadline_in(i->timeout_ms), e);
}

static int find_named(struct image *i, const struct regfs_options *o, struct error *e)
{
        _cleanup_(located_clear) struct located l = { 0 };
        _cleanup_reference_ struct reference ref = { 0 };
        int r = reference_parse(i->index_reference, &ref, e);

        if (r < 0)
                return r;
        if (ref.transport == TRANSPORT_OCI_LAYOUT && !ref.tag)
                return find_in_layout(i, ref.path, e);
        r = image_locate(i, i->index_reference, o, &l, e);
        if (r < 0)
                return r;
        r = l.document.body.data ? image_remember(i, &l.document, e) : 0;
        if (r == 0)
                r = take_named(i, &l, e);
        i->index_source = steal_ptr(l.source);
        return r;
}

static int choose_named(struct image *i, const struct regfs_options *o, struct error *e)
{
        int r = find_named(i, o, e);

        if (r == 0 && take_tables(i, INDEX_FROM_USER) == 0)
                r = -ENOENT;
        if (r == -ENOENT && e->kind == ERROR_NONE)
                return error_set(e, ERROR_NOT_FOUND, ENOENT, "--index=%s: no index of %s is there", i->index_reference,
                                 i->reference);
        return r < 0 ? error_prefix(e, "--index=%s", i->index_reference) : 0;
}

/* ---- all of it ---- */

static void choose_embedded(struct image *i)
{
        for (size_t k = 0; k < i->layer_count; k++) {
                struct image_layer *l = &i->layers[k];

                if (l->origin == INDEX_FROM_LAYER && embedded_kind(&l->descriptor, l->kind) == 0)
                        l->origin = INDEX_FROM_TABLE;
        }
}

/* Whether a layer would have to be read whole. */
static bool any_unknown(const struct image *i)
{
        for (size_t k = 0; k < i->layer_count; k++)
                if (is_first(i, k) && i->layers[k].origin == INDEX_FROM_LAYER &&
                    !is_known(i, &i->layers[k], KIND_PLAIN))
                        return true;
        return false;
}

/* Without the registry only what the stores have counts: a layer whose table was of no use has been read whole. */
static void settle_offline(struct image *i)
{
        for (size_t k = 0; k < i->layer_count; k++) {
                struct image_layer *l = &i->layers[k];

                if (l->origin != INDEX_FROM_LAYER && !is_known(i, l, l->kind) && is_known(i, l, KIND_PLAIN))
                        image_layer_set_plain(l);
        }
}

int image_choose_indexes(struct image *i, const struct manifest *manifest, const struct regfs_options *o,
                         struct error *e)
{
        int r = 0;

        for (size_t k = 0; k < i->layer_count; k++)
                image_layer_set_plain(&i->layers[k]);
        if (i->index_mode == INDEX_NAMED)
                r = choose_named(i, o, e);
        if (r == 0 && mode_uses_embedded(i))
                choose_embedded(i);
        if (r == 0 && i->published.format == PUBLISHED_NONE && mode_uses_bound(i))
                r = choose_bound(i, manifest, e);
        if (r == 0 && i->published.format == PUBLISHED_NONE && mode_uses_referrers(i) && any_unknown(i))
                choose_referrer(i);
        if (r == 0 && i->offline)
                settle_offline(i);
        return r;
}
