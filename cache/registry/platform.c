/* SPDX-License-Identifier: Apache-2.0 */

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

#include "regfs/manifest.h"

/* What people and kernels write, and GOARCH's name for it (with the variant that it implies). */
static const struct {
        const char *alias, *architecture, *variant;
} aliases[] = {
        { "x86_64", "amd64", NULL },      { "x86-64", "amd64", NULL },
        { "aarch64", "arm64", NULL },     { "armhf", "arm", "v7" },
        { "armel", "arm", "v6" },         { "armv7l", "arm", "v7" },
        { "armv6l", "arm", "v6" },        { "armv5l", "arm", "v5" },
        { "i386", "386", NULL },          { "i486", "386", NULL },
        { "i586", "386", NULL },          { "i686", "386", NULL },
        { "x86", "386", NULL },           { "loongarch64", "loong64", NULL },
        { "mips64el", "mips64le", NULL }, { "mipsel", "mipsle", NULL },
        { "ppc64el", "ppc64le", NULL },   { "riscv", "riscv64", NULL },
};

/* Variants from the newest to the oldest: what runs on one runs on those to its left's machines too. */
static const char *const arm_variants[] = { "v8", "v7", "v6", "v5" };
static const char *const amd64_variants[] = { "v4", "v3", "v2", "v1" };

void platform_clear(struct platform *p)
{
        free(p->os);
        free(p->architecture);
        free(p->variant);
        *p = (struct platform) { 0 };
}

static char *lower(const char *s, size_t n)
{
        char *out = strndup(s, n);

        for (char *p = out; p && *p; p++)
                *p = (char) tolower((unsigned char) *p);
        return out;
}

/* Replaces aliases; writes out arm/7 as arm/v7; drops the variants that say nothing (arm64/v8, amd64/v1). */
static int normalise(struct platform *p)
{
        for (size_t k = 0; k < ELEMENTSOF(aliases); k++) {
                if (!str_eq(p->architecture, aliases[k].alias))
                        continue;
                free(p->architecture);
                p->architecture = strdup(aliases[k].architecture);
                if (!p->architecture)
                        return -ENOMEM;
                if (aliases[k].variant && !p->variant) {
                        p->variant = strdup(aliases[k].variant);
                        if (!p->variant)
                                return -ENOMEM;
                }
                break;
        }
        if (str_eq(p->architecture, "arm") && p->variant && strlen(p->variant) == 1 && strchr("5678", p->variant[0])) {
                char *whole = str_printf("v%s", p->variant);

                if (!whole)
                        return -ENOMEM;
                free(p->variant);
                p->variant = whole;
        }
        if ((str_eq(p->architecture, "arm64") && (str_eq(p->variant, "v8") || str_eq(p->variant, "8"))) ||
            (str_eq(p->architecture, "amd64") && str_eq(p->variant, "v1"))) {
                free(p->variant);
                p->variant = NULL;
        }
        return 0;
}

static bool is_word(const char *s, size_t n)
{
        for (size_t k = 0; k < n; k++)
                if (!isalnum((unsigned char) s[k]) && !strchr("_.-", s[k]))
                        return false;
        return n > 0;
}

int platform_parse(const char *s, struct platform *ret, struct error *e)
{
        _cleanup_platform_ struct platform p = { 0 };
        const char *part[3] = { s, NULL, NULL };
        size_t length[3] = { 0 }, count = 0;

        for (const char *at = s; count < 3; count++) {
                part[count] = at;
                length[count] = strcspn(at, "/");
                if (!is_word(at, length[count]))
                        break;
                at += length[count];
                if (*at == '\0') {
                        count++;
                        break;
                }
                at++;
                if (count == 2)
                        count = 3;
        }
        if (count < 2 || count > 3 || part[count - 1][length[count - 1]] != '\0')
                return error_set(e, ERROR_USAGE, EINVAL,
                                 "%s: not a platform (OS/ARCH or OS/ARCH/VARIANT, as linux/arm64)", s);

        p.os = lower(part[0], length[0]);
        p.architecture = lower(part[1], length[1]);
        p.variant = count == 3 ? lower(part[2], length[2]) : NULL;
        if (!p.os || !p.architecture || (count == 3 && !p.variant) || normalise(&p) < 0)
                return error_oom(e);
        *ret = p;
        p = (struct platform) { 0 };
        return 0;
}

int platform_host(struct platform *ret)
{
        _cleanup_platform_ struct platform p = { 0 };
        struct utsname u;

        if (uname(&u) < 0)
                return -errno;
        p.os = strdup("linux");
        p.architecture = lower(u.machine, strlen(u.machine));
        if (!p.os || !p.architecture || normalise(&p) < 0)
                return -ENOMEM;
        *ret = p;
        p = (struct platform) { 0 };
        return 0;
}

char *platform_format(const struct platform *p)
{
        return str_printf("%s/%s%s%s", p->os, p->architecture, p->variant ? "/" : "", p->variant ? p->variant : "");
}

