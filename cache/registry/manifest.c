/* SPDX-License-Identifier: Apache-2.0 */

#include "regfs/manifest.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "regfs/json.h"

#define STRINGS_MAX 4096 /* urls or annotations of one descriptor */

/* Where a parse stands, for errors. */
struct context {
        const char *name;
        struct error *e;
};

static int bad(const struct context *c, const char *format, ...) _printf_(2, 3);

static int bad(const struct context *c, const char *format, ...)
{
        _cleanup_buf_ struct buf text = { 0 };
        va_list ap;
        int r;

        va_start(ap, format);
        r = buf_vprintf(&text, format, ap);
        va_end(ap);
        if (r < 0)
                return error_oom(c->e);
        return error_set(c->e, ERROR_BAD_DATA, EBADMSG, "%s: %s", c->name, text.data);
}

void manifest_clear(struct manifest *m)
{
        descriptor_clear(&m->config);
        for (size_t k = 0; k < m->layer_count; k++)
                descriptor_clear(&m->layers[k]);
        free(m->layers);
        for (size_t k = 0; k < m->manifest_count; k++)
                descriptor_clear(&m->manifests[k]);
        free(m->manifests);
        for (char **a = m->annotations; a && *a; a++)
                free(*a);
        free(m->annotations);
        free(m->artifact_type);
        *m = (struct manifest) { 0 };
}

/* ---- values ---- */

/* A string member: absent gives NULL (or "" with EMPTY), anything but a string is an error. */
static int take_text(const struct context *c, const struct json *v, const char *member, bool empty, char **ret)
{
        const struct json *m = json_member(v, member);
        const char *text = json_text(m);

        if (m && !json_is_null(m) && !text)
                return bad(c, "%s is no string", member);
        *ret = text || empty ? strdup(text ? text : "") : NULL;
        return (text || empty) && !*ret ? error_oom(c->e) : 0;
}

static size_t count_members(const struct json *v)
{
        size_t n = 0;

        for (const struct json *m = json_first(v); m; m = json_next(m))
                n++;
        return n;
}

/* An array of strings, or the names and values of an object, as a NULL-terminated vector. */
static int take_strings(const struct context *c, const struct json *v, const char *member, bool pairs, char ***ret)
{
        const struct json *list = json_member(v, member);
        size_t n = count_members(list), at = 0;
        char **out;

        *ret = NULL;
        if (!list || json_is_null(list))
                return 0;
        if (pairs ? !json_is_object(list) : !json_is_array(list))
                return bad(c, "%s is malformed", member);
        if (n > STRINGS_MAX)
                return bad(c, "%zu %s are more than the %d allowed", n, member, STRINGS_MAX);
        out = calloc((pairs ? 2 : 1) * n + 1, sizeof(*out));
        if (!out)
                return error_oom(c->e);
        *ret = out;
        for (const struct json *m = json_first(list); m; m = json_next(m)) {
                if (!json_text(m))
                        return bad(c, "%s holds something that is no string", member);
                if (pairs) {
                        out[at] = strdup(json_name(m));
                        if (!out[at++])
                                return error_oom(c->e);
                }
                out[at] = strdup(json_text(m));
                if (!out[at++])
                        return error_oom(c->e);
        }
        return 0;
}

/* Cuts "; charset=utf-8" off. */
static void strip_parameters(char *type)
{
        type[strcspn(type, "; \t")] = '\0';
}

static int take_data(const struct context *c, const struct json *v, struct descriptor *d)
{
        const char *text = json_member_text(v, "data");
        int r;

        if (!text)
                return 0;
        r = base64_decode(text, &d->data, &d->data_size);
        if (r < 0)
                return r == -ENOMEM ? error_oom(c->e) : bad(c, "inlined data is no base64");
        if (d->data_size != d->size)
                return bad(c, "inlined data has %zu bytes, the descriptor says %ju", d->data_size, (uintmax_t) d->size);
        return digest_verify(&d->digest, d->data, d->data_size, c->name, c->e);
}

static int take_platform(const struct context *c, const struct json *v, struct descriptor *d)
{
        const struct json *p = json_member(v, "platform");
        int r;

        if (!p || json_is_null(p))
                return 0;
        r = take_text(c, p, "os", false, &d->os);
        if (r == 0)
                r = take_text(c, p, "architecture", false, &d->architecture);
        return r < 0 ? r : take_text(c, p, "variant", false, &d->variant);
}

static int take_descriptor(const struct context *c, const struct json *v, struct descriptor *ret)
{
        _cleanup_descriptor_ struct descriptor d = { 0 };
        const char *digest = json_member_text(v, "digest");
        struct error cause = ERROR_INIT;
        int r;

        if (!json_is_object(v))
                return bad(c, "a descriptor is no object");
        if (!digest)
                return bad(c, "a descriptor has no digest");
        if (digest_parse(digest, &d.digest, &cause) < 0)
                return bad(c, "a descriptor: %s", cause.message);
        if (json_u64(json_member(v, "size"), &d.size) < 0)
                return bad(c, "descriptor %s has no valid size", digest);
        r = take_text(c, v, "mediaType", true, &d.media_type);
        if (r == 0)
                r = take_text(c, v, "artifactType", false, &d.artifact_type);
        if (r == 0)
                r = take_strings(c, v, "urls", false, &d.urls);
        if (r == 0)
                r = take_strings(c, v, "annotations", true, &d.annotations);
        if (r == 0)
                r = take_platform(c, v, &d);
        if (r == 0)
                r = take_data(c, v, &d);
        if (r < 0)
                return r;
        strip_parameters(d.media_type);
        *ret = d;
        d = (struct descriptor) { 0 };
        return 0;
}

