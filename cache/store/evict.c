/* SPDX-License-Identifier: Apache-2.0 */

/* The store's limit. Writers count what they write and refuse to keep more than there is room for; one thread looks at
 * the disk when they have written a good deal, and takes away what was not used for longest. Nobody waits for it,
 * other than a layer that is to be closed while chunks are on their way out or their use is written down.
 *
 * Candidates are single chunks of the layers that this process has open, whoever else has (content_read.c), by the
 * clock of their last use here and by what other processes tell of theirs; and the content of layers that nobody has
 * open, by their map's modification time. Such a layer is taken with an exclusive lock: whoever has it open holds a
 * shared one. Without locks between processes (NFS and the like) only layers go that nobody has touched for an hour:
 * who has them open all the same loses his descriptors or goes on with unlinked files, and fetches again.
 *
 * Tables of contents, image indexes and blobs go last: when there is no content left to be taken, and not before
 * they were idle for long. */

#include <stdio.h>
#include <sys/stat.h>

#include "regfs/io.h"
#include "regfs/log.h"
#include "usage.h"

#define STEP_MIN (1 * MIB)
#define STEP_MAX (64 * MIB)
#define SLACK_MIN (8 * MIB)
#define SLACK_MAX (256 * MIB)
#define DISK_STEP ((uint64_t) 64 * MIB) /* is freed at a time where the disk is full */

/* Between two looks: at least so long, and longer in proportion to what one takes. */
#define LOOK_PAUSE_MS 10
#define LOOK_SHARE 4
#define STUCK_PAUSE_MS 1000
#define FIRST_MS 500    /* whoever opens an image has better things to do */
#define REST_MS 2000    /* a last look when writers have come to rest */
#define STUCK_MS 5000   /* others may have closed what they had open */
#define RESCAN_MS 60000 /* others write as well */
#define TELL_TICKS (5 * TICKS_PER_SECOND)

#define LAYER_IDLE_MS ((uint64_t) 60 * 60 * 1000)
#define FILE_IDLE_MS ((uint64_t) 24 * 60 * 60 * 1000)

/* A chunk of CONTENT, or a LAYER's content. */
struct candidate {
        uint64_t idle_ms;
        struct content *content;
        const struct usage_layer *layer;
        size_t chunk;
};

struct eviction {
        struct store *store;
        uint64_t want, freed;
        size_t chunks, layers, files;
        struct candidate *candidates;
        size_t count, allocated;
};

/* ---- how much ---- */

static uint64_t step_of(const struct evictor *v)
{
        return MIN(MAX(v->limit / 16, (uint64_t) STEP_MIN), (uint64_t) STEP_MAX);
}

static uint64_t slack_of(const struct evictor *v)
{
        return MIN(MAX(v->limit / 32, (uint64_t) SLACK_MIN), (uint64_t) SLACK_MAX);
}

static void *evictor_run(void *arg);

/* Returns 0 or -errno: then nobody evicts. */
static int start(struct store *s)
{
        struct evictor *v = &s->evictor;
        int r = 0;

        mutex_lock(&v->lock);
        if (!v->running) {
                r = thread_start(&v->thread, "evict", evictor_run, s);
                v->running = r == 0;
        }
        cond_broadcast(&v->changed);
        mutex_unlock(&v->lock);
        if (r < 0)
                log_debug("store %s: no thread that evicts: %s", s->path, strerror(-r));
        return r;
}

static void call(struct store *s)
{
        struct evictor *v = &s->evictor;

        if (!atomic_exchange(&v->wanted, true) && start(s) < 0)
                atomic_store(&v->wanted, false);
}

int evictor_take(struct store *s, uint64_t n)
{
        struct evictor *v = &s->evictor;
        uint64_t written, used;
        bool looked;

        if (v->limit == UINT64_MAX)
                return 0;
        looked = atomic_load(&v->looked);
        used = atomic_load(&v->used);
        written = atomic_fetch_add(&v->written, n) + n;
        if (!looked || written >= step_of(v) || used + written > v->limit)
                call(s);
        if (written <= v->limit + slack_of(v) && used <= v->limit + slack_of(v) - written)
                return 0;
        atomic_fetch_sub(&v->written, n);
        return -EDQUOT;
}

void evictor_call(struct store *s)
{
        if (s->evictor.limit == UINT64_MAX)
                return;
        atomic_store(&s->evictor.disk_is_full, true);
        call(s);
}

/* ---- candidates ---- */

static int add(struct eviction *e, uint64_t idle_ms, struct content *c, size_t chunk, const struct usage_layer *layer)
{
        if (array_reserve(e->candidates, &e->allocated, e->count + 1) < 0)
                return -ENOMEM;
        e->candidates[e->count++] = (struct candidate) {
                .idle_ms = idle_ms,
                .content = c,
                .chunk = chunk,
                .layer = layer,
        };
        return 0;
}

