/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include <strings.h>

#include "quote.h"

#include "regfs/challenge.h"
#include "regfs/text.h"

/* Parameters of one challenge: real ones have four. */
#define MAX_PARAMETERS 32

struct parser {
        const char *header;
        const char *at;
        struct error *e;
};

/* A name as it stands in the header. */
struct name {
        const char *start;
        size_t length;
};

void challenge_clear(struct challenge *c)
{
        free(c->realm);
        free(c->service);
        free(c->scope);
        free(c->error);
        *c = (struct challenge) {};
}

static int malformed(struct parser *p, const char *why)
{
        char quoted[QUOTE_SIZE];

        return error_set(p->e, ERROR_BAD_DATA, EBADMSG, "malformed WWW-Authenticate header \"%s\": %s at byte %zu",
                         auth_quote(p->header, strlen(p->header), quoted), why, (size_t) (p->at - p->header));
}

static bool is_alphanumeric(char c)
{
        return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

/* RFC 9110 section 5.6.2: token = 1*tchar. */
static size_t token_length(const char *s)
{
        size_t n = 0;

        while (s[n] != '\0' && (is_alphanumeric(s[n]) || strchr("!#$%&'*+-.^_`|~", s[n])))
                n++;
        return n;
}

static const char *after_space(const char *s)
{
        return s + strspn(s, " \t");
}

/* RFC 9110 section 5.6.1: elements of a list may be empty. Returns true when there was a comma. */
static bool skip_gap(struct parser *p)
{
        const char *start = p->at;

        p->at += strspn(p->at, " \t,");
        return memchr(start, ',', (size_t) (p->at - start)) != NULL;
}

/* A token with "=" behind it begins a parameter, any other token a new challenge: nothing else tells them apart. */
static bool at_parameter(const struct parser *p)
{
        size_t n = token_length(p->at);

        return n > 0 && *after_space(p->at + n) == '=';
}

/* Takes a token68 (RFC 9110 section 11.2) that is all that a challenge has behind its scheme. */
static bool skip_token68(struct parser *p)
{
        const char *s = p->at;

        while (*s != '\0' && (is_alphanumeric(*s) || strchr("-._~+/", *s)))
                s++;
        if (s == p->at)
                return false;
        s = after_space(s + strspn(s, "="));
        if (*s != '\0' && *s != ',')
                return false;
        p->at = s;
        return true;
}

static bool is_control(char c)
{
        return ((uint8_t) c < 0x20 && c != '\t') || c == 0x7f;
}

static int parse_quoted_string(struct parser *p, char **ret)
{
        _cleanup_buf_ struct buf value = {};

        for (p->at++; *p->at != '"'; p->at++) {
                if (*p->at == '\\')
                        p->at++;
                if (*p->at == '\0')
                        return malformed(p, "a quoted string does not end");
                if (is_control(*p->at))
                        return malformed(p, "a control character in a quoted string");
                if (buf_append_char(&value, *p->at) < 0)
                        return error_oom(p->e);
        }
        p->at++;

        *ret = buf_steal(&value);
        return *ret ? 0 : error_oom(p->e);
}

static int parse_value(struct parser *p, char **ret)
{
        size_t n;

        if (*p->at == '"')
                return parse_quoted_string(p, ret);

        n = token_length(p->at);
        if (n == 0)
                return malformed(p, "a parameter without a value");
        *ret = strndup(p->at, n);
        p->at += n;
        return *ret ? 0 : error_oom(p->e);
}

static bool name_is(const struct name *name, const char *s, size_t length)
{
        return name->length == length && strncasecmp(name->start, s, length) == 0;
}

/* Where a parameter is kept, or NULL for one that regfs has no use for. */
static char **find_slot(struct challenge *c, const struct name *name)
{
        const struct {
                const char *name;
                char **slot;
        } known[] = {
                { "realm", &c->realm },
                { "service", &c->service },
                { "scope", &c->scope },
                { "error", &c->error },
        };

        for (size_t i = 0; i < ELEMENTSOF(known); i++)
                if (name_is(name, known[i].name, strlen(known[i].name)))
                        return known[i].slot;
        return NULL;
}

static int parse_parameter(struct parser *p, struct challenge *c, struct name *names, size_t *count)
{
        _cleanup_free_ char *value = NULL;
        struct name name = { p->at, token_length(p->at) };
        char **slot;
        int r;

        for (size_t i = 0; i < *count; i++)
                if (name_is(&names[i], name.start, name.length))
                        return malformed(p, "a parameter stands twice");
        if (*count == MAX_PARAMETERS)
                return malformed(p, "too many parameters");
        names[(*count)++] = name;

        p->at = after_space(after_space(name.start + name.length) + 1);
        r = parse_value(p, &value);
        if (r < 0)
                return r;

        slot = find_slot(c, &name);
        if (slot)
                *slot = steal_ptr(value);
        return 0;
}

static enum auth_scheme scheme_of(const struct name *name)
{
        if (name_is(name, "Bearer", strlen("Bearer")))
                return AUTH_BEARER;
        if (name_is(name, "Basic", strlen("Basic")))
                return AUTH_BASIC;
        return AUTH_NONE;
}

static int parse_parameters(struct parser *p, struct challenge *c)
{
        struct name names[MAX_PARAMETERS];
        size_t count = 0;
        int r;

        for (bool first = true;; first = false) {
                bool comma = skip_gap(p);

                if (*p->at == '\0' || (comma && !at_parameter(p)))
                        return 0;
                if (!comma && !(first && at_parameter(p)))
                        return malformed(p, "neither comma nor parameter");
                r = parse_parameter(p, c, names, &count);
                if (r < 0)
                        return r;
        }
}

/* Takes one challenge with all its parameters: up to the next scheme or the end. The caller clears C, also on error. */
static int parse_challenge(struct parser *p, struct challenge *c)
{
        struct name scheme = { p->at, token_length(p->at) };
        int r;

        if (scheme.length == 0)
                return malformed(p, "no scheme");
        if (at_parameter(p))
                return malformed(p, "a parameter without a scheme");
        c->scheme = scheme_of(&scheme);

        p->at += scheme.length;
        if (*p->at != '\0' && *p->at != ',' && *p->at != ' ' && *p->at != '\t')
                return malformed(p, "no space behind the scheme");
        p->at = after_space(p->at);
        if (!skip_token68(p)) {
                r = parse_parameters(p, c);
                if (r < 0)
                        return r;
        }

        if (c->scheme == AUTH_BEARER && (!c->realm || c->realm[0] == '\0'))
                return malformed(p, "a Bearer challenge without a realm ends");
        return 0;
}

static int parse_header(struct parser *p, struct challenge *best)
{
        int r;

        for (;;) {
                _cleanup_challenge_ struct challenge c = {};

                skip_gap(p);
                if (*p->at == '\0')
                        return 0;
                r = parse_challenge(p, &c);
                if (r < 0)
                        return r;

                /* The enumeration's order is that of preference. */
                if (c.scheme > best->scheme) {
                        challenge_clear(best);
                        *best = c;
                        c = (struct challenge) {};
                }
        }
}

int challenge_parse(const char *const *headers, size_t count, struct challenge *ret, struct error *e)
{
        _cleanup_challenge_ struct challenge best = {};
        char quoted[QUOTE_SIZE];
        int r;

        for (size_t i = 0; i < count; i++) {
                struct parser p = { .header = headers[i], .at = headers[i], .e = e };

                r = parse_header(&p, &best);
                if (r < 0)
                        return r;
        }
        if (best.scheme == AUTH_NONE && count == 0)
                return error_set(e, ERROR_DENIED, ENOENT, "the server sent no WWW-Authenticate header");
        if (best.scheme == AUTH_NONE)
                return error_set(e, ERROR_DENIED, ENOENT, "neither Bearer nor Basic in WWW-Authenticate \"%s\"",
                                 auth_quote(headers[0], strlen(headers[0]), quoted));

        *ret = best;
        best = (struct challenge) {};
        return 0;
}
