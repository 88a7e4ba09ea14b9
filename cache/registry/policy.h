/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* containers-policy.json(5), with the places given. */

#include "paths.h"
#include "regfs/registries.h"

/* policy_check with the file looked for in PATHS. */
int policy_check_at(const struct config_paths *paths, const struct reference *ref, struct error *e);

/* policy_check with the N bytes at TEXT for a policy; PATH is what errors call it. */
int policy_check_text(const char *path, const char *text, size_t n, const struct reference *ref, struct error *e);