static int take_descriptors(const struct context *c, const struct json *v, const char *member, size_t max,
                            struct descriptor **ret, size_t *ret_count)
{
        const struct json *list = json_member(v, member);
        size_t n = count_members(list);

        if (!json_is_array(list))
                return bad(c, "%s is no array", member);
        if (n > max)
                return bad(c, "%zu %s are more than the %zu allowed", n, member, max);
        *ret = calloc(n + 1, sizeof(**ret));
        if (!*ret)
                return error_oom(c->e);
        for (const struct json *m = json_first(list); m; m = json_next(m)) {
                int r = take_descriptor(c, m, &(*ret)[*ret_count]);

                if (r < 0)
                        return r;
                (*ret_count)++;
        }
        return 0;
}

/* ---- images ---- */

static const char *const layer_types[] = {
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
};

/* Any of the types above, with a compression behind it or none: the magic bytes decide. */
static bool is_layer_type(const char *type)
{
        static const char *const compressions[] = { "", "+gzip", ".gzip", "+zstd", ".zstd" };

        for (size_t k = 0; k < ELEMENTSOF(layer_types); k++) {
                const char *rest = str_after(type, layer_types[k]);

                for (size_t m = 0; rest && m < ELEMENTSOF(compressions); m++)
                        if (strcmp(rest, compressions[m]) == 0)
                                return true;
        }
        return false;
}

static bool is_config_type(const char *type)
{
        return str_eq(type, "application/vnd.oci.image.config.v1+json") ||
               str_eq(type, "application/vnd.docker.container.image.v1+json") || *type == '\0';
}

static int take_image(const struct context *c, const struct json *root, struct manifest *m)
{
        const char *artifact = json_member_text(root, "artifactType");
        char digest[DIGEST_STRING_MAX];
        int r;

        m->kind = MANIFEST_IMAGE;
        if (!json_member(root, "config"))
                return bad(c, "the manifest has no config");
        r = take_descriptor(c, json_member(root, "config"), &m->config);
        if (r < 0)
                return r;
        if (!is_config_type(m->config.media_type))
                return bad(c, "not a container image but an artifact of type %s",
                           artifact && *artifact ? artifact : m->config.media_type);
        r = take_descriptors(c, root, "layers", MANIFEST_LAYERS_MAX, &m->layers, &m->layer_count);
        if (r < 0)
                return r;
        if (m->layer_count == 0)
                return bad(c, "the image has no layers");
        for (size_t k = 0; k < m->layer_count; k++)
                if (!is_layer_type(m->layers[k].media_type))
                        return bad(c, "layer %s has media type %s, which is not one of an image's layer",
                                   digest_format(&m->layers[k].digest, digest),
                                   *m->layers[k].media_type ? m->layers[k].media_type : "(none)");
        return 0;
}

static int take_index(const struct context *c, const struct json *root, struct manifest *m)
{
        m->kind = MANIFEST_INDEX;
        return take_descriptors(c, root, "manifests", STRINGS_MAX, &m->manifests, &m->manifest_count);
}

/* ---- artifacts ---- */

/* A member that is there, and not as the null that some writers put where they have nothing. */
static bool has_member(const struct json *v, const char *name)
{
        const struct json *m = json_member(v, name);

        return m && !json_is_null(m);
}

static int take_subject(const struct context *c, const struct json *root, struct manifest *m)
{
        _cleanup_descriptor_ struct descriptor subject = { 0 };
        int r;

        if (!has_member(root, "subject"))
                return 0;
        r = take_descriptor(c, json_member(root, "subject"), &subject);
        if (r == 0)
                m->subject = subject.digest;
        return r;
}

static int take_artifact(const struct context *c, const struct json *root, struct manifest *m)
{
        int r = 0;

        m->kind = MANIFEST_IMAGE;
        if (has_member(root, "config"))
                r = take_descriptor(c, json_member(root, "config"), &m->config);
        if (r == 0 && has_member(root, "layers"))
                r = take_descriptors(c, root, "layers", MANIFEST_LAYERS_MAX, &m->layers, &m->layer_count);
        if (r == 0)
                r = take_subject(c, root, m);
        if (r == 0)
                r = take_text(c, root, "artifactType", false, &m->artifact_type);
        if (r < 0 || (m->artifact_type && *m->artifact_type))
                return r;
        free(m->artifact_type);
        m->artifact_type = NULL;
        if (m->config.media_type && *m->config.media_type && str_copy(m->config.media_type, &m->artifact_type) < 0)
                return error_oom(c->e);
        return 0;
}

