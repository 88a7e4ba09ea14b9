/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "token_name.h"

/* A part of a scope string between spaces. */
struct scope {
        const char *start;
        size_t length;
};

struct scopes {
        struct scope *items;
        size_t count;
        size_t allocated;
};

static void scopes_clear(struct scopes *s)
{
        free(s->items);
}

void token_name_clear(struct token_name *name)
{
        buf_free(&name->bytes);
        buf_free(&name->label);
}

static int scope_compare(const void *x, const void *y)
{
        const struct scope *a = x, *b = y;
        int order = memcmp(a->start, b->start, MIN(a->length, b->length));

        return order != 0 ? order : (a->length > b->length) - (a->length < b->length);
}

static int scopes_split(struct scopes *scopes, const char *s)
{
        for (s += strspn(s, " "); *s != '\0'; s += strspn(s, " ")) {
                size_t length = strcspn(s, " ");

                if (array_reserve(scopes->items, &scopes->allocated, scopes->count + 1) < 0)
                        return -ENOMEM;
                scopes->items[scopes->count++] = (struct scope) { s, length };
                s += length;
        }
        return 0;
}

static int scopes_collect(struct scopes *scopes, const char *const *strings)
{
        size_t distinct = 0;
        int r;

        for (; strings && *strings; strings++) {
                r = scopes_split(scopes, *strings);
                if (r < 0)
                        return r;
        }
        if (scopes->count == 0)
                return 0;

        qsort(scopes->items, scopes->count, sizeof(*scopes->items), scope_compare);
        for (size_t i = 1; i < scopes->count; i++)
                if (scope_compare(&scopes->items[distinct], &scopes->items[i]) != 0)
                        scopes->items[++distinct] = scopes->items[i];
        scopes->count = distinct + 1;
        return 0;
}

/* C strings have no NUL inside, so a NUL behind each is an end that no content can imitate. The byte in front tells an
 * absent string from an empty one. */
static int append_field(struct buf *b, const char *s)
{
        int r = buf_append_char(b, s ? '+' : '-');

        if (r == 0 && s)
                r = buf_append_str(b, s);
        return r < 0 ? r : buf_append_char(b, '\0');
}

/* A realm's query or user info may hold a secret of somebody: the log gets neither. */
static int append_masked_realm(struct buf *b, const char *realm)
{
        const char *authority = strstr(realm, "://"), *end, *at;
        size_t prefix = authority ? (size_t) (authority - realm) + strlen("://") : 0;
        int r;

        authority = realm + prefix;
        end = authority + strcspn(authority, "?#");
        at = memrchr(authority, '@', strcspn(authority, "/?#"));
        r = buf_append(b, realm, prefix);
        if (r < 0)
                return r;
        if (at)
                authority = at + 1;
        return buf_append(b, authority, (size_t) (end - authority));
}

static int append_scopes(struct token_name *name, const struct scopes *scopes)
{
        int r = 0;

        for (size_t i = 0; i < scopes->count && r == 0; i++) {
                const struct scope *s = &scopes->items[i];

                r = buf_append_str(&name->label, i == 0 ? ", scopes " : " ");
                if (r == 0)
                        r = buf_append(&name->label, s->start, s->length);
                if (r == 0)
                        r = buf_append(&name->bytes, s->start, s->length);
                if (r == 0)
                        r = buf_append_char(&name->bytes, '\0');
        }
        return r;
}

int token_name_init(struct token_name *name, const struct token_key *key, struct error *e)
{
        _cleanup_(scopes_clear) struct scopes scopes = {};

        /* An identity that is missing for want of memory must not pass for the anonymous one. */
        if (!key->identity)
                return error_set(e, ERROR_OTHER, EINVAL, "a token was asked for without an identity");
        if (!key->realm || key->realm[0] == '\0')
                return error_set(e, ERROR_OTHER, EINVAL, "a token was asked for without a realm");

        if (scopes_collect(&scopes, key->scopes) < 0 || append_field(&name->bytes, key->realm) < 0 ||
            append_field(&name->bytes, key->service) < 0 || append_field(&name->bytes, key->identity) < 0 ||
            append_masked_realm(&name->label, key->realm) < 0)
                return error_oom(e);
        if (key->service && buf_printf(&name->label, ", service %s", key->service) < 0)
                return error_oom(e);
        return append_scopes(name, &scopes) < 0 ? error_oom(e) : 0;
}
