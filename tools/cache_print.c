/* SPDX-License-Identifier: Apache-2.0 */

#include "cache_print.h"

#include <stdio.h>
#include <time.h>

#include "json_text.h"
#include "layers.h"

/* ---- sums ---- */

struct sum {
        const char *name, *text; /* of the JSON member, and for people */
        uint64_t count;
        struct inventory_size size;
};

enum {
        SUM_TOC = INVENTORY_TOC,
        SUM_CONTENT = INVENTORY_CONTENT,
        SUM_MAP = INVENTORY_MAP,
        SUM_IMAGES,
        SUM_BLOBS,
        SUM_REFS,
        SUM_DRAFTS,
        SUM_LEFTOVERS,
        SUM_ALL,
        SUMS,
};

static void add(struct sum *sum, const struct inventory_size *size)
{
        sum->count++;
        sum->size.apparent += size->apparent;
        sum->size.disk += size->disk;
}

static void add_item(struct sum sums[SUMS], const struct inventory_item *item)
{
        static const int places[INVENTORY_KINDS] = {
                [INVENTORY_BLOB] = SUM_BLOBS, [INVENTORY_REF] = SUM_REFS, [INVENTORY_IMAGE] = SUM_IMAGES
        };

        if (item->kind == INVENTORY_FOREIGN)
                return;
        add(&sums[SUM_ALL], &item->size);
        if (item->kind == INVENTORY_LAYER) {
                for (int k = 0; k < INVENTORY_PARTS; k++)
                        if (item->has[k])
                                add(&sums[k], &item->parts[k]);
        } else if (item->kind == INVENTORY_DRAFT) {
                add(&sums[item->in_use ? SUM_DRAFTS : SUM_LEFTOVERS], &item->size);
        } else {
                add(&sums[places[item->kind]], &item->size);
        }
}

static void add_up(const struct cache_view *v, struct sum sums[SUMS])
{
        static const struct sum names[SUMS] = {
                [SUM_TOC] = { .name = "tocs", .text = "tables of contents" },
                [SUM_CONTENT] = { .name = "content", .text = "content of layers" },
                [SUM_MAP] = { .name = "maps", .text = "maps of content" },
                [SUM_IMAGES] = { .name = "images", .text = "image indexes" },
                [SUM_BLOBS] = { .name = "blobs", .text = "manifests, configs" },
                [SUM_REFS] = { .name = "refs", .text = "tags" },
                [SUM_DRAFTS] = { .name = "drafts", .text = "being written" },
                [SUM_LEFTOVERS] = { .name = "leftovers", .text = "left by dead processes" },
                [SUM_ALL] = { .name = "all", .text = "together" },
        };

        memcpy(sums, names, sizeof(names));
        for (size_t k = 0; k < v->inventory.count; k++)
                add_item(sums, &v->inventory.items[k]);
}

struct counts {
        size_t images, layers, shared, unreferenced, foreign;
};

static struct counts count(const struct cache_view *v)
{
        struct counts c = { .images = v->image_count };

        for (size_t k = 0; k < v->layer_count; k++) {
                if (!v->layers[k].item)
                        continue;
                c.layers++;
                c.shared += v->layers[k].images > 1;
                c.unreferenced += v->layers[k].images == 0;
        }
        for (size_t k = 0; k < v->inventory.count; k++)
                c.foreign += v->inventory.items[k].kind == INVENTORY_FOREIGN;
        return c;
}

static void put_size(struct json_text *j, const struct inventory_size *size)
{
        json_text_number(j, "size", size->apparent);
        json_text_number(j, "diskSize", size->disk);
}

static void put_foreign(struct json_text *j, const struct cache_view *v)
{
        json_text_open(j, "foreign", '[');
        for (size_t k = 0; k < v->inventory.count; k++)
                if (v->inventory.items[k].kind == INVENTORY_FOREIGN)
                        json_text_string(j, NULL, v->inventory.items[k].path);
        json_text_close(j, ']');
}

static void print_foreign(const struct cache_view *v)
{
        char shown[512];

        for (size_t k = 0; k < v->inventory.count; k++) {
                if (v->inventory.items[k].kind != INVENTORY_FOREIGN)
                        continue;
                str_escape(v->inventory.items[k].path, shown, sizeof(shown));
                printf("%s: nothing of regfs's, left alone\n", shown);
        }
}

static int finish(void)
{
        return fflush(stdout) == 0 ? 0 : -errno;
}

/* ---- info ---- */

