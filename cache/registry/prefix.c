/* SPDX-License-Identifier: Apache-2.0 */
#include "prefix.h"

#include <string.h>
#include <strings.h>

#include "regfs/text.h"

void image_name_clear(struct image_name *n)
{
        free(n->name);
        free(n->suffix);
        *n = (struct image_name) { 0 };
}

int image_name_of(const struct reference *ref, struct image_name *ret)
{
        _cleanup_image_name_ struct image_name n = { 0 };
        char digest[DIGEST_STRING_MAX];

        n.name = str_printf("%s/%s", ref->host, ref->repository);
        if (ref->has_digest)
                n.suffix = str_printf("@%s", digest_format(&ref->digest, digest));
        else
                n.suffix = str_printf(":%s", ref->tag);
        if (!n.name || !n.suffix)
                return -ENOMEM;
        *ret = n;
        n = (struct image_name) { 0 };
        return 0;
}

/* TAIL is ".example.com": what the host must end with, in front of its port. */
static size_t match_subdomain(const char *tail, const char *name)
{
        size_t host = strcspn(name, "/"), domain = strcspn(name, ":/"), n = strlen(tail);

        return domain > n && strncasecmp(name + domain - n, tail, n) == 0 ? host : 0;
}

size_t prefix_match(const char *prefix, const struct image_name *n)
{
        size_t host = strcspn(prefix, "/"), length = strlen(prefix), name = strlen(n->name);
        const char *path = prefix + host, *rest;

        if (str_after(prefix, "*."))
                return match_subdomain(prefix + 1, n->name);
        if (strncasecmp(prefix, n->name, host) != 0)
                return 0;
        if (length <= name) {
                rest = n->name + length;
                return strncmp(path, n->name + host, length - host) == 0 && (!*rest || *rest == '/') ? length : 0;
        }
        rest = str_after(path, n->name + host);
        return rest && strcmp(rest, n->suffix) == 0 ? name : 0;
}

bool prefix_is_more_specific(const char *a, const char *b)
{
        size_t length_a = strlen(a), length_b = strlen(b);

        return length_a != length_b ? length_a > length_b : a[0] != '*' && b[0] == '*';
}
