/* SPDX-License-Identifier: Apache-2.0 */

/* Ranges of a registry's blobs, from servers that redirect, break off, expire, refuse and ignore. */

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "registry_fixture.h"

/* ---- the straight way ---- */

static void range_is_asked_for_and_nothing_else(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = fake_source(f, ":" TAG);
        _cleanup_(blob_free_ptr) struct blob *b = fake_blob(f, s, NULL);

        assert_int_equal(seen(f, "", ""), 0);
        expect_range(f, b, 1000, 5000);
        expect_range(f, b, BLOB_LENGTH - 1, 1);
        assert_int_equal(seen(f, "registry GET /v2/" REPOSITORY "/blobs/sha256:", "range=1000-5999"), 1);
        assert_int_equal(seen(f, "registry", "range=307199-307199"), 1);
        assert_int_equal(seen(f, "", ""), 2);
}

static void whole_blob_is_asked_for_without_a_range(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = fake_source(f, ":" TAG);
        _cleanup_(blob_free_ptr) struct blob *b = fake_blob(f, s, NULL);

        expect_range(f, b, 0, BLOB_LENGTH);
        assert_int_equal(seen(f, "registry GET", "range="), 0);
        assert_int_equal(seen(f, "registry GET", ""), 1);
}

static void small_blob_is_read_whole_and_verified(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = fake_source(f, ":" TAG);
        struct descriptor d = { .digest = f->blob_digest, .size = BLOB_LENGTH };
        _cleanup_buf_ struct buf text = { 0 };
        struct error e = ERROR_INIT;

        assert_int_equal(source_blob_read(s, &d, f->pool, BLOB_LENGTH, deadline_in(LONG_MS), &text, &e), 0);
        assert_int_equal(text.len, BLOB_LENGTH);
        assert_memory_equal(text.data, f->blob, BLOB_LENGTH);
        assert_int_equal(source_blob_read(s, &d, f->pool, BLOB_LENGTH - 1, deadline_in(LONG_MS), &text, &e), -EFBIG);
        d.digest.bytes[0] ^= 1;
        assert_int_equal(source_blob_read(s, &d, f->pool, BLOB_LENGTH, deadline_in(LONG_MS), &text, &e), -EBADMSG);
        assert_int_equal(seen(f, "", ""), 2);
}

static void range_outside_the_blob_is_refused_without_a_request(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = fake_source(f, ":" TAG);
        _cleanup_(blob_free_ptr) struct blob *b = fake_blob(f, s, NULL);

        assert_int_equal(read_range(f, b, BLOB_LENGTH - 1, 2, LONG_MS, NULL), -EBADMSG);
        assert_int_equal(read_range(f, b, UINT64_MAX, 2, LONG_MS, NULL), -EBADMSG);
        assert_int_equal(seen(f, "", ""), 0);
}

/* ---- redirects ---- */

static void redirect_is_followed_without_credentials_and_remembered(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = NULL;
        _cleanup_(blob_free_ptr) struct blob *b = NULL;

        f->redirects = true;
        f->wants = f->blobs_want = "Basic";
        fake_client(f, NULL, "user:secret");
        s = fake_source(f, ":" TAG);
        b = fake_blob(f, s, NULL);
        expect_range(f, b, 0, 100);
        expect_range(f, b, 100, 100);
        expect_range(f, b, 200, 100);
        assert_int_equal(seen(f, "registry", ""), 2);
        assert_int_equal(seen(f, "registry", "auth="), 1);
        assert_int_equal(seen(f, "storage GET /data?signature=secret", ""), 3);
        assert_int_equal(seen(f, "storage", "auth="), 0);
}

static bool expire_the_second(struct fake *f _unused_, struct http_exchange *x, unsigned n)
{
        return n == 2 && respond_status(x, 403);
}

static void expired_redirect_is_renewed_at_the_registry(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = NULL;
        _cleanup_(blob_free_ptr) struct blob *b = NULL;

        f->redirects = true;
        f->answer[STORAGE] = expire_the_second;
        s = fake_source(f, ":" TAG);
        b = fake_blob(f, s, NULL);
        expect_range(f, b, 0, 100);
        expect_range(f, b, 100, 100);
        assert_int_equal(seen(f, "registry", ""), 2);
        assert_int_equal(seen(f, "storage", ""), 3);
}

static bool expire_all_but_the_first(struct fake *f _unused_, struct http_exchange *x, unsigned n)
{
        return n > 1 && respond_status(x, 403);
}

