/* SPDX-License-Identifier: Apache-2.0 */

/* TOC: what Go's archive/tar told SOCI's writer of each entry (awslabs/soci-snapshotter, ztoc/toc_builder.go), in the
 * order of the tar, becomes what tar.h would have told.
 *
 * A file's pax records are kept as they were: they are read by the same code as those of a tar, and where they say
 * more than the fields of FileMetadata, they count. A sparse file is told by its logical size, without its map. */

#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "embedded_internal.h"
#include "layer_path.h"
#include "soci_internal.h"
#include "tar_internal.h"

#include "regfs/text.h"

enum toc_field {
        TOC_METADATA,
};

static const char *const toc_fields[] = { [TOC_METADATA] = "metadata" };

const struct fb_schema ztoc_toc = { "TOC", toc_fields };

enum file_field {
        FILE_NAME,
        FILE_TYPE,
        FILE_OFFSET,
        FILE_SIZE,
        FILE_LINK,
        FILE_MODE,
        FILE_UID,
        FILE_GID,
        FILE_UNAME,
        FILE_GNAME,
        FILE_MTIME,
        FILE_MAJOR,
        FILE_MINOR,
        FILE_RECORDS,
};

static const char *const file_fields[] = {
        [FILE_NAME] = "name",
        [FILE_TYPE] = "type",
        [FILE_OFFSET] = "uncompressed_offset",
        [FILE_SIZE] = "uncompressed_size",
        [FILE_LINK] = "linkname",
        [FILE_MODE] = "mode",
        [FILE_UID] = "uid",
        [FILE_GID] = "gid",
        [FILE_UNAME] = "uname",
        [FILE_GNAME] = "gname",
        [FILE_MTIME] = "mod_time",
        [FILE_MAJOR] = "devmajor",
        [FILE_MINOR] = "devminor",
        [FILE_RECORDS] = "xattrs",
};

static const struct fb_schema file_metadata = { "FileMetadata", file_fields };

enum record_field {
        RECORD_KEY,
        RECORD_VALUE,
};

static const char *const record_fields[] = { [RECORD_KEY] = "key", [RECORD_VALUE] = "value" };

static const struct fb_schema record_schema = { "Xattr", record_fields };

/* What Linux has room for in a device number. */
#define MAJOR_MAX 0xfffu
#define MINOR_MAX 0xfffffu

struct files_reader {
        struct layer_tree *tree;
        uint64_t tar_size;
        uint64_t floor; /* where the header of the next entry may begin */
        struct buf text;
        struct pax_records records;
};

static const struct file_type {
        const char *name;
        uint32_t mode;
        bool hardlink;
} file_types[] = {
        { "reg", S_IFREG, false },     { "dir", S_IFDIR, false },  { "symlink", S_IFLNK, false },
        { "hardlink", S_IFREG, true }, { "char", S_IFCHR, false }, { "block", S_IFBLK, false },
        { "fifo", S_IFIFO, false },
};

static int refuse(struct error *e, const char *why)
{
        return error_set(e, ERROR_BAD_DATA, EBADMSG, "%s", why);
}

/* ---- pax records ---- */

static size_t decimal_digits(size_t n)
{
        size_t digits = 1;

        for (; n >= 10; n /= 10)
                digits++;
        return digits;
}

/* "LENGTH KEY=VALUE\n": the length counts itself too. */
static int append_record(struct buf *text, const char *key, const char *value, size_t value_length)
{
        size_t n = 1 + strlen(key) + 1 + value_length + 1, length = n + decimal_digits(n);
        int r;

        length = n + decimal_digits(length);
        r = buf_printf(text, "%zu %s=", length, key);
        if (r == 0)
                r = buf_append(text, value, value_length);
        return r == 0 ? buf_append_char(text, '\n') : r;
}

static int read_record(struct buf *text, const struct fb_table *t, struct error *e)
{
        size_t key_length, value_length;
        const char *key, *value;
        int r;

        r = fb_text(t, RECORD_KEY, &key, &key_length, e);
        if (r == 0)
                r = fb_bytes(t, RECORD_VALUE, &value, &value_length, e);
        if (r < 0)
                return r;
        if (key_length == 0 || strchr(key, '='))
                return fb_refuse(&record_schema, RECORD_KEY, e, "no key of a pax record");
        if (str_after(key, "GNU.sparse."))
                return refuse(e, "a sparse file, of whose data a ztoc does not tell where it belongs");
        r = append_record(text, key, value, value_length);
        if (r == -EFBIG)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "more than %zu bytes of pax records", TAR_EXTENSIONS_MAX);
        return r < 0 ? error_oom(e) : 0;
}

