/* SPDX-License-Identifier: Apache-2.0 */

#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/queue.h>
#include <sys/socket.h>

#include "http_server.h"
#include "regfs/thread.h"

#define HEAD_MAX (64 * KIB)

/* What servers without TLS say to a client that begins with it. */
#define TLS_HANDSHAKE 22
#define NO_TLS "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"

struct http_connection {
        struct http_server *server;
        pthread_t thread;
        unsigned number;
        int fd;
        SSL *tls;
        bool close; /* after this exchange */
        char *in;   /* received, not yet consumed */
        size_t in_len;
        bool closed; /* the server's lock guards it: fd is not to be shut down any more */
        SLIST_ENTRY(http_connection) next;
};

struct http_server {
        struct http_server_options options;
        SSL_CTX *tls;
        int fd;
        unsigned port;
        pthread_t thread;
        struct mutex lock;
        bool stopping; /* guarded by lock, as all that follows */
        unsigned connection_count, request_count;
        SLIST_HEAD(, http_connection) connections;
};

static ssize_t receive(struct http_connection *c, void *data, size_t n)
{
        int r;

        if (!c->tls)
                return recv(c->fd, data, n, 0);
        r = SSL_read(c->tls, data, (int) MIN(n, 64 * KIB));
        return r > 0 ? r : 0;
}

static ssize_t transmit(struct http_connection *c, const void *data, size_t n)
{
        int r;

        if (!c->tls)
                return send(c->fd, data, n, MSG_NOSIGNAL);
        r = SSL_write(c->tls, data, (int) MIN(n, 64 * KIB));
        return r > 0 ? r : -1;
}

/* Reads until at least N bytes are there. */
static bool fill(struct http_connection *c, size_t n)
{
        while (c->in_len < n) {
                char *larger = realloc(c->in, c->in_len + 16 * KIB + 1);
                ssize_t got;

                if (!larger)
                        err(1, "test server");
                c->in = larger;
                got = receive(c, c->in + c->in_len, 16 * KIB);
                if (got <= 0)
                        return false;
                c->in_len += (size_t) got;
                c->in[c->in_len] = '\0';
        }
        return true;
}

/* The length of the request's head, its empty line included; 0 when the peer has gone. */
static size_t read_head(struct http_connection *c)
{
        char *end;

        while (!c->in || !(end = strstr(c->in, "\r\n\r\n"))) {
                if (c->in_len > HEAD_MAX || !fill(c, c->in_len + 1))
                        return 0;
                if (c->in[0] == TLS_HANDSHAKE && !c->tls) {
                        (void) transmit(c, NO_TLS, strlen(NO_TLS));
                        return 0;
                }
        }
        return (size_t) (end - c->in) + 4;
}

const char *exchange_header(const struct http_exchange *x, const char *name, char *out, size_t size)
{
        size_t n = strlen(name);

        for (const char *p = strstr(x->head, "\r\n"); p && strncmp(p, "\r\n\r\n", 4) != 0; p = strstr(p, "\r\n")) {
                p += 2;
                if (strncasecmp(p, name, n) != 0 || p[n] != ':')
                        continue;
                p += n + 1;
                p += strspn(p, " \t");
                snprintf(out, size, "%.*s", (int) strcspn(p, "\r\n"), p);
                return out;
        }
        return NULL;
}

bool exchange_range(const struct http_exchange *x, uint64_t *ret_first, uint64_t *ret_last)
{
        unsigned long long first, last;
        char range[100];

        if (!exchange_header(x, "Range", range, sizeof(range)) || sscanf(range, "bytes=%llu-%llu", &first, &last) != 2)
                return false;
        *ret_first = first;
        *ret_last = last;
        return true;
}

bool exchange_send(struct http_exchange *x, const void *data, size_t n)
{
        const char *p = data;

        while (n > 0) {
                ssize_t sent = transmit(x->via, p, n);

                if (sent <= 0) {
                        x->via->close = true;
                        return false;
                }
                p += sent;
                n -= (size_t) sent;
        }
        return true;
}

bool exchange_printf(struct http_exchange *x, const char *format, ...)
{
        _cleanup_free_ char *text = NULL;
        va_list ap;
        int n;

        va_start(ap, format);
        n = vasprintf(&text, format, ap);
        va_end(ap);
        if (n < 0)
                err(1, "test server");
        return exchange_send(x, text, (size_t) n);
}

bool exchange_respond(struct http_exchange *x, unsigned status, const char *headers, const void *body, size_t n)
{
        return exchange_printf(x, "HTTP/1.1 %u Test\r\nContent-Length: %zu\r\n%s\r\n", status, n,
                               headers ? headers : "") &&
               (strcmp(x->method, "HEAD") == 0 || exchange_send(x, body, n));
}

