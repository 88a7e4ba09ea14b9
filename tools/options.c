/* SPDX-License-Identifier: Apache-2.0 */

#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "command.h"

const char command_options_help[] =
        "Image:\n"
        "      --platform OS/ARCH[/VARIANT]  which image of an index (default: this host's)\n"
        "      --index=auto|none|referrers|REF\n"
        "                                    published indexes: what the image binds, and for a tag also what lies\n"
        "                                    beside it (auto, the default); the layers alone; also for a reference\n"
        "                                    by digest; the index that REF names\n"
        "      --plain-http                  talk http to the registry\n"
        "      --tls-verify=BOOL             verify the registry's certificate (default: true)\n"
        "      --creds USER:PASSWORD         credentials for the registry\n"
        "      --authfile FILE               credentials (default: $REGISTRY_AUTH_FILE, then podman's and docker's)\n"
        "      --registries-conf FILE        mirrors, short names (default: $CONTAINERS_REGISTRIES_CONF, then the\n"
        "                                    user's and the system's registries.conf)\n"
        "      --timeout SECONDS             patience with the registry before an error (default: 60)\n"
        "Store:\n"
        "      --cache-dir DIR               where indexes and content are kept (default: $REGFS_CACHE_DIR, else\n"
        "                                    /var/cache/regfs for root, else ~/.cache/regfs)\n"
        "      --store DIR                   a finished store that is only read: what the store lacks is looked for there;\n"
        "                                    can be given more than once\n"
        "      --cache-size SIZE             how large the store may get (default: 10G, and never the last 5 % of the\n"
        "                                    disk; 0: nothing is kept for longer than it is read)\n"
        "      --memory SIZE                 bound of the buffer pool (default: 64M)\n"
        "Log:\n"
        "      --log-level LEVEL             none, error, warning, info or debug (default: warning)\n"
        "      --log-file FILE               append the log to FILE (default: standard error, until in the background)\n"
        "      --help                        this text\n"
        "      --version                     the version\n";

enum {
        OPT_PLATFORM = 256,
        OPT_INDEX,
        OPT_CACHE_DIR,
        OPT_STORE,
        OPT_OFFLINE,
        OPT_PREFETCH,
        OPT_PATHS,
        OPT_CACHE_SIZE,
        OPT_PLAIN_HTTP,
        OPT_TLS_VERIFY,
        OPT_CREDS,
        OPT_AUTHFILE,
        OPT_REGISTRIES_CONF,
        OPT_TIMEOUT,
        OPT_MEMORY,
        OPT_LOG_LEVEL,
        OPT_LOG_FILE,
        OPT_PUSH,
        OPT_BIND,
        OPT_OUTPUT,
        OPT_JSON,
        OPT_SANDBOX,
        OPT_VERSION,
};

/* Each with the commands that take it. */
static const struct {
        struct option option;
        unsigned commands;
} known_options[] = {
        { { "platform", required_argument, NULL, OPT_PLATFORM }, COMMANDS_ALL },
        { { "index", required_argument, NULL, OPT_INDEX }, COMMANDS_ALL },
        { { "cache-dir", required_argument, NULL, OPT_CACHE_DIR }, COMMANDS_ALL },
        { { "store", required_argument, NULL, OPT_STORE }, COMMANDS_ALL },
        { { "offline", no_argument, NULL, OPT_OFFLINE }, COMMAND_MOUNT | COMMAND_INSPECT },
        { { "prefetch", required_argument, NULL, OPT_PREFETCH }, COMMAND_MOUNT },
        { { "paths", required_argument, NULL, OPT_PATHS }, COMMAND_PULL },
        { { "cache-size", required_argument, NULL, OPT_CACHE_SIZE }, COMMANDS_ALL },
        { { "plain-http", no_argument, NULL, OPT_PLAIN_HTTP }, COMMANDS_ALL },
        { { "tls-verify", optional_argument, NULL, OPT_TLS_VERIFY }, COMMANDS_ALL },
        { { "creds", required_argument, NULL, OPT_CREDS }, COMMANDS_ALL },
        { { "authfile", required_argument, NULL, OPT_AUTHFILE }, COMMANDS_ALL },
        { { "registries-conf", required_argument, NULL, OPT_REGISTRIES_CONF }, COMMANDS_ALL },
        { { "timeout", required_argument, NULL, OPT_TIMEOUT }, COMMANDS_ALL },
        { { "memory", required_argument, NULL, OPT_MEMORY }, COMMANDS_ALL },
        { { "log-level", required_argument, NULL, OPT_LOG_LEVEL }, COMMANDS_ALL },
        { { "log-file", required_argument, NULL, OPT_LOG_FILE }, COMMANDS_ALL },
        { { "foreground", no_argument, NULL, 'f' }, COMMAND_MOUNT },
        { { "sandbox", required_argument, NULL, OPT_SANDBOX }, COMMAND_MOUNT },
        { { "push", no_argument, NULL, OPT_PUSH }, COMMAND_INDEX },
        { { "bind", required_argument, NULL, OPT_BIND }, COMMAND_INDEX },
        { { "output", required_argument, NULL, OPT_OUTPUT }, COMMAND_INDEX },
        { { "json", no_argument, NULL, OPT_JSON }, COMMAND_INDEX | COMMAND_INSPECT | COMMAND_VERIFY },
        { { "help", no_argument, NULL, 'h' }, COMMANDS_ALL },
        { { "version", no_argument, NULL, OPT_VERSION }, COMMANDS_ALL },
};