static int read_records(struct files_reader *f, const struct fb_table *t, struct error *e)
{
        struct fb_vector v;
        int r = fb_vector(t, FILE_RECORDS, sizeof(uint32_t), &v, e);

        pax_records_clear(&f->records);
        f->text.len = 0;
        for (uint32_t i = 0; r == 0 && i < v.count; i++) {
                struct fb_table record;

                r = fb_vector_table(&v, i, &record_schema, &record, e);
                if (r == 0)
                        r = read_record(&f->text, &record, e);
        }
        return r < 0 || f->text.len == 0 ? r : pax_records_parse(&f->records, NULL, f->text.data, f->text.len, e);
}

/* Those without a value are none, as in a tar. */
static void keep_xattrs(struct pax_records *records, struct layer_entry *entry)
{
        size_t kept = 0;

        for (size_t k = 0; k < records->xattr_count; k++)
                if (records->xattrs[k].value_length > 0)
                        records->xattrs[kept++] = records->xattrs[k];
        entry->xattrs = records->xattrs;
        entry->xattr_count = kept;
}

/* ---- fields ---- */

static int read_type(const struct fb_table *t, struct layer_entry *entry, struct error *e)
{
        const char *type;
        size_t n;
        int r = fb_text(t, FILE_TYPE, &type, &n, e);

        if (r < 0)
                return r;
        for (size_t k = 0; k < ELEMENTSOF(file_types); k++)
                if (strcmp(type, file_types[k].name) == 0) {
                        entry->mode = file_types[k].mode;
                        entry->hardlink = file_types[k].hardlink;
                        return 0;
                }
        return fb_refuse(&file_metadata, FILE_TYPE, e, "\"%.32s\" is unknown", type);
}

/* Ids are cut to 32 bits when a ztoc is written; where the record is there, it tells. */
static int read_id(const struct fb_table *t, enum file_field field, const struct pax_records *records, enum pax_key key,
                   uint64_t recorded, uint32_t *ret, struct error *e)
{
        uint32_t id = 0;
        int r = fb_number(t, field, &id, sizeof(id), e);

        if (r < 0)
                return r;
        if ((records->set & key) && recorded != id)
                return fb_refuse(&file_metadata, field, e, "%" PRIu32 ", but its pax record says %" PRIu64, id,
                                 recorded);
        *ret = id;
        return 0;
}

/* A time that RFC 3339 has no text for is left out, but it comes from a record. */
static int read_mtime(const struct fb_table *t, const struct pax_records *records, struct layer_entry *entry,
                      struct error *e)
{
        const char *text;
        size_t n;
        int r = fb_text(t, FILE_MTIME, &text, &n, e);

        if (r < 0)
                return r;
        if (records->set & PAX_MTIME) {
                entry->mtime = records->mtime;
                entry->mtime_nsec = records->mtime_nsec;
                return 0;
        }
        if (toc_time_parse(text, n, &entry->mtime, &entry->mtime_nsec) < 0)
                return fb_refuse(&file_metadata, FILE_MTIME, e, "\"%.40s\" is no time of RFC 3339", text);
        return 0;
}

static int read_device(const struct fb_table *t, const struct pax_records *records, struct layer_entry *entry,
                       struct error *e)
{
        uint64_t major, minor;
        int r;

        r = fb_size(t, FILE_MAJOR, &major, e);
        if (r == 0)
                r = fb_size(t, FILE_MINOR, &minor, e);
        if (r < 0)
                return r;
        if (records->set & PAX_MAJOR)
                major = records->major;
        if (records->set & PAX_MINOR)
                minor = records->minor;
        if (major > MAJOR_MAX || minor > MINOR_MAX)
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "device %" PRIu64 ":%" PRIu64 " is out of range", major,
                                 minor);
        entry->major = (uint32_t) major;
        entry->minor = (uint32_t) minor;
        return 0;
}

static int read_attributes(const struct fb_table *t, const struct pax_records *records, struct layer_entry *entry,
                           struct error *e)
{
        uint64_t mode;
        int r;

        r = fb_size(t, FILE_MODE, &mode, e);
        if (r == 0)
                r = read_id(t, FILE_UID, records, PAX_UID, records->uid, &entry->uid, e);
        if (r == 0)
                r = read_id(t, FILE_GID, records, PAX_GID, records->gid, &entry->gid, e);
        if (r == 0)
                r = read_mtime(t, records, entry, e);
        if (r < 0)
                return r;
        entry->mode |= (uint32_t) mode & 07777;
        return S_ISCHR(entry->mode) || S_ISBLK(entry->mode) ? read_device(t, records, entry, e) : 0;
}

