/* SPDX-License-Identifier: Apache-2.0 */

/* Ztocs of any bytes: what is accepted must make a sound tree and sound chunks, the same ones each time. The input's
 * first four bytes are the size of the layer's blob. */

#include "fuzz.h"
#include "regfs/soci.h"

static void check_tree(struct layer_tree *tree, uint64_t content_size)
{
        _cleanup_(itable_builder_free_ptr) struct itable_builder *builder = NULL;
        struct itable table;

        REQUIRE(itable_builder_new(&builder) == 0);
        REQUIRE(itable_builder_from_layer(builder, tree, NULL) == 0);
        itable_builder_view(builder, &table);
        REQUIRE(itable_check(&table, &content_size, 1, NULL) == 0);
}

/* Every window can be had: a chunk without input fails for the want of it only. */
static int no_input(_unused_ void *context, _unused_ uint64_t offset, const uint8_t **ret, size_t *ret_length,
                    _unused_ struct error *e)
{
        *ret = NULL;
        *ret_length = 0;
        return 0;
}

static void check_chunks(const struct chunk_table *t)
{
        static uint8_t out[CHUNK_CONTENT_MAX];

        REQUIRE(chunk_table_check(t, NULL) == 0);
        for (size_t i = 0; i < t->chunk_count; i++) {
                struct error e = ERROR_INIT;

                REQUIRE(t->chunks[i].flags == 0);
                REQUIRE(codec_decode(t, &t->chunks[i], no_input, NULL, out, &e) == -EBADMSG);
                REQUIRE(!strstr(e.message, "checkpoint"));
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        _cleanup_(ztoc_free_ptr) struct ztoc *z = NULL, *again = NULL;
        struct error e = ERROR_INIT;
        struct chunk_table a, b;
        uint32_t blob_size;
        int r;

        if (size < sizeof(blob_size))
                return 0;
        memcpy(&blob_size, data, sizeof(blob_size));
        data += sizeof(blob_size);
        size -= sizeof(blob_size);
        r = ztoc_read(data, size, blob_size, &z, &e);
        if (r < 0) {
                REQUIRE(!z && r == -EBADMSG && e.message[0]);
                return 0;
        }
        REQUIRE(ztoc_read(data, size, blob_size, &again, NULL) == 0);
        ztoc_chunks(z, &a);
        ztoc_chunks(again, &b);
        REQUIRE(a.chunk_count == b.chunk_count && a.content_size == b.content_size);
        REQUIRE(a.chunk_count == 0 || memcmp(a.chunks, b.chunks, a.chunk_count * sizeof(*a.chunks)) == 0);
        check_chunks(&a);
        check_tree(ztoc_tree(z), a.content_size);
        return 0;
}
