/* SPDX-License-Identifier: Apache-2.0 */

#include <ctype.h>
#include <curl/curl.h>
#include <netinet/in.h>
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "client_internal.h"
#include "regfs/json.h"
#include "regfs/log.h"

#define HEADERS_MAX 32
#define REFUSALS_MAX 3
#define TOKEN_BODY_MAX (1 * MIB)
#define TOKEN_ATTEMPTS 3
#define LIFETIME_MAX_S (7 * 86400)
#define CLIENT_ID "regfs"

void authorization_clear(struct authorization *a)
{
        challenge_clear(&a->challenge);
        secret_free(a->token);
        a->token = NULL;
}

/* ---- fetching a token ---- */

/* What a token flight needs besides its key. */
struct token_request {
        struct client *client;
        const struct endpoint *endpoint;
        const struct credential *credential;
};

static int url_part(const char *url, CURLUPart part, char **ret)
{
        CURLU *u = curl_url();
        CURLUcode code = CURLUE_OUT_OF_MEMORY;

        if (u)
                code = curl_url_set(u, CURLUPART_URL, url, CURLU_NON_SUPPORT_SCHEME);
        if (code == CURLUE_OK)
                code = curl_url_get(u, part, ret, 0);
        curl_url_cleanup(u);
        return code == CURLUE_OK ? 0 : code == CURLUE_OUT_OF_MEMORY ? -ENOMEM : -EINVAL;
}

/* Addresses that a challenge from outside has no business to send us to. HOST may have a port. */
static bool is_private_literal(const char *host)
{
        char bare[INET6_ADDRSTRLEN + 2];
        struct in6_addr six;
        struct in_addr four;
        uint32_t a;

        (void) snprintf(bare, sizeof(bare), "%s", host[0] == '[' ? host + 1 : host);
        bare[strcspn(bare, "]")] = '\0';
        if (strchr(bare, ':') == strrchr(bare, ':'))
                bare[strcspn(bare, ":")] = '\0';
        if (inet_pton(AF_INET6, bare, &six) == 1)
                return IN6_IS_ADDR_LOOPBACK(&six) || IN6_IS_ADDR_LINKLOCAL(&six) || IN6_IS_ADDR_UNSPECIFIED(&six) ||
                       IN6_IS_ADDR_V4MAPPED(&six) || (six.s6_addr[0] & 0xfe) == 0xfc;
        if (inet_pton(AF_INET, bare, &four) != 1)
                return strcasecmp(bare, "localhost") == 0;
        a = ntohl(four.s_addr);
        return a >> 24 == 127 || a >> 24 == 10 || a >> 24 == 0 || a >> 20 == (172 << 4 | 1) ||
               a >> 16 == (192 << 8 | 168) || a >> 16 == (169 << 8 | 254);
}

static bool same_host(const char *endpoint_host, const char *host)
{
        size_t n = strlen(host);

        return strncasecmp(endpoint_host, host, n) == 0 && (endpoint_host[n] == '\0' || endpoint_host[n] == ':');
}

/* May this realm be asked at all, and with credentials? -EPERM, which nothing is tried after, when not. */
static int check_realm(const struct token_request *t, const char *realm, struct error *e)
{
        char *scheme = NULL, *host = NULL;
        bool insecure = t->endpoint->insecure || t->endpoint->plain_http;
        int r = url_part(realm, CURLUPART_SCHEME, &scheme);

        if (r == 0)
                r = url_part(realm, CURLUPART_HOST, &host);
        if (r < 0 || (strcmp(scheme, "https") != 0 && strcmp(scheme, "http") != 0))
                r = error_set(e, ERROR_BAD_DATA, EBADMSG,
                              "%s: its challenge names the realm %.200s, which is no http URL", t->endpoint->host,
                              realm);
        else if (is_private_literal(host) && !same_host(t->endpoint->host, host) &&
                 !is_private_literal(t->endpoint->host))
                r = error_set(e, ERROR_DENIED, EPERM,
                              "%s: its challenge names a realm at the private address %s: refused", t->endpoint->host,
                              host);
        else if (strcmp(scheme, "http") == 0 && !insecure && !credential_is_anonymous(t->credential))
                r = error_set(e, ERROR_DENIED, EPERM,
                              "%s: its challenge wants credentials at %.200s, which is not encrypted: refused",
                              t->endpoint->host, realm);
        curl_free(scheme);
        curl_free(host);
        return r;
}

