/* SPDX-License-Identifier: Apache-2.0 */
#include "policy.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "prefix.h"
#include "regfs/io.h"
#include "regfs/json.h"
#include "regfs/map.h"
#include "regfs/text.h"

#define POLICY_MAX (4 * MIB)
#define ACCEPT_ANYTHING "insecureAcceptAnything"

/* An image as the scopes of its transport see it. */
struct subject {
        const char *transport;
        struct image_name name; /* docker: only */
        char *directory;        /* oci: only: absolute, without symbolic links */
        char *tagged_directory; /* oci: only: "directory:tag", or NULL */
        char *text;             /* the reference, for messages */
};

static void subject_clear(struct subject *s)
{
        image_name_clear(&s->name);
        free(s->directory);
        free(s->tagged_directory);
        free(s->text);
}

/* True when SCOPE, which is not empty, speaks about the subject. */
typedef bool scope_match_fn(const char *scope, const struct subject *s);
/* NULL, or why no image can have the scope. */
typedef const char *scope_check_fn(const char *scope);

static bool match_docker(const char *scope, const struct subject *s)
{
        return prefix_match(scope, &s->name) > 0;
}

static const char *check_docker(const char *scope)
{
        if (strchr(scope, '*') && (!str_after(scope, "*.") || strpbrk(scope + 1, "*/@:")))
                return "a wildcard stands for subdomains only, as in *.example.com";
        return NULL;
}

static bool match_oci(const char *scope, const struct subject *s)
{
        const char *rest = str_after(s->directory, scope);

        return str_eq(scope, s->tagged_directory) || (rest && (!*rest || *rest == '/'));
}

static const char *check_oci(const char *scope)
{
        if (scope[0] != '/')
                return "the directory is not absolute";
        if (strcmp(scope, "/") == 0)
                return "the scope of all directories is the empty one";
        return NULL;
}

static bool match_archive(const char *scope _unused_, const struct subject *s _unused_)
{
        return false;
}

static const char *check_archive(const char *scope _unused_)
{
        return "this transport has the empty scope only";
}

static const struct transport_scopes {
        const char *name;
        scope_match_fn *match;
        scope_check_fn *check;
} transports[] = {
        [TRANSPORT_REGISTRY] = { "docker", match_docker, check_docker },
        [TRANSPORT_OCI_LAYOUT] = { "oci", match_oci, check_oci },
        [TRANSPORT_DOCKER_ARCHIVE] = { "docker-archive", match_archive, check_archive },
};

static const struct transport_scopes *find_transport(const char *name)
{
        for (size_t i = 0; i < ELEMENTSOF(transports); i++)
                if (strcmp(transports[i].name, name) == 0)
                        return &transports[i];
        return NULL;
}

static int malformed(struct error *e, const char *where, const char *cause)
{
        return error_set(e, ERROR_BAD_DATA, EBADMSG, "%s: %s", where, cause);
}

/* A member given twice could hide a prohibition from one of two readers. */
static int check_unique(const struct json *object, struct error *e)
{
        struct map *seen = map_new();
        int k = seen ? 0 : error_oom(e);

        for (const struct json *v = json_first(object); v && k == 0; v = json_next(v)) {
                const char *name = json_name(v);
                void *old = NULL;

                if (map_put(seen, name, strlen(name), seen, &old) < 0)
                        k = error_oom(e);
                else if (old)
                        k = malformed(e, name, "is there twice");
        }
        map_free(seen, NULL);
        return k;
}

/* The type of one requirement is a text; accepting and rejecting take no arguments. */
static int check_requirement(const struct json *requirement, const char *where, struct error *e)
{
        const char *type = json_member_text(requirement, "type");
        int k;

        if (!type)
                return malformed(e, where, "a requirement is no object with a type");
        k = check_unique(requirement, e);
        if (k < 0) {
                error_prefix(e, "%s", where);
                return k;
        }
        if ((strcmp(type, ACCEPT_ANYTHING) == 0 || strcmp(type, "reject") == 0) && json_next(json_first(requirement)))
                return malformed(e, where, "a requirement has a member that its type does not know");
        return 0;
}

static int check_requirements(const struct json *list, const char *where, struct error *e)
{
        if (!json_is_array(list) || !json_first(list))
                return malformed(e, where, "requirements are an array with at least one element");
        for (const struct json *v = json_first(list); v; v = json_next(v)) {
                int k = check_requirement(v, where, e);

                if (k < 0)
                        return k;
        }
        return 0;
}

static int check_scopes(const struct json *scopes, const char *name, struct error *e)
{
        const struct transport_scopes *t = find_transport(name);
        int k;

        if (!json_is_object(scopes))
                return malformed(e, name, "not an object");
        k = check_unique(scopes, e);
        for (const struct json *v = json_first(scopes); v && k == 0; v = json_next(v)) {
                const char *scope = json_name(v);
                const char *wrong = t && *scope ? t->check(scope) : NULL;

                k = wrong ? malformed(e, scope, wrong) : check_requirements(v, *scope ? scope : "\"\"", e);
        }
        if (k < 0)
                error_prefix(e, "transport %s", name);
        return k;
}

