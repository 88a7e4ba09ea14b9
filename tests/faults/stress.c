/* SPDX-License-Identifier: Apache-2.0 */

/* Everything that threads share, at once: readers of random ranges of several layers, whose blobs fail, dawdle and
 * lie now and then; a pool that has room for a few flights; a store that is opened twice, as by two processes, with
 * a limit so low that each evicts chunks all the time; readers that leave early; and tokens that are asked for
 * before each request, from a server of moods. What is delivered is right, what fails says why, everything ends and
 * nothing is left. Bounded by work, which REGFS_STRESS multiplies. */

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#include <cmocka.h>

#include "../unit/store_fixture.h"
#include "cache/auth/token_internal.h"
#include "regfs/fetch.h"
#include "regfs/text.h"

#define LAYERS 3
#define PROCESSES 2
#define OPENINGS (LAYERS * PROCESSES)
#define CHUNKS 96
#define CHUNK_LENGTH (96 * KIB)
#define LAYER_SIZE ((uint64_t) CHUNKS * CHUNK_LENGTH)
#define CACHE_SIZE (2 * MIB)
#define POOL_SIZE (2 * MIB)
#define READERS 8
#define READS 60
#define READ_MAX (3 * CHUNK_LENGTH)
#define KEYS 4
#define TIMEOUT_MS 2000

static uint64_t next_random(uint64_t *state)
{
        *state = *state * 6364136223846793005u + 1442695040888963407u;
        return *state >> 33;
}

/* One in N. */
static bool chance(uint64_t *state, unsigned n)
{
        return next_random(state) % n == 0;
}

/* The content is a function of the place: no two chunks are alike. */
static uint8_t byte_at(unsigned layer, uint64_t offset)
{
        uint64_t x = (offset / 8 + ((uint64_t) layer << 40)) * 0x9e3779b97f4a7c15u;

        x ^= x >> 29;
        return (uint8_t) (x * 0xbf58476d1ce4e5b9u >> (8 * (offset % 8)));
}

/* ---- tokens ---- */

static struct token_cache *tokens;
static atomic_uint wrong_tokens, tokens_given, tokens_refused;

static void doze(uint64_t us)
{
        (void) nanosleep(&(struct timespec) { .tv_nsec = (long) us * 1000 }, NULL);
}

static int fetch_token(void *context, const struct token_key *key, deadline_t deadline, char **ret_token,
                       uint64_t *ret_lifetime_s, struct error *e)
{
        uint64_t *seed = context;

        if (chance(seed, 3))
                doze(next_random(seed) % 3000);
        if (chance(seed, 4))
                return error_set(e, ERROR_UNREACHABLE, ECONNREFUSED, "token server: nobody there");
        if (deadline_left(deadline) == 0)
                return error_set(e, ERROR_UNREACHABLE, ETIMEDOUT, "token server: no answer");
        *ret_lifetime_s = chance(seed, 2) ? 0 : 300;
        *ret_token = strdup(key->identity);
        return *ret_token ? 0 : error_oom(e);
}

static uint64_t fast_clock(void *context)
{
        (void) context;
        return clock_ms() * 200; /* failures are forgotten, and tokens expire, in milliseconds */
}

static int take_token(uint64_t *seed, struct error *e)
{
        const char identity[2] = { (char) ('0' + next_random(seed) % KEYS), '\0' };
        const struct token_key key = { .realm = "r", .service = "s", .identity = identity };
        char *token = NULL;
        int r = token_cache_get(tokens, &key, deadline_in(next_random(seed) % 20), fetch_token, seed, &token, e);

        atomic_fetch_add(r < 0 ? &tokens_refused : &tokens_given, 1);
        if (r == 0 && strcmp(token, identity) != 0)
                atomic_fetch_add(&wrong_tokens, 1);
        if (r == 0 && chance(seed, 3))
                token_cache_drop(tokens, &key, token);
        secret_free(token);
        return r;
}

/* ---- blobs ---- */

static atomic_uint_fast64_t requests; /* and the seed of each */
static atomic_uint lies;

struct moody_blob {
        struct blob blob;
        unsigned layer;
};

struct moody_range {
        struct blob_range range;
        struct pool_buf *buffer;
        uint64_t seed, offset, length, done, lie_at;
        size_t at;
        bool breaks;
};

