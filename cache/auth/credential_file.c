/* SPDX-License-Identifier: Apache-2.0 */

/* auth.json of containers-auth.json(5) and docker's config.json have one shape:
 *
 *     { "auths":       { "HOST[/NAMESPACE]": { "auth": base64 of USER:PASSWORD, "identitytoken": … } },
 *       "credHelpers": { "HOST": NAME },
 *       "credsStore":  NAME } */

#include <fcntl.h>
#include <string.h>

#include "credential_internal.h"

#include "regfs/io.h"
#include "regfs/log.h"
#include "regfs/text.h"

/* The names under which login commands keep Docker Hub's credential. */
static const char *const hub_names[] = {
        "docker.io", "https://index.docker.io/v1/", "index.docker.io", "registry-1.docker.io", NULL,
};

struct auth_file {
        const char *path;
        const struct json *root;
        const struct credential_subject *subject;
        const char *const *names; /* of the host, best first */
        struct error *e;
};

static bool is_hub(const char *host)
{
        for (const char *const *name = hub_names; *name; name++)
                if (str_eq(*name, host))
                        return true;
        return false;
}

static int malformed(const struct auth_file *file, const char *where, const char *why)
{
        return error_set(file->e, ERROR_BAD_DATA, EBADMSG, "malformed credential file %s: %s: %s", file->path, where,
                         why);
}

static void log_found(const struct auth_file *file, const char *section, const char *key, const struct credential *c)
{
        if (!credential_is_anonymous(c))
                log_debug("credential for %s: %s, %s \"%s\"", file->subject->host, file->path, section, key);
}

/* Gets an object that may be absent or null. */
static int get_section(const struct auth_file *file, const char *name, const struct json **ret)
{
        const struct json *section = json_member(file->root, name);

        if (section && json_is_null(section))
                section = NULL;
        if (section && !json_is_object(section))
                return malformed(file, name, "not an object");
        *ret = section;
        return 0;
}

/* Decodes "auth". Passwords padded with NULs are known from old clients. */
static int decode_auth(const struct auth_file *file, const char *key, const char *auth, struct credential *ret)
{
        uint8_t *decoded = NULL;
        size_t len = 0;
        int r;

        r = base64_decode(auth, &decoded, &len);
        if (r == -ENOMEM)
                return error_oom(file->e);
        if (r < 0)
                return malformed(file, key, "auth is not base64");

        while (len > 0 && decoded[len - 1] == '\0')
                len--;
        if (memchr(decoded, '\0', len))
                r = malformed(file, key, "auth has a NUL inside");
        else
                r = credential_parse((const char *) decoded, ret, file->e);
        if (r == -EINVAL)
                r = malformed(file, key, "auth is not base64 of USER:PASSWORD");
        explicit_bzero(decoded, len);
        free(decoded);
        return r;
}

/* The string MEMBER of an entry; *ret is NULL when it is absent, null or empty. */
static int get_text(const struct auth_file *file, const char *key, const struct json *entry, const char *member,
                    const char **ret)
{
        const struct json *value = json_member(entry, member);
        const char *text = json_text(value);

        if (value && !json_is_null(value) && !text)
                return malformed(file, key, "a member is not a string");
        *ret = text && text[0] != '\0' ? text : NULL;
        return 0;
}

/* Reads one entry of "auths": anonymous when it is empty, as docker leaves it beside a credsStore. */
static int read_entry(const struct auth_file *file, const char *key, const struct json *entry, struct credential *ret)
{
        _cleanup_credential_ struct credential c = {};
        const char *auth = NULL, *identity_token = NULL, *user = NULL, *password = NULL;
        int r;

        if (!json_is_object(entry))
                return malformed(file, key, "not an object");
        if (get_text(file, key, entry, "auth", &auth) < 0 ||
            get_text(file, key, entry, "identitytoken", &identity_token) < 0 ||
            get_text(file, key, entry, "username", &user) < 0 || get_text(file, key, entry, "password", &password) < 0)
                return -EBADMSG;

        if (auth) {
                r = decode_auth(file, key, auth, &c);
                if (r < 0)
                        return r;
        } else if (user) {
                c.user = strdup(user);
                c.secret = strdup(password ? password : "");
                if (!c.user || !c.secret)
                        return error_oom(file->e);
        }
        if (identity_token) {
                c.identity_token = strdup(identity_token);
                if (!c.identity_token)
                        return error_oom(file->e);
        }

        log_found(file, "auths", key, &c);
        *ret = c;
        c = (struct credential) {};
        return 0;
}

/* Looks for "NAME/PREFIX", where PREFIX is the first N bytes of the repository, for every name of the host. */
static int find_namespace(const struct auth_file *file, const struct json *auths, size_t n, struct credential *ret)
{
        int r = 0;

        for (const char *const *name = file->names; *name && r == 0 && credential_is_anonymous(ret); name++) {
                _cleanup_free_ char *key = NULL;
                const struct json *entry;

                key = str_printf("%s%s%.*s", *name, n > 0 ? "/" : "", (int) n, file->subject->repository);
                if (!key)
                        return error_oom(file->e);
                entry = json_member(auths, key);
                if (entry)
                        r = read_entry(file, key, entry, ret);
        }
        return r;
}

/* Length of the host, to which *ret_host points, in a key that is a URL or lacks only its scheme, as
 * "index.docker.io/v1/" does. 0 for any other key: a namespace counts for itself alone. */
