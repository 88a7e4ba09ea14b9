/* SPDX-License-Identifier: Apache-2.0 */

/* The content of one layer: bytes in a sparse file, presence and checksum of each chunk in one word of the map.
 *
 * Words are loaded through a shared mapping and stored by pwrite: a store through the mapping would end the process
 * with SIGBUS where the disk is full, pwrite says so. A load sees a mapping whose length was checked when the file
 * was opened; regfs replaces maps by rename and never truncates one, so only a hand in the file could still make a
 * load fail.
 *
 * In this process each chunk has a state: pins of readers and writers, whether its bytes were verified, and whether
 * it is unusable although its word could not be cleared. The order is always: pin, load the word, use the bytes,
 * load the word once more, unpin. Whoever takes content away clears the word, then looks at the pins: one of the two
 * sees the other. */

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "regfs/io.h"
#include "regfs/log.h"
#include "store_internal.h"

#define BLOCK ((size_t) 4096)
#define ROOM_STEP ((uint64_t) 4 * MIB)
#define VERIFY_PIECE (64 * KIB)

/* A chunk's state: two bits, and pins below. */
#define STATE_VERIFIED ((uint32_t) 1 << 31) /* the bytes in the file have the word's checksum */
#define STATE_WRONG ((uint32_t) 1 << 30)    /* absent for this process, whatever the word says */

struct content {
        struct store *store;
        const struct chunk_table *table;
        char *name; /* "sha256:… plain", for the log */
        int fd, map_fd;
        int denied; /* why nothing can be written here: -errno, or 0 */
        void *map;
        size_t map_size;
        _Atomic uint64_t *words; /* in MAP; NULL: there is no map and every chunk is absent */
        _Atomic uint32_t *states;
        struct content_lowers lowers;
};

/* ---- writing ---- */

int store_take_room(struct store *s, int fd, uint64_t n)
{
        int64_t want = (int64_t) MIN(n, (uint64_t) INT64_MAX);
        uint64_t reserve, available;
        struct statvfs v;

        if (atomic_fetch_sub(&s->room, want) >= want)
                return 0;
        if (fstatvfs(fd, &v) < 0 || v.f_blocks == 0)
                return 0; /* a filesystem that doesn't say */
        reserve = v.f_blocks / 20 + 1;
        available = v.f_bavail > reserve ? (v.f_bavail - reserve) * v.f_frsize : 0;
        if (available < n) {
                atomic_store(&s->room, 0);
                if (!atomic_exchange(&s->full, true))
                        log_warning("store %s: only 5 %% of the disk are left: content is no longer kept", s->path);
                return -ENOSPC;
        }
        atomic_store(&s->room, (int64_t) MIN(available - n, ROOM_STEP));
        return 0;
}

/* The length of the run of blocks at the start of DATA that are all zeros, or all not. Blocks are those of the file;
 * the first and the last may be cut. */
static size_t next_run(const uint8_t *data, size_t n, uint64_t offset, bool *ret_zeros)
{
        size_t run = MIN(n, BLOCK - (size_t) (offset % BLOCK));
        bool zeros = bytes_are_zero(data, run);

        while (run < n) {
                size_t piece = MIN(n - run, BLOCK);

                if (bytes_are_zero(data + run, piece) != zeros)
                        break;
                run += piece;
        }
        *ret_zeros = zeros;
        return run;
}

static bool is_hole(int fd, uint64_t offset, size_t n)
{
        off_t data = lseek(fd, (off_t) offset, SEEK_DATA);

        return data < 0 ? errno == ENXIO : (uint64_t) data >= offset + n;
}

static int clear_range(int fd, const uint8_t *zeros, size_t n, uint64_t offset)
{
        if (is_hole(fd, offset, n))
                return 0;
        if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t) offset, (off_t) n) == 0)
                return 0;
        return pwrite_full(fd, zeros, n, offset);
}

int store_write_sparse(struct store *s, int fd, const void *data, size_t n, uint64_t offset, bool fresh)
{
        const uint8_t *p = data;
        int r = 0;

        while (n > 0 && r == 0) {
                bool zeros;
                size_t run = next_run(p, n, offset, &zeros);

                if (!zeros) {
                        r = store_take_room(s, fd, run);
                        if (r == 0)
                                r = pwrite_full(fd, p, run, offset);
                } else if (!fresh) {
                        r = clear_range(fd, p, run, offset);
                }
                p += run;
                offset += run;
                n -= run;
        }
        return r;
}

/* ---- the map file ---- */

