/* SPDX-License-Identifier: Apache-2.0 */
#include "conf.h"

#include <fcntl.h>
#include <string.h>

#include "grammar.h"
#include "regfs/io.h"
#include "regfs/log.h"
#include "regfs/text.h"
#include "regfs/toml.h"

#define CONF_MAX (4 * MIB)

static void registry_clear(struct registry *g)
{
        for (size_t i = 0; i < g->mirror_count; i++)
                free(g->mirrors[i].location);
        free(g->mirrors);
        free(g->location);
        free(g->prefix);
        free(g->file);
        *g = (struct registry) { 0 };
}

#define _cleanup_registry_ _cleanup_(registry_clear)

static void search_free(char **search, size_t count)
{
        for (size_t i = 0; i < count; i++)
                free(search[i]);
        free(search);
}

struct registries *registries_free(struct registries *r)
{
        if (!r)
                return NULL;
        for (size_t i = 0; i < r->count; i++)
                registry_clear(&r->items[i]);
        free(r->items);
        map_free(r->aliases, free);
        search_free(r->search, r->search_count);
        free(r->search_file);
        config_paths_clear(&r->paths);
        free(r);
        return NULL;
}

static int malformed(struct error *e, const char *key, const char *cause)
{
        return error_set(e, ERROR_BAD_DATA, EBADMSG, "%s: %s", key, cause);
}

/* *RET stays as it is when the key is absent. */
static int member_bool(const struct toml *table, const char *key, bool *ret, struct error *e)
{
        return toml_bool(toml_member(table, key), ret) == -EINVAL ? malformed(e, key, "not true or false") : 0;
}

/* *RET is borrowed; NULL when the key is absent or its text empty. */
static int member_text(const struct toml *table, const char *key, const char **ret, struct error *e)
{
        const struct toml *v = toml_member(table, key);
        const char *s = toml_text(v);

        if (v && !s)
                return malformed(e, key, "not a string");
        *ret = s && *s ? s : NULL;
        return 0;
}

/* A prefix or a location: no scheme; slashes at the end say nothing. *RET is NULL when the key is absent or empty. */
static int member_location(const struct toml *table, const char *key, char **ret, struct error *e)
{
        const char *s = NULL;
        size_t n;
        int k;

        k = member_text(table, key, &s, e);
        if (k < 0)
                return k;
        if (s && (str_after(s, "http://") || str_after(s, "https://")))
                return malformed(e, key, "begins with a scheme where host[:port][/path] is expected");
        n = s ? strlen(s) : 0;
        while (n > 0 && s[n - 1] == '/')
                n--;
        if (n == 0) {
                *ret = NULL;
                return 0;
        }
        *ret = strndup(s, n);
        return *ret ? 0 : error_oom(e);
}

static int read_pull_from_mirror(const struct toml *table, bool by_digest_only, struct registry_mirror *m,
                                 struct error *e)
{
        static const char key[] = "pull-from-mirror";
        const char *s = NULL;
        int k;

        k = member_text(table, key, &s, e);
        if (k < 0)
                return k;
        if (s && by_digest_only)
                return malformed(e, key, "cannot be combined with the registry's mirror-by-digest-only");
        if (s && strcmp(s, "all") != 0 && strcmp(s, "digest-only") != 0 && strcmp(s, "tag-only") != 0)
                return malformed(e, key, "neither all nor digest-only nor tag-only");
        m->pull_by_tag = !by_digest_only && !str_eq(s, "digest-only");
        m->pull_by_digest = !str_eq(s, "tag-only");
        return 0;
}

static int read_mirror(const struct toml *table, bool by_digest_only, struct registry_mirror *m, struct error *e)
{
        int k;

        if (toml_type(table) != TOML_TABLE)
                return malformed(e, "mirror", "not a table");
        k = member_location(table, "location", &m->location, e);
        if (k == 0 && !m->location)
                k = malformed(e, "location", "missing");
        if (k == 0)
                k = member_bool(table, "insecure", &m->insecure, e);
        if (k == 0)
                k = read_pull_from_mirror(table, by_digest_only, m, e);
        return k;
}

static int read_mirrors(const struct toml *table, struct registry *g, struct error *e)
{
        const struct toml *mirrors = toml_member(table, "mirror");
        bool by_digest_only = false;
        size_t allocated = 0;
        int k;

        k = member_bool(table, "mirror-by-digest-only", &by_digest_only, e);
        if (k < 0)
                return k;
        if (mirrors && toml_type(mirrors) != TOML_ARRAY)
                return malformed(e, "mirror", "not an array of tables");
        for (const struct toml *v = toml_first(mirrors); v; v = toml_next(v)) {
                if (array_reserve(g->mirrors, &allocated, g->mirror_count + 1) < 0)
                        return error_oom(e);
                g->mirrors[g->mirror_count] = (struct registry_mirror) { 0 };
                k = read_mirror(v, by_digest_only, &g->mirrors[g->mirror_count++], e);
                if (k < 0) {
                        error_prefix(e, "mirror %zu", g->mirror_count);
                        return k;
                }
        }
        return 0;
}

