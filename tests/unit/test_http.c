/* SPDX-License-Identifier: Apache-2.0 */

#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "http_fixture.h"
#include "regfs/io.h"
#include "regfs/log.h"

static char log_path[] = "/tmp/test_http.XXXXXX";

/* Sends CONTEXT and resets the connection. */
static void serve_and_reset(struct http_exchange *x, void *context)
{
        exchange_printf(x, "%s", (const char *) context);
        exchange_reset(x);
}

/* Sends CONTEXT and then nothing more. */
static void serve_and_hang(struct http_exchange *x, void *context)
{
        exchange_printf(x, "%s", (const char *) context);
        exchange_wait_hangup(x);
}

static void serve_endless_headers(struct http_exchange *x, void *context _unused_)
{
        exchange_printf(x, "HTTP/1.1 200 OK\r\n");
        while (exchange_printf(x, "X-Padding: %01000d\r\n", 1))
                ;
}

/* Answers with the request itself. */
static void serve_echo(struct http_exchange *x, void *context _unused_)
{
        _cleanup_free_ char *echo = NULL;

        if (asprintf(&echo, "%s%s", x->head, x->body) >= 0)
                exchange_respond(x, 200, NULL, echo, strlen(echo));
}

static void http_gets_status_headers_and_body(void **state _unused_)
{
        static const char answer[] =
                "HTTP/1.1 404 Not Found\r\nWWW-Authenticate: Bearer realm=\"a\"\r\n"
                "x-Thing:  two words \r\nwww-authenticate: Basic\r\nContent-Length: 5\r\n\r\nhello";
        _cleanup_(http_server_stop_ptr) struct http_server *s = new_server(serve_text, context_of(answer));
        _cleanup_(http_free_ptr) struct http *h = new_http();
        struct http_request r = HTTP_REQUEST_INIT;
        _cleanup_(transfer_unref_ptr) struct transfer *t = start(h, s, "/", &r);
        size_t length;

        expect_status(t, 404);
        assert_string_equal(transfer_header(t, "WWW-Authenticate", 0), "Bearer realm=\"a\"");
        assert_string_equal(transfer_header(t, "WWW-AUTHENTICATE", 1), "Basic");
        assert_null(transfer_header(t, "WWW-Authenticate", 2));
        assert_string_equal(transfer_header(t, "X-Thing", 0), "two words");
        assert_null(transfer_header(t, "X-Thin", 0));
        assert_int_equal(transfer_content_length(t), 5);
        assert_int_equal(transfer_range_total(t), UINT64_MAX);
        assert_int_equal(transfer_retry_after(t), UINT64_MAX);
        expect_body(t, 5);
        assert_string_equal(transfer_body(t, &length), "hello");
        assert_int_equal(length, 5);
}

static void http_sends_what_was_asked_for(void **state _unused_)
{
        static const char *const headers[] = { "Authorization: Bearer sesame", "Accept: text/plain", NULL };
        _cleanup_(http_server_stop_ptr) struct http_server *s = new_server(serve_echo, NULL);
        _cleanup_(http_free_ptr) struct http *h = new_http();
        struct http_request r = HTTP_REQUEST_INIT;
        struct transfer *t;
        const char *body;

        r.headers = headers;
        t = start(h, s, "/v2/x?y=z#f", &r);
        expect_status(t, 200);
        expect_body(t, transfer_content_length(t));
        body = transfer_body(t, NULL);
        assert_ptr_equal(strstr(body, "GET /v2/x?y=z HTTP/1.1\r\n"), body);
        assert_non_null(strstr(body, "\r\nAuthorization: Bearer sesame\r\n"));
        assert_non_null(strstr(body, "\r\nAccept: text/plain\r\n"));
        assert_non_null(strstr(body, "\r\nAccept-Encoding: identity\r\n"));
        assert_non_null(strstr(body, "\r\nUser-Agent: regfs/" REGFS_VERSION "\r\n"));
        assert_null(strstr(body, "Range:"));
        transfer_unref(t);

        r = (struct http_request) HTTP_REQUEST_INIT;
        r.method = "POST";
        r.body = "grant_type=x";
        r.body_length = 12;
        t = start(h, s, "/token", &r);
        expect_status(t, 200);
        expect_body(t, transfer_content_length(t));
        body = transfer_body(t, NULL);
        assert_ptr_equal(strstr(body, "POST /token "), body);
        assert_non_null(strstr(body, "\r\nContent-Type: application/x-www-form-urlencoded\r\n"));
        assert_non_null(strstr(body, "\r\n\r\ngrant_type=x"));
        transfer_unref(t);
}

