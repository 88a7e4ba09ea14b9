/* SPDX-License-Identifier: Apache-2.0 */

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "http_internal.h"
#include "regfs/io.h"
#include "regfs/log.h"

#define RECEIVE_BUFFER (256 * KIB)

/* "0123abcd.0": what OpenSSL looks for in a directory of certificates. */
static bool is_hashed_name(const char *name)
{
        return strspn(name, "0123456789abcdef") == 8 && name[8] == '.' && name[9] >= '0' && name[9] <= '9';
}

static bool has_certificates(const char *path)
{
        struct dirent *entry;
        bool found = false;
        DIR *directory = opendir(path);

        if (!directory)
                return false;
        while (!found && (entry = readdir(directory)))
                found = is_hashed_name(entry->d_name);
        closedir(directory);
        return found;
}

void http_trust_find(struct http_trust *ret)
{
        const curl_version_info_data *built = curl_version_info(CURLVERSION_NOW);

        *ret = (struct http_trust) { .directory = NULL };
        if (built->capath && has_certificates(built->capath))
                ret->directory = built->capath;
        else if (built->cainfo && access(built->cainfo, R_OK) == 0)
                ret->bundle = built->cainfo;
}

static int parse_method(const char *s, enum transfer_method *ret, struct error *e)
{
        static const char *const names[] = {
                [METHOD_GET] = "GET", [METHOD_HEAD] = "HEAD",     [METHOD_POST] = "POST",
                [METHOD_PUT] = "PUT", [METHOD_DELETE] = "DELETE",
        };

        for (size_t i = 0; i < ELEMENTSOF(names); i++)
                if (str_eq(names[i], s)) {
                        *ret = (enum transfer_method) i;
                        return 0;
                }
        return error_set(e, ERROR_OTHER, EINVAL, "method '%s' is not supported", s ? s : "");
}

static int add_header(struct transfer *t, const char *line, struct error *e)
{
        struct curl_slist *longer = curl_slist_append(t->headers, line);

        if (!longer)
                return error_oom(e);
        t->headers = longer;
        return 0;
}

static int add_headers(struct transfer *t, const char *const *headers, struct error *e)
{
        int r;

        for (; headers && *headers; headers++) {
                const char *colon = strchr(*headers, ':');

                if (!colon || colon == *headers || strpbrk(*headers, "\r\n"))
                        return error_set(e, ERROR_OTHER, EINVAL, "%s: malformed request header", t->title);
                r = add_header(t, *headers, e);
                if (r < 0)
                        return r;
        }
        r = add_header(t, "Accept-Encoding: identity", e);
        if (r == 0)
                r = add_header(t, "Expect:", e); /* no: a round trip for nothing */
        return r;
}

static int set_range(struct transfer *t, const struct http_request *request, struct error *e)
{
        char line[80];
        uint64_t last;

        if (!request->ranged)
                return 0;
        if (request->range_length == 0 || request->range_length - 1 > UINT64_MAX - request->range_offset)
                return error_set(e, ERROR_OTHER, EINVAL, "%s: impossible range: %" PRIu64 " bytes from %" PRIu64,
                                 t->title, request->range_length, request->range_offset);
        last = request->range_offset + (request->range_length - 1);
        t->ranged = true;
        t->range_offset = request->range_offset;
        t->range_length = request->range_length;
        snprintf(t->range_text, sizeof(t->range_text), " bytes %" PRIu64 "-%" PRIu64, t->range_offset, last);
        snprintf(line, sizeof(line), "Range: bytes=%" PRIu64 "-%" PRIu64, t->range_offset, last);
        return add_header(t, line, e);
}

static int set_sink(struct transfer *t, const struct http_request *request, struct error *e)
{
        if (request->sink && request->sink_fd >= 0)
                return error_set(e, ERROR_OTHER, EINVAL, "%s: two sinks for one body", t->title);
        if (request->sink) {
                if (!range_fits(request->sink_offset, request->sink_capacity, request->sink->size))
                        return error_set(e, ERROR_OTHER, EINVAL, "%s: the sink is larger than its buffer", t->title);
                t->sink = BODY_POOL;
                t->sink_offset = request->sink_offset;
                t->sink_max = request->sink_capacity;
                t->pool_sink = pool_buf_ref(request->sink);
        } else if (request->sink_fd >= 0) {
                t->sink = BODY_FILE;
                t->sink_max = request->sink_fd_max;
                t->file_sink = fcntl(request->sink_fd, F_DUPFD_CLOEXEC, 0);
                if (t->file_sink < 0)
                        return error_errno(e, errno, "%s: the file to write to", t->title);
        } else {
                t->sink = BODY_MEMORY;
                t->sink_max = request->max_body ? request->max_body : HTTP_MEMORY_DEFAULT;
        }
        if (t->ranged && t->range_length > t->sink_max)
                return error_set(e, ERROR_OTHER, EINVAL, "%s%s: the range is larger than its sink", t->title,
                                 t->range_text);
        return 0;
}

static int copy_string(const char *s, const char **ret, struct error *e)
{
        if (!s)
                return 0;
        *ret = strdup(s);
        return *ret ? 0 : error_oom(e);
}

