/* SPDX-License-Identifier: Apache-2.0 */
#include "regfs/reference.h"

#include <limits.h>
#include <string.h>
#include <strings.h>

#include "grammar.h"
#include "regfs/text.h"

#define DOCKER_HUB "docker.io"
#define DOCKER_HUB_NAMESPACE "library/"
#define DEFAULT_TAG "latest"

#define REGISTRY_PREFIX "docker://"
#define LAYOUT_PREFIX "oci:"
#define ARCHIVE_PREFIX "docker-archive:"

/* Transports of other tools. Their prefix would else be taken for the name of a repository. */
static const char *const foreign_transports[] = {
        "containers-storage:", "dir:", "docker-daemon:", "oci-archive:", "ostree:", "sif:",
};

void reference_clear(struct reference *r)
{
        free(r->host);
        free(r->repository);
        free(r->path);
        free(r->tag);
        *r = (struct reference) { 0 };
}

/* Puts "library/" before a repository of one component. */
static int add_hub_namespace(char **repository)
{
        char *s;

        if (strchr(*repository, '/'))
                return 0;
        if (strlen(DOCKER_HUB_NAMESPACE) + strlen(*repository) > REPOSITORY_MAX)
                return -ENAMETOOLONG;
        s = str_printf("%s%s", DOCKER_HUB_NAMESPACE, *repository);
        if (!s)
                return -ENOMEM;
        free(*repository);
        *repository = s;
        return 0;
}

int reference_set_host(struct reference *r, const char *host)
{
        _cleanup_free_ char *copy = NULL;
        int k;

        if (r->transport != TRANSPORT_REGISTRY || r->host || !r->repository || grammar_check_host(host))
                return -EINVAL;
        if (strcasecmp(host, DOCKER_HUB) == 0 || strcasecmp(host, "index." DOCKER_HUB) == 0)
                host = DOCKER_HUB;
        copy = strdup(host);
        if (!copy)
                return -ENOMEM;
        if (strcmp(host, DOCKER_HUB) == 0) {
                k = add_hub_namespace(&r->repository);
                if (k < 0)
                        return k;
        }
        r->host = steal_ptr(copy);
        return 0;
}

static int invalid(struct error *e, const char *cause)
{
        return error_set(e, ERROR_USAGE, EINVAL, "%s", cause);
}

/* Cuts NAME before its tag and returns the tag, or NULL. A colon before the last slash belongs to a port. */
static char *cut_tag(char *name)
{
        char *slash = strrchr(name, '/');
        char *colon = strchr(slash ? slash : name, ':');

        if (!colon)
                return NULL;
        *colon = '\0';
        return colon + 1;
}

static bool is_bare_hex(const char *s)
{
        return strlen(s) == 64 && strspn(s, "0123456789abcdef") == 64;
}

/* NAME is "[host/]repository" and is cut into pieces. */
static int parse_name(char *name, struct reference *r, struct error *e)
{
        const char *host = NULL, *cause;
        char *slash = strchr(name, '/');
        int k;

        if (slash) {
                *slash = '\0';
                if (grammar_looks_like_host(name)) {
                        host = name;
                        name = slash + 1;
                } else {
                        *slash = '/';
                }
        }
        cause = host ? grammar_check_host(host) : NULL;
        if (!cause)
                cause = grammar_check_repository(name);
        if (cause)
                return invalid(e, cause);
        k = str_copy(name, &r->repository);
        if (k == 0 && host)
                k = reference_set_host(r, host);
        if (k == -ENAMETOOLONG)
                return invalid(e, "the name of the repository is longer than 255 bytes");
        return k < 0 ? error_oom(e) : 0;
}

static int parse_digest(const char *s, struct reference *r, struct error *e)
{
        struct error cause = ERROR_INIT;

        if (digest_parse(s, &r->digest, &cause) < 0)
                return invalid(e, cause.message);
        r->has_digest = true;
        return 0;
}

