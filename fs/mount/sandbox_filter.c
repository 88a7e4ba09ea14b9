/* SPDX-License-Identifier: Apache-2.0 */

/* The system calls of a process that serves a mount: those of libfuse, libcurl and its resolver, OpenSSL, zstd, the C
 * library's threads and memory, and the store's. */

#include "sandbox_internal.h"

#if defined(REGFS_SECCOMP)

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <seccomp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "regfs/io.h"
#include "regfs/log.h"

/* What the kernel gets. The library would make it anew each time that it is entered. */
struct filter {
        struct sock_fprog program;
};

/* Names that an architecture, or this libseccomp, does not know are left out. */
static const char allowed[] =
        /* what is open */
        "read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 lseek _llseek close "
        "close_range dup dup2 dup3 pipe pipe2 splice tee vmsplice sendfile sendfile64 copy_file_range fcntl "
        "fcntl64 flock fstat fstat64 fstatfs fstatfs64 ftruncate ftruncate64 fallocate fsync fdatasync "
        "sync_file_range fadvise64 fadvise64_64 getdents64 fchmod memfd_create "
        /* what Landlock rules over */
        "open openat stat stat64 lstat lstat64 newfstatat fstatat64 statx statfs statfs64 access faccessat "
        "faccessat2 readlink readlinkat getcwd chdir mkdir mkdirat rmdir unlink unlinkat rename renameat "
        "renameat2 link linkat utimensat utimensat_time64 umask "
        /* memory */
        "brk munmap mremap madvise mincore mlock mlock2 munlock msync "
        /* threads and signals */
        "futex futex_time64 futex_waitv set_robust_list get_robust_list rseq set_tid_address gettid getpid "
        "getppid getuid geteuid getgid getegid getresuid getresgid getpgrp getpgid getsid getgroups "
        "sched_yield sched_getaffinity sched_getparam sched_getscheduler membarrier getcpu getpriority "
        "rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigsuspend rt_sigtimedwait sigreturn "
        "sigaltstack restart_syscall wait4 waitid pause exit exit_group "
        /* waiting and time */
        "poll ppoll ppoll_time64 select _newselect pselect6 pselect6_time64 epoll_create epoll_create1 "
        "epoll_ctl epoll_wait epoll_pwait epoll_pwait2 eventfd eventfd2 timerfd_create timerfd_settime "
        "timerfd_gettime clock_gettime clock_gettime64 clock_getres clock_nanosleep clock_nanosleep_time64 "
        "nanosleep gettimeofday time times "
        /* the network; which sockets there may be is below */
        "connect getsockname getpeername getsockopt setsockopt send sendto sendmsg sendmmsg recv recvfrom "
        "recvmsg recvmmsg shutdown socketpair "
        /* what there is */
        "uname sysinfo getrandom getrusage getrlimit ugetrlimit ";

/* No mistake leads there. */
static const char deadly[] =
        "execve execveat ptrace process_vm_readv process_vm_writev kcmp mount move_mount open_tree fsopen "
        "fsconfig fsmount fspick mount_setattr pivot_root chroot setns unshare init_module finit_module "
        "delete_module kexec_load kexec_file_load bpf perf_event_open open_by_handle_at reboot swapon swapoff "
        "iopl ioperm acct ";

static int add(scmp_filter_ctx c, uint32_t action, const char *name, unsigned count, const struct scmp_arg_cmp *compare)
{
        int number = seccomp_syscall_resolve_name(name);

        if (number == __NR_SCMP_ERROR || number < 0)
                return 0; /* not of this architecture */
        return seccomp_rule_add_array(c, action, number, count, compare);
}

/* NAMES has a space behind each. */
static int add_names(scmp_filter_ctx c, uint32_t action, const char *names)
{
        int r = 0;

        while (*names && r == 0) {
                char name[32];
                size_t n = strcspn(names, " ");

                if (n >= sizeof(name))
                        return -ENAMETOOLONG;
                memcpy(name, names, n);
                name[n] = '\0';
                r = add(c, action, name, 0, NULL);
                names += n + 1;
        }
        return r;
}