static void http_puts_a_body_with_its_length(void **state _unused_)
{
        static const size_t lengths[] = { 0, 10, 3 * MIB };
        _cleanup_(http_server_stop_ptr) struct http_server *s = new_server(serve_echo, NULL);
        _cleanup_(http_free_ptr) struct http *h = new_http();
        _cleanup_free_ char *data = malloc(3 * MIB);

        assert_non_null(data);
        memset(data, 'x', 3 * MIB);
        for (size_t k = 0; k < ELEMENTSOF(lengths); k++) {
                struct http_request r = HTTP_REQUEST_INIT;
                struct transfer *t;
                const char *body;
                char line[100];

                r.method = "PUT";
                r.body = data;
                r.body_length = lengths[k];
                r.max_body = 4 * MIB;
                t = start(h, s, "/v2/x", &r);
                expect_status(t, 200);
                expect_body(t, transfer_content_length(t));
                body = transfer_body(t, NULL);
                assert_ptr_equal(strstr(body, "PUT /v2/x HTTP/1.1\r\n"), body);
                snprintf(line, sizeof(line), "\r\nContent-Length: %zu\r\n", lengths[k]);
                assert_non_null(strstr(body, line));
                assert_null(strstr(body, "Expect:"));
                assert_null(strstr(body, "Transfer-Encoding:"));
                body = strstr(body, "\r\n\r\n") + 4;
                assert_int_equal(strspn(body, "x"), lengths[k]);
                assert_int_equal(strlen(body), lengths[k]);
                transfer_unref(t);
        }
        assert_int_equal(http_server_connections(s), 1);
}

static void http_deletes(void **state _unused_)
{
        _cleanup_(http_server_stop_ptr) struct http_server *s = new_server(serve_echo, NULL);
        _cleanup_(http_free_ptr) struct http *h = new_http();
        struct http_request r = HTTP_REQUEST_INIT;
        struct transfer *t;

        r.method = "DELETE";
        t = start(h, s, "/upload", &r);
        expect_status(t, 200);
        expect_body(t, transfer_content_length(t));
        assert_non_null(strstr(transfer_body(t, NULL), "DELETE /upload HTTP/1.1\r\n"));
        transfer_unref(t);
}

#define SLOW_BODY (16 * MIB)
#define SLOW_STEPS 160

/* Reads the request for 1.6 s, and only then answers. */
static void read_slowly(int fd, void *context _unused_)
{
        static const char answer[] = "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n";
        _cleanup_free_ char *step = malloc(SLOW_BODY / SLOW_STEPS);

        for (int k = 0; step && k < SLOW_STEPS; k++) {
                if (read_full(fd, step, SLOW_BODY / SLOW_STEPS) < 0)
                        return;
                nanosleep(&(struct timespec) { .tv_nsec = 10 * 1000 * 1000 }, NULL);
        }
        (void) write_full(fd, answer, strlen(answer));
}

static void http_slow_upload_is_no_stall(void **state _unused_)
{
        const struct http_options options = { .stall_timeout_ms = 700 };
        const struct http_server_options o = { .raw = read_slowly };
        _cleanup_(http_server_stop_ptr) struct http_server *s = http_server_start(&o);
        _cleanup_(http_free_ptr) struct http *h = NULL;
        struct http_request r = HTTP_REQUEST_INIT;
        _cleanup_free_ char *data = calloc(1, SLOW_BODY);
        struct transfer *t;

        assert_int_equal(http_new(&options, &h, NULL), 0);
        assert_non_null(data);
        r.method = "PUT";
        r.body = data;
        r.body_length = SLOW_BODY;
        t = start(h, s, "/v2/x", &r);
        expect_status(t, 201);
        transfer_unref(t);
}

