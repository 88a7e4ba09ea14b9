/* SPDX-License-Identifier: Apache-2.0 */

/* Ranges, and the three places where a body goes. */

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "http_fixture.h"
#include "regfs/io.h"

static void serve_endless_error(struct http_exchange *x, void *context _unused_)
{
        exchange_printf(x, "HTTP/1.1 503 Busy\r\n\r\n");
        while (exchange_send(x, blob, 4096))
                ;
}

static void http_range_lands_in_the_pool_buffer(void **state _unused_)
{
        _cleanup_(http_server_stop_ptr) struct http_server *s = new_server(serve_blob, NULL);
        _cleanup_(http_free_ptr) struct http *h = new_http();
        struct http_request r = HTTP_REQUEST_INIT;
        struct pool_buf *b = NULL;
        struct pool_stats stats;
        struct transfer *t;
        struct pool *p;

        assert_int_equal(pool_new(MIB, &p), 0);
        assert_int_equal(pool_get(p, 200000, DEADLINE_NEVER, &b, NULL), 0);
        memset(b->data, 0, b->size);
        r.ranged = true;
        r.range_offset = 1000;
        r.range_length = 150000;
        r.sink = b;
        r.sink_offset = 77;
        r.sink_capacity = 150000;
        t = start(h, s, "/", &r);
        expect_status(t, 206);
        assert_false(transfer_range_ignored(t));
        assert_int_equal(transfer_range_total(t), BLOB_SIZE);
        assert_int_equal(transfer_content_length(t), 150000);
        expect_body(t, 150000);
        assert_int_equal(b->data[76], 0);
        assert_memory_equal(b->data + 77, blob + 1000, 150000);
        assert_int_equal(b->data[77 + 150000], 0);

        /* The transfer is over: it holds the buffer no more, although it lives. */
        pool_buf_unref(b);
        pool_get_stats(p, &stats);
        assert_int_equal(stats.buffers, 0);
        transfer_unref(t);
        pool_free(p);
}

static void http_whole_answer_satisfies_a_range_of_everything(void **state _unused_)
{
        static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        _cleanup_(http_server_stop_ptr) struct http_server *s = new_server(serve_text, context_of(answer));
        _cleanup_(http_free_ptr) struct http *h = new_http();
        struct http_request r = HTTP_REQUEST_INIT;
        _cleanup_(transfer_unref_ptr) struct transfer *t = NULL;

        r.ranged = true;
        r.range_length = 5;
        t = start(h, s, "/", &r);
        expect_status(t, 200);
        assert_false(transfer_range_ignored(t));
        expect_body(t, 5);
        assert_string_equal(transfer_body(t, NULL), "hello");
}

