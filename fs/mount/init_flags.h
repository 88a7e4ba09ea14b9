/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* libfuse 3.14.0 to 3.16.2 lets a filesystem ask for FUSE_CAP_PARALLEL_DIROPS and then forgets to tell the kernel.
 * For those versions the answer to FUSE_INIT is amended on its way out; for all others this does nothing. */

struct fuse_session;

/* After fuse_session_mount. Returns 0 or -errno. */
int init_flags_install(struct fuse_session *fuse);
