/* SPDX-License-Identifier: Apache-2.0 */

/* libcurl's codes are coarser than what a person needs to know: a certificate that expired and one of an unknown
 * authority share a code, and so do a server that speaks no TLS and one that hung up. What the codes do not tell is
 * taken from the verify result, the operating system's error and, where nothing else is left, OpenSSL's words. */

#include <netdb.h>
#include <openssl/x509_vfy.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>

#include "http_internal.h"

void transfer_fail(struct transfer *t, enum error_kind kind, int code, const char *format, ...)
{
        char message[sizeof(t->error.message)];
        va_list ap;

        va_start(ap, format);
        vsnprintf(message, sizeof(message), format, ap);
        va_end(ap);
        error_set(&t->error, kind, code, "%s%s: %s", t->title, t->range_text, message);
}

/* curl's message without the spaces and full stops at its end. */
static const char *words(struct transfer *t, CURLcode code)
{
        size_t n = strlen(t->curl_message);

        while (n > 0 && strchr(" .\n", t->curl_message[n - 1]))
                t->curl_message[--n] = '\0';
        return n > 0 ? t->curl_message : curl_easy_strerror(code);
}

static int os_error(struct transfer *t)
{
        long code = 0;

        curl_easy_getinfo(t->easy, CURLINFO_OS_ERRNO, &code);
        return (int) code;
}

static void fail(struct transfer *t, int code, const char *what, const char *said)
{
        if (what)
                transfer_fail(t, ERROR_UNREACHABLE, code, "%s (%s)", what, said);
        else
                transfer_fail(t, ERROR_UNREACHABLE, code, "%s", said);
}

static void fail_connect(struct transfer *t, const char *said)
{
        switch (os_error(t)) {
        case ECONNREFUSED:
                fail(t, ECONNREFUSED, "connection refused", said);
                break;
        case ETIMEDOUT:
                fail(t, ETIMEDOUT, "no answer to the attempt to connect", said);
                break;
        case ECONNRESET:
                fail(t, ECONNRESET, "connection reset", said);
                break;
        case ENETUNREACH:
        case EHOSTUNREACH:
                fail(t, EHOSTUNREACH, "no route to the host", said);
                break;
        default:
                fail(t, EHOSTUNREACH, "cannot connect", said);
        }
}

static void fail_certificate(struct transfer *t, const char *said)
{
        long verified = X509_V_OK;

        /* libcurl compares the names itself, and then leaves no verify result. */
        if (strstr(said, "match")) {
                fail(t, EPROTO, "TLS: the server's certificate is for another host", said);
                return;
        }
        curl_easy_getinfo(t->easy, CURLINFO_SSL_VERIFYRESULT, &verified);
        switch (verified) {
        case X509_V_ERR_CERT_HAS_EXPIRED:
                fail(t, EPROTO, "TLS: the server's certificate has expired", said);
                break;
        case X509_V_ERR_CERT_NOT_YET_VALID:
                fail(t, EPROTO, "TLS: the server's certificate is not valid yet, or the clock here is wrong", said);
                break;
        case X509_V_ERR_CERT_REVOKED:
                fail(t, EPROTO, "TLS: the server's certificate was revoked", said);
                break;
        default:
                fail(t, EPROTO, "TLS: the server's certificate is not trusted", said);
        }
}

/* The handshake failed, but not over the server's certificate. */
static void fail_handshake(struct transfer *t, const char *said)
{
        static const char *const no_tls[] = { "wrong version number", "packet length too long", "unknown protocol",
                                              "bad record type", "record layer failure" };
        static const char *const hung_up[] = { "unexpected eof", "SSL_ERROR_SYSCALL", "SSL_ERROR_ZERO_RETURN",
                                               "Connection reset by peer", "Broken pipe" };

        for (size_t i = 0; i < ELEMENTSOF(no_tls); i++)
                if (strstr(said, no_tls[i])) {
                        fail(t, EPROTO, "TLS: the server does not speak TLS at all", said);
                        return;
                }
        for (size_t i = 0; i < ELEMENTSOF(hung_up); i++)
                if (strstr(said, hung_up[i])) {
                        fail(t, ECONNRESET, "TLS: the server hung up during the handshake", said);
                        return;
                }
        fail(t, EPROTO, "TLS: the handshake failed", said);
}

