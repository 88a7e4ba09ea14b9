/* SPDX-License-Identifier: Apache-2.0 */

/* One thread examines the layers, one after the other; the caller's thread shows progress and tells what was found. The
 * lock is for the lines between the two, and for the end. */

#include "regfs/verify.h"

#include <ftw.h>
#include <stdio.h>
#include <string.h>

#include "regfs/file_blob.h"
#include "regfs/io.h"
#include "regfs/log.h"
#include "verify_internal.h"

#define PROGRESS_INTERVAL_MS 100
#define LINES_MAX (256 * KIB) /* that wait to be told */

struct verification {
        struct image *image;
        const struct verify_options *options;
        struct layer_progress *progress; /* of each layer */
        struct verify_result counts;     /* the thread's, until it has ended */
        struct mutex lock;
        struct cond changed;
        struct buf lines GUARDED_BY(lock); /* not yet told, each with a NUL behind it */
        bool deaf GUARDED_BY(lock);        /* nobody wants to hear more */
        bool done GUARDED_BY(lock);
        int result; /* of the thread, once it has ended */
        struct error error;
        atomic_bool cancel;
        uint64_t request; /* of the log */
};

/* ---- what the thread tells ---- */

/* Hands a line to the caller's thread; waits while that is behind. */
static void tell(struct verification *v, const char *line)
{
        mutex_lock(&v->lock);
        while (v->lines.len > LINES_MAX && !v->deaf && !atomic_load(&v->cancel))
                cond_wait(&v->changed, &v->lock);
        if (!v->deaf && buf_append(&v->lines, line, strlen(line) + 1) == 0)
                cond_broadcast(&v->changed);
        mutex_unlock(&v->lock);
}

void verify_problem(struct layer_check *c, const char *format, ...)
{
        uint64_t max = c->all->options->report_max;
        _cleanup_buf_ struct buf line = { 0 };
        va_list ap;
        int r;

        c->problems++;
        if (max > 0 && c->reported >= max)
                return;
        c->reported++;
        va_start(ap, format);
        r = buf_printf(&line, "%s: ", c->name);
        if (r == 0)
                r = buf_vprintf(&line, format, ap);
        va_end(ap);
        if (r == 0)
                tell(c->all, line.data);
}

static void tell_rest(struct layer_check *c)
{
        char line[sizeof(c->name) + 64];

        if (c->problems == c->reported)
                return;
        snprintf(line, sizeof(line), "%s: … and %ju more", c->name, (uintmax_t) (c->problems - c->reported));
        tell(c->all, line);
}

int verify_check_cancel(const struct layer_check *c, struct error *e)
{
        if (atomic_load(&c->all->cancel))
                return error_set(e, ERROR_OTHER, ECANCELED, "%s: verification was interrupted", c->name);
        return 0;
}

void verify_passed(struct layer_check *c, uint64_t blob_end)
{
        c->all->counts.chunks++;
        if (blob_end > atomic_load(&c->progress->compared))
                atomic_store(&c->progress->compared, blob_end);
}

/* ---- the layer, here ---- */

static int on_piece(void *context, uint64_t offset, const uint8_t *data, size_t n, struct error *e)
{
        struct layer_check *c = context;
        int r = write_full(c->fd, data, n);

        if (r < 0)
                return error_errno(e, -r, "%s: a temporary file in %s", c->name, temporary_directory());
        atomic_store(&c->progress->received, offset + n);
        return 0;
}

static int receive(struct layer_check *c, struct error *e)
{
        struct image *i = c->all->image;
        const struct blob *blob = c->layer->blob;
        const struct blob_stream stream = {
                .blob = c->layer->blob,
                .pool = i->pool,
                .timeout_ms = i->timeout_ms,
                .cancel = &c->all->cancel,
        };
        int r;

        c->fd = temporary_file(e);
        if (c->fd < 0)
                return c->fd;
        r = file_blob_new(c->fd, 0, &blob->digest, blob->size, c->name, &c->file, e);
        if (r < 0)
                return r;
        return blob_stream(&stream, 0, blob->size, on_piece, c, e);
}

/* A store of its own for the tar's index and content. */
struct scratch {
        char *path;
        struct store *store;
};