static void storage_that_goes_on_refusing_is_an_error(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = NULL;
        _cleanup_(blob_free_ptr) struct blob *b = NULL;
        struct error e = ERROR_INIT;

        f->redirects = true;
        f->answer[STORAGE] = expire_all_but_the_first;
        s = fake_source(f, ":" TAG);
        b = fake_blob(f, s, NULL);
        expect_range(f, b, 0, 100);
        assert_int_equal(read_range(f, b, 100, 100, LONG_MS, &e), -EACCES);
        expect_words(&e, "bytes 100-199");
        expect_words(&e, "403 Forbidden");
        assert_null(strstr(e.message, "secret"));
        assert_int_equal(seen(f, "registry", ""), 2);
        assert_int_equal(seen(f, "storage", ""), 3);
}

static bool want_an_anonymous_token(struct fake *f, struct http_exchange *x, unsigned n _unused_)
{
        return !check_in(f, x, "Bearer", "storage");
}

static void storage_that_wants_a_token_gets_an_anonymous_one(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = NULL;
        _cleanup_(blob_free_ptr) struct blob *b = NULL;

        f->redirects = true;
        f->answer[STORAGE] = want_an_anonymous_token;
        fake_client(f, NULL, "user:secret");
        s = fake_source(f, ":" TAG);
        b = fake_blob(f, s, NULL);
        expect_range(f, b, 0, 100);
        expect_range(f, b, 100, 100);
        assert_int_equal(seen(f, "storage", "auth=Bearer storage-1"), 2);
        /* It refuses each of the two, and is not remembered. */
        assert_int_equal(seen(f, "storage", ""), 4);
        assert_int_equal(seen(f, "", "auth=Basic"), 0);
}

static bool redirect_for_ever(struct fake *f, struct http_exchange *x, unsigned n _unused_)
{
        return respond_redirect(f, x, STORAGE, "/round");
}

static void redirects_that_go_round_end(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = NULL;
        _cleanup_(blob_free_ptr) struct blob *b = NULL;

        f->answer[REGISTRY] = f->answer[STORAGE] = redirect_for_ever;
        s = fake_source(f, ":" TAG);
        b = fake_blob(f, s, NULL);
        assert_int_equal(read_range(f, b, 0, 100, LONG_MS, NULL), -ELOOP);
        assert_int_equal(seen(f, "", ""), 6);
}

/* ---- bodies that break off ---- */

#define CUT 70000

/* The first answer ends after CUT bytes of its range. */
static bool cut_the_first(struct fake *f, struct http_exchange *x, unsigned n)
{
        uint64_t first, last;

        if (n > 1 || !exchange_range(x, &first, &last))
                return false;
        exchange_printf(x, "HTTP/1.1 206 P\r\nContent-Range: bytes %ju-%ju/%zu\r\nContent-Length: %ju\r\n\r\n",
                        (uintmax_t) first, (uintmax_t) last, BLOB_LENGTH, (uintmax_t) (last - first + 1));
        exchange_send(x, f->blob + first, CUT);
        exchange_close(x);
        return true;
}

static void body_that_breaks_off_is_resumed_where_it_ended(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = NULL;
        _cleanup_(blob_free_ptr) struct blob *b = NULL;

        f->answer[REGISTRY] = cut_the_first;
        s = fake_source(f, ":" TAG);
        b = fake_blob(f, s, NULL);
        expect_range(f, b, 1000, 200000);
        assert_int_equal(seen(f, "registry", "range=1000-200999"), 1);
        assert_int_equal(seen(f, "registry", "range=71000-200999"), 1);
        assert_int_equal(seen(f, "", ""), 2);
}

static void rest_of_a_body_may_come_from_the_registry_when_the_mirror_breaks_off(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = NULL;
        _cleanup_(blob_free_ptr) struct blob *b = NULL;

        f->answer[MIRROR] = cut_the_first;
        fake_client_with_mirror(f, NULL);
        s = fake_source(f, ":" TAG);
        b = fake_blob(f, s, NULL);
        expect_range(f, b, 1000, 200000);
        assert_int_equal(seen(f, "mirror", "range=1000-200999"), 1);
        assert_int_equal(seen(f, "registry", "range=71000-200999"), 1);
}

static bool send_another_range(struct fake *f, struct http_exchange *x, unsigned n _unused_)
{
        char header[100];

        snprintf(header, sizeof(header), "Content-Range: bytes 5-104/%zu\r\n", BLOB_LENGTH);
        return exchange_respond(x, 206, header, f->blob + 5, 100);
}

