/* SPDX-License-Identifier: Apache-2.0 */

/* The tar scanner beside libarchive, on archives that Python, GNU tar, bsdtar and libarchive write; then the same
 * archives damaged. Needs python3, tar and bsdtar. */

#include <fcntl.h>
#include <ftw.h>
#include <libgen.h>
#include <limits.h>
#include <locale.h>
#include <spawn.h>
#include <sys/wait.h>

#include <archive.h>
#include <archive_entry.h>

#include "regfs/io.h"
#include "tar_tape.h"

extern char **environ;

/* ---- one line for each entry, the same from both ---- */

struct facts {
        const char *path;
        const char *link;
        bool hardlink;
        unsigned mode, major, minor;
        uint64_t uid, gid, size;
        int64_t mtime;
        long nsec;
        uint64_t content; /* hash */
};

#define HASH_START 0xcbf29ce484222325u

static uint64_t hash_bytes(uint64_t hash, const void *data, size_t n)
{
        for (size_t i = 0; i < n; i++)
                hash = (hash ^ ((const uint8_t *) data)[i]) * 0x100000001b3u;
        return hash;
}

static uint64_t hash_zeros(uint64_t hash, uint64_t n)
{
        static const uint8_t zeros[4096];

        for (; n > sizeof(zeros); n -= sizeof(zeros))
                hash = hash_bytes(hash, zeros, sizeof(zeros));
        return hash_bytes(hash, zeros, n);
}

static void list_facts(struct buf *b, const struct facts *f)
{
        list_bytes(b, (const uint8_t *) f->path, strlen(f->path));
        buf_printf(b, " %06o %" PRIu64 ":%" PRIu64 " %" PRIu64 " %" PRId64 ".%09ld %016" PRIx64, f->mode, f->uid,
                   f->gid, f->size, f->mtime, f->nsec, f->content);
        if (f->link)
                buf_printf(b, " %s %s", f->hardlink ? "=" : "->", f->link);
        if (S_ISCHR(f->mode) || S_ISBLK(f->mode))
                buf_printf(b, " %u:%u", f->major, f->minor);
}

static void list_xattr(struct buf *b, const char *name, const void *value, size_t n)
{
        buf_printf(b, " %s=", name);
        list_bytes(b, value, n);
}

struct ours {
        const uint8_t *data;
        size_t n;
        struct buf *list;
        size_t sparse; /* entries */
};

static uint64_t hash_content(const struct ours *o, const struct layer_entry *x)
{
        const struct extent whole = { .content_offset = x->content_offset, .length = x->size };
        const struct extent *extents = x->sparse ? x->extents : &whole;
        size_t count = x->sparse ? x->extent_count : x->size > 0;
        uint64_t at = 0, hash = HASH_START;

        for (size_t i = 0; i < count; i++) {
                assert_true(range_fits(extents[i].content_offset, extents[i].length, o->n));
                hash = hash_zeros(hash, extents[i].file_offset - at);
                hash = hash_bytes(hash, o->data + extents[i].content_offset, extents[i].length);
                at = extents[i].file_offset + extents[i].length;
        }
        return hash_zeros(hash, x->size - at);
}

static int list_ours(void *context, const struct layer_entry *x, _unused_ struct error *e)
{
        struct ours *o = context;
        struct facts f = {
                .path = x->path,
                .link = x->link,
                .hardlink = x->hardlink,
                .mode = x->hardlink ? x->mode & 07777 : x->mode,
                .major = x->major,
                .minor = x->minor,
                .uid = x->uid,
                .gid = x->gid,
                .size = x->size,
                .mtime = x->mtime,
                .nsec = x->mtime_nsec,
                .content = S_ISREG(x->mode) && !x->hardlink ? hash_content(o, x) : HASH_START,
        };

        o->sparse += x->sparse;
        list_facts(o->list, &f);
        for (size_t i = 0; i < x->xattr_count; i++)
                list_xattr(o->list, x->xattrs[i].name, x->xattrs[i].value, x->xattrs[i].value_length);
        return buf_append_char(o->list, '\n');
}

/* Returns how many sparse files there are. */
static size_t scan_ours(const struct buf *tar, struct buf *ret)
{
        _cleanup_(tar_scanner_free_ptr) struct tar_scanner *t = NULL;
        struct ours o = { .data = (const uint8_t *) tar->data, .n = tar->len, .list = ret };
        struct error e = ERROR_INIT;

        assert_int_equal(tar_scanner_new(list_ours, &o, &t), 0);
        if (tar_scanner_feed(t, o.data, o.n, &e) < 0 || tar_scanner_finish(t, &e) < 0)
                fail_msg("%s", e.message);
        return o.sparse;
}