/* Only regular files have data; other types may have a size that means nothing. Each entry has a header in front of
 * its data, so no two are in one place. */
static int read_place(struct files_reader *f, const struct fb_table *t, struct layer_entry *entry, struct error *e)
{
        uint64_t offset, size;
        int r;

        r = fb_size(t, FILE_OFFSET, &offset, e);
        if (r == 0)
                r = fb_size(t, FILE_SIZE, &size, e);
        if (r < 0)
                return r;
        if (entry->hardlink || !S_ISREG(entry->mode))
                size = 0;
        if (!range_fits(offset, size, f->tar_size))
                return error_set(e, ERROR_BAD_DATA, EBADMSG,
                                 "%" PRIu64 " bytes at %" PRIu64 " lie outside of the tar, %" PRIu64 " bytes", size,
                                 offset, f->tar_size);
        if (offset % TAR_BLOCK != 0)
                return fb_refuse(&file_metadata, FILE_OFFSET, e, "%" PRIu64 " is no multiple of %u", offset, TAR_BLOCK);
        if (offset < f->floor + TAR_BLOCK)
                return fb_refuse(&file_metadata, FILE_OFFSET, e,
                                 "%" PRIu64 ", but what stands before it ends at %" PRIu64 ", and it has a header",
                                 offset, f->floor);
        f->floor = (offset + size + TAR_BLOCK - 1) / TAR_BLOCK * TAR_BLOCK;
        entry->size = size;
        entry->content_offset = offset;
        return 0;
}

/* In the oldest tars this is a directory, in the others a file: the ztoc has lost which. */
static int check_name(const struct layer_entry *entry, size_t length, struct error *e)
{
        if (length == 0)
                return fb_refuse(&file_metadata, FILE_NAME, e, "empty");
        if (S_ISREG(entry->mode) && !entry->hardlink && entry->path[length - 1] == '/')
                return refuse(e, "a file with a slash at the end of its name");
        return 0;
}

static int read_fields(struct files_reader *f, const struct fb_table *t, struct layer_entry *entry, struct error *e)
{
        size_t name_length, link_length;
        int r;

        r = fb_text(t, FILE_NAME, &entry->path, &name_length, e);
        if (r == 0)
                r = read_type(t, entry, e);
        if (r == 0)
                r = check_name(entry, name_length, e);
        if (r == 0)
                r = fb_text(t, FILE_LINK, &entry->link, &link_length, e);
        if (r == 0)
                r = read_place(f, t, entry, e);
        if (r == 0)
                r = read_records(f, t, e);
        if (r == 0)
                r = read_attributes(t, &f->records, entry, e);
        if (r == 0)
                keep_xattrs(&f->records, entry);
        return r;
}

static int read_file(struct files_reader *f, const struct fb_table *t, struct error *e)
{
        struct layer_entry entry = { .path = "" };
        char shown[LAYER_PATH_SHOWN_MAX];
        int r = read_fields(f, t, &entry, e);

        if (r == 0)
                return layer_tree_add(f->tree, &entry, e);
        return entry.path[0] && r == -EBADMSG
                       ? error_prefix(e, "%s", layer_path_show(entry.path, strlen(entry.path), shown))
                       : r;
}

static int read_files(struct files_reader *f, const struct fb_vector *v, struct error *e)
{
        for (uint32_t i = 0; i < v->count; i++) {
                struct fb_table t;
                int r = fb_vector_table(v, i, &file_metadata, &t, e);

                if (r < 0)
                        return r;
                r = read_file(f, &t, e);
                if (r < 0)
                        return r == -EBADMSG ? error_prefix(e, "file %" PRIu32, i) : r;
        }
        return 0;
}

int ztoc_files_read(struct layer_tree *tree, const struct fb_table *toc, uint64_t tar_size, struct error *e)
{
        struct files_reader f = { .tree = tree, .tar_size = tar_size, .text.max = TAR_EXTENSIONS_MAX };
        struct fb_vector v;
        int r = fb_vector(toc, TOC_METADATA, sizeof(uint32_t), &v, e);

        if (r < 0)
                return r;
        if (v.count > ITABLE_ENTRIES_MAX)
                return fb_refuse(&ztoc_toc, TOC_METADATA, e, "%" PRIu32 " files: regfs takes up to %u", v.count,
                                 ITABLE_ENTRIES_MAX);
        r = read_files(&f, &v, e);
        buf_free(&f.text);
        pax_records_free(&f.records);
        return r;
}
