/* SPDX-License-Identifier: Apache-2.0 */
#include <openssl/hmac.h>
#include <pthread.h>
#include <pwd.h>
#include <string.h>
#include <sys/random.h>

#include "credential_internal.h"

#include "regfs/digest.h"
#include "regfs/log.h"
#include "regfs/text.h"

void credential_clear(struct credential *c)
{
        secret_free(c->user);
        secret_free(c->secret);
        secret_free(c->identity_token);
        *c = (struct credential) {};
}

/* json.h lends texts for reading only; their memory is the document's, which is about to be freed. */
static void overwrite_texts(const struct json *v)
{
        const char *text = json_text(v);

        if (text)
                explicit_bzero((char *) text, strlen(text));
        for (const struct json *child = json_first(v); child; child = json_next(child))
                overwrite_texts(child);
}

struct json *secret_json_free(struct json *root)
{
        overwrite_texts(root);
        return json_free(root);
}

int credential_parse(const char *s, struct credential *ret, struct error *e)
{
        _cleanup_credential_ struct credential c = {};
        const char *colon = strchr(s, ':');

        if (!colon)
                return error_set(e, ERROR_USAGE, EINVAL, "credentials are not USER:PASSWORD: there is no colon");
        if (colon == s)
                return error_set(e, ERROR_USAGE, EINVAL, "credentials are not USER:PASSWORD: there is no user");

        c.user = strndup(s, (size_t) (colon - s));
        c.secret = strdup(colon + 1);
        if (!c.user || !c.secret)
                return error_oom(e);

        *ret = c;
        c = (struct credential) {};
        return 0;
}

static struct {
        pthread_once_t once;
        bool ready;
        uint8_t bytes[32];
} identity_key = { .once = PTHREAD_ONCE_INIT };

static void make_identity_key(void)
{
        const ssize_t n = sizeof(identity_key.bytes);

        /* Requests of up to 256 bytes are never cut short, and fail only where the call does not exist. */
        identity_key.ready = getrandom(identity_key.bytes, sizeof(identity_key.bytes), 0) == n;
}

/* An absent field differs from an empty one, and none runs into the next. */
static int append_field(struct buf *b, const char *s)
{
        int r = buf_append_char(b, s ? '+' : '-');

        return r < 0 || !s ? r : buf_append(b, s, strlen(s) + 1);
}

static size_t field_size(const char *s)
{
        return s ? strlen(s) + 2 : 1;
}

char *credential_identity(const struct credential *c)
{
        uint8_t hash[SHA256_SIZE];
        struct buf fields = {};
        char *hex = NULL;

        if (credential_is_anonymous(c))
                return strdup("");
        pthread_once(&identity_key.once, make_identity_key);
        if (!identity_key.ready)
                return NULL;

        /* All the room at once: a buffer that grows leaves copies of the secret behind. */
        if (buf_reserve(&fields, field_size(c->user) + field_size(c->secret) + field_size(c->identity_token)) == 0 &&
            append_field(&fields, c->user) == 0 && append_field(&fields, c->secret) == 0 &&
            append_field(&fields, c->identity_token) == 0 &&
            HMAC(EVP_sha256(), identity_key.bytes, sizeof(identity_key.bytes), (const uint8_t *) fields.data,
                 fields.len, hash, NULL))
                hex = malloc(2 * sizeof(hash) + 1);
        if (hex)
                hex_encode(hash, sizeof(hash), hex);

        if (fields.data)
                explicit_bzero(fields.data, fields.len);
        buf_free(&fields);
        return hex;
}

static struct broker *broker_in_use; /* set while there is one thread */

void credential_use_broker(struct broker *broker)
{
        broker_in_use = broker;
}

struct broker *credential_broker(void)
{
        return broker_in_use;
}

/* The variable's value; NULL when it is unset or empty. */
static const char *environment(const char *name)
{
        const char *value = getenv(name);

        return value && value[0] != '\0' ? value : NULL;
}

/* *PATH takes TEXT; NULL is what the allocation of it left. */
static int set_path(char **path, char *text, struct error *e)
{
        *path = text;
        return text ? 0 : error_oom(e);
}

