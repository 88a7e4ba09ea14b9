/* SPDX-License-Identifier: Apache-2.0 */

/* Runs in the transfer thread, from within libcurl. */

#include <inttypes.h>
#include <strings.h>
#include <time.h>

#include "http_internal.h"
#include "regfs/io.h"

#define RETRY_AFTER_MAX_S 3600

/* A server that has got a whole body stores it before it answers: at 10 MB/s or more. */
#define STORED_PER_MS 10000

static bool has_no_body(const struct transfer *t)
{
        return t->method == METHOD_HEAD || t->status == 204 || t->status == 304;
}

static int add_header(struct transfer *t, const struct curl_header *h)
{
        struct transfer_header *slot;
        size_t name = strlen(h->name) + 1, value = strlen(h->value) + 1;
        char *copy;

        if (array_reserve(t->answer_headers, &t->answer_headers_allocated, t->answer_header_count + 1) < 0)
                return -ENOMEM;
        copy = malloc(name + value);
        if (!copy)
                return -ENOMEM;
        memcpy(copy, h->name, name);
        memcpy(copy + name, h->value, value);
        slot = &t->answer_headers[t->answer_header_count++];
        slot->name = copy;
        slot->value = copy + name;
        return 0;
}

/* libcurl has unfolded and trimmed them, and left out interim answers and the proxy's. */
static int copy_headers(struct transfer *t)
{
        struct curl_header *h = NULL;

        while ((h = curl_easy_nextheader(t->easy, CURLH_HEADER, -1, h)))
                if (add_header(t, h) < 0) {
                        transfer_fail(t, ERROR_OTHER, ENOMEM, "out of memory");
                        return -ENOMEM;
                }
        return 0;
}

/* "bytes first-last/total" or "bytes * /total" (without the space), total possibly "*": RFC 9110, section 14.4. */
struct content_range {
        bool unsatisfied;
        uint64_t first, last;
        uint64_t total; /* UINT64_MAX: unknown */
};

/* Takes the digits at *P into *RET and moves *P behind them. */
static bool take_number(const char **p, uint64_t *ret)
{
        char digits[24];
        size_t n = strspn(*p, "0123456789");

        if (n == 0 || n >= sizeof(digits))
                return false;
        memcpy(digits, *p, n);
        digits[n] = '\0';
        *p += n;
        return str_to_u64(digits, ret) == 0;
}

static bool take_char(const char **p, char c)
{
        if (**p != c)
                return false;
        (*p)++;
        return true;
}

static bool parse_content_range(const char *s, struct content_range *ret)
{
        struct content_range r = { .total = UINT64_MAX };

        if (strncasecmp(s, "bytes ", 6) != 0)
                return false;
        s += 6;
        r.unsatisfied = take_char(&s, '*');
        if (!r.unsatisfied && (!take_number(&s, &r.first) || !take_char(&s, '-') || !take_number(&s, &r.last)))
                return false;
        if (!take_char(&s, '/'))
                return false;
        if (!take_char(&s, '*') && !take_number(&s, &r.total))
                return false;
        if (*s != '\0')
                return false;
        if (!r.unsatisfied && (r.last < r.first || r.last >= r.total))
                return false;
        *ret = r;
        return true;
}

/* A 206 must bring exactly the range that was asked for. */
static int check_partial(struct transfer *t)
{
        const char *header = transfer_header(t, "Content-Range", 0);
        struct content_range r;

        if (!t->ranged) {
                transfer_fail(t, ERROR_BAD_DATA, EBADMSG, "status 206, but no range was asked for");
                return -EBADMSG;
        }
        if (!header) {
                transfer_fail(t, ERROR_BAD_DATA, EBADMSG, "status 206 without Content-Range");
                return -EBADMSG;
        }
        if (!parse_content_range(header, &r) || r.unsatisfied) {
                transfer_fail(t, ERROR_BAD_DATA, EBADMSG, "malformed Content-Range '%.100s'", header);
                return -EBADMSG;
        }
        if (r.first != t->range_offset || r.last - r.first != t->range_length - 1) {
                transfer_fail(t, ERROR_BAD_DATA, EBADMSG, "the server sends another range: '%.100s'", header);
                return -EBADMSG;
        }
        t->range_total = r.total;
        return 0;
}

