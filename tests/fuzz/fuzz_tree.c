/* SPDX-License-Identifier: Apache-2.0 */

/* A damaged image index. With the wrong checksum it is never opened, whatever was changed; where somebody has set the
 * right one, what the checks let pass can be walked, looked up and listed. The input's first byte says which of the
 * two; then the bytes of a file, or what is changed where in a good one. */

#include <fcntl.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "../../fs/toc/file.h"
#include "fuzz.h"
#include "regfs/toc.h"

#define HASH_START offsetof(struct itable_file_header, identity)

static const struct digest manifest = { .algorithm = DIGEST_SHA256, .bytes = { 1, 2, 3 } };

/* ---- a good one ---- */

static const struct layer_xattr xattrs[] = { { "user.a", (const uint8_t *) "1", 1 },
                                             { "user.b", (const uint8_t *) "", 0 } };
static const struct extent extents[] = { { 0, 512, 100 }, { 500, 612, 50 } };
static const struct layer_entry entries[] = {
        { .path = "a", .mode = S_IFDIR | 0755 },
        { .path = "a/file", .mode = S_IFREG | 0644, .size = 10, .xattrs = xattrs, .xattr_count = 2 },
        { .path = "a/link", .mode = S_IFREG | 0644, .hardlink = true, .link = "a/file" },
        { .path = "a/b/sparse",
          .mode = S_IFREG | 0600,
          .size = 1000,
          .sparse = true,
          .extents = extents,
          .extent_count = 2 },
        { .path = "soft", .mode = S_IFLNK | 0777, .link = "../b" },
        { .path = "null", .mode = S_IFCHR | 0666, .major = 1, .minor = 3 },
};

static int write_good(void)
{
        const struct tree_layer layer = { .digest = manifest, .kind = "plain", .blob_size = 100, .content_size = 1000 };
        _cleanup_(itable_builder_free_ptr) struct itable_builder *builder = NULL;
        _cleanup_(layer_tree_free_ptr) struct layer_tree *tree = NULL;
        const struct itable *tables[1];
        struct itable table;
        int fd = memory_file("", 0);

        REQUIRE(layer_tree_new(&tree) == 0 && itable_builder_new(&builder) == 0);
        for (size_t i = 0; i < ELEMENTSOF(entries); i++)
                REQUIRE(layer_tree_add(tree, &entries[i], NULL) == 0);
        REQUIRE(layer_tree_finish(tree, NULL) == 0 && itable_builder_from_layer(builder, tree, NULL) == 0);
        itable_builder_view(builder, &table);
        tables[0] = &table;
        REQUIRE(tree_write(fd, &manifest, tables, &layer, 1, NULL) == 0);
        return fd;
}

static const struct buf *good_file(void)
{
        static struct buf bytes;

        if (bytes.len == 0) {
                _cleanup_close_ int fd = write_good();
                char path[MEMORY_PATH_MAX];

                REQUIRE(file_read(AT_FDCWD, memory_path(fd, path), MIB, &bytes, NULL) == 0);
        }
        return &bytes;
}

/* ---- flipped bits ---- */

static void check_damage(const uint8_t *data, size_t size)
{
        const struct buf *good = good_file();
        _cleanup_free_ uint8_t *bytes = exact_bytes(good->data, good->len);
        _cleanup_close_ int fd = -1;
        struct tree *t = NULL;
        struct error e = ERROR_INIT;
        int r;

        for (; size >= 3; data += 3, size -= 3)
                bytes[(data[0] | data[1] << 8) % good->len] ^= data[2];
        fd = memory_file(bytes, good->len);
        r = tree_open(fd, &manifest, &t, &e);
        if (memcmp(bytes, good->data, good->len) == 0)
                REQUIRE(r == 0);
        else
                REQUIRE((r == -EBADMSG || r == -ESTALE) && is_told(r, &e));
        tree_close(t);
}

/* ---- a hand with a checksum ---- */

static int write_sealed(const uint8_t *data, size_t size)
{
        _cleanup_free_ uint8_t *copy = exact_bytes(data, size);
        struct itable_file_header *h = (void *) copy;

        memcpy(h->magic, "REGFSIMG", sizeof(h->magic));
        h->version = TOC_VERSION;
        h->file_length = size;
        h->identity.algorithm = manifest.algorithm;
        memcpy(h->identity.digest, manifest.bytes, sizeof(manifest.bytes));
        h->hash = XXH3_64bits(copy + HASH_START, size - HASH_START);
        return memory_file(copy, size);
}

static void walk_row(const struct tree *t, uint32_t row, struct buf *path)
{
        const struct itable *table = &t->itable;
        const struct inode *i = &table->inodes[row];
        size_t length = path->len;
        const uint8_t *value;
        uint32_t found;
        size_t n;

        REQUIRE(tree_lookup(t, path->data ? path->data : "", &found) == 0 && found == row);
        if (S_ISLNK(i->mode))
                REQUIRE(strlen(inode_symlink(table, i)) == i->size);
        (void) itable_xattr(table, i, "user.a", &value, &n);
        for (uint32_t k = 0; S_ISDIR(i->mode) && k < i->count; k++) {
                const struct dirent_row *d = &table->dirents[i->data + k];

                if (d->type != DIRENT_INODE)
                        continue;
                REQUIRE(buf_printf(path, "%s%.*s", length > 0 ? "/" : "", d->name_length, dirent_name(table, d)) == 0);
                walk_row(t, d->target, path);
                path->len = length;
                path->data[length] = '\0';
        }
}

static void check_sealed(const uint8_t *data, size_t size)
{
        _cleanup_(tree_close_ptr) struct tree *t = NULL;
        _cleanup_free_ uint64_t *sizes = NULL;
        _cleanup_close_ int fd = -1;
        _cleanup_buf_ struct buf path = { 0 };
        struct error e = ERROR_INIT;
        int r;

        if (size < sizeof(struct itable_file_header))
                return;
        fd = write_sealed(data, size);
        r = tree_open(fd, &manifest, &t, &e);
        if (r == 0) {
                sizes = calloc(t->layer_count + 1, sizeof(*sizes));
                REQUIRE(sizes);
                for (size_t i = 0; i < t->layer_count; i++)
                        sizes[i] = t->layers[i].content_size;
                r = itable_check(&t->itable, sizes, t->layer_count, &e);
        }
        if (r < 0)
                REQUIRE((r == -EBADMSG || r == -ESTALE) && is_told(r, &e));
        else
                walk_row(t, 0, &path);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        if (take_byte(&data, &size) & 1)
                check_damage(data, size);
        else
                check_sealed(data, size);
        return 0;
}
