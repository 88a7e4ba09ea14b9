/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Paths as layers write them. A path is a name here, not a walk: "a/../b" is "b" whatever "a" may be, and symlinks are
 * not followed. */

#include <string.h>

#include "regfs/error.h"
#include "regfs/itable.h"

/* "a/b", without leading, trailing or double slashes; "" is the root. */
struct layer_path {
        size_t length;
        char text[ITABLE_PATH_MAX + 1];
};

enum layer_name {
        LAYER_NAME_PLAIN,
        LAYER_NAME_WHITEOUT, /* ".wh.NAME" */
        LAYER_NAME_OPAQUE,   /* ".wh..wh..opq" */
        LAYER_NAME_HIDDEN,   /* other ".wh..wh.*": what aufs kept for itself */
        LAYER_NAME_BAD,      /* a whiteout of nothing, of "." or of ".." */
};

#define WHITEOUT_PREFIX ".wh."
#define WHITEOUT_PREFIX_LENGTH (sizeof(WHITEOUT_PREFIX) - 1)

/* -EBADMSG with E for a path past ITABLE_PATH_MAX, a name past ITABLE_NAME_MAX or a depth past ITABLE_DEPTH_MAX. */
int layer_path_normalise(const char *written, struct layer_path *ret, struct error *e);

enum layer_name layer_name_classify(const char *name, size_t length);

/* The component of PATH that starts at *POSITION, which moves behind it; false at the end. */
static inline bool layer_path_next(const char *path, size_t length, size_t *position, const char **ret_name,
                                   size_t *ret_length)
{
        const char *name = path + *position, *slash;

        if (*position >= length)
                return false;
        slash = memchr(name, '/', length - *position);
        *ret_name = name;
        *ret_length = slash ? (size_t) (slash - name) : length - *position;
        *position += *ret_length + 1;
        return true;
}

/* A path in a message: its last bytes if it is long, without control characters. */
#define LAYER_PATH_SHOWN_MAX 256
const char *layer_path_show(const char *path, size_t length, char shown[LAYER_PATH_SHOWN_MAX]);