static int check_range(struct transfer *t)
{
        const char *header;
        struct content_range r;

        if (t->status == 206) {
                int error = check_partial(t);

                if (error < 0)
                        return error;
        } else if (t->ranged && t->status == 200) {
                t->range_ignored = t->range_offset != 0 || t->content_length != t->range_length;
        } else if (t->status == 416) {
                header = transfer_header(t, "Content-Range", 0);
                if (header && parse_content_range(header, &r))
                        t->range_total = r.total;
        }
        if (t->status == 206 && !has_no_body(t) && t->content_length != UINT64_MAX &&
            t->content_length != t->range_length) {
                transfer_fail(t, ERROR_BAD_DATA, EBADMSG, "Content-Length %" PRIu64 " contradicts the range",
                              t->content_length);
                return -EBADMSG;
        }
        return 0;
}

/* Where the body goes, and how much of it may come. */
static void choose_target(struct transfer *t)
{
        bool wanted = t->sink == BODY_MEMORY ? t->status / 100 == 2 : t->status == 200 || t->status == 206;

        t->target = wanted ? t->sink : BODY_ERROR;
        t->target_max = wanted ? t->sink_max : HTTP_ERROR_BODY_MAX;
        if (wanted && t->ranged)
                t->target_max = MIN(t->target_max, t->range_length);
        t->memory.max = wanted && t->sink == BODY_MEMORY ? (size_t) t->target_max : HTTP_ERROR_BODY_MAX;
}

static uint64_t declared_length(const struct transfer *t)
{
        const char *header = transfer_header(t, "Content-Length", 0);
        uint64_t length;

        /* Chunks overrule the length: RFC 9112, section 6.3. */
        if (!header || transfer_header(t, "Transfer-Encoding", 0) || str_to_u64(header, &length) < 0)
                return UINT64_MAX;
        return length;
}

static void fail_too_long(struct transfer *t)
{
        char bound[32];

        transfer_fail(t, ERROR_BAD_DATA, EFBIG, "the body is longer than the %s that are allowed",
                      format_bytes(t->target_max, bound, sizeof(bound)));
}

/* All headers of the final answer are there. Returns 0, or -errno to end the transfer (with t->error or t->cut). */
static int begin_answer(struct transfer *t, unsigned status)
{
        int r;

        t->status = status;
        t->range_total = UINT64_MAX;
        r = copy_headers(t);
        if (r < 0)
                return r;
        t->content_length = declared_length(t);
        r = check_range(t);
        if (r < 0)
                return r;
        choose_target(t);
        transfer_answered(t);

        if (t->range_ignored) {
                transfer_fail(t, ERROR_OTHER, EOPNOTSUPP, "the server ignores ranges");
                return -EOPNOTSUPP;
        }
        if (t->target != BODY_ERROR && !has_no_body(t) && t->content_length != UINT64_MAX &&
            t->content_length > t->target_max) {
                fail_too_long(t);
                return -EFBIG;
        }
        return 0;
}

/* The server has given a sign of life. */
static void renew_patience(struct transfer *t)
{
        t->stalled = deadline_in(t->http->stall_timeout_ms);
}

int transfer_on_connection(void *data, char *ip _unused_, char *local_ip _unused_, int port _unused_,
                           int local_port _unused_)
{
        renew_patience(data);
        return CURL_PREREQFUNC_OK;
}

size_t transfer_on_header(char *line, size_t size, size_t n, void *data)
{
        struct transfer *t = data;
        bool is_last = line[0] == '\r' || line[0] == '\n';
        long status = 0;

        n *= size;
        renew_patience(t);
        t->header_bytes += n;
        if (t->header_bytes > HTTP_HEADERS_MAX) {
                transfer_fail(t, ERROR_BAD_DATA, EBADMSG, "the answer's headers are longer than %zu bytes",
                              HTTP_HEADERS_MAX);
                return CURL_WRITEFUNC_ERROR;
        }
        if (!is_last || t->answered) /* after the body come trailers: nobody needs them */
                return n;
        curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
        if (status < 200)
                return n;
        return begin_answer(t, (unsigned) status) < 0 ? CURL_WRITEFUNC_ERROR : n;
}

