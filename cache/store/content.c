/* SPDX-License-Identifier: Apache-2.0 */

/* The files of one layer's content: the map, and opening both. */

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

#include "regfs/io.h"
#include "regfs/log.h"
#include "store_internal.h"

/* For one who evicts from a layer that is to be opened. */
#define OPEN_PATIENCE_MS 2000

/* ---- the map file ---- */

void content_map_header_init(struct content_map_header *h, uint64_t chunk_count, uint64_t identity)
{
        *h = (struct content_map_header) {
                .version = CONTENT_MAP_VERSION,
                .header_length = sizeof(*h),
                .file_length = content_stamp_offset(chunk_count, chunk_count),
                .chunk_count = chunk_count,
                .identity = identity,
        };
        memcpy(h->magic, CONTENT_MAP_MAGIC, sizeof(h->magic));
}

void content_identity_add(XXH3_state_t *identity, uint64_t content_offset, uint64_t content_length)
{
        const uint64_t row[] = { content_offset, content_length };

        XXH3_64bits_update(identity, row, sizeof(row));
}

static int expected_header(const struct chunk_table *t, struct content_map_header *ret)
{
        XXH3_state_t *identity = XXH3_createState();

        if (!identity)
                return -ENOMEM;
        XXH3_64bits_reset(identity);
        for (size_t i = 0; i < t->chunk_count; i++)
                content_identity_add(identity, t->chunks[i].content_offset, t->chunks[i].content_length);
        content_map_header_init(ret, t->chunk_count, XXH3_64bits_digest(identity));
        XXH3_freeState(identity);
        return 0;
}

static uint64_t content_end(const struct chunk_table *t)
{
        return t->chunk_count > 0 ? chunk_end(&t->chunks[t->chunk_count - 1]) : 0;
}

/* ---- open ---- */

static uint64_t idle_ms(const struct stat *st)
{
        struct timespec now;

        if (clock_gettime(CLOCK_REALTIME, &now) < 0 || now.tv_sec <= st->st_mtim.tv_sec)
                return 0;
        return (uint64_t) (now.tv_sec - st->st_mtim.tv_sec) * 1000;
}

static void sleep_ms(uint64_t ms)
{
        struct timespec t = { .tv_nsec = (long) ms * 1000000 };

        nanosleep(&t, NULL);
}

static void close_files(struct content *c)
{
        if (c->map)
                munmap(c->map, c->map_size);
        if (c->words_are_own)
                free(c->words);
        c->words_are_own = false;
        close_fd_ptr(&c->fd);
        close_fd_ptr(&c->map_fd);
        c->map = NULL;
        c->words = NULL;
        c->epochs = NULL;
        c->stamps = NULL;
        c->fd = c->map_fd = -1;
}

/* What a store that is only read may have from an older regfs. */
static struct content_map_header first_version(const struct content_map_header *h)
{
        struct content_map_header first = *h;

        first.version = 1;
        first.file_length = content_word_offset(h->chunk_count);
        return first;
}

static int check_header(struct content *c, uint64_t length, const struct content_map_header *expected)
{
        const struct content_map_header first = first_version(expected);
        struct content_map_header header;
        int r = pread_full(c->map_fd, &header, sizeof(header), 0);

        if (r < 0)
                return r == -ENODATA ? -ESTALE : r;
        c->has_no_epochs = c->store->lower && memcmp(&header, &first, sizeof(header)) == 0;
        if (length != (c->has_no_epochs ? first.file_length : expected->file_length))
                return -ESTALE;
        return c->has_no_epochs || memcmp(&header, expected, sizeof(header)) == 0 ? 0 : -ESTALE;
}

/* Returns 0; -ENOENT when one is gone, -ESTALE when they don't fit the table; -errno. */
static int check_files(struct content *c, const struct content_map_header *expected)
{
        struct stat content, map;

        if (fstat(c->fd, &content) < 0 || fstat(c->map_fd, &map) < 0)
                return -errno;
        if (content.st_nlink == 0 || map.st_nlink == 0)
                return -ENOENT; /* removed or replaced since they were opened */
        if ((uint64_t) content.st_size < content_end(c->table))
                return -ESTALE;
        return check_header(c, (uint64_t) map.st_size, expected);
}

