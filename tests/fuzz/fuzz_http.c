/* SPDX-License-Identifier: Apache-2.0 */

/* Whatever a server sends for an answer, by way of libcurl: where the body goes, and what is made of a range, a redirect,
 * a link to more, an error body, a token. The input's first byte chooses what was asked for. */

#include <fcntl.h>
#include <sys/socket.h>

#include "../../cache/http_internal.h"
#include "../../cache/registry/client_internal.h"
#include "fuzz.h"
#include "regfs/challenge.h"

#define URL "http://127.0.0.1:5000/v2/some/image/blobs/x?token=secret"
#define ANSWER_MAX (100 * KIB) /* fits a socket */
#define BODY_MAX 3000
#define GUARD 64
#define RANGE_OFFSET 10
#define RANGE_LENGTH 20

enum asked { ASKED_MEMORY, ASKED_POOL, ASKED_FILE, ASKED_RANGE, ASKED_RANGE_AT_0, ASKED_HEAD };

static struct http *http;
static struct pool *pool;

/* ---- one answer ---- */

static curl_socket_t give_socket(void *context, _unused_ curlsocktype purpose, _unused_ struct curl_sockaddr *address)
{
        int *fd = context;

        return steal_fd(fd);
}

static int is_connected(_unused_ void *context, _unused_ curl_socket_t fd, _unused_ curlsocktype purpose)
{
        return CURL_SOCKOPT_ALREADY_CONNECTED;
}

/* A socket from which the answer can be read, and no more. */
static int answering_socket(const uint8_t *data, size_t size, int *ret_other)
{
        int fds[2];

        REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
        REQUIRE(write_full(fds[1], data, size) == 0 && shutdown(fds[1], SHUT_WR) == 0);
        *ret_other = fds[1];
        return fds[0];
}

/* As the transfer thread does it. */
static void run(struct transfer *t, const uint8_t *data, size_t size)
{
        struct http_origin origin = { .key = NULL };
        _cleanup_close_ int other = -1, fd = answering_socket(data, size, &other);
        CURLcode code;

        t->origin = &origin;
        REQUIRE(transfer_make_easy(t) == 0);
        REQUIRE(curl_easy_setopt(t->easy, CURLOPT_OPENSOCKETFUNCTION, give_socket) == CURLE_OK);
        REQUIRE(curl_easy_setopt(t->easy, CURLOPT_OPENSOCKETDATA, &fd) == CURLE_OK);
        REQUIRE(curl_easy_setopt(t->easy, CURLOPT_SOCKOPTFUNCTION, is_connected) == CURLE_OK);
        REQUIRE(curl_easy_setopt(t->easy, CURLOPT_PROXY, "") == CURLE_OK);
        REQUIRE(curl_easy_setopt(t->easy, CURLOPT_TIMEOUT_MS, 10000L) == CURLE_OK);
        code = curl_easy_perform(t->easy);
        REQUIRE(code != CURLE_OPERATION_TIMEDOUT);
        transfer_conclude(t, code);
        mutex_lock(&t->lock);
        t->phase = PHASE_DONE;
        mutex_unlock(&t->lock);
        t->origin = NULL;
}

/* ---- what must hold ---- */

static bool is_wanted(const struct transfer *t)
{
        return t->answered && t->target != BODY_ERROR;
}

static void check_body(const struct transfer *t, enum asked asked, const struct pool_buf *buffer)
{
        size_t n;

        (void) transfer_body(t, &n);
        REQUIRE(n <= MAX((size_t) BODY_MAX, HTTP_ERROR_BODY_MAX));
        REQUIRE(!is_wanted(t) || t->body_received <= BODY_MAX);
        for (size_t i = 0; i < GUARD; i++)
                REQUIRE(buffer->data[i] == 0x5a && buffer->data[GUARD + BODY_MAX + i] == 0x5a);
        if (t->error.kind == ERROR_NONE && is_wanted(t) && (asked == ASKED_RANGE || asked == ASKED_RANGE_AT_0))
                REQUIRE(t->body_received == RANGE_LENGTH && (t->status == 206 || asked == ASKED_RANGE_AT_0));
}

