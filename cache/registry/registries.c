/* SPDX-License-Identifier: Apache-2.0 */
#include "regfs/registries.h"

#include <string.h>
#include <strings.h>

#include "certs.h"
#include "conf.h"
#include "grammar.h"
#include "prefix.h"
#include "regfs/text.h"

#define DOCKER_HUB "docker.io"
#define DOCKER_HUB_API "registry-1.docker.io"

/* The drop-ins of one root, which may be NULL. */
static int read_drop_ins(struct registries *r, const char *root, struct error *e)
{
        _cleanup_free_ char *directory = NULL;

        if (!root)
                return 0;
        directory = str_printf("%s/containers/registries.conf.d", root);
        return directory ? conf_read_directory(r, directory, e) : error_oom(e);
}

/* A user's own main file hides everything of the system, its drop-ins too. */
static int read_default_files(struct registries *r, struct error *e)
{
        _cleanup_free_ char *found = NULL;
        const char *path = getenv("CONTAINERS_REGISTRIES_CONF");
        bool is_user = false;
        int k = 0;

        if (!path || !*path) {
                k = config_paths_find(&r->paths, "containers/registries.conf", &found, &is_user, e);
                if (k < 0)
                        return k;
                path = found;
        }
        if (path)
                k = conf_read(r, path, e);
        if (k == 0 && !is_user)
                k = read_drop_ins(r, r->paths.system, e);
        if (k == 0)
                k = read_drop_ins(r, r->paths.user, e);
        return k;
}

int registries_load_at(const struct config_paths *paths, const struct registries_options *options,
                       struct registries **ret, struct error *e)
{
        _cleanup_(registries_free_ptr) struct registries *r = NULL;
        int k;

        r = calloc(1, sizeof(*r));
        if (!r)
                return error_oom(e);
        r->plain_http = options->plain_http;
        r->tls_verify = options->tls_verify;
        r->aliases = map_new();
        if (!r->aliases || config_paths_copy(paths, &r->paths) < 0)
                return error_oom(e);
        k = options->conf ? conf_read(r, options->conf, e) : read_default_files(r, e);
        if (k < 0)
                return k;
        *ret = steal_ptr(r);
        return 0;
}

int registries_load(const struct registries_options *options, struct registries **ret, struct error *e)
{
        _cleanup_config_paths_ struct config_paths paths = { 0 };

        if (config_paths_default(&paths) < 0)
                return error_oom(e);
        return registries_load_at(&paths, options, ret, e);
}

/* Candidates for one short name, owned until they are handed over. */
struct candidates {
        struct reference *items;
        size_t count;
};

static void candidates_clear(struct candidates *c)
{
        for (size_t i = 0; i < c->count; i++)
                reference_clear(&c->items[i]);
        free(c->items);
}

/* NAME at HOST becomes one more candidate; there is room for it. */
static int add_candidate(struct candidates *c, const struct reference *name, const char *host, struct error *e)
{
        struct reference *item = &c->items[c->count];
        int k;

        if (reference_copy(name, item) < 0)
                return error_oom(e);
        c->count++;
        k = host ? reference_set_host(item, host) : 0;
        if (k == -ENOMEM)
                return error_oom(e);
        if (k < 0)
                return error_set(e, ERROR_USAGE, EINVAL, "\"%s\" cannot be a name at the registry %s: it is too long",
                                 name->repository, host);
        return 0;
}

/* The alias's registry and repository with NAME's tag and digest. */
static int add_alias(struct candidates *c, const struct reference *name, const char *alias, struct error *e)
{
        _cleanup_reference_ struct reference target = { 0 };
        char *tag = NULL;
        int k;

        k = reference_parse(alias, &target, e);
        if (k < 0)
                return k;
        if (name->tag && !(tag = strdup(name->tag)))
                return error_oom(e);
        free(target.tag);
        target.tag = tag;
        target.has_digest = name->has_digest;
        target.digest = name->digest;
        return add_candidate(c, &target, NULL, e);
}

static int refuse_empty_search(const struct registries *r, const struct reference *name, struct error *e)
{
        return error_set(e, ERROR_USAGE, EINVAL,
                         "\"%s\" is a short name without an alias, and unqualified-search-registries in %s is empty: "
                         "write the name with its registry",
                         name->repository, r->search_file);
}