static int moody_open(struct blob *b, uint64_t offset, uint64_t length, struct pool_buf *buffer, size_t at,
                      uint64_t patience_ms, struct blob_range **ret, struct error *e)
{
        uint64_t seed = atomic_fetch_add(&requests, 1) * 0x9e3779b97f4a7c15u;
        struct moody_range *r;

        (void) patience_ms;
        (void) next_random(&seed);
        if (take_token(&seed, e) < 0 && chance(&seed, 2))
                return error_prefix(e, "%s", b->name);
        if (chance(&seed, 20))
                return error_set(e, ERROR_UNREACHABLE, ECONNREFUSED, "%s: nobody there", b->name);
        r = calloc(1, sizeof(*r));
        if (!r)
                return error_oom(e);
        *r = (struct moody_range) {
                .range = { .blob = b },
                .buffer = pool_buf_ref(buffer),
                .seed = seed,
                .offset = offset,
                .length = length,
                .at = at,
                .lie_at = UINT64_MAX,
        };
        r->breaks = chance(&r->seed, 15);
        if (chance(&r->seed, 15)) {
                r->lie_at = next_random(&r->seed) % length;
                atomic_fetch_add(&lies, 1);
        }
        *ret = &r->range;
        return 0;
}

static int moody_wait(struct blob_range *range, uint64_t n, uint64_t *ret_received, struct error *e)
{
        struct moody_range *r = (struct moody_range *) range;
        const struct moody_blob *b = (const struct moody_blob *) range->blob;

        if (chance(&r->seed, 6))
                doze(next_random(&r->seed) % 1000);
        if (r->breaks && chance(&r->seed, 2))
                return error_set(e, ERROR_UNREACHABLE, ECONNRESET, "%s: connection reset", b->blob.name);
        for (; r->done < n; r->done++)
                r->buffer->data[r->at + r->done] = byte_at(b->layer, r->offset + r->done) ^ (r->done == r->lie_at);
        *ret_received = r->done;
        return 0;
}

static struct blob_range *moody_close(struct blob_range *range)
{
        struct moody_range *r = (struct moody_range *) range;

        pool_buf_unref(r->buffer);
        free(r);
        return NULL;
}

static const struct blob_ops moody_ops = {
        .range_open = moody_open,
        .range_wait = moody_wait,
        .range_close = moody_close,
};

/* ---- layers ---- */

struct stressed_layer {
        struct moody_blob blob;
        struct chunk rows[CHUNKS];
        struct chunk_table table;
        struct content *content;
        struct fetcher *fetcher;
};

static struct stressed {
        struct place place;
        struct store *stores[PROCESSES];
        struct pool *pool, *replies;
        struct workers *workers;
        struct stressed_layer openings[OPENINGS]; /* of layer k % LAYERS by process k / LAYERS */
} all;

static void make_rows(struct stressed_layer *l, unsigned layer)
{
        _cleanup_free_ uint8_t *bytes = malloc(CHUNK_LENGTH);

        assert_non_null(bytes);
        for (size_t k = 0; k < CHUNKS; k++) {
                struct chunk *c = &l->rows[k];
                struct digest d;

                for (uint64_t i = 0; i < CHUNK_LENGTH; i++)
                        bytes[i] = byte_at(layer, k * CHUNK_LENGTH + i);
                *c = (struct chunk) {
                        .content_offset = k * CHUNK_LENGTH,
                        .content_length = CHUNK_LENGTH,
                        .blob_offset = k * CHUNK_LENGTH,
                        .blob_length = CHUNK_LENGTH,
                        .checkpoint = CHECKPOINT_NONE,
                        .codec = CODEC_STORED,
                };
                assert_int_equal(digest_of(DIGEST_SHA256, bytes, CHUNK_LENGTH, &d), 0);
                memcpy(c->digest, d.bytes, SHA256_SIZE);
        }
        l->table = (struct chunk_table) {
                .chunks = l->rows,
                .chunk_count = CHUNKS,
                .content_size = LAYER_SIZE,
                .blob_size = LAYER_SIZE,
        };
}