static int add_chunks(struct eviction *e, struct content *c)
{
        int r = 0;

        c->evicted = EVICT_UNTRIED;
        for (size_t i = 0; i < c->table->chunk_count && r == 0; i++)
                if (c->table->chunks[i].codec != CODEC_ZEROS && content_load_word(c, i) != 0)
                        r = add(e, content_idle_ms(c, i), c, i, NULL);
        return r;
}

static int longest_idle_first(const void *a, const void *b)
{
        const struct candidate *x = a, *y = b;

        if (x->idle_ms != y->idle_ms)
                return (x->idle_ms < y->idle_ms) - (x->idle_ms > y->idle_ms);
        if (x->content != y->content)
                return (x->content > y->content) - (x->content < y->content);
        return (x->chunk > y->chunk) - (x->chunk < y->chunk);
}

static int collect(struct eviction *e, const struct usage *u, struct evictor *v) REQUIRES(v->lock)
{
        struct content *c;
        int r = 0;

        for (size_t k = 0; k < u->layer_count && r == 0; k++)
                if (u->layers[k].content > 0)
                        r = add(e, u->layers[k].idle_ms, NULL, 0, &u->layers[k]);
        TAILQ_FOREACH(c, &v->contents, siblings) {
                if (r == 0 && atomic_load(&e->store->punches) && atomic_load(&e->store->locks))
                        r = add_chunks(e, c);
        }
        if (e->count > 0)
                qsort(e->candidates, e->count, sizeof(*e->candidates), longest_idle_first);
        return r;
}

/* ---- taking away ---- */

/* Nobody else takes anything of C away: until unlock_contents. */
static bool lock_content(struct content *c)
{
        if (c->evicted == EVICT_UNTRIED)
                c->evicted = content_lock_eviction(c) ? EVICT_LOCKED : EVICT_REFUSED;
        return c->evicted == EVICT_LOCKED;
}

static void unlock_contents(struct eviction *e)
{
        for (size_t k = 0; k < e->count; k++) {
                struct content *c = e->candidates[k].content;

                if (c && c->evicted == EVICT_LOCKED)
                        content_unlock_eviction(c);
                if (c)
                        c->evicted = EVICT_UNTRIED;
        }
}

/* Evicts the chunk of candidate K and its neighbours, as far as they are the next candidates. Returns how many. */
static size_t evict_chunks(struct eviction *e, size_t k)
{
        const struct candidate *first = &e->candidates[k];
        struct content *c = first->content;
        uint64_t bytes = 0;
        size_t n = 0, end;

        while (k + n < e->count && first[n].content == c && first[n].chunk == first->chunk + n &&
               (n == 0 || bytes < e->want - e->freed)) {
                bytes += c->table->chunks[first[n].chunk].content_length;
                n++;
        }
        if (!lock_content(c))
                return n;
        e->freed += content_evict(c, first->chunk, first->chunk + n, &end);
        e->chunks += end - first->chunk;
        return MIN(end - first->chunk + 1, n); /* the next one may be in use */
}

/* The descriptor whose lock says that nobody has the layer at PATH open; -errno when somebody has, or may have. -ENOENT: it
 * has no map. */
