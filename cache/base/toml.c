/* SPDX-License-Identifier: Apache-2.0 */

#include "regfs/toml.h"

#include <string.h>

#include "toml_scan.h"

#define DEPTH_MAX 64

/* How a table or an array came to be decides what may still be added to it. */
enum origin {
        ORIGIN_IMPLICIT, /* table: named only on the way to another; a header may still define it */
        ORIGIN_HEADER,   /* table: [a], or an element of [[a]]; array: all the elements of [[a]] */
        ORIGIN_DOTTED,   /* table: a dotted key's; headers may only add tables below it */
        ORIGIN_VALUE,    /* written as a value: complete */
};

struct toml {
        enum toml_type type;
        enum origin origin;
        bool boolean;
        int64_t integer;
        char *text;
        char *name;
        struct toml *first, *last; /* members or elements */
        struct toml *next;
};

static int parse_value(struct toml_scan *p, struct toml *v);

/* ---- the tree ---- */

/* Appends a new value to a table (with a name, which passes to it) or to an array. NULL when out of memory. */
static struct toml *add(struct toml *parent, enum toml_type type, enum origin origin, char *name)
{
        struct toml *v = calloc(1, sizeof(*v));

        if (!v)
                return NULL;
        v->type = type;
        v->origin = origin;
        v->name = name;
        if (parent->last)
                parent->last->next = v;
        else
                parent->first = v;
        parent->last = v;
        return v;
}

/* Children are moved up in front of the next sibling: no recursion, however deep the keys go. */
struct toml *toml_free(struct toml *root)
{
        struct toml *next;

        for (struct toml *v = root; v; v = next) {
                if (v->first) {
                        v->last->next = v->next;
                        v->next = v->first;
                }
                next = v->next;
                free(v->text);
                free(v->name);
                free(v);
        }
        return NULL;
}

static struct toml *find(const struct toml *table, const char *name)
{
        struct toml *v = table->first;

        while (v && strcmp(v->name, name) != 0)
                v = v->next;
        return v;
}

/* ---- the text ---- */

static void skip_comment(struct toml_scan *p)
{
        if (scan_peek(p) == '#')
                while (!scan_at_end(p) && scan_peek(p) != '\n' && scan_peek(p) != '\r')
                        p->at++;
}

/* Blanks, comments and empty lines: what may stand between lines, and between the elements of an array. */
static void skip_space(struct toml_scan *p)
{
        do {
                scan_skip_blanks(p);
                skip_comment(p);
        } while (scan_skip_newline(p));
}

/* Behind a header and behind a pair. */
static int expect_end_of_line(struct toml_scan *p)
{
        scan_skip_blanks(p);
        skip_comment(p);
        if (scan_at_end(p) || scan_skip_newline(p))
                return 0;
        return toml_scan_wrong(p, "more than a comment is left on the line");
}

/* ---- keys ---- */

/* The table NAME within TABLE, on the way to a longer key. NAME is taken when the table is made. */
static int descend(struct toml_scan *p, struct toml *table, char **name, bool header, struct toml **ret)
{
        struct toml *v = find(table, *name);

        if (!v) {
                v = add(table, TOML_TABLE, header ? ORIGIN_IMPLICIT : ORIGIN_DOTTED, *name);
                if (!v)
                        return error_oom(p->e);
                *name = NULL;
        } else if (header) {
                if (v->type == TOML_ARRAY && v->origin == ORIGIN_HEADER)
                        v = v->last;
                if (v->type != TOML_TABLE || v->origin == ORIGIN_VALUE)
                        return toml_scan_wrong(p, "\"%.100s\" cannot be extended by a table header", *name);
        } else {
                if (v->type != TOML_TABLE || (v->origin != ORIGIN_IMPLICIT && v->origin != ORIGIN_DOTTED))
                        return toml_scan_wrong(p, "\"%.100s\" cannot be extended by a dotted key", *name);
                v->origin = ORIGIN_DOTTED;
        }
        *ret = v;
        return 0;
}

