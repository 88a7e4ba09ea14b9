/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* libregfs: read container images straight from their registry, without unpacking and without a mount.
 *
 *     struct regfs_options options = REGFS_OPTIONS_INIT;
 *     struct regfs_image *image;
 *     struct regfs_error error;
 *     uint64_t ino;
 *     char text[4096];
 *
 *     if (regfs_open("alpine:edge", &options, &image, &error) < 0)
 *             errx(error.kind, "%s", error.message);
 *     if (regfs_lookup(image, "/etc/os-release", 0, &ino, &error) == 0) {
 *             ssize_t n = regfs_read(image, ino, text, sizeof(text), 0, &error);
 *             …
 *     }
 *     regfs_close(image);
 *
 * An image is read-only and immutable: everything but file content is answered from memory. All functions but
 * regfs_open and regfs_close may be called from any thread at any time on the same image. Functions return 0 (or a
 * count), or a negative errno value with *error filled (error may be NULL); outputs are set on success only. Nothing
 * is printed.
 *
 * Do not fork between regfs_open and regfs_close and use the image in the child: it has threads. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define REGFS_API __attribute__((visibility("default")))

/* What kind of thing went wrong; the exit codes of the regfs command. */
enum regfs_error_kind {
        REGFS_ERROR_NONE = 0,
        REGFS_ERROR_OTHER = 1,
        REGFS_ERROR_USAGE = 2,
        REGFS_ERROR_NOT_FOUND = 3,
        REGFS_ERROR_DENIED = 4,
        REGFS_ERROR_UNREACHABLE = 5,
        REGFS_ERROR_BAD_DATA = 6,
        REGFS_ERROR_MOUNT = 7,
};

struct regfs_error {
        enum regfs_error_kind kind;
        int code;           /* a positive errno value */
        char message[1000]; /* one line; names the object and the cause */
};

/* How far regfs_open has come. */
struct regfs_progress {
        unsigned layers;      /* of the image */
        unsigned layers_done; /* indexed, or known before */
        uint64_t bytes;       /* compressed bytes that have to be read to index the layers */
        uint64_t bytes_done;
};

/* Zero or NULL means the default everywhere. Strings are borrowed for the call. */
struct regfs_options {
        size_t size;                 /* sizeof(struct regfs_options): REGFS_OPTIONS_INIT sets it */
        const char *platform;        /* "os/arch[/variant]"; default: the host's */
        const char *cache_dir;       /* the store; default: $REGFS_CACHE_DIR, else /var/cache/regfs for root, else
                                      * $XDG_CACHE_HOME/regfs or ~/.cache/regfs */
        const char *creds;           /* "USER:PASSWORD" */
        const char *authfile;        /* default: $REGISTRY_AUTH_FILE, then podman's and docker's files */
        const char *registries_conf; /* default: $CONTAINERS_REGISTRIES_CONF, then the user's and the system's */
        bool plain_http;             /* talk http to the registry */
        bool tls_no_verify;          /* accept any certificate */
        bool tls_verify;             /* verify even where registries.conf says insecure */
        unsigned timeout_s;          /* patience for one thing, with all retries; default: 60 */
        size_t memory;               /* bytes of the buffer pool; default: 64 MiB */
        /* Called now and then from regfs_open's thread while layers are indexed; non-zero ends it with -ECANCELED. */
        int (*progress)(void *context, const struct regfs_progress *progress);
        void *progress_context;
        /* Published indexes: "auto" (the default: what the image binds, and for a reference without a digest also what
         * lies beside it), "none" (the layers alone, not even the tables that they carry), "referrers" (also for a
         * reference by digest), or the reference of an index. */
        const char *index;
        /* Finished stores, NULL-terminated, that are only read and looked into when the store does not have something:
         * another user's, on read-only media, exported by another machine. Naming one is trusting its owner. Or NULL. */
        const char *const *stores;
        /* No request is made to a registry: tags are what they last resolved to, and what no store has is missing: at once
         * for an image that cannot be opened without it, at the read (-EIO) for content. */
        bool offline;
        /* Bytes that the store may hold, REGFS_CACHE_NOTHING for none; default: 10 GiB, and never the last 5 % of the
         * disk. What was not used for longest makes room. */
        uint64_t cache_size;
};

