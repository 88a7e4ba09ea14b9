/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "quote.h"

#include "regfs/text.h"

char *auth_quote(const char *s, size_t n, char *out)
{
        char *o = out;

        for (size_t i = 0; i < MIN(n, QUOTE_MAX); i++) {
                uint8_t byte = (uint8_t) s[i];

                if (byte >= 0x20 && byte < 0x7f && byte != '"' && byte != '\\') {
                        *o++ = s[i];
                        continue;
                }
                *o++ = '\\';
                *o++ = 'x';
                hex_encode(&byte, 1, o);
                o += 2;
        }
        strcpy(o, n > QUOTE_MAX ? "..." : "");
        return out;
}