static void check_url(const char *location)
{
        _cleanup_free_ char *joined = NULL;
        struct error e = ERROR_INIT;
        char masked[200];
        int r;

        http_mask_url(location, masked, sizeof(masked));
        r = http_join_url(URL, location, &joined, &e);
        if (r < 0) {
                REQUIRE(r == -EINVAL && is_told(r, &e));
                return;
        }
        REQUIRE(http_check_url(joined, NULL) == 0 && !strchr(joined, '#') && http_same_origin(joined, joined));
        REQUIRE(!strpbrk(joined, " \r\n\t"));
}

static void check_challenge(const struct transfer *t)
{
        _cleanup_challenge_ struct challenge c = { 0 };
        const char *headers[4], *header;
        struct error e = ERROR_INIT;
        unsigned count = 0;
        int r;

        while (count < ELEMENTSOF(headers) && (header = transfer_header(t, "WWW-Authenticate", count)))
                headers[count++] = header;
        r = challenge_parse(headers, count, &c, &e);
        REQUIRE(r == 0 || is_told(r, &e));
}

static void check_token(struct transfer *t)
{
        _cleanup_free_ char *token = NULL;
        struct error e = ERROR_INIT;
        uint64_t lifetime;
        int r = answer_token(t, URL, DEADLINE_NEVER, &token, &lifetime, &e);

        if (r < 0) {
                REQUIRE(is_told(r, &e) && !strstr(e.message, "secret"));
                return;
        }
        REQUIRE(token[0] && lifetime > 0);
        for (const char *p = token; *p; p++)
                REQUIRE(*p > ' ' && *p < 0x7f);
}

static void check_answer(struct transfer *t)
{
        _cleanup_free_ char *next = answer_next_link(t);
        const char *location = transfer_header(t, "Location", 0);
        uint64_t pause = transfer_retry_after(t);
        struct error e = ERROR_INIT;
        int r;

        REQUIRE(t->status >= 200 && (pause == UINT64_MAX || pause <= 3600000));
        if (location)
                check_url(location);
        if (next)
                check_url(next);
        check_challenge(t);
        if (answer_judge(t) == VERDICT_OK) {
                check_token(t);
                return;
        }
        r = answer_error(t, URL, DEADLINE_NEVER, &e);
        REQUIRE(is_told(r, &e) && strstr(e.message, "127.0.0.1") && !strstr(e.message, "secret"));
}

/* ---- the request ---- */

static void set_up(void)
{
        struct error e = ERROR_INIT;

        REQUIRE(http_new(NULL, &http, &e) == 0 && pool_new(MIB, &pool) == 0);
}

static struct http_request request_of(enum asked asked, struct pool_buf *buffer, int fd)
{
        struct http_request request = HTTP_REQUEST_INIT;

        request.url = URL;
        request.max_body = BODY_MAX;
        if (asked == ASKED_HEAD)
                request.method = "HEAD";
        if (asked == ASKED_RANGE || asked == ASKED_RANGE_AT_0) {
                request.ranged = true;
                request.range_offset = asked == ASKED_RANGE ? RANGE_OFFSET : 0;
                request.range_length = RANGE_LENGTH;
        }
        if (asked == ASKED_FILE) {
                request.sink_fd = fd;
                request.sink_fd_max = BODY_MAX;
        } else if (asked != ASKED_MEMORY && asked != ASKED_HEAD) {
                request.sink = buffer;
                request.sink_offset = GUARD;
                request.sink_capacity = BODY_MAX;
        }
        return request;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        enum asked asked = take_byte(&data, &size) % (ASKED_HEAD + 1);
        _cleanup_(pool_buf_unref_ptr) struct pool_buf *buffer = NULL;
        _cleanup_(transfer_unref_ptr) struct transfer *t = NULL;
        _cleanup_close_ int fd = memory_file("", 0);
        struct http_request request;
        struct error e = ERROR_INIT;

        if (!http)
                set_up();
        REQUIRE(pool_get(pool, BODY_MAX + 2 * GUARD, DEADLINE_NEVER, &buffer, NULL) == 0);
        memset(buffer->data, 0x5a, buffer->size);
        request = request_of(asked, buffer, fd);
        REQUIRE(transfer_new(http, &request, &t, &e) == 0);
        run(t, data, MIN(size, ANSWER_MAX));
        check_body(t, asked, buffer);
        if (t->error.kind != ERROR_NONE)
                REQUIRE(is_told(-t->error.code, &t->error) && !strstr(t->error.message, "secret"));
        if (t->answered)
                check_answer(t);
        return 0;
}
