/* SPDX-License-Identifier: Apache-2.0 */

/* Torture: an image is opened, listed and read while the Nth call of a kind fails, for every N; once that call alone,
 * once all from it on. Whatever happens, each step ends with right bytes or with an error that says what failed, the
 * open image reads right once nothing fails any more, nothing stays behind in the process or in the store, and the
 * store opens again and has every byte right. Where it is only the store's disk that is full there are no errors, but
 * of those whose purpose is to fill it.
 *
 *     torture SCENARIO [KIND [N [once|on]]]
 *
 * REGFS_TORTURE is how many N are tried of each kind and mode, "all" for every one. By default it is a sample, but
 * all of them of the full disk. */

#include "images.h"
#include "inject.h"

#include <sched.h>
#include <signal.h>
#include <xxhash.h>

#include "regfs.h"

#define CASES_BY_DEFAULT 12
#define CASE_SECONDS 60
#define FILES_MAX 4096
#define READ_SIZE 100003
#define FAILURES_MAX 20

/* What a store begins with in each case. */
enum start {
        START_EMPTY,
        START_INDEXED, /* no content */
        START_FULL,
};

static const struct scenario {
        const char *name;
        void (*make)(struct layout *l);
        enum start start;
        uint64_t cache_size;
        unsigned rounds; /* of reading, besides the first, with time for an eviction between */
        bool publishes;  /* an index of the image, which is what it is opened by when nothing fails any more */
} scenarios[] = {
        { "plain", make_plain, START_EMPTY, 0, 0, false },
        { "again", make_plain, START_INDEXED, 0, 0, false },
        { "cached", make_plain, START_FULL, 0, 0, false },
        { "estargz", make_estargz, START_EMPTY, 0, 0, false },
        { "zstdchunked", make_zstdchunked, START_EMPTY, 0, 0, false },
        { "published", make_published, START_EMPTY, 0, 0, false },
        { "soci", make_soci, START_EMPTY, 0, 0, false },
        { "evict", make_zstdchunked, START_EMPTY, 128 * KIB, 3, false },
        { "uncached", make_estargz, START_EMPTY, REGFS_CACHE_NOTHING, 0, false },
        { "publish", make_plain, START_EMPTY, 0, 0, true },
};

/* An inode as it was when nothing failed. */
struct expected {
        struct stat st;
        uint64_t hash;
};

static const struct scenario *scenario;
static struct layout *layout;
static struct expected files[FILES_MAX];
static size_t file_count;

/* The case at hand. */
static enum fault_kind kind;
static uint64_t at;
static bool on;
static unsigned failures;
static size_t served, refused;
static bool calm;    /* nothing fails in this walk */
static bool filling; /* the store is what this call is about */

static void blame(const char *format, ...) _printf_(1, 2);
static void blame(const char *format, ...)
{
        va_list arguments;

        fprintf(stderr, "%s: %s %ju %s: ", scenario->name, fault_name(kind), (uintmax_t) at, on ? "on" : "once");
        va_start(arguments, format);
        vfprintf(stderr, format, arguments);
        va_end(arguments);
        fprintf(stderr, "\n");
        fault_print();
        if (++failures >= FAILURES_MAX) {
                void *made = layout;

                (void) layout_teardown(&made);
                exit(1);
        }
}

static void on_alarm(int number _unused_)
{
        static const char text[] = "this case hangs:\n";

        (void) !write(STDERR_FILENO, text, strlen(text));
        dprintf(STDERR_FILENO, "%s: %s %ju %s\n", scenario->name, fault_name(kind), (uintmax_t) at, on ? "on" : "once");
        fault_print();
        abort();
}

/* ---- what must hold of a call ---- */

/* An error that is none of the fault's is a guess at best. What cannot be told from a real failure of the same kind is
 * allowed: a file that cannot be mapped for want of descriptors, say, stays a matter of descriptors. */