static void fail_broken(struct transfer *t, CURLcode code, const char *said)
{
        long tunnel = 0;

        curl_easy_getinfo(t->easy, CURLINFO_HTTP_CONNECTCODE, &tunnel);
        if (tunnel >= 300) {
                /* A proxy's gateway errors go away as a server's do; its refusals do not. */
                fail(t, tunnel >= 500 ? EHOSTUNREACH : EPERM, "the proxy refuses the tunnel", said);
                return;
        }
        /* TLS 1.3 servers tell only after the handshake that they want a certificate, or another one. */
        if (strstr(said, "alert") && strstr(said, "SSL routines")) {
                fail(t, EPROTO, "TLS: the server refuses", said);
                return;
        }
        if (code == CURLE_PARTIAL_FILE || t->body_received > 0)
                transfer_fail(t, ERROR_UNREACHABLE, ECONNRESET, "connection broken after %llu bytes (%s)",
                              (unsigned long long) t->body_received, said);
        else
                fail(t, ECONNRESET, "connection broken before an answer", said);
}

void transfer_fail_curl(struct transfer *t, CURLcode code)
{
        const char *said = words(t, code);

        switch (code) {
        case CURLE_OUT_OF_MEMORY:
                transfer_fail(t, ERROR_OTHER, ENOMEM, "out of memory");
                break;
        case CURLE_COULDNT_RESOLVE_HOST:
                t->unresolved = true;
                fail(t, EHOSTUNREACH, NULL, said);
                break;
        case CURLE_COULDNT_RESOLVE_PROXY:
                fail(t, EHOSTUNREACH, NULL, said);
                break;
        case CURLE_COULDNT_CONNECT:
                fail_connect(t, said);
                break;
        case CURLE_OPERATION_TIMEDOUT:
                fail(t, ETIMEDOUT, "no connection in time", said);
                break;
        case CURLE_PEER_FAILED_VERIFICATION:
        case CURLE_SSL_ISSUER_ERROR:
                fail_certificate(t, said);
                break;
        case CURLE_SSL_CONNECT_ERROR:
                fail_handshake(t, said);
                break;
        case CURLE_SSL_CLIENTCERT:
                fail(t, EPROTO, "TLS: the server demands a client certificate", said);
                break;
        case CURLE_SSL_CERTPROBLEM:
                fail(t, EPROTO, "TLS: the client certificate cannot be used", said);
                break;
        case CURLE_SSL_CACERT_BADFILE:
                fail(t, EPROTO, "TLS: the certificates to trust cannot be read", said);
                break;
        case CURLE_PARTIAL_FILE:
        case CURLE_GOT_NOTHING:
        case CURLE_SEND_ERROR:
        case CURLE_SEND_FAIL_REWIND: /* transfer_on_rewind */
        case CURLE_RECV_ERROR:
        case CURLE_HTTP2:
        case CURLE_HTTP2_STREAM:
                fail_broken(t, code, said);
                break;
        case CURLE_UNSUPPORTED_PROTOCOL: /* an answer without a status line */
        case CURLE_WEIRD_SERVER_REPLY:
                fail(t, EPROTO, "the answer is not HTTP", said);
                break;
        default:
                fail(t, EPROTO, NULL, said);
        }
}

/* libcurl does not tell a name that does not exist from a resolver that cannot say just now. */
static int explain_unresolved(const struct transfer *t, struct error *e)
{
        const struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_IDN };
        _cleanup_free_ char *host = http_url_host(t->url);
        struct addrinfo *found = NULL;
        int r;

        if (!host)
                return error_oom(e);
        r = getaddrinfo(host, NULL, &hints, &found);
        if (found)
                freeaddrinfo(found);
        if (r == EAI_NONAME || r == EAI_NODATA)
                return error_set(e, ERROR_UNREACHABLE, ENXIO, "%s: no host named '%s' exists", t->title, host);
        return error_set(e, ERROR_UNREACHABLE, EHOSTUNREACH, "%s: the name '%s' could not be resolved just now%s%s",
                         t->title, host, r == 0 ? "" : ": ", r == 0 ? "" : gai_strerror(r));
}

int transfer_explain(const struct transfer *t, struct error *e)
{
        if (t->unresolved)
                return explain_unresolved(t, e);
        if (e)
                *e = t->error;
        return -t->error.code;
}

bool http_error_is_transient(const struct error *e)
{
        switch (e->code) {
        case ECONNREFUSED:
        case ECONNRESET:
        case EHOSTUNREACH:
        case ENETUNREACH:
        case ETIMEDOUT:
                return true;
        default:
                return false;
        }
}