static int copy_words(struct content *c, uint64_t count)
{
        size_t size = (size_t) count * sizeof(uint64_t);
        int r;

        c->words = malloc(size + 1);
        if (!c->words)
                return -ENOMEM;
        c->words_are_own = true;
        r = pread_full(c->map_fd, (void *) c->words, size, content_word_offset(0));
        return r == -ENODATA ? -ESTALE : r;
}

static int map_words(struct content *c, const struct content_map_header *expected)
{
        c->map_size = (size_t) expected->file_length;
        if (c->store->remote || c->store->lower) /* they could go away */
                return copy_words(c, expected->chunk_count);
        c->map = mmap(NULL, c->map_size, PROT_READ, MAP_SHARED, c->map_fd, 0);
        if (c->map == MAP_FAILED) {
                c->map = NULL;
                return -errno;
        }
        c->words = (_Atomic uint64_t *) ((uint8_t *) c->map + content_word_offset(0));
        c->epochs = (_Atomic uint64_t *) ((uint8_t *) c->map + content_epoch_offset(expected->chunk_count, 0));
        c->stamps = (_Atomic uint32_t *) ((uint8_t *) c->map + content_stamp_offset(expected->chunk_count, 0));
        return 0;
}

/* Says that the layer is open, for as long as it is. Somebody who evicts from it is waited for, not for long: he may
 * hang. */
static int lock_use(struct content *c, int flags)
{
        struct patience patience;
        uint64_t pause;
        struct stat st;

        if (c->store->read_only)
                return 0;
        patience_begin(&patience, OPEN_PATIENCE_MS);
        while (store_lock(c->store, c->map_fd, F_RDLCK, CONTENT_USE_OFFSET, 1) < 0) {
                if (!patience_left(&patience, 0, &pause))
                        return -EBUSY;
                sleep_ms(pause);
        }
        if (fstat(c->map_fd, &st) < 0)
                return -errno;
        c->idle_ms = idle_ms(&st);
        if (flags == O_RDWR)
                (void) futimens(c->map_fd, NULL);
        return 0;
}

/* Opens the two files below DIRECTORY. FLAGS: O_RDWR or O_RDONLY. -ENOENT when one is missing, -ESTALE when they
 * don't fit. */
static int open_files(struct content *c, int directory, int flags, const struct content_map_header *expected)
{
        int r;

        if (c->store->lower)
                flags |= O_NONBLOCK; /* what is no file after all must not hold us up */
        c->fd = openat(directory, "content", flags | O_CLOEXEC);
        if (c->fd < 0)
                return -errno;
        c->map_fd = openat(directory, "map", flags | O_CLOEXEC);
        if (c->map_fd < 0)
                return -errno;
        r = store_check_file(c->store, c->fd, "content");
        if (r == 0)
                r = store_check_file(c->store, c->map_fd, "map");
        if (r == 0)
                r = lock_use(c, flags);
        if (r == 0)
                r = check_files(c, expected);
        if (r < 0)
                return r;
        return map_words(c, expected);
}

