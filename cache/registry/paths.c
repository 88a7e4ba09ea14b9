/* SPDX-License-Identifier: Apache-2.0 */
#include "paths.h"

#include <dirent.h>
#include <fcntl.h>
#include <pwd.h>
#include <string.h>
#include <sys/stat.h>

#include "regfs/text.h"

void config_paths_clear(struct config_paths *p)
{
        free(p->user);
        free(p->system);
        *p = (struct config_paths) { 0 };
}

int config_paths_default(struct config_paths *ret)
{
        _cleanup_config_paths_ struct config_paths p = { 0 };
        _cleanup_free_ char *memory = NULL;
        const char *home = getenv("HOME");
        struct passwd entry, *found = NULL;
        const size_t size = 16 * KIB;

        if (!home || !*home) {
                memory = malloc(size);
                if (!memory)
                        return -ENOMEM;
                home = getpwuid_r(geteuid(), &entry, memory, size, &found) == 0 && found ? entry.pw_dir : NULL;
        }
        if (home && *home) {
                p.user = str_printf("%s/.config", home);
                if (!p.user)
                        return -ENOMEM;
        }
        p.system = strdup("/etc");
        if (!p.system)
                return -ENOMEM;
        *ret = p;
        p = (struct config_paths) { 0 };
        return 0;
}

int config_paths_copy(const struct config_paths *p, struct config_paths *ret)
{
        _cleanup_config_paths_ struct config_paths copy = { 0 };

        copy.system = strdup(p->system);
        copy.user = p->user ? strdup(p->user) : NULL;
        if (!copy.system || (p->user && !copy.user))
                return -ENOMEM;
        *ret = copy;
        copy = (struct config_paths) { 0 };
        return 0;
}

int config_paths_find(const struct config_paths *p, const char *name, char **ret, bool *ret_is_user, struct error *e)
{
        _cleanup_free_ char *user = NULL, *system = NULL;
        bool is_user;

        user = p->user ? str_printf("%s/%s", p->user, name) : NULL;
        system = str_printf("%s/%s", p->system, name);
        if (!system || (p->user && !user))
                return error_oom(e);

        is_user = user && faccessat(AT_FDCWD, user, F_OK, AT_EACCESS) == 0;
        if (!is_user && faccessat(AT_FDCWD, system, F_OK, AT_EACCESS) < 0) {
                if (errno != ENOENT && errno != ENOTDIR)
                        return error_errno(e, errno, "%s", system);
                free(steal_ptr(system));
        }
        if (ret_is_user)
                *ret_is_user = is_user;
        *ret = is_user ? steal_ptr(user) : steal_ptr(system);
        return 0;
}

void names_clear(struct names *n)
{
        for (size_t i = 0; i < n->count; i++)
                free(n->items[i]);
        free(n->items);
        *n = (struct names) { 0 };
}

static int compare_names(const void *a, const void *b)
{
        return strcmp(*(char *const *) a, *(char *const *) b);
}

static void close_directory(DIR **d)
{
        if (*d)
                closedir(*d);
}

/* Follows symbolic links. An entry that cannot be looked at is left to whoever opens it. */
static bool is_directory(DIR *d, const struct dirent *entry)
{
        struct stat st;

        if (entry->d_type != DT_UNKNOWN && entry->d_type != DT_LNK)
                return entry->d_type == DT_DIR;
        return fstatat(dirfd(d), entry->d_name, &st, 0) == 0 && S_ISDIR(st.st_mode);
}

int names_read(const char *directory, struct names *ret, struct error *e)
{
        _cleanup_names_ struct names n = { 0 };
        _cleanup_(close_directory) DIR *d = NULL;
        const struct dirent *entry;
        size_t allocated = 0;

        d = opendir(directory);
        if (!d)
                return error_errno(e, errno, "%s", directory);
        while (errno = 0, (entry = readdir(d))) {
                if (is_directory(d, entry))
                        continue;
                if (array_reserve(n.items, &allocated, n.count + 1) < 0)
                        return error_oom(e);
                n.items[n.count] = strdup(entry->d_name);
                if (!n.items[n.count])
                        return error_oom(e);
                n.count++;
        }
        if (errno)
                return error_errno(e, errno, "%s", directory);
        if (n.count > 0)
                qsort(n.items, n.count, sizeof(*n.items), compare_names);
        *ret = n;
        n = (struct names) { 0 };
        return 0;
}