/* A dotted key: walks, from TABLE, all of it but its last name, which the caller frees. */
static int parse_key(struct toml_scan *p, struct toml *table, bool header, struct toml **ret_table, char **ret_name)
{
        _cleanup_free_ char *name = NULL;
        int r;

        for (;;) {
                scan_skip_blanks(p);
                r = toml_scan_name(p, &name);
                if (r < 0)
                        return r;
                scan_skip_blanks(p);
                if (!scan_skip(p, "."))
                        break;
                r = descend(p, table, &name, header, &table);
                if (r < 0)
                        return r;
                free(name);
                name = NULL;
        }
        *ret_table = table;
        *ret_name = steal_ptr(name);
        return 0;
}

static int parse_pair(struct toml_scan *p, struct toml *table)
{
        _cleanup_free_ char *name = NULL;
        struct toml *v;
        int r;

        r = parse_key(p, table, false, &table, &name);
        if (r < 0)
                return r;
        if (find(table, name))
                return toml_scan_wrong(p, "\"%.100s\" is defined twice", name);
        if (!scan_skip(p, "="))
                return toml_scan_wrong(p, "\"=\" is missing behind a key");
        scan_skip_blanks(p);
        v = add(table, TOML_TABLE, ORIGIN_VALUE, name);
        if (!v)
                return error_oom(p->e);
        name = NULL;
        return parse_value(p, v);
}

/* ---- values ---- */

static int parse_array(struct toml_scan *p, struct toml *v)
{
        v->type = TOML_ARRAY;
        for (;;) {
                struct toml *element;
                int r;

                skip_space(p);
                if (scan_skip(p, "]"))
                        return 0;
                element = add(v, TOML_TABLE, ORIGIN_VALUE, NULL);
                if (!element)
                        return error_oom(p->e);
                r = parse_value(p, element);
                if (r < 0)
                        return r;
                skip_space(p);
                if (!scan_skip(p, ",") && scan_peek(p) != ']')
                        return toml_scan_wrong(p, "\",\" or \"]\" is missing in an array");
        }
}

/* On one line, and no comma behind the last pair. */
static int parse_inline_table(struct toml_scan *p, struct toml *v)
{
        v->type = TOML_TABLE;
        scan_skip_blanks(p);
        if (scan_skip(p, "}"))
                return 0;
        for (;;) {
                int r = parse_pair(p, v);

                if (r < 0)
                        return r;
                scan_skip_blanks(p);
                if (scan_skip(p, "}"))
                        return 0;
                if (!scan_skip(p, ","))
                        return toml_scan_wrong(p, "\",\" or \"}\" is missing in an inline table");
        }
}

static int parse_word(struct toml_scan *p, struct toml *v)
{
        bool is_boolean;
        int r;

        r = toml_scan_word(p, &is_boolean, &v->boolean, &v->integer);
        if (r < 0)
                return r;
        v->type = is_boolean ? TOML_BOOL : TOML_INTEGER;
        return 0;
}

/* Fills V, which stands in the tree already. */
static int parse_value(struct toml_scan *p, struct toml *v)
{
        int r;

        if (scan_peek(p) == '"' || scan_peek(p) == '\'') {
                v->type = TOML_STRING;
                return toml_scan_string(p, true, &v->text);
        }
        if (scan_peek(p) != '[' && scan_peek(p) != '{')
                return parse_word(p, v);
        if (p->depth == DEPTH_MAX)
                return toml_scan_wrong(p, "nested deeper than %d", DEPTH_MAX);
        p->depth++;
        r = scan_skip(p, "[") ? parse_array(p, v) : scan_skip(p, "{") ? parse_inline_table(p, v) : -EBADMSG;
        p->depth--;
        return r;
}

/* ---- the document ---- */