static void http_head_has_a_length_but_no_body(void **state _unused_)
{
        _cleanup_(http_server_stop_ptr) struct http_server *s = new_server(serve_blob, NULL);
        _cleanup_(http_free_ptr) struct http *h = new_http();
        struct http_request r = HTTP_REQUEST_INIT;
        _cleanup_(transfer_unref_ptr) struct transfer *t = NULL;

        r.method = "HEAD";
        r.max_body = 10; /* less than the length that is declared: no bound is passed */
        t = start(h, s, "/", &r);
        expect_status(t, 200);
        assert_int_equal(transfer_content_length(t), BLOB_SIZE);
        expect_body(t, 0);
}

static void http_does_not_follow_redirects(void **state _unused_)
{
        static const char answer[] =
                "HTTP/1.1 307 There\r\nLocation: http://127.0.0.1:1/x\r\nContent-Length: 0\r\n\r\n";
        _cleanup_(http_server_stop_ptr) struct http_server *s = new_server(serve_text, context_of(answer));
        _cleanup_(http_free_ptr) struct http *h = new_http();
        struct http_request r = HTTP_REQUEST_INIT;
        _cleanup_(transfer_unref_ptr) struct transfer *t = start(h, s, "/", &r);

        expect_status(t, 307);
        assert_string_equal(transfer_header(t, "location", 0), "http://127.0.0.1:1/x");
        expect_body(t, 0);
        assert_int_equal(http_server_requests(s), 1);
}

static void http_skips_interim_answers_and_trailers(void **state _unused_)
{
        static const char answer[] = "HTTP/1.1 103 Early\r\nX-A: early\r\n\r\n"
                                     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-A\r\n\r\n"
                                     "3\r\nabc\r\n0\r\nX-A: late\r\n\r\n";
        _cleanup_(http_server_stop_ptr) struct http_server *s = new_server(serve_text, context_of(answer));
        _cleanup_(http_free_ptr) struct http *h = new_http();
        struct http_request r = HTTP_REQUEST_INIT;
        _cleanup_(transfer_unref_ptr) struct transfer *t = start(h, s, "/", &r);

        expect_status(t, 200);
        expect_body(t, 3);
        assert_null(transfer_header(t, "X-A", 0));
        assert_int_equal(transfer_content_length(t), UINT64_MAX);
}

static void http_keeps_connections(void **state _unused_)
{
        _cleanup_(http_server_stop_ptr) struct http_server *s = new_server(serve_blob, NULL);
        _cleanup_(http_free_ptr) struct http *h = new_http();
        struct http_stats stats;

        for (unsigned i = 0; i < 5; i++) {
                struct http_request r = HTTP_REQUEST_INIT;
                struct transfer *t = start(h, s, "/", &r);

                expect_status(t, 200);
                expect_body(t, BLOB_SIZE);
                transfer_unref(t);
        }
        assert_int_equal(http_server_connections(s), 1);
        http_get_stats(h, &stats);
        assert_int_equal(stats.requests, 5);
        assert_int_equal(stats.bytes, 5 * BLOB_SIZE);
}

static void http_limits_connections_to_a_host(void **state _unused_)
{
        _cleanup_(http_server_stop_ptr) struct http_server *s = new_server(serve_blob, NULL);
        struct http_options o = { .connections_per_host = 2 };
        struct transfer *transfers[20];
        struct http *h = NULL;

        assert_int_equal(http_new(&o, &h, NULL), 0);
        for (unsigned i = 0; i < 20; i++) {
                struct http_request r = HTTP_REQUEST_INIT;

                transfers[i] = start(h, s, "/", &r);
        }
        for (unsigned i = 0; i < 20; i++) {
                expect_body(transfers[i], BLOB_SIZE);
                transfer_unref(transfers[i]);
        }
        assert_in_range(http_server_connections(s), 1, 2);
        http_free(h);
}

static void http_headers_without_end_are_refused(void **state _unused_)
{
        _cleanup_(http_server_stop_ptr) struct http_server *s = new_server(serve_endless_headers, NULL);
        _cleanup_(http_free_ptr) struct http *h = new_http();
        struct http_request r = HTTP_REQUEST_INIT;
        _cleanup_(transfer_unref_ptr) struct transfer *t = start(h, s, "/", &r);

        expect_failure(t, EBADMSG, "headers are longer");
}

