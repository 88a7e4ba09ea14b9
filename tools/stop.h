/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Signals that ask a command to come to an end: SIGINT, SIGTERM and, unless that was ignored when the process began,
 * SIGHUP. */

#include <stdbool.h>

enum stop_mode {
        STOP_ASKS,      /* each of them asks */
        STOP_ASKS_ONCE, /* the second one of a kind ends the process, as without all this */
        STOP_ENDS,      /* as without all this */
};

/* For the whole process. STOP_ASKS and STOP_ASKS_ONCE have SIGPIPE ignored, so that who writes is told; STOP_ENDS
 * leaves that as it is. */
void stop_on_signals(enum stop_mode mode);

/* One has asked. */
bool stop_requested(void);