/* libarchive's writer gives every attribute twice, in its own spelling and in star's: a name counts once here too.
 * An empty value is one of libarchive's alone: everywhere else it takes the name back. */
static void list_their_xattrs(struct buf *b, struct archive_entry *x)
{
        struct {
                const char *name;
                const void *value;
                size_t size;
        } found[16], swap;
        size_t count = 0;

        archive_entry_xattr_reset(x);
        while (archive_entry_xattr_next(x, &swap.name, &swap.value, &swap.size) == ARCHIVE_OK) {
                size_t i = 0;

                while (i < count && strcmp(found[i].name, swap.name) < 0)
                        i++;
                if (i < count && strcmp(found[i].name, swap.name) == 0)
                        continue;
                assert_true(count < ELEMENTSOF(found));
                memmove(&found[i + 1], &found[i], (count++ - i) * sizeof(swap));
                found[i] = swap;
        }
        for (size_t i = 0; i < count; i++)
                if (found[i].size > 0)
                        list_xattr(b, found[i].name, found[i].value, found[i].size);
}

static void list_theirs(struct buf *b, struct archive *a, struct archive_entry *x)
{
        const char *hardlink = archive_entry_hardlink(x), *symlink = archive_entry_symlink(x);
        uint64_t done = 0;
        uint8_t data[4096];
        struct facts f = {
                .path = archive_entry_pathname(x),
                .link = hardlink ? hardlink : symlink,
                .hardlink = hardlink != NULL,
                .mode = hardlink ? archive_entry_perm(x) : archive_entry_mode(x),
                .major = (unsigned) archive_entry_rdevmajor(x),
                .minor = (unsigned) archive_entry_rdevminor(x),
                .uid = (uint64_t) archive_entry_uid(x),
                .gid = (uint64_t) archive_entry_gid(x),
                .size = (uint64_t) archive_entry_size(x),
                .mtime = archive_entry_mtime(x),
                .nsec = archive_entry_mtime_nsec(x),
                .content = HASH_START,
        };
        ssize_t n;

        while ((n = archive_read_data(a, data, sizeof(data))) > 0) {
                f.content = hash_bytes(f.content, data, (size_t) n);
                done += (uint64_t) n;
        }
        assert_int_equal(n, 0);
        /* libarchive does not always hand out a hole at the end. */
        if (!hardlink && f.size > done)
                f.content = hash_zeros(f.content, f.size - done);
        list_facts(b, &f);
        list_their_xattrs(b, x);
        buf_append_char(b, '\n');
}

static void scan_theirs(const struct buf *tar, struct buf *ret)
{
        struct archive *a = archive_read_new();
        struct archive_entry *x;
        int r;

        assert_non_null(a);
        archive_read_support_format_tar(a);
        assert_int_equal(archive_read_open_memory(a, tar->data, tar->len), ARCHIVE_OK);
        while ((r = archive_read_next_header(a, &x)) == ARCHIVE_OK)
                list_theirs(ret, a, x);
        if (r != ARCHIVE_EOF)
                fail_msg("libarchive: %s", archive_error_string(a));
        archive_read_free(a);
}

/* At least LEAST entries, SPARSE of them sparse, and each as libarchive has it. */
static void compare(const struct buf *tar, size_t least, size_t sparse)
{
        _cleanup_buf_ struct buf ours = { 0 }, theirs = { 0 };
        size_t lines = 0;

        assert_true(scan_ours(tar, &ours) >= sparse);
        scan_theirs(tar, &theirs);
        assert_string_equal(ours.data, theirs.data);
        for (const char *p = ours.data; (p = strchr(p, '\n')); p++)
                lines++;
        assert_true(lines >= least);
}

/* ---- archives ---- */

static char fixtures[PATH_MAX];
static char *directory;
static struct buf archives[64];
static size_t archive_count;

static void run(const char *const *argv)
{
        pid_t pid;
        int status;

        if (posix_spawnp(&pid, argv[0], NULL, NULL, (char *const *) argv, environ) != 0)
                fail_msg("%s is not installed", argv[0]);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (status != 0)
                fail_msg("%s %s failed", argv[0], argv[1]);
}

#define RUN(...) run((const char *const[]) { __VA_ARGS__, NULL })

static struct buf *keep(const char *path)
{
        struct buf *tar = &archives[archive_count];
        struct error e = ERROR_INIT;

        assert_true(archive_count < ELEMENTSOF(archives));
        if (file_read(AT_FDCWD, path, 64 * MIB, tar, &e) < 0)
                fail_msg("%s", e.message);
        archive_count++;
        return tar;
}