static int parse_registry(const char *s, struct reference *r, struct error *e)
{
        _cleanup_free_ char *name = NULL;
        const char *cause;
        char *at, *tag;
        int k;

        r->transport = TRANSPORT_REGISTRY;
        if (strstr(s, "://"))
                return invalid(e, "the only scheme that a reference may have is docker://");
        if (is_bare_hex(s))
                return invalid(e, "64 hexadecimal digits are an image ID, not a name");
        if (s[0] == '[' && !strchr(s, '/'))
                return invalid(e, "the name of the repository is missing after the address");
        name = strdup(s);
        if (!name)
                return error_oom(e);

        at = strchr(name, '@');
        if (at) {
                *at = '\0';
                k = parse_digest(at + 1, r, e);
                if (k < 0)
                        return k;
        }
        tag = cut_tag(name);
        if (tag) {
                cause = grammar_check_tag(tag);
                if (cause)
                        return invalid(e, cause);
        }
        if (str_copy(tag || at ? tag : DEFAULT_TAG, &r->tag) < 0)
                return error_oom(e);
        return parse_name(name, r, e);
}

static const char *check_layout_tag(const char *tag)
{
        for (const char *p = tag; *p; p++)
                if ((unsigned char) *p <= ' ' || *p == 0x7f)
                        return "the tag has a space or a control character";
        if (tag[0] == '@')
                return "an image of a layout is chosen by its tag, not by its position";
        return NULL;
}

static int parse_layout(const char *s, struct reference *r, struct error *e)
{
        _cleanup_free_ char *path = NULL;
        const char *cause;
        char *colon;

        r->transport = TRANSPORT_OCI_LAYOUT;
        path = strdup(s);
        if (!path)
                return error_oom(e);
        colon = strrchr(path, ':');
        if (colon && !strchr(colon, '/')) {
                *colon = '\0';
                if (str_ends_with(path, "@sha256") || str_ends_with(path, "@sha512"))
                        return invalid(e, "an image of a layout is chosen by its tag, not by a digest");
                cause = check_layout_tag(colon + 1);
                if (cause)
                        return invalid(e, cause);
                /* skopeo writes "oci:DIR:" for an image without a tag. */
                if (colon[1] && str_copy(colon + 1, &r->tag) < 0)
                        return error_oom(e);
        }
        if (!path[0])
                return invalid(e, "the directory of the layout is missing");
        r->path = steal_ptr(path);
        return 0;
}

/* NAME[:TAG] of an archive stays as it is written, except for the default tag. */
static int parse_archive_tag(const char *s, struct reference *r, struct error *e)
{
        _cleanup_reference_ struct reference image = { 0 };
        const char *slash = strrchr(s, '/');
        int k;

        if (s[0] == '@')
                return invalid(e, "an image of an archive is chosen by its name, not by its position");
        k = parse_registry(s, &image, e);
        if (k < 0)
                return k;
        if (image.has_digest)
                return invalid(e, "an image of an archive is chosen by its name and tag, not by a digest");
        r->tag = strchr(slash ? slash : s, ':') ? strdup(s) : str_printf("%s:%s", s, DEFAULT_TAG);
        return r->tag ? 0 : error_oom(e);
}

static int parse_archive(const char *s, struct reference *r, struct error *e)
{
        const char *colon = strchr(s, ':');
        size_t n = colon ? (size_t) (colon - s) : strlen(s);

        r->transport = TRANSPORT_DOCKER_ARCHIVE;
        if (n == 0)
                return invalid(e, "the file of the archive is missing");
        r->path = strndup(s, n);
        if (!r->path)
                return error_oom(e);
        return colon ? parse_archive_tag(colon + 1, r, e) : 0;
}

/* The prefix of another tool's transport that S begins with, or NULL. */
static const char *find_foreign_transport(const char *s)
{
        for (size_t i = 0; i < ELEMENTSOF(foreign_transports); i++)
                if (str_after(s, foreign_transports[i]))
                        return foreign_transports[i];
        return NULL;
}