bool exchange_serve(struct http_exchange *x, const void *data, size_t n)
{
        uint64_t first, last;
        char headers[100];

        if (!exchange_range(x, &first, &last))
                return exchange_respond(x, 200, NULL, data, n);
        if (first >= n) {
                snprintf(headers, sizeof(headers), "Content-Range: bytes */%zu\r\n", n);
                return exchange_respond(x, 416, headers, "", 0);
        }
        last = MIN(last, (uint64_t) n - 1);
        snprintf(headers, sizeof(headers), "Content-Range: bytes %llu-%llu/%zu\r\n", (unsigned long long) first,
                 (unsigned long long) last, n);
        return exchange_respond(x, 206, headers, (const char *) data + first, last - first + 1);
}

void exchange_close(struct http_exchange *x)
{
        x->via->close = true;
}

void exchange_reset(struct http_exchange *x)
{
        struct linger now = { .l_onoff = 1 };

        setsockopt(x->via->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
        x->via->close = true;
}

void exchange_wait_hangup(struct http_exchange *x)
{
        struct pollfd p = { .fd = x->via->fd, .events = POLLRDHUP };

        while (poll(&p, 1, -1) < 0 && errno == EINTR)
                ;
        x->via->close = true;
}

/* Serves one request. False when the connection is over. */
static bool serve(struct http_connection *c)
{
        struct http_server *s = c->server;
        struct http_exchange x = { .server = s, .connection = c->number, .via = c };
        _cleanup_free_ char *head = NULL, *body = NULL;
        size_t head_length = read_head(c);
        char length[32];

        if (head_length == 0)
                return false;
        head = strndup(c->in, head_length);
        if (!head)
                err(1, "test server");
        x.head = head;
        if (sscanf(head, "%15s %4095s", x.method, x.target) != 2)
                return false;
        if (exchange_header(&x, "Content-Length", length, sizeof(length)))
                x.body_length = strtoul(length, NULL, 10);
        if (!fill(c, head_length + x.body_length))
                return false;
        body = calloc(1, x.body_length + 1);
        if (!body)
                err(1, "test server");
        memcpy(body, c->in + head_length, x.body_length);
        x.body = body;
        c->in_len -= head_length + x.body_length;
        memmove(c->in, c->in + head_length + x.body_length, c->in_len + 1);

        mutex_lock(&s->lock);
        x.request = ++s->request_count;
        mutex_unlock(&s->lock);
        s->options.handler(&x, s->options.context);
        return !c->close;
}

/* Reads what the peer still sends: closing over unread bytes resets the connection, and the alert may be lost. */
static void linger(int fd)
{
        char rest[4096];

        shutdown(fd, SHUT_WR);
        while (recv(fd, rest, sizeof(rest), 0) > 0)
                ;
}

static void *connection_run(void *arg)
{
        struct http_connection *c = arg;
        struct http_server *s = c->server;
        bool talks = true;

        if (s->options.raw) {
                s->options.raw(c->fd, s->options.context);
                talks = false;
        } else if (s->tls) {
                c->tls = SSL_new(s->tls);
                if (!c->tls || SSL_set_fd(c->tls, c->fd) != 1)
                        errx(1, "test server: no TLS");
                talks = SSL_accept(c->tls) == 1;
                if (!talks)
                        linger(c->fd);
        }
        while (talks && serve(c))
                ;
        if (c->tls) {
                if (talks)
                        SSL_shutdown(c->tls);
                SSL_free(c->tls);
        }
        mutex_lock(&s->lock);
        c->closed = true;
        mutex_unlock(&s->lock);
        close(c->fd);
        free(c->in);
        c->in = NULL;
        return NULL;
}

static void *server_run(void *arg)
{
        struct http_server *s = arg;
        int one = 1;

        for (;;) {
                int fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC), r;
                struct http_connection *c;

                if (fd < 0 && (errno == EINTR || errno == ECONNABORTED))
                        continue;
                if (fd < 0)
                        return NULL;
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
                c = calloc(1, sizeof(*c));
                if (!c)
                        err(1, "test server");
                c->server = s;
                c->fd = fd;
                mutex_lock(&s->lock);
                c->number = ++s->connection_count;
                SLIST_INSERT_HEAD(&s->connections, c, next);
                r = thread_start(&c->thread, "test-connection", connection_run, c);
                if (r < 0)
                        errx(1, "test server: %s", strerror(-r));
                if (s->stopping)
                        shutdown(fd, SHUT_RDWR);
                mutex_unlock(&s->lock);
        }
}

