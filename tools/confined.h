/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The sandbox of regfs mount (regfs/sandbox.h) in the order in which it has to come about:
 *
 * 1. confinement_begin, with one thread: the broker is forked off, which stays outside.
 * 2. confinement_open: the image is opened by a thread that is confined, and so are all that this starts: the first
 *    bytes of others that are parsed are parsed inside.
 * 3. The main thread mounts, which nobody inside could do.
 * 4. confinement_enter confines the main thread, too, before it starts those that serve. */

#include "command.h"
#include "regfs/image.h"
#include "regfs/mount.h"

struct confinement;

/* *RET stays NULL where there is to be no sandbox; the other functions take that. */
int confinement_begin(const struct command_options *o, const char *reference, const char *directory,
                      struct confinement **ret, struct error *e);

/* Ends the broker. What has been confined stays so. Returns NULL. */
struct confinement *confinement_end(struct confinement *c);
DEFINE_CLEANUP(struct confinement *, confinement_end)

/* image_open. */
int confinement_open(struct confinement *c, const char *reference, const struct regfs_options *options,
                     struct image **ret, struct error *e);

/* Has the session unmounted by the broker. */
void confinement_for_session(struct confinement *c, struct session_options *options);

int confinement_enter(struct confinement *c, struct error *e);