void content_map_header_init(struct content_map_header *h, uint64_t chunk_count, uint64_t identity)
{
        *h = (struct content_map_header) {
                .version = CONTENT_MAP_VERSION,
                .header_length = sizeof(*h),
                .file_length = sizeof(*h) + chunk_count * sizeof(uint64_t),
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

static uint64_t chunk_end(const struct chunk *c)
{
        return c->content_offset + c->content_length;
}

static uint64_t content_end(const struct chunk_table *t)
{
        return t->chunk_count > 0 ? chunk_end(&t->chunks[t->chunk_count - 1]) : 0;
}

/* ---- open ---- */

static void close_files(struct content *c)
{
        if (c->map)
                munmap(c->map, c->map_size);
        close_fd_ptr(&c->fd);
        close_fd_ptr(&c->map_fd);
        c->map = NULL;
        c->words = NULL;
        c->fd = c->map_fd = -1;
}

/* Returns 0; -ESTALE when the files don't fit the table; -errno. */
static int check_files(struct content *c, const struct content_map_header *expected)
{
        struct content_map_header header;
        struct stat content, map;
        int r;

        if (fstat(c->fd, &content) < 0 || fstat(c->map_fd, &map) < 0)
                return -errno;
        if ((uint64_t) content.st_size < content_end(c->table) || (uint64_t) map.st_size != expected->file_length)
                return -ESTALE;
        r = pread_full(c->map_fd, &header, sizeof(header), 0);
        if (r < 0)
                return r == -ENODATA ? -ESTALE : r;
        return memcmp(&header, expected, sizeof(header)) == 0 ? 0 : -ESTALE;
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
                r = check_files(c, expected);
        if (r < 0)
                return r;
        c->map_size = (size_t) expected->file_length;
        c->map = c->store->lower ? store_copy_map(c->map_fd, c->map_size)
                                 : mmap(NULL, c->map_size, PROT_READ, MAP_SHARED, c->map_fd, 0);
        if (c->map == MAP_FAILED) {
                c->map = NULL;
                return -errno;
        }
        c->words = (_Atomic uint64_t *) ((uint8_t *) c->map + sizeof(*expected));
        return 0;
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

static int put_fresh(struct store *s, const char *directory, const char *file, uint64_t length, const void *head,
                     size_t n)
{
        _cleanup_draft_ struct store_draft d = STORE_DRAFT_INIT;
        struct error e = ERROR_INIT;
        char path[STORE_PATH_MAX];
        int r;

        r = store_draft_new(s, &d, &e);
        if (r < 0)
                return r;
        if (ftruncate(d.fd, (off_t) length) < 0)
                return -errno;
        r = pwrite_full(d.fd, head, n, 0);
        if (r < 0)
                return r;
        snprintf(path, sizeof(path), "%s/%s", directory, file);
        return store_draft_move(&d, path, &e);
}

/* Empty files in place of what is missing or doesn't fit. Readers of the old ones go on with those. Between the two
 * renames somebody may pair the old map with the new content: its words then fail verification, once. */
static int rebuild(struct content *c, const char *directory, const struct content_map_header *header)
{
        int r;

        r = put_fresh(c->store, directory, "content", MAX(c->table->content_size, content_end(c->table)), NULL, 0);
        return r < 0 ? r : put_fresh(c->store, directory, "map", header->file_length, header, sizeof(*header));
}

static int open_or_rebuild(struct content *c, const char *directory)
{
        struct content_map_header header;
        int r;

        r = expected_header(c->table, &header);
        if (r < 0)
                return r;
        r = open_directory(c, directory, &header);
        if (r == -ESTALE)
                log_write(c->store->lower ? LOG_LEVEL_DEBUG : LOG_LEVEL_WARNING,
                          "%s: content and map don't fit the layer's index", c->name);
        if ((r != -ENOENT && r != -ESTALE) || c->store->read_only)
                return r;
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
        if (!c->name || !c->states)
                return error_oom(e);

        r = open_or_rebuild(c, path);
        if (r == -ENOMEM)
                return error_oom(e);
        if (r < 0) {
                /* Without a place to keep content, reads still have their way to the registry. */
                log_write(s->read_only ? LOG_LEVEL_DEBUG : LOG_LEVEL_WARNING, "%s: no content is kept: %s", c->name,
                          strerror(-r));
                if (c->denied == 0)
                        c->denied = r;
        }
        if (content_lowers_open(&c->lowers, s, layer, kind, table) < 0)
                return error_oom(e);
        *ret = steal_ptr(c);
        return 0;
}

struct content *content_close(struct content *c)
{
        if (!c)
                return NULL;
        content_lowers_close(&c->lowers);
        close_files(c);
        free(c->states);
        free(c->name);
        free(c);
        return NULL;
}

/* ---- words ---- */

static uint64_t load_word(const struct content *c, size_t i)
{
        return c->words ? atomic_load(&c->words[i]) : 0;
}

static int store_word(struct content *c, size_t i, uint64_t word)
{
        return pwrite_full(c->map_fd, &word, sizeof(word), sizeof(struct content_map_header) + i * sizeof(word));
}

bool content_keeps(const struct content *c)
{
        return c->denied == 0;
}

static bool is_zeros(const struct content *c, size_t i)
{
        return c->table->chunks[i].codec == CODEC_ZEROS;
}

bool content_is_there(const struct content *c)
{
        return c->words;
}

bool content_has_here(struct content *c, size_t i)
{
        if (i >= c->table->chunk_count)
                return false;
        return is_zeros(c, i) || (load_word(c, i) != 0 && !(atomic_load(&c->states[i]) & STATE_WRONG));
}

bool content_has(struct content *c, size_t i)
{
        return content_has_here(c, i) || content_lowers_have(&c->lowers, i);
}

/* Takes chunk I for absent from now on. WHY is for the log. */
static void drop(struct content *c, size_t i, const char *why)
{
        const struct chunk *chunk = &c->table->chunks[i];

        log_warning("%s: chunk %zu, content bytes %ju-%ju: %s: dropped from the store", c->name, i,
                    (uintmax_t) chunk->content_offset, (uintmax_t) chunk_end(chunk) - 1, why);
        atomic_fetch_and(&c->states[i], ~STATE_VERIFIED);
        if (c->denied != 0 || store_word(c, i, 0) < 0)
                atomic_fetch_or(&c->states[i], STATE_WRONG);
}

/* ---- reading ---- */

/* The checksum of a whole chunk as it is in the file. */
static int hash_in_file(struct content *c, const struct chunk *chunk, uint64_t *ret)
{
        _cleanup_free_ uint8_t *piece = malloc(MIN(VERIFY_PIECE, (size_t) chunk->content_length));
        XXH3_state_t *state = XXH3_createState();
        int r = piece && state ? 0 : -ENOMEM;

        if (r == 0)
                XXH3_64bits_reset(state);
        for (size_t done = 0, n; r == 0 && done < chunk->content_length; done += n) {
                n = MIN(VERIFY_PIECE, chunk->content_length - done);
                r = pread_full(c->fd, piece, n, chunk->content_offset + done);
                if (r == 0)
                        XXH3_64bits_update(state, piece, n);
        }
        if (r == 0)
                *ret = XXH3_64bits_digest(state);
        XXH3_freeState(state);
        return r;
}

/* Compares with the word that is there now: bytes that match it are right, whatever happened meanwhile. */
static int check_hash(struct content *c, size_t i, uint64_t hash)
{
        uint64_t word = load_word(c, i);

        if (word == 0)
                return -EAGAIN;
        if (word != content_word(hash)) {
                drop(c, i, "wrong checksum");
                return -EAGAIN;
        }
        atomic_fetch_or(&c->states[i], STATE_VERIFIED);
        return 0;
}

static int verify_in_file(struct content *c, size_t i)
{
        uint64_t hash;
        int r = hash_in_file(c, &c->table->chunks[i], &hash);

        if (r == 0)
                return check_hash(c, i, hash);
        if (r == -ENOMEM) /* nothing is known to be wrong with the bytes, but they can't be used */
                atomic_fetch_or(&c->states[i], STATE_WRONG);
        else
                drop(c, i, strerror(-r));
        return -EAGAIN;
}

static bool is_verified(struct content *c, size_t i)
{
        return atomic_load(&c->states[i]) & STATE_VERIFIED;
}

static void unpin(struct content *c, size_t i)
{
        atomic_fetch_sub(&c->states[i], 1);
}

/* Pins chunk I when it may be read. A read of the whole chunk is verified later, where it lies. */
static int pin(struct content *c, size_t i, bool whole)
{
        uint32_t state = atomic_fetch_add(&c->states[i], 1);
        int r = 0;

        if (load_word(c, i) == 0) {
                /* What comes back here was written by somebody else. */
                if (state & STATE_VERIFIED)
                        atomic_fetch_and(&c->states[i], ~STATE_VERIFIED);
                r = -EAGAIN;
        } else if (state & STATE_WRONG) {
                r = -EAGAIN;
        } else if (!(state & STATE_VERIFIED) && !whole) {
                r = verify_in_file(c, i);
        }
        if (r < 0)
                unpin(c, i);
        return r;
}

/* A read within neighbouring chunks [first, last), without a gap. */
struct run {
        size_t first, last;
        uint64_t begin, end;
        uint8_t *out;
};

static bool is_whole(const struct content *c, const struct run *run, size_t i)
{
        const struct chunk *chunk = &c->table->chunks[i];

        return chunk->content_offset >= run->begin && chunk_end(chunk) <= run->end;
}

static uint64_t hash_in_run(const struct content *c, const struct run *run, size_t i)
{
        const struct chunk *chunk = &c->table->chunks[i];

        return XXH3_64bits(run->out + (chunk->content_offset - run->begin), chunk->content_length);
}

/* The bytes are there: verifies the chunks that nobody has verified yet, and sees that none was taken away
 * meanwhile. */
static int check_run(struct content *c, const struct run *run)
{
        int r = 0;

        for (size_t i = run->first; i < run->last && r == 0; i++) {
                if (is_whole(c, run, i) && !is_verified(c, i))
                        r = check_hash(c, i, hash_in_run(c, run, i));
                else if (load_word(c, i) == 0)
                        r = -EAGAIN;
        }
        return r;
}

static int read_run(struct content *c, const struct run *run)
{
        size_t pinned = run->first;
        int r = 0;

        while (pinned < run->last && r == 0) {
                r = pin(c, pinned, is_whole(c, run, pinned));
                if (r == 0)
                        pinned++;
        }
        if (r == 0) {
                r = pread_full(c->fd, run->out, (size_t) (run->end - run->begin), run->begin);
                for (size_t i = run->first; r < 0 && i < run->last; i++)
                        drop(c, i, strerror(-r));
        }
        if (r == 0)
                r = check_run(c, run);
        while (pinned > run->first)
                unpin(c, --pinned);
        return r < 0 ? -EAGAIN : 0;
}

/* Where the first byte at OFFSET or behind it lies that is not zero by the table alone, END at most: in chunk *I, which
 * moves on over chunks of zeros. */
static uint64_t data_behind(const struct content *c, uint64_t offset, uint64_t end, size_t *i)
{
        const struct chunk_table *t = c->table;

        while (*i < t->chunk_count && is_zeros(c, *i) && t->chunks[*i].content_offset < end)
                ++*i;
        return *i < t->chunk_count ? MIN(MAX(t->chunks[*i].content_offset, offset), end) : end;
}

int content_read_here(struct content *c, uint64_t offset, size_t length, void *out)
{
        const struct chunk_table *t = c->table;
        uint64_t end = offset + length;
        uint8_t *p = out;
        size_t i;

        if (!range_fits(offset, length, t->content_size))
                return -EINVAL;
        i = chunk_find(t, offset);
        while (offset < end) {
                uint64_t begin = data_behind(c, offset, end, &i);
                struct run run = { .first = i, .last = i, .begin = offset, .end = offset };
                int r;

                if (begin > offset) {
                        memset(p, 0, (size_t) (begin - offset));
                        p += begin - offset;
                        offset = begin;
                        continue;
                }
                run.out = p;
                do {
                        run.end = MIN(chunk_end(&t->chunks[run.last]), end);
                        run.last++;
                } while (run.end < end && run.last < t->chunk_count && t->chunks[run.last].content_offset == run.end &&
                         !is_zeros(c, run.last));
                r = read_run(c, &run);
                if (r < 0)
                        return r;
                p += run.end - offset;
                offset = run.end;
                i = run.last;
        }
        return 0;
}

int content_read(struct content *c, uint64_t offset, size_t length, void *out)
{
        int r = content_read_here(c, offset, length, out);

        return r == -EAGAIN && c->lowers.count > 0 ? content_lowers_read(&c->lowers, c, c->table, offset, length, out)
                                                   : r;
}

int content_write(struct content *c, size_t i, const void *data)
{
        const struct chunk *chunk;
        uint32_t state;
        uint64_t word;
        int r;

        if (i >= c->table->chunk_count)
                return -EINVAL;
        if (c->denied != 0)
                return c->denied;
        chunk = &c->table->chunks[i];
        word = content_word(XXH3_64bits(data, chunk->content_length));

        state = atomic_fetch_add(&c->states[i], 1);
        if (load_word(c, i) == word && (state & (STATE_VERIFIED | STATE_WRONG)) == STATE_VERIFIED) {
                unpin(c, i);
                return 0;
        }
        r = store_write_sparse(c->store, c->fd, data, chunk->content_length, chunk->content_offset, false);
        if (r == 0)
                r = store_word(c, i, word);
        if (r == 0) {
                atomic_fetch_or(&c->states[i], STATE_VERIFIED);
                atomic_fetch_and(&c->states[i], ~STATE_WRONG);
        }
        unpin(c, i);
        return r;
}