static size_t url_host(const char *key, const char **ret_host)
{
        const char *host = str_after(key, "https://"), *path;

        if (!host)
                host = str_after(key, "http://");
        *ret_host = host ? host : key;
        path = *ret_host + strcspn(*ret_host, "/");
        if (!host && !str_eq(path, "/v1") && !str_eq(path, "/v1/") && !str_eq(path, "/v2") && !str_eq(path, "/v2/"))
                return 0;
        return (size_t) (path - *ret_host);
}

static int find_url(const struct auth_file *file, const struct json *auths, struct credential *ret)
{
        int r = 0;

        for (const struct json *entry = json_first(auths); entry; entry = json_next(entry)) {
                const char *host;
                size_t n = url_host(json_name(entry), &host);

                for (const char *const *name = file->names; *name && n > 0; name++) {
                        if (strlen(*name) != n || memcmp(*name, host, n) != 0)
                                continue;
                        r = read_entry(file, json_name(entry), entry, ret);
                        if (r < 0 || !credential_is_anonymous(ret))
                                return r;
                }
        }
        return r;
}

/* The longest namespace first, then the host, then URLs of the host. */
static int find_in_auths(const struct auth_file *file, struct credential *ret)
{
        const char *repository = file->subject->repository;
        const struct json *auths = NULL;
        size_t n = strlen(repository);
        int r;

        r = get_section(file, "auths", &auths);
        if (r < 0 || !auths)
                return r;
        for (;;) {
                const char *slash;

                r = find_namespace(file, auths, n, ret);
                if (r < 0 || !credential_is_anonymous(ret))
                        return r;
                if (n == 0)
                        return find_url(file, auths, ret);
                slash = memrchr(repository, '/', n);
                n = slash ? (size_t) (slash - repository) : 0;
        }
}

static int ask_helper(const struct auth_file *file, const char *section, const char *helper, const char *server,
                      struct credential *ret)
{
        int r;

        r = credential_process_get(helper, server, file->subject->helper_limit_ms, ret, file->e);
        if (r < 0) {
                error_prefix(file->e, "%s of %s", section, file->path);
                return r;
        }
        log_found(file, section, helper, ret);
        return 0;
}

static int find_with_cred_helpers(const struct auth_file *file, struct credential *ret)
{
        const struct json *helpers = NULL;
        int r;

        r = get_section(file, "credHelpers", &helpers);
        for (const char *const *name = file->names; *name && r == 0 && credential_is_anonymous(ret); name++) {
                const char *helper = NULL;

                r = get_text(file, "credHelpers", helpers, *name, &helper);
                if (r == 0 && helper)
                        r = ask_helper(file, "credHelpers", helper, *name, ret);
        }
        return r;
}

static int find_with_creds_store(const struct auth_file *file, struct credential *ret)
{
        const char *helper = NULL;
        int r;

        r = get_text(file, "credsStore", file->root, "credsStore", &helper);
        if (!helper)
                return r;
        for (const char *const *name = file->names; *name && r == 0 && credential_is_anonymous(ret); name++)
                r = ask_helper(file, "credsStore", helper, *name, ret);
        return r;
}

static int find_in_document(const char *path, const struct json *root, const struct credential_subject *subject,
                            struct credential *ret, struct error *e)
{
        _cleanup_credential_ struct credential c = {};
        const char *const single[] = { subject->host, NULL };
        const struct auth_file file = {
                .path = path,
                .root = root,
                .subject = subject,
                .names = is_hub(subject->host) ? hub_names : single,
                .e = e,
        };
        int r;

        if (!json_is_object(root))
                return malformed(&file, "document", "not an object");

        r = find_with_cred_helpers(&file, &c);
        if (r == 0 && credential_is_anonymous(&c))
                r = find_in_auths(&file, &c);
        if (r == 0 && credential_is_anonymous(&c))
                r = find_with_creds_store(&file, &c);
        if (r < 0)
                return r;

        *ret = c;
        c = (struct credential) {};
        return 0;
}

/* *ret stays NULL for an empty file. */
static int read_document(const char *path, struct json **ret, struct error *e)
{
        struct broker *broker = credential_broker();
        struct buf text = {};
        int r;

        /* More room than the largest file takes: a buffer that grows leaves copies of the secrets behind. */
        r = buf_reserve(&text, 2 * CREDENTIAL_FILE_MAX);
        if (r < 0)
                return error_oom(e);
        r = broker ? broker_read_file(broker, path, &text, e)
                   : file_read(AT_FDCWD, path, CREDENTIAL_FILE_MAX, &text, e);
        if (r == 0 && text.len > 0) {
                r = json_parse(text.data, text.len, ret, e);
                if (r < 0)
                        error_prefix(e, "malformed credential file %s", path);
        }
        explicit_bzero(text.data, text.len);
        buf_free(&text);
        return r;
}

int credential_file_find(const char *path, bool may_be_absent, const struct credential_subject *subject,
                         struct credential *ret, struct error *e)
{
        _cleanup_(secret_json_free_ptr) struct json *root = NULL;
        struct error error = ERROR_INIT;
        int r;

        r = read_document(path, &root, &error);
        if (may_be_absent && (r == -ENOENT || r == -ENOTDIR))
                r = 0;
        if (r < 0) {
                if (e)
                        *e = error;
                return r;
        }
        if (root)
                return find_in_document(path, root, subject, ret, e);

        /* An empty file, /dev/null too, is docker's way to say: nobody. */
        *ret = (struct credential) {};
        return 0;
}
