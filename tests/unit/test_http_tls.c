/* SPDX-License-Identifier: Apache-2.0 */

#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "http_fixture.h"
#include "regfs/io.h"

static char directory[] = "/tmp/test_http_tls.XXXXXX";
static char *ca_pem;

static const char *file(const char *name, const char *suffix)
{
        static char paths[4][200];
        static unsigned next;
        char *path = paths[next++ % ELEMENTSOF(paths)];

        snprintf(path, sizeof(paths[0]), "%s/%s.%s", directory, name, suffix);
        return path;
}

static void serve_hello(struct http_exchange *x, void *context _unused_)
{
        exchange_respond(x, 200, NULL, "hello", 5);
}

static struct http_server *tls_server(const char *name, const char *client_ca)
{
        struct http_server_options o = {
                .handler = serve_hello,
                .certificate = file(name, "pem"),
                .key = file(name, "key"),
                .client_ca = client_ca,
        };

        return http_server_start(&o);
}

static void expect_hello(struct http *h, struct http_server *s, const struct http_tls *tls)
{
        struct http_request r = HTTP_REQUEST_INIT;
        struct transfer *t;

        r.tls = tls;
        t = start(h, s, "/", &r);
        expect_status(t, 200);
        expect_body(t, 5);
        transfer_unref(t);
}

/* No byte of HTTP was exchanged, and the message has WORDS. */
static void expect_tls_failure(struct http *h, struct http_server *s, const struct http_tls *tls, int code,
                               const char *words)
{
        struct http_request r = HTTP_REQUEST_INIT;
        struct error e = ERROR_INIT;
        struct transfer *t;

        r.tls = tls;
        t = start(h, s, "/", &r);
        assert_int_equal(transfer_wait_headers(t, deadline_in(PATIENCE), &e), -code);
        assert_int_equal(e.kind, ERROR_UNREACHABLE);
        if (!strstr(e.message, words))
                fail_msg("'%s' is not in '%s'", words, e.message);
        assert_int_equal(http_server_requests(s), 0);
        transfer_unref(t);
}

static void tls_unknown_authority_is_not_trusted(void **state _unused_)
{
        _cleanup_(http_server_stop_ptr) struct http_server *good = tls_server("good", NULL);
        _cleanup_(http_server_stop_ptr) struct http_server *stranger = tls_server("stranger", NULL);
        _cleanup_(http_free_ptr) struct http *h = new_http();

        expect_tls_failure(h, good, NULL, EPROTO, "certificate is not trusted");
        expect_tls_failure(h, stranger, &(struct http_tls) { .ca_pem = ca_pem }, EPROTO, "certificate is not trusted");
}

static void tls_authority_of_the_request_is_trusted(void **state _unused_)
{
        _cleanup_(http_server_stop_ptr) struct http_server *s = tls_server("good", NULL);
        _cleanup_(http_free_ptr) struct http *h = new_http();

        expect_hello(h, s, &(struct http_tls) { .ca_pem = ca_pem });
}

static void tls_trust_of_one_request_is_not_that_of_another(void **state _unused_)
{
        _cleanup_(http_server_stop_ptr) struct http_server *s = tls_server("good", NULL);
        _cleanup_(http_free_ptr) struct http *h = new_http();
        struct http_request r = HTTP_REQUEST_INIT;
        struct transfer *t;

        expect_hello(h, s, &(struct http_tls) { .ca_pem = ca_pem });
        expect_hello(h, s, &(struct http_tls) { .insecure = true });
        /* Two connections to that server are open now; neither is one for a request that trusts less. */
        t = start(h, s, "/", &r);
        expect_failure(t, EPROTO, "certificate is not trusted");
        transfer_unref(t);
}

static void tls_expired_certificate_is_named(void **state _unused_)
{
        _cleanup_(http_server_stop_ptr) struct http_server *s = tls_server("expired", NULL);
        _cleanup_(http_free_ptr) struct http *h = new_http();

        expect_tls_failure(h, s, &(struct http_tls) { .ca_pem = ca_pem }, EPROTO, "certificate has expired");
}

static void tls_certificate_of_another_host_is_named(void **state _unused_)
{
        _cleanup_(http_server_stop_ptr) struct http_server *s = tls_server("elsewhere", NULL);
        _cleanup_(http_free_ptr) struct http *h = new_http();

        expect_tls_failure(h, s, &(struct http_tls) { .ca_pem = ca_pem }, EPROTO, "certificate is for another host");
}

static void tls_insecure_accepts_any_certificate(void **state _unused_)
{
        static const char *const names[] = { "good", "stranger", "expired", "elsewhere" };
        _cleanup_(http_free_ptr) struct http *h = new_http();

        for (size_t i = 0; i < ELEMENTSOF(names); i++) {
                struct http_server *s = tls_server(names[i], NULL);

                expect_hello(h, s, &(struct http_tls) { .insecure = true });
                http_server_stop(s);
        }
}