static void expect_error(const char *what, int r, const struct regfs_error *e)
{
        refused++;
        if (calm)
                blame("%s fails although nothing fails any more: %s", what, e->message);
        else if (!*e->message || e->kind == REGFS_ERROR_NONE || e->code != -r)
                blame("%s: error %d without what it needs: kind %d, code %d, \"%s\"", what, r, (int) e->kind, e->code,
                      e->message);
        else if (kind == FAULT_FULL && !filling)
                blame("%s fails although only the store is full: %s", what, e->message);
        else if (kind == FAULT_FULL && !strstr(e->message, layout->store))
                blame("%s: \"%s\" does not name the store", what, e->message);
        else if (e->code != fault_errno(kind))
                blame("%s: \"%s\" (%s) hides %s", what, e->message, strerror(e->code), strerror(fault_errno(kind)));
}

/* ---- walking ---- */

static uint64_t read_file(struct regfs_image *image, uint64_t ino, const struct stat *st, bool *ret_whole)
{
        static uint8_t data[READ_SIZE];
        struct regfs_error e = { 0 };
        uint64_t hash = 0;

        *ret_whole = true;
        for (uint64_t offset = 0; offset < (uint64_t) st->st_size;) {
                size_t n = (size_t) MIN((uint64_t) st->st_size - offset, (uint64_t) sizeof(data));
                ssize_t r;

                memset(data, 0xee, n);
                r = regfs_read(image, ino, data, n, offset, &e);
                if (r < 0) {
                        expect_error("a read", (int) r, &e);
                        *ret_whole = false;
                } else if ((size_t) r != n) {
                        blame("a read is short: %zd instead of %zu", r, n);
                        *ret_whole = false;
                } else {
                        served++;
                }
                hash = XXH3_64bits_withSeed(data, n, hash);
                offset += n;
        }
        return hash;
}

/* All inodes, which are numbered from 1 on. With LEARN they become what is expected. */
static void walk(struct regfs_image *image, bool learn)
{
        struct regfs_error e = { 0 };
        struct stat st;
        size_t k = 0;

        for (; regfs_stat(image, k + 1, &st, &e) == 0; k++) {
                uint64_t hash = 0;
                bool whole = true;

                if (k == FILES_MAX)
                        fail_msg("too many inodes");
                if (S_ISREG(st.st_mode))
                        hash = read_file(image, k + 1, &st, &whole);
                if (learn)
                        files[k] = (struct expected) { st, hash };
                else if (memcmp(&st, &files[k].st, sizeof(st)) != 0)
                        blame("inode %zu is another one", k + 1);
                else if (whole && hash != files[k].hash)
                        blame("inode %zu has wrong bytes", k + 1);
        }
        if (learn)
                file_count = k;
        else if (k != file_count)
                blame("%zu inodes instead of %zu", k, file_count);
}

static const char *published_path(void)
{
        static char path[200];

        snprintf(path, sizeof(path), "%s/published", layout->path);
        return path;
}

static struct regfs_image *open_image(void)
{
        struct regfs_options o = REGFS_OPTIONS_INIT;
        struct regfs_image *image = NULL;
        struct regfs_error e = { 0 };
        char reference[200], index[220];
        int r;

        o.cache_dir = layout->store;
        o.platform = "linux/amd64";
        o.timeout_s = 10;
        o.memory = 8 * MIB;
        o.cache_size = scenario->cache_size;
        if (scenario->publishes && calm) {
                snprintf(index, sizeof(index), "oci:%s", published_path());
                o.index = index;
        }
        snprintf(reference, sizeof(reference), "oci:%s:image", layout->path);
        r = regfs_open(reference, &o, &image, &e);
        if (r == 0)
                return image;
        expect_error("opening", r, &e);
        return NULL;
}

/* Into a layout beside the image's own. */
static void publish(void)
{
        const struct publish_options where = { .output = published_path() };
        _cleanup_(image_close_ptr) struct image *image = NULL;
        struct regfs_options o = REGFS_OPTIONS_INIT;
        struct publish_result result = { 0 };
        struct regfs_error e = { 0 };
        char reference[200];
        int r;

        o.cache_dir = layout->store;
        o.platform = "linux/amd64";
        snprintf(reference, sizeof(reference), "oci:%s:image", layout->path);
        filling = true;
        r = image_open_for_index(reference, &o, &image, (struct error *) &e);
        if (r == 0)
                r = image_publish(image, &where, &result, (struct error *) &e);
        if (r < 0)
                expect_error("publishing", r, &e);
        else if (result.layers != LAYERS_MAX)
                blame("%zu layers are published", result.layers);
        filling = false;
}