static int append_query(struct buf *url, const char *name, const char *value)
{
        char *escaped = curl_easy_escape(NULL, value, 0);
        int r;

        if (!escaped)
                return -ENOMEM;
        r = buf_printf(url, "%c%s=%s", strchr(url->data, '?') ? '&' : '?', name, escaped);
        curl_free(escaped);
        return r;
}

static int token_url(const struct token_key *key, struct buf *url)
{
        int r = buf_append_str(url, key->realm);

        if (r == 0 && key->service && *key->service)
                r = append_query(url, "service", key->service);
        for (const char *const *s = key->scopes; r == 0 && s && *s; s++)
                r = append_query(url, "scope", *s);
        return r;
}

static int append_field(struct buf *body, const char *name, const char *value)
{
        char *escaped = curl_easy_escape(NULL, value, 0);
        int r;

        if (!escaped)
                return -ENOMEM;
        r = buf_printf(body, "%s%s=%s", body->len > 0 ? "&" : "", name, escaped);
        curl_free(escaped);
        return r;
}

/* distribution's "oauth2" flow for identity tokens. */
static int oauth_body(const struct token_key *key, const char *refresh_token, struct buf *body)
{
        _cleanup_buf_ struct buf scopes = { 0 };
        int r;

        for (const char *const *s = key->scopes; s && *s; s++)
                if (buf_printf(&scopes, "%s%s", scopes.len > 0 ? " " : "", *s) < 0)
                        return -ENOMEM;
        r = append_field(body, "grant_type", "refresh_token");
        if (r == 0)
                r = append_field(body, "client_id", CLIENT_ID);
        if (r == 0)
                r = append_field(body, "refresh_token", refresh_token);
        if (r == 0 && key->service)
                r = append_field(body, "service", key->service);
        if (r == 0 && scopes.len > 0)
                r = append_field(body, "scope", scopes.data);
        return r;
}

static char *basic_header(const struct credential *c)
{
        _cleanup_(secret_free_ptr) char *pair = str_printf("%s:%s", c->user, c->secret ? c->secret : "");
        _cleanup_(secret_free_ptr) char *encoded = pair ? base64_encode(pair, strlen(pair)) : NULL;

        return encoded ? str_printf("Authorization: Basic %s", encoded) : NULL;
}

/* The trust of the registry's own host; elsewhere the system's. */
static void fill_tls(const struct endpoint *endpoint, const char *url, struct http_tls *ret)
{
        _cleanup_free_ char *own = str_printf("https://%s/", endpoint->host);

        *ret = (struct http_tls) { .insecure = endpoint->insecure, .ca_pem = endpoint->ca_pem };
        if (own && http_same_origin(own, url)) {
                ret->client_cert = endpoint->client_cert;
                ret->client_key = endpoint->client_key;
        }
}

