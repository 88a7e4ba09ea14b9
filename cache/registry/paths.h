/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Where the configuration of container tools lies: below the user's ~/.config and below /etc. */

#include "regfs/base.h"
#include "regfs/error.h"

struct config_paths {
        char *user;   /* "$HOME/.config", or NULL when there is no home directory */
        char *system; /* "/etc" */
};

void config_paths_clear(struct config_paths *p);
#define _cleanup_config_paths_ _cleanup_(config_paths_clear)

/* The real ones: $HOME, else the user's entry in the password database. Returns 0 or -ENOMEM. */
int config_paths_default(struct config_paths *ret);
int config_paths_copy(const struct config_paths *p, struct config_paths *ret);

/* The user's file NAME ("containers/policy.json") when it exists, else the system's. Neither there: 0 and *RET is NULL.
 * *RET_IS_USER (may be NULL) tells which one it is. The user's file counts as absent when it cannot be looked at:
 * another user's home directory is no reason to fail. */
int config_paths_find(const struct config_paths *p, const char *name, char **ret, bool *ret_is_user, struct error *e);

/* The names in a directory that are no directories themselves, in the order of their bytes. */
struct names {
        char **items;
        size_t count;
};

void names_clear(struct names *n);
#define _cleanup_names_ _cleanup_(names_clear)

/* Returns 0, or -errno with E; the directory may be absent only when the caller takes -ENOENT for an answer. */
int names_read(const char *directory, struct names *ret, struct error *e);