static void write_at(const char *name, uint64_t size, const uint64_t *places, size_t count, int64_t seconds, long nsec)
{
        const struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_sec = seconds, .tv_nsec = nsec } };
        _cleanup_close_ int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);

        assert_true(fd >= 0);
        assert_int_equal(ftruncate(fd, (off_t) size), 0);
        for (size_t i = 0; i < count; i++)
                assert_int_equal(pwrite_full(fd, "some data", 9, places[i]), 0);
        assert_int_equal(futimens(fd, times), 0);
}

/* A tree that every format can hold, and one with what only some can. */
static int make_trees(_unused_ void **state)
{
        static const uint64_t few[] = { 0, 5000, 70000 };
        uint64_t many[40];
        char name[600];

        for (size_t i = 0; i < ELEMENTSOF(many); i++)
                many[i] = i * 9000 + 100;
        assert_int_equal(mkdir("plain", 0755), 0);
        assert_int_equal(mkdir("plain/sub", 01777), 0);
        write_at("plain/few", 100000, few, ELEMENTSOF(few), 1700000000, 0);
        write_at("plain/many", 400000, many, ELEMENTSOF(many), 1700000000, 0);
        write_at("plain/hole", 50000, NULL, 0, 5, 0);
        write_at("plain/empty", 0, NULL, 0, 5, 0);
        assert_int_equal(link("plain/few", "plain/sub/hard"), 0);
        assert_int_equal(symlink("../few", "plain/sub/soft"), 0);
        assert_int_equal(mkdir("rich", 0755), 0);
        assert_int_equal(mkfifo("rich/fifo", 0600), 0);
        write_at("rich/few", 100000, few, ELEMENTSOF(few), 1700000000, 123456789);
        write_at("rich/before", 10, NULL, 0, -86400, 0);
        memset(name, 'n', sizeof(name));
        memcpy(name, "rich/", 5);
        name[5 + 200] = '\0';
        write_at(name, 8200, few, 1, 1, 0);
        assert_int_equal(symlink(name, "rich/soft"), 0);
        name[5 + 150] = '\0';
        assert_int_equal(mkdir(name, 0755), 0);
        memcpy(name + 5 + 150, "/sub/", 5);
        name[5 + 155] = '\0';
        assert_int_equal(mkdir(name, 0755), 0);
        name[5 + 155] = 'x';
        name[5 + 300] = '\0';
        write_at(name, 5, few, 1, 1, 0);
        assert_int_equal(link(name, "rich/hard"), 0);
        return 0;
}

static int remove_one(const char *path, _unused_ const struct stat *st, _unused_ int type, _unused_ struct FTW *at)
{
        return remove(path);
}

/* Beside this file, unless $REGFS_FIXTURES says otherwise. */
static int find_fixtures(void)
{
        const char *given = getenv("REGFS_FIXTURES");
        char source[] = __FILE__;
        _cleanup_free_ char *path = given ? strdup(given) : str_printf("%s/../fixtures", dirname(source));

        return path && realpath(path, fixtures) ? 0 : -1;
}

static int setup(_unused_ void **state)
{
        const char *tmp = getenv("TMPDIR");

        if (find_fixtures() < 0 || !setlocale(LC_ALL, "C.UTF-8"))
                return -1;
        directory = str_printf("%s/regfs-tar-XXXXXX", tmp ? tmp : "/tmp");
        return directory && mkdtemp(directory) && chdir(directory) == 0 ? 0 : -1;
}

static int teardown(_unused_ void **state)
{
        int r = chdir("/") < 0 ? -1 : nftw(directory, remove_one, 16, FTW_DEPTH | FTW_PHYS);

        for (size_t i = 0; i < archive_count; i++)
                buf_free(&archives[i]);
        free(directory);
        return r;
}

/* ---- tests; the archives stay for the last one ---- */

static void layers_of_the_fixtures_read_as_libarchive_reads_them(_unused_ void **state)
{
        _cleanup_free_ char *script = str_printf("%s/make_layers.py", fixtures);

        RUN("python3", script, ".");
        compare(keep("base.tar"), 540, 0);
        compare(keep("upper.tar"), 14, 0);
        compare(keep("twice.tar"), 2, 0);
}

