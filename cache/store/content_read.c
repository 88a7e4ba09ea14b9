/* SPDX-License-Identifier: Apache-2.0 */

/* The content of one layer: bytes in a sparse file, presence and checksum of each chunk in one word of the map.
 *
 * Words are loaded through a shared mapping and stored by pwrite: a store through the mapping would end the process
 * with SIGBUS where the disk is full, pwrite says so. A load sees a mapping whose length was checked when the file
 * was opened; regfs replaces maps by rename and never truncates one, so only a hand in the file could still make a
 * load fail. Where mappings are not coherent between machines the words are a copy that is read anew for what it lacks.
 *
 * In this process each chunk has a state: pins of readers and writers, whether its bytes were verified, whether it is
 * unusable although its word could not be cleared, and whether it is being evicted. The order is always: pin, load the
 * word, use the bytes, load the word once more, unpin. Eviction begins, in one step, only where there are no pins; who
 * pins a chunk meanwhile sees that and takes it for absent. Other processes are kept out by the lock that each has on the
 * layer while it is open. */

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

#include "regfs/io.h"
#include "regfs/log.h"
#include "store_internal.h"

#define BLOCK ((uint64_t) 4096)
#define VERIFY_PIECE (64 * KIB)

/* How often a layer that is used says so to other processes. */
#define TOUCH_TICKS (60 * TICKS_PER_SECOND)

/* ---- words ---- */

uint64_t content_load_word(const struct content *c, size_t i)
{
        return c->words ? atomic_load(&c->words[i]) : 0;
}

int content_store_words(struct content *c, size_t first, size_t count, uint64_t word)
{
        uint64_t words[64];
        int r = 0;

        for (size_t k = 0; k < MIN(count, ELEMENTSOF(words)); k++)
                words[k] = word;
        for (size_t done = 0, n; done < count && r == 0; done += n) {
                n = MIN(count - done, ELEMENTSOF(words));
                r = pwrite_full(c->map_fd, words, n * sizeof(word), content_word_offset(first + done));
                for (size_t k = 0; r == 0 && c->words_are_own && k < n; k++)
                        atomic_store(&c->words[first + done + k], word);
        }
        return r;
}

/* In a copy of the words: what another machine may have stored since. */
static uint64_t reload_word(struct content *c, size_t i)
{
        uint64_t word;

        if (c->words_are_own && pread_full(c->map_fd, &word, sizeof(word), content_word_offset(i)) == 0)
                atomic_store(&c->words[i], word);
        return content_load_word(c, i);
}

void content_refresh(struct content *c, size_t first, size_t end)
{
        if (c->store->remote && end > first)
                (void) posix_fadvise(c->map_fd, (off_t) content_word_offset(first),
                                     (off_t) ((end - first) * sizeof(uint64_t)), POSIX_FADV_DONTNEED);
        for (size_t i = first; c->words_are_own && i < end && i < c->table->chunk_count; i++)
                if (content_load_word(c, i) == 0)
                        (void) reload_word(c, i);
}

bool content_keeps(const struct content *c)
{
        return c->denied == 0;
}

int content_not_kept(const struct content *c, struct error *e)
{
        int why = c->denied != 0 ? c->denied : atomic_load(&c->refused);

        return error_set(e, ERROR_OTHER, c->denied != 0 ? EROFS : ENOSPC, "store %s: %s: content is not kept: %s",
                         c->store->path, c->name,
                         why == -EDQUOT ? "the store has reached its limit"
                                        : strerrordesc_np(why == 0 ? ENOSPC : -why));
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
        return is_zeros(c, i) ||
               (content_load_word(c, i) != 0 && !(atomic_load(&c->states[i]) & (STATE_WRONG | STATE_EVICTED)));
}

bool content_has(struct content *c, size_t i)
{
        return content_has_here(c, i) || content_lowers_have(&c->lowers, i);
}

/* ---- use ---- */

uint32_t content_tick(void)
{
        struct timespec t;

        (void) clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
        return (uint32_t) ((uint64_t) t.tv_sec * TICKS_PER_SECOND +
                           (uint64_t) t.tv_nsec * TICKS_PER_SECOND / 1000000000) |
               1;
}

/* Chunk I is used now: no more than a store to memory of this process, and that not often. */
static void note_use(struct content *c, size_t i, uint32_t tick)
{
        if (atomic_load_explicit(&c->used[i], memory_order_relaxed) != tick)
                atomic_store_explicit(&c->used[i], tick, memory_order_relaxed);
}

