/* SPDX-License-Identifier: Apache-2.0 */

/* A docker archive as a source: the tar that `docker save` writes. manifest.json names the config and the layers of
 * each image; the image manifest is made from it, the same for the same archive. Layers are uncompressed tars named
 * by nothing but their place, so their digest is their diff_id; newer dockers put an OCI layout into the same tar,
 * where a blob's name is its digest. */

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "index.h"
#include "regfs/file_blob.h"
#include "regfs/io.h"
#include "regfs/json.h"
#include "regfs/manifest.h"

#define LAYER_TYPE "application/vnd.docker.image.rootfs.diff.tar"
#define CONFIG_TYPE "application/vnd.docker.container.image.v1+json"
#define MANIFEST_TYPE "application/vnd.docker.distribution.manifest.v2+json"

/* A blob of the made manifest and where it lies in the archive. */
struct member {
        struct digest digest;
        uint64_t offset, size;
};

struct archive {
        struct source source;
        int fd;
        struct archive_index *index;
        struct member *members; /* the config, then the layers */
        size_t member_count;
        struct buf manifest;
        struct digest digest;
};

/* ---- the source ---- */

static int archive_resolve(struct source *s, deadline_t deadline, struct digest *ret, struct error *e)
{
        (void) deadline;
        (void) e;
        *ret = ((struct archive *) s)->digest;
        return 0;
}

static int archive_manifest(struct source *s, const struct digest *digest, deadline_t deadline, struct document *ret,
                            struct error *e)
{
        struct archive *a = (struct archive *) s;
        _cleanup_document_ struct document d = { .digest = a->digest };

        (void) deadline;
        if (digest && !digest_equal(digest, &a->digest))
                return error_set(e, ERROR_NOT_FOUND, ENOENT, "%s: no such manifest in the archive", s->name);
        d.media_type = strdup(MANIFEST_TYPE);
        if (!d.media_type || buf_append(&d.body, a->manifest.data, a->manifest.len) < 0)
                return error_oom(e);
        *ret = d;
        d = (struct document) { 0 };
        return 0;
}

static int archive_blob(struct source *s, const struct descriptor *descriptor, struct blob **ret, struct error *e)
{
        struct archive *a = (struct archive *) s;
        char digest[DIGEST_STRING_MAX], name[1200];

        digest_format(&descriptor->digest, digest);
        for (size_t k = 0; k < a->member_count; k++) {
                int fd;

                if (!digest_equal(&a->members[k].digest, &descriptor->digest))
                        continue;
                fd = fcntl(a->fd, F_DUPFD_CLOEXEC, 0);
                if (fd < 0)
                        return error_errno(e, errno, "%s", s->name);
                (void) snprintf(name, sizeof(name), "%s: layer %s", s->name, digest);
                return file_blob_new(fd, a->members[k].offset, &descriptor->digest, a->members[k].size, name, ret, e);
        }
        return error_set(e, ERROR_NOT_FOUND, ENOENT, "%s: no blob %s in the archive", s->name, digest);
}

static struct source *archive_free(struct source *s)
{
        struct archive *a = (struct archive *) s;

        archive_index_free(a->index);
        buf_free(&a->manifest);
        free(a->members);
        if (a->fd >= 0)
                close(a->fd);
        free(s->name);
        free(a);
        return NULL;
}

static const struct source_ops archive_ops = {
        .resolve = archive_resolve,
        .manifest = archive_manifest,
        .blob = archive_blob,
        .free = archive_free,
};

/* ---- choosing the image ---- */

static bool has_tag(const struct json *image, const char *tag)
{
        for (const struct json *t = json_first(json_member(image, "RepoTags")); t; t = json_next(t)) {
                const char *text = json_text(t);
                const char *last;

                if (!text)
                        continue;
                last = strrchr(text, '/');
                if (strcmp(text, tag) == 0 || (last && strcmp(last + 1, tag) == 0))
                        return true;
        }
        return false;
}

static void list_tags(const struct json *images, char *out, size_t size)
{
        size_t n = 0;

        (void) snprintf(out, size, "none");
        for (const struct json *i = json_first(images); i; i = json_next(i))
                for (const struct json *t = json_first(json_member(i, "RepoTags")); t && n < size; t = json_next(t))
                        if (json_text(t))
                                n += (size_t) snprintf(out + n, size - n, "%s%s", n > 0 ? ", " : "", json_text(t));
}