static void http_caller_may_run_out_of_time_and_come_back(void **state _unused_)
{
        static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345";
        _cleanup_(http_server_stop_ptr) struct http_server *s = new_server(serve_and_hang, context_of(answer));
        _cleanup_(http_free_ptr) struct http *h = new_http();
        struct http_request r = HTTP_REQUEST_INIT;
        _cleanup_(transfer_unref_ptr) struct transfer *t = start(h, s, "/", &r);
        struct error e = ERROR_INIT;
        uint64_t received = 0;

        assert_int_equal(transfer_wait(t, 5, deadline_in(PATIENCE), &received, &e), 0);
        assert_int_equal(transfer_wait(t, 6, deadline_in(10), &received, &e), -ETIMEDOUT);
        assert_int_equal(received, 5);
        assert_non_null(strstr(e.message, "only 5 bytes in time"));
        s = http_server_stop(s); /* which ends the connection */
        expect_failure(t, ECONNRESET, "broken after 5 bytes");
}

static void http_transfer_ends_at_its_own_deadline(void **state _unused_)
{
        static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345";
        _cleanup_(http_server_stop_ptr) struct http_server *silent = new_server(serve_and_hang, context_of(""));
        _cleanup_(http_server_stop_ptr) struct http_server *slow = new_server(serve_and_hang, context_of(answer));
        _cleanup_(http_free_ptr) struct http *h = new_http();
        struct http_request r = HTTP_REQUEST_INIT;
        struct transfer *t;

        r.deadline = deadline_in(500);
        t = start(h, silent, "/", &r);
        assert_int_equal(transfer_wait_headers(t, deadline_in(1), NULL), -ETIMEDOUT);
        expect_failure(t, ETIMEDOUT, "deadline passed before the server answered");
        transfer_unref(t);

        r.deadline = deadline_in(500);
        t = start(h, slow, "/", &r);
        expect_status(t, 200);
        expect_failure(t, ETIMEDOUT, "deadline passed after 5 bytes");
        transfer_unref(t);
}

static void http_stalled_server_ends_the_transfer(void **state _unused_)
{
        static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345";
        _cleanup_(http_server_stop_ptr) struct http_server *s = new_server(serve_and_hang, context_of(answer));
        struct http_options o = { .stall_timeout_ms = 200 };
        struct http_request r = HTTP_REQUEST_INIT;
        struct http *h = NULL;
        struct transfer *t;

        assert_int_equal(http_new(&o, &h, NULL), 0);
        t = start(h, s, "/", &r);
        expect_status(t, 200);
        expect_failure(t, ETIMEDOUT, "nothing for 0.2 s, after 5 bytes");
        transfer_unref(t);
        http_free(h);
}

static void http_broken_connections_are_told_apart(void **state _unused_)
{
        static const struct {
                const char *answer;
                bool reset;
                int code;
                const char *words;
        } cases[] = {
                { "", false, ECONNRESET, "broken before an answer" },
                { "", true, ECONNRESET, "broken before an answer" },
                { "SSH-2.0-OpenSSH_9.2\r\n", false, EPROTO, "not HTTP" },
        };
        _cleanup_(http_free_ptr) struct http *h = new_http();

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                struct http_server *s =
                        new_server(cases[i].reset ? serve_and_reset : serve_text, context_of(cases[i].answer));
                struct http_request r = HTTP_REQUEST_INIT;
                struct transfer *t = start(h, s, "/v2/", &r);
                struct error e = ERROR_INIT;

                assert_int_equal(transfer_wait_headers(t, deadline_in(PATIENCE), &e), -cases[i].code);
                assert_int_equal(e.kind, ERROR_UNREACHABLE);
                assert_int_equal(http_error_is_transient(&e), cases[i].code == ECONNRESET);
                if (!strstr(e.message, cases[i].words))
                        fail_msg("%s", e.message);
                transfer_unref(t);
                http_server_stop(s);
        }
}

