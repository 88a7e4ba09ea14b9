/* SPDX-License-Identifier: Apache-2.0 */

/* Docker archives of any bytes. Header blocks get the checksum that the fuzzer cannot guess. */

#include "fuzz.h"
#include "regfs/blob.h"
#include "regfs/manifest.h"

static void check_source(struct source *s)
{
        _cleanup_document_ struct document document = { 0 };
        _cleanup_manifest_ struct manifest manifest = { 0 };
        struct error e = ERROR_INIT;
        struct digest digest;

        REQUIRE(source_resolve(s, DEADLINE_NEVER, &digest, NULL) == 0);
        REQUIRE(source_manifest(s, &digest, DEADLINE_NEVER, &document, NULL) == 0);
        if (manifest_parse(&document, s->name, &manifest, &e) < 0)
                return;
        for (size_t i = 0; i < manifest.layer_count; i++) {
                _cleanup_(blob_free_ptr) struct blob *blob = NULL;
                int r = source_blob(s, &manifest.layers[i], &blob, &e);

                REQUIRE(r == 0 ? blob->size == manifest.layers[i].size : is_told(r, &e));
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        _cleanup_free_ uint8_t *copy = exact_bytes(data, size);
        _cleanup_(source_free_ptr) struct source *source = NULL;
        _cleanup_close_ int fd = -1;
        struct error e = ERROR_INIT;
        char path[MEMORY_PATH_MAX];
        int r;

        seal_tar_headers(copy, size);
        fd = memory_file(copy, size);
        r = archive_source_new(memory_path(fd, path), NULL, &source, &e);
        if (r < 0)
                REQUIRE(is_told(r, &e));
        else
                check_source(source);
        return 0;
}
