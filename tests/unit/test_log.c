/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <regex.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "regfs/io.h"
#include "regfs/log.h"
#include "regfs/text.h"
#include "regfs/thread.h"

#define TIME "^[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9]\\.[0-9]{3}Z "

static char path[4096];

static int make_path(void **state _unused_)
{
        const char *parent = getenv("TMPDIR");
        int fd;

        (void) snprintf(path, sizeof(path), "%s/regfs-log-XXXXXX", parent ? parent : "/tmp");
        fd = mkstemp(path);
        if (fd < 0)
                return -1;
        close(fd);
        return unlink(path);
}

static int remove_path(void **state _unused_)
{
        return unlink(path) == 0 || errno == ENOENT ? 0 : -1;
}

/* A log is opened once in a process: each case has a process of its own. */
static void in_child(void (*run)(void))
{
        pid_t pid = fork();
        int status;

        assert_true(pid >= 0);
        if (pid == 0) {
                run();
                _exit(0);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
}

static void open_log(enum log_level level)
{
        if (log_open(level, path, NULL) < 0)
                _exit(1);
}

static char *read_log(void)
{
        _cleanup_buf_ struct buf b = { 0 };

        assert_int_equal(file_read(AT_FDCWD, path, 64 * MIB, &b, NULL), 0);
        return buf_steal(&b);
}

static void assert_matches(const char *text, const char *pattern)
{
        regex_t regex;
        int r;

        assert_int_equal(regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB), 0);
        r = regexec(&regex, text, 0, NULL, 0);
        regfree(&regex);
        if (r != 0)
                fail_msg("\"%s\" does not match %s", text, pattern);
}

static size_t count_lines(const char *s)
{
        size_t n = 0;

        for (; (s = strchr(s, '\n')); s++)
                n++;
        return n;
}

static void write_without_open(void)
{
        if (dup2(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600), STDERR_FILENO) < 0)
                _exit(1);
        log_error("nobody asked");
        if (log_enabled(LOG_LEVEL_ERROR))
                _exit(2);
}

static void nothing_is_logged_before_the_log_is_open(void **state _unused_)
{
        _cleanup_free_ char *text = NULL;

        in_child(write_without_open);
        text = read_log();
        assert_string_equal(text, "");
}

static void write_one_line(void)
{
        open_log(LOG_LEVEL_DEBUG);
        log_debug("flight begins: bytes %d-%d", 0, 4194303);
}

static void line_has_time_level_and_thread(void **state _unused_)
{
        _cleanup_free_ char *text = NULL;
        struct stat st;

        in_child(write_one_line);
        text = read_log();
        assert_matches(text, TIME "debug \\[[0-9]+/[^]]+\\] flight begins: bytes 0-4194303\n$");
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_mode & 07777, 0600);
}

static void log_is_appended(void **state _unused_)
{
        _cleanup_free_ char *text = NULL;

        in_child(write_one_line);
        in_child(write_one_line);
        text = read_log();
        assert_int_equal(count_lines(text), 2);
}

static enum log_level level_of_child;

static void write_at_every_level(void)
{
        open_log(level_of_child);
        log_error("e");
        log_warning("w");
        log_info("i");
        log_debug("d");
        log_write(LOG_LEVEL_NONE, "n");
        for (enum log_level l = LOG_LEVEL_ERROR; l <= LOG_LEVEL_DEBUG; l++)
                if (log_enabled(l) != (l <= level_of_child))
                        _exit(1);
        if (log_enabled(LOG_LEVEL_NONE))
                _exit(2);
}

static void lines_above_the_level_are_left_out(void **state _unused_)
{
        for (enum log_level l = LOG_LEVEL_NONE; l <= LOG_LEVEL_DEBUG; l++) {
                _cleanup_free_ char *text = NULL;

                level_of_child = l;
                in_child(write_at_every_level);
                text = read_log();
                assert_int_equal(count_lines(text), l - LOG_LEVEL_NONE);
                assert_true((strstr(text, " error ") != NULL) == (l >= LOG_LEVEL_ERROR));
                assert_true((strstr(text, " debug ") != NULL) == (l >= LOG_LEVEL_DEBUG));
                assert_int_equal(unlink(path), 0);
        }
}