/* $HOME, else the user database; *ret stays NULL when neither knows. */
static int home_directory(char **ret, struct error *e)
{
        _cleanup_free_ char *buffer = NULL;
        struct passwd entry, *found = NULL;
        const char *home = environment("HOME");
        size_t size = 16 * KIB;

        if (home)
                return set_path(ret, strdup(home), e);

        buffer = malloc(size);
        if (!buffer)
                return error_oom(e);
        if (getpwuid_r(getuid(), &entry, buffer, size, &found) != 0 || !found)
                return 0;
        return set_path(ret, strdup(entry.pw_dir), e);
}

struct default_files {
        char *paths[CREDENTIAL_FILES_MAX]; /* NULL: there is no such place */
};

static void default_files_clear(struct default_files *files)
{
        for (size_t i = 0; i < CREDENTIAL_FILES_MAX; i++)
                free(files->paths[i]);
}

/* The places where podman, skopeo and docker keep what their login commands wrote, in the order of podman. */
static int default_files_locate(struct default_files *files, struct error *e)
{
        _cleanup_free_ char *home = NULL;
        const char *runtime = environment("XDG_RUNTIME_DIR"), *config = environment("XDG_CONFIG_HOME"),
                   *docker = environment("DOCKER_CONFIG");
        int r;

        r = home_directory(&home, e);
        if (r < 0)
                return r;

        if (runtime)
                r = set_path(&files->paths[0], str_printf("%s/containers/auth.json", runtime), e);
        else
                r = set_path(&files->paths[0], str_printf("/run/containers/%u/auth.json", getuid()), e);
        if (r == 0 && config)
                r = set_path(&files->paths[1], str_printf("%s/containers/auth.json", config), e);
        else if (r == 0 && home)
                r = set_path(&files->paths[1], str_printf("%s/.config/containers/auth.json", home), e);
        if (r == 0 && docker)
                r = set_path(&files->paths[2], str_printf("%s/config.json", docker), e);
        else if (r == 0 && home)
                r = set_path(&files->paths[2], str_printf("%s/.docker/config.json", home), e);
        return r;
}

static int find_in_default_files(const struct credential_subject *subject, struct credential *ret, struct error *e)
{
        _cleanup_(default_files_clear) struct default_files files = {};
        int r;

        r = default_files_locate(&files, e);
        if (r < 0)
                return r;

        for (size_t i = 0; i < CREDENTIAL_FILES_MAX; i++) {
                struct credential c = {};

                if (!files.paths[i])
                        continue;
                r = credential_file_find(files.paths[i], true, subject, &c, e);
                if (r < 0)
                        return r;
                if (!credential_is_anonymous(&c)) {
                        *ret = c;
                        return 0;
                }
        }

        *ret = (struct credential) {};
        return 0;
}

int credential_files(const struct credential_options *options, char *ret[CREDENTIAL_FILES_MAX], struct error *e)
{
        const char *file = options->authfile ? options->authfile : environment("REGISTRY_AUTH_FILE");
        struct default_files files = {};
        int r;

        if (file)
                r = set_path(&files.paths[0], strdup(file), e);
        else
                r = default_files_locate(&files, e);
        for (size_t i = 0; i < CREDENTIAL_FILES_MAX; i++)
                ret[i] = files.paths[i];
        return r;
}

static int find_in_files(const struct credential_options *options, const struct credential_subject *subject,
                         struct credential *ret, struct error *e)
{
        const char *file = environment("REGISTRY_AUTH_FILE");
        int r;

        if (options->authfile)
                return credential_file_find(options->authfile, false, subject, ret, e);
        if (!file)
                return find_in_default_files(subject, ret, e);

        r = credential_file_find(file, false, subject, ret, e);
        if (r < 0)
                error_prefix(e, "$REGISTRY_AUTH_FILE");
        return r;
}

int credential_find_subject(const struct credential_options *options, const struct credential_subject *subject,
                            struct credential *ret, struct error *e)
{
        int r;

        if (options->creds) {
                log_debug("credential for %s: given with the command", subject->host);
                return credential_parse(options->creds, ret, e);
        }

        r = find_in_files(options, subject, ret, e);
        if (r == 0 && credential_is_anonymous(ret))
                log_debug("credential for %s: none found", subject->host);
        return r;
}

int credential_find(const struct credential_options *options, const char *host, const char *repository,
                    struct credential *ret, struct error *e)
{
        const struct credential_subject subject = {
                .host = host,
                .repository = repository ? repository : "",
                .helper_limit_ms = CREDENTIAL_HELPER_LIMIT_MS,
        };

        return credential_find_subject(options, &subject, ret, e);
}