#define REGFS_CACHE_NOTHING UINT64_MAX

#define REGFS_OPTIONS_INIT                           \
        {                                            \
                .size = sizeof(struct regfs_options) \
        }

struct regfs_image;

/* "1.2.3" */
REGFS_API const char *regfs_version(void);

/* Opens the image that REFERENCE names: [docker://]NAME[:TAG][@DIGEST], oci:DIR[:TAG], docker-archive:FILE[:REF].
 * Layers that nobody indexed yet are read once, whole; known images cost at most one request. Blocks. */
REGFS_API int regfs_open(const char *reference, const struct regfs_options *options, struct regfs_image **ret,
                         struct regfs_error *error);

/* NULL is legal. Nobody may be inside another function with IMAGE. */
REGFS_API void regfs_close(struct regfs_image *image);

/* The canonical reference, the digest of the image's manifest ("sha256:…"), its platform: borrowed from the image. */
REGFS_API const char *regfs_reference(const struct regfs_image *image);
REGFS_API const char *regfs_digest(const struct regfs_image *image);
REGFS_API const char *regfs_platform(const struct regfs_image *image);

#define REGFS_ROOT 1 /* the inode number of the root */

enum regfs_lookup_flags {
        REGFS_FOLLOW = 1 << 0, /* follow a symlink in the last component too */
};

/* The inode at PATH. Symlinks in the middle are followed, inside the image's own root.
 * -ENOENT, -ENOTDIR, -ELOOP, -ENAMETOOLONG. */
REGFS_API int regfs_lookup(struct regfs_image *image, const char *path, unsigned flags, uint64_t *ret_ino,
                           struct regfs_error *error);

/* st_ino is stable: the same image has the same numbers everywhere. st_dev is 0. */
REGFS_API int regfs_stat(struct regfs_image *image, uint64_t ino, struct stat *ret, struct regfs_error *error);

/* The target of a symlink, NUL-terminated, borrowed from the image. -EINVAL for anything else. */
REGFS_API int regfs_readlink(struct regfs_image *image, uint64_t ino, const char **ret, struct regfs_error *error);

struct regfs_dirent {
        uint64_t ino;
        uint32_t mode;    /* type and permission bits */
        const char *name; /* not NUL-terminated; borrowed from the image */
        size_t name_length;
};

/* Entry number INDEX (from 0) of a directory, in byte order of the names, without "." and "..".
 * Returns 1, or 0 behind the last one. */
REGFS_API int regfs_list(struct regfs_image *image, uint64_t ino, uint32_t index, struct regfs_dirent *ret,
                         struct regfs_error *error);

/* The value of an extended attribute, borrowed from the image. -ENODATA when there is none of that name. */
REGFS_API int regfs_getxattr(struct regfs_image *image, uint64_t ino, const char *name, const void **ret,
                             size_t *ret_length, struct regfs_error *error);

/* Name number INDEX of the extended attributes. Returns 1, or 0 behind the last one. */
REGFS_API int regfs_listxattr(struct regfs_image *image, uint64_t ino, uint32_t index, const char **ret,
                              struct regfs_error *error);

/* Reads up to SIZE bytes of a regular file at OFFSET: fewer only at the end of the file, 0 behind it. Fetches,
 * verifies and decodes what is not in the store; blocks for as long as that takes, at most the timeout. */
REGFS_API ssize_t regfs_read(struct regfs_image *image, uint64_t ino, void *data, size_t size, uint64_t offset,
                             struct regfs_error *error);

#ifdef __cplusplus
}
#endif
