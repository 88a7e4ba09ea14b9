/* SPDX-License-Identifier: Apache-2.0 */

/* Which files a process needs that opens an image and serves it. */

#include <curl/curl.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>

#include "cache/registry/paths.h"
#include "regfs/io.h"
#include "regfs/log.h"
#include "regfs/reference.h"
#include "regfs/store.h"
#include "regfs/text.h"
#include "sandbox_internal.h"

#define NSSWITCH_MAX (64 * KIB)

static int allow_list(struct sandbox *s, const char *const *paths, size_t count, struct error *e)
{
        int r = 0;

        for (size_t k = 0; k < count && r == 0; k++)
                r = sandbox_allow(s, paths[k], SANDBOX_READ, e);
        return r;
}

/* ---- the image ---- */

static int allow_reference(struct sandbox *s, const char *text, struct error *e)
{
        _cleanup_reference_ struct reference ref = { 0 };
        int r = reference_parse(text, &ref, e);

        if (r < 0 || ref.transport == TRANSPORT_REGISTRY)
                return r;
        return ref.transport == TRANSPORT_OCI_LAYOUT ? sandbox_allow_linked(s, ref.path, e)
                                                     : sandbox_allow(s, ref.path, SANDBOX_READ, e);
}

static bool is_reference(const char *index)
{
        return index && !str_eq(index, "auto") && !str_eq(index, "none") && !str_eq(index, "referrers");
}

/* The directory that the one at PATH is in, which is not empty, takes its place. */
static void go_up(char *path)
{
        char *slash = strrchr(path, '/');

        if (!slash)
                strcpy(path, ".");
        else if (slash == path)
                path[1] = '\0';
        else
                *slash = '\0';
}

/* A store that could not be made for want of room is to meet the same error again. */
static int allow_making(struct sandbox *s, const char *path, struct error *e)
{
        _cleanup_free_ char *above = strdup(path);

        if (!above)
                return error_oom(e);
        while (access(above, F_OK) < 0 && !str_eq(above, ".") && !str_eq(above, "/"))
                go_up(above);
        return sandbox_allow(s, above, SANDBOX_MAKE, e);
}

/* Opening makes what is missing: a rule is for what there is. */
static int allow_store(struct sandbox *s, const struct regfs_options *o, struct error *e)
{
        _cleanup_(store_close_ptr) struct store *store = NULL;
        const struct store *one;
        int r = store_open_all(o->cache_dir, o->stores, &store, e);

        if (r == 0 && store_has_no_room(store))
                r = allow_making(s, store_path(store), e);
        for (size_t k = 0; r == 0 && (one = store_at(store, k)); k++)
                r = sandbox_allow(s, store_path(one), k == 0 ? SANDBOX_WRITE : SANDBOX_READ, e);
        return r;
}

/* ---- registries ---- */

static int allow_below(struct sandbox *s, const char *root, const char *name, struct error *e)
{
        _cleanup_free_ char *path = root ? str_printf("%s/%s", root, name) : NULL;

        if (!root)
                return 0;
        return path ? sandbox_allow_linked(s, path, e) : error_oom(e);
}

static int allow_configuration(struct sandbox *s, const struct regfs_options *o, struct error *e)
{
        /* Not the directories themselves: credentials lie there as well. */
        static const char *const names[] = {
                "containers/registries.conf",
                "containers/registries.conf.d",
                "containers/policy.json",
                "containers/certs.d",
        };
        _cleanup_config_paths_ struct config_paths paths = { 0 };
        const char *conf = getenv("CONTAINERS_REGISTRIES_CONF");
        int r = 0;

        if (config_paths_default(&paths) < 0)
                return error_oom(e);
        for (size_t k = 0; k < ELEMENTSOF(names) && r == 0; k++) {
                r = allow_below(s, paths.user, names[k], e);
                if (r == 0)
                        r = allow_below(s, paths.system, names[k], e);
        }
        if (r == 0)
                r = allow_below(s, paths.system, "docker/certs.d", e);
        if (r == 0 && conf && *conf)
                r = sandbox_allow(s, conf, SANDBOX_READ, e);
        if (r == 0 && o->registries_conf)
                r = sandbox_allow(s, o->registries_conf, SANDBOX_READ, e);
        return r;
}

static int allow_authorities(struct sandbox *s, struct error *e)
{
        static const char *const places[] = {
                "/etc/ssl/certs",
                "/etc/ssl/cert.pem",
                "/usr/share/ca-certificates",
                "/usr/local/share/ca-certificates",
                "/etc/pki/tls/certs",
                "/etc/pki/ca-trust",
                "/usr/share/pki",
                "/etc/ca-certificates",
                "/var/lib/ca-certificates",
        };
        const curl_version_info_data *built = curl_version_info(CURLVERSION_NOW);
        int r;

        r = allow_list(s, places, ELEMENTSOF(places), e);
        if (r == 0 && built->capath)
                r = sandbox_allow(s, built->capath, SANDBOX_READ, e);
        if (r == 0 && built->cainfo)
                r = sandbox_allow(s, built->cainfo, SANDBOX_READ, e);
        return r;
}

