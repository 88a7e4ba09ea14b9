/* SPDX-License-Identifier: Apache-2.0 */

/* Listing referrers (distribution-spec "Listing Referrers"): by the API, page by page, or from the index at the
 * fallback tag where a registry does not have it. */

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "../blob/index_text.h"
#include "client_internal.h"
#include "regfs/log.h"
#include "regfs/manifest.h"

#define PAGES_MAX 256

struct listing {
        struct registry_source *source;
        size_t endpoint; /* the one that has served the image: the only one that is asked */
        struct descriptor *items;
        size_t count, allocated;
};

/* ---- one page ---- */

static bool is_listed(const struct listing *l, const struct digest *digest)
{
        for (size_t k = 0; k < l->count; k++)
                if (digest_equal(&l->items[k].digest, digest))
                        return true;
        return false;
}

/* Takes over what INDEX lists, each manifest once. */
static int take_entries(struct listing *l, struct manifest *index, struct error *e)
{
        for (size_t k = 0; k < index->manifest_count && l->count < REFERRERS_MAX; k++) {
                if (is_listed(l, &index->manifests[k].digest))
                        continue;
                if (array_reserve(l->items, &l->allocated, l->count + 1) < 0)
                        return error_oom(e);
                l->items[l->count++] = index->manifests[k];
                index->manifests[k] = (struct descriptor) { 0 };
        }
        return 0;
}

/* Answers that say: there is no such thing here. */
static bool is_unknown_here(unsigned status)
{
        return status == 400 || status == 404 || status == 405 || status == 501;
}

/* Asks for an index and takes what it lists. -ENOENT: the registry does not have it, or does not know what it is. */
static int get_page(struct listing *l, struct exchange *x, deadline_t deadline, struct error *e)
{
        _cleanup_document_ struct document document = { 0 };
        _cleanup_manifest_ struct manifest index = { 0 };
        const char *name = l->source->source.name, *type;
        int r;

        x->source = l->source;
        x->accept = INDEX_TYPE;
        x->max_body = MANIFEST_MAX;
        r = exchange_read(x, deadline, &document.body, e);
        if (r < 0 && is_unknown_here(x->status))
                return error_set(e, ERROR_NOT_FOUND, ENOENT, "%s: it does not have %s", name, x->path);
        if (r < 0)
                return error_prefix(e, "%s: referrers", name);
        type = transfer_header(x->transfer, "Content-Type", 0);
        document.media_type = strndup(type ? type : "", type ? strcspn(type, "; \t") : 0);
        if (!document.media_type)
                return error_oom(e);
        r = manifest_parse(&document, x->path, &index, e);
        if (r == 0 && index.kind != MANIFEST_INDEX)
                r = error_set(e, ERROR_BAD_DATA, EBADMSG, "%s: the answer is an image's manifest, no index", x->path);
        return r < 0 ? error_prefix(e, "%s: referrers", name) : take_entries(l, &index, e);
}

/* ---- paging ---- */

/* Whether the parameters of a link, up to END, say rel="next": RFC 8288, section 3. */
static bool is_next(const char *parameters, const char *end)
{
        for (const char *p = parameters; p < end; p = memchr(p, ';', (size_t) (end - p)) ?: end) {
                size_t n;

                p += strspn(p, "; \t");
                if (strncasecmp(p, "rel=", 4) != 0)
                        continue;
                p += 4;
                p += *p == '"';
                n = strcspn(p, "\";, \t");
                if (n == 4 && strncasecmp(p, "next", 4) == 0)
                        return true;
        }
        return false;
}

char *answer_next_link(const struct transfer *answer)
{
        const char *link;

        for (unsigned k = 0; (link = transfer_header(answer, "Link", k)); k++) {
                while ((link = strchr(link, '<'))) {
                        const char *close = strchr(link, '>'), *end;

                        if (!close)
                                break;
                        end = strchr(close, '<');
                        if (!end)
                                end = close + strlen(close);
                        if (is_next(close + 1, end))
                                return strndup(link + 1, (size_t) (close - link - 1));
                        link = end;
                }
        }
        return NULL;
}

/* The path of the next page below the repository, or NULL: there is none, or it is not for us to ask there. With our
 * credentials, only the registry's own pages are asked for. */