static int start_token_request(const struct token_request *t, const struct token_key *key, bool oauth,
                               deadline_t deadline, struct transfer **ret, char **ret_url, struct error *e)
{
        _cleanup_(secret_free_ptr) char *authorization = NULL;
        const char *headers[3] = { NULL };
        struct http_request request = HTTP_REQUEST_INIT;
        _cleanup_buf_ struct buf url = { 0 }, body = { 0 };
        struct http_tls tls;
        int r;

        if (oauth) {
                r = buf_append_str(&url, key->realm);
                if (r == 0)
                        r = oauth_body(key, t->credential->identity_token, &body);
                if (r < 0)
                        return error_oom(e);
                request.method = "POST";
                request.body = body.data;
                request.body_length = body.len;
                headers[0] = "Content-Type: application/x-www-form-urlencoded";
        } else {
                if (token_url(key, &url) < 0)
                        return error_oom(e);
                if (t->credential->user) {
                        authorization = basic_header(t->credential);
                        if (!authorization)
                                return error_oom(e);
                        headers[0] = authorization;
                }
        }
        fill_tls(t->endpoint, url.data, &tls);
        request.url = url.data;
        request.headers = headers;
        request.tls = &tls;
        request.max_body = TOKEN_BODY_MAX;
        request.deadline = deadline;
        r = http_start(t->client->http, &request, ret, e);
        if (r == 0)
                *ret_url = buf_steal(&url);
        if (body.data)
                explicit_bzero(body.data, body.len);
        return r < 0 || *ret_url ? r : error_oom(e);
}

int answer_token(struct transfer *answer, const char *url, deadline_t deadline, char **ret_token,
                 uint64_t *ret_lifetime_s, struct error *e)
{
        _cleanup_(json_free_ptr) struct json *root = NULL;
        const char *body, *token;
        uint64_t received, lifetime;
        char masked[400];
        size_t n;
        int r;

        http_mask_url(url, masked, sizeof(masked));
        r = transfer_wait(answer, UINT64_MAX, deadline, &received, e);
        if (r < 0)
                return error_prefix(e, "token server");
        body = transfer_body(answer, &n);
        r = json_parse(body, n, &root, e);
        if (r < 0)
                return error_prefix(e, "token server %s", masked);
        token = json_member_text(root, "token");
        if (!token || !*token)
                token = json_member_text(root, "access_token");
        if (!token || !*token)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "token server %s: the answer holds no token", masked);
        /* A line break would smuggle a header of its own into our requests. */
        for (const char *p = token; *p; p++)
                if ((unsigned char) *p <= 0x20 || (unsigned char) *p >= 0x7f)
                        return error_set(e, ERROR_BAD_DATA, EBADMSG,
                                         "token server %s: the token holds characters that no token has", masked);
        if (json_u64(json_member(root, "expires_in"), &lifetime) < 0 || lifetime == 0)
                lifetime = TOKEN_DEFAULT_LIFETIME_S;
        *ret_token = strdup(token);
        if (!*ret_token)
                return error_oom(e);
        *ret_lifetime_s = MIN(lifetime, (uint64_t) LIFETIME_MAX_S);
        return 0;
}

/* One request for a token. *RET_STATUS is the peer's status, 0 when there was no answer. */
static int ask_for_token(const struct token_request *t, const struct token_key *key, bool oauth, deadline_t deadline,
                         char **ret_token, uint64_t *ret_lifetime_s, unsigned *ret_status, struct error *e)
{
        _cleanup_(transfer_unref_ptr) struct transfer *answer = NULL;
        _cleanup_free_ char *url = NULL;
        int r;

        *ret_status = 0;
        r = start_token_request(t, key, oauth, deadline, &answer, &url, e);
        if (r < 0)
                return r;
        r = transfer_wait_headers(answer, deadline, e);
        if (r < 0)
                return error_prefix(e, "token server");
        *ret_status = transfer_status(answer);
        if (answer_judge(answer) == VERDICT_OK)
                return answer_token(answer, url, deadline, ret_token, ret_lifetime_s, e);
        r = answer_error(answer, url, deadline, e);
        return r < 0 ? error_prefix(e, "token server") : r;
}

/* The token cache's way to a token: identity tokens by POST, and by GET where that is not understood. Failures that
 * may go away are tried a few times. */
