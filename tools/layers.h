/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* How commands tell of an image and its layers. */

#include "json_text.h"
#include "regfs/image.h"

/* "eStargz", "SOCI", "regfs" …: which sort of table a kind is. */
const char *layer_table_name(const char *kind);

/* Where the layer's table comes from and who vouches for it, in words. */
const char *layer_origin_text(const struct image_layer_info *l);

/* … and in one word, for machines: "layer", "table", "manifest", "referrer", "user". */
const char *layer_origin_word(enum index_origin origin);

/* "gzip", "zstd", "tar": what a media type says of the compression. */
const char *layer_compression(const char *media_type);

/* Reference, digest and platform: three lines, or the first members of a JSON object. */
void print_image(const struct image *i);
void put_image_names(struct json_text *j, const struct image *i);