/* Asks a server that speaks no TLS over https. */
static void ask_https(struct http *h, struct http_server *s, const struct http_tls *tls, int code, const char *words)
{
        struct http_request r = HTTP_REQUEST_INIT;
        struct error e = ERROR_INIT;
        struct transfer *t = NULL;
        char url[100];

        snprintf(url, sizeof(url), "https://127.0.0.1:%u/", http_server_port(s));
        r.url = url;
        r.tls = tls;
        assert_int_equal(http_start(h, &r, &t, &e), 0);
        expect_failure(t, code, words);
        transfer_unref(t);
}

static void answer_in_the_clear(int fd, void *context _unused_)
{
        static const char answer[] = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
        char hello[4096];

        if (recv(fd, hello, sizeof(hello), 0) > 0)
                send(fd, answer, sizeof(answer) - 1, MSG_NOSIGNAL);
        while (recv(fd, hello, sizeof(hello), 0) > 0)
                ;
}

static void hang_up(int fd, void *context _unused_)
{
        char hello[4096];

        recv(fd, hello, sizeof(hello), 0);
}

static void tls_is_told_from_no_tls_at_all(void **state _unused_)
{
        _cleanup_(http_server_stop_ptr) struct http_server *plain =
                http_server_start(&(struct http_server_options) { .raw = answer_in_the_clear });
        _cleanup_(http_server_stop_ptr) struct http_server *curt =
                http_server_start(&(struct http_server_options) { .raw = hang_up });
        _cleanup_(http_free_ptr) struct http *h = new_http();

        ask_https(h, plain, NULL, EPROTO, "does not speak TLS at all");
        ask_https(h, plain, &(struct http_tls) { .insecure = true }, EPROTO, "does not speak TLS at all");
        ask_https(h, curt, NULL, ECONNRESET, "hung up during the handshake");
}

static void tls_shows_the_client_certificate(void **state _unused_)
{
        _cleanup_(http_server_stop_ptr) struct http_server *s = tls_server("good", file("ca", "pem"));
        _cleanup_(http_free_ptr) struct http *h = new_http();
        struct http_tls with = { .ca_pem = ca_pem,
                                 .client_cert = file("client", "pem"),
                                 .client_key = file("client", "key") };
        struct http_tls wrong_key = with, missing = with;

        expect_tls_failure(h, s, &(struct http_tls) { .ca_pem = ca_pem }, EPROTO, "TLS: the server ");
        wrong_key.client_key = file("good", "key");
        expect_tls_failure(h, s, &wrong_key, EPROTO, "client certificate cannot be used");
        missing.client_cert = file("missing", "pem");
        expect_tls_failure(h, s, &missing, EPROTO, "client certificate cannot be used");
        expect_hello(h, s, &with);
}

static void tls_garbage_as_authority_is_named(void **state _unused_)
{
        _cleanup_(http_server_stop_ptr) struct http_server *s = tls_server("good", NULL);
        _cleanup_(http_free_ptr) struct http *h = new_http();

        expect_tls_failure(h, s, &(struct http_tls) { .ca_pem = "-----BEGIN CERTIFICATE-----\nno\n" }, EPROTO,
                           "certificates to trust cannot be read");
}

static int remove_entry(const char *path, const struct stat *st _unused_, int type _unused_, struct FTW *ftw _unused_)
{
        return remove(path);
}

static int set_up(void **state _unused_)
{
        struct buf pem = { .max = 64 * KIB };
        struct error e = ERROR_INIT;

        if (!mkdtemp(directory))
                return -1;
        http_server_make_certificates(directory);
        if (file_read(AT_FDCWD, file("ca", "pem"), 64 * KIB, &pem, &e) < 0)
                return -1;
        ca_pem = buf_steal(&pem);
        return ca_pem ? 0 : -1;
}

static int tear_down(void **state _unused_)
{
        free(ca_pem);
        return nftw(directory, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(tls_unknown_authority_is_not_trusted),
                cmocka_unit_test(tls_authority_of_the_request_is_trusted),
                cmocka_unit_test(tls_trust_of_one_request_is_not_that_of_another),
                cmocka_unit_test(tls_expired_certificate_is_named),
                cmocka_unit_test(tls_certificate_of_another_host_is_named),
                cmocka_unit_test(tls_insecure_accepts_any_certificate),
                cmocka_unit_test(tls_is_told_from_no_tls_at_all),
                cmocka_unit_test(tls_shows_the_client_certificate),
                cmocka_unit_test(tls_garbage_as_authority_is_named),
        };

        return cmocka_run_group_tests(tests, set_up, tear_down);
}
