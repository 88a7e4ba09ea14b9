/* SPDX-License-Identifier: Apache-2.0 */

/* The map of a layer's content: words, epochs and stamps.
 *
 * They are loaded through a shared mapping and stored by pwrite: a store through the mapping would end the process
 * with SIGBUS where the disk is full, pwrite says so. A load sees a mapping whose length was checked when the file
 * was opened and that has no holes; regfs replaces maps by rename and never truncates one, so only a hand in the
 * file could still make a load fail. Where mappings are not coherent between machines, or the file is another
 * user's, the words are a copy that is read anew for what it lacks, and epochs are read from the file each time. */

#include <fcntl.h>
#include <time.h>

#include "regfs/io.h"
#include "store_internal.h"

#define BATCH 64

/* Stamps are written so many at a time, where one of them has changed. */
#define STAMP_BATCH 1024
#define STAMP_BLUR_MS 2000

int content_map_write(int fd, const struct content_map_header *h, const uint64_t *words)
{
        const uint8_t zeros[4096] = { 0 };
        uint64_t words_end = content_word_offset((size_t) h->chunk_count);
        uint64_t at = words ? words_end : sizeof(*h);
        int r;

        r = pwrite_full(fd, h, sizeof(*h), 0);
        if (r == 0 && words)
                r = pwrite_full(fd, words, (size_t) (words_end - sizeof(*h)), sizeof(*h));
        for (size_t n; r == 0 && at < h->file_length; at += n) {
                n = (size_t) MIN(h->file_length - at, (uint64_t) sizeof(zeros));
                r = pwrite_full(fd, zeros, n, at);
        }
        return r;
}

/* ---- words ---- */

uint64_t content_load_word(const struct content *c, size_t i)
{
        return c->words ? atomic_load(&c->words[i]) : 0;
}