static void http_refused_connection_is_named(void **state _unused_)
{
        struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        _cleanup_(http_free_ptr) struct http *h = new_http();
        _cleanup_(transfer_unref_ptr) struct transfer *t = NULL;
        struct http_request r = HTTP_REQUEST_INIT;
        struct error e = ERROR_INIT;
        socklen_t length = sizeof(a);
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        char url[100];

        /* Bound, but nobody listens. */
        assert_int_equal(bind(fd, (struct sockaddr *) &a, sizeof(a)), 0);
        assert_int_equal(getsockname(fd, (struct sockaddr *) &a, &length), 0);
        snprintf(url, sizeof(url), "http://127.0.0.1:%u/v2/?token=sesame", ntohs(a.sin_port));
        r.url = url;
        assert_int_equal(http_start(h, &r, &t, &e), 0);
        assert_int_equal(transfer_wait_headers(t, deadline_in(PATIENCE), &e), -ECONNREFUSED);
        assert_int_equal(e.kind, ERROR_UNREACHABLE);
        assert_true(http_error_is_transient(&e));
        assert_non_null(strstr(e.message, "/v2/?token=…: connection refused"));
        assert_null(strstr(e.message, "sesame"));
        close(fd);
}

static void http_unknown_host_is_named(void **state _unused_)
{
        _cleanup_(http_free_ptr) struct http *h = new_http();
        _cleanup_(transfer_unref_ptr) struct transfer *t = NULL;
        struct http_request r = HTTP_REQUEST_INIT;
        struct error e = ERROR_INIT;
        int result;

        r.url = "http://no-such-host.invalid/";
        assert_int_equal(http_start(h, &r, &t, &e), 0);
        result = transfer_wait_headers(t, deadline_in(PATIENCE), &e);
        assert_int_equal(e.kind, ERROR_UNREACHABLE);
        assert_non_null(strstr(e.message, "'no-such-host.invalid'"));
        /* Which of the two is this machine's resolver's word. */
        if (result == -ENXIO)
                assert_false(http_error_is_transient(&e));
        else
                assert_int_equal(result, -EHOSTUNREACH);
}

static void http_start_refuses_bad_requests(void **state _unused_)
{
        static const char *const urls[] = { "ftp://127.0.0.1/",
                                            "file:///etc/passwd",
                                            "no url",
                                            "",
                                            "http://",
                                            "http://user:sesame@127.0.0.1/",
                                            "http://127.0.0.1:99999/" };
        static const char *const injected[] = { "X: a\r\nAuthorization: b", NULL };
        static const char *const nameless[] = { "no colon", NULL };
        _cleanup_(http_free_ptr) struct http *h = new_http();
        struct http_request r = HTTP_REQUEST_INIT;
        struct transfer *t = NULL;
        struct error e;

        for (size_t i = 0; i < ELEMENTSOF(urls); i++) {
                r.url = urls[i];
                e = (struct error) ERROR_INIT;
                assert_int_equal(http_start(h, &r, &t, &e), -EINVAL);
                assert_int_equal(e.code, EINVAL);
                assert_null(strstr(e.message, "sesame"));
        }
        r.url = "http://127.0.0.1:1/";
        r.headers = injected;
        assert_int_equal(http_start(h, &r, &t, &e), -EINVAL);
        r.headers = nameless;
        assert_int_equal(http_start(h, &r, &t, &e), -EINVAL);
        r.headers = NULL;
        r.method = "BREW";
        assert_int_equal(http_start(h, &r, &t, &e), -EINVAL);
        r.method = "GET";
        r.ranged = true;
        r.range_length = 0;
        assert_int_equal(http_start(h, &r, &t, &e), -EINVAL);
        r.range_length = 2 * MIB; /* past the memory sink */
        assert_int_equal(http_start(h, &r, &t, &e), -EINVAL);
        r.range_length = 10;
        r.range_offset = UINT64_MAX - 8;
        assert_int_equal(http_start(h, &r, &t, &e), -EINVAL);
        r.ranged = false;
        r.sink_fd = 99999;
        assert_int_equal(http_start(h, &r, &t, &e), -EBADF);
        assert_null(t);
}