/* What is published is whole, or not there: once nothing fails, it is there, and the image opens by it. */
static void expect_published(bool learn)
{
        struct regfs_image *image;

        publish();
        (void) nftw(layout->store, layout_remove_one, 16, FTW_PHYS | FTW_DEPTH);
        image = open_image();
        if (image)
                walk(image, learn);
        regfs_close(image);
}

static void run_calmly(bool learn)
{
        struct regfs_image *image;

        calm = true;
        if (scenario->publishes)
                expect_published(learn);
        image = open_image();
        if (image)
                walk(image, learn);
        regfs_close(image);
        calm = false;
}

/* ---- the store ---- */

static int remove_content(const char *path, const struct stat *st _unused_, int type _unused_, struct FTW *ftw)
{
        const char *name = path + ftw->base;

        return strcmp(name, "content") == 0 || strcmp(name, "map") == 0 ? unlink(path) : 0;
}

/* What could not be opened or listed, or named for want of memory, could not be removed either: that is for a later
 * start, when it is old. */
static bool is_excused(void)
{
        return kind == FAULT_OPEN || kind == FAULT_ALLOC || kind == FAULT_LIBRARY;
}

static size_t strays;

static int count_stray(const char *path, const struct stat *st _unused_, int type _unused_, struct FTW *ftw)
{
        strays += ftw->level > 0;
        if (ftw->level == 1 && !is_excused())
                fprintf(stderr, "left behind: %s\n", path);
        return 0;
}

static int count_draft(const char *path, const struct stat *st _unused_, int type _unused_, struct FTW *ftw)
{
        strays += strstr(path + ftw->base, "draft") != NULL;
        return 0;
}

/* Tables of contents that were there are there still, the same files: a fault is no reason to make them anew. */
static uint64_t tables;
static size_t table_count, tables_expected;

static int add_table_file(const char *path, const struct stat *st, int type _unused_, struct FTW *ftw)
{
        if (strcmp(path + ftw->base, "toc") == 0) {
                tables += (uint64_t) st->st_ino * 0x9e3779b97f4a7c15u;
                table_count++;
        }
        return 0;
}

static uint64_t table_files(void)
{
        tables = table_count = 0;
        (void) nftw(layout->store, add_table_file, 16, FTW_PHYS);
        return tables;
}

static int remove_leftover(const char *path, const struct stat *st _unused_, int type _unused_, struct FTW *ftw)
{
        return ftw->level > 0 ? remove(path) : 0;
}

static const char *store_tmp(void)
{
        static char path[200];

        snprintf(path, sizeof(path), "%s/tmp", layout->store);
        return path;
}

static void begin_store(void)
{
        (void) nftw(store_tmp(), remove_leftover, 16, FTW_PHYS | FTW_DEPTH);
        (void) nftw(published_path(), layout_remove_one, 16, FTW_PHYS | FTW_DEPTH);
        if (scenario->start == START_EMPTY)
                (void) nftw(layout->store, layout_remove_one, 16, FTW_PHYS | FTW_DEPTH);
        if (scenario->start == START_INDEXED)
                (void) nftw(layout->store, remove_content, 16, FTW_PHYS);
}

static void expect_no_strays(void)
{
        strays = 0;
        (void) nftw(store_tmp(), count_stray, 16, FTW_PHYS);
        (void) nftw(published_path(), count_draft, 16, FTW_PHYS);
        if (strays > 0 && !is_excused())
                blame("%zu leftovers in the store", strays);
}

/* ---- a case ---- */

static void expect_nothing_kept(const struct account *before)
{
        struct account after;

        account_take(&after);
        /* A thread that was joined is listed for a moment more. */
        for (int k = 0; k < 10000 && after.threads > before->threads; k++) {
                sched_yield();
                account_take(&after);
        }
        if (after.allocations != before->allocations || after.mappings != before->mappings ||
            after.descriptors != before->descriptors || after.threads != before->threads) {
                blame("%zd allocations, %zd mappings, %zd descriptors, %zd threads are left",
                      (ssize_t) (after.allocations - before->allocations),
                      (ssize_t) (after.mappings - before->mappings),
                      (ssize_t) (after.descriptors - before->descriptors), (ssize_t) (after.threads - before->threads));
                account_print();
        }
}

