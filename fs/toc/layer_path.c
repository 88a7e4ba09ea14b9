/* SPDX-License-Identifier: Apache-2.0 */

#include "layer_path.h"

const char *layer_path_show(const char *path, size_t length, char shown[LAYER_PATH_SHOWN_MAX])
{
        size_t n = 0, i = 0;

        if (length == 0)
                shown[n++] = '/';
        if (length > LAYER_PATH_SHOWN_MAX - 1) {
                i = length - (LAYER_PATH_SHOWN_MAX - 4);
                for (; n < 3; n++)
                        shown[n] = '.';
        }
        for (; i < length; i++) {
                unsigned char c = (unsigned char) path[i];

                shown[n++] = c < ' ' || c == 0x7f ? '?' : (char) c;
        }
        shown[n] = '\0';
        return shown;
}

static int refuse(const char *written, struct error *e, const char *what, unsigned bound)
{
        char shown[LAYER_PATH_SHOWN_MAX];

        return error_set(e, ERROR_BAD_DATA, EBADMSG, "%s: %s %u", layer_path_show(written, strlen(written), shown),
                         what, bound);
}

static void drop_last(struct layer_path *p)
{
        const char *slash = memrchr(p->text, '/', p->length);

        p->length = slash ? (size_t) (slash - p->text) : 0;
}

int layer_path_normalise(const char *written, struct layer_path *ret, struct error *e)
{
        size_t total = strlen(written), position = 0, n;
        const char *name;
        unsigned depth = 0;

        if (total > ITABLE_PATH_MAX)
                return refuse(written, e, "the path is longer than", ITABLE_PATH_MAX);
        ret->length = 0;
        while (layer_path_next(written, total, &position, &name, &n)) {
                if (n == 0 || (n == 1 && name[0] == '.'))
                        continue;
                if (n == 2 && name[0] == '.' && name[1] == '.') {
                        depth -= depth > 0;
                        drop_last(ret);
                        continue;
                }
                if (n > ITABLE_NAME_MAX)
                        return refuse(written, e, "a name in the path is longer than", ITABLE_NAME_MAX);
                if (++depth > ITABLE_DEPTH_MAX)
                        return refuse(written, e, "the path is deeper than", ITABLE_DEPTH_MAX);
                if (ret->length > 0)
                        ret->text[ret->length++] = '/';
                memcpy(ret->text + ret->length, name, n);
                ret->length += n;
        }
        ret->text[ret->length] = '\0';
        return 0;
}

enum layer_name layer_name_classify(const char *name, size_t length)
{
        const char *rest = name + WHITEOUT_PREFIX_LENGTH;
        size_t n = length - WHITEOUT_PREFIX_LENGTH;

        if (length < WHITEOUT_PREFIX_LENGTH || memcmp(name, WHITEOUT_PREFIX, WHITEOUT_PREFIX_LENGTH) != 0)
                return LAYER_NAME_PLAIN;
        if (n == 0 || (n == 1 && rest[0] == '.') || (n == 2 && rest[0] == '.' && rest[1] == '.'))
                return LAYER_NAME_BAD;
        if (n < WHITEOUT_PREFIX_LENGTH || memcmp(rest, WHITEOUT_PREFIX, WHITEOUT_PREFIX_LENGTH) != 0)
                return LAYER_NAME_WHITEOUT;
        if (n == strlen(".wh..opq") && memcmp(rest, ".wh..opq", n) == 0)
                return LAYER_NAME_OPAQUE;
        return LAYER_NAME_HIDDEN;
}