static int check_prefix(const char *prefix, struct error *e)
{
        if (!prefix)
                return malformed(e, "prefix", "missing, and so is location");
        if (strchr(prefix, '*') && (!str_after(prefix, "*.") || strpbrk(prefix + 1, "*/@:")))
                return malformed(e, "prefix", "a wildcard stands for subdomains only, as in *.example.com");
        return 0;
}

static int read_registry(const struct toml *table, const char *path, struct registry *ret, struct error *e)
{
        _cleanup_registry_ struct registry g = { 0 };
        int k;

        if (toml_type(table) != TOML_TABLE)
                return malformed(e, "registry", "not a table");
        if (toml_member(table, "pull-from-mirror"))
                return malformed(e, "pull-from-mirror", "belongs to a mirror");
        k = member_location(table, "prefix", &g.prefix, e);
        if (k == 0)
                k = member_location(table, "location", &g.location, e);
        if (k < 0)
                return k;
        if (!g.prefix && g.location) {
                g.prefix = strdup(g.location);
                if (!g.prefix)
                        return error_oom(e);
        }
        k = check_prefix(g.prefix, e);
        if (k == 0)
                k = member_bool(table, "insecure", &g.insecure, e);
        if (k == 0)
                k = member_bool(table, "blocked", &g.blocked, e);
        if (k == 0)
                k = read_mirrors(table, &g, e);
        if (k < 0)
                return k;
        g.file = strdup(path);
        if (!g.file)
                return error_oom(e);
        *ret = g;
        g = (struct registry) { 0 };
        return 0;
}

/* One file must not say two things about one place. */
static int check_conflict(const struct registries *r, const struct registry *g, struct error *e)
{
        const char *location = g->location ? g->location : g->prefix;

        for (size_t i = 0; i < r->count; i++) {
                const struct registry *other = &r->items[i];

                if (strcmp(other->file, g->file) != 0 ||
                    strcmp(other->location ? other->location : other->prefix, location) != 0)
                        continue;
                if (other->insecure != g->insecure)
                        return malformed(e, "insecure", "differs from another table with the same location");
                if (other->blocked != g->blocked)
                        return malformed(e, "blocked", "differs from another table with the same location");
        }
        return 0;
}

/* Takes over what is in *G, unless the file has a table with the same prefix already: the first one counts. */
static int add_registry(struct registries *r, struct registry *g, struct error *e)
{
        struct registry *place = NULL;
        int k;

        k = check_conflict(r, g, e);
        if (k < 0)
                return k;
        for (size_t i = 0; i < r->count && !place; i++)
                if (strcmp(r->items[i].prefix, g->prefix) == 0)
                        place = &r->items[i];
        if (place && strcmp(place->file, g->file) == 0) {
                log_warning("%s: prefix \"%s\" is there twice: the first table counts", g->file, g->prefix);
                return 0;
        }
        if (place) {
                registry_clear(place);
        } else {
                if (array_reserve(r->items, &r->allocated, r->count + 1) < 0)
                        return error_oom(e);
                place = &r->items[r->count++];
        }
        *place = *g;
        *g = (struct registry) { 0 };
        return 0;
}

static int read_registry_tables(struct registries *r, const struct toml *root, const char *path, struct error *e)
{
        const struct toml *tables = toml_member(root, "registry");
        size_t number = 0;

        if (tables && toml_type(tables) != TOML_ARRAY)
                return malformed(e, "registry", "not an array of tables; write [[registry]]");
        for (const struct toml *v = toml_first(tables); v; v = toml_next(v)) {
                _cleanup_registry_ struct registry g = { 0 };
                int k;

                number++;
                k = read_registry(v, path, &g, e);
                if (k == 0)
                        k = add_registry(r, &g, e);
                if (k < 0) {
                        error_prefix(e, "[[registry]] %zu", number);
                        return k;
                }
        }
        return 0;
}

static int add_search(const struct toml *v, char **search, struct error *e)
{
        const char *s = toml_text(v), *wrong;
        size_t n;

        if (!s)
                return malformed(e, "unqualified-search-registries", "an element is not a string");
        n = strlen(s);
        while (n > 0 && s[n - 1] == '/')
                n--;
        *search = strndup(s, n);
        if (!*search)
                return error_oom(e);
        wrong = grammar_check_host(*search);
        return wrong ? error_set(e, ERROR_BAD_DATA, EBADMSG, "unqualified-search-registries: \"%s\": %s", s, wrong) : 0;
}

static int read_search(struct registries *r, const struct toml *root, const char *path, struct error *e)
{
        const struct toml *list = toml_member(root, "unqualified-search-registries");
        char **search = NULL, *file;
        size_t count = 0, allocated = 0;
        int k = 0;

        if (!list)
                return 0;
        if (toml_type(list) != TOML_ARRAY)
                return malformed(e, "unqualified-search-registries", "not an array of strings");
        for (const struct toml *v = toml_first(list); v && k == 0; v = toml_next(v)) {
                if (array_reserve(search, &allocated, count + 1) < 0) {
                        k = error_oom(e);
                        break;
                }
                search[count] = NULL;
                k = add_search(v, &search[count++], e);
        }
        file = k == 0 ? strdup(path) : NULL;
        if (!file) {
                search_free(search, count);
                return k < 0 ? k : error_oom(e);
        }
        search_free(r->search, r->search_count);
        free(r->search_file);
        r->search = search;
        r->search_count = count;
        r->search_file = file;
        return 0;
}