static int remove_one(const char *path, const struct stat *st _unused_, int type _unused_, struct FTW *ftw _unused_)
{
        return remove(path);
}

static void scratch_clear(struct scratch *s)
{
        store_close(s->store);
        if (s->path && nftw(s->path, remove_one, 16, FTW_PHYS | FTW_DEPTH) < 0)
                log_warning("%s: cannot be removed: %s", s->path, strerror(errno));
        free(s->path);
}

static int scratch_init(struct scratch *s, struct error *e)
{
        _cleanup_free_ char *path = str_printf("%s/regfs-verify-XXXXXX", temporary_directory());

        if (!path)
                return error_oom(e);
        if (!mkdtemp(path))
                return error_errno(e, errno, "%s: a temporary directory", temporary_directory());
        s->path = steal_ptr(path);
        return store_open(s->path, &s->store, e);
}

/* The digest, and an index of what the layer holds by its own bytes. */
static int index_truth(struct layer_check *c, struct store *store, struct error *e)
{
        struct image *i = c->all->image;
        struct index_options options = {
                .blob = c->file,
                .digest_is_diff_id = str_after(i->source->name, "docker-archive:") != NULL,
                .pool = i->pool,
                .store = store,
                .timeout_ms = i->timeout_ms,
                .progress = &c->progress->indexed,
                .cancel = &c->all->cancel,
        };
        int r = index_layer(&options, e);

        if (r < 0)
                return r;

        _cleanup_close_ int fd = store_layer_toc(store, &c->file->digest, KIND_PLAIN);

        if (fd < 0)
                return error_errno(e, -fd, "%s: index just written", c->name);
        return toc_open(fd, &c->file->digest, &c->truth, e);
}

static int open_truth(struct layer_check *c, struct store *store, struct error *e)
{
        struct fetcher_options options = {
                .blob = c->file,
                .table = &c->truth->chunks,
                .pool = c->all->image->pool,
                .workers = c->all->image->workers,
        };
        int r = content_open(store, &c->file->digest, KIND_PLAIN, &c->truth->chunks, &c->content, e);

        options.content = c->content;
        return r < 0 ? r : fetcher_new(&options, &c->fetcher, e);
}

/* ---- one layer ---- */

static void layer_check_clear(struct layer_check *c)
{
        fetcher_free(c->fetcher);
        content_close(c->content);
        toc_close(c->truth);
        blob_free(c->file);
        free(c->pairs);
}

static int on_difference(void *context, const char *text)
{
        verify_problem(context, "%s", text);
        return 0;
}

static int compare(struct layer_check *c, struct error *e)
{
        const struct toc *told = c->layer->toc;
        struct comparison_result result;
        int r;

        if (told->chunks.blob_size != c->file->size)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "the table is of a blob of %ju bytes, not %ju",
                                 (uintmax_t) told->chunks.blob_size, (uintmax_t) c->file->size);
        r = toc_check(told, e);
        if (r < 0)
                return r;
        c->pairs = malloc(told->itable.inode_count * sizeof(*c->pairs));
        if (!c->pairs)
                return error_oom(e);
        r = itable_compare(&told->itable, &c->truth->itable, on_difference, c, c->pairs, &result, e);
        if (r < 0)
                return r;
        c->all->counts.entries += result.entries;
        return verify_content(c, e);
}

static int examine(struct layer_check *c, struct store *store, struct error *e)
{
        int r;

        r = receive(c, e);
        if (r == 0)
                r = index_truth(c, store, e);
        if (r == 0)
                r = open_truth(c, store, e);
        return r < 0 ? r : compare(c, e);
}

