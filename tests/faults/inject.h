/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Makes the Nth call of a kind fail, and keeps account of what was taken and not given back. The program is linked with
 * -Wl,--wrap for each function in inject.c: what libregfs and the test call goes through here, what other libraries call
 * among themselves does not. */

#include "regfs/base.h"

enum fault_kind {
        FAULT_NONE,
        FAULT_ALLOC,  /* malloc, calloc, realloc, strdup, strndup, vasprintf, anonymous mmap, mremap: ENOMEM */
        FAULT_OPEN,   /* open, openat, mkostemp, fdopendir, eventfd, pipe2: EMFILE */
        FAULT_WRITE,  /* write, pwrite: ENOSPC */
        FAULT_SPACE,  /* ftruncate, fallocate: ENOSPC */
        FAULT_FULL,   /* write, pwrite, ftruncate, fallocate, mkdir, mkdirat, renameat, and open and openat that create,
                        * below the directory of fault_full_below: ENOSPC */
        FAULT_SYNC,   /* fsync: EIO */
        FAULT_RENAME, /* renameat: EIO */
        FAULT_MKDIR,  /* mkdir, mkdirat: ENOSPC */
        FAULT_MAP,    /* mmap of files: ENOMEM */
        FAULT_READ,   /* read, pread: EIO */
        FAULT_STAT,   /* fstat, fstatat: EIO */
        FAULT_LOCK,   /* fcntl, flock: ENOLCK */
        FAULT_THREAD, /* pthread_create: EAGAIN */
        FAULT_LIBRARY, /* what other libraries allocate: ENOMEM; only where interpose.c is linked in */
        FAULT_KINDS,
};

const char *fault_name(enum fault_kind kind);
int fault_errno(enum fault_kind kind);

/* From now on call number AT (from 1) of KIND fails and, with ON, every later one too. */
void fault_arm(enum fault_kind kind, uint64_t at, bool on);
/* Nothing fails any more. How many calls of the kind there were since fault_arm. */
uint64_t fault_disarm(void);

/* Where the disk is full, if it is: an absolute path. Borrowed. */
void fault_full_below(const char *path);

/* Asked by interpose.c for each allocation. */
bool fault_in_library(void);

/* The stack of the call that failed, to standard error. */
void fault_print(void);

/* What is out now: allocations and mappings that came through here, descriptors, threads. */
struct account {
        size_t allocations, mappings, descriptors, threads;
};
void account_take(struct account *ret);

/* Where the allocations were made that are younger than the last call of account_mark. */
void account_mark(void);
void account_print(void);