/* Whoever keeps resolv.conf elsewhere and links to it replaces it there. */
static int allow_linked_resolver(struct sandbox *s, struct error *e)
{
        _cleanup_free_ char *real = realpath("/etc/resolv.conf", NULL);
        char *slash = real ? strrchr(real, '/') : NULL;

        if (!slash || str_after(real, "/etc/") || slash == real)
                return 0;
        *slash = '\0';
        return sandbox_allow(s, real, SANDBOX_READ, e);
}

/* A rule is for a file, not for a name, and the files of /etc are replaced when they change. A user may read all of
 * /etc, where the machine's secrets are not for him to open. Root's process gets single files, and does not see them
 * replaced. */
static int allow_names(struct sandbox *s, struct error *e)
{
        static const char *const files[] = {
                "/etc/resolv.conf", "/etc/hosts",    "/etc/nsswitch.conf", "/etc/gai.conf",
                "/etc/host.conf",   "/etc/services", "/etc/localtime",     "/sys/devices/system/cpu",
        };
        int r;

        r = allow_list(s, files, ELEMENTSOF(files), e);
        if (r == 0 && geteuid() != 0)
                r = sandbox_allow(s, "/etc", SANDBOX_READ, e);
        return r == 0 ? allow_linked_resolver(s, e) : r;
}

int sandbox_allow_image(struct sandbox *s, const char *reference, const struct regfs_options *options, struct error *e)
{
        int r;

        r = allow_reference(s, reference, e);
        if (r == 0 && is_reference(options->index))
                r = allow_reference(s, options->index, e);
        if (r == 0)
                r = allow_store(s, options, e);
        if (r == 0)
                r = allow_configuration(s, options, e);
        if (r == 0)
                r = allow_authorities(s, e);
        if (r == 0)
                r = allow_names(s, e);
        if (r == 0)
                r = sandbox_allow(s, temporary_directory(), SANDBOX_SPOOL, e);
        return r == 0 ? sandbox_allow(s, "/dev/null", SANDBOX_WRITE, e) : r;
}

/* ---- libraries ---- */

/* glibc 2.34 (NEWS) has what stands in most lines in itself. */
static bool is_built_in(const char *service)
{
#if defined(__GLIBC_PREREQ) && __GLIBC_PREREQ(2, 34)
        return str_eq(service, "files") || str_eq(service, "dns");
#else
        (void) service;
        return false;
#endif
}

/* The C library loads a module for each service of the line "hosts:" that it does not have built in; it finds those
 * that are loaded. */
static void load_name_services(void)
{
        _cleanup_buf_ struct buf text = { 0 };
        char *save = NULL, *line, *word;

        if (file_read(AT_FDCWD, "/etc/nsswitch.conf", NSSWITCH_MAX, &text, NULL) < 0)
                return;
        line = str_after(text.data, "hosts:") ? text.data : strstr(text.data, "\nhosts:");
        if (!line)
                return;
        line = strchr(line, ':') + 1;
        line[strcspn(line, "\n#")] = '\0';
        for (word = strtok_r(line, " \t", &save); word; word = strtok_r(NULL, " \t", &save)) {
                char name[64];

                if (word[strspn(word, "abcdefghijklmnopqrstuvwxyz0123456789_")] != '\0' || is_built_in(word))
                        continue; /* an [ACTION], or nothing to load */
                snprintf(name, sizeof(name), "libnss_%s.so.2", word);
                (void) dlopen(name, RTLD_NOW);
        }
}

void sandbox_settle_home(void)
{
        _cleanup_free_ char *memory = malloc(16 * KIB);
        const char *home = getenv("HOME");
        struct passwd entry, *found = NULL;

        if ((home && *home) || !memory)
                return;
        if (getpwuid_r(geteuid(), &entry, memory, 16 * KIB, &found) == 0 && found && *entry.pw_dir)
                (void) setenv("HOME", entry.pw_dir, 1);
}

void sandbox_preload(void)
{
        /* Threads that end or are cancelled unwind their stack with it. */
        if (!dlopen("libgcc_s.so.1", RTLD_NOW))
                log_debug("%s", dlerror());
        load_name_services();
        (void) curl_global_init(CURL_GLOBAL_DEFAULT); /* and OpenSSL, with its configuration */
}
