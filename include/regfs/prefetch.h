/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Bringing content of an open image into the store before somebody reads it: all of it, or the files and directories
 * that a list names, layer by layer in the order of the blobs. */

#include "regfs/image.h"

struct prefetch;

/* WHAT: "all", or the name of a file with one path of the image on each line, of a file or of a directory with all that
 * is below it; symlinks are followed. A path that the image does not have is told in the log. IMAGE outlives it.
 * -ENOENT and so on with E where the list can't be read. */
int prefetch_new(struct image *i, const char *what, struct prefetch **ret, struct error *e);

/* Ends the thread, if there is one, when its flights have ended. NULL is legal. */
struct prefetch *prefetch_free(struct prefetch *p);
DEFINE_CLEANUP(struct prefetch *, prefetch_free)

/* Bytes of the blobs, compressed. Thread-safe. */
struct prefetch_status {
        uint64_t total;
        uint64_t done; /* of them, what is there; also what was there before */
};
void prefetch_get_status(struct prefetch *p, struct prefetch_status *ret);

/* Brings it all, and waits. PROGRESS is called several times a second; not 0 ends it with -ECANCELED. 0, or -errno with E
 * after the first failure; what has come by then stays. */
int prefetch_run(struct prefetch *p, int (*progress)(void *context, const struct prefetch_status *status),
                 void *context, struct error *e);

/* Brings it in the background, at lowest priority, in a thread of that name, which is there until prefetch_free. What
 * fails is told in the log and tried again after a while. */
#define PREFETCH_THREAD "prefetch"
int prefetch_start(struct prefetch *p, struct error *e);