/* [a.b]: a new table, or one that was only passed through until now. */
static int open_table(struct toml_scan *p, struct toml *parent, char **name, struct toml **ret)
{
        struct toml *v = find(parent, *name);

        if (v && (v->type != TOML_TABLE || v->origin != ORIGIN_IMPLICIT))
                return toml_scan_wrong(p, "\"%.100s\" is defined twice", *name);
        if (!v) {
                v = add(parent, TOML_TABLE, ORIGIN_HEADER, *name);
                if (!v)
                        return error_oom(p->e);
                *name = NULL;
        }
        v->origin = ORIGIN_HEADER;
        *ret = v;
        return 0;
}

/* [[a.b]]: one more element. */
static int open_element(struct toml_scan *p, struct toml *parent, char **name, struct toml **ret)
{
        struct toml *array = find(parent, *name), *v;

        if (array && (array->type != TOML_ARRAY || array->origin != ORIGIN_HEADER))
                return toml_scan_wrong(p, "\"%.100s\" is defined already, and not as an array of tables", *name);
        if (!array) {
                array = add(parent, TOML_ARRAY, ORIGIN_HEADER, *name);
                if (!array)
                        return error_oom(p->e);
                *name = NULL;
        }
        v = add(array, TOML_TABLE, ORIGIN_HEADER, NULL);
        if (!v)
                return error_oom(p->e);
        *ret = v;
        return 0;
}

/* Behind its first bracket. *ret is the table that the following pairs belong to. */
static int parse_header(struct toml_scan *p, struct toml *root, struct toml **ret)
{
        bool element = scan_skip(p, "[");
        _cleanup_free_ char *name = NULL;
        struct toml *parent;
        int r;

        r = parse_key(p, root, true, &parent, &name);
        if (r < 0)
                return r;
        if (!scan_skip(p, element ? "]]" : "]"))
                return toml_scan_wrong(p, "\"%s\" is missing behind a table's name", element ? "]]" : "]");
        return element ? open_element(p, parent, &name, ret) : open_table(p, parent, &name, ret);
}

int toml_parse(const char *data, size_t n, struct toml **ret, struct error *e)
{
        struct toml_scan p = { .text = data, .length = n, .e = e };
        _cleanup_(toml_free_ptr) struct toml *root = NULL;
        struct toml *table;
        int r;

        r = toml_scan_check(&p);
        if (r < 0)
                return r;
        root = calloc(1, sizeof(*root));
        if (!root)
                return error_oom(e);
        root->type = TOML_TABLE;
        table = root;
        for (skip_space(&p); !scan_at_end(&p); skip_space(&p)) {
                r = scan_skip(&p, "[") ? parse_header(&p, root, &table) : parse_pair(&p, table);
                if (r == 0)
                        r = expect_end_of_line(&p);
                if (r < 0)
                        return r;
        }
        *ret = steal_ptr(root);
        return 0;
}

/* ---- reading ---- */

enum toml_type toml_type(const struct toml *v)
{
        return v->type;
}

const struct toml *toml_member(const struct toml *v, const char *name)
{
        return v && v->type == TOML_TABLE ? find(v, name) : NULL;
}

const char *toml_text(const struct toml *v)
{
        return v && v->type == TOML_STRING ? v->text : NULL;
}

int toml_bool(const struct toml *v, bool *ret)
{
        if (!v)
                return -ENOENT;
        if (v->type != TOML_BOOL)
                return -EINVAL;
        *ret = v->boolean;
        return 0;
}

int toml_integer(const struct toml *v, int64_t *ret)
{
        if (!v)
                return -ENOENT;
        if (v->type != TOML_INTEGER)
                return -EINVAL;
        *ret = v->integer;
        return 0;
}

const struct toml *toml_first(const struct toml *v)
{
        return v ? v->first : NULL;
}

const struct toml *toml_next(const struct toml *v)
{
        return v ? v->next : NULL;
}

const char *toml_name(const struct toml *v)
{
        return v ? v->name : NULL;
}
