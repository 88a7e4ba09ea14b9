/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* An HTTP/1.1 server for tests: on 127.0.0.1, on a port of its own, in this process; plain or with TLS.
 * A thread accepts, a thread serves each connection and calls the handler for each request. A handler may answer well,
 * badly, slowly or never: whatever it waits for in the peer ends with http_server_stop. Functions abort the test
 * program when the system lets them down (no socket, no memory). */

#include "regfs/base.h"

struct http_server;

/* One request, and the way to answer it. Valid until the handler returns. */
struct http_exchange {
        struct http_server *server;
        char method[16];
        char target[4096]; /* path and query, as sent */
        const char *body;  /* NUL-terminated behind its length */
        size_t body_length;
        unsigned connection; /* 1 for the server's first, … */
        unsigned request;    /* number on the server, likewise */
        struct http_connection *via;
        const char *head; /* request line and headers, as sent */
};

struct http_server_options {
        /* Called for each request, from its connection's thread: several at once. Required unless raw is given. */
        void (*handler)(struct http_exchange *x, void *context);
        /* Called for each connection instead, before a byte of TLS or HTTP was read; the server closes FD after it. */
        void (*raw)(int fd, void *context);
        void *context;
        const char *certificate; /* PEM files of the server's pair: TLS; or NULL */
        const char *key;
        const char *client_ca; /* PEM file: clients must show a certificate of this authority; or NULL */
};

struct http_server *http_server_start(const struct http_server_options *options);

/* Cuts what is under way, waits for its threads. NULL is legal. Returns NULL. */
struct http_server *http_server_stop(struct http_server *s);
DEFINE_CLEANUP(struct http_server *, http_server_stop)

unsigned http_server_port(const struct http_server *s);

/* "http://127.0.0.1:PORT" or "https://localhost:PORT" followed by TARGET, into OUT. Returns OUT. */
char *http_server_url(const struct http_server *s, const char *target, char *out, size_t size);

unsigned http_server_connections(struct http_server *s);
unsigned http_server_requests(struct http_server *s);

/* The value of a request header into OUT, or NULL. */
const char *exchange_header(const struct http_exchange *x, const char *name, char *out, size_t size);

/* The range asked for, with both ends given; false when there is none. */
bool exchange_range(const struct http_exchange *x, uint64_t *ret_first, uint64_t *ret_last);

/* Raw bytes. False when the peer has gone. */
bool exchange_send(struct http_exchange *x, const void *data, size_t n);
bool exchange_printf(struct http_exchange *x, const char *format, ...) _printf_(2, 3);

/* A whole answer with Content-Length; HEADERS (or NULL) are lines, each ending in "\r\n". No body follows a HEAD. */
bool exchange_respond(struct http_exchange *x, unsigned status, const char *headers, const void *body, size_t n);

/* Serves DATA as a good server does: 206 for a range, 416 for one behind the end, else 200. */
bool exchange_serve(struct http_exchange *x, const void *data, size_t n);

/* The connection ends when the handler returns: in order, or by a reset. */
void exchange_close(struct http_exchange *x);
void exchange_reset(struct http_exchange *x);

/* Waits until the peer has hung up, or the server is being stopped. */
void exchange_wait_hangup(struct http_exchange *x);

/* Makes test certificates in DIRECTORY with the openssl command, each with its NAME.key: an authority ca.pem, and
 * signed by it good.pem (localhost, 127.0.0.1), expired.pem (likewise), elsewhere.pem (registry.example) and
 * client.pem; stranger.pem is signed by another authority, stranger-ca.pem. */
void http_server_make_certificates(const char *directory);