/* Returns how many calls of the kind there were. */
static uint64_t run_case(void)
{
        struct regfs_image *image;
        struct account before;
        uint64_t calls, known;

        begin_store();
        known = table_files();
        account_take(&before);
        account_mark();
        alarm(CASE_SECONDS);
        fault_arm(kind, at, on);
        if (scenario->publishes)
                publish();
        image = open_image();
        for (unsigned k = 0; image && k <= scenario->rounds; k++) {
                if (k > 0)
                        (void) nanosleep(&(struct timespec) { .tv_nsec = 5000000 }, NULL);
                walk(image, false);
        }
        calls = fault_disarm();
        if (image) {
                calm = true;
                walk(image, false);
                calm = false;
        }
        regfs_close(image);
        expect_nothing_kept(&before);
        expect_no_strays();
        if (scenario->start != START_EMPTY && table_files() != known)
                blame("a table of contents was made anew");
        run_calmly(false);
        (void) table_files();
        if (kind == FAULT_FULL && table_count != tables_expected)
                blame("%zu tables of contents are kept instead of %zu", table_count, tables_expected);
        expect_nothing_kept(&before);
        alarm(0);
        return calls;
}

/* All N up to the first that no call has, or CASES of them. */
static void run_kind(uint64_t cases)
{
        uint64_t last, tried = 0;

        served = refused = 0;
        at = UINT64_MAX;
        last = run_case();
        for (at = 1; at <= last; tried++) {
                uint64_t calls = run_case();

                /* Threads make some more calls in one run than in another. */
                if (!on)
                        last = MAX(last, calls);
                at += MAX(last / cases, (uint64_t) 1);
        }
        printf("%-12s %-7s %-5s %5ju calls, %5ju cases, %7zu reads right, %6zu errors\n", scenario->name,
               fault_name(kind), on ? "on" : "once", (uintmax_t) last, (uintmax_t) tried, served, refused);
        fflush(stdout);
}

static const struct scenario *find_scenario(const char *name)
{
        for (size_t k = 0; k < ELEMENTSOF(scenarios); k++)
                if (strcmp(scenarios[k].name, name) == 0)
                        return &scenarios[k];
        fprintf(stderr, "no such scenario: %s\n", name);
        exit(2);
}

static void run(int argc, char **argv)
{
        const char *cases = getenv("REGFS_TORTURE");
        uint64_t count = !cases || !*cases           ? CASES_BY_DEFAULT
                         : strcmp(cases, "all") == 0 ? UINT64_MAX
                                                     : strtoull(cases, NULL, 10);

        for (unsigned k = FAULT_NONE + 1; k < FAULT_KINDS; k++) {
                uint64_t all = k == FAULT_FULL && !cases ? UINT64_MAX : count;

                kind = (enum fault_kind) k;
                if (argc > 2 ? strcmp(argv[2], fault_name(kind)) != 0 : kind == FAULT_LIBRARY)
                        continue;
                for (int mode = 0; mode < 2; mode++) {
                        on = mode == 1;
                        if (argc > 4 && on != (strcmp(argv[4], "on") == 0))
                                continue;
                        at = argc > 3 ? strtoull(argv[3], NULL, 10) : 0;
                        if (argc > 3)
                                run_case();
                        else
                                run_kind(MAX(all, (uint64_t) 1));
                }
        }
}

int main(int argc, char **argv)
{
        void *made;

        if (argc < 2)
                return 2;
        scenario = find_scenario(argv[1]);
        signal(SIGALRM, on_alarm);
        if (layout_setup(&made) < 0)
                return 1;
        layout = made;
        scenario->make(layout);
        run_calmly(true);
        run_calmly(false);
        (void) table_files();
        tables_expected = table_count;
        fault_full_below(layout->store);
        if (failures == 0)
                run(argc, argv);
        return layout_teardown(&made) < 0 || failures > 0;
}
