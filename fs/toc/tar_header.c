/* SPDX-License-Identifier: Apache-2.0 */

/* Header blocks of ustar, star, GNU and v7 tars (POSIX pax(1), "ustar Interchange Format"; GNU tar manual, "Basic Tar
 * Format"; libarchive tar(5)). */

#include <inttypes.h>
#include <string.h>

#include "tar_internal.h"

static bool is_blank(uint8_t c)
{
        return c == ' ' || c == '\0';
}

static int number_octal(const uint8_t *field, size_t n, int64_t *ret)
{
        uint64_t value = 0;
        size_t i = 0;

        while (i < n && is_blank(field[i]))
                i++;
        for (; i < n && field[i] >= '0' && field[i] <= '7'; i++) {
                if (value > (uint64_t) INT64_MAX >> 3)
                        return -ERANGE;
                value = value << 3 | (uint64_t) (field[i] - '0');
        }
        while (i < n && field[i] == ' ')
                i++;
        if (i < n && field[i] != '\0')
                return -EINVAL;
        *ret = (int64_t) value;
        return 0;
}

/* Two's complement, big-endian; bit 7 of the first byte marks the encoding and bit 6 is the sign. */
static int number_base256(const uint8_t *field, size_t n, int64_t *ret)
{
        uint8_t invert = field[0] & 0x40 ? 0xff : 0;
        uint64_t value = (uint64_t) ((field[0] ^ invert) & 0x3f);

        for (size_t i = 1; i < n; i++) {
                if (value >> 55)
                        return -ERANGE;
                value = value << 8 | (uint64_t) (field[i] ^ invert);
        }
        *ret = invert ? -(int64_t) value - 1 : (int64_t) value;
        return 0;
}

int tar_number(const uint8_t *field, size_t n, int64_t *ret)
{
        return field[0] & 0x80 ? number_base256(field, n, ret) : number_octal(field, n, ret);
}

bool tar_header_is_valid(const struct tar_header *h)
{
        const uint8_t *bytes = (const uint8_t *) h;
        int64_t given;
        uint32_t sum = 0, high = 0;

        if (h->checksum[0] & 0x80 || number_octal(h->checksum, sizeof(h->checksum), &given) < 0)
                return false;
        for (size_t i = 0; i < TAR_BLOCK; i++)
                sum += bytes[i];
        for (size_t i = 0; i < sizeof(h->checksum); i++)
                sum += (uint32_t) ' ' - h->checksum[i];
        if (given == (int64_t) sum)
                return true;

        /* As signed char, every byte from 0x80 counts 256 less. */
        for (size_t i = 0; i < TAR_BLOCK; i++)
                high += bytes[i] >> 7;
        for (size_t i = 0; i < sizeof(h->checksum); i++)
                high -= h->checksum[i] >> 7;
        return high > 0 && given == (int64_t) sum - 256 * (int64_t) high;
}

enum tar_format tar_header_format(const struct tar_header *h)
{
        if (memcmp(h->magic, "ustar", 5) != 0)
                return TAR_V7;
        if (h->magic[5] == ' ' && h->version[0] == ' ')
                return TAR_GNU;
        return memcmp(h->star.trailer, "tar", 4) == 0 ? TAR_STAR : TAR_USTAR;
}

static bool is_time(const uint8_t *field, size_t n)
{
        int64_t value;

        return field[0] == '\0' || tar_number(field, n, &value) == 0;
}

/* GNU headers have times where ustar has its prefix. Go before 1.8 wrote a prefix there all the same, with GNU's magic,
 * when a number needed base-256; images of that age have such layers. It is one when the times make no sense and it is
 * ASCII. */
static size_t gnu_prefix_length(const struct tar_header *h)
{
        const uint8_t *prefix = (const uint8_t *) h + offsetof(struct tar_header, ustar.prefix);
        size_t n;

        if (is_time(h->gnu.atime, sizeof(h->gnu.atime)) && is_time(h->gnu.ctime, sizeof(h->gnu.ctime)))
                return 0;
        n = strnlen((const char *) prefix, sizeof(h->ustar.prefix));
        for (size_t i = 0; i < n; i++)
                if (prefix[i] >= 0x80)
                        return 0;
        return n;
}

static size_t prefix_length(const struct tar_header *h, enum tar_format format)
{
        switch (format) {
        case TAR_USTAR:
                return strnlen((const char *) h->ustar.prefix, sizeof(h->ustar.prefix));
        case TAR_STAR:
                return strnlen((const char *) h->star.prefix, sizeof(h->star.prefix));
        case TAR_GNU:
                return gnu_prefix_length(h);
        case TAR_V7:
                break;
        }
        return 0;
}

void tar_header_name(const struct tar_header *h, enum tar_format format, char ret[TAR_NAME_SIZE])
{
        size_t prefix = prefix_length(h, format);
        size_t name = strnlen((const char *) h->name, sizeof(h->name));

        if (prefix > 0) {
                memcpy(ret, h->ustar.prefix, prefix);
                ret[prefix++] = '/';
        }
        memcpy(ret + prefix, h->name, name);
        ret[prefix + name] = '\0';
}

void tar_header_link(const struct tar_header *h, char ret[TAR_LINK_SIZE])
{
        size_t n = strnlen((const char *) h->link, sizeof(h->link));

        memcpy(ret, h->link, n);
        ret[n] = '\0';
}

int tar_header_unsigned(const uint8_t *field, size_t n, const char *name, uint64_t max, uint64_t *ret, struct error *e)
{
        int64_t value;

        if (tar_number(field, n, &value) < 0)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "its %s is not a number in the header", name);
        if (value < 0 || (uint64_t) value > max)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "its %s %" PRId64 " is out of range", name, value);
        *ret = (uint64_t) value;
        return 0;
}