static int print_info_json(struct store *s, const struct store_place *place, const struct cache_view *v,
                           const struct sum sums[SUMS])
{
        struct counts c = count(v);
        struct json_text j = { 0 };

        json_text_open(&j, NULL, '{');
        json_text_string(&j, "directory", store_path(s));
        json_text_string(&j, "filesystem", place->filesystem);
        json_text_bool(&j, "readOnly", place->read_only);
        json_text_bool(&j, "locks", place->locks);
        json_text_number(&j, "filesystemSize", place->size);
        json_text_number(&j, "available", place->available);
        json_text_number(&j, "reserve", place->reserve);
        json_text_number(&j, "limit", STORE_LIMIT_DEFAULT);
        put_size(&j, &sums[SUM_ALL].size);
        json_text_number(&j, "images", c.images);
        json_text_number(&j, "layers", c.layers);
        json_text_number(&j, "sharedLayers", c.shared);
        json_text_number(&j, "unreferencedLayers", c.unreferenced);
        json_text_open(&j, "kinds", '{');
        for (size_t k = 0; k < SUM_ALL; k++) {
                json_text_open(&j, sums[k].name, '{');
                json_text_number(&j, "count", sums[k].count);
                put_size(&j, &sums[k].size);
                json_text_close(&j, '}');
        }
        json_text_close(&j, '}');
        put_foreign(&j, v);
        json_text_close(&j, '}');
        return json_text_print(&j);
}

int print_store_info(struct store *s, const struct store_place *place, const struct cache_view *v, bool json)
{
        char available[16], reserve[16], limit[16], size[16], disk[16];
        struct counts c = count(v);
        struct sum sums[SUMS];

        add_up(v, sums);
        if (json)
                return print_info_json(s, place, v, sums);
        printf("store       %s%s\n", store_path(s), place->read_only ? " (read-only)" : "");
        printf("filesystem  %s, %s free, of which the last %s are not used\n", place->filesystem,
               format_bytes(place->available, available, sizeof(available)),
               format_bytes(place->reserve, reserve, sizeof(reserve)));
        printf("limit       %s, unless --cache-size says otherwise\n",
               format_bytes(STORE_LIMIT_DEFAULT, limit, sizeof(limit)));
        printf("locks       %s\n", place->locks       ? "work"
                                   : place->read_only ? "are not needed"
                                                      : "don't work here: processes may fetch the same bytes twice");
        printf("images      %zu\n", c.images);
        printf("layers      %zu: %zu shared by several images, %zu of no image\n", c.layers, c.shared, c.unreferenced);
        printf("\n%-23s %7s %10s %10s\n", "", "FILES", "LENGTH", "ON DISK");
        for (size_t k = 0; k < SUMS; k++)
                printf("%-23s %7ju %10s %10s\n", sums[k].text, (uintmax_t) sums[k].count,
                       format_bytes(sums[k].size.apparent, size, sizeof(size)),
                       format_bytes(sums[k].size.disk, disk, sizeof(disk)));
        if (c.foreign > 0)
                putchar('\n');
        print_foreign(v);
        return finish();
}

/* ---- list ---- */

const char *cache_image_name(const struct cache_image *i)
{
        static char text[DIGEST_STRING_MAX];

        if (i->reference_count > 0)
                return i->references[0];
        return i->usable ? digest_format(&i->manifest, text) : i->item->path;
}

static void put_layer(struct json_text *j, const struct cache_layer *l)
{
        static const struct inventory_size none;
        char text[DIGEST_STRING_MAX];

        json_text_open(j, NULL, '{');
        json_text_string(j, "digest", digest_format(&l->digest, text));
        json_text_string(j, "kind", l->kind);
        json_text_bool(j, "stored", l->item != NULL);
        json_text_bool(j, "usable", l->usable);
        json_text_number(j, "images", l->images);
        json_text_number(j, "blobSize", l->blob_size);
        json_text_number(j, "entries", l->entries);
        json_text_number(j, "chunks", l->chunks);
        json_text_number(j, "chunksPresent", l->chunks_present);
        json_text_number(j, "contentSize", l->bytes);
        json_text_number(j, "contentPresent", l->bytes_present);
        json_text_number(j, "tocSize", l->item ? l->item->parts[INVENTORY_TOC].apparent : 0);
        put_size(j, l->item ? &l->item->size : &none);
        json_text_number(j, "lastUsed", (uint64_t) MAX(l->used, (int64_t) 0));
        json_text_bool(j, "inUse", l->in_use);
        json_text_close(j, '}');
}

