/* SPDX-License-Identifier: Apache-2.0 */

/* A directory seen through a filesystem with oddities: what NFS, SMB and FUSE filesystems do to a store, made to order.
 *
 *     oddfs [ODDITY...] DIRECTORY MOUNTPOINT
 *
 * stays in the foreground until it is unmounted or killed. Two of them over one directory, with caches, are two
 * machines that share an export: what one writes is seen by the other when its cache has run out. */

#define FUSE_USE_VERSION 35

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum lock_answer {
        LOCKS_OF_KERNEL, /* the filesystem has no say: the kernel keeps them, for this machine alone */
        LOCKS_WORK,
        LOCKS_FAIL, /* with `lock_errno` */
        LOCKS_HANG, /* from the request on that follows the first `lock_count` */
};

static struct {
        int root;
        enum lock_answer locks;
        int lock_errno;
        unsigned lock_count;
        int counter;        /* a file that holds how many locks were asked for; -1: nobody wants to know */
        double cache;       /* seconds for which attributes, names and content are believed */
        bool writeback;     /* writes stay with the kernel, by whole pages */
        bool dense;         /* no holes */
        bool unmappable;    /* nothing goes through the page cache */
        bool stale;         /* what another machine has removed can't be used, though it is open */
        bool keeps_targets; /* a rename replaces nothing */
        bool case_blind;    /* "a" and "A" are one name */
        int fsync_errno;
        atomic_uint lock_requests;
} odd = { .root = -1, .counter = -1 };

/* ---- names ---- */

/* Where names that differ in case are one, all are kept in lower case. Returns 0 or -errno. */
static int to_backing(const char *path, char out[PATH_MAX])
{
        size_t n = strlen(path + 1);

        if (n >= PATH_MAX)
                return -ENAMETOOLONG;
        memcpy(out, n > 0 ? path + 1 : ".", n > 0 ? n + 1 : 2);
        for (char *c = out; odd.case_blind && *c; c++)
                if (*c >= 'A' && *c <= 'Z')
                        *c = (char) (*c - 'A' + 'a');
        return 0;
}

static int result(int r)
{
        return r < 0 ? -errno : 0;
}

static int descriptor(const struct fuse_file_info *fi)
{
        return (int) fi->fh;
}

/* -ESTALE when the file has been removed on the server while this machine had it open. */
static int check_handle(const struct fuse_file_info *fi)
{
        struct stat st;

        return odd.stale && fstat(descriptor(fi), &st) == 0 && st.st_nlink == 0 ? -ESTALE : 0;
}

/* ---- attributes ---- */

static int odd_getattr(const char *path, struct stat *st, struct fuse_file_info *fi)
{
        char name[PATH_MAX];
        int r = to_backing(path, name);

        if (r == 0 && fi)
                r = check_handle(fi);
        if (r < 0)
                return r;
        r = fi ? fstat(descriptor(fi), st) : fstatat(odd.root, name, st, AT_SYMLINK_NOFOLLOW);
        if (r == 0 && odd.dense)
                st->st_blocks = (st->st_size + 511) / 512;
        return result(r);
}

static int odd_chmod(const char *path, mode_t mode, struct fuse_file_info *fi)
{
        char name[PATH_MAX];
        int r = to_backing(path, name);

        if (r < 0)
                return r;
        return result(fi ? fchmod(descriptor(fi), mode) : fchmodat(odd.root, name, mode, 0));
}

static int odd_utimens(const char *path, const struct timespec times[2], struct fuse_file_info *fi)
{
        char name[PATH_MAX];
        int r = to_backing(path, name);

        if (r == 0 && fi)
                r = check_handle(fi);
        if (r < 0)
                return r;
        return result(fi ? futimens(descriptor(fi), times) : utimensat(odd.root, name, times, AT_SYMLINK_NOFOLLOW));
}