/* Tells other processes, now and then. */
static void touch(struct content *c, uint32_t tick)
{
        uint32_t before = atomic_load_explicit(&c->touched, memory_order_relaxed);

        if (tick - before < TOUCH_TICKS || c->denied != 0 || !c->words)
                return;
        if (atomic_compare_exchange_strong(&c->touched, &before, tick))
                (void) futimens(c->map_fd, NULL);
}

/* ---- reading ---- */

/* Takes chunk I for absent from now on. WHY is for the log. Where other machines write it may be right for them: the
 * word stays there, and the chunk is written afresh. */
static void drop(struct content *c, size_t i, const char *why)
{
        const struct chunk *chunk = &c->table->chunks[i];

        log_write(c->store->remote ? LOG_LEVEL_INFO : LOG_LEVEL_WARNING,
                  "%s: chunk %zu, content bytes %ju-%ju: %s: dropped from the store", c->name, i,
                  (uintmax_t) chunk->content_offset, (uintmax_t) chunk_end(chunk) - 1, why);
        atomic_fetch_and(&c->states[i], ~STATE_VERIFIED);
        if (c->denied != 0 || c->store->remote || content_store_words(c, i, 1, 0) < 0)
                atomic_fetch_or(&c->states[i], STATE_WRONG);
}

/* A read within neighbouring chunks [first, last), without a gap. */
struct run {
        size_t first, last;
        uint64_t begin, end;
        uint8_t *out;
        uint32_t tick;
};

/* N bytes of content from OFFSET on: those that RUN wants go there. */
static void copy_to_run(const struct run *run, const uint8_t *bytes, size_t n, uint64_t offset)
{
        uint64_t begin = MAX(offset, run->begin), end = MIN(offset + n, run->end);

        if (begin < end)
                memcpy(run->out + (begin - run->begin), bytes + (begin - offset), (size_t) (end - begin));
}

/* The checksum of a whole chunk as it is in the file. What RUN (or NULL) wants of it is copied on the way. */
static int hash_in_file(struct content *c, const struct chunk *chunk, const struct run *run, uint64_t *ret)
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
                if (r == 0 && run)
                        copy_to_run(run, piece, n, chunk->content_offset + done);
        }
        if (r == 0)
                *ret = XXH3_64bits_digest(state);
        XXH3_freeState(state);
        return r;
}

/* Compares with the word that is there now: bytes that match it are right, whatever happened meanwhile. */
static int check_hash(struct content *c, size_t i, uint64_t hash)
{
        uint64_t word = content_load_word(c, i);

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
        int r = hash_in_file(c, &c->table->chunks[i], NULL, &hash);

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

        if (content_load_word(c, i) == 0 && reload_word(c, i) == 0) {
                /* What comes back here was written by somebody else. */
                if (state & STATE_VERIFIED)
                        atomic_fetch_and(&c->states[i], ~STATE_VERIFIED);
                r = -EAGAIN;
        } else if (state & (STATE_WRONG | STATE_EVICTED)) {
                r = -EAGAIN;
        } else if (!(state & STATE_VERIFIED) && !whole) {
                r = verify_in_file(c, i);
        }
        if (r < 0)
                unpin(c, i);
        return r;
}

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
                else if (content_load_word(c, i) == 0)
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
                        note_use(c, pinned++, run->tick);
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

/* What this machine's cache has of a chunk may be older than what another one has written since. */
static void forget_pages(struct content *c, size_t i)
{
        const struct chunk *chunk = &c->table->chunks[i];

        (void) posix_fadvise(c->fd, (off_t) chunk->content_offset, (off_t) chunk->content_length, POSIX_FADV_DONTNEED);
        (void) posix_fadvise(c->map_fd, (off_t) content_word_offset(i), sizeof(uint64_t), POSIX_FADV_DONTNEED);
}

/* Chunk I to RUN, verified in the bytes that are copied. */
static int read_verified(struct content *c, const struct run *run, size_t i)
{
        uint64_t hash;
        int r = hash_in_file(c, &c->table->chunks[i], run, &hash);

        if (r == 0 && content_load_word(c, i) != content_word(hash)) {
                forget_pages(c, i);
                (void) reload_word(c, i);
                r = hash_in_file(c, &c->table->chunks[i], run, &hash);
        }
        if (r == 0)
                return check_hash(c, i, hash);
        drop(c, i, strerror(-r));
        return -EAGAIN;
}

