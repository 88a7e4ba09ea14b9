/* SPDX-License-Identifier: Apache-2.0 */

/* An OCI image layout as a source (image-spec image-layout.md): oci-layout, index.json, blobs/<algorithm>/<hex>. */

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "regfs/file_blob.h"
#include "regfs/io.h"
#include "regfs/json.h"
#include "regfs/log.h"
#include "regfs/manifest.h"

#define REF_NAME "org.opencontainers.image.ref.name"
#define LAYOUT_MAX 4096

struct layout {
        struct source source;
        int dir;
        struct digest manifest;
};

static void blob_path(const struct digest *d, char *out, size_t size)
{
        char hex[2 * DIGEST_MAX_SIZE + 1];

        (void) snprintf(out, size, "blobs/%s/%s", digest_algorithm_name(d->algorithm), digest_hex(d, hex));
}

static int layout_resolve(struct source *s, deadline_t deadline, struct digest *ret, struct error *e)
{
        (void) deadline;
        (void) e;
        *ret = ((struct layout *) s)->manifest;
        return 0;
}

static int layout_manifest(struct source *s, const struct digest *digest, deadline_t deadline, struct document *ret,
                           struct error *e)
{
        struct layout *l = (struct layout *) s;
        _cleanup_document_ struct document d = { .digest = digest ? *digest : l->manifest };
        char path[160];
        int r;

        (void) deadline;
        blob_path(&d.digest, path, sizeof(path));
        r = file_read(l->dir, path, MANIFEST_MAX, &d.body, e);
        if (r < 0)
                return error_prefix(e, "%s", s->name);
        r = digest_verify(&d.digest, d.body.data, d.body.len, path, e);
        if (r < 0)
                return error_prefix(e, "%s", s->name);
        d.media_type = strdup("");
        if (!d.media_type)
                return error_oom(e);
        *ret = d;
        d = (struct document) { 0 };
        return 0;
}

static int layout_blob(struct source *s, const struct descriptor *descriptor, struct blob **ret, struct error *e)
{
        struct layout *l = (struct layout *) s;
        char path[160], name[1200];
        struct stat st = { 0 };
        int fd;

        blob_path(&descriptor->digest, path, sizeof(path));
        (void) snprintf(name, sizeof(name), "%s: %s", s->name, path);
        fd = openat(l->dir, path, O_RDONLY | O_NONBLOCK | O_CLOEXEC); /* what is no file may be a FIFO */
        if (fd < 0)
                return error_errno(e, errno, "%s", name);
        if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
                close(fd);
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "%s: not a regular file", name);
        }
        if ((uint64_t) st.st_size != descriptor->size) {
                close(fd);
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "%s: %jd bytes, the manifest says %ju", name,
                                 (intmax_t) st.st_size, (uintmax_t) descriptor->size);
        }
        return file_blob_new(fd, 0, &descriptor->digest, descriptor->size, name, ret, e);
}

static struct source *layout_free(struct source *s)
{
        struct layout *l = (struct layout *) s;

        if (l->dir >= 0)
                close(l->dir);
        free(s->name);
        free(l);
        return NULL;
}

static const struct source_ops layout_ops = {
        .resolve = layout_resolve,
        .manifest = layout_manifest,
        .blob = layout_blob,
        .free = layout_free,
};

/* ---- opening ---- */

static int check_version(struct layout *l, struct error *e)
{
        _cleanup_(json_free_ptr) struct json *root = NULL;
        _cleanup_buf_ struct buf text = { 0 };
        const char *version;
        int r;

        r = file_read(l->dir, "oci-layout", LAYOUT_MAX, &text, e);
        if (r == -ENOENT)
                return error_set(e, ERROR_NOT_FOUND, ENOENT, "%s: no OCI image layout: it has no file oci-layout",
                                 l->source.name);
        if (r == 0)
                r = json_parse(text.data, text.len, &root, e);
        if (r < 0)
                return error_prefix(e, "%s: oci-layout", l->source.name);
        version = json_member_text(root, "imageLayoutVersion");
        if (!version || !str_after(version, "1."))
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "%s: oci-layout: version %s is not known", l->source.name,
                                 version ? version : "(none)");
        return 0;
}

/* "a, b, c" of the tags in INDEX, for an error. */
static void list_tags(const struct manifest *index, char *out, size_t size)
{
        size_t n = 0;

        (void) snprintf(out, size, "none");
        for (size_t k = 0; k < index->manifest_count && n < size; k++) {
                const char *tag = descriptor_annotation(&index->manifests[k], REF_NAME);

                if (tag)
                        n += (size_t) snprintf(out + n, size - n, "%s%s", n > 0 ? ", " : "", tag);
        }
}

static int choose(struct layout *l, const struct manifest *index, const char *tag, struct error *e)
{
        const struct descriptor *found = NULL;
        char tags[400];
        size_t matches = 0;

        for (size_t k = 0; k < index->manifest_count; k++) {
                const struct descriptor *d = &index->manifests[k];

                if (tag && !str_eq(descriptor_annotation(d, REF_NAME), tag))
                        continue;
                if (!tag && d->artifact_type)
                        continue;
                /* The same manifest under several names is one image. */
                if (found && digest_equal(&found->digest, &d->digest))
                        continue;
                found = d;
                matches++;
        }
        list_tags(index, tags, sizeof(tags));
        if (!found)
                return error_set(e, ERROR_NOT_FOUND, ENOENT, "%s: no such image in the layout; its tags: %s",
                                 l->source.name, tags);
        if (matches > 1)
                return error_set(e, ERROR_USAGE, EINVAL, "%s: %zu images in the layout, name one of them; its tags: %s",
                                 l->source.name, matches, tags);
        l->manifest = found->digest;
        return 0;
}

static int read_index(struct layout *l, const char *tag, struct error *e)
{
        _cleanup_document_ struct document d = { .media_type = strdup("") };
        _cleanup_manifest_ struct manifest index = { 0 };
        int r;

        if (!d.media_type)
                return error_oom(e);
        r = file_read(l->dir, "index.json", MANIFEST_MAX, &d.body, e);
        if (r < 0)
                return error_prefix(e, "%s", l->source.name);
        r = manifest_parse(&d, l->source.name, &index, e);
        if (r < 0)
                return error_prefix(e, "%s: index.json", l->source.name);
        if (index.kind != MANIFEST_INDEX)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "%s: index.json is no image index", l->source.name);
        return choose(l, &index, tag, e);
}

int layout_source_new(const char *directory, const char *tag, struct source **ret, struct error *e)
{
        _cleanup_(source_free_ptr) struct source *source = NULL;
        struct layout *l = calloc(1, sizeof(*l));
        int r;

        if (!l)
                return error_oom(e);
        l->source.ops = &layout_ops;
        l->dir = -1;
        source = &l->source;
        l->source.name = tag ? str_printf("oci:%s:%s", directory, tag) : str_printf("oci:%s", directory);
        if (!l->source.name)
                return error_oom(e);
        l->dir = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (l->dir < 0)
                return error_errno(e, errno, "%s", l->source.name);
        r = check_version(l, e);
        if (r < 0)
                return r;
        r = read_index(l, tag, e);
        if (r < 0)
                return r;
        *ret = steal_ptr(source);
        return 0;
}
