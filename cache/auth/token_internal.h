/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the token cache shows its tests only. */

#include "regfs/token.h"

/* Milliseconds of a clock that never goes back. */
typedef uint64_t token_clock_fn(void *context);

/* Lifetimes and the back-off go by CLOCK instead of clock_ms; deadlines never do. Call it before the cache is shared;
 * CLOCK is called from every thread that uses the cache, without its lock. */
void token_cache_set_clock(struct token_cache *c, token_clock_fn *clock, void *context);

/* Keys that the cache knows something about. */
size_t token_cache_size(struct token_cache *c);

/* So many keys are kept without a thought; from there on dead ones are swept out whenever their number has doubled. */
#define TOKEN_SWEEP_MIN 64

/* A fetch that times out this close to its deadline has been ended by it: timers are not exact. */
#define TOKEN_DEADLINE_SLACK_MS 50
