/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "regfs/sandbox.h"

/* The system calls: a filter is built once and entered by each thread. Where libseccomp is not in this build, none is
 * built. */
struct filter;

int filter_new(struct filter **ret, struct error *e);
struct filter *filter_free(struct filter *f);
int filter_enter(const struct filter *f, struct error *e);