int content_store_words(struct content *c, size_t first, size_t count, uint64_t word)
{
        uint64_t words[BATCH];
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

uint64_t content_reload_word(struct content *c, size_t i)
{
        uint64_t word = content_load_word(c, i);

        if (word == 0 && c->words_are_own && pread_full(c->map_fd, &word, sizeof(word), content_word_offset(i)) == 0)
                atomic_store(&c->words[i], word);
        return content_load_word(c, i);
}

void content_refresh(struct content *c, size_t first, size_t end)
{
        /* What this machine's cache has of the map may be older than what another one has written since. */
        if (c->store->remote && end > first)
                (void) posix_fadvise(c->map_fd, (off_t) content_word_offset(first),
                                     (off_t) ((end - first) * sizeof(uint64_t)), POSIX_FADV_DONTNEED);
        for (size_t i = first; c->words_are_own && i < end && i < c->table->chunk_count; i++)
                (void) content_reload_word(c, i);
}

/* ---- epochs ---- */

void content_load_epochs(struct content *c, size_t first, size_t count, uint64_t *out)
{
        /* Loads of the bytes come before those of the epochs. */
        atomic_thread_fence(memory_order_acquire);
        if (c->epochs) {
                for (size_t k = 0; k < count; k++)
                        out[k] = atomic_load(&c->epochs[first + k]);
                return;
        }
        if (!c->has_no_epochs &&
            pread_full(c->map_fd, out, count * sizeof(*out), content_epoch_offset(c->table->chunk_count, first)) == 0)
                return;
        for (size_t k = 0; k < count; k++)
                out[k] = EPOCH_NONE;
}

uint64_t content_load_epoch(struct content *c, size_t i)
{
        uint64_t epoch;

        content_load_epochs(c, i, 1, &epoch);
        return epoch;
}

int content_raise_epochs(struct content *c, size_t first, size_t count, bool odd)
{
        uint64_t epochs[BATCH];
        int r = 0;

        for (size_t done = 0, n; done < count && r == 0; done += n) {
                n = MIN(count - done, ELEMENTSOF(epochs));
                content_load_epochs(c, first + done, n, epochs);
                for (size_t k = 0; k < n; k++)
                        epochs[k] = (epochs[k] | 1) + (odd ? 0 : 1);
                r = pwrite_full(c->map_fd, epochs, n * sizeof(*epochs),
                                content_epoch_offset(c->table->chunk_count, first + done));
        }
        return r;
}

/* ---- stamps ---- */

/* Ticks later than BEFORE, as far as differences tell. */
static bool is_later(uint32_t tick, uint32_t before)
{
        return tick != 0 && (int32_t) (tick - before) >= 0;
}

/* Ticks from USED to NOW: 0 where another thread has used something since NOW. */
static uint32_t ticks_since(uint32_t used, uint32_t now)
{
        return is_later(now, used) ? now - used : 0;
}

static uint32_t seconds_now(void)
{
        struct timespec t;

        (void) clock_gettime(CLOCK_REALTIME_COARSE, &t);
        return (uint32_t) t.tv_sec;
}

static bool is_used_since(const struct content *c, size_t first, size_t count, uint32_t tick)
{
        for (size_t i = first; i < first + count; i++)
                if (is_later(atomic_load_explicit(&c->used[i], memory_order_relaxed), tick))
                        return true;
        return false;
}

/* The stamps of COUNT chunks, with what this process has used since it told last. True when one of them has changed. */
static bool update_stamps(const struct content *c, size_t first, size_t count, uint32_t tick, uint32_t *stamps)
{
        uint32_t now = seconds_now();
        bool changed = false;

        for (size_t k = 0; k < count; k++) {
                uint32_t used = atomic_load_explicit(&c->used[first + k], memory_order_relaxed);
                uint32_t ago = ticks_since(used, tick) / TICKS_PER_SECOND;

                stamps[k] = atomic_load_explicit(&c->stamps[first + k], memory_order_relaxed);
                if (!is_later(used, c->told) || (stamps[k] != 0 && (int32_t) (now - ago - stamps[k]) <= 0))
                        continue;
                stamps[k] = now - ago;
                changed = true;
        }
        return changed;
}

void content_stamp(struct content *c, size_t i)
{
        uint32_t now = seconds_now();

        if (c->stamps && atomic_load_explicit(&c->stamps[i], memory_order_relaxed) != now)
                (void) pwrite_full(c->map_fd, &now, sizeof(now), content_stamp_offset(c->table->chunk_count, i));
}

void content_tell(struct content *c)
{
        size_t count = c->table->chunk_count;
        uint32_t tick = content_tick();
        uint32_t stamps[STAMP_BATCH];

        if (c->denied != 0 || !c->stamps)
                return;
        /* What others write meanwhile may be lost: it only says how old something is. */
        for (size_t i = 0, n; i < count; i += n) {
                n = MIN(count - i, ELEMENTSOF(stamps));
                if (is_used_since(c, i, n, c->told) && update_stamps(c, i, n, tick, stamps))
                        (void) pwrite_full(c->map_fd, stamps, n * sizeof(*stamps), content_stamp_offset(count, i));
        }
        c->told = tick;
}

uint64_t content_idle_ms(const struct content *c, size_t i)
{
        uint32_t tick = content_tick(), used = atomic_load_explicit(&c->used[i], memory_order_relaxed);
        uint32_t stamp = c->stamps ? atomic_load_explicit(&c->stamps[i], memory_order_relaxed) : 0;
        uint64_t here = (uint64_t) ticks_since(used, tick) * 1000 / TICKS_PER_SECOND, elsewhere;

        if (used == 0 && stamp == 0) /* as long as the layer was idle when it was opened, and since then */
                return (uint64_t) (tick - c->opened) * 1000 / TICKS_PER_SECOND + c->idle_ms;
        if (stamp == 0)
                return here;
        elsewhere = (uint64_t) MAX((int32_t) (seconds_now() - stamp), 0) * 1000;
        /* The finer clock counts unless somebody else was later. */
        return used == 0 || elsewhere + STAMP_BLUR_MS < here ? elsewhere : here;
}