/* clang-format off */
static const char python[] =
        "import io, sys, tarfile\n"
        "def write(name, format, big):\n"
        "    with tarfile.open(name, 'w', format=format) as t:\n"
        "        def add(name, type=tarfile.REGTYPE, data=b'', **kw):\n"
        "            i = tarfile.TarInfo(name)\n"
        "            i.type, i.size = type, len(data)\n"
        "            for k, v in kw.items(): setattr(i, k, v)\n"
        "            t.addfile(i, io.BytesIO(data))\n"
        "        add('d', tarfile.DIRTYPE, mode=0o1777)\n"
        "        add('d/' + 'p' * 90 + '/' + 'n' * 60, data=b'x' * 513, mtime=1700000000)\n"
        "        add('d/link', tarfile.SYMTYPE, linkname='t' * 100, mode=0o777)\n"
        "        add('d/hard', tarfile.LNKTYPE, linkname='d/link')\n"
        "        add('null', tarfile.CHRTYPE, devmajor=1, devminor=3, gid=2097151)\n"
        "        add('loop', tarfile.BLKTYPE, devmajor=7, devminor=255)\n"
        "        add('fifo', tarfile.FIFOTYPE, mtime=8589934591)\n"
        "        if big:\n"
        "            add('d/' + 'n' * 300, data=b'y' * 512, uid=2097152, gid=4294967295)\n"
        "            add('far', tarfile.SYMTYPE, linkname='t/' * 150, mtime=8589934592)\n"
        "            add('hard', tarfile.LNKTYPE, linkname='d/' + 'n' * 300)\n"
        "            add('before', mtime=-5)\n"
        "write('python.ustar', tarfile.USTAR_FORMAT, False)\n"
        "write('python.gnu', tarfile.GNU_FORMAT, True)\n"
        "write('python.pax', tarfile.PAX_FORMAT, True)\n";
/* clang-format on */

static void python_archives_read_as_libarchive_reads_them(_unused_ void **state)
{
        RUN("python3", "-c", python);
        compare(keep("python.ustar"), 7, 0);
        compare(keep("python.gnu"), 11, 0);
        compare(keep("python.pax"), 11, 0);
}

/* GNU tar's --hole-detection=raw finds holes on any filesystem. */
static void gnu_archives_read_as_libarchive_reads_them(_unused_ void **state)
{
        static const struct {
                const char *format;
                const char *version;
                bool rich;
        } runs[] = {
                { "--format=v7", NULL, false },
                { "--format=oldgnu", NULL, false },
                { "--format=ustar", NULL, false },
                { "--format=gnu", NULL, true },
                { "--format=posix", NULL, true },
                { "--format=oldgnu", "--sparse-version=0.0", true },
                { "--format=gnu", "--sparse-version=0.0", true },
                { "--format=posix", "--sparse-version=0.0", true },
                { "--format=posix", "--sparse-version=0.1", true },
                { "--format=posix", "--sparse-version=1.0", true },
        };

        for (size_t i = 0; i < ELEMENTSOF(runs); i++) {
                _cleanup_free_ char *name = str_printf("gnu%zu.tar", i);
                const char *rich = runs[i].rich ? "rich" : NULL;

                if (runs[i].version)
                        RUN("tar", runs[i].format, runs[i].version, "--sparse", "--hole-detection=raw", "-cf", name,
                            "plain", rich);
                else
                        RUN("tar", runs[i].format, "-cf", name, "plain", rich);
                compare(keep(name), runs[i].rich ? 16 : 8, runs[i].version ? 4 : 0);
        }
}

static void bsdtar_archives_read_as_libarchive_reads_them(_unused_ void **state)
{
        RUN("bsdtar", "--format=ustar", "-cf", "bsd.ustar", "plain");
        compare(keep("bsd.ustar"), 8, 0);
        RUN("bsdtar", "--format=gnutar", "-cf", "bsd.gnu", "plain", "rich");
        compare(keep("bsd.gnu"), 16, 0);
        RUN("bsdtar", "--format=pax", "-cf", "bsd.pax", "plain", "rich");
        compare(keep("bsd.pax"), 16, 0);
}

static void put_entry(struct archive *a, struct archive_entry *x, const char *path, mode_t mode, size_t size)
{
        static const char data[3000];

        archive_entry_set_pathname(x, path);
        archive_entry_set_mode(x, mode);
        archive_entry_set_size(x, (int64_t) size);
        archive_entry_set_mtime(x, 1700000000, 987654321);
        assert_int_equal(archive_write_header(a, x), ARCHIVE_OK);
        assert_int_equal(archive_write_data(a, data, size), size);
        archive_entry_clear(x);
}