/* Allows NAME where argument I is VALUE in the bits of MASK. The kernel looks at 32 bits of most. */
static int allow_where(scmp_filter_ctx c, const char *name, unsigned i, uint64_t mask, uint64_t value)
{
        const struct scmp_arg_cmp compare = SCMP_CMP64(i, SCMP_CMP_MASKED_EQ, mask, value);

        return add(c, SCMP_ACT_ALLOW, name, 1, &compare);
}

static int allow_threads(scmp_filter_ctx c)
{
        /* New threads of this process, in its namespaces. The flags come first, but on s390. */
        const uint64_t thread = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD;
        const uint64_t spaces = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER |
                                CLONE_NEWPID | CLONE_NEWNET;
#if defined(__s390__) || defined(__s390x__)
        const unsigned flags = 1;
#else
        const unsigned flags = 0;
#endif
        int r = allow_where(c, "clone", flags, thread | spaces, thread);

        return r == 0 ? add(c, SCMP_ACT_ERRNO(ENOSYS), "clone3", 0, NULL) : r;
}

static int allow_memory(scmp_filter_ctx c)
{
        static const char *const names[] = { "mmap", "mmap2", "mprotect" };
        int r = 0;

        for (size_t k = 0; k < ELEMENTSOF(names) && r == 0; k++)
                r = allow_where(c, names[k], 2, PROT_EXEC, 0);
        return r;
}

static int allow_signals(scmp_filter_ctx c)
{
        static const char *const names[] = { "tgkill", "kill", "rt_tgsigqueueinfo" };
        int r = 0;

        for (size_t k = 0; k < ELEMENTSOF(names) && r == 0; k++)
                r = allow_where(c, names[k], 0, UINT32_MAX, (uint64_t) getpid());
        return r;
}

static int allow_sockets(scmp_filter_ctx c)
{
        static const struct {
                int domain, type;
        } sockets[] = {
                { AF_INET, SOCK_STREAM }, { AF_INET, SOCK_DGRAM },  { AF_INET6, SOCK_STREAM },
                { AF_INET6, SOCK_DGRAM }, { AF_NETLINK, SOCK_RAW }, /* which addresses this host has: getaddrinfo sorts by it */
        };
        int r = 0;

        for (size_t k = 0; k < ELEMENTSOF(sockets) && r == 0; k++) {
                const int netlink = sockets[k].domain == AF_NETLINK;
                const struct scmp_arg_cmp compare[] = {
                        SCMP_CMP64(0, SCMP_CMP_MASKED_EQ, UINT32_MAX, (uint64_t) sockets[k].domain),
                        SCMP_CMP64(1, SCMP_CMP_MASKED_EQ, 0xf, (uint64_t) sockets[k].type),
                        SCMP_CMP64(2, SCMP_CMP_MASKED_EQ, netlink ? UINT32_MAX : 0, 0), /* NETLINK_ROUTE */
                };

                r = seccomp_rule_add_array(c, SCMP_ACT_ALLOW, SCMP_SYS(socket), netlink ? 3 : 2, compare);
        }
        /* Of the others, nscd's and systemd's are tried by the C library, which then goes on to files and DNS. */
        return r;
}

static int allow_ioctls(scmp_filter_ctx c)
{
        /* Blocking or not, bytes to read, the terminal's width and whether it is one. */
        static const unsigned long requests[] = { FIONBIO, FIONREAD, TIOCGWINSZ, TCGETS };
        int r = 0;

        for (size_t k = 0; k < ELEMENTSOF(requests) && r == 0; k++)
                r = allow_where(c, "ioctl", 1, UINT32_MAX, requests[k]);
        return r;
}

static int allow_rest(scmp_filter_ctx c)
{
        /* A thread's name, and the names that the C library gives to memory. */
        static const uint64_t options[] = { PR_SET_NAME, PR_GET_NAME, 0x53564d41 /* PR_SET_VMA */ };
        int r = 0;

        for (size_t k = 0; k < ELEMENTSOF(options) && r == 0; k++)
                r = allow_where(c, "prctl", 0, UINT32_MAX, options[k]);
        /* Limits may be read. */
        return r == 0 ? allow_where(c, "prlimit64", 2, UINT64_MAX, 0) : r;
}