static int read_mode(struct registries *r, const struct toml *root, struct error *e)
{
        const char *s = NULL;
        int k;

        k = member_text(root, "short-name-mode", &s, e);
        if (k < 0 || !s)
                return k;
        if (strcmp(s, "permissive") == 0)
                r->mode = SHORT_NAME_PERMISSIVE;
        else if (strcmp(s, "enforcing") == 0)
                r->mode = SHORT_NAME_ENFORCING;
        else if (strcmp(s, "disabled") == 0)
                r->mode = SHORT_NAME_DISABLED;
        else
                return malformed(e, "short-name-mode", "neither enforcing nor permissive nor disabled");
        return 0;
}

static bool has_tag_or_digest(const char *name)
{
        const char *slash = strrchr(name, '/');

        return strpbrk(slash ? slash : name, ":@");
}

/* One side of an alias: a registry's name without tag and digest. ALIAS is for the message. */
static int parse_alias_side(const char *alias, const char *s, struct reference *ret, struct error *e)
{
        struct error cause = ERROR_INIT;
        int k;

        if (has_tag_or_digest(s))
                return malformed(e, alias, "an alias has neither tag nor digest");
        k = reference_parse(s, ret, &cause);
        if (k == -ENOMEM)
                return error_oom(e);
        return k < 0 ? malformed(e, alias, cause.message) : 0;
}

/* NAME is short, VALUE full or empty. */
static int check_alias(const char *name, const char *value, struct error *e)
{
        _cleanup_reference_ struct reference from = { 0 }, to = { 0 };
        int k;

        k = parse_alias_side(name, name, &from, e);
        if (k == 0 && *value)
                k = parse_alias_side(name, value, &to, e);
        if (k < 0)
                return k;
        if (from.transport != TRANSPORT_REGISTRY || from.host)
                return malformed(e, name, "an alias is a name without a registry");
        if (*value && !to.host)
                return malformed(e, name, "an alias stands for a name with its registry");
        return 0;
}

static int read_aliases(struct registries *r, const struct toml *root, struct error *e)
{
        const struct toml *table = toml_member(root, "aliases");
        int k;

        if (table && toml_type(table) != TOML_TABLE)
                return malformed(e, "aliases", "not a table");
        for (const struct toml *v = toml_first(table); v; v = toml_next(v)) {
                const char *name = toml_name(v), *text = toml_text(v);
                _cleanup_free_ char *value = NULL;
                void *old = NULL;

                k = text ? check_alias(name, text, e) : malformed(e, name, "not a string");
                if (k < 0) {
                        error_prefix(e, "[aliases]");
                        return k;
                }
                value = strdup(text);
                if (!value || map_put(r->aliases, name, strlen(name), value, &old) < 0)
                        return error_oom(e);
                value = NULL;
                free(old);
        }
        return 0;
}

static int read_root(struct registries *r, const struct toml *root, const char *path, struct error *e)
{
        int k;

        if (toml_member(root, "registries"))
                return malformed(e, "registries",
                                 "version 1 of the format; regfs reads version 2 of containers-registries.conf(5)");
        k = read_registry_tables(r, root, path, e);
        if (k == 0)
                k = read_search(r, root, path, e);
        if (k == 0)
                k = read_mode(r, root, e);
        if (k == 0)
                k = read_aliases(r, root, e);
        return k;
}

int conf_read(struct registries *r, const char *path, struct error *e)
{
        _cleanup_(toml_free_ptr) struct toml *root = NULL;
        _cleanup_buf_ struct buf b = { 0 };
        int k;

        k = file_read(AT_FDCWD, path, CONF_MAX, &b, e);
        if (k < 0)
                return k;
        k = toml_parse(b.data ? b.data : "", b.len, &root, e);
        if (k == 0)
                k = read_root(r, root, path, e);
        if (k < 0)
                error_prefix(e, "%s", path);
        return k;
}

int conf_read_directory(struct registries *r, const char *directory, struct error *e)
{
        _cleanup_names_ struct names n = { 0 };
        struct error cause = ERROR_INIT;
        int k;

        k = names_read(directory, &n, &cause);
        if (k == -ENOENT || k == -ENOTDIR)
                return 0;
        if (k < 0)
                return error_set(e, cause.kind, cause.code, "%s", cause.message);
        for (size_t i = 0; i < n.count; i++) {
                _cleanup_free_ char *path = NULL;

                if (!str_ends_with(n.items[i], ".conf"))
                        continue;
                path = str_printf("%s/%s", directory, n.items[i]);
                if (!path)
                        return error_oom(e);
                k = conf_read(r, path, &cause);
                /* -ENOENT: gone since the directory was read, or a link to nowhere. */
                if (k < 0 && k != -ENOENT)
                        return error_set(e, cause.kind, cause.code, "%s", cause.message);
        }
        return 0;
}