static int fetch_token(void *context, const struct token_key *key, deadline_t deadline, char **ret_token,
                       uint64_t *ret_lifetime_s, struct error *e)
{
        const struct token_request *t = context;
        bool oauth = t->credential->identity_token;
        unsigned status;
        int r;

        r = check_realm(t, key->realm, e);
        if (r < 0)
                return r;
        for (unsigned attempt = 1;; attempt++) {
                r = ask_for_token(t, key, oauth, deadline, ret_token, ret_lifetime_s, &status, e);
                if (r == 0 || deadline_left(deadline) == 0)
                        return r;
                if (oauth && (status == 400 || status == 401 || status == 404 || status == 405)) {
                        oauth = false;
                        continue;
                }
                if (attempt >= TOKEN_ATTEMPTS || (r != -EAGAIN && !(status == 0 && http_error_is_transient(e))))
                        return r;
                log_debug("%s: trying again", e->message);
                (void) usleep(100000u << attempt);
        }
}

/* ---- the header ---- */

/* The scopes of a challenge, apart: a NULL-terminated vector into *RET_TEXT. */
static int split_scopes(const char *scope, char **ret_text, const char ***ret)
{
        char *text = strdup(scope ? scope : ""), *save = NULL;
        size_t n = 0, allocated = 0;
        const char **scopes = NULL;

        if (!text)
                return -ENOMEM;
        for (char *word = strtok_r(text, " ", &save); word || n == 0; word = word ? strtok_r(NULL, " ", &save) : NULL) {
                if (array_reserve(scopes, &allocated, n + 2) < 0) {
                        free(text);
                        free(scopes);
                        return -ENOMEM;
                }
                if (!word)
                        break;
                scopes[n++] = word;
        }
        scopes[n] = NULL;
        *ret_text = text;
        *ret = scopes;
        return 0;
}

static int find_credential(struct client *c, const struct endpoint *endpoint, struct authorization *a,
                           struct credential *ret, struct error *e)
{
        credential_clear(ret);
        *ret = (struct credential) { 0 };
        a->known = false;
        return a->anonymous ? 0 : client_credential(c, endpoint, ret, &a->known, e);
}

static int bearer_token(struct client *c, const struct endpoint *endpoint, const struct challenge *challenge,
                        const struct credential *credential, const char *refused, deadline_t deadline, char **ret,
                        struct error *e)
{
        struct token_request request = { .client = c, .endpoint = endpoint, .credential = credential };
        _cleanup_free_ char *identity = credential_identity(credential), *text = NULL;
        _cleanup_free_ const char **scopes = NULL;
        struct token_key key;

        if (!identity || split_scopes(challenge->scope, &text, &scopes) < 0)
                return error_oom(e);
        key = (struct token_key) {
                .realm = challenge->realm,
                .service = challenge->service,
                .scopes = scopes,
                .identity = identity,
        };
        if (refused)
                token_cache_drop(c->tokens, &key, refused);
        return token_cache_get(c->tokens, &key, deadline, fetch_token, &request, ret, e);
}

/* A token with credentials that the token server forbids: what everybody may have may do (GHCR). */
static int bearer_header(struct client *c, const struct endpoint *endpoint, const struct credential *credential,
                         deadline_t deadline, struct authorization *a, const char *refused, char **ret, struct error *e)
{
        const struct credential nobody = { 0 };
        _cleanup_(secret_free_ptr) char *token = NULL;
        struct error first = ERROR_INIT;
        int r;

        r = bearer_token(c, endpoint, &a->challenge, credential, refused, deadline, &token, &first);
        if (r == -EACCES && !credential_is_anonymous(credential)) {
                r = bearer_token(c, endpoint, &a->challenge, &nobody, refused, deadline, &token, e);
                if (r == 0) {
                        log_warning("%s: the credentials were refused (%s): going on anonymously", endpoint->host,
                                    first.message);
                        a->anonymous = true;
                        (void) client_keep_credential(c, endpoint, &nobody);
                }
        }
        if (r < 0) {
                if (e)
                        *e = first;
                return -first.code;
        }
        *ret = str_printf("Authorization: Bearer %s", token);
        if (!*ret)
                return error_oom(e);
        secret_free(a->token);
        a->token = steal_ptr(token);
        return 0;
}

