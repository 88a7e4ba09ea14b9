/* SPDX-License-Identifier: Apache-2.0 */

#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cache_print.h"
#include "command.h"
#include "json_text.h"
#include "regfs/mount.h"
#include "stop.h"

static const char help[] =
        "Usage: regfs cache info [--json]\n"
        "       regfs cache list [--json]\n"
        "       regfs cache verify [--json]\n"
        "       regfs cache prune [--older-than DURATION] [--max-size SIZE] [--json]\n"
        "       regfs cache clear [--force] [--json]\n"
        "\n"
        "Looks at the store, in which mounts keep tables of contents and what was fetched, and makes room in it. All of\n"
        "it may be done while images are mounted: they go on, and never show a wrong byte.\n"
        "\n"
        "info    where the store is, what it holds and takes, and what room there is\n"
        "list    images, their layers, and how much of their content is there; what images share is counted once\n"
        "verify  reads everything, compares it with its digests and checksums, and throws out what is wrong: the next\n"
        "        mount fetches it again. Nothing is fetched now. Exit code 6 when something was wrong\n"
        "prune   removes what dead processes left; what was not used for longer than --older-than; and the layers that\n"
        "        were not used for longest as long as the store takes more than --max-size. Never what is in use\n"
        "clear   removes everything but what is in use; exit code 7 when something is\n"
        "\n"
        "      --cache-dir DIR        the store (default: $REGFS_CACHE_DIR, else /var/cache/regfs for root, else\n"
        "                             ~/.cache/regfs)\n"
        "      --older-than DURATION  a number with s, m, h, d or w: 30d\n"
        "      --max-size SIZE        bytes on the disk, with K, M or G: 5G\n"
        "      --force                clear: what is in use, too; mounts go on, and fetch again what they need\n"
        "      --json                 an object\n"
        "      --log-level LEVEL      none, error, warning, info or debug (default: warning)\n"
        "      --help                 this text\n";

enum action {
        ACTION_INFO = 1 << 0,
        ACTION_LIST = 1 << 1,
        ACTION_VERIFY = 1 << 2,
        ACTION_PRUNE = 1 << 3,
        ACTION_CLEAR = 1 << 4,
};

static const struct {
        const char *name;
        enum action action;
} actions[] = {
        { "info", ACTION_INFO },   { "list", ACTION_LIST },   { "verify", ACTION_VERIFY },
        { "prune", ACTION_PRUNE }, { "clear", ACTION_CLEAR },
};

struct cache_command {
        enum action action;
        const char *directory;
        enum log_level log_level;
        int64_t older_than_s;
        size_t max_size; /* 0: no bound */
        bool force;
        bool json;
};

/* ---- options ---- */

/* "30d": a number and its unit. */
static int parse_duration(const char *s, int64_t *ret)
{
        static const struct {
                char unit;
                int64_t seconds;
        } units[] = { { 's', 1 }, { 'm', 60 }, { 'h', 3600 }, { 'd', 86400 }, { 'w', 7 * 86400 } };
        size_t n = strspn(s, "0123456789");
        char digits[20];
        uint64_t value;

        if (n == 0 || n >= sizeof(digits) || strlen(s) != n + 1)
                return -EINVAL;
        memcpy(digits, s, n);
        digits[n] = '\0';
        for (size_t k = 0; k < ELEMENTSOF(units); k++) {
                if (units[k].unit != s[n])
                        continue;
                if (str_to_u64(digits, &value) < 0 || value > (uint64_t) (INT64_MAX / units[k].seconds))
                        return -EINVAL;
                *ret = (int64_t) value * units[k].seconds;
                return 0;
        }
        return -EINVAL;
}

enum {
        OPT_CACHE_DIR = 256,
        OPT_OLDER_THAN,
        OPT_MAX_SIZE,
        OPT_FORCE,
        OPT_JSON,
        OPT_LOG_LEVEL,
};

static int only_for(const struct cache_command *c, enum action action, const char *option, struct error *e)
{
        return c->action == action
                       ? 0
                       : error_set(e, ERROR_USAGE, EINVAL, "--%s: not of this command (regfs cache --help)", option);
}