static int choose(struct archive *a, const struct json *images, const char *tag, const struct json **ret,
                  struct error *e)
{
        const struct json *found = NULL;
        size_t matches = 0;
        char tags[400];

        if (!json_is_array(images))
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "%s: manifest.json is no array", a->source.name);
        for (const struct json *i = json_first(images); i; i = json_next(i)) {
                if (tag && !has_tag(i, tag))
                        continue;
                found = i;
                matches++;
        }
        list_tags(images, tags, sizeof(tags));
        if (!found)
                return error_set(e, ERROR_NOT_FOUND, ENOENT, "%s: no such image in the archive; its tags: %s",
                                 a->source.name, tags);
        if (matches > 1)
                return error_set(e, ERROR_USAGE, EINVAL,
                                 "%s: %zu images in the archive, name one of them; its tags: %s", a->source.name,
                                 matches, tags);
        *ret = found;
        return 0;
}

/* ---- making the manifest ---- */

static int read_member(struct archive *a, const char *path, size_t max, struct buf *ret, struct member *ret_where,
                       struct error *e)
{
        uint64_t offset, size;
        int r;

        r = archive_index_find(a->index, path, &offset, &size);
        if (r < 0)
                return error_set(e, r == -ENOENT ? ERROR_BAD_DATA : ERROR_OTHER, EBADMSG, "%s: the archive holds no %s",
                                 a->source.name, path);
        if (size > max)
                return error_set(e, ERROR_BAD_DATA, EFBIG, "%s: %s has %ju bytes, more than the %zu allowed",
                                 a->source.name, path, (uintmax_t) size, max);
        if (buf_reserve(ret, (size_t) size) < 0)
                return error_oom(e);
        r = pread_full(a->fd, ret->data, (size_t) size, offset);
        if (r < 0)
                return error_errno(e, -r, "%s: %s", a->source.name, path);
        ret->len = (size_t) size;
        ret->data[size] = '\0';
        if (ret_where)
                *ret_where = (struct member) { .offset = offset, .size = size };
        return 0;
}

/* "blobs/sha256/<hex>": a name that is a digest. */
static bool digest_of_name(const char *path, struct digest *ret)
{
        const char *hex = str_after(path, "blobs/sha256/");
        char text[DIGEST_STRING_MAX];

        if (!hex || strlen(hex) != 2 * SHA256_SIZE)
                return false;
        (void) snprintf(text, sizeof(text), "sha256:%s", hex);
        return digest_parse(text, ret, NULL) == 0;
}

static int add_layer(struct archive *a, const char *path, const char *diff_id, struct error *e)
{
        struct member *m = &a->members[a->member_count];
        int r;

        r = archive_index_find(a->index, path, &m->offset, &m->size);
        if (r < 0)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "%s: the archive holds no layer %s", a->source.name, path);
        if (!digest_of_name(path, &m->digest)) {
                r = digest_parse(diff_id, &m->digest, e);
                if (r < 0)
                        return error_prefix(e, "%s: diff_id of layer %s", a->source.name, path);
        }
        a->member_count++;
        return 0;
}

static int add_layers(struct archive *a, const struct json *image, const struct json *config, struct error *e)
{
        const struct json *layer = json_first(json_member(image, "Layers"));
        const struct json *diff_id = json_first(json_member(json_member(config, "rootfs"), "diff_ids"));

        for (; layer && diff_id; layer = json_next(layer), diff_id = json_next(diff_id)) {
                int r;

                if (a->member_count > MANIFEST_LAYERS_MAX)
                        return error_set(e, ERROR_BAD_DATA, EBADMSG, "%s: more than %d layers", a->source.name,
                                         MANIFEST_LAYERS_MAX);
                if (!json_text(layer) || !json_text(diff_id))
                        return error_set(e, ERROR_BAD_DATA, EBADMSG, "%s: a layer or diff_id is no string",
                                         a->source.name);
                r = add_layer(a, json_text(layer), json_text(diff_id), e);
                if (r < 0)
                        return r;
        }
        if (layer || diff_id)
                return error_set(e, ERROR_BAD_DATA, EBADMSG,
                                 "%s: manifest.json and config disagree on the number of layers", a->source.name);
        return 0;
}