/* A blob of certificates replaces the system's bundle, though not its directory: the bundle is put behind it. */
static int add_bundle(struct transfer *t, const char *bundle, struct error *e)
{
        _cleanup_buf_ struct buf all = { .max = 16 * MIB };
        char *joined;
        int r = buf_append_str(&all, t->tls.ca_pem);

        if (r == 0)
                r = buf_append_char(&all, '\n');
        if (r < 0)
                return error_errno(e, -r, "the certificates to trust");
        r = file_read(AT_FDCWD, bundle, 16 * MIB, &all, e);
        if (r < 0)
                return r;
        joined = buf_steal(&all);
        if (!joined)
                return error_oom(e);
        free((char *) t->tls.ca_pem);
        t->tls.ca_pem = joined;
        return 0;
}

static int copy_tls(struct transfer *t, const struct http_tls *tls, struct error *e)
{
        const struct http_trust *trust = &t->http->trust;
        int r;

        if (!tls)
                return 0;
        t->tls.insecure = tls->insecure;
        r = copy_string(tls->ca_pem, &t->tls.ca_pem, e);
        if (r == 0)
                r = copy_string(tls->client_cert, &t->tls.client_cert, e);
        if (r == 0)
                r = copy_string(tls->client_key, &t->tls.client_key, e);
        if (r == 0 && t->tls.ca_pem && !trust->directory && trust->bundle)
                r = add_bundle(t, trust->bundle, e);
        return r;
}

static int copy_body(struct transfer *t, const struct http_request *request, struct error *e)
{
        if (request->body_length == 0)
                return 0;
        if (t->method != METHOD_POST && t->method != METHOD_PUT)
                return error_set(e, ERROR_OTHER, EINVAL, "%s: only a POST or a PUT has a body", t->title);
        t->body = malloc(request->body_length);
        if (!t->body)
                return error_oom(e);
        memcpy(t->body, request->body, request->body_length);
        t->body_length = request->body_length;
        return 0;
}

static int fill(struct transfer *t, const struct http_request *request, struct error *e)
{
        char masked[384];
        int r;

        r = parse_method(request->method, &t->method, e);
        if (r < 0)
                return r;
        r = http_check_url(request->url, e);
        if (r < 0)
                return r;
        t->url = strdup(request->url);
        t->origin_key = http_url_origin(request->url);
        if (!t->url || !t->origin_key)
                return error_oom(e);
        snprintf(t->title, sizeof(t->title), "%s %s", request->method,
                 http_mask_url(request->url, masked, sizeof(masked)));
        r = add_headers(t, request->headers, e);
        if (r == 0)
                r = set_range(t, request, e);
        if (r == 0)
                r = set_sink(t, request, e);
        if (r == 0)
                r = copy_tls(t, request->tls, e);
        if (r == 0)
                r = copy_body(t, request, e);
        return r;
}

int transfer_new(struct http *h, const struct http_request *request, struct transfer **ret, struct error *e)
{
        _cleanup_(transfer_free_ptr) struct transfer *t = calloc(1, sizeof(*t));
        int r;

        if (!t)
                return error_oom(e);
        mutex_init(&t->lock);
        cond_init(&t->changed);
        mutex_lock(&t->lock);
        t->phase = PHASE_QUEUED;
        t->wanted = UINT64_MAX;
        mutex_unlock(&t->lock);
        atomic_init(&t->refs, 1);
        atomic_init(&t->abandoned, false);
        atomic_fetch_add_explicit(&h->refs, 1, memory_order_relaxed);
        t->http = h;
        t->request = log_current_request();
        t->deadline = request->deadline;
        t->file_sink = -1;
        t->stalled = DEADLINE_NEVER;
        t->content_length = t->range_total = UINT64_MAX;
        r = fill(t, request, e);
        if (r < 0)
                return r;
        *ret = steal_ptr(t);
        return 0;
}

void transfer_release_sink(struct transfer *t)
{
        t->pool_sink = pool_buf_unref(t->pool_sink);
        if (t->file_sink >= 0)
                close(steal_fd(&t->file_sink));
}

/* Headers and forms carry credentials. */
static void wipe(struct transfer *t)
{
        for (struct curl_slist *h = t->headers; h; h = h->next)
                explicit_bzero(h->data, strlen(h->data));
        if (t->body && t->method == METHOD_POST)
                explicit_bzero(t->body, t->body_length);
}

struct transfer *transfer_free(struct transfer *t)
{
        if (!t)
                return NULL;
        if (t->easy)
                curl_easy_cleanup(t->easy);
        transfer_release_sink(t);
        wipe(t);
        curl_slist_free_all(t->headers);
        free(t->body);
        free(t->url);
        free(t->origin_key);
        free((char *) t->tls.ca_pem);
        free((char *) t->tls.client_cert);
        free((char *) t->tls.client_key);
        for (size_t i = 0; i < t->answer_header_count; i++)
                free(t->answer_headers[i].name);
        free(t->answer_headers);
        buf_free(&t->memory);
        cond_destroy(&t->changed);
        mutex_destroy(&t->lock);
        http_unref(t->http);
        free(t);
        return NULL;
}