static int make_header(struct client *c, const struct endpoint *endpoint, deadline_t deadline, struct authorization *a,
                       char **ret, struct error *e)
{
        _cleanup_credential_ struct credential credential = { 0 };
        _cleanup_(secret_free_ptr) char *refused = NULL;
        int r;

        *ret = NULL;
        if (a->challenge.scheme == AUTH_NONE)
                return 0;
        r = find_credential(c, endpoint, a, &credential, e);
        if (r < 0)
                return r;
        if (a->challenge.scheme == AUTH_BEARER) {
                /* The token that this very request was refused with is not to be had again. */
                if (a->refusals > 0)
                        refused = steal_ptr(a->token);
                r = bearer_header(c, endpoint, &credential, deadline, a, refused, ret, e);
                if (r != -EACCES || a->anonymous)
                        return r;
                (void) client_keep_credential(c, endpoint, NULL);
                if (!a->known)
                        return r;
                /* What an earlier request was given has expired: there may be better by now. */
                r = find_credential(c, endpoint, a, &credential, e);
                return r < 0 ? r : bearer_header(c, endpoint, &credential, deadline, a, refused, ret, e);
        }
        if (!credential.user)
                return error_set(e, ERROR_DENIED, EACCES,
                                 "%s/%s: the registry wants a user and password, and there are none for it",
                                 endpoint->host, endpoint->repository);
        *ret = basic_header(&credential);
        return *ret ? 0 : error_oom(e);
}

/* An authfile, a credential helper or a token that is not there does not mean that what is asked for is not. */
static int without_authorization(int r, struct error *e)
{
        struct error cause = *e;

        return r == -ENOENT ? error_set(e, ERROR_DENIED, EACCES, "%s", cause.message) : r;
}

int authorize(struct client *c, const struct endpoint *endpoint, enum request_kind kind, deadline_t deadline,
              struct authorization *a, char **ret, struct error *e)
{
        bool recalls = a->challenge.scheme == AUTH_NONE;
        int r;

        if (recalls && client_recall(c, endpoint, kind, &a->challenge) < 0)
                return error_oom(e);
        r = make_header(c, endpoint, deadline, a, ret, e);
        if (r == 0 || r == -ENOMEM || !recalls || deadline_left(deadline) == 0)
                return without_authorization(r, e);

        /* The registry may want something else today: asked without a token, it says what. */
        log_debug("%s: the challenge of earlier requests is forgotten", e->message);
        client_forget(c, endpoint, kind);
        challenge_clear(&a->challenge);
        return 0;
}

/* ---- refusals ---- */

/* The challenge of an answer; -ENOENT when it has none. */
static int parse_answer(const struct transfer *answer, struct challenge *ret, struct error *e)
{
        const char *headers[HEADERS_MAX];
        unsigned n = 0;

        while (n < HEADERS_MAX && (headers[n] = transfer_header(answer, "WWW-Authenticate", n)))
                n++;
        return n == 0 ? -ENOENT : challenge_parse(headers, n, ret, e);
}

/* A 401 that does not say what it wants: the registry's front door does. */
static int ask_front_door(struct client *c, const struct endpoint *endpoint, const char *url, deadline_t deadline,
                          struct challenge *ret, struct error *e)
{
        _cleanup_(transfer_unref_ptr) struct transfer *answer = NULL;
        _cleanup_free_ char *door = NULL;
        struct http_request request = HTTP_REQUEST_INIT;
        struct http_tls tls;
        int r;

        r = http_join_url(url, "/v2/", &door, e);
        if (r < 0)
                return r;
        fill_tls(endpoint, door, &tls);
        request.url = door;
        request.tls = &tls;
        request.deadline = deadline;
        r = http_start(c->http, &request, &answer, e);
        if (r == 0)
                r = transfer_wait_headers(answer, deadline, e);
        return r < 0 ? r : parse_answer(answer, ret, e);
}