static void level_is_read_by_its_name(void **state _unused_)
{
        static const struct {
                const char *name;
                enum log_level level;
        } table[] = {
                { "none", LOG_LEVEL_NONE }, { "error", LOG_LEVEL_ERROR }, { "warning", LOG_LEVEL_WARNING },
                { "info", LOG_LEVEL_INFO }, { "debug", LOG_LEVEL_DEBUG },
        };
        enum log_level level = LOG_LEVEL_INFO;

        assert_int_equal(log_level_parse("DEBUG", &level), -EINVAL);
        assert_int_equal(log_level_parse("", &level), -EINVAL);
        assert_int_equal(level, LOG_LEVEL_INFO);
        for (size_t k = 0; k < ELEMENTSOF(table); k++) {
                assert_int_equal(log_level_parse(table[k].name, &level), 0);
                assert_int_equal(level, table[k].level);
        }
}

static void write_in_scopes(void)
{
        open_log(LOG_LEVEL_INFO);
        log_info("outside");
        {
                LOG_SCOPE(42, "blob");
                log_info("outer");
                {
                        struct log_scope request, object;

                        log_scope_begin(&request, 43, NULL);
                        log_info("request");
                        log_scope_begin(&object, 0, "other");
                        log_info("object");
                        if (log_current_request() != 43)
                                _exit(1);
                        log_scope_end(&object);
                        log_scope_end(&request);
                }
                log_info("outer again");
        }
        log_info("outside again");
        if (log_current_request() != 0)
                _exit(2);
}

static void scope_gives_request_and_object_until_it_ends(void **state _unused_)
{
        _cleanup_free_ char *text = NULL;

        in_child(write_in_scopes);
        text = read_log();
        assert_matches(text, "\\] outside\n.*\\] #42 blob: outer\n.*\\] #43 blob: request\n.*\\] #43 other: object\n"
                             ".*\\] #42 blob: outer again\n.*\\] outside again\n$");
}

static void write_hostile_text(void)
{
        open_log(LOG_LEVEL_INFO);
        LOG_SCOPE(0, "a\x1b[2J");
        log_info("%s", "x\r\n2026-01-01T00:00:00.000Z error forged\xff");
}

static void hostile_text_stays_on_its_line(void **state _unused_)
{
        _cleanup_free_ char *text = NULL;

        in_child(write_hostile_text);
        text = read_log();
        assert_int_equal(count_lines(text), 1);
        assert_true(str_ends_with(text, "] a\\x1b[2J: x\\r\\n2026-01-01T00:00:00.000Z error forged\\xff\n"));
}

static void write_long_text(void)
{
        char text[3000];

        for (size_t k = 0; k + 1 < sizeof(text); k += 2)
                memcpy(text + k, "\xc3\xa9", 2);
        text[sizeof(text) - 2] = text[sizeof(text) - 1] = '\0';
        open_log(LOG_LEVEL_INFO);
        log_info("%s", text);
        log_info("x%s", text);
        LOG_SCOPE(1, text);
        log_info("after a long object");
}

static void long_line_is_cut_between_characters(void **state _unused_)
{
        _cleanup_free_ char *text = NULL;

        in_child(write_long_text);
        text = read_log();
        assert_int_equal(count_lines(text), 3);
        assert_null(strstr(text, "\\x"));
        assert_true(str_ends_with(text, ": after a long object\n"));
        for (const char *line = text; *line;) {
                size_t n = strcspn(line, "\n");

                assert_true(n < 2100);
                for (size_t k = 0; k < n; k += utf8_length(line + k, n - k))
                        assert_true(utf8_length(line + k, n - k) > 0);
                line += n + 1;
        }
}

