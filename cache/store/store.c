/* SPDX-License-Identifier: Apache-2.0 */

#include "regfs/store.h"

#include <dirent.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>

#include "regfs/io.h"
#include "regfs/log.h"
#include "store_internal.h"

#define LEFTOVER_AGE (24 * 60 * 60)
#define DRAFT_RANDOM_SIZE 16
#define TREE_DEPTH_MAX 16
#define KEY_MAX 129
#define MOVE_ATTEMPTS 8

/* ---- open ---- */

static const char *environment(const char *name)
{
        const char *value = getenv(name);

        return value && *value ? value : NULL;
}

static int below_home(char **ret, struct error *e)
{
        const char *cache = environment("XDG_CACHE_HOME"), *home = environment("HOME");
        _cleanup_free_ char *memory = NULL;
        struct passwd entry, *found = NULL;
        const size_t size = 16 * KIB;

        /* The XDG base directory specification wants a relative value ignored. */
        if (cache && *cache == '/') {
                *ret = str_printf("%s/regfs", cache);
                return *ret ? 0 : error_oom(e);
        }
        if (!home) {
                memory = malloc(size);
                if (!memory)
                        return error_oom(e);
                if (getpwuid_r(geteuid(), &entry, memory, size, &found) == 0 && found && *entry.pw_dir)
                        home = entry.pw_dir;
        }
        if (!home)
                return error_set(e, ERROR_USAGE, ENOENT,
                                 "no place for the store: none of REGFS_CACHE_DIR, XDG_CACHE_HOME and HOME is set");
        *ret = str_printf("%s/.cache/regfs", home);
        return *ret ? 0 : error_oom(e);
}

int store_default_path(char **ret, struct error *e)
{
        const char *directory = environment("REGFS_CACHE_DIR");

        if (!directory && geteuid() == 0)
                directory = "/var/cache/regfs";
        if (!directory)
                return below_home(ret, e);
        *ret = strdup(directory);
        return *ret ? 0 : error_oom(e);
}

/* What the store says is believed: TOCs and image indexes carry checksums, no signatures. So nobody else may write
 * there. */
static int check_owner(struct store *s, struct error *e)
{
        struct stat st;

        if (fstat(s->fd, &st) < 0)
                return error_errno(e, errno, "store %s", s->path);
        if (st.st_uid != geteuid())
                return error_set(e, ERROR_DENIED, EPERM, "store %s belongs to user %ju, not to user %ju: refused",
                                 s->path, (uintmax_t) st.st_uid, (uintmax_t) geteuid());
        if (st.st_mode & (S_IWGRP | S_IWOTH))
                return error_set(e, ERROR_DENIED, EPERM, "store %s is writable by others (mode %04o): refused", s->path,
                                 (unsigned) st.st_mode & 07777);
        s->owner = st.st_uid;
        return 0;
}

static int open_directory(struct store *s, struct error *e)
{
        const int flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
        int r;

        s->fd = open(s->path, flags);
        if (s->fd < 0 && errno == ENOENT) {
                r = make_directories(s->path, 0700, e);
                if (r < 0) {
                        error_prefix(e, "store %s", s->path);
                        return r;
                }
                s->fd = open(s->path, flags);
        }
        if (s->fd < 0)
                return error_errno(e, errno, "store %s", s->path);
        return check_owner(s, e);
}

static int make_layout(struct store *s, struct error *e)
{
        static const char *const names[] = { "blobs", "refs", "layers", "images", "tmp" };

        if (faccessat(s->fd, ".", W_OK | X_OK, AT_EACCESS) < 0) {
                if (errno != EROFS && errno != EACCES)
                        return error_errno(e, errno, "store %s", s->path);
                s->read_only = true;
                log_debug("store %s is read-only", s->path);
                return 0;
        }
        for (size_t k = 0; k < ELEMENTSOF(names); k++) {
                int r = mkdirat(s->fd, names[k], 0700) < 0 ? -errno : 0;

                if (r == 0 || r == -EEXIST)
                        continue;
                if (!store_is_at_fault(r))
                        return error_errno(e, -r, "store %s: directory %s", s->path, names[k]);
                log_info("store %s: directory %s: %s", s->path, names[k], strerrordesc_np(-r));
                s->read_only = true;
                s->refused = -r;
                return 0;
        }
        return 0;
}

