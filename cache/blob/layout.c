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

/* Constant once it is made. */
struct layout {
        struct source source;
        int dir;
        char *tag; /* or NULL */
        struct manifest index;
};

static struct layout *layout_of(struct source *s)
{
        return (struct layout *) s;
}

/* "sha256-<hex>": the name of an index of referrers. */
static bool is_referrers_tag(const char *name)
{
        const char *hex = name ? str_after(name, "sha256-") : NULL;

        if (name && !hex)
                hex = str_after(name, "sha512-");
        return hex && strspn(hex, "0123456789abcdef") == 64 && hex[64] == '\0';
}

static void blob_path(const struct digest *d, char *out, size_t size)
{
        char hex[2 * DIGEST_MAX_SIZE + 1];

        (void) snprintf(out, size, "blobs/%s/%s", digest_algorithm_name(d->algorithm), digest_hex(d, hex));
}

/* ---- which image is meant ---- */

/* "a, b, c" of the tags in the layout, for an error. */
static void list_tags(const struct layout *l, char *out, size_t size)
{
        size_t n = 0;

        (void) snprintf(out, size, "none");
        for (size_t k = 0; k < l->index.manifest_count && n < size; k++) {
                const char *tag = descriptor_annotation(&l->index.manifests[k], REF_NAME);

                if (tag)
                        n += (size_t) snprintf(out + n, size - n, "%s%s", n > 0 ? ", " : "", tag);
        }
}

/* Whether D is, for want of a tag, one of the images that could be meant. */
static bool is_candidate(const struct layout *l, const struct descriptor *d)
{
        const char *name = descriptor_annotation(d, REF_NAME);

        return l->tag ? str_eq(name, l->tag) : !d->artifact_type && !is_referrers_tag(name);
}

static int choose(struct layout *l, struct digest *ret, struct error *e)
{
        const struct descriptor *found = NULL;
        char tags[400];
        size_t matches = 0;

        for (size_t k = 0; k < l->index.manifest_count; k++) {
                const struct descriptor *d = &l->index.manifests[k];

                /* The same manifest under several names is one image. */
                if (!is_candidate(l, d) || (found && digest_equal(&found->digest, &d->digest)))
                        continue;
                found = d;
                matches++;
        }
        list_tags(l, tags, sizeof(tags));
        if (!found)
                return error_set(e, ERROR_NOT_FOUND, ENOENT, "%s: no such image in the layout; its tags: %s",
                                 l->source.name, tags);
        if (matches > 1)
                return error_set(e, ERROR_USAGE, EINVAL, "%s: %zu images in the layout, name one of them; its tags: %s",
                                 l->source.name, matches, tags);
        *ret = found->digest;
        return 0;
}

static int layout_resolve(struct source *s, deadline_t deadline _unused_, struct digest *ret, struct error *e)
{
        return choose(layout_of(s), ret, e);
}

/* ---- documents and blobs ---- */

static int read_document(struct layout *l, const struct digest *digest, struct document *ret, struct error *e)
{
        _cleanup_document_ struct document d = { .digest = *digest };
        char path[160];
        int r;

        blob_path(digest, path, sizeof(path));
        r = file_read(l->dir, path, MANIFEST_MAX, &d.body, e);
        if (r < 0)
                return error_prefix(e, "%s", l->source.name);
        r = digest_verify(digest, d.body.data, d.body.len, path, e);
        if (r < 0)
                return error_prefix(e, "%s", l->source.name);
        d.media_type = strdup("");
        if (!d.media_type)
                return error_oom(e);
        *ret = d;
        d = (struct document) { 0 };
        return 0;
}

static int layout_manifest(struct source *s, const struct digest *digest, deadline_t deadline _unused_,
                           struct document *ret, struct error *e)
{
        struct digest chosen;
        int r;

        if (!digest) {
                r = choose(layout_of(s), &chosen, e);
                if (r < 0)
                        return r;
                digest = &chosen;
        }
        return read_document(layout_of(s), digest, ret, e);
}