static int refuse_ambiguous(const struct registries *r, const struct reference *name, struct error *e)
{
        return error_set(e, ERROR_USAGE, EINVAL,
                         "\"%s\" is a short name, short-name-mode is enforcing and unqualified-search-registries in %s "
                         "has %zu entries: write the name with its registry",
                         name->repository, r->search_file, r->search_count);
}

static int resolve_short(const struct registries *r, const struct reference *name, struct candidates *c,
                         struct error *e)
{
        const char *alias = map_get(r->aliases, name->repository, strlen(name->repository));
        int k = 0;

        if (alias && *alias)
                return add_alias(c, name, alias, e);
        if (!r->search_file)
                return add_candidate(c, name, DOCKER_HUB, e);
        if (r->search_count == 0)
                return refuse_empty_search(r, name, e);
        if (r->search_count > 1 && r->mode == SHORT_NAME_ENFORCING)
                return refuse_ambiguous(r, name, e);
        for (size_t i = 0; i < r->search_count && k == 0; i++)
                k = add_candidate(c, name, r->search[i], e);
        return k;
}

int registries_resolve(const struct registries *r, const struct reference *name, struct reference **ret,
                       size_t *ret_count, struct error *e)
{
        _cleanup_(candidates_clear) struct candidates c = { 0 };
        bool is_short = name->transport == TRANSPORT_REGISTRY && !name->host;
        int k;

        c.items = calloc(MAX(r->search_count, (size_t) 1), sizeof(*c.items));
        if (!c.items)
                return error_oom(e);
        k = is_short ? resolve_short(r, name, &c, e) : add_candidate(&c, name, NULL, e);
        if (k < 0)
                return k;
        *ret = c.items;
        *ret_count = c.count;
        c = (struct candidates) { 0 };
        return 0;
}

static void endpoint_clear(struct endpoint *p)
{
        free(p->host);
        free(p->repository);
        free(p->credential_host);
        free(p->credential_repository);
        free(p->ca_pem);
        free(p->client_cert);
        free(p->client_key);
        *p = (struct endpoint) { 0 };
}

void endpoints_clear(struct endpoints *e)
{
        for (size_t i = 0; i < e->count; i++)
                endpoint_clear(&e->items[i]);
        free(e->items);
        *e = (struct endpoints) { 0 };
}

/* A full reference and the table that speaks about it. */
struct lookup {
        const struct registries *registries;
        const struct reference *ref;
        struct image_name name;
        const struct registry *registry; /* or NULL */
        size_t matched;                  /* bytes of the name that its prefix stands for */
};

static void lookup_clear(struct lookup *l)
{
        image_name_clear(&l->name);
}

static void find_registry(struct lookup *l)
{
        for (size_t i = 0; i < l->registries->count; i++) {
                const struct registry *g = &l->registries->items[i];
                size_t matched = prefix_match(g->prefix, &l->name);

                if (matched == 0 || (l->registry && !prefix_is_more_specific(g->prefix, l->registry->prefix)))
                        continue;
                l->registry = g;
                l->matched = matched;
        }
}

/* A location may repeat the tag or digest of its prefix, but not name another image. */
static int cut_suffix(char *path, const struct image_name *n, struct error *e)
{
        char *suffix = strpbrk(path, ":@");

        if (!suffix)
                return 0;
        if (strcmp(suffix, n->suffix) != 0)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "a location with another tag or digest is not supported");
        *suffix = '\0';
        return 0;
}

/* LOCATION in the place of the first MATCHED bytes of N. */
static int rewrite(const char *location, const struct image_name *n, size_t matched, struct reference *ret,
                   struct error *e)
{
        _cleanup_reference_ struct reference where = { .transport = TRANSPORT_REGISTRY };
        _cleanup_free_ char *host = NULL, *path = NULL;
        const char *rest = n->name + matched, *wrong;
        size_t host_length = strcspn(location, "/");
        int k;

        host = strndup(location, host_length);
        path = strdup(location[host_length] ? location + host_length + 1 : "");
        if (!host || !path)
                return error_oom(e);
        k = cut_suffix(path, n, e);
        if (k < 0)
                return k;
        if (*rest == '/' && !*path)
                rest++;
        where.repository = str_printf("%s%s", path, rest);
        if (!where.repository)
                return error_oom(e);
        wrong = grammar_check_host(host);
        if (!wrong)
                wrong = grammar_check_repository(where.repository);
        if (wrong)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "%s", wrong);
        k = reference_set_host(&where, host);
        if (k < 0)
                return error_errno(e, -k, "%s", where.repository);
        *ret = where;
        where = (struct reference) { 0 };
        return 0;
}