static void http_retry_after_is_seconds_or_a_date(void **state _unused_)
{
        static const struct {
                const char *value;
                uint64_t least, most;
        } cases[] = {
                { "7", 7000, 7000 },
                { "0", 0, 0 },
                { "1800", 1800000, 1800000 },
                { "99999999", 3600000, 3600000 },
                { "99999999999999999999999", 3600000, 3600000 },
                { "Fri, 01 Jan 2010 00:00:00 GMT", 0, 0 },
                { "Fri, 01 Jan 2100 00:00:00 GMT", 3600000, 3600000 },
                { "soon", UINT64_MAX, UINT64_MAX },
                { "", UINT64_MAX, UINT64_MAX },
        };
        _cleanup_(http_free_ptr) struct http *h = new_http();

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                char answer[200];
                struct http_server *s;
                struct http_request r = HTTP_REQUEST_INIT;
                struct transfer *t;

                snprintf(answer, sizeof(answer), "HTTP/1.1 429 Slow\r\nRetry-After: %s\r\nContent-Length: 0\r\n\r\n",
                         cases[i].value);
                s = new_server(serve_text, answer);
                t = start(h, s, "/", &r);
                expect_status(t, 429);
                assert_in_range(transfer_retry_after(t), cases[i].least, cases[i].most);
                transfer_unref(t);
                http_server_stop(s);
        }
}

static void http_log_has_the_request_and_no_secret(void **state _unused_)
{
        static const char *const headers[] = { "Authorization: Bearer sesame", NULL };
        _cleanup_(http_server_stop_ptr) struct http_server *s = new_server(serve_blob, NULL);
        _cleanup_(http_free_ptr) struct http *h = new_http();
        _cleanup_buf_ struct buf log = { .max = 0 };
        struct http_request r = HTTP_REQUEST_INIT;
        struct error e = ERROR_INIT;
        struct transfer *t;
        char expected[200];

        {
                LOG_SCOPE(4711, NULL);
                r.headers = headers;
                r.ranged = true;
                r.range_offset = 5;
                r.range_length = 95;
                t = start(h, s, "/logged?X-Signature=sesame", &r);
        }
        expect_body(t, 95);
        transfer_unref(t);
        assert_int_equal(file_read(AT_FDCWD, log_path, 64 * MIB, &log, &e), 0);
        snprintf(expected, sizeof(expected), "#4711 GET http://127.0.0.1:%u/logged?X-Signature=… bytes 5-99: asking\n",
                 http_server_port(s));
        assert_non_null(strstr(log.data, expected));
        snprintf(expected, sizeof(expected), "/logged?X-Signature=… bytes 5-99: 206, 95 bytes, ");
        assert_non_null(strstr(log.data, expected));
        assert_non_null(strstr(log.data, "ms, new connection, HTTP/1.1\n"));
        assert_null(strstr(log.data, "sesame"));
        assert_null(strstr(log.data, "Authorization"));
}

static int set_up(void **state _unused_)
{
        int fd = mkstemp(log_path);

        if (fd < 0)
                return -1;
        close(fd);
        fill_pattern(blob, sizeof(blob));
        return log_open(LOG_LEVEL_DEBUG, log_path, NULL);
}

static int tear_down(void **state _unused_)
{
        return unlink(log_path);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(http_gets_status_headers_and_body),
                cmocka_unit_test(http_sends_what_was_asked_for),
                cmocka_unit_test(http_puts_a_body_with_its_length),
                cmocka_unit_test(http_deletes),
                cmocka_unit_test(http_slow_upload_is_no_stall),
                cmocka_unit_test(http_head_has_a_length_but_no_body),
                cmocka_unit_test(http_does_not_follow_redirects),
                cmocka_unit_test(http_skips_interim_answers_and_trailers),
                cmocka_unit_test(http_keeps_connections),
                cmocka_unit_test(http_limits_connections_to_a_host),
                cmocka_unit_test(http_headers_without_end_are_refused),
                cmocka_unit_test(http_caller_may_run_out_of_time_and_come_back),
                cmocka_unit_test(http_transfer_ends_at_its_own_deadline),
                cmocka_unit_test(http_stalled_server_ends_the_transfer),
                cmocka_unit_test(http_broken_connections_are_told_apart),
                cmocka_unit_test(http_refused_connection_is_named),
                cmocka_unit_test(http_unknown_host_is_named),
                cmocka_unit_test(http_start_refuses_bad_requests),
                cmocka_unit_test(http_retry_after_is_seconds_or_a_date),
                cmocka_unit_test(http_log_has_the_request_and_no_secret),
        };

        return cmocka_run_group_tests(tests, set_up, tear_down);
}