static int layout_blob(struct source *s, const struct descriptor *descriptor, struct blob **ret, struct error *e)
{
        struct layout *l = layout_of(s);
        char path[160], name[1200];
        struct stat st = { 0 };
        int fd;

        blob_path(&descriptor->digest, path, sizeof(path));
        (void) snprintf(name, sizeof(name), "%s: %s", s->name, path);
        fd = openat(l->dir, path, O_RDONLY | O_NONBLOCK | O_CLOEXEC); /* what is no file may be a FIFO */
        if (fd < 0)
                return error_errno(e, errno, "%s", name);
        if (fstat(fd, &st) < 0) {
                int r = error_errno(e, errno, "%s", name);

                close(fd);
                return r;
        }
        if (!S_ISREG(st.st_mode)) {
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

/* ---- referrers ---- */

struct referrers {
        struct layout *layout;
        const struct digest *subject;
        struct descriptor *items;
        size_t count, allocated;
};

static bool is_listed(const struct referrers *f, const struct digest *digest)
{
        for (size_t k = 0; k < f->count; k++)
                if (digest_equal(&f->items[k].digest, digest))
                        return true;
        return false;
}

static size_t count_strings(char *const *v)
{
        size_t n = 0;

        while (v && v[n])
                n++;
        return n;
}

/* What the manifest says of itself, where its entry does not say otherwise. */
static int complete(struct descriptor *d, const struct manifest *m)
{
        size_t n = count_strings(d->annotations);
        char **longer;

        if (!d->artifact_type && str_copy(m->artifact_type, &d->artifact_type) < 0)
                return -ENOMEM;
        if (!m->annotations)
                return 0;
        longer = realloc(d->annotations, (n + count_strings(m->annotations) + 1) * sizeof(*longer));
        if (!longer)
                return -ENOMEM;
        d->annotations = longer;
        d->annotations[n] = NULL;
        for (char **a = m->annotations; a[0] && a[1]; a += 2) {
                _cleanup_free_ char *key = NULL, *value = NULL;

                if (descriptor_annotation(d, a[0]))
                        continue;
                if (str_copy(a[0], &key) < 0 || str_copy(a[1], &value) < 0)
                        return -ENOMEM;
                longer[n++] = steal_ptr(key);
                longer[n++] = steal_ptr(value);
                longer[n] = NULL;
        }
        return 0;
}

/* Takes ENTRY when its manifest can be read and names the subject. Others are not ours to complain about. */
static int consider(struct referrers *f, const struct descriptor *entry, struct error *e)
{
        _cleanup_document_ struct document document = { 0 };
        _cleanup_manifest_ struct manifest m = { 0 };
        struct error cause = ERROR_INIT;
        struct descriptor *item;

        if (f->count >= REFERRERS_MAX || is_listed(f, &entry->digest) || strstr(entry->media_type, "index") ||
            strstr(entry->media_type, "manifest.list"))
                return 0;
        if (read_document(f->layout, &entry->digest, &document, &cause) < 0 ||
            manifest_parse_artifact(&document, f->layout->source.name, &m, &cause) < 0) {
                log_debug("%s: not looked at for referrers", cause.message);
                return cause.code == ENOMEM ? error_oom(e) : 0;
        }
        if (!digest_equal(&m.subject, f->subject))
                return 0;
        if (array_reserve(f->items, &f->allocated, f->count + 1) < 0)
                return error_oom(e);
        item = &f->items[f->count];
        if (descriptor_copy(entry, item) < 0)
                return error_oom(e);
        f->count++;
        return complete(item, &m) < 0 ? error_oom(e) : 0;
}

static int consider_all(struct referrers *f, const struct manifest *index, struct error *e)
{
        int r = 0;

        for (size_t k = 0; r == 0 && k < index->manifest_count; k++)
                r = consider(f, &index->manifests[k], e);
        return r;
}

/* The index that the fallback tag names: as a copy from a registry without the referrers API has it. */
static int consider_fallback(struct referrers *f, struct error *e)
{
        const struct manifest *index = &f->layout->index;
        char tag[REFERRERS_TAG_MAX];

        referrers_tag(f->subject, tag);
        for (size_t k = 0; k < index->manifest_count; k++) {
                _cleanup_document_ struct document document = { 0 };
                _cleanup_manifest_ struct manifest named = { 0 };
                int r;

                if (!str_eq(descriptor_annotation(&index->manifests[k], REF_NAME), tag))
                        continue;
                r = read_document(f->layout, &index->manifests[k].digest, &document, e);
                if (r == 0)
                        r = manifest_parse(&document, f->layout->source.name, &named, e);
                return r < 0 ? error_prefix(e, "index of referrers %s", tag) : consider_all(f, &named, e);
        }
        return 0;
}

static int layout_referrers(struct source *s, const struct digest *subject, deadline_t deadline _unused_,
                            struct descriptor **ret, size_t *ret_count, struct error *e)
{
        struct referrers f = { .layout = layout_of(s), .subject = subject };
        int r = consider_all(&f, &f.layout->index, e);

        if (r == 0)
                r = consider_fallback(&f, e);
        if (r < 0) {
                descriptors_free(f.items, f.count);
                return r;
        }
        *ret = f.items;
        *ret_count = f.count;
        return 0;
}

static struct source *layout_free(struct source *s)
{
        struct layout *l = layout_of(s);

        if (l->dir >= 0)
                close(l->dir);
        manifest_clear(&l->index);
        free(l->tag);
        free(s->name);
        free(l);
        return NULL;
}

static const struct source_ops layout_ops = {
        .resolve = layout_resolve,
        .manifest = layout_manifest,
        .blob = layout_blob,
        .referrers = layout_referrers,
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

static int read_index(struct layout *l, struct error *e)
{
        _cleanup_document_ struct document d = { .media_type = strdup("") };
        int r;

        if (!d.media_type)
                return error_oom(e);
        r = file_read(l->dir, "index.json", MANIFEST_MAX, &d.body, e);
        if (r < 0)
                return error_prefix(e, "%s", l->source.name);
        r = manifest_parse(&d, l->source.name, &l->index, e);
        if (r < 0)
                return error_prefix(e, "%s: index.json", l->source.name);
        if (l->index.kind != MANIFEST_INDEX)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "%s: index.json is no image index", l->source.name);
        return 0;
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
        if (!l->source.name || str_copy(tag, &l->tag) < 0)
                return error_oom(e);
        l->dir = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (l->dir < 0)
                return error_errno(e, errno, "%s", l->source.name);
        r = check_version(l, e);
        if (r < 0)
                return r;
        r = read_index(l, e);
        if (r < 0)
                return r;
        *ret = steal_ptr(source);
        return 0;
}