static int odd_truncate(const char *path, off_t size, struct fuse_file_info *fi)
{
        char name[PATH_MAX];
        int fd, r = to_backing(path, name);

        if (r == 0 && fi)
                r = check_handle(fi);
        if (r < 0)
                return r;
        if (fi)
                return result(ftruncate(descriptor(fi), size));
        fd = openat(odd.root, name, O_WRONLY | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        r = result(ftruncate(fd, size));
        close(fd);
        return r;
}

static int odd_statfs(const char *path, struct statvfs *v)
{
        (void) path;
        return result(fstatvfs(odd.root, v));
}

/* ---- directories ---- */

static int odd_mkdir(const char *path, mode_t mode)
{
        char name[PATH_MAX];
        int r = to_backing(path, name);

        return r < 0 ? r : result(mkdirat(odd.root, name, mode));
}

static int odd_unlink(const char *path)
{
        char name[PATH_MAX];
        int r = to_backing(path, name);

        return r < 0 ? r : result(unlinkat(odd.root, name, 0));
}

static int odd_rmdir(const char *path)
{
        char name[PATH_MAX];
        int r = to_backing(path, name);

        return r < 0 ? r : result(unlinkat(odd.root, name, AT_REMOVEDIR));
}

static int odd_rename(const char *from, const char *to, unsigned flags)
{
        char old[PATH_MAX], new[PATH_MAX];
        int r = to_backing(from, old);

        if (r == 0)
                r = to_backing(to, new);
        if (r < 0)
                return r;
        if (flags != 0)
                return -EINVAL;
        if (odd.keeps_targets && faccessat(odd.root, new, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
                return -EEXIST;
        return result(renameat(odd.root, old, odd.root, new));
}

static int odd_readdir(const char *path, void *out, fuse_fill_dir_t fill, off_t offset, struct fuse_file_info *fi,
                       enum fuse_readdir_flags flags)
{
        char name[PATH_MAX];
        int fd, r = to_backing(path, name);
        struct dirent *entry;
        DIR *d;

        (void) offset;
        (void) fi;
        (void) flags;
        if (r < 0)
                return r;
        fd = openat(odd.root, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        d = fd < 0 ? NULL : fdopendir(fd);
        if (!d)
                return -errno;
        while ((entry = readdir(d)) && fill(out, entry->d_name, NULL, 0, 0) == 0)
                ;
        closedir(d);
        return 0;
}

/* ---- files ---- */

static int open_file(const char *path, int flags, mode_t mode, struct fuse_file_info *fi)
{
        char name[PATH_MAX];
        int fd, r = to_backing(path, name);

        if (r < 0)
                return r;
        /* A kernel that keeps writes back reads for them, and appends by itself. */
        if (odd.writeback) {
                flags &= ~O_APPEND;
                if ((flags & O_ACCMODE) == O_WRONLY)
                        flags = (flags & ~O_ACCMODE) | O_RDWR;
        }
        fd = openat(odd.root, name, flags | O_CLOEXEC, mode);
        if (fd < 0)
                return -errno;
        fi->fh = (uint64_t) fd;
        fi->direct_io = odd.unmappable;
        return 0;
}

static int odd_open(const char *path, struct fuse_file_info *fi)
{
        return open_file(path, fi->flags & ~(O_CREAT | O_EXCL | O_NOCTTY), 0, fi);
}

static int odd_create(const char *path, mode_t mode, struct fuse_file_info *fi)
{
        return open_file(path, fi->flags | O_CREAT, mode, fi);
}

static int odd_release(const char *path, struct fuse_file_info *fi)
{
        (void) path;
        return result(close(descriptor(fi)));
}

static int odd_read(const char *path, char *out, size_t n, off_t offset, struct fuse_file_info *fi)
{
        ssize_t got;
        int r = check_handle(fi);

        (void) path;
        if (r < 0)
                return r;
        got = pread(descriptor(fi), out, n, offset);
        return got < 0 ? -errno : (int) got;
}

static int odd_write(const char *path, const char *data, size_t n, off_t offset, struct fuse_file_info *fi)
{
        ssize_t done;
        int r = check_handle(fi);

        (void) path;
        if (r < 0)
                return r;
        done = pwrite(descriptor(fi), data, n, offset);
        return done < 0 ? -errno : (int) done;
}

static int odd_fsync(const char *path, int data_only, struct fuse_file_info *fi)
{
        int r = check_handle(fi);

        (void) path;
        if (r == 0 && odd.fsync_errno)
                r = -odd.fsync_errno;
        return r < 0 ? r : result(data_only ? fdatasync(descriptor(fi)) : fsync(descriptor(fi)));
}

static int odd_fallocate(const char *path, int mode, off_t offset, off_t length, struct fuse_file_info *fi)
{
        int r = check_handle(fi);

        (void) path;
        if (r == 0 && odd.dense)
                r = -EOPNOTSUPP;
        return r < 0 ? r : result(fallocate(descriptor(fi), mode, offset, length));
}

static off_t odd_lseek(const char *path, off_t offset, int whence, struct fuse_file_info *fi)
{
        off_t at;

        (void) path;
        if (odd.dense)
                return -EOPNOTSUPP;
        at = lseek(descriptor(fi), offset, whence);
        return at < 0 ? -errno : at;
}

/* ---- locks ---- */

/* 0 when this request is to be answered as locks that work would be. */
static int meet_lock(void)
{
        unsigned n = atomic_fetch_add(&odd.lock_requests, 1) + 1;
        char text[16];

        snprintf(text, sizeof(text), "%u\n", n);
        if (odd.counter >= 0 && pwrite(odd.counter, text, strlen(text), 0) < 0)
                return -EIO;
        if (odd.locks == LOCKS_FAIL)
                return -odd.lock_errno;
        while (odd.locks == LOCKS_HANG && n > odd.lock_count)
                pause();
        return 0;
}

static int odd_lock(const char *path, struct fuse_file_info *fi, int command, struct flock *lock)
{
        static const int commands[][2] = {
                { F_GETLK, F_OFD_GETLK },
                { F_SETLK, F_OFD_SETLK },
                { F_SETLKW, F_OFD_SETLKW },
        };
        /* The library unlocks whatever is closed. */
        int r = lock->l_type == F_UNLCK ? 0 : meet_lock();

        (void) path;
        lock->l_pid = 0;
        for (size_t k = 0; r == 0 && k < sizeof(commands) / sizeof(commands[0]); k++)
                if (command == commands[k][0])
                        return result(fcntl(descriptor(fi), commands[k][1], lock));
        return r < 0 ? r : -EINVAL;
}

static int odd_flock(const char *path, struct fuse_file_info *fi, int operation)
{
        int r = meet_lock();

        (void) path;
        return r < 0 ? r : result(flock(descriptor(fi), operation));
}

/* ---- the filesystem ---- */

static void *odd_init(struct fuse_conn_info *connection, struct fuse_config *config)
{
        if (odd.writeback)
                connection->want |= FUSE_CAP_WRITEBACK_CACHE;
        connection->want &= ~(unsigned) FUSE_CAP_AUTO_INVAL_DATA;
        config->entry_timeout = config->attr_timeout = odd.cache;
        config->negative_timeout = odd.cache;
        /* As NFS does: pages stay from one open to the next where size and modification time say the same. */
        config->auto_cache = odd.cache > 0;
        config->ac_attr_timeout_set = 1;
        config->ac_attr_timeout = 0;
        config->use_ino = 1;
        config->nullpath_ok = 0;
        return NULL;
}

static struct fuse_operations operations = {
        .getattr = odd_getattr,
        .chmod = odd_chmod,
        .utimens = odd_utimens,
        .truncate = odd_truncate,
        .statfs = odd_statfs,
        .mkdir = odd_mkdir,
        .unlink = odd_unlink,
        .rmdir = odd_rmdir,
        .rename = odd_rename,
        .readdir = odd_readdir,
        .open = odd_open,
        .create = odd_create,
        .release = odd_release,
        .read = odd_read,
        .write = odd_write,
        .fsync = odd_fsync,
        .fallocate = odd_fallocate,
        .lseek = odd_lseek,
        .lock = odd_lock,
        .flock = odd_flock,
        .init = odd_init,
};

/* ---- the oddities ---- */

static void set_locks(const char *value)
{
        static const struct {
                const char *name;
                enum lock_answer answer;
                int code;
        } answers[] = {
                { "kernel", LOCKS_OF_KERNEL, 0 }, { "work", LOCKS_WORK, 0 },
                { "hang", LOCKS_HANG, 0 },        { "ENOLCK", LOCKS_FAIL, ENOLCK },
                { "ENOSYS", LOCKS_FAIL, ENOSYS }, { "EOPNOTSUPP", LOCKS_FAIL, EOPNOTSUPP },
        };
        size_t k = 0;

        if (sscanf(value, "hang-after-%u", &odd.lock_count) == 1)
                value = "hang";
        while (k < sizeof(answers) / sizeof(answers[0]) && strcmp(answers[k].name, value) != 0)
                k++;
        if (k == sizeof(answers) / sizeof(answers[0])) {
                fprintf(stderr, "oddfs: --locks=%s?\n", value);
                exit(2);
        }
        odd.locks = answers[k].answer;
        odd.lock_errno = answers[k].code;
}

static void set_counter(const char *value)
{
        odd.counter = open(value, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (odd.counter < 0 || pwrite(odd.counter, "0\n", 2, 0) != 2) {
                perror(value);
                exit(1);
        }
}

static const char *value_of(const char *argument, const char *name)
{
        size_t n = strlen(name);

        return strncmp(argument, name, n) == 0 && argument[n] == '=' ? argument + n + 1 : NULL;
}

static void set_oddity(const char *argument)
{
        const struct {
                const char *name;
                bool *set;
        } switches[] = {
                { "--writeback", &odd.writeback },          { "--no-holes", &odd.dense },
                { "--no-mmap", &odd.unmappable },           { "--stale", &odd.stale },
                { "--no-replacement", &odd.keeps_targets }, { "--case-blind", &odd.case_blind },
        };
        const char *value;

        for (size_t k = 0; k < sizeof(switches) / sizeof(switches[0]); k++) {
                if (strcmp(argument, switches[k].name) == 0) {
                        *switches[k].set = true;
                        return;
                }
        }
        if ((value = value_of(argument, "--locks"))) {
                set_locks(value);
        } else if ((value = value_of(argument, "--count-locks"))) {
                set_counter(value);
        } else if ((value = value_of(argument, "--cache"))) {
                odd.cache = strtod(value, NULL);
        } else if ((value = value_of(argument, "--fsync"))) {
                odd.fsync_errno = strcmp(value, "EINVAL") == 0 ? EINVAL : EIO;
        } else {
                fprintf(stderr, "oddfs: %s?\n", argument);
                exit(2);
        }
}

int main(int argc, char **argv)
{
        static char *arguments[] = { (char *) "oddfs",
                                     (char *) "-odefault_permissions,allow_other,fsname=oddfs,subtype=odd" };
        struct fuse_args args = FUSE_ARGS_INIT(2, arguments);
        struct fuse_loop_config loop = { .max_idle_threads = 4 };
        struct fuse *fuse;
        int k = 1, r;

        while (k < argc && strncmp(argv[k], "--", 2) == 0)
                set_oddity(argv[k++]);
        if (argc - k != 2) {
                fprintf(stderr, "usage: oddfs [ODDITY...] DIRECTORY MOUNTPOINT\n");
                return 2;
        }
        odd.root = open(argv[k], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (odd.root < 0) {
                perror(argv[k]);
                return 1;
        }
        umask(0);
        if (odd.locks == LOCKS_OF_KERNEL) {
                operations.lock = NULL;
                operations.flock = NULL;
        }
        fuse = fuse_new(&args, &operations, sizeof(operations), NULL);
        if (!fuse || fuse_mount(fuse, argv[k + 1]) < 0)
                return 1;
        /* No signal is handled: a lock that hangs must not keep SIGTERM from ending this. */
        r = fuse_loop_mt(fuse, &loop);
        fuse_unmount(fuse);
        fuse_destroy(fuse);
        fuse_opt_free_args(&args);
        return r != 0;
}
