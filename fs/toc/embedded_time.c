/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <time.h>

#include "embedded_internal.h"

/* What is left of the text. */
struct cursor {
        const char *at;
        const char *end;
};

static bool take(struct cursor *c, char expected)
{
        if (c->at == c->end || *c->at != expected)
                return false;
        c->at++;
        return true;
}

/* Exactly COUNT digits; -1 when they are not there. */
static int take_digits(struct cursor *c, unsigned count)
{
        int n = 0;

        for (; count > 0; count--, c->at++) {
                if (c->at == c->end || *c->at < '0' || *c->at > '9')
                        return -1;
                n = n * 10 + (*c->at - '0');
        }
        return n;
}

static bool take_date(struct cursor *c, struct tm *tm)
{
        tm->tm_year = take_digits(c, 4) - 1900;
        if (tm->tm_year < -1900 || !take(c, '-'))
                return false;
        tm->tm_mon = take_digits(c, 2) - 1;
        if (tm->tm_mon < 0 || tm->tm_mon > 11 || !take(c, '-'))
                return false;
        tm->tm_mday = take_digits(c, 2);
        return tm->tm_mday > 0;
}

static bool take_clock(struct cursor *c, int *ret_hours, int *ret_minutes)
{
        *ret_hours = take_digits(c, 2);
        if (*ret_hours < 0 || *ret_hours > 23 || !take(c, ':'))
                return false;
        *ret_minutes = take_digits(c, 2);
        return *ret_minutes >= 0 && *ret_minutes <= 59;
}

static bool take_time(struct cursor *c, struct tm *tm, uint32_t *ret_nanoseconds)
{
        uint32_t scale = 100000000, nanoseconds = 0;

        if (!take_clock(c, &tm->tm_hour, &tm->tm_min) || !take(c, ':'))
                return false;
        tm->tm_sec = take_digits(c, 2);
        if (tm->tm_sec < 0 || tm->tm_sec > 59)
                return false;
        *ret_nanoseconds = 0;
        if (!take(c, '.'))
                return true;
        for (int digit = take_digits(c, 1); digit >= 0; digit = take_digits(c, 1), scale /= 10)
                nanoseconds += (uint32_t) digit * scale;
        *ret_nanoseconds = nanoseconds;
        return c->at[-1] != '.';
}

/* Seconds that the zone is ahead of UTC. */
static bool take_zone(struct cursor *c, int *ret_ahead)
{
        int hours, minutes, sign;

        *ret_ahead = 0;
        if (take(c, 'Z'))
                return true;
        sign = take(c, '-') ? -1 : 1;
        if ((sign > 0 && !take(c, '+')) || !take_clock(c, &hours, &minutes))
                return false;
        *ret_ahead = sign * (hours * 60 + minutes) * 60;
        return true;
}

int toc_time_parse(const char *s, size_t n, int64_t *ret_seconds, uint32_t *ret_nanoseconds)
{
        struct cursor c = { .at = s, .end = s + n };
        uint32_t nanoseconds;
        struct tm tm = { 0 };
        int ahead, day;
        time_t seconds;

        if (!take_date(&c, &tm) || !take(&c, 'T') || !take_time(&c, &tm, &nanoseconds) || !take_zone(&c, &ahead) ||
            c.at != c.end)
                return -EINVAL;
        day = tm.tm_mday;
        seconds = timegm(&tm);
        if (tm.tm_mday != day) /* February 30 would be in March */
                return -EINVAL;
        *ret_seconds = seconds - ahead;
        *ret_nanoseconds = nanoseconds;
        return 0;
}
