/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the tests of registries.conf share: loading a scratch configuration, and writing down what comes out of it as
 * one line of text. Included after cmocka.h. */

#include "../../cache/registry/conf.h"
#include "config_tree.h"

#define USER_FILE "user/containers/registries.conf"
#define USER_DROP_IN "user/containers/registries.conf.d/"
#define SYSTEM_FILE "system/containers/registries.conf"
#define SYSTEM_DROP_IN "system/containers/registries.conf.d/"

static const struct registries_options defaults = { .tls_verify = -1 };

static inline struct registries *load_with(const struct config_tree *t, const struct registries_options *options)
{
        struct registries *r = NULL;
        struct error e = ERROR_INIT;

        if (registries_load_at(&t->paths, options, &r, &e) < 0)
                fail_msg("%s", e.message);
        return r;
}

static inline struct registries *load(const struct config_tree *t)
{
        return load_with(t, &defaults);
}

/* Returns what loading gives when it fails. */
static inline int load_fails(const struct config_tree *t, const struct registries_options *options, struct error *e)
{
        struct registries *r = NULL;
        int k;

        *e = (struct error) ERROR_INIT;
        k = registries_load_at(&t->paths, options, &r, e);
        assert_true(k < 0);
        assert_null(r);
        return k;
}

static inline void parse_name(const char *text, struct reference *ret)
{
        struct error e = ERROR_INIT;

        if (reference_parse(text, ret, &e) < 0)
                fail_msg("%s", e.message);
}

static inline int resolve(const struct registries *r, const char *name, struct reference **ret, size_t *ret_count,
                          struct error *e)
{
        _cleanup_reference_ struct reference ref = { 0 };

        *e = (struct error) ERROR_INIT;
        parse_name(name, &ref);
        return registries_resolve(r, &ref, ret, ret_count, e);
}

/* EXPECTED: the candidates, separated by spaces. */
static inline void assert_resolves(const struct registries *r, const char *name, const char *expected)
{
        _cleanup_buf_ struct buf b = { 0 };
        struct reference *items = NULL;
        struct error e;
        size_t count = 0;

        if (resolve(r, name, &items, &count, &e) < 0)
                fail_msg("%s", e.message);
        for (size_t i = 0; i < count; i++) {
                _cleanup_free_ char *text = reference_format(&items[i]);

                assert_int_equal(buf_printf(&b, "%s%s", i > 0 ? " " : "", text), 0);
                reference_clear(&items[i]);
        }
        free(items);
        assert_string_equal(b.data, expected);
}

static inline void assert_unresolved(const struct registries *r, const char *name, const char *part, const char *file)
{
        struct reference *items = NULL;
        struct error e;
        size_t count = 0;

        assert_int_equal(resolve(r, name, &items, &count, &e), -EINVAL);
        assert_int_equal(e.kind, ERROR_USAGE);
        assert_null(items);
        assert_contains(e.message, part);
        assert_contains(e.message, file);
}

static inline int find_endpoints(const struct registries *r, const char *name, struct endpoints *ret, struct error *e)
{
        _cleanup_reference_ struct reference ref = { 0 };

        *e = (struct error) ERROR_INIT;
        parse_name(name, &ref);
        return registries_endpoints(r, &ref, ret, e);
}

static inline void get_endpoints(const struct registries *r, const char *name, struct endpoints *ret)
{
        struct error e;

        if (find_endpoints(r, name, ret, &e) < 0)
                fail_msg("%s", e.message);
}

/* EXPECTED: "host/repository" of each, with the flags that are set, separated by spaces:
 * m mirror, i insecure, h plain http, t not by tag, d not by digest. */
static inline void assert_endpoints(const struct registries *r, const char *name, const char *expected)
{
        _cleanup_endpoints_ struct endpoints list = { 0 };
        _cleanup_buf_ struct buf b = { 0 };

        get_endpoints(r, name, &list);
        for (size_t i = 0; i < list.count; i++) {
                const struct endpoint *p = &list.items[i];
                char flags[6] = "", *f = flags;

                if (p->is_mirror)
                        *f++ = 'm';
                if (p->insecure)
                        *f++ = 'i';
                if (p->plain_http)
                        *f++ = 'h';
                if (!p->pull_by_tag)
                        *f++ = 't';
                if (!p->pull_by_digest)
                        *f++ = 'd';
                *f = '\0';
                if (*flags)
                        assert_int_equal(buf_printf(&b, "%s/%s,%s ", p->host, p->repository, flags), 0);
                else
                        assert_int_equal(buf_printf(&b, "%s/%s ", p->host, p->repository), 0);
        }
        assert_true(b.len > 0);
        b.data[b.len - 1] = '\0';
        assert_string_equal(b.data, expected);
}