static const struct {
        enum command command;
        const char *name;
        const char *letters;
} commands[] = {
        { COMMAND_MOUNT, "mount", ":fho:" }, { COMMAND_INDEX, "index", ":ho:" }, { COMMAND_INSPECT, "inspect", ":h" },
        { COMMAND_VERIFY, "verify", ":h" },  { COMMAND_PULL, "pull", ":h" },
};

/* What mount(8) and fstab(5) put among the options and deal with themselves, or what a read-only tree has anyway. */
static const char *const ignored[] = {
        "ro", "rw", "auto", "noauto", "user", "nouser", "users", "nofail", "_netdev", "defaults", "dev", "suid",
};

/* What goes to libfuse and the kernel. */
static const char *const for_fuse[] = {
        "allow_other", "allow_root", "auto_unmount", "default_permissions",
        "nodev",       "nosuid",     "exec",         "noexec",
        "atime",       "noatime",    "sync",         "async",
        "dirsync",
};

void command_options_init(struct command_options *o, enum command command)
{
        *o = (struct command_options) {
                .command = command,
                .image = REGFS_OPTIONS_INIT,
                .log_level = LOG_LEVEL_WARNING,
        };
}

void command_options_clear(struct command_options *o)
{
        for (size_t k = 0; k < o->owned_count; k++)
                secret_free(o->owned[k]);
        free(o->owned);
        free(o->stores);
        buf_free(&o->fuse);
}

static int parse_bool(const char *s, bool *ret)
{
        if (!s || strcasecmp(s, "true") == 0 || str_eq(s, "1") || strcasecmp(s, "yes") == 0)
                *ret = true;
        else if (strcasecmp(s, "false") == 0 || str_eq(s, "0") || strcasecmp(s, "no") == 0)
                *ret = false;
        else
                return -EINVAL;
        return 0;
}

int command_parse_size(const char *s, size_t *ret)
{
        static const char units[] = "KMG";
        char digits[24];
        size_t n = strspn(s, "0123456789");
        const char *unit = s[n] ? strchr(units, s[n]) : NULL;
        unsigned shift = unit ? 10 * (unsigned) (unit - units + 1) : 0;
        uint64_t value;

        if (n >= sizeof(digits) || (s[n] && (!unit || s[n + 1])))
                return -EINVAL;
        memcpy(digits, s, n);
        digits[n] = '\0';
        if (str_to_u64(digits, &value) < 0 || value == 0 || value > SIZE_MAX >> shift)
                return -EINVAL;
        *ret = (size_t) value << shift;
        return 0;
}

static int bad_value(struct error *e, const char *option, const char *value, const char *wanted)
{
        return error_set(e, ERROR_USAGE, EINVAL, "--%s: %s: %s", option, value ? value : "", wanted);
}

static int set_tls_verify(struct command_options *o, const char *value, struct error *e)
{
        bool verify;

        if (parse_bool(value, &verify) < 0)
                return bad_value(e, "tls-verify", value, "neither true nor false");
        o->image.tls_verify = verify;
        o->image.tls_no_verify = !verify;
        return 0;
}

