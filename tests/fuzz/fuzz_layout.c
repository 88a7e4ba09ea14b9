/* SPDX-License-Identifier: Apache-2.0 */

/* OCI image layouts: index.json of any bytes, behind a line with the tag that is looked for, and one manifest of any
 * bytes that it may name, behind another line that ends the index. */

#include <sys/stat.h>

#include "fuzz.h"
#include "regfs/blob.h"
#include "regfs/manifest.h"

static char place[PLACE_MAX];

static void write_file(const char *name, const void *data, size_t n)
{
        _cleanup_free_ char *path = str_printf("%s/%s", place, name);
        _cleanup_close_ int fd = path ? open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) : -1;

        REQUIRE(fd >= 0 && pwrite_full(fd, data, n, 0) == 0);
}

static void make_directory(const char *name)
{
        _cleanup_free_ char *path = str_printf("%s/%s", place, name);

        REQUIRE(path && mkdir(path, 0700) == 0);
}

static void set_up(void)
{
        static const char version[] = "{\"imageLayoutVersion\":\"1.0.0\"}";

        make_place(place);
        make_directory("blobs");
        make_directory("blobs/sha256");
        write_file("oci-layout", version, strlen(version));
}

/* The manifest, where every "@" of the index means its digest: the fuzzer does not guess those. */
static void write_layout(const uint8_t *data, size_t size, char hex[2 * DIGEST_MAX_SIZE + 1])
{
        const uint8_t *end = size > 0 ? memchr(data, '\n', size) : NULL, *manifest = end ? end + 1 : data + size;
        size_t n = (size_t) (data + size - manifest), length = end ? (size_t) (end - data) : size;
        _cleanup_free_ char *name = NULL;
        _cleanup_buf_ struct buf index = { 0 };
        struct digest digest;

        REQUIRE(digest_of(DIGEST_SHA256, manifest, n, &digest) == 0);
        digest_hex(&digest, hex);
        name = str_printf("blobs/sha256/%s", hex);
        REQUIRE(name);
        write_file(name, manifest, n);
        for (size_t i = 0; i < length; i++)
                REQUIRE(data[i] == '@' ? buf_printf(&index, "sha256:%s", hex) == 0
                                       : buf_append(&index, &data[i], 1) == 0);
        write_file("index.json", index.data ? index.data : "", index.len);
}

static void check_source(struct source *s)
{
        _cleanup_document_ struct document document = { 0 };
        _cleanup_manifest_ struct manifest manifest = { 0 };
        struct descriptor *referrers = NULL;
        struct error e = ERROR_INIT;
        struct digest digest;
        size_t count = 0;
        int r = source_resolve(s, DEADLINE_NEVER, &digest, &e);

        if (r == 0)
                r = source_manifest(s, &digest, DEADLINE_NEVER, &document, &e);
        if (r == 0)
                REQUIRE(digest_equal(&document.digest, &digest));
        if (r == 0)
                r = manifest_parse(&document, s->name, &manifest, &e);
        REQUIRE(r == 0 || is_told(r, &e));
        if (r < 0)
                return;
        r = source_referrers(s, &digest, DEADLINE_NEVER, &referrers, &count, &e);
        REQUIRE(r == 0 || is_told(r, &e));
        descriptors_free(referrers, count);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        _cleanup_free_ char *tag = take_line(&data, &size), *blob = NULL;
        _cleanup_(source_free_ptr) struct source *source = NULL;
        char hex[2 * DIGEST_MAX_SIZE + 1];
        struct error e = ERROR_INIT;
        int r;

        if (!place[0])
                set_up();
        write_layout(data, size, hex);
        r = layout_source_new(place, tag[0] ? tag : NULL, &source, &e);
        if (r < 0)
                REQUIRE(is_told(r, &e));
        else
                check_source(source);
        blob = str_printf("%s/blobs/sha256/%s", place, hex);
        REQUIRE(blob && unlink(blob) == 0);
        return 0;
}