static int store_body(struct transfer *t, const char *data, size_t n)
{
        int r = 0;

        switch (t->target) {
        case BODY_MEMORY:
        case BODY_ERROR:
                r = buf_append(&t->memory, data, n);
                break;
        case BODY_POOL:
                memcpy(t->pool_sink->data + t->sink_offset + t->body_received, data, n);
                break;
        case BODY_FILE:
                r = pwrite_full(t->file_sink, data, n, t->body_received);
                break;
        }
        if (r < 0)
                transfer_fail(t, ERROR_OTHER, -r, "storing the body: %s", strerror(-r));
        return r;
}

size_t transfer_on_body(char *data, size_t size, size_t n, void *arg)
{
        struct transfer *t = arg;
        size_t take;

        n *= size;
        renew_patience(t);
        take = (size_t) MIN((uint64_t) n, t->target_max - t->body_received);
        if (take < n && t->target != BODY_ERROR) {
                fail_too_long(t);
                return CURL_WRITEFUNC_ERROR;
        }
        if (store_body(t, data, take) < 0)
                return CURL_WRITEFUNC_ERROR;
        transfer_received(t, take);
        if (take < n) {
                t->cut = true;
                return CURL_WRITEFUNC_ERROR;
        }
        return n;
}

size_t transfer_on_send(char *out, size_t size, size_t n, void *arg)
{
        struct transfer *t = arg;
        size_t take = MIN(size * n, t->body_length - t->body_sent);

        if (take > 0)
                memcpy(out, t->body + t->body_sent, take);
        t->body_sent += take;
        renew_patience(t);
        if (t->body_sent == t->body_length)
                t->stalled += t->body_length / STORED_PER_MS;
        return take;
}

int transfer_on_rewind(void *arg, curl_off_t offset, int origin)
{
        const struct transfer *t = arg;

        return origin == SEEK_SET && offset == 0 && t->body_sent == 0 ? CURL_SEEKFUNC_OK : CURL_SEEKFUNC_FAIL;
}

void transfer_conclude(struct transfer *t, CURLcode code)
{
        if (t->error.kind != ERROR_NONE || t->cut)
                return;
        if (code != CURLE_OK)
                transfer_fail_curl(t, code);
        else if (!t->answered)
                transfer_fail(t, ERROR_UNREACHABLE, EPROTO, "the answer is not HTTP");
        else if (t->ranged && t->target != BODY_ERROR && !has_no_body(t) && t->body_received < t->range_length)
                transfer_fail(t, ERROR_UNREACHABLE, ECONNRESET, "the body ended after %" PRIu64 " of %" PRIu64 " bytes",
                              t->body_received, t->range_length);
}

unsigned transfer_status(const struct transfer *t)
{
        return t->status;
}

bool transfer_range_ignored(const struct transfer *t)
{
        return t->range_ignored;
}

const char *transfer_header(const struct transfer *t, const char *name, unsigned n)
{
        for (size_t i = 0; i < t->answer_header_count; i++)
                if (strcasecmp(t->answer_headers[i].name, name) == 0 && n-- == 0)
                        return t->answer_headers[i].value;
        return NULL;
}

uint64_t transfer_content_length(const struct transfer *t)
{
        return t->content_length;
}

uint64_t transfer_range_total(const struct transfer *t)
{
        return t->range_total;
}

uint64_t transfer_retry_after(const struct transfer *t)
{
        const char *header = transfer_header(t, "Retry-After", 0);
        uint64_t seconds;
        time_t now, date;

        if (!header || *header == '\0')
                return UINT64_MAX;
        if (header[strspn(header, "0123456789")] == '\0') {
                if (str_to_u64(header, &seconds) < 0)
                        seconds = RETRY_AFTER_MAX_S;
        } else {
                now = time(NULL);
                date = curl_getdate(header, NULL);
                if (date == -1)
                        return UINT64_MAX;
                seconds = date > now ? (uint64_t) (date - now) : 0;
        }
        return MIN(seconds, (uint64_t) RETRY_AFTER_MAX_S) * 1000;
}

const char *transfer_body(const struct transfer *t, size_t *ret_length)
{
        if (ret_length)
                *ret_length = t->memory.len;
        return t->memory.data ? t->memory.data : "";
}