/* Sets an option unless one failed before: CODE holds the first failure. */
#define set(option, value)                                               \
        do {                                                             \
                if (code == CURLE_OK)                                    \
                        code = curl_easy_setopt(t->easy, option, value); \
        } while (0)

static CURLcode set_method(struct transfer *t)
{
        CURLcode code = CURLE_OK;

        switch (t->method) {
        case METHOD_GET:
                set(CURLOPT_HTTPGET, 1L);
                break;
        case METHOD_HEAD:
                set(CURLOPT_NOBODY, 1L);
                break;
        case METHOD_POST:
                set(CURLOPT_POST, 1L);
                set(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t) t->body_length);
                set(CURLOPT_POSTFIELDS, t->body ? t->body : "");
                break;
        case METHOD_PUT:
                set(CURLOPT_UPLOAD, 1L);
                set(CURLOPT_INFILESIZE_LARGE, (curl_off_t) t->body_length);
                set(CURLOPT_READFUNCTION, transfer_on_send);
                set(CURLOPT_READDATA, t);
                set(CURLOPT_SEEKFUNCTION, transfer_on_rewind);
                set(CURLOPT_SEEKDATA, t);
                break;
        case METHOD_DELETE:
                set(CURLOPT_HTTPGET, 1L);
                set(CURLOPT_CUSTOMREQUEST, "DELETE");
                break;
        }
        return code;
}

static CURLcode set_tls(struct transfer *t)
{
        const struct http_trust *trust = &t->http->trust;
        CURLcode code = CURLE_OK;

        set(CURLOPT_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2);
        if (t->tls.insecure) {
                set(CURLOPT_SSL_VERIFYPEER, 0L);
                set(CURLOPT_SSL_VERIFYHOST, 0L);
        }
        if (trust->directory) {
                set(CURLOPT_CAPATH, trust->directory);
                set(CURLOPT_CAINFO, NULL);
        } else if (trust->bundle) {
                set(CURLOPT_CAPATH, NULL); /* libcurl keeps the parsed bundle, but only when it is alone */
                set(CURLOPT_CAINFO, trust->bundle);
        }
        if (t->tls.ca_pem) {
                struct curl_blob blob = {
                        .data = (char *) t->tls.ca_pem,
                        .len = strlen(t->tls.ca_pem),
                        .flags = CURL_BLOB_NOCOPY,
                };

                set(CURLOPT_CAINFO_BLOB, &blob);
        }
        if (t->tls.client_cert)
                set(CURLOPT_SSLCERT, t->tls.client_cert);
        if (t->tls.client_key)
                set(CURLOPT_SSLKEY, t->tls.client_key);
        return code;
}

static CURLcode set_connection(struct transfer *t)
{
        const struct http *h = t->http;
        CURLcode code = CURLE_OK;

        set(CURLOPT_NOSIGNAL, 1L);
        set(CURLOPT_QUICK_EXIT, 1L); /* do not wait for a resolver's thread */
        set(CURLOPT_PROTOCOLS_STR, "http,https");
        set(CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
        set(CURLOPT_FOLLOWLOCATION, 0L);
        set(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
        set(CURLOPT_HTTP_VERSION, (long) CURL_HTTP_VERSION_2TLS);
        set(CURLOPT_TCP_KEEPALIVE, 1L);
        set(CURLOPT_BUFFERSIZE, (long) RECEIVE_BUFFER);
        set(CURLOPT_CONNECTTIMEOUT_MS, (long) h->connect_timeout_ms);
        return code;
}

int transfer_make_easy(struct transfer *t)
{
        CURLcode code = CURLE_OK;

        t->easy = curl_easy_init();
        if (!t->easy) {
                transfer_fail(t, ERROR_OTHER, ENOMEM, "out of memory");
                return -ENOMEM;
        }
        set(CURLOPT_ERRORBUFFER, t->curl_message);
        set(CURLOPT_PRIVATE, t);
        set(CURLOPT_URL, t->url);
        set(CURLOPT_USERAGENT, t->http->user_agent);
        set(CURLOPT_HTTPHEADER, t->headers);
        set(CURLOPT_PREREQFUNCTION, transfer_on_connection);
        set(CURLOPT_PREREQDATA, t);
        set(CURLOPT_HEADERFUNCTION, transfer_on_header);
        set(CURLOPT_HEADERDATA, t);
        set(CURLOPT_WRITEFUNCTION, transfer_on_body);
        set(CURLOPT_WRITEDATA, t);
        if (code == CURLE_OK)
                code = set_method(t);
        if (code == CURLE_OK)
                code = set_connection(t);
        if (code == CURLE_OK)
                code = set_tls(t);
        if (code == CURLE_OK)
                return 0;
        if (code == CURLE_OUT_OF_MEMORY)
                transfer_fail(t, ERROR_OTHER, ENOMEM, "out of memory");
        else
                transfer_fail(t, ERROR_OTHER, ENOSYS, "libcurl cannot do this: %s", curl_easy_strerror(code));
        return -t->error.code;
}