/* The whole file must make sense before any of it is believed. */
static int check_policy(const struct json *root, struct error *e)
{
        int k;

        if (!json_is_object(root))
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "not a JSON object");
        k = check_unique(root, e);
        if (k < 0)
                return k;
        for (const struct json *v = json_first(root); v; v = json_next(v))
                if (strcmp(json_name(v), "default") != 0 && strcmp(json_name(v), "transports") != 0)
                        return malformed(e, json_name(v), "unknown member");
        k = check_requirements(json_member(root, "default"), "default", e);
        if (k < 0)
                return k;

        root = json_member(root, "transports");
        if (root && !json_is_object(root))
                return malformed(e, "transports", "not an object");
        k = check_unique(root, e);
        for (const struct json *v = json_first(root); v && k == 0; v = json_next(v))
                k = check_scopes(v, json_name(v), e);
        return k;
}

/* The most specific scope that matches; the transport's default "" when none does; NULL: the global default counts. */
static const struct json *find_scope(const struct json *scopes, const struct subject *s)
{
        const struct transport_scopes *t = find_transport(s->transport);
        const struct json *best = NULL;

        for (const struct json *v = json_first(scopes); v; v = json_next(v)) {
                const char *scope = json_name(v);

                if (*scope && !t->match(scope, s))
                        continue;
                if (!best || prefix_is_more_specific(scope, json_name(best)))
                        best = v;
        }
        return best;
}

/* The first requirement that is more than acceptance, or NULL. */
static const char *find_demand(const struct json *requirements)
{
        for (const struct json *v = json_first(requirements); v; v = json_next(v)) {
                const char *type = json_member_text(v, "type");

                if (strcmp(type, ACCEPT_ANYTHING) != 0)
                        return type;
        }
        return NULL;
}

static int refuse(const char *path, const struct subject *s, const struct json *scope, const char *demand,
                  struct error *e)
{
        _cleanup_free_ char *rule = NULL;

        if (!scope)
                rule = strdup("the default");
        else if (!*json_name(scope))
                rule = str_printf("the default of transport %s", s->transport);
        else
                rule = str_printf("scope \"%s\" of transport %s", json_name(scope), s->transport);
        if (!rule)
                return error_oom(e);
        if (strcmp(demand, "reject") == 0)
                return error_set(e, ERROR_DENIED, EACCES, "%s: %s in %s is \"reject\"", s->text, rule, path);
        return error_set(e, ERROR_DENIED, EACCES, "%s: %s in %s demands \"%s\", and regfs verifies no signatures",
                         s->text, rule, path, demand);
}

static int decide(const char *path, const struct json *root, const struct subject *s, struct error *e)
{
        const struct json *scope = find_scope(json_member(json_member(root, "transports"), s->transport), s);
        const char *demand = find_demand(scope ? scope : json_member(root, "default"));

        return demand ? refuse(path, s, scope, demand, e) : 0;
}

static int describe(const struct reference *ref, struct subject *s, struct error *e)
{
        s->transport = transports[ref->transport].name;
        s->text = reference_format(ref);
        if (!s->text)
                return error_oom(e);
        if (ref->transport == TRANSPORT_REGISTRY) {
                if (!ref->host)
                        return error_set(e, ERROR_OTHER, EINVAL, "%s: a policy speaks of full names only", s->text);
                return image_name_of(ref, &s->name) < 0 ? error_oom(e) : 0;
        }
        if (ref->transport == TRANSPORT_OCI_LAYOUT) {
                s->directory = realpath(ref->path, NULL);
                if (!s->directory)
                        return error_errno(e, errno, "%s", ref->path);
                if (ref->tag && !(s->tagged_directory = str_printf("%s:%s", s->directory, ref->tag)))
                        return error_oom(e);
        }
        return 0;
}

int policy_check_text(const char *path, const char *text, size_t n, const struct reference *ref, struct error *e)
{
        _cleanup_(subject_clear) struct subject s = { 0 };
        _cleanup_(json_free_ptr) struct json *root = NULL;
        int k;

        k = json_parse(text, n, &root, e);
        if (k == 0)
                k = check_policy(root, e);
        if (k < 0) {
                error_prefix(e, "%s", path);
                return k;
        }
        k = describe(ref, &s, e);
        return k < 0 ? k : decide(path, root, &s, e);
}

int policy_check_at(const struct config_paths *paths, const struct reference *ref, struct error *e)
{
        _cleanup_buf_ struct buf b = { 0 };
        _cleanup_free_ char *path = NULL;
        int k;

        k = config_paths_find(paths, "containers/policy.json", &path, NULL, e);
        if (k < 0 || !path)
                return k;
        k = file_read(AT_FDCWD, path, POLICY_MAX, &b, e);
        return k < 0 ? k : policy_check_text(path, b.data ? b.data : "", b.len, ref, e);
}

int policy_check(const struct reference *ref, struct error *e)
{
        _cleanup_config_paths_ struct config_paths paths = { 0 };

        if (config_paths_default(&paths) < 0)
                return error_oom(e);
        return policy_check_at(&paths, ref, e);
}