static void open_layer(unsigned k)
{
        struct stressed_layer *l = &all.openings[k];
        const unsigned layer = k % LAYERS;
        struct error e = ERROR_INIT;

        make_rows(l, layer);
        l->blob = (struct moody_blob) {
                .blob = { .ops = &moody_ops, .size = LAYER_SIZE, .name = (char *) "blob" },
                .layer = layer,
        };
        assert_int_equal(digest_of(DIGEST_SHA256, &layer, sizeof(layer), &l->blob.blob.digest), 0);
        if (content_open(all.stores[k / LAYERS], &l->blob.blob.digest, "plain", &l->table, &l->content, &e) < 0)
                fail_msg("%s", e.message);

        const struct fetcher_options o = {
                .blob = &l->blob.blob,
                .table = &l->table,
                .content = l->content,
                .pool = all.pool,
                .workers = all.workers,
                .timeout_ms = TIMEOUT_MS,
        };
        if (fetcher_new(&o, &l->fetcher, &e) < 0)
                fail_msg("%s", e.message);
}

/* ---- readers ---- */

static atomic_uint delivered, failed, cancelled, wrong_bytes, bad_errors, early;

/* A read under way. Both its caller and its completion hold it. */
struct reading {
        struct fetch_part part;
        unsigned layer;
        struct pool_buf *buffer;
        struct fetch_read *read;
        struct mutex lock;
        struct cond changed;
        bool done GUARDED_BY(lock);
        int result GUARDED_BY(lock);
};

static void on_done(void *context, int result, const struct error *e)
{
        struct reading *r = context;

        if (result < 0 && (!e || !*e->message || e->code != -result))
                atomic_fetch_add(&bad_errors, 1);
        mutex_lock(&r->lock);
        if (r->done)
                atomic_fetch_add(&bad_errors, 1);
        r->done = true;
        r->result = result;
        cond_broadcast(&r->changed);
        mutex_unlock(&r->lock);
}

static int await(struct reading *r)
{
        int result;

        mutex_lock(&r->lock);
        while (!r->done)
                cond_wait(&r->changed, &r->lock);
        result = r->result;
        mutex_unlock(&r->lock);
        return result;
}

static bool is_right(const struct reading *r, const uint8_t *out)
{
        for (size_t k = 0; k < r->part.length; k++)
                if (out[k] != byte_at(r->layer, r->part.offset + k))
                        return false;
        return true;
}

/* A read as FUSE makes it: answered at once, or later, unless it is interrupted. Its buffer is written to by nobody once
 * it is done. */
static int read_later(struct reading *r, uint64_t *seed)
{
        struct error e = ERROR_INIT;
        bool leaves = chance(seed, 5);
        int result;

        mutex_init(&r->lock);
        cond_init(&r->changed);
        if (fetch_start(&r->part, 1, r->buffer, r->buffer->data, on_done, r, &r->read, &e) < 0) {
                atomic_fetch_add(&bad_errors, 1);
                return -ENOMEM;
        }
        if (leaves) {
                doze(next_random(seed) % 3000);
                fetch_cancel(r->read);
        }
        result = await(r);
        fetch_read_unref(r->read);
        cond_destroy(&r->changed);
        mutex_destroy(&r->lock);
        return result;
}

static void read_somewhere(uint64_t *seed)
{
        unsigned opening = (unsigned) (next_random(seed) % OPENINGS);
        struct reading r = { .layer = opening % LAYERS };
        uint64_t length = 1 + next_random(seed) % READ_MAX, offset = next_random(seed) % (LAYER_SIZE - length);
        int result;

        if (chance(seed, 3))
                offset %= 8 * CHUNK_LENGTH; /* where all meet */
        r.part = (struct fetch_part) {
                .fetcher = all.openings[opening].fetcher,
                .offset = offset,
                .length = (size_t) length,
        };
        if (pool_get(all.replies, (size_t) length, DEADLINE_NEVER, &r.buffer, NULL) < 0) {
                atomic_fetch_add(&bad_errors, 1);
                return;
        }
        if (chance(seed, 10))
                fetch_ahead(r.part.fetcher, offset, length, PRIORITY_READAHEAD);
        if (fetch_cached(&r.part, 1, r.buffer->data) == 0) {
                atomic_fetch_add(&early, 1);
                result = 0;
        } else {
                result = read_later(&r, seed);
        }
        if (result == 0 && !is_right(&r, r.buffer->data))
                atomic_fetch_add(&wrong_bytes, 1);
        atomic_fetch_add(result == 0 ? &delivered : result == -EINTR ? &cancelled : &failed, 1);
        pool_buf_unref(r.buffer);
}