static int open_directory(struct content *c, const char *directory, const struct content_map_header *expected)
{
        _cleanup_close_ int fd = openat(c->store->fd, directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
        int r;

        if (fd < 0)
                return -errno;
        r = open_files(c, fd, c->store->read_only ? O_RDONLY : O_RDWR, expected);
        if ((r == -EACCES || r == -EROFS) && !c->store->read_only) {
                close_files(c);
                r = open_files(c, fd, O_RDONLY, expected);
                c->denied = -EROFS;
        }
        if (r < 0)
                close_files(c);
        return r;
}

static int put_fresh(struct store *s, const char *directory, const char *file, uint64_t length,
                     const struct content_map_header *map)
{
        _cleanup_draft_ struct store_draft d = STORE_DRAFT_INIT;
        struct error e = ERROR_INIT;
        char path[STORE_PATH_MAX];
        int r;

        r = store_draft_new(s, &d, &e);
        if (r == 0 && map)
                r = content_map_write(d.fd, map, NULL);
        else if (r == 0 && ftruncate(d.fd, (off_t) length) < 0)
                r = -errno;
        if (r < 0)
                return r;
        snprintf(path, sizeof(path), "%s/%s", directory, file);
        return store_draft_move(&d, path, &e);
}

/* Empty files in place of what is missing or doesn't fit. Readers of the old ones go on with those. The old map goes
 * first: nobody is to pair it with the new content, and take chunks of that away by epochs that others don't look
 * at. */
static int rebuild(struct content *c, const char *directory, const struct content_map_header *header)
{
        char map[STORE_PATH_MAX + 16];
        int r;

        snprintf(map, sizeof(map), "%s/map", directory);
        if (unlinkat(c->store->fd, map, 0) < 0 && errno != ENOENT)
                return -errno;
        r = put_fresh(c->store, directory, "content", MAX(c->table->content_size, content_end(c->table)), NULL);
        return r < 0 ? r : put_fresh(c->store, directory, "map", 0, header);
}

static bool is_to_be_rebuilt(const struct content *c, int r)
{
        return (r == -ENOENT || r == -ESTALE) && !c->store->read_only;
}

/* One process at a time does so, that all have the same files. */
static int open_or_rebuild(struct content *c, const char *directory)
{
        _cleanup_turn_ struct store_turn turn = STORE_TURN_INIT;
        struct content_map_header header;
        struct patience patience;
        bool my_turn = false;
        uint64_t pause;
        int r;

        r = expected_header(c->table, &header);
        if (r < 0)
                return r;
        patience_begin(&patience, OPEN_PATIENCE_MS);
        for (;;) {
                r = open_directory(c, directory, &header);
                if (!is_to_be_rebuilt(c, r) || my_turn)
                        break;
                my_turn = store_turn_try(c->store, directory, &turn) == 0 || !patience_left(&patience, 0, &pause);
                if (!my_turn)
                        sleep_ms(pause);
        }
        if (r == -ESTALE)
                log_write(c->store->lower ? LOG_LEVEL_DEBUG : LOG_LEVEL_WARNING,
                          "%s: content and map don't fit the layer's index", c->name);
        if (!is_to_be_rebuilt(c, r))
                return r;
        if (!c->store->sparse)
                return -EOPNOTSUPP;
        r = rebuild(c, directory, &header);
        return r < 0 ? r : open_directory(c, directory, &header);
}

int content_open(struct store *s, const struct digest *layer, const char *kind, const struct chunk_table *table,
                 struct content **ret, struct error *e)
{
        _cleanup_(content_close_ptr) struct content *c = NULL;
        char path[STORE_PATH_MAX], name[DIGEST_STRING_MAX];
        int r;

        r = store_layer_path(layer, kind, NULL, path, e);
        if (r < 0)
                return r;
        c = calloc(1, sizeof(*c));
        if (!c)
                return error_oom(e);
        c->store = s;
        c->table = table;
        c->fd = c->map_fd = -1;
        c->denied = s->read_only ? -EROFS : 0;
        c->name = str_printf("%s %s%s%s", digest_format(layer, name), kind, s->lower ? " in " : "",
                             s->lower ? s->path : "");
        c->states = calloc(table->chunk_count + 1, sizeof(*c->states));
        c->verified = calloc(table->chunk_count + 1, sizeof(*c->verified));
        c->used = calloc(table->chunk_count + 1, sizeof(*c->used));
        if (!c->name || !c->states || !c->verified || !c->used)
                return error_oom(e);
        c->opened = c->told = content_tick();
        atomic_store(&c->touched, c->opened);

        r = open_or_rebuild(c, path);
        if (r == -ENOMEM)
                return error_oom(e);
        if (r < 0) {
                /* Without a place to keep content, reads still have their way to the registry. */
                log_write(s->read_only || !s->sparse ? LOG_LEVEL_DEBUG : LOG_LEVEL_WARNING,
                          "%s: no content is kept: %s", c->name, strerror(-r));
                if (c->denied == 0)
                        c->denied = r;
        }
        if (content_lowers_open(&c->lowers, s, layer, kind, table) < 0)
                return error_oom(e);
        evictor_enter(c);
        *ret = steal_ptr(c);
        return 0;
}

struct content *content_close(struct content *c)
{
        if (!c)
                return NULL;
        evictor_leave(c);
        content_tell(c);
        content_lowers_close(&c->lowers);
        close_files(c);
        free(c->states);
        free(c->verified);
        free(c->used);
        free(c->name);
        free(c);
        return NULL;
}