/* True when what lies at tmp/NAME is a draft that is old and nobody's: its writer claims it as long as that lives.
 * Anything else is not the store's: its directory may be one that the user has had before, with a tmp of its own. */
static bool is_leftover(struct store *s, int tmp, const char *name, time_t now)
{
        _cleanup_close_ int fd = -1;
        struct stat st;

        if (!store_is_draft_name(name) || fstatat(tmp, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
                return false;
        if ((!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode)) || now - st.st_mtime < LEFTOVER_AGE)
                return false;
        if (!atomic_load(&s->locks))
                return true;
        fd = openat(tmp, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        return fd < 0 || flock(fd, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK;
}

static void remove_leftovers(struct store *s)
{
        _cleanup_close_ int fd = openat(s->fd, "tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        time_t now = time(NULL);
        struct dirent *entry;
        DIR *d;

        d = fd < 0 ? NULL : fdopendir(fd);
        if (!d)
                return;
        fd = -1;
        while ((entry = readdir(d))) {
                int r;

                if (!is_leftover(s, dirfd(d), entry->d_name, now))
                        continue;
                r = store_remove_tree(dirfd(d), entry->d_name);
                log_debug("store %s: leftover tmp/%s: %s", s->path, entry->d_name, r < 0 ? strerror(-r) : "removed");
        }
        closedir(d);
}

int store_open(const char *directory, struct store **ret, struct error *e)
{
        _cleanup_(store_close_ptr) struct store *s = calloc(1, sizeof(*s));
        int r = 0;

        if (!s)
                return error_oom(e);
        s->fd = -1;
        mutex_init(&s->lock);
        evictor_init(s);
        if (!directory)
                r = store_default_path(&s->path, e);
        else if (!*directory)
                r = error_set(e, ERROR_USAGE, EINVAL, "the store's directory has an empty name");
        else if (!(s->path = strdup(directory)))
                r = error_oom(e);
        if (r == 0)
                r = open_directory(s, e);
        if (r == 0)
                r = make_layout(s, e);
        if (r < 0)
                return r;
        store_look_at_filesystem(s);
        if (!s->read_only)
                remove_leftovers(s);
        *ret = steal_ptr(s);
        return 0;
}

struct store *store_close(struct store *s)
{
        if (!s)
                return NULL;
        evictor_clear(s);
        store_clear_lowers(s);
        store_unnamed_clear(s);
        mutex_destroy(&s->lock);
        if (s->fd >= 0)
                close(s->fd);
        free(s->path);
        free(s);
        return NULL;
}

const char *store_path(const struct store *s)
{
        return s->path;
}

/* ---- names ---- */

bool store_name_is_valid(const char *name, size_t max)
{
        const char *c = name;

        for (; *c; c++) {
                bool alphanumeric = (*c >= 'a' && *c <= 'z') || (*c >= '0' && *c <= '9');

                if (!alphanumeric && (c == name || !strchr("._-", *c)))
                        return false;
        }
        return c > name && (size_t) (c - name) < max;
}

static int digest_path(const char *directory, const struct digest *digest, char out[STORE_PATH_MAX], struct error *e)
{
        char hex[2 * DIGEST_MAX_SIZE + 1];

        if (digest->algorithm != DIGEST_SHA256 && digest->algorithm != DIGEST_SHA512)
                return error_set(e, ERROR_OTHER, EINVAL, "a digest without algorithm names nothing in the store");
        snprintf(out, STORE_PATH_MAX, "%s/%s/%s", directory, digest_algorithm_name(digest->algorithm),
                 digest_hex(digest, hex));
        return 0;
}

int store_layer_path(const struct digest *layer, const char *kind, const char *file, char out[STORE_PATH_MAX],
                     struct error *e)
{
        size_t n;
        int r;

        if (!store_name_is_valid(kind, LAYER_KIND_MAX))
                return error_set(e, ERROR_OTHER, EINVAL, "\"%.100s\" is no kind of layer", kind);
        r = digest_path("layers", layer, out, e);
        if (r < 0)
                return r;
        n = strlen(out);
        snprintf(out + n, STORE_PATH_MAX - n, file ? "/%s/%s" : "/%s", kind, file);
        return 0;
}

/* ---- moving, removing ---- */

int store_draft_name(const char *what, char *out, struct error *e)
{
        uint8_t random[DRAFT_RANDOM_SIZE];
        char hex[2 * sizeof(random) + 1];

        if (getrandom(random, sizeof(random), 0) != (ssize_t) sizeof(random))
                return error_errno(e, errno, "random bytes for a file's name");
        hex_encode(random, sizeof(random), hex);
        snprintf(out, sizeof(((struct store_draft *) NULL)->name), "tmp/%s-%s", what, hex);
        return 0;
}

bool store_is_draft_name(const char *name)
{
        const char *dash = strrchr(name, '-');
        uint8_t random[DRAFT_RANDOM_SIZE];

        return dash && dash > name && strspn(name, "abcdefghijklmnopqrstuvwxyz-") >= (size_t) (dash - name) &&
               hex_decode(dash + 1, sizeof(random), random) == 0;
}

bool store_is_image_key(const char *name)
{
        uint8_t key[SHA256_SIZE];

        return hex_decode(name, sizeof(key), key) == 0;
}

int store_parse_digest(const char *algorithm, const char *hex, struct digest *ret)
{
        char text[DIGEST_STRING_MAX + 1];
        int n = snprintf(text, sizeof(text), "%.*s:%.*s", (int) strcspn(algorithm, "/"), algorithm,
                         (int) strcspn(hex, "/"), hex);

        return n < 0 || (size_t) n >= sizeof(text) ? -EINVAL : digest_parse(text, ret, NULL);
}

int store_check_writable(const struct store *s, struct error *e)
{
        return s->read_only ? error_errno(e, s->refused ? s->refused : EROFS, "store %s", s->path) : 0;
}

void store_draft_claim(struct store *s, int fd)
{
        /* A filesystem without locks leaves the age alone to decide. */
        if (atomic_load(&s->locks))
                (void) flock(fd, LOCK_SH | LOCK_NB);
}

static int make_parents(struct store *s, const char *path)
{
        char parent[STORE_PATH_MAX];

        for (const char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
                snprintf(parent, sizeof(parent), "%.*s", (int) (slash - path), path);
                if (mkdirat(s->fd, parent, 0700) < 0 && errno != EEXIST)
                        return -errno;
        }
        return 0;
}

int store_move(struct store *s, const char *from, const char *to)
{
        /* Somebody who prunes may remove the parents once more while they are empty. */
        for (unsigned attempt = 0;; attempt++) {
                int r;

                if (renameat(s->fd, from, s->fd, to) == 0)
                        return 0;
                if (errno != ENOENT || attempt == MOVE_ATTEMPTS)
                        return -errno;
                r = make_parents(s, to);
                if (r < 0 && r != -ENOENT)
                        return r;
        }
}

static int remove_tree(int at, const char *name, unsigned depth)
{
        _cleanup_close_ int fd = -1;
        struct dirent *entry;
        int r = 0;
        DIR *d;

        if (unlinkat(at, name, 0) == 0 || errno == ENOENT)
                return 0;
        if (errno != EISDIR && errno != EPERM)
                return -errno;
        if (depth == 0)
                return -ELOOP;
        fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0)
                return errno == ENOENT ? 0 : -errno;
        d = fdopendir(fd);
        if (!d)
                return -errno;
        fd = -1;
        while (r == 0 && (entry = readdir(d))) {
                if (!str_eq(entry->d_name, ".") && !str_eq(entry->d_name, ".."))
                        r = remove_tree(dirfd(d), entry->d_name, depth - 1);
        }
        closedir(d);
        if (r == 0 && unlinkat(at, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
                r = -errno;
        return r;
}

int store_remove_tree(int at, const char *name)
{
        return remove_tree(at, name, TREE_DEPTH_MAX);
}

/* ---- drafts ---- */

int store_draft_new(struct store *s, struct store_draft *ret, struct error *e)
{
        struct store_draft d = { .store = s };
        int r;

        r = store_check_writable(s, e);
        if (r == 0)
                r = store_draft_name("file", d.name, e);
        if (r < 0)
                return r;
        d.fd = openat(s->fd, d.name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (d.fd < 0)
                return error_errno(e, errno, "store %s: %s", s->path, d.name);
        store_draft_claim(s, d.fd);
        *ret = d;
        return 0;
}

void store_draft_clear(struct store_draft *d)
{
        if (!d->store)
                return;
        if (*d->name)
                (void) unlinkat(d->store->fd, d->name, 0);
        if (d->fd >= 0)
                close(d->fd);
        *d = (struct store_draft) STORE_DRAFT_INIT;
}

int store_draft_move(struct store_draft *d, const char *to, struct error *e)
{
        /* Another machine must not find the name before it can see the bytes. */
        int r = d->store->remote ? store_sync(d->fd) : 0;

        if (r == 0)
                r = store_move(d->store, d->name, to);
        if (r == -EEXIST && unlinkat(d->store->fd, to, 0) == 0) /* where a rename replaces nothing */
                r = store_move(d->store, d->name, to);
        if (r < 0)
                return error_errno(e, -r, "store %s: %s", d->store->path, to);
        *d->name = '\0';
        store_draft_clear(d);
        return 0;
}

int store_draft_publish_image(struct store_draft *d, const char *key, struct error *e)
{
        char path[STORE_PATH_MAX];
        int r;

        if (!store_name_is_valid(key, KEY_MAX))
                return error_set(e, ERROR_OTHER, EINVAL, "\"%.100s\" is no key of an image index", key);
        snprintf(path, sizeof(path), "images/%s", key);
        r = d->place == DRAFT_INSIDE ? store_draft_move(d, path, e) : 0;
        if (r < 0 && (!store_is_at_fault(r) || store_forgo(d->store, r, e) < 0))
                return r;
        store_draft_clear(d);
        return 0;
}

int store_image_open(struct store *s, const char *key)
{
        char path[STORE_PATH_MAX];

        if (!store_name_is_valid(key, KEY_MAX))
                return -EINVAL;
        snprintf(path, sizeof(path), "images/%s", key);
        return store_open_file(s, path);
}

/* Small files that are checked when they are read need no fsync: one that a crash tore counts as absent. */
int store_put_file(struct store *s, const char *path, const void *data, size_t n, struct error *e)
{
        _cleanup_draft_ struct store_draft d = STORE_DRAFT_INIT;
        int r;

        r = store_draft_new(s, &d, e);
        if (r < 0)
                return r;
        r = write_full(d.fd, data, n);
        if (r < 0)
                return error_errno(e, -r, "store %s: %s", s->path, path);
        return store_draft_move(&d, path, e);
}

/* ---- blobs ---- */

static int get_blob(struct store *s, const struct digest *digest, size_t max, struct buf *ret, struct error *e)
{
        _cleanup_buf_ struct buf b = { 0 };
        struct error why = ERROR_INIT;
        char path[STORE_PATH_MAX];
        int r;

        r = digest_path("blobs", digest, path, e);
        if (r < 0)
                return r;
        r = file_read(s->fd, path, max, &b, e);
        if (r == 0)
                r = buf_reserve(&b, 0);
        if (r < 0) {
                error_prefix(e, "store %s", s->path);
                return r;
        }
        r = digest_verify(digest, b.data, b.len, path, &why);
        if (r == -EBADMSG) {
                if (!s->read_only)
                        (void) unlinkat(s->fd, path, 0);
                log_warning("store %s: %s: counts as absent", s->path, why.message);
                return error_set(e, ERROR_NOT_FOUND, ENOENT, "store %s: %s", s->path, why.message);
        }
        if (r < 0)
                return error_errno(e, -r, "store %s: verifying %s", s->path, path);
        buf_free(ret);
        *ret = b;
        b = (struct buf) { 0 };
        return 0;
}

int store_blob_get(struct store *s, const struct digest *digest, size_t max, struct buf *ret, struct error *e)
{
        struct error other = ERROR_INIT;
        int r = get_blob(s, digest, max, ret, e);

        /* What is wrong with one store is no reason not to look into the next; the first one's words remain. */
        for (size_t k = 1; r < 0 && r != -EINVAL && store_at(s, k); k++)
                if (get_blob(store_at(s, k), digest, max, ret, &other) == 0)
                        r = 0;
        return r;
}

int store_blob_put(struct store *s, const struct digest *digest, const void *data, size_t n, struct error *e)
{
        char path[STORE_PATH_MAX];
        int r;

        r = digest_path("blobs", digest, path, e);
        if (r == 0)
                r = digest_verify(digest, data, n, path, e);
        return r < 0 ? r : store_put_file(s, path, data, n, e);
}
