/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Prefixes of image names, the same in registries.conf and in policy.json:
 *
 *     host[:port][/namespace…][/repository[:tag|@digest]]
 *     *.host                                               any subdomain, any port
 *
 * A prefix ends where a component of the name ends; without a port it means a host without one. Hosts are compared
 * without regard to case. */

#include "regfs/reference.h"

struct image_name {
        char *name;   /* "docker.io/library/alpine" */
        char *suffix; /* ":edge" or "@sha256:…"; a digest wins over a tag */
};

void image_name_clear(struct image_name *n);
#define _cleanup_image_name_ _cleanup_(image_name_clear)

/* REF is a registry reference with its host. Returns 0 or -ENOMEM. */
int image_name_of(const struct reference *ref, struct image_name *ret);

/* The bytes of n->name that PREFIX stands for (the whole name for a prefix with a tag or digest), or 0 when it does not
 * match. */
size_t prefix_match(const char *prefix, const struct image_name *n);

/* Among two prefixes that match the same name: the longer one is more specific; a literal one more than a wildcard. */
bool prefix_is_more_specific(const char *a, const char *b);