static int set_option(struct cache_command *c, int option, const char *value, struct error *e)
{
        int r;

        switch (option) {
        case OPT_CACHE_DIR:
                c->directory = value;
                return 0;
        case OPT_OLDER_THAN:
                r = only_for(c, ACTION_PRUNE, "older-than", e);
                if (r == 0 && parse_duration(value, &c->older_than_s) < 0)
                        r = error_set(e, ERROR_USAGE, EINVAL, "--older-than: %s: not a duration (12h, 30d)", value);
                return r;
        case OPT_MAX_SIZE:
                r = only_for(c, ACTION_PRUNE, "max-size", e);
                if (r == 0 && command_parse_size(value, &c->max_size) < 0)
                        r = error_set(e, ERROR_USAGE, EINVAL, "--max-size: %s: not a size (64M, 1G)", value);
                return r;
        case OPT_FORCE:
                c->force = true;
                return only_for(c, ACTION_CLEAR, "force", e);
        case OPT_LOG_LEVEL:
                if (log_level_parse(value, &c->log_level) < 0)
                        return error_set(e, ERROR_USAGE, EINVAL,
                                         "--log-level: %s: none, error, warning, info or debug are known", value);
                return 0;
        default:
                c->json = true;
                return 0;
        }
}

/* Returns 0; 1 when --help was answered; -EINVAL with E. */
static int parse_options(struct cache_command *c, int argc, char **argv, struct error *e)
{
        static const struct option options[] = {
                { "cache-dir", required_argument, NULL, OPT_CACHE_DIR },
                { "older-than", required_argument, NULL, OPT_OLDER_THAN },
                { "max-size", required_argument, NULL, OPT_MAX_SIZE },
                { "force", no_argument, NULL, OPT_FORCE },
                { "json", no_argument, NULL, OPT_JSON },
                { "log-level", required_argument, NULL, OPT_LOG_LEVEL },
                { "help", no_argument, NULL, 'h' },
                { NULL, 0, NULL, 0 },
        };
        int option, r = 0;

        optind = 0;
        opterr = 0;
        while (r == 0 && (option = getopt_long(argc, argv, ":h", options, NULL)) != -1) {
                if (option == 'h') {
                        fputs(help, stdout);
                        return 1;
                }
                if (option == ':')
                        return error_set(e, ERROR_USAGE, EINVAL, "%s: needs a value", argv[optind - 1]);
                if (option == '?')
                        return error_set(e, ERROR_USAGE, EINVAL, "%s: unknown option (regfs cache --help)",
                                         argv[optind - 1]);
                r = set_option(c, option, optarg, e);
        }
        if (r == 0 && optind < argc)
                r = error_set(e, ERROR_USAGE, EINVAL, "%s: cache %s takes no operand", argv[optind], argv[0]);
        return r;
}

/* ---- what is mounted ---- */

/* The manifests of T; the caller frees. */
static int mounted_digests(const struct mount_table *t, struct digest **ret, size_t *ret_count, struct error *e)
{
        struct digest *digests = calloc(t->count + 1, sizeof(*digests));
        size_t count = 0;

        if (!digests)
                return error_oom(e);
        for (size_t k = 0; k < t->count; k++)
                if (digest_parse(t->items[k].digest, &digests[count], NULL) == 0)
                        count++;
        *ret = digests;
        *ret_count = count;
        return 0;
}

/* The store's view. Where locks don't tell what is in use, the mount table has to: it does not know whose store an image
 * was mounted from, so that takes too much for used rather than too little. */
static int read_view(struct store *s, struct store_place *place, struct mount_table *mounts, struct cache_view *ret,
                     struct error *e)
{
        _cleanup_free_ struct digest *mounted = NULL;
        size_t count = 0;
        int r;

        r = store_look_at_place(s, place, e);
        if (r == 0)
                r = mount_table_read(mounts, e);
        if (r == 0 && !place->locks)
                r = mounted_digests(mounts, &mounted, &count, e);
        return r < 0 ? r : cache_read(s, mounted, count, ret, e);
}

/* ---- info, list ---- */

static int show(struct store *s, const struct cache_command *c, struct error *e)
{
        _cleanup_(mount_table_clear) struct mount_table mounts = { 0 };
        _cleanup_cache_view_ struct cache_view view = { 0 };
        struct store_place place;
        int r = read_view(s, &place, &mounts, &view, e);

        if (r < 0)
                return r;
        return command_printed(c->action == ACTION_LIST ? print_store_list(&view, c->json)
                                                        : print_store_info(s, &place, &view, c->json),
                               e);
}

/* ---- verify ---- */

static int on_progress(void *context _unused_, uint64_t done, uint64_t total)
{
        progress_show_part("verifying", MIN(done, total), total);
        return stop_requested();
}

static void on_problem(void *context, const char *path, const char *text, bool removed)
{
        struct json_text *j = context;

        if (j) {
                json_text_open(j, NULL, '{');
                json_text_string(j, "path", path);
                json_text_string(j, "problem", text);
                json_text_bool(j, "removed", removed);
                json_text_close(j, '}');
                return;
        }
        progress_end();
        printf("%s: %s: %s\n", path, text, removed ? "thrown out" : "could not be thrown out");
}