static void http_tells_when_the_range_was_ignored(void **state _unused_)
{
        static const struct {
                uint64_t offset, length;
                const char *answer;
        } cases[] = {
                { 0, 4, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello" },
                { 0, 6, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello" },
                { 1, 5, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello" },
                { 0, 5, "HTTP/1.1 200 OK\r\n\r\nhello" },
                { 0, 5, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n" },
        };
        _cleanup_(http_free_ptr) struct http *h = new_http();

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                struct http_server *s = new_server(serve_text, context_of(cases[i].answer));
                struct http_request r = HTTP_REQUEST_INIT;
                struct transfer *t;
                uint64_t received = 1;

                r.ranged = true;
                r.range_offset = cases[i].offset;
                r.range_length = cases[i].length;
                t = start(h, s, "/", &r);
                expect_status(t, 200);
                assert_true(transfer_range_ignored(t));
                expect_failure(t, EOPNOTSUPP, "ignores ranges");
                transfer_wait(t, UINT64_MAX, DEADLINE_NEVER, &received, NULL);
                assert_int_equal(received, 0);
                transfer_unref(t);
                http_server_stop(s);
        }
}

static void http_refuses_another_range_than_asked_for(void **state _unused_)
{
        static const char *const answers[] = {
                "HTTP/1.1 206 P\r\nContent-Range: bytes 10-18/100\r\nContent-Length: 9\r\n\r\n123456789",
                "HTTP/1.1 206 P\r\nContent-Range: bytes 10-20/100\r\nContent-Length: 11\r\n\r\n12345678901",
                "HTTP/1.1 206 P\r\nContent-Range: bytes 0-9/100\r\nContent-Length: 10\r\n\r\n1234567890",
                "HTTP/1.1 206 P\r\nContent-Range: bytes 10-19/19\r\nContent-Length: 10\r\n\r\n1234567890",
                "HTTP/1.1 206 P\r\nContent-Range: bytes 19-10/100\r\nContent-Length: 10\r\n\r\n1234567890",
                "HTTP/1.1 206 P\r\nContent-Range: bytes */100\r\nContent-Length: 10\r\n\r\n1234567890",
                "HTTP/1.1 206 P\r\nContent-Range: bytes 10-19\r\nContent-Length: 10\r\n\r\n1234567890",
                "HTTP/1.1 206 P\r\nContent-Range: bytes 10-19/100x\r\nContent-Length: 10\r\n\r\n1234567890",
                "HTTP/1.1 206 P\r\nContent-Range: bytes 10-19/\r\nContent-Length: 10\r\n\r\n1234567890",
                "HTTP/1.1 206 P\r\nContent-Range: bytes 10-99999999999999999999/*\r\n\r\n1234567890",
                "HTTP/1.1 206 P\r\nContent-Range: lines 10-19/100\r\nContent-Length: 10\r\n\r\n1234567890",
                "HTTP/1.1 206 P\r\nContent-Range: bytes 10-18/100\r\n\r\n123456789",
                "HTTP/1.1 206 P\r\nContent-Range: bytes 10-20/100\r\n\r\n12345678901",
                "HTTP/1.1 206 P\r\nContent-Range: bytes 10-19/100\r\nContent-Length: 9\r\n\r\n123456789",
                "HTTP/1.1 206 P\r\nContent-Type: multipart/byteranges; boundary=x\r\n\r\n1234567890",
        };
        _cleanup_(http_free_ptr) struct http *h = new_http();

        for (size_t i = 0; i < ELEMENTSOF(answers); i++) {
                struct http_server *s = new_server(serve_text, context_of(answers[i]));
                struct http_request r = HTTP_REQUEST_INIT;
                struct error e = ERROR_INIT;
                struct transfer *t;

                r.ranged = true;
                r.range_offset = 10;
                r.range_length = 10;
                t = start(h, s, "/blob", &r);
                if (transfer_wait_headers(t, deadline_in(PATIENCE), &e) != -EBADMSG)
                        fail_msg("accepted: %s", answers[i]);
                assert_int_equal(e.kind, ERROR_BAD_DATA);
                assert_non_null(strstr(e.message, "/blob bytes 10-19: "));
                transfer_unref(t);
                http_server_stop(s);
        }
}

static void http_takes_a_range_of_unknown_total(void **state _unused_)
{
        static const char answer[] = "HTTP/1.1 206 P\r\nContent-Range: bytes 10-14/*\r\nContent-Length: 5\r\n\r\nhello";
        _cleanup_(http_server_stop_ptr) struct http_server *s = new_server(serve_text, context_of(answer));
        _cleanup_(http_free_ptr) struct http *h = new_http();
        struct http_request r = HTTP_REQUEST_INIT;
        _cleanup_(transfer_unref_ptr) struct transfer *t = NULL;

        r.ranged = true;
        r.range_offset = 10;
        r.range_length = 5;
        t = start(h, s, "/", &r);
        expect_status(t, 206);
        assert_int_equal(transfer_range_total(t), UINT64_MAX);
        expect_body(t, 5);
}

static void http_refuses_a_part_that_nobody_asked_for(void **state _unused_)
{
        static const char answer[] = "HTTP/1.1 206 P\r\nContent-Range: bytes 0-4/9\r\nContent-Length: 5\r\n\r\nhello";
        _cleanup_(http_server_stop_ptr) struct http_server *s = new_server(serve_text, context_of(answer));
        _cleanup_(http_free_ptr) struct http *h = new_http();
        struct http_request r = HTTP_REQUEST_INIT;
        _cleanup_(transfer_unref_ptr) struct transfer *t = start(h, s, "/", &r);

        expect_failure(t, EBADMSG, "no range was asked for");
}

static void http_416_tells_the_size(void **state _unused_)
{
        _cleanup_(http_server_stop_ptr) struct http_server *s = new_server(serve_blob, NULL);
        _cleanup_(http_free_ptr) struct http *h = new_http();
        struct http_request r = HTTP_REQUEST_INIT;
        _cleanup_(transfer_unref_ptr) struct transfer *t = NULL;

        r.ranged = true;
        r.range_offset = BLOB_SIZE;
        r.range_length = 10;
        t = start(h, s, "/", &r);
        expect_status(t, 416);
        assert_false(transfer_range_ignored(t));
        assert_int_equal(transfer_range_total(t), BLOB_SIZE);
        expect_body(t, 0);
}

static void http_short_body_is_a_broken_connection(void **state _unused_)
{
        static const char *const answers[] = {
                "HTTP/1.1 206 P\r\nContent-Range: bytes 0-9/100\r\nContent-Length: 10\r\n\r\n12345",
                ("HTTP/1.1 206 P\r\nContent-Range: bytes 0-9/100\r\nTransfer-Encoding: chunked\r\n\r\n"
                 "5\r\n12345\r\n0\r\n\r\n"),
                "HTTP/1.1 206 P\r\nContent-Range: bytes 0-9/100\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n",
                "HTTP/1.1 206 P\r\nContent-Range: bytes 0-9/100\r\n\r\n12345",
        };
        _cleanup_(http_free_ptr) struct http *h = new_http();

        for (size_t i = 0; i < ELEMENTSOF(answers); i++) {
                struct http_server *s = new_server(serve_text, context_of(answers[i]));
                struct http_request r = HTTP_REQUEST_INIT;
                struct error e = ERROR_INIT;
                struct transfer *t;
                uint64_t received = 0;

                r.ranged = true;
                r.range_length = 10;
                t = start(h, s, "/", &r);
                expect_status(t, 206);
                assert_int_equal(transfer_wait(t, 10, deadline_in(PATIENCE), &received, &e), -ECONNRESET);
                assert_int_equal(received, 5);
                assert_non_null(strstr(e.message, "after 5 "));
                assert_true(http_error_is_transient(&e));
                /* What came is there. */
                assert_int_equal(transfer_wait(t, 5, DEADLINE_NEVER, &received, &e), 0);
                transfer_unref(t);
                http_server_stop(s);
        }
}

static void http_long_body_is_cut_at_its_bound(void **state _unused_)
{
        static const char *const answers[] = {
                "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n12345",
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n12345678901\r\n0\r\n\r\n",
                "HTTP/1.1 200 OK\r\n\r\n12345678901",
        };
        _cleanup_(http_free_ptr) struct http *h = new_http();
        struct pool_buf *b = NULL;
        struct pool *p;
        FILE *file = tmpfile();

        assert_non_null(file);
        assert_int_equal(pool_new(MIB, &p), 0);
        assert_int_equal(pool_get(p, 20, DEADLINE_NEVER, &b, NULL), 0);
        for (size_t i = 0; i < ELEMENTSOF(answers) * 3; i++) {
                struct http_server *s = new_server(serve_text, context_of(answers[i / 3]));
                struct http_request r = HTTP_REQUEST_INIT;
                struct transfer *t;

                memset(b->data, 0, b->size);
                if (i % 3 == 0) {
                        r.max_body = 10;
                } else if (i % 3 == 1) {
                        r.sink = b;
                        r.sink_capacity = 10;
                } else {
                        r.sink_fd = fileno(file);
                        r.sink_fd_max = 10;
                }
                t = start(h, s, "/", &r);
                expect_status(t, 200);
                expect_failure(t, EFBIG, "longer than");
                assert_int_equal(b->data[10], 0);
                if (i / 3 == 0) { /* declared too long: not a byte is taken */
                        assert_int_equal(b->data[0], 0);
                        assert_int_equal(lseek(fileno(file), 0, SEEK_END), 0);
                }
                transfer_unref(t);
                http_server_stop(s);
        }
        assert_true(lseek(fileno(file), 0, SEEK_END) <= 10);
        fclose(file);
        pool_buf_unref(b);
        pool_free(p);
}

static void http_range_longer_than_its_headers_say_is_cut(void **state _unused_)
{
        static const char answer[] =
                "HTTP/1.1 206 P\r\nContent-Range: bytes 0-9/100\r\nTransfer-Encoding: chunked\r\n\r\n"
                "b\r\n12345678901\r\n0\r\n\r\n";
        _cleanup_(http_server_stop_ptr) struct http_server *s = new_server(serve_text, context_of(answer));
        _cleanup_(http_free_ptr) struct http *h = new_http();
        struct http_request r = HTTP_REQUEST_INIT;
        _cleanup_(transfer_unref_ptr) struct transfer *t = NULL;

        r.ranged = true;
        r.range_length = 10;
        t = start(h, s, "/", &r);
        expect_status(t, 206);
        expect_failure(t, EFBIG, "longer than");
}

static void http_error_body_goes_to_memory_and_is_cut(void **state _unused_)
{
        _cleanup_(http_server_stop_ptr) struct http_server *s = new_server(serve_endless_error, NULL);
        _cleanup_(http_free_ptr) struct http *h = new_http();
        struct http_request r = HTTP_REQUEST_INIT;
        struct pool_buf *b = NULL;
        struct transfer *t;
        struct pool *p;
        size_t length;

        assert_int_equal(pool_new(MIB, &p), 0);
        assert_int_equal(pool_get(p, 100, DEADLINE_NEVER, &b, NULL), 0);
        memset(b->data, 7, b->size);
        r.sink = b;
        r.sink_capacity = b->size;
        t = start(h, s, "/", &r);
        expect_status(t, 503);
        expect_body(t, 64 * KIB);
        assert_memory_equal(transfer_body(t, &length), blob, 4096);
        assert_int_equal(length, 64 * KIB);
        for (size_t i = 0; i < b->size; i++)
                assert_int_equal(b->data[i], 7);
        transfer_unref(t);
        pool_buf_unref(b);
        pool_free(p);
}

static void http_writes_to_a_file_in_order(void **state _unused_)
{
        _cleanup_(http_server_stop_ptr) struct http_server *s = new_server(serve_blob, NULL);
        _cleanup_(http_free_ptr) struct http *h = new_http();
        struct http_request r = HTTP_REQUEST_INIT;
        _cleanup_(transfer_unref_ptr) struct transfer *t = NULL;
        _cleanup_free_ uint8_t *written = malloc(BLOB_SIZE);
        char path[] = "/tmp/test_http.XXXXXX";
        int fd = mkstemp(path), again;

        assert_true(fd >= 0);
        again = open(path, O_RDONLY | O_CLOEXEC);
        assert_true(again >= 0);
        unlink(path);
        r.sink_fd = fd;
        r.sink_fd_max = BLOB_SIZE;
        t = start(h, s, "/", &r);
        close(fd); /* the transfer has its own */
        expect_body(t, BLOB_SIZE);
        assert_int_equal(pread_full(again, written, BLOB_SIZE, 0), 0);
        assert_memory_equal(written, blob, BLOB_SIZE);
        close(again);
}

static void http_file_that_cannot_be_written_is_named(void **state _unused_)
{
        _cleanup_(http_server_stop_ptr) struct http_server *s = new_server(serve_blob, NULL);
        _cleanup_(http_free_ptr) struct http *h = new_http();
        struct http_request r = HTTP_REQUEST_INIT;
        _cleanup_(transfer_unref_ptr) struct transfer *t = NULL;
        int pair[2];

        assert_int_equal(pipe2(pair, O_CLOEXEC), 0);
        r.sink_fd = pair[1]; /* a pipe has no position 0 */
        r.sink_fd_max = BLOB_SIZE;
        t = start(h, s, "/", &r);
        expect_status(t, 200);
        expect_failure(t, ESPIPE, "storing the body");
        close(pair[0]);
        close(pair[1]);
}

static int set_up(void **state _unused_)
{
        fill_pattern(blob, sizeof(blob));
        return 0;
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(http_range_lands_in_the_pool_buffer),
                cmocka_unit_test(http_whole_answer_satisfies_a_range_of_everything),
                cmocka_unit_test(http_tells_when_the_range_was_ignored),
                cmocka_unit_test(http_refuses_another_range_than_asked_for),
                cmocka_unit_test(http_takes_a_range_of_unknown_total),
                cmocka_unit_test(http_refuses_a_part_that_nobody_asked_for),
                cmocka_unit_test(http_416_tells_the_size),
                cmocka_unit_test(http_short_body_is_a_broken_connection),
                cmocka_unit_test(http_long_body_is_cut_at_its_bound),
                cmocka_unit_test(http_range_longer_than_its_headers_say_is_cut),
                cmocka_unit_test(http_error_body_goes_to_memory_and_is_cut),
                cmocka_unit_test(http_writes_to_a_file_in_order),
                cmocka_unit_test(http_file_that_cannot_be_written_is_named),
        };

        return cmocka_run_group_tests(tests, set_up, NULL);
}