/* ---- documents ---- */

static bool contains(const char *s, const char *word)
{
        return s && strcasestr(s, word);
}

static int refuse_schema1(const struct context *c, const struct json *root, const char *served)
{
        uint64_t version = 0;

        (void) json_u64(json_member(root, "schemaVersion"), &version);
        if (version == 1 || contains(served, "docker.distribution.manifest.v1+"))
                return bad(
                        c,
                        "it is a schema 1 manifest, a format that docker gave up in 2017: push the image again with a "
                        "current tool");
        if (version != 2)
                return bad(c, "its schemaVersion is not 2");
        return 0;
}

/* The type that the document says it has, against what it was served as: either may be silent, they may not differ. */
static int check_types(const struct context *c, const char *served, const char *stated)
{
        if (*served && *stated && strcmp(served, stated) != 0 && !str_eq(served, "application/json") &&
            !str_eq(served, "application/octet-stream") && !str_after(served, "text/plain"))
                return bad(c, "served as %s, but says it is %s", served, stated);
        return 0;
}

static int take_document(const struct context *c, const struct json *root, const char *served, bool artifact,
                         struct manifest *m)
{
        bool image = json_member(root, "layers") || json_member(root, "config");
        bool index = json_member(root, "manifests");
        _cleanup_free_ char *stated = NULL;
        const char *type;
        int r;

        r = refuse_schema1(c, root, served);
        if (r < 0)
                return r;
        r = take_text(c, root, "mediaType", true, &stated);
        if (r < 0)
                return r;
        strip_parameters(stated);
        r = check_types(c, served, stated);
        if (r < 0)
                return r;
        /* What could be read as either would be two images under one digest (CVE-2021-41190). */
        if (image && index)
                return bad(c, "the document has both layers and manifests");
        if (artifact && index)
                return bad(c, "not the manifest of an artifact but an index");
        /* The type alone makes one of an artifact that has nothing but annotations. */
        if (artifact && has_member(root, "artifactType"))
                image = true;
        if (!image && !index)
                return bad(c, "%s: the document has neither layers nor manifests%s%s",
                           artifact ? "not an artifact" : "not a container image", *stated ? "; it says it is " : "",
                           stated);
        type = *stated || !str_after(served, "application/vnd.") ? stated : served;
        if (*type && image && (contains(type, "index") || contains(type, "manifest.list")))
                return bad(c, "its type is %s, but it has layers", type);
        if (*type && index && !contains(type, "index") && !contains(type, "manifest.list"))
                return bad(c, "its type is %s, but it has manifests", type);
        r = take_strings(c, root, "annotations", true, &m->annotations);
        if (r < 0)
                return r;
        if (artifact)
                return take_artifact(c, root, m);
        return image ? take_image(c, root, m) : take_index(c, root, m);
}

static int parse(const struct document *document, const char *name, bool artifact, struct manifest *ret,
                 struct error *e)
{
        _cleanup_(json_free_ptr) struct json *root = NULL;
        _cleanup_manifest_ struct manifest m = { 0 };
        struct error own = ERROR_INIT;
        struct context c = { .name = name, .e = e ? e : &own };
        int r;

        r = json_parse(document->body.data ? document->body.data : "", document->body.len, &root, c.e);
        if (r < 0)
                return error_prefix(c.e, "%s", name);
        if (!json_is_object(root))
                return bad(&c, "the manifest is no JSON object");
        r = take_document(&c, root, document->media_type ? document->media_type : "", artifact, &m);
        if (r < 0)
                return r;
        *ret = m;
        m = (struct manifest) { 0 };
        return 0;
}

int manifest_parse(const struct document *document, const char *name, struct manifest *ret, struct error *e)
{
        return parse(document, name, false, ret, e);
}

int manifest_parse_artifact(const struct document *document, const char *name, struct manifest *ret, struct error *e)
{
        return parse(document, name, true, ret, e);
}

int config_platform(const struct buf *config, const char *name, struct platform *ret, struct error *e)
{
        _cleanup_(json_free_ptr) struct json *root = NULL;
        const char *os, *architecture, *variant;
        _cleanup_free_ char *text = NULL;
        int r;

        r = json_parse(config->data ? config->data : "", config->len, &root, e);
        if (r < 0)
                return error_prefix(e, "%s: config", name);
        os = json_member_text(root, "os");
        architecture = json_member_text(root, "architecture");
        variant = json_member_text(root, "variant");
        if (!json_is_object(root))
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "%s: config is no JSON object", name);
        /* Old builders left them out; they built for linux/amd64. */
        text = str_printf("%s/%s%s%s", os && *os ? os : "linux", architecture && *architecture ? architecture : "amd64",
                          variant && *variant ? "/" : "", variant ? variant : "");
        if (!text)
                return error_oom(e);
        r = platform_parse(text, ret, e);
        if (r == -ENOMEM)
                return r;
        return r < 0 ? error_set(e, ERROR_BAD_DATA, EBADMSG, "%s: config: platform %s is malformed", name, text) : 0;
}
