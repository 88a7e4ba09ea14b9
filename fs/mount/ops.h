/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The FUSE operations of one session. They answer metadata from the image index, at once; a read whose bytes are not
 * in the store is answered by the worker that ends its flight. */

#define FUSE_USE_VERSION 312

#include <fuse_lowlevel.h>

#include "regfs/image.h"
#include "regfs/thread.h"

struct map;

/* What the operations get as user data. */
struct ops_state {
        struct image *image;
        struct prefetch *prefetch; /* or NULL */
        struct mutex lock;
        struct cond idle;
        struct map *pending GUARDED_BY(lock); /* id → struct pending: reads that wait for a flight */
        uint64_t next_id GUARDED_BY(lock);
};

extern const struct fuse_lowlevel_ops fuse_operations;

/* Answers a read of [offset, offset + size) of a regular file, a range that lies within it; now or later, never
 * short. */
void read_reply(fuse_req_t req, fuse_ino_t ino, uint64_t offset, size_t size);

int ops_state_init(struct ops_state *s, struct image *image);

/* Cancels every pending read and waits until each has been answered. */
void ops_state_drain(struct ops_state *s);
void ops_state_clear(struct ops_state *s);
