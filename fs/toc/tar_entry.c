/* SPDX-License-Identifier: Apache-2.0 */

/* What an entry is: its header block, and the pax records and GNU long names that take the place of the block's fields.
 * A field that is overridden is not looked at: writers leave there what did not fit. */

#include <inttypes.h>
#include <string.h>

#include "tar_internal.h"

/* What Linux has room for in a device number. */
#define MAJOR_MAX 0xfffu
#define MINOR_MAX 0xfffffu

static int read_number(const struct pax_records *pax, enum pax_key key, uint64_t pax_value, const uint8_t *field,
                       size_t n, const char *name, uint64_t max, uint64_t *ret, struct error *e)
{
        if (!(pax->set & key))
                return tar_header_unsigned(field, n, name, max, ret, e);
        if (pax_value > max)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "its %s %" PRIu64 " is out of range", name, pax_value);
        *ret = pax_value;
        return 0;
}

#define READ_NUMBER(pax, key, member, h, max, ret, e) \
        read_number((pax), (key), (pax)->member, (h)->member, sizeof((h)->member), #member, (max), (ret), (e))

static int read_attributes(const struct tar_header *h, const struct pax_records *pax, struct layer_entry *entry,
                           struct error *e)
{
        uint64_t mode, uid, gid;
        int r;

        r = tar_header_unsigned(h->mode, sizeof(h->mode), "mode", INT64_MAX, &mode, e);
        if (r < 0)
                return r;
        r = READ_NUMBER(pax, PAX_UID, uid, h, UINT32_MAX, &uid, e);
        if (r < 0)
                return r;
        r = READ_NUMBER(pax, PAX_GID, gid, h, UINT32_MAX, &gid, e);
        if (r < 0)
                return r;
        entry->mode |= (uint32_t) mode & 07777;
        entry->uid = (uint32_t) uid;
        entry->gid = (uint32_t) gid;
        if (pax->set & PAX_MTIME) {
                entry->mtime = pax->mtime;
                entry->mtime_nsec = pax->mtime_nsec;
                return 0;
        }
        if (tar_number(h->mtime, sizeof(h->mtime), &entry->mtime) < 0)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "its mtime is not a number, or out of range");
        return 0;
}

/* v7 headers have no device numbers. */
static int read_device(const struct tar_header *h, const struct pax_records *pax, struct layer_entry *entry,
                       struct error *e)
{
        static const struct tar_header none;
        const struct tar_header *from = tar_header_format(h) == TAR_V7 ? &none : h;
        uint64_t major, minor;
        int r;

        r = READ_NUMBER(pax, PAX_MAJOR, major, from, MAJOR_MAX, &major, e);
        if (r < 0)
                return r;
        r = READ_NUMBER(pax, PAX_MINOR, minor, from, MINOR_MAX, &minor, e);
        if (r < 0)
                return r;
        entry->major = (uint32_t) major;
        entry->minor = (uint32_t) minor;
        return 0;
}

static int read_link(const struct tar_header *h, const struct pax_records *pax, const char *long_link,
                     struct tar_names *names, struct layer_entry *entry, struct error *e)
{
        if (long_link && *long_link) {
                entry->link = long_link;
        } else if (pax->set & PAX_LINK) {
                entry->link = pax->link;
        } else {
                tar_header_link(h, names->link);
                entry->link = names->link;
        }
        if (*entry->link == '\0')
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "a link without a target");
        return 0;
}

/* Regular, also for want of a known type, and not sparse in the old way. */
static bool is_plain_file(const struct tar_header *h)
{
        return (h->type < '1' || h->type > '6') && h->type != 'D' && h->type != 'S';
}