static void write_keeping_errno(void)
{
        if (log_open(LOG_LEVEL_INFO, NULL, NULL) < 0)
                _exit(2);
        close(STDERR_FILENO); /* every write fails */
        errno = EXDEV;
        log_info("x");
        log_debug("y");
        if (errno != EXDEV)
                _exit(1);
}

static void logging_keeps_errno(void **state _unused_)
{
        in_child(write_keeping_errno);
}

static void write_to_stderr(void)
{
        if (dup2(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600), STDERR_FILENO) < 0 ||
            log_open(LOG_LEVEL_INFO, NULL, NULL) < 0)
                _exit(1);
        log_info("to standard error");
}

static void log_without_a_path_is_standard_error(void **state _unused_)
{
        _cleanup_free_ char *text = NULL;

        in_child(write_to_stderr);
        text = read_log();
        assert_true(str_ends_with(text, "] to standard error\n"));
}

static void log_that_cannot_be_opened_is_named(void **state _unused_)
{
        _cleanup_free_ char *absent = str_printf("%s/absent", path);
        struct error e = ERROR_INIT;

        assert_int_equal(log_open(LOG_LEVEL_DEBUG, absent, &e), -ENOENT);
        assert_non_null(strstr(e.message, absent));
        assert_false(log_enabled(LOG_LEVEL_ERROR));
}

#define THREADS 8
#define LINES 300

static void *write_many(void *arg)
{
        const char *object = arg;

        for (int k = 0; k < LINES; k++) {
                LOG_SCOPE(log_next_request(), object);
                log_info("%s %s", object, object);
        }
        return NULL;
}

static void write_from_threads(void)
{
        static char objects[THREADS][64];
        pthread_t threads[THREADS];

        open_log(LOG_LEVEL_INFO);
        for (size_t k = 0; k < THREADS; k++) {
                memset(objects[k], (int) ('a' + k), sizeof(objects[k]) - 1);
                if (thread_start(&threads[k], "writer", write_many, objects[k]) != 0)
                        _exit(1);
        }
        for (size_t k = 0; k < THREADS; k++)
                if (pthread_join(threads[k], NULL) != 0)
                        _exit(2);
        if (log_next_request() != THREADS * LINES + 1)
                _exit(3);
}

static void lines_of_threads_do_not_mix(void **state _unused_)
{
        _cleanup_free_ char *text = NULL;
        regex_t regex;

        in_child(write_from_threads);
        text = read_log();
        assert_int_equal(count_lines(text), THREADS * LINES);
        assert_int_equal(
                regcomp(&regex, TIME "info \\[[0-9]+/writer\\] #[0-9]+ (([a-h])\\2{62}): \\1 \\1$", REG_EXTENDED), 0);
        for (char *line = text, *end; *line; line = end + 1) {
                end = strchr(line, '\n');
                *end = '\0';
                assert_int_equal(regexec(&regex, line, 0, NULL, 0), 0);
        }
        regfree(&regex);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(nothing_is_logged_before_the_log_is_open, make_path, remove_path),
                cmocka_unit_test_setup_teardown(line_has_time_level_and_thread, make_path, remove_path),
                cmocka_unit_test_setup_teardown(log_is_appended, make_path, remove_path),
                cmocka_unit_test_setup_teardown(lines_above_the_level_are_left_out, make_path, remove_path),
                cmocka_unit_test(level_is_read_by_its_name),
                cmocka_unit_test_setup_teardown(scope_gives_request_and_object_until_it_ends, make_path, remove_path),
                cmocka_unit_test_setup_teardown(hostile_text_stays_on_its_line, make_path, remove_path),
                cmocka_unit_test_setup_teardown(long_line_is_cut_between_characters, make_path, remove_path),
                cmocka_unit_test_setup_teardown(logging_keeps_errno, make_path, remove_path),
                cmocka_unit_test_setup_teardown(log_without_a_path_is_standard_error, make_path, remove_path),
                cmocka_unit_test_setup_teardown(log_that_cannot_be_opened_is_named, make_path, remove_path),
                cmocka_unit_test_setup_teardown(lines_of_threads_do_not_mix, make_path, remove_path),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