static void wrong_range_is_bad_data_however_often_it_is_waited_for(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = NULL;
        _cleanup_(blob_free_ptr) struct blob *b = NULL;
        _cleanup_(pool_buf_unref_ptr) struct pool_buf *buffer = NULL;
        struct blob_range *range = NULL;
        struct error e = ERROR_INIT;
        uint64_t received;

        f->answer[REGISTRY] = send_another_range;
        s = fake_source(f, ":" TAG);
        b = fake_blob(f, s, NULL);
        assert_int_equal(pool_get(f->pool, 100, deadline_in(LONG_MS), &buffer, NULL), 0);
        assert_int_equal(blob_range_open(b, 0, 100, buffer, 0, LONG_MS, &range, NULL), 0);
        for (int k = 0; k < 3; k++) {
                assert_int_equal(blob_range_wait(range, 100, &received, &e), -EBADMSG);
                expect_words(&e, "another range: 'bytes 5-104/307200'");
        }
        blob_range_close(range);
}

/* A body without a length that is too short. */
static bool end_early(struct fake *f, struct http_exchange *x, unsigned n _unused_)
{
        exchange_printf(x, "HTTP/1.0 200 OK\r\nConnection: close\r\n\r\n");
        exchange_send(x, f->blob, 100);
        exchange_close(x);
        return true;
}

static void body_that_ends_early_is_bad_data_however_often_it_is_waited_for(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = NULL;
        _cleanup_(blob_free_ptr) struct blob *b = NULL;
        _cleanup_(pool_buf_unref_ptr) struct pool_buf *buffer = NULL;
        struct blob_range *range = NULL;
        struct error e = ERROR_INIT;
        uint64_t received;

        f->answer[REGISTRY] = end_early;
        s = fake_source(f, ":" TAG);
        b = fake_blob(f, s, NULL);
        assert_int_equal(pool_get(f->pool, BLOB_LENGTH, deadline_in(LONG_MS), &buffer, NULL), 0);
        assert_int_equal(blob_range_open(b, 0, BLOB_LENGTH, buffer, 0, LONG_MS, &range, NULL), 0);
        assert_int_equal(blob_range_wait(range, BLOB_LENGTH, &received, &e), -EBADMSG);
        expect_words(&e, "100 bytes instead of"); /* the rest was asked for, and came from the beginning again */
        assert_true(blob_range_wait(range, BLOB_LENGTH, &received, &e) < 0);
        blob_range_close(range);
}

/* ---- patience ---- */

static void slow_server_is_no_error(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = NULL;
        _cleanup_(blob_free_ptr) struct blob *b = NULL;
        struct error e = ERROR_INIT;
        uint64_t begin = clock_ms();

        f->answer[REGISTRY] = drip;
        s = fake_source(f, ":" TAG);
        b = fake_blob(f, s, NULL);
        if (read_range(f, b, 0, BLOB_LENGTH, 1200, &e) < 0)
                fail_msg("%s", e.message);
        assert_true(clock_ms() - begin >= 1500);
        assert_int_equal(seen(f, "", ""), 1);
}

/* Sends CUT bytes and hangs. */
static bool hang_after_a_while(struct fake *f, struct http_exchange *x, unsigned n _unused_)
{
        uint64_t first, last;

        if (!exchange_range(x, &first, &last))
                return false;
        exchange_printf(x, "HTTP/1.1 206 P\r\nContent-Range: bytes %ju-%ju/%zu\r\nContent-Length: %ju\r\n\r\n",
                        (uintmax_t) first, (uintmax_t) last, BLOB_LENGTH, (uintmax_t) (last - first + 1));
        exchange_send(x, f->blob + first, CUT);
        exchange_wait_hangup(x);
        return true;
}

static size_t buffers_out(struct pool *p)
{
        struct pool_stats s;

        pool_get_stats(p, &s);
        return s.buffers;
}

static void silent_server_fails_at_the_end_of_the_patience_and_gives_the_buffer_back(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = NULL;
        _cleanup_(blob_free_ptr) struct blob *b = NULL;
        deadline_t deadline = deadline_in(LONG_MS);
        struct error e = ERROR_INIT;

        f->answer[REGISTRY] = hang_after_a_while;
        s = fake_source(f, ":" TAG);
        b = fake_blob(f, s, NULL);
        assert_int_equal(read_range(f, b, 1000, 100000, 200, &e), -ETIMEDOUT);
        assert_int_equal(e.kind, ERROR_UNREACHABLE);
        expect_words(&e, "blob sha256:");
        expect_words(&e, "bytes 71000-100999");
        expect_words(&e, "only 70000 bytes in time");
        while (buffers_out(f->pool) > 0 && deadline_left(deadline) > 0)
                nap_ms(1);
        assert_int_equal(buffers_out(f->pool), 0);
}

