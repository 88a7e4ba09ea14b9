/* SPDX-License-Identifier: Apache-2.0 */

#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "command.h"
#include "regfs/thread.h"

#define BAR_MAX 40

static bool shown;
static uint64_t began_ms, last_done;

static unsigned terminal_width(void)
{
        struct winsize w;

        return ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 0 ? w.ws_col : 80;
}

/* "1m05s" until the rest is there at the rate so far; "" while that can't be told. */
static void format_left(uint64_t done, uint64_t total, uint64_t elapsed_ms, char *out, size_t size)
{
        uint64_t left;

        out[0] = '\0';
        if (elapsed_ms < 500 || done == 0)
                return;
        left = (uint64_t) ((double) (total - done) / (double) done * (double) elapsed_ms / 1000.0 + 0.5);
        if (left >= 60)
                snprintf(out, size, ", %jum%02jus left", (uintmax_t) (left / 60), (uintmax_t) (left % 60));
        else
                snprintf(out, size, ", %jus left", (uintmax_t) left);
}

void progress_show_part(const char *doing, uint64_t done, uint64_t total)
{
        char done_text[16], total_text[16], rate[16], left[40], bar[BAR_MAX + 1];
        unsigned width = terminal_width(), cells, filled;
        uint64_t elapsed;

        if (!isatty(STDERR_FILENO) || total == 0)
                return;
        /* Something else begins. */
        if (began_ms == 0 || done < last_done)
                began_ms = clock_ms();
        last_done = done;
        elapsed = clock_ms() - began_ms;

        cells = width > 90 ? BAR_MAX : width > 70 ? 20 : 0;
        filled = (unsigned) ((double) cells * (double) MIN(done, total) / (double) total);
        for (unsigned k = 0; k < cells; k++)
                bar[k] = k < filled ? '#' : '.';
        bar[cells] = '\0';
        format_left(done, total, elapsed, left, sizeof(left));
        fprintf(stderr, "\r\033[K%s %s%s%s / %s, %s/s%s", doing, bar, cells ? " " : "",
                format_bytes(done, done_text, sizeof(done_text)), format_bytes(total, total_text, sizeof(total_text)),
                format_bytes(elapsed > 0 ? done * 1000 / elapsed : 0, rate, sizeof(rate)), left);
        shown = true;
}

void progress_show(const struct regfs_progress *p)
{
        char doing[64];

        snprintf(doing, sizeof(doing), "indexing %u/%u layers", p->layers_done, p->layers);
        progress_show_part(doing, p->bytes_done, p->bytes);
}

void progress_end(void)
{
        if (shown)
                fputs("\r\033[K", stderr);
        shown = false;
}