/* ---- choosing ---- */

static size_t variant_rank(const char *const *variants, size_t count, const char *variant)
{
        for (size_t k = 0; k < count; k++)
                if (str_eq(variants[k], variant))
                        return k;
        return SIZE_MAX;
}

/* How well an image for HAVE runs on WANTED: 0 exactly, more for an older variant, SIZE_MAX not at all. */
static size_t distance(const struct platform *have, const struct platform *wanted)
{
        const char *const *variants;
        const char *oldest, *from, *to;
        size_t count, a, b;

        if (!str_eq(have->os, wanted->os) || !str_eq(have->architecture, wanted->architecture))
                return SIZE_MAX;
        if (str_eq(have->variant, wanted->variant) || (!have->variant && !wanted->variant))
                return 0;
        if (str_eq(have->architecture, "arm")) {
                variants = arm_variants;
                count = ELEMENTSOF(arm_variants);
                oldest = "v7";
        } else if (str_eq(have->architecture, "amd64")) {
                variants = amd64_variants;
                count = ELEMENTSOF(amd64_variants);
                oldest = "v1";
        } else {
                /* No order is known: where either side names no variant nothing speaks against it. */
                return !have->variant || !wanted->variant ? 1 : SIZE_MAX;
        }
        from = wanted->variant ? wanted->variant : oldest;
        to = have->variant ? have->variant : oldest;
        a = variant_rank(variants, count, from);
        b = variant_rank(variants, count, to);
        if (a == SIZE_MAX || b == SIZE_MAX || b < a)
                return SIZE_MAX;
        return b - a + (have->variant ? 0 : 1);
}

static bool is_attestation(const struct descriptor *d)
{
        return (str_eq(d->os, "unknown") && str_eq(d->architecture, "unknown")) ||
               descriptor_annotation(d, "vnd.docker.reference.type") != NULL;
}

static bool is_manifest_type(const char *type)
{
        return *type == '\0' || str_eq(type, "application/vnd.oci.image.manifest.v1+json") ||
               str_eq(type, "application/vnd.docker.distribution.manifest.v2+json");
}

static bool is_index_type(const char *type)
{
        return str_eq(type, "application/vnd.oci.image.index.v1+json") ||
               str_eq(type, "application/vnd.docker.distribution.manifest.list.v2+json");
}

/* "linux/amd64, linux/arm64/v8" of what INDEX holds. */
static void list_platforms(const struct manifest *index, char *out, size_t size)
{
        size_t n = 0;

        out[0] = '\0';
        for (size_t k = 0; k < index->manifest_count && n < size; k++) {
                const struct descriptor *d = &index->manifests[k];

                if (d->artifact_type || is_attestation(d) || !d->os || !d->architecture)
                        continue;
                n += (size_t) snprintf(out + n, size - n, "%s%s/%s%s%s", n > 0 ? ", " : "", d->os, d->architecture,
                                       d->variant ? "/" : "", d->variant ? d->variant : "");
        }
        if (n == 0)
                (void) snprintf(out, size, "none");
}

static size_t entry_distance(const struct descriptor *d, const struct platform *wanted)
{
        _cleanup_platform_ struct platform have = { 0 };

        if (!d->os || !d->architecture)
                return SIZE_MAX;
        have.os = lower(d->os, strlen(d->os));
        have.architecture = lower(d->architecture, strlen(d->architecture));
        have.variant = d->variant ? lower(d->variant, strlen(d->variant)) : NULL;
        if (!have.os || !have.architecture || (d->variant && !have.variant) || normalise(&have) < 0)
                return SIZE_MAX;
        return distance(&have, wanted);
}

int manifest_choose(const struct manifest *index, const struct platform *wanted, const char *name, size_t *ret_entry,
                    struct error *e)
{
        _cleanup_free_ char *text = NULL;
        size_t best = SIZE_MAX, entry = 0, candidates = 0, only = 0;
        char have[500];

        for (size_t k = 0; k < index->manifest_count; k++) {
                const struct descriptor *d = &index->manifests[k];
                size_t n;

                if (d->artifact_type || is_attestation(d) ||
                    !(is_manifest_type(d->media_type) || is_index_type(d->media_type)))
                        continue;
                candidates++;
                only = k;
                n = entry_distance(d, wanted);
                if (n < best) {
                        best = n;
                        entry = k;
                }
        }
        /* One image and no platform beside it: the config tells. A nested index likewise. */
        if (best == SIZE_MAX && candidates == 1 && !index->manifests[only].os)
                entry = only;
        else if (best == SIZE_MAX) {
                text = platform_format(wanted);
                list_platforms(index, have, sizeof(have));
                return error_set(e, ERROR_NOT_FOUND, ENOENT, "%s: no image for platform %s; there is: %s", name,
                                 text ? text : "?", have);
        }
        *ret_entry = entry;
        return 0;
}
