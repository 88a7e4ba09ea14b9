/* SPDX-License-Identifier: Apache-2.0 */

/* Taking chunks of an open layer away, whoever else has it open; content_read.c says why that is safe. */

#include <fcntl.h>
#include <sys/stat.h>

#include "store_internal.h"

#define BLOCK ((uint64_t) 4096)

/* ---- the evict lock ---- */

/* Others may have the content open, who look for epochs in another map. */
static bool map_was_replaced(const struct content *c)
{
        struct stat content, map;

        return fstat(c->map_fd, &map) < 0 || fstat(c->fd, &content) < 0 || (map.st_nlink == 0 && content.st_nlink > 0);
}

bool content_lock_eviction(struct content *c)
{
        /* A copy of the words, or a file that can't be written, is not one to evict from; nor may two do so, as
         * they could where locks have no effect. */
        if (c->denied != 0 || !c->epochs || atomic_exchange(&c->evicts, true))
                return false;
        if (!map_was_replaced(c) && atomic_load(&c->store->locks) &&
            store_lock(c->store, c->map_fd, F_WRLCK, CONTENT_EVICT_OFFSET, 1) == 0 && atomic_load(&c->store->locks))
                return true;
        atomic_store(&c->evicts, false);
        return false;
}

void content_unlock_eviction(struct content *c)
{
        (void) store_lock(c->store, c->map_fd, F_UNLCK, CONTENT_EVICT_OFFSET, 1);
        atomic_store(&c->evicts, false);
}

bool content_end_eviction(struct content *c, size_t i)
{
        bool ended = true;

        if (!content_lock_eviction(c))
                return false;
        if (content_load_epoch(c, i) & 1)
                ended = content_raise_epochs(c, i, 1, false) == 0;
        content_unlock_eviction(c);
        return ended;
}

/* ---- chunks ---- */

/* Nobody in this process uses chunk I, and nobody will before it is away. */
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

/* The order is what readers elsewhere rely on: no byte goes before its chunk's epoch is odd, and none once it is even
 * again. Where the epoch can't be written nothing goes; where it stays odd, the next one who comes by ends that. */
static uint64_t take_away(struct content *c, size_t first, size_t count)
{
        const struct chunk *chunks = c->table->chunks;
        uint64_t freed = 0;

        if (content_raise_epochs(c, first, count, true) == 0 && content_store_words(c, first, count, 0) == 0)
                freed = punch(c, chunks[first].content_offset, chunk_end(&chunks[first + count - 1]));
        (void) content_raise_epochs(c, first, count, false);
        return freed;
}

uint64_t content_evict(struct content *c, size_t first, size_t end, size_t *ret_end)
{
        uint64_t freed = 0;
        size_t i = first;

        while (i < end && begin_eviction(c, i))
                i++;
        *ret_end = i;
        if (i > first)
                freed = take_away(c, first, i - first);
        for (size_t k = first; k < i; k++)
                atomic_fetch_and(&c->states[k], ~STATE_EVICTED);
        return freed;
}
