/* SPDX-License-Identifier: Apache-2.0 */

/* What is done with one item of a store's inventory: opening it, asking who uses it, removing it, reading a ref. */

#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>

#include "regfs/inventory.h"
#include "store_internal.h"

/* Where the filesystem has no locks, only a draft's age tells. */
#define UNCLAIMED_AGE_S (24 * 60 * 60)

const char *const inventory_part_names[INVENTORY_PARTS] = { "toc", "content", "map" };

/* ---- opening ---- */

int inventory_open(struct store *s, const struct inventory_item *item, const char *file, bool writes)
{
        const int flags = (writes ? O_RDWR : O_RDONLY) | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;
        _cleanup_free_ char *path = file ? str_printf("%s/%s", item->path, file) : strdup(item->path);
        _cleanup_close_ int fd = -1;
        struct stat st;

        if (!path)
                return -ENOMEM;
        fd = openat(s->fd, path, flags | O_NOATIME);
        if (fd < 0 && errno == EPERM) /* not the file's owner */
                fd = openat(s->fd, path, flags);
        if (fd < 0 || fstat(fd, &st) < 0)
                return -errno;
        return S_ISREG(st.st_mode) ? steal_fd(&fd) : -EINVAL;
}

/* ---- who uses it ---- */

/* Everybody who has a layer's content open holds a lock somewhere in its map. */
static bool layer_is_in_use(struct store *s, const struct inventory_item *item)
{
        struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
        _cleanup_close_ int fd = -1;

        if (!atomic_load(&s->locks))
                return false;
        fd = inventory_open(s, item, "map", false);
        return fd >= 0 && fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

static bool draft_is_in_use(struct store *s, const struct inventory_item *item)
{
        int64_t age = (int64_t) time(NULL) - item->used;
        _cleanup_close_ int fd = -1;

        /* A lock that is tried too early could keep the writer itself from claiming its draft. */
        if (age < INVENTORY_DRAFT_GRACE_S)
                return true;
        if (!atomic_load(&s->locks))
                return age < UNCLAIMED_AGE_S;
        fd = openat(s->fd, item->path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        if (fd < 0)
                return false;
        if (flock(fd, LOCK_EX | LOCK_NB) == 0)
                return false;
        return errno == EWOULDBLOCK || age < UNCLAIMED_AGE_S;
}

bool inventory_is_in_use(struct store *s, const struct inventory_item *item)
{
        return item->kind == INVENTORY_LAYER   ? layer_is_in_use(s, item)
               : item->kind == INVENTORY_DRAFT ? draft_is_in_use(s, item)
                                               : false;
}

/* ---- removal ---- */

/* The directories that held PATH, where they are empty now. */
static void remove_parents(struct store *s, const char *path, unsigned levels)
{
        char parent[STORE_PATH_MAX];

        snprintf(parent, sizeof(parent), "%s", path);
        for (; levels > 0; levels--) {
                char *slash = strrchr(parent, '/');

                if (!slash)
                        return;
                *slash = '\0';
                if (unlinkat(s->fd, parent, AT_REMOVEDIR) < 0)
                        return;
        }
}

static int unlink_item(struct store *s, const char *path, struct error *e)
{
        if (unlinkat(s->fd, path, 0) < 0 && errno != ENOENT)
                return error_errno(e, errno, "store %s: removing %s", s->path, path);
        return 0;
}

/* The TOC goes first: without it the rest is nobody's. */
static int remove_parts(struct store *s, const struct inventory_item *item, struct error *e)
{
        static const enum inventory_part order[] = { INVENTORY_TOC, INVENTORY_MAP, INVENTORY_CONTENT };
        int r = 0;

        for (size_t k = 0; k < ELEMENTSOF(order) && r == 0; k++) {
                _cleanup_free_ char *path = str_printf("%s/%s", item->path, inventory_part_names[order[k]]);

                r = path ? unlink_item(s, path, e) : error_oom(e);
        }
        return r;
}

int inventory_remove(struct store *s, const struct inventory_item *item, struct error *e)
{
        int r = store_check_writable(s, e);

        if (r < 0)
                return r;
        switch (item->kind) {
        case INVENTORY_LAYER:
                if (item->has_foreign)
                        return remove_parts(s, item, e);
                r = store_layer_remove(s, &item->digest, item->layer_kind, e);
                if (r == 0)
                        remove_parents(s, item->path, 1);
                return r;
        case INVENTORY_REF:
                r = unlink_item(s, item->path, e);
                if (r == 0)
                        remove_parents(s, item->path, 2);
                return r;
        case INVENTORY_BLOB:
        case INVENTORY_IMAGE:
                return unlink_item(s, item->path, e);
        case INVENTORY_DRAFT:
                r = store_remove_tree(s->fd, item->path);
                return r < 0 ? error_errno(e, -r, "store %s: removing %s", s->path, item->path) : 0;
        case INVENTORY_FOREIGN:
        case INVENTORY_KINDS:
                break;
        }
        return error_set(e, ERROR_DENIED, EPERM, "store %s: %s is nothing of regfs's: left alone", s->path, item->path);
}

int inventory_remove_same(struct store *s, const struct inventory_item *item, int fd, struct error *e)
{
        _cleanup_close_ int now = inventory_open(s, item, item->kind == INVENTORY_LAYER ? "toc" : NULL, false);
        struct stat seen, there;

        if (now == -ENOENT)
                return 0;
        if (now >= 0 && fstat(fd, &seen) == 0 && fstat(now, &there) == 0 &&
            (seen.st_ino != there.st_ino || seen.st_dev != there.st_dev))
                return 0; /* somebody has put another one there */
        return inventory_remove(s, item, e);
}

int inventory_remove_map(struct store *s, const struct inventory_item *layer, struct error *e)
{
        char path[STORE_PATH_MAX];
        int r = store_check_writable(s, e);

        if (r == 0)
                r = store_layer_path(&layer->digest, layer->layer_kind, "map", path, e);
        return r < 0 ? r : unlink_item(s, path, e);
}

/* ---- refs ---- */

/* The text of one component, to *B. */
static int unescape(const char *s, size_t n, struct buf *b)
{
        int r = 0;

        for (size_t k = 0; k < n && r == 0; k++) {
                char digits[3] = { 0 };
                uint8_t byte;

                if (s[k] != '%') {
                        r = buf_append_char(b, s[k]);
                        continue;
                }
                if (k + 1 < n && s[k + 1] == '~')
                        return buf_append_str(b, "...");
                for (size_t d = 0; d < 2 && k + 1 + d < n; d++) {
                        char c = s[k + 1 + d];

                        digits[d] = c >= 'A' && c <= 'F' ? (char) (c - 'A' + 'a') : c;
                }
                if (hex_decode(digits, 1, &byte) < 0 || byte == 0) {
                        r = buf_append_char(b, '%');
                        continue;
                }
                r = buf_append_char(b, (char) byte);
                k += 2;
        }
        return r;
}

char *inventory_ref_name(const struct inventory_item *ref, bool *ret_is_record)
{
        static const char separators[] = "/:";
        const char *rest = str_after(ref->path, "refs/");
        _cleanup_buf_ struct buf b = { 0 };
        int r = 0;

        for (size_t k = 0; rest && r == 0; k++) {
                size_t n = strcspn(rest, "/");

                r = unescape(rest, n, &b);
                if (rest[n] == '\0')
                        break;
                if (r == 0)
                        r = buf_append_char(&b, separators[MIN(k, (size_t) 1)]);
                rest += n + 1;
        }
        if (r < 0)
                return NULL;
        *ret_is_record = rest && str_after(rest, "index%40");
        return buf_steal(&b);
}

int inventory_ref_read(int fd, struct digest *ret, int64_t *ret_time)
{
        char text[STORE_REF_MAX + 1];
        size_t n = 0;

        while (n < sizeof(text)) {
                ssize_t got = pread(fd, text + n, sizeof(text) - n, (off_t) n);

                if (got < 0 && errno != EINTR)
                        return -errno;
                if (got == 0)
                        break;
                n += got > 0 ? (size_t) got : 0;
        }
        if (n == 0 || n == sizeof(text))
                return -EBADMSG;
        text[n] = '\0';
        return store_parse_ref(text, n, ret, ret_time);
}