static void set_up_tls(struct http_server *s)
{
        const struct http_server_options *o = &s->options;

        s->tls = SSL_CTX_new(TLS_server_method());
        if (!s->tls || SSL_CTX_use_certificate_chain_file(s->tls, o->certificate) != 1 ||
            SSL_CTX_use_PrivateKey_file(s->tls, o->key, SSL_FILETYPE_PEM) != 1)
                errx(1, "test server: cannot use %s and %s", o->certificate, o->key);
        if (!o->client_ca)
                return;
        if (SSL_CTX_load_verify_file(s->tls, o->client_ca) != 1)
                errx(1, "test server: cannot use %s", o->client_ca);
        SSL_CTX_set_verify(s->tls, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
}

struct http_server *http_server_start(const struct http_server_options *options)
{
        struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        socklen_t length = sizeof(address);
        struct http_server *s = calloc(1, sizeof(*s));
        int r;

        if (!s)
                err(1, "test server");
        s->options = *options;
        if (options->certificate)
                set_up_tls(s);
        mutex_init(&s->lock);
        SLIST_INIT(&s->connections);
        s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (s->fd < 0 || bind(s->fd, (struct sockaddr *) &address, sizeof(address)) < 0 || listen(s->fd, 256) < 0 ||
            getsockname(s->fd, (struct sockaddr *) &address, &length) < 0)
                err(1, "test server");
        s->port = ntohs(address.sin_port);
        r = thread_start(&s->thread, "test-server", server_run, s);
        if (r < 0)
                errx(1, "test server: %s", strerror(-r));
        return s;
}

struct http_server *http_server_stop(struct http_server *s)
{
        struct http_connection *c;

        if (!s)
                return NULL;
        mutex_lock(&s->lock);
        s->stopping = true;
        SLIST_FOREACH(c, &s->connections, next)
                if (!c->closed)
                        shutdown(c->fd, SHUT_RDWR);
        mutex_unlock(&s->lock);
        shutdown(s->fd, SHUT_RDWR);
        pthread_join(s->thread, NULL);
        while ((c = SLIST_FIRST(&s->connections))) {
                SLIST_REMOVE_HEAD(&s->connections, next);
                pthread_join(c->thread, NULL);
                free(c);
        }
        close(s->fd);
        SSL_CTX_free(s->tls);
        mutex_destroy(&s->lock);
        free(s);
        return NULL;
}

unsigned http_server_port(const struct http_server *s)
{
        return s->port;
}

char *http_server_url(const struct http_server *s, const char *target, char *out, size_t size)
{
        snprintf(out, size, "%s:%u%s", s->tls ? "https://localhost" : "http://127.0.0.1", s->port, target);
        return out;
}

unsigned http_server_connections(struct http_server *s)
{
        unsigned n;

        mutex_lock(&s->lock);
        n = s->connection_count;
        mutex_unlock(&s->lock);
        return n;
}

unsigned http_server_requests(struct http_server *s)
{
        unsigned n;

        mutex_lock(&s->lock);
        n = s->request_count;
        mutex_unlock(&s->lock);
        return n;
}

static void shell(const char *format, ...) _printf_(1, 2);

static void shell(const char *format, ...)
{
        _cleanup_free_ char *command = NULL;
        va_list ap;
        int n;

        va_start(ap, format);
        n = vasprintf(&command, format, ap);
        va_end(ap);
        if (n < 0)
                err(1, "test server");
        if (system(command) != 0)
                errx(1, "test server: failed: %s", command);
}

#define NEW_KEY "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"

static void make_authority(const char *directory, const char *name)
{
        shell("openssl req -x509 " NEW_KEY
              " -keyout '%s/%s.key' -out '%s/%s.pem' -days 2 -subj '/CN=regfs test %s' 2>/dev/null",
              directory, name, directory, name, name);
}

static void make_certificate(const char *directory, const char *name, const char *authority, int days, const char *san)
{
        shell("cd '%s' && openssl req -new " NEW_KEY " -keyout %s.key -out %s.csr -subj /CN=%s 2>/dev/null && "
              "echo 'subjectAltName=%s' > %s.ext && openssl x509 -req -in %s.csr -CA %s.pem -CAkey %s.key -days %d "
              "-set_serial 0x$(openssl rand -hex 8) -extfile %s.ext -out %s.pem 2>/dev/null",
              directory, name, name, name, san, name, name, authority, authority, days, name, name);
}

void http_server_make_certificates(const char *directory)
{
        make_authority(directory, "ca");
        make_authority(directory, "stranger-ca");
        make_certificate(directory, "good", "ca", 2, "DNS:localhost,IP:127.0.0.1");
        make_certificate(directory, "expired", "ca", -1, "DNS:localhost,IP:127.0.0.1");
        make_certificate(directory, "elsewhere", "ca", 2, "DNS:registry.example");
        make_certificate(directory, "client", "ca", 2, "DNS:client");
        make_certificate(directory, "stranger", "stranger-ca", 2, "DNS:localhost,IP:127.0.0.1");
}