/* Fills in what the host and the repository decide. P is cleared by its owner, also after a failure. */
static int fill_endpoint(const struct registries *r, const struct reference *where, struct endpoint *p, struct error *e)
{
        bool hub = strcmp(where->host, DOCKER_HUB) == 0;

        p->host = strdup(hub ? DOCKER_HUB_API : where->host);
        p->repository = strdup(where->repository);
        p->credential_host = strdup(where->host);
        p->credential_repository = strdup(where->repository);
        if (!p->host || !p->repository || !p->credential_host || !p->credential_repository)
                return error_oom(e);
        return certs_read(&r->paths, where->host, p, e);
}

/* LOCATION NULL: where the reference itself says. */
static int locate_endpoint(const struct lookup *l, const char *location, struct endpoint *p, struct error *e)
{
        _cleanup_reference_ struct reference where = { 0 };
        int k;

        if (!location)
                return fill_endpoint(l->registries, l->ref, p, e);
        k = rewrite(location, &l->name, l->matched, &where, e);
        if (k < 0) {
                error_prefix(e, "%s: location \"%s\" for %s", l->registry->file, location, l->name.name);
                return k;
        }
        return fill_endpoint(l->registries, &where, p, e);
}

/* The command line speaks about the registries that it names, and about where their images come from in the end; other
 * mirrors are the file's affair. */
static void apply_options(const struct lookup *l, struct endpoint *p)
{
        if (p->is_mirror && strcasecmp(p->credential_host, l->ref->host) != 0)
                return;
        if (l->registries->tls_verify >= 0)
                p->insecure = l->registries->tls_verify == 0;
        if (l->registries->plain_http)
                p->plain_http = true;
}

/* *P, the list's next place, has its flags already. */
static int add_endpoint(const struct lookup *l, const char *location, struct endpoints *list, struct error *e)
{
        struct endpoint *p = &list->items[list->count++];
        int k;

        k = locate_endpoint(l, location, p, e);
        if (k == 0)
                apply_options(l, p);
        return k;
}

static int add_mirror(const struct lookup *l, const struct registry_mirror *m, struct endpoints *list, struct error *e)
{
        list->items[list->count] = (struct endpoint) {
                .is_mirror = true,
                .insecure = m->insecure,
                .pull_by_tag = m->pull_by_tag,
                .pull_by_digest = m->pull_by_digest,
        };
        return add_endpoint(l, m->location, list, e);
}

static int add_primary(const struct lookup *l, struct endpoints *list, struct error *e)
{
        list->items[list->count] = (struct endpoint) {
                .insecure = l->registry && l->registry->insecure,
                .pull_by_tag = true,
                .pull_by_digest = true,
        };
        return add_endpoint(l, l->registry ? l->registry->location : NULL, list, e);
}

static int list_endpoints(const struct lookup *l, struct endpoints *ret, struct error *e)
{
        _cleanup_endpoints_ struct endpoints list = { 0 };
        size_t mirrors = l->registry ? l->registry->mirror_count : 0;
        int k = 0;

        list.items = calloc(mirrors + 1, sizeof(*list.items));
        if (!list.items)
                return error_oom(e);
        for (size_t i = 0; i < mirrors && k == 0; i++)
                k = add_mirror(l, &l->registry->mirrors[i], &list, e);
        if (k == 0)
                k = add_primary(l, &list, e);
        if (k < 0)
                return k;
        *ret = list;
        list = (struct endpoints) { 0 };
        return 0;
}

int registries_endpoints(const struct registries *r, const struct reference *ref, struct endpoints *ret,
                         struct error *e)
{
        _cleanup_(lookup_clear) struct lookup l = { .registries = r, .ref = ref };

        if (ref->transport != TRANSPORT_REGISTRY || !ref->host)
                return error_set(e, ERROR_OTHER, EINVAL, "only a name with its registry has endpoints");
        if (image_name_of(ref, &l.name) < 0)
                return error_oom(e);
        find_registry(&l);
        if (l.registry && l.registry->blocked)
                return error_set(e, ERROR_DENIED, EACCES, "%s%s: \"%s\" is blocked in %s", l.name.name, l.name.suffix,
                                 l.registry->prefix, l.registry->file);
        return list_endpoints(&l, ret, e);
}