/* What files here may not be given: attributes, devices, ids. */
static void libarchive_reads_as_it_writes(_unused_ void **state)
{
        struct archive *a = archive_write_new();
        struct archive_entry *x = archive_entry_new();

        assert_int_equal(archive_write_set_format_pax(a), ARCHIVE_OK);
        assert_int_equal(archive_write_open_filename(a, "written.pax"), ARCHIVE_OK);
        archive_entry_xattr_add_entry(x, "user.plain", "value", 5);
        archive_entry_xattr_add_entry(x, "user.with space=%", "\0\1\2\n\xff", 5);
        archive_entry_xattr_add_entry(x, "security.capability", "\1\0\0\2\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20);
        put_entry(a, x, "attributes", S_IFREG | 0644, 5);
        archive_entry_set_size(x, 3000);
        archive_entry_sparse_add_entry(x, 100, 50);
        archive_entry_sparse_add_entry(x, 2000, 900);
        put_entry(a, x, "sparse", S_IFREG | 0600, 3000);
        archive_entry_set_rdevmajor(x, 259);
        archive_entry_set_rdevminor(x, 1048575);
        put_entry(a, x, "disk", S_IFBLK | 0660, 0);
        archive_entry_set_uid(x, 3000000000);
        archive_entry_set_gid(x, 4294967294);
        put_entry(a, x, "ids", S_IFDIR | 0755, 0);
        archive_entry_set_symlink(x, "\xc5\x82/\xe6\x97\xa5\xe6\x9c\xac");
        put_entry(a, x, "\xe6\x97\xa5\xe6\x9c\xac", S_IFLNK | 0777, 0);
        archive_entry_set_hardlink(x, "attributes");
        put_entry(a, x, "hard", S_IFREG | 0644, 0);
        assert_int_equal(archive_write_close(a), ARCHIVE_OK);
        archive_write_free(a);
        archive_entry_free(x);
        compare(keep("written.pax"), 6, 1);
}

static uint64_t next_random(uint64_t *seed)
{
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        return *seed;
}

/* Changes a few bytes of one block; a header gets its checksum back, mostly. */
static void damage(struct tape *t, uint64_t *seed)
{
        size_t blocks = t->bytes.len / 512;
        bool header;

        do {
                t->header = next_random(seed) % blocks * 512;
                header = memcmp(t->bytes.data + t->header + 257, "ustar", 5) == 0;
        } while (!header && next_random(seed) % 8);
        for (uint64_t n = 1 + next_random(seed) % 4; n > 0; n--) {
                static const char likely[] = "0017 9\0\x80\xff=,\nxgLKS1";
                size_t at = t->header + next_random(seed) % (next_random(seed) % 2 ? 512 : 160);

                t->bytes.data[at] =
                        next_random(seed) % 2 ? likely[next_random(seed) % sizeof(likely)] : (char) next_random(seed);
        }
        if (header && next_random(seed) % 8)
                tape_seal(t);
        if (next_random(seed) % 16 == 0)
                t->bytes.len = next_random(seed) % t->bytes.len;
}

static void damaged_archives_read_the_same_in_any_pieces(_unused_ void **state)
{
        uint64_t seed = 1;
        unsigned refused = 0, read = 0;

        for (size_t i = 0; i < archive_count; i++) {
                const struct buf *from = &archives[i];

                for (int round = 0; round < 50; round++) {
                        _cleanup_buf_ struct buf whole = { 0 }, pieces = { 0 };
                        _cleanup_(tape_free) struct tape t = { 0 };
                        int r;

                        assert_int_equal(buf_append(&t.bytes, from->data, MIN(from->len, 64 * KIB)), 0);
                        for (uint64_t n = 1 + next_random(&seed) % 3; n > 0 && t.bytes.len >= 512; n--)
                                damage(&t, &seed);
                        r = scan(t.bytes.data, t.bytes.len, SIZE_MAX, 0, &whole);
                        assert_int_equal(scan(t.bytes.data, t.bytes.len, 0, next_random(&seed), &pieces), r);
                        assert_int_equal(whole.len, pieces.len);
                        if (whole.len > 0)
                                assert_string_equal(whole.data, pieces.data);
                        refused += r < 0;
                        read += r == 0;
                }
        }
        assert_true(refused > 100 && read > 100);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup(layers_of_the_fixtures_read_as_libarchive_reads_them, make_trees),
                cmocka_unit_test(python_archives_read_as_libarchive_reads_them),
                cmocka_unit_test(gnu_archives_read_as_libarchive_reads_them),
                cmocka_unit_test(bsdtar_archives_read_as_libarchive_reads_them),
                cmocka_unit_test(libarchive_reads_as_it_writes),
                cmocka_unit_test(damaged_archives_read_the_same_in_any_pieces),
        };

        return cmocka_run_group_tests(tests, setup, teardown);
}