static int append_descriptor(struct buf *b, const char *type, const struct member *m)
{
        char digest[DIGEST_STRING_MAX];

        return buf_printf(b, "{\"mediaType\":\"%s\",\"digest\":\"%s\",\"size\":%ju}", type,
                          digest_format(&m->digest, digest), (uintmax_t) m->size);
}

static int write_manifest(struct archive *a, struct error *e)
{
        int r;

        r = buf_printf(&a->manifest, "{\"schemaVersion\":2,\"mediaType\":\"%s\",\"config\":", MANIFEST_TYPE);
        if (r == 0)
                r = append_descriptor(&a->manifest, CONFIG_TYPE, &a->members[0]);
        if (r == 0)
                r = buf_append_str(&a->manifest, ",\"layers\":[");
        for (size_t k = 1; k < a->member_count && r == 0; k++) {
                if (k > 1)
                        r = buf_append_char(&a->manifest, ',');
                if (r == 0)
                        r = append_descriptor(&a->manifest, LAYER_TYPE, &a->members[k]);
        }
        if (r == 0)
                r = buf_append_str(&a->manifest, "]}");
        if (r == 0)
                r = digest_of(DIGEST_SHA256, a->manifest.data, a->manifest.len, &a->digest);
        return r < 0 ? error_oom(e) : 0;
}

static int read_image(struct archive *a, const struct json *image, struct error *e)
{
        _cleanup_(json_free_ptr) struct json *config = NULL;
        const char *path = json_member_text(image, "Config");
        _cleanup_buf_ struct buf text = { 0 };
        int r;

        if (!path)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "%s: manifest.json names no config", a->source.name);
        a->members = calloc(MANIFEST_LAYERS_MAX + 2, sizeof(*a->members));
        if (!a->members)
                return error_oom(e);
        r = read_member(a, path, MANIFEST_MAX, &text, &a->members[0], e);
        if (r < 0)
                return r;
        a->member_count = 1;
        r = digest_of(DIGEST_SHA256, text.data, text.len, &a->members[0].digest);
        if (r < 0)
                return error_errno(e, -r, "%s: hashing", a->source.name);
        r = json_parse(text.data, text.len, &config, e);
        if (r < 0)
                return error_prefix(e, "%s: %s", a->source.name, path);
        r = add_layers(a, image, config, e);
        return r < 0 ? r : write_manifest(a, e);
}

static int open_archive(struct archive *a, const char *file, const char *tag, struct error *e)
{
        _cleanup_(json_free_ptr) struct json *images = NULL;
        _cleanup_buf_ struct buf text = { 0 };
        const struct json *image = NULL;
        int r;

        a->fd = open(file, O_RDONLY | O_CLOEXEC);
        if (a->fd < 0)
                return error_errno(e, errno, "%s", a->source.name);
        r = archive_index_new(a->fd, &a->index, e);
        if (r < 0)
                return error_prefix(e, "%s", a->source.name);
        r = read_member(a, "manifest.json", MANIFEST_MAX, &text, NULL, e);
        if (r < 0)
                return r;
        r = json_parse(text.data, text.len, &images, e);
        if (r < 0)
                return error_prefix(e, "%s: manifest.json", a->source.name);
        r = choose(a, images, tag, &image, e);
        return r < 0 ? r : read_image(a, image, e);
}

int archive_source_new(const char *file, const char *tag, struct source **ret, struct error *e)
{
        _cleanup_(source_free_ptr) struct source *source = NULL;
        struct archive *a = calloc(1, sizeof(*a));
        int r;

        if (!a)
                return error_oom(e);
        source = &a->source;
        a->source.ops = &archive_ops;
        a->fd = -1;
        a->source.name = tag ? str_printf("docker-archive:%s:%s", file, tag) : str_printf("docker-archive:%s", file);
        if (!a->source.name)
                return error_oom(e);
        r = open_archive(a, file, tag, e);
        if (r < 0)
                return r;
        *ret = steal_ptr(source);
        return 0;
}