static int find_sparse(const struct tar_header *h, const struct pax_records *pax, enum tar_sparse *ret, struct error *e)
{
        const unsigned version = PAX_SPARSE_VERSION_MAJOR | PAX_SPARSE_VERSION_MINOR;

        if (h->type == 'S') {
                /* star has the type too, with another layout. */
                if (tar_header_format(h) != TAR_GNU)
                        return error_set(e, ERROR_BAD_DATA, EBADMSG, "a sparse entry that is not in GNU format");
                *ret = TAR_SPARSE_GNU;
        } else if (!is_plain_file(h)) {
                *ret = TAR_SPARSE_NONE;
        } else if ((pax->set & version) == 0) {
                bool map = pax->set & (PAX_SPARSE_MAP | PAX_SPARSE_SIZE | PAX_SPARSE_BLOCKS);

                *ret = map ? TAR_SPARSE_RECORDS : TAR_SPARSE_NONE;
        } else if ((pax->set & version) != version) {
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "half a GNU.sparse version");
        } else if (pax->sparse_major == 0 && pax->sparse_minor <= 1) {
                *ret = TAR_SPARSE_RECORDS;
        } else if (pax->sparse_major == 1 && pax->sparse_minor == 0) {
                *ret = TAR_SPARSE_DATA;
        } else {
                return error_set(e, ERROR_BAD_DATA, EBADMSG,
                                 "GNU.sparse version %" PRIu64 ".%" PRIu64 ", which is unknown", pax->sparse_major,
                                 pax->sparse_minor);
        }
        return 0;
}

/* GNU tar gives a sparse file a made-up path for readers that do not know the format, and its own name in another
 * record. */
static const char *find_path(const struct tar_header *h, const struct pax_records *pax, const char *long_name,
                             struct tar_names *names)
{
        if (pax->set & PAX_SPARSE_NAME && is_plain_file(h))
                return pax->sparse_name;
        if (long_name && *long_name)
                return long_name;
        if (pax->set & PAX_PATH)
                return pax->path;
        tar_header_name(h, tar_header_format(h), names->name);
        return names->name;
}

/* Types that POSIX does not know are regular files. Before ustar, a slash at the end of the name made a directory. */
static uint32_t file_type(const struct tar_header *h, const char *path)
{
        bool old = h->type == '\0' || (h->type == '0' && tar_header_format(h) == TAR_V7);
        size_t n = strlen(path);

        switch (h->type) {
        case '2':
                return S_IFLNK;
        case '3':
                return S_IFCHR;
        case '4':
                return S_IFBLK;
        case '5':
        case 'D': /* GNU: a directory of an incremental backup */
                return S_IFDIR;
        case '6':
                return S_IFIFO;
        default:
                return old && n > 0 && path[n - 1] == '/' ? S_IFDIR : S_IFREG;
        }
}

/* Of a sparse file, its own size; a hardlink's is its target's. */
static int read_size(const struct tar_header *h, const struct pax_records *pax, enum tar_sparse sparse, uint64_t body,
                     uint64_t *ret, struct error *e)
{
        if (sparse == TAR_SPARSE_GNU)
                return tar_header_unsigned(h->gnu.real_size, sizeof(h->gnu.real_size), "real size", INT64_MAX, ret, e);
        if (sparse == TAR_SPARSE_NONE) {
                *ret = h->type == '1' ? 0 : body;
                return 0;
        }
        if (!(pax->set & (PAX_SPARSE_REAL_SIZE | PAX_SPARSE_SIZE)))
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "a sparse entry without the size of its file");
        *ret = pax->set & PAX_SPARSE_REAL_SIZE ? pax->sparse_real_size : pax->sparse_size;
        return 0;
}

int tar_entry_read(const struct tar_header *h, const struct pax_records *pax, const char *long_name,
                   const char *long_link, struct tar_names *names, struct layer_entry *entry, uint64_t *ret_body,
                   enum tar_sparse *ret_sparse, struct error *e)
{
        enum tar_sparse sparse = TAR_SPARSE_NONE;
        uint64_t body = 0;
        int r;

        entry->path = find_path(h, pax, long_name, names);
        entry->mode = file_type(h, entry->path);
        entry->hardlink = h->type == '1';
        r = read_attributes(h, pax, entry, e);
        if (r == 0 && (entry->hardlink || S_ISLNK(entry->mode)))
                r = read_link(h, pax, long_link, names, entry, e);
        if (r == 0 && (S_ISCHR(entry->mode) || S_ISBLK(entry->mode)))
                r = read_device(h, pax, entry, e);
        if (r == 0 && (S_ISREG(entry->mode) || h->type == 'D'))
                r = READ_NUMBER(pax, PAX_SIZE, size, h, INT64_MAX, &body, e);
        if (r == 0 && S_ISREG(entry->mode))
                r = find_sparse(h, pax, &sparse, e);
        if (r == 0 && S_ISREG(entry->mode))
                r = read_size(h, pax, sparse, body, &entry->size, e);
        if (r < 0)
                return r;
        *ret_body = body;
        *ret_sparse = sparse;
        return 0;
}