static void put_image(struct json_text *j, const struct cache_view *v, const struct cache_image *i)
{
        struct inventory_size all, own;
        char text[DIGEST_STRING_MAX];

        cache_image_size(v, i, &all, &own);
        json_text_open(j, NULL, '{');
        json_text_string(j, "manifest", i->usable ? digest_format(&i->manifest, text) : NULL);
        json_text_string(j, "key", str_after(i->item->path, "images/"));
        json_text_string(j, "platform", i->platform);
        json_text_open(j, "references", '[');
        for (size_t k = 0; k < i->reference_count; k++)
                json_text_string(j, NULL, i->references[k]);
        json_text_close(j, ']');
        json_text_open(j, "layers", '[');
        for (size_t k = 0; k < i->layer_count; k++) {
                const struct cache_layer *l = &v->layers[i->layers[k]];

                json_text_open(j, NULL, '{');
                json_text_string(j, "digest", digest_format(&l->digest, text));
                json_text_string(j, "kind", l->kind);
                json_text_bool(j, "shared", l->images > 1);
                json_text_close(j, '}');
        }
        json_text_close(j, ']');
        put_size(j, &all);
        json_text_number(j, "ownSize", own.apparent);
        json_text_number(j, "ownDiskSize", own.disk);
        json_text_bool(j, "usable", i->usable);
        json_text_number(j, "lastUsed", (uint64_t) MAX(i->used, (int64_t) 0));
        json_text_bool(j, "inUse", i->in_use);
        json_text_close(j, '}');
}

static int print_list_json(const struct cache_view *v, const struct sum sums[SUMS])
{
        struct json_text j = { 0 };

        json_text_open(&j, NULL, '{');
        json_text_open(&j, "images", '[');
        for (size_t k = 0; k < v->image_count; k++)
                put_image(&j, v, &v->images[k]);
        json_text_close(&j, ']');
        json_text_open(&j, "layers", '[');
        for (size_t k = 0; k < v->layer_count; k++)
                put_layer(&j, &v->layers[k]);
        json_text_close(&j, ']');
        put_size(&j, &sums[SUM_ALL].size);
        put_foreign(&j, v);
        json_text_close(&j, '}');
        return json_text_print(&j);
}

/* "2026-03-01 12:30" */
static const char *format_time(int64_t when, char *out, size_t size)
{
        time_t t = (time_t) when;
        struct tm tm;

        if (!localtime_r(&t, &tm) || strftime(out, size, "%Y-%m-%d %H:%M", &tm) == 0)
                snprintf(out, size, "?");
        return out;
}

static void print_stored_layer(const struct cache_layer *l)
{
        char digest[DIGEST_STRING_MAX], present[16], bytes[16], disk[16], content[40];

        if (!l->item)
                snprintf(content, sizeof(content), "not in the store");
        else if (!l->item->has[INVENTORY_TOC])
                snprintf(content, sizeof(content), "content alone");
        else if (!l->usable)
                snprintf(content, sizeof(content), "can't be used");
        else
                snprintf(content, sizeof(content), "%s of %s", format_bytes(l->bytes_present, present, sizeof(present)),
                         format_bytes(l->bytes, bytes, sizeof(bytes)));
        printf("  %s  %-12s  %9s  %-20s", digest_format(&l->digest, digest), layer_table_name(l->kind),
               format_bytes(l->item ? l->item->size.disk : 0, disk, sizeof(disk)), content);
        if (l->images > 1)
                printf("  shared by %zu images", l->images);
        puts(l->in_use ? "  in use" : "");
}

static void print_stored_image(const struct cache_view *v, const struct cache_image *i)
{
        char digest[DIGEST_STRING_MAX], all_text[16], own_text[16], when[32];
        struct inventory_size all, own;

        cache_image_size(v, i, &all, &own);
        if (i->usable)
                printf("%s", i->reference_count > 0 ? i->references[0] : "no reference");
        else
                printf("%s: can't be used", i->item->path);
        for (size_t k = 1; k < i->reference_count; k++)
                printf(", %s", i->references[k]);
        putchar('\n');
        if (i->usable)
                printf("  %s  %s\n", digest_format(&i->manifest, digest), i->platform ? i->platform : "");
        printf("  %s on disk, %s without what others share; used %s%s\n",
               format_bytes(all.disk, all_text, sizeof(all_text)), format_bytes(own.disk, own_text, sizeof(own_text)),
               format_time(i->used, when, sizeof(when)), i->in_use ? "; in use" : "");
        for (size_t k = 0; k < i->layer_count; k++)
                print_stored_layer(&v->layers[i->layers[k]]);
        putchar('\n');
}

int print_store_list(const struct cache_view *v, bool json)
{
        struct counts c = count(v);
        struct sum sums[SUMS];
        char disk[16];

        add_up(v, sums);
        if (json)
                return print_list_json(v, sums);
        for (size_t k = 0; k < v->image_count; k++)
                print_stored_image(v, &v->images[k]);
        if (c.unreferenced > 0) {
                puts("layers of no image");
                for (size_t k = 0; k < v->layer_count; k++)
                        if (v->layers[k].images == 0)
                                print_stored_layer(&v->layers[k]);
                putchar('\n');
        }
        printf("%zu image%s, %zu layer%s (%zu shared): %s on disk\n", c.images, c.images == 1 ? "" : "s", c.layers,
               c.layers == 1 ? "" : "s", c.shared, format_bytes(sums[SUM_ALL].size.disk, disk, sizeof(disk)));
        print_foreign(v);
        return finish();
}