static bool fail_twice(struct fake *f _unused_, struct http_exchange *x, unsigned n)
{
        return n <= 2 && respond_status(x, n == 1 ? 502 : 504);
}

static void failures_that_may_go_away_are_tried_again(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = NULL;
        _cleanup_(blob_free_ptr) struct blob *b = NULL;

        f->answer[REGISTRY] = fail_twice;
        s = fake_source(f, ":" TAG);
        b = fake_blob(f, s, NULL);
        expect_range(f, b, 0, 100);
        assert_int_equal(seen(f, "", ""), 3);
}

/* ---- other places ---- */

static bool not_found(struct fake *f _unused_, struct http_exchange *x, unsigned n _unused_)
{
        return respond_status(x, 404);
}

static void blob_that_is_nowhere_is_not_found(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = NULL;
        _cleanup_(blob_free_ptr) struct blob *b = NULL;
        struct error e = ERROR_INIT;

        f->answer[MIRROR] = f->answer[REGISTRY] = not_found;
        fake_client_with_mirror(f, NULL);
        s = fake_source(f, ":" TAG);
        b = fake_blob(f, s, NULL);
        assert_int_equal(read_range(f, b, 0, 100, LONG_MS, &e), -ENOENT);
        expect_words(&e, "404 Not Found");
        assert_int_equal(seen(f, "mirror", ""), 1);
        assert_int_equal(seen(f, "registry", ""), 1);
}

static void dead_mirror_is_passed_over(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = NULL;
        _cleanup_(blob_free_ptr) struct blob *b = NULL;

        fake_client_with_mirror(f, NULL);
        f->servers[MIRROR].server = http_server_stop(f->servers[MIRROR].server);
        s = fake_source(f, ":" TAG);
        b = fake_blob(f, s, NULL);
        expect_range(f, b, 0, 100);
        expect_range(f, b, 100, 100);
        assert_int_equal(seen(f, "registry", ""), 2);
}

static void foreign_layer_is_asked_for_at_its_urls_without_credentials(void **state)
{
        struct fake *f = *state;
        _cleanup_(source_free_ptr) struct source *s = NULL;
        _cleanup_(blob_free_ptr) struct blob *b = NULL;
        char bad[200], good[200], *urls[] = { bad, good, NULL };

        f->answer[REGISTRY] = not_found;
        f->answer[TOKENS] = not_found;
        fake_url(f, TOKENS, "/elsewhere", bad, sizeof(bad));
        fake_url(f, STORAGE, "/foreign", good, sizeof(good));
        fake_client(f, NULL, "user:secret");
        s = fake_source(f, ":" TAG);
        b = fake_blob(f, s, urls);
        expect_range(f, b, 100, 100);
        assert_int_equal(seen(f, "registry", ""), 1);
        assert_int_equal(seen(f, "tokens GET /elsewhere", ""), 1);
        assert_int_equal(seen(f, "storage GET /foreign", "range=100-199"), 1);
        assert_int_equal(seen(f, "", "auth="), 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                fake_test(range_is_asked_for_and_nothing_else),
                fake_test(whole_blob_is_asked_for_without_a_range),
                fake_test(small_blob_is_read_whole_and_verified),
                fake_test(range_outside_the_blob_is_refused_without_a_request),
                fake_test(redirect_is_followed_without_credentials_and_remembered),
                fake_test(expired_redirect_is_renewed_at_the_registry),
                fake_test(storage_that_goes_on_refusing_is_an_error),
                fake_test(storage_that_wants_a_token_gets_an_anonymous_one),
                fake_test(redirects_that_go_round_end),
                fake_test(body_that_breaks_off_is_resumed_where_it_ended),
                fake_test(rest_of_a_body_may_come_from_the_registry_when_the_mirror_breaks_off),
                fake_test(wrong_range_is_bad_data_however_often_it_is_waited_for),
                fake_test(body_that_ends_early_is_bad_data_however_often_it_is_waited_for),
                fake_test(slow_server_is_no_error),
                fake_test(silent_server_fails_at_the_end_of_the_patience_and_gives_the_buffer_back),
                fake_test(failures_that_may_go_away_are_tried_again),
                fake_test(blob_that_is_nowhere_is_not_found),
                fake_test(dead_mirror_is_passed_over),
                fake_test(foreign_layer_is_asked_for_at_its_urls_without_credentials),
        };

        return cmocka_run_group_tests_name("client_blob", tests, NULL, NULL);
}