static void print_verified(const struct cache_verify_result *r)
{
        char bytes[16];

        printf("%ju layers, %ju image indexes, %ju blobs, %ju tags, %ju chunks (%s): ", (uintmax_t) r->layers,
               (uintmax_t) r->images, (uintmax_t) r->blobs, (uintmax_t) r->refs, (uintmax_t) r->chunks,
               format_bytes(r->bytes, bytes, sizeof(bytes)));
        if (r->problems == 0)
                puts("no problems");
        else
                printf("%ju problem%s, %ju thrown out\n", (uintmax_t) r->problems, r->problems == 1 ? "" : "s",
                       (uintmax_t) r->removed);
}

static void put_verified(struct json_text *j, const struct cache_verify_result *r)
{
        json_text_close(j, ']');
        json_text_number(j, "layers", r->layers);
        json_text_number(j, "images", r->images);
        json_text_number(j, "blobs", r->blobs);
        json_text_number(j, "refs", r->refs);
        json_text_number(j, "chunks", r->chunks);
        json_text_number(j, "bytes", r->bytes);
        json_text_number(j, "removed", r->removed);
        json_text_close(j, '}');
}

static int verify(struct store *s, const struct cache_command *c, int *ret_code, struct error *e)
{
        struct json_text j = { 0 };
        const struct cache_verify_options options = {
                .report = on_problem,
                .report_context = c->json ? &j : NULL,
                .progress = on_progress,
        };
        struct cache_verify_result result;
        int r;

        stop_on_signals(STOP_ASKS);
        if (c->json) {
                json_text_open(&j, NULL, '{');
                json_text_open(&j, "problems", '[');
        }
        r = cache_verify(s, &options, &result, e);
        progress_end();
        if (r < 0) {
                buf_free(&j.text);
                return r;
        }
        *ret_code = result.problems > 0 ? ERROR_BAD_DATA : 0;
        if (c->json) {
                put_verified(&j, &result);
                return command_printed(json_text_print(&j), e);
        }
        print_verified(&result);
        return command_printed(0, e);
}

/* ---- prune, clear ---- */

static const char *const kind_names[INVENTORY_KINDS] = {
        [INVENTORY_BLOB] = "blob",   [INVENTORY_REF] = "ref",     [INVENTORY_IMAGE] = "image",
        [INVENTORY_LAYER] = "layer", [INVENTORY_DRAFT] = "draft", [INVENTORY_FOREIGN] = "foreign",
};

static void on_removed(void *context, const struct inventory_item *item, const char *why)
{
        struct json_text *j = context;
        char disk[16];

        if (j) {
                json_text_open(j, NULL, '{');
                json_text_string(j, "path", item->path);
                json_text_string(j, "kind", kind_names[item->kind]);
                json_text_number(j, "diskSize", item->size.disk);
                json_text_string(j, "cause", why);
                json_text_close(j, '}');
                return;
        }
        printf("%s: %s, removed: %s\n", item->path, format_bytes(item->size.disk, disk, sizeof(disk)), why);
}

/* The directories at which the image is mounted, with commas; "" when it is nowhere. */
static char *directories_of(const struct cache_image *i, const struct mount_table *mounts)
{
        _cleanup_buf_ struct buf b = { 0 };
        int r = 0;

        for (size_t k = 0; k < mounts->count && r == 0; k++) {
                struct digest digest;

                if (digest_parse(mounts->items[k].digest, &digest, NULL) == 0 && digest_equal(&digest, &i->manifest))
                        r = buf_printf(&b, "%s%s", b.len > 0 ? ", " : "", mounts->items[k].directory);
        }
        return r < 0 ? NULL : buf_steal(&b);
}

static int tell_in_use(const struct cache_view *v, const struct mount_table *mounts, struct json_text *j,
                       struct error *e)
{
        for (size_t k = 0; k < v->image_count; k++) {
                const struct cache_image *i = &v->images[k];
                _cleanup_free_ char *directories = NULL;

                if (!i->in_use)
                        continue;
                directories = directories_of(i, mounts);
                if (!directories)
                        return error_oom(e);
                if (j)
                        json_text_string(j, NULL, cache_image_name(i));
                else
                        printf("%s: in use%s%s\n", cache_image_name(i), *directories ? " at " : "", directories);
        }
        return 0;
}

