/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* registries.conf(5) in memory, merged from its files. Immutable once it is loaded, so it needs no lock. */

#include "paths.h"
#include "regfs/map.h"
#include "regfs/registries.h"

struct registry_mirror {
        char *location; /* "host[:port][/path]" */
        bool insecure;
        bool pull_by_tag;
        bool pull_by_digest;
};

/* One [[registry]] table. */
struct registry {
        char *file; /* that it was read from */
        char *prefix;
        char *location; /* as above; NULL: where the name says */
        bool insecure;
        bool blocked;
        struct registry_mirror *mirrors;
        size_t mirror_count;
};

enum short_name_mode {
        SHORT_NAME_PERMISSIVE,
        SHORT_NAME_ENFORCING,
        SHORT_NAME_DISABLED,
};

struct registries {
        struct config_paths paths;
        bool plain_http;
        int tls_verify;

        struct registry *items;
        size_t count, allocated;
        struct map *aliases; /* short name → char *: full name, "" when a later file took the alias back */
        char **search;       /* unqualified-search-registries */
        size_t search_count;
        char *search_file; /* that set it; NULL: no file did */
        enum short_name_mode mode;
};

/* Reads PATH over what is there: a [[registry]] replaces the one of the same prefix, an alias the one of the same name,
 * other settings the earlier ones. Returns 0; -EBADMSG with E naming the file and the table; -errno when it cannot be
 * read. */
int conf_read(struct registries *r, const char *path, struct error *e);

/* The same for every *.conf in DIRECTORY, in the order of their names. An absent directory is fine. */
int conf_read_directory(struct registries *r, const char *directory, struct error *e);

/* registries_load with the places given. PATHS is copied. */
int registries_load_at(const struct config_paths *paths, const struct registries_options *options,
                       struct registries **ret, struct error *e);