/* Bad data is what this is here to find: it ends the layer, not the verification. */
static int check_layer(struct verification *v, size_t k, struct error *e)
{
        struct layer_check c = { .all = v, .layer = &v->image->layers[k], .progress = &v->progress[k], .fd = -1 };
        uint64_t size = c.layer->blob->size, begin = clock_ms();
        _cleanup_(scratch_clear) struct scratch scratch = { 0 };
        struct error why = ERROR_INIT;
        char digest[DIGEST_STRING_MAX];
        int r;

        snprintf(c.name, sizeof(c.name), "layer %s", digest_format(&c.layer->descriptor.digest, digest));
        r = scratch_init(&scratch, &why);
        if (r == 0)
                r = examine(&c, scratch.store, &why);
        if (r == -EBADMSG) {
                const char *rest = str_after(why.message, c.name);

                verify_problem(&c, "%s", rest && str_after(rest, ": ") ? rest + 2 : why.message);
                r = 0;
        }
        layer_check_clear(&c);
        if (r < 0) {
                if (e)
                        *e = why;
                return r;
        }
        tell_rest(&c);
        atomic_store(&c.progress->received, size);
        atomic_store(&c.progress->indexed, size);
        atomic_store(&c.progress->compared, size);
        v->counts.layers++;
        v->counts.bytes += size;
        v->counts.problems += c.problems;
        log_info("%s: read by %s: %ju problems, %ju ms", c.name, c.layer->kind, (uintmax_t) c.problems,
                 (uintmax_t) (clock_ms() - begin));
        return 0;
}

static void *run(void *context)
{
        struct verification *v = context;
        int r = 0;

        LOG_SCOPE(v->request, NULL);
        for (size_t k = 0; k < v->image->layer_count && r == 0; k++)
                if (v->image->layers[k].same_as == k)
                        r = check_layer(v, k, &v->error);
        v->result = r;
        mutex_lock(&v->lock);
        v->done = true;
        cond_broadcast(&v->changed);
        mutex_unlock(&v->lock);
        return NULL;
}

/* ---- the caller's thread ---- */

static void report_lines(struct verification *v, const struct buf *lines)
{
        const struct verify_options *o = v->options;
        bool deaf = !o->report;

        for (size_t at = 0; at < lines->len && !deaf; at += strlen(lines->data + at) + 1)
                deaf = o->report(o->report_context, lines->data + at) != 0;
        if (!deaf)
                return;
        mutex_lock(&v->lock);
        v->deaf = true;
        cond_broadcast(&v->changed);
        mutex_unlock(&v->lock);
}

static void report_progress(struct verification *v)
{
        const struct verify_options *o = v->options;
        uint64_t done = 0, total = 0;

        if (!o->progress)
                return;
        for (size_t k = 0; k < v->image->layer_count; k++) {
                struct layer_progress *p = &v->progress[k];

                if (v->image->layers[k].same_as != k)
                        continue;
                done += atomic_load(&p->received) + atomic_load(&p->indexed) + atomic_load(&p->compared);
                total += 3 * v->image->layers[k].blob->size;
        }
        if (o->progress(o->progress_context, done, total) == 0)
                return;
        mutex_lock(&v->lock);
        atomic_store(&v->cancel, true);
        cond_broadcast(&v->changed);
        mutex_unlock(&v->lock);
}

static void watch(struct verification *v)
{
        bool done;

        do {
                _cleanup_buf_ struct buf lines = { 0 };

                mutex_lock(&v->lock);
                if (!v->done && v->lines.len == 0)
                        (void) cond_wait_until(&v->changed, &v->lock, deadline_in(PROGRESS_INTERVAL_MS));
                lines = v->lines;
                v->lines = (struct buf) { 0 };
                done = v->done;
                cond_broadcast(&v->changed);
                mutex_unlock(&v->lock);
                report_lines(v, &lines);
                report_progress(v);
        } while (!done);
}

int image_verify(struct image *i, const struct verify_options *options, struct verify_result *ret, struct error *e)
{
        _cleanup_free_ struct layer_progress *progress = calloc(i->layer_count, sizeof(*progress));
        struct verification v = {
                .image = i, .options = options, .progress = progress, .request = log_current_request()
        };
        pthread_t thread;
        int r;

        if (!progress)
                return error_oom(e);
        mutex_init(&v.lock);
        cond_init(&v.changed);
        report_progress(&v);
        r = thread_start(&thread, "verify", run, &v);
        if (r == 0) {
                watch(&v);
                pthread_join(thread, NULL);
                r = v.result;
                if (r < 0 && e)
                        *e = v.error;
        } else {
                error_errno(e, -r, "cannot start a thread");
        }
        cond_destroy(&v.changed);
        mutex_destroy(&v.lock);
        if (r == 0)
                *ret = v.counts;
        return r;
}