static int lock_layer(struct eviction *e, const struct usage_layer *l)
{
        char path[STORE_PATH_MAX + 16];
        int fd, r;

        if (!atomic_load(&e->store->locks) && l->idle_ms < LAYER_IDLE_MS)
                return -EBUSY;
        snprintf(path, sizeof(path), "%s/map", l->path);
        fd = openat(e->store->fd, path, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        r = store_lock(e->store, fd, F_WRLCK, CONTENT_USE_OFFSET, 1);
        if (r < 0)
                close_fd_ptr(&fd);
        return r < 0 ? r : fd;
}

static void remove_below(struct store *s, const char *path, const char *name)
{
        char below[STORE_PATH_MAX + 16];

        snprintf(below, sizeof(below), "%s/%s", path, name);
        (void) unlinkat(s->fd, below, 0);
}

/* The table of contents goes on being as old as the layer's last use. */
static void keep_age(struct store *s, const char *path, int map)
{
        char toc[STORE_PATH_MAX + 16];
        struct stat st;

        if (fstat(map, &st) < 0)
                return;
        const struct timespec times[2] = { st.st_mtim, st.st_mtim };

        snprintf(toc, sizeof(toc), "%s/toc", path);
        (void) utimensat(s->fd, toc, times, AT_SYMLINK_NOFOLLOW);
}

static void evict_layer_content(struct eviction *e, const struct usage_layer *l)
{
        _cleanup_close_ int map = lock_layer(e, l);

        /* Content without a map is somebody's who is about to write one. */
        if (map < 0)
                return;
        keep_age(e->store, l->path, map);
        remove_below(e->store, l->path, "map");
        remove_below(e->store, l->path, "content");
        e->freed += l->content;
        e->layers++;
}

static bool is_enough(const struct eviction *e)
{
        return e->freed >= e->want;
}

static void evict_candidates(struct eviction *e)
{
        size_t k = 0;

        while (k < e->count && !is_enough(e) && atomic_load(&e->store->evictor.leaving) == 0) {
                if (e->candidates[k].content) {
                        k += evict_chunks(e, k);
                } else {
                        evict_layer_content(e, e->candidates[k].layer);
                        k++;
                }
        }
}

/* Holds on to the contents that are open, which then stay so: until let_go. */
static void hold_on(struct evictor *v) REQUIRES(v->lock)
{
        v->evicting = true;
}

static void let_go(struct evictor *v)
{
        mutex_lock(&v->lock);
        v->evicting = false;
        cond_broadcast(&v->changed);
        mutex_unlock(&v->lock);
}

static int evict_content(struct eviction *e, const struct usage *u)
{
        struct evictor *v = &e->store->evictor;
        int r;

        mutex_lock(&v->lock);
        r = collect(e, u, v);
        hold_on(v);
        mutex_unlock(&v->lock);

        if (r == 0)
                evict_candidates(e);
        unlock_contents(e);
        let_go(v);
        return r;
}

/* ---- telling ---- */

static struct content **list_contents(struct evictor *v, size_t *ret_count) REQUIRES(v->lock)
{
        struct content **list, *c;
        size_t n = 0;

        TAILQ_FOREACH(c, &v->contents, siblings)
                n++;
        list = calloc(n + 1, sizeof(struct content *));
        *ret_count = list ? n : 0;
        n = 0;
        TAILQ_FOREACH(c, &v->contents, siblings) {
                if (list)
                        list[n++] = c;
        }
        return list;
}

/* Other processes that evict are to know what this one uses. */
static void tell_others(struct store *s)
{
        _cleanup_free_ struct content **list = NULL;
        struct evictor *v = &s->evictor;
        uint32_t tick = content_tick();
        size_t count;

        mutex_lock(&v->lock);
        list = list_contents(v, &count);
        hold_on(v);
        mutex_unlock(&v->lock);
        for (size_t k = 0; k < count; k++)
                if (tick - list[k]->told >= TELL_TICKS)
                        content_tell(list[k]);
        let_go(v);
}

/* Whole layers. Their order is that of the directories: who comes to this has a limit that is too low anyway. */
static void evict_layers(struct eviction *e, const struct usage *u)
{
        for (size_t k = 0; k < u->layer_count && !is_enough(e); k++) {
                const struct usage_layer *l = &u->layers[k];
                _cleanup_close_ int map = -1;
                char away[STORE_PATH_MAX];

                if (l->idle_ms < LAYER_IDLE_MS)
                        continue;
                map = lock_layer(e, l);
                if ((map < 0 && map != -ENOENT) || store_draft_name("removed", away, NULL) < 0 ||
                    renameat(e->store->fd, l->path, e->store->fd, away) < 0)
                        continue;
                (void) store_remove_tree(e->store->fd, away);
                e->freed += l->rest;
                e->layers++;
        }
}

static void evict_files(struct eviction *e, const struct usage *u)
{
        for (size_t k = 0; k < u->file_count && !is_enough(e); k++) {
                const struct usage_file *f = &u->files[k];

                if (f->idle_ms < FILE_IDLE_MS || unlinkat(e->store->fd, f->path, 0) < 0)
                        continue;
                e->freed += f->size;
                e->files++;
        }
}

/* ---- looking ---- */

/* What is to be left. */
static uint64_t goal_of(struct store *s, uint64_t used)
{
        const struct evictor *v = &s->evictor;
        uint64_t goal = used > v->limit ? v->limit - v->limit / 16 : used;

        if (atomic_exchange(&s->evictor.disk_is_full, false) && store_disk_room(s->fd) < DISK_STEP)
                goal = MIN(goal, used > DISK_STEP ? used - DISK_STEP : 0);
        return goal;
}

static void evict(struct store *s, const struct usage *u, uint64_t goal)
{
        struct eviction e = { .store = s, .want = u->total - goal };
        int r;

        r = evict_content(&e, u);
        if (r == 0 && !is_enough(&e) && atomic_load(&s->evictor.leaving) == 0) {
                evict_layers(&e, u);
                evict_files(&e, u);
        }
        free(e.candidates);
        atomic_store(&s->evictor.used, u->total - MIN(u->total, e.freed));
        atomic_store(&s->evictor.stuck, e.freed == 0 || u->total - MIN(u->total, e.freed) > s->evictor.limit);
        log_write(e.freed > 0 ? LOG_LEVEL_INFO : LOG_LEVEL_DEBUG,
                  "store %s: %ju bytes, limit %ju: %ju bytes taken away: %zu chunks, %zu layers, %zu other files",
                  s->path, (uintmax_t) u->total, (uintmax_t) s->evictor.limit, (uintmax_t) e.freed, e.chunks, e.layers,
                  e.files);
}

/* Returns how long to wait before the next look, if one is wanted. */
static uint64_t look(struct store *s)
{
        _cleanup_turn_ struct store_turn turn = STORE_TURN_INIT;
        uint64_t written = atomic_load(&s->evictor.written), begin = clock_ms(), goal;
        struct evictor *v = &s->evictor;
        _cleanup_usage_ struct usage u = { 0 };

        tell_others(s);
        if (usage_scan(s, &u) < 0)
                return STUCK_PAUSE_MS;
        atomic_store(&v->used, u.total);
        atomic_fetch_sub(&v->written, written);
        atomic_store(&v->looked, true);
        goal = goal_of(s, u.total);
        if (goal >= u.total) {
                atomic_store(&v->stuck, false);
        } else if (store_turn_try(s, "evict", &turn) < 0) {
                call(s); /* another process is at it: see what it leaves */
        } else {
                evict(s, &u, goal);
        }
        return atomic_load(&v->stuck) ? STUCK_PAUSE_MS : LOOK_PAUSE_MS + LOOK_SHARE * (clock_ms() - begin);
}

static void wait_until(struct evictor *v, deadline_t deadline, bool wanted) REQUIRES(v->lock)
{
        while (!v->stopping && deadline_left(deadline) > 0 && !(wanted && atomic_load(&v->wanted)))
                (void) cond_wait_until(&v->changed, &v->lock, deadline);
}

/* Until the next look, when nobody wants one. */
static uint64_t idle_pause(const struct evictor *v)
{
        if (atomic_load(&v->written) > 0)
                return REST_MS;
        return atomic_load(&v->stuck) ? STUCK_MS : RESCAN_MS;
}

static void *evictor_run(void *arg)
{
        struct store *s = arg;
        struct evictor *v = &s->evictor;
        uint64_t idle = FIRST_MS, pause;

        mutex_lock(&v->lock);
        while (!v->stopping) {
                wait_until(v, deadline_in(idle), true);
                if (v->stopping)
                        break;
                atomic_store(&v->wanted, false);
                mutex_unlock(&v->lock);
                pause = look(s);
                mutex_lock(&v->lock);
                wait_until(v, deadline_in(pause), false);
                idle = idle_pause(v);
        }
        mutex_unlock(&v->lock);
        return NULL;
}

/* ---- the rest ---- */

void evictor_init(struct store *s)
{
        struct evictor *v = &s->evictor;

        v->limit = UINT64_MAX;
        mutex_init(&v->lock);
        cond_init(&v->changed);
        mutex_lock(&v->lock);
        TAILQ_INIT(&v->contents);
        mutex_unlock(&v->lock);
}

void evictor_clear(struct store *s)
{
        struct evictor *v = &s->evictor;
        bool running;

        mutex_lock(&v->lock);
        v->stopping = true;
        running = v->running;
        cond_broadcast(&v->changed);
        mutex_unlock(&v->lock);
        if (running)
                pthread_join(v->thread, NULL);
        cond_destroy(&v->changed);
        mutex_destroy(&v->lock);
}

void store_set_limit(struct store *s, uint64_t bytes)
{
        if (!s->read_only)
                s->evictor.limit = MIN(bytes, (uint64_t) INT64_MAX);
}

void store_touch(struct store *s, int fd)
{
        if (!s->read_only)
                (void) futimens(fd, NULL);
}

void evictor_enter(struct content *c)
{
        struct evictor *v = &c->store->evictor;

        if (c->denied != 0 || !c->words)
                return;
        mutex_lock(&v->lock);
        TAILQ_INSERT_TAIL(&v->contents, c, siblings);
        c->entered = true;
        mutex_unlock(&v->lock);
        if (v->limit != UINT64_MAX)
                (void) start(c->store);
}

void evictor_leave(struct content *c)
{
        struct evictor *v = &c->store->evictor;

        if (!c->entered)
                return;
        atomic_fetch_add(&v->leaving, 1);
        mutex_lock(&v->lock);
        while (v->evicting)
                cond_wait(&v->changed, &v->lock);
        TAILQ_REMOVE(&v->contents, c, siblings);
        mutex_unlock(&v->lock);
        atomic_fetch_sub(&v->leaving, 1);
}