static int fill(scmp_filter_ctx c)
{
        int r;

        r = seccomp_attr_set(c, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
        if (r == 0)
                r = seccomp_attr_set(c, SCMP_FLTATR_API_SYSRAWRC, 1); /* what writing the program fails with */
        /* A binary search in the kernel. Older libraries write a list. */
        (void) seccomp_attr_set(c, SCMP_FLTATR_CTL_OPTIMIZE, 2);
        if (r == 0)
                r = add_names(c, SCMP_ACT_ALLOW, allowed);
        if (r == 0)
                r = add_names(c, SCMP_ACT_KILL_PROCESS, deadly);
        if (r == 0)
                r = allow_threads(c);
        if (r == 0)
                r = allow_memory(c);
        if (r == 0)
                r = allow_signals(c);
        if (r == 0)
                r = allow_sockets(c);
        if (r == 0)
                r = allow_ioctls(c);
        return r == 0 ? allow_rest(c) : r;
}

/* The library hands its program out through a file. */
static int export(scmp_filter_ctx c, struct sock_fprog *ret)
{
        _cleanup_close_ int fd = memfd_create("filter", MFD_CLOEXEC);
        _cleanup_free_ struct sock_filter *code = NULL;
        struct stat st;
        int r;

        if (fd < 0)
                return -errno;
        r = seccomp_export_bpf(c, fd);
        if (r == 0 && fstat(fd, &st) < 0)
                r = -errno;
        if (r == 0 && (st.st_size == 0 || st.st_size / (off_t) sizeof(*code) > BPF_MAXINSNS))
                r = -E2BIG;
        if (r < 0)
                return r;
        code = malloc((size_t) st.st_size);
        if (!code)
                return -ENOMEM;
        r = pread_full(fd, code, (size_t) st.st_size, 0);
        if (r < 0)
                return r;
        ret->len = (unsigned short) ((size_t) st.st_size / sizeof(*code));
        ret->filter = steal_ptr(code);
        return 0;
}

int filter_new(struct filter **ret, struct error *e)
{
        struct filter *f = calloc(1, sizeof(*f));
        scmp_filter_ctx context;
        int r;

        if (!f)
                return error_oom(e);
        context = seccomp_init(SCMP_ACT_ERRNO(EPERM));
        r = context ? fill(context) : -ENOMEM;
        if (r == 0)
                r = export(context, &f->program);
        if (context)
                seccomp_release(context);
        if (r < 0) {
                filter_free(f);
                return error_errno(e, -r, "sandbox: seccomp filter");
        }
        *ret = f;
        return 0;
}

struct filter *filter_free(struct filter *f)
{
        if (f)
                free(f->program.filter);
        free(f);
        return NULL;
}

int filter_enter(const struct filter *f, struct error *e)
{
        /* No code comes from others: no need for the kernel to make this process slow against itself. Before Linux 4.17
         * it does not ask. */
        static const unsigned flags[] = { SECCOMP_FILTER_FLAG_SPEC_ALLOW, 0 };

        for (size_t k = 0; k < ELEMENTSOF(flags); k++)
                if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags[k], &f->program) == 0)
                        return 0;
        if (errno == EINVAL || errno == ENOSYS) {
                log_info("sandbox: this kernel has no seccomp filters: system calls are not confined");
                return 0;
        }
        return error_errno(e, errno, "sandbox: seccomp");
}

bool sandbox_is_built(void)
{
        return true;
}

#else

int filter_new(struct filter **ret, struct error *e)
{
        (void) e;
        *ret = NULL;
        return 0;
}

struct filter *filter_free(struct filter *f)
{
        (void) f;
        return NULL;
}

int filter_enter(const struct filter *f, struct error *e)
{
        (void) f;
        (void) e;
        return 0;
}

bool sandbox_is_built(void)
{
        return false;
}

#endif