static unsigned work(void)
{
        const char *text = getenv("REGFS_STRESS");
        unsigned long n = text ? strtoul(text, NULL, 10) : 1;

        return READS * (unsigned) MIN(MAX(n, 1ul), 1000000ul);
}

static void *reader(void *arg)
{
        uint64_t seed = (uint64_t) (uintptr_t) arg * 0x9e3779b97f4a7c15u;
        struct error e = ERROR_INIT;

        for (unsigned k = work(); k > 0; k--) {
                read_somewhere(&seed);
                if (take_token(&seed, &e) < 0 && (!*e.message || e.kind == ERROR_NONE))
                        atomic_fetch_add(&bad_errors, 1);
                if (chance(&seed, 50))
                        pool_trim(all.pool);
        }
        return NULL;
}

/* ---- all of it ---- */

static void open_all(void)
{
        struct error e = ERROR_INIT;

        assert_int_equal(place_make(&all.place), 0);
        for (unsigned k = 0; k < PROCESSES; k++) {
                if (store_open(all.place.store, &all.stores[k], &e) < 0)
                        fail_msg("%s", e.message);
                store_set_limit(all.stores[k], CACHE_SIZE);
        }
        if (workers_new("flight", 6, &all.workers, &e) < 0)
                fail_msg("%s", e.message);
        assert_int_equal(pool_new(POOL_SIZE, &all.pool), 0);
        assert_int_equal(pool_new(READERS * READ_MAX, &all.replies), 0);
        assert_int_equal(token_cache_new(&tokens), 0);
        token_cache_set_clock(tokens, fast_clock, NULL);
        for (unsigned k = 0; k < OPENINGS; k++)
                open_layer(k);
}

static void expect_empty(struct pool *p)
{
        struct pool_stats s;

        pool_get_stats(p, &s);
        assert_int_equal(s.buffers, 0);
        assert_int_equal(s.waiting, 0);
}

static void close_all(void)
{
        for (unsigned k = 0; k < OPENINGS; k++) {
                fetcher_free(all.openings[k].fetcher);
                content_close(all.openings[k].content);
        }
        workers_free(all.workers);
        expect_empty(all.pool);
        expect_empty(all.replies);
        pool_free(all.pool);
        pool_free(all.replies);
        tokens = token_cache_free(tokens);
        for (unsigned k = 0; k < PROCESSES; k++)
                store_close(all.stores[k]);
        assert_int_equal(place_remove(&all.place), 0);
}

static void every_byte_is_right_and_every_read_ends(void **state)
{
        uint64_t chunks = 0, refetches = 0, joined = 0;
        pthread_t threads[READERS];

        (void) state;
        open_all();
        for (size_t k = 0; k < READERS; k++)
                assert_int_equal(thread_start(&threads[k], "reader", reader, (void *) (k + 1)), 0);
        for (size_t k = 0; k < READERS; k++)
                assert_int_equal(pthread_join(threads[k], NULL), 0);
        for (size_t k = 0; k < OPENINGS; k++) {
                struct fetch_stats s;

                fetcher_get_stats(all.openings[k].fetcher, &s);
                chunks += s.chunks;
                refetches += s.refetches;
                joined += s.joined;
        }
        close_all();

        print_message("%u reads right (%u from the store at once), %u failed, %u cancelled; %ju requests, %u lies, %ju "
                      "chunks, %ju fetched again, %ju joined; %u tokens, %u refused\n",
                      delivered, early, failed, cancelled, (uintmax_t) requests, lies, (uintmax_t) chunks,
                      (uintmax_t) refetches, (uintmax_t) joined, tokens_given, tokens_refused);
        assert_int_equal(wrong_bytes, 0);
        assert_int_equal(wrong_tokens, 0);
        assert_int_equal(bad_errors, 0);
        assert_int_equal(delivered + failed + cancelled, READERS * work());

        /* There was some of everything. */
        assert_true(delivered > 0 && failed > 0 && cancelled > 0 && early > 0);
        assert_true(lies > 0 && refetches > 0 && joined > 0 && tokens_given > 0 && tokens_refused > 0);
        assert_true(chunks > OPENINGS * CHUNKS); /* or nothing was evicted */
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(every_byte_is_right_and_every_read_ends),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
