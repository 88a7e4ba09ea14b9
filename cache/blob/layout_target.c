/* SPDX-License-Identifier: Apache-2.0 */

/* An OCI image layout as a target. Blobs and index.json are written beside their place and renamed. */

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "index_text.h"
#include "regfs/io.h"
#include "regfs/manifest.h"
#include "regfs/push.h"

#define REF_NAME "org.opencontainers.image.ref.name"
#define VERSION "{\"imageLayoutVersion\":\"1.0.0\"}"

struct layout_target {
        struct target target;
        int dir;
        struct mutex lock;
        struct cond idle;
        bool busy GUARDED_BY(lock); /* somebody reads and writes index.json now */
};

static struct layout_target *layout_target(struct target *t)
{
        return (struct layout_target *) t;
}

/* ---- files ---- */

static int write_draft(int dir, const char *name, const void *data, size_t n)
{
        _cleanup_close_ int fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        int r;

        if (fd < 0)
                return -errno;
        r = write_full(fd, data, n);
        if (r == 0 && fsync(fd) < 0)
                r = -errno;
        return r;
}

/* PATH appears with all of DATA, or stays as it was. */
static int write_file(struct layout_target *l, const char *path, const void *data, size_t n, struct error *e)
{
        uint64_t number;
        char draft[40];
        int r;

        if (getrandom(&number, sizeof(number), 0) != sizeof(number))
                return error_errno(e, EIO, "%s: random numbers", l->target.name);
        (void) snprintf(draft, sizeof(draft), ".draft-%016jx", (uintmax_t) number);
        r = write_draft(l->dir, draft, data, n);
        if (r == 0 && renameat(l->dir, draft, l->dir, path) < 0)
                r = -errno;
        if (r == 0)
                return 0;
        if (r != -EEXIST)
                (void) unlinkat(l->dir, draft, 0);
        return error_errno(e, -r, "%s: writing %s", l->target.name, path);
}

static int make_directory(struct layout_target *l, const char *path, struct error *e)
{
        if (mkdirat(l->dir, path, 0755) < 0 && errno != EEXIST)
                return error_errno(e, errno, "%s: creating directory %s", l->target.name, path);
        return 0;
}

static void blob_path(const struct digest *d, char *out, size_t size)
{
        char hex[2 * DIGEST_MAX_SIZE + 1];

        (void) snprintf(out, size, "blobs/%s/%s", digest_algorithm_name(d->algorithm), digest_hex(d, hex));
}

static bool has_blob(const struct layout_target *l, const struct digest *digest, uint64_t size)
{
        struct stat st;
        char path[160];

        blob_path(digest, path, sizeof(path));
        return fstatat(l->dir, path, &st, 0) == 0 && S_ISREG(st.st_mode) && (uint64_t) st.st_size == size;
}

static int put_blob(struct target *t, const struct digest *digest, const void *data, size_t n,
                    deadline_t deadline _unused_, struct error *e)
{
        struct layout_target *l = layout_target(t);
        char directory[40], path[160];
        int r;

        if (has_blob(l, digest, n))
                return 0;
        (void) snprintf(directory, sizeof(directory), "blobs/%s", digest_algorithm_name(digest->algorithm));
        r = make_directory(l, directory, e);
        if (r < 0)
                return r;
        blob_path(digest, path, sizeof(path));
        return write_file(l, path, data, n, e);
}

static int take_blob(struct target *t, const struct descriptor *blob, const char *repository _unused_,
                     deadline_t deadline _unused_, struct error *e)
{
        char digest[DIGEST_STRING_MAX];

        if (has_blob(layout_target(t), &blob->digest, blob->size))
                return 0;
        return error_set(e, ERROR_NOT_FOUND, ENOENT, "%s: blob %s is not there", t->name,
                         digest_format(&blob->digest, digest));
}

/* ---- index.json ---- */

/* From here on index.json is the caller's alone, in this process. */
static void claim_index(struct layout_target *l)
{
        mutex_lock(&l->lock);
        while (l->busy)
                cond_wait(&l->idle, &l->lock);
        l->busy = true;
        mutex_unlock(&l->lock);
}

static void release_index(struct layout_target *l)
{
        mutex_lock(&l->lock);
        l->busy = false;
        cond_signal(&l->idle);
        mutex_unlock(&l->lock);
}

static int read_index(struct layout_target *l, struct document *ret_text, struct manifest *ret, struct error *e)
{
        int r;

        ret_text->media_type = strdup("");
        if (!ret_text->media_type)
                return error_oom(e);
        r = file_read(l->dir, "index.json", MANIFEST_MAX, &ret_text->body, e);
        if (r == 0)
                r = manifest_parse(ret_text, "index.json", ret, e);
        if (r == 0 && ret->kind != MANIFEST_INDEX)
                r = error_set(e, ERROR_BAD_DATA, EBADMSG, "index.json is no image index");
        return r < 0 ? error_prefix(e, "%s", l->target.name) : 0;
}

