/* SPDX-License-Identifier: Apache-2.0 */

#include "stop.h"

#include <signal.h>
#include <stddef.h>

static volatile sig_atomic_t requested;

static void on_stop(int signal)
{
        (void) signal;
        requested = 1;
}

static bool is_ignored(int number)
{
        struct sigaction now;

        return sigaction(number, NULL, &now) == 0 && now.sa_handler == SIG_IGN;
}

void stop_on_signals(enum stop_mode mode)
{
        struct sigaction action = {
                .sa_handler = mode == STOP_ENDS ? SIG_DFL : on_stop,
                .sa_flags = mode == STOP_ASKS_ONCE ? SA_RESETHAND : 0,
        };

        sigemptyset(&action.sa_mask);
        sigaction(SIGINT, &action, NULL);
        sigaction(SIGTERM, &action, NULL);
        if (!is_ignored(SIGHUP)) /* nohup(1) wants it so */
                sigaction(SIGHUP, &action, NULL);
        if (mode != STOP_ENDS)
                signal(SIGPIPE, SIG_IGN);
}

bool stop_requested(void)
{
        return requested;
}
