/* SPDX-License-Identifier: Apache-2.0 */

/* A store in which somebody has changed a layer's content and map, and what a tag resolved to. What is read has the
 * checksum that the map says, or is not there; what is written afterwards is read again. The input's first byte says
 * how much of the map's header is believable, and which words of it fit the content. */

#include <sys/stat.h>

#include "../../cache/store/store_internal.h"
#include "fuzz.h"

#define KIND "plain"
#define CONTENT_SIZE 10000
#define MAP_SIZE (content_stamp_offset(ELEMENTSOF(chunks), ELEMENTSOF(chunks)))

#define MAP_MAX 1000

/* Neighbours, a gap, zeros. */
static const struct chunk chunks[] = {
        { .content_offset = 0, .content_length = 100, .codec = CODEC_STORED },
        { .content_offset = 100, .content_length = 4000, .codec = CODEC_STORED },
        { .content_offset = 4100, .content_length = 500, .codec = CODEC_ZEROS },
        { .content_offset = 4600, .content_length = 1, .codec = CODEC_STORED },
        { .content_offset = 5000, .content_length = 5000, .codec = CODEC_STORED },
};
static const struct chunk_table table = { .chunks = chunks,
                                          .chunk_count = ELEMENTSOF(chunks),
                                          .content_size = CONTENT_SIZE };
static const struct digest layer = { .algorithm = DIGEST_SHA256, .bytes = { 4 } };
static char place[PLACE_MAX];
static struct store *store;

_Static_assert(ELEMENTSOF(chunks) * 20 + sizeof(struct content_map_header) <= MAP_MAX,
               "MAP_MAX is a map's size at least");

static void clean_up(void)
{
        store_close(store);
}

static void set_up(void)
{
        struct content *c = NULL;

        make_place(place);
        REQUIRE(atexit(clean_up) == 0);
        REQUIRE(store_open(place, &store, NULL) == 0);
        REQUIRE(store_ref_put(store, "docker.io/library/x:y", &layer, NULL) == 0);
        REQUIRE(content_open(store, &layer, KIND, &table, &c, NULL) == 0);
        content_close(c);
}

static void write_file(const char *path, const void *data, size_t n)
{
        _cleanup_close_ int fd = openat(store->fd, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

        REQUIRE(fd >= 0 && pwrite_full(fd, data, n, 0) == 0);
}

static const char *file_path(const char *file, char path[STORE_PATH_MAX])
{
        REQUIRE(store_layer_path(&layer, KIND, file, path, NULL) == 0);
        return path;
}

/* ---- content and map ---- */

/* CONTENT has CONTENT_SIZE bytes, MAP has MAP_SIZE. */
static void make_map(uint8_t choice, const uint8_t **data, size_t *size, const uint8_t *content, uint8_t *map)
{
        struct content_map_header header;
        size_t n = MIN(*size, MAP_SIZE);

        memset(map, 0, MAP_SIZE);
        memcpy(map, *data, n);
        *data += n;
        *size -= n;
        if (choice & 1) {
                XXH3_state_t *identity = XXH3_createState();

                REQUIRE(identity);
                XXH3_64bits_reset(identity);
                for (size_t i = 0; i < ELEMENTSOF(chunks); i++)
                        content_identity_add(identity, chunks[i].content_offset, chunks[i].content_length);
                content_map_header_init(&header, ELEMENTSOF(chunks), XXH3_64bits_digest(identity));
                memcpy(map, &header, sizeof(header));
                XXH3_freeState(identity);
        }
        for (size_t i = 0; i < ELEMENTSOF(chunks); i++) {
                uint64_t word = content_word(XXH3_64bits(content + chunks[i].content_offset, chunks[i].content_length));

                if (choice >> (i + 3) & 1)
                        memcpy(map + sizeof(header) + i * sizeof(word), &word, sizeof(word));
        }
}

static bool is_gap(size_t at)
{
        size_t i = chunk_find(&table, at);

        return i == ELEMENTSOF(chunks) || chunks[i].content_offset > at || chunks[i].codec == CODEC_ZEROS;
}

/* Whether chunk I is right in the files; all its bytes, or none, may be given out. */
static bool is_right(const uint8_t *map, const uint8_t *content, size_t i)
{
        uint64_t word;

        memcpy(&word, map + sizeof(struct content_map_header) + i * sizeof(word), sizeof(word));
        return chunks[i].codec == CODEC_ZEROS ||
               word == content_word(XXH3_64bits(content + chunks[i].content_offset, chunks[i].content_length));
}

static void check_read(struct content *c, const uint8_t *map, const uint8_t *content, size_t offset, size_t length)
{
        _cleanup_free_ uint8_t *out = exact_bytes(content, length);

        if (content_read(c, offset, length, out) < 0)
                return;
        for (size_t i = 0; i < length; i++)
                REQUIRE(out[i] == (is_gap(offset + i) ? 0 : content[offset + i]));
        for (size_t i = 0; i < ELEMENTSOF(chunks); i++)
                if (chunks[i].content_offset < offset + length &&
                    chunks[i].content_offset + chunks[i].content_length > offset)
                        REQUIRE(is_right(map, content, i));
}

static void check_content(uint8_t choice, const uint8_t *data, size_t size)
{
        uint8_t map[MAP_MAX], content[CONTENT_SIZE] = { 0 }, filled[5000], again[5000];
        _cleanup_(content_close_ptr) struct content *c = NULL;
        size_t map_size, content_size, offset, length;
        char path[STORE_PATH_MAX];

        offset = (take_byte(&data, &size) * 41u) % CONTENT_SIZE;
        length = (take_byte(&data, &size) * 41u) % (CONTENT_SIZE - offset) + 1;
        map_size = choice & 2 ? MAP_SIZE : take_byte(&data, &size);
        content_size = choice & 4 ? CONTENT_SIZE : take_byte(&data, &size) * 50u;
        if (size > MAP_SIZE)
                for (size_t i = 0; i < CONTENT_SIZE; i++)
                        content[i] = data[MAP_SIZE + i % (size - MAP_SIZE)];
        make_map(choice, &data, &size, content, map);
        write_file(file_path("map", path), map, MIN(map_size, MAP_SIZE));
        write_file(file_path("content", path), content, MIN(content_size, (size_t) CONTENT_SIZE));

        REQUIRE(content_open(store, &layer, KIND, &table, &c, NULL) == 0);
        check_read(c, map, content, offset, length);
        check_read(c, map, content, 0, CONTENT_SIZE);
        for (size_t i = 0; i < ELEMENTSOF(chunks); i++)
                if (content_has(c, i))
                        check_read(c, map, content, chunks[i].content_offset, chunks[i].content_length);

        memset(filled, choice, sizeof(filled));
        REQUIRE(content_write(c, 4, filled) == 0 && content_has(c, 4));
        REQUIRE(content_read(c, 5000, sizeof(again), again) == 0 && memcmp(again, filled, sizeof(again)) == 0);
}

/* ---- a tag ---- */

static void check_ref(const uint8_t *data, size_t size)
{
        struct digest digest;
        struct error e = ERROR_INIT;
        int64_t when;
        int r;

        write_file("refs/docker.io/library%2Fx/y", data, size);
        r = store_ref_get(store, "docker.io/library/x:y", &digest, &when, &e);
        if (r < 0)
                REQUIRE(r == -ENOENT && is_told(r, &e));
        else
                REQUIRE(digest_size(digest.algorithm) > 0 && when >= 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        uint8_t choice = take_byte(&data, &size);

        if (!store)
                set_up();
        if (choice == 0)
                check_ref(data, size);
        else
                check_content(choice, data, size);
        return 0;
}
