/* SPDX-License-Identifier: Apache-2.0 */

#include "layers.h"

#include <stdio.h>
#include <string.h>

const char *layer_table_name(const char *kind)
{
        static const struct {
                const char *prefix, *name;
        } names[] = {
                { "estargz-", "eStargz" },
                { "zstdchunked-", "zstd:chunked" },
                { "soci-", "SOCI" },
                { "regfs-", "regfs" },
        };

        for (size_t k = 0; k < ELEMENTSOF(names); k++)
                if (str_after(kind, names[k].prefix))
                        return names[k].name;
        return "plain";
}

const char *layer_origin_text(const struct image_layer_info *l)
{
        switch (l->origin) {
        case INDEX_FROM_TABLE:
                return "table in the layer, bound by the image";
        case INDEX_FROM_MANIFEST:
                return "published index, bound by the image";
        case INDEX_FROM_REFERRER:
                return "published index, not bound by the image";
        case INDEX_FROM_USER:
                return "published index, named by --index";
        case INDEX_FROM_LAYER:
                break;
        }
        return l->known ? "the layer's own bytes, indexed here" : "the layer's own bytes, to be read whole first";
}

const char *layer_origin_word(enum index_origin origin)
{
        switch (origin) {
        case INDEX_FROM_TABLE:
                return "table";
        case INDEX_FROM_MANIFEST:
                return "manifest";
        case INDEX_FROM_REFERRER:
                return "referrer";
        case INDEX_FROM_USER:
                return "user";
        case INDEX_FROM_LAYER:
                break;
        }
        return "layer";
}

const char *layer_compression(const char *media_type)
{
        return str_ends_with(media_type, "gzip") ? "gzip" : str_ends_with(media_type, "zstd") ? "zstd" : "tar";
}

void print_image(const struct image *i)
{
        printf("reference  %s\ndigest     %s\nplatform   %s\n", image_reference(i), image_digest(i), image_platform(i));
}

void put_image_names(struct json_text *j, const struct image *i)
{
        json_text_string(j, "reference", image_reference(i));
        json_text_string(j, "digest", image_digest(i));
        json_text_string(j, "platform", image_platform(i));
}
