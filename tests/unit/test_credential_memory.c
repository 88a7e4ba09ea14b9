/* SPDX-License-Identifier: Apache-2.0 */

/* A secret that was read and cleared is nowhere in the process's memory. The tests themselves know it only in two
 * halves, and let a shell write it into files and helpers. */

#include "credential_fixture.h"

#define FIRST_HALF "Zk7-first"
#define SECOND_HALF "Qx9-second12"

/* What stands before: free() puts its own data over the first bytes of a block, which proves nothing. */
#define PADDING "padding-that-freed-memory-may-overwrite-first-"

/* Base64 of the halves; "u:" and PADDING are 48 bytes, so that it looks the same behind them. */
#define FIRST_HALF_64 "Wms3LWZpcnN0"
#define SECOND_HALF_64 "UXg5LXNlY29uZDEy"
#define PRINT_AUTH                                                                                       \
        "printf '{\"auths\":{\"h.example\":{\"auth\":\"%s\"' \"$(printf '%s' u: " PADDING " " FIRST_HALF \
        " " SECOND_HALF " | base64 -w 0)\""
#define PRINT_ANSWER "printf '{\"Username\":\"u\",\"Secret\":\"%s%s%s\"}' " PADDING " " FIRST_HALF " " SECOND_HALF

#define WINDOW MIB

static bool has_halves(const char *data, size_t n, const char *first, const char *second)
{
        const char *end = data + n, *at = data;

        while ((at = memmem(at, (size_t) (end - at), first, strlen(first)))) {
                at += strlen(first);
                if ((size_t) (end - at) >= strlen(second) && memcmp(at, second, strlen(second)) == 0)
                        return true;
        }
        return false;
}

/* Windows overlap, so that no hit is cut in two. */
static bool region_holds(int mem, uint64_t from, uint64_t to, char *window, const char *first, const char *second)
{
        size_t overlap = strlen(first) + strlen(second);

        for (uint64_t at = from; at < to; at += WINDOW - overlap) {
                ssize_t n = pread(mem, window, MIN((uint64_t) WINDOW, to - at), (off_t) at);

                if (n > 0 && has_halves(window, (size_t) n, first, second))
                        return true;
        }
        return false;
}

/* Looks through all that is writable, but for the sanitizers' huge shadows. */
static bool memory_holds(const char *first, const char *second)
{
        _cleanup_close_ int mem = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
        _cleanup_free_ char *window = malloc(WINDOW);
        FILE *maps = fopen("/proc/self/maps", "re");
        unsigned long from, to;
        char line[600], mode[8];
        bool found = false;

        assert_true(mem >= 0 && window && maps);
        while (!found && fgets(line, sizeof(line), maps))
                if (sscanf(line, "%lx-%lx %7s", &from, &to, mode) == 3 && mode[1] == 'w' && to - from < 256 * MIB)
                        found = region_holds(mem, from, to, window, first, second);
        fclose(maps);
        explicit_bzero(window, WINDOW);
        return found;
}

static void run_shell(const char *command)
{
        char text[600];

        snprintf(text, sizeof(text), "cd '%s' && %s", home, command);
        assert_int_equal(system(text), 0);
}

static void find_and_clear(int result)
{
        struct credential c = {};
        char *identity;

        assert_int_equal(credential_find(&(struct credential_options) {}, "h.example", "a", &c, NULL), result);
        if (result < 0)
                return;

        /* What the test looks for is found as long as it is there. */
        assert_string_equal(c.user, "u");
        assert_true(memory_holds(FIRST_HALF, SECOND_HALF));
        identity = credential_identity(&c);
        assert_non_null(identity);
        free(identity);
        credential_clear(&c);
}

static void a_files_secret_is_overwritten(_unused_ void **state)
{
        run_shell("mkdir -p run/containers && { " PRINT_AUTH "; printf '}}}'; } >run/containers/auth.json");
        find_and_clear(0);
        assert_false(memory_holds(FIRST_HALF, SECOND_HALF));
        assert_false(memory_holds(FIRST_HALF_64, SECOND_HALF_64));
}

static void a_refused_entrys_secret_is_overwritten(_unused_ void **state)
{
        run_shell("mkdir -p run/containers && { " PRINT_AUTH
                  "; printf ',\"identitytoken\":7}}}'; } >run/containers/auth.json");
        find_and_clear(-EBADMSG);
        assert_false(memory_holds(FIRST_HALF_64, SECOND_HALF_64));
}

static void a_helpers_secret_is_overwritten(_unused_ void **state)
{
        make_helper("good", PRINT_ANSWER "; " PRINT_ANSWER " >&2");
        make_file("run/containers/auth.json", "{\"credsStore\":\"good\"}", 0600);
        find_and_clear(0);
        assert_false(memory_holds(FIRST_HALF, SECOND_HALF));
}

static void the_secret_of_a_helper_that_fails_is_overwritten(_unused_ void **state)
{
        make_helper("bad", PRINT_ANSWER "; exit 1");
        make_file("run/containers/auth.json", "{\"credsStore\":\"bad\"}", 0600);
        find_and_clear(-EACCES);
        assert_false(memory_holds(FIRST_HALF, SECOND_HALF));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(a_files_secret_is_overwritten),
                TEST(a_refused_entrys_secret_is_overwritten),
                TEST(a_helpers_secret_is_overwritten),
                TEST(the_secret_of_a_helper_that_fails_is_overwritten),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