static int finish_removal(const struct cache_command *c, const struct cache_view *v, const struct mount_table *mounts,
                          const struct cache_prune_result *result, struct json_text *j, struct error *e)
{
        char freed[16], left[16];
        int r;

        if (c->json) {
                json_text_close(j, ']');
                json_text_open(j, "inUse", '[');
        }
        r = result->in_use > 0 ? tell_in_use(v, mounts, c->json ? j : NULL, e) : 0;
        if (r < 0)
                return r;
        if (c->json) {
                json_text_close(j, ']');
                json_text_number(j, "kept", result->in_use);
                json_text_number(j, "freed", result->freed);
                json_text_number(j, "diskSize", result->left);
                json_text_close(j, '}');
                return command_printed(json_text_print(j), e);
        }
        printf("%s freed, %s left\n", format_bytes(result->freed, freed, sizeof(freed)),
               format_bytes(result->left, left, sizeof(left)));
        return command_printed(0, e);
}

static int make_room(struct store *s, const struct cache_command *c, int *ret_code, struct error *e)
{
        _cleanup_(mount_table_clear) struct mount_table mounts = { 0 };
        _cleanup_cache_view_ struct cache_view view = { 0 };
        struct json_text j = { 0 };
        const struct cache_prune_options options = {
                .everything = c->action == ACTION_CLEAR,
                .even_in_use = c->force,
                .older_than_s = c->older_than_s,
                .max_size = c->max_size > 0 ? c->max_size : UINT64_MAX,
                .report = on_removed,
                .report_context = c->json ? &j : NULL,
        };
        struct cache_prune_result result;
        struct store_place place;
        int r = read_view(s, &place, &mounts, &view, e);

        if (r < 0)
                return r;
        if (c->json) {
                json_text_open(&j, NULL, '{');
                json_text_open(&j, "removed", '[');
        }
        r = cache_prune(s, &view, &options, &result, e);
        if (r == 0)
                r = finish_removal(c, &view, &mounts, &result, &j, e);
        buf_free(&j.text);
        if (c->action == ACTION_CLEAR && result.in_use > 0)
                *ret_code = ERROR_MOUNT;
        return r;
}

/* ---- all of it ---- */

/* Opening would make a store of any directory. One that was named is to be one already: it may be a slip. */
static int check_named_store(const char *directory, struct error *e)
{
        _cleanup_free_ char *layers = str_printf("%s/layers", directory), *blobs = str_printf("%s/blobs", directory);

        if (!layers || !blobs)
                return error_oom(e);
        if (faccessat(AT_FDCWD, directory, F_OK, AT_EACCESS) < 0)
                return error_errno(e, errno, "store %s", directory);
        if (faccessat(AT_FDCWD, layers, F_OK, AT_EACCESS) < 0 && faccessat(AT_FDCWD, blobs, F_OK, AT_EACCESS) < 0 &&
            errno == ENOENT)
                return error_set(e, ERROR_NOT_FOUND, ENOENT, "store %s: there is no store: neither layers nor blobs",
                                 directory);
        return 0;
}

static int run(const struct cache_command *c, int *ret_code, struct error *e)
{
        _cleanup_(store_close_ptr) struct store *store = NULL;
        int r;

        r = log_open(c->log_level, NULL, e);
        if (r == 0 && c->directory && *c->directory)
                r = check_named_store(c->directory, e);
        if (r == 0)
                r = store_open(c->directory, &store, e);
        if (r < 0)
                return r;
        switch (c->action) {
        case ACTION_INFO:
        case ACTION_LIST:
                return show(store, c, e);
        case ACTION_VERIFY:
                return verify(store, c, ret_code, e);
        case ACTION_PRUNE:
        case ACTION_CLEAR:
                break;
        }
        return make_room(store, c, ret_code, e);
}

static int find_action(struct cache_command *c, const char *name, struct error *e)
{
        for (size_t k = 0; k < ELEMENTSOF(actions); k++) {
                if (!str_eq(name, actions[k].name))
                        continue;
                c->action = actions[k].action;
                return 0;
        }
        return error_set(e, ERROR_USAGE, EINVAL, "cache takes info, list, verify, prune or clear%s%s%s",
                         name ? ", not \"" : "", name ? name : "", name ? "\"" : "");
}

int command_cache(int argc, char **argv)
{
        struct cache_command c = { .log_level = LOG_LEVEL_WARNING, .older_than_s = -1 };
        struct error e = ERROR_INIT;
        int code = 0, r;

        if (argc > 1 && (str_eq(argv[1], "--help") || str_eq(argv[1], "-h"))) {
                fputs(help, stdout);
                return 0;
        }
        r = find_action(&c, argc > 1 ? argv[1] : NULL, &e);
        if (r == 0)
                r = parse_options(&c, argc - 1, argv + 1, &e);
        if (r > 0)
                return 0;
        if (r == 0)
                r = run(&c, &code, &e);
        return r < 0 ? command_failed(&e) : code;
}
