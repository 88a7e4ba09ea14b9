/* SPDX-License-Identifier: Apache-2.0 */
#include "grammar.h"

#include <arpa/inet.h>
#include <string.h>

#define DIGITS "0123456789"
#define LOWER "abcdefghijklmnopqrstuvwxyz"
#define UPPER "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

#define HOST_MAX 255

static const char *check_port(const char *s)
{
        size_t n = strspn(s, DIGITS);
        unsigned long port = 0;

        if (n == 0 || s[n])
                return "the port of the host is not a number";
        /* Saturates far below an overflow, however many digits there are. */
        for (; *s; s++)
                port = MIN(port * 10 + (unsigned long) (*s - '0'), 65536UL);
        if (port == 0 || port > 65535)
                return "the port of the host is not between 1 and 65535";
        return NULL;
}

/* *RET_END is where the address and its bracket end. */
static const char *check_ipv6(const char *s, const char **ret_end)
{
        struct in6_addr address;
        char text[INET6_ADDRSTRLEN];
        size_t n = strspn(s + 1, DIGITS "abcdefABCDEF:");

        if (s[1 + n] == '%')
                return "an IPv6 address cannot have a zone here";
        if (s[1 + n] != ']' || n >= sizeof(text))
                return "the host is no IPv6 address in brackets";
        memcpy(text, s + 1, n);
        text[n] = '\0';
        if (inet_pton(AF_INET6, text, &address) != 1)
                return "the host is no IPv6 address in brackets";
        *ret_end = s + n + 2;
        return NULL;
}

static const char *check_domain(const char *s, const char **ret_end)
{
        for (;;) {
                size_t n = strspn(s, LOWER UPPER DIGITS "-");

                if (n == 0 || s[0] == '-' || s[n - 1] == '-')
                        return "the host is no domain name (letters, digits and inner hyphens, joined by dots)";
                s += n;
                if (*s != '.')
                        break;
                s++;
        }
        *ret_end = s;
        return NULL;
}

const char *grammar_check_host(const char *s)
{
        const char *end, *wrong;

        if (strlen(s) > HOST_MAX)
                return "the host is longer than 255 bytes";
        wrong = s[0] == '[' ? check_ipv6(s, &end) : check_domain(s, &end);
        if (wrong)
                return wrong;
        if (*end == ':')
                return check_port(end + 1);
        if (*end)
                return "the host has a character that no host has";
        return NULL;
}

/* One dot, one or two underscores, or any number of hyphens. */
static size_t separator_length(const char *s)
{
        if (*s == '.')
                return 1;
        if (*s == '_')
                return s[1] == '_' ? 2 : 1;
        return strspn(s, "-");
}

/* Where the component at S ends, or NULL when it is malformed. */
static const char *component_end(const char *s)
{
        for (;;) {
                size_t n = strspn(s, LOWER DIGITS);

                if (n == 0)
                        return NULL;
                s += n;
                n = separator_length(s);
                if (n == 0)
                        return s;
                s += n;
        }
}

const char *grammar_check_repository(const char *s)
{
        if (!*s)
                return "the name of the repository is missing";
        if (strlen(s) > REPOSITORY_MAX)
                return "the name of the repository is longer than 255 bytes";
        if (strpbrk(s, UPPER))
                return "the name of a repository is lower case";
        for (;;) {
                s = component_end(s);
                if (!s || (*s && *s != '/'))
                        return "the name of a repository consists of lower-case letters and digits, with a dot, one or "
                               "two underscores, hyphens or a slash between them";
                if (!*s)
                        return NULL;
                s++;
        }
}

const char *grammar_check_tag(const char *s)
{
        size_t n = strlen(s);

        if (n == 0)
                return "the tag is empty";
        if (n > TAG_MAX)
                return "the tag is longer than 128 bytes";
        if (s[0] == '.' || s[0] == '-' || strspn(s, LOWER UPPER DIGITS "_.-") != n)
                return "a tag consists of letters, digits, underscores, dots and hyphens, and begins with none of the "
                       "last two";
        return NULL;
}

bool grammar_looks_like_host(const char *s)
{
        return strcmp(s, "localhost") == 0 || strpbrk(s, ".:" UPPER);
}