static int set_timeout(struct command_options *o, const char *value, struct error *e)
{
        uint64_t n;

        if (str_to_u64(value, &n) < 0 || n == 0 || n > 86400)
                return bad_value(e, "timeout", value, "not a number of seconds from 1 to 86400");
        o->image.timeout_s = (unsigned) n;
        return 0;
}

/* The array is NULL-terminated. */
static int add_store(struct command_options *o, const char *value, struct error *e)
{
        if (*value == '\0')
                return bad_value(e, "store", value, "needs a directory");
        if (array_reserve(o->stores, &o->stores_allocated, o->store_count + 2) < 0)
                return error_oom(e);
        o->stores[o->store_count++] = value;
        o->stores[o->store_count] = NULL;
        o->image.stores = o->stores;
        return 0;
}

static int set_cache_size(struct command_options *o, const char *value, struct error *e)
{
        size_t size;

        if (str_eq(value, "0"))
                o->image.cache_size = REGFS_CACHE_NOTHING;
        else if (command_parse_size(value, &size) == 0)
                o->image.cache_size = size;
        else
                return bad_value(e, "cache-size", value, "not a size (500M, 10G, or 0)");
        return 0;
}

/* One option by its getopt value; VALUE lives as long as O. */
static int set_option(struct command_options *o, int option, const char *value, struct error *e)
{
        switch (option) {
        case OPT_PLATFORM:
                o->image.platform = value;
                return 0;
        case OPT_CACHE_DIR:
                o->image.cache_dir = value;
                return 0;
        case OPT_STORE:
                return add_store(o, value, e);
        case OPT_OFFLINE:
                o->image.offline = true;
                return 0;
        case OPT_PATHS:
                if (*value == '\0')
                        return bad_value(e, "paths", value, "needs a file with a list of paths");
                o->prefetch = value;
                return 0;
        case OPT_PREFETCH:
                if (*value == '\0')
                        return bad_value(e, "prefetch", value, "none, all or a file with a list of paths");
                o->prefetch = value;
                return 0;
        case OPT_CACHE_SIZE:
                return set_cache_size(o, value, e);
        case OPT_PLAIN_HTTP:
                o->image.plain_http = true;
                return 0;
        case OPT_TLS_VERIFY:
                return set_tls_verify(o, value, e);
        case OPT_CREDS:
                o->image.creds = value;
                return 0;
        case OPT_AUTHFILE:
                o->image.authfile = value;
                return 0;
        case OPT_REGISTRIES_CONF:
                o->image.registries_conf = value;
                return 0;
        case OPT_TIMEOUT:
                return set_timeout(o, value, e);
        case OPT_MEMORY:
                if (command_parse_size(value, &o->image.memory) < 0)
                        return bad_value(e, "memory", value, "not a size (64M, 1G)");
                return 0;
        case OPT_LOG_LEVEL:
                if (log_level_parse(value, &o->log_level) < 0)
                        return bad_value(e, "log-level", value, "none, error, warning, info or debug are known");
                return 0;
        case OPT_LOG_FILE:
                o->log_file = value;
                return 0;
        case OPT_INDEX:
                if (*value == '\0')
                        return bad_value(e, "index", value, "auto, none, referrers or the reference of an index");
                o->image.index = value;
                return 0;
        case OPT_PUSH:
                o->push = true;
                return 0;
        case OPT_BIND:
                o->bind = value;
                return 0;
        case OPT_OUTPUT:
                o->output = value;
                return 0;
        case OPT_JSON:
                o->json = true;
                return 0;
        case OPT_SANDBOX:
                if (!str_eq(value, "on") && !str_eq(value, "off"))
                        return bad_value(e, "sandbox", value, "neither on nor off");
                o->sandbox = str_eq(value, "on") ? SANDBOX_ON : SANDBOX_OFF;
                return 0;
        case 'f':
                o->foreground = true;
                return 0;
        default:
                return error_set(e, ERROR_USAGE, EINVAL, "unknown option");
        }
}

/* ---- -o ---- */

static bool is_among(const char *s, const char *const *words, size_t count)
{
        for (size_t k = 0; k < count; k++)
                if (strcmp(s, words[k]) == 0)
                        return true;
        return false;
}