/* ACTIONS, N bytes with commas between, and those of a push that are missing. */
static int add_push_actions(struct buf *scope, const char *actions, size_t n)
{
        static const char *const wanted[] = { "pull", "push" };
        int r = buf_append(scope, actions, n);

        for (size_t k = 0; r == 0 && k < ELEMENTSOF(wanted); k++) {
                bool found = false;

                for (const char *a = actions; a < actions + n; a += strcspn(a, ", ") + 1)
                        found = found || (str_after(a, wanted[k]) && strchr(", ", a[strlen(wanted[k])]));
                if (!found)
                        r = buf_printf(scope, ",%s", wanted[k]);
        }
        return r;
}

/* Some registries name in every challenge what a pull wants (GHCR), and all of them what the very request wants: a
 * token for a push is asked for what pushes want in all, and asked for once. */
static int widen_scope(const struct endpoint *endpoint, struct challenge *challenge)
{
        _cleanup_free_ char *own = str_printf("repository:%s:", endpoint->repository);
        _cleanup_buf_ struct buf wider = { 0 };
        int r = own ? 0 : -ENOMEM;

        for (const char *word = challenge->scope; word && *word && r == 0; word += strspn(word, " ")) {
                const char *actions = str_after(word, own);
                size_t n = strcspn(word, " ");

                r = wider.len > 0 ? buf_append_char(&wider, ' ') : 0;
                if (r == 0 && actions)
                        r = buf_append_str(&wider, own);
                if (r == 0)
                        r = actions ? add_push_actions(&wider, actions, strcspn(actions, " "))
                                    : buf_append(&wider, word, n);
                word += n;
        }
        if (r < 0 || wider.len == 0)
                return r;
        free(challenge->scope);
        challenge->scope = buf_steal(&wider);
        return challenge->scope ? 0 : -ENOMEM;
}

int authorize_again(struct client *c, const struct endpoint *endpoint, enum request_kind kind, struct transfer *answer,
                    const char *url, deadline_t deadline, struct authorization *a, struct error *e)
{
        _cleanup_challenge_ struct challenge challenge = { 0 };
        char masked[400];
        int r;

        http_mask_url(url, masked, sizeof(masked));
        if (++a->refusals >= REFUSALS_MAX)
                return answer_error(answer, url, deadline, e);
        /* ECR says 403 for a token that has expired: once more, with a new one. */
        if (transfer_status(answer) == 403)
                return a->token && a->refusals == 1 ? 0 : answer_error(answer, url, deadline, e);

        r = parse_answer(answer, &challenge, e);
        if (r == -ENOENT)
                r = ask_front_door(c, endpoint, url, deadline, &challenge, e);
        if (r == -ENOENT)
                return error_set(e, ERROR_DENIED, EACCES,
                                 "%s: 401 Unauthorized, and no challenge that regfs can answer", masked);
        if (r < 0)
                return error_prefix(e, "%s", masked);
        if (kind == REQUEST_PUSH && widen_scope(endpoint, &challenge) < 0)
                return error_oom(e);
        log_debug("%s: challenge %s realm=\"%s\" service=\"%s\" scope=\"%s\" error=\"%s\"", masked,
                  challenge.scheme == AUTH_BEARER ? "Bearer" : "Basic", challenge.realm ? challenge.realm : "",
                  challenge.service ? challenge.service : "", challenge.scope ? challenge.scope : "",
                  challenge.error ? challenge.error : "");

        /* Credentials that were sent and refused stay refused, but those of an earlier request may have expired. */
        if (challenge.scheme == AUTH_BASIC && a->challenge.scheme == AUTH_BASIC) {
                (void) client_keep_credential(c, endpoint, NULL);
                if (!a->known)
                        return answer_error(answer, url, deadline, e);
        }
        if (challenge_copy(&challenge, &a->challenge) < 0)
                return error_oom(e);
        if (!a->anonymous && client_remember(c, endpoint, kind, &challenge) < 0)
                return error_oom(e);
        return 0;
}
