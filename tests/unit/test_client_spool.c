/* SPDX-License-Identifier: Apache-2.0 */

/* Blobs of servers that know no ranges: they are received once, and read from there. */

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "registry_fixture.h"

#define CUT 70000

static bool ignore_ranges(struct fake *f, struct http_exchange *x, unsigned n _unused_)
{
        return exchange_respond(x, 200, NULL, f->blob, BLOB_LENGTH);
}

struct reader {
        struct fake *fake;
        struct blob *blob;
        uint64_t offset, length;
        int result;
        struct error error;
        pthread_t thread;
};

static void *reader_run(void *arg)
{
        struct reader *r = arg;

        r->result = read_range(r->fake, r->blob, r->offset, r->length, LONG_MS, &r->error);
        return NULL;
}

static void reader_start(struct reader *r)
{
        assert_int_equal(thread_start(&r->thread, "reader", reader_run, r), 0);
}

static void reader_expect(struct reader *r)
{
        pthread_join(r->thread, NULL);
        if (r->result < 0)
                fail_msg("%s", r->error.message);
}

static void blob_of_a_server_without_ranges_is_received_once(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = NULL;
        _cleanup_(blob_free_ptr) struct blob *b = NULL;
        struct reader readers[8];

        f->answer[REGISTRY] = ignore_ranges;
        s = fake_source(f, ":" TAG);
        b = fake_blob(f, s, NULL);
        expect_range(f, b, 5000, 100);
        for (size_t k = 0; k < ELEMENTSOF(readers); k++) {
                readers[k] = (struct reader) { .fake = f, .blob = b, .offset = 1 + k * 30000, .length = 40000 };
                reader_start(&readers[k]);
        }
        for (size_t k = 0; k < ELEMENTSOF(readers); k++)
                reader_expect(&readers[k]);
        expect_range(f, b, 0, BLOB_LENGTH);
        /* The answer that showed it was cut off; the second one is kept. */
        assert_int_equal(seen(f, "registry", ""), 2);
        assert_int_equal(seen(f, "registry", "range="), 1);
}

/* The second half of the whole blob waits for fake_release. */
static bool send_half(struct fake *f, struct http_exchange *x, unsigned n)
{
        if (n == 1)
                return ignore_ranges(f, x, n);
        exchange_printf(x, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", BLOB_LENGTH);
        exchange_send(x, f->blob, BLOB_LENGTH / 2);
        fake_hold(f);
        exchange_send(x, f->blob + BLOB_LENGTH / 2, BLOB_LENGTH / 2);
        return true;
}

static void early_bytes_do_not_wait_for_who_reads_late_ones(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = NULL;
        _cleanup_(blob_free_ptr) struct blob *b = NULL;
        struct reader late = { .fake = f, .offset = BLOB_LENGTH - 100, .length = 100 };

        f->answer[REGISTRY] = send_half;
        s = fake_source(f, ":" TAG);
        late.blob = b = fake_blob(f, s, NULL);
        reader_start(&late);
        mutex_lock(&f->lock);
        while (f->held == 0)
                cond_wait(&f->changed, &f->lock);
        mutex_unlock(&f->lock);

        expect_range(f, b, 1, 100);
        expect_range(f, b, BLOB_LENGTH / 2 - 100, 100);
        fake_release(f);
        reader_expect(&late);
        assert_int_equal(seen(f, "", ""), 2);
}

static bool drip_to_who_wants_all(struct fake *f, struct http_exchange *x, unsigned n)
{
        return n == 1 ? ignore_ranges(f, x, n) : drip(f, x, n);
}

static void slow_server_without_ranges_is_no_error(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = NULL;
        _cleanup_(blob_free_ptr) struct blob *b = NULL;
        struct error e = ERROR_INIT;

        f->answer[REGISTRY] = drip_to_who_wants_all;
        s = fake_source(f, ":" TAG);
        b = fake_blob(f, s, NULL);
        if (read_range(f, b, BLOB_LENGTH - 100, 100, 1200, &e) < 0)
                fail_msg("%s", e.message);
        assert_int_equal(seen(f, "", ""), 2);
}

/* The first time that all is sent it breaks off. */
static bool break_off_once(struct fake *f, struct http_exchange *x, unsigned n)
{
        if (n != 2)
                return ignore_ranges(f, x, n);
        exchange_printf(x, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", BLOB_LENGTH);
        exchange_send(x, f->blob, CUT);
        exchange_close(x);
        return true;
}

static void server_without_ranges_that_breaks_off_starts_over(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = NULL;
        _cleanup_(blob_free_ptr) struct blob *b = NULL;

        f->answer[REGISTRY] = break_off_once;
        s = fake_source(f, ":" TAG);
        b = fake_blob(f, s, NULL);
        expect_range(f, b, 100000, 1000);
        assert_int_equal(seen(f, "", ""), 3);
}

static bool break_off_always(struct fake *f, struct http_exchange *x, unsigned n)
{
        return n == 1 ? ignore_ranges(f, x, n) : break_off_once(f, x, 2);
}

static void server_without_ranges_that_always_breaks_off_is_an_error(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = NULL;
        _cleanup_(blob_free_ptr) struct blob *b = NULL;
        struct error e = ERROR_INIT;

        f->answer[REGISTRY] = break_off_always;
        s = fake_source(f, ":" TAG);
        b = fake_blob(f, s, NULL);
        assert_int_equal(read_range(f, b, 100000, 1000, 700, &e), -ECONNRESET);
        assert_int_equal(e.kind, ERROR_UNREACHABLE);
        assert_in_range(seen(f, "", ""), 2, 8);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                fake_test(blob_of_a_server_without_ranges_is_received_once),
                fake_test(early_bytes_do_not_wait_for_who_reads_late_ones),
                fake_test(slow_server_without_ranges_is_no_error),
                fake_test(server_without_ranges_that_breaks_off_starts_over),
                fake_test(server_without_ranges_that_always_breaks_off_is_an_error),
        };

        return cmocka_run_group_tests_name("client_spool", tests, NULL, NULL);
}
