/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What a process that serves a mount may still do once it meets bytes that others wrote: open the files that it was
 * told of (Landlock), make the system calls of a list (seccomp), and gain nothing by exec (no_new_privs), which is not
 * on that list either.
 *
 * All of it belongs to threads and is inherited by the threads that they start; there is no way back. So each thread
 * either enters a sandbox itself or was started by one that had.
 *
 * Refused with EPERM: every call that is not listed; fork; anything executable in memory; sockets but TCP and UDP (and
 * the kernel's routing table, for getaddrinfo); signals to other processes. Refused with ENOSYS: clone3, whose
 * arguments no filter sees, so that the C library falls back to clone. The process is killed for what no mistake
 * explains: exec, ptrace and the memory of other processes, mount and its kind, kernel modules, BPF, kexec.
 * Refused with EACCES: opening, making or removing a file that no rule allows; names can be looked up everywhere. */

#include "regfs.h"
#include "regfs/error.h"

struct sandbox;

enum sandbox_access {
        SANDBOX_READ,  /* files, and directories below */
        SANDBOX_WRITE, /* and make, change and remove them */
        SANDBOX_MAKE,  /* make directories below */
        SANDBOX_SPOOL, /* files without a name in a directory; where its filesystem has no such thing, with one */
};

/* False where it is not in this build. */
bool sandbox_is_built(void);

/* One without any rule for files. The filter is for the process that calls this. */
int sandbox_new(struct sandbox **ret, struct error *e);
struct sandbox *sandbox_free(struct sandbox *s);
DEFINE_CLEANUP(struct sandbox *, sandbox_free)

/* Allows ACCESS to PATH, a file or all of a directory; what is not there needs no rule. A rule is for the file that has
 * that name now. */
int sandbox_allow(struct sandbox *s, const char *path, enum sandbox_access access, struct error *e);

/* sandbox_allow for reading, also where symbolic links in the directory lead to. */
int sandbox_allow_linked(struct sandbox *s, const char *directory, struct error *e);

/* Confines the calling thread. Where the kernel has no Landlock a log line (info) says so, and the rest is done. */
int sandbox_enter(struct sandbox *s, struct error *e);

/* All rules that opening and serving an image take, by its options: the store, layout or archive, the configuration of
 * registries, certificates, what names are resolved with, $TMPDIR. Credential files are not among them: they are the
 * broker's (broker.h). */
int sandbox_allow_image(struct sandbox *s, const char *reference, const struct regfs_options *options, struct error *e);

/* Sets $HOME where it is missing, to what would be looked up in the password database. Before threads exist. */
void sandbox_settle_home(void);

/* Loads what libraries would otherwise load from files when they first need it. */
void sandbox_preload(void);
