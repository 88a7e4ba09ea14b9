/* SPDX-License-Identifier: Apache-2.0 */

/* The content of one layer: bytes in a sparse file, presence and checksum of each chunk in one word of the map.
 *
 * In this process each chunk has a state: pins of readers and writers, whether it is unusable although its word could
 * not be cleared, and whether it is being evicted. This process evicts only, in one step, where there are no pins; who
 * pins a chunk meanwhile sees that and takes it for absent.
 *
 * Other processes evict from the layer too, whatever is read here. What is right all the same rests on the chunk's
 * epoch, which never goes back. Who evicts holds the layer's evict lock, makes the epoch odd, clears the word, takes
 * the bytes away and makes the epoch even, in that order. All others only ever write the chunk's right bytes. So bytes
 * that were right while the epoch was some even number stay so as long as it has that number:
 *
 * A reader may believe what it reads if the bytes were verified before that, in an even epoch, and the epoch is still
 * the same afterwards. Then it needs no look at the bytes and no lock. Otherwise it believes bytes that have the
 * word's checksum, and no others: they are right in themselves, wherever they came from. It notes that they are
 * verified for the epoch that it had loaded before it read them, if that was even.
 *
 * A writer stores the word only if the epoch is still the even one that it was before the first byte was written, and
 * takes it back unless the epoch is the same afterwards: else an eviction may have taken away some of the bytes that
 * the word vouches for. Who dies in between leaves a word that the next reader's verification finds wrong.
 *
 * Who evicts and dies leaves an odd epoch. Nothing is verified in it, so reads go by checksums, until somebody who
 * could take the evict lock, and so knows that nobody is at it, makes it even.
 *
 * Where another machine evicts, a filesystem may show its holes sooner than its epochs, for as long as it keeps what it
 * knows of the map. There blocks that are all zeros, which is what a hole looks like, go by the checksum each time.
 *
 * Evicting without the lock is the one thing that could do harm; a reader or writer that ignored every lock would
 * still serve right bytes.
 *
 * Where other machines write, none of this holds: two that write neighbouring chunks at the same time may each put back
 * what the other's part of their common page was before. There a chunk is as good as the last look at it: every read is
 * verified by checksum, in the very bytes that it gives out. */

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

#include "regfs/io.h"
#include "regfs/log.h"
#include "store_internal.h"

#define VERIFY_PIECE (64 * KIB)
#define BLOCK ((uint64_t) 4096) /* holes consist of such */

/* Chunks that are read at once. */
#define RUN_MAX 64

/* How often a layer that is used says so to other processes. */
#define TOUCH_TICKS (60 * TICKS_PER_SECOND)

/* ---- presence ---- */

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
        atomic_store(&c->verified[i], 0);
        if (c->denied != 0 || c->store->remote || content_store_words(c, i, 1, 0) < 0)
                atomic_fetch_or(&c->states[i], STATE_WRONG);
}

/* Chunk I is being taken away, or is away, and a copy of the words is not told so. Nor may the map go on saying that it
 * is there: who reads its word anew would look for the bytes here again and again. */
static void forget(struct content *c, size_t i)
{
        if (c->denied != 0 || content_store_words(c, i, 1, 0) < 0)
                atomic_store(&c->words[i], 0);
}

/* What was known of a chunk before it was read. */
struct sight {
        uint64_t epoch;
        bool verified; /* in it */
};

/* A read within neighbouring chunks [first, last), RUN_MAX at most, without a gap. */
struct run {
        size_t first, last;
        uint64_t begin, end;
        uint8_t *out;
        uint32_t tick;
        struct sight sights[RUN_MAX];
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

static bool is_odd(uint64_t epoch)
{
        return epoch & 1;
}

/* Verified values are odd, or 0. */
static bool is_verified(const struct content *c, size_t i, uint64_t epoch)
{
        uint64_t verified = atomic_load(&c->verified[i]);

        return verified != 0 && verified == epoch + 1;
}

static void note_verified(struct content *c, size_t i, uint64_t epoch)
{
        if (!is_odd(epoch))
                atomic_store(&c->verified[i], epoch + 1);
}

/* Compares the bytes' HASH with the word that is there now: bytes that match it are right, whatever happened meanwhile.
 * EPOCH was loaded before they were read. */
static int check_hash(struct content *c, size_t i, uint64_t hash, uint64_t epoch)
{
        uint64_t word = content_load_word(c, i);

        if (word == 0)
                return -EAGAIN;
        if (word == content_word(hash)) {
                note_verified(c, i, epoch);
                return 0;
        }
        if (!is_odd(epoch) && content_load_epoch(c, i) == epoch)
                drop(c, i, "wrong checksum");
        else if (c->words_are_own)
                forget(c, i);
        return -EAGAIN;
}

static int verify_in_file(struct content *c, size_t i, uint64_t epoch)
{
        uint64_t hash;
        int r = hash_in_file(c, &c->table->chunks[i], NULL, &hash);

        if (r == 0)
                return check_hash(c, i, hash, epoch);
        if (r == -ENOMEM) /* nothing is known to be wrong with the bytes, but they can't be used */
                atomic_fetch_or(&c->states[i], STATE_WRONG);
        else
                drop(c, i, strerror(-r));
        return -EAGAIN;
}

static void unpin(struct content *c, size_t i)
{
        atomic_fetch_sub(&c->states[i], 1);
}

/* Loads chunk I's epoch, for one who is about to use its bytes. */
static struct sight look_at(struct content *c, size_t i)
{
        struct sight s = { .epoch = atomic_load(&c->verified[i]) - 1, .verified = true };

