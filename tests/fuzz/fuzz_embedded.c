/* SPDX-License-Identifier: Apache-2.0 */

/* The JSON of embedded tables of contents on any bytes: what is accepted must make a sound tree and sound chunks,
 * and the same ones whether it comes whole or in pieces. The input's first byte chooses the codec and how the rest
 * is cut. */

#include "fuzz.h"
#include "../../fs/toc/embedded_internal.h"

#define DATA_SIZE (1 * MIB)

static int add(void *context, const struct toc_entry *entry, struct error *e)
{
        return toc_rows_add(context, entry, e);
}

/* As the rows are kept that do not stay in memory. */
static void keep(struct toc_rows *rows, struct buf *kept)
{
        const struct chunk *chunks;
        size_t n = toc_rows_complete(rows, &chunks);

        if (n > 0)
                REQUIRE(buf_append(kept, chunks, n * sizeof(*chunks)) == 0);
        toc_rows_drop(rows);
}

static int convert(struct toc_rows *rows, const uint8_t *data, size_t size, size_t step, struct buf *kept,
                   struct error *e)
{
        _cleanup_(toc_parser_free_ptr) struct toc_parser *parser = NULL;
        int r = 0;

        REQUIRE(toc_parser_new(add, rows, &parser) == 0);
        for (size_t done = 0; r == 0 && done < size; done += step) {
                r = toc_parser_feed(parser, data + done, MIN(step, size - done), e);
                if (r == 0 && kept)
                        keep(rows, kept);
        }
        if (r == 0)
                r = toc_parser_finish(parser, e);
        if (r == 0)
                r = toc_rows_finish(rows, e);
        if (r == 0 && kept)
                keep(rows, kept);
        return r;
}

/* KEPT: the chunks, where ROWS has none any more. */
static void check_rows(const struct toc_rows *rows, const struct buf *kept, struct chunk_table *ret_chunks)
{
        _cleanup_(itable_builder_free_ptr) struct itable_builder *builder = NULL;
        struct itable table;

        toc_rows_view(rows, DATA_SIZE, ret_chunks);
        if (kept && kept->len > 0) {
                ret_chunks->chunks = (const void *) kept->data;
                ret_chunks->chunk_count = kept->len / sizeof(struct chunk);
        }
        REQUIRE(chunk_table_check(ret_chunks, NULL) == 0);
        REQUIRE(itable_builder_new(&builder) == 0);
        REQUIRE(itable_builder_from_layer(builder, toc_rows_tree(rows), NULL) == 0);
        itable_builder_view(builder, &table);
        REQUIRE(itable_check(&table, &ret_chunks->content_size, 1, NULL) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        _cleanup_(toc_rows_free_ptr) struct toc_rows *whole = NULL, *cut = NULL;
        struct error e = ERROR_INIT, other = ERROR_INIT;
        _cleanup_buf_ struct buf kept = { 0 };
        struct chunk_table a, b;
        enum codec codec;
        int r;

        if (size == 0)
                return 0;
        codec = data[0] & 1 ? CODEC_GZIP : CODEC_ZSTD;
        REQUIRE(toc_rows_new(codec, DATA_SIZE, &whole) == 0);
        REQUIRE(toc_rows_new(codec, DATA_SIZE, &cut) == 0);
        r = convert(whole, data + 1, size - 1, size, NULL, &e);
        REQUIRE((convert(cut, data + 1, size - 1, (data[0] >> 1) + 1u, &kept, &other) == 0) == (r == 0));
        if (r < 0) {
                REQUIRE(r == -EBADMSG && e.message[0] && other.message[0]);
                return 0;
        }
        check_rows(whole, NULL, &a);
        check_rows(cut, &kept, &b);
        REQUIRE(a.chunk_count == b.chunk_count && a.content_size == b.content_size);
        REQUIRE(a.chunk_count == 0 || memcmp(a.chunks, b.chunks, a.chunk_count * sizeof(*a.chunks)) == 0);
        return 0;
}