/* Puts ENTRY in the place of those that are named NAME; with NAME NULL, unless its digest is there. */
static int enter(struct layout_target *l, const struct descriptor *entry, const char *name, struct error *e)
{
        _cleanup_document_ struct document text = { 0 };
        _cleanup_manifest_ struct manifest index = { 0 };
        _cleanup_buf_ struct buf changed = { 0 };
        _cleanup_free_ bool *drop = NULL;
        int r;

        r = read_index(l, &text, &index, e);
        if (r < 0)
                return r;
        drop = calloc(index.manifest_count + 1, sizeof(*drop));
        if (!drop)
                return error_oom(e);
        for (size_t k = 0; k < index.manifest_count; k++) {
                if (!name && digest_equal(&index.manifests[k].digest, &entry->digest))
                        return 0;
                drop[k] = name && str_eq(descriptor_annotation(&index.manifests[k], REF_NAME), name);
        }
        r = index_text_change(&text.body, index.manifest_count, drop, entry, &changed, e);
        if (r < 0)
                return error_prefix(e, "%s: index.json", l->target.name);
        return write_file(l, "index.json", changed.data, changed.len, e);
}

static int put_manifest(struct target *t, const char *tag, const char *media_type, const void *data, size_t n,
                        deadline_t deadline, struct error *e)
{
        struct layout_target *l = layout_target(t);
        char *annotations[] = { (char *) REF_NAME, (char *) tag, NULL };
        struct descriptor entry = { .size = n, .media_type = (char *) media_type, .annotations = annotations };
        int r;

        r = digest_of(DIGEST_SHA256, data, n, &entry.digest);
        if (r < 0)
                return error_errno(e, -r, "%s: hashing", t->name);
        r = put_blob(t, &entry.digest, data, n, deadline, e);
        if (r < 0 || !tag)
                return r;
        claim_index(l);
        r = enter(l, &entry, tag, e);
        release_index(l);
        return r;
}

static int attach(struct target *t, const struct digest *subject _unused_, const struct descriptor *artifact,
                  deadline_t deadline _unused_, struct error *e)
{
        struct layout_target *l = layout_target(t);
        int r;

        claim_index(l);
        r = enter(l, artifact, NULL, e);
        release_index(l);
        return r;
}

static struct target *free_target(struct target *t)
{
        struct layout_target *l = layout_target(t);

        if (l->dir >= 0)
                close(l->dir);
        cond_destroy(&l->idle);
        mutex_destroy(&l->lock);
        free(t->name);
        free(l);
        return NULL;
}

static const struct target_ops layout_target_ops = {
        .blob = put_blob,
        .take_blob = take_blob,
        .manifest = put_manifest,
        .attach = attach,
        .free = free_target,
};

/* ---- opening ---- */

/* What make_layout leaves when it does not come to its end: then it may begin again. */
static bool is_begun(const struct layout_target *l, const char *name)
{
        _cleanup_buf_ struct buf index = { 0 };

        if (strcmp(name, "blobs") == 0)
                return true;
        return strcmp(name, "index.json") == 0 && file_read(l->dir, name, sizeof(INDEX_EMPTY), &index, NULL) == 0 &&
               strcmp(index.data, INDEX_EMPTY) == 0;
}

/* 1: nothing of anybody else's is in the directory, 0: something is. */
static int is_empty(const struct layout_target *l, struct error *e)
{
        int fd = openat(l->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        DIR *directory = fd < 0 ? NULL : fdopendir(fd);
        struct dirent *entry;

        if (!directory) {
                int code = errno;

                if (fd >= 0)
                        close(fd);
                return error_errno(e, code, "%s", l->target.name);
        }
        while ((entry = readdir(directory)))
                if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 && !is_begun(l, entry->d_name))
                        break;
        closedir(directory);
        return !entry;
}

/* oci-layout comes last: what has it is a layout. */
static int make_layout(struct layout_target *l, struct error *e)
{
        int r = is_empty(l, e);

        if (r == 0)
                return error_set(e, ERROR_USAGE, EEXIST,
                                 "%s: the directory is no OCI image layout, and it is not empty", l->target.name);
        if (r > 0)
                r = make_directory(l, "blobs", e);
        if (r == 0)
                r = make_directory(l, "blobs/sha256", e);
        if (r == 0)
                r = write_file(l, "index.json", INDEX_EMPTY, strlen(INDEX_EMPTY), e);
        return r < 0 ? r : write_file(l, "oci-layout", VERSION, strlen(VERSION), e);
}

/* A layout that can be read can be written to. */
static int check_layout(const char *directory, struct error *e)
{
        _cleanup_(source_free_ptr) struct source *source = NULL;

        return layout_source_new(directory, NULL, &source, e);
}

int layout_target_new(const char *directory, struct target **ret, struct error *e)
{
        _cleanup_(target_free_ptr) struct target *target = NULL;
        struct layout_target *l = calloc(1, sizeof(*l));
        int r;

        if (!l)
                return error_oom(e);
        l->target.ops = &layout_target_ops;
        l->dir = -1;
        mutex_init(&l->lock);
        cond_init(&l->idle);
        target = &l->target;
        l->target.name = str_printf("oci:%s", directory);
        if (!l->target.name)
                return error_oom(e);
        r = make_directories(directory, 0755, e);
        if (r < 0)
                return r;
        l->dir = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (l->dir < 0)
                return error_errno(e, errno, "%s", l->target.name);
        r = faccessat(l->dir, "oci-layout", F_OK, 0) == 0 ? check_layout(directory, e) : make_layout(l, e);
        if (r < 0)
                return r;
        *ret = steal_ptr(target);
        return 0;
}
