/* SPDX-License-Identifier: Apache-2.0 */
#include "certs.h"

#include <fcntl.h>
#include <string.h>

#include "regfs/io.h"
#include "regfs/log.h"
#include "regfs/text.h"

#define CA_MAX (4 * MIB) /* all authorities of one registry */

/* *RET: the first directory there is, or NULL. */
static int find_directory(const struct config_paths *paths, const char *host, char **ret, struct error *e)
{
        const struct {
                const char *root;
                const char *name;
        } places[] = {
                { paths->user, "containers/certs.d" },
                { paths->system, "containers/certs.d" },
                { paths->system, "docker/certs.d" },
        };

        *ret = NULL;
        for (size_t i = 0; i < ELEMENTSOF(places); i++) {
                _cleanup_free_ char *path = NULL;

                if (!places[i].root)
                        continue;
                path = str_printf("%s/%s/%s", places[i].root, places[i].name, host);
                if (!path)
                        return error_oom(e);
                if (faccessat(AT_FDCWD, path, F_OK, AT_EACCESS) == 0) {
                        *ret = steal_ptr(path);
                        return 0;
                }
                if (errno == EACCES)
                        log_debug("%s: skipped, permission denied", path);
                else if (errno != ENOENT && errno != ENOTDIR)
                        return error_errno(e, errno, "%s", path);
        }
        return 0;
}

static bool has_name(const struct names *n, const char *name)
{
        for (size_t i = 0; i < n->count; i++)
                if (strcmp(n->items[i], name) == 0)
                        return true;
        return false;
}

/* Appends an authority's file to the others. One without a certificate is no reason to refuse the registry. */
static int append_ca(const char *path, struct buf *ca, struct error *e)
{
        _cleanup_buf_ struct buf file = { 0 };
        struct error cause = ERROR_INIT;
        int k;

        k = file_read(AT_FDCWD, path, CA_MAX, &file, &cause);
        if (k == -ENOENT)
                return 0; /* gone since the directory was read, or a link to nowhere */
        if (k < 0)
                return error_set(e, cause.kind, cause.code, "%s", cause.message);
        if (file.len == 0 || strlen(file.data) != file.len || !strstr(file.data, "-----BEGIN ")) {
                log_warning("%s: no certificate in it", path);
                return 0;
        }
        k = buf_append(ca, file.data, file.len);
        if (k == 0 && file.data[file.len - 1] != '\n')
                k = buf_append_char(ca, '\n');
        return k < 0 ? error_errno(e, -k, "%s", path) : 0;
}

/* The other half of a client pair must lie beside NAME, which ends with SUFFIX. */
static int check_pair(const char *directory, const struct names *n, const char *name, const char *suffix,
                      const char *other, char **ret_other, struct error *e)
{
        _cleanup_free_ char *pair = NULL;

        pair = str_printf("%.*s%s", (int) (strlen(name) - strlen(suffix)), name, other);
        if (!pair)
                return error_oom(e);
        if (!has_name(n, pair))
                return error_set(e, ERROR_BAD_DATA, EBADMSG, "%s/%s: %s is missing beside it%s", directory, name, pair,
                                 strcmp(suffix, ".cert") == 0 ? " (an authority's certificate is named *.crt)" : "");
        *ret_other = steal_ptr(pair);
        return 0;
}

/* The first pair by name is used: one connection presents one certificate. */
static int take_pair(const char *directory, const char *cert, const char *key, struct endpoint *p, struct error *e)
{
        if (p->client_cert) {
                log_debug("%s/%s: not used, %s comes first", directory, cert, p->client_cert);
                return 0;
        }
        p->client_cert = str_printf("%s/%s", directory, cert);
        p->client_key = str_printf("%s/%s", directory, key);
        return p->client_cert && p->client_key ? 0 : error_oom(e);
}

static int read_file(const char *directory, const struct names *n, const char *name, struct buf *ca, struct endpoint *p,
                     struct error *e)
{
        _cleanup_free_ char *path = NULL, *other = NULL;
        int k;

        if (str_ends_with(name, ".crt")) {
                path = str_printf("%s/%s", directory, name);
                return path ? append_ca(path, ca, e) : error_oom(e);
        }
        if (str_ends_with(name, ".cert")) {
                k = check_pair(directory, n, name, ".cert", ".key", &other, e);
                return k < 0 ? k : take_pair(directory, name, other, p, e);
        }
        if (str_ends_with(name, ".key"))
                return check_pair(directory, n, name, ".key", ".cert", &other, e);
        return 0;
}

int certs_read(const struct config_paths *paths, const char *host, struct endpoint *ret, struct error *e)
{
        _cleanup_names_ struct names n = { 0 };
        _cleanup_free_ char *directory = NULL;
        _cleanup_buf_ struct buf ca = { .max = CA_MAX };
        struct endpoint p = { 0 };
        struct error cause = ERROR_INIT;
        int k;

        k = find_directory(paths, host, &directory, e);
        if (k < 0 || !directory)
                return k;
        k = names_read(directory, &n, &cause);
        if (k == -EACCES) {
                log_warning("%s: skipped, permission denied", directory);
                return 0;
        }
        if (k < 0)
                return error_set(e, cause.kind, cause.code, "%s", cause.message);

        for (size_t i = 0; i < n.count && k == 0; i++)
                k = read_file(directory, &n, n.items[i], &ca, &p, e);
        if (k == 0 && ca.len > 0) {
                p.ca_pem = buf_steal(&ca);
                if (!p.ca_pem)
                        k = error_oom(e);
        }
        if (k < 0) {
                free(p.client_cert);
                free(p.client_key);
                return k;
        }
        ret->ca_pem = p.ca_pem;
        ret->client_cert = p.client_cert;
        ret->client_key = p.client_key;
        return 0;
}