static int parse(const char *s, struct reference *r, struct error *e)
{
        const char *rest, *foreign;

        if (!*s)
                return invalid(e, "it is empty");
        if (strlen(s) > PATH_MAX)
                return invalid(e, "it is longer than any name or path");
        if ((rest = str_after(s, REGISTRY_PREFIX)))
                return parse_registry(rest, r, e);
        if ((rest = str_after(s, LAYOUT_PREFIX)))
                return parse_layout(rest, r, e);
        if ((rest = str_after(s, ARCHIVE_PREFIX)))
                return parse_archive(rest, r, e);
        foreign = find_foreign_transport(s);
        if (foreign)
                return error_set(e, ERROR_USAGE, EINVAL,
                                 "the transport %s is not one of docker://, oci: and docker-archive: "
                                 "(docker:// in front makes it the name of a repository)",
                                 foreign);
        return parse_registry(s, r, e);
}

/* S for an error message: control characters as question marks, a long one cut. Returns OUT. */
static const char *quote(const char *s, char *out, size_t size)
{
        size_t n = strnlen(s, size - 1);

        while (n > 0 && ((unsigned char) s[n] & 0xc0) == 0x80)
                n--;
        for (size_t i = 0; i < n; i++)
                out[i] = (unsigned char) s[i] < ' ' || s[i] == 0x7f ? '?' : s[i];
        out[n] = '\0';
        return out;
}

int reference_parse(const char *s, struct reference *ret, struct error *e)
{
        _cleanup_reference_ struct reference r = { 0 };
        struct error cause = ERROR_INIT;
        char quoted[300];
        int k;

        k = parse(s, &r, &cause);
        if (k < 0)
                return error_set(e, cause.kind, cause.code, "image reference \"%s\": %s",
                                 quote(s, quoted, sizeof(quoted)), cause.message);
        *ret = r;
        r = (struct reference) { 0 };
        return 0;
}

int reference_copy(const struct reference *r, struct reference *ret)
{
        _cleanup_reference_ struct reference copy = {
                .transport = r->transport,
                .has_digest = r->has_digest,
                .digest = r->digest,
        };

        if (str_copy(r->host, &copy.host) < 0 || str_copy(r->repository, &copy.repository) < 0 ||
            str_copy(r->path, &copy.path) < 0 || str_copy(r->tag, &copy.tag) < 0)
                return -ENOMEM;
        *ret = copy;
        copy = (struct reference) { 0 };
        return 0;
}

static char *format_registry(const struct reference *r)
{
        _cleanup_free_ char *name = NULL;
        char digest[DIGEST_STRING_MAX] = "";

        if (r->has_digest)
                digest_format(&r->digest, digest);
        name = str_printf("%s%s%s%s%s%s%s", r->host ? r->host : "", r->host ? "/" : "", r->repository,
                          r->tag ? ":" : "", r->tag ? r->tag : "", r->has_digest ? "@" : "", digest);
        if (!name)
                return NULL;
        /* A repository "oci" with a tag, a host "dir" with a port: it must not be read as another transport. */
        if (str_after(name, LAYOUT_PREFIX) || str_after(name, ARCHIVE_PREFIX) || find_foreign_transport(name))
                return str_printf("%s%s", REGISTRY_PREFIX, name);
        return steal_ptr(name);
}

static char *format_layout(const struct reference *r)
{
        const char *slash = strrchr(r->path, '/');
        bool colon = r->tag || strchr(slash ? slash : r->path, ':');

        /* A colon at the end keeps a directory such as "a:b" from being read as a directory with a tag. */
        return str_printf("%s%s%s%s", LAYOUT_PREFIX, r->path, colon ? ":" : "", r->tag ? r->tag : "");
}

char *reference_format(const struct reference *r)
{
        switch (r->transport) {
        case TRANSPORT_OCI_LAYOUT:
                return format_layout(r);
        case TRANSPORT_DOCKER_ARCHIVE:
                return str_printf("%s%s%s%s", ARCHIVE_PREFIX, r->path, r->tag ? ":" : "", r->tag ? r->tag : "");
        case TRANSPORT_REGISTRY:
                break;
        }
        return format_registry(r);
}