        /* Where a load is a system call the one afterwards will do. */
        if (c->words_are_own && s.epoch != EPOCH_NONE)
                return s;
        s.epoch = content_load_epoch(c, i);
        if (is_odd(s.epoch) && content_end_eviction(c, i))
                s.epoch = content_load_epoch(c, i);
        s.verified = is_verified(c, i, s.epoch);
        return s;
}

/* Pins chunk I when it may be read. Where nobody has verified it yet, that is done here for a part of it, and for a
 * WHOLE one later, where it lies. */
static int pin(struct content *c, size_t i, bool whole, struct sight *ret)
{
        uint32_t state = atomic_fetch_add(&c->states[i], 1);
        int r = 0;

        if (content_reload_word(c, i) == 0) {
                /* What comes back here was written by somebody else. */
                atomic_store(&c->verified[i], 0);
                r = -EAGAIN;
        } else if (state & (STATE_WRONG | STATE_EVICTED)) {
                r = -EAGAIN;
        } else {
                *ret = look_at(c, i);
                if (!ret->verified && !whole && !is_odd(ret->epoch)) {
                        r = verify_in_file(c, i, ret->epoch);
                        ret->verified = r == 0;
                }
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

/* A part of a chunk whose epoch says nothing: reads all of it, and believes that by its checksum alone. */
static int read_apart(struct content *c, const struct run *run, size_t i)
{
        const struct chunk *chunk = &c->table->chunks[i];
        uint64_t begin = MAX(chunk->content_offset, run->begin), end = MIN(chunk_end(chunk), run->end);
        _cleanup_free_ uint8_t *bytes = NULL;
        int r;

        if (content_load_word(c, i) == 0)
                return -EAGAIN;
        bytes = malloc(chunk->content_length);
        if (!bytes || pread_full(c->fd, bytes, chunk->content_length, chunk->content_offset) < 0)
                return -EAGAIN;
        r = check_hash(c, i, XXH3_64bits(bytes, chunk->content_length), EPOCH_NONE);
        if (r == 0)
                memcpy(run->out + (begin - run->begin), bytes + (begin - chunk->content_offset),
                       (size_t) (end - begin));
        return r;
}

/* Zeros where an eviction could have left them, in the part of chunk I that was read. */
static bool may_have_a_hole(const struct content *c, const struct run *run, size_t i)
{
        const struct chunk *chunk = &c->table->chunks[i];
        uint64_t at = MAX(chunk->content_offset, run->begin), end = MIN(chunk_end(chunk), run->end), next;

        for (; at < end; at = next) {
                next = MIN((at / BLOCK + 1) * BLOCK, end);
                if (bytes_are_zero(run->out + (at - run->begin), (size_t) (next - at)))
                        return true;
        }
        return false;
}

/* The bytes are there: verifies the chunks that nobody had verified before, and sees that none was taken away
 * meanwhile. */
static int check_run(struct content *c, const struct run *run)
{
        uint64_t epochs[RUN_MAX];
        int r = 0;

        content_load_epochs(c, run->first, run->last - run->first, epochs);
        for (size_t i = run->first; i < run->last && r == 0; i++) {
                struct sight s = run->sights[i - run->first];

                bool was_away = s.verified && s.epoch != epochs[i - run->first];

                if (s.verified && !was_away && !(c->words_are_own && may_have_a_hole(c, run, i))) {
                        r = content_load_word(c, i) != 0 ? 0 : -EAGAIN;
                        continue;
                }
                if (was_away)
                        atomic_store(&c->verified[i], 0);
                if (s.verified)
                        s.epoch = EPOCH_NONE;
                r = is_whole(c, run, i) ? check_hash(c, i, hash_in_run(c, run, i), s.epoch) : read_apart(c, run, i);
        }
        return r;
}

static int read_run(struct content *c, struct run *run)
{
        size_t pinned = run->first;
        int r = 0;

        while (pinned < run->last && r == 0) {
                r = pin(c, pinned, is_whole(c, run, pinned), &run->sights[pinned - run->first]);
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

/* ---- reading where other machines write ---- */

/* What this machine's cache has of a chunk may be older than what another one has written since. */
static void forget_pages(struct content *c, size_t i)
{
        const struct chunk *chunk = &c->table->chunks[i];

        (void) posix_fadvise(c->fd, (off_t) chunk->content_offset, (off_t) chunk->content_length, POSIX_FADV_DONTNEED);
        atomic_store(&c->words[i], 0);
        content_refresh(c, i, i + 1);
}

/* Chunk I to RUN, verified in the bytes that are copied. */
static int read_verified(struct content *c, const struct run *run, size_t i)
{
        uint64_t hash;
        int r = hash_in_file(c, &c->table->chunks[i], run, &hash);

        if (r == 0 && content_load_word(c, i) != content_word(hash)) {
                forget_pages(c, i);
                r = hash_in_file(c, &c->table->chunks[i], run, &hash);
        }
        if (r == 0 && content_load_word(c, i) == content_word(hash))
                return 0;
        if (r < 0 || content_load_word(c, i) != 0)
                drop(c, i, r < 0 ? strerror(-r) : "wrong checksum");
        return -EAGAIN;
}

static int read_run_verified(struct content *c, const struct run *run)
{
        int r = 0;

        for (size_t i = run->first; i < run->last && r == 0; i++) {
                uint32_t state = atomic_fetch_add(&c->states[i], 1);

                if (content_reload_word(c, i) == 0 || (state & (STATE_WRONG | STATE_EVICTED)))
                        r = -EAGAIN;
                else
                        r = read_verified(c, run, i);
                note_use(c, i, run->tick);
                unpin(c, i);
        }
        return r;
}

/* ---- reading anything ---- */

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
                struct run run;
                int r;

                if (begin > offset) {
                        memset(p, 0, (size_t) (begin - offset));
                        p += begin - offset;
                        offset = begin;
                        continue;
                }
                run.first = run.last = i;
                run.begin = offset;
                run.out = p;
                run.tick = tick;
                do {
                        run.end = MIN(chunk_end(&t->chunks[run.last]), end);
                        run.last++;
                } while (run.end < end && run.last < t->chunk_count && run.last - run.first < RUN_MAX &&
                         t->chunks[run.last].content_offset == run.end && !is_zeros(c, run.last));
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

/* Between chunk I's first byte and this the epoch has not changed: then the word may be there. */
static int store_word(struct content *c, size_t i, uint64_t word, uint64_t epoch)
{
        int r;

        if (content_load_epoch(c, i) != epoch)
                return -EAGAIN;
        r = content_store_words(c, i, 1, word);
        if (r < 0 || content_load_epoch(c, i) == epoch)
                return r;
        (void) content_store_words(c, i, 1, 0);
        return -EAGAIN;
}

static int write_pinned(struct content *c, size_t i, const void *data)
{
        const struct chunk *chunk = &c->table->chunks[i];
        uint64_t word = content_word(XXH3_64bits(data, chunk->content_length)), epoch = content_load_epoch(c, i);
        int r;

        if (is_odd(epoch) && content_end_eviction(c, i))
                epoch = content_load_epoch(c, i);
        if (is_odd(epoch))
                return -EAGAIN;
        if (content_load_word(c, i) == word && is_verified(c, i, epoch) && !(atomic_load(&c->states[i]) & STATE_WRONG))
                return 0;
        r = store_write_sparse(c->store, c->fd, data, chunk->content_length, chunk->content_offset, false);
        if (r == 0)
                r = store_word(c, i, word, epoch);
        if (r < 0)
                return r;
        note_verified(c, i, epoch);
        atomic_fetch_and(&c->states[i], ~STATE_WRONG);
        content_stamp(c, i);
        return 0;
}

int content_write(struct content *c, size_t i, const void *data)
{
        uint32_t state;
        int r;

        if (i >= c->table->chunk_count)
                return -EINVAL;
        if (c->denied != 0)
                return c->denied;
        state = atomic_fetch_add(&c->states[i], 1);
        note_use(c, i, content_tick());
        r = state & STATE_EVICTED ? -EAGAIN : write_pinned(c, i, data);
        if (r < 0 && r != -EAGAIN)
                atomic_store(&c->refused, r);
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
