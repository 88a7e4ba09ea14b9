/* SPDX-License-Identifier: Apache-2.0 */

#include "inject.h"

#include <dirent.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct {
        const char *name;
        int error;
} kinds[FAULT_KINDS] = {
        [FAULT_NONE] = { "none", 0 },          [FAULT_ALLOC] = { "alloc", ENOMEM },
        [FAULT_OPEN] = { "open", EMFILE },     [FAULT_WRITE] = { "write", ENOSPC },
        [FAULT_SPACE] = { "space", ENOSPC },   [FAULT_SYNC] = { "sync", EIO },
        [FAULT_RENAME] = { "rename", EIO },    [FAULT_MKDIR] = { "mkdir", ENOSPC },
        [FAULT_MAP] = { "map", ENOMEM },       [FAULT_READ] = { "read", EIO },
        [FAULT_STAT] = { "stat", EIO },        [FAULT_LOCK] = { "lock", ENOLCK },
        [FAULT_THREAD] = { "thread", EAGAIN }, [FAULT_LIBRARY] = { "library", ENOMEM },
        [FAULT_FULL] = { "full", ENOSPC },
};

const char *fault_name(enum fault_kind kind)
{
        return kinds[kind].name;
}

int fault_errno(enum fault_kind kind)
{
        return kinds[kind].error;
}

/* ---- which call fails ---- */

static atomic_int armed;
static atomic_uint_fast64_t calls;
static uint64_t fail_at;
static bool fail_on;

/* Of the first failure. */
static atomic_bool failed;
static void *stack[24];
static int stack_depth;

void fault_arm(enum fault_kind kind, uint64_t at, bool on)
{
        fail_at = at;
        fail_on = on;
        stack_depth = 0;
        atomic_store(&failed, false);
        atomic_store(&calls, 0);
        atomic_store(&armed, (int) kind);
}

uint64_t fault_disarm(void)
{
        atomic_store(&armed, FAULT_NONE);
        return atomic_load(&calls);
}

void fault_print(void)
{
        backtrace_symbols_fd(stack, stack_depth, STDERR_FILENO);
}

/* True, with errno set, when this call is to fail. */
static bool fails(enum fault_kind kind)
{
        uint64_t n;

        if (atomic_load_explicit(&armed, memory_order_acquire) != (int) kind)
                return false;
        n = atomic_fetch_add(&calls, 1) + 1;
        if (n != fail_at && (!fail_on || n < fail_at))
                return false;
        if (!atomic_exchange(&failed, true))
                stack_depth = backtrace(stack, ELEMENTSOF(stack));
        errno = kinds[kind].error;
        return true;
}

/* ---- the full disk ---- */

static const char *full_path;

void fault_full_below(const char *path)
{
        full_path = path;
}

static bool is_below(const char *path)
{
        size_t n = full_path ? strlen(full_path) : 0;

        return n > 0 && strncmp(path, full_path, n) == 0 && (path[n] == '/' || path[n] == '\0');
}

/* True when this call is to fail because its file, or its directory AT, is on the full disk. */
static bool is_full(int at, const char *path)
{
        char link[40], target[PATH_MAX];
        ssize_t n;

        if (atomic_load_explicit(&armed, memory_order_acquire) != FAULT_FULL)
                return false;
        if (path && *path == '/')
                return is_below(path) && fails(FAULT_FULL);
        snprintf(link, sizeof(link), "/proc/self/fd/%d", at);
        n = readlink(link, target, sizeof(target) - 1);
        if (n < 0)
                return false;
        target[n] = '\0';
        return is_below(target) && fails(FAULT_FULL);
}

/* ---- libraries ---- */

/* This thread is in an allocation of libregfs or of the test. */
static _Thread_local unsigned in_ours;

/* CALL, which no library makes. */
#define OURS(call)                              \
        ({                                      \
                in_ours++;                      \
                __typeof__(call) _got = (call); \
                in_ours--;                      \
                _got;                           \
        })

bool fault_in_library(void)
{
        return in_ours == 0 && fails(FAULT_LIBRARY);
}

/* ---- what is out ---- */

/* Open addressing with linear probing. When it is full, what does not fit goes unseen. */
#define SLOTS (1u << 18)