/* read_run where other machines write. Two that write neighbouring chunks at the same time may each put back what the
 * other's part of their common page was before, so a chunk is as good as the last look at it. */
static int read_run_verified(struct content *c, const struct run *run)
{
        int r = 0;

        for (size_t i = run->first; i < run->last && r == 0; i++) {
                r = pin(c, i, true);
                if (r < 0)
                        break;
                note_use(c, i, run->tick);
                r = read_verified(c, run, i);
                unpin(c, i);
        }
        return r;
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
        uint32_t tick = content_tick();
        uint8_t *p = out;
        size_t i;

        if (!range_fits(offset, length, t->content_size))
                return -EINVAL;
        touch(c, tick);
        i = chunk_find(t, offset);
        while (offset < end) {
                uint64_t begin = data_behind(c, offset, end, &i);
                struct run run = { .first = i, .last = i, .begin = offset, .end = offset, .tick = tick };
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
                r = c->store->remote ? read_run_verified(c, &run) : read_run(c, &run);
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

/* ---- writing ---- */

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
        note_use(c, i, content_tick());
        if (state & STATE_EVICTED) {
                unpin(c, i);
                return -EAGAIN;
        }
        if (content_load_word(c, i) == word && (state & (STATE_VERIFIED | STATE_WRONG)) == STATE_VERIFIED) {
                unpin(c, i);
                return 0;
        }
        r = store_write_sparse(c->store, c->fd, data, chunk->content_length, chunk->content_offset, false);
        if (r == 0)
                r = content_store_words(c, i, 1, word);
        if (r == 0) {
                atomic_fetch_or(&c->states[i], STATE_VERIFIED);
                atomic_fetch_and(&c->states[i], ~STATE_WRONG);
        } else {
                atomic_store(&c->refused, r);
        }
        unpin(c, i);
        return r;
}

/* ---- claims ---- */

int content_claim(struct content *c, size_t first, size_t end, size_t *ret_end)
{
        uint64_t length = (end - first) * sizeof(uint64_t);
        int r = 0;

        content_refresh(c, first, end);
        if (c->denied == 0)
                r = store_lock_run(c->store, c->map_fd, content_word_offset(first), length, &length);
        *ret_end = first + (size_t) (length / sizeof(uint64_t));
        return r;
}

void content_release(struct content *c, size_t first, size_t end)
{
        if (c->denied == 0 && end > first)
                (void) store_lock(c->store, c->map_fd, F_UNLCK, content_word_offset(first),
                                  (end - first) * sizeof(uint64_t));
}

/* ---- eviction ---- */

/* Nobody uses chunk I, and nobody will before it is away. */
static bool begin_eviction(struct content *c, size_t i)
{
        uint32_t state = atomic_load(&c->states[i]);

        return !(state & (STATE_PINS | STATE_EVICTED)) &&
               atomic_compare_exchange_strong(&c->states[i], &state, (state & STATE_WRONG) | STATE_EVICTED);
}

/* Blocks that chunks elsewhere have a part of stay. */
static uint64_t punch(struct content *c, uint64_t begin, uint64_t end)
{
        begin = (begin + BLOCK - 1) / BLOCK * BLOCK;
        end = end / BLOCK * BLOCK;
        if (begin >= end)
                return 0;
        if (fallocate(c->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t) begin, (off_t) (end - begin)) == 0)
                return end - begin;
        if (errno == EOPNOTSUPP || errno == ENOSYS || errno == EINVAL)
                atomic_store(&c->store->punches, false);
        return 0;
}

uint64_t content_evict(struct content *c, size_t first, size_t end, size_t *ret_end)
{
        const struct chunk *chunks = c->table->chunks;
        uint64_t freed = 0;
        size_t i = first;

        while (i < end && begin_eviction(c, i))
                i++;
        *ret_end = i;
        if (i == first)
                return 0;
        if (content_store_words(c, first, i - first, 0) == 0)
                freed = punch(c, chunks[first].content_offset, chunk_end(&chunks[i - 1]));
        for (size_t k = first; k < i; k++)
                atomic_fetch_and(&c->states[k], ~STATE_EVICTED);
        return freed;
}
