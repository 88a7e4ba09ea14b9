/* SPDX-License-Identifier: Apache-2.0 */

#include "index_text.h"

#include <string.h>

#include "regfs/json.h"

/* ---- descriptors ---- */

static int write_member(struct buf *b, const char *name, const char *value)
{
        int r = buf_printf(b, ",\"%s\":", name);

        return r < 0 ? r : json_quote(b, value);
}

static int write_annotations(struct buf *b, char *const *annotations)
{
        int r = buf_append_str(b, ",\"annotations\":{");

        for (char *const *a = annotations; r == 0 && a[0] && a[1]; a += 2) {
                r = a == annotations ? 0 : buf_append_char(b, ',');
                if (r == 0)
                        r = json_quote(b, a[0]);
                if (r == 0)
                        r = buf_append_char(b, ':');
                if (r == 0)
                        r = json_quote(b, a[1]);
        }
        return r < 0 ? r : buf_append_char(b, '}');
}

int descriptor_write(struct buf *b, const struct descriptor *d)
{
        char digest[DIGEST_STRING_MAX];
        int r;

        r = buf_append_str(b, "{\"mediaType\":");
        if (r == 0)
                r = json_quote(b, d->media_type ? d->media_type : "");
        if (r == 0)
                r = buf_printf(b, ",\"digest\":\"%s\",\"size\":%ju", digest_format(&d->digest, digest),
                               (uintmax_t) d->size);
        if (r == 0 && d->artifact_type)
                r = write_member(b, "artifactType", d->artifact_type);
        if (r == 0 && d->annotations && d->annotations[0])
                r = write_annotations(b, d->annotations);
        return r < 0 ? r : buf_append_char(b, '}');
}

/* ---- where things stand ---- */

/* The text is valid JSON: it has been parsed. What is asked here is only where its parts begin and end. */
struct cursor {
        const char *at, *end;
};

static void skip_space(struct cursor *c)
{
        while (c->at < c->end && strchr(" \t\r\n", *c->at))
                c->at++;
}

static void skip_string(struct cursor *c)
{
        for (c->at++; c->at < c->end && *c->at != '"'; c->at++)
                if (*c->at == '\\')
                        c->at++;
        c->at++;
}

/* Moves behind the value that begins here. */
static void skip_value(struct cursor *c)
{
        size_t depth = 0;

        while (c->at < c->end) {
                if (*c->at == '"') {
                        skip_string(c);
                        if (depth == 0)
                                return;
                        continue;
                }
                if (*c->at == '{' || *c->at == '[')
                        depth++;
                else if (depth == 0 && strchr(",}] \t\r\n", *c->at))
                        return;
                else if ((*c->at == '}' || *c->at == ']') && --depth == 0) {
                        c->at++;
                        return;
                }
                c->at++;
        }
}

/* Puts the cursor on the "[" of the index's manifests: those of the first member with that name, as for the parser. */
static bool find_manifests(struct cursor *c)
{
        static const char name[] = "\"manifests\"";

        skip_space(c);
        c->at++; /* { */
        for (;;) {
                const char *member;
                size_t n;

                skip_space(c);
                if (c->at >= c->end || *c->at != '"')
                        return false;
                member = c->at;
                skip_string(c);
                n = (size_t) (c->at - member);
                skip_space(c);
                c->at++; /* : */
                skip_space(c);
                if (n == strlen(name) && memcmp(member, name, n) == 0)
                        return c->at < c->end && *c->at == '[';
                skip_value(c);
                skip_space(c);
                c->at++; /* , */
        }
}

/* ---- changing ---- */

static int append_entry(struct buf *b, bool first, const char *entry, size_t n)
{
        int r = first ? 0 : buf_append_char(b, ',');

        return r < 0 ? r : buf_append(b, entry, n);
}

/* The entries from the cursor, behind "[", to the "]", on which it is left. *RET_COUNT: all there are. */
static int copy_entries(struct cursor *c, size_t count, const bool *drop, struct buf *b, bool *first, size_t *ret_count)
{
        size_t k = 0;
        int r = 0;

        skip_space(c);
        while (r == 0 && c->at < c->end && *c->at != ']') {
                const char *entry = c->at;

                skip_value(c);
                if (k >= count || !drop || !drop[k]) {
                        r = append_entry(b, *first, entry, (size_t) (c->at - entry));
                        *first = false;
                }
                k++;
                skip_space(c);
                if (c->at < c->end && *c->at == ',')
                        c->at++;
                skip_space(c);
        }
        *ret_count = k;
        return r;
}

static int failed(int r, struct error *e)
{
        return r == -ENOMEM ? error_oom(e)
                            : error_set(e, ERROR_OTHER, EFBIG, "the index would have more than the %zu bytes allowed",
                                        MANIFEST_MAX);
}

int index_text_change(const struct buf *text, size_t count, const bool *drop, const struct descriptor *add,
                      struct buf *ret, struct error *e)
{
        _cleanup_buf_ struct buf b = { .max = MANIFEST_MAX }, entry = { 0 };
        struct cursor c = { .at = text->data, .end = text->data + text->len };
        bool first = true;
        size_t found = 0;
        int r;

        if (!find_manifests(&c))
                return error_set(e, ERROR_BAD_DATA, EBADMSG,
                                 "the index spells its member \"manifests\" in another way");
        c.at++;
        r = descriptor_write(&entry, add);
        if (r == 0)
                r = buf_append(&b, text->data, (size_t) (c.at - text->data));
        if (r == 0)
                r = copy_entries(&c, count, drop, &b, &first, &found);
        if (r == 0)
                r = append_entry(&b, first, entry.data, entry.len);
        if (r == 0)
                r = buf_append(&b, c.at, (size_t) (c.end - c.at));
        if (r < 0)
                return failed(r, e);
        if (found != count)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "the index has %zu entries by its text, %zu by its parser",
                                 found, count);
        *ret = b;
        b = (struct buf) { 0 };
        return 0;
}