static int next_path(const struct exchange *x, char **ret, struct error *e)
{
        const struct endpoint *endpoint = &x->source->endpoints.items[x->endpoint];
        _cleanup_free_ char *link = answer_next_link(x->transfer), *target = NULL, *root = NULL;
        struct error cause = ERROR_INIT;
        const char *path;
        char masked[400];

        *ret = NULL;
        if (!link)
                return 0;
        root = str_printf("/v2/%s/", endpoint->repository);
        if (!root)
                return error_oom(e);
        if (http_join_url(x->url, link, &target, &cause) < 0) {
                log_warning("%s: the link to more referrers is ignored: %s", x->source->source.name, cause.message);
                return cause.code == ENOMEM ? error_oom(e) : 0;
        }
        path = strstr(target, "://");
        path = path ? strchr(path + 3, '/') : NULL;
        path = path ? str_after(path, root) : NULL;
        if (x->elsewhere || !http_same_origin(x->url, target) || !path || !*path) {
                log_warning("%s: the link to more referrers is ignored, since it leads to another place: %s",
                            x->source->source.name, http_mask_url(target, masked, sizeof(masked)));
                return 0;
        }
        *ret = strdup(path);
        return *ret ? 0 : error_oom(e);
}

/* Who has a mirror for an image need not reach the registry, and a page that follows is its own endpoint's: the link
 * means nothing to another one. */
static void stay(struct exchange *x, const struct listing *l)
{
        x->endpoint = l->endpoint;
        x->given_up = ~((uint64_t) 1 << l->endpoint);
}

static int list_pages(struct listing *l, const char *first, deadline_t deadline, struct error *e)
{
        _cleanup_free_ char *path = strdup(first);

        if (!path)
                return error_oom(e);
        for (unsigned page = 0; page < PAGES_MAX && l->count < REFERRERS_MAX; page++) {
                _cleanup_exchange_ struct exchange x = EXCHANGE_INIT;
                char *next = NULL;
                int r;

                x.kind = REQUEST_OTHER;
                x.path = path;
                stay(&x, l);
                r = get_page(l, &x, deadline, e);
                /* Only the first page says whether there is such a list. */
                if (r == -ENOENT && page > 0)
                        return error_set(e, ERROR_BAD_DATA, EBADMSG,
                                         "%s: referrers: page %u, which the one before it announced, is not there",
                                         l->source->source.name, page + 1);
                if (r == 0)
                        r = next_path(&x, &next, e);
                if (r < 0 || !next || strcmp(next, path) == 0) {
                        free(next);
                        return r;
                }
                free(path);
                path = next;
        }
        log_debug("%s: the list of referrers is cut after %zu", l->source->source.name, l->count);
        return 0;
}

/* ---- the fallback tag ---- */

static int list_fallback(struct listing *l, const struct digest *subject, deadline_t deadline, struct error *e)
{
        _cleanup_exchange_ struct exchange x = EXCHANGE_INIT;
        char tag[REFERRERS_TAG_MAX], path[sizeof("manifests/") + REFERRERS_TAG_MAX];
        int r;

        if (!l->source->endpoints.items[l->endpoint].pull_by_tag)
                return 0;
        (void) snprintf(path, sizeof(path), "manifests/%s", referrers_tag(subject, tag));
        stay(&x, l);
        x.kind = REQUEST_MANIFEST;
        x.path = path;
        x.by_tag = true;
        r = get_page(l, &x, deadline, e);
        return r == -ENOENT ? 0 : r;
}

int registry_referrers(struct source *source, const struct digest *subject, deadline_t deadline,
                       struct descriptor **ret, size_t *ret_count, struct error *e)
{
        struct listing l = { .source = (struct registry_source *) source };
        char digest[DIGEST_STRING_MAX], path[sizeof("referrers/") + DIGEST_STRING_MAX];
        struct error own = ERROR_INIT;
        int r;

        if (!e)
                e = &own;
        l.endpoint = atomic_load(&l.source->current);
        (void) snprintf(path, sizeof(path), "referrers/%s", digest_format(subject, digest));
        r = list_pages(&l, path, deadline, e);
        if (r == -ENOENT)
                r = list_fallback(&l, subject, deadline, e);
        if (r < 0) {
                descriptors_free(l.items, l.count);
                return r;
        }
        *ret = l.items;
        *ret_count = l.count;
        return 0;
}