struct taken {
        void *address;
        size_t size;
        uint64_t serial;
        void *from;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct taken slots[SLOTS];
static size_t allocations, mappings;
static uint64_t serial, marked;

static size_t home_of(const void *address)
{
        return (size_t) (((uintptr_t) address >> 4) * 0x9e3779b97f4a7c15u >> 40) % SLOTS;
}

static void *enter(void *address, size_t size, void *from)
{
        size_t k;

        if (!address)
                return NULL;
        pthread_mutex_lock(&lock);
        if (allocations < SLOTS / 2) {
                for (k = home_of(address); slots[k].address; k = (k + 1) % SLOTS)
                        ;
                slots[k] = (struct taken) { address, size, ++serial, from };
                allocations++;
        }
        pthread_mutex_unlock(&lock);
        return address;
}

/* Those that follow move up, so that no search ends early. */
static void close_gap(size_t gap)
{
        for (size_t k = (gap + 1) % SLOTS; slots[k].address; k = (k + 1) % SLOTS) {
                size_t home = home_of(slots[k].address);

                if ((k - home) % SLOTS < (k - gap) % SLOTS)
                        continue;
                slots[gap] = slots[k];
                gap = k;
        }
        slots[gap].address = NULL;
}

static void leave(const void *address)
{
        size_t k;

        if (!address)
                return;
        pthread_mutex_lock(&lock);
        for (k = home_of(address); slots[k].address && slots[k].address != address; k = (k + 1) % SLOTS)
                ;
        if (slots[k].address) {
                close_gap(k);
                allocations--;
        }
        pthread_mutex_unlock(&lock);
}

static void count_mapping(int by)
{
        pthread_mutex_lock(&lock);
        mappings += (size_t) by;
        pthread_mutex_unlock(&lock);
}

static size_t count_entries(const char *path)
{
        DIR *d = opendir(path);
        size_t n = 0;

        if (!d)
                abort();
        while (readdir(d))
                n++;
        closedir(d);
        return n - 2;
}

void account_take(struct account *ret)
{
        ret->descriptors = count_entries("/proc/self/fd") - 1;
        ret->threads = count_entries("/proc/self/task");
        pthread_mutex_lock(&lock);
        ret->allocations = allocations;
        ret->mappings = mappings;
        pthread_mutex_unlock(&lock);
}

void account_mark(void)
{
        pthread_mutex_lock(&lock);
        marked = serial;
        pthread_mutex_unlock(&lock);
}

void account_print(void)
{
        pthread_mutex_lock(&lock);
        for (size_t k = 0; k < SLOTS; k++) {
                if (!slots[k].address || slots[k].serial <= marked)
                        continue;
                fprintf(stderr, "%zu bytes are still out from ", slots[k].size);
                backtrace_symbols_fd(&slots[k].from, 1, STDERR_FILENO);
        }
        pthread_mutex_unlock(&lock);
}

/* ---- memory ---- */

#define CALLER __builtin_return_address(0)

#define WRAP(type, name, ...)            \
        type __real_##name(__VA_ARGS__); \
        type __wrap_##name(__VA_ARGS__); \
        type __wrap_##name(__VA_ARGS__)

WRAP(void *, malloc, size_t n)
{
        return fails(FAULT_ALLOC) ? NULL : enter(OURS(__real_malloc(n)), n, CALLER);
}

WRAP(void *, calloc, size_t count, size_t n)
{
        return fails(FAULT_ALLOC) ? NULL : enter(OURS(__real_calloc(count, n)), count * n, CALLER);
}

WRAP(void, free, void *p)
{
        leave(p);
        __real_free(p);
}

WRAP(void *, realloc, void *p, size_t n)
{
        void *moved;

        if (fails(FAULT_ALLOC))
                return NULL;
        leave(p);
        moved = OURS(__real_realloc(p, n));
        return enter(moved ? moved : n > 0 ? p : NULL, n, CALLER) == moved ? moved : NULL;
}

WRAP(char *, strdup, const char *s)
{
        return fails(FAULT_ALLOC) ? NULL : enter(OURS(__real_strdup(s)), strlen(s) + 1, CALLER);
}

WRAP(char *, strndup, const char *s, size_t n)
{
        return fails(FAULT_ALLOC) ? NULL : enter(OURS(__real_strndup(s, n)), n, CALLER);
}

WRAP(int, vasprintf, char **ret, const char *format, va_list arguments)
{
        int n;

        if (fails(FAULT_ALLOC))
                return -1;
        _Pragma("GCC diagnostic push") _Pragma("GCC diagnostic ignored \"-Wformat-nonliteral\"") n =
                __real_vasprintf(ret, format, arguments);
        _Pragma("GCC diagnostic pop") if (n >= 0) enter(*ret, (size_t) n, CALLER);
        return n;
}

WRAP(void *, mmap64, void *at, size_t n, int protection, int flags, int fd, off_t offset)
{
        void *p;

        if (fails(flags & MAP_ANONYMOUS ? FAULT_ALLOC : FAULT_MAP))
                return MAP_FAILED;
        p = __real_mmap64(at, n, protection, flags, fd, offset);
        if (p != MAP_FAILED && !(flags & MAP_FIXED))
                count_mapping(1);
        return p;
}

WRAP(int, munmap, void *p, size_t n)
{
        count_mapping(-1);
        return __real_munmap(p, n);
}

void *__real_mremap(void *p, size_t old, size_t n, int flags, ...);
void *__wrap_mremap(void *p, size_t old, size_t n, int flags, ...);
void *__wrap_mremap(void *p, size_t old, size_t n, int flags, ...)
{
        return fails(FAULT_ALLOC) ? MAP_FAILED : __real_mremap(p, old, n, flags);
}

/* ---- descriptors ---- */

#define MODE_ARGUMENT(after)                      \
        mode_t mode = 0;                          \
                                                  \
        if (flags & (O_CREAT | O_TMPFILE)) {      \
                va_list arguments;                \
                                                  \
                va_start(arguments, after);       \
                mode = va_arg(arguments, mode_t); \
                va_end(arguments);                \
        }

WRAP(int, open64, const char *path, int flags, ...)
{
        MODE_ARGUMENT(flags)
        return fails(FAULT_OPEN) || (flags & O_CREAT && is_full(-1, path)) ? -1 : __real_open64(path, flags, mode);
}

WRAP(int, openat64, int at, const char *path, int flags, ...)
{
        MODE_ARGUMENT(flags)
        return fails(FAULT_OPEN) || (flags & O_CREAT && is_full(at, path)) ? -1
                                                                           : __real_openat64(at, path, flags, mode);
}

WRAP(int, mkostemp64, char *template, int flags)
{
        return fails(FAULT_OPEN) ? -1 : __real_mkostemp64(template, flags);
}

WRAP(DIR *, fdopendir, int fd)
{
        return fails(FAULT_OPEN) ? NULL : __real_fdopendir(fd);
}

WRAP(int, eventfd, unsigned count, int flags)
{
        return fails(FAULT_OPEN) ? -1 : __real_eventfd(count, flags);
}

WRAP(int, pipe2, int fds[2], int flags)
{
        return fails(FAULT_OPEN) ? -1 : __real_pipe2(fds, flags);
}

/* ---- files ---- */

WRAP(ssize_t, write, int fd, const void *data, size_t n)
{
        return fails(FAULT_WRITE) || is_full(fd, NULL) ? -1 : __real_write(fd, data, n);
}

WRAP(ssize_t, pwrite64, int fd, const void *data, size_t n, off_t offset)
{
        return fails(FAULT_WRITE) || is_full(fd, NULL) ? -1 : __real_pwrite64(fd, data, n, offset);
}

WRAP(int, ftruncate64, int fd, off_t n)
{
        return fails(FAULT_SPACE) || is_full(fd, NULL) ? -1 : __real_ftruncate64(fd, n);
}

WRAP(int, fallocate64, int fd, int mode, off_t offset, off_t n)
{
        return fails(FAULT_SPACE) || is_full(fd, NULL) ? -1 : __real_fallocate64(fd, mode, offset, n);
}

WRAP(int, fsync, int fd)
{
        return fails(FAULT_SYNC) ? -1 : __real_fsync(fd);
}

WRAP(int, renameat, int from_at, const char *from, int to_at, const char *to)
{
        return fails(FAULT_RENAME) || is_full(to_at, to) ? -1 : __real_renameat(from_at, from, to_at, to);
}

WRAP(int, mkdir, const char *path, mode_t mode)
{
        return fails(FAULT_MKDIR) || is_full(-1, path) ? -1 : __real_mkdir(path, mode);
}

WRAP(int, mkdirat, int at, const char *path, mode_t mode)
{
        return fails(FAULT_MKDIR) || is_full(at, path) ? -1 : __real_mkdirat(at, path, mode);
}

WRAP(ssize_t, read, int fd, void *data, size_t n)
{
        return fails(FAULT_READ) ? -1 : __real_read(fd, data, n);
}

WRAP(ssize_t, pread64, int fd, void *data, size_t n, off_t offset)
{
        return fails(FAULT_READ) ? -1 : __real_pread64(fd, data, n, offset);
}

WRAP(int, fstat64, int fd, struct stat *ret)
{
        return fails(FAULT_STAT) ? -1 : __real_fstat64(fd, ret);
}

WRAP(int, fstatat64, int at, const char *path, struct stat *ret, int flags)
{
        return fails(FAULT_STAT) ? -1 : __real_fstatat64(at, path, ret, flags);
}

WRAP(int, flock, int fd, int operation)
{
        return fails(FAULT_LOCK) ? -1 : __real_flock(fd, operation);
}

/* Every command that libregfs uses has a pointer, an int or nothing behind it: one register. */
WRAP(int, fcntl64, int fd, int command, ...)
{
        va_list arguments;
        void *argument;

        va_start(arguments, command);
        argument = va_arg(arguments, void *);
        va_end(arguments);
        if ((command == F_OFD_SETLK || command == F_OFD_GETLK || command == F_OFD_SETLKW) && fails(FAULT_LOCK))
                return -1;
        return __real_fcntl64(fd, command, argument);
}

/* ---- threads ---- */

WRAP(int, pthread_create, pthread_t *ret, const pthread_attr_t *attributes, void *(*run)(void *), void *arg)
{
        return fails(FAULT_THREAD) ? EAGAIN : __real_pthread_create(ret, attributes, run, arg);
}
