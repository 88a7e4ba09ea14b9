/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* An OCI image layout that a test writes blob by blob. Included after cmocka.h. */

#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "regfs/blob.h"
#include "regfs/digest.h"
#include "regfs/io.h"
#include "regfs/text.h"

#define OCI "application/vnd.oci.image."
#define CONFIG "{\"os\":\"linux\",\"architecture\":\"amd64\"}"

struct layout {
        char path[100];
        char store[120];      /* a place for a store beside it, not made */
        struct buf manifests; /* of index.json */
};

struct stored_blob {
        struct digest digest;
        size_t size;
};

static inline int layout_setup(void **state)
{
        struct layout *l = calloc(1, sizeof(*l));
        const char *tmp = getenv("TMPDIR");
        char blobs[200];

        *state = l;
        if (!l)
                return -1;
        snprintf(l->path, sizeof(l->path), "%.60s/regfs-layout-XXXXXX", tmp && *tmp ? tmp : "/tmp");
        if (!mkdtemp(l->path))
                return -1;
        snprintf(l->store, sizeof(l->store), "%s/store", l->path);
        snprintf(blobs, sizeof(blobs), "%s/blobs/sha256", l->path);
        return make_directories(blobs, 0700, NULL);
}

static inline int layout_remove_one(const char *path, const struct stat *st _unused_, int type _unused_,
                                    struct FTW *ftw _unused_)
{
        return remove(path);
}

static inline int layout_teardown(void **state)
{
        struct layout *l = *state;
        int r = nftw(l->path, layout_remove_one, 16, FTW_PHYS | FTW_DEPTH);

        buf_free(&l->manifests);
        free(l);
        return r;
}

#define layout_test(function) cmocka_unit_test_setup_teardown(function, layout_setup, layout_teardown)

static inline const char *layout_file(const struct layout *l, const char *name)
{
        static char paths[4][400];
        static unsigned next;
        char *path = paths[next++ % ELEMENTSOF(paths)];

        snprintf(path, sizeof(paths[0]), "%s/%s", l->path, name);
        return path;
}

static inline void layout_write(const struct layout *l, const char *name, const void *data, size_t n)
{
        int fd = open(layout_file(l, name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

        assert_true(fd >= 0);
        assert_int_equal(write_full(fd, data, n), 0);
        close(fd);
}

static inline const char *layout_blob_name(const struct digest *d)
{
        static char name[200];
        char hex[2 * DIGEST_MAX_SIZE + 1];

        snprintf(name, sizeof(name), "blobs/sha256/%s", digest_hex(d, hex));
        return name;
}

static inline struct stored_blob layout_put(const struct layout *l, const void *data, size_t n)
{
        struct stored_blob b = { .size = n };

        assert_int_equal(digest_of(DIGEST_SHA256, data, n, &b.digest), 0);
        layout_write(l, layout_blob_name(&b.digest), data, n);
        return b;
}

static inline void layout_descriptor(struct buf *out, const char *type, const struct stored_blob *b)
{
        char digest[DIGEST_STRING_MAX];

        assert_int_equal(buf_printf(out, "{\"mediaType\":\"%s\",\"digest\":\"%s\",\"size\":%zu", type,
                                    digest_format(&b->digest, digest), b->size),
                         0);
}

/* Puts an image of these layers, and enters it in the index under TAG (or NULL). */
static inline struct stored_blob layout_image(struct layout *l, const char *tag, const struct stored_blob *layers,
                                              size_t count, const char *config)
{
        struct stored_blob c = layout_put(l, config, strlen(config)), manifest;
        _cleanup_buf_ struct buf text = { 0 };

        (void) buf_append_str(&text, "{\"schemaVersion\":2,\"mediaType\":\"" OCI "manifest.v1+json\",\"config\":");
        layout_descriptor(&text, OCI "config.v1+json", &c);
        (void) buf_append_str(&text, "},\"layers\":[");
        for (size_t k = 0; k < count; k++) {
                (void) buf_append_str(&text, k > 0 ? "," : "");
                layout_descriptor(&text, OCI "layer.v1.tar", &layers[k]);
                (void) buf_append_str(&text, "}");
        }
        assert_int_equal(buf_append_str(&text, "]}"), 0);
        manifest = layout_put(l, text.data, text.len);

        (void) buf_append_str(&l->manifests, l->manifests.len > 0 ? "," : "");
        layout_descriptor(&l->manifests, OCI "manifest.v1+json", &manifest);
        if (tag)
                (void) buf_printf(&l->manifests, ",\"annotations\":{\"org.opencontainers.image.ref.name\":\"%s\"}",
                                  tag);
        assert_int_equal(buf_append_str(&l->manifests, "}"), 0);
        return manifest;
}

/* Writes index.json and oci-layout. */
static inline void layout_finish(struct layout *l)
{
        static const char version[] = "{\"imageLayoutVersion\":\"1.0.0\"}";
        _cleanup_buf_ struct buf text = { 0 };

        assert_int_equal(buf_printf(&text, "{\"schemaVersion\":2,\"manifests\":[%s]}",
                                    l->manifests.data ? l->manifests.data : ""),
                         0);
        layout_write(l, "index.json", text.data, text.len);
        layout_write(l, "oci-layout", version, strlen(version));
}

static inline void expect_words(const struct error *e, const char *words)
{
        if (!strstr(e->message, words))
                fail_msg("'%s' is not in '%s'", words, e->message);
}
