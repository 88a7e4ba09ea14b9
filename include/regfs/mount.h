/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The FUSE side: a session that serves one image at one directory, and the kernel's table of such mounts. */

#include "regfs/error.h"
#include <sys/ioctl.h>

#include "regfs/image.h"
#include "regfs/prefetch.h"

struct session;

struct session_options {
        const char *directory;     /* absolute */
        struct prefetch *prefetch; /* that the mount tells about; borrowed; or NULL */
        const char *fuse_options;  /* "allow_other,default_permissions,…": handed to libfuse; or NULL */
        /* Unmounts in the place of libfuse, which may not any more in a process that is confined; or NULL. */
        int (*unmount)(void *context, struct error *e);
        void *unmount_context;
};

/* Checks that DIRECTORY can be mounted on, before anything is fetched: it exists, is a directory, nothing is mounted
 * there, no dead daemon's mount is left there, and FUSE is to be had. *RET_ABSOLUTE is its absolute path (the caller
 * frees). Errors are of kind MOUNT. */
int mountpoint_check(const char *directory, char **ret_absolute, struct error *e);

/* Mounts; the kernel may ask from now on, and session_run answers. The process must be the one that serves (its pid
 * goes into the mount table). IMAGE is borrowed for the session's life. */
int session_mount(struct image *image, const struct session_options *options, struct session **ret, struct error *e);

/* Serves until the mount is gone or SIGINT, SIGTERM or SIGHUP came; unmounts. Returns 0 or -errno with E. */
int session_run(struct session *s, struct error *e);

/* Unmounts if need be, ends pending reads. NULL is legal. */
struct session *session_free(struct session *s);
DEFINE_CLEANUP(struct session *, session_free)

/* ---- what a mount tells of itself ---- */

/* The answer to ioctl(2) MOUNT_GET_STATUS on the root of a mount. */
struct mount_status {
        int64_t pid;             /* of the process that serves it */
        uint64_t prefetch_total; /* bytes; 0: there is nothing to fetch */
        uint64_t prefetch_done;
};

#define MOUNT_GET_STATUS _IOR('r', 0x66, struct mount_status)

/* ---- the mount table ---- */

struct mount_entry {
        char *directory;
        char *reference; /* canonical */
        char *digest;
        char *platform;
        long pid;     /* 0 when unknown */
        bool answers; /* it has been asked and has told its status */
        struct mount_status status;
};

struct mount_table {
        struct mount_entry *items;
        size_t count;
};

/* The source that a regfs mount shows in the mount table, "REFERENCE@DIGEST#PLATFORM#PID". NULL when out of memory. */
char *mount_source_format(const char *reference, const char *digest, const char *platform, long pid);

/* The regfs mounts of this mount namespace, from /proc/self/mountinfo. */
int mount_table_read(struct mount_table *ret, struct error *e);
int mount_table_parse(char *text, struct mount_table *ret, struct error *e); /* its text, which is used up */
void mount_table_clear(struct mount_table *t);

/* Asks each mount that has something to tell for its status, and waits PATIENCE_MS for all of them together: dead ones, ones that hang and those of
 * other users do not answer. The process must have one thread. */
void mount_table_ask(struct mount_table *t, unsigned patience_ms);

/* Unmounts the regfs mount at DIRECTORY, a dead daemon's too, and waits until its daemon has ended (at most 10 s).
 * LAZY detaches a busy one. Errors are of kind MOUNT. */
int mount_remove(const char *directory, bool lazy, struct error *e);
