/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* containers-policy.json(5), with the places given. */

#include "paths.h"
#include "regfs/registries.h"

/* policy_check with the file looked for in PATHS. */
int policy_check_at(const struct config_paths *paths, const struct reference *ref, struct error *e);
