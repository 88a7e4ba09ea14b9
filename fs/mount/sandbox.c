/* SPDX-License-Identifier: Apache-2.0 */

/* Landlock (landlock(7)), and the order in which a thread is confined. */

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/landlock.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "regfs/log.h"
#include "regfs/text.h"
#include "regfs/thread.h"
#include "sandbox_internal.h"

/* Newer than the headers of Linux 6.1. */
#define ACCESS_FS_TRUNCATE (1ULL << 14)  /* since version 3 */
#define ACCESS_FS_IOCTL_DEV (1ULL << 15) /* since version 5 */

/* Directories in directories of configuration and certificates, certs.d/HOST/ being the deepest, and links in them. */
#define LINKED_DEPTH_MAX 3

#define READ_RIGHTS (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define CHANGE_RIGHTS                                                                                     \
        (LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE | \
         LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_REFER | ACCESS_FS_TRUNCATE)
#define OTHER_RIGHTS                                                                                  \
        (LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_SOCK |   \
         LANDLOCK_ACCESS_FS_MAKE_FIFO | LANDLOCK_ACCESS_FS_MAKE_BLOCK | LANDLOCK_ACCESS_FS_MAKE_SYM | \
         ACCESS_FS_IOCTL_DEV)
/* What can be allowed for a file that is no directory. */
#define FILE_RIGHTS                                                                                  \
        (LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_READ_FILE | \
         ACCESS_FS_TRUNCATE | ACCESS_FS_IOCTL_DEV)

struct sandbox {
        struct filter *filter; /* made in a thread of its own, beside the rules; until that has ended: */
        pthread_t maker;
        bool being_made;
        int result;
        struct error error;
        uint64_t handled; /* rights that this kernel knows: all are refused where no rule allows them */
        int ruleset;      /* -1: no Landlock */
};

/* ---- rules ---- */

/* The kernel's version of Landlock; 0 without. */
static int landlock_version(void)
{
        long version = syscall(SYS_landlock_create_ruleset, NULL, (size_t) 0, LANDLOCK_CREATE_RULESET_VERSION);

        return version > 0 ? (int) version : 0;
}

static uint64_t known_rights(int version)
{
        uint64_t rights = READ_RIGHTS | CHANGE_RIGHTS | OTHER_RIGHTS;

        if (version < 5)
                rights &= ~ACCESS_FS_IOCTL_DEV;
        if (version < 3)
                rights &= ~ACCESS_FS_TRUNCATE;
        if (version < 2)
                rights &= ~(uint64_t) LANDLOCK_ACCESS_FS_REFER;
        return rights;
}

static int open_ruleset(struct sandbox *s, struct error *e)
{
        const int version = landlock_version();
        struct landlock_ruleset_attr attributes = { .handled_access_fs = known_rights(version) };

        s->ruleset = -1;
        if (version == 0)
                return 0;
        s->handled = attributes.handled_access_fs;
        s->ruleset = (int) syscall(SYS_landlock_create_ruleset, &attributes, sizeof(attributes), 0);
        return s->ruleset < 0 ? error_errno(e, errno, "sandbox: Landlock") : 0;
}

static bool has_nameless_files(const char *directory)
{
        _cleanup_close_ int fd = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

        return fd >= 0;
}

static uint64_t rights_of(enum sandbox_access access, const char *path)
{
        const uint64_t content = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE | ACCESS_FS_TRUNCATE;

        switch (access) {
        case SANDBOX_READ:
                return READ_RIGHTS;
        case SANDBOX_WRITE:
                return READ_RIGHTS | CHANGE_RIGHTS;
        case SANDBOX_MAKE:
                return LANDLOCK_ACCESS_FS_MAKE_DIR;
        case SANDBOX_SPOOL:
                break;
        }
        if (has_nameless_files(path))
                return content;
        return content | LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_REMOVE_FILE;
}

int sandbox_allow(struct sandbox *s, const char *path, enum sandbox_access access, struct error *e)
{
        struct landlock_path_beneath_attr rule = { .allowed_access = rights_of(access, path) & s->handled };
        _cleanup_close_ int fd = -1;
        struct stat st;

        if (s->ruleset < 0)
                return 0;
        fd = open(path, O_PATH | O_CLOEXEC);
        if (fd < 0 && (errno == ENOENT || errno == ENOTDIR || errno == EACCES || errno == ELOOP))
                return 0; /* nobody who may not even look it up gets further than that */
        if (fd < 0 || fstat(fd, &st) < 0)
                return error_errno(e, errno, "sandbox: %s", path);
        if (!S_ISDIR(st.st_mode))
                rule.allowed_access &= FILE_RIGHTS;
        rule.parent_fd = fd;
        if (syscall(SYS_landlock_add_rule, s->ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) < 0)
                return error_errno(e, errno, "sandbox: rule for %s", path);
        return 0;
}

static int allow_links(struct sandbox *s, const char *directory, unsigned depth, struct error *e)
{
        DIR *d = opendir(directory);
        const struct dirent *entry;
        int r = 0;

        if (!d)
                return 0;
        while (r == 0 && (entry = readdir(d))) {
                _cleanup_free_ char *path = NULL;

                if (entry->d_name[0] == '.' || entry->d_type == DT_REG)
                        continue;
                path = str_printf("%s/%s", directory, entry->d_name);
                if (!path)
                        r = error_oom(e);
                else if (entry->d_type != DT_DIR)
                        r = sandbox_allow(s, path, SANDBOX_READ, e);
                if (r == 0 && depth > 1)
                        r = allow_links(s, path, depth - 1, e);
        }
        closedir(d);
        return r;
}

int sandbox_allow_linked(struct sandbox *s, const char *directory, struct error *e)
{
        int r = sandbox_allow(s, directory, SANDBOX_READ, e);

        return r < 0 || s->ruleset < 0 ? r : allow_links(s, directory, LINKED_DEPTH_MAX, e);
}

/* ---- the sandbox ---- */

static void *make_filter(void *arg)
{
        struct sandbox *s = arg;

        s->result = filter_new(&s->filter, &s->error);
        return NULL;
}

static int await_filter(struct sandbox *s, struct error *e)
{
        if (s->being_made)
                pthread_join(s->maker, NULL);
        s->being_made = false;
        if (s->result < 0 && e)
                *e = s->error;
        return s->result;
}

int sandbox_new(struct sandbox **ret, struct error *e)
{
        _cleanup_(sandbox_free_ptr) struct sandbox *s = calloc(1, sizeof(*s));
        int r;

        if (!s)
                return error_oom(e);
        r = open_ruleset(s, e);
        if (r < 0)
                return r;
        s->being_made = thread_start(&s->maker, "filter", make_filter, s) == 0;
        if (!s->being_made)
                make_filter(s);
        *ret = steal_ptr(s);
        return 0;
}

struct sandbox *sandbox_free(struct sandbox *s)
{
        if (!s)
                return NULL;
        (void) await_filter(s, NULL);
        filter_free(s->filter);
        close_fd_ptr(&s->ruleset);
        free(s);
        return NULL;
}

int sandbox_enter(struct sandbox *s, struct error *e)
{
        int r = await_filter(s, e);

        if (r < 0)
                return r;
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
                return error_errno(e, errno, "sandbox: no_new_privs");
        if (s->ruleset < 0)
                log_info("sandbox: this kernel has no Landlock: files are not confined");
        else if (syscall(SYS_landlock_restrict_self, s->ruleset, 0) < 0)
                return error_errno(e, errno, "sandbox: Landlock");
        return filter_enter(s->filter, e); /* which forbids what came before */
}