/* The long option of mount of that name, with _ or - between words; never help or version. */
static const struct option *find_long(const char *name, size_t length)
{
        for (size_t i = 0; i < ELEMENTSOF(known_options); i++) {
                const struct option *l = &known_options[i].option;
                size_t k = 0;

                if (!(known_options[i].commands & COMMAND_MOUNT) || l->val == 'h' || l->val == OPT_VERSION)
                        continue;
                while (k < length && l->name[k] && (l->name[k] == name[k] || (l->name[k] == '-' && name[k] == '_')))
                        k++;
                if (k == length && l->name[k] == '\0')
                        return l;
        }
        return NULL;
}

/* One word of -o; it lives as long as O. */
static int set_word(struct command_options *o, const char *word, struct error *e)
{
        const char *equals = strchr(word, '=');
        const struct option *l = find_long(word, equals ? (size_t) (equals - word) : strlen(word));

        if (l) {
                if (l->has_arg == required_argument && !equals)
                        return error_set(e, ERROR_USAGE, EINVAL, "-o %s: needs a value", word);
                if (l->has_arg == no_argument && equals)
                        return error_set(e, ERROR_USAGE, EINVAL, "-o %s: takes no value", word);
                return set_option(o, l->val, equals ? equals + 1 : NULL, e);
        }
        if (*word == '\0' || str_after(word, "x-") || str_after(word, "comment=") ||
            is_among(word, ignored, ELEMENTSOF(ignored)))
                return 0;
        if (!is_among(word, for_fuse, ELEMENTSOF(for_fuse)))
                return error_set(e, ERROR_USAGE, EINVAL, "-o %s: unknown option", word);
        if ((o->fuse.len > 0 && buf_append_char(&o->fuse, ',') < 0) || buf_append_str(&o->fuse, word) < 0)
                return error_oom(e);
        return 0;
}

/* The words of "-o a,b=c\,d,e"; a backslash takes the next character as it is. */
static int set_words(struct command_options *o, const char *list, struct error *e)
{
        while (*list) {
                _cleanup_buf_ struct buf word = { 0 };
                char *text;
                int r;

                for (; *list && *list != ','; list++) {
                        if (*list == '\\' && list[1])
                                list++;
                        if (buf_append_char(&word, *list) < 0)
                                return error_oom(e);
                }
                if (*list == ',')
                        list++;
                text = buf_steal(&word);
                if (!text || array_reserve(o->owned, &o->owned_allocated, o->owned_count + 1) < 0) {
                        free(text);
                        return error_oom(e);
                }
                o->owned[o->owned_count++] = text;
                r = set_word(o, text, e);
                if (r < 0)
                        return r;
        }
        return 0;
}

/* "-o" is a list of mount options for mount, a directory elsewhere. */
static int set_o(struct command_options *o, const char *value, struct error *e)
{
        return o->command == COMMAND_MOUNT ? set_words(o, value, e) : set_option(o, OPT_OUTPUT, value, e);
}

static void options_of(enum command command, struct option long_options[ELEMENTSOF(known_options) + 1])
{
        size_t n = 0;

        for (size_t k = 0; k < ELEMENTSOF(known_options); k++)
                if (known_options[k].commands & command)
                        long_options[n++] = known_options[k].option;
        long_options[n] = (struct option) { 0 };
}

int command_options_parse(struct command_options *o, int argc, char **argv, const char *help, int *ret_first,
                          struct error *e)
{
        struct option long_options[ELEMENTSOF(known_options) + 1];
        int option, r = 0;
        size_t which = 0;

        while (commands[which].command != o->command)
                which++;
        options_of(o->command, long_options);
        /* Start over: somebody may have parsed before, and glibc keeps state. */
        optind = 0;
        opterr = 0;
        while (r == 0 && (option = getopt_long(argc, argv, commands[which].letters, long_options, NULL)) != -1) {
                switch (option) {
                case 'h':
                        printf("%s%s", help, command_options_help);
                        return 1;
                case OPT_VERSION:
                        printf("regfs %s\n", regfs_version());
                        return 1;
                case 'o':
                        r = set_o(o, optarg, e);
                        break;
                case ':':
                        return error_set(e, ERROR_USAGE, EINVAL, "%s: needs a value", argv[optind - 1]);
                case '?':
                        return error_set(e, ERROR_USAGE, EINVAL, "%s: unknown option (regfs %s --help)",
                                         argv[optind - 1], commands[which].name);
                default:
                        r = set_option(o, option, optarg, e);
                }
        }
        if (r < 0)
                return r;
        *ret_first = optind;
        return 0;
}
