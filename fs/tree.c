/* SPDX-License-Identifier: Apache-2.0 */

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "regfs/toc.h"

#include "toc/file.h"

#define TREE_SECTIONS (ITABLE_SECTIONS + 1)

_Static_assert(sizeof(struct tree_layer) == 184, "layers are part of the file format");

static struct itable_file tree_file(const struct digest *manifest)
{
        return (struct itable_file) {
                .magic = "REGFSIMG", .what = "image index", .version = TOC_VERSION, .subject = *manifest
        };
}

static void to_sections(const struct itable *itable, const struct tree_layer *layers, size_t count,
                        struct section sections[TREE_SECTIONS])
{
        itable_to_sections(itable, sections);
        sections[ITABLE_SECTIONS] = SECTION(SECTION_LAYERS, layers, count);
}

static struct tree_layer *copy_layers(const struct tree_layer *layers, size_t count)
{
        /* Field by field: what lies between and behind them goes to the file as zeros. */
        struct tree_layer *copy = calloc(count + 1, sizeof(*copy));

        for (size_t i = 0; copy && i < count; i++) {
                copy[i].digest.algorithm = layers[i].digest.algorithm;
                memcpy(copy[i].digest.bytes, layers[i].digest.bytes, sizeof(copy[i].digest.bytes));
                memcpy(copy[i].kind, layers[i].kind, strnlen(layers[i].kind, sizeof(copy[i].kind) - 1));
                copy[i].blob_size = layers[i].blob_size;
                copy[i].content_size = layers[i].content_size;
        }
        return copy;
}

int tree_write(int fd, const struct digest *manifest, const struct itable *const *tables,
               const struct tree_layer *layers, size_t count, struct error *e)
{
        _cleanup_(itable_builder_free_ptr) struct itable_builder *builder = NULL;
        _cleanup_free_ struct tree_layer *copy = copy_layers(layers, count);
        struct itable_file_identity identity = { 0 };
        struct itable_file file = tree_file(manifest);
        struct section sections[TREE_SECTIONS];
        char shown[DIGEST_STRING_MAX];
        struct itable view;
        int r;

        if (!copy || itable_builder_new(&builder) < 0)
                return error_oom(e);
        r = itable_builder_merge(builder, tables, count, e);
        if (r < 0)
                return error_prefix(e, "merging the layers of %s", digest_format(manifest, shown));
        itable_builder_view(builder, &view);
        to_sections(&view, copy, count, sections);
        return itable_file_write(fd, &file, &identity, sections, TREE_SECTIONS, e);
}

static int check_layers(const struct tree *t, struct error *e)
{
        char shown[DIGEST_STRING_MAX];
        const char *why = NULL;

        if (t->itable.inode_count == 0)
                why = "it has no root";
        for (size_t i = 0; i < t->layer_count; i++) {
                const struct tree_layer *l = &t->layers[i];

                if ((l->digest.algorithm != DIGEST_SHA256 && l->digest.algorithm != DIGEST_SHA512) ||
                    strnlen(l->kind, sizeof(l->kind)) == sizeof(l->kind))
                        why = "a layer has no name";
        }
        return why ? error_set(e, ERROR_BAD_DATA, EBADMSG, "image index of %s: %s", digest_format(&t->manifest, shown),
                               why)
                   : 0;
}

int tree_open(int fd, const struct digest *manifest, struct tree **ret, struct error *e)
{
        _cleanup_(tree_close_ptr) struct tree *t = calloc(1, sizeof(*t));
        struct itable_file file = tree_file(manifest);
        struct itable_file_identity identity;
        struct section sections[TREE_SECTIONS];
        int r;

        if (!t)
                return error_oom(e);
        to_sections(&t->itable, t->layers, 0, sections);
        r = itable_file_map(fd, &file, sections, TREE_SECTIONS, &identity, &t->map, &t->map_size, e);
        if (r < 0)
                return r;
        itable_from_sections(sections, &t->itable);
        t->layers = sections[ITABLE_SECTIONS].data;
        t->layer_count = sections[ITABLE_SECTIONS].count;
        t->manifest = *manifest;
        t->has_xattrs = t->itable.xattr_pair_count > 0;
        r = check_layers(t, e);
        if (r < 0)
                return r;
        *ret = steal_ptr(t);
        return 0;
}

struct tree *tree_close(struct tree *t)
{
        if (!t)
                return NULL;
        itable_file_unmap(t->map, t->map_size);
        free(t);
        return NULL;
}

int tree_key(const struct digest *manifest, const struct tree_layer *layers, size_t count, char ret[65])
{
        _cleanup_(hasher_free_ptr) struct hasher *h = hasher_new(DIGEST_SHA256);
        char line[DIGEST_STRING_MAX + sizeof(layers->kind) + 32], text[DIGEST_STRING_MAX];
        struct digest key;
        int n, r;

        if (!h)
                return -ENOMEM;
        n = snprintf(line, sizeof(line), "regfs image index %d of %s\n", TOC_VERSION, digest_format(manifest, text));
        r = hasher_update(h, line, (size_t) n);
        for (size_t i = 0; r == 0 && i < count; i++) {
                n = snprintf(line, sizeof(line), "%s %.*s\n", digest_format(&layers[i].digest, text),
                             (int) sizeof(layers[i].kind), layers[i].kind);
                r = hasher_update(h, line, (size_t) n);
        }
        if (r == 0)
                r = hasher_finish(h, &key);
        if (r == 0)
                digest_hex(&key, ret);
        return r;
}

int tree_lookup(const struct tree *t, const char *path, uint32_t *ret_row)
{
        const struct itable *table = &t->itable;
        uint32_t row = 0, d;

        while (*path) {
                size_t n = strcspn(path, "/");

                if (n == 2 && path[0] == '.' && path[1] == '.') {
                        row = table->inodes[row].parent;
                } else if (n > 0 && !(n == 1 && path[0] == '.')) {
                        d = itable_find(table, row, path, n);
                        if (d == ITABLE_NONE || table->dirents[d].type != DIRENT_INODE)
                                return -ENOENT;
                        row = table->dirents[d].target;
                }
                path += n;
                if (*path == '/' && !S_ISDIR(table->inodes[row].mode))
                        return -ENOTDIR;
                path += *path == '/';
        }
        *ret_row = row;
        return 0;
}
